//! Maps of the test host: what `ringway.h` §7 says, on ordinary collections.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use ringway_abi::maps::{self as abi, Maps, RawMap};
use ringway_abi::raw::{self, RawLoader};

use super::table::LoadCall;

/// The table that the plugin gets.
pub(super) static MAPS: Maps = Maps { size: size_of::<Maps>() as u32, reserved: 0, open, lookup, update, remove, add, value, output };

/// By key: the value, and when it was used last.
type Values = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// A map; `rw_map` is this.
pub(super) struct TestMap {
    pub(super) name: String,
    kind: u32,
    key_bytes: usize,
    value_bytes: usize,
    entries_max: usize,
    /// What is in it, and how often it was used.
    pub(super) entries: Mutex<(Values, u64)>,
    /// Of a ring: what waits for a reader.
    pub(super) records: Mutex<Vec<Vec<u8>>>,
    /// Of a core array: the values of the one worker.
    core: Box<[AtomicU64]>,
}

impl TestMap {
    /// The maps of a descriptor.
    pub(super) fn all(plugin: &raw::Plugin) -> Vec<TestMap> {
        (0..plugin.map_count as usize)
            .map(|at| {
                // SAFETY: the builder made the descriptor: `map_count` definitions.
                let definition = unsafe { &*plugin.maps.add(at) };
                // SAFETY: each has a NUL-terminated name.
                let name = unsafe { CStr::from_ptr(definition.name) }.to_string_lossy().into_owned();
                let words = if definition.kind == abi::CORE_ARRAY { definition.entries_max as usize * definition.value_bytes.div_ceil(8) as usize } else { 0 };
                TestMap {
                    name,
                    kind: definition.kind,
                    key_bytes: definition.key_bytes as usize,
                    value_bytes: definition.value_bytes as usize,
                    entries_max: definition.entries_max as usize,
                    entries: Mutex::default(),
                    records: Mutex::default(),
                    core: (0..words).map(|_| AtomicU64::new(0)).collect(),
                }
            })
            .collect()
    }

    fn is_array(&self) -> bool {
        matches!(self.kind, abi::ARRAY | abi::CORE_ARRAY)
    }

    /// The words of an entry of a core array.
    fn core_value(&self, index: usize) -> Option<&[AtomicU64]> {
        let words = self.value_bytes.div_ceil(8);
        if index >= self.entries_max { None } else { self.core.get(index * words..(index + 1) * words) }
    }

    /// The whole value of a key, every entry of an array being there.
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        if self.is_array() {
            let index = u32::from_le_bytes(key.try_into().ok()?) as usize;
            if index >= self.entries_max {
                return None;
            }
            if let Some(words) = self.core_value(index) {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(std::sync::atomic::Ordering::Relaxed).to_le_bytes()).collect();
                return Some(bytes[..self.value_bytes].to_vec());
            }
        }
        let mut entries = self.entries.lock().expect("no test panics inside");
        entries.1 += 1;
        let now = entries.1;
        let found = match self.kind {
            abi::LPM => {
                let bits = u32::from_le_bytes(key[..4].try_into().ok()?);
                (0..=bits.min(128)).rev().map(|bits| normal(key, bits)).find(|key| entries.0.contains_key(key))?
            }
            _ => key.to_vec(),
        };
        match entries.0.get_mut(&found) {
            Some((value, used)) => {
                *used = now;
                Some(value.clone())
            }
            None => self.is_array().then(|| vec![0; self.value_bytes]),
        }
    }

    fn set(&self, key: &[u8], value: &[u8]) -> i32 {
        if let Ok(index) = <[u8; 4]>::try_from(key)
            && self.is_array()
        {
            let index = u32::from_le_bytes(index) as usize;
            if index >= self.entries_max {
                return raw::ERR_NOT_FOUND;
            }
            if let Some(words) = self.core_value(index) {
                for (word, bytes) in words.iter().zip(value.chunks(8)) {
                    let mut padded = [0; 8];
                    padded[..bytes.len()].copy_from_slice(bytes);
                    word.store(u64::from_le_bytes(padded), std::sync::atomic::Ordering::Relaxed);
                }
                return raw::OK;
            }
        }
        let key = match (self.kind, key.first_chunk()) {
            (abi::LPM, Some(bits)) => normal(key, u32::from_le_bytes(*bits)),
            _ => key.to_vec(),
        };
        let mut entries = self.entries.lock().expect("no test panics inside");
        if entries.0.len() == self.entries_max && !entries.0.contains_key(&key) {
            let oldest = entries.0.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            match oldest.filter(|_| self.kind == abi::LRU) {
                Some(oldest) => drop(entries.0.remove(&oldest)),
                None => return raw::ERR_NO_SPACE,
            }
        }
        entries.1 += 1;
        let now = entries.1;
        entries.0.insert(key, (value.to_vec(), now));
        raw::OK
    }
}

/// The first `bits` of a prefix.
fn normal(key: &[u8], bits: u32) -> Vec<u8> {
    let address = u128::from_be_bytes(std::array::from_fn(|at| key[4 + at]));
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits.min(128)) };
    [bits.to_le_bytes().as_slice(), &(address & mask).to_be_bytes()].concat()
}

/// The map and the key of a call, when both fit.
///
/// # Safety
/// The contract of the table.
unsafe fn key_of<'a>(map: *const RawMap, key: *const c_void, key_len: u32) -> Option<(&'a TestMap, &'a [u8])> {
    // SAFETY: the contract: `open` gave the pointer, and the maps live as long as the host.
    let map = unsafe { map.cast::<TestMap>().as_ref() }?;
    if key.is_null() || map.kind == abi::RING || key_len as usize != map.key_bytes {
        return None;
    }
    // SAFETY: the contract: valid for its length.
    let key = unsafe { std::slice::from_raw_parts(key.cast::<u8>(), key_len as usize) };
    let is_prefix = map.kind != abi::LPM || key.first_chunk().is_some_and(|bits| u32::from_le_bytes(*bits) <= 128);
    is_prefix.then_some((map, key))
}

