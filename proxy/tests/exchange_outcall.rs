//! Outcalls: the requests that plugins send themselves, what comes back, and what ends them.
//!
//! What links do on demand: see support/actor.c. Rules of SPEC.md: S-110 to S-116.

mod support;

use ringway::error::{ResourceFault, UpstreamFault};
use ringway::exchange::End;
use ringway::exchange::core::Outcome as Said;
use support::actors::{DONE, EVENT, EVENT_FAILURE, EVENT_KIND, EVENT_TOKEN, actors, actors_with, get, post};
use support::stream::bytes;
use support::{Case, Fate, Outcome, Step, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const YES: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-User: anna\r\n\r\nyes";

const TIMER: u64 = 1;
const TIMEOUT: u64 = 3;
const REPLY: u64 = 4;

const UNREACHABLE: u64 = 32;
const TIMED_OUT: u64 = 33;
const BROKEN: u64 = 34;
const NO_SPACE: u64 = 4;

/// A metric of B.
fn of_b(outcome: &Outcome, metric: usize) -> u64 {
    outcome.metrics[1][metric]
}

/// B's outcalls: sent, failed, given up.
fn outcalls(outcome: &Outcome) -> [u64; 3] {
    [outcome.links[1][6], outcome.links[1][7], outcome.links[1][8]]
}

/// S-110, S-111, S-113: the request as it leaves, the reply as it is shown, and both connections used again.
#[test]
fn a_reply_comes_and_the_chain_goes_on() {
    let world = actors();
    let case = Case::new(&world, get("B.request=call:/check?a=b") + &get("B.request=call:/again"));
    case.up(Upstream::answers([YES, YES])).up(Upstream::answers([OK, OK])).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]));
        let sent = String::from_utf8(outcome.upstreams[0].raw.clone()).unwrap();
        let expected = |target| format!("GET {target} HTTP/1.1\r\nx-call: B\r\nhost: 127.0.0.1:3\r\n\r\n");
        assert_eq!(sent, expected("/check?a=b") + &expected("/again"));
        let forwarded = &outcome.upstreams[1].requests().0[0];
        assert_eq!((forwarded.values("x-order").concat(), forwarded.values("x-reply").concat()), ("ABC".into(), "200 yes 1 anna".into()));
        assert_eq!((of_b(outcome, EVENT), of_b(outcome, EVENT_KIND), of_b(outcome, EVENT_TOKEN)), (2, REPLY, 1));
        assert_eq!((outcome.fates(), outcomes_leases(outcome)), (vec![Fate::GivenBack, Fate::GivenBack], vec![2, 2]));
        assert_eq!(outcalls(outcome), [2, 0, 0]);
        assert_eq!(outcome.choices[0].upstream, 1, "it went to the upstream that the plugin named");
    });
}

fn outcomes_leases(outcome: &Outcome) -> Vec<u32> {
    outcome.upstreams.iter().map(|upstream| upstream.leases).collect()
}

/// S-110: on_event decides as after any other wait; a body hook and a post hook can call too.
#[test]
fn every_hook_that_may_wait_may_call() {
    let world = actors();
    for (act, status, told) in [
        ("B.request=call:/,B.event=respond:201", 201, "response"),
        ("B.request=call:/,B.event=abort", 500, ""),
        ("B.request=need-body,B.request-body=call:/", 200, "request"),
        ("B.response=call:/", 200, "response"),
        ("C.request=respond:203,B.response=call:/", 203, "response"),
    ] {
        let first = if act.starts_with("B.response") { [OK, YES] } else { [YES, OK] };
        Case::new(&world, post(act, "body")).answer(first[0]).answer(first[1]).each(|outcome| {
            assert_eq!((outcome.statuses(), of_b(outcome, EVENT)), (vec![status], 1), "{act}");
            assert_eq!(outcome.metrics.iter().map(|of| of[DONE]).sum::<u64>(), 2 + u64::from(status == 200 || act.starts_with('C')), "{act}");
            match told {
                "request" => assert_eq!(outcome.upstreams[1].request().values("x-reply").concat(), "200 yes 1 anna", "{act}"),
                "response" if status != 201 => assert_eq!(outcome.responses[0].values("x-reply").concat(), "200 yes 1 anna", "{act}"),
                _ => {}
            }
        });
    }
    // What is sent and not waited for is forgotten.
    Case::new(&world, get("B.request=call-and-go:/")).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.upstreams.len(), outcalls(outcome)), (vec![200], 1, [0, 0, 0]));
    });
    // Not even when another link waits afterwards, or the next exchange of the connection.
    let next = get("B.request=call-and-go:/,C.request=timer:20") + &get("C.request=timer:20");
    Case::new(&world, next).up(Upstream::answers([OK, OK])).expire(100).expire(200).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.upstreams.len(), outcalls(outcome)), (vec![200, 200], 1, [0, 0, 0]));
        assert_eq!(outcome.links[2][6..], [0, 0, 0]);
    });
    Case::new(&world, post("B.request-chunk=call:/", "body")).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons()), (vec![500], vec!["plugin_aborted"]));
    });
}

