//! Random conversations: what the upstream receives reads as what the client sent, and the other way round, in whatever pieces.
//!
//! A failure names its seed; `RINGWAY_SEED=N cargo test -p ringway --test exchange_random` repeats it.

mod support;

use fastrand::Rng;
use ringway::exchange::End;
use support::stream::bytes;
use support::wire::{Field, Framing};
use support::{Case, Fate, Step, Upstream, World, fuzz};

/// What one side of an exchange says, and what the other side must hear.
struct Sent {
    wire: Vec<u8>,
    method: &'static str,
    target: String,
    status: u16,
    fields: Vec<Field>,
    body: Vec<u8>,
    /// The connection ends with it.
    closes: bool,
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "BREW"];
const NAMES: [&str; 8] = ["Accept", "X-A", "x-b", "COOKIE", "User-Agent", "X-Empty", "Range", "Cache-Control"];

fn text(random: &mut Rng, alphabet: &[u8], most: usize) -> String {
    let len = random.usize(0..=most);
    (0..len).map(|_| char::from(alphabet[random.usize(0..alphabet.len())])).collect()
}

/// Lines, and the fields that must arrive: hop-by-hop ones are among the lines only.
fn fields(random: &mut Rng) -> (String, Vec<Field>) {
    let (mut lines, mut kept) = (String::new(), Vec::new());
    for _ in 0..random.usize(0..8) {
        let name = NAMES[random.usize(0..NAMES.len())];
        let value = text(random, b"abc;=,/\"() \t~!", 24);
        let blank = ["", " ", "\t ", "  "][random.usize(0..4)];
        lines += &format!("{name}:{blank}{value}{blank}\r\n");
        kept.push((name.to_lowercase(), value.trim_matches([' ', '\t']).as_bytes().to_vec()));
    }
    if random.u8(0..4) == 0 {
        lines += "Keep-Alive: timeout=5\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\n";
    }
    (lines, kept)
}

/// A body, and the framing line and bytes that carry it.
fn body(random: &mut Rng, chunked: bool) -> (Vec<u8>, String, Vec<u8>) {
    let most = if random.u8(0..6) == 0 { 40_000 } else { 60 };
    let len = random.usize(0..=most);
    let body: Vec<u8> = (0..len).map(|_| b"\r\n0ab:HTTP/1.1 "[random.usize(0..15)]).collect();
    if !chunked {
        return (body.clone(), format!("Content-Length: {len}\r\n"), body);
    }
    let (mut wire, mut at) = (Vec::new(), 0);
    while at < len {
        let size = random.usize(1..=len - at);
        let extension = ["", ";a", ";a=b", ";q=\"x;y\""][random.usize(0..4)];
        let zeros = ["", "0", "000"][random.usize(0..3)];
        wire.extend_from_slice(format!("{zeros}{size:X}{extension}\r\n").as_bytes());
        wire.extend_from_slice(&body[at..at + size]);
        wire.extend_from_slice(b"\r\n");
        at += size;
    }
    wire.extend_from_slice(if random.bool() { b"0\r\n\r\n" } else { b"0\r\nX-Trailer: evil\r\nContent-Length: 9\r\n\r\n" });
    (body, "Transfer-Encoding: chunked\r\n".into(), wire)
}

fn request(random: &mut Rng) -> Sent {
    let method = METHODS[random.usize(0..METHODS.len())];
    let target = format!("/{}", text(random, b"abz09-_~!$&'()*+,;=:@?", 30));
    let (lines, fields) = fields(random);
    let with_body = matches!(method, "POST" | "PUT") || random.u8(0..8) == 0;
    let chunked = random.bool();
    let (body, framing, payload) = if with_body { body(random, chunked) } else { (Vec::new(), String::new(), Vec::new()) };
    let empty_line = if random.u8(0..8) == 0 { "\r\n" } else { "" };
    let head = match random.bool() {
        true => format!("{empty_line}{method} {target} HTTP/1.1\r\nHost: e.example:8080\r\n{lines}{framing}\r\n"),
        false => format!("{empty_line}{method} {target} HTTP/1.1\r\n{framing}{lines}hOst:e.example:8080\r\n\r\n"),
    };
    Sent { wire: [head.as_bytes(), &payload].concat(), method, target, status: 0, fields, body, closes: false }
}

fn response(random: &mut Rng, method: &'static str) -> Sent {
    let status = [200, 200, 201, 204, 304, 404, 500][random.usize(0..7)];
    let (lines, fields) = fields(random);
    let kind = random.u8(0..5);
    let (mut body, framing, mut payload) = match kind {
        0 => {
            let (body, _, _) = body(random, false);
            (body.clone(), String::new(), body)
        }
        kind => body(random, kind > 2),
    };
    let mut closes = kind == 0;
    // The parser does not trust a connection whose 204 announces a body.
    let framing = if status == 204 { String::new() } else { framing };
    if method == "HEAD" || matches!(status, 204 | 304) {
        (body, payload) = (Vec::new(), Vec::new());
        closes = false;
    }
    let hints = if random.u8(0..5) == 0 { "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" } else { "" };
    let wire = [format!("{hints}HTTP/1.1 {status} Some Reason\r\n{lines}{framing}\r\n").as_bytes(), &payload].concat();
    Sent { wire, method, target: String::new(), status, fields, body, closes }
}

