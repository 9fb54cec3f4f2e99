//! The contrast that justifies the view: the same hook fed by serialized copies of the request.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use ringway_benches::chains::Worker;
use ringway_benches::formats::{Buffers, FORMS};
use ringway_benches::inputs::{BROWSER_20, GET_8};
use ringway_benches::slots::Received;

pub fn formats(c: &mut Criterion) {
    let worker = Worker::new(&["bench-lookup-c"]);
    let mut buffers = Buffers::default();
    let mut group = c.benchmark_group("one plugin hop");
    for input in [GET_8, BROWSER_20] {
        let mut received = Received::new(&worker.slab, input);
        received.parse_request(&worker.names);
        let mut frame = worker.frame();
        frame.set_request(received.request());
        frame.begin(&worker.shared, &worker.chain_of(1, "bench-lookup-c"));
        group.bench_function(BenchmarkId::new("view in place", input.name), |b| b.iter(|| black_box(&mut frame).run_request(0)));
        let message = received.request();
        for (name, form) in FORMS {
            group.bench_function(BenchmarkId::new(name, input.name), |b| b.iter(|| form(&mut buffers, black_box(message.request()))));
        }
    }
}
