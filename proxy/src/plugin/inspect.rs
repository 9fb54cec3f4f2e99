//! What a plugin file says about itself, and every reason to refuse it, before any of its code runs.
//!
//! Owns the order of the checks: the file, the note, the descriptor, its functions, what loading it would do to the
//! process, its libraries. Constructors run inside `dlopen`, so whoever opens a plugin calls [`inspect`] first and opens
//! the bytes that were inspected. Must not load or run anything.
//!
//! Read first: `ringway.h` §5 and §6, SPEC.md S-40 to S-47.
#![forbid(unsafe_code)]

mod libraries;
mod refusal;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;

use ringway_abi::raw;
use sha2::{Digest as _, Sha256};

use super::elf::{Elf, Pointer, Relocations};
pub use refusal::{Refusal, Refused};

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
    /// ABI 1.0: every hook but `on_event`, every capability but suspending and maps.
    pub const V1_0: Offer = Offer {
        wants: raw::WANT_EDIT_REQUEST
            | raw::WANT_EDIT_RESPONSE
            | raw::WANT_EDIT_REQUEST_BODY
            | raw::WANT_EDIT_RESPONSE_BODY
            | raw::WANT_REQUEST_BODY
            | raw::WANT_RESPOND
            | raw::WANT_UPSTREAM
            | raw::WANT_TIME,
        hooks: raw::HOOK_ACCEPT
            | raw::HOOK_REQUEST
            | raw::HOOK_REQUEST_CHUNK
            | raw::HOOK_REQUEST_BODY
            | raw::HOOK_RESPONSE
            | raw::HOOK_RESPONSE_CHUNK
            | raw::HOOK_DONE
            | raw::HOOK_TICK,
        abi_minor: 0,
    };
}

/// What a plugin file says about itself, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The GNU build id in hex.
    pub build_id: Option<String>,
    /// The libraries it needs.
    pub needed: Vec<String>,
    /// Of these, and of what they need, those that were not found: whether they have its symbols is not known.
    pub unchecked: Vec<String>,
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
    let file = std::fs::read(path).map_err(|error| Refusal::Unreadable(error.to_string()));
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
        build_id: elf.notes(b"GNU", 3).first().map(|id| hex(id)),
        needed: elf.needed(),
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

/// The content of the note behind its 20 bytes of header.
struct Note {
    abi_major: u16,
    abi_minor: u16,
    abi_min_minor: u16,
    language: u16,
    fingerprint: u64,
    wants: u64,
    hooks: u32,
    scratch_bytes: u32,
    name: String,
    version: String,
}

/// Bytes of the content of a 1.0 note.
const NOTE_BYTES: usize = size_of::<raw::Note>() - 20;

