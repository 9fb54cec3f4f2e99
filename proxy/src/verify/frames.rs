//! Files of captured frames: exchanges of a running gateway, as archives that a dry run can be made of.
//!
//! Owns: the form of the file, what is kept out of it, and every check between its bytes and a plugin. Nothing of a file is believed:
//! its digest, each archive (`rkyv::access`, which checks every span) and what the spans hold are looked at, and the dry run parses the
//! heads again as if a network had sent them.
//!
//! The form, little-endian: 32 bytes `"RWFRAMES"`, `u32` version, `u32` exchanges, `u64` layout fingerprint of the ABI, `u32` flags,
//! `u32` zero; for each exchange `u32` bytes of the request's archive and `u32` of the response's, 0 without one, then the two, each from a
//! multiple of 16 on; in the end the SHA-256 of all before it.
#![forbid(unsafe_code)]

use std::fmt;

use ringway_abi::owned::{Request, Response};
use ringway_abi::raw::LAYOUT_FINGERPRINT;
use ringway_abi::view::{ORIGIN_UPSTREAM, REQ_CHUNKED, RES_CHUNKED, RES_CLOSE_DELIMITED};
use ringway_abi::{HeaderView, RequestView, ResponseView};
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use sha2::{Digest as _, Sha256};

use crate::http1::bytes::{is_field_value, is_token, trim};
use crate::limits;
use crate::plugin::dry::frames::Sample;

/// How a file begins.
const MAGIC: &[u8; 8] = b"RWFRAMES";
/// The form that is written and read.
const VERSION: u32 = 1;
/// The file holds credentials and bodies as they came.
const FLAG_SECRETS: u32 = 1;
/// Bytes before the first exchange.
const FRONT_BYTES: usize = 32;
/// Bytes of the digest.
const DIGEST_BYTES: usize = 32;
/// Archives begin at multiples of this.
const ALIGN: usize = 16;
/// Header fields whose values are overwritten.
const SECRET_FIELDS: [&[u8]; 4] = [b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"];
/// What overwrites a secret.
const BLANK: u8 = b'x';
/// Characters of a path in the name of a frame.
const NAME_CHARS: usize = 24;

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The request as it came.
    pub request: Request,
    /// The response as it came, or as it was made here; when there was one.
    pub response: Option<Response>,
}

