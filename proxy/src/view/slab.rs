//! The slab of one worker: one anonymous mapping, cut into slots of one message each.
//!
//! Owns: the mapping, the free list, the reference count of every slot. Must not: know HTTP.
//!
//! A slot is `[receive | pad | out | arena | edited entries | edited root | entries | root | scratch]`. Roots stand above
//! everything they point to, because rkyv's validation only follows pointers to lower addresses (DESIGN §3). `out` holds
//! the outgoing form of the message, `scratch` what plugins of the exchange asked for.
//!
//! Invariants:
//! - `len(mapping) < 2 GiB`, so that any relative pointer inside it fits an `i32`;
//! - a slot is on the free list exactly when its reference count is 0;
//! - the mapping lives as long as any slot: every slot holds the slab alive;
//! - everything here is used by one thread (`Slab` and `Slot` are `!Send`), and no reference into a slot is kept across
//!   a call that writes the same region. The kernel writes only receive bytes behind what is filled, or an out area that
//!   serves as a relay buffer, through a [`Buf`] that keeps the slot alive until its completion, and reads only bytes that nobody
//!   changes meanwhile. An operation that was given up may be pending in the slot still: nothing is read from it or laid
//!   out in it after that, and its connection ends.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};
use ringway_abi::raw::{RawHeader, RawRequest, RawResponse};
use ringway_abi::{RequestView, ResponseView};

/// Readable bytes that stand behind the receive area, for vector loads of the parser.
pub const PAD_BYTES: usize = 64;
/// Room for either root.
const ROOT_BYTES: usize = size_of::<RawRequest>();
/// The slab stays below this, so that relative pointers fit.
const SLAB_BYTES_MAX: usize = i32::MAX as usize;
/// Slots begin this many bytes further into a page than their neighbour, so that their roots do not share cache sets.
const COLOUR_BYTES: usize = 192;

const _: () = assert!(size_of::<RawResponse>() <= ROOT_BYTES);

/// The sizes of a slot's regions, in bytes; the same for every slot of a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLayout {
    receive: usize,
    out: usize,
    arena: usize,
    entries: usize,
    scratch: usize,
    out_at: usize,
    arena_at: usize,
    edited_entries_at: usize,
    edited_root_at: usize,
    entries_at: usize,
    root_at: usize,
    scratch_at: usize,
    stride: usize,
}

impl SlotLayout {
    /// `receive`, `out`, `arena`, `scratch` in bytes; `entries` is the number of headers a message may have, edits included.
    pub fn new(receive: usize, out: usize, arena: usize, entries: usize, scratch: usize) -> Self {
        let align = |at: usize| at.next_multiple_of(64);
        let receive = align(receive);
        let out_at = align(receive + PAD_BYTES);
        let arena_at = align(out_at + out);
        let edited_entries_at = align(arena_at + arena);
        let edited_root_at = edited_entries_at + entries * size_of::<RawHeader>();
        let edited_root_at = edited_root_at.next_multiple_of(8);
        let entries_at = align(edited_root_at + ROOT_BYTES);
        let root_at = (entries_at + entries * size_of::<RawHeader>()).next_multiple_of(8);
        let scratch_at = align(root_at + ROOT_BYTES);
        let stride = align(scratch_at + scratch) + COLOUR_BYTES;
        SlotLayout { receive, out, arena, entries, scratch, out_at, arena_at, edited_entries_at, edited_root_at, entries_at, root_at, scratch_at, stride }
    }

    /// Bytes from one slot to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes of the receive area.
    pub fn receive(&self) -> usize {
        self.receive
    }

    /// Bytes of the out area.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Where the out area begins.
    pub fn out_at(&self) -> usize {
        self.out_at
    }

    /// Where the edit arena begins.
    pub fn arena_at(&self) -> usize {
        self.arena_at
    }

    /// Bytes of the edit arena.
    pub fn arena(&self) -> usize {
        self.arena
    }

