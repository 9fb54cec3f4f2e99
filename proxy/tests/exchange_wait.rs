//! Plugins that wait: the verdicts of on_event, timers, wakes, and what ends a wait from outside.
//!
//! What links do on demand: see support/actor.c. Rules of SPEC.md: S-100 to S-106.

mod support;

use ringway::exchange::End;
use support::actors::{DONE, DONE_STATUS, EVENT, EVENT_KIND, EVENT_TOKEN, RESPONSE, actors, actors_with, counts, get, post};
use support::stream::bytes;
use support::{Case, Fate, Step, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

const TIMER: u64 = 1;
const WAKE: u64 = 2;
const TIMEOUT: u64 = 3;

/// S-100, S-101: the chain goes on behind the link that waited, and what it edited before and after counts.
#[test]
fn a_timer_ends_and_the_chain_goes_on() {
    let world = actors();
    Case::new(&world, get("B.request=timer:20") + &get("")).up(Upstream::answers([OK, OK])).expire(100).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]));
        let requests = outcome.upstreams[0].requests().0;
        assert_eq!((requests[0].values("x-order").concat(), requests[0].values("x-event").concat()), ("ABC".into(), "B".into()));
        assert_eq!(outcome.responses[0].values("x-order-post").concat(), "CBA");
        assert_eq!((counts(outcome, EVENT), counts(outcome, EVENT_KIND)[1], counts(outcome, EVENT_TOKEN)[1]), (vec![0, 1, 0], TIMER, 20));
        assert_eq!(counts(outcome, DONE), [2, 2, 2]);
        assert_eq!(outcome.links[1][5], 1, "the wait is counted with the link");
    });
}

/// S-102: each verdict of on_event means what it means in the hook that waited.
#[test]
fn the_verdict_of_on_event_is_that_of_the_hook_that_waited() {
    let world = actors();
    // What on_event returns, status, pre hooks that the upstream saw, post hooks.
    let cases: [(&str, u16, &str, &str); 8] = [
        ("done", 200, "ABC", "CA"),
        ("respond:201", 201, "", "A"),
        ("abort", 500, "", "A"),
        ("claim", 500, "", "A"),
        ("begin", 200, "ABC", "CBA"),
        ("arm:5", 200, "ABC", "CBA"),
        ("upstream:other", 200, "ABC", "CBA"),
        ("need-body", 200, "ABC", "CBA"),
    ];
    for (act, status, pre, post_hooks) in cases {
        let request = post(&format!("B.request=timer:20,B.event={act}"), "body") + &get("");
        Case::new(&world, request).up(Upstream::answers([OK, OK])).answer(OK).expire(100).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![status, 200]), "{act}");
            assert_eq!(outcome.responses[0].values("x-order-post").concat(), post_hooks, "{act}");
            if !pre.is_empty() {
                let request = &outcome.upstreams[0].requests().0[0];
                assert_eq!((request.values("x-order").concat(), request.body_text()), (pre.into(), "body"), "{act}");
            }
            assert_eq!(counts(outcome, DONE), if pre.is_empty() { [2, 2, 1] } else { [2, 2, 2] }, "{act}");
        });
    }
    Case::new(&world, get("B.request=timer:20,B.event=drop")).expire(100).each(|outcome| {
        assert_eq!((outcome.end, outcome.raw.len(), counts(outcome, DONE)), (End::Abort, 0, vec![1, 1, 0]));
    });
    let open = actors_with("open", "");
    Case::new(&open, get("B.request=timer:20,B.event=abort")).answer(OK).expire(100).each(|outcome| {
        assert_eq!(outcome.upstreams[0].request().values("x-order").concat(), "ABC", "what it edited before it waited stays");
        assert_eq!((outcome.upstreams[0].request().values("x-event").len(), outcome.responses[0].values("x-order-post").concat()), (0, "CA".into()));
    });
}

