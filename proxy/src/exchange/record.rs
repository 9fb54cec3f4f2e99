//! What the logs say about an exchange: the access line at its end, and a line of the diagnostics for each fault.
//!
//! Every value that came from the network is written through [`Shown`]. Nothing here is read, measured or allocated while the access log
//! is off and nothing fails. The fields stand in `docs/logs.md`, which a test compares with what is written.
#![forbid(unsafe_code)]

use std::fmt;

use ringway_abi::ids::HeaderId;
use ringway_abi::view::{ORIGIN_PLUGIN, ORIGIN_UPSTREAM};
use tracing::field::{DisplayValue, display};

use super::core::{Program, Upstreams};
use super::io::{Reader, Writer};
use super::{Connection, Exchange, Peer, Reply};
use crate::clock;
use crate::error::{Fault, Level, UpstreamFault};
use crate::http1::bytes::is_token;
use crate::log_limit::{self, Budget};
use crate::plugin::frame::Frame;

/// Bytes of User-Agent that the access log keeps.
const USER_AGENT_BYTES_MAX: usize = 256;
/// Bytes of the Host, and of a target that was refused, that the access log keeps.
const TEXT_BYTES_MAX: usize = 512;
/// The longest method of a refused request that is shown.
const METHOD_BYTES_MAX: usize = 32;

/// Which server an exchange was sent to, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tried {
    /// Attempts so far.
    pub(super) attempts: u32,
    /// The upstream of the last one.
    pub(super) upstream: Option<u32>,
    /// Its server; `None` when none could be used.
    pub(super) server: Option<u32>,
}

impl Tried {
    fn names(self, program: &Program) -> (Option<&str>, Option<&str>) {
        let Some(upstream) = self.upstream.map(|id| id as usize) else { return (None, None) };
        let servers = program.servers.get(upstream).zip(self.server);
        let server = servers.and_then(|(servers, server)| servers.get(server as usize));
        (program.host.upstreams.get(upstream).map(String::as_str), server.map(String::as_str))
    }
}

impl Reply {
    /// The status for logs and counters: what was sent; where nothing was, what the fault stands for (499: the client had left); 0 when a plugin
    /// closed the connection without an answer.
    pub(super) fn told_status(&self) -> u16 {
        match (self.status, self.fault) {
            (0, Some(fault)) => fault.row().status,
            (status, _) => status,
        }
    }
}

impl<R: Reader, W: Writer, U: Upstreams> Connection<'_, R, W, U> {
    /// The access line of an exchange. Everything about the request is as the client sent it.
    pub(super) fn log_exchange(&self, exchange: &Exchange, frame: &Frame) {
        let (program, reply) = (&exchange.program, &exchange.reply);
        let view = frame.request().original_request();
        let (upstream, server) = exchange.tried.names(program);
        let origin = (reply.status != 0).then_some(match reply.origin {
            ORIGIN_UPSTREAM => "upstream",
            ORIGIN_PLUGIN => "plugin",
            _ => "gateway",
        });
        tracing::info!(
            target: "access",
            request_id = view.request_id(),
            listener = listener(program, self.peer),
            peer = %crate::address::Text::of(self.peer.address),
            peer_port = self.peer.port,
            method = shown(view.method(), METHOD_BYTES_MAX),
            target = shown(view.target(), usize::MAX),
            version = if exchange.facts.http10 { "1.0" } else { "1.1" },
            host = Some(view.authority()).filter(|host| !host.is_empty()).map(|host| shown(host, TEXT_BYTES_MAX)),
            user_agent = view.header(HeaderId::USER_AGENT).map(|value| shown(value, USER_AGENT_BYTES_MAX)),
            route = exchange.route.map(|at| program.routes[at].name.as_str()),
            upstream,
            server,
            attempts = Some(exchange.tried.attempts).filter(|attempts| *attempts > 0),
            status = reply.told_status(),
            origin,
            plugin = plugin(frame, reply),
            request_bytes = exchange.body.received,
            response_bytes = reply.sent,
            upstream_ms = Some(reply.upstream_ns).filter(|ns| *ns > 0).map(milliseconds),
            duration_ms = milliseconds(clock::monotonic_ns().saturating_sub(exchange.began_ns)),
            reason = reply.fault.map(|fault| fault.row().reason),
        );
    }

    /// The line of the diagnostics about what went wrong in an exchange, when it is over.
    pub(super) fn log_fault(&self, exchange: &Exchange, frame: &Frame, fault: Fault) {
        if !log_limit::admits_fault(fault) {
            return;
        }
        let row = fault.row();
        let (upstream, server) = exchange.tried.names(&exchange.program);
        log_limit::line!(
            row.level,
            request_id = frame.request().request().request_id(),
            peer = %crate::address::Text::of(self.peer.address),
            route = exchange.route.map(|at| exchange.program.routes[at].name.as_str()),
            plugin = plugin(frame, &exchange.reply),
            upstream,
            server,
            status = exchange.reply.told_status(),
            reason = row.reason,
            "{}",
            row.text
        );
    }

    /// A server failed, and the request goes to another one or there once more: the client does not see it.
    pub(super) fn log_retry(&self, exchange: &Exchange, fault: UpstreamFault) {
        if log_limit::admits(Budget::Upstream, Level::Warn) {
            let (upstream, server) = exchange.tried.names(&exchange.program);
            let request_id = self.frame.borrow().request().request().request_id();
            tracing::warn!(request_id, upstream, server, attempt = exchange.tried.attempts, reason = fault.row().reason, "tried again: {}", fault.row().text);
        }
    }
}

