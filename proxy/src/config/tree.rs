//! A TOML or JSON text as one kind of tree, in which every key and value knows its place.
//!
//! Owns parsing, the `${NAME}` filling of strings, and finding the place of a value by its path. Must not know the schema:
//! `shape` does. Invariant: every span lies within the text it was parsed from.
#![forbid(unsafe_code)]

use std::ops::Range;

use jsonc_parser::ast;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;

/// A value and where it stands, in bytes of the text.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub span: Range<usize>,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// `filled`: a variable stood in it, so a number or truth value may be meant.
    String {
        text: String,
        filled: bool,
    },
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub node: Node,
}

/// A step of the path to a value.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The value of this key of a table.
    Key(&'a str),
    /// This entry of a list.
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Step<'a> {
        Step::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

/// A file: its name as the operator wrote it, its text, its tree.
#[derive(Debug)]
pub(super) struct Document {
    pub name: String,
    pub text: String,
    pub root: Node,
}

impl Document {
    /// Parses `text`; as JSON when `name` ends in `.json`, else as TOML.
    pub fn parse(name: &str, text: &str) -> Result<Document, Vec<Problem>> {
        // An editor on another system may put a byte order mark in front, which neither format knows.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let json = name.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("json"));
        let root = if json { parse_json(text) } else { parse_toml(text) };
        match root {
            Ok(root) => Ok(Document { name: name.to_owned(), text: text.to_owned(), root }),
            Err(faults) => Err(faults.into_iter().map(|(span, problem)| problem.at(name, text, &span)).collect()),
        }
    }

    /// `problem` at the value of `path`; where the path ends early, at the last part that is there.
    pub fn at(&self, path: &[Step<'_>], problem: Problem) -> Problem {
        let mut node = &self.root;
        let mut span = 0..0;
        for step in path {
            let next = match (&node.value, step) {
                (Value::Table(entries), Step::Key(key)) => entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.node),
                (Value::Array(items), Step::Index(index)) => items.get(*index),
                _ => None,
            };
            let Some(next) = next else { break };
            (node, span) = (next, next.span.clone());
        }
        problem.at(&self.name, &self.text, &span)
    }

    /// Whether a value stands at `path`.
    pub fn has(&self, path: &[&str]) -> bool {
        let mut node = &self.root;
        for key in path {
            let Value::Table(entries) = &node.value else { return false };
            let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { return false };
            node = &entry.node;
        }
        true
    }

    /// Fills `${NAME}` and `${NAME:-default}` in every string; `$${` stands for a plain `${`.
    pub fn fill(&mut self, variable: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
        let mut root = std::mem::replace(&mut self.root, Node { span: 0..0, value: Value::Null });
        fill_node(&mut root, variable, &mut |span, problem| problems.push(problem.at(&self.name, &self.text, span)));
        self.root = root;
    }
}

type Faults = Vec<(Range<usize>, Problem)>;

fn parse_toml(text: &str) -> Result<Node, Faults> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut faults: Faults = errors.iter().map(|error| (error.span().unwrap_or(0..0), Problem::new(format!("no valid TOML: {}", error.message())))).collect();
    let span = table.span();
    let node = Node { span, value: toml_table(table.into_inner(), &mut faults) };
    if faults.is_empty() { Ok(node) } else { Err(faults) }
}

fn toml_table(table: DeTable<'_>, faults: &mut Faults) -> Value {
    let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| {
        let key_span = key.span();
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        Entry { key: key.into_owned(), key_span, node: toml_node(value, faults) }
    };
    Value::Table(table.into_iter().map(entry).collect())
}

fn toml_node(value: Spanned<DeValue<'_>>, faults: &mut Faults) -> Node {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String { text: text.into_owned(), filled: false },
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                faults.push((span.clone(), Problem::new("the number is too large")));
                Value::Null
            }
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Datetime(time) => Value::String { text: time.to_string(), filled: false },
        DeValue::Array(items) => Value::Array(items.into_iter().map(|item| toml_node(item, faults)).collect()),
        DeValue::Table(table) => toml_table(table, faults),
    };
    Node { span, value }
}

fn parse_json(text: &str) -> Result<Node, Faults> {
    let strict = jsonc_parser::ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let parsed = jsonc_parser::parse_to_ast(text, &jsonc_parser::CollectOptions::default(), &strict).map_err(|error| {
        let sentence = error.kind().to_string();
        vec![(error.range().start..error.range().end, Problem::new(format!("no valid JSON: {}", lower_first(&sentence))))]
    })?;
    let mut faults = Faults::new();
    let node = match parsed.value {
        Some(value) => json_node(value, &mut faults),
        None => return Err(vec![(0..0, Problem::new("no valid JSON: the file is empty"))]),
    };
    if faults.is_empty() { Ok(node) } else { Err(faults) }
}

