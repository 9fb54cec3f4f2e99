//! What is in force, as JSON.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_abi::outcall::WANT_OUTCALL;
use ringway_abi::raw;
use serde_json::{Value, json};

use super::board::{Board, CanaryState, FailedPlugin, LoadingPlugin, PluginState, Snapshot};
use super::metrics::LINK_COUNTERS;
use super::plugins::MadeOf;
use super::status::Status;
use crate::clock;
use crate::config::{AccessLog, Balance, Config, Link, MissingHost, OnError, PluginIndex};
use crate::plugin::chain::LinkCounters;
use crate::plugin::times::TimeSum;
use crate::upstream::Target;
use crate::worker::program::PluginCounts;

/// `GET /api/plugins`.
pub fn plugins(board: &Board, snapshot: &Snapshot) -> Value {
    let old = snapshot.old.iter().map(|old| {
        json!({
            "name": old.name, "status": Status::Draining.word(), "version": old.version, "build_id": old.build_id, "hash": old.hash, "generation": old.generation,
        })
    });
    json!({
        "plugins": snapshot.plugins.iter().map(|state| plugin(snapshot, state)).collect::<Vec<_>>(),
        "draining": old.collect::<Vec<_>>(),
        "loading": board.loading().iter().map(loading).collect::<Vec<_>>(),
        "failed": snapshot.failed.iter().map(failed).collect::<Vec<_>>(),
        "leaked_libraries": snapshot.leaked,
    })
}

fn loading(plugin: &LoadingPlugin) -> Value {
    json!({ "name": plugin.name, "status": Status::Loading.word(), "path": plugin.path })
}

fn failed(plugin: &FailedPlugin) -> Value {
    json!({ "name": plugin.name, "status": Status::Error.word(), "path": plugin.path, "last_error": plugin.reason })
}

/// `GET /api/plugins/{name}`, whatever becomes of that plugin.
pub fn named(board: &Board, snapshot: &Snapshot, name: &str) -> Option<Value> {
    let in_force = || snapshot.plugins.iter().find(|plugin| plugin.name == name).map(|state| plugin(snapshot, state));
    let under_way = || board.loading().filter(|plugin| plugin.name == name).as_ref().map(loading);
    in_force().or_else(under_way).or_else(|| snapshot.failed.iter().find(|plugin| plugin.name == name).map(failed))
}

/// A plugin that is in force.
pub fn plugin(snapshot: &Snapshot, state: &PluginState) -> Value {
    let index = snapshot.plugins.iter().position(|other| other.name == state.name).unwrap_or_default();
    let facts = &state.facts;
    let made_of = |of: &MadeOf| json!({ "version": of.version, "hash": of.hash, "path": of.path });
    let index = PluginIndex(index as u32);
    let counts: Vec<&PluginCounts> = snapshot.counts.iter().collect();
    json!({
        "name": state.name,
        "status": state.standing.status().word(),
        "reason": state.standing.reason(),
        "plugin": facts.name,
        "version": facts.version,
        "language": facts.language_name(),
        "abi": format!("{}.{}", facts.abi_major, facts.abi_minor),
        "build_id": facts.build_id,
        "hash": facts.file_hash,
        "path": state.made_of.path,
        "generation": state.generation,
        "loaded_unix_ns": state.loaded_unix_ns,
        "hooks": facts.hook_names(),
        "wants": facts.want_names(),
        "scratch_bytes": facts.scratch_bytes,
        "upstreams": state.upstreams,
        "maps": state.maps.iter().map(|map| map.shape().name()).collect::<Vec<_>>(),
        "attached": super::edit::attached(&snapshot.config, index),
        "counters": counters_of(snapshot, &counts, index),
        "hook_times": hook_times(times_of(snapshot, &counts, index)),
        "metrics": metrics_of(state, &counts, index),
        "restarts": state.restarts,
        "canary": snapshot.canary.as_ref().filter(|canary| canary.state.name == state.name).map(|canary| on_trial(snapshot, canary, index)),
        "previous": state.previous.as_ref().map(made_of),
        "last_error": state.last_error,
    })
}

/// The version on trial.
fn on_trial(snapshot: &Snapshot, canary: &CanaryState, plugin: PluginIndex) -> Value {
    let CanaryState { state, share, began_unix_ns } = canary;
    let counts: Vec<&PluginCounts> = snapshot.counts.iter().filter_map(|counts| counts.canary.as_deref()).collect();
    json!({
        "version": state.facts.version,
        "build_id": state.facts.build_id,
        "hash": state.facts.file_hash,
        "path": state.made_of.path,
        "generation": state.generation,
        "share": share.to_string(),
        "began_unix_ns": began_unix_ns,
        "counters": counters_of(snapshot, &counts, plugin),
        "hook_times": hook_times(times_of(snapshot, &counts, plugin)),
        "metrics": metrics_of(state, &counts, plugin),
    })
}

