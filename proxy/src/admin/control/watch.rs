//! What plugins bring upon themselves: after a panic a new instance, after too many the quarantine.
//!
//! Owns the reckoning. A panic is noticed by its counter, so that workers have nothing to report; all panics of a plugin on
//! one worker between two looks cost one instance.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::{Change, Control, Refusal};
use crate::admin::plugins::find;
use crate::clock;
use crate::config::PluginIndex;
use crate::limits::duration;
use crate::worker::crew::Crew;

/// What is known of the panics of one plugin.
#[derive(Debug, Default)]
pub(super) struct Panics {
    /// By worker: the panics that have been dealt with.
    seen: Vec<u64>,
    /// When instances were replaced (monotonic ms), the oldest first; not more than `limits.plugin_restarts`.
    restarted_ms: VecDeque<u64>,
}

impl Control {
    /// What is to be done now.
    pub(super) fn due(&mut self) -> Vec<Change> {
        let mut due: Vec<Change> = self.judge().into_iter().collect();
        let names: Vec<String> = self.plugins.iter().map(|plugin| plugin.version.name().to_owned()).collect();
        self.panics.retain(|name, _| names.contains(name));
        due.extend((0..).map(PluginIndex).zip(names).filter_map(|(index, name)| self.after_panics(index, name)));
        due
    }

    fn after_panics(&mut self, index: PluginIndex, name: String) -> Option<Change> {
        let (limits, timeouts) = (&self.config.limits, &self.config.timeouts);
        let counted = |of: &crate::worker::program::PluginCounts| of.of_plugin(&self.config, index).map(|c| c.panics.load(Ordering::Relaxed)).sum();
        let now: Vec<u64> = self.counts.iter().map(counted).collect();
        if now.iter().all(|panics| *panics == 0) {
            return None;
        }
        let panics = self.panics.entry(name.clone()).or_default();
        panics.seen.resize(now.len(), 0);
        let workers: Vec<usize> = (0..now.len()).filter(|worker| now[*worker] > panics.seen[*worker]).collect();
        panics.seen = now;
        if workers.is_empty() || !self.plugins[index.0 as usize].standing.is_in_force() {
            return None;
        }
        let now_ms = clock::monotonic_ms();
        let window_ms = u64::from(timeouts.plugin_restart_window);
        panics.restarted_ms.retain(|at| now_ms.saturating_sub(*at) < window_ms);
        if panics.restarted_ms.len() + workers.len() > limits.plugin_restarts {
            let window = duration::text(timeouts.plugin_restart_window);
            let reason = format!(
                "it panicked again: {} of its instances were replaced within {window}, and limits.plugin_restarts is {}",
                panics.restarted_ms.len(),
                limits.plugin_restarts
            );
            return Some(Change::Quarantine { name, reason });
        }
        panics.restarted_ms.extend(workers.iter().map(|_| now_ms));
        Some(Change::Restart { name, workers })
    }

    /// What was is forgiven: an operator, or another version, begins anew.
    pub(super) fn forgive(&mut self, name: &str) {
        if let Some(panics) = self.panics.get_mut(name) {
            panics.restarted_ms.clear();
        }
    }

    /// New instances on these workers. Exchanges in flight finish with the old ones.
    pub(super) fn restart(&mut self, name: &str, workers: &[usize], crew: &Crew) -> Result<Value, Refusal> {
        let (index, _) = find(&self.plugins, name).ok_or_else(|| Refusal::no_plugin(name))?;
        let mut next = self.same();
        let restarts = &mut next.plugins[index.0 as usize].restarts;
        restarts.resize(crew.count(), 0);
        for worker in workers {
            restarts[*worker] += 1;
        }
        self.publish(next, crew)?;
        Ok(self.show(name))
    }
}
