//! The gateway: plugins loaded, workers started, signals answered, changes made.
//!
//! Order: logs, driver, plugins, names of servers, sockets, workers, admin threads. Any failure before the workers run ends
//! the start with one clear reason and nothing half-done. After that the main thread waits for events: signals, changes
//! that the admin threads ask for, and what the supervisor says.
//!
//! [`run`] is the command: it supervises (see [`crate::supervisor`]), or is the gateway itself.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::admin::board::Board;
use crate::admin::control::Control;
use crate::admin::former::Former;
use crate::admin::orders::Orders;
use crate::admin::server::AdminListener;
use crate::admin::upgrade::{Reply, Upgrade};
use crate::admin::{Order, Refusal};
use crate::config::{Config, Driver, ListenAddress};
use crate::exchange::capture::{Capture, Taken};
use crate::exchange::core::WorkerStats;
use crate::http1::names::NameTable;
use crate::limits::CAPTURE_BYTES;
use crate::logs;
use crate::plugin::loaded::PluginVersion;
use crate::plugin::{file, inspect};
use crate::signals::{self, Caught};
use crate::supervisor::crash::Crash;
use crate::supervisor::link::Link;
use crate::supervisor::protocol::{FromGateway, ToGateway};
use crate::supervisor::sockets::{SocketFile, Sockets};
use crate::supervisor::{logs_of, supervise};
use crate::upstream::resolve::Known;
use crate::worker::crew::Crew;
use crate::worker::watchdog::Watchdog;
use crate::worker::{Admission, Command, Start, TICK_MS, Worker, probe_ring};

/// Open files that the process asks for: each proxied connection takes two.
const FILES_WANTED: u64 = 1 << 20;
/// Open files beside those of connections: listeners, rings, pipes, plugins, maps, logs.
const FILES_MARGIN: u64 = 256;
/// After another process has taken over, connections may send one more request for so long before they are closed.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);
/// Workers that were told to stop end with the next tick, unless a hook holds them: for so long they are waited for.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// For how long its admin listener may owe answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the gateway until it is told to stop. The exit code: 0 after a drain, 1 when it could not start.
pub fn run(config: Config, caught: Caught) -> i32 {
    if let (true, Some(path), Some(text)) = (config.server.supervisor, &config.file, &config.text) {
        return supervise(&config, path, text, caught);
    }
    let Ok(logs) = logs_of(&config.server) else { return 1 };
    let code = match Gateway::start(config) {
        Ok(gateway) => gateway.serve(caught, None),
        Err(reason) => {
            tracing::error!("{reason}");
            1
        }
    };
    drop(logs);
    code
}

/// What a gateway is given by the process that started it.
#[derive(Default)]
pub struct Given {
    /// Its sockets; it binds them itself otherwise.
    pub sockets: Option<Sockets>,
    /// What the process before it ran.
    pub former: Former,
    /// Deaths of earlier processes, the oldest first.
    pub crashes: Vec<Crash>,
    /// How often the process was started again.
    pub restarts: u64,
    /// What an earlier process knew of the names of servers.
    pub known: Known,
}

/// A running gateway.
pub struct Gateway {
    crew: Crew,
    /// By worker: says that it may accept connections. Empty once it was said.
    gates: Vec<mpsc::Sender<()>>,
    /// What [`Gateway::listening`] returns.
    addresses: Vec<ListenAddress>,
    admin: Option<AdminListener>,
    /// What it has bound itself and removes at its end.
    socket_files: Vec<SocketFile>,
    board: Arc<Board>,
    /// Dropped after the workers: unloads the plugins.
    control: Control,
}

/// What the main thread waits for.
pub enum Event {
    /// A signal.
    Signal(i32),
    /// A change that an operator asked for.
    Order(Order),
    /// An operator wants copies of exchanges; each worker sends what it has taken.
    Capture(Arc<Capture>, mpsc::Sender<Taken>),
    /// An operator asked for another program.
    Upgrade {
        /// `None`: what its path holds by now.
        binary: Option<PathBuf>,
        /// What is not in the configuration file may be undone.
        force: bool,
        /// For the outcome.
        reply: Reply,
    },
    /// The supervisor said something.
    Supervisor(ToGateway),
    /// The supervisor is gone.
    Orphaned,
}

