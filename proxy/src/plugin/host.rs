//! The host table: the functions that plugins call.
//!
//! Owns: the check of everything a plugin passes. Each function turns what it was given into slices and numbers once
//! (`frame`, `bytes`), checks that the plugin declared it and that the running hook allows it, and then works on the
//! frame of the exchange. Must not: call back into a plugin, free or move what the running hook can see, unwind.
//!
//! Soundness rests on the contract of `ringway.h`: `cx` is the one that the running hook was given, pointers are valid
//! for their lengths. A null pointer, an oversized length or a call at the wrong time is an error, not a crash.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_abi::ids::{HeaderId, METHOD_CONNECT};
use ringway_abi::raw::{self, Host, RawCx, RawLoader};
use ringway_abi::view::ORIGIN_PLUGIN;

use super::chain::CoreChain;
use super::frame::{Frame, MadeResponse};
use super::loaded::{Loader, PREBUILT_MAX, Prebuilt, add_single_writer};
use super::maps::calls::{MAPS, MapHandle};
use super::outcall::OutcallBounds;
use crate::clock;
use crate::error::{Level, PluginFault};
use crate::http1::bytes::{is_field_value, is_token};
use crate::http1::names::NameTable;
use crate::log_limit::{self, Budget};
use crate::view::message::{EditFault, HeaderEdit, Message, Staged, belongs_to_gateway};
use crate::view::slab::Slab;

/// Bytes of one log line of a plugin that are kept.
const LOG_BYTES_MAX: usize = 1024;
/// Hooks in which a response can be written.
const RESPOND_HOOKS: u32 = raw::HOOK_REQUEST | raw::HOOK_REQUEST_CHUNK | raw::HOOK_REQUEST_BODY | raw::HOOK_RESPONSE;
/// Hooks in which the request can still be edited.
const REQUEST_EDIT_HOOKS: u32 = raw::HOOK_REQUEST | raw::HOOK_REQUEST_BODY;

/// What the host functions of one worker share.
pub struct HostShared {
    /// Interned header names.
    pub names: Arc<NameTable>,
    /// Where made responses get their slots.
    pub slab: Slab,
    /// A chain without links, for frames without an exchange.
    pub no_chain: Rc<CoreChain>,
    /// Names of the upstreams, by id; empty for ids that the configuration does not use.
    pub upstreams: Vec<String>,
    /// `limits.plugin_response_bytes`.
    pub plugin_response_bytes: usize,
    /// `limits.plugin_alloc_bytes`.
    pub plugin_alloc_bytes: usize,
    /// `limits.body_buffer_bytes`: what a plugin may put in the place of a chunk or a body.
    pub replacement_bytes: usize,
    /// `limits.suspended`: exchanges of the worker that may wait.
    pub waits_max: usize,
    /// What bounds outcalls.
    pub outcalls: OutcallBounds,
}

impl HostShared {
    /// Logs a fault of a plugin. Bounded: the counters tell the rest.
    pub(super) fn report_fault(&self, plugin: &str, hook: u32, fault: PluginFault, verdict: u32) {
        let hook = raw::HOOKS.iter().find(|(bit, _)| *bit == hook).map_or("?", |(_, name)| name);
        if log_limit::admits(Budget::Plugin, Level::Warn) {
            tracing::warn!(plugin, hook, verdict, reason = fault.row().reason, "a plugin failed");
        }
    }
}

/// The table that every plugin gets.
pub static HOST: Host = Host {
    size: size_of::<Host>() as u32,
    abi_major: raw::ABI_MAJOR,
    abi_minor: raw::ABI_MINOR,
    header_set,
    header_add,
    header_del,
    target_set,
    status_set,
    upstream_set,
    body_replace,
    resp_begin,
    resp_reserve,
    resp_commit,
    resp_prebuilt,
    alloc,
    metric_add,
    metric_set,
    log,
    now_unix_ns,
    intern_header,
    prebuilt_add,
    load_error,
    load_log,
    get_ext,
};

/// The frame behind a `rw_cx`.
///
/// # Safety
/// `cx` is null or the one that the running hook was given; the result is not kept beyond the host call.
#[inline]
pub(super) unsafe fn frame<'a>(cx: *mut RawCx) -> Option<&'a mut Frame> {
    // SAFETY: `RawCx` is the first field of a `repr(C)` `Frame` (frame.rs), which nothing else refers to while the hook runs.
    unsafe { cx.cast::<Frame>().as_mut() }
}

