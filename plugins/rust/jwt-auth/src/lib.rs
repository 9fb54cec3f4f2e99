//! Lets requests with a valid JSON Web Token (RFC 7519, RFC 6750) through, and tells the upstream who they are from.
//!
//! ```json
//! {
//!   "keys": [
//!     {"algorithm": "RS256", "id": "2026-01", "public_key_file": "/etc/ringway/issuer.pem"},
//!     {"algorithm": "HS256", "secret": "at least 32 bytes of chance ....."}
//!   ],
//!   "issuer": "https://issuer.example", "audience": ["api"], "leeway_seconds": 30,
//!   "forward_claims": {"sub": "x-user", "roles": "x-roles"},
//!   "optional": false, "realm": "api", "remember_max": 1024
//! }
//! ```
//!
//! A token must be signed by one of `keys` with that key's algorithm, must carry `exp`, and `iss` and `aud` when they are
//! configured. A token with a `kid` is checked with the key of that `id` or with keys without one. Everything else is
//! answered with 401 and `WWW-Authenticate`.
//!
//! The headers of `forward_claims` are removed from each request before anything else, also when they are spelt with `_`
//! for `-` (some upstreams read both alike), so nobody can claim to be somebody. Lists of plain values are joined by
//! commas; what cannot be (objects, elements with commas) is forwarded as JSON.
//!
//! Verifying RS256 takes long compared with everything else that a worker does for a request, so each worker remembers
//! the tokens that it verified in the last minute. A remembered token still expires on time.

mod config;

#[cfg(test)]
mod tests;

use std::hash::RandomState;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use lru::LruCache;
use ringway_sdk::prelude::*;
use serde_json::Value;

use config::{Config, Key};

struct Rules {
    config: Config,
    keys: Vec<Key>,
    no_token: Prebuilt,
    invalid: Prebuilt,
    expired: Prebuilt,
}

struct JwtAuth {
    rules: Arc<Rules>,
    remembered: LruCache<Box<[u8]>, Verified, RandomState>,
}

/// What is left of a token once it has been verified.
struct Verified {
    headers: Vec<(String, Vec<u8>)>,
    /// The token's end with the leeway, and no later than the time to verify it again.
    until_unix_ns: u64,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NoToken,
    Invalid,
    Expired,
}

impl Plugin for JwtAuth {
    type Shared = Rules;
    type Scratch = ();

    fn load(loader: &mut Loader<'_>, config: &[u8]) -> Result<Rules, Fault> {
        let config = Config::parse(config)?;
        let keys = config.keys()?;
        let mut refusal = |attributes: &str| {
            let challenge = format!("Bearer realm=\"{}\"{attributes}", config.realm);
            loader.prebuild(401, &[("www-authenticate", &challenge), ("content-type", "text/plain")], "unauthorized\n")
        };
        // RFC 6750 §3.1: a request without a token gets no error code.
        let no_token = refusal("")?;
        let invalid = refusal(", error=\"invalid_token\"")?;
        let expired = refusal(", error=\"invalid_token\", error_description=\"the token has expired\"")?;
        Ok(Rules { config, keys, no_token, invalid, expired })
    }

    fn core_init(shared: &Arc<Rules>, _worker: u32) -> Result<Self, Fault> {
        Ok(JwtAuth { rules: Arc::clone(shared), remembered: LruCache::unbounded_with_hasher(RandomState::new()) })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        self.strip_forged(cx, request)?;
        let refusal = match bearer(request) {
            Ok(token) => match self.verified(cx, token) {
                Ok(verified) => {
                    for (name, value) in &verified.headers {
                        cx.request_mut().set_header(name, value)?;
                    }
                    cx.add(ACCEPTED, 1);
                    return Ok(Verdict::Continue);
                }
                Err(refusal) => refusal,
            },
            Err(Refusal::NoToken) if self.rules.config.optional => return Ok(Verdict::Continue),
            Err(refusal) => refusal,
        };
        cx.add(REFUSED, 1);
        cx.respond_prebuilt(match refusal {
            Refusal::NoToken => self.rules.no_token,
            Refusal::Invalid => self.rules.invalid,
            Refusal::Expired => self.rules.expired,
        })
    }
}

