//! The C side of the contract in Rust: the structs of `ringway.h`, field by field, and plain-word twins of the views that
//! the gateway writes into its slots.
//!
//! Field names are those of the header, which documents them. Nothing here checks anything. Plugin authors use `ringway-sdk`; the gateway wraps these in its plugin host.

#![allow(missing_docs, reason = "the fields mirror ringway.h, which describes each of them")]

use core::ffi::{c_char, c_void};
use core::mem::offset_of;

use crate::view::{HeaderView, NameSpan, RequestView, ResponseView, Span};

/// `RW_ABI_MAJOR`
pub const ABI_MAJOR: u16 = 1;
/// `RW_ABI_MINOR`
pub const ABI_MINOR: u16 = 0;
/// `RW_LAYOUT_FINGERPRINT`: FNV-1a 64 of `layout-1.0.txt`; a test keeps the three equal.
pub const LAYOUT_FINGERPRINT: u64 = 0x8e64_e4c0_6acb_a37a;
/// `RW_SYMBOL` with its NUL.
pub const SYMBOL: &[u8] = b"ringway_plugin_v1\0";

/// Verdicts: `RW_ABORTED` and so on. Any other value counts as [`ABORTED`].
pub const ABORTED: u32 = 0;
/// `RW_CONTINUE`
pub const CONTINUE: u32 = 1;
/// `RW_DONE`
pub const DONE: u32 = 2;
/// `RW_RESPOND`
pub const RESPOND: u32 = 3;
/// `RW_DROP`
pub const DROP: u32 = 4;
/// `RW_SUSPEND`
pub const SUSPEND: u32 = 5;
/// `RW_NEED_BODY`
pub const NEED_BODY: u32 = 6;
/// `RW_TAIL`
pub const TAIL: u32 = 7;

/// `RW_PANICKED` of `ringway-fault.h`
pub const PANICKED: u32 = 8;

/// `RW_OK`
pub const OK: i32 = 0;
/// `RW_ERR_NOT_DECLARED`
pub const ERR_NOT_DECLARED: i32 = -1;
/// `RW_ERR_WRONG_HOOK`
pub const ERR_WRONG_HOOK: i32 = -2;
/// `RW_ERR_BAD_BYTES`
pub const ERR_BAD_BYTES: i32 = -3;
/// `RW_ERR_NO_SPACE`
pub const ERR_NO_SPACE: i32 = -4;
/// `RW_ERR_NOT_FOUND`
pub const ERR_NOT_FOUND: i32 = -5;
/// `RW_ERR_FORBIDDEN`
pub const ERR_FORBIDDEN: i32 = -6;
/// `RW_ERR_BAD_ARGUMENT`
pub const ERR_BAD_ARGUMENT: i32 = -7;

/// `RW_HOOK_ACCEPT`
pub const HOOK_ACCEPT: u32 = 0x001;
/// `RW_HOOK_REQUEST`
pub const HOOK_REQUEST: u32 = 0x002;
/// `RW_HOOK_REQUEST_CHUNK`
pub const HOOK_REQUEST_CHUNK: u32 = 0x004;
/// `RW_HOOK_REQUEST_BODY`
pub const HOOK_REQUEST_BODY: u32 = 0x008;
/// `RW_HOOK_RESPONSE`
pub const HOOK_RESPONSE: u32 = 0x010;
/// `RW_HOOK_RESPONSE_CHUNK`
pub const HOOK_RESPONSE_CHUNK: u32 = 0x020;
/// `RW_HOOK_EVENT`
pub const HOOK_EVENT: u32 = 0x040;
/// `RW_HOOK_DONE`
pub const HOOK_DONE: u32 = 0x080;
/// `RW_HOOK_TICK`
pub const HOOK_TICK: u32 = 0x100;
/// Every hook bit of this version, in the order of the descriptor's fields, with its name.
pub const HOOKS: [(u32, &str); 9] = [
    (HOOK_ACCEPT, "on_accept"),
    (HOOK_REQUEST, "on_request"),
    (HOOK_REQUEST_CHUNK, "on_request_chunk"),
    (HOOK_REQUEST_BODY, "on_request_body"),
    (HOOK_RESPONSE, "on_response"),
    (HOOK_RESPONSE_CHUNK, "on_response_chunk"),
    (HOOK_EVENT, "on_event"),
    (HOOK_DONE, "on_done"),
    (HOOK_TICK, "on_tick"),
];

