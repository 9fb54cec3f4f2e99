//! `proxy/docs/http1.md` is kept honest: it has a row for every rule, and the functions and tests that it names exist.

use std::path::Path;

const PAGE: &str = include_str!("../../../docs/http1.md");

/// The rows of the table: rule, what, where, tests.
fn rows() -> impl Iterator<Item = (usize, Vec<&'static str>)> {
    PAGE.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        cells.get(1).and_then(|cell| cell.parse().ok()).map(|rule| (rule, cells))
    })
}

fn code_spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// All Rust sources under a folder.
fn sources(folder: &Path, into: &mut String) {
    let Ok(files) = std::fs::read_dir(folder) else { return };
    for path in files.map(|file| file.expect("a readable folder").path()) {
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).expect("a readable source"));
        }
    }
}

#[test]
fn every_rule_has_its_row() {
    let rules: Vec<usize> = rows().map(|(rule, _)| rule).collect();
    assert!(rules.iter().copied().eq(1..=100), "{rules:?}");
}

#[test]
fn what_the_page_names_exists() {
    let proxy = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    for folder in [proxy.join("src"), proxy.join("tests"), proxy.join("../abi/src")] {
        sources(&folder, &mut all);
    }
    for (rule, cells) in rows() {
        for test in code_spans(cells[4]) {
            assert!(all.contains(&format!("fn {test}(")), "rule {rule}: no test {test}");
        }
        for item in code_spans(cells[3]) {
            let name = item.rsplit("::").next().unwrap_or(item);
            let found = ["fn ", "const ", "struct ", "enum ", "mod "].iter().any(|kind| all.contains(&format!("{kind}{name}")));
            assert!(found, "rule {rule}: no {item}");
        }
    }
}

/// A row without a test is one that names the exchange as its place and nothing else.
#[test]
fn every_rule_of_the_codec_has_a_test() {
    for (rule, cells) in rows() {
        assert!(!cells[4].is_empty() || cells[2] == "exchange", "rule {rule}");
    }
}
