//! The configurations of the peers: files of `peers/`, with named places to fill in.
//!
//! The files are compiled in, so that the binary is enough; `--peers-dir` takes changed copies of them instead.
#![forbid(unsafe_code)]

use super::scenario::{Chain, Contestant};
use anyhow::{Context, Result, bail};
use std::path::Path;

/// What a template may name.
pub struct Values<'a> {
    /// Where the peer listens, on 127.0.0.1.
    pub port: u16,
    /// The origin's address.
    pub origin: std::net::SocketAddr,
    /// A directory of its own.
    pub dir: &'a Path,
    /// Where ringway's plugins are.
    pub plugins_dir: &'a Path,
    /// Whether the proxy answers `/short` itself, and with how many bytes.
    pub short_bytes: Option<u64>,
    /// The cores that it is pinned to, one for each worker.
    pub cores: &'a [usize],
    /// Who it is for.
    pub contestant: Contestant,
}

const FILES: [(&str, &str); 5] = [
    ("nginx.conf", include_str!("../../peers/nginx.conf")),
    ("haproxy-http.cfg", include_str!("../../peers/haproxy-http.cfg")),
    ("haproxy-tcp.cfg", include_str!("../../peers/haproxy-tcp.cfg")),
    ("envoy.yaml", include_str!("../../peers/envoy.yaml")),
    ("ringway.toml", include_str!("../../peers/ringway.toml")),
];

/// The text of a template: from `dir` when that is given, else the compiled one.
pub fn load(name: &str, dir: Option<&Path>) -> Result<String> {
    if let Some(dir) = dir {
        let path = dir.join(name);
        return std::fs::read_to_string(&path).with_context(|| format!("reading the peer template {path:?}"));
    }
    let found = FILES.iter().find(|(file, _)| *file == name);
    found.map(|(_, text)| (*text).to_owned()).with_context(|| format!("there is no peer template {name:?}"))
}

/// Fills every place of a template. A place without a value is an error, so that a typing mistake can't go unseen.
pub fn render(template: &str, values: &Values) -> Result<String> {
    let mut text = String::with_capacity(template.len() + 1024);
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let end = rest[at..].find("}}").with_context(|| format!("an unclosed place at {:?}", &rest[at..]))? + at;
        text.push_str(&rest[..at]);
        let name = rest[at + 2..end].trim();
        let Some(value) = value_of(name, values) else { bail!("the template names {name:?}, which has no value") };
        text.push_str(&value);
        rest = &rest[end + 2..];
    }
    text.push_str(rest);
    Ok(text)
}

fn value_of(name: &str, values: &Values) -> Option<String> {
    let peer = values.contestant.peer;
    Some(match name {
        "port" => values.port.to_string(),
        "origin" => values.origin.to_string(),
        "origin_host" => values.origin.ip().to_string(),
        "origin_port" => values.origin.port().to_string(),
        "workers" => values.contestant.workers.to_string(),
        // A bit mask for each worker, its core's bit set: "1 10" for cores 0 and 1.
        "core_masks" => {
            let masks: Vec<String> = values.cores.iter().map(|core| format!("1{}", "0".repeat(*core))).collect();
            masks.join(" ")
        }
        "cores" => {
            let cores: Vec<String> = values.cores.iter().map(usize::to_string).collect();
            cores.join(" ")
        }
        "dir" => values.dir.display().to_string(),
        // nginx drops root's rights unless told otherwise, and then can't write below a directory of root's.
        "user" if is_root() => "user root;".to_owned(),
        "user" => String::new(),
        "buffers" if peer == "nginx-256k" => "proxy_buffer_size 16k; proxy_buffers 8 256k; proxy_busy_buffers_size 512k;".to_owned(),
        "buffers" => String::new(),
        "splice" if peer == "haproxy-splice" => "option splice-request\n    option splice-response".to_owned(),
        "splice" => String::new(),
        "comment" if peer == "haproxy-splice" => "; bodies go through splice(2)".to_owned(),
        "comment" => String::new(),
        "filters" if peer == "envoy-lua" => LUA_FILTER.to_owned(),
        "filters" => String::new(),
        "short" => values.short_bytes.map_or(String::new(), |bytes| short_circuit(peer, bytes)),
        "plugins" => plugin_tables(values),
        "plugin_names" => {
            let names: Vec<String> = chain(values.contestant.chain).into_iter().map(|(name, _)| format!("{name:?}")).collect();
            names.join(", ")
        }
        _ => return None,
    })
}

