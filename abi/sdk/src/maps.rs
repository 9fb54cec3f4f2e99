//! Maps: memory of the gateway that outlives a version of the plugin, and that operators read (`ringway.h` §7).
//!
//! [`export_plugin!`](crate::export_plugin!) defines them, [`Plugin::load`](crate::Plugin::load) opens those that all workers share with
//! [`Loader::map`], [`Plugin::core_ready`](crate::Plugin::core_ready) those of one worker with [`Loader::core_map`]:
//!
//! ```standalone_crate
//! use std::sync::Arc;
//! use ringway_sdk::prelude::*;
//!
//! struct Hits {
//!     paths: SharedMap,
//! }
//!
//! impl Plugin for Hits {
//!     type Shared = SharedMap;
//!     type Scratch = ();
//!
//!     fn load(loader: &mut Loader<'_>, _: &[u8]) -> Result<SharedMap, Fault> {
//!         Ok(loader.map(PATHS)?)
//!     }
//!
//!     fn core_init(paths: &Arc<SharedMap>, _: u32) -> Result<Self, Fault> {
//!         Ok(Hits { paths: **paths })
//!     }
//!
//!     fn on_request(&mut self, _: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
//!         let mut key = [0; 32];
//!         let len = request.path().len().min(key.len());
//!         key[..len].copy_from_slice(&request.path()[..len]);
//!         // A full map is no reason to fail the request.
//!         let _ = self.paths.add(key, 0, 1);
//!         Ok(Verdict::Continue)
//!     }
//! }
//!
//! ringway_sdk::export_plugin!(Hits {
//!     name: "hits",
//!     version: "1.0.0",
//!     hooks: [on_request],
//!     maps: [PATHS = hash("paths", 32, "u64 hits", 1000)],
//! });
//! # fn main() {}
//! ```
//!
//! A definition is `NAME = KIND(ARGUMENTS)`, where KIND(ARGUMENTS) is `array(name, fields, entries)`, `core_array(name, fields, entries)`,
//! `hash(name, key_bytes, fields, entries)`, `lru(name, key_bytes, fields, entries)`, `lpm(name, fields, entries)` or
//! `ring(name, fields, entries)`. Fields that make no sense do not compile:
//!
//! ```compile_fail
//! # use ringway_sdk::prelude::*;
//! # struct Hits;
//! # impl Plugin for Hits {
//! #     type Shared = (); type Scratch = ();
//! #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
//! #     fn core_init(_: &std::sync::Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Hits) }
//! # }
//! ringway_sdk::export_plugin!(Hits { name: "hits", version: "1", hooks: [], maps: [PATHS = hash("paths", 32, "long hits", 1000)] });
//! # fn main() {}
//! ```

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

pub use ringway_abi::maps::Prefix;
use ringway_abi::maps::{self as abi, RawMap};
use ringway_abi::raw;

use crate::error::{HostError, length};
use crate::loader::Loader;

/// A map of this plugin; [`export_plugin!`](crate::export_plugin!) defines it.
#[derive(Debug, Clone, Copy)]
pub struct Map {
    index: u32,
    value_bytes: u32,
}

impl Map {
    #[doc(hidden)]
    pub const fn at(index: u32, definition: &MapDef) -> Self {
        Map { index, value_bytes: definition.0.value_bytes }
    }
}

/// A map that all workers share: keep it in [`Plugin::Shared`](crate::Plugin::Shared) and copy it where it is used.
#[derive(Clone, Copy)]
pub struct SharedMap(Open);

// SAFETY: the functions of the table may be called on any thread for a map that `load` opened (`ringway.h` §7).
unsafe impl Send for SharedMap {}
// SAFETY: as above.
unsafe impl Sync for SharedMap {}

/// A core array as this worker sees it.
#[derive(Clone, Copy)]
pub struct CoreMap {
    open: Open,
    on_worker: PhantomData<*const ()>,
}

#[derive(Clone, Copy)]
struct Open {
    table: &'static abi::Maps,
    map: NonNull<RawMap>,
    value_bytes: u32,
}

impl Open {
    fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<bool, HostError> {
        let (key_len, value_len) = (length(key)?, length(value)?);
        // SAFETY: `Loader::open`; both are valid for their lengths.
        let status = unsafe { (self.table.lookup)(self.map.as_ptr(), key.as_ptr().cast(), key_len, value.as_mut_ptr().cast(), value_len) };
        found(status)
    }

    fn update(&self, key: &[u8], value: &[u8]) -> Result<(), HostError> {
        let (key_len, value_len) = (length(key)?, length(value)?);
        // SAFETY: as above.
        let status = unsafe { (self.table.update)(self.map.as_ptr(), key.as_ptr().cast(), key_len, value.as_ptr().cast(), value_len, 0) };
        HostError::check(status).map(|_| ())
    }

    fn add(&self, key: &[u8], offset: u32, delta: u64) -> Result<u64, HostError> {
        let key_len = length(key)?;
        let mut sum = 0;
        // SAFETY: as above.
        let status = unsafe { (self.table.add)(self.map.as_ptr(), key.as_ptr().cast(), key_len, offset, delta, &mut sum) };
        HostError::check(status).map(|_| sum)
    }
}

