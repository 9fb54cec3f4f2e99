//! The second pass over a head: field lines to view entries.
//!
//! Owns [`walk`], which goes from the line behind the start line to the empty line, writes one entry per line and checks the
//! syntax on the way, and [`Lines`], which reads the entries back for the semantic checks that follow.
//!
//! Invariants:
//! - what `walk` finds depends on the bytes only, from left to right: a fault in `bytes[..n]` is the same fault in every longer
//!   input, so a head gets the same answer in whatever pieces it arrives;
//! - each entry's offsets count from the address of the very field, so entries are only right where they were written.
#![forbid(unsafe_code)]

use ringway_abi::ids::HeaderId;
use ringway_abi::raw::{RawHeader, RawNameSpan, RawSpan};

use super::bits::Scan;
use super::bytes::is_blank;
use super::entry_set::EntrySet;
use super::head::HeadLimits;
use super::names::NameTable;
use super::simd::Fill;
use crate::error::{ClientFault, UpstreamFault};

/// Why parsing stops before the end of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt<F> {
    /// The bytes at hand are the beginning of a head, and nothing can be said before this comes.
    Incomplete(Awaited),
    /// They are the beginning of no head.
    Fault(F),
}

/// What the parser waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Any byte.
    #[default]
    Any,
    /// A byte that is of no token, or more than so many bytes.
    NoToken(usize),
    /// A byte that is of no target, or more than so many bytes.
    NoTarget(usize),
    /// A control byte, or more than so many bytes.
    Control(usize),
}

macro_rules! malformed {
    ($($variant:ident),* $(,)?) => {
        /// What can be wrong with fields and framing on both sides; the sides have a fault of the same name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Malformed { $($variant,)* }

        impl From<Malformed> for ClientFault {
            fn from(malformed: Malformed) -> ClientFault {
                match malformed { $(Malformed::$variant => ClientFault::$variant,)* }
            }
        }

        impl From<Malformed> for UpstreamFault {
            fn from(malformed: Malformed) -> UpstreamFault {
                match malformed { $(Malformed::$variant => UpstreamFault::$variant,)* }
            }
        }
    };
}

malformed! {
    BareLineFeed, BareCarriageReturn, ControlByte, ObsFold, SpaceBeforeFirstField, SpaceBeforeColon, EmptyFieldName,
    BadFieldName, MissingColon, UnderscoreInFieldName, TooManyConnectionOptions, FieldTooLong, TooManyFields,
    BadContentLength, ContentLengthTooLarge, ConflictingContentLength, RepeatedTransferEncoding,
    BadTransferEncoding, ChunkedNotLast, UnknownTransferCoding,
}

macro_rules! halts {
    ($($fault:ident),*) => {$(
        impl From<Malformed> for Halt<$fault> {
            fn from(malformed: Malformed) -> Halt<$fault> {
                Halt::Fault(malformed.into())
            }
        }

        impl From<$fault> for Halt<$fault> {
            fn from(fault: $fault) -> Halt<$fault> {
                Halt::Fault(fault)
            }
        }

        impl From<Halt<Malformed>> for Halt<$fault> {
            fn from(halt: Halt<Malformed>) -> Halt<$fault> {
                match halt {
                    Halt::Incomplete(awaited) => Halt::Incomplete(awaited),
                    Halt::Fault(malformed) => Halt::Fault(malformed.into()),
                }
            }
        }
    )*};
}

halts!(ClientFault, UpstreamFault);

/// What the parsers go by.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) limits: &'a HeadLimits,
    pub(super) names: &'a NameTable,
    pub(super) fill: Fill,
}

/// What [`walk`] found.
pub(super) struct Found {
    /// Position behind the empty line.
    pub(super) end: usize,
    /// Entries written.
    pub(super) count: usize,
    /// Bit `id` is set when a line has this id.
    pub(super) known_mask: u64,
    /// Bit `id` is set when more than one line has this id.
    pub(super) repeated_mask: u64,
    /// Entries without an id that have `_` in their names.
    pub(super) underscores: EntrySet,
}

