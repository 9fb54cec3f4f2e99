//! `ringway plugin verify` and `ringway plugin run`, with the real binary: every refusal has a hostile plugin and its own text, and
//! the plugins for use pass.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod gateway;

#[path = "verify/captured.rs"]
mod captured;
#[path = "verify/gateway_option.rs"]
mod gateway_option;
#[path = "verify/languages.rs"]
mod languages;

use std::process::Output;

use gateway::*;
use serde_json::Value;

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = ringway(arguments).envs(environment.iter().copied()).output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

/// The report of `plugin verify -j`, with the exit code.
fn verify(name: &str, more: &[&str], environment: &[(&str, &str)]) -> (i32, Value) {
    let file = plugin(name);
    let (code, out, err) = run(&[&["plugin", "verify", "-j", file.to_str().unwrap()], more].concat(), environment);
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{name}: {error}: {out}{err}")))
}

const MINIMAL: &str = "`on_request` on the frame `minimal`";

/// Refusals of the dry run, word for word; `…` stands for the rest of it.
const DRY_RUN: &[(&str, &str)] = &[
    ("abort", "{} called abort()"),
    ("abort-verdict", "{} returned ABORTED, and logged: no luck today"),
    ("alloc-overflow", "{} wrote over the edge of memory from `alloc`"),
    ("bad-verdict", "{} returned 999, which is no verdict of this hook"),
    ("change-cx", "{} changed `rw_cx`, which belongs to the gateway"),
    ("chunk-abort", "`on_request_chunk` on the frame `split-bodies` returned ABORTED"),
    ("commit-too-much", "{} passed an argument to `resp_commit` that makes no sense"),
    ("core-init-fails", "its `core_init` failed: worker 0: intern_header -2, prebuilt_add -2"),
    ("descriptor-rewritten", "its descriptor is malformed: it defines more than 256 metrics"),
    ("edit-then-abort", "{} returned ABORTED"),
    ("exit", "{} ended the process with exit code 0"),
    ("hang", "{} did not return within 1000 ms"),
    ("hang-in-load", "`load` did not return within 1000 ms"),
    ("header-crlf", "{} passed bytes to `header_set` that cannot stand in a message"),
    ("header-framing", "{} passed a header to `header_set` that belongs to the gateway"),
    ("keep-view", "`on_request` on the frame `64-headers` used memory that it was given for an earlier hook or exchange"),
    ("leak", "it lost memory on every round of the frames: …"),
    ("leave-file", "it left 1 files open after `unload`"),
    ("leave-thread", "1 of its threads run after `unload`; its code would be unmapped under them"),
    ("load-fails", "its `load` failed: the moon is in the wrong phase"),
    ("load-fails-silently", "its `load` failed: it gave no reason, only the status -7"),
    ("need-body-undeclared", "{} returned NEED_BODY, but `request-body` is not in its `wants` or `on_request_body` is missing"),
    ("network", "its `load` failed: no socket: Permission denied"),
    ("null", "{} died of SIGSEGV, at the address 0x8; its code was at 0x…"),
    ("outcall-beyond", "`on_event` on the frame `64-headers` went beyond the end of the response view"),
    ("outcall-crlf", "{} passed bytes to `outcall.begin` that cannot stand in a message"),
    ("read-beyond", "{} went beyond the end of the request view"),
    ("reserve-overflow", "{} went beyond the end of memory from `resp_reserve`"),
    ("respond-undeclared", "{} called `resp_begin` without declaring it in `wants`"),
    ("respond-unwritten", "{} returned RESPOND without having written a response"),
    ("scratch-overflow", "{} went beyond the end of its scratch memory"),
    ("scratch-underflow", "{} wrote over the edge of its scratch memory"),
    ("stack-overflow", "{} used up the stack"),
    ("static-tls", "the dynamic loader refused it: …"),
    ("suspend", "{} returned 5, which is no verdict of this hook"),
    ("terminate", "{} was killed by signal 15"),
    ("trap", "{} died of SIGILL; its code was at 0x…"),
    ("undeclared-edit", "{} called `header_set` without declaring it in `wants`"),
    ("write-file", "{} wrote to a file, which a dry run does not allow"),
    ("write-response", "`on_response` on the frame `minimal` wrote to the response view, which is read only"),
    ("write-view", "{} wrote to the request view, which is read only"),
    ("wrong-hook", "{} called `status_set`, which is not possible in this hook"),
];

