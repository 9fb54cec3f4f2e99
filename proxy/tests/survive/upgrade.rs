//! Another program takes over with the same sockets while traffic flows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::*;
use crate::crash::{built, telling};
use crate::gateway::*;
use crate::slow::{start, with_slow};

const CLIENTS: usize = 16;
const UPGRADES: usize = 5;

/// Asks on one connection after the other: a new one only when the last answer announced its end.
fn load(address: &str, done: &AtomicBool, answered: &AtomicU64) {
    let mut client = Client::connect(address);
    while !done.load(Ordering::Relaxed) {
        assert_eq!(client.get_on_and_on("/").status, 200);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn upgrades_under_load_fail_no_request() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    origin.forget();
    let governed = Governed::start(config().workers(2).to(&[origin.address()]));
    // Another file, so that the path proves which one runs.
    let binary = folder.path().join("ringway-next");
    fs::copy(env!("CARGO_BIN_EXE_ringway"), &binary).unwrap();
    let (done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = governed.address().to_owned();
    thread::scope(|scope| {
        let _stops = Stops(&done);
        for _ in 0..CLIENTS {
            scope.spawn(|| load(&address, &done, &answered));
        }
        let mut serving = u64::from(governed.gateway.serving_pid());
        for round in 0..UPGRADES {
            let body = if round == 0 { json!({ "binary": binary }) } else { json!({}) };
            let outcome = governed.good("POST", "/api/upgrade", &body.to_string());
            assert_eq!(outcome["former_pid"], serving);
            serving = outcome["pid"].as_u64().unwrap();
            let runs = fs::read_link(format!("/proc/{serving}/exe")).unwrap();
            assert_eq!(runs, binary, "without a choice it is the program of the last upgrade");
            let before = answered.load(Ordering::Relaxed);
            eventually("traffic goes on", || answered.load(Ordering::Relaxed) > before + 500);
        }
    });
    println!("upgrades {UPGRADES}, requests {}, failed 0", answered.load(Ordering::Relaxed));
    assert_eq!(governed.gateway.said(UPGRADES, "a former gateway process has ended"), UPGRADES);
    // By signal, too.
    governed.gateway.signal(libc::SIGUSR2);
    assert_eq!(governed.gateway.said(UPGRADES + 1, "upgrade: the new gateway process serves"), UPGRADES + 1);
    assert_eq!(get(&address, "/").status, 200);
    governed.gateway.stop();
}

/// The process that is to follow has begun with what was in force: a change would be undone by it.
#[test]
fn changes_wait_until_an_upgrade_is_over() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DLOAD_WAITS", "-DSALT=\"load\""]);
    let goes_on = folder.path().join("load");
    fs::write(&goes_on, "").unwrap();
    let governed = start(folder.path(), with_slow(&file, &origin, ""));
    for (upgrades, by_signal) in [(1, false), (2, true)] {
        fs::remove_file(&goes_on).unwrap();
        thread::scope(|scope| {
            let asker = (!by_signal).then(|| scope.spawn(|| governed.good("POST", "/api/upgrade", "")));
            if by_signal {
                governed.gateway.signal(libc::SIGUSR2);
            }
            governed.gateway.said(upgrades, "upgrade: a new gateway process starts");
            let asked = governed.ask("POST", "/api/reload", "");
            let served = get(governed.address(), "/");
            fs::write(&goes_on, "").unwrap();
            asker.map(|asker| asker.join().unwrap());
            assert!(asked.status == 409 && asked.text().contains("an upgrade is under way: ask again when it is over"), "{by_signal} {asked:?}");
            assert_eq!(served.header("x-seen"), Some("1"));
        });
        assert_eq!(governed.gateway.said(upgrades, "upgrade: the new gateway process serves"), upgrades);
        assert_eq!(governed.gateway.said(upgrades, "a former gateway process has ended"), upgrades);
        governed.good("POST", "/api/reload", "");
    }
    governed.gateway.stop();
}

#[test]
fn an_upgrade_that_fails_changes_nothing_and_says_why() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let governed = Governed::start(config().to(&[origin.address()]));
    let mut client = Client::connect(governed.address());
    assert_eq!(client.get("/").status, 200);
    let script = |name: &str, text: &str, mode: u32| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    };
    let ends = script("ends", "#!/bin/sh\nexit 3\n", 0o755);
    let plain = script("plain", "no program\n", 0o644);
    // The supervisor would wait for a writer, and for nothing else.
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o700.into(), 0).unwrap();
    for (binary, what) in [
        ("/no/such/program", "/no/such/program cannot be started: No such file or directory"),
        (pipe.to_str().unwrap(), "pipe cannot be started: it is no regular file"),
        (plain.to_str().unwrap(), "cannot be started: Permission denied"),
        (ends.to_str().unwrap(), "the new process ended (exit status "),
    ] {
        let (status, reason) = governed.refused("POST", "/api/upgrade", &json!({ "binary": binary }).to_string());
        assert!(status == 422 && reason.starts_with("nothing was changed: ") && reason.contains(what), "{binary}: {status} {reason}");
        assert_eq!(client.get("/").status, 200, "the connection goes on");
    }
    let output = ringway(&["upgrade", "--admin", &governed.admin, "--binary", "/no/such/program"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("nothing was changed"), "{said}");
    governed.gateway.stop();
}