/// S-101: a body hook that waits, and replaces the body before or after it.
#[test]
fn a_body_hook_waits_with_the_body() {
    let world = actors();
    for (act, body) in [("", "body"), ("B.event=replace:other", "other")] {
        let request = post(&format!("B.request=need-body,B.request-body=timer:20,{act}"), "body") + &get("");
        Case::new(&world, request).up(Upstream::answers([OK, OK])).expire(100).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]), "{act}");
            let request = &outcome.upstreams[0].requests().0[0];
            assert_eq!((request.values("x-order").concat(), request.body_text()), ("ABC".into(), body), "{act}");
        });
    }
    Case::new(&world, post("B.request=need-body,B.request-body=timer:20,B.event=need-body", "body")).expire(100).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons()), (vec![500], vec!["plugin_body_not_declared"]));
    });
}

/// S-100, S-102: post hooks wait with the response, of whomever it is.
#[test]
fn a_post_hook_waits_with_the_response() {
    let world = actors();
    for (act, status, post_hooks, event) in [
        ("B.response=timer:20", 200, "CBA", "B"),
        ("B.response=timer:20,B.event=status:404", 404, "CBA", "B"),
        ("B.response=timer:20,B.event=respond:202", 202, "A", ""),
        ("B.response=timer:20,B.event=abort", 500, "A", ""),
        ("C.response=respond:203,B.response=timer:20", 203, "BA", "B"),
        ("C.request=respond:203,B.response=timer:20", 203, "BA", "B"),
        ("C.response=timer:20,B.response=timer:20,A.response=timer:20", 200, "CBA", "CBA"),
        ("A.request=timer:20,C.response=timer:20", 200, "CBA", "C"),
    ] {
        Case::new(&world, get(act) + &get("")).up(Upstream::answers([OK, OK])).answer(OK).expire(100).expire(200).expire(300).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![status, 200]), "{act}");
            let response = &outcome.responses[0];
            assert_eq!((response.values("x-order-post").concat(), response.values("x-event").concat()), (post_hooks.into(), event.into()), "{act}");
        });
    }
    Case::new(&world, get("B.response=timer:20,B.event=drop")).answer(OK).expire(100).each(|outcome| {
        assert_eq!((outcome.end, outcome.raw.len(), counts(outcome, DONE)), (End::Abort, 0, vec![1, 1, 1]));
    });
}

/// S-101: a body on its way goes on while a post hook waits, and what fails meanwhile cuts the exchange off: the response was shown to some.
#[test]
fn a_body_goes_on_while_a_post_hook_waits() {
    let world = actors();
    let head = |act: &str| bytes(format!("POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 8\r\nx-act: {act}\r\n\r\nbody"));
    let early = || Upstream::script(vec![Step::AwaitHead, bytes(OK)]);
    let slow = |act: &str| vec![head(act), Step::AfterExpiry(1), bytes("more")];
    Case::script(&world, slow("B.response=timer:2000")).up(early()).expire(1).expire(5000).in_order().each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.responses[0].values("x-event").concat()), (vec![200], "B".into()));
        assert_eq!(outcome.upstreams[0].request().body_text(), "bodymore");
    });
    for act in ["A.request-chunk2=respond:201", "A.request-chunk2=abort"] {
        let outcome = Case::script(&world, slow(&format!("{act},B.response=timer:2000"))).up(early()).expire(1).once();
        assert_eq!((outcome.end, outcome.raw.len(), counts(&outcome, DONE)), (End::Abort, 0, vec![1, 1, 1]), "{act}");
        assert_eq!(counts(&outcome, RESPONSE), [0, 1, 1], "{act}: no post hook runs twice");
    }
}

