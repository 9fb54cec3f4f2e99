//! Chains of a running gateway: links, plan, costs.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Admin, address, items, text};
use crate::cli::client::{Table, ask};
use crate::cli::{GOOD, WRONG, report};
use crate::config::Problem;

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

impl ChainCommand {
    /// Carries it out.
    pub(in crate::cli) fn execute(self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        match self {
            ChainCommand::Show { route, admin } => show(route.as_deref(), &admin, out, err),
        }
    }
}

/// `ringway chain show`.
fn show(route: Option<&str>, admin: &Admin, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
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
