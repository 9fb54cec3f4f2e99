//! Tokens that must pass and tokens that must not.
//!
//! The key of `testdata/` was made for these tests: two tokens were signed with it, and the private half is gone.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringway_sdk::testing::{Answer, Returned, TestHost, request};
use serde_json::json;

use super::*;

type Host = TestHost<JwtAuth>;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC_KEY: &str = include_str!("../testdata/public.pem");
const VALID_RS256: &str = include_str!("../testdata/valid-until-2100.jwt");
const EXPIRED_RS256: &str = include_str!("../testdata/expired.jwt");

fn hs256(extra: Value) -> Host {
    let mut config = json!({"keys": [{"algorithm": "HS256", "secret": SECRET}], "forward_claims": {"sub": "x-user", "roles": "x-roles"}});
    merge(&mut config, extra);
    Host::load(config.to_string()).expect("the configuration is good")
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn signed(header: Header, claims: Value) -> String {
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("signs")
}

fn token(extra: Value) -> String {
    let mut claims = json!({"sub": "alice", "exp": now() + 100});
    merge(&mut claims, extra);
    signed(Header::new(Algorithm::HS256), claims)
}

fn ask(host: &mut Host, token: &str) -> Result<(Option<String>, Option<String>), Answer> {
    let mut exchange = host.exchange(request("GET", "/", &[("authorization", &format!("Bearer {token}"))]));
    match exchange.on_request() {
        Returned::Continue => Ok((exchange.request_header("x-user").map(str::to_owned), exchange.request_header("x-roles").map(str::to_owned))),
        other => Err(other.answer()),
    }
}

fn challenge(host: &mut Host, token: &str) -> String {
    let answer = ask(host, token).expect_err("must be refused");
    assert_eq!(answer.status, 401);
    answer.header("www-authenticate").expect("RFC 9110 §15.5.2").to_owned()
}

#[test]
fn a_valid_token_passes_and_its_claims_become_headers() {
    let mut host = hs256(json!({}));
    let roles = json!({"roles": ["a", 7, true]});
    assert_eq!(ask(&mut host, &token(roles)), Ok((Some("alice".into()), Some("a,7,true".into()))));
    assert_eq!(ask(&mut host, &token(json!({"roles": ["a,admin"]}))), Ok((Some("alice".into()), Some("[\"a,admin\"]".into()))));
    assert_eq!(ask(&mut host, &token(json!({"sub": null}))), Ok((None, None)));
    assert_eq!(host.metric("accepted_total"), 3);
}

#[test]
fn headers_that_clients_forge_are_removed() {
    let mut host = hs256(json!({"optional": true}));
    let forged = [("X-User", "root"), ("x_user", "root"), ("x-roles", "admin"), ("x-other", "1")];
    let mut exchange = host.exchange(request("GET", "/", &forged));
    exchange.on_request().continues();
    for name in ["x-user", "x_user", "x-roles"] {
        assert_eq!(exchange.request_header(name), None, "{name}");
    }
    assert_eq!(exchange.request_header("x-other"), Some("1"));

    let bearer = format!("bearer {}", token(json!({})));
    let mut exchange = host.exchange(request("GET", "/", &[("x-user", "root"), ("authorization", &bearer), ("x-user", "root")]));
    exchange.on_request().continues();
    let users: Vec<_> = exchange.request.headers.0.iter().filter(|h| h.name.name == b"x-user").map(|h| h.value.0.clone()).collect();
    assert_eq!(users, [b"alice"]);
}

#[test]
fn what_must_not_pass_gets_401_with_its_challenge() {
    let mut host = hs256(json!({}));
    let mut crit = Header::new(Algorithm::HS256);
    crit.crit = Some(vec!["b64".to_owned()]);
    let good = token(json!({}));
    let cut = &good[..good.len() - 1];
    let other_secret = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &json!({"exp": now() + 9}), &EncodingKey::from_secret(&[b'x'; 32])).expect("signs");
    let cases = [
        ("not yet valid", token(json!({"nbf": now() + 100}))),
        ("no expiry", signed(Header::new(Algorithm::HS256), json!({"sub": "alice"}))),
        ("expiry is text", token(json!({"exp": "tomorrow"}))),
        ("alg none", format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).expect("claims"))),
        ("HS512 with the same secret", signed(Header::new(Algorithm::HS512), json!({"exp": now() + 9}))),
        ("critical extension", signed(crit, json!({"exp": now() + 9}))),
        ("cut signature", cut.to_owned()),
        ("another secret", other_secret),
        ("RS256 without such a key", VALID_RS256.to_owned()),
        ("line break in a claim", token(json!({"sub": "alice\r\nx-roles: admin"}))),
        ("too long", token(json!({"pad": "x".repeat(9000)}))),
        ("no token at all", String::new()),
        ("garbage", "a.b.c".to_owned()),
    ];
    for (case, token) in &cases {
        assert_eq!(challenge(&mut host, token), "Bearer realm=\"api\", error=\"invalid_token\"", "{case}");
    }
    let expired = challenge(&mut host, &token(json!({"exp": now() - 10})));
    assert!(expired.contains("expired"), "{expired}");
    assert_eq!(host.metric("refused_total"), cases.len() as u64 + 1);
}

