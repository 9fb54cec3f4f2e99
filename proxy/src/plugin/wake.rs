//! The way of a wake from any thread to the worker of its exchange.
//!
//! Owns: the bounded queue of each worker, and the bell that tells the worker that something is in it. Must not: block the worker, or trust that it still
//! runs: plugins call from threads of their own.
//!
//! A wake is pushed, then the bell is rung unless it has been rung already; the worker first marks the bell as silent, then takes what is in the queue. So
//! no wake stays behind, and at most one byte is on its way.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crossbeam_queue::ArrayQueue;

/// Wakes of one worker that have not been taken; further calls are told to try again later.
pub const WAKES_QUEUED_MAX: usize = 8192;
/// The bits of a request id above this are the worker's index.
pub const WORKER_SHIFT: u32 = 48;

/// One call of `wake`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// The exchange.
    pub request_id: u64,
    /// The link that waits.
    pub link: u32,
    /// For the event.
    pub token: u64,
}

/// What the worker and the callers share.
struct Channel {
    queue: ArrayQueue<Wake>,
    is_rung: AtomicBool,
    bell: UnixStream,
}

/// The channels of all workers that run. Only callers of `wake` read it, only starting and ending workers write it.
static CHANNELS: RwLock<Vec<(u32, Arc<Channel>)>> = RwLock::new(Vec::new());
/// Wakes that found nobody.
static STALE: AtomicU64 = AtomicU64::new(0);

/// The worker's end. Dropping it closes the channel.
pub struct Wakes {
    worker: u32,
    channel: Arc<Channel>,
}

impl Wakes {
    /// The channel of this worker, and the end of the bell that becomes readable when there are wakes to take.
    ///
    /// # Errors
    /// When the system gives no sockets.
    pub fn open(worker: u32) -> io::Result<(Wakes, UnixStream)> {
        let (bell, theirs) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let channel = Arc::new(Channel { queue: ArrayQueue::new(WAKES_QUEUED_MAX), is_rung: AtomicBool::new(false), bell });
        CHANNELS.write().unwrap_or_else(PoisonError::into_inner).push((worker, Arc::clone(&channel)));
        Ok((Wakes { worker, channel }, theirs))
    }

    /// Hands over what has come; call it when the bell has rung. `take` says whether anybody waited.
    pub fn drain(&self, take: impl Fn(Wake) -> bool) {
        // Whoever pushes from here on rings again.
        self.channel.is_rung.store(false, Ordering::SeqCst);
        while let Some(wake) = self.channel.queue.pop() {
            if !take(wake) {
                STALE.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        let (worker, channel) = (self.worker, &self.channel);
        CHANNELS.write().unwrap_or_else(PoisonError::into_inner).retain(|(index, known)| *index != worker || !Arc::ptr_eq(known, channel));
    }
}

/// Sends a wake to the worker of its exchange; false when too many are on their way.
pub fn send(wake: Wake) -> bool {
    let worker = (wake.request_id >> WORKER_SHIFT) as u32;
    let channels = CHANNELS.read().unwrap_or_else(PoisonError::into_inner);
    let Some((_, channel)) = channels.iter().find(|(index, _)| *index == worker) else {
        STALE.fetch_add(1, Ordering::Relaxed);
        return true;
    };
    if channel.queue.push(wake).is_err() {
        return false;
    }
    if !channel.is_rung.swap(true, Ordering::SeqCst) {
        // Full or closed: the worker has a byte to read already, or is no more.
        let _ = (&channel.bell).write(&[0]);
    }
    true
}

/// Wakes that found nobody, in this process.
pub fn stale() -> u64 {
    STALE.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Read;
    use std::thread;

    use super::*;

    fn wake(worker: u64, token: u64) -> Wake {
        Wake { request_id: worker << WORKER_SHIFT | 1, link: 0, token }
    }

    #[test]
    fn a_wake_for_a_worker_that_is_gone_is_counted_and_nothing_else() {
        let before = stale();
        assert!(send(wake(900, 1)));
        let (wakes, _bell) = Wakes::open(900).expect("sockets");
        assert!(send(wake(900, 2)));
        wakes.drain(|_| false);
        drop(wakes);
        assert!(send(wake(900, 3)));
        // Other tests of this binary may count too.
        assert!(stale() >= before + 3);
    }

    #[test]
    fn a_full_queue_says_so_and_takes_again_when_it_was_drained() {
        let (wakes, mut bell) = Wakes::open(901).expect("sockets");
        let taken = (0..WAKES_QUEUED_MAX as u64 + 10).filter(|token| send(wake(901, *token))).count();
        assert_eq!(taken, WAKES_QUEUED_MAX);
        let mut bytes = [0; 64];
        assert_eq!(bell.read(&mut bytes).expect("rung"), 1, "one byte for all of them");
        wakes.drain(|_| true);
        assert!(send(wake(901, 0)));
    }

    /// Many threads, one worker that sleeps on the bell: every wake arrives.
    #[test]
    fn no_wake_is_lost() {
        const EACH: u64 = 20_000;
        let (wakes, mut bell) = Wakes::open(902).expect("sockets");
        bell.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a socket");
        thread::scope(|scope| {
            // Without it, whoever sends does not wait: the threads end if this one panics.
            let wakes = wakes;
            for thread in 0..4 {
                scope.spawn(move || {
                    for token in 0..EACH {
                        while !send(wake(902, thread * EACH + token)) {
                            thread::yield_now();
                        }
                    }
                });
            }
            let seen = RefCell::new(vec![false; 4 * EACH as usize]);
            let mut count = 0;
            while count < seen.borrow().len() {
                assert!(bell.read(&mut [0; 64]).is_ok_and(|read| read > 0));
                wakes.drain(|wake| {
                    assert!(!std::mem::replace(&mut seen.borrow_mut()[wake.token as usize], true), "twice");
                    true
                });
                count = seen.borrow().iter().filter(|seen| **seen).count();
            }
        });
    }
}
