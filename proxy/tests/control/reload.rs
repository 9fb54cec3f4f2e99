//! Configurations that are read again while traffic flows.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use crate::admin::*;
use crate::gateway::*;

/// A configuration whose route answers from this upstream, with the admin listener.
fn leading_to(origin: &Origin, more: &str) -> Config {
    config().workers(2).upstream("app", &[origin.address()], "").with("[[route]]\nname = \"all\"\nupstream = \"app\"").with(more)
}

fn rewrite(governed: &Governed, made: Config) {
    fs::write(governed.file(), made.server("admin = \"127.0.0.1:0\"").text()).unwrap();
}

#[test]
fn a_broken_configuration_changes_nothing_and_says_where() {
    let (first, second) = (origin(), origin());
    let governed = Governed::start(leading_to(&first, ""));
    let file = governed.file().display().to_string();
    // Each with the text at which the problem must be shown.
    for (made, shown_at, what) in [
        (leading_to(&second, "[[rout]]"), "rout]]", "unknown section [[rout]]"),
        (leading_to(&second, "[limits]\nslots = 128"), "128", "limits.slots cannot change while the gateway runs"),
        (leading_to(&second, "[[listener]]\naddress = \"127.0.0.1:0\"\nname = \"b\""), "", "the listener b cannot change while the gateway runs"),
        (leading_to(&second, "[[plugin]]\nname = \"p\"\npath = \"/no/such.so\""), "\"/no/such.so\"", "the plugin `p` cannot be read from /no/such.so"),
        (leading_to(&second, "[[plugin]]\nname = \"p\"\npath = \"/etc/passwd\""), "\"/etc/passwd\"", "it is not an ELF file"),
        (leading_to(&second, "").workers(1), "1\npin_workers", "server.workers cannot change while the gateway runs"),
    ] {
        rewrite(&governed, made);
        let text = fs::read_to_string(governed.file()).unwrap();
        let before = &text[..text.find(shown_at).filter(|_| !shown_at.is_empty()).unwrap_or(text.rfind("[[listener").unwrap())];
        let (line, column) = (before.matches('\n').count() + 1, before.len() - before.rfind('\n').unwrap());
        let (status, reason) = governed.refused("POST", "/api/reload", "");
        assert_eq!(status, 422, "{reason}");
        assert!(reason.starts_with(&format!("{file}:{line}:{column}: ")) && reason.contains(what), "wanted {line}:{column}: {what}: {reason}");
        get(governed.address(), "/");
    }
    let failed = |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.starts_with("nothing was changed: "));
    assert_eq!(governed.gateway.events(6, failed), 6);
    assert_eq!((first.count(), second.count()), (6, 0));
    rewrite(&governed, leading_to(&second, ""));
    governed.gateway.signal(libc::SIGHUP);
    governed.gateway.wait_for("change made");
    get(governed.address(), "/");
    assert_eq!((first.count(), second.count()), (6, 1));
    governed.gateway.stop();
}

