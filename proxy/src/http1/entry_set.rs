//! A set of header entries, by index: which lines are not forwarded.
#![forbid(unsafe_code)]

/// A bit set over the entry indexes 0..256 of one head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntrySet([u64; 4]);

impl EntrySet {
    /// No entry.
    pub const EMPTY: EntrySet = EntrySet([0; 4]);

    /// Adds an entry; `index < 256`.
    #[inline]
    pub fn insert(&mut self, index: usize) {
        debug_assert!(index < 256);
        self.0[index >> 6 & 3] |= 1 << (index & 63);
    }

    /// Whether the entry is in the set; false from 256 on.
    #[inline]
    pub fn contains(&self, index: usize) -> bool {
        index < 256 && self.0[index >> 6 & 3] >> (index & 63) & 1 != 0
    }

    /// Whether the set is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The entries of both.
    #[must_use]
    pub fn union(&self, other: &EntrySet) -> EntrySet {
        let mut words = self.0;
        for (word, more) in words.iter_mut().zip(other.0) {
            *word |= more;
        }
        EntrySet(words)
    }

    /// The first entry of the set at or behind `index`; 256 when there is none.
    #[inline]
    pub fn next_in(&self, index: usize) -> usize {
        self.next(index, 0)
    }

    /// The first entry outside the set at or behind `index`; 256 when there is none.
    #[inline]
    pub fn next_out(&self, index: usize) -> usize {
        self.next(index, u64::MAX)
    }

    #[inline]
    fn next(&self, index: usize, flip: u64) -> usize {
        let mut at = index;
        while at < 256 {
            let word = (self.0[at >> 6] ^ flip) >> (at & 63);
            if word != 0 {
                return at + word.trailing_zeros() as usize;
            }
            at = (at | 63) + 1;
        }
        256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = EntrySet::EMPTY;
        assert!(set.is_empty() && set.next_in(0) == 256 && set.next_out(0) == 0);
        for index in [0, 1, 63, 64, 200, 255] {
            set.insert(index);
            assert!(set.contains(index));
        }
        assert_eq!(set.len(), 6);
        assert!(!set.contains(2) && !set.contains(254) && !set.contains(256));
        assert_eq!([0, 1, 2, 64, 65, 201].map(|at| set.next_in(at)), [0, 1, 63, 64, 200, 255]);
        assert_eq!([0, 2, 63, 64, 255].map(|at| set.next_out(at)), [2, 2, 65, 65, 256]);
        assert_eq!(set.union(&EntrySet([2, 2, 0, 0])).len(), 7);
    }
}
