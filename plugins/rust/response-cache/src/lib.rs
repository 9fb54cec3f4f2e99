//! A shared HTTP cache (RFC 9111) per worker: answers GET and HEAD from memory with a short circuit.
//!
//! ```json
//! {"bytes_max": 67108864, "body_bytes_max": 1048576, "default_seconds": 0, "vary_max": 4,
//!  "strip_set_cookie": false, "cache_status": true}
//! ```
//!
//! What it honours: Cache-Control of requests (`no-store no-cache max-age min-fresh only-if-cached`) and of responses
//! (`no-store private no-cache public s-maxage max-age must-revalidate`), Expires, Date, Age, Pragma, Vary (bounded), the
//! rule for Authorization (§3.5), If-None-Match and If-Modified-Since (answered with 304), invalidation by unsafe methods.
//! A response with Set-Cookie is not stored unless `strip_set_cookie` is on.
//!
//! Listeners and routes never answer for one another, also when they share one `[[plugin]]`, and also after a reload: each may lead to another upstream. What is
//! not seen is a plugin that chooses the upstream of a request (`RW_WANT_UPSTREAM`), and servers of an upstream that change under its name: give such a route no
//! cache, or let the upstream say what a response depends on (Vary).
//!
//! What it does not do: revalidate (a stale response is a miss, a `no-cache` response is not stored), ranges, and sharing
//! between workers. Each worker fills its own cache; an unsafe method invalidates the cache of the worker that saw it, on
//! the others the response stays until it is stale.
//!
//! Life of an exchange: `on_request` looks the key up; on a miss it keeps the key and the request's headers in the
//! exchange. `on_response` decides whether to store, `on_response_chunk` collects the body, `on_done` gives an unfinished
//! one up.

mod config;
mod control;
mod snapshot;
mod store;

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::sync::Arc;

use ringway_sdk::prelude::*;

use config::Config;
use control::Directives;
use store::{Place, Store, Variant};

ringway_sdk::scratch! {
    /// What the later hooks of an exchange must know.
    struct Pending {
        key: Kept,
        request_headers: Kept,
        is_authorized: bool,
        is_unsafe: bool,
        /// Index of the body being collected, plus 1.
        fill: u32,
    }
}

struct ResponseCache {
    config: Arc<Config>,
    store: Store,
    fills: Vec<Option<Fill>>,
    filling_bytes: usize,
    /// Where keys are made; reused.
    buffer: Vec<u8>,
}

/// A response whose body is on its way.
struct Fill {
    key: Box<[u8]>,
    variant: Variant,
    content_length: u64,
}

impl Plugin for ResponseCache {
    type Shared = Config;
    type Scratch = Pending;

    fn load(_: &mut Loader<'_>, config: &[u8]) -> Result<Config, Fault> {
        config::parse(config)
    }

    fn core_init(shared: &Arc<Config>, _worker: u32) -> Result<Self, Fault> {
        Ok(ResponseCache { config: Arc::clone(shared), store: Store::new(shared.bytes_max), fills: Vec::new(), filling_bytes: 0, buffer: Vec::new() })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        if matches!(request.method_id(), ids::METHOD_OPTIONS | ids::METHOD_TRACE | ids::METHOD_CONNECT) {
            return Ok(Verdict::Done);
        }
        self.write_key(request);
        if !request.is_get_or_head() {
            let Ok(key) = cx.keep(&self.buffer) else {
                // The exchange's memory is used up, so the response will not be seen: invalidate now, to be safe.
                self.store.remove(&self.buffer);
                return Ok(Verdict::Done);
            };
            *cx.scratch() = Pending { key, is_unsafe: true, ..*cx.scratch() };
            return Ok(Verdict::Continue);
        }
        let directives = Directives::of(request);
        if directives.no_store || is_beyond_this_cache(request) {
            return Ok(Verdict::Done);
        }
        // RFC 9111 §5.4: Pragma counts only without Cache-Control.
        let is_pragma =
            request.header(HeaderId::CACHE_CONTROL).is_none() && request.header_elements(HeaderId::PRAGMA).any(|p| p.eq_ignore_ascii_case(b"no-cache"));
        if !directives.no_cache
            && !is_pragma
            && let Some(outcome) = self.hit(cx, request, &directives)
        {
            return outcome;
        }
        cx.add(MISSES, 1);
        if directives.only_if_cached {
            return cx.respond(504)?.header("content-type", "text/plain")?.body("not in the cache\n")?.send();
        }
        if request.method_id() == ids::METHOD_HEAD {
            return Ok(Verdict::Done);
        }
        self.remember(cx, request)
    }

