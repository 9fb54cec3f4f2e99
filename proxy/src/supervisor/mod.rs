//! The supervisor: the process that `ringway run` is. It owns the listening sockets and keeps a gateway process running
//! that accepts from them.
//!
//! [`sockets`] are bound once and handed on; [`child`] is one gateway process, [`protocol`] what the two say, [`link`] the
//! gateway's side of it. `upgrade` puts another program in its place. When the gateway dies, [`fatal`] has written what ran into a pipe; [`crash`] reads it, keeps it and
//! counts it against the plugin. Must not: load plugins, accept connections, or do anything that could fail while traffic
//! depends on it.
//!
//! Invariants: at most one process is the one that serves (`serving`) and one is to follow it (`next`); those in `leaving`
//! finish what they have. A process is restarted only after it has served; one that could not start ends the supervisor,
//! unless another served before it.

pub mod child;
pub mod crash;
pub mod fatal;
pub mod link;
pub mod protocol;
pub mod sockets;
mod upgrade;

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};
use std::{io, process};

use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use self::child::{Binary, Child, words};
use self::crash::{Crash, Crashes};
use self::protocol::{Brief, FromGateway, Hashes, PROTOCOL, Standings, ToGateway};
use self::sockets::Sockets;
use self::upgrade::Upgrade;
use crate::config::{AccessLog, Config, Server};
use crate::logs::{self, Logs};
use crate::run::worker_count;
use crate::signals::Caught;
use crate::upstream::resolve::Known;

/// A gateway process that served for so long is restarted at once when it dies.
const STEADY: Duration = Duration::from_secs(1);
/// One that did not: the second time in a row after this, then twice as long each time.
const RESTART_AFTER: Duration = Duration::from_millis(50);
/// The longest wait before a restart.
const RESTART_AFTER_MAX: Duration = Duration::from_secs(5);
/// One that dies so soon after it was told to read the configuration again may not have done it: the next one is told, too.
const RELOAD_TIME: Duration = Duration::from_secs(10);
/// Between two looks at deadlines.
const LOOK: Duration = Duration::from_millis(200);

/// What the supervisor waits for.
pub enum Event {
    /// A signal.
    Signal(i32),
    /// The gateway process of that number said something.
    Said(u64, FromGateway),
}

/// Supervises a gateway with this configuration until it is told to stop. The exit code is that of the gateway process:
/// 0 after a drain.
pub fn supervise(config: &Config, path: &Path, text: &str, caught: Caught) -> i32 {
    // The gateway process writes the access log.
    let logs = match logs_of(&Server { access_log: AccessLog::Off, ..(*config.server).clone() }) {
        Ok(logs) => logs,
        Err(_) => return 1,
    };
    let code = match Supervisor::begin(config, path, text, caught) {
        Ok((supervisor, events)) => supervisor.run(&events),
        Err(reason) => {
            tracing::error!("{reason}");
            1
        }
    };
    drop(logs);
    code
}

/// Installs the logs; a failure is said, since it cannot be logged.
pub(crate) fn logs_of(server: &Server) -> Result<Logs, String> {
    logs::install(server).inspect_err(|reason| eprintln!("error: {reason}"))
}

struct Supervisor {
    sockets: Sockets,
    /// What the next process runs.
    binary: Arc<Binary>,
    /// What a process without an explicit choice is upgraded to.
    program: PathBuf,
    path: PathBuf,
    in_force: InForce,
    known: Known,
    crashes: Crashes,
    crashes_max: usize,
    crash_window: Duration,
    events: mpsc::Sender<Event>,
    /// What came in while a process was heard out.
    deferred: VecDeque<Event>,
    started: u64,
    restarts: u64,
    upgrades: u64,
    serving: Option<Child>,
    next: Option<Upgrade>,
    leaving: Vec<Child>,
    /// Deaths in a row of processes that had not served for [`STEADY`].
    short_lives: u32,
    restart_at: Option<Instant>,
    /// A SIGHUP came while nobody served.
    owes_reload: bool,
    is_ending: bool,
    /// Of the process that served, once it has ended for good.
    code: Option<i32>,
}

/// What the next process is to run.
#[derive(Clone, PartialEq, Eq)]
struct InForce {
    text: String,
    standings: Standings,
    plugins: Hashes,
}

