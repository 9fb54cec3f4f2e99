//! Rules 52 to 55, 58, 63, 64 and 82 to 86, as far as the parser's facts go.

use super::super::testing::{SeenRequest, request};
use super::{rejects, with};
use crate::error::ClientFault::*;

#[test]
fn rule_52_connection_and_what_it_names() {
    for (lines, dropped) in [
        ("Connection: X-A\r\nX-A: 1\r\nX-B: 2\r\nx-a: 3\r\n", &["Connection", "X-A", "x-a"][..]),
        ("X-A: 1\r\nConnection: close, x-A , foo\r\n", &["X-A", "Connection"]),
        ("Connection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 2\r\n", &["Connection", "Connection", "X-A", "X-B"]),
        ("Connection: close\r\nClose: 1\r\n", &["Connection"]),
        ("Connection: X A, (X-B), X-C;q=1\r\nX-B: 1\r\nX-C: 1\r\n", &["Connection"]),
        ("Connection: ,,X-A,\r\nX-A: 1\r\n", &["Connection", "X-A"]),
        ("Connection:\r\nX-A: 1\r\n", &["Connection"]),
    ] {
        assert_eq!(with(lines).unwrap().dropped(), dropped, "{lines:?}");
    }
}

#[test]
fn rule_52_the_work_that_connection_causes_is_bounded() {
    let many = |count: usize| format!("Connection: {}\r\n", vec!["x"; count].join(","));
    assert!(with(many(32)).is_ok());
    assert_eq!(with(many(33)), Err(TooManyConnectionOptions));
    assert_eq!(with(format!("{}{}", many(20), many(20))), Err(TooManyConnectionOptions));
}

#[test]
fn rule_53_hop_by_hop_fields() {
    let names = ["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "Proxy-Authenticate", "Proxy-Authorization", "Trailer", "HTTP2-Settings"];
    for name in names {
        let seen = with(format!("X: y\r\n{name}: z\r\nA: b\r\n{}: z\r\n", name.to_lowercase())).unwrap();
        assert_eq!(seen.dropped(), [name, &name.to_lowercase()], "named or not, each line");
    }
    assert!(with("Transfer-Encoding: chunked\r\n").is_ok_and(|seen| seen.dropped() == ["Transfer-Encoding"]));
    assert!(with("Accept: */*\r\nTransfer: x\r\nTE-: y\r\n").unwrap().facts.dropped.is_empty());
}

#[test]
fn rule_54_connection_cannot_strip_end_to_end_fields() {
    for name in [
        "Host",
        "Content-Length",
        "Authorization",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Real-IP",
        "traceparent",
        "Cookie",
        "Via",
        "X-Request-Id",
        "Content-Type",
        "Expect",
        "Cache-Control",
    ] {
        let value = match name {
            "Content-Length" => "5",
            "Expect" => "100-continue\r\nContent-Length: 1",
            _ => "v",
        };
        let line = if name == "Host" { String::new() } else { format!("{name}: {value}\r\n") };
        let seen = with(format!("Connection: close, {name}\r\n{line}")).unwrap();
        assert_eq!(seen.dropped(), ["Connection"], "{name}");
    }
}

#[test]
fn rule_55_te() {
    for (lines, trailers) in [
        ("TE: trailers\r\n", true),
        ("TE: deflate, Trailers\r\n", true),
        ("TE: deflate\r\nTE: trailers\r\n", true),
        ("TE: trailersx\r\n", false),
        ("TE: deflate;q=0.5\r\n", false),
        ("X: y\r\n", false),
    ] {
        assert_eq!(with(lines).unwrap().facts.te_trailers, trailers, "{lines:?}");
    }
}

#[test]
fn rule_58_max_forwards() {
    let head = |method: &str, lines: &str| request(format!("{method} / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")).unwrap().facts.max_forwards;
    assert_eq!(head("OPTIONS", "Max-Forwards: 0\r\n"), Some(0));
    assert_eq!(head("TRACE", "Max-Forwards: 12\r\n"), Some(12));
    assert_eq!(head("TRACE", "Max-Forwards: 99999999999\r\n"), Some(u32::MAX));
    assert_eq!(head("GET", "Max-Forwards: 0\r\n"), None);
    assert_eq!(head("OPTIONS", "Max-Forwards: x\r\n"), None);
    assert_eq!(head("OPTIONS", ""), None);
}

#[test]
fn rule_63_and_64_persistence() {
    let head = |version: &str, lines: &str| request(format!("GET / HTTP/{version}\r\nHost: h\r\n{lines}\r\n")).unwrap().facts;
    for (version, lines, persist) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: keep-alive, CLOSE\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Proxy-Connection: close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ] {
        let facts = head(version, lines);
        assert_eq!((facts.persist, facts.http10), (persist, version == "1.0"), "{version} {lines:?}");
    }
}

