//! Cache-Control and freshness: what RFC 9111 says about one message. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway_sdk::prelude::*;

/// The directives of one message that matter to a shared cache.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Directives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<u64>,
    pub(crate) s_maxage: Option<u64>,
    pub(crate) min_fresh: Option<u64>,
}

impl Directives {
    pub(crate) fn of(message: &impl Message) -> Self {
        let mut directives = Directives::default();
        for element in message.header_elements(HeaderId::CACHE_CONTROL) {
            directives.note(element);
        }
        directives
    }

    fn note(&mut self, element: &[u8]) {
        let cut = element.iter().position(|b| *b == b'=').unwrap_or(element.len());
        let (name, argument) = (element[..cut].trim_ascii(), element.get(cut + 1..).map(<[u8]>::trim_ascii));
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // RFC 9111 §5.2.2.4, §5.2.2.7: `no-cache` and `private` may name fields. The whole response is taken as meant:
        // that is stricter, never laxer.
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache = true;
        } else if is("private") {
            self.private = true;
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age = smaller(self.max_age, seconds(argument));
        } else if is("s-maxage") {
            self.s_maxage = smaller(self.s_maxage, seconds(argument));
        } else if is("min-fresh") {
            self.min_fresh = Some(seconds(argument));
        }
    }
}

/// RFC 9111 §4.2.1: of conflicting values, the stricter one.
fn smaller(known: Option<u64>, new: u64) -> Option<u64> {
    Some(known.map_or(new, |known| known.min(new)))
}

/// RFC 9111 §1.2.2 delta-seconds: too large means 2^31, and what is no number counts as stale (§4.2.1).
fn seconds(argument: Option<&[u8]>) -> u64 {
    let argument = argument.unwrap_or_default();
    let digits = argument.strip_prefix(b"\"").and_then(|a| a.strip_suffix(b"\"")).unwrap_or(argument);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    digits.iter().fold(0u64, |sum, digit| (sum * 10 + u64::from(digit - b'0')).min(1 << 31))
}

/// How long a response may be used, and how old it is already; both in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness {
    pub(crate) lifetime: u64,
    pub(crate) age: u64,
}

/// The freshness of a response that has just arrived; `None` when it must not be stored or is stale already.
pub(crate) fn freshness(response: &ResponseView, is_authorized: bool, requested_unix_ns: u64, now_unix_ns: u64, default_lifetime: u64) -> Option<Freshness> {
    let directives = Directives::of(response);
    // `no-cache` could be stored and revalidated; this cache does not revalidate.
    if directives.no_store || directives.private || directives.no_cache {
        return None;
    }
    if is_authorized && !may_answer_authorized(&directives) {
        return None;
    }
    let now = now_unix_ns / NS;
    let date = date_of(response.header(HeaderId::DATE));
    // RFC 9111 §4.2.1: s-maxage, max-age, Expires, in this order.
    let explicit = directives.s_maxage.or(directives.max_age).or_else(|| {
        let expires = response.header(HeaderId::EXPIRES)?;
        // RFC 9111 §5.3: an invalid date, "0" above all, means "expired".
        Some(date_of(Some(expires)).map_or(0, |expires| expires.saturating_sub(date.unwrap_or(now))))
    });
    let lifetime = match explicit {
        Some(lifetime) if STORABLE_IF_EXPLICIT.contains(&response.status()) => lifetime,
        None if STORABLE_BY_DEFAULT.contains(&response.status()) => default_lifetime,
        _ => return None,
    };
    // RFC 9111 §4.2.3: the larger of what the clocks and what the Age header say.
    let apparent = date.map_or(0, |date| now.saturating_sub(date));
    let delay = now_unix_ns.saturating_sub(requested_unix_ns) / NS;
    let received = response.header(HeaderId::AGE).map_or(0, |age| seconds(Some(age)));
    let age = apparent.max(received + delay);
    (age < lifetime).then_some(Freshness { lifetime, age })
}

/// RFC 9111 §3.5: only these allow a response to be shared although its request was authorized.
pub(crate) fn may_answer_authorized(directives: &Directives) -> bool {
    directives.public || directives.must_revalidate || directives.s_maxage.is_some()
}

fn date_of(value: Option<&[u8]>) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(std::str::from_utf8(value?).ok()?).ok()?;
    time.duration_since(UNIX_EPOCH).ok().as_ref().map(Duration::as_secs)
}

/// Whether the client's copy, by its conditions, is the stored response (RFC 9110 §13.2.2).
pub(crate) fn is_not_modified(request: &RequestView, etag: Option<&[u8]>, last_modified: Option<&[u8]>) -> bool {
    if request.header(HeaderId::IF_NONE_MATCH).is_some() {
        let known = etag.map(opaque_tag);
        return request.header_elements(HeaderId::IF_NONE_MATCH).any(|tag| tag == b"*" || Some(opaque_tag(tag)) == known);
    }
    match (date_of(request.header(HeaderId::IF_MODIFIED_SINCE)), date_of(last_modified)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// RFC 9110 §8.8.3.2: weak comparison looks at the opaque tag only.
fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

const NS: u64 = 1_000_000_000;

/// RFC 9110 §15.1, without 206, which needs ranges.
const STORABLE_BY_DEFAULT: [u16; 10] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414];

/// What may be stored when the server says for how long. 206 and 304 mean something only together with another response.
const STORABLE_IF_EXPLICIT: [u16; 15] = [200, 201, 203, 204, 300, 301, 302, 303, 307, 308, 403, 404, 405, 410, 414];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_as_rfc_9111_says() {
        let of = |elements: &[&str]| {
            let mut directives = Directives::default();
            elements.iter().for_each(|element| directives.note(element.as_bytes()));
            directives
        };
        assert_eq!(of(&["No-Store", "x=1"]), Directives { no_store: true, ..Directives::default() });
        assert_eq!(of(&["max-age=10", "MAX-AGE = 5"]).max_age, Some(5));
        assert_eq!(of(&["max-age=\"7\""]).max_age, Some(7));
        assert_eq!(of(&["max-age=99999999999999999999999"]).max_age, Some(1 << 31));
        assert_eq!(of(&["max-age=-1"]).max_age, Some(0));
        assert_eq!(of(&["max-age"]).max_age, Some(0));
        assert!(of(&["private=\"set-cookie, x\""]).private);
        assert_eq!(of(&["s-maxage=3", "max-age=9"]).s_maxage, Some(3));
    }
}
