//! Owned twins of the views.
//!
//! `rkyv::to_bytes(&Request)` writes the very layout that the gateway builds in place: first the bytes, then the header
//! entries, the root last. Golden frames, captured frames, tests and tools use them; the data path never does.

use alloc::vec::Vec;

use rkyv::rancor::{Fallible, Source};
use rkyv::rend::{i32_le, u16_le, u32_le};
use rkyv::ser::{Allocator, Positional, Writer, WriterExt};
use rkyv::{Archive, Deserialize, Place, Serialize};

use crate::ids::HeaderId;
use crate::view::{HEADERS_MAX, HeaderView, NameSpan, REQUEST_MAGIC, RESPONSE_MAGIC, RequestView, ResponseView, Seq, Span};

/// Owned bytes; archived as [`Span`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Octets(pub Vec<u8>);

/// An owned header name with its id; archived as [`NameSpan`]. At most 65,535 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderName {
    /// The name as it stands on the wire.
    pub name: Vec<u8>,
    /// Its interned id, 0 for none.
    pub id: u16,
}

/// An owned header; archived as [`HeaderView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(as = HeaderView)]
pub struct Header {
    /// The name with its id.
    pub name: HeaderName,
    /// The value without the blanks around it.
    pub value: Octets,
}

/// Owned headers; archived as a [`Seq`] of [`HeaderView`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<Header>);

/// The owned twin of [`RequestView`]; the fields mean what `rw_request` in `ringway.h` says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(as = RequestView)]
#[allow(missing_docs, reason = "the fields are those of rw_request, described in ringway.h")]
pub struct Request {
    pub magic: u32,
    pub root_size: u16,
    pub entry_size: u16,
    pub method_id: u8,
    pub http_version: u8,
    pub flags: u16,
    pub edits: u32,
    pub method: Octets,
    pub target: Octets,
    pub path: Octets,
    pub query: Octets,
    pub authority: Octets,
    pub body: Octets,
    pub content_length: u64,
    pub request_id: u64,
    pub received_unix_ns: u64,
    pub peer_addr: [u8; 16],
    pub peer_port: u16,
    pub listener: u16,
    pub route: u32,
    pub known_mask: u64,
    pub known: [u8; 64],
    pub headers: Headers,
}

/// The owned twin of [`ResponseView`]; the fields mean what `rw_response` in `ringway.h` says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(as = ResponseView)]
#[allow(missing_docs, reason = "the fields are those of rw_response, described in ringway.h")]
pub struct Response {
    pub magic: u32,
    pub root_size: u16,
    pub entry_size: u16,
    pub status: u16,
    pub http_version: u8,
    pub origin: u8,
    pub flags: u16,
    pub reserved: u16,
    pub reason: Octets,
    pub body: Octets,
    pub content_length: u64,
    pub request_id: u64,
    pub upstream_ns: u64,
    pub origin_plugin: u32,
    pub edits: u32,
    pub known_mask: u64,
    pub known: [u8; 64],
    pub headers: Headers,
}

impl Header {
    /// A header with the fixed id of its name, if it has one.
    pub fn new(name: &[u8], value: &[u8]) -> Self {
        let id = HeaderId::of(name).0;
        Header { name: HeaderName { name: name.to_vec(), id }, value: Octets(value.to_vec()) }
    }
}

impl Request {
    /// A request with no body; `target` in origin-form. Fills everything that follows from the arguments.
    pub fn new(method: &[u8], target: &[u8], headers: Vec<Header>) -> Self {
        let (path, query) = match target.iter().position(|b| *b == b'?') {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (target, &target[target.len()..]),
        };
        let (known_mask, known) = index_known(&headers);
        let host = headers.iter().find(|h| h.name.id == HeaderId::HOST.0);
        Request {
            magic: REQUEST_MAGIC,
            root_size: size_of::<RequestView>() as u16,
            entry_size: size_of::<HeaderView>() as u16,
            method_id: crate::ids::method_id(method),
            http_version: 11,
            flags: 0,
            edits: 0,
            method: Octets(method.to_vec()),
            target: Octets(target.to_vec()),
            path: Octets(path.to_vec()),
            query: Octets(query.to_vec()),
            authority: host.map(|h| h.value.clone()).unwrap_or_default(),
            body: Octets::default(),
            content_length: 0,
            request_id: 1,
            received_unix_ns: 0,
            peer_addr: [0; 16],
            peer_port: 0,
            listener: 0,
            route: u32::MAX,
            known_mask,
            known,
            headers: Headers(headers),
        }
    }
}

