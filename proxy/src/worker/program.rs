//! Builds what one worker runs from a configuration and its loaded plugins.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::config::{Balance, Config, Forwarded, Link, OnError, PluginIndex, ServerAddress, Upstream, UpstreamHost};
use crate::exchange::core::{CoreRoute, HashKey, HostPolicy, Program};
use crate::http1::head::HeadLimits;
use crate::http1::names::NameTable;
use crate::plugin::chain::{self, CoreChain, LinkCounters, LinkParts, scratch_room};
use crate::plugin::host::HostShared;
use crate::plugin::loaded::{CorePlugin, PluginVersion, metric_storage};
use crate::route::RouteTable;
use crate::view::slab::Slab;

/// What all workers share of one configuration.
pub struct Blueprint {
    /// The configuration.
    pub config: Config,
    /// The plugins, by [`PluginIndex`].
    pub plugins: Vec<Arc<PluginVersion>>,
    /// Interned header names, those that plugins registered included.
    pub names: Arc<NameTable>,
    /// The routes.
    pub table: Arc<RouteTable>,
}

impl Blueprint {
    /// The most scratch that the plugins of one route ask for, in bytes.
    pub fn scratch_bytes(&self) -> usize {
        let of = |link: &Link| scratch_room(self.plugins[link.plugin.0 as usize].facts().scratch_bytes) as usize;
        self.config.routes.iter().map(|route| route.links.iter().map(of).sum()).max().unwrap_or(0)
    }
}

/// What a plugin counts on one worker, readable from any thread.
#[derive(Clone)]
pub struct PluginCounts {
    /// By [`PluginIndex`]: the words of its metrics.
    pub metrics: Vec<Arc<[AtomicU64]>>,
    /// By route and link.
    pub routes: Vec<Vec<Arc<LinkCounters>>>,
    /// By listener and link.
    pub listeners: Vec<Vec<Arc<LinkCounters>>>,
}

impl PluginCounts {
    /// Zeroes for this blueprint.
    pub fn new(blueprint: &Blueprint) -> PluginCounts {
        let of = |links: &[Link]| links.iter().map(|_| Arc::default()).collect();
        PluginCounts {
            metrics: blueprint.plugins.iter().map(|p| metric_storage(p.metrics().len())).collect(),
            routes: blueprint.config.routes.iter().map(|r| of(&r.links)).collect(),
            listeners: blueprint.config.listeners.iter().map(|l| of(&l.links)).collect(),
        }
    }
}

/// A worker's program, and the chains of its listeners.
pub struct Built {
    /// For exchanges.
    pub program: Rc<Program>,
    /// By listener: the chain whose `on_accept` hooks run.
    pub accept: Vec<Rc<CoreChain>>,
    /// Each plugin instance once, for `on_tick`.
    pub plugins: Vec<Rc<CorePlugin>>,
}

/// Makes the core instances on this thread and links them.
///
/// # Errors
/// When a plugin's `core_init` fails.
pub fn build(blueprint: &Blueprint, counts: &PluginCounts, worker: u32, slab: &Slab) -> Result<Built, String> {
    let config = &blueprint.config;
    let mut instances: HashMap<PluginIndex, Rc<CorePlugin>> = HashMap::new();
    for (at, version) in blueprint.plugins.iter().enumerate() {
        let instance = CorePlugin::new(Arc::clone(version), worker, Arc::clone(&counts.metrics[at]))?;
        instances.insert(PluginIndex(at as u32), instance);
    }
    let chain = |links: &[Link], counters: &[Arc<LinkCounters>]| {
        let parts = links.iter().zip(counters).map(|(link, counters)| LinkParts {
            plugin: Rc::clone(&instances[&link.plugin]),
            on_error: match link.on_error {
                OnError::Closed => chain::OnError::Closed,
                OnError::Open => chain::OnError::Open,
            },
            post_always: link.post_always,
            counters: Arc::clone(counters),
        });
        Rc::new(CoreChain::new(parts.collect()))
    };
    let routes = config.routes.iter().zip(&counts.routes).map(|(route, counters)| CoreRoute {
        chain: chain(&route.links, counters),
        upstream: route.upstream.map(|u| u.0),
        body_bytes: route.body_bytes as u64,
        timeouts: (*route.timeouts).clone(),
        allow_upgrade: route.allow_upgrade.clone(),
        connect_to: route.connect_to.clone(),
        name: route.name.clone(),
    });
    let routes = routes.collect();
    let accept = config.listeners.iter().zip(&counts.listeners).map(|(l, counters)| chain(&l.links, counters)).collect();
    let host = Rc::new(HostShared {
        names: Arc::clone(&blueprint.names),
        slab: slab.clone(),
        no_chain: Rc::default(),
        upstreams: config.upstreams.iter().map(|u| u.name.clone()).collect(),
        plugin_response_bytes: config.limits.plugin_response_bytes,
        plugin_alloc_bytes: config.limits.plugin_alloc_bytes,
        replacement_bytes: config.limits.body_buffer_bytes,
    });
    let hash_keys = config.upstreams.iter().map(|u| match &u.balance {
        Balance::RoundRobin | Balance::LeastConnections => HashKey::None,
        Balance::HashAddress => HashKey::Address,
        Balance::HashHeader(name) => HashKey::Header(ringway_abi::ids::HeaderId::of(name.as_bytes()), name.clone().into_bytes()),
    });
    let program = Program {
        table: Arc::clone(&blueprint.table),
        routes,
        host,
        limits: (*config.limits).clone(),
        timeouts: (*config.timeouts).clone(),
        head_limits: head_limits(config),
        names: Arc::clone(&blueprint.names),
        via: if config.server.via { format!("1.1 {}", config.server.name).into_bytes() } else { Vec::new() },
        forwarded: match config.server.forwarded {
            Forwarded::XForwarded => crate::exchange::core::Forwarded::XForwarded,
            Forwarded::Forwarded => crate::exchange::core::Forwarded::Rfc7239,
            Forwarded::Off => crate::exchange::core::Forwarded::Off,
        },
        name: config.server.name.clone().into_bytes(),
        hosts: config.upstreams.iter().map(host_policy).collect(),
        hash_keys: hash_keys.collect(),
        access_log: config.server.access_log != crate::config::AccessLog::Off,
    };
    let plugins = (0..blueprint.plugins.len()).filter_map(|at| instances.remove(&PluginIndex(at as u32))).collect();
    Ok(Built { program: Rc::new(program), accept, plugins })
}

fn host_policy(upstream: &Upstream) -> HostPolicy {
    let names = upstream.servers.iter().map(|server| match (&upstream.host, &server.address) {
        (UpstreamHost::Literal(name), _) => name.clone().into_bytes(),
        // A socket file has no host; the name of the upstream is the best there is.
        (_, ServerAddress::Unix(_)) => upstream.name.clone().into_bytes(),
        (_, address) => address.to_string().into_bytes(),
    });
    HostPolicy { replace: upstream.host != UpstreamHost::Keep, names: names.collect() }
}

/// The parser's bounds of a configuration.
pub fn head_limits(config: &Config) -> HeadLimits {
    HeadLimits {
        head_bytes: config.limits.head_bytes,
        target_bytes: config.limits.target_bytes,
        fields: config.limits.header_fields,
        line_bytes: config.limits.line_bytes,
        ..HeadLimits::default()
    }
}
