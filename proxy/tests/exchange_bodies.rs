//! The exchange over scripted connections: request bodies that do not arrive, come too early, are not wanted, or flow beside the response.

mod support;

use ringway::exchange::End;
use support::stream::bytes;
use support::{Case, Fate, Step, Upstream, World};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET /a?b HTTP/1.1\r\nHost: example\r\n\r\n";

#[test]
fn rule_40_a_request_that_is_cut_off_never_looks_complete() {
    let world = World::plain();
    let cases = [
        "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 10\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ];
    for request in cases {
        Case::script(&world, vec![bytes(request), Step::Eof]).up(Upstream::script(Vec::new())).each(|outcome| {
            assert_eq!((outcome.end, outcome.reasons()), (End::Abort, vec!["body_incomplete"]), "{request}");
            assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
            assert!(outcome.upstreams[0].requests().0.iter().all(|r| !r.complete), "{request}");
        });
    }
    Case::script(&world, vec![bytes("GET / HTTP/1.1\r\nHost"), Step::Eof]).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.raw.len(), outcome.unused), (End::Close, 0, 1));
    });
    // A client that says early that nothing more comes still gets its answer.
    Case::script(&world, vec![bytes(GET), Step::Eof]).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Close, vec![200]));
    });
}

#[test]
fn rule_46_bad_chunks_of_a_request_abort_both_sides() {
    let world = World::plain();
    let request = "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0x1\r\ny\r\n0\r\n\r\n";
    Case::new(&world, request).up(Upstream::script(Vec::new())).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![400], vec!["bad_chunk_size"]));
        assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
        assert!(outcome.upstreams[0].requests().0.iter().all(|r| !r.complete));
    });
}

#[test]
fn rule_42_request_bodies_have_a_limit() {
    let world = World::new("[[route]]\npath = \"/\"\nupstream = \"app\"\nbody_bytes = \"8B\"\n");
    let known = "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 9\r\n\r\n123456789";
    Case::new(&world, known).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![413], vec!["body_too_large"]));
        assert_eq!(outcome.unused, 1, "nobody is connected to");
    });
    let chunked = "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n1\r\n9\r\n0\r\n\r\n";
    Case::new(&world, chunked).up(Upstream::script(Vec::new())).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![413], vec!["body_too_large"]));
        assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
        assert!(outcome.upstreams[0].requests().0.iter().all(|r| !r.complete && r.body.len() <= 8));
    });
    let fits = "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n0\r\n\r\n";
    Case::new(&world, fits).answer(OK).each(|outcome| assert_eq!(outcome.statuses(), [200]));
}

#[test]
fn rule_68_an_early_answer_is_relayed_and_ends_both_connections() {
    let world = World::plain();
    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let head = "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 100\r\n\r\n0123456789";
    let down = vec![bytes(head), Step::Await(b"HTTP/1.1 403".to_vec(), 1), Step::Pause, bytes("x".repeat(90) + GET)];
    Case::script(&world, down).up(Upstream::answers_early(answer)).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Linger, vec![403]));
        assert_eq!(outcome.responses[0].value("connection"), Some("close"));
        // When the rest came before the end of the answer, the upstream got it and its connection is fine.
        let whole = outcome.upstreams[0].requests().0[0].complete;
        let fate = if whole { Fate::GivenBack } else { Fate::Discarded(None) };
        assert_eq!((outcome.fates(), outcome.unused), (vec![fate], 1));
    });
}

