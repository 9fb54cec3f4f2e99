//! One thread of the load generator: an io_uring, its share of the connections, its own counts.
//!
//! A request is one send (no completion when it succeeds) and one receive. Order of a turn: issue what is due, wait,
//! handle completions, look after time limits. Invariants: a connection has at most one receive in flight
//! (`receiving`), and its buffer is neither read nor dropped while it has; completions of an earlier life of a slot are
//! told by their generation and ignored; the request bytes are shared by all sends and outlive the ring.

use super::answer::{AnswerReader, Finished, Progress};
use super::plan::{End, Plan};
use super::schedule::Schedule;
use super::tally::{LoadFault, Tally};
use crate::ring::{Completion, Ring};
use anyhow::{Context, Result};
use io_uring::{opcode, squeue, types};
use std::collections::VecDeque;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{io, mem};

const BUFFER_BYTES: usize = 16 << 10;
/// Bodies longer than what is in the buffer are thrown away in the kernel, up to this many bytes at a time.
const DISCARD_BYTES: usize = 1 << 20;
/// How often time limits are looked at and lost connections are made again.
const TICK: Duration = Duration::from_millis(50);

/// Time slice of a thread that must send on time, though it may share its core.
pub const OPEN_LOOP_SLICE: Duration = Duration::from_micros(100);

/// One thread's part of a plan.
pub struct Share {
    /// Connections of this thread.
    pub connections: usize,
    /// Its part of the rate, and where its due times lie between those of the other threads.
    pub schedule: Option<Schedule>,
    /// Its part of the answers, when the run ends by count.
    pub answers: Option<u64>,
    /// The core it is pinned to.
    pub core: Option<usize>,
}

struct Connection {
    stream: Option<TcpStream>,
    buffer: Box<[u8; BUFFER_BYTES]>,
    filled: usize,
    reader: AnswerReader,
    generation: u32,
    /// Latency counts from here: the due time in an open loop, the time of sending in a closed one.
    from_ns: u64,
    busy: bool,
    receiving: bool,
    discarding: bool,
    measured: bool,
    timed_out: bool,
}

/// The state of one thread.
pub struct Engine<'a> {
    plan: &'a Plan,
    schedule: Option<Schedule>,
    ring: Ring,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    discard: Vec<u8>,
    tally: Tally,
    answered: &'a AtomicU64,
    start: Instant,
    measure_from_ns: u64,
    measure_until_ns: u64,
    to_issue: Option<u64>,
    outstanding: usize,
}

impl<'a> Engine<'a> {
    /// Connects everything; `answered` is counted up with every right answer, for an observer of another thread.
    pub fn new(plan: &'a Plan, share: &Share, answered: &'a AtomicU64) -> Result<Self> {
        if let Some(core) = share.core {
            crate::machine::pin_thread(core)?;
        }
        crate::machine::sharpen_timers();
        if share.schedule.is_some() {
            crate::machine::request_time_slice(0, OPEN_LOOP_SLICE);
        }
        let entries = (share.connections * 2).next_power_of_two().clamp(64, 8192) as u32;
        let ring = Ring::new(entries).context("setting up io_uring for the load generator")?;
        let mut connections = Vec::with_capacity(share.connections);
        for _ in 0..share.connections {
            let stream = crate::net::connect(plan.address, plan.timeout).with_context(|| format!("connecting to {}", plan.address))?;
            connections.push(Connection::new(stream));
        }
        Ok(Self {
            plan,
            schedule: share.schedule,
            ring,
            idle: (0..connections.len()).collect(),
            connections,
            discard: vec![0; DISCARD_BYTES],
            tally: Tally::new(),
            answered,
            start: Instant::now(),
            measure_from_ns: 0,
            measure_until_ns: u64::MAX,
            to_issue: share.answers,
            outstanding: 0,
        })
    }

