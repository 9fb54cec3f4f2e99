//! Log lines that the network or a plugin can cause are bounded: at most so many a second for each worker, and the next
//! line after a pause says how many were left out.

use std::cell::Cell;

use crate::clock;

/// Lines each worker may write in a second, of those that outsiders can cause.
pub const LINES_PER_SECOND: u32 = 20;

thread_local! {
    static WINDOW: Cell<(u64, u32, u64)> = const { Cell::new((0, 0, 0)) };
}

/// Writes the line unless this thread has written too many in this second.
pub fn warn_limited(write: impl FnOnce()) {
    let second = clock::monotonic_ms() / 1000;
    let (begun, lines, suppressed) = WINDOW.get();
    if begun != second {
        if suppressed > 0 {
            tracing::warn!(suppressed, "log lines were left out: too many in one second");
        }
        WINDOW.set((second, 1, 0));
        write();
    } else if lines < LINES_PER_SECOND {
        WINDOW.set((begun, lines + 1, suppressed));
        write();
    } else {
        WINDOW.set((begun, lines, suppressed + 1));
    }
}
