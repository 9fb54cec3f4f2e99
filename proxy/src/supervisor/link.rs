//! The gateway process's side: it takes over what the supervisor gives it, serves, and says what has changed.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde_json::json;

use super::protocol::{Brief, FromGateway, Hashes, PROTOCOL, Standings, ToGateway};
use super::sockets::{Sockets, take};
use super::{fatal, logs_of};
use crate::admin::control::Control;
use crate::admin::former::Former;
use crate::config::Config;
use crate::logs;
use crate::run::{self, Gateway, Given};
use crate::signals::Caught;
use crate::upstream::resolve::Known;

/// The line to the supervisor.
pub struct Link {
    control: UnixStream,
    /// What it says. One reader from the first line on: it may have said more by the time that is read.
    said: Option<BufReader<UnixStream>>,
    /// The supervisor says when to serve.
    pub waits: bool,
    /// What it was last told about.
    in_force: Option<(String, Standings, Hashes, Arc<Known>)>,
}

/// Serves as the process of a supervisor that is at the other end of `control`, until it is told to stop. The exit code.
pub fn serve(control: RawFd) -> i32 {
    let caught = match Caught::from_now_on() {
        Ok(caught) => caught,
        Err(error) => {
            eprintln!("error: signals cannot be handled: {error}");
            return 1;
        }
    };
    let begun = take(control).map(UnixStream::from).and_then(|control| {
        // As long as it is busy with loading, the end of the supervisor ends it: nobody would end it later.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if Some(socket_peercred(&control)?.pid) != getppid() {
            return Err(io::Error::other("the supervisor is gone"));
        }
        let mut said = BufReader::new(control.try_clone()?);
        Ok((receive(&mut said)?, control, said))
    });
    let (brief, control, said) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            eprintln!("error: this command is for `ringway run`, which starts it with what it needs: {error}");
            return 2;
        }
    };
    let installed = take(brief.record).and_then(|record| Ok((File::from(record.try_clone()?), fatal::install(record)?)));
    let mut record = match installed {
        Ok((record, ())) => record,
        Err(error) => {
            eprintln!("error: there is no place for crash records: {error}");
            return 1;
        }
    };
    let mut link = Link { control, said: Some(said), waits: false, in_force: None };
    match start(brief, &mut link) {
        Ok((gateway, logs)) => {
            let code = gateway.serve(caught, Some(link));
            drop(logs);
            code
        }
        Err(reason) => {
            // Read when the process has ended, so that it is not missed.
            let _ = writeln!(record, "{FAILURE} {}", json!(reason));
            1
        }
    }
}

/// The key of a start's failure in the record, which is a JSON text there.
const FAILURE: &str = "failure";

/// Why a process could not start, from its record.
pub(super) fn failure(record: &str) -> Option<String> {
    record.lines().find_map(|line| serde_json::from_str(line.strip_prefix(FAILURE)?).ok())
}

fn start(brief: Brief, link: &mut Link) -> Result<(Gateway, logs::Logs), String> {
    let config = Config::of_file(&brief.path, &brief.text).map_err(|errors| errors.to_string())?;
    let logs = logs_of(&config.server)?;
    let started = if brief.protocol > PROTOCOL {
        Err(format!("the supervisor speaks version {} of its language, this program only {PROTOCOL}", brief.protocol))
    } else {
        Sockets::inherit(&brief.listeners, brief.admin.as_ref()).and_then(|sockets| {
            link.waits = brief.waits;
            let former = Former { standings: brief.standings, hashes: brief.plugins, has_died: brief.is_restart };
            let given = Given { sockets: Some(sockets), former, crashes: brief.crashes, restarts: brief.restarts, known: brief.known };
            Gateway::start_with(config, given)
        })
    };
    match started {
        Ok(gateway) => Ok((gateway, logs)),
        Err(reason) => {
            tracing::error!("{reason}");
            // The line is written before the process ends.
            drop(logs);
            Err(reason)
        }
    }
}

fn receive(said: &mut BufReader<UnixStream>) -> io::Result<Brief> {
    let mut line = String::new();
    said.read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

impl Link {
    /// What the supervisor says becomes events, on a thread of its own; its end does, too. Once.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn listen(&mut self, to: mpsc::Sender<run::Event>) -> io::Result<()> {
        let said = self.said.take();
        thread::Builder::new().name("supervisor".into()).spawn(move || {
            for line in said.into_iter().flat_map(BufRead::lines) {
                let Ok(line) = line else { break };
                match serde_json::from_str::<ToGateway>(&line) {
                    Ok(said) => drop(to.send(run::Event::Supervisor(said))),
                    Err(error) => tracing::warn!(%error, "the supervisor says what this process does not understand"),
                }
            }
            // The process may be ending as well.
            let _ = to.send(run::Event::Orphaned);
        })?;
        Ok(set_parent_process_death_signal(None)?)
    }

    /// Tells the supervisor something. It cannot be gone without [`run::Event::Orphaned`].
    pub fn tell(&mut self, what: &FromGateway) {
        let Ok(mut line) = serde_json::to_string(what) else { return };
        line.push('\n');
        if let Err(error) = self.control.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the supervisor does not listen");
        }
    }

    /// What another process starts with is heard of the one that serves alone, which this may be only now: it is told next time, changed or not.
    pub fn repeat_in_force(&mut self) {
        self.in_force = None;
    }

    /// Tells it what another process is to start with, when that has changed.
    pub fn tell_in_force(&mut self, control: &Control) {
        let Some(text) = &control.config().text else { return };
        let now = (text.to_string(), control.standings(), control.hashes(), control.known());
        if self.in_force.as_ref() != Some(&now) {
            let (text, standings, plugins, known) = now.clone();
            self.tell(&FromGateway::InForce { text, standings, known: Some((*known).clone()), plugins, can_hold: true });
            self.in_force = Some(now);
        }
    }
}
