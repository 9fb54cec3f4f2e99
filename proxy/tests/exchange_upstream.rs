//! The exchange over scripted connections: choosing, retrying and giving back upstream connections; deadlines; upgrades.

mod support;

use std::io::ErrorKind;

use ringway::error::{ResourceFault, UpstreamFault};
use ringway::exchange::End;
use ringway::exchange::core::Outcome as Said;
use ringway::exchange::watch::{Lane, Watch};
use ringway::hash::fnv1a;
use support::actors::{actors, post};
use support::stream::bytes;
use support::{Case, Fate, Step, Upstream, World};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET /a?b HTTP/1.1\r\nHost: example\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: example\r\nContent-Length: 3\r\n\r\nabc";

/// A connection that the server has closed while it was idle.
fn stale() -> Upstream {
    Upstream::script(vec![Step::AwaitHead, Step::Eof]).pooled()
}

#[test]
fn rule_67_a_stale_connection_is_replaced_once_for_idempotent_methods() {
    let world = World::plain();
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: e\r\n\r\n");
        Case::new(&world, request).methods(&[method]).up(stale()).answer("HTTP/1.1 204 No Content\r\n\r\n").each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![204]), "{method}");
            assert_eq!(outcome.fates(), [Fate::Discarded(None), Fate::GivenBack]);
            assert_eq!(outcome.choices.iter().map(|c| (c.attempt, c.pooled)).collect::<Vec<_>>(), [(0, true), (1, false)]);
            assert_eq!((outcome.choices[1].last(), outcome.said[0]), (None, Said::Neutral), "its server is as good as before");
            assert_eq!(outcome.reasons(), Vec::<&str>::new());
        });
    }
    for method in ["POST", "PATCH", "BREW"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: e\r\n\r\n");
        Case::new(&world, request).up(stale()).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![502]), "{method}");
            assert_eq!((outcome.unused, outcome.reasons()), (1, vec!["upstream_closed_early"]));
        });
    }
}

#[test]
fn a_stale_connection_may_also_fail_the_write_or_be_reset() {
    let world = World::plain();
    let fails = Upstream { write_fails_at: 10, ..stale() };
    let reset = Upstream::script(vec![Step::AwaitHead, Step::Error(ErrorKind::ConnectionReset)]).pooled();
    for up in [fails, reset] {
        Case::new(&world, GET).up(up.clone()).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200]));
            assert_eq!(outcome.fates(), [Fate::Discarded(None), Fate::GivenBack]);
        });
        Case::new(&world, POST).up(up).answer(OK).each(|outcome| {
            assert_eq!((outcome.statuses(), outcome.unused), (vec![502], 1));
        });
    }
}

#[test]
fn a_body_that_is_here_is_sent_again_and_one_that_has_begun_to_flow_is_not() {
    let world = World::plain();
    let whole = "PUT / HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\nabc";
    let ended = Upstream::script(vec![Step::Await(b"abc".to_vec(), 1), Step::Eof]).pooled();
    let answers = Upstream::script(vec![Step::Await(b"abc".to_vec(), 1), bytes(OK)]);
    let outcome = Case::new(&world, whole).up(ended.clone()).up(answers.clone()).once();
    assert_eq!((outcome.statuses(), outcome.upstreams[1].request().body_text()), (vec![200], "abc"));
    // The same in two pieces: the rest comes after the head was sent.
    let pieces = vec![bytes(&whole[..whole.len() - 2]), Step::Pause, bytes("bc")];
    Case::script(&world, pieces).up(ended).up(answers).in_order().each(|outcome| match outcome.statuses()[..] {
        [200] => assert_eq!(outcome.upstreams[1].request().body_text(), "abc"),
        [502] => assert_eq!((outcome.unused, outcome.reasons()), (1, vec!["upstream_closed_early"])),
        _ => panic!("{:?}", outcome.statuses()),
    });
}