/// Refusals of the file: the check, and the beginning of the text.
const FILE: &[(&str, &str, &str)] = &[
    ("abi-major", "abi", "the plugin was built for ABI major version 2"),
    ("abi-minor", "abi", "the plugin needs a newer minor version of the ABI"),
    ("exec-stack", "memory", "the plugin would make the stack of every thread executable"),
    ("fingerprint", "layout", "the plugin was built for another layout"),
    ("function-without-hook", "functions", "the plugin has a function `on_request` but does not declare the hook"),
    ("hook-without-function", "functions", "the plugin declares the hook `on_request` but has no function for it"),
    ("metrics-null", "descriptor", "the descriptor `ringway_plugin_v1` makes no sense: it defines 3 metrics"),
    ("missing-symbol", "libraries", "missing symbols: ringway_hostile_nobody_has_this"),
    ("name-null", "descriptor", "the descriptor `ringway_plugin_v1` makes no sense: it has no name"),
    ("no-note", "note", "the file has no Ringway note"),
    ("no-symbol", "descriptor", "the file exports no data symbol"),
    ("note-differs", "descriptor", "the note and the descriptor differ in `hooks`"),
    ("scratch-too-large", "note", "the Ringway note makes no sense: it asks for 4097 bytes of scratch memory"),
    ("size-short", "descriptor", "the descriptor `ringway_plugin_v1` makes no sense: its size is 48 bytes"),
    ("textrel", "memory", "the plugin's code would have to be changed while it is loaded"),
    ("unknown-hook", "capabilities", "the plugin wants what this gateway does not have: bit 0x80000000"),
    ("unknown-want", "capabilities", "the plugin wants what this gateway does not have: bit 0x40000000"),
];

#[test]
fn every_refusal_of_the_dry_run_has_a_plugin_and_its_own_text() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there");
    std::fs::write(&there, "as it was").unwrap();
    for (name, text) in DRY_RUN {
        let name = format!("hostile-{name}");
        let timeout: &[&str] = if name.contains("hang") { &["--timeout", "1s"] } else { &[] };
        let (code, report) = verify(&name, timeout, &[("RINGWAY_HOSTILE_FILE", there.to_str().unwrap())]);
        let expected = text.replace("{}", MINIMAL);
        let said = report["refusal"].as_str().unwrap_or("nothing").to_owned();
        let as_expected = expected.strip_suffix('…').map_or(said == expected, |begin| said.starts_with(begin));
        assert!(code == 1 && as_expected, "{name}: exit code {code}, said: {said}\nexpected: {expected}");
        let checks = report["checks"].as_array().unwrap();
        let (last, before) = checks.split_last().unwrap();
        assert!(last["check"] == "dry run" && last["good"] == false && before.iter().all(|check| check["good"] == true), "{name}: {report}");
    }
    assert_eq!(std::fs::read(&there).unwrap(), b"as it was");
}

