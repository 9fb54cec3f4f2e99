//! The heads that are forwarded.
//!
//! [`write_request_head`] and [`write_response_head`] lay a head out in the caller's buffer. Lines that nobody edited leave byte for
//! byte as they were received, each run of consecutive ones by one copy; edited lines are written as `name: value`. Exactly one
//! framing field goes out at most, in one canonical form, whatever came in.
//!
//! Must not: decide anything. What is dropped and how the body is framed comes from the parser's facts and from the exchange.
//! Invariant: nothing is written that the caller did not check: views are well-formed, additions passed `is_token` and
//! `is_field_value` (asserted in debug builds).
#![forbid(unsafe_code)]

use ringway_abi::ids::{HeaderId, METHOD_OPTIONS};
use ringway_abi::view::{HeaderView, REQ_ABSOLUTE_TARGET, REQ_CHUNKED, RES_CHUNKED, RequestView, ResponseView};

use super::bytes::{decimal_digits, is_field_value, is_token};
use super::entry_set::EntrySet;

/// A field that the gateway adds.
#[derive(Debug, Clone, Copy)]
pub struct Addition<'a> {
    /// A token.
    pub name: &'a [u8],
    /// Without CR, LF, NUL and outer blanks.
    pub value: &'a [u8],
}

/// How the body that follows is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutFraming {
    /// As the view says: its length, or chunked, or nothing.
    AsReceived,
    /// Chunked.
    Chunked,
    /// So many bytes.
    Length(u64),
    /// No framing field: no body, or one that ends with the connection.
    None,
}

/// What a response says about the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: HTTP/1.1 goes on.
    Nothing,
    /// `connection: close`
    Close,
    /// `connection: keep-alive`, for HTTP/1.0.
    KeepAlive,
    /// `connection: upgrade`, and the response's Upgrade passes.
    Upgrade,
}

/// The buffer is too small for the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

