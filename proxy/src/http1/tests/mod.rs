//! Tables of RFC cases. Each test names the rule of `proxy/docs/http1.md` that it shows; `testing` delivers each case whole, in
//! every split into two and byte by byte, with every filler.

mod connection;
mod differential;
mod fields;
mod framing;
mod response;
mod start_line;
mod write;

use super::testing::{SeenRequest, request};
use crate::error::ClientFault;

/// A request with this request line and a valid Host.
fn line(line: &str) -> Result<SeenRequest, ClientFault> {
    request(format!("{line}\r\nHost: h\r\n\r\n"))
}

/// A request with a valid Host and these lines, each with its line end.
fn with(lines: impl AsRef<[u8]>) -> Result<SeenRequest, ClientFault> {
    request([b"POST / HTTP/1.1\r\nHost: h\r\n", lines.as_ref(), b"\r\n"].concat())
}

/// Every case of a table is rejected, each with its reason.
fn rejects<'a, T: core::fmt::Debug, F: core::fmt::Debug + PartialEq + Copy>(parse: impl Fn(&'a str) -> Result<T, F>, cases: &[(&'a str, F)]) {
    for (case, fault) in cases {
        match parse(case) {
            Err(seen) => assert_eq!(seen, *fault, "{case:?}"),
            Ok(seen) => panic!("{case:?} is accepted: {seen:?}"),
        }
    }
}