impl Gateway {
    /// Loads, binds and starts; returns once every worker can accept connections, which they do when it serves.
    ///
    /// # Errors
    /// The reason, for the operator.
    pub fn start(config: Config) -> Result<Gateway, String> {
        Gateway::start_with(config, Given::default())
    }

    /// The same, with what another process gives it.
    ///
    /// # Errors
    /// The reason, for the operator.
    pub fn start_with(config: Config, given: Given) -> Result<Gateway, String> {
        raise_file_limit(config.limits.connections);
        for warning in config.warnings.iter() {
            tracing::warn!("{warning}");
        }
        let ring = choose_driver(config.server.driver)?;
        let processors = processors();
        let count = given.sockets.as_ref().map_or_else(|| worker_count(&config), |sockets| sockets.workers.len());
        let control = Control::load(config, count, &given.former, given.known).map_err(|errors| errors.to_string())?;
        let config = control.config();
        let Sockets { workers: sockets, addresses, admin, files: socket_files } = match given.sockets {
            Some(sockets) => sockets,
            None => Sockets::bind(config, count)?,
        };
        let admission = Arc::new(Admission::default());
        let (ready, started) = mpsc::channel();
        let (mut workers, mut stats, mut gates) = (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (tick, theirs) = UnixStream::pair().map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            tick.set_nonblocking(true).map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            if !ring {
                theirs.set_nonblocking(true).map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            }
            let commands = Arc::new(Mutex::new(VecDeque::new()));
            let (open, gate) = mpsc::channel();
            gates.push(open);
            let (blueprint, upstreams, counts) = control.parts();
            let start = Start {
                index: index as u32,
                processor: processors.get(index % processors.len().max(1)).copied().filter(|_| config.server.pin_workers),
                ring,
                blueprint: Arc::clone(blueprint),
                upstreams: Arc::clone(upstreams),
                stats: Arc::new(WorkerStats::default()),
                counts: counts[index].clone(),
                sockets,
                admission: Arc::clone(&admission),
                tick: theirs,
                commands: Arc::clone(&commands),
                gate,
            };
            stats.push(Arc::clone(&start.stats));
            let worker = Worker::start(start, ready.clone()).map_err(|e| format!("no thread for worker {index}: {e}"))?;
            workers.push((worker, commands, tick));
        }
        drop(ready);
        let crew = Crew::new(workers).map_err(|e| format!("no thread for the clock: {e}"))?;
        for _ in 0..count {
            match started.recv() {
                Ok(Ok(_)) => {}
                Ok(Err(reason)) => return Err(reason),
                Err(_) => return Err("a worker ended while it started".into()),
            }
        }
        let mut board = control.board(stats);
        *board.crashes() = given.crashes;
        board.restarts = given.restarts;
        board.watchdog = Watchdog::start(&control.config().timeouts).map_err(|e| format!("no watchdog: {e}"))?;
        Ok(Gateway { crew, gates, addresses, admin, socket_files, board: Arc::new(board), control })
    }

