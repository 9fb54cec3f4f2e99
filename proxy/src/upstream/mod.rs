//! Upstreams: which server gets the next exchange.
//!
//! [`Shared`] is what all workers see of the servers: addresses, health, ejection. [`Group`] is one worker's view of one
//! upstream: turns, exchanges in flight. [`health`] and [`resolve`] have threads of their own, which follow an upstream for as long as it is
//! in the configuration and only write to `Shared`.
//!
//! Must not: connect for exchanges (the worker does), know HTTP.

pub mod health;
pub mod pick;
pub mod resolve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use self::pick::{Group, Pick, Tries};
use crate::config::{Config, Outlier, ServerAddress, Upstream, UpstreamIndex, UpstreamServer};
use crate::hash::fnv1a;

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
    /// Hash of its address as configured: what decides its keys.
    key: u64,
    /// What it resolves to; empty while a name has not been resolved.
    targets: Mutex<Vec<Target>>,
    /// Whether there are targets.
    resolved: AtomicBool,
    /// Counts changes of `targets`: connections of another generation are not used again.
    generation: AtomicU32,
    /// What active checks found.
    healthy: AtomicBool,
    /// Failures in a row in the lower half, ejections in a row in the upper: one word, so that a success sees and ends both.
    history: AtomicU64,
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
    /// It has left the configuration; exchanges in flight may still use it.
    retired: AtomicBool,
    /// What each worker has in flight, by server.
    in_flight: Mutex<Vec<Weak<[AtomicU32]>>>,
}

/// All upstreams of one configuration, and those of earlier ones that exchanges in flight may still use.
#[derive(Debug)]
pub struct Shared {
    /// By id. An upstream keeps its id and its connections for as long as its configuration stays the same. What is known of its servers outlasts
    /// a change: it belongs to the upstream's name and the server's address.
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
            key: fnv1a(address.to_string().as_bytes()),
            resolved: AtomicBool::new(!targets.is_empty()),
            targets: Mutex::new(targets),
            generation: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            history: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    fn lock_targets(&self) -> MutexGuard<'_, Vec<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what was known of it under the upstream's last configuration. What this one has no means to end is not taken over: checks bring back
    /// an unhealthy server, and successes end a row of failures only where somebody counts them.
    fn knowing(self, known: &SharedServer, config: &Upstream) -> SharedServer {
        if config.health.is_some() {
            self.healthy.store(known.is_healthy(), Ordering::Relaxed);
        }
        if config.outlier.is_some() {
            self.history.store(known.history.load(Ordering::Relaxed), Ordering::Relaxed);
            self.ejected_until.store(known.ejected_until.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self
    }

    /// The targets at this moment.
    pub fn targets(&self) -> Vec<Target> {
        self.lock_targets().clone()
    }

    /// Replaces the targets. True when they changed.
    pub fn set_targets(&self, new: Vec<Target>) -> bool {
        let mut targets = self.lock_targets();
        if *targets == new {
            return false;
        }
        self.resolved.store(!new.is_empty(), Ordering::Relaxed);
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

    /// Whether there is an address to connect to.
    pub fn is_resolved(&self) -> bool {
        self.resolved.load(Ordering::Relaxed)
    }

    /// Whether it may get exchanges, leaving panic aside.
    pub fn is_usable(&self, now_ms: u64) -> bool {
        self.healthy.load(Ordering::Relaxed) && self.is_resolved() && self.ejected_until.load(Ordering::Relaxed) <= now_ms
    }

    /// Whether it is ejected at this moment.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now_ms
    }

    /// What active checks found last.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// An exchange went well: failures, and ejections that are over, are in a row no longer.
    #[inline]
    pub fn succeeded(&self, now_ms: u64) {
        // Read first: a store to a line that all workers share costs more. What began before an ejection says nothing about its end.
        if self.history.load(Ordering::Relaxed) != 0 && !self.is_ejected(now_ms) {
            self.history.store(0, Ordering::Relaxed);
        }
    }

    /// An exchange failed through the server. Returns for how long it is ejected now, when it is.
    pub fn failed(&self, outlier: Option<Outlier>, now_ms: u64) -> Option<u64> {
        let outlier = outlier?;
        if self.is_ejected(now_ms) {
            return None;
        }
        let (mut ejections, mut ejects) = (0, false);
        // Of two workers that see the last failure at the same time one ejects.
        let _ = self.history.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |history| {
            let failures = history as u32 + 1;
            ejections = history >> 32;
            ejects = failures >= outlier.failures;
            Some(if ejects { (ejections + 1) << 32 } else { ejections << 32 | u64::from(failures) })
        });
        if !ejects {
            return None;
        }
        let ms = (u64::from(outlier.eject_ms) << ejections.min(16)).min(u64::from(outlier.eject_max_ms));
        self.ejected_until.store(now_ms + ms, Ordering::Relaxed);
        Some(ms)
    }
}

impl SharedUpstream {
    /// `before`: what the upstream of this name was.
    fn new(config: &Upstream, before: Option<&SharedUpstream>) -> SharedUpstream {
        let server = |of: &UpstreamServer| {
            let server = SharedServer::new(&of.address, of.weight);
            match before.and_then(|before| before.servers.iter().find(|known| known.address == of.address)) {
                Some(known) => server.knowing(known, config),
                None => server,
            }
        };
        SharedUpstream {
            servers: config.servers.iter().map(server).collect(),
            config: config.clone(),
            retired: AtomicBool::new(false),
            in_flight: Mutex::default(),
        }
    }

