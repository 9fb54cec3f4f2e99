//! One conversation, run in many chunkings.
//!
//! [`Case`] says what client and upstreams do; [`Case::each`] runs it whole, byte by byte, in every split into two of either side, with
//! short and slow writes and in random pieces, and hands each [`Outcome`] to the test's claims. The executor polls until nothing moves;
//! then it releases pauses; then it lets the next deadline of the case pass; then the exchange is stuck, which is a failure.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use ringway::clock;
use ringway::error::Fault;
use ringway::exchange;
use ringway::exchange::core::{Choice, Core};
use ringway::exchange::watch::{Lane, Watch};
use ringway::exchange::{End, Peer, serve};
use ringway::plugin::chain::LinkCounters;
use ringway::plugin::wake::Wakes;
use ringway::worker::program::PluginCounts;

use super::stream::{Events, Pipe, Step, bytes};
use super::upstreams::{Fate, ScriptedUpstreams, Upstream};
use super::wire::{self, Ended, Message};
use super::world::World;

/// Longer bodies are not split at every byte.
const SPLIT_BYTES_MAX: usize = 700;
/// Random chunkings of each case.
const RANDOM_RUNS: u64 = 12;

/// How the bytes of one side are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    AsWritten,
    EachByte,
    At(usize),
    Random(u64),
}

/// One way to run a case.
#[derive(Debug, Clone, Copy)]
pub struct How {
    down: Cut,
    up: Cut,
    write_limit: usize,
    slow_writes: bool,
}

const WHOLE: How = How { down: Cut::AsWritten, up: Cut::AsWritten, write_limit: usize::MAX, slow_writes: false };

const BYTE_BY_BYTE: How = How { down: Cut::EachByte, up: Cut::EachByte, ..WHOLE };

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let How { down, up, write_limit, slow_writes } = self;
        write!(f, "client bytes {down:?}, upstream bytes {up:?}, writes of at most {write_limit} bytes, slow: {slow_writes}")
    }
}

/// What client and upstreams do.
#[derive(Clone)]
pub struct Case<'w> {
    world: &'w World,
    down: Vec<Step>,
    up: Vec<Upstream>,
    methods: Vec<&'static str>,
    /// Deadlines of so many milliseconds pass, one each time that everything waits.
    expiries: Vec<Passing>,
    trusted: bool,
    address: [u8; 16],
    down_write_fails_at: usize,
    down_write_stalls_at: usize,
    leaves: bool,
    slots: usize,
    random: bool,
}

/// What happens when everything waits.
#[derive(Debug, Clone, Copy)]
enum Passing {
    /// Deadlines of up to so many milliseconds pass.
    Expiry(u32),
    /// The alarm of waiting plugins rings, so many milliseconds from now, and the sweep has not come by yet.
    Alarm(u32),
    /// The sweep finds that the client has gone, while a plugin waits.
    ClientGone,
    /// The worker hears the bell.
    Wakes,
}

/// What came of it.
pub struct Outcome {
    pub end: End,
    /// What the client received.
    pub raw: Vec<u8>,
    /// Bytes of the client's script that nobody read.
    pub unread: usize,
    pub responses: Vec<Message>,
    /// By connection, in the order of their first use.
    pub upstreams: Vec<Served>,
    /// Connections of the plan that nobody asked for.
    pub unused: usize,
    pub choices: Vec<Choice>,
    /// What each use of an upstream connection said of its server, in the order of their ends.
    pub said: Vec<exchange::core::Outcome>,
    pub faults: Vec<Fault>,
    /// The client was told that nothing more comes (in a tunnel).
    pub finished: bool,
    /// Calls, aborts, responds, drops, edits, suspends and outcalls (sent, failed, given up) of each link of the first route.
    pub links: Vec<[u64; 9]>,
    /// By plugin: its metrics.
    pub metrics: Vec<Vec<u64>>,
}

/// One upstream connection and what it received.
#[derive(Debug)]
pub struct Served {
    pub raw: Vec<u8>,
    pub fate: Fate,
    pub leases: u32,
    pub finished: bool,
}

impl Served {
    /// The requests, complete or not, and what is left.
    pub fn requests(&self) -> (Vec<Message>, Vec<u8>) {
        wire::requests(&self.raw)
    }

