//! What a map is, from its definition: kind, sizes, fields, and how many words of memory that takes.
//!
//! Pure. [`MapShape::new`] is the one function that checks a definition, before any code of the plugin runs; the words are
//! laid out here and nowhere else.
//!
//! A map is an array of 64-bit words, all of them atomic. Keys and values begin at a word, their last word is filled with
//! zeroes. Behind [`HEADER_WORDS`] stand:
//!
//! - arrays: entries of `[lock | value]`; for each core its own, beginning at a page;
//! - hash, LRU, LPM: buckets of `[lock | first entry]`, then entries of `[state and next | stamp | key | value]`;
//! - ring: a circle of records, each `[length | record]`.
#![forbid(unsafe_code)]

use std::fmt;

use ringway_abi::maps as abi;

use super::fields::{self, Field, FieldKind};
use crate::hash::fnv1a;

/// Words before the entries of every map: one page.
pub const HEADER_WORDS: usize = 512;
/// Words of a page: where the entries of each core begin.
const PAGE_WORDS: usize = 512;
/// Bytes of the key of an array: the index.
const INDEX_BYTES: u32 = 4;
/// Bytes of the key of an LPM map: `rw_prefix`.
const PREFIX_BYTES: u32 = size_of::<abi::Prefix>() as u32;

/// The kind of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// `RW_MAP_ARRAY`
    Array,
    /// `RW_MAP_CORE_ARRAY`
    CoreArray,
    /// `RW_MAP_HASH`
    Hash,
    /// `RW_MAP_LRU`
    Lru,
    /// `RW_MAP_LPM`
    Lpm,
    /// `RW_MAP_RING`
    Ring,
}

/// Every kind with its number and the name that people read.
const KINDS: [(MapKind, u32, &str); 6] = [
    (MapKind::Array, abi::ARRAY, "array"),
    (MapKind::CoreArray, abi::CORE_ARRAY, "core-array"),
    (MapKind::Hash, abi::HASH, "hash"),
    (MapKind::Lru, abi::LRU, "lru"),
    (MapKind::Lpm, abi::LPM, "lpm"),
    (MapKind::Ring, abi::RING, "ring"),
];

impl MapKind {
    fn of(number: u32) -> Option<MapKind> {
        KINDS.iter().find(|(_, known, _)| *known == number).map(|(kind, ..)| *kind)
    }

    /// `RW_MAP_*`
    pub fn number(self) -> u32 {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, number, _)| *number)
    }

    /// Whether entries are found by their index.
    pub fn is_array(self) -> bool {
        matches!(self, MapKind::Array | MapKind::CoreArray)
    }

    /// Whether entries are found by a key that may be absent.
    pub fn is_table(self) -> bool {
        matches!(self, MapKind::Hash | MapKind::Lru | MapKind::Lpm)
    }
}

impl fmt::Display for MapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|(kind, ..)| kind == self).map_or("?", |(.., name)| name))
    }
}

/// The numbers of a definition as they stand in a plugin file.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// `RW_MAP_*`
    pub kind: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Entries.
    pub entries_max: u32,
}

/// A checked definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapShape {
    name: String,
    kind: MapKind,
    key_bytes: u32,
    value_bytes: u32,
    entries_max: u32,
    fields: Vec<Field>,
}

