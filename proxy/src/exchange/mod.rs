//! The exchange: drives one request and its response over two streams, one connection at a time.
//!
//! [`serve`] is the loop of a downstream connection: read a head, run the exchange, go on or stop. The parts: [`io`] what a
//! connection is, [`watch`] its deadlines, [`core`] what the worker shares, [`body`] framing as it streams, `head` reading
//! heads, `request` from the head to the plugins' decision, `forward` to the upstream, `response` back to the client,
//! `made` responses that were made here, [`capture`] copies for operators, `record` what the logs say, `suspend` plugins that wait for an event, [`outcall`] what they send meanwhile, [`splice`] bodies that nobody looks at, `tunnel` after an upgrade.
//!
//! Must not: name sockets, the runtime or io_uring.
//!
//! Invariants:
//! - responses leave in the order of the requests; at most one exchange runs per connection;
//! - a connection is used again only when both messages ended where their framing says;
//! - once a byte of the response head has left, nothing else is answered: an error after that closes the connection.

pub mod body;
pub mod capture;
pub mod core;
mod forward;
pub mod head;
pub mod io;
mod made;
pub mod outcall;
mod record;
mod request;
mod response;
pub mod splice;
mod suspend;
mod tunnel;
pub mod watch;

use std::cell::RefCell;
use std::rc::Rc;

use ringway_abi::ids::METHOD_CONNECT;
use ringway_abi::raw;

use self::body::BodyReader;
use self::core::{Core, Program, Upstreams, add};
use self::io::{Reader, Writer};
use self::watch::{Lane, Watch};
use crate::clock;
use crate::error::{ClientFault, Fault, ResourceFault};
use crate::http1::head::RequestFacts;
use crate::limits::Timeouts;
use crate::plugin::frame::Frame;
use crate::view::slab::Slot;

/// Who is at the other end of a downstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// IPv6 or IPv4 mapped; all zero for a Unix socket.
    pub address: [u8; 16],
    /// 0 for a Unix socket.
    pub port: u16,
    /// Index of the listener.
    pub listener: u16,
    /// Whether its forwarding headers are believed.
    pub trusted: bool,
}

/// Why [`serve`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing is to be read or written: the connection can wait without a slot. What it had of a head is with its [`Watch`].
    Park,
    /// Close it.
    Close,
    /// Say that nothing more comes, read what is on its way for a moment, then close: the client may still be sending,
    /// and a reset would take the answer from it. RFC 9112 §9.6.
    Linger,
    /// As [`End::Linger`]: the framing shows that the message was cut off, and a reset would take from a slow client what had come before.
    Cut,
    /// Close it so that the client sees that the message was cut off, where nothing else says so.
    Abort,
}

/// How one exchange ended, for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next request may follow.
    KeepAlive,
    /// See [`End`].
    End(End),
}

/// One downstream connection while it is active.
struct Connection<'a, R, W, U> {
    core: &'a Core<U>,
    watch: &'a Watch,
    peer: Peer,
    reader: &'a mut R,
    writer: &'a mut W,
    input: Input,
    frame: RefCell<Frame>,
    /// The client's address as text, for forwarding headers.
    peer_text: crate::address::Text,
    /// The connection had given its slot back in the middle of a head, and has it again; nothing was read since.
    resumed: bool,
}

/// Received bytes of the connection.
struct Input {
    /// The slot of the request being read.
    slot: Slot,
    /// Bytes of the slot that have been received.
    filled: usize,
    /// Where the bytes begin that the exchange has not used.
    at: usize,
    /// Received bytes of later messages that a body read brought along.
    pending: Vec<u8>,
}

/// What the parts of one exchange pass along.
struct Exchange {
    program: Rc<Program>,
    facts: RequestFacts,
    /// The body as it comes from the client.
    body: RequestBodyState,
    /// Index of the route; `None` while none is known.
    route: Option<usize>,
    reply: Reply,
    /// For logs.
    tried: record::Tried,
    /// The client may send another request after this exchange.
    persist: bool,
    began_ms: u64,
    /// The same by the precise clock; 0 while the access log is off.
    began_ns: u64,
    /// The whole request body, when a plugin asked for it or replaced it.
    buffered: Option<Vec<u8>>,
}

