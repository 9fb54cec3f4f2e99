//! Log lines that the network or a plugin can cause are bounded: each side has a budget of its own, so that nobody's lines
//! take the place of another's, and each worker its own budgets. Lines that the level filter leaves out cost nothing.
//!
//! When lines had to be left out, a notice says how many: with the next line of the same budget, or with the worker's tick
//! when none follows, as loud as the loudest of them.
#![forbid(unsafe_code)]

use std::cell::Cell;

use crate::clock;
use crate::error::{Fault, Level, ResourceFault};

/// Lines that one side may cause on each worker in a second.
pub const LINES_PER_SECOND: u32 = 20;
/// Lines about connections that a bound refuses, for each bound: whoever is refused comes again at once.
pub const REFUSALS_PER_SECOND: u32 = 1;

/// Whose lines they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Of what clients do.
    Client,
    /// Of what upstreams do.
    Upstream,
    /// Of what plugins do.
    Plugin,
    /// Of bounds that are reached.
    Resource,
    /// Of connections refused by `limits.connections`.
    Connections,
    /// Of connections refused by `limits.connections_per_address`.
    ConnectionsOfPeer,
}

impl Budget {
    const ALL: [Budget; 6] = [Budget::Client, Budget::Upstream, Budget::Plugin, Budget::Resource, Budget::Connections, Budget::ConnectionsOfPeer];

    /// The budget of lines about this fault.
    pub const fn of(fault: Fault) -> Budget {
        match fault {
            Fault::Client(_) => Budget::Client,
            Fault::Upstream(_) => Budget::Upstream,
            Fault::Plugin(_) => Budget::Plugin,
            Fault::Resource(ResourceFault::ConnectionsExhausted) => Budget::Connections,
            Fault::Resource(ResourceFault::ConnectionsOfPeerExhausted) => Budget::ConnectionsOfPeer,
            Fault::Resource(_) => Budget::Resource,
        }
    }

    const fn lines(self) -> u32 {
        match self {
            Budget::Connections | Budget::ConnectionsOfPeer => REFUSALS_PER_SECOND,
            _ => LINES_PER_SECOND,
        }
    }

    /// What the notice calls it.
    const fn name(self) -> &'static str {
        match self {
            Budget::Client => "client",
            Budget::Upstream => "upstream",
            Budget::Plugin => "plugin",
            Budget::Resource => "resource",
            Budget::Connections => ResourceFault::ConnectionsExhausted.row().reason,
            Budget::ConnectionsOfPeer => ResourceFault::ConnectionsOfPeerExhausted.row().reason,
        }
    }
}

/// A line whose level is a [`Level`]: the arguments are those of the macros of `tracing`.
macro_rules! line {
    ($level:expr, $($arguments:tt)+) => {
        match $level {
            $crate::error::Level::Error => tracing::error!($($arguments)+),
            $crate::error::Level::Warn => tracing::warn!($($arguments)+),
            $crate::error::Level::Info => tracing::info!($($arguments)+),
            $crate::error::Level::Debug => tracing::debug!($($arguments)+),
        }
    };
}
pub(crate) use line;

/// What a budget was spent on.
#[derive(Debug, Clone, Copy)]
struct Spent {
    second: u64,
    lines: u32,
    left_out: u64,
    /// Of the lines left out.
    loudest: Level,
}

thread_local! {
    static SPENT: [Cell<Spent>; Budget::ALL.len()] =
        const { [const { Cell::new(Spent { second: 0, lines: 0, left_out: 0, loudest: Level::Debug }) }; Budget::ALL.len()] };
}

/// Whether a line of this level is to be written now. It takes one from the budget, unless the filter would leave the line out anyway.
pub fn admits(budget: Budget, level: Level) -> bool {
    let is_printed = match level {
        Level::Error => tracing::enabled!(tracing::Level::ERROR),
        Level::Warn => tracing::enabled!(tracing::Level::WARN),
        Level::Info => tracing::enabled!(tracing::Level::INFO),
        Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
    };
    is_printed && take(budget, level, clock::monotonic_ms() / 1000)
}

/// The same for the level of a fault, from the budget of its side.
pub fn admits_fault(fault: Fault) -> bool {
    admits(Budget::of(fault), fault.row().level)
}

