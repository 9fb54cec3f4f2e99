//! A bare relay: epoll, one thread, no parsing. The floor that a proxy on sockets can be compared with.
//!
//! Every accepted connection gets its own connection to the origin; bytes are copied through one buffer of the thread.
//! Invariant: a direction reads only while nothing of it waits to be written, so its backlog never exceeds one buffer.

use crate::net::check;
use anyhow::{Context, Result};
use clap::Args;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Options of `ringway-bench relay`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, short, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where every connection goes.
    #[arg(long, short, default_value = "127.0.0.1:9000")]
    to: SocketAddr,
    /// Size of the copy buffer in KiB: 16 for small messages, 256 for large bodies.
    #[arg(long, default_value_t = 16)]
    buffer_kib: usize,
    /// Workers, each with its own listening socket.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Pin the workers to these cores, in order, separated by commas.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
}

/// Relays until killed. The first line on standard output says where it listens.
pub fn run(args: &RelayArgs) -> Result<()> {
    crate::machine::raise_file_limit();
    let first = crate::net::listen(args.listen)?;
    let address = first.local_addr().context("reading the listening address")?;
    let mut listeners = vec![first];
    for _ in 1..args.workers.max(1) {
        listeners.push(crate::net::listen(address)?);
    }
    println!("relay listening on {address}");
    io::stdout().flush().context("writing to standard output")?;
    let (to, buffer_bytes) = (args.to, args.buffer_kib.clamp(1, 4096) << 10);
    let cores = args.cores.iter().map(|core| Some(*core)).chain(std::iter::repeat(None));
    let workers: Vec<_> = listeners
        .into_iter()
        .zip(cores)
        .map(|(listener, core)| {
            std::thread::spawn(move || {
                core.map_or(Ok(()), crate::machine::pin_thread)?;
                Relay::new(listener, to, buffer_bytes)?.run()
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("a worker of the relay panicked"))??;
    }
    Ok(())
}

/// One way through a pair: what was read from one side and could not be written to the other yet.
#[derive(Default)]
struct Direction {
    /// `backlog[from..to]` waits to be written; the whole buffer was taken from the thread, so nothing is copied.
    backlog: Vec<u8>,
    from: usize,
    to: usize,
    /// The source will send no more: read on until its end, because no further edge will come.
    last_edge: bool,
    ended: bool,
}

impl Direction {
    fn waits(&self) -> bool {
        self.from < self.to
    }
}

/// Two connected sockets; index 0 is downstream, 1 is upstream. `ways[0]` goes from downstream to upstream.
struct Pair {
    sockets: [TcpStream; 2],
    ways: [Direction; 2],
}

struct Relay {
    listener: TcpListener,
    to: SocketAddr,
    epoll: OwnedFd,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    /// Slots of pairs that ended in this turn: reusable only when no event of the turn can name them any more.
    ended: Vec<usize>,
    buffers: Buffers,
}

/// The buffer that everything is copied through, and spare ones for when a direction keeps it.
struct Buffers {
    current: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 512;

impl Relay {
    fn new(listener: TcpListener, to: SocketAddr, buffer_bytes: usize) -> Result<Self> {
        listener.set_nonblocking(true).context("making the listener non-blocking")?;
        // SAFETY: epoll_create1(2) takes one number.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).context("creating an epoll set")?;
        // SAFETY: `fd` was just returned as a new descriptor that nothing else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let relay = Self { listener, to, epoll, pairs: vec![], free: vec![], ended: vec![], buffers: Buffers::new(buffer_bytes) };
        relay.watch(relay.listener.as_raw_fd(), libc::EPOLLIN as u32, LISTENER).context("watching the listener")?;
        Ok(relay)
    }

    fn run(mut self) -> Result<()> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        loop {
            // SAFETY: `events` is valid for writes of EVENTS_MAX events.
            let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS_MAX as i32, -1) };
            let count = match check(count) {
                Ok(count) => count as usize,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("waiting for events"),
            };
            for event in &events[..count] {
                match event.u64 {
                    LISTENER => self.accept_all(),
                    token => self.handle_ready(token, event.events),
                }
            }
            self.free.append(&mut self.ended);
        }
    }

    fn watch(&self, fd: i32, events: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` is valid for reads; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    fn accept_all(&mut self) {
        while let Ok((downstream, _)) = self.listener.accept() {
            // A pair that can't be made closes the accepted connection, which its client sees.
            let _ = self.add_pair(downstream);
        }
    }

    fn add_pair(&mut self, downstream: TcpStream) -> io::Result<()> {
        let upstream = TcpStream::connect(self.to)?;
        for socket in [&downstream, &upstream] {
            socket.set_nonblocking(true)?;
            crate::net::no_delay(socket)?;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let edges = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
        for (side, socket) in [&downstream, &upstream].into_iter().enumerate() {
            if let Err(error) = self.watch(socket.as_raw_fd(), edges, (slot as u64) << 1 | side as u64) {
                self.free.push(slot);
                return Err(error);
            }
        }
        self.pairs[slot] = Some(Pair { sockets: [downstream, upstream], ways: Default::default() });
        Ok(())
    }

    fn handle_ready(&mut self, token: u64, events: u32) {
        let (slot, side) = ((token >> 1) as usize, (token & 1) as usize);
        let Some(pair) = self.pairs[slot].as_mut() else {
            return;
        };
        let has = |flags: i32| events & flags as u32 != 0;
        let mut outcome = Ok(());
        if has(libc::EPOLLOUT) && pair.ways[1 - side].waits() {
            outcome = pair.copy(1 - side, &mut self.buffers);
        }
        let last_edge = has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR);
        pair.ways[side].last_edge |= last_edge;
        if outcome.is_ok() && (last_edge || has(libc::EPOLLIN)) {
            outcome = pair.copy(side, &mut self.buffers);
        }
        if outcome.is_err() || (pair.ways[0].ended && pair.ways[1].ended) {
            self.pairs[slot] = None;
            self.ended.push(slot);
        }
    }
}

impl Pair {
    /// Copies from side `side` to the other until the source is empty or the target is full.
    fn copy(&mut self, side: usize, buffers: &mut Buffers) -> io::Result<()> {
        let way = &mut self.ways[side];
        let (mut source, mut target) = (&self.sockets[side], &self.sockets[1 - side]);
        while way.waits() {
            match target.write(&way.backlog[way.from..way.to]) {
                Ok(written) => way.from += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if !way.backlog.is_empty() {
            buffers.spare.push(mem::take(&mut way.backlog));
        }
        while !way.ended {
            let read = match source.read(&mut buffers.current) {
                Ok(0) => {
                    way.ended = true;
                    return target.shutdown(std::net::Shutdown::Write);
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut written = 0;
            while written < read {
                match target.write(&buffers.current[written..read]) {
                    Ok(count) => written += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        way.backlog = buffers.give_away();
                        (way.from, way.to) = (written, read);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
            // A short read on a stream means that the socket is empty; the next byte raises a new edge (epoll(7), Q9).
            if read < buffers.current.len() && !way.last_edge {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Buffers {
    fn new(bytes: usize) -> Self {
        Self { current: vec![0; bytes], spare: Vec::new() }
    }

    /// Gives the current buffer to a direction and takes a spare or new one of the same size.
    fn give_away(&mut self) -> Vec<u8> {
        let next = self.spare.pop().unwrap_or_else(|| vec![0; self.current.len()]);
        mem::replace(&mut self.current, next)
    }
}