impl Captured {
    /// Overwrites the values of header fields with credentials, and bodies; lengths stay.
    pub fn redact(&mut self) {
        let headers = self.response.iter_mut().flat_map(|response| &mut response.headers.0).chain(&mut self.request.headers.0);
        for header in headers.filter(|header| SECRET_FIELDS.iter().any(|field| header.name.name.eq_ignore_ascii_case(field))) {
            header.value.0.fill(BLANK);
        }
        self.request.body.0.fill(BLANK);
        if let Some(response) = &mut self.response {
            response.body.0.fill(BLANK);
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// For a dry run.
    pub samples: Vec<Sample>,
    /// Credentials and bodies stand in it as they came.
    pub secrets_kept: bool,
}

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileFault {
    /// It begins otherwise.
    NoFrames,
    /// A form that this program does not know.
    Version(u32),
    /// The views of another ABI.
    Layout(u64),
    /// It ends too early, or bytes of it were changed.
    Damaged,
    /// An exchange, counted from 1, and what is wrong with it.
    Exchange(usize, &'static str),
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileFault::NoFrames => f.write_str("it does not begin like a file of `ringway capture`"),
            FileFault::Version(version) => write!(f, "its form has the number {version}, and this program reads {VERSION}"),
            FileFault::Layout(fingerprint) => write!(f, "its views have the layout {fingerprint:#018x}, and this program's {LAYOUT_FINGERPRINT:#018x}"),
            FileFault::Damaged => f.write_str("it was cut off or changed: its content does not fit its digest"),
            FileFault::Exchange(number, why) => write!(f, "the exchange {number} is none: {why}"),
        }
    }
}

/// A file of these exchanges.
///
/// # Errors
/// When an exchange cannot be archived, which is a mistake of ours.
pub fn write(exchanges: &[Captured], secrets_kept: bool) -> Result<Vec<u8>, String> {
    let mut file = MAGIC.to_vec();
    for number in [VERSION, exchanges.len() as u32] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&LAYOUT_FINGERPRINT.to_le_bytes());
    for number in [if secrets_kept { FLAG_SECRETS } else { 0 }, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    for Captured { request, response } in exchanges {
        let request = rkyv::to_bytes::<Error>(request).map_err(|error| error.to_string())?;
        let response = response.as_ref().map(rkyv::to_bytes::<Error>).transpose().map_err(|error| error.to_string())?.unwrap_or_default();
        for archive in [&request, &response] {
            file.extend_from_slice(&(archive.len() as u32).to_le_bytes());
        }
        for archive in [&request, &response] {
            file.resize(file.len().next_multiple_of(ALIGN), 0);
            file.extend_from_slice(archive);
        }
    }
    let digest = Sha256::digest(&file);
    file.extend_from_slice(&digest);
    Ok(file)
}

/// Reads a file, believing nothing.
///
/// # Errors
/// What is wrong with it.
pub fn read(file: &[u8]) -> Result<Frames, FileFault> {
    if !file.starts_with(MAGIC) {
        return Err(FileFault::NoFrames);
    }
    let (content, digest) = file.split_at_checked(file.len().saturating_sub(DIGEST_BYTES)).ok_or(FileFault::Damaged)?;
    let mut from = Reader { content, at: MAGIC.len() };
    let (version, count) = (from.number()?, from.number()?);
    if version != VERSION {
        return Err(FileFault::Version(version));
    }
    let fingerprint = u64::from(from.number()?) | u64::from(from.number()?) << 32;
    if fingerprint != LAYOUT_FINGERPRINT {
        return Err(FileFault::Layout(fingerprint));
    }
    let flags = from.number()?;
    if content.len() < FRONT_BYTES || Sha256::digest(content).as_slice() != digest {
        return Err(FileFault::Damaged);
    }
    from.at = FRONT_BYTES;
    let mut samples = Vec::new();
    for number in 1..=count as usize {
        let (request_bytes, response_bytes) = (from.number()?, from.number()?);
        let request = from.archive(request_bytes)?;
        let response = from.archive(response_bytes)?;
        samples.push(sample(number, &request, &response).map_err(|why| FileFault::Exchange(number, why))?);
    }
    if from.at != content.len() {
        return Err(FileFault::Damaged);
    }
    Ok(Frames { samples, secrets_kept: flags & FLAG_SECRETS != 0 })
}

struct Reader<'a> {
    content: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> Result<u32, FileFault> {
        let bytes = self.content.get(self.at..).and_then(<[u8]>::first_chunk).ok_or(FileFault::Damaged)?;
        self.at += bytes.len();
        Ok(u32::from_le_bytes(*bytes))
    }

    /// The bytes of an archive where they are aligned as it needs.
    fn archive(&mut self, bytes: u32) -> Result<AlignedVec, FileFault> {
        let begin = self.at.next_multiple_of(ALIGN);
        let end = begin.checked_add(bytes as usize).ok_or(FileFault::Damaged)?;
        let stored = self.content.get(begin..end).ok_or(FileFault::Damaged)?;
        self.at = end;
        let mut archive = AlignedVec::with_capacity(stored.len());
        archive.extend_from_slice(stored);
        Ok(archive)
    }
}

