//! What stands between the gateway's plugin host and a plugin in a dry run.
//!
//! Owns: a hook for each event that shows the plugin copies in guarded memory, calls the plugin's own hook and looks at what it
//! left behind; a host table whose functions are the gateway's, but for what they note. The frame that drives them is the
//! gateway's own: it knows nothing of all this. Must not: decide what a verdict means (the frame does).
//!
//! One dry run per process and thread: its state is thread-local, because a hook has no other way to it.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use ringway_abi::outcall::Outcall;
use ringway_abi::raw::{self, Hook, Host, RawChunk, RawCx, RawEvent, RawLoader};
use ringway_abi::{RequestView, ResponseView};

use super::pen::{Kind, Pen, Piece};
use super::said::{Found, Said, Step, Timed};
use super::show;
use crate::clock;
use crate::plugin::chain::CoreLink;
use crate::plugin::frame::Frame;
use crate::plugin::host::HOST;
use crate::plugin::outcall::table::OUTCALL;

/// Bytes of a plugin's log line that a refusal quotes.
const LOG_BYTES_MAX: usize = 300;

/// The hook that runs, for the handler of fatal signals.
pub(super) static RUNNING: AtomicU32 = AtomicU32::new(0);

/// The table that a plugin in a dry run gets.
pub(super) static WATCHED: Host = Host {
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
    log,
    load_log,
    get_ext,
    ..HOST
};

/// The table "ringway.outcall/1" that a plugin in a dry run gets.
static WATCHED_OUTCALL: Outcall = Outcall { begin: outcall_begin, header: outcall_header, body: outcall_body, send: outcall_send, ..OUTCALL };

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// What is known of the dry run of this thread.
pub(super) struct Watch {
    pen: Pen,
    say: Box<dyn FnMut(&Said)>,
    frame: Option<String>,
    calls: Vec<(&'static str, u32)>,
    found: Option<Found>,
    scratch_bytes: usize,
    scratch: Option<Piece>,
    allocated: Vec<Piece>,
    reserved: Option<Reserved>,
    last_log: Option<String>,
    timings: Vec<Timing>,
}

/// Memory from `resp_reserve`: the piece that the plugin has, and where its bytes go.
struct Reserved {
    piece: Piece,
    real: *mut u8,
}

/// The durations of one hook on one frame.
struct Timing {
    frame: String,
    hook: &'static str,
    ns: Vec<u64>,
    verdicts: Vec<(u32, u64)>,
}

/// What a hook is shown.
struct Shown<E> {
    event: *const E,
    /// `rw_cx` as the frame filled it.
    before: RawCx,
    /// `rw_cx` as the hook gets it.
    given: RawCx,
    /// Given for this call only.
    lent: Vec<Piece>,
}

impl Watch {
    /// Begins the dry run of this thread. `scratch_bytes` as the plugin declares.
    pub(super) fn install(scratch_bytes: usize, say: Box<dyn FnMut(&Said)>) -> io::Result<()> {
        let watch = Watch {
            pen: Pen::new()?,
            say,
            frame: None,
            calls: Vec::new(),
            found: None,
            scratch_bytes,
            scratch: None,
            allocated: Vec::new(),
            reserved: None,
            last_log: None,
            timings: Vec::new(),
        };
        WATCH.set(Some(watch));
        Ok(())
    }

    fn step(&self, function: &str) -> Step {
        Step { function: function.to_owned(), frame: self.frame.clone() }
    }

    fn find(&mut self, found: Found) {
        self.found.get_or_insert(found);
    }

