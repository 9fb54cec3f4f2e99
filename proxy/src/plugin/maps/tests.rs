//! Maps from outside: each kind, many threads at once, files that come back, differ, are damaged.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway_abi::maps as abi;

use super::file::MapFault;
use super::shape::{HEADER_WORDS, Sizes};
use super::store::{Policy, anonymous};
use super::*;

const KEEP: Policy = Policy { fresh: false, bytes_max: 1 << 30 };
/// What takes longer never ends.
const PATIENCE: Duration = Duration::from_secs(60);
const FRESH: Policy = Policy { fresh: true, ..KEEP };

fn shape(kind: u32, key_bytes: u32, fields: &str, entries_max: u32) -> MapShape {
    let value_bytes = fields::parse(fields, abi::VALUE_BYTES_MAX).expect("good").iter().map(fields::Field::bytes).sum();
    MapShape::new("m", Sizes { kind, key_bytes, value_bytes, entries_max }, fields).expect("good")
}

fn map(kind: u32, key_bytes: u32, fields: &str, entries_max: u32) -> Map {
    anonymous(&shape(kind, key_bytes, fields, entries_max), 3).expect("memory")
}

fn long(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

fn index(index: u32) -> [u8; 4] {
    index.to_le_bytes()
}

/// Keys and values, by key.
fn all(map: &Map) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entry = |place| map.at(place).expect("nobody writes").map(|entry| (entry.key, entry.value));
    let mut all: Vec<_> = (0..map.places()).filter_map(entry).collect();
    all.sort();
    all
}

