//! Deadlines, bounds, and the end of the process.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::gateway::*;

/// Runs `work` and asserts that it took at least `least` milliseconds: the deadline was not met by accident.
fn not_before<T>(least: u64, what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let value = work();
    assert!(begun.elapsed() >= Duration::from_millis(least), "{what} after {:?}", begun.elapsed());
    value
}

#[test]
fn a_head_that_does_not_end_is_answered_408() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nhead = \"300ms\""));
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nhost: te");
    let response = not_before(290, "408", || client.response());
    assert!(response.status == 408 && response.announces_close(), "{response:?}");
    client.expect_end();
    // A drop now and then does not help: the deadline is that of the whole head.
    let mut slow = Client::connect(gateway.address());
    let begun = Instant::now();
    for byte in "GET / HTTP/1.1\r\nhost: a-rather-long-name-that-is-sent-slowly\r\n".bytes() {
        if slow.try_send([byte]).is_err() || slow.hears_within(Duration::from_millis(20)) {
            break;
        }
    }
    assert_eq!(slow.response().status, 408);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // Nothing at all: closed without a word.
    not_before(290, "a silent close", || Client::connect(gateway.address()).expect_end());
    assert_eq!(origin.bytes(), 0);
    gateway.stop();
}

#[test]
fn a_body_that_does_not_go_on_is_answered_408() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nbody_idle = \"300ms\""));
    for head in ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = Client::connect(gateway.address());
        client.send(format!("POST /e HTTP/1.1\r\nhost: test\r\n{head}"));
        let response = not_before(290, "408", || client.response());
        assert!(response.status == 408 && response.announces_close(), "{response:?}");
        client.expect_end();
    }
    eventually("the upstream connections are closed", || origin.open() == 0);
    assert_eq!(origin.count(), 0);
    gateway.stop();
}

#[test]
fn an_idle_connection_is_closed_silently() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nkeep_alive_idle = \"600ms\""));
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.get("/bytes/1").status, 200);
    not_before(590, "a silent close", || client.expect_end());
    // Shorter pauses do not end it, whether or not it was parked meanwhile.
    let mut client = Client::connect(gateway.address());
    for _ in 0..4 {
        assert_eq!(client.get("/bytes/1").status, 200);
        assert!(!client.hears_within(Duration::from_millis(400)));
    }
    gateway.stop();
}

#[test]
fn an_upstream_that_does_not_answer_gives_504() {
    // It takes the request and says nothing.
    let silent = Origin::raw(|mut stream, _| {
        let mut piece = [0; 4096];
        while matches!(stream.read(&mut piece), Ok(count) if count > 0) {}
    });
    let gateway = Gateway::start(&config().to(&[silent.address()]).with("[timeouts]\nfirst_byte = \"300ms\""));
    let response = not_before(290, "504", || get(gateway.address(), "/"));
    assert_eq!(response.status, 504, "{response:?}");
    gateway.stop();
}

#[test]
fn an_upstream_that_cannot_be_connected_to_gives_502_or_504() {
    // Nobody listens on it: the port was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let gateway = Gateway::start(&config().to(&[&free]));
    let mut client = Client::connect(gateway.address());
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 502);
    }
    gateway.stop();

    // A listener whose queue is full drops further attempts, so that they time out.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
    }
    let gateway = Gateway::start(
        &config().upstream("app", &[&address.to_string()], "retries = 0").with("[[route]]\nupstream = \"app\"\n[timeouts]\nconnect = \"300ms\""),
    );
    let response = not_before(290, "504", || get(gateway.address(), "/"));
    assert_eq!(response.status, 504, "{response:?}");
    gateway.stop();
}

#[test]
fn a_response_that_stops_half_way_is_cut_off() {
    let origin = Origin::raw(|mut stream, origin| {
        let _ = origin.read_request(&mut stream, &mut Vec::new(), 0);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        let mut piece = [0; 4096];
        while matches!(stream.read(&mut piece), Ok(count) if count > 0) {}
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nresponse_idle = \"300ms\""));
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    let problem = not_before(290, "the cut", || client.try_response(false)).expect_err("half a response");
    assert!(problem.contains("in the middle of a body"), "{problem}");
    gateway.stop();
}

