//! Chains: the links of a route, in order, with the plan that follows from what their plugins want.
//!
//! Owns: the order and the policies of links, the plan, the counters. Must not: call hooks.
//!
//! A [`CoreChain`] is built on each worker from its core instances and never changes; a new configuration makes a new
//! chain, and exchanges in flight keep the one they began with.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ringway_abi::raw::{self, Hook, RawChunk};
use ringway_abi::{RequestView, ResponseView};

use super::loaded::CorePlugin;
use super::times::LinkTimes;

/// Links of one chain: their state per exchange is kept in words of 64 bits.
pub const LINKS_MAX: usize = 64;
/// Scratch offsets are multiples of this.
const SCRATCH_ALIGN: u32 = 16;

/// Bytes of a slot that a link takes when its plugin asks for so many.
pub const fn scratch_room(bytes: u32) -> u32 {
    bytes.next_multiple_of(SCRATCH_ALIGN)
}

/// What happens when a plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// Answer 500.
    #[default]
    Closed,
    /// Go on as if the hook had not run.
    Open,
}

/// What one chain costs: the union of what its plugins want.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// Hook bits that any link has.
    pub hooks: u32,
    /// `wants` bits that any link has.
    pub wants: u64,
    /// Bytes of scratch per exchange.
    pub scratch_bytes: u32,
}

impl Plan {
    /// Whether any link has one of these hooks.
    #[inline]
    pub fn has_hook(&self, hooks: u32) -> bool {
        self.hooks & hooks != 0
    }

    /// Whether any link wants one of these.
    #[inline]
    pub fn has_want(&self, wants: u64) -> bool {
        self.wants & wants != 0
    }
}

/// Counters of one link on one worker: written by the worker, read by anyone. Workers share no line of the cache.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LinkCounters {
    /// Hooks called.
    pub calls: AtomicU64,
    /// Hooks that failed.
    pub aborts: AtomicU64,
    /// Hooks that failed by a panic or an exception; counted in `aborts` too.
    pub panics: AtomicU64,
    /// Exchanges answered by this link.
    pub responds: AtomicU64,
    /// Connections dropped by this link.
    pub drops: AtomicU64,
    /// Hooks that edited a message.
    pub edits: AtomicU64,
    /// Hooks that waited for an event.
    pub suspends: AtomicU64,
    /// Outcalls that were sent.
    pub outcalls: AtomicU64,
    /// Outcalls that came to no reply.
    pub outcall_failures: AtomicU64,
    /// Outcalls that nobody waited for any more: given up.
    pub outcall_cancels: AtomicU64,
    /// Hooks after which the link had done its part of the exchange.
    pub dones: AtomicU64,
    /// Hooks that asked for the whole body.
    pub bodies: AtomicU64,
    /// How long its hooks take; there from the first time that somebody wanted to know.
    pub times: OnceLock<LinkTimes>,
}

