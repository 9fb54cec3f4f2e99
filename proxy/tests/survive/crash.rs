//! The process dies and is there again: what the record says, who is quarantined, what clients see.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::admin::*;
use crate::gateway::*;

const CLIENTS: usize = 16;
/// One path in so many kills the process.
const ONE_IN: u64 = 1000;

/// The C plugin that crashes, compiled into `folder`.
pub fn fatal(folder: &Path, flags: &[&str]) -> String {
    built("fatal", folder, flags)
}

/// `NAME.c` of this folder, compiled into `folder`.
pub fn built(name: &str, folder: &Path, flags: &[&str]) -> String {
    let source = &format!("{}/tests/survive/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/../abi/include");
    let output = folder.join(format!("{name}.so")).display().to_string();
    let mut command = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
    command.args(["-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,--build-id", "-Wno-infinite-recursion", include]);
    let status = command.args(flags).args(["-o", &output, source]).status().unwrap();
    assert!(status.success());
    output
}

/// An origin that says whether the plugin saw the request.
pub fn telling() -> Origin {
    let origin = Origin::answering(|request| reply(200, &[("x-seen", request.header("x-seen").unwrap_or("0"))], ""));
    origin.forget();
    origin
}

/// A gateway with the plugin in its only route.
pub fn with_fatal(file: &str, origin: &Origin, on_error: &str, more: &str) -> Config {
    config().workers(2).upstream("app", &[origin.address()], "").with(&format!(
        "[[plugin]]\nname = \"killer\"\npath = {file:?}\non_error = \"{on_error}\"\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"killer\"]\n{more}"
    ))
}