#[test]
fn a_client_that_never_reads_is_aborted_and_the_upstream_let_go() {
    let origin = Origin::raw(|mut stream, origin| {
        let _ = origin.read_request(&mut stream, &mut Vec::new(), 0);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nwrite_stall = \"500ms\""));
    let before = gateway.memory();
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the upstream is asked", || origin.connections() == 1);
    eventually("the upstream connection is closed", || origin.open() == 0);
    let after = gateway.memory();
    assert!(after.resident_kib < before.resident_kib + 10_000, "{before:?} {after:?}");
    let (_, ended) = client.read_to_end();
    println!("a client that never reads: {ended:?}, resident {} KiB before, {} KiB after", before.resident_kib, after.resident_kib);
    gateway.stop();
}

/// Slow is not stalled: a client that takes a little all the time keeps its response.
#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nwrite_stall = \"700ms\""));
    let mut client = Client::connect(gateway.address());
    const BYTES: usize = 12_000_000;
    client.send(format!("GET /bytes/{BYTES} HTTP/1.1\r\nhost: test\r\n\r\n"));
    let mut received = 0;
    // About 4 MB a second: each piece the gateway writes takes long, none of them for ever.
    while received < BYTES {
        received += client.read_exactly(100_000.min(BYTES - received)).len();
        std::thread::sleep(Duration::from_millis(25));
    }
    gateway.stop();
}

#[test]
fn an_upstream_that_never_reads_gives_504() {
    let origin = Origin::raw(|stream, _| {
        // Held open, never read, until the test process ends.
        std::mem::forget(stream);
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nwrite_stall = \"500ms\""));
    let before = gateway.memory();
    let mut sender = std::net::TcpStream::connect(gateway.address()).unwrap();
    sender.write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000\r\n\r\n").unwrap();
    sender.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reading = sender.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let piece = vec![b'x'; 65536];
        let mut taken = 0;
        while let Ok(count @ 1..) = sender.write(&piece) {
            taken += count;
        }
        taken
    });
    let mut answer = Vec::new();
    let _ = reading.read_to_end(&mut answer);
    let taken = writing.join().unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let after = gateway.memory();
    println!("an upstream that never reads: {taken} bytes left the client, resident {} KiB before, {} KiB after", before.resident_kib, after.resident_kib);
    assert!(after.resident_kib < before.resident_kib + 10_000, "{before:?} {after:?}");
    gateway.stop();
}

#[test]
fn rule_99_connections_of_one_address_are_bounded() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[limits]\nconnections_per_address = 3"));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut clients {
        assert_eq!(client.get("/bytes/1").status, 200);
    }
    expect_refused(gateway.address());
    for client in &mut clients {
        assert_eq!(client.get("/bytes/1").status, 200);
    }
    clients.pop();
    eventually("there is room again", || status_of(gateway.address(), "/bytes/1") == Some(200));
    gateway.stop();
}

#[test]
fn the_last_request_of_a_connection_announces_the_close() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[limits]\nrequests_per_connection = 3"));
    let mut client = Client::connect(gateway.address());
    assert!(!client.get("/bytes/1").announces_close());
    assert!(!client.get("/bytes/1").announces_close());
    assert!(client.get("/bytes/1").announces_close());
    client.finish();
    client.expect_end();
    gateway.stop();
}

#[test]
fn a_body_beyond_the_limit_is_refused_with_413() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[limits]\nbody_bytes = \"10KiB\"\nbody_buffer_bytes = \"10KiB\""));
    let mut client = Client::connect(gateway.address());
    client.send("POST /e HTTP/1.1\r\nhost: test\r\ncontent-length: 10241\r\n\r\n");
    assert_eq!(client.response().status, 413);
    assert_eq!(origin.bytes(), 0);
    let mut client = Client::connect(gateway.address());
    client.send("POST /e HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
    for _ in 0..3 {
        let _ = client.try_send(&chunk);
    }
    assert_eq!(client.response().status, 413);
    eventually("the upstream connection is closed", || origin.open() == 0);
    assert_eq!(origin.count(), 0, "the upstream never saw a whole request");
    gateway.stop();
}

