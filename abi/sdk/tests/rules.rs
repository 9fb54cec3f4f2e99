//! What the SDK promises to authors, seen through the exported C functions and the test host.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringway_sdk::prelude::*;
use ringway_sdk::testing::{Request, Returned, TestHost, request, response, with_body};
use ringway_sdk::{describe_plugin, info, scratch, warn};

scratch! {
    #[derive(Debug)]
    struct Notes {
        calls: u32,
        kept: Kept,
    }
}

/// Does what the path says.
struct Actor {
    ticks: u64,
    last: Option<Kept>,
}

static DROPPED: AtomicU32 = AtomicU32::new(0);

struct Shared {
    refusal: Prebuilt,
    tenant: HeaderId,
}

impl Drop for Actor {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

impl Plugin for Actor {
    type Shared = Shared;
    type Scratch = Notes;

    fn load(loader: &mut Loader<'_>, config: &[u8]) -> Result<Shared, Fault> {
        info!(loader, "loading with {} bytes", config.len());
        if config == b"fail" {
            return Err("the configuration says fail".into());
        }
        assert_eq!(loader.prebuild(200, &[("a", "b\r\nc: d")], ""), Err(HostError::BadBytes));
        assert_eq!(loader.prebuild(99, &[], ""), Err(HostError::BadArgument));
        assert_eq!(loader.intern_header("host"), Ok(HeaderId::HOST));
        Ok(Shared { refusal: loader.prebuild(403, &[("x-why", "prebuilt")], "no\n")?, tenant: loader.intern_header("X-Tenant")? })
    }

    fn core_init(_: &Arc<Shared>, _: u32) -> Result<Self, Fault> {
        Ok(Actor { ticks: 0, last: None })
    }

    fn on_accept(&mut self, cx: &mut CoreCx<'_>, accept: Accept) -> Outcome {
        assert_eq!(cx.worker(), 0);
        Ok(if accept.peer_ip().is_some_and(|ip| ip.is_loopback()) { Verdict::Drop } else { Verdict::Continue })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        cx.add(CALLS, 1);
        cx.scratch().calls += 1;
        assert_eq!(cx.scratch().calls, 1, "scratch is zeroed for each exchange");
        match request.path() {
            b"/edit" => {
                cx.request_mut().set_header("x-a", "1")?.add_header("x-a", "2")?.set_target("/edited?q=1")?;
                assert_eq!(cx.request_mut().remove_header("X-Gone")?, 2);
                assert_eq!((request.header_named(b"x-a"), request.header_named(b"x-gone")), (None, Some(b"1".as_slice())), "a view does not change");
            }
            b"/refused" => {
                assert_eq!(cx.request_mut().set_header("x-a", "b\r\nc: d").err(), Some(HostError::BadBytes));
                assert_eq!(cx.request_mut().set_header("x a", "b").err(), Some(HostError::BadBytes));
                assert_eq!(cx.request_mut().set_header("content-length", "1").err(), Some(HostError::Forbidden));
                assert_eq!(cx.request_mut().set_header("host", "a b").err(), Some(HostError::BadBytes));
                assert_eq!(cx.request_mut().add_header("Host", "b").err(), Some(HostError::Forbidden));
                assert_eq!(cx.request_mut().remove_header("host").err(), Some(HostError::Forbidden));
                assert_eq!(cx.request_mut().set_target("/a b").err(), Some(HostError::BadBytes));
                assert_eq!(cx.request_mut().set_upstream("none").err(), Some(HostError::NotDeclared));
                assert_eq!(cx.response_mut().set_status(201).err(), Some(HostError::NotDeclared));
                assert_eq!(cx.replace_body("x").err(), Some(HostError::WrongHook));
            }
            b"/fault" => {
                cx.request_mut().set_header("x-a", "1")?;
                return Err(format!("no such user {}", 7).into());
            }
            b"/panic" => panic!("with {}", "text"),
            b"/respond" => {
                let mut answer = cx.respond(201)?.header("x-a", "1")?.body("one ")?;
                write!(answer, "{}", 2)?;
                let room = answer.reserve(100)?;
                assert!(room.iter().all(|byte| *byte == 0));
                room[..6].copy_from_slice(b" three");
                answer.commit(6)?;
                assert_eq!(answer.commit(1).err(), Some(HostError::BadArgument));
                assert_eq!(answer.reserve(1 << 20).err(), Some(HostError::NoSpace));
                return answer.send();
            }
            b"/dated" => {
                let answer = cx.respond(200)?.header("date", "Thu, 01 Jan 1970 00:00:00 GMT")?.header("x-a", "1")?;
                let verdict = answer.send();
                cx.response_mut().set_header("X-A", "2")?.add_header("x-b", "3")?;
                assert_eq!(cx.response_mut().remove_header("x-b"), Ok(1));
                return verdict;
            }
            b"/full" => {
                for _ in 0..254 {
                    cx.request_mut().add_header("x-a", "")?;
                }
                assert_eq!(cx.request_mut().add_header("x-a", "").err(), Some(HostError::NoSpace));
            }
            b"/twice" => {
                cx.respond(500)?.header("x-first", "1")?.body("first")?.send()?;
                return cx.respond(200)?.body("second")?.send();
            }
            b"/prebuilt" => return cx.respond_prebuilt(cx.shared().refusal),
            b"/unwritten" => return Ok(Verdict::Respond),
            b"/need-body" => return Ok(Verdict::NeedBody),
            b"/done" => return Ok(Verdict::Done),
            b"/keep" => {
                let at_first = cx.scratch().kept;
                let kept = cx.keep(b"of this exchange")?;
                assert!(self.last.is_none_or(|old| cx.kept(old).is_none()), "what another exchange kept is gone");
                assert_eq!(cx.kept(at_first), None, "nothing is kept at first");
                cx.scratch().kept = kept;
                self.last = Some(kept);
                assert_eq!(cx.alloc(1 << 20).err(), Some(HostError::NoSpace));
            }
            b"/tenant" => {
                let tenant = request.header(cx.shared().tenant).ok_or("no tenant")?;
                warn!(cx, "tenant {}", String::from_utf8_lossy(tenant));
            }
            b"/long-log" => info!(cx, "{}", "x".repeat(5000)),
            _ => {}
        }
        Ok(Verdict::Continue)
    }

