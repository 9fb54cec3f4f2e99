//! Copies of views in guarded memory: what a hook of a dry run is shown instead of the slot.
//!
//! Every span of a copy has an untouchable page behind its last byte, and so have the entries and the root; the order in memory
//! is that of a slot, the root last. Must not: change what a view says.

use std::io;
use std::mem::offset_of;

use ringway_abi::raw::{RawHeader, RawRequest, RawResponse};
use ringway_abi::view::{HeaderView, RequestView, ResponseView};

use super::pen::{Kind, Pen, Piece};

/// A copy of this request.
pub(super) fn request(pen: &mut Pen, view: &RequestView) -> io::Result<*const RequestView> {
    let spans = [
        (offset_of!(RawRequest, method), view.method()),
        (offset_of!(RawRequest, target), view.target()),
        (offset_of!(RawRequest, path), view.path()),
        (offset_of!(RawRequest, query), view.query()),
        (offset_of!(RawRequest, authority), view.authority()),
        (offset_of!(RawRequest, body), view.body()),
    ];
    let root = copy(pen, Kind::Request, bytes_of(view), &spans, offset_of!(RawRequest, headers), view.entries())?;
    Ok(root.at.cast())
}

/// A copy of this response.
pub(super) fn response(pen: &mut Pen, view: &ResponseView) -> io::Result<*const ResponseView> {
    let spans = [(offset_of!(RawResponse, reason), view.reason()), (offset_of!(RawResponse, body), view.body())];
    let root = copy(pen, Kind::Response, bytes_of(view), &spans, offset_of!(RawResponse, headers), view.entries())?;
    Ok(root.at.cast())
}

/// A copy of the struct of another event.
pub(super) fn event<T: Copy>(pen: &mut Pen, event: &T) -> io::Result<Piece> {
    pen.keep(Kind::Event, bytes_of(event), 8)
}

fn copy(pen: &mut Pen, kind: Kind, root: &[u8], spans: &[(usize, &[u8])], headers_at: usize, entries: &[HeaderView]) -> io::Result<Piece> {
    let mut placed = Vec::with_capacity(spans.len());
    for (field, bytes) in spans {
        placed.push((*field, place(pen, kind, bytes)?));
    }
    let mut named = Vec::with_capacity(entries.len());
    for entry in entries {
        named.push((place(pen, kind, entry.name())?, place(pen, kind, entry.value())?, entry.id().0));
    }
    let table = pen.piece(kind, entries.len() * size_of::<RawHeader>(), 8)?;
    let mut bytes = Vec::with_capacity(table.len);
    for (name, value, id) in named {
        let at = table.at.addr() + bytes.len();
        bytes.extend_from_slice(&name.offset_from(at));
        bytes.extend_from_slice(&(name.len as u16).to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&value.offset_from(at + offset_of!(RawHeader, value)));
        bytes.extend_from_slice(&value.len.to_le_bytes());
    }
    pen.fill(&table, &bytes)?;
    let piece = pen.piece(kind, root.len(), 8)?;
    let mut root = root.to_vec();
    placed.push((headers_at, Placed { at: table.at.addr(), len: entries.len() as u32 }));
    for (field, span) in placed {
        root[field..field + 4].copy_from_slice(&span.offset_from(piece.at.addr() + field));
        root[field + 4..field + 8].copy_from_slice(&span.len.to_le_bytes());
    }
    pen.fill(&piece, &root)?;
    Ok(piece)
}

/// Where the bytes of a span are.
#[derive(Clone, Copy)]
struct Placed {
    at: usize,
    len: u32,
}

impl Placed {
    /// The offset of a span that stands at `from`; the region is far below 2 GiB.
    fn offset_from(self, from: usize) -> [u8; 4] {
        let off = if self.len == 0 { 0 } else { self.at.wrapping_sub(from) as i32 };
        off.to_le_bytes()
    }
}

fn place(pen: &mut Pen, kind: Kind, bytes: &[u8]) -> io::Result<Placed> {
    if bytes.is_empty() {
        return Ok(Placed { at: 0, len: 0 });
    }
    let piece = pen.keep(kind, bytes, 1)?;
    Ok(Placed { at: piece.at.addr(), len: bytes.len() as u32 })
}

/// The bytes of a struct of the contract: none has padding (SPEC S-1).
fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: a reference is readable for the size of its type, and these types have no padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
