//! The Markdown report: the machine, one table per scenario, what was skipped, and what the figures mean.
#![forbid(unsafe_code)]

use crate::compare::rows::{Detail, Row, Run};
use std::fmt::Write;

/// A report of rows, with what their details add when there are any.
pub fn markdown(rows: &[Row], run: Option<&Run>) -> String {
    let mut text = String::from("# Comparison of HTTP proxies\n\n");
    if let Some(run) = run {
        text.push_str(&machine(run));
    }
    for scenario in super::scenarios(rows) {
        let _ = writeln!(text, "## {scenario}\n");
        if let Some(rate) = run.and_then(|run| rate(run, scenario)) {
            let _ = writeln!(text, "Open loop at {rate:.0} requests per second; latencies count from the due time.\n");
        }
        text.push_str(&table(rows, run, scenario));
    }
    if let Some(run) = run {
        text.push_str(&skipped(run));
    }
    text.push_str(EXPLANATION);
    text
}

fn machine(run: &Run) -> String {
    let machine = &run.machine;
    let mut text = String::new();
    let _ = writeln!(text, "- date: {}", machine.date);
    let _ = writeln!(
        text,
        "- machine: {}, {} cores, {} MiB{}",
        machine.cpu,
        machine.cores.len(),
        machine.memory_mib,
        if machine.virtualized { ", virtual" } else { "" }
    );
    let _ = writeln!(text, "- kernel: {}", machine.kernel);
    let _ = writeln!(text, "- governor: {}", machine.governor.as_deref().unwrap_or("not readable"));
    if let Some(load) = machine.load_average {
        let _ = writeln!(text, "- load average at the start: {load:.2}");
    }
    let placement = &run.placement;
    let _ = writeln!(text, "- cores: proxy {:?} (the first with one worker), load {}, origin {}", placement.peer, placement.load, placement.origin);
    let _ = writeln!(text, "- {} rounds at most, slices of {} ms after {} ms of warm-up; {}", run.rounds, run.slice_ms, run.warm_up_ms, run.tool);
    for (peer, version) in &run.versions {
        let _ = writeln!(text, "- {peer}: {version}");
    }
    text.push('\n');
    text
}

fn rate(run: &Run, scenario: &str) -> Option<f64> {
    run.details.iter().find(|detail| detail.row.scenario == scenario)?.rate
}

fn table(rows: &[Row], run: Option<&Run>, scenario: &str) -> String {
    let of_scenario: Vec<&Row> = rows.iter().filter(|row| row.scenario == scenario).collect();
    let shows_added = of_scenario.iter().any(|row| row.peer == "direct");
    let mut text = String::from(
        "| peer | plugins | CPU µs/request | user | kernel | ratio to nginx | interval | beyond noise | requests/s | \
         p50 µs | p99 µs | p99.9 µs | RSS MiB | proxy busy | origin / load µs |",
    );
    let mut rule = String::from("|---|--:|--:|--:|--:|--:|---|---|--:|--:|--:|--:|--:|--:|---|");
    if shows_added {
        text.push_str(" p50 added µs |");
        rule.push_str("--:|");
    }
    let _ = writeln!(text, "\n{rule}");
    for row in of_scenario {
        let detail = run.and_then(|run| run.details.iter().find(|detail| detail.row == *row));
        text.push_str(&line(row, detail));
        if shows_added {
            let added = detail.and_then(|detail| detail.p50_added_us);
            let _ = write!(text, " {} |", number(added.map(|added| added.median), 1));
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn line(row: &Row, detail: Option<&Detail>) -> String {
    let cpu = super::cpu_us(row);
    let ratio = detail.and_then(|detail| detail.ratio);
    let interval = ratio.map_or("–".into(), |ratio| format!("{:.3}–{:.3}", ratio.low, ratio.high));
    let is_nginx = row.peer == "nginx";
    let verdict = match detail.and_then(|detail| detail.verdict) {
        Some(verdict) if !is_nginx => verdict.word(),
        _ => "–",
    };
    let faulty = detail.map_or(0, |detail| detail.slices_with_faults);
    let mark = if faulty > 0 { format!(" ({faulty} slices with faults left out)") } else { String::new() };
    format!(
        "| {}{mark} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {} | {} | {} |",
        row.peer,
        row.plugins,
        number(cpu, 2),
        number(row.cpu_us_user, 2),
        number(row.cpu_us_sys, 2),
        number(row.ratio_to_nginx, 3),
        if is_nginx { "–".into() } else { interval },
        verdict,
        row.rps,
        row.p50_us,
        row.p99_us,
        row.p999_us,
        number(row.rss_kib.map(|kib| kib as f64 / 1024.0), 1),
        detail.filter(|_| cpu.is_some()).map_or("–".into(), |detail| format!("{:.0} %", detail.busy * 100.0)),
        detail.map_or("–".into(), |detail| format!("{:.2} / {:.2}", detail.origin_cpu_us, detail.load_cpu_us)),
    )
}

fn skipped(run: &Run) -> String {
    if run.skipped.is_empty() {
        return String::new();
    }
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for one in &run.skipped {
        let who = format!("{}{}: {}", one.peer, if one.plugins > 0 { format!(" ({} plugins)", one.plugins) } else { String::new() }, one.reason);
        match reasons.iter_mut().find(|(known, _)| *known == who) {
            Some((_, scenarios)) => scenarios.push(&one.scenario),
            None => reasons.push((who, vec![&one.scenario])),
        }
    }
    let mut text = String::from("## Left out\n\n");
    for (who, scenarios) in reasons {
        let _ = writeln!(text, "- {who} ({})", scenarios.join(", "));
    }
    text.push('\n');
    text
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".into(), |value| format!("{value:.digits$}"))
}

const EXPLANATION: &str = "CPU µs/request is the CPU time of all processes and threads of the proxy divided by the right answers of the same window, \
median over rounds. The ratio is the median of the ratios of each round; the interval holds the true median with 95 % or more when there \
were six rounds or more. \"Beyond noise\" names a difference only when that interval excludes 1 and the difference is 2 % or more. \
\"Proxy busy\" is the share of its cores that the proxy used: well below 100 % in a closed loop, the proxy was not what limited \
requests/s. METHOD.md says what is not claimed.\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example_run;

    #[test]
    fn every_row_becomes_a_line_and_the_machine_is_named() {
        let run = example_run();
        let text = markdown(&run.rows(), Some(&run));
        assert!(text.contains("## 0b-c64"));
        assert!(text.contains("| nginx | 0 | 10.00 |"));
        assert!(text.contains("| relay | 0 | 8.00 | 2.00 | 6.00 | 0.800 | 0.800–0.800 | less |"), "{text}");
        assert!(text.contains("- kernel: "));
        assert!(text.contains("- envoy: not installed (0b-c64)"));
    }

    #[test]
    fn rows_alone_are_enough() {
        let text = markdown(&example_run().rows(), None);
        assert!(text.contains("| relay | 0 | 8.00 |"));
        assert!(!text.contains("NaN"));
    }
}
