//! Golden frames: archives from `rkyv::to_bytes` are stored, and C, Zig and Rust read the same from them.
//!
//! Rules of SPEC.md: S-20 to S-26. After a wanted change before a release, `RINGWAY_BLESS=1 cargo test -p ringway-abi` writes the
//! stored frames again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod toolchain;

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringway_abi::owned::Octets;
use ringway_abi::{Header, HeaderName, HeaderView, Request, RequestView, Response, ResponseView, ids, raw, view};
use rkyv::rancor::{Error, Failure};
use rkyv::util::AlignedVec;

enum Frame {
    Request(Box<Request>),
    Response(Box<Response>),
}

fn frames() -> Vec<(&'static str, Frame)> {
    vec![
        ("request-minimal", request(Request::new(b"GET", b"/", vec![Header::new(b"Host", b"a")]))),
        ("request-64-headers", request(Request::new(b"GET", b"/many?a=1&b=2", many_headers(b"X-Number-")))),
        ("request-long-target", request(long_target())),
        ("request-obs-text", request(obs_text())),
        ("request-body", request(with_body())),
        ("request-removed", request(with_removed_header())),
        ("request-other-method", request(other_method())),
        ("request-254-headers", request(Request::new(b"GET", b"/full", full()))),
        ("request-no-headers", request(Request { http_version: 10, ..Request::new(b"GET", b"/old", vec![]) })),
        ("response-minimal", response(Response::new(204, vec![]))),
        ("response-64-headers", response(Response::new(200, many_headers(b"Set-Cookie")))),
        ("response-body", response(response_with_body())),
        ("response-gateway", response(from_gateway())),
    ]
}

/// S-20, S-21
#[test]
fn stored_frames_are_what_to_bytes_writes() {
    let bless = std::env::var_os("RINGWAY_BLESS").is_some();
    for (name, frame) in frames() {
        let bytes = frame.to_bytes();
        if bless {
            std::fs::create_dir_all(frame_path(name).parent().unwrap()).unwrap();
            std::fs::write(frame_path(name), &bytes).unwrap();
        }
        let stored = std::fs::read(frame_path(name)).unwrap_or_else(|error| panic!("{name}: {error}; see the top of frames.rs"));
        assert!(stored == bytes.as_slice(), "{name}: the stored frame differs from what this version writes");
    }
}

