//! Heads to views, with httparse beside them; what `rkyv::access` over the slot adds; chunked bodies.

use std::hint::black_box;
use std::mem::MaybeUninit;

use criterion::{BenchmarkId, Criterion, Throughput};
use ringway::http1::chunked::{ChunkLimits, ChunkStep, ChunkedDecoder};
use ringway::http1::names::NameTable;
use ringway_abi::RequestView;
use ringway_benches::inputs::{CHUNK_BYTES, REQUESTS, RESPONSES, chunked_64k};
use ringway_benches::slots::{Received, slab};
use rkyv::rancor::Error;

pub fn requests(c: &mut Criterion) {
    let (slab, names) = (slab(), NameTable::new());
    let mut group = c.benchmark_group("request head");
    for input in REQUESTS {
        group.throughput(Throughput::Bytes(input.bytes.len() as u64));
        let mut received = Received::new(&slab, input);
        group.bench_function(BenchmarkId::new("view", input.name), |b| b.iter(|| received.parse_request(black_box(&names))));
        group.bench_function(BenchmarkId::new("httparse, stack array", input.name), |b| {
            b.iter(|| {
                let mut headers = [httparse::EMPTY_HEADER; 100];
                let mut request = httparse::Request::new(&mut headers);
                let status = request.parse(black_box(input.bytes));
                black_box(&request);
                status
            })
        });
        group.bench_function(BenchmarkId::new("httparse, uninitialised array", input.name), |b| {
            b.iter(|| {
                let mut headers = [const { MaybeUninit::uninit() }; 100];
                let mut request = httparse::Request::new(&mut []);
                let status = request.parse_with_uninit_headers(black_box(input.bytes), &mut headers);
                black_box(&request);
                status
            })
        });
        received.parse_request(&names);
        let message = received.request();
        group.bench_function(BenchmarkId::new("rkyv::access of the slot", input.name), |b| {
            b.iter(|| rkyv::access::<RequestView, Error>(black_box(message.archive())).map(RequestView::method_id))
        });
    }
}

pub fn responses(c: &mut Criterion) {
    let (slab, names) = (slab(), NameTable::new());
    let mut group = c.benchmark_group("response head");
    for input in RESPONSES {
        group.throughput(Throughput::Bytes(input.bytes.len() as u64));
        let mut received = Received::new(&slab, input);
        group.bench_function(BenchmarkId::new("view", input.name), |b| b.iter(|| received.parse_response(black_box(&names))));
        group.bench_function(BenchmarkId::new("httparse, uninitialised array", input.name), |b| {
            b.iter(|| {
                let mut headers = [const { MaybeUninit::uninit() }; 100];
                let mut response = httparse::Response::new(&mut []);
                let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, black_box(input.bytes), &mut headers);
                black_box(&response);
                status
            })
        });
    }
}

pub fn chunked(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunked 64 KiB");
    for chunk_bytes in CHUNK_BYTES {
        let body = chunked_64k(chunk_bytes);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("decode", chunk_bytes), |b| {
            b.iter(|| {
                let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
                let (mut at, mut bytes) = (0, 0);
                while let Ok(ChunkStep::Data { at: range }) = decoder.step(black_box(&body), &mut at) {
                    bytes += range.len();
                }
                bytes
            })
        });
    }
}