    fn say(&mut self, said: &Said) {
        (self.say)(said);
    }
}

fn with<T>(look: impl FnOnce(&mut Watch) -> T) -> Option<T> {
    WATCH.with_borrow_mut(|watch| watch.as_mut().map(look))
}

/// Says something to whoever started the dry run.
pub(super) fn say(said: &Said) {
    with(|watch| watch.say(said));
}

/// A frame begins, or, without a name, something that is none. Its scratch memory is new.
pub(super) fn begin(name: Option<&str>) -> io::Result<()> {
    with(|watch| {
        watch.frame = name.map(str::to_owned);
        watch.calls.clear();
        watch.last_log = None;
        let bytes = watch.scratch_bytes;
        watch.scratch = if bytes > 0 { Some(watch.pen.piece(Kind::Scratch, bytes, 16)?) } else { None };
        Ok(())
    })
    .unwrap_or(Ok(()))
}

/// The frame is over: nothing that the plugin was given may be used any more.
pub(super) fn end() {
    with(|watch| {
        watch.scratch = None;
        watch.allocated.clear();
        watch.reserved = None;
        watch.pen.retire_all();
    });
}

/// The hooks that were called for the frame, with their verdicts.
pub(super) fn calls() -> Vec<(&'static str, u32)> {
    with(|watch| watch.calls.clone()).unwrap_or_default()
}

/// What has been found so far.
pub(super) fn found() -> Option<Found> {
    with(|watch| watch.found.clone()).flatten()
}

/// The call that the frame took for a fault, with its verdict, and the plugin's last words in the log.
pub(super) fn last_fault() -> (Step, u32, Option<String>) {
    with(|watch| {
        let never_right = |verdict: u32| !matches!(verdict, raw::CONTINUE | raw::DONE | raw::DROP | raw::RESPOND | raw::NEED_BODY);
        let counted: Vec<_> = watch.calls.iter().filter(|(hook, _)| *hook != "on_done").collect();
        // A hook that waited, and was told what it had waited for, did nothing wrong.
        let has_waited = |at: usize| counted[at].1 == raw::SUSPEND && counted.get(at + 1).is_some_and(|(hook, _)| *hook == "on_event");
        let fault = (0..counted.len()).rev().find(|at| never_right(counted[*at].1) && !has_waited(*at)).map(|at| counted[at]);
        let fault = fault.or_else(|| counted.iter().rev().copied().find(|(_, verdict)| matches!(*verdict, raw::RESPOND | raw::NEED_BODY)));
        let (hook, verdict) = fault.copied().unwrap_or(("", raw::ABORTED));
        (watch.step(hook), verdict, watch.last_log.clone())
    })
    .unwrap_or((Step { function: String::new(), frame: None }, raw::ABORTED, None))
}

/// What `log` was given last.
pub(super) fn last_log() -> Option<String> {
    with(|watch| watch.last_log.clone()).flatten()
}

/// The durations so far, and forgets them.
pub(super) fn timings() -> Vec<Timed> {
    let timings = with(|watch| std::mem::take(&mut watch.timings)).unwrap_or_default();
    timings
        .into_iter()
        .map(|mut timing| {
            timing.ns.sort_unstable();
            let at = |percent: usize| timing.ns[(timing.ns.len() - 1) * percent / 100];
            Timed {
                frame: timing.frame,
                hook: timing.hook.to_owned(),
                verdicts: timing.verdicts.iter().map(|(verdict, count)| (super::verdict_name(*verdict), *count)).collect(),
                calls: timing.ns.len() as u64,
                min_ns: at(0),
                median_ns: at(50),
                p99_ns: at(99),
            }
        })
        .collect()
}

/// Puts the watch in front of every hook of a link.
pub(super) fn watch_link(link: &mut CoreLink) {
    link.on_accept = link.on_accept.map(|_| watched::<raw::Accept> as Hook<raw::Accept>);
    link.on_request = link.on_request.map(|_| watched::<RequestView> as Hook<RequestView>);
    link.on_request_chunk = link.on_request_chunk.map(|_| watched::<RawChunk> as Hook<RawChunk>);
    link.on_request_body = link.on_request_body.map(|_| watched::<RawChunk> as Hook<RawChunk>);
    link.on_response = link.on_response.map(|_| watched::<ResponseView> as Hook<ResponseView>);
    link.on_response_chunk = link.on_response_chunk.map(|_| watched::<RawChunk> as Hook<RawChunk>);
    link.on_event = link.on_event.map(|_| watched::<RawEvent> as Hook<RawEvent>);
    link.on_done = link.on_done.map(|_| watched::<raw::Done> as Hook<raw::Done>);
}

/// Puts a clock in front of every hook of a link.
pub(super) fn time_link(link: &mut CoreLink) {
    link.on_accept = link.on_accept.map(|_| timed::<raw::Accept> as Hook<raw::Accept>);
    link.on_request = link.on_request.map(|_| timed::<RequestView> as Hook<RequestView>);
    link.on_request_chunk = link.on_request_chunk.map(|_| timed::<RawChunk> as Hook<RawChunk>);
    link.on_request_body = link.on_request_body.map(|_| timed::<RawChunk> as Hook<RawChunk>);
    link.on_response = link.on_response.map(|_| timed::<ResponseView> as Hook<ResponseView>);
    link.on_response_chunk = link.on_response_chunk.map(|_| timed::<RawChunk> as Hook<RawChunk>);
    link.on_event = link.on_event.map(|_| timed::<RawEvent> as Hook<RawEvent>);
    link.on_done = link.on_done.map(|_| timed::<raw::Done> as Hook<raw::Done>);
}

/// `on_tick` behind the watch.
pub(super) const TICK: Hook<raw::Tick> = watched::<raw::Tick>;

/// The events of hooks.
trait Event: Sized {
    /// The plugin's own hook of this bit.
    fn real(plugin: &raw::Plugin, hook: u32) -> Option<Hook<Self>>;

