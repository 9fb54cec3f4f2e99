//! Request heads: the request line, then what the fields mean together.
#![forbid(unsafe_code)]

use ringway_abi::ids::{HeaderId, METHOD_GET, METHOD_OPTIONS, METHOD_TRACE, method_id};
use ringway_abi::raw::{RawHeader, RawRequest, RawSpan};
use ringway_abi::view::{REQ_ABSOLUTE_TARGET, REQ_CHUNKED, REQ_HAS_BODY, REQ_UPGRADE, REQUEST_MAGIC};

use super::bits::Scan;
use super::bytes::{decimal, is_token, list, list_has_token};
use super::connection::{self, Options};
use super::entry_set::EntrySet;
use super::fields::{Awaited, Halt, Lines, Rules, end_of_line, offset, point, walk};
use super::framing;
use super::head::{Area, HeadLimits, HeadProgress, RequestBody, RequestFacts, TargetForm};
use super::target;
use crate::error::ClientFault;

/// The request line, as positions.
struct RequestLine {
    method: (usize, usize),
    target: (usize, usize),
    parts: TargetParts,
    version: u8,
    /// Position behind its CRLF.
    end: usize,
}

/// A target's parts, as positions from the start of the area.
struct TargetParts {
    form: TargetForm,
    path: (usize, usize),
    query: (usize, usize),
    authority: (usize, usize),
}

#[inline]
pub(super) fn parse(
    area: Area<'_>,
    rules: Rules<'_>,
    entries: &mut [RawHeader],
    root: &mut RawRequest,
    progress: &mut HeadProgress,
) -> Result<Option<RequestFacts>, ClientFault> {
    // Bytes behind the limit are never looked at, so that the answer does not depend on how many of them arrived together.
    let end = area.filled.min(rules.limits.head_bytes);
    let full = area.filled >= rules.limits.head_bytes;
    let mut scan = Scan::new(area.bytes, end, rules.fill);
    if !full && progress.must_wait(&mut scan) {
        return Ok(None);
    }
    let mut line_end = 0;
    match parse_whole(&mut scan, rules, entries, root, &mut line_end) {
        Ok(facts) => Ok(Some(facts)),
        Err(Halt::Fault(fault)) => Err(fault),
        Err(Halt::Incomplete(awaited)) if !full => {
            progress.wait_for(awaited, end);
            Ok(None)
        }
        // RFC 9112 §3: "A server that receives a request-target longer than any URI it wishes to parse MUST respond with 414".
        Err(Halt::Incomplete(_)) if line_end == 0 => Err(ClientFault::TargetTooLong),
        Err(Halt::Incomplete(_)) => Err(ClientFault::HeadTooLarge),
    }
}

#[inline(always)]
fn parse_whole(
    scan: &mut Scan<'_>,
    rules: Rules<'_>,
    entries: &mut [RawHeader],
    root: &mut RawRequest,
    line_end: &mut usize,
) -> Result<RequestFacts, Halt<ClientFault>> {
    let Rules { limits, names, .. } = rules;
    let bytes = scan.bytes();
    let line = request_line(scan, bytes, limits)?;
    *line_end = line.end;
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
    let body = body(&lines, http10, &mut dropped)?;
    let (authority, host_differs) = authority(&lines, &line, http10)?;
    let options = connection::options(&lines, names, &mut dropped)?;
    let method = method_id(&bytes[line.method.0..line.method.1]);
    let mut facts = RequestFacts {
        head_bytes: found.end as u32,
        body,
        // RFC 9112 §9.3: 1.1 persists unless it says close; 1.0 does not unless it says keep-alive.
        persist: !options.close && (!http10 || options.keep_alive),
        http10,
        expect_continue: false,
        upgrade: false,
        websocket: false,
        te_trailers: false,
        max_forwards: None,
        target_form: line.parts.form,
        host_differs,
        dropped,
    };
    if found.known_mask & RARE != 0 {
        rare(&lines, method, options, &mut facts)?;
    }

    let base = bytes.as_ptr().addr();
    let has_body = body != RequestBody::None;
    let chunked = body == RequestBody::Chunked;
    let absolute = line.parts.form == TargetForm::Absolute;
    root.magic = REQUEST_MAGIC;
    root.root_size = size_of::<RawRequest>() as u16;
    root.entry_size = size_of::<RawHeader>() as u16;
    root.method_id = method;
    root.http_version = line.version;
    root.flags = if has_body { REQ_HAS_BODY } else { 0 }
        | if chunked { REQ_CHUNKED } else { 0 }
        | if absolute { REQ_ABSOLUTE_TARGET } else { 0 }
        | if facts.upgrade { REQ_UPGRADE } else { 0 };
    root.edits = 0;
    for (span, (from, to)) in [
        (&mut root.method, line.method),
        (&mut root.target, line.target),
        (&mut root.path, line.parts.path),
        (&mut root.query, line.parts.query),
        (&mut root.authority, authority),
    ] {
        point(span, base + from, to - from);
    }
    root.body = RawSpan::default();
    root.content_length = match body {
        RequestBody::None => 0,
        RequestBody::Length(bytes) => bytes,
        RequestBody::Chunked => u64::MAX,
    };
    root.route = u32::MAX;
    root.known_mask = found.known_mask;
    root.headers = RawSpan { off: offset(entries.as_ptr().addr(), &root.headers), len: found.count as u32 };
    Ok(facts)
}

