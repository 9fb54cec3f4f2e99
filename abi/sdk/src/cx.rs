//! What a running hook can do: [`CoreCx`] outside exchanges, [`Cx`] inside one.
//!
//! `'h` is the lifetime of the running hook. It is anonymous in every hook's signature, so nothing that borrows from the
//! gateway can be kept: not in `self`, not in a static, not on another thread.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr::NonNull;

use ringway_abi::raw::{self, RawCx};
use ringway_abi::view::{RequestView, ResponseView};

use crate::edit::{RequestEdits, ResponseEdits};
use crate::error::{HostError, length};
use crate::export::{Counter, Gauge};
use crate::line::{Level, Line};
use crate::loader::Prebuilt;
use crate::plugin::{Outcome, Plugin, Verdict};
use crate::respond::Respond;

/// The gateway's side of a running hook: logging, metrics, clocks. All that `on_accept` and `on_tick` have; every
/// [`Cx`] has it too.
pub struct CoreCx<'h> {
    raw: NonNull<RawCx>,
    is_default: Cell<bool>,
    hook: PhantomData<&'h ()>,
}

/// The gateway's side of a hook that runs inside an exchange.
///
/// The request and the response are shown by reference for as long as the hook runs (`'h`); edits do not change what the
/// hook sees, so reading and editing can be mixed freely:
///
/// ```
/// # use ringway_sdk::prelude::*;
/// # struct Mirror;
/// # impl Plugin for Mirror {
/// #     type Shared = (); type Scratch = ();
/// #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
/// #     fn core_init(_: &std::sync::Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Mirror) }
/// fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
///     if let Some(agent) = request.header(HeaderId::USER_AGENT) {
///         cx.request_mut().set_header("x-agent", agent)?;
///     }
///     Ok(Verdict::Continue)
/// }
/// # }
/// ```
pub struct Cx<'h, P: Plugin> {
    core: CoreCx<'h>,
    shared: &'h P::Shared,
    request: &'h RequestView,
}

impl<'h, P: Plugin> Cx<'h, P> {
    /// # Safety
    /// As for [`CoreCx::new`]; and if `P::Scratch` has a size, `raw.scratch` leads to a value of it that nobody else
    /// uses during `'h`.
    #[inline]
    pub(crate) unsafe fn new(raw: NonNull<RawCx>, shared: &'h P::Shared, request: &'h RequestView) -> Self {
        // SAFETY: the caller's promise.
        let core = unsafe { CoreCx::new(raw) };
        Cx { core, shared, request }
    }

