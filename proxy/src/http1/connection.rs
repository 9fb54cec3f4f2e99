//! Which lines end at this hop: Connection, what it names, and the fields that are hop-by-hop by their nature.
#![forbid(unsafe_code)]

use ringway_abi::ids::{HEADER_ID_FIXED_COUNT, HeaderId};

use super::bytes::{is_token, list};
use super::entry_set::EntrySet;
use super::fields::{Lines, Malformed};
use super::head::UnderscorePolicy;
use super::names::NameTable;

/// The options of Connection that mean something to the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// Reads Connection, and puts every line that is not forwarded into `dropped`.
#[inline]
pub(super) fn options(lines: &Lines<'_>, names: &NameTable, dropped: &mut EntrySet) -> Result<Options, Malformed> {
    let mut options = Options::default();
    let mut present = lines.known_mask & HOP_BY_HOP;
    while present != 0 {
        let id = HeaderId(present.trailing_zeros() as u16);
        present &= present - 1;
        for index in lines.indexes(id) {
            dropped.insert(index);
        }
    }
    match lines.first(HeaderId::CONNECTION) {
        None => return Ok(options),
        Some(value) if value.eq_ignore_ascii_case(b"keep-alive") && !lines.repeats(HeaderId::CONNECTION) => {
            return Ok(Options { keep_alive: true, ..options });
        }
        _ => {}
    }
    let mut count = 0;
    for option in lines.values(HeaderId::CONNECTION).flat_map(list) {
        count += 1;
        if count > CONNECTION_OPTIONS_MAX {
            return Err(Malformed::TooManyConnectionOptions);
        }
        // RFC 9110 §7.6.1: "Connection options are case-insensitive".
        if option.eq_ignore_ascii_case(b"keep-alive") {
            options.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"close") {
            options.close = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            options.upgrade = true;
        } else {
            drop_named(lines, names, option, dropped);
        }
    }
    Ok(options)
}

/// Drops the lines that a Connection option names.
// RFC 9110 §7.6.1: "Intermediaries MUST parse a received Connection header field before a message is forwarded and, for each
// connection-option in this field, remove any header or trailer field(s) from the message with the same name".
// The same section forbids senders to name fields that are meant for all recipients. All names with a fixed id that are not
// hop-by-hop are such fields (Host, Content-Length, Authorization, X-Forwarded-For, traceparent, cookies, …): naming one
// would strip what another hop relies on, so that option is ignored.
fn drop_named(lines: &Lines<'_>, names: &NameTable, option: &[u8], dropped: &mut EntrySet) {
    let id = names.id(option);
    if !is_token(option) || (id != 0 && id < HEADER_ID_FIXED_COUNT) {
        return;
    }
    for (index, entry) in lines.entries.iter().enumerate() {
        if entry.name.id == id && (id != 0 || lines.name(index).eq_ignore_ascii_case(option)) {
            dropped.insert(index);
        }
    }
}

/// Treats names with `_` by the policy; those that a CGI-like upstream would take for a framing or trusted field never pass.
#[cold]
#[inline(never)]
pub(super) fn underscores(lines: &Lines<'_>, names: &NameTable, found: &EntrySet, policy: UnderscorePolicy, dropped: &mut EntrySet) -> Result<(), Malformed> {
    if policy == UnderscorePolicy::Reject {
        return Err(Malformed::UnderscoreInFieldName);
    }
    let mut index = found.next_in(0);
    while index < lines.entries.len() {
        if policy == UnderscorePolicy::Drop || looks_trusted(lines.name(index), names) {
            dropped.insert(index);
        }
        index = found.next_in(index + 1);
    }
    Ok(())
}

fn looks_trusted(name: &[u8], names: &NameTable) -> bool {
    let mut dashed = [0; 32];
    let Some(dashed) = dashed.get_mut(..name.len()) else { return false };
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    let id = names.id(dashed);
    id != 0 && (HOP_BY_HOP | TRUSTED) >> id & 1 != 0
}

const fn mask(ids: &[HeaderId]) -> u64 {
    let mut mask = 0;
    let mut at = 0;
    while at < ids.len() {
        mask |= 1 << ids[at].0;
        at += 1;
    }
    mask
}

/// Fields that end here, named by Connection or not. Trailer is among them because trailers are not forwarded, HTTP2-Settings
/// because h2c is not.
// RFC 9110 §7.6.1: "intermediaries SHOULD remove or replace fields that are known to require removal before forwarding, whether
// or not they appear as a connection-option": Proxy-Connection, Keep-Alive, TE, Transfer-Encoding, Upgrade.
// RFC 9110 §11.7.2: a proxy consumes Proxy-Authorization.
pub(super) const HOP_BY_HOP: u64 = mask(&[
    HeaderId::CONNECTION,
    HeaderId::KEEP_ALIVE,
    HeaderId::PROXY_CONNECTION,
    HeaderId::TE,
    HeaderId::TRANSFER_ENCODING,
    HeaderId::UPGRADE,
    HeaderId::PROXY_AUTHENTICATE,
    HeaderId::PROXY_AUTHORIZATION,
    HeaderId::HTTP2_SETTINGS,
    HeaderId::TRAILER,
]);

/// Fields that the gateway sets or decides by, which a name with `_` must not imitate.
const TRUSTED: u64 = mask(&[
    HeaderId::HOST,
    HeaderId::CONTENT_LENGTH,
    HeaderId::AUTHORIZATION,
    HeaderId::COOKIE,
    HeaderId::EXPECT,
    HeaderId::VIA,
    HeaderId::FORWARDED,
    HeaderId::X_FORWARDED_FOR,
    HeaderId::X_FORWARDED_PROTO,
    HeaderId::X_FORWARDED_HOST,
    HeaderId::X_REAL_IP,
    HeaderId::X_REQUEST_ID,
    HeaderId::TRACEPARENT,
]);

/// Bounds the work that a Connection field can cause.
const CONNECTION_OPTIONS_MAX: usize = 32;
