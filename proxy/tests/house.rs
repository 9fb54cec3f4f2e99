//! The house rules that a compiler does not know: the life of a request is told truly, unsafe code is where it is listed,
//! lower layers do not name higher ones. In `house/rules.rs`: the page about HTTP/1.1 is true, and no rule is without a test.

#[path = "house/rules.rs"]
mod rules;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file of the crate that holds unsafe code, with the number of its unsafe blocks, functions and impls. A change
/// here is a change to review.
const UNSAFE: &str = include_str!("unsafe.txt");

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources can be read") {
        let path = entry.expect("the sources can be read").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all() -> BTreeMap<String, String> {
    let mut found = Vec::new();
    files(&source(), &mut found);
    found
        .into_iter()
        .map(|path| {
            (
                path.strip_prefix(source()).expect("the sources can be read").to_string_lossy().into_owned(),
                fs::read_to_string(&path).expect("the sources can be read"),
            )
        })
        .collect()
}

#[test]
fn each_step_in_the_life_of_a_request_exists() {
    let files = all();
    let life = files["lib.rs"].lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    let steps: Vec<&str> = life.split('`').skip(1).step_by(2).filter(|step| step.contains("::") && *step != "module::function").collect();
    assert!(steps.len() >= 15, "{steps:?}");
    for step in steps {
        let (module, function) = step.rsplit_once("::").expect("the sources can be read");
        let path = module.replace("::", "/");
        let text = files.get(&format!("{path}.rs")).or_else(|| files.get(&format!("{path}/mod.rs"))).unwrap_or_else(|| panic!("{step}: no module {module}"));
        assert!(text.contains(&format!("fn {function}(")) || text.contains(&format!("fn {function}<")), "{step}: no such function");
    }
}

#[test]
fn unsafe_code_is_where_it_is_listed() {
    let count = |text: &str| {
        text.lines()
            .map(|line| line.split("//").next().unwrap_or(""))
            .map(|line| {
                line.matches("unsafe {").count()
                    + line.matches("unsafe extern \"C\" fn ").count()
                    + line.matches("unsafe impl").count()
                    + line.matches("unsafe fn ").count()
            })
            .sum::<usize>()
    };
    let found: String = all().iter().map(|(path, text)| (path, count(text))).filter(|(_, n)| *n > 0).map(|(path, n)| format!("{path} {n}\n")).collect();
    assert_eq!(found, UNSAFE, "write the new list to proxy/tests/unsafe.txt if each addition is meant");
}

#[test]
fn lower_layers_do_not_name_higher_ones() {
    let layers: [&[&str]; 6] = [
        &["limits", "error"],
        &["http1", "view"],
        &["plugin", "route", "upstream", "config"],
        &["exchange"],
        &["worker"],
        &["admin", "cli", "run", "supervisor", "demo"],
    ];
    let of = |path: &str| layers.iter().position(|layer| layer.iter().any(|module| path == format!("{module}.rs") || path.starts_with(&format!("{module}/"))));
    for (path, text) in all() {
        let Some(layer) = of(&path) else { continue };
        // Unit tests may use what stands above.
        let code = text.split("#[cfg(test)]").next().expect("the sources can be read");
        if path.contains("tests") || path.contains("testing") {
            continue;
        }
        for higher in layers[layer + 1..].iter().flat_map(|l| l.iter()) {
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                assert!(!line.contains(&format!("crate::{higher}::")), "{path} names {higher}: {line}");
            }
        }
    }
}