#[inline(always)]
fn request_line(scan: &mut Scan<'_>, bytes: &[u8], limits: &HeadLimits) -> Result<RequestLine, Halt<ClientFault>> {
    use ClientFault as F;
    let end = bytes.len();
    let mut start = 0;
    // RFC 9112 §2.2: a server "SHOULD ignore at least one empty line (CRLF) received prior to the request-line"; we ignore one.
    if let Some(b'\r' | b'\n') = bytes.first() {
        start = leading_empty_line(bytes)?;
    }

    let Some(method_end) = scan.next_no_token(start) else {
        return Err(unfinished(end, Awaited::NoToken(start + limits.method_bytes), F::MethodTooLong));
    };
    if method_end - start > limits.method_bytes {
        return Err(Halt::Fault(F::MethodTooLong));
    }
    if bytes[method_end] != b' ' || method_end == start {
        return Err(Halt::Fault(bad_method(bytes[method_end], method_end == start)));
    }

    let target_start = method_end + 1;
    let (target_end, question) = scan.target(target_start);
    if target_end - target_start > limits.target_bytes {
        return Err(Halt::Fault(F::TargetTooLong));
    }
    if target_end == end {
        return Err(Halt::Incomplete(Awaited::NoTarget(target_start + limits.target_bytes)));
    }
    if bytes[target_end] != b' ' || target_end == target_start {
        return Err(Halt::Fault(bad_target(bytes[target_end], target_end == target_start)));
    }

    let version_start = target_end + 1;
    let Some(line_end) = scan.next_control(version_start) else {
        return Err(Halt::Incomplete(Awaited::Control(usize::MAX)));
    };
    end_of_line(bytes, line_end)?;
    let version = match &bytes[version_start..line_end] {
        b"HTTP/1.1" => 11,
        b"HTTP/1.0" => 10,
        other => odd_version(other, &bytes[start..method_end])?,
    };
    let parts = target_parts(&bytes[start..method_end], bytes, (target_start, target_end), question)?;
    Ok(RequestLine { method: (start, method_end), target: (target_start, target_end), parts, version, end: line_end + 2 })
}

#[cold]
fn unfinished(end: usize, awaited: Awaited, fault: ClientFault) -> Halt<ClientFault> {
    if awaited.is_overdue(end) { Halt::Fault(fault) } else { Halt::Incomplete(awaited) }
}

#[cold]
fn leading_empty_line(bytes: &[u8]) -> Result<usize, Halt<ClientFault>> {
    match bytes {
        [b'\n', ..] => Err(Halt::Fault(ClientFault::BareLineFeed)),
        [b'\r'] => Err(Halt::Incomplete(Awaited::Any)),
        [b'\r', b'\n', b'\r' | b'\n', ..] => Err(Halt::Fault(ClientFault::LeadingEmptyLines)),
        [b'\r', b'\n', ..] => Ok(2),
        _ => Err(Halt::Fault(ClientFault::BareCarriageReturn)),
    }
}

#[cold]
fn bad_method(byte: u8, at_start: bool) -> ClientFault {
    match byte {
        b'\n' => ClientFault::BareLineFeed,
        b'\r' | b'\t' | b' ' if !at_start => ClientFault::BadRequestLine,
        // A TLS record begins with 0x16, most other binary protocols with some such byte.
        0..=0x1f | 0x7f..=0xff if at_start => ClientFault::NotHttp,
        _ => ClientFault::BadMethod,
    }
}

#[cold]
fn bad_target(byte: u8, at_start: bool) -> ClientFault {
    match byte {
        b'\n' => ClientFault::BareLineFeed,
        // RFC 9112 §3: single spaces; parsing on other whitespace is allowed, and is how two recipients come to differ.
        b' ' | b'\t' | b'\r' if at_start => ClientFault::BadRequestLine,
        b'\r' => ClientFault::MissingVersion,
        // RFC 9112 §3.2: "Recipients of an invalid request-line SHOULD respond with either a 400 (Bad Request) error or a 301 …
        // A recipient SHOULD NOT attempt to autocorrect and then process the request".
        _ => ClientFault::BadTarget,
    }
}

