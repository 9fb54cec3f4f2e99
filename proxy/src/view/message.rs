//! One message in one slot: its view, and the edits that plugins ask for.
//!
//! Owns: the arena of the slot and the rules of editing. Must not: know plugins, sockets, clocks.
//!
//! Received bytes never change (DESIGN P4). [`Message::stage`] checks an edit and copies its bytes to the arena;
//! [`Message::apply`] makes the staged edits visible, all of them, after the hook returned; dropping the list drops the
//! edits. The first applied edit copies entries and root to the edited region; the original stays readable.
//!
//! Invariants: `arena_used <= layout.arena`; `count <= layout.entries <= 254`; every span of a view lies in the slot.

use std::mem::offset_of;
use std::ops::Range;

use ringway_abi::ids::{HEADER_ID_REMOVED, HeaderId};
use ringway_abi::raw::{RawHeader, RawNameSpan, RawRequest, RawResponse, RawSpan};
use ringway_abi::view::RESPONSE_MAGIC;
use ringway_abi::{RequestView, ResponseView};
use smallvec::SmallVec;

use super::slab::Slot;
use crate::http1::bytes::{is_field_value, is_token};
use crate::http1::names::NameTable;
use crate::http1::target::is_host;

/// Edits of one hook that are kept without an allocation.
pub const STAGED_INLINE: usize = 8;

/// Edits that a running hook has asked for, in order.
pub type Staged = SmallVec<[Edit; STAGED_INLINE]>;

/// One checked edit; its bytes are in the arena of the message.
#[derive(Debug, Clone, Copy)]
pub enum Edit {
    /// Replace all headers of the name by one.
    Set(EditHeader),
    /// One more header.
    Add(EditHeader),
    /// Remove all headers of the name.
    Remove(EditHeader),
    /// Replace the request target.
    Target {
        /// Offset of the bytes in the slot.
        at: u32,
        /// Their count.
        len: u32,
    },
    /// Replace the response status.
    Status(u16),
}

/// Name and value of an edit: offsets from the beginning of the slot.
#[derive(Debug, Clone, Copy)]
pub struct EditHeader {
    id: u16,
    name_len: u16,
    name_at: u32,
    value_at: u32,
    value_len: u32,
}

/// What a header edit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Replace all by one.
    Set,
    /// One more.
    Add,
    /// Remove all.
    Remove,
}

/// Why an edit was refused. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditFault {
    /// The name is no token, or the value holds CR, LF, NUL or another control.
    BadBytes,
    /// The arena or the entries are full.
    NoSpace,
    /// The header belongs to the gateway: framing and connection fields, and a second Host or none.
    Forbidden,
    /// Not possible for this side of the exchange.
    WrongSide,
}

/// Which of the two a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From downstream.
    Request,
    /// For downstream.
    Response,
}

/// A message in a slot.
pub struct Message {
    slot: Slot,
    side: Side,
    edited: bool,
    /// A response made here: its entries have no received bytes, so edits go to the original region.
    made: bool,
    arena_used: usize,
    count: usize,
    /// Entries that staged edits will add at most.
    staged_adds: usize,
}

impl Message {
    /// A message in this slot, after the parser has written `count` entries and the root.
    pub fn parsed(slot: Slot, side: Side, count: usize) -> Message {
        Message { slot, side, edited: false, made: false, arena_used: 0, count, staged_adds: 0 }
    }

    /// An empty response of this status, made by a plugin or the gateway (`origin`).
    pub fn made_response(mut slot: Slot, status: u16, origin: u8, request_id: u64) -> Message {
        let headers_field = slot.root_at(false) + offset_of!(RawResponse, headers);
        let headers = RawSpan { off: slot.entries_at(false) as i32 - headers_field as i32, len: 0 };
        *slot.response_region(false).1 = RawResponse {
            magic: RESPONSE_MAGIC,
            root_size: size_of::<RawResponse>() as u16,
            entry_size: size_of::<RawHeader>() as u16,
            status,
            http_version: 11,
            origin,
            flags: 0,
            reserved: 0,
            reason: RawSpan::default(),
            body: RawSpan::default(),
            content_length: 0,
            request_id,
            upstream_ns: 0,
            origin_plugin: u32::MAX,
            edits: 0,
            known_mask: 0,
            known: [0; 64],
            headers,
        };
        Message { slot, side: Side::Response, edited: false, made: true, arena_used: 0, count: 0, staged_adds: 0 }
    }

