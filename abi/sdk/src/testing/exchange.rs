//! One exchange of the test host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringway_abi::outcall::EVENT_REPLY;
use ringway_abi::owned::Headers;
use ringway_abi::raw::{self, RawChunk, RawCx};
use ringway_abi::view::{ORIGIN_GATEWAY, ORIGIN_PLUGIN, ORIGIN_UPSTREAM, RES_CHUNKED, RequestView, ResponseView};
use ringway_abi::wait::{EVENT_TIMEOUT, EVENT_TIMER, EVENT_WAKE};
use rkyv::rancor;
use rkyv::util::AlignedVec;

use super::host::TestHost;
use super::outcall_table::SentCall;
use super::table::Call;
use super::{Request, Response, rules, wait_table};
use crate::{Event, Export, NoReply};

/// An exchange whose hooks the test runs one by one. What a hook edits is there for the next one.
pub struct Exchange<'a, P: Export> {
    host: &'a mut TestHost<P>,
    /// The request as the next hook sees it.
    pub request: Request,
    /// The response as the next hook sees it.
    pub response: Option<Response>,
    /// The body as the upstream gets it, from the body hooks that ran.
    pub request_body: Vec<u8>,
    /// The body as the client gets it, from the body hooks that ran.
    pub response_body: Vec<u8>,
    /// The upstream that the plugin chose.
    pub upstream: Option<String>,
    scratch: Box<[u128]>,
    memory: Vec<Box<[u128]>>,
    is_done: bool,
    /// The bit of the hook that waits; 0 for none.
    waits: u32,
    event: Option<Told>,
    timer: Option<(Duration, u64)>,
    sent: Vec<SentCall>,
}

/// What on_event is told, as it is kept.
enum Told {
    Timer(u64),
    Wake(u64),
    Timeout,
    Reply(u64, Result<Response, NoReply>),
}

/// What a hook returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// `export_plugin!` does not list the hook, or an earlier one returned `Done`.
    NotCalled,
    /// The hook failed: a fault, a panic, `NeedBody` or `Respond` where they are not possible. Edits are dropped.
    Aborted,
    /// Go on.
    Continue,
    /// Go on, without further hooks of this plugin in this exchange.
    Done,
    /// Answer.
    Respond(Answer),
    /// Close the connection.
    Drop,
    /// Buffer the body.
    NeedBody,
    /// Wait for an event.
    Suspend,
}

/// A response: a plugin's own, or what the client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names and values; Content-Length is not in it when a plugin answered, and Date only when the plugin set it.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// `ORIGIN_*`: who made it.
    pub origin: u8,
}

impl Returned {
    /// The answer; panics when the hook returned anything else.
    #[track_caller]
    pub fn answer(self) -> Answer {
        match self {
            Returned::Respond(answer) => answer,
            other => panic!("the hook did not answer; it returned {other:?}"),
        }
    }

    /// Panics unless the exchange goes on.
    #[track_caller]
    pub fn continues(self) {
        assert!(
            matches!(self, Returned::Continue | Returned::Done),
            "the hook did not continue; it returned {self:?}; the reason may be in `logs` of the host"
        );
    }
}

impl Answer {
    pub(super) fn of_plugin(status: u16) -> Self {
        Answer { status, headers: Vec::new(), body: Vec::new(), origin: ORIGIN_PLUGIN }
    }