impl Supervisor {
    fn begin(config: &Config, path: &Path, text: &str, caught: Caught) -> Result<(Supervisor, mpsc::Receiver<Event>), String> {
        let binary = Binary::own().map_err(|error| format!("cannot find this program: {error}"))?;
        let sockets = Sockets::bind(config, worker_count(config))?;
        let (events, receiver) = mpsc::channel();
        caught.forward(&[SIGTERM, SIGINT, SIGCHLD], events.clone(), Event::Signal).map_err(|error| format!("signals cannot be handled: {error}"))?;
        let mut supervisor = Supervisor {
            sockets,
            program: binary.path.clone(),
            binary: Arc::new(binary),
            path: path.to_owned(),
            in_force: InForce { text: text.to_owned(), standings: Standings::default(), plugins: Hashes::new() },
            known: Known::new(),
            crashes: Crashes::load(config.server.state.as_deref()),
            crashes_max: 0,
            crash_window: Duration::ZERO,
            events,
            deferred: VecDeque::new(),
            started: 0,
            restarts: 0,
            upgrades: 0,
            serving: None,
            next: None,
            leaving: Vec::new(),
            short_lives: 0,
            restart_at: None,
            owes_reload: false,
            is_ending: false,
            code: None,
        };
        supervisor.heed(config);
        let child =
            supervisor.start_child(&Arc::clone(&supervisor.binary), false).map_err(|error| format!("the gateway process cannot be started: {error}"))?;
        tracing::info!(pid = process::id(), gateway = child.pid(), "supervising");
        supervisor.serving = Some(child);
        Ok((supervisor, receiver))
    }

    /// What of the configuration concerns this process.
    fn heed(&mut self, config: &Config) {
        self.crashes_max = config.limits.plugin_crashes;
        self.crash_window = Duration::from_millis(u64::from(config.timeouts.plugin_crash_window));
    }

    /// `is_restart`: the process before it has died.
    fn start_child(&mut self, binary: &Arc<Binary>, is_restart: bool) -> io::Result<Child> {
        let (listeners, admin) = self.sockets.inheritable()?;
        self.started += 1;
        let brief = Brief {
            protocol: PROTOCOL,
            path: self.path.clone(),
            text: self.in_force.text.clone(),
            listeners,
            admin,
            record: -1,
            standings: self.in_force.standings.clone(),
            crashes: self.crashes.kept().to_vec(),
            restarts: self.restarts,
            known: self.known.clone(),
            plugins: self.in_force.plugins.clone(),
            is_restart,
            waits: true,
        };
        Child::start(self.started, binary, brief, &self.events)
    }

    fn run(mut self, events: &mpsc::Receiver<Event>) -> i32 {
        loop {
            let event = self.deferred.pop_front().map_or_else(|| events.recv_timeout(self.patience()), Ok);
            match event {
                Ok(Event::Signal(signal)) => self.on_signal(signal),
                Ok(Event::Said(number, said)) => self.on_said(number, said),
                // The sender is held here, so that only time can have passed.
                Err(_) => {}
            }
            self.bury(events);
            self.look_at_deadlines();
            self.proceed_with_upgrade();
            if let Some(code) = self.code.filter(|_| self.leaving.is_empty() && self.next.is_none()) {
                self.sockets.remove_files();
                tracing::info!("the supervisor ends");
                return code;
            }
        }
    }

