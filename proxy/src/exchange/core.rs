//! What all connections of one worker share: memory, program, upstreams, counters, the date.
//!
//! Owns: relay buffers, the date line, request ids. Must not: know sockets or the runtime.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use ringway_abi::ids::HeaderId;
use smallvec::SmallVec;

use super::capture::Captures;
use super::io::{Reader, Writer};
use super::outcall::Outcalls;
use super::splice::PipePool;
use super::watch::Watch;
use crate::clock;
use crate::config::{ConnectTarget, Http};
use crate::error::{Fault, UpstreamFault};
use crate::http1::head::HeadLimits;
use crate::http1::names::NameTable;
use crate::limits::{HELD_HEAD_BYTES_MAX, Limits, Timeouts};
use crate::plugin::chain::CoreChain;
use crate::plugin::host::HostShared;
use crate::plugin::waits::Waits;
use crate::plugin::wake::WORKER_SHIFT;
use crate::route::RouteTable;
use crate::view::slab::{Buf, Slab, Ticket};

/// How an exchange gets a connection to an upstream, and gives it back.
pub trait Upstreams {
    /// The receiving half of an upstream connection.
    type Reader: Reader;
    /// The sending half.
    type Writer: Writer;

    /// A connection to a server of the upstream: a pooled one that is still quiet and open, or a new one. Registers its
    /// socket with `watch`, under the deadline for connecting. The server that was tried is noted in the choice
    /// ([`Choice::takes`]), for the next attempt. Dropping the future gives it up. A fault of the upstream has been counted against its server already; one of the gateway's own blames nobody.
    fn lease(&self, choice: &mut Choice, watch: &Watch) -> impl Future<Output = Result<Lease<Self::Reader, Self::Writer>, Fault>>;

    /// The exchange is over and the connection can be used again.
    fn give_back(&self, lease: Lease<Self::Reader, Self::Writer>, outcome: Outcome);

    /// The exchange is over and the connection is closed.
    fn discard(&self, lease: Lease<Self::Reader, Self::Writer>, outcome: Outcome);

    /// Whether the upstream's `retries` and its budget allow one more retry, after `made` retries of this request.
    fn may_retry(&self, upstream: u32, made: u32) -> bool;
}

/// What an exchange says of the server that it used: how servers that fail in a row are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Succeeded,
    /// It answered that it cannot: 502, 503 or 504.
    Refused,
    /// It failed.
    Failed(UpstreamFault),
    /// Nothing: the exchange ended through the client, a plugin or the gateway, or its connection had been closed while it was idle.
    Neutral,
}

impl Outcome {
    /// Of a final response with this status.
    pub const fn of(status: u16) -> Outcome {
        match status {
            502..=504 => Outcome::Refused,
            _ => Outcome::Succeeded,
        }
    }
}

/// Which upstream, and what decides the server.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Index of the upstream.
    pub upstream: u32,
    /// Hash of what the upstream balances by, when it balances by hash and the request has that.
    pub hash: Option<u64>,
    /// Attempts made before this one.
    pub attempt: u32,
    /// The servers of this round of attempts, the last one last: they are avoided while there are others. A round ends when each was tried.
    pub tried: SmallVec<[u32; TRIED_INLINE]>,
    /// A pooled connection may be used.
    pub pooled: bool,
}

impl Choice {
    /// For the first attempt.
    pub fn new(upstream: u32, hash: Option<u64>) -> Choice {
        Choice { upstream, hash, attempt: 0, tried: SmallVec::new(), pooled: true }
    }

    /// This attempt goes to this server.
    pub fn takes(&mut self, server: u32) {
        // Once more: there was no other one left.
        if self.tried.contains(&server) {
            self.tried.clear();
        }
        self.tried.push(server);
    }

    /// The server of the last attempt.
    pub fn last(&self) -> Option<u32> {
        self.tried.last().copied()
    }

    /// The connection of the last attempt was a dead one of the pool. Its server is as good as before: a key stays with it.
    pub fn forgive_last(&mut self) {
        self.tried.pop();
    }
}

