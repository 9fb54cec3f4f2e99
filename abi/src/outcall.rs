//! The extension "ringway.outcall/1" in Rust: the structs and constants of `ringway-outcall.h`, which documents them.

#![allow(missing_docs, reason = "the fields mirror ringway-outcall.h, which describes each of them")]

use core::ffi::CStr;

use crate::raw::{RawCx, RawLoader};

/// `RW_EXT_OUTCALL`
pub const ID: &CStr = c"ringway.outcall/1";

/// `RW_WANT_OUTCALL`
pub const WANT_OUTCALL: u64 = 0x0400;

/// `RW_EVENT_REPLY`
pub const EVENT_REPLY: u32 = 4;

/// `RW_OUTCALL_UNREACHABLE`
pub const UNREACHABLE: i32 = -32;
/// `RW_OUTCALL_TIMEOUT`
pub const TIMEOUT: i32 = -33;
/// `RW_OUTCALL_BROKEN`
pub const BROKEN: i32 = -34;

/// `rw_outcall`
#[derive(Debug)]
#[repr(C)]
pub struct Outcall {
    pub size: u32,
    pub reserved: u32,
    pub upstream: unsafe extern "C" fn(*mut RawLoader, *const u8, u32) -> i32,
    pub begin: unsafe extern "C" fn(*mut RawCx, u32, *const u8, u32, *const u8, u32) -> i32,
    pub header: unsafe extern "C" fn(*mut RawCx, *const u8, u32, *const u8, u32) -> i32,
    pub body: unsafe extern "C" fn(*mut RawCx, *const u8, u32) -> i32,
    pub send: unsafe extern "C" fn(*mut RawCx, u64) -> i32,
}
