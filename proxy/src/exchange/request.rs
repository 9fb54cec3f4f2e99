//! From a request's head to a decision: policy of methods, route, pre hooks, buffered bodies.

use ringway_abi::RequestView;
use ringway_abi::ids::{HeaderId, METHOD_CONNECT, METHOD_TRACE};
use ringway_abi::raw;

use super::body::{BodyReader, PREFIX_BYTES, SUFFIX_BYTES};
use super::core::Upstreams;
use super::io::{Reader, Stall, Writer, write_all};
use super::suspend::{GONE, resume};
use super::watch::{Lane, Watch};
use super::{Connection, Exchange, Input, RequestBodyState, incomplete};
use crate::clock;
use crate::config::{ConnectTarget, HostDiffers, MissingHost};
use crate::error::{ClientFault, Fault, ResourceFault};
use crate::http1::bytes::list;
use crate::http1::chunked::ChunkLimits;
use crate::http1::head::{RequestBody, RequestFacts};
use crate::http1::target::split_port;
use crate::limits::Limits;
use crate::plugin::frame::{ChunkFlow, Flow};
use crate::view::slab::Buf;

/// What is to be done with a request.
pub(super) enum Decision {
    /// Send it to this upstream.
    Forward(u32),
    /// The frame holds a response that was made here.
    Respond,
    /// Answer with an error.
    Fault(Fault),
    /// Close the connection without an answer.
    Drop,
}

/// The reader for the body that the head announces.
pub(super) fn reader_of(facts: &RequestFacts, limits: &Limits) -> BodyReader {
    match facts.body {
        RequestBody::None => BodyReader::none(),
        RequestBody::Length(length) => BodyReader::length(length),
        RequestBody::Chunked => BodyReader::chunked(chunk_limits(limits)),
    }
}

/// The bounds of chunked framing.
pub(super) fn chunk_limits(limits: &Limits) -> ChunkLimits {
    let bound = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    ChunkLimits { extension_bytes: bound(limits.chunk_extension_bytes), trailer_bytes: bound(limits.trailer_bytes), ..ChunkLimits::default() }
}