/// `RW_WANT_EDIT_REQUEST`
pub const WANT_EDIT_REQUEST: u64 = 0x0001;
/// `RW_WANT_EDIT_RESPONSE`
pub const WANT_EDIT_RESPONSE: u64 = 0x0002;
/// `RW_WANT_EDIT_REQUEST_BODY`
pub const WANT_EDIT_REQUEST_BODY: u64 = 0x0004;
/// `RW_WANT_EDIT_RESPONSE_BODY`
pub const WANT_EDIT_RESPONSE_BODY: u64 = 0x0008;
/// `RW_WANT_REQUEST_BODY`
pub const WANT_REQUEST_BODY: u64 = 0x0010;
/// `RW_WANT_RESPOND`
pub const WANT_RESPOND: u64 = 0x0020;
/// `RW_WANT_UPSTREAM`
pub const WANT_UPSTREAM: u64 = 0x0040;
/// `RW_WANT_TIME`
pub const WANT_TIME: u64 = 0x0080;
/// `RW_WANT_SUSPEND`
pub const WANT_SUSPEND: u64 = 0x0100;
/// `RW_WANT_MAPS`
pub const WANT_MAPS: u64 = 0x0200;
/// Every `wants` bit of this version and its extensions with its name.
pub const WANTS: [(u64, &str); 11] = [
    (WANT_EDIT_REQUEST, "edit-request"),
    (WANT_EDIT_RESPONSE, "edit-response"),
    (WANT_EDIT_REQUEST_BODY, "edit-request-body"),
    (WANT_EDIT_RESPONSE_BODY, "edit-response-body"),
    (WANT_REQUEST_BODY, "request-body"),
    (WANT_RESPOND, "respond"),
    (WANT_UPSTREAM, "upstream"),
    (WANT_TIME, "time"),
    (WANT_SUSPEND, "suspend"),
    (WANT_MAPS, "maps"),
    (crate::outcall::WANT_OUTCALL, "outcall"),
];

/// `RW_SIDE_REQUEST`: the side of an edit.
pub const SIDE_REQUEST: u32 = 0;
/// `RW_SIDE_RESPONSE`
pub const SIDE_RESPONSE: u32 = 1;

/// `RW_LOG_ERROR`
pub const LOG_ERROR: u32 = 1;
/// `RW_LOG_WARN`
pub const LOG_WARN: u32 = 2;
/// `RW_LOG_INFO`
pub const LOG_INFO: u32 = 3;
/// `RW_LOG_DEBUG`
pub const LOG_DEBUG: u32 = 4;

/// `RW_CHUNK_LAST`
pub const CHUNK_LAST: u32 = 0x1;
/// `RW_END_ABORTED`
pub const END_ABORTED: u8 = 0x01;

/// `RW_METRIC_COUNTER`
pub const METRIC_COUNTER: u32 = 1;
/// `RW_METRIC_GAUGE`
pub const METRIC_GAUGE: u32 = 2;
/// `RW_METRICS_MAX`: the largest `metric_count`.
pub const METRICS_MAX: u32 = 256;

/// The names of `RW_LANG_*`, by number.
pub const LANGUAGES: [&str; 6] = ["other", "c", "rust", "zig", "c++", "go"];
/// `RW_LANG_OTHER`
pub const LANG_OTHER: u16 = 0;
/// `RW_LANG_C`
pub const LANG_C: u16 = 1;
/// `RW_LANG_RUST`
pub const LANG_RUST: u16 = 2;
/// `RW_LANG_ZIG`
pub const LANG_ZIG: u16 = 3;
/// `RW_LANG_CPP`
pub const LANG_CPP: u16 = 4;
/// `RW_LANG_GO`
pub const LANG_GO: u16 = 5;

