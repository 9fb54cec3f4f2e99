//! A host that only records: it loads a built plugin, calls its hooks on frames, and keeps what the plugin asked for.
//!
//! It checks arguments as SPEC.md says (S-50 to S-63), so that a plugin which breaks a rule is seen; it forwards nothing.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use ringway_abi::raw::{self, Host, Plugin, RawChunk, RawCx, RawLoader};
use ringway_abi::{Request, RequestView, Response, ResponseView, ids};
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;

use crate::toolchain;

/// A loaded plugin with one core instance.
pub struct Instance {
    plugin: &'static Plugin,
    state: *mut c_void,
    core: *mut c_void,
    pub loader: Box<FakeLoader>,
}

/// What `load` left behind.
#[derive(Debug, Default)]
pub struct FakeLoader {
    pub error: String,
    pub log: Vec<String>,
    pub prebuilt: Vec<Prebuilt>,
    interned: Vec<Vec<u8>>,
    /// `core_init` runs, or has run.
    in_core_init: bool,
}

#[derive(Debug)]
pub struct Prebuilt {
    pub status: u32,
    pub headers: String,
    pub body: Vec<u8>,
}

/// One exchange: its frames, and what the plugin did.
#[repr(C)]
pub struct Exchange<'a> {
    raw: RawCx, // first: host functions receive its address and find the rest behind it
    pub did: Did,
    instance: &'a Instance,
    request: AlignedVec,
    response: AlignedVec,
    _scratch: Vec<u128>,
}

#[derive(Debug, Default)]
pub struct Did {
    pub edits: Vec<Edit>,
    pub answer: Option<Answer>,
    pub prebuilt: Option<u32>,
    pub metrics: BTreeMap<u32, u64>,
    pub log: Vec<String>,
    reserved: Vec<u8>,
    allocated: Vec<Vec<u128>>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Edit {
    pub side: u32,
    pub call: &'static str,
    pub name: String,
    pub value: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Answer {
    pub status: u32,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// How much a plugin may reserve, edit and allocate here.
const RESPONSE_BYTES_MAX: usize = 1 << 20;
const EDITS_MAX: usize = 100;
const ALLOCATIONS_MAX: usize = 64;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}
const RTLD_NOW: c_int = 2;

/// The built file of a plugin; builds the plugins in C and Zig once per test process.
pub fn built(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let root = toolchain::abi_dir().parent().expect("abi/ lies in the repository");
        for language in ["c", "zig"] {
            toolchain::run(std::process::Command::new(root.join("plugins/build")).args(["--only", language]));
        }
        root.join("target/plugins")
    });
    folder.join(format!("{name}.so"))
}

/// The descriptor of a built plugin, which stays open.
pub fn descriptor(name: &str) -> &'static Plugin {
    let path = CString::new(built(name).to_str().expect("the checkout's path is UTF-8")).expect("without NUL");
    // SAFETY: the path ends with NUL; the file was built from this repository.
    let library = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
    // SAFETY: `dlerror` may be called at any time; its text is read at once.
    assert!(!library.is_null(), "{path:?}: {:?}", unsafe { CStr::from_ptr(dlerror()) });
    // SAFETY: an open library, a name with NUL.
    let symbol = unsafe { dlsym(library, raw::SYMBOL.as_ptr().cast()) };
    assert!(!symbol.is_null(), "{path:?} exports no descriptor");
    // SAFETY: S-40: the symbol is an `rw_plugin`; the library is never closed.
    unsafe { &*symbol.cast::<Plugin>() }
}

