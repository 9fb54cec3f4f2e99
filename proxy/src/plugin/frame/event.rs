//! Waiting: what SUSPEND means for the frame, and the call of on_event.
//!
//! Owns: which hook waits, and that its on_event decides in its place. Must not: know how time passes or who wakes; see `exchange::suspend`.
//!
//! The aliasing argument of [`super`] holds here too: the event stands outside of the frame, and nothing of the frame is borrowed while the hook runs.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::task::Context;

use ringway_abi::ResponseView;
use ringway_abi::outcall::EVENT_REPLY;
use ringway_abi::raw;
use ringway_abi::wait::{EVENT_TIMEOUT, EVENT_TIMER, EVENT_WAKE};

use super::{Flow, Frame, Settled};
use crate::error::PluginFault;
use crate::plugin::wait::WAITING_HOOKS;
use crate::plugin::waits::Woken;

impl Frame {
    /// The hook `which` of link `at` said SUSPEND. Its link waits from here on, with what it has armed.
    pub(super) fn suspend(&mut self, at: usize, which: u32) -> Result<(), PluginFault> {
        let link = &self.chain.links[at];
        if link.wants & raw::WANT_SUSPEND == 0 || link.on_event.is_none() {
            return Err(PluginFault::VerdictNotDeclared);
        }
        let again = which == raw::HOOK_EVENT;
        if which & (WAITING_HOOKS | raw::HOOK_EVENT) == 0 || (again && self.waiting.is_over) {
            return Err(PluginFault::VerdictOutOfPlace);
        }
        let Some(waits) = &self.waiting.waits else { return Err(PluginFault::VerdictOutOfPlace) };
        if !again {
            let request_id = self.request.as_ref().map_or(0, |r| r.request().request_id());
            match &self.waiting.place {
                Some(place) => place.move_to(at as u32),
                None if waits.count() >= self.shared.waits_max => return Err(PluginFault::TooManySuspended),
                None => self.waiting.place = Some(Rc::clone(waits).enter(request_id, at as u32)),
            }
            self.waiting.begin(at, which);
        }
        self.waiting.arm();
        Ok(())
    }

    /// Whether a link waits for an event.
    pub fn is_suspended(&self) -> bool {
        self.waiting.hook != 0
    }

    /// Whether the link that waits has begun since the last look: its time begins, and what the last one armed is over.
    pub fn has_begun_to_wait(&mut self) -> bool {
        std::mem::take(&mut self.waiting.is_new)
    }

    /// It is to be woken at its timer, and at `deadline_ms` at the latest (monotonic).
    pub fn wait_until(&self, deadline_ms: u64) {
        if let Some(place) = &self.waiting.place {
            place.set_due(self.waiting.timer.map_or(deadline_ms, |(due_ms, _)| due_ms.min(deadline_ms)));
        }
    }

    /// What has come for the link that waits, if anything; `deadline_ms` as for [`Frame::wait_until`].
    pub fn poll_event(&mut self, cx: &mut Context<'_>, deadline_ms: u64) -> Option<Event> {
        Some(match self.waiting.place.as_ref()?.poll(cx)? {
            Woken::Wake(token) => Event::Wake(token),
            Woken::Due => match self.waiting.timer.take_if(|(due_ms, _)| *due_ms <= deadline_ms) {
                Some((_, token)) => Event::Timer(token),
                None => Event::Timeout,
            },
        })
    }

    /// What the link that waits is told when no time passes and nobody wakes it: that its timer is due, or that it has waited for too long.
    pub fn next_event(&mut self) -> Event {
        self.waiting.timer.take().map_or(Event::Timeout, |(_, token)| Event::Timer(token))
    }

    /// Shows an event to the link that waits; then the post hooks before it, if it was a post hook that waited. `Continue` after a pre hook: the
    /// links behind this one are next.
    pub fn run_event(&mut self, event: &raw::RawEvent) -> Flow {
        let (at, hook) = (self.waiting.link, self.waiting.hook);
        let Some(on_event) = self.chain.links[at].on_event.filter(|_| hook != 0) else { return Flow::Continue };
        self.waiting.is_over = event.kind == EVENT_TIMEOUT;
        let verdict = self.call(at, raw::HOOK_EVENT, on_event, std::ptr::from_ref(event));
        let settled = self.settle(at, raw::HOOK_EVENT, verdict);
        if matches!(settled, Settled::Stop(Flow::Suspend(_))) {
            return Flow::Suspend(at);
        }
        let mut outcome = self.waiting.finish();
        if hook == raw::HOOK_RESPONSE {
            let flow = self.after_post_hook(settled, &mut outcome);
            let flow = flow.unwrap_or_else(|| self.run_post_hooks(at, outcome));
            self.leave_place();
            return flow;
        }
        self.leave_place();
        match settled {
            Settled::GoOn => {
                self.passed |= 1 << at;
                Flow::Continue
            }
            Settled::Failed => Flow::Continue,
            Settled::Stop(flow) => flow,
        }
    }

    /// Nobody of this exchange waits any more.
    fn leave_place(&mut self) {
        if !self.is_suspended() {
            self.waiting.place = None;
        }
    }
}

/// What a link has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its timer, with this token.
    Timer(u64),
    /// A wake with this token.
    Wake(u64),
    /// It has waited for too long.
    Timeout,
    /// The end of an outcall: with a reply, or the reason why there is none.
    Reply {
        /// Of the call.
        token: u64,
        /// `RW_OK`, or one of `RW_OUTCALL_*`.
        status: i32,
    },
}

impl Event {
    /// As a plugin sees it. What is returned may be shown while `reply` lives.
    pub fn raw(self, reply: Option<&ResponseView>) -> raw::RawEvent {
        let (kind, token, status) = match self {
            Event::Timer(token) => (EVENT_TIMER, token, raw::OK),
            Event::Wake(token) => (EVENT_WAKE, token, raw::OK),
            Event::Timeout => (EVENT_TIMEOUT, 0, raw::OK),
            Event::Reply { token, status } => (EVENT_REPLY, token, status),
        };
        let response = reply.map_or(std::ptr::null(), std::ptr::from_ref);
        raw::RawEvent { size: size_of::<raw::RawEvent>() as u32, kind, token, status, reserved: 0, response }
    }
}
