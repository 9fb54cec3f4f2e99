//! Drives a frame through one exchange, in the order in which the gateway's exchange does, without input or output.
//!
//! The same parser writes the views, the same [`Frame`] calls the hooks and judges them. Read with `exchange::request::decide`,
//! `exchange::response` and `exchange::made`, whose order this follows.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;

use ringway_abi::ids::METHOD_HEAD;
use ringway_abi::outcall::UNREACHABLE;
use ringway_abi::raw;
use ringway_abi::view::{REQ_BODY_COMPLETE, REQ_UPGRADE, RES_BODY_COMPLETE, RES_HAS_BODY};

use super::frames::Sample;
use crate::http1::head::{Area, HeadLimits, HeadProgress, RequestBody, ResponseBody, ResponseTo, parse_request, parse_response};
use crate::limits;
use crate::plugin::chain::CoreChain;
use crate::plugin::frame::{ChunkFlow, Event, Flow, Frame, MadeBody};
use crate::plugin::host::HostShared;
use crate::plugin::outcall::Call;
use crate::view::message::{Message, Side};
use crate::view::slab::{Slab, SlotLayout};

/// What exchanges need.
pub(super) struct Drive {
    pub(super) shared: Rc<HostShared>,
    pub(super) chain: Rc<CoreChain>,
    /// Counts the exchanges: each has its own id.
    pub(super) exchanges: u64,
    /// Counts the outcalls: each gets the next reply.
    pub(super) outcalls: Cell<usize>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The upstream's response, or one that was made, would have been sent.
    Answered,
    /// The connection would have been closed without an answer.
    Dropped,
    /// A hook failed.
    Failed,
}

/// Slots that one exchange needs: its request, its response, one that a hook makes of it, and those of its outcalls.
const SLOTS: u32 = 8 + limits::OUTCALLS_PER_HOOK as u32;

/// Timers of one wait; then it has waited for too long.
const EVENTS_MAX: u32 = 16;

/// A slab as a gateway has, with the default limits or with those that let these frames pass.
pub(super) fn slab(frames: &[Sample]) -> std::io::Result<Slab> {
    let heads = frames.iter().flat_map(|sample| [sample.request.len(), sample.response.as_ref().map_or(0, Vec::len)]);
    let head_bytes = heads.max().unwrap_or(0).max(limits::HEAD_BYTES);
    let out = head_bytes + 4 * limits::EDIT_BYTES;
    let layout = SlotLayout::new(head_bytes, out, limits::EDIT_BYTES, limits::HEADER_FIELDS_MAX, raw::SCRATCH_BYTES_MAX as usize);
    Slab::new(layout, SLOTS, false)
}

fn head_limits(layout: &SlotLayout) -> HeadLimits {
    let head_bytes = layout.receive();
    HeadLimits {
        head_bytes,
        target_bytes: head_bytes,
        fields: limits::HEADER_FIELDS_MAX,
        line_bytes: head_bytes.min(usize::from(u16::MAX)),
        method_bytes: head_bytes,
        ..HeadLimits::default()
    }
}

