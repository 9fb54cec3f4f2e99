//! Rules 17 to 28: field lines.

use super::super::head::{HeadLimits, UnderscorePolicy};
use super::super::testing::{request, request_with};
use super::{rejects, with};
use crate::error::ClientFault::*;

fn host(lines: &str) -> Result<super::SeenRequest, crate::error::ClientFault> {
    request(format!("GET / HTTP/1.1\r\n{lines}\r\n"))
}

#[test]
fn rule_17_host_once() {
    assert_eq!(host("hOsT:example.com\r\n").unwrap().authority, "example.com");
    rejects(
        host,
        &[
            ("", MissingHost),
            ("X-Host: a\r\n", MissingHost),
            ("Host: a\r\nHost: a\r\n", DuplicateHost),
            ("Host: a\r\nX: y\r\nhost: b\r\n", DuplicateHost),
            ("Host: a\r\nHost:\r\n", DuplicateHost),
            ("Host: a/b\r\n", BadHost),
        ],
    );
}

#[test]
fn rule_18_host_is_a_host() {
    rejects(
        host,
        &[
            ("Host:\r\n", BadHost),
            ("Host: \t \r\n", BadHost),
            ("Host: u@a\r\n", BadHost),
            ("Host: a, b\r\n", BadHost),
            ("Host: a b\r\n", BadHost),
            ("Host: a:b\r\n", BadHost),
            ("Host: a:70000\r\n", BadHost),
            ("Host: http://a\r\n", BadHost),
            ("Host: a\u{e4}\r\n", BadHost),
            ("Host: [::1\r\n", BadHost),
            ("Host: a\tb\r\n", BadHost),
        ],
    );
    assert_eq!(host("Host:  [::1]:80 \t\r\n").unwrap().authority, "[::1]:80");
}

