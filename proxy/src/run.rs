//! The process: plugins loaded, sockets bound, workers started, signals answered, changes made.
//!
//! Order: logs, driver, plugins, names of servers, sockets, workers, admin threads. Any failure before the workers run ends
//! the start with one clear reason and nothing half-done. After that the main thread waits for events: signals, and changes
//! that the admin threads ask for.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Protocol, Socket, Type};

use crate::admin::board::Board;
use crate::admin::control::Control;
use crate::admin::server::AdminListener;
use crate::admin::{Change, Order};
use crate::config::{Config, Driver, ListenAddress};
use crate::exchange::core::WorkerStats;
use crate::http1::names::NameTable;
use crate::logs;
use crate::plugin::inspect;
use crate::plugin::loaded::PluginVersion;
use crate::worker::crew::Crew;
use crate::worker::{Admission, Command, ListenSocket, Start, TICK_MS, Worker, probe_ring};

/// Open files that the process asks for: each proxied connection takes two.
const FILES_WANTED: u64 = 1 << 20;

/// Runs the gateway until it is told to stop. The exit code: 0 after a drain, 1 when it could not start.
pub fn run(config: Config) -> i32 {
    let logs = match logs::install(&config.server) {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("error: cannot open the access log: {error}");
            return 1;
        }
    };
    let code = match Gateway::start(config) {
        Ok(gateway) => gateway.serve(),
        Err(reason) => {
            tracing::error!("{reason}");
            1
        }
    };
    drop(logs);
    code
}

/// A running gateway.
pub struct Gateway {
    crew: Crew,
    /// What [`Gateway::listening`] returns.
    addresses: Vec<ListenAddress>,
    admin: Option<AdminListener>,
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
}

impl Gateway {
    /// Loads, binds and starts; returns once every worker accepts connections.
    ///
    /// # Errors
    /// The reason, for the operator.
    pub fn start(config: Config) -> Result<Gateway, String> {
        raise_file_limit();
        for warning in config.warnings.iter() {
            tracing::warn!("{warning}");
        }
        let ring = choose_driver(config.server.driver)?;
        let processors = processors();
        let count = config.server.workers.unwrap_or(processors.len()).max(1);
        let control = Control::load(config, count).map_err(|errors| errors.to_string())?;
        let config = control.config();
        let admin = match &config.server.admin {
            Some(address) => {
                let problem = |error: io::Error| format!("server.admin: cannot listen on {address}: {error}");
                Some(AdminListener::bind(address, config.server.admin_token.clone()).map_err(problem)?)
            }
            None => None,
        };
        let (sockets, addresses) = bind(config, count)?;
        let admission = Arc::new(Admission::default());
        let (ready, started) = mpsc::channel();
        let (mut workers, mut stats) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (tick, theirs) = UnixStream::pair().map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            tick.set_nonblocking(true).map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            if !ring {
                theirs.set_nonblocking(true).map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            }
            let commands = Arc::new(Mutex::new(VecDeque::new()));
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
        let board = Arc::new(control.board(stats));
        Ok(Gateway { crew, addresses, admin, board, control })
    }

    /// Where it listens; with the port that was taken when the configuration said 0.
    pub fn listening(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Answers signals and changes until the end.
    fn serve(mut self) -> i32 {
        let (send, events) = mpsc::channel();
        if let Err(error) = forward_signals(send.clone()) {
            tracing::error!(%error, "signals cannot be handled");
            return 1;
        }
        for address in &self.addresses {
            tracing::info!(%address, workers = self.crew.count(), "listening");
        }
        if let Some(admin) = &mut self.admin {
            match admin.start(&self.board, send) {
                Ok(()) => tracing::info!(address = %admin.address(), "admin listening"),
                Err(error) => {
                    tracing::error!(%error, "no thread for the admin listener");
                    return 1;
                }
            }
        }
        let mut draining: Option<Instant> = None;
        loop {
            match events.recv_timeout(Duration::from_millis(TICK_MS)) {
                Ok(Event::Signal(SIGINT)) if draining.is_some() => {
                    tracing::warn!("interrupted twice: ending at once");
                    return 130;
                }
                Ok(Event::Signal(SIGHUP)) => {
                    // The outcome is logged by `apply`.
                    let _ = self.control.apply(&Change::Reload, &self.crew, &self.board);
                }
                Ok(Event::Signal(signal)) if draining.is_none() => {
                    let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                    tracing::info!(signal = name, drain_ms = self.control.config().timeouts.drain, "draining: accepting no more");
                    self.board.draining.store(true, Ordering::Relaxed);
                    self.crew.command(|| Command::Drain);
                    draining = Some(Instant::now());
                }
                Ok(Event::Order(Order { change, reply })) => {
                    let outcome = self.control.apply(&change, &self.crew, &self.board);
                    // Whoever asked may have gone; the log has it.
                    let _ = reply.send(outcome);
                }
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return 1,
            }
            self.control.tend(&self.crew, &self.board);
            if self.crew.is_finished() {
                return self.end(draining.is_some());
            }
            let deadline = Duration::from_millis(u64::from(self.control.config().timeouts.drain));
            if draining.is_some_and(|since| !deadline.is_zero() && since.elapsed() > deadline) {
                tracing::warn!("the drain deadline has passed: open connections are closed");
                self.crew.command(|| Command::Stop);
            }
        }
    }

    fn end(self, drained: bool) -> i32 {
        let well = self.crew.join();
        for address in self.addresses.iter().chain(self.admin.as_ref().map(AdminListener::address)) {
            if let ListenAddress::Unix(path) = address {
                // Gone already when somebody else removed it.
                let _ = fs::remove_file(path);
            }
        }
        tracing::info!("stopped");
        if drained && well { 0 } else { 1 }
    }
}

/// Signals become events, on a thread of their own.
fn forward_signals(to: mpsc::Sender<Event>) -> io::Result<()> {
    let mut source = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in source.forever() {
            if to.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
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
    let bytes = fs::read(path).map_err(|e| format!("plugin {name}: cannot read {}: {e}", path.display()))?;
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

/// As many files as the system lets us have.
fn raise_file_limit() {
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
    }
}

/// Sockets by worker and listener.
fn bind(config: &Config, workers: usize) -> Result<(Vec<Vec<ListenSocket>>, Vec<ListenAddress>), String> {
    let mut sockets: Vec<Vec<ListenSocket>> = (0..workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for listener in config.listeners.iter() {
        let problem = |error: io::Error| format!("listener {}: cannot listen on {}: {error}", listener.name, listener.address);
        match &listener.address {
            ListenAddress::Tcp(address) => {
                let mut taken = *address;
                for of_worker in &mut sockets {
                    let socket = bind_tcp(taken, listener.backlog).map_err(problem)?;
                    // Port 0 becomes the port of the first socket for all others.
                    taken = socket.local_addr().map_err(problem)?;
                    of_worker.push(ListenSocket::Tcp(socket));
                }
                addresses.push(ListenAddress::Tcp(taken));
            }
            ListenAddress::Unix(path) => {
                let socket = bind_unix(path).map_err(problem)?;
                for of_worker in &mut sockets {
                    of_worker.push(ListenSocket::Unix(socket.try_clone().map_err(problem)?));
                }
                addresses.push(listener.address.clone());
            }
        }
    }
    Ok((sockets, addresses))
}

/// Each worker has its own socket, between which the kernel spreads connections.
fn bind_tcp(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A socket file that nobody listens on any more is replaced.
pub(crate) fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}