impl Instance {
    /// Loads with this configuration; the error is what the plugin told the operator.
    pub fn load(name: &str, config: &str) -> Result<Instance, String> {
        let mut instance = Instance { plugin: descriptor(name), state: null_mut(), core: null_mut(), loader: Box::default() };
        let loader = (&raw mut *instance.loader).cast::<RawLoader>();
        if let Some(load) = instance.plugin.load {
            // An allocation of exactly this length, so that a read behind the end shows under a sanitizer.
            let config = config.as_bytes().to_vec().into_boxed_slice();
            // SAFETY: S-42: the pointers live as long as the call.
            let status = unsafe { load(&HOST, loader, config.as_ptr(), config.len() as u32, &raw mut instance.state) };
            if status != raw::OK {
                return Err(std::mem::take(&mut instance.loader.error));
            }
        }
        instance.core = instance.state;
        if let Some(core_init) = instance.plugin.core_init {
            instance.core = null_mut();
            instance.loader.in_core_init = true;
            let loader = (&raw mut *instance.loader).cast::<RawLoader>();
            // SAFETY: S-43: `state` is what `load` stored; the other pointers live as long as the call.
            let status = unsafe { core_init(&HOST, loader, instance.state, 0, &raw mut instance.core) };
            if status != raw::OK {
                instance.core = null_mut();
                return Err(std::mem::take(&mut instance.loader.error));
            }
        }
        Ok(instance)
    }

    pub fn accept(&self, peer_addr: [u8; 16]) -> u32 {
        let accept = raw::Accept { size: size_of::<raw::Accept>() as u32, listener: 0, peer_port: 1, peer_addr };
        let mut exchange = Exchange::new(self, Request::new(b"GET", b"/", vec![]));
        exchange.raw.request = null();
        let hook = self.plugin.on_accept.expect("the plugin has this hook");
        // SAFETY: S-30: both pointers live until the hook returns.
        unsafe { hook(exchange.begin(raw::HOOK_ACCEPT), &accept) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let (Some(core_fini), false) = (self.plugin.core_fini, self.core.is_null()) {
            // SAFETY: S-43: once, after the last hook.
            unsafe { core_fini(self.core) };
        }
        if let (Some(unload), false) = (self.plugin.unload, self.state.is_null()) {
            // SAFETY: S-42: once, after `core_fini`.
            unsafe { unload(self.state) };
        }
    }
}

impl<'a> Exchange<'a> {
    pub fn new(instance: &'a Instance, request: Request) -> Box<Self> {
        let mut exchange = Box::new(Exchange {
            raw: RawCx {
                size: size_of::<RawCx>() as u32,
                hook: 0,
                host: &HOST,
                core: instance.core,
                scratch: null_mut(),
                request: null(),
                response: null(),
                now_unix_ns: 1_000_000_000,
                worker: 0,
                link: 0,
            },
            did: Did::default(),
            instance,
            request: rkyv::to_bytes::<Error>(&request).expect("frames serialize"),
            response: AlignedVec::new(),
            _scratch: vec![0; (instance.plugin.scratch_bytes as usize).div_ceil(16)],
        });
        if instance.plugin.scratch_bytes > 0 {
            exchange.raw.scratch = exchange._scratch.as_mut_ptr().cast();
        }
        exchange.raw.request = rkyv::access::<RequestView, Error>(&exchange.request).expect("frames are valid");
        exchange
    }

    pub fn on_request(&mut self) -> u32 {
        let hook = self.instance.plugin.on_request.expect("the plugin has this hook");
        let request = self.raw.request;
        // SAFETY: S-30: both pointers live until the hook returns.
        unsafe { hook(self.begin(raw::HOOK_REQUEST), request) }
    }

    pub fn on_response(&mut self, response: &Response) -> u32 {
        self.response = rkyv::to_bytes::<Error>(response).expect("frames serialize");
        self.raw.response = rkyv::access::<ResponseView, Error>(&self.response).expect("frames are valid");
        let hook = self.instance.plugin.on_response.expect("the plugin has this hook");
        let response = self.raw.response;
        // SAFETY: S-30
        unsafe { hook(self.begin(raw::HOOK_RESPONSE), response) }
    }

    pub fn on_request_chunk(&mut self, offset: u64, bytes: &[u8], last: bool) -> u32 {
        let hook = self.instance.plugin.on_request_chunk.expect("the plugin has this hook");
        // SAFETY: S-30
        unsafe { hook(self.begin(raw::HOOK_REQUEST_CHUNK), &chunk(offset, bytes, last)) }
    }

