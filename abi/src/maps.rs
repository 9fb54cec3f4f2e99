//! The C side of the extension `ringway.maps/1` in Rust: section 7 of `ringway.h`, field by field.
//!
//! Nothing here checks anything. Plugin authors use `ringway-sdk`; the gateway's side is `plugin::maps` of the gateway.

#![allow(missing_docs, reason = "the fields mirror ringway.h, which describes each of them")]

use core::ffi::{CStr, c_void};
use core::mem::offset_of;

use crate::raw::RawLoader;

/// `RW_MAPS_EXTENSION`
pub const EXTENSION: &CStr = c"ringway.maps/1";

/// `RW_MAP_ARRAY`
pub const ARRAY: u32 = 1;
/// `RW_MAP_CORE_ARRAY`
pub const CORE_ARRAY: u32 = 2;
/// `RW_MAP_HASH`
pub const HASH: u32 = 3;
/// `RW_MAP_LRU`
pub const LRU: u32 = 4;
/// `RW_MAP_LPM`
pub const LPM: u32 = 5;
/// `RW_MAP_RING`
pub const RING: u32 = 6;

/// `RW_MAPS_MAX`: the largest `map_count`.
pub const MAPS_MAX: u32 = 64;
/// `RW_MAP_NAME_BYTES_MAX`
pub const NAME_BYTES_MAX: u32 = 31;
/// `RW_MAP_KEY_BYTES_MAX`
pub const KEY_BYTES_MAX: u32 = 256;
/// `RW_MAP_VALUE_BYTES_MAX`
pub const VALUE_BYTES_MAX: u32 = 4096;
/// `RW_MAP_ENTRIES_MAX`
pub const ENTRIES_MAX: u32 = 1 << 24;

/// `RW_MAP_BUSY`
pub const BUSY: i32 = -16;

/// `rw_map`: opaque to plugins.
#[derive(Debug)]
#[repr(C)]
pub struct RawMap {
    _opaque: [u8; 0],
}

/// `rw_prefix`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Prefix {
    pub bits: u32,
    pub addr: [u8; 16],
}

/// `rw_maps`
#[derive(Debug)]
#[repr(C)]
pub struct Maps {
    pub size: u32,
    pub reserved: u32,
    pub open: unsafe extern "C" fn(*mut RawLoader, u32, *mut *const RawMap) -> i32,
    pub lookup: unsafe extern "C" fn(*const RawMap, *const c_void, u32, *mut c_void, u32) -> i32,
    pub update: unsafe extern "C" fn(*const RawMap, *const c_void, u32, *const c_void, u32, u32) -> i32,
    pub remove: unsafe extern "C" fn(*const RawMap, *const c_void, u32) -> i32,
    pub add: unsafe extern "C" fn(*const RawMap, *const c_void, u32, u32, u64, *mut u64) -> i32,
    pub value: unsafe extern "C" fn(*const RawMap, u32) -> *mut c_void,
    pub output: unsafe extern "C" fn(*const RawMap, *const c_void, u32) -> i32,
}

const _: () = {
    assert!(size_of::<Prefix>() == 20 && offset_of!(Prefix, addr) == 4);
    assert!(size_of::<Maps>() == 64 && offset_of!(Maps, output) == 56);
};
