//! Libraries of other languages, each in a script of `tests/clients` that exits with 0 when all answers were right.

use std::process::Command;

use crate::gateway::*;

fn passes(mut command: Command, what: &str) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{text}", output.status);
    print!("{text}");
}

#[test]
fn python_httpx_sees_correct_answers() {
    let Some(mut python) = python("httpx") else { return };
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    python.arg(client_script("httpx_client.py")).arg(gateway.url(""));
    passes(python, "httpx");
    gateway.stop();
}

#[test]
fn python_websockets_talk_through_the_gateway() {
    let Some(mut python) = python("websockets") else { return };
    // The script is client and server: it starts the server, is told the gateway's address, and connects.
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}/ws.sock", folder.path().display());
    let gateway = Gateway::start(&config().upstream("app", &[&socket], "").with("[[route]]\nupstream = \"app\"\nallow_upgrade = [\"websocket\"]"));
    python.arg(client_script("websockets_both.py")).arg(folder.path().join("ws.sock")).arg(gateway.address());
    passes(python, "websockets");
    gateway.stop();
}

#[test]
fn an_upgrade_that_the_route_does_not_allow_is_plain_http() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut client = Client::connect(gateway.address());
    client.send("GET /a HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.last().header("upgrade"), None);
    assert_eq!(client.get("/bytes/1").status, 200);
    gateway.stop();
}

#[test]
fn a_tunnel_passes_bytes_both_ways_and_half_closes() {
    use std::io::{Read, Write};
    let origin = Origin::raw(|mut stream, origin| {
        let mut buffer = Vec::new();
        let Some(_) = origin.read_request(&mut stream, &mut buffer, 0) else { return };
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst");
        // Echoes until the client has said that nothing more comes; then one more word.
        let mut piece = [0; 65536];
        loop {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    if stream.write_all(&piece[..count]).is_err() {
                        return;
                    }
                }
            }
        }
        let _ = stream.write_all(b"last");
    });
    let gateway = Gateway::start(&config().upstream("app", &[origin.address()], "").with("[[route]]\nupstream = \"app\"\nallow_upgrade = [\"echo\"]"));
    let mut client = Client::connect(gateway.address());
    // The bytes behind the head belong to the tunnel.
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly");
    let response = client.response();
    assert_eq!(response.status, 101, "{response:?}");
    for (name, value) in [("upgrade", "echo"), ("connection", "upgrade")] {
        let values: Vec<&str> = response.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        assert_eq!(values, [value], "{response:?}");
    }
    assert_eq!(client.read_exactly(10), b"firstearly");
    let large = vec![b'z'; 1_000_000];
    for _ in 0..3 {
        let mut sent = 0;
        while sent < large.len() {
            client.send(&large[sent..sent + 50_000]);
            sent += 50_000;
            assert!(client.read_exactly(50_000).iter().all(|byte| *byte == b'z'));
        }
    }
    client.finish();
    assert_eq!(client.read_to_end().0, b"last");
    gateway.stop();
}

#[test]
fn node_fetch_sees_correct_answers() {
    let node = tool("node", "apt-get install -y nodejs");
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let mut command = Command::new(node);
    command.arg(client_script("fetch.mjs")).arg(gateway.url(""));
    passes(command, "node fetch");
    gateway.stop();
}

#[test]
fn node_undici_sees_correct_answers() {
    let Some(mut node) = node("undici") else { return };
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    node.arg(client_script("undici.cjs")).arg(gateway.url(""));
    passes(node, "node undici");
    gateway.stop();
}

#[test]
fn node_ws_talks_through_the_gateway() {
    let Some(mut node) = node("ws") else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ws.sock");
    let servers = format!("unix:{}", socket.display());
    let gateway = Gateway::start(&config().upstream("app", &[&servers], "").with("[[route]]\nupstream = \"app\"\nallow_upgrade = [\"websocket\"]"));
    node.arg(client_script("ws_both.cjs")).arg(socket).arg(gateway.address());
    passes(node, "node ws");
    gateway.stop();
}

#[test]
fn go_net_http_sees_correct_answers() {
    let Some(go) = go() else { return };
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(go);
    // One file without modules needs no network and nothing in the user's own folders.
    for (name, value) in [("GOCACHE", "cache"), ("GOPATH", "path"), ("GOTMPDIR", "")] {
        command.env(name, folder.path().join(value));
    }
    command.env("GOFLAGS", "").env("GO111MODULE", "off").args(["run", client_script("client.go").to_str().unwrap()]).arg(gateway.url(""));
    passes(command, "go net/http");
    gateway.stop();
}
