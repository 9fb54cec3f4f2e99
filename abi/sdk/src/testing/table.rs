//! The host table of the test host: what `ringway.h` says of each function, on owned messages.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use ringway_abi::owned::{Headers, Octets};
use ringway_abi::raw::{self, Host, RawCx, RawLoader};

use super::exchange::Answer;
use super::host::{LogLine, State};
use super::maps::MAPS;
use super::outcall_table::SentCall;
use super::rules::{self, Kind};
use super::{Request, Response};
use crate::{HostError, Level};

/// One running hook. The `rw_cx` is its first field, so that a host function finds the rest.
#[repr(C)]
pub(super) struct Call {
    pub(super) raw: RawCx,
    pub(super) state: NonNull<State>,
    /// The messages as this hook's edits would leave them.
    pub(super) request: Option<Request>,
    pub(super) response: Option<Response>,
    pub(super) answer: Option<Answer>,
    pub(super) reserved: Vec<u8>,
    pub(super) replaced_body: Option<Vec<u8>>,
    pub(super) upstream: Option<String>,
    /// The exchange's memory: what earlier hooks got, then what this one gets.
    pub(super) memory: Vec<Box<[u128]>>,
    /// The bit of the hook that waits, in whose place on_event runs.
    pub(super) waits: u32,
    /// The timer that this hook has set.
    pub(super) timer: Option<(Duration, u64)>,
    /// The outcall that this hook puts together, and those that it has sent.
    pub(super) begun: Option<SentCall>,
    pub(super) sent: Vec<SentCall>,
}

/// A running `load` or `core_init`.
pub(super) struct LoadCall {
    pub(super) state: NonNull<State>,
    /// `core_init` runs: names and prebuilt responses are settled.
    pub(super) in_core_init: bool,
    pub(super) error: String,
}

impl Call {
    pub(super) fn new(state: NonNull<State>, core: *mut c_void, hook: u32) -> Self {
        // SAFETY: no other reference to the state exists while a hook is being prepared.
        let now_unix_ns = unsafe { (*state.as_ptr()).now_unix_ns };
        let raw = RawCx {
            size: size_of::<RawCx>() as u32,
            hook,
            host: &TABLE,
            core,
            scratch: std::ptr::null_mut(),
            request: std::ptr::null(),
            response: std::ptr::null(),
            now_unix_ns,
            worker: 0,
            link: 0,
        };
        Call {
            raw,
            state,
            request: None,
            response: None,
            answer: None,
            reserved: Vec::new(),
            replaced_body: None,
            upstream: None,
            memory: Vec::new(),
            waits: 0,
            timer: None,
            begun: None,
            sent: Vec::new(),
        }
    }

    pub(super) fn state(&mut self) -> &mut State {
        // SAFETY: while a hook runs, the state is reached through its call only.
        unsafe { self.state.as_mut() }
    }

    /// The bit of the running hook; in on_event, that of the hook which waited.
    fn hook(&self) -> u32 {
        if self.raw.hook == raw::HOOK_EVENT { self.waits } else { self.raw.hook }
    }

    pub(super) fn need(&mut self, want: u64, hooks: u32) -> Result<(), HostError> {
        if self.state().wants & want == 0 {
            return Err(HostError::NotDeclared);
        }
        if self.hook() & hooks == 0 { Err(HostError::WrongHook) } else { Ok(()) }
    }

    /// What an edit of this side changes: the count of edits and the headers.
    fn headers(&mut self, side: u32) -> Result<(&mut u32, &mut Headers), HostError> {
        match side {
            raw::SIDE_REQUEST => {
                self.need(raw::WANT_EDIT_REQUEST, raw::HOOK_REQUEST | raw::HOOK_REQUEST_BODY)?;
                let request = self.request.as_mut().ok_or(HostError::WrongHook)?;
                Ok((&mut request.edits, &mut request.headers))
            }
            raw::SIDE_RESPONSE => {
                self.need(raw::WANT_EDIT_RESPONSE, raw::HOOK_RESPONSE)?;
                let response = self.response.as_mut().ok_or(HostError::WrongHook)?;
                Ok((&mut response.edits, &mut response.headers))
            }
            _ => Err(HostError::BadArgument),
        }
    }

