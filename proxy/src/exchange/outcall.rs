//! Outcalls: requests of plugins on the worker's upstream connections, while their exchange waits.
//!
//! Owns: one request and its reply, from the lease to the view in the slot, and what is under way of one exchange (`UnderWay`). Must not: touch the client's
//! connection, the upstream connection of the exchange or its deadlines: an outcall has a [`Watch`] of its own, which the worker sweeps with the others.
//!
//! The rules are those of a forwarded request (see `forward`): one replay after a dead pooled connection, retries within the budget, servers blamed for what they
//! did. Dropping the future closes the connection: what may still be written to the slot keeps it until its completion.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ringway_abi::outcall::{BROKEN, TIMEOUT, UNREACHABLE};
use ringway_abi::raw::{ERR_NO_SPACE, OK};
use ringway_abi::view::{RES_BODY_COMPLETE, RES_HAS_BODY};

use super::body::BodyReader;
use super::core::{Choice, Core, HashKey, Lease, Outcome, Program, Upstreams, add};
use super::forward::REQUEST_TIMEOUT;
use super::io::{Reader, Stall, write_all};
use super::request::chunk_limits;
use super::watch::{Lane, Watch};
use crate::error::{Fault, UpstreamFault};
use crate::hash::fnv1a;
use crate::http1::head::{Area, HeadProgress, ResponseBody, ResponseFacts, ResponseTo, parse_response};
use crate::limits::Timeouts;
use crate::plugin::frame::{Event, Frame};
use crate::plugin::outcall::Call;
use crate::view::message::{Message, Side};
use crate::view::slab::Buf;

/// Room behind the body of a reply for the framing of its last chunk.
pub const CHUNK_FRAMING_BYTES: usize = 64;

/// The watches of a worker's outcalls, for its sweep; made when first needed and kept.
#[derive(Default)]
pub struct Outcalls {
    watches: RefCell<Vec<Rc<Watch>>>,
    free: RefCell<Vec<Rc<Watch>>>,
}

impl Outcalls {
    /// Each watch, in use or not.
    pub fn each(&self, sweep: impl Fn(&Watch)) {
        self.watches.borrow().iter().for_each(|watch| sweep(watch));
    }

    fn take(&self) -> Rc<Watch> {
        self.free.borrow_mut().pop().unwrap_or_else(|| {
            let watch = Rc::new(Watch::default());
            self.watches.borrow_mut().push(Rc::clone(&watch));
            watch
        })
    }
}

/// The reply of a call with this token.
type Reply = (u64, Result<Message, i32>);

/// The outcalls that one exchange waits for. Dropping it gives them up.
pub(super) struct UnderWay<'a, U> {
    core: &'a Core<U>,
    program: &'a Program,
    timeouts: &'a Timeouts,
    calls: Vec<Pin<Box<dyn Future<Output = Reply> + 'a>>>,
}

impl<'a, U: Upstreams> UnderWay<'a, U> {
    /// None yet.
    pub(super) fn new(core: &'a Core<U>, program: &'a Program, timeouts: &'a Timeouts) -> Self {
        UnderWay { core, program, timeouts, calls: Vec::new() }
    }

    /// Another link waits: what was under way is given up.
    pub(super) fn clear(&mut self) {
        self.calls.clear();
    }

    /// Takes what the link that waits has sent.
    pub(super) fn start(&mut self, frame: &mut Frame) {
        while let Some(call) = frame.take_call() {
            let peer = frame.request().request().peer_addr();
            self.calls.push(Box::pin(run(self.core, self.program, self.timeouts, call, peer)));
        }
    }

    /// The first that is over, if any; the message of its reply lives as long as the event is shown.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<(Event, Option<Message>)> {
        for at in 0..self.calls.len() {
            if let Poll::Ready((token, reply)) = self.calls[at].as_mut().poll(cx) {
                drop(self.calls.swap_remove(at));
                let status = reply.as_ref().err().copied().unwrap_or(OK);
                return Some((Event::Reply { token, status }, reply.ok()));
            }
        }
        None
    }
}

