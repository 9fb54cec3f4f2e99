//! Every endpoint of the admin listener, and what it refuses.

use serde_json::json;

use crate::admin::*;
use crate::gateway::*;

#[test]
fn what_runs_can_be_looked_at() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let governed = Governed::start(with_versioned(&versioned(folder.path(), "1", &[]), &origin));
    assert_eq!(governed.good("GET", "/healthz", ""), json!({ "status": "alive" }));
    assert_eq!(governed.good("GET", "/readyz", ""), json!({ "status": "ready" }));
    for _ in 0..5 {
        assert_eq!(governed.versions(), ("1".into(), "1".into()));
    }
    let plugin = governed.good("GET", "/api/plugins/versioned", "");
    assert_eq!((&plugin["status"], &plugin["version"], &plugin["generation"]), (&json!("active"), &json!("1"), &json!(1)));
    assert_eq!((&plugin["hooks"], &plugin["attached"]), (&json!(["on_request", "on_response"]), &json!(["route all"])));
    assert_eq!((&plugin["counters"]["calls"], &plugin["counters"]["edits"], &plugin["metrics"]["seen"]), (&json!(10), &json!(10), &json!(5)));
    assert_eq!(plugin["hash"].as_str().unwrap().len(), 64);
    let plugins = governed.good("GET", "/api/plugins", "");
    assert_eq!((&plugins["plugins"][0]["name"], &plugins["leaked_libraries"]), (&json!("versioned"), &json!([])));
    let chain = &governed.good("GET", "/api/chains", "")["routes"][0];
    assert_eq!((&chain["route"], &chain["upstream"], &chain["links"][0]["on_error"]), (&json!("all"), &json!("app"), &json!("closed")));
    assert_eq!(chain["costs"], json!(["versioned: request head is re-written when it edits it", "versioned: response head is shown"]));
    let upstream = &governed.good("GET", "/api/upstreams", "")["upstreams"][0];
    assert_eq!((&upstream["name"], &upstream["servers"][0]["state"]), (&json!("app"), &json!("usable")));
    let shown = governed.good("GET", "/api/config", "");
    assert_eq!((&shown["server"]["workers"], &shown["routes"][0]["name"]), (&json!(2), &json!("all")));
    // A connection is given back when the gateway hears that its response has left.
    eventually("nothing is in flight", || governed.good("GET", "/api/upstreams", "")["upstreams"][0]["servers"][0]["in_flight"] == 0);
    for (sample, value) in [
        ("ringway_requests_total", 5),
        ("ringway_responses_total{class=\"2xx\"}", 5),
        ("ringway_link_calls_total{route=\"all\",plugin=\"versioned\"}", 10),
        ("ringway_plugin_seen{plugin=\"versioned\"}", 5),
        ("ringway_faults_total{reason=\"no_route\"}", 0),
        (&format!("ringway_upstream_server_usable{{upstream=\"app\",server=\"{}\"}}", origin.address()), 1),
        ("ringway_leaked_libraries", 0),
    ] {
        eventually(sample, || governed.metric(sample) == Some(value));
    }
    governed.gateway.stop();
}

#[test]
fn every_line_of_the_metrics_is_well_formed() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let governed = Governed::start(with_versioned(&versioned(folder.path(), "1", &[]), &origin));
    governed.good("POST", "/api/stats/on", "");
    governed.versions();
    let response = governed.ask("GET", "/metrics", "");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let (mut families, mut samples) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let text = response.text();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(families.insert(name) && ["counter", "gauge", "summary", "untyped"].contains(&kind), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(samples.insert(sample) && value.parse::<u64>().is_ok(), "{line}");
            let name = sample.split('{').next().unwrap();
            let of_summary = name.strip_suffix("_sum").or(name.strip_suffix("_count")).unwrap_or(name);
            assert!(families.contains(name) || families.contains(of_summary), "{line}");
        }
    }
    assert!(samples.len() > 100);
}

