//! Mixed traffic for a while: memory and descriptors must not grow.
//!
//! `RINGWAY_SOAK_SECONDS` says for how long (20 by default; 600 before a release). The first quarter warms up.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod gateway;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway::*;

/// What may be added after the warm-up: caches and buffers that are first needed late.
const GROWTH_KIB_MAX: u64 = 6 * 1024;
/// Descriptors that idle pools may hold.
const FILES_MAX: usize = 600;

/// A name, and one exchange with the gateway at this address.
type Kind = (&'static str, fn(&str));

/// Kinds of traffic, one thread each; every call is one connection or a few.
const KINDS: [Kind; 10] = [
    ("keep-alive", keep_alive),
    ("new connections", new_connections),
    ("large bodies", large_bodies),
    ("chunked bodies", chunked_bodies),
    ("pipelines", pipelines),
    ("malformed", malformed),
    ("clients that go away", going_away),
    ("upstream faults", upstream_faults),
    ("tunnels", tunnels),
    ("plugins", plugins),
];

#[test]
fn memory_stays_flat_under_mixed_traffic() {
    let seconds = std::env::var("RINGWAY_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let origin = Origin::on("127.0.0.1:0", Behaviour::Answer(Arc::new(faulty)));
    origin.forget();
    let tunnel = Origin::raw(echo_tunnel);
    let made = config()
        .workers(2)
        .plugin("request-id", "")
        .plugin("header-rewrite", "[plugin.config]\nrequest = { set = { x-soak = \"1\" } }\nresponse = { add = { x-soak = \"1\" } }")
        .plugin("redirect", "[plugin.config]\nrules = [{ exact = \"/plugins/old\", location = \"/new\" }]")
        .plugin("body-limit", "[plugin.config]\nmax_bytes = 100000")
        .upstream("app", &[origin.address()], "[upstream.outlier]\nfailures = 0")
        .upstream("tunnel", &[tunnel.address()], "")
        .with("[[route]]\npath = \"/tunnel\"\nupstream = \"tunnel\"\nallow_upgrade = [\"echo\"]")
        .with("[[route]]\npath = \"/plugins\"\nupstream = \"app\"\nplugins = [\"request-id\", \"header-rewrite\", \"redirect\", \"body-limit\"]")
        .with("[[route]]\nupstream = \"app\"");
    let gateway = Gateway::start(&made);
    let ended = Arc::new(AtomicBool::new(false));
    let counts: Vec<Arc<AtomicU64>> = KINDS.iter().map(|_| Arc::default()).collect();
    let threads: Vec<_> = KINDS
        .iter()
        .zip(&counts)
        .map(|((_, run), count)| {
            let (address, ended, count) = (gateway.address().to_owned(), Arc::clone(&ended), Arc::clone(count));
            thread::spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    run(&address);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let reaches = |part: u32| begun.elapsed() >= Duration::from_secs(seconds) * part / 4;
    let failed = || threads.iter().any(thread::JoinHandle::is_finished);
    let mut readings = Vec::new();
    for part in 1..=4 {
        while !reaches(part) && !failed() {
            thread::sleep(Duration::from_millis(50));
        }
        readings.push(gateway.memory());
    }
    ended.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(join);
    for ((name, _), count) in KINDS.iter().zip(&counts) {
        println!("{name}: {} rounds", count.load(Ordering::Relaxed));
        assert!(count.load(Ordering::Relaxed) > 0, "{name}: not one round");
    }
    let (start, end) = (readings[0], readings[3]);
    println!(
        "soak of {seconds} s: resident {} KiB after the warm-up, {} KiB at the end; {} and {} descriptors",
        start.resident_kib, end.resident_kib, start.files, end.files
    );
    assert!(end.resident_kib < start.resident_kib + GROWTH_KIB_MAX, "{readings:?}");
    assert!(end.files < FILES_MAX, "{readings:?}");
    gateway.stop();
}

/// Answers by path what upstreams do wrong; everything else is echoed.
fn faulty(request: &Received) -> Vec<u8> {
    match request.path() {
        "/fault/close" => Vec::new(),
        "/fault/half" => b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1000\r\n\r\nhalf".to_vec(),
        "/fault/chunk" => b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        "/fault/head" => b"HTTP/1.1 2000 OK\r\nconnection: close\r\n\r\n".to_vec(),
        "/fault/500" => reply(500, &[], "no"),
        _ => standard(request),
    }
}

fn echo_tunnel(mut stream: std::net::TcpStream, origin: &Origin) {
    use std::io::{Read, Write};
    if origin.read_request(&mut stream, &mut Vec::new(), 0).is_none() {
        return;
    }
    let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    let mut piece = [0; 16_384];
    while let Ok(count) = stream.read(&mut piece) {
        if count == 0 || stream.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

fn keep_alive(address: &str) {
    let mut client = Client::connect(address);
    for _ in 0..500 {
        assert_eq!(client.get("/bytes/100").body.len(), 100);
    }
}

fn new_connections(address: &str) {
    for _ in 0..20 {
        assert_eq!(get(address, "/bytes/100").body.len(), 100);
    }
}

fn large_bodies(address: &str) {
    let mut client = Client::connect(address);
    for framing in ["bytes", "chunked", "close"] {
        assert_eq!(client.get(&format!("/{framing}/2000000")).body.len(), 2_000_000);
    }
    client.send([&b"POST /e HTTP/1.1\r\nhost: test\r\ncontent-length: 2000000\r\n\r\n"[..], &[b'x'; 2_000_000]].concat());
    assert_eq!(client.response().body.len(), 2_000_000);
}

fn chunked_bodies(address: &str) {
    let mut client = Client::connect(address);
    let mut request = b"POST /e HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..50 {
        request.extend_from_slice(&[&b"3e8;x=y\r\n"[..], &[b'x'; 1000], b"\r\n"].concat());
    }
    request.extend_from_slice(b"0\r\nx-trailer: 1\r\n\r\n");
    for _ in 0..10 {
        client.send(&request);
        assert_eq!(client.response().body.len(), 50_000);
    }
}

fn pipelines(address: &str) {
    let mut client = Client::connect(address);
    client.send("GET /bytes/10 HTTP/1.1\r\nhost: test\r\n\r\n".repeat(50));
    for _ in 0..50 {
        assert_eq!(client.response().body.len(), 10);
    }
}

fn malformed(address: &str) {
    for (bytes, status) in [("GET /\r\n\r\n", 400), ("GET / HTTP/1.1\r\n\r\n", 400), ("\u{16}\u{3}\u{1}", 400), ("GET / HTTP/3.0\r\nhost: a\r\n\r\n", 505)] {
        let mut client = Client::connect(address);
        client.send(bytes);
        client.finish();
        assert_eq!(client.response().status, status, "{bytes:?}");
    }
}

fn going_away(address: &str) {
    for bytes in ["", "GET / HT", "POST /e HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\nabc"] {
        Client::connect(address).send(bytes);
    }
    let mut client = Client::connect(address);
    client.send("GET /bytes/3000000 HTTP/1.1\r\nhost: test\r\n\r\n");
    // Waiting for the first bytes keeps this thread from outrunning the origin.
    client.read_exactly(100);
}

fn upstream_faults(address: &str) {
    for (path, status) in [("/fault/close", Some(502)), ("/fault/half", None), ("/fault/chunk", None), ("/fault/head", Some(502)), ("/fault/500", Some(500))] {
        let mut client = Client::connect(address);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let response = client.try_response(false);
        match status {
            Some(status) => assert_eq!(response.map(|r| r.status), Ok(status), "{path}"),
            // Cut off after the head, or refused when the fault came along with the head.
            None => assert!(response.as_ref().map_or(true, |r| r.status == 502), "{path}: {response:?}"),
        }
    }
}

fn tunnels(address: &str) {
    let mut client = Client::connect(address);
    client.send("GET /tunnel HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    assert_eq!(client.response().status, 101);
    for _ in 0..20 {
        client.send([b'z'; 5000]);
        assert_eq!(client.read_exactly(5000).len(), 5000);
    }
}

fn plugins(address: &str) {
    let mut client = Client::connect(address);
    for _ in 0..100 {
        let response = client.get("/plugins/a");
        assert!(response.status == 200 && response.header("x-soak").is_some() && response.header("x-request-id").is_some(), "{response:?}");
        assert_eq!(client.get("/plugins/old").status, 302);
    }
    client.send([&b"POST /plugins/a HTTP/1.1\r\nhost: test\r\ncontent-length: 200000\r\n\r\n"[..], &[b'x'; 200_000]].concat());
    assert_eq!(client.response().status, 413);
}
