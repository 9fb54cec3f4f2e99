//! Records of rings on their way out: one thread takes them from the maps and hands each to everyone who follows.
//!
//! Owns the followers: `ringway tail` (a thread of the admin listener each) and sinks (a thread each, writing to a file or a Unix socket).
//! A follower that is slow loses records, which are counted; it keeps nobody else waiting. A ring that nobody follows
//! keeps its first records until it is full.
//!
//! Must not: run on a worker, or wait for a follower.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::show_value;
use crate::config::SinkTarget;
use crate::plugin::maps::Map;

/// Between two looks at the rings.
const PAUSE: Duration = Duration::from_millis(20);
/// Records taken from one ring before the next has its turn.
const TURN: usize = 4096;
/// Records that may wait for one follower.
const BACKLOG: usize = 8192;
/// For one write to a sink.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Before a sink that failed is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// Everyone who follows a ring.
#[derive(Default)]
pub struct Feeds {
    feeds: Mutex<Vec<Feed>>,
    sinks: Mutex<Vec<Sink>>,
    is_running: AtomicBool,
}

struct Feed {
    map: Weak<Map>,
    followers: Vec<Follower>,
}

struct Follower {
    lines: SyncSender<Arc<str>>,
    /// Gone when the follower is.
    missed: Weak<AtomicU64>,
}

/// What a follower gets.
pub struct Following {
    /// Each record as a line of JSON. Ends with the map.
    pub lines: Receiver<Arc<str>>,
    /// Records that were lost because the follower was slow.
    pub missed: Arc<AtomicU64>,
}

/// A sink of the configuration in force.
struct Sink {
    map: Weak<Map>,
    target: SinkTarget,
    /// Its thread ends when this is set.
    stop: Arc<AtomicBool>,
}

/// A ring and where its records go.
pub struct WantedSink {
    /// The ring.
    pub map: Arc<Map>,
    /// Where its records go.
    pub target: SinkTarget,
    /// For logs: `PLUGIN/MAP`.
    pub name: String,
}

impl Feeds {
    /// Follows a ring.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn follow(self: &Arc<Feeds>, map: &Arc<Map>) -> io::Result<Following> {
        let (lines, receiver) = mpsc::sync_channel(BACKLOG);
        let missed = Arc::new(AtomicU64::new(0));
        let follower = Follower { lines, missed: Arc::downgrade(&missed) };
        {
            let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            match feeds.iter_mut().find(|feed| std::ptr::eq(feed.map.as_ptr(), Arc::as_ptr(map))) {
                Some(feed) => feed.followers.push(follower),
                None => feeds.push(Feed { map: Arc::downgrade(map), followers: vec![follower] }),
            }
        }
        if !self.is_running.swap(true, Ordering::SeqCst) {
            let theirs = Arc::clone(self);
            let spawned = thread::Builder::new().name("map-feeds".into()).spawn(move || theirs.run());
            if let Err(error) = spawned {
                self.is_running.store(false, Ordering::SeqCst);
                return Err(error);
            }
        }
        Ok(Following { lines: receiver, missed })
    }

    /// From now on these sinks, and no others. One that stays goes on.
    pub fn set_sinks(self: &Arc<Feeds>, wanted: Vec<WantedSink>) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |sink: &Sink, wanted: &WantedSink| std::ptr::eq(sink.map.as_ptr(), Arc::as_ptr(&wanted.map)) && sink.target == wanted.target;
        sinks.retain(|sink| {
            let stays = wanted.iter().any(|wanted| is_same(sink, wanted));
            sink.stop.store(!stays, Ordering::SeqCst);
            stays
        });
        for WantedSink { map, target, name } in wanted {
            if sinks.iter().any(|sink| std::ptr::eq(sink.map.as_ptr(), Arc::as_ptr(&map)) && sink.target == target) {
                continue;
            }
            let stop = Arc::new(AtomicBool::new(false));
            let sink = Sink { map: Arc::downgrade(&map), target: target.clone(), stop: Arc::clone(&stop) };
            let started = self.follow(&map).and_then(|following| {
                drop(map);
                thread::Builder::new().name("map-sink".into()).spawn(move || drain(&name, &target, &following, &stop))
            });
            match started {
                Ok(_) => sinks.push(sink),
                Err(error) => tracing::error!(%error, "no thread for a sink"),
            }
        }
    }

    /// Until nobody follows anything.
    fn run(&self) {
        let mut record = Vec::new();
        loop {
            let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            let mut is_idle = true;
            feeds.retain_mut(|feed| {
                let Some(map) = feed.map.upgrade() else { return false };
                for _ in 0..TURN {
                    if !map.take(&mut record) {
                        break;
                    }
                    is_idle = false;
                    let line: Arc<str> = format!("{}\n", show_value(map.shape(), &record)).into();
                    feed.followers.iter().for_each(|follower| follower.hand(&line));
                }
                feed.followers.retain(|follower| follower.missed.strong_count() > 0);
                !feed.followers.is_empty()
            });
            if feeds.is_empty() {
                // Under the lock: whoever follows next starts a thread again.
                self.is_running.store(false, Ordering::SeqCst);
                return;
            }
            drop(feeds);
            if is_idle {
                thread::sleep(PAUSE);
            }
        }
    }
}

impl Follower {
    fn hand(&self, line: &Arc<str>) {
        if let (Err(TrySendError::Full(_)), Some(missed)) = (self.lines.try_send(Arc::clone(line)), self.missed.upgrade()) {
            missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes what comes to a sink until the map or the sink ends.
fn drain(name: &str, target: &SinkTarget, following: &Following, stop: &AtomicBool) {
    let mut out: Option<Box<dyn Write>> = None;
    let mut has_failed = false;
    let mut told = 0;
    while !stop.load(Ordering::SeqCst) {
        let line = match following.lines.recv_timeout(RETRY) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // A line is kept until it is written; those that find no room behind it are counted.
        while !stop.load(Ordering::SeqCst) {
            let written = match &mut out {
                Some(out) => out.write_all(line.as_bytes()),
                None => open(target).and_then(|opened| out.insert(opened).write_all(line.as_bytes())),
            };
            let Err(error) = written else {
                has_failed = false;
                break;
            };
            out = None;
            if !has_failed {
                tracing::warn!(sink = name, target = %target, %error, "records wait: the sink cannot be written");
                has_failed = true;
            }
            thread::sleep(RETRY);
        }
        let missed = following.missed.load(Ordering::Relaxed);
        if missed > told {
            tracing::warn!(sink = name, target = %target, records = missed - told, "records were lost: the sink is slow");
            told = missed;
        }
    }
}

fn open(target: &SinkTarget) -> io::Result<Box<dyn Write>> {
    match target {
        SinkTarget::File(path) => Ok(Box::new(append(path)?)),
        SinkTarget::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            Ok(Box::new(stream))
        }
    }
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
