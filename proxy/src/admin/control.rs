//! Changes while traffic flows. Every one is a transaction: verify, load, publish to all workers; or nothing changed.
//!
//! Owns what is in force, as the main thread knows it: configuration, plugins, names, servers, counters. Must not: run on
//! another thread than the one that loaded the plugins.
//!
//! Life of a change: [`Control::prepare`] reads what it needs and has names looked up, [`Control::apply`] makes the next
//! configuration and loads what it needs, `Control::publish` has every worker build it and then switch, [`Control::tend`]
//! unloads what no worker uses any more.
//!
//! Invariants: a version is in `plugins` or in `old` from its load until its `unload`, so that the last reference to it is
//! dropped here; `counts`, `blueprint` and `plugins` belong to the same configuration.

mod canary;
mod reload;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::canary::OnTrial;
pub use self::reload::Awaited;
use self::watch::Panics;
use super::board::{Board, CanaryState, FailedPlugin, LoadingPlugin, OldVersion, PluginState, Snapshot};
use super::former::{Former, OfFile};
use super::maps::feeds::WantedSink;
use super::plugins::{Loaded, Loader, find};
use super::status::Standing;
use super::{edit, mappings};
use crate::config::{Config, ConfigErrors, MapPolicy, OnError, Plugin, PluginIndex, Problem};
use crate::exchange::core::WorkerStats;
use crate::http1::names::NameTable;
use crate::limits::NAMES_WAIT;
use crate::plugin::loaded::default_store;
use crate::plugin::maps::MapStore;
use crate::plugin::times::SAMPLE_EVERY;
use crate::route::RouteTable;
use crate::supervisor::protocol::{Hashes, Standings};
use crate::upstream::resolve::{Known, Names};
use crate::upstream::{self, Ids, Shared};
use crate::worker::crew::Crew;
use crate::worker::program::{Blueprint, Canary, PluginCounts, Share};

/// Plugins that could not be loaded are remembered up to this number.
const FAILED_PLUGINS_MAX: usize = 16;

/// What can be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Read the configuration again.
    Reload,
    /// Load a plugin, or replace the one of that name.
    Load {
        /// Its name in the configuration.
        name: String,
        /// The file; `None`: the one it was loaded from.
        path: Option<PathBuf>,
        /// JSON for `load`; `None`: as before.
        config: Option<String>,
        /// For a new plugin: what a failed hook does.
        on_error: OnError,
        /// Whether a dry run comes first, now and in later loads; `None`: as before, for a new plugin not.
        verify: Option<bool>,
        /// For a new plugin: the routes that it is attached to, as their last link.
        routes: Vec<String>,
        /// What happens to a map that does not fit; `None`: what the configuration says.
        maps: Option<MapPolicy>,
        /// The plugin must be there already.
        replaces: bool,
        /// For a plugin that is there: only these exchanges get the new version, until it is promoted.
        canary: Option<Share>,
    },
    /// The version on trial takes the place of the one in force.
    Promote(String),
    /// Ends the trial of a version; without one, back to what ran before the last change of this plugin.
    Rollback(String),
    /// The gateway ends the trial of a version.
    EndTrial {
        /// Its name in the configuration.
        name: String,
        /// Why, for the operator.
        reason: String,
    },
    /// New core instances of a plugin on these workers.
    Restart {
        /// Its name in the configuration.
        name: String,
        /// Their indices.
        workers: Vec<usize>,
    },
    /// Measure hooks, or stop it.
    Stats(bool),
    /// Pass the plugin by (`on_error = "open"`), or refuse what would reach it.
    Disable(String),
    /// Undo that, and end a quarantine.
    Enable(String),
    /// The gateway puts a plugin out, as `Disable` does.
    Quarantine {
        /// Its name in the configuration.
        name: String,
        /// Why, for the operator.
        reason: String,
    },
    /// Remove a plugin; with its links when `force` is set.
    Unload {
        /// Its name in the configuration.
        name: String,
        /// Remove its links too.
        force: bool,
    },
}

