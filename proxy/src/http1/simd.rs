//! The AVX2 filler of the bitmaps, and the choice between it and the plain one.
//!
//! The only module of `http1` with unsafe code. It earns it: filling the bitmaps is the first of the two passes that beat a table-driven parser (`benches/`, head to view).
//!
//! Invariant: [`Fill`] holds `avx2` only if the processor has AVX2; there is no other way to make one.

use super::bits::{BLOCK, fill_plain, target_plain};

/// Which filler to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    avx2: bool,
}

impl Fill {
    /// The plain one.
    #[cfg(test)]
    pub(super) const PLAIN: Fill = Fill { avx2: false };

    /// The fastest that this machine has. The standard library asks the processor once and remembers.
    #[inline]
    pub(super) fn best() -> Fill {
        #[cfg(target_arch = "x86_64")]
        return Fill { avx2: std::arch::is_x86_feature_detected!("avx2") };
        #[cfg(not(target_arch = "x86_64"))]
        return Fill { avx2: false };
    }

    /// Fills one word of each bitmap per block; both have at least as many words as there are blocks.
    #[inline]
    pub(super) fn blocks(self, blocks: &[[u8; BLOCK]], no_token: &mut [u64], control: &mut [u64]) {
        debug_assert!(no_token.len() >= blocks.len() && control.len() >= blocks.len());
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            debug_assert!(std::arch::is_x86_feature_detected!("avx2"));
            // SAFETY: `fill_avx2` requires AVX2; `avx2` is set by `best` only, which asked the processor.
            return unsafe { avx2::fill(blocks, no_token, control) };
        }
        fill_plain(blocks, no_token, control);
    }

    /// The bytes of a block that no target holds, and the question marks.
    #[inline]
    pub(super) fn target(self, block: &[u8; BLOCK]) -> (u64, u64) {
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            debug_assert!(std::arch::is_x86_feature_detected!("avx2"));
            // SAFETY: as above.
            return unsafe { avx2::target(block) };
        }
        target_plain(block)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use core::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_andnot_si256, _mm256_cmpeq_epi8, _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_max_epu8, _mm256_movemask_epi8,
        _mm256_or_si256, _mm256_set1_epi8, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16,
    };

    use super::super::bytes::{CLASS, TOKEN};
    use super::BLOCK;

    /// Bit `high` of entry `low` is set when the byte `16 * high + low` is of a token; `high < 8`.
    const TOKEN_ROWS: [i8; 16] = {
        let mut rows = [0u8; 16];
        let mut byte = 0;
        while byte < 128 {
            if CLASS[byte] & TOKEN != 0 {
                rows[byte & 15] |= 1 << (byte >> 4);
            }
            byte += 1;
        }
        let mut signed = [0i8; 16];
        let mut at = 0;
        while at < 16 {
            signed[at] = rows[at] as i8;
            at += 1;
        }
        signed
    };

    /// As `fill_plain`, 64 bytes at a time.
    #[target_feature(enable = "avx2")]
    pub(super) fn fill(blocks: &[[u8; BLOCK]], no_token: &mut [u64], control: &mut [u64]) {
        for ((block, no_token), control) in blocks.iter().zip(no_token).zip(control) {
            let (low, high) = block.split_at(32);
            let (low, high) = (masks(load(low)), masks(load(high)));
            *no_token = u64::from(low.0) | u64::from(high.0) << 32;
            *control = u64::from(low.1) | u64::from(high.1) << 32;
        }
    }

    /// As `target_plain`.
    #[target_feature(enable = "avx2")]
    pub(super) fn target(block: &[u8; BLOCK]) -> (u64, u64) {
        let (low, high) = block.split_at(32);
        let (low, high) = (target_masks(load(low)), target_masks(load(high)));
        (u64::from(low.0) | u64::from(high.0) << 32, u64::from(low.1) | u64::from(high.1) << 32)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn target_masks(bytes: __m256i) -> (u32, u32) {
        // As signed numbers the bytes from 0x80 on are below the space.
        let visible = _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(0x20));
        let delete = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));
        let hash = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'#' as i8));
        let allowed = _mm256_andnot_si256(_mm256_or_si256(delete, hash), visible);
        let question = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'?' as i8));
        (!(_mm256_movemask_epi8(allowed) as u32), _mm256_movemask_epi8(question) as u32)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8]) -> __m256i {
        debug_assert!(bytes.len() == 32);
        // SAFETY: an unaligned load needs 32 readable bytes; `fill` cut them from a block of 64.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    /// The bytes that are of no token, and the control bytes, of 32.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn masks(bytes: __m256i) -> (u32, u32) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = TOKEN_ROWS;
        let rows = _mm256_setr_epi8(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p);
        // One bit per high nibble below 8, none above: bytes from 0x80 on are of no token.
        let columns = _mm256_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0);
        let nibble = _mm256_set1_epi8(0x0f);
        let row = _mm256_shuffle_epi8(rows, _mm256_and_si256(bytes, nibble));
        let column = _mm256_shuffle_epi8(columns, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble));
        let no_token = _mm256_cmpeq_epi8(_mm256_and_si256(row, column), _mm256_setzero_si256());

        let space = _mm256_set1_epi8(0x20);
        let printable = _mm256_cmpeq_epi8(_mm256_max_epu8(bytes, space), bytes);
        let tab = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\t' as i8));
        let delete = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));
        let allowed = _mm256_andnot_si256(delete, _mm256_or_si256(printable, tab));
        (_mm256_movemask_epi8(no_token) as u32, !(_mm256_movemask_epi8(allowed) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_same(blocks: &[[u8; BLOCK]]) {
        let mut plain = [[0; 8]; 2];
        let mut best = [[1; 8]; 2];
        let [plain_tokens, plain_controls] = &mut plain;
        let [best_tokens, best_controls] = &mut best;
        Fill::PLAIN.blocks(blocks, plain_tokens, plain_controls);
        Fill::best().blocks(blocks, best_tokens, best_controls);
        assert_eq!(plain_tokens[..blocks.len()], best_tokens[..blocks.len()], "{blocks:?}");
        assert_eq!(plain_controls[..blocks.len()], best_controls[..blocks.len()], "{blocks:?}");
        for block in blocks {
            assert_eq!(Fill::PLAIN.target(block), Fill::best().target(block), "{block:?}");
        }
        assert!(best_tokens[blocks.len()..].iter().all(|word| *word == 1), "words behind the blocks are left alone");
    }

    #[test]
    fn every_byte_at_every_place_is_the_same_to_both_fillers() {
        for byte in 0..=255 {
            assert_same(&[[byte; BLOCK]]);
            for at in 0..BLOCK {
                let mut block = [b'a'; BLOCK];
                block[at] = byte;
                assert_same(&[block, [byte; BLOCK]]);
            }
        }
    }

    #[test]
    fn random_blocks_are_the_same_to_both_fillers() {
        let seed = 0x5eed_0001;
        println!("seed {seed:#x}");
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..20_000 {
            let mut blocks = [[0; BLOCK]; 7];
            for byte in blocks.as_flattened_mut() {
                *byte = if round % 2 == 0 { random.u8(..) } else { b"\r\n\t :aZ\x7f\x80\0-"[random.usize(..11)] };
            }
            assert_same(&blocks[..random.usize(..8)]);
        }
    }
}
