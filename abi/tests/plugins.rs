//! The example plugins in C and Zig, driven by a host that records what they ask for. The Rust ones test themselves.
//!
//! The gateway's own tests drive the same files over sockets; here their logic is looked at case by case.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod elf;
mod fake_host;
mod toolchain;

use std::collections::HashSet;
use std::ffi::CStr;

use fake_host::{Edit, Exchange, Instance};
use ringway_abi::{Header, Request, Response, raw, view};

fn get(target: &[u8], headers: &[(&[u8], &[u8])]) -> Request {
    let headers = headers.iter().map(|(name, value)| Header::new(name, value));
    Request::new(b"GET", target, [Header::new(b"Host", b"a.example")].into_iter().chain(headers).collect())
}

fn mapped(v4: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets()
}

// ---- every plugin -----------------------------------------------------------------------------------------------------

const WELL_BEHAVED: [&str; 12] = [
    "delay",
    "request-id",
    "ip-filter",
    "redirect",
    "body-limit",
    "template-c",
    "template-zig",
    "bench-lookup-c",
    "bench-lookup-zig",
    "bench-set-response",
    "bench-chunk",
    "bench-respond",
];

/// S-41, S-44, S-45: note and descriptor say the same; a bit has its function and a function its bit.
#[test]
fn note_and_descriptor_agree() {
    for name in WELL_BEHAVED {
        let plugin = fake_host::descriptor(name);
        assert_eq!(plugin.size as usize, size_of::<raw::Plugin>(), "{name}");
        let stated = plugin.metric_count == 0 || plugin.metric_bytes as usize == size_of::<raw::MetricDef>();
        assert!(stated, "{name}: {} bytes for each metric", plugin.metric_bytes);
        let functions = [
            plugin.on_accept.is_some(),
            plugin.on_request.is_some(),
            plugin.on_request_chunk.is_some(),
            plugin.on_request_body.is_some(),
            plugin.on_response.is_some(),
            plugin.on_response_chunk.is_some(),
            plugin.on_event.is_some(),
            plugin.on_done.is_some(),
            plugin.on_tick.is_some(),
        ];
        for ((bit, hook), present) in raw::HOOKS.iter().zip(functions) {
            assert_eq!(plugin.hooks & bit != 0, present, "{name}: {hook}");
        }

        // SAFETY: S-40: both are NUL-terminated constants of the library.
        let (said_name, version) = unsafe { (CStr::from_ptr(plugin.name), CStr::from_ptr(plugin.version)) };
        assert_eq!(said_name.to_str(), Ok(name));
        let expected = raw::Note::new(name, version.to_str().unwrap(), plugin.language, plugin.hooks, plugin.wants, plugin.scratch_bytes);
        // SAFETY: a `Note` is made of integers without padding (S-1), so its bytes are initialized.
        let expected = unsafe { std::slice::from_raw_parts((&raw const expected).cast::<u8>(), size_of::<raw::Note>()) };
        let file = std::fs::read(fake_host::built(name)).unwrap();
        let section = elf::Elf::new(&file).section(".note.ringway").expect("the plugin has a note");
        assert_eq!(&file[section.offset as usize..][..section.size as usize], expected, "{name}: the note differs from the descriptor");
    }
}

#[test]
fn the_hostile_plugins_for_the_loader_have_their_faults() {
    let flags_of = |name: &str| {
        let file = std::fs::read(fake_host::built(name)).unwrap();
        let elf = elf::Elf::new(&file);
        let stack = elf.segments(0x6474_e551).next().expect("GNU_STACK is there").flags;
        (elf.section(".note.ringway").is_some(), elf.dynamic_symbol("ringway_plugin_v1"), stack & 1 != 0)
    };
    assert_eq!(flags_of("hostile-no-note"), (false, true, false));
    assert_eq!(flags_of("hostile-no-symbol"), (true, false, false));
    assert_eq!(flags_of("hostile-exec-stack"), (true, true, true));
    assert_eq!(flags_of("hostile-textrel"), (true, true, false));
}

// ---- request-id -------------------------------------------------------------------------------------------------------