#[test]
fn arrays_have_all_their_entries_from_the_beginning() {
    for kind in [abi::ARRAY, abi::CORE_ARRAY] {
        let map = map(kind, 4, "u64 a, char[5] b", 3);
        assert_eq!(map.get(0, &index(2)), Ok(vec![0; 13]));
        map.update(0, &index(2), b"\x07\0\0\0\0\0\0\0hello").expect("it is there");
        assert_eq!(map.add(0, &index(2), 0, 5), Ok(12));
        assert_eq!(map.get(0, &index(2)).expect("there"), b"\x0c\0\0\0\0\0\0\0hello");
        assert_eq!(map.get(0, &index(3)), Err(MapError::NotFound));
        assert_eq!(map.update(0, &index(3), &[0; 13]), Err(MapError::NotFound));
        assert_eq!(map.get(0, &[0; 5]), Err(MapError::BadArgument));
        assert_eq!(map.update(0, &index(0), &[0; 12]), Err(MapError::BadArgument));
        assert_eq!(map.remove(&index(0)), Err(MapError::BadArgument));
        assert_eq!((map.add(0, &index(0), 4, 1), map.add(0, &index(0), 8, 1)), (Err(MapError::BadArgument), Err(MapError::BadArgument)));
    }
    let map = map(abi::CORE_ARRAY, 4, "u64 a", 2);
    for core in 0..3 {
        map.add(core, &index(1), 0, u64::from(core) + 1).expect("there");
    }
    assert_eq!((0..3).map(|core| map.get(core, &index(1)).expect("there")[0]).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(map.get(3, &index(1)), Err(MapError::BadArgument), "there are three cores");
    assert!(map.core_value(2, 1).is_some() && map.core_value(2, 2).is_none() && map.core_value(3, 0).is_none());
    assert_eq!(map.at(5).expect("free").map(|entry| (entry.core, entry.key, entry.value)), Some((2, index(1).to_vec(), long(3).to_vec())));
}

#[test]
fn a_hash_map_takes_keys_until_it_is_full() {
    let map = map(abi::HASH, 3, "u64 n", 100);
    let key = |number: u32| [number as u8, (number >> 8) as u8, 7];
    for number in 0..100 {
        map.update(0, &key(number), &long(number.into())).expect("room");
    }
    assert_eq!((map.entries(), map.update(0, &key(100), &long(0)), map.add(0, &key(100), 0, 1)), (100, Err(MapError::Full), Err(MapError::Full)));
    map.update(0, &key(5), &long(55)).expect("it is there");
    assert_eq!((map.get(0, &key(5)), map.get(0, &key(100))), (Ok(long(55).to_vec()), Err(MapError::NotFound)));
    assert_eq!((map.remove(&key(5)), map.remove(&key(5)), map.get(0, &key(5))), (Ok(()), Err(MapError::NotFound), Err(MapError::NotFound)));
    assert_eq!(map.add(0, &key(100), 0, 9), Ok(9), "a new key begins with zeroes, whatever its entry held");
    assert_eq!((map.get(0, &[1, 2]), map.update(0, &key(1), &[0; 7])), (Err(MapError::BadArgument), Err(MapError::BadArgument)));
    let all = all(&map);
    assert_eq!(all.len(), 100);
    assert!(all.iter().all(|(key, value)| value[0] == if key[0] == 100 { 9 } else { key[0] }));
}

#[test]
fn an_lru_map_gives_up_what_was_not_used_for_longest() {
    let map = map(abi::LRU, 1, "u64 n", 4);
    for key in *b"abcd" {
        map.update(0, &[key], &long(key.into())).expect("room");
    }
    map.get(0, b"a").expect("there");
    map.update(0, b"e", &long(1)).expect("in the place of b");
    map.add(0, b"c", 0, 1).expect("there");
    map.add(0, b"f", 0, 1).expect("in the place of d");
    let keys: Vec<u8> = all(&map).into_iter().map(|(key, _)| key[0]).collect();
    assert_eq!((keys.as_slice(), map.entries()), (b"acef".as_slice(), 4));
    for key in 0..=255 {
        map.update(0, &[key], &long(0)).expect("always room");
    }
    assert_eq!(map.entries(), 4);
}

fn prefix(bits: u32, address: [u8; 4]) -> Vec<u8> {
    let mapped = std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets();
    [bits.to_le_bytes().as_slice(), &mapped].concat()
}

#[test]
fn the_longest_prefix_is_found() {
    let map = map(abi::LPM, 20, "u64 n", 10);
    assert_eq!(map.get(0, &prefix(128, [10, 1, 2, 3])), Err(MapError::NotFound));
    for (bits, address, value) in [(96 + 8, [10, 9, 9, 9], 8), (96 + 16, [10, 1, 0, 0], 16), (128, [10, 1, 2, 3], 32), (0, [0; 4], 1)] {
        map.update(0, &prefix(bits, address), &long(value)).expect("room");
    }
    let found = |address| map.get(0, &prefix(128, address)).expect("there")[0];
    assert_eq!([[10, 1, 2, 3], [10, 1, 2, 4], [10, 2, 0, 0], [11, 0, 0, 0]].map(found), [32, 16, 8, 1]);
    assert_eq!(map.get(0, &prefix(129, [0; 4])), Err(MapError::BadArgument));
    map.remove(&prefix(96 + 16, [10, 1, 77, 77])).expect("the bits behind it are ignored");
    assert_eq!(map.get(0, &prefix(128, [10, 1, 2, 4])).expect("there")[0], 8);
    assert_eq!(map.get(0, &prefix(96 + 16, [10, 1, 2, 3])).expect("there")[0], 8, "no longer than asked for");
}

#[test]
fn a_ring_keeps_order_and_counts_what_found_no_room() {
    let map = map(abi::RING, 0, "u64 n, char[4] t", 4);
    let mut record = Vec::new();
    assert!(!map.take(&mut record));
    for round in 0..10u64 {
        let mut written = 0;
        while map.output(&[long(round).as_slice(), &b"text"[..written % 5]].concat()).is_ok() {
            written += 1;
        }
        assert!(written >= 4, "there is room for entries_max whole records");
        assert_eq!(map.entries(), written);
        for number in 0..written {
            assert!(map.take(&mut record));
            assert_eq!(record, [long(round).as_slice(), &b"text"[..number % 5]].concat());
        }
        assert!(!map.take(&mut record));
    }
    assert_eq!(map.traffic().expect("a ring").1, 10);
    assert_eq!((map.output(&[]), map.output(&[0; 13])), (Err(MapError::BadArgument), Err(MapError::BadArgument)));
    assert_eq!(
        (map.get(0, &[]), map.update(0, &[], &[0; 12]), map.remove(&[])),
        (Err(MapError::BadArgument), Err(MapError::BadArgument), Err(MapError::BadArgument))
    );
}

/// One thread less runs, whether it came to its end or panicked.
struct Runs<'a>(&'a AtomicU64);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `work` on four threads, the last of which reads until the others are done.
fn race(work: impl Fn(u64) + Sync, read: impl Fn() + Sync) {
    let running = AtomicU64::new(3);
    thread::scope(|scope| {
        for number in 0..3 {
            let (work, runs) = (&work, Runs(&running));
            scope.spawn(move || {
                let _runs = runs;
                work(number);
            });
        }
        scope.spawn(|| {
            while running.load(Ordering::SeqCst) > 0 {
                read();
            }
        });
    });
}