impl Change {
    /// For the log, which is no place for the configurations of plugins.
    fn words(&self) -> String {
        let mut shown = self.clone();
        if let Change::Load { config: Some(config), .. } = &mut shown {
            *config = "…".into();
        }
        format!("{shown:?}")
    }

    /// The plugin that it is about.
    fn plugin(&self) -> Option<&str> {
        match self {
            Change::Reload | Change::Stats(_) => None,
            Change::Load { name, .. } | Change::Quarantine { name, .. } | Change::Unload { name, .. } => Some(name),
            Change::EndTrial { name, .. } | Change::Restart { name, .. } => Some(name),
            Change::Promote(name) | Change::Rollback(name) | Change::Disable(name) | Change::Enable(name) => Some(name),
        }
    }
}

/// A change, and where the outcome goes.
pub struct Order {
    /// What to change.
    pub change: Change,
    /// For the outcome.
    pub reply: mpsc::Sender<Result<Value, Refusal>>,
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// For the operator.
    pub text: String,
}

impl Refusal {
    /// A refusal with this status.
    pub fn new(status: u16, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into() }
    }

    /// The configuration or the plugin is wrong.
    fn unfit(problems: Vec<Problem>) -> Refusal {
        Refusal::new(422, ConfigErrors { problems }.to_string())
    }

    fn no_plugin(name: &str) -> Refusal {
        Refusal::new(404, format!("there is no plugin `{name}`"))
    }
}

/// What is in force.
pub struct Control {
    loader: Loader,
    config: Config,
    names: Arc<NameTable>,
    plugins: Vec<Loaded>,
    /// Those of them that the next process loads.
    of_file: OfFile,
    blueprint: Arc<Blueprint>,
    upstreams: Arc<Shared>,
    /// Of their servers.
    hosts: Names,
    counts: Vec<PluginCounts>,
    /// Hooks are measured.
    timing: bool,
    /// A version beside the one in force.
    canary: Option<OnTrial>,
    /// By the name of the plugin.
    panics: BTreeMap<String, Panics>,
    /// Versions that are not in force any more.
    old: Vec<Loaded>,
    old_tables: Vec<OldTable>,
    /// Names that are not in force because their last version was refused, the oldest first.
    failed: Vec<FailedPlugin>,
    leaked: Vec<String>,
    publications: u64,
    failures: u64,
}

impl Control {
    /// Inspects and loads every plugin of the configuration, and has its servers looked up: those that `known` does not name are
    /// waited for, for a while. Of a process that follows another one, `former` says what that one ran.
    ///
    /// # Errors
    /// Every plugin that cannot be loaded.
    pub fn load(config: Config, workers: usize, former: &Former, known: Known) -> Result<Control, ConfigErrors> {
        // They are looked up while plugins load.
        let (hosts, upstreams) = (Names::new(known), Shared::new(&config));
        let (unknown, begun) = (hosts.follow(upstreams.current()), Instant::now());
        let maps = MapStore::new(config.server.state.as_deref(), workers as u32);
        let mut loader = Loader { store: default_store(), generation: 0, maps, map_bytes: config.limits.map_bytes as u64 };
        let mut names = NameTable::new();
        let plugins = loader.load_former(&config, former, &mut names).map_err(|problems| ConfigErrors { problems })?;
        let names = Arc::new(names);
        let blueprint = Arc::new(blueprint(&config, &plugins, &names, None, false, None));
        let patience = Duration::from_millis(u64::from(NAMES_WAIT)).saturating_sub(begun.elapsed());
        hosts.give_up(&hosts.wait(&unknown, patience));
        upstreams.current().for_each(upstream::health::spawn);
        let counts = (0..workers).map(|_| PluginCounts::new(&blueprint)).collect();
        Ok(Control {
            of_file: OfFile::new(&config, &plugins),
            loader,
            config,
            names,
            plugins,
            blueprint,
            upstreams,
            hosts,
            counts,
            timing: false,
            canary: None,
            panics: BTreeMap::new(),
            old: Vec::new(),
            old_tables: Vec::new(),
            failed: Vec::new(),
            leaked: Vec::new(),
            publications: 1,
            failures: 0,
        })
    }