/// What a plugin counts itself, over all workers.
fn metrics_of(state: &PluginState, counts: &[&PluginCounts], plugin: PluginIndex) -> Value {
    let metrics = state.metrics.iter().enumerate().map(|(number, metric)| {
        let words = counts.iter().filter_map(|counts| counts.metrics.get(plugin.0 as usize)?.get(number));
        (metric.name.clone(), words.map(|word| word.load(Ordering::Relaxed)).fold(0, u64::wrapping_add).into())
    });
    Value::Object(metrics.collect())
}

/// The counters of all links to a plugin, and of what runs for no link, added up.
fn counters_of(snapshot: &Snapshot, counts: &[&PluginCounts], plugin: PluginIndex) -> Value {
    let mine: Vec<_> = counts.iter().flat_map(|counts| counts.of_plugin(&snapshot.config, plugin)).collect();
    counters(mine.into_iter())
}

/// The times of the hooks of a plugin, over all workers and links, by the hook's bit.
pub fn times_of(snapshot: &Snapshot, counts: &[&PluginCounts], plugin: PluginIndex) -> BTreeMap<u32, TimeSum> {
    let mut sums: BTreeMap<u32, TimeSum> = BTreeMap::new();
    for times in counts.iter().flat_map(|counts| counts.of_plugin(&snapshot.config, plugin)).filter_map(|counters| counters.times.get()) {
        for (bit, times) in raw::HOOKS.iter().filter_map(|(bit, _)| Some((*bit, times.of(*bit)?))) {
            sums.entry(bit).or_default().add(times);
        }
    }
    sums
}

fn hook_times(times: BTreeMap<u32, TimeSum>) -> Value {
    let measured = times.iter().filter(|(_, sum)| sum.samples > 0).map(|(bit, sum)| {
        let shown = json!({
            "samples": sum.samples,
            "sum_ns": sum.sum_ns,
            "mean_ns": sum.sum_ns / sum.samples,
            "p50_ns": sum.quantile_ns(50),
            "p99_ns": sum.quantile_ns(99),
            "max_ns": sum.max_ns,
        });
        (hook_name(*bit).to_owned(), shown)
    });
    Value::Object(measured.collect())
}

/// The name of a hook by its bit.
pub fn hook_name(bit: u32) -> &'static str {
    raw::HOOKS.iter().find(|(known, _)| *known == bit).map_or("", |(_, name)| name)
}

/// What a link counted, or several together.
fn counters<'a>(of: impl Iterator<Item = &'a Arc<LinkCounters>> + Clone) -> Value {
    let sums = LINK_COUNTERS.map(|(name, _, counter)| (name.to_owned(), Value::from(of.clone().map(|c| counter(c).load(Ordering::Relaxed)).sum::<u64>())));
    Value::Object(sums.into_iter().collect())
}

/// `GET /api/chains`.
pub fn chains(snapshot: &Snapshot) -> Value {
    let config = &snapshot.config;
    let routes = config.routes.iter().enumerate().map(|(at, route)| {
        let counts = snapshot.counts.iter().map(|counts| &counts.routes[at]);
        let mut shown = chain(snapshot, &route.links, &counts.collect::<Vec<_>>());
        shown["route"] = json!(route.name);
        shown["upstream"] = json!(route.upstream.map(|index| &config.upstream(index).name));
        shown
    });
    let listeners = config.listeners.iter().enumerate().map(|(at, listener)| {
        let counts = snapshot.counts.iter().map(|counts| &counts.listeners[at]);
        let mut shown = chain(snapshot, &listener.links, &counts.collect::<Vec<_>>());
        shown["listener"] = json!(listener.name);
        shown
    });
    json!({ "routes": routes.collect::<Vec<_>>(), "listeners": listeners.collect::<Vec<_>>() })
}

