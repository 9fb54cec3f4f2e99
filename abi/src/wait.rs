//! The extension "ringway.wait/1" in Rust: the structs and constants of `ringway-wait.h`, which documents them.

#![allow(missing_docs, reason = "the fields mirror ringway-wait.h, which describes each of them")]

use core::ffi::CStr;

use crate::raw::RawCx;

/// `RW_EXT_WAIT`
pub const ID: &CStr = c"ringway.wait/1";

/// `RW_EVENT_TIMER`
pub const EVENT_TIMER: u32 = 1;
/// `RW_EVENT_WAKE`
pub const EVENT_WAKE: u32 = 2;
/// `RW_EVENT_TIMEOUT`
pub const EVENT_TIMEOUT: u32 = 3;

/// `rw_wait`
#[derive(Debug)]
#[repr(C)]
pub struct Wait {
    pub size: u32,
    pub reserved: u32,
    pub timer: unsafe extern "C" fn(*mut RawCx, u64, u64) -> i32,
    pub wake: unsafe extern "C" fn(u64, u32, u64) -> i32,
}
