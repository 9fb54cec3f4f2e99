//! Traffic: framings, pipelines, large bodies, many connections, real programs.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::gateway::*;

/// The configuration of the design, with ports that are free: real nginx behind, all defaults.
fn design(nginx: &Nginx) -> Config {
    let path = |name: &str| plugin(name).display().to_string();
    config().workers(2).with(&format!(
        "[[upstream]]
            name = \"app\"
            servers = [\"{}\"]

            [[plugin]]
            name = \"request-id\"
            path = {:?}

            [[plugin]]
            name = \"rate-limit\"
            path = {:?}
            on_error = \"closed\"
            [plugin.config]
            requests_per_second = 100000

            [[plugin]]
            name = \"redirect\"
            path = {:?}
            [plugin.config]
            rules = [{{ prefix = \"/api/old/\", location = \"/api/new/\" }}]

            [[route]]
            path = \"/api/\"
            upstream = \"app\"
            plugins = [\"request-id\", \"rate-limit\", \"redirect\"]

            [[route]]
            upstream = \"app\"",
        nginx.address,
        path("request-id"),
        path("rate-limit"),
        path("redirect"),
    ))
}

#[test]
fn the_configuration_of_the_design_serves_in_front_of_nginx() {
    let nginx = Nginx::origin();
    let gateway = Gateway::start(&design(&nginx));
    let mut client = Client::connect(gateway.address());
    let hello = client.get("/");
    assert_eq!((hello.status, hello.text().as_str()), (200, "hello\n"));
    // Plugins of C, Rust and Zig in one chain: an id from the first, a short circuit by the third.
    let api = client.get("/api/x?y=1");
    assert_eq!((api.status, api.text().as_str()), (200, "api /api/x?y=1\n"));
    assert!(api.header("x-request-id").is_some(), "{api:?}");
    let moved = client.get("/api/old/a");
    assert_eq!((moved.status, moved.header("location")), (302, Some("/api/new/a")), "{moved:?}");
    assert!(moved.header("x-request-id").is_some(), "a post hook sees a short circuit: {moved:?}");

    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello");
    let posted = client.response();
    assert_eq!((posted.header("x-body"), posted.text().as_str()), (Some("hello"), "POST 5\n"), "{posted:?}");
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let chunked = client.response();
    assert_eq!((chunked.header("x-body"), chunked.text().as_str()), (Some("abcde"), "POST 5\n"), "{chunked:?}");

    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\nGET /api/1 HTTP/1.1\r\nhost: test\r\n\r\nHEAD / HTTP/1.1\r\nhost: test\r\n\r\nGET /api/2 HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.response().text(), "hello\n");
    assert_eq!(client.response().text(), "api /api/1\n");
    let head = client.head_response();
    assert_eq!((head.status, head.header("content-length")), (200, Some("6")));
    assert_eq!(client.response().text(), "api /api/2\n");
    gateway.stop();
}

/// 100 MB in each direction, with a length and chunked; the gateway holds a few buffers, never the body.
#[test]
fn large_bodies_stream_in_constant_memory() {
    const BYTES: usize = 100_000_000;
    let nginx = Nginx::origin();
    let gateway = Gateway::start(&config().to(&[&nginx.address]));
    assert_eq!(get(gateway.address(), "/").status, 200);
    let before = gateway.memory();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large");
    let bytes: Vec<u8> = (0..BYTES / 4).flat_map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(&file, &bytes).unwrap();
    for (name, framing) in [("length", "Expect:"), ("chunked", "Transfer-Encoding: chunked")] {
        let url = gateway.url(&format!("/files/{name}"));
        let (status, _) = curl(&["-T", file.to_str().unwrap(), "-H", framing, "-H", "Expect:", &url]);
        assert_eq!(status, 201, "{name}");
        let stored = fs::read(nginx.folder.path().join("files").join(name)).unwrap();
        assert!(stored == bytes, "{name}: what nginx stored differs");
        let mut client = Client::connect(gateway.address());
        let back = client.get(&format!("/files/{name}"));
        assert!(back.status == 200 && back.body == bytes, "{name}: what came back differs");
    }
    let after = gateway.memory();
    println!("100 MB up and down, twice: resident {} KiB before, {} KiB after", before.resident_kib, after.resident_kib);
    assert!(after.resident_kib < before.resident_kib + 20_000, "{before:?} {after:?}");
    gateway.stop();
}

/// The status and the body of one curl.
fn curl(arguments: &[&str]) -> (u16, String) {
    let output =
        Command::new(tool("curl", "apt-get install -y curl")).args(["-sS", "-w", "\n%{http_code}", "--max-time", "60"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[test]
fn curl_sees_correct_answers() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    assert_eq!(curl(&[&gateway.url("/bytes/10")]), (200, "abcdefghij".into()));
    assert_eq!(curl(&["-d", "a=1", &gateway.url("/form")]), (200, "a=1".into()));
    assert_eq!(curl(&["-d", "a=1", "-H", "Transfer-Encoding: chunked", &gateway.url("/form")]), (200, "a=1".into()));
    assert_eq!(curl(&["-I", &gateway.url("/bytes/10")]).0, 200);
    assert_eq!(curl(&["--http1.0", &gateway.url("/chunked/3")]), (200, "abc".into()));
    let large = "x".repeat(100_000);
    let sent = tempfile::NamedTempFile::new().unwrap();
    fs::write(sent.path(), &large).unwrap();
    // curl sends Expect: 100-continue with a body of this size.
    let (status, back) = curl(&["--data-binary", &format!("@{}", sent.path().display()), &gateway.url("/form")]);
    assert!(status == 200 && back == large);
    assert_eq!(curl(&["-X", "TRACE", &gateway.url("/")]).0, 405);
    gateway.stop();
}

#[test]
fn wrk_sees_no_errors() {
    let nginx = Nginx::origin();
    let gateway = Gateway::start(&design(&nginx));
    let output = Command::new(tool("wrk", "apt-get install -y wrk")).args(["-t1", "-c64", "-d2s", &gateway.url("/api/x")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    println!("{}", text.lines().find(|line| line.contains("Requests/sec")).unwrap_or("no figure"));
    gateway.stop();
}

#[test]
fn a_thousand_keep_alive_connections_are_served_at_once() {
    let nginx = Nginx::origin();
    let gateway = Gateway::start(&config().workers(2).to(&[&nginx.address]));
    let mut clients: Vec<Client> = (0..1000).map(|_| Client::connect(gateway.address())).collect();
    for round in 0..3 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        }
        for (at, client) in clients.iter_mut().enumerate() {
            let response = client.response();
            assert_eq!((response.status, response.text().as_str()), (200, "hello\n"), "connection {at}, round {round}");
        }
    }
    gateway.stop();
}

#[test]
fn a_pipeline_of_many_requests_is_answered_in_order() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    let mut requests = String::new();
    for at in 0..500 {
        match at % 3 {
            0 => requests += &format!("GET /{at} HTTP/1.1\r\nhost: test\r\n\r\n"),
            1 => requests += &format!("POST /{at} HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc"),
            _ => requests += &format!("PUT /{at} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        }
    }
    client.send(&requests);
    for at in 0..500 {
        let response = client.response();
        assert_eq!(response.header("x-target"), Some(format!("/{at}").as_str()));
        assert_eq!(response.text(), if at % 3 == 0 { "" } else { "abc" }, "{at}");
    }
    gateway.stop();
}

#[test]
fn every_framing_of_a_response_arrives_whole() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    for size in [0, 1, 999, 1000, 16_383, 16_384, 16_385, 70_000, 300_000] {
        let expected = get(origin.address(), &format!("/bytes/{size}")).body;
        assert_eq!(expected.len(), size);
        let mut client = Client::connect(gateway.address());
        for framing in ["bytes", "chunked", "close", "bytes"] {
            let response = client.get(&format!("/{framing}/{size}"));
            assert!(response.status == 200 && response.body == expected, "{framing} {size}: {} bytes", response.body.len());
            // What the upstream ends by closing is framed again, so the client's connection goes on.
            assert!(!response.announces_close(), "{framing} {size}");
        }
        let mut old = Client::connect(gateway.address());
        old.send(format!("GET /chunked/{size} HTTP/1.0\r\n\r\n"));
        let response = old.response();
        assert!(response.body == expected && response.header("transfer-encoding").is_none(), "HTTP/1.0, {size}");
        old.expect_end();
    }
    gateway.stop();
}

#[test]
fn bodies_of_every_size_arrive_whole() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    for size in [0, 1, 1000, 15_000, 16_384, 20_000, 100_000, 1_000_000] {
        let body = get(origin.address(), &format!("/bytes/{size}")).body;
        client.send([format!("POST /e HTTP/1.1\r\nhost: test\r\ncontent-length: {size}\r\n\r\n").as_bytes(), &body].concat());
        let response = client.response();
        assert!(response.status == 200 && response.body == body, "length {size}: {} bytes", response.body.len());
        let mut chunked = b"POST /e HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(777) {
            chunked.extend_from_slice(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        client.send(chunked);
        let response = client.response();
        assert!(response.status == 200 && response.body == body, "chunked {size}: {} bytes", response.body.len());
    }
    gateway.stop();
}

#[test]
fn responses_without_a_body_end_at_their_head() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    for status in [204, 304, 200, 404, 500] {
        assert_eq!(client.get(&format!("/status/{status}")).status, status);
    }
    client.send("HEAD /bytes/1000 HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.head_response().header("content-length"), Some("1000"));
    assert_eq!(client.get("/bytes/1").body, b"a");
    assert_eq!(origin.connections(), 1, "every exchange used the same upstream connection");
    gateway.stop();
}

#[test]
fn interim_responses_reach_the_client() {
    let origin = Origin::raw(|mut stream, origin| {
        use std::io::Write;
        let mut buffer = Vec::new();
        while origin.read_request(&mut stream, &mut buffer, 0).is_some() {
            let _ = stream
                .write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.status, response.interim, response.body), (200, vec![103, 103], b"ok".to_vec()));
    }
    gateway.stop();
}

#[test]
fn expect_continue_works_with_clients_that_wait_and_that_do_not() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("POST /e HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(client.read_exactly(21), b"HTTP/1.1 100 Continue");
    assert!(client.read_exactly(4) == b"\r\n\r\n");
    client.send("body");
    assert_eq!(client.response().body, b"body");
    client.send("POST /e HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody");
    let response = client.response();
    assert_eq!((response.status, response.body.as_slice()), (200, &b"body"[..]));
    gateway.stop();
}

/// The client keeps its body until it is asked for, and it is not: the body's deadline is no concern of an answer that comes slowly.
#[test]
fn rule_82_an_answer_instead_of_100_takes_its_time() {
    let origin = Origin::raw(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(200));
            let _ = stream.write_all(b"3\r\nabc\r\n");
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        let _ = stream.read(&mut [0]);
    });
    for driver in ["io_uring", "epoll"] {
        let timeouts = "[timeouts]\nbody_idle = \"400ms\"";
        let gateway = Gateway::start(&config().server(&format!("driver = {driver:?}")).to(&[origin.address()]).with(timeouts));
        let mut client = Client::connect(gateway.address());
        client.send("POST /e HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, response.text(), response.announces_close()), (200, "abc".repeat(6), true));
        client.expect_end();
        gateway.stop();
    }
}

/// A response that is cut off takes nothing from a client that reads late: neither what came of it, nor the response before it.
#[test]
fn rule_76_what_came_before_a_cut_reaches_a_client_that_reads_late() {
    const WHOLE: usize = 1_500_000;
    let origin = Origin::raw(|mut stream, origin| {
        let mut buffer = Vec::new();
        while let Some(request) = origin.read_request(&mut stream, &mut buffer, 0) {
            let (says, has) = if request.path() == "/whole" { (WHOLE, WHOLE) } else { (2 * WHOLE, WHOLE) };
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {says}\r\n\r\n").as_bytes()).and_then(|()| stream.write_all(&vec![b'x'; has]));
            if has < says {
                return;
            }
        }
    });
    let gateway = Gateway::start(&config().server("admin = \"127.0.0.1:0\"").to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("GET /whole HTTP/1.1\r\nhost: test\r\n\r\nGET /cut HTTP/1.1\r\nhost: test\r\n\r\n");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(client.response().body, vec![b'x'; WHOLE]);
    let (bytes, ended) = client.read_to_end();
    assert!(bytes.ends_with(&vec![b'x'; WHOLE]) && ended == Ended::Closed, "{ended:?} after {} bytes", bytes.len());
    assert_eq!(gateway.metric("ringway_faults_total{reason=\"upstream_truncated\"}"), 1);
    gateway.stop();
}

/// A response whose end is that of the connection is not held back for the rest of a body.
#[test]
fn rule_68_an_early_success_for_http_1_0_ends_with_its_last_byte() {
    let origin = Origin::raw(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n");
        while matches!(stream.read(&mut [0; 4096]), Ok(count) if count > 0) {}
    });
    // The body's deadline is far beyond the client's patience.
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nbody_idle = \"10m\""));
    let mut client = Client::connect(gateway.address());
    client.send("POST /e HTTP/1.0\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345");
    let (bytes, ended) = client.read_to_end();
    assert!(bytes.ends_with(b"\r\n\r\ndone") && ended == Ended::Closed, "{ended:?} {:?}", String::from_utf8_lossy(&bytes));
    gateway.stop();
}

/// HTTP1.md rule 68: what the upstream says before it has read the request reaches the client.
#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = Origin::raw(|mut stream, _| {
        use std::io::Write;
        let mut piece = [0; 4096];
        let _ = stream.read(&mut piece);
        let _ = stream.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 4\r\n\r\nstop");
        // Reads until the gateway closes, so that no reset takes the answer away.
        while matches!(stream.read(&mut piece), Ok(count) if count > 0) {}
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("POST /e HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nbegin");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str(), response.announces_close()), (403, "stop", true));
    gateway.stop();
}

