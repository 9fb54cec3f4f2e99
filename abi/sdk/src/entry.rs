//! The C functions of the descriptor, generic over the plugin. The gateway calls them; nothing else does.
//!
//! Each of them runs inside [`panics::catch`]: a panic becomes `PANICKED` (or a failed load) and one log line.
//!
//! Who owns what: `load` gives the gateway one count of the `Arc` as the process state, `unload` takes it back.
//! `core_init` gives it a boxed [`Core`], `core_fini` takes it back. The gateway promises (`ringway.h`) that hooks of one
//! core are mutually exclusive and that host functions never call back into a plugin, so a hook's `&mut Core` is unique.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use ringway_abi::raw::{self, RawChunk, RawCx, RawLoader};
use ringway_abi::view::{RequestView, ResponseView};

use crate::cx::{CoreCx, Cx};
use crate::error::Fault;
use crate::event::{Accept, Chunk, Done};
use crate::line::{Level, Line};
use crate::loader::Loader;
use crate::panics;
use crate::plugin::{Outcome, Plugin};
use crate::wait::Event;

/// What `cx->core` leads to.
pub(crate) struct Core<P: Plugin> {
    pub(crate) plugin: P,
    pub(crate) shared: Arc<P::Shared>,
}

/// Marks a gateway thread while a value of it lives; see [`panics::quiet_hook`].
struct OnGatewayThread;

impl OnGatewayThread {
    fn new() -> Self {
        panics::enter_gateway_thread();
        OnGatewayThread
    }
}

impl Drop for OnGatewayThread {
    fn drop(&mut self) {
        panics::leave_gateway_thread();
    }
}

/// # Safety
/// The contract of `load` in `ringway.h`.
pub(crate) unsafe extern "C" fn load<P: Plugin>(
    host: *const raw::Host,
    raw_loader: *mut RawLoader,
    config: *const u8,
    config_len: u32,
    state: *mut *mut c_void,
) -> i32 {
    let (Some(host), Some(raw_loader)) = (NonNull::new(host.cast_mut()), NonNull::new(raw_loader)) else { return raw::ERR_BAD_ARGUMENT };
    // SAFETY: the contract; every version of the table begins with its size.
    if state.is_null() || (unsafe { (*host.as_ptr()).size } as usize) < size_of::<raw::Host>() {
        return raw::ERR_BAD_ARGUMENT;
    }
    panics::quiet_hook();
    let _thread = OnGatewayThread::new();
    // SAFETY: the contract: both live until this function returns.
    let mut loader = unsafe { Loader::new(host, raw_loader) };
    let loaded = panics::catch(|| {
        let config = if config.is_null() || config_len == 0 {
            b"{}".as_slice()
        } else {
            // SAFETY: the contract: `config_len` bytes for the length of this call.
            unsafe { std::slice::from_raw_parts(config, config_len as usize) }
        };
        P::load(&mut loader, config).map(Arc::new).map_err(line_of_fault)
    });
    match loaded {
        Ok(Ok(shared)) => {
            // SAFETY: `state` is not null, and the contract says that it can be written.
            unsafe { state.write(Arc::into_raw(shared).cast_mut().cast()) };
            raw::OK
        }
        Ok(Err(line)) | Err(line) => {
            loader.fail(&line);
            raw::ERR_BAD_ARGUMENT
        }
    }
}

/// # Safety
/// The contract of `unload`: `state` is what `load` stored, given back once.
pub(crate) unsafe extern "C" fn unload<P: Plugin>(state: *mut c_void) {
    if state.is_null() {
        return;
    }
    let _thread = OnGatewayThread::new();
    // There is nobody to report to: a panic in a destructor ends here.
    let _ = panics::catch(|| {
        // SAFETY: the contract.
        drop(unsafe { Arc::from_raw(state.cast::<P::Shared>()) });
    });
}

