//! Maps, through the table that plugins call: what a look-up and a count cost.

use std::ffi::c_void;
use std::hint::black_box;
use std::ptr;
use std::sync::Arc;

use criterion::Criterion;
use ringway::plugin::maps::MapShape;
use ringway::plugin::maps::calls::{MAPS, MapHandle, handles};
use ringway::plugin::maps::shape::Sizes;
use ringway::plugin::maps::store::anonymous;
use ringway_abi::maps::{self as abi, RawMap};

/// A map of this kind as worker 0 sees it, with 1000 keys in it.
fn map(kind: u32, key_bytes: u32) -> Box<[MapHandle]> {
    let shape = MapShape::new("bench", Sizes { kind, key_bytes, value_bytes: 16, entries_max: 1000 }, "u64 a, u64 b").expect("a good definition");
    let map = Arc::new(anonymous(&shape, 1).expect("memory"));
    for number in 0..1000u32 {
        map.update(0, &key(number)[..key_bytes as usize], &[0; 16]).expect("there is room");
    }
    handles(&[map], Some(0))
}

fn key(number: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key
}

pub fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("maps");
    let kinds = [("core array", abi::CORE_ARRAY, 4), ("array", abi::ARRAY, 4), ("hash, 16 byte keys", abi::HASH, 16), ("lru, 16 byte keys", abi::LRU, 16)];
    for (name, kind, key_bytes) in kinds {
        let handles = map(kind, key_bytes);
        let raw: *const RawMap = ptr::from_ref(&handles[0]).cast();
        let key = key(777);
        let key: *const c_void = key.as_ptr().cast();
        let mut value = [0u8; 16];
        group.bench_function(format!("look-up, {name}"), |b| {
            // SAFETY: the handle outlives the loop; key and value have the lengths of the definition.
            b.iter(|| unsafe { (MAPS.lookup)(black_box(raw), black_box(key), key_bytes, value.as_mut_ptr().cast(), 16) })
        });
        group.bench_function(format!("add, {name}"), |b| {
            // SAFETY: as above.
            b.iter(|| unsafe { (MAPS.add)(black_box(raw), black_box(key), key_bytes, 8, 1, ptr::null_mut()) })
        });
    }
    let handles = map(abi::CORE_ARRAY, 4);
    let raw: *const RawMap = ptr::from_ref(&handles[0]).cast();
    // SAFETY: as above.
    group.bench_function("pointer, core array", |b| b.iter(|| unsafe { (MAPS.value)(black_box(raw), black_box(777)) }));
}