    /// The slot.
    #[inline]
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The slot, for writing regions that are not part of the view.
    #[inline]
    pub fn slot_mut(&mut self) -> &mut Slot {
        &mut self.slot
    }

    /// Whether a plugin or the gateway made it.
    #[inline]
    pub fn is_made(&self) -> bool {
        self.made
    }

    /// Whether the view in force differs from what was received.
    #[inline]
    pub fn is_edited(&self) -> bool {
        self.edited
    }

    /// The request view in force.
    ///
    /// # Panics
    /// When this is a response.
    #[inline]
    pub fn request(&self) -> &RequestView {
        self.request_in(self.edited)
    }

    /// The request view as it was received.
    ///
    /// # Panics
    /// When this is a response.
    pub fn original_request(&self) -> &RequestView {
        self.request_in(false)
    }

    #[inline]
    fn request_in(&self, edited: bool) -> &RequestView {
        assert!(self.side == Side::Request);
        // SAFETY: `parsed` is only made after the parser wrote the root; edits keep spans inside the slot, and `edited` is only asked for
        // when they have made the edited root.
        unsafe { self.slot.request_view(edited) }
    }

    /// The request as it was received, without edits.
    ///
    /// # Panics
    /// When this is a response.
    pub fn received_request(&self) -> &RequestView {
        assert!(self.side == Side::Request);
        // SAFETY: as for `request`; edits leave the original region as the parser built it.
        unsafe { self.slot.request_view(false) }
    }

    /// The response view in force.
    ///
    /// # Panics
    /// When this is a request.
    #[inline]
    pub fn response(&self) -> &ResponseView {
        assert!(self.side == Side::Response);
        // SAFETY: as for `request`; `made_response` writes the root itself.
        unsafe { self.slot.response_view(self.edited) }
    }

    /// The archive that `rkyv::access` accepts: the slot up to the end of the root in force.
    pub fn archive(&self) -> &[u8] {
        let root = match self.side {
            Side::Request => size_of::<RawRequest>(),
            Side::Response => size_of::<RawResponse>(),
        };
        self.slot.bytes(0..self.slot.root_at(self.edited) + root)
    }

    /// Where the message stands as it was before any edit: bytes that were received, or the body of one that was made here; the arena of
    /// the latter; entries with the root. With zeroes between them they are an archive, which ends with the last piece. What else lies in the
    /// pieces is of this message too.
    pub fn original_pieces(&mut self) -> [Range<usize>; 3] {
        let layout = *self.slot.layout();
        let (root_at, entries_at) = (self.slot.root_at(false), self.slot.entries_at(false));
        let place = |field: usize, span: RawSpan| {
            let begin = if span.len == 0 { 0 } else { (field as i64 + i64::from(span.off)) as usize };
            begin..begin + span.len as usize
        };
        let root_place = |offset: usize, span: RawSpan| place(root_at + offset, span);
        let (entries, spans, count, root_bytes) = match self.side {
            Side::Request => {
                let (entries, root) = self.slot.request_region(false);
                let spans: [Range<usize>; 6] = [
                    root_place(offset_of!(RawRequest, body), root.body),
                    root_place(offset_of!(RawRequest, method), root.method),
                    root_place(offset_of!(RawRequest, target), root.target),
                    root_place(offset_of!(RawRequest, path), root.path),
                    root_place(offset_of!(RawRequest, query), root.query),
                    root_place(offset_of!(RawRequest, authority), root.authority),
                ];
                (entries, spans, root.headers.len, size_of::<RawRequest>())
            }
            Side::Response => {
                let (entries, root) = self.slot.response_region(false);
                let mut spans: [Range<usize>; 6] = Default::default();
                spans[0] = root_place(offset_of!(RawResponse, body), root.body);
                spans[1] = root_place(offset_of!(RawResponse, reason), root.reason);
                (entries, spans, root.headers.len, size_of::<RawResponse>())
            }
        };
        let root = entries_at..root_at + root_bytes;
        if self.made {
            return [spans[0].clone(), layout.arena_at()..layout.arena_at() + self.arena_used, root];
        }
        let of_entry = |(index, entry): (usize, &RawHeader)| {
            let at = entries_at + index * size_of::<RawHeader>();
            let name = RawSpan { off: entry.name.off, len: u32::from(entry.name.len) };
            place(at, name).end.max(place(at + offset_of!(RawHeader, value), entry.value).end)
        };
        let ends = entries[..count as usize].iter().enumerate().map(of_entry).chain(spans.iter().map(|span| span.end));
        [0..ends.max().unwrap_or(0).min(layout.receive()), 0..0, root]
    }

