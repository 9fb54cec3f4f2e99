//! Authorities and paths.
//!
//! Owns the syntax of Host ([`is_host`]) and the normalised path that routing decides on ([`normalise_path`]). What is forwarded is the
//! path as received (RFC 9110 §7.7); [`PathPolicy`] makes sure that an upstream which normalises
//! in another way does not come to another path for anything that the policy did not let through knowingly.
#![forbid(unsafe_code)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bytes::{CLASS, HOST, UNRESERVED, is};
use crate::error::ClientFault;

/// Bytes of an authority: a name of 255 (RFC 1035 §2.3.4) and a port.
const HOST_BYTES_MAX: usize = 255 + ":65535".len();

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
#[inline]
pub fn split_port(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    if bytes.len() > HOST_BYTES_MAX {
        return None;
    }
    // Nearly every Host is a plain name without a port: one pass without a branch for each byte.
    if !bytes.is_empty() && bytes.iter().fold(UNRESERVED, |all, b| all & CLASS[usize::from(*b)]) != 0 {
        return Some((bytes, None));
    }
    split_port_slowly(bytes)
}

#[inline(never)]
fn split_port_slowly(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
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

/// What becomes of something in a path that upstreams read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The request is a fault.
    Reject,
    /// It stays as it is: to the routes it is what it literally says.
    Keep,
    /// It becomes what it stands for.
    Normalise,
}

/// What routes see of a path, case by case: "reject" (400), "keep" as written, or "normalise". Forwarded is the path as received.
// What `normalise_path` does. Escapes of unreserved bytes (`%41`) are always decoded, those that stay get upper-case digits
// (RFC 3986 §6.2.2), and a path that climbs above its root is always a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathPolicy {
    /// `.` and `..` segments, also written with `%2e`. "keep" leaves them undecoded.
    pub dot_segments: Policy,
    /// `//`: "normalise" makes one slash of it.
    pub empty_segments: Policy,
    /// `%2f`: "normalise" makes a slash of it.
    pub encoded_slash: Policy,
    /// A backslash and `%5c`: "normalise" makes a slash of it.
    pub backslash: Policy,
    /// `%00`; "normalise" is "reject", for there is nothing that it stands for.
    pub nul: Policy,
    /// UTF-8 sequences that are longer than needed, such as `%c0%af`; "normalise" is "reject".
    pub overlong_utf8: Policy,
    /// `%` without two hexadecimal digits; "normalise" is "reject".
    pub bad_escape: Policy,
}

impl Default for PathPolicy {
    /// Routes are chosen on the path that most upstreams would come to. What could hide a different one is refused.
    fn default() -> PathPolicy {
        PathPolicy {
            dot_segments: Policy::Normalise,
            empty_segments: Policy::Normalise,
            encoded_slash: Policy::Keep,
            backslash: Policy::Keep,
            nul: Policy::Reject,
            overlong_utf8: Policy::Reject,
            bad_escape: Policy::Reject,
        }
    }
}

/// A path to decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormalisedPath<'a> {
    /// The path; the received bytes themselves when nothing had to change.
    pub bytes: &'a [u8],
    /// Whether it differs from the received one.
    pub changed: bool,
}

/// The path that routes are matched against. `path` is the path of a parsed request; `out` must hold as many bytes as it has.
///
/// Ordinary paths are returned as they are, without a copy. `*` and the empty path of CONNECT are ordinary.
///
/// # Errors
/// What `policy` refuses; [`ClientFault::TargetTooLong`] when `out` is too short.
pub fn normalise_path<'a>(path: &'a [u8], policy: &PathPolicy, out: &'a mut [u8]) -> Result<NormalisedPath<'a>, ClientFault> {
    if is_plain(path) {
        return Ok(NormalisedPath { bytes: path, changed: false });
    }
    let decoded = decode(path, policy, out)?;
    check_hidden_segments(&out[..decoded], policy)?;
    let len = resolve(&mut out[..decoded], policy)?;
    let bytes = &out[..len];
    Ok(NormalisedPath { bytes, changed: bytes != path })
}

