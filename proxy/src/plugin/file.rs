//! The files of plugins and programs, as an operator names them: read whole, or opened.
//!
//! Owns the reasons not to touch one: a path may lead to a pipe, on which an open waits for ever, or to a device without an end.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::limits::PLUGIN_FILE_BYTES;

/// Opens a regular file, without waiting for anybody.
///
/// # Errors
/// Those of opening it, and what it is instead.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// The bytes of a plugin's file.
///
/// # Errors
/// Those of reading it, and that it is no regular file or has more than [`PLUGIN_FILE_BYTES`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (mut bytes, mut file) = (Vec::new(), open(path)?);
    let bound = PLUGIN_FILE_BYTES as u64;
    if file.metadata()?.len() > bound || file.by_ref().take(bound + 1).read_to_end(&mut bytes)? as u64 > bound {
        return Err(io::Error::other(format!("it has more than {PLUGIN_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "bytes").expect("written");
        assert_eq!(read(&at("file")).expect("a file"), b"bytes");
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        File::create(at("large")).and_then(|file| file.set_len(PLUGIN_FILE_BYTES as u64 + 1)).expect("a sparse file");
        for (path, reason) in [
            (at("pipe"), "it is no regular file".to_owned()),
            ("/dev/zero".into(), "it is no regular file".to_owned()),
            (folder.path().into(), "it is no regular file".to_owned()),
            (at("large"), format!("it has more than {PLUGIN_FILE_BYTES} bytes")),
        ] {
            assert_eq!(read(&path).expect_err("refused").to_string(), reason, "{}", path.display());
        }
        assert_eq!(read(&at("none")).expect_err("refused").kind(), io::ErrorKind::NotFound);
    }
}