    fn on_response(&mut self, cx: &mut Cx<'_, Self>, response: &ResponseView) -> Outcome {
        let pending = *cx.scratch();
        let Some(key) = cx.kept(pending.key) else { return Ok(Verdict::Done) };
        if pending.is_unsafe {
            // RFC 9111 §4.4: a non-error response to an unsafe method invalidates.
            if (200..400).contains(&response.status()) && self.store.remove(key).is_some() {
                cx.add(INVALIDATIONS, 1);
            }
            return Ok(Verdict::Done);
        }
        let Some(variant) = self.storable(cx, response, &pending) else { return Ok(Verdict::Done) };
        if response.flags() & view::RES_HAS_BODY == 0 {
            self.insert(cx, key, variant);
            return Ok(Verdict::Done);
        }
        let Some(at) = self.free_fill() else { return Ok(Verdict::Done) };
        self.fills[at] = Some(Fill { key: key.into(), variant, content_length: response.content_length() });
        cx.scratch().fill = at as u32 + 1;
        Ok(Verdict::Continue)
    }

    fn on_response_chunk(&mut self, cx: &mut Cx<'_, Self>, chunk: Chunk<'_>) -> Outcome {
        let Some(at) = (cx.scratch().fill as usize).checked_sub(1) else { return Ok(Verdict::Done) };
        let Some(fill) = self.fills[at].as_mut() else { return Ok(Verdict::Done) };
        let filled = fill.variant.body.len() + chunk.bytes().len();
        if filled > self.config.body_bytes_max || self.filling_bytes + chunk.bytes().len() > self.config.bytes_max / 4 {
            self.give_up(cx);
            return Ok(Verdict::Done);
        }
        self.filling_bytes += chunk.bytes().len();
        fill.variant.body.extend_from_slice(chunk.bytes());
        if !chunk.is_last() {
            return Ok(Verdict::Continue);
        }
        // RFC 9111 §3.3: an incomplete response is not stored.
        let is_complete = fill.content_length == u64::MAX || fill.content_length == filled as u64;
        if let Some(mut fill) = self.give_up(cx)
            && is_complete
        {
            fill.variant.body.shrink_to_fit();
            self.insert(cx, &fill.key, fill.variant);
        }
        Ok(Verdict::Done)
    }

    fn on_done(&mut self, cx: &mut Cx<'_, Self>, _: Done) {
        self.give_up(cx);
    }
}

impl ResponseCache {
    /// The key: whether TLS, host in lower case, target. Listener and route are no part of it, but of what is stored under it.
    fn write_key(&mut self, request: &RequestView) {
        self.buffer.clear();
        self.buffer.push(u8::from(request.flags() & view::REQ_TLS != 0));
        self.buffer.extend_from_slice(request.authority());
        self.buffer.make_ascii_lowercase();
        self.buffer.push(b' ');
        self.buffer.extend_from_slice(request.target());
    }

    /// Answers from the store; `None` when it cannot.
    fn hit(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView, directives: &Directives) -> Option<Outcome> {
        let now = cx.now_unix_ns();
        let variant = self.store.find(&self.buffer, request)?;
        let (age, lifetime) = (variant.age(now), variant.freshness.lifetime);
        let is_fresh = age < lifetime && directives.max_age.is_none_or(|max| age <= max) && directives.min_fresh.is_none_or(|min| lifetime - age >= min);
        if !is_fresh || (request.header(HeaderId::AUTHORIZATION).is_some() && !variant.may_answer_authorized) {
            return None;
        }
        match send(cx, request, variant, age, self.config.cache_status) {
            Ok(outcome) => {
                cx.add(HITS, 1);
                Some(outcome)
            }
            // The gateway's bound for answers is below this body: let the upstream answer.
            Err(HostError::NoSpace) => None,
            Err(refusal) => Some(Err(refusal.into())),
        }
    }

    /// Keeps for `on_response` what the request looked like.
    fn remember(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        let key = cx.keep(&self.buffer);
        self.buffer.clear();
        snapshot::write(request, &mut self.buffer);
        let (Ok(key), Ok(request_headers)) = (key, cx.keep(&self.buffer)) else {
            // The exchange's memory is used up; the request goes on without the cache.
            return Ok(Verdict::Done);
        };
        let is_authorized = request.header(HeaderId::AUTHORIZATION).is_some();
        *cx.scratch() = Pending { key, request_headers, is_authorized, is_unsafe: false, fill: 0 };
        Ok(Verdict::Continue)
    }

    /// The response as it would be stored, without its body; `None` when it must not be.
    fn storable(&self, cx: &Cx<'_, Self>, response: &ResponseView, pending: &Pending) -> Option<Variant> {
        let has_cookie = response.header(HeaderId::SET_COOKIE).is_some();
        let is_too_long = response.content_length() != u64::MAX && response.content_length() > self.config.body_bytes_max as u64;
        if response.origin() != view::ORIGIN_UPSTREAM || (has_cookie && !self.config.strip_set_cookie) || is_too_long {
            return None;
        }
        let now = cx.now_unix_ns();
        let freshness = control::freshness(response, pending.is_authorized, cx.request().received_unix_ns(), now, self.config.default_seconds)?;
        let request_headers = cx.kept(pending.request_headers)?;
        let mut vary = Vec::new();
        for name in response.header_elements(HeaderId::VARY) {
            if name == b"*" || vary.len() == self.config.vary_max {
                return None;
            }
            vary.push((name.to_ascii_lowercase().into(), snapshot::values(request_headers, name).map(Into::into).collect()));
        }
        let is_kept = |header: &&HeaderView| {
            !NOT_STORED.contains(&header.id()) && !response.header_elements(HeaderId::CONNECTION).any(|named| named.eq_ignore_ascii_case(header.name()))
        };
        let headers = response.headers().filter(is_kept).map(|header| (header.name().into(), header.value().into())).collect();
        let may_answer_authorized = control::may_answer_authorized(&Directives::of(response));
        Some(Variant {
            place: Place::of(cx.request()),
            vary,
            status: response.status(),
            headers,
            body: Vec::new(),
            stored_unix_ns: now,
            freshness,
            may_answer_authorized,
        })
    }

