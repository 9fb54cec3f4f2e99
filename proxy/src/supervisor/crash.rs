//! Crash records: what the handler of fatal signals wrote, read back, kept and counted.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Records that are kept; the oldest go first.
pub const CRASHES_KEPT_MAX: usize = 64;
/// The file below the state directory: one JSON object a line.
const FILE: &str = "crashes.jsonl";

/// One death of the gateway process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Crash {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The process.
    pub pid: u32,
    /// What ended it: the name of a signal, or its exit status.
    pub signal: String,
    /// Why the gateway ended it itself.
    pub cause: Option<String>,
    /// The thread that failed.
    pub thread: Option<String>,
    /// The plugin whose code ran, by its name in the configuration.
    pub plugin: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The linker's name of its build.
    pub build_id: Option<String>,
    /// SHA-256 of its file in hex.
    pub hash: Option<String>,
    /// The hook that ran, or the call of the plugin's life.
    pub hook: Option<String>,
    /// Which link of its chain, counted from 1.
    pub link: Option<u32>,
    /// FNV-1a of "METHOD TARGET": the same for the same request line.
    pub request_hash: Option<String>,
    /// The file whose code failed.
    pub module: Option<String>,
    /// Where in that file: the address of the instruction minus the address of the file's beginning.
    pub offset: Option<String>,
    /// The address that was touched.
    pub address: Option<String>,
}

impl Crash {
    /// Of a process that ended as `ended` says and left this record, which may be empty.
    pub fn read(record: &str, pid: u32, ended: &str) -> Crash {
        let mut crash = Crash { unix_ms: unix_ms(SystemTime::now()), pid, signal: ended.to_owned(), ..Crash::default() };
        for line in record.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "unix_ms" => crash.unix_ms = value.parse().unwrap_or(crash.unix_ms),
                "signal" => crash.signal = value.parse().ok().and_then(signal_hook::low_level::signal_name).unwrap_or(ended).to_owned(),
                "cause" => crash.cause = text(),
                "thread" => crash.thread = text(),
                "plugin" => crash.plugin = text(),
                "version" => crash.version = text(),
                "build_id" => crash.build_id = text(),
                "hash" => crash.hash = text(),
                "hook" => crash.hook = text(),
                "link" => crash.link = value.parse().ok(),
                "request_hash" => crash.request_hash = text(),
                "module" => crash.module = text(),
                "offset" => crash.offset = text(),
                "address" => crash.address = text(),
                _ => {}
            }
        }
        crash
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The last crashes.
pub struct Crashes {
    folder: Option<PathBuf>,
    kept: Vec<Crash>,
    /// Crashes of plugins since this supervisor began, for the count.
    counted: Vec<(String, SystemTime)>,
}

impl Crashes {
    /// Those that are kept below `state`, or none yet.
    pub fn load(state: Option<&Path>) -> Crashes {
        let kept = state.map(|folder| read(folder).unwrap_or_default()).unwrap_or_default();
        Crashes { folder: state.map(Path::to_path_buf), kept, counted: Vec::new() }
    }

    /// The oldest first.
    pub fn kept(&self) -> &[Crash] {
        &self.kept
    }

    /// One more, which counts from `now` on.
    ///
    /// # Errors
    /// When it cannot be written; it is kept in memory all the same.
    pub fn add(&mut self, crash: Crash, now: SystemTime) -> io::Result<()> {
        if let Some(plugin) = &crash.plugin {
            self.counted.push((plugin.clone(), now));
        }
        // A process that cannot be started is tried again and again: the last try stands for all of them.
        self.kept.pop_if(|last| {
            last.plugin.is_none() && last.cause.is_some() && (&last.cause, &last.signal, &last.plugin) == (&crash.cause, &crash.signal, &crash.plugin)
        });
        self.kept.push(crash);
        let surplus = self.kept.len().saturating_sub(CRASHES_KEPT_MAX);
        self.kept.drain(..surplus);
        self.write()
    }

