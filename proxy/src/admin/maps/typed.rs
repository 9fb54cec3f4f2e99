//! Keys and values of maps as people read and write them: bytes to JSON by the definition of the map, and back.
//!
//! What is shown as a key can be given as one: a text is shown only if it is read as the same bytes.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr};

use serde_json::{Map as Object, Value, json};

use crate::plugin::maps::fields::{Field, FieldKind};
use crate::plugin::maps::{MapKind, MapShape};

/// Bits of a mapped IPv4 address before its own.
const MAPPED_BITS: u32 = 96;

/// The key as it is shown.
pub fn show_key(shape: &MapShape, key: &[u8]) -> Value {
    if shape.kind().is_array() {
        return json!(key.try_into().map_or(0, u32::from_le_bytes));
    }
    if shape.kind() == MapKind::Lpm
        && let (Some(bits), Some(address)) = (key.first_chunk().map(|bits| u32::from_le_bytes(*bits)), address_of(&key[4..]))
    {
        let own = if address.is_ipv4() { MAPPED_BITS } else { 0 };
        // A prefix that ends before the mapped part is one of IPv6.
        return if bits >= own { json!(format!("{address}/{}", bits - own)) } else { json!(format!("{}/{bits}", as_ipv6(address))) };
    }
    let end = key.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&key[..end]).ok().filter(|text| !text.chars().any(char::is_control)).map(str::to_owned);
    let address = address_of(key).map(|address| address.to_string());
    let readable = [text, address].into_iter().flatten().find(|text| parse_key(shape, text).is_ok_and(|parsed| parsed == key));
    json!(readable.unwrap_or_else(|| hex(key)))
}

/// The bytes of a key.
///
/// # Errors
/// Why it is none of this map.
pub fn parse_key(shape: &MapShape, text: &str) -> Result<Vec<u8>, String> {
    let bytes = shape.key_bytes();
    if shape.kind().is_array() {
        let index: u32 = text.parse().map_err(|_| format!("`{text}` is no index: keys of this map are numbers"))?;
        return Ok(index.to_le_bytes().to_vec());
    }
    if shape.kind() == MapKind::Lpm {
        return parse_prefix(text).ok_or_else(|| format!("`{text}` is no prefix: write \"10.0.0.0/8\", \"2001:db8::/32\" or an address"));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return unhex(digits).filter(|key| key.len() == bytes).ok_or_else(|| format!("`{text}` is not {bytes} bytes in hexadecimal"));
    }
    if bytes == 16
        && let Ok(address) = text.parse::<IpAddr>()
    {
        return Ok(as_ipv6(address).octets().to_vec());
    }
    if text.is_empty() || text.len() > bytes {
        return Err(format!("`{text}` is no key: keys of this map have {bytes} bytes"));
    }
    let mut key = text.as_bytes().to_vec();
    key.resize(bytes, 0);
    Ok(key)
}

fn parse_prefix(text: &str) -> Option<Vec<u8>> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits = match (address, bits) {
        (_, None) => 128,
        (IpAddr::V4(_), Some(bits)) if bits <= 32 => MAPPED_BITS + bits,
        (IpAddr::V6(_), Some(bits)) if bits <= 128 => bits,
        _ => return None,
    };
    Some([bits.to_le_bytes().as_slice(), &as_ipv6(address).octets()].concat())
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).to_canonical())
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// The value, or the part of a record that is there, by its fields.
pub fn show_value(shape: &MapShape, value: &[u8]) -> Value {
    let shown = shape.fields().iter().filter_map(|field| {
        let at = field.offset as usize;
        let whole = value.get(at..at + field.bytes() as usize);
        // The last field of a record may be cut off.
        let bytes = whole.or_else(|| value.get(at..).filter(|rest| field.kind.bytes() == 1 && !rest.is_empty()))?;
        Some((field.name.clone(), show_field(field, bytes)))
    });
    Value::Object(shown.collect())
}

fn show_field(field: &Field, bytes: &[u8]) -> Value {
    match (field.kind, field.count) {
        (FieldKind::Char, _) => {
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            match std::str::from_utf8(text) {
                Ok(text) if !text.chars().any(char::is_control) => json!(text),
                _ => json!(hex(bytes)),
            }
        }
        (FieldKind::Unsigned(1), Some(_)) => json!(hex(bytes)),
        (_, Some(_)) => bytes.chunks_exact(field.kind.bytes() as usize).map(|one| number(field.kind, one)).collect(),
        (_, None) => number(field.kind, bytes),
    }
}

