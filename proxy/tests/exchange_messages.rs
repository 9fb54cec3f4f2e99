//! The exchange over scripted connections: how messages are framed and forwarded, and what becomes of the client's connection.

mod support;

use ringway::exchange::End;
use support::stream::bytes;
use support::wire::Framing;
use support::{Case, Fate, Step, Upstream, World};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET /a?b HTTP/1.1\r\nHost: example\r\n\r\n";

#[test]
fn a_get_goes_through_and_both_connections_stay() {
    let world = World::plain();
    Case::new(&world, GET).answer(OK).each(|outcome| {
        assert_eq!(outcome.end, End::Park);
        assert_eq!(outcome.statuses(), [200]);
        assert_eq!(outcome.responses[0].body_text(), "hello");
        assert!(outcome.responses[0].value("date").is_some());
        let request = outcome.upstreams[0].request();
        assert_eq!((request.method.as_str(), request.target.as_slice()), ("GET", &b"/a?b"[..]));
        assert_eq!(request.value("host"), Some("example"));
        assert_eq!(outcome.fates(), [Fate::GivenBack]);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_over_one_upstream_connection() {
    let world = World::plain();
    let requests = "GET /1 HTTP/1.1\r\nHost: e\r\n\r\nPOST /2 HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\nabcHEAD /3 HTTP/1.1\r\nHost: e\r\n\r\n\
        POST /4 HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\nGET /5 HTTP/1.1\r\nHost: e\r\n\r\n";
    let answer = |n: usize| format!("HTTP/1.1 20{n} X\r\nContent-Length: 1\r\n\r\n{}", if n == 3 { "" } else { "x" });
    let up = Upstream::answers([1, 2, 3, 2, 1].map(answer));
    Case::new(&world, requests).methods(&["GET", "POST", "HEAD", "POST", "GET"]).up(up).each(|outcome| {
        assert_eq!(outcome.end, End::Park);
        assert_eq!(outcome.statuses(), [201, 202, 203, 202, 201]);
        let (received, rest) = outcome.upstreams[0].requests();
        let seen: Vec<_> = received.iter().map(|r| (r.target.as_slice(), r.body_text())).collect();
        assert_eq!(seen, [(&b"/1"[..], ""), (b"/2", "abc"), (b"/3", ""), (b"/4", "de"), (b"/5", "")]);
        assert!(rest.is_empty());
        assert_eq!(outcome.upstreams[0].leases, 5);
    });
}

/// A chunked body is read in big pieces, and what comes behind it may be more than a slot holds.
#[test]
fn pipelined_bytes_behind_a_chunked_body_keep_their_order() {
    let world = World::plain();
    let first = "a".repeat(40_000);
    let second: String = (0..60_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let mut requests = format!("POST /1 HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n0\r\n\r\n", first.len());
    requests += &format!("POST /2 HTTP/1.1\r\nHost: e\r\nContent-Length: {}\r\n\r\n{second}GET /3 HTTP/1.1\r\nHost: e\r\n\r\n", second.len());
    Case::new(&world, &requests).up(Upstream::answers([OK, OK, OK])).each(|outcome| {
        assert_eq!(outcome.statuses(), [200, 200, 200]);
        let received = outcome.upstreams[0].requests().0;
        assert!(received[0].body == first.as_bytes() && received[1].body == second.as_bytes());
        assert_eq!(received[2].target, b"/3");
    });
}

#[test]
fn bodies_arrive_as_they_were_sent() {
    let world = World::plain();
    let cases = [
        ("Content-Length: 11", "hello world", Framing::Length),
        ("Content-Length: 0011", "hello world", Framing::Length),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n", Framing::Chunked),
        ("Transfer-Encoding: CHUNKED\r\nTrailer: X", "b\r\nhello world\r\n0\r\nX: y\r\n\r\n", Framing::Chunked),
    ];
    for (field, body, framing) in cases {
        let request = format!("POST / HTTP/1.1\r\nHost: e\r\n{field}\r\n\r\n{body}");
        Case::new(&world, request).answer(OK).each(|outcome| {
            let request = outcome.upstreams[0].request();
            assert_eq!((request.body_text(), request.framing, request.complete), ("hello world", framing, true));
            assert_eq!(request.value("trailer"), None);
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200]));
            assert_eq!(outcome.fates(), [Fate::GivenBack]);
        });
    }
}

#[test]
fn large_bodies_stream_both_ways() {
    let world = World::plain();
    let big: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
    let request = [format!("PUT / HTTP/1.1\r\nHost: e\r\nContent-Length: {}\r\n\r\n", big.len()).as_bytes(), &big].concat();
    let answer = [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", big.len()).as_bytes(), &big].concat();
    let case = Case::new(&world, request).answer(answer);
    for outcome in [case.once(), case.random(1), case.random(2)] {
        assert!(outcome.upstreams[0].request().body == big && outcome.responses[0].body == big);
        assert_eq!((outcome.end, outcome.fates()), (End::Park, vec![Fate::GivenBack]));
    }
}

#[test]
fn responses_reach_the_client_in_a_framing_it_understands() {
    let world = World::plain();
    let until_close = "HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello world";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\nX-T: v\r\n\r\n";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world";
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\nhello world";
    // answer, request version, expected framing, kept by the client, kept by the upstream
    let cases = [
        (until_close, "1.1", Framing::Chunked, true, false),
        (chunked, "1.1", Framing::Chunked, true, true),
        (length, "1.1", Framing::Length, true, true),
        (old, "1.1", Framing::Length, true, false),
        (until_close, "1.0", Framing::UntilClose, false, false),
        (chunked, "1.0", Framing::UntilClose, false, true),
        (length, "1.0", Framing::Length, false, true),
    ];
    for (answer, version, framing, kept, reused) in cases {
        let request = format!("GET / HTTP/{version}\r\nHost: e\r\nConnection: keep-alive\r\n\r\n");
        let up = if answer == until_close { Upstream::answers_and_closes(answer) } else { Upstream::answers([answer]) };
        Case::new(&world, request).up(up).each(|outcome| {
            let response = &outcome.responses[0];
            assert_eq!((response.body_text(), response.framing, response.complete), ("hello world", framing, true), "{version} {answer}");
            assert_eq!(outcome.end, if kept { End::Park } else { End::Linger });
            assert_eq!(response.value("connection"), if kept { None } else { Some("close") });
            assert_eq!(outcome.fates() == [Fate::GivenBack], reused, "{version} {answer}");
            assert_eq!(outcome.faults, []);
        });
    }
}

#[test]
fn rule_72_responses_without_a_body_have_none() {
    let world = World::plain();
    // method, answer, content-length that is kept
    let cases = [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Some("5")),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Some("5")),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some("0")),
    ];
    for (method, answer, length) in cases {
        let requests = format!("{method} /1 HTTP/1.1\r\nHost: e\r\n\r\n{method} /2 HTTP/1.1\r\nHost: e\r\n\r\n");
        // The parser does not trust a connection whose 204 announces a body.
        let reused = !answer.contains(" 204 ");
        let case = Case::new(&world, requests).methods(&[method, method]).up(Upstream::answers([answer, answer]));
        let case = if reused { case } else { case.answer(answer) };
        case.each(|outcome| {
            assert_eq!((outcome.end, outcome.responses.len()), (End::Park, 2), "{answer}");
            for response in &outcome.responses {
                assert_eq!((response.value("content-length"), response.body_text()), (length, ""), "{answer}");
            }
            assert_eq!(outcome.upstreams[0].leases == 2, reused, "{answer}");
        });
    }
}

