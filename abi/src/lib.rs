//! The Ringway plugin ABI in Rust.
//!
//! [`view`] holds the archived messages that plugins read: they *are* the bytes that `include/ringway.h` describes and at
//! the same time rkyv archives. [`owned`] holds the twins that serialize into the same layout. [`ids`] holds header and
//! method ids. [`raw`] mirrors the C structs of the contract: host table, descriptor, note, events; [`maps`] those of the
//! extension for maps.
//!
//! [`wait`] and [`outcall`] mirror the extensions of `include/ringway-wait.h` and `include/ringway-outcall.h`.
//!
//! The header `include/ringway.h` is the written truth; `layout-1.0.txt` holds the frozen offsets, and the tests of this
//! crate compare what the C, Rust and Zig compilers print with it.
//!
//! Must not: allocate in `view`, `ids`, `raw` or `maps`; depend on anything but rkyv.
#![no_std]

extern crate alloc;

pub mod ids;
pub mod maps;
pub mod outcall;
pub mod owned;
pub mod raw;
pub mod view;
pub mod wait;

pub use owned::{Header, HeaderName, Request, Response};
pub use view::{HeaderView, NameSpan, RequestView, ResponseView, Seq, Span};
