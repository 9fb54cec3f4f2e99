//! An upgrade: another program is started beside the process that serves, with what is in force, and takes over from it.
//!
//! Owns `Upgrade` and its steps. First the process that serves is told, and says when it makes no more changes; then the
//! other one is started; when that has loaded everything, it is told to accept connections, and when it does, it takes over.
//! What can change all the same (a SIGHUP, a quarantine, a program that knows nothing of this) is found by comparing what is
//! in force with what the new process was given: when they differ, it is started anew. Must not: hand over to a process that
//! runs anything else than what is in force, so that no change that was answered is undone; leave one behind that accepts
//! connections and that nobody leads; end one that has accepted any.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::child::{Binary, Child, words};
use super::protocol::ToGateway;
use super::{InForce, Supervisor, link};

/// For a new process to be ready: plugins load meanwhile. Before that, for the process that serves to make the changes that it has begun.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the new process is started, the first time included.
const TRIES: u32 = 4;

/// An upgrade that is under way.
pub(super) struct Upgrade {
    /// Counts the upgrades of this supervisor.
    number: u64,
    binary: Arc<Binary>,
    /// For the step that is next.
    deadline: Instant,
    /// The process that has said that it makes no changes while this goes on.
    held_by: Option<u64>,
    begun: Option<Begun>,
    tries: u32,
    /// A SIGHUP came while it is under way: whoever serves at its end reads the file again.
    owes_reload: bool,
}

/// A process that is to follow the one that serves.
struct Begun {
    child: Child,
    /// What it was started with.
    given: InForce,
    is_ready: bool,
}

impl Upgrade {
    /// The process that is to follow, once it has been started.
    pub(super) fn child(&mut self) -> Option<&mut Child> {
        self.begun.as_mut().map(|begun| &mut begun.child)
    }

    /// Whoever serves at its end reads the configuration again.
    pub(super) fn owe_reload(&mut self) {
        self.owes_reload = true;
    }

    /// The process of that number makes no more changes while the upgrade `upgrade` is under way.
    pub(super) fn note_held(&mut self, number: u64, upgrade: u64) {
        if upgrade == self.number {
            self.held_by = Some(number);
        }
    }

    /// The process of that number can accept connections.
    pub(super) fn note_loaded(&mut self, number: u64) {
        self.child().into_iter().filter(|child| child.number == number).for_each(|child| child.is_loaded = true);
    }

    /// The process of that number accepts connections.
    pub(super) fn note_ready(&mut self, number: u64) {
        if let Some(begun) = self.begun.as_mut().filter(|begun| begun.child.number == number) {
            begun.is_ready = true;
        }
    }
}

impl Supervisor {
    /// An upgrade to the program at `path` is wanted: `is_asked` by the operator of the process that serves, who is told what comes of it;
    /// otherwise by a signal.
    pub(super) fn upgrade(&mut self, path: &Path, is_asked: bool) {
        let outcome = match (&self.serving, &self.next) {
            _ if self.is_ending => Err("the gateway is draining".to_owned()),
            (_, Some(_)) => Err("an upgrade is under way".to_owned()),
            (Some(serving), None) if serving.is_ready => Binary::open(path).map_err(|error| format!("{} cannot be started: {error}", path.display())),
            _ => Err("the gateway process is being restarted".to_owned()),
        };
        match outcome {
            Ok(binary) => {
                self.upgrades += 1;
                tracing::info!(binary = %path.display(), "upgrade: ordered");
                self.next = Some(Upgrade {
                    number: self.upgrades,
                    binary: Arc::new(binary),
                    deadline: Instant::now() + READY_TIMEOUT,
                    held_by: None,
                    begun: None,
                    tries: 0,
                    owes_reload: false,
                });
                self.announce_upgrade();
            }
            Err(reason) => {
                tracing::error!("the upgrade changed nothing: {reason}");
                let is_under_way = self.next.is_some();
                if let Some(serving) = self.serving.as_mut().filter(|_| is_asked) {
                    serving.tell(&ToGateway::UpgradeFailed { reason, is_under_way });
                }
            }
        }
    }

    /// Tells the process that serves of the upgrade that is under way, when there is one and it understands that.
    pub(super) fn announce_upgrade(&mut self) {
        if let (Some(upgrade), Some(serving)) = (&self.next, self.serving.as_mut().filter(|child| child.is_ready && child.can_hold)) {
            serving.tell(&ToGateway::UpgradeBegins { number: upgrade.number });
        }
    }

