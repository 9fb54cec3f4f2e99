//! A shared object as bytes: what the dynamic linker would make of it, found without running anything.
//!
//! Owns the walk through program headers and the dynamic section, which is what the linker looks at; section headers may be
//! missing or lie and are used for one thing only, a note that no segment lists. Must not touch the file system.
//! Everything in the file is a claim: each offset goes through [`Elf::bytes_at`], each loop ends with the bytes it reads.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use object::elf::{self, Dyn64, FileHeader64, ProgramHeader64, Rela64, Sym64};
use object::pod::slice_from_bytes;
use object::read::elf::{Dyn as _, FileHeader as _, GnuHashTable, HashTable, NoteIterator, ProgramHeader as _};
use object::{LittleEndian as LE, U64};

type Header = FileHeader64<LE>;

/// Records of versions that are looked at; libc has about 40.
const VERSIONS_MAX: u64 = 1024;

/// Why a file is not taken for a shared object of this machine at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfFault {
    /// The first bytes are not those of ELF.
    NotElf,
    /// 32 bit or big-endian.
    NotElf64LittleEndian,
    /// An object file, a program, a core dump: which.
    NotShared(&'static str),
    /// Part of it points outside of the file, or makes no sense: which.
    Malformed(&'static str),
}

/// A parsed shared object.
#[derive(Debug)]
pub struct Elf<'a> {
    file: &'a [u8],
    header: &'a Header,
    segments: &'a [ProgramHeader64<LE>],
    dynamic: Vec<(i64, u64)>,
    strings: &'a [u8],
    symbols: &'a [Sym64<LE>],
}

/// What will stand in an 8-byte field once the linker has relocated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer<'a> {
    /// Zero.
    Null,
    /// This address of the object itself.
    Address(u64),
    /// Whatever another object defines under this name.
    External(&'a [u8]),
    /// A bit pattern that no relocation makes a pointer of, or a relocation that is none of a pointer.
    Bogus,
}

/// A version that a symbol of another library must have, such as `GLIBC_2.34` of `libc.so.6`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeededVersion {
    /// The library.
    pub library: String,
    /// The version.
    pub version: String,
}

/// The relocations of a range of addresses.
pub type Relocations = BTreeMap<u64, Relocation>;

/// One relocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relocation {
    /// The address that already stands in the field, moved with the object (`DT_RELR`).
    InPlace,
    /// This address, moved with the object.
    Relative(u64),
    /// The address of a symbol, plus so much.
    Symbol(u32, u64),
    /// The result of a function that the linker calls.
    Indirect,
    /// Anything else.
    Other,
}

