//! Lets each client, or each value of a header, make so many requests per second; answers the rest with 429.
//!
//! ```json
//! {"requests_per_second": 100, "burst": 200, "key": "client", "keys_max": 10000}
//! ```
//!
//! `key` is `"client"` (the address; IPv6 clients are told apart by their /64, because one client has a whole one) or
//! `{"header": "x-api-key"}`; a request without that header counts for its client.
//!
//! **The limit is per worker.** Nothing is shared between cores, and the configured rate is divided by nothing: a client
//! whose connections are spread over N workers can reach N times the rate, a client with one keep-alive connection gets
//! exactly the rate. Dividing by the number of workers would punish the second one, and most clients are like it. To
//! guard a total, configure total / workers yourself.
//!
//! **Memory is bounded** by `keys_max` per worker (about 48 bytes each). When all places are taken, the clock algorithm
//! gives up one: it prefers a key whose bucket is full, for which forgetting changes nothing. Somebody who can invent
//! keys faster than that (random values of the header) makes old ones be forgotten: use a header that is authenticated.

mod buckets;

use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use ringway_sdk::prelude::*;
use serde::Deserialize;

use buckets::{Buckets, Limit};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    requests_per_second: f64,
    burst: Option<u32>,
    #[serde(default)]
    key: Key,
    #[serde(default = "default_keys_max")]
    keys_max: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Key {
    #[default]
    Client,
    Header(String),
}

fn default_keys_max() -> u32 {
    10_000
}

/// What the workers share: the rules, not the buckets.
struct Rules {
    limit: Limit,
    keys_max: u32,
    header: Option<(String, HeaderId)>,
    /// Keyed by chance, so that nobody can make two keys collide.
    hash: RandomState,
}

struct RateLimit {
    rules: Arc<Rules>,
    buckets: Buckets,
}

impl Plugin for RateLimit {
    type Shared = Rules;
    type Scratch = ();

    fn load(loader: &mut Loader<'_>, config: &[u8]) -> Result<Rules, Fault> {
        let config: Config = serde_json::from_slice(config)?;
        let rate = config.requests_per_second;
        if !(0.001..=1e6).contains(&rate) {
            return Err(format!("requests_per_second must be from 0.001 to 1000000; it is {rate}").into());
        }
        let burst = config.burst.unwrap_or(rate.ceil() as u32);
        if !(1..=1_000_000).contains(&burst) {
            return Err(format!("burst must be from 1 to 1000000; it is {burst}").into());
        }
        if !(1..=10_000_000).contains(&config.keys_max) {
            return Err(format!("keys_max must be from 1 to 10000000; it is {}", config.keys_max).into());
        }
        let header = match config.key {
            Key::Client => None,
            // All ids may be taken: then the name is found by its bytes.
            Key::Header(name) => {
                let id = match loader.intern_header(&name) {
                    Err(HostError::NoSpace) => HeaderId::OTHER,
                    Err(_) => return Err(format!("key.header: {name:?} is not a header name that can be used").into()),
                    Ok(id) => id,
                };
                Some((name, id))
            }
        };
        Ok(Rules { limit: Limit::new(rate, burst), keys_max: config.keys_max, header, hash: RandomState::new() })
    }

    fn core_init(shared: &Arc<Rules>, _worker: u32) -> Result<Self, Fault> {
        Ok(RateLimit { rules: Arc::clone(shared), buckets: Buckets::new(shared.limit, shared.keys_max) })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        let keys = self.buckets.len();
        let taken = self.buckets.take(self.rules.key(request), cx.now_unix_ns());
        if self.buckets.len() != keys {
            cx.set(KEYS, self.buckets.len() as u64);
        }
        let Err(wait_ns) = taken else {
            return Ok(Verdict::Continue);
        };
        cx.add(LIMITED, 1);
        // RFC 9110 §10.2.3: whole seconds; rounded up, so that who obeys is let through.
        let mut digits = [0u8; 20];
        let mut rest = digits.as_mut_slice();
        write!(rest, "{}", wait_ns.div_ceil(1_000_000_000))?;
        let unused = rest.len();
        let seconds = &digits[..digits.len() - unused];
        cx.respond(429)?.header("retry-after", seconds)?.header("content-type", "text/plain")?.body("too many requests\n")?.send()
    }
}

