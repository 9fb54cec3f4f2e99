//! A map: its entries, whatever their kind, for plugins and for operators.
//!
//! All methods take `&self` and may run on any thread at once; those of a core array that write do so on the thread of that
//! core. Nothing here allocates but `Map::open` and what is named so. Keys and values are bytes at the edge and words
//! inside.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::lock::{self, Busy};
use super::memory::Words;
use super::ring;
use super::shape::{MapKind, MapShape};
use super::table::{Key, Table};

/// Why a call on a map was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// A length that is not that of the definition, or a call that the kind does not have.
    BadArgument,
    /// There is no such key or index.
    NotFound,
    /// Every entry is taken.
    Full,
    /// Another thread is in the middle of a write for too long.
    Busy,
}

impl From<Busy> for MapError {
    fn from(_: Busy) -> MapError {
        MapError::Busy
    }
}

/// A map.
pub struct Map {
    shape: MapShape,
    cores: u32,
    words: Words,
    table: Table,
    /// By word of a value: whether `add` may change it.
    counters: Box<[bool]>,
    /// A new file and the name it gets when the plugin is in force.
    pending: Mutex<Option<(PathBuf, PathBuf)>>,
    is_pinned: bool,
    /// Of a ring: one reader at a time.
    reader: Mutex<()>,
}

impl Map {
    /// A map in these words, which belong to `shape` and so many cores. The second: how many entries were dropped because a process had
    /// ended while it wrote them.
    pub(super) fn open(shape: MapShape, cores: u32, words: Words, pending: Option<(PathBuf, PathBuf)>, is_pinned: bool) -> (Map, usize) {
        let table = Table::new(&shape);
        let counters = (0..shape.value_words()).map(|word| shape.has_counter(word)).collect();
        let map = Map { cores: shape.copies(cores), shape, words, table, counters, pending: Mutex::new(pending), is_pinned, reader: Mutex::new(()) };
        let dropped = match map.shape.kind() {
            MapKind::Array | MapKind::CoreArray => map.repair_array(),
            MapKind::Hash | MapKind::Lru | MapKind::Lpm => map.table.rebuild(map.words.all()),
            MapKind::Ring => 0,
        };
        (map, dropped)
    }

    /// Its definition.
    pub fn shape(&self) -> &MapShape {
        &self.shape
    }