    /// Checks a header edit, copies its bytes to the arena and appends it to `staged`. For [`HeaderEdit::Remove`] the
    /// value is ignored.
    ///
    /// # Errors
    /// [`EditFault`]; nothing changed then.
    pub fn stage(&mut self, staged: &mut Staged, names: &NameTable, edit: HeaderEdit, name: &[u8], value: &[u8]) -> Result<(), EditFault> {
        // RFC 9110 §5.5 and HTTP1.md rule 29: what a plugin passes is checked like what the network sends.
        if name.len() > usize::from(u16::MAX) || !is_token(name) || !is_field_value(value) {
            return Err(EditFault::BadBytes);
        }
        let id = names.id(name);
        // HTTP1.md rules 17, 18: what leaves has exactly one Host, and it is a host.
        let is_request_host = self.side == Side::Request && id == HeaderId::HOST.0;
        if is_request_host && edit == HeaderEdit::Set && !is_host(value) {
            return Err(EditFault::BadBytes);
        }
        if belongs_to_gateway(HeaderId(id)) || (is_request_host && edit != HeaderEdit::Set) {
            return Err(EditFault::Forbidden);
        }
        if edit != HeaderEdit::Remove && self.count + self.staged_adds >= self.slot.layout().entries() {
            return Err(EditFault::NoSpace);
        }
        let value = if edit == HeaderEdit::Remove { &[][..] } else { value };
        if self.arena_room() < name.len() + value.len() {
            return Err(EditFault::NoSpace);
        }
        let name_at = self.push_arena(name);
        let value_at = self.push_arena(value);
        let header = EditHeader { id, name_len: name.len() as u16, name_at, value_at, value_len: value.len() as u32 };
        staged.push(match edit {
            HeaderEdit::Set => Edit::Set(header),
            HeaderEdit::Add => Edit::Add(header),
            HeaderEdit::Remove => Edit::Remove(header),
        });
        self.staged_adds += usize::from(edit != HeaderEdit::Remove);
        Ok(())
    }

    /// Checks a new request target (origin-form) and stages it.
    ///
    /// # Errors
    /// [`EditFault`]; nothing changed then.
    pub fn stage_target(&mut self, staged: &mut Staged, target: &[u8]) -> Result<(), EditFault> {
        if self.side != Side::Request {
            return Err(EditFault::WrongSide);
        }
        if !is_origin_form(target) {
            return Err(EditFault::BadBytes);
        }
        if self.arena_room() < target.len() {
            return Err(EditFault::NoSpace);
        }
        let at = self.push_arena(target);
        staged.push(Edit::Target { at, len: target.len() as u32 });
        Ok(())
    }

    /// Stages a new response status, 200 to 599.
    ///
    /// # Errors
    /// [`EditFault`]; nothing changed then.
    pub fn stage_status(&mut self, staged: &mut Staged, status: u32) -> Result<(), EditFault> {
        if self.side != Side::Response {
            return Err(EditFault::WrongSide);
        }
        if !(200..600).contains(&status) {
            return Err(EditFault::BadBytes);
        }
        staged.push(Edit::Status(status as u16));
        Ok(())
    }

    /// How many headers of this name the message holds when the staged edits are applied.
    pub fn count_named(&self, staged: &Staged, name: &[u8]) -> usize {
        let entries = match self.side {
            Side::Request => self.request().entries(),
            Side::Response => self.response().entries(),
        };
        let count = entries.iter().filter(|h| !h.is_removed() && h.name().eq_ignore_ascii_case(name)).count();
        let is_named = |header: &EditHeader| {
            let at = header.name_at as usize;
            self.slot.bytes(at..at + usize::from(header.name_len)).eq_ignore_ascii_case(name)
        };
        staged.iter().fold(count, |count, edit| match edit {
            Edit::Set(header) if is_named(header) => 1,
            Edit::Add(header) if is_named(header) => count + 1,
            Edit::Remove(header) if is_named(header) => 0,
            _ => count,
        })
    }

    /// Makes all staged edits visible, in order, and empties the list.
    pub fn apply(&mut self, staged: &mut Staged) {
        self.staged_adds = 0;
        if staged.is_empty() {
            return;
        }
        if !self.edited && !self.made {
            self.copy_for_edits();
        }
        for edit in staged.drain(..) {
            match edit {
                Edit::Set(header) => self.set(header),
                Edit::Add(header) => self.add(header),
                Edit::Remove(header) => {
                    self.remove(header, 0);
                }
                Edit::Target { at, len } => self.set_target(at, len),
                Edit::Status(status) => self.set_status(status),
            }
        }
    }

