//! What the origin answers to a path: whole responses, laid out before they are asked for.
//!
//! Pure: a path goes in, bytes and what to do after them come out. Sockets and time are in `origin/server.rs`.
//! Bodies follow one pattern (`pattern_byte`), so that a client can check every byte of a proxied answer.
#![forbid(unsafe_code)]

use crate::http1::decimal;
use std::collections::HashMap;
use std::rc::Rc;

/// What happens once the bytes of an answer are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// The connection waits for the next request.
    Keep,
    /// The connection closes in order.
    Close,
    /// The connection closes with a reset.
    Reset,
    /// Nothing more is sent and the connection stays open.
    Hang,
}

/// One answer: bytes to send, after which delay, and what then.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Head and body.
    pub bytes: Rc<[u8]>,
    /// How many of `bytes` are sent (less than all in a truncated answer or for HEAD).
    pub send_bytes: usize,
    /// Milliseconds to wait before sending.
    pub delay_ms: u64,
    /// What happens next.
    pub then: Afterwards,
}

/// The largest body that `/bytes/N` and `/chunked/N` give.
pub const BODY_BYTES_MAX: u64 = 64 << 20;
/// The longest delay that `/delay/MS` gives.
pub const DELAY_MS_MAX: u64 = 60_000;
/// How many sizes of `/bytes/N` are kept.
const CACHED_SIZES_MAX: usize = 8;

/// The byte at `index` of every body of the origin: printable, and different at every power of two.
pub fn pattern_byte(index: u64) -> u8 {
    b'a' + ((index ^ (index >> 8) ^ (index >> 16)) % 26) as u8
}

/// The first `bytes` bytes of the body pattern.
pub fn pattern(bytes: u64) -> Vec<u8> {
    (0..bytes).map(pattern_byte).collect()
}

