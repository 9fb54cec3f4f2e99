//! What a plugin file says about itself, and every reason to refuse it, before any of its code runs.
//!
//! Owns the order of the checks: the file, the note, the descriptor, its functions, what loading it would do to the
//! process, its libraries. Constructors run inside `dlopen`, so whoever opens a plugin calls [`inspect`] first and opens
//! the bytes that were inspected. Must not load or run anything.
//!
//! Read first: `ringway.h` §5 to §7, SPEC.md S-40 to S-47 and S-86.
#![forbid(unsafe_code)]

mod descriptor;
mod libraries;
mod note;
mod refusal;
#[cfg(test)]
mod tests;

use std::path::Path;

use ringway_abi::raw;
use sha2::{Digest as _, Sha256};

use self::descriptor::Descriptor;
use self::note::Note;
use super::elf::Elf;
use super::maps::MapShape;
pub use refusal::{CHECKS, Refusal, Refused};

/// What this gateway can do for a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// `RW_WANT_*` bits.
    pub wants: u64,
    /// `RW_HOOK_*` bits.
    pub hooks: u32,
    /// The newest minor version of the ABI that is spoken.
    pub abi_minor: u16,
}

impl Offer {
    /// ABI 1.0: every hook, every capability.
    pub const V1_0: Offer = Offer {
        wants: raw::WANT_EDIT_REQUEST
            | raw::WANT_EDIT_RESPONSE
            | raw::WANT_EDIT_REQUEST_BODY
            | raw::WANT_EDIT_RESPONSE_BODY
            | raw::WANT_REQUEST_BODY
            | raw::WANT_RESPOND
            | raw::WANT_UPSTREAM
            | raw::WANT_TIME
            | raw::WANT_SUSPEND
            | raw::WANT_MAPS
            | ringway_abi::outcall::WANT_OUTCALL,
        hooks: raw::HOOK_ACCEPT
            | raw::HOOK_REQUEST
            | raw::HOOK_REQUEST_CHUNK
            | raw::HOOK_REQUEST_BODY
            | raw::HOOK_RESPONSE
            | raw::HOOK_RESPONSE_CHUNK
            | raw::HOOK_EVENT
            | raw::HOOK_DONE
            | raw::HOOK_TICK,
        abi_minor: 0,
    };
}

/// What a plugin file says about itself, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginFacts {
    /// The plugin's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `RW_LANG_*`.
    pub language: u16,
    /// The ABI it was compiled with.
    pub abi_major: u16,
    /// The minor version it was compiled with.
    pub abi_minor: u16,
    /// The oldest minor version it can run with.
    pub abi_min_minor: u16,
    /// The layout it was compiled with.
    pub fingerprint: u64,
    /// `RW_WANT_*` bits.
    pub wants: u64,
    /// `RW_HOOK_*` bits.
    pub hooks: u32,
    /// Bytes of scratch memory per exchange.
    pub scratch_bytes: u32,
    /// Names of its metrics.
    pub metrics: Vec<String>,
    /// Its maps.
    pub maps: Vec<MapShape>,
    /// The GNU build id in hex.
    pub build_id: Option<String>,
    /// The libraries it needs.
    pub needed: Vec<String>,
    /// Of these, and of what they need, those that were not found: whether they have its symbols is not known.
    pub unchecked: Vec<String>,
    /// `dlclose` leaves it mapped, as it asks: its code is never unmapped before the process ends.
    pub stays_loaded: bool,
    /// SHA-256 of the file in hex.
    pub file_hash: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The processor it was made for.
    pub machine: &'static str,
}