/// The call again while another thread was stopped in the middle of a write.
fn patient<T>(mut call: impl FnMut() -> Result<T, MapError>) -> Result<T, MapError> {
    let begun = Instant::now();
    loop {
        match call() {
            Err(MapError::Busy) if begun.elapsed() < PATIENCE => thread::yield_now(),
            other => return other,
        }
    }
}

#[test]
fn no_count_is_lost_and_no_count_falls() {
    const ROUNDS: u64 = 20_000;
    for kind in [abi::ARRAY, abi::HASH, abi::LRU] {
        let map = map(kind, 4, "u64 n, u64 other", 8);
        let last = [const { AtomicU64::new(0) }; 8];
        let sum = |key| patient(|| map.get(0, &index(key))).map_or(0, |value| u64::from_le_bytes(value[..8].try_into().expect("8 bytes")));
        let read = || {
            for (key, last) in (0..).zip(&last) {
                let now = sum(key);
                assert!(last.swap(now, Ordering::Relaxed) <= now);
            }
        };
        let work = |number| {
            for round in 0..ROUNDS {
                let key = index((round + number) as u32 % 8);
                patient(|| map.add(0, &key, 0, 1)).expect("room");
            }
        };
        race(work, read);
        assert_eq!((0..8).map(sum).sum::<u64>(), 3 * ROUNDS);
    }
}

/// Threads that add the same new key at once need one entry between them, not one each.
#[test]
fn the_last_entry_is_enough_for_threads_that_want_one_key() {
    const ROUNDS: u64 = 20_000;
    for kind in [abi::HASH, abi::LRU] {
        let map = map(kind, 4, "u64 n", 2);
        map.add(0, &index(0), 0, 1).expect("room");
        let (arrived, refused, lost) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        // Both threads leave at the same moment, without the time that a lock takes to wake one.
        let meet = |meeting: u64| {
            let begun = Instant::now();
            arrived.fetch_add(1, Ordering::SeqCst);
            for spins in 0u64.. {
                match arrived.load(Ordering::SeqCst) < 2 * meeting {
                    true if spins < 1000 => std::hint::spin_loop(),
                    true => {
                        assert!(begun.elapsed() < PATIENCE, "the other thread has ended");
                        thread::yield_now();
                    }
                    false => break,
                }
            }
        };
        let add = |is_first: bool| {
            for round in 0..ROUNDS {
                meet(2 * round + 1);
                let added = patient(|| map.add(0, &index(1), 0, 1));
                refused.fetch_add(added.is_err().into(), Ordering::SeqCst);
                meet(2 * round + 2);
                if is_first {
                    lost.fetch_add((map.get(0, &index(0)) != Ok(long(1).to_vec())).into(), Ordering::SeqCst);
                    let _ = map.update(0, &index(0), &long(1));
                    let _ = map.remove(&index(1));
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| add(true));
            scope.spawn(|| add(false));
        });
        assert_eq!((refused.into_inner(), lost.into_inner(), map.entries()), (0, 0, 1), "{kind}");
    }
}

/// A dump shows every key, also the one that is being written.
#[test]
fn a_key_that_is_overwritten_is_there_all_the_time() {
    for kind in [abi::HASH, abi::LRU] {
        let map = map(kind, 4, "u64[64] n", 1);
        map.update(0, &index(0), &[0; 512]).expect("room");
        let missed = AtomicU64::new(0);
        let write = |number: u64| {
            for _ in 0..20_000 {
                patient(|| map.update(0, &index(0), &[number as u8; 512])).expect("it is there");
            }
        };
        race(write, || {
            missed.fetch_add(u64::from(map.at(0) == Ok(None)), Ordering::Relaxed);
        });
        assert_eq!(missed.into_inner(), 0, "{kind}");
    }
}