    /// Until the next deadline.
    fn patience(&self) -> Duration {
        self.restart_at.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK))
    }

    fn on_signal(&mut self, signal: i32) {
        match signal {
            SIGCHLD => {}
            SIGHUP => self.reload(),
            SIGUSR1 => self.reopen_logs(),
            SIGUSR2 => self.upgrade(&self.program.clone(), false),
            signal => {
                if !self.is_ending {
                    self.is_ending = true;
                    self.restart_at = None;
                    self.sockets.close();
                    self.give_up_upgrade("the gateway is ending".into());
                    if self.serving.is_none() {
                        // It died and was to be restarted: that was said, and there is nothing to drain.
                        self.code = Some(0);
                    }
                }
                self.each(if signal == SIGINT { Signal::INT } else { Signal::TERM });
            }
        }
    }

    /// To every process that serves or still finishes something.
    fn each(&self, signal: Signal) {
        self.serving.iter().chain(&self.leaving).for_each(|child| child.signal(signal));
    }

    /// Whoever serves reads the configuration again, as soon as somebody does. Those that are leaving read none any more, but they log.
    fn reload(&mut self) {
        match self.serving.as_mut().filter(|child| child.is_ready) {
            Some(child) => child.reload(),
            None => self.owes_reload = true,
        }
        self.next.iter_mut().for_each(Upgrade::owe_reload);
        self.leaving.iter_mut().for_each(Child::reopen_logs);
    }

    fn reopen_logs(&mut self) {
        let next = self.next.as_mut().and_then(Upgrade::child);
        self.serving.iter_mut().chain(next).chain(&mut self.leaving).for_each(Child::reopen_logs);
    }

    fn on_said(&mut self, number: u64, said: FromGateway) {
        let serving = self.serving.as_mut().filter(|child| child.number == number);
        match said {
            FromGateway::Loaded => match serving {
                Some(child) => {
                    child.is_loaded = true;
                    child.let_serve();
                }
                None => self.next.iter_mut().for_each(|next| next.note_loaded(number)),
            },
            FromGateway::Ready if serving.is_some() => {
                if let Some(child) = serving {
                    child.on_ready();
                    if self.restarts > 0 {
                        tracing::info!(pid = child.pid(), restarts = self.restarts, ms = child.started.elapsed().as_millis() as u64, "serving again");
                    }
                }
                // It may have outlived the process before this one. Said first: a change would be undone by it.
                self.announce_upgrade();
                if let Some(child) = &mut self.serving {
                    child.put_in_charge();
                    if std::mem::take(&mut self.owes_reload) {
                        child.reload();
                    }
                }
            }
            FromGateway::Ready => self.next.iter_mut().for_each(|next| next.note_ready(number)),
            FromGateway::Held { upgrade } if serving.is_some() => self.next.iter_mut().for_each(|next| next.note_held(number, upgrade)),
            FromGateway::InForce { text, standings, known, plugins, can_hold } if serving.is_some() => {
                serving.into_iter().for_each(|child| child.can_hold = can_hold);
                for name in self.in_force.standings.quarantined.keys().filter(|name| !standings.quarantined.contains_key(*name)) {
                    self.crashes.forgive(name);
                }
                self.known = known.unwrap_or_else(|| std::mem::take(&mut self.known));
                if self.in_force.text != text {
                    // The process has checked it already.
                    if let Ok(config) = Config::of_file(&self.path, &text) {
                        self.heed(&config);
                    }
                }
                self.in_force = InForce { text, standings, plugins };
            }
            FromGateway::Upgrade { binary } if serving.is_some() => {
                let path = binary.unwrap_or_else(|| self.program.clone());
                self.upgrade(&path, true);
            }
            FromGateway::Upgrade { .. } => {
                let next = self.next.as_mut().and_then(Upgrade::child);
                if let Some(child) = self.leaving.iter_mut().chain(next).find(|child| child.number == number) {
                    child.tell(&ToGateway::UpgradeFailed { reason: "another process serves by now: ask again".into(), is_under_way: false });
                }
            }
            FromGateway::InForce { can_hold, .. } => {
                let next = self.next.as_mut().and_then(Upgrade::child).filter(|child| child.number == number);
                next.into_iter().for_each(|child| child.can_hold = can_hold);
            }
            // Of a process that is leaving.
            FromGateway::Held { .. } => {}
        }
    }

    /// Takes note of processes that have ended.
    fn bury(&mut self, events: &mpsc::Receiver<Event>) {
        if let Some((number, status)) = self.serving.as_mut().and_then(|child| Some((child.number, child.ended()?))) {
            self.hear_out(number, events);
            if let Some(mut child) = self.serving.take() {
                self.on_death(&mut child, status);
            }
        }
        self.bury_next();
        for mut child in std::mem::take(&mut self.leaving) {
            match child.ended() {
                None => self.leaving.push(child),
                Some(status) if child.has_crashed(status) => {
                    self.note_crash(&mut child, status, SystemTime::now());
                }
                Some(status) => tracing::info!(pid = child.pid(), ended = words(status), "a former gateway process has ended"),
            }
        }
    }

    /// What the process that served has said is heeded before it is replaced: the next one starts with what was in force at last.
    fn hear_out(&mut self, number: u64, events: &mpsc::Receiver<Event>) {
        self.serving.iter_mut().for_each(Child::hear_out);
        for event in self.deferred.drain(..).chain(events.try_iter()).collect::<Vec<_>>() {
            match event {
                Event::Said(of, said) if of == number => self.on_said(of, said),
                other => self.deferred.push_back(other),
            }
        }
    }

    /// The process that served has ended.
    fn on_death(&mut self, child: &mut Child, status: ExitStatus) {
        let code = status.code();
        let could_not_start = !child.is_ready && self.restarts == 0 && code.is_some();
        let now = SystemTime::now();
        if self.is_ending || could_not_start {
            if child.has_crashed(status) {
                self.note_crash(child, status, now);
            }
            self.code = Some(last_code(status, child.is_ready));
            self.sockets.close();
            return;
        }
        // Reading it twice does no harm.
        self.owes_reload |= child.may_owe_reload(RELOAD_TIME);
        let plugin = self.note_crash(child, status, now);
        let wait = if child.is_ready && child.started.elapsed() >= STEADY {
            self.short_lives = 0;
            Duration::ZERO
        } else {
            self.short_lives += 1;
            back_off(self.short_lives)
        };
        let wait = if plugin.is_some_and(|plugin| self.judge(&plugin, now)) { Duration::ZERO } else { wait };
        self.restart_at = Some(Instant::now() + wait);
    }

    /// Reports and keeps what the process wrote when it died. The plugin that brought it down.
    fn note_crash(&mut self, child: &mut Child, status: ExitStatus, now: SystemTime) -> Option<String> {
        let record = child.record();
        let mut crash = Crash::read(&record, child.pid(), &words(status));
        crash.cause = crash.cause.or_else(|| link::failure(&record));
        let plugin = crash.plugin.clone();
        report(&crash);
        if let Some(serving) = &mut self.serving {
            serving.tell(&ToGateway::Crashed { crash: Box::new(crash.clone()) });
        }
        if let Err(error) = self.crashes.add(crash, now) {
            tracing::error!(%error, "the crash record cannot be kept");
        }
        plugin
    }

    /// Whether the plugin is quarantined for this crash.
    fn judge(&mut self, plugin: &str, now: SystemTime) -> bool {
        let count = self.crashes.count(plugin, self.crash_window, now);
        let standings = &mut self.in_force.standings;
        if self.crashes_max == 0 || count < self.crashes_max || (standings.quarantined.contains_key(plugin) && !standings.missing.contains(plugin)) {
            return false;
        }
        let reason = format!("it brought the process down {count} times within {}", crate::limits::duration::text(self.crash_window.as_millis() as u32));
        tracing::error!(plugin, "quarantined: {reason}");
        standings.quarantined.insert(plugin.to_owned(), reason);
        // Its file was found since, and this is what it did.
        standings.missing.remove(plugin);
        true
    }

    fn look_at_deadlines(&mut self) {
        let now = Instant::now();
        self.look_at_upgrade_deadline(now);
        if self.restart_at.is_some_and(|at| now >= at) {
            self.restart_at = None;
            self.restarts += 1;
            match self.start_child(&Arc::clone(&self.binary), true) {
                Ok(child) => self.serving = Some(child),
                Err(error) => {
                    tracing::error!(%error, "the gateway process cannot be restarted");
                    self.restart_at = Some(now + RESTART_AFTER_MAX);
                }
            }
        }
    }
}