/// The bytes that a plugin passed.
///
/// # Safety
/// `pointer` is null, or `len` bytes are readable there for the host call.
#[inline]
pub(super) unsafe fn bytes<'a>(pointer: *const u8, len: u64) -> Option<&'a [u8]> {
    if len == 0 {
        return Some(&[]);
    }
    if pointer.is_null() || len > isize::MAX as u64 {
        return None;
    }
    // SAFETY: not null and not larger than an object can be (checked); readable (the caller's promise).
    Some(unsafe { std::slice::from_raw_parts(pointer, len as usize) })
}

fn status_of(fault: EditFault) -> i32 {
    match fault {
        EditFault::BadBytes => raw::ERR_BAD_BYTES,
        EditFault::NoSpace => raw::ERR_NO_SPACE,
        EditFault::Forbidden => raw::ERR_FORBIDDEN,
        EditFault::WrongSide => raw::ERR_WRONG_HOOK,
    }
}

fn edit_header(frame: &mut Frame, side: u32, edit: HeaderEdit, name: &[u8], value: &[u8]) -> i32 {
    frame.touched = true;
    let shared = Rc::clone(&frame.shared);
    // A response that is being written takes headers without a further `wants` bit.
    if side == raw::SIDE_RESPONSE
        && let Some(made) = &mut frame.made
    {
        return stage(&mut made.message, &mut made.staged, &shared.names, edit, name, value);
    }
    let hook = frame.raw_hook();
    let (want, hooks, message, staged) = match side {
        raw::SIDE_REQUEST => (raw::WANT_EDIT_REQUEST, REQUEST_EDIT_HOOKS, &mut frame.request, &mut frame.staged_request),
        raw::SIDE_RESPONSE => (raw::WANT_EDIT_RESPONSE, raw::HOOK_RESPONSE, &mut frame.response, &mut frame.staged_response),
        _ => return raw::ERR_BAD_ARGUMENT,
    };
    if frame.wants & want == 0 {
        return raw::ERR_NOT_DECLARED;
    }
    let (Some(message), true) = (message, hook & hooks != 0) else { return raw::ERR_WRONG_HOOK };
    stage(message, staged, &shared.names, edit, name, value)
}

/// The status of an edit: for a removal, how many headers it removes.
fn stage(message: &mut Message, staged: &mut Staged, names: &NameTable, edit: HeaderEdit, name: &[u8], value: &[u8]) -> i32 {
    let removed = if edit == HeaderEdit::Remove { message.count_named(staged, name) as i32 } else { raw::OK };
    message.stage(staged, names, edit, name, value).map_or_else(status_of, |()| removed)
}

unsafe extern "C" fn header_set(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation), for this and the next two lines.
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let (Some(name), Some(value)) = (unsafe { bytes(name, name_len.into()) }, unsafe { bytes(value, value_len.into()) }) else { return raw::ERR_BAD_ARGUMENT };
    edit_header(frame, side, HeaderEdit::Set, name, value)
}

unsafe extern "C" fn header_add(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let (Some(name), Some(value)) = (unsafe { bytes(name, name_len.into()) }, unsafe { bytes(value, value_len.into()) }) else { return raw::ERR_BAD_ARGUMENT };
    edit_header(frame, side, HeaderEdit::Add, name, value)
}

unsafe extern "C" fn header_del(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let Some(name) = (unsafe { bytes(name, name_len.into()) }) else { return raw::ERR_BAD_ARGUMENT };
    edit_header(frame, side, HeaderEdit::Remove, name, &[])
}

unsafe extern "C" fn target_set(cx: *mut RawCx, target: *const u8, target_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    frame.touched = true;
    // SAFETY: as above.
    let Some(target) = (unsafe { bytes(target, target_len.into()) }) else { return raw::ERR_BAD_ARGUMENT };
    if frame.wants & raw::WANT_EDIT_REQUEST == 0 {
        return raw::ERR_NOT_DECLARED;
    }
    let hook = frame.raw_hook();
    let (Some(message), true) = (&mut frame.request, hook & REQUEST_EDIT_HOOKS != 0) else { return raw::ERR_WRONG_HOOK };
    message.stage_target(&mut frame.staged_request, target).map_or_else(status_of, |()| raw::OK)
}

