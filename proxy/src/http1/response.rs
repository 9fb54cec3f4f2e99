//! Response heads: the status line, then what the fields mean together.
#![forbid(unsafe_code)]

use ringway_abi::ids::{HeaderId, METHOD_CONNECT, METHOD_HEAD};
use ringway_abi::raw::{RawHeader, RawResponse, RawSpan};
use ringway_abi::view::{ORIGIN_UPSTREAM, RES_CHUNKED, RES_CLOSE_DELIMITED, RES_HAS_BODY, RESPONSE_MAGIC};

use super::bits::Scan;
use super::connection;
use super::entry_set::EntrySet;
use super::fields::{Halt, Lines, Rules, end_of_line, offset, point, walk};
use super::framing;
use super::head::{Area, HeadProgress, ResponseBody, ResponseFacts, ResponseTo};
use crate::error::UpstreamFault;

/// The status line, as positions.
struct StatusLine {
    status: u16,
    version: u8,
    reason: (usize, usize),
    /// Position behind its CRLF.
    end: usize,
}

/// The body as framed, and whether the connection can be used after it.
struct Framed {
    body: ResponseBody,
    reusable: bool,
    /// What the view shows: the length declared, also where no body follows (HEAD, 304).
    content_length: u64,
}

#[inline]
pub(super) fn parse(
    area: Area<'_>,
    rules: Rules<'_>,
    entries: &mut [RawHeader],
    root: &mut RawResponse,
    request: ResponseTo,
    progress: &mut HeadProgress,
) -> Result<Option<ResponseFacts>, UpstreamFault> {
    let end = area.filled.min(rules.limits.head_bytes);
    let full = area.filled >= rules.limits.head_bytes;
    if !full && progress.must_wait(area.bytes, end, rules.fill) {
        progress.searched(area.bytes, end);
        return Ok(None);
    }
    let mut scan = Scan::new(area.bytes, end, rules.fill);
    match parse_whole(&mut scan, rules, entries, root, request) {
        Ok(facts) => Ok(Some(facts)),
        Err(Halt::Fault(fault)) => Err(fault),
        Err(Halt::Incomplete) if full => Err(UpstreamFault::HeadTooLarge),
        Err(Halt::Incomplete) => {
            progress.searched(area.bytes, end);
            Ok(None)
        }
    }
}

#[inline(always)]
fn parse_whole(
    scan: &mut Scan<'_>,
    rules: Rules<'_>,
    entries: &mut [RawHeader],
    root: &mut RawResponse,
    request: ResponseTo,
) -> Result<ResponseFacts, Halt<UpstreamFault>> {
    let Rules { limits, names, .. } = rules;
    let bytes = scan.bytes();
    let line = status_line(scan, bytes)?;
    root.known = [0; 64];
    let found = walk(scan, line.end, rules, entries, &mut root.known)?;
    let lines = Lines {
        bytes: &bytes[..found.end],
        entries: &entries[..found.count],
        known: &root.known,
        known_mask: found.known_mask,
        repeated_mask: found.repeated_mask,
    };

    let mut dropped = EntrySet::EMPTY;
    if !found.underscores.is_empty() {
        connection::underscores(&lines, names, &found.underscores, limits.underscores, &mut dropped)?;
    }
    let http10 = line.version == 10;
    // RFC 9110 §7.8: "A server MUST NOT switch to a protocol that was not indicated by the client".
    if line.status == 101 && !request.upgrade {
        return Err(Halt::Fault(UpstreamFault::UnexpectedUpgrade));
    }
    let framed = framed(&lines, line.status, request, http10, &mut dropped)?;
    let options = connection::options(&lines, names, &mut dropped)?;

    let base = bytes.as_ptr().addr();
    root.magic = RESPONSE_MAGIC;
    root.root_size = size_of::<RawResponse>() as u16;
    root.entry_size = size_of::<RawHeader>() as u16;
    root.status = line.status;
    root.http_version = line.version;
    root.origin = ORIGIN_UPSTREAM;
    root.flags = match framed.body {
        ResponseBody::None => 0,
        ResponseBody::Length(_) => RES_HAS_BODY,
        ResponseBody::Chunked => RES_HAS_BODY | RES_CHUNKED,
        ResponseBody::UntilClose => RES_HAS_BODY | RES_CLOSE_DELIMITED,
    };
    root.reserved = 0;
    point(&mut root.reason, base + line.reason.0, line.reason.1 - line.reason.0);
    root.body = RawSpan::default();
    root.content_length = framed.content_length;
    root.origin_plugin = u32::MAX;
    root.edits = 0;
    root.known_mask = found.known_mask;
    root.headers = RawSpan { off: offset(entries.as_ptr().addr(), &root.headers), len: found.count as u32 };
    Ok(ResponseFacts {
        head_bytes: found.end as u32,
        status: line.status,
        body: framed.body,
        persist: framed.reusable && !options.close && (!http10 || options.keep_alive),
        http10,
        upgrade: line.status == 101,
        tunnel: is_tunnel(line.status, request),
        dropped,
    })
}

