//! The commands that talk to a running gateway: plugins, chains, reload.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{ADDRESS, ADDRESS_VARIABLE, Table, ask};
use super::{GOOD, WRONG, report};
use crate::config::Problem;

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

/// A plugin of a running gateway.
#[derive(Debug, Args)]
pub struct Named {
    /// Its name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

/// A plugin to load.
#[derive(Debug, Args)]
pub struct Load {
    /// Its name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The plugin file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its configuration, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub config: Option<Map<String, Value>>,
    /// What a failed hook does
    #[arg(long, value_name = "POLICY", value_parser = ["closed", "open"], default_value = "closed")]
    pub on_error: String,
    /// A route to which it is attached, as the last link; may be given several times
    #[arg(long = "route", value_name = "ROUTE")]
    pub routes: Vec<String>,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

/// New code or configuration for a plugin.
#[derive(Debug, Args)]
pub struct Swap {
    /// Its name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The plugin file; without it, the one it was loaded from is read again
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Its new configuration, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub config: Option<Map<String, Value>>,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

/// A plugin to unload.
#[derive(Debug, Args)]
pub struct Unload {
    /// Its name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Also when routes or listeners link it: their links are removed
    #[arg(long)]
    pub force: bool,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

/// Chains of a running gateway.
#[derive(Debug, Subcommand)]
pub enum ChainCommand {
    /// Print the plugins of each route in order, what they cost, and which of them causes which cost
    #[command(after_help = "Example:\n  ringway chain show --route /api/")]
    Show {
        /// Only this route
        #[arg(long, value_name = "ROUTE")]
        route: Option<String>,
        /// Which gateway.
        #[command(flatten)]
        admin: Admin,
    },
}

pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

/// What is asked of the gateway.
pub(super) struct Question {
    method: &'static str,
    path: String,
    body: Option<Value>,
    print: fn(&Value, &mut dyn Write) -> io::Result<()>,
}

impl Question {
    pub(super) fn list() -> Question {
        Question { method: "GET", path: "/api/plugins".into(), body: None, print: print_plugins }
    }

    pub(super) fn show(name: &str) -> Question {
        Question { method: "GET", path: plugin_path(name), body: None, print: print_plugin }
    }

    /// `what`: rollback, disable or enable.
    pub(super) fn turn(name: &str, what: &str) -> Question {
        Question { method: "POST", path: format!("{}/{what}", plugin_path(name)), body: None, print: print_outcome }
    }

    pub(super) fn load(load: &Load) -> Question {
        let body = json!({ "path": absolute(&load.file), "config": load.config, "on_error": load.on_error, "routes": load.routes });
        Question { method: "POST", path: plugin_path(&load.name), body: Some(body), print: print_outcome }
    }

    pub(super) fn swap(swap: &Swap) -> Question {
        let body = json!({ "path": swap.file.as_deref().map(absolute), "config": swap.config });
        Question { method: "PUT", path: plugin_path(&swap.name), body: Some(body), print: print_outcome }
    }

