//! Upstreams: their servers, how one is chosen, and what is known of their health.
//!
//! Part of `resolve`.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

use super::address::{ServerAddress, is_token};
use super::file;
use super::model::{Balance, Health, Outlier, Upstream, UpstreamHost, UpstreamServer};
use super::problem::{Problem, closest};
use super::resolve::{Resolver, at};
use super::tree::Step;
use crate::limits::Limits;

impl Resolver<'_> {
    /// Every upstream, checked.
    pub fn upstreams(&mut self, limits: &Limits) -> Vec<Upstream> {
        let mut upstreams = Vec::new();
        for (index, upstream) in self.file.upstream.iter().enumerate() {
            let section = "upstream";
            let servers = self.servers(index, &upstream.servers);
            let balance = self.take(at![section, index, "balance"], balance(&upstream.balance)).unwrap_or(Balance::RoundRobin);
            let host = match upstream.host.as_str() {
                "keep" => UpstreamHost::Keep,
                "server" => UpstreamHost::Server,
                literal => {
                    self.take(at![section, index, "host"], host_field(literal));
                    UpstreamHost::Literal(literal.to_owned())
                }
            };
            let outlier = &upstream.outlier;
            if outlier.eject > outlier.eject_max {
                self.problem(at![section, index, "outlier", "eject"], Problem::new("`eject` is longer than `eject_max`"));
            }
            upstreams.push(Upstream {
                name: upstream.name.clone(),
                servers,
                balance,
                host,
                retries: upstream.retries,
                idle_connections: upstream.idle_connections.unwrap_or(limits.upstream_idle_connections),
                resolve_ms: upstream.resolve,
                panic_percent: upstream.panic_percent,
                health: upstream.health.as_ref().map(|health| self.health(index, health)),
                outlier: (outlier.failures > 0).then_some(Outlier { failures: outlier.failures, eject_ms: outlier.eject, eject_max_ms: outlier.eject_max }),
            });
        }
        upstreams
    }

    fn servers(&mut self, upstream: usize, servers: &[file::UpstreamServer]) -> Vec<UpstreamServer> {
        let mut resolved: Vec<UpstreamServer> = Vec::new();
        for (index, server) in servers.iter().enumerate() {
            let path = at!["upstream", upstream, "servers", index];
            let (text, weight) = match server {
                file::UpstreamServer::Address(text) => (text, 1),
                file::UpstreamServer::Weighted(server) => (&server.address, server.weight),
            };
            let Some(address) = self.take(path, ServerAddress::parse(text)) else { continue };
            if resolved.iter().any(|other| other.address == address) {
                self.problem(path, Problem::new(format!("the server {address} stands twice in this upstream")).help("give it a `weight` for a larger share"));
            }
            resolved.push(UpstreamServer { address, weight });
        }
        if servers.is_empty() {
            self.problem(at!["upstream", upstream, "servers"], Problem::new("the upstream has no server"));
        }
        resolved
    }

    fn health(&mut self, upstream: usize, health: &file::Health) -> Health {
        let table = ["upstream".into(), upstream.into(), "health".into()];
        let path = |key| [table[0], table[1], table[2], Step::Key(key)];
        if !health.path.starts_with('/') || !health.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.problem(&path("path"), Problem::new(format!("`{}` is no request target", health.path)).help("write a path such as \"/healthz\""));
        }
        if let Some(host) = &health.host {
            self.take(&path("host"), host_field(host));
        }
        if health.timeout > health.interval {
            self.problem(&path("timeout"), Problem::new("`timeout` is longer than `interval`: checks would overlap"));
        }
        let status = self.take(&path("status"), statuses(&health.status)).unwrap_or_default();
        Health {
            kind: health.kind,
            path: health.path.clone(),
            host: health.host.clone(),
            status,
            interval_ms: health.interval,
            timeout_ms: health.timeout,
            rise: health.rise,
            fall: health.fall,
        }
    }
}

fn balance(text: &str) -> Result<Balance, Problem> {
    const KNOWN: [&str; 4] = ["round-robin", "least-connections", "hash-address", "hash-header:NAME"];
    match text {
        "round-robin" => Ok(Balance::RoundRobin),
        "least-connections" => Ok(Balance::LeastConnections),
        "hash-address" => Ok(Balance::HashAddress),
        _ => match text.strip_prefix("hash-header:") {
            Some(name) if is_token(name) => Ok(Balance::HashHeader(name.to_ascii_lowercase())),
            Some(name) => Err(Problem::new(format!("`{name}` is no header name")).help("write \"hash-header:NAME\", such as \"hash-header:x-user\"")),
            None => {
                let problem = Problem::new(format!("`balance` cannot be `{text}`"));
                Err(match closest(text, KNOWN) {
                    Some(close) => problem.suggest(Some(close)),
                    None => problem.help(format!("write one of \"{}\"", KNOWN.join("\", \""))),
                })
            }
        },
    }
}

/// Checks a literal value of `Host`.
fn host_field(text: &str) -> Result<(), Problem> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    if fits { Ok(()) } else { Err(Problem::new(format!("`{text}` cannot be a `Host`")).help("write a host, or \"HOST:PORT\"")) }
}

/// Reads `200-399` or `200,204,300-399`.
fn statuses(text: &str) -> Result<Vec<RangeInclusive<u16>>, Problem> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (100 <= first && first <= last && last <= 599).then_some(first..=last)
    };
    text.split(',')
        .map(|part| range(part).ok_or_else(|| Problem::new(format!("`{part}` is no status or range of statuses")).help("write \"200-399\" or \"200,204\"")))
        .collect()
}