impl Rules {
    /// What stands for the client or the header's value; 64 bits under a random key, so that long values cost no memory.
    fn key(&self, request: &RequestView) -> u64 {
        if let Some((name, id)) = &self.header {
            let value = if *id == HeaderId::OTHER { request.header_named(name.as_bytes()) } else { request.header(*id) };
            if let Some(value) = value {
                return self.hash.hash_one((0u8, value));
            }
        }
        match request.peer_ip() {
            Some(IpAddr::V4(v4)) => self.hash.hash_one((1u8, v4.octets())),
            Some(IpAddr::V6(v6)) => self.hash.hash_one((2u8, &v6.octets()[..8])),
            None => self.hash.hash_one(3u8),
        }
    }
}

ringway_sdk::export_plugin!(RateLimit {
    name: "rate-limit",
    version: env!("CARGO_PKG_VERSION"),
    hooks: [on_request],
    wants: [RESPOND],
    metrics: [LIMITED = counter("limited_total", "Requests that were answered with 429."), KEYS = gauge("keys", "Keys that have a bucket."),],
});

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_sdk::testing::{Request, Returned, TestHost, request};
    use std::time::Duration;

    fn from(last: u8) -> Request {
        let mut request = request("GET", "/", &[]);
        request.peer_addr[15] = last;
        request
    }

    #[test]
    fn a_burst_passes_then_429_then_one_per_interval() {
        let mut host = TestHost::<RateLimit>::load(r#"{"requests_per_second": 2, "burst": 3}"#).expect("loads");
        for _ in 0..3 {
            host.exchange(from(1)).on_request().continues();
        }
        let answer = host.exchange(from(1)).on_request().answer();
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
        host.exchange(from(2)).on_request().continues();
        host.advance(Duration::from_millis(500));
        host.exchange(from(1)).on_request().continues();
        assert_eq!(host.exchange(from(1)).on_request().answer().status, 429);
        assert_eq!((host.metric("limited_total"), host.metric("keys")), (2, 2));
    }

    #[test]
    fn who_obeys_retry_after_is_let_through() {
        let mut host = TestHost::<RateLimit>::load(r#"{"requests_per_second": 0.3, "burst": 1}"#).expect("loads");
        host.exchange(from(1)).on_request().continues();
        let answer = host.exchange(from(1)).on_request().answer();
        let seconds: u64 = answer.header("retry-after").expect("is there").parse().expect("is a number");
        assert_eq!(seconds, 4);
        host.advance(Duration::from_secs(seconds));
        host.exchange(from(1)).on_request().continues();
    }

    #[test]
    fn a_header_can_be_the_key_and_its_absence_counts_for_the_client() {
        let mut host = TestHost::<RateLimit>::load(r#"{"requests_per_second": 1, "key": {"header": "X-Api-Key"}}"#).expect("loads");
        for key in ["a", "b"] {
            host.exchange(request("GET", "/", &[("x-api-key", key)])).on_request().continues();
            assert!(matches!(host.exchange(request("GET", "/", &[("X-API-KEY", key)])).on_request(), Returned::Respond(_)));
        }
        host.exchange(from(1)).on_request().continues();
        host.exchange(from(2)).on_request().continues();
        assert_eq!(host.exchange(from(2)).on_request().answer().status, 429);
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let mut host = TestHost::<RateLimit>::load(r#"{"requests_per_second": 1}"#).expect("loads");
        let mut one = request("GET", "/", &[]);
        one.peer_addr = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        let mut other = one.clone();
        other.peer_addr[15] = 2;
        host.exchange(one).on_request().continues();
        assert_eq!(host.exchange(other).on_request().answer().status, 429);
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let cases = [
            ("{}", "missing field `requests_per_second`"),
            (r#"{"requests_per_second": 0}"#, "requests_per_second must be"),
            (r#"{"requests_per_second": 1, "burst": 0}"#, "burst must be"),
            (r#"{"requests_per_second": 1, "keys_max": 0}"#, "keys_max must be"),
            (r#"{"requests_per_second": 1, "key": {"header": "a b"}}"#, "key.header"),
            (r#"{"requests_per_second": 1, "key": "cookie"}"#, "unknown variant `cookie`"),
            (r#"{"requests_per_seconds": 1}"#, "unknown field `requests_per_seconds`"),
        ];
        for (config, expected) in cases {
            let refusal = TestHost::<RateLimit>::load(config).err().expect(config);
            assert!(refusal.0.contains(expected), "{config}: {refusal}");
        }
    }
}