impl PluginFacts {
    /// The name of its language.
    pub fn language_name(&self) -> &'static str {
        raw::LANGUAGES.get(usize::from(self.language)).copied().unwrap_or("unknown")
    }

    /// Of a plugin whose file cannot be read: it has no hooks and wants nothing.
    pub fn unread(name: &str) -> PluginFacts {
        PluginFacts { name: name.to_owned(), ..PluginFacts::default() }
    }

    /// What was seen in a check of [`CHECKS`] that it passed, in a few words.
    pub fn detail(&self, check: &str) -> String {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        match check {
            "file" => format!("a shared object of {} bytes", self.file_bytes),
            "machine" => self.machine.to_owned(),
            "note" => format!("{} {}, {}", self.name, self.version, self.language_name()),
            "abi" => format!("{}.{}, runs with {}.{} and newer", self.abi_major, self.abi_minor, self.abi_major, self.abi_min_minor),
            "layout" => format!("{:#018x}", self.fingerprint),
            "capabilities" => format!("hooks {}; wants {}", list(&self.hook_names()), list(&self.want_names())),
            "descriptor" => "says the same as the note".to_owned(),
            "functions" => "one for each declared hook, and no other".to_owned(),
            "memory" => "no executable stack, no text relocations, no writable code".to_owned(),
            _ if self.unchecked.is_empty() => list(&self.needed),
            _ => format!("{}; not found here, so not checked: {}", list(&self.needed), self.unchecked.join(", ")),
        }
    }

    /// The names of its hooks.
    pub fn hook_names(&self) -> Vec<String> {
        names(self.hooks.into(), raw::HOOKS.iter().map(|(bit, name)| (u64::from(*bit), *name)))
    }

    /// The names of its wants.
    pub fn want_names(&self) -> Vec<String> {
        names(self.wants, raw::WANTS.iter().copied())
    }
}

/// Inspects the file at `path`.
pub fn inspect(path: &Path, offer: &Offer) -> Result<PluginFacts, Refused> {
    let file = super::file::read(path).map_err(|error| Refusal::Unreadable(error.to_string()));
    file.and_then(|file| inspect_bytes(&file, offer)).map_err(|refusal| Refused { path: path.to_owned(), refusal })
}

/// Inspects the bytes of a plugin file. Reads the libraries that it needs from their usual folders, and nothing else.
pub fn inspect_bytes(file: &[u8], offer: &Offer) -> Result<PluginFacts, Refusal> {
    let elf = Elf::parse(file).map_err(Refusal::NotPlugin)?;
    let machine = check_machine(elf.machine())?;
    let note = Note::find(&elf)?;
    note.check(offer)?;
    let descriptor = Descriptor::find(&elf)?;
    let metrics = descriptor.check(&note)?;
    let maps = descriptor.maps(note.wants)?;
    descriptor.check_functions()?;
    check_memory(&elf)?;
    let (missing, unchecked) = libraries::missing(&elf);
    if !missing.is_empty() {
        return Err(Refusal::MissingSymbols(missing));
    }
    Ok(PluginFacts {
        name: note.name,
        version: note.version,
        language: note.language,
        abi_major: note.abi_major,
        abi_minor: note.abi_minor,
        abi_min_minor: note.abi_min_minor,
        fingerprint: note.fingerprint,
        wants: note.wants,
        hooks: note.hooks,
        scratch_bytes: note.scratch_bytes,
        metrics,
        maps,
        build_id: elf.notes(b"GNU", 3).first().map(|id| hex(id)),
        needed: elf.needed(),
        stays_loaded: elf.stays_loaded(),
        unchecked,
        file_hash: hex(&Sha256::digest(file)),
        file_bytes: file.len() as u64,
        machine,
    })
}

/// Processors whose plugins are understood: `e_machine` and name.
const MACHINES: [(u16, &str); 2] = [(object::elf::EM_X86_64.0, "x86_64"), (object::elf::EM_AARCH64.0, "aarch64")];

fn check_machine(found: u16) -> Result<&'static str, Refusal> {
    let known = MACHINES.iter().find(|(machine, name)| *machine == found && *name == std::env::consts::ARCH);
    known.map(|(_, name)| *name).ok_or_else(|| {
        let name = MACHINES.iter().find(|(machine, _)| *machine == found).map(|(_, name)| *name);
        Refusal::WrongMachine(name.map_or_else(|| format!("machine {found}"), str::to_owned))
    })
}

/// What loading would do to the memory of the whole process.
fn check_memory(elf: &Elf<'_>) -> Result<(), Refusal> {
    if elf.has_executable_stack() {
        return Err(Refusal::ExecutableStack);
    }
    if elf.has_text_relocations() {
        return Err(Refusal::TextRelocations);
    }
    if elf.has_writable_code() { Err(Refusal::WritableCode) } else { Ok(()) }
}

/// The names of the bits that are set; those without a name by their number.
fn names<'n>(bits: u64, known: impl Iterator<Item = (u64, &'n str)> + Clone) -> Vec<String> {
    let set = (0..64).map(|shift| 1u64 << shift).filter(|bit| bits & bit != 0);
    set.map(|bit| known.clone().find(|(other, _)| *other == bit).map_or_else(|| format!("bit {bit:#x}"), |(_, name)| name.to_owned())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Little-endian integers at `at`; the callers' slices have a fixed length that was checked.
fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn double(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}