#[test]
fn rule_19_http10_needs_no_host() {
    let seen = request("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((seen.authority.as_str(), seen.version), ("", 10));
    assert_eq!(request("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap().authority, "a");
    assert_eq!(request("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), Err(DuplicateHost));
    assert_eq!(request("GET / HTTP/1.0\r\nHost: \r\n\r\n"), Err(BadHost));
}

#[test]
fn rule_20_names_are_tokens() {
    for byte in 0..=255u8 {
        let allowed = super::super::bytes::is_token(&[byte]);
        for line in [[b"X", &[byte][..], b"Y: z\r\n"].concat(), [&[byte][..], b"Y: z\r\n"].concat()] {
            // `X` + `:` + `Y: z` is the field X.
            assert_eq!(with(&line).is_ok(), allowed || (byte == b':' && line[0] == b'X'), "{byte:#x}");
        }
    }
    rejects(
        with,
        &[
            (": x\r\n", EmptyFieldName),
            ("NoColon\r\n", MissingColon),
            ("No Colon\r\n", SpaceBeforeColon),
            ("X\0: y\r\n", BadFieldName),
            ("\0X: y\r\n", BadFieldName),
            ("X\u{e4}: y\r\n", BadFieldName),
            ("(X): y\r\n", BadFieldName),
            ("\"X\": y\r\n", BadFieldName),
            ("X\x7f: y\r\n", BadFieldName),
            ("=\r\n", BadFieldName),
        ],
    );
    let odd = with("!#$%&'*+-.^_`|~: v\r\n:".trim_end_matches(':')).unwrap();
    assert_eq!(odd.headers[1].0, "!#$%&\\'*+-.^_`|~");
}

#[test]
fn rule_21_blank_before_the_colon() {
    rejects(
        with,
        &[
            ("X : y\r\n", SpaceBeforeColon),
            ("X\t: y\r\n", SpaceBeforeColon),
            ("Content-Length : 5\r\n", SpaceBeforeColon),
            ("Transfer-Encoding\t: chunked\r\n", SpaceBeforeColon),
            ("X\x0b: y\r\n", BadFieldName),
            ("X\x0c: y\r\n", BadFieldName),
        ],
    );
}

#[test]
fn rule_22_obs_fold() {
    rejects(
        with,
        &[
            ("X: a\r\n b\r\n", ObsFold),
            ("X: a\r\n\tb\r\n", ObsFold),
            ("X:\r\n b\r\n", ObsFold),
            ("X: a\r\n \r\n", ObsFold),
            ("Transfer-Encoding:\r\n chunked\r\n", ObsFold),
            ("X: a\r\n Content-Length: 5\r\n", ObsFold),
        ],
    );
}

#[test]
fn rule_23_bytes_of_values() {
    for byte in 0..=255u8 {
        let seen = with([b"X: a", &[byte][..], b"b\r\n"].concat());
        let allowed = byte >= 0x20 && byte != 0x7f || byte == b'\t';
        assert_eq!(seen.is_ok(), allowed, "{byte:#x}");
        if let Ok(seen) = seen {
            assert_eq!(seen.headers[1].1, super::super::testing::text(&[b'a', byte, b'b']), "kept opaque");
        }
    }
    rejects(
        with,
        &[
            ("X: a\0\r\n", ControlByte),
            ("X: \x01\r\n", ControlByte),
            ("X: a\x7f\r\n", ControlByte),
            ("X: a\x0b\r\n", ControlByte),
            ("X: a\rb\r\n", BareCarriageReturn),
            ("X: a\nb\r\n", BareLineFeed),
        ],
    );
}

#[test]
fn rule_24_only_space_and_tab_are_trimmed() {
    for (line, value) in
        [("X:y\r\n", "y"), ("X: y\r\n", "y"), ("X: \t y \t \r\n", "y"), ("X: a  b \r\n", "a  b"), ("X:\r\n", ""), ("X: \r\n", ""), ("X: \t \t\r\n", "")]
    {
        assert_eq!(with(line).unwrap().headers[1].1, value, "{line:?}");
    }
    for byte in [0x85u8, 0xa0] {
        let seen = with([b"X: ", &[byte, b'y', byte][..], b"\r\n"].concat()).unwrap();
        assert_eq!(seen.headers[1].1.len(), "\\x85y\\x85".len(), "{byte:#x} is no blank");
    }
}

#[test]
fn rule_25_order_of_lines() {
    let seen = with("A: 1\r\nB: 2\r\nA: 3\r\nSet-Cookie: x=1\r\nset-cookie: y=2\r\n").unwrap();
    let expected = [("Host", "h"), ("A", "1"), ("B", "2"), ("A", "3"), ("Set-Cookie", "x=1"), ("set-cookie", "y=2")];
    assert!(seen.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(expected));
}

#[test]
fn rule_26_limits() {
    let limits = HeadLimits { head_bytes: 256, target_bytes: 20, fields: 3, line_bytes: 40, method_bytes: 8, ..HeadLimits::default() };
    let head = |rest: &str| request_with(format!("GET / HTTP/1.1\r\nHost: h\r\n{rest}").as_bytes(), &limits);
    assert!(head("A: 1\r\nB: 2\r\n\r\n").is_ok_and(|seen| seen.is_some()));
    assert_eq!(head("A: 1\r\nB: 2\r\nC: 3\r\n\r\n"), Err(TooManyFields));
    let padded = |len: usize| format!("A: {}\r\n", "x".repeat(len - 3));
    assert!(head(&(padded(40) + "\r\n")).is_ok());
    assert_eq!(head(&(padded(41) + "\r\n")), Err(FieldTooLong));
    assert_eq!(head(&"x".repeat(41)), Err(FieldTooLong), "a name without an end");
    assert_eq!(head(&format!("A:{}", "x".repeat(41))), Err(FieldTooLong), "a value without an end");
    // One byte more than the head may have, in a way that breaks no other limit.
    let wide = HeadLimits { line_bytes: 1000, ..limits };
    let exactly = |len: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "x".repeat(len - 32));
    assert_eq!(exactly(256).len(), 256);
    assert!(request_with(exactly(256).as_bytes(), &wide).is_ok_and(|seen| seen.is_some()));
    assert_eq!(request_with(exactly(257).as_bytes(), &wide), Err(HeadTooLarge));
    assert_eq!(request_with(&exactly(300).as_bytes()[..256], &wide), Err(HeadTooLarge), "full, and no end in sight");
    assert_eq!(request_with(&exactly(300).as_bytes()[..255], &wide), Ok(None));
    for fault in [TooManyFields, FieldTooLong, HeadTooLarge] {
        assert_eq!(fault.row().status, 431);
    }
}

#[test]
fn rule_26_as_many_fields_as_a_view_can_hold() {
    let limits = HeadLimits { fields: 1000, ..HeadLimits::default() };
    let head = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X-Y: z\r\n".repeat(count - 1));
    let seen = request_with(head(254).as_bytes(), &limits).unwrap().unwrap();
    assert_eq!(seen.headers.len(), 254);
    assert_eq!(request_with(head(255).as_bytes(), &limits), Err(TooManyFields));
}

#[test]
fn rule_28_underscores() {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nX_A: 1\r\ncontent_length: 5\r\nTransfer_Encoding: chunked\r\nX_Forwarded_For: a\r\nX-B: 2\r\n\r\n";
    let policy = |underscores| request_with(head, &HeadLimits { underscores, ..HeadLimits::default() });
    let kept = policy(UnderscorePolicy::Keep).unwrap().unwrap();
    assert_eq!(kept.dropped(), ["content_length", "Transfer_Encoding", "X_Forwarded_For"]);
    assert_eq!(kept.content_length, 0, "it frames nothing");
    let dropped = policy(UnderscorePolicy::Drop).unwrap().unwrap();
    assert_eq!(dropped.dropped(), ["X_A", "content_length", "Transfer_Encoding", "X_Forwarded_For"]);
    assert_eq!(policy(UnderscorePolicy::Reject), Err(UnderscoreInFieldName));
}

#[test]
fn rule_26_bytes_that_arrive_one_by_one_are_not_parsed_one_by_one() {
    use super::super::head::{Area, HeadProgress, parse_request};
    use super::super::names::NameTable;
    use super::super::testing::Slot;

    let lines = 80;
    let head = format!("GET /{} HTTP/1.1\r\nHost: h\r\n{}\r\n", "t".repeat(2000), format!("X-Y: {}\r\n", "z".repeat(300)).repeat(lines - 1));
    let (names, limits) = (NameTable::new(), HeadLimits::default());
    let mut slot = Slot::request();
    let mut progress = HeadProgress::default();
    for filled in 1..=head.len() {
        slot.bytes[..filled].copy_from_slice(&head.as_bytes()[..filled]);
        let area = Area { bytes: &slot.bytes, filled };
        let answer = parse_request(area, &limits, &names, &mut slot.entries, &mut slot.root, &mut progress).unwrap();
        assert_eq!(answer.is_some(), filled == head.len());
    }
    assert!(progress.attempts as usize <= 3 * lines + 10, "{} attempts for {} bytes", progress.attempts, head.len());
}
