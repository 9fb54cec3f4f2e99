//! One gateway process, as the supervisor sees it: started with sockets and a brief, listened to, waited for.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Event;
use super::protocol::{Brief, FromGateway, ToGateway};
use super::sockets::pass_on;
use crate::plugin::file;

/// For a process that does not take its brief.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a crash record that are read.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// A program file, open: what is started later is what was chosen, whatever its path leads to by then.
pub struct Binary {
    /// Where it was found.
    pub path: PathBuf,
    file: File,
}

impl Binary {
    /// The program that runs.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn own() -> io::Result<Binary> {
        Ok(Binary { path: std::env::current_exe()?, file: File::open("/proc/self/exe")? })
    }

    /// The program at `path`.
    ///
    /// # Errors
    /// Those of opening it, and that it is no regular file: the supervisor waits for nobody.
    pub fn open(path: &Path) -> io::Result<Binary> {
        Ok(Binary { path: path.to_owned(), file: file::open(path)? })
    }
}

/// A gateway process.
pub struct Child {
    /// Counts the processes of this supervisor.
    pub number: u64,
    /// What it runs.
    pub binary: Arc<Binary>,
    /// When it was started.
    pub started: Instant,
    /// It has said that it can serve as soon as it is told to.
    pub is_loaded: bool,
    /// It was told to.
    may_serve: bool,
    /// It has said that it serves.
    pub is_ready: bool,
    /// It makes no changes while it knows of an upgrade, and says so.
    pub can_hold: bool,
    /// When it was last told to read the configuration again.
    reloads_since: Option<Instant>,
    /// It is to open its logs anew when it listens for signals.
    owes_reopen: bool,
    process: std::process::Child,
    has_ended: bool,
    /// By this supervisor, for want of a use: how it ends is no news.
    was_killed: bool,
    control: UnixStream,
    /// The thread that hears what it says.
    listener: Option<JoinHandle<()>>,
    record: PipeReader,
}

impl Child {
    /// Starts a process. What it says becomes events.
    ///
    /// # Errors
    /// Why there is no process.
    pub fn start(number: u64, binary: &Arc<Binary>, mut brief: Brief, events: &mpsc::Sender<Event>) -> io::Result<Child> {
        let (control, theirs) = UnixStream::pair()?;
        let (record, their_record) = io::pipe()?;
        let their_control = pass_on(&theirs)?;
        brief.record = pass_on(&their_record)?;
        let mut command = Command::new(format!("/proc/self/fd/{}", binary.file.as_raw_fd()));
        command.arg0("ringway").args(["gateway", "--control", &their_control.to_string()]);
        // A group of its own: what a terminal sends reaches the supervisor alone, which passes it on.
        let process = command.stdin(Stdio::null()).process_group(0).spawn()?;
        drop((theirs, their_record));
        let binary = Arc::clone(binary);
        let mut child = Child {
            number,
            binary,
            started: Instant::now(),
            is_loaded: false,
            may_serve: false,
            is_ready: false,
            can_hold: false,
            reloads_since: None,
            owes_reopen: false,
            process,
            has_ended: false,
            was_killed: false,
            control,
            listener: None,
            record,
        };
        let begun = child.control.set_write_timeout(Some(WRITE_TIMEOUT)).and_then(|()| child.listen(events)).and_then(|()| child.say(&brief));
        match begun {
            // It has ended already: waiting for it tells why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(child),
            Err(error) => {
                child.kill();
                let _ = child.process.wait();
                Err(error)
            }
            Ok(()) => Ok(child),
        }
    }

