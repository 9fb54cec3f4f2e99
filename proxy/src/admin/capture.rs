//! `POST /api/capture`: copies of the next exchanges, as a file of frames.
//!
//! Owns: the order of a capture, one at a time, and what is kept out of the file. The workers copy their slots as they lie
//! ([`crate::exchange::capture`]); here, on a thread of the admin listener, each copy is checked, reduced to what its spans lead to, and
//! redacted before anyone gets it.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringway_abi::owned::{Request as OwnedRequest, Response as OwnedResponse};
use ringway_abi::{RequestView, ResponseView};
use rkyv::rancor::Error;
use serde::Deserialize;

use super::board::Board;
use super::server::Answer;
use crate::clock;
use crate::exchange::capture::{Capture, Taken};
use crate::limits::{CAPTURE_EXCHANGES, CAPTURE_EXCHANGES_MAX, CAPTURE_MS, CAPTURE_MS_MAX, duration};
use crate::run::Event;
use crate::verify::frames::{self, Captured};
use crate::view::record;

/// After the deadline workers have so long to notice it: they look with every tick.
const GRACE: Duration = Duration::from_secs(5);

/// The body of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    frames: Option<u32>,
    route: Option<String>,
    timeout: Option<String>,
    keep_secrets: bool,
}

/// Captures and answers with the file.
pub(super) fn answer(body: &[u8], board: &Board, events: &mpsc::Sender<Event>) -> Answer {
    match capture(body, board, events) {
        Ok(file) => Answer { status: 200, media_type: "application/octet-stream", allow: None, body: file },
        Err((status, text)) => Answer::error(status, &text),
    }
}

fn capture(body: &[u8], board: &Board, events: &mpsc::Sender<Event>) -> Result<Vec<u8>, (u16, String)> {
    let wanted: Wanted = match body {
        [] => Wanted::default(),
        body => serde_json::from_slice(body).map_err(|error| (400, format!("the body is not what is expected: {error}")))?,
    };
    let count = wanted.frames.unwrap_or(CAPTURE_EXCHANGES);
    if !(1..=CAPTURE_EXCHANGES_MAX).contains(&count) {
        return Err((400, format!("`frames` is a number from 1 to {CAPTURE_EXCHANGES_MAX}")));
    }
    let timeout_ms = wanted.timeout.map_or(Ok(CAPTURE_MS), |text| duration::parse(&text)).map_err(|why| (400, format!("`timeout`: {why}")))?;
    if !(1..=CAPTURE_MS_MAX).contains(&timeout_ms) {
        return Err((400, format!("`timeout` is at most {}", duration::text(CAPTURE_MS_MAX))));
    }
    if let Some(route) = &wanted.route {
        let snapshot = board.snapshot();
        let names: Vec<&str> = snapshot.config.routes.iter().map(|known| known.name.as_str()).collect();
        if !names.contains(&route.as_str()) {
            return Err((404, format!("there is no route `{route}`; the routes are: {}", names.join(", "))));
        }
    }
    if board.capturing.swap(true, Ordering::Relaxed) {
        return Err((409, "a capture is under way; there is one at a time".into()));
    }
    let taken = gather(wanted.route, count, timeout_ms, events);
    board.capturing.store(false, Ordering::Relaxed);
    let (taken, skipped) = (taken?, |taken: &[Taken]| taken.iter().map(|taken| taken.skipped).sum::<u32>());
    let mut exchanges = exchanges(&taken).ok_or_else(|| (500, "a copy of an exchange is damaged".to_owned()))?;
    tracing::info!(exchanges = exchanges.len(), skipped = skipped(&taken), keep_secrets = wanted.keep_secrets, "captured");
    if exchanges.is_empty() {
        let room = if skipped(&taken) > 0 { "; none of those that did found room" } else { "" };
        return Err((404, format!("no exchange ended within {}{room}", duration::text(timeout_ms))));
    }
    if !wanted.keep_secrets {
        exchanges.iter_mut().for_each(Captured::redact);
    }
    frames::write(&exchanges, wanted.keep_secrets).map_err(|why| (500, why))
}

/// What all workers have taken.
fn gather(route: Option<String>, count: u32, timeout_ms: u32, events: &mpsc::Sender<Event>) -> Result<Vec<Taken>, (u16, String)> {
    let capture = Arc::new(Capture::new(route, count, clock::monotonic_ms() + u64::from(timeout_ms)));
    let (to, from) = mpsc::channel();
    events.send(Event::Capture(Arc::clone(&capture), to)).map_err(|_| (503, "the gateway is ending".to_owned()))?;
    let deadline = Instant::now() + Duration::from_millis(u64::from(timeout_ms)) + GRACE;
    let mut taken = Vec::new();
    // It ends with the last worker, which drops the last sender.
    while let Ok(more) = from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        taken.push(more);
    }
    capture.end();
    Ok(taken)
}

/// The exchanges in what was taken; `None` when it is not what workers write.
fn exchanges(taken: &[Taken]) -> Option<Vec<Captured>> {
    let mut found = Vec::new();
    for taken in taken {
        let mut from = taken.bytes.as_slice();
        for _ in 0..taken.count {
            let archive = record::read(&mut from)?;
            let request: OwnedRequest = rkyv::deserialize::<_, Error>(rkyv::access::<RequestView, Error>(&archive).ok()?).ok()?;
            let answered = u32::from_le_bytes(*from.split_off(..4)?.first_chunk()?) != 0;
            let response = match answered {
                true => {
                    let archive = record::read(&mut from)?;
                    let response: OwnedResponse = rkyv::deserialize::<_, Error>(rkyv::access::<ResponseView, Error>(&archive).ok()?).ok()?;
                    Some(response)
                }
                false => None,
            };
            found.push(Captured { request, response });
        }
    }
    // Each worker has its own order; ids of requests do not tell one between workers, times do.
    found.sort_by_key(|captured| captured.request.received_unix_ns);
    Some(found)
}
