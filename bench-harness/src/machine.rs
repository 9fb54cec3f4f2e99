//! The machine under measurement: what it is, which cores may be used, pinning, limits.
//!
//! Every fact is read where the kernel states it; a fact that can't be read is `None` in the record, never guessed.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use std::{fs, io, mem};

/// The record of the machine that goes with every stored run.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Machine {
    /// When the run began, RFC 3339 in UTC.
    pub date: String,
    /// CPU model of the first core.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: Vec<usize>,
    /// Frequency governor of the first core, when the kernel shows one.
    pub governor: Option<String>,
    /// Kernel release and version.
    pub kernel: String,
    /// Whether a hypervisor is visible to the CPU.
    pub virtualized: bool,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Load average over one minute at the start: others that ran on this machine.
    pub load_average: Option<f64>,
}

impl Machine {
    /// Reads the record now.
    pub fn read() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let word = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        let release = word("/proc/sys/kernel/osrelease").unwrap_or_default();
        let version = word("/proc/sys/kernel/version").unwrap_or_default();
        Ok(Self {
            date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            cpu: field("model name").or_else(|| field("CPU part")).unwrap_or_else(|| "unknown".into()),
            cores: allowed_cores()?,
            governor: word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            kernel: format!("{release} {version}").trim().to_owned(),
            virtualized: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_mib: memory_kib / 1024,
            load_average: word("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        })
    }
}

/// Which cores the measured proxy, the load generator and the origin run on.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Placement {
    /// Cores of the proxy, first one used with one worker.
    pub peer: Vec<usize>,
    /// Core of the load generator.
    pub load: usize,
    /// Core of the origin.
    pub origin: usize,
}

impl Placement {
    /// The proxy takes the first cores, load generator and origin the last; with two cores these two share one.
    pub fn choose(cores: &[usize]) -> Result<Self> {
        let (Some(&last), true) = (cores.last(), cores.len() >= 2) else {
            bail!("a comparison needs two cores, one for the proxy and one for load and origin; this process may use {cores:?}");
        };
        let origin = if cores.len() >= 4 { cores[cores.len() - 2] } else { last };
        let peer = match cores.len() {
            2 | 3 => vec![cores[0], cores[1]],
            _ => cores[..cores.len() - 2].to_vec(),
        };
        Ok(Self { peer, load: last, origin })
    }

    /// The cores of a proxy with this many workers.
    pub fn peer_cores(&self, workers: usize) -> Option<&[usize]> {
        self.peer.get(..workers)
    }
}

/// The cores that this process may run on.
pub fn allowed_cores() -> Result<Vec<usize>> {
    // SAFETY: `cpu_set_t` is a plain bit array, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is valid for writes of its own size, and pid 0 is this thread.
    let outcome = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if outcome != 0 {
        return Err(io::Error::last_os_error()).context("reading the CPU affinity of this process");
    }
    // SAFETY: the index stays below CPU_SETSIZE, the number of bits of `set`.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// The kernel's form of a set of cores.
pub fn core_set(cores: &[usize]) -> libc::cpu_set_t {
    // SAFETY: `cpu_set_t` is a plain bit array, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index was just checked to be below CPU_SETSIZE.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    set
}

/// Pins the calling thread to one core.
pub fn pin_thread(core: usize) -> Result<()> {
    let set = core_set(&[core]);
    // SAFETY: `set` is valid for reads of its own size, and pid 0 is this thread.
    let outcome = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if outcome != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("pinning a thread to core {core}"));
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard one and returns it.
pub fn raise_file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 1024;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY: `raised` is valid for reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 { limit.rlim_max } else { limit.rlim_cur }
}

/// Lets timers of this thread fire within a microsecond instead of the default 50 µs.
pub fn sharpen_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes one number and touches no memory; failing leaves the default.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000 as libc::c_ulong) };
}

/// Asks the scheduler to give a thread (0: the calling one) the CPU for this long at a time, instead of some 3 ms.
///
/// Where load and origin share a core, this keeps one from waiting milliseconds for the other, which would show as the
/// proxy's tail latency. Kernels before 6.12 have no such request and ignore it; zero takes it back.
pub fn request_time_slice(thread: u32, slice: Duration) {
    #[repr(C)]
    struct SchedulerAttributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    let attributes = SchedulerAttributes {
        size: size_of::<SchedulerAttributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime_ns: slice.as_nanos() as u64,
        deadline_ns: 0,
        period_ns: 0,
    };
    // SAFETY: `attributes` has the layout of sched_setattr(2), states its own size, and is only read. A refusal leaves
    // the default.
    unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_never_shares_its_first_core() {
        for count in 2..16 {
            let cores: Vec<usize> = (0..count).collect();
            let placement = Placement::choose(&cores).expect("two or more");
            assert_ne!(placement.peer[0], placement.load);
            assert_ne!(placement.peer[0], placement.origin);
            assert_eq!(placement.peer_cores(1), Some(&cores[..1]));
        }
        assert!(Placement::choose(&[3]).is_err());
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = Machine::read().expect("Linux");
        assert!(!machine.cores.is_empty());
        assert!(machine.memory_mib > 0);
    }
}
