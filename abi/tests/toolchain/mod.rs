//! The C and Zig compilers of this machine, for tests.
//!
//! A missing compiler fails the test and says what to install: a contract that is not compared is not kept.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The C compilers to test with: the system's, and gcc and clang where they are installed.
pub fn c_compilers() -> &'static [&'static str] {
    static FOUND: OnceLock<Vec<&str>> = OnceLock::new();
    let found = FOUND.get_or_init(|| ["cc", "gcc", "clang"].into_iter().filter(|name| runs(name, &["--version"])).collect());
    assert!(!found.is_empty(), "no C compiler found: install one (Debian: apt-get install gcc)");
    found
}

/// The C++ compilers to test with.
pub fn cpp_compilers() -> Vec<&'static str> {
    let found: Vec<_> = ["g++", "clang++"].into_iter().filter(|name| runs(name, &["--version"])).collect();
    assert!(!found.is_empty(), "no C++ compiler found: install one (Debian: apt-get install g++)");
    found
}

/// `zig`, or the one of the Python package.
pub fn zig() -> Command {
    static ON_PATH: OnceLock<bool> = OnceLock::new();
    // The package is preferred: it is the version that the sources are written for.
    if !*ON_PATH.get_or_init(|| !runs("python3", &["-m", "ziglang", "version"])) {
        let mut command = Command::new("python3");
        command.args(["-m", "ziglang"]);
        return command;
    }
    assert!(runs("zig", &["version"]), "no Zig found: install it with `python3 -m pip install ziglang==0.17.1`");
    Command::new("zig")
}

/// Compiles `tests/SOURCE` with the header's folder on the path; returns the program.
pub fn compile_c(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let program = output_path(&format!("{}-{compiler}", source.replace('.', "-")));
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror"]).args(flags).arg("-I").arg(abi_dir().join("include"));
    run(command.arg(abi_dir().join("tests").join(source)).arg("-o").arg(&program));
    program
}

/// Compiles `tests/SOURCE`, which may import `ringway`; returns the program.
pub fn compile_zig_program(source: &str) -> PathBuf {
    let program = output_path(&source.replace('.', "-"));
    let mut command = zig();
    command.args(["build-exe", "--dep", "ringway"]);
    command.arg(format!("-Mroot={}", abi_dir().join("tests").join(source).display()));
    command.arg(format!("-Mringway={}", abi_dir().join("zig/ringway.zig").display()));
    command.arg(format!("-femit-bin={}", program.display())).arg("--cache-dir").arg(zig_cache());
    run(&mut command);
    program
}

/// Runs a program with input files and returns what it printed; it must exit with 0.
pub fn stdout_of(program: &Path, args: &[&Path]) -> String {
    let output = run(Command::new(program).args(args));
    String::from_utf8(output.stdout).expect("the program prints ASCII")
}

/// Runs a command that must succeed; the panic shows the command and what it said.
pub fn run(command: &mut Command) -> std::process::Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed ({}):\n{said}", output.status);
    output
}

/// A path for a new file in cargo's folder for test output, below a folder of this test binary.
pub fn output_path(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let test = std::env::current_exe().expect("a test binary has a path");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test.file_name().expect("it is a file"));
    std::fs::create_dir_all(&folder).expect("cargo's folder is writable");
    folder.join(format!("{count}-{name}"))
}

/// The folder of this crate.
pub fn abi_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where Zig keeps what it compiled before.
pub fn zig_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("zig-cache")
}

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}