/// The access line of a request that was refused before it was understood: with what can be read of its first line.
pub(super) fn log_refused(program: &Program, peer: Peer, received: &[u8], fault: Fault) {
    let (method, target) = first_line(received);
    let row = fault.row();
    tracing::info!(
        target: "access",
        listener = listener(program, peer),
        peer = %crate::address::Text::of(peer.address),
        peer_port = peer.port,
        method = method.map(|method| shown(method, METHOD_BYTES_MAX)),
        target = target.map(|target| shown(target, TEXT_BYTES_MAX)),
        status = row.status,
        origin = "gateway",
        reason = row.reason,
    );
}

fn listener(program: &Program, peer: Peer) -> Option<&str> {
    program.listeners.get(usize::from(peer.listener)).map(String::as_str)
}

/// The plugin that answered, failed, or closed the connection.
fn plugin<'f>(frame: &'f Frame, reply: &Reply) -> Option<&'f str> {
    let by_plugin = match reply.fault {
        Some(Fault::Plugin(_)) => true,
        Some(_) => false,
        None => reply.status == 0 || reply.origin == ORIGIN_PLUGIN,
    };
    frame.culprit.filter(|_| by_plugin).map(|at| frame.link_name(at))
}

/// With three decimals.
fn milliseconds(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

/// Method and target, as far as these bytes begin like a request line.
fn first_line(bytes: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let word = |bytes: &[u8]| bytes.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n')).unwrap_or(bytes.len());
    let end = word(bytes);
    let method = &bytes[..end];
    if !is_token(method) || bytes.get(end) != Some(&b' ') || method.len() > METHOD_BYTES_MAX {
        return (None, None);
    }
    let rest = &bytes[end + 1..];
    let target = &rest[..word(rest)];
    (Some(method), (!target.is_empty()).then_some(target))
}

fn shown(bytes: &[u8], bytes_max: usize) -> DisplayValue<Shown<'_>> {
    display(Shown { bytes, bytes_max })
}

/// Bytes from the network, on one line of ASCII: other bytes and the backslash as `\xNN`. What is longer than its bound ends with `...`.
struct Shown<'a> {
    bytes: &'a [u8],
    bytes_max: usize,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: &u8| (b' '..=b'~').contains(byte) && *byte != b'\\';
        let mut rest = &self.bytes[..self.bytes.len().min(self.bytes_max)];
        while !rest.is_empty() {
            let plain = rest.iter().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
            // Plain bytes are ASCII.
            f.write_str(str::from_utf8(&rest[..plain]).unwrap_or_default())?;
            rest = &rest[plain..];
            if let Some((byte, behind)) = rest.split_first() {
                write!(f, "\\x{byte:02x}")?;
                rest = behind;
            }
        }
        if self.bytes.len() > self.bytes_max { f.write_str("...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_from_the_network_stay_on_their_line_and_can_be_told_apart() {
        let text = |bytes: &[u8], bytes_max: usize| Shown { bytes, bytes_max }.to_string();
        assert_eq!(text(b"/a b?c=\"d\"~", usize::MAX), "/a b?c=\"d\"~");
        assert_eq!(text(b"a\r\n\x1b[2J\0\x7f\\x00\xc3\xbc\xff", usize::MAX), "a\\x0d\\x0a\\x1b[2J\\x00\\x7f\\x5cx00\\xc3\\xbc\\xff");
        assert_eq!((text(b"abcd", 4), text(b"abcde", 4), text(b"", 4)), ("abcd".into(), "abcd...".into(), String::new()));
    }

    #[test]
    fn what_begins_like_a_request_line_is_read() {
        let read = |bytes: &'static str| first_line(bytes.as_bytes());
        assert_eq!(read("GET /a HTTP/1.1\r\nx"), (Some(&b"GET"[..]), Some(&b"/a"[..])));
        assert_eq!(read("\r\nGET /a"), (Some(&b"GET"[..]), Some(&b"/a"[..])));
        assert_eq!(read("GET  /a HTTP/1.1\r\n"), (Some(&b"GET"[..]), None));
        for none in ["", "GET", "GET\r\n", "\x16\x03\x01 x", " GET / HTTP/1.1", "A-METHOD-THAT-IS-LONGER-THAN-ANY-OTHER / HTTP/1.1"] {
            assert_eq!(read(none), (None, None), "{none:?}");
        }
    }

    #[test]
    fn milliseconds_have_three_decimals() {
        assert_eq!([0, 1, 999_999, 1_234_567, 60_000_000_000].map(milliseconds), [0.0, 0.0, 0.999, 1.234, 60_000.0]);
    }
}
