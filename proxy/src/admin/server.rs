//! The admin listener: HTTP/1.1 with one request per connection, on threads of its own, never on a worker.
//!
//! Owns: sockets, bounds, deadlines, the token. The head is parsed by `httparse`: the gateway's own parser writes into the
//! slots of a worker, and the small servers on offer bound neither time nor size. Every bound is a constant below.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::api;
use super::board::Board;
use super::maps;
use crate::config::{ListenAddress, Token};
use crate::plugin::maps::Map;
use crate::run::Event;
use crate::supervisor::sockets::{bind_unix, with_patience};
use crate::worker::ListenSocket;

/// Connections served at once. One more takes the place of the one that has owed its request for longest, and is closed without an answer when none does.
const CONNECTIONS_MAX: usize = 32;
/// Connections beside them that have given way and are about to end.
const LEAVING_MAX: usize = 8;
/// Between two looks whether they have.
const LEAVING_LOOK: Duration = Duration::from_millis(1);
/// For what a client sends on while it is told that its request is refused, so that it reads the answer.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request.
const FIELDS_MAX: usize = 64;
/// Bytes of a request body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// For receiving a request as a whole.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For each write of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that follows a ring stays silent.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Bytes of records that leave in one write.
const FOLLOW_BYTES: usize = 64 * 1024;
/// After a failed `accept`, mostly for want of descriptors; and for connections that have given way.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin socket.
pub struct AdminListener {
    socket: ListenSocket,
    address: ListenAddress,
}

impl AsFd for AdminListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A request as the API sees it.
#[derive(Debug, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// What stands behind the `?`.
    pub query: String,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The media type of the body.
    pub media_type: &'static str,
    /// For 405: the methods that would do.
    pub allow: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

/// What the connection threads share.
struct Desk {
    board: Arc<Board>,
    token: Option<Token>,
    /// The socket can be reached by browsers: names that resolve to it prove nothing.
    is_tcp: bool,
    events: mpsc::Sender<Event>,
    /// Connections that still owe their request, the oldest first.
    owing: Mutex<VecDeque<Arc<Stream>>>,
}

impl AdminListener {
    /// Binds. Port 0 takes a free one; a Unix socket is for this user only.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: &ListenAddress) -> io::Result<AdminListener> {
        let (socket, address) = match address {
            ListenAddress::Tcp(address) => {
                let socket = with_patience(|| TcpListener::bind(address))?;
                let taken = socket.local_addr()?;
                (ListenSocket::Tcp(socket), ListenAddress::Tcp(taken))
            }
            ListenAddress::Unix(path) => {
                let socket = bind_unix(path, Some(0o600))?;
                (ListenSocket::Unix(socket), ListenAddress::Unix(path.clone()))
            }
        };
        Ok(AdminListener { socket, address })
    }

    /// One that another process has bound.
    pub fn of_socket(socket: OwnedFd, address: ListenAddress) -> AdminListener {
        let socket = match &address {
            ListenAddress::Tcp(_) => ListenSocket::Tcp(socket.into()),
            ListenAddress::Unix(_) => ListenSocket::Unix(socket.into()),
        };
        AdminListener { socket, address }
    }

    /// Where it listens.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Serves on a thread, until the process ends or its board says so. Changes go to `events`.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(self, board: &Arc<Board>, token: Option<Token>, events: mpsc::Sender<Event>) -> io::Result<()> {
        let AdminListener { socket, .. } = self;
        // Other processes may accept from it too, and be faster.
        match &socket {
            ListenSocket::Tcp(socket) => socket.set_nonblocking(true)?,
            ListenSocket::Unix(socket) => socket.set_nonblocking(true)?,
        }
        let is_tcp = matches!(socket, ListenSocket::Tcp(_));
        let (ends, wake) = io::pipe()?;
        board.set_admin_wake(wake);
        let desk = Arc::new(Desk { board: Arc::clone(board), token, is_tcp, events, owing: Mutex::default() });
        let accept = move || {
            loop {
                // An error is one of accept, too.
                let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN), PollFd::new(&ends, PollFlags::IN)], None);
                // Whoever waits is served by the process that follows, when there is one.
                if desk.board.admin_ends() {
                    break;
                }
                let accepted = match &socket {
                    ListenSocket::Tcp(socket) => socket.accept().map(|(stream, _)| Stream::Tcp(stream)),
                    ListenSocket::Unix(socket) => socket.accept().map(|(stream, _)| Stream::Unix(stream)),
                };
                match accepted {
                    Ok(stream) => serve_on_thread(&desk, stream),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::warn!(%error, "the admin listener pauses");
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
            desk.board.admin_ended.store(true, Ordering::Relaxed);
        };
        thread::Builder::new().name("admin".into()).spawn(accept)?;
        Ok(())
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Stream::Unix(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(into),
            Stream::Unix(stream) => (&*stream).read(into),
        }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => (&*stream).write_all(bytes),
            Stream::Unix(stream) => (&*stream).write_all(bytes),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // An error says that the client has gone.
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        };
    }
}