pub fn run(arguments: &[&str]) -> Value {
    let output = ringway(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Sends a request that ends the process; waits until it serves again. How long that took.
fn kill(address: &str, path: &str) -> Duration {
    let mut client = Client::connect(address);
    client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
    client.expect_end();
    let begun = Instant::now();
    eventually("it answers again", || answers(address));
    begun.elapsed()
}

/// Whether a request on a new connection is answered with 200.
pub fn answers(address: &str) -> bool {
    let mut client = Client::connect(address);
    client.try_send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").is_ok() && client.try_response(false).is_ok_and(|response| response.status == 200)
}

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    answered: AtomicU64,
    connects: AtomicU64,
    refused: AtomicU64,
    /// Exchanges that were in flight when the process died.
    cut: AtomicU64,
    /// From the end of the connection that killed it to the next answer.
    gaps: Mutex<Vec<Duration>>,
    done: AtomicBool,
}

/// Asks as fast as it can, on a new connection whenever the last one has ended.
fn load(address: &str, tally: &Tally) {
    let mut client: Option<Client> = None;
    while !tally.done.load(Ordering::Relaxed) {
        let mut connected = match client.take() {
            Some(client) => client,
            None => {
                tally.connects.fetch_add(1, Ordering::Relaxed);
                match Client::try_connect(address) {
                    Ok(client) => client,
                    Err(error) => {
                        if error.kind() == ErrorKind::ConnectionRefused {
                            tally.refused.fetch_add(1, Ordering::Relaxed);
                        }
                        continue;
                    }
                }
            }
        };
        let number = tally.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let path = if number.is_multiple_of(ONE_IN) { "/segv" } else { "/fine" };
        let sent = connected.try_send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        match sent.map_err(|error| error.to_string()).and_then(|()| connected.try_response(false)) {
            Ok(response) => {
                assert_eq!(response.status, 200);
                tally.answered.fetch_add(1, Ordering::Relaxed);
                client = Some(connected);
            }
            Err(_) => {
                tally.cut.fetch_add(1, Ordering::Relaxed);
                if path == "/segv" {
                    let begun = Instant::now();
                    eventually("it answers again", || answers(address));
                    tally.gaps.lock().unwrap().push(begun.elapsed());
                }
            }
        }
    }
}

#[test]
fn a_plugin_that_crashes_under_load_is_named_and_after_the_third_time_out() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let (file, state) = (fatal(folder.path(), &[]), folder.path().join("state"));
    let made = with_fatal(&file, &origin, "open", "").server(&format!("state = {state:?}"));
    let governed = Governed::start(made);
    let build_id = run(&["plugin", "inspect", "-j", &file])["build_id"].as_str().unwrap().to_owned();
    let (tally, address) = (Tally::default(), governed.address().to_owned());
    thread::scope(|scope| {
        let _stops = Stops(&tally.done);
        for _ in 0..CLIENTS {
            scope.spawn(|| load(&address, &tally));
        }
        governed.gateway.wait_for("quarantined: it brought the process down 3 times within 5m");
        // Far enough for several paths that would kill.
        let from = tally.answered.load(Ordering::Relaxed);
        eventually("traffic flows without it", || tally.answered.load(Ordering::Relaxed) > from + 5 * ONE_IN);
    });
    let count = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let mut gaps: Vec<u128> = tally.gaps.lock().unwrap().iter().map(Duration::as_millis).collect();
    gaps.sort_unstable();
    println!(
        "requests {}, answered {}, cut off by a crash {}, connects {}, refused {}, answers again after {gaps:?} ms",
        count(&tally.requests),
        count(&tally.answered),
        count(&tally.cut),
        count(&tally.connects),
        count(&tally.refused),
    );
    assert_eq!(count(&tally.refused), 0);
    assert_eq!(governed.gateway.said(3, "the gateway process died"), 3);
    assert!(gaps.iter().all(|gap| *gap < 5_000), "{gaps:?} ms");

    let shown = governed.good("GET", "/api/plugins/killer", "");
    assert_eq!((shown["status"].as_str(), shown["reason"].as_str()), (Some("quarantined"), Some("it brought the process down 3 times within 5m")));
    assert_eq!(get(&address, "/segv").header("x-seen"), Some("0"), "the path is an ordinary one without it");
    assert_eq!(governed.metric("ringway_restarts_total"), Some(3));

    let state = state.display().to_string();
    for arguments in [["crash", "show", "-j", "--admin", &governed.admin], ["crash", "show", "-j", "--state", &state]] {
        let crashes = run(&arguments)["crashes"].as_array().unwrap().clone();
        assert_eq!(crashes.len(), 3);
        for crash in &crashes {
            let named = ["signal", "plugin", "version", "build_id", "hook", "address"].map(|key| crash[key].as_str().unwrap());
            assert_eq!(named, ["SIGSEGV", "killer", "1.5", build_id.as_str(), "on_request", "0x8"]);
            assert!(crash["thread"].as_str().unwrap().starts_with("worker-"), "{crash}");
            assert_eq!(crash["request_hash"], crashes[0]["request_hash"], "the same request line each time");
            // The offset leads to the function that writes nowhere: `on_request`, into which it is inlined.
            assert!(crash["module"].as_str().unwrap().ends_with(&format!("{}.so", crash["hash"].as_str().unwrap())), "{crash}");
            assert_eq!(crash["offset"], crashes[0]["offset"]);
        }
    }
    let text = ringway(&["crash", "show", "--state", &state]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("SIGSEGV  plugin killer 1.5\n") && text.contains(&format!("build id      {build_id}\n")), "{text}");
    assert!(text.contains("hook          on_request, link 1 of its chain\n"), "{text}");

    // An operator may try again: its crashes are forgotten, and it is loaded now.
    assert_eq!(governed.good("POST", "/api/plugins/killer/enable", "")["status"], "active");
    assert_eq!(get(&address, "/fine").header("x-seen"), Some("1"));
    kill(&address, "/segv");
    assert_eq!(governed.good("GET", "/api/plugins/killer", "")["status"], "active", "one crash is not three");
    governed.gateway.stop();
}

#[test]
fn every_fatal_signal_leaves_a_record_and_a_restart_keeps_what_operators_decided() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let other = versioned(folder.path(), "1", &[]);
    let more = format!("[limits]\nplugin_crashes = 0\n[[plugin]]\nname = \"other\"\npath = {other:?}\n");
    let governed = Governed::start(with_fatal(&fatal(folder.path(), &[]), &origin, "open", &more));
    governed.good("POST", "/api/plugins/other/disable", "");
    for (path, signal) in [("/abort", "SIGABRT"), ("/fpe", "SIGFPE"), ("/ill", "SIGILL"), ("/overflow", "SIGSEGV"), ("/segv", "SIGSEGV")] {
        kill(governed.address(), path);
        let crashes = governed.good("GET", "/api/crashes", "")["crashes"].as_array().unwrap().clone();
        let last = crashes.last().unwrap();
        assert_eq!([&last["signal"], &last["plugin"], &last["hook"]], [signal, "killer", "on_request"], "{path}");
    }
    assert_eq!(governed.good("GET", "/api/plugins/killer", "")["status"], "active", "0 means never");
    assert_eq!(governed.good("GET", "/api/plugins/other", "")["status"], "disabled", "what was disabled stays disabled");
    governed.gateway.stop();
}

