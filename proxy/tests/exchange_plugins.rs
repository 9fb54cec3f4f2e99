//! The exchange with plugins: the order of hooks, short circuits, what replaced bodies and statuses mean on the wire, and hostile plugins.

mod support;

use ringway::exchange::End;
use ringway::limits::SLOTS_PER_EXCHANGE;
use support::actors::{DIRTY, DONE, DONE_BYTES, DONE_STATUS, REQUEST_BYTES, REQUEST_CHUNKS, RESPONSE_BYTES, actors, actors_with, counts, get, post};
use support::stream::bytes;
use support::wire::Framing;
use support::{Case, Fate, Step, Upstream, World};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Three order probes; B answers `/stop` itself, and C sees every response where `post_always`.
fn probes(post_always: bool) -> World {
    let plugin = |name: &str, config: &str| format!("[[plugin]]\nname = \"{name}\"\npath = \"{{plugins}}/order-probe.so\"\n[plugin.config]\n{config}\n");
    let text = plugin("a", "tag = \"A\"") + &plugin("b", "tag = \"B\"\nrespond_on = \"/stop\"") + &plugin("c", "tag = \"C\"");
    World::new(&format!("{text}[[route]]\npath = \"/\"\nupstream = \"app\"\nplugins = [\"a\", \"b\", {{ name = \"c\", post_always = {post_always} }}]\n"))
}

#[test]
fn pre_hooks_run_in_link_order_and_post_hooks_in_reverse() {
    let world = probes(false);
    Case::new(&world, "GET / HTTP/1.1\r\nHost: e\r\n\r\n").answer(OK).each(|outcome| {
        assert_eq!(outcome.upstreams[0].request().value("x-order"), Some("A,B,C"));
        assert_eq!(outcome.responses[0].value("x-order-post"), Some("C,B,A"));
        assert_eq!((outcome.responses[0].body_text(), outcome.end), ("hello", End::Park));
    });
}

#[test]
fn a_short_circuit_skips_the_links_behind_it() {
    for (post_always, post) in [(false, "A"), (true, "C,A")] {
        let world = probes(post_always);
        let requests = "GET /stop HTTP/1.1\r\nHost: e\r\n\r\nGET /go HTTP/1.1\r\nHost: e\r\n\r\n";
        Case::new(&world, requests).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]));
            let answer = &outcome.responses[0];
            assert_eq!((answer.body_text(), answer.value("x-order"), answer.value("x-order-post")), ("A,B", Some("A,B"), Some(post)));
            assert_eq!(outcome.responses[1].value("x-order-post"), Some("C,B,A"));
            assert_eq!(outcome.upstreams[0].request().target, b"/go");
        });
    }
}

#[test]
fn post_hooks_see_the_errors_of_the_gateway() {
    let world = probes(true);
    let get = "GET / HTTP/1.1\r\nHost: e\r\n\r\n";
    Case::new(&world, get).answer("HTTP/1.1 99 x\r\n\r\n").each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.responses[0].value("x-order-post")), (vec![502], Some("C,B,A")));
    });
    Case::new(&world, get).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.responses[0].value("x-order-post")), (vec![503], Some("C,B,A")));
    });
    // No pre hook ran, so only the link that always sees the response does.
    let known = "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 99999999999\r\n\r\n";
    Case::new(&world, known).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.responses[0].value("x-order-post")), (vec![413], Some("C")));
    });
}

#[test]
fn edited_heads_keep_what_was_not_edited_byte_for_byte() {
    let world = probes(false);
    let lines = "hOST:  e  \r\nX-Odd:\t a,b ,c\t\r\nX-Order:   Z \r\nx-empty:\r\n";
    Case::new(&world, format!("GET / HTTP/1.1\r\n{lines}\r\n")).answer(OK).each(|outcome| {
        let head = outcome.upstreams[0].request().head;
        let expected = "GET / HTTP/1.1\r\nhOST:  e  \r\nX-Odd:\t a,b ,c\t\r\nX-Order: Z,A,B,C\r\nx-empty:\r\n";
        assert!(head.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&head));
    });
}

// What links do on demand: see support/actor.c.

