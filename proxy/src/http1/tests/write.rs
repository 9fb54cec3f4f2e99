//! What is forwarded: rules 7, 13, 15, 25, 27, 34, 36, 37, 52, 72 and 78, and that unedited lines leave as they came.

use ringway_abi::ids::{HEADER_ID_REMOVED, METHOD_GET, METHOD_HEAD};
use ringway_abi::raw::{RawNameSpan, RawRequest, RawResponse, RawSpan};

use super::super::head::{Area, EntrySet, HeadLimits, HeadProgress, RequestFacts, ResponseFacts, ResponseTo, parse_request, parse_response};
use super::super::names::NameTable;
use super::super::testing::{SLOT_BYTES, Slot};
use super::super::write::{Addition, Connection, NoRoom, OutFraming, reason, write_request_head, write_response_head};

fn parsed_request(input: &str) -> (Box<Slot<RawRequest>>, RequestFacts) {
    let mut slot = Slot::request();
    slot.bytes[..input.len()].copy_from_slice(input.as_bytes());
    let area = Area { bytes: &slot.bytes, filled: input.len() };
    let facts = parse_request(area, &HeadLimits::default(), &NameTable::new(), &mut slot.entries, &mut slot.root, &mut HeadProgress::default());
    (slot, facts.unwrap().expect("a whole head"))
}

fn parsed_response(input: &str, method_id: u8, upgrade: bool) -> (Box<Slot<RawResponse>>, ResponseFacts) {
    let mut slot = Slot::response();
    slot.bytes[..input.len()].copy_from_slice(input.as_bytes());
    let area = Area { bytes: &slot.bytes, filled: input.len() };
    let to = ResponseTo { method_id, upgrade };
    let facts = parse_response(area, &HeadLimits::default(), &NameTable::new(), &mut slot.entries, &mut slot.root, to, &mut HeadProgress::default());
    (slot, facts.unwrap().expect("a whole head"))
}

