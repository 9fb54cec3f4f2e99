//! The configuration.

use ringway_sdk::Fault;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Of stored responses, per worker.
    pub(crate) bytes_max: usize,
    /// Of one body.
    pub(crate) body_bytes_max: usize,
    /// For responses that do not say how long they are fresh; 0 stores none of these.
    pub(crate) default_seconds: u64,
    /// Names in one Vary header; a response with more is not stored.
    pub(crate) vary_max: usize,
    /// Store responses with Set-Cookie, without that header.
    pub(crate) strip_set_cookie: bool,
    /// Mark hits with `Cache-Status: ringway; hit` (RFC 9211).
    pub(crate) cache_status: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { bytes_max: 64 << 20, body_bytes_max: 1 << 20, default_seconds: 0, vary_max: 4, strip_set_cookie: false, cache_status: true }
    }
}

pub(crate) fn parse(json: &[u8]) -> Result<Config, Fault> {
    let config: Config = serde_json::from_slice(json)?;
    if config.bytes_max < 4096 {
        return Err(format!("bytes_max must be at least 4096; it is {}", config.bytes_max).into());
    }
    if config.body_bytes_max > config.bytes_max {
        return Err(format!("body_bytes_max ({}) must not be above bytes_max ({})", config.body_bytes_max, config.bytes_max).into());
    }
    Ok(config)
}