impl LinkCounters {
    /// Adds one to a counter that only this thread writes.
    #[inline]
    pub fn count(word: &AtomicU64) {
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// What a link is made of.
pub struct LinkParts {
    /// The instance on this worker.
    pub plugin: Rc<CorePlugin>,
    /// What happens when it fails.
    pub on_error: OnError,
    /// Whether its post hook runs although its pre hook was skipped.
    pub post_always: bool,
    /// Where it counts.
    pub counters: Arc<LinkCounters>,
}

/// One link on one worker, with what a call needs close together.
pub struct CoreLink {
    pub(super) core: *mut std::ffi::c_void,
    pub(super) wants: u64,
    pub(super) scratch_at: u32,
    pub(super) has_scratch: bool,
    pub(super) on_error: OnError,
    pub(super) post_always: bool,
    /// One call in so many is measured.
    pub(super) sample_every: Option<u64>,
    pub(super) on_request: Option<Hook<RequestView>>,
    pub(super) on_request_chunk: Option<Hook<RawChunk>>,
    pub(super) on_request_body: Option<Hook<RawChunk>>,
    pub(super) on_response: Option<Hook<ResponseView>>,
    pub(super) on_response_chunk: Option<Hook<RawChunk>>,
    pub(super) on_event: Option<Hook<raw::RawEvent>>,
    pub(super) on_done: Option<Hook<raw::Done>>,
    pub(super) on_accept: Option<Hook<raw::Accept>>,
    pub(super) counters: Arc<LinkCounters>,
    pub(super) plugin: Rc<CorePlugin>,
}

impl CoreLink {
    /// A link that fails at its first hook without calling its plugin.
    fn refusing(part: LinkParts) -> CoreLink {
        CoreLink {
            core: part.plugin.core(),
            wants: 0,
            scratch_at: 0,
            has_scratch: false,
            on_error: OnError::Closed,
            post_always: false,
            sample_every: None,
            on_request: Some(refuse::<RequestView>),
            on_request_chunk: None,
            on_request_body: None,
            on_response: None,
            on_response_chunk: None,
            on_event: None,
            on_done: None,
            on_accept: Some(refuse::<raw::Accept>),
            counters: part.counters,
            plugin: part.plugin,
        }
    }
}

/// The hook of a disabled plugin.
unsafe extern "C" fn refuse<T>(_: *mut raw::RawCx, _: *const T) -> u32 {
    raw::ABORTED
}

/// The links of a route on one worker.
#[derive(Default)]
pub struct CoreChain {
    pub(super) links: Box<[CoreLink]>,
    plan: Plan,
}

impl CoreChain {
    /// A chain of these links, in this order. Links behind the first [`LINKS_MAX`] are refused by the configuration.
    pub fn new(parts: Vec<LinkParts>) -> CoreChain {
        CoreChain::with_refusals(parts, 0)
    }

    /// The same, where the links of the bits `refusing` belong to disabled plugins: whatever would call them fails instead.
    pub fn with_refusals(parts: Vec<LinkParts>, refusing: u64) -> CoreChain {
        debug_assert!(parts.len() <= LINKS_MAX);
        let mut plan = Plan::default();
        let links = parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| {
                let descriptor = part.plugin.version().descriptor();
                if refusing & (1 << at) != 0 {
                    plan.hooks |= raw::HOOK_REQUEST | raw::HOOK_ACCEPT;
                    return CoreLink::refusing(part);
                }
                let scratch_at = plan.scratch_bytes;
                plan.hooks |= descriptor.hooks;
                plan.wants |= descriptor.wants;
                plan.scratch_bytes += scratch_room(descriptor.scratch_bytes);
                CoreLink {
                    core: part.plugin.core(),
                    wants: descriptor.wants,
                    scratch_at,
                    has_scratch: descriptor.scratch_bytes > 0,
                    on_error: part.on_error,
                    post_always: part.post_always,
                    sample_every: None,
                    on_request: descriptor.on_request,
                    on_request_chunk: descriptor.on_request_chunk,
                    on_request_body: descriptor.on_request_body,
                    on_response: descriptor.on_response,
                    on_response_chunk: descriptor.on_response_chunk,
                    on_event: descriptor.on_event,
                    on_done: descriptor.on_done,
                    on_accept: descriptor.on_accept,
                    counters: part.counters,
                    plugin: part.plugin,
                }
            })
            .collect();
        CoreChain { links, plan }
    }

    /// The same chain, where one call in `every` is measured: a power of two. Only links whose counters hold times do that.
    #[must_use]
    pub fn sampled(mut self, every: u64) -> CoreChain {
        debug_assert!(every.is_power_of_two());
        for link in self.links.iter_mut().filter(|link| link.counters.times.get().is_some()) {
            link.sample_every = Some(every);
        }
        self
    }

    /// What it costs.
    #[inline]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether there is no link.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }
}