/// One chain: its links, what they cost together, and which of them causes which cost.
fn chain(snapshot: &Snapshot, links: &[Link], counts: &[&Vec<Arc<LinkCounters>>]) -> Value {
    let state = |link: &Link| &snapshot.plugins[link.plugin.0 as usize];
    let shown = links.iter().enumerate().map(|(at, link)| {
        json!({
            "order": at + 1,
            "plugin": state(link).name,
            "version": state(link).facts.version,
            "status": match (state(link).standing.is_in_force(), link.on_error) {
                (true, _) => "active",
                (false, OnError::Open) => "bypassed",
                (false, OnError::Closed) => "refusing",
            },
            "on_error": on_error(link.on_error),
            "post_always": link.post_always,
            "hooks": state(link).facts.hook_names(),
            "counters": counters(counts.iter().map(|links| &links[at])),
        })
    });
    let in_force = || links.iter().map(state).filter(|state| state.standing.is_in_force());
    let costs = in_force().flat_map(|state| {
        let has = |hook| state.facts.hooks & hook != 0;
        let wants = |want| state.facts.wants & want != 0;
        let found = COSTS.iter().filter(move |cost| has_cost(cost, &has, &wants));
        found.map(|cost| format!("{}: {}", state.name, cost.text)).collect::<Vec<_>>()
    });
    let (hooks, wants) = in_force().fold((0, 0), |(hooks, wants), state| (hooks | state.facts.hooks, wants | state.facts.wants));
    let scratch_bytes: u64 = in_force().map(|state| u64::from(state.facts.scratch_bytes)).sum();
    json!({
        "links": shown.collect::<Vec<_>>(),
        "plan": {
            "request_head": if wants & raw::WANT_EDIT_REQUEST != 0 { "may be re-written" } else { "forwarded as received" },
            "request_body": match () {
                () if hooks & raw::HOOK_REQUEST_BODY != 0 => "held whole when a plugin asks for it",
                () if hooks & raw::HOOK_REQUEST_CHUNK != 0 => "shown piece by piece",
                () => "streamed unseen",
            },
            "response_head": match () {
                () if hooks & raw::HOOK_RESPONSE == 0 => "parsed for framing only",
                () if wants & raw::WANT_EDIT_RESPONSE != 0 => "shown, may be re-written",
                () => "shown",
            },
            "response_body": if hooks & raw::HOOK_RESPONSE_CHUNK != 0 { "shown piece by piece" } else { "streamed unseen" },
            "scratch_bytes": scratch_bytes,
        },
        "costs": costs.collect::<Vec<_>>(),
    })
}

/// What a hook and a want cost each exchange.
struct Cost {
    /// Any of these hooks; 0: whatever the hooks.
    hooks: u32,
    /// Any of these wants; 0: whatever the wants.
    wants: u64,
    text: &'static str,
}

fn has_cost(cost: &Cost, has: &impl Fn(u32) -> bool, wants: &impl Fn(u64) -> bool) -> bool {
    (cost.hooks == 0 || has(cost.hooks)) && (cost.wants == 0 || wants(cost.wants))
}

/// See `exchange`: each stands for a test of the plan there.
const COSTS: [Cost; 10] = [
    Cost { hooks: 0, wants: raw::WANT_EDIT_REQUEST, text: "request head is re-written when it edits it" },
    Cost { hooks: raw::HOOK_REQUEST_CHUNK, wants: 0, text: "request bodies are shown, so they are copied through user space" },
    Cost { hooks: raw::HOOK_REQUEST_BODY, wants: 0, text: "request bodies are buffered whole when it asks for them" },
    Cost { hooks: raw::HOOK_REQUEST_CHUNK, wants: raw::WANT_EDIT_REQUEST_BODY, text: "request bodies are sent chunked" },
    Cost { hooks: raw::HOOK_RESPONSE, wants: 0, text: "response head is shown" },
    Cost { hooks: raw::HOOK_RESPONSE_CHUNK, wants: 0, text: "response bodies are shown, so they are copied through user space" },
    Cost { hooks: raw::HOOK_RESPONSE_CHUNK, wants: raw::WANT_EDIT_RESPONSE_BODY, text: "response bodies are sent chunked" },
    Cost { hooks: 0, wants: raw::WANT_SUSPEND, text: "exchanges wait for events when it asks for them" },
    Cost { hooks: 0, wants: WANT_OUTCALL, text: "exchanges wait for upstreams that it asks itself" },
    Cost { hooks: 0, wants: raw::WANT_TIME, text: "the precise clock is read" },
];