/// The request body on its way in.
struct RequestBodyState {
    reader: BodyReader,
    /// Bytes received, transfer coding removed.
    received: u64,
    /// Milliseconds in which the client was waited for.
    waited_ms: u64,
    /// Since when (in `waited_ms`) the client has been behind the rate.
    late_from_ms: Option<u64>,
    /// Bytes a second that the client must bring while it is waited for; 0 for any.
    rate_min: u64,
    /// Bound in bytes; 0 for none.
    bytes_max: u64,
}

/// What the client was sent.
struct Reply {
    /// The status; 0 while no final head has left.
    status: u16,
    /// The client can see by the framing of the response whether all of it has come.
    framed: bool,
    /// An interim response has begun to leave and not ended: nothing can be answered in its middle.
    interim: bool,
    origin: u8,
    /// Body bytes sent.
    sent: u64,
    /// From the request sent to the head of the response received, by the precise clock; 0 when nobody asked.
    upstream_ns: u64,
    fault: Option<Fault>,
}

/// Serves requests on this connection until it ends or becomes idle for long. `slot` is a free slot.
pub async fn serve<R, W, U>(core: &Core<U>, watch: &Watch, peer: Peer, reader: &mut R, writer: &mut W, slot: Slot) -> End
where
    R: Reader,
    W: Writer,
    U: Upstreams,
{
    let program = core.program();
    let frame = RefCell::new(Frame::new(Rc::clone(&program.host), core.worker).with_waits(Rc::clone(&core.waits)));
    drop(program);
    let mut input = Input { slot, filled: 0, at: 0, pending: Vec::new() };
    let held = core.take_held(watch);
    if let Some(bytes) = &held {
        input.slot.bytes_mut(0..bytes.len()).copy_from_slice(bytes);
        input.filled = bytes.len();
    }
    let peer_text = crate::address::Text::of(peer.address);
    let mut connection = Connection { core, watch, peer, reader, writer, input, frame, peer_text, resumed: held.is_some() };
    let end = connection.run().await;
    connection.frame.borrow_mut().end();
    end
}

