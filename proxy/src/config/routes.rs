//! Routes: their matches, their chains, and which of them can never be reached.
//!
//! Part of `resolve`. A chain is: plugins placed `pre_builtin`, the route's own, plugins placed `builtin`, then
//! `post_builtin`; a plugin that the route names itself is not added a second time.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::address::{ConnectTarget, HostPattern, PathPattern, is_token};
use super::file::{self, HeaderMatch, Placement};
use super::model::{Link, Listener, ListenerIndex, PluginIndex, Route};
use super::problem::{Problem, closest};
use super::resolve::{CHAIN_LINKS_MAX, Resolver, at, unknown};
use super::tree::Step;
use crate::http1::target::{PathPolicy, normalise_path};
use crate::limits::{Limits, Timeouts};

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

impl Resolver<'_> {
    /// Every route, checked.
    pub fn routes(&mut self, listeners: &[Listener], limits: &Limits, timeouts: &Arc<Timeouts>) -> Vec<Route> {
        let file = self.file;
        let mut routes: Vec<Route> = Vec::new();
        for (index, route) in file.route.iter().enumerate() {
            let resolved = self.route(index, route, listeners, limits, timeouts);
            if let Some(earlier) = routes.iter().find(|earlier| earlier.covers(&resolved)) {
                let problem = Problem::new(format!("the route `{}` is never reached", resolved.name))
                    .cause(format!("the route `{}` stands before it and matches everything that it matches", earlier.name))
                    .help("put the more particular route first");
                self.warn(at!["route", index], problem);
            }
            if route.name.is_some() && routes.iter().any(|earlier| earlier.name == resolved.name) {
                self.problem(at!["route", index, "name"], Problem::new(format!("two routes have the name `{}`", resolved.name)));
            }
            routes.push(resolved);
        }
        routes
    }

    fn route(&mut self, index: usize, route: &file::Route, listeners: &[Listener], limits: &Limits, timeouts: &Arc<Timeouts>) -> Route {
        let listener = route.listener.as_deref().and_then(|name| self.listener(index, name, listeners));
        let hosts = self.each(index, "host", route.host.as_ref(), HostPattern::parse);
        let path = self.path(index, route);
        let methods = self.each(index, "method", route.method.as_ref(), method);
        let headers = self.headers(index, route);
        let upstream = route.upstream.as_deref().and_then(|name| self.upstream(at!["route", index, "upstream"], name));
        let links = self.chain(index, route);
        let mut connect_to = Vec::new();
        for (at_index, text) in route.connect_to.iter().enumerate() {
            connect_to.extend(self.take(at!["route", index, "connect_to", at_index], ConnectTarget::parse(text)));
        }
        let allow_upgrade = self.upgrades(index, route);
        if let Some(first) = route.connect_to.first()
            && route.upstream.is_none()
        {
            let problem =
                Problem::new(format!("CONNECT to `{first}` needs an `upstream`")).cause("the request is passed to an upstream, which opens the tunnel");
            self.problem(at!["route", index, "connect_to"], problem);
        } else if route.upstream.is_none() && links.is_empty() {
            let problem = Problem::new("the route leads nowhere: it has no `upstream` and no plugin that could answer").help("add `upstream = \"NAME\"`");
            self.problem(at!["route", index], problem);
        }
        let name = route.name.clone().unwrap_or_else(|| {
            let host = hosts.first().map(ToString::to_string).unwrap_or_default();
            format!("{host}{}", path.as_ref().map_or("/".to_owned(), ToString::to_string))
        });
        let body_bytes = route.body_bytes.unwrap_or(limits.body_bytes);
        Route {
            name,
            listener,
            hosts,
            path,
            methods,
            headers,
            upstream,
            links,
            body_bytes,
            timeouts: merged(&route.timeouts, timeouts),
            allow_upgrade,
            connect_to,
        }
    }

    /// Every value of a key that takes one or more, read by `parse`.
    fn each<T>(&mut self, route: usize, key: &'static str, given: Option<&file::OneOrMore>, parse: impl Fn(&str) -> Result<T, Problem>) -> Vec<T> {
        let Some(given) = given else { return Vec::new() };
        if given.as_slice().is_empty() {
            self.problem(
                at!["route", route, key],
                Problem::new(format!("`{key}` is empty, so no request can match")).help(format!("leave `{key}` out: then any matches")),
            );
        }
        let mut values = Vec::new();
        for (index, text) in given.as_slice().iter().enumerate() {
            values.extend(self.take(at!["route", route, key, index], parse(text)));
        }
        values
    }

    fn listener(&mut self, route: usize, name: &str, listeners: &[Listener]) -> Option<ListenerIndex> {
        let found = listeners.iter().position(|listener| listener.name == name || listener.address.to_string() == name);
        if found.is_none() {
            let problem = unknown("listener", name, listeners.iter().map(|listener| listener.name.as_str()));
            self.problem(at!["route", route, "listener"], problem);
        }
        found.map(|index| ListenerIndex(index as u16))
    }

    fn path(&mut self, index: usize, route: &file::Route) -> Option<PathPattern> {
        let (key, text, pattern): (_, _, fn(String) -> PathPattern) = match (&route.exact, &route.path) {
            (Some(_), Some(_)) => {
                let problem = Problem::new("`exact` and `path` stand in one route").help("`path` is a prefix and `exact` the whole path: keep one of them");
                self.problem(at!["route", index, "exact"], problem);
                return None;
            }
            (Some(exact), None) => ("exact", exact, PathPattern::Exact),
            (None, Some(prefix)) => ("path", prefix, PathPattern::Prefix),
            (None, None) => return None,
        };
        let checked = PathPattern::check(text).and_then(|()| comes_up(text, &self.file.http.path));
        self.take(at!["route", index, key], checked).map(|()| pattern(text.clone()))
    }

    fn headers(&mut self, index: usize, route: &file::Route) -> Vec<(String, HeaderMatch)> {
        let mut headers: Vec<(String, HeaderMatch)> = Vec::new();
        for (name, expected) in &route.header {
            let path = at!["route", index, "header", name.as_str()];
            let lower = name.to_ascii_lowercase();
            if !is_token(name) {
                self.problem(path, Problem::new(format!("`{name}` is no header name")));
            } else if headers.iter().any(|(other, _)| *other == lower) {
                self.problem(path, Problem::new(format!("the header `{lower}` stands twice in this route")).cause("header names have no case"));
            }
            if let HeaderMatch::Value(value) = expected
                && (value.trim() != value || value.bytes().any(|byte| byte.is_ascii_control()))
            {
                self.problem(
                    path,
                    Problem::new(format!("no request has this value of `{name}`"))
                        .cause("blanks around a value are removed, and control characters are refused"),
                );
            }
            headers.push((lower, expected.clone()));
        }
        headers
    }

    fn upgrades(&mut self, index: usize, route: &file::Route) -> Vec<String> {
        for (at_index, protocol) in route.allow_upgrade.iter().enumerate() {
            let path = at!["route", index, "allow_upgrade", at_index];
            // RFC 9113 §3.1: the h2c upgrade is obsolete; forwarding it opens a way around every check.
            if protocol.eq_ignore_ascii_case("h2c") {
                self.problem(path, Problem::new("`h2c` is never forwarded").cause("inside such a connection requests would pass unseen"));
            } else if !is_token(protocol) {
                self.problem(path, Problem::new(format!("`{protocol}` is no protocol name")).help("write a name such as \"websocket\""));
            }
        }
        if let Some(first) = route.allow_upgrade.first()
            && route.upstream.is_none()
        {
            self.problem(at!["route", index, "allow_upgrade"], Problem::new(format!("a switch to `{first}` needs an `upstream`")));
        }
        route.allow_upgrade.iter().map(|protocol| protocol.to_ascii_lowercase()).collect()
    }

    fn chain(&mut self, index: usize, route: &file::Route) -> Vec<Link> {
        let own = self.links("route", index, &route.plugins);
        let mut chain = self.placed(|placement| placement == Placement::PreBuiltin, &own);
        let after = self.placed(|placement| placement != Placement::PreBuiltin, &own);
        chain.extend(own);
        chain.extend(after);
        if chain.len() > CHAIN_LINKS_MAX {
            self.problem(at!["route", index, "plugins"], Problem::new(format!("the chain has {} links; at most {CHAIN_LINKS_MAX} are possible", chain.len())));
        }
        chain
    }

    /// Plugins of these placements that the route does not name itself, in their order.
    fn placed(&self, wanted: impl Fn(Placement) -> bool, own: &[Link]) -> Vec<Link> {
        let placement = |plugin: &file::Plugin| plugin.placement.or(plugin.order.map(|_| Placement::PostBuiltin));
        let mut placed: Vec<_> = (0u32..)
            .map(PluginIndex)
            .zip(&self.file.plugin)
            .filter_map(|(index, plugin)| placement(plugin).map(|placement| (placement, plugin.order.unwrap_or(0), index, plugin.on_error)))
            .filter(|(placement, _, index, _)| wanted(*placement) && !own.iter().any(|link| link.plugin == *index))
            .collect();
        placed.sort_by_key(|(placement, order, index, _)| (*placement, *order, *index));
        placed.into_iter().map(|(_, _, plugin, on_error)| Link { plugin, on_error, post_always: false }).collect()
    }
}

