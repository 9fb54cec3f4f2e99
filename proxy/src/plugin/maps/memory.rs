//! The memory of a map: 64-bit words, shared by every thread, of a file or of nothing.
//!
//! All of a map is read and written through [`Words::all`], a slice of atomic words, so that whatever other threads do at
//! the same time is defined. This is the only unsafe code below the calls of plugins: everything above works on indexes
//! that the slice checks.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapMut, MmapOptions, MmapRaw};

/// Mapped words.
pub struct Words {
    map: MmapRaw,
    /// Holds the lock of the file.
    _file: Option<File>,
}

impl Words {
    /// Zeroes that end with the process.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn anonymous(words: usize) -> io::Result<Words> {
        Ok(Words { map: MmapRaw::from(MmapMut::map_anon(8 * words)?), _file: None })
    }

    /// The first `words` of a file, which has at least as many and is locked by the caller.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn of_file(file: File, words: usize) -> io::Result<Words> {
        let map = MmapOptions::new().len(8 * words).map_raw(&file)?;
        Ok(Words { map, _file: Some(file) })
    }

    /// All of them.
    #[inline]
    pub fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, readable and writable for its length and as long as `self`; every reference into it is to an
        // atomic word, here and in every other process that locks the file before it maps it. A file whose blocks were
        // written before it was mapped (`file.rs`) has a page behind each address.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.map.len() / 8) }
    }
}
