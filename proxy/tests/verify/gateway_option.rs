//! `verify = true` and `--verify`: the dry run before a running gateway loads a plugin.

use serde_json::Value;

use crate::gateway::*;

#[test]
fn a_plugin_that_verify_refuses_does_not_start_a_gateway() {
    let (code, said) = Launch::default().refuse(&config().plugin("hostile-null", "verify = true").to(&["127.0.0.1:1"]));
    assert!(code == Some(1) && said.contains("`on_request` on the frame `minimal` died of SIGSEGV"), "{code:?} {said}");
    let gateway = Gateway::start(&config().plugin("request-id", "verify = true").to(&["127.0.0.1:1"]));
    gateway.stop();
}

#[test]
fn a_swap_that_verify_refuses_changes_nothing_while_traffic_flows() {
    let origin = Origin::start();
    let made = config().server("admin = \"127.0.0.1:0\"").plugin("request-id", "").upstream("app", &[origin.address()], "");
    let gateway = Gateway::start(&made.with("[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"request-id\"]"));
    let line: Value = serde_json::from_str(&gateway.wait_for("\"admin listening\"")).unwrap();
    let admin = line["address"].as_str().unwrap().to_owned();
    let swap = |name: &str| {
        let file = plugin(name);
        let output = ringway(&["plugin", "swap", "request-id", file.to_str().unwrap(), "--verify", "--admin", &admin]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (name, why) in [("hostile-hang", "did not return within 5000 ms"), ("hostile-exit", "ended the process"), ("hostile-null", "died of SIGSEGV")] {
        let (code, said) = std::thread::scope(|scope| {
            let swapping = scope.spawn(|| swap(name));
            let mut served = 0;
            while !swapping.is_finished() {
                assert!(get(gateway.address(), "/bytes/3").header("x-request-id").is_some());
                served += 1;
            }
            assert!(served > 0, "{name}: the gateway served meanwhile");
            swapping.join().unwrap()
        });
        assert!(code == Some(1) && said.contains(why), "{name}: {code:?} {said}");
    }
    assert_eq!(swap("template-c"), (Some(0), String::new()));
    eventually("the new plugin runs", || get(gateway.address(), "/bytes/3").header("x-hello") == Some("from C"));
    gateway.stop();
}
