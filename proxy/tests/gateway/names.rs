//! A resolver that answers as the test says: `names.c`, loaded before the system's.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Launch, eventually};

/// The names that a gateway can look up.
pub struct Names {
    folder: TempDir,
}

impl Names {
    /// With these lines, each a name and what comes of it: addresses, `fail`, or `silent`.
    pub fn new(lines: &[&str]) -> Names {
        let names = Names { folder: tempfile::tempdir().unwrap() };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/names.c");
        let mut command = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
        let output =
            command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(names.folder.path().join("names.so")).arg(source).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        names.say(lines);
        names
    }

    /// From now on these lines are what is known.
    pub fn say(&self, lines: &[&str]) {
        let next = self.folder.path().join("next");
        fs::write(&next, lines.join("\n") + "\n").unwrap();
        fs::rename(next, self.folder.path().join("names")).unwrap();
    }

    /// A gateway that asks here.
    pub fn launch(&self) -> Launch {
        let path = |file: &str| self.folder.path().join(file).display().to_string();
        Launch { environment: vec![("LD_PRELOAD".into(), path("names.so")), ("RINGWAY_TEST_NAMES".into(), path("names"))], ..Launch::default() }
    }

    /// How often this name has been asked for.
    pub fn asked(&self, name: &str) -> usize {
        let asked = fs::read_to_string(self.folder.path().join("names.asked")).unwrap_or_default();
        asked.lines().filter(|line| *line == name).count()
    }

    /// Waits until this name has been asked for so often.
    pub fn wait_for(&self, count: usize, name: &str) {
        eventually("the name is asked for", || self.asked(name) >= count);
    }
}
