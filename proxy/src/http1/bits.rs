//! The first pass over a head: which bytes are special, as bitmaps.
//!
//! Owns [`Scan`], which answers "the next byte that is no token byte" and "the next control byte" from two bitmaps of a window
//! of the input, filled 64 bytes at a time, by AVX2 where the machine has it and by a table otherwise. The two fillers give
//! the same bits (tested), so everything behind this module exists once.
//!
//! Invariant: bit `i` of word `w` speaks of byte `start + 64 * w + i`; `start` is a multiple of 64. Bits of bytes from `end` on
//! are zero.
#![forbid(unsafe_code)]

use super::bytes::{CLASS, CONTROL, TARGET, TOKEN};
use super::simd;

/// Blocks of 64 bytes in one window: ordinary heads need one window, and filling it costs a few stores.
pub(super) const WINDOW_BLOCKS: usize = 16;
/// Bytes of one block.
pub(super) const BLOCK: usize = 64;

/// Positions of special bytes in `bytes[..end]`.
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    end: usize,
    start: usize,
    blocks: usize,
    no_token: [u64; WINDOW_BLOCKS],
    control: [u64; WINDOW_BLOCKS],
    fill: simd::Fill,
}

impl<'a> Scan<'a> {
    /// `end <= bytes.len()`; bytes behind `end` may be read but are never spoken of.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], end: usize, fill: simd::Fill) -> Scan<'a> {
        debug_assert!(end <= bytes.len());
        Scan { bytes, end, start: 0, blocks: 0, no_token: [0; WINDOW_BLOCKS], control: [0; WINDOW_BLOCKS], fill }
    }

    /// The bytes that are spoken of.
    #[inline(always)]
    pub(super) fn bytes(&self) -> &'a [u8] {
        &self.bytes[..self.end]
    }

    /// The first position in `at..end` of a byte that no token holds.
    #[inline(always)]
    pub(super) fn next_no_token(&mut self, at: usize) -> Option<usize> {
        self.next::<false>(at)
    }

    /// The first position in `at..end` of a control byte other than HTAB.
    #[inline(always)]
    pub(super) fn next_control(&mut self, at: usize) -> Option<usize> {
        self.next::<true>(at)
    }

    /// Where the target that begins at `from` ends, and where its first `?` is: both `end` when there is none.
    #[inline]
    pub(super) fn target(&self, from: usize) -> (usize, usize) {
        let mut question = None;
        let mut at = from;
        while at < self.end {
            let (outside, questions) = match self.bytes[at..].first_chunk::<BLOCK>() {
                Some(block) => self.fill.target(block),
                None => {
                    let mut block = [b' '; BLOCK];
                    block[..self.bytes.len() - at].copy_from_slice(&self.bytes[at..]);
                    self.fill.target(&block)
                }
            };
            let (end, mark) = (outside.trailing_zeros() as usize, questions.trailing_zeros() as usize);
            if question.is_none() && mark < end {
                question = Some(at + mark);
            }
            if end < BLOCK {
                return ((at + end).min(self.end), question.unwrap_or(self.end).min(self.end));
            }
            at += BLOCK;
        }
        (self.end, question.unwrap_or(self.end).min(self.end))
    }

    #[inline(always)]
    fn next<const WANT_CONTROL: bool>(&mut self, at: usize) -> Option<usize> {
        let words = if WANT_CONTROL { &self.control } else { &self.no_token };
        let block = at.wrapping_sub(self.start) / BLOCK;
        if block < self.blocks {
            let word = words[block % WINDOW_BLOCKS] >> (at % BLOCK);
            if word != 0 {
                return Some(at + word.trailing_zeros() as usize);
            }
            // Half of all lines end in the block behind the one in which they begin.
            if block + 1 < self.blocks {
                let word = words[(block + 1) % WINDOW_BLOCKS];
                if word != 0 {
                    return Some((at | (BLOCK - 1)) + 1 + word.trailing_zeros() as usize);
                }
            }
        }
        self.next_far::<WANT_CONTROL>(at)
    }

    /// As `next`, when the byte is not in the block of `at`.
    #[inline(never)]
    fn next_far<const WANT_CONTROL: bool>(&mut self, from: usize) -> Option<usize> {
        let mut at = from;
        while at < self.end {
            let block = at.wrapping_sub(self.start) / BLOCK;
            if block >= self.blocks {
                self.refill(at);
                continue;
            }
            let words = if WANT_CONTROL { &self.control } else { &self.no_token };
            let word = words[block % WINDOW_BLOCKS] >> (at % BLOCK);
            if word != 0 {
                return Some(at + word.trailing_zeros() as usize);
            }
            at = (at | (BLOCK - 1)) + 1;
        }
        None
    }

    /// Moves the window to the block that holds `at < end`.
    #[inline(never)]
    fn refill(&mut self, at: usize) {
        self.start = at & !(BLOCK - 1);
        self.blocks = (self.end - self.start).div_ceil(BLOCK).min(WINDOW_BLOCKS);
        let whole = self.bytes.len().min(self.start + self.blocks * BLOCK);
        let (blocks, rest) = self.bytes[self.start..whole].as_chunks::<BLOCK>();
        self.fill.blocks(blocks, &mut self.no_token, &mut self.control);
        if !rest.is_empty() {
            // Fewer than 64 readable bytes behind `end`: the last block is read from a copy.
            let mut block = [b'a'; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            self.fill.blocks(&[block], &mut self.no_token[blocks.len()..], &mut self.control[blocks.len()..]);
        }
        let behind = (self.start + self.blocks * BLOCK).saturating_sub(self.end);
        let spoken_of = u64::MAX >> behind;
        let last = (self.blocks - 1) % WINDOW_BLOCKS;
        self.no_token[last] &= spoken_of;
        self.control[last] &= spoken_of;
    }
}

/// The bytes of a block that no target holds, and the question marks.
pub(super) fn target_plain(block: &[u8; BLOCK]) -> (u64, u64) {
    let (mut outside, mut questions) = (0, 0);
    for (at, byte) in block.iter().enumerate() {
        outside |= u64::from(CLASS[usize::from(*byte)] & TARGET == 0) << at;
        questions |= u64::from(*byte == b'?') << at;
    }
    (outside, questions)
}

/// The plain filler.
pub(super) fn fill_plain(blocks: &[[u8; BLOCK]], no_token: &mut [u64], control: &mut [u64]) {
    for ((block, no_token), control) in blocks.iter().zip(no_token).zip(control) {
        let (mut outside, mut controls) = (0, 0);
        for (at, byte) in block.iter().enumerate() {
            let class = CLASS[usize::from(*byte)];
            outside |= u64::from(class & TOKEN == 0) << at;
            controls |= u64::from(class & CONTROL != 0) << at;
        }
        (*no_token, *control) = (outside, controls);
    }
}