    /// An edit of the response that this hook has begun, or of the message of this side.
    fn edit(&mut self, side: u32, kind: Kind, name: &[u8], value: &[u8], apply: impl FnOnce(&mut Headers) -> u32) -> Result<u32, HostError> {
        let grows = kind != Kind::Remove;
        if let Some(answer) = self.answer.as_mut().filter(|_| side == raw::SIDE_RESPONSE) {
            rules::check_header(name, value)?;
            let pairs = answer.headers.iter().map(|(name, value)| ringway_abi::Header::new(name.as_bytes(), value.as_bytes()));
            let mut headers = Headers(pairs.collect());
            if grows {
                rules::check_room(&headers)?;
            }
            let count = apply(&mut headers);
            answer.headers.clear();
            for header in headers.0.iter().filter(|h| h.name.id != ringway_abi::ids::HEADER_ID_REMOVED) {
                answer.push_header(&header.name.name, &header.value.0);
            }
            return Ok(count);
        }
        let (edits, headers) = self.headers(side)?;
        if side == raw::SIDE_REQUEST { rules::check_request_header(kind, name, value) } else { rules::check_header(name, value) }?;
        if grows {
            rules::check_room(headers)?;
        }
        *edits += 1;
        Ok(apply(headers))
    }
}

/// Hooks that may write an answer.
const RESPONDING: u32 = raw::HOOK_REQUEST | raw::HOOK_REQUEST_CHUNK | raw::HOOK_REQUEST_BODY | raw::HOOK_RESPONSE;

pub(super) static TABLE: Host = Host {
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

/// The bytes of an argument.
///
/// # Safety
/// `len` bytes are readable at `bytes`.
pub(super) unsafe fn argument<'a>(bytes: *const u8, len: u32) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(bytes, len as usize) }
}

/// Runs a host function and notes a refusal.
///
/// # Safety
/// `cx` is the `rw_cx` of a running [`Call`].
pub(super) unsafe fn with(cx: *mut RawCx, function: &'static str, run: impl FnOnce(&mut Call) -> Result<u32, HostError>) -> i32 {
    // SAFETY: the caller's promise; `raw` is the first field, and the pointer was made from the whole call.
    let call = unsafe { &mut *cx.cast::<Call>() };
    match run(call) {
        Ok(count) => count as i32,
        Err(refusal) => {
            call.state().refusals.push((function, refusal));
            refusal.status()
        }
    }
}

unsafe extern "C" fn header_set(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: the contract of the host table, for both.
    let (name, value) = unsafe { (argument(name, name_len), argument(value, value_len)) };
    let run = |call: &mut Call| {
        call.edit(side, Kind::Set, name, value, |headers| {
            rules::set(headers, name, value);
            0
        })
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "header_set", run) }
}

unsafe extern "C" fn header_add(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: the contract of the host table, for both.
    let (name, value) = unsafe { (argument(name, name_len), argument(value, value_len)) };
    let run = |call: &mut Call| {
        call.edit(side, Kind::Add, name, value, |headers| {
            headers.0.push(ringway_abi::Header::new(name, value));
            0
        })
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "header_add", run) }
}

unsafe extern "C" fn header_del(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let name = unsafe { argument(name, name_len) };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "header_del", |call| call.edit(side, Kind::Remove, name, b"", |headers| rules::remove(headers, name))) }
}

unsafe extern "C" fn target_set(cx: *mut RawCx, target: *const u8, target_len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let target = unsafe { argument(target, target_len) };
    let run = |call: &mut Call| {
        call.need(raw::WANT_EDIT_REQUEST, raw::HOOK_REQUEST | raw::HOOK_REQUEST_BODY)?;
        rules::check_target(target)?;
        let request = call.request.as_mut().ok_or(HostError::WrongHook)?;
        let cut = target.iter().position(|b| *b == b'?').unwrap_or(target.len());
        request.target = Octets(target.to_vec());
        request.path = Octets(target[..cut].to_vec());
        request.query = Octets(target.get(cut + 1..).unwrap_or_default().to_vec());
        request.edits += 1;
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "target_set", run) }
}

unsafe extern "C" fn status_set(cx: *mut RawCx, status: u32) -> i32 {
    let run = |call: &mut Call| {
        call.need(raw::WANT_EDIT_RESPONSE, raw::HOOK_RESPONSE)?;
        let response = call.response.as_mut().ok_or(HostError::WrongHook)?;
        response.status = check_status(status)?;
        response.edits += 1;
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "status_set", run) }
}

fn check_status(status: u32) -> Result<u16, HostError> {
    if (200..600).contains(&status) { Ok(status as u16) } else { Err(HostError::BadArgument) }
}