    /// It has left the configuration.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Exchanges in flight by server, of all workers.
    pub fn in_flight(&self) -> Vec<u64> {
        let groups = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let groups: Vec<_> = groups.iter().filter_map(Weak::upgrade).collect();
        let of = |server: usize| groups.iter().map(|group| u64::from(group[server].load(Ordering::Relaxed))).sum();
        (0..self.servers.len()).map(of).collect()
    }
}

/// The upstream, as long as it is in the configuration: the threads that follow it end with it.
fn watched(upstream: &Weak<SharedUpstream>) -> Option<Arc<SharedUpstream>> {
    upstream.upgrade().filter(|upstream| !upstream.is_retired())
}

impl Shared {
    /// The servers of a configuration; names are not resolved yet.
    pub fn new(config: &Config) -> Arc<Shared> {
        Shared::build(config, &[], &[], false)
    }

    /// Those of the next configuration. What did not change stays; `reuse`: no exchange runs on an earlier configuration
    /// than this one, so the ids that it does not use may be given to others.
    pub fn next(&self, config: &Config, reuse: bool) -> Arc<Shared> {
        Shared::build(config, &self.upstreams, &self.ids, reuse)
    }

    fn build(config: &Config, known: &[Arc<SharedUpstream>], current: &[u32], reuse: bool) -> Arc<Shared> {
        let mut upstreams = known.to_vec();
        let mut free: Vec<u32> = if reuse { (0..upstreams.len() as u32).filter(|id| !current.contains(id)).collect() } else { Vec::new() };
        let ids = config.upstreams.iter().map(|upstream| {
            let kept = current.iter().copied().find(|id| upstreams[*id as usize].config == *upstream);
            kept.unwrap_or_else(|| {
                let before = current.iter().map(|id| &known[*id as usize]).find(|known| known.config.name == upstream.name);
                let new = Arc::new(SharedUpstream::new(upstream, before.map(Arc::as_ref)));
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

    /// This is in force now: what it does not use is followed by no thread any more.
    pub fn retire_others(&self) {
        for (id, upstream) in (0u32..).zip(&self.upstreams) {
            if !self.ids.contains(&id) {
                upstream.retired.store(true, Ordering::Relaxed);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn shared(toml: &str) -> Arc<Shared> {
        let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"u\"\n{toml}\n[[route]]\npath = \"/\"\nupstream = \"u\"\n");
        Shared::new(&Config::parse("test.toml", &text, &|_| None).unwrap())
    }

    pub(super) const THREE: &str = "servers = [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"]";

    /// Three servers, the first of them, and what ejects it.
    fn outlier(lines: &str) -> (Arc<Shared>, Option<Outlier>) {
        let all = shared(&format!("{THREE}\n[upstream.outlier]\n{lines}"));
        let outlier = all.upstreams[0].config.outlier;
        (all, outlier)
    }

    #[test]
    fn a_server_is_ejected_after_failures_in_a_row_and_comes_back() {
        let (all, outlier) = outlier("failures = 2\neject = \"1s\"");
        let group = Group::new(&all.upstreams[0]);
        let server = &all.upstreams[0].servers[0];
        let gets = |now_ms| (0..6).any(|_| group.pick(&all.upstreams[0], &Pick { hash: None, tried: &[], now_ms }) == Some(0));
        assert_eq!(server.failed(outlier, 1000), None);
        server.succeeded(1000);
        assert_eq!(server.failed(outlier, 1000), None);
        assert_eq!(server.failed(outlier, 1000), Some(1000));
        assert!(!gets(1000));
        assert!(gets(2001));
    }

    #[test]
    fn each_ejection_without_a_success_between_is_twice_as_long() {
        let (all, outlier) = outlier("failures = 2\neject = \"1s\"\neject_max = \"5s\"");
        let server = &all.upstreams[0].servers[0];
        let mut now = 1000;
        let mut ejected = |succeeds: bool| {
            if succeeds {
                server.succeeded(now);
            }
            assert_eq!(server.failed(outlier, now), None);
            let ms = server.failed(outlier, now).unwrap();
            // What was in flight says nothing new.
            assert_eq!((0..5).filter_map(|_| server.failed(outlier, now + 1)).count(), 0);
            server.succeeded(now + 1);
            now += ms;
            ms
        };
        assert_eq!([false, false, false, false].map(&mut ejected), [1000, 2000, 4000, 5000]);
        assert_eq!([true, true, false, true].map(&mut ejected), [1000, 1000, 2000, 1000], "a success ends the row");
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
        second.retire_others();
        let followed: Vec<bool> = second.upstreams.iter().map(|upstream| watched(&Arc::downgrade(upstream)).is_some()).collect();
        assert_eq!(followed, [true, false, true], "what `b` was is followed no longer");
        // Exchanges may still use what `b` was: its id is not given away yet, and afterwards it is.
        assert_eq!(id(&second.next(&config(&[("a", 1), ("c", 4)]), false), 1), 3);
        assert_eq!(id(&second.next(&config(&[("a", 1), ("c", 4)]), true), 1), 1);
    }

    #[test]
    fn servers_that_stay_keep_what_is_known_of_them_when_their_upstream_changes() {
        let config = |upstreams: &[(&str, &str)]| {
            let upstream = |(name, lines): &(&str, &str)| format!("[[upstream]]\nname = \"{name}\"\n{lines}\n");
            let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{}", upstreams.iter().map(upstream).collect::<String>());
            Config::parse("test.toml", &text, &|_| None).unwrap()
        };
        let checked = "[upstream.health]\nkind = \"tcp\"";
        let first = Shared::new(&config(&[("u", &format!("{THREE}\n{checked}\n[upstream.outlier]\nfailures = 2"))]));
        let (servers, outlier) = (&first.upstreams[0].servers, first.upstreams[0].config.outlier);
        servers[0].set_healthy(false);
        assert_eq!([servers[1].failed(outlier, 1000), servers[1].failed(outlier, 1000)], [None, Some(10_000)]);
        assert_eq!(servers[2].failed(outlier, 1000), None);
        let next = |upstreams: &[(&str, &str)]| first.next(&config(upstreams), false);
        let state = |shared: &Shared, at| {
            let servers = &shared.upstreams[shared.id(UpstreamIndex(at)) as usize].servers;
            servers.iter().map(|s| (s.is_healthy(), s.is_ejected(1000), s.history.load(Ordering::Relaxed))).collect::<Vec<_>>()
        };
        const UNKNOWN: (bool, bool, u64) = (true, false, 0);
        let known = [(false, false, 0), (true, true, 1 << 32), (true, false, 1)];
        assert_eq!(state(&first, 0), known);
        let four = "servers = [\"127.0.0.1:4\", \"127.0.0.1:3\", { address = \"127.0.0.1:2\", weight = 5 }, \"127.0.0.1:1\"]";
        assert_eq!(state(&next(&[("u", &format!("{four}\n{checked}"))]), 0), [UNKNOWN, known[2], known[1], known[0]]);
        assert_eq!(state(&next(&[("u", four)]), 0), [UNKNOWN, known[2], known[1], UNKNOWN], "nobody would find that it is healthy again");
        assert_eq!(state(&next(&[("u", &format!("{four}\n{checked}\n[upstream.outlier]\nfailures = 0"))]), 0), [UNKNOWN, UNKNOWN, UNKNOWN, known[0]]);
        let both = next(&[("other", &format!("{four}\n{checked}")), ("u", &format!("{THREE}\n{checked}"))]);
        assert_eq!(state(&both, 0), [UNKNOWN; 4], "the same addresses are another upstream's servers");
        assert_eq!(state(&both, 1), known);
        // What has left the configuration is forgotten.
        let gone = next(&[("other", THREE)]);
        assert_eq!(state(&gone.next(&config(&[("u", &format!("{THREE}\n{checked}\n[upstream.outlier]\nfailures = 3"))]), false), 0), [UNKNOWN; 3]);
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
