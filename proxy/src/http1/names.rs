//! Header names and their ids.
//!
//! Owns the table from a name, compared without case, to its id: the fixed ids of [`ringway_abi::ids`] and up to eleven
//! names that plugins register. One table serves the process; it is built while plugins load and only read afterwards.
//!
//! Invariant: no two names of the table share a slot. [`NameTable::intern`] searches a multiplier for which that holds, so that
//! a look-up costs one hash and one comparison whatever a client sends.
#![forbid(unsafe_code)]

use ringway_abi::ids::{HEADER_ID_FIXED_COUNT, HEADER_ID_LIMIT, HEADER_NAMES, HeaderId};

use super::bytes::is_token;

/// From names to ids.
#[derive(Debug, Clone)]
pub struct NameTable {
    multiplier: u64,
    slots: [u8; SLOTS],
    keys: [Key; HEADER_ID_LIMIT as usize],
    /// The registered names in lower case, from id [`HEADER_ID_FIXED_COUNT`] on.
    registered: Vec<Box<[u8]>>,
}

/// Why a name has no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamesFull {
    /// All ids are taken.
    Full,
    /// Not a field name, or longer than [`NAME_BYTES_MAX`].
    NotAName,
}

/// The longest name that can be registered.
pub const NAME_BYTES_MAX: usize = 256;

const SLOTS: usize = 512;

/// A name as three words: the first eight bytes, the last eight and the eight between them (bytes 8..16). Names of at most 24
/// bytes are equal exactly when their words and lengths are.
#[derive(Debug, Clone, Copy)]
struct Words {
    first: u64,
    middle: u64,
    last: u64,
    len: usize,
}

/// A name of the table in lower case, and where its letters are: there bit 0x20 of a candidate does not count.
#[derive(Debug, Clone, Copy)]
struct Key {
    words: Words,
    letters: Words,
}

impl Default for NameTable {
    fn default() -> NameTable {
        NameTable::new()
    }
}

impl NameTable {
    /// The table of the fixed names.
    pub fn new() -> NameTable {
        let mut keys = [Key::of(b""); HEADER_ID_LIMIT as usize];
        for (key, name) in keys.iter_mut().zip(HEADER_NAMES) {
            *key = Key::of(name.as_bytes());
        }
        let mut table = NameTable { multiplier: 0, slots: [0; SLOTS], keys, registered: Vec::new() };
        table.place();
        table
    }

    /// The id of a name: its fixed one, the one it was given before, or a new one.
    pub fn intern(&mut self, name: &[u8]) -> Result<HeaderId, NamesFull> {
        if !is_token(name) || name.len() > NAME_BYTES_MAX {
            return Err(NamesFull::NotAName);
        }
        let found = self.id(name);
        if found != 0 {
            return Ok(HeaderId(found));
        }
        let id = HEADER_ID_FIXED_COUNT as usize + self.registered.len();
        if id >= HEADER_ID_LIMIT as usize {
            return Err(NamesFull::Full);
        }
        self.keys[id] = Key::of(name);
        self.registered.push(name.to_ascii_lowercase().into_boxed_slice());
        self.place();
        Ok(HeaderId(id as u16))
    }

    /// The id of a name, 0 when it has none.
    #[inline]
    pub fn id(&self, name: &[u8]) -> u16 {
        let words = Words::of(name);
        let id = self.slots[words.slot(self.multiplier)];
        // Slots that no name took hold 0, and key 0 is that of the empty name.
        let same = self.keys[usize::from(id & 63)].is(&words);
        if same && (name.len() <= 24 || self.is_long(id, name)) { u16::from(id) } else { 0 }
    }

    /// The name of an id in lower case; `None` when no name has it.
    pub fn name(&self, id: HeaderId) -> Option<&[u8]> {
        match id.0 {
            0 => None,
            fixed if fixed < HEADER_ID_FIXED_COUNT => HEADER_NAMES.get(usize::from(fixed)).map(|name| name.as_bytes()),
            other => self.registered.get(usize::from(other - HEADER_ID_FIXED_COUNT)).map(|name| &name[..]),
        }
    }

    #[cold]
    fn is_long(&self, id: u8, name: &[u8]) -> bool {
        self.name(HeaderId(u16::from(id))).is_some_and(|known| known.eq_ignore_ascii_case(name))
    }

    /// Finds a multiplier that gives each name a slot of its own.
    fn place(&mut self) {
        let count = HEADER_ID_FIXED_COUNT as usize + self.registered.len();
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        loop {
            seed = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(0x2545_f491_4f6c_dd1d);
            let multiplier = seed | 1;
            let mut slots = [0; SLOTS];
            let free = (1..count).all(|id| {
                let slot = &mut slots[self.keys[id].words.slot(multiplier)];
                let free = *slot == 0;
                *slot = id as u8;
                free
            });
            if free {
                self.multiplier = multiplier;
                self.slots = slots;
                return;
            }
        }
    }
}

