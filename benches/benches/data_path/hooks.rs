//! Hooks of loaded `.so` files: the call alone, the gateway's frame around it, chains.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use ringway::plugin::chain::LinkCounters;
use ringway_benches::chains::{BareHook, LINK_COUNTS, LOOKUPS, Worker};
use ringway_benches::exchange::Exchange;
use ringway_benches::inputs::{BROWSER_20, GET_8, RESPONSE_SMALL};
use ringway_benches::slots::Received;

pub fn calls(c: &mut Criterion) {
    let worker = Worker::new(&LOOKUPS.map(|(_, plugin)| plugin));
    let mut received = Received::new(&worker.slab, GET_8);
    received.parse_request(&worker.names);
    let mut group = c.benchmark_group("hook, one look-up");
    for (language, plugin) in LOOKUPS {
        let mut bare = BareHook::new(plugin);
        let request = received.request();
        group.bench_function(BenchmarkId::new("call alone", language), |b| b.iter(|| bare.call(black_box(request.request()))));
        for count in LINK_COUNTS {
            let mut frame = worker.frame();
            frame.set_request(received.request());
            frame.begin(&worker.shared, &worker.chain_of(count, plugin));
            group.bench_function(BenchmarkId::new(format!("chain of {count}"), language), |b| b.iter(|| black_box(&mut frame).run_request(0)));
        }
    }
}

/// What counting a call costs: the same calls with the counter of a link and without. Each link has counters of its own.
pub fn counters(c: &mut Criterion) {
    let worker = Worker::new(&["bench-lookup-c"]);
    let mut received = Received::new(&worker.slab, GET_8);
    received.parse_request(&worker.names);
    let request = received.request();
    let mut bare = BareHook::new("bench-lookup-c");
    let mut group = c.benchmark_group("16 calls of a hook");
    group.bench_function("not counted", |b| {
        b.iter(|| {
            for _ in 0..16 {
                black_box(bare.call(black_box(request.request())));
            }
        })
    });
    let links: Vec<Arc<LinkCounters>> = (0..16).map(|_| Arc::default()).collect();
    group.bench_function("counted", |b| {
        b.iter(|| {
            for counters in &links {
                LinkCounters::count(&counters.calls);
                black_box(bare.call(black_box(request.request())));
            }
        })
    });
}

pub fn post_hooks(c: &mut Criterion) {
    let worker = Worker::new(&["bench-set-response", "bench-chunk"]);
    let mut request = Received::new(&worker.slab, GET_8);
    request.parse_request(&worker.names);
    let mut response = Received::new(&worker.slab, RESPONSE_SMALL);
    response.parse_response(&worker.names);
    let mut group = c.benchmark_group("post hooks");
    for (name, plugin, count) in [("none", "", 0), ("one that edits", "bench-set-response", 1), ("four that edit", "bench-set-response", 4)] {
        let mut frame = worker.frame();
        frame.set_request(request.request());
        frame.begin(&worker.shared, &worker.chain_of(count, plugin));
        frame.run_request(0);
        group.bench_function(name, |b| {
            b.iter(|| {
                frame.set_response(response.response());
                black_box(&mut frame).run_response()
            })
        });
    }
    let mut frame = worker.frame();
    frame.set_request(request.request());
    frame.begin(&worker.shared, &worker.chain_of(1, "bench-chunk"));
    frame.run_request(0);
    let bytes = [b'x'; 4096];
    group.bench_function("a chunk", |b| b.iter(|| frame.run_response_chunk(black_box(&bytes), 0, false)));
}

pub fn exchanges(c: &mut Criterion) {
    let mut group = c.benchmark_group("exchange without input and output");
    let lookups = LOOKUPS.map(|(_, plugin)| plugin);
    for input in [GET_8, BROWSER_20] {
        for count in [0, 1, 4, 16] {
            let plugins: Vec<_> = lookups.into_iter().cycle().take(count).collect();
            let mut exchange = Exchange::new(&plugins, input, RESPONSE_SMALL);
            group.bench_function(BenchmarkId::new(format!("{count} look-ups"), input.name), |b| b.iter(|| exchange.run()));
        }
        let four = ["bench-lookup-c", "bench-set-request", "bench-lookup-zig", "bench-set-response"];
        let mut exchange = Exchange::new(&four, input, RESPONSE_SMALL);
        group.bench_function(BenchmarkId::new("4 plugins, 2 edits", input.name), |b| b.iter(|| exchange.run()));
        let mut exchange = Exchange::new(&["bench-respond"], input, RESPONSE_SMALL);
        group.bench_function(BenchmarkId::new("short circuit, 1 KiB", input.name), |b| b.iter(|| exchange.run()));
    }
}
