//! Servers: which one gets a request, what happens when one goes.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::*;

/// Three servers that say who they are.
fn three() -> Vec<Origin> {
    (0..3).map(|at| Origin::answering(move |_| reply(200, &[], at.to_string()))).collect()
}

fn addresses(origins: &[Origin]) -> Vec<&str> {
    origins.iter().map(Origin::address).collect()
}

fn balanced(origins: &[Origin], lines: &str) -> Gateway {
    Gateway::start(&config().server("admin = \"127.0.0.1:0\"").upstream("app", &addresses(origins), lines).with("[[route]]\nupstream = \"app\""))
}

#[test]
fn round_robin_takes_each_server_in_turn() {
    let origins = three();
    let gateway = balanced(&origins, "");
    let mut client = Client::connect(gateway.address());
    let turns: Vec<String> = (0..6).map(|_| client.get("/").text()).collect();
    assert_eq!(turns, ["0", "1", "2", "0", "1", "2"]);
    gateway.stop();
}

#[test]
fn weights_are_kept() {
    let origins = three();
    let servers = format!(
        "[[upstream]]\nname = \"app\"\nservers = [{{ address = \"{}\", weight = 3 }}, \"{}\"]\n[[route]]\nupstream = \"app\"",
        origins[0].address(),
        origins[1].address()
    );
    let gateway = Gateway::start(&config().with(&servers));
    let mut client = Client::connect(gateway.address());
    for _ in 0..40 {
        client.get("/");
    }
    assert_eq!((origins[0].count(), origins[1].count()), (30, 10));
    gateway.stop();
}

#[test]
fn least_connections_avoids_the_busy_server() {
    let busy = Origin::start();
    let free = Origin::start();
    let gateway = balanced(&[busy.clone(), free.clone()], "balance = \"least-connections\"");
    let mut slow: Vec<Client> = (0..2).map(|_| Client::connect(gateway.address())).collect();
    for (at, client) in slow.iter_mut().enumerate() {
        client.send("GET /slow/1500 HTTP/1.1\r\nhost: test\r\n\r\n");
        eventually("the request is on its way", || busy.begun() + free.begun() > at);
    }
    assert_eq!((busy.begun(), free.begun()), (1, 1), "one each");
    for client in &mut slow {
        assert_eq!(client.response().status, 200);
    }
    gateway.stop();
}

#[test]
fn a_hash_keeps_keys_where_they_are() {
    let origins = three();
    let gateway = balanced(&origins, "balance = \"hash-header:x-user\"");
    let mut client = Client::connect(gateway.address());
    let mut of = |user: usize| {
        client.send(format!("GET / HTTP/1.1\r\nhost: test\r\nx-user: {user}\r\n\r\n"));
        client.response().text()
    };
    let first: Vec<String> = (0..60).map(&mut of).collect();
    let second: Vec<String> = (0..60).map(&mut of).collect();
    assert_eq!(first, second);
    for server in ["0", "1", "2"] {
        assert!(first.iter().filter(|at| *at == server).count() >= 5, "{first:?}");
    }
    // When one goes, its keys find another server, the others stay.
    origins[1].close();
    let third: Vec<String> = (0..60).map(&mut of).collect();
    for (before, after) in first.iter().zip(&third) {
        assert!(if before == "1" { after != "1" } else { before == after }, "{before} -> {after}");
    }
    gateway.stop();
}

#[test]
fn host_names_are_looked_up() {
    let origin = Origin::start();
    let port = origin.address().rsplit_once(':').unwrap().1;
    let gateway = Gateway::start(&config().to(&[&format!("localhost:{port}")]));
    let mut client = Client::connect(gateway.address());
    for _ in 0..5 {
        assert_eq!(client.get("/bytes/3").text(), "abc");
    }
    gateway.stop();
}

#[test]
fn health_checks_take_a_server_out_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&well);
    let checked = Origin::answering(move |request| match request.path() {
        "/health" if state.load(Ordering::SeqCst) => reply(200, &[("connection", "close")], ""),
        "/health" => reply(500, &[("connection", "close")], ""),
        _ => reply(200, &[], "checked"),
    });
    let other = Origin::answering(|_| reply(200, &[], "other"));
    let lines = "panic_percent = 0\n[upstream.health]\npath = \"/health\"\nstatus = \"200\"\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 2\n";
    let gateway = balanced(&[checked, other], lines);
    let mut client = Client::connect(gateway.address());
    let mut answers = |count: usize| (0..count).filter(|_| client.get("/").text() == "checked").count();
    assert_eq!(answers(10), 5);
    well.store(false, Ordering::SeqCst);
    gateway.wait_for("server is unhealthy");
    assert_eq!(answers(10), 0);
    well.store(true, Ordering::SeqCst);
    gateway.wait_for("server is healthy again");
    assert_eq!(answers(10), 5);
    gateway.stop();
}

