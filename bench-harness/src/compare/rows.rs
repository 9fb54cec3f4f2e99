//! What a run stores: the rows, whose keys are a contract, and the details beside them.
//!
//! `FILE.json` is an array of `Row`; `FILE.detail.json` is a `Run`, which holds everything else: the machine, versions,
//! every slice, latency percentiles, what was skipped and why.
#![forbid(unsafe_code)]

use super::stats::{Spread, Verdict};
use crate::machine::{Machine, Placement};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One contestant in one scenario. The keys and their order are what readers of stored results rely on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the peer.
    pub peer: String,
    /// Plugins that it ran.
    pub plugins: u32,
    /// Connections of the load generator.
    pub connections: usize,
    /// Body bytes of every answer.
    pub body_bytes: u64,
    /// Right answers per second, median over rounds.
    pub rps: f64,
    /// CPU time of the proxy per request in user mode, µs; absent for `direct`.
    pub cpu_us_user: Option<f64>,
    /// CPU time of the proxy per request in the kernel, µs. With `cpu_us_user` it adds up to the median over rounds.
    pub cpu_us_sys: Option<f64>,
    /// Median latency, µs, median over rounds.
    pub p50_us: f64,
    /// 99th percentile, µs, median over rounds.
    pub p99_us: f64,
    /// 99.9th percentile, µs, median over rounds.
    pub p999_us: f64,
    /// Resident memory of all processes of the proxy, KiB, median over rounds.
    pub rss_kib: Option<u64>,
    /// CPU time per request relative to nginx with as many workers, median of the ratios of each round.
    pub ratio_to_nginx: Option<f64>,
}

/// One measured slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The round it belongs to.
    pub round: usize,
    /// Right answers in it.
    pub answers: u64,
    /// Right answers per second.
    pub rps: f64,
    /// CPU time of the proxy per request, µs.
    pub cpu_us: Option<f64>,
    /// Clock ticks of the proxy in user mode.
    pub user_ticks: u64,
    /// Clock ticks of the proxy in the kernel.
    pub system_ticks: u64,
    /// Share of its cores that the proxy used, 0..1.
    pub busy: f64,
    /// CPU time of the origin per request, µs.
    pub origin_cpu_us: f64,
    /// CPU time of the load generator per request, µs.
    pub load_cpu_us: f64,
    /// Median latency, µs.
    pub p50_us: f64,
    /// 99th percentile, µs.
    pub p99_us: f64,
    /// 99.9th percentile, µs.
    pub p999_us: f64,
    /// 99th percentile of how late requests were sent (open loop), µs.
    pub send_delay_p99_us: Option<f64>,
    /// Resident memory of the proxy, KiB.
    pub rss_kib: u64,
    /// Requests without a right answer; a slice with any is not part of the row.
    pub faults: u64,
}

/// Everything about one contestant in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// What is stored in the rows.
    pub row: Row,
    /// Workers of the proxy.
    pub workers: usize,
    /// Requests per second of an open loop.
    pub rate: Option<f64>,
    /// CPU time per request, µs, over rounds.
    pub cpu_us: Option<Spread>,
    /// Its ratio to nginx, round by round.
    pub ratio: Option<Spread>,
    /// What may be said of that ratio.
    pub verdict: Option<Verdict>,
    /// Its 99th percentile relative to nginx, round by round.
    pub p99_ratio: Option<Spread>,
    /// Median latency above `direct`, µs, round by round, where `direct` takes part.
    pub p50_added_us: Option<Spread>,
    /// CPU time per request of the origin, µs, median.
    pub origin_cpu_us: f64,
    /// CPU time per request of the load generator, µs, median.
    pub load_cpu_us: f64,
    /// Share of its cores that the proxy used, median.
    pub busy: f64,
    /// Latency distribution over all rounds: pairs of quantile and µs.
    pub percentiles: Vec<(f64, f64)>,
    /// The request head that reached the origin through this peer.
    pub forwarded_head: Option<String>,
    /// Slices with faults, which are left out above.
    pub slices_with_faults: usize,
    /// Every slice.
    pub slices: Vec<Slice>,
}

/// A contestant that did not take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the peer.
    pub peer: String,
    /// Its plugins.
    pub plugins: u32,
    /// Why.
    pub reason: String,
}

/// A run: everything that is not a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Version of this program.
    pub tool: String,
    /// The machine.
    pub machine: Machine,
    /// Which cores were used for what.
    pub placement: Placement,
    /// The command line's rounds; a run that had to end in time may have fewer, see the slices.
    pub rounds: usize,
    /// Length of a slice, ms.
    pub slice_ms: u64,
    /// Time before each slice in which the same load runs unmeasured, ms.
    pub warm_up_ms: u64,
    /// Versions of the peers: name and what it says of itself.
    pub versions: Vec<(String, String)>,
    /// The request that was sent.
    pub request_head: String,
    /// Who was left out.
    pub skipped: Vec<Skipped>,
    /// The rows with their details.
    pub details: Vec<Detail>,
}

impl Run {
    /// The rows alone.
    pub fn rows(&self) -> Vec<Row> {
        self.details.iter().map(|detail| detail.row.clone()).collect()
    }

    /// Writes the rows to `file` and this beside it.
    pub fn store(&self, file: &Path) -> Result<()> {
        let write = |path: &Path, text: String| std::fs::write(path, text + "\n").with_context(|| format!("writing {path:?}"));
        write(file, serde_json::to_string_pretty(&self.rows())?)?;
        write(&detail_path(file), serde_json::to_string(self)?)
    }
}

/// Reads rows, and the details beside them when they are there.
pub fn load(file: &Path) -> Result<(Vec<Row>, Option<Run>)> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file:?}"))?;
    let rows = serde_json::from_str(&text).with_context(|| format!("{file:?} is not an array of rows"))?;
    let path = detail_path(file);
    let run = match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).with_context(|| format!("{path:?} is not the record of a run"))?),
        Err(_) => None,
    };
    Ok((rows, run))
}

/// `results.json` keeps its details in `results.detail.json`.
pub fn detail_path(file: &Path) -> PathBuf {
    file.with_extension("detail.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_exactly_the_keys_of_the_contract_in_order() {
        let row = Row {
            scenario: "0b-c64".into(),
            peer: "nginx".into(),
            plugins: 0,
            connections: 64,
            body_bytes: 0,
            rps: 1.0,
            cpu_us_user: Some(1.0),
            cpu_us_sys: None,
            p50_us: 1.0,
            p99_us: 1.0,
            p999_us: 1.0,
            rss_kib: None,
            ratio_to_nginx: None,
        };
        let text = serde_json::to_string(&row).expect("serializable");
        let keys: Vec<&str> = text.split('"').filter(|word| text.contains(&format!("\"{word}\":"))).collect();
        let contract = "scenario, peer, plugins, connections, body_bytes, rps, cpu_us_user, cpu_us_sys, p50_us, p99_us, \
                        p999_us, rss_kib, ratio_to_nginx";
        assert_eq!(keys.join(", "), contract);
        assert_eq!(serde_json::from_str::<Row>(&text).expect("its own form"), row);
    }

    #[test]
    fn details_lie_beside_the_rows() {
        assert_eq!(detail_path(Path::new("a/b.json")), Path::new("a/b.detail.json"));
    }
}