/// S-113: any framing of a reply, in any pieces; interim ones are skipped, and a body beyond the bound is cut off.
#[test]
fn replies_of_every_framing_are_read_to_their_end() {
    let world = actors_with("closed", "[limits]\nslots = 64\noutcall_reply_bytes = 8\n");
    let cases: [(&str, &str, Option<bool>); 12] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200  1", Some(true)),
        ("HTTP/1.1 204 No Content\r\n\r\n", "204  1", Some(true)),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\n12345678", "403 12345678 1", Some(true)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", "200 12345678 0", Some(true)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n123456789", "200 12345678 0", Some(false)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n", "200 abcdefgh 1", Some(true)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n6\r\ndefghi\r\n0\r\n\r\n", "200 abcdefgh 0", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-trailer: 1\r\n\r\n", "200  1", Some(true)),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok 1", Some(true)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok 1", Some(false)),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "200 ok 1", Some(false)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1", "200 ok 1", None),
    ];
    for (reply, told, reusable) in cases {
        Case::new(&world, get("B.request=call:/")).up(Upstream::answers_early(reply)).answer(OK).each(|outcome| {
            assert_eq!(outcome.statuses(), [200], "{reply:?}");
            assert_eq!(outcome.upstreams[1].request().values("x-reply").concat(), told, "{reply:?}");
            // `None`: it depends on what came together; the pool looks for bytes that nobody asked for before it uses a connection.
            let fate = outcome.fates()[0];
            assert!(reusable.is_none_or(|reusable| fate == if reusable { Fate::GivenBack } else { Fate::Discarded(None) }), "{reply:?}: {fate:?}");
            assert_eq!(outcalls(outcome), [1, 0, 0], "{reply:?}");
        });
    }
    for (body, told) in [("until close", "200 until cl 0"), ("short", "200 short 1")] {
        let reply = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
        Case::new(&world, get("B.request=call:/")).up(Upstream::answers_and_closes(&reply)).answer(OK).each(|outcome| {
            assert_eq!(outcome.upstreams[1].request().values("x-reply").concat(), told);
            assert_eq!(outcome.fates()[0], Fate::Discarded(None));
        });
    }
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n{}", "x".repeat(500_000));
    let outcome = Case::new(&world, get("B.request=call:/")).up(Upstream::answers_early(&large)).answer(OK).once();
    assert_eq!((outcome.statuses(), outcome.upstreams[1].request().values("x-reply").concat()), (vec![200], "200 xxxxxxxx 0".into()));
}

