//! Reports of stored runs: a Markdown table, and an HTML page that holds everything it shows.
//!
//! Rows alone are enough for both; the details beside them add the machine, intervals and latency distributions.

mod html;
mod markdown;
mod plot;
mod promises;

pub use markdown::markdown;

use crate::compare::rows::{self, Row};
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;

/// Options of `ringway-bench report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Rows that `compare --json FILE` stored
    file: PathBuf,
    /// Write the HTML page here
    #[arg(long)]
    html: Option<PathBuf>,
    /// Write the Markdown here instead of standard output
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Write the measured figures into the table of this file (bench-harness/PROMISES.md)
    #[arg(long)]
    promises: Option<PathBuf>,
}

/// Runs `ringway-bench report`.
pub fn run_command(args: &ReportArgs) -> Result<()> {
    let (rows, run) = rows::load(&args.file)?;
    if let Some(file) = &args.html {
        std::fs::write(file, html::page(&rows, run.as_ref())).with_context(|| format!("writing {file:?}"))?;
    }
    if let Some(file) = &args.promises {
        promises::write(file, run.as_ref(), &format!("`{}`", args.file.display()))?;
    }
    let text = markdown(&rows, run.as_ref());
    match &args.markdown {
        Some(file) => std::fs::write(file, text).with_context(|| format!("writing {file:?}"))?,
        None if args.html.is_none() && args.promises.is_none() => println!("{text}"),
        None => {}
    }
    Ok(())
}

/// The scenarios of rows, in the order of their first row.
fn scenarios(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.scenario.as_str()) {
            names.push(&row.scenario);
        }
    }
    names
}

/// CPU time per request: the two parts of a row add up to it.
fn cpu_us(row: &Row) -> Option<f64> {
    Some(row.cpu_us_user? + row.cpu_us_sys?)
}

/// A row's name in a plot.
fn label(row: &Row) -> String {
    if row.plugins > 0 { format!("{} +{}", row.peer, row.plugins) } else { row.peer.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::rows::{Run, Skipped};
    use crate::compare::summary::{details, tests::collected};
    use crate::machine::{Machine, Placement};

    /// A run of nginx and a relay that costs 0.8 of it.
    pub fn example_run() -> Run {
        let scenario = &crate::compare::all_scenarios()[0];
        let nginx = collected("nginx", &[10.0; 7], &[]);
        let relay = collected("relay", &[8.0; 7], &[]);
        Run {
            tool: "ringway-bench test".into(),
            machine: Machine::read().expect("Linux"),
            placement: Placement::choose(&[0, 1]).expect("two cores"),
            rounds: 7,
            slice_ms: 1,
            warm_up_ms: 0,
            versions: vec![("nginx".into(), "nginx/1 <test>".into())],
            request_head: String::new(),
            skipped: vec![Skipped { scenario: "0b-c64".into(), peer: "envoy".into(), plugins: 0, reason: "not installed".into() }],
            details: details(scenario, None, &[nginx, relay]),
        }
    }

    #[test]
    fn stored_rows_and_details_come_back() {
        let dir = std::env::temp_dir().join(format!("ringway-bench-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("writable");
        let file = dir.join("rows.json");
        let run = example_run();
        run.store(&file).expect("writable");
        let (rows, details) = rows::load(&file).expect("its own form");
        assert_eq!(rows, run.rows());
        assert_eq!(details.expect("beside it").details.len(), 2);
        let args = ReportArgs { file, html: Some(dir.join("r.html")), markdown: Some(dir.join("r.md")), promises: None };
        run_command(&args).expect("both reports");
        assert!(std::fs::read_to_string(dir.join("r.html")).expect("written").contains("<svg"));
        std::fs::remove_dir_all(&dir).expect("its own directory");
    }
}
