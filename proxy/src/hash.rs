//! FNV-1a, 64 bits: a hash that is the same in every process, on every machine and with every compiler, so that what one gateway
//! says of a key another one says too. It protects from nothing: never for tables that strangers fill.
#![forbid(unsafe_code)]

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of these bytes.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_of(&[bytes])
}

/// The hash of these pieces, one behind the other.
pub fn fnv1a_of(pieces: &[&[u8]]) -> u64 {
    pieces.iter().copied().flatten().fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test vectors.
    #[test]
    fn it_is_the_hash_that_others_call_fnv_1a() {
        assert_eq!((fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")), (BASIS, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8));
        assert_eq!(fnv1a_of(&[b"foo", b"", b"bar"]), fnv1a(b"foobar"));
    }
}