fn found(status: i32) -> Result<bool, HostError> {
    match HostError::check(status) {
        Ok(_) => Ok(true),
        Err(HostError::NotFound) => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

impl SharedMap {
    /// Copies the value of a key; false when it has none. `value` has the bytes of the definition. In an LPM map the key is a
    /// [`Prefix`] (see [`prefix`]), of an array `index.to_le_bytes()`.
    pub fn lookup(&self, key: impl AsRef<[u8]>, value: &mut [u8]) -> Result<bool, HostError> {
        self.0.lookup(key.as_ref(), value)
    }

    /// Sets the value of a key, which may be new. [`HostError::NoSpace`] when the map is full.
    pub fn update(&self, key: impl AsRef<[u8]>, value: &[u8]) -> Result<(), HostError> {
        self.0.update(key.as_ref(), value)
    }

    /// Removes a key; false when it was not there. Not for arrays.
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool, HostError> {
        let key = key.as_ref();
        let key_len = length(key)?;
        // SAFETY: `Loader::open`; the key is valid for its length.
        found(unsafe { (self.0.table.remove)(self.0.map.as_ptr(), key.as_ptr().cast(), key_len) })
    }

    /// Adds to the 64-bit number at `offset` of a value, atomically; the sum. A key that is new begins with zeroes.
    pub fn add(&self, key: impl AsRef<[u8]>, offset: u32, delta: u64) -> Result<u64, HostError> {
        self.0.add(key.as_ref(), offset, delta)
    }

    /// Appends a record to a ring. [`HostError::NoSpace`] when it was dropped because nobody reads fast enough.
    pub fn output(&self, record: &[u8]) -> Result<(), HostError> {
        let len = length(record)?;
        // SAFETY: `Loader::open`; the record is valid for its length.
        HostError::check(unsafe { (self.0.table.output)(self.0.map.as_ptr(), record.as_ptr().cast(), len) }).map(|_| ())
    }
}

impl CoreMap {
    /// The value of entry `index` of this worker, as words; `None` behind the last entry. The worker is the only one that writes: a relaxed load and
    /// a relaxed store cost what plain ones cost. Operators read it meanwhile.
    pub fn value(&self, index: u32) -> Option<&[AtomicU64]> {
        // SAFETY: `Loader::open`.
        let value = unsafe { (self.open.table.value)(self.open.map.as_ptr(), index) };
        let value = NonNull::new(value.cast::<AtomicU64>())?;
        // SAFETY: the contract of `value`: 8-byte aligned, with the bytes of the definition in whole words, as long as this worker's
        // instance, which owns `self`; everyone else reads it atomically.
        Some(unsafe { std::slice::from_raw_parts(value.as_ptr(), self.open.value_bytes.div_ceil(8) as usize) })
    }

    /// Adds to the 64-bit number at `offset` of an entry of this worker; the sum.
    pub fn add(&self, index: u32, offset: u32, delta: u64) -> Result<u64, HostError> {
        self.open.add(&index.to_le_bytes(), offset, delta)
    }

    /// Copies an entry of this worker; false behind the last one.
    pub fn lookup(&self, index: u32, value: &mut [u8]) -> Result<bool, HostError> {
        self.open.lookup(&index.to_le_bytes(), value)
    }

    /// Sets an entry of this worker.
    pub fn update(&self, index: u32, value: &[u8]) -> Result<(), HostError> {
        self.open.update(&index.to_le_bytes(), value)
    }
}

impl fmt::Debug for SharedMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedMap")
    }
}

impl fmt::Debug for CoreMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CoreMap")
    }
}

/// The bytes of a prefix, the key of an LPM map. `address` as in [`RequestExt`](crate::message::RequestExt): IPv4 mapped, with 96 bits before its own.
pub fn prefix(bits: u32, address: [u8; 16]) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&bits.to_le_bytes());
    key[4..].copy_from_slice(&address);
    key
}

impl Loader<'_> {
    /// A map that all workers share, in [`Plugin::load`](crate::Plugin::load).
    pub fn map(&mut self, map: Map) -> Result<SharedMap, HostError> {
        self.open(map).map(SharedMap)
    }

    /// A core array, in [`Plugin::core_ready`](crate::Plugin::core_ready).
    pub fn core_map(&mut self, map: Map) -> Result<CoreMap, HostError> {
        self.open(map).map(|open| CoreMap { open, on_worker: PhantomData })
    }

    fn open(&mut self, map: Map) -> Result<Open, HostError> {
        let table = self.extension(abi::EXTENSION).ok_or(HostError::NotDeclared)?;
        // SAFETY: the id names this table, of at least its first version; it lives as long as the library is open (S-30).
        let table: &'static abi::Maps = unsafe { table.cast().as_ref() };
        let mut opened = ptr::null();
        // SAFETY: `Loader::new`'s caller promised a running load or core_init.
        HostError::check(unsafe { (table.open)(self.raw(), map.index, &mut opened) })?;
        let map_pointer = NonNull::new(opened.cast_mut()).ok_or(HostError::NotFound)?;
        Ok(Open { table, map: map_pointer, value_bytes: map.value_bytes })
    }
}

