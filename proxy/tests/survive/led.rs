//! One gateway process, led by the test in the place of a supervisor: what it does at which word.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use crate::crash::telling;
use crate::gateway::*;

/// Long enough that an answer to the wrong word would come, in most runs.
const SILENCE: Duration = Duration::from_millis(300);

struct Led {
    child: Child,
    control: Option<BufReader<UnixStream>>,
    address: String,
    admin: String,
    _origin: Origin,
}

impl Led {
    fn start(waits: bool) -> Led {
        let origin = telling();
        let (listener, admin) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, admin_address] = [&listener, &admin].map(|socket| socket.local_addr().unwrap().to_string());
        let (control, theirs) = UnixStream::pair().unwrap();
        let (_, record) = std::io::pipe().unwrap();
        // A process of another test may inherit them as well, which disturbs nobody.
        for socket in [listener.as_fd(), admin.as_fd(), theirs.as_fd(), record.as_fd()] {
            fcntl_setfd(socket, FdFlags::empty()).unwrap();
        }
        let made = config().listen(&address).server(&format!("admin = {admin_address:?}")).to(&[origin.address()]);
        let brief = json!({
            "protocol": 1, "path": "gateway.toml", "text": made.text(), "standings": { "disabled": [], "quarantined": {} }, "crashes": [], "restarts": 0,
            "listeners": [{ "address": address, "fds": [listener.as_raw_fd()] }], "admin": { "address": admin_address, "fds": [admin.as_raw_fd()] },
            "record": record.as_raw_fd(), "waits": waits,
        });
        let child = ringway(&["gateway", "--control", &theirs.as_raw_fd().to_string()]).stderr(Stdio::null()).spawn().unwrap();
        control.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut led = Led { child, control: Some(BufReader::new(control)), address, admin: admin_address, _origin: origin };
        led.say(&brief);
        led
    }

    fn say(&mut self, what: &Value) {
        self.control.as_mut().unwrap().get_mut().write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    /// The name of what it says next.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.control.as_mut().unwrap().read_line(&mut line).unwrap();
        match serde_json::from_str(&line).unwrap() {
            Value::String(name) => name,
            Value::Object(said) => said.keys().next().unwrap().clone(),
            other => panic!("{other}"),
        }
    }

    fn code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request that waits in the backlog.
fn ask(address: &str, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    client
}

fn is_silent(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(SILENCE)).unwrap();
    client.read(&mut [0; 1]).is_err()
}

fn status(client: &mut TcpStream) -> String {
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer.chars().take("HTTP/1.1 200".len()).collect()
}

#[test]
fn a_process_does_what_it_is_told_when_it_is_told() {
    let mut led = Led::start(true);
    assert_eq!(led.hear(), "Loaded");
    let (mut client, mut operator) = (ask(&led.address, "/"), ask(&led.admin, "/healthz"));
    assert!(is_silent(&mut client) && is_silent(&mut operator), "it is only loaded");
    led.say(&json!("Serve"));
    assert_eq!([led.hear(), led.hear()], ["InForce", "Ready"]);
    assert_eq!(status(&mut client), "HTTP/1.1 200");
    assert!(is_silent(&mut operator), "another one takes orders");
    led.say(&json!("InCharge"));
    assert_eq!(led.hear(), "InForce");
    assert_eq!(status(&mut operator), "HTTP/1.1 200");
    led.say(&json!({ "HandOver": { "successor": 1 } }));
    assert_eq!(led.code(), Some(0));
}

#[test]
fn a_process_that_nobody_wants_ends_without_having_served() {
    for end in ["the supervisor is gone", "SIGTERM", "HandOver"] {
        let mut led = Led::start(true);
        assert_eq!(led.hear(), "Loaded");
        let mut client = ask(&led.address, "/");
        match end {
            "SIGTERM" => signal(led.child.id(), libc::SIGTERM),
            "HandOver" => led.say(&json!({ "HandOver": { "successor": 1 } })),
            _ => drop(led.control.take()),
        }
        assert_eq!(led.code(), Some(0), "{end}");
        assert!(is_silent(&mut client), "{end}: nobody has accepted");
    }
}

#[test]
fn a_process_heeds_two_words_at_once_and_needs_none_of_an_older_supervisor() {
    let mut led = Led::start(true);
    assert_eq!(led.hear(), "Loaded");
    led.control.as_mut().unwrap().get_mut().write_all(b"\"Serve\"\n{\"HandOver\":{\"successor\":1}}\n").unwrap();
    assert_eq!([led.hear(), led.hear()], ["InForce", "Ready"]);
    assert_eq!(led.code(), Some(0));
    let mut led = Led::start(false);
    assert_eq!([led.hear(), led.hear()], ["InForce", "Ready"]);
    assert_eq!((status(&mut ask(&led.address, "/")), status(&mut ask(&led.admin, "/healthz"))), ("HTTP/1.1 200".into(), "HTTP/1.1 200".into()));
    drop(led.control.take());
    assert_eq!(led.code(), Some(0));
}