    /// The request of this exchange, as the hook before left it.
    #[inline]
    pub fn request(&self) -> &'h RequestView {
        self.request
    }

    /// The response of this exchange; `None` while there is none.
    #[inline]
    pub fn response(&self) -> Option<&'h ResponseView> {
        // SAFETY: `CoreCx::new`'s caller promised that the fields of `raw` are valid; a view lives for the hook.
        unsafe { (*self.core.raw.as_ptr()).response.as_ref() }
    }

    /// What [`Plugin::load`] made.
    #[inline]
    pub fn shared(&self) -> &'h P::Shared {
        self.shared
    }

    /// This plugin's data of this exchange; all zero when the exchange began.
    #[inline]
    pub fn scratch(&mut self) -> &mut P::Scratch {
        if size_of::<P::Scratch>() == 0 {
            // SAFETY: a zero-sized value needs no memory, only an aligned address.
            return unsafe { NonNull::dangling().as_mut() };
        }
        // SAFETY: the fields of `raw` are valid.
        let scratch = unsafe { (*self.core.raw.as_ptr()).scratch };
        let mut scratch = NonNull::new(scratch.cast::<P::Scratch>()).expect("the gateway gives scratch to a plugin whose descriptor asks for it");
        // SAFETY: the descriptor asks for `size_of::<P::Scratch>()` zeroed bytes, aligned to 16, which is enough
        // (asserted in `export`); zero is valid (`Zeroed`); the borrow of `self` makes this the only reference.
        unsafe { scratch.as_mut() }
    }

    /// Edits of the request. They take effect when the hook returns.
    #[inline]
    pub fn request_mut(&mut self) -> RequestEdits<'_, 'h> {
        RequestEdits(&self.core)
    }

    /// Edits of the response. They take effect when the hook returns.
    #[inline]
    pub fn response_mut(&mut self) -> ResponseEdits<'_, 'h> {
        ResponseEdits(&self.core)
    }

    /// Begins an answer of this plugin's own; what an earlier call began in this hook is forgotten. Needs
    /// `wants: [RESPOND]`.
    ///
    /// ```
    /// # use ringway_sdk::prelude::*;
    /// # struct Closed;
    /// # impl Plugin for Closed {
    /// #     type Shared = (); type Scratch = ();
    /// #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
    /// #     fn core_init(_: &std::sync::Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Closed) }
    /// fn on_request(&mut self, cx: &mut Cx<'_, Self>, _: &RequestView) -> Outcome {
    ///     cx.respond(503)?.header("retry-after", "60")?.body("closed for lunch\n")?.send()
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn respond(&mut self, status: u16) -> Result<Respond<'_, 'h>, HostError> {
        Respond::begin(&self.core, status)
    }

    /// Answers with a response that was laid out by [`Loader::prebuild`](crate::Loader::prebuild).
    #[inline]
    pub fn respond_prebuilt(&mut self, response: Prebuilt) -> Outcome {
        // SAFETY: `CoreCx::new`.
        HostError::check(unsafe { (self.core.host().resp_prebuilt)(self.core.raw(), response.0) })?;
        Ok(Verdict::Respond)
    }

    /// Replaces the bytes that the running body hook was shown; no bytes removes them. Needs `wants:
    /// [EDIT_REQUEST_BODY]` or `[EDIT_RESPONSE_BODY]`.
    pub fn replace_body(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), HostError> {
        let bytes = bytes.as_ref();
        // SAFETY: `CoreCx::new`; the bytes are copied before the call returns.
        HostError::check(unsafe { (self.core.host().body_replace)(self.core.raw(), bytes.as_ptr(), bytes.len() as u64) })?;
        Ok(())
    }

    /// Memory of the exchange, 16-byte aligned, not initialized. Usable until the hook returns; [`Cx::keep`] is for what
    /// a later hook of the same exchange needs.
    pub fn alloc(&self, bytes: usize) -> Result<&'h mut [MaybeUninit<u8>], HostError> {
        let size = u32::try_from(bytes).map_err(|_| HostError::NoSpace)?;
        // SAFETY: `CoreCx::new`.
        let memory = unsafe { (self.core.host().alloc)(self.core.raw(), size) };
        let memory = NonNull::new(memory.cast::<MaybeUninit<u8>>()).ok_or(HostError::NoSpace)?;
        // SAFETY: the host gave `size` bytes to this call alone, and they live as long as the exchange.
        Ok(unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), bytes) })
    }

    /// Copies bytes into the exchange's memory, for a later hook of this exchange: put the result into the scratch and
    /// give it to [`Cx::kept`] there.
    pub fn keep(&self, bytes: &[u8]) -> Result<Kept, HostError> {
        let len = length(bytes)?;
        let memory = self.alloc(bytes.len())?;
        memory.write_copy_of_slice(bytes);
        Ok(Kept { at: memory.as_ptr().cast(), len, request_id: self.request.request_id() })
    }

    /// The bytes behind `kept`; `None` when it is all zero or comes from another exchange.
    pub fn kept(&self, kept: Kept) -> Option<&'h [u8]> {
        if kept.at.is_null() || kept.request_id != self.request.request_id() {
            return None;
        }
        // SAFETY: only `keep` makes a `Kept` with an address, from initialized bytes that nobody changes and that live
        // as long as the exchange with this id; ids are unique in the process, so this is that exchange.
        Some(unsafe { std::slice::from_raw_parts(kept.at, kept.len as usize) })
    }
}

