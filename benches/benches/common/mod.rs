//! Settings that the criterion benches share.

use std::time::Duration;

use criterion::Criterion;

/// Short runs: the counts in `instructions.txt` are what changes are judged by.
pub fn short() -> Criterion {
    Criterion::default().sample_size(40).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700)).without_plots()
}
