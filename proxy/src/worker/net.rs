//! Sockets on the runtime: the halves that exchanges read and write, connecting, and the checks before a pooled
//! connection is used again.
//!
//! The runtime's name appears here, in `worker` and in the buffer traits of `view::slab`, nowhere else.

use std::cell::{RefCell, UnsafeCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, Canceller};
use monoio::net::{TcpStream, UnixStream};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::exchange::io::{Reader, Writer, parked};
use crate::upstream::Target;
use crate::view::slab::Buf;

/// A connected stream socket.
pub enum Stream {
    /// TCP over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

/// A stream that is read and written at the same time by one thread.
#[derive(Clone)]
pub struct Shared(Rc<UnsafeCell<Stream>>);

impl Shared {
    /// Takes the stream.
    pub fn new(stream: Stream) -> Shared {
        Shared(Rc::new(UnsafeCell::new(stream)))
    }

    #[allow(clippy::mut_from_ref, reason = "the runtime's methods take `&mut` but only clone the descriptor; see SAFETY")]
    fn get(&self) -> &mut Stream {
        // SAFETY: one thread; the runtime's read and write only clone the shared descriptor before they first wait (they
        // declare their sockets `Split` for this use), and no reference is kept by this module.
        unsafe { &mut *self.0.get() }
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        match self.get() {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Waits until there is something to read, or the end. Takes no memory for bytes.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn readable(&self) -> io::Result<()> {
        match self.get() {
            Stream::Tcp(stream) => stream.readable(false).await,
            Stream::Unix(stream) => stream.readable(false).await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self.get() {
            Stream::Tcp(stream) => stream.writable(false).await,
            Stream::Unix(stream) => stream.writable(false).await,
        }
    }

    /// The two halves.
    pub fn halves(&self) -> (ReadHalf, WriteHalf) {
        (ReadHalf { stream: self.clone(), park: None }, WriteHalf { stream: self.clone() })
    }
}

/// Calls a waiting read back. Held by the connection and by the sweep.
#[derive(Default)]
pub struct Park {
    canceller: RefCell<Option<Canceller>>,
}

impl Park {
    /// Calls the read back that waits now, if any.
    pub fn call_back(&self) {
        if let Some(canceller) = self.canceller.borrow_mut().take() {
            canceller.cancel();
        }
    }
}

/// The receiving half.
pub struct ReadHalf {
    stream: Shared,
    park: Option<Rc<Park>>,
}

impl ReadHalf {
    /// The same half, whose idle reads can be called back.
    pub fn with_park(mut self, park: Rc<Park>) -> ReadHalf {
        self.park = Some(park);
        self
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.stream.fd()
    }
}

impl Reader for ReadHalf {
    #[inline]
    async fn read(&mut self, buf: Buf) -> (io::Result<usize>, Buf) {
        match self.stream.get() {
            Stream::Tcp(stream) => stream.read(buf).await,
            Stream::Unix(stream) => stream.read(buf).await,
        }
    }

    async fn read_idle(&mut self, buf: Buf) -> (io::Result<usize>, Buf) {
        let Some(park) = self.park.clone() else { return self.read(buf).await };
        let handle = park.canceller.borrow_mut().get_or_insert_with(Canceller::new).handle();
        let (result, buf) = match self.stream.get() {
            Stream::Tcp(stream) => stream.cancelable_read(buf, handle).await,
            Stream::Unix(stream) => stream.cancelable_read(buf, handle).await,
        };
        // A read that was called back and yet brought bytes is a read.
        (result.map_err(|error| if error.raw_os_error() == Some(libc::ECANCELED) { parked() } else { error }), buf)
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.stream.fd())
    }

    async fn readable(&mut self) -> io::Result<()> {
        self.stream.readable().await
    }
}

/// The sending half.
pub struct WriteHalf {
    stream: Shared,
}

impl Writer for WriteHalf {
    #[inline]
    async fn write(&mut self, buf: Buf) -> (io::Result<usize>, Buf) {
        match self.stream.get() {
            Stream::Tcp(stream) => stream.write(buf).await,
            Stream::Unix(stream) => stream.write(buf).await,
        }
    }

    fn finish(&mut self) {
        shut_down(self.stream.fd(), libc::SHUT_WR);
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.stream.fd())
    }

    async fn writable(&mut self) -> io::Result<()> {
        self.stream.writable().await
    }
}

/// `shutdown(2)`; errors mean that the connection is gone already.
pub fn shut_down(fd: RawFd, how: i32) {
    if fd >= 0 {
        // SAFETY: a system call on a descriptor that the caller keeps open; it touches no memory of ours.
        unsafe { libc::shutdown(fd, how) };
    }
}

/// Ends a TCP connection with a reset now; whether it could be. What waits for it fails.
pub fn reset(fd: RawFd) -> bool {
    let address = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: `address` is readable for its size; the descriptor is one that the caller keeps open, or -1.
    unsafe { libc::connect(fd, &address, size_of::<libc::sockaddr>() as libc::socklen_t) == 0 }
}

/// Closing will send a reset, so that the peer sees that the message was cut off.
pub fn abort_on_close(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
}

/// Small writes leave at once.
pub fn no_delay(fd: RawFd) {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32);
}

/// Programs that the process starts do not inherit the descriptor. Stock accepts do not set this.
pub fn close_on_exec(fd: RawFd) {
    // SAFETY: a system call on an open descriptor; it touches no memory of ours.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

fn set_option<T>(fd: RawFd, level: i32, name: i32, value: &T) {
    // SAFETY: `value` is readable for its size; the kernel copies it.
    unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t) };
}