/// `GET /api/upstreams`.
pub fn upstreams(snapshot: &Snapshot) -> Value {
    let now_ms = clock::monotonic_ms();
    let shown = snapshot.upstreams.current().map(|upstream| {
        let servers = upstream.servers.iter().zip(upstream.in_flight()).map(|(server, in_flight)| {
            json!({
                "address": server.address.to_string(),
                "weight": server.weight,
                "in_flight": in_flight,
                "state": match () {
                    () if server.targets().is_empty() => "unresolved",
                    () if !server.is_healthy() => "unhealthy",
                    () if server.is_ejected(now_ms) => "ejected",
                    () => "usable",
                },
                "healthy": server.is_healthy(),
                "ejected": server.is_ejected(now_ms),
                "addresses": server.targets().iter().map(target).collect::<Vec<_>>(),
            })
        });
        json!({ "name": upstream.config.name, "health_checks": upstream.config.health.is_some(), "servers": servers.collect::<Vec<_>>() })
    });
    json!({ "upstreams": shown.collect::<Vec<_>>() })
}

fn target(target: &Target) -> String {
    match target {
        Target::Tcp(address) => address.to_string(),
        Target::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn balance(balance: &Balance) -> String {
    match balance {
        Balance::RoundRobin => "round-robin".into(),
        Balance::LeastConnections => "least-connections".into(),
        Balance::HashAddress => "hash-address".into(),
        Balance::HashHeader(name) => format!("hash-header:{name}"),
    }
}

/// `GET /api/config`: what is in force, with every default filled in. Tokens are left out.
pub fn config(snapshot: &Snapshot) -> Value {
    let config = &snapshot.config;
    let server = &config.server;
    json!({
        "source": &*config.source,
        "server": {
            "workers": snapshot.counts.len(),
            "admin": server.admin.as_ref().map(ToString::to_string),
            "admin_token": server.admin_token.as_ref().map(|_| "set"),
            "name": server.name,
            "via": server.via,
            "forwarded": server.forwarded,
            "trusted_proxies": server.trusted_proxies.iter().map(ToString::to_string).chain(server.trusts_unix.then(|| "unix".to_owned())).collect::<Vec<_>>(),
            "access_log": match &server.access_log {
                AccessLog::Off => "off".into(),
                AccessLog::Stdout => "stdout".into(),
                AccessLog::Stderr => "stderr".into(),
                AccessLog::File(path) => path.display().to_string(),
            },
            "log_level": server.log_level,
            "log_format": server.log_format,
            "driver": server.driver,
            "pin_workers": server.pin_workers,
            "huge_pages": server.huge_pages,
            "supervisor": server.supervisor,
            "half_close": server.half_close,
            "state": server.state,
        },
        "limits": &*config.limits,
        "timeouts": &*config.timeouts,
        "http": {
            "underscores": config.http.underscores,
            "host_differs": config.http.host_differs,
            "missing_host": match &config.http.missing_host {
                MissingHost::Allow => "allow",
                MissingHost::Reject => "reject",
                MissingHost::Named(host) => host,
            },
            "path": config.http.path,
        },
        "listeners": config.listeners.iter().map(|listener| json!({
            "name": listener.name, "address": listener.address.to_string(), "backlog": listener.backlog,
            "mode": listener.mode.map(|mode| format!("{mode:04o}")), "plugins": links(config, &listener.links),
        })).collect::<Vec<_>>(),
        "upstreams": config.upstreams.iter().map(|upstream| json!({
            "name": upstream.name,
            "servers": upstream.servers.iter().map(|server| json!({ "address": server.address.to_string(), "weight": server.weight })).collect::<Vec<_>>(),
            "balance": balance(&upstream.balance),
            "retries": upstream.retries,
            "idle_connections": upstream.idle_connections,
        })).collect::<Vec<_>>(),
        "plugins": config.plugins.iter().map(|plugin| json!({
            "name": plugin.name, "path": plugin.path, "on_error": on_error(plugin.on_error), "verify": plugin.verify, "maps": plugin.maps,
            "sinks": plugin.sinks.iter().map(|(map, target)| (map.clone(), target.to_string().into())).collect::<serde_json::Map<_, Value>>(),
        })).collect::<Vec<_>>(),
        "routes": config.routes.iter().map(|route| json!({
            "name": route.name,
            "hosts": route.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "path": route.path.as_ref().map(ToString::to_string),
            "methods": route.methods,
            "upstream": route.upstream.map(|index| &config.upstream(index).name),
            "plugins": links(config, &route.links),
            "body_bytes": route.body_bytes,
        })).collect::<Vec<_>>(),
        "warnings": config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn links(config: &Config, links: &[Link]) -> Vec<Value> {
    let shown =
        links.iter().map(|link| json!({ "name": config.plugin(link.plugin).name, "on_error": on_error(link.on_error), "post_always": link.post_always }));
    shown.collect()
}

fn on_error(policy: OnError) -> &'static str {
    match policy {
        OnError::Closed => "closed",
        OnError::Open => "open",
    }
}