impl<R: Reader, W: Writer, U: Upstreams> Connection<'_, R, W, U> {
    async fn run(&mut self) -> End {
        loop {
            let (program, facts) = match self.read_request().await {
                Ok(read) => read,
                Err(end) => return end,
            };
            let mut exchange = self.begin(self.core.program_for(program), facts);
            let mut next = self.exchange(&mut exchange).await;
            self.watch.disarm(Lane::Exchange);
            let reply = &mut exchange.reply;
            if self.watch.is_cut_off() && (reply.status == 0 || reply.fault.is_some()) {
                // Whatever went wrong did so because of that.
                reply.fault = Some(Fault::Resource(ResourceFault::Draining));
                // The client is there, and may still be reading what it was sent.
                if next == Next::End(End::Abort) && (reply.status == 0 || reply.framed) {
                    next = Next::End(End::Cut);
                }
            }
            self.finish(&exchange, next);
            match next {
                Next::End(end) => return end,
                // In the moment of the last byte that was read in time: nothing more can be read.
                Next::KeepAlive if self.watch.is_deaf() => return End::Linger,
                Next::KeepAlive => self.input.shift(),
            }
            if self.core.closing.get() && self.input.filled == 0 && self.input.pending.is_empty() {
                return End::Linger;
            }
            if self.core.is_crowded() && self.input.filled == 0 && self.input.pending.is_empty() {
                // Others wait for the memory that this connection would be idle in.
                self.watch.arm(Lane::DownRead, self.core.program().timeouts.keep_alive_idle);
                return End::Park;
            }
        }
    }

    fn begin(&mut self, program: Rc<Program>, facts: RequestFacts) -> Exchange {
        let requests = self.watch.requests.get() + 1;
        self.watch.requests.set(requests);
        add(&self.core.stats.requests, 1);
        let now = clock::monotonic_ms();
        self.watch.begin_exchange(program.timeouts.exchange, now);
        let bound = program.limits.requests_per_connection;
        let age_ms = now.saturating_sub(self.watch.began_ms);
        let aged = program.timeouts.connection_age != 0 && age_ms > u64::from(program.timeouts.connection_age);
        // RFC 9931: a client may have sent bytes for a tunnel that it does not get. They are no requests: whatever the answer to CONNECT is,
        // the connection ends with it.
        let is_connect = self.frame.borrow().request().request().method_id() == METHOD_CONNECT;
        // RFC 9112 §9.3: a proxy does not persist with an HTTP/1.0 client.
        let persist = facts.persist && !facts.http10 && !is_connect && !aged && !self.core.draining.get() && (bound == 0 || (requests as usize) < bound);
        let reader = self::request::reader_of(&facts, &program.limits);
        self.input.at = facts.head_bytes as usize;
        let body = RequestBodyState {
            reader,
            received: 0,
            waited_ms: 0,
            late_from_ms: None,
            rate_min: program.limits.body_rate_bytes as u64,
            bytes_max: program.limits.body_bytes as u64,
        };
        self.watch.begin_body(facts.expect_continue && self.input.unread().is_empty() && self.input.pending.is_empty());
        let reply = Reply { status: 0, framed: false, interim: false, origin: ringway_abi::view::ORIGIN_GATEWAY, sent: 0, upstream_ns: 0, fault: None };
        let began_ns = if program.access_log { clock::monotonic_ns() } else { 0 };
        let tried = record::Tried::default();
        Exchange { program, facts, body, route: None, reply, tried, persist, began_ms: now, began_ns, buffered: None }
    }

    /// Tells the plugins, counts, logs; the frame lets go of the request.
    fn finish(&mut self, exchange: &Exchange, next: Next) {
        let mut frame = self.frame.borrow_mut();
        let reply = &exchange.reply;
        let aborted = matches!(next, Next::End(End::Abort | End::Cut)) || reply.status == 0;
        if let Some(fault) = reply.fault {
            self.core.stats.faults.count(fault);
            self.log_fault(exchange, &frame, fault);
        }
        let duration_ms = clock::monotonic_ms().saturating_sub(exchange.began_ms);
        let done = raw::Done {
            size: size_of::<raw::Done>() as u32,
            status: reply.status,
            origin: reply.origin,
            flags: if aborted { raw::END_ABORTED } else { 0 },
            request_body_bytes: exchange.body.received,
            response_body_bytes: reply.sent,
            duration_ns: duration_ms * 1_000_000,
        };
        frame.run_done(&done);
        if self.core.captures.is_on() {
            let route = exchange.route.map(|at| exchange.program.routes[at].name.as_str());
            self.core.captures.take(route, &mut frame);
        }
        let stats = &self.core.stats;
        add(&stats.responses[usize::from(reply.told_status() / 100).min(5)], 1);
        add(&stats.request_bytes, exchange.body.received);
        add(&stats.response_bytes, reply.sent);
        if exchange.program.access_log {
            self.log_exchange(exchange, &frame);
        }
        frame.end();
    }

    async fn exchange(&mut self, exchange: &mut Exchange) -> Next {
        match self.decide(exchange).await {
            request::Decision::Forward(upstream) => self.forward(exchange, upstream).await,
            request::Decision::Respond => self.answer(exchange).await,
            request::Decision::Fault(fault) => self.fail(exchange, fault).await,
            request::Decision::Drop => Next::End(End::Abort),
        }
    }
}

impl Exchange {
    /// The deadlines of the route; those of the configuration while no route is known.
    fn timeouts(&self) -> &Timeouts {
        self.route.map_or(&self.program.timeouts, |at| &self.program.routes[at].timeouts)
    }
}

/// What the end of a client's stream means in the middle of a message.
fn incomplete(watch: &Watch, lane: Lane) -> ClientFault {
    if watch.expired(lane) { ClientFault::BodyTimeout } else { ClientFault::BodyIncomplete }
}

impl Input {
    /// The exchange is over: what was received behind it moves to the beginning of the slot.
    fn shift(&mut self) {
        let left = self.filled - self.at;
        if left > 0 && self.at > 0 {
            let (at, filled) = (self.at, self.filled);
            self.slot.bytes_mut(0..filled).copy_within(at.., 0);
        }
        self.filled = left;
        self.at = 0;
    }

    /// Received bytes that nothing has used yet.
    fn unread(&self) -> &[u8] {
        self.slot.bytes(self.at..self.filled)
    }
}
