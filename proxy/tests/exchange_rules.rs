//! The exchange over scripted connections, one test for each rule of `docs/http1.md` that is about more than a head: policies of the
//! configuration, what is added and removed on the way, unread bodies, pipelining, tunnels.

mod support;

use ringway::exchange::End;
use support::stream::bytes;
use support::{Case, Fate, Step, Upstream, World};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET /a?b HTTP/1.1\r\nHost: example\r\n\r\n";

/// One route to `app`, with these lines of `[http]` before it.
fn http(lines: &str) -> World {
    World::new(&format!("[http]\n{lines}\n[[route]]\npath = \"/\"\nupstream = \"app\"\n"))
}

/// The request is refused with this status and reason, and no upstream hears of it.
fn refused(world: &World, request: impl AsRef<[u8]>, status: u16, reason: &str) {
    let text = String::from_utf8_lossy(request.as_ref()).into_owned();
    Case::new(world, request).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons(), outcome.unused), (vec![status], vec![reason], 1), "{text:?}");
        assert_eq!(outcome.end == End::Linger, outcome.responses[0].value("connection") == Some("close"), "{text:?}");
    });
}

/// What the upstream got of `request`, in every split.
fn forwarded(world: &World, request: impl AsRef<[u8]>, check: impl Fn(&support::wire::Message)) {
    Case::new(world, request).answer(OK).each(|outcome| {
        assert_eq!(outcome.statuses(), [200]);
        check(&outcome.upstreams[0].request());
    });
}

// Targets and hosts.

#[test]
fn rule_09_methods_of_routes_and_unknown_ones() {
    let world = World::new(
        "[[route]]\npath = \"/few\"\nmethod = [\"GET\", \"HEAD\"]\nupstream = \"app\"\n[[route]]\npath = \"/few\"\nmethod = \"QUERY\"\nupstream = \"app\"\n[[route]]\npath = \"/any\"\nupstream = \"app\"\n",
    );
    forwarded(&world, "BREW /any HTTP/1.1\r\nHost: e\r\n\r\n", |request| assert_eq!(request.method, "BREW"));
    forwarded(&world, "QUERY /few HTTP/1.1\r\nHost: e\r\n\r\n", |request| assert_eq!(request.method, "QUERY"));
    for method in ["POST", "get", "GETS", "BREW"] {
        let request = format!("{method} /few HTTP/1.1\r\nHost: e\r\n\r\n{method} /few HTTP/1.1\r\nHost: e\r\n\r\n");
        Case::new(&world, request).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.unused), (End::Park, vec![405, 405], 1), "{method}");
            assert_eq!(outcome.responses[0].value("allow"), Some("GET, HEAD, QUERY"));
        });
    }
}

#[test]
fn rule_13_a_host_that_differs_can_be_refused() {
    let strict = http("host_differs = \"reject\"");
    let differs = "GET http://real.example/p HTTP/1.1\r\nHost: other\r\n\r\n";
    refused(&strict, differs, 400, "host_differs");
    forwarded(&strict, "GET http://real.example/p HTTP/1.1\r\nHost: REAL.example\r\n\r\n", |request| assert_eq!(request.values("host"), ["real.example"]));
    forwarded(&World::plain(), differs, |request| assert_eq!(request.values("host"), ["real.example"]));
    // Routes are chosen by the host of the target.
    let routed = World::new("[[route]]\nhost = \"real.example\"\nupstream = \"app\"\n");
    forwarded(&routed, differs, |request| assert_eq!(request.target, b"/p"));
    refused(&routed, "GET http://other/p HTTP/1.1\r\nHost: real.example\r\n\r\n", 404, "no_route");
}

#[test]
fn rule_13_exactly_one_host_leaves() {
    let rewritten = "[[plugin]]\nname = \"rewrite\"\npath = \"{plugins}/header-rewrite.so\"\n[plugin.config.request.set]\nhost = \"plugin.example\"\n";
    let replacing = "[[upstream]]\nname = \"named\"\nservers = [\"127.0.0.1:7\"]\nhost = \"literal.example\"\n";
    let route = |upstream: &str, plugins: &str| format!("[[route]]\npath = \"/\"\nupstream = \"{upstream}\"\nplugins = [{plugins}]\n");
    let worlds = [
        (World::plain(), None),
        (World::new(&(replacing.to_owned() + &route("named", ""))), Some("literal.example")),
        (World::new(&(rewritten.to_owned() + &route("app", "\"rewrite\""))), Some("plugin.example")),
        (World::new(&(rewritten.to_owned() + replacing + &route("named", "\"rewrite\""))), Some("plugin.example")),
    ];
    let requests = [
        ("GET /p HTTP/1.1\r\nHost: h\r\n\r\n", "h"),
        ("GET http://target/p HTTP/1.1\r\nHost: h\r\n\r\n", "target"),
        ("GET http://target/p HTTP/1.0\r\n\r\n", "target"),
        ("GET /p HTTP/1.0\r\n\r\n", "127.0.0.1:1"),
        ("GET /p HTTP/1.0\r\nHost: h\r\n\r\n", "h"),
    ];
    for (world, expected) in &worlds {
        for (request, own) in requests {
            // What the client asked for is told, whoever replaced it.
            let asked = Some(own).filter(|own| *own != "127.0.0.1:1");
            forwarded(world, request, |seen| {
                assert_eq!((seen.values("host"), seen.value("x-forwarded-host")), (vec![expected.unwrap_or(own)], asked), "{request}");
            });
        }
    }
}