#[test]
fn plugins_come_change_and_go() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let [one, two] = ["1", "2"].map(|version| versioned(folder.path(), version, &[]));
    let made = config().workers(2).upstream("app", &[origin.address()], "").with("[[route]]\nname = \"all\"\nupstream = \"app\"");
    let governed = Governed::start(made);
    let load = |path: &str| json!({ "path": path, "routes": ["all"] }).to_string();
    assert_eq!(governed.good("POST", "/api/plugins/v", &load(&one))["generation"], 1);
    assert_eq!(governed.versions(), ("1".into(), "1".into()));
    assert_eq!(governed.good("PUT", "/api/plugins/v", &json!({ "path": two }).to_string())["version"], "2");
    assert_eq!(governed.versions(), ("2".into(), "2".into()));
    // The same file with other code in it: opening its path again would give the old code.
    std::fs::copy(&one, &two).unwrap();
    let again = governed.good("POST", "/api/plugins/v", "");
    assert_eq!((&again["version"], &again["generation"]), (&json!("1"), &json!(3)));
    assert_eq!(governed.versions(), ("1".into(), "1".into()));
    // Nothing new: nothing happens.
    assert_eq!(governed.good("POST", "/api/plugins/v", "")["generation"], 3);
    assert_eq!(governed.good("POST", "/api/plugins/v/rollback", "")["version"], "2");
    assert_eq!(governed.versions(), ("2".into(), "2".into()));
    assert_eq!(governed.metric("ringway_plugin_seen{plugin=\"v\"}"), Some(4), "counters go on over versions");
    let (status, reason) = governed.refused("DELETE", "/api/plugins/v", "");
    assert_eq!((status, reason.as_str()), (409, "the plugin `v` is attached to route all; `force` removes these links"));
    assert_eq!(governed.good("DELETE", "/api/plugins/v?force", "")["links_removed"], json!(["route all"]));
    assert_eq!(governed.versions(), (String::new(), String::new()));
    assert_eq!(governed.refused("GET", "/api/plugins/v", "").0, 404);
    let nothing = json!({ "plugins": [], "draining": [], "loading": [], "failed": [], "leaked_libraries": [] });
    eventually("everything is unloaded", || governed.good("GET", "/api/plugins", "") == nothing);
    governed.gateway.stop();
}

#[test]
fn a_disabled_plugin_is_passed_by_or_refuses() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let file = versioned(folder.path(), "1", &[]);
    let text = format!(
        "[[plugin]]\nname = \"v\"\npath = {file:?}\n\
         [[route]]\nname = \"open\"\nexact = \"/open\"\nupstream = \"app\"\nplugins = [{{ name = \"v\", on_error = \"open\" }}]\n\
         [[route]]\nname = \"closed\"\nupstream = \"app\"\nplugins = [\"v\"]"
    );
    let governed = Governed::start(config().upstream("app", &[origin.address()], "").with(&text));
    assert_eq!(governed.good("POST", "/api/plugins/v/disable", "")["status"], "disabled");
    let open = get(governed.address(), "/open");
    assert_eq!((open.status, versions(&open)), (200, (String::new(), String::new())));
    assert_eq!(get(governed.address(), "/closed").status, 500);
    let chains = governed.good("GET", "/api/chains", "");
    assert_eq!([&chains["routes"][0]["links"][0]["status"], &chains["routes"][1]["links"][0]["status"]], ["bypassed", "refusing"]);
    // A reload does not bring back what an operator has put out.
    governed.good("POST", "/api/reload", "");
    assert_eq!(get(governed.address(), "/closed").status, 500);
    assert_eq!(governed.good("POST", "/api/plugins/v/enable", "")["status"], "active");
    for path in ["/open", "/closed"] {
        assert_eq!(versions(&get(governed.address(), path)), ("1".into(), "1".into()));
    }
    governed.gateway.stop();
}

