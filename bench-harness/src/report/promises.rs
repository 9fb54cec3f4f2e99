//! The promises of PROMISES.md against a stored run: the table between two marks of that file is written anew.
//!
//! The list here is the one place where a promise, its target and the scenario that shows it are named; a test holds the
//! file against it. A promise whose scenario or peer the run lacks stays without a figure: it is a target and not a claim.
#![forbid(unsafe_code)]

use crate::compare::rows::{Detail, Run, Slice};
use crate::compare::stats::Spread;
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::path::Path;

/// How a figure comes from a run. A row is named by its scenario, peer and plugins; all figures are medians over rounds.
#[derive(Debug, Clone, Copy)]
enum Figure {
    /// CPU time per request relative to nginx.
    ToNginx,
    /// CPU time per request relative to another peer, without plugins.
    To(&'static str),
    /// Median latency above `direct`, relative to that of nginx.
    AddedLatency,
    /// 99th percentile relative to nginx.
    TailLatency,
    /// CPU time per request relative to the same peer in another scenario.
    ToScenario(&'static str),
}

struct Promise {
    says: &'static str,
    at_most: f64,
    scenario: &'static str,
    peer: &'static str,
    plugins: u32,
    figure: Figure,
}

const fn promise(says: &'static str, at_most: f64, scenario: &'static str, peer: &'static str, plugins: u32, figure: Figure) -> Promise {
    Promise { says, at_most, scenario, peer, plugins, figure }
}

/// What the gateway claims about its cost.
const PROMISES: [Promise; 18] = [
    promise("empty bodies, 64 connections, no plugin", 0.70, "0b-c64", "ringway", 0, Figure::ToNginx),
    promise("1 KiB bodies, likewise", 0.70, "1k-c64", "ringway", 0, Figure::ToNginx),
    promise("empty bodies, 4 plugins (C, Rust, Zig; one sets a request header, one a response header)", 0.72, "0b-c64", "ringway", 4, Figure::ToNginx),
    promise("1 KiB bodies, likewise", 0.72, "1k-c64", "ringway", 4, Figure::ToNginx),
    promise("empty bodies, 16 plugins that look up a header", 0.74, "0b-c64", "ringway", 16, Figure::ToNginx),
    promise("1 KiB bodies, likewise", 0.74, "1k-c64", "ringway", 16, Figure::ToNginx),
    promise("empty bodies, 512 connections, 4 plugins", 0.55, "0b-c512", "ringway", 4, Figure::ToNginx),
    promise("64 KiB bodies, 64 connections, no plugin looks at the body", 0.75, "64k-c64", "ringway", 0, Figure::ToNginx),
    promise("1 MiB bodies, 16 connections, likewise", 0.45, "1m-c16", "ringway", 0, Figure::ToNginx),
    promise("64 KiB bodies with a plugin on every chunk", 1.00, "64k-c64", "ringway-chunk", 1, Figure::ToNginx),
    promise("1 MiB bodies with a plugin on every chunk", 0.60, "1m-c16", "ringway-chunk", 1, Figure::ToNginx),
    promise("short circuit by a plugin, 1 KiB, against nginx `return 200` of the same size", 0.85, "short-1k-c64", "ringway-respond", 1, Figure::ToNginx),
    promise("empty bodies, no plugin, against the bare relay", 1.06, "0b-c64", "ringway", 0, Figure::To("relay")),
    promise("the same with 4 plugins", 1.10, "0b-c64", "ringway", 4, Figure::To("relay")),
    promise("latency added to one connection, p50, against nginx", 1.00, "0b-c1", "ringway", 0, Figure::AddedLatency),
    promise("p99 at half of nginx's saturation (open loop), against nginx", 1.00, "open-0b-c64", "ringway", 0, Figure::TailLatency),
    promise("the same with 4 plugins", 1.00, "open-0b-c64", "ringway", 4, Figure::TailLatency),
    promise("cost per request with two workers against one", 1.05, "workers-0b-c64-2", "ringway", 0, Figure::ToScenario("workers-0b-c64-1")),
];

impl Promise {
    /// Where to read it, in words.
    fn reading(&self) -> String {
        let row = if self.plugins > 0 { format!("`{}` +{}", self.peer, self.plugins) } else { format!("`{}`", self.peer) };
        match self.figure {
            Figure::ToNginx => format!("{row}: CPU ÷ `nginx`"),
            Figure::To(base) => format!("{row}: CPU ÷ `{base}`"),
            Figure::AddedLatency => format!("{row}: p50 above `direct` ÷ that of `nginx`"),
            Figure::TailLatency => format!("{row}: p99 ÷ `nginx`"),
            Figure::ToScenario(base) => format!("{row}: CPU ÷ `{base}`"),
        }
    }

    /// The figure in this run.
    fn measured(&self, run: &Run) -> Option<Spread> {
        let find = |scenario: &str, peer: &str, plugins: u32| {
            run.details.iter().find(|detail| detail.row.scenario == scenario && detail.row.peer == peer && detail.row.plugins == plugins)
        };
        let row = find(self.scenario, self.peer, self.plugins)?;
        let cost = |slice: &Slice, base: &Slice| Some(slice.cpu_us? / base.cpu_us?);
        match self.figure {
            Figure::ToNginx => row.ratio,
            Figure::To(base) => by_round(row, find(self.scenario, base, 0)?, cost),
            Figure::ToScenario(base) => by_round(row, find(base, self.peer, self.plugins)?, cost),
            Figure::TailLatency => row.p99_ratio,
            Figure::AddedLatency => {
                let (nginx, direct) = (find(self.scenario, "nginx", 0)?, find(self.scenario, "direct", 0)?);
                let added = |detail: &Detail, round: usize| Some(good(detail, round)?.p50_us - good(direct, round)?.p50_us);
                let rounds = row.slices.iter().map(|slice| slice.round);
                Spread::of(&rounds.filter_map(|round| Some(added(row, round)? / added(nginx, round)?)).collect::<Vec<f64>>())
            }
        }
    }
}

/// The slice of a round, if it is free of faults.
fn good(detail: &Detail, round: usize) -> Option<&Slice> {
    detail.slices.iter().find(|slice| slice.round == round && slice.faults == 0 && slice.answers > 0)
}

fn by_round(row: &Detail, base: &Detail, figure: impl Fn(&Slice, &Slice) -> Option<f64>) -> Option<Spread> {
    let ratios = row.slices.iter().filter_map(|slice| figure(good(row, slice.round)?, good(base, slice.round)?));
    Spread::of(&ratios.collect::<Vec<f64>>())
}

const BEGIN: &str = "<!-- written by `ringway-bench report RUN.json --promises` from here on -->";
const END: &str = "<!-- to here -->";

/// The table, with the figures of a run where it has them. `name` says which run that is.
fn table(run: Option<&Run>, name: &str) -> String {
    let mut text = String::new();
    match run {
        Some(run) => {
            let _ = writeln!(text, "Measured: {name}; {}, {}, kernel {}, {} rounds.\n", run.machine.date, run.machine.cpu, run.machine.kernel, run.rounds);
        }
        None => text.push_str("Measured: nothing yet.\n\n"),
    }
    text.push_str("| promise | target | scenario | how to read it | measured | interval | met |\n|---|--:|---|---|--:|---|---|\n");
    for promise in &PROMISES {
        let measured = run.and_then(|run| promise.measured(run));
        let (figure, interval, met) = match measured {
            Some(spread) => (
                format!("{:.2}", spread.median),
                format!("{:.2}–{:.2}", spread.low, spread.high),
                // As the target is written, so is it compared: with two digits.
                if (spread.median * 100.0).round() <= (promise.at_most * 100.0).round() { "yes" } else { "no" },
            ),
            None => Default::default(),
        };
        let _ =
            writeln!(text, "| {} | ≤ {:.2} | `{}` | {} | {figure} | {interval} | {met} |", promise.says, promise.at_most, promise.scenario, promise.reading());
    }
    text
}

/// Writes the table of `run` into the file.
pub fn write(file: &Path, run: Option<&Run>, name: &str) -> Result<()> {
    let run = run.context("the promises need the details beside the rows (FILE.detail.json)")?;
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file:?}"))?;
    let Some(text) = replaced(&text, &table(Some(run), name)) else { bail!("{file:?} has no line {BEGIN:?} with {END:?} behind it") };
    std::fs::write(file, text).with_context(|| format!("writing {file:?}"))
}

fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{all_scenarios, summary::details, summary::tests::collected};
    use crate::report::tests::example_run;

