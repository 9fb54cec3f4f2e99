//! HTTP/1.x: bytes in, offsets out.
//!
//! - [`head`] parses a request or response head and writes the view's entries and root while it does so;
//! - [`chunked`] takes the chunked coding off a body, in any pieces;
//! - [`mod@write`] lays out the head that is forwarded;
//! - [`target`] normalises paths and checks authorities;
//! - [`names`] gives header names their ids; [`bytes`] holds the byte classes that all of them share.
//!
//! Must not: know sockets, clocks, the runtime or plugins; allocate (building a [`names::NameTable`] excepted); hold unsafe code
//! outside `simd`. What it does about each rule of HTTP/1.1 stands in `proxy/docs/http1.md`, with the test that shows it.

mod bits;
pub mod bytes;
pub mod chunked;
mod connection;
pub mod entry_set;
mod fields;
mod framing;
pub mod head;
pub mod names;
mod request;
mod response;
mod simd;
pub mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod write;