unsafe extern "C" fn open(loader: *mut RawLoader, index: u32, map: *mut *const RawMap) -> i32 {
    // SAFETY: the contract: the loader of the running call.
    let Some(call) = (unsafe { loader.cast::<LoadCall>().as_ref() }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: the state lives as long as the host, and only the maps are looked at.
    let Some(found) = (unsafe { call.state.as_ref() }).maps.get(index as usize) else { return raw::ERR_NOT_FOUND };
    if map.is_null() {
        return raw::ERR_BAD_ARGUMENT;
    }
    if found.kind == abi::CORE_ARRAY && !call.in_core_init {
        return raw::ERR_WRONG_HOOK;
    }
    // SAFETY: the contract: writable.
    unsafe { map.write(ptr::from_ref(found).cast()) };
    raw::OK
}

unsafe extern "C" fn lookup(map: *const RawMap, key: *const c_void, key_len: u32, value: *mut c_void, value_len: u32) -> i32 {
    // SAFETY: the contract of the table.
    let Some((map, key)) = (unsafe { key_of(map, key, key_len) }) else { return raw::ERR_BAD_ARGUMENT };
    if value.is_null() || value_len as usize != map.value_bytes {
        return raw::ERR_BAD_ARGUMENT;
    }
    let Some(found) = map.get(key) else { return raw::ERR_NOT_FOUND };
    // SAFETY: the contract: writable for its length, which is that of a value.
    unsafe { ptr::copy_nonoverlapping(found.as_ptr(), value.cast::<u8>(), found.len()) };
    raw::OK
}

unsafe extern "C" fn update(map: *const RawMap, key: *const c_void, key_len: u32, value: *const c_void, value_len: u32, flags: u32) -> i32 {
    // SAFETY: the contract of the table.
    let Some((map, key)) = (unsafe { key_of(map, key, key_len) }) else { return raw::ERR_BAD_ARGUMENT };
    if value.is_null() || value_len as usize != map.value_bytes || flags != 0 {
        return raw::ERR_BAD_ARGUMENT;
    }
    // SAFETY: the contract: valid for its length.
    map.set(key, unsafe { std::slice::from_raw_parts(value.cast::<u8>(), value_len as usize) })
}

unsafe extern "C" fn remove(map: *const RawMap, key: *const c_void, key_len: u32) -> i32 {
    // SAFETY: the contract of the table.
    let Some((map, key)) = (unsafe { key_of(map, key, key_len) }) else { return raw::ERR_BAD_ARGUMENT };
    if map.is_array() {
        return raw::ERR_BAD_ARGUMENT;
    }
    let key = match (map.kind, key.first_chunk()) {
        (abi::LPM, Some(bits)) => normal(key, u32::from_le_bytes(*bits)),
        _ => key.to_vec(),
    };
    let removed = map.entries.lock().expect("no test panics inside").0.remove(&key);
    if removed.is_some() { raw::OK } else { raw::ERR_NOT_FOUND }
}

unsafe extern "C" fn add(map: *const RawMap, key: *const c_void, key_len: u32, offset: u32, delta: u64, sum: *mut u64) -> i32 {
    // SAFETY: the contract of the table.
    let Some((map, key)) = (unsafe { key_of(map, key, key_len) }) else { return raw::ERR_BAD_ARGUMENT };
    let at = offset as usize;
    let mut whole = map.get(key).unwrap_or_else(|| vec![0; map.value_bytes]);
    let Some(place) = whole.get_mut(at..at.saturating_add(8)).filter(|_| offset.is_multiple_of(8)) else { return raw::ERR_BAD_ARGUMENT };
    let total = u64::from_le_bytes(std::array::from_fn(|step| place[step])).wrapping_add(delta);
    place.copy_from_slice(&total.to_le_bytes());
    let status = map.set(key, &whole);
    if status == raw::OK && !sum.is_null() {
        // SAFETY: the contract: writable.
        unsafe { sum.write_unaligned(total) };
    }
    status
}

unsafe extern "C" fn value(map: *const RawMap, index: u32) -> *mut c_void {
    // SAFETY: the contract of the table.
    let Some(map) = (unsafe { map.cast::<TestMap>().as_ref() }) else { return ptr::null_mut() };
    if map.kind != abi::CORE_ARRAY {
        return ptr::null_mut();
    }
    map.core_value(index as usize).and_then(<[AtomicU64]>::first).map_or(ptr::null_mut(), |word| word.as_ptr().cast())
}

unsafe extern "C" fn output(map: *const RawMap, record: *const c_void, record_len: u32) -> i32 {
    // SAFETY: the contract of the table.
    let Some(map) = (unsafe { map.cast::<TestMap>().as_ref() }) else { return raw::ERR_BAD_ARGUMENT };
    let len = record_len as usize;
    if map.kind != abi::RING || record.is_null() || len == 0 || len > map.value_bytes {
        return raw::ERR_BAD_ARGUMENT;
    }
    let mut records = map.records.lock().expect("no test panics inside");
    if records.len() == map.entries_max {
        return raw::ERR_NO_SPACE;
    }
    // SAFETY: the contract: valid for its length.
    records.push(unsafe { std::slice::from_raw_parts(record.cast::<u8>(), len) }.to_vec());
    raw::OK
}
