//! The response of an upstream: its heads, the post hooks, the head for the client, the body as it streams.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use ringway_abi::ids::{HeaderId, METHOD_HEAD};
use ringway_abi::raw;
use ringway_abi::view::{ORIGIN_UPSTREAM, RES_BODY_COMPLETE, RES_CHUNKED};

use super::Reply;
use super::body::{BodyReader, Framing, PREFIX_BYTES, SUFFIX_BYTES};
use super::core::{Core, Program, Upstreams};
use super::io::{Reader, Stall, Writer, write_all};
use super::request::chunk_limits;
use super::splice::{SPLICE_BYTES_MIN, SpliceFault};
use super::suspend::{GONE, resume};
use super::watch::{Lane, Watch};
use crate::clock;
use crate::error::{Fault, ResourceFault, UpstreamFault};
use crate::http1::head::{Area, HeadProgress, RequestFacts, ResponseBody, ResponseFacts, ResponseTo, parse_response};
use crate::http1::write::{Addition, Connection, OutFraming, write_response_head};
use crate::limits::Timeouts;
use crate::plugin::frame::{ChunkFlow, Flow, Frame};
use crate::view::message::{Message, Side};
use crate::view::slab::{Buf, Slot};

/// A response that was sent to its end.
pub(super) struct ReplyEnd {
    /// The status as the upstream sent it.
    pub(super) status: u16,
    /// The upstream connection can be used again.
    pub(super) reusable: bool,
    /// The client's connection must be closed.
    pub(super) close: bool,
    /// A request body that is still on its way may get to its end.
    pub(super) waits: bool,
    /// The connection became a tunnel; these bytes of the upstream came behind the head.
    pub(super) tunnel: Option<Vec<u8>>,
}

/// Why a response did not get to its end.
#[derive(Debug)]
pub(super) enum ReplyFault {
    /// Nothing of a final response has been sent to the client.
    Unanswered(UpstreamFault),
    /// Some of it has: the client must see that it was cut off.
    Broken(UpstreamFault),
    /// The client does not take it.
    ClientGone,
    /// Something here.
    Internal(Fault),
    /// A hook stopped it; with `Respond` the frame holds another response.
    Hook(Flow),
}

/// What is needed to send the response of an upstream to the client.
pub(super) struct Replying<'a, W, U> {
    pub(super) core: &'a Core<U>,
    pub(super) watch: &'a Watch,
    pub(super) program: &'a Rc<Program>,
    pub(super) frame: &'a RefCell<Frame>,
    pub(super) writer: &'a mut W,
    pub(super) reply: &'a mut Reply,
    pub(super) facts: &'a RequestFacts,
    pub(super) timeouts: &'a Timeouts,
    pub(super) persist: bool,
    /// The protocol that the upstream was asked to switch to.
    pub(super) upgrade: Option<&'a [u8]>,
    pub(super) pump_done: &'a Cell<bool>,
    /// The final head came instead of the 100 that the client waits for: what it sends now need not be the body.
    pub(super) body_unasked: &'a Cell<bool>,
    /// No final head has come yet: the wait for it is what [`Lane::UpRead`] guards.
    pub(super) awaits_head: &'a Cell<bool>,
    /// The head said `Expect: 100-continue`, and the upstream has not said 100.
    pub(super) expects: bool,
    /// When the request left (precise clock); 0 when neither a plugin nor the access log asked.
    pub(super) sent_at: u64,
}

/// The body of the response on its way through.
struct Passing {
    reader: BodyReader,
    framing: Framing,
    /// Only the end of the connection shows the client where it ends.
    until_close: bool,
    /// Chunk hooks see it.
    shown: bool,
    /// Bytes received from the upstream, transfer coding removed.
    offset: u64,
    /// The upstream sends a body that is not read.
    cut: bool,
}

