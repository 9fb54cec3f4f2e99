//! Maps: memory of the gateway that plugins count and remember in, which outlives their versions.
//!
//! [`shape`] checks definitions and lays the words out, [`memory`] has the words, [`lock`] keeps values whole, [`map`] is a map
//! with its entries (`table` those with keys, `ring` records for readers), [`mod@file`] opens the file of a pinned one, [`store`] finds the map of a new
//! version, [`calls`] is the table that plugins get. The contract is `ringway.h` §7 and SPEC.md S-86 to S-98.
//!
//! Invariants: every word of a map is atomic and reached through a bounds-checked slice, so no content of a file and no race
//! can lead outside of it; links between entries are never taken from a file, they are made again from its keys when it is
//! opened. Must not: allocate or wait in a call of a plugin.

pub mod calls;
pub mod fields;
pub mod file;
pub mod lock;
pub mod map;
pub mod memory;
mod ring;
pub mod shape;
pub mod store;
mod table;
#[cfg(test)]
mod tests;

pub use map::{Map, MapError};
pub use shape::{MapKind, MapShape};
pub use store::MapStore;
