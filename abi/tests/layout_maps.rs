//! The layout of the extension for maps: what rustc, a C compiler and Zig make of it equals `layout-maps-1.txt`.
//!
//! Rule of SPEC.md: S-87.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod toolchain;

use std::fmt::Write as _;
use std::mem::offset_of;
use std::process::Command;

use ringway_abi::maps;

const FROZEN: &str = include_str!("../layout-maps-1.txt");

/// The lines of the layout as words.
fn lines() -> impl Iterator<Item = Vec<&'static str>> {
    FROZEN.lines().map(|line| line.split(' ').collect())
}

/// S-87
#[test]
fn rust_has_the_frozen_layout() {
    let table = [
        ("size", offset_of!(maps::Maps, size)),
        ("reserved", offset_of!(maps::Maps, reserved)),
        ("open", offset_of!(maps::Maps, open)),
        ("lookup", offset_of!(maps::Maps, lookup)),
        ("update", offset_of!(maps::Maps, update)),
        ("remove", offset_of!(maps::Maps, remove)),
        ("add", offset_of!(maps::Maps, add)),
        ("value", offset_of!(maps::Maps, value)),
        ("output", offset_of!(maps::Maps, output)),
    ];
    let prefix = [("bits", offset_of!(maps::Prefix, bits)), ("addr", offset_of!(maps::Prefix, addr))];
    let fields = |name: &str| {
        let of = |line: Vec<&'static str>| Some((line[1].strip_prefix(&format!("{name}."))?, line[3].parse::<usize>().unwrap()));
        lines().filter(|line| line[0] == "field").filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!((fields("rw_maps").as_slice(), fields("rw_prefix").as_slice()), (table.as_slice(), prefix.as_slice()));
    let sizes: Vec<String> = lines().filter(|line| line[0] == "struct").map(|line| line[1..].join(" ")).collect();
    let ours = [("rw_prefix", size_of::<maps::Prefix>(), align_of::<maps::Prefix>()), ("rw_maps", size_of::<maps::Maps>(), align_of::<maps::Maps>())];
    assert_eq!(sizes, ours.map(|(name, size, align)| format!("{name} size {size} align {align}")));
    let constants: Vec<i64> = lines().filter(|line| line[0] == "const").map(|line| line[2].parse().unwrap()).collect();
    let ours = [maps::ARRAY, maps::CORE_ARRAY, maps::HASH, maps::LRU, maps::LPM, maps::RING, maps::MAPS_MAX, maps::NAME_BYTES_MAX, maps::KEY_BYTES_MAX];
    let ours = ours.into_iter().chain([maps::VALUE_BYTES_MAX, maps::ENTRIES_MAX]).map(i64::from).chain([i64::from(maps::BUSY)]);
    assert_eq!(constants, ours.collect::<Vec<_>>());
}

/// S-87
#[test]
fn c_has_the_frozen_layout() {
    let mut source = "#include <stddef.h>\n#include <string.h>\n#include \"ringway.h\"\n".to_owned();
    for line in lines() {
        let claim = match line[0] {
            "struct" => format!("sizeof({0}) == {1} && _Alignof({0}) == {2}", line[1], line[3], line[5]),
            "field" => {
                let (owner, field) = line[1].split_once('.').unwrap();
                format!("offsetof({owner}, {field}) == {} && sizeof((({owner} *)0)->{field}) == {}", line[3], line[5])
            }
            _ => format!("{} == {}", line[1], line[2]),
        };
        writeln!(source, "_Static_assert({claim}, \"{}\");", line[1]).unwrap();
    }
    let id = maps::EXTENSION.to_str().unwrap();
    writeln!(source, "int main(void) {{ return strcmp(RW_MAPS_EXTENSION, \"{id}\"); }}").unwrap();
    let path = toolchain::output_path("layout-maps.c");
    std::fs::write(&path, source).unwrap();
    for compiler in toolchain::c_compilers() {
        let program = toolchain::output_path(&format!("layout-maps-{compiler}"));
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Werror", "-std=c11", "-I"]).arg(toolchain::abi_dir().join("include"));
        toolchain::run(command.arg(&path).arg("-o").arg(&program));
        toolchain::stdout_of(&program, &[]);
    }
}

/// S-87
#[test]
fn zig_has_the_frozen_layout() {
    let mut source = "const maps = @import(\"ringway\").maps;\ncomptime {\n".to_owned();
    for line in lines() {
        let owner = |name: &str| if name == "rw_maps" { "maps.Table" } else { "maps.Prefix" };
        let claim = match line[0] {
            "struct" => format!("@sizeOf({0}) == {1} and @alignOf({0}) == {2}", owner(line[1]), line[3], line[5]),
            "field" => {
                let (name, field) = line[1].split_once('.').unwrap();
                format!("@offsetOf({0}, \"{field}\") == {1}", owner(name), line[3])
            }
            _ => {
                let name = line[1].strip_prefix("RW_").unwrap().to_lowercase();
                let constant = name.strip_prefix("map_").unwrap_or(&name);
                match constant {
                    "array" | "core_array" | "hash" | "lru" | "lpm" | "ring" => format!("@backingInt(maps.Kind.{constant}) == {}", line[2]),
                    constant => format!("maps.{constant} == {}", line[2]),
                }
            }
        };
        writeln!(source, "    if (!({claim})) @compileError(\"{}\");", line[1]).unwrap();
    }
    source += "}\n\
        const Hits = extern struct { requests: u64, bytes: u64 };\n\
        const Hash = maps.Map([32]u8, Hits);\n\
        pub fn main() !void {\n    \
            const definition = maps.hash(\"paths\", [32]u8, Hits, \"u64 requests, u64 bytes\", 10);\n    \
            if (definition.key_bytes != 32 or definition.value_bytes != 16 or definition.kind != 3) return error.Wrong;\n    \
            _ = .{ &Hash.open, &Hash.lookup, &Hash.update, &Hash.remove, &Hash.value, &Hash.output };\n\
        }\n";
    let path = toolchain::output_path("layout-maps.zig");
    std::fs::write(&path, source).unwrap();
    let program = toolchain::output_path("layout-maps-zig");
    let mut command = toolchain::zig();
    command.args(["build-exe", "--dep", "ringway"]).arg(format!("-Mroot={}", path.display()));
    command.arg(format!("-Mringway={}", toolchain::abi_dir().join("zig/ringway.zig").display()));
    command.arg(format!("-femit-bin={}", program.display())).arg("--cache-dir").arg(toolchain::zig_cache());
    toolchain::run(&mut command);
    toolchain::stdout_of(&program, &[]);
}
