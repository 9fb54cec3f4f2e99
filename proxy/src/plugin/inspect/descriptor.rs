//! The descriptor of a plugin as it stands in the file, compared with the note and with the functions it has.
//!
//! A function is there when the linker will put an address of code into its field, which the relocations say. Bytes that
//! the linker would change otherwise are refused, so that what is read here is what will be in memory.
#![forbid(unsafe_code)]

use std::ops::Range;

use ringway_abi::{maps as abi, raw};

use super::note::Note;
use super::{Refusal, double, half, word};
use crate::plugin::elf::{Elf, Pointer, Relocations};
use crate::plugin::maps::MapShape;
use crate::plugin::maps::shape::Sizes;

/// The exported constant, as it stands in the file.
pub(super) struct Descriptor<'a> {
    elf: &'a Elf<'a>,
    address: u64,
    bytes: &'a [u8],
    relocations: Relocations,
}

/// Bytes of the descriptor of ABI 1.0.
const DESCRIPTOR_BYTES: usize = size_of::<raw::Plugin>();

impl<'a> Descriptor<'a> {
    /// The exported data symbol.
    pub fn find(elf: &'a Elf<'a>) -> Result<Descriptor<'a>, Refusal> {
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
    pub fn check(&self, note: &Note) -> Result<Vec<String>, Refusal> {
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
        self.metrics()
    }

    /// The maps' definitions. They and the want go together.
    pub fn maps(&self, wants: u64) -> Result<Vec<MapShape>, Refusal> {
        let count = word(self.bytes, std::mem::offset_of!(raw::Plugin, map_count));
        let bad = |what: String| Refusal::BadDescriptor(what);
        match (count, wants & raw::WANT_MAPS != 0) {
            (0, false) => return Ok(Vec::new()),
            (0, true) => return Err(bad("it wants maps and defines none".into())),
            (_, false) => return Err(bad(format!("it defines {count} maps and does not want maps"))),
            _ => {}
        }
        if count > abi::MAPS_MAX {
            return Err(bad(format!("it defines {count} maps; at most {} are possible", abi::MAPS_MAX)));
        }
        let Pointer::Address(array) = self.elf.pointer(self.address + std::mem::offset_of!(raw::Plugin, maps) as u64, &self.relocations) else {
            return Err(bad(format!("it defines {count} maps, but the pointer to them is null")));
        };
        let entry_bytes = u64::from(word(self.bytes, std::mem::offset_of!(raw::Plugin, map_bytes)));
        if entry_bytes < size_of::<raw::MapDef>() as u64 || entry_bytes % 8 != 0 {
            return Err(bad(format!("its maps have {entry_bytes} bytes each; those of ABI 1.0 have {}", size_of::<raw::MapDef>())));
        }
        let length = entry_bytes * u64::from(count);
        let bytes = self.elf.bytes_at(array, length).ok_or_else(|| bad("its maps are not in the file".into()))?;
        let relocations = self.elf.relocations(array, array.saturating_add(length)).map_err(Refusal::NotPlugin)?;
        let mut maps: Vec<MapShape> = Vec::new();
        for (index, entry) in bytes.chunks_exact(entry_bytes as usize).enumerate() {
            let at = array + entry_bytes * index as u64;
            if relocations.range(at + MAP_NUMBERS_FROM..at + entry_bytes).next().is_some() {
                return Err(bad(format!("the linker would change the numbers of map {index}")));
            }
            let text = |field: u64, longest| match self.elf.pointer(at + field, &relocations) {
                Pointer::Address(address) => self.elf.text_at(address, longest).and_then(|text| std::str::from_utf8(text).ok()),
                _ => None,
            };
            let name = text(0, abi::NAME_BYTES_MAX as usize).ok_or_else(|| bad(format!("map {index} has no name, or one of more than 31 bytes")))?;
            let fields = text(8, MAP_FIELDS_BYTES_MAX).ok_or_else(|| bad(format!("the map `{name}` has no value_fields")))?;
            let sizes = Sizes { kind: word(entry, 16), key_bytes: word(entry, 20), value_bytes: word(entry, 24), entries_max: word(entry, 28) };
            let shape = MapShape::new(name, sizes, fields).map_err(|why| bad(format!("the map `{name}` makes no sense: {why}")))?;
            if maps.iter().any(|other| other.name() == name) {
                return Err(bad(format!("the map `{name}` is defined twice")));
            }
            maps.push(shape);
        }
        Ok(maps)
    }

    fn same(&self, field: &'static str, note: u64, descriptor: u64) -> Result<(), Refusal> {
        if note == descriptor { Ok(()) } else { Err(Refusal::Disagrees { field, note: format!("{note:#x}"), descriptor: format!("{descriptor:#x}") }) }
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
            let is_name = |name: &&[u8]| !name.is_empty() && name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_');
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
    pub fn check_functions(&self) -> Result<(), Refusal> {
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
/// In a map's definition, the numbers stand behind the texts.
const MAP_NUMBERS_FROM: u64 = std::mem::offset_of!(raw::MapDef, kind) as u64;
/// Bytes of the text `value_fields`.
const MAP_FIELDS_BYTES_MAX: usize = 4095;
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
    assert!(size_of::<raw::MapDef>() == 32 && offset_of!(raw::MapDef, kind) == 16 && offset_of!(raw::MapDef, entries_max) == 28);
};
