//! `/metrics`: the Prometheus text format, version 0.0.4.
//!
//! Counters of the workers are added up when they are read. A writer of our own, because the libraries want to own the
//! counters that ours are read from, or write OpenMetrics, whose counters have other names.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::board::{Board, Snapshot};
use super::show::{hook_name, times_of};
use super::status::Standing;
use crate::clock;
use crate::config::PluginIndex;
use crate::exchange::core::WorkerStats;
use crate::logs;
use crate::plugin::chain::LinkCounters;
use crate::plugin::wake;
use crate::upstream::SharedServer;

/// The text.
pub fn text(board: &Board, snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    workers(&mut text, board);
    links(&mut text, snapshot);
    plugins(&mut text, snapshot);
    over_budget(&mut text, board, snapshot);
    upstreams(&mut text, snapshot);
    text.one("publications_total", "counter", "Programs put in force.", snapshot.publications);
    text.one("change_failures_total", "counter", "Changes that failed and changed nothing.", snapshot.failures);
    text.one("restarts_total", "counter", "Deaths of the gateway process after which it was started again.", board.restarts);
    text.family("log_lines_dropped_total", "counter", "Log lines that found no room or could not be written.");
    for (log, count) in logs::dropped() {
        text.sample("log_lines_dropped_total", &[("log", log)], count);
    }
    text.one("draining", "gauge", "1 while no new connections are accepted.", u64::from(board.draining.load(Ordering::Relaxed)));
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP ringway_{name} {help}\n# TYPE ringway_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.0, "ringway_{name}");
        for (at, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

fn over_budget(text: &mut Text, board: &Board, snapshot: &Snapshot) {
    let mut counts = board.watchdog.over_budget();
    for plugin in &snapshot.plugins {
        counts.entry(plugin.name.clone()).or_default();
    }
    text.family("hook_over_budget_total", "counter", "Hook calls that held their worker for longer than timeouts.hook_budget.");
    for (plugin, count) in counts {
        text.sample("hook_over_budget_total", &[("plugin", &plugin)], count);
    }
}

fn workers(text: &mut Text, board: &Board) {
    let sum = |of: &dyn Fn(&WorkerStats) -> &AtomicU64| board.stats.iter().map(|stats| of(stats).load(Ordering::Relaxed)).sum::<u64>();
    text.family("build_info", "gauge", "Always 1.");
    text.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.one("workers", "gauge", "Worker threads.", board.stats.len() as u64);
    text.one("connections_accepted_total", "counter", "Connections accepted.", sum(&|s| &s.accepted));
    text.one("connections_refused_total", "counter", "Connections refused by a bound or a plugin.", sum(&|s| &s.refused));
    text.one("connections_open", "gauge", "Connections open.", sum(&|s| &s.open));
    text.one("requests_total", "counter", "Requests whose head was understood.", sum(&|s| &s.requests));
    text.family("responses_total", "counter", "Exchanges by the class of their status, which is that of the access log; none: a plugin closed the connection.");
    for (at, class) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().enumerate() {
        text.sample("responses_total", &[("class", class)], sum(&|s| &s.responses[at]));
    }
    text.one("request_body_bytes_total", "counter", "Body bytes from clients.", sum(&|s| &s.request_bytes));
    text.one("response_body_bytes_total", "counter", "Body bytes to clients.", sum(&|s| &s.response_bytes));
    text.one("upstream_connects_total", "counter", "Connections made to upstreams.", sum(&|s| &s.upstream_connects));
    text.one("upstream_reused_total", "counter", "Exchanges that used a pooled connection.", sum(&|s| &s.upstream_reused));
    text.one("upstream_retries_total", "counter", "Attempts after the first one.", sum(&|s| &s.upstream_retries));
    text.one("slots_waiting", "gauge", "Connections that wait for a slot.", sum(&|s| &s.waiting));
    text.one("tunnels", "gauge", "Tunnels that are open, and requests for one.", sum(&|s| &s.tunnels));
    text.one("slots_used", "gauge", "Slots of memory in use.", sum(&|s| &s.slots));
    text.one("suspended", "gauge", "Exchanges whose plugins wait for an event.", sum(&|s| &s.suspended));
    text.one("outcalls", "gauge", "Outcalls of plugins under way.", sum(&|s| &s.outcalls));
    text.one("stale_wakes_total", "counter", "Wakes of plugins that found nobody waiting.", wake::stale());
    text.family("faults_total", "counter", "Exchanges and connections that ended with a fault, by its reason.");
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    for (fault, count) in board.stats.iter().flat_map(|stats| stats.faults.iter()) {
        *faults.entry(fault.row().reason).or_default() += count;
    }
    for (reason, count) in faults {
        text.sample("faults_total", &[("reason", reason)], count);
    }
}

/// A counter of links: its name, its help, where it is.
type LinkCounter = (&'static str, &'static str, fn(&LinkCounters) -> &AtomicU64);

/// Every counter of a link.
pub const LINK_COUNTERS: [LinkCounter; 12] = [
    ("calls", "Hooks called.", |counters| &counters.calls),
    ("aborts", "Hooks that failed.", |counters| &counters.aborts),
    ("panics", "Hooks that failed by a panic; counted as aborts too.", |counters| &counters.panics),
    ("responds", "Exchanges answered by the link.", |counters| &counters.responds),
    ("drops", "Connections dropped by the link.", |counters| &counters.drops),
    ("edits", "Hooks that edited a message.", |counters| &counters.edits),
    ("suspends", "Hooks that waited for an event.", |counters| &counters.suspends),
    ("dones", "Hooks that ended the part of the link in their exchange.", |counters| &counters.dones),
    ("bodies", "Hooks that asked for the whole request body.", |counters| &counters.bodies),
    ("outcalls", "Outcalls that were sent.", |counters| &counters.outcalls),
    ("outcall_failures", "Outcalls that came to no reply.", |counters| &counters.outcall_failures),
    ("outcall_cancels", "Outcalls that were given up, because nobody waited for them any more.", |counters| &counters.outcall_cancels),
];

fn links(text: &mut Text, snapshot: &Snapshot) {
    let config = &snapshot.config;
    for (name, help, of) in LINK_COUNTERS {
        let name = format!("link_{name}_total");
        text.family(&name, "counter", help);
        // Two routes may have one name, and a plugin may stand twice in a chain: their counters are added up.
        let mut samples: BTreeMap<[(&str, &str); 2], u64> = BTreeMap::new();
        for counts in &snapshot.counts {
            let routes = config.routes.iter().zip(&counts.routes).map(|(route, counters)| ("route", &route.name, &route.links, counters));
            let listeners = config.listeners.iter().zip(&counts.listeners).map(|(l, counters)| ("listener", &l.name, &l.links, counters));
            for (kind, owner, links, counters) in routes.chain(listeners) {
                for (link, counters) in links.iter().zip(counters) {
                    let labels = [(kind, owner.as_str()), ("plugin", config.plugin(link.plugin).name.as_str())];
                    *samples.entry(labels).or_default() += of(counters).load(Ordering::Relaxed);
                }
            }
        }
        for (labels, count) in &samples {
            text.sample(&name, labels, *count);
        }
    }
}

fn plugins(text: &mut Text, snapshot: &Snapshot) {
    text.family("loaded_plugin_info", "gauge", "Always 1: which version of a plugin is in force.");
    for plugin in &snapshot.plugins {
        let generation = plugin.generation.to_string();
        let build_id = plugin.facts.build_id.as_deref().unwrap_or_default();
        let labels = [("plugin", plugin.name.as_str()), ("version", &plugin.facts.version), ("build_id", build_id), ("generation", &generation)];
        text.sample("loaded_plugin_info", &labels, 1);
    }
    text.family("loaded_plugin_disabled", "gauge", "1 while the plugin is disabled.");
    for plugin in &snapshot.plugins {
        text.sample("loaded_plugin_disabled", &[("plugin", &plugin.name)], (plugin.standing == Standing::Disabled).into());
    }
    text.family("loaded_plugin_quarantined", "gauge", "1 while the gateway passes the plugin by or refuses for it.");
    for plugin in &snapshot.plugins {
        text.sample("loaded_plugin_quarantined", &[("plugin", &plugin.name)], plugin.standing.reason().is_some().into());
    }
    text.family("loaded_plugin_restarts", "gauge", "Instances of the version in force that were replaced after panics.");
    for plugin in &snapshot.plugins {
        text.sample("loaded_plugin_restarts", &[("plugin", &plugin.name)], plugin.restarts);
    }
    on_trial(text, snapshot);
    hook_times(text, snapshot);
    text.one("old_plugin_versions", "gauge", "Versions that exchanges in flight still run.", snapshot.old.len() as u64);
    text.one("leaked_libraries", "gauge", "Libraries that stayed mapped after their plugin was unloaded.", snapshot.leaked.len() as u64);
    maps(text, snapshot);
    plugin_metrics(text, snapshot);
}

fn maps(text: &mut Text, snapshot: &Snapshot) {
    let maps = || snapshot.plugins.iter().flat_map(|plugin| plugin.maps.iter().map(move |map| (plugin.name.as_str(), map)));
    text.family("map_entries", "gauge", "Keys in a map, entries of an array, records of a ring that wait.");
    for (plugin, map) in maps() {
        text.sample("map_entries", &[("plugin", plugin), ("map", map.shape().name())], map.entries() as u64);
    }
    text.family("map_dropped_total", "counter", "Records that found no room in a ring.");
    for (plugin, map) in maps() {
        if let Some((_, dropped)) = map.traffic() {
            text.sample("map_dropped_total", &[("plugin", plugin), ("map", map.shape().name())], dropped);
        }
    }
}

/// The version that is on trial.
fn on_trial(text: &mut Text, snapshot: &Snapshot) {
    let plugin = snapshot.canary.as_ref().map(|canary| (canary, plugin_index(snapshot, &canary.state.name)));
    for (name, help, of) in LINK_COUNTERS {
        let name = format!("canary_{name}_total");
        text.family(&name, "counter", help);
        if let Some((canary, index)) = plugin {
            let generation = canary.state.generation.to_string();
            let labels = [("plugin", canary.state.name.as_str()), ("version", &canary.state.facts.version), ("generation", &generation)];
            let counters = snapshot.counts.iter().filter_map(|counts| counts.canary.as_deref()).flat_map(|counts| counts.of_plugin(&snapshot.config, index));
            text.sample(&name, &labels, counters.map(|counters| of(counters).load(Ordering::Relaxed)).sum());
        }
    }
}

fn plugin_index(snapshot: &Snapshot, name: &str) -> PluginIndex {
    PluginIndex(snapshot.plugins.iter().position(|plugin| plugin.name == name).unwrap_or_default() as u32)
}

/// How long hooks take, as far as it was measured.
fn hook_times(text: &mut Text, snapshot: &Snapshot) {
    text.one("stats", "gauge", "1 while hooks are measured.", snapshot.timing.into());
    text.family("hook_ns", "summary", "Nanoseconds of the calls of a hook that were measured.");
    let counts: Vec<_> = snapshot.counts.iter().collect();
    for plugin in &snapshot.plugins {
        for (bit, sum) in times_of(snapshot, &counts, plugin_index(snapshot, &plugin.name)).iter().filter(|(_, sum)| sum.samples > 0) {
            let (name, labels) = ("hook_ns", [("plugin", plugin.name.as_str()), ("hook", hook_name(*bit))]);
            for (quantile, percent) in [("0.5", 50), ("0.99", 99), ("1", 100)] {
                text.sample(name, &[labels[0], labels[1], ("quantile", quantile)], sum.quantile_ns(percent));
            }
            text.sample(&format!("{name}_sum"), &labels, sum.sum_ns);
            text.sample(&format!("{name}_count"), &labels, sum.samples);
        }
    }
}

/// What the plugins define themselves: one family for each name, whoever defines it.
fn plugin_metrics(text: &mut Text, snapshot: &Snapshot) {
    let mut families: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    for (at, plugin) in snapshot.plugins.iter().enumerate() {
        for (number, metric) in plugin.metrics.iter().enumerate() {
            families.entry(&metric.name).or_default().push((at, number));
        }
    }
    for (name, members) in families {
        let metric = |(at, number): (usize, usize)| &snapshot.plugins[at].metrics[number];
        let gauges = members.iter().filter(|member| metric(**member).gauge).count();
        let kind = match gauges {
            0 => "counter",
            all if all == members.len() => "gauge",
            _ => "untyped",
        };
        let name = format!("plugin_{name}");
        text.family(&name, kind, &metric(members[0]).help);
        for (at, number) in members {
            let value = snapshot.counts.iter().map(|counts| counts.metrics[at][number].load(Ordering::Relaxed)).fold(0, u64::wrapping_add);
            text.sample(&name, &[("plugin", &snapshot.plugins[at].name)], value);
        }
    }
}

fn upstreams(text: &mut Text, snapshot: &Snapshot) {
    let now_ms = clock::monotonic_ms();
    let old = snapshot.upstreams.old().count() as u64;
    text.one("old_upstreams", "gauge", "Upstreams of earlier configurations, kept at the last change for exchanges that could still use them.", old);
    type State = fn(&SharedServer, u64) -> bool;
    let families: [(&str, &str, State); 3] = [
        ("upstream_server_usable", "1 while the server gets exchanges.", |server, now_ms| server.is_usable(now_ms)),
        ("upstream_server_healthy", "What active checks found last.", |server, _| server.is_healthy()),
        ("upstream_server_ejected", "1 while the server is left out after failures.", |server, now_ms| server.is_ejected(now_ms)),
    ];
    for (name, help, state) in families {
        text.family(name, "gauge", help);
        // The same address may stand twice in one upstream: usable when one of them is.
        let mut samples: BTreeMap<(&str, String), bool> = BTreeMap::new();
        for upstream in snapshot.upstreams.current() {
            for server in &upstream.servers {
                *samples.entry((&upstream.config.name, server.address.to_string())).or_default() |= state(server, now_ms);
            }
        }
        for ((upstream, server), yes) in samples {
            text.sample(name, &[("upstream", upstream), ("server", &server)], yes.into());
        }
    }
}