#[test]
fn every_link_that_was_reached_hears_of_the_end() {
    let world = actors();
    // act, status, pre hooks seen by the upstream, post hooks, on_done of A B C
    let cases: [(&str, u16, &str, &str, [u64; 3]); 8] = [
        ("", 200, "ABC", "CBA", [1, 1, 1]),
        ("A.request=respond:201", 201, "", "", [1, 0, 0]),
        ("B.request=respond:201", 201, "", "A", [1, 1, 0]),
        ("B.request=abort", 500, "", "A", [1, 1, 0]),
        ("B.request=claim", 500, "", "A", [1, 1, 0]),
        ("B.request=done", 200, "ABC", "CA", [1, 1, 1]),
        ("B.response=respond:202", 202, "ABC", "A", [1, 1, 1]),
        ("B.response=abort", 500, "ABC", "A", [1, 1, 1]),
    ];
    for (act, status, pre, post, done) in cases {
        Case::new(&world, get(act) + &get("")).up(Upstream::answers([OK, OK])).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![status, 200]), "{act}");
            let first = outcome.responses[0].values("x-order-post").concat();
            assert_eq!(first, post, "{act}");
            assert_eq!(outcome.responses[1].values("x-order-post").concat(), "CBA", "{act}");
            if !pre.is_empty() {
                assert_eq!(outcome.upstreams[0].requests().0[0].values("x-order").concat(), pre, "{act}");
            }
            assert_eq!(counts(outcome, DONE), done.map(|d| d + 1), "{act}");
            assert_eq!(counts(outcome, DIRTY), [0, 0, 0], "scratch is zeroed");
        });
    }
}

#[test]
fn a_failing_post_hook_is_a_fault_that_is_counted() {
    let world = actors();
    Case::new(&world, get("B.response=abort")).answer(OK).each(|outcome| assert_eq!(outcome.reasons(), ["plugin_aborted"]));
    Case::new(&world, get("A.request=respond:200,B.request=x")).each(|outcome| assert_eq!(outcome.reasons(), Vec::<&str>::new()));
    let world = actors_with("open", "");
    Case::new(&world, get("B.response=abort")).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.responses[0].values("x-order-post")), (vec![200], vec!["C", "A"]));
        assert_eq!(outcome.links[1][1], 1, "the abort is counted with the link");
    });
}

#[test]
fn a_dropped_exchange_has_no_answer() {
    let world = actors();
    for act in ["A.request=drop", "B.response=drop"] {
        Case::new(&world, get(act)).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.raw.len()), (End::Abort, 0), "{act}");
            assert_eq!(counts(outcome, DONE)[0], 1, "{act}");
            assert_eq!(counts(outcome, DONE_STATUS)[0], 0, "{act}");
        });
    }
}

/// S-33: a response must have been written in the hook that says RESPOND, and S-60: by the plugin itself.
#[test]
fn a_response_that_was_begun_and_not_sent_is_forgotten() {
    let world = actors();
    Case::new(&world, get("A.request=begin")).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.responses[0].body_text()), (vec![200], "hello"));
        assert_eq!(outcome.responses[0].values("x-order-post").concat(), "CBA");
    });
    Case::new(&world, get("A.request=begin,B.request=claim")).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons()), (vec![500], vec!["plugin_response_missing"]));
    });
}

/// The post hook's answer comes after the request's body was taken from the slot; the next request stands right behind it.
#[test]
fn an_answer_of_a_post_hook_does_not_swallow_the_next_request() {
    let world = actors();
    for act in ["B.response=respond:202", "B.response=abort"] {
        let post = format!("POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 4\r\nx-act: {act}\r\n\r\nbody");
        Case::new(&world, format!("{post}{}", get(""))).answer(OK).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses().last()), (End::Park, Some(&200)), "{act}");
            assert_eq!(outcome.responses.len(), 2, "{act}");
        });
    }
}

