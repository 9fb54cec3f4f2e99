//! Waiting for the events of a suspended hook.
//!
//! Owns: how long it may wait, and what ends the wait from outside: the client that goes away, the deadline of the exchange. Must not: decide anything for the
//! plugin; its on_event does, in [`Frame::run_event`].
//!
//! The exchange keeps its slots and its frame, and its task waits in the worker's [`Waits`](crate::plugin::waits::Waits) like in a read; the outcalls of the link are driven by the
//! same task ([`UnderWay`]). A request body on
//! its way goes on meanwhile, when a post hook waits. Dropping the future ends the wait.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;

use super::core::{Core, Program, Upstreams};
use super::outcall::UnderWay;
use super::watch::{Lane, Watch};
use crate::clock;
use crate::error::{ClientFault, Fault, ResourceFault};
use crate::limits::Timeouts;
use crate::plugin::frame::{Event, Flow, Frame};
use crate::view::message::Message;

/// The client has closed while a plugin waited.
pub(super) const GONE: Fault = Fault::Client(ClientFault::ClientClosed);

/// The whole exchange has taken too long.
const TOO_LATE: Fault = Fault::Resource(ResourceFault::ExchangeTimeout);

/// Shows events to the link that waits until its chain goes on. `timeouts.suspend` is how long one hook may wait; what it has sent itself is sent here.
///
/// # Errors
/// The client has closed, or the exchange took longer than its limit: no plugin decides any more.
pub(super) async fn resume<U: Upstreams>(core: &Core<U>, watch: &Watch, frame: &RefCell<Frame>, program: &Program, timeouts: &Timeouts) -> Result<Flow, Fault> {
    let waiting = Noted::new(watch, frame);
    let mut calls = UnderWay::new(core, program, timeouts);
    let (mut over_ms, mut is_late) = (0, false);
    loop {
        let deadline_ms = {
            let mut frame = frame.borrow_mut();
            if frame.has_begun_to_wait() {
                // Whoever answers because the exchange took too long takes no more time.
                is_late = watch.expired(Lane::Exchange);
                let patience_ms = if is_late { 0 } else { timeouts.suspend };
                over_ms = clock::monotonic_ms() + u64::from(patience_ms);
                calls.clear();
            }
            // It passed while an event was handled.
            if watch.expired(Lane::Exchange) && !is_late {
                return Err(TOO_LATE);
            }
            calls.start(&mut frame);
            let deadline_ms = over_ms.min(watch.deadline(Lane::Exchange));
            frame.wait_until(deadline_ms);
            deadline_ms
        };
        let (event, reply) = poll_fn(|cx| {
            if watch.has_left() {
                return Poll::Ready(Err(GONE));
            }
            match frame.borrow_mut().poll_event(cx, deadline_ms) {
                Some(Event::Timeout) if deadline_ms < over_ms => {
                    // The sweep would say so a little later: who answers now has no more time either.
                    watch.expire(Lane::Exchange);
                    Poll::Ready(Err(TOO_LATE))
                }
                Some(event) => Poll::Ready(Ok((event, None))),
                None => calls.poll(cx).map_or(Poll::Pending, |(event, reply)| Poll::Ready(Ok((event, reply)))),
            }
        })
        .await?;
        let raw = event.raw(reply.as_ref().map(Message::response));
        let mut borrowed = frame.borrow_mut();
        if matches!(event, Event::Reply { .. }) {
            borrowed.call_is_over();
        }
        let flow = borrowed.run_event(&raw);
        drop(borrowed);
        if !matches!(flow, Flow::Suspend(_)) {
            drop(waiting);
            return Ok(flow);
        }
    }
}

/// The sweep knows that the exchange waits, and looks whether its client is still there.
struct Noted<'a>(&'a Watch);

impl<'a> Noted<'a> {
    fn new(watch: &'a Watch, frame: &RefCell<Frame>) -> Noted<'a> {
        watch.waits_as.set(frame.borrow().request().request().request_id());
        Noted(watch)
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.waits_as.set(0);
    }
}
