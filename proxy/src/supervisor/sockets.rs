//! The listening sockets: bound once, kept by the supervisor, handed to each gateway process by number.
//!
//! Invariant: a socket listens from its bind until the supervisor ends, whichever process accepts from it; so connections
//! that arrive while no process does wait in its backlog.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, mem, thread};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::protocol::Inherited;
use crate::admin::server::AdminListener;
use crate::config::{Config, ListenAddress};
use crate::worker::ListenSocket;

/// Everything that the gateway listens on.
pub struct Sockets {
    /// By worker and listener.
    pub workers: Vec<Vec<ListenSocket>>,
    /// Where it listens; with the port that was taken when the configuration said 0.
    pub addresses: Vec<ListenAddress>,
    /// The admin listener.
    pub admin: Option<AdminListener>,
    /// The files of Unix sockets that were bound here; none of inherited ones.
    pub files: Vec<SocketFile>,
}

impl Sockets {
    /// Binds everything for so many workers.
    ///
    /// # Errors
    /// The address that cannot be had, for the operator.
    pub fn bind(config: &Config, workers: usize) -> Result<Sockets, String> {
        let mut files = Vec::new();
        let bound = Sockets::bind_all(config, workers, &mut files);
        if bound.is_err() {
            files.iter().for_each(SocketFile::remove);
        }
        bound.map(|sockets| Sockets { files, ..sockets })
    }

    fn bind_all(config: &Config, workers: usize, files: &mut Vec<SocketFile>) -> Result<Sockets, String> {
        let admin = match &config.server.admin {
            Some(address) => {
                let problem = |error: io::Error| format!("server.admin: cannot listen on {address}: {error}");
                let admin = AdminListener::bind(address).map_err(problem)?;
                if let ListenAddress::Unix(path) = address {
                    files.push(SocketFile::of(path).map_err(problem)?);
                }
                Some(admin)
            }
            None => None,
        };
        let mut sockets: Vec<Vec<ListenSocket>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for listener in config.listeners.iter() {
            let problem = |error: io::Error| format!("listener {}: cannot listen on {}: {error}", listener.name, listener.address);
            match &listener.address {
                ListenAddress::Tcp(address) => {
                    let mut taken = *address;
                    refuse_second(taken).map_err(problem)?;
                    for of_worker in &mut sockets {
                        let socket = bind_tcp(taken, listener.backlog).map_err(problem)?;
                        // Port 0 becomes the port of the first socket for all others.
                        taken = socket.local_addr().map_err(problem)?;
                        of_worker.push(ListenSocket::Tcp(socket));
                    }
                    addresses.push(ListenAddress::Tcp(taken));
                }
                ListenAddress::Unix(path) => {
                    let socket = bind_unix(path, listener.mode).map_err(problem)?;
                    files.push(SocketFile::of(path).map_err(problem)?);
                    for of_worker in &mut sockets {
                        of_worker.push(ListenSocket::Unix(socket.try_clone().map_err(problem)?));
                    }
                    addresses.push(listener.address.clone());
                }
            }
        }
        Ok(Sockets { workers: sockets, addresses, admin, files: Vec::new() })
    }

    /// The numbers under which a process that is started from now on inherits them: the listeners, and the admin listener.
    ///
    /// # Errors
    /// Those of fcntl.
    pub fn inheritable(&self) -> io::Result<(Vec<Inherited>, Option<Inherited>)> {
        let mut listeners = Vec::with_capacity(self.addresses.len());
        for (at, address) in self.addresses.iter().enumerate() {
            let fds: Result<Vec<RawFd>, _> = self.workers.iter().map(|sockets| pass_on(&sockets[at])).collect();
            listeners.push(Inherited { address: address.to_string(), fds: fds? });
        }
        let admin = match &self.admin {
            Some(admin) => Some(Inherited { address: admin.address().to_string(), fds: vec![pass_on(admin)?] }),
            None => None,
        };
        Ok((listeners, admin))
    }

