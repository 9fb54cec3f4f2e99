//! The signals of a process that serves. Those that operators send to services are never left to their default action, which
//! would end the process; what each of them means is the business of `run` and `supervisor` (docs/operations.md has the table).
#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// The signals that are caught from the first moment on.
const KEPT: [i32; 4] = [SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];

/// They are caught; one that comes before [`Caught::forward`] waits for it.
pub struct Caught(Signals);

impl Caught {
    /// Catches them from now on.
    ///
    /// # Errors
    /// Those of sigaction.
    pub fn from_now_on() -> io::Result<Caught> {
        // A log that has reached the bound of its size (`ulimit -f`) is an error of `write`, as a full disk is.
        flag::register(SIGXFSZ, Arc::default())?;
        Signals::new(KEPT).map(Caught)
    }

    /// They and these become events, on a thread of their own.
    ///
    /// # Errors
    /// When the others cannot be caught, or there is no thread.
    pub fn forward<E: Send + 'static>(mut self, others: &[i32], to: mpsc::Sender<E>, event: impl Fn(i32) -> E + Send + 'static) -> io::Result<()> {
        for signal in others {
            self.0.add_signal(*signal)?;
        }
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in self.0.forever() {
                if to.send(event(signal)).is_err() {
                    return;
                }
            }
        })?;
        Ok(())
    }
}

/// The name of a signal, for logs.
pub fn name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_has_reached_its_bound_is_not_the_end() {
        let _caught = Caught::from_now_on().expect("signals are caught");
        signal_hook::low_level::raise(SIGXFSZ).expect("sent");
    }
}
