//! Moves requests and answers of the origin: one io_uring, one accept, per connection one chain of operations.
//!
//! Invariants: a connection has at most one chain of operations in flight (`Connection::pending`); its buffer and the
//! bytes that it sends live until that chain completed, because a connection is dropped only when nothing is pending.
//! A send that a receive follows is linked to it, so that an answer costs one completion and not two.

use super::answers::{Afterwards, Answer, Answers};
use crate::http1::{BodyLength, ChunkedDecoder, parse_request};
use crate::ring::{Completion, Ring};
use anyhow::{Context, Result};
use io_uring::{opcode, squeue, types};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

const RING_ENTRIES: u32 = 1024;
/// Room for a request head; a longer one closes the connection.
const BUFFER_BYTES: usize = 16 << 10;
const ACCEPT: u64 = u64::MAX;
/// Marks a send that is linked to a receive: its failure shows as a cancelled receive, so its own completion is ignored.
const LINKED_SEND: u64 = 1 << 62;

/// What the pending chain of a connection completes as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Receive,
    Send(Afterwards),
    Delay,
}

/// How much of the current request's body is still to come.
enum Body {
    Exact(u64),
    Chunked(ChunkedDecoder),
}

/// Whether a connection lives on after a completion.
#[derive(PartialEq, Eq)]
enum Fate {
    Lives,
    Ends,
}

struct Connection {
    socket: OwnedFd,
    buffer: Box<[u8; BUFFER_BYTES]>,
    filled: usize,
    body: Body,
    answer: Option<Answer>,
    sending: Option<Rc<[u8]>>,
    close_after: bool,
    hanging: bool,
    pending: Pending,
    delay: Box<types::Timespec>,
}

/// One thread of the origin.
pub struct Server {
    listener: TcpListener,
    ring: Ring,
    answers: Answers,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    accepting: bool,
}

impl Server {
    /// A server on a listening socket, for the calling thread.
    pub fn new(listener: TcpListener) -> Result<Self> {
        let ring = Ring::new(RING_ENTRIES).context("setting up io_uring for the origin")?;
        let answers = Answers::new();
        Ok(Self { listener, ring, answers, connections: Vec::new(), free: Vec::new(), accepting: false })
    }

