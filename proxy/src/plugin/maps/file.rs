//! The file of a pinned map: made with all its bytes, found again by its header.
//!
//! The file is input: `check` decides from its first bytes and its length whether it belongs to a definition, and nothing else of it
//! is believed (`table` makes its links again, an array has none). It is locked while it is mapped, so that one
//! process at a time uses it. A new file gets its name when the plugin that wanted it is in force (`Map::settle`).
//!
//! What survives: the end of the process, however it ends. After a crash of the machine, what was written in the last
//! seconds may be missing or mixed between entries; the structure is sound all the same.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::memory::Words;
use super::shape::{HEADER_WORDS, MapShape};

/// The first bytes of a map.
const MAGIC: u64 = u64::from_le_bytes(*b"RINGWMAP");
/// Of the layout of the file, this module's and `shape`'s.
const VERSION: u32 = 1;
/// Bytes that [`check`] looks at.
const CHECKED_BYTES: usize = 48;
/// Cores that a file may have entries for.
const CORES_MAX: u32 = 4096;
/// Zeroes written at once.
const CHUNK_BYTES: usize = 1 << 16;
/// How long the lock of a file is waited for, and between two tries.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// Why a map cannot be opened.
#[derive(Debug)]
pub enum MapFault {
    /// The system's reason, and what was tried.
    Io(&'static str, PathBuf, io::Error),
    /// Another process uses it.
    InUse(PathBuf),
    /// It is no map, or a damaged one: why.
    Damaged(PathBuf, String),
    /// It was made for another definition: in what they differ, what the file says, what the plugin says.
    Differs(PathBuf, &'static str, String, String),
    /// The maps of the plugin need more than `limits.map_bytes`.
    TooLarge(u64, u64),
    /// No memory: the system's reason.
    NoMemory(u64, io::Error),
}

impl fmt::Display for MapFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapFault::Io(what, path, error) => write!(f, "cannot {what} {}: {error}", path.display()),
            MapFault::InUse(path) => write!(f, "{} is in use by another process", path.display()),
            MapFault::Damaged(path, why) => write!(f, "{} is damaged: {why}; `maps = \"fresh\"` begins with an empty one", path.display()),
            MapFault::Differs(path, what, file, plugin) => write!(
                f,
                "the map kept as {} differs in {what}: it was made with {file}, the plugin has {plugin}; `maps = \"fresh\"` begins with an empty one",
                path.display()
            ),
            MapFault::TooLarge(wanted, bound) => write!(f, "its maps need {wanted} bytes, more than limits.map_bytes ({bound})"),
            MapFault::NoMemory(bytes, error) => write!(f, "no memory for maps of {bytes} bytes: {error}"),
        }
    }
}

impl std::error::Error for MapFault {}

/// An opened file.
pub struct Opened {
    /// Its words.
    pub words: Words,
    /// Cores it has entries for.
    pub cores: u32,
    /// For a new file: where it is, and where it will be.
    pub pending: Option<(PathBuf, PathBuf)>,
}

/// What becomes of a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is used, or refused when it does not fit.
    Keep,
    /// It is used, or replaced when it does not fit.
    ReplaceMisfit,
    /// It is replaced.
    Replace,
}

/// Opens the map at `path`, or makes one.
///
/// # Errors
/// Why not; nothing has changed then.
pub fn open(path: &Path, shape: &MapShape, cores: u32, policy: Existing) -> Result<Opened, MapFault> {
    if policy == Existing::Replace {
        return create(path, shape, cores);
    }
    match existing(path, shape, cores) {
        Err(MapFault::Io(_, _, error)) if error.kind() == io::ErrorKind::NotFound => create(path, shape, cores),
        Err(MapFault::Damaged(..) | MapFault::Differs(..)) if policy == Existing::ReplaceMisfit => create(path, shape, cores),
        other => other,
    }
}

