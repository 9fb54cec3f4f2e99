//! What these tests share: a gateway with an admin listener, requests to it, and the versions of a plugin.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::gateway::*;

/// A running gateway with its admin address.
pub struct Governed {
    pub gateway: Gateway,
    pub admin: String,
}

impl Governed {
    /// Starts it with `admin` on a free port.
    pub fn start(made: Config) -> Governed {
        Governed::launch(Launch::default(), made.server("admin = \"127.0.0.1:0\""))
    }

    pub fn launch(launch: Launch, made: Config) -> Governed {
        let gateway = launch.start(&made);
        let line: Value = serde_json::from_str(&gateway.wait_for("\"admin listening\"")).unwrap();
        Governed { admin: line["address"].as_str().unwrap().to_owned(), gateway }
    }

    pub fn address(&self) -> &str {
        self.gateway.address()
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        self.gateway.folder.path().join("gateway.toml")
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> Response {
        let mut client = Client::connect(&self.admin);
        client.send(format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        client.response()
    }

    /// A request that must be answered with 200; its JSON.
    pub fn good(&self, method: &str, path: &str, body: &str) -> Value {
        let response = self.ask(method, path, body);
        assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
        serde_json::from_slice(&response.body).unwrap()
    }

    /// A request that must be refused; its status and reason.
    pub fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let response = self.ask(method, path, body);
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        assert_ne!(response.status, 200, "{method} {path}: {answer}");
        (response.status, answer["error"].as_str().unwrap().to_owned())
    }

    /// The value of a sample of /metrics, `name{labels}` as it stands there.
    pub fn metric(&self, sample: &str) -> Option<u64> {
        let text = self.ask("GET", "/metrics", "").text();
        text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    /// What the plugin shows in a response that begins now, on a connection of its own: (pre, post).
    pub fn versions(&self) -> (String, String) {
        versions(&get(self.address(), "/"))
    }
}

pub fn versions(response: &Response) -> (String, String) {
    let header = |name: &str| response.header(name).unwrap_or_default().to_owned();
    (header("x-saw-pre"), header("x-post"))
}

/// An origin that answers with the version that it saw in the request, and echoes the target.
pub fn origin() -> Origin {
    Origin::answering(|request| {
        let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
        reply(200, &[("x-saw-pre", &header("x-pre")), ("x-saw-order", &header("x-order"))], &request.target)
    })
}

/// A version of the C plugin, compiled into `folder`.
pub fn versioned(folder: &Path, version: &str, flags: &[&str]) -> String {
    compiled(folder, "versioned", version, flags)
}

/// `NAME.c` of this folder, compiled into `folder`.
pub fn compiled(folder: &Path, name: &str, version: &str, flags: &[&str]) -> String {
    let source = &format!("{}/tests/control/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/../abi/include");
    let output = folder.join(format!("{name}-{version}.so")).display().to_string();
    let mut command = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
    command.args(["-O2", "-fPIC", "-shared", "-fvisibility=hidden", include, &format!("-DVERSION=\"{version}\"")]);
    let status = command.args(flags).args(["-o", &output, source]).status().unwrap();
    assert!(status.success());
    output
}

/// A gateway with `versioned` in its only route, in front of the origin.
pub fn with_versioned(file: &str, origin: &Origin) -> Config {
    config()
        .workers(2)
        .upstream("app", &[origin.address()], "")
        .with(&format!("[[plugin]]\nname = \"versioned\"\npath = {file:?}\n[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"versioned\"]"))
}
