//! Views: the memory that messages live in and the archived roots that plugins read.
//!
//! [`slab`] owns the memory of one worker and hands out slots; [`message`] is one message in one slot: received bytes,
//! view, edits; [`record`] copies a message out of its slot. None of them knows sockets, clocks or the runtime.

pub mod message;
pub mod record;
pub mod slab;
