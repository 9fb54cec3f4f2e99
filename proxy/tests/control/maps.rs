//! Maps of the running gateway: pinned over a restart, refused when they do not fit, read and written by operators, rings followed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use serde_json::{Value, json};

use crate::admin::*;
use crate::gateway::*;

/// `versioned` with maps that are kept in `state`; `lines` are more keys of the plugin.
fn kept(file: &str, origin: &Origin, state: &Path, lines: &str) -> Config {
    let text = format!("[[plugin]]\nname = \"v\"\npath = {file:?}\n{lines}\n[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"v\"]");
    let server = format!("admin = \"127.0.0.1:0\"\nstate = {:?}", state.display().to_string());
    config().workers(2).server(&server).upstream("app", &[origin.address()], "").with(&text)
}

fn count(governed: &Governed) -> u64 {
    get(governed.address(), "/a").header("x-count").unwrap().parse().unwrap()
}

#[test]
fn a_pinned_map_is_found_after_a_restart_and_another_layout_is_refused() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let state = folder.path().join("state");
    let one = versioned(folder.path(), "1", &["-DMAPS"]);
    let other = versioned(folder.path(), "2", &["-DMAPS", "-DFIELDS=\"u64 others\""]);
    let governed = Governed::launch(Launch::default(), kept(&one, &origin, &state, ""));
    assert_eq!([count(&governed), count(&governed), count(&governed)], [1, 2, 3]);
    // A swap to a version with another definition is refused while this one runs, and changes nothing.
    let (status, reason) = governed.refused("PUT", "/api/plugins/v", &json!({ "path": other }).to_string());
    assert!(status == 422 && reason.contains("v.total.map differs in its definition"), "{reason}");
    assert_eq!(count(&governed), 4);
    governed.gateway.stop();
    let governed = Governed::launch(Launch::default(), kept(&one, &origin, &state, ""));
    assert_eq!(count(&governed), 5, "the map outlived the process");
    let paths = governed.good("GET", "/api/maps/v/paths", "");
    assert_eq!(paths["dump"], json!([{ "key": "/a", "value": { "requests": 5, "version": 0 } }]));
    assert_eq!(governed.good("GET", "/api/maps/v/workers?key=0", "")["sum"], json!({ "requests": 5 }));
    // Two processes cannot use one map.
    let (code, said) = Launch::default().refuse(&kept(&one, &origin, &state, ""));
    assert!(code == Some(1) && said.contains("v.total.map is in use by another process"), "{said}");
    governed.gateway.stop();
    let (code, said) = Launch::default().refuse(&kept(&other, &origin, &state, ""));
    assert!(code == Some(1) && said.contains("v.total.map differs in value_fields: it was made with others, the plugin has \\\"u64 others\\\""), "{said}");
    let governed = Governed::launch(Launch::default(), kept(&other, &origin, &state, "maps = \"fresh\""));
    assert_eq!(count(&governed), 1, "told to begin with an empty one");
    assert_eq!(governed.good("GET", "/api/maps/v/paths?key=/a", "")["value"]["requests"], 6, "what fits is kept");
    // Back to the first version, which does not fit any more, unless it is told so for this change.
    governed.refused("PUT", "/api/plugins/v", &json!({ "path": one, "maps": "keep" }).to_string());
    governed.good("PUT", "/api/plugins/v", &json!({ "path": one, "maps": "fresh" }).to_string());
    assert_eq!((count(&governed), count(&governed)), (1, 2));
    governed.gateway.stop();
    // A kill leaves everything but what was being written at that moment.
    let governed = Governed::launch(Launch::default(), kept(&one, &origin, &state, ""));
    assert_eq!(count(&governed), 3);
    signal(governed.gateway.serving_pid(), libc::SIGKILL);
    governed.gateway.wait_for("\"serving again\"");
    assert_eq!(count(&governed), 4);
    governed.gateway.stop();
}

