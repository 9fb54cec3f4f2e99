//! P5: a warm keep-alive exchange allocates nothing.
//!
//! A connection with many exchanges must allocate exactly as often as one with few. What a plugin allocates for itself is not
//! counted: it brings its own allocator.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use ringway::exchange::capture::{Capture, Taken, Taking};
use ringway::exchange::watch::Watch;
use ringway::exchange::{End, serve};
use support::case::{PEER, run_ready};
use support::stream::{Events, Pipe, bytes};
use support::upstreams::ScriptedUpstreams;
use support::{Step, Upstream, World};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and nobody reads it.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of a connection with so many exchanges.
fn allocations(world: &World, exchanges: usize, request: &str, answer: &[u8]) -> u64 {
    allocations_with(world, exchanges, request, answer, None)
}

/// The same while exchanges are captured.
fn allocations_with(world: &World, exchanges: usize, request: &str, answer: &[u8], capture: Option<Box<Taking>>) -> u64 {
    let events = Rc::new(Events::default());
    let down = Pipe::new((0..exchanges).map(|_| bytes(request)).collect(), Rc::clone(&events));
    let planned = Upstream::script((0..exchanges).flat_map(|_| [Step::AwaitHead, bytes(answer)]).collect());
    let up = Pipe::new(planned.steps.clone(), events);
    for pipe in [&down, &up] {
        pipe.sent.borrow_mut().reserve(exchanges * (request.len() + answer.len() + 2000));
    }
    let (core, _) = world.core(ScriptedUpstreams::new(vec![(planned, Rc::clone(&up))]));
    let (mut reader, mut writer) = down.halves();
    let slot = core.slab.take().expect("a slot is free");
    let watch = Watch::default();
    if let Some(capture) = capture {
        core.captures.begin(capture);
    }
    let before = ALLOCATIONS.get();
    let serving = serve(&core, &watch, PEER, &mut reader, &mut writer, slot);
    let mut serving = std::pin::pin!(serving);
    let end = run_ready(std::future::poll_fn(|cx| {
        core.waits.fire(u64::MAX - 1);
        serving.as_mut().poll(cx)
    }));
    let count = ALLOCATIONS.get() - before;
    core.captures.settle();
    assert_eq!(end, End::Park);
    assert_eq!(watch.requests.get() as usize, exchanges);
    let ok = down.sent.borrow().windows(13).filter(|w| *w == b"HTTP/1.1 200 ").count();
    assert_eq!(ok, exchanges, "{}", String::from_utf8_lossy(&down.sent.borrow()[..500]));
    count
}

fn assert_no_allocation_when_warm(world: &World, request: &str, answer: &[u8]) {
    allocations(world, 5, request, answer);
    let (few, many) = (allocations(world, 10, request, answer), allocations(world, 210, request, answer));
    assert_eq!(many, few, "200 more exchanges allocate {} times more: {request:?}", many as i64 - few as i64);
}

const GET: &str = "GET /a?b HTTP/1.1\r\nHost: example\r\nUser-Agent: test\r\nAccept: */*\r\nCookie: a=b\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: example\r\nContent-Length: 5\r\n\r\nhello";
const ABSOLUTE: &str = "GET http://example/a HTTP/1.1\r\nHost: example\r\nConnection: x-y\r\nX-Y: 1\r\n\r\n";
const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

#[test]
fn without_plugins() {
    let world = World::plain();
    let large = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".as_slice(), &[b'x'; 100_000]].concat();
    for request in [GET, POST, ABSOLUTE] {
        for answer in [LENGTH, CHUNKED, &large] {
            assert_no_allocation_when_warm(&world, request, answer);
        }
    }
}

/// Copying them does not allocate either: what does not fit is skipped.
#[test]
fn while_exchanges_are_captured() {
    let world = World::plain();
    let taken = |exchanges: usize, room: usize, wanted: u32| {
        let (to, from) = mpsc::channel();
        // It is over at once when the worker looks at its time.
        let capture = Arc::new(Capture::new(None, wanted, 0));
        let taking = Box::new(Taking { capture, taken: Taken::with_room(room), to });
        let count = allocations_with(&world, exchanges, GET, LENGTH, Some(taking));
        (count, from.try_recv().expect("it is handed over"))
    };
    for _ in 0..2 {
        taken(5, 1 << 20, 100);
    }
    let ((few, all), (many, some), (none, full)) = (taken(10, 1 << 20, 1000), taken(210, 1 << 20, 100), taken(10, 12_000, 1000));
    assert_eq!((few, few), (many, none));
    assert_eq!((all.count, all.skipped), (10, 0));
    assert_eq!((some.count, some.skipped), (100, 0), "no more than were wanted");
    assert!(full.count > 0 && full.skipped > 0 && full.count + full.skipped == 10 && full.bytes.capacity() == 12_000, "{} {}", full.count, full.skipped);
}

/// C, Rust and Zig in one chain; lookups, request edits, response edits, body hooks.
#[test]
fn with_four_plugins_of_three_languages() {
    let plugin = |name: &str| format!("[[plugin]]\nname = \"{name}\"\npath = \"{{plugins}}/{name}.so\"\n");
    let chain = |names: &[&str]| {
        let plugins: String = names.iter().map(|name| plugin(name)).collect();
        World::new(&format!("{plugins}[[route]]\npath = \"/\"\nupstream = \"app\"\nplugins = {names:?}\n"))
    };
    for names in [
        ["request-id", "bench-set-request", "bench-set-response", "bench-lookup-zig"],
        ["bench-lookup-c", "bench-lookup-rust", "bench-chunk", "bench-set-response"],
    ] {
        let world = chain(&names);
        for request in [GET, POST] {
            for answer in [LENGTH, CHUNKED] {
                assert_no_allocation_when_warm(&world, request, answer);
            }
        }
    }
}

/// Each time that everything waits, what is due is fired.
#[test]
fn with_a_plugin_that_waits() {
    let world = World::new(
        "[[plugin]]\nname = \"a\"\npath = \"{actor}\"\n[plugin.config]\ntag = \"A\"\n[[route]]\npath = \"/\"\nupstream = \"app\"\nplugins = [\"a\"]\n",
    );
    for act in ["A.request=timer:0", "A.response=timer:0", "A.request=timer:0,A.event=timer:0,A.response=timer:0"] {
        let request = format!("GET /a?b HTTP/1.1\r\nHost: example\r\nx-act: {act}\r\n\r\n");
        assert_no_allocation_when_warm(&world, &request, LENGTH);
    }
}

#[test]
fn answered_by_a_plugin() {
    let world = World::new(
        "[[plugin]]\nname = \"respond\"\npath = \"{plugins}/bench-respond.so\"\n[[plugin]]\nname = \"set\"\npath = \"{plugins}/bench-set-response.so\"\n\
         [[route]]\npath = \"/\"\nplugins = [\"set\", \"respond\"]\n",
    );
    for request in [GET, POST] {
        assert_no_allocation_when_warm(&world, request, LENGTH);
    }
}
