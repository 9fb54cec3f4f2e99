//! What a load run counted: answers, latencies, faults. One per thread while it runs, merged afterwards.
#![forbid(unsafe_code)]

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart; anything longer counts as this.
const LATENCY_NS_MAX: u64 = 300_000_000_000;

/// Why a request has no right answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadFault {
    /// No connection could be made.
    Connect,
    /// The connection ended before the answer did.
    Closed,
    /// The answer did not come in time.
    Timeout,
    /// The answer is not HTTP/1.1, or more came than was announced.
    Malformed,
    /// Another status than expected.
    WrongStatus,
    /// Another body length than expected.
    WrongLength,
}

/// Faults by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// No connection could be made.
    pub connect: u64,
    /// The connection ended before the answer did.
    pub closed: u64,
    /// The answer did not come in time.
    pub timeout: u64,
    /// The answer is not HTTP/1.1.
    pub malformed: u64,
    /// Another status than expected.
    pub wrong_status: u64,
    /// Another body length than expected.
    pub wrong_length: u64,
}

impl Faults {
    /// Counts one.
    pub fn count(&mut self, fault: LoadFault) {
        *match fault {
            LoadFault::Connect => &mut self.connect,
            LoadFault::Closed => &mut self.closed,
            LoadFault::Timeout => &mut self.timeout,
            LoadFault::Malformed => &mut self.malformed,
            LoadFault::WrongStatus => &mut self.wrong_status,
            LoadFault::WrongLength => &mut self.wrong_length,
        } += 1;
    }

    /// All kinds together.
    pub fn total(&self) -> u64 {
        self.connect + self.closed + self.timeout + self.malformed + self.wrong_status + self.wrong_length
    }

    fn add(&mut self, other: &Faults) {
        self.connect += other.connect;
        self.closed += other.closed;
        self.timeout += other.timeout;
        self.malformed += other.malformed;
        self.wrong_status += other.wrong_status;
        self.wrong_length += other.wrong_length;
    }
}

/// The counts of one run or one thread of it.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Latencies in ns of the right answers that were measured.
    pub latency: Histogram<u64>,
    /// Open loop: how long after its due time a request was sent, in ns.
    pub send_delay: Histogram<u64>,
    /// Right answers that were measured.
    pub answers: u64,
    /// Body bytes of them.
    pub body_bytes: u64,
    /// Requests without a right answer, warm-up included.
    pub faults: Faults,
    /// Open loop: requests that were due but had no answer when the run ended; `latency` holds how long they waited.
    pub unanswered: u64,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self { latency: latencies(), send_delay: latencies(), answers: 0, body_bytes: 0, faults: Faults::default(), unanswered: 0 }
    }

    /// Adds another thread's or slice's counts.
    pub fn add(&mut self, other: &Tally) {
        // Both histograms were made by `latencies`, so one always fits into the other.
        let _ = self.latency.add(&other.latency);
        let _ = self.send_delay.add(&other.send_delay);
        self.answers += other.answers;
        self.body_bytes += other.body_bytes;
        self.faults.add(&other.faults);
        self.unanswered += other.unanswered;
    }
}

/// An empty histogram of ns with three significant digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants that the crate accepts")
}

/// A quantile in microseconds.
pub fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let (mut one, mut two) = (Tally::new(), Tally::new());
        one.latency.saturating_record(1_000_000);
        two.latency.saturating_record(3_000_000);
        two.faults.count(LoadFault::Timeout);
        two.faults.count(LoadFault::WrongStatus);
        one.add(&two);
        assert_eq!((one.latency.len(), one.faults.total(), one.faults.timeout), (2, 2, 1));
        assert!((quantile_us(&one.latency, 1.0) - 3000.0).abs() < 5.0);
    }
}
