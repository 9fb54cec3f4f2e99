//! Bytes that are no request: one 4xx or 5xx, a closed connection, and not one byte for the upstream.

use crate::gateway::*;

/// HTTP1.md rule, what is wrong, the bytes, the expected status.
const CASES: &[(u32, &str, &str, u16)] = &[
    (1, "bare CR in the request line", "GET /\r HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (1, "bare CR in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n", 400),
    (2, "bare LF after the request line", "GET / HTTP/1.1\nhost: a\r\n\r\n", 400),
    (2, "bare LF after a field", "GET / HTTP/1.1\r\nhost: a\n\r\n", 400),
    (2, "bare LF at the end of the head", "GET / HTTP/1.1\r\nhost: a\r\n\n", 400),
    (3, "two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (4, "space before the first field", "GET / HTTP/1.1\r\n host: a\r\n\r\n", 400),
    (5, "TLS hello", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n", 400),
    (5, "HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (6, "no version", "GET /\r\n\r\n", 400),
    (6, "HTTP/2.0", "GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
    (6, "HTTP/01.1", "GET / HTTP/01.1\r\nhost: a\r\n\r\n", 400),
    (6, "HTTP/1.10", "GET / HTTP/1.10\r\nhost: a\r\n\r\n", 400),
    (6, "lower case", "GET / http/1.1\r\nhost: a\r\n\r\n", 400),
    (8, "two spaces", "GET  / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (8, "tab", "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (8, "space at the end", "GET / HTTP/1.1 \r\nhost: a\r\n\r\n", 400),
    (9, "method is no token", "G(T / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (11, "control in the target", "GET /\u{1} HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (11, "fragment", "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (11, "non-ASCII", "GET /\u{e4} HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (12, "target without a slash", "GET a HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (13, "absolute form of another scheme", "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (14, "authority form without CONNECT", "GET a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 400),
    (15, "asterisk without OPTIONS", "GET * HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (17, "no Host", "GET / HTTP/1.1\r\nx: a\r\n\r\n", 400),
    (17, "two equal Hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
    (18, "Host with userinfo", "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", 400),
    (18, "Host with a path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    (18, "Host list", "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", 400),
    (18, "Host with a bad port", "GET / HTTP/1.1\r\nhost: a:http\r\n\r\n", 400),
    (18, "empty Host", "GET / HTTP/1.1\r\nhost:\r\n\r\n", 400),
    (20, "no name", "GET / HTTP/1.1\r\nhost: a\r\n: a\r\n\r\n", 400),
    (20, "name is no token", "GET / HTTP/1.1\r\nhost: a\r\nx(y: a\r\n\r\n", 400),
    (20, "no colon", "GET / HTTP/1.1\r\nhost: a\r\nabc\r\n\r\n", 400),
    (20, "NUL in a name", "GET / HTTP/1.1\r\nhost: a\r\nx\u{0}: a\r\n\r\n", 400),
    (21, "space before the colon", "GET / HTTP/1.1\r\nhost: a\r\nx : a\r\n\r\n", 400),
    (22, "folded field", "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", 400),
    (23, "NUL in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: \u{0}\r\n\r\n", 400),
    (23, "control in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: \u{b}\r\n\r\n", 400),
    (30, "length and chunked", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (31, "chunked in HTTP/1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (32, "chunked not last", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    (33, "unknown coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: sdch, chunked\r\n\r\n0\r\n\r\n", 501),
    (34, "chunked twice", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (34, "two lines", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (34, "empty coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n", 400),
    (34, "identity", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", 400),
    (34, "vertical tab", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", 400),
    (35, "signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nabcde", 400),
    (35, "hexadecimal length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\nabcde", 400),
    (35, "empty length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", 400),
    (35, "length with a space", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1 2\r\n\r\nabcde", 400),
    (35, "length beyond 64 bits", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n", 400),
    (36, "different lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef", 400),
    (36, "list of different lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 6\r\n\r\nabcdef", 400),
    (82, "unknown expectation", "POST / HTTP/1.1\r\nhost: a\r\nexpect: more\r\ncontent-length: 1\r\n\r\na", 417),
];

/// The ASCII of the table as it stands, code points above as one byte each.
fn bytes_of(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

#[test]
fn malformed_requests_are_answered_once_and_never_forwarded() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    for (rule, what, text, status) in CASES {
        let mut client = Client::connect(gateway.address());
        // A request behind it must not be served either.
        client.send([&bytes_of(text)[..], b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"].concat());
        refused(&mut client, *status, &format!("rule {rule}: {what}"));
    }
    assert_eq!((origin.connections(), origin.bytes()), (0, 0), "the upstream got something");
    gateway.stop();
}

#[test]
fn malformed_requests_are_refused_in_whatever_pieces_they_come() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut splits = 0;
    for (rule, what, text, status) in CASES {
        let bytes = bytes_of(text);
        for at in 1..bytes.len() {
            let mut client = Client::connect(gateway.address());
            client.send(&bytes[..at]);
            // What is refused at its first piece may be closed before the second.
            let _ = client.try_send(&bytes[at..]);
            refused(&mut client, *status, &format!("rule {rule}: {what}, split at {at}"));
            splits += 1;
        }
    }
    println!("{} cases, {splits} splits", CASES.len());
    assert_eq!((origin.connections(), origin.bytes()), (0, 0), "the upstream got something");
    gateway.stop();
}

fn refused(client: &mut Client, status: u16, what: &str) {
    let response = client.try_response(false).unwrap_or_else(|problem| panic!("{what}: {problem}"));
    assert_eq!(response.status, status, "{what}: {response:?}");
    assert!(response.announces_close(), "{what}: {response:?}");
    client.finish();
    client.expect_end();
}

/// Broken chunks are found while the body is on its way: the head has left, but the upstream never sees a whole request.
#[test]
fn broken_chunks_never_become_a_whole_request() {
    const BODIES: &[(u32, &str, &str)] = &[
        (44, "sign", "+3\r\nabc\r\n0\r\n\r\n"),
        (44, "prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        (44, "space after the size", "3 \r\nabc\r\n0\r\n\r\n"),
        (44, "space before the size", " 3\r\nabc\r\n0\r\n\r\n"),
        (44, "empty size", "\r\nabc\r\n0\r\n\r\n"),
        (44, "too large for 64 bits", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        (45, "size line ends with LF", "3\nabc\r\n0\r\n\r\n"),
        (45, "size line ends with CR", "3\rabc\r\n0\r\n\r\n"),
        (46, "data too long", "3\r\nabcd\r\n0\r\n\r\n"),
        (46, "data too short", "3\r\nab\r\n0\r\n\r\n"),
        (46, "data ends with LF", "3\r\nabc\n0\r\n\r\n"),
        (47, "bare semicolon", "3;\r\nabc\r\n0\r\n\r\n"),
        (47, "control in an extension", "3;a=\u{1}\r\nabc\r\n0\r\n\r\n"),
        (48, "folded trailer", "3\r\nabc\r\n0\r\nx: a\r\n b\r\n\r\n"),
        (48, "trailer without a colon", "3\r\nabc\r\n0\r\nabc\r\n\r\n"),
    ];
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    for (rule, what, text) in BODIES {
        let bytes = bytes_of(&format!("POST /e HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{text}"));
        let head = bytes.len() - text.len();
        for at in head..bytes.len() {
            let mut client = Client::connect(gateway.address());
            client.send(&bytes[..at]);
            let _ = client.try_send(&bytes[at..]);
            client.finish();
            let (answer, _) = client.read_to_end();
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "rule {rule}: {what}, split at {at}: {answer}");
        }
    }
    eventually("every upstream connection is closed", || origin.open() == 0);
    assert_eq!(origin.count(), 0, "{:?}", origin.requests());
    gateway.stop();
}

#[test]
fn oversized_heads_are_refused_with_their_own_status() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let long = "x".repeat(20_000);
    let many = "x: y\r\n".repeat(200);
    for (what, bytes, status) in [
        ("target", format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414),
        ("line", format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"), 431),
        ("fields", format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431),
        ("head", format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", format!("x: {}\r\n", &long[..5000]).repeat(5)), 431),
        ("length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000000\r\n\r\n".to_owned(), 413),
    ] {
        let mut client = Client::connect(gateway.address());
        client.send(bytes);
        refused(&mut client, status, what);
    }
    assert_eq!(origin.bytes(), 0, "the upstream got something");
    gateway.stop();
}

/// HTTP1.md rules 52–56 and 60: what the upstream sees of a connection's own fields.
#[test]
fn hop_by_hop_fields_do_not_pass() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send(
        "GET /a HTTP/1.1\r\nhost: a\r\nconnection: x-mine, keep-alive\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
         te: trailers\r\nupgrade: h2c\r\nx-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nx-kept: 2\r\n\r\n",
    );
    assert_eq!(client.response().status, 200);
    let seen = origin.last();
    for name in ["x-mine", "keep-alive", "proxy-connection", "upgrade", "forwarded"] {
        assert_eq!(seen.header(name), None, "{seen:?}");
    }
    assert_eq!((seen.header("x-kept"), seen.header("x-forwarded-for"), seen.header("via")), (Some("2"), Some("127.0.0.1"), Some("1.1 ringway")));
    gateway.stop();
}

/// HTTP1.md rules 21–23, 71, 75, 76: what an upstream must not send never reaches the client.
#[test]
fn malformed_responses_become_502() {
    const ANSWERS: &[(u32, &str, &str)] = &[
        (71, "no status line", "hello\r\n\r\n"),
        (71, "two digits", "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n"),
        (71, "four digits", "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n"),
        (71, "HTTP/2", "HTTP/2 200\r\ncontent-length: 0\r\n\r\n"),
        (21, "space before the colon", "HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n"),
        (22, "folded field", "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n"),
        (23, "NUL in a value", "HTTP/1.1 200 OK\r\nx: \u{0}\r\ncontent-length: 0\r\n\r\n"),
        (75, "different lengths", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        (75, "no number", "HTTP/1.1 200 OK\r\ncontent-length: a\r\n\r\n"),
        (84, "101 that nobody asked for", "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
    ];
    let origin = Origin::answering(|request| {
        let at: usize = request.path().trim_start_matches('/').parse().unwrap();
        bytes_of(ANSWERS[at].2)
    });
    let gateway = Gateway::start(&config().upstream("app", &[origin.address()], "[upstream.outlier]\nfailures = 0").with("[[route]]\nupstream = \"app\""));
    let mut client = Client::connect(gateway.address());
    for (at, (rule, what, _)) in ANSWERS.iter().enumerate() {
        let response = client.get(&format!("/{at}"));
        assert_eq!(response.status, 502, "rule {rule}: {what}: {response:?}");
    }
    gateway.stop();
}