    /// A copy to show; what is lent for the call goes to `lent`. `given` holds the copies of the views.
    ///
    /// # Safety
    /// `event` is valid, as the frame passed it.
    unsafe fn show(event: *const Self, given: &RawCx, pen: &mut Pen, lent: &mut Vec<Piece>) -> io::Result<*const Self>;
}

/// A copy of a struct that is lent for the call.
///
/// # Safety
/// `event` is valid.
unsafe fn lend<E: Copy>(event: *const E, pen: &mut Pen, lent: &mut Vec<Piece>) -> io::Result<*const E> {
    // SAFETY: the caller's promise.
    let piece = show::event(pen, unsafe { &*event })?;
    lent.push(piece);
    Ok(piece.at.cast_const().cast())
}

macro_rules! lent_event {
    ($event:ty, $field:ident) => {
        impl Event for $event {
            fn real(plugin: &raw::Plugin, _: u32) -> Option<Hook<Self>> {
                plugin.$field
            }

            unsafe fn show(event: *const Self, _: &RawCx, pen: &mut Pen, lent: &mut Vec<Piece>) -> io::Result<*const Self> {
                // SAFETY: the caller's promise.
                unsafe { lend(event, pen, lent) }
            }
        }
    };
}

lent_event!(raw::Accept, on_accept);
lent_event!(raw::Done, on_done);
lent_event!(raw::Tick, on_tick);

impl Event for RawChunk {
    fn real(plugin: &raw::Plugin, hook: u32) -> Option<Hook<Self>> {
        match hook {
            raw::HOOK_REQUEST_CHUNK => plugin.on_request_chunk,
            raw::HOOK_REQUEST_BODY => plugin.on_request_body,
            _ => plugin.on_response_chunk,
        }
    }

    unsafe fn show(event: *const Self, _: &RawCx, pen: &mut Pen, lent: &mut Vec<Piece>) -> io::Result<*const Self> {
        // SAFETY: the caller's promise.
        let mut chunk = unsafe { *event };
        // SAFETY: the frame fills `bytes` and `len` from one slice.
        let bytes = unsafe { std::slice::from_raw_parts(chunk.bytes, chunk.len as usize) };
        let piece = pen.keep(Kind::Chunk, bytes, 1)?;
        lent.push(piece);
        chunk.bytes = piece.at;
        // SAFETY: a local.
        unsafe { lend(&raw const chunk, pen, lent) }
    }
}

impl Event for RawEvent {
    fn real(plugin: &raw::Plugin, _: u32) -> Option<Hook<Self>> {
        plugin.on_event
    }

    unsafe fn show(event: *const Self, _: &RawCx, pen: &mut Pen, lent: &mut Vec<Piece>) -> io::Result<*const Self> {
        // SAFETY: the caller's promise.
        let mut event = unsafe { *event };
        // SAFETY: null, or the view of a reply, which lives for the call.
        if let Some(reply) = unsafe { event.response.as_ref() } {
            event.response = show::response(pen, reply)?;
        }
        // SAFETY: a local.
        unsafe { lend(&raw const event, pen, lent) }
    }
}

impl Event for RequestView {
    fn real(plugin: &raw::Plugin, _: u32) -> Option<Hook<Self>> {
        plugin.on_request
    }

    unsafe fn show(_: *const Self, given: &RawCx, _: &mut Pen, _: &mut Vec<Piece>) -> io::Result<*const Self> {
        Ok(given.request)
    }
}

impl Event for ResponseView {
    fn real(plugin: &raw::Plugin, _: u32) -> Option<Hook<Self>> {
        plugin.on_response
    }

