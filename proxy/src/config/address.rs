//! Addresses and names as they are written in a configuration, checked and taken apart.
//!
//! Owns the types of addresses and of the host and path patterns of routes, and what a pattern matches. Must not look
//! anything up: a host name stays a name, for a thread that may block on DNS.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::problem::Problem;

/// Where a listener binds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// Where a server of an upstream is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A host name in lower case and a port, to be looked up off the worker threads.
    Name(String, u16),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// Which hosts a route or a CONNECT target list accepts. Texts are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Every name that ends in this text, which begins with a dot.
    Below(String),
}

/// Which paths a route accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// This path and every path below it; `/` is every path.
    Prefix(String),
}

/// What CONNECT may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectTarget {
    /// The host.
    pub host: HostPattern,
    /// The port.
    pub port: u16,
}

impl ListenAddress {
    /// Whether no two sockets can have them: they are the same, or one of them is all addresses of the other's kind and port. Port 0 is any free one.
    pub fn excludes(&self, other: &ListenAddress) -> bool {
        match (self, other) {
            (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
                let (ip, other_ip) = (one.ip(), other.ip());
                let meet = ip == other_ip || (ip.is_ipv4() == other_ip.is_ipv4() && (ip.is_unspecified() || other_ip.is_unspecified()));
                one.port() != 0 && one.port() == other.port() && meet
            }
            _ => self == other,
        }
    }

    /// Reads `IP:PORT` or `unix:PATH`.
    pub fn parse(text: &str) -> Result<ListenAddress, Problem> {
        match split(text)? {
            Split::Unix(path) => Ok(ListenAddress::Unix(path)),
            Split::HostPort(host, port) => {
                match host {
                    "" | "*" => Err(Problem::new(format!("`{text}` names no address to listen on"))
                        .help(format!("write \"0.0.0.0:{port}\" for every IPv4 address, \"[::]:{port}\" for every IPv6 address; two listeners for both"))),
                    "localhost" => Ok(ListenAddress::Tcp((Ipv4Addr::LOCALHOST, port).into())),
                    host => match ip(host) {
                        Some(ip) => Ok(ListenAddress::Tcp((ip, port).into())),
                        None => Err(Problem::new(format!("`{host}` is no IP address"))
                            .help("a listener needs one of this machine's addresses, such as \"127.0.0.1:8080\"")),
                    },
                }
            }
        }
    }

    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            ListenAddress::Tcp(address) => address.ip().is_loopback(),
            ListenAddress::Unix(_) => true,
        }
    }
}

impl ServerAddress {
    /// Reads `HOST:PORT` or `unix:PATH`.
    pub fn parse(text: &str) -> Result<ServerAddress, Problem> {
        match split(text)? {
            Split::Unix(path) => Ok(ServerAddress::Unix(path)),
            Split::HostPort(_, 0) => Err(Problem::new(format!("`{text}` has port 0, to which nobody can connect"))),
            Split::HostPort(host, port) => match ip(host) {
                Some(ip) => Ok(ServerAddress::Tcp((ip, port).into())),
                None => Ok(ServerAddress::Name(host_name(host)?, port)),
            },
        }
    }
}

impl HostPattern {
    /// Reads `HOST` or `*.DOMAIN`.
    pub fn parse(text: &str) -> Result<HostPattern, Problem> {
        if text == "*" {
            return Err(Problem::new("`*` is no host").help("leave `host` out: then every host matches"));
        }
        if let Some(domain) = text.strip_prefix("*.") {
            return Ok(HostPattern::Below(format!(".{}", host_name(domain)?)));
        }
        if text.starts_with('[')
            && let Some(address) = ip(text)
        {
            // As clients write it (RFC 5952).
            return Ok(HostPattern::Exact(format!("[{address}]")));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(Problem::new(format!("`{text}` is an IPv6 address without brackets")).suggest(Some(&format!("[{text}]"))));
        }
        if let Some((host, port)) = text.rsplit_once(':')
            && port.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(Problem::new(format!("`{text}` has a port; hosts are compared without it")).suggest(Some(host)));
        }
        host_name(text).map(HostPattern::Exact)
    }

    /// Whether `host` (without port, any case) is meant. `example.com.` is the same name as `example.com`.
    pub fn matches(&self, host: &[u8]) -> bool {
        let host = host.strip_suffix(b".").unwrap_or(host);
        match self {
            HostPattern::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            HostPattern::Below(suffix) => host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes()),
        }
    }

    /// Whether every host that `other` means is meant by this one.
    pub fn covers(&self, other: &HostPattern) -> bool {
        match (self, other) {
            (pattern, HostPattern::Exact(name)) => pattern.matches(name.as_bytes()),
            (HostPattern::Below(suffix), HostPattern::Below(other)) => other.ends_with(suffix),
            (HostPattern::Exact(_), HostPattern::Below(_)) => false,
        }
    }
}