/// Found by the fuzzer: the bound of header lines is one of received lines.
#[test]
fn rule_13_a_head_with_as_many_lines_as_there_may_be_still_gets_its_host() {
    let lines: String = (0..100).map(|number| format!("x-{number}: a\r\n")).collect();
    for target in ["http://target/p", "/p"] {
        forwarded(&World::plain(), format!("GET {target} HTTP/1.0\r\n{lines}\r\n"), |seen| {
            assert_eq!((seen.values("host").len(), seen.value("x-99")), (1, Some("a")));
        });
        refused(&World::plain(), format!("GET {target} HTTP/1.0\r\nx: b\r\n{lines}\r\n"), 431, "too_many_fields");
    }
}

#[test]
fn rule_14_connect_is_off_unless_its_target_is_listed() {
    let connect = |target: &str| format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    Case::new(&World::plain(), connect("e:443")).answer(OK).each(|outcome| {
        assert!(matches!(outcome.statuses()[..], [404 | 405]) && outcome.unused == 1, "{:?}", outcome.statuses());
    });
    let world = World::new("[[route]]\nupstream = \"app\"\nconnect_to = [\"in.example:443\", \"*.sub.example:80\"]\n");
    for target in ["in.example:80", "out.example:443", "sub.example:80", "xsub.example:80", "a.sub.example:443"] {
        refused(&world, connect(target), 405, "method_not_allowed");
    }
    refused(&world, "CONNECT in.example:443 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 400, "connect_with_body");
    refused(&world, "CONNECT in.example:443 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "connect_with_body");
    // Whoever refuses it: what the client sent for a tunnel is no request.
    let no = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    for (target, status) in [("in.example:443", 403), ("out.example:443", 405)] {
        Case::new(&world, connect(target) + GET).up(Upstream::answers([no, OK])).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.responses[0].value("connection")), (End::Linger, vec![status], Some("close")));
            assert!(!outcome.upstreams.iter().any(|up| up.raw.windows(3).any(|bytes| bytes == b"GET")), "{target}");
        });
    }
}

#[test]
fn rule_73_a_tunnel_of_connect_carries_every_byte() {
    let world = World::new("[[route]]\nupstream = \"app\"\nconnect_to = [\"in.example:443\", \"*.sub.example:80\"]\n");
    for (target, version) in [("in.example:443", "1.1"), ("IN.example:443", "1.1"), ("a.sub.example:80", "1.1"), ("in.example:443", "1.0")] {
        let host = if version == "1.1" { format!("Host: {target}\r\n") } else { String::new() };
        let request = format!("CONNECT {target} HTTP/{version}\r\n{host}\r\nearly");
        let down = vec![bytes(request), Step::Await(b"hello".to_vec(), 1), bytes("late"), Step::Eof];
        // RFC 9110 §9.3.6: framing of a 2xx to CONNECT means nothing.
        let answer = "HTTP/1.1 200 Connected\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nhello";
        let up = vec![Step::AwaitHead, bytes(answer), Step::Await(b"earlylate".to_vec(), 1), bytes("bye"), Step::Eof];
        Case::script(&world, down).methods(&["CONNECT"]).up(Upstream::script(up)).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses()), (End::Close, vec![200]), "{target}");
            let response = &outcome.responses[0];
            assert_eq!((response.value("content-length"), response.value("transfer-encoding"), response.body_text()), (None, None, "hellobye"));
            let (requests, rest) = outcome.upstreams[0].requests();
            assert_eq!((requests[0].method.as_str(), requests[0].target.as_slice(), requests[0].value("host")), ("CONNECT", target.as_bytes(), Some(target)));
            assert_eq!(rest, b"earlylate");
            assert!(outcome.finished && outcome.upstreams[0].finished);
            assert_eq!(outcome.fates(), [Fate::Discarded(None)]);
        });
    }
    // A plugin that turns the answer into a refusal keeps the tunnel shut.
    let guarded = World::new(
        "[[plugin]]\nname = \"act\"\npath = \"{actor}\"\n[plugin.config]\ntag = \"A\"\n[[route]]\nupstream = \"app\"\nplugins = [\"act\"]\nconnect_to = [\"e:443\"]\n",
    );
    let request = "CONNECT e:443 HTTP/1.1\r\nHost: e:443\r\nx-act: A.response=status:403\r\n\r\n";
    Case::new(&guarded, request).methods(&["CONNECT"]).answer("HTTP/1.1 200 OK\r\n\r\nhello").each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.responses[0].value("content-length"), outcome.fates()), (vec![403], Some("0"), vec![Fate::Discarded(None)]));
    });
}