/// Every slot is taken by an exchange: those go on, new connections wait and are served afterwards.
#[test]
fn when_all_slots_are_taken_new_connections_wait() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[limits]\nslots = 16"));
    // Sixty exchanges that wait for their upstream: sixteen hold slots.
    let mut slow: Vec<Client> = (0..60).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut slow {
        client.send("GET /slow/500 HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    eventually("all slots are taken", || origin.begun() == 16);
    let mut waiting: Vec<Client> = (0..60).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut waiting {
        client.send("GET /bytes/3 HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    for (at, client) in slow.iter_mut().enumerate() {
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "slow"), "slow {at}");
    }
    for (at, client) in waiting.iter_mut().enumerate() {
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "abc"), "waiting {at}");
    }
    gateway.stop();
}

/// Nobody waits for a slot for ever: who has waited for long is told so, and who has left is let go.
#[test]
fn who_waits_too_long_for_a_slot_is_answered_503() {
    for slot_wait in ["off", "700ms"] {
        let origin = Origin::start();
        let gateway = Gateway::start(&config().to(&[origin.address()]).with(&format!("[limits]\nslots = 16\n[timeouts]\nslot_wait = {slot_wait:?}")));
        let mut slow: Vec<Client> = (0..16).map(|_| Client::connect(gateway.address())).collect();
        for client in &mut slow {
            client.send("GET /slow/4000 HTTP/1.1\r\nhost: test\r\n\r\n");
        }
        eventually("all slots are taken", || origin.begun() == 16);
        let waiting = |count: usize| -> Vec<Client> {
            let begin = |_| {
                let mut client = Client::connect(gateway.address());
                client.send("GET /bytes/3 HTTP/1.1\r\nhost: test\r\n\r\n");
                client
            };
            (0..count).map(begin).collect()
        };
        if slot_wait == "off" {
            let files = gateway.memory().files;
            let leaving = waiting(50);
            eventually("they wait", || gateway.memory().files == files + 50);
            leaving.into_iter().for_each(Client::reset);
            eventually("they are let go", || gateway.memory().files == files);
            assert_eq!(origin.begun(), 16, "nothing had become of those that wait before");
        } else {
            for mut client in waiting(20) {
                let response = client.response();
                assert!(response.status == 503 && response.announces_close(), "{response:?}");
            }
        }
        for client in &mut slow {
            assert_eq!(client.response().text(), "slow");
        }
        assert_eq!(get(gateway.address(), "/bytes/3").text(), "abc", "those who gave up hold no place");
        gateway.stop();
    }
}

