//! Connections to upstreams: made when needed, kept while idle, given to one exchange at a time.
//!
//! The pool of a worker is keyed by upstream, server and the generation of the server's address: everything that
//! identifies the peer (HTTP1.md rule 70).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::{io, mem};

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
    /// By the id of the upstream; `None`: no exchange can use the id.
    members: Vec<Option<Rc<Member>>>,
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
    fn new(shared: Arc<Shared>, timeouts: Timeouts, previous: &[Option<Rc<Member>>]) -> Pools {
        let member = |(id, upstream): (usize, &Option<Arc<SharedUpstream>>)| {
            let upstream = upstream.as_ref()?;
            // An id may have been given to another upstream.
            let kept = previous.get(id).and_then(Option::as_ref).filter(|kept| Arc::ptr_eq(&kept.shared, upstream));
            Some(kept.map_or_else(|| Rc::new(Member::new(upstream)), Rc::clone))
        };
        Pools { members: shared.by_id().iter().enumerate().map(member).collect(), shared, timeouts }
    }

    /// The upstream with this id.
    fn member(&self, id: u32) -> Option<&Rc<Member>> {
        self.members.get(id as usize)?.as_ref()
    }

    /// Every upstream that exchanges may use.
    fn each(&self) -> impl Iterator<Item = &Rc<Member>> {
        self.members.iter().flatten()
    }

    /// The upstream of a lease.
    fn of(&self, lease: &Lease<ReadHalf, WriteHalf>) -> Option<&Rc<Member>> {
        self.member(lease.upstream).filter(|m| (lease.server as usize) < m.idle.len())
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

    /// Closes what has been idle for too long, or belongs to an upstream that is in no configuration any more; called by the tick.
    pub fn expire(&self) {
        let now = clock::monotonic_ms();
        let pools = self.pools();
        let (idle_ms, age_ms) = (u64::from(pools.timeouts.upstream_idle), u64::from(pools.timeouts.upstream_age));
        for (member, connections) in pools.each().flat_map(|m| m.idle.iter().map(move |idle| (m, idle))) {
            let retired = member.shared.is_retired();
            connections.borrow_mut().retain(|idle| {
                let old = age_ms != 0 && now.saturating_sub(idle.lease.made_ms) > age_ms;
                !retired && !old && (idle_ms == 0 || now.saturating_sub(idle.since_ms) <= idle_ms)
            });
        }
    }

    /// Lets the retry budgets forget; called about once a second.
    pub fn decay(&self) {
        for member in self.pools().each() {
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
                Ok(stream) if !watch.ended_upstream() && !net::has_bytes(stream.fd()).is_ok_and(|has| has) => {
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

/// An exchange that has its server and no connection yet. It counts as one of that server: one that lets nobody in would look idle otherwise,
/// and get all that comes meanwhile. Dropping it ends it, also where the future of an outcall is dropped half-way.
struct Begun<'a> {
    group: &'a Group,
    server: usize,
}

impl Begun<'_> {
    fn new(group: &Group, server: usize) -> Begun<'_> {
        group.begin(server);
        Begun { group, server }
    }

    /// The end of the lease ends it.
    fn becomes_a_lease(self) {
        mem::forget(self);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.group.end(self.server);
    }
}

impl Member {
    fn new(upstream: &Arc<SharedUpstream>) -> Member {
        Member { shared: Arc::clone(upstream), group: Group::new(upstream), idle: upstream.servers.iter().map(|_| RefCell::default()).collect() }
    }

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
        let Some(member) = pools.member(choice.upstream) else { return Err(UpstreamFault::NoServer.into()) };
        let (shared, group) = (&member.shared, &member.group);
        if choice.attempt == 0 {
            group.requests.set(group.requests.get() + 1);
        }
        let now_ms = clock::monotonic_ms();
        let pick = Pick { hash: choice.hash, tried: &choice.tried, now_ms };
        let Some(at) = group.pick(shared, &pick) else { return Err(UpstreamFault::NoServer.into()) };
        choice.takes(at as u32);
        let begun = Begun::new(group, at);
        if choice.pooled
            && let Some(mut lease) = Pool::take_idle(member, at)
        {
            lease.reused = true;
            watch.up.set(lease.reader.fd());
            begun.becomes_a_lease();
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
        begun.becomes_a_lease();
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
        pools.member(upstream).is_some_and(|member| made < member.shared.config.retries && pools.shared.take_retry(&member.group))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::future::poll_fn;
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::pin::{Pin, pin};
    use std::task::Poll;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::config::Config;
    use crate::hash::fnv1a;
    use crate::upstream::Target;

    /// What a future says at once.
    async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// One server, which its first failure ejects, with these addresses.
    fn named(addresses: &[SocketAddr]) -> Arc<Shared> {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"u\"\nservers = [\"one.test:80\"]\n[upstream.outlier]\nfailures = 1\n\
            [[route]]\nupstream = \"u\"\n";
        let all = Shared::new(&Config::parse("test.toml", text, &|_| None).expect("the configuration is good"));
        all.nth(0).servers[0].set_targets(addresses.iter().copied().map(Target::Tcp).collect());
        all
    }

    /// A worker's pool, and a watch that is swept meanwhile.
    fn on_a_worker<T>(all: &Arc<Shared>, connect_ms: u32, run: impl AsyncFnOnce(&Pool, &Watch) -> T) -> T {
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
            run(&pool, &watch).await
        })
    }

    /// What so many leases came to.
    fn leases(all: &Arc<Shared>, connect_ms: u32, count: usize) -> Vec<Result<(), Fault>> {
        on_a_worker(all, connect_ms, async |pool, watch| {
            let mut results = Vec::new();
            for _ in 0..count {
                let mut choice = Choice { pooled: false, ..Choice::new(0, None) };
                results.push(pool.lease(&mut choice, watch).await.map(|lease| pool.discard(lease, Outcome::Succeeded)));
                watch.up.set(-1);
                watch.renew_upstream();
            }
            results
        })
    }

    /// One upstream with these servers.
    fn servers(addresses: &[SocketAddr], balance: &str) -> Arc<Shared> {
        Shared::new(&config(addresses, balance))
    }

    fn config(addresses: &[SocketAddr], balance: &str) -> Config {
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"u\"\nservers = {addresses:?}\nbalance = \"{balance}\"\n\
            [upstream.outlier]\nfailures = 0\n[[route]]\nupstream = \"u\"\n"
        );
        Config::parse("test.toml", &text, &|_| None).expect("the configuration is good")
    }

    /// An address that does not answer, as long as the sockets live.
    fn silent() -> (Vec<Socket>, SocketAddr) {
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        full.listen(0).expect("it is bound");
        let address = full.local_addr().expect("it is bound");
        // More than its backlog holds: from here on it does not answer.
        let waiting = (0..4).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
            let _ = socket.connect(&address);
            socket
        });
        (waiting.chain([full]).collect(), address.as_socket().expect("an address of IPv4"))
    }

    fn is_blamed(all: &Shared) -> bool {
        all.nth(0).servers[0].is_ejected(clock::monotonic_ms())
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
        let (_full, silent) = silent();
        let (_alive, good) = listener();
        let all = named(&[silent, good]);
        assert_eq!(leases(&all, 1000, 3), [Ok(()); 3]);
        assert!(!is_blamed(&all));
        let all = named(&[silent]);
        assert_eq!(leases(&all, 200, 1), [Err(UpstreamFault::ConnectTimeout.into())]);
        assert!(is_blamed(&all));
    }

    #[test]
    fn an_exchange_that_still_connects_counts_and_is_no_reason_to_send_more() {
        let ((_full, silent), (_alive, good)) = (silent(), listener());
        let all = servers(&[silent, good], "least-connections");
        on_a_worker(&all, 60_000, async |pool, watch| {
            let in_flight = || all.nth(0).in_flight();
            let mut choice = Choice::new(0, None);
            {
                let mut pending = pin!(pool.lease(&mut choice, watch));
                assert!(poll_once(pending.as_mut()).await.is_none(), "the first in turn lets nobody in");
                assert_eq!(in_flight(), [1, 0]);
                for _ in 0..20 {
                    let (mut choice, watch) = (Choice::new(0, None), Watch::default());
                    let lease = pool.lease(&mut choice, &watch).await.expect("the other one is good");
                    assert_eq!((lease.server, in_flight()), (1, vec![1, 1]));
                    pool.discard(lease, Outcome::Succeeded);
                }
            }
            assert_eq!(in_flight(), [0, 0], "given up half-way");
        });
        on_a_worker(&all, 50, async |pool, watch| {
            let result = pool.lease(&mut Choice::new(0, None), watch).await;
            assert_eq!(result.err(), Some(UpstreamFault::ConnectTimeout.into()));
            assert_eq!(all.nth(0).in_flight(), [0, 0], "failed");
        });
    }

    #[test]
    fn the_idle_connections_of_an_upstream_end_when_it_changes() {
        let (server, address) = listener();
        let before = servers(&[address], "round-robin");
        on_a_worker(&before, 5000, async |pool, watch| {
            let lease = pool.lease(&mut Choice::new(0, None), watch).await.expect("it lets us in");
            let mut kept = server.accept().expect("it is connected").0;
            pool.give_back(lease, Outcome::Succeeded);
            pool.expire();
            kept.set_nonblocking(true).expect("a socket");
            assert_eq!(kept.read(&mut [0]).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock), "it is kept");
            let after = before.next(&config(&[address, listener().1], "round-robin"), []);
            after.retire_others();
            pool.publish(after, Timeouts::default());
            pool.expire();
            kept.set_nonblocking(false).and_then(|()| kept.set_read_timeout(Some(Duration::from_secs(20)))).expect("a socket");
            assert_eq!(kept.read(&mut [0]).ok(), Some(0), "it is closed");
        });
    }

    #[test]
    fn ids_that_are_given_away_lead_to_the_right_servers() {
        // One server for each configuration.
        let peers: Vec<(TcpListener, SocketAddr)> = (0..8).map(|_| listener()).collect();
        peers.iter().for_each(|(peer, _)| peer.set_nonblocking(true).expect("a socket"));
        let made = |at: usize| config(&[peers[at].1], "round-robin");
        // Who is connected can be accepted: a wrong server has nobody.
        let accepted = |at: usize| peers[at].0.accept().expect("it is connected").0;
        let is_closed = |mut stream: TcpStream| {
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            stream.read(&mut [0]).ok() == Some(0)
        };
        let first = Shared::new(&made(0));
        on_a_worker(&first, 5000, async |pool, watch| {
            let new = |id| Choice::new(id, None);
            let in_flight = || pool.pools().each().map(|member| member.shared.in_flight()[0]).sum::<u64>();
            let held = pool.lease(&mut new(0), watch).await.expect("it lets us in");
            let holder = accepted(0);
            let mut now = Arc::clone(&first);
            for at in 1..7 {
                // An exchange of the first configuration goes on all the time.
                now = now.next(&made(at), [first.ids()]);
                now.retire_others();
                pool.publish(Arc::clone(&now), Timeouts::default());
                pool.expire();
                assert!(pool.pools().members.len() <= 3, "the first, the last, this one");
                let lease = pool.lease(&mut new(now.ids()[0]), watch).await.expect("it lets us in");
                let stream = accepted(at);
                assert!(!lease.reused, "of another upstream");
                pool.give_back(lease, Outcome::Succeeded);
                let lease = pool.lease(&mut new(now.ids()[0]), watch).await.expect("it lets us in");
                assert!(lease.reused);
                pool.discard(lease, Outcome::Succeeded);
                assert!(is_closed(stream), "the reused one was that of this server");
                // What the old exchange asks now goes where it did.
                let lease = pool.lease(&mut new(0), watch).await.expect("it lets us in");
                drop(accepted(0));
                pool.discard(lease, Outcome::Succeeded);
            }
            assert_eq!((held.upstream, in_flight()), (0, 1));
            pool.give_back(held, Outcome::Succeeded);
            assert_eq!(in_flight(), 0);
            // It is over: another upstream gets the id, and not the connection.
            now = now.next(&made(7), []);
            now.retire_others();
            pool.publish(Arc::clone(&now), Timeouts::default());
            assert_eq!(now.ids()[..], [0]);
            let lease = pool.lease(&mut new(0), watch).await.expect("it lets us in");
            drop(accepted(7));
            assert!(!lease.reused);
            pool.discard(lease, Outcome::Succeeded);
            assert!(is_closed(holder));
        });
    }

    #[test]
    fn the_attempts_of_a_request_go_round_all_servers() {
        let dead: Vec<SocketAddr> = (0..3).map(|_| listener().1).collect();
        for balance in ["round-robin", "least-connections", "hash-header:x-user"] {
            let all = servers(&dead, balance);
            on_a_worker(&all, 5000, async |pool, watch| {
                for number in 0..20u8 {
                    let mut choice = Choice::new(0, Some(fnv1a(&[number])));
                    let mut attempts = Vec::new();
                    for _ in 0..6 {
                        assert!(pool.lease(&mut choice, watch).await.is_err());
                        watch.renew_upstream();
                        choice.attempt += 1;
                        attempts.extend(choice.last());
                    }
                    for round in attempts.chunks(3) {
                        assert_eq!(BTreeSet::from_iter(round).len(), 3, "{balance}: {attempts:?}");
                    }
                    assert_ne!(attempts[2], attempts[3], "{balance}");
                }
            });
        }
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