    fn insert(&mut self, cx: &Cx<'_, Self>, key: &[u8], variant: Variant) {
        self.store.insert(key, variant);
        cx.add(STORES, 1);
        cx.add(EVICTIONS, self.store.take_evicted());
        cx.set(BYTES, self.store.bytes() as u64);
    }

    fn free_fill(&mut self) -> Option<usize> {
        let free = self.fills.iter().position(Option::is_none);
        if free.is_none() && self.fills.len() < FILLS_MAX {
            self.fills.push(None);
            return Some(self.fills.len() - 1);
        }
        free
    }

    /// Takes back what this exchange was collecting.
    fn give_up(&mut self, cx: &mut Cx<'_, Self>) -> Option<Fill> {
        let at = (std::mem::take(&mut cx.scratch().fill) as usize).checked_sub(1)?;
        let fill = self.fills.get_mut(at)?.take()?;
        self.filling_bytes -= fill.variant.body.len();
        Some(fill)
    }
}

/// Requests that need what this cache does not do.
fn is_beyond_this_cache(request: &RequestView) -> bool {
    let has = |name: &[u8]| request.header_named(name).is_some();
    request.flags() & (view::REQ_HAS_BODY | view::REQ_UPGRADE) != 0
        || request.header(HeaderId::RANGE).is_some()
        || has(b"if-match")
        || has(b"if-unmodified-since")
}

/// Writes the answer. The gateway leaves the body of an answer to HEAD out.
fn send(cx: &mut Cx<'_, ResponseCache>, request: &RequestView, variant: &Variant, age: u64, with_status: bool) -> Result<Outcome, HostError> {
    // RFC 9110 §13.2.1: preconditions count only when the answer would be a success.
    let is_not_modified = variant.status == 200 && control::is_not_modified(request, variant.header("etag"), variant.header("last-modified"));
    let mut answer = cx.respond(if is_not_modified { 304 } else { variant.status })?;
    for (name, value) in &variant.headers {
        // RFC 9110 §15.4.5: a 304 carries what updates the client's copy, and nothing about the content.
        if is_not_modified && !IN_304.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
            continue;
        }
        answer = answer.header(name, value)?;
    }
    let mut digits = [0u8; 20];
    let mut rest = digits.as_mut_slice();
    write!(rest, "{age}").map_err(|_| HostError::NoSpace)?;
    let unused = rest.len();
    answer = answer.header("age", &digits[..digits.len() - unused])?;
    if with_status {
        answer = answer.header("cache-status", "ringway; hit")?;
    }
    if !is_not_modified {
        answer = answer.body(&variant.body)?;
    }
    Ok(answer.send())
}

/// Bodies that are collected at the same time.
const FILLS_MAX: usize = 256;

/// Framing, connection, and what is made anew for each answer. Date is the gateway's.
const NOT_STORED: [HeaderId; 14] = [
    HeaderId::CONTENT_LENGTH,
    HeaderId::TRANSFER_ENCODING,
    HeaderId::CONNECTION,
    HeaderId::KEEP_ALIVE,
    HeaderId::PROXY_CONNECTION,
    HeaderId::PROXY_AUTHENTICATE,
    HeaderId::PROXY_AUTHORIZATION,
    HeaderId::TE,
    HeaderId::TRAILER,
    HeaderId::UPGRADE,
    HeaderId::DATE,
    HeaderId::AGE,
    HeaderId::SET_COOKIE,
    HeaderId::HTTP2_SETTINGS,
];

const IN_304: [&str; 6] = ["cache-control", "content-location", "etag", "expires", "last-modified", "vary"];

ringway_sdk::export_plugin!(ResponseCache {
    name: "response-cache",
    version: env!("CARGO_PKG_VERSION"),
    hooks: [on_request, on_response, on_response_chunk, on_done],
    wants: [RESPOND],
    metrics: [
        HITS = counter("hits_total", "Requests answered from the cache."),
        MISSES = counter("misses_total", "Requests that the cache could have answered and did not."),
        STORES = counter("stores_total", "Responses stored."),
        EVICTIONS = counter("evictions_total", "Resources given up for lack of room."),
        INVALIDATIONS = counter("invalidations_total", "Resources given up because of an unsafe method."),
        BYTES = gauge("bytes", "Bytes of stored responses."),
    ],
});
