//! Changes and an upgrade at the same time: whatever was answered is in force afterwards, whoever ordered the upgrade and whatever dies meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::admin::*;
use crate::crash::{answers, built, fatal, telling, with_fatal};
use crate::gateway::*;
use crate::slow::{start, with_slow};

const STARTS: &str = "upgrade: a new gateway process starts";
const SERVES: &str = "upgrade: the new gateway process serves";

/// A program that becomes the gateway when the test says so.
struct Waiting {
    program: PathBuf,
    go: PathBuf,
}

impl Waiting {
    fn new(folder: &Path) -> Waiting {
        let (source, program, go) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/survive/waits.c"), folder.join("waits"), folder.join("go"));
        let defined = [format!("-DGO={go:?}"), format!("-DPROGRAM={:?}", env!("CARGO_BIN_EXE_ringway"))];
        let mut command = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
        assert!(command.arg("-O2").args(defined).arg("-o").arg(&program).arg(source).status().unwrap().success());
        Waiting { program, go }
    }

    fn upgrade(&self) -> String {
        json!({ "binary": self.program }).to_string()
    }

    fn let_go(&self) {
        fs::write(&self.go, "").unwrap();
    }
}

/// Orders an upgrade whose answer nobody waits for.
fn order(governed: &Governed, body: &str) -> Client {
    let mut client = Client::connect(&governed.admin);
    client.send(format!("POST /api/upgrade HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    client
}

/// Waits until the new process serves and the one before it has ended.
fn upgraded(governed: &Governed) {
    governed.gateway.wait_for(SERVES);
    governed.gateway.wait_for("a former gateway process has ended");
}

fn status(governed: &Governed, plugin: &str) -> String {
    governed.good("GET", &format!("/api/plugins/{plugin}"), "")["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_change_that_has_begun_is_made_before_the_upgrade_begins() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DSALT=\"before\""]);
    let governed = start(folder.path(), with_slow(&file, &origin, ""));
    let hash = || governed.good("GET", "/api/plugins/slow", "")["hash"].as_str().unwrap().to_owned();
    let before = hash();
    fs::remove_file(&file).unwrap();
    built("slow", folder.path(), &["-DLOAD_WAITS", "-DSALT=\"after\""]);
    thread::scope(|scope| {
        let change = scope.spawn(|| governed.good("PUT", "/api/plugins/slow", ""));
        eventually("the change is under way", || governed.good("GET", "/api/plugins", "")["loading"][0]["name"] == "slow");
        governed.gateway.signal(libc::SIGUSR2);
        governed.gateway.wait_for("upgrade: ");
        fs::write(folder.path().join("load"), "").unwrap();
        change.join().unwrap();
    });
    upgraded(&governed);
    assert_ne!(hash(), before, "what was answered is in force");
    governed.gateway.stop();
}

/// What a deployment does: a new configuration, a new program.
#[test]
fn a_reload_by_signal_right_before_an_upgrade_by_signal_is_not_lost() {
    let origin = telling();
    let governed = Governed::start(config().to(&[origin.address()]));
    let text = fs::read_to_string(governed.file()).unwrap();
    assert_eq!(get(governed.address(), "/").status, 200);
    fs::write(governed.file(), text.replace("[[route]]", "[[route]]\nhost = \"only.test\"")).unwrap();
    governed.gateway.signal(libc::SIGHUP);
    governed.gateway.signal(libc::SIGUSR2);
    upgraded(&governed);
    assert_eq!(get(governed.address(), "/").status, 404, "the new configuration is in force");
    governed.gateway.stop();
}

#[test]
fn a_process_that_is_restarted_during_an_upgrade_loses_no_change_either() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = versioned(folder.path(), "1", &[]);
    let governed = Governed::start(config().to(&[origin.address()]).with(&format!("[[plugin]]\nname = \"other\"\npath = {file:?}\n")));
    let next = Waiting::new(folder.path());
    let _asker = order(&governed, &next.upgrade());
    governed.gateway.wait_for(STARTS);
    signal(governed.gateway.serving_pid(), libc::SIGKILL);
    assert_eq!(governed.gateway.said(1, "serving again"), 1);
    let answer = governed.ask("POST", "/api/plugins/other/disable", "");
    assert!([200, 409].contains(&answer.status), "{answer:?}");
    next.let_go();
    upgraded(&governed);
    assert_eq!(status(&governed, "other"), if answer.status == 200 { "disabled" } else { "active" });
    governed.gateway.stop();
}

#[test]
fn a_plugin_that_is_quarantined_during_an_upgrade_stays_so() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let governed = Governed::start(with_fatal(&fatal(folder.path(), &[]), &origin, "open", "[limits]\nplugin_crashes = 1\n"));
    let next = Waiting::new(folder.path());
    let _asker = order(&governed, &next.upgrade());
    governed.gateway.wait_for(STARTS);
    let mut client = Client::connect(governed.address());
    client.send("GET /segv HTTP/1.1\r\nhost: test\r\n\r\n");
    client.expect_end();
    governed.gateway.wait_for("quarantined: it brought the process down 1 times");
    eventually("it serves again", || answers(governed.address()));
    next.let_go();
    upgraded(&governed);
    assert_eq!(status(&governed, "killer"), "quarantined");
    assert_eq!(get(governed.address(), "/segv").header("x-seen"), Some("0"));
    governed.gateway.stop();
}