unsafe extern "C" fn status_set(cx: *mut RawCx, status: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    frame.touched = true;
    if frame.wants & raw::WANT_EDIT_RESPONSE == 0 {
        return raw::ERR_NOT_DECLARED;
    }
    let hook = frame.raw_hook();
    let (Some(message), true) = (&mut frame.response, hook == raw::HOOK_RESPONSE) else { return raw::ERR_WRONG_HOOK };
    message.stage_status(&mut frame.staged_response, status).map_or_else(|_| raw::ERR_BAD_ARGUMENT, |()| raw::OK)
}

unsafe extern "C" fn upstream_set(cx: *mut RawCx, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    frame.touched = true;
    // SAFETY: as above.
    let Some(name) = (unsafe { bytes(name, name_len.into()) }) else { return raw::ERR_BAD_ARGUMENT };
    if frame.wants & raw::WANT_UPSTREAM == 0 {
        return raw::ERR_NOT_DECLARED;
    }
    if frame.raw_hook() & REQUEST_EDIT_HOOKS == 0 {
        return raw::ERR_WRONG_HOOK;
    }
    let Some(index) = frame.shared.upstreams.iter().position(|known| !known.is_empty() && known.as_bytes() == name) else { return raw::ERR_NOT_FOUND };
    frame.choose_upstream(index as u32);
    raw::OK
}

unsafe extern "C" fn body_replace(cx: *mut RawCx, body: *const u8, len: u64) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    frame.touched = true;
    // SAFETY: as above.
    let Some(body) = (unsafe { bytes(body, len) }) else { return raw::ERR_BAD_ARGUMENT };
    let want = match frame.raw_hook() {
        raw::HOOK_REQUEST_CHUNK | raw::HOOK_REQUEST_BODY => raw::WANT_EDIT_REQUEST_BODY,
        raw::HOOK_RESPONSE_CHUNK => raw::WANT_EDIT_RESPONSE_BODY,
        _ => return raw::ERR_WRONG_HOOK,
    };
    if frame.wants & want == 0 {
        return raw::ERR_NOT_DECLARED;
    }
    if body.len() > frame.shared.replacement_bytes {
        return raw::ERR_NO_SPACE;
    }
    // RFC 9110 §9.3.6: what follows the head of a CONNECT belongs to the tunnel.
    if frame.raw_hook() == raw::HOOK_REQUEST_BODY && frame.request().request().method_id() == METHOD_CONNECT {
        return raw::ERR_WRONG_HOOK;
    }
    frame.replacement = Some(body.to_vec());
    raw::OK
}

fn may_respond(frame: &Frame) -> i32 {
    if frame.wants & raw::WANT_RESPOND == 0 {
        return raw::ERR_NOT_DECLARED;
    }
    if frame.raw_hook() & RESPOND_HOOKS == 0 {
        return raw::ERR_WRONG_HOOK;
    }
    raw::OK
}

fn begin_response(frame: &mut Frame, status: u32) -> i32 {
    frame.touched = true;
    let allowed = may_respond(frame);
    if allowed != raw::OK {
        return allowed;
    }
    if !(200..600).contains(&status) {
        return raw::ERR_BAD_ARGUMENT;
    }
    frame.made = None;
    let Some(slot) = frame.shared.slab.take() else { return raw::ERR_NO_SPACE };
    let request_id = frame.request.as_ref().map_or(0, |r| r.request().request_id());
    frame.made = Some(MadeResponse::new(slot, status as u16, ORIGIN_PLUGIN, request_id));
    raw::OK
}

unsafe extern "C" fn resp_begin(cx: *mut RawCx, status: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    begin_response(frame, status)
}

/// Room for `len` more body bytes: in the slot while they fit, on the heap up to the bound after that.
fn reserve(frame: &mut Frame, len: usize) -> Option<&mut [u8]> {
    let bound = frame.shared.plugin_response_bytes;
    let made = frame.made.as_mut()?;
    let layout = *made.message.slot().layout();
    let room = layout.out_at() + layout.out() - made.body_at;
    let total = made.body_bytes.checked_add(len)?;
    if total > bound {
        return None;
    }
    made.reserved = len;
    let at = made.body_at + made.body_bytes;
    if made.spilled.is_none() {
        if total <= room {
            return Some(made.message.slot_mut().bytes_mut(at..at + len));
        }
        let mut heap = Vec::with_capacity(total);
        heap.extend_from_slice(made.message.slot().bytes(made.body_at..at));
        made.spilled = Some(heap);
    }
    let heap = made.spilled.as_mut()?;
    // The reserved bytes are cut off again by the commit.
    heap.truncate(made.body_bytes);
    heap.resize(total, 0);
    Some(&mut heap[made.body_bytes..])
}

