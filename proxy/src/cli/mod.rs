//! The command line: what can be typed, what it prints, and the exit code.
//!
//! Owns the definitions for clap, the commands that only read files (`check`, `plugin inspect`, `config schema`) and those that
//! ask a running gateway (`plugin list` and its like, `chain show`, `map`, `tail`, `capture`, `reload`). `run` and `proxy` end in a function that the caller gives to [`execute`]. Exit codes: 0 good, 1 the input is wrong, 2 usage (clap's).
//! Results go to `out`, everything that is said about problems to `err`.
#![forbid(unsafe_code)]

mod admin;
mod check;
mod client;
mod inspect;
mod plugin;
#[cfg(test)]
mod tests;
mod verify;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::admin::Question;
use crate::config::{self, Config, ConfigErrors, Problem};
use crate::plugin::inspect::Offer;
use crate::signals::Caught;

pub use admin::Admin;
pub use admin::capture::Capture;
pub use admin::chains::ChainCommand;
pub use admin::crashes::{CrashCommand, Upgrade};
pub use admin::maps::{MapCommand, OneKey, OneMap, Tail};
pub use admin::plugins::{Load, Named, Swap, Unload};
pub use admin::stats::StatsCommand;
pub use admin::top::Top;
pub use check::inspect_plugins;
pub use plugin::PluginCommand;
pub use verify::{Time, Verify};

/// All is well.
pub const GOOD: i32 = 0;
/// The input is wrong: a file, an address, a plugin.
pub const WRONG: i32 = 1;

/// Shown by `--version`; a test keeps the ABI in step.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (plugin ABI 1.0)");

const EXAMPLES: &str = "\
Examples:
  ringway proxy --from 127.0.0.1:8080 --to 127.0.0.1:9000
      forward everything, without a configuration file
  ringway proxy --from 127.0.0.1:8080 --to 127.0.0.1:9000 --plugin target/plugins/request-id.so
      the same through a plugin
  ringway check -c ringway.toml && ringway run -c ringway.toml
      look for mistakes, then serve
  ringway plugin inspect target/plugins/request-id.so
      what a plugin is, or why it would be refused; none of its code runs
  ringway plugin verify target/plugins/request-id.so
      the same, then a dry run in a process of its own
  ringway config schema > ringway.schema.json
      completion and checking in an editor
  ringway chain show --route /api/
      which plugins of a running gateway see a request, and what each of them costs
  ringway plugin swap rate-limit target/plugins/rate-limit.so
      new code for a plugin while traffic flows
  ringway map dump counter paths
      what a plugin of a running gateway has counted
  ringway plugin swap rate-limit target/new/rate-limit.so --canary 10%
      the same, for one exchange in ten; then `plugin promote` or `plugin rollback`
  ringway top
      what each plugin does at this moment
  ringway capture --frames 100 -o traffic.frames
      exchanges to try a plugin on: `plugin verify FILE --frames traffic.frames`

Exit codes: 0 good, 1 the input is wrong, 2 wrong usage.";

/// An HTTP gateway with native plugins.
#[derive(Debug, Parser)]
#[command(name = "ringway", version = VERSION, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a configuration
    #[command(
        after_help = "Signals:\n  TERM, INT, QUIT  finish the exchanges in flight, then exit 0; a second INT ends at once\n  HUP              read the configuration again, and open the access log anew\n  USR1             open the access log anew: its file was moved away\n  USR2             go on as the program that the path of this one holds by now\n\nExample:\n  ringway run -c ringway.toml"
    )]
    Run(ConfigFile),
    /// Check a configuration and the plugins it names, without opening anything
    #[command(
        after_help = "Exits 0 when `ringway run` would start with it, 1 with every problem and its place otherwise.\n\nExample:\n  ringway check -c ringway.toml"
    )]
    Check(ConfigFile),
    /// Forward from one address to another, without a configuration file
    #[command(after_help = "Example:\n  ringway proxy --from 127.0.0.1:8080 --to 127.0.0.1:9000 --plugin target/plugins/request-id.so")]
    Proxy(Proxy),
    /// Show the gateway at work: an origin of its own, and plugins in C, Zig and Rust in one chain
    #[command(after_help = "The plugins must have been built: plugins/build\n\nExample:\n  ringway demo")]
    Demo(Demo),
    /// Look at plugin files, and at the plugins of a running gateway; load, swap and unload them
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Look at the chains of a running gateway
    #[command(subcommand)]
    Chain(ChainCommand),
    /// Look at the maps of plugins in a running gateway, and set their values
    #[command(subcommand)]
    Map(MapCommand),
    /// Print the records that a plugin of a running gateway writes, as they come
    #[command(
        after_help = "Ends with the map, or when it is interrupted. With -j each record is a line of JSON.\n\nExamples:\n  ringway tail counter\n  ringway tail counter/slow -j"
    )]
    Tail(Tail),
    /// Copy the next exchanges of a running gateway into a file, for `plugin verify` and `plugin run`
    #[command(
        after_help = "Credentials and bodies are overwritten unless `--keep-secrets` is given. Exits 1 when no exchange ended in time.\n\nExample:\n  ringway capture --frames 100 --route /api/ -o api.frames && ringway plugin run target/plugins/rate-limit.so --frames api.frames"
    )]
    Capture(Capture),
    /// Measure how long the hooks of a running gateway take
    #[command(subcommand)]
    Stats(StatsCommand),
    /// Watch the plugins of a running gateway
    #[command(after_help = "Examples:\n  ringway top\n  ringway top -n 1 -j")]
    Top(Top),
    /// Have a running gateway read its configuration again
    #[command(after_help = "Exits 1 when the configuration is wrong; nothing has changed then.\n\nExample:\n  ringway reload --admin 127.0.0.1:9901")]
    Reload(Admin),
    /// Have a running gateway go on as another program, with the same sockets and no request lost
    #[command(
        after_help = "The new program is started beside the old one and takes over when it is ready; then the old one finishes what it has. Exits 1 when that fails; nothing has changed then.\n\nExample:\n  ringway upgrade --binary target/release/ringway"
    )]
    Upgrade(Upgrade),
    /// Look at the crashes of a gateway
    #[command(subcommand)]
    Crash(CrashCommand),
    /// Help with writing configurations
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The gateway process of `ringway run`, which starts it
    #[command(hide = true)]
    Gateway {
        /// The descriptor that leads to the supervisor
        #[arg(long, value_name = "NUMBER")]
        control: i32,
    },
    /// The process of a dry run: started by `plugin verify`, of no use otherwise
    #[command(hide = true, name = crate::verify::CHILD_COMMAND)]
    DryRun,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration: TOML, or JSON when the name ends in .json
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: PathBuf,
}