/// Writers set all words of a value to the same number, remove keys and take the entries of others: a reader never sees two
/// numbers in one value, nor a value under a key that it was not written for.
#[test]
fn no_value_is_torn() {
    const ROUNDS: u64 = 20_000;
    for kind in [abi::ARRAY, abi::HASH, abi::LRU] {
        let map = map(kind, 4, "u64[6] same, u32 key", 12);
        let value = |number: u64, key: u32| [long(number).repeat(6), index(key).to_vec()].concat();
        let check = |key: u32, seen: &[u8]| {
            let number = u64::from_le_bytes(seen[..8].try_into().expect("8 bytes"));
            assert!(seen == value(number, key) || seen == [0; 52], "{kind} {key}: {seen:?}");
        };
        let work = |thread: u64| {
            for round in 0..ROUNDS {
                let key = (round * 7 + thread) as u32 % if kind == abi::ARRAY { 12 } else { 20 };
                let written = patient(|| map.update(0, &index(key), &value(round << 2 | thread, key)));
                assert!(written.is_ok() || (kind == abi::HASH && written == Err(MapError::Full)), "{written:?}");
                if kind != abi::ARRAY && round % 3 == 0 {
                    let _ = patient(|| map.remove(&index(key)));
                }
            }
        };
        let read = || {
            for key in 0..20 {
                if let Ok(seen) = map.get(0, &index(key)) {
                    check(key, &seen);
                }
            }
            for place in 0..map.places() {
                if let Ok(Some(entry)) = map.at(place) {
                    check(u32::from_le_bytes(entry.key.try_into().expect("4 bytes")), &entry.value);
                }
            }
        };
        race(work, read);
        if kind != abi::ARRAY {
            let kept = all(&map);
            assert_eq!(kept.len(), map.entries());
            // Every entry is in a chain or free: the map still takes all it can.
            for (key, _) in &kept {
                map.remove(key).expect("it was there");
            }
            for key in 100..112 {
                map.update(0, &index(key), &value(0, key)).expect("room");
            }
        }
    }
}

#[test]
fn every_record_arrives_once_and_in_the_order_of_its_writer() {
    const RECORDS: u64 = 30_000;
    let map = map(abi::RING, 0, "u64 writer, u64 number", 64);
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let map = &map;
                scope.spawn(move || (0..RECORDS).filter(|number| map.output(&[long(writer), long(*number)].concat()).is_err()).count() as u64)
            })
            .collect();
        let reader = scope.spawn(|| {
            let (mut next, mut record, mut count) = ([0; 3], Vec::new(), 0u64);
            loop {
                let is_last = done.load(Ordering::SeqCst);
                while map.take(&mut record) {
                    let (writer, number) = (record[0] as usize, u64::from_le_bytes(record[8..].try_into().expect("8 bytes")));
                    assert!(number >= next[writer]);
                    next[writer] = number + 1;
                    count += 1;
                }
                if is_last {
                    return count;
                }
                thread::yield_now();
            }
        });
        let dropped: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        // Before anything may panic: the reader waits for it.
        done.store(true, Ordering::SeqCst);
        let dropped: u64 = dropped.into_iter().map(|dropped| dropped.expect("a writer ends")).sum();
        assert_eq!(map.traffic().expect("a ring").1, dropped);
        reader.join().expect("the reader ends") + dropped
    });
    assert_eq!(seen, 3 * RECORDS);
}

fn open(state: &Path, shape: &MapShape, policy: Policy) -> Result<std::sync::Arc<Map>, MapFault> {
    let maps = MapStore::new(Some(state), 2).open("p", std::slice::from_ref(shape), policy)?;
    maps.iter().for_each(|map| map.settle().expect("it is renamed"));
    Ok(std::sync::Arc::clone(&maps[0]))
}

