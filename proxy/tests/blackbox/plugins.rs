//! Plugins in the running gateway: order, chains of several languages, and those that misbehave.

use crate::gateway::*;

/// A gateway with these plugins, in this order, in front of the origin. Each is `(name, lines of the plugin, link)`.
fn chain(origin: &Origin, plugins: &[(&str, &str)]) -> Gateway {
    let mut made = config();
    for (name, lines) in plugins {
        made = made.plugin(name, lines);
    }
    let links: Vec<&str> = plugins.iter().map(|(name, _)| *name).collect();
    Gateway::start(&made.upstream("app", &[origin.address()], "").with(&format!("[[route]]\nupstream = \"app\"\nplugins = {links:?}")))
}

#[test]
fn pre_hooks_run_in_order_and_post_hooks_in_reverse() {
    let origin = Origin::start();
    let path = plugin("order-probe").display().to_string();
    let mut text = String::new();
    for tag in ["A", "B", "C"] {
        let respond = if tag == "B" { "respond_on = \"/short\"" } else { "" };
        text += &format!("[[plugin]]\nname = \"{tag}\"\npath = {path:?}\n[plugin.config]\ntag = \"{tag}\"\n{respond}\n");
    }
    text += "[[route]]\nheader = { x-always = true }\nupstream = \"app\"\nplugins = [\"A\", \"B\", { name = \"C\", post_always = true }]\n";
    text += "[[route]]\nupstream = \"app\"\nplugins = [\"A\", \"B\", \"C\"]\n";
    let gateway = Gateway::start(&config().upstream("app", &[origin.address()], "").with(&text));
    let mut client = Client::connect(gateway.address());
    let whole = client.get("/");
    assert_eq!(origin.last().header("x-order"), Some("A,B,C"), "{:?}", origin.last());
    assert_eq!(whole.header("x-order-post"), Some("C,B,A"), "{whole:?}");
    let short = client.get("/short");
    assert_eq!(short.header("x-order-post"), Some("A"), "{short:?}");
    client.send("GET /short HTTP/1.1\r\nhost: test\r\nx-always: 1\r\n\r\n");
    let always = client.response();
    assert_eq!(always.header("x-order-post"), Some("C,A"), "{always:?}");
    assert_eq!(origin.count(), 1, "the short circuit never reached the upstream");
    gateway.stop();
}

