//! One request to the admin address of a running gateway, and its answer.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::config::Problem;

/// Where a gateway is asked when nothing else is said.
pub(super) const ADDRESS: &str = "127.0.0.1:9901";
/// The variable with the address.
pub(super) const ADDRESS_VARIABLE: &str = "RINGWAY_ADMIN";
/// The variable with the token: on a command line others could read it.
pub(super) const TOKEN_VARIABLE: &str = "RINGWAY_ADMIN_TOKEN";

/// For connecting, and for each read; a change waits for `load` of plugins.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(150);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: u64 = 16 << 10;
/// Header lines of an answer.
const FIELDS_MAX: usize = 32;

/// Sends a request; the JSON of a good answer, or what is wrong.
pub(super) fn ask(address: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Problem> {
    let answer = fetch(address, method, path, body)?;
    serde_json::from_slice(&answer).map_err(|_| not_a_gateway(address, 200))
}

fn not_a_gateway(address: &str, status: u16) -> Problem {
    Problem::new(format!("{address} answers with status {status} and no JSON")).cause("it is not the admin address of a gateway")
}

/// Sends a request; the body of a good answer, or what is wrong.
pub(super) fn fetch(address: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Vec<u8>, Problem> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let token = std::env::var(TOKEN_VARIABLE).map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let host = if address.starts_with("unix:") { "localhost" } else { address };
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{token}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let unreachable = |error: io::Error| {
        Problem::new(format!("no gateway answers at {address}"))
            .cause(error.to_string())
            .help(format!("set `server.admin` in its configuration, and give that address with `--admin` or {ADDRESS_VARIABLE}"))
    };
    let answer = exchange(address, request.as_bytes()).map_err(unreachable)?;
    let (status, body) = read(&answer).ok_or_else(|| unreachable(io::Error::other("what answers does not speak HTTP")))?;
    if status == 200 {
        return Ok(body.to_vec());
    }
    match (status, serde_json::from_slice::<Value>(body)) {
        (401, Ok(value)) => Err(refused(&value).help(format!("put the token into {TOKEN_VARIABLE}"))),
        (_, Ok(value)) => Err(refused(&value)),
        (_, Err(_)) => Err(not_a_gateway(address, status)),
    }
}

fn refused(answer: &Value) -> Problem {
    Problem::new(answer["error"].as_str().unwrap_or("the gateway gives no reason"))
}

fn exchange(address: &str, request: &[u8]) -> io::Result<Vec<u8>> {
    match address.strip_prefix("unix:") {
        Some(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(READ_TIMEOUT))?;
            converse(stream, request)
        }
        None => {
            let mut last = io::Error::other("the name has no address");
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(READ_TIMEOUT))?;
                        return converse(stream, request);
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

/// Sends a GET and gives each line of an answer without an end to `each`, until the gateway or the caller ends.
pub(super) fn follow(address: &str, path: &str, mut each: impl FnMut(&str) -> io::Result<()>) -> Result<(), Problem> {
    let token = std::env::var(TOKEN_VARIABLE).map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let host = if address.starts_with("unix:") { "localhost" } else { address };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{token}connection: close\r\n\r\n");
    let broken = |error: io::Error| Problem::new(format!("no gateway answers at {address}")).cause(error.to_string());
    let mut answer: Box<dyn BufRead> = match address.strip_prefix("unix:") {
        Some(path) => Box::new(BufReader::new(send(UnixStream::connect(path).map_err(broken)?, &request).map_err(broken)?)),
        None => Box::new(BufReader::new(send(TcpStream::connect(address).map_err(broken)?, &request).map_err(broken)?)),
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let before = head.len();
        (&mut answer).take(HEAD_BYTES_MAX).read_until(b'\n', &mut head).map_err(broken)?;
        if head.len() == before || head.len() as u64 > HEAD_BYTES_MAX {
            return Err(broken(io::Error::other("what answers does not speak HTTP")));
        }
    }
    if !head.starts_with(b"HTTP/1.1 200 ") {
        answer.take(ANSWER_BYTES_MAX).read_to_end(&mut head).map_err(broken)?;
        let refusal = read(&head).and_then(|(_, body)| serde_json::from_slice::<Value>(body).ok());
        return Err(refused(&refusal.unwrap_or_default()));
    }
    let mut line = String::new();
    loop {
        line.clear();
        match answer.read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) if line.trim_end().is_empty() => {}
            // Nobody reads what is printed any more.
            Ok(_) if each(line.trim_end()).is_err() => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

fn send<S: Write>(mut stream: S, request: &str) -> io::Result<S> {
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn converse(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The status and the body, when both are whole.
fn read(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head_bytes)) = head.parse(answer) else { return None };
    let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?.value;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    let body = answer.get(head_bytes..head_bytes.checked_add(length)?)?;
    Some((head.code?, body))
}

/// Rows of text in columns as wide as they need to be.
pub(super) struct Table(pub Vec<Vec<String>>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| self.0.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
