//! Plugins: what is read from a file before any of its code runs, loading, chains.

pub mod elf;
pub mod inspect;