/// A watch and the connection that it guards. Dropping it closes the connection, unless it was given back.
struct Leased<'a, U: Upstreams> {
    core: &'a Core<U>,
    watch: Rc<Watch>,
    lease: Option<Lease<U::Reader, U::Writer>>,
}

impl<U: Upstreams> Leased<'_, U> {
    /// The lease is over; the sweep must not touch its socket any more.
    fn release(&mut self) -> Option<Lease<U::Reader, U::Writer>> {
        self.watch.up.set(-1);
        self.watch.renew_upstream();
        self.lease.take()
    }

    fn discard(&mut self, outcome: Outcome) {
        if let Some(lease) = self.release() {
            self.core.upstreams.discard(lease, outcome);
        }
    }

    fn give_back(&mut self, outcome: Outcome) {
        if let Some(lease) = self.release() {
            self.core.upstreams.give_back(lease, outcome);
        }
    }
}

impl<U: Upstreams> Drop for Leased<'_, U> {
    fn drop(&mut self) {
        self.discard(Outcome::Neutral);
        self.core.outcalls.free.borrow_mut().push(Rc::clone(&self.watch));
    }
}

async fn run<U: Upstreams>(core: &Core<U>, program: &Program, timeouts: &Timeouts, mut call: Call, peer: [u8; 16]) -> Reply {
    let hash = match program.hash_keys.get(call.upstream as usize) {
        Some(HashKey::Address) => Some(fnv1a(&peer)),
        // There is no client's header to hash: in turn.
        _ => None,
    };
    let reply = send(core, program, timeouts, &mut call, hash).await;
    call.end(reply.is_ok());
    (call.token, reply)
}

/// Sends the request and reads the whole reply.
///
/// # Errors
/// The status of the event.
async fn send<U: Upstreams>(core: &Core<U>, program: &Program, timeouts: &Timeouts, call: &mut Call, hash: Option<u64>) -> Result<Message, i32> {
    let mut choice = Choice::new(call.upstream, hash);
    let mut leased = Leased { core, watch: core.outcalls.take(), lease: None };
    let mut retries = 0;
    loop {
        let (fault, stale) = match core.upstreams.lease(&mut choice, &leased.watch).await {
            Ok(lease) => {
                let reused = lease.reused;
                choice.pooled = !reused;
                leased.lease = Some(lease);
                match attempt(&mut leased, program, timeouts, call).await {
                    Ok((message, reusable)) => {
                        let status = message.response().status();
                        let outcome = Outcome::of(status);
                        if reusable && status != REQUEST_TIMEOUT {
                            leased.give_back(outcome);
                        } else {
                            leased.discard(outcome);
                        }
                        return Ok(message);
                    }
                    Err(Failure::Here(status)) => {
                        leased.discard(Outcome::Neutral);
                        return Err(status);
                    }
                    Err(Failure::There(fault)) => {
                        // A pooled connection that turns out to be dead says nothing about its server.
                        let stale = reused && is_silent(fault);
                        leased.discard(if stale { Outcome::Neutral } else { Outcome::Failed(fault) });
                        (fault, stale)
                    }
                }
            }
            Err(fault) => {
                leased.discard(Outcome::Neutral);
                match fault {
                    Fault::Upstream(fault) => (fault, false),
                    // Something is missing here: another server would not help.
                    _ => return Err(UNREACHABLE),
                }
            }
        };
        choice.attempt += 1;
        if stale {
            choice.forgive_last();
        }
        let sent = !fault.is_before_the_request();
        // RFC 9110 §9.2.2: what may have been sent is only repeated when the method is idempotent. The lines are there as long as nothing has come.
        let again = fault.row().may_retry && (!sent || is_silent(fault) && call.is_idempotent());
        if !again || !(stale || core.upstreams.may_retry(call.upstream, retries)) {
            return Err(status_of(fault));
        }
        retries += u32::from(!stale);
        add(&core.stats.upstream_retries, 1);
    }
}