#[test]
fn a_status_that_a_plugin_sets_decides_whether_there_is_a_body() {
    let world = actors();
    let two = |status: u16| get(&format!("B.response=status:{status}")) + &get("");
    for status in [204, 304] {
        for answer in [OK, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
            Case::new(&world, two(status)).answer(answer).answer(OK).in_order().each(|outcome| {
                assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![status, 200]));
                assert_eq!((outcome.responses[0].framing, outcome.responses[1].body_text()), (Framing::None, "hello"));
                assert!(matches!(outcome.fates()[0], Fate::Discarded(None)));
            });
        }
    }
    for answer in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"] {
        Case::new(&world, two(200)).up(Upstream::answers([answer, OK])).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]));
            assert_eq!((outcome.responses[0].value("content-length"), outcome.responses[1].body_text()), (Some("0"), "hello"));
        });
    }
}

/// What is announced for a response without a body is not sent.
#[test]
fn on_done_is_told_what_was_sent() {
    let world = actors();
    for (method, act, bytes) in [
        ("GET", "", 5),
        ("HEAD", "", 0),
        ("GET", "B.response=status:204", 0),
        ("GET", "B.response=status:304", 0),
        ("GET", "B.request=large:1000", 1000),
        ("HEAD", "B.request=large:1000", 0),
        ("GET", "B.request=large:1000,A.response=status:304", 0),
        ("GET", "B.request=respond:304", 0),
    ] {
        let answer = if method == "HEAD" { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" } else { OK };
        Case::new(&world, get(act).replacen("GET", method, 1)).methods(&[method]).answer(answer).each(|outcome| {
            assert_eq!(counts(outcome, DONE_BYTES)[0], bytes, "{method} {act}");
        });
    }
    let replaced = Case::new(&world, get("B.response-chunk=replace:other body")).answer(OK).once();
    assert_eq!(counts(&replaced, DONE_BYTES)[0], 10);
}

// Bodies.

fn post_chunked(act: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\nx-act: {act}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

#[test]
fn chunk_hooks_see_every_byte_once() {
    let world = actors();
    for request in [post("", "hello"), post_chunked("", "hello")] {
        Case::new(&world, request).answer(OK).each(|outcome| {
            let request = outcome.upstreams[0].request();
            assert_eq!((request.body_text(), outcome.statuses()), ("hello", vec![200]));
            assert_eq!((counts(outcome, REQUEST_BYTES), counts(outcome, RESPONSE_BYTES)), (vec![5; 3], vec![5; 3]));
        });
    }
}

#[test]
fn replaced_bodies_are_framed_anew() {
    let world = actors();
    for request in [
        post("B.request=need-body,B.request-body=replace:longer than before", "hello"),
        post_chunked("B.request=need-body,B.request-body=replace:longer than before", "hello"),
    ] {
        Case::new(&world, request).answer(OK).each(|outcome| {
            let request = outcome.upstreams[0].request();
            assert_eq!((request.body_text(), request.value("content-length")), ("longer than before", Some("18")));
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200]));
            assert_eq!(counts(outcome, REQUEST_CHUNKS), [1, 1, 1]);
        });
    }
    for answer in [OK, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let outcome = Case::new(&world, get("B.response-chunk=replace:bye")).answer(answer).once();
        assert_eq!((outcome.responses[0].body_text(), outcome.responses[0].framing), ("bye", Framing::Chunked));
        assert_eq!((outcome.end, outcome.fates()), (End::Park, vec![Fate::GivenBack]));
    }
    let outcome = Case::new(&world, get("B.request=respond:200,A.response-chunk=replace:other")).once();
    assert_eq!((outcome.responses[0].body_text(), outcome.end), ("other", End::Park));
}

#[test]
fn a_chunk_hook_may_answer_while_the_body_flows() {
    let world = actors();
    for request in [post("B.request-chunk=respond:413", "hello"), post_chunked("B.request-chunk=respond:413", "hello")] {
        Case::new(&world, request).up(Upstream::script(Vec::new())).each(|outcome| {
            assert_eq!(outcome.statuses(), [413]);
            assert_eq!(outcome.responses[0].values("x-order-post").concat(), "CA", "the links whose pre hooks ran see the answer");
            assert!(outcome.upstreams.iter().all(|u| u.requests().0.iter().all(|r| !r.complete) && u.fate == Fate::Discarded(None)));
        });
    }
    for request in [post("B.request-chunk=abort", "hello"), post_chunked("B.request-chunk=abort", "hello")] {
        Case::new(&world, request).up(Upstream::script(Vec::new())).each(|outcome| {
            assert_eq!((outcome.statuses(), outcome.reasons()), (vec![500], vec!["plugin_aborted"]));
            assert_eq!(outcome.responses[0].values("x-order-post").concat(), "CA");
        });
    }
}