#[test]
fn a_request_without_credentials_gets_a_plain_challenge() {
    let mut host = hs256(json!({"realm": "shop"}));
    for headers in [&[][..], &[("authorization", "Basic YTpi")]] {
        let answer = host.exchange(request("GET", "/", headers)).on_request().answer();
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer realm=\"shop\"")));
    }
    let twice = format!("Bearer {}", token(json!({})));
    let answer = host.exchange(request("GET", "/", &[("authorization", &twice), ("authorization", &twice)])).on_request().answer();
    assert_eq!(answer.status, 401);
}

#[test]
fn issuer_and_audience_are_required_when_configured() {
    let mut host = hs256(json!({"issuer": "me", "audience": ["api", "web"]}));
    let cases = [
        (json!({"iss": "me", "aud": "api"}), true),
        (json!({"iss": "me", "aud": ["x", "web"]}), true),
        (json!({"iss": "you", "aud": "api"}), false),
        (json!({"iss": "me", "aud": "other"}), false),
        (json!({"iss": "me"}), false),
        (json!({"aud": "api"}), false),
    ];
    for (claims, expected) in cases {
        assert_eq!(ask(&mut host, &token(claims.clone())).is_ok(), expected, "{claims}");
    }
}

#[test]
fn leeway_is_given_to_both_ends() {
    let mut host = hs256(json!({"leeway_seconds": 60}));
    assert!(ask(&mut host, &token(json!({"exp": now() - 30}))).is_ok());
    assert!(ask(&mut host, &token(json!({"nbf": now() + 30}))).is_ok());
    assert!(ask(&mut host, &token(json!({"exp": now() - 90}))).is_err());
}

#[test]
fn rs256_passes_and_its_public_key_is_no_hs256_secret() {
    let config = json!({
        "keys": [{"algorithm": "RS256", "id": "r1", "public_key": PUBLIC_KEY}],
        "issuer": "https://issuer.example", "audience": "api", "forward_claims": {"sub": "x-user"},
    });
    let mut host = Host::load(config.to_string()).expect("loads");
    assert_eq!(ask(&mut host, VALID_RS256.trim()), Ok((Some("alice".into()), None)));
    assert!(challenge(&mut host, EXPIRED_RS256.trim()).contains("expired"));
    // RFC 8725 §2.1: the public key used as a secret.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("r1".to_owned());
    let claims = json!({"sub": "root", "iss": "https://issuer.example", "aud": "api", "exp": now() + 9});
    let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(PUBLIC_KEY.as_bytes())).expect("signs");
    challenge(&mut host, &forged);

    let other_id = json!({"keys": [{"algorithm": "RS256", "id": "r2", "public_key": PUBLIC_KEY}]});
    challenge(&mut Host::load(other_id.to_string()).expect("loads"), VALID_RS256.trim());
}

#[test]
fn a_remembered_token_needs_no_second_verification_and_still_expires() {
    let mut host = hs256(json!({"remember_max": 2}));
    // The test host's clock stands in 2023; the library looks at the real one.
    let one = token(json!({}));
    assert!(ask(&mut host, &one).is_ok() && ask(&mut host, &one).is_ok());
    assert_eq!(host.metric("remembered_total"), 1);
    for sub in ["b", "c", "d"] {
        assert!(ask(&mut host, &token(json!({"sub": sub}))).is_ok());
    }
    assert!(ask(&mut host, &one).is_ok());
    assert_eq!(host.metric("remembered_total"), 1, "two are remembered, and this one was used least recently");
    host.advance(std::time::Duration::from_secs(61));
    assert!(ask(&mut host, &one).is_ok());
    assert_eq!(host.metric("remembered_total"), 1, "a minute is over");

    let mut host = hs256(json!({"remember_max": 0}));
    assert!(ask(&mut host, &one).is_ok() && ask(&mut host, &one).is_ok());
    assert_eq!(host.metric("remembered_total"), 0);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let short = json!({"keys": [{"algorithm": "HS256", "secret": "short"}]});
    let cases = [
        (json!({"keys": []}), "keys must hold"),
        (short, "keys[0]: an HS256 secret must have at least 32 bytes"),
        (json!({"keys": [{"algorithm": "HS256"}]}), "keys[0]: one of secret and secret_file"),
        (json!({"keys": [{"algorithm": "RS256", "public_key": "junk"}]}), "keys[0]: not an RSA public key"),
        (json!({"keys": [{"algorithm": "RS256", "public_key_file": "/nonexistent"}]}), "/nonexistent"),
        (json!({"keys": [{"algorithm": "none"}]}), "unknown variant `none`"),
        (json!({"keys": [{"algorithm": "HS256", "secret": SECRET}], "forward_claims": {"sub": "host"}}), "\"host\" cannot carry a claim"),
        (json!({"keys": [{"algorithm": "HS256", "secret": SECRET}], "forward_claims": {"sub": "x-a", "b": "X-A"}}), "named twice"),
        (json!({"keys": [{"algorithm": "HS256", "secret": SECRET}], "isuer": "me"}), "unknown field `isuer`"),
        (json!({"keys": [{"algorithm": "HS256", "secret": SECRET}], "realm": "a\"b"}), "realm must not hold"),
    ];
    for (config, expected) in cases {
        let refusal = Host::load(config.to_string()).err().expect("refused");
        assert!(refusal.0.contains(expected), "{config}: {refusal}");
    }
}