#[test]
fn who_asks_for_a_second_upgrade_is_refused_and_the_first_one_goes_on() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let governed = Governed::start(config().to(&[origin.address()]));
    let next = Waiting::new(folder.path());
    let asker = &mut order(&governed, &next.upgrade());
    governed.gateway.wait_for(STARTS);
    governed.gateway.signal(libc::SIGUSR2);
    governed.gateway.wait_for("the upgrade changed nothing: an upgrade is under way");
    let (status, reason) = governed.refused("POST", "/api/upgrade", "");
    assert!(status == 409 && reason == "an upgrade is under way", "{status} {reason}");
    let (status, reason) = governed.refused("POST", "/api/reload", "");
    assert!(status == 409 && reason.contains("an upgrade is under way"), "{status} {reason}");
    next.let_go();
    let answer = asker.response();
    assert!(answer.status == 200 && answer.text().contains("\"upgraded\":true"), "{answer:?}");
    assert_eq!(governed.gateway.said(1, SERVES), 1);
    // The next one begins with a clean slate.
    governed.good("POST", "/api/reload", "");
    governed.good("POST", "/api/upgrade", "");
    governed.gateway.stop();
}

#[test]
fn an_upgrade_that_is_overtaken_by_one_change_after_another_fails_and_the_changes_stay() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let governed = Governed::start(config().to(&[origin.address()]));
    let next = Waiting::new(folder.path());
    let asker = &mut order(&governed, &next.upgrade());
    let text = fs::read_to_string(governed.file()).unwrap();
    for time in 1..=4 {
        assert_eq!(governed.gateway.said(time, STARTS), time);
        fs::write(governed.file(), text.replace("[[route]]", &format!("[[route]]\nhost = \"{time}.test\""))).unwrap();
        governed.gateway.signal(libc::SIGHUP);
    }
    let answer = asker.response();
    assert!(answer.status == 422 && answer.text().contains("what is in force was changed each of the 4 times"), "{answer:?}");
    let mut client = Client::connect(governed.address());
    for (host, status) in [("4.test", 200), ("3.test", 404)] {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(client.response().status, status, "{host}");
    }
    governed.good("POST", "/api/reload", "");
    governed.gateway.stop();
}

/// What the process that serves has not done yet when it hands over, the new one does.
#[test]
fn a_reload_by_signal_between_an_upgrade_and_its_beginning_is_not_lost() {
    let (folder, origin, names) = (tempfile::tempdir().unwrap(), telling(), Names::new(&["late.test silent"]));
    let file = built("slow", folder.path(), &["-DLOAD_WAITS", "-DSALT=\"between\""]);
    let goes_on = folder.path().join("load");
    fs::write(&goes_on, "").unwrap();
    let mut launch = names.launch();
    launch.environment.push(("RINGWAY_SLOW_FOLDER".into(), folder.path().display().to_string()));
    let governed = Governed::launch(launch, with_slow(&file, &origin, "").server("admin = \"127.0.0.1:0\""));
    fs::remove_file(&goes_on).unwrap();
    fs::remove_file(&file).unwrap();
    built("slow", folder.path(), &["-DLOAD_WAITS", "-DSALT=\"between, later\""]);
    let text = fs::read_to_string(governed.file()).unwrap().replace("[[route]]", "[[route]]\nhost = \"only.test\"");
    // Its reload takes longer than the start of a process.
    fs::write(governed.file(), text + "[[upstream]]\nname = \"late\"\nservers = [\"late.test:80\"]\n").unwrap();
    thread::scope(|scope| {
        let change = scope.spawn(|| governed.good("PUT", "/api/plugins/slow", ""));
        eventually("the change is under way", || governed.good("GET", "/api/plugins", "")["loading"][0]["name"] == "slow");
        governed.gateway.signal(libc::SIGUSR2);
        governed.gateway.wait_for("upgrade: ordered");
        governed.gateway.signal(libc::SIGHUP);
        fs::write(&goes_on, "").unwrap();
        change.join().unwrap();
    });
    upgraded(&governed);
    eventually("the new configuration is in force", || get(governed.address(), "/").status == 404);
    governed.gateway.stop();
}

/// Nothing that is given up is left behind, and nobody meets a process that is not to serve.
#[test]
fn a_process_that_has_not_loaded_everything_serves_nobody_and_takes_no_orders() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), telling());
    let file = built("slow", folder.path(), &["-DCORE_WAITS", "-DSALT=\"core\""]);
    let goes_on = folder.path().join("core");
    fs::write(&goes_on, "").unwrap();
    let governed = start(folder.path(), with_slow(&file, &origin, ""));
    // Connections go to one of the workers of any process that accepts.
    let only_by = |pid: u64| {
        for _ in 0..40 {
            assert_eq!(get(governed.address(), "/").header("x-seen"), Some(pid.to_string().as_str()));
        }
    };
    fs::remove_file(&goes_on).unwrap();
    governed.gateway.signal(libc::SIGUSR2);
    assert_eq!(governed.gateway.said(2, "plugin loaded"), 2);
    only_by(governed.gateway.serving_pid().into());
    let text = fs::read_to_string(governed.file()).unwrap();
    fs::write(governed.file(), text.replace("[[route]]", "[[route]]\npath = \"/\"")).unwrap();
    governed.gateway.signal(libc::SIGHUP);
    assert_eq!(governed.gateway.said(2, STARTS), 2);
    governed.gateway.wait_for("SIGKILL");
    fs::write(&goes_on, "").unwrap();
    assert_eq!(governed.gateway.said(2, "a former gateway process has ended"), 2);
    let serves: Value = serde_json::from_str(&governed.gateway.wait_for(SERVES)).unwrap();
    only_by(serves["pid"].as_u64().unwrap());
    // The processes write lines independently of one another: by their times, which they begin with.
    let mut log = governed.gateway.log();
    log.sort();
    let at = |text: &str| log.iter().rposition(|line| line.contains(text)).unwrap();
    assert!(at("\"listening\"") < at(SERVES) && at(SERVES) < at("admin listening"), "{log:#?}");
    governed.gateway.stop();
}
