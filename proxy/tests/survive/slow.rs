//! Hooks that hold their worker: what the log says, who is counted, and when the process is ended.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::admin::*;
use crate::crash::{answers, built, run, telling};
use crate::gateway::*;

/// A gateway with the plugin in its only route. A busy machine may hold a thread for long: the budget is far above that where it matters.
pub fn with_slow(file: &str, origin: &Origin, timeouts: &str) -> Config {
    config().workers(2).upstream("app", &[origin.address()], "").with(&format!(
        "[timeouts]\n{timeouts}\n[[plugin]]\nname = \"slow\"\npath = {file:?}\non_error = \"open\"\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"slow\"]\n"
    ))
}

const OVER_BUDGET: &str = "a hook holds its worker: it is over timeouts.hook_budget";

fn warnings(governed: &Governed) -> Vec<Value> {
    let lines = governed.gateway.log();
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(|line: &Value| line["message"] == OVER_BUDGET).collect()
}

/// Starts it; hooks are let go by files in `folder`.
pub fn start(folder: &Path, made: Config) -> Governed {
    let environment = vec![("RINGWAY_SLOW_FOLDER".to_owned(), folder.display().to_string())];
    Governed::launch(Launch { environment, ..Launch::default() }, made.server("admin = \"127.0.0.1:0\""))
}

/// Sends a request whose hook holds its worker until `seen` has returned.
fn hold(folder: &Path, governed: &Governed, path: &str, seen: impl FnOnce()) {
    let mut client = Client::connect(governed.address());
    client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
    seen();
    std::fs::write(folder.join(path.rsplit('/').next().unwrap()), "").unwrap();
    assert_eq!(client.response().header("x-seen"), Some("1"), "{path}: the worker goes on");
}

#[test]
fn a_hook_over_its_budget_is_logged_with_its_stack_and_counted() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DSALT=\"budget\""]);
    let governed = start(folder.path(), with_slow(&file, &origin, "hook_budget = \"100ms\"\nhook_limit = \"off\""));
    let hash = run(&["plugin", "inspect", "-j", &file])["sha256"].as_str().unwrap().to_owned();
    let metric = "ringway_hook_over_budget_total{plugin=\"slow\"}";
    assert_eq!(governed.metric(metric), Some(0));
    for (count, (path, function)) in [("/spin/a", "spin_until_let_go"), ("/sleep/b", "sleep_until_let_go")].into_iter().enumerate() {
        hold(folder.path(), &governed, path, || assert_eq!(governed.gateway.said(count + 1, OVER_BUDGET), count + 1));
        assert_eq!(governed.gateway.said(count + 1, OVER_BUDGET), count + 1, "once for each call");
        let line = warnings(&governed).remove(count);
        assert_eq!((&line["plugin"], &line["hook"], &line["level"]), (&"slow".into(), &"on_request".into(), &"WARN".into()), "{line}");
        assert!(line["ms"].as_u64().unwrap() >= 100 && line["worker"].as_u64().unwrap() < 2, "{line}");
        let stack = line["stack"].as_str().unwrap();
        let (above, below) = stack.split_once(&format!("({function}")).unwrap_or_else(|| panic!("no {function}: {stack}"));
        // The compiler may have made a clone of it, with a longer name.
        let below = below.split_once(") < ").map_or("", |(_, below)| below);
        assert!(above.ends_with(' ') && below.starts_with(&hash[..20]) && below.contains(" (on_request) < "), "{stack}");
        assert!(below.split(" < ").last().unwrap().starts_with("ringway+0x"), "{stack}");
        assert_eq!(governed.metric(metric), Some(count as u64 + 1));
        // One line a second: the next call is to be written about again.
        thread::sleep(Duration::from_millis(1100));
    }
    governed.gateway.stop();
}

#[test]
fn calls_within_the_budget_are_not_logged_however_many_there_are() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DSALT=\"within\""]);
    // One connection, and its worker is in hooks nearly all the time: each look finds the same frame.
    let governed = Governed::start(with_slow(&file, &origin, "hook_budget = \"1s\"\nhook_limit = \"3s\""));
    let mut client = Client::connect(governed.address());
    for _ in 0..100 {
        assert_eq!(client.get("/busy/40").header("x-seen"), Some("1"));
    }
    // A worker that waits in the kernel has no hook.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(client.get("/").header("x-seen"), Some("1"));
    assert!(warnings(&governed).is_empty());
    assert_eq!(governed.metric("ringway_hook_over_budget_total{plugin=\"slow\"}"), Some(0));
    assert_eq!(governed.metric("ringway_restarts_total"), Some(0));
    governed.gateway.stop();
}

