//! Chains of plugins that the system's C compiler makes on the spot, run over requests that the parser wrote.
//!
//! A test writes the bodies of hooks in C; what they see and do comes back through metrics, by number, and through the
//! messages of the frame. Rules of SPEC.md: S-29 to S-39, S-43, S-54, S-60, S-61, S-80, S-83 to S-85.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway_abi::ids::HeaderId;

use super::super::chain::LinkParts;
use super::super::inspect::{Offer, inspect_bytes};
use super::super::loaded::{PluginVersion, metric_storage};
use super::super::outcall::OutcallBounds;
use super::*;
use crate::http1::head::{Area, HeadLimits, HeadProgress, parse_request};
use crate::http1::names::NameTable;
use crate::limits::Limits;
use crate::view::message::Side;
use crate::view::slab::{Slab, SlotLayout};

/// What every test plugin begins with. `COUNT(n)` adds to metric n, `HEADER(side, name, value)` adds a header.
const PRELUDE: &str = r#"
#include <string.h>
#include <ringway.h>
#define COUNT(n) cx->host->metric_add(cx, n, 1)
#define SET(n, v) cx->host->metric_set(cx, n, (uint64_t)(v))
#define BYTES(text) (const uint8_t *)(text), (uint32_t)strlen(text)
#define HEADER(side, name, value) cx->host->header_add(cx, side, BYTES(name), BYTES(value))
#define M(n) {n, "A number.", RW_METRIC_GAUGE, 0}
static const rw_metric_def metrics[] = {M("a"), M("b"), M("c"), M("d"), M("e"), M("f"), M("g"), M("h")};
"#;

/// Hooks with the type of their event and their bit.
const EVENTS: [(&str, &str, &str); 9] = [
    ("on_accept", "rw_accept", "RW_HOOK_ACCEPT"),
    ("on_request", "rw_request", "RW_HOOK_REQUEST"),
    ("on_request_chunk", "rw_chunk", "RW_HOOK_REQUEST_CHUNK"),
    ("on_request_body", "rw_chunk", "RW_HOOK_REQUEST_BODY"),
    ("on_response", "rw_response", "RW_HOOK_RESPONSE"),
    ("on_response_chunk", "rw_chunk", "RW_HOOK_RESPONSE_CHUNK"),
    ("on_event", "rw_event", "RW_HOOK_EVENT"),
    ("on_done", "rw_done", "RW_HOOK_DONE"),
    ("on_tick", "rw_tick", "RW_HOOK_TICK"),
];
const EVERYTHING: &str = "RW_WANT_EDIT_REQUEST | RW_WANT_EDIT_RESPONSE | RW_WANT_EDIT_REQUEST_BODY | RW_WANT_EDIT_RESPONSE_BODY | RW_WANT_REQUEST_BODY | RW_WANT_RESPOND | RW_WANT_UPSTREAM | RW_WANT_SUSPEND";

/// A worker with its plugins.
struct Rig {
    names: NameTable,
    shared: Option<Rc<HostShared>>,
    slab: Slab,
}

/// A plugin of a test, with what it counts.
struct Probe {
    plugin: Rc<CorePlugin>,
    metrics: Arc<[AtomicU64]>,
    on_error: OnError,
    post_always: bool,
}

impl Rig {
    fn new() -> Rig {
        let slab = Slab::new(SlotLayout::new(4096, 16384, 2048, 254, 4096), 16, false).expect("memory");
        Rig { names: NameTable::new(), shared: None, slab }
    }

