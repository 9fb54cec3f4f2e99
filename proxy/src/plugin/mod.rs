//! Plugins: what is read from a file before any of its code runs, loading, chains, hooks, the host table.
//!
//! [`elf`] and [`inspect`] decide from the file alone, [`loaded`] opens it, [`chain`] orders the links of a route and plans
//! their cost, [`frame`] runs the hooks of an exchange, [`host`] is what plugins call, [`maps`] what they share and keep, [`times`] how long hooks take. Must not: do input or output on
//! connections.

mod arena;
pub mod chain;
pub mod elf;
pub mod frame;
pub mod host;
pub mod inspect;
pub mod loaded;
pub mod maps;
pub mod running;
pub mod times;
