//! Maps of a running gateway: `ringway map …` and `ringway tail`.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{Admin, Question, address, items, text};
use crate::cli::client::{Table, ask, follow};
use crate::cli::{GOOD, WRONG, report};
use crate::config::Problem;

/// Maps of a running gateway.
#[derive(Debug, Subcommand)]
pub enum MapCommand {
    /// Print the maps of all plugins
    List(Admin),
    /// Print the entries of a map, while traffic flows
    #[command(after_help = "The values of a core array are added up over the workers; `-j` shows each of them.\n\nExample:\n  ringway map dump counter paths")]
    Dump(OneMap),
    /// Print the value of one key
    #[command(after_help = "Examples:\n  ringway map get counter paths /index.html\n  ringway map get blocklist networks 10.1.2.3")]
    Get {
        /// Which map, and which key.
        #[command(flatten)]
        key: OneKey,
    },
    /// Set fields of the value of a key, which may be new
    #[command(after_help = "Fields that are left out keep what they have.\n\nExample:\n  ringway map set counter paths /index.html hits=0")]
    Set {
        /// Which map, and which key.
        #[command(flatten)]
        key: OneKey,
        /// A field and its value
        #[arg(value_name = "FIELD=VALUE", required = true, value_parser = field)]
        fields: Vec<(String, Value)>,
    },
    /// Remove a key
    #[command(after_help = "Example:\n  ringway map delete counter paths /index.html")]
    Delete {
        /// Which map, and which key.
        #[command(flatten)]
        key: OneKey,
    },
}

