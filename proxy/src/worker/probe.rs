//! A question to a worker's thread from outside: what hook runs there, and where in it the code is.
//!
//! Owns: one signal, its handler, the stack that the handler runs on, and the place for one answer. The handler is async-signal-safe: it
//! reads the words of its own thread, unwinds (the unwinder was loaded when the handler was installed), and writes plain words. Must not:
//! allocate or lock there.
//!
//! A thread that is in a system call gets EINTR where the kernel does not restart it; the runtime and the C library's buffered functions go on.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::siginfo_t;
use memmap2::{MmapMut, MmapOptions};
use ringway_abi::raw;

use crate::plugin::running::{self, running};

/// Addresses of one stack.
const STACK_MAX: usize = 48;
/// Bytes of a plugin's name that are kept; names are shorter.
const NAME_BYTES: usize = 64;
/// The handler's stack: the frame of the signal with all vector registers, and the unwinder.
const SIGNAL_STACK_BYTES: usize = 128 << 10;
/// Below it lies as much that nobody may touch.
const GUARD_BYTES: usize = 4096;
/// How long an answer is waited for: a thread that waits for a disk takes no signal.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);
/// Between two looks for it.
const ANSWER_LOOK: Duration = Duration::from_micros(100);

/// What a thread answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The call.
    pub call: Call,
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// The hook's name.
    pub hook: &'static str,
    /// Addresses of code, the innermost first; empty when it was not asked for.
    pub stack: Vec<usize>,
}

/// One call of a hook; no other call is equal to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The frame, as a glance shows it.
    pub frame: usize,
    /// The link of its chain.
    pub link: u32,
    /// Calls of that link on this worker, this one included.
    pub calls: u64,
}

/// Nobody is asked.
const NOBODY: i32 = 0;
/// The answer is there.
const ANSWERED: i32 = i32::MIN;

/// Where the one who asks and the handler meet. `thread` is [`NOBODY`], the thread that is asked, the negative of it while its handler
/// writes, or [`ANSWERED`].
struct Meeting {
    thread: AtomicI32,
    wants_stack: AtomicBool,
    /// 0: no hook ran.
    frame: AtomicUsize,
    link: AtomicU32,
    calls: AtomicU64,
    /// Place in [`raw::HOOKS`].
    hook: AtomicUsize,
    name: [AtomicU8; NAME_BYTES],
    name_bytes: AtomicUsize,
    stack: [AtomicUsize; STACK_MAX],
    stack_count: AtomicUsize,
}

static MEETING: Meeting = Meeting {
    thread: AtomicI32::new(NOBODY),
    wants_stack: AtomicBool::new(false),
    frame: AtomicUsize::new(0),
    link: AtomicU32::new(0),
    calls: AtomicU64::new(0),
    hook: AtomicUsize::new(0),
    name: [const { AtomicU8::new(0) }; NAME_BYTES],
    name_bytes: AtomicUsize::new(0),
    stack: [const { AtomicUsize::new(0) }; STACK_MAX],
    stack_count: AtomicUsize::new(0),
};
/// One question at a time.
static ASKING: Mutex<()> = Mutex::new(());

/// The signal. Far from those that libraries and debuggers take.
fn signal() -> c_int {
    libc::SIGRTMIN() + 11
}