#[test]
fn rule_16_the_policy_of_paths_is_configured_and_the_path_leaves_as_it_came() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: e\r\n\r\n");
    let routes = "[[route]]\npath = \"/open\"\nupstream = \"app\"\n";
    let world = World::new(routes);
    for path in ["/open/%61?%2e", "/x/../open/y", "/open//z", "/open/%2Fz", "/x/%2e%2e/open"] {
        forwarded(&world, get(path), |request| assert_eq!(request.target, path.as_bytes()));
    }
    for (path, reason) in [
        ("/../open", "path_above_root"),
        ("/open/%00", "nul_in_path"),
        ("/open/..%2fx", "dot_segment_in_path"),
        ("/open/%c0%ae", "overlong_utf8_in_path"),
        ("/open/%", "bad_escape_in_path"),
    ] {
        refused(&world, get(path), 400, reason);
    }
    refused(&world, get("/open/../secret"), 404, "no_route");
    let keys = ["dot_segments", "empty_segments", "encoded_slash", "backslash", "nul", "overlong_utf8", "bad_escape"];
    let strict = World::new(&format!("[http.path]\n{}\n{routes}", keys.map(|key| format!("{key} = \"reject\"")).join("\n")));
    for (path, reason) in
        [("/open/./x", "dot_segment_in_path"), ("/open//x", "empty_segment_in_path"), ("/open/%2f", "slash_in_segment"), ("/open/\\x", "backslash_in_path")]
    {
        refused(&strict, get(path), 400, reason);
    }
    let lax = World::new(&format!("[http.path]\n{}\n{routes}", keys.map(|key| format!("{key} = \"keep\"")).join("\n")));
    for path in ["/open/../x", "/open//x", "/open/%2f", "/open/%00", "/open/%c0%ae", "/open/%zz"] {
        forwarded(&lax, get(path), |request| assert_eq!(request.target, path.as_bytes()));
    }
}

#[test]
fn rule_19_http10_without_host_by_policy() {
    let old = "GET /p HTTP/1.0\r\n\r\n";
    let routes = "[[route]]\nhost = \"www.example\"\nupstream = \"other\"\n[[route]]\nupstream = \"app\"\n";
    // "allow": only routes without a host match, and the upstream gets the name of its server.
    forwarded(&World::new(routes), old, |request| assert_eq!(request.values("host"), ["127.0.0.1:1"]));
    refused(&World::new("[http]\nmissing_host = \"reject\"\n[[route]]\nupstream = \"app\"\n"), old, 400, "missing_host");
    let named = World::new(&format!("[http]\nmissing_host = \"www.example:81\"\n{routes}"));
    Case::new(&named, old).answer(OK).each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.choices[0].upstream), (vec![200], 1), "the route of that host");
        assert_eq!(outcome.upstreams[0].request().values("host"), ["www.example:81"]);
    });
    // Those that say a host are taken at their word, and HTTP/1.1 needs one in any case.
    forwarded(&named, "GET / HTTP/1.0\r\nHost: own\r\n\r\n", |request| assert_eq!(request.values("host"), ["own"]));
    refused(&named, "GET / HTTP/1.1\r\n\r\n", 400, "missing_host");
}

#[test]
fn rule_28_underscores_by_policy() {
    let request = "GET / HTTP/1.1\r\nHost: e\r\nX_A: 1\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Forwarded_For: 6.6.6.6\r\nX-B: 2\r\n\r\n";
    let imitations = ["content_length", "transfer_encoding", "x_forwarded_for"];
    for (policy, kept) in [("keep", Some("1")), ("drop", None)] {
        forwarded(&http(&format!("underscores = \"{policy}\"")), request, |seen| {
            assert_eq!((seen.value("x_a"), seen.value("x-b")), (kept, Some("2")), "{policy}");
            assert!(imitations.iter().all(|name| seen.value(name).is_none()), "{policy}");
        });
    }
    let reject = http("underscores = \"reject\"");
    refused(&reject, request, 400, "underscore_in_field_name");
    Case::new(&reject, GET).answer("HTTP/1.1 200 OK\r\nX_A: 1\r\nContent-Length: 0\r\n\r\n").each(|outcome| {
        assert_eq!((outcome.statuses(), outcome.reasons()), (vec![502], vec!["upstream_underscore_in_field_name"]));
    });
}

// Bodies.

#[test]
fn rule_39_every_method_may_have_a_body_and_none_is_left_unread() {
    let world = World::plain();
    for method in ["GET", "DELETE", "OPTIONS", "PUT", "BREW"] {
        for body in ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"] {
            let requests = format!("{method} /1 HTTP/1.1\r\nHost: e\r\n{body}{GET}");
            Case::new(&world, requests).up(Upstream::answers([OK, OK])).each(|outcome| {
                assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]), "{method}");
                let (received, rest) = outcome.upstreams[0].requests();
                assert_eq!((received.len(), received[0].body_text(), rest.len()), (2, "abc", 0), "{method}");
            });
        }
    }
    let head = format!("HEAD /1 HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\nabc{GET}");
    let up = Upstream::answers(["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", OK]);
    Case::new(&world, head).methods(&["HEAD", "GET"]).up(up).each(|outcome| {
        assert_eq!(outcome.upstreams[0].requests().0[0].body_text(), "abc");
        assert_eq!(outcome.responses[1].body_text(), "hello");
    });
}

