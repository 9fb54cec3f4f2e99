//! What the logs say, and that nobody can fill or mute them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

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
        assert_eq!(gateway.events(5, |event| event["reason"] == "upstream_connect_failed" && event["status"] == 502), 5, "{level}");
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
            expect_refused(gateway.address());
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

/// A gateway with an access log in its folder.
fn logging(config: Config) -> (Gateway, TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    (Gateway::start(&config.server(&format!("access_log = {:?}", log.display().to_string()))), folder, log)
}

/// Waits for a line with this value.
fn line_with(log: &Path, field: &str, value: impl Into<Value>) -> Value {
    let (mut found, value) = (None, value.into());
    eventually(&format!("a line with {field} {value}"), || {
        found = lines(log).into_iter().find(|line| line[field] == value);
        found.is_some()
    });
    found.unwrap()
}

/// Waits for a line of the diagnostics.
fn event(gateway: &Gateway, wanted: impl Fn(&Value) -> bool) -> Value {
    gateway.events(1, &wanted);
    let events = gateway.log();
    events.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(&wanted).unwrap()
}

/// What the deadline of a drain ends has its line, and its plugins hear of it, whatever it waited for.
#[test]
fn what_is_cut_off_by_the_end_of_a_drain_is_logged() {
    for driver in ["io_uring", "epoll"] {
        let origin = Origin::raw(|mut stream, origin| {
            let (mut buffer, mut piece) = (Vec::new(), [0; 1000]);
            let Some(request) = origin.read_request(&mut stream, &mut buffer, 0) else { return };
            let answer = match request.path() {
                "/body" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
                "/tunnel" => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello",
                _ => "",
            };
            let _ = stream.write_all(answer.as_bytes());
            if request.path() == "/body" {
                // Not with the head.
                thread::sleep(Duration::from_millis(50));
                let _ = stream.write_all(b"more");
            }
            while matches!(std::io::Read::read(&mut stream, &mut piece), Ok(count) if count > 0) {}
        });
        let routes = "[[route]]\npath = \"/waits\"\nupstream = \"app\"\nplugins = [\"delay\"]\n[[route]]\nupstream = \"app\"\nallow_upgrade = [\"echo\"]\n";
        let delay = plugin("delay");
        let more = format!("[timeouts]\ndrain = \"500ms\"\n[[plugin]]\nname = \"delay\"\npath = {delay:?}\n[plugin.config]\nmilliseconds = 60000\n{routes}");
        let made = config().server(&format!("driver = {driver:?}")).upstream("app", &[origin.address()], "").with(&more);
        let (mut gateway, _folder, log) = logging(made);
        let paths = ["/head", "/body", "/tunnel", "/waits", "/sends"];
        let mut clients: Vec<Client> = paths.iter().map(|_| Client::connect(gateway.address())).collect();
        for (client, path) in clients.iter_mut().zip(paths) {
            let more = match path {
                "/tunnel" => "connection: upgrade\r\nupgrade: echo\r\n\r\n",
                "/sends" => "content-length: 10\r\n\r\nhalf",
                _ => "\r\n",
            };
            client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n{more}"));
        }
        clients[1].head_response();
        assert_eq!(clients[1].read_exactly(8), b"halfmore");
        clients[2].head_response();
        assert_eq!(clients[2].read_exactly(5), b"hello");
        eventually("the upstream has all but the one that waits", || origin.connections() == 4);
        let mut unused = Client::connect(gateway.address());
        gateway.signal(libc::SIGTERM);
        assert_eq!(gateway.wait("the end").code(), Some(0));
        for (client, path) in clients.iter_mut().zip(paths) {
            client.read_to_end();
            let line = line_with(&log, "target", path);
            assert_eq!(line["reason"], "draining", "{driver} {line}");
            let expected = match path {
                "/body" => (200, 8),
                "/tunnel" => (101, 5),
                _ => continue,
            };
            assert_eq!((&line["status"], &line["response_bytes"]), (&expected.0.into(), &expected.1.into()), "{driver} {line}");
        }
        assert_eq!(lines(&log).len(), paths.len());
        unused.expect_end();
    }
}