impl PathPattern {
    /// Whether `path` (normalised, without the query) is meant. A prefix ends where a segment does, or its parameters begin: `/a` means
    /// `/a;v=1/b`, too.
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            PathPattern::Exact(exact) => path == exact.as_bytes(),
            PathPattern::Prefix(prefix) => {
                path.starts_with(prefix.as_bytes()) && (prefix.ends_with('/') || path.len() == prefix.len() || matches!(path[prefix.len()], b'/' | b';'))
            }
        }
    }

    /// Whether every path that `other` means is meant by this one.
    pub fn covers(&self, other: &PathPattern) -> bool {
        match (self, other) {
            (pattern, PathPattern::Exact(path)) => pattern.matches(path.as_bytes()),
            (PathPattern::Prefix(_), PathPattern::Prefix(prefix)) => self.matches(prefix.as_bytes()),
            (PathPattern::Exact(_), PathPattern::Prefix(_)) => false,
        }
    }

    /// Checks the text of a path; the kind of pattern is the caller's.
    pub fn check(text: &str) -> Result<(), Problem> {
        let problem = |what: &str| Problem::new(format!("`{text}` {what}"));
        if !text.starts_with('/') {
            return Err(problem("does not begin with `/`").help(format!("did you mean `/{text}`?")));
        }
        if text.contains(['?', '#']) {
            return Err(problem("is more than a path").help("routes look at the part before `?`"));
        }
        if text.contains('*') {
            return Err(problem("holds a `*`, which is no wildcard").help("`path` is a prefix already: write it without `*`"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(problem("holds bytes that no request target may have").help("write them percent-encoded"));
        }
        Ok(())
    }
}

impl ConnectTarget {
    /// Reads `HOST:PORT` or `*.DOMAIN:PORT`.
    pub fn parse(text: &str) -> Result<ConnectTarget, Problem> {
        match split(text)? {
            Split::Unix(_) => Err(Problem::new(format!("`{text}` is no target of CONNECT")).help("write \"HOST:PORT\"")),
            Split::HostPort("*", _) => {
                Err(Problem::new(format!("`{text}` would let clients connect to anything")).help("write \"HOST:PORT\" or \"*.DOMAIN:PORT\""))
            }
            Split::HostPort(host, port) => Ok(ConnectTarget { host: HostPattern::parse(host)?, port }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddress::Tcp(address) => address.fmt(f),
            ServerAddress::Name(host, port) => write!(f, "{host}:{port}"),
            ServerAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (PathPattern::Exact(path) | PathPattern::Prefix(path)) = self;
        f.write_str(path)
    }
}

/// Whether `text` is an RFC 9110 token: a method, a field name, a protocol.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

enum Split<'a> {
    Unix(PathBuf),
    HostPort(&'a str, u16),
}

/// The longest path that fits into `sockaddr_un` with its NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;

fn split(text: &str) -> Result<Split<'_>, Problem> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.len() {
            0 => Err(Problem::new("the path after `unix:` is missing").help("write \"unix:/PATH\"")),
            _ if path.starts_with('@') => Err(Problem::new(format!("`{text}` is an abstract socket, which has no file")).help("write \"unix:/PATH\"")),
            1..=UNIX_PATH_BYTES_MAX if !path.contains('\0') => Ok(Split::Unix(path.into())),
            _ => Err(Problem::new(format!("the path of the Unix socket is longer than {UNIX_PATH_BYTES_MAX} bytes"))),
        };
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split('/').next().unwrap_or(rest);
        let port = if authority.contains(':') {
            ""
        } else if scheme == "https" {
            ":443"
        } else {
            ":80"
        };
        return Err(Problem::new(format!("`{text}` is a URL, not an address")).suggest(Some(&format!("{authority}{port}"))));
    }
    if text.starts_with('/') {
        return Err(Problem::new(format!("`{text}` is a path, not an address")).suggest(Some(&format!("unix:{text}"))));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(Problem::new(format!("`{text}` is an IPv6 address without brackets and port")).suggest(Some(&format!("[{text}]:80"))));
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
        let problem = Problem::new(format!("`{text}` has no port"));
        return Err(if text.parse::<u16>().is_ok() {
            problem.help(format!("did you mean `127.0.0.1:{text}`?"))
        } else {
            problem.help(format!("did you mean `{text}:80`?"))
        });
    };
    match port.parse() {
        Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Split::HostPort(host, number)),
        _ => Err(Problem::new(format!("`{port}` is no port")).help("a port is a number up to 65535")),
    }
}