fn existing(path: &Path, shape: &MapShape, cores: u32) -> Result<Opened, MapFault> {
    let io = |what| move |error| MapFault::Io(what, path.to_owned(), error);
    // Not through a link: the folder is ours, and what stands in it was made by `create`.
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(io("open"))?;
    lock(&file, path)?;
    let metadata = file.metadata().map_err(io("read"))?;
    if !metadata.is_file() {
        return Err(MapFault::Damaged(path.to_owned(), "it is not a file".into()));
    }
    let mut head = Vec::with_capacity(CHECKED_BYTES);
    (&mut file).take(CHECKED_BYTES as u64).read_to_end(&mut head).map_err(io("read"))?;
    let kept = check(&head, metadata.len(), shape).map_err(|misfit| match misfit {
        Misfit::Damaged(why) => MapFault::Damaged(path.to_owned(), why),
        Misfit::Differs(what, file, plugin) => MapFault::Differs(path.to_owned(), what, file, plugin),
    })?;
    let wanted = shape.copies(cores);
    let cores = kept.max(wanted);
    if cores > kept {
        // More workers than before: their entries follow the others.
        file.seek(SeekFrom::End(0)).map_err(io("enlarge"))?;
        zeroes(&mut file, shape.bytes(cores) - shape.bytes(kept)).map_err(io("enlarge"))?;
        file.write_all_at(&header(shape, cores), 0).map_err(io("write"))?;
    }
    let words = Words::of_file(file, shape.words(cores)).map_err(io("map"))?;
    Ok(Opened { words, cores, pending: None })
}

fn create(path: &Path, shape: &MapShape, cores: u32) -> Result<Opened, MapFault> {
    let new = path.with_extension("new");
    let io = |what| {
        let new = new.clone();
        move |error| MapFault::Io(what, new, error)
    };
    // What a process that ended too early left.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("replace")(error)),
        _ => {}
    }
    let cores = shape.copies(cores);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new).map_err(io("make"))?;
    lock(&file, &new)?;
    // Every block is written now: a disk that is full later would end the process at a store.
    let written = file.write_all(&header(shape, cores)).and_then(|()| zeroes(&mut file, shape.bytes(cores) - CHECKED_BYTES as u64));
    if let Err(error) = written {
        let _ = fs::remove_file(&new);
        return Err(io("write")(error));
    }
    let words = Words::of_file(file, shape.words(cores)).map_err(io("map"))?;
    Ok(Opened { words, cores, pending: Some((new, path.to_owned())) })
}

/// A child that this process starts holds its locks, too, until it has become another program: for so long a lock is tried.
fn lock(file: &File, path: &Path) -> Result<(), MapFault> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(MapFault::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(MapFault::Io("lock", path.to_owned(), error)),
        }
    }
}

fn zeroes(file: &mut File, mut bytes: u64) -> io::Result<()> {
    let chunk = [0; CHUNK_BYTES];
    while bytes > 0 {
        let next = bytes.min(CHUNK_BYTES as u64);
        file.write_all(&chunk[..next as usize])?;
        bytes -= next;
    }
    Ok(())
}

/// The bytes that [`check`] reads.
fn header(shape: &MapShape, cores: u32) -> [u8; CHECKED_BYTES] {
    let mut bytes = [0; CHECKED_BYTES];
    bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
    let numbers = [VERSION, shape.kind().number(), shape.key_bytes() as u32, shape.value_bytes() as u32, shape.entries_max() as u32, cores];
    for (place, number) in bytes[8..32].chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes[32..40].copy_from_slice(&shape.fingerprint().to_le_bytes());
    bytes[40..48].copy_from_slice(&shape.bytes(cores).to_le_bytes());
    bytes
}

