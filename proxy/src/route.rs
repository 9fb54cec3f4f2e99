//! Routes: which one a request takes. Pure: no sockets, no clocks.
//!
//! The first route in the order of the configuration that matches in every respect is taken. Paths are compared in their
//! normalised form, so that `/a/../b` cannot reach what `/b` may not (HTTP1.md rule 16); what is forwarded stays as received.

use std::cell::RefCell;

use ringway_abi::RequestView;
use ringway_abi::ids::HeaderId;

use crate::config::{Config, HeaderMatch, MissingHost, Route};
use crate::error::ClientFault;
use crate::http1::target::{PathPolicy, is_plain, normalise_path, split_port};

thread_local! {
    /// Room for normalised paths; grows to the longest path once.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The routes of one configuration.
pub struct RouteTable {
    routes: Vec<Entry>,
    policy: PathPolicy,
    /// The authority of requests that have none; empty when there is none.
    default_host: Vec<u8>,
    /// Some route asks for a host.
    by_host: bool,
}

/// What a route without `method` lists in Allow.
const COMMON_METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

struct Entry {
    route: Route,
    headers: Vec<(HeaderId, Vec<u8>, HeaderMatch)>,
}

impl RouteTable {
    /// The routes of this configuration.
    pub fn new(config: &Config) -> RouteTable {
        let routes = config.routes.iter().map(|route| Entry {
            headers: route.headers.iter().map(|(name, want)| (HeaderId::of(name.as_bytes()), name.as_bytes().to_vec(), want.clone())).collect(),
            route: route.clone(),
        });
        let default_host = match &config.http.missing_host {
            MissingHost::Named(host) => host.clone().into_bytes(),
            MissingHost::Allow | MissingHost::Reject => Vec::new(),
        };
        RouteTable { routes: routes.collect(), policy: config.http.path, default_host, by_host: config.routes.iter().any(|route| !route.hosts.is_empty()) }
    }

    /// The methods that a 405 to this request lists (RFC 9110 §15.5.6): those of the routes that match it but for the method.
    pub fn allowed_methods(&self, request: &RequestView, listener: u16) -> String {
        let mut room = vec![0; request.path().len()];
        let path = normalise_path(request.path(), &self.policy, &mut room).map_or(&b""[..], |path| path.bytes);
        let host = self.host(request);
        let mut methods: Vec<&str> = Vec::new();
        for entry in self.routes.iter().filter(|entry| entry.matches_but_method(request, listener, host, path)) {
            let listed = entry.route.methods.iter().map(String::as_str).filter(|method| !matches!(*method, "TRACE" | "CONNECT"));
            methods.extend(if entry.route.methods.is_empty() { COMMON_METHODS.to_vec() } else { listed.collect() });
        }
        let mut unique: Vec<&str> = Vec::new();
        for method in methods {
            if !unique.contains(&method) {
                unique.push(method);
            }
        }
        unique.join(", ")
    }

    /// The host, without port, that routes are chosen by.
    fn host<'a>(&'a self, request: &'a RequestView) -> &'a [u8] {
        let authority = if request.authority().is_empty() { &self.default_host } else { request.authority() };
        split_port(authority).map_or(&b""[..], |(host, _)| host)
    }

    /// The index of the route for this request.
    ///
    /// # Errors
    /// [`ClientFault::NoRoute`]; [`ClientFault::MethodNotAllowed`] when only the method is against it; faults of the path.
    pub fn find(&self, request: &RequestView, listener: u16) -> Result<usize, ClientFault> {
        if is_plain(request.path()) {
            return self.find_normalised(request, listener, request.path());
        }
        ROOM.with_borrow_mut(|room| {
            if room.len() < request.path().len() {
                room.resize(request.path().len(), 0);
            }
            self.find_normalised(request, listener, normalise_path(request.path(), &self.policy, room)?.bytes)
        })
    }

    fn find_normalised(&self, request: &RequestView, listener: u16, path: &[u8]) -> Result<usize, ClientFault> {
        let host = if self.by_host { self.host(request) } else { b"" };
        let mut fault = ClientFault::NoRoute;
        for (at, entry) in self.routes.iter().enumerate() {
            if !entry.matches_but_method(request, listener, host, path) {
                continue;
            }
            if entry.route.methods.is_empty() || entry.route.methods.iter().any(|m| m.as_bytes() == request.method()) {
                return Ok(at);
            }
            fault = ClientFault::MethodNotAllowed;
        }
        Err(fault)
    }
}

impl Entry {
    fn matches_but_method(&self, request: &RequestView, listener: u16, host: &[u8], path: &[u8]) -> bool {
        let route = &self.route;
        route.listener.is_none_or(|only| only.0 == listener)
            && route.path.as_ref().is_none_or(|pattern| pattern.matches(path))
            && (route.hosts.is_empty() || route.hosts.iter().any(|pattern| pattern.matches(host)))
            && self.headers.iter().all(|(id, name, want)| match want {
                HeaderMatch::Present(present) => value(request, *id, name).is_some() == *present,
                HeaderMatch::Value(expected) => request.headers().any(|h| h.name().eq_ignore_ascii_case(name) && h.value() == expected.as_bytes()),
            })
    }
}

fn value<'a>(request: &'a RequestView, id: HeaderId, name: &[u8]) -> Option<&'a [u8]> {
    if id == HeaderId::OTHER { request.header_named(name) } else { request.header(id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_abi::{Header, Request};
    use rkyv::rancor::Error;

    const CONFIG: &str = r#"
[[listener]]
address = "127.0.0.1:0"
[[upstream]]
name = "u"
servers = ["127.0.0.1:1"]
[[route]]
name = "admin"
host = "admin.example"
path = "/"
upstream = "u"
[[route]]
name = "exact"
exact = "/exact"
upstream = "u"
[[route]]
name = "api-post"
path = "/api/"
method = ["POST"]
upstream = "u"
[[route]]
name = "beta"
path = "/beta"
header = { x-beta = "yes" }
upstream = "u"
"#;

    fn find(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<usize, ClientFault> {
        let config = Config::parse("test.toml", CONFIG, &|_| None).unwrap();
        let headers = headers.iter().map(|(n, v)| Header::new(n.as_bytes(), v.as_bytes())).collect();
        let bytes = rkyv::to_bytes::<Error>(&Request::new(method.as_bytes(), target.as_bytes(), headers)).unwrap();
        RouteTable::new(&config).find(rkyv::access::<RequestView, Error>(&bytes).unwrap(), 0)
    }

    #[test]
    fn the_first_route_that_matches_in_every_respect_is_taken() {
        assert_eq!(find("GET", "/exact?q", &[("Host", "admin.example:8080")]), Ok(0));
        assert_eq!(find("GET", "/exact?q", &[("Host", "other")]), Ok(1));
        assert_eq!(find("GET", "/exact/more", &[("Host", "other")]), Err(ClientFault::NoRoute));
        assert_eq!(find("POST", "/api/x", &[("Host", "other")]), Ok(2));
        assert_eq!(find("GET", "/api/x", &[("Host", "other")]), Err(ClientFault::MethodNotAllowed));
        assert_eq!(find("GET", "/beta", &[("Host", "o"), ("X-Beta", "yes")]), Ok(3));
        assert_eq!(find("GET", "/beta", &[("Host", "o"), ("X-Beta", "no")]), Err(ClientFault::NoRoute));
    }

    #[test]
    fn rule_16_routes_are_chosen_on_the_normalised_path() {
        assert_eq!(find("POST", "/x/../api/x", &[("Host", "o")]), Ok(2));
        assert_eq!(find("POST", "/%61pi/x", &[("Host", "o")]), Ok(2));
        assert!(find("POST", "/../api/x", &[("Host", "o")]).is_err());
    }
}