/// No escapes, no backslashes, no `//`, and no segment that begins with a dot or a semicolon. Eight bytes at a time; a path that is plain may be called
/// not plain (the comparison of words can find a byte behind one that is really there, and takes some others for these), never the other way round.
pub fn is_plain(path: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let equal = |word: u64, byte: u8| {
        let zero = word ^ (ONES * u64::from(byte));
        zero.wrapping_sub(ONES) & !zero & (ONES << 7)
    };
    // The mark of a slash at the end of the last word, where the first byte of this one is.
    let mut carry = 0;
    let mut found = |word: u64| {
        let slash = equal(word, b'/');
        let behind = slash << 8 | carry;
        carry = slash >> 56;
        // `.`, `/` and `;` differ in these bits, in which they share the rest with `*`, `+`, `:`, `>` and `?`.
        let hiding = equal(word | (ONES * 0x15), 0x3f);
        equal(word, b'%') | equal(word, b'\\') | behind & hiding
    };
    let (words, rest) = path.as_chunks::<8>();
    let mut last = [b'a'; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().fold(0, |all, word| all | found(u64::from_le_bytes(*word))) == 0 && found(u64::from_le_bytes(last)) == 0
}

/// Copies `path` to `out` with its escapes treated, and returns the length. It never grows.
fn decode(path: &[u8], policy: &PathPolicy, out: &mut [u8]) -> Result<usize, ClientFault> {
    let out = out.get_mut(..path.len()).ok_or(ClientFault::TargetTooLong)?;
    if policy.overlong_utf8 != Policy::Keep && has_overlong(path) {
        return Err(ClientFault::OverlongUtf8InPath);
    }
    let (mut from, mut to) = (0, 0);
    while from < path.len() {
        let mut piece = [path[from], 0, 0];
        let mut len = 1;
        let escape = if path[from] == b'%' { unescape(&path[from..]) } else { None };
        let mut taken = if escape.is_some() { 3 } else { 1 };
        match (path[from], escape) {
            (b'%', None) if policy.bad_escape != Policy::Keep => return Err(ClientFault::BadEscapeInPath),
            (_, Some(0)) if policy.nul != Policy::Keep => return Err(ClientFault::NulInPath),
            (_, Some(b'/')) if policy.encoded_slash == Policy::Reject => return Err(ClientFault::SlashInSegment),
            (_, Some(b'/')) if policy.encoded_slash == Policy::Normalise => piece[0] = b'/',
            (b'\\', _) | (_, Some(b'\\')) if policy.backslash == Policy::Reject => return Err(ClientFault::BackslashInPath),
            (b'\\', _) | (_, Some(b'\\')) if policy.backslash == Policy::Normalise => piece[0] = b'/',
            // `%2e` is a dot like any other, unless dots are to be left alone.
            (_, Some(byte)) if is(byte, UNRESERVED) && (byte != b'.' || policy.dot_segments != Policy::Keep) => piece[0] = byte,
            (_, Some(_)) => {
                piece = [b'%', path[from + 1].to_ascii_uppercase(), path[from + 2].to_ascii_uppercase()];
                len = 3;
            }
            (_, None) => taken = 1,
        }
        out[to..to + len].copy_from_slice(&piece[..len]);
        to += len;
        from += taken;
    }
    Ok(to)
}

/// The byte that an escape at the start of `bytes` stands for.
fn unescape(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16)).map(|digit| digit as u8);
    Some(digit(1)? << 4 | digit(2)?)
}

/// Whether the escapes of `path` spell a UTF-8 sequence that is longer than needed.
// RFC 3629 §3: C0 and C1 never occur; E0 is followed by A0..BF and F0 by 90..BF.
fn has_overlong(path: &[u8]) -> bool {
    let mut lead = 0;
    let mut at = 0;
    while at < path.len() {
        let escape = if path[at] == b'%' { unescape(&path[at..]) } else { None };
        let byte = escape.unwrap_or(path[at]);
        if matches!(byte, 0xc0 | 0xc1) || matches!((lead, byte), (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f)) {
            return true;
        }
        lead = byte;
        at += if escape.is_some() { 3 } else { 1 };
    }
    false
}

/// Refuses segments that are a dot segment to an upstream which takes a kept `%2F`, `%5C` or `\` for a slash, or `;` for the end
/// of a segment: `/public/..%2fadmin`, `/public/..;/admin`, `/public/..%3b/admin`, `/.;/admin`, `/;/admin`.
fn check_hidden_segments(path: &[u8], policy: &PathPolicy) -> Result<(), ClientFault> {
    if policy.dot_segments == Policy::Keep {
        return Ok(());
    }
    let last_slash = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    // Segments between separators of every kind. Those between two plain slashes are `resolve`'s.
    let (mut start, mut at) = (0, 0);
    let mut plain_start = true;
    loop {
        let (separator, plain) = match &path[at..] {
            [] => (0, true),
            [b'/', ..] => (1, true),
            [b'\\', ..] => (1, false),
            [b'%', b'2', b'F', ..] | [b'%', b'5', b'C', ..] => (3, false),
            [b';', ..] | [b'%', b'3', b'B', ..] if matches!(path[start..at], [b'.'] | [b'.', b'.']) => return Err(ClientFault::DotSegmentInPath),
            // Without its parameters it is an empty segment, and to some upstreams none; at the end of a path it changes nothing.
            [b';', ..] if start == at && at < last_slash && policy.empty_segments != Policy::Keep => return Err(ClientFault::EmptySegmentInPath),
            _ => {
                at += 1;
                continue;
            }
        };
        if path[start..at] == *b".." && !(plain && plain_start) {
            return Err(ClientFault::DotSegmentInPath);
        }
        if separator == 0 {
            return Ok(());
        }
        at += separator;
        (start, plain_start) = (at, plain);
    }
}

