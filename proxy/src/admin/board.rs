//! What the control plane shows: facts of the configuration in force, and where the workers count.
//!
//! A [`Snapshot`] never changes; each publication makes a new one. Counters in it are live. It holds no plugin, so that
//! whoever reads it on any thread keeps none alive.
#![forbid(unsafe_code)]

use std::io::PipeWriter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::maps::feeds::Feeds;
use super::plugins::{Loaded, MadeOf};
use super::status::Standing;
use crate::config::Config;
use crate::exchange::core::WorkerStats;
use crate::plugin::inspect::PluginFacts;
use crate::plugin::loaded::Metric;
use crate::plugin::maps::Map;
use crate::supervisor::crash::{CRASHES_KEPT_MAX, Crash};
use crate::upstream;
use crate::worker::program::{PluginCounts, Share};
use crate::worker::watchdog::Watchdog;

/// Shared by the main thread, which writes, and the admin threads, which read.
pub struct Board {
    snapshot: Mutex<Arc<Snapshot>>,
    loading: Mutex<Option<LoadingPlugin>>,
    /// What each worker counts.
    pub stats: Vec<Arc<WorkerStats>>,
    /// The process accepts no more connections.
    pub draining: AtomicBool,
    /// Another process serves from now on.
    pub handed_over: AtomicBool,
    /// The admin listener of this process is to accept no more: somebody else has its address, or wants it.
    admin_ends: AtomicBool,
    /// What wakes it then, by its end.
    admin_wake: Mutex<Option<PipeWriter>>,
    /// It accepts no more.
    pub admin_ended: AtomicBool,
    /// Exchanges are being captured.
    pub capturing: AtomicBool,
    /// Connections of the admin listener.
    pub admin_open: AtomicUsize,
    /// Deaths of gateway processes, the oldest first.
    crashes: Mutex<Vec<Crash>>,
    /// How often it was started again.
    pub restarts: u64,
    /// Sees hooks that hold their workers.
    pub watchdog: Arc<Watchdog>,
    /// Who follows the rings.
    pub feeds: Arc<Feeds>,
}

/// What is in force.
pub struct Snapshot {
    /// The configuration.
    pub config: Config,
    /// By [`crate::config::PluginIndex`].
    pub plugins: Vec<PluginState>,
    /// Versions that exchanges in flight still run.
    pub old: Vec<OldVersion>,
    /// Plugins that could not be loaded.
    pub failed: Vec<FailedPlugin>,
    /// Hashes of libraries that stayed mapped although nothing uses them.
    pub leaked: Vec<String>,
    /// By worker.
    pub counts: Vec<PluginCounts>,
    /// Hooks are measured.
    pub timing: bool,
    /// A version on trial.
    pub canary: Option<CanaryState>,
    /// Servers.
    pub upstreams: Arc<upstream::Shared>,
    /// Programs put in force since the start.
    pub publications: u64,
    /// Changes that failed since the start.
    pub failures: u64,
}

/// One plugin.
pub struct PluginState {
    /// What its file says.
    pub facts: PluginFacts,
    /// Its metrics.
    pub metrics: Vec<Metric>,
    /// The upstreams that it asks itself.
    pub upstreams: Vec<String>,
    /// Its maps.
    pub maps: Vec<Arc<Map>>,
    /// Its name in the configuration.
    pub name: String,
    /// What it was loaded from.
    pub made_of: MadeOf,
    /// Which version of this process.
    pub generation: u64,
    /// When it was loaded.
    pub loaded_unix_ns: u64,
    /// Whether it runs.
    pub standing: Standing,
    /// How often its instances were replaced after panics, over all workers.
    pub restarts: u64,
    /// What ran before.
    pub previous: Option<MadeOf>,
    /// Why the last change that concerned it failed.
    pub last_error: Option<String>,
}

impl PluginState {
    /// Of a loaded plugin.
    pub fn of(loaded: &Loaded) -> PluginState {
        PluginState {
            facts: loaded.version.facts().clone(),
            metrics: loaded.version.metrics().to_vec(),
            upstreams: loaded.version.upstreams().to_vec(),
            maps: loaded.version.maps().to_vec(),
            name: loaded.version.name().to_owned(),
            made_of: loaded.made_of.clone(),
            generation: loaded.generation,
            loaded_unix_ns: loaded.loaded_unix_ns,
            standing: loaded.standing.clone(),
            restarts: loaded.restarts.iter().sum(),
            previous: loaded.previous.clone(),
            last_error: loaded.last_error.clone(),
        }
    }
}

