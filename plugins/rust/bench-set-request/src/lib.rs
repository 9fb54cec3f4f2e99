//! Looks one header up and sets the request header `x-bench: 1`: for benches.

use std::hint::black_box;
use std::sync::Arc;

use ringway_sdk::prelude::*;

struct BenchSetRequest;

impl Plugin for BenchSetRequest {
    type Shared = ();
    type Scratch = ();

    fn load(_: &mut Loader<'_>, _config: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn core_init(_: &Arc<()>, _worker: u32) -> Result<Self, Fault> {
        Ok(BenchSetRequest)
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        black_box(request.header(HeaderId::USER_AGENT));
        cx.request_mut().set_header("x-bench", "1")?;
        Ok(Verdict::Continue)
    }
}

ringway_sdk::export_plugin!(BenchSetRequest { name: "bench-set-request", version: env!("CARGO_PKG_VERSION"), hooks: [on_request], wants: [EDIT_REQUEST] });

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_sdk::testing::{TestHost, request};

    #[test]
    fn the_request_goes_on() {
        let mut host = TestHost::<BenchSetRequest>::load("{}").expect("loads");
        let mut exchange = host.exchange(request("GET", "/", &[("user-agent", "bench")]));
        exchange.on_request().continues();
        assert_eq!(exchange.request_header("x-bench"), Some("1"));
    }
}
