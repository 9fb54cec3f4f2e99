//! Active health checks: a thread per checked server, with plain blocking sockets, off the workers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::{SharedUpstream, Target};
use crate::config::{Health, HealthKind};

/// Bytes of an answer that are read to find its status.
const STATUS_LINE_BYTES: usize = 64;

/// Checks every server of the upstream, when it has checks configured, until the upstream is gone.
pub fn spawn(upstream: &Arc<SharedUpstream>) {
    let Some(health) = &upstream.config.health else { return };
    for server in 0..upstream.servers.len() {
        let (upstream, health) = (Arc::downgrade(upstream), health.clone());
        let spawned = thread::Builder::new().name("health".into()).spawn(move || run(&upstream, server, &health));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for health checks; the server counts as healthy");
        }
    }
}

fn run(upstream: &Weak<SharedUpstream>, server: usize, health: &Health) {
    let (mut good, mut bad) = (0, 0);
    loop {
        let (name, address, targets) = {
            let Some(group) = upstream.upgrade() else { return };
            (group.config.name.clone(), group.servers[server].address.to_string(), group.servers[server].targets())
        };
        let result = targets.first().ok_or_else(|| io::Error::other("not resolved")).and_then(|target| check(target, &address, health));
        let Some(group) = upstream.upgrade() else { return };
        let state = &group.servers[server];
        match result {
            Ok(()) => (good, bad) = (good + 1, 0),
            Err(_) => (good, bad) = (0, bad + 1),
        }
        if good >= health.rise && state.set_healthy(true) {
            tracing::info!(upstream = name, server = address, "server is healthy again");
        }
        if bad >= health.fall && state.set_healthy(false) {
            let error = result.map_or_else(|e| e.to_string(), |()| String::new());
            tracing::warn!(upstream = name, server = address, error, "server is unhealthy: it gets no exchanges");
        }
        drop(group);
        thread::sleep(Duration::from_millis(u64::from(health.interval_ms)));
    }
}

fn check(target: &Target, address: &str, health: &Health) -> io::Result<()> {
    let timeout = Duration::from_millis(u64::from(health.timeout_ms.max(1)));
    match target {
        Target::Tcp(socket) => {
            let stream = TcpStream::connect_timeout(socket, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            ask(stream, address, health, timeout)
        }
        Target::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            ask(stream, "localhost", health, timeout)
        }
    }
}

/// A GET on a connection of its own; only the status line is read.
fn ask(mut stream: impl Read + Write, address: &str, health: &Health, timeout: Duration) -> io::Result<()> {
    if health.kind == HealthKind::Tcp {
        return Ok(());
    }
    let host = health.host.as_deref().unwrap_or(address);
    write!(stream, "GET {} HTTP/1.1\r\nhost: {host}\r\nuser-agent: ringway-health\r\nconnection: close\r\n\r\n", health.path)?;
    let begun = Instant::now();
    let mut line = Vec::with_capacity(STATUS_LINE_BYTES);
    while line.len() < b"HTTP/1.1 200".len() {
        let mut piece = [0; STATUS_LINE_BYTES];
        let count = stream.read(&mut piece)?;
        if count == 0 || begun.elapsed() > timeout {
            return Err(io::Error::other("no status line"));
        }
        line.extend_from_slice(&piece[..count]);
    }
    let status = line.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse::<u16>().ok());
    match status {
        Some(status) if line.starts_with(b"HTTP/1.") && health.status.iter().any(|range| range.contains(&status)) => Ok(()),
        Some(status) => Err(io::Error::other(format!("status {status}"))),
        None => Err(io::Error::other("not HTTP/1")),
    }
}
