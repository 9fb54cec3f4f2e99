//! What the black-box tests share: the real binary as a process, servers that can be told how to behave, clients that
//! send exactly the bytes they are given, and tools of other people (nginx, curl, …).
//!
//! Every wait has a deadline ([`DEADLINE`]); nothing sleeps to let something else happen first: [`eventually`] asks again.
//! All sockets are on loopback with ports that the kernel chose, all files in temporary folders.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(missing_docs, reason = "test support; names and signatures say it")]

mod client;
mod config;
mod names;
mod nginx;
mod origin;
mod process;
mod tools;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use client::{Client, Ended, Response, expect_refused, get, status_of};
pub use config::{Config, config};
pub use names::Names;
pub use nginx::Nginx;
pub use origin::{Behaviour, Origin, Received, reply, standard};
pub use process::{Gateway, Launch, Memory, memory_of, signal};
pub use tools::{client_script, go, node, optional, plugin, python, ringway, tool};

/// For anything that should happen at once; a busy machine may take its time.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until the answer is yes; fails with `what` at the deadline.
pub fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ask() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sets the flag that threads of a scope run by, also when the test fails before its end: else they would run for ever.
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread; the handle's panic is that of the test.
pub fn join<T>(handle: std::thread::JoinHandle<T>) -> T {
    match handle.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