    /// Compiles `code` with the prelude; `fields` are those of the descriptor that differ from 0.
    fn load(&mut self, hooks: &str, fields: &str, code: &str) -> PluginVersion {
        let source = format!(
            "{PRELUDE}\n{code}\nRW_DEFINE_NOTE(\"probe\", \"1\", RW_LANG_C, {hooks}, {EVERYTHING}, 64);\nconst rw_plugin ringway_plugin_v1 = {{\n\
             .size = sizeof(rw_plugin), .abi_major = RW_ABI_MAJOR, .abi_minor = RW_ABI_MINOR, .language = RW_LANG_C, .scratch_bytes = 64,\n\
             .layout_fingerprint = RW_LAYOUT_FINGERPRINT, .wants = {EVERYTHING}, .hooks = {hooks}, .name = \"probe\", .version = \"1\",\n\
             .metrics = metrics, .metric_count = 8, .metric_bytes = sizeof(rw_metric_def), {fields} }};\n"
        );
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("probe.c"), source).expect("the source");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let mut command = Command::new(compiler);
        command.current_dir(folder.path()).args(["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unused", "-I"]);
        let done =
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../abi/include")).args(["-o", "probe.so", "probe.c"]).output().expect("a C compiler");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let bytes = std::fs::read(folder.path().join("probe.so")).expect("the plugin");
        let facts = inspect_bytes(&bytes, &Offer::V1_0).expect("a good plugin");
        PluginVersion::load("probe", facts, &bytes, b"{}", &folder.path().join("store"), &mut self.names).expect("it loads")
    }

    /// A plugin with these hooks: name and body in C, where `cx` and `e` are the parameters.
    fn probe(&mut self, hooks: &[(&str, &str)]) -> Probe {
        let (mut code, mut bits, mut fields) = (String::new(), String::from("0"), String::new());
        for (hook, body) in hooks {
            let (_, event, bit) = EVENTS.iter().find(|(name, ..)| name == hook).expect("a hook");
            code += &format!("static rw_verdict {hook}(rw_cx *cx, const {event} *e) {{ {body} }}\n");
            bits += &format!(" | {bit}");
            fields += &format!(".{hook} = {hook}, ");
        }
        let version = self.load(&format!("({bits})"), &fields, &code);
        let metrics = metric_storage(version.metrics().len());
        let plugin = CorePlugin::new(Arc::new(version), 0, Arc::clone(&metrics)).expect("no core_init");
        Probe { plugin, metrics, on_error: OnError::Closed, post_always: false }
    }

    fn shared(&mut self) -> Rc<HostShared> {
        let made = || HostShared {
            names: Arc::new(self.names.clone()),
            slab: self.slab.clone(),
            no_chain: Rc::default(),
            upstreams: vec!["one".into()],
            plugin_response_bytes: 65536,
            plugin_alloc_bytes: 10_000,
            replacement_bytes: 65536,
            waits_max: 2,
            outcalls: OutcallBounds::of(&Limits::default()),
        };
        Rc::clone(self.shared.get_or_insert_with(|| Rc::new(made())))
    }

    /// An exchange over these links with this request head.
    fn frame(&mut self, links: &[&Probe], head: &str) -> Frame {
        let mut frame = Frame::new(self.shared(), 0);
        self.begin(&mut frame, links, head, 77);
        frame
    }

    fn begin(&mut self, frame: &mut Frame, links: &[&Probe], head: &str, request_id: u64) {
        let shared = self.shared();
        let mut slot = self.slab.take().expect("a slot");
        slot.bytes_mut(0..head.len()).copy_from_slice(head.as_bytes());
        let (bytes, entries, root) = slot.request_parts();
        let area = Area { bytes, filled: head.len() };
        let parsed = parse_request(area, &HeadLimits::default(), &shared.names, entries, root, &mut HeadProgress::default());
        assert!(matches!(parsed, Ok(Some(_))), "{parsed:?}");
        let count = root.headers.len as usize;
        let mut request = Message::parsed(slot, Side::Request, count);
        request.set_request_facts(|root| root.request_id = request_id);
        frame.set_request(request);
        let parts = links.iter().map(|probe| LinkParts {
            plugin: Rc::clone(&probe.plugin),
            on_error: probe.on_error,
            post_always: probe.post_always,
            counters: Arc::default(),
        });
        frame.begin(&shared, &Rc::new(CoreChain::new(parts.collect())));
    }
}

impl Probe {
    fn metric(&self, index: usize) -> u64 {
        self.metrics[index].load(Ordering::Relaxed)
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nhost: h\r\nx-twice: 1\r\nX-Twice: 2\r\n\r\n";

fn done(frame: &mut Frame) {
    frame.run_done(&raw::Done { size: 32, status: 200, origin: 0, flags: 0, request_body_bytes: 0, response_body_bytes: 0, duration_ns: 0 });
}

fn header<'f>(frame: &'f Frame, name: &str) -> Option<&'f [u8]> {
    frame.response().expect("a response").response().header_named(name.as_bytes())
}