impl<'a> Elf<'a> {
    /// Reads the headers, the dynamic section and the symbol table.
    pub fn parse(file: &'a [u8]) -> Result<Elf<'a>, ElfFault> {
        use ElfFault::{Malformed, NotElf, NotElf64LittleEndian, NotShared};
        let ident = file.get(..16).filter(|ident| ident.starts_with(b"\x7fELF")).ok_or(NotElf)?;
        if ident[4] != elf::ELFCLASS64.0 || ident[5] != elf::ELFDATA2LSB.0 {
            return Err(NotElf64LittleEndian);
        }
        let header = Header::parse(file).map_err(|_| Malformed("the ELF header"))?;
        match header.e_type.get(LE) {
            elf::ET_DYN => {}
            elf::ET_REL => return Err(NotShared("an object file that was not linked")),
            elf::ET_EXEC => return Err(NotShared("a program")),
            elf::ET_CORE => return Err(NotShared("a core dump")),
            _ => return Err(NotShared("an ELF file of another type")),
        }
        let segments = header.program_headers(LE, file).map_err(|_| Malformed("the program headers"))?;
        let mut parsed = Elf { file, header, segments, dynamic: Vec::new(), strings: &[], symbols: &[] };
        parsed.read_dynamic()?;
        let is_program = parsed.value(elf::DT_FLAGS_1.0).is_some_and(|flags| flags & elf::DF_1_PIE.0 != 0);
        if is_program { Err(NotShared("a program")) } else { Ok(parsed) }
    }

    fn read_dynamic(&mut self) -> Result<(), ElfFault> {
        use ElfFault::{Malformed, NotShared};
        let segment = self.segments.iter().find(|segment| segment.p_type(LE) == elf::PT_DYNAMIC).ok_or(NotShared("not dynamically linked"))?;
        let bytes = self.bytes_at(segment.p_vaddr(LE), segment.p_filesz(LE)).ok_or(Malformed("the dynamic section"))?;
        let (entries, _) = slice_from_bytes::<Dyn64<LE>>(bytes, bytes.len() / 16).map_err(|()| Malformed("the dynamic section"))?;
        self.dynamic = entries.iter().map(|entry| (entry.d_tag(LE).0, entry.d_val(LE))).take_while(|(tag, _)| *tag != elf::DT_NULL.0).collect();
        let (Some(strings), Some(symbols)) = (self.value(elf::DT_STRTAB.0), self.value(elf::DT_SYMTAB.0)) else {
            return Err(Malformed("the symbol table"));
        };
        self.strings = self.bytes_at(strings, self.value(elf::DT_STRSZ.0).unwrap_or(0)).ok_or(Malformed("the string table"))?;
        let count = self.symbol_count()?;
        let bytes = self.tail_at(symbols).ok_or(Malformed("the symbol table"))?;
        (self.symbols, _) = slice_from_bytes(bytes, count).map_err(|()| Malformed("the symbol table"))?;
        Ok(())
    }

    fn symbol_count(&self) -> Result<usize, ElfFault> {
        let fault = ElfFault::Malformed("the symbol hash table");
        if let Some(address) = self.value(elf::DT_HASH.0) {
            let table = HashTable::<Header>::parse(LE, self.tail_at(address).ok_or(fault)?).map_err(|_| fault)?;
            return Ok(table.symbol_table_length() as usize);
        }
        let address = self.value(elf::DT_GNU_HASH.0).ok_or(fault)?;
        let table = GnuHashTable::<Header>::parse(LE, self.tail_at(address).ok_or(fault)?).map_err(|_| fault)?;
        // Without a hashed symbol nothing is exported, and `symbol_base` is the number of the others.
        Ok(table.symbol_table_length(LE).unwrap_or(table.symbol_base()) as usize)
    }

    /// `e_machine`: the processor it was made for.
    pub fn machine(&self) -> u16 {
        self.header.e_machine.get(LE).0
    }

    /// The `length` bytes that will be at `address`, when the file holds all of them.
    pub fn bytes_at(&self, address: u64, length: u64) -> Option<&'a [u8]> {
        self.tail_at(address)?.get(..usize::try_from(length).ok()?)
    }

