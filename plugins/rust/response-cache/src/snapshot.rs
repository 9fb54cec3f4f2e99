//! The request's headers as they stood when the cache looked, kept for the time when the response says what it varies by.
//!
//! Why not look at the request again then: a later plugin of the chain may have edited it, and the next lookup happens
//! before such edits. A response stored under values that only the edits produce could be fetched by a client that sends
//! these values itself.

use ringway_sdk::prelude::*;

/// Appends the headers: `{u16 name length, u32 value length, name, value}` each.
pub(crate) fn write(request: &RequestView, out: &mut Vec<u8>) {
    for header in request.headers() {
        // Lengths of received headers are far below these limits; the view itself has 16 bits for names.
        out.extend_from_slice(&(header.name().len() as u16).to_le_bytes());
        out.extend_from_slice(&(header.value().len() as u32).to_le_bytes());
        out.extend_from_slice(header.name());
        out.extend_from_slice(header.value());
    }
}

/// The values of all headers of this name, in order.
pub(crate) fn values<'a>(snapshot: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = snapshot;
    let headers = std::iter::from_fn(move || {
        let (lengths, behind) = rest.split_at_checked(6)?;
        let name_len = u16::from_le_bytes([lengths[0], lengths[1]]) as usize;
        let value_len = u32::from_le_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]) as usize;
        let (name, behind) = behind.split_at_checked(name_len)?;
        let (value, behind) = behind.split_at_checked(value_len)?;
        rest = behind;
        Some((name, value))
    });
    headers.filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
