//! The configuration and the keys made from it. What is wrong with a key is found while loading, not by the first token.

use std::collections::{BTreeMap, HashSet};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ringway_sdk::{Fault, HeaderId};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    keys: Vec<KeyConfig>,
    issuer: Option<OneOrMany>,
    audience: Option<OneOrMany>,
    #[serde(default)]
    leeway_seconds: u64,
    /// Claim to request header.
    #[serde(default)]
    pub(crate) forward_claims: BTreeMap<String, String>,
    /// Let requests without a token through, without the forwarded headers.
    #[serde(default)]
    pub(crate) optional: bool,
    #[serde(default = "default_realm")]
    pub(crate) realm: String,
    /// Verified tokens that each worker remembers; 0 verifies each time.
    #[serde(default = "default_remember_max")]
    pub(crate) remember_max: usize,
}

#[derive(Deserialize)]
#[serde(tag = "algorithm", deny_unknown_fields)]
enum KeyConfig {
    HS256 { id: Option<String>, secret: Option<String>, secret_file: Option<String> },
    RS256 { id: Option<String>, public_key: Option<String>, public_key_file: Option<String> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A key and what a token signed with it must say. The algorithm is the key's, never the token's (RFC 8725 §3.1).
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) decoding: DecodingKey,
    pub(crate) validation: Validation,
}

fn default_realm() -> String {
    "api".to_owned()
}

fn default_remember_max() -> usize {
    1024
}

impl Config {
    pub(crate) fn parse(json: &[u8]) -> Result<Config, Fault> {
        let config: Config = serde_json::from_slice(json)?;
        if config.leeway_seconds > 3600 {
            return Err(format!("leeway_seconds must be at most 3600; it is {}", config.leeway_seconds).into());
        }
        if config.realm.contains(['"', '\\']) || config.realm.chars().any(char::is_control) {
            return Err("realm must not hold quotes, backslashes or control characters".into());
        }
        if config.remember_max > 1_000_000 {
            return Err(format!("remember_max must be at most 1000000; it is {}", config.remember_max).into());
        }
        let mut headers = HashSet::new();
        for header in config.forward_claims.values() {
            check_header(header)?;
            if !headers.insert(header.to_ascii_lowercase()) {
                return Err(format!("forward_claims: the header {header:?} is named twice").into());
            }
        }
        Ok(config)
    }

    pub(crate) fn leeway_seconds(&self) -> u64 {
        self.leeway_seconds
    }

    pub(crate) fn keys(&self) -> Result<Vec<Key>, Fault> {
        if self.keys.is_empty() || self.keys.len() > KEYS_MAX {
            return Err(format!("keys must hold 1 to {KEYS_MAX} keys; it holds {}", self.keys.len()).into());
        }
        self.keys.iter().enumerate().map(|(at, key)| self.key(key).map_err(|fault| format!("keys[{at}]: {fault}").into())).collect()
    }

    fn key(&self, key: &KeyConfig) -> Result<Key, Fault> {
        let (id, algorithm, decoding) = match key {
            KeyConfig::HS256 { id, secret, secret_file } => {
                let secret = text("secret", secret, secret_file)?;
                // RFC 7518 §3.2: at least as long as the hash.
                if secret.trim_ascii_end().len() < 32 {
                    return Err("an HS256 secret must have at least 32 bytes".into());
                }
                (id, Algorithm::HS256, DecodingKey::from_secret(secret.trim_ascii_end()))
            }
            KeyConfig::RS256 { id, public_key, public_key_file } => {
                let pem = text("public_key", public_key, public_key_file)?;
                let decoding = DecodingKey::from_rsa_pem(&pem).map_err(|fault| format!("not an RSA public key in PEM ({fault})"))?;
                (id, Algorithm::RS256, decoding)
            }
        };
        let key = Key { id: id.clone(), decoding, validation: self.validation(algorithm) };
        key.try_out()?;
        Ok(key)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway_seconds;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(issuer.all());
            required.push("iss");
        }
        match &self.audience {
            Some(audience) => {
                validation.set_audience(audience.all());
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

impl Key {
    /// Verifies a token with a wrong signature: a sound key says just that.
    fn try_out(&self) -> Result<(), Fault> {
        let token = match self.validation.algorithms.first() {
            Some(Algorithm::HS256) => "eyJhbGciOiJIUzI1NiJ9.e30.AAAA", // {"alg":"HS256"}
            _ => "eyJhbGciOiJSUzI1NiJ9.e30.AAAA",                      // {"alg":"RS256"}
        };
        match jsonwebtoken::decode::<serde_json::Map<String, serde_json::Value>>(token, &self.decoding, &self.validation) {
            Err(fault) if matches!(fault.kind(), ErrorKind::InvalidSignature) => Ok(()),
            Err(fault) => Err(format!("the key cannot be used ({fault})").into()),
            Ok(_) => Err("the key accepts a wrong signature".into()),
        }
    }
}

impl OneOrMany {
    fn all(&self) -> &[String] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

fn text(what: &str, inline: &Option<String>, file: &Option<String>) -> Result<Vec<u8>, Fault> {
    match (inline, file) {
        (Some(inline), None) => Ok(inline.clone().into_bytes()),
        (None, Some(path)) => std::fs::read(path).map_err(|fault| format!("{what}_file {path:?}: {fault}").into()),
        _ => Err(format!("one of {what} and {what}_file is needed").into()),
    }
}

fn check_header(name: &str) -> Result<(), Fault> {
    let is_token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    // Ids are for headers that HTTP gives a meaning; a claim has no business there, except where people expect one.
    let id = HeaderId::of(name.as_bytes());
    if !is_token || (id != HeaderId::OTHER && id != HeaderId::X_REQUEST_ID) {
        return Err(format!("forward_claims: {name:?} cannot carry a claim; use a name like \"x-user\" of letters, digits and '-'").into());
    }
    Ok(())
}

const KEYS_MAX: usize = 16;
