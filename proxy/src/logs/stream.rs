//! One log: a bounded queue of lines that nobody waits for, and the thread that writes them to a file, a pipe or a terminal.
//!
//! The queue and the thread are those of `tracing_appender`. What it leaves open is done here: a bound in bytes, counting what is
//! lost on either end, opening a file anew, and that an event is one line whatever its values hold.
//!
//! Invariant: `waiting` is the sum of the sizes of the lines that were queued and not written, each of them at least
//! [`LINE_BYTES_MIN`]; so the bound in bytes is reached before the queue's own bound.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait for the writer; more lines are dropped and counted, so that a slow disk never stops a worker.
pub(super) const WAITING_BYTES_MAX: usize = 32 << 20;
/// What a line counts at least.
const LINE_BYTES_MIN: usize = 512;
/// What continues a line of text whose message has several.
const CONTINUATION: &[u8] = b"\n  | ";

/// The form of the lines of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// JSON, which has no line breaks in its values.
    Json,
    /// Text.
    Text,
    /// Text with colors, which are escape sequences.
    Colored,
}

/// What the two ends of a log share.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Where its file is, when it has one of its own.
    path: Option<PathBuf>,
    /// Lines that found no room in the queue.
    pub(super) no_room: AtomicU64,
    /// Lines that could not be written.
    pub(super) not_written: AtomicU64,
    waiting: AtomicUsize,
    /// The file is to be opened anew before the next line.
    reopen: AtomicBool,
    /// Why the last line that could not be written could not; 0 while there is none.
    errno: AtomicI32,
}

impl Stream {
    /// Lines that were lost.
    pub(super) fn lost(&self) -> u64 {
        self.no_room.load(Ordering::Relaxed) + self.not_written.load(Ordering::Relaxed)
    }

    /// Why the last line that could not be written could not.
    pub(super) fn error(&self) -> Option<io::Error> {
        Some(self.errno.load(Ordering::Relaxed)).filter(|errno| *errno != 0).map(io::Error::from_raw_os_error)
    }

    /// Room for a line in the queue.
    fn take_room(&self, bytes: usize) -> bool {
        let bytes = bytes.max(LINE_BYTES_MIN);
        if self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= WAITING_BYTES_MAX {
            return true;
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.no_room.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn give_room_back(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes.max(LINE_BYTES_MIN), Ordering::Relaxed);
    }
}

/// Starts the thread that writes lines to `file`, which was opened at `path` when it has one. Streams that share a file do not mix their lines.
pub(super) fn start(path: Option<PathBuf>, file: Arc<Mutex<File>>, form: Lines) -> (Queue, WorkerGuard) {
    let stream = Arc::new(Stream { path, ..Stream::default() });
    let writer = Destination { stream: Arc::clone(&stream), file, is_torn: false };
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_BYTES_MAX / LINE_BYTES_MIN);
    let (to, guard) = builder.finish(writer);
    (Queue { stream, to, form }, guard)
}

/// The end at which lines come in.
#[derive(Clone)]
pub(super) struct Queue {
    stream: Arc<Stream>,
    to: NonBlocking,
    form: Lines,
}