/// Between two processes no probe and no order is lost: a connection that the former one has accepted is answered by it.
#[test]
fn who_still_reaches_the_former_process_hears_that_the_gateway_is_ready() {
    let origin = Origin::start();
    let governed = Governed::start(config().to(&[origin.address()]));
    let begun = |line: &str| {
        let mut client = Client::connect(&governed.admin);
        client.send(format!("{line} HTTP/1.1\r\n"));
        client
    };
    let mut clients = [begun("GET /readyz"), begun("POST /api/reload")];
    // Connections are accepted one after the other: those two are.
    governed.good("POST", "/api/upgrade", "");
    let [probe, order] = clients.each_mut().map(|client| {
        client.send("host: localhost\r\n\r\n");
        client.response()
    });
    assert!(probe.status == 200 && probe.text().contains("\"ready\""), "{probe:?}");
    assert!(order.status == 503 && order.text().contains("another process serves by now: ask again"), "{order:?}");
    assert_eq!(governed.good("GET", "/readyz", "")["status"], "ready");
    governed.gateway.stop();
}

#[test]
fn one_interrupt_lets_every_process_finish_what_it_has_and_a_second_one_ends_them() {
    let released = Arc::new(AtomicBool::new(false));
    let origin = Origin::answering({
        let released = Arc::clone(&released);
        move |_| {
            let begun = Instant::now();
            while !released.load(Ordering::Relaxed) && begun.elapsed() < DEADLINE {
                thread::sleep(Duration::from_millis(5));
            }
            reply(200, &[], "")
        }
    });
    const ONCE: &str = "interrupted while draining: one more SIGINT ends at once";
    // An exchange of a process that leaves, and one of a process that drains already.
    for (leaves, interrupts) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
        released.store(false, Ordering::Relaxed);
        let mut governed = Governed::start(config().to(&[origin.address()]));
        let before = origin.connections();
        let mut client = Client::connect(governed.address());
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        eventually("the origin is asked", || origin.connections() > before);
        if leaves {
            governed.good("POST", "/api/upgrade", "");
        } else {
            governed.gateway.signal(libc::SIGTERM);
            governed.gateway.wait_for("draining: accepting no more");
        }
        governed.gateway.signal(libc::SIGINT);
        assert_eq!(governed.gateway.said(1, ONCE), 1);
        if interrupts == 2 {
            governed.gateway.signal(libc::SIGINT);
            client.expect_end();
        }
        released.store(true, Ordering::Relaxed);
        if interrupts == 1 {
            assert_eq!(client.response().status, 200, "{leaves}");
        }
        let code = governed.gateway.wait("the end").code().unwrap();
        let is_expected = match (leaves, interrupts) {
            (_, 1) => code == 0,
            (false, _) => code == 130,
            // It is that of the process that serves, which may have ended before the second one came.
            (true, _) => [0, 130].contains(&code),
        };
        assert!(is_expected, "{leaves} {interrupts}: {code}");
    }
}

/// The next process begins with the configuration file's text: whoever orders it hears what that does not say.
#[test]
fn an_upgrade_that_would_undo_changes_names_them_and_wants_to_be_forced() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let [first, second] = ["1", "2"].map(|version| versioned(folder.path(), version, &[]));
    let governed = Governed::start(with_versioned(&first, &origin));
    let added = json!({ "path": second, "routes": ["all"] }).to_string();
    let refused = |what: &[&str]| {
        let (status, reason) = governed.refused("POST", "/api/upgrade", "");
        let expected = format!("the upgrade would undo what the configuration file does not say: {}; put it there and reload, or use `force`", what.join(", "));
        assert_eq!((status, reason), (409, expected));
    };
    governed.good("POST", "/api/plugins/added", &added);
    refused(&["the plugin `added` was loaded"]);
    governed.good("PUT", "/api/plugins/versioned", &json!({ "path": second }).to_string());
    refused(&["the plugin `versioned` was swapped", "the plugin `added` was loaded"]);
    governed.good("DELETE", "/api/plugins/versioned?force", "");
    refused(&["the plugin `added` was loaded", "the plugin `versioned` was unloaded"]);
    governed.good("POST", "/api/plugins/versioned", &json!({ "path": first }).to_string());
    refused(&["the plugin `added` was loaded", "the plugin `versioned` was attached to other routes"]);
    let upgrade = |more: &[&str]| ringway(&[&["upgrade", "--admin", &governed.admin], more].concat()).output().unwrap();
    let output = upgrade(&[]);
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("use `force`"), "{output:?}");
    assert_eq!(upgrade(&["--force"]).status.code(), Some(0));
    let undone = |count: usize| {
        let says =
            |event: &Value| event["message"].as_str().is_some_and(|text| text.starts_with("the upgrade undoes what the configuration file does not say: "));
        assert_eq!(governed.gateway.events(count, |event| event["level"] == "WARN" && says(event)), count);
    };
    undone(1);
    assert_eq!((governed.ask("GET", "/api/plugins/added", "").status, governed.versions().0.as_str()), (404, "1"));
    // A file with another version of a plugin says the same.
    governed.good("PUT", "/api/plugins/versioned", "{}");
    governed.good("POST", "/api/upgrade", "");
    // A signal has nobody to ask back, and the log has it.
    governed.good("POST", "/api/plugins/added", &added);
    governed.gateway.signal(libc::SIGUSR2);
    undone(2);
    governed.gateway.stop();
}