/// `RW_SCRATCH_BYTES_MAX`: the largest `scratch_bytes` a plugin may ask for.
pub const SCRATCH_BYTES_MAX: u32 = 4096;

/// `rw_span` as plain words. `off` counts from the address of the span itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RawSpan {
    pub off: i32,
    pub len: u32,
}

/// `rw_name_span` as plain words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RawNameSpan {
    pub off: i32,
    pub len: u16,
    pub id: u16,
}

/// `rw_header` as plain words; the same layout as [`HeaderView`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RawHeader {
    pub name: RawNameSpan,
    pub value: RawSpan,
}

/// `rw_request` as plain words; the same layout as [`RequestView`].
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawRequest {
    pub magic: u32,
    pub root_size: u16,
    pub entry_size: u16,
    pub method_id: u8,
    pub http_version: u8,
    pub flags: u16,
    pub edits: u32,
    pub method: RawSpan,
    pub target: RawSpan,
    pub path: RawSpan,
    pub query: RawSpan,
    pub authority: RawSpan,
    pub body: RawSpan,
    pub content_length: u64,
    pub request_id: u64,
    pub received_unix_ns: u64,
    pub peer_addr: [u8; 16],
    pub peer_port: u16,
    pub listener: u16,
    pub route: u32,
    pub known_mask: u64,
    pub known: [u8; 64],
    pub headers: RawSpan,
}

/// `rw_response` as plain words; the same layout as [`ResponseView`].
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawResponse {
    pub magic: u32,
    pub root_size: u16,
    pub entry_size: u16,
    pub status: u16,
    pub http_version: u8,
    pub origin: u8,
    pub flags: u16,
    pub reserved: u16,
    pub reason: RawSpan,
    pub body: RawSpan,
    pub content_length: u64,
    pub request_id: u64,
    pub upstream_ns: u64,
    pub origin_plugin: u32,
    pub edits: u32,
    pub known_mask: u64,
    pub known: [u8; 64],
    pub headers: RawSpan,
}

/// `rw_cx`. Lifetime: the hook.
#[derive(Debug)]
#[repr(C)]
pub struct RawCx {
    pub size: u32,
    pub hook: u32,
    pub host: *const Host,
    pub core: *mut c_void,
    pub scratch: *mut c_void,
    pub request: *const RequestView,
    pub response: *const ResponseView,
    pub now_unix_ns: u64,
    pub worker: u32,
    pub link: u32,
}

/// `rw_accept`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Accept {
    pub size: u32,
    pub listener: u16,
    pub peer_port: u16,
    pub peer_addr: [u8; 16],
}

/// `rw_chunk`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawChunk {
    pub size: u32,
    pub flags: u32,
    pub offset: u64,
    pub bytes: *const u8,
    pub len: u64,
}

/// `rw_event`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawEvent {
    pub size: u32,
    pub kind: u32,
    pub token: u64,
    pub status: i32,
    pub reserved: u32,
    pub response: *const ResponseView,
}

/// `rw_done`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Done {
    pub size: u32,
    pub status: u16,
    pub origin: u8,
    pub flags: u8,
    pub request_body_bytes: u64,
    pub response_body_bytes: u64,
    pub duration_ns: u64,
}

/// `rw_tick`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Tick {
    pub size: u32,
    pub worker: u32,
    pub now_unix_ns: u64,
}

/// `rw_loader`: opaque to plugins.
#[derive(Debug)]
#[repr(C)]
pub struct RawLoader {
    _opaque: [u8; 0],
}