    pub(super) fn push_header(&mut self, name: &[u8], value: &[u8]) {
        self.headers.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()));
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl<'a, P: Export> Exchange<'a, P> {
    pub(super) fn new(host: &'a mut TestHost<P>, mut request: Request) -> Self {
        request.request_id = next_request_id();
        request.received_unix_ns = host.now_unix_ns();
        let scratch = vec![0; (P::DESCRIPTOR.raw().scratch_bytes as usize).div_ceil(16)].into_boxed_slice();
        Exchange {
            host,
            request,
            response: None,
            request_body: Vec::new(),
            response_body: Vec::new(),
            upstream: None,
            scratch,
            memory: Vec::new(),
            is_done: false,
            waits: 0,
            event: None,
            timer: None,
            sent: Vec::new(),
        }
    }

    /// Runs `on_request`.
    pub fn on_request(&mut self) -> Returned {
        self.run(raw::HOOK_REQUEST, None)
    }

    /// Runs `on_request_chunk`.
    pub fn on_request_chunk(&mut self, bytes: &[u8], is_last: bool) -> Returned {
        self.run(raw::HOOK_REQUEST_CHUNK, Some((bytes, is_last)))
    }

    /// Runs `on_request_body`.
    pub fn on_request_body(&mut self, bytes: &[u8]) -> Returned {
        self.run(raw::HOOK_REQUEST_BODY, Some((bytes, true)))
    }

    /// Runs `on_response`.
    pub fn on_response(&mut self, mut response: Response) -> Returned {
        response.request_id = self.request.request_id;
        self.response = Some(response);
        self.run(raw::HOOK_RESPONSE, None)
    }

    /// Runs `on_response_chunk`.
    pub fn on_response_chunk(&mut self, bytes: &[u8], is_last: bool) -> Returned {
        self.run(raw::HOOK_RESPONSE_CHUNK, Some((bytes, is_last)))
    }

    /// Runs `on_event` for the hook that returned [`Returned::Suspend`] last; panics when none did. For a reply there is [`Exchange::on_reply`].
    #[track_caller]
    pub fn on_event(&mut self, event: Event<'_>) -> Returned {
        self.told(match event {
            Event::Timer(token) => Told::Timer(token),
            Event::Wake(token) => Told::Wake(token),
            Event::Timeout => Told::Timeout,
            Event::Reply { token, reply } => Told::Reply(token, Err(reply.err().expect("a reply is given to on_reply"))),
        })
    }

    /// Runs `on_event` with the end of an outcall.
    #[track_caller]
    pub fn on_reply(&mut self, token: u64, reply: Result<Response, NoReply>) -> Returned {
        self.told(Told::Reply(token, reply))
    }

    #[track_caller]
    fn told(&mut self, event: Told) -> Returned {
        assert!(self.waits != 0, "no hook of this exchange waits for an event");
        self.event = Some(event);
        self.run(raw::HOOK_EVENT, None)
    }

    /// The outcalls that the plugin has sent and waits for, once.
    pub fn take_calls(&mut self) -> Vec<SentCall> {
        std::mem::take(&mut self.sent)
    }

    /// The timer that the plugin waits for: how long from the hook on, and its token.
    pub fn timer(&self) -> Option<(Duration, u64)> {
        self.timer
    }

    /// The tokens of the wakes that were sent for this exchange and not yet taken, from whatever thread.
    pub fn wakes(&self) -> Vec<u64> {
        wait_table::take_wakes(self.request.request_id)
    }

    /// Ends the exchange: runs `on_done`.
    pub fn on_done(mut self, is_aborted: bool) {
        let (status, origin) = self.response.as_ref().map_or((0, ORIGIN_GATEWAY), |response| (response.status, response.origin));
        self.finish(status, origin, is_aborted);
    }

    /// The first header of this name in the request as it stands now.
    pub fn request_header(&self, name: &str) -> Option<&str> {
        header(&self.request.headers, name)
    }

    /// The first header of this name in the response as it stands now.
    pub fn response_header(&self, name: &str) -> Option<&str> {
        header(&self.response.as_ref()?.headers, name)
    }

    /// What the plugin's host knows.
    pub fn host(&self) -> &TestHost<P> {
        self.host
    }

    pub(super) fn serve(mut self, upstream: impl FnOnce(&Request) -> Response) -> Answer {
        let answer = match self.pre_hooks() {
            Ok(()) => {
                let response = upstream(&self.request);
                self.post_hooks(response)
            }
            Err(answer) => answer,
        };
        self.finish(answer.status, answer.origin, answer.status == 0);
        answer
    }

    fn pre_hooks(&mut self) -> Result<(), Answer> {
        let body = std::mem::take(&mut self.request.body.0);
        let mut returned = self.on_request();
        if returned == Returned::NeedBody {
            returned = self.on_request_body(&body);
        } else if matches!(returned, Returned::Continue | Returned::NotCalled | Returned::Done) && !body.is_empty() {
            returned = self.on_request_chunk(&body, true);
        }
        self.goes_on(returned)
    }

    fn post_hooks(&mut self, mut response: Response) -> Answer {
        let body = match response.flags & RES_CHUNKED {
            0 => response.body.0.clone(),
            _ => std::mem::take(&mut response.body.0),
        };
        let returned = self.on_response(response);
        if let Err(answer) = self.goes_on(returned) {
            return answer;
        }
        let (first, second) = body.split_at(body.len() / 2);
        for (piece, is_last) in [(first, false), (second, true)] {
            if body.is_empty() {
                break;
            }
            let returned = self.on_response_chunk(piece, is_last);
            if let Err(answer) = self.goes_on(returned) {
                return answer;
            }
        }
        let Some(response) = &self.response else { return gateway_answer(502) };
        let mut answer = Answer { status: response.status, headers: Vec::new(), body: std::mem::take(&mut self.response_body), origin: ORIGIN_UPSTREAM };
        for header in response.headers.0.iter().filter(|h| h.name.id != ringway_abi::ids::HEADER_ID_REMOVED) {
            answer.push_header(&header.name.name, &header.value.0);
        }
        answer
    }

    fn goes_on(&self, returned: Returned) -> Result<(), Answer> {
        match returned {
            Returned::Continue | Returned::Done | Returned::NotCalled => Ok(()),
            Returned::Respond(answer) => Err(answer),
            Returned::Aborted | Returned::NeedBody | Returned::Suspend => Err(gateway_answer(500)),
            Returned::Drop => Err(gateway_answer(0)),
        }
    }

    fn finish(&mut self, status: u16, origin: u8, is_aborted: bool) {
        let Some(hook) = P::DESCRIPTOR.raw().on_done else { return };
        let done = raw::Done {
            size: size_of::<raw::Done>() as u32,
            status,
            origin,
            flags: if is_aborted { raw::END_ABORTED } else { 0 },
            request_body_bytes: self.request_body.len() as u64,
            response_body_bytes: self.response_body.len() as u64,
            duration_ns: self.host.now_unix_ns() - self.request.received_unix_ns,
        };
        // SAFETY: the contract of hooks: the event lives until the hook returns.
        self.call(raw::HOOK_DONE, |cx, _, _| Some(unsafe { hook(cx, &done) }));
    }

    fn run(&mut self, bit: u32, piece: Option<(&[u8], bool)>) -> Returned {
        if self.is_done {
            self.forward(bit, piece);
            return Returned::NotCalled;
        }
        let (bytes, is_last) = piece.unwrap_or_default();
        let offset = if bit == raw::HOOK_RESPONSE_CHUNK { self.response_body.len() } else { self.request_body.len() };
        let flags = if is_last { raw::CHUNK_LAST } else { 0 };
        let chunk = RawChunk { size: size_of::<RawChunk>() as u32, flags, offset: offset as u64, bytes: bytes.as_ptr(), len: bytes.len() as u64 };
        let archive = self.reply_archive();
        let event = self.raw_event(archive.as_deref());
        let descriptor = P::DESCRIPTOR;
        let plugin = descriptor.raw();
        let hooks = |cx: *mut RawCx, request: &RequestView, response: Option<&ResponseView>| {
            // SAFETY: the contract of hooks: views, chunk and the call behind `cx` live until the hook returns.
            unsafe {
                Some(match bit {
                    raw::HOOK_REQUEST => plugin.on_request?(cx, request),
                    raw::HOOK_REQUEST_CHUNK => plugin.on_request_chunk?(cx, &chunk),
                    raw::HOOK_REQUEST_BODY => plugin.on_request_body?(cx, &chunk),
                    raw::HOOK_RESPONSE => plugin.on_response?(cx, response?),
                    raw::HOOK_EVENT => plugin.on_event?(cx, &event),
                    _ => plugin.on_response_chunk?(cx, &chunk),
                })
            }
        };
        let (returned, replaced) = self.call(bit, hooks);
        if returned == Returned::Suspend {
            self.waits = if bit == raw::HOOK_EVENT { self.waits } else { bit };
            return returned;
        }
        let bit = if bit == raw::HOOK_EVENT { std::mem::take(&mut self.waits) } else { bit };
        match (&returned, replaced) {
            (Returned::Continue | Returned::Done, Some(replaced)) => self.forward(bit, Some((&replaced, is_last))),
            (Returned::Continue | Returned::Done | Returned::NotCalled, _) => self.forward(bit, piece),
            _ => {}
        }
        returned
    }

    /// Runs a hook on views of the messages as they stand; what it returned, and the bytes that replace its piece.
    fn call(&mut self, bit: u32, hook: impl FnOnce(*mut RawCx, &RequestView, Option<&ResponseView>) -> Option<u32>) -> (Returned, Option<Vec<u8>>) {
        let interned = self.host.state().interned.clone();
        let request = request_view(&mut self.request, &interned);
        let response = self.response.as_mut().map(|response| response_view(response, &interned));
        let request = rkyv::access::<RequestView, rancor::Error>(&request).expect("an owned request archives into a view");
        let response = response.as_ref().map(|bytes| rkyv::access::<ResponseView, rancor::Error>(bytes).expect("an owned response archives into a view"));
        let mut call = Call::new(self.host.state, self.host.core, bit);
        call.raw.request = request;
        call.raw.response = response.map_or(std::ptr::null(), std::ptr::from_ref);
        call.raw.scratch = if self.scratch.is_empty() { std::ptr::null_mut() } else { self.scratch.as_mut_ptr().cast() };
        call.request = Some(self.request.clone());
        call.response = self.response.clone();
        call.memory = std::mem::take(&mut self.memory);
        call.waits = self.waits;
        let verdict = hook(std::ptr::from_mut(&mut call).cast(), request, response);
        self.memory = std::mem::take(&mut call.memory);
        let Some(verdict) = verdict else { return (Returned::NotCalled, None) };
        let returned = self.judge(bit, verdict, call.answer.take());
        if returned == Returned::Aborted {
            return (returned, None);
        }
        if returned == Returned::Suspend {
            self.timer = call.timer.take().or(self.timer);
            self.sent.append(&mut call.sent);
        }
        self.is_done |= returned == Returned::Done;
        self.upstream = call.upstream.take().or(self.upstream.take());
        self.response = call.response.take();
        if let Some(request) = call.request.take() {
            self.request = request;
        }
        (returned, call.replaced_body.take())
    }

    /// The reply that on_event is to be shown.
    fn reply_archive(&mut self) -> Option<AlignedVec<16>> {
        let Some(Told::Reply(_, Ok(reply))) = &mut self.event else { return None };
        reply.request_id = self.request.request_id;
        Some(response_view(reply, &self.host.state().interned))
    }

    fn raw_event(&self, archive: Option<&[u8]>) -> raw::RawEvent {
        let (kind, token, status) = match &self.event {
            Some(Told::Timer(token)) => (EVENT_TIMER, *token, raw::OK),
            Some(Told::Wake(token)) => (EVENT_WAKE, *token, raw::OK),
            Some(Told::Timeout) | None => (EVENT_TIMEOUT, 0, raw::OK),
            Some(Told::Reply(token, reply)) => (EVENT_REPLY, *token, reply.as_ref().err().map_or(raw::OK, |failure| failure.status())),
        };
        let response = archive.map(|bytes| rkyv::access::<ResponseView, rancor::Error>(bytes).expect("an owned response archives into a view"));
        let response = response.map_or(std::ptr::null(), std::ptr::from_ref);
        raw::RawEvent { size: size_of::<raw::RawEvent>() as u32, kind, token, status, reserved: 0, response }
    }

    /// A verdict that is not possible here counts as a failure.
    fn judge(&self, bit: u32, verdict: u32, answer: Option<Answer>) -> Returned {
        let wants = self.host.state().wants;
        match (verdict, answer) {
            (raw::CONTINUE, _) => Returned::Continue,
            (raw::DONE, _) => Returned::Done,
            (raw::DROP, _) => Returned::Drop,
            (raw::RESPOND, Some(answer)) => Returned::Respond(answer),
            (raw::SUSPEND, _) if wants & raw::WANT_SUSPEND != 0 && wait_table::may_wait(bit) && !matches!(self.event, Some(Told::Timeout)) => Returned::Suspend,
            (raw::NEED_BODY, _) if bit == raw::HOOK_REQUEST && wants & raw::WANT_REQUEST_BODY != 0 => Returned::NeedBody,
            _ => Returned::Aborted,
        }
    }

    /// A piece of a body goes on to its receiver.
    fn forward(&mut self, bit: u32, piece: Option<(&[u8], bool)>) {
        let Some((bytes, _)) = piece else { return };
        match bit {
            raw::HOOK_RESPONSE_CHUNK => self.response_body.extend_from_slice(bytes),
            _ => self.request_body.extend_from_slice(bytes),
        }
    }
}

/// The view of a request, with ids and `known` filled.
pub(super) fn request_view(request: &mut Request, interned: &[Vec<u8>]) -> AlignedVec<16> {
    (request.known_mask, request.known) = rules::index(&mut request.headers, interned);
    rkyv::to_bytes::<rancor::Error>(request).expect("a request fits an archive")
}

/// The view of a response, with ids and `known` filled.
pub(super) fn response_view(response: &mut Response, interned: &[Vec<u8>]) -> AlignedVec<16> {
    (response.known_mask, response.known) = rules::index(&mut response.headers, interned);
    rkyv::to_bytes::<rancor::Error>(response).expect("a response fits an archive")
}

/// `Cx::kept` relies on ids that are unique in the process.
fn next_request_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn gateway_answer(status: u16) -> Answer {
    Answer { status, headers: Vec::new(), body: Vec::new(), origin: ORIGIN_GATEWAY }
}

fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let found = headers.0.iter().find(|h| h.name.name.eq_ignore_ascii_case(name.as_bytes()))?;
    std::str::from_utf8(&found.value.0).ok()
}
