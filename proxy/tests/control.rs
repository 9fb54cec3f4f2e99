//! The control plane of the real binary: the admin listener, changes while traffic flows, the commands that ask for them.
//!
//! By area: `api` every endpoint and what it refuses, `reload` configurations, `names` servers that are named, `maps` what plugins keep, `swap` plugins under load and the life of
//! their versions, `canary` versions on trial, `capture` copies of exchanges, `policy` panics, `stats` times, `command` what `ringway plugin`, `chain` and `reload` print,
//! `waiting` plugins that wait, `outcall` plugins that ask an upstream.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod gateway;

#[path = "control/admin.rs"]
mod admin;
#[path = "control/api.rs"]
mod api;
#[path = "control/canary.rs"]
mod canary;
#[path = "control/capture.rs"]
mod capture;
#[path = "control/command.rs"]
mod command;
#[path = "control/maps.rs"]
mod maps;
#[path = "control/names.rs"]
mod names;
#[path = "control/outcall.rs"]
mod outcall;
#[path = "control/policy.rs"]
mod policy;
#[path = "control/reload.rs"]
mod reload;
#[path = "control/stats.rs"]
mod stats;
#[path = "control/swap.rs"]
mod swap;
#[path = "control/waiting.rs"]
mod waiting;
