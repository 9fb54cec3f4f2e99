//! The frozen layout: what rustc, a C compiler and Zig make of the contract equals `layout-1.0.txt`, byte for byte.
//!
//! Rules of SPEC.md: S-1 to S-5.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod toolchain;

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;

use ringway_abi::{ids, raw, view};

const FROZEN: &str = include_str!("../layout-1.0.txt");
const HEADER: &str = include_str!("../include/ringway.h");
/// What extensions add to the header: they have layouts and tests of their own, and the fingerprint does not cover them.
const EXTENSIONS: [&str; 1] = [include_str!("../layout-maps-1.txt")];

macro_rules! print_structs {
    ($out:ident: $($c_name:ident = $rust:ty { $($field:ident $(as $c_field:literal)?),* $(,)? })*) => {$(
        writeln!($out, "struct {} size {} align {}", stringify!($c_name), size_of::<$rust>(), align_of::<$rust>()).unwrap();
        $({
            #[allow(unused_mut, unused_assignments)]
            let mut name = stringify!($field);
            $(name = $c_field;)?
            let size = field_size(|value: &$rust| &raw const value.$field);
            writeln!($out, "field {}.{} offset {} size {}", stringify!($c_name), name, offset_of!($rust, $field), size).unwrap();
        })*
    )*};
}

macro_rules! print_constants {
    ($out:ident: $($c_name:ident = $value:expr;)*) => {$(
        writeln!($out, "const {} {}", stringify!($c_name), i128::from($value)).unwrap();
    )*};
}

/// The size of the field that `project` points at; it is never called.
const fn field_size<T, F>(_project: fn(&T) -> *const F) -> usize {
    size_of::<F>()
}

