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
    /// What the next route that is new gets.
    next_number: u32,
    policy: PathPolicy,
    /// The authority of requests that have none; empty when there is none.
    default_host: Vec<u8>,
    /// Some route asks for a host.
    by_host: bool,
}

/// What a route without `method` lists in Allow.
const COMMON_METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

/// The number of no route: what plugins see where none matched.
const NO_ROUTE: u32 = u32::MAX;

struct Entry {
    route: Route,
    headers: Vec<(HeaderId, Vec<u8>, HeaderMatch)>,
    /// The name of its upstream.
    upstream: Option<String>,
    number: u32,
}

impl RouteTable {
    /// The routes of this configuration. A route takes over the number of a `former` one that takes the same requests to the same upstream; other
    /// numbers are new (SPEC.md S-120).
    pub fn new(config: &Config, former: Option<&RouteTable>) -> RouteTable {
        let mut routes: Vec<Entry> = config.routes.iter().map(|route| Entry::new(config, route)).collect();
        let mut next_number = former.map_or(0, |former| former.next_number);
        let mut known: Vec<&Entry> = former.iter().flat_map(|former| &former.routes).collect();
        for entry in &mut routes {
            entry.number = match known.iter().position(|known| known.leads_as(entry)) {
                Some(at) => known.remove(at).number,
                None => {
                    let number = next_number;
                    next_number = (number + 1) % NO_ROUTE;
                    number
                }
            };
        }
        let default_host = match &config.http.missing_host {
            MissingHost::Named(host) => host.clone().into_bytes(),
            MissingHost::Allow | MissingHost::Reject => Vec::new(),
        };
        RouteTable { routes, next_number, policy: config.http.path, default_host, by_host: config.routes.iter().any(|route| !route.hosts.is_empty()) }
    }

    /// What plugins know the route at this index by.
    pub fn number(&self, at: usize) -> u32 {
        self.routes[at].number
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
    fn new(config: &Config, route: &Route) -> Entry {
        Entry {
            headers: route.headers.iter().map(|(name, want)| (HeaderId::of(name.as_bytes()), name.as_bytes().to_vec(), want.clone())).collect(),
            upstream: route.upstream.map(|index| config.upstream(index).name.clone()),
            route: route.clone(),
            number: NO_ROUTE,
        }
    }

    /// Both take the same requests to the same upstream. Listeners keep their indices while the process runs.
    fn leads_as(&self, other: &Entry) -> bool {
        let (this, that) = (&self.route, &other.route);
        self.upstream == other.upstream
            && (this.listener, &this.hosts, &this.path, &this.methods, &this.headers) == (that.listener, &that.hosts, &that.path, &that.methods, &that.headers)
    }

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
        RouteTable::new(&config, None).find(rkyv::access::<RequestView, Error>(&bytes).unwrap(), 0)
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
    fn routes_keep_their_numbers_while_they_lead_the_same_requests_to_the_same_upstream() {
        let numbers = |table: &RouteTable| table.routes.iter().map(|entry| entry.number).collect::<Vec<_>>();
        let parse = |text: &str| Config::parse("test.toml", text, &|_| None).unwrap();
        let (listener, routes) = CONFIG.split_once("[[route]]").unwrap();
        let in_order =
            |routes: &[&str]| parse(&format!("{listener}[[upstream]]\nname = \"v\"\nservers = [\"127.0.0.1:2\"]\n[[route]]{}", routes.join("[[route]]")));
        let parts: Vec<&str> = routes.split("[[route]]").collect();
        let [admin, exact, post, beta] = parts[..] else { unreachable!() };
        let mut table = RouteTable::new(&parse(CONFIG), None);
        assert_eq!(numbers(&table), [0, 1, 2, 3]);
        let elsewhere = exact.replace("\"u\"", "\"v\"");
        let renamed = format!("{}body_bytes = 7\n", exact.replace("name = \"exact\"", "name = \"other\""));
        let narrower = beta.replace("yes", "no").replace("name = \"beta\"", "");
        let steps: [(&[&str], &[u32]); 8] = [
            (&[beta, admin, exact, post], &[3, 0, 1, 2]),
            (&[admin, exact, beta], &[0, 1, 3]),
            (&[admin, &elsewhere, beta], &[0, 4, 3]),
            // What was away is new.
            (&[admin, exact, post, beta], &[0, 5, 6, 3]),
            (&[&renamed, admin], &[5, 0]),
            (&[&renamed, &narrower, beta], &[5, 7, 8]),
            // The second of two equal ones never gets a request; it has a number of its own all the same.
            (&[exact, &renamed], &[5, 9]),
            (&[&renamed, admin, exact], &[5, 10, 9]),
        ];
        for (routes, expected) in steps {
            table = RouteTable::new(&in_order(routes), Some(&table));
            assert_eq!(numbers(&table), expected, "{routes:?}");
        }
        table.next_number = NO_ROUTE - 1;
        assert_eq!(numbers(&RouteTable::new(&parse(CONFIG), Some(&table))), [10, 5, NO_ROUTE - 1, 0]);
    }

    #[test]
    fn rule_16_routes_are_chosen_on_the_normalised_path() {
        assert_eq!(find("POST", "/x/../api/x", &[("Host", "o")]), Ok(2));
        assert_eq!(find("POST", "/%61pi/x", &[("Host", "o")]), Ok(2));
        assert!(find("POST", "/../api/x", &[("Host", "o")]).is_err());
    }
}