/// What a request brings as its body is never taken for the next request, however early its answer came.
#[test]
fn rule_41_an_unread_body_is_read_within_bounds_or_ends_the_connection() {
    let world = World::new("[[route]]\nexact = \"/here\"\nupstream = \"app\"\n");
    let here = "GET /here HTTP/1.1\r\nHost: e\r\n\r\n";
    let evil = "GET /here HTTP/1.1\r\nHost: evil\r\n\r\n";
    let post = |framing: &str| format!("POST /nowhere HTTP/1.1\r\nHost: e\r\n{framing}\r\n\r\n");
    // Short and announced: it is read, and the connection goes on.
    let short = post(&format!("Content-Length: {}", evil.len())) + evil + here;
    Case::new(&world, &short).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![404, 200]));
        assert_eq!((outcome.responses[0].value("connection"), outcome.upstreams[0].request().value("host")), (None, Some("e")));
    });
    // The same when it comes after the answer.
    let (head, rest) = short.split_at(short.len() - here.len() - evil.len());
    let late = vec![bytes(head), Step::Await(b"HTTP/1.1 404".to_vec(), 1), Step::Pause, bytes(rest)];
    Case::script(&world, late).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![404, 200]));
        assert_eq!(outcome.upstreams[0].request().value("host"), Some("e"));
    });
    // Longer than is worth reading, of unknown length, or perhaps never sent: the connection ends.
    for framing in ["Content-Length: 262145", "Transfer-Encoding: chunked", "Expect: 100-continue\r\nContent-Length: 36"] {
        Case::new(&world, post(framing) + evil + here).in_order().answer(OK).each(|outcome| {
            // A body that is here although nobody said go on is simply read.
            if framing.starts_with("Expect") && outcome.end == End::Park {
                assert_eq!((outcome.statuses(), outcome.upstreams[0].request().value("host")), (vec![404, 200], Some("e")));
                return;
            }
            assert_eq!((outcome.end, outcome.statuses(), outcome.unused), (End::Linger, vec![404], 1), "{framing}");
            assert_eq!(outcome.responses[0].value("connection"), Some("close"));
        });
    }
    // Nobody waits for it where nobody lingers.
    let hasty = World::new("[timeouts]\nlinger = \"off\"\n[[route]]\nexact = \"/here\"\nupstream = \"app\"\n");
    Case::script(&hasty, vec![bytes(head), Step::Await(b"HTTP/1.1 404".to_vec(), 1), Step::Pause, bytes(rest)]).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.responses[0].value("connection")), (End::Linger, vec![404], Some("close")));
    });
    Case::new(&hasty, &short).answer(OK).in_order().each(|outcome| {
        let expected = if outcome.statuses().len() == 1 { (End::Linger, Some("close")) } else { (End::Park, None) };
        assert_eq!((outcome.end, outcome.responses[0].value("connection")), expected);
    });
    // A body that is announced and does not come ends it too, after a bounded time.
    Case::script(&world, vec![bytes(post("Content-Length: 3")), Step::Await(b"never".to_vec(), 1)]).expire(2_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Linger, vec![404]));
    });
}

/// A client that pipelines without end is read no further than its buffers reach while an exchange runs.
#[test]
fn rule_43_pipelined_bytes_are_bounded() {
    let world = World::new(
        "[limits]\nslots = 64\nhead_bytes = \"16KiB\"\nrelay_buffer_bytes = \"64KiB\"\n[timeouts]\nfirst_byte = \"5s\"\n[[route]]\npath = \"/\"\nupstream = \"app\"\n",
    );
    let flood = GET.repeat(1 << 20 >> 5);
    let silent = || Upstream::script(vec![Step::AwaitHead]);
    for (first, bound) in [("", 16 << 10), ("POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", (16 + 64) << 10)] {
        let outcome = Case::new(&world, format!("{first}{flood}")).up(silent()).expire(5_001).once();
        assert_eq!((outcome.end, outcome.statuses()), (End::Linger, vec![504]));
        let read = first.len() + flood.len() - outcome.unread;
        println!("{read} bytes of a pipeline without end were read");
        assert!(read > 0 && read <= bound, "{read} bytes of at most {bound}");
    }
    // In order, one at a time.
    let outcome = Case::new(&world, GET.repeat(500)).up(Upstream::answers(vec![OK; 500])).once();
    assert_eq!((outcome.end, outcome.responses.len(), outcome.upstreams[0].leases), (End::Park, 500, 500));
}

#[test]
fn rule_51_a_body_without_its_last_chunk_is_incomplete_on_both_sides() {
    let world = World::plain();
    let request = "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for end in ["", "0", "0\r\n", "0\r\n\r", "0\r\nX: y\r\n"] {
        Case::script(&world, vec![bytes(format!("{request}{end}")), Step::Eof]).up(Upstream::script(Vec::new())).each(|outcome| {
            assert_eq!((outcome.end, outcome.reasons(), outcome.fates()), (End::Abort, vec!["body_incomplete"], vec![Fate::Discarded(None)]), "{end:?}");
            assert!(outcome.upstreams[0].requests().0.iter().all(|request| !request.complete), "{end:?}");
        });
        let up = Upstream::script(vec![Step::AwaitHead, bytes(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{end}")), Step::Eof]);
        Case::new(&world, GET).up(up).each(|outcome| {
            assert_eq!((outcome.end, outcome.reasons()), (End::Cut, vec!["upstream_truncated"]), "{end:?}");
            assert!(!outcome.responses[0].complete, "{end:?}");
        });
    }
}

#[test]
fn rule_69_a_body_until_close_needs_an_orderly_end() {
    let world = World::plain();
    let answer = bytes("HTTP/1.1 200 OK\r\n\r\nhello");
    for (end, complete) in
        [(Step::Eof, true), (Step::Error(std::io::ErrorKind::ConnectionReset), false), (Step::Error(std::io::ErrorKind::UnexpectedEof), false)]
    {
        Case::new(&world, GET).up(Upstream::script(vec![Step::AwaitHead, answer.clone(), end])).each(|outcome| {
            assert_eq!((outcome.responses[0].complete, outcome.end == End::Cut), (complete, !complete));
            assert!(matches!(outcome.fates()[..], [Fate::Discarded(_)]), "it is not used again");
        });
    }
}

// What is added, removed and left alone.

#[test]
fn rule_48_and_50_trailers_and_their_announcement_end_here() {
    let world = World::plain();
    let request = "POST / HTTP/1.1\r\nHost: e\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\nX-T: 1\r\nContent-Length: 7\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\nX-T: 1\r\n\r\n";
    Case::new(&world, format!("{request}{GET}")).up(Upstream::answers([answer, OK])).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Park, vec![200, 200]));
        let (received, rest) = outcome.upstreams[0].requests();
        assert_eq!((received[0].body_text(), received[0].value("trailer"), received.len(), rest.len()), ("abc", None, 2, 0));
        assert_eq!((outcome.responses[0].body_text(), outcome.responses[0].value("trailer")), ("a", None));
        assert!(!outcome.raw.windows(3).any(|w| w == b"X-T") && !outcome.upstreams[0].raw.windows(3).any(|w| w == b"X-T"));
    });
}

