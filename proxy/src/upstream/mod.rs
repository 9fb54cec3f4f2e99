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

/// The ids that the exchanges of one configuration use. As long as one of them runs, none of these ids may lead to another upstream.
pub type Ids = Arc<[u32]>;

/// All upstreams of one configuration, and those of earlier ones that exchanges in flight may still use.
#[derive(Debug)]
pub struct Shared {
    /// By id; `None`: the id is free. An upstream keeps its id and its connections for as long as its configuration stays the same. What is known of its
    /// servers outlasts a change: it belongs to the upstream's name and the server's address.
    upstreams: Vec<Option<Arc<SharedUpstream>>>,
    /// The ids of the configuration's upstreams, by [`UpstreamIndex`].
    ids: Ids,
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
        Shared::build(config, Vec::new(), &[])
    }

    /// Those of the next configuration. What did not change stays. `former`: the ids of each earlier configuration than this one on which exchanges still
    /// run. What neither they nor this one use is let go, and its ids are given to others.
    pub fn next<'a>(&'a self, config: &Config, former: impl IntoIterator<Item = &'a Ids>) -> Arc<Shared> {
        let mut is_used = vec![false; self.upstreams.len()];
        for id in former.into_iter().chain([&self.ids]).flat_map(|ids| ids.iter()) {
            is_used[*id as usize] = true;
        }
        let in_use = self.upstreams.iter().zip(is_used).map(|(upstream, is_used)| upstream.clone().filter(|_| is_used));
        Shared::build(config, in_use.collect(), &self.ids)
    }

    /// `upstreams`: those that stay, by id; `current`: which of them are in force.
    fn build(config: &Config, mut upstreams: Vec<Option<Arc<SharedUpstream>>>, current: &[u32]) -> Arc<Shared> {
        let known: Vec<(u32, Arc<SharedUpstream>)> = current.iter().filter_map(|id| Some((*id, upstreams[*id as usize].clone()?))).collect();
        // The lowest first, so that the table gets shorter when much has ended.
        let mut free = 0;
        let ids = config.upstreams.iter().map(|upstream| {
            if let Some((id, _)) = known.iter().find(|(_, known)| known.config == *upstream) {
                return *id;
            }
            let before = known.iter().map(|(_, known)| known).find(|known| known.config.name == upstream.name);
            let new = Some(Arc::new(SharedUpstream::new(upstream, before.map(Arc::as_ref))));
            free = (free..upstreams.len()).find(|id| upstreams[*id].is_none()).unwrap_or(upstreams.len());
            match upstreams.get_mut(free) {
                Some(place) => *place = new,
                None => upstreams.push(new),
            }
            free as u32
        });
        let ids = ids.collect();
        while upstreams.pop_if(|last| last.is_none()).is_some() {}
        Arc::new(Shared { upstreams, ids, retry_budget_percent: config.limits.retry_budget_percent as u64, retry_reserve: config.limits.retry_reserve as u64 })
    }

    /// Every upstream that exchanges may use, by id.
    pub fn by_id(&self) -> &[Option<Arc<SharedUpstream>>] {
        &self.upstreams
    }

    /// The ids that exchanges of the configuration use that this was made from.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// The upstreams that have left the configuration, and are kept for exchanges that began before.
    pub fn old(&self) -> impl Iterator<Item = &Arc<SharedUpstream>> {
        (0u32..).zip(&self.upstreams).filter(|(id, _)| !self.ids.contains(id)).filter_map(|(_, upstream)| upstream.as_ref())
    }

    /// The id of an upstream of the configuration that this was made from.
    pub fn id(&self, index: UpstreamIndex) -> u32 {
        self.ids[index.0 as usize]
    }

    /// The upstreams of the configuration that this was made from, in its order.
    pub fn current(&self) -> impl Iterator<Item = &Arc<SharedUpstream>> {
        self.ids.iter().filter_map(|id| self.upstreams[*id as usize].as_ref())
    }

    /// This is in force now: what it does not use is followed by no thread any more.
    pub fn retire_others(&self) {
        self.old().for_each(|upstream| upstream.retired.store(true, Ordering::Relaxed));
    }

    /// An upstream of the configuration.
    #[cfg(test)]
    pub(crate) fn nth(&self, at: usize) -> &Arc<SharedUpstream> {
        self.current().nth(at).expect("there are so many")
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
        let outlier = all.nth(0).config.outlier;
        (all, outlier)
    }

    #[test]
    fn a_server_is_ejected_after_failures_in_a_row_and_comes_back() {
        let (all, outlier) = outlier("failures = 2\neject = \"1s\"");
        let group = Group::new(all.nth(0));
        let server = &all.nth(0).servers[0];
        let gets = |now_ms| (0..6).any(|_| group.pick(all.nth(0), &Pick { hash: None, tried: &[], now_ms }) == Some(0));
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
        let server = &all.nth(0).servers[0];
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

    fn of(upstreams: &[(&str, u16)]) -> Config {
        let upstream = |(name, port): &(&str, u16)| format!("[[upstream]]\nname = \"{name}\"\nservers = [\"127.0.0.1:{port}\"]\n");
        let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{}", upstreams.iter().map(upstream).collect::<String>());
        Config::parse("test.toml", &text, &|_| None).unwrap()
    }

    #[test]
    fn an_upstream_keeps_its_id_and_state_while_its_configuration_stays_the_same() {
        let id = |shared: &Shared, at| shared.id(UpstreamIndex(at));
        let first = Shared::new(&of(&[("a", 1), ("b", 2)]));
        first.nth(0).servers[0].set_healthy(false);
        let second = first.next(&of(&[("b", 3), ("a", 1)]), []);
        assert_eq!((id(&second, 0), id(&second, 1), second.by_id().len()), (2, 0, 3));
        assert!(!second.nth(1).servers[0].is_healthy());
        assert_eq!(second.current().map(|u| u.config.name.as_str()).collect::<String>(), "ba");
        second.retire_others();
        let followed: Vec<bool> = second.by_id().iter().flatten().map(|upstream| watched(&Arc::downgrade(upstream)).is_some()).collect();
        assert_eq!(followed, [true, false, true], "what `b` was is followed no longer");
        // Exchanges may still use what `b` was: its id is not given away yet, and afterwards it is.
        assert_eq!(id(&second.next(&of(&[("a", 1), ("c", 4)]), [first.ids()]), 1), 3);
        assert_eq!(id(&second.next(&of(&[("a", 1), ("c", 4)]), []), 1), 1);
    }

    /// What an id leads to stays for as long as a configuration that has it is in use, and not longer.
    #[test]
    fn upstreams_are_let_go_when_no_exchange_can_use_them_any_more() {
        let names = ["a", "b", "c", "d"];
        let mut port = 0;
        let mut changed = || {
            port += 4;
            of(&[0, 1, 2, 3].map(|at| (names[usize::from(at)], port + at)))
        };
        let leads_to = |shared: &Shared, ids: &Ids| -> Vec<Arc<SharedUpstream>> {
            ids.iter().map(|id| Arc::clone(shared.by_id()[*id as usize].as_ref().expect("it is in use"))).collect()
        };
        let same = |one: &[Arc<SharedUpstream>], other: &[Arc<SharedUpstream>]| one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other));
        let mut now = Shared::new(&changed());
        // Tunnels, each of which lives for twenty publications; two at a time.
        let mut tunnels: Vec<(Ids, Vec<Arc<SharedUpstream>>)> = Vec::new();
        let mut made: Vec<Weak<SharedUpstream>> = Vec::new();
        for round in 0..200 {
            if round % 10 == 0 {
                tunnels.push((now.ids().clone(), leads_to(&now, now.ids())));
                if tunnels.len() > 2 {
                    tunnels.remove(0);
                }
            }
            let current = leads_to(&now, now.ids());
            let next = now.next(&changed(), tunnels.iter().map(|(ids, _)| ids));
            assert!(same(&leads_to(&next, now.ids()), &current), "exchanges of the last configuration");
            assert!(tunnels.iter().all(|(ids, upstreams)| same(&leads_to(&next, ids), upstreams)), "round {round}");
            let others = tunnels.iter().flat_map(|(ids, _)| ids.iter()).chain(now.ids().iter());
            assert!(others.copied().all(|id| !next.ids().contains(&id)), "an id was given away too early");
            assert!(next.by_id().len() <= 16 && next.old().count() <= 12, "{} ids, {} of them old", next.by_id().len(), next.old().count());
            made.extend(leads_to(&next, next.ids()).iter().map(Arc::downgrade));
            now = next;
            drop(current);
            assert!(made.iter().filter(|upstream| upstream.strong_count() > 0).count() <= 16, "their memory goes with the ids");
        }
        drop(tunnels);
        let (last, end) = (of(&[("a", 1)]), now.next(&changed(), []));
        let end = end.next(&changed(), []).next(&last, []).next(&last, []);
        assert_eq!((end.by_id().len(), end.old().count()), (1, 0), "the table gets shorter again");
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
        let (servers, outlier) = (&first.nth(0).servers, first.nth(0).config.outlier);
        servers[0].set_healthy(false);
        assert_eq!([servers[1].failed(outlier, 1000), servers[1].failed(outlier, 1000)], [None, Some(10_000)]);
        assert_eq!(servers[2].failed(outlier, 1000), None);
        let next = |upstreams: &[(&str, &str)]| first.next(&config(upstreams), []);
        let state = |shared: &Shared, at| {
            shared.nth(at).servers.iter().map(|s| (s.is_healthy(), s.is_ejected(1000), s.history.load(Ordering::Relaxed))).collect::<Vec<_>>()
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
        assert_eq!(state(&gone.next(&config(&[("u", &format!("{THREE}\n{checked}\n[upstream.outlier]\nfailures = 3"))]), []), 0), [UNKNOWN; 3]);
    }

    #[test]
    fn the_retry_budget_ends_and_comes_back() {
        let all = shared(THREE);
        let group = Group::new(all.nth(0));
        group.requests.set(100);
        assert_eq!((0..1000).filter(|_| all.take_retry(&group)).count(), 20 + 10);
        group.decay();
        assert!(all.take_retry(&group));
    }
}