    fn on_request_body(&mut self, cx: &mut Cx<'_, Self>, body: Chunk<'_>) -> Outcome {
        assert!(body.is_last() && body.offset() == 0);
        cx.request_mut().set_header("x-body-bytes", body.bytes().len().to_string())?;
        cx.replace_body(body.bytes().to_ascii_uppercase())?;
        Ok(Verdict::Continue)
    }

    fn on_response(&mut self, cx: &mut Cx<'_, Self>, response: &ResponseView) -> Outcome {
        assert_eq!(cx.response().map(ResponseView::status), Some(response.status()));
        if cx.request().path() == b"/keep" {
            let kept = cx.scratch().kept;
            assert_eq!(cx.kept(kept), Some(b"of this exchange".as_slice()));
        }
        // This plugin does not want EDIT_RESPONSE.
        assert_eq!(cx.response_mut().set_header("x", "y").err(), Some(HostError::NotDeclared));
        Ok(Verdict::Continue)
    }

    fn on_done(&mut self, cx: &mut Cx<'_, Self>, done: Done) {
        assert_eq!(done.is_aborted(), cx.request().path() == b"/aborted");
        cx.set(LAST_NS, done.duration_ns());
    }

    fn on_tick(&mut self, cx: &mut CoreCx<'_>) {
        self.ticks += 1;
        cx.set(TICKS, self.ticks);
    }
}

describe_plugin!(Actor {
    name: "actor",
    version: "1.2.3",
    hooks: [on_accept, on_request, on_request_body, on_response, on_done, on_tick],
    wants: [EDIT_REQUEST, EDIT_REQUEST_BODY, REQUEST_BODY, RESPOND],
    metrics: [
        CALLS = counter("calls_total", "Calls of on_request."),
        LAST_NS = gauge("last_ns", "How long the last exchange took."),
        TICKS = gauge("ticks", "Ticks."),
    ],
});

fn loaded() -> TestHost<Actor> {
    TestHost::load("{}").expect("the configuration is good")
}

fn get(path: &str) -> Request {
    request("GET", path, &[])
}

#[test]
fn edits_take_effect_after_the_hook_and_removed_headers_leave_tombstones() {
    let mut host = loaded();
    let mut exchange = host.exchange(request("GET", "/edit", &[("x-gone", "1"), ("X-GONE", "2"), ("x-b", "b")]));
    exchange.on_request().continues();
    assert_eq!(exchange.request.target.0, b"/edited?q=1");
    assert_eq!((exchange.request.path.0.as_slice(), exchange.request.query.0.as_slice()), (b"/edited".as_slice(), b"q=1".as_slice()));
    assert_eq!((exchange.request_header("x-a"), exchange.request_header("x-gone")), (Some("1"), None));
    assert_eq!(exchange.request.headers.0.len(), 5);
}

#[test]
fn what_is_not_allowed_is_refused_with_its_reason_and_changes_nothing() {
    let mut host = loaded();
    let mut exchange = host.exchange(get("/refused"));
    exchange.on_request().continues();
    assert!(exchange.request.headers.0.is_empty());
    assert_eq!((exchange.request.target.0.as_slice(), exchange.request.edits), (b"/refused".as_slice(), 0));
    assert!(exchange.host().refusals().contains(&("header_set", HostError::Forbidden)));
}

#[test]
fn a_fault_and_a_panic_are_one_line_each_and_drop_the_edits() {
    let mut host = loaded();
    let before = host.logs().len();
    for (path, text) in [("/fault", "no such user 7"), ("/panic", "with text")] {
        let mut exchange = host.exchange(get(path));
        assert_eq!(exchange.on_request(), Returned::Aborted);
        assert!(exchange.request.headers.0.is_empty());
        let line = host.logs().last().expect("a line");
        assert!(line.level == Level::Error && line.text.contains(text), "{line:?}");
    }
    assert_eq!(host.logs().len(), before + 2);
    assert_eq!(host.serve(get("/fault"), |_| unreachable!("on_error is closed")).status, 500);
}

#[test]
fn answers_are_written_in_pieces_begun_anew_or_prebuilt() {
    let mut host = loaded();
    let answer = host.exchange(get("/respond")).on_request().answer();
    assert_eq!((answer.status, answer.header("X-A"), answer.body.as_slice()), (201, Some("1"), b"one 2 three".as_slice()));
    let answer = host.exchange(get("/dated")).on_request().answer();
    assert_eq!(answer.headers, [("date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("x-a", "2")].map(|(n, v)| (n.to_owned(), v.to_owned())));
    let mut exchange = host.exchange(get("/full"));
    exchange.on_request().continues();
    assert_eq!(exchange.on_response(response(200, &[], b"")), Returned::Continue, "a view shows 254 entries");
    let answer = host.exchange(get("/twice")).on_request().answer();
    assert_eq!((answer.status, answer.header("x-first"), answer.body.as_slice()), (200, None, b"second".as_slice()));
    let answer = host.exchange(get("/prebuilt")).on_request().answer();
    assert_eq!((answer.status, answer.header("x-why"), answer.body.as_slice()), (403, Some("prebuilt"), b"no\n".as_slice()));
    assert_eq!(host.exchange(get("/unwritten")).on_request(), Returned::Aborted);
}

#[test]
fn a_body_is_buffered_on_demand_and_replaced() {
    let mut host = loaded();
    let mut exchange = host.exchange(with_body(request("POST", "/need-body", &[]), b"abc"));
    assert_eq!(exchange.on_request(), Returned::NeedBody);
    exchange.on_request_body(b"abc").continues();
    assert_eq!((exchange.request_header("x-body-bytes"), exchange.request_body.as_slice()), (Some("3"), b"ABC".as_slice()));
}

#[test]
fn done_ends_the_hooks_of_the_exchange_but_on_done() {
    let mut host = loaded();
    let mut exchange = host.exchange(get("/done"));
    assert_eq!(exchange.on_request(), Returned::Done);
    assert_eq!(exchange.on_response(response(200, &[], b"")), Returned::NotCalled);
    exchange.on_done(false);
    let mut exchange = host.exchange(get("/aborted"));
    exchange.on_request().continues();
    exchange.on_done(true);
    assert_eq!(host.logs().len(), 1, "{:?}", host.logs());
}

#[test]
fn kept_bytes_live_as_long_as_their_exchange() {
    let mut host = loaded();
    for _ in 0..2 {
        let answer = host.serve(get("/keep"), |_| response(200, &[], b"body"));
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"body".as_slice()), "{:?}", host.logs());
    }
}

#[test]
fn interned_headers_logs_metrics_ticks_and_accept_work() {
    let mut host = loaded();
    host.exchange(request("GET", "/tenant", &[("x-TENANT", "t1")])).on_request().continues();
    assert_eq!(host.logs().last().map(|line| (line.level, line.text.as_str())), Some((Level::Warn, "tenant t1")));
    host.exchange(get("/long-log")).on_request().continues();
    assert_eq!(host.logs().last().map(|line| line.text.len()), Some(1024));
    host.tick();
    host.tick();
    assert_eq!((host.metric("calls_total"), host.metric("ticks")), (2, 2));
    assert!(host.accept([192, 0, 2, 1].into()));
    assert!(!host.accept([127, 0, 0, 1].into()));
    host.advance(Duration::from_secs(1));
}

#[test]
fn loading_fails_with_the_authors_words_and_instances_are_dropped_once() {
    assert_eq!(TestHost::<Actor>::load("fail").err().map(|refusal| refusal.0), Some("the configuration says fail".to_owned()));
    let mut host = loaded();
    host.exchange(get("/")).on_request().continues();
    let before = DROPPED.load(Ordering::Relaxed);
    drop(host);
    assert!(DROPPED.load(Ordering::Relaxed) > before);
}

/// Fails where each worker begins.
#[derive(Debug)]
struct Late;

impl Plugin for Late {
    type Shared = ();
    type Scratch = ();

    fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn core_init(_: &Arc<()>, worker: u32) -> Result<Self, Fault> {
        Err(format!("worker {worker} finds no table").into())
    }
}

describe_plugin!(Late { name: "late", version: "1", hooks: [] });

#[test]
fn core_init_fails_with_the_authors_words() {
    let refusal = TestHost::<Late>::load("{}").err().expect("refused");
    assert_eq!(refusal.0, "worker 0 finds no table");
}

/// Implements a hook that its description does not list.
struct Forgetful;

impl Plugin for Forgetful {
    type Shared = ();
    type Scratch = ();

    fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn core_init(_: &Arc<()>, _: u32) -> Result<Self, Fault> {
        Ok(Forgetful)
    }

    fn on_response(&mut self, _: &mut Cx<'_, Self>, _: &ResponseView) -> Outcome {
        Ok(Verdict::Continue)
    }
}

describe_plugin!(Forgetful { name: "forgetful", version: "1", hooks: [on_request] });

#[test]
fn a_hook_that_is_implemented_and_not_listed_is_found() {
    let refusal = TestHost::<Forgetful>::load("{}").err().expect("refused");
    assert!(refusal.0.starts_with("on_response is implemented, but export_plugin! does not list it"), "{refusal}");
}

/// Panics wherever the SDK calls it outside hooks.
struct Fragile(Arc<AtomicU32>);

impl Drop for Fragile {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("in drop");
    }
}

static FRAGILE_DROPS: AtomicU32 = AtomicU32::new(0);

struct FragileShared(Arc<AtomicU32>);

impl Drop for FragileShared {
    fn drop(&mut self) {
        FRAGILE_DROPS.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        panic!("in drop of what is shared");
    }
}

impl Plugin for Fragile {
    type Shared = FragileShared;
    type Scratch = ();

    fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<FragileShared, Fault> {
        Ok(FragileShared(Arc::default()))
    }

    fn core_init(shared: &Arc<FragileShared>, _: u32) -> Result<Self, Fault> {
        Ok(Fragile(Arc::clone(&shared.0)))
    }
}

describe_plugin!(Fragile { name: "fragile", version: "1", hooks: [] });

#[test]
fn destructors_that_panic_run_once_and_stay_inside() {
    drop(TestHost::<Fragile>::load("{}").expect("loads"));
    assert_eq!(FRAGILE_DROPS.load(Ordering::Relaxed), 2);
}