unsafe extern "C" fn upstream_set(cx: *mut RawCx, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let name = unsafe { argument(name, name_len) };
    let run = |call: &mut Call| {
        call.need(raw::WANT_UPSTREAM, raw::HOOK_REQUEST | raw::HOOK_REQUEST_BODY)?;
        let found = call.state().upstreams.iter().find(|known| known.as_bytes() == name).cloned();
        call.upstream = Some(found.ok_or(HostError::NotFound)?);
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "upstream_set", run) }
}

unsafe extern "C" fn body_replace(cx: *mut RawCx, bytes: *const u8, len: u64) -> i32 {
    let run = |call: &mut Call| {
        // Which bit is needed depends on the hook, so the hook is looked at first.
        let want = match call.hook() {
            raw::HOOK_REQUEST_CHUNK | raw::HOOK_REQUEST_BODY => raw::WANT_EDIT_REQUEST_BODY,
            raw::HOOK_RESPONSE_CHUNK => raw::WANT_EDIT_RESPONSE_BODY,
            _ => return Err(HostError::WrongHook),
        };
        call.need(want, call.hook())?;
        let len = u32::try_from(len).map_err(|_| HostError::NoSpace)?;
        // SAFETY: the contract of the host table.
        call.replaced_body = Some(unsafe { argument(bytes, len) }.to_vec());
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "body_replace", run) }
}

unsafe extern "C" fn resp_begin(cx: *mut RawCx, status: u32) -> i32 {
    let run = |call: &mut Call| {
        call.need(raw::WANT_RESPOND, RESPONDING)?;
        call.answer = Some(Answer::of_plugin(check_status(status)?));
        call.reserved.clear();
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "resp_begin", run) }
}

unsafe extern "C" fn resp_reserve(cx: *mut RawCx, len: u32) -> *mut u8 {
    let mut room = std::ptr::null_mut();
    let run = |call: &mut Call| {
        let filled = call.answer.as_ref().ok_or(HostError::WrongHook)?.body.len();
        let len = len as usize;
        if len > call.state().answer_bytes_max.saturating_sub(filled) {
            return Err(HostError::NoSpace);
        }
        call.reserved = vec![0xa5; len.max(1)];
        room = call.reserved.as_mut_ptr();
        call.reserved.truncate(len);
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "resp_reserve", run) };
    room
}

unsafe extern "C" fn resp_commit(cx: *mut RawCx, len: u32) -> i32 {
    let run = |call: &mut Call| {
        let written = call.reserved.get(..len as usize).ok_or(HostError::BadArgument)?;
        call.answer.as_mut().ok_or(HostError::WrongHook)?.body.extend_from_slice(written);
        call.reserved.clear();
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "resp_commit", run) }
}

unsafe extern "C" fn resp_prebuilt(cx: *mut RawCx, id: u32) -> i32 {
    let run = |call: &mut Call| {
        call.need(raw::WANT_RESPOND, RESPONDING)?;
        call.answer = Some(call.state().prebuilt.get(id as usize).cloned().ok_or(HostError::NotFound)?);
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "resp_prebuilt", run) }
}

unsafe extern "C" fn alloc(cx: *mut RawCx, size: u32) -> *mut c_void {
    let mut memory = std::ptr::null_mut();
    let run = |call: &mut Call| {
        let used: usize = call.memory.iter().map(|piece| piece.len() * 16).sum();
        if (size as usize).max(1).next_multiple_of(16) > call.state().exchange_bytes_max.saturating_sub(used) || call.raw.request.is_null() {
            return Err(HostError::NoSpace);
        }
        // As in the gateway, an empty piece has an address of its own.
        let mut piece = vec![u128::MAX / 255 * 0xa5; (size as usize).div_ceil(16).max(1)].into_boxed_slice();
        memory = piece.as_mut_ptr().cast();
        call.memory.push(piece);
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "alloc", run) };
    memory
}

unsafe extern "C" fn metric_add(cx: *mut RawCx, metric: u32, delta: u64) -> i32 {
    let run = |call: &mut Call| {
        call.state().metrics.get_mut(metric as usize).ok_or(HostError::NotFound)?.1 += delta;
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "metric_add", run) }
}

unsafe extern "C" fn metric_set(cx: *mut RawCx, metric: u32, value: u64) -> i32 {
    let run = |call: &mut Call| {
        call.state().metrics.get_mut(metric as usize).ok_or(HostError::NotFound)?.1 = value;
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "metric_set", run) }
}

