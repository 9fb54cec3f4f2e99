//! `ringway plugin inspect`: the facts of plugin files, for people and as JSON.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{GOOD, WRONG, report};
use crate::plugin::inspect::{Offer, PluginFacts, Refused, inspect};
use crate::plugin::maps::MapShape;

pub(super) fn inspect_files(files: &[PathBuf], json: bool, offer: &Offer, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
    let mut code = GOOD;
    for (index, path) in files.iter().enumerate() {
        match (inspect(path, offer), json) {
            (Ok(facts), true) => writeln!(out, "{}", facts_json(path, &facts))?,
            (Ok(facts), false) => {
                if index > 0 {
                    writeln!(out)?;
                }
                facts_text(path, &facts, out)?;
            }
            (Err(refused), json) => {
                code = WRONG;
                if json {
                    writeln!(out, "{}", refused_json(&refused))?;
                } else {
                    report(err, "refused", &[refused.problem()])?;
                }
            }
        }
    }
    Ok(code)
}

fn facts_text(path: &Path, facts: &PluginFacts, out: &mut dyn Write) -> io::Result<()> {
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let scratch = if facts.scratch_bytes == 0 { "none".to_owned() } else { format!("{} bytes per exchange", facts.scratch_bytes) };
    writeln!(out, "{}", path.display())?;
    for (label, value) in [
        ("name", facts.name.clone()),
        ("version", facts.version.clone()),
        ("language", facts.language_name().to_owned()),
        ("abi", format!("{}.{}, runs with {}.{} and newer", facts.abi_major, facts.abi_minor, facts.abi_major, facts.abi_min_minor)),
        ("fingerprint", format!("{:#018x}", facts.fingerprint)),
        ("hooks", list(&facts.hook_names())),
        ("wants", list(&facts.want_names())),
        ("scratch", scratch),
        ("metrics", list(&facts.metrics)),
        ("maps", list(&facts.maps.iter().map(map_text).collect::<Vec<_>>())),
        ("machine", facts.machine.to_owned()),
        ("libraries", list(&facts.needed)),
        ("not found", list(&facts.unchecked)),
        ("build id", facts.build_id.clone().unwrap_or_else(|| "none".into())),
        ("sha256", facts.file_hash.clone()),
        ("size", format!("{} bytes", facts.file_bytes)),
    ] {
        // An empty list of libraries that were not found is no news.
        if label != "not found" || !facts.unchecked.is_empty() {
            writeln!(out, "  {label:<12} {value}")?;
        }
    }
    Ok(())
}

fn map_text(map: &MapShape) -> String {
    format!("{} ({} of {}, \"{}\")", map.name(), map.kind(), map.entries_max(), map.value_fields())
}

fn map_json(map: &MapShape) -> serde_json::Value {
    json!({
        "name": map.name(), "kind": map.kind().to_string(), "key_bytes": map.key_bytes(), "value_bytes": map.value_bytes(),
        "value_fields": map.value_fields(), "entries_max": map.entries_max(),
    })
}

fn facts_json(path: &Path, facts: &PluginFacts) -> serde_json::Value {
    json!({
        "file": path,
        "loadable": true,
        "name": facts.name,
        "version": facts.version,
        "language": facts.language_name(),
        "abi_major": facts.abi_major,
        "abi_minor": facts.abi_minor,
        "abi_min_minor": facts.abi_min_minor,
        "fingerprint": format!("{:#018x}", facts.fingerprint),
        "hooks": facts.hook_names(),
        "wants": facts.want_names(),
        "scratch_bytes": facts.scratch_bytes,
        "metrics": facts.metrics,
        "maps": facts.maps.iter().map(map_json).collect::<Vec<_>>(),
        "machine": facts.machine,
        "libraries": facts.needed,
        "libraries_not_found": facts.unchecked,
        "build_id": facts.build_id,
        "sha256": facts.file_hash,
        "file_bytes": facts.file_bytes,
    })
}

fn refused_json(refused: &Refused) -> serde_json::Value {
    let problem = refused.problem();
    json!({ "file": refused.path, "loadable": false, "reason": problem.what, "cause": problem.cause, "help": problem.help })
}
