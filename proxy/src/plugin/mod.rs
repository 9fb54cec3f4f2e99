//! Plugins: what is read from a file before any of its code runs, loading, chains, hooks, the host table.
//!
//! [`elf`] and [`inspect`] decide from the file alone, [`loaded`] opens it, [`chain`] orders the links of a route and plans
//! their cost, [`frame`] runs the hooks of an exchange, [`host`] is what plugins call, [`maps`] what they share and keep, [`times`] how
//! long hooks take, [`wait`] what plugins wait for, [`waits`] who waits, [`wake`] how other threads wake them, [`outcall`] the requests that plugins send themselves. Must not: do input or output on
//! connections.

mod arena;
pub mod chain;
pub mod dry;
pub mod elf;
pub mod file;
pub mod frame;
pub mod host;
pub mod inspect;
pub mod loaded;
pub mod maps;
pub mod outcall;
pub mod running;
pub mod times;
pub mod wait;
pub mod waits;
pub mod wake;
