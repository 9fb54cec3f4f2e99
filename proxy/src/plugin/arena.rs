//! Memory that the plugins of one exchange asked for with `alloc`.
//!
//! Bytes are handed out from the front of the last chunk and never move; all of them are taken back at once when the
//! exchange ends. A chunk is kept for the next exchange, and one that did not suffice is replaced by one that would have:
//! after a few exchanges alike, none is allocated any more (DESIGN P5).
//!
//! Invariants: `handed <= bound` of each call; after [`Arena::reset`] there is at most one chunk, of less than twice the bound
//! or of [`CHUNK_BYTES`]. Must not: know what the bytes are for.
#![forbid(unsafe_code)]

use std::ffi::c_void;

/// What every piece is aligned to, and its size a multiple of.
const ALIGN: usize = align_of::<Unit>();
/// Bytes of the first chunk, when more are not asked for.
const CHUNK_BYTES: usize = 1024;

type Unit = u128;

const _: () = assert!(ALIGN == 16 && size_of::<Unit>() == 16 && CHUNK_BYTES.is_multiple_of(ALIGN));

/// See the module.
#[derive(Default)]
pub(super) struct Arena {
    /// Only their capacity is used. A `Vec` does not move its elements as long as it is not asked to.
    chunks: Vec<Vec<Unit>>,
    /// Bytes of the last chunk that are handed out.
    used: usize,
    /// Bytes handed out in this exchange.
    handed: usize,
    /// The largest `handed` of an exchange that needed more than one chunk.
    wanted: usize,
}

impl Arena {
    /// `bytes` bytes, aligned to 16, not initialized; `None` when more than `bound` would be handed out.
    pub(super) fn allocate(&mut self, bytes: usize, bound: usize) -> Option<*mut c_void> {
        // Each piece has an address of its own, an empty one too.
        let bytes = bytes.max(1).checked_next_multiple_of(ALIGN)?;
        let handed = self.handed.checked_add(bytes).filter(|handed| *handed <= bound)?;
        if self.chunks.last().is_none_or(|chunk| chunk_bytes(chunk) - self.used < bytes) {
            self.add_chunk(bytes);
        }
        let chunk = self.chunks.last_mut()?;
        let at = chunk.as_mut_ptr().wrapping_add(self.used / ALIGN);
        self.used += bytes;
        self.handed = handed;
        Some(at.cast())
    }

    /// Takes everything back.
    pub(super) fn reset(&mut self) {
        if self.chunks.len() > 1 {
            self.wanted = self.wanted.max(self.handed);
            self.chunks.clear();
        }
        self.used = 0;
        self.handed = 0;
    }

    #[cold]
    fn add_chunk(&mut self, bytes: usize) {
        let last = self.chunks.last().map_or(CHUNK_BYTES / 2, chunk_bytes);
        let size = bytes.max(2 * last).max(self.wanted);
        // A lone chunk that is too small is not kept beside the next one: nothing in it is handed out.
        if self.handed == 0 {
            self.chunks.clear();
        }
        self.chunks.push(Vec::with_capacity(size.div_ceil(ALIGN)));
        self.used = 0;
    }
}

fn chunk_bytes(chunk: &Vec<Unit>) -> usize {
    chunk.capacity() * size_of::<Unit>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_apart_and_bounded() {
        let mut arena = Arena::default();
        for _ in 0..3 {
            let mut taken: Vec<std::ops::Range<usize>> = Vec::new();
            for bytes in [0, 1, 16, 17, 1000, 5000] {
                let at = arena.allocate(bytes, 16 * 1024).expect("room").addr();
                assert!(at.is_multiple_of(16) && taken.iter().all(|t| at >= t.end || at + bytes.max(1) <= t.start), "{bytes}");
                taken.push(at..at + bytes.max(1));
            }
            assert_eq!(arena.handed, 16 + 16 + 16 + 32 + 1008 + 5008);
            assert_eq!(arena.allocate(16 * 1024 - arena.handed + 1, 16 * 1024), None);
            assert!(arena.allocate(16 * 1024 - arena.handed, 16 * 1024).is_some());
            assert_eq!((arena.allocate(0, 16 * 1024), arena.allocate(usize::MAX, usize::MAX)), (None, None));
            arena.reset();
        }
    }

    #[test]
    fn exchanges_alike_settle_on_one_chunk() {
        let mut arena = Arena::default();
        let mut chunk = std::ptr::null();
        for round in 0..5 {
            for _ in 0..40 {
                assert!(arena.allocate(100, 64 * 1024).is_some());
            }
            match round {
                0 => assert!(arena.chunks.len() > 1),
                1 => chunk = arena.chunks[0].as_ptr(),
                _ => assert!(arena.chunks.len() == 1 && arena.chunks[0].as_ptr() == chunk, "round {round}"),
            }
            arena.reset();
        }
    }

    #[test]
    fn what_is_kept_does_not_grow_beyond_what_was_handed_out() {
        let mut arena = Arena::default();
        for bytes in (16..8192).step_by(48) {
            assert!(arena.allocate(bytes, 8192).is_some());
            arena.reset();
            assert!(arena.chunks.len() <= 1 && arena.chunks.iter().map(chunk_bytes).sum::<usize>() <= 2 * 8192);
        }
    }
}
