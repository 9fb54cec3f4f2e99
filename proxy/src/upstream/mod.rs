//! Upstreams: which server gets the next exchange.
//!
//! [`Shared`] is what all workers see of the servers: addresses, health, ejection. [`Group`] is one worker's view of one
//! upstream: turns, exchanges in flight. [`health`] and [`resolve`] have threads of their own, which only write to `Shared`.
//!
//! Must not: connect for exchanges (the worker does), know HTTP.

pub mod health;
pub mod resolve;

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::clock;
use crate::config::{Balance, Config, Outlier, ServerAddress, Upstream, UpstreamIndex};

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// One server as all workers see it.
#[derive(Debug)]
pub struct SharedServer {
    /// As configured.
    pub address: ServerAddress,
    /// Its share.
    pub weight: u32,
    /// What it resolves to; empty while a name has not been resolved.
    targets: Mutex<Vec<Target>>,
    /// Counts changes of `targets`: connections of another generation are not used again.
    generation: AtomicU32,
    /// What active checks found.
    healthy: AtomicBool,
    /// Failures in a row.
    failures: AtomicU32,
    /// Ejections in a row.
    ejections: AtomicU32,
    /// Until when it is ejected (monotonic ms); 0 for not.
    ejected_until: AtomicU64,
}

/// One upstream as all workers see it.
#[derive(Debug)]
pub struct SharedUpstream {
    /// The configuration.
    pub config: Upstream,
    /// Its servers, in the order of the configuration.
    pub servers: Vec<SharedServer>,
    /// What each worker has in flight, by server.
    in_flight: Mutex<Vec<Weak<[AtomicU32]>>>,
}

/// All upstreams of one configuration, and those of earlier ones that exchanges in flight may still use.
#[derive(Debug)]
pub struct Shared {
    /// By id. An upstream keeps its id, its health and its history for as long as its configuration stays the same.
    pub upstreams: Vec<Arc<SharedUpstream>>,
    /// The ids of the configuration's upstreams, by [`UpstreamIndex`].
    ids: Vec<u32>,
    retry_budget_percent: u64,
    retry_reserve: u64,
}

impl SharedServer {
    fn new(address: &ServerAddress, weight: u32) -> SharedServer {
        let targets = match address {
            ServerAddress::Tcp(address) => vec![Target::Tcp(*address)],
            ServerAddress::Unix(path) => vec![Target::Unix(path.clone())],
            ServerAddress::Name(..) => Vec::new(),
        };
        SharedServer {
            address: address.clone(),
            weight,
            targets: Mutex::new(targets),
            generation: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    /// The targets at this moment.
    pub fn targets(&self) -> Vec<Target> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A target for this attempt; names with several addresses are taken in turn.
    pub fn target(&self, turn: u32) -> Option<Target> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let index = (turn as usize).checked_rem(targets.len())?;
        targets.get(index).cloned()
    }

    /// Replaces the targets. True when they changed.
    pub fn set_targets(&self, new: Vec<Target>) -> bool {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if *targets == new {
            return false;
        }
        *targets = new;
        self.generation.fetch_add(1, Ordering::Release);
        true
    }

    /// Counts changes of the targets.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Records what an active check found. True when that changed.
    pub fn set_healthy(&self, healthy: bool) -> bool {
        self.healthy.swap(healthy, Ordering::Relaxed) != healthy
    }

    /// Whether it may get exchanges, leaving panic aside.
    pub fn is_usable(&self, now_ms: u64) -> bool {
        self.healthy.load(Ordering::Relaxed) && self.ejected_until.load(Ordering::Relaxed) <= now_ms
    }

    /// Whether it is ejected at this moment.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now_ms
    }

    /// What active checks found last.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// An exchange went well.
    #[inline]
    pub fn succeeded(&self) {
        // Read first: a store to a line that all workers share costs more.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// An exchange failed through the server. Returns for how long it is ejected now, when it is.
    pub fn failed(&self, outlier: Option<Outlier>, now_ms: u64) -> Option<u64> {
        let outlier = outlier?;
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures < outlier.failures || self.is_ejected(now_ms) {
            return None;
        }
        self.failures.store(0, Ordering::Relaxed);
        let times = self.ejections.fetch_add(1, Ordering::Relaxed).min(16);
        let ms = (u64::from(outlier.eject_ms) << times).min(u64::from(outlier.eject_max_ms));
        self.ejected_until.store(now_ms + ms, Ordering::Relaxed);
        Some(ms)
    }
}

impl SharedUpstream {
    fn new(config: &Upstream) -> SharedUpstream {
        SharedUpstream {
            servers: config.servers.iter().map(|s| SharedServer::new(&s.address, s.weight)).collect(),
            config: config.clone(),
            in_flight: Mutex::default(),
        }
    }