/// The replies to outcalls, one after the other: none, one that agrees, one that does not, one whose body was cut off.
const REPLIES: [Option<(&[u8], &[u8])>; 4] = [
    None,
    Some((b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\nX-User: golden\r\n\r\n", b"yes")),
    Some((b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\nSet-Cookie: c=\xe4\r\n\r\n", b"no")),
    Some((b"HTTP/1.1 302 Found\r\nContent-Length: 100\r\nLocation: /login\r\n\r\n", b"cut off")),
];

impl Drive {
    fn post_hooks(&self, frame: &mut Frame) -> Flow {
        let flow = frame.run_response();
        self.wait_out(frame, flow)
    }

    /// Shows a link that waits the events it would get without any wake: the replies to its outcalls, its timer, or the end of its patience. No time passes.
    fn wait_out(&self, frame: &mut Frame, mut flow: Flow) -> Flow {
        let mut events = 0;
        while let Flow::Suspend(_) = flow {
            events += 1;
            let call = frame.take_call().filter(|_| events <= EVENTS_MAX);
            let (event, reply) = match call {
                Some(call) => self.answer(frame, call),
                None if events > EVENTS_MAX => (Event::Timeout, None),
                None => (frame.next_event(), None),
            };
            flow = frame.run_event(&event.raw(reply.as_ref().map(Message::response)));
        }
        flow
    }

    /// The end of an outcall, and its reply.
    fn answer(&self, frame: &mut Frame, mut call: Call) -> (Event, Option<Message>) {
        frame.call_is_over();
        let turn = self.outcalls.get();
        self.outcalls.set(turn + 1);
        let reply = REPLIES[turn % REPLIES.len()].and_then(|(head, body)| self.reply(&call, head, body));
        call.end(reply.is_some());
        let status = if reply.is_some() { raw::OK } else { UNREACHABLE };
        (Event::Reply { token: call.token, status }, reply)
    }

    fn reply(&self, call: &Call, head: &[u8], body: &[u8]) -> Option<Message> {
        let mut slot = call.slot.clone();
        slot.bytes_mut(0..head.len()).copy_from_slice(head);
        let at = slot.layout().out_at();
        slot.bytes_mut(at..at + body.len()).copy_from_slice(body);
        let to = ResponseTo { method_id: call.method_id, upgrade: false };
        let bounds = head_limits(slot.layout());
        let (bytes, entries, root) = slot.response_parts();
        let parsed = parse_response(Area { bytes, filled: head.len() }, &bounds, &self.shared.names, entries, root, to, &mut HeadProgress::default());
        let facts = parsed.ok().flatten()?;
        let count = root.headers.len as usize;
        let mut message = Message::parsed(slot, Side::Response, count);
        let length = if let ResponseBody::Length(length) = facts.body { length } else { 0 };
        if length > 0 {
            message.set_body_span(at, body.len());
        }
        message.set_response_facts(|root| {
            root.request_id = call.request_id;
            root.content_length = length;
            root.flags = if length > body.len() as u64 { 0 } else { RES_BODY_COMPLETE } | if length > 0 { RES_HAS_BODY } else { 0 };
        });
        Some(message)
    }

    /// One exchange from its first hook to `on_done`.
    ///
    /// # Errors
    /// The frame is not what the gateway would accept.
    pub(super) fn exchange(&mut self, sample: &Sample, frame: &mut Frame) -> Result<Ended, String> {
        self.exchanges += 1;
        let chunked = self.enter_request(sample, frame)?;
        let mut end = match self.pre_hooks(sample, frame, chunked) {
            Flow::Continue => self.respond(sample, frame)?,
            Flow::Respond => {
                let flow = self.post_hooks(frame);
                self.made(frame, flow)
            }
            Flow::Drop => Ended::Dropped,
            _ => Ended::Failed,
        };
        if frame.post_fault.is_some() {
            end = Ended::Failed;
        }
        let response = frame.response().map(Message::response);
        let done = raw::Done {
            size: size_of::<raw::Done>() as u32,
            status: response.map_or(0, |view| view.status()),
            origin: response.map_or(0, |view| view.origin()),
            flags: if end == Ended::Answered { 0 } else { raw::END_ABORTED },
            request_body_bytes: sample.request_body.iter().map(|piece| piece.len() as u64).sum(),
            response_body_bytes: sample.response_body.iter().map(|piece| piece.len() as u64).sum(),
            duration_ns: 1_000_000,
        };
        frame.run_done(&done);
        frame.end();
        Ok(end)
    }

    /// Whether the body is chunked.
    fn enter_request(&self, sample: &Sample, frame: &mut Frame) -> Result<bool, String> {
        let mut slot = self.shared.slab.take().ok_or("no slot is free")?;
        let head = sample.request.len();
        if head > slot.layout().receive() {
            return Err(format!("the head of the request has {head} bytes"));
        }
        slot.bytes_mut(0..head).copy_from_slice(&sample.request);
        let bounds = head_limits(slot.layout());
        let (bytes, entries, root) = slot.request_parts();
        let parsed = parse_request(Area { bytes, filled: head }, &bounds, &self.shared.names, entries, root, &mut HeadProgress::default());
        let facts = match parsed {
            Ok(Some(facts)) => facts,
            Ok(None) => return Err("the head of the request is not complete".into()),
            Err(fault) => return Err(format!("the request is refused by the parser: {}", fault.row().text)),
        };
        let count = root.headers.len as usize;
        // A body that came along with its head is shown in the view.
        let here = sample.request_body.first().filter(|piece| matches!(facts.body, RequestBody::Length(_)) && head + piece.len() <= slot.layout().receive());
        if let Some(piece) = here {
            slot.bytes_mut(head..head + piece.len()).copy_from_slice(piece);
        }
        let mut request = Message::parsed(slot, Side::Request, count);
        let id = self.exchanges;
        request.set_request_facts(|root| {
            root.request_id = id;
            root.received_unix_ns = crate::clock::unix_ns_coarse();
            root.peer_addr = sample.peer;
            root.peer_port = 49152;
            root.listener = 0;
            root.route = 0;
        });
        if let Some(piece) = here {
            request.set_body_span(head, piece.len());
            if facts.body == RequestBody::Length(piece.len() as u64) {
                request.set_request_facts(|root| root.flags |= REQ_BODY_COMPLETE);
            }
        }
        frame.set_request(request);
        frame.begin(&self.shared, &self.chain);
        Ok(facts.body == RequestBody::Chunked)
    }

    fn pre_hooks(&self, sample: &Sample, frame: &mut Frame, chunked: bool) -> Flow {
        let mut buffered: Option<Vec<u8>> = None;
        let mut flow = frame.run_request(0);
        loop {
            let (at, passed) = match flow {
                Flow::NeedBody(at) => {
                    let body = buffered.get_or_insert_with(|| sample.request_body.concat());
                    (at, frame.run_request_body(at, body))
                }
                Flow::Suspend(at) => (at, self.wait_out(frame, flow)),
                _ => break,
            };
            flow = passed;
            if flow == Flow::Continue {
                if let Some(replaced) = frame.take_replacement() {
                    buffered = Some(replaced);
                }
                flow = frame.run_request(at + 1);
            }
        }
        if flow != Flow::Continue || !frame.chain().plan().has_hook(raw::HOOK_REQUEST_CHUNK) {
            return flow;
        }
        let pieces = buffered.map_or_else(|| sample.request_body.clone(), |body| vec![body]);
        if pieces.iter().all(Vec::is_empty) && !chunked {
            return Flow::Continue;
        }
        let mut offset = 0;
        for (at, piece) in pieces.iter().enumerate() {
            match frame.run_request_chunk(piece, offset, at + 1 == pieces.len()) {
                ChunkFlow::Stop(flow) => return flow,
                ChunkFlow::Forward | ChunkFlow::Replaced => drop(frame.take_replacement()),
            }
            offset += piece.len() as u64;
        }
        Flow::Continue
    }

    /// The upstream's response, or the gateway's 502.
    fn respond(&self, sample: &Sample, frame: &mut Frame) -> Result<Ended, String> {
        let Some(head) = &sample.response else {
            if !frame.respond_gateway(502, &[(b"content-type", b"text/plain; charset=utf-8")], b"502 the upstream failed\n") {
                return Err("no slot is free".into());
            }
            let flow = self.post_hooks(frame);
            return Ok(self.made(frame, flow));
        };
        let mut slot = self.shared.slab.take().ok_or("no slot is free")?;
        if head.len() > slot.layout().receive() {
            return Err(format!("the head of the response has {} bytes", head.len()));
        }
        slot.bytes_mut(0..head.len()).copy_from_slice(head);
        let request = frame.request().request();
        let to = ResponseTo { method_id: request.method_id(), upgrade: request.flags() & REQ_UPGRADE != 0 };
        let bounds = head_limits(slot.layout());
        let (bytes, entries, root) = slot.response_parts();
        let parsed = parse_response(Area { bytes, filled: head.len() }, &bounds, &self.shared.names, entries, root, to, &mut HeadProgress::default());
        let facts = match parsed {
            Ok(Some(facts)) => facts,
            Ok(None) => return Err("the head of the response is not complete".into()),
            Err(fault) => return Err(format!("the response is refused by the parser: {}", fault.row().text)),
        };
        let count = root.headers.len as usize;
        let here =
            sample.response_body.first().filter(|piece| matches!(facts.body, ResponseBody::Length(_)) && head.len() + piece.len() <= slot.layout().receive());
        if let Some(piece) = here {
            slot.bytes_mut(head.len()..head.len() + piece.len()).copy_from_slice(piece);
        }
        let mut message = Message::parsed(slot, Side::Response, count);
        let id = self.exchanges;
        message.set_response_facts(|root| root.request_id = id);
        if let Some(piece) = here {
            message.set_body_span(head.len(), piece.len());
            if facts.body == ResponseBody::Length(piece.len() as u64) {
                message.set_response_facts(|root| root.flags |= RES_BODY_COMPLETE);
            }
        }
        frame.set_response(message);
        match self.post_hooks(frame) {
            Flow::Continue => {}
            flow => return Ok(self.made(frame, flow)),
        }
        if facts.body == ResponseBody::None || !frame.chain().plan().has_hook(raw::HOOK_RESPONSE_CHUNK) {
            return Ok(Ended::Answered);
        }
        let mut offset = 0;
        for (at, piece) in sample.response_body.iter().enumerate() {
            match frame.run_response_chunk(piece, offset, at + 1 == sample.response_body.len()) {
                ChunkFlow::Stop(Flow::Drop) => return Ok(Ended::Dropped),
                ChunkFlow::Stop(_) => return Ok(Ended::Failed),
                ChunkFlow::Forward | ChunkFlow::Replaced => drop(frame.take_replacement()),
            }
            offset += piece.len() as u64;
        }
        Ok(Ended::Answered)
    }

    /// A response that was made here, after its post hooks came to `flow`; its body is shown as one piece.
    fn made(&self, frame: &mut Frame, flow: Flow) -> Ended {
        match flow {
            Flow::Drop => return Ended::Dropped,
            Flow::Fault(_) => return Ended::Failed,
            _ => {}
        }
        let Some(body) = frame.take_made_body() else { return Ended::Answered };
        let is_head = frame.request().request().method_id() == METHOD_HEAD;
        let Some(view) = frame.response().map(Message::response) else { return Ended::Answered };
        if is_head || matches!(view.status(), 204 | 304) || view.content_length() == 0 || !frame.chain().plan().has_hook(raw::HOOK_RESPONSE_CHUNK) {
            return Ended::Answered;
        }
        let bytes = match &body {
            MadeBody::InSlot { at, bytes } => frame.response().map(|message| message.slot().bytes(*at..at + bytes).to_vec()).unwrap_or_default(),
            MadeBody::Heap(bytes) => bytes.clone(),
        };
        match frame.run_response_chunk(&bytes, 0, true) {
            ChunkFlow::Stop(Flow::Drop) => Ended::Dropped,
            ChunkFlow::Stop(_) => Ended::Failed,
            ChunkFlow::Forward | ChunkFlow::Replaced => Ended::Answered,
        }
    }
}
