//! A plugin's own answer, written straight into the connection's send buffer.

use std::io;
use std::ptr::NonNull;

use ringway_abi::raw::SIDE_RESPONSE;

use crate::cx::CoreCx;
use crate::edit::add_header;
use crate::error::{HostError, length};
use crate::plugin::{Outcome, Verdict};

/// An answer in the making; from [`Cx::respond`](crate::Cx::respond). Framing is the gateway's, and Date unless it is set here.
///
/// Nothing is sent until the hook returns the verdict of [`Respond::send`]. An answer that is dropped is forgotten.
///
/// It implements [`io::Write`], so that `write!` and `serde_json::to_writer` go to the send buffer without a copy of the
/// body in between.
#[must_use = "an answer is sent only by returning the verdict of `send`"]
pub struct Respond<'a, 'h> {
    cx: &'a CoreCx<'h>,
    /// The room of the last `reserve`; `reserved.len()` bytes are initialized.
    reserved: Option<(NonNull<u8>, usize)>,
}

impl<'a, 'h> Respond<'a, 'h> {
    #[inline]
    pub(crate) fn begin(cx: &'a CoreCx<'h>, status: u16) -> Result<Self, HostError> {
        // SAFETY: `CoreCx::new`.
        HostError::check(unsafe { (cx.host().resp_begin)(cx.raw(), u32::from(status)) })?;
        Ok(Respond { cx, reserved: None })
    }

    /// Adds a header.
    pub fn header(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Self, HostError> {
        add_header(self.cx, SIDE_RESPONSE, name.as_ref(), value.as_ref())?;
        Ok(self)
    }

    /// Appends to the body.
    pub fn body(mut self, bytes: impl AsRef<[u8]>) -> Result<Self, HostError> {
        self.append(bytes.as_ref())?;
        Ok(self)
    }

    /// Room for `bytes` more body bytes in the send buffer, zeroed. Fill it from the front, then [`Respond::commit`].
    /// For bytes that exist already, [`Respond::body`] does not pay for the zeroing.
    ///
    /// ```
    /// # use ringway_sdk::prelude::*;
    /// # struct Digits;
    /// # impl Plugin for Digits {
    /// #     type Shared = (); type Scratch = ();
    /// #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
    /// #     fn core_init(_: &std::sync::Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Digits) }
    /// fn on_request(&mut self, cx: &mut Cx<'_, Self>, _: &RequestView) -> Outcome {
    ///     let mut answer = cx.respond(200)?;
    ///     let room = answer.reserve(10)?;
    ///     for (digit, byte) in (b'0'..).zip(room.iter_mut()) {
    ///         *byte = digit;
    ///     }
    ///     answer.commit(10)?;
    ///     answer.send()
    /// }
    /// # }
    /// ```
    pub fn reserve(&mut self, bytes: usize) -> Result<&mut [u8], HostError> {
        let room = self.reserve_raw(bytes)?;
        // SAFETY: the host gave `bytes` writable bytes at `room`.
        unsafe { room.write_bytes(0, bytes) };
        self.reserved = Some((room, bytes));
        // SAFETY: the bytes are initialized now and are this answer's alone until the next reserve, which needs
        // `&mut self` again.
        Ok(unsafe { std::slice::from_raw_parts_mut(room.as_ptr(), bytes) })
    }

    /// The first `bytes` reserved bytes are now body; the rest of the reservation is given up.
    pub fn commit(&mut self, bytes: usize) -> Result<&mut Self, HostError> {
        match self.reserved.take() {
            Some((_, reserved)) if bytes <= reserved => self.commit_raw(bytes)?,
            _ => return Err(HostError::BadArgument),
        }
        Ok(self)
    }

    /// The verdict that sends the answer.
    pub fn send(self) -> Outcome {
        Ok(Verdict::Respond)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HostError> {
        self.reserved = None;
        if bytes.is_empty() {
            return Ok(());
        }
        let room = self.reserve_raw(bytes.len())?;
        // SAFETY: the host gave that many writable bytes, and what a caller holds cannot overlap them: a slice from
        // `reserve` borrows `self`.
        unsafe { room.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        self.commit_raw(bytes.len())
    }

    fn reserve_raw(&mut self, bytes: usize) -> Result<NonNull<u8>, HostError> {
        self.reserved = None;
        let bytes = u32::try_from(bytes).map_err(|_| HostError::NoSpace)?;
        // SAFETY: `CoreCx::new`.
        NonNull::new(unsafe { (self.cx.host().resp_reserve)(self.cx.raw(), bytes) }).ok_or(HostError::NoSpace)
    }

    fn commit_raw(&mut self, bytes: usize) -> Result<(), HostError> {
        let bytes = u32::try_from(bytes).map_err(|_| HostError::NoSpace)?;
        // SAFETY: `CoreCx::new`; the bytes were reserved by the last reserve and are initialized.
        HostError::check(unsafe { (self.cx.host().resp_commit)(self.cx.raw(), bytes) })?;
        Ok(())
    }
}

impl io::Write for Respond<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        length(bytes).and_then(|_| self.append(bytes)).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
