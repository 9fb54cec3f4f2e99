//! Whether a tree has the shape of the schema: known keys, right kinds, values in range. Reports everything at once.
//!
//! The rules are not repeated here: they are read from the JSON Schema that `file` derives, so that what `ringway config
//! schema` prints is what is enforced. Also gives back the tree as a JSON value that serde then reads, in which filled
//! variables have become numbers where numbers are meant. Must not know a single key by name.
#![forbid(unsafe_code)]

use std::ops::Range;

use serde_json::{Map, Value as Json};

use super::problem::{Problem, closest};
use super::tree::{Document, Entry, Node, Value};
use crate::limits::{duration, size};

/// The document as plain JSON; what does not fit `schema` is added to `problems`.
pub(super) fn check(document: &Document, schema: &Json, problems: &mut Vec<Problem>) -> Json {
    let mut shape = Shape { document, schema, problems };
    shape.value(&document.root, schema, &Where::Root)
}

struct Shape<'a> {
    document: &'a Document,
    schema: &'a Json,
    problems: &'a mut Vec<Problem>,
}

/// Which value is looked at, for its name in sentences.
#[derive(Clone, Copy)]
enum Where<'a> {
    Root,
    Key(&'a Where<'a>, &'a str),
    Item(&'a Where<'a>),
}

impl Where<'_> {
    /// `[server]`, `[[route]]`, `[upstream.health]`, an entry of `plugins`.
    fn section(&self) -> String {
        match self {
            Where::Root => "the file".into(),
            Where::Item(Where::Key(Where::Root, key)) => format!("[[{key}]]"),
            Where::Item(list) => format!("an entry of {}", list.name()),
            Where::Key(..) => format!("[{}]", self.dotted()),
        }
    }

    /// The key in backticks.
    fn name(&self) -> String {
        match self {
            Where::Root => "the file".into(),
            Where::Key(_, key) => format!("`{key}`"),
            Where::Item(list) => format!("an entry of {}", list.name()),
        }
    }

    fn dotted(&self) -> String {
        match self {
            Where::Root => String::new(),
            Where::Item(list) => list.dotted(),
            Where::Key(parent, key) => match parent.dotted() {
                prefix if prefix.is_empty() => (*key).to_owned(),
                prefix => format!("{prefix}.{key}"),
            },
        }
    }
}