    /// The bytes from `address` to the end of its segment in the file.
    fn tail_at(&self, address: u64) -> Option<&'a [u8]> {
        self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD).find_map(|segment| {
            let inner = address.checked_sub(segment.p_vaddr(LE)).filter(|inner| *inner < segment.p_filesz(LE))?;
            let start = usize::try_from(segment.p_offset(LE).checked_add(inner)?).ok()?;
            let length = usize::try_from(segment.p_filesz(LE) - inner).ok()?;
            self.file.get(start..start.checked_add(length)?)
        })
    }

    /// The NUL-terminated bytes at `address`, without the NUL, when they are at most `longest`.
    pub fn text_at(&self, address: u64, longest: usize) -> Option<&'a [u8]> {
        let bytes = self.tail_at(address)?;
        let end = bytes.iter().take(longest + 1).position(|byte| *byte == 0)?;
        Some(&bytes[..end])
    }

    /// Whether `address` will be executable.
    pub fn is_code(&self, address: u64) -> bool {
        self.loaded().any(|segment| {
            let inside = address.checked_sub(segment.p_vaddr(LE)).is_some_and(|inner| inner < segment.p_memsz(LE));
            inside && has(segment, elf::PF_X)
        })
    }

    /// Whether a segment is writable and executable at once.
    pub fn has_writable_code(&self) -> bool {
        self.loaded().any(|segment| has(segment, elf::PF_W) && has(segment, elf::PF_X))
    }

    /// Whether it asks for an executable stack. Without `PT_GNU_STACK` the linker assumes that it does.
    pub fn has_executable_stack(&self) -> bool {
        self.segments.iter().find(|segment| segment.p_type(LE) == elf::PT_GNU_STACK).is_none_or(|segment| has(segment, elf::PF_X))
    }

    /// Whether code must be made writable to relocate it.
    pub fn has_text_relocations(&self) -> bool {
        self.value(elf::DT_TEXTREL.0).is_some() || self.value(elf::DT_FLAGS.0).is_some_and(|flags| flags & elf::DF_TEXTREL.0 != 0)
    }

    fn loaded(&self) -> impl Iterator<Item = &'a ProgramHeader64<LE>> {
        self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
    }

    /// The first value of a tag of the dynamic section.
    fn value(&self, tag: i64) -> Option<u64> {
        self.dynamic.iter().find(|(other, _)| *other == tag).map(|(_, value)| *value)
    }

    fn string(&self, offset: u64) -> Option<&'a [u8]> {
        let bytes = self.strings.get(usize::try_from(offset).ok()?..)?;
        Some(&bytes[..bytes.iter().position(|byte| *byte == 0)?])
    }

    fn text(&self, offset: u64) -> Option<String> {
        self.string(offset).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Whether `dlclose` leaves it mapped (`-z nodelete`).
    pub fn stays_loaded(&self) -> bool {
        self.value(elf::DT_FLAGS_1.0).is_some_and(|flags| flags & elf::DF_1_NODELETE.0 != 0)
    }

    /// The libraries it needs, as `DT_NEEDED` names them.
    pub fn needed(&self) -> Vec<String> {
        self.dynamic.iter().filter(|(tag, _)| *tag == elf::DT_NEEDED.0).filter_map(|(_, offset)| self.text(*offset)).collect()
    }

    /// The content of every note of this owner (without NUL) and type, in the order of the file.
    pub fn notes(&self, owner: &[u8], note_type: u32) -> Vec<&'a [u8]> {
        let segments = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_NOTE);
        let mut areas: Vec<(u64, &'a [u8])> = segments.filter_map(|segment| Some((segment.p_align(LE), segment.data(LE, self.file).ok()?))).collect();
        let listed = |areas: &[(u64, &'a [u8])]| -> Vec<&'a [u8]> {
            let notes = areas.iter().filter_map(|(align, area)| NoteIterator::<Header>::new(LE, *align, area).ok());
            let all = notes.flat_map(|mut notes| std::iter::from_fn(move || notes.next().ok().flatten()));
            all.filter(|note| note.name() == owner && note.n_type(LE).0 == note_type).map(|note| note.desc()).collect()
        };
        let found = listed(&areas);
        if !found.is_empty() {
            return found;
        }
        let section_name = [b".note.", owner.to_ascii_lowercase().as_slice()].concat();
        let sections = self.header.sections(LE, self.file).ok();
        let section = sections.as_ref().and_then(|sections| sections.section_by_name(LE, &section_name));
        areas = section.and_then(|(_, section)| Some((4, object::read::elf::SectionHeader::data(section, LE, self.file).ok()?))).into_iter().collect();
        listed(&areas)
    }

    /// The exported data symbol of that name: its address and size.
    pub fn data_symbol(&self, name: &[u8]) -> Option<(u64, u64)> {
        let is_it = |symbol: &&Sym64<LE>| {
            let kind = symbol.st_info.st_type();
            is_exported(symbol) && (kind == elf::STT_OBJECT || kind == elf::STT_NOTYPE) && self.string(symbol.st_name.get(LE).into()) == Some(name)
        };
        self.symbols.iter().find(is_it).map(|symbol| (symbol.st_value.get(LE), symbol.st_size.get(LE)))
    }

    /// The names that other objects can use.
    pub fn exports(&self) -> impl Iterator<Item = &'a [u8]> {
        self.symbols.iter().filter(|symbol| is_exported(symbol)).filter_map(|symbol| self.string(symbol.st_name.get(LE).into()))
    }

    /// The names without which it cannot be loaded: undefined and not weak.
    pub fn imports(&self) -> impl Iterator<Item = &'a [u8]> {
        let wanted = |symbol: &&Sym64<LE>| symbol.st_shndx.get(LE) == elf::SHN_UNDEF && symbol.st_info.st_bind() == elf::STB_GLOBAL;
        self.symbols.iter().skip(1).filter(wanted).filter_map(|symbol| self.string(symbol.st_name.get(LE).into()))
    }

    /// The versions that its symbols must have, weak ones left out.
    pub fn needed_versions(&self) -> BTreeSet<NeededVersion> {
        let mut versions = BTreeSet::new();
        let mut next = self.value(elf::DT_VERNEED.0);
        for _ in 0..self.value(elf::DT_VERNEEDNUM.0).unwrap_or(0).min(VERSIONS_MAX) {
            let Some((at, [_, count, library, first, step])) = next.and_then(|at| Some((at, self.version_words(at)?))) else { break };
            let mut next_entry = at.checked_add(first);
            for _ in 0..count {
                let Some((at, bytes)) = next_entry.and_then(|at| Some((at, self.bytes_at(at, 16)?))) else { break };
                let (weak, name, step) = (bytes[4] & 2 != 0, word(bytes, 8), word(bytes, 12));
                if let (false, Some(version), Some(library)) = (weak, self.text(name), self.text(library)) {
                    versions.insert(NeededVersion { library, version });
                }
                next_entry = (step != 0).then(|| at.checked_add(step)).flatten();
            }
            next = (step != 0).then(|| at.checked_add(step)).flatten();
        }
        versions
    }

    /// `Verneed`: version, count, file name, first entry, next.
    fn version_words(&self, at: u64) -> Option<[u64; 5]> {
        let bytes = self.bytes_at(at, 16)?;
        let half = |at: usize| u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        Some([half(0), half(2), word(bytes, 4), word(bytes, 8), word(bytes, 12)])
    }

    /// The versions that it defines.
    pub fn defined_versions(&self) -> BTreeSet<Vec<u8>> {
        let mut versions = BTreeSet::new();
        let mut next = self.value(elf::DT_VERDEF.0);
        for _ in 0..self.value(elf::DT_VERDEFNUM.0).unwrap_or(0).min(VERSIONS_MAX) {
            let Some((at, bytes)) = next.and_then(|at| Some((at, self.bytes_at(at, 20)?))) else { break };
            let name = at.checked_add(word(bytes, 12)).and_then(|at| self.bytes_at(at, 8)).and_then(|aux| self.string(word(aux, 0)));
            versions.extend(name.map(<[u8]>::to_vec));
            let step = word(bytes, 16);
            next = (step != 0).then(|| at.checked_add(step)).flatten();
        }
        versions
    }

    /// The relocations of fields that begin in or reach into `start..end`.
    pub fn relocations(&self, start: u64, end: u64) -> Result<Relocations, ElfFault> {
        let touches = |at: u64| at < end && at.saturating_add(8) > start;
        let mut found = Relocations::new();
        let fault = ElfFault::Malformed("the relocations");
        if let Some(address) = self.value(elf::DT_RELR.0) {
            let bytes = self.bytes_at(address, self.value(elf::DT_RELRSZ.0).unwrap_or(0)).ok_or(fault)?;
            let (words, _) = slice_from_bytes::<U64<LE>>(bytes, bytes.len() / 8).map_err(|()| fault)?;
            let mut base = 0u64;
            for word in words.iter().map(|word| word.get(LE)) {
                // An even word is an address; an odd one says which of the next 63 fields are meant too.
                if word & 1 == 0 {
                    found.extend(touches(word).then_some((word, Relocation::InPlace)));
                    base = word.wrapping_add(8);
                } else {
                    let fields = (0..63u64).filter(|bit| word >> (bit + 1) & 1 == 1).map(|bit| base.wrapping_add(bit * 8));
                    found.extend(fields.filter(|at| touches(*at)).map(|at| (at, Relocation::InPlace)));
                    base = base.wrapping_add(63 * 8);
                }
            }
        }
        if let Some(address) = self.value(elf::DT_RELA.0) {
            let bytes = self.bytes_at(address, self.value(elf::DT_RELASZ.0).unwrap_or(0)).ok_or(fault)?;
            let (entries, _) = slice_from_bytes::<Rela64<LE>>(bytes, bytes.len() / 24).map_err(|()| fault)?;
            found.extend(entries.iter().filter(|entry| touches(entry.r_offset.get(LE))).map(|entry| (entry.r_offset.get(LE), self.relocation(entry))));
        }
        Ok(found)
    }

    fn relocation(&self, entry: &Rela64<LE>) -> Relocation {
        const ABSOLUTE: [(u16, u32); 2] = [(elf::EM_X86_64.0, 1), (elf::EM_AARCH64.0, 257)];
        const RELATIVE: [(u16, u32); 2] = [(elf::EM_X86_64.0, 8), (elf::EM_AARCH64.0, 1027)];
        const INDIRECT: [(u16, u32); 2] = [(elf::EM_X86_64.0, 37), (elf::EM_AARCH64.0, 1032)];
        let info = entry.r_info.get(LE);
        let kind = (self.machine(), info as u32);
        let addend = entry.r_addend.get(LE).cast_unsigned();
        match kind {
            kind if RELATIVE.contains(&kind) => Relocation::Relative(addend),
            kind if ABSOLUTE.contains(&kind) => Relocation::Symbol((info >> 32) as u32, addend),
            kind if INDIRECT.contains(&kind) => Relocation::Indirect,
            _ => Relocation::Other,
        }
    }

    /// What the pointer at `address` will be, given the relocations around it.
    pub fn pointer(&self, address: u64, relocations: &Relocations) -> Pointer<'a> {
        let in_file = self.bytes_at(address, 8).map_or(0, |bytes| word(bytes, 0) | word(bytes, 4) << 32);
        // A relocation that reaches into the field from its side would change what any other says.
        if relocations.range(address.saturating_sub(7)..address.saturating_add(8)).any(|(at, _)| *at != address) {
            return Pointer::Bogus;
        }
        match relocations.get(&address) {
            None if in_file == 0 => Pointer::Null,
            None | Some(Relocation::Other | Relocation::Indirect) => Pointer::Bogus,
            Some(Relocation::InPlace) => Pointer::Address(in_file),
            Some(Relocation::Relative(target)) => Pointer::Address(*target),
            Some(Relocation::Symbol(index, addend)) => match self.symbols.get(*index as usize) {
                Some(symbol) if symbol.st_shndx.get(LE) != elf::SHN_UNDEF => Pointer::Address(symbol.st_value.get(LE).wrapping_add(*addend)),
                // A weak symbol that nobody defines is zero; who counts on one being defined gets the same answer.
                Some(symbol) if symbol.st_info.st_bind() == elf::STB_WEAK => Pointer::Null,
                Some(symbol) => self.string(symbol.st_name.get(LE).into()).map_or(Pointer::Bogus, Pointer::External),
                None => Pointer::Bogus,
            },
        }
    }
}

fn is_exported(symbol: &Sym64<LE>) -> bool {
    let (bind, visibility) = (symbol.st_info.st_bind(), symbol.st_other.visibility());
    let visible = visibility == elf::STV_DEFAULT || visibility == elf::STV_PROTECTED;
    symbol.st_shndx.get(LE) != elf::SHN_UNDEF && bind != elf::STB_LOCAL && visible
}

fn has(segment: &ProgramHeader64<LE>, flag: elf::ProgramFlags) -> bool {
    segment.p_flags(LE).0 & flag.0 != 0
}

/// The 32-bit word at `at`, which the caller has bounds-checked.
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(word))
}