/// From now on threads can be asked.
///
/// # Errors
/// Those of sigaction.
pub fn install() -> io::Result<()> {
    // Its first call loads the unwinder, which a handler must not.
    backtrace(&mut [ptr::null_mut(); 2]);
    // SAFETY: all zeroes is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_probe as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: `action` is whole, and the handler keeps to what is allowed in signals; see the module.
    match unsafe { libc::sigaction(signal(), &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The stack on which this thread handles signals, until it is dropped on the same thread. Larger than the one of the standard library,
/// on which there is no room for an unwinder.
pub struct SignalStack {
    before: libc::stack_t,
    /// Unmapped when it is not in use any more.
    _memory: MmapMut,
}

impl SignalStack {
    /// For this thread.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> io::Result<SignalStack> {
        let mut memory = MmapOptions::new().len(GUARD_BYTES + SIGNAL_STACK_BYTES).map_anon()?;
        // SAFETY: the first page of our own mapping, which nobody refers to.
        if unsafe { libc::mprotect(memory.as_mut_ptr().cast(), GUARD_BYTES, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().wrapping_add(GUARD_BYTES).cast(), ss_flags: 0, ss_size: SIGNAL_STACK_BYTES };
        let mut before = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: `stack` is ours until it is put back in `drop`, and no handler runs on it then.
        match unsafe { libc::sigaltstack(&stack, &mut before) } {
            0 => Ok(SignalStack { before, _memory: memory }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: what was there before, on the same thread; it is that of the standard library, which outlives this.
        unsafe { libc::sigaltstack(&self.before, ptr::null_mut()) };
    }
}

/// Asks a thread that cannot end meanwhile. `None`: no hook runs there, or it does not answer.
pub fn ask(thread: i32, wants_stack: bool) -> Option<Answer> {
    let _one = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    MEETING.wants_stack.store(wants_stack, Ordering::Relaxed);
    MEETING.thread.store(thread, Ordering::Release);
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let sent = send(thread, signal());
    while sent && MEETING.thread.load(Ordering::Acquire) != ANSWERED {
        // A handler that has begun ends soon.
        if Instant::now() > deadline && MEETING.thread.compare_exchange(thread, NOBODY, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return None;
        }
        thread::sleep(ANSWER_LOOK);
    }
    MEETING.thread.store(NOBODY, Ordering::Relaxed);
    let frame = MEETING.frame.load(Ordering::Relaxed);
    let (_, hook) = raw::HOOKS.get(MEETING.hook.load(Ordering::Relaxed)).filter(|_| sent && frame != 0)?;
    let call = Call { frame, link: MEETING.link.load(Ordering::Relaxed), calls: MEETING.calls.load(Ordering::Relaxed) };
    let name: Vec<u8> = MEETING.name[..MEETING.name_bytes.load(Ordering::Relaxed)].iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
    let stack = MEETING.stack[..MEETING.stack_count.load(Ordering::Relaxed)].iter().map(|address| address.load(Ordering::Relaxed)).collect();
    Some(Answer { call, plugin: String::from_utf8_lossy(&name).into_owned(), hook, stack })
}

/// Sends a signal to a thread of this process. False when there is no such thread.
pub fn send(thread: i32, signal: c_int) -> bool {
    // SAFETY: three numbers; a thread that does not exist is an error.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, signal) == 0 }
}

extern "C" fn on_probe(_: c_int, _: *mut siginfo_t, ucontext: *mut c_void) {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    // A question that was given up, or a signal of somebody else, is not answered.
    if MEETING.thread.compare_exchange(thread, -thread, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        answer(ucontext);
        MEETING.thread.store(ANSWERED, Ordering::Release);
    }
    // SAFETY: the thread's own word, which what was interrupted may be about to read.
    unsafe { *libc::__errno_location() = errno };
}

fn answer(ucontext: *mut c_void) {
    MEETING.frame.store(0, Ordering::Relaxed);
    // SAFETY: this is the handler of a signal of this thread, and the answer does not outlive it.
    let Some(running) = (unsafe { running() }) else { return };
    let (Some(link), Some(hook)) = (running.link, raw::HOOKS.iter().position(|(_, name)| *name == running.step)) else { return };
    let name = running.plugin.as_bytes();
    let name = &name[..name.len().min(NAME_BYTES)];
    for (to, byte) in MEETING.name.iter().zip(name) {
        to.store(*byte, Ordering::Relaxed);
    }
    MEETING.name_bytes.store(name.len(), Ordering::Relaxed);
    MEETING.link.store(link, Ordering::Relaxed);
    MEETING.calls.store(running.calls, Ordering::Relaxed);
    MEETING.hook.store(hook, Ordering::Relaxed);
    MEETING.frame.store(running::frame(), Ordering::Relaxed);
    let mut count = 0;
    if MEETING.wants_stack.load(Ordering::Relaxed) {
        let mut stack = [ptr::null_mut(); STACK_MAX];
        let depth = backtrace(&mut stack);
        let found = &stack[..depth];
        // SAFETY: the kernel gives it to the handler for its duration.
        let interrupted = unsafe { program_counter(ucontext) };
        // What stands above the interrupted code is this handler. Without unwind tables there may be nothing below it.
        let from = found.iter().position(|address| address.addr() == interrupted);
        let found = from.map_or(&[][..], |from| &found[from + 1..]);
        for (to, address) in MEETING.stack.iter().zip([interrupted].into_iter().chain(found.iter().map(|address| address.addr()))) {
            to.store(address, Ordering::Relaxed);
            count += 1;
        }
    }
    MEETING.stack_count.store(count, Ordering::Relaxed);
}

/// The return addresses of this thread, the innermost first; how many.
#[cfg(target_env = "gnu")]
fn backtrace(to: &mut [*mut c_void]) -> usize {
    // SAFETY: writable for its length.
    let count = unsafe { libc::backtrace(to.as_mut_ptr(), to.len() as c_int) };
    usize::try_from(count).unwrap_or(0)
}

/// Without the C library's unwinder there is only the interrupted instruction.
#[cfg(not(target_env = "gnu"))]
fn backtrace(_: &mut [*mut c_void]) -> usize {
    0
}

/// Where interrupted code was.
///
/// # Safety
/// `ucontext` is what a handler got.
pub unsafe fn program_counter(ucontext: *mut c_void) -> usize {
    let ucontext = ucontext.cast::<libc::ucontext_t>();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    return unsafe { (*ucontext).uc_mcontext.gregs[libc::REG_RIP as usize] } as usize;
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    return unsafe { (*ucontext).uc_mcontext.pc } as usize;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = ucontext;
        0
    }
}

/// The file that an address lies in and where the file's beginning is mapped. Not for handlers.
pub fn object_of(address: usize) -> Option<(PathBuf, usize)> {
    // SAFETY: all zeroes is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is writable; any address may be asked for.
    let found = unsafe { libc::dladdr(ptr::without_provenance(address), &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a text of the dynamic loader, which lives as long as the object; it is copied at once.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Some((PathBuf::from(path.to_string_lossy().into_owned()), info.dli_fbase.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_a_hook_answers_that_there_is_none_and_goes_on() {
        install().expect("a signal");
        let (to, from) = std::sync::mpsc::channel();
        let asked = thread::spawn(move || {
            let _stack = SignalStack::new().expect("memory");
            to.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("somebody listens");
            // Ends when the question was answered, though it sleeps.
            thread::park();
            7
        });
        let number = from.recv().expect("it begins");
        for _ in 0..20 {
            assert_eq!(ask(number, true), None);
        }
        asked.thread().unpark();
        assert_eq!(asked.join().expect("it goes on"), 7);
        assert_eq!(ask(i32::MAX, true), None, "no such thread");
    }

    #[test]
    fn the_code_of_this_test_lies_in_this_program() {
        let (path, base) = object_of(install as fn() -> io::Result<()> as usize).expect("an object");
        assert!(base > 0 && path.ends_with(std::env::current_exe().expect("there is one").file_name().expect("a name")), "{}", path.display());
        assert_eq!(object_of(8), None);
    }
}