#[test]
fn refusals_of_the_file_come_first_and_run_no_code() {
    for (name, check, text) in FILE {
        let (code, report) = verify(&format!("hostile-{name}"), &[], &[]);
        let last = report["checks"].as_array().unwrap().last().unwrap();
        assert!(code == 1 && last["check"] == *check && last["detail"].as_str().unwrap().starts_with(text), "{name}: {code} {last}");
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("opened");
    let (code, report) = verify("hostile-constructor-refused", &[], &[("RINGWAY_HOSTILE_FILE", trace.to_str().unwrap())]);
    assert!(code == 1 && !trace.exists(), "{report}");
}

#[test]
fn the_plugins_for_use_pass_with_every_frame() {
    for (name, config) in [
        ("request-id", "{}"),
        ("delay", r#"{"milliseconds": 10}"#),
        ("ext-authz", r#"{"upstream": "auth", "allowed_headers": ["x-user"]}"#),
        ("counter", "{}"),
        ("ip-filter", r#"{"allow": ["192.0.2.0/24"]}"#),
        ("redirect", r#"{"rules": [{"exact": "/old", "location": "/new"}]}"#),
        ("body-limit", r#"{"max_bytes": 100}"#),
        ("header-rewrite", r#"{"request": {"set": {"x-a": "b"}}}"#),
        ("rate-limit", r#"{"requests_per_second": 2}"#),
        ("response-cache", "{}"),
        ("order-probe", r#"{"tag": "A"}"#),
        ("template-c", "{}"),
        ("template-zig", "{}"),
        ("template-rust", r#"{"greeting": "hello"}"#),
        // Their faults need other requests than the golden frames.
        ("hostile-panic", "{}"),
        ("hostile-segfault", "{}"),
    ] {
        let (code, report) = verify(name, &["--config", config], &[]);
        assert!(code == 0 && report["refusal"].is_null() && report["good"] == true, "{name}: {report:#}");
        let frames = report["checks"].as_array().unwrap().iter().filter(|check| check["check"].as_str().unwrap().starts_with("frame ")).count();
        assert_eq!(frames, 12, "{name}");
    }
}

#[test]
fn the_report_for_people_has_one_line_per_check() {
    let file = plugin("body-limit");
    let path = file.to_str().unwrap();
    let (code, out, err) = run(&["plugin", "verify", path, "--config", r#"{"max_bytes": 100}"#], &[]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(code == 0 && err.is_empty() && lines[0] == path && lines[1..].iter().all(|line| line.starts_with("  ok ")), "{code} {out}{err}");
    assert!(out.contains("frame split-bodies") && out.contains("on_request_chunk RESPOND"), "{out}");
    let (code, out, err) = run(&["plugin", "verify", plugin("hostile-abort").to_str().unwrap()], &[]);
    let last = out.lines().last().unwrap();
    assert!(code == 1 && last.starts_with("  REFUSED  dry run") && last.ends_with("called abort()"), "{code} {out}");
    assert!(err.contains("printed: a last word"), "{err}");
    let (code, _, err) = run(&["plugin", "verify", plugin("hostile-no-note").to_str().unwrap()], &[]);
    assert!(code == 1 && err.contains("help: use `RW_DEFINE_NOTE`"), "{err}");
    assert_eq!(run(&["plugin", "verify"], &[]).0, 2);
    assert_eq!(run(&["plugin", "verify", "/nowhere/x.so"], &[]).0, 1);
}

#[test]
fn run_counts_verdicts_and_tells_durations() {
    let file = plugin("bench-respond");
    let (code, out, err) = run(&["plugin", "run", "-j", file.to_str().unwrap(), "--repeat", "50"], &[]);
    let report: Value = serde_json::from_str(&out).unwrap();
    let hooks = report["hooks"].as_array().unwrap();
    assert!(code == 0 && hooks.len() == 12, "{code} {out}{err}");
    for hook in hooks {
        assert!(hook["hook"] == "on_request" && hook["calls"] == 50 && hook["verdicts"]["RESPOND"] == 50, "{hook}");
        let ns = |name: &str| hook[name].as_u64().unwrap();
        assert!(ns("min_ns") <= ns("median_ns") && ns("median_ns") <= ns("p99_ns") && ns("p99_ns") > 0, "{hook}");
    }
    let (code, out, _) = run(&["plugin", "run", file.to_str().unwrap(), "--repeat", "5"], &[]);
    assert!(code == 0 && out.lines().count() == 13 && out.contains("RESPOND ×5"), "{out}");
    let (code, _, err) = run(&["plugin", "run", plugin("hostile-null").to_str().unwrap()], &[]);
    assert!(code == 1 && err.contains("died of SIGSEGV"), "{err}");
}
