//! Versions on trial: which exchanges run them, and how a trial ends.

use std::collections::BTreeMap;

use serde_json::json;

use crate::admin::*;
use crate::gateway::*;

fn trial(file: &str, share: serde_json::Value) -> String {
    json!({ "path": file, "canary": share }).to_string()
}

/// How often each version answered; before and after are always the same one.
fn answers(governed: &Governed, count: usize) -> BTreeMap<String, usize> {
    let mut client = Client::connect(governed.address());
    let mut shown = BTreeMap::new();
    for _ in 0..count {
        let response = client.get("/");
        let (pre, post) = versions(&response);
        assert_eq!((response.status, &pre), (200, &post));
        *shown.entry(pre).or_default() += 1;
    }
    shown
}

fn only(version: &str, count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(version.to_owned(), count)])
}

#[test]
fn a_share_of_the_exchanges_runs_the_new_version_until_it_is_promoted() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let log = folder.path().join("life");
    let [one, two] = ["1", "2"].map(|version| versioned(folder.path(), version, &[]));
    let launch = Launch { environment: vec![("VERSIONED_LIFE".into(), log.display().to_string())], ..Launch::default() };
    let governed = Governed::launch(launch, with_versioned(&one, &origin).server("admin = \"127.0.0.1:0\""));
    let begun = governed.good("PUT", "/api/plugins/versioned", &trial(&two, json!({ "percent": 25 })));
    assert_eq!((&begun["version"], &begun["canary"]["version"], &begun["canary"]["share"]), (&json!("1"), &json!("2"), &json!("25%")));
    assert_eq!(answers(&governed, 100), BTreeMap::from([("1".into(), 75), ("2".into(), 25)]));
    let plugin = governed.good("GET", "/api/plugins/versioned", "");
    assert_eq!((&plugin["counters"]["calls"], &plugin["canary"]["counters"]["calls"]), (&json!(150), &json!(50)));
    assert_eq!(plugin["canary"]["hook_times"]["on_request"]["samples"], 25, "every call of a version on trial is measured");
    assert_eq!(governed.metric("ringway_canary_calls_total{plugin=\"versioned\",version=\"2\",generation=\"2\"}"), Some(50));
    assert_eq!(governed.metric("ringway_plugin_seen{plugin=\"versioned\"}"), Some(100), "both count in the same metric");
    // What would change the ground under it waits.
    let busy = (409, "a version of the plugin `versioned` is on trial: promote it or roll it back first".to_owned());
    for (method, path) in [("POST", "/api/reload"), ("PUT", "/api/plugins/versioned"), ("DELETE", "/api/plugins/versioned?force")] {
        assert_eq!(governed.refused(method, path, ""), busy, "{method} {path}");
    }
    let promoted = governed.good("POST", "/api/plugins/versioned/promote", "");
    assert_eq!((&promoted["version"], &promoted["generation"], &promoted["canary"]), (&json!("2"), &json!(2), &json!(null)));
    assert_eq!(answers(&governed, 20), only("2", 20));
    assert_eq!(governed.metric("ringway_plugin_seen{plugin=\"versioned\"}"), Some(120));
    eventually("the old version is unloaded", || std::fs::read_to_string(&log).unwrap().contains("1 unload main"));
    let events = std::fs::read_to_string(&log).unwrap();
    assert_eq!((events.matches("2 load main").count(), events.matches("2 core_init worker").count()), (1, 2), "it keeps its instances");
    assert_eq!(governed.good("POST", "/api/plugins/versioned/rollback", "")["version"], "1");
    assert_eq!(answers(&governed, 10), only("1", 10));
    governed.gateway.stop();
}

#[test]
fn a_trial_can_be_ended_and_can_be_on_one_worker() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let [one, two] = ["1", "2"].map(|version| versioned(folder.path(), version, &[]));
    let governed = Governed::start(with_versioned(&one, &origin));
    let begun = governed.good("PUT", "/api/plugins/versioned", &trial(&two, json!({ "worker": 1 })));
    assert_eq!(begun["canary"]["share"], "worker 1");
    // The kernel chooses the worker of a connection; all exchanges of one connection run one version.
    let mut shown = BTreeMap::new();
    eventually("both versions have answered", || {
        let answers = answers(&governed, 3);
        assert_eq!(answers.len(), 1, "{answers:?}");
        shown.extend(answers);
        shown.len() == 2
    });
    let ended = governed.good("POST", "/api/plugins/versioned/rollback", "");
    assert_eq!((&ended["version"], &ended["canary"], &ended["last_error"]), (&json!("1"), &json!(null), &json!(null)));
    for _ in 0..10 {
        assert_eq!(answers(&governed, 2), only("1", 2));
    }
    eventually("nothing drains", || governed.good("GET", "/api/plugins", "")["draining"] == json!([]));
    for (body, status, reason) in [
        (trial(&two, json!({ "percent": 0 })), 400, "a number from 1 to 99"),
        (trial(&two, json!({ "percent": 100 })), 400, "a number from 1 to 99"),
        (trial(&two, json!({ "share": 1 })), 400, "unknown variant `share`"),
        (trial(&two, json!({ "worker": 2 })), 422, "there is no worker 2: they are numbered from 0 to 1"),
        (trial(&one, json!({ "percent": 5 })), 409, "there is nothing to try"),
        (trial("/no/such.so", json!({ "percent": 5 })), 422, "No such file"),
    ] {
        let (found, text) = governed.refused("PUT", "/api/plugins/versioned", &body);
        assert!(found == status && text.contains(reason), "{body}: {found} {text}");
    }
    let new = json!({ "path": two, "canary": { "percent": 5 } }).to_string();
    assert_eq!(governed.refused("POST", "/api/plugins/new", &new), (422, "a plugin that is new has no version to be tried against".into()));
    let none = (409, "no version of the plugin `versioned` is on trial".to_owned());
    assert_eq!(governed.refused("POST", "/api/plugins/versioned/promote", ""), none);
    governed.gateway.stop();
}

#[test]
fn a_version_that_is_worse_is_rolled_back_by_itself() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let one = versioned(folder.path(), "1", &[]);
    let limits = "[limits]\ncanary_calls_min = 20\ncanary_aborts_percent = 10\n[timeouts]\ncanary_p99 = \"5ms\"";
    let governed = Governed::start(with_versioned(&one, &origin).with(limits));
    for (version, flags, path, reason) in [
        ("aborts", vec!["-DABORTS"], "/", "hooks failed, more than 10 % (limits.canary_aborts_percent) within 30s"),
        ("panics", vec![], "/panic", "it panicked in one of "),
        ("slow", vec!["-DSLOW"], "/", "hooks took longer than 5ms (timeouts.canary_p99) within 30s"),
    ] {
        let file = versioned(folder.path(), version, &flags);
        let begun = governed.good("PUT", "/api/plugins/versioned", &trial(&file, json!({ "percent": 50 })));
        assert_eq!(begun["canary"]["version"], *version);
        let mut client = Client::connect(governed.address());
        eventually("the gateway ends the trial", || {
            client.get(path);
            governed.good("GET", "/api/plugins/versioned", "")["canary"].is_null()
        });
        let error = governed.good("GET", "/api/plugins/versioned", "")["last_error"].as_str().unwrap().to_owned();
        assert!(error.starts_with(&format!("version {version} (generation ")) && error.contains(reason), "{error}");
        assert_eq!(answers(&governed, 5), only("1", 5), "the version in force goes on");
        // Its own panics are another matter.
        governed.good("POST", "/api/plugins/versioned/enable", "");
    }
    governed.gateway.stop();
}
