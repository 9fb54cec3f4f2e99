//! P1–P4: views stand over the received bytes, `rkyv::access` accepts every slot, and edits leave what was received alone.

mod support;

use ringway::http1::head::{Area, HeadLimits, HeadProgress, ResponseTo, parse_request, parse_response};
use ringway::http1::names::NameTable;
use ringway::plugin::frame::{Flow, Frame};
use ringway::view::message::{EditFault, HeaderEdit, Message, Side, Staged};
use ringway::view::slab::{Slab, Slot, SlotLayout};
use ringway_abi::ids::HeaderId;
use ringway_abi::{RequestView, ResponseView};
use rkyv::rancor::Error;
use support::World;
use support::upstreams::ScriptedUpstreams;

const REQUEST: &[u8] =
    b"GET http://user.example:80/p/a?q=1 HTTP/1.1\r\nHost: other\r\nAccept: */*\r\nX-Order: Z\r\nCookie: a\r\nCookie: b\r\nX-Empty:\r\n\r\nbody";
const RESPONSE: &[u8] = b"HTTP/1.1 200 Fine\r\nContent-Length: 4\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-Odd:  v \r\n\r\nbody";

fn filled(mut slot: Slot, bytes: &[u8]) -> Slot {
    slot.bytes_mut(0..bytes.len()).copy_from_slice(bytes);
    slot
}

fn request(slot: Slot, bytes: &[u8]) -> Message {
    let mut slot = filled(slot, bytes);
    let (area, entries, root) = slot.request_parts();
    let area = Area { bytes: area, filled: bytes.len() };
    parse_request(area, &HeadLimits::default(), &NameTable::new(), entries, root, &mut HeadProgress::default()).expect("valid").expect("complete");
    let count = root.headers.len as usize;
    Message::parsed(slot, Side::Request, count)
}

fn response(slot: Slot, bytes: &[u8]) -> Message {
    let mut slot = filled(slot, bytes);
    let (area, entries, root) = slot.response_parts();
    let area = Area { bytes: area, filled: bytes.len() };
    let to = ResponseTo { method_id: ringway_abi::ids::METHOD_GET, upgrade: false };
    parse_response(area, &HeadLimits::default(), &NameTable::new(), entries, root, to, &mut HeadProgress::default()).expect("valid").expect("complete");
    let count = root.headers.len as usize;
    Message::parsed(slot, Side::Response, count)
}

/// `rkyv::access` accepts the archive and finds the view in force.
fn access_request(message: &Message) {
    let view = rkyv::access::<RequestView, Error>(message.archive()).expect("the slot is an archive");
    assert!(std::ptr::eq(view, message.request()), "the root is the last thing in the archive");
}

fn access_response(message: &Message) {
    let view = rkyv::access::<ResponseView, Error>(message.archive()).expect("the slot is an archive");
    assert!(std::ptr::eq(view, message.response()), "the root is the last thing in the archive");
}

fn slab() -> Slab {
    Slab::new(SlotLayout::new(4096, 4096, 1024, 48, 64), 4, false).expect("memory")
}

#[test]
fn p1_every_span_of_a_parsed_view_points_into_the_received_bytes() {
    let slab = slab();
    let message = request(slab.take().expect("free"), REQUEST);
    let view = message.request();
    let received = message.slot().bytes(0..REQUEST.len()).as_ptr_range();
    let inside = |bytes: &[u8]| bytes.is_empty() || (received.contains(&bytes.as_ptr()) && bytes.as_ptr_range().end <= received.end);
    assert!([view.method(), view.target(), view.path(), view.query(), view.authority(), view.body()].into_iter().all(inside));
    assert!(view.headers().all(|h| inside(h.name()) && inside(h.value())));
    assert_eq!((view.path(), view.query(), view.authority()), (&b"/p/a"[..], &b"q=1"[..], &b"user.example:80"[..]));
    access_request(&message);
    let message = response(slab.take().expect("free"), RESPONSE);
    let received = message.slot().bytes(0..RESPONSE.len()).as_ptr_range();
    let inside = |bytes: &[u8]| bytes.is_empty() || (received.contains(&bytes.as_ptr()) && bytes.as_ptr_range().end <= received.end);
    assert!(inside(message.response().reason()) && message.response().headers().all(|h| inside(h.name()) && inside(h.value())));
    access_response(&message);
}

