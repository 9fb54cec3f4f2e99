//! Plugins swapped under load: which version each response shows, and the life of the versions.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::admin::*;
use crate::gateway::*;

const CONNECTIONS: usize = 64;
const SWAPS: usize = 100;
/// Between two swaps.
const PAUSE: Duration = Duration::from_millis(30);

/// Two plugins change by turns: `versioned` its code, `probe` (order-probe) its configuration.
#[test]
fn a_hundred_swaps_under_load_lose_and_corrupt_nothing() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    origin.forget();
    let files = ["1", "2"].map(|version| versioned(folder.path(), version, &["-DMAPS"]));
    let probe = plugin("order-probe").display().to_string();
    let text = format!(
        "[[plugin]]\nname = \"versioned\"\npath = {:?}\n[[plugin]]\nname = \"probe\"\npath = {probe:?}\nconfig = {{ tag = \"A\" }}\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"versioned\", \"probe\"]",
        files[0]
    );
    let governed = Governed::start(config().workers(2).upstream("app", &[origin.address()], "").with(&text));
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = governed.address().to_owned();
    let mut counted_before = 0;
    let clients = thread::scope(|scope| {
        let stops = Stops(&stop);
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (stop, answered, address) = (&stop, &answered, &address);
                scope.spawn(move || client(address, number, stop, answered))
            })
            .collect();
        for swap in 0..SWAPS {
            let body = match swap % 4 {
                0 => ("versioned", json!({ "path": files[1] })),
                1 => ("probe", json!({ "config": { "tag": "B" } })),
                2 => ("versioned", json!({ "path": files[0] })),
                _ => ("probe", json!({ "config": { "tag": "A" } })),
            };
            let shown = governed.good("PUT", &format!("/api/plugins/{}", body.0), &body.1.to_string());
            assert_eq!(shown["generation"], json!(swap + 3));
            let before = answered.load(Ordering::Relaxed);
            thread::sleep(PAUSE);
            eventually("traffic goes on", || answered.load(Ordering::Relaxed) > before);
            // Every answer was counted before it was given, by whichever version.
            let now = counted(&governed);
            assert!(now >= counted_before && now >= before, "{now} after {counted_before}, with {before} answers");
            counted_before = now;
            assert!(dumped(&governed) >= before, "a dump while traffic flows");
        }
        drop(stops);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<Outcome>>()
    });
    let requests: u64 = clients.iter().map(|client| client.requests).sum();
    let failures: Vec<&String> = clients.iter().flat_map(|client| &client.failures).collect();
    let stall = clients.iter().map(|client| client.stall).max().unwrap();
    let mut shown: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (versions, count) in clients.iter().flat_map(|client| &client.shown) {
        *shown.entry(versions.clone()).or_default() += count;
    }
    println!("requests {requests}, swaps {SWAPS}, failures {}, longest stall {} ms", failures.len(), stall.as_millis());
    println!("responses by version of the code and of the configuration: {shown:?}");
    assert!(failures.is_empty(), "{failures:?}");
    let versions: Vec<&str> = shown.keys().map(|(code, _)| code.as_str()).chain(shown.keys().map(|(_, tag)| tag.as_str())).collect();
    assert!(["1", "2", "A", "B"].iter().all(|version| versions.contains(version)), "{shown:?}");
    assert_eq!(governed.metric("ringway_plugin_seen{plugin=\"versioned\"}"), Some(requests), "the counter only grows");
    let workers = governed.good("GET", "/api/maps/versioned/workers?key=0", "")["sum"]["requests"].as_u64();
    println!("counted in maps, by all versions: {}", counted(&governed));
    assert_eq!((counted(&governed), dumped(&governed), workers), (requests, requests, Some(requests)), "every map has counted every request once");
    eventually("every old version is unloaded", || governed.good("GET", "/api/plugins", "")["draining"] == json!([]));
    assert_eq!((governed.gateway.said(SWAPS + 2, "plugin loaded"), governed.gateway.said(SWAPS, "plugin unloaded")), (SWAPS + 2, SWAPS));
    governed.gateway.stop();
}

