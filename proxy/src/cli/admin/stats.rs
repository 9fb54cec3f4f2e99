//! `ringway stats`: whether hooks are measured.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::Value;

use super::{Admin, Question, text};

/// How long hooks take.
#[derive(Debug, Subcommand)]
pub enum StatsCommand {
    /// Measure one call in 64 of every hook: `plugin show`, `top` and the metrics then show times
    #[command(after_help = "Example:\n  ringway stats on && ringway top")]
    On(Admin),
    /// Stop measuring; what was measured stays
    Off(Admin),
    /// Print whether hooks are measured
    Show(Admin),
}

impl StatsCommand {
    /// Carries it out.
    pub(in crate::cli) fn execute(self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        let (admin, method, path) = match self {
            StatsCommand::On(admin) => (admin, "POST", "/api/stats/on"),
            StatsCommand::Off(admin) => (admin, "POST", "/api/stats/off"),
            StatsCommand::Show(admin) => (admin, "GET", "/api/stats"),
        };
        Question { method, path: path.into(), body: None, print }.ask(&admin, out, err)
    }
}

fn print(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    match answer["stats"] == true {
        true => writeln!(out, "stats: on, one call in {}", text(&answer["sample_every"])),
        false => writeln!(out, "stats: off"),
    }
}
