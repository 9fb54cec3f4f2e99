//! Reading a request head, and refusing one.

use std::rc::Rc;

use ringway_abi::raw::RawRequest;

use super::core::{Core, Program, Upstreams, add};
use super::io::{Reader, Stall, Writer, is_parked, write_all};
use super::made::{PLAIN_ERROR_BYTES, plain_error};
use super::record::log_refused;
use super::watch::{Lane, Watch};
use super::{Connection, End, Peer};
use crate::clock;
use crate::error::{ClientFault, Fault, ResourceFault};
use crate::http1::head::{Area, HeadProgress, RequestFacts, parse_request};
use crate::log_limit;
use crate::view::message::{Message, Side};
use crate::view::slab::Buf;

impl<R: Reader, W: Writer, U: Upstreams> Connection<'_, R, W, U> {
    /// Reads until a head is complete; the frame then holds the request. The program is the one in force when its first bytes were there.
    /// `Err`: the connection ends, and what was to be said has been said.
    pub(super) async fn read_request(&mut self) -> Result<(Rc<Program>, RequestFacts), End> {
        let mut progress = HeadProgress::default();
        let capacity = self.input.slot.layout().receive();
        self.take_pending(capacity);
        if self.input.filled == 0 {
            self.read_first(capacity).await?;
        }
        let program = self.core.program();
        // The time for a head runs on while its connection has no slot.
        let mut armed = self.resumed;
        loop {
            let filled = self.input.filled;
            let (bytes, entries, root) = self.input.slot.request_parts();
            match parse_request(Area { bytes, filled }, &program.head_limits, &program.names, entries, root, &mut progress) {
                // Its last bytes came with the deadline: the sweep has ended the connection's reading side.
                Ok(Some(_)) if self.watch.expired(Lane::DownRead) => return Err(self.refuse(Fault::Client(ClientFault::HeadTimeout)).await),
                Ok(Some(facts)) => {
                    self.watch.disarm(Lane::DownRead);
                    let count = root.headers.len as usize;
                    self.fill_facts(count, &facts);
                    return Ok((program, facts));
                }
                Ok(None) if self.input.filled >= capacity => return Err(self.refuse(Fault::Client(ClientFault::HeadTooLarge)).await),
                Ok(None) => {}
                Err(fault) => return Err(self.refuse(Fault::Client(fault)).await),
            }
            if !armed {
                self.watch.arm(Lane::DownRead, program.timeouts.head);
                armed = true;
            }
            // What has come of a head that comes slowly waits without a slot: at once where slots are short, else after a moment.
            if !std::mem::take(&mut self.resumed) && self.core.is_crowded() {
                return Err(if self.hold() { End::Park } else { self.refuse(Fault::Resource(ResourceFault::SlotsExhausted)).await });
            }
            let buf = Buf::slot(self.input.slot.clone(), self.input.filled..capacity);
            self.watch.idle_since.set(clock::monotonic_ms());
            let (result, _) = self.reader.read_idle(buf).await;
            self.watch.idle_since.set(u64::MAX);
            match result {
                Ok(count) if count > 0 => self.input.filled += count,
                // A line end that a client sent behind a body (HTTP1.md rule 3) is no request: the connection was idle.
                _ if self.watch.expired(Lane::DownRead) && matches!(self.input.unread(), b"\r" | b"\r\n") => return Err(End::Close),
                // RFC 9112 §9.5: a client that takes too long to send its head gets 408.
                _ if self.watch.expired(Lane::DownRead) => return Err(self.refuse(Fault::Client(ClientFault::HeadTimeout)).await),
                Err(error) if is_parked(&error) => match self.hold() {
                    true => return Err(End::Park),
                    false if self.core.is_crowded() => return Err(self.refuse(Fault::Resource(ResourceFault::SlotsExhausted)).await),
                    // Enough is held for others already, but slots are not short: it keeps its own.
                    false => {}
                },
                _ => {
                    // The client went away in the middle of a head.
                    self.core.stats.faults.count(Fault::Client(ClientFault::HeadIncomplete));
                    return Err(End::Close);
                }
            }
        }
    }

    /// What has come of a head waits without a slot. False where even that is too much.
    fn hold(&self) -> bool {
        self.core.hold(self.watch, self.input.unread())
    }

    /// Waits for the first bytes of a request. Idle connections are called back and parked.
    async fn read_first(&mut self, capacity: usize) -> Result<(), End> {
        let first = self.watch.requests.get() == 0;
        let timeout = {
            let timeouts = &self.core.program().timeouts;
            if first { timeouts.head } else { timeouts.keep_alive_idle }
        };
        let now = clock::monotonic_ms();
        self.watch.arm_at(Lane::DownRead, timeout, now);
        self.watch.idle_since.set(now);
        let (result, _) = self.reader.read_idle(Buf::slot(self.input.slot.clone(), 0..capacity)).await;
        self.watch.idle_since.set(u64::MAX);
        match result {
            Ok(0) => Err(End::Close),
            Ok(count) => {
                self.input.filled = count;
                Ok(())
            }
            Err(error) if is_parked(&error) => Err(End::Park),
            Err(_) => Err(End::Close),
        }
    }

    /// Bytes that a body read brought too far go before what the socket brings.
    fn take_pending(&mut self, capacity: usize) {
        let count = self.input.pending.len().min(capacity - self.input.filled);
        if count > 0 {
            let filled = self.input.filled;
            self.input.slot.bytes_mut(filled..filled + count).copy_from_slice(&self.input.pending[..count]);
            self.input.pending.drain(..count);
            self.input.filled += count;
        }
    }

    /// What only the gateway knows goes into the root; the request goes into the frame.
    fn fill_facts(&mut self, count: usize, facts: &RequestFacts) {
        let mut request = Message::parsed(self.input.slot.clone(), Side::Request, count);
        let (id, peer, now) = (self.core.next_request_id(), self.peer, clock::unix_ns_coarse());
        request.set_request_facts(|root: &mut RawRequest| {
            root.request_id = id;
            root.received_unix_ns = now;
            root.peer_addr = peer.address;
            root.peer_port = peer.port;
            root.listener = peer.listener;
        });
        let head = facts.head_bytes as usize;
        if let crate::http1::head::RequestBody::Length(length) = facts.body {
            let here = (self.input.filled - head).min(usize::try_from(length).unwrap_or(usize::MAX));
            request.set_body_span(head, here);
            if here as u64 == length {
                request.set_request_facts(|root| root.flags |= ringway_abi::view::REQ_BODY_COMPLETE);
            }
        }
        self.frame.borrow_mut().set_request(request);
    }

    /// Answers bytes that are no request and ends the connection. There is no request, so there is no chain to ask.
    async fn refuse(&mut self, fault: Fault) -> End {
        let received = self.input.slot.bytes(0..self.input.filled);
        refuse(self.core, self.watch, self.peer, self.writer, received, fault).await
    }
}

/// Answers what is no request, or cannot be served: `received` is what is known of it. Takes no slot.
pub async fn refuse<W: Writer, U>(core: &Core<U>, watch: &Watch, peer: Peer, writer: &mut W, received: &[u8], fault: Fault) -> End {
    core.stats.faults.count(fault);
    let row = fault.row();
    add(&core.stats.responses[usize::from(row.status / 100).min(5)], 1);
    if log_limit::admits_fault(fault) {
        log_limit::line!(row.level, peer = %crate::address::Text::of(peer.address), status = row.status, reason = row.reason, "request refused");
    }
    let program = core.program();
    if program.access_log {
        log_refused(&program, peer, received, fault);
    }
    let mut out = vec![0; PLAIN_ERROR_BYTES];
    let Some((head, body)) = plain_error(&mut out, fault, &core.date.now()) else { return End::Close };
    let stall = Stall::new(watch, Lane::DownWrite, program.timeouts.write_stall);
    let (result, _) = write_all(writer, stall, Buf::heap(out, None).narrowed(0..head + body)).await;
    if result.is_ok() { End::Linger } else { End::Close }
}