    unsafe fn show(_: *const Self, given: &RawCx, _: &mut Pen, _: &mut Vec<Piece>) -> io::Result<*const Self> {
        Ok(given.response)
    }
}

/// The plugin's own hook.
///
/// # Safety
/// `cx` is the one that the frame called with.
unsafe fn real<E: Event>(cx: *mut RawCx) -> Option<Hook<E>> {
    // SAFETY: `RawCx` is the first field of a `Frame`, which nobody else refers to while the hook runs.
    let frame = unsafe { &*cx.cast::<Frame>() };
    let link = frame.chain.links.get(frame.link)?;
    E::real(link.plugin.version().descriptor(), frame.raw_hook())
}

unsafe extern "C" fn watched<E: Event>(cx: *mut RawCx, event: *const E) -> u32 {
    // SAFETY: called by the frame with its own `cx`.
    let Some(hook) = (unsafe { real::<E>(cx) }) else { return raw::ABORTED };
    // SAFETY: as above; the event is valid for the call.
    let shown = match with(|watch| unsafe { watch.prepare(cx, event) }) {
        Some(Ok(shown)) => shown,
        _ => {
            say(&Said::Unable("the frame needs more guarded memory than there is".into()));
            std::process::exit(1);
        }
    };
    RUNNING.store(shown.given.hook, Ordering::Relaxed);
    // SAFETY: the hook contract of ringway.h, as in `Frame::call_link`: `cx` is the head of the frame, and the event a copy that
    // is valid for the call.
    let verdict = unsafe { hook(cx, shown.event) };
    RUNNING.store(0, Ordering::Relaxed);
    // SAFETY: as above; the hook has returned.
    with(|watch| unsafe { watch.look_after(cx, &shown, verdict) });
    verdict
}

unsafe extern "C" fn timed<E: Event>(cx: *mut RawCx, event: *const E) -> u32 {
    // SAFETY: called by the frame with its own `cx`.
    let Some(hook) = (unsafe { real::<E>(cx) }) else { return raw::ABORTED };
    // SAFETY: as above.
    let bit = unsafe { (*cx).hook };
    RUNNING.store(bit, Ordering::Relaxed);
    let before = clock::monotonic_ns();
    // SAFETY: the hook contract of ringway.h, as in `Frame::call_link`, whose arguments these are.
    let verdict = unsafe { hook(cx, event) };
    let ns = clock::monotonic_ns() - before;
    RUNNING.store(0, Ordering::Relaxed);
    with(|watch| watch.note_time(bit, ns, verdict));
    verdict
}

impl Watch {
    /// Copies what the hook may see.
    ///
    /// # Safety
    /// `cx` and `event` are what the frame called the hook with.
    unsafe fn prepare<E: Event>(&mut self, cx: *mut RawCx, event: *const E) -> io::Result<Shown<E>> {
        // SAFETY: valid, and plain words without a destructor.
        let (before, mut given) = unsafe { (ptr::read(cx), ptr::read(cx)) };
        // SAFETY: null, or the view in force, which lives as long as the exchange.
        if let Some(view) = unsafe { given.request.as_ref() } {
            given.request = show::request(&mut self.pen, view)?;
        }
        // SAFETY: as above.
        if let Some(view) = unsafe { given.response.as_ref() } {
            given.response = show::response(&mut self.pen, view)?;
        }
        if let Some(scratch) = self.scratch.filter(|_| !given.scratch.is_null()) {
            given.scratch = scratch.at.cast();
        }
        given.host = &raw const WATCHED;
        let mut lent = Vec::new();
        // SAFETY: the caller's promise.
        let event = unsafe { E::show(event, &given, &mut self.pen, &mut lent) }?;
        // SAFETY: `cx` is valid, and the frame does not look at these fields while the hook runs.
        unsafe { ptr::copy_nonoverlapping(&raw const given, cx, 1) };
        let step = self.step(super::hook_name(given.hook));
        self.say(&Said::At(step));
        Ok(Shown { event, before, given, lent })
    }

    /// Looks at what the hook left behind.
    ///
    /// # Safety
    /// `cx` is what the frame called the hook with, and the hook has returned.
    unsafe fn look_after<E>(&mut self, cx: *mut RawCx, shown: &Shown<E>, verdict: u32) {
        let name = super::hook_name(shown.given.hook);
        // SAFETY: valid, and plain words.
        let after = unsafe { ptr::read(cx) };
        if words(&after) != words(&shown.given) {
            self.find(Found::CxChanged(self.step(name)));
        }
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(&raw const shown.before, cx, 1) };
        let pieces = self.scratch.iter().map(|piece| (Kind::Scratch, *piece));
        let pieces = pieces.chain(self.allocated.iter().map(|piece| (Kind::Alloc, *piece)));
        let pieces: Vec<_> = pieces.chain(self.reserved.iter().map(|reserved| (Kind::Reserved, reserved.piece))).collect();
        for (kind, piece) in pieces {
            if !self.pen.is_intact(&piece) {
                self.find(Found::Overflow(self.step(name), kind.name().to_owned()));
            }
        }
        for piece in &shown.lent {
            self.pen.retire(piece);
        }
        self.forget_reserved();
        self.calls.push((name, verdict));
    }

