//! What the admin listener answers: reads from the board, changes from the main thread.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::board::Board;
use super::server::{Answer, Request};
use super::{Change, Order, Refusal, capture, edit, maps, metrics, show};
use crate::config::{MapPolicy, OnError};
use crate::plugin::times::SAMPLE_EVERY;
use crate::run::Event;
use crate::worker::program::Share;

/// How long a change may take before its caller is told to look at the log.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the admin listener of a process may go on after another one has taken over.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at it.
const LISTENER_LOOK: Duration = Duration::from_millis(10);

/// The body of a request that loads a plugin.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    path: Option<PathBuf>,
    config: Option<serde_json::Map<String, serde_json::Value>>,
    on_error: Option<String>,
    verify: Option<bool>,
    routes: Vec<String>,
    maps: Option<MapPolicy>,
    canary: Option<Trial>,
}

/// Which exchanges get a version that is on trial.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Trial {
    Percent(u32),
    Worker(u32),
}

/// The answer to a request.
pub fn answer(request: &Request, board: &Board, events: &mpsc::Sender<Event>) -> Answer {
    if let Some(answer) = maps::answer(request, board) {
        return answer;
    }
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("GET" | "HEAD", reading) => match read(reading, board) {
            Some(answer) => answer,
            None if writing(reading).is_some() => not_allowed(reading),
            None => Answer::error(404, "there is nothing here; see docs/admin.md"),
        },
        ("POST", ["api", "capture"]) => capture::answer(&request.body, board, events),
        ("POST", ["api", "upgrade"]) => upgrade(&request.body, board, events),
        (method, parts) => match change(method, parts, request) {
            Ok(Some(change)) => carry_out(change, events),
            Ok(None) if read(parts, board).is_some() || writing(parts).is_some() => not_allowed(parts),
            Ok(None) => Answer::error(404, "there is nothing here; see docs/admin.md"),
            Err(refusal) => Answer::error(refusal.status, &refusal.text),
        },
    }
}

fn read(parts: &[&str], board: &Board) -> Option<Answer> {
    let snapshot = board.snapshot();
    Some(match parts {
        ["healthz"] => Answer::json(200, &json!({ "status": "alive" })),
        ["readyz"] if !board.is_ready() => Answer::json(503, &json!({ "status": "draining" })),
        ["readyz"] => Answer::json(200, &json!({ "status": "ready" })),
        ["metrics"] => {
            Answer { status: 200, media_type: "text/plain; version=0.0.4; charset=utf-8", allow: None, body: metrics::text(board, &snapshot).into_bytes() }
        }
        ["api", "plugins"] => Answer::json(200, &show::plugins(board, &snapshot)),
        ["api", "plugins", name] => match show::named(board, &snapshot, name) {
            Some(plugin) => Answer::json(200, &plugin),
            None => Answer::error(404, &format!("there is no plugin `{name}`")),
        },
        ["api", "stats"] => Answer::json(200, &json!({ "stats": snapshot.timing, "sample_every": SAMPLE_EVERY })),
        ["api", "chains"] => Answer::json(200, &show::chains(&snapshot)),
        ["api", "upstreams"] => Answer::json(200, &show::upstreams(&snapshot)),
        ["api", "config"] => Answer::json(200, &show::config(&snapshot)),
        ["api", "crashes"] => Answer::json(200, &json!({ "restarts": board.restarts, "crashes": *board.crashes() })),
        _ => return None,
    })
}

/// The methods that change what is at this path.
fn writing(parts: &[&str]) -> Option<&'static str> {
    match parts {
        ["api", "capture" | "reload" | "upgrade"] | ["api", "stats", "on" | "off"] | ["api", "plugins", _, "promote" | "rollback" | "disable" | "enable"] => {
            Some("POST")
        }
        ["api", "plugins", _] => Some("GET, POST, PUT, DELETE"),
        _ => None,
    }
}

fn not_allowed(parts: &[&str]) -> Answer {
    let allow = writing(parts).unwrap_or("GET");
    Answer { allow: Some(allow), ..Answer::error(405, &format!("the methods here are: {allow}")) }
}

