//! Where a message ends: Content-Length and Transfer-Encoding, RFC 9112 §6.
#![forbid(unsafe_code)]

use ringway_abi::ids::HeaderId;

use super::bytes::{NotDecimal, decimal, is_token, list};
use super::fields::{Lines, Malformed};

/// A Content-Length that all its lines and list elements agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    /// Bytes; at most `i64::MAX`.
    pub(super) bytes: u64,
    /// One line with one element, without needless zeros: may be forwarded as it stands.
    pub(super) canonical: bool,
    /// More than one line or element.
    pub(super) repeated: bool,
}

/// The length that the lines declare.
// RFC 9112 §6.3 item 5: an invalid Content-Length makes the framing invalid; different values do, equal ones may be merged.
pub(super) fn content_length(lines: &Lines<'_>) -> Result<Option<Length>, Malformed> {
    if !lines.repeats(HeaderId::CONTENT_LENGTH)
        && let Some(bytes) = lines.first(HeaderId::CONTENT_LENGTH).and_then(plain_number)
    {
        return Ok(Some(Length { bytes, canonical: true, repeated: false }));
    }
    let mut length: Option<Length> = None;
    let values = lines.values(HeaderId::CONTENT_LENGTH);
    for element in values.flat_map(list) {
        let bytes = decimal(element).map_err(|not| match not {
            NotDecimal::NotDigits => Malformed::BadContentLength,
            NotDecimal::TooLarge => Malformed::ContentLengthTooLarge,
        })?;
        let canonical = element.len() == 1 || element.first() != Some(&b'0');
        length = Some(match length {
            None => Length { bytes, canonical, repeated: false },
            Some(before) if before.bytes == bytes => Length { bytes, canonical: false, repeated: true },
            Some(_) => return Err(Malformed::ConflictingContentLength),
        });
    }
    Ok(length)
}

/// A number as nearly everyone writes it: at most 18 digits and no needless zero. `None` says nothing.
fn plain_number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || (value[0] == b'0' && value.len() > 1) {
        return None;
    }
    value.iter().try_fold(0, |number, byte| match byte.wrapping_sub(b'0') {
        digit @ 0..=9 => Some(number * 10 + u64::from(digit)),
        _ => None,
    })
}

/// Transfer-Encoding must be one line with the one element `chunked`; anything else is a fault.
pub(super) fn chunked_only(lines: &Lines<'_>) -> Result<(), Malformed> {
    if lines.repeats(HeaderId::TRANSFER_ENCODING) {
        return Err(Malformed::RepeatedTransferEncoding);
    }
    let value = lines.first(HeaderId::TRANSFER_ENCODING).unwrap_or_default();
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    Err(why_not_chunked(value))
}

#[cold]
fn why_not_chunked(value: &[u8]) -> Malformed {
    let is = |element: &[u8], name: &[u8]| element.eq_ignore_ascii_case(name);
    // Empty elements, parameters, quotes, odd bytes: what another recipient may read differently.
    if !list(value).all(is_token) || list(value).any(|element| is(element, b"identity")) {
        return Malformed::BadTransferEncoding;
    }
    // RFC 9112 §6.3 item 4: chunked not last in a request: "the server MUST respond with the 400 (Bad Request) status code".
    if !list(value).last().is_some_and(|last| is(last, b"chunked")) {
        return Malformed::ChunkedNotLast;
    }
    // RFC 9112 §7.1: "A sender MUST NOT apply the chunked transfer coding more than once".
    if list(value).filter(|element| is(element, b"chunked")).count() > 1 {
        return Malformed::RepeatedTransferEncoding;
    }
    // RFC 9112 §6.1: "A server that receives a request message with a transfer coding it does not understand SHOULD respond
    // with 501".
    Malformed::UnknownTransferCoding
}
