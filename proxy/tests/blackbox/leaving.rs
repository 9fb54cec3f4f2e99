//! Clients that leave while their response is awaited, and tunnels when the gateway stops.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::gateway::*;

/// Takes requests and says nothing, or only the beginning of a response, until the other side ends.
fn silent(beginning: &'static [u8]) -> Origin {
    Origin::raw(move |mut stream, origin| {
        let _ = origin.read_request(&mut stream, &mut Vec::new(), 0);
        let _ = stream.write_all(beginning);
        read_to_end(&mut stream);
    })
}

fn read_to_end(stream: &mut TcpStream) {
    let mut piece = [0; 4096];
    while matches!(stream.read(&mut piece), Ok(count) if count > 0) {}
}

/// Open files of a gateway that has just started, once their number stays.
fn settled_files(gateway: &Gateway) -> usize {
    let mut files = 0;
    eventually("the gateway has opened what it opens", || {
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut files, gateway.memory().files) == files
    });
    files
}

/// Nothing but the client's leaving ends an exchange.
const PATIENT: &str = "[timeouts]\nfirst_byte = \"off\"\nresponse_idle = \"10m\"\nexchange = \"off\"";

#[test]
fn a_client_that_leaves_lets_the_upstream_go() {
    for driver in ["io_uring", "epoll"] {
        for beginning in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\n\r\nhalf",
        ] {
            let origin = silent(beginning);
            let folder = tempfile::tempdir().unwrap();
            let socket = format!("unix:{}/front.sock", folder.path().display());
            let text = format!("[[listener]]\naddress = {socket:?}\n{PATIENT}");
            let log = folder.path().join("access.log");
            let gateway = Gateway::start(
                &config().server(&format!("driver = {driver:?}\naccess_log = {:?}", log.display().to_string())).to(&[origin.address()]).with(&text),
            );
            for (at, address) in gateway.addresses().iter().enumerate() {
                for reset in [false, true] {
                    let asked = origin.connections();
                    let mut client = Client::connect(address);
                    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
                    eventually("the upstream is asked", || origin.connections() > asked);
                    if !beginning.is_empty() {
                        client.read_exactly(50);
                    }
                    if reset && at == 0 {
                        client.reset();
                    } else {
                        drop(client);
                    }
                    eventually("the upstream is let go", || origin.open() == 0);
                }
            }
            eventually("both ends of every exchange are closed", || gateway.memory().files < 40);
            eventually("each is logged", || std::fs::read_to_string(&log).is_ok_and(|text| text.matches("client_closed").count() == 4));
            gateway.stop();
        }
    }
}

/// An upstream that takes nothing of a body is waited for, too. A client that only closes cannot be noticed then: its end stands behind the bytes
/// that nobody reads.
#[test]
fn a_client_that_leaves_in_the_middle_of_its_body_lets_the_upstream_go() {
    for driver in ["io_uring", "epoll"] {
        // Held open, never read, until the test process ends.
        let origin = Origin::raw(|stream, _| std::mem::forget(stream));
        let gateway = Gateway::start(
            &config()
                .server(&format!("driver = {driver:?}\nadmin = \"127.0.0.1:0\""))
                .to(&[origin.address()])
                .with(&format!("{PATIENT}\nwrite_stall = \"10m\"")),
        );
        gateway.wait_for("admin listening");
        let files = settled_files(&gateway);
        let mut client = TcpStream::connect(gateway.address()).unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000\r\n\r\n").unwrap();
        client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        while client.write(&[b'x'; 65536]).is_ok() {}
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        eventually("both connections are closed", || gateway.memory().files <= files);
        eventually("it is counted", || gateway.metric("ringway_faults_total{reason=\"client_closed\"}") == 1);
        gateway.stop();
    }
}

#[test]
fn many_clients_that_leave_leave_nothing_behind() {
    const CLIENTS: usize = 500;
    let origin = silent(b"");
    let gateway = Gateway::start(&config().server("admin = \"127.0.0.1:0\"").to(&[origin.address()]).with(PATIENT));
    let admin = gateway.wait_for("admin listening");
    let admin = serde_json::from_str::<serde_json::Value>(&admin).unwrap()["address"].as_str().unwrap().to_owned();
    let files = gateway.memory().files;
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    eventually("the upstream is asked", || origin.connections() == CLIENTS);
    let held = gateway.memory().files;
    drop(clients);
    eventually("the upstream is let go", || origin.open() == 0);
    eventually("descriptors are given back", || gateway.memory().files <= files + 4);
    let counted = format!("reason=\"client_closed\"}} {CLIENTS}\n");
    eventually("each is counted", || {
        let mut client = Client::connect(&admin);
        client.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
        client.response().text().contains(&counted)
    });
    println!("{CLIENTS} clients that leave: {files} descriptors before, {held} with them, {} after", gateway.memory().files);
    gateway.stop();
}