impl Words {
    #[inline(always)]
    fn of(name: &[u8]) -> Words {
        let len = name.len();
        if let (Some(first), Some(last)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
            let middle = if len > 16 { name[8..].first_chunk::<8>().map_or(0, |m| u64::from_le_bytes(*m)) } else { 0 };
            return Words { first: u64::from_le_bytes(*first), middle, last: u64::from_le_bytes(*last), len };
        }
        let first = if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        } else if let (Some(first), Some(last)) = (name.first(), name.last()) {
            u64::from(*first) | u64::from(name[len / 2]) << 8 | u64::from(*last) << 16
        } else {
            0
        };
        Words { first, middle: 0, last: 0, len }
    }

    /// The same for every case of a name.
    #[inline(always)]
    fn slot(&self, multiplier: u64) -> usize {
        let folded = (self.first | CASE_BITS) ^ (self.last | CASE_BITS).rotate_left(29) ^ (self.len as u64) << 56;
        (folded.wrapping_mul(multiplier) >> (64 - SLOTS.trailing_zeros())) as usize
    }
}

impl Key {
    fn of(name: &[u8]) -> Key {
        let lower = name.to_ascii_lowercase();
        let letters: Vec<u8> = lower.iter().map(|b| if b.is_ascii_lowercase() { 0x20 } else { 0 }).collect();
        Key { words: Words::of(&lower), letters: Words::of(&letters) }
    }

    /// Whether `name` is this one in any case: `b | 0x20 == c` for a lower case letter `c` holds for its two cases only.
    #[inline(always)]
    fn is(&self, name: &Words) -> bool {
        let Key { words, letters } = self;
        name.len == words.len
            && (name.first | letters.first) == words.first
            && (name.last | letters.last) == words.last
            && (name.middle | letters.middle) == words.middle
    }
}

/// The bit that tells upper from lower case, in each byte.
const CASE_BITS: u64 = 0x2020_2020_2020_2020;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixed_name_has_its_id_in_any_case() {
        let table = NameTable::new();
        for (id, name) in HEADER_NAMES.iter().enumerate().skip(1) {
            assert_eq!(usize::from(table.id(name.as_bytes())), id, "{name}");
            assert_eq!(usize::from(table.id(name.to_ascii_uppercase().as_bytes())), id, "{name}");
            assert_eq!(table.name(HeaderId(id as u16)), Some(name.as_bytes()));
        }
    }

    #[test]
    fn near_misses_have_none() {
        let table = NameTable::new();
        assert_eq!(table.id(b""), 0);
        for name in HEADER_NAMES.iter().skip(1) {
            for at in 0..name.len() {
                for byte in [0u8, b'_', b'\r', 0x0d, 0x80, name.as_bytes()[at] ^ 1, name.as_bytes()[at] ^ 0x80, name.as_bytes()[at] & !0x60] {
                    let mut near = name.as_bytes().to_vec();
                    near[at] = byte;
                    let expected = HeaderId::of(&near).0;
                    assert_eq!(table.id(&near), expected, "{near:?}");
                }
            }
            for near in [&name[1..], &name[..name.len() - 1], &format!("{name}s"), &format!("{name}{name}{name}")] {
                assert_eq!(table.id(near.as_bytes()), HeaderId::of(near.as_bytes()).0, "{near}");
            }
        }
    }

    #[test]
    fn plugins_share_the_ids_of_the_names_they_register() {
        let mut table = NameTable::new();
        assert_eq!(table.intern(b"Host"), Ok(HeaderId::HOST));
        let long = [b'L'; 40];
        let given = table.intern(&long).unwrap();
        assert_eq!(given.0, HEADER_ID_FIXED_COUNT);
        assert_eq!(table.intern(&long.to_ascii_lowercase()), Ok(given));
        let mut near = long;
        near[20] = b'm';
        assert_eq!(table.id(&near), 0, "names longer than their key are compared in full");
        for n in 1..u8::try_from(HEADER_ID_LIMIT - HEADER_ID_FIXED_COUNT).unwrap() {
            assert!(table.intern(&[b'x', b'-', b'a' + n]).is_ok());
        }
        assert_eq!(table.intern(b"one-too-many"), Err(NamesFull::Full));
        assert_eq!(table.intern(b"not a token"), Err(NamesFull::NotAName));
        assert_eq!(table.intern(b""), Err(NamesFull::NotAName));
        assert_eq!(table.intern(&[b'a'; NAME_BYTES_MAX + 1]), Err(NamesFull::NotAName));
        for (id, name) in HEADER_NAMES.iter().enumerate().skip(1) {
            assert_eq!(usize::from(table.id(name.as_bytes())), id, "{name}");
        }
        assert_eq!(table.name(given), Some(&long.to_ascii_lowercase()[..]));
        assert_eq!(table.name(HeaderId(0)), None);
    }
}