/// Every kept field arrives in order; what the gateway adds is not of interest here.
fn assert_fields(received: &[Field], sent: &[Field]) {
    let ours = ["host", "via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "content-length", "transfer-encoding", "date"];
    let end_to_end: Vec<&Field> = received.iter().filter(|(name, _)| !ours.contains(&name.as_str())).collect();
    assert_eq!(end_to_end, sent.iter().collect::<Vec<_>>());
}

fn converse(world: &World, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let requests: Vec<Sent> = (0..random.usize(1..5)).map(|_| request(&mut random)).collect();
    let responses: Vec<Sent> = requests.iter().map(|r| response(&mut random, r.method)).collect();
    // Answers that end with the connection need another for the next.
    let (mut connections, mut steps, mut on_this) = (Vec::new(), Vec::new(), 0);
    for answer in &responses {
        on_this += 1;
        steps.extend([Step::AwaitRequests(on_this), bytes(&answer.wire)]);
        if answer.closes {
            steps.push(Step::Eof);
            connections.push(Upstream::script(std::mem::take(&mut steps)));
            on_this = 0;
        }
    }
    connections.push(Upstream::script(steps));
    let methods: Vec<&'static str> = requests.iter().map(|r| r.method).collect();
    let wire: Vec<u8> = requests.iter().flat_map(|r| r.wire.iter().copied()).collect();
    let case = connections.into_iter().fold(Case::new(world, wire).methods(&methods), Case::up);
    let outcome = case.random(seed);
    assert_eq!(outcome.end, End::Park, "{:?} to {methods:?}: {:?}", outcome.statuses(), outcome.reasons());
    let received: Vec<_> = outcome.upstreams.iter().flat_map(|u| u.requests().0).collect();
    assert_eq!(received.len(), requests.len());
    for (got, sent) in received.iter().zip(&requests) {
        assert_eq!((got.method.as_str(), got.target.as_slice(), got.complete), (sent.method, sent.target.as_bytes(), true));
        assert!(got.body == sent.body, "a body of {} bytes arrived as {}", sent.body.len(), got.body.len());
        assert_eq!(got.value("host"), Some("e.example:8080"));
        assert_fields(&got.fields, &sent.fields);
    }
    let finals: Vec<_> = outcome.responses.iter().filter(|r| r.status >= 200).collect();
    assert_eq!(finals.len(), responses.len());
    for (got, sent) in finals.iter().zip(&responses) {
        assert_eq!((got.status, got.complete), (sent.status, true));
        assert!(got.body == sent.body && got.framing != Framing::UntilClose, "{} bytes arrived as {}", sent.body.len(), got.body.len());
        assert_fields(&got.fields, &sent.fields);
    }
    assert!(outcome.fates().iter().all(|fate| matches!(fate, Fate::GivenBack | Fate::Discarded(None))));
}

#[test]
fn what_either_side_receives_reads_as_what_the_other_sent() {
    let world = World::plain();
    for seed in seeds(3000) {
        let naming = Naming(seed);
        converse(&world, seed);
        drop(naming);
    }
}

/// Valid conversations with a few bytes changed: whatever the gateway makes of them, see `support::fuzz`.
#[test]
fn damaged_conversations_harm_nobody() {
    for seed in seeds(4000) {
        let naming = Naming(seed);
        let mut random = Rng::with_seed(!seed);
        let mut client: Vec<u8> = (0..random.usize(1..4)).flat_map(|_| request(&mut random).wire).take(5000).collect();
        let mut upstream = Vec::new();
        for _ in 0..random.usize(1..4) {
            upstream.extend(response(&mut random, "GET").wire);
            upstream.push(fuzz::NEXT_ANSWER);
        }
        damage(&mut client, &mut random);
        damage(&mut upstream, &mut random);
        let len = (client.len() as u16).to_le_bytes();
        fuzz::exchange(&[&[seed as u8, len[0], len[1]], client.as_slice(), &upstream].concat());
        drop(naming);
    }
}

/// Up to three changes: bytes replaced, cut out, doubled, or such as parsers stumble over put in.
fn damage(bytes: &mut Vec<u8>, random: &mut Rng) {
    const ODD: [&[u8]; 14] = [
        b"\r",
        b"\n",
        b"\0",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b":",
        b"0",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.0",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: x\r\nConnection: upgrade\r\n",
    ];
    for _ in 0..random.usize(0..4) {
        let at = random.usize(0..=bytes.len());
        let to = (at + random.usize(0..20)).min(bytes.len());
        match random.u8(0..5) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let again = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, again));
            }
            3 => bytes.truncate(at.max(1)),
            _ => drop(bytes.splice(at..at, ODD[random.usize(0..ODD.len())].iter().copied())),
        }
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("RINGWAY_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("RINGWAY_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
    }
}

/// Prints the seed of a failure.
struct Naming(u64);

impl Drop for Naming {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with RINGWAY_SEED={}", self.0);
        }
    }
}
