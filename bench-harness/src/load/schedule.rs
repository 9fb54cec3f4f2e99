//! When requests are due at a fixed rate, and what a latency is measured from.
//!
//! Pure arithmetic on nanoseconds since the start of the run. The rule against coordinated omission: request `k` is due
//! at `k / rate` whatever the server does, and its latency counts from then. A server that stalls for 100 ms is charged
//! for every request that should have been sent meanwhile, not for the one that was.
#![forbid(unsafe_code)]

/// The due times of an open loop.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    interval_ns: f64,
    offset_ns: f64,
    next: u64,
}

impl Schedule {
    /// `rate` requests per second; `offset` (0..1) of an interval lets several threads take turns.
    pub fn new(rate: f64, offset: f64) -> Self {
        let interval_ns = 1e9 / rate;
        Self { interval_ns, offset_ns: interval_ns * offset, next: 0 }
    }

    /// When the next request is due, in ns since the start.
    pub fn next_due_ns(&self) -> u64 {
        // A product and not a running sum: the error does not grow with the number of requests.
        (self.offset_ns + self.interval_ns * self.next as f64) as u64
    }

    /// Takes the next request when it is due at `now_ns`, and gives the time its latency counts from.
    pub fn try_take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_due_ns();
        if due_ns > now_ns {
            return None;
        }
        self.next += 1;
        Some(due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;

    /// A server with one connection that answers in `service_ns`, and stands still from `stall.0` to `stall.1`.
    /// Returns the latencies from the due times and from the times of sending.
    fn serve(rate: f64, seconds: u64, service_ns: u64, stall: (u64, u64)) -> (Histogram<u64>, Histogram<u64>) {
        let mut corrected = Histogram::new(3).expect("three digits");
        let mut naive = Histogram::new(3).expect("three digits");
        let mut schedule = Schedule::new(rate, 0.0);
        let mut now_ns = 0;
        while schedule.next_due_ns() < seconds * 1_000_000_000 {
            now_ns = now_ns.max(schedule.next_due_ns());
            let due_ns = schedule.try_take(now_ns).expect("it is due");
            let sent_ns = now_ns;
            now_ns += service_ns;
            if (stall.0..stall.1).contains(&sent_ns) {
                now_ns = stall.1 + service_ns;
            }
            corrected.record(now_ns - due_ns).expect("in range");
            naive.record(now_ns - sent_ns).expect("in range");
        }
        (corrected, naive)
    }

    #[test]
    fn a_stall_is_charged_to_every_request_that_was_due_in_it() {
        // 1,000 requests per second for 10 s, answered in 10 µs, but the server stands still for one second.
        let (corrected, naive) = serve(1000.0, 10, 10_000, (4_000_000_000, 5_000_000_000));
        // One request in ten was due during the stall: they waited between 0 and 1 s, so 5 % waited longer than half of it.
        let p95_ms = corrected.value_at_quantile(0.95) / 1_000_000;
        assert!((450..=550).contains(&p95_ms), "p95 is {p95_ms} ms");
        let p99_ms = corrected.value_at_quantile(0.99) / 1_000_000;
        assert!((870..=930).contains(&p99_ms), "p99 is {p99_ms} ms");
        // The naive clock starts when the request could be sent, and hides all but one of them.
        assert!(naive.value_at_quantile(0.999) < 1_000_000);
    }

    #[test]
    fn without_a_stall_both_clocks_agree() {
        let (corrected, naive) = serve(1000.0, 2, 10_000, (0, 0));
        assert_eq!(corrected.max(), naive.max());
        assert_eq!(corrected.len(), 2000);
    }

    #[test]
    fn the_rate_holds_over_many_requests_and_threads_interleave() {
        let mut schedule = Schedule::new(30_000.0, 0.5);
        assert_eq!(schedule.next_due_ns(), 16_666);
        let mut taken = 0;
        while schedule.try_take(1_000_000_000).is_some() {
            taken += 1;
        }
        assert_eq!(taken, 30_000);
        assert_eq!(schedule.try_take(1_000_000_000), None);
    }
}
