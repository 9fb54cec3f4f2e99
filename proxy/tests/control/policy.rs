//! What follows when a plugin panics: the exchange fails, the instance is replaced, in the end the plugin is put out.

use serde_json::json;

use crate::admin::*;
use crate::gateway::*;

/// A closed route and one that passes failures by; two restarts are allowed.
fn governed(folder: &tempfile::TempDir, origin: &Origin, flags: &[&str]) -> (Governed, std::path::PathBuf) {
    let (file, log) = (versioned(folder.path(), "1", flags), folder.path().join("life"));
    let text = format!(
        "[limits]\nplugin_restarts = 2\n[[plugin]]\nname = \"versioned\"\npath = {file:?}\n\
         [[route]]\nname = \"open\"\nexact = \"/open\"\nupstream = \"app\"\nplugins = [{{ name = \"versioned\", on_error = \"open\" }}]\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"versioned\"]"
    );
    let launch = Launch { environment: vec![("VERSIONED_LIFE".into(), log.display().to_string())], ..Launch::default() };
    let made = config().workers(2).upstream("app", &[origin.address()], "").with(&text).server("admin = \"127.0.0.1:0\"");
    (Governed::launch(launch, made), log)
}

impl Governed {
    fn plugin(&self) -> serde_json::Value {
        self.good("GET", "/api/plugins/versioned", "")
    }
}

fn count(log: &std::path::Path, event: &str) -> usize {
    std::fs::read_to_string(log).unwrap().lines().filter(|line| *line == event).count()
}

#[test]
fn a_panic_costs_an_instance_and_too_many_cost_the_plugin() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let (governed, log) = governed(&folder, &origin, &[]);
    let counted = |plugin: &serde_json::Value| [plugin["counters"]["aborts"].as_u64(), plugin["counters"]["panics"].as_u64(), plugin["restarts"].as_u64()];
    // A plain failure is the exchange's alone.
    assert_eq!(get(governed.address(), "/abort").status, 500);
    for restarts in 1..=2 {
        assert_eq!(get(governed.address(), "/panic").status, 500);
        eventually("its instance is replaced", || governed.plugin()["restarts"] == restarts);
        assert_eq!(governed.versions(), ("1".into(), "1".into()));
    }
    eventually("the old instances end", || count(&log, "1 core_fini worker") == 2);
    let plugin = governed.plugin();
    assert_eq!((counted(&plugin), &plugin["status"], &plugin["reason"]), ([Some(3), Some(2), Some(2)], &json!("active"), &json!(null)));
    assert_eq!((count(&log, "1 load main"), count(&log, "1 core_init worker"), count(&log, "1 unload main")), (1, 4, 0));

    assert_eq!(get(governed.address(), "/panic").status, 500);
    eventually("it is quarantined", || governed.plugin()["status"] == "quarantined");
    let reason = "it panicked again: 2 of its instances were replaced within 1m, and limits.plugin_restarts is 2";
    assert_eq!(governed.plugin()["reason"], reason);
    assert_eq!(governed.metric("ringway_loaded_plugin_quarantined{plugin=\"versioned\"}"), Some(1));
    let open = get(governed.address(), "/open");
    assert_eq!((open.status, versions(&open)), (200, (String::new(), String::new())));
    assert_eq!(get(governed.address(), "/closed").status, 500);
    // A reload does not end it; an operator does, and begins anew.
    governed.good("POST", "/api/reload", "");
    assert_eq!(governed.plugin()["status"], "quarantined");
    assert_eq!(governed.good("POST", "/api/plugins/versioned/enable", "")["status"], "active");
    assert_eq!(governed.versions(), ("1".into(), "1".into()));
    assert_eq!(get(governed.address(), "/panic").status, 500);
    eventually("its instance is replaced", || governed.plugin()["restarts"] == 3);
    assert_eq!(governed.plugin()["status"], "active");
    governed.gateway.stop();
}

#[test]
fn an_instance_that_cannot_be_made_again_is_not_used() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let (governed, _) = governed(&folder, &origin, &["-DFAIL_AGAIN"]);
    assert_eq!(get(governed.address(), "/panic").status, 500);
    eventually("it is quarantined", || governed.plugin()["status"] == "quarantined");
    let reason = governed.plugin()["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("it panicked, and no new instance of it could be made: plugin versioned: core_init failed on worker"), "{reason}");
    assert_eq!(get(governed.address(), "/open").status, 200);
    // New code ends the quarantine.
    let two = versioned(folder.path(), "2", &[]);
    assert_eq!(governed.good("PUT", "/api/plugins/versioned", &json!({ "path": two }).to_string())["status"], "active");
    assert_eq!(governed.versions(), ("2".into(), "2".into()));
    governed.gateway.stop();
}

/// The SDK tells the gateway what a panic was.
#[test]
fn a_rust_panic_is_told_from_a_failure() {
    let origin = origin();
    let file = plugin("hostile-panic").display().to_string();
    let text = format!("[[plugin]]\nname = \"versioned\"\npath = {file:?}\n[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"versioned\"]");
    let governed = Governed::start(config().workers(1).upstream("app", &[origin.address()], "").with(&text));
    for (path, restarts) in [("/panic", 1), ("/panic-post", 2)] {
        assert_eq!(get(governed.address(), path).status, 500);
        eventually("its instance is replaced", || governed.plugin()["restarts"] == restarts);
    }
    assert_eq!(governed.metric("ringway_link_panics_total{route=\"all\",plugin=\"versioned\"}"), Some(2));
    assert_eq!(governed.metric("ringway_faults_total{reason=\"plugin_panicked\"}"), Some(2));
    governed.gateway.stop();
}
