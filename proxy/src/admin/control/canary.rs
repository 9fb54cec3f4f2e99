//! A version on trial: some exchanges run it, until it is promoted, rolled back, or found worse than its limits.
//!
//! Owns what is known of it beside its counters, and the judgement. One version at a time is on trial; what would change the
//! configuration under it waits until the trial is over.
#![forbid(unsafe_code)]

use std::sync::Arc;

use ringway_abi::raw;
use serde_json::Value;

use super::{Change, Control, Next, Refusal};
use crate::admin::edit;
use crate::admin::plugins::{Loaded, find};
use crate::admin::status::Standing;
use crate::clock;
use crate::config::{Plugin, PluginIndex};
use crate::http1::names::NameTable;
use crate::limits::duration;
use crate::plugin::times::TimeSum;
use crate::worker::crew::Crew;
use crate::worker::program::{Canary, Share};

/// A version on trial.
#[derive(Clone)]
pub(super) struct OnTrial {
    /// The configuration that it is promoted with.
    plugin: Plugin,
    pub(super) loaded: Loaded,
    pub(super) share: Share,
    pub(super) began_unix_ns: u64,
    /// When the window that is judged began (monotonic ms), and what had been counted then.
    since_ms: u64,
    before: Seen,
}

/// What is known of a version's hooks.
#[derive(Debug, Clone, Default)]
struct Seen {
    calls: u64,
    aborts: u64,
    panics: u64,
    /// Measured calls, and those over `timeouts.canary_p99`.
    samples: u64,
    slow: u64,
}

impl OnTrial {
    pub(super) fn new(plugin: Plugin, loaded: Loaded, share: Share) -> OnTrial {
        OnTrial { plugin, loaded, share, began_unix_ns: clock::unix_ns(), since_ms: clock::monotonic_ms(), before: Seen::default() }
    }

    /// Of the plugin.
    pub(super) fn name(&self) -> &str {
        &self.plugin.name
    }

    /// For the workers.
    pub(super) fn part(&self, plugins: &[Loaded]) -> Option<Canary> {
        let (plugin, _) = find(plugins, &self.plugin.name)?;
        Some(Canary { plugin, version: Arc::clone(&self.loaded.version), share: self.share })
    }
}

