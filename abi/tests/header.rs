//! The header as text and the note as bytes: every compiler takes both, and strip keeps the note.
//!
//! Rules of SPEC.md: S-10 to S-16.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod elf;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::Command;

use ringway_abi::raw;

const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-pedantic", "-Wpadded", "-Werror"];
const ALONE: &str = "#include \"ringway.h\"\n";
const WAIT: &str = "#include \"ringway-wait.h\"\n#include \"ringway-wait.h\"\nint unused_but_not_empty;\n";
const OUTCALL: &str = "#include \"ringway-outcall.h\"\n#include \"ringway-outcall.h\"\nint unused_but_not_empty;\n";
const TWICE: &str = "#include \"ringway.h\"\n#include \"ringway.h\"\nint unused_but_not_empty;\n";

/// A plugin in the common subset of C and C++.
const PLUGIN: &str = r#"
#include "ringway.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  return rw_request_header(request, RW_H_HOST) ? RW_CONTINUE : RW_DROP;
}
DEFINE_NOTE;
const rw_plugin ringway_plugin_v1 = {
    sizeof(rw_plugin), RW_ABI_MAJOR, RW_ABI_MINOR, MIN_MINOR, RW_LANG_C, 32, RW_LAYOUT_FINGERPRINT, RW_WANT_RESPOND | RW_WANT_TIME,
    RW_HOOK_REQUEST, 0, "note-test", "1.2.3", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, on_request, 0, 0, 0, 0, 0, 0, 0, 0};
"#;