    /// Forgets the staged edits: the hook failed.
    pub fn discard(&mut self, staged: &mut Staged) {
        self.staged_adds = 0;
        staged.clear();
    }

    fn arena_room(&self) -> usize {
        self.slot.layout().arena() - self.arena_used
    }

    /// The caller has checked that there is room.
    fn push_arena(&mut self, bytes: &[u8]) -> u32 {
        let at = self.slot.layout().arena_at() + self.arena_used;
        self.slot.bytes_mut(at..at + bytes.len()).copy_from_slice(bytes);
        self.arena_used += bytes.len();
        at as u32
    }

    /// DESIGN P4: entries and root are copied once; their relative pointers are moved with them.
    fn copy_for_edits(&mut self) {
        self.slot.copy_to_edited(self.count);
        let entries_shift = (self.slot.entries_at(false) - self.slot.entries_at(true)) as i32;
        let root_shift = (self.slot.root_at(false) - self.slot.root_at(true)) as i32;
        let entries = match self.side {
            Side::Request => {
                let (entries, root) = self.slot.request_region(true);
                for span in [&mut root.method, &mut root.target, &mut root.path, &mut root.query, &mut root.authority, &mut root.body] {
                    span.off += root_shift;
                }
                root.headers.off += root_shift - entries_shift;
                entries
            }
            Side::Response => {
                let (entries, root) = self.slot.response_region(true);
                for span in [&mut root.reason, &mut root.body] {
                    span.off += root_shift;
                }
                root.headers.off += root_shift - entries_shift;
                entries
            }
        };
        for entry in &mut entries[..self.count] {
            entry.name.off += entries_shift;
            entry.value.off += entries_shift;
        }
        self.edited = true;
    }

    /// The entries in force, the index over them, and where they begin in the slot.
    fn index(&mut self) -> (&mut [RawHeader], Index<'_>, usize) {
        let entries_at = self.slot.entries_at(self.edited);
        match self.side {
            Side::Request => {
                let (entries, root) = self.slot.request_region(self.edited);
                let index = Index { known: &mut root.known, mask: &mut root.known_mask, count: &mut root.headers.len, edits: &mut root.edits };
                (entries, index, entries_at)
            }
            Side::Response => {
                let (entries, root) = self.slot.response_region(self.edited);
                let index = Index { known: &mut root.known, mask: &mut root.known_mask, count: &mut root.headers.len, edits: &mut root.edits };
                (entries, index, entries_at)
            }
        }
    }

    /// The first entry of the name, looked up by id when it has one.
    fn find(&mut self, header: EditHeader) -> Option<usize> {
        if header.id != 0 {
            let (_, index, _) = self.index();
            return usize::from(index.known[usize::from(header.id)]).checked_sub(1);
        }
        let name = header.name_at as usize..header.name_at as usize + usize::from(header.name_len);
        let entries = match self.side {
            Side::Request => self.request().entries(),
            Side::Response => self.response().entries(),
        };
        let name = self.slot.bytes(name);
        entries.iter().position(|h| !h.is_removed() && h.name().eq_ignore_ascii_case(name))
    }

    fn set(&mut self, header: EditHeader) {
        let Some(first) = self.find(header) else { return self.add(header) };
        self.remove(header, first + 1);
        let (entries, index, entries_at) = self.index();
        let value_field = entries_at + first * size_of::<RawHeader>() + offset_of!(RawHeader, value);
        entries[first].value = RawSpan { off: header.value_at as i32 - value_field as i32, len: header.value_len };
        *index.edits += 1;
        self.follow_host(header);
    }

    fn add(&mut self, header: EditHeader) {
        let at = self.count;
        let (entries, index, entries_at) = self.index();
        let entry_at = entries_at + at * size_of::<RawHeader>();
        let value_field = entry_at + offset_of!(RawHeader, value);
        entries[at] = RawHeader {
            name: RawNameSpan { off: header.name_at as i32 - entry_at as i32, len: header.name_len, id: header.id },
            value: RawSpan { off: header.value_at as i32 - value_field as i32, len: header.value_len },
        };
        *index.count = at as u32 + 1;
        *index.edits += 1;
        let id = usize::from(header.id);
        if id != 0 && index.known[id] == 0 {
            index.known[id] = at as u8 + 1;
            *index.mask |= 1 << id;
        }
        self.count += 1;
        self.follow_host(header);
    }

