//! A copy of a message that outlives its slot: the pieces of the slot in which the message stands, and how to make an archive of them again.
//!
//! Owns: the form of a record, which stays in this process. Must not: allocate while it copies; know why somebody copies.
//!
//! A record is `u32` bytes of the archive, three times `{u32 at, u32 bytes}`, then the bytes of the pieces, one after the other.
#![forbid(unsafe_code)]

use std::ops::Range;

use rkyv::util::AlignedVec;

use super::message::Message;

/// Pieces of a record.
const PIECES: usize = 3;
/// Bytes before those of the pieces.
const FRONT_BYTES: usize = 4 + PIECES * 8;

/// Appends a record of the message as it was before any edit. False, and nothing is appended, when the capacity of `to` does not suffice.
pub fn copy(message: &mut Message, to: &mut Vec<u8>) -> bool {
    let pieces = message.original_pieces();
    let archive_bytes = pieces[PIECES - 1].end;
    if to.capacity() - to.len() < FRONT_BYTES + pieces.iter().map(Range::len).sum::<usize>() {
        return false;
    }
    to.extend_from_slice(&(archive_bytes as u32).to_le_bytes());
    for piece in &pieces {
        to.extend_from_slice(&(piece.start as u32).to_le_bytes());
        to.extend_from_slice(&(piece.len() as u32).to_le_bytes());
    }
    for piece in pieces {
        to.extend_from_slice(message.slot().bytes(piece));
    }
    true
}

/// Takes a record from the beginning of `from`: the bytes of its archive, which is still to be checked. `None` when there is none.
pub fn read(from: &mut &[u8]) -> Option<AlignedVec> {
    let archive_bytes = number(from)?;
    let mut pieces = [(0, 0); PIECES];
    for piece in &mut pieces {
        *piece = (number(from)?, number(from)?);
    }
    let mut archive = AlignedVec::with_capacity(archive_bytes);
    archive.resize(archive_bytes, 0);
    for (at, bytes) in pieces {
        archive.get_mut(at..at.checked_add(bytes)?)?.copy_from_slice(from.split_off(..bytes)?);
    }
    Some(archive)
}

fn number(from: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(*from.split_off(..4)?.first_chunk()?) as usize)
}