#[test]
fn a_server_that_fails_is_ejected_and_comes_back() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let other = Origin::answering(|_| reply(200, &[], "other"));
    let lines = "panic_percent = 0\n[upstream.outlier]\nfailures = 2\neject = \"600ms\"";
    let gateway = Gateway::start(&config().upstream("app", &[&free, other.address()], lines).with("[[route]]\nupstream = \"app\""));
    let mut client = Client::connect(gateway.address());
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "other", "a retry finds the other server");
    }
    gateway.wait_for("server ejected");
    let back = Origin::on(&free, Behaviour::Answer(Arc::new(|_| reply(200, &[], "back"))));
    eventually("the server gets requests again", || client.get("/").text() == "back");
    back.close();
    gateway.stop();
}

#[test]
fn a_server_that_answers_503_is_ejected() {
    let unwilling = Origin::answering(|_| reply(503, &[], "no"));
    let other = Origin::answering(|_| reply(200, &[], "other"));
    let gateway = balanced(&[unwilling, other], "[upstream.outlier]\nfailures = 3\neject = \"1h\"\neject_max = \"1h\"");
    let mut client = Client::connect(gateway.address());
    assert_eq!((0..40).filter(|_| client.get("/").status == 503).count(), 3);
    gateway.wait_for("server ejected");
    gateway.stop();
}

#[test]
fn failures_are_in_a_row_only_without_a_success_between() {
    // Every other connection ends without an answer, the others with one: none is used again.
    let turns = AtomicUsize::new(0);
    let fickle = Origin::answering(move |_| match turns.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Vec::new(),
        _ => reply(200, &[("connection", "close")], "well"),
    });
    let other = Origin::answering(|_| reply(200, &[], "other"));
    let gateway = balanced(&[fickle.clone(), other], "retries = 0\n[upstream.outlier]\nfailures = 2\neject = \"1h\"\neject_max = \"1h\"");
    let mut client = Client::connect(gateway.address());
    let failed = (0..40).filter(|_| client.get("/").status == 502).count();
    assert_eq!((failed, fickle.connections()), (10, 20), "it gets its share to the end");
    gateway.stop();
}

/// A client that does not bring its body uses up the time of its exchange, and the server has nothing to do with it.
#[test]
fn slow_clients_eject_nobody() {
    let origin = Origin::start();
    let lines = "[upstream.outlier]\nfailures = 1\neject = \"1h\"\neject_max = \"1h\"";
    let gateway = Gateway::start(&config().upstream("app", &[origin.address()], lines).with("[[route]]\nupstream = \"app\"\n[timeouts]\nexchange = \"200ms\""));
    for _ in 0..3 {
        let mut slow = Client::connect(gateway.address());
        slow.send("POST /slow HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n01234");
        assert_eq!(slow.response().status, 504);
    }
    assert_eq!(get(gateway.address(), "/").status, 200);
    assert!(!gateway.log().iter().any(|line| line.contains("server ejected")), "{:?}", gateway.log());
    gateway.stop();
}

/// The gateway is short of descriptors: its clients are told so, and its servers are as good as before.
#[test]
fn a_gateway_without_descriptors_blames_no_server() {
    let origin = Origin::start();
    let launch = Launch { files_max: 48, ..Launch::default() };
    let lines = "[upstream.outlier]\nfailures = 1\neject = \"1h\"\neject_max = \"1h\"";
    let gateway = launch.start(&config().upstream("app", &[origin.address()], lines).with("[[route]]\nupstream = \"app\""));
    gateway.wait_for("fewer files may be open");
    let mut waiting: Vec<Client> = (0..4).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut waiting {
        client.send("GET /bytes/1 HTTP/1.1\r\nhost:");
    }
    let many: Vec<Client> = (0..100).map(|_| Client::connect(gateway.address())).collect();
    gateway.wait_for("accepting pauses");
    for client in &mut waiting {
        client.send(" test\r\n\r\n");
        assert_eq!(client.response().status, 503);
    }
    drop(many);
    eventually("connections can be made again", || Client::try_connect(gateway.address()).is_ok_and(|mut client| client.get("/bytes/1").status == 200));
    assert!(!gateway.log().iter().any(|line| line.contains("server ejected")), "{:?}", gateway.log());
    gateway.stop();
}