fn ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// The host name in lower case. Underscores are let through: service names of container networks have them.
fn host_name(host: &str) -> Result<String, Problem> {
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let fits = name.len() <= 253 && name.split('.').all(label_fits);
    // "1.2.3" and "300.1.1.1" are mistyped addresses, not names.
    let address_like = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !name.is_empty() && ip(name).is_none();
    if !fits || address_like {
        let problem = Problem::new(format!("`{host}` is no host name or IP address"));
        return Err(if host.is_ascii() { problem } else { problem.help("write an international name in its `xn--` form") });
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: fmt::Display>(result: Result<T, Problem>) -> String {
        match result {
            Ok(value) => value.to_string(),
            Err(problem) => format!("! {problem}"),
        }
    }

    #[test]
    fn servers() {
        for (given, expected) in [
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("Backend.Example.com:80", "backend.example.com:80"),
            ("my_service:80", "my_service:80"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("localhost", "! `localhost` has no port\n   = help: did you mean `localhost:80`?"),
            ("9000", "! `9000` has no port\n   = help: did you mean `127.0.0.1:9000`?"),
            ("[::1]", "! `[::1]` has no port\n   = help: did you mean `[::1]:80`?"),
            ("::1", "! `::1` is an IPv6 address without brackets and port\n   = help: did you mean `[::1]:80`?"),
            ("http://app/x", "! `http://app/x` is a URL, not an address\n   = help: did you mean `app:80`?"),
            ("https://app:8443", "! `https://app:8443` is a URL, not an address\n   = help: did you mean `app:8443`?"),
            ("/run/app.sock", "! `/run/app.sock` is a path, not an address\n   = help: did you mean `unix:/run/app.sock`?"),
            ("unix:", "! the path after `unix:` is missing\n   = help: write \"unix:/PATH\""),
            ("app:0", "! `app:0` has port 0, to which nobody can connect"),
            ("app:70000", "! `70000` is no port\n   = help: a port is a number up to 65535"),
            ("300.1.1.1:80", "! `300.1.1.1` is no host name or IP address"),
            ("a b:80", "! `a b` is no host name or IP address"),
            ("bücher.example:80", "! `bücher.example` is no host name or IP address\n   = help: write an international name in its `xn--` form"),
            (":80", "! `` is no host name or IP address"),
        ] {
            assert_eq!(text(ServerAddress::parse(given)), expected, "{given}");
        }
    }

    #[test]
    fn listeners() {
        for (given, expected) in [
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("localhost:0", "127.0.0.1:0"),
            ("unix:/run/r.sock", "unix:/run/r.sock"),
            (
                ":8080",
                "! `:8080` names no address to listen on\n   = help: write \"0.0.0.0:8080\" for every IPv4 address, \"[::]:8080\" for every IPv6 address; two listeners for both",
            ),
            ("example.com:80", "! `example.com` is no IP address\n   = help: a listener needs one of this machine's addresses, such as \"127.0.0.1:8080\""),
        ] {
            assert_eq!(text(ListenAddress::parse(given)), expected, "{given}");
        }
    }

    #[test]
    fn hosts_match_by_name_or_below_a_domain() {
        let below = HostPattern::parse("*.Example.com").expect("a pattern");
        for (host, expected) in [("a.example.com", true), ("A.B.EXAMPLE.COM", true), ("example.com", false), ("aexample.com", false), (".example.com", false)] {
            assert_eq!(below.matches(host.as_bytes()), expected, "{host}");
        }
        assert!(below.covers(&HostPattern::Exact("a.example.com".into())));
        assert!(below.covers(&HostPattern::parse("*.b.example.com").expect("a pattern")));
        assert_eq!(
            text(HostPattern::parse("example.com:80")),
            "! `example.com:80` has a port; hosts are compared without it\n   = help: did you mean `example.com`?"
        );
        // The root's dot changes nothing, on either side.
        let rooted = HostPattern::parse("a.example.").expect("a pattern");
        assert!(rooted.matches(b"a.example") && rooted.matches(b"A.example.") && !rooted.matches(b"a.example.."));
        assert!(below.matches(b"a.example.com.") && !below.matches(b"example.com."));
        assert_eq!(text(HostPattern::parse("[0:0::0001]")), "[::1]");
        assert_eq!(text(HostPattern::parse("*")), "! `*` is no host\n   = help: leave `host` out: then every host matches");
        assert_eq!(text(HostPattern::parse("a.*.com")), "! `a.*.com` is no host name or IP address");
    }

    #[test]
    fn prefixes_end_at_segments() {
        for (prefix, path, expected) in [
            ("/", "/x", true),
            ("/api", "/api", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/api/", "/api", false),
            ("/api/", "/api/x", true),
            ("/", "*", false),
        ] {
            assert_eq!(PathPattern::Prefix(prefix.into()).matches(path.as_bytes()), expected, "{prefix} {path}");
        }
    }
}
