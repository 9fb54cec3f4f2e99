//! One slice: load on one peer for a moment, the costs of everyone read at its two ends.
//!
//! The window is cut by two observations, each of CPU clocks, answers and time together, taken while the load runs on.
//! What is in flight at one end is in flight at the other, so that cost per answer needs no correction.

use super::peer::Peer;
use super::rows::Slice;
use crate::load::{self, End, Outcome, Plan, quantile_us};
use crate::process::{Usage, own_cpu};
use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What all slices of a scenario have in common.
pub struct SliceSettings {
    /// The plan; its address and length are filled in for each slice.
    pub plan: Plan,
    /// How long is measured.
    pub length: Duration,
    /// The origin's processes.
    pub origin_pids: Vec<u32>,
    /// Where the load runs when no proxy is between it and the origin: a core that is not the origin's, because a
    /// request through a proxy crosses between cores as well.
    pub direct_load_core: usize,
}

/// The load runs on for this long after the window closed, so that a late observer still sees it running.
const OVERHANG: Duration = Duration::from_millis(10);

struct Observation {
    at: Instant,
    answers: u64,
    peer: Usage,
    origin: Usage,
    load: Duration,
}

impl Observation {
    fn take(peer: &Peer, origin_pids: &[u32], answered: &AtomicU64) -> Observation {
        let peer = peer.usage();
        let answers = answered.load(Ordering::Relaxed);
        Observation { at: Instant::now(), answers, peer, origin: Usage::read(origin_pids), load: own_cpu() }
    }
}

/// Measures `peer` once. The histogram is that of the slice's latencies.
pub fn measure(peer: &Peer, round: usize, settings: &SliceSettings) -> Result<(Slice, Histogram<u64>)> {
    let mut plan = settings.plan.clone();
    plan.address = peer.address;
    plan.end = End::After(settings.length + OVERHANG);
    if peer.contestant.peer == "direct" {
        plan.core = Some(settings.direct_load_core);
    }
    let answered = AtomicU64::new(0);
    let (outcome, before, after) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load::run(&plan, &answered));
        std::thread::sleep(plan.warm_up);
        let before = Observation::take(peer, &settings.origin_pids, &answered);
        std::thread::sleep(settings.length);
        let after = Observation::take(peer, &settings.origin_pids, &answered);
        let outcome = load.join().unwrap_or_else(|_| Err(anyhow!("the load generator panicked")));
        outcome.map(|outcome| (outcome, before, after))
    })?;
    Ok((slice(peer, round, &outcome, &before, &after), outcome.tally.latency))
}

fn slice(peer: &Peer, round: usize, outcome: &Outcome, before: &Observation, after: &Observation) -> Slice {
    let answers = after.answers - before.answers;
    let seconds = (after.at - before.at).as_secs_f64();
    let per_answer_us = |time: Duration| time.as_secs_f64() * 1e6 / answers.max(1) as f64;
    let used = after.peer.since(&before.peer);
    let origin = after.origin.since(&before.origin);
    let latency = &outcome.tally.latency;
    let is_direct = peer.contestant.peer == "direct";
    Slice {
        round,
        answers,
        rps: answers as f64 / seconds,
        cpu_us: (!is_direct && answers > 0).then(|| per_answer_us(Duration::from_nanos(used.cpu_ns))),
        user_ticks: used.user_ticks,
        system_ticks: used.system_ticks,
        busy: used.cpu_ns as f64 / 1e9 / seconds / peer.contestant.workers as f64,
        origin_cpu_us: per_answer_us(Duration::from_nanos(origin.cpu_ns)),
        load_cpu_us: per_answer_us(after.load - before.load),
        p50_us: quantile_us(latency, 0.5),
        p99_us: quantile_us(latency, 0.99),
        p999_us: quantile_us(latency, 0.999),
        send_delay_p99_us: (!outcome.tally.send_delay.is_empty()).then(|| quantile_us(&outcome.tally.send_delay, 0.99)),
        rss_kib: used.rss_kib,
        faults: outcome.tally.faults.total() + outcome.tally.unanswered,
    }
}
