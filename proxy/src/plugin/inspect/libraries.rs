//! Which symbols of a plugin nobody will define: a best effort before the dynamic linker has the last word.
//!
//! Looks at the libraries that the plugin needs, at what those need, and at those that the gateway itself has loaded. Says
//! "missing" only when every library of that closure was found and read.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;

use crate::plugin::elf::Elf;

/// Loaded with the gateway, so their symbols are there for every plugin.
const ALWAYS_LOADED: [&str; 3] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];
/// A closure that is larger than this is not a plugin's.
const LIBRARIES_MAX: usize = 128;

/// The symbols and versions that no library has, and the libraries that were not found.
pub(super) fn missing(plugin: &Elf<'_>) -> (Vec<String>, Vec<String>) {
    let mut wanted: BTreeSet<Vec<u8>> = plugin.imports().map(<[u8]>::to_vec).collect();
    let mut versions = plugin.needed_versions();
    let own: BTreeSet<&[u8]> = plugin.exports().collect();
    wanted.retain(|name| !own.contains(name.as_slice()));

    let needed = plugin.needed();
    let mut queue: VecDeque<(String, bool)> = needed.iter().map(|name| (name.clone(), true)).collect();
    queue.extend(ALWAYS_LOADED.iter().map(|name| ((*name).to_owned(), false)));
    let mut seen = BTreeSet::new();
    let mut unchecked = Vec::new();
    while let Some((name, is_needed)) = queue.pop_front() {
        if seen.len() >= LIBRARIES_MAX || !seen.insert(name.clone()) {
            continue;
        }
        let bytes = find(&name);
        let Some(library) = bytes.as_deref().and_then(|bytes| Elf::parse(bytes).ok()) else {
            if is_needed {
                unchecked.push(name);
            }
            continue;
        };
        for export in library.exports() {
            wanted.remove(export);
        }
        let defined = library.defined_versions();
        // A library without versions satisfies any, with a warning of the linker.
        versions.retain(|version| version.library != name || !(defined.is_empty() || defined.contains(version.version.as_bytes())));
        queue.extend(library.needed().into_iter().map(|name| (name, is_needed)));
    }
    if !unchecked.is_empty() {
        return (Vec::new(), unchecked);
    }
    let mut missing: Vec<String> = wanted.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    missing.extend(versions.into_iter().filter(|version| seen.contains(&version.library)).map(|version| format!("{} of {}", version.version, version.library)));
    (missing, unchecked)
}

fn find(name: &str) -> Option<Vec<u8>> {
    if name.contains('/') {
        return std::fs::read(name).ok();
    }
    let arch = std::env::consts::ARCH;
    let folders = ["/lib", "/usr/lib", "/usr/local/lib"].map(|folder| [format!("{folder}/{arch}-linux-gnu"), format!("{folder}64"), folder.to_owned()]);
    folders.into_iter().flatten().find_map(|folder| std::fs::read(PathBuf::from(folder).join(name)).ok())
}
