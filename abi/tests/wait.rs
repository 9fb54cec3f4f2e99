//! The extension "ringway.wait/1": the same in C, Rust and Zig.
//!
//! Rules of SPEC.md: S-107.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod toolchain;

use std::fmt::Write as _;
use std::mem::offset_of;

use ringway_abi::wait;

const HEADER: &str = include_str!("../include/ringway-wait.h");

/// Struct, offset and size of each field.
type Layout = (&'static str, usize, Vec<(&'static str, usize, usize)>);

fn rust_layout() -> (Vec<Layout>, String) {
    let pointer = size_of::<usize>();
    let structs: Vec<Layout> = vec![(
        "rw_wait",
        size_of::<wait::Wait>(),
        vec![
            ("size", offset_of!(wait::Wait, size), 4),
            ("reserved", offset_of!(wait::Wait, reserved), 4),
            ("timer", offset_of!(wait::Wait, timer), pointer),
            ("wake", offset_of!(wait::Wait, wake), pointer),
        ],
    )];
    let mut text = String::new();
    for (name, size, fields) in &structs {
        writeln!(text, "struct {name} size {size} align 8").unwrap();
        for (field, offset, size) in fields {
            writeln!(text, "field {name}.{field} offset {offset} size {size}").unwrap();
        }
    }
    let constants = [("RW_EVENT_TIMER", wait::EVENT_TIMER), ("RW_EVENT_WAKE", wait::EVENT_WAKE), ("RW_EVENT_TIMEOUT", wait::EVENT_TIMEOUT)];
    for (name, value) in constants {
        writeln!(text, "const {name} {value}").unwrap();
    }
    writeln!(text, "id {}", wait::ID.to_str().unwrap()).unwrap();
    (structs, text)
}

/// S-107
#[test]
fn c_rust_and_zig_agree() {
    let (_, rust) = rust_layout();
    for compiler in toolchain::c_compilers() {
        let program = toolchain::compile_c(compiler, "wait.c", &["-std=c11"]);
        assert_eq!(toolchain::stdout_of(&program, &[]), rust, "{compiler}");
    }
    let program = toolchain::compile_zig_program("wait.zig");
    assert_eq!(toolchain::stdout_of(&program, &[]), rust, "zig");
}

/// S-107
#[test]
fn no_struct_has_padding_and_no_constant_is_forgotten() {
    let (structs, text) = rust_layout();
    for (name, size, fields) in structs {
        let end = fields.iter().fold(0, |end, (field, offset, size)| {
            assert_eq!(*offset, end, "padding before {name}.{field}");
            end + size
        });
        assert_eq!(end, size, "padding at the end of {name}");
    }
    let constants = HEADER.lines().filter_map(|line| line.strip_prefix("#define RW_")).filter_map(|rest| rest.split_once(' '));
    for (name, _) in constants.filter(|(name, _)| *name != "EXT_WAIT") {
        assert!(text.contains(&format!("const RW_{name} ")), "RW_{name} is not compared");
    }
}