fn log_line(level: u32, text: &[u8]) -> LogLine {
    let level = match level {
        raw::LOG_ERROR => Level::Error,
        raw::LOG_WARN => Level::Warn,
        raw::LOG_INFO => Level::Info,
        _ => Level::Debug,
    };
    LogLine { level, text: String::from_utf8_lossy(&text[..text.len().min(1024)]).into_owned() }
}

unsafe extern "C" fn log(cx: *mut RawCx, level: u32, text: *const u8, len: u32) {
    // SAFETY: the contract of the host table.
    let line = log_line(level, unsafe { argument(text, len) });
    let run = |call: &mut Call| {
        call.state().logs.push(line);
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "log", run) };
}

unsafe extern "C" fn now_unix_ns(cx: *mut RawCx) -> u64 {
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { (*cx.cast::<Call>()).state().now_unix_ns }
}

/// The state behind a loader.
///
/// # Safety
/// `loader` is a [`LoadCall`] that runs.
pub(super) unsafe fn loading<'a>(loader: *mut RawLoader) -> &'a mut State {
    // SAFETY: the caller's promise; while `load` runs, the state is reached through its call only.
    unsafe { (*loader.cast::<LoadCall>()).state.as_mut() }
}

/// Whether it is `core_init` that runs.
///
/// # Safety
/// As for [`loading`].
pub(super) unsafe fn in_core_init(loader: *mut RawLoader) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*loader.cast::<LoadCall>()).in_core_init }
}

unsafe extern "C" fn intern_header(loader: *mut RawLoader, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let (name, state, is_late) = unsafe { (argument(name, name_len), loading(loader), in_core_init(loader)) };
    if is_late {
        return raw::ERR_WRONG_HOOK;
    }
    let known = rules::id_of(name, &state.interned);
    if known != 0 {
        return i32::from(known);
    }
    if let Err(error) = rules::check_name(name) {
        return error.status();
    }
    if state.interned.len() == usize::from(ringway_abi::ids::HEADER_ID_LIMIT - ringway_abi::ids::HEADER_ID_FIXED_COUNT) {
        return raw::ERR_NO_SPACE;
    }
    state.interned.push(name.to_vec());
    i32::from(rules::id_of(name, &state.interned))
}

unsafe extern "C" fn prebuilt_add(loader: *mut RawLoader, status: u32, headers: *const u8, headers_len: u32, body: *const u8, body_len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let (headers, body, state, is_late) = unsafe { (argument(headers, headers_len), argument(body, body_len), loading(loader), in_core_init(loader)) };
    if is_late {
        return raw::ERR_WRONG_HOOK;
    }
    let Ok(status) = check_status(status) else { return raw::ERR_BAD_ARGUMENT };
    let mut answer = Answer::of_plugin(status);
    answer.body = body.to_vec();
    for line in headers.split_inclusive(|b| *b == b'\n') {
        let Some((name, value)) = line.strip_suffix(b"\r\n").and_then(|line| line.iter().position(|b| *b == b':').map(|colon| line.split_at(colon))) else {
            return raw::ERR_BAD_BYTES;
        };
        let value = value[1..].trim_ascii();
        if let Err(error) = rules::check_header(name, value) {
            return error.status();
        }
        answer.push_header(name, value);
    }
    state.prebuilt.push(answer);
    state.prebuilt.len() as i32 - 1
}

unsafe extern "C" fn load_error(loader: *mut RawLoader, text: *const u8, len: u32) {
    // SAFETY: the contract of the host table.
    let text = unsafe { argument(text, len) };
    // SAFETY: `loader` is the running call.
    let call = unsafe { &mut *loader.cast::<LoadCall>() };
    call.error = String::from_utf8_lossy(&text[..text.len().min(1023)]).into_owned();
}

unsafe extern "C" fn load_log(loader: *mut RawLoader, level: u32, text: *const u8, len: u32) {
    // SAFETY: the contract of the host table.
    let (text, state) = unsafe { (argument(text, len), loading(loader)) };
    state.logs.push(log_line(level, text));
}

unsafe extern "C" fn get_ext(_: *mut RawLoader, id: *const c_char) -> *const c_void {
    // SAFETY: the contract of the host table: NUL-terminated.
    let id = unsafe { CStr::from_ptr(id) };
    if id == ringway_abi::wait::ID {
        return (&raw const super::wait_table::WAIT).cast();
    }
    if id == ringway_abi::outcall::ID {
        return (&raw const super::outcall_table::OUTCALL).cast();
    }
    if id == ringway_abi::maps::EXTENSION { std::ptr::from_ref(&MAPS).cast() } else { std::ptr::null() }
}