#[test]
fn connections_that_cannot_be_made_are_tried_three_times() {
    let world = World::plain();
    for (fault, status) in [(UpstreamFault::ConnectFailed, 502), (UpstreamFault::ConnectTimeout, 504), (UpstreamFault::SpokeFirst, 502)] {
        for request in [GET, POST] {
            Case::new(&world, request).up(Upstream::refused(fault)).answer(OK).each(|outcome| {
                assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200]), "{request}");
                assert_eq!(outcome.choices.iter().map(|c| c.attempt).collect::<Vec<_>>(), [0, 1]);
            });
            let all = Case::new(&world, request).up(Upstream::refused(fault)).up(Upstream::refused(fault)).up(Upstream::refused(fault)).answer(OK);
            all.each(|outcome| {
                assert_eq!((outcome.end, outcome.statuses(), outcome.unused), (End::Park, vec![status], 1), "{request}");
                assert_eq!(outcome.reasons(), [fault.row().reason]);
            });
        }
    }
    let none = Case::new(&world, GET).up(Upstream::refused(UpstreamFault::NoServer)).answer(OK).once();
    assert_eq!((none.statuses(), none.reasons(), none.unused), (vec![503], vec!["upstream_no_server"], 1));
}

/// What the gateway itself is short of is no fault of a server, and no other server would help.
#[test]
fn a_shortage_of_the_gateway_is_503_and_not_retried() {
    let world = World::plain();
    for (fault, end) in [(ResourceFault::FilesExhausted, End::Linger), (ResourceFault::UpstreamConnectionsExhausted, End::Park)] {
        Case::new(&world, GET).up(Upstream::refused(fault)).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (end, vec![503], vec![fault.row().reason]));
            assert_eq!((outcome.unused, outcome.choices.len()), (1, 1));
        });
    }
}

#[test]
fn what_a_response_says_of_its_server() {
    let world = World::plain();
    let length = "Content-Length: 5\r\n";
    for (version, status, lines, said, pooled) in [
        ("1.1", 200, length, Said::Succeeded, true),
        ("1.1", 200, "Content-Length: 5\r\nConnection: close\r\n", Said::Succeeded, false),
        ("1.0", 200, length, Said::Succeeded, false),
        ("1.1", 200, "", Said::Succeeded, false),
        ("1.1", 404, length, Said::Succeeded, true),
        ("1.1", 500, length, Said::Succeeded, true),
        ("1.1", 502, length, Said::Refused, true),
        ("1.1", 503, length, Said::Refused, true),
        ("1.1", 503, "", Said::Refused, false),
        ("1.1", 504, length, Said::Refused, true),
        // RFC 9110 §15.5.9: it is about to close.
        ("1.1", 408, length, Said::Succeeded, false),
    ] {
        let answer = format!("HTTP/{version} {status} Whatever\r\n{lines}\r\nhello");
        Case::new(&world, GET).up(Upstream::answers_and_closes(&answer)).each(|outcome| {
            assert_eq!((outcome.statuses(), &outcome.said[..]), (vec![status], &[said][..]), "{answer:?}");
            assert_eq!(outcome.fates(), [if pooled { Fate::GivenBack } else { Fate::Discarded(None) }], "{answer:?}");
        });
    }
}

#[test]
fn a_key_decides_the_server_and_without_one_nothing_does() {
    for (balance, request, hash) in [
        ("hash-header:x-user", GET.replace("\r\n\r\n", "\r\nX-User: anna\r\n\r\n"), Some(fnv1a(b"anna"))),
        ("hash-header:x-user", GET.into(), None),
        ("hash-header:host", GET.into(), Some(fnv1a(b"example"))),
        ("hash-address", GET.into(), Some(fnv1a(&support::case::PEER.address))),
        ("round-robin", GET.into(), None),
    ] {
        let keyed = "[[upstream]]\nname = \"keyed\"\nservers = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nbalance";
        let world = World::new(&format!("{keyed} = \"{balance}\"\n[[route]]\npath = \"/\"\nupstream = \"keyed\"\n"));
        let outcome = Case::new(&world, request).answer(OK).once();
        assert_eq!(outcome.choices[0].hash, hash, "{balance}");
    }
}

