//! Outgoing heads: as received, after three edits, and of a response that a plugin made.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use ringway::plugin::frame::MadeBody;
use ringway_benches::chains::Worker;
use ringway_benches::edits::three;
use ringway_benches::exchange::{lay_out_made, write_request, write_response};
use ringway_benches::inputs::{BROWSER_20, GET_8, RESPONSES};
use ringway_benches::slots::Received;

pub fn heads(c: &mut Criterion) {
    let worker = Worker::new(&[]);
    let mut group = c.benchmark_group("outgoing head");
    for input in [GET_8, BROWSER_20] {
        let mut received = Received::new(&worker.slab, input);
        let facts = received.parse_request(&worker.names);
        let mut message = received.request();
        let head = facts.head_bytes as usize;
        group.bench_function(BenchmarkId::new("as received", input.name), |b| b.iter(|| write_request(black_box(&message), &received, head, &facts.dropped)));
        three(&mut message, &worker.names);
        group.bench_function(BenchmarkId::new("3 edits", input.name), |b| b.iter(|| write_request(black_box(&message), &received, head, &facts.dropped)));
    }
    for input in RESPONSES {
        let mut received = Received::new(&worker.slab, input);
        let facts = received.parse_response(&worker.names);
        let message = received.response();
        let head = facts.head_bytes as usize;
        group.bench_function(BenchmarkId::new("as received", input.name), |b| b.iter(|| write_response(black_box(&message), &received, head, &facts.dropped)));
    }
}

pub fn made(c: &mut Criterion) {
    let worker = Worker::new(&["bench-respond"]);
    let mut received = Received::new(&worker.slab, GET_8);
    received.parse_request(&worker.names);
    let chain = worker.chain_of(1, "bench-respond");
    let mut frame = worker.frame();
    let mut group = c.benchmark_group("response of a plugin");
    group.bench_function("hook and 1 KiB body", |b| {
        b.iter(|| {
            frame.set_request(received.request());
            frame.begin(&worker.shared, &chain);
            let flow = frame.run_request(0);
            frame.end();
            flow
        })
    });
    frame.set_request(received.request());
    frame.begin(&worker.shared, &chain);
    frame.run_request(0);
    let Some(MadeBody::InSlot { at, .. }) = frame.take_made_body() else { panic!("bench-respond answers from the slot") };
    group.bench_function("head before the body", |b| b.iter(|| lay_out_made(black_box(frame.response().expect("it was made")), at)));
}
