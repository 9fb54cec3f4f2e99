//! One worker: a pinned thread with its own runtime, listeners, memory, upstream connections.
//!
//! [`Worker::start`] spawns the thread; [`net`] holds sockets, [`pool`] upstream connections, [`program`] builds what
//! exchanges run, `publish` replaces it while traffic flows, [`watchdog`] sees hooks that hold the worker. The clock of a worker is a byte that the process's ticker writes to its pipe every [`TICK_MS`]: then
//! deadlines are swept, idle connections parked, commands taken. There are no timers of the runtime.

mod alarm;
mod connection;
pub mod crew;
pub mod net;
pub mod pool;
pub mod probe;
pub mod program;
mod publish;
pub mod watchdog;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

use monoio::io::{AsyncReadRent, CancelHandle, Canceller};
use monoio::net::{TcpListener, UnixListener, UnixStream};
use ringway_abi::raw;

use self::net::{Park, Shared, Stream, abort_on_close, close_on_exec, is_gone, no_delay, reset, shut_down};
use self::pool::Pool;
use self::probe::SignalStack;
use self::program::{Blueprint, Built, Instance, PluginCounts, build};
use crate::address;
use crate::clock;
use crate::config::{Config, HalfClose};
use crate::error::{Fault, Level, ResourceFault};
use crate::exchange::Peer;
use crate::exchange::capture::Taking;
use crate::exchange::core::{Core, Program, WorkerStats, add};
use crate::exchange::outcall::CHUNK_FRAMING_BYTES;
use crate::exchange::watch::{Lane, Watch};
use crate::log_limit::{self, Budget};
use crate::plugin::frame::{Frame, run_tick};
use crate::plugin::outcall;
use crate::plugin::running::watching;
use crate::plugin::wake::Wakes;
use crate::upstream;
use crate::view::slab::{Slab, SlotLayout};

/// Milliseconds between two ticks: how exact deadlines are.
pub const TICK_MS: u64 = 50;
/// After so many milliseconds without a byte, an idle connection gives its slot back.
pub const PARK_AFTER_MS: u64 = 250;
/// An exchange that has waited so many milliseconds for the upstream looks whether its client is still there, and again after
/// as long.
const LOOK_AFTER_MS: u64 = 250;
/// The address of whoever connects through a Unix socket.
const UNIX_PEER: [u8; 16] = [0; 16];
/// Memory of slots that were not used for so many seconds is given back.
const COLD_AFTER_S: u64 = 2;
/// Header entries that edits may add to a message.
pub const EDIT_FIELDS: usize = 32;
/// Room for what the gateway adds to a head.
const ADDED_HEAD_BYTES: usize = 1024;
/// Completion entries of the ring: bursts must not overflow it.
const COMPLETION_ENTRIES: u32 = 8192;
/// Submission entries of the ring.
const SUBMISSION_ENTRIES: u32 = 1024;

/// Milliseconds that connections which are cut off have to tell plugins and logs.
const STOP_MS: u64 = 1000;
/// Ticks of a worker's beginning at which its accepts are issued anew: two seconds.
const ACCEPT_RENEWALS: u32 = 40;

/// What the process tells a worker; taken at the next tick.
pub enum Command {
    /// Accept no more, let exchanges finish, close idle connections.
    Drain {
        /// Until idle connections are closed: one more request of each is answered, and the answer announces the close.
        patience_ms: u64,
    },
    /// End now.
    Stop,
    /// Build the next program beside the one in force, and answer.
    Prepare(Box<Publication>),
    /// Exchanges that begin from now on use the program that was prepared; then answer.
    Commit(Reply),
    /// Forget what was prepared.
    Abandon,
    /// Copy exchanges for an operator.
    Capture(Box<Taking>),
}

/// What a worker answers: its index, and the reason when it could not do it.
pub type Reply = mpsc::Sender<(u32, Result<(), String>)>;

