//! To the upstream: a connection, the request head, the body as it streams; then the response (see `response`).
//!
//! A request whose body is not all here is sent while the response is awaited: both run at once, in one task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use ringway_abi::ids::{HeaderId, METHOD_CONNECT};
use ringway_abi::raw;
use ringway_abi::view::REQ_ABSOLUTE_TARGET;

use super::body::{Framing, PREFIX_BYTES};
use super::core::{Choice, Core, Forwarded, HashKey, Lease, Outcome, Program, TunnelRoom, Upstreams, add};
use super::io::{Reader, Stall, Writer, write_all};
use super::record::Tried;
use super::request::read_piece;
use super::response::{ReplyEnd, ReplyFault, Replying};
use super::watch::{Lane, Watch};
use super::{Connection, End, Exchange, Input, Next, RequestBodyState};
use crate::clock;
use crate::config::MissingHost;
use crate::error::{ClientFault, Fault, ResourceFault, UpstreamFault};
use crate::hash::fnv1a;
use crate::http1::bytes::decimal_digits;
use crate::http1::entry_set::EntrySet;
use crate::http1::head::RequestBody;
use crate::http1::write::{Addition, OutFraming, write_request_head};
use crate::limits::Timeouts;
use crate::plugin::frame::{ChunkFlow, Flow, Frame};
use crate::view::slab::{Buf, Slot};

/// How the body goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outgoing {
    /// There is none.
    None,
    /// All of it is in the slot, so many bytes.
    InSlot(usize),
    /// All of it is in [`Exchange::buffered`].
    Buffered,
    /// Piece by piece.
    Streamed(Framing),
}

/// Why sending the request body stopped before its end.
enum PumpFault {
    Client(ClientFault),
    /// The upstream does not take it; its response may still come.
    Upstream(UpstreamFault),
    Plugin(Flow),
}

/// How far the request body got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pumped {
    /// All of it was sent, if there is any.
    Whole,
    /// The upstream took no more; nothing that was read from the client is lost.
    Refused,
    /// A read from the client was given up, and may have taken bytes with it; or a write of what is all here was.
    Dropped,
}

/// How one attempt ended.
enum Attempt {
    Over(Next),
    Retry(UpstreamFault),
}