impl Route {
    /// Whether every request that `other` matches is matched by this one.
    pub fn covers(&self, other: &Route) -> bool {
        let listener = self.listener.is_none() || self.listener == other.listener;
        let hosts = self.hosts.is_empty() || (!other.hosts.is_empty() && other.hosts.iter().all(|host| self.hosts.iter().any(|mine| mine.covers(host))));
        let path = match (&self.path, &other.path) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(path)) => mine.covers(path),
        };
        let methods = self.methods.is_empty() || (!other.methods.is_empty() && other.methods.iter().all(|method| self.methods.contains(method)));
        let headers = self.headers.iter().all(|(name, mine)| {
            other.headers.iter().any(|(other_name, value)| {
                name == other_name && (mine == value || (*mine == HeaderMatch::Present(true) && matches!(value, HeaderMatch::Value(_))))
            })
        });
        listener && hosts && path && methods && headers
    }
}

fn method(text: &str) -> Result<String, Problem> {
    let upper = text.to_ascii_uppercase();
    if !is_token(text) {
        return Err(Problem::new(format!("`{text}` is no method")));
    }
    // RFC 9110 §9.1: methods have case, so `get` would never match.
    if text != upper && METHODS.contains(&upper.as_str()) {
        return Err(Problem::new(format!("the method `{text}` would never match: methods have case")).suggest(Some(&upper)));
    }
    if !METHODS.contains(&text)
        && let Some(close) = closest(text, METHODS).filter(|close| close.len() > 3 && strsim::damerau_levenshtein(close, text) == 1)
    {
        return Err(Problem::new(format!("`{text}` is no method that is known")).suggest(Some(close)));
    }
    Ok(text.to_owned())
}

