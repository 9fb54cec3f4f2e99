//! Archived views of HTTP messages.
//!
//! A view is read in place. Every offset is relative to the field that holds it, so a view is only meaningful at its own
//! address: none of these types can be copied or constructed by safe code. The gateway builds them as plain words (see
//! [`crate::raw`]) and hands out references; tools obtain them with [`rkyv::access`], which runs the checks below.
//!
//! Invariants that `rkyv::access` establishes and every accessor relies on:
//! - each non-empty span lies inside the archive, below the root;
//! - `known[id] <= headers.len() <= HEADERS_MAX`;
//! - `magic` and `entry_size` are those of ABI 1, and `root_size` is at least the size of the type here.
//!
//! A root may grow at its end in a later minor version. A reference to a live view begins at the root, so it reads the
//! same in every version. In stored bytes the root stands last: [`rkyv::access`] looks for a root of *its* size there and
//! so takes only frames of the version it was compiled with; it refuses others, because no magic stands where it looks.
//! Who knows where the root begins reads frames of later versions with `rkyv::api::high::access_pos`.

use core::alloc::Layout;
use core::fmt;

use rkyv::bytecheck::{CheckBytes, Verify};
use rkyv::rancor::{Fallible, Source, fail};
use rkyv::rend::{i32_le, u16_le, u32_le, u64_le};
use rkyv::traits::NoUndef;
use rkyv::validation::ArchiveContext;
use rkyv::{Portable, bytecheck};

use crate::ids::{HEADER_ID_REMOVED, HeaderId};

/// `RW_REQUEST_MAGIC`: "wreq" in memory order.
pub const REQUEST_MAGIC: u32 = 0x7165_7277;
/// `RW_RESPONSE_MAGIC`: "wres" in memory order.
pub const RESPONSE_MAGIC: u32 = 0x7365_7277;

/// `RW_HEADERS_MAX`: entries of a view at most, removed ones included, so that `known` leads to the first header of an id.
pub const HEADERS_MAX: usize = 254;

/// `RW_REQ_HAS_BODY`: content length above zero, or chunked.
pub const REQ_HAS_BODY: u16 = 0x0001;
/// `RW_REQ_CHUNKED`.
pub const REQ_CHUNKED: u16 = 0x0002;
/// `RW_REQ_ABSOLUTE_TARGET`: the target was received in absolute-form.
pub const REQ_ABSOLUTE_TARGET: u16 = 0x0004;
/// `RW_REQ_UPGRADE`: asks for a protocol that the gateway would forward.
pub const REQ_UPGRADE: u16 = 0x0008;
/// `RW_REQ_TLS`.
pub const REQ_TLS: u16 = 0x0010;
/// `RW_REQ_BODY_COMPLETE`: `body` holds the whole body.
pub const REQ_BODY_COMPLETE: u16 = 0x0020;
/// `RW_RES_HAS_BODY`.
pub const RES_HAS_BODY: u16 = 0x0001;
/// `RW_RES_CHUNKED`.
pub const RES_CHUNKED: u16 = 0x0002;
/// `RW_RES_CLOSE_DELIMITED`.
pub const RES_CLOSE_DELIMITED: u16 = 0x0004;
/// `RW_RES_BODY_COMPLETE`.
pub const RES_BODY_COMPLETE: u16 = 0x0008;

/// `RW_ORIGIN_UPSTREAM`: an upstream server made the response.
pub const ORIGIN_UPSTREAM: u8 = 0;
/// `RW_ORIGIN_PLUGIN`: a plugin made the response.
pub const ORIGIN_PLUGIN: u8 = 1;
/// `RW_ORIGIN_GATEWAY`: the gateway made the response, mostly an error.
pub const ORIGIN_GATEWAY: u8 = 2;

/// Bytes of the message: `{i32 off, u32 len}`, 8 bytes. Never NUL-terminated, never assumed to be UTF-8.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = bytecheck, verify)]
#[repr(C)]
pub struct Span {
    pub(crate) off: i32_le,
    pub(crate) len: u32_le,
}

/// A header name with its interned id: `{i32 off, u16 len, u16 id}`, 8 bytes.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = bytecheck, verify)]
#[repr(C)]
pub struct NameSpan {
    pub(crate) off: i32_le,
    pub(crate) len: u16_le,
    pub(crate) id: u16_le,
}

/// One header line: name and value, 16 bytes.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = bytecheck)]
#[repr(C)]
pub struct HeaderView {
    pub(crate) name: NameSpan,
    pub(crate) value: Span,
}