    /// Exchanges in flight by server, of all workers.
    pub fn in_flight(&self) -> Vec<u64> {
        let groups = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let groups: Vec<_> = groups.iter().filter_map(Weak::upgrade).collect();
        let of = |server: usize| groups.iter().map(|group| u64::from(group[server].load(Ordering::Relaxed))).sum();
        (0..self.servers.len()).map(of).collect()
    }
}

impl Shared {
    /// The servers of a configuration; names are not resolved yet.
    pub fn new(config: &Config) -> Arc<Shared> {
        Shared::build(config, Vec::new(), &[], false)
    }

    /// Those of the next configuration. What did not change stays; `reuse`: no exchange runs on an earlier configuration
    /// than this one, so the ids that it does not use may be given to others.
    pub fn next(&self, config: &Config, reuse: bool) -> Arc<Shared> {
        Shared::build(config, self.upstreams.clone(), &self.ids, reuse)
    }

    fn build(config: &Config, mut upstreams: Vec<Arc<SharedUpstream>>, current: &[u32], reuse: bool) -> Arc<Shared> {
        let mut free: Vec<u32> = if reuse { (0..upstreams.len() as u32).filter(|id| !current.contains(id)).collect() } else { Vec::new() };
        let ids = config.upstreams.iter().map(|upstream| {
            let kept = current.iter().copied().find(|id| upstreams[*id as usize].config == *upstream);
            kept.unwrap_or_else(|| {
                let new = Arc::new(SharedUpstream::new(upstream));
                match free.pop() {
                    Some(id) => {
                        upstreams[id as usize] = new;
                        id
                    }
                    None => {
                        upstreams.push(new);
                        upstreams.len() as u32 - 1
                    }
                }
            })
        });
        let ids = ids.collect();
        Arc::new(Shared { upstreams, ids, retry_budget_percent: config.limits.retry_budget_percent as u64, retry_reserve: config.limits.retry_reserve as u64 })
    }

    /// The id of an upstream of the configuration that this was made from.
    pub fn id(&self, index: UpstreamIndex) -> u32 {
        self.ids[index.0 as usize]
    }

    /// The upstreams of the configuration that this was made from, in its order.
    pub fn current(&self) -> impl Iterator<Item = &Arc<SharedUpstream>> {
        self.ids.iter().map(|id| &self.upstreams[*id as usize])
    }

    /// Counts a retry when the budget of this worker allows it: a share of its requests, and a few in any case.
    pub fn take_retry(&self, group: &Group) -> bool {
        let allowed = group.requests.get().saturating_mul(self.retry_budget_percent) / 100 + self.retry_reserve;
        if group.retries.get() >= allowed {
            return false;
        }
        group.retries.set(group.retries.get() + 1);
        true
    }
}

/// One worker's view of one upstream.
#[derive(Debug)]
pub struct Group {
    servers: Vec<Turn>,
    /// Exchanges of this worker by server: written here, read by anyone.
    in_flight: Arc<[AtomicU32]>,
    /// Requests of this worker since the last decay.
    pub requests: Cell<u64>,
    /// Retries of this worker since the last decay.
    retries: Cell<u64>,
}

#[derive(Debug, Default)]
struct Turn {
    /// For the smooth weighted round robin.
    current: Cell<i64>,
    attempts: Cell<u32>,
}

/// What decides about a server.
#[derive(Debug, Clone, Copy)]
pub struct Pick {
    /// Hash of the key; used when the upstream balances by hash.
    pub hash: u64,
    /// This server is taken only when there is no other.
    pub avoid: Option<u32>,
    /// Monotonic ms.
    pub now_ms: u64,
}

impl Group {
    /// A group without history.
    pub fn new(shared: &SharedUpstream) -> Group {
        let in_flight: Arc<[AtomicU32]> = shared.servers.iter().map(|_| AtomicU32::new(0)).collect();
        let mut groups = shared.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|group| group.strong_count() > 0);
        groups.push(Arc::downgrade(&in_flight));
        Group { servers: shared.servers.iter().map(|_| Turn::default()).collect(), in_flight, requests: Cell::new(0), retries: Cell::new(0) }
    }

