//! `ringway demo`: the gateway in front of an origin of its own, with plugins from three languages in one chain.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use crate::config::{Config, ConfigErrors};

/// The configuration of the demo, with the address of its origin in place of `ORIGIN`.
const CONFIG: &str = r#"
[server]
workers = 1

[[listener]]
address = "LISTEN"

[[upstream]]
name = "origin"
servers = ["ORIGIN"]

[[plugin]]
name = "request-id"                      # C
path = "PLUGINS/request-id.so"

[[plugin]]
name = "redirect"                        # Zig
path = "PLUGINS/redirect.so"
config = { rules = [{ exact = "/old", location = "/new", status = 308 }] }

[[plugin]]
name = "header-rewrite"                  # Rust
path = "PLUGINS/header-rewrite.so"
[plugin.config.request.set]
x-demo = "seen by a Rust plugin"
[plugin.config.response]
remove = ["server"]
[plugin.config.response.set]
x-gateway = "ringway"

[[plugin]]
name = "body-limit"                      # Zig
path = "PLUGINS/body-limit.so"
config = { max_bytes = 1000 }

[[plugin]]
name = "response-cache"                  # Rust
path = "PLUGINS/response-cache.so"

[[route]]
path = "/"
upstream = "origin"
plugins = ["request-id", "redirect", "header-rewrite", "body-limit", "response-cache"]
"#;

/// The largest request head the demo's origin reads.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// The configuration of the demo: listening on `listen`, plugins from `plugins`, in front of an origin that this starts
/// on a thread.
///
/// # Errors
/// When a plugin is not built, or no socket can be had.
pub fn config(listen: &str, plugins: &Path) -> Result<Config, ConfigErrors> {
    let origin = start_origin().map_err(|e| problem(format!("the demo's origin cannot listen: {e}")))?;
    let text = CONFIG.replace("LISTEN", listen).replace("ORIGIN", &origin.to_string()).replace("PLUGINS", &plugins.display().to_string());
    let config = Config::parse("the demo's configuration", &text, &|_| None)?;
    match config.plugins.iter().find(|plugin| !plugin.path.exists()) {
        Some(missing) => Err(problem(format!("{} is not built; run plugins/build first", missing.path.display()))),
        None => Ok(config),
    }
}

/// What to type to see it work.
pub fn hints(listen: &str) -> String {
    format!(
        "Ringway listens on http://{listen} with plugins in C, Zig and Rust in one chain. Try:\n\n  \
         curl -i http://{listen}/hello                    # request-id (C) and header-rewrite (Rust) at work\n  \
         curl -i http://{listen}/old                      # redirect (Zig) answers, the origin never sees it\n  \
         curl -i http://{listen}/cached                   # twice: the second answer comes from response-cache (Rust)\n  \
         curl -i --data-binary @/bin/ls http://{listen}/  # body-limit (Zig) refuses more than 1000 bytes\n  \
         printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nHost: b\\r\\n\\r\\n' | curl -s telnet://{listen}   # malformed: 400\n\n\
         Ctrl-C ends it.\n"
    )
}

fn problem(what: String) -> ConfigErrors {
    ConfigErrors { problems: vec![crate::config::Problem::new(what)] }
}

/// An origin that answers with the request it saw.
fn start_origin() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("demo-origin".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that cannot have a thread is closed; the gateway retries.
            let _ = thread::Builder::new().spawn(move || serve(&stream));
        }
    })?;
    Ok(address)
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        let mut length = 0;
        loop {
            let begin = head.len();
            if reader.by_ref().take(HEAD_BYTES_MAX).read_line(&mut head)? == 0 {
                return Ok(());
            }
            let line = head[begin..].trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        let cache = if head.starts_with("GET /cached ") { "cache-control: max-age=60\r\n" } else { "" };
        let body = format!("The origin saw this request:\n\n{}", head.trim_end());
        let mut writer = stream;
        write!(writer, "HTTP/1.1 200 OK\r\nserver: demo-origin\r\ncontent-type: text/plain\r\n{cache}content-length: {}\r\n\r\n{body}\n", body.len() + 1)?;
    }
}
