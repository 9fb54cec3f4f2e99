//! The frame of an exchange: its messages, and the calls of its chain's hooks.
//!
//! Owns: the order of hooks, what verdicts mean, when edits take effect. Must not: do input or output.
//!
//! Order (DESIGN §4, SPEC S-35): pre hooks in link order; post hooks in reverse, exactly for the links whose pre hooks ran
//! to a verdict that goes on, and for links with `post_always`. A link whose pre hook (a chunk hook too) answered, failed
//! or dropped gets no further hook but `on_done`, which every link that was reached gets.
//!
//! Invariant during a call: nothing of the frame is borrowed. The host functions (see [`super::host`]) reach the frame
//! through the `rw_cx` that is its first field, so a call goes through a raw pointer to the whole frame.

mod event;
pub use event::Event;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use ringway_abi::raw::{self, Hook, RawChunk, RawCx};
use ringway_abi::view::{ORIGIN_GATEWAY, ORIGIN_PLUGIN};

use super::arena::Arena;
use super::chain::{CoreChain, LinkCounters, OnError};
use super::host::{HOST, HostShared};
use super::loaded::CorePlugin;
use super::running::{self, Running};
use super::wait::Waiting;
use super::waits::Waits;
use crate::clock;
use crate::error::PluginFault;
use crate::view::message::{Message, Staged};
use crate::view::slab::Slot;

/// What a run of hooks came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// A plugin's response stands in [`Frame::response`].
    Respond,
    /// Close the connection without an answer.
    Drop,
    /// This link wants the whole request body first; then [`Frame::run_request_body`].
    NeedBody(usize),
    /// This link waits for an event; then [`Frame::run_event`].
    Suspend(usize),
    /// A link with `on_error = "closed"` failed.
    Fault(PluginFault),
}

/// What a run of chunk hooks came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkFlow {
    /// Forward the bytes as they are.
    Forward,
    /// Forward [`Frame::take_replacement`] instead.
    Replaced,
    /// Stop with this outcome, which is not `Continue`.
    Stop(Flow),
}

/// A response that a plugin or the gateway is writing. Its head is serialized last, into the gap before the body.
pub struct MadeResponse {
    pub(super) message: Message,
    pub(super) staged: Staged,
    /// Where the body begins in the slot.
    pub(super) body_at: usize,
    pub(super) body_bytes: usize,
    pub(super) reserved: usize,
    /// The body, when it outgrew the slot.
    pub(super) spilled: Option<Vec<u8>>,
}

impl MadeResponse {
    /// A new response in a free slot.
    pub(super) fn new(slot: Slot, status: u16, origin: u8, request_id: u64) -> MadeResponse {
        let layout = *slot.layout();
        let body_at = layout.out_at() + head_gap_bytes(&layout);
        let message = Message::made_response(slot, status, origin, request_id);
        MadeResponse { message, staged: Staged::new(), body_at, body_bytes: 0, reserved: 0, spilled: None }
    }
}

/// The largest head that a made response can have: all of the arena, the marks around each entry, and what the gateway adds.
fn head_gap_bytes(layout: &crate::view::slab::SlotLayout) -> usize {
    layout.arena() + 4 * layout.entries() + 512
}

/// The body of a response that was made here.
pub enum MadeBody {
    /// `bytes` bytes from offset `at` of the slot; the head goes right before them.
    InSlot {
        /// Offset in the slot.
        at: usize,
        /// Count.
        bytes: usize,
    },
    /// A body that outgrew the slot.
    Heap(Vec<u8>),
}