    /// The one request that was received, complete.
    pub fn request(&self) -> Message {
        let (mut requests, rest) = self.requests();
        assert!(requests.len() == 1 && rest.is_empty(), "one request, not {requests:?} and {:?}", String::from_utf8_lossy(&rest));
        requests.remove(0)
    }
}

impl Outcome {
    pub fn statuses(&self) -> Vec<u16> {
        self.responses.iter().map(|r| r.status).collect()
    }

    pub fn fates(&self) -> Vec<Fate> {
        self.upstreams.iter().map(|u| u.fate).collect()
    }

    pub fn reasons(&self) -> Vec<&'static str> {
        self.faults.iter().map(|f| f.row().reason).collect()
    }
}

impl<'w> Case<'w> {
    /// The client sends this and then waits.
    pub fn new(world: &'w World, request: impl AsRef<[u8]>) -> Case<'w> {
        Case::script(world, vec![bytes(request)])
    }

    /// The client does these steps.
    pub fn script(world: &'w World, down: Vec<Step>) -> Case<'w> {
        Case {
            world,
            down,
            up: Vec::new(),
            methods: Vec::new(),
            expiries: Vec::new(),
            trusted: false,
            address: PEER.address,
            down_write_fails_at: usize::MAX,
            down_write_stalls_at: usize::MAX,
            leaves: false,
            slots: usize::MAX,
            random: true,
        }
    }

    /// One more upstream connection, should one be asked for.
    pub fn up(mut self, upstream: Upstream) -> Case<'w> {
        self.up.push(upstream);
        self
    }

    /// One more upstream connection that gives one answer.
    pub fn answer(self, answer: impl AsRef<[u8]>) -> Case<'w> {
        self.up(Upstream::answers([answer]))
    }

    /// Methods of the requests, where a response depends on them.
    pub fn methods(mut self, methods: &[&'static str]) -> Case<'w> {
        self.methods = methods.to_vec();
        self
    }

    /// When everything waits, deadlines of up to so many milliseconds pass.
    pub fn expire(mut self, ms: u32) -> Case<'w> {
        self.expiries.push(Passing::Expiry(ms));
        self
    }

    /// When everything waits, the alarm of waiting plugins rings, before the sweep.
    pub fn alarm(mut self, ms: u32) -> Case<'w> {
        self.expiries.push(Passing::Alarm(ms));
        self
    }

