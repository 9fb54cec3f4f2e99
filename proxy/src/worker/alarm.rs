//! What wakes waiting exchanges on a worker: one timer of the kernel for all of them, and the bell of other threads.
//!
//! The tick is too coarse for a timer of ten milliseconds, and the runtime's timers run only when no task is ready. So the worker has one `timerfd`, set to when
//! the first exchange is due, and waits for its readability like for that of a socket; nothing runs while nobody waits.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

use super::Local;
use crate::clock;
use crate::plugin::waits::Waits;
use crate::plugin::wake::Wakes;

/// Sets the alarm of these waits to a timer of the kernel. What is returned becomes readable when it rings.
///
/// # Errors
/// When the system gives no timer.
pub(super) fn alarm_of(waits: &Waits) -> io::Result<OwnedFd> {
    let ours = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let timer = ours.try_clone()?;
    waits.set_alarm(Box::new(move |due_ms| {
        // Zero would turn it off.
        let due_ms = due_ms.max(1);
        let due = Timespec { tv_sec: (due_ms / 1000) as i64, tv_nsec: (due_ms % 1000 * 1_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: due };
        let set = timerfd_settime(timer.as_fd(), TimerfdTimerFlags::ABSTIME, &once);
        debug_assert!(set.is_ok(), "the time is positive and below a second's nanoseconds");
    }));
    Ok(ours)
}

/// Fires what is due, each time that the timer has rung.
pub(super) async fn follow_alarm(local: Rc<Local>, timer: OwnedFd) -> io::Result<()> {
    // The runtime waits for the readability of anything; nothing is read through the socket's type.
    let rings = UnixStream::from_std(timer.try_clone()?.into())?;
    let mut count = [0; 8];
    loop {
        rings.readable(false).await?;
        match rustix::io::read(&timer, &mut count) {
            Ok(_) => local.core.waits.fire(clock::monotonic_ns() / 1_000_000),
            // It was set to a later time meanwhile.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the wakes of other threads, each time that the bell has rung.
pub(super) async fn follow_bell(local: Rc<Local>, wakes: Wakes, bell: std::os::unix::net::UnixStream) -> io::Result<()> {
    let mut bell = UnixStream::from_std(bell)?;
    let mut buffer = vec![0; 64];
    loop {
        let (result, returned) = bell.read(buffer).await;
        buffer = returned;
        result?;
        wakes.drain(|wake| local.core.waits.wake(wake.request_id, wake.link, wake.token));
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::plugin::waits::Waits;

    #[test]
    fn what_is_long_due_rings_at_once() {
        for due_ms in [0, 1, clock::monotonic_ms()] {
            let waits = Rc::new(Waits::default());
            let timer = alarm_of(&waits).expect("a timer");
            let place = waits.enter(1, 0);
            place.set_due(due_ms);
            let rings = poll(&mut [PollFd::new(&timer, PollFlags::IN)], Some(&Timespec { tv_sec: 10, tv_nsec: 0 }));
            assert_eq!(rings, Ok(1), "{due_ms}");
        }
    }
}