    /// The server for the next attempt.
    pub fn pick(&self, shared: &SharedUpstream, pick: &Pick) -> Option<usize> {
        let count = shared.servers.len();
        if count == 1 {
            return Some(0);
        }
        let usable = shared.servers.iter().filter(|s| s.is_usable(pick.now_ms)).count();
        // Panic: when too few are left, all are used; better some errors than overload of the rest.
        let panic = usable * 100 < count * shared.config.panic_percent as usize || usable == 0;
        let may = |at: usize| panic || shared.servers[at].is_usable(pick.now_ms);
        let others = (0..count).any(|at| may(at) && pick.avoid != Some(at as u32));
        let candidates = (0..count).filter(|at| may(*at) && (!others || pick.avoid != Some(*at as u32)));
        match &shared.config.balance {
            Balance::RoundRobin => self.next_in_turn(shared, candidates),
            Balance::LeastConnections => candidates.min_by_key(|at| {
                let load = u64::from(self.in_flight[*at].load(Ordering::Relaxed)) + 1;
                // Compared as load / weight, without a division.
                (load * 1_000_000) / u64::from(shared.servers[*at].weight.max(1))
            }),
            Balance::HashAddress => candidates.max_by(|a, b| score(shared, *a, pick.hash).total_cmp(&score(shared, *b, pick.hash))),
            // Without the header there is nothing to hash: in turn.
            Balance::HashHeader(_) if pick.hash == 0 => self.next_in_turn(shared, candidates),
            Balance::HashHeader(_) => candidates.max_by(|a, b| score(shared, *a, pick.hash).total_cmp(&score(shared, *b, pick.hash))),
        }
    }

    /// Smooth weighted round robin, as nginx does it: each gains its weight, the richest pays the total.
    fn next_in_turn(&self, shared: &SharedUpstream, candidates: impl Iterator<Item = usize>) -> Option<usize> {
        let (mut best, mut total) = (None::<usize>, 0);
        for at in candidates {
            let weight = i64::from(shared.servers[at].weight);
            let turn = &self.servers[at].current;
            turn.set(turn.get() + weight);
            total += weight;
            if best.is_none_or(|best| turn.get() > self.servers[best].current.get()) {
                best = Some(at);
            }
        }
        let current = &self.servers[best?].current;
        current.set(current.get() - total);
        best
    }

    /// Forgets half of what the retry budget has counted: called about once a second, so that it speaks of the recent past.
    pub fn decay(&self) {
        self.requests.set(self.requests.get() / 2);
        self.retries.set(self.retries.get() / 2);
    }