/// A good answer that comes early need not cost the connection: the rest of the body has its time.
#[test]
fn rule_68_an_early_good_answer_keeps_the_connection_when_the_body_gets_to_its_end() {
    let world = World::plain();
    let head = "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 100\r\n\r\n0123456789";
    let awaits = |rest: Vec<Step>| [vec![bytes(head), Step::Await(b"\r\n\r\nok".to_vec(), 1), Step::Pause], rest].concat();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let both = || vec![Step::AwaitHead, bytes(ok), Step::AwaitRequests(2), bytes(ok)];
    Case::script(&world, awaits(vec![bytes("x".repeat(90) + GET)])).up(Upstream::script(both())).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.fates()), (End::Park, vec![200, 200], vec![Fate::GivenBack]));
        assert_eq!(outcome.responses[0].value("connection"), None);
        let (requests, rest) = outcome.upstreams[0].requests();
        assert!(requests.len() == 2 && rest.is_empty() && requests[0].body.len() == 100);
    });
    // The upstream takes no more of it: it is read here.
    let whole = Case::script(&world, awaits(vec![bytes("x".repeat(90))])).up(Upstream::answers_early(ok)).once().upstreams[0].raw.len();
    let refuses = Upstream { write_fails_at: whole - 90, ..Upstream::answers_early(ok) };
    Case::script(&world, awaits(vec![bytes("x".repeat(90) + GET)])).up(refuses).answer(ok).in_order().each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.upstreams[1].request().method.as_str()), (End::Park, vec![200, 200], "GET"));
    });
    // The client's connection ends with the answer anyway: the upload does not.
    let closing = head.replace("Host: e", "Host: e\r\nConnection: close");
    let down = vec![bytes(closing), Step::Await(b"\r\n\r\nok".to_vec(), 1), Step::Pause, bytes("x".repeat(90))];
    Case::script(&world, down).up(Upstream::answers_early(ok)).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.fates()), (End::Linger, vec![200], vec![Fate::GivenBack]));
        assert_eq!(outcome.upstreams[0].request().body.len(), 100);
    });
    // It never comes.
    let never = Case::script(&world, awaits(vec![Step::Await(b"never".to_vec(), 1)])).up(Upstream::answers_early(ok)).expire(5_001).in_order();
    never.each(|outcome| assert_eq!((outcome.end, outcome.statuses(), outcome.fates()), (End::Linger, vec![200], vec![Fate::Discarded(None)])));
    // The time of the whole exchange is over meanwhile: nothing more is read for it.
    let brief = World::new("[timeouts]\nexchange = \"1s\"\nlinger = \"60s\"\n[[route]]\nupstream = \"app\"\n");
    let late = awaits(vec![Step::AfterExpiry(1), bytes("x".repeat(10)), Step::Await(b"never".to_vec(), 1)]);
    let shut = Upstream { write_fails_at: whole - 90, ..Upstream::answers_early(ok) };
    Case::script(&brief, late).up(shut.clone()).expire(1_500).in_order().each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![200], vec!["exchange_timeout"]));
    });
    // A client that sends nothing more is not waited for either.
    let silent = awaits(vec![Step::Await(b"never".to_vec(), 1)]);
    Case::script(&brief, silent).up(Upstream::answers_early(ok)).expire(1_500).in_order().each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![200], vec!["exchange_timeout"]));
    });
}

#[test]
fn both_directions_flow_at_once() {
    let world = World::plain();
    let down = vec![
        bytes("POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nping\r\n"),
        Step::Await(b"pong".to_vec(), 1),
        bytes("4\r\nping\r\n"),
        Step::Await(b"pong".to_vec(), 2),
        bytes("0\r\n\r\n"),
    ];
    let up = vec![
        Step::AwaitHead,
        bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Step::Await(b"ping".to_vec(), 1),
        bytes("4\r\npong\r\n"),
        Step::Await(b"ping".to_vec(), 2),
        bytes("4\r\npong\r\n"),
        Step::Await(b"0\r\n\r\n".to_vec(), 1),
        bytes("0\r\n\r\n"),
    ];
    // Cut pieces would be framed as several chunks, for which the other side does not wait.
    let outcome = Case::script(&world, down).up(Upstream::script(up)).once();
    assert_eq!((outcome.end, outcome.statuses(), outcome.responses[0].body_text()), (End::Park, vec![200], "pongpong"));
    assert_eq!((outcome.upstreams[0].request().body_text(), outcome.fates()), ("pingping", vec![Fate::GivenBack]));
}

/// A read that was dropped may have taken bytes: what the gateway read after that would be the middle of a message.
#[test]
fn after_an_upstream_failed_under_a_flowing_body_the_client_is_not_read_again() {
    let world = World::plain();
    let head = "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 10\r\n\r\n01234";
    for up in [
        Upstream::script(vec![Step::AwaitHead, Step::Eof]),
        Upstream::script(vec![Step::AwaitHead, bytes("HTTP/1.1 2000 OK\r\n\r\n")]),
        Upstream::script(vec![Step::AwaitHead, bytes("HTTP/1.1 200 OK\r\nX"), Step::Eof]),
    ] {
        let down = vec![bytes(head), Step::Await(b"HTTP/1.1 502".to_vec(), 1), Step::Pause, bytes("56789"), bytes(GET)];
        Case::script(&world, down).up(up).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.unused), (End::Linger, vec![502], 1));
            assert_eq!(outcome.responses[0].value("connection"), Some("close"));
        });
    }
}

/// The body fails while an interim response is leaving: an error in the middle of that would be bytes that no client understands.
#[test]
fn nothing_is_answered_in_the_middle_of_an_interim_response() {
    let world = World::plain();
    let down = vec![bytes("POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"), Step::Await(b"HTTP/1.1 103".to_vec(), 1), bytes("zz")];
    let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(100));
    let up = Upstream::script(vec![Step::AwaitHead, bytes(hints)]);
    let outcome = Case::script(&world, down).up(up).slow_writes(20);
    assert_eq!((outcome.end, outcome.reasons()), (End::Abort, vec!["bad_chunk_size"]));
    assert!(!outcome.raw.windows(4).any(|w| w == b" 400"), "{}", String::from_utf8_lossy(&outcome.raw));
}

