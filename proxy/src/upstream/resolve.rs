//! Host names of servers, looked up on threads of their own: the system's resolver blocks.
//!
//! [`Names`] knows each name of the configuration in force: its addresses, and when it is looked up next. Addresses belong to the name and not to an
//! upstream, so a change of the configuration keeps them, and so does another process that is given them. One thread decides what is due; each
//! look-up has a thread of its own, up to a bound, so that no name waits for one that is silent.
//!
//! Life of a name: [`Names::want`] before a configuration needs it, [`Names::fill`] gives its addresses to the upstreams that are about to be
//! published, [`Names::follow`] keeps exactly those of the configuration in force up to date and forgets the others.
//!
//! Must not: block whoever asks, except [`Names::wait`], which has a deadline.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::{SharedUpstream, Target};
use crate::config::{ServerAddress, Upstream};
use crate::limits::{ADDRESSES_MAX, KNOWN_ADDRESSES_MAX, NAME_LOOKUPS, NAME_REMINDER, NAME_RETRY, NAME_RETRY_MAX};

/// Addresses by name, with port 0. A name without addresses is one that was asked for in vain: nobody need wait for it again.
pub type Known = BTreeMap<String, Vec<SocketAddr>>;

type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The names of servers. Dropping it ends its threads.
pub struct Names {
    book: Arc<Book>,
}

struct Book {
    state: Mutex<State>,
    /// Something is due, was answered, or is to end.
    changed: Condvar,
    look_up: Box<LookUp>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, Name>,
    /// What another process is to be given.
    known: Arc<Known>,
    /// Look-ups under way.
    running: usize,
    /// There is a thread that looks what is due.
    is_started: bool,
    is_closed: bool,
}

#[derive(Default)]
struct Name {
    addresses: Vec<SocketAddr>,
    /// A look-up has ended, or nobody is to wait for it any more.
    is_answered: bool,
    is_running: bool,
    /// When it is looked up next; `None`: it need not be.
    due: Option<Instant>,
    /// How long after a success; 0: not again.
    again_ms: u32,
    failing: Option<Failing>,
    /// Whose addresses follow it.
    users: Vec<User>,
    /// The names of their upstreams, or of those that are to be, for the log.
    upstreams: Vec<String>,
}

struct User {
    upstream: Arc<SharedUpstream>,
    server: usize,
    port: u16,
}

/// A name whose last look-up failed.
#[derive(Debug, Clone, Copy)]
struct Failing {
    /// In a row.
    times: u32,
    since: Instant,
    /// When the log said so last.
    said: Instant,
}

/// What the log is told about a look-up.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    /// New addresses, or some again after so many failures.
    Resolved {
        addresses: usize,
        failures: u32,
    },
    /// The first failure; whether there are addresses to go on with.
    Failed {
        is_known: bool,
    },
    /// It goes on failing.
    StillFailing {
        failures: u32,
        seconds: u64,
    },
}

impl Names {
    /// With what another process knew, and the system's resolver.
    pub fn new(given: Known) -> Names {
        Names::with(given, Box::new(|name| Ok((name, 0).to_socket_addrs()?.collect())))
    }

    fn with(given: Known, look_up: Box<LookUp>) -> Names {
        let now = Instant::now();
        let seen = |(name, addresses)| (name, Name { addresses: checked(addresses), is_answered: true, due: Some(now), ..Name::default() });
        let state = State { names: given.into_iter().map(seen).collect(), ..State::default() };
        Names { book: Arc::new(Book { state: Mutex::new(state), changed: Condvar::new(), look_up }) }
    }

