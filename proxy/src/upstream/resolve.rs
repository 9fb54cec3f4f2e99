//! Host names of servers, resolved on a thread of their own: the system's resolver blocks.

use std::net::ToSocketAddrs;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::{SharedServer, SharedUpstream, Target, watched};
use crate::config::ServerAddress;

/// How often a name that could not be resolved is tried again, in milliseconds.
const RETRY_MS: u32 = 1000;

/// Resolves every name once, on this thread: before the upstream is used, so that the first requests find its servers.
/// Names that fail are logged and tried again by [`spawn`].
pub fn resolve_all(upstream: &SharedUpstream) {
    for server in &upstream.servers {
        resolve(&upstream.config.name, server);
    }
}

/// Keeps resolving on a thread, when the upstream has names, until the upstream has left the configuration.
pub fn spawn(upstream: &Arc<SharedUpstream>) {
    if !upstream.servers.iter().any(|s| matches!(s.address, ServerAddress::Name(..))) {
        return;
    }
    let upstream = Arc::downgrade(upstream);
    let spawned = thread::Builder::new().name("resolve".into()).spawn(move || run(&upstream));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for resolving names; addresses stay as they are");
    }
}

fn run(upstream: &Weak<SharedUpstream>) {
    loop {
        let wait_ms = {
            let Some(upstream) = watched(upstream) else { return };
            let missing = upstream.servers.iter().any(|s| s.targets().is_empty());
            match (missing, upstream.config.resolve_ms) {
                (true, _) => RETRY_MS,
                (false, 0) => return,
                (false, ms) => ms,
            }
        };
        thread::sleep(Duration::from_millis(u64::from(wait_ms)));
        let Some(upstream) = watched(upstream) else { return };
        resolve_all(&upstream);
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