fn take(budget: Budget, level: Level, second: u64) -> bool {
    SPENT.with(|spent| {
        let place = &spent[budget as usize];
        let mut spent = place.get();
        if spent.second != second {
            notify(budget, spent);
            spent = Spent { second, lines: 0, left_out: 0, loudest: Level::Debug };
        }
        let admitted = spent.lines < budget.lines();
        if admitted {
            spent.lines += 1;
        } else {
            spent.left_out += 1;
            spent.loudest = spent.loudest.min(level);
        }
        place.set(spent);
        admitted
    })
}

/// Says what was left out in seconds that are over. A worker calls it with its tick, and with `u64::MAX` at its end.
pub fn settle(second: u64) {
    SPENT.with(|spent| {
        for (place, budget) in spent.iter().zip(Budget::ALL) {
            let spent = place.get();
            if spent.left_out > 0 && spent.second != second {
                notify(budget, spent);
                place.set(Spent { left_out: 0, loudest: Level::Debug, ..spent });
            }
        }
    });
}

fn notify(budget: Budget, spent: Spent) {
    if spent.left_out > 0 {
        line!(spent.loudest, about = budget.name(), suppressed = spent.left_out, "log lines were left out: too many in one second");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::filter::LevelFilter;

    use super::*;
    use crate::error::{ClientFault, PluginFault, UpstreamFault};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile, on a thread without history.
    fn logged(level: LevelFilter, work: impl FnOnce() + Send) -> String {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(move || to.clone()).with_ansi(false).without_time().finish();
        std::thread::scope(|scope| {
            scope.spawn(|| tracing::subscriber::with_default(subscriber, work));
        });
        let bytes = lines.0.lock().expect("no test panics with it").clone();
        String::from_utf8(bytes).expect("it is text")
    }

    const SECOND: u64 = 1000;

    #[test]
    fn each_side_spends_its_own_budget() {
        logged(LevelFilter::INFO, || {
            let admitted = |fault: Fault| (0..50).filter(|_| take(Budget::of(fault), fault.row().level, SECOND)).count() as u32;
            assert_eq!(admitted(Fault::Client(ClientFault::BadHost)), LINES_PER_SECOND);
            assert_eq!(admitted(Fault::Client(ClientFault::BadMethod)), 0, "one budget for all faults of a side");
            for fault in [Fault::Upstream(UpstreamFault::ConnectFailed), Fault::Plugin(PluginFault::Aborted), Fault::Resource(ResourceFault::SlotsExhausted)] {
                assert_eq!(admitted(fault), LINES_PER_SECOND, "{fault:?}");
            }
            for fault in [ResourceFault::ConnectionsExhausted, ResourceFault::ConnectionsOfPeerExhausted] {
                assert_eq!(admitted(Fault::Resource(fault)), REFUSALS_PER_SECOND, "{fault:?}");
            }
        });
    }

    #[test]
    fn what_the_filter_leaves_out_costs_nothing() {
        let text = logged(LevelFilter::WARN, || {
            assert!((0..1000).all(|_| !admits_fault(Fault::Client(ClientFault::NoRoute)) && !admits_fault(Fault::Client(ClientFault::BadHost))));
            assert!(admits_fault(Fault::Client(ClientFault::LoopDetected)));
            settle(u64::MAX);
        });
        assert_eq!(text, "");
    }

    #[test]
    fn the_notice_comes_with_the_next_line_or_with_the_tick_and_is_as_loud_as_what_was_left_out() {
        let flood = |budget: Budget, level: Level| assert!((0..100).filter(|_| take(budget, level, SECOND)).count() < 100);
        let text = logged(LevelFilter::ERROR, || {
            flood(Budget::Plugin, Level::Error);
            settle(SECOND);
            assert!(take(Budget::Plugin, Level::Error, SECOND + 1), "a new second, a new budget");
        });
        assert!(text.contains("ERROR") && text.contains("about=\"plugin\" suppressed=80"), "{text:?}");
        let text = logged(LevelFilter::INFO, || {
            flood(Budget::Client, Level::Info);
            flood(Budget::Connections, Level::Warn);
            settle(SECOND);
            settle(SECOND + 1);
            settle(SECOND + 2);
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("INFO") && lines[0].contains("about=\"client\" suppressed=80"), "{text}");
        assert!(lines[1].contains("WARN") && lines[1].contains("about=\"connections_exhausted\" suppressed=99"), "{text}");
    }
}
