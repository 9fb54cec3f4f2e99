//! The golden frames: exchanges that a dry run shows to every plugin. Each is what a parser accepts and a plugin may stumble over.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// One exchange, as it stands on the wire but for the transfer coding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its name, for people.
    pub name: String,
    /// The head of the request, with its empty line.
    pub request: Vec<u8>,
    /// The body of the request, in the pieces in which it arrives.
    pub request_body: Vec<Vec<u8>>,
    /// The head of the upstream's response; `None`: the upstream failed, and the gateway answers 502.
    pub response: Option<Vec<u8>>,
    /// The body of the response, in pieces.
    pub response_body: Vec<Vec<u8>>,
    /// The client's address; IPv4 addresses are mapped.
    pub peer: [u8; 16],
}

/// 192.0.2.7, of a network for documentation.
const PEER_V4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7];
/// 2001:db8::7, of a network for documentation.
const PEER_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
/// The client addresses of `on_accept`.
pub(super) const PEERS: [[u8; 16]; 2] = [PEER_V4, PEER_V6];

const OK: &str = "HTTP/1.1 200 OK\r\n";
const NO_BODY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// All of them. New ones go to the end.
pub fn golden() -> Vec<Sample> {
    vec![
        sample("minimal", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", &[], Some(NO_BODY), &[]),
        many_headers(),
        long_target(),
        obs_text(),
        sample(
            "split-bodies",
            "POST /upload HTTP/1.1\r\nhost: example.test\r\ntransfer-encoding: chunked\r\ncontent-type: text/plain\r\n\r\n",
            &[b"h", b"ello, ", &[b'x'; 4096], b"end", b""],
            Some("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/plain\r\n\r\n"),
            &[b"w", b"orl", &[b'y'; 5000], b"d\0", b""],
        ),
        sample(
            "whole-bodies",
            "PUT /thing?id=1 HTTP/1.1\r\nhost: example.test\r\ncontent-length: 17\r\ncontent-type: application/json\r\n\r\n",
            &[b"{\"key\": [1, 2]}\r\n"],
            Some("HTTP/1.1 201 Created\r\ncontent-length: 4\r\nlocation: /thing/1\r\n\r\n"),
            &[b"done"],
        ),
        // RFC 9112 allows each of these, and few senders use them.
        sample(
            "malformed-but-accepted",
            "\r\nGET http://EXAMPLE.test:80?q HTTP/1.1\r\nHost:\texample.test \t\r\nX-Empty:\r\nx-twice: a\r\nX-TWICE: b, ,c\r\nx_under: _\r\n!#$%&'*+-.^`|~: token\r\nCookie: a=1; ; =; b\r\nAccept: ,,\r\n\r\n",
            &[],
            Some(
                "HTTP/1.1 299 \r\nContent-Length: 0, 0\r\nX-Empty:\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nCache-Control: no-cache=\"set-cookie\", ,private\r\n\r\n",
            ),
            &[],
        ),
        sample("http-1.0", "GET /old HTTP/1.0\r\n\r\n", &[], Some("HTTP/1.0 200 OK\r\n\r\n"), &[b"until the end", b""]),
        sample("options-asterisk", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", &[], Some("HTTP/1.1 204 No Content\r\n\r\n"), &[]),
        sample("head", "HEAD /page HTTP/1.1\r\nhost: example.test\r\n\r\n", &[], Some("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"), &[]),
        Sample {
            peer: PEER_V6,
            ..sample("other-method", "BREW /pot HTTP/1.1\r\nhost: [2001:db8::1]:8080\r\n\r\n", &[], Some("HTTP/1.1 418 \r\ncontent-length: 0\r\n\r\n"), &[])
        },
        sample("upstream-failed", "GET /gone HTTP/1.1\r\nhost: example.test\r\n\r\n", &[], None, &[]),
    ]
}

fn sample(name: &str, request: &str, request_body: &[&[u8]], response: Option<&str>, response_body: &[&[u8]]) -> Sample {
    let pieces = |pieces: &[&[u8]]| pieces.iter().map(|piece| piece.to_vec()).collect();
    Sample {
        name: name.to_owned(),
        request: request.trim_start_matches("\r\n").into(),
        request_body: pieces(request_body),
        response: response.map(Into::into),
        response_body: pieces(response_body),
        peer: PEER_V4,
    }
}

/// 64 fields on both sides, those with ids among them.
fn many_headers() -> Sample {
    let fields: String = (0..61).map(|number| format!("x-field-{number}: value {number}\r\n")).collect();
    let request = format!("GET /many HTTP/1.1\r\nhost: example.test\r\n{fields}cookie: a=b\r\nauthorization: Basic dXNlcjpwYXNz\r\n\r\n");
    let response = format!("{OK}content-length: 0\r\n{fields}etag: \"x\"\r\nvary: *\r\n\r\n");
    sample("64-headers", &request, &[], Some(&response), &[])
}

/// 8000 bytes of target: what RFC 9112 §3 asks everyone to take.
fn long_target() -> Sample {
    let target = format!("/{}?{}", "a/%20".repeat(1000), "k=v&".repeat(749));
    debug_assert!(target.len() == 7998);
    sample("long-target", &format!("GET {target} HTTP/1.1\r\nhost: example.test\r\n\r\n"), &[], Some(NO_BODY), &[])
}

/// Bytes above 0x7f, which no charset explains (RFC 9110 §5.5).
fn obs_text() -> Sample {
    let all: Vec<u8> = (0x80..=0xff).collect();
    let mut request = b"GET /latin HTTP/1.1\r\nhost: example.test\r\nuser-agent: \xff\xfe\r\nx-bytes: ".to_vec();
    let mut response = b"HTTP/1.1 200 \xe9t\xe9\r\ncontent-length: 0\r\nx-bytes: ".to_vec();
    for head in [&mut request, &mut response] {
        head.extend_from_slice(&all);
        head.extend_from_slice(b"\tz\r\n\r\n");
    }
    Sample { request, response: Some(response), ..sample("obs-text", "", &[], None, &[]) }
}
