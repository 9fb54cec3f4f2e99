//! Requests of a plugin's own to an upstream of the configuration, while its exchange waits.

use std::fmt;
use std::ptr::NonNull;

use ringway_abi::{outcall, raw};

use crate::cx::{CoreCx, Cx};
use crate::error::{HostError, length};
use crate::plugin::{Plugin, Verdict};

/// An upstream that the plugin asks; [`Loader::upstream`](crate::Loader::upstream) gives it. Needs `wants: [SUSPEND, OUTCALL]` and the hook `on_event`.
///
/// ```
/// # use std::sync::Arc;
/// # use ringway_sdk::prelude::*;
/// struct Asking { auth: Upstream }
/// impl Plugin for Asking {
///     type Shared = Upstream;
/// #   type Scratch = ();
///     fn load(loader: &mut Loader<'_>, _: &[u8]) -> Result<Upstream, Fault> { Ok(loader.upstream("auth")?) }
///     fn core_init(shared: &Arc<Upstream>, _: u32) -> Result<Self, Fault> { Ok(Asking { auth: **shared }) }
///
///     fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
///         let call = self.auth.call(cx, "GET", "/check")?;
///         Ok(call.header("x-original-uri", request.target())?.send(0)?)
///     }
///
///     fn on_event(&mut self, cx: &mut Cx<'_, Self>, event: Event<'_>) -> Outcome {
///         match event {
///             Event::Reply { reply: Ok(reply), .. } if reply.status() == 200 => Ok(Verdict::Continue),
///             _ => cx.respond(403)?.send(),
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Upstream {
    table: NonNull<outcall::Outcall>,
    number: u32,
}

// SAFETY: the table is constant and lives as long as the process; its functions need a `Cx`, which stays on its thread.
unsafe impl Send for Upstream {}
// SAFETY: as above.
unsafe impl Sync for Upstream {}

impl Upstream {
    /// # Safety
    /// `table` is the gateway's table of this extension.
    pub(crate) unsafe fn new(table: NonNull<outcall::Outcall>, number: u32) -> Self {
        Upstream { table, number }
    }

    fn table(&self) -> &'static outcall::Outcall {
        // SAFETY: `new`'s caller promised a table that lives as long as the process.
        unsafe { &*self.table.as_ptr() }
    }

    /// Begins a request with this method and target (path and query).
    pub fn call<'a, 'h, P: Plugin>(&self, cx: &'a mut Cx<'h, P>, method: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Result<Outcall<'a, 'h>, HostError> {
        let (method, target) = (method.as_ref(), target.as_ref());
        let (method_len, target_len) = (length(method)?, length(target)?);
        // SAFETY: the `rw_cx` of the running hook; the bytes are copied before the call returns.
        HostError::check(unsafe { (self.table().begin)(cx.raw(), self.number, method.as_ptr(), method_len, target.as_ptr(), target_len) })?;
        Ok(Outcall { upstream: *self, cx })
    }
}

/// A request that is being put together; see [`Upstream::call`]. One that is dropped is forgotten.
#[must_use = "a request is sent by `send`, when the hook returns its verdict"]
pub struct Outcall<'a, 'h> {
    upstream: Upstream,
    cx: &'a CoreCx<'h>,
}

impl Outcall<'_, '_> {
    /// Adds a header. Host is that of the upstream's server unless it is given here; Content-Length is the gateway's.
    pub fn header(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Self, HostError> {
        let (name, value) = (name.as_ref(), value.as_ref());
        let (name_len, value_len) = (length(name)?, length(value)?);
        // SAFETY: the `rw_cx` of the running hook; the bytes are copied before the call returns.
        HostError::check(unsafe { (self.upstream.table().header)(self.cx.raw(), name.as_ptr(), name_len, value.as_ptr(), value_len) })?;
        Ok(self)
    }

    /// Gives it a body.
    pub fn body(self, bytes: impl AsRef<[u8]>) -> Result<Self, HostError> {
        let bytes = bytes.as_ref();
        let len = length(bytes)?;
        // SAFETY: as above.
        HostError::check(unsafe { (self.upstream.table().body)(self.cx.raw(), bytes.as_ptr(), len) })?;
        Ok(self)
    }

    /// It is complete, and is sent when the hook returns this verdict; `token` comes back with [`Event::Reply`](crate::Event::Reply). A hook may send several.
    pub fn send(self, token: u64) -> Result<Verdict, HostError> {
        // SAFETY: as above.
        HostError::check(unsafe { (self.upstream.table().send)(self.cx.raw(), token) })?;
        Ok(Verdict::Suspend)
    }
}

/// Why an outcall has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoReply {
    /// No server of the upstream could be connected to, or took the request.
    Unreachable,
    /// `timeouts.connect`, `write_stall`, `first_byte` or `response_idle` passed.
    Timeout,
    /// The connection ended too early, or what came is not HTTP or passes a limit of heads.
    Broken,
    /// The request does not fit with what the gateway adds to it.
    NoSpace,
    /// A reason that a later version of the ABI added.
    Other(i32),
}

impl NoReply {
    pub(crate) fn of(status: i32) -> NoReply {
        match status {
            outcall::UNREACHABLE => NoReply::Unreachable,
            outcall::TIMEOUT => NoReply::Timeout,
            outcall::BROKEN => NoReply::Broken,
            raw::ERR_NO_SPACE => NoReply::NoSpace,
            other => NoReply::Other(other),
        }
    }

    /// The status that stands for it in the ABI.
    #[cfg(feature = "testing")]
    pub(crate) fn status(self) -> i32 {
        match self {
            NoReply::Unreachable => outcall::UNREACHABLE,
            NoReply::Timeout => outcall::TIMEOUT,
            NoReply::Broken => outcall::BROKEN,
            NoReply::NoSpace => raw::ERR_NO_SPACE,
            NoReply::Other(status) => status,
        }
    }
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoReply::Unreachable => "no server of the upstream took the request",
            NoReply::Timeout => "the reply did not come in time",
            NoReply::Broken => "the reply is broken",
            NoReply::NoSpace => "the request does not fit",
            NoReply::Other(status) => return write!(f, "there is no reply, with status {status}"),
        })
    }
}

impl std::error::Error for NoReply {}
