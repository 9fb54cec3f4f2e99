//! Rules 1 to 15: the request line and its target.

use super::super::head::{HeadLimits, TargetForm};
use super::super::testing::{request, request_with};
use super::{line, rejects};
use crate::error::ClientFault::*;

#[test]
fn rule_01_bare_cr() {
    rejects(
        request,
        &[
            ("GET / HTTP/1.1\rHost: h\r\n\r\n", BareCarriageReturn),
            ("GET / HTTP/1.1\r\rHost: h\r\n\r\n", BareCarriageReturn),
            ("GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", BareCarriageReturn),
            ("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", BareCarriageReturn),
            ("GET / HTTP/1.1\r\nHost: h\r\n\rX: y\r\n\r\n", BareCarriageReturn),
            ("GET / HTTP/1.1\r\nHo\rst: h\r\n\r\n", MissingColon),
            ("GET /\r HTTP/1.1\r\nHost: h\r\n\r\n", MissingVersion),
            ("GET\r / HTTP/1.1\r\nHost: h\r\n\r\n", BadRequestLine),
            ("\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", BareCarriageReturn),
        ],
    );
}

#[test]
fn rule_02_bare_lf() {
    rejects(
        request,
        &[
            ("GET / HTTP/1.1\nHost: h\r\n\r\n", BareLineFeed),
            ("GET / HTTP/1.1\nHost: h\n\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: h\n\r\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: h\r\nX: y\nZ: w\r\n\r\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: h\r\n\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nHo\nst: h\r\n\r\n", BareLineFeed),
            ("GET /\n\n", BareLineFeed),
            ("GET\n", BareLineFeed),
            ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", BareLineFeed),
        ],
    );
}

#[test]
fn rule_03_one_empty_line_is_ignored() {
    let seen = request("\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.facts.head_bytes), ("GET", "/x", 30));
    rejects(
        request,
        &[
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", LeadingEmptyLines),
            ("\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", LeadingEmptyLines),
            ("\r\n\r\n\r\n\r\n", LeadingEmptyLines),
        ],
    );
}

#[test]
fn rule_04_blank_before_the_first_field() {
    rejects(
        request,
        &[
            ("GET / HTTP/1.1\r\n Host: h\r\n\r\n", SpaceBeforeFirstField),
            ("GET / HTTP/1.1\r\n\tHost: h\r\n\r\n", SpaceBeforeFirstField),
            ("GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n", SpaceBeforeFirstField),
            ("GET / HTTP/1.1\r\n \r\n\r\n", SpaceBeforeFirstField),
        ],
    );
}

#[test]
fn rule_05_what_is_no_http() {
    rejects(
        request,
        &[
            ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", NotHttp),
            ("\0\0\0\0", NotHttp),
            ("\u{80}\u{ff}", NotHttp),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http2Preface),
            ("{\"jsonrpc\":\"2.0\"}\r\n", BadMethod),
            ("<xml/>", BadMethod),
            ("SSH-2.0-OpenSSH_9.9\r\n", BadRequestLine),
            ("HTTP/1.1 200 OK\r\n\r\n", BadMethod),
        ],
    );
}

#[test]
fn rule_06_versions() {
    for (version, number) in [("HTTP/1.0", 10), ("HTTP/1.1", 11), ("HTTP/1.2", 11), ("HTTP/1.9", 11)] {
        assert_eq!(line(&format!("GET / {version}")).unwrap().version, number, "{version}");
    }
    rejects(
        line,
        &[
            ("GET / HTTP/2.0", UnsupportedVersion),
            ("GET / HTTP/3.0", UnsupportedVersion),
            ("GET / HTTP/0.9", UnsupportedVersion),
            ("GET / HTTP/9.9", UnsupportedVersion),
            ("GET /", MissingVersion),
            ("GET / http/1.1", BadVersion),
            ("GET / Http/1.1", BadVersion),
            ("GET / HTTP/1.10", BadVersion),
            ("GET / HTTP/01.1", BadVersion),
            ("GET / HTTP/1.01", BadVersion),
            ("GET / HTTP/11", BadVersion),
            ("GET / HTTP/1", BadVersion),
            ("GET / HTTP/1.", BadVersion),
            ("GET / HTTP/1,1", BadVersion),
            ("GET / HTTP/1.1a", BadVersion),
            ("GET / HTTP/-1.1", BadVersion),
            ("GET / HTTP/1.\u{661}", BadVersion),
            ("GET / HTTP /1.1", BadRequestLine),
            ("GET / HTTP/ 1.1", BadRequestLine),
            ("GET / HTTP/1. 1", BadRequestLine),
            ("GET / HTTPS/1.1", BadVersion),
            ("GET / ICY/1.1", BadVersion),
            ("GET / ", BadVersion),
        ],
    );
}