// RFC 9112 §4: status-line = HTTP-version SP status-code SP [ reason-phrase ].
#[inline(always)]
fn status_line(scan: &mut Scan<'_>, bytes: &[u8]) -> Result<StatusLine, Halt<UpstreamFault>> {
    let Some(line_end) = scan.next_control(0) else {
        // Whatever it is, it is not going to be a status line: no need to wait for the end of the line.
        let bad = bytes.iter().zip(b"HTTP/").any(|(is, must)| is != must);
        return Err(if bad { Halt::Fault(UpstreamFault::BadStatusLine) } else { Halt::Incomplete });
    };
    if bytes.iter().zip(b"HTTP/").any(|(is, must)| is != must) {
        return Err(Halt::Fault(UpstreamFault::BadStatusLine));
    }
    end_of_line(bytes, line_end)?;
    let [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9', b' ', rest @ ..] = &bytes[..line_end] else {
        return Err(Halt::Fault(UpstreamFault::BadStatusLine));
    };
    if *major != b'1' {
        return Err(Halt::Fault(UpstreamFault::UnsupportedVersion));
    }
    let [hundreds @ b'0'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' ', ..] = rest else {
        return Err(Halt::Fault(UpstreamFault::BadStatusLine));
    };
    let status = [hundreds, tens, ones].iter().fold(0, |number, digit| number * 10 + u16::from(**digit - b'0'));
    // RFC 9110 §15: "a status code outside the range 100..599 is invalid".
    if !(100..600).contains(&status) {
        return Err(Halt::Fault(UpstreamFault::BadStatus));
    }
    let version = if *minor == b'0' { 10 } else { 11 };
    Ok(StatusLine { status, version, reason: (REASON_START, line_end), end: line_end + 2 })
}

/// Behind `HTTP/1.1 200 `.
const REASON_START: usize = 13;

fn is_tunnel(status: u16, request: ResponseTo) -> bool {
    request.method_id == METHOD_CONNECT && (200..300).contains(&status)
}

/// Where the body ends, RFC 9112 §6.3.
#[inline(always)]
fn framed(lines: &Lines<'_>, status: u16, request: ResponseTo, http10: bool, dropped: &mut EntrySet) -> Result<Framed, Halt<UpstreamFault>> {
    let has_coding = lines.has(HeaderId::TRANSFER_ENCODING);
    let length = if lines.has(HeaderId::CONTENT_LENGTH) { framing::content_length(lines)? } else { None };
    if has_coding {
        // RFC 9112 §6.1: the framing of an HTTP/1.0 message with Transfer-Encoding is faulty.
        if http10 {
            return Err(Halt::Fault(UpstreamFault::TransferEncodingInHttp10));
        }
        framing::chunked_only(lines)?;
    }
    let length_bytes = length.map(|length| length.bytes);
    // RFC 9110 §8.6: no Content-Length in 1xx, 204 and 2xx to CONNECT; RFC 9112 §6.3 item 3: Transfer-Encoding overrides it.
    let bare = status < 200 || status == 204 || is_tunnel(status, request);
    if bare || has_coding || length.is_some_and(|length| !length.canonical) {
        lines.indexes(HeaderId::CONTENT_LENGTH).for_each(|index| dropped.insert(index));
    }
    // RFC 9112 §6.3 item 1: responses to HEAD, 1xx, 204 and 304 have no body whatever the fields say; item 2: nor has 2xx to CONNECT.
    if bare || status == 304 || request.method_id == METHOD_HEAD {
        // An upstream that frames a body where none can be may send one: nothing after it could be told apart from it.
        let suspicious = bare && (has_coding || length_bytes.is_some_and(|bytes| bytes > 0));
        let content_length = match length_bytes {
            _ if bare => 0,
            Some(bytes) if !has_coding => bytes,
            _ => u64::MAX,
        };
        return Ok(Framed { body: ResponseBody::None, reusable: !suspicious, content_length });
    }
    Ok(match (has_coding, length_bytes) {
        // RFC 9112 §6.1: both: an attempt at smuggling perhaps; the coding counts and the connection is not used again.
        (true, length) => Framed { body: ResponseBody::Chunked, reusable: length.is_none(), content_length: u64::MAX },
        (false, Some(0)) => Framed { body: ResponseBody::None, reusable: true, content_length: 0 },
        (false, Some(bytes)) => Framed { body: ResponseBody::Length(bytes), reusable: true, content_length: bytes },
        // RFC 9112 §6.3 item 8: otherwise the body ends with the connection.
        (false, None) => Framed { body: ResponseBody::UntilClose, reusable: false, content_length: u64::MAX },
    })
}