/// # Safety
/// The contract of `core_init`: `state` is what `load` stored, `core` can be written.
pub(crate) unsafe extern "C" fn core_init<P: Plugin>(
    host: *const raw::Host,
    raw_loader: *mut RawLoader,
    state: *mut c_void,
    worker: u32,
    core: *mut *mut c_void,
) -> i32 {
    let (Some(host), Some(raw_loader)) = (NonNull::new(host.cast_mut()), NonNull::new(raw_loader)) else { return raw::ERR_BAD_ARGUMENT };
    if state.is_null() || core.is_null() {
        return raw::ERR_BAD_ARGUMENT;
    }
    // SAFETY: the contract: both live until this function returns; `load` has looked at the size of the table.
    let mut loader = unsafe { Loader::new(host, raw_loader) };
    panics::enter_gateway_thread();
    let made = panics::catch(|| {
        let state = state.cast::<P::Shared>().cast_const();
        // SAFETY: the contract: the count that `load` gave away is alive until `unload`.
        unsafe { Arc::increment_strong_count(state) };
        // SAFETY: the count was added for this handle.
        let shared = unsafe { Arc::from_raw(state) };
        let ready = |mut plugin: P| plugin.core_ready(&mut loader).map(|()| plugin);
        P::core_init(&shared, worker).and_then(ready).map(|plugin| Box::new(Core { plugin, shared })).map_err(line_of_fault)
    });
    match made {
        Ok(Ok(made)) => {
            // SAFETY: `core` is not null, and the contract says that it can be written.
            unsafe { core.write(Box::into_raw(made).cast()) };
            raw::OK
        }
        Ok(Err(line)) | Err(line) => {
            panics::leave_gateway_thread();
            loader.fail(&line);
            raw::ERR_BAD_ARGUMENT
        }
    }
}

/// # Safety
/// The contract of `core_fini`: `core` is what `core_init` stored, given back once, after its last hook.
pub(crate) unsafe extern "C" fn core_fini<P: Plugin>(core: *mut c_void) {
    if core.is_null() {
        return;
    }
    let _ = panics::catch(|| {
        // SAFETY: the contract.
        drop(unsafe { Box::from_raw(core.cast::<Core<P>>()) });
    });
    panics::leave_gateway_thread();
}

#[cold]
fn line_of_fault(fault: Fault) -> Box<Line> {
    Box::new(Line::of(format_args!("{fault}")))
}

