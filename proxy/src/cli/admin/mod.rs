//! The commands that talk to a running gateway, by topic: [`plugins`], [`capture`], [`chains`], [`crashes`], [`maps`], [`stats`], [`top`], reload.
//!
//! Owns [`Question`]: what is asked, and how the answer is printed. A topic makes its questions in a file of its own.
#![forbid(unsafe_code)]

pub mod capture;
pub mod chains;
pub mod crashes;
pub mod maps;
pub mod plugins;
pub mod stats;
pub mod top;

use std::io::{self, Write};

use clap::Args;
use serde_json::Value;

use super::client::{ADDRESS, ADDRESS_VARIABLE, ask};
use super::{GOOD, WRONG, report};

/// Which gateway, and how to print.
#[derive(Debug, Args)]
pub struct Admin {
    /// The admin address: HOST:PORT or unix:/PATH [default: $RINGWAY_ADMIN, or 127.0.0.1:9901]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// Print JSON
    #[arg(short, long)]
    pub json: bool,
}

/// What is asked of the gateway.
pub(super) struct Question {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) print: fn(&Value, &mut dyn Write) -> io::Result<()>,
}

impl Question {
    pub(super) fn reload() -> Question {
        Question { method: "POST", path: "/api/reload".into(), body: None, print: print_reloaded }
    }

    /// Asks and prints.
    pub(super) fn ask(self, admin: &Admin, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        match ask(&address(admin), self.method, &self.path, self.body.as_ref()) {
            Ok(answer) if admin.json => writeln!(out, "{answer:#}").map(|()| GOOD),
            Ok(answer) => (self.print)(&answer, out).map(|()| GOOD),
            Err(problem) => report(err, "error", &[problem]).map(|()| WRONG),
        }
    }
}

fn print_reloaded(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    for warning in items(&answer["warnings"]) {
        writeln!(out, "warning: {}\n", text(warning))?;
    }
    writeln!(out, "{}: in force", text(&answer["reloaded"]))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    }
}

fn address(admin: &Admin) -> String {
    admin.admin.clone().or_else(|| std::env::var(ADDRESS_VARIABLE).ok()).unwrap_or_else(|| ADDRESS.to_owned())
}
