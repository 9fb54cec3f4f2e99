//! Clocks. The coarse ones read no time stamp counter: a few nanoseconds, a few milliseconds of resolution; that is
//! enough for deadlines, dates and `received_unix_ns`. The precise one costs 36–97 ns on virtual machines
//! (`benches/README.md`), so it is read only when somebody asked.

/// Nanoseconds since the epoch, coarse.
#[inline]
pub fn unix_ns_coarse() -> u64 {
    nanoseconds(libc::CLOCK_REALTIME_COARSE)
}

/// Nanoseconds since the epoch, precise.
pub fn unix_ns() -> u64 {
    nanoseconds(libc::CLOCK_REALTIME)
}

/// Milliseconds of a clock that never goes back, coarse; only differences mean something.
#[inline]
pub fn monotonic_ms() -> u64 {
    let time = read(libc::CLOCK_MONOTONIC_COARSE);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Nanoseconds of a clock that never goes back, precise.
pub fn monotonic_ns() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC)
}

#[inline]
fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let time = read(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[inline]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer; these clocks exist on every Linux that has io_uring or epoll.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time
}

#[cfg(test)]
mod tests {
    #[test]
    fn clocks_agree_to_the_second() {
        let (coarse, precise) = (super::unix_ns_coarse(), super::unix_ns());
        assert!(precise.abs_diff(coarse) < 1_000_000_000);
    }
}