fn written_request(slot: &Slot<RawRequest>, facts: &RequestFacts, framing: OutFraming, additions: &[Addition<'_>]) -> String {
    let mut out = [0; 4096];
    let received = &slot.bytes[..facts.head_bytes as usize];
    let len = write_request_head(&mut out, slot.view(), received, &facts.dropped, &[], framing, additions).unwrap();
    for room in 0..len {
        let short = write_request_head(&mut out[..room], slot.view(), received, &facts.dropped, &[], framing, additions);
        assert_eq!(short, Err(NoRoom), "{room} of {len}");
    }
    assert!(write_request_head(&mut out[..len], slot.view(), received, &facts.dropped, &[], framing, additions).is_ok());
    String::from_utf8(out[..len].to_vec()).unwrap()
}

fn written_response(slot: &Slot<RawResponse>, facts: &ResponseFacts, framing: OutFraming, connection: Connection) -> String {
    let mut out = [0; 4096];
    let received = &slot.bytes[..facts.head_bytes as usize];
    let len = write_response_head(&mut out, slot.view(), received, &facts.dropped, framing, connection, &[]).unwrap();
    assert_eq!(write_response_head(&mut out[..len - 1], slot.view(), received, &facts.dropped, framing, connection, &[]), Err(NoRoom));
    String::from_utf8(out[..len].to_vec()).unwrap()
}

fn forwarded(input: &str) -> String {
    let (slot, facts) = parsed_request(input);
    written_request(&slot, &facts, OutFraming::AsReceived, &[])
}

fn relayed(input: &str, method_id: u8) -> String {
    let (slot, facts) = parsed_response(input, method_id, false);
    written_response(&slot, &facts, OutFraming::AsReceived, Connection::Nothing)
}

/// An edit as the gateway makes it: bytes in an arena, a span in the entry that leads there, and a count.
fn edit(slot: &mut Slot<RawRequest>, index: usize, name: &str, value: &str) {
    let arena = SLOT_BYTES - 4096 + index * 128;
    slot.bytes[arena..][..name.len()].copy_from_slice(name.as_bytes());
    slot.bytes[arena + 64..][..value.len()].copy_from_slice(value.as_bytes());
    let base = slot.bytes.as_ptr().addr();
    let entry = &mut slot.entries[index];
    let id = NameTable::new().id(name.as_bytes());
    let name_off = (base + arena) as isize - core::ptr::from_ref(&entry.name).addr() as isize;
    let value_off = (base + arena + 64) as isize - core::ptr::from_ref(&entry.value).addr() as isize;
    entry.name = RawNameSpan { off: name_off as i32, len: name.len() as u16, id };
    entry.value = RawSpan { off: value_off as i32, len: value.len() as u32 };
    slot.root.edits += 1;
}

fn remove(slot: &mut Slot<RawRequest>, index: usize) {
    slot.entries[index].name = RawNameSpan { off: 0, len: 0, id: HEADER_ID_REMOVED };
    slot.entries[index].value = RawSpan::default();
    slot.root.edits += 1;
}

#[test]
fn rule_07_our_own_version() {
    for version in ["1.0", "1.1", "1.7"] {
        assert_eq!(forwarded(&format!("GET /a?b HTTP/{version}\r\nHost: h\r\n\r\n")), "GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n");
        let response = relayed(&format!("HTTP/{version} 200 Fine\r\nContent-Length: 0\r\n\r\n"), METHOD_GET);
        assert_eq!(response, "HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n");
    }
}

#[test]
fn rule_25_and_27_unedited_lines_leave_as_they_came() {
    let lines = "hOsT:h\r\nA:\t 1 \t\r\nX-Unknown:\r\nA: 2\r\nSet-Cookie: a,b\r\nSET-COOKIE: c\r\nX-\x7e: z\r\nContent-Length: 5\r\n";
    let head = format!("POST / HTTP/1.1\r\n{lines}\r\n");
    assert_eq!(forwarded(&head), head);
    let response = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
    assert_eq!(relayed(&response, METHOD_GET), response);
    assert_eq!(forwarded(&format!("\r\n{head}")), head, "an empty line before the request is not forwarded");
}

#[test]
fn rule_52_dropped_lines_leave_gaps_and_nothing_else() {
    for (received, kept) in [
        ("Host: h\r\nConnection: close\r\nA: 1\r\n", "Host: h\r\nA: 1\r\n"),
        ("Connection: close\r\nHost: h\r\nA: 1\r\n", "Host: h\r\nA: 1\r\n"),
        ("Host: h\r\nA: 1\r\nConnection: close\r\n", "Host: h\r\nA: 1\r\n"),
        ("Host: h\r\nTE: a\r\nConnection: x\r\nx: y\r\nKeep-Alive: 5\r\nA: 1\r\nUpgrade: z\r\nB: 2\r\n", "Host: h\r\nA: 1\r\nB: 2\r\n"),
    ] {
        assert_eq!(forwarded(&format!("GET / HTTP/1.1\r\n{received}\r\n")), format!("GET / HTTP/1.1\r\n{kept}\r\n"));
    }
    let (slot, facts) = parsed_request("GET / HTTP/1.0\r\nConnection: close\r\n\r\n");
    assert_eq!(written_request(&slot, &facts, OutFraming::AsReceived, &[]), "GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn rule_13_absolute_form_goes_out_in_origin_form() {
    for (target, out) in [("http://a.b/c?d", "/c?d"), ("http://a.b", "/"), ("http://a.b?q", "/?q"), ("HTTPS://a.b/", "/"), ("http://a.b//c://d", "//c://d")] {
        let head = format!("GET {target} HTTP/1.1\r\nX: y\r\nHost: other\r\nZ: z\r\n\r\n");
        assert_eq!(forwarded(&head), format!("GET {out} HTTP/1.1\r\nhost: a.b\r\nX: y\r\nZ: z\r\n\r\n"));
    }
    assert_eq!(forwarded("GET http://a/ HTTP/1.0\r\n\r\n"), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
}

#[test]
fn rule_15_options_for_the_server() {
    assert_eq!(forwarded("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"), "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(forwarded("OPTIONS http://a HTTP/1.1\r\nHost: h\r\n\r\n"), "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(forwarded("OPTIONS http://a?q HTTP/1.1\r\nHost: h\r\n\r\n"), "OPTIONS /?q HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(forwarded("OPTIONS http://a/ HTTP/1.1\r\nHost: h\r\n\r\n"), "OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\n");
}

#[test]
fn rule_34_one_canonical_coding() {
    assert_eq!(
        forwarded("POST / HTTP/1.1\r\nTransfer-Encoding:  CHUNKED \r\nHost: h\r\n\r\n"),
        "POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let both = relayed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n", METHOD_GET);
    assert_eq!(both, "HTTP/1.1 200 OK\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n");
}

#[test]
fn rule_36_and_37_one_canonical_length() {
    assert_eq!(forwarded("POST / HTTP/1.1\r\nContent-Length: 0005\r\nHost: h\r\n\r\n"), "POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(
        relayed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\nContent-Length: 5, 5\r\n\r\n", METHOD_GET),
        "HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 5\r\n\r\n"
    );
    let zero = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(forwarded(zero), zero);
}

#[test]
fn rule_50_framing_by_the_exchange_replaces_all_that_was_received() {
    for framing in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        let (slot, facts) = parsed_request(&format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}A: b\r\n\r\n"));
        for (out, line) in [
            (OutFraming::Chunked, "transfer-encoding: chunked\r\n"),
            (OutFraming::Length(0), "content-length: 0\r\n"),
            (OutFraming::Length(1234), "content-length: 1234\r\n"),
            (OutFraming::None, ""),
        ] {
            assert_eq!(written_request(&slot, &facts, out, &[]), format!("POST / HTTP/1.1\r\nHost: h\r\nA: b\r\n{line}\r\n"));
        }
    }
}

#[test]
fn rule_72_and_78_no_framing_where_no_body_can_be() {
    for status in [100, 103, 204] {
        let (slot, facts) =
            parsed_response(&format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n"), METHOD_GET, false);
        for framing in [OutFraming::AsReceived, OutFraming::Chunked, OutFraming::Length(5), OutFraming::None] {
            assert_eq!(written_response(&slot, &facts, framing, Connection::Nothing), format!("HTTP/1.1 {status} X\r\nA: b\r\n\r\n"));
        }
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(relayed(head, METHOD_HEAD), head, "kept on HEAD");
    assert_eq!(relayed(&head.replace(": 5", ": 05"), METHOD_HEAD), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    let none = "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n";
    assert_eq!(relayed(none, METHOD_GET), none, "and not invented");
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(relayed(both, METHOD_HEAD), "HTTP/1.1 200 OK\r\n\r\n");
}

#[test]
fn connection_lines_and_additions_come_last() {
    let (slot, facts) = parsed_response("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", METHOD_GET, false);
    for (connection, line) in [(Connection::Nothing, ""), (Connection::Close, "connection: close\r\n"), (Connection::KeepAlive, "connection: keep-alive\r\n")] {
        let out = written_response(&slot, &facts, OutFraming::AsReceived, connection);
        assert_eq!(out, format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{line}\r\n"));
    }
    let (slot, facts) = parsed_request("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let additions = [Addition { name: b"via", value: b"1.1 ringway" }, Addition { name: b"x-empty", value: b"" }];
    let out = written_request(&slot, &facts, OutFraming::AsReceived, &additions);
    assert_eq!(out, "GET / HTTP/1.1\r\nHost: h\r\nvia: 1.1 ringway\r\nx-empty: \r\n\r\n");
}

#[test]
fn rule_84_an_upgrade_passes_with_its_protocol() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, x\r\nUpgrade: websocket\r\nX: y\r\nSec-WebSocket-Accept: z\r\n\r\n";
    let (slot, facts) = parsed_response(head, METHOD_GET, true);
    let out = written_response(&slot, &facts, OutFraming::AsReceived, Connection::Upgrade);
    assert_eq!(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: z\r\nconnection: upgrade\r\n\r\n");
}

#[test]
fn edited_entries_are_written_and_the_others_are_copied() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\nA:  1\r\nB: 2 \r\nC:\r\nConnection: D\r\nD: 4\r\nE: 5\r\n\r\n";
    let (mut slot, facts) = parsed_request(head);
    edit(&mut slot, 2, "B", "new");
    let once = written_request(&slot, &facts, OutFraming::AsReceived, &[]);
    assert_eq!(once, "GET / HTTP/1.1\r\nHost: h\r\nA:  1\r\nB: new\r\nC:\r\nE: 5\r\n\r\n");
    remove(&mut slot, 1);
    edit(&mut slot, 0, "Host", "other");
    edit(&mut slot, 7, "F", "6");
    slot.root.headers.len = 8;
    let more = written_request(&slot, &facts, OutFraming::AsReceived, &[]);
    assert_eq!(more, "GET / HTTP/1.1\r\nHost: other\r\nB: new\r\nC:\r\nE: 5\r\nF: 6\r\n\r\n");
    // What a plugin sets is its own, also under a name that the client's Connection listed.
    edit(&mut slot, 5, "D", "ours");
    let named = written_request(&slot, &facts, OutFraming::AsReceived, &[]);
    assert_eq!(named, "GET / HTTP/1.1\r\nHost: other\r\nB: new\r\nC:\r\nD: ours\r\nE: 5\r\nF: 6\r\n\r\n");
}

/// An edit that points the value elsewhere, to nothing, or into the received bytes must not bring the old line back.
#[test]
fn a_line_is_copied_only_if_it_says_what_its_entry_says() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\nA: one two\r\nB: x\r\n\r\n";
    let line_of = |change: fn(&mut Slot<RawRequest>)| {
        let (mut slot, facts) = parsed_request(head);
        change(&mut slot);
        slot.root.edits = 1;
        written_request(&slot, &facts, OutFraming::AsReceived, &[])
    };
    let expected = |line: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{line}\r\nB: x\r\n\r\n");
    assert_eq!(line_of(|_| {}), expected("A: one two"));
    assert_eq!(line_of(|slot| slot.entries[1].value.len = 0), expected("A: "));
    assert_eq!(line_of(|slot| slot.entries[1].value.len = 3), expected("A: one"));
    assert_eq!(
        line_of(|slot| {
            slot.entries[1].value.off += 4;
            slot.entries[1].value.len -= 4;
        }),
        expected("A: two")
    );
}

#[test]
fn an_edited_target_goes_out_as_it_is() {
    let (mut slot, facts) = parsed_request("GET http://a/b HTTP/1.1\r\nHost: h\r\n\r\n");
    let at = SLOT_BYTES - 64;
    slot.bytes[at..at + 4].copy_from_slice(b"/new");
    let address = slot.bytes.as_ptr().addr() + at;
    slot.root.target = RawSpan { off: (address as isize - core::ptr::from_ref(&slot.root.target).addr() as isize) as i32, len: 4 };
    slot.root.edits = 1;
    assert_eq!(written_request(&slot, &facts, OutFraming::AsReceived, &[]), "GET /new HTTP/1.1\r\nhost: a\r\n\r\n");
    // A Host that a plugin set wins over the authority of the received target.
    edit(&mut slot, 0, "Host", "set");
    assert_eq!(written_request(&slot, &facts, OutFraming::AsReceived, &[]), "GET /new HTTP/1.1\r\nHost: set\r\n\r\n");
}

#[test]
fn a_response_that_came_from_nowhere_is_written_line_by_line() {
    let (mut slot, _) = parsed_response("HTTP/1.1 403 \r\nA: b\r\nC:\r\n\r\n", METHOD_GET, false);
    slot.root.content_length = 3;
    let mut out = [0; 256];
    let len = write_response_head(&mut out, slot.view(), &[], &EntrySet::EMPTY, OutFraming::Length(3), Connection::Close, &[]).unwrap();
    assert_eq!(&out[..len], b"HTTP/1.1 403 Forbidden\r\nA: b\r\nC: \r\ncontent-length: 3\r\nconnection: close\r\n\r\n");
}

#[test]
fn every_status_of_the_fault_table_has_a_reason_phrase() {
    for fault in crate::error::Fault::all() {
        assert!(!reason(fault.row().status).is_empty(), "{}", fault.row().status);
    }
    assert!(reason(299).is_empty());
}