fn rust_layout() -> String {
    let mut out = String::new();
    print_structs! { out:
        rw_span = raw::RawSpan { off, len }
        rw_name_span = raw::RawNameSpan { off, len, id }
        rw_header = raw::RawHeader { name, value }
        rw_headers = raw::RawSpan { off, len }
        rw_request = raw::RawRequest {
            magic, root_size, entry_size, method_id, http_version, flags, edits, method, target, path, query, authority, body,
            content_length, request_id, received_unix_ns, peer_addr, peer_port, listener, route, known_mask, known, headers,
        }
        rw_response = raw::RawResponse {
            magic, root_size, entry_size, status, http_version, origin, flags, reserved, reason, body, content_length,
            request_id, upstream_ns, origin_plugin, edits, known_mask, known, headers,
        }
        rw_cx = raw::RawCx { size, hook, host, core, scratch, request, response, now_unix_ns, worker, link }
        rw_accept = raw::Accept { size, listener, peer_port, peer_addr }
        rw_chunk = raw::RawChunk { size, flags, offset, bytes, len }
        rw_event = raw::RawEvent { size, kind, token, status, reserved, response }
        rw_done = raw::Done { size, status, origin, flags, request_body_bytes, response_body_bytes, duration_ns }
        rw_tick = raw::Tick { size, worker, now_unix_ns }
        rw_host = raw::Host {
            size, abi_major, abi_minor, header_set, header_add, header_del, target_set, status_set, upstream_set, body_replace,
            resp_begin, resp_reserve, resp_commit, resp_prebuilt, alloc, metric_add, metric_set, log, now_unix_ns,
            intern_header, prebuilt_add, load_error, load_log, get_ext,
        }
        rw_metric_def = raw::MetricDef { name, help, kind, reserved }
        rw_map_def = raw::MapDef { name, value_fields, kind, key_bytes, value_bytes, entries_max }
        rw_plugin = raw::Plugin {
            size, abi_major, abi_minor, abi_min_minor, language, scratch_bytes, layout_fingerprint, wants, hooks, reserved,
            name, version, metrics, maps, metric_count, map_count, metric_bytes, map_bytes, load, unload, core_init, core_fini, on_accept, on_request,
            on_request_chunk, on_request_body, on_response, on_response_chunk, on_event, on_done, on_tick, get_ext,
        }
        rw_note = raw::Note {
            owner_bytes, desc_bytes, note_type as "type", owner, abi_major, abi_minor, abi_min_minor, language,
            fingerprint_low, fingerprint_high, wants_low, wants_high, hooks, scratch_bytes, name, version,
        }
    }
    print_constants! { out:
        RW_ABI_MAJOR = raw::ABI_MAJOR;
        RW_ABI_MINOR = raw::ABI_MINOR;
        RW_REQUEST_MAGIC = view::REQUEST_MAGIC;
        RW_RESPONSE_MAGIC = view::RESPONSE_MAGIC;
        RW_HEADERS_MAX = view::HEADERS_MAX as u32;
        RW_REQ_HAS_BODY = view::REQ_HAS_BODY;
        RW_REQ_CHUNKED = view::REQ_CHUNKED;
        RW_REQ_ABSOLUTE_TARGET = view::REQ_ABSOLUTE_TARGET;
        RW_REQ_UPGRADE = view::REQ_UPGRADE;
        RW_REQ_TLS = view::REQ_TLS;
        RW_REQ_BODY_COMPLETE = view::REQ_BODY_COMPLETE;
        RW_ORIGIN_UPSTREAM = view::ORIGIN_UPSTREAM;
        RW_ORIGIN_PLUGIN = view::ORIGIN_PLUGIN;
        RW_ORIGIN_GATEWAY = view::ORIGIN_GATEWAY;
        RW_RES_HAS_BODY = view::RES_HAS_BODY;
        RW_RES_CHUNKED = view::RES_CHUNKED;
        RW_RES_CLOSE_DELIMITED = view::RES_CLOSE_DELIMITED;
        RW_RES_BODY_COMPLETE = view::RES_BODY_COMPLETE;
        RW_M_OTHER = ids::METHOD_OTHER;
        RW_M_GET = ids::METHOD_GET;
        RW_M_HEAD = ids::METHOD_HEAD;
        RW_M_POST = ids::METHOD_POST;
        RW_M_PUT = ids::METHOD_PUT;
        RW_M_DELETE = ids::METHOD_DELETE;
        RW_M_CONNECT = ids::METHOD_CONNECT;
        RW_M_OPTIONS = ids::METHOD_OPTIONS;
        RW_M_TRACE = ids::METHOD_TRACE;
        RW_M_PATCH = ids::METHOD_PATCH;
    }
    out.push_str("const RW_H_OTHER 0\n");
    for (id, name) in ids::HEADER_NAMES.iter().enumerate().skip(1) {
        writeln!(out, "const RW_H_{} {id}", name.replace('-', "_").to_uppercase()).unwrap();
    }
    print_constants! { out:
        RW_H_LIMIT = ids::HEADER_ID_LIMIT;
        RW_H_REMOVED = ids::HEADER_ID_REMOVED;
        RW_ABORTED = raw::ABORTED;
        RW_CONTINUE = raw::CONTINUE;
        RW_DONE = raw::DONE;
        RW_RESPOND = raw::RESPOND;
        RW_DROP = raw::DROP;
        RW_SUSPEND = raw::SUSPEND;
        RW_NEED_BODY = raw::NEED_BODY;
        RW_TAIL = raw::TAIL;
        RW_OK = raw::OK;
        RW_ERR_NOT_DECLARED = raw::ERR_NOT_DECLARED;
        RW_ERR_WRONG_HOOK = raw::ERR_WRONG_HOOK;
        RW_ERR_BAD_BYTES = raw::ERR_BAD_BYTES;
        RW_ERR_NO_SPACE = raw::ERR_NO_SPACE;
        RW_ERR_NOT_FOUND = raw::ERR_NOT_FOUND;
        RW_ERR_FORBIDDEN = raw::ERR_FORBIDDEN;
        RW_ERR_BAD_ARGUMENT = raw::ERR_BAD_ARGUMENT;
        RW_CHUNK_LAST = raw::CHUNK_LAST;
        RW_END_ABORTED = raw::END_ABORTED;
        RW_SIDE_REQUEST = raw::SIDE_REQUEST;
        RW_SIDE_RESPONSE = raw::SIDE_RESPONSE;
        RW_LOG_ERROR = raw::LOG_ERROR;
        RW_LOG_WARN = raw::LOG_WARN;
        RW_LOG_INFO = raw::LOG_INFO;
        RW_LOG_DEBUG = raw::LOG_DEBUG;
        RW_HOOK_ACCEPT = raw::HOOK_ACCEPT;
        RW_HOOK_REQUEST = raw::HOOK_REQUEST;
        RW_HOOK_REQUEST_CHUNK = raw::HOOK_REQUEST_CHUNK;
        RW_HOOK_REQUEST_BODY = raw::HOOK_REQUEST_BODY;
        RW_HOOK_RESPONSE = raw::HOOK_RESPONSE;
        RW_HOOK_RESPONSE_CHUNK = raw::HOOK_RESPONSE_CHUNK;
        RW_HOOK_EVENT = raw::HOOK_EVENT;
        RW_HOOK_DONE = raw::HOOK_DONE;
        RW_HOOK_TICK = raw::HOOK_TICK;
        RW_WANT_EDIT_REQUEST = raw::WANT_EDIT_REQUEST;
        RW_WANT_EDIT_RESPONSE = raw::WANT_EDIT_RESPONSE;
        RW_WANT_EDIT_REQUEST_BODY = raw::WANT_EDIT_REQUEST_BODY;
        RW_WANT_EDIT_RESPONSE_BODY = raw::WANT_EDIT_RESPONSE_BODY;
        RW_WANT_REQUEST_BODY = raw::WANT_REQUEST_BODY;
        RW_WANT_RESPOND = raw::WANT_RESPOND;
        RW_WANT_UPSTREAM = raw::WANT_UPSTREAM;
        RW_WANT_TIME = raw::WANT_TIME;
        RW_WANT_SUSPEND = raw::WANT_SUSPEND;
        RW_WANT_MAPS = raw::WANT_MAPS;
        RW_LANG_OTHER = raw::LANG_OTHER;
        RW_LANG_C = raw::LANG_C;
        RW_LANG_RUST = raw::LANG_RUST;
        RW_LANG_ZIG = raw::LANG_ZIG;
        RW_LANG_CPP = raw::LANG_CPP;
        RW_LANG_GO = raw::LANG_GO;
        RW_METRIC_COUNTER = raw::METRIC_COUNTER;
        RW_METRIC_GAUGE = raw::METRIC_GAUGE;
        RW_METRICS_MAX = raw::METRICS_MAX;
        RW_SCRATCH_BYTES_MAX = raw::SCRATCH_BYTES_MAX;
        RW_NOTE_TYPE = raw::NOTE_TYPE;
    }
    out
}