    /// What workers start with.
    pub fn parts(&self) -> (&Arc<Blueprint>, &Arc<Shared>, &[PluginCounts]) {
        (&self.blueprint, &self.upstreams, &self.counts)
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which plugins are out of force.
    pub fn standings(&self) -> Standings {
        let mut standings = Standings::default();
        for plugin in &self.plugins {
            let name = plugin.version.name().to_owned();
            match &plugin.standing {
                Standing::InForce => {}
                Standing::Disabled => standings.disabled.push(name),
                Standing::Quarantined { reason } => {
                    if plugin.made_of.hash.is_empty() {
                        standings.missing.insert(name.clone());
                    }
                    standings.quarantined.insert(name, reason.clone());
                }
            }
        }
        standings
    }

    /// What a process that begins with the configuration in force does not have, for people.
    pub fn unsaved(&self) -> Vec<String> {
        let (Some(path), Some(text)) = (&self.config.file, &self.config.text) else { return Vec::new() };
        let mut unsaved = Config::of_file(path, text).map(|file| edit::unsaved(&self.config, &file)).unwrap_or_default();
        unsaved.extend(self.canary.as_ref().map(|canary| format!("a version of the plugin `{}` is on trial", canary.name())));
        unsaved
    }

    /// What the next process is to load of the plugins that the configuration names.
    pub fn hashes(&self) -> Hashes {
        self.of_file.hashes()
    }

    /// What is known of the names of servers.
    pub fn known(&self) -> Arc<Known> {
        self.hosts.known()
    }

    /// A board for this.
    pub fn board(&self, stats: Vec<Arc<WorkerStats>>) -> Board {
        self.settle_maps();
        let board = Board::new(self.snapshot(), stats);
        board.feeds.set_sinks(self.sinks());
        board
    }

    /// The maps of the plugins in force are the ones that a restart finds.
    fn settle_maps(&self) {
        for plugin in &self.plugins {
            for map in plugin.version.maps() {
                if let Err(error) = map.settle() {
                    tracing::error!(plugin = plugin.version.name(), map = map.shape().name(), %error, "the map will not be found after a restart");
                }
            }
        }
    }

    /// Where the records of rings go.
    fn sinks(&self) -> Vec<WantedSink> {
        let of = |(plugin, loaded): (&Plugin, &Loaded)| {
            let ring = |name: &str| loaded.version.maps().iter().find(|map| map.shape().name() == name).map(Arc::clone);
            let sinks = plugin
                .sinks
                .iter()
                .filter_map(|(map, target)| Some(WantedSink { map: ring(map)?, target: target.clone(), name: format!("{}/{map}", plugin.name) }));
            sinks.collect::<Vec<_>>()
        };
        self.config.plugins.iter().zip(&self.plugins).flat_map(of).collect()
    }

    /// Makes a change on all workers, or none. `read`: what [`Control::prepare`] has read for it.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub fn apply(&mut self, change: &Change, read: Option<Awaited>, crew: &Crew, board: &Board) -> Result<Value, Refusal> {
        if let Some(why) = board.refusal() {
            // Whoever sent a signal is told nowhere else.
            tracing::error!(change = change.words(), "nothing was changed: {why}");
            return Err(Refusal::new(503, why));
        }
        board.set_loading(match change {
            Change::Load { name, path, .. } => Some(LoadingPlugin { name: name.clone(), path: path.clone() }),
            Change::Rollback(name) => Some(LoadingPlugin { name: name.clone(), path: None }),
            _ => None,
        });
        let outcome = match change {
            change if self.hinders(change).is_some() => Err(self.busy()),
            Change::Reload => self.reload(read, crew),
            Change::Load { name, path, config, on_error, verify, routes, maps, replaces, canary } => {
                let wanted = Wanted { path: path.clone(), config: config.clone(), on_error: *on_error, verify: *verify, maps: *maps };
                match find(&self.plugins, name).map(|(index, _)| index) {
                    Some(index) => self.swap(index, wanted, *canary, crew),
                    None if *replaces => Err(Refusal::no_plugin(name)),
                    None if canary.is_some() => Err(Refusal::new(422, "a plugin that is new has no version to be tried against")),
                    None => self.add(name, wanted, routes, crew),
                }
            }
            Change::Promote(name) => self.promote(name, crew),
            Change::Rollback(name) if self.on_trial(name) => self.end_trial(name, None, crew),
            Change::Rollback(name) => self.rollback(name, crew),
            Change::EndTrial { name, reason } => self.end_trial(name, Some(reason), crew),
            Change::Restart { name, workers } => self.restart(name, workers, crew),
            Change::Stats(timing) => self.set_timing(*timing, crew),
            Change::Disable(name) => self.set_standing(name, Standing::Disabled, crew),
            Change::Enable(name) => self.set_standing(name, Standing::InForce, crew),
            Change::Quarantine { name, reason } => self.set_standing(name, Standing::Quarantined { reason: reason.clone() }, crew),
            Change::Unload { name, force } => self.unload(name, *force, crew),
        };
        match &outcome {
            Ok(_) => {
                tracing::info!(change = change.words(), publications = self.publications, "change made");
                board.feeds.set_sinks(self.sinks());
            }
            Err(refusal) => {
                self.failures += 1;
                tracing::error!(change = change.words(), "nothing was changed: {}", refusal.text);
                self.note_failure(change, &refusal.text);
            }
        }
        self.failed.retain(|failed| find(&self.plugins, &failed.name).is_none());
        board.show(self.snapshot());
        board.set_loading(None);
        outcome
    }