/// A client may say that it sends nothing more and still want its answer: always when the answer comes soon, and with the option however long
/// it takes. Requests behind the first are answered too.
#[test]
fn a_client_that_only_shuts_its_sending_side_down_can_be_served() {
    let origin = Origin::start();
    let ask = |gateway: &Gateway, path: &str| {
        let mut client = Client::connect(gateway.address());
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").repeat(2));
        client.finish();
        client
    };
    let serving = Gateway::start(&config().server("half_close = \"serve\"").to(&[origin.address()]));
    let mut client = ask(&serving, "/slow/800");
    for _ in 0..2 {
        assert_eq!(client.response().text(), "slow");
    }
    client.expect_end();
    serving.stop();
    let aborting = Gateway::start(&config().to(&[origin.address()]));
    let mut client = ask(&aborting, "/bytes/3");
    for _ in 0..2 {
        assert_eq!(client.response().text(), "abc");
    }
    client.expect_end();
    ask(&aborting, "/slow/5000").expect_end();
    aborting.stop();
}

/// With the option, a client that is really gone is still noticed: by its reset, or on a Unix socket.
#[test]
fn a_client_that_is_gone_is_noticed_when_half_closed_ones_are_served() {
    let origin = silent(b"");
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}/front.sock", folder.path().display());
    let text = format!("[[listener]]\naddress = {socket:?}\n{PATIENT}");
    let gateway = Gateway::start(&config().server("half_close = \"serve\"").to(&[origin.address()]).with(&text));
    for (at, address) in gateway.addresses().iter().enumerate() {
        let mut client = Client::connect(address);
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        eventually("the upstream is asked", || origin.open() == 1);
        client.finish();
        assert!(!client.hears_within(Duration::from_millis(700)), "half-closed is not gone");
        assert_eq!(origin.open(), 1);
        if at == 0 {
            client.reset();
        } else {
            drop(client);
        }
        eventually("the upstream is let go", || origin.open() == 0);
    }
    gateway.stop();
}

/// Bytes of the next request that arrive while the first is awaited stay where they are.
#[test]
fn pipelined_bytes_are_not_lost_while_the_client_is_looked_for() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("GET /slow/900 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the upstream is asked", || origin.begun() == 1);
    client.send("POST /e HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(client.response().text(), "slow");
    assert_eq!(client.response().text(), "hello");
    gateway.stop();
}

/// An origin that speaks a protocol of its own after its 101: what comes goes back.
fn echo() -> Origin {
    Origin::raw(|mut stream, origin| {
        let Some(_) = origin.read_request(&mut stream, &mut Vec::new(), 0) else { return };
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
        let mut piece = [0; 4096];
        while let Ok(count) = stream.read(&mut piece) {
            if count == 0 || stream.write_all(&piece[..count]).is_err() {
                return;
            }
        }
    })
}

fn tunnel(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    assert_eq!(client.response().status, 101);
    client
}

fn tunnelling(origin: &Origin, more: &str) -> Gateway {
    let route = "[[route]]\nupstream = \"app\"\nallow_upgrade = [\"echo\"]";
    Gateway::start(&config().upstream("app", &[origin.address()], "").with(route).with(more))
}

#[test]
fn a_drain_waits_for_tunnels_until_they_end() {
    let origin = echo();
    let mut gateway = tunnelling(&origin, "");
    let mut client = tunnel(&gateway);
    gateway.signal(libc::SIGTERM);
    eventually("new connections are refused", || Client::try_connect(gateway.address()).is_err());
    for _ in 0..3 {
        client.send("still here");
        assert_eq!(client.read_exactly(10), b"still here");
    }
    assert!(gateway.ended().is_none());
    client.finish();
    client.expect_end();
    assert_eq!(gateway.wait("the end").code(), Some(0));
}

#[test]
fn the_deadline_of_a_drain_and_a_second_interrupt_end_tunnels() {
    let origin = echo();
    let mut gateway = tunnelling(&origin, "[timeouts]\ndrain = \"300ms\"");
    let mut client = tunnel(&gateway);
    gateway.signal(libc::SIGTERM);
    assert_eq!(gateway.wait("the end").code(), Some(0));
    client.expect_end();

    let mut gateway = tunnelling(&origin, "");
    let mut client = tunnel(&gateway);
    gateway.signal(libc::SIGINT);
    gateway.wait_for("draining");
    client.send("still here");
    assert_eq!(client.read_exactly(10), b"still here");
    gateway.signal(libc::SIGINT);
    assert_eq!(gateway.wait("the end").code(), Some(130));
    client.expect_end();
    eventually("the upstream is let go", || origin.open() == 0);
}

