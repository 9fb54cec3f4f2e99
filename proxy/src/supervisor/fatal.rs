//! The handler of fatal signals: it writes a record of what ran into a pipe that the supervisor holds, then the process dies.
//!
//! Everything here that runs in a signal is async-signal-safe: system calls, arithmetic, reads of memory that the
//! interrupted code does not move. It allocates nothing, locks nothing, and writes as soon as it knows something: should
//! the memory that it reads be damaged, the kernel ends the process (every signal is blocked meanwhile) and what was
//! written stays. It never returns to code that goes on.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use libc::{c_int, c_void, siginfo_t};

use crate::clock;
use crate::hash::fnv1a_of;
use crate::plugin::running::{Running, running};
use crate::worker::probe::program_counter;
use crate::worker::watchdog;

/// What ends a process when its code is wrong.
const FATAL: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];
/// Bytes of one piece of a record; what does not fit is cut off.
const TEXT_BYTES: usize = 1024;
/// Bytes of one line of /proc/self/maps that are looked at.
const LINE_BYTES: usize = 512;

/// Where the record goes.
static RECORD: AtomicI32 = AtomicI32::new(-1);
/// The first thread that fails writes the record.
static CLAIMED: AtomicBool = AtomicBool::new(false);

/// From now on a fatal signal writes a record there. The thread's alternate stack is the one that the standard library
/// gives each of its threads, so that a stack that overflows is recorded too.
///
/// # Errors
/// Those of sigaction.
pub fn install(record: OwnedFd) -> io::Result<()> {
    RECORD.store(record.into_raw_fd(), Ordering::Relaxed);
    // SAFETY: all zeroes is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fatal as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
    // SAFETY: the set is writable.
    unsafe { libc::sigfillset(&mut action.sa_mask) };
    for signal in FATAL {
        // SAFETY: `action` is whole, and the handler keeps to what is allowed in signals; see the module.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_fatal(signal: c_int, info: *mut siginfo_t, ucontext: *mut c_void) {
    if CLAIMED.swap(true, Ordering::AcqRel) {
        // Another thread is about to end the process.
        loop {
            // SAFETY: no argument; every signal is blocked.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: the kernel gives the handler both for its duration.
    let (info, program_counter) = unsafe { (&*info, program_counter(ucontext)) };
    // SAFETY: these signals have an address; for one that was sent by a process it means nothing.
    let address = unsafe { info.si_addr() } as usize;
    let record = RECORD.load(Ordering::Relaxed);
    let mut text = Text::new();
    let _ = writeln!(text, "signal {signal}\nunix_ms {}\naddress {address:#x}", clock::unix_ns() / 1_000_000);
    let _ = writeln!(text, "thread {}", thread_name(&mut [0; 16]));
    if let Some(ms) = watchdog::ended_after_ms() {
        let _ = writeln!(text, "cause its hook ran for {ms} ms, longer than timeouts.hook_limit");
    }
    text.send(record);
    // SAFETY: this thread is in the handler and what it interrupted does not go on.
    if let Some(running) = unsafe { running() } {
        describe(&running, &mut text);
        text.send(record);
    }
    let mut module = Module { address: program_counter, ..Module::default() };
    module.find();
    if module.found {
        let _ = writeln!(text, "module {}\noffset {:#x}", Lossy(&module.path[..module.path_bytes]), program_counter.wrapping_sub(module.base));
        text.send(record);
    }
    if info.si_code <= 0 {
        // Sent by a process or by abort(3): nothing fails again on return, so it is sent again, to end the process then.
        // SAFETY: a number; the signal is blocked until the handler returns, and its action is the default one now.
        unsafe { libc::raise(signal) };
    }
}

fn describe(running: &Running<'_>, text: &mut Text) {
    let facts = running.facts;
    let _ = writeln!(text, "plugin {}\nhook {}\nversion {}", Lossy(running.plugin.as_bytes()), running.step, Lossy(facts.version.as_bytes()));
    let _ = writeln!(text, "build_id {}\nhash {}", facts.build_id.as_deref().unwrap_or_default(), facts.file_hash);
    if let Some(link) = running.link {
        let _ = writeln!(text, "link {}", link + 1);
    }
    if let Some(request) = running.request {
        let hash = fnv1a_of(&[request.method(), b" ", request.target()]);
        let _ = writeln!(text, "request_hash {hash:016x}");
    }
}

fn thread_name(room: &mut [u8; 16]) -> &str {
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the last of them zero.
    unsafe { libc::prctl(libc::PR_GET_NAME, room.as_mut_ptr()) };
    let len = room.iter().position(|byte| *byte == 0).unwrap_or(room.len());
    std::str::from_utf8(&room[..len]).unwrap_or_default()
}

/// Text on the stack.
struct Text {
    bytes: [u8; TEXT_BYTES],
    len: usize,
}

impl Text {
    fn new() -> Text {
        Text { bytes: [0; TEXT_BYTES], len: 0 }
    }

    /// Writes what stands there and begins anew.
    fn send(&mut self, to: RawFd) {
        let mut rest = &self.bytes[..self.len];
        while !rest.is_empty() {
            // SAFETY: `rest` is readable; a descriptor that is not open is an error.
            let written = unsafe { libc::write(to, rest.as_ptr().cast(), rest.len()) };
            if written <= 0 {
                break;
            }
            rest = &rest[written as usize..];
        }
        self.len = 0;
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let bytes = &text.as_bytes()[..text.len().min(TEXT_BYTES - self.len)];
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }
}

/// Bytes from elsewhere on one line of ASCII.
struct Lossy<'a>(&'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| f.write_char(if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' }))
    }
}

/// The file that an address lies in, from /proc/self/maps.
struct Module {
    address: usize,
    found: bool,
    /// Where the beginning of the file is mapped.
    base: usize,
    path: [u8; LINE_BYTES],
    path_bytes: usize,
}

impl Default for Module {
    fn default() -> Module {
        Module { address: 0, found: false, base: 0, path: [0; LINE_BYTES], path_bytes: 0 }
    }
}

impl Module {
    fn find(&mut self) {
        // SAFETY: the path ends with zero.
        let maps = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if maps < 0 {
            return;
        }
        let (mut piece, mut line, mut line_bytes) = ([0u8; 1024], [0u8; LINE_BYTES], 0);
        while !self.found {
            // SAFETY: `piece` is writable for its length.
            let got = unsafe { libc::read(maps, piece.as_mut_ptr().cast(), piece.len()) };
            if got <= 0 {
                break;
            }
            for &byte in &piece[..got as usize] {
                if byte == b'\n' {
                    self.look_at(&line[..line_bytes]);
                    line_bytes = 0;
                } else if line_bytes < LINE_BYTES {
                    line[line_bytes] = byte;
                    line_bytes += 1;
                }
            }
        }
        // SAFETY: opened above.
        unsafe { libc::close(maps) };
    }

    /// A line: `start-end permissions offset device inode path`. The mappings of a file follow each other, its beginning first.
    fn look_at(&mut self, line: &[u8]) {
        let Some((range, rest)) = split(line, b' ') else { return };
        let Some((start, end)) = split(range, b'-') else { return };
        let (start, end) = (hex(start), hex(end));
        let mut rest = rest;
        let mut offset = 0;
        for field in 0..4 {
            let Some((word, behind)) = split(rest, b' ') else { return };
            if field == 1 {
                offset = hex(word);
            }
            rest = behind;
        }
        let path = rest.trim_ascii();
        if self.found {
            return;
        }
        if offset == 0 || path != &self.path[..self.path_bytes] {
            self.base = start.wrapping_sub(offset);
            self.path_bytes = path.len();
            self.path[..path.len()].copy_from_slice(path);
        }
        self.found = (start..end).contains(&self.address);
    }
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..position], &bytes[position + 1..]))
}

