//! Edits of a request: what the first one copies, and each kind of edit behind it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use ringway::http1::names::NameTable;
use ringway_benches::edits::{EDITS, three};
use ringway_benches::inputs::{BROWSER_20, GET_8};
use ringway_benches::slots::{Received, slab};

pub fn edits(c: &mut Criterion) {
    let (slab, names) = (slab(), NameTable::new());
    for input in [GET_8, BROWSER_20] {
        let mut received = Received::new(&slab, input);
        received.parse_request(&names);
        let mut group = c.benchmark_group("edit");
        group.bench_function(BenchmarkId::new("message, none", input.name), |b| b.iter(|| received.request()));
        for (name, edit) in EDITS {
            group.bench_function(BenchmarkId::new(format!("message, first: {name}"), input.name), |b| {
                b.iter(|| {
                    let mut message = received.request();
                    edit(black_box(&mut message), &names);
                    message
                })
            });
        }
        group.bench_function(BenchmarkId::new("message, three", input.name), |b| {
            b.iter(|| {
                let mut message = received.request();
                three(black_box(&mut message), &names);
                message
            })
        });
    }
}
