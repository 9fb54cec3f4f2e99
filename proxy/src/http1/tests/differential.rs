//! Our parser against httparse on mutated heads: whatever we accept, httparse accepts with the same parts, names and values.

use super::super::bytes::trim;
use super::super::head::{HeadLimits, ResponseTo};
use super::super::testing::{SeenRequest, SeenResponse, request_parts, response_parts, text};

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: x/1 (y; z)\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
    "POST http://h/p HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\nX:\t y z \r\n\r\nhello",
    "PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nCookie: a=b; c=\"d\"\r\n\r\n0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: [::1]\r\nExpect: 100-continue\r\nX-Long-Name-That-Crosses-A-Block-Of-Sixty-Four-Bytes-Somewhere: 1\r\n\r\n",
];

const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.0 404 Not Found\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 304 \r\nETag: \"x\"\r\nTransfer-Encoding: chunked\r\nVary:\r\n\r\n",
];

const PIECES: &[&str] = &[
    "\r\n",
    "\r",
    "\n",
    " ",
    "\t",
    ":",
    "\0",
    "\x7f",
    "\u{80}",
    "\r\n ",
    "\r\nHost: b",
    "\r\nContent-Length: 5",
    "\r\nTransfer-Encoding: chunked",
    ",",
    "_",
    "HTTP/1.1",
    "#",
    "?",
    "//",
    "@",
    ";",
    "\"",
    "\r\n\r\n",
    "a",
    "é",
];

fn mutated(random: &mut fastrand::Rng, seeds: &[&str]) -> Vec<u8> {
    let mut head = random.choice(seeds).map(|seed| seed.as_bytes().to_vec()).unwrap_or_default();
    for _ in 0..random.usize(0..5) {
        let at = random.usize(..=head.len());
        match random.usize(..4) {
            0 => drop(head.splice(at..at, random.choice(PIECES).copied().unwrap_or_default().bytes())),
            1 if at < head.len() => drop(head.remove(at)),
            2 if at < head.len() => head[at] = random.u8(..),
            _ => {
                let end = random.usize(at..=head.len().min(at + 12));
                let copy = head[at..end].to_vec();
                drop(head.splice(at..at, copy));
            }
        }
    }
    head
}

fn same_headers(ours: &[(String, String)], theirs: &[httparse::Header<'_>]) {
    assert_eq!(ours.len(), theirs.len());
    for ((name, value), header) in ours.iter().zip(theirs) {
        // httparse leaves HTAB at the end of a value in some releases.
        assert_eq!((name.as_str(), value.as_str()), (text(header.name.as_bytes()).as_str(), text(trim(header.value)).as_str()));
    }
}

fn compare_request(input: &[u8], seen: &SeenRequest) {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut theirs = httparse::Request::new(&mut headers);
    // httparse knows no minor version but 0 and 1.
    let known: Vec<u8> = match (2..=9).map(|minor| format!(" HTTP/1.{minor}\r\n")).find(|v| input.windows(v.len()).any(|w| w == v.as_bytes())) {
        Some(version) => String::from_utf8_lossy(input).replacen(&version, " HTTP/1.1\r\n", 1).into_bytes(),
        None => input.to_vec(),
    };
    match theirs.parse(&known) {
        Ok(httparse::Status::Complete(len)) => assert_eq!(len, seen.facts.head_bytes as usize, "{}", input.escape_ascii()),
        other => panic!("we accept what httparse does not ({other:?}): {}", input.escape_ascii()),
    }
    assert_eq!(theirs.method.map(|m| text(m.as_bytes())), Some(seen.method.clone()));
    assert_eq!(theirs.path.map(|p| text(p.as_bytes())), Some(seen.target.clone()));
    assert_eq!(theirs.version, Some(seen.version - 10));
    same_headers(&seen.headers, theirs.headers);
}

fn compare_response(input: &[u8], seen: &SeenResponse) {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut theirs = httparse::Response::new(&mut headers);
    match theirs.parse(input) {
        Ok(httparse::Status::Complete(len)) => assert_eq!(len, seen.facts.head_bytes as usize),
        // Minor versions above 1 are fine for us.
        Err(httparse::Error::Version) => return,
        other => panic!("we accept what httparse does not ({other:?}): {}", input.escape_ascii()),
    }
    assert_eq!((theirs.code, theirs.version), (Some(seen.facts.status), Some(seen.version - 10)));
    // httparse gives no reason that is not ASCII.
    if seen.reason.is_ascii() && !seen.reason.contains("\\x") {
        assert_eq!(theirs.reason.map(|r| text(r.as_bytes())), Some(seen.reason.clone()));
    }
    same_headers(&seen.headers, theirs.headers);
}

#[test]
fn accepted_requests_are_the_same_to_httparse() {
    let seed = 0x5eed_0002;
    println!("seed {seed:#x}");
    let mut random = fastrand::Rng::with_seed(seed);
    let limits = HeadLimits { underscores: super::super::head::UnderscorePolicy::Keep, ..HeadLimits::default() };
    let mut accepted = 0;
    for _ in 0..60_000 {
        let input = mutated(&mut random, REQUESTS);
        if let Ok(Some(seen)) = request_parts(&input, &limits) {
            compare_request(&input, &seen);
            accepted += 1;
        }
    }
    assert!(accepted > 10_000, "only {accepted} heads were accepted: the comparison says little");
}

#[test]
fn accepted_responses_are_the_same_to_httparse() {
    let seed = 0x5eed_0003;
    println!("seed {seed:#x}");
    let mut random = fastrand::Rng::with_seed(seed);
    let to = ResponseTo { method_id: ringway_abi::ids::METHOD_GET, upgrade: true };
    let mut accepted = 0;
    for _ in 0..60_000 {
        let input = mutated(&mut random, RESPONSES);
        if let Ok(Some(seen)) = response_parts(&input, &HeadLimits::default(), to) {
            compare_response(&input, &seen);
            accepted += 1;
        }
    }
    assert!(accepted > 10_000, "only {accepted} heads were accepted: the comparison says little");
}
