//! The lock of an entry or of a bucket: one word, for readers that write nothing, writers that exclude each other, and adders that
//! share.
//!
//! The word is `[sequence: 32 | exclusive: 1 | holders: 31]`. A writer sets `exclusive` and, when it is done, adds one to the
//! sequence. A reader copies and looks whether the word's upper 33 bits are the same as before; if not, it reads again. An
//! adder changes single words of a value atomically, which no reader can see half done: it only keeps writers out
//! (`holders`).
//!
//! Nobody waits for long: after `SPINS` the answer is [`Busy`]. A holder runs a few dozen instructions without a call
//! that blocks, so it takes a thread that was stopped in the middle for that to happen.
#![forbid(unsafe_code)]

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// How often a lock is tried: some tens of microseconds.
const SPINS: u32 = 2048;
const EXCLUSIVE: u64 = 1 << 31;
const HOLDERS: u64 = EXCLUSIVE - 1;
const SEQUENCE: u64 = 1 << 32;

/// Another thread holds it for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Runs `copy`, which only reads, until nothing was written meanwhile.
#[inline]
pub fn read<T>(lock: &AtomicU64, mut copy: impl FnMut() -> T) -> Result<T, Busy> {
    for _ in 0..SPINS {
        let before = lock.load(Ordering::Acquire);
        if before & EXCLUSIVE == 0 {
            let copied = copy();
            // The loads of `copy` come before the next load; a writer's flag came before its stores (`exclusive`).
            fence(Ordering::Acquire);
            if lock.load(Ordering::Relaxed) & !HOLDERS == before & !HOLDERS {
                return Ok(copied);
            }
        }
        spin_loop();
    }
    Err(Busy)
}

/// Writers excluded each other until it is dropped; readers read again.
pub struct Exclusive<'a>(&'a AtomicU64);

/// Adders and writers exclude each other until it is dropped.
pub struct Shared<'a>(&'a AtomicU64);

/// Takes the lock for writing.
#[inline]
pub fn exclusive(lock: &AtomicU64) -> Result<Exclusive<'_>, Busy> {
    for _ in 0..SPINS {
        let free = lock.load(Ordering::Relaxed) & !(EXCLUSIVE | HOLDERS);
        if lock.compare_exchange_weak(free, free | EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // A reader that sees a later store sees the flag too (`read`).
            fence(Ordering::Release);
            return Ok(Exclusive(lock));
        }
        spin_loop();
    }
    Err(Busy)
}

/// Takes the lock for adding to single words.
#[inline]
pub fn shared(lock: &AtomicU64) -> Result<Shared<'_>, Busy> {
    for _ in 0..SPINS {
        let seen = lock.load(Ordering::Relaxed);
        if seen & EXCLUSIVE == 0 && seen & HOLDERS != HOLDERS && lock.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return Ok(Shared(lock));
        }
        spin_loop();
    }
    Err(Busy)
}

/// Whether a process ended in the middle of a write.
pub fn is_left_locked(word: u64) -> bool {
    word & EXCLUSIVE != 0
}

impl Drop for Exclusive<'_> {
    #[inline]
    fn drop(&mut self) {
        // Nobody else changes the word while the flag stands.
        let held = self.0.load(Ordering::Relaxed);
        self.0.store(held.wrapping_add(SEQUENCE) & !EXCLUSIVE, Ordering::Release);
    }
}

impl Drop for Shared<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_exclude_everyone_and_adders_exclude_writers() {
        let lock = AtomicU64::new(0);
        let writer = exclusive(&lock).expect("free");
        assert!(exclusive(&lock).is_err() && shared(&lock).is_err() && read(&lock, || ()).is_err());
        assert!(is_left_locked(lock.load(Ordering::Relaxed)));
        drop(writer);
        let (one, two) = (shared(&lock).expect("free"), shared(&lock).expect("shared"));
        assert!(exclusive(&lock).is_err() && read(&lock, || ()).is_ok());
        drop((one, two));
        assert!(exclusive(&lock).is_ok());
    }

    #[test]
    fn a_reader_reads_again_when_something_was_written() {
        let lock = AtomicU64::new(u64::from(u32::MAX) << 32);
        let mut reads = 0;
        let seen = read(&lock, || {
            reads += 1;
            // The sequence wraps, which is a change like any other.
            if reads < 3 {
                drop(exclusive(&lock))
            }
            reads
        });
        assert_eq!(seen, Ok(3));
    }
}
