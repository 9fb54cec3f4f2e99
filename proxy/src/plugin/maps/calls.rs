//! The table `ringway.maps/1`: what plugins call. Each function checks every argument once and then works on a [`Map`].
//!
//! Soundness rests on the contract of `ringway.h` §7: a `rw_map` is one that `open` gave and that still lives, pointers are
//! valid for their lengths. Nothing here calls back, waits, allocates or unwinds.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

use ringway_abi::maps::{self as abi, Maps, RawMap};
use ringway_abi::raw::{self, RawLoader};

use super::map::copy_to_uninit;
use super::{Map, MapError, MapKind};
use crate::plugin::host;

/// The table that plugins get.
pub static MAPS: Maps = Maps { size: size_of::<Maps>() as u32, reserved: 0, open, lookup, update, remove, add, value, output };

/// A map as one version of a plugin sees it, on one core or on none. `rw_map` is this, behind an opaque pointer.
pub struct MapHandle {
    map: Arc<Map>,
    /// `None`: opened in `load`.
    core: Option<u32>,
}

/// The handles of a plugin's maps, in the order of their definitions. They do not move.
pub fn handles(maps: &[Arc<Map>], core: Option<u32>) -> Box<[MapHandle]> {
    maps.iter().map(|map| MapHandle { map: Arc::clone(map), core }).collect()
}

fn status_of(error: MapError) -> i32 {
    match error {
        MapError::BadArgument => raw::ERR_BAD_ARGUMENT,
        MapError::NotFound => raw::ERR_NOT_FOUND,
        MapError::Full => raw::ERR_NO_SPACE,
        MapError::Busy => abi::BUSY,
    }
}

/// The handle behind a `rw_map`.
///
/// # Safety
/// `map` is null or one that `open` gave, and lives as long as that says.
#[inline]
unsafe fn handle<'a>(map: *const RawMap) -> Option<&'a MapHandle> {
    // SAFETY: `open` gives pointers to `MapHandle`s, which their owner keeps in one place for that long.
    unsafe { map.cast::<MapHandle>().as_ref() }
}

/// The bytes that a plugin passed.
///
/// # Safety
/// `pointer` is null, or `len` bytes are readable there for the call.
#[inline]
unsafe fn bytes<'a>(pointer: *const c_void, len: u32) -> Option<&'a [u8]> {
    if len == 0 {
        return Some(&[]);
    }
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not null (checked), readable (the caller's promise), less than 4 GiB.
    Some(unsafe { std::slice::from_raw_parts(pointer.cast(), len as usize) })
}

unsafe extern "C" fn open(loader: *mut RawLoader, index: u32, map: *mut *const RawMap) -> i32 {
    // SAFETY: the contract of the table: the loader of the running load or core_init.
    let Some(handles) = (unsafe { host::handles_of(loader) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above: null or writable.
    let Some(place) = (unsafe { map.as_mut() }) else { return raw::ERR_BAD_ARGUMENT };
    *place = ptr::null();
    let Some(handle) = handles.get(index as usize) else { return raw::ERR_NOT_FOUND };
    if handle.core.is_none() && handle.map.shape().kind() == MapKind::CoreArray {
        return raw::ERR_WRONG_HOOK;
    }
    *place = ptr::from_ref(handle).cast();
    raw::OK
}

unsafe extern "C" fn lookup(map: *const RawMap, key: *const c_void, key_len: u32, value: *mut c_void, value_len: u32) -> i32 {
    // SAFETY: the contract of the table (module documentation).
    let Some(handle) = (unsafe { handle(map) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let Some(key) = (unsafe { bytes(key, key_len) }) else { return raw::ERR_BAD_ARGUMENT };
    if value.is_null() || value_len as usize != handle.map.shape().value_bytes() {
        return raw::ERR_BAD_ARGUMENT;
    }
    // SAFETY: not null (checked), writable for `value_len` (the contract), and nobody else's during the call; it need not hold anything yet.
    let value = unsafe { std::slice::from_raw_parts_mut(value.cast::<MaybeUninit<u8>>(), value_len as usize) };
    handle.map.lookup(handle.core.unwrap_or(0), key, |words| copy_to_uninit(words, value)).map_or_else(status_of, |()| raw::OK)
}

unsafe extern "C" fn update(map: *const RawMap, key: *const c_void, key_len: u32, value: *const c_void, value_len: u32, flags: u32) -> i32 {
    // SAFETY: the contract of the table (module documentation).
    let Some(handle) = (unsafe { handle(map) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let (Some(key), Some(value)) = (unsafe { bytes(key, key_len) }, unsafe { bytes(value, value_len) }) else { return raw::ERR_BAD_ARGUMENT };
    if flags != 0 {
        return raw::ERR_BAD_ARGUMENT;
    }
    handle.map.update(handle.core.unwrap_or(0), key, value).map_or_else(status_of, |()| raw::OK)
}

unsafe extern "C" fn remove(map: *const RawMap, key: *const c_void, key_len: u32) -> i32 {
    // SAFETY: the contract of the table (module documentation).
    let Some(handle) = (unsafe { handle(map) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let Some(key) = (unsafe { bytes(key, key_len) }) else { return raw::ERR_BAD_ARGUMENT };
    handle.map.remove(key).map_or_else(status_of, |()| raw::OK)
}

unsafe extern "C" fn add(map: *const RawMap, key: *const c_void, key_len: u32, offset: u32, delta: u64, sum: *mut u64) -> i32 {
    // SAFETY: the contract of the table (module documentation).
    let Some(handle) = (unsafe { handle(map) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let Some(key) = (unsafe { bytes(key, key_len) }) else { return raw::ERR_BAD_ARGUMENT };
    match handle.map.add(handle.core.unwrap_or(0), key, offset, delta) {
        Ok(total) if !sum.is_null() => {
            // SAFETY: not null (checked), writable (the contract); it needs no alignment.
            unsafe { sum.write_unaligned(total) };
            raw::OK
        }
        Ok(_) => raw::OK,
        Err(error) => status_of(error),
    }
}

unsafe extern "C" fn value(map: *const RawMap, index: u32) -> *mut c_void {
    // SAFETY: the contract of the table (module documentation).
    let Some(handle) = (unsafe { handle(map) }) else { return ptr::null_mut() };
    let Some(core) = handle.core else { return ptr::null_mut() };
    handle.map.core_value(core, index).map_or(ptr::null_mut(), |value| value.cast())
}

unsafe extern "C" fn output(map: *const RawMap, record: *const c_void, record_len: u32) -> i32 {
    // SAFETY: the contract of the table (module documentation).
    let Some(handle) = (unsafe { handle(map) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let Some(record) = (unsafe { bytes(record, record_len) }) else { return raw::ERR_BAD_ARGUMENT };
    handle.map.output(record).map_or_else(status_of, |()| raw::OK)
}
