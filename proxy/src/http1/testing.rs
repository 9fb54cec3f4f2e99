//! What the tests of this module share: a slot laid out as the worker lays it out, and deliveries in every split.

use ringway_abi::raw::{RawHeader, RawRequest, RawResponse};
use ringway_abi::view::{HeaderView, RequestView, ResponseView};
use rkyv::rancor;

use super::fields::Rules;
use super::head::{Area, HeadLimits, HeadProgress, RequestFacts, ResponseFacts, ResponseTo};
use super::names::NameTable;
use super::simd::Fill;
use super::{request, response};
use crate::error::{ClientFault, UpstreamFault};

/// Receive bytes, entries, root last: what `rkyv::access` takes.
#[repr(C)]
pub(super) struct Slot<R> {
    pub(super) bytes: [u8; SLOT_BYTES],
    pub(super) entries: [RawHeader; 254],
    pub(super) root: R,
}

pub(super) const SLOT_BYTES: usize = 40 << 10;

impl Slot<RawRequest> {
    pub(super) fn request() -> Box<Self> {
        Box::new(Slot { bytes: [0xff; SLOT_BYTES], entries: [RawHeader::default(); 254], root: empty_request() })
    }

    /// The view, as `rkyv::access` accepts it.
    pub(super) fn view(&self) -> &RequestView {
        rkyv::access::<RequestView, rancor::Error>(self.memory()).expect("P2: the slot as it stands is a valid archive")
    }
}

impl Slot<RawResponse> {
    pub(super) fn response() -> Box<Self> {
        Box::new(Slot { bytes: [0xff; SLOT_BYTES], entries: [RawHeader::default(); 254], root: empty_response() })
    }

    pub(super) fn view(&self) -> &ResponseView {
        rkyv::access::<ResponseView, rancor::Error>(self.memory()).expect("P2: the slot as it stands is a valid archive")
    }
}

impl<R> Slot<R> {
    fn memory(&self) -> &[u8] {
        // SAFETY: `self` is `size_of::<Self>()` bytes, all initialised: no field has padding, nor has the struct (asserted below).
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast::<u8>(), size_of::<Self>()) }
    }
}

const _: () = {
    assert!(size_of::<Slot<RawRequest>>() == SLOT_BYTES + 254 * 16 + 192);
    assert!(size_of::<Slot<RawResponse>>() == SLOT_BYTES + 254 * 16 + 144);
};

fn empty_request() -> RawRequest {
    RawRequest {
        magic: 0,
        root_size: 0,
        entry_size: 0,
        method_id: 0xff,
        http_version: 0xff,
        flags: 0xffff,
        edits: 7,
        method: Default::default(),
        target: Default::default(),
        path: Default::default(),
        query: Default::default(),
        authority: Default::default(),
        body: Default::default(),
        content_length: 7,
        request_id: REQUEST_ID,
        received_unix_ns: 8,
        peer_addr: [9; 16],
        peer_port: 10,
        listener: 11,
        route: 0,
        known_mask: u64::MAX,
        known: [0xff; 64],
        headers: Default::default(),
    }
}

pub(super) const REQUEST_ID: u64 = 0x1234;

fn empty_response() -> RawResponse {
    RawResponse {
        magic: 0,
        root_size: 0,
        entry_size: 0,
        status: 0,
        http_version: 0xff,
        origin: 0xff,
        flags: 0xffff,
        reserved: 0xffff,
        reason: Default::default(),
        body: Default::default(),
        content_length: 7,
        request_id: REQUEST_ID,
        upstream_ns: 8,
        origin_plugin: 0,
        edits: 7,
        known_mask: u64::MAX,
        known: [0xff; 64],
        headers: Default::default(),
    }
}

/// Everything that a parsed request says, without addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenRequest {
    pub(super) facts: RequestFacts,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) authority: String,
    pub(super) version: u8,
    pub(super) flags: u16,
    pub(super) content_length: u64,
    pub(super) headers: Vec<(String, String)>,
}

/// Everything that a parsed response says, without addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenResponse {
    pub(super) facts: ResponseFacts,
    pub(super) reason: String,
    pub(super) version: u8,
    pub(super) flags: u16,
    pub(super) content_length: u64,
    pub(super) headers: Vec<(String, String)>,
}

pub(super) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn pairs(entries: &[HeaderView]) -> Vec<(String, String)> {
    entries.iter().map(|entry| (text(entry.name()), text(entry.value()))).collect()
}

impl SeenRequest {
    pub(super) fn of(facts: RequestFacts, view: &RequestView) -> SeenRequest {
        assert_eq!((view.edits(), view.route(), view.request_id(), view.listener()), (0, u32::MAX, REQUEST_ID, 11));
        assert!(view.body().is_empty());
        SeenRequest {
            facts,
            method: text(view.method()),
            target: text(view.target()),
            path: text(view.path()),
            query: text(view.query()),
            authority: text(view.authority()),
            version: view.http_version(),
            flags: view.flags(),
            content_length: view.content_length(),
            headers: pairs(view.entries()),
        }
    }

    pub(super) fn dropped(&self) -> Vec<&str> {
        let headers = self.headers.iter().enumerate();
        headers.filter(|(index, _)| self.facts.dropped.contains(*index)).map(|(_, (name, _))| name.as_str()).collect()
    }
}

