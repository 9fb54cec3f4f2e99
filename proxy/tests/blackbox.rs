//! The real binary on loopback, in front of servers that do what they are told, behind clients that send what they are told.
//!
//! By area: `serving` traffic of real programs, `plugins` chains and hostile plugins, `command` exit codes,
//! `malformed` bytes that are no request, `limits` deadlines and bounds, `upstreams` balancing, health, retries,
//! `clients` libraries of other languages, `logs` what they say and who may fill them, `leaving` clients that go away, `rules` rules of HTTP that need sockets or a clock. Tests with
//! thousands of connections are in `blackbox_heavy.rs`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod gateway;

#[path = "blackbox/clients.rs"]
mod clients;
#[path = "blackbox/command.rs"]
mod command;
#[path = "blackbox/leaving.rs"]
mod leaving;
#[path = "blackbox/limits.rs"]
mod limits;
#[path = "blackbox/logs.rs"]
mod logs;
#[path = "blackbox/malformed.rs"]
mod malformed;
#[path = "blackbox/plugins.rs"]
mod plugins;
#[path = "blackbox/rules.rs"]
mod rules;
#[path = "blackbox/serving.rs"]
mod serving;
#[path = "blackbox/upstreams.rs"]
mod upstreams;
