//! Bodies as they stream: how much is left, where the data is, how it is framed again.
//!
//! Pure: bytes in, ranges out. [`BodyReader`] follows the framing of the side that sends, [`Framing`] writes the framing
//! of the side that receives.

use crate::http1::chunked::{ChunkFault, ChunkLimits, ChunkStep, ChunkedDecoder, write_chunk_header};

/// Room that a relay buffer keeps before the data for a chunk header.
pub const PREFIX_BYTES: usize = 18;
/// Room that it keeps behind the data for the end of a chunk and the last chunk.
pub const SUFFIX_BYTES: usize = 8;

/// The body of a message on its way in.
#[derive(Debug)]
pub enum BodyReader {
    /// This many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(ChunkedDecoder),
    /// Everything until the connection ends.
    UntilClose,
    /// The end was seen.
    Done,
}

/// What a piece of received bytes held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the piece that belong to this body, framing included. What follows is the next message.
    pub consumed: usize,
    /// Bytes of data; they stand at the beginning of the piece.
    pub data: usize,
}

impl BodyReader {
    /// No body.
    pub fn none() -> Self {
        BodyReader::Done
    }

    /// A body of so many bytes.
    pub fn length(bytes: u64) -> Self {
        if bytes == 0 { BodyReader::Done } else { BodyReader::Length(bytes) }
    }

    /// A chunked body.
    pub fn chunked(limits: ChunkLimits) -> Self {
        BodyReader::Chunked(ChunkedDecoder::new(limits))
    }

    /// Whether the end was seen.
    #[inline]
    pub fn is_done(&self) -> bool {
        matches!(self, BodyReader::Done)
    }

    /// How many bytes may be read at once without taking bytes of the next message, when that is known.
    #[inline]
    pub fn remaining(&self) -> Option<u64> {
        match self {
            BodyReader::Length(left) => Some(*left),
            BodyReader::Done => Some(0),
            BodyReader::Chunked(_) | BodyReader::UntilClose => None,
        }
    }

    /// Takes received bytes and moves their data to the front.
    ///
    /// # Errors
    /// When the chunked framing is wrong.
    pub fn feed(&mut self, bytes: &mut [u8]) -> Result<Fed, ChunkFault> {
        match self {
            BodyReader::Done => Ok(Fed { consumed: 0, data: 0 }),
            BodyReader::UntilClose => Ok(Fed { consumed: bytes.len(), data: bytes.len() }),
            BodyReader::Length(left) => {
                let data = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= data as u64;
                if *left == 0 {
                    *self = BodyReader::Done;
                }
                Ok(Fed { consumed: data, data })
            }
            BodyReader::Chunked(decoder) => {
                let (mut at, mut data) = (0, 0);
                loop {
                    match decoder.step(bytes, &mut at)? {
                        ChunkStep::Data { at: range } => {
                            let count = range.len();
                            bytes.copy_within(range, data);
                            data += count;
                        }
                        ChunkStep::NeedMore => return Ok(Fed { consumed: at, data }),
                        ChunkStep::Done => {
                            *self = BodyReader::Done;
                            return Ok(Fed { consumed: at, data });
                        }
                    }
                }
            }
        }
    }

    /// The connection ended. Whether that was the end of the body.
    pub fn end_of_stream(&mut self) -> bool {
        if matches!(self, BodyReader::UntilClose) {
            *self = BodyReader::Done;
        }
        self.is_done()
    }
}

/// How data is framed for the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As it is: Content-Length, or until the connection closes.
    Plain,
    /// One chunk a piece.
    Chunked,
}

impl Framing {
    /// Frames `data` bytes that stand at [`PREFIX_BYTES`] of the buffer; `last` adds the end of the body. Returns the
    /// range to send, which may be empty.
    ///
    /// # Panics
    /// When the buffer has no room for prefix, data and suffix.
    pub fn wrap(self, buffer: &mut [u8], data: usize, last: bool) -> std::ops::Range<usize> {
        let mut end = PREFIX_BYTES + data;
        if self == Framing::Plain {
            return PREFIX_BYTES..end;
        }
        let mut start = PREFIX_BYTES;
        if data > 0 {
            let mut header = [0; 18];
            let count = write_chunk_header(&mut header, data as u64);
            start -= count;
            buffer[start..PREFIX_BYTES].copy_from_slice(&header[..count]);
            buffer[end..end + 2].copy_from_slice(b"\r\n");
            end += 2;
        }
        if last {
            buffer[end..end + 5].copy_from_slice(b"0\r\n\r\n");
            end += 5;
        }
        start..end
    }
}
