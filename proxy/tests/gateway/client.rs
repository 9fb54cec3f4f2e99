//! A client that sends the bytes it is given, and reads responses by the book, without being lenient.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::DEADLINE;

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection.
pub struct Client {
    socket: Socket,
    /// Received and not yet used.
    buffer: Vec<u8>,
    address: String,
}

/// A response, framing removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub version: String,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The statuses of the 1xx responses before it.
    pub interim: Vec<u16>,
}

impl Response {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether it says that the connection ends.
    pub fn announces_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The status that a GET on a connection of its own gets; nothing when the connection ends without one.
pub fn status_of(address: &str, path: &str) -> Option<u16> {
    let mut client = Client::try_connect(address).ok()?;
    client.try_send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).ok()?;
    client.try_response(false).ok().map(|response| response.status)
}

/// Connects, and expects the connection to end without a byte. The end can come before `connect` has returned, which then says it.
pub fn expect_refused(address: &str) {
    match Client::try_connect(address) {
        Ok(mut client) => {
            client.expect_end();
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{address}: {error}"),
    }
}

/// One GET on a connection of its own.
pub fn get(address: &str, path: &str) -> Response {
    Client::connect(address).get(path)
}

impl Client {
    /// Connects to `HOST:PORT` or `unix:/PATH`.
    pub fn connect(address: &str) -> Client {
        Client::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    pub fn try_connect(address: &str) -> std::io::Result<Client> {
        let socket = match address.strip_prefix("unix:") {
            Some(path) => Socket::Unix(UnixStream::connect(path)?),
            None => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
        };
        let client = Client { socket, buffer: Vec::new(), address: address.to_owned() };
        client.patience(DEADLINE);
        Ok(client)
    }

    /// How long a read or a write may take.
    pub fn patience(&self, time: Duration) {
        match &self.socket {
            Socket::Tcp(stream) => stream.set_read_timeout(Some(time)).and(stream.set_write_timeout(Some(time))).unwrap(),
            Socket::Unix(stream) => stream.set_read_timeout(Some(time)).and(stream.set_write_timeout(Some(time))).unwrap(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes.as_ref()),
            Socket::Unix(stream) => stream.write_all(bytes.as_ref()),
        }
    }

    /// Says that nothing more comes.
    pub fn finish(&self) {
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Ends the connection with a reset. A Unix socket is closed.
    pub fn reset(self) {
        if let Socket::Tcp(stream) = &self.socket {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// A GET on this connection.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        self.response()
    }

    /// One GET of many: as [`Client::get`], then [`Client::renew_after`].
    pub fn get_on_and_on(&mut self, path: &str) -> Response {
        let response = self.get(path);
        self.renew_after(&response);
        response
    }

    /// Connects anew if this response announces the end of the connection: a connection has a bound of requests.
    pub fn renew_after(&mut self, response: &Response) {
        if response.announces_close() {
            *self = Client::connect(&self.address);
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 65536];
        loop {
            let read = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(&mut piece),
                Socket::Unix(stream) => stream.read(&mut piece),
            };
            match read {
                // A socket with a time limit is not read again by the system after a signal.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => {
                    self.buffer.extend_from_slice(&piece[..*read.as_ref().unwrap_or(&0)]);
                    return read;
                }
            }
        }
    }

    fn need(&mut self, what: &str) -> Result<(), String> {
        match self.fill() {
            Ok(0) => Err(format!("the end of the stream in the middle of {what}; received {:?}", String::from_utf8_lossy(&self.buffer))),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error} in the middle of {what}; received {:?}", String::from_utf8_lossy(&self.buffer))),
        }
    }

    /// The next response to a request that was not HEAD.
    pub fn response(&mut self) -> Response {
        self.try_response(false).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// The response to a HEAD.
    pub fn head_response(&mut self) -> Response {
        self.try_response(true).unwrap_or_else(|problem| panic!("{problem}"))
    }

    pub fn try_response(&mut self, to_head: bool) -> Result<Response, String> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_head()?;
            if response.status / 100 == 1 && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            if !to_head && !matches!(response.status, 101 | 204 | 304) {
                self.read_body(&mut response)?;
            }
            return Ok(response);
        }
    }

    fn read_head(&mut self) -> Result<Response, String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            self.need("a response head")?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default();
        let status = start.get(9..12).and_then(|code| code.parse().ok()).ok_or_else(|| format!("no status line: {start:?}"))?;
        let headers = fields(lines)?;
        Ok(Response { status, version: start[..8].to_owned(), headers, body: Vec::new(), trailers: Vec::new(), interim: Vec::new() })
    }

    fn read_body(&mut self, response: &mut Response) -> Result<(), String> {
        let chunked = response.header("transfer-encoding").is_some();
        if chunked && response.header("content-length").is_some() {
            return Err(format!("both framings: {response:?}"));
        }
        if chunked {
            return self.read_chunks(response);
        }
        match response.header("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) => {
                while self.buffer.len() < length {
                    self.need("a body")?;
                }
                response.body = self.buffer.drain(..length).collect();
                Ok(())
            }
            Some(Err(error)) => Err(format!("content-length: {error}")),
            None => {
                loop {
                    match self.fill() {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) => return Err(format!("{error} in a body until close")),
                    }
                }
                response.body = std::mem::take(&mut self.buffer);
                Ok(())
            }
        }
    }

    fn read_chunks(&mut self, response: &mut Response) -> Result<(), String> {
        loop {
            let line = self.read_line("a chunk size")?;
            let size = usize::from_str_radix(&line, 16).map_err(|error| format!("chunk size {line:?}: {error}"))?;
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                self.need("a chunk")?;
            }
            response.body.extend(self.buffer.drain(..size));
            let end: Vec<u8> = self.buffer.drain(..2).collect();
            if end != b"\r\n" {
                return Err(format!("a chunk ends with {end:?}"));
            }
        }
        let mut lines = Vec::new();
        loop {
            let line = self.read_line("trailers")?;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        response.trailers = fields(lines.iter().map(String::as_str))?;
        Ok(())
    }

    fn read_line(&mut self, what: &str) -> Result<String, String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            self.need(what)?;
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        Ok(line)
    }

    /// Exactly so many bytes.
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.need("bytes").unwrap_or_else(|problem| panic!("{problem}"));
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything until the other side ends. A reset is an end, reported as such.
    pub fn read_to_end(&mut self) -> (Vec<u8>, Ended) {
        let ended = loop {
            match self.fill() {
                Ok(0) => break Ended::Closed,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break Ended::Reset,
                Err(error) => panic!("{error} while waiting for the end; received {:?}", String::from_utf8_lossy(&self.buffer)),
            }
        };
        (std::mem::take(&mut self.buffer), ended)
    }

    /// Asserts that the other side ends without another byte.
    pub fn expect_end(&mut self) -> Ended {
        let (bytes, ended) = self.read_to_end();
        assert!(bytes.is_empty(), "bytes before the end: {:?}", String::from_utf8_lossy(&bytes));
        ended
    }

    /// Whether anything, the end included, arrives within `time`.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        self.patience(time);
        let heard = !matches!(self.fill(), Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        self.patience(DEADLINE);
        heard
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Closed,
    Reset,
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<(String, String)>, String> {
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no field line: {line:?}"))?;
            Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        })
        .collect()
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