/// One exchange as plugins see it.
#[repr(C)]
pub struct Frame {
    /// First, so that a host function finds the frame behind the `rw_cx` it is given.
    raw: RawCx,
    pub(super) shared: Rc<HostShared>,
    pub(super) chain: Rc<CoreChain>,
    /// Of the running hook.
    pub(super) wants: u64,
    /// The running hook has edited, answered or chosen something; without that, CONTINUE has nothing to settle.
    pub(super) touched: bool,
    pub(super) link: usize,
    pub(super) request: Option<Message>,
    pub(super) response: Option<Message>,
    pub(super) made: Option<MadeResponse>,
    /// The body of `response`, when it was made here.
    made_body: Option<MadeBody>,
    pub(super) staged_request: Staged,
    pub(super) staged_response: Staged,
    pub(super) upstream: Option<u32>,
    staged_upstream_reset: Option<Option<u32>>,
    pub(super) replacement: Option<Vec<u8>>,
    /// What the plugins asked for with `alloc`.
    pub(super) arena: Arena,
    /// Links reached in link order: they get `on_done`.
    reached: u64,
    /// Links whose pre hook let the exchange go on: they get the post hook.
    passed: u64,
    /// Links that said DONE.
    finished: u64,
    /// The link that waits, and what it has armed.
    pub(super) waiting: Waiting,
    /// The link that answered or failed, for logs.
    pub culprit: Option<usize>,
    /// A post hook failed so, and the response became the gateway's 500.
    pub post_fault: Option<PluginFault>,
}

impl Frame {
    /// A frame without an exchange.
    pub fn new(shared: Rc<HostShared>, worker: u32) -> Frame {
        Frame {
            raw: RawCx {
                size: size_of::<RawCx>() as u32,
                hook: 0,
                host: &raw const HOST,
                core: std::ptr::null_mut(),
                scratch: std::ptr::null_mut(),
                request: std::ptr::null(),
                response: std::ptr::null(),
                now_unix_ns: 0,
                worker,
                link: 0,
            },
            chain: shared.no_chain.clone(),
            shared,
            wants: 0,
            touched: false,
            link: 0,
            request: None,
            response: None,
            made: None,
            made_body: None,
            staged_request: Staged::new(),
            staged_response: Staged::new(),
            upstream: None,
            staged_upstream_reset: None,
            replacement: None,
            arena: Arena::default(),
            reached: 0,
            passed: 0,
            finished: 0,
            waiting: Waiting::default(),
            culprit: None,
            post_fault: None,
        }
    }

    /// Where its exchanges wait for events. Without this no hook can suspend.
    pub fn with_waits(mut self, waits: Rc<Waits>) -> Frame {
        self.waiting.waits = Some(waits);
        self
    }

    /// The request of the exchange that begins.
    pub fn set_request(&mut self, request: Message) {
        self.raw.request = request.request();
        self.raw.now_unix_ns = request.request().received_unix_ns();
        self.request = Some(request);
    }

    /// The exchange runs on this chain: its scratch is zeroed. `shared` is that of the program in force.
    pub fn begin(&mut self, shared: &Rc<HostShared>, chain: &Rc<CoreChain>) {
        if !Rc::ptr_eq(&self.shared, shared) {
            self.shared = Rc::clone(shared);
        }
        let scratch = chain.plan().scratch_bytes as usize;
        if let Some(request) = self.request.as_mut().filter(|_| scratch > 0) {
            request.slot_mut().scratch_mut()[..scratch].fill(0);
        }
        if !chain.is_empty() {
            self.chain = Rc::clone(chain);
        }
    }

    /// Ends the exchange: everything it held is returned.
    pub fn end(&mut self) {
        self.raw.request = std::ptr::null();
        self.raw.response = std::ptr::null();
        self.request = None;
        self.response = None;
        self.made = None;
        self.made_body = None;
        self.staged_request.clear();
        self.staged_response.clear();
        self.upstream = None;
        self.staged_upstream_reset = None;
        self.replacement = None;
        self.arena.reset();
        self.reached = 0;
        self.passed = 0;
        self.finished = 0;
        self.waiting.end();
        self.culprit = None;
        self.post_fault = None;
        if !self.chain.is_empty() {
            self.chain = self.shared.no_chain.clone();
        }
    }

    /// The chain of this exchange.
    #[inline]
    pub fn chain(&self) -> &Rc<CoreChain> {
        &self.chain
    }

    /// The request, while an exchange lives.
    ///
    /// # Panics
    /// Outside of an exchange.
    #[inline]
    pub fn request(&self) -> &Message {
        self.request.as_ref().expect("an exchange has a request from begin to end")
    }

