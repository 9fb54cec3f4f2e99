//! The plugins in C++ and Go in the running gateway: the ABI is not Rust's, and a library that cannot be unloaded can be swapped.

use serde_json::{Value, json};

use crate::gateway::*;

fn both(origin: &Origin) -> Config {
    let made = config().workers(2).server("admin = \"127.0.0.1:0\"").plugin("sort-query", "").plugin("regex-block", "config = { patterns = [\"^/secret\"] }");
    made.upstream("app", &[origin.address()], "").with("[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"sort-query\", \"regex-block\"]")
}

#[test]
fn plugins_in_cpp_and_go_serve_in_one_chain() {
    let origin = Origin::start();
    let gateway = Gateway::start(&both(&origin));
    let mut client = Client::connect(gateway.address());
    for (asked, seen) in [
        ("/bytes/3?b=1&a=2&b=0&a=1", "/bytes/3?a=2&a=1&b=1&b=0"),
        ("/bytes/3?a=1&b=2", "/bytes/3?a=1&b=2"),
        ("/bytes/3?&z&", "/bytes/3?&&z"),
        ("/bytes/3", "/bytes/3"),
    ] {
        let response = client.get(asked);
        assert_eq!((response.status, origin.last().target.as_str()), (200, seen), "{asked}");
    }
    let seen = origin.count();
    assert_eq!(client.get("/secret/x?b&a").status, 403);
    assert_eq!(origin.count(), seen, "the short circuit never reached the upstream");
    gateway.stop();
}

#[test]
fn a_go_plugin_is_swapped_though_its_library_stays() {
    let origin = Origin::start();
    let gateway = Gateway::start(&both(&origin));
    let line: Value = serde_json::from_str(&gateway.wait_for("\"admin listening\"")).unwrap();
    let admin = line["address"].as_str().unwrap().to_owned();
    let swap = |patterns: Value| {
        let config = json!({ "patterns": patterns }).to_string();
        let output = ringway(&["plugin", "swap", "regex-block", "--config", &config, "--admin", &admin]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for round in 0..5 {
        let (now, then) = (format!("/path-{round}"), format!("/path-{}", round - 1));
        assert_eq!(swap(json!([format!("^{now}$")])), (Some(0), String::new()));
        eventually("every worker has switched", || (0..4).all(|_| get(gateway.address(), &now).status == 403));
        assert_eq!(get(gateway.address(), &then).status, 200, "the patterns of the version before are gone");
    }
    let (code, said) = swap(json!(["("]));
    assert!(code == Some(1) && said.contains("missing closing )"), "{code:?} {said}");
    assert_eq!(get(gateway.address(), "/path-4").status, 403, "a failed swap changes nothing");
    eventually("the versions before are unloaded", || {
        let output = ringway(&["plugin", "list", "-j", "--admin", &admin]).output().unwrap();
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["draining"].as_array().is_some_and(Vec::is_empty)
    });
    gateway.stop();
}
