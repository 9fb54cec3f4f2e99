//! The origin: an HTTP/1.1 server that must never be the bottleneck of a measurement.
//!
//! `answers` says what is sent, `server` moves it with one io_uring per thread. Its CPU time per request is part of every
//! report, so that a reader can see that it was not what limited the run.

mod answers;
mod server;

pub use answers::pattern;
pub use server::Server;

use anyhow::{Context, Result};
use clap::Args;
use std::io::Write;
use std::net::SocketAddr;

/// Options of `ringway-bench origin`.
#[derive(Debug, Args)]
pub struct OriginArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, short, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Threads, each with its own listening socket (SO_REUSEPORT).
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Pin the first thread to this core, the next one to the core after it.
    #[arg(long)]
    core: Option<usize>,
}

/// Runs the origin until it is killed. The first line on standard output says where it listens.
pub fn run(args: &OriginArgs) -> Result<()> {
    crate::machine::raise_file_limit();
    let first = crate::net::listen(args.listen)?;
    let address = first.local_addr().context("reading the listening address")?;
    let mut listeners = vec![first];
    for _ in 1..args.threads.max(1) {
        listeners.push(crate::net::listen(address)?);
    }
    let mut threads = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let core = args.core.map(|core| core + index);
        threads.push(std::thread::spawn(move || -> Result<()> {
            if let Some(core) = core {
                crate::machine::pin_thread(core)?;
            }
            Server::new(listener)?.run()
        }));
    }
    println!("origin listening on {address}");
    std::io::stdout().flush().context("writing to standard output")?;
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the origin panicked"))??;
    }
    Ok(())
}
