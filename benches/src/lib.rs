//! Named inputs and microbenchmarks of the Ringway data path.
//!
//! The benches in `benches/benches` and the counter in `src/bin/count.rs` measure the same things on the same inputs:
//! - [`inputs`]: heads and bodies, each with a name and a fixed size;
//! - [`slots`]: slots as a worker lays them out, and messages parsed into them;
//! - [`chains`]: plugins loaded from their `.so`, chains of them, a frame that runs them;
//! - [`edits`]: edits as a hook makes them;
//! - [`exchange`]: all that one exchange does, without its input and output;
//! - [`formats`]: the same hook fed by serialized copies of a request instead of the view.
//!
//! Must not: measure anything itself; reach into the gateway beyond its public items.
//! The plugins are those that `plugins/build` leaves in `target/plugins`.

pub mod chains;
pub mod edits;
pub mod exchange;
pub mod formats;
pub mod inputs;
pub mod slots;
