//! The chunked transfer coding, taken off in any pieces.
//!
//! [`ChunkedDecoder`] is a small state machine over the bytes of a body as they arrive. It hands out ranges of the input that are data
//! and keeps none of it: size lines, extensions and the trailer section are checked byte by byte and forgotten. Trailers are never
//! forwarded (RFC 9112 §7.1.2 allows to discard them), so they need no list of forbidden names.
//!
//! Invariant: the decoder's answer does not depend on the pieces in which the body arrives; after a fault or [`ChunkStep::Done`] it
//! consumes nothing more.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::bytes::{CONTROL, TOKEN, is, is_blank};
use crate::error::{ClientFault, UpstreamFault};

/// Bounds of one chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Digits of one chunk size; more than 16 count as 16.
    pub size_digits: u8,
    /// Bytes of all extensions of the body, without their semicolons.
    pub extension_bytes: u32,
    /// Bytes of the trailer section.
    pub trailer_bytes: u32,
    /// Fields of the trailer section.
    pub trailer_fields: u32,
}

impl Default for ChunkLimits {
    fn default() -> ChunkLimits {
        ChunkLimits { size_digits: 16, extension_bytes: 4096, trailer_bytes: 8192, trailer_fields: 64 }
    }
}

/// The decoder of one body.
#[derive(Debug, Clone, Copy)]
pub struct ChunkedDecoder {
    state: State,
    digits_max: u8,
    digits: u8,
    /// Of the chunk at hand: its size while that is read, then the bytes that are still to come.
    left: u64,
    extension_bytes_left: u32,
    trailer_bytes_left: u32,
    trailer_fields_left: u32,
}

/// What one step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkStep {
    /// Body bytes: this range of the input. Never empty.
    Data {
        /// In the input that was passed.
        at: Range<usize>,
    },
    /// The input is used up.
    NeedMore,
    /// The body is complete; the cursor stands behind it.
    Done,
}

/// What is wrong with a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkFault {
    /// The size is not `1*HEXDIG`.
    BadChunkSize,
    /// The size does not fit, or has too many digits.
    ChunkSizeTooLarge,
    /// An extension is malformed.
    BadChunkExtension,
    /// There are too many bytes of extensions.
    ChunkExtensionsTooLarge,
    /// The size line does not end with CRLF.
    BadChunkLineEnd,
    /// The data are not followed by CRLF.
    BadChunkDataEnd,
    /// A trailer field is malformed.
    BadTrailer,
    /// The trailer section is too long.
    TrailersTooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// Behind `;`: a name must come.
    ExtensionStart,
    ExtensionName,
    ExtensionNameEnd,
    ExtensionValueStart,
    ExtensionValue,
    ExtensionQuoted,
    ExtensionEscape,
    ExtensionQuoteEnd,
    ExtensionValueEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    FinalLf,
    Done,
    Failed(ChunkFault),
}