#[test]
fn an_access_line_says_who_asked_what_and_who_answered() {
    let origin = Origin::start();
    let (gateway, _folder, log) = logging(config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send(b"POST /bytes/7?a=b HTTP/1.1\r\nhost: Example.com:81\r\nuser-agent: x\xff\"\\y\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(client.response().status, 200);
    let line = line_with(&log, "target", "/bytes/7?a=b");
    let expected = serde_json::json!({
        "listener": line["listener"], "peer": "127.0.0.1", "method": "POST", "version": "1.1", "host": "Example.com:81", "user_agent": "x\\xff\"\\x5cy",
        "route": "/", "upstream": "app", "server": origin.address(), "attempts": 1, "status": 200, "origin": "upstream", "request_bytes": 3, "response_bytes": 7,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&line[field], value, "{field}: {line}");
    }
    assert!(line["listener"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    let (whole, upstream) = (line["duration_ms"].as_f64().unwrap(), line["upstream_ms"].as_f64().unwrap());
    assert!(0.0 < upstream && upstream <= whole, "{line}");
    assert!(line["reason"].is_null() && line["plugin"].is_null(), "{line}");
    let mut client = Client::connect(gateway.address());
    client.send(format!("GET /old HTTP/1.0\r\nuser-agent: {}\r\n\r\n", "u".repeat(300)));
    client.response();
    let line = line_with(&log, "version", "1.0");
    assert_eq!(line["user_agent"], format!("{}...", "u".repeat(256)));
    assert!(line["host"].is_null(), "{line}");
    gateway.stop();
}

#[test]
fn requests_that_are_refused_have_an_access_line() {
    let (gateway, _folder, log) = logging(config().with(&format!("{NOBODY}\n[timeouts]\nhead = \"300ms\"")));
    let long = "x".repeat(9000);
    for (bytes, status, reason, method, target) in [
        ("GET /a HTTP/1.1\r\n\r\n".to_owned(), 400, "missing_host", Some("GET"), Some("/a".to_owned())),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414, "target_too_long", Some("GET"), Some(format!("/{}...", &long[..511]))),
        (format!("GET /b HTTP/1.1\r\nhost: a\r\nb: {long}{long}\r\n\r\n"), 431, "field_too_long", Some("GET"), Some("/b".to_owned())),
        ("GET /c HTTP/2.0\r\nhost: a\r\n\r\n".to_owned(), 505, "unsupported_version", Some("GET"), Some("/c".to_owned())),
        (format!("{} /d HTTP/1.1\r\nhost: a\r\n\r\n", "M".repeat(80)), 501, "method_too_long", None, None),
        ("\u{16}\u{3}\u{1} hello\r\n\r\n".to_owned(), 400, "not_http", None, None),
        ("GET /slow HTTP/1.1\r\nhost: a\r\n".to_owned(), 408, "head_timeout", Some("GET"), Some("/slow".to_owned())),
    ] {
        let mut client = Client::connect(gateway.address());
        client.send(bytes);
        assert_eq!(client.response().status, status, "{reason}");
        let line = line_with(&log, "reason", reason);
        assert_eq!((line["status"].as_u64(), line["method"].as_str(), line["target"].as_str()), (Some(u64::from(status)), method, target.as_deref()), "{line}");
        assert_eq!((&line["peer"], &line["origin"]), (&"127.0.0.1".into(), &"gateway".into()), "{line}");
    }
    gateway.stop();
}

/// Logs and counters tell one story.
#[test]
fn a_client_that_leaves_before_its_response_is_499_everywhere() {
    let origin = Origin::start();
    let (gateway, _folder, log) = logging(config().server("admin = \"127.0.0.1:0\"").to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("GET /slow/5000 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("it is under way", || origin.begun() == 1);
    client.reset();
    let line = line_with(&log, "reason", "client_closed");
    assert_eq!((&line["status"], line["origin"].is_null()), (&499.into(), true), "{line}");
    assert_eq!(event(&gateway, |event| event["reason"] == "client_closed")["status"], 499);
    let classes = ["4xx", "none"].map(|class| gateway.metric(&format!("ringway_responses_total{{class=\"{class}\"}}")));
    assert_eq!(classes, [1, 0]);
    gateway.stop();
}

#[test]
fn what_goes_wrong_with_a_server_names_it() {
    let origin = Origin::raw(|mut stream, origin| {
        let _ = origin.read_request(&mut stream, &mut Vec::new(), 0);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    });
    let other = Origin::start();
    let pair = format!("[[route]]\npath = \"/bytes\"\nupstream = \"pair\"\n[[upstream]]\nname = \"pair\"\nservers = [\"127.0.0.1:1\", {:?}]", other.address());
    let (gateway, _folder, log) = logging(config().with(NOBODY).with(&pair).to(&[origin.address()]));
    assert_eq!(get(gateway.address(), "/nobody").status, 502);
    let said = |reason: &str| {
        let line = line_with(&log, "reason", reason);
        // What was tried again has no status.
        let event = event(&gateway, |event| event["reason"] == reason && event["status"].is_u64());
        for field in ["upstream", "server", "status", "request_id", "peer"] {
            assert_eq!(line[field], event[field], "{field}: {line} {event}");
        }
        [&line["upstream"], &line["server"], &line["status"]].map(|value| value.to_string().replace('"', ""))
    };
    assert_eq!(said("upstream_connect_failed"), ["nobody", "127.0.0.1:1", "502"]);
    // Cut off after its head: the status that was sent stays.
    let mut client = Client::connect(gateway.address());
    client.send("GET /cut HTTP/1.1\r\nhost: test\r\n\r\n");
    client.read_to_end();
    assert_eq!(said("upstream_truncated"), ["app", origin.address(), "200"]);
    for _ in 0..2 {
        assert_eq!(get(gateway.address(), "/bytes/1").status, 200);
    }
    let twice = || lines(&log).into_iter().find(|line| line["upstream"] == "pair" && line["attempts"] == 2);
    eventually("one of them was tried twice", || twice().is_some());
    let line = twice().unwrap();
    assert_eq!((&line["server"], &line["status"], line["reason"].is_null()), (&other.address().into(), &200.into(), true), "{line}");
    let event = event(&gateway, |event| event["upstream"] == "pair");
    assert_eq!((&event["server"], &event["message"]), (&"127.0.0.1:1".into(), &"tried again: the connection was refused or reset".into()), "{event}");
    gateway.stop();
}

/// The page and the code have the same fields.
#[test]
fn every_field_of_the_access_log_stands_in_the_reference() {
    const PAGE: &str = include_str!("../../docs/logs.md");
    let table = PAGE.split("## Diagnostics").next().unwrap().lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = table.map(str::to_owned).collect();
    let origin = Origin::start();
    let answering = config().plugin("bench-respond", "").with("[[route]]\npath = \"/answered\"\nplugins = [\"bench-respond\"]\n");
    let (gateway, _folder, log) = logging(answering.with(NOBODY).to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    for path in ["/nobody", "/answered", "/bytes/1"] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\nuser-agent: test\r\n\r\n"));
        client.response();
    }
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\n\r\n");
    client.response();
    eventually("all are logged", || lines(&log).len() == 4);
    let written: BTreeSet<String> = lines(&log).iter().flat_map(|line| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>()).collect();
    assert_eq!(written, documented);
    let answered = line_with(&log, "target", "/answered");
    assert_eq!((&answered["origin"], &answered["plugin"]), (&"plugin".into(), &"bench-respond".into()), "{answered}");
    gateway.stop();
}

#[test]
fn the_access_log_can_share_standard_error_with_the_diagnostics() {
    let gateway = Gateway::start(&config().server("access_log = \"stderr\"").with(NOBODY));
    assert_eq!(get(gateway.address(), "/nobody").status, 502);
    gateway.events(1, |event| event["target"] == "/nobody" && event["reason"] == "upstream_connect_failed");
    gateway.events(1, |event| event["level"] == "WARN" && event["reason"] == "upstream_connect_failed");
    gateway.stop();
}

#[test]
fn an_access_log_that_cannot_be_opened_is_found_by_check_and_named_by_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let check = |log: &str| {
        let file = folder.path().join("gateway.toml");
        fs::write(&file, config().server(&format!("access_log = {log:?}")).with(NOBODY).text()).unwrap();
        let output = ringway(&["check", "-c", file.to_str().unwrap()]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    fs::create_dir(folder.path().join("folder")).unwrap();
    for bad in [at("missing/access.log"), at("folder"), at("gateway.toml/access.log")] {
        let (code, said) = check(&bad);
        assert!(code == Some(1) && said.contains(&format!("server.access_log: {bad} cannot be opened")), "{code:?} {said}");
    }
    let missing = at("missing/access.log");
    let (code, said) = Launch::default().refuse(&config().server(&format!("access_log = {missing:?}")).with(NOBODY));
    assert!(code == Some(1) && said.contains(&format!("server.access_log: {missing} cannot be opened: No such file")), "{code:?} {said}");
    for word in ["Stdout", "none", "syslog"] {
        let (code, said) = check(word);
        assert!(code == Some(1) && said.contains(&format!("`{word}` is none of the words")) && said.contains("\"stderr\""), "{code:?} {said}");
    }
    for good in [at("access.log"), at("folder/access.log"), "stderr".into(), "/dev/null".into()] {
        assert_eq!(check(&good), (Some(0), String::new()), "{good}");
    }
    assert!(!Path::new(&at("access.log")).exists(), "nothing is created");
}