impl Control {
    pub(super) fn on_trial(&self, name: &str) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.plugin.name == name)
    }

    /// A trial that this change has to wait for.
    pub(super) fn hinders(&self, change: &Change) -> Option<&OnTrial> {
        let waits = match change {
            Change::Reload | Change::Load { .. } | Change::Unload { .. } => true,
            Change::Rollback(name) => !self.on_trial(name),
            _ => false,
        };
        self.canary.as_ref().filter(|_| waits)
    }

    pub(super) fn busy(&self) -> Refusal {
        let name = self.canary.as_ref().map_or("", |canary| &canary.plugin.name);
        Refusal::new(409, format!("a version of the plugin `{name}` is on trial: promote it or roll it back first"))
    }

    fn trial_of(&self, name: &str) -> Result<OnTrial, Refusal> {
        find(&self.plugins, name).ok_or_else(|| Refusal::no_plugin(name))?;
        let found = self.canary.as_ref().filter(|_| self.on_trial(name));
        found.cloned().ok_or_else(|| Refusal::new(409, format!("no version of the plugin `{name}` is on trial")))
    }

    /// Begins a trial.
    pub(super) fn try_out(&mut self, index: PluginIndex, canary: OnTrial, names: NameTable, crew: &Crew) -> Result<Value, Refusal> {
        let name = canary.plugin.name.clone();
        let in_force = &self.plugins[index.0 as usize];
        if Arc::ptr_eq(&in_force.version, &canary.loaded.version) {
            return Err(Refusal::new(409, format!("the plugin `{name}` has this code and this configuration already: there is nothing to try")));
        }
        if !in_force.standing.is_in_force() {
            return Err(Refusal::new(409, format!("the plugin `{name}` is {}: enable it, or swap it without a trial", in_force.standing.status().word())));
        }
        if let Share::Worker(worker) = canary.share
            && worker as usize >= crew.count()
        {
            return Err(Refusal::new(422, format!("there is no worker {worker}: they are numbered from 0 to {}", crew.count() - 1)));
        }
        self.publish(Next { names, canary: Some(canary), ..self.same() }, crew)?;
        Ok(self.show(&name))
    }

    /// The version on trial takes the place of the one in force.
    pub(super) fn promote(&mut self, name: &str, crew: &Crew) -> Result<Value, Refusal> {
        let OnTrial { plugin, mut loaded, .. } = self.trial_of(name)?;
        let Some((index, in_force)) = find(&self.plugins, name) else { return Err(Refusal::no_plugin(name)) };
        loaded.standing = if in_force.standing == Standing::Disabled { Standing::Disabled } else { Standing::InForce };
        let mut next = Next { config: edit::replace(&self.config, index, plugin), canary: None, ..self.same() };
        next.plugins[index.0 as usize] = loaded;
        self.publish(next, crew)?;
        self.forgive(name);
        Ok(self.show(name))
    }

    /// The version in force gets all exchanges again. `reason`: the gateway's, when it is not an operator who wants it.
    pub(super) fn end_trial(&mut self, name: &str, reason: Option<&str>, crew: &Crew) -> Result<Value, Refusal> {
        let canary = self.trial_of(name)?;
        self.publish(Next { canary: None, ..self.same() }, crew)?;
        if let Some((index, _)) = find(&self.plugins, name).filter(|_| reason.is_some()) {
            let reason = format!(
                "version {} (generation {}) was on trial and has been rolled back: {}",
                canary.loaded.made_of.version,
                canary.loaded.generation,
                reason.unwrap_or_default()
            );
            self.plugins[index.0 as usize].last_error = Some(reason);
        }
        Ok(self.show(name))
    }

    /// The end of a trial, when the version is worse than its limits allow. Called a few times a second.
    pub(super) fn judge(&mut self) -> Option<Change> {
        let canary = self.canary.as_ref()?;
        let (index, _) = find(&self.plugins, &canary.plugin.name)?;
        let (limits, timeouts) = (&self.config.limits, &self.config.timeouts);
        let now = self.seen_of_canary(index, u64::from(timeouts.canary_p99));
        let before = &canary.before;
        let (calls, aborts) = (now.calls.saturating_sub(before.calls), now.aborts.saturating_sub(before.aborts));
        let (samples, slow) = (now.samples.saturating_sub(before.samples), now.slow.saturating_sub(before.slow));
        let calls_min = limits.canary_calls_min as u64;
        let window = duration::text(timeouts.canary_window);
        let reason = match () {
            () if now.panics > 0 => Some(format!("it panicked in one of {} hooks", now.calls)),
            () if aborts * 100 > limits.canary_aborts_percent as u64 * calls.max(calls_min) => {
                Some(format!("{aborts} of {calls} hooks failed, more than {} % (limits.canary_aborts_percent) within {window}", limits.canary_aborts_percent))
            }
            () if samples >= calls_min && slow * 100 > samples => {
                Some(format!("{slow} of {samples} hooks took longer than {} (timeouts.canary_p99) within {window}", duration::text(timeouts.canary_p99)))
            }
            () => None,
        };
        if let Some(reason) = reason {
            return Some(Change::EndTrial { name: canary.plugin.name.clone(), reason });
        }
        let now_ms = clock::monotonic_ms();
        if now_ms.saturating_sub(canary.since_ms) >= u64::from(timeouts.canary_window)
            && let Some(canary) = &mut self.canary
        {
            (canary.since_ms, canary.before) = (now_ms, now);
        }
        None
    }

    /// What its hooks have done so far; calls over `slow_ms` are slow, 0: none is.
    fn seen_of_canary(&self, index: PluginIndex, slow_ms: u64) -> Seen {
        let mut seen = Seen::default();
        let mut times = TimeSum::default();
        for counts in self.counts.iter().filter_map(|counts| counts.canary.as_deref()) {
            for counters in counts.of_plugin(&self.config, index) {
                use std::sync::atomic::Ordering::Relaxed;
                seen.calls += counters.calls.load(Relaxed);
                seen.aborts += counters.aborts.load(Relaxed);
                seen.panics += counters.panics.load(Relaxed);
                let measured = counters.times.get();
                raw::HOOKS.iter().filter_map(|(hook, _)| measured?.of(*hook)).for_each(|hook| times.add(hook));
            }
        }
        seen.samples = times.samples;
        seen.slow = if slow_ms == 0 { 0 } else { times.slower_than(slow_ms * 1_000_000) };
        seen
    }
}
