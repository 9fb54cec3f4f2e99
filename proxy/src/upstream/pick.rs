//! One worker's view of one upstream: which server gets the next exchange, and which of its addresses the next connection.
//!
//! Must not: write to what all workers share, but for the counts of exchanges in flight.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

use super::{SharedServer, SharedUpstream, Target};
use crate::config::Balance;
use crate::limits::{ADDRESS_RETRY_MS, ADDRESS_TRIES_MAX, ADDRESSES_MAX};

/// One worker's view of one upstream.
#[derive(Debug)]
pub struct Group {
    servers: Vec<Turn>,
    /// Exchanges of this worker by server: written here, read by anyone.
    in_flight: Arc<[AtomicU32]>,
    /// Requests of this worker since the last decay.
    pub requests: Cell<u64>,
    /// Retries of this worker since the last decay.
    pub(super) retries: Cell<u64>,
}

/// One server as this worker sees it.
#[derive(Debug, Default)]
struct Turn {
    /// For the smooth weighted round robin.
    current: Cell<i64>,
    /// Connections that were begun.
    attempts: Cell<usize>,
    /// The addresses of this generation that did not let anyone in, a bit each.
    failed: Cell<u64>,
    generation: Cell<u32>,
    /// When the last of them failed (monotonic ms).
    failed_ms: Cell<u64>,
}

/// What decides about a server.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    /// Hash of the key, when the upstream balances by hash and there is a key.
    pub hash: Option<u64>,
    /// Servers that were tried already, the last one last. They are taken only when there is no other, and the last one only when it is alone.
    pub tried: &'a [u32],
    /// Monotonic ms.
    pub now_ms: u64,
}

/// The addresses of one server that were tried for one connection.
#[derive(Debug, Default)]
pub struct Tries {
    made: usize,
    /// Where the turn began.
    first: usize,
    /// The address of the last try.
    last: usize,
    tried: u64,
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