/// `rw_map_def`.
#[doc(hidden)]
#[repr(transparent)]
pub struct MapDef(raw::MapDef);

// SAFETY: a constant whose pointers lead to constants.
unsafe impl Sync for MapDef {}

impl MapDef {
    pub const fn array(name: &'static str, fields: &'static str, entries_max: u32) -> Self {
        MapDef::new(name, abi::ARRAY, 4, fields, entries_max)
    }

    pub const fn core_array(name: &'static str, fields: &'static str, entries_max: u32) -> Self {
        MapDef::new(name, abi::CORE_ARRAY, 4, fields, entries_max)
    }

    pub const fn hash(name: &'static str, key_bytes: u32, fields: &'static str, entries_max: u32) -> Self {
        MapDef::new(name, abi::HASH, key_bytes, fields, entries_max)
    }

    pub const fn lru(name: &'static str, key_bytes: u32, fields: &'static str, entries_max: u32) -> Self {
        MapDef::new(name, abi::LRU, key_bytes, fields, entries_max)
    }

    pub const fn lpm(name: &'static str, fields: &'static str, entries_max: u32) -> Self {
        MapDef::new(name, abi::LPM, size_of::<Prefix>() as u32, fields, entries_max)
    }

    pub const fn ring(name: &'static str, fields: &'static str, entries_max: u32) -> Self {
        MapDef::new(name, abi::RING, 0, fields, entries_max)
    }

    /// `name` and `fields` with their NUL.
    const fn new(name: &'static str, kind: u32, key_bytes: u32, fields: &'static str, entries_max: u32) -> Self {
        assert!(name.len() > 1 && name.len() <= abi::NAME_BYTES_MAX as usize + 1, "the name of a map has 1 to 31 bytes");
        assert!(entries_max > 0 && entries_max <= abi::ENTRIES_MAX, "a map has 1 to 16777216 entries");
        assert!(key_bytes <= abi::KEY_BYTES_MAX, "a key has at most 256 bytes");
        MapDef(raw::MapDef { name: c_str(name), value_fields: c_str(fields), kind, key_bytes, value_bytes: value_bytes(fields), entries_max })
    }

    pub(crate) const fn count(maps: &[MapDef]) -> u32 {
        assert!(maps.len() <= abi::MAPS_MAX as usize, "a plugin has at most 64 maps");
        maps.len() as u32
    }
}

const fn c_str(text: &'static str) -> *const std::ffi::c_char {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text.as_ptr(),
        Err(_) => panic!("the text of a map must not hold NUL"),
    }
}

/// The sum of the fields.
const fn value_bytes(fields: &str) -> u32 {
    let text = fields.as_bytes();
    let (mut sum, mut at) = (0, 0);
    while at < text.len() && text[at] != 0 {
        while text[at] == b' ' {
            at += 1;
        }
        let (bytes, name_bytes) = field_type(text, at);
        at += name_bytes;
        let mut count = 1;
        if text[at] == b'[' {
            (count, at) = (0, at + 1);
            while text[at].is_ascii_digit() {
                count = count * 10 + (text[at] - b'0') as u32;
                at += 1;
            }
            assert!(text[at] == b']' && count > 0, "the count of a field is a number in brackets");
            at += 1;
        }
        assert!(text[at] == b' ', "a field of a map is \"TYPE NAME\"");
        assert!(sum % bytes == 0, "a field of a map stands at a multiple of its size");
        sum += bytes * count;
        while text[at] != b',' && text[at] != 0 {
            at += 1;
        }
        if text[at] == b',' {
            at += 1;
        }
    }
    assert!(sum > 0 && sum <= abi::VALUE_BYTES_MAX, "a value has 1 to 4096 bytes");
    sum
}

/// The size of a type, and how many bytes its name has.
const fn field_type(text: &[u8], at: usize) -> (u32, usize) {
    let mut end = at;
    while text[end].is_ascii_alphanumeric() {
        end += 1;
    }
    let is_number = text[at] == b'u' || text[at] == b'i';
    match (is_number, end - at) {
        (true, 2) if text[at + 1] == b'8' => (1, 2),
        (true, 3) if text[at + 1] == b'1' && text[at + 2] == b'6' => (2, 3),
        (true, 3) if text[at + 1] == b'3' && text[at + 2] == b'2' => (4, 3),
        (true, 3) if text[at + 1] == b'6' && text[at + 2] == b'4' => (8, 3),
        (false, 4) if text[at] == b'c' && text[at + 1] == b'h' && text[at + 2] == b'a' && text[at + 3] == b'r' => (1, 4),
        _ => panic!("the type of a field is u8, u16, u32, u64, i8, i16, i32, i64 or char"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_value_are_the_sum_of_its_fields() {
        for (fields, bytes) in [("u64 a\0", 8), ("u64 a, u32 b,u16[2] c\0", 16), ("char[31] name, i8 x\0", 32)] {
            assert_eq!(value_bytes(fields), bytes, "{fields}");
        }
    }
}
