//! Byte classes of HTTP, and the small checks that are made of them.
//!
//! Everything here is a pure function of its arguments. Plugin and configuration bytes go through [`is_token`] and
//! [`is_field_value`] before they may become part of a message.
#![forbid(unsafe_code)]

/// A byte of a token. RFC 9110 §5.6.2: `!#$%&'*+-.^_`|~`, digits and letters.
pub const TOKEN: u8 = 0x01;
/// A byte that ends or spoils a field value: a control other than HTAB, or DEL. RFC 9110 §5.5.
pub const CONTROL: u8 = 0x02;
/// A byte of a request target: a visible ASCII byte other than `#`. RFC 9112 §3.2.
pub const TARGET: u8 = 0x04;
/// A byte of a registered name, an IPv4 address or a port. RFC 3986 §3.2.2 without the comma, which in Host means a list.
pub const HOST: u8 = 0x08;
/// A byte that a path may hold unescaped and unreserved. RFC 3986 §2.3.
pub const UNRESERVED: u8 = 0x10;

/// The classes of every byte.
pub static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        let alphanumeric = b.is_ascii_alphanumeric();
        let mut class = 0;
        if alphanumeric || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~') {
            class |= TOKEN;
        }
        if (b < 0x20 && b != b'\t') || b == 0x7f {
            class |= CONTROL;
        }
        if b > 0x20 && b < 0x7f && b != b'#' {
            class |= TARGET;
        }
        if alphanumeric || matches!(b, b'-' | b'.' | b'_' | b'~') {
            class |= UNRESERVED | HOST;
        }
        if matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' | b'%') {
            class |= HOST;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

/// Whether `byte` has any of the classes.
#[inline]
pub fn is(byte: u8, class: u8) -> bool {
    CLASS[usize::from(byte)] & class != 0
}

/// SP or HTAB: the only bytes that are trimmed around a value. RFC 9110 §5.6.3.
#[inline]
pub fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Whether `bytes` is a token: a method, a field name, a connection option. RFC 9110 §5.6.2.
#[inline]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is(*b, TOKEN))
}

/// Whether `bytes` can be written as a field value: no CR, LF, NUL or other control except HTAB, and no blanks around it.
// RFC 9110 §5.5: a sender must not generate these; inside the gateway they would split a message.
pub fn is_field_value(bytes: &[u8]) -> bool {
    let outer_blank = bytes.first().is_some_and(|b| is_blank(*b)) || bytes.last().is_some_and(|b| is_blank(*b));
    !outer_blank && !bytes.iter().any(|b| is(*b, CONTROL))
}

/// `bytes` without the blanks around it.
#[inline]
pub fn trim(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest
        && is_blank(*first)
    {
        rest = tail;
    }
    while let [head @ .., last] = rest
        && is_blank(*last)
    {
        rest = head;
    }
    rest
}

/// The elements of a comma-separated list, trimmed, empty ones included. Quotes are not looked at: for lists of tokens.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim)
}

/// Whether a comma-separated list holds `token`, compared without case.
pub fn list_has_token(value: &[u8], token: &[u8]) -> bool {
    list(value).any(|element| element.eq_ignore_ascii_case(token))
}

/// Why a number is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDecimal {
    /// A byte that is no digit, or no byte at all.
    NotDigits,
    /// More than `i64::MAX`.
    TooLarge,
}

/// `1*DIGIT` as a number of at most 63 bits, so that sums and offsets cannot overflow and `u64::MAX` stays free for "unknown".
// RFC 9110 §8.6: "a recipient MUST anticipate potentially large decimal numerals and prevent parsing errors due to integer conversion overflows".
pub fn decimal(bytes: &[u8]) -> Result<u64, NotDecimal> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return Err(NotDecimal::NotDigits);
    }
    let mut number: u64 = 0;
    for byte in bytes {
        let digit = u64::from(byte - b'0');
        number = number.checked_mul(10).and_then(|n| n.checked_add(digit)).filter(|n| *n <= i64::MAX as u64).ok_or(NotDecimal::TooLarge)?;
    }
    Ok(number)
}

/// The decimal digits of `number`, and how many there are; they stand at the end of the array.
pub fn decimal_digits(number: u64) -> ([u8; 20], usize) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return (digits, 20 - at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_20_tokens_are_exactly_those_of_rfc_9110() {
        for byte in 0..=255u8 {
            let separator = b"(),/:;<=>?@[\\]{}\"".contains(&byte);
            let expected = byte > 0x20 && byte < 0x7f && !separator;
            assert_eq!(is_token(&[byte]), expected, "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn rule_24_only_space_and_tab_are_trimmed() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b" \t"), b"");
        for byte in [0x0b, 0x0c, 0x85, 0xa0] {
            assert_eq!(trim(&[byte, b'a', byte]), [byte, b'a', byte]);
        }
    }

    #[test]
    fn rule_29_values_from_inside_are_checked() {
        assert!(is_field_value(b"") && is_field_value(b"a\tb \xff"));
        for bad in [&b"a\rb"[..], b"a\nb", b"a\0b", b"\x0b", b"\x7f", b" a", b"a\t"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn rule_35_decimals_are_digits_and_fit() {
        assert_eq!(decimal(b"0"), Ok(0));
        assert_eq!(decimal(b"00042"), Ok(42));
        assert_eq!(decimal(b"9223372036854775807"), Ok(i64::MAX as u64));
        assert_eq!(decimal(b"9223372036854775808"), Err(NotDecimal::TooLarge));
        assert_eq!(decimal(b"18446744073709551617"), Err(NotDecimal::TooLarge));
        assert_eq!(decimal(&[b'9'; 400]), Err(NotDecimal::TooLarge));
        for bad in [&b""[..], b"+1", b"-1", b"0x1", b"1_0", b"1 0", b" 1", b"1 ", b"1.0", b"\xb2"] {
            assert_eq!(decimal(bad), Err(NotDecimal::NotDigits), "{bad:?}");
        }
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 7, 10, 99, 100, 12345, u64::MAX] {
            let (digits, count) = decimal_digits(number);
            assert_eq!(&digits[20 - count..], number.to_string().as_bytes());
        }
    }

    #[test]
    fn lists_keep_their_empty_elements() {
        assert_eq!(list(b"a, b ,,c").collect::<Vec<_>>(), [&b"a"[..], b"b", b"", b"c"]);
        assert!(list_has_token(b"keep-alive, Close", b"close"));
        assert!(!list_has_token(b"close-notify", b"close"));
    }
}
