//! The configuration: parsed, and checked so far that no edit of it can be refused later.

use std::collections::BTreeMap;

use ringway_sdk::{Fault, HeaderId};
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) request: Rules,
    pub(crate) response: Rules,
    pub(crate) path_prefix: Option<Prefix>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rules {
    pub(crate) remove: Vec<String>,
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) add: BTreeMap<String, Values>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Values {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prefix {
    pub(crate) from: String,
    pub(crate) to: String,
}

pub(crate) fn parse(json: &[u8]) -> Result<Config, Fault> {
    let config: Config = serde_json::from_slice(json)?;
    for (side, rules) in [("request", &config.request), ("response", &config.response)] {
        for name in &rules.remove {
            check_name(side, "remove", name)?;
            check_host(side, "remove", name)?;
        }
        for (name, value) in &rules.set {
            check_name(side, "set", name)?;
            check_value(side, "set", name, value)?;
        }
        for (name, value) in rules.add.iter().flat_map(pairs) {
            check_name(side, "add", name)?;
            check_host(side, "add", name)?;
            check_value(side, "add", name, value)?;
        }
    }
    if let Some(Prefix { from, to }) = &config.path_prefix {
        for (key, path) in [("from", from), ("to", to)] {
            if !path.starts_with('/') {
                return Err(format!("path_prefix.{key} must begin with '/'; it is {path:?}").into());
            }
            if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#') {
                return Err(format!("path_prefix.{key} must hold visible ASCII without '?' and '#'; it is {path:?}").into());
            }
        }
    }
    Ok(config)
}

/// Each value of an `add` rule with its name.
pub(crate) fn pairs<'a>((name, values): (&'a String, &'a Values)) -> impl Iterator<Item = (&'a str, &'a str)> {
    let values = match values {
        Values::One(value) => std::slice::from_ref(value),
        Values::Many(values) => values,
    };
    values.iter().map(move |value| (name.as_str(), value.as_str()))
}

fn check_name(side: &str, rule: &str, name: &str) -> Result<(), Fault> {
    // RFC 9110 §5.6.2: token.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
        return Err(format!("{side}.{rule}: {name:?} is not a header name").into());
    }
    if GATEWAY_HEADERS.contains(&HeaderId::of(name.as_bytes())) {
        return Err(format!("{side}.{rule}: {name:?} belongs to the gateway, which frames messages and keeps connections").into());
    }
    Ok(())
}

/// A request keeps exactly one Host: it can be set and nothing else.
fn check_host(side: &str, rule: &str, name: &str) -> Result<(), Fault> {
    if side == "request" && HeaderId::of(name.as_bytes()) == HeaderId::HOST {
        return Err(format!("{side}.{rule}: a request has exactly one Host; use {side}.set").into());
    }
    Ok(())
}

fn check_value(side: &str, rule: &str, name: &str, value: &str) -> Result<(), Fault> {
    // RFC 9110 §5.5: no controls but HTAB, and no blanks around the value.
    if value.contains(|c: char| c.is_ascii_control() && c != '\t') || value.trim_matches([' ', '\t']) != value {
        return Err(format!("{side}.{rule}: the value of {name:?} holds a control character or begins or ends with a blank").into());
    }
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]".contains(&b);
    if side == "request" && HeaderId::of(name.as_bytes()) == HeaderId::HOST && (value.is_empty() || !value.bytes().all(is_host_byte)) {
        return Err(format!("{side}.{rule}: {value:?} is no host").into());
    }
    Ok(())
}

const GATEWAY_HEADERS: [HeaderId; 9] = [
    HeaderId::HTTP2_SETTINGS,
    HeaderId::CONTENT_LENGTH,
    HeaderId::TRANSFER_ENCODING,
    HeaderId::CONNECTION,
    HeaderId::KEEP_ALIVE,
    HeaderId::PROXY_CONNECTION,
    HeaderId::TE,
    HeaderId::TRAILER,
    HeaderId::UPGRADE,
];
