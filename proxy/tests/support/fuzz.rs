//! Any bytes from both sides, against what must hold whatever they are. Shared by the fuzz target `exchange` and a test.
//!
//! The reference reads the client's bytes in one piece: the requests up to the first that is refused. Nothing else may reach an
//! upstream, in whatever pieces the bytes come; both sides receive well-formed messages; [`Case`] checks slots, deadlines and reads.

use ringway::exchange::End;
use ringway::exchange::body::BodyReader;
use ringway::http1::chunked::ChunkLimits;
use ringway::http1::head::{Area, HeadLimits, HeadProgress, RequestBody, parse_request};
use ringway::http1::names::NameTable;
use ringway::limits::Limits;
use ringway::view::slab::{Slab, SlotLayout};

use super::stream::bytes;
use super::{Case, Step, Upstream, World};

/// What separates the answers of the upstream.
pub const NEXT_ANSWER: u8 = 0xff;

/// A request that the reference accepts.
struct Accepted {
    method: Vec<u8>,
    target: Vec<u8>,
    body: Vec<u8>,
}

/// One conversation: `[seed, low and high byte of the client's length, client, upstream]`.
pub fn exchange(input: &[u8]) {
    thread_local! {
        static WORLD: World = World::plain();
    }
    let [seed, low, high, rest @ ..] = input else { return };
    let (client, upstream) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    if client.is_empty() || upstream.len() > 1 << 16 {
        return;
    }
    let answers = upstream.split(|b| *b == NEXT_ANSWER).filter(|answer| !answer.is_empty());
    let mut steps: Vec<Step> = answers.flat_map(|answer| [Step::AwaitHead, bytes(answer)]).collect();
    // An upstream that closes at once would hide what was sent to it.
    steps.extend([Step::AwaitHead, Step::Eof]);
    let accepted = reference(client);
    WORLD.with(|world| {
        let case = (0..3).fold(Case::script(world, vec![bytes(client), Step::Eof]), |case, _| case.up(Upstream::script(steps.clone())));
        // Where both sides wait for each other, deadlines end it.
        let case = (0..8).fold(case, |case, _| case.expire(u32::MAX));
        let methods = accepted.iter().map(|request| if request.method == b"HEAD" { "HEAD" } else { "GET" });
        let outcome = case.methods(&methods.collect::<Vec<_>>()).random(u64::from(*seed));
        assert_ne!(outcome.end, End::Park, "the client has gone");
        for received in outcome.upstreams.iter().flat_map(|upstream| upstream.requests().0) {
            let known = |request: &Accepted| {
                let body = if received.complete { request.body == received.body } else { request.body.starts_with(&received.body) };
                request.method == received.method.as_bytes() && request.target == received.target && body
            };
            assert!(accepted.iter().any(known), "a request that nobody made reached the upstream: {received:?}");
        }
        let finals = outcome.responses.iter().filter(|response| response.status >= 200).count();
        assert!(finals <= accepted.len() + 1, "{finals} answers to {} requests", accepted.len());
    });
}

/// The requests that the bytes hold, up to the first that is refused. The last may be cut off: then its body is what came of it.
fn reference(client: &[u8]) -> Vec<Accepted> {
    let limits = Limits::default();
    let room = client.len().max(1024);
    let slab = Slab::new(SlotLayout::new(room, 64, 64, 254, 64), 1, false).expect("memory");
    let mut slot = slab.take().expect("free");
    let (names, mut rest, mut accepted) = (NameTable::new(), client, Vec::new());
    loop {
        slot.bytes_mut(0..rest.len()).copy_from_slice(rest);
        let (area, entries, root) = slot.request_parts();
        let area = Area { bytes: area, filled: rest.len() };
        let head_limits = HeadLimits {
            head_bytes: limits.head_bytes,
            target_bytes: limits.target_bytes,
            fields: limits.header_fields,
            line_bytes: limits.line_bytes,
            ..HeadLimits::default()
        };
        let Ok(Some(facts)) = parse_request(area, &head_limits, &names, entries, root, &mut HeadProgress::default()) else { return accepted };
        let count = root.headers.len as usize;
        let message = ringway::view::message::Message::parsed(slot.clone(), ringway::view::message::Side::Request, count);
        let view = message.request();
        let mut body = rest[facts.head_bytes as usize..].to_vec();
        let mut reader = match facts.body {
            RequestBody::None => BodyReader::none(),
            RequestBody::Length(length) => BodyReader::length(length),
            RequestBody::Chunked => BodyReader::chunked(ChunkLimits {
                extension_bytes: limits.chunk_extension_bytes as u32,
                trailer_bytes: limits.trailer_bytes as u32,
                ..ChunkLimits::default()
            }),
        };
        let (consumed, data) = fed(&mut reader, &mut body);
        body.truncate(data);
        accepted.push(Accepted { method: view.method().to_vec(), target: forwarded_target(view), body });
        if !reader.is_done() {
            return accepted;
        }
        rest = &rest[facts.head_bytes as usize + consumed..];
    }
}

/// How much the body took of the bytes, and how much of that is data. Behind a fault in the framing there is only what came before it.
fn fed(reader: &mut BodyReader, body: &mut [u8]) -> (usize, usize) {
    if !matches!(reader, BodyReader::Chunked(_)) {
        return reader.feed(body).map_or((0, 0), |fed| (fed.consumed, fed.data));
    }
    let (mut consumed, mut data) = (0, 0);
    while consumed < body.len() && !reader.is_done() {
        let mut byte = [body[consumed]];
        let Ok(fed) = reader.feed(&mut byte) else { return (consumed, data) };
        if fed.data == 1 {
            body[data] = byte[0];
            data += 1;
        }
        consumed += 1;
    }
    (consumed, data)
}

/// The target as it is forwarded: an absolute one loses scheme and authority (RFC 9112 §3.2.1, §3.2.4).
fn forwarded_target(view: &ringway_abi::RequestView) -> Vec<u8> {
    let target = view.target();
    let absolute = !target.starts_with(b"/") && target != b"*" && view.method() != b"CONNECT";
    let Some(authority) = target.windows(3).position(|w| w == b"://").filter(|_| absolute) else { return target.to_vec() };
    let behind = &target[authority + 3..];
    match behind.iter().position(|b| matches!(b, b'/' | b'?')) {
        Some(at) if behind[at] == b'/' => behind[at..].to_vec(),
        Some(at) => [b"/", &behind[at..]].concat(),
        None if view.method() == b"OPTIONS" => b"*".to_vec(),
        None => b"/".to_vec(),
    }
}
