//! Builds what one worker runs from a configuration and its loaded plugins.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::config::{Balance, Config, Forwarded, Link, OnError, PluginIndex, ServerAddress, Upstream, UpstreamHost, UpstreamIndex};
use crate::exchange::core::{CoreRoute, HashKey, HostPolicy, Program};
use crate::http1::head::HeadLimits;
use crate::http1::names::NameTable;
use crate::plugin::chain::{self, CoreChain, LinkCounters, LinkParts, scratch_room};
use crate::plugin::host::HostShared;
use crate::plugin::loaded::{CorePlugin, PluginVersion, metric_storage};
use crate::plugin::outcall::OutcallBounds;
use crate::plugin::times::{LinkTimes, SAMPLE_EVERY};
use crate::route::RouteTable;
use crate::upstream;
use crate::view::slab::Slab;

/// What all workers share of one configuration.
pub struct Blueprint {
    /// The configuration.
    pub config: Config,
    /// The plugins, by [`crate::config::PluginIndex`].
    pub plugins: Vec<Arc<PluginVersion>>,
    /// Which of them are put out, by [`crate::config::PluginIndex`].
    pub disabled: Vec<bool>,
    /// How often the instances of each were replaced: by plugin and worker. Missing ones were not.
    pub restarts: Vec<Vec<u64>>,
    /// Hooks are measured, one call in [`SAMPLE_EVERY`].
    pub timing: bool,
    /// A version on trial beside the one in force.
    pub canary: Option<Canary>,
    /// Interned header names, those that plugins registered included.
    pub names: Arc<NameTable>,
    /// The routes.
    pub table: Arc<RouteTable>,
}

/// A version of a plugin that some exchanges run instead of the one in force.
#[derive(Clone)]
pub struct Canary {
    /// Whose version it is.
    pub plugin: PluginIndex,
    /// The version.
    pub version: Arc<PluginVersion>,
    /// Which exchanges.
    pub share: Share,
}

/// The exchanges that a canary gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many of 100, on every worker.
    Percent(u32),
    /// All of one worker.
    Worker(u32),
}

impl Share {
    /// Of 100 exchanges of a worker.
    fn percent_on(self, worker: u32) -> u32 {
        match self {
            Share::Percent(percent) => percent,
            Share::Worker(only) => 100 * u32::from(only == worker),
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Share::Percent(percent) => write!(f, "{percent}%"),
            Share::Worker(worker) => write!(f, "worker {worker}"),
        }
    }
}

impl Blueprint {
    /// These plugins, all of them in force, and nothing on trial or measured. Routes keep the numbers that they have in the `former` table.
    pub fn new(config: Config, plugins: Vec<Arc<PluginVersion>>, names: Arc<NameTable>, former: Option<&RouteTable>) -> Blueprint {
        let table = Arc::new(RouteTable::new(&config, former));
        Blueprint { disabled: vec![false; plugins.len()], restarts: Vec::new(), timing: false, canary: None, config, plugins, names, table }
    }

    fn restarts_on(&self, plugin: usize, worker: u32) -> u64 {
        self.restarts.get(plugin).and_then(|of| of.get(worker as usize)).copied().unwrap_or(0)
    }

    /// The most scratch that the plugins of one route ask for, in bytes.
    pub fn scratch_bytes(&self) -> usize {
        let of = |link: &Link| {
            let canary = self.canary.iter().filter(|canary| canary.plugin == link.plugin).map(|canary| &canary.version);
            let versions = canary.chain([&self.plugins[link.plugin.0 as usize]]);
            versions.map(|version| scratch_room(version.facts().scratch_bytes) as usize).max().unwrap_or(0)
        };
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
    /// By [`crate::config::PluginIndex`]: what runs for no link (`on_tick`).
    pub ticks: Vec<Arc<LinkCounters>>,
    /// Where the version on trial counts; the other plugins of its exchanges count in the same places as ever.
    pub canary: Option<Box<PluginCounts>>,
}

impl PluginCounts {
    /// Zeroes for this blueprint.
    pub fn new(blueprint: &Blueprint) -> PluginCounts {
        let counts = PluginCounts::zeroes(blueprint);
        counts.measure(blueprint, None);
        counts
    }

    fn zeroes(blueprint: &Blueprint) -> PluginCounts {
        let of = |links: &[Link]| links.iter().map(|_| Arc::default()).collect();
        PluginCounts {
            metrics: blueprint.plugins.iter().map(|p| metric_storage(p.metrics().len())).collect(),
            routes: blueprint.config.routes.iter().map(|r| of(&r.links)).collect(),
            listeners: blueprint.config.listeners.iter().map(|l| of(&l.links)).collect(),
            ticks: blueprint.plugins.iter().map(|_| Arc::default()).collect(),
            canary: None,
        }
    }

    /// Each link of the configuration with its counters: routes first, then listeners.
    pub fn links<'a>(&'a self, config: &'a Config) -> impl Iterator<Item = (&'a Link, &'a Arc<LinkCounters>)> {
        let routes = config.routes.iter().map(|route| &route.links).zip(&self.routes);
        let listeners = config.listeners.iter().map(|listener| &listener.links).zip(&self.listeners);
        routes.chain(listeners).flat_map(|(links, counters)| links.iter().zip(counters))
    }

