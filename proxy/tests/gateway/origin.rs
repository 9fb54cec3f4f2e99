//! A small HTTP/1.1 server on threads that records every byte it gets and behaves as it is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::client::find;

/// Makes an answer of a request.
type AnswerWith = dyn Fn(&Received) -> Vec<u8> + Send + Sync;
/// Takes a connection over.
type TakeOver = dyn Fn(TcpStream, &Origin) + Send + Sync;

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub method: String,
    pub target: String,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// Transfer coding removed.
    pub body: Vec<u8>,
    /// The head as it came.
    pub head: Vec<u8>,
    /// Which connection of the origin, counted from 0.
    pub connection: usize,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What the origin does with a connection.
#[derive(Clone)]
pub enum Behaviour {
    /// Reads requests, answers each with the bytes that the function makes; an empty answer ends the connection.
    Answer(Arc<AnswerWith>),
    /// Whatever the function does with the connection.
    Raw(Arc<TakeOver>),
}

/// A response with a length.
pub fn reply(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status} Whatever\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !matches!(status, 204 | 304) {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// The server. Clones are the same server; it ends with [`Origin::close`] or with the test process.
#[derive(Clone)]
pub struct Origin {
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    closed: AtomicBool,
    connections: AtomicUsize,
    open: AtomicUsize,
    bytes: AtomicUsize,
    begun: AtomicUsize,
    requests: Mutex<Vec<Received>>,
    count: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    /// Requests are only counted, not kept.
    forget: AtomicBool,
}

impl Origin {
    /// Echoes what a standard set of paths asks for; see `standard`.
    pub fn start() -> Origin {
        Origin::answering(standard)
    }

    /// Answers each request with what `answer` makes.
    pub fn answering(answer: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Origin {
        Origin::on("127.0.0.1:0", Behaviour::Answer(Arc::new(answer)))
    }

    /// Gives each connection to `serve`.
    pub fn raw(serve: impl Fn(TcpStream, &Origin) + Send + Sync + 'static) -> Origin {
        Origin::on("127.0.0.1:0", Behaviour::Raw(Arc::new(serve)))
    }

    /// Listens on this address; used again to restart a server where it was.
    pub fn on(address: &str, behaviour: Behaviour) -> Origin {
        let listener = TcpListener::bind(address).unwrap();
        let shared = Shared {
            address: listener.local_addr().unwrap().to_string(),
            closed: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            requests: Mutex::default(),
            count: AtomicUsize::new(0),
            streams: Mutex::default(),
            forget: AtomicBool::new(false),
        };
        let origin = Origin { shared: Arc::new(shared) };
        let accepting = origin.clone();
        thread::spawn(move || accepting.accept(&listener, &behaviour));
        origin
    }

    fn accept(&self, listener: &TcpListener, behaviour: &Behaviour) {
        for stream in listener.incoming() {
            if self.shared.closed.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let _ = stream.set_nodelay(true);
            let number = self.shared.connections.fetch_add(1, Ordering::SeqCst);
            self.shared.open.fetch_add(1, Ordering::SeqCst);
            if let Ok(clone) = stream.try_clone() {
                self.shared.streams.lock().unwrap().push(clone);
            }
            let (origin, behaviour) = (self.clone(), behaviour.clone());
            thread::spawn(move || {
                let peer = stream.peer_addr().ok();
                match behaviour {
                    Behaviour::Answer(answer) => origin.answer(stream, number, &*answer),
                    Behaviour::Raw(serve) => serve(stream, &origin),
                }
                origin.shared.streams.lock().unwrap().retain(|s| s.peer_addr().ok() != peer);
                origin.shared.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    fn answer(&self, mut stream: TcpStream, connection: usize, answer: &(dyn Fn(&Received) -> Vec<u8> + Send + Sync)) {
        let mut buffer = Vec::new();
        while let Some(request) = self.read_request(&mut stream, &mut buffer, connection) {
            self.shared.begun.fetch_add(1, Ordering::SeqCst);
            let reply = answer(&request);
            self.shared.count.fetch_add(1, Ordering::SeqCst);
            if !self.shared.forget.load(Ordering::Relaxed) {
                self.shared.requests.lock().unwrap().push(request);
            }
            if reply.is_empty() || stream.write_all(&reply).is_err() || !framed(&reply) {
                return;
            }
        }
    }

    /// The next request of a connection; for raw behaviours too. `None` at the end, or when it is cut off.
    pub fn read_request(&self, stream: &mut TcpStream, buffer: &mut Vec<u8>, connection: usize) -> Option<Received> {
        let mut more = |buffer: &mut Vec<u8>| {
            let mut piece = [0; 65536];
            let count = read_some(stream, &mut piece)?;
            self.shared.bytes.fetch_add(count, Ordering::SeqCst);
            buffer.extend_from_slice(&piece[..count]);
            Some(())
        };
        let end = loop {
            if let Some(at) = find(buffer, b"\r\n\r\n") {
                break at + 4;
            }
            more(buffer)?;
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let mut start = lines.next()?.split(' ');
        let (method, target) = (start.next()?.to_owned(), start.next()?.to_owned());
        let headers: Vec<(String, String)> =
            lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        if header("expect").is_some() {
            stream_continue(stream)?;
        }
        let mut more = |buffer: &mut Vec<u8>| {
            let mut piece = [0; 65536];
            let count = read_some(stream, &mut piece)?;
            self.shared.bytes.fetch_add(count, Ordering::SeqCst);
            buffer.extend_from_slice(&piece[..count]);
            Some(())
        };
        let mut body = Vec::new();
        if header("transfer-encoding").is_some() {
            loop {
                let line = loop {
                    if let Some(at) = find(buffer, b"\r\n") {
                        break at;
                    }
                    more(buffer)?;
                };
                let size = usize::from_str_radix(std::str::from_utf8(&buffer[..line]).ok()?, 16).ok()?;
                while buffer.len() < line + 2 + size + 2 {
                    more(buffer)?;
                }
                body.extend_from_slice(&buffer[line + 2..line + 2 + size]);
                buffer.drain(..line + 2 + size + 2);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = header("content-length") {
            let length: usize = length.parse().ok()?;
            while buffer.len() < length {
                more(buffer)?;
            }
            body = buffer.drain(..length).collect();
        }
        Some(Received { method, target, headers, body, head, connection })
    }

    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Complete requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Number of complete requests so far.
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
    }

    /// Complete requests so far, those included whose answer is not made yet.
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::SeqCst)
    }

    /// From here on requests are only counted.
    pub fn forget(&self) -> &Origin {
        self.shared.forget.store(true, Ordering::Relaxed);
        self
    }

    /// The last complete request.
    pub fn last(&self) -> Received {
        self.requests().pop().expect("the origin has had a request")
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Bytes received so far.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Stops listening and cuts every connection off, as a killed process does.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // The accepting thread notices at its next connection.
        let _ = TcpStream::connect(&self.shared.address);
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        super::eventually("the origin's port is closed", || TcpStream::connect(&self.shared.address).is_err());
    }
}

fn stream_continue(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()
}

/// Whether the end of this response can be seen without closing.
fn framed(reply: &[u8]) -> bool {
    let head = find(reply, b"\r\n\r\n").map_or(reply, |at| &reply[..at]);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let closes = head.contains("\r\nconnection: close");
    let bodiless = head.starts_with("http/1.1 204") || head.starts_with("http/1.1 304");
    !closes && (bodiless || head.contains("\r\ncontent-length:") || head.contains("\r\ntransfer-encoding:"))
}

/// `/bytes/N`: N bytes with a length · `/chunked/N`: N bytes in chunks of 1000 · `/close/N`: N bytes until close ·
/// `/status/N` · `/slow/MS` · anything else: the body comes back, with the method and the target in headers.
pub fn standard(request: &Received) -> Vec<u8> {
    let mut parts = request.path().trim_start_matches('/').splitn(2, '/');
    let (what, number) = (parts.next().unwrap_or_default(), parts.next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0));
    let head_only = request.method == "HEAD";
    match what {
        "bytes" => {
            let mut bytes = reply(200, &[("content-type", "text/plain")], pattern(number));
            if head_only {
                let end = find(&bytes, b"\r\n\r\n").unwrap_or(0) + 4;
                bytes.truncate(end);
            }
            bytes
        }
        "chunked" => {
            let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for piece in pattern(number).chunks(1000) {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            bytes
        }
        "close" => [b"HTTP/1.1 200 OK\r\n\r\n", &pattern(number)[..]].concat(),
        "status" => reply(number as u16, &[], ""),
        "slow" => {
            thread::sleep(Duration::from_millis(number as u64));
            reply(200, &[], "slow")
        }
        _ => {
            let headers = [("x-method", request.method.as_str()), ("x-target", request.target.as_str())];
            let mut bytes = reply(200, &headers, &request.body);
            if head_only {
                let end = find(&bytes, b"\r\n\r\n").unwrap_or(0) + 4;
                bytes.truncate(end);
            }
            bytes
        }
    }
}

/// Bytes that show where they were cut or doubled.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (b'a' + (at % 26) as u8) ^ (((at / 26 % 2) as u8) << 5)).collect()
}

/// `None` at the end, or when it is cut off.
fn read_some(stream: &mut TcpStream, piece: &mut [u8]) -> Option<usize> {
    loop {
        match stream.read(piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read.ok().filter(|count| *count > 0),
        }
    }
}
