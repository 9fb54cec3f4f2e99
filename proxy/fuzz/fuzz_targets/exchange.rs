//! Whole exchanges over scripted connections: any bytes from the client and from the upstream, in random pieces. Nothing panics or waits
//! for ever, no byte of a refused request reaches an upstream, and both sides receive well-formed messages.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/mod.rs"]
mod support;

fuzz_target!(|input: &[u8]| support::fuzz::exchange(input));
