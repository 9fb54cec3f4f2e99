//! Responses that are made here: by a plugin, or by the gateway itself.

use ringway_abi::ids::{HeaderId, METHOD_HEAD};
use ringway_abi::raw;

use super::body::{BodyReader, PREFIX_BYTES};
use super::core::Upstreams;
use super::io::{Reader, Stall, Writer, write_all};
use super::request::read_piece;
use super::suspend::{GONE, resume};
use super::watch::Lane;
use super::{Connection, End, Exchange, Next};
use crate::clock;
use crate::error::{ClientFault, Fault, ResourceFault};
use crate::http1::entry_set::EntrySet;
use crate::http1::write::{Addition, Connection as ConnectionLine, OutFraming, write_response_head};
use crate::plugin::frame::{ChunkFlow, Flow, MadeBody};
use crate::view::slab::{Buf, Slot};

impl<R: Reader, W: Writer, U: Upstreams> Connection<'_, R, W, U> {
    /// A pre hook answered: post hooks of the links before it, then the response.
    pub(super) async fn answer(&mut self, exchange: &mut Exchange) -> Next {
        let mut flow = self.frame.borrow_mut().run_response();
        if matches!(flow, Flow::Suspend(_)) {
            flow = match resume(self.core, self.watch, &self.frame, &exchange.program, exchange.timeouts()).await {
                Ok(flow) => flow,
                Err(GONE) => {
                    exchange.reply.fault = Some(GONE);
                    Flow::Drop
                }
                // Some links have seen this response.
                Err(fault) => return self.fail_plainly(exchange, fault).await,
            };
        }
        match flow {
            Flow::Drop => Next::End(End::Abort),
            // A post hook failed, and there is no slot for the error.
            Flow::Fault(fault) => self.fail_plainly(exchange, Fault::Plugin(fault)).await,
            _ => self.send_made(exchange).await,
        }
    }

    /// Answers with an error of the gateway. Post hooks see it like any response.
    pub(super) async fn fail(&mut self, exchange: &mut Exchange, fault: Fault) -> Next {
        let fault = self.cause(fault);
        let row = fault.row();
        exchange.reply.fault = Some(fault);
        exchange.persist &= row.keep_alive;
        if self.watch.has_left() {
            return Next::End(End::Abort);
        }
        let body = error_body(row.status, row.text);
        let allow;
        let mut headers: smallvec::SmallVec<[(&[u8], &[u8]); 2]> = smallvec::smallvec![(&b"content-type"[..], &b"text/plain; charset=utf-8"[..])];
        match fault {
            // RFC 9110 §15.5.6: a 405 says what is allowed.
            Fault::Client(ClientFault::MethodNotAllowed) => {
                allow = exchange.program.table.allowed_methods(self.frame.borrow().request().request(), self.peer.listener);
                headers.push((b"allow", allow.as_bytes()));
            }
            Fault::Resource(_) => headers.push((b"retry-after", b"1")),
            _ => {}
        }
        let made = self.frame.borrow_mut().respond_gateway(row.status, &headers, body.as_bytes());
        if !made {
            return self.fail_plainly(exchange, fault).await;
        }
        self.answer(exchange).await
    }

    /// What made an exchange fail: when the client left, or the whole took too long, whatever failed then failed because of that.
    pub(super) fn cause(&self, fault: Fault) -> Fault {
        if self.watch.has_left() {
            Fault::Client(ClientFault::ClientClosed)
        } else if self.watch.expired(Lane::Exchange) {
            Fault::Resource(ResourceFault::ExchangeTimeout)
        } else {
            fault
        }
    }

    /// Why the client could not be sent all of its response.
    pub(super) fn not_taken(&self) -> Fault {
        self.cause(Fault::Client(if self.watch.expired(Lane::DownWrite) { ClientFault::WriteStalled } else { ClientFault::ClientClosed }))
    }

    /// The plainest answer: it needs no slot, and no hook sees it. Not from the request's own slot, into which a read that was given up may
    /// still be writing.
    pub(super) async fn fail_plainly(&mut self, exchange: &mut Exchange, fault: Fault) -> Next {
        exchange.reply.status = fault.row().status;
        exchange.reply.framed = true;
        exchange.reply.fault = Some(fault);
        let is_head = self.frame.borrow().request().request().method_id() == METHOD_HEAD;
        let mut out = vec![0; PLAIN_ERROR_BYTES];
        let Some((head, body)) = plain_error(&mut out, fault, &self.core.date.now()) else { return Next::End(End::Abort) };
        // RFC 9110 §9.3.2.
        let body = if is_head { 0 } else { body };
        let buf = Buf::heap(out, None).narrowed(0..head + body);
        if self.write_down(exchange, buf).await {
            exchange.reply.sent = body as u64;
        }
        Next::End(End::Linger)
    }

    /// Sends the made response of the frame: the head right before its body, in one write.
    pub(super) async fn send_made(&mut self, exchange: &mut Exchange) -> Next {
        let Some(body) = self.show_made_body() else { return Next::End(End::Abort) };
        let keep = exchange.persist && self.can_drain(exchange);
        let Some((first, rest, sent)) = self.lay_out_made(body, keep) else {
            exchange.reply.fault = Some(Fault::Resource(ResourceFault::HeadDoesNotFit));
            return Next::End(End::Abort);
        };
        exchange.reply.framed = true;
        {
            let frame = self.frame.borrow();
            exchange.reply.fault = exchange.reply.fault.or(frame.post_fault.map(Fault::Plugin));
            if let Some(response) = frame.response() {
                exchange.reply.status = response.response().status();
                exchange.reply.origin = response.response().origin();
            }
        }
        let mut written = self.write_down(exchange, first).await;
        if let Some(rest) = rest.filter(|_| written) {
            written = self.write_down(exchange, rest).await;
        }
        if written {
            exchange.reply.sent = sent as u64;
        }
        match (written, keep) {
            (false, _) => {
                exchange.reply.fault.get_or_insert(self.not_taken());
                Next::End(End::Abort)
            }
            (true, false) => Next::End(End::Linger),
            (true, true) => self.drain(exchange).await,
        }
    }

    async fn write_down(&mut self, exchange: &Exchange, buf: Buf) -> bool {
        let (result, _) = write_all(self.writer, Stall::new(self.watch, Lane::DownWrite, exchange.timeouts().write_stall), buf).await;
        result.is_ok()
    }

    /// Chunk hooks see the body of a made response as one piece. `None`: a hook ended the connection.
    fn show_made_body(&mut self) -> Option<MadeBody> {
        let mut frame = self.frame.borrow_mut();
        let body = frame.take_made_body()?;
        if !frame.chain().plan().has_hook(raw::HOOK_RESPONSE_CHUNK) {
            return Some(body);
        }
        // SPEC S-81: a message without a body gets no chunk hook.
        let is_head = frame.request().request().method_id() == METHOD_HEAD;
        let view = frame.response()?.response();
        if is_head || matches!(view.status(), 204 | 304) || view.content_length() == 0 {
            return Some(body);
        }
        let slot: Option<Slot> = frame.response().map(|r| r.slot().clone());
        let shown = match (&body, &slot) {
            (MadeBody::InSlot { at, bytes }, Some(slot)) => slot.bytes(*at..at + bytes),
            (MadeBody::Heap(bytes), _) => bytes,
            (MadeBody::InSlot { .. }, None) => return None,
        };
        match frame.run_response_chunk(shown, 0, true) {
            ChunkFlow::Forward => Some(body),
            ChunkFlow::Replaced => {
                let replaced = frame.take_replacement().unwrap_or_default();
                let bytes = replaced.len() as u64;
                frame.response_mut()?.set_response_facts(|root| root.content_length = bytes);
                Some(MadeBody::Heap(replaced))
            }
            ChunkFlow::Stop(_) => None,
        }
    }

    /// The head, right-aligned before the body; a body outside of the slot comes as a second buffer. The third: how many bytes of a body there are.
    fn lay_out_made(&mut self, body: MadeBody, keep: bool) -> Option<(Buf, Option<Buf>, usize)> {
        let frame = self.frame.borrow();
        let is_head = frame.request().request().method_id() == METHOD_HEAD;
        let message = frame.response()?;
        let view = message.response();
        let layout = *message.slot().layout();
        let date = self.core.date.now();
        let mut additions: smallvec::SmallVec<[Addition<'_>; 1]> = smallvec::SmallVec::new();
        if view.header(HeaderId::DATE).is_none() {
            additions.push(Addition { name: b"date", value: &date });
        }
        let connection = if keep { ConnectionLine::Nothing } else { ConnectionLine::Close };
        // RFC 9110 §8.6: no length where there never is a body.
        let framing = if matches!(view.status(), 204 | 304) { OutFraming::None } else { OutFraming::Length(view.content_length()) };
        let mut slot = message.slot().clone();
        let out = slot.bytes_mut(layout.out_at()..layout.out_at() + layout.out());
        let gap = match &body {
            MadeBody::InSlot { at, .. } => at - layout.out_at(),
            MadeBody::Heap(_) => out.len(),
        };
        let head = write_response_head(&mut out[..gap], view, &[], &EntrySet::EMPTY, framing, connection, &additions).ok()?;
        out[..gap].copy_within(0..head, gap - head);
        let begin = layout.out_at() + gap - head;
        let bodiless = is_head || matches!(view.status(), 204 | 304);
        Some(match body {
            MadeBody::InSlot { bytes, .. } => {
                let bytes = if bodiless { 0 } else { bytes };
                (Buf::slot(slot, begin..layout.out_at() + gap + bytes), None, bytes)
            }
            MadeBody::Heap(bytes) => {
                let count = if bodiless { 0 } else { bytes.len() };
                (Buf::slot(slot, begin..layout.out_at() + gap), (count > 0).then(|| Buf::heap(bytes, None)), count)
            }
        })
    }

    /// Whether the rest of the request body is small enough to read and throw away.
    pub(super) fn can_drain(&self, exchange: &Exchange) -> bool {
        if self.watch.awaits_continue() {
            // The client may never send the body: nobody told it to go on.
            return exchange.body.reader.is_done();
        }
        match exchange.body.reader.remaining() {
            // Nothing is waited for.
            Some(left) if exchange.timeouts().linger == 0 => left <= self.input.unread().len() as u64,
            Some(left) => left <= exchange.program.limits.drain_bytes as u64,
            None => false,
        }
    }

    /// RFC 9112 §9.3: the request is read to its end before the next one. The client has `timeouts.linger` for all of it.
    pub(super) async fn drain(&mut self, exchange: &mut Exchange) -> Next {
        if let BodyReader::Length(left) = exchange.body.reader
            && left <= self.input.unread().len() as u64
        {
            self.input.at += left as usize;
            return Next::KeepAlive;
        }
        if exchange.body.reader.is_done() {
            return Next::KeepAlive;
        }
        let layout = *self.input.slot.layout();
        let slot = self.input.slot.clone();
        let mut relay = self.core.relay.take(|| Buf::slot(slot, layout.out_at()..layout.out_at() + layout.out()));
        debug_assert!(relay.region_bytes() > PREFIX_BYTES);
        let until = clock::monotonic_ms() + u64::from(exchange.timeouts().linger);
        let mut next = Next::KeepAlive;
        while !exchange.body.reader.is_done() {
            let left_ms = until.saturating_sub(clock::monotonic_ms()) as u32;
            if left_ms == 0 {
                next = Next::End(End::Linger);
                break;
            }
            let (piece, returned) = read_piece(self.reader, self.watch, &mut self.input, &mut exchange.body, left_ms, relay).await;
            relay = returned;
            if piece.is_err() {
                next = Next::End(End::Linger);
                break;
            }
        }
        self.core.relay.give_back(relay);
        next
    }
}

/// Room for the plainest answer.
pub(super) const PLAIN_ERROR_BYTES: usize = 512;

fn error_body(status: u16, text: &str) -> String {
    format!("{status}: {text}\n")
}

/// The smallest complete error response, which closes the connection: the bytes of its head and of the body behind it; `None` when `out` is too small.
pub(super) fn plain_error(out: &mut [u8], fault: Fault, date: &[u8; 29]) -> Option<(usize, usize)> {
    use std::io::Write;
    let (status, text) = (fault.row().status, fault.row().text);
    let room = out.len();
    let mut rest = out;
    let body = error_body(status, text);
    let reason = String::from_utf8_lossy(crate::http1::write::reason(status));
    let date = String::from_utf8_lossy(date);
    write!(
        rest,
        "HTTP/1.1 {status} {reason}\r\ndate: {date}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n{body}",
        body.len(),
        if matches!(fault, Fault::Resource(_)) { "retry-after: 1\r\n" } else { "" }
    )
    .ok()?;
    Some((room - rest.len() - body.len(), body.len()))
}
