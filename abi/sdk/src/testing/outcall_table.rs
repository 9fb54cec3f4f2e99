//! The table "ringway.outcall/1" of the test host.

use ringway_abi::outcall::{Outcall, WANT_OUTCALL};
use ringway_abi::raw::{self, RawCx, RawLoader};

use super::rules;
use super::table::{Call, argument, in_core_init, loading, with};
use crate::HostError;

pub(super) static OUTCALL: Outcall = Outcall { size: size_of::<Outcall>() as u32, reserved: 0, upstream, begin, header, body, send };

/// Hooks that may wait.
const WAITING: u32 = raw::HOOK_REQUEST | raw::HOOK_REQUEST_BODY | raw::HOOK_RESPONSE;

/// A request that the plugin sent itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentCall {
    /// The upstream by its name.
    pub upstream: String,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names and values, as the plugin gave them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// For its event.
    pub token: u64,
}

impl SentCall {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

unsafe extern "C" fn upstream(loader: *mut RawLoader, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let (name, state, is_late) = unsafe { (argument(name, name_len), loading(loader), in_core_init(loader)) };
    if is_late {
        return raw::ERR_WRONG_HOOK;
    }
    if state.wants & WANT_OUTCALL == 0 {
        return raw::ERR_NOT_DECLARED;
    }
    if name.is_empty() || std::str::from_utf8(name).is_err() {
        return raw::ERR_BAD_ARGUMENT;
    }
    let name = text(name);
    let at = state.called.iter().position(|known| *known == name).unwrap_or_else(|| {
        state.called.push(name);
        state.called.len() - 1
    });
    at as i32
}

fn may_call(call: &mut Call) -> Result<(), HostError> {
    call.need(WANT_OUTCALL, WAITING)?;
    call.need(raw::WANT_SUSPEND, WAITING)
}

unsafe extern "C" fn begin(cx: *mut RawCx, upstream: u32, method: *const u8, method_len: u32, target: *const u8, target_len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let (method, target) = unsafe { (argument(method, method_len), argument(target, target_len)) };
    let run = |call: &mut Call| {
        may_call(call)?;
        call.begun = None;
        let name = call.state().called.get(upstream as usize).cloned().ok_or(HostError::NotFound)?;
        rules::check_name(method)?;
        rules::check_target(target)?;
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(HostError::Forbidden);
        }
        call.begun = Some(SentCall { upstream: name, method: text(method), target: text(target), ..SentCall::default() });
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "begin", run) }
}

unsafe extern "C" fn header(cx: *mut RawCx, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let (name, value) = unsafe { (argument(name, name_len), argument(value, value_len)) };
    let run = |call: &mut Call| {
        may_call(call)?;
        let begun = call.begun.as_mut().ok_or(HostError::WrongHook)?;
        rules::check_header(name, value)?;
        let again = name.eq_ignore_ascii_case(b"host") && begun.header("host").is_some();
        if again || name.eq_ignore_ascii_case(b"expect") {
            return Err(HostError::Forbidden);
        }
        begun.headers.push((text(name), text(value)));
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "header", run) }
}

unsafe extern "C" fn body(cx: *mut RawCx, bytes: *const u8, len: u32) -> i32 {
    // SAFETY: the contract of the host table.
    let bytes = unsafe { argument(bytes, len) };
    let run = |call: &mut Call| {
        may_call(call)?;
        call.begun.as_mut().ok_or(HostError::WrongHook)?.body = bytes.to_vec();
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "body", run) }
}

unsafe extern "C" fn send(cx: *mut RawCx, token: u64) -> i32 {
    let run = |call: &mut Call| {
        may_call(call)?;
        let begun = call.begun.take().ok_or(HostError::WrongHook)?;
        call.sent.push(SentCall { token, ..begun });
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "send", run) }
}