#[test]
fn a_map_is_found_again_when_it_fits() {
    let state = tempfile::tempdir().expect("a folder");
    let hash = shape(abi::HASH, 8, "u64 n", 50);
    let map = open(state.path(), &hash, KEEP).expect("new");
    for number in 0..50 {
        map.update(0, &long(number), &long(number * 2)).expect("room");
    }
    let before = all(&map);
    assert!(matches!(open(state.path(), &hash, KEEP), Err(MapFault::InUse(_))), "one process at a time");
    drop(map);
    let map = open(state.path(), &hash, KEEP).expect("kept");
    assert!(map.is_pinned());
    assert_eq!((all(&map), map.entries()), (before, 50));
    assert_eq!(map.update(0, &long(99), &long(0)), Err(MapError::Full));
    drop(map);
    for (other, what) in [
        (shape(abi::LRU, 8, "u64 n", 50), "differs in kind: it was made with 3, the plugin has 4"),
        (shape(abi::HASH, 16, "u64 n", 50), "differs in key_bytes: it was made with 8, the plugin has 16"),
        (shape(abi::HASH, 8, "u64 n, u64 m", 50), "differs in value_bytes: it was made with 8, the plugin has 16"),
        (shape(abi::HASH, 8, "u64 n", 51), "differs in entries_max: it was made with 50, the plugin has 51"),
        (shape(abi::HASH, 8, "i64 n", 50), "differs in value_fields: it was made with others, the plugin has \"i64 n\""),
    ] {
        let refused = open(state.path(), &other, KEEP).err().expect("refused").to_string();
        assert!(refused.contains(what) && refused.contains("`maps = \"fresh\"`"), "{refused}");
    }
    assert_eq!(open(state.path(), &hash, FRESH).expect("it fits").entries(), 50, "fresh replaces only what does not fit");
    let other = shape(abi::HASH, 8, "i64 n", 50);
    assert_eq!(open(state.path(), &other, FRESH).expect("replaced").entries(), 0);
    assert!(open(state.path(), &other, KEEP).is_ok());
}

