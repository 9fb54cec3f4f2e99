//! What a plugin can do while it loads.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use ringway_abi::ids::HeaderId;
use ringway_abi::raw::{self, RawLoader};

use crate::error::{HostError, length};
use crate::line::{Level, Line};
use crate::outcall::Upstream;
use crate::wait::Wait;

/// The gateway's side of a running [`Plugin::load`](crate::Plugin::load).
pub struct Loader<'l> {
    host: NonNull<raw::Host>,
    raw: NonNull<RawLoader>,
    load: PhantomData<&'l ()>,
}

/// A response that was laid out while loading; see [`Loader::prebuild`]. Keep it in `Shared`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prebuilt(pub(crate) u32);

impl Loader<'_> {
    /// # Safety
    /// For the lifetime of the result, `host` leads to a table of at least ABI 1.0 and `raw` to the running load or core_init.
    pub(crate) unsafe fn new(host: NonNull<raw::Host>, raw: NonNull<RawLoader>) -> Self {
        Loader { host, raw, load: PhantomData }
    }

    fn host(&self) -> &raw::Host {
        // SAFETY: `new`'s caller promised a valid table.
        unsafe { self.host.as_ref() }
    }

    /// The id for a header name, so that [`RequestView::header`](crate::RequestView::header) finds it in constant time:
    /// a fixed one, or one of the few that all plugins of the process share ([`HostError::NoSpace`] when all are taken).
    pub fn intern_header(&mut self, name: impl AsRef<[u8]>) -> Result<HeaderId, HostError> {
        let name = name.as_ref();
        let len = length(name)?;
        // SAFETY: `new`; the bytes are copied before the call returns.
        let id = HostError::check(unsafe { (self.host().intern_header)(self.raw.as_ptr(), name.as_ptr(), len) })?;
        u16::try_from(id).map(HeaderId).map_err(|_| HostError::BadArgument)
    }

    /// Lays a complete response out once, to be sent by [`Cx::respond_prebuilt`](crate::Cx::respond_prebuilt) without
    /// any work per request.
    ///
    /// ```
    /// # use ringway_sdk::prelude::*;
    /// fn load(loader: &mut Loader<'_>, _config: &[u8]) -> Result<Prebuilt, Fault> {
    ///     Ok(loader.prebuild(403, &[("content-type", "text/plain")], "no\n")?)
    /// }
    /// ```
    pub fn prebuild(&mut self, status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Result<Prebuilt, HostError> {
        let mut lines = Vec::new();
        for (name, value) in headers {
            // The lines are joined here, so a line break inside one must be found here too.
            if name.is_empty() || name.contains([':', '\r', '\n', '\0']) || value.contains(['\r', '\n', '\0']) {
                return Err(HostError::BadBytes);
            }
            for part in [name, ": ", value, "\r\n"] {
                lines.extend_from_slice(part.as_bytes());
            }
        }
        let body = body.as_ref();
        let (lines_len, body_len) = (length(&lines)?, length(body)?);
        // SAFETY: `new`; the bytes are copied before the call returns.
        let id = unsafe { (self.host().prebuilt_add)(self.raw.as_ptr(), u32::from(status), lines.as_ptr(), lines_len, body.as_ptr(), body_len) };
        Ok(Prebuilt(HostError::check(id)?))
    }

    /// One log line while loading; the macros [`info!`](crate::info!) and so on call it.
    pub fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        let line = Line::of(text);
        let bytes = line.bytes();
        // SAFETY: as above.
        unsafe { (self.host().load_log)(self.raw.as_ptr(), level as u32, bytes.as_ptr(), bytes.len() as u32) };
    }

    /// The table of a host extension by id ("ringway.NAME/N"); `None` when the gateway has none. It lives as long as the
    /// process. What it points to, and how it may be used, is the extension's own contract.
    pub fn extension(&self, id: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: `new`; `id` ends with NUL.
        NonNull::new(unsafe { (self.host().get_ext)(self.raw.as_ptr(), id.as_ptr()) }.cast_mut())
    }

    /// The gateway's way to wait without blocking; keep it in [`Plugin::Shared`](crate::Plugin::Shared).
    pub fn wait(&self) -> Result<Wait, HostError> {
        let table = self.extension(ringway_abi::wait::ID).ok_or(HostError::NotFound)?;
        // SAFETY: what the gateway gives for this id is its table, which lives as long as the process.
        Ok(unsafe { Wait::new(table.cast()) })
    }

    /// An upstream that the plugin asks itself. The configuration must have one of this name, now and after every reload: otherwise it is refused. Needs
    /// `wants: [SUSPEND, OUTCALL]`; keep it in [`Plugin::Shared`](crate::Plugin::Shared).
    pub fn upstream(&mut self, name: impl AsRef<[u8]>) -> Result<Upstream, HostError> {
        let table = self.extension(ringway_abi::outcall::ID).ok_or(HostError::NotFound)?.cast::<ringway_abi::outcall::Outcall>();
        let name = name.as_ref();
        let len = length(name)?;
        // SAFETY: what the gateway gives for this id is its table, which lives as long as the process; the bytes are copied before the call returns.
        let number = HostError::check(unsafe { (table.as_ref().upstream)(self.raw.as_ptr(), name.as_ptr(), len) })?;
        // SAFETY: as above.
        Ok(unsafe { Upstream::new(table, number) })
    }

    pub(crate) fn raw(&self) -> *mut RawLoader {
        self.raw.as_ptr()
    }

    /// Reports why load or core_init failed.
    pub(crate) fn fail(&self, line: &Line) {
        let bytes = line.bytes();
        // SAFETY: as above.
        unsafe { (self.host().load_error)(self.raw.as_ptr(), bytes.as_ptr(), bytes.len() as u32) };
    }
}
