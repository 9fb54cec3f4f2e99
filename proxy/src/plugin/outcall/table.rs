//! The table "ringway.outcall/1".
//!
//! Owns: turning what a plugin passes into slices, once; the rest is [`super`]'s. The contract of the calls is that of [`crate::plugin::host`].
#![allow(unsafe_code)]

use ringway_abi::outcall::{Outcall, WANT_OUTCALL};
use ringway_abi::raw::{ERR_BAD_ARGUMENT, ERR_NO_SPACE, ERR_NOT_DECLARED, ERR_WRONG_HOOK, OK, RawCx, RawLoader};

use super::UPSTREAMS_MAX;
use crate::plugin::frame::Frame;
use crate::plugin::host::{bytes, frame, loader};

/// The table that plugins get for "ringway.outcall/1".
pub static OUTCALL: Outcall = Outcall { size: size_of::<Outcall>() as u32, reserved: 0, upstream, begin, header, body, send };

unsafe extern "C" fn upstream(handle: *mut RawLoader, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation of `host`).
    let Some(loader) = (unsafe { loader(handle) }) else { return ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let Some(name) = (unsafe { bytes(name, name_len.into()) }) else { return ERR_BAD_ARGUMENT };
    let Some(settling) = &mut loader.settling else { return ERR_WRONG_HOOK };
    if settling.wants & WANT_OUTCALL == 0 {
        return ERR_NOT_DECLARED;
    }
    let Some(name) = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()) else { return ERR_BAD_ARGUMENT };
    let known = &mut settling.upstreams;
    if let Some(at) = known.iter().position(|known| known == name) {
        return at as i32;
    }
    if known.len() == UPSTREAMS_MAX {
        return ERR_NO_SPACE;
    }
    known.push(name.to_owned());
    known.len() as i32 - 1
}

/// What a call of the running hook came to. `touched`: CONTINUE has something to settle.
fn called(frame: &mut Frame, call: impl FnOnce(&mut Frame) -> Result<(), i32>) -> i32 {
    frame.touched = true;
    call(frame).err().unwrap_or(OK)
}

unsafe extern "C" fn begin(cx: *mut RawCx, upstream: u32, method: *const u8, method_len: u32, target: *const u8, target_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation of `host`).
    let Some(frame) = (unsafe { frame(cx) }) else { return ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let (method, target) = unsafe { (bytes(method, method_len.into()), bytes(target, target_len.into())) };
    called(frame, |frame| {
        let (Some(method), Some(target)) = (method, target) else { return Err(ERR_BAD_ARGUMENT) };
        frame.begin_call(upstream, method, target)
    })
}

unsafe extern "C" fn header(cx: *mut RawCx, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation of `host`).
    let Some(frame) = (unsafe { frame(cx) }) else { return ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let (name, value) = unsafe { (bytes(name, name_len.into()), bytes(value, value_len.into())) };
    called(frame, |frame| {
        let call = frame.begun_call()?;
        let (Some(name), Some(value)) = (name, value) else { return Err(ERR_BAD_ARGUMENT) };
        call.add_header(name, value)
    })
}

unsafe extern "C" fn body(cx: *mut RawCx, body: *const u8, len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation of `host`).
    let Some(frame) = (unsafe { frame(cx) }) else { return ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let body = unsafe { bytes(body, len.into()) };
    called(frame, |frame| {
        let call = frame.begun_call()?;
        call.set_body(body.ok_or(ERR_BAD_ARGUMENT)?)
    })
}

unsafe extern "C" fn send(cx: *mut RawCx, token: u64) -> i32 {
    // SAFETY: the contract of the host table (module documentation of `host`).
    let Some(frame) = (unsafe { frame(cx) }) else { return ERR_BAD_ARGUMENT };
    called(frame, |frame| frame.send_call(token))
}