impl ChunkedDecoder {
    /// A decoder at the start of a body.
    pub fn new(limits: ChunkLimits) -> ChunkedDecoder {
        ChunkedDecoder {
            state: State::Size,
            digits_max: limits.size_digits.min(16),
            digits: 0,
            left: 0,
            extension_bytes_left: limits.extension_bytes,
            trailer_bytes_left: limits.trailer_bytes,
            trailer_fields_left: limits.trailer_fields,
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes on from `input[*at..]` and moves `*at` behind what was consumed. `*at <= input.len()`.
    ///
    /// # Errors
    /// What is wrong with the body; every later call gives the same.
    pub fn step(&mut self, input: &[u8], at: &mut usize) -> Result<ChunkStep, ChunkFault> {
        loop {
            match self.state {
                State::Done => return Ok(ChunkStep::Done),
                State::Failed(fault) => return Err(fault),
                State::Data => {
                    let ready = input.len() - *at;
                    if ready == 0 {
                        return Ok(ChunkStep::NeedMore);
                    }
                    let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(ready);
                    let from = *at;
                    *at += len;
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(ChunkStep::Data { at: from..*at });
                }
                _ => {
                    let Some(byte) = input.get(*at) else { return Ok(ChunkStep::NeedMore) };
                    match self.next(*byte) {
                        Ok(state) => self.state = state,
                        Err(fault) => {
                            self.state = State::Failed(fault);
                            return Err(fault);
                        }
                    }
                    *at += 1;
                }
            }
        }
    }

    /// The state behind `byte`, outside data.
    fn next(&mut self, byte: u8) -> Result<State, ChunkFault> {
        match self.state {
            State::Size => self.size(byte),
            State::SizeLf => self.size_line_end(byte),
            State::DataCr => expect(byte, b'\r', State::DataLf, ChunkFault::BadChunkDataEnd),
            State::DataLf => {
                self.digits = 0;
                expect(byte, b'\n', State::Size, ChunkFault::BadChunkDataEnd)
            }
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => self.trailer(byte),
            State::FinalLf => expect(byte, b'\n', State::Done, ChunkFault::BadTrailer),
            State::Data | State::Done | State::Failed(_) => Ok(self.state),
            _ => self.extension(byte),
        }
    }

    // RFC 9112 §7.1: chunk-size = 1*HEXDIG; "Recipients MUST anticipate potentially large hexadecimal numerals and prevent parsing
    // errors due to integer conversion overflows".
    fn size(&mut self, byte: u8) -> Result<State, ChunkFault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => return Ok(State::SizeLf),
            b';' if self.digits > 0 => return Ok(State::ExtensionStart),
            b'\n' if self.digits > 0 => return Err(ChunkFault::BadChunkLineEnd),
            _ => return Err(ChunkFault::BadChunkSize),
        };
        // 59 bits before this digit: at most 63 behind it.
        if self.digits >= self.digits_max || self.left >> 59 != 0 {
            return Err(ChunkFault::ChunkSizeTooLarge);
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn size_line_end(&mut self, byte: u8) -> Result<State, ChunkFault> {
        let state = if self.left == 0 { State::TrailerStart } else { State::Data };
        expect(byte, b'\n', state, ChunkFault::BadChunkLineEnd)
    }

    // RFC 9112 §7.1.1: chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ); "A recipient MUST ignore unrecognized
    // chunk extensions" and "ought to limit the total length". A blank before the first `;` is refused with the size line.
    fn extension(&mut self, byte: u8) -> Result<State, ChunkFault> {
        // The end of the line is not part of an extension.
        let counted = u32::from(byte != b'\r');
        self.extension_bytes_left = self.extension_bytes_left.checked_sub(counted).ok_or(ChunkFault::ChunkExtensionsTooLarge)?;
        let token = is(byte, TOKEN);
        Ok(match (self.state, byte) {
            (_, b'\n') => return Err(ChunkFault::BadChunkLineEnd),
            (State::ExtensionQuoted | State::ExtensionEscape, _) if is(byte, CONTROL) => return Err(ChunkFault::BadChunkExtension),
            (State::ExtensionQuoted, b'"') => State::ExtensionQuoteEnd,
            (State::ExtensionQuoted, b'\\') => State::ExtensionEscape,
            (State::ExtensionQuoted | State::ExtensionEscape, _) => State::ExtensionQuoted,

            (State::ExtensionStart, _) if is_blank(byte) => State::ExtensionStart,
            (State::ExtensionStart | State::ExtensionName, _) if token => State::ExtensionName,
            (State::ExtensionName | State::ExtensionNameEnd, b'=') => State::ExtensionValueStart,
            (State::ExtensionName | State::ExtensionNameEnd, _) if is_blank(byte) => State::ExtensionNameEnd,
            (State::ExtensionValueStart, _) if is_blank(byte) => State::ExtensionValueStart,
            (State::ExtensionValueStart, b'"') => State::ExtensionQuoted,
            (State::ExtensionValueStart | State::ExtensionValue, _) if token => State::ExtensionValue,
            (State::ExtensionValue | State::ExtensionQuoteEnd | State::ExtensionValueEnd, _) if is_blank(byte) => State::ExtensionValueEnd,

            (State::ExtensionName | State::ExtensionValue | State::ExtensionQuoteEnd, b'\r') => State::SizeLf,
            (State::ExtensionName | State::ExtensionNameEnd | State::ExtensionValue | State::ExtensionQuoteEnd | State::ExtensionValueEnd, b';') => {
                State::ExtensionStart
            }
            _ => return Err(ChunkFault::BadChunkExtension),
        })
    }

    // RFC 9112 §7.1.2: trailer-section = *( field-line CRLF ); "A recipient that removes the chunked coding from a message MAY
    // selectively retain or discard the received trailer fields": discarded.
    fn trailer(&mut self, byte: u8) -> Result<State, ChunkFault> {
        self.trailer_bytes_left = self.trailer_bytes_left.checked_sub(1).ok_or(ChunkFault::TrailersTooLarge)?;
        Ok(match (self.state, byte) {
            (State::TrailerStart, b'\r') => State::FinalLf,
            (State::TrailerStart, _) if is(byte, TOKEN) => {
                self.trailer_fields_left = self.trailer_fields_left.checked_sub(1).ok_or(ChunkFault::TrailersTooLarge)?;
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerName, _) if is(byte, TOKEN) => State::TrailerName,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if !is(byte, CONTROL) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            _ => return Err(ChunkFault::BadTrailer),
        })
    }
}

fn expect(byte: u8, expected: u8, state: State, fault: ChunkFault) -> Result<State, ChunkFault> {
    if byte == expected { Ok(state) } else { Err(fault) }
}

/// Writes the size line of a chunk of `len` bytes into `out` and returns how many bytes it has. `len > 0`: 0 would end the body.
pub fn write_chunk_header(out: &mut [u8; 18], len: u64) -> usize {
    debug_assert!(len > 0);
    let digits = (64 - len.leading_zeros() as usize).div_ceil(4).max(1);
    for (at, byte) in out[..digits].iter_mut().enumerate() {
        let digit = (len >> (4 * (digits - 1 - at)) & 0xf) as usize;
        *byte = b"0123456789abcdef"[digit];
    }
    out[digits..digits + 2].copy_from_slice(b"\r\n");
    digits + 2
}

/// What follows the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

macro_rules! chunk_faults {
    ($($variant:ident),* $(,)?) => {
        impl From<ChunkFault> for ClientFault {
            fn from(fault: ChunkFault) -> ClientFault {
                match fault { $(ChunkFault::$variant => ClientFault::$variant,)* }
            }
        }

        impl From<ChunkFault> for UpstreamFault {
            fn from(fault: ChunkFault) -> UpstreamFault {
                match fault { $(ChunkFault::$variant => UpstreamFault::$variant,)* }
            }
        }
    };
}

chunk_faults! {
    BadChunkSize, ChunkSizeTooLarge, BadChunkExtension, ChunkExtensionsTooLarge, BadChunkLineEnd, BadChunkDataEnd, BadTrailer, TrailersTooLarge,
}

#[cfg(test)]
mod tests {
    use super::ChunkFault::*;
    use super::*;

    /// The data and how many bytes were consumed; `None` when the body is unfinished.
    type Decoded = Result<Option<(Vec<u8>, usize)>, ChunkFault>;

    fn run(pieces: &[&[u8]], limits: ChunkLimits) -> Decoded {
        let mut decoder = ChunkedDecoder::new(limits);
        let mut data = Vec::new();
        let mut consumed = 0;
        for piece in pieces {
            let mut at = 0;
            loop {
                match decoder.step(piece, &mut at) {
                    Ok(ChunkStep::Data { at: range }) => {
                        assert!(!range.is_empty() && range.end == at);
                        data.extend_from_slice(&piece[range]);
                    }
                    Ok(ChunkStep::NeedMore) => {
                        assert_eq!(at, piece.len());
                        break;
                    }
                    Ok(ChunkStep::Done) => {
                        assert!(decoder.is_done());
                        return Ok(Some((data, consumed + at)));
                    }
                    Err(fault) => {
                        let again = decoder.step(piece, &mut at);
                        assert_eq!(again, Err(fault), "a fault stays");
                        return Err(fault);
                    }
                }
            }
            consumed += piece.len();
        }
        assert!(!decoder.is_done());
        Ok(None)
    }

    /// Whole, in every split into two, and byte by byte.
    fn decode_with(input: &[u8], limits: ChunkLimits) -> Decoded {
        let whole = run(&[input], limits);
        for split in 1..input.len() {
            assert_eq!(run(&[&input[..split], &input[split..]], limits), whole, "split at {split} of {}", input.escape_ascii());
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(run(&bytes, limits), whole, "byte by byte: {}", input.escape_ascii());
        whole
    }

    fn decode(input: impl AsRef<[u8]>) -> Decoded {
        decode_with(input.as_ref(), ChunkLimits::default())
    }

    fn accepts(input: &str, data: &str) {
        assert_eq!(decode(input), Ok(Some((data.as_bytes().to_vec(), input.len()))), "{input:?}");
    }

    fn rejects(cases: &[(&str, ChunkFault)]) {
        for (input, fault) in cases {
            assert_eq!(decode(input), Err(*fault), "{input:?}");
        }
    }

    #[test]
    fn rule_44_sizes() {
        accepts("0\r\n\r\n", "");
        accepts("5\r\nhello\r\n0\r\n\r\n", "hello");
        accepts("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789");
        accepts("00005\r\nhello\r\n000\r\n\r\n", "hello");
        accepts("5\r\n\r\n\0\r\n\r\n0\r\n\r\n", "\r\n\0\r\n");
        rejects(&[
            ("\r\n", BadChunkSize),
            ("\r\n0\r\n\r\n", BadChunkSize),
            ("\n", BadChunkSize),
            (" 5\r\n", BadChunkSize),
            ("\t5\r\n", BadChunkSize),
            ("5 \r\n", BadChunkSize),
            ("5\t\r\n", BadChunkSize),
            ("5 ;a\r\n", BadChunkSize),
            ("+5\r\n", BadChunkSize),
            ("-5\r\n", BadChunkSize),
            ("0x5\r\n", BadChunkSize),
            ("0X5\r\n", BadChunkSize),
            ("5_0\r\n", BadChunkSize),
            ("5,\r\n", BadChunkSize),
            ("5.0\r\n", BadChunkSize),
            ("g\r\n", BadChunkSize),
            (";a\r\n", BadChunkSize),
            ("\"5\"\r\n", BadChunkSize),
            ("5h\r\n", BadChunkSize),
            ("\u{664}\r\n", BadChunkSize),
            ("5\x0b\r\n", BadChunkSize),
            ("5\0\r\n", BadChunkSize),
        ]);
    }

    #[test]
    fn rule_44_sizes_do_not_overflow() {
        assert_eq!(decode("7fffffffffffffff\r\n"), Ok(None));
        rejects(&[
            ("8000000000000000\r\n", ChunkSizeTooLarge),
            ("ffffffffffffffff\r\n", ChunkSizeTooLarge),
            ("10000000000000000\r\n", ChunkSizeTooLarge),
            ("10000000000000005\r\nhello\r\n", ChunkSizeTooLarge),
            ("fffffffffffffffffffffffffffffffff\r\n", ChunkSizeTooLarge),
            ("00000000000000005\r\nhello\r\n", ChunkSizeTooLarge),
        ]);
        let limits = ChunkLimits { size_digits: 2, ..ChunkLimits::default() };
        assert_eq!(decode_with(b"100\r\n", limits), Err(ChunkSizeTooLarge));
        assert_eq!(decode_with(b"ff\r\n", limits), Ok(None));
    }

    #[test]
    fn rule_45_size_lines_end_with_crlf() {
        rejects(&[
            ("5\nhello\r\n", BadChunkLineEnd),
            ("5\rhello\r\n", BadChunkLineEnd),
            ("5\r\rhello", BadChunkLineEnd),
            ("5\r\0\n", BadChunkLineEnd),
            ("0\n\r\n", BadChunkLineEnd),
            ("0\n\n", BadChunkLineEnd),
            ("5;a\nhello\r\n", BadChunkLineEnd),
            ("5;a\rhello\r\n", BadChunkLineEnd),
            ("5;a=\"x\nhello\r\n", BadChunkLineEnd),
        ]);
    }

    #[test]
    fn rule_46_data_end_with_crlf() {
        rejects(&[
            ("5\r\nhellox\r\n0\r\n\r\n", BadChunkDataEnd),
            ("5\r\nhello0\r\n\r\n", BadChunkDataEnd),
            ("5\r\nhello\n0\r\n\r\n", BadChunkDataEnd),
            ("5\r\nhello\r0\r\n\r\n", BadChunkDataEnd),
            ("5\r\nhello \r\n0\r\n\r\n", BadChunkDataEnd),
            ("5\r\nhell\r\n0\r\n\r\n", BadChunkDataEnd),
            ("5\r\nhello\r\n\r\n", BadChunkSize),
        ]);
    }

    #[test]
    fn rule_47_extensions() {
        for extension in [";a", ";a=b", ";a=\"b\"", ";a;b;c", "; a", ";a =b", ";a= b", ";a = \"b c\" ;d", ";a=\"\\\"\";b", ";a=\"x;y=z,\t\u{e4}\"", ";a=\"\""] {
            accepts(&format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n"), "hello");
        }
        rejects(&[
            ("5;\r\nhello\r\n", BadChunkExtension),
            ("5; \r\nhello\r\n", BadChunkExtension),
            ("5;;\r\n", BadChunkExtension),
            ("5;;a\r\n", BadChunkExtension),
            ("5;a;\r\n", BadChunkExtension),
            ("5;a=\r\n", BadChunkExtension),
            ("5;=b\r\n", BadChunkExtension),
            ("5;a=b=c\r\n", BadChunkExtension),
            ("5;a b\r\n", BadChunkExtension),
            ("5;a \r\n", BadChunkExtension),
            ("5;a=\"b\r\n", BadChunkExtension),
            ("5;a=\"b\"c\r\n", BadChunkExtension),
            ("5;a=\"\0\"\r\n", BadChunkExtension),
            ("5;a=\"\\\r\n", BadChunkExtension),
            ("5;a\0\r\n", BadChunkExtension),
            ("5;a\x0b\r\n", BadChunkExtension),
            ("5;\u{e4}\r\n", BadChunkExtension),
        ]);
    }

    #[test]
    fn rule_47_extensions_are_limited_in_total() {
        let limits = ChunkLimits { extension_bytes: 10, ..ChunkLimits::default() };
        assert!(decode_with(b"1;aaaaa\r\nx\r\n0;aaaaa\r\n\r\n", limits).is_ok_and(|decoded| decoded.is_some()));
        assert_eq!(decode_with(b"1;aaaaa\r\nx\r\n1;aaaaaa\r\nx\r\n", limits), Err(ChunkExtensionsTooLarge));
        assert_eq!(decode_with(format!("1;{}", "a".repeat(40)).as_bytes(), limits), Err(ChunkExtensionsTooLarge));
    }

    #[test]
    fn rule_48_and_49_trailers_are_checked_and_discarded() {
        accepts("0\r\nA: b\r\nC:\r\n\r\n", "");
        accepts("1\r\nx\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n", "x");
        rejects(&[
            ("0\r\nA\r\n\r\n", BadTrailer),
            ("0\r\n: b\r\n\r\n", BadTrailer),
            ("0\r\nA : b\r\n\r\n", BadTrailer),
            ("0\r\n A: b\r\n\r\n", BadTrailer),
            ("0\r\nA: b\r\n c\r\n\r\n", BadTrailer),
            ("0\r\nA: b\n\r\n", BadTrailer),
            ("0\r\nA: b\rC: d\r\n\r\n", BadTrailer),
            ("0\r\nA: b\0\r\n\r\n", BadTrailer),
            ("0\r\nA\u{e4}: b\r\n\r\n", BadTrailer),
            ("0\r\n\n", BadTrailer),
            ("0\r\n\rX", BadTrailer),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", BadTrailer),
        ]);
    }

    #[test]
    fn rule_48_trailers_are_limited() {
        let limits = ChunkLimits { trailer_bytes: 20, trailer_fields: 2, ..ChunkLimits::default() };
        assert!(decode_with(b"0\r\nA: b\r\nC: d\r\n\r\n", limits).is_ok());
        assert_eq!(decode_with(b"0\r\nA:\r\nC:\r\nE:\r\n\r\n", limits), Err(TrailersTooLarge));
        assert_eq!(decode_with(b"0\r\nA: bbbbbbbbbbbbbbbbbbbbbbbb\r\n\r\n", limits), Err(TrailersTooLarge));
    }

    #[test]
    fn rule_51_without_its_last_chunk_a_body_is_unfinished() {
        for input in ["", "5", "5\r", "5\r\n", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "0\r\n", "0\r\n\r", "0\r\nA: b\r\n"] {
            assert_eq!(decode(input), Ok(None), "{input:?}");
        }
    }

    #[test]
    fn what_follows_the_body_is_left_alone() {
        let input = "1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
        assert_eq!(decode(input), Ok(Some((b"x".to_vec(), 11))));
    }

    #[test]
    fn rule_50_written_chunks_are_read_back() {
        for len in [1, 9, 10, 15, 16, 255, 256, 0x1234, 65_536] {
            let mut header = [0xee; 18];
            let written = write_chunk_header(&mut header, len);
            assert_eq!(&header[..written], format!("{len:x}\r\n").as_bytes());
            let body = [&header[..written], &vec![b'x'; len as usize], CHUNK_END, LAST_CHUNK].concat();
            assert_eq!(run(&[&body], ChunkLimits::default()), Ok(Some((vec![b'x'; len as usize], body.len()))));
        }
        let mut header = [0; 18];
        assert_eq!(write_chunk_header(&mut header, u64::MAX), 18);
        assert_eq!(&header, b"ffffffffffffffff\r\n");
    }

    #[test]
    fn both_sides_have_a_fault_for_each() {
        for fault in
            [BadChunkSize, ChunkSizeTooLarge, BadChunkExtension, ChunkExtensionsTooLarge, BadChunkLineEnd, BadChunkDataEnd, BadTrailer, TrailersTooLarge]
        {
            let client = ClientFault::from(fault).row().reason;
            assert_eq!(UpstreamFault::from(fault).row().reason, format!("upstream_{client}"));
        }
    }
}
