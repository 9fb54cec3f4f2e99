//! What the tests of the exchange share: scripted connections, a worker around them, and a strict reader of what was sent.
//!
//! [`stream`] scripts one connection, [`upstreams`] hands scripted connections to exchanges, [`world`] builds a worker from a
//! configuration, [`case`] runs one conversation in many chunkings, [`wire`] reads messages independently of the gateway,
//! [`actors`] are links that do what a request tells them, [`fuzz`] is what must hold for any bytes.
//! Nothing here opens a socket or reads a clock: what has to wait is released by the executor in [`case`], step by step.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]
#![allow(missing_docs, reason = "test support; names and signatures say it")]

pub mod actors;
pub mod case;
pub mod fuzz;
pub mod stream;
pub mod upstreams;
pub mod wire;
pub mod world;

pub use case::{Case, Outcome};
pub use stream::Step;
pub use upstreams::{Fate, Upstream};
pub use world::World;
