//! Rules 71 to 80: response heads, and rules 21 to 24, 26 on that side.

use ringway_abi::ids::{METHOD_CONNECT, METHOD_GET, METHOD_HEAD};
use ringway_abi::view::{RES_CHUNKED, RES_CLOSE_DELIMITED, RES_HAS_BODY};

use super::super::head::{HeadLimits, ResponseBody, ResponseTo};
use super::super::testing::{SeenResponse, response, response_with};
use super::rejects;
use crate::error::UpstreamFault::{self, *};

const GET: ResponseTo = ResponseTo { method_id: METHOD_GET, upgrade: false };
const HEAD: ResponseTo = ResponseTo { method_id: METHOD_HEAD, upgrade: false };
const CONNECT: ResponseTo = ResponseTo { method_id: METHOD_CONNECT, upgrade: false };
const UPGRADE: ResponseTo = ResponseTo { method_id: METHOD_GET, upgrade: true };

fn to(request: ResponseTo, status: u16, lines: &str) -> Result<SeenResponse, UpstreamFault> {
    let head = format!("HTTP/1.1 {status} X\r\n{lines}\r\n");
    response_with(head.as_bytes(), &HeadLimits::default(), request).map(|seen| seen.expect("a whole head"))
}

fn ok(lines: &str) -> Result<SeenResponse, UpstreamFault> {
    to(GET, 200, lines)
}

fn line(line: &str) -> Result<SeenResponse, UpstreamFault> {
    response(format!("{line}\r\nContent-Length: 0\r\n\r\n"))
}

#[test]
fn rule_71_status_lines() {
    for (start, version, status, reason) in [
        ("HTTP/1.1 200 OK", 11, 200, "OK"),
        ("HTTP/1.0 404 Not Found", 10, 404, "Not Found"),
        ("HTTP/1.2 599 ", 11, 599, ""),
        ("HTTP/1.1 299 a\tb  c ", 11, 299, "a\\tb  c "),
        ("HTTP/1.1 200 \u{e4}", 11, 200, "\\xc3\\xa4"),
    ] {
        let seen = line(start).unwrap();
        assert_eq!((seen.version, seen.facts.status, seen.reason.as_str()), (version, status, reason), "{start}");
    }
    rejects(
        line,
        &[
            ("HTTP/1.1 200", BadStatusLine),
            ("HTTP/1.1 20 OK", BadStatusLine),
            ("HTTP/1.1 2000 OK", BadStatusLine),
            ("HTTP/1.1 +20 OK", BadStatusLine),
            ("HTTP/1.1 2x0 OK", BadStatusLine),
            ("HTTP/1.1  200 OK", BadStatusLine),
            ("HTTP/1.1\t200 OK", BadStatusLine),
            ("HTTP/1.1 200\tOK", BadStatusLine),
            ("HTTP/1.1", BadStatusLine),
            ("HTTP/1.10 200 OK", BadStatusLine),
            ("http/1.1 200 OK", BadStatusLine),
            ("ICY 200 OK", BadStatusLine),
            (" HTTP/1.1 200 OK", BadStatusLine),
            ("\r\nHTTP/1.1 200 OK", BadStatusLine),
            ("", BadStatusLine),
            ("<html>", BadStatusLine),
            ("HTTP/2.0 200 OK", UnsupportedVersion),
            ("HTTP/0.9 200 OK", UnsupportedVersion),
            ("HTTP/1.1 099 OK", BadStatus),
            ("HTTP/1.1 000 OK", BadStatus),
            ("HTTP/1.1 600 OK", BadStatus),
            ("HTTP/1.1 999 OK", BadStatus),
            ("HTTP/1.1 200 O\0K", ControlByte),
            ("HTTP/1.1 200 O\x7fK", ControlByte),
            ("HTTP/1.1 200 O\rK", BareCarriageReturn),
            ("HTTP/1.1 200 O\nK", BareLineFeed),
        ],
    );
    assert_eq!(response("HTTP/1.1 200 OK\nA: b\n\n"), Err(BareLineFeed));
    // No need to wait for the end of the line.
    assert_eq!(response_with(b"SSH-2.0", &HeadLimits::default(), GET), Err(BadStatusLine));
    assert_eq!(response_with(b"HTTP/", &HeadLimits::default(), GET), Ok(None));
}

