//! Waiting for the events of a suspended hook.
//!
//! Owns: how long it may wait, and what ends the wait from outside: the client that goes away, the deadline of the exchange. Must not: decide anything for the
//! plugin; its on_event does, in [`Frame::run_event`].
//!
//! The exchange keeps its slots and its frame, and its task waits in the worker's [`Waits`](crate::plugin::waits::Waits) like in a read. A request body on
//! its way goes on meanwhile, when a post hook waits. Dropping the future ends the wait.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;

use super::watch::{Lane, Watch};
use crate::clock;
use crate::error::{ClientFault, Fault, ResourceFault};
use crate::plugin::frame::{Event, Flow, Frame};

/// The client has closed while a plugin waited.
pub(super) const GONE: Fault = Fault::Client(ClientFault::ClientClosed);

/// Shows events to the link that waits until its chain goes on. `suspend_ms` is how long one hook may wait.
///
/// # Errors
/// The client has closed, or the exchange took longer than its limit: no plugin decides any more.
pub(super) async fn resume(watch: &Watch, frame: &RefCell<Frame>, suspend_ms: u32) -> Result<Flow, Fault> {
    let waiting = Noted::new(watch, frame);
    let mut over_ms = 0;
    loop {
        let deadline_ms = {
            let mut frame = frame.borrow_mut();
            if frame.has_begun_to_wait() {
                over_ms = clock::monotonic_ms() + u64::from(suspend_ms);
            }
            let deadline_ms = over_ms.min(watch.deadline(Lane::Exchange));
            frame.wait_until(deadline_ms);
            deadline_ms
        };
        let event = poll_fn(|cx| {
            if watch.has_left() {
                return Poll::Ready(Err(GONE));
            }
            match frame.borrow_mut().poll_event(cx, deadline_ms) {
                Some(Event::Timeout) if deadline_ms < over_ms => Poll::Ready(Err(Fault::Resource(ResourceFault::ExchangeTimeout))),
                Some(event) => Poll::Ready(Ok(event)),
                None => Poll::Pending,
            }
        })
        .await?;
        let flow = frame.borrow_mut().run_event(&event.raw());
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
