//! The command line: exit codes, and that looking at a plugin runs none of its code.

use std::fs;
use std::process::Output;

use crate::gateway::*;

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = ringway(arguments).output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn check_tells_good_from_bad_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, config().plugin("request-id", "").to(&["127.0.0.1:1"]).text()).unwrap();
    let (code, out, err) = run(&["check", "-c", path]);
    assert_eq!(code, 0, "{out}{err}");
    fs::write(&file, config().to(&["127.0.0.1:1"]).with("[[route]]\nupsteam = \"app\"").text()).unwrap();
    let (code, out, err) = run(&["check", "-c", path]);
    assert!(code == 1 && (out + &err).contains("did you mean `upstream`"), "{code}");
    fs::write(&file, config().plugin("hostile-abi-major", "").to(&["127.0.0.1:1"]).text()).unwrap();
    let (code, out, err) = run(&["check", "-c", path]);
    assert!(code == 1 && (out.clone() + &err).contains("ABI major"), "{code}: {out}{err}");
    assert_eq!(run(&["check", "-c", "/nowhere/gateway.toml"]).0, 1);
    assert_eq!(run(&["check", "--no-such-option"]).0, 2);
    assert_eq!(run(&["run", "-c", "/nowhere/gateway.toml"]).0, 1);
}

#[test]
fn inspect_shows_facts_and_exits_1_for_what_would_be_refused() {
    for (name, language) in [("request-id", "c"), ("redirect", "zig"), ("rate-limit", "rust")] {
        let file = plugin(name);
        let (code, out, err) = run(&["plugin", "inspect", file.to_str().unwrap()]);
        assert!(
            code == 0 && out.contains(name) && out.contains(&format!("language     {language}\n")) && out.contains("on_request"),
            "{name}: {code} {out}{err}"
        );
    }
    let file = plugin("hostile-no-note");
    let (code, out, err) = run(&["plugin", "inspect", file.to_str().unwrap()]);
    assert!(code == 1 && (out.clone() + &err).contains("note"), "{code} {out}{err}");
    assert_eq!(run(&["plugin", "inspect", "/nowhere/x.so"]).0, 1);
    assert_eq!(run(&["plugin", "inspect"]).0, 2);
}

#[test]
fn looking_at_a_plugin_runs_none_of_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("opened");
    let so = plugin("hostile-constructor");
    let file = folder.path().join("gateway.toml");
    let made = config().plugin("hostile-constructor", "").to(&["127.0.0.1:1"]);
    fs::write(&file, made.text()).unwrap();
    let commands: [&[&str]; 2] = [&["plugin", "inspect", so.to_str().unwrap()], &["check", "-c", file.to_str().unwrap()]];
    for arguments in commands {
        let output = ringway(arguments).env("RINGWAY_HOSTILE_FILE", &trace).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!trace.exists(), "{arguments:?} ran the plugin's constructor");
    }
    // The same file does run when it is loaded: the trace is a trace.
    let launch = Launch { environment: vec![("RINGWAY_HOSTILE_FILE".into(), trace.display().to_string())], ..Launch::default() };
    let gateway = launch.start(&made);
    assert!(trace.exists());
    gateway.stop();
}

#[test]
fn the_proxy_command_needs_no_file() {
    let origin = Origin::start();
    let so = plugin("request-id");
    let mut gateway = Gateway::command(&["proxy", "--from", "127.0.0.1:0", "--to", origin.address(), "--plugin", so.to_str().unwrap()]);
    let response = get(gateway.address(), "/bytes/3");
    assert_eq!((response.status, response.text().as_str()), (200, "abc"));
    assert!(response.header("x-request-id").is_some());
    gateway.signal(libc::SIGTERM);
    assert_eq!(gateway.wait("the end").code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_refused_with_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = Launch::default().refuse(&config().listen(&address).to(&["127.0.0.1:1"]));
    assert!(code == Some(1) && said.contains(&address), "{code:?} {said}");
}

#[test]
fn a_file_that_is_no_socket_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, "data").unwrap();
    for supervisor in [true, false] {
        let place = format!("unix:{}", precious.display());
        let server = format!("supervisor = {supervisor}");
        for made in [config().listen(&place), config().server(&format!("admin = {place:?}"))] {
            let (code, said) = Launch::default().refuse(&made.server(&server).to(&["127.0.0.1:1"]));
            assert!(code == Some(1) && said.contains("no socket"), "{code:?} {said}");
            assert_eq!(fs::read_to_string(&precious).unwrap(), "data");
        }
        // What was bound before the failure is taken back.
        let first = folder.path().join("first.sock");
        let text = format!("[[listener]]\naddress = {place:?}");
        let (code, _) = Launch::default().refuse(&config().server(&server).listen(&format!("unix:{}", first.display())).to(&["127.0.0.1:1"]).with(&text));
        assert!(code == Some(1) && !first.exists());
    }
}

/// The one that ends later leaves the other one's socket alone.
#[test]
fn a_successor_takes_over_the_file_of_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("unix:{}", folder.path().join("front.sock").display());
    let origin = Origin::start();
    let made = || config().listen(&place).to(&[origin.address()]);
    let mut former = Gateway::start(&made());
    // While somebody listens, nobody else does.
    let (code, said) = Launch::default().refuse(&made());
    assert!(code == Some(1) && said.contains("in use"), "{code:?} {said}");
    let mut slow = Client::connect(former.address());
    slow.send("GET /slow/2000 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the upstream is asked", || origin.begun() == 1);
    former.signal(libc::SIGTERM);
    eventually("the former listens no more", || Client::try_connect(&place).is_err());
    let gateway = Gateway::start(&made());
    assert_eq!(slow.response().status, 200);
    assert_eq!(former.wait("the end").code(), Some(0));
    assert_eq!(get(&place, "/bytes/1").status, 200);
    gateway.stop();
    assert!(!folder.path().join("front.sock").exists());
}

#[test]
fn a_second_gateway_on_the_same_port_is_refused() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config().to(&[origin.address()]));
    let (code, said) = Launch::default().refuse(&config().listen(gateway.address()).to(&[origin.address()]));
    assert!(code == Some(1) && said.contains("in use"), "{code:?} {said}");
    gateway.stop();
}

#[test]
fn a_unix_socket_has_the_mode_that_is_asked_for_and_its_peers_are_trusted_when_listed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("front.sock");
    let origin = Origin::start();
    for (trusted, seen) in [("[]", None), ("[\"unix\"]", Some("6.6.6.6"))] {
        let place = format!("unix:{}", path.display());
        let made = config().server(&format!("trusted_proxies = {trusted}")).listen(&place).with("mode = \"0620\"\n[limits]\nconnections_per_address = 1");
        let gateway = Gateway::start(&made.to(&[origin.address()]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        // They have no address that could be counted.
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&place)).collect();
        for client in &mut clients {
            client.send("GET /bytes/1 HTTP/1.1\r\nhost: test\r\nx-real-ip: 6.6.6.6\r\n\r\n");
            assert_eq!(client.response().status, 200);
            assert_eq!(origin.last().header("x-real-ip"), seen);
        }
        gateway.stop();
    }
}
