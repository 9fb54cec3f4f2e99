//! The plugin against the SDK's test host.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use ringway_sdk::prelude::*;
use ringway_sdk::testing::{Returned, SentCall, TestHost, request, response};

use super::ExtAuthz;

fn host(config: &str) -> TestHost<ExtAuthz> {
    TestHost::load(config).unwrap_or_else(|refused| panic!("{refused}"))
}

const PLAIN: &str = r#"{"upstream": "auth"}"#;

fn call_for(host: &mut TestHost<ExtAuthz>, request: ringway_sdk::testing::Request) -> SentCall {
    let mut exchange = host.exchange(request);
    assert_eq!(exchange.on_request(), Returned::Suspend);
    let mut calls = exchange.take_calls();
    assert_eq!(calls.len(), 1);
    calls.remove(0)
}

#[test]
fn the_service_is_told_what_is_asked_and_what_is_configured() {
    let mut plain = host(PLAIN);
    let headers = [("host", "example"), ("authorization", "Bearer t"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-secret", "s")];
    let call = call_for(&mut plain, request("DELETE", "/files/1?force=1", &headers));
    assert_eq!((call.upstream.as_str(), call.method.as_str(), call.target.as_str(), call.body.len()), ("auth", "GET", "/files/1?force=1", 0));
    assert_eq!((call.header("authorization"), call.header("x-secret"), call.header("host")), (Some("Bearer t"), None, None));
    assert_eq!(call.headers.iter().filter(|(name, _)| name == "cookie").count(), 2);
    assert_eq!((call.header("x-original-method"), call.header("x-original-uri")), (Some("DELETE"), Some("/files/1?force=1")));
    assert_eq!((call.header("x-forwarded-for"), call.header("x-forwarded-host")), (Some("192.0.2.1"), Some("example")));
    for (config, target, expected) in [
        (r#"{"upstream": "auth", "path_prefix": "/check"}"#, "/a?b", "/check/a?b"),
        (r#"{"upstream": "auth", "path_prefix": "/check", "fixed_path": true}"#, "/a?b", "/check"),
        (r#"{"upstream": "auth", "path_prefix": "/check"}"#, "*", "/check/"),
    ] {
        assert_eq!(call_for(&mut host(config), request("GET", target, &[])).target, expected, "{config}");
    }
}

#[test]
fn who_is_let_through_carries_what_the_service_says_and_nothing_forged() {
    let mut host = host(r#"{"upstream": "auth", "allowed_headers": ["X-User", "x-roles"]}"#);
    let forged = [("x-user", "root"), ("X_Roles", "admin"), ("x-other", "1")];
    for status in [200, 204, 299] {
        let mut exchange = host.exchange(request("GET", "/", &forged));
        assert_eq!(exchange.on_request(), Returned::Suspend);
        assert_eq!((exchange.request_header("x-user"), exchange.request_header("x_roles"), exchange.request_header("x-other")), (None, None, Some("1")));
        exchange.on_reply(0, Ok(response(status, &[("x-user", "anna"), ("x-more", "1")], b"ignored"))).continues();
        assert_eq!((exchange.request_header("x-user"), exchange.request_header("x-roles"), exchange.request_header("x-more")), (Some("anna"), None, None));
    }
    assert_eq!(host.metric("allowed_total"), 3);
}

#[test]
fn who_is_refused_gets_the_status_the_body_and_the_headers_that_are_named() {
    let mut host = host(PLAIN);
    for status in [301, 302, 400, 401, 403, 404, 429, 499] {
        let mut exchange = host.exchange(request("GET", "/", &[]));
        assert_eq!(exchange.on_request(), Returned::Suspend);
        let headers = [("location", "/login"), ("set-cookie", "a"), ("set-cookie", "b"), ("content-type", "text/html"), ("x-internal", "1")];
        let answer = exchange.on_reply(0, Ok(response(status, &headers, b"no"))).answer();
        assert_eq!((answer.status, answer.body.as_slice()), (status, b"no".as_slice()));
        assert_eq!((answer.header("location"), answer.header("content-type"), answer.header("x-internal")), (Some("/login"), Some("text/html"), None));
        assert_eq!(answer.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    }
    assert_eq!(host.metric("denied_total"), 8);
    // A body that was cut off is not passed off as the service's.
    let mut exchange = host.exchange(request("GET", "/", &[]));
    assert_eq!(exchange.on_request(), Returned::Suspend);
    let mut cut = response(403, &[("content-type", "text/html"), ("www-authenticate", "Basic")], b"the beginning");
    cut.flags &= !view::RES_BODY_COMPLETE;
    let answer = exchange.on_reply(0, Ok(cut)).answer();
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type"), answer.header("www-authenticate")), (403, 0, None, Some("Basic")));
}

#[test]
fn without_a_decision_the_configuration_decides() {
    for (config, status) in [
        (PLAIN, Some(503)),
        (r#"{"upstream": "auth", "failure": "closed", "failure_status": 403}"#, Some(403)),
        (r#"{"upstream": "auth", "failure": "open", "allowed_headers": ["x-user"]}"#, None),
    ] {
        let mut host = host(config);
        let replies =
            [Err(NoReply::Unreachable), Err(NoReply::Timeout), Err(NoReply::Broken), Ok(response(500, &[("x-user", "x")], b"")), Ok(response(503, &[], b""))];
        for reply in replies.into_iter().map(Some).chain([None]) {
            let mut exchange = host.exchange(request("GET", "/", &[("x-user", "root")]));
            assert_eq!(exchange.on_request(), Returned::Suspend);
            let returned = match reply {
                Some(reply) => exchange.on_reply(0, reply),
                None => exchange.on_event(Event::Timeout),
            };
            match status {
                Some(status) => assert_eq!(returned.answer().status, status),
                None => {
                    returned.continues();
                    assert_eq!(exchange.request_header("x-user"), None, "nobody is anybody");
                }
            }
        }
        assert_eq!(host.metric("failed_total"), 6);
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_its_reason() {
    for (config, reason) in [
        ("{}", "missing field `upstream`"),
        (r#"{"upstream": ""}"#, "upstream must name"),
        (r#"{"upstream": "a", "path": "/"}"#, "unknown field `path`"),
        (r#"{"upstream": "a", "path_prefix": "check"}"#, "path_prefix must be a path"),
        (r#"{"upstream": "a", "path_prefix": "/a b"}"#, "path_prefix must be a path"),
        (r#"{"upstream": "a", "fixed_path": true}"#, "path_prefix must be a path"),
        (r#"{"upstream": "a", "failure": "maybe"}"#, "unknown variant `maybe`"),
        (r#"{"upstream": "a", "timeout_ms": 0}"#, "timeout_ms must be 1 to 600000"),
        (r#"{"upstream": "a", "failure_status": 200}"#, "failure_status must be 400 to 599"),
        (r#"{"upstream": "a", "request_headers": ["a b"]}"#, "request_headers: the header \"a b\" cannot be copied"),
        (r#"{"upstream": "a", "request_headers": ["Host"]}"#, "cannot be copied"),
        (r#"{"upstream": "a", "request_headers": ["x-original-uri"]}"#, "is set by this plugin itself"),
        (r#"{"upstream": "a", "allowed_headers": ["x", "X"]}"#, "is named twice"),
        (r#"{"upstream": "a", "denied_headers": ["content-length"]}"#, "cannot be copied"),
    ] {
        let refused = TestHost::<ExtAuthz>::load(config).err().unwrap_or_else(|| panic!("{config} was taken"));
        assert!(refused.0.contains(reason), "{config}: {refused}");
    }
}

#[test]
fn a_request_waits_no_longer_than_is_configured() {
    let mut patient = host(PLAIN);
    let mut exchange = patient.exchange(request("GET", "/", &[]));
    assert_eq!((exchange.on_request(), exchange.timer()), (Returned::Suspend, None));
    let mut host = host(r#"{"upstream": "auth", "timeout_ms": 250}"#);
    let mut exchange = host.exchange(request("GET", "/", &[]));
    assert_eq!((exchange.on_request(), exchange.timer()), (Returned::Suspend, Some((std::time::Duration::from_millis(250), 0))));
    assert_eq!(exchange.on_event(Event::Timer(0)).answer().status, 503);
    assert_eq!(host.metric("failed_total"), 1);
}