/// S-103: the time of a hook is bounded, and the plugin has the last word.
#[test]
fn a_wait_that_takes_too_long_hears_so_and_must_decide() {
    let world = actors_with("closed", "[timeouts]\nsuspend = \"1s\"\n");
    for (act, status, reasons, events) in [
        ("B.request=suspend", 200, vec![], 1),
        ("B.request=suspend,B.event=respond:201", 201, vec![], 1),
        ("B.request=suspend,B.event=suspend", 500, vec!["plugin_verdict_out_of_place"], 1),
        ("B.request=timer:5000,B.event=timer:10", 500, vec!["plugin_verdict_out_of_place"], 1),
        ("B.request=timer:100,B.event=suspend", 200, vec![], 2),
        ("B.response=suspend", 200, vec![], 1),
    ] {
        Case::new(&world, get(act)).answer(OK).expire(500).expire(1500).in_order().each(|outcome| {
            assert_eq!((outcome.statuses(), outcome.reasons()), (vec![status], reasons.clone()), "{act}");
            assert_eq!((counts(outcome, EVENT)[1], counts(outcome, EVENT_KIND)[1]), (events, TIMEOUT), "{act}");
        });
    }
}

/// S-103: the deadline of the whole exchange goes on.
#[test]
fn the_deadline_of_the_exchange_ends_a_wait() {
    let world = actors_with("closed", "[timeouts]\nexchange = \"1s\"\n");
    Case::new(&world, get("B.request=suspend")).expire(1500).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons(), counts(outcome, EVENT)), (vec![504], vec!["exchange_timeout"], vec![0, 0, 0]));
        assert_eq!((outcome.responses[0].values("x-order-post").concat(), counts(outcome, DONE)), ("A".into(), vec![1, 1, 0]));
    });
    Case::new(&world, get("B.response=suspend")).answer(OK).expire(1500).each(|outcome| {
        // Some links have seen the response that does not come: none sees what comes instead.
        assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![504], vec!["exchange_timeout"]));
        assert_eq!((outcome.responses[0].values("x-order-post").concat(), counts(outcome, DONE)), (String::new(), vec![1, 1, 1]));
    });
    // RFC 9110 §9.3.2: none of its answers has a body.
    let head = get("B.response=suspend").replacen("GET", "HEAD", 1);
    Case::new(&world, head).methods(&["HEAD"]).answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").expire(1500).each(|outcome| {
        assert_eq!(outcome.statuses(), [504]);
        assert!(outcome.raw.ends_with(b"connection: close\r\n\r\n"), "{:?}", String::from_utf8_lossy(&outcome.raw));
    });
    // It has passed when an event of the plugin's own comes, which does not end the wait.
    Case::new(&world, get("B.request=timer:500,B.event=suspend")).expire(1500).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons(), counts(outcome, EVENT)), (vec![504], vec!["exchange_timeout"], vec![0, 1, 0]));
    });
    // Whether the alarm says so or the sweep.
    Case::new(&world, get("B.request=suspend,A.response=suspend")).alarm(1500).alarm(100).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons()), (vec![504], vec!["exchange_timeout"]));
        assert_eq!((counts(outcome, EVENT), counts(outcome, EVENT_KIND)[0]), (vec![1, 0, 0], TIMEOUT));
    });
    // The answer that says so is not kept waiting, by any link.
    let silent = Upstream::script(vec![Step::AwaitHead]);
    Case::new(&world, get("A.response=suspend,B.response=suspend")).up(silent).expire(1500).expire(100).expire(100).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons()), (vec![504], vec!["exchange_timeout"]));
        assert_eq!((counts(outcome, EVENT), counts(outcome, EVENT_KIND)[..2].to_vec()), (vec![1, 1, 0], vec![TIMEOUT; 2]));
    });
}

/// S-104: the client that goes away takes the exchange with it.
#[test]
fn a_client_that_goes_away_ends_the_wait() {
    let world = actors();
    for (act, response) in [("B.request=timer:100", false), ("B.request=need-body,B.request-body=suspend", false), ("B.response=suspend", true)] {
        Case::new(&world, post(act, "body")).answer(OK).leaves().each(|outcome| {
            assert_eq!((outcome.end, outcome.raw.len(), counts(outcome, EVENT)), (End::Abort, 0, vec![0, 0, 0]), "{act}");
            assert_eq!((counts(outcome, DONE), counts(outcome, DONE_STATUS)[0]), (if response { vec![1, 1, 1] } else { vec![1, 1, 0] }, 0), "{act}");
            assert_eq!(counts(outcome, RESPONSE)[2], u64::from(response), "{act}");
            if response {
                assert_eq!(outcome.fates(), [Fate::Discarded(None)], "{act}");
            }
        });
    }
}

