//! Follows one answer from its first byte to its last, and says whether it is the one that was asked for.
//!
//! Pure: the engine hands in what it received; this module never sees a socket. Bytes of a large body may be skipped
//! without being seen (`skippable_bytes`), because the kernel can throw them away for less than it copies them.
#![forbid(unsafe_code)]

use crate::http1::{BodyLength, ChunkedDecoder, HttpFault, ResponseHead, parse_response};

/// Where the answer stands.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Head,
    Exact { remaining: u64 },
    Chunked(ChunkedDecoder),
    UntilClose,
}

/// A finished answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its status code.
    pub status: u16,
    /// Its body's length, decoded.
    pub body_bytes: u64,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

/// What became of bytes that were handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed; this many of those given were used up.
    Unfinished(usize),
    /// The answer ended after this many of the bytes given.
    Finished(Finished, usize),
}

/// The state of one answer.
#[derive(Debug, Clone, Copy)]
pub struct AnswerReader {
    phase: Phase,
    head: ResponseHead,
    body_bytes: u64,
}

impl AnswerReader {
    /// Before the first byte.
    pub fn new() -> Self {
        let head = ResponseHead { status: 0, bytes: 0, body: BodyLength::Exact(0), keep_alive: false };
        Self { phase: Phase::Head, head, body_bytes: 0 }
    }

    /// Takes received bytes. Bytes of an unfinished head are not used up: the caller gives them again with more behind them.
    pub fn take(&mut self, bytes: &[u8], to_head: bool) -> Result<Progress, HttpFault> {
        let mut used = 0;
        while matches!(self.phase, Phase::Head) {
            let Some(head) = parse_response(&bytes[used..], to_head)? else {
                return Ok(Progress::Unfinished(used));
            };
            used += head.bytes;
            // RFC 9110 §15.2: interim responses come before the final one and have no body.
            if head.status / 100 == 1 && head.status != 101 {
                continue;
            }
            self.head = head;
            self.phase = match head.body {
                BodyLength::Exact(length) => {
                    self.body_bytes = length;
                    Phase::Exact { remaining: length }
                }
                BodyLength::Chunked => Phase::Chunked(ChunkedDecoder::default()),
                BodyLength::UntilClose => Phase::UntilClose,
            };
        }
        let body = &bytes[used..];
        let ended = match &mut self.phase {
            Phase::Head => false,
            Phase::Exact { remaining } => {
                let taken = (*remaining).min(body.len() as u64);
                *remaining -= taken;
                used += taken as usize;
                *remaining == 0
            }
            Phase::Chunked(decoder) => {
                used += decoder.feed(body)?;
                self.body_bytes = decoder.payload_bytes();
                decoder.is_done()
            }
            Phase::UntilClose => {
                self.body_bytes += body.len() as u64;
                used += body.len();
                false
            }
        };
        Ok(if ended { Progress::Finished(self.finished(), used) } else { Progress::Unfinished(used) })
    }

    /// Body bytes that are certain to come and need not be looked at.
    pub fn skippable_bytes(&self) -> u64 {
        if let Phase::Exact { remaining } = self.phase { remaining } else { 0 }
    }

    /// Takes note of `bytes` body bytes that were thrown away unseen; at most `skippable_bytes`.
    pub fn skip(&mut self, bytes: u64) -> Option<Finished> {
        let Phase::Exact { remaining } = &mut self.phase else {
            return None;
        };
        debug_assert!(bytes <= *remaining);
        *remaining = remaining.saturating_sub(bytes);
        (*remaining == 0).then(|| self.finished())
    }

    /// The connection closed; that ends an answer only when nothing else does.
    pub fn close(&self) -> Option<Finished> {
        matches!(self.phase, Phase::UntilClose).then(|| self.finished())
    }

    fn finished(&self) -> Finished {
        Finished { status: self.head.status, body_bytes: self.body_bytes, keep_alive: self.head.keep_alive }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_two_pieces_ends_at_the_same_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1";
        for first in 0..=text.len() {
            let mut reader = AnswerReader::new();
            let progress = reader.take(&text[..first], false).expect("valid");
            let (finished, used) = match progress {
                Progress::Finished(finished, used) => (finished, used),
                Progress::Unfinished(used) => match reader.take(&text[used..], false).expect("valid") {
                    Progress::Finished(finished, more) => (finished, used + more),
                    Progress::Unfinished(_) => panic!("unfinished when split at {first}"),
                },
            };
            assert_eq!(finished, Finished { status: 200, body_bytes: 5, keep_alive: true });
            assert_eq!(used, text.len() - 8, "split at {first}");
        }
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        let finished = Finished { status: 204, body_bytes: 0, keep_alive: true };
        assert_eq!(AnswerReader::new().take(text, false), Ok(Progress::Finished(finished, text.len())));
    }

    #[test]
    fn skipped_bytes_count_towards_the_length() {
        let mut reader = AnswerReader::new();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc";
        assert_eq!(reader.take(head, false), Ok(Progress::Unfinished(head.len())));
        assert_eq!(reader.skippable_bytes(), 97);
        assert_eq!(reader.skip(90), None);
        assert_eq!(reader.skip(7).map(|finished| finished.body_bytes), Some(100));
    }

    #[test]
    fn only_an_answer_without_length_ends_with_the_connection() {
        let mut endless = AnswerReader::new();
        endless.take(b"HTTP/1.1 200 OK\r\n\r\nabc", false).expect("valid");
        let finished = endless.close().expect("ended by the close");
        assert_eq!((finished.body_bytes, finished.keep_alive), (3, false));
        let mut cut = AnswerReader::new();
        cut.take(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", false).expect("valid");
        assert_eq!(cut.close(), None);
    }
}