    /// When everything waits, the client is found gone.
    pub fn leaves(mut self) -> Case<'w> {
        self.expiries.push(Passing::ClientGone);
        self
    }

    /// When everything waits, the worker takes the wakes that were sent to it. One such case at a time: all workers here are the same one.
    pub fn wakes(mut self) -> Case<'w> {
        self.expiries.push(Passing::Wakes);
        self
    }

    /// The client's forwarding headers are believed.
    pub fn trusted(mut self) -> Case<'w> {
        self.trusted = true;
        self
    }

    /// The client has this address.
    pub fn from(mut self, address: [u8; 16]) -> Case<'w> {
        self.address = address;
        self
    }

    /// The client goes away after so many bytes.
    pub fn client_gone_at(mut self, bytes: usize) -> Case<'w> {
        self.down_write_fails_at = bytes;
        self
    }

    /// The client takes so many bytes and then none.
    pub fn client_stalls_at(mut self, bytes: usize) -> Case<'w> {
        self.down_write_stalls_at = bytes;
        self
    }

    /// All slots of the worker but so many are in use elsewhere.
    pub fn slots(mut self, count: usize) -> Case<'w> {
        self.slots = count;
        self
    }

    /// When everything waits, the worker's sweep finds that the client has closed.
    pub fn client_leaves(mut self) -> Case<'w> {
        self.leaves = true;
        self
    }

    /// Only the order of this script: no pauses at other places.
    pub fn in_order(mut self) -> Case<'w> {
        self.random = false;
        self
    }

    /// Runs the case in every way and checks each outcome.
    pub fn each(&self, check: impl Fn(&Outcome)) {
        let short = |steps: &[Step]| {
            let bytes: usize = steps.iter().map(|s| if let Step::Bytes(b) = s { b.len() } else { 0 }).sum();
            (bytes <= SPLIT_BYTES_MAX).then_some(bytes)
        };
        let mut ways = vec![WHOLE, How { slow_writes: true, ..WHOLE }];
        let down = short(&self.down);
        let up = self.up.iter().try_fold(0, |most, u| Some(short(&u.steps)?.max(most)));
        if down.is_some() && up.is_some() {
            ways.push(BYTE_BY_BYTE);
            ways.extend([1, 7].map(|write_limit| How { write_limit, ..WHOLE }));
        }
        ways.extend((1..down.unwrap_or(0)).map(|at| How { down: Cut::At(at), ..WHOLE }));
        ways.extend((1..up.unwrap_or(0)).map(|at| How { up: Cut::At(at), ..WHOLE }));
        if self.random {
            ways.extend((0..RANDOM_RUNS).map(How::random));
        }
        for how in &ways {
            let saying = Saying(how);
            check(&self.run(how));
            drop(saying);
        }
    }

    /// Runs the case as it is written.
    pub fn once(&self) -> Outcome {
        self.run(&WHOLE)
    }

    /// Runs the case with writes that wait each time and take so many bytes.
    pub fn slow_writes(&self, write_limit: usize) -> Outcome {
        self.run(&How { write_limit, slow_writes: true, ..WHOLE })
    }

    /// Runs the case with every byte in a piece of its own.
    pub fn byte_by_byte(&self) -> Outcome {
        self.run(&BYTE_BY_BYTE)
    }

    /// Runs the case in random pieces.
    pub fn random(&self, seed: u64) -> Outcome {
        let how = How::random(seed);
        let _saying = Saying(&how);
        self.run(&how)
    }

    pub fn run(&self, how: &How) -> Outcome {
        let events = Rc::new(Events::default());
        let pipe = |steps: &[Step], cut: Cut, salt: u64| {
            let pipe = Pipe::new(cut.apply(steps, salt), Rc::clone(&events));
            pipe.write_limit.set(how.write_limit);
            pipe.slow_writes.set(how.slow_writes);
            pipe
        };
        let down = pipe(&self.down, how.down, 0);
        down.write_fails_at.set(self.down_write_fails_at);
        down.write_stalls_at.set(self.down_write_stalls_at);
        let plan = self.up.iter().zip(1..).map(|(planned, salt)| {
            let pipe = pipe(&planned.steps, how.up, salt);
            pipe.write_fails_at.set(planned.write_fails_at);
            pipe.write_stalls_at.set(planned.write_stalls_at);
            (planned.clone(), pipe)
        });
        let plan: Vec<_> = plan.collect();
        let (core, counts) = self.world.core(ScriptedUpstreams::new(plan));
        let watch = Watch::default();
        let end = self.drive(&core, &watch, &down, &events, how);
        self.outcome(core, &watch, &down, end, &counts)
    }

    fn drive(&self, core: &Core<ScriptedUpstreams>, watch: &Watch, down: &Rc<Pipe>, events: &Rc<Events>, how: &How) -> End {
        let mut rest = (fastrand::Rng::with_seed(how.seed().unwrap_or(0)), self.expiries.iter());
        loop {
            let end = self.serve(core, watch, down, events, how, &mut rest);
            if end != End::Park || !watch.is_holding() {
                return end;
            }
            // The connection waits for more of its head, without a slot.
            if down.is_exhausted() {
                let Some(Passing::Expiry(ms)) = rest.1.next() else { panic!("stuck in the middle of a head") };
                events.expiries.set(events.expiries.get() + 1);
                expire(core, watch, down, *ms);
            }
        }
    }

    /// Until the connection ends or gives its slot back. `rest`: how pauses are released, and the deadlines that have not passed.
    fn serve(
        &self,
        core: &Core<ScriptedUpstreams>,
        watch: &Watch,
        down: &Rc<Pipe>,
        events: &Rc<Events>,
        how: &How,
        rest: &mut (fastrand::Rng, std::slice::Iter<'_, Passing>),
    ) -> End {
        let (mut reader, mut writer) = down.halves();
        let slot = core.slab.take().expect("a slot is free");
        let elsewhere = core.slab.slots().saturating_sub(self.slots);
        let _held: Vec<_> = (0..elsewhere).map(|_| core.slab.take().expect("the case needs fewer slots than there are")).collect();
        let mut peer = PEER;
        peer.trusted = self.trusted;
        peer.address = self.address;
        let mut serving = pin!(serve(core, watch, peer, &mut reader, &mut writer, slot));
        let hears = self.expiries.iter().any(|passing| matches!(passing, Passing::Wakes));
        let wakes = hears.then(|| Wakes::open(core.worker).expect("sockets").0);
        let (random, expiries) = rest;
        let mut seen = u64::MAX;
        loop {
            if let Poll::Ready(end) = serving.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return end;
            }
            if std::mem::replace(&mut seen, events.progress.get()) != events.progress.get() {
                continue;
            }
            if release(down, core, random, how) {
                continue;
            }
            let Some(passing) = expiries.next() else {
                if self.leaves && !watch.has_left() {
                    assert!(watch.wants_look(u64::MAX - 1, 0) || watch.wants_look(u64::MAX - 1, 0), "no upstream is awaited");
                    watch.leave();
                    shut_upstream(core, watch);
                    seen = u64::MAX;
                    continue;
                }
                panic!("stuck: the client got {:?}", String::from_utf8_lossy(&down.sent.borrow()));
            };
            match passing {
                Passing::Expiry(ms) => {
                    events.expiries.set(events.expiries.get() + 1);
                    expire(core, watch, down, *ms);
                }
                Passing::Alarm(ms) => core.waits.fire(clock::monotonic_ms() + u64::from(*ms)),
                Passing::ClientGone => {
                    assert_ne!(watch.waits_as.get(), 0, "only a client whose exchange waits is looked at");
                    watch.leave();
                }
                Passing::Wakes => wakes.iter().for_each(|wakes| wakes.drain(|wake| core.waits.wake(wake.request_id, wake.link, wake.token))),
            }
        }
    }

    fn outcome(&self, core: Core<ScriptedUpstreams>, watch: &Watch, down: &Pipe, end: End, counts: &PluginCounts) -> Outcome {
        assert_eq!(core.slab.used(), 0, "slots are returned");
        assert_eq!((core.waits.count(), watch.waits_as.get()), (0, 0), "nobody waits any more");
        assert_eq!(core.waits.outcalls(), 0, "no outcall is under way");
        core.outcalls.each(|watch| assert_eq!((watch.up.get(), watch.sweep(u64::MAX - 1).count()), (-1, 0), "the watch of an outcall knows of it still"));
        assert!(!down.read_after_drop.get(), "the client was read again after a read had been dropped");
        assert!(!watch.is_unframed() || end == End::Abort, "a response that only the end of the connection ends is still on its way");
        assert_eq!(watch.up.get(), -1, "the watch still knows the socket of an upstream connection that is not in use");
        let stale: Vec<Lane> = watch.sweep(u64::MAX - 1).filter(|lane| matches!(lane, Lane::UpRead | Lane::UpWrite | Lane::Exchange)).collect();
        assert!(stale.is_empty(), "deadlines outlive their operation: {stale:?}");
        let upstreams = core.upstreams.connections.borrow();
        let served = upstreams.iter().map(|c| {
            assert!(!c.pipe.read_after_drop.get(), "an upstream was read again after a read had been dropped");
            Served { raw: c.pipe.sent.borrow().clone(), fate: c.fate.get(), leases: c.leases.get(), finished: c.pipe.finished.get() }
        });
        let raw = down.sent.borrow().clone();
        let ended = match end {
            End::Park => Ended::Not,
            End::Close | End::Linger => Ended::Closed,
            End::Abort | End::Cut => Ended::Cut,
        };
        let gone = self.down_write_fails_at != usize::MAX || self.down_write_stalls_at != usize::MAX;
        let responses = if gone { Vec::new() } else { wire::responses(&raw, &self.methods, ended) };
        let value = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let count = |link: &Arc<LinkCounters>| {
            [&link.calls, &link.aborts, &link.responds, &link.drops, &link.edits, &link.suspends, &link.outcalls, &link.outcall_failures, &link.outcall_cancels]
                .map(value)
        };
        Outcome {
            end,
            raw,
            unread: down.unread(),
            responses,
            upstreams: served.collect(),
            unused: core.upstreams.plan.borrow().len(),
            choices: core.upstreams.choices.borrow().clone(),
            said: core.upstreams.said.borrow().clone(),
            faults: core.stats.faults.iter().flat_map(|(fault, count)| (0..count).map(move |_| fault)).collect(),
            finished: down.finished.get(),
            links: counts.routes[0].iter().map(count).collect(),
            metrics: counts.metrics.iter().map(|words| words.iter().map(value).collect()).collect(),
        }
    }
}