/// What all versions together have counted in a map.
fn counted(governed: &Governed) -> u64 {
    governed.good("GET", "/api/maps/versioned/total?key=0", "")["value"]["requests"].as_u64().unwrap()
}

/// The same, added up from a dump of the counts of every path.
fn dumped(governed: &Governed) -> u64 {
    let dump = governed.good("GET", "/api/maps/versioned/paths", "");
    assert_eq!((&dump["busy"], &dump["next"]), (&json!(0), &serde_json::Value::Null));
    dump["dump"].as_array().unwrap().iter().map(|entry| entry["value"]["requests"].as_u64().unwrap()).sum()
}

struct Outcome {
    requests: u64,
    failures: Vec<String>,
    /// The longest time for one exchange.
    stall: Duration,
    shown: BTreeMap<(String, String), u64>,
}

/// Asks as fast as it can on one connection. Every response must be its own and show one version, before and after.
fn client(address: &str, number: usize, stop: &AtomicBool, answered: &AtomicU64) -> Outcome {
    let mut outcome = Outcome { requests: 0, failures: Vec::new(), stall: Duration::ZERO, shown: BTreeMap::new() };
    let mut client = Client::connect(address);
    let mut last_count = 0;
    while !stop.load(Ordering::Relaxed) && outcome.failures.is_empty() {
        let path = format!("/{number}/{}", outcome.requests);
        let begun = Instant::now();
        let sent = client.try_send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).map_err(|error| error.to_string());
        let response = match sent.and_then(|()| client.try_response(false)) {
            Ok(response) => response,
            Err(problem) => {
                outcome.failures.push(format!("{path}: {problem}"));
                break;
            }
        };
        outcome.stall = outcome.stall.max(begun.elapsed());
        client.renew_after(&response);
        outcome.requests += 1;
        answered.fetch_add(1, Ordering::Relaxed);
        let (pre, post) = versions(&response);
        let (order, order_post) = (response.header("x-saw-order").unwrap_or_default(), response.header("x-order-post").unwrap_or_default());
        let whole = response.status == 200 && response.text() == path && !pre.is_empty() && !order.is_empty();
        if !whole || pre != post || order != order_post {
            outcome.failures.push(format!("{path}: {response:?}"));
        }
        // The counter in the map only grows, whichever version counts.
        let count = response.header("x-count").and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
        if count <= last_count {
            outcome.failures.push(format!("{path}: the count is {count} after {last_count}"));
        }
        last_count = count;
        *outcome.shown.entry((pre, order.to_owned())).or_default() += 1;
    }
    outcome
}

/// Events of a version's life, in order.
fn life(file: &std::path::Path, version: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix(&format!("{version} "))).map(str::to_owned).collect()
}