#[test]
fn rule_64_no_chunked_line_reaches_an_http10_client() {
    let world = World::plain();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    Case::new(&world, "HEAD / HTTP/1.0\r\n\r\n").methods(&["HEAD"]).answer(chunked).each(|outcome| {
        assert_eq!(outcome.responses[0].value("transfer-encoding"), None);
        assert_eq!(outcome.end, End::Linger);
    });
}

#[test]
fn an_empty_chunked_response_keeps_the_upstream_connection() {
    let world = World::plain();
    let empty = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    Case::new(&world, GET).answer(empty).each(|outcome| {
        assert_eq!((outcome.responses[0].body_text(), outcome.responses[0].complete), ("", true));
        assert_eq!((outcome.end, outcome.fates()), (End::Park, vec![Fate::GivenBack]));
    });
}

#[test]
fn rule_79_bytes_behind_a_response_poison_the_upstream_connection() {
    let world = World::plain();
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let cases = [
        ("GET", format!("{OK}{evil}")),
        ("HEAD", OK.to_owned()),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\n\r\n{evil}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n{evil}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{evil}")),
    ];
    for (method, answer) in cases {
        let requests = format!("{method} /1 HTTP/1.1\r\nHost: e\r\n\r\n{method} /2 HTTP/1.1\r\nHost: e\r\n\r\n");
        let fine = "HTTP/1.1 204 No Content\r\n\r\n";
        let case = Case::new(&world, requests).methods(&[method, method]).answer(answer.as_str()).answer(fine);
        for outcome in [case.once(), case.byte_by_byte()] {
            // Bytes that arrive only after the response had ended are found by the pool, before the connection is used again.
            assert_eq!((outcome.end, outcome.statuses()[1], outcome.upstreams.len()), (End::Park, 204, 2), "{answer}");
        }
        assert_eq!(case.once().fates()[0], Fate::Discarded(None), "{answer}");
    }
}

#[test]
fn rule_76_a_response_that_is_cut_off_is_cut_off_for_the_client() {
    let world = World::plain();
    let reset = std::io::ErrorKind::ConnectionReset;
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello", Step::Eof, "upstream_truncated"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Step::Eof, "upstream_truncated"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", Step::Error(reset), "upstream_truncated"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", Step::Error(reset), "upstream_truncated"),
    ];
    for (answer, end, reason) in cases {
        let up = Upstream::script(vec![Step::AwaitHead, bytes(answer), end.clone()]);
        Case::new(&world, GET).up(up).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Cut, vec![200]), "{answer}");
            assert!(!outcome.responses[0].complete, "{answer}");
            assert_eq!(outcome.reasons(), [reason]);
            assert!(matches!(outcome.fates()[..], [Fate::Discarded(Some(_))]));
        });
        // For HTTP/1.0 the end of the connection is that of a body whose length nobody knows: only a reset says otherwise.
        let up = Upstream::script(vec![Step::AwaitHead, bytes(answer), end]);
        let outcome = Case::new(&world, GET.replace("HTTP/1.1", "HTTP/1.0")).up(up).once();
        let end = if answer.contains("Content-Length") { End::Cut } else { End::Abort };
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (end, vec![200], vec![reason]), "{answer}");
    }
}