/// S-32: what a hook began and did not return belongs to nobody.
#[test]
fn a_response_that_was_begun_and_not_returned_is_forgotten() {
    for verdict in ["RW_CONTINUE", "RW_DONE"] {
        let mut rig = Rig::new();
        let begins = rig.probe(&[("on_request", &format!("return cx->host->resp_begin(cx, 200) < 0 ? RW_DROP : {verdict};"))]);
        let mut claims = rig.probe(&[("on_request", "SET(0, HEADER(RW_SIDE_RESPONSE, \"x\", \"y\")); return RW_RESPOND;")]);
        claims.on_error = OnError::Open;
        let mut frame = rig.frame(&[&begins, &claims], GET);
        assert_eq!(frame.run_request(0), Flow::Continue, "{verdict}");
        assert!(frame.response().is_none());
        assert_eq!(claims.metric(0) as i64, i64::from(raw::ERR_WRONG_HOOK));
    }
}

/// S-32: bytes that were to replace a piece do not reach another message.
#[test]
fn a_replacement_of_a_hook_that_answers_is_forgotten() {
    let mut rig = Rig::new();
    let answers = rig.probe(&[("on_request_chunk", "cx->host->body_replace(cx, BYTES(\"stale\")); cx->host->resp_begin(cx, 200); return RW_RESPOND;")]);
    let looks = rig.probe(&[("on_response_chunk", "return RW_CONTINUE;")]);
    let mut frame = rig.frame(&[&looks, &answers], GET);
    assert_eq!(frame.run_request(0), Flow::Continue);
    assert_eq!(frame.run_request_chunk(b"piece", 0, true), ChunkFlow::Stop(Flow::Respond));
    assert_eq!(frame.run_response_chunk(b"body", 0, true), ChunkFlow::Forward);
}

/// S-35, S-37: a link whose pre hook answered, dropped or failed, in any of its pre hooks, gets no further hook but on_done.
#[test]
fn a_link_that_ends_the_way_forward_gets_on_done_only() {
    let after = [
        ("on_response", "COUNT(1); return RW_CONTINUE;"),
        ("on_response_chunk", "COUNT(1); return RW_CONTINUE;"),
        ("on_done", "COUNT(2); return RW_CONTINUE;"),
    ];
    let last = "cx->host->resp_begin(cx, 200); COUNT(0);";
    for (hook, verdict, on_error) in [
        ("on_request", "RW_RESPOND", OnError::Closed),
        ("on_request", "RW_ABORTED", OnError::Closed),
        ("on_request", "RW_ABORTED", OnError::Open),
        ("on_request", "RW_DROP", OnError::Closed),
        ("on_request_chunk", "RW_RESPOND", OnError::Closed),
        ("on_request_chunk", "RW_ABORTED", OnError::Closed),
        ("on_request_chunk", "RW_ABORTED", OnError::Open),
        ("on_request_body", "RW_RESPOND", OnError::Closed),
        ("on_request_body", "RW_ABORTED", OnError::Open),
    ] {
        let mut rig = Rig::new();
        let first = rig.probe(&after);
        let body = format!("{last} return {verdict};");
        let need_body = "return RW_NEED_BODY;";
        let mut hooks = vec![(hook, body.as_str())];
        hooks.extend((hook == "on_request_body").then_some(("on_request", need_body)));
        let mut ends = rig.probe(&[&hooks[..], &after].concat());
        ends.on_error = on_error;
        let mut frame = rig.frame(&[&first, &ends], GET);
        let mut flow = frame.run_request(0);
        if let Flow::NeedBody(at) = flow {
            flow = frame.run_request_body(at, b"body");
        }
        if flow == Flow::Continue {
            for piece in [&b"one"[..], b"two"] {
                frame.run_request_chunk(piece, 0, false);
            }
        }
        assert!(frame.response().is_some() || frame.respond_gateway(500, &[], b""));
        frame.run_response();
        frame.run_response_chunk(b"body", 0, true);
        done(&mut frame);
        let case = format!("{hook} {verdict} {on_error:?}");
        assert_eq!((ends.metric(0), ends.metric(1), ends.metric(2)), (1, 0, 1), "{case}");
        assert_eq!((first.metric(1), first.metric(2)), (2, 1), "{case}: the link before it");
    }
}