    /// What the status of a plugin says about a change that failed.
    fn note_failure(&mut self, change: &Change, reason: &str) {
        let Some(name) = change.plugin() else { return };
        if let Some((index, _)) = find(&self.plugins, name) {
            self.plugins[index.0 as usize].last_error = Some(reason.to_owned());
        } else if let Change::Load { path: Some(path), .. } = change {
            self.failed.retain(|failed| failed.name != name);
            if self.failed.len() == FAILED_PLUGINS_MAX {
                self.failed.remove(0);
            }
            self.failed.push(FailedPlugin { name: name.to_owned(), path: Some(path.clone()), reason: reason.to_owned() });
        }
    }

    fn add(&mut self, name: &str, wanted: Wanted, routes: &[String], crew: &Crew) -> Result<Value, Refusal> {
        if !crate::config::is_name(name) {
            return Err(Refusal::new(422, format!("`{name}` cannot be a name: use 1 to 63 letters, digits, `-`, `_` and `.`")));
        }
        let Some(path) = wanted.path else { return Err(Refusal::new(422, "a new plugin needs a `path`")) };
        let config = wanted.config.unwrap_or_else(|| "{}".into());
        let plugin = Plugin {
            name: name.into(),
            path,
            on_error: wanted.on_error,
            verify: wanted.verify.unwrap_or(false),
            config,
            maps: wanted.maps.unwrap_or_default(),
            sinks: Vec::new(),
        };
        let next = edit::add(&self.config, plugin.clone(), routes).map_err(|route| Refusal::new(422, format!("there is no route `{route}`")))?;
        if let Some(route) = next.routes.iter().find(|route| route.links.len() > crate::config::CHAIN_LINKS_MAX) {
            return Err(Refusal::new(422, format!("the chain of the route {} is full", route.name)));
        }
        let mut names = (*self.names).clone();
        let loaded = self.loader.load(&plugin, None, &mut names).map_err(|problem| Refusal::unfit(vec![problem]))?;
        let mut plugins = self.plugins.clone();
        plugins.push(loaded);
        self.publish(Next { config: next, plugins, names, ..self.same() }, crew)?;
        Ok(self.show(name))
    }