impl<R: Reader, W: Writer, U: Upstreams> Connection<'_, R, W, U> {
    /// Finds the route and lets its pre hooks decide.
    pub(super) async fn decide(&mut self, exchange: &mut Exchange) -> Decision {
        match self.find_route(exchange) {
            Ok(()) => {}
            Err(fault) => return Decision::Fault(Fault::Client(fault)),
        }
        let mut flow = self.frame.borrow_mut().run_request(0);
        loop {
            match flow {
                Flow::Continue => break,
                Flow::Respond => return Decision::Respond,
                Flow::Drop => return Decision::Drop,
                Flow::Fault(fault) => return Decision::Fault(Fault::Plugin(fault)),
                Flow::NeedBody(at) => {
                    if exchange.buffered.is_none()
                        && exchange.facts.body != RequestBody::None
                        && let Err(fault) = self.buffer_body(exchange).await
                    {
                        return Decision::Fault(fault);
                    }
                    flow = self.show_body(exchange, at);
                }
                Flow::Suspend(at) => {
                    flow = match resume(self.core, self.watch, &self.frame, &exchange.program, exchange.timeouts()).await {
                        Ok(Flow::Continue) => self.go_on(exchange, at),
                        Ok(flow) => flow,
                        Err(GONE) => {
                            exchange.reply.fault = Some(GONE);
                            return Decision::Drop;
                        }
                        Err(fault) => return Decision::Fault(fault),
                    }
                }
            }
        }
        // RFC 9110 §7.6.2: an OPTIONS that may go no further is answered here.
        if exchange.facts.max_forwards == Some(0) {
            let allow = exchange.program.table.allowed_methods(self.frame.borrow().request().request(), self.peer.listener);
            let made = self.frame.borrow_mut().respond_gateway(200, &[(b"allow", allow.as_bytes())], b"");
            return if made { Decision::Respond } else { Decision::Fault(Fault::Resource(ResourceFault::SlotsExhausted)) };
        }
        if let Some(decision) = self.show_whole_body(exchange) {
            return decision;
        }
        let route = exchange.route.map(|at| &exchange.program.routes[at]);
        let chosen = self.frame.borrow().chosen_upstream();
        match chosen.or(route.and_then(|r| r.upstream)) {
            Some(upstream) => Decision::Forward(upstream),
            None => Decision::Fault(Fault::Client(ClientFault::NoRoute)),
        }
    }

    fn find_route(&mut self, exchange: &mut Exchange) -> Result<(), ClientFault> {
        let program = &exchange.program;
        let mut frame = self.frame.borrow_mut();
        let view = frame.request().request();
        // RFC 9110 §9.3.8 and HTTP1.md rule 59: TRACE is off.
        if view.method_id() == METHOD_TRACE {
            return Err(ClientFault::MethodNotAllowed);
        }
        if exchange.facts.host_differs && program.http.host_differs == HostDiffers::Reject {
            return Err(ClientFault::HostDiffers);
        }
        // Only HTTP/1.0 comes without Host: the parser has refused all others.
        if view.authority().is_empty() && program.http.missing_host == MissingHost::Reject {
            return Err(ClientFault::MissingHost);
        }
        if is_loop(view, &program.name) {
            return Err(ClientFault::LoopDetected);
        }
        let found = program.table.find(view, self.peer.listener)?;
        let route = &program.routes[found];
        if view.method_id() == METHOD_CONNECT {
            if !may_connect(&route.connect_to, view.target()) {
                return Err(ClientFault::MethodNotAllowed);
            }
            // RFC 9110 §9.3.6: what follows its head belongs to the tunnel.
            if exchange.facts.body != RequestBody::None {
                return Err(ClientFault::ConnectWithBody);
            }
        }
        if route.timeouts.exchange != program.timeouts.exchange {
            self.watch.arm_at(Lane::Exchange, route.timeouts.exchange, exchange.began_ms);
        }
        exchange.route = Some(found);
        exchange.body.bytes_max = route.body_bytes;
        frame.request_mut().set_request_facts(|root| root.route = program.table.number(found));
        frame.begin(&program.host, &route.chain);
        // HTTP1.md rule 42: a length above the limit is refused before anything is read.
        match exchange.facts.body {
            RequestBody::Length(length) if exchange.body.bytes_max != 0 && length > exchange.body.bytes_max => Err(ClientFault::BodyTooLarge),
            _ => Ok(()),
        }
    }

    /// Reads the whole request body into memory.
    async fn buffer_body(&mut self, exchange: &mut Exchange) -> Result<(), Fault> {
        let limit = exchange.program.limits.body_buffer_bytes;
        if exchange.body.reader.remaining().is_some_and(|left| left > limit as u64) {
            return Err(Fault::Client(ClientFault::BodyTooLarge));
        }
        let mut whole = Vec::new();
        if self.watch.awaits_continue() {
            self.send_continue(exchange).await?;
            self.watch.go_on();
        }
        let idle_ms = exchange.timeouts().body_idle;
        let layout = *self.input.slot.layout();
        let mut relay = self.core.relay.take(|| Buf::slot(self.input.slot.clone(), layout.out_at()..layout.out_at() + layout.out()));
        while !exchange.body.reader.is_done() {
            let (piece, returned) = read_piece(self.reader, self.watch, &mut self.input, &mut exchange.body, idle_ms, relay).await;
            relay = returned;
            let count = match piece {
                Ok(count) => count,
                Err(fault) => {
                    self.core.relay.give_back(relay);
                    return Err(Fault::Client(fault));
                }
            };
            if whole.len() + count > limit {
                self.core.relay.give_back(relay);
                return Err(Fault::Client(ClientFault::BodyTooLarge));
            }
            whole.extend_from_slice(&relay.region_mut()[PREFIX_BYTES..PREFIX_BYTES + count]);
        }
        self.core.relay.give_back(relay);
        exchange.buffered = Some(whole);
        Ok(())
    }

    /// RFC 9110 §10.1.1: we need the body now, so we tell the client to go on.
    async fn send_continue(&mut self, exchange: &Exchange) -> Result<(), Fault> {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let at = self.input.slot.layout().out_at();
        self.input.slot.bytes_mut(at..at + CONTINUE.len()).copy_from_slice(CONTINUE);
        let stall = Stall::new(self.watch, Lane::DownWrite, exchange.timeouts().write_stall);
        let (result, _) = write_all(self.writer, stall, Buf::slot(self.input.slot.clone(), at..at + CONTINUE.len())).await;
        result.map_err(|_| Fault::Client(ClientFault::BodyIncomplete))
    }

    /// Shows the buffered body to the link that asked for it, then runs the links behind it.
    fn show_body(&mut self, exchange: &mut Exchange, at: usize) -> Flow {
        let body = exchange.buffered.as_deref().unwrap_or_default();
        let flow = self.frame.borrow_mut().run_request_body(at, body);
        if flow == Flow::Continue { self.go_on(exchange, at) } else { flow }
    }

    /// Link `at` lets the exchange go on: the body that it has replaced, then the links behind it.
    fn go_on(&mut self, exchange: &mut Exchange, at: usize) -> Flow {
        let mut frame = self.frame.borrow_mut();
        // No body that stays none is framed as none, and may be the opening of a tunnel.
        if let Some(replaced) = frame.take_replacement().filter(|bytes| !bytes.is_empty() || exchange.facts.body != RequestBody::None) {
            exchange.buffered = Some(replaced);
        }
        frame.run_request(at + 1)
    }

    /// Chunk hooks see a body that is already here before anything is sent, as one piece.
    fn show_whole_body(&mut self, exchange: &mut Exchange) -> Option<Decision> {
        let mut frame = self.frame.borrow_mut();
        if !frame.chain().plan().has_hook(raw::HOOK_REQUEST_CHUNK) {
            return None;
        }
        let here = exchange.body.reader.remaining().filter(|left| *left > 0 && *left <= self.input.unread().len() as u64);
        let flow = match (&exchange.buffered, here) {
            // SPEC S-81: a message without a body gets no chunk hook; a chunked one has a body, though it may be empty.
            (Some(body), _) if body.is_empty() && exchange.facts.body != RequestBody::Chunked => return None,
            (Some(body), _) => frame.run_request_chunk(body, 0, true),
            (None, Some(length)) => frame.run_request_chunk(&self.input.unread()[..length as usize], 0, true),
            (None, None) => return None,
        };
        match flow {
            ChunkFlow::Forward => None,
            ChunkFlow::Replaced => {
                if let (None, Some(length)) = (&exchange.buffered, here) {
                    self.input.at += length as usize;
                    exchange.body.received += length;
                    exchange.body.reader = BodyReader::Done;
                }
                exchange.buffered = frame.take_replacement();
                None
            }
            ChunkFlow::Stop(Flow::Respond) => Some(Decision::Respond),
            ChunkFlow::Stop(Flow::Fault(fault)) => Some(Decision::Fault(Fault::Plugin(fault))),
            ChunkFlow::Stop(_) => Some(Decision::Drop),
        }
    }
}

