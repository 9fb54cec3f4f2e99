//! The head parsers' interface: what goes in, what comes out.
//!
//! [`parse_request`] and [`parse_response`] write the view's entries and root where they stand: building the view is the parse
//! (DESIGN P1). What the exchange needs to know beyond the view comes back as [`RequestFacts`] and [`ResponseFacts`].
//! The order of reading: this file, `request`, `response`, then `fields`, `bits`.
//!
//! Invariants:
//! - the answer to a head does not depend on the pieces in which it arrives (tested in every split);
//! - a head that arrives in pieces is parsed at most a few times per line, as long as its [`HeadProgress`] is kept;
//! - on `Ok(Some(_))` every span of entries and root lies in the first `head_bytes` of the area, and `rkyv::access` accepts the slot.
#![forbid(unsafe_code)]

use ringway_abi::raw::{RawHeader, RawRequest, RawResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::Scan;
use super::bytes::{TARGET, is};
pub use super::entry_set::EntrySet;
use super::fields::{Awaited, Rules};
use super::names::NameTable;
use super::simd::Fill;
use super::{request, response};
use crate::error::{ClientFault, UpstreamFault};

/// Bounds of one head. Each has its own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, with its empty line.
    pub head_bytes: usize,
    /// Bytes of a request target.
    pub target_bytes: usize,
    /// Field lines; at most 254.
    pub fields: usize,
    /// Bytes of one field line without its CRLF; at most 65,535.
    pub line_bytes: usize,
    /// Bytes of a method.
    pub method_bytes: usize,
    /// What happens to field names with `_`.
    pub underscores: UnderscorePolicy,
}

impl Default for HeadLimits {
    // RFC 9112 §3: "It is RECOMMENDED that all HTTP senders and recipients support, at a minimum, request-line lengths of 8000 octets".
    fn default() -> HeadLimits {
        HeadLimits { head_bytes: 32 << 10, target_bytes: 8 << 10, fields: 100, line_bytes: 16 << 10, method_bytes: 32, underscores: UnderscorePolicy::Keep }
    }
}

/// What happens to field names with `_`. Names that look like framing or trusted fields are dropped at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnderscorePolicy {
    /// They are forwarded.
    #[default]
    Keep,
    /// They are not forwarded.
    Drop,
    /// The message is a fault.
    Reject,
}

/// What an unfinished head waits for, and how far it has been looked for. One per message; `default()` for a new one.
///
/// A head is parsed from its start again when what the last attempt waited for has come, at most three times per line: bytes
/// that arrive one by one cost one look each and not a parse each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadProgress {
    searched: usize,
    awaited: Awaited,
    /// Attempts that could say nothing.
    pub(super) attempts: u32,
}

/// The receive area: `bytes[..filled]` has been received, the message at hand begins at `bytes[0]`. What lies behind `filled` is
/// initialised and may be read in blocks of 64 bytes, but never matters.
#[derive(Debug, Clone, Copy)]
pub struct Area<'a> {
    /// The whole area.
    pub bytes: &'a [u8],
    /// Bytes received; `filled <= bytes.len()`.
    pub filled: usize,
}

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    None,
    /// So many bytes, more than 0.
    Length(u64),
    /// Chunked.
    Chunked,
}

/// How the body of a response is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// There is none.
    None,
    /// So many bytes, more than 0.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Everything until the upstream closes.
    UntilClose,
}