/// Nothing of a reply had come.
fn is_silent(fault: UpstreamFault) -> bool {
    matches!(fault, UpstreamFault::ClosedEarly | UpstreamFault::WriteFailed)
}

/// What a fault of the upstream is for a plugin.
fn status_of(fault: UpstreamFault) -> i32 {
    match fault {
        UpstreamFault::NoServer | UpstreamFault::ConnectFailed | UpstreamFault::WriteFailed => UNREACHABLE,
        UpstreamFault::ConnectTimeout | UpstreamFault::WriteTimeout | UpstreamFault::FirstByteTimeout | UpstreamFault::ReadTimeout => TIMEOUT,
        _ => BROKEN,
    }
}

/// Why an attempt failed.
enum Failure {
    /// Through the server or the way to it.
    There(UpstreamFault),
    /// Through a bound of the gateway, with this status.
    Here(i32),
}

impl From<UpstreamFault> for Failure {
    fn from(fault: UpstreamFault) -> Failure {
        Failure::There(fault)
    }
}

/// One attempt on the leased connection; whether the connection can be used again.
async fn attempt<U: Upstreams>(leased: &mut Leased<'_, U>, program: &Program, timeouts: &Timeouts, call: &mut Call) -> Result<(Message, bool), Failure> {
    let watch = Rc::clone(&leased.watch);
    let Some(lease) = &mut leased.lease else { return Err(UpstreamFault::NoServer.into()) };
    let host = program.hosts.get(lease.upstream as usize).and_then(|policy| policy.names.get(lease.server as usize)).map_or(&[][..], Vec::as_slice);
    let Some(request) = call.lay_out(host) else { return Err(Failure::Here(ERR_NO_SPACE)) };
    let stall = Stall::new(&watch, Lane::UpWrite, timeouts.write_stall);
    let written = write_all(&mut lease.writer, stall, Buf::slot(call.slot.clone(), request)).await.0;
    if watch.expired(Lane::UpWrite) {
        return Err(UpstreamFault::WriteTimeout.into());
    }
    // On a fresh connection a failed write may have an answer behind it: the reply is read all the same.
    if written.is_err() && lease.reused {
        return Err(UpstreamFault::WriteFailed.into());
    }
    let mut replying = Replying { reader: &mut lease.reader, watch: &watch, program, timeouts, call, filled: 0 };
    let (facts, entries) = replying.read_head().await?;
    let body = replying.read_body(&facts).await?;
    let mut message = Message::parsed(call.slot.clone(), Side::Response, entries);
    message.set_body_span(call.slot.layout().out_at(), body.bytes);
    message.set_response_facts(|root| {
        root.request_id = call.request_id;
        root.content_length = match facts.body {
            ResponseBody::Length(length) => length,
            _ if body.whole => body.bytes as u64,
            _ => u64::MAX,
        };
        root.flags = if body.whole { RES_BODY_COMPLETE } else { 0 } | if body.bytes > 0 || !body.whole { RES_HAS_BODY } else { 0 };
    });
    Ok((message, facts.persist && body.in_order && written.is_ok()))
}

/// A reply on its way in.
struct Replying<'a, R> {
    reader: &'a mut R,
    watch: &'a Watch,
    program: &'a Program,
    timeouts: &'a Timeouts,
    call: &'a mut Call,
    /// Bytes in the receive area.
    filled: usize,
}

/// The body as it stands at the beginning of the out area.
struct Body {
    bytes: usize,
    /// Nothing was cut off.
    whole: bool,
    /// The connection ended where its framing says, and brought nothing else.
    in_order: bool,
}