impl<R: Reader, W: Writer, U: Upstreams> Connection<'_, R, W, U> {
    /// Sends the request to the upstream and its response to the client.
    pub(super) async fn forward(&mut self, exchange: &mut Exchange, upstream: u32) -> Next {
        let program = Rc::clone(&exchange.program);
        let hash = self.hash_for(&program, upstream);
        let mut choice = Choice::new(upstream, hash);
        let outgoing = self.outgoing(exchange);
        let Ok(_room) = self.room_for_tunnel(exchange) else {
            return self.fail(exchange, Fault::Resource(ResourceFault::TunnelsExhausted)).await;
        };
        let mut retries = 0;
        loop {
            let leased = self.core.upstreams.lease(&mut choice, self.watch).await;
            exchange.tried = Tried { attempts: choice.attempt + 1, upstream: Some(upstream), server: choice.last() };
            let (fault, stale) = match leased {
                Ok(lease) => {
                    // A pooled connection that turns out to be dead says nothing about its server.
                    let reused = lease.reused;
                    choice.pooled = !reused;
                    match self.attempt(exchange, lease, outgoing).await {
                        Attempt::Over(next) => return next,
                        Attempt::Retry(fault) => (fault, reused),
                    }
                }
                Err(Fault::Upstream(fault)) => (fault, false),
                Err(fault) => return self.fail(exchange, fault).await,
            };
            self.watch.up.set(-1);
            self.watch.renew_upstream();
            choice.attempt += 1;
            if stale {
                choice.forgive_last();
            }
            let sent = !fault.is_before_the_request();
            let replayable = !matches!(outgoing, Outgoing::Streamed(_)) || (!sent && self.input_untouched(exchange));
            // RFC 9110 §9.2.2: what may have been sent is only repeated when the method is idempotent.
            let idempotent = !sent || self.is_idempotent();
            let again = fault.row().may_retry && replayable && idempotent && !self.watch.ended_upstream();
            // The one replay after a dead pooled connection loads nobody: the budget is for servers in trouble.
            if !again || !(stale || self.core.upstreams.may_retry(upstream, retries)) {
                return self.fail(exchange, Fault::Upstream(fault)).await;
            }
            retries += u32::from(!stale);
            if !stale {
                self.log_retry(exchange, fault);
            }
            add(&self.core.stats.upstream_retries, 1);
        }
    }

    /// Room for the tunnel that the request asks for, if it asks for one.
    fn room_for_tunnel(&self, exchange: &Exchange) -> Result<Option<TunnelRoom>, ()> {
        let asks = self.frame.borrow().request().request().method_id() == METHOD_CONNECT || self.wants_upgrade(exchange).is_some();
        if asks { self.core.tunnel_room(exchange.program.limits.tunnels_max()).map(Some).ok_or(()) } else { Ok(None) }
    }

    /// The connection goes back to the pool; the sweep must not touch it any more.
    pub(super) fn give_back(&self, lease: Lease<U::Reader, U::Writer>, outcome: Outcome) {
        self.watch.up.set(-1);
        self.watch.renew_upstream();
        self.core.upstreams.give_back(lease, outcome);
    }

    /// The connection is closed.
    pub(super) fn discard(&self, lease: Lease<U::Reader, U::Writer>, outcome: Outcome) {
        // A client that leaves says nothing about the server, and neither does the deadline of the whole exchange: a slow client can use it up.
        let ended_here = self.watch.has_left() || self.watch.expired(Lane::Exchange);
        let outcome = if ended_here { Outcome::Neutral } else { outcome };
        self.watch.up.set(-1);
        self.watch.renew_upstream();
        self.core.upstreams.discard(lease, outcome);
    }

    fn is_idempotent(&self) -> bool {
        use ringway_abi::ids::{METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_PUT, METHOD_TRACE};
        let method = self.frame.borrow().request().request().method_id();
        matches!(method, METHOD_GET | METHOD_HEAD | METHOD_OPTIONS | METHOD_TRACE | METHOD_PUT | METHOD_DELETE)
    }

    /// Nothing of a streamed body has been taken yet.
    fn input_untouched(&self, exchange: &Exchange) -> bool {
        exchange.body.received == 0 && self.input.at == exchange.facts.head_bytes as usize
    }

    fn hash_for(&self, program: &Program, upstream: u32) -> Option<u64> {
        match program.hash_keys.get(upstream as usize)? {
            HashKey::None => None,
            HashKey::Address => Some(fnv1a(&self.peer.address)),
            HashKey::Header(id, name) => {
                let frame = self.frame.borrow();
                let view = frame.request().request();
                let value = if *id == HeaderId::OTHER { view.header_named(name) } else { view.header(*id) };
                value.map(fnv1a)
            }
        }
    }

    fn outgoing(&self, exchange: &Exchange) -> Outgoing {
        if exchange.buffered.is_some() {
            return Outgoing::Buffered;
        }
        let plan = *self.frame.borrow().chain().plan();
        let edits_body = plan.has_want(raw::WANT_EDIT_REQUEST_BODY) && plan.has_hook(raw::HOOK_REQUEST_CHUNK);
        match exchange.facts.body {
            RequestBody::None => Outgoing::None,
            RequestBody::Length(length) => {
                let here = self.input.unread().len() as u64 >= length;
                match usize::try_from(length) {
                    Ok(length) if here => Outgoing::InSlot(length),
                    _ if edits_body => Outgoing::Streamed(Framing::Chunked),
                    _ => Outgoing::Streamed(Framing::Plain),
                }
            }
            RequestBody::Chunked => Outgoing::Streamed(Framing::Chunked),
        }
    }

    /// One attempt on one connection.
    async fn attempt(&mut self, exchange: &mut Exchange, mut lease: Lease<U::Reader, U::Writer>, outgoing: Outgoing) -> Attempt {
        let Some(slot) = self.core.slab.take() else {
            self.give_back(lease, Outcome::Neutral);
            return Attempt::Over(self.fail(exchange, Fault::Resource(ResourceFault::SlotsExhausted)).await);
        };
        let layout = *slot.layout();
        let upgrade = self.wants_upgrade(exchange);
        let Some(head) = self.write_head(exchange, outgoing, upgrade.as_deref(), &lease) else {
            self.give_back(lease, Outcome::Neutral);
            return Attempt::Over(self.fail(exchange, Fault::Resource(ResourceFault::HeadDoesNotFit)).await);
        };
        let expects = self.expects_continue(outgoing);
        // Head and body leave in one write when they fit.
        let (appended, rest) = self.append_body(exchange, outgoing, head);
        let times = self.frame.borrow().chain().plan().has_want(raw::WANT_TIME);
        let sent_at = if times || exchange.program.access_log { clock::monotonic_ns() } else { 0 };
        let stall = Stall::new(self.watch, Lane::UpWrite, exchange.timeouts().write_stall);
        let first = Buf::slot(self.input.slot.clone(), layout.out_at()..layout.out_at() + head + appended);
        let written = write_all(&mut lease.writer, stall, first).await.0;
        if self.watch.expired(Lane::UpWrite) {
            self.discard(lease, Outcome::Failed(UpstreamFault::WriteTimeout));
            return Attempt::Over(self.fail(exchange, Fault::Upstream(UpstreamFault::WriteTimeout)).await);
        }
        if written.is_err() && lease.reused {
            self.discard(lease, Outcome::Neutral);
            return Attempt::Retry(UpstreamFault::WriteFailed);
        }
        // On a fresh connection a failed write may have an answer behind it: the response is read all the same.
        let rest = rest.filter(|_| written.is_ok());
        if let Outgoing::InSlot(length) = outgoing {
            exchange.body.received = length as u64;
        }
        let program = Rc::clone(&exchange.program);
        let timeouts = exchange.route.map_or(&program.timeouts, |at| &program.routes[at].timeouts);
        let pump_done = Cell::new(!matches!(outgoing, Outgoing::Streamed(_)) && rest.is_none());
        let refused = Cell::new(false);
        let body_unasked = Cell::new(false);
        let awaits_head = Cell::new(true);
        let mut replying = Replying {
            core: self.core,
            watch: self.watch,
            program: &program,
            frame: &self.frame,
            writer: &mut *self.writer,
            reply: &mut exchange.reply,
            facts: &exchange.facts,
            timeouts,
            persist: exchange.persist,
            upgrade: upgrade.as_deref(),
            pump_done: &pump_done,
            body_unasked: &body_unasked,
            awaits_head: &awaits_head,
            expects,
            sent_at,
        };
        let watch = self.watch;
        let patience = async {
            if !watch.expired(Lane::Exchange) {
                watch.alarm(timeouts.linger).await;
            }
        };
        let ended = |whole: bool| {
            pump_done.set(whole);
            refused.set(!whole);
            if awaits_head.get() {
                self.watch.arm(Lane::UpRead, timeouts.first_byte);
            }
        };
        let outcome = match (outgoing, rest) {
            (Outgoing::Streamed(framing), _) => {
                let pump = Pump {
                    core: self.core,
                    watch: self.watch,
                    frame: &self.frame,
                    reader: &mut *self.reader,
                    input: &mut self.input,
                    body: &mut exchange.body,
                    framing,
                    timeouts,
                };
                both(pin!(pump.run(&mut lease.writer)), pin!(replying.run(&mut lease.reader, slot)), pin!(patience), &body_unasked, ended).await
            }
            (_, Some(rest)) => {
                let pump = send_rest(&mut lease.writer, stall, self.watch, rest);
                both(pin!(pump), pin!(replying.run(&mut lease.reader, slot)), pin!(patience), &body_unasked, ended).await
            }
            _ => Both::Reply(replying.run(&mut lease.reader, slot).await),
        };
        let pumped = match (pump_done.get(), refused.get()) {
            (true, _) => Pumped::Whole,
            (false, true) => Pumped::Refused,
            (false, false) => Pumped::Dropped,
        };
        self.conclude(exchange, lease, outgoing, outcome, pumped).await
    }

    /// What the outcome of an attempt means for the connections.
    async fn conclude(&mut self, exchange: &mut Exchange, lease: Lease<U::Reader, U::Writer>, outgoing: Outgoing, outcome: Both, pumped: Pumped) -> Attempt {
        let body_sent = pumped == Pumped::Whole;
        // A response that waits in a post hook was shown to some links: no other one takes its place.
        let answered = exchange.reply.status != 0 || exchange.reply.interim || self.frame.borrow().is_suspended();
        // The body's read was given up and may have taken bytes with it, or the write of a body in the slot was, whose bytes must not move: nothing
        // more can be read from the client. A buffer of its own binds nobody.
        let cut_short = match outgoing {
            Outgoing::Streamed(_) => !body_sent,
            Outgoing::InSlot(_) => pumped == Pumped::Dropped,
            Outgoing::Buffered | Outgoing::None => false,
        };
        if cut_short && pumped == Pumped::Dropped && matches!(outcome, Both::Reply(_)) {
            exchange.persist = false;
        }
        match outcome {
            Both::Reply(Ok(end)) => {
                if let Some(leftover) = end.tunnel {
                    return Attempt::Over(Box::pin(self.tunnel(exchange, lease, leftover)).await);
                }
                let outcome = Outcome::of(end.status);
                // RFC 9110 §15.5.9: a server that answers 408 is about to close.
                if end.reusable && body_sent && end.status != REQUEST_TIMEOUT {
                    self.give_back(lease, outcome)
                } else {
                    self.discard(lease, outcome)
                }
                if let Outgoing::InSlot(length) = outgoing {
                    self.input.at += length;
                }
                if cut_short {
                    if self.watch.expired(Lane::Exchange) {
                        exchange.reply.fault.get_or_insert(Fault::Resource(ResourceFault::ExchangeTimeout));
                        return Attempt::Over(Next::End(End::Linger));
                    }
                    // RFC 9112 §9.3: the response came before the request was read; the rest is read and thrown away.
                    let drains = pumped == Pumped::Refused && !end.close && self.can_drain(exchange);
                    return Attempt::Over(if drains { self.drain(exchange).await } else { Next::End(End::Linger) });
                }
                Attempt::Over(if end.close { Next::End(End::Linger) } else { Next::KeepAlive })
            }
            Both::Reply(Err(ReplyFault::Unanswered(fault))) => {
                let stale = lease.reused && fault == UpstreamFault::ClosedEarly;
                self.discard(lease, if stale { Outcome::Neutral } else { Outcome::Failed(fault) });
                if fault.row().may_retry {
                    return Attempt::Retry(fault);
                }
                Attempt::Over(self.fail(exchange, Fault::Upstream(fault)).await)
            }
            Both::Reply(Err(ReplyFault::Broken(fault))) => {
                self.discard(lease, Outcome::Failed(fault));
                exchange.reply.fault = Some(self.cause(Fault::Upstream(fault)));
                let is_gone = self.watch.has_left() && !self.watch.is_cut_off();
                Attempt::Over(Next::End(if exchange.reply.framed && !is_gone { End::Cut } else { End::Abort }))
            }
            Both::Reply(Err(ReplyFault::ClientGone)) => {
                self.discard(lease, Outcome::Neutral);
                exchange.reply.fault = Some(self.not_taken());
                Attempt::Over(Next::End(End::Abort))
            }
            Both::Reply(Err(ReplyFault::Internal(fault))) => {
                self.discard(lease, Outcome::Neutral);
                if exchange.reply.status != 0 || exchange.reply.interim {
                    exchange.reply.fault.get_or_insert(self.cause(fault));
                    return Attempt::Over(Next::End(End::Abort));
                }
                if answered {
                    // Some links have seen the response that does not come now.
                    return Attempt::Over(self.fail_plainly(exchange, self.cause(fault)).await);
                }
                Attempt::Over(self.fail(exchange, fault).await)
            }
            // SPEC S-35: no response of the upstream was shown, so the post hooks have not run.
            Both::Pump(PumpFault::Plugin(Flow::Respond)) if !answered => {
                self.discard(lease, Outcome::Neutral);
                Attempt::Over(self.answer(exchange).await)
            }
            Both::Reply(Err(ReplyFault::Hook(flow))) | Both::Pump(PumpFault::Plugin(flow)) => {
                self.discard(lease, Outcome::Neutral);
                // A body in the slot is still unread here: sending the answer skips it.
                Attempt::Over(self.after_hook(exchange, flow, answered).await)
            }
            Both::Pump(PumpFault::Client(fault)) => {
                self.discard(lease, Outcome::Neutral);
                if answered || (fault == ClientFault::BodyIncomplete && !self.watch.expired(Lane::Exchange)) {
                    exchange.reply.fault = Some(Fault::Client(fault));
                    return Attempt::Over(Next::End(End::Abort));
                }
                Attempt::Over(self.fail(exchange, Fault::Client(fault)).await)
            }
            // As when the head cannot be written: another connection may take all of it.
            Both::Pump(PumpFault::Upstream(fault)) if !answered && fault.row().may_retry && !matches!(outgoing, Outgoing::Streamed(_)) => {
                let outcome = if lease.reused { Outcome::Neutral } else { Outcome::Failed(fault) };
                self.discard(lease, outcome);
                Attempt::Retry(fault)
            }
            Both::Pump(PumpFault::Upstream(fault)) => {
                // A pooled connection that turns out to be dead says nothing about its server, though the body cannot be sent once more.
                let stale = lease.reused && fault == UpstreamFault::WriteFailed;
                self.discard(lease, if stale { Outcome::Neutral } else { Outcome::Failed(fault) });
                if answered {
                    exchange.reply.fault.get_or_insert(self.cause(Fault::Upstream(fault)));
                    return Attempt::Over(Next::End(End::Abort));
                }
                Attempt::Over(self.fail(exchange, Fault::Upstream(fault)).await)
            }
        }
    }

    /// A hook stopped the exchange while the upstream was involved.
    async fn after_hook(&mut self, exchange: &mut Exchange, flow: Flow, answered: bool) -> Next {
        match flow {
            _ if answered => {
                if let Flow::Fault(fault) = flow {
                    exchange.reply.fault.get_or_insert(Fault::Plugin(fault));
                }
                Next::End(End::Abort)
            }
            Flow::Respond => self.send_made(exchange).await,
            Flow::Fault(fault) => self.fail(exchange, Fault::Plugin(fault)).await,
            Flow::Drop | Flow::Continue | Flow::NeedBody(_) | Flow::Suspend(_) => Next::End(End::Abort),
        }
    }

    /// The protocol that the route lets this request upgrade to.
    fn wants_upgrade(&self, exchange: &Exchange) -> Option<Vec<u8>> {
        if !exchange.facts.upgrade || exchange.buffered.is_some() || exchange.facts.body != RequestBody::None {
            return None;
        }
        let route = &exchange.program.routes[exchange.route?];
        let frame = self.frame.borrow();
        let asked = frame.request().request().header(HeaderId::UPGRADE)?;
        let allowed = route.allow_upgrade.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(asked));
        // RFC 6455 §4.1: only a well-formed opening handshake goes on as one.
        let well_formed = exchange.facts.websocket || !asked.eq_ignore_ascii_case(b"websocket");
        (allowed && well_formed).then(|| asked.to_vec())
    }

    /// Whether a request of this body says `Expect: 100-continue` to the upstream, if its client did.
    fn expects_continue(&self, outgoing: Outgoing) -> bool {
        matches!(outgoing, Outgoing::Streamed(_)) && self.watch.awaits_continue()
    }

    /// Lays the request head out in the out area; `None` when it does not fit.
    fn write_head(&mut self, exchange: &Exchange, outgoing: Outgoing, upgrade: Option<&[u8]>, lease: &Lease<U::Reader, U::Writer>) -> Option<usize> {
        let program = &exchange.program;
        let frame = self.frame.borrow();
        let view = frame.request().request();
        // What the client asked for, whatever a plugin made of it.
        let authority = frame.request().received_request().authority();
        let mut dropped = exchange.facts.dropped;
        let mut withheld: smallvec::SmallVec<[HeaderId; 2]> = smallvec::SmallVec::new();
        let trusted = self.peer.trusted;
        if !trusted {
            drop_received(view, &mut dropped, self.input.slot.bytes(0..self.input.filled), &FORWARDING);
        }
        // RFC 9110 §10.1.1: nobody waits for 100 once the body is on its way, or when there is none.
        if !self.expects_continue(outgoing) {
            withheld.push(HeaderId::EXPECT);
        }
        let framing = match outgoing {
            Outgoing::None | Outgoing::InSlot(_) | Outgoing::Streamed(Framing::Plain) => OutFraming::AsReceived,
            Outgoing::Streamed(Framing::Chunked) => OutFraming::Chunked,
            Outgoing::Buffered => OutFraming::Length(exchange.buffered.as_ref().map_or(0, Vec::len) as u64),
        };
        let mut hops = [0u8; 20];
        let mut rfc7239;
        let mut additions = Additions::default();
        if !program.via.is_empty() {
            additions.push(b"via", &program.via);
        }
        // Exactly one Host leaves: a plugin's, or the upstream's name for its servers, or the client's, or one that stands in for none.
        let client_host = view.header(HeaderId::HOST).is_none_or(|value| self.input.slot.bytes(0..self.input.filled).as_ptr_range().contains(&value.as_ptr()));
        if let Some(host) = program.hosts.get(lease.upstream as usize)
            && client_host
            && (host.replace || view.header(HeaderId::HOST).is_none() && view.flags() & REQ_ABSOLUTE_TARGET == 0)
        {
            drop_received(view, &mut dropped, self.input.slot.bytes(0..self.input.filled), &[HeaderId::HOST]);
            additions.push(
                b"host",
                match &program.http.missing_host {
                    // CONNECT of HTTP/1.0.
                    _ if !host.replace && !view.authority().is_empty() => view.authority(),
                    MissingHost::Named(name) if !host.replace => name.as_bytes(),
                    _ => host.names.get(lease.server as usize).map_or(&[], Vec::as_slice),
                },
            );
        }
        // RFC 9110 §7.6.2: one hop less.
        if let Some(left) = exchange.facts.max_forwards {
            withheld.push(HeaderId::MAX_FORWARDS);
            let (digits, count) = decimal_digits(u64::from(left.saturating_sub(1)));
            hops[..count].copy_from_slice(&digits[digits.len() - count..]);
            additions.push(b"max-forwards", &hops[..count]);
        }
        match program.forwarded {
            Forwarded::XForwarded => {
                additions.push(b"x-forwarded-for", self.peer_text.as_bytes());
                if !trusted || view.header(HeaderId::X_FORWARDED_PROTO).is_none() {
                    additions.push(b"x-forwarded-proto", b"http");
                }
                if (!trusted || view.header(HeaderId::X_FORWARDED_HOST).is_none()) && !authority.is_empty() {
                    additions.push(b"x-forwarded-host", authority);
                }
            }
            Forwarded::Rfc7239 => {
                rfc7239 = [0u8; 512];
                let count = forwarded_value(&mut rfc7239, &self.peer_text, authority);
                if count > 0 {
                    additions.push(b"forwarded", &rfc7239[..count]);
                }
            }
            Forwarded::Off => {}
        }
        if let Some(protocol) = upgrade {
            additions.push(b"connection", b"upgrade");
            additions.push(b"upgrade", protocol);
        }
        let layout = *self.input.slot.layout();
        let mut slot = self.input.slot.clone();
        let received = self.input.slot.bytes(0..exchange.facts.head_bytes as usize);
        let out = slot.bytes_mut(layout.out_at()..layout.out_at() + layout.out());
        write_request_head(out, view, received, &dropped, &withheld, framing, additions.as_slice()).ok()
    }

    /// Puts what fits of a body that is here behind the head. Returns how much, and what is left to write.
    fn append_body(&mut self, exchange: &mut Exchange, outgoing: Outgoing, head: usize) -> (usize, Option<Buf>) {
        let layout = *self.input.slot.layout();
        let room = layout.out() - head;
        let at = layout.out_at() + head;
        match outgoing {
            Outgoing::InSlot(length) if length <= room => {
                let (from, mut slot) = (self.input.at, self.input.slot.clone());
                slot.bytes_mut(at..at + length).copy_from_slice(self.input.slot.bytes(from..from + length));
                (length, None)
            }
            Outgoing::InSlot(length) => (0, Some(Buf::slot(self.input.slot.clone(), self.input.at..self.input.at + length))),
            Outgoing::Buffered => {
                let body = exchange.buffered.as_deref().unwrap_or_default();
                if body.len() <= room {
                    self.input.slot.bytes_mut(at..at + body.len()).copy_from_slice(body);
                    (body.len(), None)
                } else {
                    (0, Some(Buf::heap(body.to_vec(), None)))
                }
            }
            Outgoing::None | Outgoing::Streamed(_) => (0, None),
        }
    }
}