impl<'a, W: Writer, U: Upstreams> Replying<'a, W, U> {
    /// For writes to the client.
    fn stall(&self) -> Stall<'a> {
        Stall::new(self.watch, Lane::DownWrite, self.timeouts.write_stall)
    }

    /// Reads the response into `slot` and sends it.
    pub(super) async fn run<R: Reader>(&mut self, reader: &mut R, slot: Slot) -> Result<ReplyEnd, ReplyFault> {
        let mut slot = slot;
        let mut filled = 0;
        let (facts, count) = self.read_final_head(reader, &mut slot, &mut filled).await?;
        let head = facts.head_bytes as usize;
        self.enter(&slot, &facts, count, filled);
        let mut flow = {
            let mut frame = self.frame.borrow_mut();
            if frame.chain().plan().has_hook(raw::HOOK_RESPONSE) { frame.run_response() } else { Flow::Continue }
        };
        if matches!(flow, Flow::Suspend(_)) {
            flow = match resume(self.core, self.watch, self.frame, self.program, self.timeouts).await {
                Ok(flow) => flow,
                Err(GONE) => return Err(ReplyFault::ClientGone),
                Err(fault) => return Err(ReplyFault::Internal(fault)),
            };
        }
        if flow != Flow::Continue {
            return Err(ReplyFault::Hook(flow));
        }
        let status = self.frame.borrow().response().map_or(facts.status, |m| m.response().status());
        // A plugin may have turned it into something else.
        let tunnel = facts.upgrade && status == facts.status || facts.tunnel && (200..300).contains(&status);
        let (mut passing, framing, mut close) = self.plan_body(&facts, status);
        // RFC 9110 §10.1.1: a client that gets its answer instead of 100 may send the body or not. Whatever comes next, from it or on the
        // connection to the upstream, could be either: both end.
        let unasked = !self.pump_done.get() && self.watch.awaits_continue();
        self.body_unasked.set(unasked);
        // RFC 9112 §9.3: an answer that is likely to end the request early announces that the connection ends with it.
        close |= unasked || !self.pump_done.get() && facts.status >= 300;
        // Whose response ends with the connection is told so at once.
        let waits = !unasked && !passing.until_close && facts.status < 300;
        let connection = match (tunnel && facts.upgrade, close && !tunnel) {
            (true, _) => Connection::Upgrade,
            (false, true) => Connection::Close,
            (false, false) => Connection::Nothing,
        };
        let layout = *slot.layout();
        let Some(mut used) = self.write_head(&slot, &facts, framing, connection) else {
            return Err(ReplyFault::Internal(Fault::Resource(ResourceFault::HeadDoesNotFit)));
        };
        let mut at = head;
        // A body that is here already and fits leaves with the head, in one write.
        let here = filled - head;
        if !tunnel && !passing.shown && !passing.reader.is_done() && here > 0 && used + here + SUFFIX_BYTES + PREFIX_BYTES <= layout.out() {
            let begin = layout.out_at() + used;
            let mut body = slot.clone();
            let room = body.bytes_mut(begin..layout.out_at() + layout.out());
            room[PREFIX_BYTES..PREFIX_BYTES + here].copy_from_slice(slot.bytes(head..filled));
            let fed = passing.reader.feed(&mut room[PREFIX_BYTES..PREFIX_BYTES + here]).map_err(|f| ReplyFault::Unanswered(f.into()))?;
            let range = passing.framing.wrap(room, fed.data, passing.reader.is_done());
            let count = range.len();
            room.copy_within(range, 0);
            used += count;
            at += fed.consumed;
            passing.offset += fed.data as u64;
        }
        self.reply.status = status;
        self.reply.framed = !passing.until_close;
        self.watch.set_unframed(passing.until_close);
        self.reply.origin = ORIGIN_UPSTREAM;
        let (written, _) = write_all(self.writer, self.stall(), Buf::slot(slot.clone(), layout.out_at()..layout.out_at() + used)).await;
        written.map_err(|_| ReplyFault::ClientGone)?;
        self.reply.sent += passing.offset;
        if tunnel {
            return Ok(ReplyEnd { status: facts.status, reusable: false, close: true, waits: false, tunnel: Some(slot.bytes(head..filled).to_vec()) });
        }
        // HTTP1.md rule 79: bytes behind the end of a response poison the connection.
        let extra = match passing.reader.is_done() {
            true => at < filled,
            false => self.pass_body(reader, &slot, at..filled, &mut passing).await?,
        };
        self.watch.set_unframed(false);
        // An upstream that did not say 100 may take the body for its next request, whoever told the client to go on. One that has switched speaks
        // another protocol, though a plugin has changed its status.
        let doubtful = unasked || self.expects || facts.upgrade || facts.tunnel;
        Ok(ReplyEnd { status: facts.status, reusable: facts.persist && !extra && !passing.cut && !doubtful, close, waits, tunnel: None })
    }

    /// Reads heads until a final one; interim ones are passed on.
    async fn read_final_head<R: Reader>(&mut self, reader: &mut R, slot: &mut Slot, filled: &mut usize) -> Result<(ResponseFacts, usize), ReplyFault> {
        let mut progress = HeadProgress::default();
        let mut interim = 0;
        let began_ms = clock::monotonic_ms();
        let capacity = slot.layout().receive();
        let to = ResponseTo { method_id: self.frame.borrow().request().request().method_id(), upgrade: self.upgrade.is_some() };
        // The upstream has its time from the end of the request on: see `both` for a body that is still being sent.
        if self.pump_done.get() {
            self.watch.arm(Lane::UpRead, self.timeouts.first_byte);
        }
        loop {
            if *filled > 0 {
                let (bytes, entries, root) = slot.response_parts();
                let area = Area { bytes, filled: *filled };
                match parse_response(area, &self.program.head_limits, &self.program.names, entries, root, to, &mut progress) {
                    Ok(Some(facts)) if facts.status < 200 && !facts.upgrade => {
                        interim += 1;
                        if interim > self.program.limits.interim_responses {
                            return Err(ReplyFault::Unanswered(UpstreamFault::TooManyInterim));
                        }
                        let count = root.headers.len as usize;
                        self.pass_interim(slot, &facts, count).await?;
                        if facts.status == 100 {
                            self.expects = false;
                            self.go_on();
                        }
                        slot.bytes_mut(0..*filled).copy_within(facts.head_bytes as usize.., 0);
                        *filled -= facts.head_bytes as usize;
                        progress = HeadProgress::default();
                        continue;
                    }
                    Ok(Some(facts)) => {
                        let count = root.headers.len as usize;
                        // RFC 9110 §7.8: the protocol switched to is the one that was asked for.
                        if facts.upgrade && !self.is_what_was_asked(slot, count) {
                            return Err(ReplyFault::Unanswered(UpstreamFault::UnexpectedUpgrade));
                        }
                        self.watch.disarm(Lane::UpRead);
                        self.awaits_head.set(false);
                        return Ok((facts, count));
                    }
                    Ok(None) if *filled >= capacity => return Err(ReplyFault::Unanswered(UpstreamFault::HeadTooLarge)),
                    Ok(None) => {}
                    Err(fault) => return Err(ReplyFault::Unanswered(fault)),
                }
            }
            let result = if !self.pump_done.get() && self.watch.awaits_continue() {
                let passed = u32::try_from(clock::monotonic_ms().saturating_sub(began_ms)).unwrap_or(u32::MAX);
                self.read_or_continue(reader, Buf::slot(slot.clone(), *filled..capacity), passed).await?
            } else {
                reader.read(Buf::slot(slot.clone(), *filled..capacity)).await.0
            };
            match result {
                Ok(count) if count > 0 => *filled += count,
                _ => {
                    let fault = match (self.watch.expired(Lane::UpRead), *filled) {
                        (true, _) => UpstreamFault::FirstByteTimeout,
                        (false, 0) if interim == 0 => UpstreamFault::ClosedEarly,
                        _ => UpstreamFault::HeadTruncated,
                    };
                    return Err(ReplyFault::Unanswered(fault));
                }
            }
        }
    }

    fn is_what_was_asked(&self, slot: &Slot, count: usize) -> bool {
        let message = Message::parsed(slot.clone(), Side::Response, count);
        let named = message.response().header(HeaderId::UPGRADE);
        self.upgrade.zip(named).is_some_and(|(asked, named)| named.eq_ignore_ascii_case(asked))
    }

    /// The client may send its body from now on, and has all its time for it.
    fn go_on(&self) {
        if self.watch.awaits_continue() {
            self.watch.go_on();
            self.watch.arm(Lane::DownRead, self.timeouts.body_idle);
        }
    }

    /// Waits for the upstream, which has been waited for `passed` ms; when it does not say 100 although the client waits for it, the gateway
    /// does (HTTP1.md rule 82).
    async fn read_or_continue<R: Reader>(&mut self, reader: &mut R, buf: Buf, passed: u32) -> Result<io::Result<usize>, ReplyFault> {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut read = pin!(reader.read(buf));
        let mut alarm = pin!(self.watch.alarm(self.timeouts.expect_continue.saturating_sub(passed)));
        let first = poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready((result, _)) => Poll::Ready(Some(result)),
            Poll::Pending => alarm.as_mut().poll(cx).map(|()| None),
        })
        .await;
        if let Some(result) = first {
            return Ok(result);
        }
        if self.watch.awaits_continue() && !self.watch.expired(Lane::Exchange) {
            self.write_interim(Buf::heap(CONTINUE.to_vec(), None)).await?;
            self.go_on();
        }
        Ok(read.await.0)
    }

    /// Sends an interim response. The body's end may drop this half-way: then the exchange counts as answered.
    async fn write_interim(&mut self, buf: Buf) -> Result<(), ReplyFault> {
        self.reply.interim = true;
        let (written, _) = write_all(self.writer, self.stall(), buf).await;
        self.reply.interim = false;
        written.map_err(|_| ReplyFault::ClientGone)
    }

    /// RFC 9110 §15.2: interim responses are passed on, except to HTTP/1.0 clients.
    async fn pass_interim(&mut self, slot: &Slot, facts: &ResponseFacts, count: usize) -> Result<(), ReplyFault> {
        if self.facts.http10 {
            return Ok(());
        }
        let message = Message::parsed(slot.clone(), Side::Response, count);
        let layout = *slot.layout();
        let mut out = slot.clone();
        let room = out.bytes_mut(layout.out_at()..layout.out_at() + layout.out());
        let received = slot.bytes(0..facts.head_bytes as usize);
        let Ok(used) = write_response_head(room, message.response(), received, &facts.dropped, OutFraming::None, Connection::Nothing, &[]) else {
            return Err(ReplyFault::Internal(Fault::Resource(ResourceFault::HeadDoesNotFit)));
        };
        self.write_interim(Buf::slot(slot.clone(), layout.out_at()..layout.out_at() + used)).await
    }

    /// The response becomes that of the exchange: plugins can see it.
    fn enter(&mut self, slot: &Slot, facts: &ResponseFacts, count: usize, filled: usize) {
        let mut message = Message::parsed(slot.clone(), Side::Response, count);
        let mut frame = self.frame.borrow_mut();
        let id = frame.request().request().request_id();
        if self.sent_at != 0 {
            self.reply.upstream_ns = clock::monotonic_ns().saturating_sub(self.sent_at);
        }
        let upstream_ns = if frame.chain().plan().has_want(raw::WANT_TIME) { self.reply.upstream_ns } else { 0 };
        message.set_response_facts(|root| {
            root.request_id = id;
            root.upstream_ns = upstream_ns;
        });
        let head = facts.head_bytes as usize;
        if let ResponseBody::Length(length) = facts.body {
            let here = (filled - head).min(usize::try_from(length).unwrap_or(usize::MAX));
            message.set_body_span(head, here);
            if here as u64 == length {
                message.set_response_facts(|root| root.flags |= RES_BODY_COMPLETE);
            }
        }
        frame.set_response(message);
    }

    /// How the body is read, how it is framed for the client, and whether the client's connection ends with it.
    /// `status` is that of the view, which a plugin may have changed.
    fn plan_body(&self, facts: &ResponseFacts, status: u16) -> (Passing, OutFraming, bool) {
        let bodiless = |status: u16| matches!(status, 101 | 204 | 304);
        let is_head = self.frame.borrow().request().request().method_id() == METHOD_HEAD;
        let opened = facts.tunnel && !(200..300).contains(&status);
        // What the client expects behind the head follows from the status that it sees.
        if opened || status != facts.status && bodiless(status) != bodiless(facts.status) && !is_head {
            let cut = facts.body != ResponseBody::None || facts.upgrade || opened;
            let framing = if bodiless(status) { OutFraming::None } else { OutFraming::Length(0) };
            return (Passing { reader: BodyReader::none(), framing: Framing::Plain, until_close: false, shown: false, offset: 0, cut }, framing, !self.persist);
        }
        let plan = *self.frame.borrow().chain().plan();
        let shown = plan.has_hook(raw::HOOK_RESPONSE_CHUNK);
        let edits = shown && plan.has_want(raw::WANT_EDIT_RESPONSE_BODY);
        let reader = match facts.body {
            ResponseBody::None => BodyReader::none(),
            ResponseBody::Length(length) => BodyReader::length(length),
            ResponseBody::Chunked => BodyReader::chunked(chunk_limits(&self.program.limits)),
            ResponseBody::UntilClose => BodyReader::UntilClose,
        };
        let known = matches!(facts.body, ResponseBody::Length(_)) && !edits;
        let chunked = self.frame.borrow().response().is_some_and(|m| m.response().flags() & RES_CHUNKED != 0);
        // RFC 9112 §6.1, §6.3: a length that we do not know is chunked for HTTP/1.1 and ends with the connection for 1.0.
        let (framing, out, close) = match (facts.body, known, self.facts.http10) {
            // RFC 9110 §9.3.6: no framing in a 2xx to CONNECT.
            (ResponseBody::None, _, _) if facts.tunnel => (Framing::Plain, OutFraming::None, false),
            // HTTP1.md rule 64: not even the line of a response without a body says chunked to HTTP/1.0.
            (ResponseBody::None, _, true) if chunked => (Framing::Plain, OutFraming::None, false),
            // RFC 9110 §8.6: the length of a body that plugins would change is not known.
            (ResponseBody::None, _, _) if edits && is_head => (Framing::Plain, OutFraming::None, false),
            (ResponseBody::None, _, _) | (_, true, _) => (Framing::Plain, OutFraming::AsReceived, false),
            (_, false, false) => (Framing::Chunked, OutFraming::Chunked, false),
            (_, false, true) => (Framing::Plain, OutFraming::None, true),
        };
        (Passing { reader, framing, until_close: close, shown, offset: 0, cut: false }, out, close || !self.persist)
    }

    /// Lays the response head out in the out area of the slot; `None` when it does not fit.
    fn write_head(&self, slot: &Slot, facts: &ResponseFacts, framing: OutFraming, connection: Connection) -> Option<usize> {
        let frame = self.frame.borrow();
        let view = frame.response()?.response();
        let date = self.core.date.now();
        let mut additions: smallvec::SmallVec<[Addition<'_>; 1]> = smallvec::SmallVec::new();
        // RFC 9110 §6.6.1: a response without a date gets one.
        if view.header(HeaderId::DATE).is_none() && view.status() >= 200 {
            additions.push(Addition { name: b"date", value: &date });
        }
        let layout = *slot.layout();
        let mut out = slot.clone();
        let room = out.bytes_mut(layout.out_at()..layout.out_at() + layout.out());
        let received = slot.bytes(0..facts.head_bytes as usize);
        write_response_head(room, view, received, &facts.dropped, framing, connection, &additions).ok()
    }

    /// The body that did not leave with the head. `here` is what of it is in the slot. True when bytes came behind its end.
    async fn pass_body<R: Reader>(&mut self, reader: &mut R, slot: &Slot, here: std::ops::Range<usize>, passing: &mut Passing) -> Result<bool, ReplyFault> {
        let layout = *slot.layout();
        let out = layout.out_at()..layout.out_at() + layout.out();
        let mut relay = self.core.relay.take(|| Buf::slot(slot.clone(), out));
        let mut here = here;
        let result = loop {
            if here.start == here.end
                && let Some(result) = self.splice_rest(reader, passing).await
            {
                break result;
            }
            let (result, returned) = self.pass_piece(reader, slot, &mut here, passing, relay).await;
            relay = returned;
            match result {
                Ok(None) => {}
                Ok(Some(extra)) => break Ok(extra),
                Err(fault) => break Err(fault),
            }
        };
        self.core.relay.give_back(relay);
        result
    }

    /// Moves the rest of a large body that nobody looks at from socket to socket. `None`: it goes the ordinary way.
    async fn splice_rest<R: Reader>(&mut self, reader: &mut R, passing: &mut Passing) -> Option<Result<bool, ReplyFault>> {
        let BodyReader::Length(left) = passing.reader else { return None };
        // A request body that is still on its way has operations pending on both sockets.
        let plain = passing.framing == Framing::Plain && !passing.shown && self.pump_done.get();
        if !plain || left < SPLICE_BYTES_MIN || reader.descriptor().is_none() || self.writer.descriptor().is_none() {
            return None;
        }
        let times = (self.timeouts.response_idle, self.timeouts.write_stall);
        let mut moved = 0;
        let result = self.core.pipes.run(reader, self.writer, self.watch, times, left, &mut moved).await;
        self.reply.sent += moved;
        match result {
            Ok(()) => {
                passing.reader = BodyReader::Done;
                Some(Ok(false))
            }
            Err(SpliceFault::NoPipe) => None,
            Err(SpliceFault::Sink) => Some(Err(ReplyFault::ClientGone)),
            Err(SpliceFault::Source) if self.watch.expired(Lane::UpRead) => Some(Err(ReplyFault::Broken(UpstreamFault::ReadTimeout))),
            Err(SpliceFault::Source) => Some(Err(ReplyFault::Broken(UpstreamFault::Truncated))),
        }
    }

    /// One piece of the body; `Some` after the last.
    async fn pass_piece<R: Reader>(
        &mut self,
        reader: &mut R,
        slot: &Slot,
        here: &mut std::ops::Range<usize>,
        passing: &mut Passing,
        mut relay: Buf,
    ) -> (Result<Option<bool>, ReplyFault>, Buf) {
        let room = relay.region_bytes() - PREFIX_BYTES - SUFFIX_BYTES;
        let count = if here.start == here.end {
            relay.narrow(PREFIX_BYTES..PREFIX_BYTES + room);
            self.watch.arm(Lane::UpRead, self.timeouts.response_idle);
            let (result, returned) = reader.read(relay).await;
            self.watch.disarm(Lane::UpRead);
            relay = returned;
            match result {
                Ok(count) if count > 0 => count,
                // The end of the stream is the end of the body only when it is the upstream's own.
                Ok(_) if !self.watch.ended_upstream() && passing.reader.end_of_stream() => 0,
                // HTTP1.md rule 76: the client must see that the body was cut off.
                _ if self.watch.expired(Lane::UpRead) => return (Err(ReplyFault::Broken(UpstreamFault::ReadTimeout)), relay),
                _ => return (Err(ReplyFault::Broken(UpstreamFault::Truncated)), relay),
            }
        } else {
            let count = here.len().min(room);
            relay.region_mut()[PREFIX_BYTES..PREFIX_BYTES + count].copy_from_slice(slot.bytes(here.start..here.start + count));
            here.start += count;
            count
        };
        let fed = match passing.reader.feed(&mut relay.region_mut()[PREFIX_BYTES..PREFIX_BYTES + count]) {
            Ok(fed) => fed,
            Err(fault) => return (Err(ReplyFault::Broken(fault.into())), relay),
        };
        let last = passing.reader.is_done();
        let extra = last && (fed.consumed < count || here.start < here.end);
        let offset = passing.offset;
        passing.offset += fed.data as u64;
        let (mut sent, mut replaced) = (fed.data, None);
        if passing.shown {
            let mut frame = self.frame.borrow_mut();
            let shown = &relay.region_mut()[PREFIX_BYTES..PREFIX_BYTES + fed.data];
            match frame.run_response_chunk(shown, offset, last) {
                ChunkFlow::Forward => {}
                ChunkFlow::Replaced => replaced = frame.take_replacement(),
                // The head has left: nothing can be answered any more.
                ChunkFlow::Stop(flow) => return (Err(ReplyFault::Hook(flow)), relay),
            }
        }
        let written;
        if let Some(bytes) = replaced {
            sent = bytes.len();
            let mut framed = vec![0; bytes.len() + PREFIX_BYTES + SUFFIX_BYTES];
            framed[PREFIX_BYTES..PREFIX_BYTES + bytes.len()].copy_from_slice(&bytes);
            let range = passing.framing.wrap(&mut framed, bytes.len(), last);
            written = write_all(self.writer, self.stall(), Buf::heap(framed, None).narrowed(range)).await.0;
        } else {
            let range = passing.framing.wrap(relay.region_mut(), fed.data, last);
            relay.narrow(range);
            let (result, returned) = write_all(self.writer, self.stall(), relay).await;
            relay = returned;
            written = result;
        }
        match written {
            Ok(()) => {
                self.reply.sent += sent as u64;
                (Ok(last.then_some(extra)), relay)
            }
            Err(_) => (Err(ReplyFault::ClientGone), relay),
        }
    }
}