#[test]
fn a_fresh_connection_that_closes_early_is_an_error_of_that_server() {
    let world = World::plain();
    let early = || Upstream::script(vec![Step::AwaitHead, Step::Eof]);
    Case::new(&world, POST).up(early()).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.unused), (vec![502], 1));
        assert_eq!(outcome.fates(), [Fate::Discarded(Some(UpstreamFault::ClosedEarly))]);
    });
    Case::new(&world, GET).up(early()).answer(OK).each(|outcome| {
        assert_eq!(outcome.statuses(), [200]);
        assert_eq!(outcome.fates(), [Fate::Discarded(Some(UpstreamFault::ClosedEarly)), Fate::GivenBack]);
        assert_eq!(outcome.choices[1].tried[..], [0]);
    });
}

#[test]
fn servers_that_failed_stay_avoided_and_those_of_a_dead_pooled_connection_do_not() {
    let world = World::plain();
    let refused = || Upstream::refused(UpstreamFault::ConnectFailed);
    Case::new(&world, GET).up(refused()).up(stale()).up(refused()).answer(OK).each(|outcome| {
        assert_eq!(outcome.statuses(), [200]);
        assert_eq!(outcome.choices.iter().map(|choice| choice.tried.to_vec()).collect::<Vec<_>>(), [vec![], vec![0], vec![0], vec![0, 2]]);
    });
}

#[test]
fn an_answer_to_a_request_that_could_not_be_written_is_passed_on() {
    let world = World::plain();
    let request = "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\nabc";
    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let up = Upstream { write_fails_at: 20, ..Upstream::script(vec![bytes(answer), Step::Eof]) };
    Case::new(&world, request).up(up).each(|outcome| {
        assert_eq!(outcome.statuses(), [413]);
        assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
    });
}

#[test]
fn rule_71_faulty_heads_of_an_upstream_get_502_with_their_reason() {
    let world = World::plain();
    let cases = [
        ("HTTP/1.1 20 OK\r\n\r\n", "upstream_bad_status_line"),
        ("HTTP/1.1 099 OK\r\n\r\n", "upstream_bad_status"),
        ("ICY 200 OK\r\n\r\n", "upstream_bad_status_line"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "upstream_unexpected_upgrade"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "upstream_conflicting_content_length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "upstream_bad_content_length"),
        ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "upstream_space_before_colon"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "upstream_obs_fold"),
        ("HTTP/1.1 200 OK\nX: a\n\n", "upstream_bare_line_feed"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "upstream_chunked_not_last"),
    ];
    for (answer, reason) in cases {
        Case::new(&world, GET.repeat(2)).answer(answer).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![502, 200]), "{answer:?}");
            assert_eq!(outcome.reasons(), [reason], "{answer:?}");
            assert!(matches!(outcome.fates()[..], [Fate::Discarded(Some(_)), Fate::GivenBack]));
        });
    }
    let up = Upstream::script(vec![Step::AwaitHead, bytes("HTTP/1.1 200 OK\r\nX: a"), Step::Eof]);
    Case::new(&world, GET).up(up).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Park, vec![502], vec!["upstream_head_truncated"]));
    });
    let large = format!("HTTP/1.1 200 OK\r\n{}\r\n", format!("X: {}\r\n", "y".repeat(4000)).repeat(5));
    let outcome = Case::new(&world, GET).answer(large).once();
    assert_eq!((outcome.statuses(), outcome.reasons()), (vec![502], vec!["upstream_head_too_large"]));
}

