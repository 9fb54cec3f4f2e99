//! SPEC.md and the tests belong together: a rule that is cited exists, and a rule that this crate keeps is cited.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_rule_is_numbered_once_and_in_order() {
    let numbers: Vec<u32> = rules().iter().map(|(number, _)| *number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[test]
fn cited_rules_exist_and_kept_rules_are_cited() {
    let rules = rules();
    let known: BTreeSet<u32> = rules.iter().map(|(number, _)| *number).collect();
    let cited = cited_rules();
    assert!(cited.is_subset(&known), "cited but not in SPEC.md: {:?}", &cited - &known);
    let ours: BTreeSet<u32> = rules.iter().filter(|(_, text)| !text.contains("**[gateway]**")).map(|(number, _)| *number).collect();
    assert!(ours.is_subset(&cited), "in SPEC.md but cited by no test here: {:?}", &ours - &cited);
}

fn rules() -> Vec<(u32, String)> {
    let mut rules = Vec::new();
    for part in include_str!("../SPEC.md").split("\n- **S-").skip(1) {
        let (number, text) = part.split_once("**").unwrap();
        rules.push((number.parse().unwrap(), text.split("\n##").next().unwrap().to_owned()));
    }
    rules
}

/// Every `S-n` and range `S-n to S-m` beside a test or a helper; the overview at the top of a file does not count.
fn cited_rules() -> BTreeSet<u32> {
    let mut cited = BTreeSet::new();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in std::fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path()) {
        let file = if entry.is_dir() { entry.join("mod.rs") } else { entry };
        if file.extension().is_none_or(|extension| extension != "rs") || file.ends_with("spec.rs") {
            continue;
        }
        let Ok(source) = std::fs::read_to_string(&file) else { continue };
        let source: String = source.lines().filter(|line| !line.starts_with("//!")).flat_map(|line| [line, "\n"]).collect();
        let mut range_from = None;
        for part in source.split("S-").skip(1) {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Ok(number) = part[..digits].parse::<u32>() else { continue };
            cited.extend(range_from.unwrap_or(number)..=number);
            range_from = (&part[digits..] == " to ").then_some(number);
        }
    }
    cited
}
