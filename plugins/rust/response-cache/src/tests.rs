//! Whole exchanges against a scripted upstream.

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use ringway_sdk::testing::{Answer, Request, Response, TestHost, chunked, request, response};

use super::*;

type Host = TestHost<ResponseCache>;
type Headers<'a> = &'a [(&'a str, &'a str)];

fn loaded(config: &str) -> Host {
    TestHost::load(config).expect("the configuration is good")
}

/// Serves a request; whether the upstream was asked, and the answer.
fn serve(host: &mut Host, request: Request, upstream: Response) -> (bool, Answer) {
    let was_asked = Cell::new(false);
    let answer = host.serve(request, |_| {
        was_asked.set(true);
        upstream
    });
    (was_asked.get(), answer)
}

/// Whether the second of two requests is a hit, when the upstream answers the first with these headers.
fn is_cached(first: Headers<'_>, upstream: Headers<'_>, second: Headers<'_>) -> bool {
    let mut host = loaded("{}");
    let ask = |host: &mut Host, headers: Headers<'_>| serve(host, request("GET", "/a", headers), response(200, upstream, b"body"));
    assert!(ask(&mut host, first).0, "the cache is empty at first");
    let (was_asked, answer) = ask(&mut host, second);
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"body".as_slice()));
    assert!(host.logs().is_empty() && host.refusals().is_empty(), "{:?} {:?}", host.logs(), host.refusals());
    !was_asked
}

