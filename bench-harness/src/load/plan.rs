//! What a load run does, as data: target, request bytes, connections, pace, end.
//!
//! `Plan` is what the engine is driven by; `compare` makes one directly, the command line through `LoadArgs`.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// After this time of measuring.
    After(Duration),
    /// After this many answers.
    Answers(u64),
}

/// One load run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to connect.
    pub address: SocketAddr,
    /// The bytes of one request, head and body.
    pub request: Arc<[u8]>,
    /// Whether the request is a HEAD, whose answer has no body.
    pub is_head: bool,
    /// Open connections, each with at most one request at a time.
    pub connections: usize,
    /// Requests per second for an open loop; `None` is a closed loop.
    pub rate: Option<f64>,
    /// Time before measuring starts.
    pub warm_up: Duration,
    /// When measuring ends.
    pub end: End,
    /// How long an answer may take, and how long a connect may.
    pub timeout: Duration,
    /// The status that every answer must have.
    pub expect_status: u16,
    /// The body length that every answer must have, when it is known.
    pub expect_bytes: Option<u64>,
    /// Threads, each with its share of the connections.
    pub threads: usize,
    /// The core of the first thread.
    pub core: Option<usize>,
}

/// Splits `http://host[:port]/path` into an address to connect to, the Host value and the path.
pub fn parse_url(url: &str) -> Result<(SocketAddr, String, String)> {
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("the URL {url:?} must begin with http:// (the harness measures without TLS)");
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/"),
    };
    let with_port =
        if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) { authority.to_owned() } else { format!("{authority}:80") };
    let address =
        with_port.to_socket_addrs().with_context(|| format!("resolving {with_port:?}"))?.next().with_context(|| format!("{with_port:?} has no address"))?;
    Ok((address, authority.to_owned(), path.to_owned()))
}

/// Lays out one request. Host, and Content-Length for a body, are added when `fields` does not name them.
pub fn request_bytes(method: &str, path: &str, host: &str, fields: &[String], body: &[u8]) -> Result<Vec<u8>> {
    if path.bytes().any(|byte| byte <= b' ') || method.bytes().any(|byte| byte <= b' ') || method.is_empty() {
        bail!("method {method:?} and path {path:?} must not hold spaces or control characters");
    }
    let names = |name: &str| fields.iter().any(|field| field.split(':').next().is_some_and(|word| word.trim().eq_ignore_ascii_case(name)));
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !names("host") {
        head.push_str(&format!("Host: {host}\r\n"));
    }
    for field in fields {
        if !field.contains(':') || field.contains(['\r', '\n']) {
            bail!("the header {field:?} must be one line of the form \"Name: value\"");
        }
        head.push_str(field.trim());
        head.push_str("\r\n");
    }
    if !body.is_empty() && !names("content-length") && !names("transfer-encoding") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_split_into_address_host_and_path() {
        let (address, host, path) = parse_url("http://127.0.0.1:8080/1k?x=1").expect("valid");
        assert_eq!((address.to_string().as_str(), host.as_str(), path.as_str()), ("127.0.0.1:8080", "127.0.0.1:8080", "/1k?x=1"));
        assert_eq!(parse_url("http://127.0.0.1").expect("valid").0.port(), 80);
        assert_eq!(parse_url("http://[::1]:81/").expect("valid").0.to_string(), "[::1]:81");
        assert!(parse_url("https://127.0.0.1/").is_err());
    }

    #[test]
    fn a_request_gets_what_it_needs_once() {
        let bytes = request_bytes("POST", "/x", "h", &["a: b".into()], b"body").expect("valid");
        assert_eq!(bytes, b"POST /x HTTP/1.1\r\nHost: h\r\na: b\r\nContent-Length: 4\r\n\r\nbody");
        let own = request_bytes("GET", "/", "h", &["HOST: mine".into()], b"").expect("valid");
        assert_eq!(own, b"GET / HTTP/1.1\r\nHOST: mine\r\n\r\n");
    }

    #[test]
    fn header_injection_is_refused() {
        assert!(request_bytes("GET", "/", "h", &["a: b\r\nc: d".into()], b"").is_err());
        assert!(request_bytes("GET", "/ x", "h", &[], b"").is_err());
        assert!(request_bytes("GET", "/", "h", &["no colon".into()], b"").is_err());
    }
}
