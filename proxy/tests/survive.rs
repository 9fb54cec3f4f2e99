//! What the gateway survives, as the real binary: crashes of plugins, deaths of processes, another program in its place.
//!
//! By area: `changes` changes while another program takes over, `crash` the supervisor, crash records and quarantine, `led` what a process does at which word of its supervisor, `names` addresses that one process hands on to the next, `restart` what the next process runs, `slow` hooks that hold their worker, `upgrade` another program with the same sockets.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod gateway;

#[allow(dead_code, reason = "the tests of the control plane use the rest")]
#[path = "control/admin.rs"]
mod admin;
#[path = "survive/changes.rs"]
mod changes;
#[path = "survive/crash.rs"]
mod crash;
#[path = "survive/led.rs"]
mod led;
#[path = "survive/names.rs"]
mod names;
#[path = "survive/restart.rs"]
mod restart;
#[path = "survive/slow.rs"]
mod slow;
#[path = "survive/upgrade.rs"]
mod upgrade;
