//! The control plane: what an operator sees and changes while traffic flows.
//!
//! [`control`] runs on the main thread and makes every change: verify, load, publish to all workers, or nothing changed;
//! [`orders`] are the changes that wait for their turn, or for names.
//! [`board`] is what it shows, replaced whole after each change. [`server`] is the listener, on threads of its own; `api`
//! answers requests from the board or hands a change to the main thread; `metrics` and `show` write what is read; `edit`
//! changes configurations; [`plugins`] opens plugin files; [`maps`] shows and writes what plugins keep; [`status`] says what a plugin is; `mappings` finds libraries that stayed.
//!
//! Must not: run on a worker, or hold a plugin on any thread but the main one (its `unload` belongs there).

mod api;
pub mod board;
mod capture;
pub mod control;
mod edit;
mod fixed;
pub mod former;
mod mappings;
pub mod maps;
mod metrics;
pub mod orders;
pub mod plugins;
pub mod server;
mod show;
pub mod status;
pub mod upgrade;

pub use control::{Change, Order, Refusal};