    pub(super) fn unload(unload: &Unload) -> Question {
        let query = if unload.force { "?force" } else { "" };
        Question { method: "DELETE", path: format!("{}{query}", plugin_path(&unload.name)), body: None, print: print_unloaded }
    }

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

/// `ringway chain show`.
pub(super) fn chains(route: Option<&str>, admin: &Admin, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
    let mut chains = match ask(&address(admin), "GET", "/api/chains", None) {
        Ok(chains) => chains,
        Err(problem) => return report(err, "error", &[problem]).map(|()| WRONG),
    };
    if let Some(route) = route {
        let mut found = chains["routes"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> = found.iter().map(|chain| text(&chain["route"])).collect();
        found.retain(|chain| chain["route"] == route);
        if found.is_empty() {
            let problem = Problem::new(format!("there is no route `{route}`")).help(format!("the routes are: {}", names.join(", ")));
            return report(err, "error", &[problem]).map(|()| WRONG);
        }
        chains = json!({ "routes": found });
    }
    if admin.json {
        return writeln!(out, "{chains:#}").map(|()| GOOD);
    }
    for chain in items(&chains["routes"]) {
        writeln!(out, "route {} -> {}", text(&chain["route"]), chain["upstream"].as_str().unwrap_or("plugins"))?;
        print_chain(chain, out)?;
    }
    for chain in items(&chains["listeners"]).filter(|chain| items(&chain["links"]).count() > 0) {
        writeln!(out, "listener {}", text(&chain["listener"]))?;
        print_chain(chain, out)?;
    }
    Ok(GOOD)
}

fn print_chain(chain: &Value, out: &mut dyn Write) -> io::Result<()> {
    let mut rows = Vec::new();
    for link in items(&chain["links"]) {
        let post = if link["post_always"] == true { "post_always" } else { "" };
        let calls = format!("{} calls", link["counters"]["calls"]);
        let cells = [
            text(&link["order"]),
            text(&link["plugin"]),
            text(&link["version"]),
            text(&link["status"]),
            format!("on_error={}", text(&link["on_error"])),
            calls,
        ];
        let cells = [cells.as_slice(), &[post.to_owned()]].concat();
        rows.push([vec!["  ".to_owned()], cells].concat());
    }
    write!(out, "{}", Table(rows))?;
    let plan = &chain["plan"];
    for part in ["request_head", "request_body", "response_head", "response_body"] {
        writeln!(out, "    {:<14} {}", part.replace('_', " "), text(&plan[part]))?;
    }
    for cost in items(&chain["costs"]) {
        writeln!(out, "    cost           {}", text(cost))?;
    }
    writeln!(out)
}

fn print_plugins(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let head = ["NAME", "STATUS", "VERSION", "LANGUAGE", "GENERATION", "CALLS", "ABORTS", "ATTACHED TO"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for plugin in items(&answer["plugins"]) {
        let attached: Vec<String> = items(&plugin["attached"]).map(text).collect();
        let counters = &plugin["counters"];
        let cells = ["name", "status", "version", "language", "generation"].map(|key| text(&plugin[key]));
        rows.push([cells.to_vec(), vec![text(&counters["calls"]), text(&counters["aborts"]), attached.join(", ")]].concat());
    }
    for old in items(&answer["draining"]) {
        rows.push(["name", "status", "version", "language", "generation"].map(|key| text(&old[key])).to_vec());
    }
    write!(out, "{}", Table(rows))?;
    let leaked = items(&answer["leaked_libraries"]).count();
    if leaked > 0 {
        writeln!(out, "\n{leaked} unloaded libraries stay mapped (thread-local destructors keep them)")?;
    }
    for plugin in items(&answer["plugins"]).filter(|plugin| plugin["last_error"].is_string()) {
        writeln!(out, "\n{}: the last change failed: {}", text(&plugin["name"]), text(&plugin["last_error"]))?;
    }
    Ok(())
}

fn print_plugin(plugin: &Value, out: &mut dyn Write) -> io::Result<()> {
    let Some(keys) = plugin.as_object() else { return Ok(()) };
    for (key, value) in keys {
        let value = match value {
            Value::Null => "none".to_owned(),
            Value::Array(items) if items.is_empty() => "none".to_owned(),
            Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
            Value::Object(parts) if parts.is_empty() => "none".to_owned(),
            Value::Object(parts) => parts.iter().map(|(name, part)| format!("{name}={}", text(part))).collect::<Vec<_>>().join(" "),
            value => text(value),
        };
        writeln!(out, "{:<15} {value}", key.replace('_', " "))?;
    }
    Ok(())
}

fn print_outcome(plugin: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}, version {}, generation {}", text(&plugin["name"]), text(&plugin["status"]), text(&plugin["version"]), text(&plugin["generation"]))
}

fn print_unloaded(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let links: Vec<String> = items(&answer["links_removed"]).map(text).collect();
    let removed = if links.is_empty() { String::new() } else { format!("; removed from {}", links.join(", ")) };
    writeln!(out, "{}: unloaded{removed}", text(&answer["unloaded"]))
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

fn plugin_path(name: &str) -> String {
    // A name has no byte that means something in a path; any other is refused as one that does not exist.
    let name: String = name.chars().map(|letter| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '_' }).collect();
    format!("/api/plugins/{name}")
}

/// The gateway has a working directory of its own.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn address(admin: &Admin) -> String {
    admin.admin.clone().or_else(|| std::env::var(ADDRESS_VARIABLE).ok()).unwrap_or_else(|| ADDRESS.to_owned())
}
