//! Log lines: formatted on the stack, cut at what the gateway keeps, so that logging never allocates.

use std::fmt;

/// How bad, or how chatty, a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = ringway_abi::raw::LOG_ERROR,
    /// Something is off, and the plugin goes on.
    Warn = ringway_abi::raw::LOG_WARN,
    /// What an operator wants to know by default.
    Info = ringway_abi::raw::LOG_INFO,
    /// What somebody who looks for a fault wants to know.
    Debug = ringway_abi::raw::LOG_DEBUG,
}

/// The bytes of one line that the gateway keeps.
pub(crate) const LINE_BYTES_MAX: usize = 1024;

/// A line of text on the stack. `filled <= LINE_BYTES_MAX`; what does not fit is dropped.
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    filled: usize,
}

impl Line {
    pub(crate) fn new() -> Self {
        Line { bytes: [0; LINE_BYTES_MAX], filled: 0 }
    }

    pub(crate) fn of(text: fmt::Arguments<'_>) -> Self {
        let mut line = Line::new();
        // Writing to a line cannot fail; a `Display` that reports an error leaves what it wrote so far.
        let _ = fmt::write(&mut line, text);
        line
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_BYTES_MAX - self.filled;
        let mut take = text.len().min(room);
        while !text.is_char_boundary(take) {
            take -= 1;
        }
        self.bytes[self.filled..self.filled + take].copy_from_slice(&text.as_bytes()[..take]);
        self.filled += take;
        Ok(())
    }
}

/// Logs an error through a [`Cx`](crate::Cx), [`CoreCx`](crate::CoreCx) or [`Loader`](crate::Loader):
/// `ringway_sdk::error!(cx, "no key for {user}")`.
#[macro_export]
macro_rules! error {
    ($to:expr, $($text:tt)+) => { $to.log($crate::Level::Error, ::core::format_args!($($text)+)) };
}

/// Logs a warning; see [`error!`](crate::error!).
#[macro_export]
macro_rules! warn {
    ($to:expr, $($text:tt)+) => { $to.log($crate::Level::Warn, ::core::format_args!($($text)+)) };
}

/// Logs a piece of information; see [`error!`](crate::error!).
#[macro_export]
macro_rules! info {
    ($to:expr, $($text:tt)+) => { $to.log($crate::Level::Info, ::core::format_args!($($text)+)) };
}

/// Logs a detail for fault finding; see [`error!`](crate::error!).
#[macro_export]
macro_rules! debug {
    ($to:expr, $($text:tt)+) => { $to.log($crate::Level::Debug, ::core::format_args!($($text)+)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_at_a_character() {
        let line = Line::of(format_args!("{}{}", "x".repeat(LINE_BYTES_MAX - 1), "é"));
        assert_eq!(line.bytes().len(), LINE_BYTES_MAX - 1);
        assert!(std::str::from_utf8(line.bytes()).is_ok());
    }
}
