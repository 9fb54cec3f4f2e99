//! The ELF note of a plugin: found, taken apart, and compared with what the gateway offers.
#![forbid(unsafe_code)]

use ringway_abi::raw;

use super::{Offer, Refusal, double, half, names, word};
use crate::plugin::elf::Elf;

/// The content of the note behind its 20 bytes of header.
pub(super) struct Note {
    pub abi_major: u16,
    pub abi_minor: u16,
    pub abi_min_minor: u16,
    pub language: u16,
    pub fingerprint: u64,
    pub wants: u64,
    pub hooks: u32,
    pub scratch_bytes: u32,
    pub name: String,
    pub version: String,
}

/// Bytes of the content of a 1.0 note.
const NOTE_BYTES: usize = size_of::<raw::Note>() - 20;

impl Note {
    /// The one note of the file.
    pub fn find(elf: &Elf<'_>) -> Result<Note, Refusal> {
        let notes = elf.notes(&raw::NOTE_OWNER[..raw::NOTE_OWNER.len() - 1], raw::NOTE_TYPE);
        let content = match notes.as_slice() {
            [] => return Err(Refusal::NoNote),
            [content] => *content,
            several => return Err(Refusal::BadNote(format!("there are {} of them", several.len()))),
        };
        // Another major version may have another note; its first word says so in every version.
        match content {
            [low, high, ..] if u16::from_le_bytes([*low, *high]) != raw::ABI_MAJOR => {
                return Err(Refusal::AbiMajor { plugin: u16::from_le_bytes([*low, *high]) });
            }
            content if content.len() < NOTE_BYTES => {
                return Err(Refusal::BadNote(format!("it has {} bytes where {NOTE_BYTES} are needed", content.len())));
            }
            _ => {}
        }
        Ok(Note {
            abi_major: half(content, 0),
            abi_minor: half(content, 2),
            abi_min_minor: half(content, 4),
            language: half(content, 6),
            fingerprint: double(content, 8),
            wants: double(content, 16),
            hooks: word(content, 24),
            scratch_bytes: word(content, 28),
            name: padded(&content[32..96], "name")?,
            version: padded(&content[96..128], "version")?,
        })
    }

    /// Whether the gateway can run what the note describes.
    pub fn check(&self, offer: &Offer) -> Result<(), Refusal> {
        if !self.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            return Err(Refusal::BadNote(format!("`{}` is no name: [a-z0-9-]+ is", self.name.escape_debug())));
        }
        if self.scratch_bytes > raw::SCRATCH_BYTES_MAX {
            return Err(Refusal::BadNote(format!("it asks for {} bytes of scratch memory; at most {} are given", self.scratch_bytes, raw::SCRATCH_BYTES_MAX)));
        }
        if self.abi_min_minor > offer.abi_minor {
            return Err(Refusal::NewerMinor { needs: self.abi_min_minor, gateway: offer.abi_minor });
        }
        if self.fingerprint != raw::LAYOUT_FINGERPRINT {
            return Err(Refusal::Fingerprint { plugin: self.fingerprint });
        }
        let mut lacking = names(self.wants & !offer.wants, raw::WANTS.iter().copied());
        lacking.extend(names(u64::from(self.hooks & !offer.hooks), raw::HOOKS.iter().map(|(bit, name)| (u64::from(*bit), *name))));
        if lacking.is_empty() { Ok(()) } else { Err(Refusal::Lacks(lacking)) }
    }
}

/// A text field of the note: up to its first NUL, with nothing but NULs behind.
fn padded(field: &[u8], what: &str) -> Result<String, Refusal> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = std::str::from_utf8(&field[..end]).ok().filter(|text| !text.is_empty() && !text.contains(char::is_control));
    match text {
        Some(text) if end < field.len() && field[end..].iter().all(|byte| *byte == 0) => Ok(text.to_owned()),
        _ => Err(Refusal::BadNote(format!("its {what} is not a text padded with NUL"))),
    }
}

const _: () = assert!(NOTE_BYTES == 128);