fn commit(frame: &mut Frame, len: usize) -> i32 {
    let Some(made) = &mut frame.made else { return raw::ERR_WRONG_HOOK };
    if len > made.reserved {
        return raw::ERR_BAD_ARGUMENT;
    }
    made.reserved = 0;
    made.body_bytes += len;
    if let Some(heap) = &mut made.spilled {
        heap.truncate(made.body_bytes);
    }
    raw::OK
}

unsafe extern "C" fn resp_reserve(cx: *mut RawCx, len: u32) -> *mut u8 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return ptr::null_mut() };
    reserve(frame, len as usize).map_or(ptr::null_mut(), |room| room.as_mut_ptr())
}

unsafe extern "C" fn resp_commit(cx: *mut RawCx, len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    commit(frame, len as usize)
}

unsafe extern "C" fn resp_prebuilt(cx: *mut RawCx, id: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    let chain = Rc::clone(&frame.chain);
    let Some(link) = chain.links.get(frame.link) else { return raw::ERR_WRONG_HOOK };
    let Some(prebuilt) = link.plugin.version().prebuilt(id) else { return raw::ERR_NOT_FOUND };
    let begun = begin_response(frame, u32::from(prebuilt.status));
    if begun != raw::OK {
        return begun;
    }
    for (name, value) in &prebuilt.headers {
        let added = edit_header(frame, raw::SIDE_RESPONSE, HeaderEdit::Add, name, value);
        if added != raw::OK {
            frame.made = None;
            return added;
        }
    }
    let Some(room) = reserve(frame, prebuilt.body.len()) else {
        frame.made = None;
        return raw::ERR_NO_SPACE;
    };
    room.copy_from_slice(&prebuilt.body);
    commit(frame, prebuilt.body.len())
}

unsafe extern "C" fn alloc(cx: *mut RawCx, size: u32) -> *mut c_void {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return ptr::null_mut() };
    if frame.request.is_none() {
        return ptr::null_mut();
    }
    let bound = frame.shared.plugin_alloc_bytes;
    frame.arena.allocate(size as usize, bound).unwrap_or(ptr::null_mut())
}

fn with_metric(frame: &Frame, index: u32, change: impl FnOnce(&std::sync::atomic::AtomicU64)) -> i32 {
    match frame.chain.links.get(frame.link).and_then(|link| link.plugin.metric(index)) {
        Some(metric) => {
            change(metric);
            raw::OK
        }
        None => raw::ERR_NOT_FOUND,
    }
}

unsafe extern "C" fn metric_add(cx: *mut RawCx, metric: u32, delta: u64) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    with_metric(frame, metric, |word| add_single_writer(word, delta))
}

unsafe extern "C" fn metric_set(cx: *mut RawCx, metric: u32, value: u64) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    with_metric(frame, metric, |word| word.store(value, Ordering::Relaxed))
}

/// One line of a plugin in the gateway's log.
fn log_line(plugin: &str, request_id: u64, level: u32, text: &[u8]) {
    let text = String::from_utf8_lossy(&text[..text.len().min(LOG_BYTES_MAX)]);
    match level {
        raw::LOG_ERROR => tracing::error!(target: "plugin", plugin, request_id, "{text}"),
        raw::LOG_WARN => tracing::warn!(target: "plugin", plugin, request_id, "{text}"),
        raw::LOG_INFO => tracing::info!(target: "plugin", plugin, request_id, "{text}"),
        _ => tracing::debug!(target: "plugin", plugin, request_id, "{text}"),
    }
}

unsafe extern "C" fn log(cx: *mut RawCx, level: u32, text: *const u8, len: u32) {
    // SAFETY: the contract of the host table (module documentation).
    let Some(frame) = (unsafe { frame(cx) }) else { return };
    // SAFETY: as above.
    let Some(text) = (unsafe { bytes(text, len.into()) }) else { return };
    let request_id = frame.request.as_ref().map_or(0, |r| r.request().request_id());
    log_line(frame.link_name(frame.link), request_id, level, text);
}

unsafe extern "C" fn now_unix_ns(_: *mut RawCx) -> u64 {
    clock::unix_ns()
}

