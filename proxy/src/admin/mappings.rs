//! Libraries that stayed mapped although their plugin was unloaded: Rust's standard library keeps a library that used
//! thread-local destructors, and the dynamic loader keeps what is marked so.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;

/// Hexadecimal digits of the hash that names a private copy.
const HASH_DIGITS: usize = 64;

/// The hashes of the private copies that are mapped into this process.
pub fn mapped() -> BTreeSet<String> {
    // Without /proc nothing is known, and nothing is claimed.
    fs::read_to_string("/proc/self/maps").map(|maps| copies(&maps)).unwrap_or_default()
}

fn copies(maps: &str) -> BTreeSet<String> {
    let hash = |line: &str| {
        let path = line.strip_suffix(" (deleted)").unwrap_or(line);
        let name = path.rsplit_once('/')?.1.strip_suffix(".so")?;
        (name.len() == HASH_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| name.to_owned())
    };
    maps.lines().filter_map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_copies_are_told_from_other_libraries() {
        let hash = "0123456789abcdef".repeat(4);
        let maps = format!(
            "7f00-7f01 r-xp 0000 00:00 1 /run/ringway/plugins/{hash}.so\n7f01-7f02 r--p 0000 00:00 1 /run/ringway/plugins/{hash}.so (deleted)\n\
             7f02-7f03 r-xp 0000 00:00 1 /usr/lib/libc.so\n7f03-7f04 rw-p 0000 00:00 0 \n"
        );
        assert_eq!(copies(&maps), BTreeSet::from([hash]));
    }
}