    /// Everything that a plugin counts on this worker.
    pub fn of_plugin<'a>(&'a self, config: &'a Config, plugin: PluginIndex) -> impl Iterator<Item = &'a Arc<LinkCounters>> {
        let links = self.links(config).filter(move |(link, _)| link.plugin == plugin).map(|(_, counters)| counters);
        links.chain(self.ticks.get(plugin.0 as usize))
    }

    /// Makes room for times where hooks will be measured.
    fn measure(&self, blueprint: &Blueprint, canary: Option<&Canary>) {
        for (link, counters) in self.links(&blueprint.config) {
            let version = match canary {
                Some(canary) if canary.plugin == link.plugin => &canary.version,
                _ if blueprint.timing => &blueprint.plugins[link.plugin.0 as usize],
                _ => continue,
            };
            counters.times.get_or_init(|| LinkTimes::new(version.facts().hooks));
        }
    }

    /// Where a canary counts: in places of its own, the other plugins where they always do.
    fn for_canary(&self, blueprint: &Blueprint, canary: &Canary) -> PluginCounts {
        let mut counts = PluginCounts { canary: None, ..self.clone() };
        let own = |links: &[Link], counters: &mut [Arc<LinkCounters>]| {
            for (_, counters) in links.iter().zip(counters).filter(|(link, _)| link.plugin == canary.plugin) {
                *counters = Arc::default();
            }
        };
        blueprint.config.routes.iter().zip(&mut counts.routes).for_each(|(route, counters)| own(&route.links, counters));
        blueprint.config.listeners.iter().zip(&mut counts.listeners).for_each(|(listener, counters)| own(&listener.links, counters));
        let at = canary.plugin.0 as usize;
        // The same metrics go on; a promoted instance keeps the words that it has.
        if blueprint.plugins[at].metrics() != canary.version.metrics() {
            counts.metrics[at] = metric_storage(canary.version.metrics().len());
        }
        counts.ticks[at] = Arc::default();
        counts.measure(blueprint, Some(canary));
        counts
    }

