//! Entries that are found by their key: hash, LRU and LPM maps.
//!
//! A hash table with a chain of entries for each bucket. The lock of a bucket covers its chain and the values in it. Entries that no
//! chain holds stand in one list, whose head carries a tag that changes with every step (so that a head that comes back
//! is not taken for the old one).
//!
//! A reader may follow a link of an entry that is being moved elsewhere: every step is checked, their number is bounded
//! ([`CHAIN_MAX`]), and what it found counts only if the bucket did not change meanwhile.
//!
//! An LRU map that is full gives a new key the entry that was not used for longest among [`CANDIDATES`] that stand together. Age is
//! counted in new keys, so that a look-up in a map without new keys writes nothing.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::lock;
use super::map::{MapError, copy_out, word_of};
use super::shape::{MapKind, MapShape};

/// Words of the longest key.
const KEY_WORDS_MAX: usize = ringway_abi::maps::KEY_BYTES_MAX as usize / 8;
/// Steps along one chain. There are at least as many buckets as entries and the hash is keyed, so a chain of even a tenth of this does
/// not come up.
const CHAIN_MAX: usize = 256;
/// Entries among which an LRU map chooses.
const CANDIDATES: usize = 16;
/// How often it chooses again because the entry was being used.
const CHOICES_MAX: usize = 8;

/// Words of the header that a table uses, from [`HEADER_AT`] on.
const HEADER_AT: usize = 64;
/// `[tag | first free entry + 1]`
const FREE: usize = HEADER_AT;
/// Entries in use.
const USED: usize = HEADER_AT + 8;
/// New keys so far.
const EPOCH: usize = HEADER_AT + 16;
/// Where the next choice begins.
const HAND: usize = HEADER_AT + 24;
/// LPM: how many prefixes of each length.
const LENGTHS: usize = HEADER_AT + 64;
const LENGTHS_END: usize = LENGTHS + 129;

/// State of an entry, the upper half of its first word; the lower half is the next entry of its chain, plus one.
const STATE_USED: u64 = 0x5553_4544;
const STATE_WRITING: u64 = 0x5752_4954;
const NEXT: u64 = 0xffff_ffff;

/// A key as it is compared.
pub(super) struct Key {
    words: [u64; KEY_WORDS_MAX],
    len: usize,
}

impl Key {
    /// Of the bytes that a plugin gave; a prefix without the bits behind it.
    #[inline]
    pub fn new(shape: &MapShape, bytes: &[u8]) -> Result<Key, MapError> {
        if bytes.len() != shape.key_bytes() || !shape.kind().is_table() {
            return Err(MapError::BadArgument);
        }
        let mut key = Key { words: [0; KEY_WORDS_MAX], len: shape.key_words() };
        for (word, bytes) in key.words.iter_mut().zip(bytes.chunks(8)) {
            *word = word_of(bytes);
        }
        if shape.kind() == MapKind::Lpm {
            let bits = key.bits();
            if bits > 128 {
                return Err(MapError::BadArgument);
            }
            key = key.prefix(bits);
        }
        Ok(key)
    }

    #[inline]
    fn words(&self) -> &[u64] {
        &self.words[..self.len]
    }

    /// The length of a prefix.
    fn bits(&self) -> u32 {
        self.words[0] as u32
    }

    /// The first `bits` of a prefix.
    fn prefix(&self, bits: u32) -> Key {
        let mut bytes = [0; 24];
        for (bytes, word) in bytes.chunks_mut(8).zip(&self.words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let address: [u8; 16] = std::array::from_fn(|at| bytes[4 + at]);
        let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
        bytes[4..20].copy_from_slice(&(u128::from_be_bytes(address) & mask).to_be_bytes());
        bytes[..4].copy_from_slice(&bits.to_le_bytes());
        let mut key = Key { words: [0; KEY_WORDS_MAX], len: self.len };
        for (word, bytes) in key.words.iter_mut().zip(bytes.chunks(8)) {
            *word = word_of(bytes);
        }
        key
    }
}

/// Where things stand in the words of such a map. Empty for other kinds.
pub(super) struct Table {
    kind: MapKind,
    entries: usize,
    buckets_mask: usize,
    entries_at: usize,
    stride: usize,
    key_words: usize,
    /// Bits of the last word of a key that are always zero.
    padding: u64,
    /// Keyed for this process: clients choose keys, and must not choose one bucket for all of them.
    hash: RandomState,
}

impl Table {
    pub fn new(shape: &MapShape) -> Table {
        Table {
            kind: shape.kind(),
            entries: if shape.kind().is_table() { shape.entries_max() } else { 0 },
            buckets_mask: shape.buckets() - 1,
            entries_at: shape.entries_at(),
            stride: shape.stride(),
            key_words: shape.key_words(),
            padding: if shape.key_bytes().is_multiple_of(8) { 0 } else { u64::MAX << (8 * (shape.key_bytes() % 8)) },
            hash: RandomState::new(),
        }
    }