impl MapShape {
    /// Checks a definition.
    ///
    /// # Errors
    /// Why it makes no sense.
    pub fn new(name: &str, sizes: Sizes, value_fields: &str) -> Result<MapShape, String> {
        let Sizes { kind, key_bytes, value_bytes, entries_max } = sizes;
        let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > abi::NAME_BYTES_MAX as usize || !name.bytes().all(named) {
            return Err("its name is not of the form [a-z0-9_-]+, of at most 31 bytes".into());
        }
        let kind = MapKind::of(kind).ok_or_else(|| format!("its kind is {kind}, which does not exist"))?;
        let keys = match kind {
            MapKind::Array | MapKind::CoreArray => INDEX_BYTES..=INDEX_BYTES,
            MapKind::Hash | MapKind::Lru => 1..=abi::KEY_BYTES_MAX,
            MapKind::Lpm => PREFIX_BYTES..=PREFIX_BYTES,
            MapKind::Ring => 0..=0,
        };
        if !keys.contains(&key_bytes) {
            let wanted = if keys.start() == keys.end() { keys.start().to_string() } else { format!("{} to {}", keys.start(), keys.end()) };
            return Err(format!("its keys have {key_bytes} bytes; those of the kind {kind} have {wanted}"));
        }
        if !(1..=abi::VALUE_BYTES_MAX).contains(&value_bytes) {
            return Err(format!("its values have {value_bytes} bytes; 1 to {} are possible", abi::VALUE_BYTES_MAX));
        }
        if !(1..=abi::ENTRIES_MAX).contains(&entries_max) {
            return Err(format!("it has {entries_max} entries; 1 to {} are possible", abi::ENTRIES_MAX));
        }
        let fields = fields::parse(value_fields, abi::VALUE_BYTES_MAX).map_err(|why| format!("its value_fields make no sense: {why}"))?;
        let sum: u32 = fields.iter().map(Field::bytes).sum();
        if sum != value_bytes {
            return Err(format!("its values have {value_bytes} bytes, its value_fields {sum}"));
        }
        Ok(MapShape { name: name.to_owned(), kind, key_bytes, value_bytes, entries_max, fields })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kind.
    pub fn kind(&self) -> MapKind {
        self.kind
    }

    /// Bytes of a key.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes as usize
    }

