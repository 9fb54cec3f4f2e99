//! Builds what one worker runs from a configuration and its loaded plugins.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::config::{Balance, Config, Forwarded, Link, OnError, ServerAddress, Upstream, UpstreamHost, UpstreamIndex};
use crate::exchange::core::{CoreRoute, HashKey, HostPolicy, Program};
use crate::http1::head::HeadLimits;
use crate::http1::names::NameTable;
use crate::plugin::chain::{self, CoreChain, LinkCounters, LinkParts, scratch_room};
use crate::plugin::host::HostShared;
use crate::plugin::loaded::{CorePlugin, PluginVersion, metric_storage};
use crate::route::RouteTable;
use crate::upstream;
use crate::view::slab::Slab;

/// What all workers share of one configuration.
pub struct Blueprint {
    /// The configuration.
    pub config: Config,
    /// The plugins, by [`crate::config::PluginIndex`].
    pub plugins: Vec<Arc<PluginVersion>>,
    /// Which of them the operator has disabled, by [`crate::config::PluginIndex`].
    pub disabled: Vec<bool>,
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
    /// By [`crate::config::PluginIndex`]: the words of its metrics.
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

    /// The counters for the next blueprint: what has the same name goes on counting where it was. The metrics of a plugin
    /// go on when its new version defines the same ones.
    pub fn next(&self, was: &Blueprint, is: &Blueprint) -> PluginCounts {
        let mut next = PluginCounts::new(is);
        for (at, version) in is.plugins.iter().enumerate() {
            let same = was.plugins.iter().position(|old| old.name() == version.name() && old.metrics() == version.metrics());
            if let Some(old) = same {
                next.metrics[at] = Arc::clone(&self.metrics[old]);
            }
        }
        let (old, new) = (&was.config, &is.config);
        for (route, counters) in new.routes.iter().zip(&mut next.routes) {
            if let Some(at) = old.routes.iter().position(|other| other.name == route.name) {
                keep_counters((old, &old.routes[at].links, &self.routes[at]), (new, &route.links, counters));
            }
        }
        for (listener, counters) in new.listeners.iter().zip(&mut next.listeners) {
            if let Some(at) = old.listeners.iter().position(|other| other.name == listener.name) {
                keep_counters((old, &old.listeners[at].links, &self.listeners[at]), (new, &listener.links, counters));
            }
        }
        next
    }
}

/// Links of one chain to the same plugin stay the same link.
fn keep_counters(old: (&Config, &[Link], &[Arc<LinkCounters>]), new: (&Config, &[Link], &mut [Arc<LinkCounters>])) {
    let (old_config, old_links, old_counters) = old;
    let (new_config, new_links, new_counters) = new;
    let name = |config: &'_ Config, link: &Link| config.plugin(link.plugin).name.clone();
    for (link, counters) in new_links.iter().zip(new_counters) {
        if let Some(at) = old_links.iter().position(|other| name(old_config, other) == name(new_config, link)) {
            *counters = Arc::clone(&old_counters[at]);
        }
    }
}

/// A worker's program, and the chains of its listeners.
pub struct Built {
    /// For exchanges.
    pub program: Rc<Program>,
    /// By listener: the chain whose `on_accept` hooks run.
    pub accept: Vec<Rc<CoreChain>>,
    /// Each plugin once, for `on_tick`, and for the next program.
    pub plugins: Vec<Instance>,
}

/// A plugin on one worker.
pub struct Instance {
    /// The instance.
    pub plugin: Rc<CorePlugin>,
    /// The operator has disabled it: none of its hooks run.
    pub disabled: bool,
}