/// Who has said nothing does not wait for a slot: its own time goes on, and ends without a word.
#[test]
fn silent_connections_do_not_wait_for_a_slot() {
    let origin = Origin::start();
    let limits = "[limits]\nslots = 16\n[timeouts]\nhead = \"400ms\"\nkeep_alive_idle = \"800ms\"\nslot_wait = \"300ms\"";
    let gateway = Gateway::start(&config().server("admin = \"127.0.0.1:0\"").to(&[origin.address()]).with(limits));
    let mut idle = Client::connect(gateway.address());
    assert_eq!(idle.get("/bytes/3").text(), "abc");
    let mut slow: Vec<Client> = (0..16).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut slow {
        client.send("GET /slow/4000 HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    eventually("all slots are taken", || origin.begun() == 17);
    let mut silent = Client::connect(gateway.address());
    silent.expect_end();
    idle.expect_end();
    assert_eq!(gateway.metric("ringway_faults_total{reason=\"slots_exhausted\"}"), 0);
    // Who speaks waits, and is shown.
    let mut waiting = Client::connect(gateway.address());
    waiting.send("GET /bytes/3 HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(waiting.response().status, 503);
    assert_eq!(gateway.metric("ringway_faults_total{reason=\"slots_exhausted\"}"), 1);
    for client in &mut slow {
        assert_eq!(client.response().text(), "slow");
    }
    eventually("nobody waits", || gateway.metric("ringway_slots_waiting") == 0);
    gateway.stop();
}

/// A head that has begun waits for a slot no longer than it may take: then its client is told, and the server is not to blame.
#[test]
fn rule_94_a_head_that_is_whole_too_late_for_a_slot_is_answered_503() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().server("admin = \"127.0.0.1:0\"").to(&[origin.address()]).with("[limits]\nslots = 16\n[timeouts]\nhead = \"3s\""));
    let [mut client, mut silent] = [(); 2].map(|()| Client::connect(gateway.address()));
    client.send("GET /bytes/3 HTTP/1.1\r\nhost: te");
    silent.send("GET /bytes/3 HTTP/1.1\r\nhost: te");
    // Long enough to lose the slot.
    assert!(!client.hears_within(Duration::from_millis(600)));
    let mut slow: Vec<Client> = (0..16).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut slow {
        client.send("GET /slow/6000 HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    eventually("all slots are taken", || origin.begun() == 16);
    client.send("st\r\n\r\n");
    let response = client.response();
    assert!(response.status == 503 && response.announces_close() && response.header("retry-after").is_some(), "{response:?}");
    client.finish();
    client.expect_end();
    // The other one owes the rest of its head: it hears so at once, which takes no slot.
    assert_eq!(silent.response().status, 408);
    assert!(!slow[0].hears_within(Duration::from_millis(1)), "all slots are taken");
    for client in &mut slow {
        assert_eq!(client.response().text(), "slow");
    }
    gateway.stop();
}

/// Tunnels stay for hours: they never take all slots.
#[test]
fn tunnels_leave_slots_to_requests() {
    let origin = Origin::raw(|mut stream, origin| {
        let mut buffer = Vec::new();
        while let Some(request) = origin.read_request(&mut stream, &mut buffer, 0) {
            let upgrades = request.header("upgrade").is_some();
            let answer =
                if upgrades { b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n".to_vec() } else { standard(&request) };
            if stream.write_all(&answer).is_err() {
                return;
            }
            if upgrades {
                let _ = stream.read_to_end(&mut Vec::new());
                return;
            }
        }
    });
    let route = "[[route]]\nupstream = \"app\"\nallow_upgrade = [\"echo\"]";
    for (limits, room) in [("slots = 16", 12), ("slots = 16\ntunnels = 3", 3), ("slots = 16\ntunnels = 0", 0)] {
        let gateway = Gateway::start(&config().upstream("app", &[origin.address()], "").with(&format!("[limits]\n{limits}\n{route}")));
        let upgrade = || {
            let mut client = Client::connect(gateway.address());
            client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
            let status = client.response().status;
            (client, status)
        };
        let mut open: Vec<Client> = Vec::new();
        for _ in 0..room {
            let (client, status) = upgrade();
            assert_eq!(status, 101);
            open.push(client);
        }
        for _ in 0..3 {
            let (mut client, status) = upgrade();
            assert_eq!(status, 503);
            assert_eq!(client.get("/bytes/3").text(), "abc", "the connection goes on");
        }
        open.pop();
        if room > 0 {
            eventually("there is room again", || upgrade().1 == 101);
        }
        drop(open);
        gateway.stop();
    }
}

/// Beginnings of heads have their memory. When others have filled it and slots are free, a head that comes slowly is served all the same.
#[test]
fn a_slow_head_is_served_while_slots_are_free_though_others_hold_all_there_is_for_heads() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().workers(1).to(&[origin.address()]).with("[timeouts]\nhead = \"10m\""));
    // 16 MiB of them, and small ones for what is left.
    let begin = |bytes: usize| {
        let mut client = Client::connect(gateway.address());
        client.send(&format!("GET / HTTP/1.1\r\nhost: test\r\n{}", format!("x-fill: {}\r\n", "x".repeat(500)).repeat(40))[..bytes]);
        client
    };
    let full: Vec<Client> = (0..1250).map(|at| begin(if at < 1200 { 16_000 } else { 1000 })).collect();
    // Until each has given its slot back, as far as it may.
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..5 {
        let mut client = Client::connect(gateway.address());
        client.send(format!("GET /bytes/3 HTTP/1.1\r\nx-fill: {}", "x".repeat(2000)));
        assert!(!client.hears_within(Duration::from_millis(600)), "long enough to lose the slot");
        client.send("\r\nhost: test\r\n\r\n");
        assert_eq!(client.response().text(), "abc");
    }
    drop(full);
    gateway.stop();
}

/// A head that comes slowly holds the bytes that have come, and no slot: with sixteen slots, two hundred of them keep nobody waiting, and each is
/// served when it is whole. None of them is in time for a deadline, so nothing but that lets the others through.
#[test]
fn slow_heads_hold_no_slot() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[limits]\nslots = 16\n[timeouts]\nhead = \"10m\""));
    let mut slow: Vec<Client> = (0..200).map(|_| Client::connect(gateway.address())).collect();
    let request = b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbody";
    let (begin, end) = request.split_at(request.len() - 12);
    for byte in begin {
        for client in &mut slow {
            client.send([*byte]);
        }
        assert_eq!(get(gateway.address(), "/bytes/3").status, 200);
    }
    for client in &mut slow {
        client.send(end);
        assert_eq!(client.response().text(), "body");
        assert_eq!(client.get("/bytes/3").text(), "abc");
    }
    gateway.stop();
}