#[test]
fn bad_chunks_from_the_upstream_end_the_response_visibly() {
    let world = World::plain();
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n";
    Case::new(&world, GET).answer(answer).each(|outcome| {
        // Before anything has left, the client can still be told; after that it must see the cut.
        match outcome.end {
            End::Cut => assert!(outcome.statuses() == [200] && !outcome.responses[0].complete),
            _ => assert_eq!(outcome.statuses(), [502]),
        }
        assert_eq!(outcome.reasons(), ["upstream_bad_chunk_size"]);
    });
}

#[test]
fn rule_77_interim_responses_are_passed_on() {
    let world = World::plain();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </s>\r\nConnection: x\r\nContent-Length: 3\r\n\r\n";
    let answer = format!("{hints}{hints}{OK}");
    Case::new(&world, GET).answer(&answer).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![103, 103, 200]));
        assert_eq!(outcome.responses[0].value("link"), Some("</s>"));
        assert_eq!(outcome.responses[0].value("connection"), None);
        assert_eq!(outcome.fates(), [Fate::GivenBack]);
    });
    Case::new(&world, "GET / HTTP/1.0\r\n\r\n").answer(&answer).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Linger, vec![200]));
    });
    Case::new(&world, GET).answer(hints.repeat(9) + OK).each(|outcome| {
        assert_eq!(outcome.statuses(), [[103; 8].as_slice(), &[502]].concat());
        assert_eq!(outcome.reasons(), ["upstream_too_many_interim"]);
        assert_eq!(outcome.end, End::Park);
    });
}

#[test]
fn rule_63_close_is_announced_and_later_bytes_are_ignored() {
    let world = World::plain();
    let requests = format!("GET / HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n{GET}");
    Case::new(&world, requests).answer(OK).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Linger, vec![200]));
        assert_eq!(outcome.responses[0].value("connection"), Some("close"));
        assert_eq!(outcome.unused, 1);
    });
}

#[test]
fn rule_43_what_is_due_is_answered_before_a_bad_request_ends_the_connection() {
    let world = World::plain();
    let requests = format!("{GET}{GET}GET / HTTP/1.1\r\nHost : e\r\n\r\n{GET}");
    Case::new(&world, requests).up(Upstream::answers([OK, OK, OK])).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Linger, vec![200, 200, 400]));
        assert_eq!(outcome.reasons(), ["space_before_colon"]);
        assert_eq!(outcome.upstreams[0].requests().0.len(), 2);
    });
}

#[test]
fn refused_heads_reach_no_upstream() {
    let world = World::plain();
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400, "missing_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "duplicate_host"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "length_and_transfer_encoding"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "unknown_transfer_coding"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400, "bad_content_length"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
        ("GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, "bare_line_feed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400, "obs_fold"),
    ];
    for (request, status, reason) in cases {
        Case::new(&world, request).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![status], vec![reason]), "{request:?}");
            assert_eq!(outcome.responses[0].value("connection"), Some("close"));
            assert_eq!(outcome.unused, 1, "{request:?}");
        });
    }
}

#[test]
fn heads_that_are_too_large_get_431() {
    let world = World::plain();
    let request = format!("GET / HTTP/1.1\r\nHost: e\r\n{}\r\n", format!("X-Long: {}\r\n", "x".repeat(4000)).repeat(5));
    let outcome = Case::new(&world, &request).once();
    assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![431], vec!["head_too_large"]));
}

#[test]
fn the_gateways_own_refusals_keep_the_connection_where_they_can() {
    let world = World::new("[[route]]\nexact = \"/here\"\nmethod = [\"GET\", \"TRACE\", \"CONNECT\"]\nupstream = \"app\"\n");
    let requests = "GET /nowhere HTTP/1.1\r\nHost: e\r\n\r\nTRACE /here HTTP/1.1\r\nHost: e\r\n\r\nPUT /here HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\nabc\
        GET /here HTTP/1.1\r\nHost: e\r\n\r\n";
    Case::new(&world, requests).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![404, 405, 405, 200]));
        assert_eq!(outcome.reasons(), ["method_not_allowed", "method_not_allowed", "no_route"]);
        assert!(outcome.responses[1].value("allow").is_some());
    });
    Case::new(&world, "CONNECT e:443 HTTP/1.1\r\nHost: e:443\r\n\r\n").answer(OK).each(|outcome| {
        assert_eq!(outcome.unused, 1);
        assert!(matches!(outcome.statuses()[..], [404 | 405]));
    });
}