/// Makes the core instances on this thread and links them. Of `running`, the instances of the program in force, those of
/// versions that stay are kept.
///
/// # Errors
/// When a plugin's `core_init` fails; what was made before has been undone then.
pub fn build(
    blueprint: &Blueprint,
    upstreams: &upstream::Shared,
    counts: &PluginCounts,
    worker: u32,
    slab: &Slab,
    running: &[Instance],
) -> Result<Built, String> {
    let config = &blueprint.config;
    // The slots were cut when the worker started.
    let (wanted, room) = (blueprint.scratch_bytes(), slab.layout().scratch());
    if wanted > room {
        return Err(format!("the plugins of one route want {wanted} bytes of scratch and the running slots have {room}; restart to use them"));
    }
    let mut plugins: Vec<Instance> = Vec::with_capacity(blueprint.plugins.len());
    for (at, (version, disabled)) in blueprint.plugins.iter().zip(&blueprint.disabled).enumerate() {
        let plugin = match running.iter().find(|instance| Arc::ptr_eq(instance.plugin.version(), version)) {
            Some(kept) => Rc::clone(&kept.plugin),
            None => CorePlugin::new(Arc::clone(version), worker, Arc::clone(&counts.metrics[at]))?,
        };
        plugins.push(Instance { plugin, disabled: *disabled });
    }
    let is_disabled = |link: &Link| plugins[link.plugin.0 as usize].disabled;
    let chain = |links: &[Link], counters: &[Arc<LinkCounters>]| {
        // A disabled plugin is passed by, or refuses everything, as its links say about failures.
        let in_force = links.iter().zip(counters).filter(|(link, _)| !(is_disabled(link) && link.on_error == OnError::Open));
        let refusing = in_force.clone().enumerate().filter(|(_, (link, _))| is_disabled(link)).fold(0, |bits, (at, _)| bits | 1u64 << at);
        let parts = in_force.map(|(link, counters)| LinkParts {
            plugin: Rc::clone(&plugins[link.plugin.0 as usize].plugin),
            on_error: match link.on_error {
                OnError::Closed => chain::OnError::Closed,
                OnError::Open => chain::OnError::Open,
            },
            post_always: link.post_always,
            counters: Arc::clone(counters),
        });
        Rc::new(CoreChain::with_refusals(parts.collect(), refusing))
    };
    let routes = config.routes.iter().zip(&counts.routes).map(|(route, counters)| CoreRoute {
        chain: chain(&route.links, counters),
        upstream: route.upstream.map(|u| upstreams.id(u)),
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
        upstreams: by_id(config, upstreams, String::new(), |u| u.name.clone()),
        plugin_response_bytes: config.limits.plugin_response_bytes,
        plugin_alloc_bytes: config.limits.plugin_alloc_bytes,
        replacement_bytes: config.limits.body_buffer_bytes,
    });
    let hash_keys = by_id(config, upstreams, HashKey::None, |u| match &u.balance {
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
        http: Arc::clone(&config.http),
        head_limits: head_limits(config),
        names: Arc::clone(&blueprint.names),
        via: if config.server.via { format!("1.1 {}", config.server.name).into_bytes() } else { Vec::new() },
        forwarded: match config.server.forwarded {
            Forwarded::XForwarded => crate::exchange::core::Forwarded::XForwarded,
            Forwarded::Forwarded => crate::exchange::core::Forwarded::Rfc7239,
            Forwarded::Off => crate::exchange::core::Forwarded::Off,
        },
        name: config.server.name.clone().into_bytes(),
        hosts: by_id(config, upstreams, HostPolicy { replace: false, names: Vec::new() }, host_policy),
        hash_keys,
        access_log: config.server.access_log != crate::config::AccessLog::Off,
    };
    Ok(Built { program: Rc::new(program), accept, plugins })
}

/// A fact of each upstream, by its id; `none` for ids that the configuration does not use.
fn by_id<T: Clone>(config: &Config, upstreams: &upstream::Shared, none: T, fact: impl Fn(&Upstream) -> T) -> Vec<T> {
    let mut facts = vec![none; upstreams.upstreams.len()];
    for (index, upstream) in (0..).map(UpstreamIndex).zip(config.upstreams.iter()) {
        facts[upstreams.id(index) as usize] = fact(upstream);
    }
    facts
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
        underscores: config.http.underscores,
        ..HeadLimits::default()
    }
}