fn change(method: &str, parts: &[&str], request: &Request) -> Result<Option<Change>, Refusal> {
    Ok(Some(match (method, parts) {
        ("POST", ["api", "reload"]) => Change::Reload,
        ("POST" | "PUT", ["api", "plugins", name]) => load(name, method == "PUT", &request.body)?,
        ("POST", ["api", "stats", "on"]) => Change::Stats(true),
        ("POST", ["api", "stats", "off"]) => Change::Stats(false),
        ("POST", ["api", "plugins", name, "promote"]) => Change::Promote((*name).into()),
        ("POST", ["api", "plugins", name, "rollback"]) => Change::Rollback((*name).into()),
        ("POST", ["api", "plugins", name, "disable"]) => Change::Disable((*name).into()),
        ("POST", ["api", "plugins", name, "enable"]) => Change::Enable((*name).into()),
        ("DELETE", ["api", "plugins", name]) => {
            let force = match request.query.as_str() {
                "" | "force=false" => false,
                "force" | "force=true" => true,
                other => return Err(Refusal::new(400, format!("`{other}` is unknown; only `force` is"))),
            };
            Change::Unload { name: (*name).into(), force }
        }
        _ => return Ok(None),
    }))
}

fn load(name: &str, replaces: bool, body: &[u8]) -> Result<Change, Refusal> {
    let wanted: Wanted = match body {
        [] => Wanted::default(),
        body => serde_json::from_slice(body).map_err(|error| Refusal::new(400, format!("the body is not what is expected: {error}")))?,
    };
    let on_error = match &wanted.on_error {
        None => OnError::Closed,
        Some(text) => edit::on_error(text).ok_or_else(|| Refusal::new(400, "`on_error` is \"closed\" or \"open\""))?,
    };
    let canary = match wanted.canary {
        None => None,
        Some(Trial::Percent(percent @ 1..=99)) => Some(Share::Percent(percent)),
        Some(Trial::Percent(_)) => return Err(Refusal::new(400, "`canary.percent` is a number from 1 to 99")),
        Some(Trial::Worker(worker)) => Some(Share::Worker(worker)),
    };
    let config = wanted.config.map(|config| json!(config).to_string());
    Ok(Change::Load {
        name: name.into(),
        path: wanted.path,
        config,
        on_error,
        verify: wanted.verify,
        routes: wanted.routes,
        maps: wanted.maps,
        replaces,
        canary,
    })
}

/// The body of a request for another program.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WantedProgram {
    binary: Option<PathBuf>,
    force: bool,
}

fn upgrade(body: &[u8], board: &Board, events: &mpsc::Sender<Event>) -> Answer {
    let wanted: WantedProgram = match body {
        [] => WantedProgram::default(),
        body => match serde_json::from_slice(body) {
            Ok(wanted) => wanted,
            Err(error) => return Answer::error(400, &format!("the body is not what is expected: {error}")),
        },
    };
    let answer = ask(|reply| Event::Upgrade { binary: wanted.binary, force: wanted.force, reply }, events);
    // Whoever hears that another process serves is answered by that one from then on.
    let deadline = Instant::now() + LISTENER_TIMEOUT;
    while answer.status == 200 && !board.admin_ended.load(Ordering::Relaxed) && Instant::now() < deadline {
        thread::sleep(LISTENER_LOOK);
    }
    answer
}

fn carry_out(change: Change, events: &mpsc::Sender<Event>) -> Answer {
    ask(|reply| Event::Order(Order { change, reply }), events)
}

/// Has the main thread do something, and waits for the outcome.
fn ask(event: impl FnOnce(mpsc::Sender<Result<serde_json::Value, Refusal>>) -> Event, events: &mpsc::Sender<Event>) -> Answer {
    let (reply, outcome) = mpsc::channel();
    if events.send(event(reply)).is_err() {
        return Answer::error(503, "the gateway is ending");
    }
    match outcome.recv_timeout(CHANGE_TIMEOUT) {
        Ok(Ok(value)) => Answer::json(200, &value),
        Ok(Err(refusal)) => Answer::error(refusal.status, &refusal.text),
        Err(mpsc::RecvTimeoutError::Timeout) => Answer::error(503, "the change takes long; its outcome will stand in the log"),
        Err(mpsc::RecvTimeoutError::Disconnected) => Answer::error(503, "the gateway is ending"),
    }
}