/// `rw_host`: what a plugin can do. See `ringway.h` for every function's rules.
#[derive(Debug)]
#[repr(C)]
pub struct Host {
    pub size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub header_set: unsafe extern "C" fn(*mut RawCx, u32, *const u8, u32, *const u8, u32) -> i32,
    pub header_add: unsafe extern "C" fn(*mut RawCx, u32, *const u8, u32, *const u8, u32) -> i32,
    pub header_del: unsafe extern "C" fn(*mut RawCx, u32, *const u8, u32) -> i32,
    pub target_set: unsafe extern "C" fn(*mut RawCx, *const u8, u32) -> i32,
    pub status_set: unsafe extern "C" fn(*mut RawCx, u32) -> i32,
    pub upstream_set: unsafe extern "C" fn(*mut RawCx, *const u8, u32) -> i32,
    pub body_replace: unsafe extern "C" fn(*mut RawCx, *const u8, u64) -> i32,
    pub resp_begin: unsafe extern "C" fn(*mut RawCx, u32) -> i32,
    pub resp_reserve: unsafe extern "C" fn(*mut RawCx, u32) -> *mut u8,
    pub resp_commit: unsafe extern "C" fn(*mut RawCx, u32) -> i32,
    pub resp_prebuilt: unsafe extern "C" fn(*mut RawCx, u32) -> i32,
    pub alloc: unsafe extern "C" fn(*mut RawCx, u32) -> *mut c_void,
    pub metric_add: unsafe extern "C" fn(*mut RawCx, u32, u64) -> i32,
    pub metric_set: unsafe extern "C" fn(*mut RawCx, u32, u64) -> i32,
    pub log: unsafe extern "C" fn(*mut RawCx, u32, *const u8, u32),
    pub now_unix_ns: unsafe extern "C" fn(*mut RawCx) -> u64,
    pub intern_header: unsafe extern "C" fn(*mut RawLoader, *const u8, u32) -> i32,
    pub prebuilt_add: unsafe extern "C" fn(*mut RawLoader, u32, *const u8, u32, *const u8, u32) -> i32,
    pub load_error: unsafe extern "C" fn(*mut RawLoader, *const u8, u32),
    pub load_log: unsafe extern "C" fn(*mut RawLoader, u32, *const u8, u32),
    pub get_ext: unsafe extern "C" fn(*mut RawLoader, *const c_char) -> *const c_void,
}

/// `rw_metric_def`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct MetricDef {
    pub name: *const c_char,
    pub help: *const c_char,
    pub kind: u32,
    pub reserved: u32,
}

/// `rw_map_def`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct MapDef {
    pub name: *const c_char,
    pub value_fields: *const c_char,
    pub kind: u32,
    pub key_bytes: u32,
    pub value_bytes: u32,
    pub entries_max: u32,
}

/// `on_request` and the like: two pointers for ever.
pub type Hook<T> = unsafe extern "C" fn(*mut RawCx, *const T) -> u32;

/// `rw_plugin`: the exported constant `ringway_plugin_v1`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Plugin {
    pub size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub abi_min_minor: u16,
    pub language: u16,
    pub scratch_bytes: u32,
    pub layout_fingerprint: u64,
    pub wants: u64,
    pub hooks: u32,
    pub reserved: u32,
    pub name: *const c_char,
    pub version: *const c_char,
    pub metrics: *const MetricDef,
    pub maps: *const MapDef,
    pub metric_count: u32,
    pub map_count: u32,
    pub metric_bytes: u32,
    pub map_bytes: u32,
    pub load: Option<unsafe extern "C" fn(*const Host, *mut RawLoader, *const u8, u32, *mut *mut c_void) -> i32>,
    pub unload: Option<unsafe extern "C" fn(*mut c_void)>,
    pub core_init: Option<unsafe extern "C" fn(*const Host, *mut RawLoader, *mut c_void, u32, *mut *mut c_void) -> i32>,
    pub core_fini: Option<unsafe extern "C" fn(*mut c_void)>,
    pub on_accept: Option<Hook<Accept>>,
    pub on_request: Option<Hook<RequestView>>,
    pub on_request_chunk: Option<Hook<RawChunk>>,
    pub on_request_body: Option<Hook<RawChunk>>,
    pub on_response: Option<Hook<ResponseView>>,
    pub on_response_chunk: Option<Hook<RawChunk>>,
    pub on_event: Option<Hook<RawEvent>>,
    pub on_done: Option<Hook<Done>>,
    pub on_tick: Option<Hook<Tick>>,
    pub get_ext: Option<unsafe extern "C" fn(*const c_char) -> *const c_void>,
}

