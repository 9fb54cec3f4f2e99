//! One plain request over a blocking socket, and every byte of the answer: what a peer does, before it is measured.
#![forbid(unsafe_code)]

use crate::http1::{BodyLength, ChunkedDecoder, parse_response};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// A whole answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; empty for a chunked one, whose length alone is looked at.
    pub body: Vec<u8>,
    /// The length of the decoded body.
    pub body_bytes: u64,
}

/// Sends `request` on a new connection and reads one answer.
pub fn ask(address: SocketAddr, request: &[u8]) -> Result<Answer> {
    let limit = Duration::from_secs(5);
    let mut stream = crate::net::connect(address, limit).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(limit)).context("setting a time limit")?;
    stream.write_all(request).context("sending the request")?;
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        if let Some(answer) = whole_answer(&bytes)? {
            return Ok(answer);
        }
        match stream.read(&mut piece).context("reading the answer")? {
            0 => bail!("the connection ended after {} bytes, before the answer did", bytes.len()),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

fn whole_answer(bytes: &[u8]) -> Result<Option<Answer>> {
    let head = match parse_response(bytes, false) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(None),
        Err(fault) => bail!("{fault}"),
    };
    let rest = &bytes[head.bytes..];
    Ok(match head.body {
        BodyLength::Exact(length) if rest.len() as u64 >= length => {
            Some(Answer { status: head.status, body: rest[..length as usize].to_vec(), body_bytes: length })
        }
        BodyLength::Chunked => {
            let mut decoder = ChunkedDecoder::default();
            decoder.feed(rest).map_err(|fault| anyhow::anyhow!("{fault}"))?;
            let body_bytes = decoder.payload_bytes();
            decoder.is_done().then(|| Answer { status: head.status, body: Vec::new(), body_bytes })
        }
        _ => None,
    })
}

/// Checks that the answer is the origin's pattern of `body_bytes` bytes, byte by byte.
pub fn check_pattern(address: SocketAddr, request: &[u8], body_bytes: u64) -> Result<()> {
    let answer = ask(address, request)?;
    if answer.status != 200 || answer.body_bytes != body_bytes {
        bail!("it answered {} with {} bytes, expected 200 with {body_bytes}", answer.status, answer.body_bytes);
    }
    let expected = crate::origin::pattern(body_bytes);
    if !answer.body.is_empty() && answer.body != expected {
        let at = answer.body.iter().zip(&expected).position(|(got, want)| got != want).unwrap_or(0);
        bail!("the body differs from the origin's at byte {at}");
    }
    Ok(())
}

/// The request head as the origin sees it through a proxy.
pub fn forwarded_head(address: SocketAddr, request: &[u8]) -> Result<String> {
    let answer = ask(address, request)?;
    if answer.status != 200 {
        bail!("/echo was answered with {}", answer.status);
    }
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}