    /// Bytes of a value.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes as usize
    }

    /// Entries; of each core, where cores have their own.
    pub fn entries_max(&self) -> usize {
        self.entries_max as usize
    }

    /// What a value holds.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// What a value holds, as text.
    pub fn value_fields(&self) -> String {
        fields::canonical(&self.fields)
    }

    /// FNV-1a 64 of [`MapShape::value_fields`]: tells values of the same size apart.
    pub fn fingerprint(&self) -> u64 {
        fnv1a(self.value_fields().as_bytes())
    }

    /// Whether a 64-bit number stands in this word of a value: what `add` may change.
    pub fn has_counter(&self, word: usize) -> bool {
        let is_long = |field: &&Field| matches!(field.kind, FieldKind::Unsigned(8) | FieldKind::Signed(8));
        self.fields.iter().filter(is_long).any(|field| (field.offset / 8..(field.offset + field.bytes()) / 8).contains(&(word as u32)))
    }

    /// Words of a key.
    pub fn key_words(&self) -> usize {
        self.key_bytes().div_ceil(8)
    }

    /// Words of a value.
    pub fn value_words(&self) -> usize {
        self.value_bytes().div_ceil(8)
    }

    /// Buckets of a hash table.
    pub fn buckets(&self) -> usize {
        self.entries_max().next_power_of_two()
    }

    /// Words from one entry to the next.
    pub fn stride(&self) -> usize {
        if self.kind.is_table() { 2 + self.key_words() + self.value_words() } else { 1 + self.value_words() }
    }

    /// Where the first entry begins.
    pub fn entries_at(&self) -> usize {
        if self.kind.is_table() { HEADER_WORDS + 2 * self.buckets() } else { HEADER_WORDS }
    }

    /// Words of the entries of one core.
    pub fn core_words(&self) -> usize {
        (self.entries_max() * self.stride()).next_multiple_of(PAGE_WORDS)
    }

    /// How many times the entries are there.
    pub fn copies(&self, cores: u32) -> u32 {
        if self.kind == MapKind::CoreArray { cores.max(1) } else { 1 }
    }

    /// Words of the whole map; of a ring, the part behind the header is a power of two.
    pub fn words(&self, cores: u32) -> usize {
        match self.kind {
            MapKind::CoreArray => HEADER_WORDS + self.copies(cores) as usize * self.core_words(),
            MapKind::Ring => HEADER_WORDS + (self.entries_max() * self.stride()).next_power_of_two(),
            _ => (self.entries_at() + self.entries_max() * self.stride()).next_multiple_of(PAGE_WORDS),
        }
    }

    /// Bytes of the whole map.
    pub fn bytes(&self, cores: u32) -> u64 {
        8 * self.words(cores) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Sizes = Sizes { kind: abi::HASH, key_bytes: 16, value_bytes: 16, entries_max: 100 };

    #[test]
    fn words_follow_from_the_definition() {
        let hash = MapShape::new("hits", GOOD, "u64 a, char[8] b").expect("good");
        assert_eq!((hash.buckets(), hash.stride(), hash.entries_at()), (128, 6, HEADER_WORDS + 256));
        assert_eq!(hash.words(4), (HEADER_WORDS + 256 + 600).next_multiple_of(PAGE_WORDS));
        assert_eq!((hash.has_counter(0), hash.has_counter(1), hash.has_counter(2)), (true, false, false));
        let core = MapShape::new("c", Sizes { kind: abi::CORE_ARRAY, key_bytes: 4, value_bytes: 7, entries_max: 1 }, "char[7] b").expect("good");
        assert_eq!((core.words(3), core.stride()), (HEADER_WORDS + 3 * PAGE_WORDS, 2));
        let other = MapShape::new("hits", GOOD, "u64 a, char[8] c").expect("good");
        assert_ne!(hash.fingerprint(), other.fingerprint(), "a name is part of what a value means");
    }

    #[test]
    fn every_part_of_a_definition_is_checked() {
        let sixteen = "u64 a, u64 b";
        let long = "x".repeat(32);
        for (name, sizes, fields, expected) in [
            ("", GOOD, sixteen, "its name is not of the form [a-z0-9_-]+, of at most 31 bytes"),
            ("A", GOOD, sixteen, "its name is not of the form [a-z0-9_-]+, of at most 31 bytes"),
            ("../a", GOOD, sixteen, "its name is not of the form [a-z0-9_-]+, of at most 31 bytes"),
            (long.as_str(), GOOD, sixteen, "its name is not of the form [a-z0-9_-]+, of at most 31 bytes"),
            ("a", Sizes { kind: 0, ..GOOD }, sixteen, "its kind is 0, which does not exist"),
            ("a", Sizes { kind: 99, ..GOOD }, sixteen, "its kind is 99, which does not exist"),
            ("a", Sizes { key_bytes: 0, ..GOOD }, sixteen, "its keys have 0 bytes; those of the kind hash have 1 to 256"),
            ("a", Sizes { key_bytes: 257, ..GOOD }, sixteen, "its keys have 257 bytes; those of the kind hash have 1 to 256"),
            ("a", Sizes { kind: abi::ARRAY, ..GOOD }, sixteen, "its keys have 16 bytes; those of the kind array have 4"),
            ("a", Sizes { kind: abi::LPM, ..GOOD }, sixteen, "its keys have 16 bytes; those of the kind lpm have 20"),
            ("a", Sizes { kind: abi::RING, ..GOOD }, sixteen, "its keys have 16 bytes; those of the kind ring have 0"),
            ("a", Sizes { value_bytes: 0, ..GOOD }, sixteen, "its values have 0 bytes; 1 to 4096 are possible"),
            ("a", Sizes { value_bytes: u32::MAX, ..GOOD }, sixteen, "its values have 4294967295 bytes; 1 to 4096 are possible"),
            ("a", Sizes { entries_max: 0, ..GOOD }, sixteen, "it has 0 entries; 1 to 16777216 are possible"),
            ("a", Sizes { entries_max: u32::MAX, ..GOOD }, sixteen, "it has 4294967295 entries; 1 to 16777216 are possible"),
            ("a", GOOD, "u64", "its value_fields make no sense: `u64` is not \"TYPE NAME\""),
            ("a", GOOD, "u64 a", "its values have 16 bytes, its value_fields 8"),
        ] {
            assert_eq!(MapShape::new(name, sizes, fields).map(|_| ()), Err(expected.to_owned()));
        }
    }
}
