//! `ringway top`: what the plugins of a running gateway do, each second anew.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::{Admin, address, items, text};
use crate::cli::client::{Table, ask};
use crate::cli::{GOOD, WRONG, report};

/// To the upper left corner, and everything behind it goes.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// What is shown of the counters, as a rate.
const RATES: [(&str, &str); 6] =
    [("calls", "CALLS/S"), ("responds", "RESPONDS/S"), ("drops", "DROPS/S"), ("aborts", "ABORTS/S"), ("panics", "PANICS/S"), ("edits", "EDITS/S")];

/// Watch plugins.
#[derive(Debug, Args)]
pub struct Top {
    /// How often to print; without it until it is interrupted
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<u64>,
    /// Seconds between two looks
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub delay: f64,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "write a number of seconds from 0.1 to 3600".to_owned())
}

impl Top {
    /// Carries it out.
    pub(in crate::cli) fn execute(self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        let address = address(&self.admin);
        let look = || ask(&address, "GET", "/api/plugins", None).map(|answer| (Instant::now(), answer));
        let clear = !self.admin.json && io::stdout().is_terminal();
        let mut before = match look() {
            Ok(seen) => seen,
            Err(problem) => return report(err, "error", &[problem]).map(|()| WRONG),
        };
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            left -= 1;
            thread::sleep(Duration::from_secs_f64(self.delay));
            let now = match look() {
                Ok(seen) => seen,
                Err(problem) => return report(err, "error", &[problem]).map(|()| WRONG),
            };
            let rows = rows(&before.1, &now.1, now.0.duration_since(before.0));
            if self.admin.json {
                writeln!(out, "{}", json!({ "plugins": rows }))?;
            } else {
                write!(out, "{}{}", if clear { CLEAR } else { "" }, table(&rows))?;
                writeln!(out)?;
            }
            out.flush()?;
            before = now;
        }
        Ok(GOOD)
    }
}

/// One row for each version in force or on trial.
fn rows(before: &Value, now: &Value, passed: Duration) -> Vec<Value> {
    let mut rows = Vec::new();
    for plugin in items(&now["plugins"]) {
        let was = items(&before["plugins"]).find(|was| was["name"] == plugin["name"]).unwrap_or(&Value::Null);
        rows.push(row(&plugin["name"], &plugin["status"], was, plugin, passed));
        if plugin["canary"].is_object() {
            rows.push(row(&plugin["name"], &json!("on trial"), &was["canary"], &plugin["canary"], passed));
        }
    }
    rows
}

fn row(name: &Value, status: &Value, was: &Value, is: &Value, passed: Duration) -> Value {
    // The counters of another generation go on; only where the place is new they begin at zero.
    let rate = |key: &str| {
        let counted = |of: &Value| of["counters"][key].as_u64().unwrap_or(0);
        (counted(is).saturating_sub(counted(was)) as f64 / passed.as_secs_f64().max(0.001)).round() as u64
    };
    let mut row = json!({ "name": name, "status": status, "version": is["version"], "generation": is["generation"] });
    for (key, _) in RATES {
        row[format!("{key}_per_second")] = rate(key).into();
    }
    let sum = |of: &Value, key: &str| of["hook_times"].as_object().into_iter().flatten().filter_map(|(_, hook)| hook[key].as_u64()).sum::<u64>();
    let between = |key: &str| sum(is, key).saturating_sub(sum(was, key));
    row["hook_mean_ns"] = between("sum_ns").checked_div(between("samples")).into();
    let slowest = is["hook_times"].as_object().into_iter().flatten().filter_map(|(_, hook)| hook["p99_ns"].as_u64()).max();
    row["hook_p99_ns"] = slowest.into();
    row
}

fn table(rows: &[Value]) -> Table {
    let head = ["NAME", "STATUS", "VERSION"].into_iter().chain(RATES.map(|(_, head)| head)).chain(["MEAN", "P99"]);
    let mut shown = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let mut cells = ["name", "status", "version"].map(|key| text(&row[key])).to_vec();
        cells.extend(RATES.map(|(key, _)| text(&row[format!("{key}_per_second")])));
        cells.extend(["hook_mean_ns", "hook_p99_ns"].map(|key| row[key].as_u64().map_or("-".to_owned(), nanoseconds)));
        shown.push(cells);
    }
    Table(shown)
}

/// With three digits, more or less.
fn nanoseconds(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} us", ns / 1000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_came_between_two_looks() {
        let look = |calls: u64, samples: u64, sum: u64| {
            let times = json!({ "on_request": { "samples": samples, "sum_ns": sum, "p99_ns": 700 } });
            let plugin = json!({ "name": "a", "status": "active", "version": "1", "generation": 1, "counters": { "calls": calls }, "hook_times": times });
            json!({ "plugins": [plugin] })
        };
        let rows = rows(&look(100, 1, 100), &look(300, 3, 500), Duration::from_secs(2));
        assert_eq!((&rows[0]["calls_per_second"], &rows[0]["aborts_per_second"], &rows[0]["hook_mean_ns"]), (&json!(100), &json!(0), &json!(200)));
        let text = table(&rows).to_string();
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with("200 ns  700 ns")), "{text}");
    }
}