/// A connection to a server, for one exchange.
pub struct Lease<R, W> {
    /// The receiving half.
    pub reader: R,
    /// The sending half.
    pub writer: W,
    /// It has carried an exchange before, so the server may have closed it meanwhile.
    pub reused: bool,
    /// Index of the upstream.
    pub upstream: u32,
    /// Index of the server in the upstream.
    pub server: u32,
    /// Which incarnation of the server's address it belongs to.
    pub generation: u32,
    /// When it was made (monotonic ms).
    pub made_ms: u64,
}

/// How client addresses are told to upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host.
    XForwarded,
    /// Forwarded (RFC 7239).
    Rfc7239,
    /// Not at all; what the client sent is passed on from trusted peers only.
    Off,
}

/// One route on one worker.
#[derive(Clone)]
pub struct CoreRoute {
    /// Its links.
    pub chain: Rc<CoreChain>,
    /// Where its requests go; `None` when only plugins answer.
    pub upstream: Option<u32>,
    /// Bound of a request body in bytes; 0 for none.
    pub body_bytes: u64,
    /// Its deadlines.
    pub timeouts: Timeouts,
    /// The upgrade protocols it allows, in lower case.
    pub allow_upgrade: Vec<String>,
    /// What CONNECT may open.
    pub connect_to: Vec<ConnectTarget>,
    /// For logs.
    pub name: String,
}

/// One configuration on one worker. Exchanges in flight keep theirs.
#[derive(Clone)]
pub struct Program {
    /// Finds a route.
    pub table: Arc<RouteTable>,
    /// The routes, by index.
    pub routes: Vec<CoreRoute>,
    /// What the host functions need.
    pub host: Rc<HostShared>,
    /// Bounds.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// What HTTP leaves open.
    pub http: Arc<Http>,
    /// Bounds for the parser.
    pub head_limits: HeadLimits,
    /// Interned names.
    pub names: Arc<NameTable>,
    /// The value of Via, `1.1 NAME`; empty when it is off.
    pub via: Vec<u8>,
    /// How clients are told to upstreams.
    pub forwarded: Forwarded,
    /// Our own name in Via, for finding loops.
    pub name: Vec<u8>,
    /// The Host that each upstream gets.
    pub hosts: Vec<HostPolicy>,
    /// What each upstream balances by.
    pub hash_keys: Vec<HashKey>,
    /// Whether every exchange is logged.
    pub access_log: bool,
    /// The addresses of each upstream's servers, for logs.
    pub servers: Vec<Vec<String>>,
    /// The names of the listeners, for logs.
    pub listeners: Vec<String>,
}

/// The Host that an upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPolicy {
    /// The client's Host is replaced.
    pub replace: bool,
    /// What replaces it, or stands in for one that is missing, by server.
    pub names: Vec<Vec<u8>>,
}

/// What an upstream hashes to choose a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// Nothing: it balances otherwise.
    None,
    /// The client's address.
    Address,
    /// A request header.
    Header(HeaderId, Vec<u8>),
}

/// Counters of one worker: written by the worker, read by anyone.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections refused by a bound or a plugin.
    pub refused: AtomicU64,
    /// Connections open.
    pub open: AtomicU64,
    /// Requests whose head was understood.
    pub requests: AtomicU64,
    /// Responses sent, by the first digit of the status (index 1..=5); index 0 counts exchanges without one.
    pub responses: [AtomicU64; 6],
    /// Body bytes from clients.
    pub request_bytes: AtomicU64,
    /// Body bytes to clients.
    pub response_bytes: AtomicU64,
    /// Connections made to upstreams.
    pub upstream_connects: AtomicU64,
    /// Exchanges that used a pooled connection.
    pub upstream_reused: AtomicU64,
    /// Retries.
    pub upstream_retries: AtomicU64,
    /// Slots in use.
    pub slots: AtomicU64,
    /// Exchanges whose plugins wait for an event.
    pub suspended: AtomicU64,
    /// Outcalls of plugins under way.
    pub outcalls: AtomicU64,
    /// Tunnels that are open, and requests for one.
    pub tunnels: AtomicU64,
    /// Connections that wait for a slot.
    pub waiting: AtomicU64,
    /// Faults, by their place in [`Fault::all`].
    pub faults: FaultCounters,
}