impl Note {
    fn find(elf: &Elf<'_>) -> Result<Note, Refusal> {
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

    fn check(&self, offer: &Offer) -> Result<(), Refusal> {
        if !self.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            return Err(Refusal::BadNote(format!("`{}` is no name: [a-z0-9-]+ is", self.name.escape_debug())));
        }
        if self.scratch_bytes > raw::SCRATCH_BYTES_MAX {
            return Err(Refusal::BadNote(format!(
                "it asks for {} bytes of scratch memory; at most {} are given",
                self.scratch_bytes,
                raw::SCRATCH_BYTES_MAX
            )));
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

/// The exported constant, as it stands in the file.
struct Descriptor<'a> {
    elf: &'a Elf<'a>,
    address: u64,
    bytes: &'a [u8],
    relocations: Relocations,
}

/// Bytes of the descriptor of ABI 1.0.
const DESCRIPTOR_BYTES: usize = size_of::<raw::Plugin>();

impl<'a> Descriptor<'a> {
    fn find(elf: &'a Elf<'a>) -> Result<Descriptor<'a>, Refusal> {
        let symbol = raw::SYMBOL.strip_suffix(b"\0").unwrap_or(raw::SYMBOL);
        let (address, size) = elf.data_symbol(symbol).ok_or(Refusal::NoSymbol)?;
        if size != 0 && size < DESCRIPTOR_BYTES as u64 {
            return Err(Refusal::BadDescriptor(format!("its size is {size} bytes; that of ABI 1.0 is {DESCRIPTOR_BYTES}")));
        }
        let end = address.checked_add(DESCRIPTOR_BYTES as u64);
        let bytes = elf.bytes_at(address, DESCRIPTOR_BYTES as u64);
        let (Some(end), Some(bytes)) = (end, bytes) else {
            return Err(Refusal::BadDescriptor("it is not in the file".into()));
        };
        let relocations = elf.relocations(address, end).map_err(Refusal::NotPlugin)?;
        // What stands in the file must be what will stand in memory, except for pointers.
        let is_pointer = |at: u64| at.checked_sub(address).is_some_and(|at| at % 8 == 0 && at >= POINTERS_FROM && !COUNTS.contains(&at));
        if let Some(at) = relocations.keys().find(|at| !is_pointer(**at)) {
            return Err(Refusal::BadDescriptor(format!("the linker would change its bytes at {at:#x}")));
        }
        Ok(Descriptor { elf, address, bytes, relocations })
    }

    /// Compares with the note and reads the metrics' names.
    fn check(&self, note: &Note) -> Result<Vec<String>, Refusal> {
        let size = word(self.bytes, 0) as usize;
        if size < DESCRIPTOR_BYTES {
            return Err(Refusal::BadDescriptor(format!("its size is {size} bytes; that of ABI 1.0 is {DESCRIPTOR_BYTES}")));
        }
        self.same("abi_major", note.abi_major.into(), half(self.bytes, 4).into())?;
        self.same("abi_minor", note.abi_minor.into(), half(self.bytes, 6).into())?;
        self.same("abi_min_minor", note.abi_min_minor.into(), half(self.bytes, 8).into())?;
        self.same("language", note.language.into(), half(self.bytes, 10).into())?;
        self.same("scratch_bytes", note.scratch_bytes.into(), word(self.bytes, 12).into())?;
        self.same("layout_fingerprint", note.fingerprint, double(self.bytes, 16))?;
        self.same("wants", note.wants, double(self.bytes, 24))?;
        self.same("hooks", note.hooks.into(), word(self.bytes, 32).into())?;
        self.same_text("name", &note.name, std::mem::offset_of!(raw::Plugin, name))?;
        self.same_text("version", &note.version, std::mem::offset_of!(raw::Plugin, version))?;
        let maps = word(self.bytes, std::mem::offset_of!(raw::Plugin, map_count));
        if maps != 0 {
            return Err(Refusal::BadDescriptor(format!("it defines {maps} maps, which ABI 1.0 does not offer")));
        }
        self.metrics()
    }

    fn same(&self, field: &'static str, note: u64, descriptor: u64) -> Result<(), Refusal> {
        if note == descriptor {
            Ok(())
        } else {
            Err(Refusal::Disagrees { field, note: format!("{note:#x}"), descriptor: format!("{descriptor:#x}") })
        }
    }

    fn same_text(&self, field: &'static str, note: &str, at: usize) -> Result<(), Refusal> {
        let text = match self.elf.pointer(self.address + at as u64, &self.relocations) {
            Pointer::Address(address) => self.elf.text_at(address, 63),
            _ => None,
        };
        let text = text.ok_or_else(|| Refusal::BadDescriptor(format!("it has no {field}")))?;
        if text == note.as_bytes() {
            return Ok(());
        }
        Err(Refusal::Disagrees { field, note: format!("`{note}`"), descriptor: format!("`{}`", String::from_utf8_lossy(text)) })
    }

    fn metrics(&self) -> Result<Vec<String>, Refusal> {
        let count = word(self.bytes, std::mem::offset_of!(raw::Plugin, metric_count));
        let bad = |what: String| Refusal::BadDescriptor(what);
        if count == 0 {
            return Ok(Vec::new());
        }
        if count > raw::METRICS_MAX {
            return Err(bad(format!("it defines {count} metrics; at most {} are possible", raw::METRICS_MAX)));
        }
        let Pointer::Address(array) = self.elf.pointer(self.address + std::mem::offset_of!(raw::Plugin, metrics) as u64, &self.relocations) else {
            return Err(bad(format!("it defines {count} metrics, but the pointer to them is null")));
        };
        // Definitions may grow: a plugin of a later minor version says how far apart its own are.
        let entry_bytes = u64::from(word(self.bytes, std::mem::offset_of!(raw::Plugin, metric_bytes)));
        if entry_bytes < size_of::<raw::MetricDef>() as u64 || entry_bytes % 8 != 0 {
            return Err(bad(format!("its metrics have {entry_bytes} bytes each; those of ABI 1.0 have {}", size_of::<raw::MetricDef>())));
        }
        let length = entry_bytes * u64::from(count);
        let bytes = self.elf.bytes_at(array, length).ok_or_else(|| bad("its metrics are not in the file".into()))?;
        let relocations = self.elf.relocations(array, array.saturating_add(length)).map_err(Refusal::NotPlugin)?;
        let mut metrics: Vec<String> = Vec::new();
        for (index, entry) in bytes.chunks_exact(entry_bytes as usize).enumerate() {
            let text = |field: u64, longest| match self.elf.pointer(array + entry_bytes * index as u64 + field, &relocations) {
                Pointer::Address(address) => self.elf.text_at(address, longest),
                _ => None,
            };
            let is_name =
                |name: &&[u8]| !name.is_empty() && name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_');
            let name = text(0, 63).filter(is_name).map(|name| String::from_utf8_lossy(name).into_owned());
            let name = name.ok_or_else(|| bad(format!("metric {index} has no name of the form [a-z0-9_]+")))?;
            if text(8, 1023).is_none() {
                return Err(bad(format!("the metric `{name}` has no help text")));
            }
            let kind = word(entry, 16);
            if kind != raw::METRIC_COUNTER && kind != raw::METRIC_GAUGE {
                return Err(bad(format!("the metric `{name}` is of kind {kind}, which does not exist")));
            }
            if metrics.contains(&name) {
                return Err(bad(format!("the metric `{name}` is defined twice")));
            }
            metrics.push(name);
        }
        Ok(metrics)
    }

    /// Hook bits against hook functions, and every function pointer against the code of the file.
    fn check_functions(&self) -> Result<(), Refusal> {
        let hooks = word(self.bytes, 32);
        for (index, field) in FUNCTIONS.iter().enumerate() {
            let at = self.address + (std::mem::offset_of!(raw::Plugin, load) + 8 * index) as u64;
            let present = match self.elf.pointer(at, &self.relocations) {
                Pointer::Null => false,
                Pointer::External(_) => true,
                Pointer::Address(address) if self.elf.is_code(address) => true,
                Pointer::Address(_) | Pointer::Bogus => return Err(Refusal::BadDescriptor(format!("`{field}` does not point to code"))),
            };
            let declared = raw::HOOKS.iter().find(|(_, name)| name == field).map(|(bit, _)| hooks & bit != 0);
            match declared {
                Some(true) if !present => return Err(Refusal::HookWithoutFunction(field)),
                Some(false) if present => return Err(Refusal::FunctionWithoutHook(field)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Behind this offset the descriptor holds pointers,
const POINTERS_FROM: u64 = std::mem::offset_of!(raw::Plugin, name) as u64;
/// and in between, here, the counts and sizes of metrics and maps.
const COUNTS: Range<u64> = std::mem::offset_of!(raw::Plugin, metric_count) as u64..std::mem::offset_of!(raw::Plugin, load) as u64;
/// The functions of the descriptor, in its order from `load` on.
const FUNCTIONS: [&str; 14] = [
    "load",
    "unload",
    "core_init",
    "core_fini",
    "on_accept",
    "on_request",
    "on_request_chunk",
    "on_request_body",
    "on_response",
    "on_response_chunk",
    "on_event",
    "on_done",
    "on_tick",
    "get_ext",
];

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(raw::Plugin, layout_fingerprint) == 16 && offset_of!(raw::Plugin, wants) == 24 && offset_of!(raw::Plugin, hooks) == 32);
    assert!(offset_of!(raw::Plugin, load) + 8 * (FUNCTIONS.len() - 1) == offset_of!(raw::Plugin, get_ext));
    assert!(offset_of!(raw::Plugin, on_accept) == offset_of!(raw::Plugin, load) + 8 * 4);
    assert!(COUNTS.start.is_multiple_of(8) && COUNTS.end - COUNTS.start == 16 && offset_of!(raw::Plugin, map_bytes) as u64 == COUNTS.start + 12);
    assert!(DESCRIPTOR_BYTES == offset_of!(raw::Plugin, get_ext) + 8);
    assert!(size_of::<raw::MetricDef>() == 24 && offset_of!(raw::MetricDef, kind) == 16);
    assert!(NOTE_BYTES == 128);
};

/// A text field of the note: up to its first NUL, with nothing but NULs behind.
fn padded(field: &[u8], what: &str) -> Result<String, Refusal> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = std::str::from_utf8(&field[..end]).ok().filter(|text| !text.is_empty() && !text.contains(char::is_control));
    match text {
        Some(text) if end < field.len() && field[end..].iter().all(|byte| *byte == 0) => Ok(text.to_owned()),
        _ => Err(Refusal::BadNote(format!("its {what} is not a text padded with NUL"))),
    }
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
