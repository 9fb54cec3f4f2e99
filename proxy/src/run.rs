//! The process: plugins loaded, sockets bound, workers started, signals answered.
//!
//! Order: logs, driver, plugins, sockets, names, workers. Any failure before the workers run ends the start with one
//! clear reason and nothing half-done.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, Driver, ListenAddress};
use crate::exchange::core::WorkerStats;
use crate::http1::names::NameTable;
use crate::logs;
use crate::plugin::inspect;
use crate::plugin::loaded::{PluginVersion, default_store};
use crate::route::RouteTable;
use crate::upstream;
use crate::worker::program::{Blueprint, PluginCounts};
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
    config: Config,
    workers: Vec<Handle>,
    /// What [`Gateway::listening`] returns.
    addresses: Vec<ListenAddress>,
    /// Dropped after the workers: unloads the plugins.
    _blueprint: Arc<Blueprint>,
}

struct Handle {
    worker: Worker,
    tick: UnixStream,
    commands: Arc<Mutex<VecDeque<Command>>>,
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
        let blueprint = Arc::new(load(&config)?);
        let processors = processors();
        let count = config.server.workers.unwrap_or(processors.len()).max(1);
        let (sockets, addresses) = bind(&config, count)?;
        let upstreams = upstream::Shared::new(&config);
        upstream::resolve::resolve_all(&upstreams);
        upstream::resolve::spawn(&upstreams);
        upstream::health::spawn(&upstreams);
        let admission = Arc::new(Admission::default());
        let (ready, started) = mpsc::channel();
        let mut workers = Vec::with_capacity(count);
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (tick, theirs) = UnixStream::pair().map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            tick.set_nonblocking(true).map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            if !ring {
                theirs.set_nonblocking(true).map_err(|e| format!("no pipe for worker {index}: {e}"))?;
            }
            let commands = Arc::new(Mutex::new(VecDeque::new()));
            let start = Start {
                index: index as u32,
                processor: processors.get(index % processors.len().max(1)).copied().filter(|_| config.server.pin_workers),
                ring,
                blueprint: Arc::clone(&blueprint),
                upstreams: Arc::clone(&upstreams),
                stats: Arc::new(WorkerStats::default()),
                counts: PluginCounts::new(&blueprint),
                sockets,
                admission: Arc::clone(&admission),
                tick: theirs,
                commands: Arc::clone(&commands),
            };
            let worker = Worker::start(start, ready.clone()).map_err(|e| format!("no thread for worker {index}: {e}"))?;
            workers.push(Handle { worker, tick, commands });
        }
        drop(ready);
        for _ in 0..workers.len() {
            match started.recv() {
                Ok(Ok(_)) => {}
                Ok(Err(reason)) => return Err(reason),
                Err(_) => return Err("a worker ended while it started".into()),
            }
        }
        Ok(Gateway { config, workers, addresses, _blueprint: blueprint })
    }

    /// Where it listens; with the port that was taken when the configuration said 0.
    pub fn listening(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Ticks the workers and answers signals until the end.
    fn serve(self) -> i32 {
        let (send, signals) = mpsc::channel();
        match Signals::new([SIGTERM, SIGINT]) {
            Ok(mut source) => {
                let spawned = thread::Builder::new().name("signals".into()).spawn(move || {
                    for signal in source.forever() {
                        if send.send(signal).is_err() {
                            return;
                        }
                    }
                });
                if let Err(error) = spawned {
                    tracing::error!(%error, "no thread for signals");
                    return 1;
                }
            }
            Err(error) => {
                tracing::error!(%error, "signals cannot be handled");
                return 1;
            }
        }
        for address in &self.addresses {
            tracing::info!(%address, workers = self.workers.len(), "listening");
        }
        let mut draining: Option<Instant> = None;
        loop {
            match signals.recv_timeout(Duration::from_millis(TICK_MS)) {
                Ok(SIGINT) if draining.is_some() => {
                    tracing::warn!("interrupted twice: ending at once");
                    return 130;
                }
                Ok(signal) if draining.is_none() => {
                    let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                    tracing::info!(signal = name, drain_ms = self.config.timeouts.drain, "draining: accepting no more");
                    self.command(|| Command::Drain);
                    draining = Some(Instant::now());
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return 1,
            }
            self.tick();
            if self.workers.iter().all(|w| w.worker.thread.is_finished()) {
                return self.end(draining.is_some());
            }
            let deadline = Duration::from_millis(u64::from(self.config.timeouts.drain));
            if draining.is_some_and(|since| !deadline.is_zero() && since.elapsed() > deadline) {
                tracing::warn!("the drain deadline has passed: open connections are closed");
                self.command(|| Command::Stop);
            }
        }
    }

    fn end(self, drained: bool) -> i32 {
        let mut code = if drained { 0 } else { 1 };
        for handle in self.workers {
            match handle.worker.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    tracing::error!("{reason}");
                    code = 1;
                }
                Err(_) => {
                    tracing::error!("a worker panicked");
                    code = 1;
                }
            }
        }
        for address in &self.addresses {
            if let ListenAddress::Unix(path) = address {
                // Gone already when somebody else removed it.
                let _ = fs::remove_file(path);
            }
        }
        tracing::info!("stopped");
        code
    }

    fn command(&self, make: impl Fn() -> Command) {
        for handle in &self.workers {
            handle.commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(make());
        }
    }

    /// Wakes every worker. A full pipe means that a wake is on its way already.
    fn tick(&self) {
        for handle in &self.workers {
            let _ = (&handle.tick).write(&[0]);
        }
    }
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

/// Inspects and loads every plugin of the configuration.
fn load(config: &Config) -> Result<Blueprint, String> {
    let mut names = NameTable::new();
    let mut plugins = Vec::with_capacity(config.plugins.len());
    let store = default_store();
    for plugin in config.plugins.iter() {
        let version = load_plugin(&plugin.name, &plugin.path, plugin.config.as_bytes(), &store, &mut names)?;
        tracing::info!(plugin = plugin.name, path = %plugin.path.display(), version = version.facts().version, "plugin loaded");
        plugins.push(Arc::new(version));
    }
    let table = Arc::new(RouteTable::new(config));
    Ok(Blueprint { config: config.clone(), plugins, names: Arc::new(names), table })
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
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}
