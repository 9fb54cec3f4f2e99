//! A chunked body gets one answer in whatever pieces it arrives, and what was decoded can be encoded and decoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::http1::chunked::{CHUNK_END, ChunkFault, ChunkLimits, ChunkStep, ChunkedDecoder, LAST_CHUNK, write_chunk_header};

/// The data, and whether the body is complete.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, bool), ChunkFault> {
    let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
    let mut data = Vec::new();
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.step(piece, &mut at)? {
                ChunkStep::Data { at: range } => data.extend_from_slice(&piece[range]),
                ChunkStep::NeedMore => break,
                ChunkStep::Done => return Ok((data, true)),
            }
        }
    }
    Ok((data, false))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, body) = (usize::from(input.0) + 1, input.1);
    let whole = decode([body].into_iter());
    assert_eq!(decode(body.chunks(step)), whole);
    let Ok((data, true)) = whole else { return };

    let mut again = Vec::new();
    for chunk in data.chunks(step) {
        let mut header = [0; 18];
        let len = write_chunk_header(&mut header, chunk.len() as u64);
        again.extend_from_slice(&[&header[..len], chunk, CHUNK_END].concat());
    }
    again.extend_from_slice(LAST_CHUNK);
    assert_eq!(decode([&again[..]].into_iter()), Ok((data, true)));
});