/// A replacement belongs to the piece it was made for.
#[test]
fn a_replacement_of_a_hook_that_answers_is_forgotten() {
    let world = actors();
    let outcome = Case::new(&world, post("B.request-chunk=swap:secret", "hello")).once();
    assert_eq!((outcome.statuses(), outcome.responses[0].body_text()), (vec![200], "B"));
}

#[test]
fn large_answers_of_a_plugin_leave_in_one_piece() {
    let world = actors();
    for size in [0, 1, 20_000, 300_000] {
        Case::new(&world, get(&format!("B.request=large:{size}")) + &get("")).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]));
            assert!(outcome.responses[0].body == "B".repeat(size).as_bytes());
        });
    }
    let head = get("B.request=respond:200").replace("GET", "HEAD");
    Case::new(&world, head).methods(&["HEAD"]).each(|outcome| assert_eq!(outcome.responses[0].value("content-length"), Some("1")));
    // RFC 9110 §8.6: a length that GET would not have is not told.
    let head = get("").replace("GET", "HEAD");
    Case::new(&world, head).methods(&["HEAD"]).answer("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").each(|outcome| {
        assert_eq!((outcome.end, outcome.responses[0].value("content-length")), (End::Park, None));
    });
}

#[test]
fn a_choice_of_upstream_counts_only_when_the_hook_succeeds() {
    let world = actors_with("open", "");
    let chosen = Case::new(&world, get("B.request=upstream:other")).answer(OK).once();
    assert_eq!(chosen.choices[0].upstream, 1);
    let failed = Case::new(&world, get("B.request=choose-abort:other")).answer(OK).once();
    assert_eq!(failed.choices[0].upstream, 0);
}

#[test]
fn a_buffered_body_has_its_own_limit() {
    let world = actors_with("closed", "[limits]\nslots = 64\nbody_buffer_bytes = \"1KiB\"\n");
    let act = "A.request=need-body";
    let fits = "x".repeat(1024);
    Case::new(&world, post(act, &fits)).answer(OK).each(|outcome| assert_eq!(outcome.statuses(), [200]));
    let over = "x".repeat(1025);
    for request in [post(act, &over), post_chunked(act, &over)] {
        Case::new(&world, request).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![413], vec!["body_too_large"]));
        });
    }
    // The client is told to go on, because the body is needed before anyone is asked.
    let down = vec![
        bytes("POST / HTTP/1.1\r\nHost: e\r\nExpect: 100-continue\r\nContent-Length: 5\r\nx-act: A.request=need-body\r\n\r\n"),
        Step::Await(b"HTTP/1.1 100".to_vec(), 1),
        bytes("hello"),
    ];
    Case::script(&world, down).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![100, 200]));
        assert_eq!(outcome.upstreams[0].request().value("expect"), None);
    });
}

// Hostile plugins: each has one fault and one expected outcome, and the next exchange works.

fn hostile(name: &str, on_error: &str) -> World {
    World::new(&format!(
        "[[plugin]]\nname = \"hostile\"\npath = \"{{plugins}}/hostile-{name}.so\"\non_error = \"{on_error}\"\n\
         [[route]]\nexact = \"/fine\"\nupstream = \"app\"\n[[route]]\npath = \"/\"\nupstream = \"app\"\nplugins = [\"hostile\"]\n"
    ))
}