/// A version that some exchanges run instead of the one in force.
pub struct CanaryState {
    /// What it is; its name is that of the plugin in force.
    pub state: PluginState,
    /// Which exchanges.
    pub share: Share,
    /// Since when.
    pub began_unix_ns: u64,
}

impl CanaryState {
    /// Of a loaded version.
    pub fn of(loaded: &Loaded, share: Share, began_unix_ns: u64) -> CanaryState {
        CanaryState { state: PluginState::of(loaded), share, began_unix_ns }
    }
}

/// A version that is no longer in force and not unloaded yet.
#[derive(Debug, Clone)]
pub struct OldVersion {
    /// The plugin's name in the configuration.
    pub name: String,
    /// The plugin's own version text.
    pub version: String,
    /// The linker's name of this build.
    pub build_id: Option<String>,
    /// SHA-256 of its file in hex.
    pub hash: String,
    /// Which version of this process.
    pub generation: u64,
}

/// A plugin of which no version is in force, because the last one that was to be loaded was refused.
#[derive(Debug, Clone)]
pub struct FailedPlugin {
    /// The name that it was to have.
    pub name: String,
    /// The file that was named.
    pub path: Option<PathBuf>,
    /// Why it was refused.
    pub reason: String,
}

/// A plugin that a change under way loads.
#[derive(Debug, Clone)]
pub struct LoadingPlugin {
    /// Its name in the configuration.
    pub name: String,
    /// The file that was named.
    pub path: Option<PathBuf>,
}

impl Board {
    /// One more death of a gateway process.
    pub fn note_crash(&self, crash: Crash) {
        let mut crashes = self.crashes();
        if crashes.len() >= CRASHES_KEPT_MAX {
            crashes.remove(0);
        }
        crashes.push(crash);
    }

    /// Deaths of gateway processes so far.
    pub fn crashes(&self) -> MutexGuard<'_, Vec<Crash>> {
        self.crashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A board that shows this.
    pub fn new(snapshot: Snapshot, stats: Vec<Arc<WorkerStats>>) -> Board {
        Board {
            snapshot: Mutex::new(Arc::new(snapshot)),
            loading: Mutex::default(),
            stats,
            draining: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            admin_ends: AtomicBool::new(false),
            admin_wake: Mutex::default(),
            admin_ended: AtomicBool::new(false),
            capturing: AtomicBool::new(false),
            admin_open: AtomicUsize::new(0),
            crashes: Mutex::default(),
            restarts: 0,
            watchdog: Arc::default(),
            feeds: Arc::default(),
        }
    }

    /// Whether connections are accepted at this address, by this process or by the one that follows it.
    pub fn is_ready(&self) -> bool {
        // It drains after it has handed over: what was stored before is seen.
        !self.draining.load(Ordering::Acquire) || self.handed_over.load(Ordering::Relaxed)
    }

    /// Changes are not made any more, and why.
    pub fn refusal(&self) -> Option<&'static str> {
        match self.draining.load(Ordering::Acquire) {
            false => None,
            true if self.handed_over.load(Ordering::Relaxed) => Some("another process serves by now: ask again"),
            true => Some("the gateway is draining"),
        }
    }

    /// The admin listener is to accept no more.
    pub fn end_admin(&self) {
        self.admin_ends.store(true, Ordering::Release);
        drop(self.admin_wake().take());
    }

    /// Whether it is to.
    pub fn admin_ends(&self) -> bool {
        self.admin_ends.load(Ordering::Acquire)
    }

    /// The other end of `wake` is closed when the admin listener is to end.
    pub fn set_admin_wake(&self, wake: PipeWriter) {
        *self.admin_wake() = Some(wake);
    }

    fn admin_wake(&self) -> MutexGuard<'_, Option<PipeWriter>> {
        self.admin_wake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a change under way loads.
    pub fn loading(&self) -> Option<LoadingPlugin> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A change begins, or `None`: it is over.
    pub fn set_loading(&self, loading: Option<LoadingPlugin>) {
        *self.loading.lock().unwrap_or_else(PoisonError::into_inner) = loading;
    }

    /// From now on it shows this.
    pub fn show(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}
