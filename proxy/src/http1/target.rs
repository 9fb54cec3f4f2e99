//! Authorities and paths.
//!
//! Owns the syntax of Host ([`is_host`]) and the normalised path that routing decides on ([`normalise_path`]). What is forwarded is the
//! path as received unless a route says otherwise (RFC 9110 §7.7); [`PathPolicy`] makes sure that an upstream which normalises
//! in another way does not come to another path for anything that the policy did not let through knowingly.
#![forbid(unsafe_code)]

use super::bytes::{HOST, is};

/// Whether `bytes` is `host [":" port]` with a host that is not empty: the syntax of Host and of the authority of a target.
// RFC 9110 §7.2, RFC 3986 §3.2: no userinfo, no list, no path, no blanks. A comma is legal in a reg-name and refused here: in Host it
// is two values that someone joined. An empty port is legal (RFC 3986 §3.2.3).
pub fn is_host(bytes: &[u8]) -> bool {
    split_port(bytes).is_some()
}

/// Whether `bytes` is `host ":" port`, as CONNECT needs it. RFC 9110 §9.3.6.
pub fn is_host_and_port(bytes: &[u8]) -> bool {
    matches!(split_port(bytes), Some((_, Some(port))) if !port.is_empty())
}

/// Host and port of a valid authority; the host of an IPv6 address keeps its brackets.
pub fn split_port(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (host, rest) = if bytes.first() == Some(&b'[') {
        let close = bytes.iter().position(|b| *b == b']')?;
        if !is_ipv6(&bytes[1..close]) {
            return None;
        }
        bytes.split_at(close + 1)
    } else {
        let len = bytes.iter().position(|b| !is(*b, HOST)).unwrap_or(bytes.len());
        if len == 0 || !escapes_are_whole(&bytes[..len]) {
            return None;
        }
        bytes.split_at(len)
    };
    match rest {
        [] => Some((host, None)),
        [b':', port @ ..] if is_port(port) => Some((host, Some(port))),
        _ => None,
    }
}

fn is_port(port: &[u8]) -> bool {
    let number = port.iter().try_fold(0u32, |number, digit| match digit {
        b'0'..=b'9' => Some(number * 10 + u32::from(digit - b'0')).filter(|number| *number <= 65_535),
        _ => None,
    });
    number.is_some()
}

fn is_ipv6(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok_and(|text| text.parse::<core::net::Ipv6Addr>().is_ok())
}

fn escapes_are_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        match rest.get(at + 1..at + 3) {
            Some([high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest = &rest[at + 3..],
            _ => return false,
        }
    }
    true
}