/// An array of `T` elsewhere in the archive: `{i32 off, u32 len}`, 8 bytes.
#[derive(Portable)]
#[repr(C)]
pub struct Seq<T> {
    pub(crate) off: i32_le,
    pub(crate) len: u32_le,
    pub(crate) of: core::marker::PhantomData<T>,
}

/// A request as plugins see it, 192 bytes. See `rw_request` in `ringway.h`.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = bytecheck, verify)]
#[repr(C)]
#[allow(missing_docs, reason = "every field has an accessor with its documentation; rw_request in ringway.h describes them")]
pub struct RequestView {
    pub(crate) magic: u32_le,
    pub(crate) root_size: u16_le,
    pub(crate) entry_size: u16_le,
    pub(crate) method_id: u8,
    pub(crate) http_version: u8,
    pub(crate) flags: u16_le,
    pub(crate) edits: u32_le,
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) path: Span,
    pub(crate) query: Span,
    pub(crate) authority: Span,
    pub(crate) body: Span,
    pub(crate) content_length: u64_le,
    pub(crate) request_id: u64_le,
    pub(crate) received_unix_ns: u64_le,
    pub(crate) peer_addr: [u8; 16],
    pub(crate) peer_port: u16_le,
    pub(crate) listener: u16_le,
    pub(crate) route: u32_le,
    pub(crate) known_mask: u64_le,
    pub(crate) known: [u8; 64],
    pub(crate) headers: Seq<HeaderView>,
}

/// A response as plugins see it, 144 bytes. See `rw_response` in `ringway.h`.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = bytecheck, verify)]
#[repr(C)]
pub struct ResponseView {
    pub(crate) magic: u32_le,
    pub(crate) root_size: u16_le,
    pub(crate) entry_size: u16_le,
    pub(crate) status: u16_le,
    pub(crate) http_version: u8,
    pub(crate) origin: u8,
    pub(crate) flags: u16_le,
    pub(crate) reserved: u16_le,
    pub(crate) reason: Span,
    pub(crate) body: Span,
    pub(crate) content_length: u64_le,
    pub(crate) request_id: u64_le,
    pub(crate) upstream_ns: u64_le,
    pub(crate) origin_plugin: u32_le,
    pub(crate) edits: u32_le,
    pub(crate) known_mask: u64_le,
    pub(crate) known: [u8; 64],
    pub(crate) headers: Seq<HeaderView>,
}

impl Span {
    /// The bytes; empty when the span is.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the view's builder or `rkyv::access` established that the span lies in the archive that holds `self`.
        unsafe { relative_slice(self, self.off, self.len.to_native() as usize) }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.to_native() as usize
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.to_native() == 0
    }
}

impl NameSpan {
    /// The bytes of the name as received; compare without case.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the view's builder or `rkyv::access` established that the span lies in the archive that holds `self`.
        unsafe { relative_slice(self, self.off, usize::from(self.len.to_native())) }
    }

    /// The interned id, 0 when the name has none.
    #[inline]
    pub fn id(&self) -> HeaderId {
        HeaderId(self.id.to_native())
    }
}

impl HeaderView {
    /// The name as received.
    #[inline]
    pub fn name(&self) -> &[u8] {
        self.name.bytes()
    }

    /// The interned id of the name.
    #[inline]
    pub fn id(&self) -> HeaderId {
        self.name.id()
    }

    /// The value without the blanks around it.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.value.bytes()
    }

    /// Whether an edit removed this header: then it has no name and no value, and must be skipped.
    #[inline]
    pub fn is_removed(&self) -> bool {
        self.name.id.to_native() == HEADER_ID_REMOVED
    }
}

impl<T> Seq<T> {
    /// The elements.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        let count = self.len.to_native() as usize;
        if count == 0 {
            return &[];
        }
        let base = core::ptr::from_ref(self).cast::<u8>();
        // SAFETY: the view's builder or `rkyv::access` established that `count` aligned, initialized elements lie at this
        // offset in the archive that holds `self`.
        unsafe { core::slice::from_raw_parts(base.wrapping_offset(self.off.to_native() as isize).cast::<T>(), count) }
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.to_native() as usize
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.to_native() == 0
    }
}

macro_rules! span_accessors {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(&self) -> &[u8] {
            self.$name.bytes()
        }
    )*};
}

macro_rules! number_accessors {
    ($($(#[$doc:meta])* $name:ident: $ty:ty),* $(,)?) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(&self) -> $ty {
            self.$name.to_native()
        }
    )*};
}

