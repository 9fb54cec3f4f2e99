//! The load generator: closed loop, or open loop at a fixed rate with latencies corrected for coordinated omission.
//!
//! `plan` is what to do, `engine` does it on one thread, `answer` follows an answer, `schedule` holds the due times,
//! `tally` counts. Every answer's status and body length are checked.

mod answer;
mod engine;
mod plan;
mod schedule;
mod tally;

pub use plan::{End, Plan, parse_url, request_bytes};
pub use tally::{Tally, latencies, quantile_us};

use anyhow::{Context, Result, bail};
use clap::Args;
pub use engine::OPEN_LOOP_SLICE;
use engine::{Engine, Share};
use schedule::Schedule;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// Options of `ringway-bench load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Where to send requests: http://host:port/path
    url: String,
    /// Open connections, each with at most one request at a time
    #[arg(long, short, default_value_t = 64)]
    connections: usize,
    /// Requests per second; without it every connection sends as soon as it has its answer (closed loop)
    #[arg(long, short)]
    rate: Option<f64>,
    /// How long to measure
    #[arg(long, short, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Measure this many requests instead of a time
    #[arg(long, short = 'n')]
    requests: Option<u64>,
    /// Send for this long before measuring
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Request method
    #[arg(long, short, default_value = "GET")]
    method: String,
    /// A request header "Name: value"; may be given more than once
    #[arg(long = "header", short = 'H')]
    headers: Vec<String>,
    /// Request body: text, or @FILE
    #[arg(long, conflicts_with = "body_bytes")]
    body: Option<String>,
    /// Request body of this many bytes
    #[arg(long)]
    body_bytes: Option<u64>,
    /// Status that every answer must have
    #[arg(long, default_value_t = 200)]
    expect_status: u16,
    /// Body length that every answer must have
    #[arg(long)]
    expect_bytes: Option<u64>,
    /// How long an answer may take
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Threads; the connections are divided among them
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Pin the first thread to this core, the next one to the core after it
    #[arg(long)]
    core: Option<usize>,
    /// Print JSON
    #[arg(long, short = 'j')]
    json: bool,
}

impl LoadArgs {
    fn plan(&self) -> Result<Plan> {
        let (address, host, path) = parse_url(&self.url)?;
        let body = match (&self.body, self.body_bytes) {
            (Some(text), _) => match text.strip_prefix('@') {
                Some(file) => std::fs::read(file).with_context(|| format!("reading the body from {file:?}"))?,
                None => text.clone().into_bytes(),
            },
            (None, Some(bytes)) => crate::origin::pattern(bytes),
            (None, None) => Vec::new(),
        };
        if self.connections == 0 || self.threads == 0 || self.threads > self.connections {
            bail!("at least one thread is needed, and one connection for each thread");
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            bail!("the rate must be a positive number of requests per second");
        }
        Ok(Plan {
            address,
            request: request_bytes(&self.method, &path, &host, &self.headers, &body)?.into(),
            is_head: self.method.eq_ignore_ascii_case("HEAD"),
            connections: self.connections,
            rate: self.rate,
            warm_up: self.warm_up,
            end: self.requests.map_or(End::After(self.duration), End::Answers),
            timeout: self.timeout,
            expect_status: self.expect_status,
            expect_bytes: self.expect_bytes,
            threads: self.threads,
            core: self.core,
        })
    }
}

/// A run's counts and its length.
pub struct Outcome {
    /// The counts of all threads.
    pub tally: Tally,
    /// How long was measured.
    pub measured: Duration,
}

