//! What the next process runs: after a crash and in an upgrade that which was in force, whatever lies on disk by then.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::crash::{answers, built, fatal, telling, with_fatal};
use crate::admin::*;
use crate::gateway::*;

/// A gateway that keeps its copies of plugins in a folder of its own.
fn start(made: Config) -> (Governed, TempDir) {
    let store = tempfile::tempdir().unwrap();
    let environment = vec![("XDG_RUNTIME_DIR".to_owned(), store.path().display().to_string())];
    let made = made.server("admin = \"127.0.0.1:0\"");
    (Governed::launch(Launch { environment, ..Launch::default() }, made), store)
}

fn copies(store: &TempDir) -> PathBuf {
    store.path().join("ringway/plugins")
}

/// Puts another file at `path`, as a deployment does.
fn deploy(path: &str, content: impl AsRef<[u8]>) {
    let next = format!("{path}.next");
    fs::write(&next, content).unwrap();
    fs::rename(next, path).unwrap();
}

/// Ends the process that serves and waits for the next one.
fn kill(governed: &Governed, restarts: usize) {
    let serves = |event: &Value| ["serving again", "upgrade: the new gateway process serves"].iter().any(|message| event["message"] == *message);
    let last = governed.gateway.log().iter().rev().find_map(|line| serde_json::from_str(line).ok().filter(serves));
    let pid = last.map_or(governed.gateway.serving_pid(), |event| event["pid"].as_u64().unwrap() as u32);
    signal(pid, libc::SIGKILL);
    assert_eq!(governed.gateway.said(restarts, "serving again"), restarts);
}

fn pre(governed: &Governed) -> String {
    governed.versions().0
}

#[test]
fn a_restart_and_an_upgrade_run_the_plugin_that_was_in_force() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let file = versioned(folder.path(), "at-its-path", &["-UVERSION", "-DVERSION=\"1\""]);
    let [second, third] = ["2", "3"].map(|version| fs::read(versioned(folder.path(), version, &[])).unwrap());
    let (governed, store) = start(with_versioned(&file, &origin));
    assert_eq!(pre(&governed), "1");
    deploy(&file, &second);
    kill(&governed, 1);
    assert_eq!(pre(&governed), "1", "nobody has ordered the new file");
    governed.good("POST", "/api/reload", "");
    assert_eq!(pre(&governed), "2");
    deploy(&file, "half of a file");
    kill(&governed, 2);
    assert_eq!(pre(&governed), "2", "the reload has");
    // A swap from the path of the configuration is what the path means from then on.
    deploy(&file, &third);
    governed.good("PUT", "/api/plugins/versioned", "{}");
    fs::remove_file(&file).unwrap();
    kill(&governed, 3);
    assert_eq!(pre(&governed), "3");
    // Code that was given a configuration of its own does not stand for the file's, which may not fit it.
    deploy(&file, &second);
    governed.good("POST", "/api/reload", "");
    deploy(&file, &third);
    governed.good("PUT", "/api/plugins/versioned", r#"{"config": {"other": 1}}"#);
    assert_eq!(pre(&governed), "3");
    kill(&governed, 4);
    assert_eq!(pre(&governed), "2", "what was in force with the configuration of the file");
    governed.good("POST", "/api/reload", "");
    assert_eq!(pre(&governed), "3");
    fs::remove_file(&file).unwrap();
    governed.good("POST", "/api/upgrade", "");
    assert_eq!(pre(&governed), "3");
    assert_eq!(governed.good("GET", "/api/plugins/versioned", "")["path"], json!(file), "the copy is not shown as the operator's file");
    // Neither the copy nor the file: an upgrade can wait until somebody has mended that.
    fs::remove_dir_all(copies(&store)).unwrap();
    let (status, reason) = governed.refused("POST", "/api/upgrade", "");
    assert!(status == 422 && reason.contains("cannot be read from"), "{status} {reason}");
    assert_eq!(pre(&governed), "3");
    // Only the copy is gone: the file is used, and the log says what it is.
    deploy(&file, &second);
    governed.good("POST", "/api/upgrade", "");
    governed.gateway.wait_for("is another file than the one that was in force");
    // The old process takes connections until it has heard of it.
    eventually("the new process serves", || pre(&governed) == "2");
    governed.gateway.stop();
}

