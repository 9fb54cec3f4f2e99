//! Connections to upstreams: made when needed, kept while idle, given to one exchange at a time.
//!
//! The pool of a worker is keyed by upstream, server and the generation of the server's address: everything that
//! identifies the peer (HTTP1.md rule 70).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::net::{self, ReadHalf, WriteHalf};
use crate::clock;
use crate::error::UpstreamFault;
use crate::exchange::core::{Choice, Lease, Upstreams, WorkerStats, add};
use crate::exchange::watch::{Lane, Watch};
use crate::limits::Timeouts;
use crate::upstream::{Group, Pick, Shared, SharedUpstream};

/// The upstream connections of one worker.
pub struct Pool {
    ring: bool,
    stats: Arc<WorkerStats>,
    current: RefCell<Rc<Pools>>,
}

/// Pools of one configuration.
struct Pools {
    shared: Arc<Shared>,
    timeouts: Timeouts,
    /// By the id of the upstream.
    members: Vec<Rc<Member>>,
}

/// One upstream on this worker. It stays the same through publications that do not change the upstream.
struct Member {
    shared: Arc<SharedUpstream>,
    group: Group,
    /// Idle connections by server; the most recently used last.
    idle: Vec<RefCell<Vec<Idle>>>,
}

struct Idle {
    lease: Lease<ReadHalf, WriteHalf>,
    since_ms: u64,
}

impl Pools {
    fn new(shared: Arc<Shared>, timeouts: Timeouts, previous: &[Rc<Member>]) -> Pools {
        let members = shared.upstreams.iter().enumerate().map(|(id, upstream)| match previous.get(id) {
            Some(kept) if Arc::ptr_eq(&kept.shared, upstream) => Rc::clone(kept),
            _ => Rc::new(Member {
                shared: Arc::clone(upstream),
                group: Group::new(upstream),
                idle: upstream.servers.iter().map(|_| RefCell::default()).collect(),
            }),
        });
        Pools { members: members.collect(), shared, timeouts }
    }

    /// The upstream of a lease.
    fn of(&self, lease: &Lease<ReadHalf, WriteHalf>) -> Option<&Rc<Member>> {
        self.members.get(lease.upstream as usize).filter(|m| (lease.server as usize) < m.idle.len())
    }
}

impl Pool {
    /// An empty pool. `ring`: the runtime drives io_uring.
    pub fn new(shared: Arc<Shared>, timeouts: Timeouts, ring: bool, stats: Arc<WorkerStats>) -> Pool {
        Pool { ring, stats, current: RefCell::new(Rc::new(Pools::new(shared, timeouts, &[]))) }
    }

    /// From now on these upstreams. Those that did not change keep their connections.
    pub fn publish(&self, shared: Arc<Shared>, timeouts: Timeouts) {
        let next = Pools::new(shared, timeouts, &self.current.borrow().members);
        *self.current.borrow_mut() = Rc::new(next);
    }

    fn pools(&self) -> Rc<Pools> {
        Rc::clone(&self.current.borrow())
    }

    /// Closes what has been idle for too long; called by the tick.
    pub fn expire(&self) {
        let now = clock::monotonic_ms();
        let pools = self.pools();
        let (idle_ms, age_ms) = (u64::from(pools.timeouts.upstream_idle), u64::from(pools.timeouts.upstream_age));
        for connections in pools.members.iter().flat_map(|m| &m.idle) {
            connections.borrow_mut().retain(|idle| {
                let old = age_ms != 0 && now.saturating_sub(idle.lease.made_ms) > age_ms;
                !old && (idle_ms == 0 || now.saturating_sub(idle.since_ms) <= idle_ms)
            });
        }
    }

    /// Lets the retry budgets forget; called about once a second.
    pub fn decay(&self) {
        for member in &self.pools().members {
            member.group.decay();
        }
    }

    /// The most recently used idle connection that is still open and silent.
    fn take_idle(member: &Member, server: usize) -> Option<Lease<ReadHalf, WriteHalf>> {
        let generation = member.shared.servers[server].generation();
        let mut idle = member.idle[server].borrow_mut();
        while let Some(Idle { lease, .. }) = idle.pop() {
            if lease.generation == generation && net::is_quiet(lease.reader.fd()) {
                return Some(lease);
            }
        }
        None
    }
}

