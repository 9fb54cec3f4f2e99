//! Connections to upstreams: made when needed, kept while idle, given to one exchange at a time.
//!
//! The pool of a worker is keyed by upstream, server and the generation of the server's address: everything that
//! identifies the peer (HTTP1.md rule 70).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::net::{self, ReadHalf, WriteHalf};
use crate::clock;
use crate::error::{Fault, ResourceFault, UpstreamFault};
use crate::exchange::core::{Choice, Lease, Outcome, Upstreams, WorkerStats, add};
use crate::exchange::watch::{Lane, Watch};
use crate::limits::Timeouts;
use crate::upstream::{Group, Pick, Shared, SharedUpstream, Tries};

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

    /// A new connection to a server: its addresses are tried until one lets us in. They share the time for connecting, so that one that
    /// is silent leaves some to the others.
    async fn connect(&self, member: &Member, at: usize, watch: &Watch, connect_ms: u32) -> Result<net::Shared, Fault> {
        let began_ms = clock::monotonic_ms();
        let mut tries = Tries::default();
        let mut fault = Fault::Upstream(UpstreamFault::NoServer);
        loop {
            let now_ms = clock::monotonic_ms();
            let Some((target, left)) = member.group.next_address(&member.shared, at, &mut tries, now_ms) else { return Err(fault) };
            let tried = match net::begin_connect(&target) {
                Ok(stream) => {
                    watch.up.set(stream.fd());
                    let passed = u32::try_from(now_ms.saturating_sub(began_ms)).unwrap_or(u32::MAX);
                    let share = connect_ms.saturating_sub(passed) / (left as u32 + 1);
                    // 0 is for ever.
                    watch.arm(Lane::UpRead, if connect_ms == 0 { 0 } else { share.max(1) });
                    let made = net::connected(&stream, self.ring).await;
                    watch.disarm(Lane::UpRead);
                    made.map(|()| stream)
                }
                Err(error) => Err(error),
            };
            let timed_out = watch.expired(Lane::UpRead);
            fault = match tried {
                Ok(stream) if !watch.ended_upstream() && !net::has_bytes(stream.fd()) => {
                    member.group.address_tried(at, &tries, true, now_ms);
                    return Ok(stream);
                }
                _ if timed_out => UpstreamFault::ConnectTimeout.into(),
                Ok(_) if !watch.ended_upstream() => UpstreamFault::SpokeFirst.into(),
                Ok(_) => UpstreamFault::ConnectFailed.into(),
                Err(error) => shortage(&error).map_or(UpstreamFault::ConnectFailed.into(), Fault::Resource),
            };
            watch.up.set(-1);
            watch.renew_upstream();
            // Without descriptors no address helps; without ports another one may. The client, or the deadline of the exchange, ends all.
            if fault == Fault::Resource(ResourceFault::FilesExhausted) || watch.ended_upstream() {
                return Err(fault);
            }
            member.group.address_tried(at, &tries, false, now_ms);
        }
    }
}

impl Member {
    /// What an exchange says of a server.
    fn tell(&self, server: usize, outcome: Outcome, now_ms: u64) {
        let (shared, state) = (&self.shared, &self.shared.servers[server]);
        match outcome {
            Outcome::Succeeded => state.succeeded(now_ms),
            Outcome::Neutral => {}
            Outcome::Refused | Outcome::Failed(_) => {
                if let Some(ms) = state.failed(shared.config.outlier, now_ms) {
                    tracing::warn!(upstream = shared.config.name, server = %state.address, ms, "server ejected after failures in a row");
                }
            }
        }
    }
}

/// What an error says that has nothing to do with the server: the process or the machine is short of something.
fn shortage(error: &io::Error) -> Option<ResourceFault> {
    match error.raw_os_error()? {
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => Some(ResourceFault::FilesExhausted),
        libc::EADDRNOTAVAIL => Some(ResourceFault::UpstreamConnectionsExhausted),
        _ => None,
    }
}

impl Upstreams for Pool {
    type Reader = ReadHalf;
    type Writer = WriteHalf;

    async fn lease(&self, choice: &mut Choice, watch: &Watch) -> Result<Lease<ReadHalf, WriteHalf>, Fault> {
        let pools = self.pools();
        let Some(member) = pools.members.get(choice.upstream as usize) else { return Err(UpstreamFault::NoServer.into()) };
        let (shared, group) = (&member.shared, &member.group);
        if choice.attempt == 0 {
            group.requests.set(group.requests.get() + 1);
        }
        let now_ms = clock::monotonic_ms();
        let pick = Pick { hash: choice.hash, avoid: choice.avoid.filter(|_| choice.attempt > 0), now_ms };
        let Some(at) = group.pick(shared, &pick) else { return Err(UpstreamFault::NoServer.into()) };
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
        let generation = shared.servers[at].generation();
        let stream = match self.connect(member, at, watch, pools.timeouts.connect).await {
            Ok(stream) => stream,
            Err(fault) => {
                watch.up.set(-1);
                if let Fault::Upstream(fault) = fault
                    && fault != UpstreamFault::NoServer
                    && !watch.ended_upstream()
                {
                    member.tell(at, Outcome::Failed(fault), clock::monotonic_ms());
                }
                return Err(fault);
            }
        };
        group.begin(at);
        add(&self.stats.upstream_connects, 1);
        let (reader, writer) = stream.halves();
        Ok(Lease { reader, writer, reused: false, upstream: choice.upstream, server: at as u32, generation, made_ms: clock::monotonic_ms() })
    }

