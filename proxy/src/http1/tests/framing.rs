//! Rules 30 to 39: where the body of a request ends.

use ringway_abi::view::{REQ_CHUNKED, REQ_HAS_BODY};

use super::super::head::RequestBody;
use super::super::testing::request;
use super::{rejects, with};
use crate::error::ClientFault::*;

#[test]
fn rule_30_both_are_refused() {
    rejects(
        with,
        &[
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndTransferEncoding),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", LengthAndTransferEncoding),
            ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", LengthAndTransferEncoding),
            ("Transfer-Encoding: x\r\nContent-Length: x\r\n", LengthAndTransferEncoding),
            ("TRANSFER-ENCODING: chunked\r\ncontent-length: 5\r\n", LengthAndTransferEncoding),
        ],
    );
}

#[test]
fn rule_31_coding_in_http10() {
    let old = |lines: &str| request(format!("POST / HTTP/1.0\r\nHost: h\r\n{lines}\r\n"));
    rejects(
        old,
        &[
            ("Transfer-Encoding: chunked\r\n", TransferEncodingInHttp10),
            ("Transfer-Encoding: identity\r\n", TransferEncodingInHttp10),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", TransferEncodingInHttp10),
            ("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", TransferEncodingInHttp10),
        ],
    );
}

#[test]
fn rule_32_chunked_is_last() {
    rejects(
        with,
        &[
            ("Transfer-Encoding: gzip\r\n", ChunkedNotLast),
            ("Transfer-Encoding: chunked, gzip\r\n", ChunkedNotLast),
            ("Transfer-Encoding: xchunked\r\n", ChunkedNotLast),
            ("Transfer-Encoding: chunkedx\r\n", ChunkedNotLast),
            ("Transfer-Encoding: chunke\r\n", ChunkedNotLast),
        ],
    );
}

#[test]
fn rule_33_unknown_codings() {
    rejects(
        with,
        &[
            ("Transfer-Encoding: gzip, chunked\r\n", UnknownTransferCoding),
            ("Transfer-Encoding: deflate , chunked\r\n", UnknownTransferCoding),
            ("Transfer-Encoding: foo,chunked\r\n", UnknownTransferCoding),
        ],
    );
    assert_eq!(UnknownTransferCoding.row().status, 501);
    assert!(!UnknownTransferCoding.row().keep_alive);
}

#[test]
fn rule_34_one_chunked() {
    for value in ["chunked", "Chunked", "CHUNKED", " \tchunked \t"] {
        let seen = with(format!("Transfer-Encoding:{value}\r\n")).unwrap();
        assert_eq!((seen.facts.body, seen.content_length, seen.flags), (RequestBody::Chunked, u64::MAX, REQ_HAS_BODY | REQ_CHUNKED));
        assert_eq!(seen.dropped(), ["Transfer-Encoding"], "a canonical one is written instead");
    }
    rejects(
        with,
        &[
            ("Transfer-Encoding: chunked, chunked\r\n", RepeatedTransferEncoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", RepeatedTransferEncoding),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", RepeatedTransferEncoding),
            ("Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding:\r\n", RepeatedTransferEncoding),
            ("Transfer-Encoding:\r\n", BadTransferEncoding),
            ("Transfer-Encoding: ,chunked\r\n", BadTransferEncoding),
            ("Transfer-Encoding: chunked,\r\n", BadTransferEncoding),
            ("Transfer-Encoding: ,\r\n", BadTransferEncoding),
            ("Transfer-Encoding: identity\r\n", BadTransferEncoding),
            ("Transfer-Encoding: identity, chunked\r\n", BadTransferEncoding),
            ("Transfer-Encoding: chunked;q=1\r\n", BadTransferEncoding),
            ("Transfer-Encoding: chunked;\r\n", BadTransferEncoding),
            ("Transfer-Encoding: \"chunked\"\r\n", BadTransferEncoding),
            ("Transfer-Encoding: 'chunked'\r\n", ChunkedNotLast),
            ("Transfer-Encoding: chun ked\r\n", BadTransferEncoding),
            ("Transfer-Encoding: chunked\tx\r\n", BadTransferEncoding),
            ("Transfer-Encoding: \u{85}chunked\r\n", BadTransferEncoding),
            ("Transfer-Encoding: \x0bchunked\r\n", ControlByte),
            ("Transfer-Encoding: chunked\x0c\r\n", ControlByte),
            ("Transfer-Encoding: chunked\0\r\n", ControlByte),
        ],
    );
}