/// S-114: what does not become a reply is a status, and the server is blamed for it.
#[test]
fn what_fails_is_told_and_the_plugin_decides() {
    let world = actors();
    let fails = |up: Vec<Upstream>, failure: u64, fates: Vec<Fate>| {
        let said = format!("{up:?}");
        for (act, status) in [("B.request=call:/", 200), ("B.request=call:/,B.event=respond:503", 503)] {
            let mut case = Case::new(&world, get(act)).expire(3_600_000).in_order();
            for up in &up {
                case = case.up(up.clone());
            }
            case.answer(OK).each(|outcome| {
                assert_eq!((outcome.statuses(), of_b(outcome, EVENT), of_b(outcome, EVENT_FAILURE)), (vec![status], 1, failure), "{said}");
                assert_eq!((outcome.fates()[..fates.len()].to_vec(), outcalls(outcome)), (fates.clone(), [1, 1, 0]), "{said}");
            });
        }
    };
    let refused = || Upstream::refused(UpstreamFault::ConnectFailed);
    fails(vec![refused(), refused(), refused()], UNREACHABLE, vec![]);
    fails(vec![Upstream::refused(ResourceFault::FilesExhausted)], UNREACHABLE, vec![]);
    let slow = Upstream::refused(UpstreamFault::ConnectTimeout);
    fails(vec![slow.clone(), slow.clone(), slow], TIMED_OUT, vec![]);
    for (reply, fault) in [
        ("nonsense\r\n\r\n", UpstreamFault::BadStatusLine),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", UpstreamFault::ConflictingContentLength),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", UpstreamFault::UnknownTransferCoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", UpstreamFault::BadChunkSize),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", UpstreamFault::BareLineFeed),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", UpstreamFault::UnexpectedUpgrade),
    ] {
        fails(vec![Upstream::answers_early(reply)], BROKEN, vec![Fate::Discarded(Some(fault))]);
    }
    for (reply, fault) in
        [("HTTP/1.1 200 OK\r\nConte", UpstreamFault::HeadTruncated), ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", UpstreamFault::Truncated)]
    {
        fails(vec![Upstream::answers_and_closes(reply)], BROKEN, vec![Fate::Discarded(Some(fault))]);
    }
}

/// A reply of 502, 503 or 504 is one for the plugin, and counts against its server.
#[test]
fn what_a_reply_says_of_its_server() {
    let world = actors();
    for (status, said) in [(200, Said::Succeeded), (500, Said::Succeeded), (502, Said::Refused), (503, Said::Refused), (504, Said::Refused)] {
        let reply = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
        let outcome = Case::new(&world, get("B.request=call:/")).answer(reply).answer(OK).once();
        assert_eq!((outcome.statuses(), outcome.said[0]), (vec![200], said));
    }
}

/// S-114: each pause of the reply has its time.
#[test]
fn a_reply_that_is_late_is_a_timeout() {
    let world = actors_with("closed", "[timeouts]\nsuspend = \"10m\"\n");
    for (reply, fault) in [
        ("", UpstreamFault::FirstByteTimeout),
        ("HTTP/1.1 2", UpstreamFault::FirstByteTimeout),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", UpstreamFault::ReadTimeout),
    ] {
        let steps = if reply.is_empty() { vec![Step::AwaitHead] } else { vec![Step::AwaitHead, bytes(reply)] };
        Case::new(&world, get("B.request=call:/")).up(Upstream::script(steps)).answer(OK).expire(61_000).in_order().each(|outcome| {
            assert_eq!((outcome.statuses(), of_b(outcome, EVENT_KIND), of_b(outcome, EVENT_FAILURE)), (vec![200], REPLY, TIMED_OUT), "{reply}");
            assert_eq!(outcome.fates()[0], Fate::Discarded(Some(fault)));
        });
    }
    let stalled = Upstream { write_stalls_at: 10, ..Upstream::script(vec![]) };
    Case::new(&world, get("B.request=call:/")).up(stalled).answer(OK).expire(61_000).in_order().each(|outcome| {
        assert_eq!(
            (outcome.statuses(), of_b(outcome, EVENT_FAILURE), outcome.fates()[0]),
            (vec![200], TIMED_OUT, Fate::Discarded(Some(UpstreamFault::WriteTimeout)))
        );
    });
}

