//! Active health checks: a thread per checked server, with plain blocking sockets, off the workers.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{SharedUpstream, Target, watched};
use crate::config::{Health, HealthKind};

/// Bytes of an answer that are read to find its status.
const STATUS_LINE_BYTES: usize = 64;

/// Checks every server of the upstream, when it has checks configured, until the upstream has left the configuration.
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
    let mut answered = None;
    loop {
        let (name, address, targets) = {
            let Some(group) = watched(upstream) else { return };
            (group.config.name.clone(), group.servers[server].address.to_string(), group.servers[server].targets())
        };
        let result = check_any(&targets, &mut answered, &address, health);
        let Some(group) = watched(upstream) else { return };
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

/// A server is healthy when one of its addresses answers; the one that `answered` last is asked first.
fn check_any(targets: &[Target], answered: &mut Option<Target>, address: &str, health: &Health) -> io::Result<()> {
    let mut result = Err(io::Error::other("not resolved"));
    let first = targets.iter().filter(|target| answered.as_ref() == Some(target));
    let others = targets.iter().filter(|target| answered.as_ref() != Some(target));
    for target in first.chain(others) {
        result = check(target, address, health);
        if result.is_ok() {
            *answered = Some(target.clone());
            break;
        }
    }
    result
}

fn check(target: &Target, address: &str, health: &Health) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(u64::from(health.timeout_ms));
    match target {
        Target::Tcp(socket) => {
            let stream = Socket::new(Domain::for_address(*socket), Type::STREAM, None)?;
            stream.connect_timeout(&SockAddr::from(*socket), left(deadline)?)?;
            ask(&stream, address, health, deadline)
        }
        Target::Unix(path) => ask(&connect_unix(path)?, "localhost", health, deadline),
    }
}

/// What is left for the check of this address: connecting, writing and reading share one time.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Connects without waiting: a server whose backlog is full (EAGAIN) takes nobody, and a blocking connect would wait for it for ever.
fn connect_unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// `None`: a signal came between, so once more.
fn interrupted(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        result => result.map(Some),
    }
}

/// A GET on a connection of its own; only the status line is read.
fn ask(mut stream: &Socket, address: &str, health: &Health, deadline: Instant) -> io::Result<()> {
    if health.kind == HealthKind::Tcp {
        return Ok(());
    }
    let host = health.host.as_deref().unwrap_or(address);
    let request = format!("GET {} HTTP/1.1\r\nhost: {host}\r\nuser-agent: ringway-health\r\nconnection: close\r\n\r\n", health.path);
    let mut rest = request.as_bytes();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        let count = interrupted(stream.write(rest))?;
        rest = &rest[count.unwrap_or(0)..];
    }
    let mut line = Vec::with_capacity(STATUS_LINE_BYTES);
    while line.len() < b"HTTP/1.1 200".len() {
        let mut piece = [0; STATUS_LINE_BYTES];
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = match interrupted(stream.read(&mut piece))? {
            Some(0) => return Err(io::Error::other("no status line")),
            count => count.unwrap_or(0),
        };
        line.extend_from_slice(&piece[..count]);
    }
    let status = line.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse::<u16>().ok());
    match status {
        Some(status) if line.starts_with(b"HTTP/1.") && health.status.iter().any(|range| range.contains(&status)) => Ok(()),
        Some(status) => Err(io::Error::other(format!("status {status}"))),
        None => Err(io::Error::other("not HTTP/1")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::super::tests::shared;
    use super::*;

    fn connects() -> Health {
        let all = shared("servers = [\"127.0.0.1:1\"]\n[upstream.health]\nkind = \"tcp\"\ninterval = \"2s\"\ntimeout = \"2s\"");
        all.nth(0).config.health.clone().expect("checks are configured")
    }

    fn unused() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
    }

    #[test]
    fn a_server_is_healthy_when_one_of_its_addresses_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let alive = Target::Tcp(listener.local_addr().expect("it is bound"));
        let (health, dead) = (connects(), Target::Tcp(unused()));
        let mut answered = None;
        assert!(check_any(&[dead.clone(), alive.clone()], &mut answered, "name", &health).is_ok());
        assert_eq!(answered, Some(alive.clone()), "it is asked first from now on");
        assert!(check_any(&[dead.clone(), alive], &mut answered, "name", &health).is_ok());
        assert!(check_any(&[dead], &mut answered, "name", &health).is_err());
        assert!(check_any(&[], &mut answered, "name", &health).is_err());
    }

    #[test]
    fn connecting_writing_and_reading_share_one_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let health = Health { kind: HealthKind::Http, ..connects() };
        let asked = |deadline: Instant| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.connect(&listener.local_addr().expect("it is bound").into()).expect("it listens");
            let mut server = listener.accept().expect("it is connected").0;
            server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("there is room");
            ask(&socket, "name", &health, deadline).map_err(|error| error.kind())
        };
        assert_eq!(asked(Instant::now() + Duration::from_secs(60)), Ok(()));
        assert_eq!(asked(Instant::now()), Err(io::ErrorKind::TimedOut), "connecting has used it up, so not even what is there already is read");
    }

    #[test]
    fn a_unix_server_with_a_full_backlog_fails_its_check_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("full.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        listener.bind(&SockAddr::unix(&path).expect("a short path")).expect("a new path");
        listener.listen(0).expect("it is bound");
        assert!(check(&Target::Unix(path.clone()), "name", &connects()).is_ok());
        // As many as the backlog holds, and a few that it does not.
        let waiting: Vec<_> = (0..4).filter_map(|_| connect_unix(&path).ok()).collect();
        assert!(waiting.len() < 4);
        let error = check(&Target::Unix(path), "name", &connects()).expect_err("nobody is let in");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