#[test]
fn rule_74_length_and_chunked_in_a_response_use_chunked_and_end_the_upstream_connection() {
    let world = World::plain();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    Case::new(&world, GET).answer(answer).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.responses[0].body_text()), (vec![200], "hello"));
        assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
    });
}

// Deadlines.

const TIMES: &str = r#"
[limits]
slots = 64
[timeouts]
head = "10s"
body_idle = "20s"
keep_alive_idle = "40s"
write_stall = "30s"
first_byte = "5s"
response_idle = "15s"
exchange = "100s"
[[route]]
path = "/"
upstream = "app"
allow_upgrade = ["websocket", "chat"]
"#;

#[test]
fn a_response_that_does_not_begin_in_time_is_504() {
    let world = World::new(TIMES);
    let slow = Upstream::script(vec![Step::AwaitHead]);
    Case::new(&world, GET).up(slow).expire(5_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![504], vec!["upstream_first_byte_timeout"]));
        assert_eq!(outcome.fates(), [Fate::Discarded(Some(UpstreamFault::FirstByteTimeout))]);
    });
}

#[test]
fn the_wait_for_the_response_begins_when_the_request_was_sent() {
    let world = World::new(TIMES);
    let up = Upstream::script(vec![Step::Await(b"0123456789".to_vec(), 1), bytes(OK)]);
    let head = "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 10\r\n\r\n";
    // More than the wait for a first byte passes in the middle of the body.
    let down = vec![bytes(format!("{head}01234")), Step::AfterExpiry(1), bytes("56789")];
    let outcome = Case::script(&world, down).up(up).expire(5_001).once();
    assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200]));
    assert_eq!(outcome.upstreams[0].request().body_text(), "0123456789");
    // A response that never comes is still noticed once the body has been sent.
    let silent = Upstream::script(vec![Step::AwaitHead]);
    let outcome = Case::script(&world, vec![bytes(format!("{head}01234")), Step::Pause, bytes("56789")]).up(silent).expire(5_001).once();
    assert_eq!((outcome.statuses(), outcome.reasons()), (vec![504], vec!["upstream_first_byte_timeout"]));
}

#[test]
fn a_response_that_stops_is_cut_off() {
    let world = World::new(TIMES);
    let up = Upstream::script(vec![Step::AwaitHead, bytes("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")]);
    Case::new(&world, GET).up(up).expire(15_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.reasons()), (End::Cut, vec!["upstream_read_timeout"]));
        assert_eq!((outcome.responses[0].body_text(), outcome.responses[0].complete), ("hello", false));
    });
}

#[test]
fn an_upstream_that_takes_nothing_is_504() {
    let world = World::new(TIMES);
    let body = "x".repeat(300_000);
    let request = format!("POST / HTTP/1.1\r\nHost: e\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for stalls in [10, 1000, 100_000] {
        let up = Upstream { write_stalls_at: stalls, ..Upstream::script(Vec::new()) };
        let outcome = Case::new(&world, &request).up(up).expire(30_001).once();
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![504], vec!["upstream_write_timeout"]), "{stalls}");
    }
}

/// A body that is all here and does not fit behind the head leaves beside the wait for the response.
#[test]
fn an_upstream_that_answers_early_need_not_take_a_buffered_body() {
    let world = actors();
    let request = post("B.request=need-body", &"x".repeat(200_000));
    for (status, next) in [(200, vec![200, 200]), (413, vec![413])] {
        let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 5\r\n\r\nearly");
        let early = Upstream { write_stalls_at: 100_000, ..Upstream::answers_early(answer) };
        // Its deadline does not pass: after an answer that ends nothing the body has the time of `linger`.
        let outcome = Case::new(&world, request.clone() + GET).up(early).answer(OK).expire(ringway::limits::LINGER + 1).once();
        assert_eq!((outcome.statuses(), outcome.reasons()), (next, vec![]), "the client's connection has nothing to do with it");
        assert_eq!((outcome.fates()[0], outcome.said[0]), (Fate::Discarded(None), Said::Succeeded));
    }
    // What takes the body is used again.
    let outcome = Case::new(&world, request.repeat(2)).up(Upstream::answers([OK, OK])).once();
    assert_eq!((outcome.statuses(), outcome.fates()), (vec![200, 200], vec![Fate::GivenBack]));
    assert!(outcome.upstreams[0].requests().0.iter().all(|request| request.body.len() == 200_000));
}