#[test]
fn rule_82_expect() {
    let expects = |lines: &str| with(lines).map(|seen| seen.facts.expect_continue);
    assert_eq!(expects("Content-Length: 1\r\nExpect: 100-continue\r\n"), Ok(true));
    assert_eq!(expects("Transfer-Encoding: chunked\r\nexpect: 100-Continue\r\n"), Ok(true));
    assert_eq!(expects("Expect: 100-continue\r\n"), Ok(false), "without a body there is nothing to wait for");
    assert_eq!(expects("Content-Length: 0\r\nExpect: 100-continue\r\n"), Ok(false));
    rejects(
        with,
        &[
            ("Content-Length: 1\r\nExpect: 100-continues\r\n", ExpectationFailed),
            ("Content-Length: 1\r\nExpect: x\r\n", ExpectationFailed),
            ("Content-Length: 1\r\nExpect:\r\n", ExpectationFailed),
            ("Content-Length: 1\r\nExpect: 100-continue, x\r\n", ExpectationFailed),
            ("Content-Length: 1\r\nExpect: 100-continue\r\nExpect: x\r\n", ExpectationFailed),
        ],
    );
    let old = request("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: x\r\n\r\n").unwrap();
    assert!(!old.facts.expect_continue, "an HTTP/1.0 expectation is ignored");
    assert_eq!(old.dropped(), ["Expect"], "and not forwarded in a request of ours, which is HTTP/1.1");
    assert_eq!(with("Expect: 100-continue\r\n").unwrap().dropped(), ["Expect"]);
    assert!(with("Content-Length: 1\r\nExpect: 100-continue\r\n").unwrap().facts.dropped.is_empty());
    assert_eq!(ExpectationFailed.row().status, 417);
}

fn upgrade(version: &str, method: &str, lines: &str) -> SeenRequest {
    request(format!("{method} / HTTP/{version}\r\nHost: h\r\n{lines}\r\n")).unwrap()
}

#[test]
fn rule_83_upgrade_needs_connection_and_http11() {
    for (version, lines, asked) in [
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        ("1.1", "Connection: keep-alive, upgrade\r\nUpgrade: foo/2\r\n", true),
        ("1.1", "Upgrade: websocket\r\n", false),
        ("1.1", "Connection: keep-alive\r\nUpgrade: websocket\r\n", false),
        ("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
        ("1.1", "Connection: upgrade\r\n", false),
        ("1.1", "Connection: upgrade\r\nUpgrade:\r\n", false),
        ("1.1", "Connection: upgrade\r\nUpgrade: a, b\r\n", false),
        ("1.1", "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", false),
        ("1.1", "Connection: upgrade\r\nUpgrade: a b\r\n", false),
    ] {
        let seen = upgrade(version, "GET", lines);
        assert_eq!((seen.facts.upgrade, seen.flags == ringway_abi::view::REQ_UPGRADE), (asked, asked), "{version} {lines:?}");
        let lines_with_upgrade = lines.matches("Upgrade:").count();
        assert_eq!(seen.dropped().iter().filter(|name| **name == "Upgrade").count(), lines_with_upgrade, "never forwarded by itself");
    }
}

#[test]
fn rule_85_websocket_handshakes() {
    let whole = "Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    assert!(upgrade("1.1", "GET", whole).facts.websocket);
    for (method, lines) in [
        ("POST", whole.to_string()),
        ("GET", whole.replace("Sec-WebSocket-Key", "X")),
        ("GET", whole.replace("Sec-WebSocket-Version", "X")),
        ("GET", whole.replace("WebSocket\r\n", "other\r\n")),
        ("GET", format!("{whole}Sec-WebSocket-Key: again\r\n")),
        ("GET", format!("{whole}Content-Length: 5\r\n")),
    ] {
        let facts = upgrade("1.1", method, &lines).facts;
        assert!(facts.upgrade && !facts.websocket, "{method} {lines:?}");
    }
}

#[test]
fn rule_86_h2c_is_never_asked_for() {
    for protocol in ["h2c", "H2C", "h2c/1"] {
        let seen = upgrade("1.1", "GET", &format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n"));
        assert!(!seen.facts.upgrade, "{protocol}");
        assert_eq!(seen.dropped(), ["Connection", "Upgrade", "HTTP2-Settings"]);
    }
    assert_eq!(upgrade("1.1", "GET", "HTTP2-Settings: AAMAAABk\r\n").dropped(), ["HTTP2-Settings"]);
}