    /// Headers a message may have, edits included.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of plugin scratch.
    pub fn scratch(&self) -> usize {
        self.scratch
    }
}

/// The memory of one worker.
#[derive(Clone)]
pub struct Slab {
    shared: Rc<Shared>,
}

struct Shared {
    layout: SlotLayout,
    base: *mut u8,
    slots: u32,
    references: Box<[Cell<u32>]>,
    /// Free slots, the most recently used last: handed out LIFO, so that they are warm.
    free: UnsafeCell<Vec<u32>>,
    /// Slots that were never used; handed out after `free`, in order of address.
    fresh: Cell<u32>,
    cold: Cold,
    /// Memory is given back in whole units of so many bytes, by address: pages.
    unit_bytes: usize,
    mapping: MmapMut,
}

/// Which free slots have not been used for a while: the first of the free list. `released <= end` after [`Cold::clip`], and
/// entries below `end` have lain where they are since the last mark.
#[derive(Default)]
struct Cold {
    /// The shortest that the free list has been since the last mark.
    shortest: Cell<usize>,
    /// How many from the beginning of the list are cold.
    end: Cell<usize>,
    /// How many from the beginning of the list hold no memory any more.
    released: Cell<usize>,
}

impl Cold {
    /// What has been taken since is not cold, and holds memory.
    fn clip(&self) {
        self.end.set(self.end.get().min(self.shortest.get()));
        self.released.set(self.released.get().min(self.end.get()));
    }
}

/// Free slots that keep their memory however long they are unused: the next burst finds them warm.
pub const WARM_SLOTS: usize = 32;
/// Slots whose memory one call gives back: some 6 MB, about a millisecond.
const RELEASE_BATCH: usize = 128;
/// The smallest page.
const PAGE_BYTES: usize = 4096;
/// A huge page. The kernel fills a huge page of which a part is in use again, whatever was given back of it.
const HUGE_PAGE_BYTES: usize = 2 << 20;