#[test]
fn the_table_of_rfc_9111_rules_holds() {
    const NONE: Headers<'_> = &[];
    const FRESH: Headers<'_> = &[("cache-control", "max-age=60")];
    let auth: Headers<'_> = &[("authorization", "Bearer x")];
    let cases: &[(&str, Headers<'_>, Headers<'_>, Headers<'_>, bool)] = &[
        ("§4.2.1 max-age", NONE, FRESH, NONE, true),
        ("§4.2.1 nothing explicit", NONE, NONE, NONE, false),
        ("§4.2.1 s-maxage beats max-age", NONE, &[("cache-control", "max-age=60, s-maxage=0")], NONE, false),
        ("§4.2.1 s-maxage alone", NONE, &[("cache-control", "s-maxage=60")], NONE, true),
        ("§5.3 Expires in the past", NONE, &[("expires", "0")], NONE, false),
        ("§5.3 Expires behind Date", NONE, &[("date", "Tue, 14 Nov 2023 22:13:20 GMT"), ("expires", "Tue, 14 Nov 2023 22:14:20 GMT")], NONE, true),
        ("§4.2.3 Age above max-age", NONE, &[("cache-control", "max-age=60"), ("age", "60")], NONE, false),
        ("§4.2.3 Date long ago", NONE, &[("cache-control", "max-age=60"), ("date", "Tue, 14 Nov 2023 22:12:00 GMT")], NONE, false),
        ("§5.2.2.5 no-store", NONE, &[("cache-control", "max-age=60, no-store")], NONE, false),
        ("§5.2.2.7 private", NONE, &[("cache-control", "max-age=60"), ("cache-control", "private")], NONE, false),
        ("§5.2.2.4 no-cache", NONE, &[("cache-control", "max-age=60, no-cache")], NONE, false),
        ("§5.2.1.5 request no-store", &[("cache-control", "no-store")], FRESH, NONE, false),
        ("§5.2.1.4 request no-cache", NONE, FRESH, &[("cache-control", "no-cache")], false),
        ("§5.4 Pragma", NONE, FRESH, &[("pragma", "no-cache")], false),
        ("§5.2.1.1 request max-age", NONE, &[("cache-control", "max-age=60"), ("age", "5")], &[("cache-control", "max-age=4")], false),
        ("§5.2.1.3 min-fresh", NONE, FRESH, &[("cache-control", "min-fresh=61")], false),
        ("§5.2.1.3 min-fresh reached", NONE, FRESH, &[("cache-control", "min-fresh=60")], true),
        ("§3.5 authorized, not public", auth, FRESH, auth, false),
        ("§3.5 authorized, public", auth, &[("cache-control", "public, max-age=60")], NONE, true),
        ("§3.5 authorized, must-revalidate", auth, &[("cache-control", "must-revalidate, max-age=60")], auth, true),
        ("authorized request, plain response", NONE, FRESH, auth, false),
        ("Set-Cookie", NONE, &[("cache-control", "max-age=60"), ("set-cookie", "a=b")], NONE, false),
        ("§4.1 Vary *", NONE, &[("cache-control", "max-age=60"), ("vary", "*")], NONE, false),
        ("§4.1 Vary, equal", &[("accept", "x")], &[("cache-control", "max-age=60"), ("vary", "Accept")], &[("accept", "x")], true),
        ("§4.1 Vary, different", &[("accept", "x")], &[("cache-control", "max-age=60"), ("vary", "Accept")], &[("accept", "y")], false),
        ("§4.1 Vary, absent", &[("accept", "x")], &[("cache-control", "max-age=60"), ("vary", "Accept")], NONE, false),
        ("Vary beyond the bound", NONE, &[("cache-control", "max-age=60"), ("vary", "a, b, c, d, e")], NONE, false),
        ("Range", &[("range", "bytes=0-1")], FRESH, NONE, false),
        ("Range against a stored one", NONE, FRESH, &[("range", "bytes=0-1")], false),
    ];
    for (rule, first, upstream, second, expected) in cases {
        assert_eq!(is_cached(first, upstream, second), *expected, "{rule}");
    }
}

#[test]
fn a_hit_has_an_age_and_ends_when_it_is_stale() {
    let mut host = loaded("{}");
    let upstream = || response(200, &[("cache-control", "max-age=10"), ("age", "3"), ("connection", "x-hop"), ("x-hop", "1"), ("x-kept", "1")], b"body");
    serve(&mut host, request("GET", "/a", &[]), upstream());
    host.advance(Duration::from_secs(6));
    let (was_asked, answer) = serve(&mut host, request("GET", "/a", &[]), upstream());
    assert!(!was_asked);
    assert_eq!((answer.header("age"), answer.header("x-kept"), answer.header("x-hop")), (Some("9"), Some("1"), None));
    assert_eq!(answer.header("cache-status"), Some("ringway; hit"));
    host.advance(Duration::from_secs(1));
    assert!(serve(&mut host, request("GET", "/a", &[]), upstream()).0);
    assert_eq!((host.metric("hits_total"), host.metric("misses_total"), host.metric("stores_total")), (1, 2, 2));
    assert!(host.metric("bytes") > 0);
}

#[test]
fn keys_tell_hosts_and_targets_apart_and_head_uses_what_get_stored() {
    let mut host = loaded("{}");
    let fresh = || response(200, &[("cache-control", "max-age=10")], b"body");
    serve(&mut host, request("GET", "/a?x", &[("host", "One")]), fresh());
    assert!(!serve(&mut host, request("GET", "/a?x", &[("host", "one")]), fresh()).0);
    assert!(serve(&mut host, request("GET", "/a?x", &[("host", "two")]), fresh()).0);
    assert!(serve(&mut host, request("GET", "/a?X", &[("host", "one")]), fresh()).0);
    assert!(!serve(&mut host, request("HEAD", "/a?x", &[("host", "one")]), fresh()).0);
    assert!(serve(&mut host, request("HEAD", "/other", &[("host", "one")]), fresh()).0);
    assert!(serve(&mut host, request("GET", "/other", &[("host", "one")]), fresh()).0, "HEAD stores nothing");
}

#[test]
fn conditions_are_answered_with_304() {
    let mut host = loaded("{}");
    let upstream = || {
        response(
            200,
            &[("cache-control", "max-age=10"), ("etag", "\"v1\""), ("last-modified", "Tue, 14 Nov 2023 20:00:00 GMT"), ("content-type", "text/plain")],
            b"body",
        )
    };
    serve(&mut host, request("GET", "/a", &[]), upstream());
    let cases: &[(Headers<'_>, u16)] = &[
        (&[("if-none-match", "W/\"v0\", W/\"v1\"")], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"v2\"")], 200),
        (&[("if-none-match", "\"v2\""), ("if-modified-since", "Tue, 14 Nov 2023 20:00:00 GMT")], 200),
        (&[("if-modified-since", "Tue, 14 Nov 2023 20:00:00 GMT")], 304),
        (&[("if-modified-since", "Tue, 14 Nov 2023 19:59:59 GMT")], 200),
    ];
    for (headers, status) in cases {
        let (was_asked, answer) = serve(&mut host, request("GET", "/a", headers), upstream());
        assert_eq!((was_asked, answer.status), (false, *status), "{headers:?}");
        assert_eq!(answer.body.is_empty(), *status == 304);
        assert_eq!(answer.header("content-type").is_none(), *status == 304);
        assert_eq!(answer.header("etag"), Some("\"v1\""));
    }
}