#[test]
fn rule_82_expect_100_continue() {
    let world = World::plain();
    let head = "POST / HTTP/1.1\r\nHost: e\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let body = || Step::Await(b"hello".to_vec(), 1);
    // The client waits, and the upstream says go on.
    let waits = vec![bytes(head), Step::Await(b"HTTP/1.1 100".to_vec(), 1), bytes("hello")];
    let goes_on = Upstream::script(vec![Step::AwaitHead, bytes("HTTP/1.1 100 Continue\r\n\r\n"), body(), bytes(OK)]);
    Case::script(&world, waits).up(goes_on.clone()).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![100, 200]));
        let request = outcome.upstreams[0].request();
        assert_eq!((request.body_text(), request.value("expect")), ("hello", Some("100-continue")));
    });
    // The client does not wait.
    Case::new(&world, format!("{head}hello")).up(goes_on).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses().last()), (End::Park, Some(&200)));
        assert_eq!(outcome.upstreams[0].request().body_text(), "hello");
    });
    // What has come with the head is not waited for, and neither is the rest: the upstream is not told that somebody waits.
    for here in 1..=5 {
        let script = vec![bytes(format!("{head}{}", &"hello"[..here])), bytes(&"hello"[here..])];
        let outcome = Case::script(&world, script).answer(OK).once();
        let request = outcome.upstreams[0].request();
        assert_eq!((request.body_text(), request.value("expect")), ("hello", None), "{here}");
        assert_eq!((outcome.end, outcome.statuses(), outcome.fates()), (End::Park, vec![200], vec![Fate::GivenBack]), "{here}");
    }
    // The client waits, and the upstream says nothing: after a while the gateway does.
    let waits = vec![bytes(head), Step::Await(b"HTTP/1.1 100".to_vec(), 1), bytes("hello")];
    Case::script(&world, waits).answer(OK).expire(1001).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![100, 200]));
        assert_eq!(outcome.upstreams[0].request().body_text(), "hello");
        // Did it wait for the body, or is that its next request? It has not said.
        assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
    });
    // So it does when it hears something else, or only the beginning of something.
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    for (first, rest, statuses) in [(hints, OK, vec![103, 100, 200]), (&OK[..10], &OK[10..], vec![100, 200])] {
        let waits = vec![bytes(head), Step::Await(b"HTTP/1.1 100".to_vec(), 1), bytes("hello")];
        let up = Upstream::script(vec![Step::AwaitHead, bytes(first), body(), bytes(rest)]);
        let outcome = Case::script(&world, waits).up(up).expire(1001).once();
        assert_eq!((outcome.end, outcome.statuses(), outcome.fates()), (End::Park, statuses, vec![Fate::Discarded(None)]));
    }
    // Its time for the body begins when it may send it.
    let patient = World::new("[timeouts]\nbody_idle = \"2s\"\nexpect_continue = \"6s\"\n[[route]]\nupstream = \"app\"\n");
    let waits = vec![bytes(head), Step::Await(b"HTTP/1.1 100".to_vec(), 1), bytes("hello")];
    let up = Upstream::script(vec![Step::AwaitHead, Step::AfterExpiry(1), bytes("HTTP/1.1 100 Continue\r\n\r\n"), body(), bytes(OK)]);
    let outcome = Case::script(&patient, waits).up(up).expire(4_001).once();
    assert_eq!((outcome.end, outcome.statuses(), outcome.fates()), (End::Park, vec![100, 200], vec![Fate::GivenBack]));
    // An HTTP/1.0 client cannot expect anything.
    let old = "POST / HTTP/1.0\r\nHost: e\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
    Case::new(&world, old).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Linger, vec![200]));
    });
    let unknown = head.replace("100-continue", "200-ok");
    Case::new(&world, unknown).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.unused), (End::Linger, vec![417], 1));
    });
}

/// A client that gets its answer instead of 100 may send the body, or its next request: nobody can tell, so both connections end.
#[test]
fn rule_82_a_final_answer_instead_of_100_ends_both_connections() {
    let world = World::plain();
    let fixed = "POST / HTTP/1.1\r\nHost: e\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nHost: e\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (none, refused) = ("HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    for head in [fixed, chunked] {
        for (answer, status) in [(ok, 200), (none, 204), (refused, 401)] {
            for before in ["", hints] {
                let up = || Upstream::answers_early(format!("{before}{answer}"));
                // It never sends the body; or it sends it, and then another request, when it has its answer.
                let silent = vec![bytes(head)];
                let next = vec![bytes(head), Step::Await(format!(" {status} ").into_bytes(), 1), Step::Pause, bytes(format!("hello{GET}"))];
                for down in [silent, next] {
                    Case::script(&world, down).up(up()).answer(OK).each(|outcome| {
                        assert_eq!((outcome.end, outcome.statuses().last()), (End::Linger, Some(&status)));
                        assert_eq!(outcome.responses.last().unwrap().value("connection"), Some("close"));
                        assert_eq!((outcome.fates(), outcome.unused), (vec![Fate::Discarded(None)], 1));
                    });
                }
            }
        }
    }
}