/// S-112: a pooled connection that was dead is replaced once; what may have arrived is repeated only when the method is idempotent.
#[test]
fn a_stale_connection_is_replaced_once() {
    let world = actors();
    let dead = || Upstream::script(vec![Step::AwaitHead, Step::Eof]).pooled();
    Case::new(&world, get("B.request=call:/")).up(dead()).up(Upstream::answers([YES])).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT_FAILURE), outcalls(outcome)), (vec![200], 0, [1, 0, 0]));
        let (first, second) = (outcome.upstreams[0].request(), outcome.upstreams[1].request());
        assert_eq!((&first.target, first.values("x-call")), (&second.target, second.values("x-call")));
        assert_eq!(outcome.fates()[..2], [Fate::Discarded(None), Fate::GivenBack]);
        assert!(!outcome.choices[1].pooled, "the second one is fresh");
    });
    let refused = || Upstream::refused(UpstreamFault::ConnectFailed);
    Case::new(&world, get("B.request=call:/")).up(refused()).up(dead()).up(refused()).up(Upstream::answers([YES])).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT_FAILURE)), (vec![200], 0));
        let tried = outcome.choices[..4].iter().map(|choice| choice.tried.to_vec()).collect::<Vec<_>>();
        assert_eq!(tried, [vec![], vec![0], vec![0], vec![0, 2]], "servers that failed stay avoided");
    });
    // A server that closes a fresh connection is tried again within the budget, and then it is broken.
    let closes = || Upstream::script(vec![Step::AwaitHead, Step::Eof]);
    Case::new(&world, get("B.request=call:/")).up(closes()).up(closes()).up(closes()).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT_FAILURE), outcalls(outcome)), (vec![200], BROKEN, [1, 1, 0]));
    });
    Case::new(&world, get("B.request=call-post:data")).up(dead()).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT_FAILURE)), (vec![200], BROKEN));
        assert_eq!(outcome.upstreams[0].raw, b"POST / HTTP/1.1\r\nx-call: B\r\nhost: 127.0.0.1:3\r\ncontent-length: 4\r\n\r\ndata");
    });
}

/// S-115: the client that goes away, the end of the time, and a link that goes on for another reason give up what is under way.
#[test]
fn what_nobody_waits_for_is_given_up() {
    let world = actors_with("closed", "[timeouts]\nsuspend = \"1s\"\n");
    let silent = || Upstream::script(vec![Step::AwaitHead]);
    Case::new(&world, get("B.request=call:/")).up(silent()).leaves().each(|outcome| {
        assert_eq!((outcome.end, outcome.raw.len(), of_b(outcome, EVENT), of_b(outcome, DONE)), (End::Abort, 0, 0, 1));
        assert_eq!((outcome.fates(), outcalls(outcome)), (vec![Fate::Discarded(None)], [1, 0, 1]));
    });
    Case::new(&world, get("B.request=call:/")).up(silent()).answer(OK).expire(1500).in_order().each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT_KIND)), (vec![200], TIMEOUT));
        assert_eq!((outcome.fates()[0], outcalls(outcome)), (Fate::Discarded(None), [1, 0, 1]));
    });
    Case::new(&world, get("B.request=call-timer:100")).up(silent()).answer(OK).expire(500).in_order().each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT), of_b(outcome, EVENT_KIND)), (vec![200], 1, TIMER));
        assert_eq!((outcome.fates()[0], outcalls(outcome)), (Fate::Discarded(None), [1, 0, 1]));
    });
    // After the timer the plugin waits on, and its reply comes.
    let late = Upstream::script(vec![Step::AwaitHead, Step::AfterExpiry(1), bytes(YES)]);
    Case::new(&world, get("B.request=call-timer:100,B.event=suspend")).up(late).answer(OK).expire(500).in_order().each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT), of_b(outcome, EVENT_KIND)), (vec![200], 2, REPLY));
        assert_eq!((outcome.fates()[0], outcalls(outcome)), (Fate::GivenBack, [1, 0, 0]));
    });
}

/// S-115: a reply that comes when another link waits already reaches nobody.
#[test]
fn no_reply_reaches_another_wait() {
    let world = actors();
    let late = || Upstream::script(vec![Step::AwaitHead, Step::AfterExpiry(1), Step::Pause, bytes(YES)]);
    // C goes on by its timer; then B waits for its own.
    Case::new(&world, get("C.response=call-timer:100,B.response=timer:4000")).answer(OK).up(late()).expire(500).expire(8000).in_order().each(|outcome| {
        let events: Vec<u64> = outcome.metrics.iter().map(|of| of[EVENT]).collect();
        assert_eq!((outcome.statuses(), events, of_b(outcome, EVENT_KIND)), (vec![200], vec![0, 1, 1], TIMER));
        assert_eq!((outcome.links[2][6..].to_vec(), outcome.fates()[1]), (vec![1, 0, 1], Fate::Discarded(None)));
    });
    // The same for links whose pre hooks wait, and for the second wait of one link.
    Case::new(&world, get("A.request=call-timer:100,B.request=timer:4000,A.response=timer:8000"))
        .up(late())
        .answer(OK)
        .expire(500)
        .expire(8000)
        .expire(16_000)
        .in_order()
        .each(|outcome| {
            let events: Vec<u64> = outcome.metrics.iter().map(|of| of[EVENT]).collect();
            assert_eq!((outcome.statuses(), events, outcome.links[0][6..].to_vec()), (vec![200], vec![2, 1, 0], vec![1, 0, 1]));
        });
}