#[test]
fn what_cannot_be_done_says_why_and_changes_nothing() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let governed = Governed::start(with_versioned(&versioned(folder.path(), "1", &[]), &origin));
    let broken = versioned(folder.path(), "broken", &[]);
    let core = versioned(folder.path(), "core", &["-DFAIL_CORE=1"]);
    let no_plugin = folder.path().join("no.so");
    std::fs::write(&no_plugin, "text").unwrap();
    for (method, path, body, status, reason) in [
        ("PUT", "/api/plugins/versioned", json!({ "path": broken }).to_string(), 422, "this version never loads"),
        ("PUT", "/api/plugins/versioned", json!({ "path": core }).to_string(), 422, "core_init failed on worker 1: not on this core"),
        ("PUT", "/api/plugins/versioned", json!({ "path": no_plugin }).to_string(), 422, "it is not an ELF file"),
        ("PUT", "/api/plugins/versioned", json!({ "path": "/no/such.so" }).to_string(), 422, "No such file"),
        ("PUT", "/api/plugins/other", "".into(), 404, "there is no plugin `other`"),
        ("POST", "/api/plugins/other", "".into(), 422, "a new plugin needs a `path`"),
        ("POST", "/api/plugins/other", json!({ "path": broken, "routes": ["none"] }).to_string(), 422, "there is no route `none`"),
        ("POST", "/api/plugins/b%20d", json!({ "path": broken }).to_string(), 422, "cannot be a name"),
        ("POST", "/api/plugins/versioned", "{\"pth\": 1}".into(), 400, "unknown field `pth`"),
        ("POST", "/api/plugins/versioned/rollback", "".into(), 409, "there is nothing to go back to"),
        ("POST", "/api/plugins/other/disable", "".into(), 404, "there is no plugin `other`"),
        ("DELETE", "/api/plugins/versioned?all", "".into(), 400, "`all` is unknown"),
        ("DELETE", "/api/chains", "".into(), 405, "the methods here are: GET"),
        ("GET", "/api/reload", "".into(), 405, "the methods here are: POST"),
        ("GET", "/api/none", "".into(), 404, "there is nothing here"),
    ] {
        let (found, text) = governed.refused(method, path, &body);
        assert!(found == status && text.contains(reason), "{method} {path} {body}: {found} {text}");
        assert_eq!(governed.versions(), ("1".into(), "1".into()), "{method} {path} {body}");
    }
    let plugin = governed.good("GET", "/api/plugins/versioned", "");
    assert_eq!((&plugin["generation"], plugin["last_error"].is_string()), (&json!(1), true));
    // `other` has no version in force, and the reason of the last attempt.
    let other = governed.good("GET", "/api/plugins/other", "");
    assert_eq!((&other["status"], &other["last_error"]), (&json!("error"), &json!("there is no route `none`")));
    assert_eq!(governed.good("DELETE", "/api/plugins/other", "")["unloaded"], "other");
    assert_eq!(governed.refused("GET", "/api/plugins/other", "").0, 404);
    eventually("what was loaded in vain is unloaded", || governed.good("GET", "/api/plugins", "")["draining"] == json!([]));
    governed.gateway.stop();
}