    pub fn on_response_chunk(&mut self, offset: u64, bytes: &[u8], last: bool) -> u32 {
        let hook = self.instance.plugin.on_response_chunk.expect("the plugin has this hook");
        // SAFETY: S-30
        unsafe { hook(self.begin(raw::HOOK_RESPONSE_CHUNK), &chunk(offset, bytes, last)) }
    }

    /// The prebuilt response that the plugin chose.
    pub fn prebuilt(&self) -> &'a Prebuilt {
        &self.instance.loader.prebuilt[self.did.prebuilt.expect("the plugin answered with a prebuilt response") as usize]
    }

    pub fn answer(&self) -> &Answer {
        self.did.answer.as_ref().expect("the plugin began a response")
    }

    fn begin(&mut self, hook: u32) -> *mut RawCx {
        self.raw.hook = hook;
        std::ptr::from_mut(self).cast()
    }

    fn wants(&self, bit: u64) -> bool {
        self.instance.plugin.wants & bit != 0
    }
}

fn chunk(offset: u64, bytes: &[u8], last: bool) -> RawChunk {
    RawChunk { size: size_of::<RawChunk>() as u32, flags: if last { raw::CHUNK_LAST } else { 0 }, offset, bytes: bytes.as_ptr(), len: bytes.len() as u64 }
}

static HOST: Host = Host {
    size: size_of::<Host>() as u32,
    abi_major: raw::ABI_MAJOR,
    abi_minor: raw::ABI_MINOR,
    header_set,
    header_add,
    header_del,
    target_set,
    status_set,
    upstream_set,
    body_replace,
    resp_begin,
    resp_reserve,
    resp_commit,
    resp_prebuilt,
    alloc,
    metric_add,
    metric_set,
    log,
    now_unix_ns,
    intern_header,
    prebuilt_add,
    load_error,
    load_log,
    get_ext,
};

/// # Safety
/// `cx` is what `begin` returned, and its hook is still running.
unsafe fn exchange<'a>(cx: *mut RawCx) -> &'a mut Exchange<'a> {
    // SAFETY: `begin` made this pointer from the whole exchange; nobody else uses it while the hook runs.
    unsafe { &mut *cx.cast::<Exchange<'a>>() }
}

/// # Safety
/// `loader` is what `Instance::load` passed, and `load` is still running.
unsafe fn loading<'a>(loader: *mut RawLoader) -> &'a mut FakeLoader {
    // SAFETY: as above.
    unsafe { &mut *loader.cast::<FakeLoader>() }
}

/// # Safety
/// `len` bytes are readable at `bytes`, or `len` is 0.
unsafe fn bytes_of<'a>(bytes: *const u8, len: u32) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the plugin's promise (S-51).
    unsafe { std::slice::from_raw_parts(bytes, len as usize) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn is_value(value: &[u8]) -> bool {
    let is_blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    !value.iter().any(|b| matches!(b, 0..=8 | 10..=31 | 127)) && !is_blank(value.first()) && !is_blank(value.last())
}

fn is_framing(name: &[u8]) -> bool {
    const FRAMING: [&str; 9] =
        ["connection", "content-length", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
    FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing.as_bytes()))
}

fn edit(exchange: &mut Exchange, side: u32, call: &'static str, name: &[u8], value: &[u8]) -> i32 {
    let writes_answer = side == raw::SIDE_RESPONSE && exchange.did.answer.is_some();
    let bit = if side == raw::SIDE_REQUEST { raw::WANT_EDIT_REQUEST } else { raw::WANT_EDIT_RESPONSE };
    if !writes_answer && !exchange.wants(bit) {
        return raw::ERR_NOT_DECLARED;
    }
    if !is_token(name) || !is_value(value) {
        return raw::ERR_BAD_BYTES;
    }
    let is_request_host = side == raw::SIDE_REQUEST && name.eq_ignore_ascii_case(b"host");
    if is_framing(name) || (is_request_host && call != "set") {
        return raw::ERR_FORBIDDEN;
    }
    if exchange.did.edits.len() == EDITS_MAX {
        return raw::ERR_NO_SPACE;
    }
    match &mut exchange.did.answer {
        Some(answer) if writes_answer => {
            if call != "add" {
                answer.headers.retain(|(known, _)| !known.as_bytes().eq_ignore_ascii_case(name));
            }
            if call != "del" {
                answer.headers.push((text(name), value.to_vec()));
            }
        }
        _ => exchange.did.edits.push(Edit { side, call, name: text(name), value: value.to_vec() }),
    }
    raw::OK
}

