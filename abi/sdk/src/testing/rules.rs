//! The rules that the gateway applies to what a plugin gives it, and header edits on owned messages.

use ringway_abi::Header;
use ringway_abi::ids::{HEADER_ID_REMOVED, HeaderId};
use ringway_abi::owned::{HeaderName, Headers, Octets};
use ringway_abi::view::HEADERS_MAX;

use crate::HostError;

/// Framing and connection headers belong to the gateway (RFC 9110 §7.6.1, RFC 9112 §6).
const FORBIDDEN: [HeaderId; 9] = [
    HeaderId::CONTENT_LENGTH,
    HeaderId::TRANSFER_ENCODING,
    HeaderId::CONNECTION,
    HeaderId::KEEP_ALIVE,
    HeaderId::PROXY_CONNECTION,
    HeaderId::TE,
    HeaderId::TRAILER,
    HeaderId::UPGRADE,
    HeaderId::HTTP2_SETTINGS,
];

/// What an edit does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Set,
    Add,
    Remove,
}

/// A header that may be edited: name and value are well-formed, and it is not the gateway's.
pub(super) fn check_header(name: &[u8], value: &[u8]) -> Result<(), HostError> {
    check_name(name)?;
    check_value(value)?;
    if FORBIDDEN.contains(&HeaderId::of(name)) { Err(HostError::Forbidden) } else { Ok(()) }
}

/// The same for a request, which keeps exactly one Host.
pub(super) fn check_request_header(kind: Kind, name: &[u8], value: &[u8]) -> Result<(), HostError> {
    check_header(name, value)?;
    match (HeaderId::of(name), kind) {
        (HeaderId::HOST, Kind::Set) if !is_host(value) => Err(HostError::BadBytes),
        (HeaderId::HOST, Kind::Add | Kind::Remove) => Err(HostError::Forbidden),
        _ => Ok(()),
    }
}

/// `host [":" port]` without userinfo, list, path or blanks (RFC 9110 §7.2).
fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("ipv6", rest),
        Some(_) => return false,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(&b);
    let is_escaped = |rest: &str| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    let is_port = |digits: &str| digits.is_empty() || (digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u32>().is_ok_and(|n| n <= 65_535));
    !host.is_empty() && host.bytes().all(is_name) && host.split('%').skip(1).all(is_escaped) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// A name is a token.
pub(super) fn check_name(name: &[u8]) -> Result<(), HostError> {
    // RFC 9110 §5.6.2: token.
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    if name.is_empty() || !name.iter().all(is_token) { Err(HostError::BadBytes) } else { Ok(()) }
}

/// A value without controls other than HTAB, and without blanks around it (RFC 9110 §5.5).
fn check_value(value: &[u8]) -> Result<(), HostError> {
    let is_blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let has_control = value.iter().any(|b| matches!(b, 0..=8 | 10..=31 | 127));
    if has_control || is_blank(value.first()) || is_blank(value.last()) { Err(HostError::BadBytes) } else { Ok(()) }
}

/// A view shows at most [`HEADERS_MAX`] entries.
pub(super) fn check_room(headers: &Headers) -> Result<(), HostError> {
    if headers.0.len() < HEADERS_MAX { Ok(()) } else { Err(HostError::NoSpace) }
}

/// A target in origin-form.
pub(super) fn check_target(target: &[u8]) -> Result<(), HostError> {
    let is_good = target.first() == Some(&b'/') && target.iter().all(|b| matches!(b, 0x21..=0x7e) && *b != b'#');
    if is_good { Ok(()) } else { Err(HostError::BadBytes) }
}

fn is_named(header: &Header, name: &[u8]) -> bool {
    header.name.id != HEADER_ID_REMOVED && header.name.name.eq_ignore_ascii_case(name)
}

/// `header_set`: keeps the place of the first.
pub(super) fn set(headers: &mut Headers, name: &[u8], value: &[u8]) {
    match headers.0.iter().position(|h| is_named(h, name)) {
        Some(first) => {
            headers.0[first].value = Octets(value.to_vec());
            for header in headers.0.iter_mut().skip(first + 1).filter(|h| is_named(h, name)) {
                remove_one(header);
            }
        }
        None => headers.0.push(Header::new(name, value)),
    }
}

