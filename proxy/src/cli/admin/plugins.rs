//! Plugins of a running gateway: list, show, load, swap, unload, and what turns them off and on.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Admin, Question, items, text};
use crate::cli::client::Table;

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
    /// Begin with empty maps where those that are there do not fit the new code
    #[arg(long)]
    pub fresh_maps: bool,
    /// Try it on so many of the exchanges first, such as 10%; then `promote` or `rollback`
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "canary_worker")]
    pub canary: Option<u32>,
    /// Try it on all exchanges of one worker first; then `promote` or `rollback`
    #[arg(long, value_name = "WORKER")]
    pub canary_worker: Option<u32>,
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

fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok().filter(|percent| (1..100).contains(percent));
    number.ok_or_else(|| "not a share of the exchanges; write 1% to 99%".to_owned())
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

impl Question {
    pub(in crate::cli) fn list() -> Question {
        Question { method: "GET", path: "/api/plugins".into(), body: None, print: print_plugins }
    }

    pub(in crate::cli) fn show(name: &str) -> Question {
        Question { method: "GET", path: plugin_path(name), body: None, print: print_plugin }
    }

    /// `what`: promote, rollback, disable or enable.
    pub(in crate::cli) fn turn(name: &str, what: &str) -> Question {
        Question { method: "POST", path: format!("{}/{what}", plugin_path(name)), body: None, print: print_outcome }
    }

    pub(in crate::cli) fn load(load: &Load) -> Question {
        let body = json!({ "path": absolute(&load.file), "config": load.config, "on_error": load.on_error, "routes": load.routes });
        Question { method: "POST", path: plugin_path(&load.name), body: Some(body), print: print_outcome }
    }

    pub(in crate::cli) fn swap(swap: &Swap) -> Question {
        let maps = swap.fresh_maps.then_some("fresh");
        let canary = match (swap.canary, swap.canary_worker) {
            (Some(percent), _) => json!({ "percent": percent }),
            (None, Some(worker)) => json!({ "worker": worker }),
            (None, None) => Value::Null,
        };
        let body = json!({ "path": swap.file.as_deref().map(absolute), "config": swap.config, "canary": canary, "maps": maps });
        Question { method: "PUT", path: plugin_path(&swap.name), body: Some(body), print: print_outcome }
    }

    pub(in crate::cli) fn unload(unload: &Unload) -> Question {
        let query = if unload.force { "?force" } else { "" };
        Question { method: "DELETE", path: format!("{}{query}", plugin_path(&unload.name)), body: None, print: print_unloaded }
    }
}

fn print_plugins(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let head = ["NAME", "STATUS", "VERSION", "LANGUAGE", "GENERATION", "CALLS", "ABORTS", "ATTACHED TO"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for plugin in items(&answer["plugins"]) {
        let attached: Vec<String> = items(&plugin["attached"]).map(text).collect();
        let counted = |of: &Value| ["calls", "aborts"].map(|key| text(&of["counters"][key])).to_vec();
        let cells = ["name", "status", "version", "language", "generation"].map(|key| text(&plugin[key]));
        rows.push([cells.to_vec(), counted(plugin), vec![attached.join(", ")]].concat());
        let canary = &plugin["canary"];
        if canary.is_object() {
            let cells = [text(&plugin["name"]), "on trial".into(), text(&canary["version"]), text(&plugin["language"]), text(&canary["generation"])];
            rows.push([cells.to_vec(), counted(canary), vec![format!("{} of its exchanges", text(&canary["share"]))]].concat());
        }
    }
    for old in items(&answer["draining"]) {
        rows.push(["name", "status", "version", "language", "generation"].map(|key| text(&old[key])).to_vec());
    }
    for other in items(&answer["loading"]).chain(items(&answer["failed"])) {
        rows.push(["name", "status"].map(|key| text(&other[key])).to_vec());
    }
    write!(out, "{}", Table(rows))?;
    let leaked = items(&answer["leaked_libraries"]).count();
    if leaked > 0 {
        writeln!(out, "\n{leaked} unloaded libraries stay mapped (thread-local destructors keep them)")?;
    }
    for plugin in items(&answer["plugins"]).filter(|plugin| plugin["reason"].is_string()) {
        writeln!(out, "\n{}: {}: {}", text(&plugin["name"]), text(&plugin["status"]), text(&plugin["reason"]))?;
    }
    for plugin in items(&answer["plugins"]).chain(items(&answer["failed"])).filter(|plugin| plugin["last_error"].is_string()) {
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
    write!(out, "{}: {}, version {}, generation {}", text(&plugin["name"]), text(&plugin["status"]), text(&plugin["version"]), text(&plugin["generation"]))?;
    if let Some(canary) = plugin["canary"].as_object() {
        write!(out, "; on trial: version {}, generation {}, {}", text(&canary["version"]), text(&canary["generation"]), text(&canary["share"]))?;
    }
    writeln!(out)
}

fn print_unloaded(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let links: Vec<String> = items(&answer["links_removed"]).map(text).collect();
    let removed = if links.is_empty() { String::new() } else { format!("; removed from {}", links.join(", ")) };
    writeln!(out, "{}: unloaded{removed}", text(&answer["unloaded"]))
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
