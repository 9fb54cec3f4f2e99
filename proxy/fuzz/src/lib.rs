//! What the fuzz targets share: a slot laid out as the worker lays it out, and deliveries in pieces.

use ringway::error::{ClientFault, UpstreamFault};
use ringway::http1::head::{Area, HeadLimits, HeadProgress, RequestFacts, ResponseFacts, ResponseTo, parse_request, parse_response};
use ringway::http1::names::NameTable;
use ringway_abi::raw::{RawHeader, RawRequest, RawResponse};
use ringway_abi::view::{RequestView, ResponseView};
use rkyv::rancor;

/// Receive bytes, entries, root last: what `rkyv::access` takes.
#[repr(C)]
pub struct Slot<R> {
    pub bytes: [u8; SLOT_BYTES],
    pub entries: [RawHeader; 254],
    pub root: R,
}

pub const SLOT_BYTES: usize = 16 << 10;

impl<R> Slot<R> {
    /// A slot of zeros; `R` is one of the raw roots.
    fn zeroed() -> Box<Self> {
        // SAFETY: all fields are integers and arrays of them, for which zero is a value.
        unsafe { Box::new(core::mem::zeroed()) }
    }

    fn memory(&self) -> &[u8] {
        // SAFETY: the slot has no padding: its parts are multiples of 8 bytes.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

impl Slot<RawRequest> {
    /// Parses `input` as it arrives up to each of the fill levels.
    pub fn request(input: &[u8], fill_levels: &[usize]) -> (Box<Self>, Result<Option<RequestFacts>, ClientFault>) {
        let (names, limits, mut progress) = (NameTable::new(), HeadLimits::default(), HeadProgress::default());
        let mut slot = Self::zeroed();
        let mut answer = Ok(None);
        for filled in fill_levels {
            slot.bytes[..*filled].copy_from_slice(&input[..*filled]);
            let area = Area { bytes: &slot.bytes, filled: *filled };
            answer = parse_request(area, &limits, &names, &mut slot.entries, &mut slot.root, &mut progress);
            if answer != Ok(None) {
                break;
            }
        }
        (slot, answer)
    }

    pub fn view(&self) -> &RequestView {
        rkyv::access::<RequestView, rancor::Error>(self.memory()).expect("a parsed slot is a valid archive")
    }
}

impl Slot<RawResponse> {
    /// As [`Slot::request`].
    pub fn response(input: &[u8], fill_levels: &[usize], to: ResponseTo) -> (Box<Self>, Result<Option<ResponseFacts>, UpstreamFault>) {
        let (names, limits, mut progress) = (NameTable::new(), HeadLimits::default(), HeadProgress::default());
        let mut slot = Self::zeroed();
        let mut answer = Ok(None);
        for filled in fill_levels {
            slot.bytes[..*filled].copy_from_slice(&input[..*filled]);
            let area = Area { bytes: &slot.bytes, filled: *filled };
            answer = parse_response(area, &limits, &names, &mut slot.entries, &mut slot.root, to, &mut progress);
            if answer != Ok(None) {
                break;
            }
        }
        (slot, answer)
    }

    pub fn view(&self) -> &ResponseView {
        rkyv::access::<ResponseView, rancor::Error>(self.memory()).expect("a parsed slot is a valid archive")
    }
}