/// `header_del`: leaves tombstones.
pub(super) fn remove(headers: &mut Headers, name: &[u8]) -> u32 {
    let mut count = 0;
    for header in headers.0.iter_mut().filter(|h| is_named(h, name)) {
        remove_one(header);
        count += 1;
    }
    count
}

fn remove_one(header: &mut Header) {
    *header = Header { name: HeaderName { name: Vec::new(), id: HEADER_ID_REMOVED }, value: Octets(Vec::new()) };
}

/// Gives each header its id, interned ones included, and fills `known`.
pub(super) fn index(headers: &mut Headers, interned: &[Vec<u8>]) -> (u64, [u8; 64]) {
    let (mut mask, mut known) = (0u64, [0u8; 64]);
    for (at, header) in headers.0.iter_mut().enumerate() {
        if header.name.id == HEADER_ID_REMOVED {
            continue;
        }
        header.name.id = id_of(&header.name.name, interned);
        let id = usize::from(header.name.id);
        // One byte holds index + 1; `access` refuses more entries than it can lead to.
        if id != 0 && known[id] == 0 && at < HEADERS_MAX {
            known[id] = at as u8 + 1;
            mask |= 1 << id;
        }
    }
    (mask, known)
}

/// The fixed or interned id of a name, 0 for none.
pub(super) fn id_of(name: &[u8], interned: &[Vec<u8>]) -> u16 {
    match HeaderId::of(name) {
        HeaderId::OTHER => {
            let found = interned.iter().position(|known| known.eq_ignore_ascii_case(name));
            found.map_or(0, |at| ringway_abi::ids::HEADER_ID_FIXED_COUNT + at as u16)
        }
        id => id.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_keeps_the_place_of_the_first_and_removes_the_rest() {
        let mut headers = Headers([("a", "1"), ("B", "2"), ("A", "3")].map(|(n, v)| Header::new(n.as_bytes(), v.as_bytes())).to_vec());
        set(&mut headers, b"a", b"9");
        assert_eq!(headers.0[0].value.0, b"9");
        assert_eq!(headers.0[2].name.id, HEADER_ID_REMOVED);
        assert_eq!(remove(&mut headers, b"a"), 1);
        assert_eq!(remove(&mut headers, b"a"), 0);
    }

    #[test]
    fn what_http_forbids_is_refused() {
        assert_eq!(check_header(b"bad name", b""), Err(HostError::BadBytes));
        assert_eq!(check_header(b"", b""), Err(HostError::BadBytes));
        assert_eq!(check_header(b"Transfer-Encoding", b""), Err(HostError::Forbidden));
        assert_eq!(check_header(b"Transfer-Encoding", b"\n"), Err(HostError::BadBytes), "bytes come before names");
        assert_eq!(check_header(b"HTTP2-Settings", b""), Err(HostError::Forbidden));
        assert_eq!(check_header(b"host", b"a"), Ok(()));
        for value in ["a", "a.b:80", "a:", "[::1]:81", "%41"] {
            assert_eq!(check_request_header(Kind::Set, b"Host", value.as_bytes()), Ok(()), "{value}");
        }
        for value in ["", "a b", "a,b", "u@a", "a/b", "a:b", "a:65536", "[::1", "[a]", "%4", "a:80:81"] {
            assert_eq!(check_request_header(Kind::Set, b"Host", value.as_bytes()), Err(HostError::BadBytes), "{value}");
        }
        assert_eq!(check_request_header(Kind::Add, b"Host", b"a"), Err(HostError::Forbidden));
        assert_eq!(check_request_header(Kind::Remove, b"host", b""), Err(HostError::Forbidden));
        assert_eq!(check_request_header(Kind::Remove, b"x", b""), Ok(()));
        assert_eq!(check_header(b"date", b"a\tb\xff"), Ok(()));
        for value in [&b" a"[..], b"a\t", b"a\x7f", b"\x01"] {
            assert_eq!(check_header(b"x", value), Err(HostError::BadBytes), "{value:?}");
        }
        assert_eq!(check_header(b"x", b"a\r\nb: c"), Err(HostError::BadBytes));
        assert_eq!(check_target(b"/a b"), Err(HostError::BadBytes));
        assert_eq!(check_target(b"http://a/"), Err(HostError::BadBytes));
        assert_eq!(check_target(b"/a?b=/c"), Ok(()));
    }
}