/// One counter for each fault.
#[derive(Debug)]
pub struct FaultCounters(Box<[AtomicU64]>);

impl Default for FaultCounters {
    fn default() -> Self {
        FaultCounters(Fault::all().map(|_| AtomicU64::new(0)).collect())
    }
}

impl FaultCounters {
    /// Counts a fault.
    pub fn count(&self, fault: Fault) {
        if let Some(at) = Fault::all().position(|known| known == fault) {
            add(&self.0[at], 1);
        }
    }

    /// Each fault with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::all().zip(self.0.iter().map(|word| word.load(Ordering::Relaxed)))
    }
}

/// Adds to a counter that only this thread writes.
#[inline]
pub fn add(word: &AtomicU64, delta: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(delta), Ordering::Relaxed);
}

/// One worker.
pub struct Core<U> {
    /// Its index.
    pub worker: u32,
    /// Its memory.
    pub slab: Slab,
    /// Its upstreams.
    pub upstreams: U,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// Big buffers for bodies.
    pub relay: RelayPool,
    /// Pipes for bodies that nobody looks at.
    pub pipes: PipePool,
    /// The Date line.
    pub date: DateLine,
    /// Exchanges whose plugins wait for an event.
    pub waits: Rc<Waits>,
    /// Copies of exchanges that an operator asked for.
    pub captures: Captures,
    /// The deadlines of requests that plugins send themselves.
    pub outcalls: Outcalls,
    /// The gateway is stopping: connections close after their exchange.
    pub draining: Cell<bool>,
    /// Connections that wait for a request are closed.
    pub closing: Cell<bool>,
    program: RefCell<Rc<Program>>,
    /// A second program for some of the exchanges.
    canary: RefCell<Option<Rc<Program>>>,
    /// Of 100 exchanges, how many run the canary; 0 without one.
    canary_percent: Cell<u32>,
    /// Hundredths of an exchange that the canary is owed.
    canary_owed: Cell<u32>,
    requests: Cell<u64>,
    /// Exchanges that may begin now.
    permits: Cell<usize>,
    /// With so few permits left, idle connections hold no slot even for a moment.
    permits_low: usize,
    /// Connections that wait for a permit, in the order they came.
    waiting: RefCell<VecDeque<Rc<Waiting>>>,
    /// Bytes of unfinished heads that connections without a slot hold.
    held_bytes: Cell<usize>,
    /// Tunnels that are open, and requests for one.
    tunnels: Rc<Cell<usize>>,
}

impl<U> Core<U> {
    /// A worker with this program.
    pub fn new(worker: u32, slab: Slab, upstreams: U, stats: Arc<WorkerStats>, program: Rc<Program>) -> Core<U> {
        let relay = RelayPool::new(program.limits.relay_buffer_bytes, program.limits.relay_buffers);
        let permits = program.limits.slots;
        Core {
            worker,
            slab,
            upstreams,
            stats,
            relay,
            pipes: PipePool::default(),
            date: DateLine::default(),
            waits: Rc::default(),
            captures: Captures::default(),
            outcalls: Outcalls::default(),
            draining: Cell::new(false),
            closing: Cell::new(false),
            program: RefCell::new(program),
            canary: RefCell::default(),
            canary_percent: Cell::new(0),
            canary_owed: Cell::new(0),
            requests: Cell::new(0),
            permits: Cell::new(permits),
            permits_low: permits - permits / CROWDED_SHARE,
            waiting: RefCell::default(),
            held_bytes: Cell::new(0),
            tunnels: Rc::default(),
        }
    }

    /// The program in force.
    #[inline]
    pub fn program(&self) -> Rc<Program> {
        Rc::clone(&self.program.borrow())
    }

    /// Exchanges that begin from now on use this program.
    pub fn publish(&self, program: Rc<Program>) {
        *self.program.borrow_mut() = program;
    }

