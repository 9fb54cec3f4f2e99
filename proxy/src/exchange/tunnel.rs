//! After an upgrade: bytes both ways, each direction until its end.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::core::{Lease, Outcome, Upstreams};
use super::io::{Reader, Stall, Writer, write_all};
use super::watch::{Lane, Watch};
use super::{Connection, End, Exchange, Next};
use crate::error::{Fault, ResourceFault};
use crate::view::slab::Buf;

impl<R: Reader, W: Writer, U: Upstreams> Connection<'_, R, W, U> {
    /// Relays until both sides have said that nothing more comes, or nothing has come for long. `leftover` came from the
    /// upstream behind its 101.
    pub(super) async fn tunnel(&mut self, exchange: &mut Exchange, mut lease: Lease<U::Reader, U::Writer>, leftover: Vec<u8>) -> Next {
        let stall_ms = exchange.timeouts().write_stall;
        let patience_ms = Cell::new(exchange.timeouts().tunnel_idle);
        self.watch.disarm(Lane::Exchange);
        let layout = *self.input.slot.layout();
        let mut early = self.input.unread().to_vec();
        early.append(&mut self.input.pending);
        self.input.at = self.input.filled;
        let out = layout.out_at()..layout.out_at() + layout.out();
        let slot = self.input.slot.clone();
        let half = out.start + (out.end - out.start) / 2;
        let up_relay = Buf::slot(slot.clone(), out.start..half);
        let down_relay = Buf::slot(slot, half..out.end);
        let core = self.core;
        // A tunnel may be silent for hours: bodies come first.
        let relays = (core.relay.take_spare(|| up_relay), core.relay.take_spare(|| down_relay));
        let (mut sent, mut received): (Option<Ending>, Option<Ending>) = (None, None);
        let (sent_bytes, received_bytes) = (Cell::new(0), Cell::new(0));
        {
            let up = copy(self.reader, &mut lease.writer, self.watch, early, relays.0, &patience_ms, &sent_bytes);
            let down = copy(&mut lease.reader, self.writer, self.watch, leftover, relays.1, &patience_ms, &received_bytes);
            let (mut up, mut down) = (pin!(up), pin!(down));
            poll_fn(|cx| {
                if sent.is_none()
                    && let Poll::Ready(end) = up.as_mut().poll(cx)
                {
                    sent = Some(end);
                    if end == Ending::NotTaken {
                        // Nobody looks for the client any more: what is left has its time.
                        patience_ms.set(if patience_ms.get() == 0 { stall_ms } else { stall_ms.min(patience_ms.get()) });
                        self.watch.arm(Lane::Tunnel, patience_ms.get());
                    }
                }
                if received.is_none()
                    && let Poll::Ready(end) = down.as_mut().poll(cx)
                {
                    received = Some(end);
                }
                // What the upstream takes no more of is lost, but what it has said is not: it may have closed after its last word.
                let over = received.is_some_and(|end| end != Ending::Whole) || sent.is_some_and(|end| !matches!(end, Ending::Whole | Ending::NotTaken));
                if over || (sent.is_some() && received.is_some()) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        self.watch.disarm(Lane::Tunnel);
        exchange.body.received += sent_bytes.get();
        exchange.reply.sent += received_bytes.get();
        self.discard(lease, Outcome::Succeeded);
        if self.watch.is_cut_off() {
            exchange.reply.fault = Some(Fault::Resource(ResourceFault::Draining));
        }
        Next::End(End::Close)
    }
}

/// Why one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The sender said that nothing more comes, and the receiver was told.
    Whole,
    /// The sender broke off.
    Broken,
    /// The receiver takes no more.
    NotTaken,
    /// Nothing came for too long.
    Idle,
}

/// One direction: `first`, then what comes. Both directions share one deadline, so that either keeps the tunnel open. When it passes, both sockets
/// are shut down: whatever either direction waits for ends. `bytes`: what the receiver has taken.
async fn copy<R: Reader, W: Writer>(
    reader: &mut R,
    writer: &mut W,
    watch: &Watch,
    first: Vec<u8>,
    mut relay: Buf,
    patience_ms: &Cell<u32>,
    bytes: &Cell<u64>,
) -> Ending {
    let early = first.len() as u64;
    let stall = || Stall::new(watch, Lane::Tunnel, patience_ms.get());
    let not_taken = || if watch.expired(Lane::Tunnel) { Ending::Idle } else { Ending::NotTaken };
    if !first.is_empty() && write_all(writer, stall(), Buf::heap(first, None)).await.0.is_err() {
        return not_taken();
    }
    bytes.set(early);
    loop {
        let region = relay.region_bytes();
        relay.narrow(0..region);
        watch.arm(Lane::Tunnel, patience_ms.get());
        let (result, returned) = reader.read(relay).await;
        relay = returned;
        match result {
            // Too long without a byte in either direction.
            _ if watch.expired(Lane::Tunnel) => return Ending::Idle,
            Ok(0) => {
                // Half-close is passed on: the other direction may have more to say.
                writer.finish();
                return Ending::Whole;
            }
            Ok(count) => {
                relay.narrow(0..count);
                let (written, returned) = write_all(writer, stall(), relay).await;
                relay = returned;
                if written.is_err() {
                    return not_taken();
                }
                bytes.set(bytes.get() + count as u64);
            }
            Err(_) => return Ending::Broken,
        }
    }
}