/// S-20, S-22: `access` takes every frame, and the owned twin comes back from it unchanged.
#[test]
fn every_frame_passes_access_and_comes_back_whole() {
    for (name, frame) in frames() {
        let bytes = frame.to_bytes();
        match &frame {
            Frame::Request(owned) => {
                let view = rkyv::access::<RequestView, Error>(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(rkyv::deserialize::<Request, Error>(view).unwrap(), **owned, "{name}");
            }
            Frame::Response(owned) => {
                let view = rkyv::access::<ResponseView, Error>(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(rkyv::deserialize::<Response, Error>(view).unwrap(), **owned, "{name}");
            }
        }
    }
}

/// S-23: three languages read the same from the same bytes.
#[test]
fn c_reads_what_rust_reads() {
    for compiler in toolchain::c_compilers() {
        // The readers look at bytes that came from elsewhere: the sanitizer says when one steps outside.
        let reader = toolchain::compile_c(compiler, "frame.c", &["-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        compare_reader(compiler, &reader);
    }
}

/// S-23
#[test]
fn zig_reads_what_rust_reads() {
    compare_reader("zig", &toolchain::compile_zig_program("frame.zig"));
}

/// S-24: a frame that was tampered with is refused, or everything that it leads to still lies inside of it.
#[test]
fn no_accepted_span_leaves_a_corrupted_frame() {
    let seed = std::env::var("RINGWAY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_0001);
    println!("RINGWAY_SEED={seed}");
    let rounds_per_frame = 20_000;
    let mut random = Random(seed);
    let (mut accepted, mut refused) = (0u32, 0u32);
    for (name, frame) in frames() {
        let golden = frame.to_bytes();
        for round in 0..rounds_per_frame {
            let mut bytes = golden.clone();
            corrupt(&mut bytes, &mut random);
            let cut = if random.below(8) == 0 { random.below(bytes.len() as u64 / 8 + 1) as usize * 8 } else { 0 };
            match frame.check_reach(&bytes[cut..]) {
                Ok(()) => accepted += 1,
                Err(Reach::Refused) => refused += 1,
                Err(Reach::Outside(what)) => panic!("{name}, round {round}, seed {seed}: {what} leaves the frame"),
            }
        }
    }
    println!("{accepted} accepted, {refused} refused");
    // Both must happen a lot, else the mutations test nothing.
    assert!(accepted > 20_000 && refused > 20_000, "{accepted} accepted, {refused} refused");
}

/// S-22, S-25: each check of the root, one by one.
#[test]
fn access_refuses_foreign_roots() {
    let golden = frames()[0].1.to_bytes();
    let root = golden.len() - size_of::<raw::RawRequest>();
    let cases: [(&str, usize, &[u8]); 7] = [
        ("magic", 0, b"wres"),
        ("a root_size below that of 1.0", 4, &184u16.to_le_bytes()),
        ("entry_size", 6, &24u16.to_le_bytes()),
        ("target before the frame", 24, &(-4000i32).to_le_bytes()),
        ("target longer than the frame", 28, &u32::MAX.to_le_bytes()),
        ("known behind the last header", 120 + 1, &[2]),
        ("more headers than there is room", 188, &u32::MAX.to_le_bytes()),
    ];
    for (what, offset, patch) in cases {
        let mut bytes = golden.clone();
        bytes[root + offset..root + offset + patch.len()].copy_from_slice(patch);
        assert!(rkyv::access::<RequestView, Failure>(&bytes).is_err(), "{what} was accepted");
    }
    assert!(rkyv::access::<RequestView, Failure>(&golden[8..]).is_err(), "spans into what was cut away were accepted");
    assert!(rkyv::access::<RequestView, Failure>(&golden[root + 8..]).is_err(), "half a root was accepted");
    assert!(rkyv::access::<ResponseView, Failure>(&golden).is_err(), "a request was accepted as a response");
}

/// S-7, S-22: a frame whose root has grown by eight bytes is found by where its root begins, and not by its end.
#[test]
fn a_root_that_has_grown_is_read_where_it_begins() {
    let mut grown = frames()[0].1.to_bytes();
    let root = grown.len() - size_of::<raw::RawRequest>();
    let size = size_of::<raw::RawRequest>() as u16 + 8;
    grown[root + 4..root + 6].copy_from_slice(&size.to_le_bytes());
    grown.extend_from_slice(&[0xa5; 8]);
    assert!(rkyv::access::<RequestView, Failure>(&grown).is_err(), "a root of another size was taken for one of 1.0");
    let view = rkyv::api::high::access_pos::<RequestView, Error>(&grown, root).unwrap();
    assert_eq!((view.method(), view.header(ids::HeaderId::HOST)), (&b"GET"[..], Some(&b"a"[..])));
}

/// S-22, S-29: a view has at most 254 entries, so that `known` leads to the first of every id.
#[test]
fn access_refuses_more_entries_than_known_can_lead_to() {
    let fillers = |count: usize| (0..count).map(|_| Header::new(b"X-Filler", b"")).collect::<Vec<_>>();
    let last_is_known = [fillers(253), vec![Header::new(b"Via", b"last")]].concat();
    let bytes = request(Request::new(b"GET", b"/", last_is_known)).to_bytes();
    let view = rkyv::access::<RequestView, Error>(&bytes).unwrap();
    assert_eq!((view.entries().len(), view.header(ids::HeaderId::VIA)), (view::HEADERS_MAX, Some(&b"last"[..])));
    let bytes = request(Request::new(b"GET", b"/", fillers(255))).to_bytes();
    assert!(rkyv::access::<RequestView, Failure>(&bytes).is_err());
    let bytes = response(Response::new(200, fillers(255))).to_bytes();
    assert!(rkyv::access::<ResponseView, Failure>(&bytes).is_err());
}

/// S-26: views need 8-byte alignment, and say so instead of being read.
#[test]
fn access_refuses_a_misaligned_frame() {
    let golden = frames()[0].1.to_bytes();
    for shift in 1..8 {
        let mut moved = AlignedVec::<16>::with_capacity(golden.len() + 8);
        moved.resize(shift, 0);
        moved.extend_from_slice(&golden);
        assert!(rkyv::access::<RequestView, Failure>(&moved[shift..]).is_err(), "shifted by {shift}");
    }
}

/// S-28: removed headers are skipped by every way to look for one.
#[test]
fn removed_headers_are_not_found() {
    let bytes = request(with_removed_header()).to_bytes();
    let view = rkyv::access::<RequestView, Error>(&bytes).unwrap();
    assert_eq!(view.entries().len(), 3);
    assert_eq!(view.headers().count(), 2);
    assert_eq!(view.header_named(b""), None);
    assert_eq!(view.header(ids::HeaderId(ids::HEADER_ID_REMOVED)), None);
    assert_eq!(view.header_named(b"ACCEPT"), Some(&b"*/*"[..]));
}

impl Frame {
    fn to_bytes(&self) -> AlignedVec {
        let aligned = match self {
            Frame::Request(owned) => rkyv::to_bytes::<Error>(&**owned),
            Frame::Response(owned) => rkyv::to_bytes::<Error>(&**owned),
        };
        aligned.expect("frames serialize")
    }

    fn describe(&self, bytes: &[u8]) -> String {
        match self {
            Frame::Request(_) => describe_request(rkyv::access::<RequestView, Error>(bytes).unwrap()),
            Frame::Response(_) => describe_response(rkyv::access::<ResponseView, Error>(bytes).unwrap()),
        }
    }

    /// Follows everything that an accepted frame leads to.
    fn check_reach(&self, bytes: &[u8]) -> Result<(), Reach> {
        let frame = bytes.as_ptr_range();
        match self {
            Frame::Request(_) => {
                let view = rkyv::access::<RequestView, Failure>(bytes).map_err(|_| Reach::Refused)?;
                let spans = [
                    ("method", view.method()),
                    ("target", view.target()),
                    ("path", view.path()),
                    ("query", view.query()),
                    ("authority", view.authority()),
                    ("body", view.body()),
                ];
                check_spans(&frame, &spans)?;
                check_entries(&frame, view.entries())?;
                (0..70).try_for_each(|id| check_spans(&frame, &[("header(id)", view.header(ids::HeaderId(id)).unwrap_or_default())]))
            }
            Frame::Response(_) => {
                let view = rkyv::access::<ResponseView, Failure>(bytes).map_err(|_| Reach::Refused)?;
                check_spans(&frame, &[("reason", view.reason()), ("body", view.body())])?;
                check_entries(&frame, view.entries())?;
                (0..70).try_for_each(|id| check_spans(&frame, &[("header(id)", view.header(ids::HeaderId(id)).unwrap_or_default())]))
            }
        }
    }
}

enum Reach {
    Refused,
    Outside(&'static str),
}

fn check_entries(frame: &Range<*const u8>, entries: &[HeaderView]) -> Result<(), Reach> {
    let table = entries.as_ptr_range();
    if !entries.is_empty() && (table.start.cast() < frame.start || table.end.cast() > frame.end) {
        return Err(Reach::Outside("headers"));
    }
    entries.iter().try_for_each(|entry| check_spans(frame, &[("name", entry.name()), ("value", entry.value())]))
}

fn check_spans(frame: &Range<*const u8>, spans: &[(&'static str, &[u8])]) -> Result<(), Reach> {
    for (what, span) in spans {
        let at = span.as_ptr_range();
        if !span.is_empty() && (at.start < frame.start || at.end > frame.end) {
            return Err(Reach::Outside(what));
        }
    }
    Ok(())
}

/// One to four changes: any byte, a byte of the root or the entries, or a whole offset or length.
fn corrupt(bytes: &mut [u8], random: &mut Random) {
    let len = bytes.len() as u64;
    for _ in 0..=random.below(4) {
        let near_the_end = len - 1 - random.below(len.min(1300));
        match random.below(4) {
            0 => bytes[random.below(len) as usize] = random.next() as u8,
            1 => bytes[near_the_end as usize] ^= 1 << random.below(8),
            2 => bytes[near_the_end as usize] = random.next() as u8,
            _ => {
                let at = (near_the_end & !3) as usize;
                let word = i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                let nudged = match random.below(4) {
                    0 => word.wrapping_add(random.below(32) as i32 - 16),
                    1 => word.wrapping_add(random.below(2 * len) as i32 - len as i32),
                    2 => i32::MIN.wrapping_add(random.below(16) as i32),
                    _ => random.next() as i32,
                };
                bytes[at..at + 4].copy_from_slice(&nudged.to_le_bytes());
            }
        }
    }
}

/// xorshift64*: small, seeded, good enough to choose bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }
}

fn compare_reader(who: &str, reader: &Path) {
    for (name, frame) in frames() {
        let stored = std::fs::read(frame_path(name)).unwrap();
        let bytes = frame.to_bytes();
        assert!(stored == bytes.as_slice(), "{name}: see stored_frames_are_what_to_bytes_writes");
        let said = pipe_through(reader, &stored);
        let expected = frame.describe(&bytes);
        for (got, want) in said.lines().zip(expected.lines()) {
            assert_eq!(got, want, "{who} reads {name} differently");
        }
        assert_eq!(said, expected, "{who} reads {name} differently");
    }
}

fn pipe_through(program: &Path, input: &[u8]) -> String {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program:?} failed: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn describe_request(view: &RequestView) -> String {
    let mut out = String::from("request\n");
    for (name, value) in [
        ("method_id", u64::from(view.method_id())),
        ("http_version", view.http_version().into()),
        ("flags", view.flags().into()),
        ("edits", view.edits().into()),
        ("content_length", view.content_length()),
        ("request_id", view.request_id()),
        ("received_unix_ns", view.received_unix_ns()),
        ("peer_port", view.peer_port().into()),
        ("listener", view.listener().into()),
        ("route", view.route().into()),
        ("known_mask", view.known_mask()),
    ] {
        writeln!(out, "{name} {value}").unwrap();
    }
    describe_bytes(&mut out, "peer_addr", &view.peer_addr());
    for (name, bytes) in [
        ("method", view.method()),
        ("target", view.target()),
        ("path", view.path()),
        ("query", view.query()),
        ("authority", view.authority()),
        ("body", view.body()),
    ] {
        describe_bytes(&mut out, name, bytes);
    }
    describe_headers(&mut out, view.headers(), |id| view.header(id));
    out
}

fn describe_response(view: &ResponseView) -> String {
    let mut out = String::from("response\n");
    for (name, value) in [
        ("status", u64::from(view.status())),
        ("http_version", view.http_version().into()),
        ("origin", view.origin().into()),
        ("flags", view.flags().into()),
        ("content_length", view.content_length()),
        ("request_id", view.request_id()),
        ("upstream_ns", view.upstream_ns()),
        ("origin_plugin", view.origin_plugin().into()),
        ("edits", view.edits().into()),
        ("known_mask", view.known_mask()),
    ] {
        writeln!(out, "{name} {value}").unwrap();
    }
    describe_bytes(&mut out, "reason", view.reason());
    describe_bytes(&mut out, "body", view.body());
    describe_headers(&mut out, view.headers(), |id| view.header(id));
    out
}

fn describe_headers<'a>(out: &mut String, headers: impl Iterator<Item = &'a HeaderView>, find: impl Fn(ids::HeaderId) -> Option<&'a [u8]>) {
    for header in headers {
        writeln!(out, "header {}", header.id().0).unwrap();
        describe_bytes(out, "name", header.name());
        describe_bytes(out, "value", header.value());
    }
    // Numbers that are no id find nothing.
    for id in 0..=ids::HEADER_ID_REMOVED {
        if let Some(value) = find(ids::HeaderId(id)) {
            describe_bytes(out, &format!("first {id}"), value);
        }
    }
}

/// Length and FNV-1a 64, which the readers in C and Zig compute too.
fn describe_bytes(out: &mut String, name: &str, bytes: &[u8]) {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    writeln!(out, "{name} {} {hash:016x}", bytes.len()).unwrap();
}

fn request(owned: Request) -> Frame {
    Frame::Request(Box::new(owned))
}

fn response(owned: Response) -> Frame {
    Frame::Response(Box::new(owned))
}

fn frame_path(name: &str) -> PathBuf {
    toolchain::abi_dir().join("tests/frames").join(format!("{name}.bin"))
}

/// 64 headers: some well known, the others with this prefix; names repeat when the prefix is a whole name.
fn many_headers(prefix: &[u8]) -> Vec<Header> {
    let known = [Header::new(b"Host", b"example.com"), Header::new(b"Accept", b"text/html"), Header::new(b"X-Request-Id", b"42")];
    let others = (known.len()..64).map(|index| {
        let number = if prefix.ends_with(b"-") { index.to_string() } else { String::new() };
        Header::new(&[prefix, number.as_bytes()].concat(), format!("value {index}").as_bytes())
    });
    known.into_iter().chain(others).collect()
}

/// As many entries as a view may have; the last one is found by its id.
fn full() -> Vec<Header> {
    let fillers = (1..view::HEADERS_MAX).map(|index| Header::new(b"X-Filler", index.to_string().as_bytes()));
    fillers.chain([Header::new(b"Via", b"1.1 last")]).collect()
}

fn long_target() -> Request {
    let target = [&b"/search?q="[..], &[b'x'; 8000]].concat();
    Request { received_unix_ns: 1_760_000_000_123_456_789, route: 7, ..Request::new(b"GET", &target, vec![Header::new(b"host", b"long.example")]) }
}

/// RFC 9110 §5.5: obs-text (0x80..0xff) may appear in a field value and is opaque.
fn obs_text() -> Request {
    let value: Vec<u8> = (0x80..=0xff).chain([b'\t', b' ', b'!']).collect();
    let headers = vec![Header::new(b"Host", b"a"), Header::new(b"X-Obs", &value), Header::new(b"X-Empty", b"")];
    Request::new(b"GET", b"/obs?%ff", headers)
}

fn with_body() -> Request {
    let headers = vec![Header::new(b"Host", b"api.example:8080"), Header::new(b"Content-Length", b"11"), Header::new(b"Content-Type", b"text/plain")];
    let mut peer_addr = [0; 16];
    peer_addr[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
    Request {
        flags: view::REQ_HAS_BODY | view::REQ_BODY_COMPLETE,
        body: Octets(b"hello\0world".to_vec()),
        content_length: 11,
        peer_addr,
        peer_port: 65_535,
        listener: 3,
        request_id: u64::MAX,
        ..Request::new(b"POST", b"/v1/things", headers)
    }
}

fn with_removed_header() -> Request {
    let removed = Header { name: HeaderName { name: vec![], id: ids::HEADER_ID_REMOVED }, value: Octets::default() };
    let headers = vec![Header::new(b"Host", b"a"), removed, Header::new(b"Accept", b"*/*")];
    Request { edits: 1, ..Request::new(b"GET", b"/edited", headers) }
}

fn other_method() -> Request {
    let headers = vec![Header::new(b"Host", b"ignored.example"), Header::new(b"Transfer-Encoding", b"chunked")];
    Request {
        flags: view::REQ_HAS_BODY | view::REQ_CHUNKED | view::REQ_ABSOLUTE_TARGET,
        path: Octets(b"/cache".to_vec()),
        query: Octets(b"all".to_vec()),
        authority: Octets(b"cdn.example".to_vec()),
        content_length: u64::MAX,
        peer_addr: *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
        peer_port: 40_000,
        ..Request::new(b"PURGE", b"http://cdn.example/cache?all", headers)
    }
}

fn response_with_body() -> Response {
    let headers = vec![Header::new(b"Content-Type", b"application/json"), Header::new(b"Content-Length", b"2"), Header::new(b"ETag", b"\"x\"")];
    Response {
        flags: view::RES_HAS_BODY | view::RES_BODY_COMPLETE,
        reason: Octets(b"OK".to_vec()),
        body: Octets(b"{}".to_vec()),
        content_length: 2,
        upstream_ns: 1_234_567,
        request_id: 99,
        ..Response::new(200, headers)
    }
}

fn from_gateway() -> Response {
    let headers = vec![Header::new(b"Retry-After", b"1"), Header::new(b"Connection", b"close")];
    Response { origin: view::ORIGIN_GATEWAY, edits: 2, ..Response::new(502, headers) }
}