#[test]
fn a_buffered_body_that_breaks_off_is_sent_again_when_that_is_safe() {
    let world = actors();
    let request = post("B.request=need-body", &"x".repeat(200_000));
    let put = request.replacen("POST", "PUT", 1);
    let breaks = |up: Upstream| Upstream { write_fails_at: 100_000, ..up };
    let (stale, fresh) = (breaks(stale()), breaks(Upstream::script(vec![Step::AwaitHead, Step::Eof])));
    for (up, said) in [(stale.clone(), Said::Neutral), (fresh, Said::Failed(UpstreamFault::WriteFailed))] {
        let outcome = Case::new(&world, &put).up(up).answer(OK).once();
        assert_eq!((outcome.statuses(), &outcome.said[..]), (vec![200], &[said, Said::Succeeded][..]));
        assert_eq!(outcome.upstreams[1].request().body.len(), 200_000);
    }
    let outcome = Case::new(&world, &request).up(stale).answer(OK).once();
    assert_eq!((outcome.statuses(), outcome.reasons(), outcome.unused), (vec![502], vec!["upstream_write_failed"], 1));
    // Its deadline still ends what stalls without an answer.
    let stalls = Upstream { write_stalls_at: 100_000, ..Upstream::script(vec![Step::AwaitHead]) };
    let outcome = Case::new(&world, &put).up(stalls).expire(3_600_000).once();
    assert_eq!((outcome.statuses(), outcome.reasons()), (vec![504], vec!["upstream_write_timeout"]));
}

#[test]
fn an_exchange_that_takes_too_long_is_504() {
    let world = World::new(&TIMES.replace("first_byte = \"5s\"", "first_byte = \"off\""));
    Case::new(&world, GET).up(Upstream::script(vec![Step::AwaitHead])).expire(100_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![504], vec!["exchange_timeout"]));
    });
    // A route has its own.
    let world = World::new("[timeouts]\nexchange = \"off\"\nfirst_byte = \"off\"\n[[route]]\nupstream = \"app\"\ntimeouts = { exchange = \"2s\" }\n");
    Case::new(&world, GET).up(Upstream::script(vec![Step::AwaitHead])).expire(2_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![504], vec!["exchange_timeout"]));
    });
}

/// It ends the exchange, and what comes after it begins anew.
#[test]
fn an_exchange_that_takes_too_long_ends_with_its_client_and_says_nothing_of_the_next() {
    let world = World::new("[timeouts]\nexchange = \"90s\"\nwrite_stall = \"5m\"\n[[route]]\nupstream = \"app\"\n");
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let outcome = Case::new(&world, GET).answer(&large).client_stalls_at(5_000).expire(90_001).once();
    assert_eq!((outcome.end, outcome.reasons(), outcome.fates()), (End::Abort, vec!["exchange_timeout"], vec![Fate::Discarded(None)]));

    let watch = Watch::default();
    watch.begin_exchange(5, 0);
    assert_eq!(watch.sweep(5).collect::<Vec<_>>(), [Lane::Exchange]);
    watch.begin_exchange(5, 10);
    assert!(!watch.is_expired() && !watch.ended_upstream());
}