impl Desk {
    fn owing(&self) -> MutexGuard<'_, VecDeque<Arc<Stream>>> {
        self.owing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It owes nothing any more.
    fn settle(&self, stream: &Arc<Stream>) {
        self.owing().retain(|other| !Arc::ptr_eq(other, stream));
    }

    /// Whether there is a place for a connection beside `open` others. Who connects and stays silent keeps it from nobody.
    fn has_place(&self, mut open: usize) -> bool {
        if open < CONNECTIONS_MAX {
            return true;
        }
        // Those that gave way end as soon as they run.
        let until = Instant::now() + ACCEPT_PAUSE;
        while open >= CONNECTIONS_MAX + LEAVING_MAX && Instant::now() < until {
            thread::sleep(LEAVING_LOOK);
            open = self.board.admin_open.load(Ordering::Relaxed).saturating_sub(1);
        }
        let oldest = if open < CONNECTIONS_MAX + LEAVING_MAX { self.owing().pop_front() } else { None };
        oldest.iter().for_each(|oldest| oldest.shutdown(Shutdown::Both));
        open < CONNECTIONS_MAX || oldest.is_some()
    }
}

fn serve_on_thread(desk: &Arc<Desk>, stream: Stream) {
    if !desk.has_place(desk.board.admin_open.fetch_add(1, Ordering::Relaxed)) {
        desk.board.admin_open.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let stream = Arc::new(stream);
    desk.owing().push_back(Arc::clone(&stream));
    let (theirs, of_thread) = (Arc::clone(desk), Arc::clone(&stream));
    let spawned = thread::Builder::new().name("admin-conn".into()).spawn(move || {
        // Nobody is left to tell when the connection fails.
        let _ = serve(&theirs, &of_thread);
        theirs.settle(&of_thread);
        theirs.board.admin_open.fetch_sub(1, Ordering::Relaxed);
    });
    if spawned.is_err() {
        desk.settle(&stream);
        desk.board.admin_open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(desk: &Desk, stream: &Arc<Stream>) -> io::Result<()> {
    stream.set_write_timeout(WRITE_TIMEOUT)?;
    let received = receive(desk, stream);
    let is_refused = received.is_err();
    if !is_refused {
        desk.settle(stream);
    }
    let (answer, head_only) = match received {
        Ok(request) if let Some(followed) = maps::followed(&request, &desk.board) => match followed {
            Ok(map) => return follow(desk, stream, map),
            Err(answer) => (answer, false),
        },
        Ok(request) => (api::answer(&request, &desk.board, &desk.events), request.method == "HEAD"),
        Err(answer) => (answer, false),
    };
    let mut head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n",
        answer.status,
        reason(answer.status),
        answer.media_type,
        answer.body.len()
    );
    if let Some(allow) = answer.allow {
        head += &format!("allow: {allow}\r\n");
    }
    if answer.status == 401 {
        head += "www-authenticate: Bearer\r\n";
    }
    head += "\r\n";
    let mut out = head.into_bytes();
    if !head_only {
        out.extend_from_slice(&answer.body);
    }
    stream.write_all(&out)?;
    if is_refused {
        linger(stream);
    }
    Ok(())
}

/// Reads on for a moment: to close over bytes that nobody has read is a reset, which may overtake the answer.
fn linger(stream: &Stream) {
    stream.shutdown(Shutdown::Write);
    let (deadline, mut bytes, mut left) = (Instant::now() + LINGER, [0; 4096], BODY_BYTES_MAX);
    while left > 0 && stream.set_read_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {
        match stream.read(&mut bytes) {
            Ok(count) if count > 0 => left = left.saturating_sub(count),
            _ => return,
        }
    }
}

/// Sends the records of a ring as they come, a line of JSON each, until the client or the map is gone.
fn follow(desk: &Desk, stream: &Stream, map: Arc<Map>) -> io::Result<()> {
    let following = desk.board.feeds.follow(&map)?;
    // It ends when its plugin does.
    drop(map);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ncache-control: no-store\r\nconnection: close\r\n\r\n")?;
    let mut told = 0;
    loop {
        let mut lines = match following.lines.recv_timeout(HEARTBEAT) {
            Ok(line) => line.to_string(),
            // An empty line finds out whether the client is still there.
            Err(RecvTimeoutError::Timeout) => "\n".to_owned(),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        while lines.len() < FOLLOW_BYTES {
            let Ok(line) = following.lines.try_recv() else { break };
            lines += &line;
        }
        let missed = following.missed.load(Ordering::Relaxed);
        if missed > told {
            lines += &format!("{}\n", serde_json::json!({ "missed": missed - told }));
            told = missed;
        }
        stream.write_all(lines.as_bytes())?;
    }
}

/// Reads one request; an error is its answer.
fn receive(desk: &Desk, stream: &Stream) -> Result<Request, Answer> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut bytes = Vec::with_capacity(4096);
    let (head_bytes, body_bytes, mut request) = loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut fields);
        match parsed.parse(&bytes) {
            Ok(httparse::Status::Complete(head_bytes)) => {
                let body_bytes = admit(desk, &parsed)?;
                // RFC 9110 §10.1.1: the client waits for this before it sends the body.
                if bytes.len() < head_bytes + body_bytes && field(&parsed, "expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")) {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|error| Answer::error(408, &error.to_string()))?;
                }
                let target = parsed.path.unwrap_or_default();
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                let request = Request { method: parsed.method.unwrap_or_default().into(), path: path.into(), query: query.into(), body: Vec::new() };
                break (head_bytes, body_bytes, request);
            }
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => {}
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Answer::error(431, "the request head is too large")),
            Err(error) => return Err(Answer::error(400, &error.to_string())),
        }
        more(stream, &mut bytes, HEAD_BYTES_MAX, deadline)?;
    };
    while bytes.len() < head_bytes + body_bytes {
        more(stream, &mut bytes, head_bytes + body_bytes, deadline)?;
    }
    request.body = bytes[head_bytes..head_bytes + body_bytes].to_vec();
    Ok(request)
}