impl Slab {
    /// A slab of `slots` slots; memory is reserved, and touched only as slots are used.
    ///
    /// # Errors
    /// When the mapping would reach 2 GiB or the kernel refuses it.
    pub fn new(layout: SlotLayout, slots: u32, huge_pages: bool) -> io::Result<Slab> {
        let bytes = layout.stride.checked_mul(slots as usize).filter(|b| *b > 0 && *b < SLAB_BYTES_MAX);
        let Some(bytes) = bytes else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{slots} slots of {} bytes do not fit in the 2 GiB that one worker can address; lower limits.slots, limits.outcalls or limits.head_bytes",
                    layout.stride
                ),
            ));
        };
        let mut mapping = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        if huge_pages {
            // Advice only: without transparent huge pages everything works, a little slower.
            let _ = mapping.advise(memmap2::Advice::HugePage);
        }
        let base = mapping.as_mut_ptr();
        let unit_bytes = if huge_pages { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        let references = (0..slots).map(|_| Cell::new(0)).collect();
        let free = UnsafeCell::new(Vec::with_capacity(slots as usize));
        Ok(Slab { shared: Rc::new(Shared { layout, base, slots, references, free, fresh: Cell::new(0), cold: Cold::default(), unit_bytes, mapping }) })
    }

    /// A free slot, or `None` when all are in use. Its bytes are what the last user left, or zero.
    #[inline]
    pub fn take(&self) -> Option<Slot> {
        let shared = &self.shared;
        // SAFETY: one thread, and no reference to the list outlives this block.
        let free = unsafe { &mut *shared.free.get() };
        let index = match free.pop() {
            Some(index) => {
                if free.len() < shared.cold.shortest.get() {
                    shared.cold.shortest.set(free.len());
                }
                index
            }
            None => {
                let index = shared.fresh.get();
                if index == shared.slots {
                    return None;
                }
                shared.fresh.set(index + 1);
                index
            }
        };
        shared.references[index as usize].set(1);
        // SAFETY: `index < slots`, so the slot lies in the mapping.
        let base = unsafe { shared.base.add(index as usize * shared.layout.stride) };
        Some(Slot { base, index, shared: Rc::clone(shared) })
    }

    /// Slots in all.
    pub fn slots(&self) -> usize {
        self.shared.slots as usize
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        // SAFETY: one thread, and the reference ends here.
        let free = unsafe { &*self.shared.free.get() }.len();
        self.shared.fresh.get() as usize - free
    }

    /// Begins a new period: as many slots as were free all through the last one are cold, except [`WARM_SLOTS`]. Those with the highest
    /// addresses are: what is in use gathers at the low end, so that whole pages become cold.
    pub fn mark_cold(&self) {
        let cold = &self.shared.cold;
        cold.clip();
        // SAFETY: one thread, and no reference to the list outlives this function.
        let free = unsafe { &mut *self.shared.free.get() };
        let end = cold.shortest.get().min(free.len()).saturating_sub(WARM_SLOTS).max(cold.released.get());
        if end > cold.released.get() {
            free[cold.released.get()..].sort_unstable_by(|a, b| b.cmp(a));
        }
        cold.end.set(end);
        cold.shortest.set(free.len());
    }

    /// Gives the memory of some cold slots back to the system; called often, so that each call is short. A slot that is used
    /// again reads as zero, like one that was never used. Whether there was anything to give back.
    pub fn release_some(&self) -> bool {
        let cold = &self.shared.cold;
        cold.clip();
        let (from, to) = (cold.released.get(), cold.end.get().min(cold.released.get() + RELEASE_BATCH));
        // SAFETY: one thread, and no reference to the list outlives this function.
        let free = unsafe { &*self.shared.free.get() };
        let mut at = from;
        while at < to {
            let mut last = at;
            while last + 1 < to && free[last + 1] + 1 == free[last] {
                last += 1;
            }
            // Neighbours that were released before this call complete the unit that the run begins in.
            let mut first = at;
            while first > 0 && (at - first) * self.shared.layout.stride < self.shared.unit_bytes && free[first - 1] == free[first] + 1 {
                first -= 1;
            }
            self.give_back(free[last]..free[first] + 1);
            at = last + 1;
        }
        cold.released.set(to.max(from));
        from < to
    }

    /// Gives back the memory of these slots, all of which are cold. Units that they share with other slots stay.
    fn give_back(&self, slots: Range<u32>) {
        let shared = &self.shared;
        let (stride, unit, origin) = (shared.layout.stride, shared.unit_bytes, shared.base.addr());
        // Slots that were never handed out are in nobody's use either.
        let above = if slots.end == shared.fresh.get() { shared.slots } else { slots.end };
        // Beyond the ends of the slab there is nobody to share a unit with.
        let (first_unit, last_unit) = (if slots.start == 0 { PAGE_BYTES } else { unit }, if above == shared.slots { PAGE_BYTES } else { unit });
        let begin = (origin + slots.start as usize * stride).next_multiple_of(first_unit) - origin;
        let end = ((origin + above as usize * stride) / last_unit * last_unit).saturating_sub(origin);
        if begin < end {
            // SAFETY: whole pages of the mapping (`end` is at most the end of the last slot), all of slots that are on the free list
            // or were never handed out: nobody refers to them and no operation is pending on them. They read as zeroes afterwards,
            // which `take` allows.
            let _ = unsafe { shared.mapping.unchecked_advise_range(UncheckedAdvice::DontNeed, begin, end - begin) };
        }
    }

    /// The sizes of a slot's regions.
    pub fn layout(&self) -> &SlotLayout {
        &self.shared.layout
    }

    /// Bytes that have been touched at most.
    pub fn touched_bytes(&self) -> usize {
        self.shared.fresh.get() as usize * self.shared.layout.stride
    }
}