/// S-33, S-105: what is not possible.
#[test]
fn waiting_where_it_is_not_possible_is_a_fault() {
    let world = actors();
    let cases = [
        ("B.request-chunk=suspend", "plugin_verdict_out_of_place"),
        ("B.request-chunk=timer:1", "plugin_aborted"),
        ("B.request-chunk=arm:1", "plugin_aborted"),
    ];
    for (act, reason) in cases {
        Case::new(&world, post(act, "body")).answer(OK).each(|outcome| {
            assert_eq!((outcome.statuses(), outcome.reasons()), (vec![500], vec![reason]), "{act}");
        });
    }
    Case::new(&world, get("B.response-chunk=suspend")).answer(OK).in_order().each(|outcome| assert_eq!(outcome.end, End::Abort));
    let few = actors_with("closed", "[limits]\nslots = 64\nsuspended = 1\n");
    // The one who waits is this exchange itself: waiting again, and at another link, is no further one.
    Case::new(&few, get("A.request=timer:1,B.request=timer:1,A.response=timer:1")).answer(OK).expire(100).expire(200).expire(300).each(|outcome| {
        assert_eq!((outcome.statuses(), counts(outcome, EVENT)), (vec![200], vec![2, 1, 0]));
    });
}

/// S-105: the second timer takes the place of the first; one that is armed and not waited for is forgotten.
#[test]
fn one_timer_at_a_time() {
    let world = actors();
    Case::new(&world, get("B.request=timers:300")).answer(OK).expire(100).expire(1000).in_order().each(|outcome| {
        assert_eq!((outcome.statuses(), counts(outcome, EVENT)[1], counts(outcome, EVENT_TOKEN)[1]), (vec![200], 1, 300));
    });
    Case::new(&world, get("A.request=arm:1,B.request=timer:300")).answer(OK).expire(100).expire(1000).in_order().each(|outcome| {
        assert_eq!((outcome.statuses(), counts(outcome, EVENT)), (vec![200], vec![0, 1, 0]));
    });
}

/// S-106: a wake finds the hook that waits, also when it was sent before the hook had returned; a stale one finds nobody.
#[test]
fn wakes_reach_the_link_that_waits_and_nobody_else() {
    let world = actors();
    let stale = ringway::plugin::wake::stale();
    Case::new(&world, get("B.request=wake:7")).answer(OK).wakes().each(|outcome| {
        let heard = (counts(outcome, EVENT), counts(outcome, EVENT_KIND)[1], counts(outcome, EVENT_TOKEN)[1]);
        assert_eq!((outcome.statuses(), heard), (vec![200], (vec![0, 1, 0], WAKE, 7)));
    });
    assert_eq!(ringway::plugin::wake::stale(), stale);
    Case::new(&world, get("B.request=wake-twice:7,B.event=suspend")).answer(OK).wakes().each(|outcome| {
        assert_eq!((counts(outcome, EVENT)[1], counts(outcome, EVENT_TOKEN)[1]), (2, 8));
    });
    // The first lets the exchange go on; the second finds nobody, and is counted when somebody takes it.
    Case::new(&world, get("B.request=wake-twice:7,C.request=timer:300")).answer(OK).wakes().expire(1000).in_order().each(|outcome| {
        assert_eq!(counts(outcome, EVENT), [0, 1, 1]);
    });
    // Link A has gone on by its timer when its wake is taken: B, which waits, does not hear of it.
    let late = Case::new(&world, get("A.request=wake-timer:7,B.request=timer:300")).answer(OK).expire(100).wakes().expire(1000).in_order().once();
    assert_eq!((counts(&late, EVENT), counts(&late, EVENT_KIND)[1]), (vec![1, 1, 0], TIMER));
    assert_eq!(ringway::plugin::wake::stale(), stale + 1);
}
