//! Host names of servers, resolved on a thread of their own: the system's resolver blocks.

use std::net::ToSocketAddrs;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::{Shared, SharedServer, Target};
use crate::config::ServerAddress;

/// How often a name that could not be resolved is tried again, in milliseconds.
const RETRY_MS: u32 = 1000;

/// Resolves every name once, on this thread: at start, so that the first requests find their servers. Names that fail
/// are logged and tried again by [`spawn`].
pub fn resolve_all(shared: &Shared) {
    for upstream in &shared.upstreams {
        for server in &upstream.servers {
            resolve(&upstream.config.name, server);
        }
    }
}

/// Keeps resolving until `shared` is gone. A thread per upstream that has names.
pub fn spawn(shared: &Arc<Shared>) {
    for (index, upstream) in shared.upstreams.iter().enumerate() {
        let named = upstream.servers.iter().any(|s| matches!(s.address, ServerAddress::Name(..)));
        if !named {
            continue;
        }
        let shared = Arc::downgrade(shared);
        let spawned = thread::Builder::new().name(format!("resolve-{index}")).spawn(move || run(&shared, index));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for resolving names; addresses stay as they are");
        }
    }
}

fn run(shared: &Weak<Shared>, index: usize) {
    loop {
        let wait_ms = {
            let Some(shared) = shared.upgrade() else { return };
            let upstream = &shared.upstreams[index];
            let missing = upstream.servers.iter().any(|s| s.targets().is_empty());
            match (missing, upstream.config.resolve_ms) {
                (true, _) => RETRY_MS,
                (false, 0) => return,
                (false, ms) => ms,
            }
        };
        thread::sleep(Duration::from_millis(u64::from(wait_ms)));
        let Some(shared) = shared.upgrade() else { return };
        let upstream = &shared.upstreams[index];
        for server in &upstream.servers {
            resolve(&upstream.config.name, server);
        }
    }
}

/// One look-up. A failure keeps the addresses that are known.
fn resolve(upstream: &str, server: &SharedServer) {
    let ServerAddress::Name(name, port) = &server.address else { return };
    match (name.as_str(), *port).to_socket_addrs() {
        Ok(found) => {
            let mut targets: Vec<Target> = found.map(Target::Tcp).collect();
            // Resolvers rotate their answers; an order of our own makes a change a change.
            targets.sort_by_key(|target| match target {
                Target::Tcp(address) => (address.is_ipv6(), address.to_string()),
                Target::Unix(path) => (false, path.display().to_string()),
            });
            targets.dedup();
            if server.set_targets(targets) {
                tracing::info!(upstream, name, addresses = server.targets().len(), "server resolved");
            }
        }
        Err(error) => tracing::warn!(upstream, name, %error, "server name was not resolved; known addresses stay in use"),
    }
}
