//! From slices to rows: medians over rounds, ratios within rounds.
#![forbid(unsafe_code)]

use super::rows::{Detail, Row, Slice};
use super::scenario::{Contestant, Scenario};
use super::stats::{Spread, Verdict, median};
use crate::load::latencies;
use hdrhistogram::Histogram;

/// What was collected about one contestant.
pub struct Collected {
    /// Who.
    pub contestant: Contestant,
    /// Its slices, at most one per round.
    pub slices: Vec<Slice>,
    /// Its latencies over all slices without faults.
    pub latency: Histogram<u64>,
    /// The request head that reached the origin.
    pub forwarded_head: Option<String>,
}

impl Collected {
    /// Nothing collected yet.
    pub fn new(contestant: Contestant, forwarded_head: Option<String>) -> Collected {
        Collected { contestant, slices: Vec::new(), latency: latencies(), forwarded_head }
    }

    /// Adds a slice; its latencies count only when it is free of faults.
    pub fn add(&mut self, slice: Slice, latency: &Histogram<u64>) {
        if slice.faults == 0 {
            // Both histograms come from `latencies`, so one always fits into the other.
            let _ = self.latency.add(latency);
        }
        self.slices.push(slice);
    }

    /// Hands over what was collected and starts anew.
    pub fn take(&mut self) -> Collected {
        std::mem::replace(self, Collected::new(self.contestant, None))
    }

    /// Whether there is anything to make a row of.
    pub fn has_good_slice(&self) -> bool {
        good_slices(self).next().is_some()
    }
}

/// Quantiles that are stored of a latency distribution.
const QUANTILES: [f64; 17] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.99975, 0.9999, 0.99999, 1.0];

/// The details of everyone in a scenario who had a slice without faults.
pub fn details(scenario: &Scenario, rate: Option<f64>, all: &[Collected]) -> Vec<Detail> {
    let named = |name: &str, workers: usize| all.iter().find(|one| one.contestant.peer == name && one.contestant.workers == workers);
    let details = all.iter().map(|one| {
        let nginx = named("nginx", one.contestant.workers);
        detail(scenario, rate, one, nginx, named("direct", 1))
    });
    details.flatten().collect()
}

fn detail(scenario: &Scenario, rate: Option<f64>, one: &Collected, nginx: Option<&Collected>, direct: Option<&Collected>) -> Option<Detail> {
    let good: Vec<&Slice> = good_slices(one).collect();
    let middle = |field: fn(&Slice) -> f64| median(&good.iter().map(|slice| field(slice)).collect::<Vec<f64>>());
    let cpu: Vec<f64> = good.iter().filter_map(|slice| slice.cpu_us).collect();
    let cpu_us = Spread::of(&cpu);
    let (user, system) = good.iter().fold((0, 0), |sum, slice| (sum.0 + slice.user_ticks, sum.1 + slice.system_ticks));
    // Ticks of single slices are coarse, so the split is that of all of them together, applied to the exact total.
    let user_share = if user + system > 0 { user as f64 / (user + system) as f64 } else { 0.0 };
    let ratios = by_round(one, nginx, |slice, base| Some(slice.cpu_us? / base.cpu_us?));
    let ratio = Spread::of(&ratios);
    let p99_ratios = by_round(one, nginx, |slice, base| Some(slice.p99_us / base.p99_us));
    let added = by_round(one, direct, |slice, base| Some(slice.p50_us - base.p50_us));
    let is_direct = one.contestant.peer == "direct";
    let row = Row {
        scenario: scenario.row_name(one.contestant.workers),
        peer: one.contestant.peer.to_owned(),
        plugins: one.contestant.chain.plugins(),
        connections: scenario.connections,
        body_bytes: scenario.body_bytes,
        rps: round_to(middle(|slice| slice.rps)?, 1),
        cpu_us_user: cpu_us.map(|cpu| round_to(cpu.median * user_share, 3)),
        cpu_us_sys: cpu_us.map(|cpu| round_to(cpu.median * (1.0 - user_share), 3)),
        p50_us: round_to(middle(|slice| slice.p50_us)?, 1),
        p99_us: round_to(middle(|slice| slice.p99_us)?, 1),
        p999_us: round_to(middle(|slice| slice.p999_us)?, 1),
        rss_kib: if is_direct { None } else { middle(|slice| slice.rss_kib as f64).map(|kib| kib as u64) },
        ratio_to_nginx: ratio.map(|ratio| round_to(ratio.median, 4)),
    };
    Some(Detail {
        row,
        workers: one.contestant.workers,
        rate,
        cpu_us,
        ratio,
        verdict: ratio.map(|ratio| Verdict::of(&ratio, ratios.len())),
        p99_ratio: Spread::of(&p99_ratios),
        p50_added_us: if is_direct { None } else { Spread::of(&added) },
        origin_cpu_us: middle(|slice| slice.origin_cpu_us)?,
        load_cpu_us: middle(|slice| slice.load_cpu_us)?,
        busy: middle(|slice| slice.busy)?,
        percentiles: QUANTILES.iter().map(|&quantile| (quantile, one.latency.value_at_quantile(quantile) as f64 / 1000.0)).collect(),
        forwarded_head: one.forwarded_head.clone(),
        slices_with_faults: one.slices.len() - good.len(),
        slices: one.slices.clone(),
    })
}