/// The client of every case.
pub const PEER: Peer = Peer { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7], port: 4711, listener: 0, trusted: false };

/// Runs a future that only waits for scripted connections which never pause.
pub fn run_ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..1_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("stuck");
}

/// Releases what pauses: all of it, or in random runs at least one.
fn release(down: &Rc<Pipe>, core: &Core<ScriptedUpstreams>, random: &mut fastrand::Rng, how: &How) -> bool {
    let connections = core.upstreams.connections.borrow();
    let pipes: Vec<&Rc<Pipe>> = std::iter::once(down).chain(connections.iter().map(|c| &c.pipe)).collect();
    if how.seed().is_some() {
        let first = random.usize(0..pipes.len());
        return (0..pipes.len()).any(|at| pipes[(first + at) % pipes.len()].release());
    }
    pipes.iter().fold(false, |any, pipe| pipe.release() | any)
}

/// Deadlines of up to `ms` milliseconds pass: what the worker's sweep does to sockets happens to the scripted ones.
fn expire(core: &Core<ScriptedUpstreams>, watch: &Watch, down: &Rc<Pipe>, ms: u32) {
    let now = clock::monotonic_ms() + u64::from(ms);
    watch.ring(now);
    core.waits.fire(now);
    for lane in watch.sweep(now) {
        match lane {
            Lane::DownRead => down.shut_down(false),
            Lane::DownWrite => down.shut_down(true),
            Lane::UpRead | Lane::UpWrite => shut_upstream(core, watch),
            Lane::Exchange => {
                if watch.up.get() >= 0 {
                    shut_upstream(core, watch);
                } else {
                    down.shut_down(false);
                }
                if watch.is_armed(Lane::DownWrite) {
                    down.shut_down(true);
                }
                watch.ring(u64::MAX);
            }
            Lane::Tunnel => {
                shut_upstream(core, watch);
                down.shut_down(false);
                down.shut_down(true);
            }
        }
    }
    core.outcalls.each(|watch| {
        if watch.sweep(now).count() > 0 {
            shut_upstream(core, watch);
        }
    });
}