    /// The server for the next attempt; `None` when no server has an address.
    pub fn pick(&self, shared: &SharedUpstream, pick: &Pick) -> Option<usize> {
        let count = shared.servers.len();
        if count == 1 {
            return Some(0);
        }
        let usable = shared.servers.iter().filter(|s| s.is_usable(pick.now_ms)).count();
        // Panic: when too few are left, all are used that can be found; better some errors than overload of the rest.
        let panic = usable * 100 < count * shared.config.panic_percent as usize || usable == 0;
        let may = |at: usize| if panic { shared.servers[at].is_resolved() } else { shared.servers[at].is_usable(pick.now_ms) };
        let but = |at: usize, avoid: &[u32]| may(at) && !avoid.contains(&(at as u32));
        let last = &pick.tried[pick.tried.len().saturating_sub(1)..];
        let avoid = [pick.tried, last].into_iter().find(|avoid| (0..count).any(|at| but(at, avoid))).unwrap_or_default();
        let candidates = (0..count).filter(|at| but(*at, avoid));
        match (&shared.config.balance, pick.hash) {
            (Balance::LeastConnections, _) => {
                // Compared as exchanges / weight; weights are at most 1000, so unlike shares differ after the division too.
                let load = |at: usize| u64::from(self.in_flight[at].load(Ordering::Relaxed)) * 1_000_000 / u64::from(shared.servers[at].weight.max(1));
                let least = candidates.clone().map(load).min()?;
                self.next_in_turn(shared, candidates.filter(|at| load(*at) == least))
            }
            (Balance::HashAddress | Balance::HashHeader(_), Some(key)) => {
                candidates.max_by(|a, b| score(&shared.servers[*a], key).total_cmp(&score(&shared.servers[*b], key)))
            }
            // Without a key there is nothing to hash: in turn.
            (Balance::RoundRobin | Balance::HashAddress | Balance::HashHeader(_), _) => self.next_in_turn(shared, candidates),
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

    /// An exchange begins on this server: when it has been chosen, not when it has a connection. A server that lets nobody in is not idle.
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

    /// The address of this server to connect to next, and how many may be tried after it; `None` when enough were tried. Each is taken in
    /// turn; those that failed lately come last.
    pub fn next_address(&self, shared: &SharedUpstream, server: usize, tries: &mut Tries, now_ms: u64) -> Option<(Target, usize)> {
        let (turn, server) = (&self.servers[server], &shared.servers[server]);
        // One look for the whole choice: a resolver may be about to change them.
        let targets = server.lock_targets();
        let generation = server.generation();
        if turn.generation.replace(generation) != generation || now_ms.saturating_sub(turn.failed_ms.get()) > ADDRESS_RETRY_MS {
            turn.failed.set(0);
        }
        let count = targets.len().min(ADDRESSES_MAX);
        if tries.made == 0 {
            tries.first = turn.attempts.get();
            turn.attempts.set(tries.first.wrapping_add(1));
        }
        let left = count.min(ADDRESS_TRIES_MAX).checked_sub(tries.made + 1)?;
        let next = |but: u64| (0..count).map(|step| tries.first.wrapping_add(step) % count).find(|at| but & (1 << at) == 0);
        let at = next(tries.tried | turn.failed.get()).or_else(|| next(tries.tried))?;
        tries.tried |= 1 << at;
        (tries.made, tries.last) = (tries.made + 1, at);
        Some((targets.get(at)?.clone(), left))
    }

    /// What became of the last of `tries`: the next connections know of it.
    pub fn address_tried(&self, server: usize, tries: &Tries, connected: bool, now_ms: u64) {
        let turn = &self.servers[server];
        let bit = 1 << tries.last;
        if connected {
            turn.failed.set(turn.failed.get() & !bit);
        } else {
            turn.failed.set(turn.failed.get() | bit);
            turn.failed_ms.set(now_ms);
        }
    }
}

/// Weighted rendezvous hashing over the servers' addresses: when a server goes or comes, only its own keys move, wherever it stands in
/// the configuration; and all gateways agree.
fn score(server: &SharedServer, key: u64) -> f64 {
    let mut mixed = key ^ server.key;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    // Uniform in (0, 1]; 53 bits are what an f64 holds.
    let unit = ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64;
    f64::from(server.weight) / -unit.ln().min(-f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::AtomicBool;

    use super::super::Shared;
    use super::super::tests::{THREE, shared};
    use super::*;
    use crate::config::ServerAddress;
    use crate::hash::fnv1a;

    fn turns(shared: &Shared, group: &Group, count: usize, pick: Pick) -> Vec<usize> {
        (0..count).map(|_| group.pick(shared.nth(0), &pick).unwrap()).collect()
    }

    const NOW: Pick<'_> = Pick { hash: None, tried: &[], now_ms: 1000 };

    fn key(number: u32) -> Pick<'static> {
        Pick { hash: Some(fnv1a(number.to_string().as_bytes())), ..NOW }
    }

    #[test]
    fn round_robin_takes_each_in_turn_and_smoothly_by_weight() {
        let all = shared(THREE);
        let group = Group::new(all.nth(0));
        assert_eq!(turns(&all, &group, 6, NOW), [0, 1, 2, 0, 1, 2]);
        let weighted = shared("servers = [{ address = \"127.0.0.1:1\", weight = 3 }, \"127.0.0.1:2\"]");
        let group = Group::new(weighted.nth(0));
        assert_eq!(turns(&weighted, &group, 4, NOW), [0, 0, 1, 0]);
    }

    #[test]
    fn least_connections_follows_what_is_in_flight() {
        let all = shared(&format!("{THREE}\nbalance = \"least-connections\""));
        let group = Group::new(all.nth(0));
        group.begin(0);
        group.begin(1);
        assert_eq!(turns(&all, &group, 1, NOW), [2]);
        group.begin(2);
        group.begin(2);
        group.end(1);
        assert_eq!(turns(&all, &group, 1, NOW), [1]);
    }

    #[test]
    fn least_connections_takes_equals_in_turn_by_weight() {
        let all = shared(&format!("{THREE}\nbalance = \"least-connections\""));
        let group = Group::new(all.nth(0));
        assert_eq!(turns(&all, &group, 6, NOW), [0, 1, 2, 0, 1, 2]);
        group.begin(1);
        assert_eq!(turns(&all, &group, 4, NOW), [0, 2, 0, 2]);
        let weighted = shared("servers = [{ address = \"127.0.0.1:1\", weight = 3 }, \"127.0.0.1:2\"]\nbalance = \"least-connections\"");
        let group = Group::new(weighted.nth(0));
        assert_eq!(turns(&weighted, &group, 8, NOW).iter().filter(|at| **at == 0).count(), 6, "without load as in turn");
        (0..3).for_each(|_| group.begin(0));
        assert_eq!(turns(&weighted, &group, 2, NOW), [1, 1]);
        group.begin(1);
        assert_eq!(turns(&weighted, &group, 8, NOW).iter().filter(|at| **at == 0).count(), 6, "three and one are the same load");
    }

    #[test]
    fn a_hash_moves_only_the_keys_of_the_server_that_went() {
        let all = shared(&format!("{THREE}\nbalance = \"hash-address\"\npanic_percent = 0\n[upstream.outlier]\nfailures = 1"));
        let group = Group::new(all.nth(0));
        let of = |number| group.pick(all.nth(0), &key(number)).unwrap();
        let before: Vec<_> = (1..300).map(of).collect();
        assert!((0..3).all(|server| before.iter().filter(|s| **s == server).count() > 60));
        all.nth(0).servers[1].failed(all.nth(0).config.outlier, 1000);
        let after: Vec<_> = (1..300).map(of).collect();
        assert!(before.iter().zip(&after).all(|(b, a)| *a != 1 && (*b == 1 || b == a)));
    }

    /// The port of the server that each key goes to, with these servers in the configuration.
    fn ports(servers: &[(u16, u32)]) -> Vec<u16> {
        let servers: Vec<String> = servers.iter().map(|(port, weight)| format!("{{ address = \"127.0.0.1:{port}\", weight = {weight} }}")).collect();
        let all = shared(&format!("servers = [{}]\nbalance = \"hash-header:x-user\"", servers.join(", ")));
        let group = Group::new(all.nth(0));
        let port = |at: usize| match all.nth(0).servers[at].address {
            ServerAddress::Tcp(address) => address.port(),
            _ => 0,
        };
        (0..1000).map(|number| port(group.pick(all.nth(0), &key(number)).unwrap())).collect()
    }

    #[test]
    fn a_hash_follows_the_address_wherever_it_stands_in_the_configuration() {
        let four = ports(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert!((1..=4).all(|port| (200..300).contains(&four.iter().filter(|p| **p == port).count())), "even shares");
        assert_eq!(ports(&[(3, 1), (1, 1), (4, 1), (2, 1)]), four, "another order");
        for gone in 1..=4 {
            let left: Vec<_> = (1..=4).filter(|port| *port != gone).map(|port| (port, 1)).collect();
            let moved: Vec<_> = four.iter().zip(ports(&left)).filter(|(before, after)| *before != after).collect();
            assert!(moved.iter().all(|(before, _)| **before == gone) && moved.len() > 200, "{gone}: {}", moved.len());
        }
        let heavy = ports(&[(1, 3), (2, 1), (3, 1), (4, 1)]);
        assert!((430..570).contains(&heavy.iter().filter(|port| **port == 1).count()), "3 of 6");
        assert!(four.iter().zip(&heavy).all(|(before, after)| before == after || *after == 1), "more weight only draws keys");
    }

    #[test]
    fn what_a_hash_says_is_the_same_for_ever() {
        assert_eq!(ports(&[(1, 1), (2, 1), (3, 1)])[..12], [3, 1, 2, 2, 2, 3, 1, 3, 3, 3, 1, 2], "written down once");
    }

    #[test]
    fn without_a_key_a_hash_takes_each_in_turn() {
        for balance in ["hash-header:x-user", "hash-address"] {
            let all = shared(&format!("{THREE}\nbalance = \"{balance}\""));
            assert_eq!(turns(&all, &Group::new(all.nth(0)), 6, NOW), [0, 1, 2, 0, 1, 2]);
        }
    }

    #[test]
    fn when_too_few_servers_are_left_all_are_used() {
        let all = shared(&format!("{THREE}\npanic_percent = 50"));
        let group = Group::new(all.nth(0));
        for server in &all.nth(0).servers[..2] {
            server.set_healthy(false);
        }
        assert!(turns(&all, &group, 9, NOW).contains(&0));
    }

    #[test]
    fn servers_that_were_tried_are_avoided_while_there_are_others() {
        for balance in ["round-robin", "least-connections", "hash-address"] {
            let all = shared(&format!("{THREE}\nbalance = \"{balance}\"\npanic_percent = 0"));
            let (servers, group) = (&all.nth(0).servers, Group::new(all.nth(0)));
            let get = |tried| (1..40).flat_map(|number| turns(&all, &group, 1, Pick { tried, ..key(number) })).collect::<BTreeSet<_>>();
            assert_eq!(get(&[1]), [0, 2].into(), "{balance}");
            assert_eq!(get(&[2, 1]), [0].into(), "{balance}");
            assert_eq!(get(&[2, 1, 0]), [1, 2].into(), "{balance}: each was tried, so only the last one is avoided");
            servers[0].set_healthy(false);
            assert_eq!(get(&[2, 1]), [2].into(), "{balance}: one that is unhealthy is not another");
            servers[2].set_healthy(false);
            assert_eq!(get(&[2, 1]), [1].into(), "{balance}: the last one is alone");
        }
    }

    #[test]
    fn a_server_without_an_address_gets_nothing() {
        for balance in ["round-robin", "least-connections", "hash-address"] {
            let all = shared(&format!("servers = [\"one.test:1\", \"127.0.0.1:2\", \"two.test:3\"]\nbalance = \"{balance}\"\npanic_percent = 100"));
            let (upstream, group) = (all.nth(0), Group::new(all.nth(0)));
            assert_eq!(turns(&all, &group, 4, key(1)), [1; 4], "{balance}");
            assert_eq!(turns(&all, &group, 4, Pick { tried: &[1], ..key(1) }), [1; 4], "{balance}: there is no other");
            upstream.servers[0].set_targets(vec![Target::Tcp(([127, 0, 0, 1], 1).into())]);
            assert!((0..50).any(|number| group.pick(upstream, &key(number)) == Some(0)), "{balance}");
        }
        let none = shared("servers = [\"one.test:1\", \"two.test:3\"]");
        assert_eq!(Group::new(none.nth(0)).pick(none.nth(0), &NOW), None);
    }

    /// A server with these addresses, by their ports.
    fn named(ports: &[u16]) -> Arc<Shared> {
        let all = shared("servers = [\"one.test:1\"]");
        all.nth(0).servers[0].set_targets(ports.iter().map(|port| Target::Tcp(([127, 0, 0, 1], *port).into())).collect());
        all
    }

    /// Tries the addresses of one connection until one is in `good`; the ports that were tried.
    fn connect(all: &Shared, group: &Group, good: &[u16], now_ms: u64) -> Vec<u16> {
        let (mut tries, mut tried) = (Tries::default(), Vec::new());
        while let Some((Target::Tcp(address), _)) = group.next_address(all.nth(0), 0, &mut tries, now_ms) {
            tried.push(address.port());
            let connected = good.contains(&address.port());
            group.address_tried(0, &tries, connected, now_ms);
            if connected {
                break;
            }
        }
        tried
    }

    #[test]
    fn addresses_are_taken_in_turn_and_those_that_failed_lately_last() {
        let all = named(&[1, 2, 3]);
        let group = Group::new(all.nth(0));
        let first = |good: &[u16], now| connect(&all, &group, good, now);
        assert_eq!((0..3).map(|_| first(&[1, 2, 3], 0)).collect::<Vec<_>>(), [[1], [2], [3]]);
        assert_eq!(first(&[2, 3], 0), [1, 2], "the next address is tried at once");
        let mut counts = BTreeMap::new();
        for _ in 0..9 {
            let tried = first(&[2, 3], 5);
            assert_eq!(tried.len(), 1, "nobody meets the dead address again");
            *counts.entry(tried[0]).or_insert(0) += 1;
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [2, 3], "both that work are used");
        let later = ADDRESS_RETRY_MS + 6;
        let tried: Vec<u16> = (0..3).flat_map(|_| first(&[1, 2, 3], later)).collect();
        assert!(tried.contains(&1), "after a while it is tried again");
        assert_eq!(first(&[], later).len(), 3, "each once");
        assert_eq!(first(&[3], later).last(), Some(&3), "and when all have failed, each is tried all the same");
        assert_eq!(first(&[3], later), [3], "what works is known again");
    }

    #[test]
    fn new_addresses_begin_without_the_old_ones_failures() {
        let all = named(&[1, 2]);
        let group = Group::new(all.nth(0));
        assert_eq!(connect(&all, &group, &[], 0), [1, 2]);
        all.nth(0).servers[0].set_targets(vec![Target::Tcp(([127, 0, 0, 1], 4).into()), Target::Tcp(([127, 0, 0, 1], 5).into())]);
        let firsts: Vec<u16> = (0..2).map(|_| connect(&all, &group, &[4, 5], 0)[0]).collect();
        assert!(firsts.contains(&4) && firsts.contains(&5));
    }

    #[test]
    fn a_server_whose_addresses_change_has_one_at_any_moment() {
        let all = named(&[1]);
        let (server, done) = (&all.nth(0).servers[0], AtomicBool::new(false));
        let ports = |count: u16| (1..=count).map(|port| Target::Tcp(([127, 0, 0, 1], port).into())).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    server.set_targets(ports(64));
                    server.set_targets(ports(1));
                }
            });
            let group = Group::new(all.nth(0));
            while server.generation() < 2 {
                std::thread::yield_now();
            }
            let missed = (0..200_000).filter(|_| group.next_address(all.nth(0), 0, &mut Tries::default(), 0).is_none()).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(missed, 0);
        });
    }

    #[test]
    fn only_so_many_addresses_are_tried_for_one_connection() {
        let ports: Vec<u16> = (1..=100).collect();
        let all = named(&ports);
        let group = Group::new(all.nth(0));
        let mut seen: Vec<u16> = (0..100).flat_map(|_| connect(&all, &group, &[], 0)).collect();
        assert_eq!(seen.len(), 100 * ADDRESS_TRIES_MAX);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), ADDRESSES_MAX);
    }
}