/// Why a file does not belong to a definition.
#[derive(Debug, PartialEq, Eq)]
enum Misfit {
    Damaged(String),
    Differs(&'static str, String, String),
}

/// Whether a file of `length` bytes that begins with `head` belongs to the definition; the cores it has entries for.
fn check(head: &[u8], length: u64, shape: &MapShape) -> Result<u32, Misfit> {
    let damaged = |why: String| Err(Misfit::Damaged(why));
    let Ok(head) = <&[u8; CHECKED_BYTES]>::try_from(head) else { return damaged(format!("it has only {length} bytes")) };
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|step| head[at + step]));
    let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|step| head[at + step]));
    if long(0) != MAGIC {
        return damaged("it does not begin as a map does".into());
    }
    if number(8) != VERSION {
        return Err(Misfit::Differs("the version of its format", number(8).to_string(), VERSION.to_string()));
    }
    for (what, found, wanted) in [
        ("kind", number(12), shape.kind().number()),
        ("key_bytes", number(16), shape.key_bytes() as u32),
        ("value_bytes", number(20), shape.value_bytes() as u32),
        ("entries_max", number(24), shape.entries_max() as u32),
    ] {
        if found != wanted {
            return Err(Misfit::Differs(what, found.to_string(), wanted.to_string()));
        }
    }
    if long(32) != shape.fingerprint() {
        return Err(Misfit::Differs("value_fields", "others".into(), format!("\"{}\"", shape.value_fields())));
    }
    let cores = number(28);
    if !(1..=CORES_MAX).contains(&cores) || shape.copies(cores) != cores {
        return damaged(format!("it claims {cores} cores"));
    }
    let bytes = shape.bytes(cores);
    if long(40) != bytes || length < bytes {
        return damaged(format!("it has {length} bytes and should have {bytes}"));
    }
    Ok(cores)
}

const _: () = assert!(CHECKED_BYTES <= 8 * HEADER_WORDS);

#[cfg(test)]
mod tests {
    use super::super::shape::Sizes;
    use super::*;

    fn shape() -> MapShape {
        let sizes = Sizes { kind: ringway_abi::maps::CORE_ARRAY, key_bytes: 4, value_bytes: 8, entries_max: 10 };
        MapShape::new("m", sizes, "u64 n").expect("good")
    }

    #[test]
    fn a_header_is_believed_only_as_a_whole() {
        let shape = shape();
        let good = header(&shape, 3);
        assert_eq!(check(&good, shape.bytes(3), &shape), Ok(3));
        assert_eq!(check(&good, shape.bytes(3) + 1, &shape), Ok(3), "what follows is not looked at");
        for (at, expected) in [
            (0, "it does not begin as a map does"),
            (31, "it claims 2147483651 cores"),
            (29, "it claims 32771 cores"),
            (40, "it has 16384 bytes and should have 16384"),
        ] {
            let mut bad = good;
            bad[at] ^= 0x80;
            assert_eq!(check(&bad, shape.bytes(3), &shape), Err(Misfit::Damaged(expected.into())), "byte {at}");
        }
        for (at, what) in [(8, "the version of its format"), (12, "kind"), (16, "key_bytes"), (20, "value_bytes"), (24, "entries_max"), (32, "value_fields")] {
            let mut other = good;
            other[at] ^= 1;
            assert!(matches!(check(&other, shape.bytes(3), &shape), Err(Misfit::Differs(found, ..)) if found == what), "byte {at}");
        }
        assert!(check(&good[..47], 47, &shape).is_err() && check(&[], 0, &shape).is_err());
        assert_eq!(check(&good, 100, &shape), Err(Misfit::Damaged("it has 100 bytes and should have 16384".into())));
    }

    /// Whatever the first bytes are, there is an answer, and a good one leads only to sizes that the file has.
    #[test]
    fn no_header_makes_it_panic() {
        let shape = shape();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut head = header(&shape, random.u32(1..6));
            for _ in 0..random.usize(0..4) {
                head[random.usize(..CHECKED_BYTES)] = random.u8(..);
            }
            let length = random.u64(..shape.bytes(8));
            if let Ok(cores) = check(&head[..random.usize(..=CHECKED_BYTES)], length, &shape) {
                assert!(shape.bytes(cores) <= length);
            }
        }
    }
}