/// Of a client that brings its body slowly, or takes its response slowly, the server knows nothing.
#[test]
fn the_deadline_of_an_exchange_blames_no_server() {
    let world = World::new(&TIMES.replace("exchange = \"100s\"", "exchange = \"2s\""));
    let upload = "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 10\r\n\r\n01234";
    Case::new(&world, upload).up(Upstream::script(vec![Step::AwaitHead])).expire(2_001).each(|outcome| {
        assert_eq!((outcome.reasons(), &outcome.said[..]), (vec!["exchange_timeout"], &[Said::Neutral][..]));
    });
    for lines in ["Content-Length: 10\r\n", "", "Transfer-Encoding: chunked\r\n"] {
        let half = format!("HTTP/1.1 200 OK\r\n{lines}\r\n{}", if lines.contains("chunked") { "4\r\nhalf\r\n" } else { "half" });
        Case::new(&world, GET).up(Upstream::script(vec![Step::AwaitHead, bytes(half)])).expire(2_001).each(|outcome| {
            assert_eq!((outcome.reasons(), &outcome.said[..]), (vec!["exchange_timeout"], &[Said::Neutral][..]));
        });
    }
    // What the server has to answer for it still does.
    let world = World::new(TIMES);
    Case::new(&world, GET).up(Upstream::script(vec![Step::AwaitHead])).expire(5_001).each(|outcome| {
        assert_eq!(outcome.said, [Said::Failed(UpstreamFault::FirstByteTimeout)]);
    });
}

#[test]
fn a_client_that_goes_away_ends_the_upstream_connection() {
    let world = World::plain();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    for gone in [0, 10, 500, 50_000] {
        let outcome = Case::new(&world, GET).answer(&answer).client_gone_at(gone).once();
        assert_eq!((outcome.end, outcome.fates()), (End::Abort, vec![Fate::Discarded(None)]), "{gone}");
        assert_eq!(outcome.reasons(), ["client_closed"]);
    }
}

// What is added and removed on the way.

