//! The little HTTP/1.1 that a load generator and an origin need: heads, body lengths, chunked bodies.
//!
//! Pure: bytes in, numbers out; never names a socket. It trusts its peer more than a gateway may, because both ends of
//! a measurement are ours, but it never accepts an answer whose length is not known.
#![forbid(unsafe_code)]

use memchr::memmem;
use std::fmt;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// This many bytes follow the head (zero when there is no body).
    Exact(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Everything until the connection closes.
    UntilClose,
}

/// What the load generator needs of a response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// Bytes of the head with its blank line.
    pub bytes: usize,
    /// How the body ends.
    pub body: BodyLength,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

/// What the origin needs of a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The path without its query.
    pub path: &'a [u8],
    /// Whether the method is HEAD.
    pub is_head: bool,
    /// Bytes of the head with its blank line.
    pub bytes: usize,
    /// How the body ends.
    pub body: BodyLength,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

/// Why bytes are not HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpFault {
    /// The first line is not a status or request line.
    UnreadableFirstLine,
    /// Content-Length is no number, or given twice with different values.
    ConflictingContentLength,
    /// A chunk size line is not a hexadecimal number, or a chunk does not end in CRLF.
    BrokenChunk,
}

impl fmt::Display for HttpFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            HttpFault::UnreadableFirstLine => "the first line of the head is malformed",
            HttpFault::ConflictingContentLength => "Content-Length is malformed",
            HttpFault::BrokenChunk => "a chunk is malformed",
        })
    }
}

/// Reads a response head; `None` while its end has not arrived. `to_head` says that the request was a HEAD.
pub fn parse_response(bytes: &[u8], to_head: bool) -> Result<Option<ResponseHead>, HttpFault> {
    let Some(end) = head_bytes(bytes) else {
        return Ok(None);
    };
    let head = &bytes[..end];
    // RFC 9112 §4: status-line = HTTP-version SP status-code SP [ reason-phrase ]
    if head.len() < 13 || !head.starts_with(b"HTTP/1.") || head[8] != b' ' {
        return Err(HttpFault::UnreadableFirstLine);
    }
    let status = decimal(&head[9..12]).ok_or(HttpFault::UnreadableFirstLine)? as u16;
    let fields = framing_fields(head)?;
    // RFC 9112 §6.3 items 1, 3, 4, 5 and 8, in this order.
    let body = if to_head || status / 100 == 1 || status == 204 || status == 304 {
        BodyLength::Exact(0)
    } else if fields.chunked {
        BodyLength::Chunked
    } else if let Some(length) = fields.content_length {
        BodyLength::Exact(length)
    } else {
        BodyLength::UntilClose
    };
    let persistent = if head[7] == b'1' { !fields.close } else { fields.keep_alive };
    Ok(Some(ResponseHead { status, bytes: end, body, keep_alive: persistent && body != BodyLength::UntilClose }))
}

/// Reads a request head; `None` while its end has not arrived.
pub fn parse_request(bytes: &[u8]) -> Result<Option<RequestHead<'_>>, HttpFault> {
    let Some(end) = head_bytes(bytes) else {
        return Ok(None);
    };
    let head = &bytes[..end];
    let line_end = memmem::find(head, b"\r\n").ok_or(HttpFault::UnreadableFirstLine)?;
    let mut words = head[..line_end].split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(HttpFault::UnreadableFirstLine);
    };
    if !version.starts_with(b"HTTP/1.") || version.len() != 8 || target.is_empty() {
        return Err(HttpFault::UnreadableFirstLine);
    }
    let path = target.split(|&byte| byte == b'?').next().unwrap_or(target);
    let fields = framing_fields(head)?;
    let body = if fields.chunked { BodyLength::Chunked } else { BodyLength::Exact(fields.content_length.unwrap_or(0)) };
    let keep_alive = if version[7] == b'1' { !fields.close } else { fields.keep_alive };
    Ok(Some(RequestHead { path, is_head: method == b"HEAD", bytes: end, body, keep_alive }))
}