/// The status of a server that gave up waiting for a request: whatever the connection carries next is answered by nobody.
pub(super) const REQUEST_TIMEOUT: u16 = 408;

/// Lines that only a trusted peer may set.
const FORWARDING: [HeaderId; 5] =
    [HeaderId::X_FORWARDED_FOR, HeaderId::X_FORWARDED_PROTO, HeaderId::X_FORWARDED_HOST, HeaderId::FORWARDED, HeaderId::X_REAL_IP];

/// Marks the received lines with these ids as dropped; what a plugin has set stays.
fn drop_received(view: &ringway_abi::RequestView, dropped: &mut EntrySet, received: &[u8], ids: &[HeaderId]) {
    let wanted = ids.iter().fold(0u64, |mask, id| mask | 1 << id.0);
    if view.known_mask() & wanted == 0 {
        return;
    }
    let range = received.as_ptr_range();
    for (at, entry) in view.entries().iter().enumerate() {
        let from_client = entry.value().is_empty() || range.contains(&entry.value().as_ptr());
        if from_client && ids.contains(&entry.id()) {
            dropped.insert(at);
        }
    }
}

/// `for=…;host=…;proto=http` of RFC 7239 §4; 0 when it does not fit.
fn forwarded_value(out: &mut [u8], peer: &crate::address::Text, authority: &[u8]) -> usize {
    use std::io::Write;
    let room = out.len();
    let mut rest = out;
    let address = String::from_utf8_lossy(peer.as_bytes());
    // RFC 7239 §6: an IPv6 address is quoted and bracketed. A Unix peer has no address.
    let begun = match (peer.is_v6(), peer.as_bytes()) {
        (true, _) => write!(rest, "for=\"[{address}]\""),
        (false, b"unix") => write!(rest, "for=unknown"),
        (false, _) => write!(rest, "for={address}"),
    };
    let quoted = authority.iter().any(|b| !b.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(b));
    let host = String::from_utf8_lossy(authority);
    let named = match (authority.is_empty(), quoted) {
        (true, _) => Ok(()),
        (false, true) => write!(rest, ";host=\"{host}\""),
        (false, false) => write!(rest, ";host={host}"),
    };
    match begun.and(named).and_then(|()| write!(rest, ";proto=http")) {
        Ok(()) => room - rest.len(),
        Err(_) => 0,
    }
}

