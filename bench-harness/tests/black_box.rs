//! The real binary on loopback: origin, relay and load together, and what the load generator says of faults.
//! Runs end by a count of requests; every process is given a port by the kernel and says which.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringway-bench");

/// A server of this program, ended when the test ends.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let mut child = Command::new(PROGRAM).args(arguments).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().expect("the binary was built");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().rsplit(' ').next().expect("an address").to_owned();
        Server { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load(address: &str, path: &str, more: &[&str]) -> (Output, serde_json::Value) {
    let output = Command::new(PROGRAM)
        .args(["load", &format!("http://{address}{path}"), "-j", "--warm-up", "0s", "--timeout", "3s"])
        .args(more)
        .output()
        .expect("the binary was built");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report)
}

#[test]
fn every_request_through_the_relay_is_answered_and_counted() {
    let origin = Server::start(&["origin"]);
    let relay = Server::start(&["relay", "--to", &origin.address]);
    let cases = [("/0", "0"), ("/1k", "1024"), ("/64k", "65536"), ("/1m", "1048576"), ("/bytes/12345", "12345"), ("/chunked/50000", "50000")];
    for (path, bytes) in cases {
        for address in [&origin.address, &relay.address] {
            let (output, report) = load(address, path, &["-n", "300", "-c", "10", "--expect-bytes", bytes]);
            assert!(output.status.success(), "{path}: {output:?}");
            assert_eq!(report["answers"], 300, "{path}: {report}");
            assert_eq!(report["faults"]["closed"], 0, "{path}");
        }
    }
}

#[test]
fn request_bodies_are_read_and_the_connection_is_used_again() {
    let origin = Server::start(&["origin"]);
    let relay = Server::start(&["relay", "--to", &origin.address]);
    let (_, report) = load(&relay.address, "/1k", &["-n", "50", "-c", "2", "-m", "POST", "--body-bytes", "200000"]);
    assert_eq!((report["answers"].as_u64(), report["faults"]["closed"].as_u64()), (Some(50), Some(0)), "{report}");
    let chunked = ["-n", "20", "-c", "1", "-m", "POST", "-H", "Transfer-Encoding: chunked", "--body", "3\r\nabc\r\n0\r\n\r\n"];
    let (_, report) = load(&origin.address, "/0", &chunked);
    assert_eq!(report["answers"], 20, "{report}");
}

#[test]
fn an_open_loop_sends_what_is_due_and_no_more() {
    let origin = Server::start(&["origin"]);
    let (_, report) = load(&origin.address, "/0", &["-n", "200", "-c", "4", "--rate", "2000", "--threads", "2"]);
    assert_eq!(report["answers"], 200, "{report}");
    assert_eq!(report["unanswered"], 0, "{report}");
    let measured = report["measured_s"].as_f64().expect("a number");
    assert!(measured >= 0.09, "200 requests at 2,000/s take 0.1 s, not {measured}");
}

#[test]
fn a_stall_shows_in_the_open_loop_latency() {
    let origin = Server::start(&["origin"]);
    // One connection, 50 ms an answer, due every 10 ms: the k-th request waits 40 ms longer than the one before.
    let (_, report) = load(&origin.address, "/delay/50", &["-n", "10", "-c", "1", "--rate", "100"]);
    let p90 = report["latency_us"]["p90"].as_f64().expect("a number");
    assert!(p90 >= 350_000.0, "the ninth request waited 8 * 40 ms + 50 ms, not {p90} µs");
}

#[test]
fn faults_are_told_apart() {
    let origin = Server::start(&["origin"]);
    let cases = [
        ("/fault/close", "closed"),
        ("/fault/truncate", "closed"),
        ("/fault/reset", "closed"),
        ("/fault/garbage", "malformed"),
        ("/status/503", "wrong_status"),
    ];
    for (path, kind) in cases {
        let (output, report) = load(&origin.address, path, &["-n", "5", "-c", "1"]);
        assert!(!output.status.success(), "{path} has no right answer");
        assert_eq!((report["faults"][kind].as_u64(), report["answers"].as_u64()), (Some(5), Some(0)), "{path}: {report}");
    }
    let (_, report) = load(&origin.address, "/1k", &["-n", "5", "-c", "1", "--expect-bytes", "1025"]);
    assert_eq!(report["faults"]["wrong_length"], 5, "{report}");
    let (_, report) = load(&origin.address, "/fault/hang", &["-n", "1", "-c", "1", "--timeout", "200ms"]);
    assert_eq!(report["faults"]["timeout"], 1, "{report}");
}

#[test]
fn a_wrong_command_line_says_what_would_be_right() {
    let run = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).output().expect("the binary was built");
    let output = run(&["compare", "--scenario", "nothing"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("0b-c64"), "{text}");
    let output = run(&["compare", "--peers", "nothing"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("haproxy-http"));
    let output = run(&["compare", "--list"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("workers-0b-c64"));
    let output = run(&["load", "ftp://x/"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("http://"));
}