impl JwtAuth {
    /// Removes what only this plugin may set.
    fn strip_forged(&self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Result<(), HostError> {
        for header in request.headers() {
            if self.rules.config.forward_claims.values().any(|name| is_alike(name.as_bytes(), header.name())) {
                cx.request_mut().remove_header(header.name())?;
            }
        }
        Ok(())
    }

    fn verified(&mut self, cx: &Cx<'_, Self>, token: &[u8]) -> Result<&Verified, Refusal> {
        let now = cx.now_unix_ns();
        // Looked up twice because a conditional return of a borrow is beyond the borrow checker.
        if self.remembered.get(token).is_some_and(|verified| now < verified.until_unix_ns) {
            cx.add(REMEMBERED, 1);
            return self.remembered.peek(token).ok_or(Refusal::Invalid);
        }
        self.remembered.pop(token);
        let verified = self.rules.verify(token, now)?;
        let remember_max = self.rules.config.remember_max.max(1);
        if self.remembered.len() >= remember_max {
            self.remembered.pop_lru();
        }
        let verified = Verified { until_unix_ns: if self.rules.config.remember_max == 0 { 0 } else { verified.until_unix_ns }, ..verified };
        Ok(self.remembered.get_or_insert(token.into(), || verified))
    }
}

impl Rules {
    fn verify(&self, token: &[u8], now_unix_ns: u64) -> Result<Verified, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Invalid)?;
        // RFC 7515 §4.1.11: extensions that must be understood, and are not.
        if header.crit.is_some() {
            return Err(Refusal::Invalid);
        }
        let is_candidate = |key: &&Key| key.validation.algorithms.contains(&header.alg) && (key.id.is_none() || header.kid.is_none() || key.id == header.kid);
        let mut refusal = Refusal::Invalid;
        for key in self.keys.iter().filter(is_candidate) {
            match jsonwebtoken::decode::<serde_json::Map<String, Value>>(token, &key.decoding, &key.validation) {
                Ok(token) => return self.forwarded(&token.claims, now_unix_ns),
                Err(fault) if matches!(fault.kind(), ErrorKind::ExpiredSignature) => refusal = Refusal::Expired,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    fn forwarded(&self, claims: &serde_json::Map<String, Value>, now_unix_ns: u64) -> Result<Verified, Refusal> {
        let mut headers = Vec::new();
        for (claim, header) in &self.config.forward_claims {
            let Some(value) = claims.get(claim).filter(|value| !value.is_null()) else { continue };
            let value = header_value(value);
            if value.bytes().any(|b| b.is_ascii_control()) {
                return Err(Refusal::Invalid);
            }
            headers.push((header.clone(), value.into_bytes()));
        }
        // NumericDate may have a fraction (RFC 7519 §2); a whole second less does no harm here.
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0) as u64;
        let expires_ns = expires.saturating_add(self.config.leeway_seconds()).saturating_mul(1_000_000_000);
        Ok(Verified { headers, until_unix_ns: expires_ns.min(now_unix_ns.saturating_add(REMEMBER_NS)) })
    }
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1). Two Authorization headers are one too many.
fn bearer(request: &RequestView) -> Result<&[u8], Refusal> {
    let mut values = request.header_values(HeaderId::AUTHORIZATION);
    let value = values.next().ok_or(Refusal::NoToken)?;
    if values.next().is_some() {
        return Err(Refusal::Invalid);
    }
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(token.trim_ascii()),
        _ => Err(Refusal::NoToken),
    }
}

/// Whether an upstream might take one name for the other.
fn is_alike(name: &[u8], received: &[u8]) -> bool {
    let plain = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    name.len() == received.len() && name.iter().map(plain).eq(received.iter().map(plain))
}

fn header_value(claim: &Value) -> String {
    match claim {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(is_plain) => list.iter().map(header_value).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn is_plain(element: &Value) -> bool {
    match element {
        Value::String(text) => !text.contains(','),
        Value::Number(_) | Value::Bool(_) => true,
        _ => false,
    }
}

/// Longer ones are refused: nobody needs them, and each worker remembers whole tokens.
const TOKEN_BYTES_MAX: usize = 8192;
const REMEMBER_NS: u64 = 60_000_000_000;

ringway_sdk::export_plugin!(JwtAuth {
    name: "jwt-auth",
    version: env!("CARGO_PKG_VERSION"),
    hooks: [on_request],
    wants: [EDIT_REQUEST, RESPOND],
    metrics: [
        ACCEPTED = counter("accepted_total", "Requests with a valid token."),
        REFUSED = counter("refused_total", "Requests that were answered with 401."),
        REMEMBERED = counter("remembered_total", "Tokens that needed no verification because it was done before."),
    ],
});
