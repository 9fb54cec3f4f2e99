//! What a link waits for, and the table "ringway.wait/1" through which plugins say so.
//!
//! Owns: the check of everything a plugin passes to that table, and what the running hook has armed. Must not: send, sleep, or call back. The contract of
//! the calls is that of [`super::host`]; `wake` has no `cx` and works from any thread (see [`super::wake`]).

use std::rc::Rc;

use ringway_abi::raw::{self, RawCx};
use ringway_abi::wait::Wait;

use super::frame::{Flow, Frame};
use super::host::frame;
use super::outcall::Calls;
use super::waits::{Place, Waits};
use super::wake::{self, Wake};
use crate::clock;

/// Hooks that may wait; in on_event it is the hook that waits which counts.
pub(super) const WAITING_HOOKS: u32 = raw::HOOK_REQUEST | raw::HOOK_REQUEST_BODY | raw::HOOK_RESPONSE;

/// The table that plugins get for "ringway.wait/1".
pub(super) static WAIT: Wait = Wait { size: size_of::<Wait>() as u32, reserved: 0, timer, wake };

/// The link of an exchange that waits. `hook == 0` when none does.
pub(super) struct Waiting {
    /// Of the worker; `None` where nothing can wait.
    pub(super) waits: Option<Rc<Waits>>,
    pub(super) place: Option<Place>,
    pub(super) hook: u32,
    pub(super) link: usize,
    /// What the post hooks behind it came to.
    pub(super) outcome: Flow,
    /// When its timer is due (monotonic ms), and the token.
    pub(super) timer: Option<(u64, u64)>,
    /// It has begun to wait, and nobody has looked since.
    pub(super) is_new: bool,
    /// Its time is over: it may not wait again.
    pub(super) is_over: bool,
    /// What the running hook has armed: it counts when the hook returns SUSPEND.
    staged_timer: Option<(u64, u64)>,
    /// Its outcalls; there from the first one of the connection on.
    pub(super) calls: Option<Box<Calls>>,
}

impl Default for Waiting {
    fn default() -> Self {
        Waiting {
            waits: None,
            place: None,
            hook: 0,
            link: 0,
            outcome: Flow::Continue,
            timer: None,
            is_new: false,
            is_over: false,
            staged_timer: None,
            calls: None,
        }
    }
}

impl Waiting {
    /// This hook of this link waits from here on.
    pub(super) fn begin(&mut self, link: usize, hook: u32) {
        (self.link, self.hook, self.outcome) = (link, hook, Flow::Continue);
        (self.timer, self.is_new, self.is_over) = (None, true, false);
        if let Some(calls) = &mut self.calls {
            calls.clear();
        }
    }

    /// What the hook has armed counts.
    pub(super) fn arm(&mut self) {
        if let Some(timer) = self.staged_timer.take() {
            self.timer = Some(timer);
        }
        if let Some(calls) = &mut self.calls {
            calls.arm();
        }
    }

    /// What the hook has armed does not count: it returned another verdict.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.staged_timer = None;
        if let Some(calls) = &mut self.calls {
            calls.forget();
        }
    }

    /// The link goes on. What the post hooks behind it came to.
    pub(super) fn finish(&mut self) -> Flow {
        (self.hook, self.timer, self.is_new, self.is_over) = (0, None, false, false);
        if let Some(calls) = &mut self.calls {
            calls.clear();
        }
        self.outcome
    }

    /// The exchange is over.
    #[inline]
    pub(super) fn end(&mut self) {
        self.forget();
        if self.hook != 0 {
            self.finish();
        }
        self.place = None;
    }
}

/// Whether the running hook may arm something.
pub(super) fn may_wait(frame: &Frame) -> i32 {
    if frame.wants & raw::WANT_SUSPEND == 0 {
        return raw::ERR_NOT_DECLARED;
    }
    if frame.raw_hook() & WAITING_HOOKS == 0 {
        return raw::ERR_WRONG_HOOK;
    }
    raw::OK
}

unsafe extern "C" fn timer(cx: *mut RawCx, delay_ns: u64, token: u64) -> i32 {
    // SAFETY: the contract of the host table (module documentation of `host`).
    let Some(frame) = (unsafe { frame(cx) }) else { return raw::ERR_BAD_ARGUMENT };
    let allowed = may_wait(frame);
    if allowed != raw::OK {
        return allowed;
    }
    frame.touched = true;
    let due_ms = clock::monotonic_ns().saturating_add(delay_ns).div_ceil(1_000_000);
    frame.waiting.staged_timer = Some((due_ms, token));
    raw::OK
}

unsafe extern "C" fn wake(request_id: u64, link: u32, token: u64) -> i32 {
    if wake::send(Wake { request_id, link, token }) { raw::OK } else { raw::ERR_NO_SPACE }
}