#[test]
fn rule_08_single_spaces() {
    rejects(
        line,
        &[
            ("GET  / HTTP/1.1", BadRequestLine),
            ("GET /  HTTP/1.1", BadRequestLine),
            ("GET / HTTP/1.1 ", BadRequestLine),
            ("GET / HTTP/1.1\t", BadVersion),
            (" GET / HTTP/1.1", BadMethod),
            ("\tGET / HTTP/1.1", NotHttp),
            ("GET\t/ HTTP/1.1", BadRequestLine),
            ("GET /\tHTTP/1.1", BadTarget),
            ("GET\x0b/ HTTP/1.1", BadMethod),
            ("GET\x0c/ HTTP/1.1", BadMethod),
            ("GET /\x0bHTTP/1.1", BadTarget),
            ("GET /\x0cHTTP/1.1", BadTarget),
            ("GET /\u{a0}HTTP/1.1", BadTarget),
            ("GET /a b HTTP/1.1", BadRequestLine),
            ("GET / x HTTP/1.1", BadRequestLine),
            ("GET", BadRequestLine),
            ("GET ", BadRequestLine),
            ("GET  HTTP/1.1", BadRequestLine),
        ],
    );
}

#[test]
fn rule_09_methods() {
    for method in ["GET", "get", "GETX", "M-SEARCH", "PURGE", "!#$%&'*+-.^_`|~09", "QUERY"] {
        let seen = line(&format!("{method} / HTTP/1.1")).unwrap();
        assert_eq!(seen.method, method.escape_default().to_string());
    }
    rejects(
        line,
        &[
            ("G(T / HTTP/1.1", BadMethod),
            ("GET: / HTTP/1.1", BadMethod),
            ("\"GET\" / HTTP/1.1", BadMethod),
            ("G\u{e9}T / HTTP/1.1", BadMethod),
            ("G\0T / HTTP/1.1", BadMethod),
            ("GET/ / HTTP/1.1", BadMethod),
        ],
    );
    let long = "M".repeat(33);
    rejects(line, &[(&format!("{long} / HTTP/1.1"), MethodTooLong), (&long, MethodTooLong), (&"M".repeat(3000), MethodTooLong)]);
    assert!(line(&format!("{} / HTTP/1.1", "M".repeat(32))).is_ok());
    assert_eq!(MethodTooLong.row().status, 501);
}

#[test]
fn rule_10_long_targets() {
    let target = |len: usize| format!("GET /{} HTTP/1.1", "a".repeat(len - 1));
    assert_eq!(line(&target(8192)).unwrap().target.len(), 8192);
    rejects(line, &[(&target(8193), TargetTooLong), (&target(30_000), TargetTooLong)]);
    // Longer than a whole head may be, and without an end.
    rejects(request, &[(&format!("GET /{}", "a".repeat(33_000)), TargetTooLong)]);
    let limits = HeadLimits { head_bytes: 64, ..HeadLimits::default() };
    assert_eq!(request_with(format!("GET /{}", "a".repeat(100)).as_bytes(), &limits), Err(TargetTooLong));
    assert_eq!(TargetTooLong.row().status, 414);
}

#[test]
fn rule_11_bytes_of_the_target() {
    for byte in 0..=255u8 {
        let input = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        let allowed = byte > 0x20 && byte < 0x7f && byte != b'#';
        assert_eq!(request(input).is_ok(), allowed, "{byte:#x}");
    }
    rejects(line, &[("GET /#f HTTP/1.1", BadTarget), ("GET /\x7f HTTP/1.1", BadTarget), ("GET /\u{e4} HTTP/1.1", BadTarget)]);
    let seen = line("GET /%zz?%00=\"<>\\^`{|}?? HTTP/1.1").unwrap();
    assert_eq!(seen.path, "/%zz", "never repaired");
}

#[test]
fn rule_12_origin_form() {
    for (target, path, query) in [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a?b?c", "/a", "b?c"),
        ("//host/a", "//host/a", ""),
        ("/http://x/y", "/http://x/y", ""),
        ("/a/../b//c", "/a/../b//c", ""),
        ("/*", "/*", ""),
    ] {
        let seen = line(&format!("GET {target} HTTP/1.1")).unwrap();
        assert_eq!((seen.path.as_str(), seen.query.as_str(), seen.authority.as_str()), (path, query, "h"), "{target}");
        assert_eq!(seen.facts.target_form, TargetForm::Origin);
    }
    rejects(
        line,
        &[
            ("GET a HTTP/1.1", BadTarget),
            ("GET ?a HTTP/1.1", BadTarget),
            ("GET ../ HTTP/1.1", BadTarget),
            ("GET h:80 HTTP/1.1", BadTarget),
            ("GET mailto:a@b HTTP/1.1", BadTarget),
        ],
    );
}

