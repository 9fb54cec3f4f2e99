//! Large bodies that nobody looks at: moved from socket to socket through a pipe, without a copy to user space.
//!
//! `splice(2)` is called directly when a socket is ready; the io_uring operation of that name runs on kernel threads and lost
//! in every measurement. Both sockets are made non-blocking for the time, because splicing takes its manners from the file:
//! on a blocking socket it would stop the worker. So it is used only while no other operation of the ring is pending on
//! them (a ring operation on a non-blocking socket fails instead of waiting).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::io::{Reader, Writer};
use super::watch::{Lane, Watch};

/// From this many bytes on, splicing costs less than copying (proxy/docs/performance.md).
pub const SPLICE_BYTES_MIN: u64 = 32 * 1024;
/// What a pipe holds; the most an unprivileged process may ask for.
const PIPE_BYTES: usize = 1 << 20;
/// Pipes that a worker keeps.
const PIPES_MAX: usize = 64;
/// After this many bytes the other connections of the worker have their turn.
const TURN_BYTES: u64 = 2 << 20;

/// Pipes of one worker, empty ones.
#[derive(Default)]
pub struct PipePool {
    free: RefCell<Vec<Pipe>>,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes inside.
    filled: usize,
}

/// How moving a body ended before its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpliceFault {
    /// The source ended or failed.
    Source,
    /// The sink does not take it.
    Sink,
    /// No pipe could be had; nothing was moved.
    NoPipe,
}

impl PipePool {
    fn take(&self) -> io::Result<Pipe> {
        match self.free.borrow_mut().pop() {
            Some(pipe) => Ok(pipe),
            None => Pipe::new(),
        }
    }

    fn give_back(&self, pipe: Pipe) {
        let mut free = self.free.borrow_mut();
        // A pipe with bytes of a broken body inside is closed.
        if pipe.filled == 0 && free.len() < PIPES_MAX {
            free.push(pipe);
        }
    }

    /// Moves exactly `count` bytes. `Ok` after the last. `moved` counts those that reached the sink.
    ///
    /// # Errors
    /// [`SpliceFault`].
    pub async fn run<R: Reader, W: Writer>(
        &self,
        reader: &mut R,
        writer: &mut W,
        watch: &Watch,
        times: (u32, u32),
        count: u64,
        moved: &mut u64,
    ) -> Result<(), SpliceFault> {
        let (Some(source), Some(sink)) = (reader.descriptor(), writer.descriptor()) else { return Err(SpliceFault::NoPipe) };
        let Ok(mut pipe) = self.take() else { return Err(SpliceFault::NoPipe) };
        let _source = NonBlocking::new(source);
        let _sink = NonBlocking::new(sink);
        let (read_ms, write_ms) = times;
        let mut left = count;
        let mut turn = 0;
        // The source gave all that was asked for: the rest is likely there already. A promise of more holds the last segment back for up to
        // 200 ms, so nothing is promised that has not come.
        let mut more = false;
        while left > 0 || pipe.filled > 0 {
            if pipe.filled == 0 {
                if turn >= TURN_BYTES {
                    turn = 0;
                    wait_readable(reader, watch, read_ms).await?;
                }
                let most = left.min(PIPE_BYTES as u64);
                match pipe.fill(source, most) {
                    Ok(0) => return Err(SpliceFault::Source),
                    Ok(bytes) => {
                        left -= bytes as u64;
                        more = left > 0 && bytes as u64 == most;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        wait_readable(reader, watch, read_ms).await?;
                        continue;
                    }
                    Err(_) => return Err(SpliceFault::Source),
                }
            }
            match pipe.empty(sink, more) {
                Ok(bytes) => {
                    *moved += bytes as u64;
                    turn += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    watch.arm(Lane::DownWrite, write_ms);
                    let ready = writer.writable().await;
                    watch.disarm(Lane::DownWrite);
                    ready.map_err(|_| SpliceFault::Sink)?;
                    turn = 0;
                }
                Err(_) => return Err(SpliceFault::Sink),
            }
        }
        self.give_back(pipe);
        Ok(())
    }
}

async fn wait_readable<R: Reader>(reader: &mut R, watch: &Watch, ms: u32) -> Result<(), SpliceFault> {
    watch.arm(Lane::UpRead, ms);
    let ready = reader.readable().await;
    watch.disarm(Lane::UpRead);
    ready.map_err(|_| SpliceFault::Source)
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made these two for us; nobody else owns them.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        // SAFETY: a system call on our own descriptor. A refusal leaves the default size, which works.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES as libc::c_int) };
        Ok(Pipe { read, write, filled: 0 })
    }

    /// `most` is at most [`PIPE_BYTES`].
    fn fill(&mut self, source: RawFd, most: u64) -> io::Result<usize> {
        let bytes = splice(source, self.write.as_raw_fd(), most as usize, false)?;
        self.filled += bytes;
        Ok(bytes)
    }

    fn empty(&mut self, sink: RawFd, more: bool) -> io::Result<usize> {
        let bytes = splice(self.read.as_raw_fd(), sink, self.filled, more)?;
        self.filled -= bytes;
        Ok(bytes)
    }
}

fn splice(from: RawFd, to: RawFd, bytes: usize, more: bool) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK | if more { libc::SPLICE_F_MORE } else { 0 };
    loop {
        // SAFETY: both descriptors are open (their halves are borrowed, the pipe is owned); no offsets are passed.
        let moved = unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), bytes, flags) };
        if moved >= 0 {
            return Ok(moved as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A descriptor that is non-blocking until this is dropped; then it is what it was.
struct NonBlocking {
    descriptor: RawFd,
    before: libc::c_int,
}

impl NonBlocking {
    fn new(descriptor: RawFd) -> NonBlocking {
        // SAFETY: a system call on an open descriptor; it touches no memory of ours.
        let before = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
        if before >= 0 && before & libc::O_NONBLOCK == 0 {
            // SAFETY: as above.
            unsafe { libc::fcntl(descriptor, libc::F_SETFL, before | libc::O_NONBLOCK) };
        }
        NonBlocking { descriptor, before }
    }
}

impl Drop for NonBlocking {
    fn drop(&mut self) {
        if self.before >= 0 && self.before & libc::O_NONBLOCK == 0 {
            // SAFETY: a system call on a descriptor whose half outlives this guard.
            unsafe { libc::fcntl(self.descriptor, libc::F_SETFL, self.before) };
        }
    }
}