/// After so many milliseconds of waiting a body must have come at its minimum rate.
const RATE_GRACE_MS: u64 = 5000;
/// For so many milliseconds of waiting it may be behind.
const RATE_CATCH_UP_MS: u64 = 1000;

impl RequestBodyState {
    /// HTTP1.md rule 95: a body that trickles holds memory and a connection to the upstream. Time in which the upstream took nothing
    /// is not the client's.
    ///
    /// Who falls behind in one long pause may catch up, within a second of waiting after the first piece that was too late.
    fn is_too_slow(&mut self) -> bool {
        if self.rate_min == 0 || self.waited_ms <= RATE_GRACE_MS || self.received >= self.waited_ms.saturating_mul(self.rate_min) / 1000 {
            self.late_from_ms = None;
            return false;
        }
        self.waited_ms >= *self.late_from_ms.get_or_insert(self.waited_ms) + RATE_CATCH_UP_MS
    }
}

/// Occurrences of our own name in Via from which a request is a loop; below that it may be a chain of gateways.
const LOOPS_MAX: usize = 5;

/// RFC 9110 §7.6: a request that keeps coming back to us is not forwarded again.
fn is_loop(view: &RequestView, name: &[u8]) -> bool {
    if view.header(HeaderId::VIA).is_none() {
        return false;
    }
    let ours = |member: &[u8]| member.split(|b| *b == b' ' || *b == b'\t').nth(1) == Some(name);
    view.headers().filter(|h| h.id() == HeaderId::VIA).map(|h| list(h.value()).filter(|m| ours(m)).count()).sum::<usize>() >= LOOPS_MAX
}

