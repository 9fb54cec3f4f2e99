//! Benchmarks of HTTP proxies: an origin, a load generator, a comparison of peers, a report.
//!
//! Each subcommand is one module; `METHOD.md` says what is measured, how, and what is not claimed.
//! Read first: `compare/mod.rs`, then `load/engine.rs`.

mod compare;
mod http1;
mod load;
mod machine;
mod net;
mod origin;
mod process;
mod relay;
mod report;
mod ring;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "ringway-bench", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve bodies by path, delays and faults over HTTP/1.1
    Origin(origin::OriginArgs),
    /// Send requests, closed loop or at a fixed rate, and measure latencies
    #[command(args_override_self = true)]
    Load(load::LoadArgs),
    /// Compare proxies: the same load on each in turn, CPU time per request, latencies
    Compare(compare::CompareArgs),
    /// Make a Markdown table and an HTML page from a stored comparison
    Report(report::ReportArgs),
    /// Copy bytes between sockets without parsing them: the floor for a proxy
    Relay(relay::RelayArgs),
}

fn main() -> std::process::ExitCode {
    let outcome = match Cli::parse().command {
        Command::Origin(args) => origin::run(&args),
        Command::Load(args) => load::run_command(&args),
        Command::Compare(args) => compare::run_command(&args),
        Command::Report(args) => report::run_command(&args),
        Command::Relay(args) => relay::run(&args),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringway-bench: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
