//! Events other than messages: a connection, a piece of a body, the end of an exchange.

use std::net::{IpAddr, Ipv6Addr};

use ringway_abi::raw;

/// A client connected.
#[derive(Debug, Clone, Copy)]
pub struct Accept(pub(crate) raw::Accept);

impl Accept {
    /// The client's address; `None` for a Unix socket.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        peer_ip(self.0.peer_addr)
    }

    /// The client's port.
    pub fn peer_port(&self) -> u16 {
        self.0.peer_port
    }

    /// Index of `[[listener]]` in the configuration.
    pub fn listener(&self) -> u16 {
        self.0.listener
    }
}

/// A piece of a body, transfer coding removed.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'h> {
    bytes: &'h [u8],
    offset: u64,
    is_last: bool,
}

impl<'h> Chunk<'h> {
    /// # Safety
    /// `raw.len` bytes are readable at `raw.bytes` and stay unchanged for `'h`.
    pub(crate) unsafe fn new(raw: &'h raw::RawChunk) -> Self {
        let bytes: &'h [u8] = match usize::try_from(raw.len) {
            // SAFETY: the caller's promise; the pointer is not null.
            Ok(len) if len > 0 && !raw.bytes.is_null() => unsafe { std::slice::from_raw_parts(raw.bytes, len) },
            _ => &[],
        };
        Chunk { bytes, offset: raw.offset, is_last: raw.flags & raw::CHUNK_LAST != 0 }
    }

    /// The bytes; may be empty when this is the last piece.
    pub fn bytes(&self) -> &'h [u8] {
        self.bytes
    }

    /// Where this piece begins in the body as received.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the body ends with this piece.
    pub fn is_last(&self) -> bool {
        self.is_last
    }
}

/// The end of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Done(pub(crate) raw::Done);

impl Done {
    /// The status that was sent to the client; `None` when none was.
    pub fn status(&self) -> Option<u16> {
        (self.0.status != 0).then_some(self.0.status)
    }

    /// Who made the response: `ORIGIN_*`.
    pub fn origin(&self) -> u8 {
        self.0.origin
    }

    /// Whether the client or the upstream went away before the end.
    pub fn is_aborted(&self) -> bool {
        self.0.flags & raw::END_ABORTED != 0
    }

    /// Bytes of the request body.
    pub fn request_body_bytes(&self) -> u64 {
        self.0.request_body_bytes
    }

    /// Bytes of the response body.
    pub fn response_body_bytes(&self) -> u64 {
        self.0.response_body_bytes
    }

    /// How long the exchange took, by the coarse clock.
    pub fn duration_ns(&self) -> u64 {
        self.0.duration_ns
    }
}

/// The address behind the 16 bytes of the ABI; `None` for a Unix socket, which is all zero.
pub(crate) fn peer_ip(bytes: [u8; 16]) -> Option<IpAddr> {
    (bytes != [0; 16]).then(|| IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
}
