//! The configuration file as it is written: the schema, its documentation and its defaults, in one place.
//!
//! These structs are what `ringway config schema` prints, what `shape` checks a file against, and what a checked value is
//! read into. Names are still names and addresses still text; `resolve` turns them into a [`Config`](super::Config).
//! Must not check anything that concerns more than one key.
//!
//! A doc comment here is the key's description in the schema. Every key here is honoured by the gateway.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http1::head::UnderscorePolicy;
use crate::http1::target::PathPolicy;
use crate::limits::{Limits, Timeouts, duration, size};

/// A Ringway configuration.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Ringway configuration")]
pub(super) struct File {
    /// The process as a whole.
    pub server: Server,
    /// How much of everything.
    pub limits: Limits,
    /// How long for everything.
    pub timeouts: Timeouts,
    /// What HTTP leaves open.
    pub http: Http,
    /// Where clients connect.
    pub listener: Vec<Listener>,
    /// Groups of servers that requests are forwarded to.
    pub upstream: Vec<Upstream>,
    /// Shared objects that see requests and responses.
    pub plugin: Vec<Plugin>,
    /// Which request goes where; the first route of the file that matches is taken.
    pub route: Vec<Route>,
}

/// The process as a whole.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// Worker threads, each pinned to its core. Default: one per core that the process may use.
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<usize>,
    /// Address of metrics, health and the plugin API: "IP:PORT" or "unix:/PATH". Absent: off.
    pub admin: Option<String>,
    /// What requests to the admin address must carry as `Authorization: Bearer TOKEN`. Required when that address is neither loopback nor a Unix socket.
    pub admin_token: Option<String>,
    /// The gateway's name in `Via` and in the responses it makes itself.
    pub name: String,
    /// Add `Via` to forwarded requests (RFC 9110 §7.6.3 asks gateways to).
    pub via: bool,
    /// How upstreams learn the client's address and scheme.
    pub forwarded: Forwarded,
    /// Peers whose own forwarding headers are kept and added to, as "ADDRESS/BITS", "ADDRESS", or "unix" for all that connect through a Unix socket. From all others they are dropped.
    pub trusted_proxies: Vec<String>,
    /// One line per exchange: "off", "stdout", "stderr" or the path of a file.
    pub access_log: String,
    /// The least severe level that is logged.
    pub log_level: LogLevel,
    /// The form of log lines. "auto": text on a terminal, JSON otherwise.
    pub log_format: LogFormat,
    /// The I/O driver. "auto": io_uring, or epoll with one log line where the kernel refuses it.
    pub driver: Driver,
    /// Pin each worker to its core.
    pub pin_workers: bool,
    /// Advise the kernel to back the slabs with huge pages.
    pub huge_pages: bool,
    /// `ringway run` starts the gateway in a process of its own, and again when that one dies; the sockets stay open meanwhile.
    pub supervisor: bool,
    /// A client that shuts down its sending side while its response is awaited. "abort": it has left, the exchange ends. "serve": it gets its response.
    pub half_close: HalfClose,
    /// A folder for what outlives the process: the maps of plugins, and crash records. Absent: maps end with it, crash records with the supervisor.
    pub state: Option<String>,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            workers: None,
            admin: None,
            admin_token: None,
            name: "ringway".into(),
            via: true,
            forwarded: Forwarded::XForwarded,
            trusted_proxies: Vec::new(),
            access_log: "off".into(),
            log_level: LogLevel::Info,
            log_format: LogFormat::Auto,
            driver: Driver::Auto,
            pin_workers: true,
            huge_pages: true,
            supervisor: true,
            half_close: HalfClose::Abort,
            state: None,
        }
    }
}

/// What a client means that shuts down its sending side while its response is awaited. Closing looks the same on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HalfClose {
    /// It has left: the upstream is let go.
    Abort,
    /// It waits for its response.
    Serve,
}

/// How upstreams learn the client's address and scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarded {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Neither is added; those of untrusted peers are still dropped.
    Off,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual five")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// The I/O driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    #[serde(rename = "auto")]
    Auto,
    /// io_uring, or fail to start.
    #[serde(rename = "io_uring")]
    IoUring,
    /// epoll.
    #[serde(rename = "epoll")]
    Epoll,
}

/// What HTTP leaves open. The numbers of the rules are those of `docs/http1.md`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    /// Header names with `_`, in requests and responses. Names that imitate framing or trusted fields are dropped at least (rule 28).
    pub underscores: UnderscorePolicy,
    /// A `Host` that differs from the host of an absolute target: the target's host counts, or the request is answered 400 (rule 13).
    pub host_differs: HostDiffers,
    /// HTTP/1.0 requests without `Host`: "allow" (only routes without `host` match), "reject" (400), or the host that they are taken to be for (rule 19).
    pub missing_host: String,
    /// What routes see of unusual paths (rule 16).
    pub path: PathPolicy,
}

impl Default for Http {
    fn default() -> Http {
        Http { underscores: UnderscorePolicy::Keep, host_differs: HostDiffers::Target, missing_host: "allow".into(), path: PathPolicy::default() }
    }
}

