//! Deadlines of one connection.
//!
//! Arming a deadline is two stores; nothing is scheduled. The worker sweeps all watches a few times a second and, when a
//! deadline has passed, shuts the socket down on the side concerned: the pending operation completes, and whoever awaits
//! it asks [`Watch::expired`] why. So no timer exists per operation, no operation is ever dropped half-way, and a
//! deadline is exact to one tick of the worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::clock;

/// What a deadline guards. Each lane has one deadline at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Lane {
    /// Bytes from the client.
    DownRead = 0,
    /// Bytes to the client.
    DownWrite = 1,
    /// Bytes from the upstream, and connecting.
    UpRead = 2,
    /// Bytes to the upstream.
    UpWrite = 3,
    /// The whole exchange.
    Exchange = 4,
    /// Bytes of a tunnel, either way.
    Tunnel = 5,
}

const LANES: usize = 6;
const NEVER: u64 = u64::MAX;
/// The deadline of a lane that is waited on for ever.
const FOREVER: u64 = u64::MAX - 1;

/// The deadlines and sockets of one downstream connection and the upstream connection it uses at the moment.
pub struct Watch {
    deadlines: [Cell<u64>; LANES],
    expired: Cell<u8>,
    /// The client's socket, -1 for none.
    pub down: Cell<i32>,
    /// The upstream's socket, -1 for none.
    pub up: Cell<i32>,
    /// Since when a read between two requests is pending (monotonic ms); `u64::MAX` when none is.
    pub idle_since: Cell<u64>,
    /// Requests answered on this connection.
    pub requests: Cell<u32>,
    /// It waits for readability, without a slot.
    pub parked: Cell<bool>,
    /// The request whose plugin waits for an event; 0 when none does.
    pub waits_as: Cell<u64>,
    /// When the connection was accepted (monotonic ms).
    pub began_ms: u64,
    /// From when on the client may send the body of its request (monotonic ms); [`NEVER`] while it waits for 100.
    sends_from: Cell<u64>,
    /// The client has closed while the upstream was awaited.
    left: Cell<bool>,
    /// The gateway ends the connection where it is.
    cut_off: Cell<bool>,
    /// Only the end of the connection shows the end of the response that is being sent.
    unframed: Cell<bool>,
    /// The reading side of the client's socket has been shut down here.
    deaf: Cell<bool>,
    /// The beginning of a head that comes slowly, while the connection has no slot; see [`Core::hold`](super::core::Core::hold).
    pub(super) held: RefCell<Option<Box<[u8]>>>,
    /// The deadline of the wait for the upstream that the sweep saw last, and when it first saw it or last asked for a look.
    awaited: Cell<(u64, u64)>,
    /// When [`Watch::alarm`] rings, and whom it wakes.
    alarm: Cell<u64>,
    alarm_waker: RefCell<Option<Waker>>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            deadlines: [const { Cell::new(NEVER) }; LANES],
            expired: Cell::new(0),
            down: Cell::new(-1),
            up: Cell::new(-1),
            idle_since: Cell::new(NEVER),
            requests: Cell::new(0),
            parked: Cell::new(false),
            waits_as: Cell::new(0),
            began_ms: clock::monotonic_ms(),
            sends_from: Cell::new(0),
            left: Cell::new(false),
            cut_off: Cell::new(false),
            unframed: Cell::new(false),
            deaf: Cell::new(false),
            held: RefCell::new(None),
            awaited: Cell::new((NEVER, 0)),
            alarm: Cell::new(NEVER),
            alarm_waker: RefCell::new(None),
        }
    }
}

impl Watch {
    /// The lane must make progress within `ms` milliseconds from now; 0 is for ever.
    #[inline]
    pub fn arm(&self, lane: Lane, ms: u32) {
        self.arm_at(lane, ms, clock::monotonic_ms());
    }

    /// As [`Watch::arm`], where the time (monotonic ms) is known already.
    #[inline]
    pub fn arm_at(&self, lane: Lane, ms: u32, now: u64) {
        let deadline = if ms == 0 { FOREVER } else { now + u64::from(ms) };
        self.deadlines[lane as usize].set(deadline);
    }

    /// The lane has no deadline.
    #[inline]
    pub fn disarm(&self, lane: Lane) {
        self.deadlines[lane as usize].set(NEVER);
    }

