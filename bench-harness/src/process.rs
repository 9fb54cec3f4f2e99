//! What processes cost: CPU time, its split, memory; over a whole tree of processes and all their threads.
//!
//! The total comes from each process's CPU clock (ns; exact up to the moment of reading, ended threads included). The
//! split into user and kernel comes from /proc/PID/stat, which counts in clock ticks: it is good over seconds only.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;
use std::{fs, mem};

/// CPU time and memory at one moment, or the difference of two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of all threads, ns.
    pub cpu_ns: u64,
    /// Clock ticks in user mode.
    pub user_ticks: u64,
    /// Clock ticks in the kernel.
    pub system_ticks: u64,
    /// Resident memory, KiB; a page that two processes share counts twice.
    pub rss_kib: u64,
}

impl Usage {
    /// What was used since `earlier`; memory is that of now.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            rss_kib: self.rss_kib,
        }
    }

    /// Reads a set of processes now; one that ended counts as zero.
    pub fn read(pids: &[u32]) -> Usage {
        let mut usage = Usage::default();
        for &pid in pids {
            usage.cpu_ns += process_cpu_ns(pid).unwrap_or(0);
            if let Some(stat) = Stat::read(pid) {
                usage.user_ticks += stat.user_ticks;
                usage.system_ticks += stat.system_ticks;
                usage.rss_kib += stat.rss_pages * page_kib();
            }
        }
        usage
    }
}

/// CPU time of this process so far.
pub fn own_cpu() -> Duration {
    Duration::from_nanos(clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0))
}

/// A process and all its descendants, by pid.
pub fn tree(root: u32) -> Vec<u32> {
    let mut seen = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children(pid) {
            if seen.insert(child) {
                open.push(child);
            }
        }
    }
    seen.into_iter().collect()
}

/// The threads of a process.
pub fn threads(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok()).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()).collect()
}

struct Stat {
    user_ticks: u64,
    system_ticks: u64,
    rss_pages: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Stat> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc_pid_stat(5): the name in parentheses may hold anything, so fields are counted from the last one.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse().ok();
        Some(Stat { user_ticks: number(14)?, system_ticks: number(15)?, rss_pages: number(24)? })
    }
}

/// The CPU clock of a process. The kernel builds its id from the pid (clock_getcpuclockid(3)).
fn process_cpu_ns(pid: u32) -> Option<u64> {
    clock_ns((!(pid as libc::clockid_t) << 3) | 2)
}

fn clock_ns(clock: libc::clockid_t) -> Option<u64> {
    // SAFETY: all zeroes is a valid `timespec`.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: `time` is valid for writes; an unknown clock is an error and not undefined.
    let outcome = unsafe { libc::clock_gettime(clock, &mut time) };
    (outcome == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn page_kib() -> u64 {
    // SAFETY: sysconf(3) takes a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_name_with_spaces_and_parentheses() {
        let text = "7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 11 22 0 0 20 0 1 0 5 1000 33 18446744073709551615";
        let stat = Stat::parse(text).expect("well formed");
        assert_eq!((stat.user_ticks, stat.system_ticks, stat.rss_pages), (11, 22, 33));
    }

    #[test]
    fn the_clock_of_this_process_by_pid_is_its_own_clock() {
        let before = own_cpu();
        let by_pid = Duration::from_nanos(process_cpu_ns(std::process::id()).expect("this process runs"));
        assert!(before <= by_pid && by_pid <= own_cpu());
    }

    #[test]
    fn a_child_belongs_to_the_tree_and_its_work_is_seen() {
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 5 & wait"]).spawn().expect("sh exists");
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while tree(child.id()).len() < 2 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let pids = tree(child.id());
        assert_eq!(pids.len(), 2, "sh and sleep");
        assert!(Usage::read(&pids).cpu_ns > 0);
        for pid in pids {
            // SAFETY: kill(2) takes numbers; both processes were started here and the first is not reaped yet.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        child.wait().expect("it was started here");
    }
}