#[test]
fn a_plugin_that_is_gone_is_out_after_a_restart_and_takes_nobody_along() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let (file, other) = (fatal(folder.path(), &[]), versioned(folder.path(), "1", &[]));
    let plugins = format!("[[plugin]]\nname = \"other\"\npath = {other:?}\n[[plugin]]\nname = \"killer\"\npath = {file:?}\non_error = \"open\"\n");
    let routes = ["other", "killer"].map(|name| format!("[[route]]\npath = \"/{name}\"\nupstream = \"app\"\nplugins = [{name:?}]\n"));
    let (governed, store) = start(config().upstream("app", &[origin.address()], "").with(&plugins).with(&routes.concat()));
    let status = |name: &str| governed.good("GET", &format!("/api/plugins/{name}"), "")["status"].as_str().unwrap().to_owned();
    let content = [&file, &other].map(|path| fs::read(path).unwrap());
    fs::remove_dir_all(copies(&store)).unwrap();
    [&file, &other].into_iter().for_each(|path| fs::remove_file(path).unwrap());
    kill(&governed, 1);
    assert_eq!([status("killer"), status("other")], ["quarantined", "quarantined"]);
    assert_eq!(get(governed.address(), "/killer").header("x-seen"), Some("0"), "open: it is passed by");
    assert_eq!(get(governed.address(), "/other").status, 500, "closed: the route refuses");
    let said = |event: &Value| {
        event["level"] == "ERROR" && event["message"].as_str().is_some_and(|text| text.starts_with("the plugin was in force and cannot be loaded again"))
    };
    assert_eq!(governed.gateway.events(2, said), 2);
    let once_more = |event: &Value| event["message"].as_str().is_some_and(|text| text.contains("which is tried once more"));
    assert_eq!(governed.gateway.events(4, once_more), 4, "what stood in the way may be gone in a moment");
    // It stays so in every process that follows, and the file is read again when an operator says so.
    deploy(&file, &content[0]);
    deploy(&other, &content[1]);
    kill(&governed, 2);
    assert_eq!([status("killer"), status("other")], ["quarantined", "quarantined"]);
    governed.good("POST", "/api/plugins/killer/enable", "");
    governed.good("POST", "/api/upgrade", "");
    assert_eq!([status("killer"), status("other")], ["active", "quarantined"]);
    governed.good("POST", "/api/reload", "");
    assert_eq!(get(governed.address(), "/other").status, 200, "the reload has found its file");
    assert_eq!(get(governed.address(), "/killer").header("x-seen"), Some("1"));
    // What is disabled is not needed either.
    governed.good("POST", "/api/plugins/killer/disable", "");
    fs::remove_dir_all(copies(&store)).unwrap();
    fs::remove_file(&file).unwrap();
    kill(&governed, 3);
    assert_eq!(status("killer"), "disabled");
    governed.good("POST", "/api/upgrade", "");
    assert_eq!(status("killer"), "disabled");
    deploy(&file, &content[0]);
    governed.good("POST", "/api/plugins/killer/enable", "");
    assert_eq!(get(governed.address(), "/killer").header("x-seen"), Some("1"));
    governed.gateway.stop();
}