    /// The lane's deadline is this one (monotonic ms), as [`Watch::deadline`] gave it.
    pub fn restore(&self, lane: Lane, deadline: u64) {
        self.deadlines[lane as usize].set(deadline);
    }

    /// When the lane's deadline passes (monotonic ms); `u64::MAX` when it has none.
    pub fn deadline(&self, lane: Lane) -> u64 {
        self.deadlines[lane as usize].get()
    }

    /// When the next deadline passes (monotonic ms).
    pub fn next_deadline(&self) -> u64 {
        self.deadlines.iter().map(Cell::get).min().unwrap_or(NEVER)
    }

    /// Whether the beginning of a head waits here for the rest.
    pub fn is_holding(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// Waits `ms` milliseconds, exact to one tick. One alarm at a time; it ends nothing.
    pub async fn alarm(&self, ms: u32) {
        let due = clock::monotonic_ms() + u64::from(ms);
        self.alarm.set(due);
        poll_fn(|cx| {
            if self.alarm.get() == NEVER {
                return Poll::Ready(());
            }
            *self.alarm_waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Rings the alarm when it is due by `now` (monotonic ms).
    pub fn ring(&self, now: u64) {
        if self.alarm.get() <= now {
            self.alarm.set(NEVER);
            if let Some(waker) = self.alarm_waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether the sweep should look for the client: one wait for the upstream, or for an event of a plugin, has lasted `after` milliseconds, or as long
    /// again since the last look. Exchanges pay nothing for it: the sweep sees by its deadline that a wait is the same one.
    pub fn wants_look(&self, now: u64, after: u64) -> bool {
        // A plugin that waits is known by its request.
        let deadline = match self.waits_as.get() {
            0 => self.deadline(Lane::UpRead).min(self.deadline(Lane::UpWrite)),
            request => request,
        };
        if deadline == NEVER || self.left.get() || self.is_expired() {
            return false;
        }
        let (seen, since) = self.awaited.get();
        let same = seen == deadline;
        if same && now.saturating_sub(since) < after {
            return false;
        }
        self.awaited.set((deadline, now));
        same
    }

    /// The client has closed: whoever awaits the upstream is to give up. The upstream's socket is shut down by the caller.
    pub fn leave(&self) {
        self.left.set(true);
    }

    /// Whether the client has closed while the upstream was awaited.
    #[inline]
    pub fn has_left(&self) -> bool {
        self.left.get()
    }

    /// The time for what is under way is over: as [`Watch::leave`], though it is the gateway that goes.
    pub fn cut_off(&self) {
        self.left.set(true);
        self.cut_off.set(true);
    }

    /// Whether the gateway has ended the connection where it was.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.get()
    }

    /// A response begins, or gets to its end (`false`), whose end is that of the connection.
    pub fn set_unframed(&self, unframed: bool) {
        self.unframed.set(unframed);
    }

    /// Whether a client would take a good end of the connection for the end of its response, which is not there yet.
    pub fn is_unframed(&self) -> bool {
        self.unframed.get()
    }

    /// The reading side of the client's socket has been shut down: its readiness and its end say nothing any more.
    pub fn deafen(&self) {
        self.deaf.set(true);
    }

    /// See [`Watch::deafen`].
    pub fn is_deaf(&self) -> bool {
        self.deaf.get()
    }

    /// Whether the wait for the upstream was ended here: an end of its stream says nothing then.
    pub fn ended_upstream(&self) -> bool {
        self.left.get() || self.expired.get() & !(1 << Lane::DownRead as u8) != 0
    }

    /// Whether the lane's deadline has passed and ended its operation.
    pub fn expired(&self, lane: Lane) -> bool {
        self.expired.get() & (1 << lane as u8) != 0
    }

    /// Whether the connection can still be used by the client.
    pub fn is_expired(&self) -> bool {
        self.expired.get() != 0
    }

    /// Forgets what expired on the upstream's lanes: another connection is used from here on.
    pub fn renew_upstream(&self) {
        self.disarm(Lane::UpRead);
        self.disarm(Lane::UpWrite);
        self.expired.set(self.expired.get() & !(1 << Lane::UpRead as u8 | 1 << Lane::UpWrite as u8));
    }

    /// An exchange begins: it has so many milliseconds from `now` (monotonic ms) on. That an earlier one took too long is forgotten.
    #[inline]
    pub fn begin_exchange(&self, ms: u32, now: u64) {
        self.expired.set(self.expired.get() & !(1 << Lane::Exchange as u8));
        self.arm_at(Lane::Exchange, ms, now);
    }

    /// A request begins. `awaits`: its client waits for 100 before it sends the body (RFC 9110 §10.1.1).
    #[inline]
    pub fn begin_body(&self, awaits: bool) {
        self.sends_from.set(if awaits { NEVER } else { 0 });
    }

    /// Whether the client waits for 100: nobody has said it, and nothing of the body has come.
    #[inline]
    pub fn awaits_continue(&self) -> bool {
        self.sends_from.get() == NEVER
    }

    /// The client has been told to go on, or has gone on by itself.
    #[inline]
    pub fn go_on(&self) {
        if self.awaits_continue() {
            self.sends_from.set(clock::monotonic_ms());
        }
    }

    /// How long the client has been waited for at `now`, of the time since `since` (all monotonic ms): not while it waits itself.
    pub fn waited(&self, since: u64, now: u64) -> u64 {
        now.saturating_sub(since.max(self.sends_from.get()))
    }

    /// Whether the lane has a deadline at the moment.
    pub fn is_armed(&self, lane: Lane) -> bool {
        self.deadline(lane) != NEVER
    }

    /// The lanes whose deadline has passed by `now` (monotonic ms), marked as expired and disarmed.
    pub fn sweep(&self, now: u64) -> impl Iterator<Item = Lane> {
        const ALL: [Lane; LANES] = [Lane::DownRead, Lane::DownWrite, Lane::UpRead, Lane::UpWrite, Lane::Exchange, Lane::Tunnel];
        ALL.into_iter().filter(move |lane| {
            let due = self.deadlines[*lane as usize].get() <= now;
            if due {
                self.expire(*lane);
            }
            due
        })
    }

    /// The lane's deadline has passed.
    pub fn expire(&self, lane: Lane) {
        self.disarm(lane);
        self.expired.set(self.expired.get() | 1 << lane as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_expires_once_and_says_so() {
        let watch = Watch::default();
        watch.arm(Lane::DownRead, 5);
        watch.arm(Lane::UpRead, 0);
        let now = clock::monotonic_ms();
        assert_eq!(watch.sweep(now).count(), 0);
        assert_eq!(watch.sweep(now + 1000).collect::<Vec<_>>(), [Lane::DownRead]);
        assert!(watch.expired(Lane::DownRead) && !watch.expired(Lane::UpRead));
        assert_eq!(watch.sweep(now + 2000).count(), 0);
    }

    #[test]
    fn a_client_is_looked_for_while_one_wait_for_the_upstream_lasts() {
        let watch = Watch::default();
        let now = clock::monotonic_ms();
        assert!(!watch.wants_look(now, 250), "nothing is awaited");
        for ms in [0, 60_000] {
            watch.arm(Lane::UpRead, ms);
            let looks: Vec<u64> = (0..20).map(|tick| tick * 50).filter(|after| watch.wants_look(now + after, 250)).collect();
            assert_eq!(looks, [250, 500, 750]);
            watch.disarm(Lane::UpRead);
            assert!(!watch.wants_look(now + 5000, 250));
        }
        watch.arm(Lane::UpWrite, 70_000);
        assert!(!watch.wants_look(now, 250) && watch.wants_look(now + 250, 250), "an upstream that takes nothing");
        watch.disarm(Lane::UpWrite);
        // Waits that follow each other are not one long one.
        for tick in 0..20 {
            watch.arm(Lane::UpRead, 60_000 + tick);
            assert!(!watch.wants_look(now + u64::from(tick) * 50, 250));
        }
        watch.leave();
        assert!(watch.has_left() && !watch.wants_look(now + 10_000, 250), "once is enough");
    }

    #[test]
    fn a_new_upstream_connection_begins_without_the_old_ones_expiry() {
        let watch = Watch::default();
        watch.arm(Lane::UpRead, 1);
        assert_eq!(watch.sweep(u64::MAX - 1).count(), 1);
        watch.renew_upstream();
        assert!(!watch.is_expired());
    }
}