    /// How many cores have entries of their own; 1 when they share them.
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        8 * self.words.all().len() as u64
    }

    /// Whether it is a file that a restart finds again.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// Keys that are in it; of arrays the entries, of rings the records that wait for a reader.
    pub fn entries(&self) -> usize {
        match self.shape.kind() {
            MapKind::Array | MapKind::CoreArray => self.shape.entries_max(),
            MapKind::Hash | MapKind::Lru | MapKind::Lpm => self.table.used(self.words.all()),
            MapKind::Ring => ring::waiting(self.words.all()),
        }
    }

    /// Of a ring: records so far, and records that found no room.
    pub fn traffic(&self) -> Option<(u64, u64)> {
        let words = self.words.all();
        (self.shape.kind() == MapKind::Ring).then(|| (ring::records(words), ring::dropped(words)))
    }

    /// Appends a record to a ring.
    ///
    /// # Errors
    /// `BadArgument` for another kind and another length, `Full` when it was dropped.
    #[inline]
    pub fn output(&self, record: &[u8]) -> Result<(), MapError> {
        if self.shape.kind() != MapKind::Ring {
            return Err(MapError::BadArgument);
        }
        ring::output(&self.shape, self.words.all(), record)
    }

    /// Takes the oldest record of a ring into `record`; false when there is none. Readers wait for each other.
    pub fn take(&self, record: &mut Vec<u8>) -> bool {
        let _reading = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        self.shape.kind() == MapKind::Ring && ring::take(&self.shape, self.words.all(), record)
    }

    /// The plugin that defines it is in force: a new file gets its name.
    ///
    /// # Errors
    /// When it cannot be renamed: a restart will not find it.
    pub fn settle(&self) -> std::io::Result<()> {
        match self.pending.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some((from, to)) => std::fs::rename(from, to),
            None => Ok(()),
        }
    }

    /// The lock and the value of entry `index` of `core`.
    #[inline]
    fn array_entry(&self, core: u32, index: usize) -> Result<(&AtomicU64, &[AtomicU64]), MapError> {
        if index >= self.shape.entries_max() {
            return Err(MapError::NotFound);
        }
        if core >= self.cores {
            return Err(MapError::BadArgument);
        }
        let at = self.shape.entries_at() + core as usize * self.shape.core_words() + index * self.shape.stride();
        let entry = self.words.all().get(at..at + self.shape.stride()).ok_or(MapError::NotFound)?;
        entry.split_first().ok_or(MapError::NotFound)
    }

    /// The index that a key of an array is.
    #[inline]
    fn index(&self, key: &[u8]) -> Result<usize, MapError> {
        <[u8; 4]>::try_from(key).map(|key| u32::from_le_bytes(key) as usize).map_err(|_| MapError::BadArgument)
    }

    /// Has `copy` read a value, maybe more than once: the last time it was whole. `core` counts for core arrays only.
    ///
    /// # Errors
    /// [`MapError`], but never `Full`.
    #[inline]
    pub fn lookup(&self, core: u32, key: &[u8], mut copy: impl FnMut(&[AtomicU64])) -> Result<(), MapError> {
        if self.shape.kind().is_array() {
            let (lock, words) = self.array_entry(self.core_of(core), self.index(key)?)?;
            return Ok(lock::read(lock, || copy(words))?);
        }
        let words = self.words.all();
        let key = Key::new(&self.shape, key)?;
        if self.shape.kind() == MapKind::Lpm {
            return self.table.lookup_prefix(words, &key, copy);
        }
        self.table.lookup(words, &key, copy)
    }

    /// The value of a key; allocates.
    ///
    /// # Errors
    /// As [`Map::lookup`].
    pub fn get(&self, core: u32, key: &[u8]) -> Result<Vec<u8>, MapError> {
        let mut value = vec![0; self.shape.value_bytes()];
        self.lookup(core, key, |words| copy_out(words, &mut value))?;
        Ok(value)
    }

    /// Sets a value; a new key takes a free entry, or in an LRU map that of an old key.
    ///
    /// # Errors
    /// [`MapError`]
    #[inline]
    pub fn update(&self, core: u32, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        if value.len() != self.shape.value_bytes() {
            return Err(MapError::BadArgument);
        }
        if self.shape.kind().is_array() {
            let (lock, words) = self.array_entry(self.core_of(core), self.index(key)?)?;
            let _writing = lock::exclusive(lock)?;
            copy_in(words, value);
            return Ok(());
        }
        let key = Key::new(&self.shape, key)?;
        self.table.write(self.words.all(), &key, |entry| copy_in(entry, value))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`MapError`], but never `Full`.
    pub fn remove(&self, key: &[u8]) -> Result<(), MapError> {
        let key = Key::new(&self.shape, key)?;
        self.table.remove(self.words.all(), &key)
    }

    /// Adds to the number at `offset` of a value; the sum.
    ///
    /// # Errors
    /// [`MapError`]
    #[inline]
    pub fn add(&self, core: u32, key: &[u8], offset: u32, delta: u64) -> Result<u64, MapError> {
        let word = offset as usize / 8;
        if !offset.is_multiple_of(8) || !self.counters.get(word).copied().unwrap_or(false) {
            return Err(MapError::BadArgument);
        }
        if self.shape.kind().is_array() {
            let (_, words) = self.array_entry(self.core_of(core), self.index(key)?)?;
            if self.shape.kind() == MapKind::CoreArray {
                // One writer: a sum without a locked instruction.
                let sum = words[word].load(Ordering::Relaxed).wrapping_add(delta);
                words[word].store(sum, Ordering::Relaxed);
                return Ok(sum);
            }
            return Ok(words[word].fetch_add(delta, Ordering::Relaxed).wrapping_add(delta));
        }
        let key = Key::new(&self.shape, key)?;
        self.table.add(self.words.all(), &key, word, delta)
    }

    /// Where the value of entry `index` of `core` stands, for the plugin on that core.
    #[inline]
    pub fn core_value(&self, core: u32, index: u32) -> Option<*mut u64> {
        if self.shape.kind() != MapKind::CoreArray {
            return None;
        }
        let (_, words) = self.array_entry(core, index as usize).ok()?;
        words.first().map(AtomicU64::as_ptr)
    }

    #[inline]
    fn core_of(&self, core: u32) -> u32 {
        if self.shape.kind() == MapKind::CoreArray { core } else { 0 }
    }

    /// The entry in place `at`, with the next place to look: key and value, `None` for a free place. For operators, who walk
    /// from 0 to [`Map::places`] while traffic flows; allocates.
    ///
    /// # Errors
    /// `Busy`
    pub fn at(&self, at: usize) -> Result<Option<Entry>, MapError> {
        let mut value = vec![0; self.shape.value_bytes()];
        let mut key = vec![0; self.shape.key_bytes()];
        if self.shape.kind().is_array() {
            let entries = self.shape.entries_max();
            let (core, index) = (at / entries, at % entries);
            let (lock, words) = self.array_entry(core as u32, index)?;
            lock::read(lock, || copy_out(words, &mut value))?;
            key.copy_from_slice(&(index as u32).to_le_bytes());
            return Ok(Some(Entry { core: core as u32, key, value }));
        }
        let found = self.table.entry(self.words.all(), at, &mut key, &mut value)?;
        Ok(found.then_some(Entry { core: 0, key, value }))
    }

    /// How many places [`Map::at`] knows.
    pub fn places(&self) -> usize {
        if self.shape.kind() == MapKind::Ring { 0 } else { self.shape.entries_max() * self.cores as usize }
    }

    /// Zeroes what a process was writing when it ended; how many entries that were.
    fn repair_array(&self) -> usize {
        let mut dropped = 0;
        for place in 0..self.places() {
            let entries = self.shape.entries_max();
            let Ok((lock, value)) = self.array_entry((place / entries) as u32, place % entries) else { continue };
            if lock::is_left_locked(lock.load(Ordering::Relaxed)) {
                value.iter().for_each(|word| word.store(0, Ordering::Relaxed));
                dropped += 1;
            }
            if lock.load(Ordering::Relaxed) != 0 {
                lock.store(0, Ordering::Relaxed);
            }
        }
        dropped
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let Some((new, _)) = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // The plugin never came into force. Nobody is left to tell when the file stays; the next one replaces it.
            let _ = std::fs::remove_file(new);
        }
    }
}