    fn listen(&mut self, events: &mpsc::Sender<Event>) -> io::Result<()> {
        let (control, events, number) = (self.control.try_clone()?, events.clone(), self.number);
        let listener = thread::Builder::new().name("listen".into()).spawn(move || {
            for line in BufReader::new(control).lines() {
                let Ok(line) = line else { return };
                let event = match serde_json::from_str::<FromGateway>(&line) {
                    Ok(said) => Event::Said(number, said),
                    Err(error) => {
                        tracing::warn!(%error, "a gateway process says what this supervisor does not understand");
                        continue;
                    }
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        })?;
        self.listener = Some(listener);
        Ok(())
    }

    fn say(&mut self, what: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_string(what)?;
        line.push('\n');
        self.control.write_all(line.as_bytes())
    }

    /// Tells it something. Whether it has ended is found out by waiting.
    pub fn tell(&mut self, what: &ToGateway) {
        if let Err(error) = self.say(what) {
            tracing::warn!(pid = self.pid(), %error, "a gateway process does not listen");
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if !self.has_ended {
            // It has not been waited for, so the pid is still its own; an error means that it is ending.
            let _ = kill_process(Pid::from_child(&self.process), signal);
        }
    }

    /// Has it read the configuration again, which opens the logs anew, too. Only for one that is ready.
    pub fn reload(&mut self) {
        self.reloads_since = Some(Instant::now());
        if self.can_hold {
            // In its order among what else it is told, which a signal does not keep.
            self.tell(&ToGateway::Reload);
        } else {
            self.signal(Signal::HUP);
        }
    }

    /// Whether it was told to read the configuration again less than `within` ago, and may not have done it.
    pub fn may_owe_reload(&self, within: Duration) -> bool {
        self.reloads_since.is_some_and(|since| since.elapsed() < within)
    }

    /// Has it open its logs anew: once it handles the signal, since the default action would end it.
    pub fn reopen_logs(&mut self) {
        if self.is_ready {
            self.signal(Signal::USR1);
        } else {
            self.owes_reopen = true;
        }
    }

    /// It has said that it serves.
    pub fn on_ready(&mut self) {
        self.is_ready = true;
        if std::mem::take(&mut self.owes_reopen) {
            self.reopen_logs();
        }
    }

    /// Tells one that is loaded to accept connections, once.
    pub fn let_serve(&mut self) {
        if self.is_loaded && !self.may_serve {
            self.may_serve = true;
            self.tell(&ToGateway::Serve);
        }
    }

    /// No other process serves from now on.
    pub fn put_in_charge(&mut self) {
        self.let_serve();
        if self.is_loaded {
            self.tell(&ToGateway::InCharge);
        }
    }

    /// It is not needed any more. What it has accepted it finishes; one that cannot have accepted anything is ended.
    pub fn dismiss(&mut self, successor: u32) {
        // An older program says what is in force before it accepts, and not that it is loaded.
        if self.is_ready || self.may_serve || self.can_hold {
            // It has listened to signals since before it was loaded.
            self.is_ready = true;
            self.tell(&ToGateway::HandOver { successor });
        } else {
            self.kill();
        }
    }

    /// Ends it.
    fn kill(&mut self) {
        self.was_killed = true;
        self.signal(Signal::KILL);
    }

    /// Whether a process that ended like this has crashed: a signal ended it that was not meant to.
    pub fn has_crashed(&self, status: ExitStatus) -> bool {
        let meant = self.was_killed || (!self.is_ready && matches!(status.signal(), Some(SIGTERM | SIGINT)));
        status.signal().is_some() && !meant
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.try_wait().ok().flatten();
        self.has_ended |= status.is_some();
        status
    }

    /// Once it has ended: all that it said is among the events when this returns.
    pub fn hear_out(&mut self) {
        // A plugin may have made a process that still holds the other end. What is there can be read all the same, then it ends.
        let _ = self.control.shutdown(Shutdown::Read);
        // An error is a panic, which the log has.
        let _ = self.listener.take().map(JoinHandle::join);
    }

    /// What it wrote about its crash, once it has ended.
    pub fn record(&mut self) -> String {
        let mut text = Vec::new();
        // A plugin may have made a process that still holds the other end: only what is there is read.
        if rustix::io::ioctl_fionbio(&self.record, true).is_ok() {
            let _ = self.record.by_ref().take(RECORD_BYTES_MAX).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// How a process ended, in words.
pub fn words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "unknown".into(),
    }
}
