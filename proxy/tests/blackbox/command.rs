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