fn run_request_id(instance: &Instance, came: Option<&[u8]>) -> (Vec<Edit>, Vec<u8>) {
    let headers: Vec<(&[u8], &[u8])> = came.map(|value| (&b"X-Request-ID"[..], value)).into_iter().collect();
    let mut exchange = Exchange::new(instance, get(b"/", &headers));
    assert_eq!(exchange.on_request(), raw::CONTINUE);
    let request_edits = std::mem::take(&mut exchange.did.edits);
    assert_eq!(exchange.on_response(&Response::new(200, vec![])), raw::CONTINUE);
    let [echo] = &exchange.did.edits[..] else { panic!("one edit of the response: {:?}", exchange.did.edits) };
    assert_eq!((echo.side, echo.call, echo.name.as_str()), (raw::SIDE_RESPONSE, "set", "x-request-id"));
    (request_edits, echo.value.clone())
}

#[test]
fn request_id_replaces_what_an_untrusted_client_sent() {
    let instance = Instance::load("request-id", "{}").unwrap();
    for came in [None, Some(&b"mine"[..])] {
        let (edits, echoed) = run_request_id(&instance, came);
        assert_eq!(edits, [Edit { side: raw::SIDE_REQUEST, call: "set", name: "x-request-id".into(), value: echoed.clone() }]);
        assert!(echoed.len() == 32 && echoed.iter().all(u8::is_ascii_hexdigit), "{echoed:?}");
    }
}

