//! Rules of `docs/http1.md` that need sockets or a clock: lingering close, pooled connections, rates, bounds, and the log reason and the
//! metric of every refusal.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::gateway::*;

/// A client that is still sending when it is refused gets the answer, and no reset takes it away.
#[test]
fn rule_65_an_early_close_lingers() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[limits]\nbody_bytes = \"1KiB\"\nbody_buffer_bytes = \"1KiB\""));
    for at in 0..20 {
        let mut client = Client::connect(gateway.address());
        client.send("POST /e HTTP/1.1\r\nhost: test\r\ncontent-length: 100000\r\n\r\n");
        // The body is sent although nobody wants it; bytes that arrive at a closed socket would cause a reset.
        client.send([b'x'; 50_000]);
        std::thread::sleep(Duration::from_millis(5 * (at % 4)));
        client.send([b'x'; 50_000]);
        let response = client.response();
        assert!(response.status == 413 && response.announces_close(), "{response:?}");
        client.finish();
        assert_eq!(client.expect_end(), Ended::Closed, "attempt {at}");
    }
    assert_eq!(origin.bytes(), 0);
    gateway.stop();
}

/// However large the body is that nobody wants: the client that goes on sending it is read for a while, and finds its answer.
#[test]
fn rule_65_an_early_answer_reaches_a_client_that_sends_megabytes() {
    let refused = "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone";
    let origin = Origin::raw(move |mut stream, _| {
        let mut head = [0; 1];
        // As soon as something comes.
        if stream.read(&mut head).is_ok_and(|count| count > 0) && stream.write_all(refused.as_bytes()).is_ok() {
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nlinger = \"20s\""));
    for _ in 0..5 {
        let mut client = Client::connect(gateway.address());
        client.send("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 8000000\r\n\r\n");
        for _ in 0..80 {
            assert!(client.try_send([b'x'; 100_000]).is_ok());
        }
        let response = client.response();
        assert!(response.status == 404 && response.announces_close(), "{response:?}");
        client.finish();
        assert_eq!(client.expect_end(), Ended::Closed);
    }
    gateway.stop();
}

/// A head that takes too long is answered, and what the client goes on to send does not take the answer from it.
#[test]
fn rule_65_and_94_a_timed_out_client_may_go_on_sending() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nhead = \"200ms\"\nlinger = \"5s\""));
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nhost: te");
    assert!(client.hears_within(Duration::from_secs(20)));
    for _ in 0..20 {
        // A socket that is closed answers the first with a reset, and the next ones fail.
        assert!(client.try_send("st\r\n").is_ok());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nor does much of it at once.
    assert!(client.try_send([b'x'; 200_000]).is_ok());
    assert_eq!(client.response().status, 408);
    eventually("the connection ends", || client.try_send("x").is_err());
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nhost: te");
    assert!(client.hears_within(Duration::from_secs(20)));
    assert!(client.try_send([b'x'; 200_000]).is_ok());
    client.finish();
    assert_eq!(client.response().status, 408);
    assert_eq!(client.expect_end(), Ended::Closed);
    gateway.stop();
}

/// An idle upstream connection that has bytes to read, or whose end came, is not used again.
#[test]
fn rule_66_an_idle_connection_with_bytes_or_an_end_is_discarded() {
    let origin = Origin::raw(|mut stream, origin| {
        let mut buffer = Vec::new();
        while let Some(request) = origin.read_request(&mut stream, &mut buffer, 0) {
            if stream.write_all(&reply(200, &[], "good")).is_err() {
                return;
            }
            // Nobody asked for what comes now; it comes after the response has been read.
            std::thread::sleep(Duration::from_millis(30));
            match request.path() {
                "/bytes" => drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")),
                "/end" => drop(stream.shutdown(std::net::Shutdown::Write)),
                _ => {}
            }
        }
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    let mut connections = 0;
    for path in ["/bytes", "/end", "/bytes", "/quiet", "/quiet"] {
        // POST: it would not be repeated if it failed.
        client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx"));
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "good"), "{path}");
        connections += usize::from(path != "/quiet");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(origin.connections(), connections + 1, "the quiet connection is used again, the others are not");
    gateway.stop();
}

/// What one upstream used is never used for another, though both lead to the same server.
#[test]
fn rule_70_connections_of_upstreams_are_not_mixed() {
    let origin = Origin::start();
    let text = "[[route]]\npath = \"/a\"\nupstream = \"a\"\n[[route]]\npath = \"/b\"\nupstream = \"b\"";
    let gateway = Gateway::start(&config().upstream("a", &[origin.address()], "").upstream("b", &[origin.address()], "host = \"b.example\"").with(text));
    let mut client = Client::connect(gateway.address());
    for _ in 0..5 {
        for path in ["/a", "/b"] {
            client.get(path);
        }
    }
    let requests = origin.requests();
    let of = |prefix: &str| {
        let mut connections: Vec<usize> = requests.iter().filter(|r| r.path() == prefix).map(|r| r.connection).collect();
        assert_eq!(connections.len(), 5);
        connections.dedup();
        connections
    };
    let (a, b) = (of("/a"), of("/b"));
    assert!(a.len() == 1 && b.len() == 1 && a != b, "{a:?} {b:?}");
    gateway.stop();
}

#[test]
fn rule_95_a_body_that_trickles_is_408() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[limits]\nbody_rate_bytes = \"1KiB\""));
    let mut client = Client::connect(gateway.address());
    client.send("POST /e HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n");
    // Never idle for long, and yet far below the rate: the answer comes once the grace of five seconds is over.
    for _ in 0..200 {
        if client.try_send([b'x'; 16]).is_err() || client.hears_within(Duration::from_millis(50)) {
            break;
        }
    }
    let response = client.response();
    assert!(response.status == 408 && response.announces_close(), "{response:?}");
    assert_eq!(origin.count(), 0, "the upstream never saw a whole request");
    gateway.stop();
}