fn json_node(value: ast::Value<'_>, faults: &mut Faults) -> Node {
    let range = |range: &jsonc_parser::common::Range| range.start..range.end;
    match value {
        ast::Value::StringLit(lit) => Node { span: range(&lit.range), value: Value::String { text: lit.value.into_owned(), filled: false } },
        ast::Value::BooleanLit(lit) => Node { span: range(&lit.range), value: Value::Bool(lit.value) },
        ast::Value::NullKeyword(lit) => Node { span: range(&lit.range), value: Value::Null },
        ast::Value::NumberLit(lit) => {
            let value = match (lit.value.parse::<i64>(), lit.value.parse::<f64>()) {
                (Ok(number), _) => Value::Integer(number),
                (_, Ok(number)) if lit.value.contains(['.', 'e', 'E']) => Value::Float(number),
                _ => {
                    faults.push((range(&lit.range), Problem::new("the number is too large")));
                    Value::Null
                }
            };
            Node { span: range(&lit.range), value }
        }
        ast::Value::Array(array) => {
            Node { span: range(&array.range), value: Value::Array(array.elements.into_iter().map(|item| json_node(item, faults)).collect()) }
        }
        ast::Value::Object(object) => {
            let span = range(&object.range);
            let mut entries: Vec<Entry> = Vec::new();
            for property in object.properties {
                let (key, key_span) = match property.name {
                    ast::ObjectPropName::String(lit) => (lit.value.into_owned(), range(&lit.range)),
                    ast::ObjectPropName::Word(word) => (word.value.to_owned(), range(&word.range)),
                };
                if entries.iter().any(|entry| entry.key == key) {
                    faults.push((key_span.clone(), Problem::new(format!("the key `{key}` stands here a second time"))));
                }
                entries.push(Entry { key, key_span, node: json_node(property.value, faults) });
            }
            Node { span, value: Value::Table(entries) }
        }
    }
}

fn lower_first(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn fill_node(node: &mut Node, variable: &dyn Fn(&str) -> Option<String>, report: &mut dyn FnMut(&Range<usize>, Problem)) {
    match &mut node.value {
        Value::String { text, filled } if text.contains("${") => match fill_text(text, variable) {
            Ok(new) => {
                *text = new;
                *filled = true;
            }
            Err(problem) => report(&node.span, problem),
        },
        Value::Array(items) => items.iter_mut().for_each(|item| fill_node(item, variable, report)),
        Value::Table(entries) => entries.iter_mut().for_each(|entry| fill_node(&mut entry.node, variable, report)),
        _ => {}
    }
}

fn fill_text(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, Problem> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, tail) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = tail;
            continue;
        }
        let end = tail.find('}').ok_or_else(|| Problem::new("`${` is never closed").help("close it with `}`, or write `$${` for a plain `${`"))?;
        let (name, default) = tail[..end].split_once(":-").map_or((&tail[..end], None), |(name, default)| (name, Some(default)));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Problem::new(format!("`{name}` is no name of an environment variable")).help("write `${NAME}` or `${NAME:-default}`"));
        }
        // As in a shell, `:-` also replaces a variable that is set but empty.
        let value = variable(name).filter(|value| default.is_none() || !value.is_empty()).or(default.map(str::to_owned));
        let value = value.ok_or_else(|| {
            Problem::new(format!("the environment variable `{name}` is not set")).help(format!("set it, or give a default: `${{{name}:-…}}`"))
        })?;
        filled.push_str(before);
        filled.push_str(&value);
        rest = &tail[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str, text: &str) -> String {
        let problems = Document::parse(name, text).expect_err("refused");
        problems.iter().map(|problem| format!("{problem:#}")).collect::<Vec<_>>().join("\n\n")
    }

    #[test]
    fn broken_text_is_shown_at_its_place() {
        for (name, text, expected) in [
            ("a.toml", "[server\nworkers = 2\n", "a.toml:1:8: no valid TOML: unclosed table, expected `]`\n   |\n 1 | [server\n   |        ^"),
            ("a.toml", "a = 1\na = 2\n", "a.toml:2:1: no valid TOML: duplicate key\n   |\n 2 | a = 2\n   | ^"),
            ("a.json", "{\"a\": 1,}", "a.json:1:8: no valid JSON: trailing commas are not allowed\n   |\n 1 | {\"a\": 1,}\n   |        ^"),
            ("a.json", "{\"a\": 1, \"a\": 2}", "a.json:1:10: the key `a` stands here a second time\n   |\n 1 | {\"a\": 1, \"a\": 2}\n   |          ^^^"),
            (
                "a.json",
                "{\"a\": 99999999999999999999}",
                "a.json:1:7: the number is too large\n   |\n 1 | {\"a\": 99999999999999999999}\n   |       ^^^^^^^^^^^^^^^^^^^^",
            ),
            ("a.json", "", "a.json:1:1: no valid JSON: the file is empty\n   |\n 1 | \n   | ^"),
        ] {
            assert_eq!(faults(name, text), expected);
        }
    }

    #[test]
    fn several_faults_of_one_text_are_reported_together() {
        assert_eq!(Document::parse("a.toml", "a = \nb = 1\nc = [1\n").expect_err("refused").len(), 2);
    }

    #[test]
    fn variables_are_filled() {
        let variable = |name: &str| match name {
            "HOST" => Some("h".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("${HOST}:80", "h:80"),
            ("${HOST}${HOST}", "hh"),
            ("${NONE:-x}", "x"),
            ("${NONE:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("a${EMPTY}b", "ab"),
            ("$${HOST}", "${HOST}"),
            ("$HOST", "$HOST"),
            ("${NONE:-a:-b}", "a:-b"),
        ] {
            assert_eq!(fill_text(text, &variable).expect(text), expected);
        }
        for (text, expected) in [
            ("${NONE}", "the environment variable `NONE` is not set\n   = help: set it, or give a default: `${NONE:-…}`"),
            ("${HOST", "`${` is never closed\n   = help: close it with `}`, or write `$${` for a plain `${`"),
            ("${a b}", "`a b` is no name of an environment variable\n   = help: write `${NAME}` or `${NAME:-default}`"),
        ] {
            assert_eq!(fill_text(text, &variable).expect_err(text).to_string(), expected);
        }
    }
}