#[test]
fn hop_by_hop_fields_end_here_and_forwarding_fields_begin() {
    let world = World::plain();
    let request = "GET / HTTP/1.1\r\nHost: e:81\r\nConnection: keep-alive, X-Private, Host\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
        Proxy-Authorization: x\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nCookie: a\r\nCookie: b\r\nX-End: y\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Up, close\r\nX-Up: 1\r\nKeep-Alive: 9\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        Content-Length: 0\r\n\r\n";
    Case::new(&world, request).answer(answer).each(|outcome| {
        let request = outcome.upstreams[0].request();
        for gone in ["connection", "x-private", "keep-alive", "te", "proxy-authorization", "forwarded", "x-real-ip"] {
            assert_eq!(request.value(gone), None, "{gone}");
        }
        assert_eq!((request.value("host"), request.value("x-end"), request.values("cookie")), (Some("e:81"), Some("y"), vec!["a", "b"]));
        assert_eq!(
            (request.value("x-forwarded-for"), request.value("x-forwarded-proto"), request.value("x-forwarded-host")),
            (Some("192.0.2.7"), Some("http"), Some("e:81"))
        );
        assert_eq!(request.value("via"), Some("1.1 ringway"));
        let response = &outcome.responses[0];
        for gone in ["connection", "x-up", "keep-alive"] {
            assert_eq!(response.value(gone), None, "{gone}");
        }
        assert_eq!(response.values("set-cookie"), ["a", "b"]);
        assert_eq!(response.value("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!((outcome.end, outcome.fates()), (End::Park, vec![Fate::Discarded(None)]));
    });
    Case::new(&world, request).trusted().answer(answer).each(|outcome| {
        let request = outcome.upstreams[0].request();
        assert_eq!(request.values("x-forwarded-for"), ["6.6.6.6", "192.0.2.7"]);
        assert_eq!(request.value("x-real-ip"), Some("6.6.6.6"));
    });
}

#[test]
fn rule_13_an_absolute_target_replaces_host() {
    let world = World::plain();
    let request = "GET http://real.example:8080/p?q HTTP/1.1\r\nHost: other\r\nX: y\r\n\r\n";
    Case::new(&world, request).answer(OK).each(|outcome| {
        let request = outcome.upstreams[0].request();
        assert_eq!((request.target.as_slice(), request.value("host"), request.value("x")), (&b"/p?q"[..], Some("real.example:8080"), Some("y")));
    });
}

#[test]
fn an_unedited_head_leaves_byte_for_byte_but_for_hop_by_hop_lines() {
    let world = World::plain();
    let kept = ["hOST:  e  \r\n", "X-Odd:\t a,b ,c\t\r\n", "x-empty:\r\n", "ACCEPT: */*\r\n", "X-Obs: \u{e9}\r\n"];
    let request = format!("GET /p?q HTTP/1.1\r\n{}{}Connection: close, x-hop\r\n{}X-Hop: 1\r\n{}{}\r\n", kept[0], kept[1], kept[2], kept[3], kept[4]);
    Case::new(&world, &request).answer(OK).each(|outcome| {
        let head = &outcome.upstreams[0].request().head;
        let expected = format!("GET /p?q HTTP/1.1\r\n{}", kept.concat());
        assert!(head.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(head));
        let added = "via: 1.1 ringway\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: e\r\n\r\n";
        assert_eq!(&head[expected.len()..], added.as_bytes());
    });
    let lines = "X-Odd:\t a,b ,c\t\r\nx-empty:\r\nSET-cookie: a\r\ncontent-LENGTH:  0\r\nDate: x\r\n";
    Case::new(&world, GET).answer(format!("HTTP/1.1 299 Odd Reason\r\n{lines}Keep-Alive: 1\r\n\r\n")).each(|outcome| {
        assert_eq!(outcome.raw, format!("HTTP/1.1 299 Odd Reason\r\n{lines}\r\n").as_bytes());
    });
}

// Upgrades.

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: e\r\nConnection: keep-alive, Upgrade\r\nUpgrade: chat\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";

#[test]
fn rule_84_a_tunnel_begins_with_101_and_carries_every_byte() {
    let world = World::new(TIMES);
    let down = vec![bytes(format!("{UPGRADE}early")), Step::Await(b"hello".to_vec(), 1), bytes("late"), Step::Eof];
    let up = vec![Step::AwaitHead, bytes(format!("{SWITCH}hello")), Step::Await(b"earlylate".to_vec(), 1), bytes("bye"), Step::Eof];
    Case::script(&world, down).up(Upstream::script(up)).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Close, vec![101]));
        assert_eq!(outcome.responses[0].body_text(), "hellobye");
        assert_eq!((outcome.responses[0].value("upgrade"), outcome.responses[0].value("connection")), (Some("chat"), Some("upgrade")));
        let (requests, rest) = outcome.upstreams[0].requests();
        assert_eq!((requests[0].value("upgrade"), requests[0].value("connection")), (Some("chat"), Some("upgrade")));
        assert_eq!(rest, b"earlylate");
        assert!(outcome.finished && outcome.upstreams[0].finished, "both ends are told that nothing more comes");
        assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
    });
}

#[test]
fn rule_84_without_101_the_exchange_stays_http() {
    let world = World::new(TIMES);
    let refuses = Upstream::script(vec![Step::AwaitHead, bytes(OK), Step::AwaitHead, bytes(OK)]);
    Case::new(&world, format!("{UPGRADE}{GET}")).up(refuses).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]));
    });
    // What the route does not allow is not asked for.
    let other = UPGRADE.replace("Upgrade: chat", "Upgrade: other");
    Case::new(&world, other).up(Upstream::answers([OK])).each(|outcome| {
        assert_eq!(outcome.upstreams[0].request().value("upgrade"), None);
        assert_eq!(outcome.upstreams[0].request().value("connection"), None);
    });
}