#[test]
fn each_hostile_plugin_gives_its_one_expected_fault() {
    let fault = |reason| (500, None, vec![reason]);
    let refused = |text| (200, Some(text), vec![]);
    let cases = [
        ("bad-verdict", fault("plugin_bad_verdict")),
        ("suspend", fault("plugin_verdict_not_declared")),
        ("respond-unwritten", fault("plugin_response_missing")),
        ("respond-undeclared", fault("plugin_response_missing")),
        ("edit-then-abort", fault("plugin_aborted")),
        ("header-crlf", refused("-3")),
        ("undeclared-edit", refused("-1")),
        ("commit-too-much", refused("-7")),
        ("reserve-too-much", refused("0")),
        ("header-flood", refused("-4")),
        ("header-framing", refused("-6")),
        ("alloc-flood", refused("0")),
        ("wrong-hook", refused("-2")),
    ];
    for (name, (status, body, reasons)) in cases {
        let world = hostile(name, "closed");
        let requests = "GET /hostile HTTP/1.1\r\nHost: e\r\n\r\nGET /fine HTTP/1.1\r\nHost: e\r\n\r\n";
        Case::new(&world, requests).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![status, 200]), "{name}");
            assert_eq!(outcome.reasons(), reasons, "{name}");
            assert!(body.is_none_or(|body| outcome.responses[0].body_text() == body), "{name}: {:?}", outcome.responses[0].body_text());
            assert_eq!(outcome.responses[1].body_text(), "hello", "{name}");
        });
    }
}

#[test]
fn with_on_error_open_a_failed_hook_leaves_no_trace() {
    for name in ["edit-then-abort", "bad-verdict", "respond-unwritten", "suspend"] {
        let world = hostile(name, "open");
        Case::new(&world, "GET /hostile HTTP/1.1\r\nHost: e\r\n\r\n").answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Park, vec![200], vec![]), "{name}");
            assert_eq!(outcome.upstreams[0].request().value("x-half-done"), None);
        });
    }
}

#[test]
fn a_panic_is_an_abort_and_the_next_exchange_works() {
    let world = hostile("panic", "closed");
    let requests = ["/panic", "/panic-post", "/fine"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: e\r\n\r\n")).concat();
    let outcome = Case::new(&world, &requests).answer(OK).answer(OK).once();
    assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![500, 500, 200]));
    assert_eq!(outcome.reasons(), ["plugin_panicked", "plugin_panicked"]);
    assert_eq!(outcome.responses[1].value("x-hostile"), None);
    let world = hostile("panic", "open");
    let outcome = Case::new(&world, requests).up(Upstream::answers([OK, OK, OK])).once();
    assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200, 200]));
    assert_eq!(outcome.upstreams[0].requests().0[0].value("x-hostile"), None);
}

// Example plugins that look at bodies.

#[test]
fn body_limit_stops_a_chunked_body_that_grows_too_long() {
    let world = World::new(
        "[[plugin]]\nname = \"limit\"\npath = \"{plugins}/body-limit.so\"\n[plugin.config]\nmax_bytes = 8\n\
         [[route]]\npath = \"/\"\nupstream = \"app\"\nplugins = [\"limit\"]\n",
    );
    let body = |sizes: &[usize]| sizes.iter().map(|n| format!("{n:x}\r\n{}\r\n", "x".repeat(*n))).collect::<String>();
    let request = |sizes: &[usize]| format!("POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", body(sizes));
    Case::new(&world, request(&[4, 4])).answer(OK).each(|outcome| assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200])));
    Case::new(&world, request(&[4, 4, 1])).answer(OK).each(|outcome| {
        assert_eq!(outcome.statuses(), [413]);
        assert!(outcome.upstreams[0].requests().0.iter().all(|r| !r.complete));
    });
}

/// A worker keeps slots in reserve for the moment in which a plugin writes a response while it sees another: one is enough for any number of
/// exchanges, because the one that was replaced is free again before anything waits.
#[test]
fn a_response_that_a_plugin_replaces_needs_a_third_slot_for_a_moment_only() {
    let world = actors();
    for act in ["B.response=respond:201", "A.response=respond:201", "C.request=respond:202,A.response=respond:201"] {
        Case::new(&world, get(act)).answer(OK).slots(SLOTS_PER_EXCHANGE + 1).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Park, vec![201], vec![]), "{act}");
        });
        // Without any reserve the client still gets an answer, and not a connection that ends without one.
        Case::new(&world, get(act)).answer(OK).slots(SLOTS_PER_EXCHANGE).each(|outcome| assert_eq!(outcome.statuses(), [500], "{act}"));
    }
    assert!(world.blueprint.config.limits.slab_slots() > SLOTS_PER_EXCHANGE * world.blueprint.config.limits.slots);
}