/// What a dry run is given for two archives; the second may be empty.
fn sample(number: usize, request: &AlignedVec, response: &AlignedVec) -> Result<Sample, &'static str> {
    let view = rkyv::access::<RequestView, Error>(request).map_err(|_| "its request is no valid archive")?;
    let (head, request_body) = request_wire(view, request.len())?;
    let wire = match response.is_empty() {
        true => None,
        false => {
            let answer = rkyv::access::<ResponseView, Error>(response).map_err(|_| "its response is no valid archive")?;
            Some(response_wire(answer, response.len())?)
        }
    };
    let (response, response_body) = wire.map_or((None, Vec::new()), |(head, body)| (Some(head), body));
    Ok(Sample { name: name(number, view), request: head, request_body, response, response_body, peer: view.peer_addr() })
}

/// `#7 GET /path`.
fn name(number: usize, view: &RequestView) -> String {
    let shown = |bytes: &[u8]| bytes.iter().take(NAME_CHARS).map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect::<String>();
    format!("#{number} {} {}", shown(view.method()), shown(view.path()))
}

/// The head of the request as it may have stood on the wire, and the pieces of its body.
fn request_wire(view: &RequestView, archive_bytes: usize) -> Result<(Vec<u8>, Vec<Vec<u8>>), &'static str> {
    if !is_token(view.method()) || view.target().is_empty() || !view.target().iter().all(u8::is_ascii_graphic) {
        return Err("its request has no method or no target");
    }
    let mut head = [view.method(), b" ", view.target(), version(view.http_version())?].concat();
    head.extend_from_slice(b"\r\n");
    fields(&mut head, view.headers(), archive_bytes)?;
    head.extend_from_slice(b"\r\n");
    Ok((head, body(view.body(), view.content_length(), view.flags() & REQ_CHUNKED != 0)))
}

/// The same for a response. One that was made by a plugin or the gateway gets a length: it was sent with one.
fn response_wire(view: &ResponseView, archive_bytes: usize) -> Result<(Vec<u8>, Vec<Vec<u8>>), &'static str> {
    if !(100..600).contains(&view.status()) || !is_field_value(trim(view.reason())) {
        return Err("its response has no status");
    }
    let version = version(view.http_version())?.trim_ascii_start();
    let mut head = [version, format!(" {} ", view.status()).as_bytes(), view.reason(), b"\r\n"].concat();
    fields(&mut head, view.headers(), archive_bytes)?;
    if view.origin() != ORIGIN_UPSTREAM && !matches!(view.status(), 204 | 304) {
        head.extend_from_slice(format!("content-length: {}\r\n", view.content_length()).as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    Ok((head, body(view.body(), view.content_length(), view.flags() & (RES_CHUNKED | RES_CLOSE_DELIMITED) != 0)))
}

fn version(version: u8) -> Result<&'static [u8], &'static str> {
    match version {
        10 => Ok(b" HTTP/1.0"),
        11 => Ok(b" HTTP/1.1"),
        _ => Err("it is not HTTP/1"),
    }
}

/// Appends field lines. In an archive of ours no two fields share bytes, so they cannot be more than it has.
fn fields<'a>(head: &mut Vec<u8>, headers: impl Iterator<Item = &'a HeaderView>, archive_bytes: usize) -> Result<(), &'static str> {
    let mut left = archive_bytes;
    for header in headers {
        let (name, value) = (header.name(), header.value());
        left = left.checked_sub(name.len() + value.len()).ok_or("its header fields overlap")?;
        if !is_token(name) || !is_field_value(value) {
            return Err("it has a header field that cannot stand in a message");
        }
        head.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    Ok(())
}

