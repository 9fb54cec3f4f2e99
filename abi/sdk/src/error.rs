//! What can go wrong: a host call that was refused ([`HostError`]) and a plugin that gives up ([`Fault`]).

use std::error::Error;
use std::fmt;

use ringway_abi::raw;

/// Why the gateway refused a call. Nothing was changed by the refused call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostError {
    /// `wants` of `export_plugin!` does not hold the bit for this call.
    NotDeclared,
    /// Not possible in the hook that is running.
    WrongHook,
    /// CR, LF or NUL in a value, a name that is not a token, or a target that HTTP forbids.
    BadBytes,
    /// A bound of the configuration was reached.
    NoSpace,
    /// No such header, upstream or id.
    NotFound,
    /// Framing and connection headers belong to the gateway.
    Forbidden,
    /// An argument is out of its range.
    BadArgument,
    /// A status that a later version of the ABI added.
    Other(i32),
}

impl HostError {
    /// The count that a non-negative status carries, or the error of a negative one.
    #[inline]
    pub(crate) fn check(status: i32) -> Result<u32, HostError> {
        match u32::try_from(status) {
            Ok(count) => Ok(count),
            Err(_) => Err(HostError::from_status(status)),
        }
    }

    #[cold]
    fn from_status(status: i32) -> HostError {
        match status {
            raw::ERR_NOT_DECLARED => HostError::NotDeclared,
            raw::ERR_WRONG_HOOK => HostError::WrongHook,
            raw::ERR_BAD_BYTES => HostError::BadBytes,
            raw::ERR_NO_SPACE => HostError::NoSpace,
            raw::ERR_NOT_FOUND => HostError::NotFound,
            raw::ERR_FORBIDDEN => HostError::Forbidden,
            raw::ERR_BAD_ARGUMENT => HostError::BadArgument,
            other => HostError::Other(other),
        }
    }

    /// The status that stands for this error in the ABI.
    #[cfg(feature = "testing")]
    pub(crate) fn status(self) -> i32 {
        match self {
            HostError::NotDeclared => raw::ERR_NOT_DECLARED,
            HostError::WrongHook => raw::ERR_WRONG_HOOK,
            HostError::BadBytes => raw::ERR_BAD_BYTES,
            HostError::NoSpace => raw::ERR_NO_SPACE,
            HostError::NotFound => raw::ERR_NOT_FOUND,
            HostError::Forbidden => raw::ERR_FORBIDDEN,
            HostError::BadArgument => raw::ERR_BAD_ARGUMENT,
            HostError::Other(other) => other,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostError::NotDeclared => "the gateway refused the call: `wants` of export_plugin! does not declare it",
            HostError::WrongHook => "the gateway refused the call: it is not possible in this hook",
            HostError::BadBytes => "the gateway refused the bytes: CR, LF or NUL in a value, a name that is not a token, or a forbidden target",
            HostError::NoSpace => "the gateway refused the call: a bound of the configuration was reached",
            HostError::NotFound => "the gateway knows no such header, upstream or id",
            HostError::Forbidden => "the gateway refused the header: framing and connection headers are its own, and a request keeps one Host",
            HostError::BadArgument => "the gateway refused an argument that is out of its range",
            HostError::Other(status) => return write!(f, "the gateway refused the call with status {status}"),
        })
    }
}

impl Error for HostError {}

/// Why a plugin gives up on loading or on an exchange. Made by `?` from any error, or from a string:
///
/// ```
/// # use ringway_sdk::Fault;
/// fn port(text: &str) -> Result<u16, Fault> {
///     let port: u16 = text.parse()?;
///     if port == 0 {
///         return Err("port must not be 0".into());
///     }
///     Ok(port)
/// }
/// assert_eq!(port("0").unwrap_err().to_string(), "port must not be 0");
/// ```
///
/// A hook that returns a fault has failed: one log line with the text, its edits are dropped, and the link's `on_error`
/// decides what the client sees.
pub struct Fault(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Fault {
    #[cold]
    fn from(error: E) -> Self {
        Fault(error.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A byte length as the ABI's `u32`.
#[inline]
pub(crate) fn length(bytes: &[u8]) -> Result<u32, HostError> {
    u32::try_from(bytes.len()).map_err(|_| HostError::NoSpace)
}
