//! Outcalls: the requests that a plugin sends itself while its exchange waits, as they are put together.
//!
//! Owns: one [`Call`] in a slot of its own, the check of everything that goes into it, and which calls count ([`Calls`]). Must not: send. What plugins call is
//! [`table`]; `exchange::outcall` sends what a hook that returned SUSPEND has armed.
//!
//! The slot of a call holds all of it: its lines stand in `receive`, its body at the end of `out`. What is sent is put together right before that body
//! ([`Call::lay_out`]), as often as it is sent. The head of the reply is then read into `receive` and its body into `out`.
#![deny(unsafe_code)]

pub mod table;

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use ringway_abi::ids::{
    HeaderId, METHOD_CONNECT, METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_PATCH, METHOD_POST, METHOD_PUT, METHOD_TRACE, method_id,
};
use ringway_abi::outcall::WANT_OUTCALL;
use ringway_abi::raw::{self, ERR_BAD_BYTES, ERR_FORBIDDEN, ERR_NO_SPACE, ERR_NOT_DECLARED, ERR_NOT_FOUND, ERR_WRONG_HOOK};

use super::chain::LinkCounters;
use super::frame::Frame;
use super::wait::may_wait;
use super::waits::OutcallPermit;
use crate::http1::bytes::{decimal_digits, is_field_value, is_token};
use crate::http1::target::is_host;
use crate::limits::Limits;
use crate::view::message::{belongs_to_gateway, is_origin_form};
use crate::view::slab::Slot;

/// Room for what the gateway adds to a request: Host, Content-Length, the end of the head.
pub const ADDED_BYTES: usize = 1024;
/// Upstreams that one plugin can name.
pub const UPSTREAMS_MAX: usize = 64;

/// What bounds the outcalls of one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcallBounds {
    /// `limits.outcalls`
    pub worker: usize,
    /// `limits.outcalls_per_hook`
    pub hook: usize,
    /// `limits.outcall_request_bytes`
    pub request_bytes: usize,
}

impl OutcallBounds {
    /// Those of the configuration.
    pub fn of(limits: &Limits) -> OutcallBounds {
        OutcallBounds { worker: limits.outcalls_max(), hook: limits.outcalls_per_hook, request_bytes: limits.outcall_request_bytes }
    }
}

/// The calls of the link that waits, or may come to wait. Made with the first call of a connection.
#[derive(Default)]
pub struct Calls {
    /// What the running hook puts together.
    begun: Option<Call>,
    /// What the running hook has sent: it counts when the hook returns SUSPEND.
    staged: Vec<Call>,
    /// What counts, and nobody has taken.
    armed: Vec<Call>,
    /// Taken, and not answered.
    under_way: usize,
}

impl Calls {
    /// What the hook has sent counts.
    pub(super) fn arm(&mut self) {
        self.begun = None;
        self.armed.append(&mut self.staged);
    }

    /// What the hook has sent does not count: it returned another verdict.
    pub(super) fn forget(&mut self) {
        self.begun = None;
        self.staged.clear();
    }

    /// The link goes on, or another one begins to wait: nothing of this is waited for.
    pub(super) fn clear(&mut self) {
        self.armed.clear();
        self.under_way = 0;
    }

    /// The next one to send.
    pub(super) fn take(&mut self) -> Option<Call> {
        if self.armed.is_empty() {
            return None;
        }
        let mut call = self.armed.remove(0);
        call.is_sent = true;
        LinkCounters::count(&call.counters.outcalls);
        self.under_way += 1;
        Some(call)
    }

    /// One of those that were taken is over.
    pub(super) fn answered(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    fn count(&self) -> usize {
        self.staged.len() + self.armed.len() + self.under_way
    }
}

/// One request, from its first line to its reply.
pub struct Call {
    /// Of the upstream.
    pub upstream: u32,
    /// For the event.
    pub token: u64,
    /// Its memory.
    pub slot: Slot,
    /// The method's id.
    pub method_id: u8,
    /// The exchange that waits for it.
    pub request_id: u64,
    /// Bytes of its lines, in the receive area.
    head_bytes: usize,
    /// Bytes at the end of the out area; `None` without a body.
    body_bytes: Option<usize>,
    has_host: bool,
    bytes_max: usize,
    is_sent: bool,
    is_over: bool,
    counters: Arc<LinkCounters>,
    _permit: OutcallPermit,
}

impl Call {
    /// Adds a header line, checked like one from the network.
    ///
    /// # Errors
    /// The status for the plugin; nothing was added then.
    fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), i32> {
        let id = HeaderId::of(name);
        // HTTP1.md rules 17, 18: what leaves has exactly one Host, and it is a host.
        if !is_token(name) || !is_field_value(value) || (id == HeaderId::HOST && !is_host(value)) {
            return Err(ERR_BAD_BYTES);
        }
        if belongs_to_gateway(id) || id == HeaderId::EXPECT || (id == HeaderId::HOST && self.has_host) {
            return Err(ERR_FORBIDDEN);
        }
        self.push(&[name, b": ", value, b"\r\n"])?;
        self.has_host |= id == HeaderId::HOST;
        Ok(())
    }