/// The next program's parts, as every worker gets them.
pub struct Publication {
    /// Configuration and plugins.
    pub blueprint: Arc<Blueprint>,
    /// Servers.
    pub upstreams: Arc<upstream::Shared>,
    /// Where this worker's plugins count.
    pub counts: PluginCounts,
    /// Where it answers.
    pub reply: Reply,
}

/// Connections of the whole process, against its bounds.
#[derive(Default)]
pub struct Admission {
    open: AtomicUsize,
    by_address: Mutex<HashMap<[u8; 16], usize>>,
}

impl Admission {
    /// Counts a connection; an error names the bound that it would pass.
    fn admit(&self, address: [u8; 16], limits: &crate::limits::Limits) -> Result<(), ResourceFault> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(ResourceFault::ConnectionsExhausted);
        }
        // Peers of a Unix socket have no address, and are mostly one proxy.
        if address == UNIX_PEER {
            return Ok(());
        }
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_default();
        if limits.connections_per_address != 0 && *count >= limits.connections_per_address {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(ResourceFault::ConnectionsOfPeerExhausted);
        }
        *count += 1;
        Ok(())
    }

    fn leave(&self, address: [u8; 16]) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if address == UNIX_PEER {
            return;
        }
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }

    /// Connections open in the process.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// What a worker starts with.
pub struct Start {
    /// Its index.
    pub index: u32,
    /// The processor it is pinned to.
    pub processor: Option<usize>,
    /// io_uring, not epoll.
    pub ring: bool,
    /// The program's parts.
    pub blueprint: Arc<Blueprint>,
    /// Servers.
    pub upstreams: Arc<upstream::Shared>,
    /// Where it counts.
    pub stats: Arc<WorkerStats>,
    /// Where its plugins count.
    pub counts: PluginCounts,
    /// Bound and listening sockets, by listener; its own, or shared with other workers for Unix sockets.
    pub sockets: Vec<ListenSocket>,
    /// Connections of the process.
    pub admission: Arc<Admission>,
    /// Its end of the tick pipe.
    pub tick: std::os::unix::net::UnixStream,
    /// Commands for it.
    pub commands: Arc<Mutex<VecDeque<Command>>>,
    /// A word that it may accept connections; gone without one when it is not to.
    pub gate: mpsc::Receiver<()>,
}

/// A socket that listens.
pub enum ListenSocket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix stream.
    Unix(std::os::unix::net::UnixListener),
}

impl ListenSocket {
    /// What can fail for want of something, before anybody counts on it.
    fn prepare(self) -> io::Result<Prepared> {
        let mode = self.as_fd().try_clone_to_owned()?;
        let listener = match self {
            ListenSocket::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket)?),
            ListenSocket::Unix(socket) => Listener::Unix(UnixListener::from_std(socket)?),
        };
        Ok(Prepared { listener, mode })
    }
}

/// A socket that is ready to accept on.
struct Prepared {
    listener: Listener,
    /// The same socket.
    mode: OwnedFd,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ListenSocket::Tcp(socket) => socket.as_fd(),
            ListenSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A running worker.
pub struct Worker {
    /// Its thread; the result says why it could not start.
    pub thread: JoinHandle<Result<(), String>>,
}

impl Worker {
    /// Starts the thread. `ready` gets its index once it can accept connections, which it does when its gate says so, or the reason why not.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(start: Start, ready: mpsc::Sender<Result<u32, String>>) -> io::Result<Worker> {
        let name = format!("worker-{}", start.index);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let result = run(start, &ready);
            if let Err(reason) = &result {
                // Nobody listens any more when the start has failed elsewhere.
                let _ = ready.send(Err(reason.clone()));
            }
            result
        })?;
        Ok(Worker { thread })
    }
}

