//! The configuration. What is wrong with it is found while loading, not by the first request.

use std::collections::HashSet;

use ringway_sdk::{Fault, HeaderId};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The service: an upstream of the configuration.
    pub(crate) upstream: String,
    /// What stands before the path of each request. With `fixed_path` it is the whole target.
    #[serde(default)]
    pub(crate) path_prefix: String,
    /// The service is always asked for `path_prefix` itself.
    #[serde(default)]
    pub(crate) fixed_path: bool,
    /// The headers of the request that the service gets.
    #[serde(default = "default_request_headers")]
    pub(crate) request_headers: Vec<String>,
    /// The headers of an agreeing reply that the request gets. What the client sent under these names is removed.
    #[serde(default)]
    pub(crate) allowed_headers: Vec<String>,
    /// The headers of a refusing reply that the client gets.
    #[serde(default = "default_denied_headers")]
    pub(crate) denied_headers: Vec<String>,
    /// How long a request waits for the decision; absent: as long as `timeouts.suspend` allows.
    pub(crate) timeout_ms: Option<u32>,
    /// What happens when there is no decision.
    #[serde(default)]
    pub(crate) failure: Failure,
    /// The status for the client then, with `closed`.
    #[serde(default = "default_failure_status")]
    pub(crate) failure_status: u16,
}

/// What a failure of the service is for the request.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Failure {
    /// It is refused.
    #[default]
    Closed,
    /// It goes on, without anything from the service.
    Open,
}

fn default_request_headers() -> Vec<String> {
    ["authorization", "cookie"].map(str::to_owned).to_vec()
}

fn default_denied_headers() -> Vec<String> {
    ["www-authenticate", "location", "set-cookie", "content-type", "retry-after"].map(str::to_owned).to_vec()
}

fn default_failure_status() -> u16 {
    503
}

impl Config {
    pub(crate) fn parse(json: &[u8]) -> Result<Config, Fault> {
        let config: Config = serde_json::from_slice(json)?;
        if config.upstream.is_empty() {
            return Err("upstream must name an upstream of the configuration".into());
        }
        let prefix = config.path_prefix.as_bytes();
        let is_path = prefix.first() == Some(&b'/') && prefix.iter().all(|b| (0x21..=0x7e).contains(b) && !matches!(b, b'#' | b'?'));
        if !(is_path || prefix.is_empty() && !config.fixed_path) {
            return Err(format!("path_prefix must be a path such as \"/check\"; it is {:?}", config.path_prefix).into());
        }
        if config.timeout_ms.is_some_and(|ms| !(1..=600_000).contains(&ms)) {
            return Err("timeout_ms must be 1 to 600000".into());
        }
        if !(400..600).contains(&config.failure_status) {
            return Err(format!("failure_status must be 400 to 599; it is {}", config.failure_status).into());
        }
        for (key, names) in
            [("request_headers", &config.request_headers), ("allowed_headers", &config.allowed_headers), ("denied_headers", &config.denied_headers)]
        {
            let mut seen = HashSet::new();
            for name in names {
                check_header(key, name)?;
                if !seen.insert(name.to_ascii_lowercase()) {
                    return Err(format!("{key}: the header {name:?} is named twice").into());
                }
            }
        }
        if let Some(name) = config.request_headers.iter().find(|name| OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name))) {
            return Err(format!("request_headers: {name:?} is set by this plugin itself").into());
        }
        Ok(config)
    }
}

/// What this plugin tells the service itself.
const OURS: [&str; 4] = ["x-original-method", "x-original-uri", "x-forwarded-host", "x-forwarded-for"];

/// A token, and no field of framing, connection or Host: those belong to the gateway.
fn check_header(key: &str, name: &str) -> Result<(), Fault> {
    let is_token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let forbidden = [
        HeaderId::HOST,
        HeaderId::CONTENT_LENGTH,
        HeaderId::TRANSFER_ENCODING,
        HeaderId::CONNECTION,
        HeaderId::KEEP_ALIVE,
        HeaderId::PROXY_CONNECTION,
        HeaderId::TE,
        HeaderId::TRAILER,
        HeaderId::UPGRADE,
        HeaderId::HTTP2_SETTINGS,
        HeaderId::EXPECT,
    ];
    if !is_token || forbidden.contains(&HeaderId::of(name.as_bytes())) {
        return Err(format!("{key}: the header {name:?} cannot be copied").into());
    }
    Ok(())
}