/// S-36: after DONE nothing but on_done.
#[test]
fn a_link_that_is_done_gets_on_done_only() {
    let mut rig = Rig::new();
    let later = "COUNT(0); return RW_CONTINUE;";
    let probe = rig.probe(&[
        ("on_request", "cx->host->header_set(cx, RW_SIDE_REQUEST, BYTES(\"x-done\"), BYTES(\"1\")); return RW_DONE;"),
        ("on_request_chunk", later),
        ("on_response", later),
        ("on_response_chunk", later),
        ("on_done", "COUNT(1); return RW_ABORTED;"),
    ]);
    let mut frame = rig.frame(&[&probe], GET);
    assert_eq!(frame.run_request(0), Flow::Continue);
    assert_eq!(frame.request().request().header_named(b"x-done"), Some(&b"1"[..]), "edits take effect");
    frame.run_request_chunk(b"piece", 0, true);
    assert!(frame.respond_gateway(200, &[], b""));
    frame.run_response();
    frame.run_response_chunk(b"body", 0, true);
    done(&mut frame);
    assert_eq!((probe.metric(0), probe.metric(1)), (0, 1));
}

/// S-35, S-37: a `post_always` link behind a short circuit sees head, body and end of the response.
#[test]
fn post_always_links_are_added_to_all_post_hooks() {
    for post_always in [false, true] {
        let mut rig = Rig::new();
        let answers = rig.probe(&[("on_request", "cx->host->resp_begin(cx, 200); return RW_RESPOND;")]);
        let mut behind = rig.probe(&[
            ("on_request", "COUNT(0); return RW_CONTINUE;"),
            ("on_response", "COUNT(1); return RW_CONTINUE;"),
            ("on_response_chunk", "COUNT(2); return RW_CONTINUE;"),
            ("on_done", "COUNT(3); return RW_CONTINUE;"),
        ]);
        behind.post_always = post_always;
        let mut frame = rig.frame(&[&answers, &behind], GET);
        assert_eq!(frame.run_request(0), Flow::Respond);
        assert_eq!(frame.run_response(), Flow::Continue);
        frame.run_response_chunk(b"body", 0, true);
        done(&mut frame);
        let once = u64::from(post_always);
        assert_eq!((0..4).map(|m| behind.metric(m)).collect::<Vec<_>>(), [0, once, once, once], "{post_always}");
    }
}