impl Upstreams for Pool {
    type Reader = ReadHalf;
    type Writer = WriteHalf;

    async fn lease(&self, choice: &mut Choice, watch: &Watch) -> Result<Lease<ReadHalf, WriteHalf>, UpstreamFault> {
        let pools = self.pools();
        let Some(member) = pools.members.get(choice.upstream as usize) else { return Err(UpstreamFault::NoServer) };
        let (shared, group) = (&member.shared, &member.group);
        if choice.attempt == 0 {
            group.requests.set(group.requests.get() + 1);
        }
        let now_ms = clock::monotonic_ms();
        let pick = Pick { hash: choice.hash, avoid: choice.avoid.filter(|_| choice.attempt > 0), now_ms };
        let Some(at) = group.pick(shared, &pick) else { return Err(UpstreamFault::NoServer) };
        choice.avoid = Some(at as u32);
        if choice.pooled
            && let Some(mut lease) = Pool::take_idle(member, at)
        {
            lease.reused = true;
            watch.up.set(lease.reader.fd());
            group.begin(at);
            add(&self.stats.upstream_reused, 1);
            return Ok(lease);
        }
        let server = &shared.servers[at];
        let generation = server.generation();
        let Some(target) = server.target(group.next_attempt(at)) else { return Err(UpstreamFault::NoServer) };
        let fail = |fault: UpstreamFault| {
            if let Some(ms) = server.failed(shared.config.outlier, clock::monotonic_ms()) {
                tracing::warn!(upstream = shared.config.name, server = %server.address, ms, "server ejected after failures in a row");
            }
            fault
        };
        let stream = net::begin_connect(&target).map_err(|_| fail(UpstreamFault::ConnectFailed))?;
        let fd = stream.fd();
        watch.up.set(fd);
        watch.arm(Lane::UpRead, pools.timeouts.connect);
        let made = net::connected(&stream, self.ring).await;
        watch.disarm(Lane::UpRead);
        if made.is_err() || watch.expired(Lane::UpRead) || watch.has_left() {
            watch.up.set(-1);
            if watch.has_left() {
                return Err(UpstreamFault::ConnectFailed);
            }
            let fault = if watch.expired(Lane::UpRead) { UpstreamFault::ConnectTimeout } else { UpstreamFault::ConnectFailed };
            return Err(fail(fault));
        }
        group.begin(at);
        add(&self.stats.upstream_connects, 1);
        let (reader, writer) = stream.halves();
        Ok(Lease { reader, writer, reused: false, upstream: choice.upstream, server: at as u32, generation, made_ms: clock::monotonic_ms() })
    }

    fn give_back(&self, lease: Lease<ReadHalf, WriteHalf>) {
        let pools = self.pools();
        let server = lease.server as usize;
        let Some(member) = pools.of(&lease) else { return };
        member.group.end(server);
        member.shared.servers[server].succeeded();
        let since_ms = clock::monotonic_ms();
        let age_ms = u64::from(pools.timeouts.upstream_age);
        if age_ms != 0 && since_ms.saturating_sub(lease.made_ms) > age_ms {
            return;
        }
        let mut idle = member.idle[server].borrow_mut();
        if idle.len() < member.shared.config.idle_connections {
            idle.push(Idle { lease, since_ms });
        }
    }

    fn discard(&self, lease: Lease<ReadHalf, WriteHalf>, fault: Option<UpstreamFault>) {
        let pools = self.pools();
        let server = lease.server as usize;
        let Some(member) = pools.of(&lease) else { return };
        member.group.end(server);
        let shared = &member.shared;
        if fault.is_some()
            && let Some(ms) = shared.servers[server].failed(shared.config.outlier, clock::monotonic_ms())
        {
            tracing::warn!(upstream = shared.config.name, server = %shared.servers[server].address, ms, "server ejected after failures in a row");
        }
    }

    fn may_retry(&self, upstream: u32, made: u32) -> bool {
        let pools = self.pools();
        pools.members.get(upstream as usize).is_some_and(|member| made < member.shared.config.retries && pools.shared.take_retry(&member.group))
    }
}
