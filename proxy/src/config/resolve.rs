//! From the file as written to the checked [`Config`]: texts taken apart, names looked up, keys compared with each other.
//!
//! Owns every check that concerns more than one key, and the sentences for it. Upstreams and routes have their own files. All problems
//! are collected; a [`Config`] exists only when there are none. Must not read files or look anything up in the network.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::address::{ListenAddress, is_token};
use super::file;
use super::model::{AccessLog, Config, Http, Link, Listener, MissingHost, Plugin, PluginIndex, Server, SinkTarget, Token, UpstreamIndex};
use super::problem::{ConfigErrors, Problem, closest, sort};
use super::tree::{Document, Step};
use crate::http1::target::is_host;
use crate::limits::Limits;

/// The links of one chain at most: which of them ran is remembered in one 64-bit word per exchange.
pub const CHAIN_LINKS_MAX: usize = 64;
/// A token that cannot be guessed; 32 random hexadecimal digits have 128 bits.
const TOKEN_BYTES_MIN: usize = 16;

/// Checks `file`, whose places `document` knows; without one it was made from the command line.
pub(super) fn resolve(file: file::File, source: &str, document: Option<&Document>) -> Result<Config, ConfigErrors> {
    let mut resolver = Resolver { document, problems: Vec::new(), warnings: Vec::new(), file: &file };
    let config = resolver.config(source);
    let Resolver { problems, mut warnings, .. } = resolver;
    if !problems.is_empty() {
        return Err(ConfigErrors::new(problems));
    }
    sort(&mut warnings);
    Ok(Config { warnings: warnings.into(), ..config })
}

pub(super) struct Resolver<'a> {
    document: Option<&'a Document>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    pub file: &'a file::File,
}

/// `at!["route", 3, "path"]`: the path to a value.
macro_rules! at {
    ($($step:expr),*) => { &[$(Step::from($step)),*] };
}
pub(super) use at;