fn shut_upstream(core: &Core<ScriptedUpstreams>, watch: &Watch) {
    let connections = core.upstreams.connections.borrow();
    let up = usize::try_from(watch.up.get()).expect("an upstream is in use");
    connections[up].pipe.shut_down(true);
}

impl How {
    fn random(seed: u64) -> How {
        let mut random = fastrand::Rng::with_seed(seed);
        let write_limit = if random.bool() { usize::MAX } else { random.usize(1..40) };
        How { down: Cut::Random(seed), up: Cut::Random(seed), write_limit, slow_writes: random.bool() }
    }

    fn seed(&self) -> Option<u64> {
        match self.down {
            Cut::Random(seed) => Some(seed),
            _ => None,
        }
    }
}

impl Cut {
    fn apply(self, steps: &[Step], salt: u64) -> Vec<Step> {
        let mut random = fastrand::Rng::with_seed(match self {
            Cut::Random(seed) => seed.wrapping_mul(31).wrapping_add(salt),
            _ => 0,
        });
        let mut cut = Vec::new();
        let mut before = 0;
        for step in steps {
            let Step::Bytes(bytes) = step else {
                cut.push(step.clone());
                continue;
            };
            let mut from = 0;
            while from < bytes.len() {
                let piece = match self {
                    Cut::AsWritten => bytes.len(),
                    Cut::EachByte => 1,
                    Cut::At(at) if before + from < at => at - before - from,
                    Cut::At(_) => bytes.len(),
                    Cut::Random(_) => {
                        let most = if random.bool() { 20 } else { bytes.len() };
                        random.usize(1..=most)
                    }
                };
                let to = (from + piece).min(bytes.len());
                cut.push(Step::Bytes(bytes[from..to].to_vec()));
                let pause = match self {
                    Cut::AsWritten | Cut::EachByte => false,
                    Cut::At(at) => before + to == at,
                    Cut::Random(_) => random.bool(),
                };
                if pause {
                    cut.push(Step::Pause);
                }
                from = to;
            }
            before += bytes.len();
        }
        cut
    }
}

/// Says how a case was run when a claim fails.
struct Saying<'a>(&'a How);

impl Drop for Saying<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with {}", self.0);
        }
    }
}
