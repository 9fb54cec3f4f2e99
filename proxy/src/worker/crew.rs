//! The workers as the process sees them: commands, ticks, and publishing to all of them or none.
//!
//! Owns: the clock thread, whose bytes are the workers' ticks, and the coordination of the two phases. Must not: decide
//! what is published.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::program::{Blueprint, PluginCounts};
use super::{Command, Publication, Reply, TICK_MS, Worker};
use crate::exchange::capture::{Capture, Taken, Taking};
use crate::upstream;

/// How long all workers together may take to build a program: `core_init` of plugins runs meanwhile.
pub const PREPARE_MS: u64 = 30_000;
/// How long they may take to put it in force, which is a few stores at their next tick.
const COMMIT_MS: u64 = 10_000;

/// Commands that wait for the next tick of a worker.
pub type Commands = Arc<Mutex<VecDeque<Command>>>;

/// All workers.
pub struct Crew {
    members: Vec<Member>,
    /// The ends of the tick pipes. The clock thread ends with them.
    ticks: Arc<Vec<UnixStream>>,
}

struct Member {
    worker: Worker,
    commands: Commands,
}

impl Crew {
    /// Takes charge of started workers; each with its commands and our end of its tick pipe.
    ///
    /// # Errors
    /// When the clock thread cannot be made.
    pub fn new(workers: Vec<(Worker, Commands, UnixStream)>) -> io::Result<Crew> {
        let mut ticks = Vec::with_capacity(workers.len());
        let members = workers.into_iter().map(|(worker, commands, tick)| {
            ticks.push(tick);
            Member { worker, commands }
        });
        let members = members.collect();
        let ticks = Arc::new(ticks);
        let theirs = Arc::downgrade(&ticks);
        thread::Builder::new().name("clock".into()).spawn(move || {
            while let Some(ticks) = theirs.upgrade() {
                tick(&ticks);
                drop(ticks);
                thread::sleep(Duration::from_millis(TICK_MS));
            }
        })?;
        Ok(Crew { members, ticks })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Gives every worker a command and wakes it.
    pub fn command(&self, make: impl Fn() -> Command) {
        self.command_each(|_| make());
    }

    fn command_each(&self, mut make: impl FnMut(usize) -> Command) {
        for (at, member) in self.members.iter().enumerate() {
            member.commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(make(at));
        }
        tick(&self.ticks);
    }

    /// Builds the program on every worker, then puts it in force on all of them; exchanges that begin after this returned
    /// run on it. `counts` is by worker.
    ///
    /// # Errors
    /// The reason of the worker that could not build it. Nothing has changed then.
    pub fn publish(&self, blueprint: &Arc<Blueprint>, upstreams: &Arc<upstream::Shared>, counts: &[PluginCounts]) -> Result<(), String> {
        let built = self.gather(PREPARE_MS, |at, reply| {
            Command::Prepare(Box::new(Publication { blueprint: Arc::clone(blueprint), upstreams: Arc::clone(upstreams), counts: counts[at].clone(), reply }))
        });
        if let Err(reason) = built {
            self.command(|| Command::Abandon);
            return Err(reason);
        }
        if let Err(reason) = self.gather(COMMIT_MS, |_, reply| Command::Commit(reply)) {
            // Every worker has built it and has the command: it is in force, or the worker is no more.
            tracing::error!(reason, "a worker is late to take up the new program");
        }
        Ok(())
    }

    /// Has every worker copy exchanges; `bytes` in all. What each has taken goes to `to` when the capture is over.
    pub fn capture(&self, capture: &Arc<Capture>, bytes: usize, to: &mpsc::Sender<Taken>) {
        let room = bytes / self.count().max(1);
        self.command(|| Command::Capture(Box::new(Taking { capture: Arc::clone(capture), taken: Taken::with_room(room), to: to.clone() })));
    }

    /// One command for each worker, and the answers of all.
    fn gather(&self, within_ms: u64, mut make: impl FnMut(usize, Reply) -> Command) -> Result<(), String> {
        let (reply, answers) = mpsc::channel();
        self.command_each(|at| make(at, reply.clone()));
        drop(reply);
        let deadline = Instant::now() + Duration::from_millis(within_ms);
        let mut outcome = Ok(());
        for _ in 0..self.members.len() {
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((_, Ok(()))) => {}
                // The others are awaited, so that nothing of a failed publication is still being built.
                Ok((_, Err(reason))) => outcome = outcome.and(Err(reason)),
                Err(RecvTimeoutError::Timeout) => return outcome.and(Err(format!("a worker did not answer within {within_ms} ms"))),
                Err(RecvTimeoutError::Disconnected) => return outcome.and(Err("a worker has ended".into())),
            }
        }
        outcome
    }

    /// Whether every worker has ended.
    pub fn is_finished(&self) -> bool {
        self.members.iter().all(|member| member.worker.thread.is_finished())
    }

    /// Waits for the end of every worker; whether all ended well.
    pub fn join(self) -> bool {
        let Crew { members, ticks } = self;
        // A worker that still waits for ticks ends with them.
        drop(ticks);
        let mut well = true;
        for member in members {
            match member.worker.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    tracing::error!("{reason}");
                    well = false;
                }
                Err(_) => {
                    tracing::error!("a worker panicked");
                    well = false;
                }
            }
        }
        well
    }
}

/// Wakes every worker. A full pipe means that a wake is on its way already.
fn tick(ticks: &[UnixStream]) {
    for mut tick in ticks {
        let _ = tick.write(&[0]);
    }
}