impl SeenResponse {
    pub(super) fn of(facts: ResponseFacts, view: &ResponseView) -> SeenResponse {
        assert_eq!((view.edits(), view.origin(), view.request_id(), view.status()), (0, 0, REQUEST_ID, facts.status));
        SeenResponse {
            facts,
            reason: text(view.reason()),
            version: view.http_version(),
            flags: view.flags(),
            content_length: view.content_length(),
            headers: pairs(view.entries()),
        }
    }

    pub(super) fn dropped(&self) -> Vec<&str> {
        let headers = self.headers.iter().enumerate();
        headers.filter(|(index, _)| self.facts.dropped.contains(*index)).map(|(_, (name, _))| name.as_str()).collect()
    }
}

/// Parses `input` whole, in every split into two, and byte by byte, with every filler; all must give the same answer.
pub(super) fn request_with(input: &[u8], limits: &HeadLimits) -> Result<Option<SeenRequest>, ClientFault> {
    let names = NameTable::new();
    let mut slot = Slot::request();
    in_every_delivery(input, |pieces, fill| {
        let rules = Rules { limits, names: &names, fill };
        let mut progress = HeadProgress::default();
        let mut answer = Ok(None);
        for filled in pieces {
            receive(&mut slot.bytes, input, *filled);
            let area = Area { bytes: &slot.bytes, filled: *filled };
            answer = request::parse(area, rules, &mut slot.entries, &mut slot.root, &mut progress);
            if !matches!(answer, Ok(None)) {
                break;
            }
        }
        answer.map(|facts| facts.map(|facts| SeenRequest::of(facts, slot.view())))
    })
}

/// As [`request_with`], with default limits, for a whole head.
pub(super) fn request(input: impl AsRef<[u8]>) -> Result<SeenRequest, ClientFault> {
    request_with(input.as_ref(), &HeadLimits::default()).map(|seen| seen.expect("a whole head"))
}

/// As [`request_with`], for responses.
pub(super) fn response_with(input: &[u8], limits: &HeadLimits, to: ResponseTo) -> Result<Option<SeenResponse>, UpstreamFault> {
    let names = NameTable::new();
    let mut slot = Slot::response();
    in_every_delivery(input, |pieces, fill| {
        let rules = Rules { limits, names: &names, fill };
        let mut progress = HeadProgress::default();
        let mut answer = Ok(None);
        for filled in pieces {
            receive(&mut slot.bytes, input, *filled);
            let area = Area { bytes: &slot.bytes, filled: *filled };
            answer = response::parse(area, rules, &mut slot.entries, &mut slot.root, to, &mut progress);
            if !matches!(answer, Ok(None)) {
                break;
            }
        }
        answer.map(|facts| facts.map(|facts| SeenResponse::of(facts, slot.view())))
    })
}

/// As [`response_with`], to a plain GET, for a whole head.
pub(super) fn response(input: impl AsRef<[u8]>) -> Result<SeenResponse, UpstreamFault> {
    let to = ResponseTo { method_id: ringway_abi::ids::METHOD_GET, upgrade: false };
    response_with(input.as_ref(), &HeadLimits::default(), to).map(|seen| seen.expect("a whole head"))
}

/// `filled` bytes have arrived; what lies behind them is left over from before and must not matter.
fn receive(bytes: &mut [u8; SLOT_BYTES], input: &[u8], filled: usize) {
    bytes[..filled].copy_from_slice(&input[..filled]);
    for (at, byte) in bytes[filled..].iter_mut().take(80).enumerate() {
        *byte = b"\r\n\r\nGET : \0\xff\n"[at % 13];
    }
}

/// Calls `run` with the fill levels of each delivery and with each filler; asserts that all answers are equal.
fn in_every_delivery<T: PartialEq + core::fmt::Debug>(input: &[u8], mut run: impl FnMut(&[usize], Fill) -> T) -> T {
    let len = input.len();
    let whole = run(&[len], Fill::PLAIN);
    // Long inputs are there for the limits: every split would take too long.
    let step = (len / 400).max(1);
    for fill in [Fill::PLAIN, Fill::best()] {
        assert_eq!(run(&[len], fill), whole, "whole, {fill:?}");
        for split in (1..len).step_by(step) {
            assert_eq!(run(&[split, len], fill), whole, "split at {split}, {fill:?}");
        }
        let bytes: Vec<usize> = (1..=len).step_by(step).chain([len]).collect();
        assert_eq!(run(&bytes, fill), whole, "in pieces of {step}, {fill:?}");
    }
    whole
}

#[test]
fn a_plain_get_is_a_view() {
    let seen = request("GET /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nX-A:  one two \t\r\nConnection: keep-alive, X-A\r\n\r\nrest").unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.path.as_str(), seen.query.as_str()), ("GET", "/a/b?c=d", "/a/b", "c=d"));
    assert_eq!(seen.authority, "example.com");
    assert_eq!(seen.headers[1], ("X-A".into(), "one two".into()));
    assert_eq!(seen.dropped(), ["X-A", "Connection"]);
    assert!(seen.facts.persist && seen.version == 11);
}

#[test]
fn a_plain_200_is_a_view() {
    let seen = response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").unwrap();
    assert_eq!((seen.reason.as_str(), seen.content_length, seen.facts.persist), ("OK", 5, false));
    assert_eq!(seen.dropped(), ["Connection"]);
}
