//! What the logs say, and that nobody can fill or mute them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::gateway::*;

/// An upstream behind whose address nobody listens, and a route to it.
const NOBODY: &str = "[[upstream]]\nname = \"nobody\"\nservers = [\"127.0.0.1:1\"]\n[[route]]\npath = \"/nobody\"\nupstream = \"nobody\"\n";

/// Lines about what clients do neither take the place of lines about upstreams nor, where they are not printed at all, of each other's.
#[test]
fn a_flood_of_requests_without_a_route_mutes_nothing_else() {
    for level in ["info", "debug"] {
        let gateway = Gateway::start(&config().server(&format!("log_level = {level:?}")).with(NOBODY));
        let mut client = Client::connect(gateway.address());
        for _ in 0..5 {
            client.send("GET /scan HTTP/1.1\r\nhost: test\r\n\r\n".repeat(60));
            for _ in 0..60 {
                assert_eq!(client.response().status, 404);
            }
            assert_eq!(client.get("/nobody").status, 502);
        }
        assert_eq!(gateway.events(5, |event| event["reason"] == "upstream_connect_failed"), 5, "{level}");
        gateway.stop();
    }
}

/// Nothing else is logged afterwards: the notice comes by itself.
#[test]
fn the_end_of_a_flood_says_how_many_lines_were_left_out() {
    let gateway = Gateway::start(&config().with(NOBODY));
    for _ in 0..60 {
        let mut client = Client::connect(gateway.address());
        client.send("GET / HTTP/1.1\r\n\r\n");
        assert_eq!(client.response().status, 400);
    }
    let refused = |event: &Value| event["message"] == "request refused";
    eventually("every line was written or counted", || {
        let events: Vec<Value> = gateway.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let suppressed: u64 = events.iter().filter(|event| event["about"] == "client").filter_map(|event| event["suppressed"].as_u64()).sum();
        events.iter().filter(|event| refused(event)).count() as u64 + suppressed == 60
    });
    gateway.stop();
}

#[test]
fn connections_that_a_bound_refuses_are_logged_with_their_address() {
    for (bound, reason) in [("connections", "connections_exhausted"), ("connections_per_address", "connections_of_peer_exhausted")] {
        let gateway = Gateway::start(&config().with(&format!("{NOBODY}\n[limits]\n{bound} = 1")));
        let mut first = Client::connect(gateway.address());
        assert_eq!(first.get("/").status, 404);
        for _ in 0..30 {
            Client::connect(gateway.address()).expect_end();
        }
        gateway.events(1, |event| event["level"] == "WARN" && event["peer"] == "127.0.0.1" && event["reason"] == reason);
        gateway.events(1, |event| event["level"] == "WARN" && event["about"] == reason && event["suppressed"].as_u64() > Some(0));
        assert!(gateway.log().iter().filter(|line| line.contains("connection refused")).count() < 30, "they are bounded");
        gateway.stop();
    }
}

/// The lines of an access log.
fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn targets(log: &Path) -> Vec<String> {
    lines(log).iter().map(|line| line["target"].as_str().unwrap_or_default().to_owned()).collect()
}

fn has(log: &Path, target: &str) -> bool {
    targets(log).iter().any(|found| found == target)
}

const OPENED: &str = "the access log was opened anew";

#[test]
fn the_access_log_is_opened_anew_by_signals() {
    for supervisor in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (log, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let gateway = Gateway::start(&config().server(&format!("supervisor = {supervisor}\naccess_log = {:?}", log.display().to_string())).with(NOBODY));
        get(gateway.address(), "/first");
        eventually("it is logged", || has(&log, "/first"));
        for (signal, target) in [(libc::SIGUSR1, "/usr1"), (libc::SIGHUP, "/hup")] {
            fs::rename(&log, &old).unwrap();
            let moved = fs::metadata(&old).unwrap().len();
            gateway.signal(signal);
            eventually("there is a new file before there is a line for it", || log.exists());
            get(gateway.address(), target);
            eventually("the line is in the new file", || has(&log, target));
            assert_eq!(fs::metadata(&old).unwrap().len(), moved, "the old file does not grow");
        }
        assert_eq!(gateway.said(2, OPENED), 2);
        // A file that cannot be opened: the one that is open stays in use.
        fs::rename(&log, &old).unwrap();
        fs::create_dir(&log).unwrap();
        gateway.signal(libc::SIGUSR1);
        let said = gateway.wait_for("the file that was open stays in use");
        assert!(said.contains(&format!("server.access_log: {} cannot be opened", log.display())), "{said}");
        get(gateway.address(), "/kept");
        eventually("the old file has the line", || has(&old, "/kept"));
        gateway.stop();
    }
}

