//! What of a plugin runs on this thread right now: what a crash record names.
//!
//! Owns: one word per thread for hooks, one for the calls of a plugin's life. Must not: allocate or lock; the handler of fatal
//! signals reads it. A hook pays two stores (`benches/README.md`), the rest is worked out only after a crash.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering, compiler_fence};

use ringway_abi::RequestView;

use super::frame::Frame;
use super::inspect::PluginFacts;

thread_local! {
    /// The frame whose hook runs.
    static HOOK: AtomicPtr<Frame> = const { AtomicPtr::new(ptr::null_mut()) };
    /// The call of a plugin's life that runs.
    static STEP: AtomicPtr<Call> = const { AtomicPtr::new(ptr::null_mut()) };
}

/// The code of a plugin that runs.
pub struct Running<'a> {
    /// The plugin's name in the configuration.
    pub plugin: &'a str,
    /// What its file says.
    pub facts: &'a PluginFacts,
    /// The hook, or the call of its life.
    pub step: &'static str,
    /// Which link of its chain.
    pub link: Option<u32>,
    /// The request, while there is one.
    pub request: Option<&'a RequestView>,
}

/// A hook of `frame` is called.
#[inline]
pub(super) fn enter(frame: *mut Frame) {
    HOOK.with(|hook| hook.store(frame, Ordering::Relaxed));
    // A signal of this thread sees the store before the call.
    compiler_fence(Ordering::SeqCst);
}

/// It has returned.
#[inline]
pub(super) fn leave() {
    compiler_fence(Ordering::SeqCst);
    HOOK.with(|hook| hook.store(ptr::null_mut(), Ordering::Relaxed));
}

/// What the running call of a plugin's life is.
struct Call {
    plugin: *const str,
    facts: *const PluginFacts,
    step: &'static str,
}

/// Runs a call of a plugin's life (`load`, `core_init`, …) as this plugin's.
pub(super) fn during<T>(plugin: &str, facts: &PluginFacts, step: &'static str, call: impl FnOnce() -> T) -> T {
    let mut noted = Call { plugin, facts, step };
    STEP.with(|step| step.store(&raw mut noted, Ordering::Relaxed));
    compiler_fence(Ordering::SeqCst);
    let result = call();
    compiler_fence(Ordering::SeqCst);
    STEP.with(|step| step.store(ptr::null_mut(), Ordering::Relaxed));
    result
}

/// What runs on this thread.
///
/// # Safety
/// Only for the handler of a signal of this thread that never returns to what it interrupted, or for code that a hook
/// calls: what the answer points to is valid while the call lasts.
pub unsafe fn running<'a>() -> Option<Running<'a>> {
    let frame = HOOK.with(|hook| hook.load(Ordering::Relaxed));
    if !frame.is_null() {
        // SAFETY: between `enter` and `leave`, as the caller promises.
        return unsafe { Frame::running(frame) };
    }
    let call = STEP.with(|step| step.load(Ordering::Relaxed));
    // SAFETY: null, or it stands on this thread's stack until `during` returns.
    let call = unsafe { call.as_ref() }?;
    // SAFETY: borrowed by `during` for as long as it runs.
    let (plugin, facts) = unsafe { (&*call.plugin, &*call.facts) };
    Some(Running { plugin, facts, step: call.step, link: None, request: None })
}