    /// Appends to the lines.
    fn push(&mut self, parts: &[&[u8]]) -> Result<(), i32> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let room = self.bytes_max.saturating_sub(self.body_bytes.unwrap_or(0)).min(self.slot.layout().receive());
        if self.head_bytes + bytes > room {
            return Err(ERR_NO_SPACE);
        }
        for part in parts {
            self.slot.bytes_mut(self.head_bytes..self.head_bytes + part.len()).copy_from_slice(part);
            self.head_bytes += part.len();
        }
        Ok(())
    }

    fn set_body(&mut self, bytes: &[u8]) -> Result<(), i32> {
        if bytes.len() > self.bytes_max - self.head_bytes {
            return Err(ERR_NO_SPACE);
        }
        let end = self.out_end();
        self.slot.bytes_mut(end - bytes.len()..end).copy_from_slice(bytes);
        self.body_bytes = Some(bytes.len());
        Ok(())
    }

    fn out_end(&self) -> usize {
        self.slot.layout().out_at() + self.slot.layout().out()
    }

    /// RFC 9110 §9.2.2: whether it may be sent again although it may have arrived.
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method_id, METHOD_GET | METHOD_HEAD | METHOD_OPTIONS | METHOD_TRACE | METHOD_PUT | METHOD_DELETE)
    }

    /// Puts the request together right before its body; the bytes of the slot to send. `host` stands in when the plugin gave none. `None` when it does not fit.
    /// Its lines stay, until something is read into the slot.
    pub fn lay_out(&mut self, host: &[u8]) -> Option<Range<usize>> {
        let (digits, count) = decimal_digits(self.body_bytes.unwrap_or(0) as u64);
        // RFC 9110 §8.6: a method for which a body means something says that there is none.
        let says_length = self.body_bytes.is_some() || matches!(self.method_id, METHOD_POST | METHOD_PUT | METHOD_PATCH);
        let lines = self.slot.clone();
        let mut parts: [&[u8]; 8] = [&[]; 8];
        parts[0] = lines.bytes(0..self.head_bytes);
        if !self.has_host {
            parts[1..4].copy_from_slice(&[b"host: ", host, b"\r\n"]);
        }
        if says_length {
            parts[4..7].copy_from_slice(&[b"content-length: ", &digits[digits.len() - count..], b"\r\n"]);
        }
        parts[7] = b"\r\n";
        let head: usize = parts.iter().map(|part| part.len()).sum();
        let end = self.out_end();
        let begin = (end - self.body_bytes.unwrap_or(0)).checked_sub(head).filter(|begin| *begin >= self.slot.layout().out_at())?;
        let mut at = begin;
        for part in parts {
            self.slot.bytes_mut(at..at + part.len()).copy_from_slice(part);
            at += part.len();
        }
        Some(begin..end)
    }

    /// It is over: with a reply, or without one.
    pub fn end(&mut self, has_reply: bool) {
        self.is_over = true;
        if !has_reply {
            LinkCounters::count(&self.counters.outcall_failures);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_sent && !self.is_over {
            LinkCounters::count(&self.counters.outcall_cancels);
        }
    }
}

/// Whether the running hook may call at all.
fn may_call(frame: &Frame) -> Result<(), i32> {
    if frame.wants & WANT_OUTCALL == 0 {
        return Err(ERR_NOT_DECLARED);
    }
    match may_wait(frame) {
        raw::OK => Ok(()),
        status => Err(status),
    }
}

impl Frame {
    fn calls(&mut self) -> &mut Calls {
        self.waiting.calls.get_or_insert_default()
    }

    /// The running hook begins a call.
    fn begin_call(&mut self, upstream: u32, method: &[u8], target: &[u8]) -> Result<(), i32> {
        may_call(self)?;
        self.calls().begun = None;
        let chain = Rc::clone(&self.chain);
        let (Some(link), Some(waits)) = (chain.links.get(self.link), self.waiting.waits.clone()) else { return Err(ERR_WRONG_HOOK) };
        let shared = Rc::clone(&self.shared);
        let name = link.plugin.version().upstream(upstream).ok_or(ERR_NOT_FOUND)?;
        // Each program has been checked for this name when it was built.
        let upstream = shared.upstreams.iter().position(|known| known == name).ok_or(ERR_NOT_FOUND)? as u32;
        if !is_token(method) || !is_origin_form(target) {
            return Err(ERR_BAD_BYTES);
        }
        let method_id = method_id(method);
        if matches!(method_id, METHOD_CONNECT | METHOD_TRACE) {
            return Err(ERR_FORBIDDEN);
        }
        let bounds = shared.outcalls;
        if self.calls().count() >= bounds.hook {
            return Err(ERR_NO_SPACE);
        }
        let permit = waits.try_outcall(bounds.worker).ok_or(ERR_NO_SPACE)?;
        let slot = shared.slab.take().ok_or(ERR_NO_SPACE)?;
        let bytes_max = bounds.request_bytes.min(slot.layout().out().saturating_sub(ADDED_BYTES));
        let mut call = Call {
            upstream,
            token: 0,
            slot,
            method_id,
            request_id: self.request.as_ref().map_or(0, |request| request.request().request_id()),
            head_bytes: 0,
            body_bytes: None,
            has_host: false,
            bytes_max,
            is_sent: false,
            is_over: false,
            counters: Arc::clone(&link.counters),
            _permit: permit,
        };
        call.push(&[method, b" ", target, b" HTTP/1.1\r\n"])?;
        self.calls().begun = Some(call);
        Ok(())
    }

    /// The call that the running hook has begun.
    fn begun_call(&mut self) -> Result<&mut Call, i32> {
        may_call(self)?;
        self.calls().begun.as_mut().ok_or(ERR_WRONG_HOOK)
    }

    /// It is complete.
    fn send_call(&mut self, token: u64) -> Result<(), i32> {
        self.begun_call()?.token = token;
        let calls = self.calls();
        calls.staged.extend(calls.begun.take());
        Ok(())
    }

    /// The next call to send for the link that waits.
    pub fn take_call(&mut self) -> Option<Call> {
        self.waiting.calls.as_mut()?.take()
    }

    /// One of the calls that were taken is over.
    pub fn call_is_over(&mut self) {
        if let Some(calls) = &mut self.waiting.calls {
            calls.answered();
        }
    }
}