    fn forget_reserved(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.pen.retire(&reserved.piece);
        }
    }

    fn note_time(&mut self, hook: u32, ns: u64, verdict: u32) {
        let hook = super::hook_name(hook);
        let frame = self.frame.as_deref().unwrap_or_default();
        let at = match self.timings.iter().position(|timing| timing.hook == hook && timing.frame == frame) {
            Some(at) => at,
            None => {
                self.timings.push(Timing { frame: frame.to_owned(), hook, ns: Vec::new(), verdicts: Vec::new() });
                self.timings.len() - 1
            }
        };
        let timing = &mut self.timings[at];
        timing.ns.push(ns);
        match timing.verdicts.iter_mut().find(|(known, _)| *known == verdict) {
            Some((_, count)) => *count += 1,
            None => timing.verdicts.push((verdict, 1)),
        }
        self.calls.push((hook, verdict));
    }

    /// What the status of a host function says about the plugin.
    fn judge(&mut self, function: &str, status: i32) {
        let running = RUNNING.load(Ordering::Relaxed);
        let step = self.step(super::hook_name(running));
        let function = function.to_owned();
        let found = match status {
            raw::ERR_NOT_DECLARED => Found::NotDeclared(step, function),
            raw::ERR_WRONG_HOOK => Found::WrongHook(step, function),
            raw::ERR_BAD_BYTES => Found::BadBytes(step, function),
            raw::ERR_FORBIDDEN => Found::Forbidden(step, function),
            raw::ERR_BAD_ARGUMENT => Found::BadArgument(step, function),
            // A bound that was reached, or a name that is not there: the plugin has been told, and may know what to do.
            _ => return,
        };
        self.find(found);
    }
}

/// What a plugin may not change.
fn words(cx: &RawCx) -> [usize; 10] {
    let pointers = [cx.host.addr(), cx.core.addr(), cx.scratch.addr(), cx.request.addr(), cx.response.addr()];
    let [host, core, scratch, request, response] = pointers;
    [cx.size as usize, cx.hook as usize, host, core, scratch, request, response, cx.now_unix_ns as usize, cx.worker as usize, cx.link as usize]
}

fn judged(function: &str, status: i32) -> i32 {
    with(|watch| watch.judge(function, status));
    status
}

unsafe extern "C" fn header_set(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: passed on as it came.
    judged("header_set", unsafe { (HOST.header_set)(cx, side, name, name_len, value, value_len) })
}

unsafe extern "C" fn header_add(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: passed on as it came.
    judged("header_add", unsafe { (HOST.header_add)(cx, side, name, name_len, value, value_len) })
}

unsafe extern "C" fn header_del(cx: *mut RawCx, side: u32, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: passed on as it came.
    judged("header_del", unsafe { (HOST.header_del)(cx, side, name, name_len) })
}

unsafe extern "C" fn target_set(cx: *mut RawCx, target: *const u8, target_len: u32) -> i32 {
    // SAFETY: passed on as it came.
    judged("target_set", unsafe { (HOST.target_set)(cx, target, target_len) })
}

unsafe extern "C" fn status_set(cx: *mut RawCx, status: u32) -> i32 {
    // SAFETY: passed on as it came.
    judged("status_set", unsafe { (HOST.status_set)(cx, status) })
}

/// The dry run has no upstreams: every name is one.
unsafe extern "C" fn upstream_set(cx: *mut RawCx, name: *const u8, name_len: u32) -> i32 {
    // SAFETY: passed on as it came.
    match judged("upstream_set", unsafe { (HOST.upstream_set)(cx, name, name_len) }) {
        raw::ERR_NOT_FOUND => raw::OK,
        status => status,
    }
}

unsafe extern "C" fn outcall_begin(cx: *mut RawCx, upstream: u32, method: *const u8, method_len: u32, target: *const u8, target_len: u32) -> i32 {
    // SAFETY: passed on as it came.
    judged("outcall.begin", unsafe { (OUTCALL.begin)(cx, upstream, method, method_len, target, target_len) })
}

