//! One scripted connection: what the peer sends and when, and what it was sent.
//!
//! A [`Pipe`] is the peer. Its steps are delivered in order, one piece per read; a step that waits makes the read pending
//! until its condition holds or the executor releases it. Promises of `exchange::io` are watched: a half whose read was
//! dropped must not be read again ([`Pipe::read_after_drop`]).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use monoio::buf::IoBufMut;
use ringway::exchange::io::{Reader, Writer, parked};
use ringway::view::slab::Buf;

/// What a peer does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// These bytes can be read.
    Bytes(Vec<u8>),
    /// Nothing, until everything else has stopped.
    Pause,
    /// Nothing, until this was sent to the peer so many times in all.
    Await(Vec<u8>, usize),
    /// Nothing, until one more request head was sent to the peer.
    AwaitHead,
    /// Nothing, until so many complete requests were sent to the peer in all.
    AwaitRequests(usize),
    /// Nothing, until so many deadlines of the case have passed.
    AfterExpiry(u32),
    /// The peer says that nothing more comes.
    Eof,
    /// The connection fails.
    Error(io::ErrorKind),
}

/// Bytes as a step.
pub fn bytes(bytes: impl AsRef<[u8]>) -> Step {
    Step::Bytes(bytes.as_ref().to_vec())
}

/// The peer of one connection.
pub struct Pipe {
    steps: RefCell<VecDeque<Step>>,
    /// Bytes of the first step that have been delivered.
    delivered: Cell<usize>,
    /// What the peer was sent.
    pub sent: RefCell<Vec<u8>>,
    /// Bytes of `sent` that [`Step::AwaitHead`] has seen.
    heads_seen: Cell<usize>,
    /// Bytes that one write takes at most.
    pub write_limit: Cell<usize>,
    /// The connection takes so many bytes and then fails.
    pub write_fails_at: Cell<usize>,
    /// The connection takes so many bytes and then none for ever.
    pub write_stalls_at: Cell<usize>,
    /// Each write waits for a release first.
    pub slow_writes: Cell<bool>,
    write_ready: Cell<bool>,
    write_waits: Cell<bool>,
    read_waits: Cell<bool>,
    /// The gateway said that nothing more comes.
    pub finished: Cell<bool>,
    reads_ended: Cell<bool>,
    writes_ended: Cell<bool>,
    /// A read is pending; still set when its future was dropped.
    reading: Cell<bool>,
    /// A half whose read was dropped was read again: bytes may be lost.
    pub read_after_drop: Cell<bool>,
    /// Shared by the connections of a run.
    events: Rc<Events>,
}

/// What the executor and the connections of one run tell each other.
#[derive(Default)]
pub struct Events {
    /// Counts everything that happened, so that the executor sees when nothing does.
    pub progress: Cell<u64>,
    /// Deadlines of the case that have passed.
    pub expiries: Cell<u32>,
}

impl Pipe {
    pub fn new(steps: Vec<Step>, events: Rc<Events>) -> Rc<Pipe> {
        Rc::new(Pipe {
            steps: RefCell::new(steps.into()),
            delivered: Cell::new(0),
            sent: RefCell::default(),
            heads_seen: Cell::new(0),
            write_limit: Cell::new(usize::MAX),
            write_fails_at: Cell::new(usize::MAX),
            write_stalls_at: Cell::new(usize::MAX),
            slow_writes: Cell::new(false),
            write_ready: Cell::new(false),
            write_waits: Cell::new(false),
            read_waits: Cell::new(false),
            finished: Cell::new(false),
            reads_ended: Cell::new(false),
            writes_ended: Cell::new(false),
            reading: Cell::new(false),
            read_after_drop: Cell::new(false),
            events,
        })
    }

    pub fn halves(self: &Rc<Pipe>) -> (ScriptReader, ScriptWriter) {
        (ScriptReader(Rc::clone(self)), ScriptWriter(Rc::clone(self)))
    }

    /// The socket is shut down for reading, or for both.
    pub fn shut_down(&self, writes: bool) {
        self.reads_ended.set(true);
        self.writes_ended.set(self.writes_ended.get() || writes);
    }

    /// Lets what waits for it go on; whether anything did.
    pub fn release(&self) -> bool {
        let mut released = false;
        if self.write_waits.take() {
            self.write_ready.set(true);
            released = true;
        }
        if self.read_waits.take() && matches!(self.steps.borrow().front(), Some(Step::Pause)) {
            self.steps.borrow_mut().pop_front();
            released = true;
        }
        released
    }

    /// Nothing can be read: neither bytes nor an end.
    pub fn is_quiet(&self) -> bool {
        matches!(self.steps.borrow().front(), None | Some(Step::Await(..) | Step::AwaitHead | Step::AwaitRequests(_) | Step::AfterExpiry(_) | Step::Pause))
    }

