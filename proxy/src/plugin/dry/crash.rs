//! The handler of fatal signals in the process of a dry run: it says what was touched and by which code, and ends the process.
//!
//! Everything in the handler is async-signal-safe: it reads atomics, formats numbers into an array, writes once and exits.

use std::ffi::{c_int, c_void};
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::pen::{self, Place};
use super::watch::RUNNING;

/// Bytes of the stack that the handler runs on; the thread's own may have overflowed.
const STACK_BYTES: usize = 64 << 10;
/// A fault this near to the stack pointer is an overflow of the stack.
const STACK_NEAR_BYTES: usize = 64 << 10;

/// Where the handler writes to.
static TO: AtomicI32 = AtomicI32::new(-1);

/// Handles fatal signals from now on; says so on `to`, which stays open as long as the process lives.
pub(super) fn install(to: BorrowedFd<'static>) -> io::Result<()> {
    TO.store(to.as_raw_fd(), Ordering::Relaxed);
    let memory = Box::leak(vec![0u8; STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_BYTES };
    // SAFETY: the memory is leaked, so it outlives the thread.
    if unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGABRT] {
        // SAFETY: all zeroes is a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for and is async-signal-safe.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_signal(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers to a SA_SIGINFO handler.
    let address = unsafe { (*info).si_addr() }.addr();
    // SAFETY: as above.
    let (pc, sp) = unsafe { registers(&*context.cast::<libc::ucontext_t>()) };
    let hook = RUNNING.load(Ordering::Relaxed);
    let mut line = Line { bytes: [0; 256], used: 0 };
    let _ = write!(line, "\n{{\"signal\":{{\"hook\":{hook},\"number\":{number},\"address\":{address},\"pc\":{pc},\"place\":");
    let _ = match pen::explain(address) {
        Place::Inside(kind) => write!(line, "{{\"inside\":\"{}\"}}", kind.name()),
        Place::Behind(kind, bytes) => write!(line, "{{\"behind\":[\"{}\",{bytes}]}}", kind.name()),
        Place::Past => write!(line, "\"past\""),
        Place::Elsewhere if number == libc::SIGSEGV && address.abs_diff(sp) < STACK_NEAR_BYTES => write!(line, "\"stack\""),
        Place::Elsewhere => write!(line, "\"elsewhere\""),
    };
    let _ = writeln!(line, "}}}}");
    // SAFETY: the line is readable for its length; the descriptor is open.
    unsafe { libc::write(TO.load(Ordering::Relaxed), line.bytes.as_ptr().cast(), line.used) };
    // SAFETY: ends the process without running anything.
    unsafe { libc::_exit(128 + number) };
}

/// Where the code was, and the stack pointer.
fn registers(context: &libc::ucontext_t) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    let (pc, sp) = (context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize, context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize);
    #[cfg(target_arch = "aarch64")]
    let (pc, sp) = (context.uc_mcontext.pc as usize, context.uc_mcontext.sp as usize);
    (pc, sp)
}

struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.used..self.used + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used += text.len();
        Ok(())
    }
}