    /// The request, for filling in facts.
    ///
    /// # Panics
    /// Outside of an exchange.
    #[inline]
    pub fn request_mut(&mut self) -> &mut Message {
        self.request.as_mut().expect("an exchange has a request from begin to end")
    }

    /// The response, once there is one.
    #[inline]
    pub fn response(&self) -> Option<&Message> {
        self.response.as_ref()
    }

    /// The response, for filling in facts.
    #[inline]
    pub fn response_mut(&mut self) -> Option<&mut Message> {
        self.response.as_mut()
    }

    /// The upstream that a plugin chose.
    #[inline]
    pub fn chosen_upstream(&self) -> Option<u32> {
        self.upstream
    }

    /// The bytes that replace the chunk just shown.
    #[inline]
    pub fn take_replacement(&mut self) -> Option<Vec<u8>> {
        self.replacement.take()
    }

    /// Puts the response of the upstream into the exchange. Replaces any other.
    pub fn set_response(&mut self, response: Message) {
        self.made_body = None;
        let response = self.response.insert(response);
        self.raw.response = response.response();
    }

    /// The body of a response that was made here, once.
    pub fn take_made_body(&mut self) -> Option<MadeBody> {
        self.made_body.take()
    }

    /// Answers with a response of the gateway itself. False when no slot is free for it.
    pub fn respond_gateway(&mut self, status: u16, headers: &[(&[u8], &[u8])], body: &[u8]) -> bool {
        let Some(slot) = self.shared.slab.take() else { return false };
        let request_id = self.request.as_ref().map_or(0, |r| r.request().request_id());
        let mut made = MadeResponse::new(slot, status, ORIGIN_GATEWAY, request_id);
        for (name, value) in headers {
            let staged = made.message.stage(&mut made.staged, &self.shared.names, crate::view::message::HeaderEdit::Add, name, value);
            debug_assert!(staged.is_ok(), "the gateway's own headers are well-formed and fit");
        }
        let at = made.body_at;
        let room = made.message.slot().layout().out_at() + made.message.slot().layout().out() - at;
        let body = &body[..body.len().min(room)];
        made.message.slot_mut().bytes_mut(at..at + body.len()).copy_from_slice(body);
        made.body_bytes = body.len();
        self.made = Some(made);
        self.adopt_made();
        true
    }

    /// Pre hooks from link `from` on.
    pub fn run_request(&mut self, from: usize) -> Flow {
        let chain = Rc::clone(&self.chain);
        for (at, link) in chain.links.iter().enumerate().skip(from) {
            self.reached |= 1 << at;
            let Some(hook) = link.on_request else {
                self.passed |= 1 << at;
                continue;
            };
            let event = self.raw.request;
            let verdict = self.call_link(link, at, raw::HOOK_REQUEST, hook, event);
            if verdict == raw::CONTINUE && !self.touched {
                self.passed |= 1 << at;
                continue;
            }
            match self.settle(at, raw::HOOK_REQUEST, verdict) {
                Settled::GoOn => self.passed |= 1 << at,
                Settled::Failed => {}
                Settled::Stop(flow) => return flow,
            }
        }
        Flow::Continue
    }

    /// The body hook of link `at`, which said NEED_BODY; then the pre hooks of the links behind it.
    pub fn run_request_body(&mut self, at: usize, body: &[u8]) -> Flow {
        let Some(hook) = self.chain.links[at].on_request_body else { return Flow::Continue };
        let event = chunk(body, 0, true);
        let verdict = self.call(at, raw::HOOK_REQUEST_BODY, hook, &raw const event);
        match self.settle(at, raw::HOOK_REQUEST_BODY, verdict) {
            Settled::GoOn => {
                self.passed |= 1 << at;
                Flow::Continue
            }
            Settled::Failed => Flow::Continue,
            Settled::Stop(flow) => flow,
        }
    }

    /// Post hooks, in reverse. A link may replace the response; the links before it then see the new one.
    pub fn run_response(&mut self) -> Flow {
        self.run_post_hooks(self.chain.links.len(), Flow::Continue)
    }

