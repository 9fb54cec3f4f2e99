//! The extension "ringway.outcall/1": the same in C, Rust and Zig.
//!
//! Rules of SPEC.md: S-107.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod toolchain;

use std::fmt::Write as _;
use std::mem::offset_of;

use ringway_abi::{outcall, wait};

const HEADER: &str = include_str!("../include/ringway-outcall.h");

fn rust_layout() -> (Vec<(&'static str, usize, usize)>, String) {
    let pointer = size_of::<usize>();
    let fields = vec![
        ("size", offset_of!(outcall::Outcall, size), 4),
        ("reserved", offset_of!(outcall::Outcall, reserved), 4),
        ("upstream", offset_of!(outcall::Outcall, upstream), pointer),
        ("begin", offset_of!(outcall::Outcall, begin), pointer),
        ("header", offset_of!(outcall::Outcall, header), pointer),
        ("body", offset_of!(outcall::Outcall, body), pointer),
        ("send", offset_of!(outcall::Outcall, send), pointer),
    ];
    let mut text = format!("struct rw_outcall size {} align 8\n", size_of::<outcall::Outcall>());
    for (field, offset, size) in &fields {
        writeln!(text, "field rw_outcall.{field} offset {offset} size {size}").unwrap();
    }
    let constants = [
        ("RW_WANT_OUTCALL", outcall::WANT_OUTCALL as i64),
        ("RW_EVENT_REPLY", i64::from(outcall::EVENT_REPLY)),
        ("RW_OUTCALL_UNREACHABLE", i64::from(outcall::UNREACHABLE)),
        ("RW_OUTCALL_TIMEOUT", i64::from(outcall::TIMEOUT)),
        ("RW_OUTCALL_BROKEN", i64::from(outcall::BROKEN)),
    ];
    for (name, value) in constants {
        writeln!(text, "const {name} {value}").unwrap();
    }
    writeln!(text, "id {}", outcall::ID.to_str().unwrap()).unwrap();
    (fields, text)
}

/// S-107
#[test]
fn c_rust_and_zig_agree() {
    let (_, rust) = rust_layout();
    for compiler in toolchain::c_compilers() {
        let program = toolchain::compile_c(compiler, "outcall.c", &["-std=c11"]);
        assert_eq!(toolchain::stdout_of(&program, &[]), rust, "{compiler}");
    }
    let program = toolchain::compile_zig_program("outcall.zig");
    assert_eq!(toolchain::stdout_of(&program, &[]), rust, "zig");
}

/// S-107
#[test]
fn the_table_has_no_padding_and_no_constant_is_forgotten_or_taken() {
    let (fields, text) = rust_layout();
    let end = fields.iter().fold(0, |end, (field, offset, size)| {
        assert_eq!(*offset, end, "padding before {field}");
        end + size
    });
    assert_eq!(end, size_of::<outcall::Outcall>());
    let constants = HEADER.lines().filter_map(|line| line.strip_prefix("#define RW_")).filter_map(|rest| rest.split_once(' '));
    for (name, _) in constants.filter(|(name, _)| *name != "EXT_OUTCALL") {
        assert!(text.contains(&format!("const RW_{name} ")), "RW_{name} is not compared");
    }
    assert!([wait::EVENT_TIMER, wait::EVENT_WAKE, wait::EVENT_TIMEOUT].iter().all(|kind| *kind != outcall::EVENT_REPLY));
}