/// HTTP1.md rules 40 and 76: a message that was cut off is never made to look whole.
#[test]
fn a_cut_off_message_is_seen_as_cut_off_on_the_other_side() {
    let origin = Origin::raw(|mut stream, origin| {
        use std::io::Write;
        let mut buffer = Vec::new();
        let Some(request) = origin.read_request(&mut stream, &mut buffer, 0) else { return };
        let _ = stream.write_all(match request.path() {
            "/length" => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
            "/chunked" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            _ => b"HTTP/1.1 200 OK\r\ncontent-le",
        });
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    for path in ["/length", "/chunked"] {
        let mut client = Client::connect(gateway.address());
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let problem = client.try_response(false).expect_err(path);
        assert!(problem.contains("in the middle of"), "{problem}");
    }
    assert_eq!(get(gateway.address(), "/head").status, 502);

    let echo = Origin::start();
    let forward = Gateway::start(&config().to(&[echo.address()]));
    for half in ["content-length: 100\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let seen = echo.connections();
        let mut client = Client::connect(forward.address());
        client.send(format!("POST /e HTTP/1.1\r\nhost: test\r\n{half}"));
        eventually("the upstream is asked", || echo.connections() > seen);
        client.finish();
        client.expect_end();
        eventually("the upstream connection is closed", || echo.open() == 0);
    }
    assert_eq!(echo.count(), 0, "the origin never saw a complete request");
    gateway.stop();
    forward.stop();
}

#[test]
fn both_kinds_of_unix_socket_work() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let (front, middle) = (format!("unix:{}/front.sock", folder.path().display()), format!("unix:{}/middle.sock", folder.path().display()));
    let inner = Gateway::start(&config().listen(&middle).to(&[origin.address()]));
    let outer = Gateway::start(&config().listen(&front).with("[[listener]]\naddress = \"127.0.0.1:0\"").to(&[&middle]));
    for address in [front.clone(), outer.addresses()[1].clone(), middle] {
        let mut client = Client::connect(&address);
        for _ in 0..3 {
            assert_eq!(client.get("/bytes/5").body, b"abcde");
        }
    }
    outer.stop();
    inner.stop();
    assert!(!folder.path().join("front.sock").exists(), "the socket file is removed");
}

#[test]
fn several_listeners_and_routes_lead_where_they_should() {
    let (one, two) = (Origin::answering(|_| reply(200, &[], "one")), Origin::answering(|_| reply(200, &[], "two")));
    let gateway = Gateway::start(
        &config()
            .with("[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"")
            .upstream("one", &[one.address()], "")
            .upstream("two", &[two.address()], "")
            .with(
                "[[route]]\nlistener = \"second\"\nupstream = \"two\"\n[[route]]\nhost = \"two.test\"\nupstream = \"two\"\n
                 [[route]]\npath = \"/two\"\nupstream = \"two\"\n[[route]]\nmethod = \"GET\"\nexact = \"/one\"\nupstream = \"one\"\n",
            ),
    );
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.get("/two/x").text(), "two");
    assert_eq!(client.get("/one").text(), "one");
    assert_eq!(client.get("/twox").status, 404);
    client.send("POST /one HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.response().status, 405);
    client.send("GET /x HTTP/1.1\r\nhost: TWO.test:80\r\n\r\n");
    assert_eq!(client.response().text(), "two");
    assert_eq!(get(&gateway.addresses()[1], "/one").text(), "two");
    gateway.stop();
}

#[test]
fn clients_of_many_threads_get_their_own_answers() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().workers(2).to(&[origin.address()]));
    let address = gateway.address().to_owned();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let address = address.clone();
            thread::spawn(move || {
                let mut client = Client::connect(&address);
                for at in 0..200 {
                    let body = format!("{thread}-{at}");
                    client.send(format!("POST /{body} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
                    let response = client.response();
                    assert_eq!((response.text(), response.header("x-target")), (body.clone(), Some(format!("/{body}").as_str())));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(join);
    gateway.stop();
}

/// A large body that comes in small pieces: each is passed on when it comes, not when the next one does. Held back for 200 ms each, they would need 20 s.
#[test]
fn a_piece_of_a_large_body_is_not_held_back() {
    const PIECES: usize = 100;
    let taken = Arc::new(AtomicUsize::new(0));
    let origin = Origin::raw({
        let taken = Arc::clone(&taken);
        move |mut stream, origin| {
            let _ = origin.read_request(&mut stream, &mut Vec::new(), 0);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 100_000 + 10 * PIECES);
            let _ = stream.write_all(&[head.as_bytes(), &[b'x'; 100_000]].concat());
            for piece in 1..=PIECES {
                while taken.load(Ordering::SeqCst) < piece {
                    thread::sleep(Duration::from_millis(1));
                }
                if stream.write_all(b"0123456789").is_err() {
                    return;
                }
            }
        }
    });
    let gateway = Gateway::start(&config().to(&[origin.address()]).with("[timeouts]\nexchange = \"10s\""));
    let mut client = std::net::TcpStream::connect(gateway.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    client.read_exact(&mut [0; 100_000]).unwrap();
    for piece in 1..=PIECES {
        taken.store(piece, Ordering::SeqCst);
        let mut bytes = [0; 10];
        assert!(client.read_exact(&mut bytes).is_ok(), "piece {piece} comes within the time of the exchange");
        assert_eq!(&bytes, b"0123456789");
    }
    gateway.stop();
}