    /// Where it listens; with the port that was taken when the configuration said 0.
    pub fn listening(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Answers signals and changes until the end. `link`: the supervisor, when there is one.
    pub fn serve(mut self, caught: Caught, mut link: Option<Link>) -> i32 {
        let (send, events) = mpsc::channel();
        let to_admin = send.clone();
        let listening = match &mut link {
            Some(link) => link.listen(send.clone()),
            None => Ok(()),
        };
        if let Err(error) = listening.and_then(|()| caught.forward(&[SIGTERM, SIGINT], send.clone(), Event::Signal)) {
            tracing::error!(%error, "signals cannot be handled");
            return 1;
        }
        let waits = link.as_mut().filter(|link| link.waits);
        let has_charge = waits.is_none();
        if let Some(link) = waits {
            link.tell(&FromGateway::Loaded);
            match wait_until_wanted(&events) {
                Some(meanwhile) => meanwhile.into_iter().for_each(|event| drop(send.send(event))),
                None => return self.end_unused(),
            }
        }
        drop(send);
        // Before anybody can see that it serves: what dies right afterwards is followed by the same.
        self.tell_in_force(&mut link);
        for gate in self.gates.drain(..) {
            // A worker that is no more has said why.
            let _ = gate.send(());
        }
        let pid = std::process::id();
        for address in &self.addresses {
            tracing::info!(%address, workers = self.crew.count(), pid, "listening");
        }
        self.board.admin_ended.store(true, Ordering::Relaxed);
        if has_charge && !self.start_admin(&to_admin) {
            return 1;
        }
        if let Some(link) = &mut link {
            link.tell(&FromGateway::Ready);
            link.repeat_in_force();
        }
        let mut draining: Option<Instant> = None;
        let mut stopping: Option<Instant> = None;
        let mut is_interrupted = false;
        let mut orders = Orders::default();
        let mut upgrade = Upgrade::default();
        let mut lost = logs::Notice::default();
        loop {
            lost.heed();
            self.board.watchdog.heed(&self.control.config().timeouts, link.is_some());
            match events.recv_timeout(Duration::from_millis(TICK_MS)) {
                Ok(Event::Signal(SIGINT)) if is_interrupted => {
                    tracing::warn!("interrupted twice: ending at once");
                    return 130;
                }
                Ok(Event::Signal(SIGINT)) if draining.is_some() => {
                    tracing::info!("interrupted while draining: one more SIGINT ends at once");
                    is_interrupted = true;
                }
                Ok(Event::Signal(SIGUSR1)) => logs::reopen(),
                Ok(Event::Signal(SIGUSR2)) => {
                    tracing::warn!("SIGUSR2 is ignored: an upgrade is asked of a supervisor, and this process is none");
                }
                Ok(Event::Signal(SIGHUP) | Event::Supervisor(ToGateway::Reload)) => {
                    logs::reopen();
                    orders.reload();
                }
                Ok(Event::Signal(signal)) if draining.is_none() => {
                    is_interrupted = signal == SIGINT;
                    self.drain(signals::name(signal), Duration::ZERO);
                    draining = Some(Instant::now());
                }
                Ok(Event::Supervisor(ToGateway::Crashed { crash })) => self.board.note_crash(*crash),
                Ok(Event::Orphaned) if draining.is_none() => {
                    // Nobody starts this process again: the next one may want the address already.
                    self.board.end_admin();
                    self.drain("the supervisor is gone", Duration::ZERO);
                    draining = Some(Instant::now());
                }
                Ok(Event::Supervisor(ToGateway::HandOver { successor })) => {
                    if let Some(undone) = self.undone_by_upgrade() {
                        tracing::warn!("the upgrade undoes what the configuration file does not say: {undone}");
                    }
                    self.board.handed_over.store(true, Ordering::Relaxed);
                    self.board.end_admin();
                    if draining.is_none() {
                        self.drain("another process has taken over", HAND_OVER_PATIENCE);
                        draining = Some(Instant::now());
                    }
                    // Behind that: whoever connects after the answer is to meet the new process.
                    upgrade.succeed(successor);
                }
                Ok(Event::Supervisor(ToGateway::InCharge)) if draining.is_none() => {
                    // It serves already, and goes on without orders when that fails.
                    self.start_admin(&to_admin);
                    link.iter_mut().for_each(Link::repeat_in_force);
                }
                Ok(Event::Supervisor(ToGateway::Serve | ToGateway::InCharge)) => {}
                Ok(Event::Supervisor(ToGateway::UpgradeBegins { number })) => upgrade.begin(number),
                Ok(Event::Supervisor(ToGateway::UpgradeFailed { reason, is_under_way })) => upgrade.fail(&reason, is_under_way),
                Ok(Event::Upgrade { reply, .. }) if orders.is_waiting() => {
                    drop(reply.send(Err(Refusal::new(409, "a change waits for names of servers, and an upgrade would end it: ask again in a moment"))));
                }
                Ok(Event::Upgrade { binary, force, reply }) => match &mut link {
                    Some(_) if upgrade.is_under_way() => drop(reply.send(Err(Refusal::new(409, "an upgrade is under way")))),
                    Some(link) => match self.undone_by_upgrade().filter(|_| !force) {
                        None => {
                            link.tell(&FromGateway::Upgrade { binary });
                            upgrade.ask(reply);
                        }
                        Some(undone) => {
                            let text =
                                format!("the upgrade would undo what the configuration file does not say: {undone}; put it there and reload, or use `force`");
                            drop(reply.send(Err(Refusal::new(409, text))));
                        }
                    },
                    None => drop(reply.send(Err(Refusal::new(
                        409,
                        "no supervisor holds the sockets: the gateway was not started by `ringway run`, or `server.supervisor` is false",
                    )))),
                },
                Ok(Event::Capture(capture, to)) => self.crew.capture(&capture, CAPTURE_BYTES, &to),
                // The process that is to follow has begun with what is in force: it would undo the change.
                Ok(Event::Order(order)) if upgrade.is_under_way() => {
                    drop(order.reply.send(Err(Refusal::new(409, "an upgrade is under way: ask again when it is over"))))
                }
                Ok(Event::Order(order)) => orders.push(order),
                Ok(Event::Orphaned) => self.board.end_admin(),
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return 1,
            }
            orders.proceed(&mut self.control, &self.crew, &self.board);
            self.control.tend(&self.crew, &self.board);
            self.tell_in_force(&mut link);
            orders.answer();
            if let Some(link) = &mut link
                && orders.is_empty()
                && let Some(upgrade) = upgrade.settle()
            {
                link.tell(&FromGateway::Held { upgrade });
            }
            let answering = draining.is_some_and(|since| since.elapsed() < ANSWER_PATIENCE) && self.owes_answers();
            if self.crew.is_finished() && !answering {
                return self.end(draining.is_some());
            }
            let deadline = Duration::from_millis(u64::from(self.control.config().timeouts.drain));
            match stopping {
                None if draining.is_some_and(|since| !deadline.is_zero() && since.elapsed() > deadline) => {
                    tracing::warn!("the drain deadline has passed: open connections are closed");
                    self.crew.command(|| Command::Stop);
                    stopping = Some(Instant::now());
                }
                Some(since) if since.elapsed() > STOP_PATIENCE && !self.crew.is_finished() => {
                    tracing::error!("a worker does not stop, most likely a hook holds it: ending without it");
                    self.socket_files.iter().for_each(SocketFile::remove);
                    return 1;
                }
                _ => {}
            }
        }
    }

    /// From now on orders are taken, when an address is configured for that. Whether it could be done; why not is in the log.
    fn start_admin(&mut self, events: &mpsc::Sender<Event>) -> bool {
        let Some(admin) = self.admin.take() else { return true };
        self.board.admin_ended.store(false, Ordering::Relaxed);
        let address = admin.address().clone();
        let started = admin.start(&self.board, self.control.config().server.admin_token.clone(), events.clone());
        match &started {
            Ok(()) => tracing::info!(%address, pid = std::process::id(), "admin listening"),
            Err(error) => {
                self.board.admin_ended.store(true, Ordering::Relaxed);
                tracing::error!(%error, "no thread for the admin listener");
            }
        }
        started.is_ok()
    }

    fn tell_in_force(&self, link: &mut Option<Link>) {
        if let Some(link) = link {
            link.tell_in_force(&self.control);
        }
    }

    /// What the process that follows in an upgrade does not have, for people.
    fn undone_by_upgrade(&self) -> Option<String> {
        Some(self.control.unsaved().join(", ")).filter(|undone| !undone.is_empty())
    }

    /// Accepts no more. Idle connections are closed after `patience`.
    fn drain(&self, cause: &str, patience: Duration) {
        tracing::info!(signal = cause, drain_ms = self.control.config().timeouts.drain, "draining: accepting no more");
        self.board.draining.store(true, Ordering::Release);
        let patience_ms = patience.as_millis() as u64;
        self.crew.command(|| Command::Drain { patience_ms });
    }

    /// Whether somebody waits for an answer of the admin listener of a process that another one follows: the one who asked for
    /// the upgrade.
    fn owes_answers(&self) -> bool {
        let board = &self.board;
        board.handed_over.load(Ordering::Relaxed) && (!board.admin_ended.load(Ordering::Relaxed) || board.admin_open.load(Ordering::Relaxed) > 0)
    }

    /// Nobody was served, and nobody is to be.
    fn end_unused(mut self) -> i32 {
        self.gates.clear();
        let begun = Instant::now();
        while !self.crew.is_finished() {
            if begun.elapsed() > STOP_PATIENCE {
                tracing::error!("a worker does not stop, most likely a hook holds it: ending without it");
                return 1;
            }
            std::thread::sleep(Duration::from_millis(TICK_MS));
        }
        self.end(true)
    }

    fn end(mut self, drained: bool) -> i32 {
        self.gates.clear();
        let well = self.crew.join();
        self.socket_files.iter().for_each(SocketFile::remove);
        tracing::info!("stopped");
        if drained && well { 0 } else { 1 }
    }
}

/// Until the supervisor wants the process to serve: what else has happened. `None`: it is to end.
fn wait_until_wanted(events: &mpsc::Receiver<Event>) -> Option<Vec<Event>> {
    let mut meanwhile = Vec::new();
    loop {
        match events.recv() {
            Ok(Event::Supervisor(ToGateway::Serve)) => return Some(meanwhile),
            Ok(Event::Orphaned | Event::Signal(SIGTERM | SIGINT | SIGQUIT) | Event::Supervisor(ToGateway::HandOver { .. })) | Err(_) => return None,
            Ok(other) => meanwhile.push(other),
        }
    }
}

/// How many workers there are to be.
pub(crate) fn worker_count(config: &Config) -> usize {
    config.server.workers.unwrap_or_else(|| processors().len()).max(1)
}

/// Whether io_uring is used.
fn choose_driver(driver: Driver) -> Result<bool, String> {
    match (driver, probe_ring()) {
        (Driver::Epoll, _) => Ok(false),
        (_, Ok(())) => Ok(true),
        (Driver::IoUring, Err(error)) => {
            Err(format!("io_uring does not work here ({error}) and server.driver asks for it; set driver = \"auto\" to fall back to epoll"))
        }
        (Driver::Auto, Err(error)) => {
            tracing::warn!(%error, "io_uring does not work here; using epoll, which costs about a fifth more CPU per request");
            Ok(false)
        }
    }
}

/// Inspects and loads one plugin.
///
/// # Errors
/// The refusal or the plugin's own reason, with its name and path.
pub fn load_plugin(name: &str, path: &Path, config: &[u8], store: &Path, names: &mut NameTable) -> Result<PluginVersion, String> {
    let bytes = file::read(path).map_err(|e| format!("plugin {name}: cannot read {}: {e}", path.display()))?;
    let facts = inspect::inspect_bytes(&bytes, &inspect::Offer::V1_0)
        .map_err(|refusal| format!("plugin {name} is refused: {}", inspect::Refused { path: path.to_path_buf(), refusal }))?;
    PluginVersion::load(name, facts, &bytes, config, store, names).map_err(|fault| format!("plugin {name}: {} cannot be loaded: {fault}", path.display()))
}

/// The processors that this process may use.
fn processors() -> Vec<usize> {
    // SAFETY: an empty set is a valid `cpu_set_t`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable for its size.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if got != 0 {
        return vec![0];
    }
    // SAFETY: `set` was filled by the kernel; the index is below its size.
    (0..libc::CPU_SETSIZE as usize).filter(|at| unsafe { libc::CPU_ISSET(*at, &set) }).collect()
}

/// As many files as the system lets us have; says so when that is fewer than so many client connections need.
fn raise_file_limit(connections: usize) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return;
    }
    let wanted = FILES_WANTED.min(limit.rlim_max);
    if limit.rlim_cur < wanted {
        limit.rlim_cur = wanted;
        // SAFETY: `limit` is readable. A refusal leaves the old limit, with which everything works, for fewer connections.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
        // SAFETY: `limit` is writable.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    }
    let needed = connections as u64 * 2 + FILES_MARGIN;
    if limit.rlim_cur < needed {
        tracing::warn!(
            limit = limit.rlim_cur,
            needed,
            "fewer files may be open than `limits.connections` needs, two for each connection: raise the limit (`ulimit -n`, `LimitNOFILE=`) or lower `limits.connections`"
        );
    }
}