#[test]
fn rules_01_02_04_20_to_23_in_responses() {
    rejects(
        ok,
        &[
            (" A: b\r\n", SpaceBeforeFirstField),
            ("A : b\r\n", SpaceBeforeColon),
            ("A: b\r\n c\r\n", ObsFold),
            ("A: b\0c\r\n", ControlByte),
            ("A: b\nC: d\r\n", BareLineFeed),
            ("A: b\rC: d\r\n", BareCarriageReturn),
            ("A\r\n", MissingColon),
            (": b\r\n", EmptyFieldName),
            ("A\u{e4}: b\r\n", BadFieldName),
        ],
    );
    for fault in UpstreamFault::ALL {
        assert!((502..=504).contains(&fault.row().status));
    }
}

#[test]
fn rule_72_responses_without_a_body() {
    let framings = ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", ""];
    for framing in framings {
        for (request, status) in [(HEAD, 200), (HEAD, 404), (GET, 304), (GET, 204), (GET, 100), (GET, 103), (GET, 199)] {
            let seen = to(request, status, framing).unwrap();
            assert_eq!((seen.facts.body, seen.flags), (ResponseBody::None, 0), "{status} {framing:?}");
            let bare = status < 200 || status == 204;
            let length_passes = !bare && !framing.contains("Transfer");
            assert_eq!(!seen.dropped().contains(&"Content-Length"), length_passes || !framing.contains("Length"), "{status} {framing:?}");
            let length = if bare {
                0
            } else if framing == framings[0] {
                5
            } else {
                u64::MAX
            };
            assert_eq!(seen.content_length, length, "{status} {framing:?}");
        }
    }
    assert!(to(HEAD, 200, framings[0]).unwrap().facts.persist);
    assert!(to(HEAD, 200, "").unwrap().facts.persist);
    assert!(to(GET, 304, framings[0]).unwrap().facts.persist);
    assert!(to(GET, 204, "").unwrap().facts.persist);
    assert!(!to(GET, 204, framings[0]).unwrap().facts.persist, "a body may follow that must not be taken for a response");
    assert!(!to(GET, 204, framings[1]).unwrap().facts.persist);
}