#[test]
fn rule_13_absolute_form() {
    for (target, authority, path, query) in [
        ("http://a.b/c?d", "a.b", "/c", "d"),
        ("HTTP://a.b:8080/", "a.b:8080", "/", ""),
        ("https://[::1]:1/x", "[::1]:1", "/x", ""),
        ("http://a.b", "a.b", "/", ""),
        ("http://a.b?q", "a.b", "/", "q"),
        ("http://a.b//c", "a.b", "//c", ""),
        ("http://a.b/://", "a.b", "/://", ""),
    ] {
        let seen = line(&format!("GET {target} HTTP/1.1")).unwrap();
        assert_eq!((seen.authority.as_str(), seen.path.as_str(), seen.query.as_str(), seen.target.as_str()), (authority, path, query, target));
        assert_eq!((seen.facts.target_form, seen.facts.host_differs), (TargetForm::Absolute, true));
    }
    assert!(!request("GET http://A.b/ HTTP/1.1\r\nHost: a.B\r\n\r\n").unwrap().facts.host_differs);
    rejects(
        line,
        &[
            ("GET ftp://a/ HTTP/1.1", BadScheme),
            ("GET ://a/ HTTP/1.1", BadScheme),
            ("GET httpx://a/ HTTP/1.1", BadScheme),
            ("GET http:a/ HTTP/1.1", BadTarget),
            ("GET http:/a HTTP/1.1", BadTarget),
            ("GET http:///a HTTP/1.1", BadAuthority),
            ("GET http:// HTTP/1.1", BadAuthority),
            ("GET http://u@a/ HTTP/1.1", BadAuthority),
            ("GET http://u:p@a/ HTTP/1.1", BadAuthority),
            ("GET http://a:x/ HTTP/1.1", BadAuthority),
            ("GET http://a,b/ HTTP/1.1", BadAuthority),
            ("GET http://a\\b/ HTTP/1.1", BadAuthority),
            ("GET http://[::1/ HTTP/1.1", BadAuthority),
        ],
    );
    // The Host of such a request is still checked.
    assert_eq!(request("GET http://a/ HTTP/1.1\r\n\r\n"), Err(MissingHost));
    assert_eq!(request("GET http://a/ HTTP/1.1\r\nHost: b, c\r\n\r\n"), Err(BadHost));
    assert_eq!(request("GET http://a/ HTTP/1.0\r\n\r\n").unwrap().authority, "a");
}

#[test]
fn rule_14_authority_form() {
    for target in ["h:443", "[::1]:1", "1.2.3.4:80"] {
        let seen = line(&format!("CONNECT {target} HTTP/1.1")).unwrap();
        assert_eq!((seen.facts.target_form, seen.authority.as_str(), seen.path.as_str()), (TargetForm::Authority, target, ""));
    }
    rejects(
        line,
        &[
            ("CONNECT / HTTP/1.1", BadConnectTarget),
            ("CONNECT h HTTP/1.1", BadConnectTarget),
            ("CONNECT h: HTTP/1.1", BadConnectTarget),
            ("CONNECT http://h/ HTTP/1.1", BadConnectTarget),
            ("CONNECT h:1/ HTTP/1.1", BadConnectTarget),
            ("CONNECT * HTTP/1.1", BadConnectTarget),
            ("connect h:1 HTTP/1.1", BadTarget),
            ("GET h:443 HTTP/1.1", BadTarget),
        ],
    );
}

#[test]
fn rule_15_asterisk_form() {
    let seen = line("OPTIONS * HTTP/1.1").unwrap();
    assert_eq!((seen.facts.target_form, seen.path.as_str(), seen.authority.as_str()), (TargetForm::Asterisk, "*", "h"));
    rejects(
        line,
        &[
            ("GET * HTTP/1.1", AsteriskWithoutOptions),
            ("options * HTTP/1.1", AsteriskWithoutOptions),
            ("OPTIONS ** HTTP/1.1", BadTarget),
            ("OPTIONS *? HTTP/1.1", BadTarget),
            ("OPTIONS */ HTTP/1.1", BadTarget),
        ],
    );
}