/// Runs a hook of an exchange.
///
/// # Safety
/// The contract of hooks: `raw` and what it leads to are valid until the hook returns, and `raw.core` is a `Core<P>`.
#[inline]
unsafe fn in_exchange<P: Plugin>(raw: *mut RawCx, hook: impl FnOnce(&mut P, &mut Cx<'_, P>) -> Outcome) -> u32 {
    let Some(raw) = NonNull::new(raw) else { return raw::ABORTED };
    let caught = panics::catch(|| {
        // SAFETY: the contract; see the module's words on uniqueness.
        let core = unsafe { (*raw.as_ptr()).core.cast::<Core<P>>().as_mut() };
        // SAFETY: the contract: a view lives for the hook.
        let request = unsafe { (*raw.as_ptr()).request.as_ref() };
        let (Some(core), Some(request)) = (core, request) else { return raw::ABORTED };
        // SAFETY: the contract; the scratch is this link's alone.
        let mut cx = unsafe { Cx::<P>::new(raw, &core.shared, request) };
        let outcome = hook(&mut core.plugin, &mut cx);
        verdict(&cx, outcome)
    });
    // SAFETY: the contract.
    caught.unwrap_or_else(|line| unsafe { panicked(raw, &line) })
}

/// Runs a hook outside exchanges.
///
/// # Safety
/// As for [`in_exchange`].
#[inline]
unsafe fn in_core<P: Plugin>(raw: *mut RawCx, hook: impl FnOnce(&mut P, &mut CoreCx<'_>) -> Outcome) -> u32 {
    let Some(raw) = NonNull::new(raw) else { return raw::ABORTED };
    let caught = panics::catch(|| {
        // SAFETY: the contract; see the module's words on uniqueness.
        let Some(core) = (unsafe { (*raw.as_ptr()).core.cast::<Core<P>>().as_mut() }) else { return raw::ABORTED };
        // SAFETY: the contract.
        let mut cx = unsafe { CoreCx::new(raw) };
        let outcome = hook(&mut core.plugin, &mut cx);
        verdict(&cx, outcome)
    });
    // SAFETY: the contract.
    caught.unwrap_or_else(|line| unsafe { panicked(raw, &line) })
}

/// Inside the catch, because a fault's `Display` and its destructor are the author's.
#[inline]
fn verdict(cx: &CoreCx<'_>, outcome: Outcome) -> u32 {
    match outcome {
        Ok(verdict) => verdict as u32,
        Err(fault) => {
            cx.log_line(Level::Error, &line_of_fault(fault));
            raw::ABORTED
        }
    }
}

/// # Safety
/// As for [`CoreCx::new`].
#[cold]
unsafe fn panicked(raw: NonNull<RawCx>, line: &Line) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { CoreCx::new(raw) }.log_line(Level::Error, line);
    raw::PANICKED
}

/// # Safety
/// The contract of hooks.
pub(crate) unsafe extern "C" fn on_accept<P: Plugin>(cx: *mut RawCx, event: *const raw::Accept) -> u32 {
    // SAFETY: the contract.
    let Some(accept) = (unsafe { event.as_ref() }) else { return raw::ABORTED };
    // SAFETY: the contract.
    unsafe { in_core::<P>(cx, |plugin, cx| plugin.on_accept(cx, Accept(*accept))) }
}

/// # Safety
/// The contract of hooks.
pub(crate) unsafe extern "C" fn on_request<P: Plugin>(cx: *mut RawCx, request: *const RequestView) -> u32 {
    // SAFETY: the contract.
    let Some(request) = (unsafe { request.as_ref() }) else { return raw::ABORTED };
    // SAFETY: the contract.
    unsafe { in_exchange::<P>(cx, |plugin, cx| plugin.on_request(cx, request)) }
}

/// # Safety
/// The contract of hooks.
pub(crate) unsafe extern "C" fn on_response<P: Plugin>(cx: *mut RawCx, response: *const ResponseView) -> u32 {
    // SAFETY: the contract.
    let Some(response) = (unsafe { response.as_ref() }) else { return raw::ABORTED };
    // SAFETY: the contract.
    unsafe { in_exchange::<P>(cx, |plugin, cx| plugin.on_response(cx, response)) }
}

macro_rules! chunk_hooks {
    ($($hook:ident),*) => {$(
        /// # Safety
        /// The contract of hooks.
        pub(crate) unsafe extern "C" fn $hook<P: Plugin>(cx: *mut RawCx, chunk: *const RawChunk) -> u32 {
            // SAFETY: the contract.
            let Some(chunk) = (unsafe { chunk.as_ref() }) else { return raw::ABORTED };
            // SAFETY: the contract: the bytes live and stay until the hook returns.
            let chunk = unsafe { Chunk::new(chunk) };
            // SAFETY: the contract.
            unsafe { in_exchange::<P>(cx, |plugin, cx| plugin.$hook(cx, chunk)) }
        }
    )*};
}

chunk_hooks!(on_request_chunk, on_request_body, on_response_chunk);

/// # Safety
/// The contract of hooks.
pub(crate) unsafe extern "C" fn on_event<P: Plugin>(cx: *mut RawCx, event: *const raw::RawEvent) -> u32 {
    // SAFETY: the contract.
    let Some(event) = (unsafe { event.as_ref() }) else { return raw::ABORTED };
    // SAFETY: the contract: what it shows lives until the hook returns.
    let Some(event) = (unsafe { Event::of(event) }) else { return raw::ABORTED };
    // SAFETY: the contract.
    unsafe { in_exchange::<P>(cx, |plugin, cx| plugin.on_event(cx, event)) }
}

/// # Safety
/// The contract of hooks.
pub(crate) unsafe extern "C" fn on_done<P: Plugin>(cx: *mut RawCx, done: *const raw::Done) -> u32 {
    // SAFETY: the contract.
    let Some(done) = (unsafe { done.as_ref() }) else { return raw::ABORTED };
    let hook = |plugin: &mut P, cx: &mut Cx<'_, P>| {
        plugin.on_done(cx, Done(*done));
        Ok(crate::Verdict::Continue)
    };
    // SAFETY: the contract.
    unsafe { in_exchange::<P>(cx, hook) }
}

/// # Safety
/// The contract of hooks.
pub(crate) unsafe extern "C" fn on_tick<P: Plugin>(cx: *mut RawCx, _: *const raw::Tick) -> u32 {
    let hook = |plugin: &mut P, cx: &mut CoreCx<'_>| {
        plugin.on_tick(cx);
        Ok(crate::Verdict::Continue)
    };
    // SAFETY: the contract.
    unsafe { in_core::<P>(cx, hook) }
}