fn hex(digits: &[u8]) -> usize {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as usize;
    digits.iter().fold(0, |number, byte| number.wrapping_mul(16).wrapping_add(digit(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_its_file_and_counted_from_its_beginning() {
        let maps = "55d0-55e0 r--p 00000000 fe:01 17   /usr/bin/x\n55e0-55f0 r-xp 00000010 fe:01 17   /usr/bin/x\n7000-7100 rw-p 00000000 00:00 0 \n\
                    8000-8100 r--p 00000000 00:1f 9   /run/a b.so (deleted)\n8100-8200 r-xp 00001000 00:1f 9   /run/a b.so (deleted)\n";
        let find = |address| {
            let mut module = Module { address, ..Module::default() };
            maps.lines().for_each(|line| module.look_at(line.as_bytes()));
            module.found.then(|| (String::from_utf8_lossy(&module.path[..module.path_bytes]).into_owned(), address - module.base))
        };
        assert_eq!(find(0x55e5), Some(("/usr/bin/x".into(), 0x15)));
        assert_eq!(find(0x8101), Some(("/run/a b.so (deleted)".into(), 0x101)));
        assert_eq!(find(0x7001), Some((String::new(), 1)));
        assert_eq!(find(0x9000), None);
    }

    #[test]
    fn the_code_of_this_test_lies_in_this_program() {
        let mut module = Module { address: thread_name as fn(&mut [u8; 16]) -> &str as usize, ..Module::default() };
        module.find();
        let path = String::from_utf8_lossy(&module.path[..module.path_bytes]).into_owned();
        assert!(module.found);
        assert_eq!(path, std::env::current_exe().expect("there is one").display().to_string());
    }

    #[test]
    fn text_is_cut_off_and_stays_on_its_line() {
        let mut text = Text::new();
        let _ = write!(text, "{}", Lossy(b"a\nb\xff"));
        assert_eq!(&text.bytes[..text.len], b"a?b?");
        let _ = write!(text, "{}", "x".repeat(2 * TEXT_BYTES));
        assert_eq!(text.len, TEXT_BYTES);
    }
}
