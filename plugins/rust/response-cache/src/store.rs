//! The stored responses of one worker, by key, with a bound on their bytes.
//!
//! Invariants: `bytes` is the sum of the sizes of all resources and `bytes <= bytes_max` after each call; a resource has
//! between one and `VARIANTS_MAX` variants of each place. Places share keys, so that an unsafe method at one invalidates what others stored, and
//! never variants: each may ask another upstream.

use std::hash::RandomState;

use lru::LruCache;
use ringway_sdk::prelude::*;

use crate::control::Freshness;

type Octets = Box<[u8]>;

/// A name of Vary, and all lines that the request had under it.
type Varied = (Octets, Vec<Octets>);

/// A response that can be sent again.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) place: Place,
    /// What the request must have in the headers that Vary names.
    pub(crate) vary: Vec<Varied>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(Octets, Octets)>,
    pub(crate) body: Vec<u8>,
    pub(crate) stored_unix_ns: u64,
    pub(crate) freshness: Freshness,
    pub(crate) may_answer_authorized: bool,
}

/// Where a request came in. Listeners and the numbers of routes mean the same while the gateway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    listener: u16,
    route: u32,
}

impl Place {
    pub(crate) fn of(request: &RequestView) -> Place {
        Place { listener: request.listener(), route: request.route() }
    }
}

pub(crate) struct Store {
    resources: LruCache<Octets, Vec<Variant>, RandomState>,
    bytes: usize,
    bytes_max: usize,
    evicted: u64,
}

impl Store {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Store { resources: LruCache::unbounded_with_hasher(RandomState::new()), bytes: 0, bytes_max, evicted: 0 }
    }

    /// The variant that answers this request; its resource is the most recently used one now.
    pub(crate) fn find(&mut self, key: &[u8], request: &RequestView) -> Option<&Variant> {
        self.resources.get(key)?.iter().find(|variant| variant.answers(request))
    }

    /// Stores a variant in place of the one that answers the same requests, and evicts what there is no room for.
    pub(crate) fn insert(&mut self, key: &[u8], variant: Variant) {
        let mut variants = self.remove(key).unwrap_or_default();
        let is_here = |old: &Variant| old.place == variant.place;
        // A response with other names in Vary supersedes the older ones: the server changed its mind.
        variants.retain(|old| !is_here(old) || (old.vary_names().eq(variant.vary_names()) && old.vary != variant.vary));
        if variants.iter().filter(|old| is_here(old)).count() == VARIANTS_MAX
            && let Some(oldest) = variants.iter().position(is_here)
        {
            variants.remove(oldest);
        }
        variants.push(variant);
        let size = size_of_resource(key, &variants);
        if size > self.bytes_max {
            return;
        }
        while self.bytes + size > self.bytes_max {
            let Some((key, variants)) = self.resources.pop_lru() else { break };
            self.bytes -= size_of_resource(&key, &variants);
            self.evicted += 1;
        }
        self.bytes += size;
        self.resources.put(key.into(), variants);
    }

    /// Forgets a resource with all its variants.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Vec<Variant>> {
        let variants = self.resources.pop(key)?;
        self.bytes -= size_of_resource(key, &variants);
        Some(variants)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many resources were evicted since the last call.
    pub(crate) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }
}

impl Variant {
    /// Age in seconds (RFC 9111 §4.2.3).
    pub(crate) fn age(&self, now_unix_ns: u64) -> u64 {
        self.freshness.age + now_unix_ns.saturating_sub(self.stored_unix_ns) / 1_000_000_000
    }

    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| &**value)
    }

    fn answers(&self, request: &RequestView) -> bool {
        self.place == Place::of(request) && self.vary.iter().all(|(name, lines)| request.header_values_named(name).eq(lines.iter().map(|line| &**line)))
    }

    fn vary_names(&self) -> impl Iterator<Item = &[u8]> {
        self.vary.iter().map(|(name, _)| &**name)
    }

    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + PAIR_BYTES).sum();
        let vary: usize =
            self.vary.iter().map(|(name, lines)| name.len() + PAIR_BYTES + lines.iter().map(|line| line.len() + PAIR_BYTES / 2).sum::<usize>()).sum();
        size_of::<Variant>() + headers + vary + self.body.capacity()
    }
}

fn size_of_resource(key: &[u8], variants: &[Variant]) -> usize {
    RESOURCE_BYTES + key.len() + variants.iter().map(Variant::size).sum::<usize>()
}

/// Of one key and place; the oldest goes first.
const VARIANTS_MAX: usize = 8;
/// What a resource costs besides its bytes: its entry in the table and in the list, allocator rounding.
const RESOURCE_BYTES: usize = 160;
/// What two boxed slices cost besides their bytes.
const PAIR_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(vary: &[(&str, &str)], body: usize) -> Variant {
        Variant {
            place: Place::default(),
            vary: vary.iter().map(|(name, value)| (name.as_bytes().into(), vec![value.as_bytes().into()])).collect(),
            status: 200,
            headers: Vec::new(),
            body: vec![0; body],
            stored_unix_ns: 0,
            freshness: Freshness { lifetime: 10, age: 0 },
            may_answer_authorized: false,
        }
    }

    #[test]
    fn bytes_are_bounded_and_the_least_recent_goes_first() {
        let mut store = Store::new(10_000);
        for round in 0..100u32 {
            store.insert(&round.to_le_bytes(), variant(&[], 2000));
            assert!(store.bytes() <= 10_000);
        }
        assert_eq!(store.resources.len(), 4);
        assert_eq!(store.take_evicted(), 96);
        assert!(store.resources.peek(99u32.to_le_bytes().as_slice()).is_some());
        store.insert(b"too large", variant(&[], 20_000));
        assert_eq!(store.resources.len(), 4);
    }

    #[test]
    fn the_sum_of_sizes_is_kept_through_replacing_and_removing() {
        let mut store = Store::new(100_000);
        for round in 0..50usize {
            store.insert(b"k", variant(&[("a", &round.to_string())], round));
            assert!(store.resources.peek(b"k".as_slice()).is_some_and(|variants| variants.len() == (round + 1).min(VARIANTS_MAX)));
        }
        store.insert(b"k", variant(&[("b", "1")], 1));
        assert!(store.resources.peek(b"k".as_slice()).is_some_and(|variants| variants.len() == 1));
        store.remove(b"k");
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn no_place_drives_out_what_another_one_stored() {
        let (mut store, elsewhere) = (Store::new(100_000), Place { listener: 1, route: 0 });
        store.insert(b"k", Variant { place: elsewhere, ..variant(&[("b", "1")], 1) });
        for round in 0..20 {
            store.insert(b"k", variant(&[("a", &round.to_string())], 1));
        }
        let variants = store.remove(b"k").unwrap_or_default();
        assert_eq!(variants.iter().filter(|variant| variant.place == elsewhere).count(), 1);
        assert_eq!(variants.len(), 1 + VARIANTS_MAX);
        assert_eq!(store.bytes(), 0);
    }
}
