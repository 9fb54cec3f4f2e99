//! `ringway capture` and `POST /api/capture`: which exchanges, what of them, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ringway::verify::frames::{Frames, read};
use serde_json::{Value, json};

use crate::admin::*;
use crate::gateway::*;

const SECRETS: [&str; 4] = ["s3cret-token", "s3cret-proxy", "s3cret-cookie", "s3cret-body"];

/// Two workers, the routes `one` and `rest`; the origin sets a cookie.
fn two_routes() -> (Origin, Governed) {
    let origin = Origin::answering(|request| reply(200, &[("set-cookie", "id=s3cret-cookie")], &request.body));
    let made = config().workers(2).upstream("app", &[origin.address()], "");
    let routes = "[[route]]\nname = \"one\"\npath = \"/one/\"\nupstream = \"app\"\n[[route]]\nname = \"rest\"\nupstream = \"app\"";
    let governed = Governed::start(made.with(routes));
    (origin, governed)
}

/// Sends requests to both routes until `work` returns.
fn under_traffic<T: Send>(address: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let working = scope.spawn(work);
        for number in 0u64.. {
            if working.is_finished() {
                break;
            }
            // A connection of its own: each worker gets some.
            let mut client = Client::connect(address);
            for path in ["/one/a?b=c", "/two"] {
                client.send(format!(
                    "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer s3cret-token\r\nproxy-authorization: s3cret-proxy\r\ncookie: s3cret-cookie\r\n\
                     x-number: {number}\r\ncontent-length: 11\r\n\r\ns3cret-body"
                ));
                assert_eq!(client.response().text(), "s3cret-body");
            }
        }
        working.join().unwrap()
    })
}

/// Exit code, JSON of `-j`, what was said about problems.
fn capture(governed: &Governed, file: &Path, more: &[&str]) -> (i32, Value, String) {
    let arguments = [&["capture", "-j", "--admin", &governed.admin, "-o", file.to_str().unwrap()], more].concat();
    let output = ringway(&arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

fn holds(file: &[u8], text: &str) -> bool {
    file.windows(text.len()).any(|bytes| bytes == text.as_bytes())
}

#[test]
fn exchanges_of_a_route_are_captured_from_traffic_without_their_secrets() {
    let (_origin, governed) = two_routes();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.frames");
    // What anyone may read becomes a file that only its owner may read.
    fs::write(&file, "as it was").unwrap();
    let (code, said, err) = under_traffic(governed.address(), || capture(&governed, &file, &["--frames", "30", "--route", "one"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(said, json!({ "file": file, "exchanges": 30, "wanted": 30, "secrets_kept": false }));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    let bytes = fs::read(&file).unwrap();
    for secret in SECRETS {
        assert!(!holds(&bytes, secret), "{secret}");
    }
    let Frames { samples, secrets_kept } = read(&bytes).unwrap();
    assert!(!secrets_kept && samples.len() == 30);
    for (at, sample) in samples.iter().enumerate() {
        assert_eq!(sample.name, format!("#{} POST /one/a", at + 1));
        let head = String::from_utf8_lossy(&sample.request).into_owned();
        assert!(head.starts_with("POST /one/a?b=c HTTP/1.1\r\nhost: test\r\nauthorization: xxxxxxxxxxxxxxxxxxx\r\n"), "{head}");
        assert!(holds(sample.response.as_ref().unwrap(), "set-cookie: xxxxxxxxxxxxxxxx\r\n"));
        assert_eq!((&sample.request_body, &sample.response_body), (&vec![b"xxxxxxxxxxx".to_vec()], &vec![b"xxxxxxxxxxx".to_vec()]));
    }
    let bytes = under_traffic(governed.address(), || {
        assert_eq!(capture(&governed, &file, &["--frames", "2", "--keep-secrets"]).1["secrets_kept"], true);
        fs::read(&file).unwrap()
    });
    for secret in SECRETS {
        assert!(holds(&bytes, secret), "{secret}");
    }
    governed.gateway.stop();
}

#[test]
fn a_capture_ends_with_its_time_and_there_is_one_at_a_time() {
    let (_origin, governed) = two_routes();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.frames");
    thread::scope(|scope| {
        // Either may be first.
        let waiting = scope.spawn(|| {
            let mut response = governed.ask("POST", "/api/capture", r#"{"timeout":"1m","frames":1}"#);
            while response.status == 409 {
                response = governed.ask("POST", "/api/capture", r#"{"timeout":"1m","frames":1}"#);
            }
            response
        });
        eventually("a second one is refused", || governed.refused("POST", "/api/capture", r#"{"timeout":"1ms"}"#).0 == 409);
        while !waiting.is_finished() {
            get(governed.address(), "/");
        }
        let response = waiting.join().unwrap();
        assert_eq!((response.status, read(&response.body).unwrap().samples.len()), (200, 1));
    });
    let (code, _, err) = capture(&governed, &file, &["--timeout", "100ms"]);
    assert_eq!((code, err.as_str()), (1, "error: no exchange ended within 100ms\n\n"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left");
    // Fewer than were wanted are a good answer.
    let (code, said, _) = thread::scope(|scope| {
        let waiting = scope.spawn(|| capture(&governed, &file, &["--frames", "1000", "--timeout", "2s"]));
        while !waiting.is_finished() {
            get(governed.address(), "/");
            // Too few for what is wanted.
            thread::sleep(Duration::from_millis(20));
        }
        waiting.join().unwrap()
    });
    assert!(code == 0 && (1..1000).contains(&said["exchanges"].as_u64().unwrap()), "{said}");
    governed.gateway.stop();
}

#[test]
fn what_cannot_be_captured_is_refused() {
    let (_origin, governed) = two_routes();
    for (body, status, text) in [
        (r#"{"frames":0}"#, 400, "`frames` is a number from 1 to 1000"),
        (r#"{"frames":1001}"#, 400, "`frames` is a number from 1 to 1000"),
        (r#"{"timeout":"3m"}"#, 400, "`timeout` is at most 2m"),
        (r#"{"timeout":"off"}"#, 400, "`timeout` is at most 2m"),
        (r#"{"timeout":"soon"}"#, 400, "`timeout`: `soon` is no duration"),
        (r#"{"rout":"one"}"#, 400, "the body is not what is expected: unknown field `rout`"),
        (r#"{"route":"two"}"#, 404, "there is no route `two`; the routes are: one, rest"),
    ] {
        let (given, said) = governed.refused("POST", "/api/capture", body);
        assert!(given == status && said.starts_with(text), "{body}: {given} {said}");
    }
    assert_eq!(governed.refused("GET", "/api/capture", "").0, 405);
    let folder = tempfile::tempdir().unwrap();
    for (file, more, expected) in
        [("a.frames", &["--frames", "0"][..], 2), ("a.frames", &["--timeout", "1h"], 2), ("a.frames", &["--route", "two"], 1), ("nowhere/a.frames", &[], 1)]
    {
        let (code, _, err) = capture(&governed, &folder.path().join(file), more);
        assert!(code == expected && !err.is_empty(), "{more:?}: {code} {err}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left");
    governed.gateway.stop();
}