/// S-60: the three header functions edit a response that was begun, and one that was laid out; S-64: Date is the plugin's to set.
#[test]
fn headers_of_a_response_that_was_begun_are_edited() {
    let mut rig = Rig::new();
    let probe = rig.probe(&[(
        "on_request",
        "if (cx->host->resp_begin(cx, 404) < 0) return RW_DROP;
         cx->host->resp_begin(cx, 201);
         HEADER(RW_SIDE_RESPONSE, \"x-a\", \"1\"); HEADER(RW_SIDE_RESPONSE, \"X-A\", \"2\"); HEADER(RW_SIDE_RESPONSE, \"x-b\", \"b\");
         SET(0, cx->host->header_del(cx, RW_SIDE_RESPONSE, BYTES(\"x-a\")));
         SET(1, cx->host->header_del(cx, RW_SIDE_RESPONSE, BYTES(\"x-a\")));
         SET(2, cx->host->header_set(cx, RW_SIDE_RESPONSE, BYTES(\"x-b\"), BYTES(\"other\")));
         SET(3, cx->host->header_set(cx, RW_SIDE_RESPONSE, BYTES(\"date\"), BYTES(\"Thu, 01 Jan 1970 00:00:00 GMT\")));
         SET(4, HEADER(RW_SIDE_RESPONSE, \"http2-settings\", \"x\"));
         SET(5, HEADER(RW_SIDE_RESPONSE, \"x-c\", \" blank\"));
         return RW_RESPOND;",
    )]);
    let mut frame = rig.frame(&[&probe], GET);
    assert_eq!(frame.run_request(0), Flow::Respond);
    let view = frame.response().expect("a response").response();
    assert_eq!((view.status(), view.headers().count()), (201, 2));
    assert_eq!(header(&frame, "x-b"), Some(&b"other"[..]));
    assert_eq!(header(&frame, "date"), Some(&b"Thu, 01 Jan 1970 00:00:00 GMT"[..]));
    let statuses: Vec<i64> = (0..6).map(|m| probe.metric(m) as i64).collect();
    assert_eq!(statuses, [2, 0, 0, 0, i64::from(raw::ERR_FORBIDDEN), i64::from(raw::ERR_BAD_BYTES)]);
}

/// S-54: a request leaves with one Host, whatever its plugins do.
#[test]
fn host_is_replaced_and_neither_doubled_nor_removed() {
    let mut rig = Rig::new();
    let probe = rig.probe(&[(
        "on_request",
        "SET(0, HEADER(RW_SIDE_REQUEST, \"Host\", \"second\"));
         SET(1, cx->host->header_del(cx, RW_SIDE_REQUEST, BYTES(\"hOST\")));
         SET(2, cx->host->header_set(cx, RW_SIDE_REQUEST, BYTES(\"host\"), BYTES(\"other:81\")));
         SET(3, cx->host->header_set(cx, RW_SIDE_REQUEST, BYTES(\"host\"), BYTES(\"\")));
         SET(4, cx->host->header_set(cx, RW_SIDE_REQUEST, BYTES(\"host\"), BYTES(\"a, b\")));
         SET(5, cx->host->header_set(cx, RW_SIDE_REQUEST, BYTES(\"host\"), BYTES(\"u@a\")));
         SET(6, HEADER(RW_SIDE_REQUEST, \"host\", \"a b\"));
         if (cx->host->resp_begin(cx, 200) < 0) return RW_ABORTED;
         SET(7, HEADER(RW_SIDE_RESPONSE, \"host\", \"any\"));
         return RW_CONTINUE;",
    )]);
    for head in [GET, "GET /a HTTP/1.0\r\nx: y\r\n\r\n"] {
        let mut frame = rig.frame(&[&probe], head);
        assert_eq!(frame.run_request(0), Flow::Continue);
        let view = frame.request().request();
        let hosts: Vec<&[u8]> = view.headers().filter(|h| h.id() == HeaderId::HOST).map(|h| h.value()).collect();
        assert_eq!((hosts, view.authority()), (vec![&b"other:81"[..]], &b"other:81"[..]));
        let (forbidden, bad) = (i64::from(raw::ERR_FORBIDDEN), i64::from(raw::ERR_BAD_BYTES));
        let statuses: Vec<i64> = (0..8).map(|m| probe.metric(m) as i64).collect();
        assert_eq!(statuses, [forbidden, forbidden, 0, bad, bad, bad, forbidden, 0]);
    }
}

/// S-60, S-54: headers may follow a laid out response; framing is refused when it is laid out.
#[test]
fn headers_may_follow_a_laid_out_response() {
    let mut rig = Rig::new();
    let version = rig.load(
        "RW_HOOK_REQUEST",
        ".load = load, .on_request = on_request,",
        "static uint32_t laid_out;
         static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t len, void **state) {
           if (host->prebuilt_add(loader, 200, BYTES(\"Content-Length: 5\\r\\n\"), BYTES(\"body\")) != RW_ERR_FORBIDDEN) return 1;
           rw_status id = host->prebuilt_add(loader, 403, BYTES(\"x-a: 1\\r\\n\"), BYTES(\"no\"));
           laid_out = (uint32_t)id;
           return id < 0 ? id : RW_OK;
         }
         static rw_verdict on_request(rw_cx *cx, const rw_request *e) {
           if (cx->host->resp_prebuilt(cx, laid_out) < 0) return RW_ABORTED;
           return HEADER(RW_SIDE_RESPONSE, \"x-b\", \"2\") < 0 ? RW_ABORTED : RW_RESPOND;
         }",
    );
    let metrics = metric_storage(8);
    let plugin = CorePlugin::new(Arc::new(version), 0, Arc::clone(&metrics)).expect("no core_init");
    let probe = Probe { plugin, metrics, on_error: OnError::Closed, post_always: false };
    let mut frame = rig.frame(&[&probe], GET);
    assert_eq!(frame.run_request(0), Flow::Respond);
    assert_eq!((header(&frame, "x-a"), header(&frame, "x-b")), (Some(&b"1"[..]), Some(&b"2"[..])));
    assert_eq!(frame.response().expect("a response").response().content_length(), 2);
}

/// S-85: a removal counts what the hook's own edits left.
#[test]
fn a_removal_counts_edits_of_its_hook() {
    let mut rig = Rig::new();
    let probe = rig.probe(&[(
        "on_request",
        "HEADER(RW_SIDE_REQUEST, \"x-twice\", \"3\");
         SET(0, cx->host->header_del(cx, RW_SIDE_REQUEST, BYTES(\"X-TWICE\")));
         SET(1, cx->host->header_del(cx, RW_SIDE_REQUEST, BYTES(\"x-twice\")));
         HEADER(RW_SIDE_REQUEST, \"x-twice\", \"4\"); HEADER(RW_SIDE_REQUEST, \"x-twice\", \"5\");
         cx->host->header_set(cx, RW_SIDE_REQUEST, BYTES(\"x-twice\"), BYTES(\"6\"));
         SET(2, cx->host->header_del(cx, RW_SIDE_REQUEST, BYTES(\"x-twice\")));
         return RW_CONTINUE;",
    )]);
    let mut frame = rig.frame(&[&probe], GET);
    assert_eq!(frame.run_request(0), Flow::Continue);
    assert_eq!((probe.metric(0), probe.metric(1), probe.metric(2)), (3, 0, 1));
    assert_eq!(frame.request().request().header_named(b"x-twice"), None);
}

/// S-83: each edit works in its hooks and is refused in the others.
#[test]
fn edits_are_possible_in_their_hooks_only() {
    let body = "int at = cx->hook == RW_HOOK_REQUEST ? 0 : cx->hook == RW_HOOK_REQUEST_BODY ? 1 : cx->hook == RW_HOOK_REQUEST_CHUNK ? 2
                  : cx->hook == RW_HOOK_RESPONSE ? 3 : cx->hook == RW_HOOK_RESPONSE_CHUNK ? 4 : 5;
                unsigned could = 0;
                could |= HEADER(RW_SIDE_REQUEST, \"x-edit\", \"1\") == RW_OK ? 1 : 0;
                could |= cx->host->target_set(cx, BYTES(\"/b\")) == RW_OK ? 2 : 0;
                could |= cx->host->upstream_set(cx, BYTES(\"one\")) == RW_OK ? 4 : 0;
                could |= HEADER(RW_SIDE_RESPONSE, \"x-edit\", \"1\") == RW_OK ? 8 : 0;
                could |= cx->host->status_set(cx, 201) == RW_OK ? 16 : 0;
                could |= cx->host->body_replace(cx, BYTES(\"new\")) == RW_OK ? 32 : 0;
                could |= cx->host->resp_begin(cx, 200) == RW_OK ? 64 : 0;
                SET(at, could);";
    let hooks = ["on_request", "on_request_body", "on_request_chunk", "on_response", "on_response_chunk", "on_done"];
    let bodies: Vec<String> =
        hooks.iter().map(|hook| format!("{body} return {};", if *hook == "on_request" { "RW_NEED_BODY" } else { "RW_CONTINUE" })).collect();
    let mut rig = Rig::new();
    let probe = rig.probe(&hooks.iter().copied().zip(bodies.iter().map(String::as_str)).collect::<Vec<_>>());
    let mut frame = rig.frame(&[&probe], GET);
    assert_eq!(frame.run_request(0), Flow::NeedBody(0));
    assert_eq!(frame.run_request_body(0, b"body"), Flow::Continue);
    assert_eq!(frame.take_replacement().as_deref(), Some(&b"new"[..]));
    assert_eq!(frame.run_request_chunk(b"new", 0, true), ChunkFlow::Replaced);
    frame.take_replacement();
    assert!(frame.respond_gateway(200, &[], b""));
    assert_eq!(frame.run_response(), Flow::Continue);
    assert_eq!(frame.run_response_chunk(b"body", 0, true), ChunkFlow::Replaced);
    done(&mut frame);
    let could: Vec<u64> = (0..6).map(|m| probe.metric(m)).collect();
    assert_eq!(could, [1 | 2 | 4 | 64, 1 | 2 | 4 | 32 | 64, 32 | 64, 8 | 16 | 64, 32, 0]);
}

/// S-61: reserved bytes are initialized, in the slot and behind its end.
#[test]
fn reserved_bytes_can_be_read() {
    let mut rig = Rig::new();
    let probe = rig.probe(&[(
        "on_request",
        "cx->host->resp_begin(cx, 200);
         uint64_t sum = 0;
         for (uint32_t len = 1; len <= 40000; len *= 200) {
           const uint8_t *room = cx->host->resp_reserve(cx, len);
           if (room == NULL) return RW_ABORTED;
           for (uint32_t i = 0; i < len; i++) sum += room[i];
         }
         SET(0, sum);
         return cx->host->resp_reserve(cx, 70000) == NULL && cx->host->resp_commit(cx, 0) == RW_OK ? RW_RESPOND : RW_ABORTED;",
    )]);
    let mut frame = rig.frame(&[&probe], GET);
    assert_eq!(frame.run_request(0), Flow::Respond);
}

/// S-37, S-84: memory stays where it is until on_done has returned, has a bound, and is the same memory in the next exchange.
#[test]
fn exchange_memory_lives_until_on_done_and_is_used_again() {
    let mut rig = Rig::new();
    let probe = rig.probe(&[
        (
            "on_request",
            "void **kept = cx->scratch;
             for (int i = 0; i < 3; i++) { kept[i] = cx->host->alloc(cx, 3000); if (kept[i] == NULL || (uintptr_t)kept[i] % 16) return RW_ABORTED; memset(kept[i], 'a' + i, 3000); }
             SET(0, cx->host->alloc(cx, 3000) == NULL);
             SET(1, cx->host->alloc(cx, 500) != NULL);
             SET(2, (uintptr_t)kept[0]);
             return RW_CONTINUE;",
        ),
        (
            "on_done",
            "char **kept = cx->scratch;
             for (int i = 0; i < 3; i++) for (int j = 0; j < 3000; j++) if (kept[i][j] != 'a' + i) return RW_ABORTED;
             if (cx->request == NULL || cx->request->path.len != 2 || memcmp(rw_bytes(&cx->request->path), \"/a\", 2) != 0) return RW_ABORTED;
             if (cx->response == NULL || cx->response->status != 503 || cx->response->request_id != cx->request->request_id) return RW_ABORTED;
             COUNT(3);
             return RW_CONTINUE;",
        ),
    ]);
    let mut frame = rig.frame(&[&probe], GET);
    let mut addresses = Vec::new();
    for round in 1..5 {
        assert_eq!(frame.run_request(0), Flow::Continue);
        assert_eq!((probe.metric(0), probe.metric(1)), (1, 1), "the bound is 10,000 bytes");
        addresses.push(probe.metric(2));
        assert!(frame.respond_gateway(503, &[], b""));
        done(&mut frame);
        assert_eq!(probe.metric(3), round, "on_done saw the memory, the request and the response");
        frame.end();
        rig.begin(&mut frame, &[&probe], GET, 77 + round);
    }
    assert_eq!(addresses[2], addresses[3], "a warm exchange allocates nothing");
}

/// S-84, S-39: outside of exchanges there is no memory, and only failure means something.
#[test]
fn accept_and_tick_have_no_exchange() {
    let mut rig = Rig::new();
    let bare = "SET(0, cx->scratch == NULL && cx->request == NULL && cx->host->alloc(cx, 1) == NULL);";
    for (verdict, admitted, failed) in [
        ("RW_CONTINUE", true, None),
        ("RW_DONE", true, None),
        ("RW_DROP", false, None),
        ("RW_ABORTED", false, Some(PluginFault::Aborted)),
        ("RW_NEED_BODY", false, Some(PluginFault::BodyNotDeclared)),
    ] {
        let body = format!("{bare} return {verdict};");
        let probe = rig.probe(&[("on_accept", &body), ("on_tick", &body)]);
        let shared = rig.shared();
        let chain = || {
            Rc::new(CoreChain::new(vec![LinkParts {
                plugin: Rc::clone(&probe.plugin),
                on_error: OnError::Closed,
                post_always: false,
                counters: Arc::default(),
            }]))
        };
        let accept = raw::Accept { size: 24, listener: 0, peer_port: 1, peer_addr: [0; 16] };
        assert_eq!(Frame::new(Rc::clone(&shared), 0).run_accept(&chain(), &accept), admitted, "{verdict}");
        assert_eq!(probe.metric(0), 1);
        assert_eq!(run_tick(&shared, &probe.plugin, &Arc::default(), 0), failed, "{verdict}");
    }
}

/// S-43: core_init says why it fails; what belongs to load is refused in it.
#[test]
fn core_init_explains_its_failure() {
    let mut rig = Rig::new();
    let code = "static rw_status core_init(const rw_host *host, rw_loader *loader, void *state, uint32_t worker, void **core) {
                  host->load_log(loader, RW_LOG_INFO, BYTES(\"a line\"));
                  if (host->get_ext(loader, \"ringway.none/1\") != NULL) return RW_OK;
                  if (host->intern_header(loader, BYTES(\"x-late\")) != RW_ERR_WRONG_HOOK) return RW_OK;
                  if (host->prebuilt_add(loader, 200, NULL, 0, NULL, 0) != RW_ERR_WRONG_HOOK) return RW_OK;
                  REASON
                  return RW_ERR_NO_SPACE;
                }";
    for (reason, expected) in [
        ("host->load_error(loader, BYTES(\"no room for the table\"));", "plugin probe: core_init failed on worker 3: no room for the table"),
        ("", "plugin probe: core_init failed on worker 3: it gave no reason, only the status -4"),
    ] {
        let version = rig.load("0", ".core_init = core_init,", &code.replace("REASON", reason));
        let failed = CorePlugin::new(Arc::new(version), 3, metric_storage(8)).err();
        assert_eq!(failed.as_deref(), Some(expected));
    }
}

/// S-29: edits keep the bound, and an id leads to its header at every place.
#[test]
fn a_view_never_has_more_than_254_entries() {
    let mut rig = Rig::new();
    let probe = rig.probe(&[(
        "on_request",
        "rw_status status = RW_OK;
         for (int i = 0; status == RW_OK && cx->request->headers.len + i < 253; i++) status = HEADER(RW_SIDE_REQUEST, \"x\", \"\");
         SET(0, status);
         SET(1, HEADER(RW_SIDE_REQUEST, \"via\", \"1.1 last\"));
         SET(2, HEADER(RW_SIDE_REQUEST, \"x\", \"\"));
         return RW_CONTINUE;",
    )]);
    let mut frame = rig.frame(&[&probe], GET);
    assert_eq!(frame.run_request(0), Flow::Continue);
    assert_eq!((probe.metric(0), probe.metric(1), probe.metric(2) as i64), (0, 0, i64::from(raw::ERR_NO_SPACE)));
    let view = frame.request().request();
    assert_eq!((view.entries().len(), view.header(ringway_abi::ids::HeaderId::VIA)), (254, Some(&b"1.1 last"[..])));
    assert!(rkyv::access::<ringway_abi::RequestView, rkyv::rancor::Failure>(frame.request().archive()).is_ok());
}

/// S-105: only so many exchanges of a worker wait, and an exchange that ends makes room for another. `waits_max` is 2 here.
#[test]
fn more_waiting_exchanges_than_the_limit_are_a_fault() {
    let mut rig = Rig::new();
    let patient = rig.probe(&[("on_request", "return RW_SUSPEND;"), ("on_event", "COUNT(0); return RW_CONTINUE;")]);
    let waits = Rc::new(Waits::default());
    let mut frames = Vec::new();
    for id in 1..=3 {
        let mut frame = Frame::new(rig.shared(), 0).with_waits(Rc::clone(&waits));
        rig.begin(&mut frame, &[&patient], GET, id);
        frames.push(frame);
    }
    let flows: Vec<Flow> = frames.iter_mut().map(|frame| frame.run_request(0)).collect();
    assert_eq!(flows, [Flow::Suspend(0), Flow::Suspend(0), Flow::Fault(PluginFault::TooManySuspended)]);
    assert_eq!((waits.count(), patient.metric(0)), (2, 0));
    frames[0].end();
    assert_eq!((waits.count(), frames[0].is_suspended()), (1, false));
    rig.begin(&mut frames[0], &[&patient], GET, 4);
    assert_eq!(frames[0].run_request(0), Flow::Suspend(0));
    // A frame that nobody can wake cannot wait.
    assert_eq!(rig.frame(&[&patient], GET).run_request(0), Flow::Fault(PluginFault::VerdictOutOfPlace));
}