/// The head of the upgrade came with so much before it that its bytes were read in another piece.
#[test]
fn bytes_for_a_tunnel_may_come_with_an_earlier_body() {
    let world = World::new(TIMES);
    let body = "a".repeat(40_000);
    let early = "e".repeat(50_000);
    let requests = format!("POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n{UPGRADE}{early}END", body.len());
    let first = Upstream::script(vec![Step::Await(b"0\r\n\r\n".to_vec(), 1), bytes(OK), Step::Eof]);
    let second = Upstream::script(vec![Step::AwaitHead, bytes(SWITCH), Step::Await(b"END".to_vec(), 1), bytes("done"), Step::Eof]);
    let case = Case::script(&world, vec![bytes(requests), Step::Await(b"done".to_vec(), 1), Step::Eof]).up(first).up(second);
    for outcome in [case.once(), case.random(1), case.random(2)] {
        assert_eq!(outcome.statuses(), [200, 101]);
        assert_eq!(outcome.upstreams[1].requests().1.len(), early.len() + 3);
    }
}

/// HTTP1.md rule 76: a body that ends with its connection has not ended because the gateway stopped waiting.
#[test]
fn rule_76_a_close_delimited_body_that_stalls_is_cut_off() {
    let world = World::plain();
    let stalls = Upstream::script(vec![Step::AwaitHead, bytes("HTTP/1.1 200 OK\r\n\r\nhalf")]);
    Case::new(&world, GET).up(stalls.clone()).expire(60_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.reasons()), (End::Cut, vec!["upstream_read_timeout"]));
        assert!(!outcome.raw.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&outcome.raw));
    });
    let world = World::new("[timeouts]\nexchange = \"20s\"\n[[route]]\nupstream = \"app\"\n");
    Case::new(&world, GET).up(stalls).expire(20_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.reasons()), (End::Cut, vec!["exchange_timeout"]));
        assert!(!outcome.raw.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&outcome.raw));
    });
}

/// The exchange ends, nobody else is asked, the server is not to blame, and nothing is answered.
#[test]
fn a_client_that_leaves_while_the_upstream_is_awaited_ends_the_exchange() {
    let world = World::plain();
    for request in [GET, POST] {
        // Fresh or pooled: an idempotent request is not repeated either.
        for up in [Upstream::script(vec![Step::AwaitHead]), Upstream::script(vec![Step::AwaitHead]).pooled()] {
            Case::new(&world, request).up(up).answer(OK).client_leaves().each(|outcome| {
                assert_eq!((outcome.end, outcome.reasons()), (End::Abort, vec!["client_closed"]));
                assert_eq!((outcome.fates(), outcome.unused, outcome.raw.len()), (vec![Fate::Discarded(None)], 1, 0));
            });
        }
    }
    // With the next request already here, and with half of the response sent.
    Case::new(&world, [GET, GET].concat()).up(Upstream::script(vec![Step::AwaitHead])).client_leaves().each(|outcome| {
        assert_eq!((outcome.end, outcome.reasons()), (End::Abort, vec!["client_closed"]));
    });
    for head in ["", "content-length: 10\r\n", "transfer-encoding: chunked\r\n"] {
        let half = format!("HTTP/1.1 200 OK\r\n{head}\r\n{}", if head.contains("chunked") { "4\r\nhalf\r\n" } else { "half" });
        Case::new(&world, GET).up(Upstream::script(vec![Step::AwaitHead, bytes(half)])).client_leaves().each(|outcome| {
            assert_eq!((outcome.end, outcome.reasons()), (End::Abort, vec!["client_closed"]));
            assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
            assert!(!outcome.raw.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&outcome.raw));
        });
    }
}

/// A connection that has its request in a slot and finds no other is answered all the same.
#[test]
fn without_any_slot_for_the_response_the_answer_is_503() {
    let world = World::plain();
    Case::new(&world, [GET, GET].concat()).answer(OK).slots(1).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![503], vec!["slots_exhausted"]));
        assert!(outcome.fates().iter().all(|fate| *fate == Fate::GivenBack), "{:?}", outcome.fates());
    });
}
