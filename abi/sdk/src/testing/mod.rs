//! A host for `cargo test`: the gateway's side of the ABI, without a gateway.
//!
//! Views are made from the owned twins with `rkyv::to_bytes`, so a hook reads the very layout that it reads in the
//! gateway. Hooks run through the C functions of the exported descriptor. The documented rules hold:
//!
//! - a call that `wants` does not declare fails with `NotDeclared`, and one in the wrong hook with `WrongHook`;
//! - CR, LF and NUL are refused, as are framing and connection headers;
//! - nothing takes effect until the hook returns, and nothing at all when it fails;
//! - a removed header stays as a tombstone in the entries;
//! - exchange memory is not zeroed, log lines are cut at 1,024 bytes, answers have a bound.
//!
//! [`TestHost::load`] also checks what the compiler cannot: that each hook that the plugin implements is listed in
//! `export_plugin!`.
//!
//! Use [`TestHost::serve`] for whole exchanges, [`TestHost::exchange`] for single hooks.

mod exchange;
mod host;
mod maps;
mod outcall_table;
mod probe;
mod rules;
mod table;
mod wait_table;

pub use exchange::{Answer, Exchange, Returned};
pub use host::{LoadFailed, LogLine, TestHost};
pub use outcall_table::SentCall;
pub use ringway_abi::{Header, Request, Response};

use ringway_abi::owned::Octets;
use ringway_abi::view::{REQ_BODY_COMPLETE, REQ_HAS_BODY, RES_BODY_COMPLETE, RES_CHUNKED, RES_HAS_BODY};

/// A request without a body, from 192.0.2.1. Change its public fields for anything else.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = Request::new(method.as_bytes(), target.as_bytes(), owned(headers));
    request.peer_addr = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    request.peer_port = 40_000;
    request.route = 0;
    request
}

/// Gives a request a body with a known length.
pub fn with_body(mut request: Request, body: &[u8]) -> Request {
    request.body = Octets(body.to_vec());
    request.content_length = body.len() as u64;
    request.flags |= REQ_BODY_COMPLETE | if body.is_empty() { 0 } else { REQ_HAS_BODY };
    request
}

/// A response of an upstream with a body of known length.
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut response = Response::new(status, owned(headers));
    response.body = Octets(body.to_vec());
    response.content_length = body.len() as u64;
    response.flags = RES_BODY_COMPLETE | if body.is_empty() { 0 } else { RES_HAS_BODY };
    response
}

/// Makes a response chunked: its length is not known, and `on_response` does not see body bytes.
pub fn chunked(mut response: Response) -> Response {
    response.content_length = u64::MAX;
    response.flags = RES_CHUNKED | RES_HAS_BODY;
    response
}

fn owned(headers: &[(&str, &str)]) -> Vec<Header> {
    headers.iter().map(|(name, value)| Header::new(name.as_bytes(), value.as_bytes())).collect()
}