/// The layout of the slots that this configuration needs; `scratch` is what its plugins ask for in one exchange.
pub fn slot_layout(config: &Config, scratch: usize) -> SlotLayout {
    let limits = &config.limits;
    let entries = (limits.header_fields + EDIT_FIELDS).min(crate::limits::HEADER_FIELDS_MAX);
    let out = limits.head_bytes + limits.edit_bytes + ADDED_HEAD_BYTES + 4 * EDIT_FIELDS;
    let made = limits.edit_bytes + 4 * entries + 512 + limits.head_bytes;
    let outcall = (limits.outcall_request_bytes + outcall::ADDED_BYTES).max(limits.outcall_reply_bytes + CHUNK_FRAMING_BYTES);
    SlotLayout::new(limits.head_bytes, out.max(made).max(outcall), limits.edit_bytes, entries, scratch.max(raw::SCRATCH_BYTES_MAX as usize))
}

fn run(start: Start, ready: &mpsc::Sender<Result<u32, String>>) -> Result<(), String> {
    if let Some(processor) = start.processor {
        pin(processor);
    }
    let _signals = SignalStack::new().map_err(|e| format!("worker {}: no memory for a stack for signals: {e}", start.index))?;
    // Dropped before the stack on which its questions are answered.
    let _watching = watching(start.index);
    if start.ring {
        let mut ring = io_uring::IoUring::builder();
        // One thread submits, and completions are run by its own system calls instead of interrupts: 17.1 -> 13.6 µs of
        // CPU per proxied request (EVIDENCE: ring flags).
        ring.setup_single_issuer().setup_coop_taskrun().setup_cqsize(COMPLETION_ENTRIES);
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .with_entries(SUBMISSION_ENTRIES)
            .uring_builder(ring)
            .build()
            .map_err(|e| format!("worker {}: io_uring failed: {e}", start.index))?;
        runtime.block_on(main(start, ready))
    } else {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().map_err(|e| format!("worker {}: epoll failed: {e}", start.index))?;
        runtime.block_on(main(start, ready))
    }
}

/// Whether io_uring with the flags that we use works here.
///
/// # Errors
/// What the kernel says.
pub fn probe_ring() -> io::Result<()> {
    let ring: io_uring::IoUring =
        io_uring::IoUring::builder().setup_single_issuer().setup_coop_taskrun().setup_cqsize(COMPLETION_ENTRIES).build(SUBMISSION_ENTRIES)?;
    drop(ring);
    Ok(())
}

fn pin(processor: usize) {
    // SAFETY: an empty set is a valid `cpu_set_t`; the calls only read and write it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) != 0 {
            tracing::warn!(processor, "the worker could not be pinned; it runs where the kernel puts it");
        }
    }
}

/// Gives whole free pages of the heap back to the system: a burst leaves its futures between the connections that stay. Takes about a millisecond
/// for 20 MB, once per burst.
fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator's own function, callable at any time from any thread; it moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Everything of one worker that its tasks share.
struct Local {
    core: Core<Pool>,
    accept: RefCell<Vec<Rc<crate::plugin::chain::CoreChain>>>,
    plugins: RefCell<Vec<Instance>>,
    /// The program that may be committed next.
    prepared: RefCell<Option<publish::Prepared>>,
    config: RefCell<Rc<Config>>,
    admission: Arc<Admission>,
    connections: RefCell<Connections>,
    /// Ends the accepts that wait; `None` once connections are accepted no more.
    accepting: RefCell<Option<Canceller>>,
    draining: Cell<bool>,
    /// How often the accepts are still issued anew.
    renewals: Cell<u32>,
    /// When a drain closes what is idle.
    closing_from_ms: Cell<u64>,
    /// When the worker ends, whatever is still open (monotonic ms); `u64::MAX` while nobody has asked for it.
    ends_at_ms: Cell<u64>,
    /// Slots of a burst were given back; when all are, the heap has something to give back too.
    burst_over: Cell<bool>,
    /// Tasks that wait for the next tick.
    waiting: RefCell<Vec<Waker>>,
}