/// The loader behind a `rw_loader`.
///
/// # Safety
/// `loader` is null or the one that the running `load` or `core_init` was given.
pub(super) unsafe fn loader<'a>(loader: *mut RawLoader) -> Option<&'a mut Loader<'a>> {
    // SAFETY: `PluginVersion::load` and `CorePlugin::new` pass a pointer to their `Loader`, which outlives the call.
    unsafe { loader.cast::<Loader<'a>>().as_mut() }
}

unsafe extern "C" fn intern_header(handle: *mut RawLoader, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(loader) = (unsafe { loader(handle) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let Some(name) = (unsafe { bytes(name, name_len.into()) }) else { return raw::ERR_BAD_ARGUMENT };
    let Some(settling) = &mut loader.settling else { return raw::ERR_WRONG_HOOK };
    if !is_token(name) {
        return raw::ERR_BAD_BYTES;
    }
    match settling.names.intern(name) {
        Ok(id) => i32::from(id.0),
        Err(_) => raw::ERR_NO_SPACE,
    }
}

/// "Name: value\r\n" lines, checked.
fn header_lines(lines: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut headers = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) || !is_field_value(value) {
            return None;
        }
        headers.push((name.to_vec(), value.to_vec()));
    }
    Some(headers)
}

unsafe extern "C" fn prebuilt_add(handle: *mut RawLoader, status: u32, headers: *const u8, headers_len: u32, body: *const u8, body_len: u32) -> i32 {
    // SAFETY: the contract of the host table (module documentation).
    let Some(loader) = (unsafe { loader(handle) }) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: as above.
    let (Some(headers), Some(body)) = (unsafe { bytes(headers, headers_len.into()) }, unsafe { bytes(body, body_len.into()) }) else {
        return raw::ERR_BAD_ARGUMENT;
    };
    let Some(settling) = &mut loader.settling else { return raw::ERR_WRONG_HOOK };
    if !(200..600).contains(&status) {
        return raw::ERR_BAD_ARGUMENT;
    }
    let Some(headers) = header_lines(headers) else { return raw::ERR_BAD_BYTES };
    if headers.iter().any(|(name, _)| belongs_to_gateway(HeaderId::of(name))) {
        return raw::ERR_FORBIDDEN;
    }
    if settling.prebuilt.len() == PREBUILT_MAX {
        return raw::ERR_NO_SPACE;
    }
    settling.prebuilt.push(Prebuilt { status: status as u16, headers, body: body.to_vec() });
    settling.prebuilt.len() as i32 - 1
}

unsafe extern "C" fn load_error(handle: *mut RawLoader, text: *const u8, len: u32) {
    // SAFETY: the contract of the host table (module documentation).
    let Some(loader) = (unsafe { loader(handle) }) else { return };
    // SAFETY: as above.
    let Some(text) = (unsafe { bytes(text, len.into()) }) else { return };
    loader.set_error(text);
}

unsafe extern "C" fn load_log(handle: *mut RawLoader, level: u32, text: *const u8, len: u32) {
    // SAFETY: the contract of the host table (module documentation).
    let Some(loader) = (unsafe { loader(handle) }) else { return };
    // SAFETY: as above.
    let Some(text) = (unsafe { bytes(text, len.into()) }) else { return };
    log_line(loader.plugin, 0, level, text);
}

/// The maps of the plugin that is being loaded.
///
/// # Safety
/// As for [`loader`].
pub(super) unsafe fn handles_of<'a>(handle: *mut RawLoader) -> Option<&'a [MapHandle]> {
    // SAFETY: the caller's promise.
    unsafe { loader(handle) }.map(|loader| loader.maps)
}

/// Every extension table by its id.
unsafe extern "C" fn get_ext(_: *mut RawLoader, id: *const c_char) -> *const c_void {
    if id.is_null() {
        return ptr::null();
    }
    // SAFETY: not null (checked), NUL-terminated (the contract of the host table).
    let id = unsafe { CStr::from_ptr(id) };
    if id == ringway_abi::wait::ID {
        return ptr::from_ref(&super::wait::WAIT).cast();
    }
    if id == ringway_abi::outcall::ID {
        return ptr::from_ref(&super::outcall::table::OUTCALL).cast();
    }
    if id == ringway_abi::maps::EXTENSION { ptr::from_ref(&MAPS).cast() } else { ptr::null() }
}
