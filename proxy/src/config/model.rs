//! The checked configuration: what the rest of the gateway reads.
//!
//! Names are resolved to indexes, texts to types, defaults filled in. A [`Config`] is immutable and cheap to clone: its
//! parts are shared. Invariant: every index in it is within the slice it points into. Must not know files or syntax.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::address::{ConnectTarget, HostPattern, ListenAddress, PathPattern, ServerAddress};
pub use super::file::{Driver, Forwarded, HalfClose, HeaderMatch, HealthKind, HostDiffers, LogFormat, LogLevel, MapPolicy, OnError};
use super::problem::Problem;
use crate::http1::head::UnderscorePolicy;
use crate::http1::target::PathPolicy;
use crate::limits::{Limits, Timeouts};

/// Everything that was configured, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where it came from: a file as the operator named it, or "the command line".
    pub source: Arc<str>,
    /// The file, when it came from one: it can be read again.
    pub file: Option<Arc<Path>>,
    /// The text of that file, as it was read: another process can start with the same.
    pub text: Option<Arc<str>>,
    /// The process as a whole.
    pub server: Arc<Server>,
    /// How much of everything.
    pub limits: Arc<Limits>,
    /// How long for everything.
    pub timeouts: Arc<Timeouts>,
    /// What HTTP leaves open.
    pub http: Arc<Http>,
    /// By [`ListenerIndex`]. Never empty.
    pub listeners: Arc<[Listener]>,
    /// By [`UpstreamIndex`].
    pub upstreams: Arc<[Upstream]>,
    /// By [`PluginIndex`].
    pub plugins: Arc<[Plugin]>,
    /// In the order of the file; the first that matches is taken.
    pub routes: Arc<[Route]>,
    /// What is allowed and yet probably not meant.
    pub warnings: Arc<[Problem]>,
}

/// Position in [`Config::listeners`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerIndex(pub u16);

/// Position in [`Config::upstreams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamIndex(pub u32);

/// Position in [`Config::plugins`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginIndex(pub u32);

/// The process as a whole: the section `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Worker threads; `None`: one per core that the process may use.
    pub workers: Option<usize>,
    /// Where metrics, health and the plugin API are; `None`: nowhere.
    pub admin: Option<ListenAddress>,
    /// What requests to it must carry.
    pub admin_token: Option<Token>,
    /// The gateway's name in `Via` and in its own responses; a token.
    pub name: String,
    /// Add `Via` to forwarded requests.
    pub via: bool,
    /// How upstreams learn the client's address.
    pub forwarded: Forwarded,
    /// Peers whose forwarding headers are kept.
    pub trusted_proxies: Vec<IpNet>,
    /// Whoever connects through a Unix socket is such a peer.
    pub trusts_unix: bool,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// The least severe level that is logged.
    pub log_level: LogLevel,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// The I/O driver.
    pub driver: Driver,
    /// Pin each worker to its core.
    pub pin_workers: bool,
    /// Advise huge pages for the slabs.
    pub huge_pages: bool,
    /// The gateway runs in a process of its own, which a supervisor starts again when it dies.
    pub supervisor: bool,
    /// What a client means that shuts down its sending side.
    pub half_close: HalfClose,
    /// Where maps and crash records are kept; `None`: nowhere.
    pub state: Option<PathBuf>,
}

/// What HTTP leaves open: the section `[http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Header names with `_`.
    pub underscores: UnderscorePolicy,
    /// A `Host` that differs from the target.
    pub host_differs: HostDiffers,
    /// HTTP/1.0 requests without `Host`.
    pub missing_host: MissingHost,
    /// What routes see of unusual paths.
    pub path: PathPolicy,
}

/// What becomes of HTTP/1.0 requests without `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingHost {
    /// They have none.
    Allow,
    /// 400.
    Reject,
    /// This is their host.
    Named(String),
}

/// A secret. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Whether `text` is this token. How long that takes says nothing about where they differ.
    pub fn is(&self, text: &[u8]) -> bool {
        let differences = self.0.bytes().zip(text).fold(0, |bits, (mine, theirs)| bits | (mine ^ theirs));
        std::hint::black_box(differences) == 0 && self.0.len() == text.len()
    }
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To standard error, between the diagnostics.
    Stderr,
    /// Appended to this file.
    File(PathBuf),
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name; its address when it has none.
    pub name: String,
    /// Where it binds.
    pub address: ListenAddress,
    /// The permissions of a Unix socket's file; `None`: what the umask leaves.
    pub mode: Option<u32>,
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Plugins whose `on_accept` runs, in order.
    pub links: Vec<Link>,
}