#[test]
fn the_file_of_a_quarantined_plugin_is_not_needed() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = fatal(folder.path(), &[]);
    let (governed, store) = start(with_fatal(&file, &origin, "open", "[limits]\nplugin_crashes = 1\n"));
    let mut client = Client::connect(governed.address());
    client.send("GET /segv HTTP/1.1\r\nhost: test\r\n\r\n");
    client.expect_end();
    governed.gateway.wait_for("quarantined: it brought the process down 1 times");
    assert_eq!(governed.gateway.said(1, "serving again"), 1);
    fs::remove_file(&file).unwrap();
    fs::remove_dir_all(copies(&store)).unwrap();
    kill(&governed, 2);
    assert_eq!(get(governed.address(), "/segv").header("x-seen"), Some("0"));
    let shown = governed.good("GET", "/api/plugins/killer", "");
    assert_eq!((shown["status"].as_str(), shown["reason"].as_str()), (Some("quarantined"), Some("it brought the process down 1 times within 5m")));
    governed.gateway.stop();
}

#[test]
fn the_death_of_a_process_that_leaves_is_reported_kept_and_counted() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let state = folder.path().join("state");
    let made = with_fatal(&fatal(folder.path(), &[]), &origin, "open", "[limits]\nplugin_crashes = 2\n").server(&format!("state = {state:?}"));
    let (governed, _store) = start(made);
    let mut client = Client::connect(governed.address());
    assert_eq!(client.get("/").status, 200);
    governed.good("POST", "/api/upgrade", "");
    // One more request is served there.
    client.send("GET /segv HTTP/1.1\r\nhost: test\r\n\r\n");
    client.expect_end();
    let died = |event: &Value| event["level"] == "ERROR" && event["message"] == "the gateway process died" && event["plugin"] == "killer";
    assert_eq!(governed.gateway.events(1, died), 1);
    eventually("the process that serves knows it", || governed.good("GET", "/api/crashes", "")["crashes"][0]["plugin"] == "killer");
    let kept = super::crash::run(&["crash", "show", "-j", "--state", state.to_str().unwrap()]);
    assert_eq!((kept["crashes"].as_array().unwrap().len(), &kept["crashes"][0]["signal"]), (1, &json!("SIGSEGV")));
    // The second one is one too many.
    let mut client = Client::connect(governed.address());
    client.send("GET /segv HTTP/1.1\r\nhost: test\r\n\r\n");
    client.expect_end();
    governed.gateway.wait_for("quarantined: it brought the process down 2 times");
    eventually("it serves again", || answers(governed.address()));
    governed.gateway.stop();
}

/// An origin that never answers, so that an exchange stays in flight.
fn silent() -> Origin {
    Origin::raw(|mut stream, _| drop(std::io::copy(&mut stream, &mut std::io::sink())))
}

/// A connection whose request has reached the origin.
fn in_flight(address: &str, origin: &Origin) -> Client {
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the request is with the origin", || origin.connections() == 1);
    client
}

#[test]
fn the_death_of_a_process_that_drains_is_reported_and_kept() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), silent());
    let state = folder.path().join("state");
    let mut gateway = Gateway::start(&config().to(&[origin.address()]).server(&format!("state = {state:?}")));
    let _client = in_flight(gateway.address(), &origin);
    gateway.signal(libc::SIGTERM);
    gateway.wait_for("draining: accepting no more");
    signal(gateway.serving_pid(), libc::SIGABRT);
    assert_eq!(gateway.wait("it ends").code(), Some(1));
    gateway.wait_for("the gateway process died");
    let kept = super::crash::run(&["crash", "show", "-j", "--state", state.to_str().unwrap()]);
    assert_eq!(kept["crashes"][0]["signal"], "SIGABRT");
}

#[test]
fn the_admin_address_of_a_gateway_without_supervisor_is_free_at_once() {
    let origin = silent();
    let governed = Governed::start(config().to(&[origin.address()]));
    let serving = governed.gateway.serving_pid();
    let _client = in_flight(governed.address(), &origin);
    governed.gateway.signal(libc::SIGKILL);
    let next = Gateway::start(&config().to(&[origin.address()]).server(&format!("admin = {:?}", governed.admin)));
    assert!(Path::new(&format!("/proc/{serving}/exe")).exists(), "the former one still has its exchange");
    next.stop();
    signal(serving, libc::SIGKILL);
}

