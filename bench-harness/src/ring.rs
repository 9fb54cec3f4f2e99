//! A thin io_uring: set up once per thread, submit, wait, read completions.
//!
//! Owns the choice of ring flags and how a full submission queue is handled. It must not own any buffer: memory that is
//! given to the kernel stays with the caller until its completion. Read `load/engine.rs` for how it is driven.

use io_uring::{IoUring, squeue, types};
use std::io;
use std::time::Duration;

/// One completion: what the submitter wrote into `user_data`, and the result (a negative errno on failure).
pub type Completion = (u64, i32);

/// A ring for one thread.
pub struct Ring {
    inner: IoUring,
}

impl Ring {
    /// A ring with `entries` submission slots and four times as many completion slots.
    ///
    /// Tries the flags that cost least first (`DEFER_TASKRUN` needs Linux 6.1), then falls back to a plain ring.
    pub fn new(entries: u32) -> io::Result<Self> {
        let completions = entries * 4;
        let deferred = IoUring::builder().setup_cqsize(completions).setup_single_issuer().setup_defer_taskrun().build(entries);
        let inner = match deferred {
            Ok(ring) => ring,
            Err(_) => IoUring::builder().setup_cqsize(completions).build(entries)?,
        };
        Ok(Self { inner })
    }

    /// Queues one operation; a full queue is submitted first.
    ///
    /// # Safety
    /// Memory that `entry` names must stay valid, and unaliased if the kernel writes it, until its completion arrived.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the caller keeps the memory of `entry` valid until its completion.
            let pushed = unsafe { self.inner.submission().push(entry) };
            match pushed {
                Ok(()) => return Ok(()),
                Err(_) => {
                    self.inner.submit()?;
                }
            }
        }
    }

    /// Submits what is queued and waits for one completion, or until `timeout` passed.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let outcome = match timeout {
            None => self.inner.submit_and_wait(1),
            Some(limit) => {
                let spec = types::Timespec::new().sec(limit.as_secs()).nsec(limit.subsec_nanos());
                let args = types::SubmitArgs::new().timespec(&spec);
                self.inner.submitter().submit_with_args(1, &args)
            }
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Moves the completions that are ready into `into`.
    pub fn drain(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.inner.completion().map(|entry| (entry.user_data(), entry.result())));
    }
}