#[test]
fn rule_98_an_old_connection_announces_its_close() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nconnection_age = \"400ms\""));
    let mut client = Client::connect(gateway.address());
    assert!(!client.get("/bytes/1").announces_close());
    std::thread::sleep(Duration::from_millis(500));
    assert!(client.get("/bytes/1").announces_close());
    client.finish();
    client.expect_end();
    gateway.stop();
}

#[test]
fn rule_99_connections_of_the_process_are_bounded() {
    let origin = Origin::start();
    let limits = "[limits]\nconnections = 3\nconnections_per_address = 3";
    let gateway = Gateway::start(&config().server("admin = \"127.0.0.1:0\"").to(&[origin.address()]).with(limits));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut clients {
        assert_eq!(client.get("/bytes/1").status, 200);
    }
    let refused = "ringway_faults_total{reason=\"connections_exhausted\"}";
    // A refused connection costs no slot and is gone at once.
    for count in 1..=10 {
        expect_refused(gateway.address());
        assert_eq!(gateway.metric(refused), count);
    }
    for client in &mut clients {
        assert_eq!(client.get("/bytes/1").status, 200);
    }
    clients.clear();
    eventually("there is room again", || status_of(gateway.address(), "/bytes/1") == Some(200));
    gateway.stop();
}

/// Every refusal has its own reason, in the log and in the metrics.
#[test]
fn every_refusal_is_logged_and_counted_by_its_reason() {
    const CASES: &[(&str, &str)] = &[
        ("leading_empty_lines", "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("bad_method", "G(T / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("method_too_long", "GGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGG / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("bad_request_line", "GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("bad_target", "GET a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("bad_scheme", "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("asterisk_without_options", "GET * HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("http2_preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("unsupported_version", "GET / HTTP/3.0\r\nhost: a\r\n\r\n"),
        ("bad_version", "GET / HTTP/1.10\r\nhost: a\r\n\r\n"),
        ("missing_version", "GET /\r\n\r\n"),
        ("bare_line_feed", "GET / HTTP/1.1\nhost: a\r\n\r\n"),
        ("control_byte", "GET / HTTP/1.1\r\nhost: a\r\nx: \x01\r\n\r\n"),
        ("obs_fold", "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n"),
        ("space_before_colon", "GET / HTTP/1.1\r\nhost: a\r\nx : a\r\n\r\n"),
        ("empty_field_name", "GET / HTTP/1.1\r\nhost: a\r\n: a\r\n\r\n"),
        ("missing_colon", "GET / HTTP/1.1\r\nhost: a\r\nabc\r\n\r\n"),
        ("missing_host", "GET / HTTP/1.1\r\n\r\n"),
        ("duplicate_host", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
        ("bad_host", "GET / HTTP/1.1\r\nhost: a,b\r\n\r\n"),
        ("bad_content_length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx"),
        ("conflicting_content_length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"),
        ("length_and_transfer_encoding", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("transfer_encoding_in_http10", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("chunked_not_last", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n"),
        ("unknown_transfer_coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: x, chunked\r\n\r\n"),
        ("bad_chunk_size", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\n"),
        ("bad_chunk_line_end", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\nx"),
        ("expectation_failed", "POST / HTTP/1.1\r\nhost: a\r\nexpect: x\r\ncontent-length: 1\r\n\r\nx"),
        ("nul_in_path", "GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("path_above_root", "GET /../a HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("method_not_allowed", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("body_too_large", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000000\r\n\r\n"),
        ("loop_detected", "GET / HTTP/1.1\r\nhost: a\r\nvia: 1 ringway,1 ringway,1 ringway,1 ringway,1 ringway\r\n\r\n"),
    ];
    let origin = Origin::start();
    let gateway = Gateway::start(&config().server("admin = \"127.0.0.1:0\"").to(&[origin.address()]));
    let count = |reason: &str| gateway.metric(&format!("ringway_faults_total{{reason=\"{reason}\"}}"));
    for (at, (reason, bytes)) in CASES.iter().enumerate() {
        // The log is bounded to some lines a second for each worker.
        if at % 15 == 14 {
            std::thread::sleep(Duration::from_millis(1100));
        }
        assert_eq!(count(reason), 0, "{reason}");
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{reason}: {error}"));
        assert!(matches!(answer[9], b'4' | b'5'), "{reason}: {}", String::from_utf8_lossy(&answer));
        drop(stream);
        eventually(reason, || count(reason) == 1);
        gateway.wait_for(&format!("\"reason\":\"{reason}\""));
    }
    println!("{} refusals, each with its own log reason and counter", CASES.len());
    gateway.stop();
}