#[test]
fn one_chain_of_three_languages_edits_limits_and_answers() {
    let origin = Origin::start();
    let gateway = chain(
        &origin,
        &[
            ("request-id", ""),
            ("header-rewrite", "[plugin.config]\nrequest = { set = { x-edited = \"yes\" } }\nresponse = { set = { x-seen = \"yes\" } }"),
            ("body-limit", "[plugin.config]\nmax_bytes = 10"),
            ("redirect", "[plugin.config]\nrules = [{ exact = \"/old\", location = \"/new\", status = 301 }]"),
        ],
    );
    let mut client = Client::connect(gateway.address());
    client.send("POST /a HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str(), response.header("x-seen")), (200, "hello", Some("yes")), "{response:?}");
    let seen = origin.last();
    assert_eq!(seen.header("x-edited"), Some("yes"));
    assert_eq!(seen.header("x-request-id"), response.header("x-request-id"));
    let moved = client.get("/old");
    assert_eq!((moved.status, moved.header("location"), moved.header("x-seen")), (301, Some("/new"), Some("yes")), "{moved:?}");
    client.send("POST /a HTTP/1.1\r\nhost: test\r\ncontent-length: 11\r\n\r\nhello world");
    assert_eq!(client.response().status, 413);
    let mut client = Client::connect(gateway.address());
    client.send("POST /a HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n6\r\nworld!\r\n0\r\n\r\n");
    // SPEC S-35: post hooks see every response, one that a chunk hook made too.
    let response = client.response();
    assert_eq!((response.status, response.header("x-seen")), (413, Some("yes")), "{response:?}");
    gateway.stop();
}

/// Faults of a running plugin: what the client sees, with a link that is closed.
#[test]
fn each_hostile_plugin_gives_its_one_fault_and_the_gateway_goes_on() {
    // Name, the path that shows the fault, status, body (None: any).
    const CASES: &[(&str, &str, u16, Option<&str>)] = &[
        ("hostile-bad-verdict", "/", 500, None),
        ("hostile-respond-undeclared", "/", 500, None),
        ("hostile-respond-unwritten", "/", 500, None),
        ("hostile-suspend", "/", 500, None),
        ("hostile-edit-then-abort", "/", 500, None),
        ("hostile-panic", "/panic", 500, None),
        ("hostile-panic", "/panic-post", 500, None),
        ("hostile-panic", "/bytes/3", 200, Some("abc")),
        ("hostile-slow", "/bytes/3", 200, None),
        ("hostile-alloc-flood", "/", 200, Some("0")),
        ("hostile-commit-too-much", "/", 200, Some("-7")),
        ("hostile-header-crlf", "/", 200, Some("-3")),
        ("hostile-header-flood", "/", 200, Some("-4")),
        ("hostile-header-framing", "/", 200, Some("-6")),
        ("hostile-map-calls", "/", 200, Some("0")),
        ("hostile-reserve-too-much", "/", 200, Some("0")),
        ("hostile-undeclared-edit", "/", 200, Some("-1")),
        ("hostile-wrong-hook", "/", 200, Some("-2")),
    ];
    let origin = Origin::start();
    let mut names: Vec<&str> = CASES.iter().map(|case| case.0).collect();
    names.dedup();
    let mut made = config().upstream("app", &[origin.address()], "");
    for name in &names {
        made = made.plugin(name, "").with(&format!("[[route]]\nheader = {{ x-plugin = \"{name}\" }}\nupstream = \"app\"\nplugins = [\"{name}\"]"));
    }
    let gateway = Gateway::start(&made.with("[[route]]\nupstream = \"app\""));
    let mut client = Client::connect(gateway.address());
    for (name, path, status, body) in CASES {
        for round in 0..3 {
            client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\nx-plugin: {name}\r\n\r\n"));
            let response = client.response();
            assert_eq!(response.status, *status, "{name} {path}, round {round}: {response:?}");
            assert!(body.is_none_or(|body| response.text() == body), "{name}: {response:?}");
            assert!(!response.announces_close(), "{name} {path}: a plugin's fault is no reason to end the connection");
        }
        assert_eq!(client.get("/bytes/3").text(), "abc", "after {name}");
    }
    assert_eq!(origin.requests().iter().filter(|request| request.header("x-half-done").is_some()).count(), 0);
    gateway.stop();
}

/// One entry of a plugin on routes that lead to different upstreams: what one of them said is no answer of the other.
#[test]
fn routes_that_share_a_cache_do_not_answer_for_one_another() {
    let saying = |text: &'static str| Origin::answering(move |_| reply(200, &[("cache-control", "max-age=60")], text));
    let (one, other) = (saying("of the one"), saying("of the other"));
    let routes = "[[route]]\nheader = { x-tenant = \"one\" }\nupstream = \"one\"\nplugins = [\"response-cache\"]\n\
        [[route]]\nupstream = \"other\"\nplugins = [\"response-cache\"]";
    let made = config().plugin("response-cache", "").upstream("one", &[one.address()], "").upstream("other", &[other.address()], "");
    let gateway = Gateway::start(&made.with(routes));
    let mut client = Client::connect(gateway.address());
    for _ in 0..3 {
        for (head, text) in [("x-tenant: one\r\n", "of the one"), ("", "of the other")] {
            client.send(format!("GET /a HTTP/1.1\r\nhost: test\r\n{head}\r\n"));
            assert_eq!(client.response().text(), text);
        }
    }
    assert_eq!((one.count(), other.count()), (1, 1), "the cache is in use");
    gateway.stop();
}

/// SPEC S-81: a message without a body gets no chunk hook. S-34: a response whose head has left is cut off.
#[test]
fn chunk_hooks_run_for_bodies_only() {
    let origin = Origin::start();
    let path = "[[route]]\npath = \"/nowhere\"\nplugins = [\"hostile-chunk-abort\"]\n[[route]]\nupstream = \"app\"\nplugins = [\"hostile-chunk-abort\"]";
    let gateway = Gateway::start(&config().plugin("hostile-chunk-abort", "").upstream("app", &[origin.address()], "").with(path));
    let mut client = Client::connect(gateway.address());
    for head in ["GET /bytes/0", "HEAD /bytes/3", "HEAD /nowhere"] {
        client.send(format!("{head} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let response = if head.starts_with("HEAD") { client.head_response() } else { client.response() };
        assert_eq!(response.status, if head.ends_with("nowhere") { 404 } else { 200 }, "{head}: {response:?}");
    }
    client.send("POST /bytes/0 HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(client.response().status, 500, "the link that failed is not shown the answer");
    client.send("GET /bytes/3 HTTP/1.1\r\nhost: test\r\n\r\n");
    assert!(client.try_response(false).is_err(), "a response that is cut off looks whole");
    gateway.stop();
}

/// The plugins of one route may ask for more scratch together than one may alone.
#[test]
fn scratch_of_many_links_adds_up() {
    let origin = Origin::start();
    let names: Vec<String> = (0..40).map(|n| format!("id-{n}")).collect();
    let path = plugin("request-id").display().to_string();
    let mut made = config().upstream("app", &[origin.address()], "");
    for name in &names {
        made = made.with(&format!("[[plugin]]\nname = \"{name}\"\npath = {path:?}"));
    }
    let gateway = Gateway::start(&made.with(&format!("[[route]]\nupstream = \"app\"\nplugins = {names:?}")));
    let response = Client::connect(gateway.address()).get("/bytes/3");
    assert_eq!((response.status, response.header("x-request-id").map(str::len)), (200, Some(32)), "{response:?}");
    gateway.stop();
}

#[test]
fn a_failing_link_that_is_open_is_skipped_without_a_trace() {
    let origin = Origin::start();
    let gateway = chain(
        &origin,
        &[("hostile-bad-verdict", "on_error = \"open\""), ("hostile-edit-then-abort", "on_error = \"open\""), ("hostile-panic", "on_error = \"open\"")],
    );
    let mut client = Client::connect(gateway.address());
    for path in ["/panic", "/panic-post", "/a"] {
        let response = client.get(path);
        assert_eq!((response.status, response.header("x-target")), (200, Some(path)), "{response:?}");
        assert_eq!(origin.last().header("x-half-done"), None);
    }
    gateway.stop();
}

/// Refused before any of their code runs, with a text that names the fault; the process exits with 1.
#[test]
fn plugins_that_must_be_refused_are_refused_at_start() {
    const CASES: &[(&str, &str)] = &[
        ("abi-major", "ABI major"),
        ("core-init-fails", "worker 0: intern_header -2, prebuilt_add -2"),
        ("abi-minor", "minor"),
        ("exec-stack", "stack"),
        ("fingerprint", "fingerprint"),
        ("function-without-hook", "on_request"),
        ("hook-without-function", "on_request"),
        ("load-fails-silently", "-7"),
        ("load-fails", "the moon is in the wrong phase"),
        ("map-fields", "value_fields"),
        ("map-flood", "limits.map_bytes"),
        ("maps-null", "maps"),
        ("metrics-null", "metric"),
        ("missing-symbol", "ringway_hostile_nobody_has_this"),
        ("name-null", "name"),
        ("no-note", "note"),
        ("no-symbol", "ringway_plugin_v1"),
        ("note-differs", "note"),
        ("scratch-too-large", "scratch"),
        ("size-short", "size"),
        ("textrel", "TEXTREL"),
        ("unknown-hook", "0x80000000"),
        ("unknown-want", "0x40000000"),
        ("want-maps", "maps"),
        ("constructor-refused", "major"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("opened");
    for (name, text) in CASES {
        let full = format!("hostile-{name}");
        let launch = Launch { environment: vec![("RINGWAY_HOSTILE_FILE".into(), trace.display().to_string())], ..Launch::default() };
        let (code, said) = launch.refuse(&config().plugin(&full, "").to(&["127.0.0.1:1"]));
        assert_eq!(code, Some(1), "{name}: {said}");
        assert!(said.contains(text) && said.contains(&full), "{name}: {text:?} is not in {said}");
    }
    assert!(!trace.exists(), "the constructor of a refused plugin ran");
}
