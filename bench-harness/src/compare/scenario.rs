//! The scenarios: what is asked for, over how many connections, and who takes part.
#![forbid(unsafe_code)]

/// The plugins that ringway runs in a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// None.
    None,
    /// 1: looks up a header (C). 4: C, Rust and Zig; one sets a request header, one a response header.
    /// 16: each looks up a header.
    Headers(u32),
    /// One that is shown every chunk of the body.
    Chunk,
    /// One that answers instead of the origin.
    Respond,
}

impl Chain {
    /// How many plugins that is.
    pub fn plugins(self) -> u32 {
        match self {
            Chain::None => 0,
            Chain::Headers(count) => count,
            Chain::Chunk | Chain::Respond => 1,
        }
    }
}

/// One that takes part in a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contestant {
    /// Its name in results.
    pub peer: &'static str,
    /// Its plugins (ringway only).
    pub chain: Chain,
    /// Its workers.
    pub workers: usize,
}

/// How requests are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each connection sends when it has its answer.
    Closed,
    /// A fixed rate: half of what nginx reached in a closed loop just before.
    HalfOfNginx,
}

/// One scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name in results and for `--scenario`.
    pub name: &'static str,
    /// What it shows.
    pub shows: &'static str,
    /// The path that is asked for.
    pub path: &'static str,
    /// The body length of every answer.
    pub body_bytes: u64,
    /// Connections.
    pub connections: usize,
    /// How requests are paced.
    pub pace: Pace,
    /// Whether proxies answer themselves instead of asking the origin.
    pub short_circuit: bool,
    /// Whether it is part of `--quick`.
    pub quick: bool,
    /// Who takes part.
    pub contestants: Vec<Contestant>,
}

impl Scenario {
    /// The name under which a contestant's row is stored: rows with several workers name their number.
    pub fn row_name(&self, workers: usize) -> String {
        if self.contestants.iter().any(|contestant| contestant.workers != 1) { format!("{}-{workers}", self.name) } else { self.name.to_owned() }
    }
}

/// Every proxy without plugins, one worker each.
const PLAIN: [&str; 7] = ["nginx", "haproxy-http", "haproxy-tcp", "envoy", "pingora", "relay", "ringway"];

fn plain() -> Vec<Contestant> {
    PLAIN.iter().map(|peer| Contestant { peer, chain: Chain::None, workers: 1 }).collect()
}

fn plain_and(more: &[(&'static str, Chain)]) -> Vec<Contestant> {
    let more = more.iter().map(|&(peer, chain)| Contestant { peer, chain, workers: 1 });
    plain().into_iter().chain(more).collect()
}

/// All scenarios, in the order in which they run.
pub fn all() -> Vec<Scenario> {
    let chains = [("ringway", Chain::Headers(1)), ("ringway", Chain::Headers(4)), ("ringway", Chain::Headers(16)), ("envoy-lua", Chain::None)];
    let large = [("nginx-256k", Chain::None), ("haproxy-splice", Chain::None), ("ringway-chunk", Chain::Chunk)];
    let base = Scenario {
        name: "",
        shows: "",
        path: "/0",
        body_bytes: 0,
        connections: 64,
        pace: Pace::Closed,
        short_circuit: false,
        quick: false,
        contestants: plain(),
    };
    let short: [(&'static str, Chain); 4] =
        [("nginx", Chain::None), ("haproxy-http", Chain::None), ("envoy", Chain::None), ("ringway-respond", Chain::Respond)];
    let pair_of_workers = |peer| [1, 2].map(|workers| Contestant { peer, chain: Chain::None, workers });
    vec![
        Scenario {
            name: "0b-c64",
            shows: "the cost of a small exchange, without and with plugins",
            quick: true,
            contestants: plain_and(&chains),
            ..base.clone()
        },
        Scenario { name: "1k-c64", shows: "the same with a body of 1 KiB", path: "/1k", body_bytes: 1 << 10, contestants: plain_and(&chains), ..base.clone() },
        Scenario {
            name: "0b-c512",
            shows: "many connections",
            connections: 512,
            quick: true,
            contestants: plain_and(&[("ringway", Chain::Headers(4))]),
            ..base.clone()
        },
        Scenario { name: "0b-c16", shows: "few connections", connections: 16, ..base.clone() },
        Scenario {
            name: "0b-c1",
            shows: "the latency that a proxy adds to one connection",
            connections: 1,
            quick: true,
            contestants: plain_and(&[("direct", Chain::None), ("ringway", Chain::Headers(4))]),
            ..base.clone()
        },
        Scenario {
            name: "64k-c64",
            shows: "bodies of 64 KiB",
            path: "/64k",
            body_bytes: 64 << 10,
            quick: true,
            contestants: plain_and(&large),
            ..base.clone()
        },
        Scenario {
            name: "1m-c16",
            shows: "bodies of 1 MiB",
            path: "/1m",
            body_bytes: 1 << 20,
            connections: 16,
            quick: true,
            contestants: plain_and(&large),
            ..base.clone()
        },
        Scenario {
            name: "short-1k-c64",
            shows: "the proxy answers itself with 1 KiB",
            path: "/short",
            body_bytes: 1 << 10,
            short_circuit: true,
            contestants: short.map(|(peer, chain)| Contestant { peer, chain, workers: 1 }).to_vec(),
            ..base.clone()
        },
        Scenario {
            name: "open-0b-c64",
            shows: "latency at a fixed rate, half of what nginx can do",
            pace: Pace::HalfOfNginx,
            contestants: plain_and(&[("direct", Chain::None), ("ringway", Chain::Headers(4))]),
            ..base.clone()
        },
        Scenario {
            name: "workers-0b-c64",
            shows: "two workers against one: the cost of a request must not grow",
            contestants: ["nginx", "haproxy-http", "relay", "ringway"].into_iter().flat_map(pair_of_workers).collect(),
            ..base
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_nginx_is_in_each() {
        let scenarios = all();
        let mut names: Vec<_> = scenarios.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), scenarios.len());
        for scenario in &scenarios {
            assert!(scenario.contestants.iter().any(|contestant| contestant.peer == "nginx"), "{}", scenario.name);
        }
    }

    #[test]
    fn rows_of_a_scenario_are_told_apart_by_name_peer_and_plugins() {
        for scenario in all() {
            let mut rows: Vec<_> =
                scenario.contestants.iter().map(|contestant| (scenario.row_name(contestant.workers), contestant.peer, contestant.chain.plugins())).collect();
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len(), scenario.contestants.len(), "{}", scenario.name);
        }
    }
}