/// Whether the client at the other end has gone: it has reset the connection, or closed it. One that has only shut down its
/// sending side looks the same on TCP; `half_closed`: it counts as gone too. Bytes that wait to be read stay there.
pub fn is_gone(fd: RawFd, half_closed: bool) -> bool {
    let mut poll = libc::pollfd { fd, events: if half_closed { libc::POLLRDHUP } else { 0 }, revents: 0 };
    // SAFETY: `poll` is one entry, writable; a timeout of 0 never waits.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLNVAL == 0
}

/// Reads what has arrived and throws it away, without waiting, up to `DISCARD_BYTES_MAX`. Returns how much it was; 0 at the end of the stream.
///
/// # Errors
/// Those of the socket; `WouldBlock` when nothing has arrived.
pub fn discard(fd: RawFd) -> io::Result<usize> {
    let mut bytes = [0u8; 16 * 1024];
    let mut total = 0;
    while total < DISCARD_BYTES_MAX {
        // SAFETY: room for as many bytes as are asked for; MSG_DONTWAIT never waits.
        let got = unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
        match usize::try_from(got) {
            Ok(0) => break,
            Ok(count) => total += count,
            Err(_) if total > 0 => break,
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(total)
}

/// What one look reads of a client that is not listened to any more: others wait meanwhile.
const DISCARD_BYTES_MAX: usize = 64 * 1024;

/// Whether an idle connection is still open and silent. Bytes that nobody asked for, or an end, make it unusable
/// (RFC 9112 §9.2; HTTP1.md rule 66).
pub fn is_quiet(fd: RawFd) -> bool {
    peek(fd).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether bytes wait to be read; false at the end of the stream. On an upstream connection that has carried no request they answer nothing
/// (RFC 9112 §9.2).
///
/// # Errors
/// Those of the socket; `WouldBlock` when nothing has arrived.
pub fn has_bytes(fd: RawFd) -> io::Result<bool> {
    peek(fd).map(|count| count > 0)
}

/// How many bytes one look finds, at most one; 0 at the end of the stream.
fn peek(fd: RawFd) -> io::Result<usize> {
    let mut byte = 0u8;
    // SAFETY: room for one byte; MSG_PEEK takes nothing and MSG_DONTWAIT never waits.
    let got = unsafe { libc::recv(fd, std::ptr::from_mut(&mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Begins a connection. The descriptor exists from here on, so that a deadline can end the attempt; then
/// [`connected`] waits for it.
///
/// # Errors
/// When the kernel refuses at once.
pub fn begin_connect(target: &Target) -> io::Result<Shared> {
    let (domain, address) = match target {
        Target::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Target::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    match socket.connect(&address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let stream = match target {
        Target::Tcp(_) => {
            socket.set_tcp_nodelay(true)?;
            Stream::Tcp(TcpStream::from_std(socket.into())?)
        }
        Target::Unix(_) => {
            // SAFETY: the descriptor was just taken out of its owner.
            let unix = unsafe { std::os::unix::net::UnixStream::from_raw_fd(socket.into_raw_fd()) };
            Stream::Unix(UnixStream::from_std(unix)?)
        }
    };
    Ok(Shared::new(stream))
}

/// Waits until the connection is made. `ring`: the runtime drives io_uring, which wants blocking descriptors (a
/// non-blocking one makes the kernel answer EAGAIN instead of waiting).
///
/// # Errors
/// Why the connection was not made.
pub async fn connected(stream: &Shared, ring: bool) -> io::Result<()> {
    stream.writable().await?;
    let fd = stream.fd();
    let mut error: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: room for the option and for its length.
    let asked = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, std::ptr::from_mut(&mut error).cast(), &mut len) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    if ring {
        set_blocking(fd)?;
    }
    Ok(())
}

/// Clears O_NONBLOCK.
///
/// # Errors
/// Those of fcntl.
pub fn set_blocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: system calls on an open descriptor; they touch no memory of ours.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn silence_bytes_and_an_end_are_told_apart() {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        let look = || (is_quiet(ours.as_raw_fd()), has_bytes(ours.as_raw_fd()).is_ok_and(|has| has));
        assert_eq!(look(), (true, false));
        theirs.write_all(b"HTTP/1.1 200 OK").expect("there is room");
        assert_eq!((look(), look()), ((false, true), (false, true)), "looking takes nothing");
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        drop(theirs);
        assert_eq!((is_quiet(ours.as_raw_fd()), has_bytes(ours.as_raw_fd()).is_ok_and(|has| has)), (false, false));
    }
}