#[test]
fn a_good_reload_under_load_drops_nothing() {
    let (first, second) = (origin(), origin());
    let governed = Governed::start(leading_to(&first, ""));
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = governed.address().to_owned();
    thread::scope(|scope| {
        let _stops = Stops(&stop);
        for number in 0..32 {
            let (stop, answered, address) = (&stop, &answered, &address);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for count in 0.. {
                    let path = format!("/{number}/{count}");
                    let response = client.get_on_and_on(&path);
                    assert_eq!((response.status, response.text()), (200, path));
                    answered.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        // The order of the upstreams changes too: what was index 0 is index 1.
        for round in 0..20 {
            let (used, other) = if round % 2 == 0 { (&second, &first) } else { (&first, &second) };
            let made = config()
                .workers(2)
                .upstream("other", &[other.address()], "")
                .upstream("app", &[used.address()], if round % 4 == 0 { "retries = 1" } else { "" })
                .with("[[route]]\nname = \"all\"\nupstream = \"app\"");
            rewrite(&governed, made);
            let before = answered.load(Ordering::Relaxed);
            governed.good("POST", "/api/reload", "");
            eventually("traffic goes on", || answered.load(Ordering::Relaxed) > before + 100);
        }
    });
    let total = answered.load(Ordering::Relaxed);
    // A response is counted when the gateway hears that it has left.
    eventually("each is counted, once", || governed.metric("ringway_responses_total{class=\"2xx\"}") == Some(total));
    assert_eq!((first.count() + second.count()) as u64, total);
    assert!(first.count() > 100 && second.count() > 100);
    governed.gateway.stop();
}

/// Whoever leaves the configuration is not checked any more, and whoever stays is checked once, even while an exchange that began under
/// an earlier configuration goes on.
#[test]
fn checks_end_with_the_configuration_that_asked_for_them() {
    let checked = || {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let origin = Origin::answering(move |request| {
            if request.header("user-agent") == Some("ringway-health") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            standard(request)
        });
        (origin, count)
    };
    let (a, b, c, constant) = (checked(), checked(), checked(), checked());
    let health = "[upstream.health]\ninterval = \"100ms\"\ntimeout = \"50ms\"\nfall = 100\n";
    let made = |used: &Origin| {
        let app = config().workers(2).upstream("app", &[used.address()], health);
        app.upstream("constant", &[constant.0.address()], health).with("[[route]]\nname = \"all\"\nupstream = \"app\"")
    };
    let governed = Governed::start(made(&a.0));
    let mut slow = Client::connect(governed.address());
    slow.send("GET /slow/4000 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("an exchange is under way", || a.0.begun() as u64 > a.1.load(Ordering::SeqCst));
    for (origin, _) in [&b, &c, &b, &a, &c, &b, &a, &c] {
        rewrite(&governed, made(origin));
        governed.good("POST", "/api/reload", "");
    }
    let counts = || [&a, &b, &c, &constant].map(|(_, count)| count.load(Ordering::SeqCst));
    let checks_more = |more: u64| {
        let before = counts();
        eventually("checks go on", || counts()[3] >= before[3] + more);
        let after = counts();
        [0, 1, 2, 3].map(|at| after[at] - before[at])
    };
    // A check that was under way may still come.
    checks_more(4);
    let [of_a, of_b, of_c, of_constant] = checks_more(20);
    assert_eq!((of_a, of_b), (0, 0));
    assert!((of_constant / 2..=of_constant + of_constant / 2).contains(&of_c), "{of_c} and {of_constant}");
    assert_eq!(slow.response().text(), "slow");
    governed.gateway.stop();
}

/// Switches to another protocol, then gives every byte back.
fn echo() -> Origin {
    Origin::raw(|mut stream, origin| {
        let mut buffer = Vec::new();
        if origin.read_request(&mut stream, &mut buffer, 0).is_none() {
            return;
        }
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        let Ok(mut from) = stream.try_clone() else { return };
        let _ = std::io::copy(&mut from, &mut stream);
    })
}

/// A tunnel that is open.
fn tunnel_to(governed: &Governed) -> Client {
    let mut tunnel = Client::connect(governed.address());
    tunnel.send(
        "GET /tunnel HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(tunnel.response().status, 101);
    tunnel
}

#[test]
fn a_tunnel_goes_on_across_reloads_under_load() {
    let (first, second, echo) = (origin(), origin(), echo());
    let made = |used: &Origin, round: usize| {
        let tunnel = "[[route]]\nname = \"tunnel\"\npath = \"/tunnel\"\nupstream = \"echo\"\nallow_upgrade = [\"websocket\"]";
        let all = format!("[[route]]\nname = \"all\"\nupstream = \"app\"\n[timeouts]\nfirst_byte = \"{}s\"", 10 + round);
        config().workers(2).upstream("app", &[used.address()], "").upstream("echo", &[echo.address()], "").with(tunnel).with(&all)
    };
    let governed = Governed::start(made(&first, 0));
    let mut tunnel = tunnel_to(&governed);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = governed.address().to_owned();
    let mut echoed = 0;
    thread::scope(|scope| {
        let _stops = Stops(&stop);
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(&address);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get_on_and_on("/").status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=10 {
            rewrite(&governed, made(if round % 2 == 0 { &first } else { &second }, round));
            // One message is on its way while the configuration changes, one follows.
            tunnel.send("during");
            governed.good("POST", "/api/reload", "");
            tunnel.send("behind");
            assert_eq!(tunnel.read_exactly(12), b"duringbehind", "round {round}");
            echoed += 12;
            let before = answered.load(Ordering::Relaxed);
            eventually("traffic goes on", || answered.load(Ordering::Relaxed) > before + 50);
        }
    });
    println!("reloads 10, requests {}, failed 0, bytes through one tunnel {echoed}", answered.load(Ordering::Relaxed));
    assert!(first.count() > 50 && second.count() > 50, "the configuration did change");
    tunnel.finish();
    assert!(tunnel.read_to_end().0.is_empty());
    governed.gateway.stop();
}

/// What earlier configurations led to is kept for the exchanges that can still use it, and no longer; and no id of it leads anywhere else meanwhile.
#[test]
fn reloads_beside_tunnels_keep_only_what_tunnels_can_use() {
    const UPSTREAMS: usize = 6;
    let (echo, (release, released)) = (echo(), mpsc::channel::<()>());
    let released = Mutex::new(released);
    // Its first request gets no answer, so that it is repeated: under the configuration that it began with.
    let held = Origin::answering(move |_| match released.lock().unwrap().recv() {
        Ok(()) => Vec::new(),
        Err(_) => reply(200, &[], "held"),
    });
    let origins: Vec<Origin> = (0..4).map(|number| Origin::answering(move |_| reply(200, &[], number.to_string()))).collect();
    // Every upstream changes with every round, and so does their order.
    let made = |round: usize| {
        let mut upstreams = vec![("echo".to_owned(), &echo), ("held".to_owned(), &held)];
        upstreams.extend((0..4).map(|at| (format!("u{at}"), &origins[(at + round) % 4])));
        upstreams.rotate_left(round % UPSTREAMS);
        let routes = (0..4).map(|at| format!("[[route]]\npath = \"/u{at}\"\nupstream = \"u{at}\"\n")).collect::<String>();
        let made = config()
            .workers(2)
            .with(&routes)
            .with("[[route]]\npath = \"/tunnel\"\nupstream = \"echo\"\nallow_upgrade = [\"websocket\"]\n[[route]]\npath = \"/held\"\nupstream = \"held\"");
        let lines = format!("idle_connections = {}", round + 1);
        upstreams.into_iter().fold(made, |made, (name, origin)| made.upstream(&name, &[origin.address()], &lines))
    };
    let governed = Governed::start(made(0));
    let reload = |round| {
        rewrite(&governed, made(round));
        governed.good("POST", "/api/reload", "");
        governed.metric("ringway_old_upstreams").unwrap() as usize
    };
    let mut waiting = Client::connect(governed.address());
    waiting.send("GET /held HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("it is under way", || held.begun() == 1);
    let (mut tunnels, mut clients) = (Vec::new(), [(); 4].map(|()| Client::connect(governed.address())));
    for round in 1..=40 {
        if round % 10 == 1 {
            tunnels.push(tunnel_to(&governed));
        }
        if tunnels.len() > 2 {
            drop(tunnels.remove(0));
        }
        let old = reload(round);
        // The configuration before, those of two tunnels and of one that has just ended, that of the held request.
        assert!(old <= 5 * UPSTREAMS, "round {round}: {old}");
        for client in &mut clients {
            for at in [0, 1, 2, 3, 3, 2, 1, 0] {
                assert_eq!(client.get(&format!("/u{at}")).text(), ((at + round) % 4).to_string(), "round {round}");
            }
        }
        for tunnel in &mut tunnels {
            tunnel.send("ping");
            assert_eq!(tunnel.read_exactly(4), b"ping", "round {round}");
        }
    }
    release.send(()).unwrap();
    drop(release);
    assert_eq!((waiting.response().text().as_str(), held.count()), ("held", 2));
    drop(tunnels);
    let mut round = 40;
    eventually("nothing is kept but what the last reload left out", || {
        round += 1;
        reload(round) <= UPSTREAMS
    });
    governed.gateway.stop();
}

#[test]
fn what_did_not_change_keeps_its_connections_and_its_plugins() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let file = versioned(folder.path(), "1", &[]);
    let made = || with_versioned(&file, &origin).workers(1);
    let governed = Governed::start(made());
    let mut client = Client::connect(governed.address());
    client.get("/");
    for round in 1..5 {
        rewrite(&governed, made().with(&format!("[timeouts]\nfirst_byte = \"{round}s\"")));
        governed.good("POST", "/api/reload", "");
        assert_eq!(client.get("/").status, 200, "the client's connection goes on");
    }
    assert_eq!(origin.connections(), 1, "the upstream's connection goes on");
    assert_eq!(governed.good("GET", "/api/plugins/versioned", "")["generation"], 1);
    assert_eq!(governed.metric("ringway_link_calls_total{route=\"all\",plugin=\"versioned\"}"), Some(10), "counters go on");
    governed.gateway.stop();
}

/// The program of a request is the one in force when it comes, however long its connection was idle before.
#[test]
fn a_connection_that_is_idle_while_the_program_changes_uses_the_next_one() {
    let (first, second) = (origin(), origin());
    let governed = Governed::start(leading_to(&first, ""));
    let mut client = Client::connect(governed.address());
    for round in 1..=10 {
        client.get("/");
        let used = if round % 2 == 0 { &first } else { &second };
        rewrite(&governed, leading_to(used, ""));
        governed.good("POST", "/api/reload", "");
        let before = used.count();
        client.get("/");
        assert_eq!(used.count(), before + 1, "round {round}");
    }
    governed.gateway.stop();
}

/// SPEC S-120: what a plugin has stored for a route stays with it wherever it stands, and is never another one's.
#[test]
fn what_a_cache_has_stored_belongs_to_its_route_across_reloads() {
    let saying = |text: &'static str| Origin::answering(move |_| reply(200, &[("cache-control", "max-age=600")], text));
    let (one, other, third) = (saying("of the one"), saying("of the other"), saying("of the third"));
    let route = |head: &str, upstream: &str| format!("[[route]]\n{head}\nupstream = {upstream:?}\nplugins = [\"response-cache\"]\n");
    let tenant = |name: &str, upstream: &str| route(&format!("header = {{ x-tenant = {name:?} }}"), upstream);
    let made = |routes: &[String]| {
        let upstreams = config().workers(1).plugin("response-cache", "").upstream("one", &[one.address()], "").upstream("other", &[other.address()], "");
        upstreams.upstream("third", &[third.address()], "").with(&routes.concat())
    };
    let governed = Governed::start(made(&[tenant("1", "one"), tenant("2", "other")]));
    let mut client = Client::connect(governed.address());
    let mut answers = || {
        let texts = [1, 2].map(|tenant| {
            client.send(format!("GET /a HTTP/1.1\r\nhost: test\r\nx-tenant: {tenant}\r\n\r\n"));
            client.response().text()
        });
        (texts, [one.count(), other.count(), third.count()])
    };
    let says = |first: &str, second: &str, counts: [usize; 3]| ([format!("of the {first}"), format!("of the {second}")], counts);
    assert_eq!(answers(), says("one", "other", [1, 1, 0]));
    let steps = [
        // Nobody is asked again when routes only move.
        ([tenant("2", "other"), tenant("1", "one")], says("one", "other", [1, 1, 0])),
        ([tenant("2", "third"), tenant("1", "one")], says("one", "third", [1, 1, 1])),
        ([tenant("1", "third"), tenant("2", "one")], says("third", "one", [2, 1, 2])),
        ([tenant("2", "one"), tenant("1", "one")], says("one", "one", [3, 1, 2])),
    ];
    for (routes, expected) in steps {
        rewrite(&governed, made(&routes));
        governed.good("POST", "/api/reload", "");
        for _ in 0..2 {
            assert_eq!(answers(), expected);
        }
    }
    governed.gateway.stop();
}

#[test]
fn without_a_file_there_is_nothing_to_read_again() {
    let (origin, folder) = (origin(), tempfile::tempdir().unwrap());
    let socket = folder.path().join("s");
    let gateway = Gateway::command(&["proxy", "--from", &format!("unix:{}", socket.display()), "--to", origin.address()]);
    gateway.signal(libc::SIGHUP);
    gateway.wait_for("there is no file to read again: the configuration is the command line");
    gateway.stop();
}

#[test]
fn neither_the_answer_nor_the_log_shows_a_line_of_the_file() {
    let origin = origin();
    let made = |server: &str, rest: &str| config().server(server).to(&[origin.address()]).with(rest);
    let governed = Governed::start(made("", ""));
    let plugin = "[[plugin]]\nname = \"p\"\npath = \"p.so\"\n[plugin.config]\nkey = \"SECRET\" \"x\n";
    for (server, rest) in [("admin_token = \"SECRET-of-the-gateway\" oops", ""), ("admin_token = [\"SECRET-of-the-gateway\"]", ""), ("", plugin)] {
        rewrite(&governed, made(server, rest));
        let (status, reason) = governed.refused("POST", "/api/reload", "");
        assert!(status == 422 && reason.contains("gateway.toml:"), "{status} {reason}");
        assert!(!reason.contains("SECRET"), "{reason}");
        // Whoever asks for it may see the line.
        let file = governed.file();
        let check = ringway(&["check", "-c", file.to_str().unwrap()]).output().unwrap();
        assert!(String::from_utf8_lossy(&check.stderr).contains("SECRET"));
        let run = ringway(&["run", "-c", file.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.code() == Some(1) && said.contains("gateway.toml:") && !said.contains("SECRET"), "{said}");
    }
    // Nor does the log show what a plugin is given.
    governed.refused("POST", "/api/plugins/p", r#"{"path": "/no/such/file", "config": {"key": "SECRET"}}"#);
    assert_eq!(governed.gateway.events(4, |event| event["message"].as_str().is_some_and(|text| text.starts_with("nothing was changed"))), 4);
    let log = governed.gateway.log().join("\n");
    assert!(!log.contains("SECRET"), "{log}");
    governed.gateway.stop();
}

#[test]
fn the_permissions_of_a_socket_are_shown_and_do_not_change_unnoticed() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let socket = folder.path().join("socket");
    let made = |mode: &str| {
        config()
            .listen("127.0.0.1:0")
            .to(&[origin.address()])
            .with(&format!("[[listener]]\nname = \"local\"\naddress = \"unix:{}\"\nmode = {mode:?}\n", socket.display()))
    };
    let governed = Governed::start(made("0600"));
    assert_eq!(governed.good("GET", "/api/config", "")["listeners"][1]["mode"], "0600");
    rewrite(&governed, made("0666"));
    let (status, reason) = governed.refused("POST", "/api/reload", "");
    assert!(status == 422 && reason.contains("`mode` of the listener local cannot change while the gateway runs"), "{status} {reason}");
    governed.gateway.stop();
}

#[test]
fn a_pipe_or_a_device_is_no_plugin_and_nobody_waits_for_it() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o700.into(), 0).unwrap();
    let governed = Governed::start(config().to(&[origin.address()]));
    for path in [pipe.to_str().unwrap(), "/dev/zero"] {
        let (status, reason) = governed.refused("POST", "/api/plugins/p", &serde_json::json!({ "path": path }).to_string());
        assert!(status == 422 && reason.contains("it is no regular file"), "{status} {reason}");
    }
    governed.gateway.stop();
}
