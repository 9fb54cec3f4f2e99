//! A minimal Pingora proxy: one upstream, no filters, no logs. `pingora-peer LISTEN UPSTREAM THREADS`.

use async_trait::async_trait;
use pingora_core::server::Server;
use pingora_core::server::configuration::{Opt, ServerConf};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session};

struct Forward {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream.as_str(), false, String::new())))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--version") {
        println!("pingora 0.8 (minimal peer {})", env!("CARGO_PKG_VERSION"));
        return;
    }
    let [listen, upstream, threads] = arguments.as_slice() else {
        eprintln!("usage: pingora-peer LISTEN UPSTREAM THREADS");
        std::process::exit(2);
    };
    let threads = threads.parse().unwrap_or(1);
    // The pool must hold an idle connection for each of the load generator's.
    let conf = ServerConf { threads, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let mut proxy = pingora_proxy::http_proxy_service(&server.configuration, Forward { upstream: upstream.clone() });
    proxy.add_tcp(listen);
    server.add_service(proxy);
    server.run_forever();
}