/// S-2, S-3
#[test]
fn rust_prints_the_frozen_layout() {
    assert_same_text("rustc", &rust_layout());
}

/// S-2, S-3
#[test]
fn c_prints_the_frozen_layout() {
    for compiler in toolchain::c_compilers() {
        let program = toolchain::compile_c(compiler, "layout.c", &["-std=c11"]);
        assert_same_text(compiler, &toolchain::stdout_of(&program, &[]));
    }
}

/// S-2, S-3
#[test]
fn zig_prints_the_frozen_layout() {
    let program = toolchain::compile_zig_program("layout.zig");
    assert_same_text("zig", &toolchain::stdout_of(&program, &[]));
}

/// S-4: the fingerprint is FNV-1a 64 of the frozen text, in the header, in Rust and in Zig.
#[test]
fn the_fingerprint_is_that_of_the_frozen_text() {
    let expected = fnv1a_64(FROZEN.as_bytes());
    assert_eq!(raw::LAYOUT_FINGERPRINT, expected, "raw.rs: LAYOUT_FINGERPRINT must be {expected:#018x}");
    let in_header = format!("#define RW_LAYOUT_FINGERPRINT UINT64_C({expected:#018x})");
    assert!(HEADER.contains(&in_header), "ringway.h must say: {in_header}");
    let zig = include_str!("../zig/ringway.zig");
    let in_zig = format!("pub const layout_fingerprint: u64 = {expected:#018x};");
    assert!(zig.contains(&in_zig), "ringway.zig must say: {in_zig}");
}