    /// The post hooks of the links before `before`; `outcome` is what the links behind it came to.
    fn run_post_hooks(&mut self, before: usize, mut outcome: Flow) -> Flow {
        for at in (0..before).rev() {
            let link = &self.chain.links[at];
            if link.post_always && self.reached & (1 << at) == 0 {
                self.reached |= 1 << at;
                self.passed |= 1 << at;
            }
            let due = self.passed & !self.finished & (1 << at) != 0;
            let Some(hook) = link.on_response.filter(|_| due) else { continue };
            let event = self.raw.response;
            let verdict = self.call(at, raw::HOOK_RESPONSE, hook, event);
            let settled = self.settle(at, raw::HOOK_RESPONSE, verdict);
            if let Some(flow) = self.after_post_hook(settled, &mut outcome) {
                return flow;
            }
        }
        outcome
    }

    /// What the verdict of a post hook means; `Some`: the links before it are not shown the response now.
    fn after_post_hook(&mut self, settled: Settled, outcome: &mut Flow) -> Option<Flow> {
        match settled {
            Settled::GoOn | Settled::Failed => {}
            Settled::Stop(Flow::Respond) => *outcome = Flow::Respond,
            Settled::Stop(Flow::Fault(fault)) => {
                self.post_fault = Some(fault);
                // The links before this one still see the response that is sent: the gateway's 500.
                if !self.respond_gateway(fault.row().status, &[], b"") {
                    return Some(Flow::Fault(fault));
                }
                *outcome = Flow::Respond;
            }
            Settled::Stop(Flow::Suspend(at)) => {
                self.waiting.outcome = *outcome;
                return Some(Flow::Suspend(at));
            }
            Settled::Stop(flow) => return Some(flow),
        }
        None
    }

    /// Request chunk hooks in link order, each shown what the one before left.
    pub fn run_request_chunk(&mut self, bytes: &[u8], offset: u64, last: bool) -> ChunkFlow {
        self.run_chunk(raw::HOOK_REQUEST_CHUNK, bytes, offset, last)
    }

    /// Response chunk hooks in reverse order.
    pub fn run_response_chunk(&mut self, bytes: &[u8], offset: u64, last: bool) -> ChunkFlow {
        self.run_chunk(raw::HOOK_RESPONSE_CHUNK, bytes, offset, last)
    }

    fn run_chunk(&mut self, which: u32, bytes: &[u8], offset: u64, last: bool) -> ChunkFlow {
        let count = self.chain.links.len();
        let mut current: Option<Vec<u8>> = None;
        for step in 0..count {
            let at = if which == raw::HOOK_REQUEST_CHUNK { step } else { count - 1 - step };
            let link = &self.chain.links[at];
            let hook = if which == raw::HOOK_REQUEST_CHUNK { link.on_request_chunk } else { link.on_response_chunk };
            let due = self.passed & !self.finished & (1 << at) != 0;
            let Some(hook) = hook.filter(|_| due) else { continue };
            let event = chunk(current.as_deref().unwrap_or(bytes), offset, last);
            let verdict = self.call(at, which, hook, &raw const event);
            match self.settle(at, which, verdict) {
                Settled::GoOn => {
                    if let Some(replaced) = self.replacement.take() {
                        current = Some(replaced);
                    }
                }
                Settled::Failed => self.leave(at, which),
                Settled::Stop(flow) => {
                    self.leave(at, which);
                    return ChunkFlow::Stop(flow);
                }
            }
        }
        match current {
            Some(replaced) => {
                self.replacement = Some(replaced);
                ChunkFlow::Replaced
            }
            None => ChunkFlow::Forward,
        }
    }

    /// A link whose pre hook did not let the exchange go on gets no post hook.
    fn leave(&mut self, at: usize, which: u32) {
        if which == raw::HOOK_REQUEST_CHUNK {
            self.passed &= !(1 << at);
        }
    }