// SAFETY: the descriptor is a constant; what its pointers lead to is constant for the life of the process.
unsafe impl Sync for Plugin {}

/// `rw_note`: the ELF note `.note.ringway`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Note {
    pub owner_bytes: u32,
    pub desc_bytes: u32,
    pub note_type: u32,
    pub owner: [u8; 8],
    pub abi_major: u16,
    pub abi_minor: u16,
    pub abi_min_minor: u16,
    pub language: u16,
    pub fingerprint_low: u32,
    pub fingerprint_high: u32,
    pub wants_low: u32,
    pub wants_high: u32,
    pub hooks: u32,
    pub scratch_bytes: u32,
    pub name: [u8; 64],
    pub version: [u8; 32],
}

/// `RW_NOTE_TYPE`
pub const NOTE_TYPE: u32 = 1;
/// The owner of the note.
pub const NOTE_OWNER: [u8; 8] = *b"Ringway\0";

impl Note {
    /// A note of this ABI version for a plugin that runs with every minor version; `name` and `version` are cut to their fields. For `static` items in `.note.ringway`.
    pub const fn new(name: &str, version: &str, language: u16, hooks: u32, wants: u64, scratch_bytes: u32) -> Note {
        Note {
            owner_bytes: NOTE_OWNER.len() as u32,
            desc_bytes: size_of::<Note>() as u32 - 20,
            note_type: NOTE_TYPE,
            owner: NOTE_OWNER,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            abi_min_minor: 0,
            language,
            fingerprint_low: LAYOUT_FINGERPRINT as u32,
            fingerprint_high: (LAYOUT_FINGERPRINT >> 32) as u32,
            wants_low: wants as u32,
            wants_high: (wants >> 32) as u32,
            hooks,
            scratch_bytes,
            name: padded(name),
            version: padded(version),
        }
    }

    /// The same note of a plugin that needs at least this minor version of the gateway; [`Note::new`] says 0.
    pub const fn with_min_minor(mut self, abi_min_minor: u16) -> Note {
        self.abi_min_minor = abi_min_minor;
        self
    }
}

const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    let mut field = [0; N];
    let mut at = 0;
    while at < bytes.len() && at < N - 1 {
        field[at] = bytes[at];
        at += 1;
    }
    field
}

macro_rules! assert_same_layout {
    ($raw:ident, $view:ident: $($field:ident)*) => {
        assert!(size_of::<$raw>() == size_of::<$view>() && align_of::<$raw>() == align_of::<$view>());
        $(assert!(offset_of!($raw, $field) == offset_of!($view, $field));)*
    };
}

// The plain-word twins stand where the archived views stand; `layout-1.0.txt` is compared with the former.
const _: () = {
    assert_same_layout!(RawSpan, Span: off len);
    assert_same_layout!(RawNameSpan, NameSpan: off len id);
    assert_same_layout!(RawHeader, HeaderView: name value);
    assert_same_layout!(RawRequest, RequestView: magic root_size entry_size method_id http_version flags edits method target path query
        authority body content_length request_id received_unix_ns peer_addr peer_port listener route known_mask known headers);
    assert_same_layout!(RawResponse, ResponseView: magic root_size entry_size status http_version origin flags reserved reason body
        content_length request_id upstream_ns origin_plugin edits known_mask known headers);
    assert!(size_of::<RawCx>() == 64);
    assert!(size_of::<Note>() == 20 + 8 + 24 + 96 && align_of::<Note>() == 4);
};