    fn give_back(&self, lease: Lease<ReadHalf, WriteHalf>, outcome: Outcome) {
        let pools = self.pools();
        let server = lease.server as usize;
        let Some(member) = pools.of(&lease) else { return };
        member.group.end(server);
        let since_ms = clock::monotonic_ms();
        member.tell(server, outcome, since_ms);
        let age_ms = u64::from(pools.timeouts.upstream_age);
        if age_ms != 0 && since_ms.saturating_sub(lease.made_ms) > age_ms {
            return;
        }
        let mut idle = member.idle[server].borrow_mut();
        if idle.len() < member.shared.config.idle_connections {
            idle.push(Idle { lease, since_ms });
        }
    }

    fn discard(&self, lease: Lease<ReadHalf, WriteHalf>, outcome: Outcome) {
        let pools = self.pools();
        let server = lease.server as usize;
        let Some(member) = pools.of(&lease) else { return };
        member.group.end(server);
        member.tell(server, outcome, clock::monotonic_ms());
    }

    fn may_retry(&self, upstream: u32, made: u32) -> bool {
        let pools = self.pools();
        pools.members.get(upstream as usize).is_some_and(|member| made < member.shared.config.retries && pools.shared.take_retry(&member.group))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::config::Config;
    use crate::upstream::Target;

    /// One server, which its first failure ejects, with these addresses.
    fn named(addresses: &[SocketAddr]) -> Arc<Shared> {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"u\"\nservers = [\"one.test:80\"]\n[upstream.outlier]\nfailures = 1\n\
            [[route]]\nupstream = \"u\"\n";
        let all = Shared::new(&Config::parse("test.toml", text, &|_| None).expect("the configuration is good"));
        all.upstreams[0].servers[0].set_targets(addresses.iter().copied().map(Target::Tcp).collect());
        all
    }

    /// What so many leases came to, on a worker whose sweep goes on meanwhile.
    fn leases(all: &Arc<Shared>, connect_ms: u32, count: usize) -> Vec<Result<(), Fault>> {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().expect("epoll works");
        runtime.block_on(async {
            let timeouts = Timeouts { connect: connect_ms, ..Timeouts::default() };
            let pool = Pool::new(Arc::clone(all), timeouts, false, Arc::default());
            let watch = Rc::new(Watch::default());
            let swept = Rc::clone(&watch);
            monoio::spawn(async move {
                while Rc::strong_count(&swept) > 1 {
                    monoio::time::sleep(Duration::from_millis(10)).await;
                    swept.sweep(clock::monotonic_ms()).for_each(|_| net::shut_down(swept.up.get(), libc::SHUT_RDWR));
                }
            });
            let mut results = Vec::new();
            for _ in 0..count {
                let mut choice = Choice { upstream: 0, hash: None, attempt: 0, avoid: None, pooled: false };
                results.push(pool.lease(&mut choice, &watch).await.map(|lease| pool.discard(lease, Outcome::Succeeded)));
                watch.up.set(-1);
                watch.renew_upstream();
            }
            results
        })
    }

    fn is_blamed(all: &Shared) -> bool {
        all.upstreams[0].servers[0].is_ejected(clock::monotonic_ms())
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        (listener, address)
    }

    #[test]
    fn the_other_addresses_of_a_server_are_tried_before_it_is_blamed() {
        let (_alive, good) = listener();
        let dead = listener().1;
        let all = named(&[dead, good]);
        assert_eq!(leases(&all, 5000, 20), [Ok(()); 20]);
        assert!(!is_blamed(&all));
        let all = named(&[dead, listener().1]);
        assert_eq!(leases(&all, 5000, 1), [Err(UpstreamFault::ConnectFailed.into())]);
        assert!(is_blamed(&all));
        assert_eq!(leases(&named(&[]), 5000, 1), [Err(UpstreamFault::NoServer.into())]);
    }

    #[test]
    fn an_address_that_is_silent_leaves_time_to_the_others() {
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        full.listen(0).expect("it is bound");
        let address = full.local_addr().expect("it is bound");
        // More than its backlog holds: from here on it does not answer.
        let waiting: Vec<Socket> = (0..4)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
                let _ = socket.connect(&address);
                socket
            })
            .collect();
        let silent = address.as_socket().expect("an address of IPv4");
        let (_alive, good) = listener();
        let all = named(&[silent, good]);
        assert_eq!(leases(&all, 1000, 3), [Ok(()); 3]);
        assert!(!is_blamed(&all));
        let all = named(&[silent]);
        assert_eq!(leases(&all, 200, 1), [Err(UpstreamFault::ConnectTimeout.into())]);
        assert!(is_blamed(&all));
        drop(waiting);
    }

    #[test]
    fn what_is_missing_here_is_no_fault_of_a_server() {
        let of = |code| shortage(&io::Error::from_raw_os_error(code));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(of(code), Some(ResourceFault::FilesExhausted));
        }
        assert_eq!(of(libc::EADDRNOTAVAIL), Some(ResourceFault::UpstreamConnectionsExhausted));
        for code in [libc::ECONNREFUSED, libc::ENETUNREACH, libc::EAGAIN, libc::ENOENT, libc::ETIMEDOUT] {
            assert_eq!(of(code), None);
        }
    }
}