#[test]
fn p2_messages_that_plugins_edit_and_make_are_archives() {
    let plugin = |tag: &str, on: &str| format!("[[plugin]]\nname = \"{tag}\"\npath = \"{{plugins}}/order-probe.so\"\n[plugin.config]\ntag = \"{tag}\"\n{on}");
    let text = plugin("A", "") + &plugin("B", "respond_on = \"/stop\"\n") + "[[route]]\npath = \"/\"\nupstream = \"app\"\nplugins = [\"A\", \"B\"]\n";
    let world = World::new(&text);
    let (core, _) = world.core(ScriptedUpstreams::new(Vec::new()));
    let program = core.program();
    let mut frame = Frame::new(std::rc::Rc::clone(&program.host), 0);
    let begin = |frame: &mut Frame, bytes: &[u8]| {
        frame.set_request(request(core.slab.take().expect("free"), bytes));
        frame.begin(&program.host, &program.routes[0].chain);
        access_request(frame.request());
    };
    begin(&mut frame, REQUEST);
    assert_eq!(frame.run_request(0), Flow::Continue);
    access_request(frame.request());
    assert_eq!(frame.request().request().header_named(b"x-order"), Some(&b"Z,A,B"[..]));
    assert_eq!(frame.request().slot().bytes(0..REQUEST.len()), REQUEST, "P4: what was received has not changed");
    frame.set_response(response(core.slab.take().expect("free"), RESPONSE));
    assert_eq!(frame.run_response(), Flow::Continue);
    let answer = frame.response().expect("set");
    access_response(answer);
    assert_eq!(answer.slot().bytes(0..RESPONSE.len()), RESPONSE);
    frame.end();
    // Made by a plugin, then by the gateway.
    begin(&mut frame, b"GET /stop HTTP/1.1\r\nHost: e\r\n\r\n");
    assert_eq!(frame.run_request(0), Flow::Respond);
    access_response(frame.response().expect("made"));
    assert_eq!(frame.run_response(), Flow::Continue);
    access_response(frame.response().expect("edited"));
    assert!(frame.respond_gateway(500, &[(b"retry-after", b"1")], b"sorry"));
    access_response(frame.response().expect("made"));
    assert_eq!(frame.response().expect("made").response().body(), b"sorry");
    frame.end();
    assert_eq!(core.slab.used(), 0);
}

/// Random edits against a list of names and values; every state is an archive, and the received bytes stay.
#[test]
fn p4_random_edits_are_what_the_view_shows() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let slab = slab();
        let is_request = random.bool();
        let received = if is_request { REQUEST } else { RESPONSE };
        let slot = slab.take().expect("free");
        let mut message = if is_request { request(slot, received) } else { response(slot, received) };
        let mut model = list(&message, is_request);
        for _ in 0..random.usize(1..12) {
            let mut staged = Staged::new();
            let mut next = model.clone();
            for _ in 0..random.usize(1..10) {
                let name = ["cookie", "X-Order", "x-new", "ACCEPT", "Set-Cookie", "x-odd", "x-empty"][random.usize(0..7)];
                let value = "v".repeat(random.usize(0..30));
                let edit = [HeaderEdit::Set, HeaderEdit::Add, HeaderEdit::Remove][random.usize(0..3)];
                match message.stage(&mut staged, &NameTable::new(), edit, name.as_bytes(), value.as_bytes()) {
                    Ok(()) => apply(&mut next, edit, name, &value),
                    Err(fault) => assert_eq!(fault, EditFault::NoSpace, "seed {seed}"),
                }
                assert_eq!(list(&message, is_request), model, "nothing takes effect before the hook returns, seed {seed}");
            }
            if random.bool() {
                message.apply(&mut staged);
                model = next;
            } else {
                message.discard(&mut staged);
            }
            assert_eq!(list(&message, is_request), model, "seed {seed}");
            for name in ["cookie", "accept", "set-cookie", "host", "content-length"] {
                let id = HeaderId::of(name.as_bytes());
                let found = if is_request { message.request().header(id) } else { message.response().header(id) };
                let expected = model.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice());
                assert_eq!(found, expected, "{name} by its id, seed {seed}");
            }
            assert_eq!(message.slot().bytes(0..received.len()), received, "seed {seed}");
            if is_request { access_request(&message) } else { access_response(&message) }
        }
    }
}

type Fields = Vec<(String, Vec<u8>)>;

fn list(message: &Message, is_request: bool) -> Fields {
    let own = |name: &[u8], value: &[u8]| (String::from_utf8_lossy(name).to_lowercase(), value.to_vec());
    if is_request {
        message.request().headers().map(|h| own(h.name(), h.value())).collect()
    } else {
        message.response().headers().map(|h| own(h.name(), h.value())).collect()
    }
}

fn apply(fields: &mut Fields, edit: HeaderEdit, name: &str, value: &str) {
    let name = name.to_lowercase();
    let first = fields.iter().position(|(n, _)| *n == name);
    match (edit, first) {
        (HeaderEdit::Set, Some(first)) => {
            fields[first].1 = value.into();
            let mut at = 0;
            fields.retain(|(n, _)| {
                at += 1;
                *n != name || at - 1 == first
            });
        }
        (HeaderEdit::Set, None) | (HeaderEdit::Add, _) => fields.push((name, value.into())),
        (HeaderEdit::Remove, _) => fields.retain(|(n, _)| *n != name),
    }
}