#[test]
fn rule_35_length_is_digits() {
    for (value, body) in [("0", RequestBody::None), ("5", RequestBody::Length(5)), ("9223372036854775807", RequestBody::Length(i64::MAX as u64))] {
        let seen = with(format!("Content-Length: {value}\r\n")).unwrap();
        assert_eq!((seen.facts.body, seen.content_length.to_string().as_str()), (body, value));
        assert!(seen.facts.dropped.is_empty());
    }
    for bad in ["", " ", "+5", "-5", "-0", "0x5", "5_0", "5 0", "5\t0", "5a", "a", "5.0", "5e1", "\"5\"", "\u{b2}", "\u{661}", ";5", "5;", "5\u{a0}"] {
        assert_eq!(with(format!("Content-Length: {bad}\r\n")), Err(BadContentLength), "{bad:?}");
    }
    rejects(
        with,
        &[
            ("Content-Length: 9223372036854775808\r\n", ContentLengthTooLarge),
            ("Content-Length: 18446744073709551615\r\n", ContentLengthTooLarge),
            ("Content-Length: 18446744073709551616\r\n", ContentLengthTooLarge),
            ("Content-Length: 18446744073709551621\r\n", ContentLengthTooLarge),
            ("Content-Length: 99999999999999999999999999999999999999999\r\n", ContentLengthTooLarge),
        ],
    );
}

#[test]
fn rule_36_length_once() {
    rejects(
        with,
        &[
            ("Content-Length: 5\r\nContent-Length: 6\r\n", ConflictingContentLength),
            ("Content-Length: 5, 6\r\n", ConflictingContentLength),
            ("Content-Length: 5\r\nX: y\r\ncontent-length: 0\r\n", ConflictingContentLength),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", RepeatedContentLength),
            ("Content-Length: 5,5\r\n", RepeatedContentLength),
            ("Content-Length: 5, 05\r\n", RepeatedContentLength),
            ("Content-Length: 5,\r\n", BadContentLength),
            ("Content-Length: ,5\r\n", BadContentLength),
            ("Content-Length: 5,,5\r\n", BadContentLength),
            ("Content-Length: 5\r\nContent-Length:\r\n", BadContentLength),
        ],
    );
}

#[test]
fn rule_37_leading_zeros() {
    let seen = with("Content-Length: 0005\r\n").unwrap();
    assert_eq!((seen.facts.body, seen.content_length), (RequestBody::Length(5), 5));
    assert_eq!(seen.dropped(), ["Content-Length"], "the canonical number is written instead");
    assert_eq!(with("Content-Length: 00\r\n").unwrap().facts.body, RequestBody::None);
    assert_eq!(with(format!("Content-Length: {}7\r\n", "0".repeat(100))).unwrap().facts.body, RequestBody::Length(7));
}

#[test]
fn rule_38_no_body_without_framing() {
    let seen = request("POST / HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!((seen.facts.body, seen.content_length, seen.facts.head_bytes, seen.flags), (RequestBody::None, 0, 28, 0));
}

#[test]
fn rule_39_any_method_may_have_a_body() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "FOO"] {
        let head = |line: &str| request(format!("{method} / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n")).unwrap().facts.body;
        assert_eq!(head("Content-Length: 3"), RequestBody::Length(3), "{method}");
        assert_eq!(head("Transfer-Encoding: chunked"), RequestBody::Chunked, "{method}");
    }
}
