//! Just enough of ELF-64 little-endian to look at a note from outside, independent of the gateway's loader.

#![allow(dead_code, reason = "every test file uses its own part")]

pub const SHT_NOTE: u32 = 7;
pub const PT_NOTE: u32 = 4;
const SHT_DYNSYM: u32 = 11;

pub struct Elf<'a> {
    file: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
pub struct Section {
    pub name: usize,
    pub kind: u32,
    pub offset: u64,
    pub size: u64,
    pub link: u32,
    pub align: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub size: u64,
}

impl<'a> Elf<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        assert_eq!(&file[..6], b"\x7fELF\x02\x01", "not a little-endian ELF-64 file");
        Elf { file }
    }

    pub fn sections(&self) -> impl Iterator<Item = Section> {
        let (table, entry_bytes, count) = (self.u64(0x28) as usize, self.u16(0x3a), self.u16(0x3c));
        (0..count).map(move |index| {
            let at = table + usize::from(entry_bytes) * usize::from(index);
            Section {
                name: self.u32(at) as usize,
                kind: self.u32(at + 4),
                offset: self.u64(at + 24),
                size: self.u64(at + 32),
                link: self.u32(at + 40),
                align: self.u64(at + 48),
            }
        })
    }

    pub fn section(&self, name: &str) -> Option<Section> {
        let names = self.sections().nth(usize::from(self.u16(0x3e)))?;
        self.sections().find(|section| self.text(names.offset as usize + section.name) == name.as_bytes())
    }

    pub fn segments(&self, kind: u32) -> impl Iterator<Item = Segment> {
        let (table, entry_bytes, count) = (self.u64(0x20) as usize, self.u16(0x36), self.u16(0x38));
        let all = (0..count).map(move |index| {
            let at = table + usize::from(entry_bytes) * usize::from(index);
            Segment { kind: self.u32(at), flags: self.u32(at + 4), offset: self.u64(at + 8), size: self.u64(at + 32) }
        });
        all.filter(move |segment| segment.kind == kind)
    }

    /// Whether the dynamic symbol table defines this name.
    pub fn dynamic_symbol(&self, name: &str) -> bool {
        let Some(symbols) = self.sections().find(|section| section.kind == SHT_DYNSYM) else { return false };
        let names = self.sections().nth(symbols.link as usize).expect("the symbol table names its strings");
        let mut entries = (0..symbols.size / 24).map(|index| symbols.offset as usize + index as usize * 24);
        entries.any(|at| self.u16(at + 6) != 0 && self.text(names.offset as usize + self.u32(at) as usize) == name.as_bytes())
    }

    fn text(&self, at: usize) -> &'a [u8] {
        let rest = &self.file[at..];
        &rest[..rest.iter().position(|byte| *byte == 0).expect("strings end with NUL")]
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.file[at..at + 2].try_into().unwrap())
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.file[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.file[at..at + 8].try_into().unwrap())
    }
}