    /// Removes the headers of the name from entry `from` on.
    fn remove(&mut self, header: EditHeader, from: usize) {
        let count = self.count;
        let name_at = header.name_at as usize;
        for at in from..count {
            let entries = match self.side {
                Side::Request => self.request().entries(),
                Side::Response => self.response().entries(),
            };
            let name = self.slot.bytes(name_at..name_at + usize::from(header.name_len));
            if entries[at].is_removed() || !entries[at].name().eq_ignore_ascii_case(name) {
                continue;
            }
            let (entries, index, _) = self.index();
            entries[at] = RawHeader { name: RawNameSpan { off: 0, len: 0, id: HEADER_ID_REMOVED }, value: RawSpan::default() };
            *index.edits += 1;
            let id = usize::from(header.id);
            if id != 0 && usize::from(index.known[id]) == at + 1 {
                index.known[id] = 0;
                *index.mask &= !(1 << id);
            }
        }
    }

    /// The authority of a request that was not in absolute-form is its Host.
    fn follow_host(&mut self, header: EditHeader) {
        if self.side != Side::Request || header.id != HeaderId::HOST.0 {
            return;
        }
        let root_at = self.slot.root_at(self.edited);
        let (_, root) = self.slot.request_region(self.edited);
        if root.flags & ringway_abi::view::REQ_ABSOLUTE_TARGET == 0 {
            let field = root_at + offset_of!(RawRequest, authority);
            root.authority = RawSpan { off: header.value_at as i32 - field as i32, len: header.value_len };
        }
    }

    fn set_target(&mut self, at: u32, len: u32) {
        let root_at = self.slot.root_at(self.edited);
        let question = self.slot.bytes(at as usize..(at + len) as usize).iter().position(|b| *b == b'?').map(|p| p as u32);
        let (_, root) = self.slot.request_region(self.edited);
        let span = |field: usize, from: u32, len: u32| RawSpan { off: from as i32 - (root_at + field) as i32, len };
        root.target = span(offset_of!(RawRequest, target), at, len);
        root.path = span(offset_of!(RawRequest, path), at, question.unwrap_or(len));
        root.query = match question {
            Some(mark) => span(offset_of!(RawRequest, query), at + mark + 1, len - mark - 1),
            None => RawSpan::default(),
        };
        root.edits += 1;
    }

    fn set_status(&mut self, status: u16) {
        let (_, root) = self.slot.response_region(self.edited);
        root.status = status;
        // The phrase belonged to the old status.
        root.reason = RawSpan::default();
        root.edits += 1;
    }

    /// Fills what only the gateway knows about a parsed request.
    pub fn set_request_facts(&mut self, fill: impl FnOnce(&mut RawRequest)) {
        debug_assert!(self.side == Side::Request);
        fill(self.slot.request_region(self.edited).1);
    }

    /// Fills what only the gateway knows about a response.
    pub fn set_response_facts(&mut self, fill: impl FnOnce(&mut RawResponse)) {
        debug_assert!(self.side == Side::Response);
        fill(self.slot.response_region(self.edited).1);
    }

    /// Points the body span of the view in force at bytes `at..at + len` of the slot.
    pub fn set_body_span(&mut self, at: usize, len: usize) {
        let root_at = self.slot.root_at(self.edited);
        let span = |field: usize| RawSpan { off: at as i32 - (root_at + field) as i32, len: len as u32 };
        match self.side {
            Side::Request => self.slot.request_region(self.edited).1.body = span(offset_of!(RawRequest, body)),
            Side::Response => self.slot.response_region(self.edited).1.body = span(offset_of!(RawResponse, body)),
        }
    }
}

/// What an edit of the headers has to keep true in the root.
struct Index<'a> {
    known: &'a mut [u8; 64],
    mask: &'a mut u64,
    count: &'a mut u32,
    edits: &'a mut u32,
}

/// RFC 9112 §3.2: origin-form; the same bytes that the parser accepts.
pub(crate) fn is_origin_form(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && target.iter().all(|b| (0x21..=0x7e).contains(b) && *b != b'#')
}

/// Framing and connection fields are the gateway's: a plugin that could set them could split messages.
pub(crate) fn belongs_to_gateway(id: HeaderId) -> bool {
    matches!(
        id,
        HeaderId::CONTENT_LENGTH
            | HeaderId::TRANSFER_ENCODING
            | HeaderId::CONNECTION
            | HeaderId::KEEP_ALIVE
            | HeaderId::PROXY_CONNECTION
            | HeaderId::TE
            | HeaderId::TRAILER
            | HeaderId::UPGRADE
            | HeaderId::HTTP2_SETTINGS
    )
}