impl Shape<'_> {
    fn report(&mut self, span: &Range<usize>, problem: Problem) {
        self.problems.push(problem.at(&self.document.name, &self.document.text, span));
    }

    fn value(&mut self, node: &Node, schema: &Json, place: &Where<'_>) -> Json {
        if *schema == Json::Bool(true) {
            return self.free(node);
        }
        let leaves = leaves(schema);
        let fits = |kind: &str| leaves.iter().copied().find(|leaf| kinds(leaf).any(|k| k == kind));
        match &node.value {
            Value::Null if fits("null").is_some() => Json::Null,
            Value::Bool(value) if fits("boolean").is_some() => Json::Bool(*value),
            Value::Integer(number) if let Some(leaf) = fits("integer") => self.number(*number, node, leaf, place),
            Value::Float(number) if fits("number").is_some() => (*number).into(),
            Value::String { text, .. } if fits("string").is_some() => self.text(text, node, &leaves, place),
            Value::String { text, filled: true } if let (Some(leaf), Ok(number)) = (fits("integer"), text.parse()) => self.number(number, node, leaf, place),
            Value::String { text, filled: true } if let (Some(_), Ok(value)) = (fits("boolean"), text.parse()) => Json::Bool(value),
            Value::Array(items) if let Some(leaf) = fits("array") => {
                let item_schema = leaf.get("items").unwrap_or(&Json::Bool(true));
                items.iter().map(|item| self.value(item, item_schema, &Where::Item(place))).collect()
            }
            Value::Table(entries) if let Some(leaf) = fits("object") => self.table(entries, node, leaf, place),
            _ => self.wrong_kind(node, &leaves, place),
        }
    }

    fn number(&mut self, number: i64, node: &Node, leaf: &Json, place: &Where<'_>) -> Json {
        let format = leaf["format"].as_str().unwrap_or_default();
        let bound = |key: &str| leaf[key].as_i64().or_else(|| leaf[key].as_u64().map(|_| i64::MAX));
        let minimum = bound("minimum").unwrap_or(if format.starts_with("uint") {
            0
        } else if format == "int32" {
            i32::MIN.into()
        } else {
            i64::MIN
        });
        let maximum = bound("maximum").unwrap_or(match format {
            "uint32" => u32::MAX.into(),
            "int32" => i32::MAX.into(),
            _ => i64::MAX,
        });
        let text = |number: i64| match (format, u32::try_from(number), usize::try_from(number)) {
            (size::FORMAT, _, Ok(bytes)) => size::text(bytes),
            (duration::FORMAT, Ok(ms), _) => duration::text(ms),
            _ => number.to_string(),
        };
        if number == 0 && minimum > 0 && format == duration::FORMAT {
            self.report(&node.span, Problem::new(format!("{} cannot be off", place.name())));
        } else if number < minimum {
            let problem = Problem::new(format!("{} is {}, below its minimum of {}", place.name(), text(number), text(minimum)));
            self.report(&node.span, problem);
        } else if number > maximum {
            let problem = Problem::new(format!("{} is {}, above its maximum of {}", place.name(), text(number), text(maximum)));
            self.report(&node.span, problem);
        }
        number.into()
    }

    fn text(&mut self, text: &str, node: &Node, leaves: &[&Json], place: &Where<'_>) -> Json {
        let words: Vec<&str> = leaves.iter().flat_map(|leaf| words(leaf)).collect();
        if !words.is_empty() && !words.contains(&text) {
            let problem = Problem::new(format!("{} cannot be `{text}`", place.name()));
            let problem = match closest(text, words) {
                Some(close) => problem.suggest(Some(close)),
                None => problem.help(one_of(leaves)),
            };
            self.report(&node.span, problem);
        }
        for leaf in leaves {
            let parsed = match leaf["format"].as_str() {
                Some(size::FORMAT) => size::parse(text).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
                Some(duration::FORMAT) => duration::parse(text).map(i64::from),
                _ => continue,
            };
            match parsed {
                Ok(number) => drop(self.number(number, node, leaf, place)),
                Err(sentence) => self.report(&node.span, Problem::new(sentence)),
            }
        }
        text.into()
    }

    fn table(&mut self, entries: &[Entry], node: &Node, leaf: &Json, place: &Where<'_>) -> Json {
        let none = Map::new();
        let properties = leaf["properties"].as_object().unwrap_or(&none);
        let mut table = Map::new();
        for entry in entries {
            let at = Where::Key(place, &entry.key);
            let schema = match (properties.get(&entry.key), &leaf["additionalProperties"]) {
                (Some(schema), _) => schema,
                (None, Json::Bool(false)) => {
                    self.unknown_key(entry, properties, place);
                    continue;
                }
                (None, Json::Null) => &Json::Bool(true),
                (None, other) => other,
            };
            // A JSON null is the same as an absent key.
            let is_required = leaf["required"].as_array().is_some_and(|keys| keys.iter().any(|key| key == &*entry.key));
            if matches!(entry.node.value, Value::Null) && *schema != Json::Bool(true) && !is_required {
                continue;
            }
            let value = self.value(&entry.node, schema, &at);
            if *schema == Json::Bool(true) || !value.is_null() {
                table.insert(entry.key.clone(), value);
            }
        }
        for key in leaf["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            // A misspelt key has its own sentence, which names this one.
            let is_misspelt = |entry: &Entry| !properties.contains_key(&entry.key) && closest(&entry.key, properties.keys().map(String::as_str)) == Some(key);
            if !entries.iter().any(|entry| entry.key == key || is_misspelt(entry)) {
                let meaning = properties[key]["description"].as_str().unwrap_or_default().trim_end_matches('.').to_owned();
                self.report(&first_line(node), Problem::new(format!("`{key}` is missing in {}", place.section())).help(format!("`{key}`: {meaning}")));
            }
        }
        Json::Object(table)
    }

    fn unknown_key(&mut self, entry: &Entry, properties: &Map<String, Json>, place: &Where<'_>) {
        let key = &entry.key;
        let problem = Problem::new(match place {
            Where::Root if matches!(entry.node.value, Value::Table(_)) => format!("unknown section [{key}]"),
            Where::Root if matches!(entry.node.value, Value::Array(_)) => format!("unknown section [[{key}]]"),
            Where::Root => format!("unknown key `{key}` outside of every section"),
            _ => format!("unknown key `{key}` in {}", place.section()),
        });
        let problem = if let Some(close) = closest(key, properties.keys().map(String::as_str)) {
            match place {
                Where::Root => problem.help(format!("did you mean {}?", section_name(close, &properties[close]))),
                _ => problem.suggest(Some(close)),
            }
        } else if let Some(home) = home_of(key, self.schema) {
            problem.help(format!("`{key}` is a key of {home}"))
        } else {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            problem.help(format!("known here: {}", known.join(", ")))
        };
        self.report(&entry.key_span, problem);
    }

    fn wrong_kind(&mut self, node: &Node, leaves: &[&Json], place: &Where<'_>) -> Json {
        let mut expected: Vec<&str> = leaves.iter().flat_map(|leaf| kinds(leaf)).filter(|kind| *kind != "null").map(kind_name).collect();
        expected.dedup();
        let problem = Problem::new(format!("{} must be {}, not {}", place.name(), expected.join(" or "), node_name(&node.value)));
        let problem = match (&node.value, place) {
            (Value::Table(_), Where::Key(Where::Root, key)) if expected == ["a list"] => {
                problem.help(format!("write `[[{key}]]` with two brackets, once for each"))
            }
            (Value::Array(_), Where::Key(Where::Root, key)) if expected == ["a table"] => problem.help(format!("write `[{key}]` with one pair of brackets")),
            (Value::String { text, .. }, _) if expected == ["a list"] => problem.help(format!("write `[\"{text}\"]`")),
            (Value::Integer(number), _) if leaves.iter().any(|leaf| leaf["format"] == duration::FORMAT) => {
                problem.help(format!("write \"{number}s\" or \"{number}ms\""))
            }
            (Value::String { text, filled: false }, _) if expected == ["a whole number"] && text.parse::<i64>().is_ok() => {
                problem.help("write it without the quotation marks")
            }
            _ if leaves.iter().any(|leaf| words(leaf).next().is_some()) => problem.help(one_of(leaves)),
            _ => problem,
        };
        self.report(&first_line(node), problem);
        Json::Null
    }

    /// A value that no schema describes: the `config` of a plugin.
    fn free(&mut self, node: &Node) -> Json {
        match &node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) if number.is_finite() => (*number).into(),
            Value::Float(_) => {
                self.report(&node.span, Problem::new("JSON, in which plugins receive their configuration, has no such number"));
                Json::Null
            }
            Value::String { text, .. } => text.as_str().into(),
            Value::Array(items) => items.iter().map(|item| self.free(item)).collect(),
            Value::Table(entries) => Json::Object(entries.iter().map(|entry| (entry.key.clone(), self.free(&entry.node))).collect()),
        }
    }
}