    fn swap(&mut self, index: PluginIndex, wanted: Wanted, canary: Option<Share>, crew: &Crew) -> Result<Value, Refusal> {
        let now = self.config.plugin(index);
        let plugin = Plugin {
            path: wanted.path.unwrap_or_else(|| now.path.clone()),
            verify: wanted.verify.unwrap_or(now.verify),
            config: wanted.config.unwrap_or_else(|| now.config.clone()),
            ..now.clone()
        };
        let mut names = (*self.names).clone();
        let was = &self.plugins[index.0 as usize];
        // For this change only: the next one is refused again when its maps do not fit.
        let wanted = Plugin { maps: wanted.maps.unwrap_or(plugin.maps), ..plugin.clone() };
        let loaded = self.loader.load(&wanted, Some(was), &mut names).map_err(|problem| Refusal::unfit(vec![problem]))?;
        match canary {
            None => self.exchange(index, plugin, loaded, names, crew),
            Some(share) => self.try_out(index, OnTrial::new(plugin, loaded, share), names, crew),
        }
    }

    fn rollback(&mut self, name: &str, crew: &Crew) -> Result<Value, Refusal> {
        let (index, was) = find(&self.plugins, name).ok_or_else(|| Refusal::no_plugin(name))?;
        let Some(previous) = was.previous.clone() else {
            return Err(Refusal::new(409, format!("the plugin `{name}` has not changed since it was loaded: there is nothing to go back to")));
        };
        let plugin = Plugin { path: previous.path.clone(), config: previous.config.clone(), ..self.config.plugin(index).clone() };
        let path = self.loader.kept_copy(&previous.hash).map_err(|problem| Refusal::unfit(vec![problem]))?;
        let copy = Plugin { path, ..plugin.clone() };
        let was = was.clone();
        let mut names = (*self.names).clone();
        let mut loaded = self.loader.load(&copy, Some(&was), &mut names).map_err(|problem| Refusal::unfit(vec![problem]))?;
        loaded.made_of.path.clone_from(&plugin.path);
        self.exchange(index, plugin, loaded, names, crew)
    }

    /// Puts a loaded version in the place of the one at `index`.
    fn exchange(&mut self, index: PluginIndex, plugin: Plugin, loaded: Loaded, names: NameTable, crew: &Crew) -> Result<Value, Refusal> {
        let name = plugin.name.clone();
        let next = edit::replace(&self.config, index, plugin);
        let mut plugins = self.plugins.clone();
        plugins[index.0 as usize] = loaded;
        self.publish(Next { config: next, plugins, names, ..self.same() }, crew)?;
        self.forgive(&name);
        Ok(self.show(&name))
    }

    fn set_standing(&mut self, name: &str, standing: Standing, crew: &Crew) -> Result<Value, Refusal> {
        let (index, _) = find(&self.plugins, name).ok_or_else(|| Refusal::no_plugin(name))?;
        let mut next = self.same();
        let plugin = &mut next.plugins[index.0 as usize];
        if standing.is_in_force() && !plugin.version.is_open() {
            let loaded = self.loader.load(self.config.plugin(index), None, &mut next.names).map_err(|problem| Refusal::unfit(vec![problem]))?;
            *plugin = Loaded { previous: plugin.previous.take(), ..loaded };
        }
        plugin.standing = standing;
        self.publish(next, crew)?;
        self.forgive(name);
        Ok(self.show(name))
    }

