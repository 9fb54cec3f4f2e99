//! How long hooks take: measured when an operator has asked for it, and for a version on trial.
//!
//! Owns the histogram of one hook of one link on one worker. A pair of time stamps costs more than most hooks, so one call in
//! [`SAMPLE_EVERY`] is measured. Words are written by the worker and read by anyone.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use ringway_abi::raw;

use super::loaded::add_single_writer;
use crate::clock;

/// Of so many calls of a hook one is measured, the first one included. A power of two.
pub const SAMPLE_EVERY: u64 = 64;
/// Four for each power of two, up to 8 seconds.
const BUCKETS: usize = 128;

/// The times of the hooks of one link on one worker.
#[derive(Debug)]
pub struct LinkTimes {
    /// By the number of the hook's bit; `None` when the plugin does not have it.
    hooks: [Option<Box<HookTimes>>; raw::HOOKS.len()],
}

/// The times of one hook.
#[derive(Debug)]
pub struct HookTimes {
    calls: AtomicU64,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl LinkTimes {
    /// For a plugin with these hooks.
    pub fn new(hooks: u32) -> LinkTimes {
        LinkTimes { hooks: std::array::from_fn(|bit| (hooks & 1 << bit != 0).then(Box::default)) }
    }

    /// The times of the hook with this bit.
    pub fn of(&self, hook: u32) -> Option<&HookTimes> {
        self.hooks.get(hook.trailing_zeros() as usize)?.as_deref()
    }
}

impl Default for HookTimes {
    fn default() -> HookTimes {
        HookTimes { calls: AtomicU64::new(0), sum_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl HookTimes {
    /// A call begins: the time, when this one is measured. `every` is a power of two.
    pub(super) fn begin(&self, every: u64) -> Option<u64> {
        let calls = self.calls.load(Ordering::Relaxed);
        self.calls.store(calls.wrapping_add(1), Ordering::Relaxed);
        (calls & (every - 1) == 0).then(clock::monotonic_ns)
    }

    /// The call that began at `began_ns` has returned.
    pub(super) fn end(&self, began_ns: u64) {
        self.add(clock::monotonic_ns().saturating_sub(began_ns));
    }

    fn add(&self, ns: u64) {
        add_single_writer(&self.sum_ns, ns);
        self.max_ns.store(self.max_ns.load(Ordering::Relaxed).max(ns), Ordering::Relaxed);
        add_single_writer(&self.buckets[bucket_of(ns)], 1);
    }
}

/// The times of several workers or links, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeSum {
    /// Measured calls.
    pub samples: u64,
    /// Nanoseconds of all of them.
    pub sum_ns: u64,
    /// The longest.
    pub max_ns: u64,
    buckets: [u64; BUCKETS],
}

impl Default for TimeSum {
    fn default() -> TimeSum {
        TimeSum { samples: 0, sum_ns: 0, max_ns: 0, buckets: [0; BUCKETS] }
    }
}

impl TimeSum {
    /// Adds what was measured so far.
    pub fn add(&mut self, times: &HookTimes) {
        self.sum_ns += times.sum_ns.load(Ordering::Relaxed);
        self.max_ns = self.max_ns.max(times.max_ns.load(Ordering::Relaxed));
        for (sum, bucket) in self.buckets.iter_mut().zip(&times.buckets) {
            let count = bucket.load(Ordering::Relaxed);
            *sum += count;
            self.samples += count;
        }
    }

    /// Nanoseconds that this part of the calls did not exceed, at most a quarter too long; `percent` of 100.
    pub fn quantile_ns(&self, percent: u64) -> u64 {
        let wanted = (self.samples * percent).div_ceil(100);
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0, upper_ns).min(self.max_ns)
    }

    /// Measured calls that took more than `ns`, by their buckets.
    pub fn slower_than(&self, ns: u64) -> u64 {
        self.buckets.iter().skip(bucket_of(ns) + 1).sum()
    }
}

/// Four buckets for each power of two, one for each number below four.
fn bucket_of(ns: u64) -> usize {
    if ns < 4 {
        return ns as usize;
    }
    let power = ns.ilog2();
    let quarter = (ns >> (power - 2)) & 3;
    ((power as usize - 1) * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The largest time of a bucket.
fn upper_ns(bucket: usize) -> u64 {
    match bucket {
        0..4 => bucket as u64,
        _ => ((5 + bucket as u64 % 4) << (bucket / 4 - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(upper_ns(bucket)), bucket);
            assert_eq!(bucket_of(upper_ns(bucket) + 1), bucket + 1);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_right_to_a_quarter() {
        let times = HookTimes::default();
        (1..=1000).for_each(|ns| times.add(ns));
        let mut sum = TimeSum::default();
        sum.add(&times);
        assert_eq!((sum.samples, sum.sum_ns, sum.max_ns), (1000, 500_500, 1000));
        for (percent, exact) in [(50, 500), (99, 990), (100, 1000)] {
            let found = sum.quantile_ns(percent);
            assert!(found >= exact && found * 8 <= exact * 10, "{percent}: {found}");
        }
        assert_eq!((sum.slower_than(2000), TimeSum::default().quantile_ns(99)), (0, 0));
        assert_eq!(sum.slower_than(800), 105, "those above 895, where its bucket ends");
    }

    #[test]
    fn one_call_in_sixty_four_is_measured_beginning_with_the_first() {
        let times = LinkTimes::new(raw::HOOK_REQUEST);
        assert!(times.of(raw::HOOK_RESPONSE).is_none());
        let request = times.of(raw::HOOK_REQUEST).expect("it has this hook");
        let measured: Vec<usize> = (0..129).filter(|_| request.begin(SAMPLE_EVERY).is_some()).collect();
        assert_eq!(measured, [0, 64, 128]);
    }
}