    /// How many crashes of a plugin happened within `window` before `now`.
    pub fn count(&mut self, plugin: &str, window: Duration, now: SystemTime) -> usize {
        self.counted.retain(|(_, then)| now.duration_since(*then).is_ok_and(|age| age < window));
        self.counted.iter().filter(|(name, _)| name == plugin).count()
    }

    /// The plugin begins anew.
    pub fn forgive(&mut self, plugin: &str) {
        self.counted.retain(|(name, _)| name != plugin);
    }

    /// Whole or not at all: a reader never sees half a file.
    fn write(&self) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut text = String::new();
        for crash in &self.kept {
            text += &serde_json::to_string(crash)?;
            text.push('\n');
        }
        let partial = folder.join(format!("{FILE}.partial"));
        fs::write(&partial, text)?;
        fs::rename(&partial, folder.join(FILE))
    }
}

/// The records below a state directory. A line that cannot be read is left out.
///
/// # Errors
/// When there is no such file.
pub fn read(state: &Path) -> io::Result<Vec<Crash>> {
    let text = fs::read_to_string(state.join(FILE))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str =
        "signal 11\nunix_ms 17\nthread worker-0\naddress 0x8\nplugin p\nversion 1.2\nbuild_id ab\nhook on_request\nlink 1\nmodule /x/y.so\noffset 0x10\n";

    #[test]
    fn a_record_is_read_back_and_a_missing_one_still_says_how_it_ended() {
        let crash = Crash::read(RECORD, 7, "ended");
        let shown = (crash.pid, crash.unix_ms, crash.signal.as_str(), crash.plugin.as_deref(), crash.link, crash.offset.as_deref());
        assert_eq!(shown, (7, 17, "SIGSEGV", Some("p"), Some(1), Some("0x10")));
        let none = Crash::read("", 7, "SIGKILL");
        assert_eq!((none.signal.as_str(), none.plugin), ("SIGKILL", None));
        assert_eq!(Crash::read("plugin \nlink x\nnonsense", 7, "SIGKILL").link, None);
    }

    #[test]
    fn crashes_count_by_plugin_within_the_window() {
        let (mut crashes, begin) = (Crashes::load(None), UNIX_EPOCH + Duration::from_secs(1000));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let of = |plugin: &str| Crash { plugin: Some(plugin.into()), ..Crash::default() };
        for (plugin, seconds) in [("a", 0), ("b", 10), ("a", 50)] {
            crashes.add(of(plugin), at(seconds)).expect("nothing is written");
        }
        let window = Duration::from_secs(60);
        assert_eq!((crashes.count("a", window, at(55)), crashes.count("b", window, at(55))), (2, 1));
        assert_eq!(crashes.count("a", window, at(61)), 1, "the first is too old");
        crashes.forgive("a");
        assert_eq!(crashes.count("a", window, at(61)), 0);
        assert_eq!(crashes.kept().len(), 3, "the records stay");
    }

    #[test]
    fn tries_that_fail_alike_leave_the_records_before_them() {
        let mut crashes = Crashes::load(None);
        let crash = |plugin: Option<&str>, cause: Option<&str>| Crash { plugin: plugin.map(Into::into), cause: cause.map(Into::into), ..Crash::default() };
        for (plugin, cause) in
            [(Some("a"), None), (Some("a"), None), (None, Some("no file")), (None, Some("no file")), (None, Some("other")), (None, None), (None, None)]
        {
            crashes.add(crash(plugin, cause), UNIX_EPOCH).expect("nothing is written");
        }
        assert_eq!(crashes.kept().len(), 6);
    }

    #[test]
    fn records_outlast_the_supervisor_and_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let mut crashes = Crashes::load(Some(&state));
        for pid in 0..CRASHES_KEPT_MAX as u32 + 3 {
            crashes.add(Crash { pid, ..Crash::default() }, SystemTime::now()).expect("written");
        }
        let again = Crashes::load(Some(&state));
        assert_eq!((again.kept().len(), again.kept()[0].pid), (CRASHES_KEPT_MAX, 3));
        assert_eq!(again.kept(), read(&state).expect("written"));
    }
}
