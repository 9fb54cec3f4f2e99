//! Configuration: TOML or JSON in, one checked [`Config`] out.
//!
//! The way of a file: `tree` parses it and fills in variables, `shape` compares it with the schema of `file`, serde reads
//! it into the structs of `file`, `resolve` checks what concerns several keys and builds the [`Config`] of `model`. Each
//! step reports every problem it finds; the next one starts only without any.
//!
//! Must not: open sockets, resolve host names, load plugins. Read first: `file`, which is the schema.
#![forbid(unsafe_code)]

mod address;
mod file;
mod model;
mod problem;
#[cfg(test)]
mod reference;
mod resolve;
mod routes;
mod shape;
#[cfg(test)]
mod tests;
mod tree;
mod upstreams;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub use address::{ConnectTarget, HostPattern, ListenAddress, PathPattern, ServerAddress};
pub use model::*;
pub use problem::{ConfigErrors, Place, Problem, closest};
pub use resolve::{CHAIN_LINKS_MAX, is_name};
pub use tree::Step as Key;

impl Config {
    /// Reads and checks a file; variables come from the environment.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let text = std::fs::read(path).map_err(|error| {
            let problem = Problem::new("the configuration cannot be read").in_file(path).cause(error.to_string());
            match error.kind() {
                std::io::ErrorKind::NotFound => problem.help("give its path with `-c FILE`"),
                _ => problem,
            }
        })?;
        let text = String::from_utf8(text).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count() + 1;
            Problem::new(format!("the configuration is not UTF-8: line {line} holds other bytes")).in_file(path)
        })?;
        Config::of_file(path, &text)
    }

    /// Checks what was read from a file; variables come from the environment.
    pub fn of_file(path: &Path, text: &str) -> Result<Config, ConfigErrors> {
        let config = Config::parse(&path.display().to_string(), text, &|variable| std::env::var(variable).ok())?;
        Ok(Config { file: Some(path.into()), text: Some(text.into()), ..config })
    }

    /// A problem with the value at `keys` of the file that this came from, with its place as the file stands now.
    pub fn problem_at(&self, keys: &[Key<'_>], problem: Problem) -> Problem {
        let Some(path) = &self.file else { return problem };
        match std::fs::read_to_string(path).map(|text| tree::Document::parse(&self.source, &text)) {
            Ok(Ok(document)) => document.at(keys, problem),
            _ => problem.in_file(path),
        }
    }

    /// Checks a text. The extension of `name` says its syntax: `.json`, else TOML. `variable` gives the value of `${NAME}`.
    pub fn parse(name: &str, text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
        let mut document = tree::Document::parse(name, text).map_err(ConfigErrors::new)?;
        let mut problems = Vec::new();
        document.fill(variable, &mut problems);
        let value = shape::check(&document, &SCHEMA, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigErrors::new(problems));
        }
        let file: file::File = serde_json::from_value(value).map_err(|error| {
            // `shape` has seen everything that serde looks at; should they ever differ, the operator still gets a sentence.
            Problem::new(error.to_string()).in_file(Path::new(name))
        })?;
        resolve::resolve(file, name, Some(&document))
    }

    /// The configuration of `ringway proxy`: one listener, one upstream, one route with all plugins.
    pub fn for_proxy(from: &str, to: &[String], plugins: &[PathBuf]) -> Result<Config, ConfigErrors> {
        let mut names: Vec<String> = Vec::new();
        for path in plugins {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let plain: String =
                stem.chars().map(|letter| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' }).take(56).collect();
            let again = names.iter().filter(|name| name.as_str() == plain || name.starts_with(&format!("{plain}-"))).count();
            names.push(if again == 0 { plain } else { format!("{plain}-{}", again + 1) });
        }
        let link = |name: &String| serde_json::json!(name);
        let file = serde_json::json!({
            "listener": [{ "address": from, "plugins": names.iter().map(link).collect::<Vec<_>>() }],
            "upstream": [{ "name": "upstream", "servers": to }],
            "plugin": names.iter().zip(plugins).map(|(name, path)| serde_json::json!({ "name": name, "path": path })).collect::<Vec<_>>(),
            "route": [{ "upstream": "upstream", "plugins": names.iter().map(link).collect::<Vec<_>>() }],
        });
        let file = serde_json::from_value(file).map_err(|error| Problem::new(error.to_string()))?;
        resolve::resolve(file, "the command line", None)
    }
}

/// The JSON Schema (2020-12) of a configuration file, as `ringway config schema` prints it.
pub fn schema() -> &'static serde_json::Value {
    &SCHEMA
}

static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(|| {
    let inline = |settings: &mut schemars::generate::SchemaSettings| settings.inline_subschemas = true;
    schemars::generate::SchemaSettings::draft2020_12().with(inline).into_generator().into_root_schema_for::<file::File>().to_value()
});
