//! Frames of a gateway's traffic: `plugin verify --frames` and `plugin run --frames`.

use std::fs;
use std::path::Path;
use std::thread;

use ringway::verify::frames::read;
use serde_json::Value;

use super::{run, verify};
use crate::gateway::*;

/// Exchanges of every kind, one after the other, each on a connection of its own.
fn traffic(address: &str) {
    let send = |bytes: &str| {
        let mut client = Client::connect(address);
        client.send(bytes);
        client
    };
    let long = "v".repeat(6000);
    get(address, "/bytes/5");
    get(address, "/crash");
    get(address, "/nowhere/x");
    send(&format!("GET /chunked/3000?a=b HTTP/1.1\r\nhost: test\r\nx-long: {long}\r\nX-Empty:\r\ncookie: a=b; c=d\r\n\r\n")).response();
    send("POST /small HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello").response();
    send("POST /large HTTP/1.1\r\nhost: test\r\ncontent-length: 40\r\n\r\nmore than the plugin lets pass, by far.\n").response();
    send("POST /small HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").response();
    send("HEAD /bytes/7 HTTP/1.1\r\nhost: test\r\n\r\n").head_response();
    send("GET /close/2000 HTTP/1.0\r\n\r\n").read_to_end();
    send("GET /status/204 HTTP/1.1\r\nhost: test\r\n\r\n").response();
    send("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n").response();
    let mut both = send("GET /bytes/1 HTTP/1.1\r\nhost: test\r\n\r\nBREW /pot HTTP/1.1\r\nhost: test\r\n\r\n");
    both.response();
    both.response();
}

/// A file of captured frames below `folder`: from a gateway whose plugins answer, edit and look at bodies.
fn captured(folder: &Path) -> String {
    let origin = Origin::start();
    let made = config()
        .server("admin = \"127.0.0.1:0\"")
        .plugin("header-rewrite", "[plugin.config]\nrequest = { set = { x-edited = \"1\" } }\nresponse = { set = { x-edited = \"1\" } }")
        .plugin("body-limit", "[plugin.config]\nmax_bytes = 10")
        .upstream("app", &[origin.address()], "")
        .upstream("none", &["127.0.0.1:1"], "")
        .with("[[route]]\npath = \"/nowhere/\"\nupstream = \"none\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"header-rewrite\", \"body-limit\"]");
    let gateway = Gateway::start(&made);
    let line: Value = serde_json::from_str(&gateway.wait_for("\"admin listening\"")).unwrap();
    let file = folder.join("traffic.frames").display().to_string();
    let arguments = ["capture", "--frames", "60", "--keep-secrets", "-o", &file, "--admin", line["address"].as_str().unwrap()];
    thread::scope(|scope| {
        let capturing = scope.spawn(|| run(&arguments, &[]));
        while !capturing.is_finished() {
            traffic(gateway.address());
        }
        let (code, out, err) = capturing.join().unwrap();
        assert_eq!((code, out, err), (0, format!("{file}: 60 of 60 exchanges, credentials and bodies as they came\n"), String::new()));
    });
    gateway.stop();
    file
}

#[test]
fn plugins_run_on_frames_of_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let file = captured(folder.path());
    let samples = read(&fs::read(&file).unwrap()).unwrap().samples;
    let find = |what: &str| samples.iter().find(|sample| sample.name.ends_with(what)).unwrap_or_else(|| panic!("no {what}"));
    for sample in &samples {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let response = text(sample.response.as_deref().unwrap_or_else(|| panic!("no response: {}", sample.name)));
        // What a plugin added is not what a plugin is shown first; a response that was made here has nothing that was received.
        let is_made = sample.name.ends_with(" /large");
        assert!(!text(&sample.request).contains("x-edited") && response.contains("x-edited") == is_made, "{}: {response}", sample.name);
    }
    let head = |what: &str| String::from_utf8_lossy(find(what).response.as_deref().unwrap()).into_owned();
    assert!(head("POST /large").starts_with("HTTP/1.1 413 ") && head("POST /large").contains("content-length: "), "made by a plugin");
    assert!(head("GET /nowhere/x").starts_with("HTTP/1.1 502 "), "made by the gateway");
    assert_eq!((&find("POST /large").request_body.concat()[..9], find("GET /bytes/5").response_body.concat()), (&b"more than"[..], b"abcde".to_vec()));
    assert!(find("GET /chunked/3000").request.len() > 6000);

    for (name, config) in [("request-id", "{}"), ("counter", "{}"), ("order-probe", r#"{"tag": "A"}"#), ("response-cache", "{}"), ("template-zig", "{}")] {
        let (code, report) = verify(name, &["--config", config, "--frames", &file], &[]);
        assert!(code == 0 && report["good"] == true, "{name}: {report:#}");
        let frames = report["checks"].as_array().unwrap().iter().filter(|check| check["check"].as_str().unwrap().starts_with("frame ")).count();
        assert_eq!(frames, 12 + samples.len(), "{name}: the golden ones too");
    }
    // What no golden frame shows.
    assert_eq!(verify("hostile-segfault", &[], &[]).0, 0);
    let (code, report) = verify("hostile-segfault", &["--frames", &file], &[]);
    let refusal = report["refusal"].as_str().unwrap();
    assert!(code == 1 && refusal.starts_with("`on_request` on the frame `#") && refusal.contains(" GET /crash` died of SIGSEGV"), "{refusal}");

    let path = plugin("request-id");
    let (code, out, err) = run(&["plugin", "run", "-j", path.to_str().unwrap(), "--frames", &file, "--repeat", "5"], &[]);
    let report: Value = serde_json::from_str(&out).unwrap();
    let timed: Vec<&Value> = report["hooks"].as_array().unwrap().iter().filter(|hook| hook["hook"] == "on_request").collect();
    assert!(code == 0 && timed.len() == samples.len(), "{code} {out}{err}");
    assert!(timed.iter().all(|hook| hook["frame"].as_str().unwrap().starts_with('#') && hook["calls"] == 5), "instead of the golden ones: {out}");
}

#[test]
fn a_file_that_is_not_whole_is_refused_before_any_plugin_runs() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(captured(folder.path())).unwrap();
    let path = folder.path().join("other.frames");
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let mut newer = whole.clone();
    newer[8] = 9;
    let trace = folder.path().join("opened");
    for (content, why) in [
        (&whole[..whole.len() - 1], "it was cut off or changed"),
        (&changed, "it was cut off or changed"),
        (&newer, "its form has the number 9"),
        (b"[server]\n", "it does not begin like a file of `ringway capture`"),
    ] {
        fs::write(&path, content).unwrap();
        for command in ["verify", "run"] {
            let file = plugin("hostile-constructor");
            let arguments = ["plugin", command, file.to_str().unwrap(), "--frames", path.to_str().unwrap()];
            let (code, out, err) = run(&arguments, &[("RINGWAY_HOSTILE_FILE", trace.to_str().unwrap())]);
            assert!(code == 1 && out.is_empty() && err.contains("the frames cannot be used") && err.contains(why), "{command}: {code} {out}{err}");
        }
    }
    assert!(!trace.exists(), "no code of it ran");
    let file = plugin("request-id");
    let (code, _, err) = run(&["plugin", "verify", file.to_str().unwrap(), "--frames", "/nowhere/x.frames"], &[]);
    assert!(code == 1 && err.contains("the frames cannot be read"), "{err}");
}
