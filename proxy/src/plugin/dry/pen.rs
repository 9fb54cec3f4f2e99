//! Guarded memory for a dry run: each piece ends where a page ends that nobody may touch.
//!
//! Owns one reserved region. A piece is handed out once and never again in the same exchange; what an exchange used becomes
//! untouchable when it ends, so that a pointer which a plugin kept leads to a fault with a name. Must not: know hooks.
//!
//! Invariants: pieces lie one above the other, each with an untouchable page behind it, all less than 2 GiB apart;
//! [`explain`] reads only atomics, so that a signal handler may call it.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};

/// Bytes of the region: some hundred times what the largest frame needs.
const REGION_BYTES: usize = 256 << 20;
/// Pieces of one exchange that a fault can be explained by; later ones fault too, without a name.
const PIECES_MAX: usize = 8192;
/// What stands in bytes that belong to nobody.
const CANARY: u8 = 0xa5;

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Bytes, entries or root of the request view.
    Request = 1,
    /// The same of the response view.
    Response = 2,
    /// The struct that a hook was called with.
    Event = 3,
    /// The bytes of a chunk.
    Chunk = 4,
    /// Scratch memory.
    Scratch = 5,
    /// From `alloc`.
    Alloc = 6,
    /// From `resp_reserve`.
    Reserved = 7,
    /// A piece of a hook that has returned.
    Past = 8,
}

const KINDS: [Kind; 8] = [Kind::Request, Kind::Response, Kind::Event, Kind::Chunk, Kind::Scratch, Kind::Alloc, Kind::Reserved, Kind::Past];

impl Kind {
    /// Its name, for sentences.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Request => "the request view",
            Kind::Response => "the response view",
            Kind::Event => "the event of the hook",
            Kind::Chunk => "the bytes of the chunk",
            Kind::Scratch => "its scratch memory",
            Kind::Alloc => "memory from `alloc`",
            Kind::Reserved => "memory from `resp_reserve`",
            Kind::Past => "memory of a hook that has returned",
        }
    }

    fn is_read_only(self) -> bool {
        matches!(self, Kind::Request | Kind::Response | Kind::Event | Kind::Chunk)
    }
}

/// What an address that faulted is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Inside of a piece that is read only.
    Inside(Kind),
    /// So many bytes behind the last one of a piece.
    Behind(Kind, usize),
    /// Of an exchange or a hook that is over.
    Past,
    /// Nothing that the dry run gave out.
    Elsewhere,
}

struct Entry {
    from: AtomicUsize,
    end: AtomicUsize,
    kind: AtomicU32,
}

static ENTRIES: [Entry; PIECES_MAX] = [const { Entry { from: AtomicUsize::new(0), end: AtomicUsize::new(0), kind: AtomicU32::new(0) } }; PIECES_MAX];
static ENTRY_COUNT: AtomicUsize = AtomicUsize::new(0);
static REGION_AT: AtomicUsize = AtomicUsize::new(0);

/// What `address` is. Safe in a signal handler.
pub(super) fn explain(address: usize) -> Place {
    let region = REGION_AT.load(Ordering::Relaxed);
    if region == 0 || !(region..region + REGION_BYTES).contains(&address) {
        return Place::Elsewhere;
    }
    let count = ENTRY_COUNT.load(Ordering::Relaxed).min(PIECES_MAX);
    // The piece that begins last at or below the address: behind it comes its untouchable page.
    let nearest = ENTRIES[..count].iter().filter(|entry| entry.from.load(Ordering::Relaxed) <= address).max_by_key(|entry| entry.from.load(Ordering::Relaxed));
    let Some(entry) = nearest else { return Place::Past };
    let end = entry.end.load(Ordering::Relaxed);
    let Some(kind) = KINDS.iter().find(|kind| **kind as u32 == entry.kind.load(Ordering::Relaxed)) else { return Place::Past };
    match (kind, address < end) {
        (Kind::Past, _) => Place::Past,
        (kind, true) => Place::Inside(*kind),
        (kind, false) => Place::Behind(*kind, address - end),
    }
}

/// A piece: its bytes, the pages around them, and where it stands in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Its first byte.
    pub(super) at: *mut u8,
    /// Its bytes.
    pub(super) len: usize,
    pages_at: usize,
    pages_bytes: usize,
    entry: usize,
}

impl Piece {
    /// Bytes of the same page before the piece.
    fn slack(&self) -> usize {
        self.at.addr() - self.pages_at
    }
}

/// The region.
pub(super) struct Pen {
    region: *mut u8,
    page: usize,
    /// Bytes handed out since the last wrap.
    used: usize,
    /// Where the exchange at hand begins.
    exchange_at: usize,
}

impl Pen {
    /// Reserves the region. One per process: [`explain`] knows one.
    pub(super) fn new() -> io::Result<Pen> {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let region = unsafe { mm::mmap_anonymous(ptr::null_mut(), REGION_BYTES, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE) }?;
        REGION_AT.store(region.addr(), Ordering::Relaxed);
        Ok(Pen { region: region.cast(), page: rustix::param::page_size(), used: 0, exchange_at: 0 })
    }

