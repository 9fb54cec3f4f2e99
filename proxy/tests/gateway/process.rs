//! The gateway as a process: started from a text, watched through its log, ended with signals.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{Config, DEADLINE, eventually, ringway};

/// How to start it.
#[derive(Default)]
pub struct Launch {
    /// Bound of open files, hard and soft; 0: as inherited.
    pub files_max: usize,
    /// Its standard output is a pipe that nobody reads.
    pub unread_output: bool,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// A running gateway; killed when dropped, if it was not stopped.
pub struct Gateway {
    child: Child,
    log: Arc<Log>,
    addresses: Vec<String>,
    /// The process that serves, as the log says.
    serving: u32,
    /// Holds the configuration file; a test may put more here.
    pub folder: TempDir,
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Gateway {
    /// Starts it and waits until it listens.
    pub fn start(config: &Config) -> Gateway {
        Launch::default().start(config)
    }

    /// Runs a command line that serves at one address, and waits until it listens.
    pub fn command(arguments: &[&str]) -> Gateway {
        let (child, log) = Launch::default().run(ringway(arguments));
        Gateway { child, log, addresses: Vec::new(), serving: 0, folder: tempfile::tempdir().unwrap() }.listening(1, &arguments.join(" "))
    }

    fn listening(mut self, listeners: usize, what: &str) -> Gateway {
        let Some(lines) = self.log.wait_for("\"listening\"", listeners) else {
            let status = self.ended();
            panic!("the gateway does not listen (ended: {status:?}):\n{}\n{what}", self.log().join("\n"));
        };
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        self.addresses = lines.iter().map(|line| line["address"].as_str().unwrap().to_owned()).collect();
        self.serving = lines[0]["pid"].as_u64().unwrap() as u32;
        self
    }

    /// Where it listens: `127.0.0.1:PORT`, or `unix:/PATH`.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// All listeners, in the order of the file.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// `http://ADDRESS` and this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// The process that was started: signals go there.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that served first; the same one where there is no supervisor.
    pub fn serving_pid(&self) -> u32 {
        self.serving
    }

    /// What the process that served first holds.
    pub fn memory(&self) -> Memory {
        memory_of(self.serving_pid())
    }

    /// CPU time of all threads of the process that served first, so far.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.serving_pid())).unwrap();
        // A thread may end between the listing and the reading.
        let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        tasks.map(|task| Duration::from_nanos(read(task.unwrap()).split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))).sum()
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().0.clone()
    }

    /// Waits until the log has `count` events for which `wanted` is true, then says how many there are. An event may be written after the
    /// answer that it belongs to.
    pub fn events(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> usize {
        let found = || self.log().iter().filter_map(|line| serde_json::from_str(line).ok()).filter(&wanted).count();
        eventually("the events are logged", || found() >= count);
        found()
    }

    /// The same, by the event's message.
    pub fn said(&self, count: usize, message: &str) -> usize {
        self.events(count, |event| event["message"] == message)
    }

    /// Waits for a log line that contains `text`.
    pub fn wait_for(&self, text: &str) -> String {
        self.log.wait_for(text, 1).unwrap_or_else(|| panic!("no log line with {text:?}:\n{}", self.log().join("\n"))).remove(0)
    }

    /// The value of a sample of /metrics, `name{labels}` as it stands there, 0 when it is absent. The gateway has an admin address.
    pub fn metric(&self, sample: &str) -> u64 {
        let line: Value = serde_json::from_str(&self.wait_for("\"admin listening\"")).unwrap();
        let mut client = super::Client::connect(line["address"].as_str().unwrap());
        client.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status, 200, "{response:?}");
        response.text().lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0)
    }

    /// Whether the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Waits for the end.
    pub fn wait(&mut self, what: &str) -> ExitStatus {
        let mut status = None;
        eventually(what, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// SIGTERM; it must drain and exit with 0.
    pub fn stop(mut self) {
        if let Some(status) = self.ended() {
            panic!("the gateway ended by itself with {status}:\n{}", self.log().join("\n"));
        }
        self.signal(libc::SIGTERM);
        let status = self.wait("the gateway ends after SIGTERM");
        assert_eq!(status.code(), Some(0), "after SIGTERM:\n{}", self.log().join("\n"));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Without its supervisor the gateway process drains; it ends when it sees that nobody is left.
        if std::thread::panicking() {
            eprintln!("--- the gateway's log:\n{}", self.log().join("\n"));
        }
    }
}

impl Launch {
    /// Starts it and waits until it listens.
    pub fn start(self, config: &Config) -> Gateway {
        let listeners = config.text().matches("[[listener]]").count();
        let (child, log, folder) = self.spawn(config);
        Gateway { child, log, addresses: Vec::new(), serving: 0, folder }.listening(listeners, &config.text())
    }

    /// Starts it, expecting that it refuses. Its exit code and everything it said.
    pub fn refuse(self, config: &Config) -> (Option<i32>, String) {
        let (child, log, _folder) = self.spawn(config);
        let mut gateway = Gateway { child, log, addresses: Vec::new(), serving: 0, folder: tempfile::tempdir().unwrap() };
        let status = gateway.wait("the gateway refuses to start");
        gateway.log.ended();
        (status.code(), gateway.log().join("\n"))
    }

    fn spawn(self, config: &Config) -> (Child, Arc<Log>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.toml");
        fs::write(&file, config.text()).unwrap();
        let (child, log) = self.run(ringway(&["run", "-c", file.to_str().unwrap()]));
        (child, log, folder)
    }

    fn run(self, mut command: Command) -> (Child, Arc<Log>) {
        if self.files_max > 0 {
            // The gateway raises its soft bound to the hard one, so both are set.
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -n {}; exec \"$0\" \"$@\"", self.files_max)]).arg(command.get_program()).args(command.get_args());
            command = shell;
        }
        let output = if self.unread_output { Stdio::piped() } else { Stdio::null() };
        let mut child = command.envs(self.environment).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let (stderr, to) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                to.lines.lock().unwrap().0.push(line);
                to.more.notify_all();
            }
            to.lines.lock().unwrap().1 = true;
            to.more.notify_all();
        });
        (child, log)
    }
}

impl Log {
    /// The first `count` lines with `text`; `None` at the deadline or at the end of the log.
    fn wait_for(&self, text: &str, count: usize) -> Option<Vec<String>> {
        let begun = Instant::now();
        let mut lines = self.lines.lock().unwrap();
        loop {
            let found: Vec<String> = lines.0.iter().filter(|line| line.contains(text)).take(count).cloned().collect();
            if found.len() == count {
                return Some(found);
            }
            if lines.1 || begun.elapsed() > DEADLINE {
                return None;
            }
            lines = self.more.wait_timeout(lines, Duration::from_millis(100)).unwrap().0;
        }
    }

    /// Waits for the end of the log.
    fn ended(&self) {
        eventually("the end of the log", || self.lines.lock().unwrap().1);
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident, in KiB.
    pub resident_kib: u64,
    /// Open files.
    pub files: usize,
}

/// What the process holds now.
pub fn memory_of(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident_kib = resident.trim().trim_end_matches(" kB").trim().parse().unwrap();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    Memory { resident_kib, files }
}

/// Sends a signal to a process that the test started.
pub fn signal(pid: u32, number: i32) {
    // SAFETY: a system call without memory; the pid is that of a child that has not been waited for.
    let sent = unsafe { libc::kill(pid as libc::pid_t, number) };
    assert_eq!(sent, 0, "signal {number} to {pid}");
}