unsafe extern "C" fn outcall_header(cx: *mut RawCx, name: *const u8, name_len: u32, value: *const u8, value_len: u32) -> i32 {
    // SAFETY: passed on as it came.
    judged("outcall.header", unsafe { (OUTCALL.header)(cx, name, name_len, value, value_len) })
}

unsafe extern "C" fn outcall_body(cx: *mut RawCx, bytes: *const u8, len: u32) -> i32 {
    // SAFETY: passed on as it came.
    judged("outcall.body", unsafe { (OUTCALL.body)(cx, bytes, len) })
}

unsafe extern "C" fn outcall_send(cx: *mut RawCx, token: u64) -> i32 {
    // SAFETY: passed on as it came.
    judged("outcall.send", unsafe { (OUTCALL.send)(cx, token) })
}

unsafe extern "C" fn get_ext(loader: *mut RawLoader, id: *const c_char) -> *const c_void {
    // SAFETY: NUL-terminated or null, the contract of the host table.
    if !id.is_null() && unsafe { CStr::from_ptr(id) } == ringway_abi::outcall::ID {
        return ptr::from_ref(&WATCHED_OUTCALL).cast();
    }
    // SAFETY: passed on as it came.
    unsafe { (HOST.get_ext)(loader, id) }
}

unsafe extern "C" fn body_replace(cx: *mut RawCx, body: *const u8, len: u64) -> i32 {
    // SAFETY: passed on as it came.
    judged("body_replace", unsafe { (HOST.body_replace)(cx, body, len) })
}

unsafe extern "C" fn resp_begin(cx: *mut RawCx, status: u32) -> i32 {
    with(Watch::forget_reserved);
    // SAFETY: passed on as it came.
    judged("resp_begin", unsafe { (HOST.resp_begin)(cx, status) })
}

unsafe extern "C" fn resp_prebuilt(cx: *mut RawCx, id: u32) -> i32 {
    with(Watch::forget_reserved);
    // SAFETY: passed on as it came.
    judged("resp_prebuilt", unsafe { (HOST.resp_prebuilt)(cx, id) })
}

/// The plugin writes to a piece; what it commits is copied to where it belongs.
unsafe extern "C" fn resp_reserve(cx: *mut RawCx, len: u32) -> *mut u8 {
    with(Watch::forget_reserved);
    // SAFETY: passed on as it came.
    let real = unsafe { (HOST.resp_reserve)(cx, len) };
    if real.is_null() || RUNNING.load(Ordering::Relaxed) == 0 {
        return real;
    }
    with(|watch| match watch.pen.piece(Kind::Reserved, len as usize, 1) {
        Ok(piece) => watch.reserved.insert(Reserved { piece, real }).piece.at,
        Err(_) => real,
    })
    .unwrap_or(real)
}

unsafe extern "C" fn resp_commit(cx: *mut RawCx, len: u32) -> i32 {
    with(|watch| {
        if let Some(reserved) = &watch.reserved {
            let bytes = watch.pen.bytes(&reserved.piece, len as usize);
            // SAFETY: the gateway gave as many bytes at `real` as the piece has, valid until the next reserve.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), reserved.real, bytes.len()) };
        }
    });
    // SAFETY: passed on as it came.
    judged("resp_commit", unsafe { (HOST.resp_commit)(cx, len) })
}

unsafe extern "C" fn alloc(cx: *mut RawCx, size: u32) -> *mut c_void {
    // SAFETY: passed on as it came.
    let real = unsafe { (HOST.alloc)(cx, size) };
    if real.is_null() {
        return real;
    }
    with(|watch| match watch.pen.piece(Kind::Alloc, size as usize, 16) {
        Ok(piece) => {
            watch.allocated.push(piece);
            piece.at.cast()
        }
        Err(_) => real,
    })
    .unwrap_or(real)
}

unsafe extern "C" fn log(_: *mut RawCx, _: u32, text: *const u8, len: u32) {
    // SAFETY: what a plugin logs is readable for its length.
    unsafe { note_log(text, len) };
}

unsafe extern "C" fn load_log(_: *mut RawLoader, _: u32, text: *const u8, len: u32) {
    // SAFETY: as above.
    unsafe { note_log(text, len) };
}

/// # Safety
/// `text` is readable for `len` bytes.
unsafe fn note_log(text: *const u8, len: u32) {
    if text.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let text = unsafe { std::slice::from_raw_parts(text, (len as usize).min(LOG_BYTES_MAX)) };
    with(|watch| watch.last_log = Some(String::from_utf8_lossy(text).into_owned()));
}