/// Runs a plan to its end. `answered` counts right answers while it runs.
pub fn run(plan: &Plan, answered: &AtomicU64) -> Result<Outcome> {
    crate::machine::raise_file_limit();
    // Due times and the measured interval count from here on every thread; connecting belongs to the warm-up.
    let start = Instant::now();
    let results: Vec<Result<(Tally, Duration)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|index| {
                let share = share_of(plan, index);
                scope.spawn(move || {
                    let engine = Engine::new(plan, &share, answered)?;
                    engine.run(if plan.threads == 1 { Instant::now() } else { start })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a load thread panicked")))).collect()
    });
    let mut outcome = Outcome { tally: Tally::new(), measured: Duration::ZERO };
    for result in results {
        let (tally, measured) = result?;
        outcome.tally.add(&tally);
        outcome.measured = outcome.measured.max(measured);
    }
    Ok(outcome)
}

/// The part of thread `index`: connections and answers divided, due times interleaved.
fn share_of(plan: &Plan, index: usize) -> Share {
    let threads = plan.threads;
    let part = |whole: u64| whole / threads as u64 + u64::from((index as u64) < whole % threads as u64);
    Share {
        connections: part(plan.connections as u64) as usize,
        schedule: plan.rate.map(|rate| Schedule::new(rate / threads as f64, index as f64 / threads as f64)),
        answers: if let End::Answers(answers) = plan.end { Some(part(answers)) } else { None },
        core: plan.core.map(|core| core + index),
    }
}

/// Runs `ringway-bench load` and prints its result.
pub fn run_command(args: &LoadArgs) -> Result<()> {
    let plan = args.plan()?;
    let outcome = run(&plan, &AtomicU64::new(0))?;
    let cpu = crate::process::own_cpu();
    let report = summary(args, &plan, &outcome, cpu);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_text(&report, &outcome);
    }
    if outcome.tally.answers == 0 {
        bail!("no right answer came back; the faults are listed above");
    }
    Ok(())
}

fn summary(args: &LoadArgs, plan: &Plan, outcome: &Outcome, cpu: Duration) -> serde_json::Value {
    let tally = &outcome.tally;
    let seconds = outcome.measured.as_secs_f64().max(1e-9);
    let quantiles = |histogram: &hdrhistogram::Histogram<u64>| {
        serde_json::json!({
            "mean": histogram.mean() / 1000.0,
            "p50": quantile_us(histogram, 0.5),
            "p90": quantile_us(histogram, 0.9),
            "p99": quantile_us(histogram, 0.99),
            "p999": quantile_us(histogram, 0.999),
            "max": histogram.max() as f64 / 1000.0,
        })
    };
    serde_json::json!({
        "url": args.url,
        "loop": if plan.rate.is_some() { "open" } else { "closed" },
        "rate": plan.rate,
        "connections": plan.connections,
        "threads": plan.threads,
        "measured_s": seconds,
        "answers": tally.answers,
        "rps": tally.answers as f64 / seconds,
        "body_bytes_per_s": tally.body_bytes as f64 / seconds,
        "latency_us": quantiles(&tally.latency),
        "send_delay_us": plan.rate.map(|_| quantiles(&tally.send_delay)),
        "unanswered": tally.unanswered,
        "faults": tally.faults,
        "load_cpu_us_per_answer": cpu.as_secs_f64() * 1e6 / (tally.answers.max(1)) as f64,
    })
}

fn print_text(report: &serde_json::Value, outcome: &Outcome) {
    let tally = &outcome.tally;
    let number = |key: &str| report[key].as_f64().unwrap_or(0.0);
    println!("{} loop, {} connections, {:.2} s measured", report["loop"].as_str().unwrap_or(""), report["connections"], number("measured_s"));
    println!("  answers     {} ({:.0}/s, {:.1} MB/s of bodies)", tally.answers, number("rps"), number("body_bytes_per_s") / 1e6);
    let latency = |key: &str| report["latency_us"][key].as_f64().unwrap_or(0.0);
    println!(
        "  latency µs  p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
        latency("p50"),
        latency("p90"),
        latency("p99"),
        latency("p999"),
        latency("max")
    );
    if report["loop"] == "open" {
        println!("  sent late µs p99 {:.1}; unanswered {}", quantile_us(&tally.send_delay, 0.99), tally.unanswered);
    }
    println!("  faults      {} {}", tally.faults.total(), report["faults"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_plan() {
        let (address, ..) = parse_url("http://127.0.0.1:1/").expect("valid");
        let plan = Plan {
            address,
            request: request_bytes("GET", "/", "h", &[], b"").expect("valid").into(),
            is_head: false,
            connections: 10,
            rate: Some(1000.0),
            warm_up: Duration::ZERO,
            end: End::Answers(101),
            timeout: Duration::from_secs(1),
            expect_status: 200,
            expect_bytes: None,
            threads: 3,
            core: Some(1),
        };
        let shares: Vec<Share> = (0..3).map(|index| share_of(&plan, index)).collect();
        assert_eq!(shares.iter().map(|share| share.connections).sum::<usize>(), 10);
        assert_eq!(shares.iter().filter_map(|share| share.answers).sum::<u64>(), 101);
        assert_eq!(shares[2].core, Some(3));
    }
}