/// Both macros that define the note, with the `abi_min_minor` that they state.
const NOTES: [(u16, &str); 2] = [
    (0, r#"RW_DEFINE_NOTE("note-test", "1.2.3", RW_LANG_C, RW_HOOK_REQUEST, RW_WANT_RESPOND | RW_WANT_TIME, 32)"#),
    (7, r#"RW_DEFINE_NOTE_MIN("note-test", "1.2.3", RW_LANG_C, RW_HOOK_REQUEST, RW_WANT_RESPOND | RW_WANT_TIME, 32, 7)"#),
];

const ZIG_PLUGIN: &str = r#"
const ringway = @import("ringway");
pub const panic = ringway.panic;
const P = struct {
    pub const name = "note-test";
    pub const version = "1.2.3";
    pub const wants: ringway.Wants = .{ .respond = true, .time = true };
    pub const min_minor = MIN_MINOR;
    pub const Scratch = extern struct { bytes: [32]u8 };
    pub fn onRequest(_: *ringway.Cx, request: *const ringway.Request) ringway.Verdict {
        return if (request.header(.host) != null) .@"continue" else .drop;
    }
};
comptime {
    ringway.exportPlugin(P);
}
"#;

/// S-10, S-11
#[test]
fn the_header_compiles_strictly_as_c11_and_c17() {
    for (name, text) in [("alone", ALONE), ("twice", TWICE), ("wait", WAIT), ("outcall", OUTCALL)] {
        for compiler in toolchain::c_compilers() {
            for standard in ["-std=c11", "-std=c17"] {
                let source = write_source(&format!("{name}.c"), text);
                compile(compiler, &[standard, "-fsyntax-only"], &source, None);
            }
        }
    }
}

/// S-10, S-11
#[test]
fn the_header_compiles_strictly_as_cpp17() {
    for (name, text) in [("alone", ALONE), ("twice", TWICE), ("wait", WAIT), ("outcall", OUTCALL)] {
        for compiler in toolchain::cpp_compilers() {
            let source = write_source(&format!("{name}.cc"), text);
            compile(compiler, &["-std=c++17", "-fsyntax-only"], &source, None);
        }
    }
}

/// S-12
#[test]
fn the_header_includes_nothing_but_stddef_and_stdint() {
    let header = include_str!("../include/ringway.h");
    let includes: Vec<&str> = header.lines().filter(|line| line.trim_start().starts_with("#include")).collect();
    assert_eq!(includes, ["#include <stddef.h>", "#include <stdint.h>"]);
    let wait = include_str!("../include/ringway-wait.h");
    let includes: Vec<&str> = wait.lines().filter(|line| line.trim_start().starts_with("#include")).collect();
    assert_eq!(includes, ["#include \"ringway.h\""]);
    let outcall = include_str!("../include/ringway-outcall.h");
    let includes: Vec<&str> = outcall.lines().filter(|line| line.trim_start().starts_with("#include")).collect();
    assert_eq!(includes, ["#include \"ringway-wait.h\""]);
}

/// S-13 to S-16
#[test]
fn the_note_of_every_c_compiler_is_a_note_and_survives_strip() {
    for compiler in toolchain::c_compilers() {
        for (min_minor, note) in NOTES {
            let source = write_source("plugin.c", &PLUGIN.replace("DEFINE_NOTE", note).replace("MIN_MINOR", &min_minor.to_string()));
            let library = toolchain::output_path(&format!("note-{compiler}-{min_minor}.so"));
            compile(compiler, &["-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"], &source, Some(&library));
            check_note(&library, raw::LANG_C, min_minor);
            check_note(&stripped(&library), raw::LANG_C, min_minor);
        }
    }
}

/// S-13 to S-16
#[test]
fn the_note_of_every_cpp_compiler_is_a_note_and_survives_strip() {
    for compiler in toolchain::cpp_compilers() {
        let (min_minor, note) = NOTES[0];
        let source = write_source("plugin.cc", &PLUGIN.replace("DEFINE_NOTE", note).replace("MIN_MINOR", &min_minor.to_string()));
        let library = toolchain::output_path(&format!("note-{compiler}.so"));
        compile(compiler, &["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,--gc-sections"], &source, Some(&library));
        check_note(&library, raw::LANG_C, min_minor);
        check_note(&stripped(&library), raw::LANG_C, min_minor);
    }
}

/// S-13 to S-16
#[test]
fn the_note_of_zig_is_a_note_and_survives_strip() {
    let source = write_source("plugin.zig", &ZIG_PLUGIN.replace("MIN_MINOR", "3"));
    let library = toolchain::output_path("note-zig.so");
    let mut command = toolchain::zig();
    command.args(["build-lib", "-dynamic", "-O", "safe", "-fPIC", "--name", "plugin", "--dep", "ringway"]);
    command.arg(format!("-Mroot={}", source.display()));
    command.arg(format!("-Mringway={}", toolchain::abi_dir().join("zig/ringway.zig").display()));
    command.arg(format!("-femit-bin={}", library.display())).arg("--cache-dir").arg(toolchain::zig_cache());
    toolchain::run(&mut command);
    check_note(&library, raw::LANG_ZIG, 3);
    check_note(&stripped(&library), raw::LANG_ZIG, 3);
}

fn check_note(library: &Path, language: u16, min_minor: u16) {
    let file = std::fs::read(library).unwrap();
    let elf = elf::Elf::new(&file);
    let section = elf.section(".note.ringway").unwrap_or_else(|| panic!("{library:?} has no .note.ringway"));
    assert_eq!(section.kind, elf::SHT_NOTE, "{library:?}: the section is not a note");
    assert_eq!(section.align, 4);
    assert_eq!(section.size as usize, size_of::<raw::Note>());
    assert!(
        elf.segments(elf::PT_NOTE).any(|note| note.offset <= section.offset && section.offset + section.size <= note.offset + note.size),
        "{library:?}: no PT_NOTE covers the section"
    );
    assert!(elf.dynamic_symbol("ringway_plugin_v1"), "{library:?} does not export the descriptor");

    let expected = raw::Note::new("note-test", "1.2.3", language, raw::HOOK_REQUEST, raw::WANT_RESPOND | raw::WANT_TIME, 32).with_min_minor(min_minor);
    let at = section.offset as usize;
    // SAFETY: a `Note` is made of integers without padding (S-1), so its bytes are initialized.
    let expected = unsafe { std::slice::from_raw_parts((&raw const expected).cast::<u8>(), size_of::<raw::Note>()) };
    assert_eq!(&file[at..at + expected.len()], expected, "{library:?}: the note says something else");
}

fn stripped(library: &Path) -> PathBuf {
    let copy = library.with_extension("stripped.so");
    toolchain::run(Command::new("strip").arg("-s").arg("-o").arg(&copy).arg(library));
    copy
}

fn write_source(name: &str, text: &str) -> PathBuf {
    let path = toolchain::output_path("header").with_extension(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn compile(compiler: &str, flags: &[&str], source: &Path, output: Option<&Path>) {
    let mut command = Command::new(compiler);
    command.args(STRICT).args(flags).arg("-I").arg(toolchain::abi_dir().join("include")).arg(source);
    if let Some(output) = output {
        command.arg("-o").arg(output);
    }
    toolchain::run(&mut command);
}