#[test]
fn a_file_that_is_no_map_and_maps_that_are_too_large_are_refused() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let state = folder.path().join("state");
    let file = versioned(folder.path(), "1", &["-DMAPS"]);
    let (code, said) = Launch::default().refuse(&kept(&file, &origin, &state, "").with("[limits]\nmap_bytes = \"64KiB\""));
    assert!(code == Some(1) && said.contains("more than limits.map_bytes (65536)"), "{said}");
    std::fs::create_dir_all(state.join("maps")).unwrap();
    std::fs::write(state.join("maps/v.paths.map"), "something else").unwrap();
    let (code, said) = Launch::default().refuse(&kept(&file, &origin, &state, ""));
    assert!(code == Some(1) && said.contains("v.paths.map is damaged: it has only 14 bytes"), "{said}");
    let (code, said) = Launch::default().refuse(&kept(&file, &origin, &state, "sinks = { paths = \"file:/dev/null\" }"));
    assert!(
        code == Some(1) && said.contains("the plugin `v` has no ring `paths` for file:/dev/null") && said.contains("the map `paths` is of the kind hash"),
        "{said}"
    );
    let governed = Governed::launch(Launch::default(), kept(&file, &origin, &state, "maps = \"fresh\""));
    assert_eq!(count(&governed), 1);
    governed.gateway.stop();
}

