//! Which route a request takes: the first, or the one behind all others.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use ringway::http1::names::NameTable;
use ringway::route::RouteTable;
use ringway_benches::inputs::{GET_8, ROUTE_COUNTS};
use ringway_benches::slots::{Received, config, slab};

pub fn route(c: &mut Criterion) {
    let (slab, names) = (slab(), NameTable::new());
    let mut received = Received::new(&slab, GET_8);
    received.parse_request(&names);
    let message = received.request();
    let mut group = c.benchmark_group("route look-up");
    for count in ROUTE_COUNTS {
        let table = RouteTable::new(&config(count), None);
        group.bench_function(BenchmarkId::new("the last of", count), |b| b.iter(|| table.find(black_box(message.request()), 0)));
    }
}
