//! Links that do on demand what a request tells them in `x-act`: see actor.c.

use super::{Outcome, World};

/// Actors A, B and C.
pub fn actors() -> World {
    actors_with("closed", "")
}

/// Actors with this `on_error`, and more of a configuration before them.
pub fn actors_with(on_error: &str, more: &str) -> World {
    let plugin = |tag: &str| format!("[[plugin]]\nname = \"{tag}\"\npath = \"{{actor}}\"\non_error = \"{on_error}\"\n[plugin.config]\ntag = \"{tag}\"\n");
    let text = format!("{more}{}{}{}", plugin("A"), plugin("B"), plugin("C"));
    World::new(&format!("{text}[[route]]\npath = \"/\"\nupstream = \"app\"\nplugins = [\"A\", \"B\", \"C\"]\n"))
}

/// A request without a body.
pub fn get(act: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: e\r\nx-act: {act}\r\n\r\n")
}

/// A request with a body.
pub fn post(act: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: e\r\nContent-Length: {}\r\nx-act: {act}\r\n\r\n{body}", body.len())
}

/// A metric of each actor.
pub fn counts(outcome: &Outcome, metric: usize) -> Vec<u64> {
    outcome.metrics.iter().map(|of_plugin| of_plugin[metric]).collect()
}

// The metrics of an actor, in the order of actor.c.
pub const REQUEST_CHUNKS: usize = 1;
pub const RESPONSE: usize = 3;
pub const DONE: usize = 5;
pub const DONE_STATUS: usize = 6;
pub const REQUEST_BYTES: usize = 7;
pub const RESPONSE_BYTES: usize = 8;
pub const DIRTY: usize = 9;
pub const EVENT: usize = 10;
pub const EVENT_KIND: usize = 11;
pub const EVENT_TOKEN: usize = 12;
pub const EVENT_FAILURE: usize = 13;
pub const DONE_BYTES: usize = 14;