impl<'a> Resolver<'a> {
    /// Adds a problem with the value at `path`.
    pub fn problem(&mut self, path: &[Step<'_>], problem: Problem) {
        let problem = self.place(path, problem);
        self.problems.push(problem);
    }

    /// Adds a warning about the value at `path`.
    pub fn warn(&mut self, path: &[Step<'_>], problem: Problem) {
        let problem = self.place(path, problem);
        self.warnings.push(problem);
    }

    fn place(&self, path: &[Step<'_>], problem: Problem) -> Problem {
        match (self.document, path.first()) {
            (Some(document), Some(_)) => document.at(path, problem),
            (Some(document), None) => problem.in_file(Path::new(&document.name)),
            (None, Some(Step::Key(section))) => {
                let option = match *section {
                    "listener" => "--from",
                    "upstream" => "--to",
                    _ => "--plugin",
                };
                Problem { what: format!("{option}: {}", problem.what), ..problem }
            }
            (None, _) => problem,
        }
    }

    /// The value of a `Result`; its problem is noted at `path`.
    pub fn take<T>(&mut self, path: &[Step<'_>], result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problem(path, problem)).ok()
    }

    /// Whether the operator wrote `path`, or it has its default.
    fn is_written(&self, path: &[&str]) -> bool {
        self.document.is_some_and(|document| document.has(path))
    }

    fn config(&mut self, source: &str) -> Config {
        let limits = self.limits();
        let server = self.server();
        let http = self.http();
        self.unique("plugin", self.file.plugin.iter().map(|plugin| plugin.name.as_str()));
        self.unique("upstream", self.file.upstream.iter().map(|upstream| upstream.name.as_str()));
        let plugins = self.plugins();
        let listeners = self.listeners(&server);
        let upstreams = self.upstreams(&limits);
        let timeouts = Arc::new(self.file.timeouts.clone());
        let routes = self.routes(&listeners, &limits, &timeouts);
        self.unused(&listeners, &routes);
        Config {
            source: source.into(),
            file: None,
            text: None,
            server: Arc::new(server),
            limits: Arc::new(limits),
            timeouts,
            http: Arc::new(http),
            listeners: listeners.into(),
            upstreams: upstreams.into(),
            plugins: plugins.into(),
            routes: routes.into(),
            warnings: Arc::new([]),
        }
    }

    /// Limits that nobody wrote follow those that somebody did: a smaller head has shorter lines.
    fn limits(&mut self) -> Limits {
        let mut limits = self.file.limits.clone();
        for (name, bound_name) in [
            ("line_bytes", "head_bytes"),
            ("target_bytes", "head_bytes"),
            ("trailer_bytes", "head_bytes"),
            ("body_buffer_bytes", "body_bytes"),
            ("connections_per_address", "connections"),
        ] {
            if self.is_written(&["limits", name]) || !self.is_written(&["limits", bound_name]) {
                continue;
            }
            let bound = match bound_name {
                "head_bytes" => limits.head_bytes,
                "body_bytes" if limits.body_bytes == 0 => usize::MAX,
                "body_bytes" => limits.body_bytes,
                _ => limits.connections,
            };
            let value = match name {
                "line_bytes" => &mut limits.line_bytes,
                "target_bytes" => &mut limits.target_bytes,
                "trailer_bytes" => &mut limits.trailer_bytes,
                "body_buffer_bytes" => &mut limits.body_buffer_bytes,
                _ => &mut limits.connections_per_address,
            };
            *value = (*value).min(bound);
        }
        for (name, sentence) in limits.conflicts() {
            self.problem(at!["limits", name], Problem::new(sentence));
        }
        limits
    }

    fn server(&mut self) -> Server {
        let server = &self.file.server;
        let admin = server.admin.as_deref().and_then(|text| self.take(at!["server", "admin"], ListenAddress::parse(text)));
        if let Some(admin) = admin.as_ref().filter(|admin| !admin.is_local()) {
            let problem = Problem::new(format!("the admin address {admin} can be reached from other machines"));
            if server.admin_token.is_none() {
                let problem = problem.cause("whoever reaches it sees the configuration and controls plugins");
                self.problem(at!["server", "admin"], problem.help("bind it to 127.0.0.1 or to a Unix socket, or set `admin_token`"));
            } else {
                let problem = problem.cause("the token travels unencrypted");
                self.warn(at!["server", "admin"], problem.help("bind it to 127.0.0.1 or to a Unix socket"));
            }
        }
        if server.admin_token.as_ref().is_some_and(|token| token.len() < TOKEN_BYTES_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            let problem = Problem::new(format!("`admin_token` needs at least {TOKEN_BYTES_MIN} visible ASCII characters"));
            // The line itself would show the secret.
            self.problem(at!["server"], problem);
        }
        if !is_token(&server.name) {
            let problem = Problem::new(format!("`{}` cannot stand in `Via`", server.name)).help("use letters, digits, `-`, `.` and `_`");
            self.problem(at!["server", "name"], problem);
        }
        let mut trusted_proxies = Vec::new();
        let trusts_unix = server.trusted_proxies.iter().any(|text| text == UNIX);
        for (index, text) in server.trusted_proxies.iter().enumerate().filter(|(_, text)| *text != UNIX) {
            trusted_proxies.extend(self.take(at!["server", "trusted_proxies", index], network(text)));
        }
        let access_log = match server.access_log.as_str() {
            "off" => AccessLog::Off,
            "stdout" => AccessLog::Stdout,
            "stderr" => AccessLog::Stderr,
            path => AccessLog::File(path.into()),
        };
        let words = "write \"off\", \"stdout\", \"stderr\" or the path of a file";
        if server.state.as_ref().is_some_and(String::is_empty) {
            self.problem(at!["server", "state"], Problem::new("`state` is empty").help("write the path of a folder, or leave it out"));
        }
        if server.access_log.is_empty() {
            self.problem(at!["server", "access_log"], Problem::new("`access_log` is empty").help(words));
        } else if let AccessLog::File(path) = &access_log
            && !server.access_log.contains(['/', '.'])
        {
            let problem = Problem::new(format!("`{}` is none of the words that `access_log` knows", path.display()));
            let problem = problem.cause("a file name without a slash or a dot is most likely a mistaken word");
            self.problem(at!["server", "access_log"], problem.help(format!("{words}; for a file of that name \"./{}\"", path.display())));
        }
        Server {
            workers: server.workers,
            admin,
            admin_token: server.admin_token.clone().map(Token),
            name: server.name.clone(),
            via: server.via,
            forwarded: server.forwarded,
            trusted_proxies,
            trusts_unix,
            access_log,
            log_level: server.log_level,
            log_format: server.log_format,
            driver: server.driver,
            pin_workers: server.pin_workers,
            huge_pages: server.huge_pages,
            supervisor: server.supervisor,
            half_close: server.half_close,
            state: server.state.as_ref().map(PathBuf::from),
        }
    }

    fn http(&mut self) -> Http {
        let http = &self.file.http;
        let missing_host = match http.missing_host.as_str() {
            "allow" => MissingHost::Allow,
            "reject" => MissingHost::Reject,
            host => {
                if !is_host(host.as_bytes()) {
                    let problem = Problem::new(format!("`{host}` is no host")).help("write \"allow\", \"reject\" or a host such as \"example.com\"");
                    self.problem(at!["http", "missing_host"], problem);
                }
                MissingHost::Named(host.to_owned())
            }
        };
        Http { underscores: http.underscores, host_differs: http.host_differs, missing_host, path: http.path }
    }

    /// Names of a section: usable and not twice.
    fn unique<'n>(&mut self, section: &'static str, names: impl Iterator<Item = &'n str>) {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, name) in names.enumerate() {
            let path = at![section, index, "name"];
            if !is_name(name) {
                self.problem(path, Problem::new(format!("`{name}` cannot be a name")).help("use 1 to 63 letters, digits, `-`, `_` and `.`"));
            }
            if let Some(first) = seen.insert(name, index) {
                self.problem(path, Problem::new(format!("the {section} `{name}` is defined twice, as number {} and number {}", first + 1, index + 1)));
            }
        }
    }

    fn plugins(&mut self) -> Vec<Plugin> {
        let mut plugins = Vec::new();
        for (index, plugin) in self.file.plugin.iter().enumerate() {
            if plugin.path.is_empty() {
                self.problem(at!["plugin", index, "path"], Problem::new("the path of the plugin is empty"));
            }
            let config = match &plugin.config {
                Some(config) => serde_json::json!(config).to_string(),
                None => "{}".to_owned(),
            };
            let mut sinks = Vec::new();
            for (map, target) in &plugin.sinks {
                sinks.extend(self.take(at!["plugin", index, "sinks", map.as_str()], sink(target)).map(|target| (map.clone(), target)));
            }
            let path = PathBuf::from(&plugin.path);
            plugins.push(Plugin { name: plugin.name.clone(), path, on_error: plugin.on_error, verify: plugin.verify, config, maps: plugin.maps, sinks });
        }
        plugins
    }

    fn listeners(&mut self, server: &Server) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for (index, listener) in self.file.listener.iter().enumerate() {
            let links = self.links("listener", index, &listener.plugins);
            let Some(address) = self.take(at!["listener", index, "address"], ListenAddress::parse(&listener.address)) else { continue };
            let path = at!["listener", index, "address"];
            match listeners.iter().map(|other| &other.address).find(|other| other.excludes(&address)) {
                Some(other) if *other == address => self.problem(path, Problem::new(format!("two listeners have the address {address}"))),
                Some(other) => {
                    self.problem(path, Problem::new(format!("{other} and {address} are listeners, and one of them is on all addresses of that port")))
                }
                None => {}
            }
            match server.admin.as_ref().filter(|admin| admin.excludes(&address)) {
                Some(admin) if *admin == address => self.problem(path, Problem::new(format!("{address} is the address of `server.admin` too"))),
                Some(admin) => self.problem(path, Problem::new(format!("{address} and {admin}, the address of `server.admin`, exclude each other"))),
                None => {}
            }
            let name = listener.name.clone().unwrap_or_else(|| address.to_string());
            if listener.name.is_some() && listeners.iter().any(|other| other.name == name) {
                self.problem(at!["listener", index, "name"], Problem::new(format!("two listeners have the name `{name}`")));
            }
            let mode = listener.mode.as_ref().and_then(|text| self.take(at!["listener", index, "mode"], mode(text, &address)));
            listeners.push(Listener { name, address, mode, backlog: listener.backlog, links });
        }
        if self.file.listener.is_empty() {
            let problem = Problem::new("there is no listener").help("add `[[listener]]` with `address = \"127.0.0.1:8080\"`");
            self.problem(at![], problem);
        }
        if self.file.listener.len() > usize::from(u16::MAX) {
            self.problem(at!["listener"], Problem::new("there are more than 65535 listeners"));
        }
        listeners
    }

    /// The links that a route or listener names.
    pub fn links(&mut self, section: &'static str, owner: usize, links: &[file::Link]) -> Vec<Link> {
        let mut resolved: Vec<Link> = Vec::new();
        for (index, link) in links.iter().enumerate() {
            let path = at![section, owner, "plugins", index];
            let (name, on_error, post_always) = match link {
                file::Link::Name(name) => (name, None, false),
                file::Link::Policy(policy) => (&policy.name, policy.on_error, policy.post_always),
            };
            let Some((plugin, on_error)) = self.plugin(path, name, on_error) else { continue };
            if resolved.iter().any(|other| other.plugin == plugin) {
                self.warn(path, Problem::new(format!("the plugin `{name}` stands twice in this chain")));
            }
            resolved.push(Link { plugin, on_error, post_always });
        }
        resolved
    }

    fn plugin(&mut self, path: &[Step<'_>], name: &str, on_error: Option<file::OnError>) -> Option<(PluginIndex, file::OnError)> {
        let plugins: &'a [file::Plugin] = &self.file.plugin;
        match plugins.iter().position(|plugin| plugin.name == name) {
            Some(index) => Some((PluginIndex(index as u32), on_error.unwrap_or(plugins[index].on_error))),
            None => {
                let problem = unknown("plugin", name, plugins.iter().map(|plugin| plugin.name.as_str()));
                self.problem(path, problem);
                None
            }
        }
    }

    /// The upstream of that name.
    pub fn upstream(&mut self, path: &[Step<'_>], name: &str) -> Option<UpstreamIndex> {
        let upstreams: &'a [file::Upstream] = &self.file.upstream;
        match upstreams.iter().position(|upstream| upstream.name == name) {
            Some(index) => Some(UpstreamIndex(index as u32)),
            None => {
                let problem = unknown("upstream", name, upstreams.iter().map(|upstream| upstream.name.as_str()));
                self.problem(path, problem);
                None
            }
        }
    }

    fn unused(&mut self, listeners: &[Listener], routes: &[super::model::Route]) {
        let file = self.file;
        for (index, plugin) in file.plugin.iter().enumerate() {
            let mut links = listeners.iter().flat_map(|listener| &listener.links).chain(routes.iter().flat_map(|route| &route.links));
            if !links.any(|link| link.plugin.0 as usize == index) {
                self.warn(at!["plugin", index], Problem::new(format!("the plugin `{}` is attached to no route and no listener", plugin.name)));
            }
        }
        // A plugin may choose any upstream, so an unused one is certain only without plugins.
        for (index, upstream) in file.upstream.iter().enumerate().filter(|_| file.plugin.is_empty()) {
            if !routes.iter().any(|route| route.upstream == Some(UpstreamIndex(index as u32))) {
                self.warn(at!["upstream", index], Problem::new(format!("no route leads to the upstream `{}`", upstream.name)));
            }
        }
        if file.route.is_empty() {
            self.warn(at![], Problem::new("there is no route: every request is answered 404").help("add `[[route]]` with `upstream = \"NAME\"`"));
        }
    }
}

/// "unknown upstream `ap`", with the closest name or all of them.
pub(super) fn unknown<'n>(kind: &str, name: &str, known: impl Iterator<Item = &'n str> + Clone) -> Problem {
    let problem = Problem::new(format!("there is no {kind} `{name}`"));
    match closest(name, known.clone()) {
        Some(close) => problem.suggest(Some(close)),
        None => match known.collect::<Vec<_>>() {
            names if names.is_empty() => problem.help(format!("define it: `[[{kind}]]`")),
            names => problem.help(format!("defined are: {}", names.join(", "))),
        },
    }
}

/// Whether `name` can name a plugin, an upstream, a route in metrics and on the command line.
pub fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn sink(text: &str) -> Result<SinkTarget, Problem> {
    match text.split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(SinkTarget::File(path.into())),
        Some(("unix", path)) if !path.is_empty() => Ok(SinkTarget::Unix(path.into())),
        _ => Err(Problem::new(format!("`{text}` is no place for records")).help("write \"file:/PATH\" or \"unix:/PATH\"")),
    }
}

fn mode(text: &str, address: &ListenAddress) -> Result<u32, Problem> {
    if !matches!(address, ListenAddress::Unix(_)) {
        return Err(Problem::new("`mode` is for Unix sockets").help("leave it out: anyone who reaches the address may connect"));
    }
    // The number's own parser would take a sign.
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let parsed = if is_octal { u32::from_str_radix(text, 8).ok() } else { None };
    parsed
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| Problem::new(format!("`{text}` is no mode of a file")).help("write three octal digits, such as \"0660\""))
}

/// In `trusted_proxies`: whoever connects through a Unix socket.
pub(crate) const UNIX: &str = "unix";

fn network(text: &str) -> Result<IpNet, Problem> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    parsed
        .map(|net| net.trunc())
        .ok_or_else(|| Problem::new(format!("`{text}` is no address or network")).help("write \"10.0.0.0/8\", \"10.1.2.3\" or \"unix\""))
}