    #[inline]
    fn bucket_of(&self, key: &[u64]) -> usize {
        let mut hasher = self.hash.build_hasher();
        for word in key {
            hasher.write_u64(*word);
        }
        hasher.finish() as usize & self.buckets_mask
    }

    /// The lock of a bucket and its first link.
    #[inline]
    fn bucket<'a>(&self, words: &'a [AtomicU64], bucket: usize) -> (&'a AtomicU64, &'a AtomicU64) {
        let at = super::shape::HEADER_WORDS + 2 * bucket;
        (&words[at], &words[at + 1])
    }

    /// The words of an entry; `None` for a link that leads nowhere.
    #[inline]
    fn words_of<'a>(&self, words: &'a [AtomicU64], index: usize) -> Option<&'a [AtomicU64]> {
        if index >= self.entries {
            return None;
        }
        let at = self.entries_at + index * self.stride;
        words.get(at..at + self.stride)
    }

    #[inline]
    fn value_of<'a>(&self, entry: &'a [AtomicU64]) -> &'a [AtomicU64] {
        &entry[2 + self.key_words..]
    }

    #[inline]
    fn is_key(&self, entry: &[AtomicU64], key: &[u64]) -> bool {
        entry[2..2 + self.key_words].iter().zip(key).all(|(word, key)| word.load(Ordering::Relaxed) == *key)
    }

    /// The entry of a key in its chain.
    #[inline]
    fn find<'a>(&self, words: &'a [AtomicU64], first: &AtomicU64, key: &[u64]) -> Option<&'a [AtomicU64]> {
        let mut link = first.load(Ordering::Relaxed) & NEXT;
        for _ in 0..CHAIN_MAX {
            let entry = self.words_of(words, (link as usize).checked_sub(1)?)?;
            if self.is_key(entry, key) {
                return Some(entry);
            }
            link = entry[0].load(Ordering::Relaxed) & NEXT;
        }
        None
    }

    /// Notes that an entry was used.
    #[inline]
    fn touch(&self, words: &[AtomicU64], entry: &[AtomicU64]) {
        if self.kind == MapKind::Lru {
            let now = words[EPOCH].load(Ordering::Relaxed);
            if entry[1].load(Ordering::Relaxed) != now {
                entry[1].store(now, Ordering::Relaxed);
            }
        }
    }

    /// See [`super::map::Map::lookup`].
    #[inline]
    pub fn lookup(&self, words: &[AtomicU64], key: &Key, mut copy: impl FnMut(&[AtomicU64])) -> Result<(), MapError> {
        let key = key.words();
        let (lock, first) = self.bucket(words, self.bucket_of(key));
        let found = lock::read(lock, || {
            let entry = self.find(words, first, key)?;
            copy(self.value_of(entry));
            Some(entry)
        })?;
        self.touch(words, found.ok_or(MapError::NotFound)?);
        Ok(())
    }

    /// The longest prefix that holds the address.
    pub fn lookup_prefix(&self, words: &[AtomicU64], address: &Key, mut copy: impl FnMut(&[AtomicU64])) -> Result<(), MapError> {
        for bits in (0..=address.bits()).rev().filter(|bits| words[LENGTHS + *bits as usize].load(Ordering::Relaxed) > 0) {
            match self.lookup(words, &address.prefix(bits), &mut copy) {
                Err(MapError::NotFound) => {}
                other => return other,
            }
        }
        Err(MapError::NotFound)
    }

    /// Has `set` write the value of a key; one that is new begins with zeroes.
    pub fn write(&self, words: &[AtomicU64], key: &Key, set: impl Fn(&[AtomicU64])) -> Result<(), MapError> {
        let key = key.words();
        let (lock, first) = self.bucket(words, self.bucket_of(key));
        {
            let _writing = lock::exclusive(lock)?;
            if let Some(entry) = self.find(words, first, key) {
                self.set(words, entry, set);
                return Ok(());
            }
            // Under the lock: threads that want the same new key at once take one entry between them, not one each.
            if let Some(index) = self.take(words) {
                return self.insert(words, first, index, key, set);
            }
        }
        if self.kind != MapKind::Lru {
            return Err(MapError::Full);
        }
        // Without the lock: another bucket may have to give its entry.
        let index = self.evict(words)?;
        let Ok(_writing) = lock::exclusive(lock) else {
            self.give_back(words, index);
            return Err(MapError::Busy);
        };
        if let Some(entry) = self.find(words, first, key) {
            // Another thread was faster.
            self.set(words, entry, set);
            self.give_back(words, index);
            return Ok(());
        }
        self.insert(words, first, index, key, set)
    }

    /// Changes the value of an entry, whose bucket is locked.
    fn set(&self, words: &[AtomicU64], entry: &[AtomicU64], set: impl Fn(&[AtomicU64])) {
        // A process that ends in between leaves no mixture of two values: the entry does not count then (`rebuild`).
        let link = entry[0].load(Ordering::Relaxed) & NEXT;
        entry[0].store(STATE_WRITING << 32 | link, Ordering::Relaxed);
        // Nothing of the value before that.
        fence(Ordering::Release);
        set(self.value_of(entry));
        entry[0].store(STATE_USED << 32 | link, Ordering::Release);
        self.touch(words, entry);
    }

    /// Makes a free entry the first of a chain, whose bucket is locked and does not have the key.
    fn insert(&self, words: &[AtomicU64], first: &AtomicU64, index: usize, key: &[u64], set: impl Fn(&[AtomicU64])) -> Result<(), MapError> {
        let entry = self.words_of(words, index).ok_or(MapError::Full)?;
        let epoch = words[EPOCH].fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        entry[1].store(epoch, Ordering::Relaxed);
        entry[2..2 + self.key_words].iter().zip(key).for_each(|(word, key)| word.store(*key, Ordering::Relaxed));
        self.value_of(entry).iter().for_each(|word| word.store(0, Ordering::Relaxed));
        set(self.value_of(entry));
        entry[0].store(STATE_USED << 32 | (first.load(Ordering::Relaxed) & NEXT), Ordering::Release);
        self.count_length(words, key, 1);
        first.store(index as u64 + 1, Ordering::Relaxed);
        words[USED].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// See [`super::map::Map::add`]. Readers and other adders are not kept waiting.
    #[inline]
    pub fn add(&self, words: &[AtomicU64], key: &Key, word: usize, delta: u64) -> Result<u64, MapError> {
        let (lock, first) = self.bucket(words, self.bucket_of(key.words()));
        {
            let _adding = lock::shared(lock)?;
            if let Some(entry) = self.find(words, first, key.words()) {
                self.touch(words, entry);
                return Ok(self.value_of(entry)[word].fetch_add(delta, Ordering::Relaxed).wrapping_add(delta));
            }
        }
        let sum = std::cell::Cell::new(0);
        self.write(words, key, |value| sum.set(value[word].fetch_add(delta, Ordering::Relaxed).wrapping_add(delta)))?;
        Ok(sum.get())
    }

    /// See [`super::map::Map::remove`].
    pub fn remove(&self, words: &[AtomicU64], key: &Key) -> Result<(), MapError> {
        let index = self.unlink(words, key.words(), |_| true)?.ok_or(MapError::NotFound)?;
        self.give_back(words, index);
        Ok(())
    }

    /// Takes a key that `is_wanted` out of its chain; the entry it had, which belongs to the caller now.
    fn unlink(&self, words: &[AtomicU64], key: &[u64], is_wanted: impl Fn(usize) -> bool) -> Result<Option<usize>, MapError> {
        let (lock, first) = self.bucket(words, self.bucket_of(key));
        let _writing = lock::exclusive(lock)?;
        let mut from = first;
        for _ in 0..CHAIN_MAX {
            let link = from.load(Ordering::Relaxed);
            let Some(index) = ((link & NEXT) as usize).checked_sub(1) else { return Ok(None) };
            let Some(entry) = self.words_of(words, index) else { return Ok(None) };
            if self.is_key(entry, key) {
                if !is_wanted(index) {
                    return Ok(None);
                }
                let next = entry[0].load(Ordering::Relaxed) & NEXT;
                from.store(link & !NEXT | next, Ordering::Relaxed);
                entry[0].store(0, Ordering::Release);
                self.count_length(words, key, 1u64.wrapping_neg());
                words[USED].fetch_sub(1, Ordering::Relaxed);
                return Ok(Some(index));
            }
            from = &entry[0];
        }
        Ok(None)
    }

    /// An entry that is in no chain, if there is one.
    fn take(&self, words: &[AtomicU64]) -> Option<usize> {
        loop {
            let head = words[FREE].load(Ordering::Acquire);
            let index = ((head & NEXT) as usize).checked_sub(1)?;
            let next = self.words_of(words, index).map_or(0, |entry| entry[0].load(Ordering::Relaxed) & NEXT);
            let tagged = ((head >> 32).wrapping_add(1) << 32) | next;
            if words[FREE].compare_exchange_weak(head, tagged, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                // A reader that sees what is written to the entry from here on sees that it has left its former chain (`lock::read`).
                fence(Ordering::Release);
                return Some(index);
            }
        }
    }

    /// Puts an entry back that is in no chain.
    fn give_back(&self, words: &[AtomicU64], index: usize) {
        let Some(entry) = self.words_of(words, index) else { return };
        loop {
            let head = words[FREE].load(Ordering::Relaxed);
            entry[0].store(head & NEXT, Ordering::Relaxed);
            let tagged = ((head >> 32).wrapping_add(1) << 32) | (index as u64 + 1);
            if words[FREE].compare_exchange_weak(head, tagged, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Takes the entry of a key that was not used for long.
    fn evict(&self, words: &[AtomicU64]) -> Result<usize, MapError> {
        let count = CANDIDATES.min(self.entries);
        for _ in 0..CHOICES_MAX {
            let hand = words[HAND].fetch_add(count as u64, Ordering::Relaxed) as usize;
            let now = words[EPOCH].load(Ordering::Relaxed);
            let candidates = (0..count).map(|step| hand.wrapping_add(step) % self.entries);
            let used = candidates.filter_map(|index| {
                let entry = self.words_of(words, index)?;
                let is_used = entry[0].load(Ordering::Relaxed) >> 32 == STATE_USED;
                is_used.then(|| (age(now, entry[1].load(Ordering::Relaxed)), index))
            });
            let Some((_, index)) = used.max_by_key(|(age, _)| *age) else { continue };
            let Some(entry) = self.words_of(words, index) else { continue };
            let mut key = [0; KEY_WORDS_MAX];
            let key = &mut key[..self.key_words];
            key.iter_mut().zip(&entry[2..]).for_each(|(key, word)| *key = word.load(Ordering::Relaxed));
            // The key may be a mixture by now: then no chain has it in this entry.
            if let Ok(Some(index)) = self.unlink(words, key, |found| found == index) {
                return Ok(index);
            }
        }
        Err(MapError::Busy)
    }

    /// LPM: one prefix more or less of this length.
    fn count_length(&self, words: &[AtomicU64], key: &[u64], by: u64) {
        if self.kind == MapKind::Lpm {
            words[LENGTHS + (key[0] as u32).min(128) as usize].fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Whether `Key::new` gives these words for some bytes.
    fn is_normal(&self, words: &[u64]) -> bool {
        let is_filled_up = words.last().is_none_or(|last| last & self.padding == 0);
        if self.kind != MapKind::Lpm {
            return is_filled_up;
        }
        let mut key = Key { words: [0; KEY_WORDS_MAX], len: self.key_words };
        key.words.iter_mut().zip(words).for_each(|(to, word)| *to = *word);
        is_filled_up && key.bits() <= 128 && key.prefix(key.bits()).words() == words
    }

    /// How many keys there are.
    pub fn used(&self, words: &[AtomicU64]) -> usize {
        words[USED].load(Ordering::Relaxed) as usize
    }

    /// Copies the entry at `index`; whether a key is there.
    pub fn entry(&self, words: &[AtomicU64], index: usize, key: &mut [u8], value: &mut [u8]) -> Result<bool, MapError> {
        let Some(entry) = self.words_of(words, index) else { return Ok(false) };
        let mut seen = [0; KEY_WORDS_MAX];
        let seen = &mut seen[..self.key_words];
        let is_used = || entry[0].load(Ordering::Relaxed) >> 32 == STATE_USED;
        for _ in 0..CHOICES_MAX {
            // One that is being overwritten is there, too.
            if !matches!(entry[0].load(Ordering::Relaxed) >> 32, STATE_USED | STATE_WRITING) {
                return Ok(false);
            }
            seen.iter_mut().zip(&entry[2..]).for_each(|(key, word)| *key = word.load(Ordering::Relaxed));
            let (lock, _) = self.bucket(words, self.bucket_of(seen));
            let whole = lock::read(lock, || {
                copy_out(&entry[2..], key);
                copy_out(self.value_of(entry), value);
                is_used() && self.is_key(entry, seen)
            })?;
            if whole {
                return Ok(true);
            }
        }
        Err(MapError::Busy)
    }

    /// Makes all chains again from the keys that are there, whatever stood in the file. How many entries did not count:
    /// those that were being written, and keys that are no keys or stand there twice.
    pub fn rebuild(&self, words: &[AtomicU64]) -> usize {
        let buckets = super::shape::HEADER_WORDS..self.entries_at;
        words[buckets].iter().chain(&words[HEADER_AT..LENGTHS_END]).for_each(|word| reset(word, 0));
        let (mut dropped, mut used, mut newest) = (0, 0, 0);
        // Backwards, so that the first entries are the first to be taken.
        for index in (0..self.entries).rev() {
            let Some(entry) = self.words_of(words, index) else { continue };
            let state = entry[0].load(Ordering::Relaxed) >> 32;
            let mut key = [0; KEY_WORDS_MAX];
            let key = &mut key[..self.key_words];
            key.iter_mut().zip(&entry[2..]).for_each(|(key, word)| *key = word.load(Ordering::Relaxed));
            let (_, first) = self.bucket(words, self.bucket_of(key));
            let is_sound = state == STATE_USED && self.is_normal(key) && self.find(words, first, key).is_none();
            if is_sound {
                entry[0].store(STATE_USED << 32 | first.load(Ordering::Relaxed), Ordering::Relaxed);
                first.store(index as u64 + 1, Ordering::Relaxed);
                self.count_length(words, key, 1);
                newest = entry[1].load(Ordering::Relaxed).max(newest);
                used += 1;
            } else {
                dropped += usize::from(state == STATE_USED || state == STATE_WRITING);
                reset(&entry[0], words[FREE].load(Ordering::Relaxed) & NEXT);
                words[FREE].store(index as u64 + 1, Ordering::Relaxed);
            }
        }
        words[USED].store(used, Ordering::Relaxed);
        words[EPOCH].store(newest, Ordering::Relaxed);
        dropped
    }
}

/// Stores only what differs, so that an untouched page stays untouched.
fn reset(word: &AtomicU64, to: u64) {
    if word.load(Ordering::Relaxed) != to {
        word.store(to, Ordering::Relaxed);
    }
}

/// New keys since an entry was used. One that was used after `now` was read is the youngest. Both may have wrapped: a file may say anything.
fn age(now: u64, used: u64) -> u64 {
    let age = now.wrapping_sub(used);
    if age > u64::MAX / 2 { 0 } else { age }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_a_moment_ago_is_not_old() {
        assert_eq!([(7, 3), (7, 7), (7, 8), (1, u64::MAX), (u64::MAX, 0)].map(|(now, used)| age(now, used)), [4, 0, 0, 2, 0]);
    }
}