/// Parses field lines from `start` on, up to and with the empty line. `known` must be zero.
#[inline(never)]
pub(super) fn walk(scan: &mut Scan<'_>, start: usize, rules: Rules<'_>, entries: &mut [RawHeader], known: &mut [u8; 64]) -> Result<Found, Halt<Malformed>> {
    let Rules { limits, names, .. } = rules;
    let bytes = scan.bytes();
    let base = bytes.as_ptr().addr();
    let line_max = limits.line_bytes.min(LINE_BYTES_MAX);
    let count_max = limits.fields.min(FIELDS_MAX).min(entries.len());
    let entries = &mut entries[..count_max];
    let (mut known_mask, mut repeated_mask) = (0u64, 0u64);
    let mut underscores = EntrySet::EMPTY;
    let mut line = start;
    let mut count = 0;
    let name_end = loop {
        // Both searches begin at the line, so that the second does not wait for the first: control bytes are of no token.
        let Some(name_end) = scan.next_no_token(line) else {
            return Err(unfinished(bytes.len(), Awaited::NoToken(line + line_max)));
        };
        if name_end == line || bytes[name_end] != b':' {
            break name_end;
        }
        let Some(entry) = entries.get_mut(count) else { return Err(too_many(name_end - line, line_max)) };
        let Some(line_end) = scan.next_control(line) else {
            return Err(unfinished(bytes.len(), Awaited::Control(line + line_max)));
        };
        if line_end - line > line_max {
            return Err(Halt::Fault(Malformed::FieldTooLong));
        }
        if bytes.get(line_end..line_end + 2) != Some(b"\r\n") {
            end_of_line(bytes, line_end)?;
        }

        // `bytes[line_end]` is CR: this ends there at the latest.
        let mut value = name_end + 1;
        while is_blank(bytes[value]) {
            value += 1;
        }
        let mut value_end = line_end;
        while value_end > value && is_blank(bytes[value_end - 1]) {
            value_end -= 1;
        }

        let name = &bytes[line..name_end];
        let id = names.id(name);
        let bit = 1 << id;
        repeated_mask |= known_mask & bit;
        known_mask |= bit;
        let first = &mut known[usize::from(id) & 63];
        if *first == 0 {
            *first = (count + 1) as u8;
        }
        if id == 0 && has_underscore(name) {
            underscores.insert(count);
        }

        entry.name = RawNameSpan { off: offset(base + line, &entry.name), len: name.len() as u16, id };
        entry.value = RawSpan { off: offset(base + value, &entry.value), len: (value_end - value) as u32 };
        count += 1;
        line = line_end + 2;
    };
    if name_end > line || bytes[line] != b'\r' {
        return Err(Halt::Fault(bad_line(bytes, line, name_end, count, line_max)));
    }
    end_of_line(bytes, line)?;
    // Place 0 stands for all names without an id; the view has no such place.
    known[0] = 0;
    Ok(Found { end: line + 2, count, known_mask: known_mask & !1, repeated_mask: repeated_mask & !1, underscores })
}

/// Whether a name holds `_`, eight bytes at a time.
#[inline]
fn has_underscore(name: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = name.as_chunks::<8>();
    let in_words = words.iter().any(|word| {
        let zero = u64::from_le_bytes(*word) ^ (ONES * b'_' as u64);
        zero.wrapping_sub(ONES) & !zero & (ONES << 7) != 0
    });
    in_words || rest.contains(&b'_')
}

/// What is wrong with the line at `line`, which is not empty and does not begin with `name:`.
#[cold]
#[inline(never)]
fn bad_line(bytes: &[u8], line: usize, name_end: usize, count: usize, line_max: usize) -> Malformed {
    if name_end - line > line_max {
        return Malformed::FieldTooLong;
    }
    let at_start = name_end == line;
    match bytes[name_end] {
        b'\n' => Malformed::BareLineFeed,
        b':' => Malformed::EmptyFieldName,
        // RFC 9112 §2.2: "A recipient that receives whitespace between the start-line and the first header field MUST either
        // reject the message as invalid or consume" such lines.
        b' ' | b'\t' if at_start && count == 0 => Malformed::SpaceBeforeFirstField,
        // RFC 9112 §5.2: a server that receives obs-fold in a request must reject or replace it; so must a gateway in a response.
        b' ' | b'\t' if at_start => Malformed::ObsFold,
        // RFC 9112 §5.1: "A server MUST reject … any received request message that contains whitespace between a header field
        // name and colon". In a response it may be removed; such an upstream gets 502 instead.
        b' ' | b'\t' => Malformed::SpaceBeforeColon,
        b'\r' => Malformed::MissingColon,
        _ => Malformed::BadFieldName,
    }
}