impl Queue {
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The file is opened anew, if it has a path.
    pub(super) fn reopen(&self) {
        if self.stream.path.is_some() {
            self.stream.reopen.store(true, Ordering::Release);
            // An empty line wakes the writer. Where no room is for it, a line that waits does.
            let _ = self.to.clone().write(&[]);
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Entry<'a>;

    fn make_writer(&'a self) -> Entry<'a> {
        Entry(self)
    }
}

/// One event on its way into the queue: it comes in one piece.
pub(super) struct Entry<'a>(&'a Queue);

impl Write for Entry<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = match self.0.form {
            Lines::Json => Cow::Borrowed(event),
            Lines::Text => on_one_line(event, false),
            Lines::Colored => on_one_line(event, true),
        };
        if self.0.stream.take_room(line.len()) {
            self.0.to.clone().write_all(&line)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Text that looks like one event and no other, whatever its values hold: line breaks are followed by a mark that no line begins with, other
/// control bytes are written out.
fn on_one_line(event: &[u8], colored: bool) -> Cow<'_, [u8]> {
    let line = event.strip_suffix(b"\n").unwrap_or(event);
    let is_bad = |byte: u8| byte.is_ascii_control() && byte != b'\t' && !(colored && byte == 0x1b);
    if !line.iter().copied().any(is_bad) {
        return Cow::Borrowed(event);
    }
    let mut text = Vec::with_capacity(event.len() + 64);
    for &byte in line {
        match byte {
            b'\n' => text.extend_from_slice(CONTINUATION),
            byte if is_bad(byte) => text.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            byte => text.push(byte),
        }
    }
    text.push(b'\n');
    Cow::Owned(text)
}

/// The end at which lines go out, on the thread of the log.
struct Destination {
    stream: Arc<Stream>,
    file: Arc<Mutex<File>>,
    /// The last line was not written to its end.
    is_torn: bool,
}

impl Write for Destination {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    /// A whole line; an empty one only has the file looked at.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.stream.reopen.swap(false, Ordering::Acquire) {
            self.open_anew();
        }
        if line.is_empty() {
            return Ok(());
        }
        self.stream.give_room_back(line.len());
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err((error, written)) = write_line(&mut *file, line, self.is_torn) {
            self.is_torn |= written > 0;
            self.stream.errno.store(error.raw_os_error().unwrap_or(0), Ordering::Relaxed);
            self.stream.not_written.fetch_add(1, Ordering::Relaxed);
        } else {
            self.is_torn = false;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Destination {
    fn open_anew(&mut self) {
        let Some(path) = &self.stream.path else { return };
        match super::open(path) {
            Ok(file) => {
                *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
                self.is_torn = false;
                tracing::info!(path = %path.display(), "the access log was opened anew");
            }
            Err(error) => tracing::error!("{}; the file that was open stays in use", super::refusal(path, &error)),
        }
    }
}

/// Writes a line, after the end of one that was cut short. An error comes with the bytes written before it.
fn write_line(file: &mut impl Write, line: &[u8], is_torn: bool) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    if is_torn {
        write_bytes(file, b"\n", &mut written).map_err(|error| (error, 0))?;
        written = 0;
    }
    write_bytes(file, line, &mut written).map_err(|error| (error, written))
}

fn write_bytes(file: &mut impl Write, mut bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                *written += count;
                bytes = &bytes[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_looks_like_one_event_whatever_its_values_hold() {
        let line = |text: &str, colored| String::from_utf8(on_one_line(text.as_bytes(), colored).into_owned()).expect("it is text");
        assert_eq!(line("a \t ü=1\n", false), "a \t ü=1\n");
        assert!(matches!(on_one_line(b"plain\n", false), Cow::Borrowed(_)));
        assert_eq!(line("a\n2026 ERROR forged\r\u{1b}[2J\0\n", false), "a\n  | 2026 ERROR forged\\x0d\\x1b[2J\\x00\n");
        assert_eq!(line("\u{1b}[31mred\u{1b}[0m\rx\n", true), "\u{1b}[31mred\u{1b}[0m\\x0dx\n");
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_and_room_comes_back() {
        let stream = Stream::default();
        let lines = WAITING_BYTES_MAX / LINE_BYTES_MIN;
        assert!((0..lines).all(|_| stream.take_room(1)), "as many as the queue holds");
        assert!(!stream.take_room(1));
        assert!(!stream.take_room(1));
        stream.give_room_back(1);
        assert!(stream.take_room(LINE_BYTES_MIN));
        assert!(!stream.take_room(LINE_BYTES_MIN + 1));
        assert_eq!(stream.lost(), 3);
    }

    /// Takes so many bytes, then says that the disk is full.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match bytes.len().min(self.1) {
                0 => Err(io::ErrorKind::StorageFull.into()),
                count => {
                    self.0.extend_from_slice(&bytes[..count]);
                    self.1 -= count;
                    Ok(count)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_after_one_that_was_cut_short_begins_anew() {
        let mut disk = Full(Vec::new(), 3);
        assert!(matches!(write_line(&mut disk, b"{first}\n", false), Err((_, 3))));
        assert!(matches!(write_line(&mut disk, b"{second}\n", true), Err((_, 0))));
        disk.1 = 100;
        assert!(write_line(&mut disk, b"{third}\n", true).is_ok());
        assert_eq!(String::from_utf8_lossy(&disk.0), "{fi\n{third}\n");
    }
}
