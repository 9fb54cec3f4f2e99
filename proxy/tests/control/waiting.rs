//! Plugins that wait, in the running gateway: the timer of the kernel, wakes from threads, clients that leave, reloads and the end.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::admin::*;
use crate::gateway::*;

/// `delay` in the only route.
fn delayed(origin: &Origin, lines: &str, more: &str) -> Config {
    config()
        .workers(2)
        .upstream("app", &[origin.address()], "")
        .plugin("delay", &format!("[plugin.config]\n{lines}"))
        .with(more)
        .with("[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"delay\"]")
}

/// No exchange waits any more, as the workers tell about once a second.
fn nobody_waits(governed: &Governed) {
    eventually("nobody waits", || governed.metric("ringway_suspended") == Some(0));
}

#[test]
fn every_request_waits_and_nobody_waits_for_another() {
    let origin = Origin::start();
    for lines in ["milliseconds = 100", "milliseconds = 100\nresponse = true"] {
        let governed = Governed::start(delayed(&origin, lines, ""));
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let mut client = Client::connect(governed.address());
                    for _ in 0..10 {
                        let asked = Instant::now();
                        assert_eq!(client.get("/bytes/3").text(), "abc");
                        assert!(asked.elapsed() >= Duration::from_millis(100), "{lines}: {:?}", asked.elapsed());
                    }
                });
            }
        });
        // One after the other it would be twenty seconds.
        assert!(began.elapsed() < Duration::from_secs(15), "{lines}: {:?}", began.elapsed());
        assert_eq!(governed.metric("ringway_link_suspends_total{route=\"all\",plugin=\"delay\"}"), Some(200), "{lines}");
        nobody_waits(&governed);
        governed.gateway.stop();
    }
}

#[test]
fn the_time_that_a_route_allows_ends_a_wait() {
    let origin = Origin::start();
    let governed = Governed::start(delayed(&origin, "milliseconds = 60000", "[timeouts]\nsuspend = \"100ms\""));
    assert_eq!(get(governed.address(), "/bytes/3").text(), "abc");
    governed.gateway.stop();
}

#[test]
fn a_client_that_leaves_ends_its_wait() {
    let origin = Origin::start();
    let governed = Governed::start(delayed(&origin, "milliseconds = 60000", "[timeouts]\nsuspend = \"5m\""));
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(governed.address())).collect();
    for client in &mut clients {
        client.send("GET /bytes/3 HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    eventually("all wait", || governed.metric("ringway_suspended") == Some(10));
    drop(clients);
    nobody_waits(&governed);
    assert_eq!(origin.count(), 0);
    governed.gateway.stop();
}

#[test]
fn an_exchange_that_waits_ends_on_its_own_chain() {
    let (first, second) = (origin(), origin());
    let governed = Governed::start(delayed(&first, "milliseconds = 4000", ""));
    let mut client = Client::connect(governed.address());
    client.send("GET /old HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("it waits", || governed.metric("ringway_suspended") == Some(1));
    fs::write(governed.file(), delayed(&second, "milliseconds = 1", "").server("admin = \"127.0.0.1:0\"").text()).unwrap();
    governed.good("POST", "/api/reload", "");
    assert_eq!(get(governed.address(), "/new").text(), "/new");
    assert_eq!((first.count(), second.count()), (0, 1));
    assert_eq!(client.response().text(), "/old");
    assert_eq!((first.count(), second.count()), (1, 1));
    // One that waits when the gateway is told to stop is answered too.
    let mut made = delayed(&first, "milliseconds = 4000", "");
    made = made.server("admin = \"127.0.0.1:0\"");
    fs::write(governed.file(), made.text()).unwrap();
    governed.good("POST", "/api/reload", "");
    let mut client = Client::connect(governed.address());
    client.send("GET /last HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("it waits", || governed.metric("ringway_suspended") == Some(1));
    governed.gateway.signal(libc::SIGTERM);
    assert_eq!(client.response().text(), "/last");
    governed.gateway.stop();
}

#[test]
fn a_thread_of_the_plugin_wakes_each_request_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = compiled(folder.path(), "woken", "woken", &["-pthread"]);
    let origin = Origin::answering(|request| reply(200, &[], request.header("x-woken").unwrap_or("nobody")));
    let governed = Governed::start(
        config()
            .workers(2)
            .upstream("app", &[origin.address()], "")
            .with(&format!("[[plugin]]\nname = \"woken\"\npath = {file:?}\n[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"woken\"]")),
    );
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = Client::connect(governed.address());
                for _ in 0..50 {
                    assert_eq!(client.get("/").text(), "thread");
                }
            });
        }
    });
    assert_eq!(governed.metric("ringway_stale_wakes_total"), Some(0));
    assert_eq!(get(governed.address(), "/late").text(), "timer");
    eventually("the late wake is counted", || governed.metric("ringway_stale_wakes_total") == Some(1));
    nobody_waits(&governed);
    // The thread ends in unload, after all its workers have ended; a wake after that would crash.
    governed.gateway.stop();
}