/// One message's piece of the slab. Cloning shares it; the last clone returns it to the free list.
pub struct Slot {
    base: *mut u8,
    index: u32,
    shared: Rc<Shared>,
}

impl Clone for Slot {
    #[inline]
    fn clone(&self) -> Self {
        let references = &self.shared.references[self.index as usize];
        // Handles that were leaked without end must not make a slot look free.
        references.set(references.get().checked_add(1).expect("fewer handles than there can be in memory"));
        Slot { base: self.base, index: self.index, shared: Rc::clone(&self.shared) }
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        let references = &self.shared.references[self.index as usize];
        references.set(references.get() - 1);
        if references.get() == 0 {
            // SAFETY: one thread, and no reference to the list outlives this statement. Its capacity is all slots.
            unsafe { &mut *self.shared.free.get() }.push(self.index);
        }
    }
}

impl Slot {
    /// The sizes of the regions.
    #[inline]
    pub fn layout(&self) -> &SlotLayout {
        &self.shared.layout
    }

    /// Bytes `range` of the slot, counted from its beginning.
    ///
    /// # Panics
    /// When the range leaves the slot.
    #[inline]
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.shared.layout.stride);
        // SAFETY: inside the slot (checked) and initialized (the mapping began as zeroes). The module's invariants keep
        // writers of this region away while the reference lives.
        unsafe { std::slice::from_raw_parts(self.base.add(range.start), range.end - range.start) }
    }

    /// Bytes `range` of the slot for writing. `&mut self` is on one handle only; see the module's invariants.
    ///
    /// # Panics
    /// When the range leaves the slot.
    #[inline]
    pub fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.shared.layout.stride);
        // SAFETY: inside the slot (checked); nobody else refers to this region now (module invariants).
        unsafe { std::slice::from_raw_parts_mut(self.base.add(range.start), range.end - range.start) }
    }

    /// The address of a byte of the slot; for relative pointers and for the kernel.
    #[inline]
    pub fn address(&self, at: usize) -> *mut u8 {
        debug_assert!(at <= self.shared.layout.stride);
        self.base.wrapping_add(at)
    }

    /// What the request parser reads and writes: the receive area with its pad, the entries, the root.
    #[inline]
    pub fn request_parts(&mut self) -> (&[u8], &mut [RawHeader], &mut RawRequest) {
        let layout = self.shared.layout;
        // SAFETY: three disjoint regions of the slot, aligned by the layout; plain words, so any bytes are valid.
        unsafe {
            (
                std::slice::from_raw_parts(self.base, layout.receive + PAD_BYTES),
                std::slice::from_raw_parts_mut(self.base.add(layout.entries_at).cast(), layout.entries),
                &mut *self.base.add(layout.root_at).cast::<RawRequest>(),
            )
        }
    }

    /// The same for a response.
    #[inline]
    pub fn response_parts(&mut self) -> (&[u8], &mut [RawHeader], &mut RawResponse) {
        let layout = self.shared.layout;
        // SAFETY: as for `request_parts`.
        unsafe {
            (
                std::slice::from_raw_parts(self.base, layout.receive + PAD_BYTES),
                std::slice::from_raw_parts_mut(self.base.add(layout.entries_at).cast(), layout.entries),
                &mut *self.base.add(layout.root_at).cast::<RawResponse>(),
            )
        }
    }

    /// Entries and root of a request: the original ones, or those that edits work on.
    #[inline]
    pub(super) fn request_region(&mut self, edited: bool) -> (&mut [RawHeader], &mut RawRequest) {
        let (entries_at, root_at) = (self.entries_at(edited), self.root_at(edited));
        // SAFETY: two disjoint regions of the slot, aligned by the layout; plain words, so any bytes are valid.
        unsafe {
            (std::slice::from_raw_parts_mut(self.base.add(entries_at).cast(), self.shared.layout.entries), &mut *self.base.add(root_at).cast::<RawRequest>())
        }
    }

    /// The same for a response.
    #[inline]
    pub(super) fn response_region(&mut self, edited: bool) -> (&mut [RawHeader], &mut RawResponse) {
        let (entries_at, root_at) = (self.entries_at(edited), self.root_at(edited));
        // SAFETY: as for `request_region`.
        unsafe {
            (std::slice::from_raw_parts_mut(self.base.add(entries_at).cast(), self.shared.layout.entries), &mut *self.base.add(root_at).cast::<RawResponse>())
        }
    }

    /// Copies the first `count` original entries and the root to the edited region, as they are: relative pointers
    /// have to be corrected by the distance afterwards.
    ///
    /// # Panics
    /// When there is no room for `count` entries.
    #[inline]
    pub(super) fn copy_to_edited(&mut self, count: usize) {
        let layout = &self.shared.layout;
        assert!(count <= layout.entries);
        let bytes = count * size_of::<RawHeader>();
        // SAFETY: two regions of the slot that do not overlap, with room for `count` entries (checked).
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(layout.entries_at), self.base.add(layout.edited_entries_at), bytes) };
        // SAFETY: two regions of the slot that do not overlap, with room for a root.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(layout.root_at), self.base.add(layout.edited_root_at), ROOT_BYTES) };
    }

    /// Where the entries begin.
    #[inline]
    pub fn entries_at(&self, edited: bool) -> usize {
        if edited { self.shared.layout.edited_entries_at } else { self.shared.layout.entries_at }
    }

    /// Where the root of the view in force begins.
    #[inline]
    pub fn root_at(&self, edited: bool) -> usize {
        if edited { self.shared.layout.edited_root_at } else { self.shared.layout.root_at }
    }

    /// The request view of this slot.
    ///
    /// # Safety
    /// The slot holds a request root in that place, built by the parser or by an edit, and its spans lie in the slot.
    #[inline]
    pub unsafe fn request_view(&self, edited: bool) -> &RequestView {
        // SAFETY: aligned by the layout, readable, and built (the caller's promise).
        unsafe { &*self.base.add(self.root_at(edited)).cast::<RequestView>() }
    }

    /// The response view of this slot.
    ///
    /// # Safety
    /// As for [`Slot::request_view`], for a response root.
    #[inline]
    pub unsafe fn response_view(&self, edited: bool) -> &ResponseView {
        // SAFETY: aligned by the layout, readable, and built (the caller's promise).
        unsafe { &*self.base.add(self.root_at(edited)).cast::<ResponseView>() }
    }

    /// The scratch area, for writing.
    #[inline]
    pub fn scratch_mut(&mut self) -> &mut [u8] {
        let at = self.shared.layout.scratch_at;
        let end = at + self.shared.layout.scratch;
        self.bytes_mut(at..end)
    }

    /// The scratch area of the exchange's plugins.
    #[inline]
    pub fn scratch(&self) -> *mut u8 {
        self.address(self.shared.layout.scratch_at)
    }
}