    /// A writable piece of zeroes, aligned to `align` (a power of two, at most 16). Its end is the end of a page, but for what the
    /// alignment takes.
    pub(super) fn piece(&mut self, kind: Kind, len: usize, align: usize) -> io::Result<Piece> {
        let pages_bytes = len.max(1).next_multiple_of(self.page);
        if self.used + pages_bytes + self.page > REGION_BYTES {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the frame needs more guarded memory than there is"));
        }
        let pages_at = self.region.addr() + self.used;
        self.used += pages_bytes + self.page;
        let at = (pages_at + pages_bytes - len) & !(align - 1);
        let entry = ENTRY_COUNT.load(Ordering::Relaxed);
        if let Some(slot) = ENTRIES.get(entry) {
            slot.from.store(pages_at, Ordering::Relaxed);
            slot.end.store(at + len, Ordering::Relaxed);
            slot.kind.store(kind as u32, Ordering::Relaxed);
            ENTRY_COUNT.store(entry + 1, Ordering::Relaxed);
        }
        let piece = Piece { at: self.region.with_addr(at), len, pages_at, pages_bytes, entry };
        self.protect(&piece, MprotectFlags::READ | MprotectFlags::WRITE)?;
        if !kind.is_read_only() {
            // SAFETY: the pages of the piece are writable now and nobody else has their address yet.
            unsafe { ptr::write_bytes(self.region.with_addr(pages_at), CANARY, pages_bytes) };
            // SAFETY: as above.
            unsafe { ptr::write_bytes(piece.at, 0, len) };
        }
        Ok(piece)
    }

    /// A read-only piece with this content.
    pub(super) fn keep(&mut self, kind: Kind, content: &[u8], align: usize) -> io::Result<Piece> {
        let piece = self.piece(kind, content.len(), align)?;
        self.fill(&piece, content)?;
        Ok(piece)
    }

    /// Writes the content of a read-only piece, as long as the piece, and protects it.
    pub(super) fn fill(&mut self, piece: &Piece, content: &[u8]) -> io::Result<()> {
        assert_eq!(content.len(), piece.len);
        // SAFETY: the piece has this many writable bytes (checked), and the content lies elsewhere.
        unsafe { ptr::copy_nonoverlapping(content.as_ptr(), piece.at, content.len()) };
        self.protect(piece, MprotectFlags::READ)
    }

    /// Whether the bytes around a writable piece are as they were.
    pub(super) fn is_intact(&self, piece: &Piece) -> bool {
        // SAFETY: the pages of the piece are readable until it is retired, and the running hook has returned.
        let pages = unsafe { std::slice::from_raw_parts(self.region.with_addr(piece.pages_at), piece.pages_bytes) };
        pages[..piece.slack()].iter().chain(&pages[piece.slack() + piece.len..]).all(|byte| *byte == CANARY)
    }

    /// The first `len` bytes of a piece that is readable.
    pub(super) fn bytes(&self, piece: &Piece, len: usize) -> &[u8] {
        // SAFETY: `len` is cut to the piece, which is readable until it is retired; the plugin does not run meanwhile.
        unsafe { std::slice::from_raw_parts(piece.at, len.min(piece.len)) }
    }

    /// Nobody may touch the piece any more.
    pub(super) fn retire(&mut self, piece: &Piece) {
        if let Some(entry) = ENTRIES.get(piece.entry) {
            entry.kind.store(Kind::Past as u32, Ordering::Relaxed);
        }
        // A piece that stays readable only finds fewer mistakes.
        let _ = self.protect(piece, MprotectFlags::empty());
    }

    /// The exchange is over: so are all its pieces.
    pub(super) fn retire_all(&mut self) {
        ENTRY_COUNT.store(0, Ordering::Relaxed);
        let bytes = self.used - self.exchange_at;
        if bytes > 0 {
            let at = self.region.wrapping_add(self.exchange_at).cast();
            // SAFETY: whole pages of the region, whose addresses only a plugin that kept them still has.
            let _ = unsafe { mm::mprotect(at, bytes, MprotectFlags::empty()) };
            // SAFETY: as above; what stands in them is not needed again.
            let _ = unsafe { mm::madvise(at, bytes, Advice::LinuxDontNeed) };
        }
        // The region is used again from its start when half of it is gone: kept pointers are found for as long as possible.
        self.exchange_at = if self.used > REGION_BYTES / 2 { 0 } else { self.used };
        self.used = self.exchange_at;
    }

    fn protect(&self, piece: &Piece, flags: MprotectFlags) -> io::Result<()> {
        // SAFETY: whole pages of the region that belong to this piece alone.
        unsafe { mm::mprotect(self.region.with_addr(piece.pages_at).cast(), piece.pages_bytes, flags) }?;
        Ok(())
    }
}
