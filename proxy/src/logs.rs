//! Where log lines go: diagnostics to standard error, the access log to its own place; both written off the workers.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{AccessLog, LogFormat, LogLevel, Server};

/// Lines that may wait for the writer; more are dropped and counted, so that a slow disk never stops a worker.
const LINES_WAITING_MAX: usize = 65_536;
/// The target of access log events.
pub const ACCESS: &str = "access";

/// Keeps the writers alive: dropping it writes what waits.
pub struct Logs {
    _guards: Vec<WorkerGuard>,
}

/// Installs the subscriber for the whole process.
///
/// # Errors
/// When the access log cannot be opened.
pub fn install(server: &Server) -> io::Result<Logs> {
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
    let (writer, guard) = non_blocking(io::stderr());
    let mut guards = vec![guard];
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let layer = if human { layer.with_ansi(io::stderr().is_terminal()).boxed() } else { layer.json().flatten_event(true).boxed() };
    let diagnostics = layer.with_filter(Targets::new().with_default(level).with_target(ACCESS, LevelFilter::OFF));
    let access = access_writer(&server.access_log)?.map(|(writer, guard)| {
        guards.push(guard);
        tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(writer)
            .with_level(false)
            .with_target(false)
            .with_filter(Targets::new().with_target(ACCESS, LevelFilter::INFO))
    });
    // A second installation in one process happens in tests only; the first stays.
    let _ = tracing_subscriber::registry().with(diagnostics).with(access).try_init();
    Ok(Logs { _guards: guards })
}

fn access_writer(log: &AccessLog) -> io::Result<Option<(NonBlocking, WorkerGuard)>> {
    Ok(match log {
        AccessLog::Off => None,
        AccessLog::Stdout => Some(non_blocking(io::stdout())),
        AccessLog::File(path) => Some(non_blocking(OpenOptions::new().create(true).append(true).open(path)?)),
    })
}

fn non_blocking(to: impl io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    tracing_appender::non_blocking::NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX).finish(to)
}