#[test]
fn rule_55_te_ends_here() {
    for te in ["trailers", "gzip, trailers", "deflate;q=0.5"] {
        forwarded(&World::plain(), format!("GET / HTTP/1.1\r\nHost: e\r\nConnection: TE\r\nTE: {te}\r\nX: y\r\n\r\n"), |request| {
            assert_eq!((request.value("te"), request.value("connection"), request.value("x")), (None, None, Some("y")));
        });
    }
}

#[test]
fn rule_56_via() {
    let route = "[[route]]\npath = \"/\"\nupstream = \"app\"\n";
    forwarded(&World::plain(), GET, |request| assert_eq!(request.values("via"), ["1.1 ringway"]));
    forwarded(&World::plain(), "GET / HTTP/1.0\r\nHost: e\r\nVia: 1.1 first\r\n\r\n", |request| {
        assert_eq!(request.values("via"), ["1.1 first", "1.1 ringway"], "behind those of earlier hops");
    });
    forwarded(&World::new(&format!("[server]\nname = \"edge-7\"\n{route}")), GET, |request| assert_eq!(request.values("via"), ["1.1 edge-7"]));
    forwarded(&World::new(&format!("[server]\nvia = false\n{route}")), GET, |request| assert_eq!(request.values("via"), [""; 0]));
}

#[test]
fn rule_57_a_request_that_keeps_coming_back_is_a_loop() {
    let world = World::plain();
    let via = |values: &str| format!("GET / HTTP/1.1\r\nHost: e\r\nVia: {values}\r\n\r\n");
    let five = "1.1 ringway, 1.0 x, 1.1 ringway (us)\r\nVia: 1.1 ringway,1.1 ringway , 1.1 ringway";
    refused(&world, via(five), 508, "loop_detected");
    for fine in ["1.1 ringway, 1.1 ringway, 1.1 ringway, 1.1 ringway", &["1.1 ringwayx"; 9].join(", "), &["1.1 other"; 9].join(",")] {
        forwarded(&world, via(fine), |request| assert_eq!(request.values("via").last(), Some(&"1.1 ringway")));
    }
}

#[test]
fn rule_58_max_forwards_counts_hops_of_options() {
    let world = World::plain();
    let request = |method: &str, left: &str| format!("{method} /a HTTP/1.1\r\nHost: e\r\nMax-Forwards: {left}\r\n\r\n");
    Case::new(&world, request("OPTIONS", "0")).answer(OK).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses(), outcome.unused), (End::Park, vec![200], 1));
        assert!(outcome.responses[0].value("allow").is_some_and(|allow| allow.contains("GET") && !allow.contains("TRACE")));
    });
    for (left, next) in [("1", "0"), ("10", "9"), ("007", "6")] {
        forwarded(&world, request("OPTIONS", left), |seen| assert_eq!(seen.values("max-forwards"), [next]));
    }
    forwarded(&world, request("GET", "0"), |seen| assert_eq!(seen.values("max-forwards"), ["0"], "other methods are left alone"));
    forwarded(&world, request("OPTIONS", "x"), |seen| assert_eq!(seen.values("max-forwards"), ["x"]));
}

#[test]
fn rule_59_trace_is_off() {
    let world = World::new("[[route]]\npath = \"/\"\nupstream = \"app\"\nmethod = [\"GET\", \"TRACE\"]\n");
    for lines in ["", "Max-Forwards: 0\r\n", "Cookie: secret\r\n"] {
        Case::new(&world, format!("TRACE / HTTP/1.1\r\nHost: e\r\n{lines}\r\n{GET}")).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Park, vec![405, 200], vec!["method_not_allowed"]));
            assert_eq!(outcome.responses[0].value("allow"), Some("GET"));
            assert!(!outcome.responses[0].body_text().contains("secret"));
        });
    }
}