/// Whether CONNECT may open this target. RFC 9110 §9.3.6.
fn may_connect(allowed: &[ConnectTarget], target: &[u8]) -> bool {
    let Some((host, Some(port))) = split_port(target) else { return false };
    let port = std::str::from_utf8(port).ok().and_then(|digits| digits.parse::<u16>().ok());
    allowed.iter().any(|to| Some(to.port) == port && to.host.matches(host))
}

/// Brings the next piece of the request body to [`PREFIX_BYTES`] of `relay`, transfer coding removed: first what has been
/// received with the head, then what the socket brings. Returns its length, which may be 0.
pub(super) async fn read_piece<R: Reader>(
    reader: &mut R,
    watch: &Watch,
    input: &mut Input,
    body: &mut RequestBodyState,
    idle_ms: u32,
    mut relay: Buf,
) -> (Result<usize, ClientFault>, Buf) {
    let room = relay.region_bytes() - PREFIX_BYTES - SUFFIX_BYTES;
    let unread = input.unread();
    let (count, from_slot) = if unread.is_empty() && !input.pending.is_empty() {
        // Bytes that an earlier body brought along and that did not fit the slot come before what the socket brings.
        let count = input.pending.len().min(room);
        relay.region_mut()[PREFIX_BYTES..PREFIX_BYTES + count].copy_from_slice(&input.pending[..count]);
        input.pending.drain(..count);
        (count, false)
    } else if unread.is_empty() {
        let most = body.reader.remaining().map_or(room, |left| usize::try_from(left).unwrap_or(room).min(room));
        relay.narrow(PREFIX_BYTES..PREFIX_BYTES + most);
        // Who waits for 100 is not waited for: it gets its time with it.
        watch.arm(Lane::DownRead, if watch.awaits_continue() { 0 } else { idle_ms });
        let asked_ms = clock::monotonic_ms();
        let (result, returned) = reader.read(relay).await;
        body.waited_ms += watch.waited(asked_ms, clock::monotonic_ms());
        watch.disarm(Lane::DownRead);
        relay = returned;
        match result {
            Ok(count) if count > 0 => {
                watch.go_on();
                (count, false)
            }
            _ => return (Err(incomplete(watch, Lane::DownRead)), relay),
        }
    } else {
        let count = unread.len().min(room);
        relay.region_mut()[PREFIX_BYTES..PREFIX_BYTES + count].copy_from_slice(&unread[..count]);
        (count, true)
    };
    let piece = &mut relay.region_mut()[PREFIX_BYTES..PREFIX_BYTES + count];
    let mut rest_at = count;
    let fed = match body.reader.feed(piece) {
        Ok(fed) => fed,
        Err(fault) => return (Err(fault.into()), relay),
    };
    if from_slot {
        input.at += fed.consumed;
    } else if fed.consumed < count {
        rest_at = fed.consumed;
    }
    if rest_at < count {
        // Bytes of the next request came along. Data was moved to the front, behind which the rest still stands.
        input.pending.splice(..0, piece[rest_at..count].iter().copied());
    }
    body.received += fed.data as u64;
    if body.bytes_max != 0 && body.received > body.bytes_max {
        return (Err(ClientFault::BodyTooLarge), relay);
    }
    if !body.reader.is_done() && body.is_too_slow() {
        return (Err(ClientFault::BodyTimeout), relay);
    }
    (Ok(fed.data), relay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::slab::{Slab, SlotLayout};

    /// Nobody reads more than has come.
    struct Nothing;

    impl Reader for Nothing {
        async fn read(&mut self, buf: Buf) -> (std::io::Result<usize>, Buf) {
            (Ok(0), buf)
        }
    }

    #[test]
    fn rule_95_a_piece_counts_when_it_has_come_and_the_last_one_is_never_too_late() {
        let slab = Slab::new(SlotLayout::new(4096, 16384, 2048, 254, 4096), 2, false).expect("memory");
        // Six seconds were waited for this piece: 1536 bytes are due.
        let piece = |length: u64, received: u64, bytes: usize, late_from_ms: Option<u64>| {
            let mut input = Input { slot: slab.take().expect("a slot"), filled: 0, at: 0, pending: vec![b'x'; bytes] };
            let mut body =
                RequestBodyState { reader: BodyReader::length(length - received), received, waited_ms: 6000, late_from_ms, rate_min: 256, bytes_max: 0 };
            let relay = Buf::heap(vec![0; 8192], None);
            let (mut reader, watch) = (Nothing, Watch::default());
            let read = read_piece(&mut reader, &watch, &mut input, &mut body, 1000, relay);
            match std::pin::pin!(read).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
                std::task::Poll::Ready((result, _)) => result,
                std::task::Poll::Pending => panic!("it waits"),
            }
        };
        let late = Some(5000);
        assert_eq!(piece(1000, 0, 1000, late), Ok(1000));
        assert_eq!(piece(1000, 999, 1, late), Ok(1));
        assert_eq!(piece(100_000, 0, 2000, late), Ok(2000));
        assert_eq!(piece(100_000, 1535, 1, late), Ok(1));
        assert_eq!(piece(100_000, 1534, 1, late), Err(ClientFault::BodyTimeout));
        // The first pieces after one long pause need not bring all that is due.
        assert_eq!(piece(100_000, 1534, 1, None), Ok(1));
        assert_eq!(piece(100_000, 1534, 1, Some(5001)), Ok(1));
    }

    #[test]
    fn rule_95_a_client_that_waits_for_100_is_not_waited_for() {
        let watch = Watch::default();
        watch.begin_body(true);
        assert!(watch.awaits_continue());
        assert_eq!(watch.waited(1000, 9000), 0);
        let before = clock::monotonic_ms();
        watch.go_on();
        let since = clock::monotonic_ms();
        assert!(!watch.awaits_continue());
        let waited = watch.waited(before.saturating_sub(5000), since + 700);
        assert!((700..=700 + since - before).contains(&waited), "{waited}");
        watch.begin_body(false);
        assert_eq!(watch.waited(1000, 9000), 8000);
    }

    #[test]
    fn rule_95_the_minimum_rate_counts_the_time_in_which_the_client_is_waited_for() {
        // It has been behind for as long as it may, if it is.
        let body = |received: u64, waited_ms: u64, rate_min: u64| RequestBodyState {
            reader: BodyReader::UntilClose,
            received,
            waited_ms,
            late_from_ms: Some(waited_ms - RATE_CATCH_UP_MS),
            rate_min,
            bytes_max: 0,
        };
        for (received, waited_ms, rate_min, too_slow) in [
            (0, RATE_GRACE_MS, 256, false),
            (0, RATE_GRACE_MS + 1, 256, true),
            (0, RATE_GRACE_MS + 1, 0, false),
            (2560, 10_000, 256, false),
            (2559, 10_000, 256, true),
            (u64::MAX, 1 << 40, 1 << 30, false),
        ] {
            assert_eq!(body(received, waited_ms, rate_min).is_too_slow(), too_slow, "{received} bytes in {waited_ms} ms at {rate_min}");
        }
    }
}