    #[test]
    fn every_promise_is_a_row_that_compare_makes() {
        for promise in &PROMISES {
            let made = all_scenarios().iter().any(|scenario| {
                let has = |peer: &str, plugins: u32| {
                    scenario
                        .contestants
                        .iter()
                        .any(|one| scenario.row_name(one.workers) == promise.scenario && one.peer == peer && one.chain.plugins() == plugins)
                };
                let base = match promise.figure {
                    Figure::To(base) => has(base, 0),
                    Figure::AddedLatency => has("nginx", 0) && has("direct", 0),
                    Figure::ToNginx | Figure::TailLatency => has("nginx", 0),
                    Figure::ToScenario(_) => true,
                };
                has(promise.peer, promise.plugins) && base
            });
            assert!(made, "{} in {}", promise.says, promise.scenario);
        }
    }

    #[test]
    fn figures_are_medians_of_ratios_within_rounds() {
        let scenario = &all_scenarios()[0];
        let all = [collected("nginx", &[10.0, 20.0, 10.0], &[]), collected("relay", &[5.0, 10.0, 5.0], &[]), collected("ringway", &[6.0, 12.0, 6.0], &[])];
        let run = Run { details: details(scenario, None, &all), ..example_run() };
        let of =
            |says: &str| PROMISES.iter().find(|promise| promise.says.contains(says)).and_then(|promise| promise.measured(&run)).map(|spread| spread.median);
        assert_eq!(of("64 connections, no plugin"), Some(0.6));
        assert_eq!(of("against the bare relay"), Some(1.2));
        assert_eq!(of("two workers"), None);
        let text = table(Some(&run), "here");
        assert!(text.contains("| ≤ 0.70 | `0b-c64` | `ringway`: CPU ÷ `nginx` | 0.60 | 0.60–0.60 | yes |"), "{text}");
        assert!(text.contains("| ≤ 1.06 | `0b-c64` | `ringway`: CPU ÷ `relay` | 1.20 | 1.20–1.20 | no |"), "{text}");
    }

    #[test]
    fn the_file_lists_these_promises_and_no_others() {
        let file = include_str!("../../PROMISES.md");
        let first = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.contains("| ≤ ")).map(|line| line.split('|').skip(1).take(4).collect::<Vec<_>>().join("|")).collect()
        };
        let (_, rest) = file.split_once(BEGIN).expect("the mark");
        let (inside, _) = rest.split_once(END).expect("the second mark");
        assert_eq!(first(inside), first(&table(None, "")), "write it anew: ringway-bench report RUN.json --promises bench-harness/PROMISES.md");
    }
}
