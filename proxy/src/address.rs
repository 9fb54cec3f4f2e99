//! Addresses of peers: 16 bytes as views carry them, and their text without an allocation.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};

/// The longest text of an address: an IPv6 address with an embedded IPv4 one.
const TEXT_BYTES_MAX: usize = 45;

/// The 16 bytes of an address: IPv6, or IPv4 mapped.
pub fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address behind 16 bytes; mapped IPv4 addresses come back as IPv4.
pub fn from_octets(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

/// An address as text, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    len: u8,
    v6: bool,
}

impl Text {
    /// The text of an address; "unix" when all bytes are zero.
    pub fn of(octets: [u8; 16]) -> Text {
        let mut text = Text { bytes: [0; TEXT_BYTES_MAX], len: 0, v6: false };
        let mut rest = &mut text.bytes[..];
        // The buffer holds the longest text, so writing cannot fail.
        let _ = if octets == [0; 16] {
            write!(rest, "unix")
        } else {
            let address = from_octets(octets);
            text.v6 = address.is_ipv6();
            write!(rest, "{address}")
        };
        text.len = (TEXT_BYTES_MAX - rest.len()) as u8;
        text
    }

    /// The bytes of the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether it is an IPv6 address, which some headers want in brackets and quotes.
    pub fn is_v6(&self) -> bool {
        self.v6
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["127.0.0.1", "255.255.255.255", "::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(from_octets(octets(address)), address);
            assert_eq!(Text::of(octets(address)).as_bytes(), text.as_bytes());
        }
        assert_eq!(Text::of([0; 16]).as_bytes(), b"unix");
    }
}