/// The Lua filter does what ringway's chain of four does: looks up a header, sets one each way.
const LUA_FILTER: &str = r#"- name: envoy.filters.http.lua
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
                  function envoy_on_request(handle)
                    handle:headers():get("x-request-id")
                    handle:headers():replace("x-bench", "1")
                  end
                  function envoy_on_response(handle)
                    handle:headers():get("content-type")
                    handle:headers():replace("x-bench", "1")
                  end"#;

/// What makes a peer answer `/short` itself with `bytes` bytes.
fn short_circuit(peer: &str, bytes: u64) -> String {
    let body = String::from_utf8_lossy(&crate::origin::pattern(bytes)).into_owned();
    match peer {
        "nginx" => {
            format!("location = /short {{ default_type text/plain; return 200 \"{body}\"; }}")
        }
        "haproxy-http" => {
            format!("http-request return status 200 content-type text/plain string \"{body}\" if {{ path /short }}")
        }
        "envoy" => format!("- match: {{ path: \"/short\" }}\n                direct_response: {{ status: 200, body: {{ inline_string: \"{body}\" }} }}"),
        _ => String::new(),
    }
}

/// The plugins of a chain: the name of each link, and the file it comes from.
pub fn chain(chain: Chain) -> Vec<(String, &'static str)> {
    let files: Vec<&'static str> = match chain {
        Chain::None => vec![],
        Chain::Headers(1) => vec!["bench-lookup-c"],
        Chain::Headers(4) => vec!["bench-lookup-c", "bench-set-request", "bench-set-response", "bench-lookup-rust"],
        Chain::Headers(count) => {
            let lookups = ["bench-lookup-c", "bench-lookup-rust", "bench-lookup-zig"];
            lookups.into_iter().cycle().take(count as usize).collect()
        }
        Chain::Chunk => vec!["bench-chunk"],
        Chain::Respond => vec!["bench-respond"],
    };
    files.into_iter().enumerate().map(|(index, file)| (format!("{file}-{index}"), file)).collect()
}

fn plugin_tables(values: &Values) -> String {
    let respond = values.contestant.chain == Chain::Respond;
    let tables = chain(values.contestant.chain).into_iter().map(|(name, file)| {
        let path = values.plugins_dir.join(format!("{file}.so"));
        let config = match values.short_bytes {
            Some(bytes) if respond => format!("[plugin.config]\nbody_bytes = {bytes}\n"),
            _ => String::new(),
        };
        format!("[[plugin]]\nname = {name:?}\npath = {path:?}\n{config}\n")
    });
    tables.collect()
}

/// Whether this process runs as root, seen from the owner of its own files in /proc.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(peer: &'static str, chain: Chain) -> Values<'static> {
        Values {
            port: 1234,
            origin: "127.0.0.1:9000".parse().expect("valid"),
            dir: Path::new("/dir"),
            plugins_dir: Path::new("/plugins"),
            short_bytes: None,
            cores: &[0, 1],
            contestant: Contestant { peer, chain, workers: 2 },
        }
    }

    #[test]
    fn every_template_renders_for_every_peer_that_uses_it() {
        let uses = [
            ("nginx", "nginx.conf"),
            ("nginx-256k", "nginx.conf"),
            ("haproxy-http", "haproxy-http.cfg"),
            ("haproxy-tcp", "haproxy-tcp.cfg"),
            ("haproxy-splice", "haproxy-tcp.cfg"),
            ("envoy", "envoy.yaml"),
            ("envoy-lua", "envoy.yaml"),
            ("ringway", "ringway.toml"),
        ];
        for (peer, file) in uses {
            let text = render(&load(file, None).expect(file), &values(peer, Chain::None)).expect(file);
            assert!(!text.contains("{{"), "{file}");
            assert!(text.contains("1234"), "{file}");
        }
    }

    #[test]
    fn a_chain_of_sixteen_has_sixteen_names() {
        let values = values("ringway", Chain::Headers(16));
        let text = render(&load("ringway.toml", None).expect("compiled in"), &values).expect("valid");
        assert_eq!(text.matches("[[plugin]]").count(), 16);
        assert!(text.contains("path = \"/plugins/bench-lookup-zig.so\""));
        assert!(text.contains("\"bench-lookup-c-0\", \"bench-lookup-rust-1\""));
        let mut names: Vec<String> = chain(Chain::Headers(16)).into_iter().map(|(name, _)| name).collect();
        names.dedup();
        assert_eq!(names.len(), 16);
    }

    #[test]
    fn unknown_places_are_errors() {
        let error = render("a {{nothing}} b", &values("nginx", Chain::None)).expect_err("no value");
        assert!(error.to_string().contains("nothing"));
        assert!(render("a {{port", &values("nginx", Chain::None)).is_err());
    }
}