#[test]
fn a_gateway_that_is_stopped_while_it_waits_for_its_restart_ends_well() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let more = "[limits]\nplugin_crashes = 0\n";
    let mut gateway = Gateway::start(&with_fatal(&fatal(folder.path(), &[]), &origin, "open", more));
    // Each death within a second of the start makes the next wait longer: after some of them it is long enough to be met.
    for deaths in 1..=7 {
        let mut client = Client::connect(gateway.address());
        client.send("GET /segv HTTP/1.1\r\nhost: test\r\n\r\n");
        client.expect_end();
        assert_eq!(gateway.said(deaths, "the gateway process died"), deaths);
    }
    gateway.signal(libc::SIGTERM);
    assert_eq!(gateway.wait("it ends").code(), Some(0));
}

/// What an operator does about a plugin that brings every process down.
#[test]
fn a_reload_that_is_ordered_while_nobody_serves_is_not_lost() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let made = with_fatal(&fatal(folder.path(), &[]), &origin, "open", "[limits]\nplugin_crashes = 0\n");
    let governed = Governed::start(made);
    let ask = || {
        let mut client = Client::connect(governed.address());
        client.send("GET /segv HTTP/1.1\r\nhost: test\r\n\r\n");
        client.try_response(false).ok().map(|response| response.status)
    };
    for deaths in 1..=6 {
        assert_eq!(ask(), None);
        assert_eq!(governed.gateway.said(deaths, "the gateway process died"), deaths);
    }
    let text = fs::read_to_string(governed.file()).unwrap();
    fs::write(governed.file(), text.replace("[[route]]", "[[route]]\nhost = \"only.test\"")).unwrap();
    governed.gateway.signal(libc::SIGHUP);
    // This request waits for the next process, and kills it before it has read anything.
    assert_eq!(ask(), None);
    assert_eq!(governed.gateway.said(7, "the gateway process died"), 7);
    eventually("the new configuration is in force", || get(governed.address(), "/").status == 404);
    governed.gateway.stop();
}

/// It could not hear of it, and would keep the sockets of whoever comes next.
#[test]
fn a_process_that_is_loading_ends_with_its_supervisor() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DLOAD_WAITS", "-DSTAYS", "-DSALT=\"orphan\""]);
    fs::write(folder.path().join("load"), "").unwrap();
    let governed = super::slow::start(folder.path(), super::slow::with_slow(&file, &origin, ""));
    let [goes_on, waits] = ["load", "load-waits"].map(|name| folder.path().join(name));
    [&goes_on, &waits].into_iter().for_each(|file| fs::remove_file(file).unwrap());
    signal(governed.gateway.serving_pid(), libc::SIGKILL);
    eventually("the next one is loading", || waits.exists());
    let supervisor = governed.gateway.pid();
    let next = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap().trim().to_owned();
    let lives = || fs::read_to_string(format!("/proc/{next}/cmdline")).is_ok_and(|command| command.contains("--control"));
    assert!(lives(), "{next}");
    governed.gateway.signal(libc::SIGKILL);
    eventually("it has ended", || !lives());
}

#[test]
fn signals_are_caught_while_the_configuration_is_read() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = folder.path().join("pipe.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut child = ringway(&["run", "-c", file.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    // Opened as soon as somebody reads it.
    let mut pipe = fs::OpenOptions::new().write(true).open(&file).unwrap();
    [libc::SIGUSR1, libc::SIGQUIT].into_iter().for_each(|number| signal(child.id(), number));
    pipe.write_all(config().to(&[origin.address()]).text().as_bytes()).unwrap();
    drop(pipe);
    // SIGQUIT is heeded when it serves; by default it would have ended it with a core dump.
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
}