#[test]
fn rule_60_forwarding_fields_are_ours() {
    let route = "[[route]]\npath = \"/\"\nupstream = \"app\"\n";
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: e:81\r\n{claims}\r\n");
    let v6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let case = |world: &World, trusted: bool, peer: Option<[u8; 16]>, check: &dyn Fn(&support::wire::Message)| {
        let case = Case::new(world, &request).answer(OK);
        let case = if trusted { case.trusted() } else { case };
        let case = if let Some(address) = peer { case.from(address) } else { case };
        case.each(|outcome| check(&outcome.upstreams[0].request()));
    };
    let plain = World::plain();
    case(&plain, false, None, &|seen| {
        assert_eq!(
            (seen.values("x-forwarded-for"), seen.values("x-forwarded-proto"), seen.values("x-forwarded-host")),
            (vec!["192.0.2.7"], vec!["http"], vec!["e:81"])
        );
        assert_eq!((seen.values("forwarded"), seen.values("x-real-ip")), (vec![], vec![]));
    });
    case(&plain, true, None, &|seen| {
        assert_eq!(
            (seen.values("x-forwarded-for"), seen.values("x-forwarded-proto"), seen.values("x-forwarded-host")),
            (vec!["6.6.6.6", "192.0.2.7"], vec!["https"], vec!["evil"])
        );
        assert_eq!((seen.values("forwarded"), seen.values("x-real-ip")), (vec!["for=6.6.6.6"], vec!["6.6.6.6"]));
    });
    let rfc7239 = World::new(&format!("[server]\nforwarded = \"forwarded\"\n{route}"));
    case(&rfc7239, false, None, &|seen| {
        assert_eq!((seen.values("forwarded"), seen.values("x-forwarded-for")), (vec!["for=192.0.2.7;host=\"e:81\";proto=http"], vec![]));
    });
    // RFC 7239 §6: an IPv6 address is bracketed and quoted.
    case(&rfc7239, true, Some(v6), &|seen| {
        assert_eq!(seen.values("forwarded"), ["for=6.6.6.6", "for=\"[2001:db8::1]\";host=\"e:81\";proto=http"]);
    });
    case(&plain, false, Some(v6), &|seen| assert_eq!(seen.values("x-forwarded-for"), ["2001:db8::1"]));
    let off = World::new(&format!("[server]\nforwarded = \"off\"\n{route}"));
    case(&off, false, None, &|seen| {
        assert!(seen.fields.iter().all(|(name, _)| !name.starts_with("x-forwarded") && name != "forwarded" && name != "x-real-ip"))
    });
    case(&off, true, None, &|seen| assert_eq!(seen.values("x-forwarded-for"), ["6.6.6.6"]));
}

#[test]
fn rule_61_a_response_without_a_date_gets_one() {
    let world = World::plain();
    let dated = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n";
    Case::new(&world, GET.repeat(3)).up(Upstream::answers([format!("{hints}{OK}"), dated.into(), "HTTP/1.1 304 Not Modified\r\n\r\n".into()])).each(
        |outcome| {
            assert_eq!(outcome.statuses(), [103, 200, 200, 304]);
            assert_eq!(outcome.responses[0].value("date"), None, "1xx need none");
            for response in [&outcome.responses[1], &outcome.responses[3]] {
                assert!(httpdate::parse_http_date(response.value("date").expect("a date")).is_ok());
            }
            assert_eq!(outcome.responses[2].values("date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
        },
    );
    // So do those that the gateway makes.
    Case::new(&world, GET).each(|outcome| assert!(outcome.responses[0].value("date").is_some()));
}

#[test]
fn rule_62_nothing_is_transformed() {
    let lines = ["Authorization: Basic eDp5", "Cache-Control: no-transform", "Accept-Encoding: gzip, br;q=0.5", "Range: bytes=0-1", "If-None-Match: \"x\""];
    forwarded(&World::plain(), format!("GET / HTTP/1.1\r\nHost: e\r\n{}\r\n\r\n", lines.join("\r\n")), |seen| {
        let head = String::from_utf8_lossy(&seen.head);
        assert!(lines.iter().all(|line| head.contains(&format!("\r\n{line}\r\n"))), "{head}");
    });
    let lines = [
        "WWW-Authenticate: Basic realm=\"a, b\", Digest x=y",
        "Allow: GET,  HEAD",
        "Content-Encoding: gzip",
        "ETag: \"x\"",
        "Warning: 214 - \"x\"",
        "Cache-Control: no-transform",
    ];
    let answer = format!("HTTP/1.1 401 Unauthorized\r\n{}\r\nContent-Length: 5\r\n\r\n\x1f\x00\x08ab", lines.join("\r\n"));
    Case::new(&World::plain(), GET).answer(answer).each(|outcome| {
        let head = String::from_utf8_lossy(&outcome.responses[0].head).into_owned();
        assert!(lines.iter().all(|line| head.contains(&format!("\r\n{line}\r\n"))), "{head}");
        assert_eq!(outcome.responses[0].body, b"\x1f\x00\x08ab");
    });
}

#[test]
fn rule_81_no_response_is_split() {
    let world = World::plain();
    for value in ["a\r\n\r\nHTTP/1.1 200 OK\r\n", "a\rX: y", "a\nX: y", "a\0b"] {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: {value}\r\nContent-Length: 0\r\n\r\n");
        Case::new(&world, GET.repeat(2)).up(Upstream::answers_and_closes(answer)).answer(OK).each(|outcome| {
            // To the gateway the first of them is a response with a body, and it is one to the client, too.
            let first = if value.contains("\r\n\r\n") { 302 } else { 502 };
            assert_eq!(outcome.statuses(), [first, 200], "{value:?}");
            assert!(!outcome.raw.windows(4).any(|w| w == b"X: y"), "{value:?}");
        });
    }
    // Nor by a plugin: the call fails, and the plugin of the test answers with what it got.
    let hostile = World::new(
        "[[plugin]]\nname = \"crlf\"\npath = \"{plugins}/hostile-header-crlf.so\"\n[[route]]\npath = \"/\"\nupstream = \"app\"\nplugins = [\"crlf\"]\n",
    );
    Case::new(&hostile, GET).answer(OK).each(|outcome| {
        assert_eq!((outcome.responses.len(), outcome.responses[0].body_text()), (1, "-3"), "{:?}", outcome.responses);
    });
}

// Upgrades.

const CHAT: &str = "[limits]\nslots = 64\n[timeouts]\ntunnel_idle = \"7s\"\nexchange = \"off\"\n[[route]]\npath = \"/\"\nupstream = \"app\"\nallow_upgrade = [\"chat\", \"websocket\"]\n";
const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";

#[test]
fn rule_83_only_configured_protocols_are_asked_for() {
    let world = World::new(CHAT);
    let with = |lines: &str| format!("GET / HTTP/1.1\r\nHost: e\r\n{lines}\r\n");
    forwarded(&world, with("Connection: Upgrade\r\nUpgrade: CHAT\r\n"), |seen| {
        assert_eq!((seen.value("connection"), seen.value("upgrade")), (Some("upgrade"), Some("CHAT")));
    });
    let plain = [
        with("Connection: Upgrade\r\nUpgrade: other\r\n"),
        with("Upgrade: chat\r\n"),
        with("Connection: close\r\nUpgrade: chat\r\n"),
        with("Connection: Upgrade\r\nUpgrade: chat, websocket\r\n"),
        with("Connection: Upgrade\r\nUpgrade: chat\r\nContent-Length: 1\r\n") + "x",
        "GET / HTTP/1.0\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n".to_owned(),
    ];
    for request in &plain {
        forwarded(&world, request, |seen| assert_eq!((seen.value("connection"), seen.value("upgrade")), (None, None), "{request}"));
        // A 101 to what was not asked for is no response.
        Case::new(&world, request).answer(SWITCH).each(|outcome| {
            assert_eq!((outcome.statuses(), outcome.reasons()), (vec![502], vec!["upstream_unexpected_upgrade"]), "{request}");
        });
    }
    forwarded(&World::plain(), UPGRADE, |seen| assert_eq!(seen.value("upgrade"), None, "off by default"));
    // Nor is a 101 to something else, or to nothing.
    for line in ["", "Upgrade: other\r\n", "Upgrade: chat, other\r\n"] {
        Case::new(&world, UPGRADE).answer(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{line}\r\n")).each(|outcome| {
            assert_eq!((outcome.statuses(), outcome.reasons()), (vec![502], vec!["upstream_unexpected_upgrade"]), "{line}");
        });
    }
}

#[test]
fn rule_85_websocket_handshakes_pass_when_they_are_well_formed() {
    let world = World::new(CHAT);
    let shake = |method: &str, lines: &str| format!("{method} /ws HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{lines}\r\n");
    let (key, version) = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n");
    let asks = |request: String, expected: bool| {
        forwarded(&world, &request, |seen| assert_eq!(seen.value("upgrade").is_some(), expected, "{request}"));
    };
    asks(shake("GET", &format!("{key}{version}")), true);
    asks(shake("GET", &format!("{key}Sec-WebSocket-Version: 99\r\n")), true);
    asks(shake("POST", &format!("{key}{version}")), false);
    asks(shake("GET", version), false);
    asks(shake("GET", key), false);
    asks(shake("GET", &format!("{key}{key}{version}")), false);
    // RFC 6455 §4.4: a version that the server does not speak.
    let mismatch = "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n";
    Case::new(&world, shake("GET", &format!("{key}Sec-WebSocket-Version: 99\r\n")) + GET)
        .up(Upstream::script(vec![Step::AwaitHead, bytes(mismatch), Step::AwaitHead, bytes(OK)]))
        .each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.responses[0].value("sec-websocket-version")), (End::Park, vec![426, 200], Some("13")));
        });
}