impl Response {
    /// A response from the upstream with no body. Fills everything that follows from the arguments.
    pub fn new(status: u16, headers: Vec<Header>) -> Self {
        let (known_mask, known) = index_known(&headers);
        Response {
            magic: RESPONSE_MAGIC,
            root_size: size_of::<ResponseView>() as u16,
            entry_size: size_of::<HeaderView>() as u16,
            status,
            http_version: 11,
            origin: crate::view::ORIGIN_UPSTREAM,
            flags: 0,
            reserved: 0,
            reason: Octets::default(),
            body: Octets::default(),
            content_length: 0,
            request_id: 1,
            upstream_ns: 0,
            origin_plugin: u32::MAX,
            edits: 0,
            known_mask,
            known,
            headers: Headers(headers),
        }
    }
}

/// `known_mask` and `known` for these headers; `access` refuses a message with more than [`HEADERS_MAX`] of them.
fn index_known(headers: &[Header]) -> (u64, [u8; 64]) {
    let mut mask = 0u64;
    let mut known = [0u8; 64];
    for (index, header) in headers.iter().enumerate().take(HEADERS_MAX) {
        let id = usize::from(header.name.id);
        if (1..64).contains(&id) && known[id] == 0 {
            known[id] = index as u8 + 1;
            mask |= 1 << id;
        }
    }
    (mask, known)
}

/// Where serialized bytes begin in the archive.
pub struct At(usize);

/// The distance between two positions of an archive. Archives are below 2 GiB (DESIGN §3), so it fits.
fn distance(from: usize, to: usize) -> i32_le {
    i32_le::from_native((to as isize - from as isize) as i32)
}

impl Archive for Octets {
    type Archived = Span;
    type Resolver = At;

    fn resolve(&self, resolver: At, out: Place<Span>) {
        // `write` is safe because `Span` is `NoUndef`.
        out.write(Span { off: distance(out.pos(), resolver.0), len: u32_le::from_native(self.0.len() as u32) });
    }
}

impl<S: Fallible + Writer + ?Sized> Serialize<S> for Octets {
    fn serialize(&self, serializer: &mut S) -> Result<At, S::Error> {
        let at = serializer.pos();
        serializer.write(&self.0)?;
        Ok(At(at))
    }
}

impl<D: Fallible + ?Sized> Deserialize<Octets, D> for Span {
    fn deserialize(&self, _: &mut D) -> Result<Octets, D::Error> {
        Ok(Octets(self.bytes().to_vec()))
    }
}

impl Archive for HeaderName {
    type Archived = NameSpan;
    type Resolver = At;

    fn resolve(&self, resolver: At, out: Place<NameSpan>) {
        out.write(NameSpan { off: distance(out.pos(), resolver.0), len: u16_le::from_native(self.name.len() as u16), id: u16_le::from_native(self.id) });
    }
}

impl<S: Fallible + Writer + ?Sized> Serialize<S> for HeaderName {
    fn serialize(&self, serializer: &mut S) -> Result<At, S::Error> {
        let at = serializer.pos();
        serializer.write(&self.name)?;
        Ok(At(at))
    }
}

impl<D: Fallible + ?Sized> Deserialize<HeaderName, D> for NameSpan {
    fn deserialize(&self, _: &mut D) -> Result<HeaderName, D::Error> {
        Ok(HeaderName { name: self.bytes().to_vec(), id: self.id().0 })
    }
}

impl Archive for Headers {
    type Archived = Seq<HeaderView>;
    type Resolver = At;

    fn resolve(&self, resolver: At, out: Place<Seq<HeaderView>>) {
        out.write(Seq { off: distance(out.pos(), resolver.0), len: u32_le::from_native(self.0.len() as u32), of: core::marker::PhantomData });
    }
}

impl<S> Serialize<S> for Headers
where
    S: Fallible + Writer + Allocator + ?Sized,
    S::Error: Source,
{
    fn serialize(&self, serializer: &mut S) -> Result<At, S::Error> {
        let mut resolvers = Vec::with_capacity(self.0.len());
        for header in &self.0 {
            resolvers.push(header.serialize(serializer)?);
        }
        let at = serializer.align_for::<HeaderView>()?;
        for (header, resolver) in self.0.iter().zip(resolvers) {
            // SAFETY: the resolver was made for this header, and the position is aligned for a `HeaderView`.
            unsafe { serializer.resolve_aligned(header, resolver) }?;
        }
        Ok(At(at))
    }
}

impl<D: Fallible + ?Sized> Deserialize<Headers, D> for Seq<HeaderView> {
    fn deserialize(&self, d: &mut D) -> Result<Headers, D::Error> {
        let mut headers = Vec::with_capacity(self.len());
        for entry in self.as_slice() {
            headers.push(entry.deserialize(d)?);
        }
        Ok(Headers(headers))
    }
}
