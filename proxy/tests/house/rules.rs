//! `docs/http1.md` is kept honest: it has a row for every rule, each rule that is kept has a test that carries its number, and the
//! functions and tests that the page names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/http1.md");

/// The rules that the gateway keeps. The others concern HTTP/2 and the PROXY protocol, and the page says what becomes of them.
fn is_kept(rule: usize) -> bool {
    matches!(rule, 1..=87 | 94..=99)
}

/// A row of the page's table.
struct Row {
    rule: usize,
    what: &'static str,
    places: Vec<&'static str>,
    tests: Vec<&'static str>,
}

fn rows() -> Vec<Row> {
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let rule = cells.get(1)?.parse().ok()?;
        let named = |cell: &'static str| cell.split('`').skip(1).step_by(2).collect();
        assert_eq!(cells.len(), 6, "rule {rule}: a row has four cells");
        Some(Row { rule, what: cells[2], places: named(cells[3]), tests: named(cells[4]) })
    };
    PAGE.lines().filter_map(row).collect()
}

/// The numbers in the name of a test: `rule_07_x`, `rules_01_02_x`, `rules_20_to_23_x`, `rule_25_and_27_x`.
fn numbers(test: &str) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let Some(rest) = test.strip_prefix("rule_").or_else(|| test.strip_prefix("rules_")) else { return found };
    let (mut last, mut to) = (0, false);
    for word in rest.split('_') {
        match word.parse::<usize>() {
            Ok(number) if to => found.extend(last..=number),
            Ok(number) => {
                found.insert(number);
                last = number;
            }
            Err(_) if !matches!(word, "and" | "to") => break,
            Err(_) => {}
        }
        to = word == "to";
    }
    found
}

/// All Rust sources of the gateway and its tests.
fn sources() -> String {
    let proxy = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in [proxy.join("src"), proxy.join("tests"), proxy.join("../abi/src")] {
        super::files(&folder, &mut files);
    }
    files.iter().map(|file| fs::read_to_string(file).expect("the sources can be read")).collect()
}

/// The names of all tests.
fn tests(sources: &str) -> BTreeSet<&str> {
    let behind = |text: &'static str| sources.split(text).skip(1);
    let name = |rest: &str| rest.find('(').unwrap_or(0);
    behind("#[test]\n").filter_map(|rest| rest.split_once("fn ").map(|(_, rest)| &rest[..name(rest)])).collect()
}

#[test]
fn every_rule_has_its_row() {
    let rows = rows();
    assert!(rows.iter().map(|row| row.rule).eq(1..=100), "{:?}", rows.iter().map(|row| row.rule).collect::<Vec<_>>());
    for row in rows {
        assert!(!row.what.is_empty(), "rule {} says nothing", row.rule);
    }
}

#[test]
fn every_rule_that_is_kept_has_a_test_that_carries_its_number() {
    let sources = sources();
    let tests = tests(&sources);
    let covered: BTreeSet<usize> = tests.iter().flat_map(|test| numbers(test)).collect();
    let kept: Vec<usize> = (1..=100).filter(|rule| is_kept(*rule)).collect();
    let (with, without): (Vec<usize>, Vec<usize>) = kept.iter().partition(|rule| covered.contains(rule));
    println!("http1: {} of {} rules have tests", with.len(), kept.len());
    assert!(without.is_empty(), "no test carries the numbers {without:?}");
    for row in rows().iter().filter(|row| is_kept(row.rule)) {
        assert!(row.tests.iter().any(|test| numbers(test).contains(&row.rule)), "rule {}: the page names no test of it", row.rule);
    }
}

#[test]
fn what_the_page_names_exists() {
    let sources = sources();
    let tests = tests(&sources);
    for row in rows() {
        for test in row.tests {
            assert!(tests.contains(test), "rule {}: there is no test {test}", row.rule);
        }
        for item in row.places {
            let name = item.rsplit("::").next().unwrap_or(item);
            let kinds = ["fn ", "const ", "struct ", "enum ", "mod "];
            let found = kinds.iter().any(|kind| [' ', '(', '<', ':', ';', '\n'].iter().any(|end| sources.contains(&format!("{kind}{name}{end}"))));
            assert!(found, "rule {}: there is no {item}", row.rule);
        }
    }
}

#[test]
fn the_names_of_tests_are_read_as_they_are_meant() {
    for (test, expected) in [
        ("rule_07_our_own_version", vec![7]),
        ("rules_01_02_04_20_to_23_in_responses", vec![1, 2, 4, 20, 21, 22, 23]),
        ("rule_25_and_27_unedited_lines", vec![25, 27]),
        ("rule_82_expect_100_continue", vec![82]),
        ("rule_100_a_proxy_header", vec![100]),
        ("a_rule_07_of_thumb", vec![]),
    ] {
        assert_eq!(numbers(test).into_iter().collect::<Vec<_>>(), expected, "{test}");
    }
}