/// Open connections, for the sweep.
#[derive(Default)]
struct Connections {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

#[derive(Clone)]
struct Entry {
    watch: Rc<Watch>,
    park: Rc<Park>,
    /// It is parked, and nothing is due before this time (monotonic ms): the sweep passes it by without touching more memory.
    sleeps_until: u64,
}

impl Connections {
    fn insert(&mut self, entry: Entry) -> u32 {
        match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = Some(entry);
                at
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() as u32 - 1
            }
        }
    }

    fn sleep(&mut self, at: u32, until: u64) {
        if let Some(entry) = &mut self.entries[at as usize] {
            entry.sleeps_until = until;
        }
    }

    fn remove(&mut self, at: u32) {
        self.entries[at as usize] = None;
        self.free.push(at);
    }

    fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

impl Local {
    /// The configuration in force.
    fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// Waits for the next tick.
    async fn tick(&self) {
        let mut waited = false;
        std::future::poll_fn(|cx| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ends operations whose deadline has passed and calls idle reads back.
    fn sweep(&self) {
        let now = clock::monotonic_ms();
        let hurry = self.core.closing.get() || self.core.is_crowded();
        let half_closed = self.config.borrow().server.half_close == HalfClose::Abort;
        for entry in self.connections.borrow().entries.iter().flatten().filter(|entry| entry.sleeps_until <= now) {
            let watch = &entry.watch;
            watch.ring(now);
            for lane in watch.sweep(now) {
                match lane {
                    Lane::DownRead => deafen(watch),
                    Lane::DownWrite => shut_down(watch.down.get(), libc::SHUT_RDWR),
                    Lane::UpRead | Lane::UpWrite => shut_down(watch.up.get(), libc::SHUT_RDWR),
                    Lane::Exchange => {
                        if watch.up.get() >= 0 {
                            shut_down(watch.up.get(), libc::SHUT_RDWR);
                        } else {
                            deafen(watch);
                        }
                        // A client that takes its response too slowly.
                        if watch.is_armed(Lane::DownWrite) {
                            shut_down(watch.down.get(), libc::SHUT_RDWR);
                        }
                        // One that is waited for after its answer.
                        watch.ring(u64::MAX);
                    }
                    Lane::Tunnel => {
                        shut_down(watch.up.get(), libc::SHUT_RDWR);
                        shut_down(watch.down.get(), libc::SHUT_RDWR);
                    }
                }
            }
            if watch.wants_look(now, LOOK_AFTER_MS) && is_gone(watch.down.get(), half_closed) {
                watch.leave();
                self.give_up(watch);
            }
            let since = watch.idle_since.get();
            if since != u64::MAX && (hurry || now.saturating_sub(since) >= PARK_AFTER_MS) {
                watch.idle_since.set(u64::MAX);
                entry.park.call_back();
            }
        }
        self.core.outcalls.each(|watch| {
            if watch.sweep(now).count() > 0 {
                shut_down(watch.up.get(), libc::SHUT_RDWR);
            }
        });
    }

    /// Whether the worker ends without waiting for what is open.
    fn is_stopping(&self) -> bool {
        self.ends_at_ms.get() != u64::MAX
    }

    /// Whatever the connection waits for ends.
    fn give_up(&self, watch: &Watch) {
        watch.ring(u64::MAX);
        shut_down(watch.up.get(), libc::SHUT_RDWR);
        self.core.waits.rouse(watch.waits_as.get());
    }

    /// Ends what is still under way, so that plugins hear its end and logs have it.
    fn cut_off(&self) {
        for entry in self.connections.borrow().entries.iter().flatten() {
            entry.watch.cut_off();
            // HTTP1.md rule 76: a good end must not make half a response look whole.
            if !(entry.watch.is_unframed() && reset(entry.watch.down.get())) {
                shut_down(entry.watch.down.get(), libc::SHUT_RDWR);
            }
            self.give_up(&entry.watch);
        }
    }

    /// Issues the accepts anew, for the first while. Linux tears the ring of a dead process down a little after the process:
    /// the accept that waited there may take the wake-up for a connection that is then left in the backlog.
    fn renew_accepts(&self) {
        let left = self.renewals.get();
        if left == 0 {
            return;
        }
        self.renewals.set(left - 1);
        if let Some(accepting) = self.accepting.borrow_mut().as_mut() {
            std::mem::replace(accepting, Canceller::new()).cancel();
        }
    }

    /// For the next accept; `None` when there is to be none.
    fn accept_handle(&self) -> Option<CancelHandle> {
        self.accepting.borrow().as_ref().map(Canceller::handle)
    }

    /// Lets go of the plugins: `core_fini` runs here, on the worker's thread.
    fn release(&self) {
        self.prepared.borrow_mut().take();
        self.core.publish_canary(None);
        self.plugins.borrow_mut().clear();
        self.accept.borrow_mut().clear();
        let empty = Program { routes: Vec::new(), ..(*self.core.program()).clone() };
        self.core.publish(Rc::new(empty));
    }

    /// Idle connections see the end of their stream and close.
    fn close_idle(&self) {
        for entry in self.connections.borrow().entries.iter().flatten() {
            if entry.watch.parked.get() && !entry.watch.is_holding() {
                shut_down(entry.watch.down.get(), libc::SHUT_RD);
            }
        }
    }
}

async fn main(start: Start, ready: &mpsc::Sender<Result<u32, String>>) -> Result<(), String> {
    let Start { index, ring, blueprint, upstreams, stats, counts, sockets, admission, tick, commands, gate, .. } = start;
    let config = blueprint.config.clone();
    let slots = config.limits.slab_slots() as u32;
    let slab = Slab::new(slot_layout(&config, blueprint.scratch_bytes().max(raw::SCRATCH_BYTES_MAX as usize)), slots, config.server.huge_pages)
        .map_err(|e| format!("worker {index}: no memory for slots: {e}"))?;
    let Built { program, accept, plugins, .. } = build(&blueprint, &upstreams, &counts, index, &slab, &[])?;
    // The process holds the plugins too: this is never the last reference, and `unload` never runs here.
    drop(blueprint);
    let pool = Pool::new(upstreams, (*config.timeouts).clone(), ring, Arc::clone(&stats));
    let local = Rc::new(Local {
        core: Core::new(index, slab, pool, stats, program),
        accept: RefCell::new(accept),
        plugins: RefCell::new(plugins),
        prepared: RefCell::default(),
        config: RefCell::new(Rc::new(config)),
        admission,
        connections: RefCell::default(),
        accepting: RefCell::new(Some(Canceller::new())),
        draining: Cell::new(false),
        renewals: Cell::new(ACCEPT_RENEWALS),
        closing_from_ms: Cell::new(0),
        ends_at_ms: Cell::new(u64::MAX),
        burst_over: Cell::new(false),
        waiting: RefCell::default(),
    });
    let unusable = |error: io::Error| format!("worker {index}: cannot use a listener: {error}");
    watch_events(&local).map_err(|e| format!("worker {index}: no timer for waiting plugins: {e}"))?;
    let mut tick = UnixStream::from_std(tick).map_err(|e| format!("worker {index}: cannot use the tick pipe: {e}"))?;
    let prepared: Vec<Prepared> = sockets.into_iter().map(ListenSocket::prepare).collect::<Result<_, _>>().map_err(unusable)?;
    let _ = ready.send(Ok(index));
    // Nobody is served by one worker while another one may still fail, or while the process is not to serve at all. Nothing runs here meanwhile.
    if gate.recv().is_err() {
        local.release();
        return Ok(());
    }
    for (socket, listener) in prepared.into_iter().zip(0..) {
        // With epoll an accept that would block must say so instead; the ring waits in the kernel, and wants blocking sockets. Not before: a process that
        // is to end has the same ones.
        rustix::io::ioctl_fionbio(&socket.mode, !ring).map_err(|error| unusable(error.into()))?;
        match socket.listener {
            Listener::Tcp(socket) => drop(monoio::spawn(accept_tcp(Rc::clone(&local), socket, listener))),
            Listener::Unix(socket) => drop(monoio::spawn(accept_unix(Rc::clone(&local), socket, listener))),
        }
    }
    let mut buffer = vec![0u8; 64];
    let mut second = 0;
    let mut was_quiet = false;
    loop {
        let (result, returned) = tick.read(buffer).await;
        buffer = returned;
        if !matches!(result, Ok(count) if count > 0) {
            // The process's end of the pipe is gone: the process is ending.
            break;
        }
        on_tick(&local, &commands, &mut second);
        let is_quiet = local.draining.get() && local.connections.borrow().count() == 0;
        // An accept that was called back may have brought a connection all the same: its task is seen a tick later.
        if is_quiet && was_quiet || clock::monotonic_ms() >= local.ends_at_ms.get() {
            break;
        }
        was_quiet = is_quiet;
    }
    local.release();
    log_limit::settle(u64::MAX);
    Ok(())
}

/// Nothing more is read from the client.
fn deafen(watch: &Watch) {
    watch.deafen();
    shut_down(watch.down.get(), libc::SHUT_RD);
}

/// Begins to follow the timer and the bell of waiting plugins.
fn watch_events(local: &Rc<Local>) -> io::Result<()> {
    let timer = alarm::alarm_of(&local.core.waits)?;
    let (wakes, bell) = Wakes::open(local.core.worker)?;
    let (timed, rung) = (alarm::follow_alarm(Rc::clone(local), timer), alarm::follow_bell(Rc::clone(local), wakes, bell));
    monoio::spawn(ending(timed));
    monoio::spawn(ending(rung));
    Ok(())
}

/// What should never end, with a line in the log when it does.
async fn ending(follow: impl Future<Output = io::Result<()>>) {
    if let Err(error) = follow.await {
        tracing::error!(%error, "plugins that wait are not woken any more; they run into their timeouts");
    }
}

fn on_tick(local: &Rc<Local>, commands: &Mutex<VecDeque<Command>>, second: &mut u64) {
    loop {
        // The lock is not held while a command is carried out.
        let command = commands.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(command) = command else { break };
        match command {
            Command::Drain { patience_ms } => {
                local.draining.set(true);
                local.core.draining.set(true);
                local.closing_from_ms.set(clock::monotonic_ms() + patience_ms);
                // The listeners are closed with their last accept, so that the kernel refuses whoever comes now.
                if let Some(accepting) = local.accepting.take() {
                    accepting.cancel();
                }
            }
            Command::Stop => local.ends_at_ms.set(clock::monotonic_ms() + STOP_MS),
            Command::Prepare(publication) => local.prepare(*publication),
            Command::Commit(reply) => local.commit(&reply),
            Command::Abandon => drop(local.prepared.take()),
            Command::Capture(taking) => local.core.captures.begin(taking),
        }
    }
    local.core.captures.settle();
    local.renew_accepts();
    if local.draining.get() && clock::monotonic_ms() >= local.closing_from_ms.get() {
        local.core.closing.set(true);
    }
    local.sweep();
    if local.is_stopping() {
        local.cut_off();
    }
    if local.core.closing.get() {
        local.close_idle();
    }
    for waker in local.waiting.take() {
        waker.wake();
    }
    if local.core.slab.release_some() {
        local.burst_over.set(true);
    } else if local.burst_over.take() {
        trim_heap();
    }
    let now = clock::monotonic_ms() / 1000;
    if *second != now {
        *second = now;
        log_limit::settle(now);
        if now.is_multiple_of(COLD_AFTER_S) {
            local.core.slab.mark_cold();
        }
        local.core.upstreams.expire();
        local.core.upstreams.decay();
        local.core.stats.slots.store(local.core.slab.used() as u64, Ordering::Relaxed);
        local.core.stats.suspended.store(local.core.waits.count() as u64, Ordering::Relaxed);
        local.core.stats.waiting.store(local.core.waiting() as u64, Ordering::Relaxed);
        local.core.stats.tunnels.store(local.core.tunnels() as u64, Ordering::Relaxed);
        local.core.stats.outcalls.store(local.core.waits.outcalls() as u64, Ordering::Relaxed);
        for instance in local.plugins.borrow().iter().filter(|instance| !instance.disabled) {
            if let Some(fault) = run_tick(&local.core.program().host, &instance.plugin, &instance.counters, local.core.worker) {
                local.core.stats.faults.count(Fault::Plugin(fault));
            }
        }
    }
}

async fn accept_tcp(local: Rc<Local>, socket: TcpListener, listener: u16) {
    while let Some(handle) = local.accept_handle() {
        match socket.cancelable_accept(handle).await {
            Ok((stream, peer)) => {
                let fd = stream.as_raw_fd();
                close_on_exec(fd);
                no_delay(fd);
                let peer = Peer { address: address::octets(peer.ip()), port: peer.port(), listener, trusted: is_trusted(&local.config(), peer.ip()) };
                admit(&local, Shared::new(Stream::Tcp(stream)), peer);
            }
            Err(_) if local.draining.get() => break,
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
            Err(error) => pause(&local, &error).await,
        }
    }
}

async fn accept_unix(local: Rc<Local>, socket: UnixListener, listener: u16) {
    while let Some(handle) = local.accept_handle() {
        match socket.cancelable_accept(handle).await {
            Ok((stream, _)) => {
                close_on_exec(stream.as_raw_fd());
                let peer = Peer { address: UNIX_PEER, port: 0, listener, trusted: local.config().server.trusts_unix };
                admit(&local, Shared::new(Stream::Unix(stream)), peer);
            }
            Err(_) if local.draining.get() => break,
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
            Err(error) => pause(&local, &error).await,
        }
    }
}

fn is_trusted(config: &Config, peer: std::net::IpAddr) -> bool {
    let peer = peer.to_canonical();
    config.server.trusted_proxies.iter().any(|net| net.contains(&peer))
}

/// Accepting failed, mostly because no descriptor is left: a moment later some connection has ended.
async fn pause(local: &Local, error: &io::Error) {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        local.core.stats.faults.count(Fault::Resource(ResourceFault::FilesExhausted));
    }
    if log_limit::admits(Budget::Resource, Level::Warn) {
        tracing::warn!(%error, "accepting pauses");
    }
    local.tick().await;
}

/// A new connection: bounds, `on_accept` hooks, then a task.
fn admit(local: &Rc<Local>, stream: Shared, peer: Peer) {
    let stats = &local.core.stats;
    add(&stats.accepted, 1);
    if let Err(fault) = local.admission.admit(peer.address, &local.config().limits) {
        add(&stats.refused, 1);
        let fault = Fault::Resource(fault);
        stats.faults.count(fault);
        if log_limit::admits_fault(fault) {
            let row = fault.row();
            log_limit::line!(row.level, peer = %address::Text::of(peer.address), reason = row.reason, "connection refused: {}", row.text);
        }
        abort_on_close(stream.fd());
        return;
    }
    let chain = local.accept.borrow().get(usize::from(peer.listener)).cloned();
    if let Some(chain) = chain.filter(|c| c.plan().has_hook(raw::HOOK_ACCEPT)) {
        let accept = raw::Accept { size: size_of::<raw::Accept>() as u32, listener: peer.listener, peer_port: peer.port, peer_addr: peer.address };
        let mut frame = Frame::new(Rc::clone(&local.core.program().host), local.core.worker);
        if !frame.run_accept(&chain, &accept) {
            add(&stats.refused, 1);
            local.admission.leave(peer.address);
            abort_on_close(stream.fd());
            return;
        }
    }
    stats.open.store(stats.open.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    monoio::spawn(connection::connection(Rc::clone(local), stream, peer));
}