#[test]
fn request_id_keeps_a_valid_trusted_id_and_no_other() {
    let instance = Instance::load("request-id", r#"{"trust": true}"#).unwrap();
    let longest = [b'a'; 128];
    for valid in [&b"a"[..], b"0198e2f4-7c1e-7d6a-9b1f-aa", b"A.b_c~d+e/f=:", &longest] {
        assert_eq!(run_request_id(&instance, Some(valid)), (vec![], valid.to_vec()));
    }
    let too_long = [b'a'; 129];
    for invalid in [&b""[..], b"two words", b"semi;colon", b"\"quoted\"", b"\xffobs", &too_long] {
        let (edits, echoed) = run_request_id(&instance, Some(invalid));
        assert_eq!(edits.len(), 1, "{invalid:?}");
        assert_eq!(echoed.len(), 32);
    }
}

#[test]
fn request_ids_never_repeat() {
    let instances = [Instance::load("request-id", "{}").unwrap(), Instance::load("request-id", "{}").unwrap()];
    let ids: HashSet<Vec<u8>> = (0..10_000).map(|index| run_request_id(&instances[index % 2], None).1).collect();
    assert_eq!(ids.len(), 10_000);
}

#[test]
fn request_id_stays_silent_when_its_request_hook_did_not_run() {
    let instance = Instance::load("request-id", "{}").unwrap();
    let mut exchange = Exchange::new(&instance, get(b"/", &[]));
    assert_eq!(exchange.on_response(&Response::new(400, vec![])), raw::CONTINUE);
    assert_eq!(exchange.did.edits, []);
}

// ---- configuration ----------------------------------------------------------------------------------------------------

#[test]
fn a_wrong_configuration_is_refused_with_its_reason() {
    let cases = [
        ("request-id", "", "expected an object"),
        ("request-id", "{\n\"trusted\": true}", "line 2: unknown key; this plugin knows \"trust\""),
        ("request-id", "{\"trust\": 1}", "expected true or false"),
        ("ip-filter", "{\"allow\": \"10.0.0.0/8\"}", "expected an array"),
        ("ip-filter", "{\"allow\": [\"10.0.0.0/33\"]}", "not an address or CIDR block"),
        ("ip-filter", "{\"allow\": [\"10.0.0/8\"]}", "not an address or CIDR block"),
        ("ip-filter", "{\"deny\": [\"2001:db8::/129\"]}", "not an address or CIDR block"),
        ("ip-filter", "{\"deny\": [\"::1/\"]}", "not an address or CIDR block"),
        ("ip-filter", "{\"deny\": [\"::1/1x\"]}", "not an address or CIDR block"),
        ("ip-filter", "{\"deny\": [\"example.com\"]}", "not an address or CIDR block"),
        ("redirect", "{}", "MissingField"),
        ("redirect", "{\"rules\": [{\"exact\": \"/\"}]}", "MissingField"),
        ("redirect", "{\"rules\": [],\n \"x\": 1}", "line 2, column 5: UnknownField"),
        ("redirect", "{\"rules\": [{\"location\": \"/\"}]}", "rule 1: needs either"),
        ("redirect", "{\"rules\": [{\"exact\": \"/\", \"prefix\": \"/\", \"location\": \"/\"}]}", "rule 1: needs either"),
        ("redirect", "{\"rules\": [{\"exact\": \"/\", \"location\": \"/x\", \"status\": 303}]}", "rule 1: status 303"),
        ("redirect", "{\"rules\": [{\"exact\": \"/\", \"location\": \"/x\\r\\nSet-Cookie: a\"}]}", "control character"),
        ("redirect", "{\"rules\": [{\"exact\": \"/\", \"location\": \"\"}]}", "empty"),
        ("redirect", "{\"rules\": [{\"prefix\": \"/x\", \"location\": \"https://a.example\"}]}", "must both end with"),
        ("body-limit", "{}", "MissingField"),
        ("body-limit", "{\"max_bytes\": -1}", "Overflow"),
        ("body-limit", "{\"max_bytes\": \"a\"}", "InvalidCharacter"),
    ];
    for (name, config, reason) in cases {
        match Instance::load(name, config) {
            Err(said) => assert!(said.contains(reason), "{name} {config}: said {said:?}, not {reason:?}"),
            Ok(_) => panic!("{name} took {config}"),
        }
    }
}

/// The JSON reader of the C plugins has its own table, which runs under the sanitizers.
#[test]
fn the_json_reader_of_the_c_plugins_passes_its_table() {
    let source = toolchain::abi_dir().join("../plugins/tests/json.c");
    for compiler in toolchain::c_compilers() {
        let program = toolchain::output_path(&format!("json-{compiler}"));
        let mut command = std::process::Command::new(compiler);
        command.args(["-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        toolchain::run(command.arg(&source).arg("-o").arg(&program));
        println!("{}", toolchain::stdout_of(&program, &[]));
    }
}

// ---- ip-filter --------------------------------------------------------------------------------------------------------

#[test]
fn ip_filter_decides_by_table() {
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let cases = [
        ("{}", mapped([8, 8, 8, 8]), true),
        (r#"{"deny": ["8.8.8.8"]}"#, mapped([8, 8, 8, 8]), false),
        (r#"{"deny": ["8.8.8.8"]}"#, mapped([8, 8, 8, 9]), true),
        (r#"{"deny": ["8.8.8.8/31"]}"#, mapped([8, 8, 8, 9]), false),
        (r#"{"deny": ["0.0.0.0/0"]}"#, mapped([1, 2, 3, 4]), false),
        (r#"{"deny": ["0.0.0.0/0"]}"#, v6("2001:db8::1"), true),
        (r#"{"deny": ["::/0"]}"#, mapped([1, 2, 3, 4]), false),
        (r#"{"allow": ["10.0.0.0/8", "192.168.0.0/16"]}"#, mapped([192, 168, 255, 1]), true),
        (r#"{"allow": ["10.0.0.0/8", "192.168.0.0/16"]}"#, mapped([192, 169, 0, 1]), false),
        (r#"{"allow": ["10.0.0.0/8"], "deny": ["10.6.6.6"]}"#, mapped([10, 6, 6, 6]), false),
        (r#"{"allow": ["10.0.0.0/8"], "deny": ["10.6.6.6"]}"#, mapped([10, 6, 6, 7]), true),
        (r#"{"allow": ["2001:db8::/32"]}"#, v6("2001:db8:ffff::1"), true),
        (r#"{"allow": ["2001:db8::/32"]}"#, v6("2001:db9::1"), false),
        (r#"{"allow": ["2001:db8::/33"]}"#, v6("2001:db8:8000::"), false),
        (r#"{"allow": ["2001:db8::1/127"]}"#, v6("2001:db8::"), true),
        (r#"{"allow": ["::ffff:10.0.0.0/104"]}"#, mapped([10, 1, 2, 3]), true),
        // A Unix socket has no address.
        (r#"{"allow": ["10.0.0.0/8"], "deny": ["::/0"]}"#, [0; 16], true),
    ];
    for (config, peer_addr, lets_in) in cases {
        let instance = Instance::load("ip-filter", config).unwrap();
        let mut exchange = Exchange::new(&instance, Request { peer_addr, ..get(b"/", &[]) });
        let verdict = exchange.on_request();
        if lets_in {
            assert_eq!((verdict, exchange.did.metrics.len()), (raw::CONTINUE, 0), "{config} {peer_addr:?}");
        } else {
            assert_eq!(verdict, raw::RESPOND, "{config} {peer_addr:?}");
            assert_eq!(exchange.prebuilt().status, 403);
            assert!(exchange.prebuilt().body.starts_with(b"403"));
            assert_eq!(exchange.did.metrics[&0], 1);
        }
        assert_eq!(instance.accept(peer_addr), if lets_in { raw::CONTINUE } else { raw::DROP }, "{config} {peer_addr:?}");
    }
}

// ---- redirect ---------------------------------------------------------------------------------------------------------

const RULES: &str = r#"{"rules": [
    {"exact": "/old", "location": "https://example.com/new", "status": 301},
    {"prefix": "/docs/", "location": "/manual/"},
    {"prefix": "/away/", "location": "https://other.example/", "status": 308},
    {"exact": "/docs/late", "location": "/never"}
]}"#;

#[test]
fn redirect_answers_exact_rules_with_what_load_laid_out() {
    let instance = Instance::load("redirect", RULES).unwrap();
    for target in [&b"/old"[..], b"/old?query=1"] {
        let mut exchange = Exchange::new(&instance, get(target, &[]));
        assert_eq!(exchange.on_request(), raw::RESPOND);
        let answer = exchange.prebuilt();
        assert_eq!((answer.status, answer.headers.as_str()), (301, "Location: https://example.com/new\r\n"));
    }
}

#[test]
fn redirect_appends_the_rest_of_a_prefix() {
    let instance = Instance::load("redirect", RULES).unwrap();
    let cases: [(&[u8], u32, &str); 8] = [
        (b"/docs/", 302, "/manual/"),
        (b"/docs/a/b", 302, "/manual/a/b"),
        (b"/docs/a?x=1&y=//", 302, "/manual/a?x=1&y=//"),
        (b"/docs/late", 302, "/manual/late"),
        (b"/away/x", 308, "https://other.example/x"),
        // The client must not choose the host.
        (b"/docs//evil.example/", 302, "/manual/evil.example/"),
        (b"/away//evil.example", 308, "https://other.example/evil.example"),
        (b"/docs/\\/evil.example", 302, "/manual/evil.example"),
    ];
    for (target, status, location) in cases {
        let mut exchange = Exchange::new(&instance, get(target, &[]));
        assert_eq!(exchange.on_request(), raw::RESPOND);
        let answer = exchange.answer();
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers, [("location".to_owned(), location.as_bytes().to_vec())]);
        assert!(answer.body.is_empty());
    }
}

#[test]
fn redirect_goes_on_without_a_rule() {
    let instance = Instance::load("redirect", RULES).unwrap();
    for target in [&b"/"[..], b"/old/", b"/olds", b"/docs", b"/x?/docs/", b"*"] {
        let mut exchange = Exchange::new(&instance, get(target, &[]));
        assert_eq!(exchange.on_request(), raw::CONTINUE, "{target:?}");
        assert!(exchange.did.answer.is_none() && exchange.did.prebuilt.is_none());
    }
}

// ---- body-limit -------------------------------------------------------------------------------------------------------

fn post(content_length: u64) -> Request {
    Request { content_length, flags: view::REQ_HAS_BODY, ..Request::new(b"POST", b"/", vec![]) }
}

#[test]
fn body_limit_judges_a_content_length_at_once() {
    let instance = Instance::load("body-limit", r#"{"max_bytes": 1000}"#).unwrap();
    for (content_length, verdict) in [(0, raw::DONE), (1000, raw::DONE), (1001, raw::RESPOND), (u64::MAX - 1, raw::RESPOND)] {
        let mut exchange = Exchange::new(&instance, post(content_length));
        assert_eq!(exchange.on_request(), verdict, "{content_length}");
        if verdict == raw::RESPOND {
            assert_eq!(exchange.prebuilt().status, 413);
            assert_eq!(exchange.did.metrics[&0], 1);
        }
    }
}

#[test]
fn body_limit_counts_a_chunked_body() {
    let instance = Instance::load("body-limit", r#"{"max_bytes": 1000}"#).unwrap();
    let mut exchange = Exchange::new(&instance, post(u64::MAX));
    assert_eq!(exchange.on_request(), raw::CONTINUE);
    assert_eq!(exchange.on_request_chunk(0, &[0; 600], false), raw::CONTINUE);
    assert_eq!(exchange.on_request_chunk(600, &[0; 400], false), raw::CONTINUE);
    assert_eq!(exchange.on_request_chunk(1000, &[], true), raw::CONTINUE);
    assert_eq!(exchange.on_request_chunk(1000, &[0; 1], false), raw::RESPOND);
    assert_eq!(exchange.prebuilt().status, 413);
}

// ---- templates and bench plugins --------------------------------------------------------------------------------------

#[test]
fn the_templates_set_their_header() {
    for (name, value) in [("template-c", "from C"), ("template-zig", "from Zig")] {
        let instance = Instance::load(name, "{}").unwrap();
        let mut exchange = Exchange::new(&instance, get(b"/", &[]));
        assert_eq!(exchange.on_response(&Response::new(200, vec![])), raw::CONTINUE);
        assert_eq!(exchange.did.edits, [Edit { side: raw::SIDE_RESPONSE, call: "set", name: "x-hello".into(), value: value.into() }]);
        let mut failed = Exchange::new(&instance, get(b"/", &[]));
        assert_eq!(failed.on_response(&Response::new(502, vec![])), raw::CONTINUE);
        assert_eq!(failed.did.edits, []);
    }
}

#[test]
fn the_bench_plugins_do_what_they_are_measured_for() {
    for name in ["bench-lookup-c", "bench-lookup-zig"] {
        let instance = Instance::load(name, "{}").unwrap();
        for headers in [&[][..], &[(&b"User-Agent"[..], &b"bench"[..])]] {
            assert_eq!(Exchange::new(&instance, get(b"/", headers)).on_request(), raw::CONTINUE, "{name}");
        }
    }
    let instance = Instance::load("bench-set-response", "{}").unwrap();
    let mut exchange = Exchange::new(&instance, get(b"/", &[]));
    assert_eq!(exchange.on_response(&Response::new(200, vec![Header::new(b"content-type", b"text/html")])), raw::CONTINUE);
    assert_eq!(exchange.did.edits[0].value, b"text/html");

    let instance = Instance::load("bench-chunk", "{}").unwrap();
    let mut exchange = Exchange::new(&instance, get(b"/", &[]));
    assert_eq!(exchange.on_response_chunk(0, &[0; 100], false), raw::CONTINUE);
    assert_eq!(exchange.on_response_chunk(100, &[0; 11], true), raw::CONTINUE);
    assert_eq!(exchange.did.metrics[&0], 111);

    let instance = Instance::load("bench-respond", "{}").unwrap();
    let mut exchange = Exchange::new(&instance, get(b"/", &[]));
    assert_eq!(exchange.on_request(), raw::RESPOND);
    assert_eq!((exchange.answer().status, exchange.answer().body.len()), (200, 1024));
}

// ---- hostile plugins that load ----------------------------------------------------------------------------------------

/// S-52 to S-56, S-61, S-62: against a host that keeps the rules, each shows the outcome that its first lines promise.
#[test]
fn hostile_plugins_meet_the_promised_refusal() {
    let cases = [
        ("header-crlf", "-3"),
        ("header-framing", "-6"),
        ("header-flood", "-4"),
        ("undeclared-edit", "-1"),
        ("alloc-flood", "0"),
        ("reserve-too-much", "0"),
        ("commit-too-much", "-7"),
        ("wrong-hook", "-2"),
    ];
    for (name, body) in cases {
        let instance = Instance::load(&format!("hostile-{name}"), "{}").unwrap();
        let mut exchange = Exchange::new(&instance, get(b"/", &[]));
        assert_eq!(exchange.on_request(), raw::RESPOND, "{name}");
        assert_eq!(String::from_utf8_lossy(&exchange.answer().body), body, "{name}");
    }
}

#[test]
fn hostile_plugins_return_the_promised_verdict() {
    let cases = [
        ("bad-verdict", 999),
        ("suspend", raw::SUSPEND),
        ("respond-undeclared", raw::RESPOND),
        ("respond-unwritten", raw::RESPOND),
        ("edit-then-abort", raw::ABORTED),
        ("segfault", raw::CONTINUE),
        ("constructor", raw::CONTINUE),
        ("slow", raw::CONTINUE),
    ];
    for (name, verdict) in cases {
        let instance = Instance::load(&format!("hostile-{name}"), "{}").unwrap();
        assert_eq!(Exchange::new(&instance, get(b"/", &[])).on_request(), verdict, "{name}");
    }
    assert_eq!(Instance::load("hostile-load-fails", "{}").err().as_deref(), Some("the moon is in the wrong phase"));
    assert_eq!(Instance::load("hostile-load-fails-silently", "{}").err().as_deref(), Some(""));
    // S-43: core_init says why it fails, and cannot do what belongs to load.
    assert_eq!(Instance::load("hostile-core-init-fails", "{}").err().as_deref(), Some("worker 0: intern_header -2, prebuilt_add -2"));
}