/// What the gateway tells its supervisor takes a while to read, since the configuration is long; of a death one hears at once.
#[test]
fn what_was_answered_is_not_lost_with_the_process_that_answered() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = versioned(folder.path(), "1", &[]);
    let long = format!("# {}\n", "long ".repeat(400_000));
    let governed = Governed::start(config().to(&[origin.address()]).with(&format!("{long}[[plugin]]\nname = \"other\"\npath = {file:?}\n")));
    let mut serving = governed.gateway.serving_pid();
    for (restarts, (order, status)) in [("disable", "disabled"), ("enable", "active")].into_iter().cycle().take(4).enumerate() {
        governed.good("POST", &format!("/api/plugins/other/{order}"), "");
        signal(serving, libc::SIGKILL);
        assert_eq!(governed.gateway.said(restarts + 1, "serving again"), restarts + 1);
        assert_eq!(governed.good("GET", "/api/plugins/other", "")["status"], status);
        let mut events = governed.gateway.log().into_iter().rev().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        serving = events.find(|event| event["message"] == "serving again").unwrap()["pid"].as_u64().unwrap() as u32;
    }
    governed.gateway.stop();
}

#[test]
fn a_plugin_that_crashes_at_load_is_not_opened_again_and_refuses_when_it_is_closed() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let governed = Governed::start(with_fatal(&fatal(folder.path(), &["-DAT_LOAD"]), &origin, "closed", ""));
    assert_eq!(get(governed.address(), "/").status, 500);
    let crashes = governed.good("GET", "/api/crashes", "");
    assert_eq!(crashes["crashes"].as_array().unwrap().iter().map(|crash| crash["hook"].as_str().unwrap()).collect::<Vec<_>>(), ["load"; 3]);
    // A version that does not crash ends the quarantine.
    let other = tempfile::tempdir().unwrap();
    let sound = fatal(other.path(), &[]);
    governed.good("PUT", "/api/plugins/killer", &serde_json::json!({ "path": sound }).to_string());
    assert_eq!(get(governed.address(), "/").header("x-seen"), Some("1"));
    governed.gateway.stop();
}

#[test]
fn a_process_that_is_killed_is_replaced_and_nobody_is_blamed() {
    let origin = telling();
    let governed = Governed::start(config().to(&[origin.address()]).listen("127.0.0.1:0"));
    assert_ne!(governed.gateway.pid(), governed.gateway.serving_pid());
    signal(governed.gateway.serving_pid(), libc::SIGKILL);
    governed.gateway.wait_for("serving again");
    assert_eq!(get(governed.address(), "/").status, 200);
    let crashes = governed.good("GET", "/api/crashes", "");
    assert_eq!((crashes["restarts"].as_u64(), crashes["crashes"][0]["signal"].as_str()), (Some(1), Some("SIGKILL")));
    assert!(crashes["crashes"][0]["plugin"].is_null());
    governed.gateway.stop();
}

#[test]
fn a_gateway_whose_supervisor_is_gone_drains_and_ends() {
    let origin = telling();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let serving = gateway.serving_pid();
    gateway.signal(libc::SIGKILL);
    gateway.wait_for("the supervisor is gone");
    eventually("the gateway process ends", || !Path::new(&format!("/proc/{serving}/exe")).exists());
}

#[test]
fn without_a_supervisor_there_is_one_process() {
    let origin = telling();
    let governed = Governed::start(config().server("supervisor = false").to(&[origin.address()]));
    assert_eq!(governed.gateway.pid(), governed.gateway.serving_pid());
    let (status, reason) = governed.refused("POST", "/api/upgrade", "");
    assert!(status == 409 && reason.starts_with("no supervisor holds the sockets"), "{status} {reason}");
    governed.gateway.stop();
}
