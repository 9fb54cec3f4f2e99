//! The process of a dry run: bounded, without a network, without other processes; then [`crate::plugin::dry`].
//!
//! Bounds are resource limits and a seccomp filter, which need no privilege. It keeps accidents away from the machine, not
//! attackers: a plugin can still read what the user can.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use rustix::stdio;
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

use crate::limits;
use crate::plugin::dry;

/// The job comes on standard input, what happens goes to standard output. The exit code of the process.
pub fn main() -> i32 {
    match enter() {
        Ok((job, to)) => dry::run(job, to),
        Err(error) => {
            eprintln!("the dry run could not begin: {error}");
            2
        }
    }
}

fn enter() -> io::Result<(dry::Job, &'static File)> {
    let mut job = Vec::new();
    io::stdin().read_to_end(&mut job)?;
    let job = serde_json::from_slice(&job)?;
    // Standard output becomes ours alone: what the plugin prints goes where errors go.
    let to: OwnedFd = rustix::io::fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
    stdio::dup2_stdout(stdio::stderr())?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    bound()?;
    filter().map_err(io::Error::other)?;
    Ok((job, Box::leak(Box::new(File::from(to)))))
}

fn bound() -> io::Result<()> {
    let bounds = [
        (Resource::Core, 0),
        (Resource::Cpu, limits::VERIFY_PROCESSOR_SECONDS),
        (Resource::As, limits::VERIFY_MEMORY_BYTES as u64),
        (Resource::Nofile, limits::VERIFY_FILES),
        // A write to a file ends the process with SIGXFSZ.
        (Resource::Fsize, 0),
    ];
    for (resource, bound) in bounds {
        // Above the soft bound comes a signal that tells it, above the hard one SIGKILL.
        let maximum = if resource == Resource::Cpu { bound + 1 } else { bound };
        setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(maximum) })?;
    }
    Ok(())
}

/// What a plugin gets EACCES from: sockets, other processes, changes of the file system.
const DENIED: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_io_uring_setup,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
];
/// What does not exist: its arguments lie behind a pointer, and the C library knows the older call.
const ABSENT: &[libc::c_long] = &[libc::SYS_clone3, libc::SYS_openat2];

fn filter() -> Result<(), seccompiler::Error> {
    let bit = |argument, bit: i32, set: bool| {
        let bit = bit as u64;
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), if set { bit } else { 0 })?;
        SeccompRule::new(vec![condition])
    };
    let mut denied: std::collections::BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    // Threads are allowed, processes are not; so are files that are there already.
    denied.insert(libc::SYS_clone, vec![bit(0, libc::CLONE_THREAD, false)?]);
    denied.insert(libc::SYS_openat, vec![bit(2, libc::O_CREAT, true)?]);
    #[cfg(target_arch = "x86_64")]
    denied.insert(libc::SYS_open, vec![bit(1, libc::O_CREAT, true)?]);
    let absent = ABSENT.iter().map(|call| (*call, Vec::new())).collect();
    for (rules, error) in [(denied, libc::EACCES), (absent, libc::ENOSYS)] {
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(error as u32), std::env::consts::ARCH.try_into()?)?;
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}