/// Reads once, up to `bound` bytes in all.
fn more(stream: &Stream, bytes: &mut Vec<u8>, bound: usize, deadline: Instant) -> Result<(), Answer> {
    let left = deadline.saturating_duration_since(Instant::now());
    let late = || Answer::error(408, "the request did not arrive in time");
    if left.is_zero() || stream.set_read_timeout(left).is_err() {
        return Err(late());
    }
    let filled = bytes.len();
    bytes.resize(bound.min(filled + 16 * 1024), 0);
    match stream.read(&mut bytes[filled..]) {
        Ok(count) if count > 0 => {
            bytes.truncate(filled + count);
            Ok(())
        }
        _ => Err(late()),
    }
}

/// Whether the request may be served; the length of its body.
fn admit(desk: &Desk, request: &httparse::Request<'_, '_>) -> Result<usize, Answer> {
    let field = |name: &str| field(request, name);
    let path = request.path.unwrap_or_default();
    match &desk.token {
        // Probes come from other machines and have no secrets.
        _ if path == "/healthz" || path == "/readyz" => {}
        Some(token) => {
            let given = field("authorization").and_then(bearer).unwrap_or_default();
            if !token.is(given) {
                return Err(Answer::error(401, "a token is needed: `Authorization: Bearer TOKEN`"));
            }
        }
        // A page in a browser on this machine can send requests here; it cannot hide where they come from.
        None if desk.is_tcp => {
            let host = field("host").and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default();
            if field("origin").is_some() || !is_literal(host) {
                return Err(Answer::error(403, "requests of browsers are refused, and so are host names other than localhost"));
            }
        }
        None => {}
    }
    if field("transfer-encoding").is_some() {
        return Err(Answer::error(411, "bodies need a Content-Length"));
    }
    let Some(length) = field("content-length") else { return Ok(0) };
    // RFC 9112 §6.3 item 5: lengths that differ are an error.
    if request.headers.iter().any(|other| other.name.eq_ignore_ascii_case("content-length") && other.value != length) {
        return Err(Answer::error(400, "there are two Content-Lengths"));
    }
    // The number's own parser would take a sign.
    let digits = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|text| text.parse::<usize>().ok()) {
        Some(length) if length <= BODY_BYTES_MAX => Ok(length),
        Some(_) => Err(Answer::error(413, "the body is too large")),
        None => Err(Answer::error(400, "Content-Length is not a number")),
    }
}

fn field<'r>(request: &httparse::Request<'_, 'r>, name: &str) -> Option<&'r [u8]> {
    request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// RFC 9110 §11.1: a scheme has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Whether `host` is an address or localhost, with or without a port.
fn is_literal(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || host.parse::<SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

impl Answer {
    /// JSON.
    pub fn json(status: u16, body: &serde_json::Value) -> Answer {
        Answer { status, media_type: "application/json", allow: None, body: format!("{body}\n").into_bytes() }
    }

    /// `{"error": …}`.
    pub fn error(status: u16, text: &str) -> Answer {
        Answer::json(status, &serde_json::json!({ "error": text }))
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_has_no_case() {
        assert_eq!([&b"Bearer x"[..], b"bearer x", b"BEARER "].map(bearer), [Some(&b"x"[..]), Some(b"x"), Some(b"")]);
        assert_eq!([&b"Basic x"[..], b"Bearer", b""].map(bearer), [None; 3]);
    }

    #[test]
    fn only_addresses_and_localhost_are_believed() {
        for host in ["127.0.0.1", "127.0.0.1:9901", "localhost", "localhost:1", "[::1]", "[::1]:9901"] {
            assert!(is_literal(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9901", "localhost.evil.example"] {
            assert!(!is_literal(host), "{host}");
        }
    }
}