#[test]
fn as_many_retries_are_made_as_are_configured() {
    let dead = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (first, second) = (dead(), dead());
    let alive = Origin::answering(|_| reply(200, &[], "alive"));
    let refused = |servers: &[&str], retries: u32| {
        let lines = format!("retries = {retries}\n[upstream.outlier]\nfailures = 0");
        let gateway = Gateway::start(&config().upstream("app", servers, &lines).with("[[route]]\nupstream = \"app\""));
        let mut client = Client::connect(gateway.address());
        let refused = (0..6).filter(|_| client.get("/").status == 502).count();
        gateway.stop();
        refused
    };
    assert_eq!(refused(&[&first, alive.address()], 0), 3, "every other request meets the dead server, and that is its end");
    assert_eq!(refused(&[&first, alive.address()], 1), 0);
    // With one server there is nothing to avoid: each retry fails as well.
    assert_eq!(refused(&[&second], 2), 6);
}

/// HTTP1.md rule 67: what may have been processed is repeated only when its method is idempotent.
#[test]
fn a_stale_pooled_connection_is_noticed_or_repeated_safely() {
    // Answers one request per connection and then closes without a word, as servers do after an idle timeout.
    let origin = Origin::raw(|mut stream, origin| {
        use std::io::Write;
        let mut buffer = Vec::new();
        if origin.read_request(&mut stream, &mut buffer, 0).is_some() {
            let _ = stream.write_all(&reply(200, &[], "once"));
        }
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    for at in 0..200 {
        let method = if at % 2 == 0 { "GET" } else { "PUT" };
        client.send(format!("{method} / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc"));
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "once"), "{at}");
    }
    gateway.stop();
}

#[test]
fn a_post_is_never_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    // Reads the whole request and closes: it may have been processed.
    let origin = Origin::raw(move |mut stream, origin| {
        if let Some(request) = origin.read_request(&mut stream, &mut Vec::new(), 0)
            && request.method == "POST"
        {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    for at in 1..=5 {
        let mut client = Client::connect(gateway.address());
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc");
        assert_eq!(client.response().status, 502);
        assert_eq!(seen.load(Ordering::SeqCst), at);
    }
    gateway.stop();
}

/// One of three servers is killed and restarted while requests flow: no idempotent request may fail.
#[test]
fn killing_one_of_three_servers_fails_no_idempotent_request() {
    for balance in ["round-robin", "least-connections", "hash-header:x-user"] {
        let mut origins = three();
        for origin in &origins {
            origin.forget();
        }
        let lines = format!("balance = \"{balance}\"\nretries = 2\n[upstream.outlier]\nfailures = 3\neject = \"200ms\"");
        let gateway = balanced(&origins, &lines);
        let ended = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..8)
            .map(|user| {
                let (address, ended) = (gateway.address().to_owned(), Arc::clone(&ended));
                thread::spawn(move || {
                    let (mut client, mut requests, mut failures) = (Client::connect(&address), 0, Vec::new());
                    while !ended.load(Ordering::SeqCst) {
                        client.send(format!("GET / HTTP/1.1\r\nhost: test\r\nx-user: {user}-{}\r\n\r\n", requests % 16));
                        requests += 1;
                        match client.try_response(false) {
                            Ok(response) if response.status == 200 => client.renew_after(&response),
                            Ok(response) => failures.push(format!("{} {}", response.status, response.text())),
                            Err(problem) => {
                                failures.push(problem);
                                client = Client::connect(&address);
                            }
                        }
                    }
                    (requests, failures)
                })
            })
            .collect();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(250));
            let address = origins[1].address().to_owned();
            origins[1].close();
            thread::sleep(Duration::from_millis(250));
            origins[1] = Origin::on(&address, Behaviour::Answer(Arc::new(|_| reply(200, &[], "1"))));
            origins[1].forget();
        }
        let restarted = Instant::now();
        eventually("the restarted server gets requests", || origins[1].count() > 0);
        let back = restarted.elapsed();
        ended.store(true, Ordering::SeqCst);
        let (mut requests, mut failures) = (0, Vec::new());
        for (count, failed) in clients.into_iter().map(join) {
            requests += count;
            failures.extend(failed);
        }
        let retries = gateway.metric("ringway_upstream_retries_total");
        println!(
            "{balance}: one of three servers killed and restarted three times: {requests} requests, {} failures, {retries} retries, back after {back:?}",
            failures.len()
        );
        assert!(failures.is_empty(), "{balance}: {} of {requests}: {:?}", failures.len(), &failures[..failures.len().min(5)]);
        gateway.stop();
    }
}

#[test]
fn bytes_behind_a_response_never_become_the_next_one() {
    let origin = Origin::raw(|mut stream, origin| {
        use std::io::Write;
        let mut buffer = Vec::new();
        while let Some(request) = origin.read_request(&mut stream, &mut buffer, 0) {
            let answer = match request.path() {
                "/long" => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil".to_vec(),
                _ => reply(200, &[], "good"),
            };
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    for _ in 0..10 {
        assert_eq!(client.get("/long").text(), "ok");
        assert_eq!(client.get("/").text(), "good");
    }
    gateway.stop();
}