    /// The end of the exchange, for every link that was reached, in reverse order.
    pub fn run_done(&mut self, done: &raw::Done) {
        if !self.chain.plan().has_hook(raw::HOOK_DONE) {
            return;
        }
        for at in (0..self.chain.links.len()).rev() {
            let Some(hook) = self.chain.links[at].on_done.filter(|_| self.reached & (1 << at) != 0) else { continue };
            // The verdict means nothing here, but a panic is one wherever it happens.
            if self.call(at, raw::HOOK_DONE, hook, std::ptr::from_ref(done)) == raw::PANICKED {
                LinkCounters::count(&self.chain.links[at].counters.panics);
            }
            self.drop_edits();
        }
    }

    /// A client connected; false when a link refused it.
    pub fn run_accept(&mut self, chain: &Rc<CoreChain>, accept: &raw::Accept) -> bool {
        self.chain = Rc::clone(chain);
        self.raw.now_unix_ns = clock::unix_ns_coarse();
        let mut admitted = true;
        for at in 0..self.chain.links.len() {
            let Some(hook) = self.chain.links[at].on_accept else { continue };
            let verdict = self.call(at, raw::HOOK_ACCEPT, hook, std::ptr::from_ref(accept));
            admitted = match self.settle(at, raw::HOOK_ACCEPT, verdict) {
                Settled::GoOn | Settled::Failed => true,
                Settled::Stop(_) => false,
            };
            if !admitted {
                break;
            }
        }
        self.end();
        admitted
    }

    /// Calls a hook. Nothing of `self` may be borrowed by the event except what the hook may see.
    #[inline]
    fn call<T>(&mut self, at: usize, which: u32, hook: Hook<T>, event: *const T) -> u32 {
        let chain = Rc::clone(&self.chain);
        self.call_link(&chain.links[at], at, which, hook, event)
    }

    #[inline]
    fn call_link<T>(&mut self, link: &super::chain::CoreLink, at: usize, which: u32, hook: Hook<T>, event: *const T) -> u32 {
        self.touched = false;
        self.raw.hook = which;
        self.raw.core = link.core;
        self.raw.link = at as u32;
        self.raw.scratch = std::ptr::null_mut();
        if link.has_scratch
            && let Some(request) = &self.request
        {
            self.raw.scratch = request.slot().scratch().wrapping_add(link.scratch_at as usize).cast();
        }
        self.wants = link.wants;
        self.link = at;
        LinkCounters::count(&link.counters.calls);
        match link.sample_every {
            None => self.enter(hook, event),
            Some(every) => self.enter_measured(&link.counters, every, which, hook, event),
        }
    }

    /// One call in `every` is measured.
    #[cold]
    fn enter_measured<T>(&mut self, counters: &LinkCounters, every: u64, which: u32, hook: Hook<T>, event: *const T) -> u32 {
        let times = counters.times.get().and_then(|times| times.of(which));
        let began = times.and_then(|times| times.begin(every));
        let verdict = self.enter(hook, event);
        if let (Some(times), Some(began)) = (times, began) {
            times.end(began);
        }
        verdict
    }

    #[inline]
    fn enter<T>(&mut self, hook: Hook<T>, event: *const T) -> u32 {
        let cx: *mut RawCx = std::ptr::from_mut(self).cast();
        running::enter(cx.cast());
        // SAFETY: the hook contract of ringway.h: `cx` is the head of this frame (`repr(C)`, first field) and valid for
        // the call; `event` is valid for the call; the plugin's core instance belongs to this thread. The frame is only
        // reached through `cx` until the hook returns.
        let verdict = unsafe { hook(cx, event) };
        running::leave();
        verdict
    }