/// A gateway without a file.
#[derive(Debug, Args)]
pub struct Proxy {
    /// Where to listen: IP:PORT or unix:/PATH
    #[arg(long, value_name = "ADDRESS")]
    pub from: String,
    /// Where to forward to: HOST:PORT or unix:/PATH; several are used in turn
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub to: Vec<String>,
    /// A plugin for every request; several run in this order
    #[arg(long = "plugin", value_name = "FILE")]
    pub plugins: Vec<PathBuf>,
}

/// The gateway at work.
#[derive(Debug, Args)]
pub struct Demo {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub from: String,
    /// Where the built plugins are
    #[arg(long, value_name = "DIRECTORY", default_value = "target/plugins")]
    pub plugins: PathBuf,
}

/// Help with writing configurations.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the JSON Schema of configuration files
    #[command(after_help = "Example:\n  ringway config schema > ringway.schema.json")]
    Schema,
}

/// Carries a command out. `run` serves a configuration until the process is told to end, and returns the exit code.
pub fn execute(cli: Cli, offer: &Offer, out: &mut dyn Write, err: &mut dyn Write, run: impl FnOnce(Config, Caught) -> i32) -> i32 {
    let code = match cli.command {
        Command::Run(file) => start(|| Config::load(&file.config), err, run),
        Command::Proxy(proxy) => start(|| Config::for_proxy(&proxy.from, &proxy.to, &proxy.plugins), err, run),
        Command::Demo(demo) => {
            let config = crate::demo::config(&demo.from, &demo.plugins);
            if config.is_ok() {
                // The hints are for people; whoever closed the pipe does without.
                let _ = writeln!(out, "{}", crate::demo::hints(&demo.from));
            }
            start(|| config, err, run)
        }
        Command::Check(file) => check::check(&file.config, offer, out, err),
        Command::Plugin(command) => command.execute(offer, out, err),
        Command::DryRun => Ok(crate::verify::sandbox::main()),
        Command::Map(command) => command.execute(out, err),
        Command::Tail(tail) => tail.execute(out, err),
        Command::Capture(capture) => capture.execute(out, err),
        Command::Chain(command) => command.execute(out, err),
        Command::Stats(command) => command.execute(out, err),
        Command::Top(top) => top.execute(out, err),
        Command::Reload(admin) => Question::reload().ask(&admin, out, err),
        Command::Upgrade(upgrade) => upgrade.execute(out, err),
        Command::Crash(command) => command.execute(out, err),
        Command::Config(ConfigCommand::Schema) => schema(out),
        Command::Gateway { control } => Ok(crate::supervisor::link::serve(control)),
    };
    // Nobody is left to read an error about a closed pipe.
    code.unwrap_or(WRONG)
}

/// Signals are caught before anything is read: a long configuration takes its time, and what comes meanwhile is not the end.
fn start(config: impl FnOnce() -> Result<Config, ConfigErrors>, err: &mut dyn Write, run: impl FnOnce(Config, Caught) -> i32) -> io::Result<i32> {
    let caught = match Caught::from_now_on() {
        Ok(caught) => caught,
        Err(error) => {
            writeln!(err, "error: signals cannot be handled: {error}")?;
            return Ok(WRONG);
        }
    };
    match config() {
        // `run` logs the warnings, in the form of every other log line.
        Ok(config) => Ok(run(config, caught)),
        // What a service says at its start is kept as its log is: lines of the file are for `check`, or for whoever sits there.
        Err(errors) if !io::stderr().is_terminal() => {
            errors.problems.iter().try_for_each(|problem| writeln!(err, "error: {problem}\n"))?;
            Ok(WRONG)
        }
        Err(errors) => {
            report(err, "error", &errors.problems)?;
            Ok(WRONG)
        }
    }
}

fn schema(out: &mut dyn Write) -> io::Result<i32> {
    writeln!(out, "{:#}", config::schema())?;
    Ok(GOOD)
}

/// Writes problems, each with its severity in front and an empty line between.
fn report(err: &mut dyn Write, severity: &str, problems: &[Problem]) -> io::Result<()> {
    for problem in problems {
        writeln!(err, "{severity}: {problem:#}\n")?;
    }
    Ok(())
}