/// The control byte at `at` must be the CR of a CRLF.
#[inline(always)]
pub(super) fn end_of_line(bytes: &[u8], at: usize) -> Result<(), Halt<Malformed>> {
    match (bytes[at], bytes.get(at + 1)) {
        (b'\r', Some(b'\n')) => Ok(()),
        (b'\r', None) => Err(Halt::Incomplete(Awaited::Any)),
        // RFC 9112 §2.2: "A recipient of such a bare CR MUST consider that element to be invalid or replace each bare CR with SP".
        (b'\r', Some(_)) => Err(Halt::Fault(Malformed::BareCarriageReturn)),
        // RFC 9112 §2.2: a recipient MAY recognize a single LF as a line terminator; this one does not.
        (b'\n', _) => Err(Halt::Fault(Malformed::BareLineFeed)),
        // RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous".
        _ => Err(Halt::Fault(Malformed::ControlByte)),
    }
}

#[cold]
fn too_many(name_bytes: usize, line_max: usize) -> Halt<Malformed> {
    Halt::Fault(if name_bytes > line_max { Malformed::FieldTooLong } else { Malformed::TooManyFields })
}

#[cold]
fn unfinished(end: usize, awaited: Awaited) -> Halt<Malformed> {
    if awaited.is_overdue(end) { Halt::Fault(Malformed::FieldTooLong) } else { Halt::Incomplete(awaited) }
}

impl Awaited {
    /// Whether more bytes have come than the awaited one may take.
    pub(super) fn is_overdue(self, end: usize) -> bool {
        match self {
            Awaited::Any => false,
            Awaited::NoToken(until) | Awaited::NoTarget(until) | Awaited::Control(until) => end > until,
        }
    }
}

/// The offset to write into `field` so that it leads to `address`.
#[inline(always)]
pub(super) fn offset<T>(address: usize, field: &T) -> i32 {
    let distance = address.wrapping_sub(core::ptr::from_ref(field).addr()) as isize;
    debug_assert!(i32::try_from(distance).is_ok(), "bytes, entries and root lie in one slab of less than 2 GiB");
    distance as i32
}

/// Points `span` at `len` bytes at `address`.
#[inline(always)]
pub(super) fn point(span: &mut RawSpan, address: usize, len: usize) {
    *span = RawSpan { off: offset(address, span), len: len as u32 };
}

/// The parsed lines, for the checks that need names and values again.
pub(super) struct Lines<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) entries: &'a [RawHeader],
    pub(super) known: &'a [u8; 64],
    pub(super) known_mask: u64,
    pub(super) repeated_mask: u64,
}

impl<'a> Lines<'a> {
    /// Whether any line has this id.
    #[inline]
    pub(super) fn has(&self, id: HeaderId) -> bool {
        self.known_mask >> id.0 & 1 != 0
    }

    /// Whether more than one line has this id.
    #[inline]
    pub(super) fn repeats(&self, id: HeaderId) -> bool {
        self.repeated_mask >> id.0 & 1 != 0
    }

    /// The value of the first line with this id.
    #[inline]
    pub(super) fn first(&self, id: HeaderId) -> Option<&'a [u8]> {
        self.indexes(id).next().map(|index| self.value(index))
    }

    /// The values of all lines with this id.
    pub(super) fn values(&self, id: HeaderId) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.indexes(id).map(|index| self.value(index))
    }

    /// The indexes of all lines with this id. Only a repeated id costs a search.
    pub(super) fn indexes(&self, id: HeaderId) -> impl Iterator<Item = usize> + '_ {
        let first = usize::from(self.known[usize::from(id.0) & 63]);
        let range = match first {
            0 => 0..0,
            _ if self.repeats(id) => first - 1..self.entries.len(),
            _ => first - 1..first,
        };
        range.filter(move |index| self.entries[*index].name.id == id.0)
    }

    /// The name of a line.
    pub(super) fn name(&self, index: usize) -> &'a [u8] {
        let name = &self.entries[index].name;
        self.at(core::ptr::from_ref(name).addr(), name.off, usize::from(name.len))
    }

    /// The value of a line.
    #[inline]
    pub(super) fn value(&self, index: usize) -> &'a [u8] {
        let value = &self.entries[index].value;
        self.at(core::ptr::from_ref(value).addr(), value.off, value.len as usize)
    }

    #[inline]
    fn at(&self, field: usize, off: i32, len: usize) -> &'a [u8] {
        let start = field.wrapping_add_signed(off as isize).wrapping_sub(self.bytes.as_ptr().addr());
        &self.bytes[start..start + len]
    }
}

/// `known` holds index + 1 in one byte.
pub(super) const FIELDS_MAX: usize = 254;
/// A name's length is 16 bits.
const LINE_BYTES_MAX: usize = u16::MAX as usize;
