//! Verifying a plugin: what its file says, then a dry run in a process of its own.
//!
//! Owns the order of the checks and the process: `inspect` first, no plugin code; then [`sandbox`] in a child that is this very
//! program again, killed when it takes too long; what it says ([`Said`]) and how it ends become checks. Whatever a plugin does
//! there, the process that asked goes on. [`frames`] reads exchanges that were captured from traffic. Must not: load the plugin here.
//!
//! What a good outcome means: compatible, well-formed, and it behaved on these frames. Not: memory-safe, or that it always returns.
#![forbid(unsafe_code)]

pub mod frames;
pub mod sandbox;

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringway_abi::raw;

use crate::limits;
use crate::plugin::dry::Job;
use crate::plugin::dry::frames::{Sample, golden};
use crate::plugin::dry::said::{Found, Said, Step, Timed, Touched};
use crate::plugin::inspect::{CHECKS, Offer, PluginFacts, Refused, inspect_bytes};
use crate::plugin::loaded::{default_store, private_copy};

/// The hidden command that a child is started with.
pub const CHILD_COMMAND: &str = "dry-run-child";

/// What to verify with.
#[derive(Debug, Clone)]
pub struct Options {
    /// JSON for `load`.
    pub config: String,
    /// The exchanges.
    pub frames: Vec<Sample>,
    /// How long one call of the plugin may take.
    pub step_ms: u64,
    /// Time the hooks over so many rounds instead of watching them.
    pub repeat: Option<u64>,
}

impl Options {
    /// The golden frames, and the default bounds.
    pub fn new(config: impl Into<String>) -> Options {
        Options { config: config.into(), frames: golden(), step_ms: limits::VERIFY_STEP_MS, repeat: None }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it is good; the last check of a report may not be.
    pub good: bool,
    /// What was seen, or why the plugin is refused.
    pub detail: String,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// What hooks took.
    pub timed: Vec<Timed>,
    /// What the file says, when it was accepted.
    pub facts: Option<PluginFacts>,
    /// The refusal of the file, with its cause and help.
    pub refused: Option<Refused>,
    /// What the plugin printed, when it was refused; its end.
    pub printed: String,
}

impl Report {
    /// Whether every check is good.
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.good)
    }

    /// Why the plugin is refused.
    pub fn refusal(&self) -> Option<&str> {
        self.checks.iter().find(|check| !check.good).map(|check| check.detail.as_str())
    }

    fn good(&mut self, name: &str, detail: impl Into<String>) {
        self.checks.push(Check { name: name.to_owned(), good: true, detail: detail.into() });
    }

    fn bad(&mut self, name: &str, detail: impl Into<String>) {
        self.checks.push(Check { name: name.to_owned(), good: false, detail: detail.into() });
    }
}

/// Verifies the file at `path`.
///
/// # Errors
/// When the dry run could not be made: nothing is said about the plugin then.
pub fn verify(path: &Path, options: &Options, offer: &Offer) -> io::Result<Report> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let mut report = Report::default();
            report.bad("file", format!("the plugin cannot be read: {error}"));
            return Ok(report);
        }
    };
    verify_bytes(path, &bytes, options, offer)
}

/// The same for a file that has been read.
///
/// # Errors
/// As for [`verify`].
pub fn verify_bytes(path: &Path, bytes: &[u8], options: &Options, offer: &Offer) -> io::Result<Report> {
    let mut report = Report::default();
    let facts = match inspect_bytes(bytes, offer) {
        Ok(facts) => facts,
        Err(refusal) => {
            let failed = CHECKS.iter().position(|check| *check == refusal.check()).unwrap_or(0);
            CHECKS[..failed].iter().for_each(|check| report.good(check, "as it should be"));
            report.bad(refusal.check(), refusal.to_string());
            report.refused = Some(Refused { path: path.to_owned(), refusal });
            return Ok(report);
        }
    };
    for check in CHECKS {
        report.good(check, facts.detail(check));
    }
    let store = default_store();
    private_copy(&store, &facts.file_hash, bytes)?;
    let job = Job { hash: facts.file_hash.clone(), config: options.config.clone(), store, frames: options.frames.clone(), repeat: options.repeat };
    report.facts = Some(facts);
    rehearse(&job, options.step_ms, &mut report)?;
    Ok(report)
}

/// A dry run in a child, as far as it is known here.
struct Rehearsal {
    child: Child,
    said: mpsc::Receiver<Said>,
    printed: JoinHandle<String>,
    /// What began last.
    step: Step,
    /// Where the library lies.
    mapped: Option<(u64, u64)>,
}