#[test]
fn rule_86_h2c_never_passes() {
    let world = World::new(CHAT);
    let request = "GET / HTTP/1.1\r\nHost: e\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n";
    forwarded(&world, request, |seen| {
        assert_eq!((seen.value("upgrade"), seen.value("http2-settings"), seen.value("connection")), (None, None, None));
    });
}

#[test]
fn rule_87_a_tunnel_passes_half_close_and_ends_when_it_is_idle() {
    let world = World::new(CHAT);
    // One side says that nothing more comes; the other still talks.
    let down = vec![bytes(UPGRADE), Step::Await(b"101".to_vec(), 1), bytes("bye"), Step::Eof];
    let up = vec![Step::AwaitHead, bytes(SWITCH), Step::Await(b"bye".to_vec(), 1), Step::Pause, bytes("still"), Step::Pause, bytes("here"), Step::Eof];
    Case::script(&world, down).up(Upstream::script(up)).each(|outcome| {
        assert_eq!((outcome.end, outcome.responses[0].body_text()), (End::Close, "stillhere"));
        assert!(outcome.finished && outcome.upstreams[0].finished);
    });
    let down = vec![bytes(UPGRADE), Step::Await(b"over".to_vec(), 1), Step::Pause, bytes("still"), Step::Pause, bytes("here"), Step::Eof];
    let up = vec![Step::AwaitHead, bytes(format!("{SWITCH}over")), Step::Eof];
    Case::script(&world, down).up(Upstream::script(up)).each(|outcome| {
        assert_eq!((outcome.end, outcome.upstreams[0].requests().1), (End::Close, b"stillhere".to_vec()));
    });
    // An upstream that takes no more has still said what it had to say.
    let talks = || vec![bytes(UPGRADE), Step::Await(b"101".to_vec(), 1), bytes("x".repeat(1000)), Step::Await(b"never".to_vec(), 1)];
    for last in [Step::Eof, Step::Error(std::io::ErrorKind::ConnectionReset), Step::Await(b"never".to_vec(), 1)] {
        let up = vec![Step::AwaitHead, bytes(SWITCH), Step::Await(b"xxx".to_vec(), 1), Step::Pause, bytes("all of "), Step::Pause, bytes("it"), last];
        let closed = Upstream { write_fails_at: 500, ..Upstream::script(up) };
        let outcome = Case::script(&world, talks()).up(closed).expire(7_001).once();
        assert_eq!((outcome.end, outcome.responses[0].body_text()), (End::Close, "all of it"));
    }
    // Nothing in either direction for longer than its own bound.
    let silent = || Upstream::script(vec![Step::AwaitHead, bytes(format!("{SWITCH}hello")), Step::Await(b"never".to_vec(), 1)]);
    let idle = Case::script(&world, vec![bytes(UPGRADE), Step::Await(b"never".to_vec(), 1)]);
    idle.clone().up(silent()).expire(7_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.responses[0].body_text(), outcome.fates()), (End::Close, "hello", vec![Fate::Discarded(None)]));
    });
    // Nor does it help that one side has ended, or that the upstream takes nothing.
    let closed = Case::script(&world, vec![bytes(UPGRADE), Step::Await(b"hello".to_vec(), 1), Step::Eof]);
    closed.up(silent()).expire(7_001).each(|outcome| {
        assert_eq!((outcome.end, outcome.fates()), (End::Close, vec![Fate::Discarded(None)]));
    });
    let flood = Case::script(&world, vec![bytes(UPGRADE), Step::Await(b"hello".to_vec(), 1), bytes("x".repeat(1000)), Step::Await(b"never".to_vec(), 1)]);
    let full = Upstream { write_stalls_at: 600, ..silent() };
    let outcome = flood.up(full).expire(7_001).once();
    assert_eq!((outcome.end, outcome.fates()), (End::Close, vec![Fate::Discarded(None)]));
}