/// The pieces of a body of which `here` came with the head; what did not is made up, within bounds.
fn body(here: &[u8], length: u64, streamed: bool) -> Vec<Vec<u8>> {
    if streamed {
        return vec![here.to_vec(), Vec::new()];
    }
    let missing = usize::try_from(length).ok().and_then(|length| length.checked_sub(here.len())).unwrap_or(0);
    let fill = vec![BLANK; missing.min(limits::CAPTURE_FILL_BYTES)];
    [here.to_vec(), fill].into_iter().filter(|piece| !piece.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use ringway_abi::Header;
    use ringway_abi::owned::Octets;

    use super::*;

    fn exchange(target: &[u8]) -> Captured {
        let secret = |name: &[u8]| Header::new(name, b"s3cret");
        let mut request =
            Request::new(b"POST", target, vec![Header::new(b"Host", b"a"), secret(b"AUTHORIZATION"), secret(b"cookie"), Header::new(b"content-length", b"5")]);
        (request.body, request.content_length) = (Octets(b"hello".to_vec()), 5);
        let mut response = Response::new(200, vec![secret(b"Set-Cookie"), Header::new(b"content-length", b"20000")]);
        (response.reason, response.body, response.content_length) = (Octets(b"OK".to_vec()), Octets(b"begin".to_vec()), 20_000);
        Captured { request, response: Some(response) }
    }

    fn three() -> Vec<Captured> {
        vec![exchange(b"/one?q"), Captured { response: None, ..exchange(b"/two") }, exchange(b"/three")]
    }

    /// With the digest that belongs to it.
    fn sealed(mut file: Vec<u8>) -> Vec<u8> {
        file.truncate(file.len() - DIGEST_BYTES);
        let digest = Sha256::digest(&file);
        file.extend_from_slice(&digest);
        file
    }

    #[test]
    fn what_is_written_is_read_as_frames_of_a_dry_run() {
        let file = write(&three(), true).expect("archives");
        let Frames { samples, secrets_kept } = read(&file).expect("a file of ours");
        assert!(secrets_kept && samples.len() == 3 && samples[1].response.is_none());
        let first = &samples[0];
        assert_eq!(first.name, "#1 POST /one");
        assert_eq!(
            String::from_utf8_lossy(&first.request),
            "POST /one?q HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: s3cret\r\ncookie: s3cret\r\ncontent-length: 5\r\n\r\n"
        );
        assert_eq!(first.request_body, [b"hello"]);
        assert_eq!(
            String::from_utf8_lossy(first.response.as_deref().unwrap_or_default()),
            "HTTP/1.1 200 OK\r\nSet-Cookie: s3cret\r\ncontent-length: 20000\r\n\r\n"
        );
        // What was not captured of a body is made up, as far as the bound goes.
        assert_eq!(first.response_body.iter().map(Vec::len).collect::<Vec<_>>(), [5, limits::CAPTURE_FILL_BYTES]);
    }

    #[test]
    fn a_redacted_file_holds_no_credential_and_no_body() {
        let mut exchanges = three();
        exchanges.iter_mut().for_each(Captured::redact);
        let file = write(&exchanges, false).expect("archives");
        for secret in [&b"s3cret"[..], b"hello", b"begin"] {
            assert!(!file.windows(secret.len()).any(|bytes| bytes == secret), "{}", String::from_utf8_lossy(secret));
        }
        let frames = read(&file).expect("a file of ours");
        assert!(!frames.secrets_kept && frames.samples[0].request.windows(23).any(|bytes| bytes == b"AUTHORIZATION: xxxxxx\r\n"));
        assert_eq!(frames.samples[0].request_body, [b"xxxxx"]);
    }

    #[test]
    fn a_made_response_gets_its_length_and_a_streamed_body_an_end() {
        let mut made = exchange(b"/");
        if let Some(response) = &mut made.response {
            *response = Response { origin: 1, body: Octets(b"made".to_vec()), content_length: 4, ..Response::new(403, vec![]) };
        }
        made.request.flags |= REQ_CHUNKED;
        (made.request.body, made.request.content_length) = (Octets::default(), u64::MAX);
        let sample = &read(&write(&[made], true).expect("archives")).expect("a file of ours").samples[0];
        assert_eq!(sample.response.as_deref(), Some(&b"HTTP/1.1 403 \r\ncontent-length: 4\r\n\r\n"[..]));
        assert_eq!((sample.request_body.len(), sample.response_body.as_slice()), (2, &[b"made".to_vec()][..]));
    }

    #[test]
    fn what_is_no_file_of_ours_is_told_apart() {
        let file = write(&three(), true).expect("archives");
        let changed = |at: usize, to: u8| {
            let mut file = file.clone();
            file[at] = to;
            file
        };
        for (file, fault) in [
            (Vec::new(), FileFault::NoFrames),
            (b"[server]".to_vec(), FileFault::NoFrames),
            (MAGIC.to_vec(), FileFault::Damaged),
            (changed(8, 2), FileFault::Version(2)),
            (changed(16, 0), FileFault::Layout(LAYOUT_FINGERPRINT & !0xff)),
            (sealed(changed(12, 2)), FileFault::Damaged),
            (sealed(changed(12, 4)), FileFault::Damaged),
        ] {
            assert_eq!(read(&file), Err(fault));
        }
    }

    /// Every byte changed, every length cut: the digest tells.
    #[test]
    fn a_file_that_was_changed_or_cut_off_is_refused() {
        let file = write(&three(), true).expect("archives");
        for at in 0..file.len() {
            assert!(read(&file[..at]).is_err(), "cut off at {at}");
            for bit in [0x01, 0x80] {
                let mut file = file.clone();
                file[at] ^= bit;
                assert!(read(&file).is_err(), "byte {at}");
            }
        }
    }

    /// The same with a digest that fits: nothing panics, nothing is read out of bounds, and what passes is a frame that the parser judges.
    #[test]
    fn a_forged_file_is_refused_or_makes_frames_without_harm() {
        let file = write(&three(), true).expect("archives");
        let mut random = fastrand::Rng::with_seed(0x5eed);
        let (mut refused, mut passed) = (0, 0);
        let mut judge = |file: Vec<u8>| match read(&sealed(file)) {
            Ok(_) => passed += 1,
            Err(_) => refused += 1,
        };
        for at in FRONT_BYTES..file.len() - DIGEST_BYTES {
            for value in [0, 1, 0x7f, 0x80, 0xff, file[at] ^ 0x10] {
                let mut file = file.clone();
                file[at] = value;
                judge(file);
            }
        }
        for _ in 0..20_000 {
            let mut file = file.clone();
            for _ in 0..random.usize(1..9) {
                let at = random.usize(12..file.len());
                file[at] = random.u8(..);
            }
            if random.u8(..) < 32 {
                file.truncate(random.usize(DIGEST_BYTES..file.len()));
            }
            judge(file);
        }
        assert!(refused > 1000 && passed > 1000, "{refused} refused, {passed} passed");
    }

    #[test]
    fn header_fields_that_share_bytes_are_refused() {
        let fields = (0..4).map(|number| Header::new(format!("x-{number}").as_bytes(), &[b'a'; 1000][..if number == 0 { 1000 } else { 1 }])).collect();
        let mut archive = rkyv::to_bytes::<Error>(&Request::new(b"GET", b"/", fields)).expect("an archive");
        assert!(sample(1, &archive, &AlignedVec::new()).is_ok());
        let shared = archive.windows(1000).position(|bytes| bytes == [b'a'; 1000]).expect("the long value");
        // The field `headers`, the last 8 bytes, leads to the entries.
        let field = archive.len() - 8;
        let distance = i32::from_le_bytes(*archive[field..].first_chunk().expect("an offset"));
        let entries = field.wrapping_add_signed(distance as isize);
        for index in 0..4 {
            let value = entries + index * size_of::<HeaderView>() + 8;
            archive[value..value + 4].copy_from_slice(&(shared as i32 - value as i32).to_le_bytes());
            archive[value + 4..value + 8].copy_from_slice(&1000u32.to_le_bytes());
        }
        assert_eq!(sample(1, &archive, &AlignedVec::new()).map(|_| ()), Err("its header fields overlap"));
    }
}