/// What a `Host` that differs from the target means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostDiffers {
    /// The host of the target counts.
    Target,
    /// The request is answered 400.
    Reject,
}

/// Where clients connect.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// For `route.listener`. Default: the address.
    #[serde(default)]
    pub name: Option<String>,
    /// "IP:PORT" or "unix:/PATH". Port 0 takes a free one.
    pub address: String,
    /// Who may connect to a Unix socket: its file's permissions in octal, such as "0660". Default: what the umask leaves.
    #[serde(default)]
    pub mode: Option<String>,
    /// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
    #[serde(default = "backlog")]
    #[schemars(range(min = 1, max = 65535))]
    pub backlog: u32,
    /// Plugins whose `on_accept` runs when a client connects, in order.
    #[serde(default)]
    pub plugins: Vec<Link>,
}

fn backlog() -> u32 {
    4096
}

/// A group of servers.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    /// For `route.upstream`.
    pub name: String,
    /// Its servers.
    pub servers: Vec<UpstreamServer>,
    /// How a server is chosen: "round-robin", "least-connections", "hash-address" (of the client) or "hash-header:NAME".
    #[serde(default = "balance")]
    pub balance: String,
    /// The `Host` that is sent: "keep" (as received), "server" (the address of the server; for a Unix socket the upstream's name) or a literal host.
    #[serde(default = "host")]
    pub host: String,
    /// Further attempts on other servers when nothing of a request can have been processed, or when it may be repeated safely.
    #[serde(default = "retries")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: u32,
    /// Idle connections that are kept per worker and server. Default: `limits.upstream_idle_connections`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 65536))]
    pub idle_connections: Option<usize>,
    /// How often host names are looked up again; "off": only at start.
    #[serde(default = "resolve", with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub resolve: u32,
    /// When less than this share of the servers is usable, all are used. 0: only when none is usable.
    #[serde(default = "panic_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub panic_percent: u32,
    /// Active health checks. Absent: off.
    #[serde(default)]
    pub health: Option<Health>,
    /// Passive: servers that fail on real requests are left out for a while.
    #[serde(default)]
    pub outlier: Outlier,
}

fn balance() -> String {
    "round-robin".into()
}
fn host() -> String {
    "keep".into()
}
fn retries() -> u32 {
    1
}
fn resolve() -> u32 {
    30_000
}
/// With three servers, one that still answers (33 %) is trusted.
fn panic_percent() -> u32 {
    30
}

/// A server: its address, or the address with a weight.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum UpstreamServer {
    /// "HOST:PORT" or "unix:/PATH".
    Address(String),
    /// The address with a weight.
    Weighted(WeightedServer),
}

/// A server with a weight.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightedServer {
    /// "HOST:PORT" or "unix:/PATH".
    pub address: String,
    /// Its share of the requests, relative to the other servers.
    #[serde(default = "weight")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
}

fn weight() -> u32 {
    1
}

/// Active health checks.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Health {
    /// "http": a GET must answer with one of `status`. "tcp": a connect must succeed.
    pub kind: HealthKind,
    /// Target of the GET.
    pub path: String,
    /// `Host` of the GET. Default: the address of the server.
    pub host: Option<String>,
    /// Answers that count as good: codes and ranges with commas between.
    pub status: String,
    /// Between two checks of one server.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 100))]
    pub interval: u32,
    /// For one check of one address: connecting, writing and reading together.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub timeout: u32,
    /// Good checks in a row that make a server usable.
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
    /// Bad checks in a row that make it unusable.
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
}

impl Default for Health {
    fn default() -> Health {
        Health { kind: HealthKind::Http, path: "/".into(), host: None, status: "200-399".into(), interval: 5000, timeout: 2000, rise: 2, fall: 3 }
    }
}

/// What a health check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthKind {
    /// A GET must answer with an expected status.
    Http,
    /// A connect must succeed.
    Tcp,
}

/// Passive outlier ejection.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Outlier {
    /// Failures in a row (no connection, timeout, broken response, 502, 503, 504) that eject a server. 0: never.
    #[schemars(range(min = 0, max = 1000))]
    pub failures: u32,
    /// How long the first ejection lasts; each further one without a success between twice as long.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub eject: u32,
    /// The longest ejection.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub eject_max: u32,
}

impl Default for Outlier {
    fn default() -> Outlier {
        Outlier { failures: 5, eject: 10_000, eject_max: 300_000 }
    }
}

