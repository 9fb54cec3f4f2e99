//! Looks one header up and does nothing else: for benches, next to the same plugin in C and Zig.

use std::hint::black_box;
use std::sync::Arc;

use ringway_sdk::prelude::*;

struct BenchLookup;

impl Plugin for BenchLookup {
    type Shared = ();
    type Scratch = ();

    fn load(_: &mut Loader<'_>, _config: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn core_init(_: &Arc<()>, _worker: u32) -> Result<Self, Fault> {
        Ok(BenchLookup)
    }

    fn on_request(&mut self, _: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        black_box(request.header(HeaderId::USER_AGENT));
        Ok(Verdict::Continue)
    }
}

ringway_sdk::export_plugin!(BenchLookup { name: "bench-lookup-rust", version: env!("CARGO_PKG_VERSION"), hooks: [on_request] });

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_sdk::testing::{TestHost, request};

    #[test]
    fn the_request_goes_on() {
        let mut host = TestHost::<BenchLookup>::load("{}").expect("loads");
        let mut exchange = host.exchange(request("GET", "/", &[("user-agent", "bench")]));
        exchange.on_request().continues();
        assert_eq!(exchange.request.edits, 0);
    }
}