    fn unload(&mut self, name: &str, force: bool, crew: &Crew) -> Result<Value, Refusal> {
        let failed = self.failed.len();
        self.failed.retain(|failed| failed.name != name);
        if self.failed.len() < failed {
            return Ok(json!({ "unloaded": name, "links_removed": [] }));
        }
        let (index, _) = find(&self.plugins, name).ok_or_else(|| Refusal::no_plugin(name))?;
        let attached = edit::attached(&self.config, index);
        if !attached.is_empty() && !force {
            return Err(Refusal::new(409, format!("the plugin `{name}` is attached to {}; `force` removes these links", attached.join(", "))));
        }
        let mut next = Next { config: edit::remove(&self.config, index), ..self.same() };
        next.plugins.remove(index.0 as usize);
        self.publish(next, crew)?;
        Ok(json!({ "unloaded": name, "links_removed": attached }))
    }

    fn set_timing(&mut self, timing: bool, crew: &Crew) -> Result<Value, Refusal> {
        if self.timing != timing {
            self.publish(Next { timing, ..self.same() }, crew)?;
        }
        Ok(json!({ "stats": timing, "sample_every": SAMPLE_EVERY }))
    }

    /// What is in force, to be changed in parts.
    fn same(&self) -> Next {
        Next { config: self.config.clone(), plugins: self.plugins.clone(), names: (*self.names).clone(), timing: self.timing, canary: self.canary.clone() }
    }

    /// The two phases. After an error everything is as before, and what was loaded for it is let go.
    fn publish(&mut self, next: Next, crew: &Crew) -> Result<(), Refusal> {
        let Next { config, plugins, names, timing, canary } = next;
        let names = Arc::new(names);
        let on_trial = canary.as_ref().and_then(|canary| canary.part(&plugins));
        let next = Arc::new(blueprint(&config, &plugins, &names, Some(&self.blueprint.table), timing, on_trial));
        self.old_tables.retain(OldTable::is_in_use);
        let upstreams = self.upstreams.next(&config, self.old_tables.iter().map(|old| &old.upstreams));
        let new_upstreams: Vec<_> = upstreams.current().filter(|new| !self.upstreams.current().any(|old| Arc::ptr_eq(old, new))).cloned().collect();
        self.hosts.fill(new_upstreams.iter());
        let counts: Vec<_> = self.counts.iter().map(|counts| counts.next(&self.blueprint, &next)).collect();
        let published = crew.publish(&next, &upstreams, &counts);
        let gone = match &published {
            Ok(()) => {
                new_upstreams.iter().for_each(upstream::health::spawn);
                upstreams.retire_others();
                self.old_tables.push(OldTable { table: Arc::clone(&self.blueprint.table), upstreams: Arc::clone(self.upstreams.ids()) });
                self.config = config;
                self.names = names;
                self.blueprint = next;
                self.upstreams = upstreams;
                self.counts = counts;
                self.publications += 1;
                self.timing = timing;
                let canary = std::mem::replace(&mut self.canary, canary);
                let gone = std::mem::replace(&mut self.plugins, plugins);
                self.of_file.note(&self.config, &self.plugins);
                self.settle_maps();
                (gone, canary)
            }
            Err(_) => (plugins, canary),
        };
        let in_force = || self.plugins.iter().chain(self.canary.as_ref().map(|canary| &canary.loaded));
        let stays = |version: &Loaded| in_force().any(|other| Arc::ptr_eq(&other.version, &version.version));
        let gone = gone.0.into_iter().chain(gone.1.map(|canary| canary.loaded));
        let gone: Vec<Loaded> = gone.filter(|version| !stays(version)).collect();
        self.old.extend(gone);
        self.forget_used();
        published.map_err(|reason| Refusal::new(422, reason))
    }

