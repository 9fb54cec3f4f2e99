//! Token buckets of bounded number.
//!
//! A bucket is one time stamp (GCRA, the token bucket written as a schedule): `full_at` is when it will be full again.
//! Taking a token moves it one interval into the future; it may lead the present by at most `burst` intervals.
//!
//! Invariants: `places.len() <= keys_max`; `index` maps the key of each place to that place and nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A rate and a burst, in nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    interval_ns: u64,
    /// How far `full_at` may lead the present: `burst` intervals.
    lead_max_ns: u64,
}

impl Limit {
    /// `per_second` is in 0.001..=1e6 and `burst` at most 1e6, so nothing overflows: 1e12 ns times 1e6 is below 2^63.
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        let interval_ns = (1e9 / per_second).round() as u64;
        Limit { interval_ns, lead_max_ns: interval_ns * u64::from(burst) }
    }
}

pub(crate) struct Buckets {
    limit: Limit,
    keys_max: usize,
    index: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    places: Vec<Place>,
    hand: usize,
}

struct Place {
    key: u64,
    full_at: u64,
    /// Since the clock's hand came by.
    is_used: bool,
}

impl Buckets {
    pub(crate) fn new(limit: Limit, keys_max: u32) -> Self {
        Buckets { limit, keys_max: keys_max as usize, index: HashMap::default(), places: Vec::new(), hand: 0 }
    }

    /// Takes one token of this key, or says after how many nanoseconds there will be one.
    pub(crate) fn take(&mut self, key: u64, now_ns: u64) -> Result<(), u64> {
        let at = match self.index.get(&key) {
            Some(at) => *at as usize,
            None => self.place_for(key, now_ns),
        };
        let place = &mut self.places[at];
        place.is_used = true;
        let allowed_until = now_ns + self.limit.lead_max_ns;
        // The upper bound matters when the wall clock was set back: the bucket is empty then, and refills from now on.
        let full_at = place.full_at.clamp(now_ns, allowed_until) + self.limit.interval_ns;
        if full_at > allowed_until {
            place.full_at = full_at - self.limit.interval_ns;
            return Err(full_at - allowed_until);
        }
        place.full_at = full_at;
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    fn place_for(&mut self, key: u64, now_ns: u64) -> usize {
        let place = Place { key, full_at: now_ns, is_used: true };
        let at = if self.places.len() < self.keys_max {
            self.places.push(place);
            self.places.len() - 1
        } else {
            let at = self.victim(now_ns);
            self.index.remove(&self.places[at].key);
            self.places[at] = place;
            at
        };
        self.index.insert(key, at as u32);
        at
    }

    /// A place to give up: one with a full bucket, or one that was not used since the hand came by; the next one if the
    /// hand finds none in a bounded number of steps.
    fn victim(&mut self, now_ns: u64) -> usize {
        for _ in 0..STEPS_MAX {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.places.len();
            let place = &mut self.places[at];
            if place.full_at <= now_ns || !place.is_used {
                return at;
            }
            place.is_used = false;
        }
        self.hand
    }
}

/// Bounds the work of one request; the hand goes on where it stopped.
const STEPS_MAX: usize = 64;

/// The keys are hashes already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn over_a_long_time_the_rate_holds() {
        let mut buckets = Buckets::new(Limit::new(10.0, 5), 8);
        let passed = (0..1000u64).filter(|step| buckets.take(1, 1000 * SECOND + step * SECOND / 100).is_ok()).count();
        assert_eq!(passed, 5 + 99);
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_full_buckets_go_first() {
        let mut buckets = Buckets::new(Limit::new(1.0, 1), 3);
        let now = 1000 * SECOND;
        assert!(buckets.take(1, now).is_ok());
        assert!(buckets.take(2, now + SECOND).is_ok());
        assert!(buckets.take(3, now + SECOND).is_ok());
        // Only key 1 has a full bucket again: it goes, and the others are still limited.
        assert!(buckets.take(4, now + SECOND).is_ok());
        assert_eq!(buckets.len(), 3);
        assert!(buckets.take(2, now + SECOND).is_err());
        assert!(buckets.take(3, now + SECOND).is_err());
        for key in 100..10_000 {
            assert!(buckets.take(key, now + SECOND).is_ok());
        }
        assert_eq!((buckets.len(), buckets.index.len()), (3, 3));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut buckets = Buckets::new(Limit::new(1.0, 2), 3);
        assert!(buckets.take(1, 9000 * SECOND).is_ok());
        assert_eq!(buckets.take(1, 1000 * SECOND), Err(SECOND));
        assert!(buckets.take(1, 1001 * SECOND).is_ok());
    }
}
