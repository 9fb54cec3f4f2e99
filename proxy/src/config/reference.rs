//! Whether `docs/configuration.md` tells the truth: its tables are compared with the schema, its examples are parsed.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{Config, schema, shape, tree};
use crate::limits::{duration, size};

const DOCUMENT: &str = include_str!("../../docs/configuration.md");

/// The heading of every table of the schema and the Markdown table of its keys.
fn sections() -> Vec<(String, String)> {
    let mut sections = Vec::new();
    for (name, section) in schema()["properties"].as_object().expect("an object") {
        match section["type"].as_str() {
            Some("array") => collect(&format!("`[[{name}]]`"), name, &section["items"], &mut sections),
            _ => collect(&format!("`[{name}]`"), name, section, &mut sections),
        }
    }
    sections
}

fn collect(heading: &str, path: &str, table: &Json, sections: &mut Vec<(String, String)>) {
    let mut text = String::from("| key | unit | default | meaning |\n|---|---|---|---|\n");
    let place = sections.len();
    sections.push((heading.to_owned(), String::new()));
    for (key, schema) in table["properties"].as_object().expect("an object") {
        let required = table["required"].as_array().is_some_and(|required| required.iter().any(|name| name == key));
        let default = match &schema["default"] {
            _ if required => "required".to_owned(),
            Json::Null => "absent".to_owned(),
            Json::Object(_) => "as below".to_owned(),
            default => format!("`{default}`"),
        };
        let meaning = schema["description"].as_str().expect("every key is described");
        writeln!(text, "| `{key}` | {} | {default} | {meaning} |", unit(schema)).expect("a String");
        if schema["properties"].is_object() {
            collect(&format!("`[{path}.{key}]`"), &format!("{path}.{key}"), schema, sections);
        }
        for entry in schema["items"]["anyOf"].as_array().into_iter().flatten().filter(|entry| entry["properties"].is_object()) {
            collect(&format!("an entry of `{path}.{key}`"), path, entry, sections);
        }
    }
    sections[place].1 = text;
}

fn unit(schema: &Json) -> String {
    let words = |schema: &Json| -> Vec<String> {
        let alternatives = schema["anyOf"].as_array().or(schema["oneOf"].as_array()).cloned().unwrap_or_default();
        let nested = alternatives.iter().flat_map(|leaf| leaf["oneOf"].as_array().cloned().unwrap_or_default());
        let consts = alternatives.iter().cloned().chain(nested).filter_map(|leaf| leaf["const"].as_str().map(str::to_owned));
        let enums = schema["enum"].as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned));
        consts.chain(enums).collect()
    };
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match (schema["format"].as_str(), kind) {
        (Some(size::FORMAT), _) => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(minimum), Some(maximum)) => format!("size, {}–{}", size::text(minimum as usize), size::text(maximum as usize)),
            _ => "size".into(),
        },
        (Some(duration::FORMAT), _) if schema["minimum"] == 0 => "duration or off".into(),
        (Some(duration::FORMAT), _) => "duration".into(),
        (_, Some("integer")) => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(minimum), Some(maximum)) => format!("{minimum}–{maximum}"),
            _ => "number".into(),
        },
        (_, Some("boolean")) => "`true`, `false`".into(),
        (_, Some("array")) => "list".into(),
        (_, Some("object")) => "table".into(),
        _ => match words(schema) {
            words if words.is_empty() && schema["anyOf"].is_array() => "text or list".into(),
            words if words.is_empty() => "text".into(),
            words => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        },
    }
}

#[test]
fn every_key_stands_in_the_reference_as_the_schema_describes_it() {
    for (heading, table) in sections() {
        let part = DOCUMENT.split("\n#").find(|part| part.trim_start_matches(['#', ' ']).starts_with(&heading));
        let part = part.unwrap_or_else(|| panic!("the reference has no part {heading}; it needs:\n{table}"));
        assert!(part.contains(&table), "the table of {heading} should be:\n{table}");
    }
}

#[test]
fn every_example_of_the_reference_is_accepted_by_the_gateway_and_by_the_schema() {
    let validator = jsonschema::draft202012::new(schema()).expect("a valid schema");
    let variable = |name: &str| (name == "API_TOKEN").then(|| "secret".to_owned());
    let mut count = 0;
    for (kind, name) in [("```toml\n", "example.toml"), ("```json\n", "example.json")] {
        for block in DOCUMENT.split(kind).skip(1) {
            let text = block.split("```").next().unwrap_or_default();
            if let Err(errors) = Config::parse(name, text, &variable) {
                panic!("{text}\n{errors}");
            }
            let mut document = tree::Document::parse(name, text).expect("parsed above");
            document.fill(&variable, &mut Vec::new());
            let value = shape::check(&document, schema(), &mut Vec::new());
            assert_eq!(validator.validate(&value).err().map(|error| error.to_string()), None, "{text}");
            count += 1;
        }
    }
    assert!(count >= 4, "{count} examples");
}