/// Nothing comes any more: the tunnel ends although one side has said so, has gone, or is blocked, and its slot is free again.
#[test]
fn rule_87_an_idle_tunnel_ends_in_whatever_state_it_is() {
    for driver in ["io_uring", "epoll"] {
        // Held open after its 101, never read, never closed.
        let origin = Origin::raw(|mut stream, origin| {
            let _ = origin.read_request(&mut stream, &mut Vec::new(), 0);
            let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
            std::mem::forget(stream);
        });
        let gateway = Gateway::start(
            &config()
                .server(&format!("driver = {driver:?}"))
                .upstream("app", &[origin.address()], "")
                .with("[limits]\nslots = 16\n[timeouts]\ntunnel_idle = \"300ms\"\n[[route]]\nupstream = \"app\"\nallow_upgrade = [\"echo\"]"),
        );
        let files = settled_files(&gateway);
        for (floods, closes) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut kept = Vec::new();
            // As many as sixteen slots allow.
            for _ in 0..12 {
                let mut client = TcpStream::connect(gateway.address()).unwrap();
                client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").unwrap();
                client.read_exact(&mut [0; 32]).unwrap();
                if floods {
                    client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
                    while client.write(&[b'x'; 65536]).is_ok() {}
                }
                if closes {
                    drop(client);
                } else {
                    // It fails where the tunnel has ended already.
                    let _ = client.shutdown(std::net::Shutdown::Write);
                    kept.push(client);
                }
            }
            eventually("both ends of every tunnel are closed", || gateway.memory().files <= files);
            drop(kept);
        }
        gateway.stop();
    }
}

/// What was sent to a client before the end is its own, however late it reads it.
#[test]
fn the_end_of_a_drain_takes_nothing_back_from_clients_that_read_late() {
    // More than a client that does not read takes, less than the system keeps for it.
    const WHOLE: usize = 600_000;
    for driver in ["io_uring", "epoll"] {
        let is_behind = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_behind);
        let origin = Origin::raw(move |mut stream, origin| {
            let mut buffer = Vec::new();
            while let Some(request) = origin.read_request(&mut stream, &mut buffer, 0) {
                let bytes = match request.path() {
                    "/until-close" => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\npartial~");
                        continue;
                    }
                    "/whole" => WHOLE,
                    "/ended" => {
                        let _ = stream.write_all(&[&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b'x'; WHOLE]].concat());
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                        return;
                    }
                    "/large" => 64 << 20,
                    _ => {
                        seen.store(true, Ordering::Relaxed);
                        continue;
                    }
                };
                let answer = [format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").into_bytes(), vec![b'x'; bytes]].concat();
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
        let mut gateway = Gateway::start(
            &config()
                .server(&format!("driver = {driver:?}\nadmin = \"127.0.0.1:0\""))
                .to(&[origin.address()])
                .with("[timeouts]\ndrain = \"500ms\"\nlinger = \"60s\""),
        );
        let (mut reads_late, mut pipelines) = (Client::connect(gateway.address()), Client::connect(gateway.address()));
        reads_late.send("GET /large HTTP/1.1\r\nhost: test\r\n\r\n");
        pipelines.send("GET /whole HTTP/1.1\r\nhost: test\r\n\r\nGET /silent HTTP/1.1\r\nhost: test\r\n\r\nGET /behind HTTP/1.1\r\nhost: test\r\n\r\n");
        // Nothing else would show this one that its response was cut off; the other one has got all of it.
        let (mut unframed, mut ended) = (Client::connect(gateway.address()), Client::connect(gateway.address()));
        ended.send("GET /ended HTTP/1.0\r\nhost: test\r\n\r\n");
        eventually("all of it was sent", || gateway.metric("ringway_response_body_bytes_total") >= 2 * WHOLE as u64);
        unframed.send("GET /until-close HTTP/1.0\r\nhost: test\r\n\r\n");
        while !unframed.read_exactly(1).starts_with(b"~") {}
        eventually("the first one has been answered", || is_behind.load(Ordering::Relaxed));
        gateway.signal(libc::SIGTERM);
        assert_eq!(gateway.wait("the end").code(), Some(0));
        for (client, least, most) in [(&mut reads_late, 200_000, 64 << 20), (&mut pipelines, WHOLE, WHOLE + 1000), (&mut ended, WHOLE, WHOLE + 1000)] {
            let (bytes, ended) = client.read_to_end();
            assert!(matches!(ended, Ended::Closed) && (least..most).contains(&bytes.len()), "{driver} {} {ended:?}", bytes.len());
        }
        assert!(matches!(unframed.read_to_end(), (rest, Ended::Reset) if rest.is_empty()), "{driver}");
    }
}