fn merged(own: &file::RouteTimeouts, all: &Arc<Timeouts>) -> Arc<Timeouts> {
    let file::RouteTimeouts { first_byte, response_idle, exchange, tunnel_idle } = own;
    if first_byte.or(*response_idle).or(*exchange).or(*tunnel_idle).is_none() {
        return Arc::clone(all);
    }
    Arc::new(Timeouts {
        first_byte: first_byte.unwrap_or(all.first_byte),
        response_idle: response_idle.unwrap_or(all.response_idle),
        exchange: exchange.unwrap_or(all.exchange),
        tunnel_idle: tunnel_idle.unwrap_or(all.tunnel_idle),
        ..(**all).clone()
    })
}
/// Whether a path that routes are chosen by can look like this: they are compared in their normalised form.
fn comes_up(text: &str, policy: &PathPolicy) -> Result<(), Problem> {
    let mut room = vec![0; text.len()];
    match normalise_path(text.as_bytes(), policy, &mut room) {
        Ok(path) if !path.changed => Ok(()),
        Ok(path) => {
            let normalised = String::from_utf8_lossy(path.bytes);
            Err(Problem::new(format!("no request matches `{text}`: paths are compared in their normalised form")).help(format!("did you mean `{normalised}`?")))
        }
        Err(fault) => Err(Problem::new(format!("no request matches `{text}`: such a path is refused")).help(fault.row().text.to_owned())),
    }
}