macro_rules! header_accessors {
    () => {
        /// The headers in the order received, without removed ones.
        pub fn headers(&self) -> impl Iterator<Item = &HeaderView> {
            self.headers.as_slice().iter().filter(|h| !h.is_removed())
        }

        /// All entries, removed ones included; `known` counts these.
        pub fn entries(&self) -> &[HeaderView] {
            self.headers.as_slice()
        }

        /// The value of the first header with this id; `None` for [`HeaderId::OTHER`] and what is no id. Constant time.
        #[inline]
        pub fn header(&self, id: HeaderId) -> Option<&[u8]> {
            let at = *self.known.get(usize::from(id.0))?;
            let index = usize::from(at).checked_sub(1)?;
            self.headers.as_slice().get(index).map(HeaderView::value)
        }

        /// The value of the first header of this name, compared without case. Linear; prefer ids.
        pub fn header_named(&self, name: &[u8]) -> Option<&[u8]> {
            self.headers().find(|h| h.name().eq_ignore_ascii_case(name)).map(HeaderView::value)
        }

        /// Bit `id` is set when a header with this id is present.
        #[inline]
        pub fn known_mask(&self) -> u64 {
            self.known_mask.to_native()
        }
    };
}

impl RequestView {
    span_accessors! {
        /// The method as received.
        method,
        /// The target as received, or as edited.
        target,
        /// The part of the target before `?`.
        path,
        /// The part of the target after `?`, without it; empty when there is none.
        query,
        /// The authority of an absolute target, else of Host; may be empty for HTTP/1.0.
        authority,
        /// Body bytes that arrived together with the head; empty when the body is chunked.
        body,
    }
    number_accessors! {
        /// `REQ_*` bits.
        flags: u16,
        /// Edits applied so far; 0 means as received.
        edits: u32,
        /// Body length in bytes; `u64::MAX` when not known.
        content_length: u64,
        /// Unique in the gateway's process.
        request_id: u64,
        /// Arrival, nanoseconds since the epoch, coarse clock.
        received_unix_ns: u64,
        /// The client's port.
        peer_port: u16,
        /// Index of `[[listener]]` in the configuration.
        listener: u16,
        /// Stands for one `[[route]]` while the process runs, also across reloads; `u32::MAX` when none matched.
        route: u32,
    }
    header_accessors!();

    /// `METHOD_*` id, 0 for any other method.
    #[inline]
    pub fn method_id(&self) -> u8 {
        self.method_id
    }

    /// 10, 11 or 20.
    #[inline]
    pub fn http_version(&self) -> u8 {
        self.http_version
    }

    /// The client's address: IPv6 or IPv4 mapped; all zero for a Unix socket.
    #[inline]
    pub fn peer_addr(&self) -> [u8; 16] {
        self.peer_addr
    }
}

impl ResponseView {
    span_accessors! {
        /// The reason phrase; often empty.
        reason,
        /// Body bytes at hand when the hook runs; empty when the body is chunked.
        body,
    }
    number_accessors! {
        /// 200..=599.
        status: u16,
        /// `RES_*` bits.
        flags: u16,
        /// Body length in bytes; `u64::MAX` when not known.
        content_length: u64,
        /// The id of the request.
        request_id: u64,
        /// From the request sent to the head received; 0 when no plugin of the route asked for it.
        upstream_ns: u64,
        /// Link index when `origin()` is [`ORIGIN_PLUGIN`], else `u32::MAX`.
        origin_plugin: u32,
        /// Edits applied so far.
        edits: u32,
    }
    header_accessors!();

    /// `ORIGIN_*`: who made this response.
    #[inline]
    pub fn origin(&self) -> u8 {
        self.origin
    }

    /// 10, 11 or 20.
    #[inline]
    pub fn http_version(&self) -> u8 {
        self.http_version
    }
}

/// What a view's own checks found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewFault {
    /// `magic` or `entry_size` is not that of ABI 1, or `root_size` is below the size that this version knows.
    ForeignRoot,
    /// There are more than [`HEADERS_MAX`] entries.
    TooManyHeaders,
    /// `known` points behind the last header.
    KnownOutOfRange,
}

impl fmt::Display for ViewFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ViewFault::ForeignRoot => "the view has another magic or entry size than ABI 1, or a smaller root than ABI 1.0",
            ViewFault::TooManyHeaders => "the view has more than 254 headers",
            ViewFault::KnownOutOfRange => "the view's table of known headers points behind the last header",
        })
    }
}

impl core::error::Error for ViewFault {}

/// # Safety
/// `len == 0`, or `len` initialized bytes lie at `off` from `field`, readable as long as `field` is borrowed.
#[inline]
unsafe fn relative_slice<T>(field: &T, off: i32_le, len: usize) -> &[u8] {
    if len == 0 {
        return &[];
    }
    let base = core::ptr::from_ref(field).cast::<u8>();
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(base.wrapping_offset(off.to_native() as isize), len) }
}