/// The lines that the gateway adds, without an allocation.
#[derive(Default)]
struct Additions<'a> {
    lines: smallvec::SmallVec<[Addition<'a>; 6]>,
}

impl<'a> Additions<'a> {
    fn push(&mut self, name: &'static [u8], value: &'a [u8]) {
        self.lines.push(Addition { name, value });
    }

    fn as_slice(&self) -> &[Addition<'a>] {
        &self.lines
    }
}

/// Sends the request body while the response is awaited.
struct Pump<'a, R, U> {
    core: &'a Core<U>,
    watch: &'a Watch,
    frame: &'a RefCell<Frame>,
    reader: &'a mut R,
    input: &'a mut Input,
    body: &'a mut RequestBodyState,
    framing: Framing,
    timeouts: &'a Timeouts,
}

impl<R: Reader, U: Upstreams> Pump<'_, R, U> {
    async fn run<W: Writer>(mut self, writer: &mut W) -> Result<(), PumpFault> {
        let slot: Slot = self.input.slot.clone();
        let out = slot.layout().out_at()..slot.layout().out_at() + slot.layout().out();
        let mut relay = self.core.relay.take(|| Buf::slot(slot, out));
        let result = loop {
            let (result, returned) = self.step(writer, relay).await;
            relay = returned;
            match result {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(fault) => break Err(fault),
            }
        };
        self.core.relay.give_back(relay);
        result
    }

    /// One piece; true after the last.
    async fn step<W: Writer>(&mut self, writer: &mut W, relay: Buf) -> (Result<bool, PumpFault>, Buf) {
        let idle_ms = self.timeouts.body_idle;
        let offset = self.body.received;
        let (piece, mut relay) = read_piece(self.reader, self.watch, self.input, self.body, idle_ms, relay).await;
        let mut count = match piece {
            Ok(count) => count,
            Err(fault) => return (Err(PumpFault::Client(fault)), relay),
        };
        let last = self.body.reader.is_done();
        let mut replaced = None;
        {
            let mut frame = self.frame.borrow_mut();
            if frame.chain().plan().has_hook(raw::HOOK_REQUEST_CHUNK) {
                let shown = &relay.region_mut()[PREFIX_BYTES..PREFIX_BYTES + count];
                match frame.run_request_chunk(shown, offset, last) {
                    ChunkFlow::Forward => {}
                    ChunkFlow::Replaced => replaced = frame.take_replacement(),
                    ChunkFlow::Stop(flow) => return (Err(PumpFault::Plugin(flow)), relay),
                }
            }
        }
        let stall = Stall::new(self.watch, Lane::UpWrite, self.timeouts.write_stall);
        let written = match replaced {
            Some(bytes) => {
                // The replacement goes out framed like any piece, from a buffer of its own size.
                let mut framed = vec![0; bytes.len() + PREFIX_BYTES + super::body::SUFFIX_BYTES];
                framed[PREFIX_BYTES..PREFIX_BYTES + bytes.len()].copy_from_slice(&bytes);
                count = bytes.len();
                let range = self.framing.wrap(&mut framed, count, last);
                write_all(writer, stall, Buf::heap(framed, None).narrowed(range)).await.0
            }
            None => {
                let range = self.framing.wrap(relay.region_mut(), count, last);
                relay.narrow(range);
                let (result, returned) = write_all(writer, stall, relay).await;
                relay = returned;
                result
            }
        };
        match written {
            Ok(()) => (Ok(last), relay),
            Err(_) if self.watch.expired(Lane::UpWrite) => (Err(PumpFault::Upstream(UpstreamFault::WriteTimeout)), relay),
            Err(_) => (Err(PumpFault::Upstream(UpstreamFault::WriteFailed)), relay),
        }
    }
}