/// The exit code after the last process. One that was told to end before it could hear that lost nothing: it had not served yet.
fn last_code(status: ExitStatus, was_ready: bool) -> i32 {
    match status.signal() {
        Some(SIGTERM | SIGINT) if !was_ready => 0,
        _ => status.code().unwrap_or(1),
    }
}

/// The first death in a row is followed at once, later ones ever later.
fn back_off(short_lives: u32) -> Duration {
    match short_lives {
        0 | 1 => Duration::ZERO,
        more => RESTART_AFTER.saturating_mul(1 << (more - 2).min(16)).min(RESTART_AFTER_MAX),
    }
}

fn report(crash: &Crash) {
    tracing::error!(
        pid = crash.pid,
        ended = crash.signal,
        cause = crash.cause,
        plugin = crash.plugin,
        version = crash.version,
        build_id = crash.build_id,
        hook = crash.hook,
        link = crash.link,
        request_hash = crash.request_hash,
        module = crash.module,
        offset = crash.offset,
        thread = crash.thread,
        "the gateway process died"
    );
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGKILL;

    use super::*;

    #[test]
    fn a_process_that_is_stopped_while_it_starts_has_failed_at_nothing() {
        let (killed, exited) = (ExitStatus::from_raw, |code: i32| ExitStatus::from_raw(code << 8));
        assert_eq!([last_code(killed(SIGTERM), false), last_code(killed(SIGTERM), true), last_code(killed(SIGKILL), false)], [0, 1, 1]);
        assert_eq!([last_code(exited(0), true), last_code(exited(1), false), last_code(exited(130), true)], [0, 1, 130]);
    }

    #[test]
    fn restarts_wait_longer_each_time_and_never_for_long() {
        let waits: Vec<u64> = [1, 2, 3, 4, 8, 100].map(|lives| back_off(lives).as_millis() as u64).to_vec();
        assert_eq!(waits, [0, 50, 100, 200, 3200, 5000]);
    }
}
