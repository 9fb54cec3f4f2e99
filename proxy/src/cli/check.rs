//! `ringway check`: would `ringway run` start with this configuration?
//!
//! Reads the configuration and every plugin file it names, and compares the two: a route that ends in a plugin needs one
//! that answers. Creates no access log, opens no socket, looks up no host name, runs no plugin code.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::Path;

use ringway_abi::raw;

use super::{GOOD, WRONG, report};
use crate::config::{Config, Link, Problem};
use crate::logs;
use crate::plugin::inspect::{Offer, PluginFacts, inspect};

pub(super) fn check(path: &Path, offer: &Offer, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            report(err, "error", &errors.problems)?;
            writeln!(err, "{}: {}", path.display(), count(errors.problems.len(), "problem"))?;
            return Ok(WRONG);
        }
    };
    report(err, "warning", &config.warnings)?;
    if let Err(reason) = logs::examine(&config.server.access_log) {
        let help = "create the folder, or give the user that the gateway runs as the right to write there";
        report(err, "error", &[Problem::new(reason).in_file(path).help(help)])?;
        writeln!(err, "{}: {}", path.display(), count(1, "problem"))?;
        return Ok(WRONG);
    }
    let (plugins, warnings) = match inspect_plugins(&config, offer) {
        Ok(inspected) => inspected,
        Err(problems) => {
            report(err, "error", &problems)?;
            writeln!(err, "{}: {}", path.display(), count(problems.len(), "problem"))?;
            return Ok(WRONG);
        }
    };
    report(err, "warning", &warnings)?;
    let parts = [(config.listeners.len(), "listener"), (config.upstreams.len(), "upstream"), (config.plugins.len(), "plugin"), (config.routes.len(), "route")];
    writeln!(out, "{}: good, with {}", path.display(), parts.map(|(number, what)| count(number, what)).join(", "))?;
    for (plugin, facts) in config.plugins.iter().zip(&plugins) {
        writeln!(out, "  plugin {}: {} {} ({}), {}", plugin.name, facts.name, facts.version, facts.language_name(), plugin.path.display())?;
    }
    Ok(GOOD)
}

/// The facts of every plugin of the configuration, by its index, and warnings; or every reason why they cannot be used.
pub fn inspect_plugins(config: &Config, offer: &Offer) -> Result<(Vec<PluginFacts>, Vec<Problem>), Vec<Problem>> {
    let mut facts = Vec::new();
    let mut problems = Vec::new();
    for plugin in config.plugins.iter() {
        match inspect(&plugin.path, offer) {
            Ok(found) => facts.push(found),
            Err(refused) => {
                let problem = refused.problem();
                problems.push(Problem { what: format!("the plugin `{}` is refused: {}", plugin.name, problem.what), ..problem });
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let source = Path::new(&*config.source);
    for route in config.routes.iter() {
        let answers = route.links.iter().any(|link| facts[link.plugin.0 as usize].wants & raw::WANT_RESPOND != 0);
        if route.upstream.is_none() && !answers {
            let problem = Problem::new(format!("the route `{}` has no `upstream`, and none of its plugins answers", route.name))
                .in_file(source)
                .cause("none of them declares `respond` in its `wants`")
                .help("add `upstream = \"NAME\"`, or a plugin that answers");
            problems.push(problem);
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let warnings = warnings(config, &facts, source);
    Ok((facts, warnings))
}

fn warnings(config: &Config, facts: &[PluginFacts], source: &Path) -> Vec<Problem> {
    let fact = |link: &Link| &facts[link.plugin.0 as usize];
    let mut warnings = Vec::new();
    let listeners = config.listeners.iter().flat_map(|listener| &listener.links).filter(|link| fact(link).hooks & raw::HOOK_ACCEPT == 0);
    for link in listeners {
        let name = &config.plugin(link.plugin).name;
        let problem = Problem::new(format!("the plugin `{name}` stands in a listener, but has no `on_accept`"));
        warnings.push(problem.in_file(source).help("name it in a route"));
    }
    let routes = config.routes.iter().flat_map(|route| &route.links).filter(|link| fact(link).hooks & !(raw::HOOK_ACCEPT | raw::HOOK_TICK) == 0);
    for link in routes {
        let name = &config.plugin(link.plugin).name;
        let problem = Problem::new(format!("the plugin `{name}` stands in a route, but has no hook that an exchange calls"));
        warnings.push(problem.in_file(source).help("name it in a listener"));
    }
    for (plugin, facts) in config.plugins.iter().zip(facts) {
        for library in &facts.unchecked {
            let problem = Problem::new(format!("the library `{library}`, which the plugin `{}` needs, was not found", plugin.name));
            warnings.push(problem.in_file(&plugin.path).cause("it may be in a folder that only the dynamic linker knows"));
        }
    }
    warnings.dedup();
    warnings
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
