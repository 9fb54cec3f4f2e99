//! The criterion benches, in one program: linking the gateway takes longer than most of them.
//!
//! `cargo bench -p ringway-benches --bench data_path -- FILTER` runs those whose name holds FILTER.

mod edits;
mod formats;
mod head;
mod hooks;
mod maps;
mod route;
mod write;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Short runs: the counts in `instructions.txt` are what changes are judged by.
fn short() -> Criterion {
    Criterion::default().sample_size(40).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700)).without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets = head::requests, head::responses, head::chunked, hooks::calls, hooks::counters, hooks::post_hooks, hooks::exchanges, edits::edits,
        write::heads, write::made, route::route, formats::formats, maps::calls
}
criterion_main!(benches);