/// The deadline of a head goes on while its connection has no slot, and a drain waits for it like for any request.
#[test]
fn a_slow_head_without_a_slot_keeps_its_deadline() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nhead = \"1500ms\""));
    let mut client = Client::connect(gateway.address());
    let response = not_before(1400, "408", || {
        client.send("GET / HTT");
        assert!(!client.hears_within(Duration::from_millis(500)), "long enough to lose the slot");
        client.send("P/1.1");
        client.response()
    });
    assert!(response.status == 408 && response.announces_close(), "{response:?}");
    client.expect_end();
    gateway.stop();

    let mut gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("GET /bytes/3 HTT");
    assert!(!client.hears_within(Duration::from_millis(500)), "long enough to lose the slot");
    gateway.signal(libc::SIGTERM);
    gateway.wait_for("draining");
    assert!(!client.hears_within(Duration::from_millis(200)), "a drain does not end it");
    client.send("P/1.1\r\nhost: test\r\n\r\n");
    let response = client.response();
    assert_eq!((response.text().as_str(), response.announces_close()), ("abc", true));
    assert_eq!(gateway.wait("the end").code(), Some(0));
}

/// Idle connections give their slots back, so many more of them than slots are no obstacle.
#[test]
fn idle_connections_beyond_the_slots_do_not_block_others() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[limits]\nslots = 16"));
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(gateway.address())).collect();
    let begun = Instant::now();
    for round in 0..2 {
        for (at, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.get("/bytes/3").status, 200, "connection {at}, round {round}");
        }
    }
    println!("300 connections on 16 slots, two rounds of one request each: {:?}", begun.elapsed());
    assert_eq!(get(gateway.address(), "/bytes/3").status, 200);
    gateway.stop();
}

#[test]
fn when_no_file_is_left_accepting_pauses_and_recovers() {
    let origin = Origin::start();
    let launch = Launch { files_max: 48, ..Launch::default() };
    let gateway = launch.start(&config().to(&[origin.address()]));
    let mut first = Client::connect(gateway.address());
    assert_eq!(first.get("/bytes/1").status, 200);
    let many: Vec<Client> = (0..100).map(|_| Client::connect(gateway.address())).collect();
    gateway.wait_for("accepting pauses");
    // Who is connected and has an upstream connection goes on.
    assert_eq!(first.get("/bytes/1").status, 200);
    drop(many);
    let mut last = Client::connect(gateway.address());
    assert_eq!(last.get("/bytes/1").status, 200);
    gateway.stop();
}