#[test]
fn rule_73_tunnels() {
    let seen = to(CONNECT, 200, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n").unwrap();
    assert!(seen.facts.tunnel && seen.facts.body == ResponseBody::None);
    assert_eq!(seen.dropped(), ["Content-Length", "Transfer-Encoding"]);
    assert!(!to(GET, 200, "").unwrap().facts.tunnel);
    let refused = to(CONNECT, 403, "Content-Length: 5\r\n").unwrap();
    assert!(!refused.facts.tunnel && refused.facts.body == ResponseBody::Length(5));
}

#[test]
fn rule_74_coding_wins_over_length() {
    let seen = ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n").unwrap();
    assert_eq!((seen.facts.body, seen.facts.persist, seen.content_length), (ResponseBody::Chunked, false, u64::MAX));
    assert_eq!(seen.dropped(), ["Content-Length", "Transfer-Encoding"]);
    let alone = ok("Transfer-Encoding: chunked\r\n").unwrap();
    assert_eq!((alone.facts.body, alone.facts.persist, alone.flags), (ResponseBody::Chunked, true, RES_HAS_BODY | RES_CHUNKED));
    rejects(
        ok,
        &[
            ("Transfer-Encoding: gzip\r\n", ChunkedNotLast),
            ("Transfer-Encoding: gzip, chunked\r\n", UnknownTransferCoding),
            ("Transfer-Encoding: identity\r\n", BadTransferEncoding),
            ("Transfer-Encoding: chunked, chunked\r\n", RepeatedTransferEncoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", RepeatedTransferEncoding),
        ],
    );
    let old = response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old, Err(TransferEncodingInHttp10));
}

#[test]
fn rule_75_lengths() {
    rejects(
        ok,
        &[
            ("Content-Length: x\r\n", BadContentLength),
            ("Content-Length:\r\n", BadContentLength),
            ("Content-Length: -1\r\n", BadContentLength),
            ("Content-Length: 5, 6\r\n", ConflictingContentLength),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", ConflictingContentLength),
            ("Content-Length: 9223372036854775808\r\n", ContentLengthTooLarge),
            ("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", BadContentLength),
        ],
    );
    for merged in ["Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n", "Content-Length: 05\r\n"] {
        let seen = ok(merged).unwrap();
        assert_eq!((seen.facts.body, seen.facts.persist), (ResponseBody::Length(5), true), "{merged:?}");
        assert!(seen.dropped().iter().all(|name| *name == "Content-Length") && !seen.facts.dropped.is_empty());
    }
}

#[test]
fn rule_76_until_close() {
    let seen = ok("Connection: keep-alive\r\n").unwrap();
    assert_eq!((seen.facts.body, seen.facts.persist), (ResponseBody::UntilClose, false));
    assert_eq!((seen.flags, seen.content_length), (RES_HAS_BODY | RES_CLOSE_DELIMITED, u64::MAX));
}

#[test]
fn rule_77_and_84_switching_needs_to_be_asked_for() {
    let lines = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(to(GET, 101, lines), Err(UnexpectedUpgrade));
    let seen = to(UPGRADE, 101, lines).unwrap();
    assert!(seen.facts.upgrade && seen.facts.body == ResponseBody::None);
    let plain = to(UPGRADE, 200, "Content-Length: 5\r\n").unwrap();
    assert!(!plain.facts.upgrade && plain.facts.body == ResponseBody::Length(5), "a 200 means that plain HTTP goes on");
    assert_eq!(to(GET, 103, "Link: </a>\r\n").unwrap().facts.status, 103);
}

#[test]
fn rule_52_and_53_in_responses() {
    let seen = ok("Connection: close, X-A, Set-Cookie\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a\r\nProxy-Authenticate: b\r\nTrailer: c\r\n").unwrap();
    assert_eq!(seen.dropped(), ["Connection", "X-A", "Keep-Alive", "Proxy-Authenticate", "Trailer"]);
}

#[test]
fn rule_66_persistence_of_upstreams() {
    for (version, lines, persist) in
        [("1.1", "", true), ("1.1", "Connection: close\r\n", false), ("1.0", "", false), ("1.0", "Connection: Keep-Alive\r\n", true)]
    {
        let seen = response(format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{lines}\r\n")).unwrap();
        assert_eq!((seen.facts.persist, seen.facts.http10), (persist, version == "1.0"), "{version} {lines:?}");
    }
}

#[test]
fn rule_80_limits() {
    let limits = HeadLimits { head_bytes: 128, fields: 2, line_bytes: 40, ..HeadLimits::default() };
    let head = |rest: &str| response_with(format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes(), &limits, GET);
    assert!(head("A: b\r\nC: d\r\n\r\n").is_ok_and(|seen| seen.is_some()));
    assert_eq!(head("A: b\r\nC: d\r\nE: f\r\n\r\n"), Err(TooManyFields));
    assert_eq!(head(&format!("A: {}\r\n\r\n", "x".repeat(38))), Err(FieldTooLong));
    assert_eq!(response_with(&[b"HTTP/1.1 200 ", &[b'x'; 200][..]].concat(), &limits, GET), Err(HeadTooLarge));
    assert_eq!(HeadTooLarge.row().reason, "upstream_head_too_large");
}