/// Writes what did not fit behind the head, of a body that is all here.
async fn send_rest<W: Writer>(writer: &mut W, stall: Stall<'_>, watch: &Watch, rest: Buf) -> Result<(), PumpFault> {
    match write_all(writer, stall, rest).await.0 {
        Ok(()) => Ok(()),
        Err(_) if watch.expired(Lane::UpWrite) => Err(PumpFault::Upstream(UpstreamFault::WriteTimeout)),
        Err(_) => Err(PumpFault::Upstream(UpstreamFault::WriteFailed)),
    }
}

/// What came first.
enum Both {
    Reply(Result<ReplyEnd, ReplyFault>),
    Pump(PumpFault),
}

/// Runs the body and the response at once. The response decides, unless the body fails through the client or a plugin:
/// an upstream that stops reading may still answer. A response that is complete before the body gives the body `patience` to get to its end, so
/// that the client's connection need not end with it. A body that is `unasked` is read no further. `ended` is told when the body has been sent, or never
/// will be whole.
/// It takes pinned futures: arguments by value would have their room twice.
fn both<'a>(
    mut pump: Pin<&'a mut impl Future<Output = Result<(), PumpFault>>>,
    mut reply: Pin<&'a mut impl Future<Output = Result<ReplyEnd, ReplyFault>>>,
    mut patience: Pin<&'a mut impl Future<Output = ()>>,
    unasked: &'a Cell<bool>,
    ended: impl Fn(bool) + 'a,
) -> impl Future<Output = Both> + 'a {
    let mut pumping = true;
    let mut refused = None;
    let mut replied = None;
    poll_fn(move |cx| {
        if pumping
            && !unasked.get()
            && let Poll::Ready(result) = pump.as_mut().poll(cx)
        {
            pumping = false;
            match result {
                Ok(()) => ended(true),
                Err(PumpFault::Upstream(fault)) => {
                    ended(false);
                    refused = Some(fault);
                }
                // The client has its answer: what it does not send any more is between the two of us.
                Err(_) if replied.is_some() => {}
                Err(fault) => return Poll::Ready(Both::Pump(fault)),
            }
        }
        if replied.is_none() {
            match reply.as_mut().poll(cx) {
                Poll::Ready(Ok(end)) if pumping && end.waits => replied = Some(end),
                Poll::Ready(Err(ReplyFault::Unanswered(fault))) => {
                    return Poll::Ready(match refused {
                        Some(refused) => Both::Pump(PumpFault::Upstream(refused)),
                        None => Both::Reply(Err(ReplyFault::Unanswered(fault))),
                    });
                }
                Poll::Ready(result) => return Poll::Ready(Both::Reply(result)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if pumping && patience.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        match replied.take() {
            Some(end) => Poll::Ready(Both::Reply(Ok(end))),
            None => Poll::Pending,
        }
    })
}