#[test]
fn a_new_file_has_its_name_only_when_the_plugin_is_in_force() {
    let state = tempfile::tempdir().expect("a folder");
    let names = || {
        let mut names: Vec<String> =
            fs::read_dir(state.path().join("maps")).expect("made").map(|entry| entry.expect("read").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    let (one, two) = (shape(abi::HASH, 8, "u64 n", 5), shape(abi::HASH, 8, "u64 m", 5));
    let mut store = MapStore::new(Some(state.path()), 1);
    let first = store.open("p", std::slice::from_ref(&one), KEEP).expect("new");
    assert_eq!(names(), ["p.m.new"]);
    first[0].settle().expect("renamed");
    first[0].update(0, &long(1), &long(1)).expect("room");
    assert_eq!(names(), ["p.m.map"]);
    // The next version of the plugin finds what this one has; one with another definition does not.
    assert!(std::sync::Arc::ptr_eq(&store.open("p", std::slice::from_ref(&one), KEEP).expect("shared")[0], &first[0]));
    assert!(!std::sync::Arc::ptr_eq(&store.open("q", std::slice::from_ref(&one), KEEP).expect("its own")[0], &first[0]));
    assert!(matches!(store.open("p", std::slice::from_ref(&two), KEEP), Err(MapFault::Differs(..))));
    let fresh = store.open("p", std::slice::from_ref(&two), FRESH).expect("replaced");
    assert_eq!((names(), fresh[0].entries(), first[0].entries()), (vec!["p.m.map".into(), "p.m.new".into()], 0, 1));
    // It never came into force.
    drop(fresh);
    assert_eq!(names(), ["p.m.map"]);
    drop(first);
    assert_eq!(open(state.path(), &one, KEEP).expect("kept").entries(), 1);
}

#[test]
fn without_a_state_folder_maps_live_as_long_as_a_version_uses_them() {
    let one = shape(abi::ARRAY, 4, "u64 n", 5);
    let mut store = MapStore::new(None, 1);
    let first = store.open("p", std::slice::from_ref(&one), KEEP).expect("memory");
    first[0].add(0, &index(0), 0, 7).expect("there");
    let second = store.open("p", std::slice::from_ref(&one), KEEP).expect("shared");
    drop(first);
    assert_eq!(second[0].add(0, &index(0), 0, 1), Ok(8));
    drop(second);
    assert_eq!(store.open("p", std::slice::from_ref(&one), KEEP).expect("memory")[0].add(0, &index(0), 0, 1), Ok(1));
    let tight = Policy { bytes_max: one.bytes(1) - 1, ..KEEP };
    assert!(matches!(store.open("p", std::slice::from_ref(&one), tight), Err(MapFault::TooLarge(..))));
}

#[test]
fn more_workers_than_before_get_entries_of_their_own() {
    let state = tempfile::tempdir().expect("a folder");
    let shape = shape(abi::CORE_ARRAY, 4, "u64 n", 5);
    let with = |cores| {
        let maps = MapStore::new(Some(state.path()), cores).open("p", std::slice::from_ref(&shape), KEEP).expect("it fits");
        maps[0].settle().expect("renamed");
        maps
    };
    with(2)[0].add(1, &index(4), 0, 7).expect("there");
    for cores in [4, 1, 4] {
        let maps = with(cores);
        assert_eq!((maps[0].cores(), maps[0].get(1, &index(4))), (if cores == 1 { 4 } else { cores }, Ok(long(7).to_vec())));
        assert_eq!(maps[0].get(3, &index(4)), Ok(long(0).to_vec()));
    }
}

#[test]
fn what_was_being_written_when_the_process_ended_does_not_count() {
    let state = tempfile::tempdir().expect("a folder");
    let path = state.path().join("maps/p.m.map");
    let poke = |word: usize, value: u64| {
        use std::os::unix::fs::FileExt;
        fs::File::options().write(true).open(&path).expect("there").write_all_at(&long(value), 8 * word as u64).expect("written");
    };
    let array = shape(abi::ARRAY, 4, "u64 n", 3);
    let map = open(state.path(), &array, KEEP).expect("new");
    (0..3).for_each(|at| map.update(0, &index(at), &long(5)).expect("there"));
    drop(map);
    // A writer's flag on the lock of the second entry, an adder's on that of the third.
    poke(HEADER_WORDS + 2, 1 << 31);
    poke(HEADER_WORDS + 4, 3);
    let map = open(state.path(), &array, KEEP).expect("kept");
    assert_eq!([0, 1, 2].map(|at| map.add(0, &index(at), 0, 1)), [Ok(6), Ok(1), Ok(6)]);
    map.update(0, &index(2), &long(1)).expect("nobody holds the lock");
    drop(map);
    let hash = shape(abi::HASH, 8, "u64 n", 4);
    let map = open(state.path(), &hash, FRESH).expect("new");
    (0..4).for_each(|at| map.update(0, &long(at), &long(at)).expect("room"));
    drop(map);
    poke(hash.entries_at() + hash.stride(), 0x5752_4954 << 32);
    let map = open(state.path(), &hash, KEEP).expect("kept");
    assert_eq!((map.entries(), all(&map).len()), (3, 3));
    assert_eq!((0..4).filter(|at| map.get(0, &long(*at)).is_ok()).count(), 3);
    map.update(0, &long(9), &long(9)).expect("its entry is free");
}

/// Whatever stands behind the header of a file, the map works: every key that is shown can be found and removed, and then all
/// entries are free.
#[test]
fn no_content_of_a_file_breaks_a_map() {
    let state = tempfile::tempdir().expect("a folder");
    let mut random = fastrand::Rng::with_seed(3);
    for kind in [abi::HASH, abi::LRU, abi::LPM] {
        let shape = shape(kind, if kind == abi::LPM { 20 } else { 2 }, "u64 n", 20);
        drop(open(state.path(), &shape, FRESH).expect("new"));
        let path = state.path().join("maps/p.m.map");
        let good = fs::read(&path).expect("there");
        for _ in 0..300 {
            let mut bad = good.clone();
            for word in bad[64..].chunks_exact_mut(8) {
                if random.bool() {
                    continue;
                }
                let upper = [0, 0x5553_4544, 0x5752_4954, random.u32(..)][random.usize(..4)];
                let bound = [40, u32::MAX][random.usize(..2)];
                word.copy_from_slice(&long(u64::from(upper) << 32 | u64::from(random.u32(..bound))));
            }
            fs::write(&path, &bad).expect("written");
            let map = open(state.path(), &shape, KEEP).expect("its header is good");
            let kept = all(&map);
            assert_eq!(kept.len(), map.entries());
            for (key, value) in &kept {
                assert_eq!(map.get(0, key).as_ref(), Ok(value));
                map.remove(key).expect("shown, so it is there");
            }
            assert_eq!(map.entries(), 0);
            if kind != abi::LPM {
                (0..20u16).for_each(|key| map.update(0, &key.to_le_bytes(), &long(1)).expect("room for all"));
            }
        }
    }
}