    /// An exchange begins on this server.
    #[inline]
    pub fn begin(&self, server: usize) {
        let count = &self.in_flight[server];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// An exchange ended on this server.
    #[inline]
    pub fn end(&self, server: usize) {
        let count = &self.in_flight[server];
        count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// How often this server was connected to.
    pub fn next_attempt(&self, server: usize) -> u32 {
        let attempts = &self.servers[server].attempts;
        attempts.set(attempts.get().wrapping_add(1));
        attempts.get()
    }
}

/// Weighted rendezvous hashing: when a server goes, only its own keys move.
fn score(shared: &SharedUpstream, at: usize, hash: u64) -> f64 {
    let server = &shared.servers[at];
    let mut mixed = hash ^ (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    // Uniform in (0, 1]; 53 bits are what an f64 holds.
    let unit = ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64;
    f64::from(server.weight) / -unit.ln().min(-f64::MIN_POSITIVE)
}

/// Milliseconds now, for [`Pick`].
pub fn now_ms() -> u64 {
    clock::monotonic_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(toml: &str) -> Arc<Shared> {
        let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"u\"\n{toml}\n[[route]]\npath = \"/\"\nupstream = \"u\"\n");
        Shared::new(&Config::parse("test.toml", &text, &|_| None).unwrap())
    }

    fn turns(shared: &Shared, group: &Group, count: usize, pick: Pick) -> Vec<usize> {
        (0..count).map(|_| group.pick(&shared.upstreams[0], &pick).unwrap()).collect()
    }

    const NOW: Pick = Pick { hash: 0, avoid: None, now_ms: 1000 };
    const THREE: &str = "servers = [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"]";

    #[test]
    fn round_robin_takes_each_in_turn_and_smoothly_by_weight() {
        let all = shared(THREE);
        let group = Group::new(&all.upstreams[0]);
        assert_eq!(turns(&all, &group, 6, NOW), [0, 1, 2, 0, 1, 2]);
        let weighted = shared("servers = [{ address = \"127.0.0.1:1\", weight = 3 }, \"127.0.0.1:2\"]");
        let group = Group::new(&weighted.upstreams[0]);
        assert_eq!(turns(&weighted, &group, 4, NOW), [0, 0, 1, 0]);
    }

    #[test]
    fn least_connections_follows_what_is_in_flight() {
        let all = shared(&format!("{THREE}\nbalance = \"least-connections\""));
        let group = Group::new(&all.upstreams[0]);
        group.begin(0);
        group.begin(1);
        assert_eq!(turns(&all, &group, 1, NOW), [2]);
        group.begin(2);
        group.begin(2);
        group.end(1);
        assert_eq!(turns(&all, &group, 1, NOW), [1]);
    }

    #[test]
    fn a_hash_moves_only_the_keys_of_the_server_that_went() {
        let all = shared(&format!("{THREE}\nbalance = \"hash-address\"\npanic_percent = 0\n[upstream.outlier]\nfailures = 1"));
        let group = Group::new(&all.upstreams[0]);
        let of = |hash| group.pick(&all.upstreams[0], &Pick { hash, ..NOW }).unwrap();
        let before: Vec<_> = (1..300).map(of).collect();
        assert!((0..3).all(|server| before.iter().filter(|s| **s == server).count() > 60));
        all.upstreams[0].servers[1].failed(all.upstreams[0].config.outlier, 1000);
        let after: Vec<_> = (1..300).map(of).collect();
        assert!(before.iter().zip(&after).all(|(b, a)| *a != 1 && (*b == 1 || b == a)));
    }

    #[test]
    fn a_server_is_ejected_after_failures_in_a_row_and_comes_back() {
        let all = shared(&format!("{THREE}\n[upstream.outlier]\nfailures = 2\neject = \"1s\""));
        let group = Group::new(&all.upstreams[0]);
        let outlier = all.upstreams[0].config.outlier;
        let server = &all.upstreams[0].servers[0];
        assert_eq!(server.failed(outlier, 1000), None);
        server.succeeded();
        assert_eq!(server.failed(outlier, 1000), None);
        assert_eq!(server.failed(outlier, 1000), Some(1000));
        assert!(!turns(&all, &group, 6, NOW).contains(&0));
        assert!(turns(&all, &group, 6, Pick { now_ms: 2001, ..NOW }).contains(&0));
    }

    #[test]
    fn when_too_few_servers_are_left_all_are_used() {
        let all = shared(&format!("{THREE}\npanic_percent = 50"));
        let group = Group::new(&all.upstreams[0]);
        for server in &all.upstreams[0].servers[..2] {
            server.set_healthy(false);
        }
        assert!(turns(&all, &group, 9, NOW).contains(&0));
    }

    #[test]
    fn the_server_of_the_last_attempt_is_avoided() {
        let all = shared(THREE);
        let group = Group::new(&all.upstreams[0]);
        assert!(!turns(&all, &group, 9, Pick { avoid: Some(1), ..NOW }).contains(&1));
    }

    #[test]
    fn an_upstream_keeps_its_id_and_state_while_its_configuration_stays_the_same() {
        let config = |upstreams: &[(&str, u16)]| {
            let upstream = |(name, port): &(&str, u16)| format!("[[upstream]]\nname = \"{name}\"\nservers = [\"127.0.0.1:{port}\"]\n");
            let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{}", upstreams.iter().map(upstream).collect::<String>());
            Config::parse("test.toml", &text, &|_| None).unwrap()
        };
        let id = |shared: &Shared, at| shared.id(UpstreamIndex(at));
        let first = Shared::new(&config(&[("a", 1), ("b", 2)]));
        first.upstreams[0].servers[0].set_healthy(false);
        let second = first.next(&config(&[("b", 3), ("a", 1)]), false);
        assert_eq!((id(&second, 0), id(&second, 1), second.upstreams.len()), (2, 0, 3));
        assert!(!second.upstreams[0].servers[0].is_healthy());
        assert_eq!(second.current().map(|u| u.config.name.as_str()).collect::<String>(), "ba");
        // Exchanges may still use what `b` was: its id is not given away yet, and afterwards it is.
        assert_eq!(id(&second.next(&config(&[("a", 1), ("c", 4)]), false), 1), 3);
        assert_eq!(id(&second.next(&config(&[("a", 1), ("c", 4)]), true), 1), 1);
    }

    #[test]
    fn the_retry_budget_ends_and_comes_back() {
        let all = shared(THREE);
        let group = Group::new(&all.upstreams[0]);
        group.requests.set(100);
        assert_eq!((0..1000).filter(|_| all.take_retry(&group)).count(), 20 + 10);
        group.decay();
        assert!(all.take_retry(&group));
    }
}