#[test]
fn the_listener_is_bounded_and_only_answers_those_who_may_ask() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("admin.sock").display());
    let made = config().to(&["127.0.0.1:1"]).server(&format!("admin = {socket:?}\nadmin_token = \"0123456789abcdef\""));
    let governed = Governed::launch(Launch::default(), made);
    assert_eq!(governed.admin, socket);
    assert_eq!(governed.ask("GET", "/healthz", "").status, 200, "probes need no token");
    for (fields, status) in [
        ("", 401),
        ("authorization: Bearer 0123456789abcdeX\r\n", 401),
        ("authorization: Bearer 0123456789abcdef0\r\n", 401),
        ("authorization: Bearer 0123456789abcde\r\n", 401),
        ("authorization: Bearer 0123456789abcdef\r\n", 200),
        ("authorization: bearer 0123456789abcdef\r\n", 200),
        ("authorization: Bearer 0123456789abcdef\r\ncontent-length: +0\r\n", 400),
        ("authorization: Bearer 0123456789abcdef\r\ncontent-length: 0\r\ncontent-length: 1\r\n", 400),
        ("authorization: Bearer 0123456789abcdef\r\ncontent-length: 0\r\ncontent-length: 0\r\n", 200),
        ("authorization: Bearer 0123456789abcdef\r\ncontent-length: 2000000\r\n", 413),
        ("authorization: Bearer 0123456789abcdef\r\ntransfer-encoding: chunked\r\n", 411),
        (&"x: y\r\n".repeat(100), 431),
        (&format!("x: {}\r\n", "y".repeat(20_000)), 431),
    ] {
        let mut client = Client::connect(&governed.admin);
        client.send(format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{fields}\r\n"));
        assert_eq!(client.response().status, status, "{fields}");
    }
    governed.gateway.stop();

    let governed = Governed::start(config().to(&["127.0.0.1:1"]));
    for (fields, status) in [("host: localhost", 200), ("host: evil.example", 403), ("host: localhost\r\norigin: http://evil.example", 403)] {
        let mut client = Client::connect(&governed.admin);
        client.send(format!("GET /metrics HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(client.response().status, status, "{fields}");
    }
    governed.gateway.stop();
}

#[test]
fn silent_connections_keep_no_probe_out() {
    let governed = Governed::start(config().to(&["127.0.0.1:1"]));
    let mut silent: Vec<Client> = (0..100).map(|_| Client::connect(&governed.admin)).collect();
    for _ in 0..3 {
        assert_eq!(governed.ask("GET", "/healthz", "").status, 200);
    }
    silent[0].expect_end();
    // The last ones still have their places.
    let last = silent.last_mut().unwrap();
    last.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(last.response().status, 200);
    governed.gateway.stop();
}

#[test]
fn who_waits_to_be_asked_for_a_body_is_asked() {
    let governed = Governed::start(config().to(&["127.0.0.1:1"]));
    let mut client = Client::connect(&governed.admin);
    client.send("POST /api/reload HTTP/1.1\r\nhost: localhost\r\nexpect: 100-Continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(client.read_exactly(25), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("{}");
    assert_eq!(client.response().status, 200);
    governed.gateway.stop();
}

#[test]
fn an_answer_that_comes_before_the_body_is_not_lost_to_a_reset() {
    let governed = Governed::start(config().to(&["127.0.0.1:1"]));
    let mut client = Client::connect(&governed.admin);
    client.send("POST /api/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    assert_eq!(client.response().status, 413);
    client.finish();
    assert_eq!(client.expect_end(), Ended::Closed);
    governed.gateway.stop();
}

#[test]
fn a_draining_gateway_is_alive_and_not_ready() {
    let origin = Origin::answering(|_| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        reply(200, &[], "")
    });
    let governed = Governed::start(config().to(&[origin.address()]));
    let mut client = Client::connect(governed.address());
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the request has arrived", || origin.begun() == 1);
    assert_eq!(governed.good("GET", "/api/upstreams", "")["upstreams"][0]["servers"][0]["in_flight"], 1);
    governed.gateway.signal(libc::SIGTERM);
    governed.gateway.wait_for("draining");
    assert_eq!(governed.ask("GET", "/healthz", "").status, 200);
    assert_eq!(governed.ask("GET", "/readyz", "").status, 503);
    assert_eq!(governed.refused("POST", "/api/reload", ""), (503, "the gateway is draining".into()));
    assert_eq!(client.response().status, 200);
    let Governed { mut gateway, .. } = governed;
    assert_eq!(gateway.wait("the drain ends").code(), Some(0));
}