/// The origin's answers; one set per thread, so nothing is shared.
pub struct Answers {
    fixed: [(&'static [u8], Prepared); 4],
    sized: HashMap<u64, Prepared>,
}

#[derive(Clone)]
struct Prepared {
    bytes: Rc<[u8]>,
    head_bytes: usize,
}

impl Answers {
    /// Lays out the bodies that have a name.
    pub fn new() -> Self {
        let fixed = [(&b"/0"[..], 0), (b"/1k", 1 << 10), (b"/64k", 64 << 10), (b"/1m", 1 << 20)];
        Self { fixed: fixed.map(|(path, bytes)| (path, whole("200 OK", "", &pattern(bytes)))), sized: HashMap::new() }
    }

    /// The answer to a request for `path`; `head` is the whole request head, for `/echo`.
    pub fn answer(&mut self, path: &[u8], is_head: bool, head: &[u8]) -> Answer {
        for (fixed_path, prepared) in &self.fixed {
            if *fixed_path == path {
                return prepared.answer(is_head);
            }
        }
        let text = String::from_utf8_lossy(path);
        let mut words = text.trim_start_matches('/').splitn(2, '/');
        let (kind, argument) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let number = decimal(argument.as_bytes());
        match (kind, number) {
            ("bytes", Some(bytes)) if bytes <= BODY_BYTES_MAX => self.sized(bytes).answer(is_head),
            ("chunked", Some(bytes)) if bytes <= BODY_BYTES_MAX => chunked(bytes).answer(is_head),
            ("delay", Some(delay_ms)) if delay_ms <= DELAY_MS_MAX => Answer { delay_ms, ..self.fixed[0].1.answer(is_head) },
            ("status", Some(status)) if (200..600).contains(&status) => whole(&format!("{status} Asked For"), "", b"").answer(is_head),
            ("echo", _) => whole("200 OK", "Content-Type: text/plain\r\n", head).answer(is_head),
            ("fault", _) => self.fault(argument),
            ("", None) => self.fixed[0].1.answer(is_head),
            _ => whole("404 Not Found", "Content-Type: text/plain\r\n", USAGE.as_bytes()).answer(is_head),
        }
    }

    fn sized(&mut self, bytes: u64) -> Prepared {
        if let Some(prepared) = self.sized.get(&bytes) {
            return prepared.clone();
        }
        let prepared = whole("200 OK", "", &pattern(bytes));
        if self.sized.len() < CACHED_SIZES_MAX {
            self.sized.insert(bytes, prepared.clone());
        }
        prepared
    }

    fn fault(&self, name: &str) -> Answer {
        let kilobyte = &self.fixed[1].1;
        let half = kilobyte.head_bytes + 512;
        let (bytes, send_bytes, then) = match name {
            "close" => (kilobyte.bytes.clone(), 0, Afterwards::Close),
            "hang" => (kilobyte.bytes.clone(), 0, Afterwards::Hang),
            "reset" => (kilobyte.bytes.clone(), 0, Afterwards::Reset),
            "truncate" => (kilobyte.bytes.clone(), half, Afterwards::Close),
            "stall" => (kilobyte.bytes.clone(), half, Afterwards::Hang),
            "reset-body" => (kilobyte.bytes.clone(), half, Afterwards::Reset),
            "half-head" => (kilobyte.bytes.clone(), kilobyte.head_bytes / 2, Afterwards::Close),
            "close-after" => (kilobyte.bytes.clone(), kilobyte.bytes.len(), Afterwards::Close),
            "garbage" => (Rc::from(&b"\x00\x01this is not HTTP\r\n\r\n"[..]), 22, Afterwards::Close),
            _ => {
                return whole("404 Not Found", "Content-Type: text/plain\r\n", USAGE.as_bytes()).answer(false);
            }
        };
        let send_bytes = send_bytes.min(bytes.len());
        Answer { bytes, send_bytes, delay_ms: 0, then }
    }
}

impl Prepared {
    fn answer(&self, is_head: bool) -> Answer {
        let send_bytes = if is_head { self.head_bytes } else { self.bytes.len() };
        Answer { bytes: self.bytes.clone(), send_bytes, delay_ms: 0, then: Afterwards::Keep }
    }
}

/// A response with Content-Length. The fields are those that a usual origin sends; the date is fixed on purpose.
fn whole(status: &str, fields: &str, body: &[u8]) -> Prepared {
    let content_type = if fields.is_empty() { "Content-Type: application/octet-stream\r\n" } else { fields };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nServer: origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n{content_type}\
         Cache-Control: no-store\r\nX-Origin: ringway-bench\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    let head_bytes = bytes.len();
    bytes.extend_from_slice(body);
    Prepared { bytes: Rc::from(bytes), head_bytes }
}

/// A response in chunks of at most 16 KiB.
fn chunked(body_bytes: u64) -> Prepared {
    let mut bytes = b"HTTP/1.1 200 OK\r\nServer: origin\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let head_bytes = bytes.len();
    for chunk in pattern(body_bytes).chunks(16 << 10) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    Prepared { bytes: Rc::from(bytes), head_bytes }
}

const USAGE: &str = "/0 /1k /64k /1m /bytes/N /chunked/N /delay/MS /status/N /echo \
/fault/{close,hang,reset,truncate,stall,reset-body,half-head,close-after,garbage}\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{BodyLength, parse_response};

    fn sent(path: &str) -> (Answer, Vec<u8>) {
        let answer = Answers::new().answer(path.as_bytes(), false, b"GET /echo HTTP/1.1\r\nA: b\r\n\r\n");
        let bytes = answer.bytes[..answer.send_bytes].to_vec();
        (answer, bytes)
    }

    #[test]
    fn sizes_are_what_the_path_says() {
        for (path, body) in [("/", 0), ("/0", 0), ("/1k", 1024), ("/64k", 65536), ("/1m", 1 << 20), ("/bytes/777", 777)] {
            let (_, bytes) = sent(path);
            let head = parse_response(&bytes, false).expect("valid").expect("whole");
            assert_eq!(head.body, BodyLength::Exact(body), "{path}");
            assert_eq!(&bytes[head.bytes..], pattern(body), "{path}");
        }
    }

    #[test]
    fn head_sends_the_length_but_not_the_body() {
        let answer = Answers::new().answer(b"/1k", true, b"");
        let head = parse_response(&answer.bytes[..answer.send_bytes], true).expect("valid").expect("whole");
        assert_eq!(head.bytes, answer.send_bytes);
    }

    #[test]
    fn echo_gives_the_request_head_back() {
        assert!(sent("/echo").1.ends_with(b"\r\n\r\nGET /echo HTTP/1.1\r\nA: b\r\n\r\n"));
    }

    #[test]
    fn faults_do_what_they_say() {
        assert_eq!(sent("/fault/close").1.len(), 0);
        assert_eq!(sent("/fault/close").0.then, Afterwards::Close);
        assert_eq!(sent("/fault/reset").0.then, Afterwards::Reset);
        let (answer, bytes) = sent("/fault/truncate");
        let head = parse_response(&bytes, false).expect("valid").expect("whole");
        assert_eq!((head.body, bytes.len() - head.bytes), (BodyLength::Exact(1024), 512));
        assert_eq!(answer.then, Afterwards::Close);
        assert!(parse_response(&sent("/fault/garbage").1, false).is_err());
    }

    #[test]
    fn limits_hold_and_unknown_paths_say_what_exists() {
        for path in ["/bytes/67108865", "/delay/60001", "/nothing", "/fault/unknown", "/status/99"] {
            assert!(sent(path).1.starts_with(b"HTTP/1.1 404"), "{path}");
        }
        assert_eq!(sent("/delay/25").0.delay_ms, 25);
        assert!(sent("/status/503").1.starts_with(b"HTTP/1.1 503"));
    }

    #[test]
    fn a_chunked_answer_decodes_to_its_size() {
        let (_, bytes) = sent("/chunked/40000");
        let head = parse_response(&bytes, false).expect("valid").expect("whole");
        let mut decoder = crate::http1::ChunkedDecoder::default();
        assert_eq!(decoder.feed(&bytes[head.bytes..]), Ok(bytes.len() - head.bytes));
        assert!(decoder.is_done());
        assert_eq!(decoder.payload_bytes(), 40000);
    }
}