#[test]
fn a_hook_that_never_returns_ends_the_process_with_a_record_and_is_quarantined_after_the_third_time() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DSALT=\"never\""]);
    let governed = Governed::start(with_slow(&file, &origin, "hook_budget = \"100ms\"\nhook_limit = \"1s\""));
    let facts = run(&["plugin", "inspect", "-j", &file]);
    for time in 1..=3 {
        let mut client = Client::connect(governed.address());
        client.send("GET /never HTTP/1.1\r\nhost: test\r\n\r\n");
        client.expect_end();
        eventually("it answers again", || answers(governed.address()));
        let crashes = run(&["crash", "show", "-j", "--admin", &governed.admin])["crashes"].as_array().unwrap().clone();
        assert_eq!(crashes.len(), time);
        let last = &crashes[time - 1];
        let named = ["signal", "plugin", "version", "build_id", "hook", "link"].map(|key| last[key].to_string().trim_matches('"').to_owned());
        assert_eq!(named, ["SIGABRT", "slow", "2.1", facts["build_id"].as_str().unwrap(), "on_request", "1"]);
        let cause = last["cause"].as_str().unwrap();
        assert!(cause.starts_with("its hook ran for ") && cause.ends_with(" ms, longer than timeouts.hook_limit"), "{cause}");
        assert!(last["thread"].as_str().unwrap().starts_with("worker-"), "{last}");
        assert!(last["module"].as_str().unwrap().contains(&format!("{}.so", facts["sha256"].as_str().unwrap())), "{last}");
    }
    governed.gateway.wait_for("quarantined: it brought the process down 3 times within 5m");
    assert_eq!(governed.good("GET", "/api/plugins/slow", "")["status"], "quarantined");
    assert_eq!(get(governed.address(), "/never").header("x-seen"), Some("0"), "the path is an ordinary one without it");
    let text = ringway(&["crash", "show", "--admin", &governed.admin]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("SIGABRT  plugin slow 2.1\n") && text.contains("cause         its hook ran for "), "{text}");
    governed.gateway.stop();
}

#[test]
fn without_a_supervisor_a_hook_over_its_limit_is_only_logged() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DSALT=\"alone\""]);
    let made = with_slow(&file, &origin, "hook_budget = \"off\"\nhook_limit = \"100ms\"").server("supervisor = false");
    let governed = start(folder.path(), made);
    hold(folder.path(), &governed, "/spin/a", || drop(governed.gateway.wait_for("no supervisor would start the process again")));
    assert!(warnings(&governed).is_empty(), "the budget is off");
    // A reload changes the bounds of the process that runs.
    let text = std::fs::read_to_string(governed.file()).unwrap().replace("hook_budget = \"off\"", "hook_budget = \"100ms\"");
    std::fs::write(governed.file(), text.replace("hook_limit = \"100ms\"", "hook_limit = \"off\"")).unwrap();
    governed.good("POST", "/api/reload", "");
    hold(folder.path(), &governed, "/spin/b", || assert_eq!(governed.gateway.said(1, OVER_BUDGET), 1));
    governed.gateway.stop();
}

/// Nobody can call a hook back. A gateway that is told to end does so all the same.
#[test]
fn a_hook_that_never_returns_does_not_keep_the_gateway_from_ending() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DSALT=\"end\""]);
    let mut governed = start(folder.path(), with_slow(&file, &origin, "hook_budget = \"100ms\"\nhook_limit = \"off\"\ndrain = \"200ms\""));
    let serving = governed.gateway.serving_pid();
    let mut client = Client::connect(governed.address());
    client.send("GET /sleep/never HTTP/1.1\r\nhost: test\r\n\r\n");
    governed.gateway.wait_for(OVER_BUDGET);
    governed.gateway.signal(libc::SIGTERM);
    governed.gateway.wait("the supervisor ends");
    governed.gateway.wait_for("a worker does not stop");
    assert!(!Path::new(&format!("/proc/{serving}")).exists());
}