/// Any version token but `HTTP/1.1` and `HTTP/1.0`.
#[cold]
fn odd_version(version: &[u8], method: &[u8]) -> Result<u8, ClientFault> {
    match version {
        // RFC 9110 §2.5: a higher minor version of a known major one is processed as the highest that is known.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(11),
        b"HTTP/2.0" if method == b"PRI" => Err(ClientFault::Http2Preface),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(ClientFault::UnsupportedVersion),
        _ if version.contains(&b' ') => Err(ClientFault::BadRequestLine),
        _ => Err(ClientFault::BadVersion),
    }
}

/// Splits `bytes[from..to]`, which holds target bytes only and is not empty; its first `?` is at `question`.
#[inline(always)]
fn target_parts(method: &[u8], bytes: &[u8], (from, to): (usize, usize), question: usize) -> Result<TargetParts, ClientFault> {
    // RFC 9112 §3.2.3: authority-form "is only used for CONNECT requests", and CONNECT takes no other.
    if method == b"CONNECT" {
        if !target::is_host_and_port(&bytes[from..to]) {
            return Err(ClientFault::BadConnectTarget);
        }
        return Ok(TargetParts { form: TargetForm::Authority, path: (to, to), query: (to, to), authority: (from, to) });
    }
    match &bytes[from..to] {
        [b'/', ..] => {
            let (path, query) = path_and_query(from, to, question);
            Ok(TargetParts { form: TargetForm::Origin, path, query, authority: (to, to) })
        }
        // RFC 9112 §3.2.4: asterisk-form "is only used for a server-wide OPTIONS request".
        b"*" if method == b"OPTIONS" => Ok(TargetParts { form: TargetForm::Asterisk, path: (from, to), query: (to, to), authority: (to, to) }),
        b"*" => Err(ClientFault::AsteriskWithoutOptions),
        target => absolute_parts(target, (from, to), question),
    }
}

#[inline(always)]
fn path_and_query(from: usize, to: usize, question: usize) -> ((usize, usize), (usize, usize)) {
    if question < to { ((from, question), (question + 1, to)) } else { ((from, to), (to, to)) }
}

/// RFC 9112 §3.2.2: "a server MUST accept the absolute-form in requests".
#[cold]
fn absolute_parts(target: &[u8], (from, to): (usize, usize), question: usize) -> Result<TargetParts, ClientFault> {
    let Some(scheme) = target.windows(3).position(|w| w == b"://") else { return Err(ClientFault::BadTarget) };
    if !target[..scheme].eq_ignore_ascii_case(b"http") && !target[..scheme].eq_ignore_ascii_case(b"https") {
        return Err(ClientFault::BadScheme);
    }
    let start = from + scheme + 3;
    let rest = &target[scheme + 3..];
    let len = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let end = start + len;
    // RFC 9110 §4.2.1: an empty host is invalid; §4.2.4: userinfo is an error in a message.
    if !target::is_host(&rest[..len]) {
        return Err(ClientFault::BadAuthority);
    }
    let (mut path, query) = path_and_query(end, to, question);
    if path.0 == path.1 {
        // RFC 9110 §4.2.3: an empty path is `/`. The byte before the authority is one, and views point at received bytes.
        path = (start - 1, start);
    }
    Ok(TargetParts { form: TargetForm::Absolute, path, query, authority: (start, end) })
}

/// Where the body ends, RFC 9112 §6.3.
#[inline(always)]
fn body(lines: &Lines<'_>, http10: bool, dropped: &mut EntrySet) -> Result<RequestBody, Halt<ClientFault>> {
    if lines.has(HeaderId::TRANSFER_ENCODING) {
        // RFC 9112 §6.1: a server that receives Transfer-Encoding in an HTTP/1.0 message "MUST treat the message as if the
        // framing is faulty".
        if http10 {
            return Err(Halt::Fault(ClientFault::TransferEncodingInHttp10));
        }
        // RFC 9112 §6.1: "A server MAY reject a request that contains both Content-Length and Transfer-Encoding".
        if lines.has(HeaderId::CONTENT_LENGTH) {
            return Err(Halt::Fault(ClientFault::LengthAndTransferEncoding));
        }
        framing::chunked_only(lines)?;
        return Ok(RequestBody::Chunked);
    }
    if !lines.has(HeaderId::CONTENT_LENGTH) {
        // RFC 9112 §6.3 item 7: a request without either has no body.
        return Ok(RequestBody::None);
    }
    let Some(length) = framing::content_length(lines)? else { return Err(Halt::Fault(ClientFault::BadContentLength)) };
    if length.repeated {
        return Err(Halt::Fault(ClientFault::RepeatedContentLength));
    }
    if !length.canonical {
        lines.indexes(HeaderId::CONTENT_LENGTH).for_each(|index| dropped.insert(index));
    }
    Ok(if length.bytes == 0 { RequestBody::None } else { RequestBody::Length(length.bytes) })
}