fn number(kind: FieldKind, bytes: &[u8]) -> Value {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    match kind {
        FieldKind::Signed(bytes) => {
            let unused = 64 - 8 * bytes;
            json!((unsigned << unused) as i64 >> unused)
        }
        _ => json!(unsigned),
    }
}

/// The sum of the numbers of several values; fields that are no numbers are left out.
pub fn show_sum(shape: &MapShape, values: &[Vec<u8>]) -> Value {
    let is_number = |field: &&Field| field.count.is_none() && field.kind != FieldKind::Char;
    let sums = shape.fields().iter().filter(is_number).map(|field| {
        let at = field.offset as usize;
        let one = |value: &Vec<u8>| number(field.kind, value.get(at..at + field.bytes() as usize).unwrap_or_default());
        let sum = match field.kind {
            FieldKind::Signed(_) => json!(values.iter().filter_map(|value| one(value).as_i64()).fold(0, i64::wrapping_add)),
            _ => json!(values.iter().filter_map(|value| one(value).as_u64()).fold(0, u64::wrapping_add)),
        };
        (field.name.clone(), sum)
    });
    Value::Object(sums.collect())
}

/// Sets the fields that `object` names in `value`.
///
/// # Errors
/// Which field is wrong, and why.
pub fn set_fields(shape: &MapShape, object: &Object<String, Value>, value: &mut [u8]) -> Result<(), String> {
    for (name, wanted) in object {
        let Some(field) = shape.fields().iter().find(|field| field.name == *name) else {
            let known: Vec<&str> = shape.fields().iter().map(|field| field.name.as_str()).collect();
            return Err(format!("there is no field `{name}`; there are: {}", known.join(", ")));
        };
        let at = field.offset as usize;
        let place = value.get_mut(at..at + field.bytes() as usize).ok_or("the value is too short")?;
        set_field(field, wanted, place).map_err(|why| format!("`{name}` is {field}: {why}"))?;
    }
    Ok(())
}

fn set_field(field: &Field, wanted: &Value, place: &mut [u8]) -> Result<(), String> {
    let bytes = match (field.kind, field.count, wanted) {
        (FieldKind::Char | FieldKind::Unsigned(1), _, Value::String(text)) if text.starts_with("0x") && field.count.is_some() => {
            unhex(&text[2..]).ok_or("this is not hexadecimal")?
        }
        (FieldKind::Char, _, Value::String(text)) => text.clone().into_bytes(),
        (FieldKind::Char, ..) => return Err("write a text".into()),
        (kind, Some(_), Value::Array(items)) => {
            let mut bytes = Vec::new();
            for item in items {
                bytes.extend(to_number(kind, item)?);
            }
            bytes
        }
        (_, Some(_), _) => return Err("write a list of numbers".into()),
        (kind, None, wanted) => to_number(kind, wanted)?,
    };
    if bytes.len() > place.len() || (field.kind != FieldKind::Char && bytes.len() != place.len()) {
        return Err(format!("there is room for {} bytes, and this has {}", place.len(), bytes.len()));
    }
    place.fill(0);
    place[..bytes.len()].copy_from_slice(&bytes);
    Ok(())
}

