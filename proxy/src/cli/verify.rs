//! `ringway plugin verify` and `ringway plugin run`: a plugin in a process of its own, one line per check or per hook.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::admin::plugins::object;
use super::client::Table;
use super::{GOOD, WRONG, report};
use crate::config::Problem;
use crate::limits::{self, CAPTURE_FILE_BYTES_MAX};
use crate::plugin::dry::frames::Sample;
use crate::plugin::inspect::Offer;
use crate::verify::frames::{self, FileFault};
use crate::verify::{self, Options, Report};

/// A plugin to verify.
#[derive(Debug, Args)]
pub struct Verify {
    /// The plugin file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its configuration, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub config: Option<Map<String, Value>>,
    /// Frames of `ringway capture`, which run after the golden ones
    #[arg(long, value_name = "FILE")]
    pub frames: Option<PathBuf>,
    /// How long one call of the plugin may take
    #[arg(long, value_name = "DURATION", value_parser = limits::duration::parse)]
    pub timeout: Option<u32>,
    /// Print JSON
    #[arg(short, long)]
    pub json: bool,
}

/// A plugin to time.
#[derive(Debug, Args)]
pub struct Time {
    /// The plugin file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its configuration, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub config: Option<Map<String, Value>>,
    /// Frames of `ringway capture`, instead of the golden ones
    #[arg(long, value_name = "FILE")]
    pub frames: Option<PathBuf>,
    /// How often each frame runs
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub repeat: u64,
    /// Print JSON
    #[arg(short, long)]
    pub json: bool,
}

fn options(config: Option<&Map<String, Value>>) -> Options {
    Options::new(config.map_or_else(|| "{}".to_owned(), |config| Value::Object(config.clone()).to_string()))
}

/// The frames of a file, each of them checked.
fn captured(path: &Path) -> Result<Vec<Sample>, Problem> {
    let unreadable = |error: io::Error| Problem::new("the frames cannot be read").in_file(path).cause(error.to_string());
    let mut file = Vec::new();
    let bound = CAPTURE_FILE_BYTES_MAX as u64;
    let count = File::open(path).and_then(|from| from.take(bound + 1).read_to_end(&mut file)).map_err(unreadable)?;
    if count as u64 > bound {
        return Err(unreadable(io::Error::other(format!("it has more than {} bytes", CAPTURE_FILE_BYTES_MAX))));
    }
    let unusable = |fault: FileFault| Problem::new("the frames cannot be used").in_file(path).cause(fault.to_string());
    frames::read(&file).map(|frames| frames.samples).map_err(|fault| unusable(fault).help("make the file anew: ringway capture"))
}

/// `ringway plugin verify`.
pub(super) fn verify(asked: &Verify, offer: &Offer, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
    let mut options = options(asked.config.as_ref());
    if let Some(ms @ 1..) = asked.timeout {
        options.step_ms = u64::from(ms);
    }
    match asked.frames.as_deref().map(captured).transpose() {
        Ok(captured) => options.frames.extend(captured.into_iter().flatten()),
        Err(problem) => return report(err, "error", &[problem]).map(|()| WRONG),
    }
    let made = match verify::verify(&asked.file, &options, offer) {
        Ok(made) => made,
        Err(error) => return unable(&asked.file, &error, err),
    };
    if asked.json {
        writeln!(out, "{:#}", as_json(&asked.file, &made))?;
    } else {
        writeln!(out, "{}", asked.file.display())?;
        for check in &made.checks {
            writeln!(out, "  {:<8} {:<30} {}", if check.good { "ok" } else { "REFUSED" }, check.name, check.detail)?;
        }
        explain(&made, err)?;
    }
    Ok(if made.is_good() { GOOD } else { WRONG })
}

/// `ringway plugin run`.
pub(super) fn time(asked: &Time, offer: &Offer, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
    let mut options = Options { repeat: Some(asked.repeat), ..options(asked.config.as_ref()) };
    match asked.frames.as_deref().map(captured).transpose() {
        Ok(captured) => options.frames = captured.unwrap_or(options.frames),
        Err(problem) => return report(err, "error", &[problem]).map(|()| WRONG),
    }
    let made = match verify::verify(&asked.file, &options, offer) {
        Ok(made) => made,
        Err(error) => return unable(&asked.file, &error, err),
    };
    if asked.json {
        writeln!(out, "{:#}", as_json(&asked.file, &made))?;
    } else {
        let head = ["frame", "hook", "calls", "min ns", "median ns", "p99 ns", "verdicts"].map(str::to_owned).to_vec();
        let rows = made.timed.iter().map(|timed| {
            let verdicts: Vec<String> = timed.verdicts.iter().map(|(verdict, count)| format!("{verdict} ×{count}")).collect();
            let numbers = [timed.calls, timed.min_ns, timed.median_ns, timed.p99_ns].map(|number| number.to_string());
            [vec![timed.frame.clone(), timed.hook.clone()], numbers.to_vec(), vec![verdicts.join(", ")]].concat()
        });
        write!(out, "{}", Table(std::iter::once(head).chain(rows).collect()))?;
        if let Some(refusal) = made.refusal() {
            report(err, "refused", &[Problem::new(refusal.to_owned()).in_file(&asked.file)])?;
        }
        explain(&made, err)?;
    }
    Ok(if made.is_good() { GOOD } else { WRONG })
}

fn unable(file: &Path, error: &io::Error, err: &mut dyn Write) -> io::Result<i32> {
    report(err, "error", &[Problem::new("the dry run could not be made").in_file(file).cause(error.to_string())])?;
    Ok(WRONG)
}

/// What a refusal leaves to say.
fn explain(made: &Report, err: &mut dyn Write) -> io::Result<()> {
    if let Some(refused) = &made.refused {
        let problem = refused.problem();
        for (label, text) in [("cause", problem.cause), ("help", problem.help)] {
            if let Some(text) = text {
                writeln!(err, "  {label}: {text}")?;
            }
        }
    }
    for line in made.printed.lines() {
        writeln!(err, "  printed: {line}")?;
    }
    Ok(())
}

fn as_json(file: &Path, made: &Report) -> Value {
    let checks: Vec<Value> = made.checks.iter().map(|check| json!({ "check": check.name, "good": check.good, "detail": check.detail })).collect();
    let hooks: Vec<Value> = made
        .timed
        .iter()
        .map(|timed| {
            let verdicts: Map<String, Value> = timed.verdicts.iter().map(|(verdict, count)| (verdict.clone(), json!(count))).collect();
            json!({
                "frame": timed.frame,
                "hook": timed.hook,
                "calls": timed.calls,
                "min_ns": timed.min_ns,
                "median_ns": timed.median_ns,
                "p99_ns": timed.p99_ns,
                "verdicts": verdicts,
            })
        })
        .collect();
    json!({
        "file": file,
        "good": made.is_good(),
        "refusal": made.refusal(),
        "name": made.facts.as_ref().map(|facts| &facts.name),
        "sha256": made.facts.as_ref().map(|facts| &facts.file_hash),
        "checks": checks,
        "hooks": hooks,
        "printed": made.printed,
    })
}