/// The authority for routing and forwarding, as positions, and whether Host differs from the target's.
#[inline(always)]
fn authority(lines: &Lines<'_>, line: &RequestLine, http10: bool) -> Result<((usize, usize), bool), Halt<ClientFault>> {
    // RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a
    // Host header field and to any request message that contains more than one Host header field line or a Host header field
    // with an invalid field value".
    if lines.repeats(HeaderId::HOST) {
        return Err(Halt::Fault(ClientFault::DuplicateHost));
    }
    let Some(host) = lines.first(HeaderId::HOST) else {
        return if http10 { Ok((line.parts.authority, false)) } else { Err(Halt::Fault(ClientFault::MissingHost)) };
    };
    if !target::is_host(host) {
        return Err(Halt::Fault(ClientFault::BadHost));
    }
    // RFC 9112 §3.2.2: in absolute-form, the received Host is ignored and replaced.
    let (from, to) = line.parts.authority;
    if from != to {
        return Ok(((from, to), !lines.bytes[from..to].eq_ignore_ascii_case(host)));
    }
    let start = host.as_ptr().addr() - lines.bytes.as_ptr().addr();
    Ok(((start, start + host.len()), false))
}

/// Fields that few requests have.
const RARE: u64 = 1 << HeaderId::EXPECT.0 | 1 << HeaderId::UPGRADE.0 | 1 << HeaderId::TE.0 | 1 << HeaderId::MAX_FORWARDS.0;

#[cold]
#[inline(never)]
fn rare(lines: &Lines<'_>, method: u8, options: Options, facts: &mut RequestFacts) -> Result<(), ClientFault> {
    // RFC 9110 §10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that expectation".
    if lines.has(HeaderId::EXPECT) {
        if !facts.http10 && !lines.values(HeaderId::EXPECT).flat_map(list).all(|e| e.eq_ignore_ascii_case(b"100-continue")) {
            return Err(ClientFault::ExpectationFailed);
        }
        facts.expect_continue = !facts.http10 && facts.body != RequestBody::None;
        // What is ignored must not reach the upstream in a message of ours, which is HTTP/1.1 and would be an expectation of ours.
        if !facts.expect_continue {
            lines.indexes(HeaderId::EXPECT).for_each(|index| facts.dropped.insert(index));
        }
    }
    // RFC 9110 §7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request", and Upgrade needs the
    // connection option. Several protocols are a choice that the gateway does not make: ignored too, as it may always be.
    if lines.has(HeaderId::UPGRADE) && !facts.http10 && options.upgrade && !lines.repeats(HeaderId::UPGRADE) {
        let protocol = lines.first(HeaderId::UPGRADE).unwrap_or_default();
        let (name, version) = match protocol.iter().position(|b| *b == b'/') {
            Some(at) => (&protocol[..at], Some(&protocol[at + 1..])),
            None => (protocol, None),
        };
        facts.upgrade = is_token(name) && version.is_none_or(is_token) && !name.eq_ignore_ascii_case(b"h2c");
        facts.websocket = facts.upgrade
            && protocol.eq_ignore_ascii_case(b"websocket")
            && method == METHOD_GET
            && facts.body == RequestBody::None
            && lines.has(HeaderId::SEC_WEBSOCKET_KEY)
            && !lines.repeats(HeaderId::SEC_WEBSOCKET_KEY)
            && (0..lines.entries.len()).any(|index| lines.name(index).eq_ignore_ascii_case(b"sec-websocket-version"));
    }
    facts.te_trailers = !facts.http10 && lines.values(HeaderId::TE).any(|value| list_has_token(value, b"trailers"));
    // RFC 9110 §7.6.2: Max-Forwards means something with TRACE and OPTIONS only.
    if matches!(method, METHOD_OPTIONS | METHOD_TRACE) && !lines.repeats(HeaderId::MAX_FORWARDS) {
        let number = lines.first(HeaderId::MAX_FORWARDS).map(decimal);
        facts.max_forwards = number.and_then(Result::ok).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    }
    Ok(())
}
