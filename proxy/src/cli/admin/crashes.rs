//! `ringway crash show` and `ringway upgrade`: what concerns the processes of a gateway.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::client::ask;
use super::super::{GOOD, WRONG, report};
use super::{Admin, Question, address, text};
use crate::config::Problem;
use crate::supervisor::crash::{self, Crash};

/// Crashes of a gateway.
#[derive(Debug, Subcommand)]
pub enum CrashCommand {
    /// Print the last crashes: which plugin, which hook, where in which file
    #[command(after_help = "Examples:\n  ringway crash show\n  ringway crash show --state /var/lib/ringway -j      (the gateway need not run)")]
    Show {
        /// Read the records below this directory, the `server.state` of the configuration, instead of asking
        #[arg(long, value_name = "DIRECTORY")]
        state: Option<PathBuf>,
        /// Which gateway.
        #[command(flatten)]
        admin: Admin,
    },
}

impl CrashCommand {
    /// Asks or reads, and prints.
    pub(in crate::cli) fn execute(self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        let CrashCommand::Show { state, admin } = self;
        let found = match &state {
            Some(folder) => crash::read(folder).map_err(|error| {
                let problem = Problem::new(format!("no crash records can be read below {}", folder.display())).cause(error.to_string());
                problem.help("there are none before the first crash")
            }),
            None => ask(&address(&admin), "GET", "/api/crashes", None)
                .and_then(|answer| serde_json::from_value(answer["crashes"].clone()).map_err(|error| Problem::new(error.to_string()))),
        };
        let crashes = match found {
            Ok(crashes) => crashes,
            Err(problem) => return report(err, "error", &[problem]).map(|()| WRONG),
        };
        if admin.json {
            writeln!(out, "{:#}", json!({ "crashes": crashes }))?;
        } else if crashes.is_empty() {
            writeln!(out, "no crashes")?;
        } else {
            crashes.iter().try_for_each(|crash| print(crash, out))?;
        }
        Ok(GOOD)
    }
}

fn print(crash: &Crash, out: &mut dyn Write) -> io::Result<()> {
    let time = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(crash.unix_ms));
    let who = match (&crash.plugin, &crash.version) {
        (Some(plugin), Some(version)) => format!("plugin {plugin} {version}"),
        (Some(plugin), None) => format!("plugin {plugin}"),
        (None, _) => "no plugin ran".to_owned(),
    };
    writeln!(out, "{time}  {}  {who}", crash.signal)?;
    let location = crash.module.as_ref().zip(crash.offset.as_ref()).map(|(module, offset)| format!("{module} + {offset}"));
    let hook = crash.hook.as_ref().map(|hook| crash.link.map_or_else(|| hook.clone(), |link| format!("{hook}, link {link} of its chain")));
    let rows = [
        ("cause", &crash.cause),
        ("hook", &hook),
        ("at", &location),
        ("address", &crash.address),
        ("build id", &crash.build_id),
        ("hash", &crash.hash),
        ("request hash", &crash.request_hash),
        ("thread", &crash.thread),
        ("process", &Some(crash.pid.to_string())),
    ];
    for (key, value) in rows {
        if let Some(value) = value {
            writeln!(out, "    {key:<13} {value}")?;
        }
    }
    Ok(())
}

/// Another program for a running gateway.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// The program; without it, what the path of the running one holds by now
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Also when it undoes what was changed through the admin address and is not in the configuration file
    #[arg(long)]
    pub force: bool,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

impl Upgrade {
    /// Asks and prints.
    pub(in crate::cli) fn execute(self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        // The gateway has a working directory of its own.
        let binary = self.binary.map(|path| std::path::absolute(&path).unwrap_or(path));
        let body = if self.force { json!({ "binary": binary, "force": true }) } else { json!({ "binary": binary }) };
        let question = Question { method: "POST", path: "/api/upgrade".into(), body: Some(body), print: print_upgraded };
        question.ask(&self.admin, out, err)
    }
}

fn print_upgraded(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "upgraded: process {} serves, {} finishes what it has", text(&answer["pid"]), text(&answer["former_pid"]))
}