    /// Of 100 exchanges that begin from now on, so many run this program; `None`: none.
    pub fn publish_canary(&self, canary: Option<(Rc<Program>, u32)>) {
        let (program, percent) = canary.map_or((None, 0), |(program, percent)| (Some(program), percent.min(100)));
        self.canary_percent.set(percent);
        // Dropped after the borrow has ended: it may run `core_fini`.
        drop(self.canary.replace(program));
    }

    /// The program of an exchange whose head was read under `program`: this one or the canary, for the whole exchange.
    #[inline]
    pub fn program_for(&self, program: Rc<Program>) -> Rc<Program> {
        if self.canary_percent.get() == 0 { program } else { self.draw(program) }
    }

    #[cold]
    fn draw(&self, program: Rc<Program>) -> Rc<Program> {
        // A head that was read under an earlier program does not know the header names of this one.
        if !Rc::ptr_eq(&program, &self.program.borrow()) {
            return program;
        }
        let owed = self.canary_owed.get() + self.canary_percent.get();
        self.canary_owed.set(owed % 100);
        match self.canary.borrow().as_ref().filter(|_| owed >= 100) {
            Some(canary) => Rc::clone(canary),
            None => program,
        }
    }

    /// A number that no other request of this process has: the worker in the upper bits.
    #[inline]
    pub fn next_request_id(&self) -> u64 {
        let count = self.requests.get() + 1;
        self.requests.set(count);
        u64::from(self.worker) << WORKER_SHIFT | count
    }

    /// The right to use slots, if one is free and nobody waits for it.
    pub fn try_permit(&self) -> Option<Permit<'_, U>> {
        let left = self.permits.get().checked_sub(1)?;
        self.permits.set(left);
        Some(Permit { core: self })
    }

    /// The right to use slots; waits while none is free. Who gives up waiting loses its place.
    pub async fn permit(&self) -> Permit<'_, U> {
        if let Some(permit) = self.try_permit() {
            return permit;
        }
        let place = Rc::new(Waiting::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&place));
        let queued = Queued { core: self, place: &place };
        poll_fn(|cx| {
            if place.granted.get() {
                return Poll::Ready(());
            }
            place.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        std::mem::forget(queued);
        Permit { core: self }
    }

    /// Connections that wait for a permit.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Room for one more tunnel, until it is dropped; `None` when there are `tunnels_max`.
    pub fn tunnel_room(&self, tunnels_max: usize) -> Option<TunnelRoom> {
        let tunnels = self.tunnels.get();
        (tunnels < tunnels_max).then(|| {
            self.tunnels.set(tunnels + 1);
            TunnelRoom(Rc::clone(&self.tunnels))
        })
    }

    /// Tunnels that are open, and requests for one.
    pub fn tunnels(&self) -> usize {
        self.tunnels.get()
    }

    /// Keeps the beginning of a head while its connection gives its slot back and waits for more: a client that is slow with its
    /// head holds what it has sent, and nothing else. False when the worker holds [`HELD_HEAD_BYTES_MAX`] already.
    pub fn hold(&self, watch: &Watch, bytes: &[u8]) -> bool {
        let total = self.held_bytes.get() + bytes.len();
        if total > HELD_HEAD_BYTES_MAX {
            return false;
        }
        self.held_bytes.set(total);
        *watch.held.borrow_mut() = Some(bytes.into());
        true
    }

    /// What was held of a head, once.
    pub fn take_held(&self, watch: &Watch) -> Option<Box<[u8]>> {
        let bytes = watch.held.take()?;
        self.held_bytes.set(self.held_bytes.get() - bytes.len());
        Some(bytes)
    }

    /// More than a few connections hold slots: whoever has nothing to say should not. So a burst of connections touches as
    /// little memory as it has requests at the same time.
    pub fn is_crowded(&self) -> bool {
        self.permits.get() + self.tunnels.get() <= self.permits_low
    }
}

/// Servers that a request may have tried without an allocation.
const TRIED_INLINE: usize = 4;