fn check_bytes_at<T, C>(field: &T, off: i32_le, len: usize, align: usize, context: &mut C) -> Result<(), C::Error>
where
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    if len == 0 {
        return Ok(());
    }
    let ptr = core::ptr::from_ref(field).cast::<u8>().wrapping_offset(off.to_native() as isize);
    match Layout::from_size_align(len, align) {
        Ok(layout) => context.check_subtree_ptr(ptr, &layout),
        Err(_) => fail!(ViewFault::ForeignRoot),
    }
}

// SAFETY: a `Span` is valid when its bytes lie in the archive; they are bytes, so nothing else is asked of them, and
// spans may overlap (DESIGN P3).
unsafe impl<C> Verify<C> for Span
where
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    fn verify(&self, context: &mut C) -> Result<(), C::Error> {
        check_bytes_at(self, self.off, self.len.to_native() as usize, 1, context)
    }
}

// SAFETY: as for `Span`.
unsafe impl<C> Verify<C> for NameSpan
where
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    fn verify(&self, context: &mut C) -> Result<(), C::Error> {
        check_bytes_at(self, self.off, usize::from(self.len.to_native()), 1, context)
    }
}

// SAFETY: checks the bounds of the whole array without claiming it, then each element where it stands.
unsafe impl<T, C> CheckBytes<C> for Seq<T>
where
    T: CheckBytes<C> + Portable,
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    unsafe fn check_bytes(value: *const Self, context: &mut C) -> Result<(), C::Error> {
        // SAFETY: `value` is readable and aligned (the caller's promise), and its fields accept any bytes.
        let seq = unsafe { &*value };
        let count = seq.len.to_native() as usize;
        let Some(bytes) = count.checked_mul(size_of::<T>()) else { fail!(ViewFault::ForeignRoot) };
        check_bytes_at(seq, seq.off, bytes, align_of::<T>(), context)?;
        let first = value.cast::<u8>().wrapping_offset(seq.off.to_native() as isize).cast::<T>();
        for index in 0..count {
            // SAFETY: `check_bytes_at` showed that `count` elements lie in the archive, aligned.
            unsafe { T::check_bytes(first.wrapping_add(index), context) }?;
        }
        Ok(())
    }
}

fn check_root(magics: (u32, u32), sizes: (u16, usize), entry_size: u16, known: &[u8; 64], headers: &Seq<HeaderView>) -> Result<(), ViewFault> {
    if magics.0 != magics.1 || usize::from(sizes.0) < sizes.1 || usize::from(entry_size) != size_of::<HeaderView>() {
        return Err(ViewFault::ForeignRoot);
    }
    let count = headers.len();
    if count > HEADERS_MAX {
        return Err(ViewFault::TooManyHeaders);
    }
    if known.iter().any(|at| usize::from(*at) > count) {
        return Err(ViewFault::KnownOutOfRange);
    }
    Ok(())
}

// SAFETY: the fields have been checked; this adds the relations between them.
unsafe impl<C> Verify<C> for RequestView
where
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    fn verify(&self, _: &mut C) -> Result<(), C::Error> {
        let sizes = (self.root_size.to_native(), size_of::<Self>());
        check_root((self.magic.to_native(), REQUEST_MAGIC), sizes, self.entry_size.to_native(), &self.known, &self.headers).map_err(C::Error::new)
    }
}

// SAFETY: as for `RequestView`.
unsafe impl<C> Verify<C> for ResponseView
where
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    fn verify(&self, _: &mut C) -> Result<(), C::Error> {
        let sizes = (self.root_size.to_native(), size_of::<Self>());
        check_root((self.magic.to_native(), RESPONSE_MAGIC), sizes, self.entry_size.to_native(), &self.known, &self.headers).map_err(C::Error::new)
    }
}

// SAFETY: `#[repr(C)]`, all fields are `NoUndef`, and the layout assertions below leave no padding.
unsafe impl NoUndef for Span {}
// SAFETY: as above.
unsafe impl NoUndef for NameSpan {}
// SAFETY: as above.
unsafe impl NoUndef for HeaderView {}
// SAFETY: as above; the marker is zero-sized.
unsafe impl<T> NoUndef for Seq<T> {}
// SAFETY: as above.
unsafe impl NoUndef for RequestView {}
// SAFETY: as above.
unsafe impl NoUndef for ResponseView {}

const _: () = {
    assert!(size_of::<Span>() == 8 && align_of::<Span>() == 4);
    assert!(size_of::<NameSpan>() == 8 && size_of::<HeaderView>() == 16);
    assert!(size_of::<RequestView>() == 192 && align_of::<RequestView>() == 8);
    assert!(size_of::<ResponseView>() == 144 && align_of::<ResponseView>() == 8);
};
