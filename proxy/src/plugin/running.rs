//! What of a plugin runs on this thread right now: what a crash record names, and what the watchdog looks at.
//!
//! Owns: one word per thread for hooks, one for the calls of a plugin's life, and the list of threads whose words others may look at.
//! Must not: allocate or lock while a hook is called or a signal handled: handlers read the words. A hook pays two stores
//! (`benches/README.md`), the rest is worked out only when somebody asks.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering, compiler_fence};
use std::sync::{Mutex, PoisonError};

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
    /// How many hooks of the link this worker has called, this one included: with frame and link it tells one call from all others. 0 for
    /// other calls than hooks.
    pub calls: u64,
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
/// Only for the handler of a signal of this thread, until it returns to what it interrupted, or for code that a hook
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
    Some(Running { plugin, facts, step: call.step, link: None, calls: 0, request: None })
}

/// A thread whose hooks are watched.
struct Watched {
    worker: u32,
    thread: libc::pid_t,
    hook: *const AtomicPtr<Frame>,
}

// SAFETY: the word is an atomic of a thread that lives while it is in the list: `Watching` takes it out before the thread ends.
unsafe impl Send for Watched {}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());

/// While it lives, others can look at the hooks of the thread that made it.
pub struct Watching {
    thread: libc::pid_t,
}

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|watched| watched.thread != self.thread);
    }
}

/// The hooks of this thread, that of a worker, can be looked at. The answer is not to leave the thread.
pub fn watching(worker: u32) -> Watching {
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    let hook = HOOK.with(ptr::from_ref);
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner).push(Watched { worker, thread, hook });
    Watching { thread }
}

/// What another thread sees of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Which worker.
    pub worker: u32,
    /// Its thread, which exists as long as this is looked at.
    pub thread: i32,
    /// The frame whose hook runs, to be compared only; 0 while none does.
    pub frame: usize,
}

/// Looks at every watched thread. None of them can end meanwhile.
pub fn look(mut each: impl FnMut(Glance)) {
    for watched in WATCHED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // SAFETY: the thread is in the list, which is locked, so it has not ended; the word is only read.
        let hook = unsafe { &*watched.hook };
        each(Glance { worker: watched.worker, thread: watched.thread, frame: hook.load(Ordering::Relaxed).addr() });
    }
}

/// The frame whose hook runs on this thread, as [`Glance`] shows it.
pub fn frame() -> usize {
    HOOK.with(|hook| hook.load(Ordering::Relaxed)).addr()
}