/// A worker is crowded when this part of its exchanges is in flight: 682 of 4096. That bounds what a burst of connections leaves behind
/// in the heap, too: the futures of those that held a slot at the same time, about 5 KiB each.
const CROWDED_SHARE: usize = 6;

/// The right of one connection to hold [`SLOTS_PER_EXCHANGE`](crate::limits::SLOTS_PER_EXCHANGE) slots, so that an exchange that has begun finds what it needs.
/// Dropping it gives the right to the connection that has waited longest.
pub struct Permit<'a, U> {
    core: &'a Core<U>,
}

/// A connection that waits for a permit. Permits are handed over, so that no newcomer overtakes.
#[derive(Default)]
struct Waiting {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Its place among those that wait, while it does.
struct Queued<'a, U> {
    core: &'a Core<U>,
    place: &'a Rc<Waiting>,
}

impl<U> Drop for Queued<'_, U> {
    fn drop(&mut self) {
        if self.place.granted.get() {
            drop(Permit { core: self.core });
        } else {
            self.core.waiting.borrow_mut().retain(|waiting| !Rc::ptr_eq(waiting, self.place));
        }
    }
}

/// One of a worker's tunnels, or a request for one.
pub struct TunnelRoom(Rc<Cell<usize>>);

impl Drop for TunnelRoom {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<U> Drop for Permit<'_, U> {
    fn drop(&mut self) {
        let Some(next) = self.core.waiting.borrow_mut().pop_front() else {
            self.core.permits.set(self.core.permits.get() + 1);
            return;
        };
        next.granted.set(true);
        if let Some(waker) = next.waker.take() {
            waker.wake();
        }
    }
}

/// Buffers for bodies, made when first needed and kept.
pub struct RelayPool {
    bytes: usize,
    buffers: usize,
    free: RefCell<Vec<(Vec<u8>, Option<Ticket>)>>,
    left: Rc<Cell<usize>>,
}

impl RelayPool {
    fn new(bytes: usize, buffers: usize) -> RelayPool {
        RelayPool { bytes, buffers, free: RefCell::default(), left: Rc::new(Cell::new(buffers)) }
    }

    /// A buffer; when the bound is reached, `instead`, a piece of a slot. Give it back with [`RelayPool::give_back`]; one
    /// that is lost with a dropped operation makes room for another.
    pub fn take(&self, instead: impl FnOnce() -> Buf) -> Buf {
        if let Some((buffer, ticket)) = self.free.borrow_mut().pop() {
            return Buf::heap(buffer, ticket);
        }
        match Ticket::take(&self.left) {
            Some(ticket) => Buf::heap(vec![0; self.bytes], Some(ticket)),
            None => instead(),
        }
    }

    /// As [`RelayPool::take`], but only from the half that bodies can do without.
    pub fn take_spare(&self, instead: impl FnOnce() -> Buf) -> Buf {
        let free = self.left.get() + self.free.borrow().len();
        if free * 2 >= self.buffers + 2 { self.take(instead) } else { instead() }
    }

    /// Returns a buffer. A piece of a slot is simply dropped.
    pub fn give_back(&self, buf: Buf) {
        if let Some((buffer, Some(ticket))) = buf.into_heap() {
            self.free.borrow_mut().push((buffer, Some(ticket)));
        }
    }
}

/// The value of Date, made anew once a second.
pub struct DateLine {
    second: Cell<u64>,
    text: Cell<[u8; 29]>,
}

impl Default for DateLine {
    fn default() -> Self {
        DateLine { second: Cell::new(u64::MAX), text: Cell::new([b' '; 29]) }
    }
}

impl DateLine {
    /// The value at this moment, as RFC 9110 §5.6.7 wants it.
    #[inline]
    pub fn now(&self) -> [u8; 29] {
        let second = clock::unix_ns_coarse() / 1_000_000_000;
        if self.second.get() != second {
            let mut bytes = [b' '; 29];
            // An IMF-fixdate has 29 bytes until the year 9999.
            let _ = write!(&mut bytes[..], "{}", httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second)));
            self.text.set(bytes);
            self.second.set(second);
        }
        self.text.get()
    }
}