/// Memory of an input or output operation: it belongs to the kernel until the operation completes, and keeps what it
/// stands in alive even when nobody waits for the operation any more.
///
/// A `Buf` has a region, fixed when it is made, and a range in it, which is what an operation reads or fills.
/// Invariant: `start <= end <= region`.
pub struct Buf {
    owner: Owner,
    base: usize,
    region: usize,
    start: usize,
    end: usize,
}

enum Owner {
    Slot(Slot),
    Heap(Vec<u8>, Option<Ticket>),
}

/// The right to one buffer of a bounded pool; given back when dropped, wherever that happens.
pub struct Ticket(Rc<Cell<usize>>);

impl Ticket {
    /// Takes one of what is left.
    pub fn take(left: &Rc<Cell<usize>>) -> Option<Ticket> {
        let count = left.get().checked_sub(1)?;
        left.set(count);
        Some(Ticket(Rc::clone(left)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Buf {
    /// The region is bytes `region` of a slot, counted from the slot's beginning; the range is all of it.
    ///
    /// # Panics
    /// When the region leaves the slot.
    #[inline]
    pub fn slot(slot: Slot, region: Range<usize>) -> Buf {
        assert!(region.start <= region.end && region.end <= slot.shared.layout.stride);
        let bytes = region.end - region.start;
        Buf { owner: Owner::Slot(slot), base: region.start, region: bytes, start: 0, end: bytes }
    }

    /// The region is a whole heap buffer, by its length.
    #[inline]
    pub fn heap(bytes: Vec<u8>, ticket: Option<Ticket>) -> Buf {
        let region = bytes.len();
        Buf { owner: Owner::Heap(bytes, ticket), base: 0, region, start: 0, end: region }
    }

    /// Sets the range, counted from the beginning of the region.
    ///
    /// # Panics
    /// When the range leaves the region.
    #[inline]
    pub fn narrow(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.region);
        self.start = range.start;
        self.end = range.end;
    }

    /// The same buffer with this range.
    ///
    /// # Panics
    /// When the range leaves the region.
    #[inline]
    pub fn narrowed(mut self, range: Range<usize>) -> Buf {
        self.narrow(range);
        self
    }

    /// Leaves out the first `count` bytes of the range.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Bytes in range.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether no byte is in range.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes of the region.
    #[inline]
    pub fn region_bytes(&self) -> usize {
        self.region
    }

    /// The heap buffer and its ticket, when it is one.
    #[inline]
    pub fn into_heap(self) -> Option<(Vec<u8>, Option<Ticket>)> {
        match self.owner {
            Owner::Heap(bytes, ticket) => Some((bytes, ticket)),
            Owner::Slot(_) => None,
        }
    }

    #[inline]
    fn base_pointer(&mut self) -> *mut u8 {
        match &mut self.owner {
            Owner::Slot(slot) => slot.address(self.base),
            Owner::Heap(bytes, _) => bytes.as_mut_ptr(),
        }
    }

    /// The bytes in range.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let pointer = match &self.owner {
            Owner::Slot(slot) => slot.address(self.base + self.start).cast_const(),
            Owner::Heap(bytes, _) => bytes.as_ptr().wrapping_add(self.start),
        };
        // SAFETY: the range lies in the region and the region in the owner, which is alive and initialized.
        unsafe { std::slice::from_raw_parts(pointer, self.len()) }
    }

    /// The whole region, for writing.
    #[inline]
    pub fn region_mut(&mut self) -> &mut [u8] {
        let region = self.region;
        let pointer = self.base_pointer();
        // SAFETY: the region lies in the owner, which is alive and initialized; nobody else refers to these bytes (module
        // invariants).
        unsafe { std::slice::from_raw_parts_mut(pointer, region) }
    }
}

// SAFETY: the address is stable while the `Buf` lives: slot memory never moves, and a heap buffer is not resized here.
unsafe impl monoio::buf::IoBuf for Buf {
    #[inline]
    fn read_ptr(&self) -> *const u8 {
        self.bytes().as_ptr()
    }