/// Exit code, what was printed, what was said about problems.
fn run(governed: &Governed, arguments: &[&str]) -> (i32, String, String) {
    let output = ringway(arguments).env("RINGWAY_ADMIN", &governed.admin).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn operators_read_and_write_maps() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let file = versioned(folder.path(), "1", &["-DMAPS", "-DENTRIES=3"]);
    let governed = Governed::start(with_versioned(&file, &origin));
    for path in ["/a", "/b", "/a"] {
        get(governed.address(), path);
    }
    let (code, out, err) = run(&governed, &["map", "list"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["PLUGIN", "MAP", "KIND", "ENTRIES", "OF", "BYTES", "PINNED", "DROPPED", "VALUE"]);
    assert_eq!(rows[1], ["versioned", "total", "array", "1", "1", "8192", "no", "-", "u64", "requests"]);
    assert_eq!(rows[2][..5], ["versioned", "paths", "hash", "2", "3"]);
    assert_eq!((&rows[3][2..5], &rows[4][2..5], rows[4][7]), (["core-array", "1", "1"].as_slice(), ["ring", "3", "64"].as_slice(), "0"));
    let dump = |map: &str| run(&governed, &["map", "dump", "versioned", map]);
    let (code, out, _) = dump("paths");
    let mut lines: Vec<&str> = out.lines().collect();
    lines[1..3].sort_unstable();
    assert_eq!((code, lines.as_slice()), (0, ["KEY  REQUESTS  VERSION", "/a   2         0", "/b   1         0", "2 of 3 entries"].as_slice()));
    assert_eq!(dump("workers"), (0, "KEY  REQUESTS\n0    3\n1 of 1 entries\n".into(), String::new()));
    let cores: Value = serde_json::from_str(&run(&governed, &["map", "get", "versioned", "workers", "0", "-j"]).1).unwrap();
    let of_cores: u64 = cores["cores"].as_array().unwrap().iter().map(|core| core["requests"].as_u64().unwrap()).sum();
    assert_eq!((cores["cores"].as_array().unwrap().len(), of_cores, &cores["sum"]), (2, 3, &json!({ "requests": 3 })));
    for (arguments, expected) in [
        (vec!["map", "get", "versioned", "paths", "/a"], "/a: requests=2 version=0\n"),
        (vec!["map", "set", "versioned", "paths", "/a", "requests=40"], "/a: requests=40 version=0\n"),
        (vec!["map", "set", "versioned", "paths", "0x2f636320ff0000000000000000000000", "version=7"], "2f63:6320:ff00::: requests=0 version=7\n"),
        (vec!["map", "delete", "versioned", "paths", "/b"], "/b: removed\n"),
        (vec!["map", "set", "versioned", "total", "0", "requests=100"], "0: requests=100\n"),
    ] {
        assert_eq!(run(&governed, &arguments), (0, expected.into(), String::new()), "{arguments:?}");
    }
    assert_eq!(get(governed.address(), "/a").header("x-count"), Some("101"), "the plugin goes on from there");
    assert_eq!(run(&governed, &["map", "get", "versioned", "paths", "/a"]).1, "/a: requests=41 version=0\n");
    for (arguments, expected) in [
        (vec!["map", "get", "versioned", "paths", "/none"], "there is no key `/none`"),
        (vec!["map", "get", "versioned", "paths", "/a/path/that/is/too/long"], "`/a/path/that/is/too/long` is no key: keys of this map have 16 bytes"),
        (vec!["map", "get", "versioned", "total", "1"], "there is no key `1`"),
        (vec!["map", "get", "versioned", "total", "one"], "`one` is no index: keys of this map are numbers"),
        (vec!["map", "get", "versioned", "none", "1"], "the plugin `versioned` has no map `none`"),
        (vec!["map", "dump", "none", "none"], "there is no plugin `none`"),
        (vec!["map", "dump", "versioned", "events"], "records are not dumped, they are followed: GET /api/maps/versioned/events/tail"),
        (vec!["map", "set", "versioned", "paths", "/a", "hits=1"], "there is no field `hits`; there are: requests, version"),
        (vec!["map", "set", "versioned", "paths", "/a", "requests=-1"], "`requests` is u64 requests: -1 is out of range"),
        (vec!["map", "set", "versioned", "workers", "0", "requests=1"], "only a worker writes to its own entries of a core array"),
        (vec!["map", "delete", "versioned", "total", "0"], "every entry of an array is there; set it to zero instead"),
        (vec!["tail", "versioned/paths"], "the map `paths` is of the kind hash; only a ring can be followed"),
        (vec!["tail", "none"], "there is no plugin `none` with a ring"),
    ] {
        let (code, out, err) = run(&governed, &arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}");
        assert!(err.starts_with(&format!("error: {expected}\n")), "{arguments:?}: {err}");
    }
    run(&governed, &["map", "set", "versioned", "paths", "/d", "requests=1"]);
    assert_eq!(governed.refused("PUT", "/api/maps/versioned/paths?key=/e", "{}"), (409, "the map is full".into()));
    assert_eq!(get(governed.address(), "/e").status, 200, "a full map is the plugin's own matter");
    assert_eq!(governed.refused("PUT", "/api/maps/versioned/paths", "{}").0, 400);
    assert_eq!(governed.refused("POST", "/api/maps/versioned/paths?key=/e", "{}").0, 405);
    assert_eq!(governed.refused("PUT", "/api/maps/versioned/events/tail", "").0, 405);
    assert_eq!(governed.refused("GET", "/api/maps/versioned", "").0, 404);
    let pages = governed.good("GET", "/api/maps/versioned/paths?limit=1", "");
    let rest = governed.good("GET", &format!("/api/maps/versioned/paths?from={}", pages["next"]), "");
    assert_eq!((pages["dump"].as_array().unwrap().len(), rest["dump"].as_array().unwrap().len()), (1, 2));
    assert_eq!(governed.metric("ringway_map_entries{plugin=\"versioned\",map=\"paths\"}"), Some(3));
    governed.gateway.stop();
}

/// A command that goes on until it is killed.
struct Follower {
    child: Child,
    /// What it prints.
    lines: Receiver<String>,
}

impl Follower {
    fn start(governed: &Governed, arguments: &[&str]) -> Follower {
        let mut child = ringway(arguments).env("RINGWAY_ADMIN", &governed.admin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Follower { child, lines }
    }

    /// The next line; nothing at its end.
    fn line(&self) -> String {
        match self.lines.recv_timeout(DEADLINE) {
            Err(RecvTimeoutError::Timeout) => panic!("no line"),
            line => line.unwrap_or_default(),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn records_are_followed_and_sent_to_sinks() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let log = folder.path().join("events.jsonl");
    let [one, two] = ["1", "2"].map(|version| versioned(folder.path(), version, &["-DMAPS"]));
    let governed = Governed::start(with_versioned(&one, &origin));
    // More records than the ring has room for, and nobody there: the first ones stay, the others are counted.
    for _ in 0..200 {
        get(governed.address(), "/early");
    }
    let dropped = governed.metric("ringway_map_dropped_total{plugin=\"versioned\",map=\"events\"}").unwrap();
    let waiting = governed.metric("ringway_map_entries{plugin=\"versioned\",map=\"events\"}").unwrap();
    assert!(waiting >= 64 && waiting + dropped == 200, "{waiting} {dropped}");
    let mut tail = Follower::start(&governed, &["tail", "versioned"]);
    for number in 1..=waiting {
        assert_eq!(tail.line(), format!("number={number} path=/early"));
    }
    let second = Follower::start(&governed, &["tail", "versioned/events", "-j"]);
    // The second follower is there once it gets a record.
    let mut asked = 200;
    let first = loop {
        get(governed.address(), "/late");
        asked += 1;
        assert_eq!(tail.line(), format!("number={asked} path=/late"));
        if let Ok(line) = second.lines.try_recv() {
            break line;
        }
    };
    let first: Value = serde_json::from_str(&first).unwrap();
    let from = first["number"].as_u64().unwrap();
    assert!(first["path"] == "/late" && (201..=asked).contains(&from), "{first}");
    for number in from + 1..=asked {
        assert_eq!(serde_json::from_str::<Value>(&second.line()).unwrap(), json!({ "number": number, "path": "/late" }));
    }
    // A swap changes nothing for those who follow.
    governed.good("PUT", "/api/plugins/versioned", &json!({ "path": two }).to_string());
    get(governed.address(), "/two");
    asked += 1;
    assert_eq!(tail.line(), format!("number={asked} path=/two"));
    drop(second);
    // From a reload on, a file gets them too.
    let text = std::fs::read_to_string(governed.file()).unwrap();
    let sinks = format!("[plugin.sinks]\nevents = \"file:{}\"\n[[route]]", log.display());
    std::fs::write(governed.file(), text.replacen("[[route]]", &sinks, 1)).unwrap();
    governed.good("POST", "/api/reload", "");
    get(governed.address(), "/sink");
    asked += 1;
    let expected = format!("{}\n", json!({ "number": asked, "path": "/sink" }));
    eventually("the record is in the file", || std::fs::read_to_string(&log).is_ok_and(|text| text == expected));
    assert_eq!(tail.line(), format!("number={asked} path=/sink"));
    // Without the plugin there is nothing to follow.
    governed.good("DELETE", "/api/plugins/versioned?force", "");
    assert_eq!(tail.line(), "");
    assert!(tail.child.wait().unwrap().success());
    governed.gateway.stop();
}

#[test]
fn a_socket_gets_the_records_when_somebody_listens() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let file = versioned(folder.path(), "1", &["-DMAPS"]);
    let path = folder.path().join("events.sock");
    let text = format!(
        "[[plugin]]\nname = \"v\"\npath = {file:?}\nsinks = {{ events = \"unix:{}\" }}\n[[route]]\nupstream = \"app\"\nplugins = [\"v\"]",
        path.display()
    );
    let governed = Governed::start(config().workers(2).upstream("app", &[origin.address()], "").with(&text));
    get(governed.address(), "/a");
    governed.gateway.wait_for("records wait: the sink cannot be written");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (mut stream, _) = socket.accept().unwrap();
    get(governed.address(), "/b");
    let expected = format!("{}\n{}\n", json!({ "number": 1, "path": "/a" }), json!({ "number": 2, "path": "/b" }));
    let mut seen = vec![0; expected.len()];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), expected);
    governed.gateway.stop();
}
