//! All that one exchange does, without its input and output: parse, hooks, outgoing heads.
//!
//! Follows `ringway::exchange` step by step, which is bound to connections. What it leaves out: timers, the choice of an upstream,
//! the connection pool, logs.

use std::rc::Rc;

use ringway::http1::entry_set::EntrySet;
use ringway::http1::write::{Addition, Connection, OutFraming, write_request_head, write_response_head};
use ringway::plugin::chain::CoreChain;
use ringway::plugin::frame::{Flow, Frame, MadeBody};
use ringway::route::RouteTable;
use ringway::view::message::Message;
use ringway_abi::raw;

use crate::chains::Worker;
use crate::inputs::Input;
use crate::slots::{Received, config};

/// What the gateway adds to a request by default.
pub const ADDITIONS: [Addition<'static>; 4] = [
    Addition { name: b"via", value: b"1.1 ringway" },
    Addition { name: b"x-forwarded-for", value: b"192.0.2.17" },
    Addition { name: b"x-forwarded-proto", value: b"http" },
    Addition { name: b"x-forwarded-host", value: b"www.example.com" },
];
/// What it adds to a response of its own.
pub const DATE: [Addition<'static>; 1] = [Addition { name: b"date", value: b"Tue, 04 Mar 2025 10:11:12 GMT" }];

/// A request, a chain, and the response of the upstream.
pub struct Exchange {
    worker: Worker,
    chain: Rc<CoreChain>,
    frame: Frame,
    routes: RouteTable,
    request: Received,
    response: Received,
}

impl Exchange {
    /// `request` goes through a chain of these plugins and is answered with `response`.
    pub fn new(plugins: &[&'static str], request: Input, response: Input) -> Exchange {
        let mut once = plugins.to_vec();
        once.sort_unstable();
        once.dedup();
        let worker = Worker::new(&once);
        Exchange {
            chain: worker.chain(plugins),
            frame: worker.frame(),
            routes: RouteTable::new(&config(1), None),
            request: Received::new(&worker.slab, request),
            response: Received::new(&worker.slab, response),
            worker,
        }
    }

    /// One exchange. Bytes of the heads that leave, and of the body when a plugin answered.
    ///
    /// # Panics
    /// When a hook does anything but go on or answer.
    #[inline]
    pub fn run(&mut self) -> usize {
        let facts = self.request.parse_request(&self.worker.names);
        let message = self.request.request();
        self.routes.find(message.request(), 0).expect("the last route takes everything");
        self.frame.set_request(message);
        self.frame.begin(&self.worker.shared, &self.chain);
        let bytes = match self.frame.run_request(0) {
            Flow::Continue => {
                let out = write_request(self.frame.request(), &self.request, facts.head_bytes as usize, &facts.dropped);
                let facts = self.response.parse_response(&self.worker.names);
                let message = self.response.response();
                self.frame.set_response(message);
                let flow = self.frame.run_response();
                assert_eq!(flow, Flow::Continue);
                let message = self.frame.response().expect("it was set");
                out + write_response(message, &self.response, facts.head_bytes as usize, &facts.dropped)
            }
            Flow::Respond => {
                let Some(MadeBody::InSlot { at, bytes }) = self.frame.take_made_body() else { panic!("a body that fits its slot") };
                lay_out_made(self.frame.response().expect("a plugin made it"), at) + bytes
            }
            other => panic!("{other:?}"),
        };
        let done =
            raw::Done { size: size_of::<raw::Done>() as u32, status: 200, origin: 0, flags: 0, request_body_bytes: 0, response_body_bytes: 0, duration_ns: 1 };
        self.frame.run_done(&done);
        self.frame.end();
        bytes
    }
}

/// Lays a request head out in the out area of its slot.
///
/// # Panics
/// When it does not fit.
#[inline]
pub fn write_request(message: &Message, received: &Received, head_bytes: usize, dropped: &EntrySet) -> usize {
    let layout = *received.slot.layout();
    let mut slot = received.slot.clone();
    let out = slot.bytes_mut(layout.out_at()..layout.out_at() + layout.out());
    let head = received.slot.bytes(0..head_bytes);
    write_request_head(out, message.request(), head, dropped, &[], OutFraming::AsReceived, &ADDITIONS).expect("the out area takes any head")
}

/// Lays a response head out in the out area of its slot.
///
/// # Panics
/// When it does not fit.
#[inline]
pub fn write_response(message: &Message, received: &Received, head_bytes: usize, dropped: &EntrySet) -> usize {
    let layout = *received.slot.layout();
    let mut slot = received.slot.clone();
    let out = slot.bytes_mut(layout.out_at()..layout.out_at() + layout.out());
    let head = received.slot.bytes(0..head_bytes);
    write_response_head(out, message.response(), head, dropped, OutFraming::AsReceived, Connection::Nothing, &[]).expect("the out area takes any head")
}

/// Lays the head of a response that a plugin made right before its body, which begins at `body_at`.
///
/// # Panics
/// When it does not fit.
#[inline]
pub fn lay_out_made(message: &Message, body_at: usize) -> usize {
    let layout = *message.slot().layout();
    let mut slot = message.slot().clone();
    let gap = body_at - layout.out_at();
    let out = slot.bytes_mut(layout.out_at()..body_at);
    let framing = OutFraming::Length(message.response().content_length());
    let head = write_response_head(out, message.response(), &[], &EntrySet::EMPTY, framing, Connection::Nothing, &DATE).expect("the gap takes any head");
    out.copy_within(0..head, gap - head);
    head
}
