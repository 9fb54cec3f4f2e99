//! One downstream connection, from its first byte to its last: with a slot while there is something to do, without one while nothing happens.
//!
//! Owns: waiting without a slot, the way to one, the last moments of a connection. Must not: know what is said on it; the exchange does.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use super::net::{Park, Shared, abort_on_close, discard, has_bytes, shut_down};
use super::pool::Pool;
use super::{Entry, Local};
use crate::clock;
use crate::error::{ClientFault, Fault, ResourceFault};
use crate::exchange::core::Permit;
use crate::exchange::head::refuse;
use crate::exchange::watch::{Lane, Watch};
use crate::exchange::{End, Peer, serve};
use crate::view::slab::Slot;

/// Ticks between two looks for what a client sends after an answer to it that timed out: 250 ms.
const LINGER_TICKS: u32 = 5;

/// One downstream connection. While nothing happens it is this small future and no slot.
pub(super) async fn connection(local: Rc<Local>, stream: Shared, peer: Peer) {
    let watch = Rc::new(Watch::default());
    let park = Rc::new(Park::default());
    watch.down.set(stream.fd());
    watch.arm(Lane::DownRead, local.config().timeouts.head);
    let at = local.connections.borrow_mut().insert(Entry { watch: Rc::clone(&watch), park: Rc::clone(&park), sleeps_until: 0 });
    // Where memory is short, only who has something to say gets some.
    let mut parked = local.core.is_crowded();
    loop {
        if parked {
            watch.parked.set(true);
            local.connections.borrow_mut().sleep(at, watch.next_deadline());
            let waited = stream.readable().await;
            local.connections.borrow_mut().sleep(at, 0);
            watch.parked.set(false);
            if waited.is_err() {
                break;
            }
        }
        let end = {
            let (_permit, slot) = match admission_to_slots(&local, &watch).await {
                Ok(admitted) => admitted,
                Err(Denied::Silent) => {
                    parked = true;
                    continue;
                }
                Err(Denied::Gone) => break,
                Err(denied @ (Denied::Late | Denied::Overdue)) => {
                    let held = local.core.take_held(&watch).unwrap_or_default();
                    let fault = match denied {
                        // HTTP1.md rule 3: a line end behind a body is no request.
                        Denied::Overdue if matches!(&*held, b"\r" | b"\r\n") => break,
                        Denied::Overdue => Fault::Client(ClientFault::HeadTimeout),
                        _ => Fault::Resource(ResourceFault::SlotsExhausted),
                    };
                    // Room for what is rare is not made in every idle connection.
                    Box::pin(refuse(&local.core, &watch, peer, &mut stream.halves().1, &held, fault)).await;
                    drop(held);
                    linger(&local, &stream, &watch).await;
                    break;
                }
            };
            let (reader, mut writer) = stream.halves();
            let mut reader = reader.with_park(Rc::clone(&park));
            // The future of an exchange is large: it is written where it stays, and exists only while there is something to do.
            let serving = Box::write(Box::new_uninit(), serve(&local.core, &watch, peer, &mut reader, &mut writer, slot));
            Box::into_pin(serving).await
        };
        match end {
            End::Park if local.core.closing.get() && !watch.is_holding() => break,
            End::Park => parked = true,
            End::Close => break,
            End::Linger | End::Cut => {
                linger(&local, &stream, &watch).await;
                break;
            }
            End::Abort => {
                abort_on_close(stream.fd());
                break;
            }
        }
    }
    // The sweep must not touch a descriptor that may be another connection's by then.
    watch.down.set(-1);
    drop(local.core.take_held(&watch));
    local.connections.borrow_mut().remove(at);
    local.admission.leave(peer.address);
    let open = &local.core.stats.open;
    open.store(open.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
}

/// The right to use slots, unless the alarm rings first.
async fn permit_within<'a>(local: &'a Local, watch: &Watch, wait_ms: u32) -> Option<Permit<'a, Pool>> {
    let (mut permit, mut alarm) = (pin!(local.core.permit()), pin!(watch.alarm(wait_ms)));
    poll_fn(|cx| match permit.as_mut().poll(cx) {
        Poll::Ready(permit) => Poll::Ready(Some(permit)),
        Poll::Pending => alarm.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Why a connection gets no slot.
enum Denied {
    /// It has nothing to say.
    Silent,
    /// The client has closed, or its time is over before it said anything.
    Gone,
    /// There was none for too long.
    Late,
    /// The rest of its head did not come in time.
    Overdue,
}

/// What a connection needs to serve requests: the right to use slots, and the first of them.
async fn admission_to_slots<'a>(local: &'a Local, watch: &Watch) -> Result<(Permit<'a, Pool>, Slot), Denied> {
    let permit = match local.core.try_permit() {
        Some(permit) => permit,
        None => {
            // Only who has something to say waits.
            if watch.is_holding() && watch.expired(Lane::DownRead) {
                return Err(Denied::Overdue);
            } else if !watch.is_holding() {
                match has_bytes(watch.down.get()) {
                    Ok(true) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Denied::Silent),
                    _ => return Err(Denied::Gone),
                }
            }
            // A head that has begun has its time, here too; that others wait is not the client's fault.
            let deadline = if watch.is_holding() { watch.deadline(Lane::DownRead) } else { u64::MAX };
            watch.disarm(Lane::DownRead);
            // The sweep looks for the client as if an upstream were awaited, and rings when it is gone.
            watch.arm(Lane::UpRead, 0);
            let slot_wait = Some(local.config().timeouts.slot_wait).filter(|ms| *ms > 0).unwrap_or(u32::MAX);
            let left = u32::try_from(deadline.saturating_sub(clock::monotonic_ms())).unwrap_or(u32::MAX);
            let permit = Box::pin(permit_within(local, watch, slot_wait.min(left))).await;
            watch.disarm(Lane::UpRead);
            watch.restore(Lane::DownRead, deadline);
            permit.ok_or(if watch.has_left() { Denied::Gone } else { Denied::Late })?
        }
    };
    loop {
        match local.core.slab.take() {
            Some(slot) => return Ok((permit, slot)),
            // A permit covers what an exchange takes, and the reserve what plugins and operations that were given up hold for
            // a moment: the moment passes.
            None => local.tick().await,
        }
    }
}

/// RFC 9112 §9.6: after the answer, what the client still sends is read for a moment, so that no reset takes the answer
/// from it. It holds no slot: whoever gets an error answer could keep others from theirs.
async fn linger(local: &Local, stream: &Shared, watch: &Watch) {
    let linger_ms = local.config().timeouts.linger;
    if linger_ms == 0 {
        return;
    }
    if watch.is_deaf() {
        // The sweep has ended the reading side, so that its readiness and its end say nothing: what comes is looked for now and then. The
        // sending side stays open, for Linux answers what arrives on a socket that is shut down both ways with a reset.
        let until = clock::monotonic_ms() + u64::from(linger_ms);
        while clock::monotonic_ms() < until && !local.is_stopping() {
            for _ in 0..LINGER_TICKS {
                local.tick().await;
            }
            // The end of the stream is our own.
            if discard(stream.fd()).is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                break;
            }
        }
        return;
    }
    shut_down(stream.fd(), libc::SHUT_WR);
    watch.arm(Lane::DownRead, linger_ms);
    while !watch.expired(Lane::DownRead) && stream.readable().await.is_ok() {
        match discard(stream.fd()) {
            Ok(0) => break,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
            _ => {}
        }
    }
    watch.disarm(Lane::DownRead);
}