    /// What a crash record says about the hook that `frame` runs.
    ///
    /// # Safety
    /// `frame` was given to [`running::enter`] by this thread, which has not called [`running::leave`] since: the hook
    /// runs, and nothing of the frame is moved or freed meanwhile.
    pub(super) unsafe fn running<'a>(frame: *const Frame) -> Option<Running<'a>> {
        // SAFETY: as above; during a call nothing of the frame is borrowed, and whoever asks has interrupted the hook.
        let frame = unsafe { &*frame };
        let link = frame.chain.links.get(frame.raw.link as usize)?;
        let hook = raw::HOOKS.iter().find(|(bit, _)| *bit == frame.raw.hook).map_or("", |(_, name)| name);
        // SAFETY: the view of the running exchange, or null outside of one.
        let request = unsafe { frame.raw.request.as_ref() };
        let version = link.plugin.version();
        let calls = link.counters.calls.load(std::sync::atomic::Ordering::Relaxed);
        Some(Running { plugin: version.name(), facts: version.facts(), step: hook, link: Some(frame.raw.link), calls, request })
    }

    /// Checks a verdict, counts it, and lets the edits take effect or drops them.
    fn settle(&mut self, at: usize, which: u32, verdict: u32) -> Settled {
        let fault = match verdict {
            raw::CONTINUE => {
                self.made = None;
                self.waiting.forget();
                self.apply_edits(at);
                return Settled::GoOn;
            }
            raw::DONE => {
                self.made = None;
                self.waiting.forget();
                self.apply_edits(at);
                self.finished |= 1 << at;
                LinkCounters::count(&self.chain.links[at].counters.dones);
                return Settled::GoOn;
            }
            raw::RESPOND if self.made.is_some() => {
                // What it would have replaced is not sent.
                self.replacement = None;
                self.waiting.forget();
                self.apply_edits(at);
                self.adopt_made();
                self.culprit = Some(at);
                LinkCounters::count(&self.chain.links[at].counters.responds);
                return Settled::Stop(Flow::Respond);
            }
            raw::DROP if which != raw::HOOK_DONE => {
                self.drop_edits();
                self.culprit = Some(at);
                LinkCounters::count(&self.chain.links[at].counters.drops);
                return Settled::Stop(Flow::Drop);
            }
            raw::NEED_BODY if self.raw_hook() == raw::HOOK_REQUEST && self.may_buffer(at) => {
                self.made = None;
                self.waiting.forget();
                self.apply_edits(at);
                LinkCounters::count(&self.chain.links[at].counters.bodies);
                return Settled::Stop(Flow::NeedBody(at));
            }
            raw::SUSPEND => match self.suspend(at, which) {
                Ok(()) => {
                    self.made = None;
                    self.apply_edits(at);
                    LinkCounters::count(&self.chain.links[at].counters.suspends);
                    return Settled::Stop(Flow::Suspend(at));
                }
                Err(fault) => fault,
            },
            raw::ABORTED => PluginFault::Aborted,
            raw::PANICKED => PluginFault::Panicked,
            raw::RESPOND => PluginFault::ResponseMissing,
            raw::NEED_BODY => PluginFault::BodyNotDeclared,
            _ => PluginFault::BadVerdict,
        };
        self.drop_edits();
        let link = &self.chain.links[at];
        LinkCounters::count(&link.counters.aborts);
        if fault == PluginFault::Panicked {
            LinkCounters::count(&link.counters.panics);
        }
        self.culprit = Some(at);
        self.shared.report_fault(link.plugin.version().name(), which, fault, verdict);
        match link.on_error {
            OnError::Open => Settled::Failed,
            OnError::Closed => Settled::Stop(Flow::Fault(fault)),
        }
    }

    fn may_buffer(&self, at: usize) -> bool {
        let link = &self.chain.links[at];
        link.wants & raw::WANT_REQUEST_BODY != 0 && link.on_request_body.is_some()
    }

    fn apply_edits(&mut self, at: usize) {
        self.staged_upstream_reset = None;
        if self.staged_request.is_empty() && self.staged_response.is_empty() {
            return;
        }
        LinkCounters::count(&self.chain.links[at].counters.edits);
        if let Some(request) = self.request.as_mut().filter(|_| !self.staged_request.is_empty()) {
            request.apply(&mut self.staged_request);
            self.raw.request = request.request();
        }
        if let Some(response) = self.response.as_mut().filter(|_| !self.staged_response.is_empty()) {
            response.apply(&mut self.staged_response);
            self.raw.response = response.response();
        }
    }

