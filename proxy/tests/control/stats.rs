//! Times of hooks, measured when somebody asked for them, and what `ringway top` makes of the counters.

use serde_json::{Value, json};

use crate::admin::*;
use crate::gateway::*;

#[test]
fn one_call_in_sixty_four_is_measured_while_stats_are_on() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let governed = Governed::start(with_versioned(&versioned(folder.path(), "1", &[]), &origin).workers(1));
    let samples = || governed.good("GET", "/api/plugins/versioned", "")["hook_times"]["on_request"]["samples"].as_u64();
    let mut client = Client::connect(governed.address());
    client.get("/");
    assert_eq!((samples(), governed.metric("ringway_stats")), (None, Some(0)), "nothing is measured unasked");
    assert_eq!(governed.good("POST", "/api/stats/on", ""), json!({ "stats": true, "sample_every": 64 }));
    let mut client = Client::connect(governed.address());
    (0..129).for_each(|_| drop(client.get("/")));
    assert_eq!(samples(), Some(3), "the first, the 65th and the 129th");
    assert_eq!(governed.metric("ringway_hook_ns_count{plugin=\"versioned\",hook=\"on_response\"}"), Some(3));
    let times = governed.good("GET", "/api/plugins/versioned", "")["hook_times"]["on_request"].clone();
    let [mean, p50, p99, max] = ["mean_ns", "p50_ns", "p99_ns", "max_ns"].map(|key| times[key].as_u64().unwrap());
    assert!(mean > 0 && p50 <= p99 && p99 <= max && mean <= max, "{times}");
    assert_eq!(governed.good("POST", "/api/stats/off", "")["stats"], false);
    let mut client = Client::connect(governed.address());
    (0..65).for_each(|_| drop(client.get("/")));
    assert_eq!((samples(), governed.good("GET", "/api/stats", "")["stats"].clone()), (Some(3), json!(false)), "what was measured stays");
    governed.gateway.stop();
}

#[test]
fn top_shows_what_plugins_do_now() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let [one, two] = ["1", "2"].map(|version| versioned(folder.path(), version, &[]));
    let governed = Governed::start(with_versioned(&one, &origin));
    let run = |arguments: &[&str]| {
        let output = ringway(arguments).env("RINGWAY_ADMIN", &governed.admin).output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["stats", "on"]), "stats: on, one call in 64\n");
    assert_eq!(
        run(&["plugin", "swap", "versioned", &two, "--canary", "50%"]),
        "versioned: active, version 1, generation 1; on trial: version 2, generation 2, 50%\n"
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (plain, lines) = std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        scope.spawn(|| {
            let mut client = Client::connect(governed.address());
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(client.get_on_and_on("/").status, 200);
            }
        });
        (run(&["top", "-n", "1", "-d", "0.5"]), run(&["top", "-n", "2", "-d", "0.5", "-j"]))
    });
    let rows: Vec<Vec<&str>> = plain.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "STATUS", "VERSION", "CALLS/S", "RESPONDS/S", "DROPS/S", "ABORTS/S", "PANICS/S", "EDITS/S", "MEAN", "P99"]);
    assert_eq!((rows[1][0], rows[1][1], rows[1][2], rows[2][1]), ("versioned", "active", "1", "on"), "{plain}");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let [in_force, on_trial] = [0, 1].map(|row| &line["plugins"][row]);
        assert!(in_force["calls_per_second"].as_u64() > Some(0) && in_force["hook_mean_ns"].as_u64().is_none_or(|ns| ns > 0), "{line}");
        assert_eq!((&on_trial["status"], &on_trial["version"], on_trial["edits_per_second"].as_u64() > Some(0)), (&json!("on trial"), &json!("2"), true));
    }
    let list = run(&["plugin", "list"]);
    assert!(list.lines().nth(2).is_some_and(|row| row.contains("on trial") && row.ends_with("50% of its exchanges")), "{list}");
    assert_eq!(run(&["plugin", "promote", "versioned"]), "versioned: active, version 2, generation 2\n");
    assert_eq!((run(&["stats", "off"]), run(&["stats", "show"])), ("stats: off\n".into(), "stats: off\n".into()));
    let nobody = ringway(&["top", "-n", "1", "--admin", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    governed.gateway.stop();
}