impl<'h, P: Plugin> Deref for Cx<'h, P> {
    type Target = CoreCx<'h>;

    #[inline]
    fn deref(&self) -> &CoreCx<'h> {
        &self.core
    }
}

impl<'h> CoreCx<'h> {
    /// # Safety
    /// For all of `'h`: `raw` leads to the `rw_cx` of the running hook, its fields are valid as `ringway.h` says, and
    /// its `host` is a table of at least ABI 1.0.
    #[inline]
    pub(crate) unsafe fn new(raw: NonNull<RawCx>) -> Self {
        CoreCx { raw, is_default: Cell::new(false), hook: PhantomData }
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut RawCx {
        self.raw.as_ptr()
    }

    #[inline]
    pub(crate) fn host(&self) -> &'h raw::Host {
        // SAFETY: `new`'s caller promised a valid table.
        unsafe { &*(*self.raw.as_ptr()).host }
    }

    /// What a hook does that its author did not write; the test host looks for the note.
    pub(crate) fn note_default(&self) -> Outcome {
        self.is_default.set(true);
        Ok(Verdict::Continue)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn is_default(&self) -> bool {
        self.is_default.get()
    }

    /// The coarse clock, nanoseconds since the epoch; a few milliseconds of resolution, free to read.
    #[inline]
    pub fn now_unix_ns(&self) -> u64 {
        // SAFETY: `new`'s caller promised valid fields.
        unsafe { (*self.raw.as_ptr()).now_unix_ns }
    }

    /// The precise clock, nanoseconds since the epoch. Costs about ten times a hook call.
    pub fn precise_unix_ns(&self) -> u64 {
        // SAFETY: `new`.
        unsafe { (self.host().now_unix_ns)(self.raw()) }
    }

    /// Index of the worker that runs the hook.
    #[inline]
    pub fn worker(&self) -> u32 {
        // SAFETY: `new`'s caller promised valid fields.
        unsafe { (*self.raw.as_ptr()).worker }
    }

    /// Index of the link in its chain.
    #[inline]
    pub fn link(&self) -> u32 {
        // SAFETY: `new`'s caller promised valid fields.
        unsafe { (*self.raw.as_ptr()).link }
    }

    /// Adds to a counter, for this worker.
    #[inline]
    pub fn add(&self, counter: Counter, delta: u64) {
        // SAFETY: `new`. The call fails only for an index that the descriptor does not hold, and `export_plugin!` makes
        // the indices.
        let _ = unsafe { (self.host().metric_add)(self.raw(), counter.0, delta) };
    }

    /// Sets a gauge, for this worker.
    #[inline]
    pub fn set(&self, gauge: Gauge, value: u64) {
        // SAFETY: as for `add`.
        let _ = unsafe { (self.host().metric_set)(self.raw(), gauge.0, value) };
    }

    /// One log line with the plugin's name and the request id; at most 1,024 bytes are kept. The macros
    /// [`error!`](crate::error!), [`warn!`](crate::warn!), [`info!`](crate::info!) and [`debug!`](crate::debug!) call it.
    pub fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        self.log_line(level, &Line::of(text));
    }

    pub(crate) fn log_line(&self, level: Level, line: &Line) {
        let bytes = line.bytes();
        // SAFETY: `new`; a line is shorter than 4 GiB, and the host copies it before it returns.
        unsafe { (self.host().log)(self.raw(), level as u32, bytes.as_ptr(), bytes.len() as u32) };
    }
}

/// Bytes in the exchange's memory, for a later hook. All zero means "nothing".
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    at: *const u8,
    len: u32,
    request_id: u64,
}

// SAFETY: a null pointer and zeros are valid, and `Cx::kept` takes them for "nothing".
unsafe impl crate::Zeroed for Kept {}