    /// Runs from `start` to the end of the plan. Returns the counts and how long was measured.
    pub fn run(mut self, start: Instant) -> Result<(Tally, Duration)> {
        self.start = start;
        self.measure_from_ns = self.plan.warm_up.as_nanos() as u64;
        if let End::After(time) = self.plan.end {
            self.measure_until_ns = self.measure_from_ns + time.as_nanos() as u64;
        }
        let drain_until_ns = self.measure_until_ns.saturating_add(self.plan.timeout.as_nanos() as u64);
        let mut completions: Vec<Completion> = Vec::new();
        let mut next_tick_ns = 0;
        loop {
            let now_ns = self.now_ns();
            if self.is_over(now_ns) || now_ns >= drain_until_ns {
                break;
            }
            if now_ns >= next_tick_ns {
                self.look_after_limits(now_ns);
                next_tick_ns = now_ns + TICK.as_nanos() as u64;
            }
            self.issue_due(now_ns).context("submitting requests")?;
            let wake_ns = self.next_wake_ns(now_ns).min(next_tick_ns);
            self.ring.wait(Some(Duration::from_nanos(wake_ns.saturating_sub(now_ns)))).context("waiting for answers")?;
            self.ring.drain(&mut completions);
            for (what, result) in completions.drain(..) {
                self.handle_completion(what, result).context("submitting a request")?;
            }
        }
        let end_ns = self.now_ns().min(self.measure_until_ns);
        self.charge_unanswered();
        self.tear_down()?;
        let measured = Duration::from_nanos(end_ns.saturating_sub(self.measure_from_ns));
        Ok((mem::replace(&mut self.tally, Tally::new()), measured))
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// A closed loop of fixed length stops at its end; every other run waits for the answers to what it sent.
    fn is_over(&self, now_ns: u64) -> bool {
        let all_issued = match (self.to_issue, self.schedule) {
            (Some(remaining), _) => remaining == 0,
            (None, None) => return now_ns >= self.measure_until_ns,
            (None, Some(schedule)) => schedule.next_due_ns() >= self.measure_until_ns,
        };
        all_issued && self.outstanding == 0
    }

    fn next_wake_ns(&self, now_ns: u64) -> u64 {
        match self.schedule {
            Some(schedule) if !self.idle.is_empty() => schedule.next_due_ns(),
            _ if now_ns < self.measure_until_ns => self.measure_until_ns,
            _ => u64::MAX,
        }
    }

    /// Sends on idle connections: all of them in a closed loop, as many as are due in an open one.
    fn issue_due(&mut self, now_ns: u64) -> io::Result<()> {
        while !self.idle.is_empty() {
            let from_ns = match &mut self.schedule {
                None if now_ns >= self.measure_until_ns => return Ok(()),
                None => now_ns,
                Some(schedule) if schedule.next_due_ns() >= self.measure_until_ns => return Ok(()),
                Some(schedule) => match schedule.try_take(now_ns) {
                    Some(due_ns) => due_ns,
                    None => return Ok(()),
                },
            };
            let measured = from_ns >= self.measure_from_ns;
            match &mut self.to_issue {
                Some(0) => return Ok(()),
                Some(remaining) if measured => *remaining -= 1,
                _ => {}
            }
            let Some(slot) = self.idle.pop_front() else {
                return Ok(());
            };
            if self.schedule.is_some() && measured {
                self.tally.send_delay.saturating_record(now_ns - from_ns);
            }
            self.issue(slot, from_ns, measured)?;
        }
        Ok(())
    }

    fn issue(&mut self, slot: usize, from_ns: u64, measured: bool) -> io::Result<()> {
        let connection = &mut self.connections[slot];
        let Some(stream) = &connection.stream else {
            return Ok(());
        };
        connection.from_ns = from_ns;
        connection.measured = measured;
        connection.busy = true;
        connection.filled = 0;
        connection.reader = AnswerReader::new();
        self.outstanding += 1;
        let request = &self.plan.request;
        let send = opcode::Send::new(types::Fd(stream.as_raw_fd()), request.as_ptr(), request.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(token(slot, connection.generation, true));
        // SAFETY: the plan owns the request bytes and is borrowed for longer than this engine and its ring live.
        unsafe { self.ring.push(&send)? };
        self.receive(slot)
    }

    fn receive(&mut self, slot: usize) -> io::Result<()> {
        let connection = &mut self.connections[slot];
        let Some(stream) = &connection.stream else {
            return Ok(());
        };
        let skippable = connection.reader.skippable_bytes();
        connection.discarding = skippable > 0 && connection.filled == 0;
        connection.receiving = true;
        let fd = types::Fd(stream.as_raw_fd());
        let entry = if connection.discarding {
            // tcp(7): MSG_TRUNC throws the bytes away in the kernel and returns their count.
            let bytes = skippable.min(DISCARD_BYTES as u64) as u32;
            opcode::Recv::new(fd, self.discard.as_mut_ptr(), bytes).flags(libc::MSG_TRUNC).build()
        } else {
            let room = &mut connection.buffer[connection.filled..];
            opcode::Recv::new(fd, room.as_mut_ptr(), room.len() as u32).build()
        };
        // SAFETY: the boxed buffer is neither read nor dropped while `receiving` is set; `discard` is never read at all.
        unsafe { self.ring.push(&entry.user_data(token(slot, connection.generation, false))) }
    }

    fn handle_completion(&mut self, what: u64, result: i32) -> io::Result<()> {
        let (slot, generation, is_send) = untoken(what);
        let connection = &mut self.connections[slot];
        if connection.generation != generation || is_send {
            // A send completes only when it failed, and then the receive beside it fails as well.
            return Ok(());
        }
        connection.receiving = false;
        if result <= 0 {
            return match connection.reader.close() {
                Some(finished) if result == 0 => self.handle_answer(slot, finished),
                _ if connection.timed_out => self.handle_fault(slot, LoadFault::Timeout),
                _ => self.handle_fault(slot, LoadFault::Closed),
            };
        }
        let received = result as usize;
        if connection.discarding {
            return match connection.reader.skip(received as u64) {
                Some(finished) => self.handle_answer(slot, finished),
                None => self.receive(slot),
            };
        }
        connection.filled += received;
        let filled = connection.filled;
        match connection.reader.take(&connection.buffer[..filled], self.plan.is_head) {
            Ok(Progress::Finished(finished, used)) if used == filled => self.handle_answer(slot, finished),
            Ok(Progress::Unfinished(used)) if filled - used < BUFFER_BYTES => {
                connection.buffer.copy_within(used..filled, 0);
                connection.filled = filled - used;
                self.receive(slot)
            }
            _ => self.handle_fault(slot, LoadFault::Malformed),
        }
    }

    fn handle_answer(&mut self, slot: usize, finished: Finished) -> io::Result<()> {
        if finished.status != self.plan.expect_status {
            return self.handle_fault(slot, LoadFault::WrongStatus);
        }
        if self.plan.expect_bytes.is_some_and(|bytes| bytes != finished.body_bytes) {
            return self.handle_fault(slot, LoadFault::WrongLength);
        }
        let now_ns = self.now_ns();
        let is_timed_closed_loop = self.schedule.is_none() && self.to_issue.is_none();
        let connection = &mut self.connections[slot];
        let counts = if is_timed_closed_loop { (self.measure_from_ns..self.measure_until_ns).contains(&now_ns) } else { connection.measured };
        if counts {
            self.tally.latency.saturating_record(now_ns.saturating_sub(connection.from_ns).max(1));
            self.tally.answers += 1;
            self.tally.body_bytes += finished.body_bytes;
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.release(slot, finished.keep_alive);
        self.issue_due(now_ns)
    }

    fn handle_fault(&mut self, slot: usize, fault: LoadFault) -> io::Result<()> {
        self.tally.faults.count(fault);
        self.release(slot, false);
        Ok(())
    }

    /// The request of `slot` is over; the connection is used again, or made anew.
    fn release(&mut self, slot: usize, reusable: bool) {
        let connection = &mut self.connections[slot];
        if mem::replace(&mut connection.busy, false) {
            self.outstanding -= 1;
        }
        if reusable {
            self.idle.push_back(slot);
        } else {
            self.reconnect(slot);
        }
    }

    fn reconnect(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.generation = connection.generation.wrapping_add(1) & GENERATION_MASK;
        connection.timed_out = false;
        connection.stream = None;
        match crate::net::connect(self.plan.address, self.plan.timeout) {
            Ok(stream) => {
                connection.stream = Some(stream);
                self.idle.push_back(slot);
            }
            Err(_) => self.tally.faults.count(LoadFault::Connect),
        }
    }

    /// Ends requests that took too long, and tries lost connections again.
    fn look_after_limits(&mut self, now_ns: u64) {
        let limit_ns = self.plan.timeout.as_nanos() as u64;
        for slot in 0..self.connections.len() {
            let connection = &mut self.connections[slot];
            match &connection.stream {
                Some(stream) if connection.busy && now_ns.saturating_sub(connection.from_ns) > limit_ns => {
                    // In an open loop a late start uses up the limit too: the client of that request would be gone.
                    connection.timed_out = true;
                    crate::net::shut_down(stream);
                }
                Some(_) => {}
                None => self.reconnect(slot),
            }
        }
    }

    /// Open loop: what was due and has no answer waited at least until now, and must not vanish from the latencies.
    fn charge_unanswered(&mut self) {
        let Some(mut schedule) = self.schedule else {
            return;
        };
        let now_ns = self.now_ns();
        let busy = self.connections.iter().filter(|connection| connection.busy && connection.measured);
        let waiting: Vec<u64> = busy.map(|connection| connection.from_ns).collect();
        let limit_ns = now_ns.min(self.measure_until_ns.saturating_sub(1));
        let never_sent = std::iter::from_fn(|| if self.to_issue == Some(0) { None } else { schedule.try_take(limit_ns) });
        for due_ns in waiting.into_iter().chain(never_sent).filter(|due_ns| *due_ns >= self.measure_from_ns) {
            self.tally.latency.saturating_record(now_ns.saturating_sub(due_ns).max(1));
            self.tally.unanswered += 1;
        }
    }

    /// Waits until the kernel let go of every buffer.
    fn tear_down(&mut self) -> Result<()> {
        for stream in self.connections.iter().filter_map(|connection| connection.stream.as_ref()) {
            crate::net::shut_down(stream);
        }
        let give_up = Instant::now() + Duration::from_secs(2);
        let mut completions: Vec<Completion> = Vec::new();
        while self.connections.iter().any(|connection| connection.receiving) && Instant::now() < give_up {
            self.ring.wait(Some(Duration::from_millis(20))).context("ending the run")?;
            self.ring.drain(&mut completions);
            for (what, _) in completions.drain(..) {
                let (slot, generation, is_send) = untoken(what);
                let connection = &mut self.connections[slot];
                connection.receiving &= is_send || connection.generation != generation;
            }
        }
        Ok(())
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        // After an error receives may still be in flight: their buffers then belong to the kernel and are leaked.
        if self.connections.iter().any(|connection| connection.receiving) {
            mem::forget(mem::take(&mut self.connections));
            mem::forget(mem::take(&mut self.discard));
        }
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream: Some(stream),
            buffer: Box::new([0; BUFFER_BYTES]),
            filled: 0,
            reader: AnswerReader::new(),
            generation: 0,
            from_ns: 0,
            busy: false,
            receiving: false,
            discarding: false,
            measured: false,
            timed_out: false,
        }
    }
}

const GENERATION_MASK: u32 = 0x00ff_ffff;

/// `slot | generation | is_send` in the 64 bits that come back with a completion.
fn token(slot: usize, generation: u32, is_send: bool) -> u64 {
    (slot as u64) << 32 | u64::from(generation) << 8 | u64::from(is_send)
}

fn untoken(token: u64) -> (usize, u32, bool) {
    ((token >> 32) as usize, (token >> 8) as u32 & GENERATION_MASK, token & 1 == 1)
}