    /// Makes the changes that plugins have brought upon themselves, and unloads versions that no worker uses any more. Called
    /// a few times a second.
    pub fn tend(&mut self, crew: &Crew, board: &Board) {
        if !board.draining.load(Ordering::Relaxed) {
            for change in self.due() {
                // The outcome is logged by `apply`. An instance that cannot be made again is one that cannot be used.
                if let (Err(refusal), Change::Restart { name, .. }) = (self.apply(&change, None, crew, board), &change) {
                    let reason = format!("it panicked, and no new instance of it could be made: {}", refusal.text);
                    let _ = self.apply(&Change::Quarantine { name: name.clone(), reason }, None, crew, board);
                }
            }
        }
        self.old_tables.retain(OldTable::is_in_use);
        let mut unloaded = false;
        for old in std::mem::take(&mut self.old) {
            let Loaded { version, made_of, generation, .. } = old;
            match Arc::try_unwrap(version) {
                Ok(version) => {
                    let name = version.name().to_owned();
                    // Runs `unload` and closes the library.
                    drop(version);
                    tracing::info!(plugin = name, version = made_of.version, generation, "plugin unloaded");
                    unloaded = true;
                }
                Err(version) => self.old.push(Loaded { version, made_of, generation, ..old }),
            }
        }
        if unloaded {
            self.leaked = mappings::mapped().into_iter().collect();
            self.forget_used();
            board.show(self.snapshot());
        }
    }

    /// A library that is in use is not leaked, or not any more.
    fn forget_used(&mut self) {
        let on_trial = self.canary.as_ref().map(|canary| &canary.loaded);
        let used: BTreeSet<&String> = self.plugins.iter().chain(&self.old).chain(on_trial).map(|plugin| &plugin.made_of.hash).collect();
        self.leaked.retain(|hash| !used.contains(hash));
    }

    fn show(&self, name: &str) -> Value {
        let snapshot = self.snapshot();
        snapshot.plugins.iter().find(|plugin| plugin.name == name).map_or(Value::Null, |plugin| super::show::plugin(&snapshot, plugin))
    }

    fn snapshot(&self) -> Snapshot {
        let old = |old: &Loaded| OldVersion {
            name: old.version.name().to_owned(),
            version: old.made_of.version.clone(),
            build_id: old.version.facts().build_id.clone(),
            hash: old.made_of.hash.clone(),
            generation: old.generation,
        };
        Snapshot {
            config: self.config.clone(),
            plugins: self.plugins.iter().map(PluginState::of).collect(),
            old: self.old.iter().map(old).collect(),
            failed: self.failed.clone(),
            leaked: self.leaked.clone(),
            counts: self.counts.clone(),
            timing: self.timing,
            canary: self.canary.as_ref().map(|canary| CanaryState::of(&canary.loaded, canary.share, canary.began_unix_ns)),
            upstreams: Arc::clone(&self.upstreams),
            publications: self.publications,
            failures: self.failures,
        }
    }
}

/// What a plugin is to be made of; `None`: as before.
struct Wanted {
    path: Option<PathBuf>,
    config: Option<String>,
    on_error: OnError,
    verify: Option<bool>,
    maps: Option<MapPolicy>,
}

/// An earlier program, on which exchanges may still run.
struct OldTable {
    /// Part of every program on every worker, which exchanges hold to their end: alone here, none runs any more.
    table: Arc<RouteTable>,
    /// What they may use.
    upstreams: Ids,
}

impl OldTable {
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.table) > 1
    }
}

/// What a publication puts in force.
struct Next {
    config: Config,
    plugins: Vec<Loaded>,
    names: NameTable,
    timing: bool,
    canary: Option<OnTrial>,
}

fn blueprint(config: &Config, plugins: &[Loaded], names: &Arc<NameTable>, former: Option<&RouteTable>, timing: bool, canary: Option<Canary>) -> Blueprint {
    let versions = plugins.iter().map(|plugin| Arc::clone(&plugin.version)).collect();
    Blueprint {
        disabled: plugins.iter().map(|plugin| !plugin.standing.is_in_force()).collect(),
        restarts: plugins.iter().map(|plugin| plugin.restarts.clone()).collect(),
        timing,
        canary,
        ..Blueprint::new(config.clone(), versions, Arc::clone(names), former)
    }
}