/// A process that another one has followed still finishes exchanges, and logs them.
#[test]
fn a_process_that_is_leaving_opens_the_access_log_anew_too() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let (log, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let gateway = Gateway::start(&config().server(&format!("access_log = {:?}", log.display().to_string())).to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("GET /slow/4000 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("it is under way", || origin.begun() == 1);
    gateway.signal(libc::SIGUSR2);
    gateway.said(1, "upgrade: the new gateway process serves");
    fs::rename(&log, &old).unwrap();
    gateway.signal(libc::SIGUSR1);
    assert_eq!(gateway.said(2, OPENED), 2);
    assert_eq!(client.response().status, 200);
    eventually("the line is in the new file", || has(&log, "/slow/4000"));
    assert!(!has(&old, "/slow/4000"));
    gateway.stop();
}

/// Whatever a service manager sends: nothing but the end ends the gateway.
#[test]
fn signals_of_operators_are_never_left_to_their_default_action() {
    let origin = Origin::start();
    let single = config().server("supervisor = false").to(&[origin.address()]);
    let starts: [fn(&Config, &str) -> Gateway; 3] = [
        |config, _| Gateway::start(config),
        |_, origin| Gateway::command(&["proxy", "--from", "127.0.0.1:0", "--to", origin]),
        |_, origin| Gateway::start(&crate::gateway::config().to(&[origin])),
    ];
    for (at, start) in starts.into_iter().enumerate() {
        let mut gateway = start(&single, origin.address());
        // The process that serves is the child of the supervisor in the last round.
        let serving = gateway.serving_pid();
        for number in [libc::SIGUSR1, libc::SIGUSR2] {
            signal(serving, number);
            assert_eq!(get(gateway.address(), "/bytes/1").status, 200, "{number} in round {at}");
        }
        gateway.wait_for("SIGUSR2 is ignored");
        gateway.signal(libc::SIGUSR1);
        assert_eq!(get(gateway.address(), "/bytes/1").status, 200);
        assert_eq!(gateway.ended(), None);
        gateway.signal(libc::SIGQUIT);
        assert_eq!(gateway.wait("SIGQUIT ends it").code(), Some(0), "{:?}", gateway.log());
        gateway.wait_for("draining: accepting no more");
    }
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_told() {
    let gateway = Gateway::start(&config().server("access_log = \"/dev/full\"\nadmin = \"127.0.0.1:0\"").with(NOBODY));
    for _ in 0..3 {
        assert_eq!(get(gateway.address(), "/").status, 404);
    }
    eventually("they are counted", || gateway.metric("ringway_log_lines_dropped_total{log=\"access\"}") == 3);
    assert_eq!(gateway.metric("ringway_log_lines_dropped_total{log=\"diagnostics\"}"), 0);
    let said: Value = serde_json::from_str(&gateway.wait_for("access log lines were lost")).unwrap();
    assert_eq!((&said["level"], &said["no_room"]), (&"WARN".into(), &0.into()), "{said}");
    assert!(said["not_written"].as_u64() > Some(0) && said["error"].as_str().unwrap().contains("No space left"), "{said}");
    gateway.stop();
}

/// A pipe that nobody reads: exchanges go on, and what finds no room is counted.
#[test]
fn lines_that_find_no_room_are_counted_and_told() {
    let launch = Launch { unread_output: true, ..Launch::default() };
    let gateway = launch.start(&config().server("access_log = \"stdout\"\nadmin = \"127.0.0.1:0\"").with(NOBODY));
    let mut client = Client::connect(gateway.address());
    // More than the bound of 32 MiB.
    let request = format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "x".repeat(7000));
    for _ in 0..500 {
        client.send(request.repeat(10));
        for _ in 0..10 {
            let response = client.response();
            assert_eq!(response.status, 404);
        }
    }
    assert!(gateway.metric("ringway_log_lines_dropped_total{log=\"access\"}") > 0);
    let said: Value = serde_json::from_str(&gateway.wait_for("access log lines were lost")).unwrap();
    assert!(said["no_room"].as_u64() > Some(0) && said["slow"].is_string() && said["not_written"] == 0, "{said}");
    gateway.stop();
}