// Timing.

const TIMES: &str = "[limits]\nslots = 64\n[timeouts]\nhead = \"10s\"\nbody_idle = \"20s\"\nkeep_alive_idle = \"40s\"\nwrite_stall = \"30s\"\n[[route]]\npath = \"/\"\nupstream = \"app\"\n";

#[test]
fn rule_94_a_head_that_takes_too_long_is_408() {
    let world = World::new(TIMES);
    for head in ["G", "GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nHost: e\r\n\r"] {
        Case::new(&world, head).expire(10_001).each(|outcome| {
            // A single byte that has not come is no request yet: the connection is closed without a word.
            assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![408], vec!["head_timeout"]), "{head:?}");
        });
    }
    // Its end comes with the deadline, or without a slot behind it: the connection can be read no more.
    let late = Case::script(&world, vec![bytes("GET / HTTP/1.1\r\nHost: e"), Step::AfterExpiry(1), bytes("\r\n\r\n")]).answer(OK).expire(10_001);
    late.each(|outcome| assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![408], vec!["head_timeout"])));
    // A line end behind a body is no request.
    let stray = Case::script(&world, vec![bytes(format!("{GET}\r\n")), Step::Await(b"never".to_vec(), 1)]).answer(OK).expire(40_001);
    stray.each(|outcome| assert_eq!((outcome.end, outcome.statuses()), (End::Close, vec![200])));
    let later = Case::script(&world, vec![bytes(format!("{GET}GET / HT")), Step::Await(b"never".to_vec(), 1)]).answer(OK).expire(10_001);
    later.each(|outcome| assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![200, 408], vec!["head_timeout"])));
}

#[test]
fn rule_95_a_body_that_stops_is_408() {
    let world = World::new(TIMES);
    for body in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"] {
        let request = format!("POST / HTTP/1.1\r\nHost: e\r\n{body}");
        Case::new(&world, request).up(Upstream::script(Vec::new())).expire(20_001).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Linger, vec![408], vec!["body_timeout"]));
            assert!(!outcome.upstreams[0].requests().0.iter().any(|request| request.complete));
        });
    }
}

#[test]
fn rule_96_an_idle_client_is_closed_without_a_word() {
    let world = World::new(TIMES);
    let idle = Case::script(&world, vec![bytes(GET), Step::Await(b"never".to_vec(), 1)]).answer(OK).expire(40_001);
    idle.each(|outcome| assert_eq!((outcome.end, outcome.statuses(), outcome.reasons()), (End::Close, vec![200], vec![])));
}

#[test]
fn rule_97_a_client_that_takes_nothing_is_cut_off() {
    let world = World::new(TIMES);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000));
    for stalls in [0, 500] {
        let outcome = Case::new(&world, GET).answer(&answer).client_stalls_at(stalls).expire(30_001).once();
        assert_eq!((outcome.end, outcome.fates(), outcome.reasons()), (End::Abort, vec![Fate::Discarded(None)], vec!["write_stalled"]), "{stalls}");
    }
}

#[test]
fn rule_98_the_last_request_of_a_connection_announces_the_close() {
    let world = World::new("[limits]\nslots = 64\nrequests_per_connection = 2\n[[route]]\npath = \"/\"\nupstream = \"app\"\n");
    Case::new(&world, GET.repeat(3)).up(Upstream::answers([OK, OK, OK])).each(|outcome| {
        assert_eq!((outcome.end, outcome.statuses()), (End::Linger, vec![200, 200]));
        assert_eq!(outcome.responses[0].value("connection"), None);
        assert_eq!(outcome.responses[1].value("connection"), Some("close"));
    });
}

#[test]
fn rule_100_a_proxy_header_is_no_request() {
    let world = World::plain();
    for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"] {
        Case::new(&world, [header, GET.as_bytes()].concat()).answer(OK).each(|outcome| {
            assert_eq!((outcome.end, outcome.statuses(), outcome.unused), (End::Linger, vec![400], 1));
        });
    }
}