    /// Serves for ever.
    pub fn run(mut self) -> Result<()> {
        let mut completions: Vec<Completion> = Vec::new();
        loop {
            if !self.accepting {
                self.accept().context("accepting connections")?;
            }
            self.ring.wait(None).context("waiting for completions")?;
            self.ring.drain(&mut completions);
            for (what, result) in completions.drain(..) {
                self.handle_completion(what, result).context("submitting an operation")?;
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::Accept::new(types::Fd(self.listener.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(ACCEPT);
        self.accepting = true;
        // SAFETY: the entry names no memory.
        unsafe { self.ring.push(&entry) }
    }

    fn handle_completion(&mut self, what: u64, result: i32) -> io::Result<()> {
        if what == ACCEPT {
            self.accepting = false;
            return if result >= 0 { self.handle_accept(result) } else { Ok(()) };
        }
        if what & LINKED_SEND != 0 {
            return Ok(());
        }
        let slot = what as usize;
        let Some(mut connection) = self.connections[slot].take() else {
            return Ok(());
        };
        if self.advance(&mut connection, slot, result)? == Fate::Lives {
            self.connections[slot] = Some(connection);
        } else {
            self.free.push(slot);
        }
        Ok(())
    }

    fn handle_accept(&mut self, fd: i32) -> io::Result<()> {
        // SAFETY: the kernel just returned `fd` as a new descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        crate::net::no_delay(&socket)?;
        let mut connection = Connection {
            socket,
            buffer: Box::new([0; BUFFER_BYTES]),
            filled: 0,
            body: Body::Exact(0),
            answer: None,
            sending: None,
            close_after: false,
            hanging: false,
            pending: Pending::Receive,
            delay: Box::default(),
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.receive(&mut connection, slot)?;
        self.connections[slot] = Some(connection);
        Ok(())
    }

    /// Takes the result of the pending chain and starts the next one.
    fn advance(&mut self, connection: &mut Connection, slot: usize, result: i32) -> io::Result<Fate> {
        match connection.pending {
            Pending::Receive if result <= 0 => Ok(Fate::Ends),
            Pending::Receive if connection.hanging => self.receive(connection, slot),
            Pending::Receive => {
                connection.filled += result as usize;
                self.consume(connection, slot)
            }
            Pending::Send(_) if result < 0 => Ok(Fate::Ends),
            Pending::Send(then) => self.handle_sent(connection, slot, then),
            Pending::Delay => self.send(connection, slot),
        }
    }

    /// Reads heads and bodies out of the buffer until an answer is due or more bytes are needed.
    fn consume(&mut self, connection: &mut Connection, slot: usize) -> io::Result<Fate> {
        if connection.answer.is_none() {
            let filled = connection.filled;
            let bytes = &connection.buffer[..filled];
            let head = match parse_request(bytes) {
                Ok(Some(head)) => head,
                Ok(None) if filled < BUFFER_BYTES => return self.receive(connection, slot),
                Ok(None) | Err(_) => return Ok(Fate::Ends),
            };
            let head_bytes = head.bytes;
            connection.close_after = !head.keep_alive;
            connection.body = match head.body {
                BodyLength::Exact(length) => Body::Exact(length),
                BodyLength::Chunked => Body::Chunked(ChunkedDecoder::default()),
                BodyLength::UntilClose => return Ok(Fate::Ends),
            };
            connection.answer = Some(self.answers.answer(head.path, head.is_head, &bytes[..head_bytes]));
            connection.discard(head_bytes);
        }
        let body_is_whole = match &mut connection.body {
            Body::Exact(remaining) => {
                let take = (*remaining).min(connection.filled as u64);
                *remaining -= take;
                let whole = *remaining == 0;
                connection.discard(take as usize);
                whole
            }
            Body::Chunked(decoder) => {
                let Ok(taken) = decoder.feed(&connection.buffer[..connection.filled]) else {
                    return Ok(Fate::Ends);
                };
                let whole = decoder.is_done();
                connection.discard(taken);
                whole
            }
        };
        if !body_is_whole {
            return self.receive(connection, slot);
        }
        match connection.answer.as_ref().map_or(0, |answer| answer.delay_ms) {
            0 => self.send(connection, slot),
            delay_ms => self.delay(connection, slot, delay_ms),
        }
    }

    /// Sends the answer that is due.
    fn send(&mut self, connection: &mut Connection, slot: usize) -> io::Result<Fate> {
        let Some(answer) = connection.answer.take() else {
            return Ok(Fate::Ends);
        };
        let then = if connection.close_after && answer.then == Afterwards::Keep { Afterwards::Close } else { answer.then };
        let pointer = answer.bytes.as_ptr();
        connection.sending = Some(answer.bytes);
        if answer.send_bytes == 0 {
            return self.handle_sent(connection, slot, then);
        }
        let send = opcode::Send::new(types::Fd(connection.socket.as_raw_fd()), pointer, answer.send_bytes as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        if then == Afterwards::Keep && connection.filled == 0 {
            let linked = send.flags(squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS).user_data(slot as u64 | LINKED_SEND);
            // SAFETY: `connection.sending` owns the bytes, and is replaced only after the linked receive completed.
            unsafe { self.ring.push(&linked)? };
            return self.receive(connection, slot);
        }
        connection.pending = Pending::Send(then);
        // SAFETY: `connection.sending` owns the bytes, and is replaced only after this send completed.
        unsafe { self.ring.push(&send.user_data(slot as u64))? };
        Ok(Fate::Lives)
    }

    fn handle_sent(&mut self, connection: &mut Connection, slot: usize, then: Afterwards) -> io::Result<Fate> {
        match then {
            Afterwards::Keep => self.consume(connection, slot),
            Afterwards::Close => Ok(Fate::Ends),
            Afterwards::Reset => {
                crate::net::reset_on_close(&connection.socket)?;
                Ok(Fate::Ends)
            }
            Afterwards::Hang => {
                connection.hanging = true;
                connection.filled = 0;
                self.receive(connection, slot)
            }
        }
    }

    fn receive(&mut self, connection: &mut Connection, slot: usize) -> io::Result<Fate> {
        connection.pending = Pending::Receive;
        let room = &mut connection.buffer[connection.filled..];
        let entry = opcode::Recv::new(types::Fd(connection.socket.as_raw_fd()), room.as_mut_ptr(), room.len() as u32).build().user_data(slot as u64);
        // SAFETY: the boxed buffer belongs to the connection, which is neither dropped nor read before this completed.
        unsafe { self.ring.push(&entry)? };
        Ok(Fate::Lives)
    }

    fn delay(&mut self, connection: &mut Connection, slot: usize, delay_ms: u64) -> io::Result<Fate> {
        connection.pending = Pending::Delay;
        *connection.delay = types::Timespec::new().sec(delay_ms / 1000).nsec((delay_ms % 1000) as u32 * 1_000_000);
        let entry = opcode::Timeout::new(&*connection.delay).build().user_data(slot as u64);
        // SAFETY: the boxed time belongs to the connection, which is not dropped before this completed.
        unsafe { self.ring.push(&entry)? };
        Ok(Fate::Lives)
    }
}

impl Connection {
    /// Drops the first `bytes` bytes of the buffer.
    fn discard(&mut self, bytes: usize) {
        if bytes > 0 {
            self.buffer.copy_within(bytes..self.filled, 0);
            self.filled -= bytes;
        }
    }
}