/// The alternatives of a schema, nested ones too.
fn leaves(schema: &Json) -> Vec<&Json> {
    match schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
        Some(alternatives) => alternatives.iter().flat_map(leaves).collect(),
        None => vec![schema],
    }
}

fn kinds(leaf: &Json) -> impl Iterator<Item = &str> {
    let several = leaf["type"].as_array().into_iter().flatten().filter_map(Json::as_str);
    leaf["type"].as_str().into_iter().chain(several)
}

fn words(leaf: &Json) -> impl Iterator<Item = &str> {
    let several = leaf["enum"].as_array().into_iter().flatten().filter_map(Json::as_str);
    leaf["const"].as_str().into_iter().chain(several)
}

fn one_of(leaves: &[&Json]) -> String {
    format!("write one of \"{}\"", leaves.iter().flat_map(|leaf| words(leaf)).collect::<Vec<_>>().join("\", \""))
}

fn kind_name(kind: &str) -> &'static str {
    match kind {
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a table",
    }
}

fn node_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::String { .. } => "a string",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The first character of a table, so that no whole section is underlined; any other value whole.
fn first_line(node: &Node) -> Range<usize> {
    match node.value {
        Value::Table(_) | Value::Array(_) => node.span.start..node.span.start,
        _ => node.span.clone(),
    }
}

/// The section that has the key.
fn home_of(key: &str, schema: &Json) -> Option<String> {
    let has = |table: &Json| table["properties"].get(key).is_some();
    let sections = schema["properties"].as_object()?;
    sections.iter().find(|(_, section)| has(section) || has(&section["items"])).map(|(name, section)| section_name(name, section))
}

fn section_name(name: &str, section: &Json) -> String {
    if section["type"] == "array" { format!("[[{name}]]") } else { format!("[{name}]") }
}