/// Slices that count: with answers and without faults.
fn good_slices(one: &Collected) -> impl Iterator<Item = &Slice> {
    one.slices.iter().filter(|slice| slice.faults == 0 && slice.answers > 0)
}

/// A figure of each round in which both have a good slice.
fn by_round(one: &Collected, base: Option<&Collected>, figure: fn(&Slice, &Slice) -> Option<f64>) -> Vec<f64> {
    let Some(base) = base else { return Vec::new() };
    let pairs = good_slices(one).filter_map(|slice| {
        let same_round = good_slices(base).find(|other| other.round == slice.round)?;
        figure(slice, same_round)
    });
    pairs.filter(|value| value.is_finite()).collect()
}

fn round_to(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::compare::scenario::{Chain, all};

    /// A contestant with one slice per CPU figure; faults in the rounds of `faulty`.
    pub fn collected(peer: &'static str, cpu: &[f64], faulty: &[usize]) -> Collected {
        let slices = cpu.iter().enumerate().map(|(round, &cpu_us)| Slice {
            round,
            answers: 1000,
            rps: 1e6 / cpu_us,
            cpu_us: (peer != "direct").then_some(cpu_us),
            user_ticks: 1,
            system_ticks: 3,
            busy: 1.0,
            origin_cpu_us: 2.0,
            load_cpu_us: 3.0,
            p50_us: 10.0 * cpu_us,
            p99_us: 20.0 * cpu_us,
            p999_us: 30.0 * cpu_us,
            send_delay_p99_us: None,
            rss_kib: 4000,
            faults: u64::from(faulty.contains(&round)),
        });
        let mut latency = crate::load::latencies();
        latency.saturating_record(1_000_000);
        let contestant = Contestant { peer, chain: Chain::None, workers: 1 };
        Collected { contestant, slices: slices.collect(), latency, forwarded_head: None }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // The machine is twice as slow in the second half: medians apart would say 0.5, every round says 0.8.
        let nginx = collected("nginx", &[10.0, 10.0, 20.0, 20.0, 20.0, 10.0, 20.0], &[]);
        let relay = collected("relay", &[8.0, 8.0, 16.0, 16.0, 16.0, 8.0, 16.0], &[]);
        let details = details(&all()[0], None, &[nginx, relay]);
        assert_eq!(details[0].row.ratio_to_nginx, Some(1.0));
        assert_eq!(details[1].row.ratio_to_nginx, Some(0.8));
        assert_eq!(details[1].verdict, Some(Verdict::Less));
        assert_eq!((details[1].row.cpu_us_user, details[1].row.cpu_us_sys), (Some(4.0), Some(12.0)));
    }

    #[test]
    fn slices_with_faults_are_counted_and_left_out() {
        let nginx = collected("nginx", &[10.0, 10.0, 10.0], &[]);
        let broken = collected("relay", &[1.0, 9.0, 9.0], &[0]);
        let details = details(&all()[0], None, &[nginx, broken]);
        assert_eq!((details[1].slices_with_faults, details[1].row.ratio_to_nginx), (1, Some(0.9)));
    }

    #[test]
    fn direct_has_latency_but_no_cost() {
        let direct = collected("direct", &[5.0, 5.0], &[]);
        let nginx = collected("nginx", &[10.0, 10.0], &[]);
        let details = details(&all()[0], None, &[direct, nginx]);
        assert_eq!((details[0].row.cpu_us_user, details[0].row.rss_kib, details[0].row.ratio_to_nginx), (None, None, None));
        assert_eq!(details[1].p50_added_us.map(|added| added.median), Some(50.0));
    }

    #[test]
    fn without_nginx_there_is_no_ratio() {
        let details = details(&all()[0], None, &[collected("relay", &[5.0], &[])]);
        assert_eq!(details[0].row.ratio_to_nginx, None);
    }
}
