//! Edits of a request or a response. Nothing takes effect until the hook returns; a refused edit changes nothing.

use ringway_abi::raw::{SIDE_REQUEST, SIDE_RESPONSE};

use crate::cx::CoreCx;
use crate::error::{HostError, length};

/// Edits of the request; from [`Cx::request_mut`](crate::Cx::request_mut). Needs `wants: [EDIT_REQUEST]`.
#[must_use = "call one of its methods to edit the request"]
pub struct RequestEdits<'a, 'h>(pub(crate) &'a CoreCx<'h>);

/// Edits of the response; from [`Cx::response_mut`](crate::Cx::response_mut). Needs `wants: [EDIT_RESPONSE]`.
#[must_use = "call one of its methods to edit the response"]
pub struct ResponseEdits<'a, 'h>(pub(crate) &'a CoreCx<'h>);

macro_rules! header_edits {
    ($side:expr) => {
        /// Replaces every header of this name by one. The place of the first is kept; a new one goes to the end.
        pub fn set_header(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<&mut Self, HostError> {
            set_header(self.0, $side, name.as_ref(), value.as_ref())?;
            Ok(self)
        }

        /// Adds one more header of this name.
        pub fn add_header(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<&mut Self, HostError> {
            add_header(self.0, $side, name.as_ref(), value.as_ref())?;
            Ok(self)
        }

        /// Removes every header of this name and says how many there were.
        pub fn remove_header(&mut self, name: impl AsRef<[u8]>) -> Result<u32, HostError> {
            remove_header(self.0, $side, name.as_ref())
        }
    };
}

impl RequestEdits<'_, '_> {
    header_edits!(SIDE_REQUEST);

    /// Replaces the target: path and query, in origin-form. Routing has been done and is not repeated.
    pub fn set_target(&mut self, target: impl AsRef<[u8]>) -> Result<&mut Self, HostError> {
        let target = target.as_ref();
        let len = length(target)?;
        // SAFETY: `CoreCx::new`; the bytes are copied before the call returns.
        HostError::check(unsafe { (self.0.host().target_set)(self.0.raw(), target.as_ptr(), len) })?;
        Ok(self)
    }

    /// Sends this exchange to another configured upstream. Needs `wants: [UPSTREAM]`, in `on_request` or
    /// `on_request_body`.
    pub fn set_upstream(&mut self, name: impl AsRef<[u8]>) -> Result<&mut Self, HostError> {
        let name = name.as_ref();
        let len = length(name)?;
        // SAFETY: as above.
        HostError::check(unsafe { (self.0.host().upstream_set)(self.0.raw(), name.as_ptr(), len) })?;
        Ok(self)
    }
}

impl ResponseEdits<'_, '_> {
    header_edits!(SIDE_RESPONSE);

    /// Replaces the status, 200 to 599.
    pub fn set_status(&mut self, status: u16) -> Result<&mut Self, HostError> {
        // SAFETY: `CoreCx::new`.
        HostError::check(unsafe { (self.0.host().status_set)(self.0.raw(), u32::from(status)) })?;
        Ok(self)
    }
}

fn set_header(cx: &CoreCx<'_>, side: u32, name: &[u8], value: &[u8]) -> Result<(), HostError> {
    let (name_len, value_len) = (length(name)?, length(value)?);
    // SAFETY: `CoreCx::new`; the bytes are copied before the call returns.
    HostError::check(unsafe { (cx.host().header_set)(cx.raw(), side, name.as_ptr(), name_len, value.as_ptr(), value_len) })?;
    Ok(())
}

pub(crate) fn add_header(cx: &CoreCx<'_>, side: u32, name: &[u8], value: &[u8]) -> Result<(), HostError> {
    let (name_len, value_len) = (length(name)?, length(value)?);
    // SAFETY: as above.
    HostError::check(unsafe { (cx.host().header_add)(cx.raw(), side, name.as_ptr(), name_len, value.as_ptr(), value_len) })?;
    Ok(())
}

fn remove_header(cx: &CoreCx<'_>, side: u32, name: &[u8]) -> Result<u32, HostError> {
    let name_len = length(name)?;
    // SAFETY: as above.
    HostError::check(unsafe { (cx.host().header_del)(cx.raw(), side, name.as_ptr(), name_len) })
}