#[test]
fn sigterm_lets_a_slow_exchange_finish() {
    let origin = Origin::start();
    let mut gateway = Gateway::start(&config().workers(2).to(&[origin.address()]));
    let mut slow = Client::connect(gateway.address());
    let mut idle = Client::connect(gateway.address());
    assert_eq!(idle.get("/bytes/1").status, 200);
    slow.send("GET /slow/1500 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the upstream has both requests", || origin.begun() == 2);
    gateway.signal(libc::SIGTERM);
    idle.expect_end();
    // The idle connection ends and the listeners close at the same tick or the next.
    eventually("new connections are refused while the exchange goes on", || Client::try_connect(gateway.address()).is_err());
    let response = slow.response();
    assert_eq!((response.status, response.text().as_str()), (200, "slow"));
    assert!(gateway.ended().is_none_or(|status| status.success()));
    slow.finish();
    slow.expect_end();
    assert_eq!(gateway.wait("the end").code(), Some(0));
    assert!(Client::try_connect(gateway.address()).is_err(), "nobody listens any more");
}

#[test]
fn a_response_during_the_drain_announces_the_close() {
    let origin = Origin::start();
    let mut gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("GET /bytes/3 HTTP/1.1\r\nhost: te");
    // The head has begun, so this connection is not idle.
    let mut other = Client::connect(gateway.address());
    assert_eq!(other.get("/bytes/1").status, 200);
    gateway.signal(libc::SIGTERM);
    other.expect_end();
    client.send("st\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.announces_close()), (200, true), "{response:?}");
    assert_eq!(gateway.wait("the end").code(), Some(0));
}

#[test]
fn the_drain_has_a_deadline() {
    let origin = Origin::start();
    let mut gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\ndrain = \"300ms\""));
    let mut slow = Client::connect(gateway.address());
    slow.send("GET /slow/60000 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the upstream is asked", || origin.connections() == 1);
    gateway.signal(libc::SIGTERM);
    assert_eq!(gateway.wait("the end").code(), Some(0));
    slow.expect_end();
}

#[test]
fn sigint_twice_ends_at_once() {
    let origin = Origin::start();
    let mut gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut slow = Client::connect(gateway.address());
    slow.send("GET /slow/60000 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the upstream is asked", || origin.connections() == 1);
    gateway.signal(libc::SIGINT);
    gateway.wait_for("draining");
    assert!(gateway.ended().is_none());
    let begun = Instant::now();
    gateway.signal(libc::SIGINT);
    assert_eq!(gateway.wait("the end").code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn epoll_serves_as_the_ring_does() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().server("driver = \"epoll\"").to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    for size in [1, 1000, 500_000] {
        assert_eq!(client.get(&format!("/bytes/{size}")).body.len(), size);
        assert_eq!(client.get(&format!("/chunked/{size}")).body.len(), size);
    }
    assert!(!client.hears_within(Duration::from_millis(400)), "idle long enough to be parked");
    assert_eq!(client.get("/bytes/1").status, 200);
    drop(client);
    gateway.stop();
}

/// HTTP1.md rule 41: the client has `timeouts.linger` for all of the body that nobody wants, not for each piece of it.
#[test]
fn a_body_that_nobody_wants_is_not_read_for_ever() {
    const PIECE: &[u8] = &[b'x'; 20];
    const PIECES: usize = 1000;
    let origin = Origin::start();
    let route = "[timeouts]\nlinger = \"300ms\"\n[[route]]\nexact = \"/here\"\nupstream = \"app\"";
    let gateway = Gateway::start(&config().upstream("app", &[origin.address()], "").with(route));
    let mut client = Client::connect(gateway.address());
    client.send(format!("POST /nowhere HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", PIECES * PIECE.len()));
    let response = client.response();
    assert!(response.status == 404 && !response.announces_close(), "{response:?}");
    let sent = (0..PIECES).take_while(|_| {
        std::thread::sleep(Duration::from_millis(20));
        client.try_send(PIECE).is_ok()
    });
    assert!(sent.count() < PIECES, "the connection ends before the body does");
    gateway.stop();
}