#[test]
fn an_exchange_keeps_its_version_which_is_unloaded_after_it_on_the_main_thread() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("life");
    let [one, two] = ["1", "2"].map(|version| versioned(folder.path(), version, &[]));
    let gate = std::sync::Arc::new(AtomicBool::new(false));
    let wait = std::sync::Arc::clone(&gate);
    let origin = Origin::answering(move |request| {
        while request.path() == "/slow" && !wait.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        reply(200, &[("x-saw-pre", request.header("x-pre").unwrap_or_default())], "")
    });
    let launch = Launch { environment: vec![("VERSIONED_LIFE".into(), log.display().to_string())], ..Launch::default() };
    let governed = Governed::launch(launch, with_versioned(&one, &origin).server("admin = \"127.0.0.1:0\""));
    let mut slow = Client::connect(governed.address());
    slow.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the slow request has arrived", || origin.begun() == 1);
    governed.good("PUT", "/api/plugins/versioned", &json!({ "path": two }).to_string());
    assert_eq!(governed.versions(), ("2".into(), "2".into()));
    let draining = &governed.good("GET", "/api/plugins", "")["draining"][0];
    assert_eq!([&draining["name"], &draining["version"], &draining["status"]], ["versioned", "1", "draining"]);
    assert_eq!((&draining["generation"], draining["hash"].as_str().map(str::len)), (&json!(1), Some(64)));
    assert!(!life(&log, "1").contains(&"unload main".to_owned()));
    gate.store(true, Ordering::SeqCst);
    assert_eq!(versions(&slow.response()), ("1".into(), "1".into()), "the exchange ends with the version it began with");
    eventually("the old version is unloaded", || life(&log, "1").last().is_some_and(|event| event == "unload main"));
    let expected = ["load main", "core_init worker", "core_init worker", "core_fini worker", "core_fini worker", "unload main"];
    assert_eq!(life(&log, "1"), expected);
    eventually("nothing drains", || governed.good("GET", "/api/plugins", "")["draining"] == json!([]));
    governed.gateway.stop();
    assert_eq!(life(&log, "2"), expected, "at the end of the process too");
}

#[test]
fn a_version_that_fails_on_one_core_leaves_no_trace() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let log = folder.path().join("life");
    let one = versioned(folder.path(), "1", &[]);
    let broken = versioned(folder.path(), "half", &["-DFAIL_CORE=1"]);
    let launch = Launch { environment: vec![("VERSIONED_LIFE".into(), log.display().to_string())], ..Launch::default() };
    let governed = Governed::launch(launch, with_versioned(&one, &origin).server("admin = \"127.0.0.1:0\""));
    governed.refused("PUT", "/api/plugins/versioned", &json!({ "path": broken }).to_string());
    eventually("it is unloaded", || life(&log, "half").last().is_some_and(|event| event == "unload main"));
    let events = life(&log, "half");
    let count = |wanted: &str| events.iter().filter(|event| *event == wanted).count();
    assert_eq!((count("load main"), count("core_init worker"), count("core_fini worker"), events.len()), (1, 2, 1, 5), "{events:?}");
    assert_eq!(life(&log, "1").len(), 3, "the version in force saw nothing of it");
    assert_eq!(governed.versions(), ("1".into(), "1".into()));
    governed.gateway.stop();
}

/// Hashes of the private copies of plugins that the process has mapped.
fn mapped(pid: u32) -> std::collections::BTreeSet<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let name = |line: &str| line.trim_end_matches(" (deleted)").rsplit('/').next().and_then(|name| name.strip_suffix(".so")).map(str::to_owned);
    maps.lines().filter_map(name).filter(|name| name.len() == 64).collect()
}

#[test]
fn libraries_that_stay_mapped_are_counted() {
    let origin = origin();
    let governed = Governed::start(config().workers(2).to(&[origin.address()]));
    let body = json!({ "path": plugin("order-probe"), "config": { "tag": "A" }, "routes": ["/"] }).to_string();
    governed.good("POST", "/api/plugins/probe", &body);
    assert_eq!(get(governed.address(), "/").header("x-order-post"), Some("A"));
    governed.good("DELETE", "/api/plugins/probe?force", "");
    governed.gateway.wait_for("plugin unloaded");
    let leaked = || governed.good("GET", "/api/plugins", "")["leaked_libraries"].as_array().unwrap().len();
    eventually("what is mapped is counted", || leaked() == mapped(governed.gateway.serving_pid()).len());
    println!("libraries that stay mapped after order-probe (Rust) was unloaded: {}", leaked());
    assert_eq!(governed.metric("ringway_leaked_libraries"), Some(leaked() as u64));
    // Loading it again makes it a library in use.
    governed.good("POST", "/api/plugins/probe", &body);
    assert_eq!((get(governed.address(), "/").header("x-order-post"), leaked()), (Some("A"), 0));
    governed.gateway.stop();
}