    /// Has the names of these upstreams looked up now, whether they are known or not. Those that nobody has answered for yet are
    /// returned: what is published without them has servers without addresses.
    pub fn want<'a>(&self, upstreams: impl Iterator<Item = &'a Upstream>) -> Vec<String> {
        let (mut state, now) = (self.book.lock(), Instant::now());
        let mut unknown = Vec::new();
        for upstream in upstreams {
            for (host, _) in upstream.servers.iter().filter_map(|server| named(&server.address)) {
                let name = state.names.entry(host.to_owned()).or_default();
                name.again_ms = sooner(name.again_ms, upstream.resolve_ms);
                name.due = Some(now);
                name.used_by(&upstream.name);
                if !name.is_answered && !unknown.iter().any(|other| other == host) {
                    unknown.push(host.to_owned());
                }
            }
        }
        self.book.wake(&mut state);
        unknown
    }

    /// Which of these nobody has answered for yet.
    pub fn missing(&self, names: &[String]) -> Vec<String> {
        self.book.lock().missing(names)
    }

    /// Waits until all of these are answered for, or until the time has passed. Those that are not are returned.
    pub fn wait(&self, names: &[String], patience: Duration) -> Vec<String> {
        let waiting = self.book.changed.wait_timeout_while(self.book.lock(), patience, |state| !state.missing(names).is_empty());
        waiting.unwrap_or_else(PoisonError::into_inner).0.missing(names)
    }

    /// Nobody is to wait for these any more. They are looked up as before.
    pub fn give_up(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        tracing::warn!(names = names.join(", "), "names of servers are not answered for yet: going on without them");
        let mut state = self.book.lock();
        for name in names {
            if let Some(name) = state.names.get_mut(name) {
                name.is_answered = true;
            }
        }
        state.note_known();
    }

    /// Gives upstreams that nobody uses yet the addresses that are known.
    pub fn fill<'a>(&self, upstreams: impl Iterator<Item = &'a Arc<SharedUpstream>>) {
        let state = self.book.lock();
        for user in upstreams.flat_map(users) {
            if let Some((host, _)) = named(&user.upstream.servers[user.server].address)
                && let Some(name) = state.names.get(host)
            {
                user.give(&name.addresses);
            }
        }
    }

    /// From now on these upstreams are kept up to date, and no others. Returns the names that nobody has answered for yet.
    pub fn follow<'a>(&self, upstreams: impl Iterator<Item = &'a Arc<SharedUpstream>>) -> Vec<String> {
        let (mut state, now) = (self.book.lock(), Instant::now());
        for name in state.names.values_mut() {
            name.users.clear();
            name.upstreams.clear();
            name.again_ms = 0;
        }
        for user in upstreams.flat_map(users) {
            let Some((host, _)) = named(&user.upstream.servers[user.server].address) else { continue };
            let name = state.names.entry(host.to_owned()).or_insert_with(|| Name { due: Some(now), ..Name::default() });
            name.again_ms = sooner(name.again_ms, user.upstream.config.resolve_ms);
            user.give(&name.addresses);
            name.used_by(&user.upstream.config.name);
            name.users.push(user);
        }
        state.names.retain(|_, name| !name.users.is_empty());
        for name in state.names.values_mut().filter(|name| name.again_ms > 0) {
            let latest = now + Duration::from_millis(u64::from(name.again_ms));
            name.due = Some(name.due.map_or(latest, |due| due.min(latest)));
        }
        state.note_known();
        self.book.wake(&mut state);
        state.names.iter().filter(|(_, name)| !name.is_answered).map(|(host, _)| host.clone()).collect()
    }

    /// Those without addresses.
    pub fn unresolved(&self) -> Vec<String> {
        let state = self.book.lock();
        state.names.iter().filter(|(_, name)| name.addresses.is_empty()).map(|(host, _)| host.clone()).collect()
    }

    /// What another process is to be given. The same `Arc` while nothing has changed.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.book.lock().known)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.book.lock().is_closed = true;
        self.book.changed.notify_all();
    }
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is due has changed.
    fn wake(self: &Arc<Book>, state: &mut State) {
        if !state.is_started && !state.names.is_empty() {
            state.is_started = true;
            let book = Arc::clone(self);
            if let Err(error) = thread::Builder::new().name("names".into()).spawn(move || book.run()) {
                state.is_started = false;
                tracing::error!(%error, "no thread for resolving names; addresses stay as they are");
            }
        }
        self.changed.notify_all();
    }

    /// Begins what is due, until the end.
    fn run(self: &Arc<Book>) {
        let mut state = self.lock();
        while !state.is_closed {
            let now = Instant::now();
            let wait = match state.next_due() {
                Some((due, host)) if due <= now => {
                    state.begin(&host);
                    drop(state);
                    self.begin(host);
                    state = self.lock();
                    continue;
                }
                Some((due, _)) => due - now,
                // Whatever makes one due wakes this thread.
                None => Duration::from_millis(u64::from(NAME_REMINDER)),
            };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn begin(self: &Arc<Book>, host: String) {
        let (book, name) = (Arc::clone(self), host.clone());
        let spawned = thread::Builder::new().name("resolve".into()).spawn(move || {
            let found = (book.look_up)(&name);
            book.end(&name, found);
        });
        if let Err(error) = spawned {
            self.end(&host, Err(error));
        }
    }

    /// A look-up has ended.
    fn end(&self, host: &str, found: io::Result<Vec<SocketAddr>>) {
        let (found, error) = match found.map(checked) {
            Ok(found) if found.is_empty() => (found, "it has no addresses".to_owned()),
            Ok(found) => (found, String::new()),
            Err(error) => (Vec::new(), error.to_string()),
        };
        let mut state = self.lock();
        state.running -= 1;
        // It may have gone meanwhile.
        let ended = state.names.get_mut(host).map(|name| (name.end(found, Instant::now()), name.upstreams.join(", ")));
        let (say, upstreams) = ended.unwrap_or((Say::Nothing, String::new()));
        if say != Say::Nothing {
            state.note_known();
        }
        self.changed.notify_all();
        drop(state);
        match say {
            Say::Nothing => {}
            Say::Resolved { addresses, failures: 0 } => tracing::info!(name = host, upstreams, addresses, "server resolved"),
            Say::Resolved { addresses, failures } => tracing::info!(name = host, upstreams, addresses, failures, "server resolved again"),
            Say::Failed { is_known: true } => tracing::warn!(name = host, upstreams, error, "server name was not resolved; known addresses stay in use"),
            Say::Failed { is_known: false } => tracing::warn!(name = host, upstreams, error, "server name was not resolved; it has no addresses yet"),
            Say::StillFailing { failures, seconds } => tracing::warn!(name = host, upstreams, failures, seconds, error, "server name is still not resolved"),
        }
    }
}

impl State {
    fn missing(&self, names: &[String]) -> Vec<String> {
        names.iter().filter(|name| self.names.get(*name).is_some_and(|name| !name.is_answered)).cloned().collect()
    }

    /// What may be looked up next, and when.
    fn next_due(&self) -> Option<(Instant, String)> {
        let waiting = self.names.iter().filter(|(_, name)| self.running < NAME_LOOKUPS && !name.is_running);
        let (host, due) = waiting.filter_map(|(host, name)| Some((host, name.due?))).min_by_key(|(_, due)| *due)?;
        Some((due, host.clone()))
    }

    fn begin(&mut self, host: &str) {
        self.running += 1;
        if let Some(name) = self.names.get_mut(host) {
            name.is_running = true;
            name.due = None;
        }
    }

    /// Names in their order, as many as fit.
    fn note_known(&mut self) {
        let mut room = KNOWN_ADDRESSES_MAX;
        let answered = self.names.iter().filter(|(_, name)| name.is_answered);
        let known: Known = answered
            .map_while(|(host, name)| {
                // A name costs as much as an address.
                room = room.checked_sub(name.addresses.len().max(1))?;
                Some((host.clone(), name.addresses.clone()))
            })
            .collect();
        if *self.known != known {
            self.known = Arc::new(known);
        }
    }
}

impl Name {
    /// Takes what a look-up found; nothing is a failure, which keeps the addresses that are known.
    fn end(&mut self, found: Vec<SocketAddr>, now: Instant) -> Say {
        (self.is_answered, self.is_running) = (true, false);
        let wait_ms;
        let say = if found.is_empty() {
            let (failing, say) = Failing::next(self.failing, !self.addresses.is_empty(), now);
            self.failing = Some(failing);
            wait_ms = retry_ms(failing.times, self.again_ms);
            say
        } else {
            let failures = self.failing.take().map_or(0, |failing| failing.times);
            let say = if self.addresses != found || failures > 0 { Say::Resolved { addresses: found.len(), failures } } else { Say::Nothing };
            self.addresses = found;
            for user in &self.users {
                user.give(&self.addresses);
            }
            wait_ms = self.again_ms;
            say
        };
        // Asked for again while it was looked up: what was found is as new as it can be.
        self.due = (wait_ms > 0).then(|| now + Duration::from_millis(u64::from(wait_ms)));
        say
    }

    fn used_by(&mut self, upstream: &str) {
        if !self.upstreams.iter().any(|name| name == upstream) {
            self.upstreams.push(upstream.to_owned());
        }
    }
}

impl User {
    /// Addresses that are unknown change nothing.
    fn give(&self, addresses: &[SocketAddr]) {
        if addresses.is_empty() {
            return;
        }
        let target = |address: &SocketAddr| {
            let mut address = *address;
            address.set_port(self.port);
            Target::Tcp(address)
        };
        self.upstream.servers[self.server].set_targets(addresses.iter().map(target).collect());
    }
}

impl Failing {
    /// After one more failure, and what the log is told: the first one, and a reminder now and then.
    fn next(before: Option<Failing>, is_known: bool, now: Instant) -> (Failing, Say) {
        let Some(Failing { times, since, said }) = before else {
            return (Failing { times: 1, since: now, said: now }, Say::Failed { is_known });
        };
        let times = times.saturating_add(1);
        if now.duration_since(said) < Duration::from_millis(u64::from(NAME_REMINDER)) {
            return (Failing { times, since, said }, Say::Nothing);
        }
        (Failing { times, since, said: now }, Say::StillFailing { failures: times, seconds: now.duration_since(since).as_secs() })
    }
}

/// Twice as long after each failure in a row, never longer than after a success.
fn retry_ms(failures: u32, again_ms: u32) -> u32 {
    let doubled = NAME_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(NAME_RETRY_MAX);
    if again_ms == 0 { doubled } else { doubled.min(again_ms) }
}

/// The shorter of two times of which 0 is never.
fn sooner(one_ms: u32, other_ms: u32) -> u32 {
    match (one_ms, other_ms) {
        (0, ms) | (ms, 0) => ms,
        (one, other) => one.min(other),
    }
}

fn named(address: &ServerAddress) -> Option<(&str, u16)> {
    match address {
        ServerAddress::Name(name, port) => Some((name, *port)),
        ServerAddress::Tcp(_) | ServerAddress::Unix(_) => None,
    }
}

fn users(upstream: &Arc<SharedUpstream>) -> impl Iterator<Item = User> {
    let names = upstream.servers.iter().enumerate().filter_map(|(server, shared)| Some((server, named(&shared.address)?.1)));
    names.map(|(server, port)| User { upstream: Arc::clone(upstream), server, port })
}

/// What is used of an answer. Resolvers rotate theirs; an order of our own makes a change a change.
fn checked(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    for address in &mut addresses {
        address.set_port(0);
    }
    addresses.sort();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests;
