//! Records on their way from plugins to operators: written by every worker, taken by one reader off the workers.
//!
//! Words in a circle. A writer reserves words by moving `written` forward, copies its record behind the first of them and then
//! fills that one in: `[done | length]`. The reader goes on while it finds `done`, zeroes what it took and moves `taken`
//! forward, which gives the room back. Invariant: `taken <= written <= taken + capacity`, and every word that is not between the
//! two is zero. A writer that finds no room drops its record and counts it; nobody ever waits.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::map::{MapError, copy_in, copy_out};
use super::shape::{HEADER_WORDS, MapShape};

/// Words of the header, each in a cache line of its own.
const WRITTEN: usize = 64;
const TAKEN: usize = 72;
const DROPPED: usize = 80;
/// Records so far, written and taken.
const RECORDS: usize = 88;
const READ: usize = 96;

/// In the first word of a record: it is whole.
const DONE: u64 = 1 << 63;

/// Appends a record.
pub(super) fn output(shape: &MapShape, words: &[AtomicU64], record: &[u8]) -> Result<(), MapError> {
    if record.is_empty() || record.len() > shape.value_bytes() {
        return Err(MapError::BadArgument);
    }
    let ring = &words[HEADER_WORDS..];
    let need = 1 + record.len().div_ceil(8) as u64;
    let mut at = words[WRITTEN].load(Ordering::Relaxed);
    loop {
        // The zeroes of the reader come before its `taken`.
        let taken = words[TAKEN].load(Ordering::Acquire);
        let Some(room) = room(at, taken, ring.len() as u64) else {
            at = words[WRITTEN].load(Ordering::Relaxed);
            continue;
        };
        if need > room {
            words[DROPPED].fetch_add(1, Ordering::Relaxed);
            return Err(MapError::Full);
        }
        match words[WRITTEN].compare_exchange_weak(at, at + need, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => at = now,
        }
    }
    for (word, bytes) in (at + 1..).zip(record.chunks(8)) {
        copy_in(std::slice::from_ref(&ring[place(ring, word)]), bytes);
    }
    words[RECORDS].fetch_add(1, Ordering::Relaxed);
    ring[place(ring, at)].store(DONE | record.len() as u64, Ordering::Release);
    Ok(())
}

/// Words that are free. `None` when `written` was read before others wrote what was `taken` since: it has to be read again.
fn room(written: u64, taken: u64, capacity: u64) -> Option<u64> {
    capacity.checked_sub(written.wrapping_sub(taken))
}

/// Takes the oldest record; false when there is none that is whole. One reader at a time.
pub(super) fn take(shape: &MapShape, words: &[AtomicU64], record: &mut Vec<u8>) -> bool {
    let ring = &words[HEADER_WORDS..];
    let at = words[TAKEN].load(Ordering::Relaxed);
    let first = ring[place(ring, at)].load(Ordering::Acquire);
    let length = (first & !DONE) as usize;
    if first & DONE == 0 || length > shape.value_bytes() {
        return false;
    }
    record.clear();
    record.resize(length, 0);
    for (word, bytes) in (at + 1..).zip(record.chunks_mut(8)) {
        copy_out(std::slice::from_ref(&ring[place(ring, word)]), bytes);
    }
    let next = at + 1 + length.div_ceil(8) as u64;
    (at..next).for_each(|word| ring[place(ring, word)].store(0, Ordering::Relaxed));
    words[READ].fetch_add(1, Ordering::Relaxed);
    words[TAKEN].store(next, Ordering::Release);
    true
}

/// Records that nobody has taken yet.
pub(super) fn waiting(words: &[AtomicU64]) -> usize {
    let read = words[READ].load(Ordering::Relaxed);
    words[RECORDS].load(Ordering::Relaxed).saturating_sub(read) as usize
}

/// Records so far, those that were dropped not among them.
pub(super) fn records(words: &[AtomicU64]) -> u64 {
    words[RECORDS].load(Ordering::Relaxed)
}

/// Records that found no room.
pub(super) fn dropped(words: &[AtomicU64]) -> u64 {
    words[DROPPED].load(Ordering::Relaxed)
}

/// The capacity is a power of two.
fn place(ring: &[AtomicU64], word: u64) -> usize {
    word as usize & (ring.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_is_not_between_taken_and_written() {
        for (written, taken, expected) in [(0, 0, Some(8)), (5, 0, Some(3)), (8, 0, Some(0)), (108, 104, Some(4)), (3, u64::MAX - 2, Some(2))] {
            assert_eq!(room(written, taken, 8), expected, "{written} {taken}");
        }
        // A writer that was stopped between its two looks, while others wrote a record or many and a reader took them.
        for (written, taken) in [(5, 7), (5, 5 + (1 << 40))] {
            assert_eq!(room(written, taken, 8), None, "{written} {taken}");
        }
    }
}