#[test]
fn only_if_cached_never_asks_the_upstream() {
    let mut host = loaded("{}");
    let (was_asked, answer) = serve(&mut host, request("GET", "/a", &[("cache-control", "only-if-cached")]), response(200, &[], b""));
    assert_eq!((was_asked, answer.status), (false, 504));
}

#[test]
fn an_unsafe_method_invalidates_unless_it_failed() {
    let mut host = loaded("{}");
    let fresh = || response(200, &[("cache-control", "max-age=10")], b"body");
    serve(&mut host, request("GET", "/a", &[]), fresh());
    serve(&mut host, request("POST", "/a", &[]), response(500, &[], b""));
    assert!(!serve(&mut host, request("GET", "/a", &[]), fresh()).0);
    serve(&mut host, request("POST", "/a", &[]), response(303, &[], b""));
    assert!(serve(&mut host, request("GET", "/a", &[]), fresh()).0);
    assert_eq!(host.metric("invalidations_total"), 1);
}

#[test]
fn listeners_and_routes_do_not_answer_for_one_another_and_are_invalidated_together() {
    let mut host = loaded("{}");
    let on = |method, place: u32| Request { listener: place as u16 / 2, route: place % 2, ..request(method, "/a", &[]) };
    let said = |body: &'static [u8]| response(200, &[("cache-control", "max-age=10")], body);
    let bodies: [&[u8]; 4] = [b"internal", b"internal, other route", b"public", b"public, other route"];
    for (place, body) in (0..).zip(bodies) {
        assert!(serve(&mut host, on("GET", place), said(body)).0, "{place}");
    }
    for (place, body) in (0..4).zip(bodies).rev() {
        let (was_asked, answer) = serve(&mut host, on("GET", place), said(b"new"));
        assert_eq!((was_asked, answer.body.as_slice()), (false, body));
    }
    // Routes may be told apart by the method alone.
    serve(&mut host, on("POST", 1), said(b""));
    for place in 0..4 {
        assert!(serve(&mut host, on("GET", place), said(b"new")).0, "{place}");
    }
}