    /// Takes the step that is due. Called after everything that has happened.
    pub(super) fn proceed_with_upgrade(&mut self) {
        let Some(next) = &mut self.next else { return };
        let serving = self.serving.as_ref().filter(|child| child.is_ready);
        let holds_still = |child: &Child| !child.can_hold || next.held_by == Some(child.number);
        // One that is just being restarted changes nothing.
        let (serves_and_holds, nothing_changes) = (serving.is_some_and(holds_still), serving.is_none_or(holds_still));
        match &mut next.begun {
            None if serves_and_holds => self.start_next(),
            Some(begun) if begun.given != self.in_force => self.start_next_anew(),
            Some(begun) if begun.is_ready && nothing_changes => self.hand_over(),
            Some(begun) if nothing_changes => begun.child.let_serve(),
            _ => {}
        }
    }

    fn start_next(&mut self) {
        let Some(mut next) = self.next.take() else { return };
        let path = next.binary.path.display().to_string();
        match self.start_child(&next.binary, false) {
            Ok(child) => {
                tracing::info!(binary = path, pid = child.pid(), "upgrade: a new gateway process starts");
                next.begun = Some(Begun { child, given: self.in_force.clone(), is_ready: false });
                next.deadline = Instant::now() + READY_TIMEOUT;
                next.tries += 1;
                self.next = Some(next);
            }
            Err(error) => self.upgrade_failed(format!("{path} cannot be started: {error}")),
        }
    }

    /// What is in force is not what the process was given.
    fn start_next_anew(&mut self) {
        let Some(next) = &mut self.next else { return };
        let (former, tries) = (next.begun.take(), next.tries);
        if tries < TRIES {
            tracing::info!("upgrade: what is in force has changed, so that the new process begins anew");
            self.start_next();
        } else {
            self.next = None;
            self.upgrade_failed(format!("what is in force was changed each of the {tries} times that the new process was started"));
        }
        former.into_iter().for_each(|begun| self.dismiss(begun));
    }

    /// A process that was to follow and does not.
    fn dismiss(&mut self, Begun { mut child, is_ready, .. }: Begun) {
        child.is_ready = is_ready;
        child.dismiss(process::id());
        self.leaving.push(child);
    }

    /// The new process serves from now on.
    fn hand_over(&mut self) {
        let Some((Begun { mut child, .. }, owes_reload)) = self.next.take().and_then(|next| Some((next.begun?, next.owes_reload))) else { return };
        tracing::info!(pid = child.pid(), binary = %child.binary.path.display(), "upgrade: the new gateway process serves");
        child.put_in_charge();
        child.on_ready();
        if std::mem::take(&mut self.owes_reload) || owes_reload {
            child.reload();
        }
        self.binary = Arc::clone(&child.binary);
        self.program.clone_from(&child.binary.path);
        self.short_lives = 0;
        self.restart_at = None;
        let successor = child.pid();
        if let Some(mut old) = self.serving.replace(child) {
            old.dismiss(successor);
            self.leaving.push(old);
        }
    }

    /// The upgrade that is under way ends without success, when there is one.
    pub(super) fn give_up_upgrade(&mut self, reason: String) {
        let Some(next) = self.next.take() else { return };
        next.begun.into_iter().for_each(|begun| self.dismiss(begun));
        self.upgrade_failed(reason);
    }

    /// Whoever asked for it, the process that serves may make changes again.
    fn upgrade_failed(&mut self, reason: String) {
        tracing::error!("the upgrade changed nothing: {reason}");
        if let Some(serving) = self.serving.as_mut().filter(|child| child.is_ready) {
            serving.tell(&ToGateway::UpgradeFailed { reason, is_under_way: false });
        }
    }

    /// Takes note that the new process has ended.
    pub(super) fn bury_next(&mut self) {
        if let Some(status) = self.next.as_mut().and_then(|next| next.child()?.ended()) {
            let failure = self.next.take().and_then(|mut next| link::failure(&next.child()?.record()));
            self.upgrade_failed(failure.unwrap_or_else(|| format!("the new process ended ({}) before it was ready", words(status))));
        }
    }

    pub(super) fn look_at_upgrade_deadline(&mut self, now: Instant) {
        if let Some(next) = self.next.as_ref().filter(|next| now > next.deadline) {
            let whose = match &next.begun {
                Some(begun) if !begun.is_ready => "the new process was not ready",
                _ => "the changes that had begun were not made",
            };
            self.give_up_upgrade(format!("{whose} within {} s", READY_TIMEOUT.as_secs()));
        }
    }
}