    fn drop_edits(&mut self) {
        if let Some(request) = &mut self.request {
            request.discard(&mut self.staged_request);
        }
        if let Some(response) = &mut self.response {
            response.discard(&mut self.staged_response);
        }
        if let Some(before) = self.staged_upstream_reset.take() {
            self.upstream = before;
        }
        self.made = None;
        self.replacement = None;
        self.waiting.forget();
    }

    /// The written response becomes the response of the exchange.
    fn adopt_made(&mut self) {
        let Some(mut made) = self.made.take() else { return };
        made.message.apply(&mut made.staged);
        let bytes = made.spilled.as_ref().map_or(made.body_bytes, Vec::len) as u64;
        let link = self.link as u32;
        made.message.set_response_facts(|root| {
            root.content_length = bytes;
            root.flags = if bytes > 0 { ringway_abi::view::RES_HAS_BODY } else { 0 };
            if root.origin == ORIGIN_PLUGIN {
                root.origin_plugin = link;
            }
        });
        if made.spilled.is_none() {
            made.message.set_body_span(made.body_at, made.body_bytes);
            made.message.set_response_facts(|root| root.flags |= ringway_abi::view::RES_BODY_COMPLETE);
        }
        self.set_response(made.message);
        self.made_body = Some(match made.spilled {
            Some(body) => MadeBody::Heap(body),
            None => MadeBody::InSlot { at: made.body_at, bytes: made.body_bytes },
        });
    }

    /// The bit of the running hook; in on_event, that of the hook which waited.
    pub(super) fn raw_hook(&self) -> u32 {
        if self.raw.hook == raw::HOOK_EVENT { self.waiting.hook } else { self.raw.hook }
    }

    /// Notes which upstream stands if the running hook fails.
    pub(super) fn choose_upstream(&mut self, index: u32) {
        if self.staged_upstream_reset.is_none() {
            self.staged_upstream_reset = Some(self.upstream);
        }
        self.upstream = Some(index);
    }

    /// The link's name, for logs.
    pub fn link_name(&self, at: usize) -> &str {
        self.chain.links.get(at).map_or("", |link| link.plugin.version().name())
    }
}

/// `on_tick` of one plugin instance on its worker's thread, counted in `counters`; whether it failed. Any other verdict means
/// nothing there.
pub fn run_tick(shared: &Rc<HostShared>, plugin: &Rc<CorePlugin>, counters: &Arc<LinkCounters>, worker: u32) -> Option<PluginFault> {
    let hook = plugin.version().descriptor().on_tick?;
    let link = super::chain::LinkParts { plugin: Rc::clone(plugin), on_error: OnError::Closed, post_always: false, counters: Arc::clone(counters) };
    tick(shared, Rc::new(CoreChain::new(vec![link])), hook, worker)
}

/// `hook` as the `on_tick` of the first link of a chain.
pub(super) fn tick(shared: &Rc<HostShared>, chain: Rc<CoreChain>, hook: Hook<raw::Tick>, worker: u32) -> Option<PluginFault> {
    let mut frame = Frame::new(Rc::clone(shared), worker);
    frame.chain = chain;
    let now_unix_ns = clock::unix_ns_coarse();
    frame.raw.now_unix_ns = now_unix_ns;
    let tick = raw::Tick { size: size_of::<raw::Tick>() as u32, worker, now_unix_ns };
    let verdict = frame.call(0, raw::HOOK_TICK, hook, &raw const tick);
    let settled = frame.settle(0, raw::HOOK_TICK, verdict);
    frame.end();
    match settled {
        Settled::Stop(Flow::Fault(fault)) => Some(fault),
        _ => None,
    }
}

enum Settled {
    GoOn,
    /// Failed, and `on_error = "open"`: as if it had not run.
    Failed,
    Stop(Flow),
}

fn chunk(bytes: &[u8], offset: u64, last: bool) -> RawChunk {
    RawChunk { size: size_of::<RawChunk>() as u32, flags: if last { raw::CHUNK_LAST } else { 0 }, offset, bytes: bytes.as_ptr(), len: bytes.len() as u64 }
}