/// S-116: several at once, in the order in which they end; one after the other.
#[test]
fn one_hook_may_wait_for_several() {
    let world = actors();
    let user = |name: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-User: {name}\r\n\r\n");
    // All of them are sent before the first is answered.
    let ups = || [user("a"), user("b"), user("c"), user("d")].map(|answer| Upstream::script(vec![Step::AwaitHead, Step::AfterExpiry(1), bytes(answer)]));
    let mut case = Case::new(&world, get("B.request=calls:4,B.event=suspend,B.event2=suspend,B.event3=suspend"));
    for up in ups() {
        case = case.up(up);
    }
    case.answer(OK).expire(1).each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT), outcalls(outcome)), (vec![200], 4, [4, 0, 0]));
        let told = outcome.upstreams[4].request().values("x-reply").concat();
        assert!(["a", "b", "c", "d"].iter().all(|user| told.contains(&format!("200  1 {user}"))), "{told}");
    });
    // The first reply decides; the others are given up.
    let mut case = Case::new(&world, get("B.request=calls:4")).in_order();
    for up in ups() {
        case = case.up(up);
    }
    let outcome = case.answer(OK).expire(1).once();
    assert_eq!((outcome.statuses(), of_b(&outcome, EVENT), outcalls(&outcome)), (vec![200], 1, [4, 0, 3]));
    Case::new(&world, get("B.request=call:/1,B.event=call:/2,B.event2=call:/3")).up(Upstream::answers([YES, YES, YES])).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT), outcalls(outcome)), (vec![200], 3, [3, 0, 0]));
    });
    Case::new(&world, get("A.request=call:/,B.request=call:/,C.response=call:/")).up(Upstream::answers([YES, YES, YES])).up(Upstream::answers([OK])).each(
        |outcome| {
            assert_eq!((outcome.statuses(), outcome.metrics.iter().map(|of| of[EVENT]).collect::<Vec<_>>()), (vec![200], vec![1, 1, 1]));
        },
    );
}

/// S-112, S-116: bounds are told at once, and change nothing.
#[test]
fn bounds_are_told_to_the_plugin() {
    for (limits, act) in [
        ("", "B.request=calls:5"),
        ("outcalls_per_hook = 2\n", "B.request=calls:3"),
        ("outcalls = 3\n", "B.request=calls:4"),
        ("outcalls = 0\n", "B.request=calls:1"),
    ] {
        let world = actors_with("closed", &format!("[limits]\nslots = 64\n{limits}"));
        Case::new(&world, get(act)).each(|outcome| {
            assert_eq!((outcome.statuses(), outcome.reasons(), of_b(outcome, EVENT_FAILURE)), (vec![500], vec!["plugin_aborted"], NO_SPACE), "{limits}");
            assert_eq!(outcalls(outcome), [0, 0, 0], "{limits}");
        });
    }
    // A slot for each is there although all exchanges have theirs.
    let world = actors();
    Case::new(&world, get("B.request=call:/")).up(Upstream::answers([YES])).answer(OK).slots(3).each(|outcome| assert_eq!(outcome.statuses(), [200]));
}

/// S-112: nothing that could split or confuse messages leaves, and what was refused leaves no trace.
#[test]
fn bad_requests_are_refused_and_good_ones_leave_as_they_were_put_together() {
    let world = actors();
    Case::new(&world, get("B.request=call-bad")).up(Upstream::answers([YES])).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), of_b(outcome, EVENT_FAILURE)), (vec![200], 0), "the number is the line of actor.c");
        let sent = String::from_utf8(outcome.upstreams[0].raw.clone()).unwrap();
        assert_eq!(sent, "GET /fine HTTP/1.1\r\nhost: named:80\r\nx-last: yes\r\ncontent-length: 3\r\n\r\n2nd");
        assert_eq!(of_b(outcome, EVENT_TOKEN), 5);
    });
}
