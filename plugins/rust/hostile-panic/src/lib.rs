//! For tests of the gateway: panics on the path `/panic` in `on_request`, on `/panic-post` in `on_response`, and while
//! loading when the configuration is `{"panic":"load"}`. The gateway must see `ABORTED` and go on serving.

use std::sync::Arc;

use ringway_sdk::prelude::*;

struct HostilePanic;

impl Plugin for HostilePanic {
    type Shared = ();
    type Scratch = ();

    fn load(_: &mut Loader<'_>, config: &[u8]) -> Result<(), Fault> {
        let wanted: Vec<u8> = config.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        assert!(wanted != br#"{"panic":"load"}"#, "hostile-panic was told to panic while loading");
        Ok(())
    }

    fn core_init(_: &Arc<()>, _worker: u32) -> Result<Self, Fault> {
        Ok(HostilePanic)
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        // Edited first: a failed hook must leave no trace.
        cx.request_mut().set_header("x-hostile", "1")?;
        assert!(request.path() != b"/panic", "hostile-panic was asked to panic in on_request");
        Ok(Verdict::Continue)
    }

    fn on_response(&mut self, cx: &mut Cx<'_, Self>, _: &ResponseView) -> Outcome {
        cx.response_mut().set_header("x-hostile", "1")?;
        assert!(cx.request().path() != b"/panic-post", "hostile-panic was asked to panic in on_response");
        Ok(Verdict::Continue)
    }
}

ringway_sdk::export_plugin!(HostilePanic {
    name: "hostile-panic",
    version: env!("CARGO_PKG_VERSION"),
    hooks: [on_request, on_response],
    wants: [EDIT_REQUEST, EDIT_RESPONSE],
});

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_sdk::testing::{Returned, TestHost, request, response};

    #[test]
    fn a_panic_is_one_fault_and_one_line_and_no_edit() {
        let mut host = TestHost::<HostilePanic>::load("{}").expect("loads");
        let mut exchange = host.exchange(request("GET", "/panic", &[]));
        assert_eq!(exchange.on_request(), Returned::Aborted);
        assert_eq!(exchange.request_header("x-hostile"), None);
        assert_eq!(host.logs().len(), 1);
        assert!(host.logs()[0].text.contains("asked to panic in on_request"), "{:?}", host.logs());

        let mut exchange = host.exchange(request("GET", "/panic-post", &[]));
        exchange.on_request().continues();
        assert_eq!(exchange.on_response(response(200, &[], b"")), Returned::Aborted);
        assert_eq!(exchange.response_header("x-hostile"), None);
        assert_eq!(host.logs().len(), 2);

        host.exchange(request("GET", "/", &[])).on_request().continues();
    }

    #[test]
    fn a_panic_while_loading_is_a_refusal_with_its_text() {
        let refusal = TestHost::<HostilePanic>::load(r#"{"panic": "load"}"#).err().expect("refused");
        assert!(refusal.0.contains("told to panic while loading"), "{refusal}");
    }
}