/// A group of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name, unique.
    pub name: String,
    /// Its servers. Never empty.
    pub servers: Vec<UpstreamServer>,
    /// How a server is chosen.
    pub balance: Balance,
    /// The `Host` that is sent.
    pub host: UpstreamHost,
    /// Further attempts on other servers.
    pub retries: u32,
    /// Idle connections that are kept per worker and server.
    pub idle_connections: usize,
    /// Milliseconds between look-ups of host names; 0: only at start.
    pub resolve_ms: u32,
    /// Below this share of usable servers all are used, in percent.
    pub panic_percent: u32,
    /// Active health checks.
    pub health: Option<Health>,
    /// Passive outlier ejection; `None`: off.
    pub outlier: Option<Outlier>,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Where it is.
    pub address: ServerAddress,
    /// Its share, 1..=1000.
    pub weight: u32,
}

/// How a server is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest exchanges of this worker, by weight.
    LeastConnections,
    /// Always the same one for a client address.
    HashAddress,
    /// Always the same one for the value of this header (lower case); in turn without it.
    HashHeader(String),
}

/// The `Host` that an upstream receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamHost {
    /// As received.
    Keep,
    /// The address of the server.
    Server,
    /// This text.
    Literal(String),
}

/// Active health checks of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What a check does.
    pub kind: HealthKind,
    /// Target of the GET.
    pub path: String,
    /// `Host` of the GET; `None`: the address of the server.
    pub host: Option<String>,
    /// Answers that count as good.
    pub status: Vec<RangeInclusive<u16>>,
    /// Milliseconds between two checks of one server.
    pub interval_ms: u32,
    /// Milliseconds for one check.
    pub timeout_ms: u32,
    /// Good checks in a row that make a server usable.
    pub rise: u32,
    /// Bad checks in a row that make it unusable.
    pub fall: u32,
}

/// Passive outlier ejection of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row that eject a server, at least 1.
    pub failures: u32,
    /// Milliseconds of the first ejection; each further one lasts twice as long.
    pub eject_ms: u32,
    /// Milliseconds of the longest ejection.
    pub eject_max_ms: u32,
}

/// A plugin to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its name in this configuration, unique.
    pub name: String,
    /// The `.so` file.
    pub path: PathBuf,
    /// What a failed hook does, unless the link says otherwise.
    pub on_error: OnError,
    /// A dry run comes before every load.
    pub verify: bool,
    /// JSON for the plugin's `load`; `{}` when nothing was configured.
    pub config: String,
    /// What happens to a map that was kept and does not fit.
    pub maps: MapPolicy,
    /// Where the records of its rings go, by the name of the map.
    pub sinks: Vec<(String, SinkTarget)>,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTarget {
    /// Appended to this file.
    File(PathBuf),
    /// Sent to the socket of this path.
    Unix(PathBuf),
}

impl fmt::Display for SinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkTarget::File(path) => write!(f, "file:{}", path.display()),
            SinkTarget::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A plugin attached to a route or listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The plugin.
    pub plugin: PluginIndex,
    /// What a failed hook does.
    pub on_error: OnError,
    /// Post hooks run even when the pre hook did not.
    pub post_always: bool,
}

/// Which request goes where.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name; made of host and path when it has none.
    pub name: String,
    /// Only this listener.
    pub listener: Option<ListenerIndex>,
    /// One of these hosts; empty: any.
    pub hosts: Vec<HostPattern>,
    /// The path; `None`: any target, `*` of OPTIONS too.
    pub path: Option<PathPattern>,
    /// One of these methods; empty: any.
    pub methods: Vec<String>,
    /// All of these headers; names in lower case.
    pub headers: Vec<(String, HeaderMatch)>,
    /// Where to; `None`: a plugin answers.
    pub upstream: Option<UpstreamIndex>,
    /// The chain.
    pub links: Vec<Link>,
    /// Bytes of a request body; 0: no limit.
    pub body_bytes: usize,
    /// Those of the configuration, with the route's own in place.
    pub timeouts: Arc<Timeouts>,
    /// Protocols that `Upgrade` may switch to; lower case.
    pub allow_upgrade: Vec<String>,
    /// What CONNECT may ask the upstream for.
    pub connect_to: Vec<ConnectTarget>,
}

impl Config {
    /// The listener; indexes come from this configuration.
    pub fn listener(&self, index: ListenerIndex) -> &Listener {
        &self.listeners[usize::from(index.0)]
    }

    /// The upstream; indexes come from this configuration.
    pub fn upstream(&self, index: UpstreamIndex) -> &Upstream {
        &self.upstreams[index.0 as usize]
    }

    /// The plugin; indexes come from this configuration.
    pub fn plugin(&self, index: PluginIndex) -> &Plugin {
        &self.plugins[index.0 as usize]
    }
}