/// A map of a plugin.
#[derive(Debug, Args)]
pub struct OneMap {
    /// The plugin's name in the configuration
    #[arg(value_name = "PLUGIN")]
    pub plugin: String,
    /// The map's name
    #[arg(value_name = "MAP")]
    pub map: String,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

/// A key of a map.
#[derive(Debug, Args)]
pub struct OneKey {
    /// The plugin's name in the configuration
    #[arg(value_name = "PLUGIN")]
    pub plugin: String,
    /// The map's name
    #[arg(value_name = "MAP")]
    pub map: String,
    /// The key as `map dump` shows it: an index, a text, an address, a prefix, or 0x and hexadecimal digits
    #[arg(value_name = "KEY")]
    pub key: String,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

/// A ring to follow.
#[derive(Debug, Args)]
pub struct Tail {
    /// The plugin, when it has one ring, or PLUGIN/MAP
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

impl MapCommand {
    /// Carries it out.
    pub(in crate::cli) fn execute(self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        let question = |method, path, body, print: fn(&Value, &mut dyn Write) -> io::Result<()>| Question { method, path, body, print };
        match self {
            MapCommand::List(admin) => question("GET", "/api/maps".into(), None, print_maps).ask(&admin, out, err),
            MapCommand::Dump(map) => dump(&map, out, err),
            MapCommand::Get { key } => question("GET", key.path(), None, print_entry).ask(&key.admin, out, err),
            MapCommand::Set { key, fields } => {
                let body = Value::Object(fields.into_iter().collect::<Map<_, _>>());
                question("PUT", key.path(), Some(body), print_entry).ask(&key.admin, out, err)
            }
            MapCommand::Delete { key } => {
                question("DELETE", key.path(), None, |answer, out| writeln!(out, "{}: removed", text(&answer["removed"]))).ask(&key.admin, out, err)
            }
        }
    }
}

impl OneKey {
    fn path(&self) -> String {
        format!("/api/maps/{}/{}?key={}", escape(&self.plugin), escape(&self.map), escape(&self.key))
    }
}

impl Tail {
    /// Prints records until it is interrupted or the map is gone.
    pub(in crate::cli) fn execute(&self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        let address = address(&self.admin);
        let followed = match self.name.split_once('/') {
            Some((plugin, map)) => Ok((plugin.to_owned(), map.to_owned())),
            None => ask(&address, "GET", "/api/maps", None).and_then(|answer| only_ring(&answer, &self.name)),
        };
        let outcome = followed.and_then(|(plugin, map)| {
            follow(&address, &format!("/api/maps/{}/{}/tail", escape(&plugin), escape(&map)), |line| {
                let shown = match serde_json::from_str::<Value>(line) {
                    Ok(record) if !self.admin.json => fields_of(&record),
                    _ => line.to_owned(),
                };
                writeln!(out, "{shown}").and_then(|()| out.flush())
            })
        });
        match outcome {
            Ok(()) => Ok(GOOD),
            Err(problem) => report(err, "error", &[problem]).map(|()| WRONG),
        }
    }
}

/// The ring of a plugin that has one.
fn only_ring(answer: &Value, plugin: &str) -> Result<(String, String), Problem> {
    let rings: Vec<String> = items(&answer["maps"]).filter(|map| map["plugin"] == plugin && map["kind"] == "ring").map(|map| text(&map["name"])).collect();
    match rings.as_slice() {
        [ring] => Ok((plugin.to_owned(), ring.clone())),
        [] => Err(Problem::new(format!("there is no plugin `{plugin}` with a ring")).help("`ringway map list` shows every map")),
        several => {
            Err(Problem::new(format!("the plugin `{plugin}` has several rings")).help(format!("name one: {plugin}/{}", several.join(&format!(", {plugin}/")))))
        }
    }
}

/// All entries, page by page.
fn dump(map: &OneMap, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
    let path = format!("/api/maps/{}/{}", escape(&map.plugin), escape(&map.map));
    let (mut whole, mut from) = (Vec::new(), Value::from(0));
    let mut answer = loop {
        let page = match ask(&address(&map.admin), "GET", &format!("{path}?limit=10000&from={from}"), None) {
            Ok(page) => page,
            Err(problem) => return report(err, "error", &[problem]).map(|()| WRONG),
        };
        whole.extend(items(&page["dump"]).cloned());
        if page["next"].is_null() {
            break page;
        }
        from = page["next"].clone();
    };
    answer["dump"] = Value::Array(whole);
    if map.admin.json {
        return writeln!(out, "{answer:#}").map(|()| GOOD);
    }
    let mut rows = Vec::new();
    for entry in items(&answer["dump"]) {
        let fields = [&entry["value"], &entry["sum"]].into_iter().find_map(Value::as_object);
        if rows.is_empty() {
            let names = fields.iter().flat_map(|fields| fields.keys()).map(|name| name.to_uppercase());
            rows.push(["KEY".to_owned()].into_iter().chain(names).collect());
        }
        rows.push([text(&entry["key"])].into_iter().chain(fields.iter().flat_map(|fields| fields.values()).map(text)).collect::<Vec<_>>());
    }
    write!(out, "{}", Table(rows))?;
    writeln!(out, "{} of {} entries", items(&answer["dump"]).count(), text(&answer["entries_max"]))?;
    Ok(GOOD)
}

fn print_maps(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let head = ["PLUGIN", "MAP", "KIND", "ENTRIES", "OF", "BYTES", "PINNED", "DROPPED", "VALUE"].map(str::to_owned).to_vec();
    let rows = items(&answer["maps"]).map(|map| {
        let pinned = if map["pinned"] == true { "yes" } else { "no" };
        let cells = ["plugin", "name", "kind", "entries", "entries_max", "bytes"].map(|key| text(&map[key]));
        [
            cells.as_slice(),
            &[pinned.to_owned(), map["dropped"].as_u64().map_or_else(|| "-".to_owned(), |dropped| dropped.to_string()), text(&map["value_fields"])],
        ]
        .concat()
    });
    write!(out, "{}", Table([head].into_iter().chain(rows).collect()))
}

fn print_entry(entry: &Value, out: &mut dyn Write) -> io::Result<()> {
    if let Some(cores) = entry["cores"].as_array() {
        for (core, value) in cores.iter().enumerate() {
            writeln!(out, "core {core}: {}", fields_of(value))?;
        }
        return writeln!(out, "sum: {}", fields_of(&entry["sum"]));
    }
    writeln!(out, "{}: {}", text(&entry["key"]), fields_of(&entry["value"]))
}

fn fields_of(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten().map(|(name, value)| format!("{name}={}", text(value)));
    fields.collect::<Vec<_>>().join(" ")
}

fn field(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not FIELD=VALUE"))?;
    // A list is written as JSON; everything else is a text, which the gateway reads by the type of the field.
    let value = if value.starts_with('[') { serde_json::from_str(value).map_err(|error| format!("`{value}` is no list: {error}"))? } else { value.into() };
    Ok((name.to_owned(), value))
}

/// For a path or a query: everything but letters, digits and a few marks as `%XX`.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