/// A route that lets the protocol `chat` and CONNECT through, with the actor A.
fn switching() -> World {
    let route = "[[route]]\npath = \"/up\"\nupstream = \"app\"\nplugins = [\"A\"]\nallow_upgrade = [\"chat\"]\n";
    let connect = "[[route]]\nmethod = \"CONNECT\"\nupstream = \"app\"\nplugins = [\"A\"]\nconnect_to = [\"e:443\"]\n";
    actors_with("closed", &format!("{route}{connect}"))
}

/// An upstream that has switched speaks another protocol, whatever a plugin makes of its answer: no other request may reach it.
#[test]
fn a_connection_that_has_switched_is_never_used_again() {
    let world = switching();
    for method in ["GET", "HEAD"] {
        for status in [200, 204, 304, 404] {
            let request = format!("{method} /up HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: chat\r\nx-act: A.response=status:{status}\r\n\r\n");
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
            Case::new(&world, request).methods(&[method]).answer(switch).each(|outcome| {
                assert_eq!((outcome.statuses(), outcome.fates()), (vec![status], vec![Fate::Discarded(None)]), "{method} {status}");
                assert!(outcome.responses[0].value("date").is_some(), "{method} {status}");
            });
        }
    }
}

/// A plugin that looks at bodies changes nothing about a request that has none.
#[test]
fn a_request_without_a_body_stays_one_when_a_plugin_asks_for_it() {
    let world = switching();
    for act in ["A.request=need-body", "A.request=need-body,A.request-body=replace:"] {
        Case::new(&world, get(act)).answer(OK).each(|outcome| {
            let request = outcome.upstreams[0].request();
            assert_eq!((request.value("content-length"), request.value("transfer-encoding")), (None, None), "{act}");
        });
        let request = format!("GET /up HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: chat\r\nx-act: {act}\r\n\r\n");
        Case::new(&world, request).answer(OK).each(|outcome| {
            let request = outcome.upstreams[0].request();
            assert_eq!((request.value("upgrade"), request.value("content-length")), (Some("chat"), None), "{act}");
        });
    }
    // What it puts there is a body.
    Case::new(&world, get("A.request=need-body,A.request-body=replace:new")).answer(OK).each(|outcome| {
        assert_eq!(outcome.upstreams[0].request().body_text(), "new");
    });
    // Nothing comes before a tunnel: it would be the tunnel's.
    let connect = |act: &str| format!("CONNECT e:443 HTTP/1.1\r\nHost: e:443\r\nx-act: {act}\r\n\r\n");
    Case::new(&world, connect("A.request=need-body")).methods(&["CONNECT"]).answer("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.upstreams[0].request().value("content-length")), (vec![403], None));
    });
    Case::new(&world, connect("A.request=need-body,A.request-body=replace:new")).methods(&["CONNECT"]).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons()), (vec![500], vec!["plugin_aborted"]));
    });
}

/// Nobody waits for 100 where there is no body, or where it is on its way: the upstream is not told so, whoever says it.
#[test]
fn hop_lines_of_the_gateway_leave_once_whoever_sets_them() {
    let world = World::new(
        "[[plugin]]\nname = \"h\"\npath = \"{plugins}/header-rewrite.so\"\n[plugin.config]\nrequest.set = { expect = \"100-continue\", max-forwards = \"7\" }\n[[route]]\nupstream = \"app\"\nplugins = [\"h\"]\n",
    );
    Case::new(&world, "OPTIONS / HTTP/1.1\r\nHost: e\r\nMax-Forwards: 3\r\n\r\n").answer(OK).each(|outcome| {
        let request = outcome.upstreams[0].request();
        assert_eq!((request.value("expect"), request.values("max-forwards")), (None, vec!["2"]));
    });
    let chunked = "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    Case::new(&world, chunked).answer(OK).each(|outcome| {
        assert_eq!((outcome.upstreams[0].request().value("expect"), outcome.fates()), (None, vec![Fate::GivenBack]));
    });
}