/// The form of a request target. RFC 9112 §3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `host:port`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// What the exchange needs to know of a request, beyond the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    /// Bytes from the start of the area to the end of the empty line; the body or the next message follows.
    pub head_bytes: u32,
    /// Where the body ends.
    pub body: RequestBody,
    /// The client is willing to go on after this exchange. An HTTP/1.0 client is when it says keep-alive; whether the gateway agrees
    /// is configuration.
    pub persist: bool,
    /// The client speaks HTTP/1.0.
    pub http10: bool,
    /// The client waits for 100 before it sends its body. Never true for HTTP/1.0 or without a body.
    pub expect_continue: bool,
    /// HTTP/1.1 with `Connection: upgrade` and one protocol in Upgrade, which is not h2c.
    pub upgrade: bool,
    /// `upgrade`, to websocket, and the request is a well-formed opening handshake. RFC 6455 §4.1.
    pub websocket: bool,
    /// The client accepts trailers.
    pub te_trailers: bool,
    /// Max-Forwards of OPTIONS and TRACE.
    pub max_forwards: Option<u32>,
    /// The form of the target.
    pub target_form: TargetForm,
    /// Host is present and differs from the authority of an absolute target.
    pub host_differs: bool,
    /// Lines that are not forwarded as received.
    pub dropped: EntrySet,
}

/// What a response answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseTo {
    /// The method of the request as it was sent.
    pub method_id: u8,
    /// The request that was sent asked for an upgrade.
    pub upgrade: bool,
}

/// What the exchange needs to know of a response, beyond the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFacts {
    /// Bytes from the start of the area to the end of the empty line.
    pub head_bytes: u32,
    /// 100..=599. Below 200 another head follows, unless `upgrade`.
    pub status: u16,
    /// Where the body ends.
    pub body: ResponseBody,
    /// The upstream connection may be used again once the body has been read.
    pub persist: bool,
    /// The upstream speaks HTTP/1.0.
    pub http10: bool,
    /// 101 to a request that asked for it: what follows is a tunnel.
    pub upgrade: bool,
    /// 2xx to CONNECT: what follows is a tunnel.
    pub tunnel: bool,
    /// Lines that are not forwarded as received.
    pub dropped: EntrySet,
}

/// Parses a request head at the start of `area`. `None`: more bytes are needed.
///
/// Sets every field of `root` except `request_id`, `received_unix_ns`, `peer_addr`, `peer_port` and `listener`; `body` becomes empty.
/// After a fault the connection cannot be used any more: where the next message begins is not known.
///
/// # Errors
/// The first fault from left to right, then those of the head as a whole.
pub fn parse_request(
    area: Area<'_>,
    limits: &HeadLimits,
    names: &NameTable,
    entries: &mut [RawHeader],
    root: &mut RawRequest,
    progress: &mut HeadProgress,
) -> Result<Option<RequestFacts>, ClientFault> {
    request::parse(area, Rules { limits, names, fill: Fill::best() }, entries, root, progress)
}

/// Parses a response head at the start of `area`. `None`: more bytes are needed.
///
/// Sets every field of `root` except `request_id` and `upstream_ns`; `body` becomes empty.
///
/// # Errors
/// The first fault from left to right, then those of the head as a whole. The upstream connection cannot be used any more.
pub fn parse_response(
    area: Area<'_>,
    limits: &HeadLimits,
    names: &NameTable,
    entries: &mut [RawHeader],
    root: &mut RawResponse,
    request: ResponseTo,
    progress: &mut HeadProgress,
) -> Result<Option<ResponseFacts>, UpstreamFault> {
    response::parse(area, Rules { limits, names, fill: Fill::best() }, entries, root, request, progress)
}

impl HeadProgress {
    /// Whether the bytes that have come since the last attempt cannot decide anything. They are looked at once.
    #[inline]
    pub(super) fn must_wait(&mut self, scan: &mut Scan<'_>) -> bool {
        if self.awaited == Awaited::Any {
            return false;
        }
        let end = scan.bytes().len();
        let came = match self.awaited {
            Awaited::Any => true,
            Awaited::NoToken(_) => scan.next_no_token(self.searched).is_some(),
            Awaited::NoTarget(_) => scan.bytes()[self.searched..].iter().any(|b| !is(*b, TARGET)),
            Awaited::Control(_) => scan.next_control(self.searched).is_some(),
        };
        self.searched = end;
        !came && !self.awaited.is_overdue(end)
    }

    /// The parser could say nothing about `bytes[..end]`.
    pub(super) fn wait_for(&mut self, awaited: Awaited, end: usize) {
        *self = HeadProgress { searched: end, awaited, attempts: self.attempts + 1 };
    }
}