    /// What [`Sockets::inheritable`] of the parent told.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn inherit(listeners: &[Inherited], admin: Option<&Inherited>) -> Result<Sockets, String> {
        let workers = listeners.first().map_or(0, |first| first.fds.len());
        let mut sockets: Vec<Vec<ListenSocket>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let address = listener.address()?;
            if listener.fds.len() != workers {
                return Err(format!("{address}: a socket for each worker was expected"));
            }
            for (of_worker, fd) in sockets.iter_mut().zip(&listener.fds) {
                let socket = take(*fd).map_err(|error| format!("{address}: {error}"))?;
                of_worker.push(match address {
                    ListenAddress::Tcp(_) => ListenSocket::Tcp(socket.into()),
                    ListenAddress::Unix(_) => ListenSocket::Unix(socket.into()),
                });
            }
            addresses.push(address);
        }
        let admin = match admin {
            Some(Inherited { fds, .. }) if fds.len() != 1 => return Err("server.admin: one socket was expected".into()),
            Some(admin) => {
                let address = admin.address()?;
                let socket = take(admin.fds[0]).map_err(|error| format!("server.admin: {error}"))?;
                Some(AdminListener::of_socket(socket, address))
            }
            None => None,
        };
        Ok(Sockets { workers: sockets, addresses, admin, files: Vec::new() })
    }

    /// Removes the files of Unix sockets, which outlive their sockets.
    pub fn remove_files(&self) {
        self.files.iter().for_each(SocketFile::remove);
    }

    /// Listens no more: once the gateway process has closed its own, the kernel refuses whoever comes.
    pub fn close(&mut self) {
        mem::take(&mut self.workers);
    }
}

/// From now on processes that this one starts inherit it, under the number that is returned.
pub(super) fn pass_on(descriptor: &impl AsFd) -> io::Result<RawFd> {
    fcntl_setfd(descriptor, FdFlags::empty())?;
    Ok(descriptor.as_fd().as_raw_fd())
}

/// Takes an inherited descriptor into possession; processes that this one starts do not inherit it.
pub(super) fn take(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::other("no descriptor"));
    }
    // SAFETY: the parent has named it as one that this process inherits for itself; each is taken once. One that is not
    // open is found out by the next call.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    match fcntl_setfd(&owned, FdFlags::CLOEXEC) {
        Ok(()) => Ok(owned),
        Err(error) => {
            // Not ours, then: closing it would end the process.
            mem::forget(owned);
            Err(error.into())
        }
    }
}

/// For so long another process may still be letting go of an address.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(1);

/// Sockets of workers share their address (SO_REUSEPORT), and so could those of another gateway, which would get part of the traffic: a socket
/// that does not share finds out.
fn refuse_second(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    with_patience(|| {
        let probe = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        probe.set_reuse_address(true)?;
        if address.is_ipv6() {
            probe.set_only_v6(true)?;
        }
        probe.bind(&address.into())
    })
}

/// Tries again for a while when another process has the address: it may be letting go of it.
pub(crate) fn with_patience<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + LET_GO_TIMEOUT;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

/// Each worker has its own socket, between which the kernel spreads connections.
fn bind_tcp(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A socket file that nobody listens on any more is replaced; any other file is left alone. `mode`: the permissions of the file; `None`: what
/// the umask leaves.
pub(crate) fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<UnixListener> {
    let socket = with_patience(|| try_bind_unix(path))?;
    // Nobody can connect before it listens: whoever the umask would let in meanwhile.
    mode.map_or(Ok(()), |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)))?;
    socket.listen(BACKLOG_MAX)?;
    Ok(socket.into())
}

/// As many as the system allows.
const BACKLOG_MAX: i32 = -1;

fn try_bind_unix(path: &Path) -> io::Result<Socket> {
    let bind = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        Ok(socket)
    };
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::other("a file that is no socket has this name"));
            }
            if !is_abandoned(path)? {
                return Err(error);
            }
            fs::remove_file(path)?;
            bind()
        }
        result => result,
    }
}

/// Whether nobody listens on the socket of this name. A listener with a full backlog is one.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) => Ok(error.kind() == io::ErrorKind::ConnectionRefused),
        Ok(()) => Ok(false),
    }
}

/// The file of a Unix socket that was bound here.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number: what has the name later may be another one's.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }

    /// Removes the file, if it is still the same.
    pub fn remove(&self) {
        if SocketFile::of(&self.path).is_ok_and(|now| now.identity == self.identity) {
            // Gone already when somebody else removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