#[test]
fn chunked_and_empty_bodies_are_stored_and_large_ones_are_not() {
    let mut host = loaded(r#"{"bytes_max": 8192, "body_bytes_max": 1000}"#);
    let large = [7u8; 1001];
    let fresh: Headers<'_> = &[("cache-control", "max-age=10")];
    let cases = [
        ("/chunked", chunked(response(200, fresh, &large[..1000])), true),
        ("/empty", response(204, fresh, b""), true),
        ("/large", response(200, fresh, &large), false),
        ("/large-chunked", chunked(response(200, fresh, &large)), false),
        ("/status", response(206, fresh, b"part"), false),
    ];
    for (path, upstream, expected) in cases {
        let (_, first) = serve(&mut host, request("GET", path, &[]), upstream.clone());
        let (was_asked, second) = serve(&mut host, request("GET", path, &[]), upstream);
        assert_eq!(!was_asked, expected, "{path}");
        assert_eq!((first.status, &first.body), (second.status, &second.body), "{path}");
    }
}

#[test]
fn a_body_that_does_not_end_is_not_stored_and_leaves_nothing_behind() {
    let mut host = loaded("{}");
    for (content_length, pieces) in [(8u64, &[("body", false)][..]), (8, &[("body", true)]), (u64::MAX, &[("body", false)])] {
        let mut exchange = host.exchange(request("GET", "/a", &[]));
        exchange.on_request().continues();
        let mut upstream = response(200, &[("cache-control", "max-age=10")], b"body");
        upstream.content_length = content_length;
        exchange.on_response(upstream).continues();
        for (piece, is_last) in pieces {
            exchange.on_response_chunk(piece.as_bytes(), *is_last).continues();
        }
        exchange.on_done(true);
        assert_eq!(host.metric("stores_total"), 0);
    }
    assert!(serve(&mut host, request("GET", "/a", &[]), response(200, &[], b"")).0);
}

#[test]
fn what_a_later_plugin_makes_of_the_request_is_not_a_key() {
    let mut host = loaded("{}");
    let upstream = || response(200, &[("cache-control", "max-age=10"), ("vary", "x-tenant")], b"of tenant A");
    let mut exchange = host.exchange(request("GET", "/a", &[("cookie", "tenant=A")]));
    exchange.on_request().continues();
    // A plugin behind this one derives the tenant from the cookie.
    exchange.request.headers.0.push(ringway_sdk::testing::Header::new(b"x-tenant", b"A"));
    exchange.on_response(upstream()).continues();
    exchange.on_response_chunk(b"of tenant A", true).continues();
    exchange.on_done(false);
    assert!(serve(&mut host, request("GET", "/a", &[("x-tenant", "A")]), response(200, &[], b"")).0);
}

#[test]
fn the_last_of_as_many_headers_as_there_may_be_is_seen() {
    let mut many = vec![("x-pad", "1"); 253];
    many.push(("authorization", "Bearer x"));
    let fresh: Headers<'_> = &[("cache-control", "max-age=10")];
    assert!(!is_cached(&many, fresh, &[]));
    many[0] = ("cache-control", "max-age=10");
    many[253] = ("set-cookie", "a=b");
    assert!(!is_cached(&[], &many, &[]));
}

#[test]
fn set_cookie_can_be_stripped_and_the_default_lifetime_set() {
    let mut host = loaded(r#"{"strip_set_cookie": true, "default_seconds": 5, "cache_status": false}"#);
    let upstream = || response(200, &[("set-cookie", "a=b"), ("x-a", "1")], b"body");
    assert_eq!(serve(&mut host, request("GET", "/a", &[]), upstream()).1.header("set-cookie"), Some("a=b"));
    let (was_asked, answer) = serve(&mut host, request("GET", "/a", &[]), upstream());
    assert!(!was_asked);
    assert_eq!((answer.header("set-cookie"), answer.header("x-a"), answer.header("cache-status")), (None, Some("1"), None));
}

#[test]
fn a_body_beyond_the_gateways_bound_comes_from_the_upstream() {
    let mut host = loaded("{}");
    host.set_limits(100, 64 << 10);
    let upstream = || response(200, &[("cache-control", "max-age=10")], &[1; 101]);
    serve(&mut host, request("GET", "/a", &[]), upstream());
    assert!(serve(&mut host, request("GET", "/a", &[]), upstream()).0);
}

#[test]
fn the_clock_of_these_tests_is_the_one_in_their_dates() {
    let now = UNIX_EPOCH + Duration::from_nanos(loaded("{}").now_unix_ns());
    assert_eq!(httpdate::fmt_http_date(now), "Tue, 14 Nov 2023 22:13:20 GMT");
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    for (config, expected) in
        [(r#"{"bytes_max": 1}"#, "bytes_max must be"), (r#"{"bytes_max": 4096}"#, "body_bytes_max"), (r#"{"ttl": 1}"#, "unknown field `ttl`")]
    {
        let refusal = Host::load(config).err().expect(config);
        assert!(refusal.0.contains(expected), "{config}: {refusal}");
    }
}