/// One entry as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is, in a core array.
    pub core: u32,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// Words to bytes; `bytes` begins at the first word.
#[inline]
pub(super) fn copy_out(words: &[AtomicU64], bytes: &mut [u8]) {
    for (word, bytes) in words.iter().zip(bytes.chunks_mut(8)) {
        let word = word.load(Ordering::Relaxed).to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
    }
}

/// Words to bytes that nobody has written yet.
#[inline]
pub(super) fn copy_to_uninit(words: &[AtomicU64], bytes: &mut [MaybeUninit<u8>]) {
    for (word, bytes) in words.iter().zip(bytes.chunks_mut(8)) {
        let word = word.load(Ordering::Relaxed).to_le_bytes();
        bytes.write_copy_of_slice(&word[..bytes.len()]);
    }
}

/// Bytes to words, the last one filled with zeroes.
#[inline]
pub(super) fn copy_in(words: &[AtomicU64], bytes: &[u8]) {
    for (word, bytes) in words.iter().zip(bytes.chunks(8)) {
        word.store(word_of(bytes), Ordering::Relaxed);
    }
}

/// At most eight bytes as a word.
#[inline]
pub(super) fn word_of(bytes: &[u8]) -> u64 {
    if let Ok(whole) = <[u8; 8]>::try_from(bytes) {
        return u64::from_le_bytes(whole);
    }
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}