/// S-5: nothing of the header is missing from the frozen text, so nothing escapes the comparison.
#[test]
fn every_field_and_constant_of_the_header_is_frozen() {
    let of_extensions: Vec<String> = EXTENSIONS.iter().flat_map(|text| names_of(text)).collect();
    let (later, expected): (Vec<String>, Vec<String>) = header_fields().into_iter().chain(header_constants()).partition(|name| of_extensions.contains(name));
    assert_eq!(names_of(FROZEN), expected);
    let missing: Vec<&String> = of_extensions.iter().filter(|name| !later.contains(name)).collect();
    assert!(missing.is_empty(), "not in the header: {missing:?}");
}

/// The fields and constants of a layout, in its order.
fn names_of(layout: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut words = line.split(' ');
        let (kind, name) = (words.next()?, words.next()?);
        (kind != "struct").then(|| name.to_owned())
    };
    layout.lines().filter_map(name).collect()
}

/// S-1: no struct of the contract has padding: each field begins where the one before it ended.
#[test]
fn no_struct_has_padding() {
    let mut end = 0usize;
    let mut size = 0usize;
    for line in FROZEN.lines().chain(["struct end size 0 align 1"]) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "struct" => {
                assert_eq!(end, size, "padding at the end of the struct before {}", words[1]);
                (end, size) = (0, words[3].parse().unwrap());
            }
            "field" => {
                assert_eq!(words[3].parse::<usize>().unwrap(), end, "padding before {}", words[1]);
                end += words[5].parse::<usize>().unwrap();
            }
            _ => {}
        }
    }
}

/// `struct.field` in the order of the header, found by its plain style: one declaration a line.
fn header_fields() -> Vec<String> {
    let mut fields = Vec::new();
    let mut inside: Option<&str> = None;
    for line in code_of(HEADER).lines().map(str::trim) {
        let opened = line.strip_prefix("typedef struct ").or_else(|| line.strip_prefix("struct "));
        if let Some(name) = opened.and_then(|rest| rest.strip_suffix(" {")) {
            inside = Some(name.to_owned().leak());
        } else if line.starts_with('}') {
            inside = None;
        } else if let (Some(name), Some(declaration)) = (inside, line.strip_suffix(';')) {
            fields.push(format!("{name}.{}", declared_name(declaration)));
        }
    }
    fields
}

fn declared_name(declaration: &str) -> &str {
    let tail = match declaration.find("(*") {
        // A function pointer: `rw_status (*name)(...)`, or `uint8_t *(*name)(...)`.
        Some(at) => declaration[at + 2..].split(')').next().unwrap(),
        None => declaration.split('[').next().unwrap().rsplit([' ', '*']).next().unwrap(),
    };
    tail.trim()
}

/// Names of `#define RW_NAME value` in order, without the fingerprint (which depends on this text), the symbol, ids of extensions and function-like macros.
fn header_constants() -> Vec<String> {
    let defines = HEADER.lines().filter_map(|line| line.strip_prefix("#define RW_"));
    let names = defines.filter_map(|rest| rest.split_once(' ')).map(|(name, _)| name).filter(|name| !name.contains('('));
    names.filter(|name| !["LAYOUT_FINGERPRINT", "SYMBOL", "EXPORT"].contains(name) && !name.ends_with("_EXTENSION")).map(|name| format!("RW_{name}")).collect()
}

/// The header without its comments.
fn code_of(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some(at) = rest.find("/*") {
        code.push_str(&rest[..at]);
        let after = &rest[at..];
        rest = &after[after.find("*/").expect("comments of the header are closed") + 2..];
    }
    code + rest
}

fn fnv1a_64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Compares with the frozen text; `RINGWAY_BLESS=1` writes it instead, which only the version before a release may do.
fn assert_same_text(who: &str, printed: &str) {
    if who == "rustc" && std::env::var_os("RINGWAY_BLESS").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("layout-1.0.txt"), printed).unwrap();
        return;
    }
    for (index, (got, want)) in printed.lines().zip(FROZEN.lines()).enumerate() {
        assert_eq!(got, want, "{who}: line {} of layout-1.0.txt differs", index + 1);
    }
    assert_eq!(printed.lines().count(), FROZEN.lines().count(), "{who}: another number of lines than layout-1.0.txt");
    assert_eq!(printed, FROZEN, "{who}: the text differs from layout-1.0.txt");
}