/// Command lines have texts only, so a text of digits is a number too.
fn to_number(kind: FieldKind, wanted: &Value) -> Result<Vec<u8>, String> {
    let text = match wanted {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err("write a number".into()),
    };
    let wide: i128 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    let bits = 8 * kind.bytes();
    let range = match kind {
        FieldKind::Signed(_) => -(1i128 << (bits - 1))..1i128 << (bits - 1),
        _ => 0..1i128 << bits,
    };
    if !range.contains(&wide) {
        return Err(format!("{wide} is out of range"));
    }
    Ok(wide.to_le_bytes()[..kind.bytes() as usize].to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let clean = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if clean { digits.as_bytes().chunks(2).map(pair).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use ringway_abi::maps as abi;

    use super::*;
    use crate::plugin::maps::shape::Sizes;

    fn shape(kind: u32, key_bytes: u32, value_bytes: u32, fields: &str) -> MapShape {
        MapShape::new("m", Sizes { kind, key_bytes, value_bytes, entries_max: 4 }, fields).expect("good")
    }

    #[test]
    fn a_key_that_is_shown_is_read_as_the_same_bytes() {
        let mapped = "10.1.2.3".parse::<std::net::Ipv4Addr>().expect("good").to_ipv6_mapped().octets();
        let prefix = |bits: u32, address: &str| [bits.to_le_bytes().as_slice(), &as_ipv6(address.parse().expect("good")).octets()].concat();
        let hash = |bytes: usize| shape(abi::HASH, bytes as u32, 8, "u64 n");
        let lpm = shape(abi::LPM, 20, 8, "u64 n");
        for (shape, key, shown) in [
            (shape(abi::ARRAY, 4, 8, "u64 n"), vec![1, 1, 0, 0], json!(257)),
            (hash(4), b"ab\0\0".to_vec(), json!("ab")),
            (hash(4), b"abcd".to_vec(), json!("abcd")),
            (hash(4), vec![0; 4], json!("0x00000000")),
            (hash(4), b"a\0b\0".to_vec(), json!("0x61006200")),
            (hash(4), b"0xab".to_vec(), json!("0x30786162")),
            (hash(2), vec![0xff, 0xfe], json!("0xfffe")),
            (hash(16), mapped.to_vec(), json!("10.1.2.3")),
            (hash(16), b"10.1.2.3\0\0\0\0\0\0\0\0".to_vec(), json!("3130:2e31:2e32:2e33::")),
            (lpm.clone(), prefix(104, "10.0.0.0"), json!("10.0.0.0/8")),
            (lpm.clone(), prefix(32, "2001:db8::"), json!("2001:db8::/32")),
            (lpm, prefix(128, "::1"), json!("::1/128")),
        ] {
            assert_eq!(show_key(&shape, &key), shown);
            assert_eq!(parse_key(&shape, &shown.as_str().map_or_else(|| shown.to_string(), str::to_owned)), Ok(key), "{shown}");
        }
        for (shape, text) in [
            (hash(4), "abcde"),
            (hash(4), ""),
            (hash(4), "0xab"),
            (hash(2), "0xzzzz"),
            (shape(abi::ARRAY, 4, 8, "u64 n"), "-1"),
            (shape(abi::LPM, 20, 8, "u64 n"), "10.0.0.0/33"),
        ] {
            assert!(parse_key(&shape, text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_shown_and_set_by_their_fields() {
        let shape = shape(abi::HASH, 4, 40, "u64 n, i16 s, u8 b, char c, u32[2] two, u8[4] raw, char[16] text");
        let mut value = vec![0; 40];
        let object = json!({ "n": u64::MAX, "s": -2, "b": "7", "c": "x", "two": [1, 2], "raw": "0x01020304", "text": "hello" });
        set_fields(&shape, object.as_object().expect("an object"), &mut value).expect("good");
        let shown = json!({ "n": u64::MAX, "s": -2, "b": 7, "c": "x", "two": [1, 2], "raw": "0x01020304", "text": "hello" });
        assert_eq!(show_value(&shape, &value), shown);
        assert_eq!(show_value(&shape, &value[..26]), json!({ "n": u64::MAX, "s": -2, "b": 7, "c": "x", "two": [1, 2], "raw": "0x01020304", "text": "he" }));
        assert_eq!(show_value(&shape, &value[..9]), json!({ "n": u64::MAX }));
        assert_eq!(show_sum(&shape, &[value.clone(), value.clone()]), json!({ "n": u64::MAX - 1, "s": -4, "b": 14 }));
        for (wrong, expected) in [
            (json!({ "m": 1 }), "there is no field `m`; there are: n, s, b, c, two, raw, text"),
            (json!({ "b": 256 }), "`b` is u8 b: 256 is out of range"),
            (json!({ "n": -1 }), "`n` is u64 n: -1 is out of range"),
            (json!({ "s": "many" }), "`s` is i16 s: `many` is no number"),
            (json!({ "two": [1] }), "`two` is u32[2] two: there is room for 8 bytes, and this has 4"),
            (json!({ "text": "12345678901234567" }), "`text` is char[16] text: there is room for 16 bytes, and this has 17"),
        ] {
            assert_eq!(set_fields(&shape, wrong.as_object().expect("an object"), &mut value), Err(expected.to_owned()));
        }
    }
}