fn rehearse(job: &Job, step_ms: u64, report: &mut Report) -> io::Result<()> {
    let mut rehearsal = Rehearsal::start(job)?;
    let outcome = rehearsal.follow(step_ms, report);
    // Whatever it was doing, it is over.
    let _ = rehearsal.child.kill();
    let status = rehearsal.child.wait()?;
    let printed = rehearsal.printed.join().unwrap_or_default();
    let found = match outcome {
        Outcome::Good => return Ok(()),
        Outcome::Unable(why) => return Err(io::Error::other(why)),
        Outcome::Found(found) => found,
        Outcome::Ended => match (status.code(), status.signal()) {
            (Some(code), _) => Found::Exit(rehearsal.step, code),
            (None, Some(libc::SIGXFSZ)) => Found::FileWritten(rehearsal.step),
            (None, signal) => Found::Killed(rehearsal.step, signal.unwrap_or(0)),
        },
    };
    report.printed = printed;
    report.bad("dry run", found.to_string());
    Ok(())
}

enum Outcome {
    Good,
    Found(Found),
    Unable(String),
    /// The process ended without a word.
    Ended,
}

impl Rehearsal {
    fn start(job: &Job) -> io::Result<Rehearsal> {
        // The same program, even if its file has been replaced.
        let program = PathBuf::from("/proc/self/exe");
        let mut child = Command::new(program).arg(CHILD_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(mut stdin) = stdin {
            // A child that ended before it read everything is noticed by its end.
            let _ = stdin.write_all(&serde_json::to_vec(job)?);
        }
        let (send, said) = mpsc::channel();
        thread::Builder::new().name("verify".into()).spawn(move || {
            for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok).filter(|line| !line.is_empty()) {
                let Ok(said) = serde_json::from_str(&line) else { return };
                if send.send(said).is_err() {
                    return;
                }
            }
        })?;
        let printed = thread::Builder::new().name("verify-output".into()).spawn(move || stderr.map_or_else(String::new, read_end))?;
        Ok(Rehearsal { child, said, printed, step: Step { function: "load".into(), frame: None }, mapped: None })
    }

    fn follow(&mut self, step_ms: u64, report: &mut Report) -> Outcome {
        loop {
            match self.said.recv_timeout(Duration::from_millis(step_ms)) {
                Ok(Said::At(step)) => self.step = step,
                Ok(Said::Mapped { from, to }) => self.mapped = Some((from, to)),
                Ok(Said::Good { name, detail }) => report.good(&name, detail),
                Ok(Said::Timed(timed)) => report.timed.push(timed),
                Ok(Said::Found(found)) => return Outcome::Found(found),
                Ok(Said::Signal { hook, number, address, pc, place }) => return Outcome::Found(self.died(hook, number, address, pc, place)),
                Ok(Said::Unable(why)) => return Outcome::Unable(why),
                Ok(Said::End) => return Outcome::Good,
                Err(RecvTimeoutError::Timeout) => return Outcome::Found(Found::Hang(self.step.clone(), step_ms)),
                Err(RecvTimeoutError::Disconnected) => return Outcome::Ended,
            }
        }
    }

    fn died(&self, hook: u32, number: i32, address: u64, pc: u64, place: Touched) -> Found {
        let mut step = self.step.clone();
        if let Some((_, name)) = raw::HOOKS.iter().find(|(bit, _)| *bit == hook) {
            step.function = (*name).to_owned();
        }
        match place {
            _ if number == libc::SIGABRT => Found::AbortCalled(step),
            Touched::Inside(what) => Found::Wrote(step, what),
            Touched::Behind(what, bytes) => Found::BeyondEnd(step, what, bytes),
            Touched::Past => Found::UsedPast(step),
            Touched::Stack => Found::StackOverflow(step),
            Touched::Elsewhere => {
                let inside = self.mapped.filter(|(from, to)| (*from..*to).contains(&pc)).map(|(from, _)| pc - from);
                let address = matches!(number, libc::SIGSEGV | libc::SIGBUS).then_some(address);
                Found::Signal(step, signal_name(number).to_owned(), address, inside)
            }
        }
    }
}

fn signal_name(number: i32) -> &'static str {
    match number {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGTRAP => "SIGTRAP",
        _ => "a fatal signal",
    }
}

/// The last bytes of what is printed; the rest is read and forgotten, so that nobody waits for a full pipe.
fn read_end(mut from: impl Read) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = from.read(&mut piece) {
        kept.extend_from_slice(&piece[..count]);
        let surplus = kept.len().saturating_sub(limits::VERIFY_OUTPUT_BYTES);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