unsafe extern "C" fn header_set(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: the plugin's promises (S-50, S-51).
    let (exchange, name, value) = unsafe { (exchange(cx), bytes_of(name, name_len), bytes_of(value, value_len)) };
    edit(exchange, side, "set", name, value)
}

unsafe extern "C" fn header_add(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: the plugin's promises (S-50, S-51).
    let (exchange, name, value) = unsafe { (exchange(cx), bytes_of(name, name_len), bytes_of(value, value_len)) };
    edit(exchange, side, "add", name, value)
}

unsafe extern "C" fn header_del(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the plugin's promises (S-50, S-51).
    let (exchange, name) = unsafe { (exchange(cx), bytes_of(name, name_len)) };
    edit(exchange, side, "del", name, b"")
}

unsafe extern "C" fn target_set(_: *mut RawCx, _: *const u8, _: u32) -> i32 {
    raw::ERR_NOT_DECLARED
}

unsafe extern "C" fn status_set(cx: *mut RawCx, _: u32) -> i32 {
    // SAFETY: the plugin's promise (S-50).
    let exchange = unsafe { exchange(cx) };
    if exchange.raw.response.is_null() { raw::ERR_WRONG_HOOK } else { raw::OK }
}

unsafe extern "C" fn upstream_set(_: *mut RawCx, _: *const u8, _: u32) -> i32 {
    raw::ERR_NOT_DECLARED
}

unsafe extern "C" fn body_replace(_: *mut RawCx, _: *const u8, _: u64) -> i32 {
    raw::ERR_NOT_DECLARED
}

unsafe extern "C" fn resp_begin(cx: *mut RawCx, status: u32) -> i32 {
    // SAFETY: the plugin's promise (S-50).
    let exchange = unsafe { exchange(cx) };
    if !exchange.wants(raw::WANT_RESPOND) {
        return raw::ERR_NOT_DECLARED;
    }
    exchange.did.answer = Some(Answer { status, ..Answer::default() });
    raw::OK
}

unsafe extern "C" fn resp_reserve(cx: *mut RawCx, len: u32) -> *mut u8 {
    // SAFETY: the plugin's promise (S-50).
    let did = unsafe { &mut exchange(cx).did };
    match &did.answer {
        Some(answer) if answer.body.len() + len as usize <= RESPONSE_BYTES_MAX => {
            did.reserved = vec![0; len as usize];
            did.reserved.as_mut_ptr()
        }
        _ => null_mut(),
    }
}

unsafe extern "C" fn resp_commit(cx: *mut RawCx, len: u32) -> i32 {
    // SAFETY: the plugin's promise (S-50).
    let did = unsafe { &mut exchange(cx).did };
    match &mut did.answer {
        None => raw::ERR_WRONG_HOOK,
        Some(_) if len as usize > did.reserved.len() => raw::ERR_BAD_ARGUMENT,
        Some(answer) => {
            answer.body.extend_from_slice(&did.reserved[..len as usize]);
            raw::OK
        }
    }
}

unsafe extern "C" fn resp_prebuilt(cx: *mut RawCx, id: u32) -> i32 {
    // SAFETY: the plugin's promise (S-50).
    let exchange = unsafe { exchange(cx) };
    if !exchange.wants(raw::WANT_RESPOND) {
        return raw::ERR_NOT_DECLARED;
    }
    if id as usize >= exchange.instance.loader.prebuilt.len() {
        return raw::ERR_NOT_FOUND;
    }
    exchange.did.prebuilt = Some(id);
    raw::OK
}