    #[inline]
    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for `IoBuf`; all bytes are initialized, so there is nothing to record in `set_init`.
unsafe impl monoio::buf::IoBufMut for Buf {
    #[inline]
    fn write_ptr(&mut self) -> *mut u8 {
        let start = self.start;
        self.base_pointer().wrapping_add(start)
    }

    #[inline]
    fn bytes_total(&mut self) -> usize {
        self.len()
    }

    #[inline]
    unsafe fn set_init(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab(slots: u32) -> Slab {
        Slab::new(SlotLayout::new(1024, 512, 256, 16, 64), slots, false).unwrap()
    }

    #[test]
    fn slots_are_handed_out_last_in_first_out() {
        let slab = slab(3);
        let (a, b) = (slab.take().unwrap(), slab.take().unwrap());
        let last = b.address(0);
        drop(a);
        drop(b);
        assert_eq!(slab.take().unwrap().address(0), last);
    }

    #[test]
    fn a_slot_returns_only_with_its_last_handle() {
        let slab = slab(1);
        let slot = slab.take().unwrap();
        let operation = Buf::slot(slot.clone(), 0..10);
        drop(slot);
        assert!(slab.take().is_none());
        drop(operation);
        assert!(slab.take().is_some());
    }

    #[test]
    fn the_slab_counts_what_is_used() {
        let slab = slab(2);
        assert_eq!(slab.used(), 0);
        let a = slab.take();
        assert_eq!(slab.used(), 1);
        drop(a);
        assert_eq!(slab.used(), 0);
    }

    #[test]
    fn memory_of_slots_that_nobody_used_for_a_while_is_given_back() {
        let count = 600;
        let slab = slab(count);
        let burst = || {
            let mut slots: Vec<Slot> = (0..count).map(|_| slab.take().unwrap()).collect();
            for slot in &mut slots {
                slot.bytes_mut(0..1024).fill(7);
            }
        };
        let held = |wanted: u8| {
            // Taking them would make them warm, so the mapping itself is looked at.
            (0..count as usize).filter(|at| slab.shared.mapping[at * slab.layout().stride() + 512] == wanted).count()
        };
        burst();
        slab.mark_cold();
        slab.release_some();
        assert_eq!(held(7), 600, "used since the last mark");
        slab.mark_cold();
        drop(slab.take());
        for _ in 0..10 {
            slab.release_some();
        }
        assert!(held(7) >= WARM_SLOTS && held(7) < WARM_SLOTS + 20, "{}", held(7));
        burst();
        assert_eq!(held(7), 600, "a released slot is as good as any");
        slab.mark_cold();
        let all: Vec<Slot> = (0..count).map(|_| slab.take().unwrap()).collect();
        slab.release_some();
        assert_eq!(held(7), 600, "slots in use keep their bytes");
        drop(all);
    }

    /// A huge page is given back as a whole or not at all, so what stays in use must not be spread over all of them.
    #[test]
    fn what_is_in_use_gathers_at_the_low_end_so_that_huge_pages_become_free() {
        let count = 600;
        let slab = Slab::new(SlotLayout::new(16384, 16384, 256, 16, 64), count, true).unwrap();
        let stride = slab.layout().stride();
        let mut slots: Vec<Slot> = (0..count).map(|_| slab.take().unwrap()).collect();
        for slot in &mut slots {
            slot.bytes_mut(0..1024).fill(7);
        }
        // Freed in an order that leaves the last ones used all over the slab.
        for step in [7, 5, 3, 1] {
            let mut at = 0;
            slots.retain(|_| {
                at += 1;
                at % step != 0
            });
        }
        slab.mark_cold();
        slab.mark_cold();
        for _ in 0..10 {
            slab.release_some();
        }
        let held = (0..count as usize).filter(|at| slab.shared.mapping[at * stride + 512] == 7).count();
        assert!((WARM_SLOTS..WARM_SLOTS + HUGE_PAGE_BYTES / stride + 2).contains(&held), "{held}");
        assert_eq!(slab.take().unwrap().address(0).addr(), slab.shared.base.addr(), "the lowest is handed out first");
    }

    #[test]
    fn a_slab_of_two_gib_is_refused() {
        assert!(Slab::new(SlotLayout::new(1 << 20, 1024, 256, 16, 64), 2048, false).is_err());
    }

    #[test]
    fn roots_stand_above_all_they_point_to() {
        let layout = SlotLayout::new(16384, 16384, 4096, 128, 4096);
        assert!(layout.edited_root_at < layout.entries_at && layout.entries_at < layout.root_at);
        assert!(layout.arena_at + layout.arena <= layout.edited_entries_at);
        assert_eq!(layout.root_at % 8, 0);
        assert_eq!(layout.edited_root_at % 8, 0);
    }
}