    /// The counters for the next blueprint: what has the same name goes on counting where it was. The metrics of a plugin
    /// go on when its new version defines the same ones.
    pub fn next(&self, was: &Blueprint, is: &Blueprint) -> PluginCounts {
        let mut next = PluginCounts::zeroes(is);
        for (at, version) in is.plugins.iter().enumerate() {
            let same = was.plugins.iter().position(|old| old.name() == version.name() && old.metrics() == version.metrics());
            if let Some(old) = same {
                next.metrics[at] = Arc::clone(&self.metrics[old]);
            }
            let promoted = was.canary.as_ref().filter(|canary| Arc::ptr_eq(&canary.version, version));
            if let Some((canary, counts)) = promoted.zip(self.canary.as_ref()) {
                next.metrics[at] = Arc::clone(&counts.metrics[canary.plugin.0 as usize]);
            }
            if let Some(old) = was.plugins.iter().position(|old| old.name() == version.name()) {
                next.ticks[at] = Arc::clone(&self.ticks[old]);
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
        next.measure(is, None);
        next.canary = is.canary.as_ref().map(|canary| match (&was.canary, &self.canary) {
            (Some(old), Some(counts)) if Arc::ptr_eq(&old.version, &canary.version) => counts.clone(),
            _ => Box::new(next.for_canary(is, canary)),
        });
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
    /// Each plugin once, for `on_tick`, and for the next program; the version on trial behind them.
    pub plugins: Vec<Instance>,
    /// The program of the exchanges that run the version on trial, and how many of 100 they are.
    pub canary: Option<(Rc<Program>, u32)>,
}

/// A plugin on one worker.
#[derive(Clone)]
pub struct Instance {
    /// The instance.
    pub plugin: Rc<CorePlugin>,
    /// It is put out: none of its hooks run.
    pub disabled: bool,
    /// Where it counts what runs for no link.
    pub counters: Arc<LinkCounters>,
    /// The [`Blueprint::restarts`] that it was made for: another number means another instance.
    restarts: u64,
}

/// The plugins of one program: those in force, or with a version on trial among them.
struct Set<'a> {
    blueprint: &'a Blueprint,
    plugins: Vec<Instance>,
    counts: &'a PluginCounts,
    /// Whose hooks are all measured.
    on_trial: Option<PluginIndex>,
}

impl Set<'_> {
    fn chain(&self, links: &[Link], counters: &[Arc<LinkCounters>]) -> Rc<CoreChain> {
        let instance = |link: &Link| &self.plugins[link.plugin.0 as usize];
        // A plugin that is put out is passed by, or refuses everything, as its links say about failures.
        let in_force = links.iter().zip(counters).filter(|(link, _)| !(instance(link).disabled && link.on_error == OnError::Open));
        let refusing = in_force.clone().enumerate().filter(|(_, (link, _))| instance(link).disabled).fold(0, |bits, (at, _)| bits | 1u64 << at);
        let parts = in_force.map(|(link, counters)| LinkParts {
            plugin: Rc::clone(&instance(link).plugin),
            on_error: match link.on_error {
                OnError::Closed => chain::OnError::Closed,
                OnError::Open => chain::OnError::Open,
            },
            post_always: link.post_always,
            counters: Arc::clone(counters),
        });
        let chain = CoreChain::with_refusals(parts.collect(), refusing);
        let on_trial = links.iter().any(|link| self.on_trial == Some(link.plugin));
        Rc::new(match () {
            () if on_trial => chain.sampled(1),
            () if self.blueprint.timing => chain.sampled(SAMPLE_EVERY),
            () => chain,
        })
    }

    fn routes(&self, upstreams: &upstream::Shared) -> Vec<CoreRoute> {
        let routes = self.blueprint.config.routes.iter().zip(&self.counts.routes).map(|(route, counters)| CoreRoute {
            chain: self.chain(&route.links, counters),
            upstream: route.upstream.map(|u| upstreams.id(u)),
            body_bytes: route.body_bytes as u64,
            timeouts: (*route.timeouts).clone(),
            allow_upgrade: route.allow_upgrade.clone(),
            connect_to: route.connect_to.clone(),
            name: route.name.clone(),
        });
        routes.collect()
    }

    fn accept(&self) -> Vec<Rc<CoreChain>> {
        let listeners = self.blueprint.config.listeners.iter().zip(&self.counts.listeners);
        listeners.map(|(listener, counters)| self.chain(&listener.links, counters)).collect()
    }
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
    let trial = blueprint.canary.iter().map(|canary| &canary.version);
    for version in blueprint.plugins.iter().chain(trial) {
        if let Some(missing) = version.upstreams().iter().find(|name| config.upstreams.iter().all(|upstream| upstream.name != **name)) {
            return Err(format!("plugin {}: it sends requests to the upstream `{missing}`, which the configuration does not have", version.name()));
        }
    }
    let instance = |version: &Arc<PluginVersion>, at: usize, restarts: u64, counts: &PluginCounts| -> Result<Instance, String> {
        let kept = running.iter().find(|instance| Arc::ptr_eq(instance.plugin.version(), version) && instance.restarts == restarts);
        let plugin = match kept {
            Some(kept) => Rc::clone(&kept.plugin),
            None => CorePlugin::new(Arc::clone(version), worker, Arc::clone(&counts.metrics[at]))?,
        };
        Ok(Instance { plugin, disabled: blueprint.disabled[at], counters: Arc::clone(&counts.ticks[at]), restarts })
    };
    let mut plugins: Vec<Instance> = Vec::with_capacity(blueprint.plugins.len());
    for (at, version) in blueprint.plugins.iter().enumerate() {
        plugins.push(instance(version, at, blueprint.restarts_on(at, worker), counts)?);
    }
    let mut in_force = Set { blueprint, plugins, counts, on_trial: None };
    let (routes, mut accept) = (in_force.routes(upstreams), in_force.accept());
    let mut canary_routes = None;
    let canary = blueprint.canary.as_ref().zip(counts.canary.as_deref()).filter(|(canary, _)| canary.share.percent_on(worker) > 0);
    if let Some((canary, counts)) = canary {
        let at = canary.plugin.0 as usize;
        let mut on_trial = Set { blueprint, plugins: in_force.plugins.clone(), counts, on_trial: Some(canary.plugin) };
        on_trial.plugins[at] = instance(&canary.version, at, 0, counts)?;
        canary_routes = Some((on_trial.routes(upstreams), canary.share.percent_on(worker)));
        if matches!(canary.share, Share::Worker(_)) {
            accept = on_trial.accept();
        }
        in_force.plugins.push(on_trial.plugins.swap_remove(at));
    }
    let plugins = in_force.plugins;
    let host = Rc::new(HostShared {
        names: Arc::clone(&blueprint.names),
        slab: slab.clone(),
        no_chain: Rc::default(),
        upstreams: by_id(config, upstreams, String::new(), |u| u.name.clone()),
        plugin_response_bytes: config.limits.plugin_response_bytes,
        plugin_alloc_bytes: config.limits.plugin_alloc_bytes,
        replacement_bytes: config.limits.body_buffer_bytes,
        waits_max: config.limits.suspended,
        outcalls: OutcallBounds::of(&config.limits),
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
        servers: by_id(config, upstreams, Vec::new(), |u| u.servers.iter().map(|server| server.address.to_string()).collect()),
        listeners: config.listeners.iter().map(|listener| listener.name.clone()).collect(),
        access_log: config.server.access_log != crate::config::AccessLog::Off,
    };
    let canary = canary_routes.map(|(routes, percent)| (Rc::new(Program { routes, ..program.clone() }), percent));
    Ok(Built { program: Rc::new(program), accept, plugins, canary })
}

/// A fact of each upstream, by its id; `none` for ids that the configuration does not use.
fn by_id<T: Clone>(config: &Config, upstreams: &upstream::Shared, none: T, fact: impl Fn(&Upstream) -> T) -> Vec<T> {
    let mut facts = vec![none; upstreams.by_id().len()];
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