unsafe extern "C" fn alloc(cx: *mut RawCx, size: u32) -> *mut c_void {
    // SAFETY: the plugin's promise (S-50).
    let did = unsafe { &mut exchange(cx).did };
    if did.allocated.len() == ALLOCATIONS_MAX {
        return null_mut();
    }
    did.allocated.push(vec![u128::MAX; (size as usize).div_ceil(16)]);
    did.allocated.last_mut().map_or(null_mut(), |memory| memory.as_mut_ptr().cast())
}

unsafe extern "C" fn metric_add(cx: *mut RawCx, metric: u32, delta: u64) -> i32 {
    // SAFETY: the plugin's promise (S-50).
    let exchange = unsafe { exchange(cx) };
    if metric >= exchange.instance.plugin.metric_count {
        return raw::ERR_NOT_FOUND;
    }
    *exchange.did.metrics.entry(metric).or_default() += delta;
    raw::OK
}

unsafe extern "C" fn metric_set(_: *mut RawCx, _: u32, _: u64) -> i32 {
    raw::ERR_NOT_FOUND
}

unsafe extern "C" fn log(cx: *mut RawCx, _: u32, line: *const u8, len: u32) {
    // SAFETY: the plugin's promises (S-50, S-51).
    let (exchange, line) = unsafe { (exchange(cx), bytes_of(line, len)) };
    exchange.did.log.push(text(line));
}

unsafe extern "C" fn now_unix_ns(cx: *mut RawCx) -> u64 {
    // SAFETY: the plugin's promise (S-50).
    unsafe { exchange(cx) }.raw.now_unix_ns
}

unsafe extern "C" fn intern_header(loader: *mut RawLoader, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: the plugin's promises (S-51).
    let (loader, name) = unsafe { (loading(loader), bytes_of(name, name_len).to_ascii_lowercase()) };
    if loader.in_core_init {
        return raw::ERR_WRONG_HOOK;
    }
    let fixed = ids::HeaderId::of(&name);
    if fixed != ids::HeaderId::OTHER {
        return fixed.0.into();
    }
    let known = loader.interned.iter().position(|interned| *interned == name);
    let index = known.unwrap_or_else(|| {
        loader.interned.push(name);
        loader.interned.len() - 1
    });
    i32::from(ids::HEADER_ID_FIXED_COUNT) + index as i32
}

unsafe extern "C" fn prebuilt_add(loader: *mut RawLoader, status: u32, headers: *const u8, headers_len: u32, body: *const u8, body_len: u32) -> i32 {
    // SAFETY: the plugin's promises (S-51).
    let (loader, headers, body) = unsafe { (loading(loader), bytes_of(headers, headers_len), bytes_of(body, body_len)) };
    if loader.in_core_init {
        return raw::ERR_WRONG_HOOK;
    }
    assert!(headers.is_empty() || headers.ends_with(b"\r\n"), "header lines end with CRLF: {:?}", text(headers));
    loader.prebuilt.push(Prebuilt { status, headers: text(headers), body: body.to_vec() });
    loader.prebuilt.len() as i32 - 1
}

unsafe extern "C" fn load_error(loader: *mut RawLoader, line: *const u8, len: u32) {
    // SAFETY: the plugin's promises (S-51).
    let (loader, line) = unsafe { (loading(loader), bytes_of(line, len)) };
    loader.error = text(line);
}

unsafe extern "C" fn load_log(loader: *mut RawLoader, _: u32, line: *const u8, len: u32) {
    // SAFETY: the plugin's promises (S-51).
    let (loader, line) = unsafe { (loading(loader), bytes_of(line, len)) };
    loader.log.push(text(line));
}

unsafe extern "C" fn get_ext(_: *mut RawLoader, _: *const c_char) -> *const c_void {
    null()
}