/// Removes empty and dot segments in place and returns the new length. RFC 3986 §5.2.4.
fn resolve(path: &mut [u8], policy: &PathPolicy) -> Result<usize, ClientFault> {
    let len = path.len();
    // Behind the slash that ends what is kept; segments are copied down to here.
    let mut to = 1;
    let mut from = 1;
    if path.first() != Some(&b'/') {
        return Ok(len);
    }
    // How many segments are kept behind the last `//` that became one slash.
    let mut behind_merged = None;
    loop {
        let end = path[from..].iter().position(|b| *b == b'/').map_or(len, |at| from + at);
        let last = end == len;
        match &path[from..end] {
            b"" if !last && policy.empty_segments == Policy::Reject => return Err(ClientFault::EmptySegmentInPath),
            b"" if !last && policy.empty_segments == Policy::Normalise => behind_merged = Some(0),
            b"." | b".." if policy.dot_segments == Policy::Reject => return Err(ClientFault::DotSegmentInPath),
            b"." if policy.dot_segments == Policy::Normalise => {}
            b".." if policy.dot_segments == Policy::Normalise => {
                if to == 1 {
                    return Err(ClientFault::PathAboveRoot);
                }
                behind_merged = match behind_merged {
                    // Of `/a//../b` one upstream makes `/b`, another (RFC 3986 §5.2.4) `/a/b`.
                    Some(0) => return Err(ClientFault::DotSegmentInPath),
                    other => other.map(|kept: u32| kept - 1),
                };
                to = path[..to - 1].iter().rposition(|b| *b == b'/').map_or(1, |slash| slash + 1);
            }
            _ => {
                path.copy_within(from..end, to);
                behind_merged = behind_merged.map(|kept| kept + 1);
                to += end - from;
                if !last {
                    path[to] = b'/';
                    to += 1;
                }
            }
        }
        if last {
            return Ok(to);
        }
        from = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_18_hosts() {
        let good: &[&[u8]] = &[
            b"a",
            b"example.com",
            b"example.com.",
            b"EXAMPLE.com:8080",
            b"a:",
            b"a:0",
            b"a:65535",
            b"127.0.0.1:80",
            b"[::1]",
            b"[::1]:443",
            b"[2001:db8::192.0.2.1]:1",
            b"a_b-c~d",
            b"%41b",
            b"xn--bcher-kva.example",
        ];
        let bad: &[&[u8]] = &[
            b"",
            b":80",
            b"a:b",
            b"a:65536",
            b"a:99999999999",
            b"a:-1",
            b"a:+1",
            b"a:8 0",
            b"a:80:80",
            b"a b",
            b"a,b",
            b"a, b",
            b"a/",
            b"a/b",
            b"a?b",
            b"a#b",
            b"user@a",
            b"user:pw@a",
            b"a@",
            b"http://a",
            b"[::1",
            b"::1",
            b"[::1]x",
            b"[::1%25eth0]",
            b"[v1.a]",
            b"[]",
            b"[1.2.3.4]",
            b"a\\b",
            b"a\"b",
            b"<a>",
            b"a\x80",
            b"\xc3\xa4",
            b"a\x00",
            b"a\tb",
            b"a%",
            b"a%4",
            b"a%zz",
            b"{a}",
            b"a|b",
            b"a^b",
            b"`a`",
        ];
        let (longest, longer) = ([b'a'; 255 + 6], [b'a'; 255 + 7]);
        assert!(is_host(&longest) && !is_host(&longer));
        good.iter().for_each(|host| assert!(is_host(host), "{}", host.escape_ascii()));
        bad.iter().for_each(|host| assert!(!is_host(host), "{}", host.escape_ascii()));
        assert!(is_host_and_port(b"a:443") && is_host_and_port(b"[::1]:443") && !is_host_and_port(b"a") && !is_host_and_port(b"a:"));
        assert_eq!(split_port(b"[::1]:443"), Some((&b"[::1]"[..], Some(&b"443"[..]))));
        assert_eq!(split_port(b"a:"), Some((&b"a"[..], Some(&b""[..]))));
    }

    fn normalised(path: &str, policy: &PathPolicy) -> Result<String, ClientFault> {
        let mut out = [0xee; 128];
        let normalised = normalise_path(path.as_bytes(), policy, &mut out)?;
        assert_eq!(normalised.changed, normalised.bytes != path.as_bytes());
        Ok(String::from_utf8_lossy(normalised.bytes).into_owned())
    }

    #[test]
    fn rule_16_the_default_policy() {
        use ClientFault::*;
        let cases: &[(&str, Result<&str, ClientFault>)] = &[
            ("/", Ok("/")),
            ("*", Ok("*")),
            ("", Ok("")),
            ("/a/b.c/d..e/f", Ok("/a/b.c/d..e/f")),
            ("/a/", Ok("/a/")),
            ("/%61%2d%2D%7e", Ok("/a--~")),
            ("/%c3%a4%20", Ok("/%C3%A4%20")),
            ("/a//b///c", Ok("/a/b/c")),
            ("//host/a", Ok("/host/a")),
            ("/a//", Ok("/a/")),
            ("/a/./b/.", Ok("/a/b/")),
            ("/a/b/../c", Ok("/a/c")),
            ("/a/b/..", Ok("/a/")),
            ("/a/b/../", Ok("/a/")),
            ("/a/..", Ok("/")),
            ("/a/%2e%2E/b", Ok("/b")),
            ("/a/.%2e/b", Ok("/b")),
            ("/%2e/a", Ok("/a")),
            ("/a//../b", Err(DotSegmentInPath)),
            ("/a//%2e%2e/b", Err(DotSegmentInPath)),
            ("/a//./../b", Err(DotSegmentInPath)),
            ("/a//b/../../c", Err(DotSegmentInPath)),
            ("/a//b/../c", Ok("/a/c")),
            ("/a/../b//c", Ok("/b/c")),
            ("/...", Ok("/...")),
            ("/.a/..b", Ok("/.a/..b")),
            ("/..", Err(PathAboveRoot)),
            ("/../", Err(PathAboveRoot)),
            ("/a/../../b", Err(PathAboveRoot)),
            ("/%2e%2e/b", Err(PathAboveRoot)),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a\\b", Ok("/a\\b")),
            ("/a%5cb", Ok("/a%5Cb")),
            ("/public/..%2fadmin", Err(DotSegmentInPath)),
            ("/public%2f..%2fadmin", Err(DotSegmentInPath)),
            ("/public%2f..", Err(DotSegmentInPath)),
            ("/public/..%5cadmin", Err(DotSegmentInPath)),
            ("/public/..\\admin", Err(DotSegmentInPath)),
            ("/public/%2e%2e\\admin", Err(DotSegmentInPath)),
            ("/public/..;/admin", Err(DotSegmentInPath)),
            ("/public/..;a=b/admin", Err(DotSegmentInPath)),
            ("/public/..%3b/admin", Err(DotSegmentInPath)),
            ("/.%3Ba=b/admin", Err(DotSegmentInPath)),
            ("/public/a;../b", Ok("/public/a;../b")),
            ("/.;/admin", Err(DotSegmentInPath)),
            ("/a/.;v=1/../admin", Err(DotSegmentInPath)),
            ("/a/%2e;/admin", Err(DotSegmentInPath)),
            ("/;/admin", Err(EmptySegmentInPath)),
            ("/;a=b/admin", Err(EmptySegmentInPath)),
            ("/a/;/../admin", Err(EmptySegmentInPath)),
            ("/a%2f;/admin", Err(EmptySegmentInPath)),
            ("/;jsessionid=1", Ok("/;jsessionid=1")),
            ("/a/;jsessionid=1", Ok("/a/;jsessionid=1")),
            ("/a;v=1/b", Ok("/a;v=1/b")),
            ("/a;b;c", Ok("/a;b;c")),
            ("/a%00b", Err(NulInPath)),
            ("/%c0%af", Err(OverlongUtf8InPath)),
            ("/%C1%81", Err(OverlongUtf8InPath)),
            ("/%e0%80%af", Err(OverlongUtf8InPath)),
            ("/%f0%80%80%af", Err(OverlongUtf8InPath)),
            ("/%e0%a4%a4", Ok("/%E0%A4%A4")),
            ("/%", Err(BadEscapeInPath)),
            ("/%4", Err(BadEscapeInPath)),
            ("/%4g/..", Err(BadEscapeInPath)),
            ("/%252e%252e/", Ok("/%252e%252e/")),
        ];
        for (path, expected) in cases {
            assert_eq!(normalised(path, &PathPolicy::default()), expected.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn rule_16_each_policy_can_be_chosen() {
        use ClientFault::*;
        let with = |change: fn(&mut PathPolicy)| {
            let mut policy = PathPolicy::default();
            change(&mut policy);
            policy
        };
        type Case = (&'static str, fn(&mut PathPolicy), Result<&'static str, ClientFault>);
        let cases: &[Case] = &[
            ("/a/../b", |p| p.dot_segments = Policy::Reject, Err(DotSegmentInPath)),
            ("/a/%2e/b", |p| p.dot_segments = Policy::Reject, Err(DotSegmentInPath)),
            ("/a/../b/%2e%2e", |p| p.dot_segments = Policy::Keep, Ok("/a/../b/%2E%2E")),
            ("/a//b", |p| p.empty_segments = Policy::Reject, Err(EmptySegmentInPath)),
            ("/a//b/", |p| p.empty_segments = Policy::Keep, Ok("/a//b/")),
            ("//a/../..", |p| p.empty_segments = Policy::Keep, Ok("/")),
            ("/a%2fb", |p| p.encoded_slash = Policy::Reject, Err(SlashInSegment)),
            ("/a%2f..%2Fb", |p| p.encoded_slash = Policy::Normalise, Ok("/b")),
            ("/a%5cb", |p| p.backslash = Policy::Reject, Err(BackslashInPath)),
            ("/a\\b", |p| p.backslash = Policy::Reject, Err(BackslashInPath)),
            ("/a%5c..\\b", |p| p.backslash = Policy::Normalise, Ok("/b")),
            ("/a%00", |p| p.nul = Policy::Keep, Ok("/a%00")),
            ("/a%00", |p| p.nul = Policy::Normalise, Err(NulInPath)),
            ("/%c0%af", |p| p.overlong_utf8 = Policy::Keep, Ok("/%C0%AF")),
            ("/%zz", |p| p.bad_escape = Policy::Keep, Ok("/%zz")),
        ];
        for (path, change, expected) in cases {
            assert_eq!(normalised(path, &with(*change)), expected.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn plain_paths_are_told_by_words_as_they_are_byte_by_byte() {
        let slowly = |path: &[u8]| {
            let hidden = path.windows(2).any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.' | b';'));
            !hidden && !path.iter().any(|b| matches!(b, b'%' | b'\\'))
        };
        let seed = 0x5eed_0016;
        println!("seed {seed:#x}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut plain = 0;
        for round in 0..200_000 {
            let alphabet: &[u8] = if round % 2 == 0 { b"/.;%\\a$]-\x80" } else { b"/.aaaaaaaaaaaaaaaaa-0" };
            let path: Vec<u8> = (0..random.usize(..40)).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
            assert_eq!(is_plain(&path), slowly(&path), "{}", path.escape_ascii());
            plain += usize::from(slowly(&path));
        }
        assert!((20_000..180_000).contains(&plain), "both kinds come up: {plain}");
    }

    /// What came out once comes out again, and no accepted path has a dot segment left.
    #[test]
    fn rule_16_normalising_twice_changes_nothing() {
        let pieces = ["/", ".", "..", "%2e", "%2F", "%5c", "\\", "a", ";", "%41", "%25", "%"];
        for number in 0..pieces.len().pow(5) {
            let mut path = String::from("/");
            let mut rest = number;
            for _ in 0..5 {
                path.push_str(pieces[rest % pieces.len()]);
                rest /= pieces.len();
            }
            if let Ok(once) = normalised(&path, &PathPolicy::default()) {
                assert_eq!(normalised(&once, &PathPolicy::default()).as_ref(), Ok(&once), "{path}");
                assert!(once.split('/').all(|segment| segment != "." && segment != ".."), "{path}: {once}");
            }
        }
    }

    #[test]
    fn a_short_buffer_is_a_fault_and_not_a_panic() {
        assert_eq!(normalise_path(b"/a/../b", &PathPolicy::default(), &mut [0; 6]), Err(ClientFault::TargetTooLong));
        assert!(normalise_path(b"/a/b", &PathPolicy::default(), &mut []).is_ok());
    }
}