/// Lays out a request head and returns its length. `received` is the head as it came, from its first byte to its empty line.
///
/// `dropped` names received lines: a line that an edit put in the place of one is written. Lines with the ids `withheld` are not, whoever set them.
/// To ask for an upgrade, pass
/// `connection: upgrade` and `upgrade: …` as additions.
///
/// # Errors
/// [`NoRoom`] when the head does not fit `out`, which then holds a part of it.
pub fn write_request_head(
    out: &mut [u8],
    view: &RequestView,
    received: &[u8],
    dropped: &EntrySet,
    withheld: &[HeaderId],
    framing: OutFraming,
    additions: &[Addition<'_>],
) -> Result<usize, NoRoom> {
    let mut out = Out { bytes: out, at: 0 };
    let absolute = view.flags() & REQ_ABSOLUTE_TARGET != 0;
    out.put(view.method())?;
    out.put(b" ")?;
    if absolute && position(received, view.target()).is_some() {
        put_origin_form(&mut out, view)?;
    } else {
        out.put(view.target())?;
    }
    // RFC 9110 §2.5, RFC 9112 §2.3: an intermediary sends its own version, never the received one.
    out.put(b" HTTP/1.1\r\n")?;

    let entries = view.entries();
    let mask = view.known_mask();
    let (mut skip, as_received) = framing_lines(entries, mask, dropped, framing, view.flags() & REQ_CHUNKED != 0, view.content_length());
    for id in withheld.iter().filter(|id| mask >> id.0 & 1 != 0) {
        insert_id(&mut skip, entries, *id);
    }
    let mut dropped = *dropped;
    // RFC 9112 §3.2.2: a proxy that receives absolute-form "MUST ignore the received Host header field (if any) and instead replace
    // it with the host information of the request-target". A Host that a plugin set stays, and one among the additions takes its place.
    if absolute {
        let set_here = |entry: &HeaderView| entry.id() == HeaderId::HOST && position(received, entry.value()).is_none();
        if !entries.iter().any(set_here) && !additions.iter().any(|addition| addition.name == b"host") {
            out.field(b"host", view.authority())?;
            insert_id(&mut dropped, entries, HeaderId::HOST);
        }
    }
    if view.edits() == 0 && !received.is_empty() {
        skip = skip.union(&dropped);
        out.received_lines(entries, received, &skip)?;
    } else {
        out.edited_lines(entries, received, &skip, &dropped)?;
    }
    out.framing(as_received)?;
    out.additions(additions)?;
    out.put(b"\r\n")?;
    Ok(out.at)
}

/// Lays out a response head and returns its length. `received` is the head as it came from the upstream, or empty when a plugin
/// or the gateway made the response.
///
/// # Errors
/// [`NoRoom`] when the head does not fit `out`, which then holds a part of it.
pub fn write_response_head(
    out: &mut [u8],
    view: &ResponseView,
    received: &[u8],
    dropped: &EntrySet,
    framing: OutFraming,
    connection: Connection,
    additions: &[Addition<'_>],
) -> Result<usize, NoRoom> {
    let mut out = Out { bytes: out, at: 0 };
    let status = view.status();
    debug_assert!((100..600).contains(&status));
    let digits = [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
    out.put(b"HTTP/1.1 ")?;
    out.put(&digits)?;
    out.put(b" ")?;
    out.put(if view.reason().is_empty() { reason(status) } else { view.reason() })?;
    out.put(b"\r\n")?;

    // RFC 9112 §6.1: "A server MUST NOT send a Transfer-Encoding header field in any response with a status code of 1xx or 204";
    // RFC 9110 §8.6 says the same of Content-Length.
    let framing = if status < 200 || status == 204 { OutFraming::None } else { framing };
    let entries = view.entries();
    let mask = view.known_mask();
    let (mut skip, framing) = framing_lines(entries, mask, dropped, framing, view.flags() & RES_CHUNKED != 0, view.content_length());
    let mut dropped = *dropped;
    if connection == Connection::Upgrade {
        dropped = without_id(&dropped, entries, HeaderId::UPGRADE);
    }
    if view.edits() == 0 && !received.is_empty() {
        skip = skip.union(&dropped);
        out.received_lines(entries, received, &skip)?;
    } else {
        out.edited_lines(entries, received, &skip, &dropped)?;
    }
    out.framing(framing)?;
    out.put(match connection {
        Connection::Nothing => b"",
        Connection::Close => b"connection: close\r\n",
        Connection::KeepAlive => b"connection: keep-alive\r\n",
        Connection::Upgrade => b"connection: upgrade\r\n",
    })?;
    out.additions(additions)?;
    out.put(b"\r\n")?;
    Ok(out.at)
}

/// A bounded buffer and how much of it is written.
struct Out<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Out<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = self.at + bytes.len();
        self.bytes.get_mut(self.at..end).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), NoRoom> {
        debug_assert!(is_token(name) && is_field_value(value), "bytes from inside are checked before they get here");
        self.put(name)?;
        self.put(b": ")?;
        self.put(value)?;
        self.put(b"\r\n")
    }

    fn additions(&mut self, additions: &[Addition<'_>]) -> Result<(), NoRoom> {
        additions.iter().try_for_each(|addition| self.field(addition.name, addition.value))
    }

    fn framing(&mut self, framing: OutFraming) -> Result<(), NoRoom> {
        match framing {
            OutFraming::AsReceived | OutFraming::None => Ok(()),
            OutFraming::Chunked => self.put(b"transfer-encoding: chunked\r\n"),
            OutFraming::Length(bytes) => {
                let (digits, count) = decimal_digits(bytes);
                self.put(b"content-length: ")?;
                self.put(&digits[20 - count..])?;
                self.put(b"\r\n")
            }
        }
    }

    /// Copies the lines outside `skip` as they were received: line `i` ends where line `i + 1` begins.
    fn received_lines(&mut self, entries: &[HeaderView], received: &[u8], skip: &EntrySet) -> Result<(), NoRoom> {
        debug_assert!(entries.len() <= 255 && received.ends_with(b"\r\n\r\n"));
        let count = entries.len();
        let line = |index: usize| match entries.get(index) {
            Some(entry) => position(received, entry.name()),
            None => received.len().checked_sub(2),
        };
        let mut from = skip.next_out(0);
        while from < count {
            let to = skip.next_in(from).min(count);
            match (line(from), line(to)) {
                (Some(start), Some(end)) if start <= end => self.put(&received[start..end])?,
                _ => self.edited_lines(&entries[from..to], received, &EntrySet::EMPTY, &EntrySet::EMPTY)?,
            }
            from = skip.next_out(to);
        }
        Ok(())
    }

    /// Writes the entries that are left after edits. `skip` goes for all of them, `dropped` for those that stand as received.
    fn edited_lines(&mut self, entries: &[HeaderView], received: &[u8], skip: &EntrySet, dropped: &EntrySet) -> Result<(), NoRoom> {
        // The run of received lines that has not been copied yet.
        let mut run = 0..0;
        for (index, entry) in entries.iter().enumerate() {
            if entry.is_removed() || skip.contains(index) {
                continue;
            }
            match received_line(entry, received) {
                Some(_) if dropped.contains(index) => {}
                Some(line) if line.start == run.end => run.end = line.end,
                Some(line) => {
                    self.put(&received[run])?;
                    run = line;
                }
                None => {
                    self.put(&received[run])?;
                    run = 0..0;
                    self.field(entry.name(), entry.value())?;
                }
            }
        }
        self.put(&received[run])
    }
}

/// Where `part` stands in `whole`, by address.
#[inline]
fn position(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    (!part.is_empty() && at.checked_add(part.len()).is_some_and(|end| end <= whole.len())).then_some(at)
}

/// The line of `received` that says exactly what `entry` says, with its CRLF; `None` when an edit changed name or value.
fn received_line(entry: &HeaderView, received: &[u8]) -> Option<core::ops::Range<usize>> {
    let start = position(received, entry.name())?;
    let name_end = start + entry.name().len();
    let mut at = name_end;
    if received.get(at) != Some(&b':') {
        return None;
    }
    at += 1;
    let skip_blanks = |from: usize| from + received[from..].iter().take_while(|b| super::bytes::is_blank(**b)).count();
    at = skip_blanks(at);
    if !entry.value().is_empty() {
        if position(received, entry.value()) != Some(at) {
            return None;
        }
        at = skip_blanks(at + entry.value().len());
    }
    received[at..].starts_with(b"\r\n").then_some(start..at + 2)
}

/// Which framing lines of the view do not go out, and which framing field does.
#[inline]
fn framing_lines(
    entries: &[HeaderView],
    known_mask: u64,
    dropped: &EntrySet,
    framing: OutFraming,
    chunked: bool,
    content_length: u64,
) -> (EntrySet, OutFraming) {
    let mut skip = EntrySet::EMPTY;
    let has_length = known_mask >> HeaderId::CONTENT_LENGTH.0 & 1 != 0;
    if known_mask >> HeaderId::TRANSFER_ENCODING.0 & 1 != 0 {
        insert_id(&mut skip, entries, HeaderId::TRANSFER_ENCODING);
    }
    if framing != OutFraming::AsReceived {
        if has_length {
            insert_id(&mut skip, entries, HeaderId::CONTENT_LENGTH);
        }
        return (skip, framing);
    }
    if chunked {
        return (skip, OutFraming::Chunked);
    }
    let first = || entries.iter().position(|entry| entry.id() == HeaderId::CONTENT_LENGTH);
    // The parser drops a length that is not in its canonical form.
    if has_length && content_length != u64::MAX && first().is_some_and(|index| dropped.contains(index)) {
        return (skip, OutFraming::Length(content_length));
    }
    (skip, OutFraming::AsReceived)
}

fn insert_id(set: &mut EntrySet, entries: &[HeaderView], id: HeaderId) {
    for (index, entry) in entries.iter().enumerate() {
        if entry.id() == id {
            set.insert(index);
        }
    }
}

fn without_id(set: &EntrySet, entries: &[HeaderView], id: HeaderId) -> EntrySet {
    let mut rest = EntrySet::EMPTY;
    for (index, entry) in entries.iter().enumerate() {
        if set.contains(index) && entry.id() != id {
            rest.insert(index);
        }
    }
    rest
}

/// The origin-form of an absolute target. RFC 9112 §3.2.1; §3.2.4: OPTIONS without path and query becomes `*`.
fn put_origin_form(out: &mut Out<'_>, view: &RequestView) -> Result<(), NoRoom> {
    let target = view.target();
    let start = target.windows(3).position(|w| w == b"://").map_or(0, |at| at + 3);
    let rest = target[start..].iter().position(|b| matches!(b, b'/' | b'?')).map_or(&[][..], |len| &target[start + len..]);
    match rest.first() {
        Some(b'/') => out.put(rest),
        None if view.method_id() == METHOD_OPTIONS => out.put(b"*"),
        _ => {
            out.put(b"/")?;
            out.put(rest)
        }
    }
}

/// The usual reason phrase of a status; empty for others.
pub fn reason(status: u16) -> &'static [u8] {
    match status {
        100 => b"Continue",
        101 => b"Switching Protocols",
        103 => b"Early Hints",
        200 => b"OK",
        201 => b"Created",
        202 => b"Accepted",
        203 => b"Non-Authoritative Information",
        204 => b"No Content",
        205 => b"Reset Content",
        206 => b"Partial Content",
        300 => b"Multiple Choices",
        301 => b"Moved Permanently",
        302 => b"Found",
        303 => b"See Other",
        304 => b"Not Modified",
        307 => b"Temporary Redirect",
        308 => b"Permanent Redirect",
        400 => b"Bad Request",
        401 => b"Unauthorized",
        402 => b"Payment Required",
        403 => b"Forbidden",
        404 => b"Not Found",
        405 => b"Method Not Allowed",
        406 => b"Not Acceptable",
        407 => b"Proxy Authentication Required",
        408 => b"Request Timeout",
        409 => b"Conflict",
        410 => b"Gone",
        411 => b"Length Required",
        412 => b"Precondition Failed",
        413 => b"Content Too Large",
        414 => b"URI Too Long",
        415 => b"Unsupported Media Type",
        416 => b"Range Not Satisfiable",
        417 => b"Expectation Failed",
        421 => b"Misdirected Request",
        422 => b"Unprocessable Content",
        425 => b"Too Early",
        426 => b"Upgrade Required",
        428 => b"Precondition Required",
        429 => b"Too Many Requests",
        431 => b"Request Header Fields Too Large",
        451 => b"Unavailable For Legal Reasons",
        499 => b"Client Closed Request",
        500 => b"Internal Server Error",
        501 => b"Not Implemented",
        502 => b"Bad Gateway",
        503 => b"Service Unavailable",
        504 => b"Gateway Timeout",
        505 => b"HTTP Version Not Supported",
        508 => b"Loop Detected",
        511 => b"Network Authentication Required",
        _ => b"",
    }
}
