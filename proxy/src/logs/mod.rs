//! Where log lines go: diagnostics to standard error, the access log to its own place; both written off the workers.
//!
//! [`install`] once for a process, then [`reopen`] when the file of the access log was moved away, [`dropped`] for the metrics and
//! [`Notice`] for whoever reads standard error. A `stream` is a bounded queue and the thread that writes it: a worker never waits for
//! a disk or a pipe, and a line that finds no room or cannot be written is counted.
#![forbid(unsafe_code)]

mod stream;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::fs::Access;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::stream::{Lines, Queue};
use crate::config::{AccessLog, LogFormat, LogLevel, Server};

/// The target of access log events.
pub const ACCESS: &str = "access";
/// Between two notices about lines that were lost.
const NOTICE_INTERVAL: Duration = Duration::from_secs(10);

/// The streams of the process.
static STREAMS: OnceLock<Streams> = OnceLock::new();

struct Streams {
    diagnostics: Queue,
    access: Option<Queue>,
}

/// Keeps the writers alive: dropping it writes what waits.
pub struct Logs {
    _guards: Vec<WorkerGuard>,
}

/// Installs the subscriber for the whole process.
///
/// # Errors
/// When the access log cannot be opened; the text names it.
pub fn install(server: &Server) -> Result<Logs, String> {
    let level = match server.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let human = match server.log_format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let colors = human && io::stderr().is_terminal();
    let error = duplicate(&io::stderr()).map_err(|error| format!("standard error cannot be used: {error}"))?;
    let form = match (human, colors) {
        (false, _) => Lines::Json,
        (true, false) => Lines::Text,
        (true, true) => Lines::Colored,
    };
    let (diagnostics, guard) = stream::start(None, Arc::clone(&error), form);
    let mut guards = vec![guard];
    let access = match &server.access_log {
        AccessLog::Off => None,
        AccessLog::Stderr => Some((None, error)),
        AccessLog::Stdout => Some((None, duplicate(&io::stdout()).map_err(|error| format!("standard output cannot be used: {error}"))?)),
        AccessLog::File(path) => Some((Some(path.clone()), Arc::new(Mutex::new(open(path).map_err(|error| refusal(path, &error))?)))),
    };
    let access = access.map(|(path, file)| {
        let (queue, guard) = stream::start(path, file, Lines::Json);
        guards.push(guard);
        queue
    });
    let layer = tracing_subscriber::fmt::layer().with_writer(diagnostics.clone()).with_target(false);
    let layer = if human { layer.with_ansi(colors).boxed() } else { layer.json().flatten_event(true).boxed() };
    let diagnostics_layer = layer.with_filter(Targets::new().with_default(level).with_target(ACCESS, LevelFilter::OFF));
    let access_layer = access.clone().map(|queue| {
        tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(queue)
            .with_level(false)
            .with_target(false)
            .with_filter(Targets::new().with_target(ACCESS, LevelFilter::INFO))
    });
    // A second installation in one process happens in tests only; the first stays.
    if tracing_subscriber::registry().with(diagnostics_layer).with(access_layer).try_init().is_ok() {
        let _ = STREAMS.set(Streams { diagnostics, access });
    }
    Ok(Logs { _guards: guards })
}

/// Opens a file for lines that are added to it.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Whether the access log could be opened, as far as that can be seen without creating it.
///
/// # Errors
/// Why not; the text names it.
pub fn examine(log: &AccessLog) -> Result<(), String> {
    let AccessLog::File(path) = log else { return Ok(()) };
    // A pipe without a reader would be waited for.
    let seen = match OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // With a slash at its end it must be a folder.
            let seen = rustix::fs::access(folder.join(""), Access::WRITE_OK | Access::EXEC_OK);
            seen.map_err(|error| format!("in {}: {}", folder.display(), io::Error::from(error)))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        opened => opened.map(drop).map_err(|error| error.to_string()),
    };
    seen.map_err(|error| refusal(path, &error))
}

/// Why there is no access log at `path`.
fn refusal(path: &Path, error: &impl fmt::Display) -> String {
    format!("server.access_log: {} cannot be opened: {error}", path.display())
}

/// A descriptor of our own for a standard stream: no buffer of the standard library is between.
fn duplicate(standard: &impl AsFd) -> io::Result<Arc<Mutex<File>>> {
    Ok(Arc::new(Mutex::new(File::from(standard.as_fd().try_clone_to_owned()?))))
}

/// Has the file of the access log opened anew, by the thread that writes it: it was moved away. When that fails, the old one stays
/// in use; the diagnostics tell either way. Without such a file nothing happens.
pub fn reopen() {
    if let Some(access) = STREAMS.get().and_then(|streams| streams.access.as_ref()) {
        access.reopen();
    }
}

/// Lines that were lost, by log: they found no room or could not be written.
pub fn dropped() -> [(&'static str, u64); 2] {
    let lost = |queue: Option<&Queue>| queue.map_or(0, |queue| queue.stream().lost());
    let streams = STREAMS.get();
    [("access", lost(streams.and_then(|streams| streams.access.as_ref()))), ("diagnostics", lost(streams.map(|streams| &streams.diagnostics)))]
}

/// Tells the diagnostics how many access lines were lost, and why: at once, then every ten seconds while it goes on.
#[derive(Debug, Default)]
pub struct Notice {
    no_room: u64,
    not_written: u64,
    last: Option<Instant>,
}

impl Notice {
    /// Looks at the counters. Called often.
    pub fn heed(&mut self) {
        let Some(access) = STREAMS.get().and_then(|streams| streams.access.as_ref()) else { return };
        let stream = access.stream();
        let (no_room, not_written) = (stream.no_room.load(Ordering::Relaxed), stream.not_written.load(Ordering::Relaxed));
        if (no_room, not_written) == (self.no_room, self.not_written) || self.last.is_some_and(|last| last.elapsed() < NOTICE_INTERVAL) {
            return;
        }
        let (waited, failed) = (no_room - self.no_room, not_written - self.not_written);
        let error = stream.error().filter(|_| failed > 0).map(|error| error.to_string());
        let slow = (waited > 0).then_some("whoever reads the log, or its disk, is too slow");
        tracing::warn!(no_room = waited, not_written = failed, error, slow, "access log lines were lost");
        *self = Notice { no_room, not_written, last: Some(Instant::now()) };
    }
}
