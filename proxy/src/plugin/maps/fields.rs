//! What a value of a map holds: the text `value_fields` of its definition, parsed.
//!
//! Pure: text in, fields with offsets out. The rules stand in `ringway.h` §7.
#![forbid(unsafe_code)]

use std::fmt;

/// One field of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// `[a-z0-9_]+`, once in a value.
    pub name: String,
    /// What it is made of.
    pub kind: FieldKind,
    /// How many of these; `None`: one, without brackets.
    pub count: Option<u32>,
    /// Bytes from the beginning of the value.
    pub offset: u32,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// A number of so many bytes (1, 2, 4, 8).
    Unsigned(u32),
    /// The same with a sign, in two's complement.
    Signed(u32),
    /// A byte of text.
    Char,
}

/// Name and type of each kind of field.
const KINDS: [(&str, FieldKind); 9] = [
    ("u8", FieldKind::Unsigned(1)),
    ("u16", FieldKind::Unsigned(2)),
    ("u32", FieldKind::Unsigned(4)),
    ("u64", FieldKind::Unsigned(8)),
    ("i8", FieldKind::Signed(1)),
    ("i16", FieldKind::Signed(2)),
    ("i32", FieldKind::Signed(4)),
    ("i64", FieldKind::Signed(8)),
    ("char", FieldKind::Char),
];

impl FieldKind {
    /// Bytes of one of it.
    pub fn bytes(self) -> u32 {
        match self {
            FieldKind::Unsigned(bytes) | FieldKind::Signed(bytes) => bytes,
            FieldKind::Char => 1,
        }
    }

    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }
}

impl Field {
    /// Bytes of the field.
    pub fn bytes(&self) -> u32 {
        self.kind.bytes() * self.count.unwrap_or(1)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            Some(count) => write!(f, "{}[{count}] {}", self.kind.name(), self.name),
            None => write!(f, "{} {}", self.kind.name(), self.name),
        }
    }
}

/// The fields of a value of at most `bytes_max` bytes.
///
/// # Errors
/// Why the text makes no sense.
pub fn parse(text: &str, bytes_max: u32) -> Result<Vec<Field>, String> {
    let mut fields: Vec<Field> = Vec::new();
    let mut offset = 0u32;
    for part in text.split(',') {
        let malformed = || format!("`{}` is not \"TYPE NAME\"", part.trim());
        let (kind, name) = part.trim().split_once(' ').ok_or_else(malformed)?;
        let name = name.trim();
        let (kind, count) = match kind.split_once('[') {
            Some((kind, count)) => (kind, Some(count.strip_suffix(']').ok_or_else(malformed)?)),
            None => (kind, None),
        };
        let (_, kind) = KINDS.iter().find(|(known, _)| *known == kind).ok_or_else(|| format!("`{kind}` is no type of a field"))?;
        let count = match count {
            Some(digits) => Some(digits.parse::<u32>().ok().filter(|count| (1..=bytes_max).contains(count)).ok_or_else(malformed)?),
            None => None,
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            return Err(format!("`{name}` is no name of a field: use a-z, 0-9 and _"));
        }
        if fields.iter().any(|other| other.name == name) {
            return Err(format!("the field `{name}` stands there twice"));
        }
        if !offset.is_multiple_of(kind.bytes()) {
            return Err(format!("the field `{name}` stands at {offset}, which is no multiple of its size ({})", kind.bytes()));
        }
        let field = Field { name: name.to_owned(), kind: *kind, count, offset };
        // Both are at most `bytes_max`, which is far below the end of the type.
        offset = offset.saturating_add(field.bytes());
        if offset > bytes_max {
            return Err(format!("the fields have more than {bytes_max} bytes"));
        }
        fields.push(field);
    }
    Ok(fields)
}

/// The fields as one text, in one form whatever blanks the author used.
pub fn canonical(fields: &[Field]) -> String {
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_each_other_without_padding() {
        let fields = parse(" u64 hits,u32[2]  pair , char[8] name", 64).expect("good");
        let places: Vec<(&str, u32, u32)> = fields.iter().map(|field| (field.name.as_str(), field.offset, field.bytes())).collect();
        assert_eq!(places, [("hits", 0, 8), ("pair", 8, 8), ("name", 16, 8)]);
        assert_eq!(canonical(&fields), "u64 hits, u32[2] pair, char[8] name");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, expected) in [
            ("", "`` is not \"TYPE NAME\""),
            ("u64", "`u64` is not \"TYPE NAME\""),
            ("u64 hits,", "`` is not \"TYPE NAME\""),
            ("u128 hits", "`u128` is no type of a field"),
            ("u64 Hits", "`Hits` is no name of a field: use a-z, 0-9 and _"),
            ("u64 a, u8 a", "the field `a` stands there twice"),
            ("u8 a, u64 b", "the field `b` stands at 1, which is no multiple of its size (8)"),
            ("u8[0] a", "`u8[0] a` is not \"TYPE NAME\""),
            ("u8[65] a", "`u8[65] a` is not \"TYPE NAME\""),
            ("u8[4294967295] a", "`u8[4294967295] a` is not \"TYPE NAME\""),
            ("u8[x] a", "`u8[x] a` is not \"TYPE NAME\""),
            ("u8[1 a", "`u8[1 a` is not \"TYPE NAME\""),
            ("u64[8] a, u8 b", "the fields have more than 64 bytes"),
        ] {
            assert_eq!(parse(text, 64), Err(expected.to_owned()), "{text}");
        }
    }
}
