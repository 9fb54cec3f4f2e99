//! The ratios that are promised, from interleaved slices: A B A B …, so that both see the same machine.
//!
//! `cargo bench -p ringway-benches --bench ratios` prints, for each pair, the smallest nanoseconds per call of each and the median
//! of the ratios of neighbouring slices. Without `--bench` (as a test) each runs once.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::Instant;

use ringway_benches::chains::{LOOKUPS, Worker};
use ringway_benches::formats::{Buffers, FORMS};
use ringway_benches::inputs::{BROWSER_20, GET_8, POST};
use ringway_benches::slots::Received;

/// Calls of one slice: some 20 to 200 µs.
const CALLS: u32 = 200;
/// Slices of each side.
const ROUNDS: usize = 2000;

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    println!("{:<52} {:>9} {:>9} {:>7}", "A against B", "A ns", "B ns", "A/B");
    let plugins = LOOKUPS.map(|(_, plugin)| plugin);
    let worker = Worker::new(&plugins);
    for input in [GET_8, BROWSER_20, POST] {
        let mut received = Received::new(&worker.slab, input);
        let mut view = || {
            black_box(received.parse_request(black_box(&worker.names)));
        };
        let mut stack = || {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            let _ = black_box(request.parse(black_box(input.bytes)));
            black_box(&request);
        };
        let mut uninit = || {
            let mut headers = [const { MaybeUninit::uninit() }; 64];
            let mut request = httparse::Request::new(&mut []);
            let _ = black_box(request.parse_with_uninit_headers(black_box(input.bytes), &mut headers));
            black_box(&request);
        };
        pair(&format!("view against httparse, stack array: {}", input.name), rounds, &mut view, &mut stack);
        pair(&format!("view against httparse, uninitialised: {}", input.name), rounds, &mut view, &mut uninit);
    }
    let mut received = Received::new(&worker.slab, GET_8);
    received.parse_request(&worker.names);
    let mut empty = worker.frame();
    empty.set_request(received.request());
    empty.begin(&worker.shared, &worker.chain(&[]));
    for (language, plugin) in LOOKUPS {
        let mut four = worker.frame();
        four.set_request(received.request());
        four.begin(&worker.shared, &worker.chain_of(4, plugin));
        let mut run_four = || {
            black_box(four.run_request(0));
        };
        let mut run_empty = || {
            black_box(empty.run_request(0));
        };
        pair(&format!("four hooks against an empty chain: {language}"), rounds, &mut run_four, &mut run_empty);
    }
    let mut buffers = Buffers::default();
    for input in [GET_8, BROWSER_20] {
        let mut received = Received::new(&worker.slab, input);
        received.parse_request(&worker.names);
        let mut frame = worker.frame();
        frame.set_request(received.request());
        frame.begin(&worker.shared, &worker.chain_of(1, "bench-lookup-c"));
        let message = received.request();
        for (name, form) in FORMS {
            let mut serialized = || {
                black_box(form(&mut buffers, black_box(message.request())));
            };
            let mut view = || {
                black_box(frame.run_request(0));
            };
            pair(&format!("hop by {name} against the view: {}", input.name), rounds.div_ceil(10), &mut serialized, &mut view);
        }
    }
}

/// Slices of both, in turn, and what came out.
fn pair(name: &str, rounds: usize, a: &mut dyn FnMut(), b: &mut dyn FnMut()) {
    let mut ratios = Vec::with_capacity(rounds);
    let (mut least_a, mut least_b) = (f64::MAX, f64::MAX);
    slice(a);
    slice(b);
    for _ in 0..rounds {
        let (took_a, took_b) = (slice(a), slice(b));
        ratios.push(took_a / took_b);
        (least_a, least_b) = (least_a.min(took_a), least_b.min(took_b));
    }
    ratios.sort_unstable_by(f64::total_cmp);
    println!("{name:<52} {least_a:>9.1} {least_b:>9.1} {:>7.2}", ratios[ratios.len() / 2]);
}

/// Nanoseconds per call.
#[inline(never)]
fn slice(run: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        run();
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}