/// Bytes up to and with the blank line that ends a head.
fn head_bytes(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

#[derive(Default)]
struct FramingFields {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

/// The three fields that decide where a message ends; all others are passed over by their first letter.
fn framing_fields(head: &[u8]) -> Result<FramingFields, HttpFault> {
    let mut fields = FramingFields::default();
    let mut rest = head;
    while let Some(at) = memchr::memchr(b'\n', rest) {
        rest = &rest[at + 1..];
        match rest.first() {
            Some(b'c' | b'C' | b't' | b'T') => {}
            Some(_) => continue,
            None => break,
        }
        let line = &rest[..memchr::memchr(b'\r', rest).unwrap_or(rest.len())];
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(HttpFault::ConflictingContentLength)?;
            if fields.content_length.is_some_and(|earlier| earlier != length) {
                return Err(HttpFault::ConflictingContentLength);
            }
            fields.content_length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            fields.chunked = value.len() >= 7 && value[value.len() - 7..].eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"connection") {
            fields.close |= value.eq_ignore_ascii_case(b"close");
            fields.keep_alive |= value.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    Ok(fields)
}

/// A number of decimal digits only, as RFC 9110 §8.6 asks of Content-Length.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Where a chunked decoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkPhase {
    SizeDigits { any: bool },
    SizeRest,
    Payload,
    PayloadEnd,
    TrailerStart,
    TrailerLine,
    Done,
}

/// Follows a chunked body and counts its payload without keeping it.
///
/// Feeding a body in any split gives the same counts: the state is one byte position in the grammar of RFC 9112 §7.1.
#[derive(Debug, Clone, Copy)]
pub struct ChunkedDecoder {
    phase: ChunkPhase,
    remaining: u64,
    payload_bytes: u64,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self { phase: ChunkPhase::SizeDigits { any: false }, remaining: 0, payload_bytes: 0 }
    }
}

impl ChunkedDecoder {
    /// Consumes bytes of the body and says how many; fewer than given only when the body ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, HttpFault> {
        let mut at = 0;
        while at < bytes.len() && self.phase != ChunkPhase::Done {
            if self.phase == ChunkPhase::Payload {
                let take = self.remaining.min((bytes.len() - at) as u64);
                self.remaining -= take;
                self.payload_bytes += take;
                at += take as usize;
                if self.remaining == 0 {
                    self.phase = ChunkPhase::PayloadEnd;
                }
                continue;
            }
            self.phase = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// Whether the last chunk and the trailers were seen.
    pub fn is_done(&self) -> bool {
        self.phase == ChunkPhase::Done
    }

    /// Payload bytes so far.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    fn step(&mut self, byte: u8) -> Result<ChunkPhase, HttpFault> {
        Ok(match (self.phase, byte) {
            (ChunkPhase::SizeDigits { .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).ok_or(HttpFault::BrokenChunk)?;
                let shifted = self.remaining.checked_mul(16).ok_or(HttpFault::BrokenChunk)?;
                self.remaining = shifted + u64::from(digit);
                ChunkPhase::SizeDigits { any: true }
            }
            (ChunkPhase::SizeDigits { any: true }, b'\n') | (ChunkPhase::SizeRest, b'\n') => {
                if self.remaining == 0 {
                    ChunkPhase::TrailerStart
                } else {
                    ChunkPhase::Payload
                }
            }
            (ChunkPhase::SizeDigits { any: true }, b'\r' | b';' | b' ' | b'\t') => ChunkPhase::SizeRest,
            (ChunkPhase::SizeRest, _) => ChunkPhase::SizeRest,
            (ChunkPhase::PayloadEnd, b'\r') => ChunkPhase::PayloadEnd,
            (ChunkPhase::PayloadEnd, b'\n') => ChunkPhase::SizeDigits { any: false },
            (ChunkPhase::TrailerStart, b'\r') => ChunkPhase::TrailerStart,
            (ChunkPhase::TrailerStart, b'\n') => ChunkPhase::Done,
            (ChunkPhase::TrailerStart | ChunkPhase::TrailerLine, byte) => {
                if byte == b'\n' {
                    ChunkPhase::TrailerStart
                } else {
                    ChunkPhase::TrailerLine
                }
            }
            _ => return Err(HttpFault::BrokenChunk),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_lengths_follow_rfc_9112_section_6_3() {
        let cases: [(&str, bool, BodyLength, bool); 8] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, BodyLength::Exact(5), true),
            ("HTTP/1.1 200 OK\r\ncontent-length:5\r\nConnection: close\r\n\r\n", false, BodyLength::Exact(5), false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, BodyLength::Exact(0), true),
            ("HTTP/1.1 204 No Content\r\n\r\n", false, BodyLength::Exact(0), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, BodyLength::Chunked, true),
            ("HTTP/1.1 200 OK\r\n\r\n", false, BodyLength::UntilClose, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, BodyLength::Exact(0), false),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, BodyLength::Exact(0), true),
        ];
        for (text, to_head, body, keep_alive) in cases {
            let head = parse_response(text.as_bytes(), to_head).expect(text).expect(text);
            assert_eq!((head.body, head.keep_alive, head.bytes), (body, keep_alive, text.len()), "{text}");
        }
    }

    #[test]
    fn a_head_in_pieces_is_unfinished_until_its_last_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse_response(&text[..end], false), Ok(None), "first {end} bytes");
        }
    }

    #[test]
    fn malformed_heads_are_faults() {
        assert_eq!(parse_response(b"ICY 200 OK\r\n\r\n", false), Err(HttpFault::UnreadableFirstLine));
        assert_eq!(parse_response(b"HTTP/1.1 2x0 OK\r\n\r\n", false), Err(HttpFault::UnreadableFirstLine));
        let twice = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(parse_response(twice, false), Err(HttpFault::ConflictingContentLength));
        assert_eq!(parse_request(b"GET /\r\n\r\n"), Err(HttpFault::UnreadableFirstLine));
        assert_eq!(parse_request(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), Err(HttpFault::ConflictingContentLength));
    }

    #[test]
    fn a_request_gives_path_method_and_body() {
        let text = b"HEAD /1k?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let head = parse_request(text).expect("valid").expect("whole");
        assert_eq!((head.path, head.is_head, head.body), (&b"/1k"[..], true, BodyLength::Exact(3)));
        assert_eq!(head.bytes, text.len() - 3);
        let old = parse_request(b"GET / HTTP/1.0\r\n\r\n").expect("valid").expect("whole");
        assert!(!old.keep_alive);
    }

    #[test]
    fn a_chunked_body_counts_the_same_in_every_split() {
        let body = b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\nNEXT";
        for first in 0..body.len() {
            let mut decoder = ChunkedDecoder::default();
            let mut at = decoder.feed(&body[..first]).expect("valid");
            if at == first {
                at += decoder.feed(&body[first..]).expect("valid");
            }
            assert!(decoder.is_done(), "split at {first}");
            assert_eq!((decoder.payload_bytes(), at), (15, body.len() - 4), "split at {first}");
        }
    }

    #[test]
    fn malformed_chunks_are_faults() {
        for body in [&b"\r\n"[..], b"x\r\n", b"2\r\nabc", b"fffffffffffffffff\r\n"] {
            assert_eq!(ChunkedDecoder::default().feed(body), Err(HttpFault::BrokenChunk), "{body:?}");
        }
    }

    #[test]
    fn decimal_takes_digits_only() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"+1", b"1 ", b"18446744073709551616", b"0x1"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }
}