    /// The script was delivered to its end.
    pub fn is_exhausted(&self) -> bool {
        self.steps.borrow().is_empty()
    }

    /// Bytes of the script that have not been delivered.
    pub fn unread(&self) -> usize {
        let bytes = |step: &Step| if let Step::Bytes(bytes) = step { bytes.len() } else { 0 };
        self.steps.borrow().iter().map(bytes).sum::<usize>() - self.delivered.get()
    }

    fn moved(&self) {
        self.events.progress.set(self.events.progress.get() + 1);
    }

    fn poll_read(&self, buf: &mut Buf) -> Poll<io::Result<usize>> {
        let mut steps = self.steps.borrow_mut();
        // What has arrived can still be read.
        if self.reads_ended.get() && !matches!(steps.front(), Some(Step::Bytes(_) | Step::AfterExpiry(_))) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let Some(step) = steps.front() else { return Poll::Pending };
            match step {
                Step::Bytes(bytes) => {
                    let rest = &bytes[self.delivered.get()..];
                    let count = rest.len().min(buf.len());
                    assert!(count > 0, "a read needs room, and a step needs bytes");
                    // SAFETY: `write_ptr` points at the `len` writable bytes of the range, and `count` is not more.
                    unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), buf.write_ptr(), count) };
                    self.delivered.set(self.delivered.get() + count);
                    if count == rest.len() {
                        self.delivered.set(0);
                        steps.pop_front();
                    }
                    return Poll::Ready(Ok(count));
                }
                Step::Pause => {
                    self.read_waits.set(true);
                    return Poll::Pending;
                }
                Step::Await(needle, times) => {
                    if count(&self.sent.borrow(), needle) < *times {
                        return Poll::Pending;
                    }
                }
                Step::AwaitHead => {
                    let seen = self.heads_seen.get();
                    let Some(at) = self.sent.borrow()[seen..].windows(4).position(|w| w == b"\r\n\r\n") else { return Poll::Pending };
                    self.heads_seen.set(seen + at + 4);
                }
                Step::AwaitRequests(count) => {
                    let (requests, _) = super::wire::requests(&self.sent.borrow());
                    if requests.iter().filter(|request| request.complete).count() < *count {
                        return Poll::Pending;
                    }
                }
                Step::AfterExpiry(count) if self.events.expiries.get() < *count => return Poll::Pending,
                Step::AfterExpiry(_) => {}
                Step::Eof => return Poll::Ready(Ok(0)),
                Step::Error(kind) => return Poll::Ready(Err((*kind).into())),
            }
            steps.pop_front();
        }
    }

    fn poll_write(&self, buf: &Buf) -> Poll<io::Result<usize>> {
        let mut sent = self.sent.borrow_mut();
        if self.writes_ended.get() || sent.len() >= self.write_fails_at.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if sent.len() >= self.write_stalls_at.get() {
            return Poll::Pending;
        }
        if self.slow_writes.get() && !self.write_ready.take() {
            self.write_waits.set(true);
            return Poll::Pending;
        }
        let room = self.write_fails_at.get().min(self.write_stalls_at.get()) - sent.len();
        let count = buf.len().min(self.write_limit.get()).min(room);
        sent.extend_from_slice(&buf.bytes()[..count]);
        Poll::Ready(Ok(count))
    }
}

/// How often `needle` stands in `bytes`.
fn count(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).filter(|w| *w == needle).count()
}

/// The gateway's receiving half.
pub struct ScriptReader(pub Rc<Pipe>);

/// The gateway's sending half.
pub struct ScriptWriter(pub Rc<Pipe>);

impl ScriptReader {
    async fn next(&mut self, mut buf: Buf, idle: bool) -> (io::Result<usize>, Buf) {
        let pipe = &self.0;
        if pipe.reading.replace(true) {
            pipe.read_after_drop.set(true);
        }
        let result = poll_fn(|_| match pipe.poll_read(&mut buf) {
            // The worker calls idle reads back; a peer that has more to say is merely slow.
            Poll::Pending if idle && pipe.is_exhausted() => Poll::Ready(Err(parked())),
            poll => poll,
        })
        .await;
        pipe.moved();
        pipe.reading.set(false);
        (result, buf)
    }
}

impl Reader for ScriptReader {
    async fn read(&mut self, buf: Buf) -> (io::Result<usize>, Buf) {
        self.next(buf, false).await
    }

    async fn read_idle(&mut self, buf: Buf) -> (io::Result<usize>, Buf) {
        self.next(buf, true).await
    }
}

impl Writer for ScriptWriter {
    async fn write(&mut self, buf: Buf) -> (io::Result<usize>, Buf) {
        let result = poll_fn(|_| self.0.poll_write(&buf)).await;
        self.0.moved();
        (result, buf)
    }

    fn finish(&mut self) {
        self.0.finished.set(true);
        self.0.moved();
    }
}