impl<R: Reader> Replying<'_, R> {
    /// Reads the final head into the slot; interim ones are skipped.
    async fn read_head(&mut self) -> Result<(ResponseFacts, usize), UpstreamFault> {
        let mut progress = HeadProgress::default();
        let mut interim = 0;
        let capacity = self.call.slot.layout().receive();
        let to = ResponseTo { method_id: self.call.method_id, upgrade: false };
        self.watch.arm(Lane::UpRead, self.timeouts.first_byte);
        loop {
            if self.filled > 0 {
                let (bytes, entries, root) = self.call.slot.response_parts();
                let area = Area { bytes, filled: self.filled };
                match parse_response(area, &self.program.head_limits, &self.program.names, entries, root, to, &mut progress)? {
                    Some(facts) if facts.status < 200 => {
                        interim += 1;
                        if interim > self.program.limits.interim_responses {
                            return Err(UpstreamFault::TooManyInterim);
                        }
                        self.call.slot.bytes_mut(0..self.filled).copy_within(facts.head_bytes as usize.., 0);
                        self.filled -= facts.head_bytes as usize;
                        progress = HeadProgress::default();
                        continue;
                    }
                    Some(facts) => {
                        self.watch.disarm(Lane::UpRead);
                        return Ok((facts, root.headers.len as usize));
                    }
                    None if self.filled >= capacity => return Err(UpstreamFault::HeadTooLarge),
                    None => {}
                }
            }
            match self.reader.read(Buf::slot(self.call.slot.clone(), self.filled..capacity)).await.0 {
                Ok(count) if count > 0 => self.filled += count,
                _ if self.watch.expired(Lane::UpRead) => return Err(UpstreamFault::FirstByteTimeout),
                _ if self.filled == 0 && interim == 0 => return Err(UpstreamFault::ClosedEarly),
                _ => return Err(UpstreamFault::HeadTruncated),
            }
        }
    }

    /// Reads the body to the beginning of the out area, transfer coding removed, up to the bound.
    async fn read_body(&mut self, facts: &ResponseFacts) -> Result<Body, UpstreamFault> {
        let layout = *self.call.slot.layout();
        let (out, end) = (layout.out_at(), layout.out_at() + layout.out());
        // A configuration that asks for more than the slots were cut for gets what they have.
        let most = self.program.limits.outcall_reply_bytes.min(layout.out() - CHUNK_FRAMING_BYTES);
        let mut body = match facts.body {
            ResponseBody::None => BodyReader::none(),
            ResponseBody::Length(length) => BodyReader::length(length),
            ResponseBody::Chunked => BodyReader::chunked(chunk_limits(&self.program.limits)),
            ResponseBody::UntilClose => BodyReader::UntilClose,
        };
        let (mut at, mut bytes, mut in_order) = (facts.head_bytes as usize, 0, true);
        while !body.is_done() {
            let left = body.remaining().map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            let room = (end - out - bytes).min(left);
            if bytes > most || room == 0 {
                break;
            }
            let begin = out + bytes;
            let count = if at < self.filled {
                let count = (self.filled - at).min(room);
                let from = self.call.slot.clone();
                self.call.slot.bytes_mut(begin..begin + count).copy_from_slice(from.bytes(at..at + count));
                at += count;
                count
            } else {
                self.watch.arm(Lane::UpRead, self.timeouts.response_idle);
                let read = self.reader.read(Buf::slot(self.call.slot.clone(), begin..begin + room)).await.0;
                self.watch.disarm(Lane::UpRead);
                match read {
                    Ok(count) if count > 0 => count,
                    _ if self.watch.expired(Lane::UpRead) => return Err(UpstreamFault::ReadTimeout),
                    Ok(_) if body.end_of_stream() => {
                        in_order = false;
                        break;
                    }
                    _ => return Err(UpstreamFault::Truncated),
                }
            };
            let fed = body.feed(self.call.slot.bytes_mut(begin..begin + count))?;
            bytes += fed.data;
            in_order &= fed.consumed == count;
        }
        // HTTP1.md rule 79: bytes behind the end of a response poison the connection.
        let whole = body.is_done() && bytes <= most;
        Ok(Body { bytes: bytes.min(most), whole, in_order: in_order && body.is_done() && at == self.filled })
    }
}