/// A shared object that sees requests and responses.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Plugin {
    /// For `route.plugins` and `listener.plugins`, and in logs and metrics.
    pub name: String,
    /// The `.so` file, from the working directory.
    pub path: String,
    /// What a failed hook does, unless the link says otherwise.
    #[serde(default)]
    pub on_error: OnError,
    /// Whether a dry run in a process of its own (`ringway plugin verify`) comes before every load; a plugin that it refuses is not loaded.
    #[serde(default)]
    pub verify: bool,
    /// Handed to the plugin's `load` as JSON.
    #[serde(default)]
    pub config: Option<BTreeMap<String, serde_json::Value>>,
    /// What happens to a map that was kept and does not fit the plugin: "keep" refuses the plugin, "fresh" begins with an empty map.
    #[serde(default)]
    pub maps: MapPolicy,
    /// Where the records of its rings go, by the name of the map: "file:/PATH" (appended) or "unix:/PATH" (a socket that somebody listens on); a line of JSON each.
    #[serde(default)]
    pub sinks: BTreeMap<String, String>,
    /// Attaches the plugin to every route: before ("pre_builtin") or after ("builtin", then "post_builtin") the route's own plugins. Bifrost's key.
    #[serde(default)]
    pub placement: Option<Placement>,
    /// Among the plugins of one placement, lower runs first. Alone it means `placement = "post_builtin"`, as in Bifrost.
    #[serde(default)]
    pub order: Option<i32>,
}

/// What a failed hook does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The exchange is answered with 500.
    #[default]
    Closed,
    /// The exchange goes on as if the hook had not run.
    Open,
}

/// What happens to a map that does not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MapPolicy {
    /// The plugin is refused.
    #[default]
    Keep,
    /// An empty one takes its place.
    Fresh,
}

/// Where a plugin that is attached to every route stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Placement {
    /// Before the route's own plugins.
    PreBuiltin,
    /// After the route's own plugins.
    Builtin,
    /// Last.
    PostBuiltin,
}

/// A plugin of a chain: its name, or its name with a policy.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Link {
    /// The name of a plugin.
    Name(String),
    /// The name with a policy.
    Policy(LinkPolicy),
}

/// A plugin of a chain with its policy.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkPolicy {
    /// The name of a plugin.
    pub name: String,
    /// What a failed hook does. Default: the plugin's own.
    #[serde(default)]
    pub on_error: Option<OnError>,
    /// Run the post hooks even when an earlier link answered and this link's pre hook never ran.
    #[serde(default)]
    pub post_always: bool,
}

/// One string, or several of which one must match.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    pub fn as_slice(&self) -> &[String] {
        match self {
            OneOrMore::One(one) => std::slice::from_ref(one),
            OneOrMore::More(more) => more,
        }
    }
}

/// Which request goes where.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// In logs and metrics. Default: its host and path.
    #[serde(default)]
    pub name: Option<String>,
    /// Only requests that came through this listener (its name or address). Default: any.
    #[serde(default)]
    pub listener: Option<String>,
    /// Only these hosts, without port: "example.com", or "*.example.com" for every name below it. Default: any.
    #[serde(default)]
    pub host: Option<OneOrMore>,
    /// Only paths that begin with this, at a boundary of segments: "/api" matches "/api" and "/api/x" but not "/apix". Default: any.
    #[serde(default)]
    pub path: Option<String>,
    /// Only this path. Not together with `path`.
    #[serde(default)]
    pub exact: Option<String>,
    /// Only these methods. Others are answered 405 when no later route matches. Default: any.
    #[serde(default)]
    pub method: Option<OneOrMore>,
    /// Only requests with these headers: a value, `true` for present, `false` for absent.
    #[serde(default)]
    pub header: BTreeMap<String, HeaderMatch>,
    /// The upstream. Optional when a plugin answers.
    #[serde(default)]
    pub upstream: Option<String>,
    /// The chain: plugins in the order of their pre hooks; post hooks run in reverse.
    #[serde(default)]
    pub plugins: Vec<Link>,
    /// Replaces `limits.body_bytes`.
    #[serde(default, with = "optional_size", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<size::Size>", extend("minimum" = 0))]
    pub body_bytes: Option<usize>,
    /// Replaces some of `[timeouts]`.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    /// Protocols that a client may switch to with `Upgrade`, such as "websocket".
    #[serde(default)]
    pub allow_upgrade: Vec<String>,
    /// Targets that CONNECT may ask the upstream for, as "HOST:PORT", "*.DOMAIN:PORT". Empty: CONNECT is answered 405.
    #[serde(default)]
    pub connect_to: Vec<String>,
}

/// Timeouts that a route can replace.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RouteTimeouts {
    /// Replaces `timeouts.first_byte`.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Duration>", extend("minimum" = 0))]
    pub first_byte: Option<u32>,
    /// Replaces `timeouts.response_idle`.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Duration>", extend("minimum" = 0))]
    pub response_idle: Option<u32>,
    /// Replaces `timeouts.exchange`.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Duration>", extend("minimum" = 0))]
    pub exchange: Option<u32>,
    /// Replaces `timeouts.tunnel_idle`.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Duration>", extend("minimum" = 0))]
    pub tunnel_idle: Option<u32>,
}

/// What a header must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HeaderMatch {
    /// Present or absent.
    Present(bool),
    /// Exactly this value, in one of its lines.
    Value(String),
}

/// [`size`] for a key that may be absent.
mod optional_size {
    use crate::limits::size;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Option<usize>, to: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => to.serialize_some(&size::text(*bytes)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
        size::deserialize(from).map(Some)
    }
}

/// [`duration`] for a key that may be absent.
mod optional_duration {
    use crate::limits::duration;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(ms: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => to.serialize_some(&duration::text(*ms)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
        duration::deserialize(from).map(Some)
    }
}
