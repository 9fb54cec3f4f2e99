//! A Ringway plugin to start from: counts requests, marks them with a header, and answers one path itself.

use std::sync::Arc;

use ringway_sdk::prelude::*;
use serde::Deserialize;

/// `[plugin.config]` of the gateway's configuration. Unknown keys are errors, so that a misspelt one is found.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    greeting: String,
}

/// One value of this lives on each worker. Its hooks never overlap, so fields need no locks.
struct Template {
    config: Arc<Config>,
    seen: u64,
}

impl Plugin for Template {
    type Shared = Config; // what all workers share
    type Scratch = (); // what one exchange keeps from hook to hook; see `ringway_sdk::scratch!`

    /// Once per process. The text of the error is shown to the operator.
    fn load(_: &mut Loader<'_>, config: &[u8]) -> Result<Config, Fault> {
        Ok(serde_json::from_slice(config)?)
    }

    /// Once per worker, on its thread.
    fn core_init(shared: &Arc<Config>, _worker: u32) -> Result<Self, Fault> {
        Ok(Template { config: Arc::clone(shared), seen: 0 })
    }

    /// The head of a request is there. Edits and answers take effect when the hook returns.
    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        self.seen += 1;
        cx.add(REQUESTS, 1);
        if request.path() == b"/hello" {
            return cx.respond(200)?.header("content-type", "text/plain")?.body(&self.config.greeting)?.send();
        }
        cx.request_mut().set_header("x-seen", self.seen.to_string())?;
        Ok(Verdict::Continue)
    }
}

// Only the hooks listed here are called, and only what `wants` declares is possible.
ringway_sdk::export_plugin!(Template {
    name: "template-rust",
    version: env!("CARGO_PKG_VERSION"),
    hooks: [on_request],
    wants: [EDIT_REQUEST, RESPOND],
    metrics: [REQUESTS = counter("requests_total", "Requests that the plugin saw.")],
});

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_sdk::testing::{TestHost, request, response};

    #[test]
    fn one_path_is_answered_and_the_others_are_marked() {
        let mut host = TestHost::<Template>::load(r#"{"greeting": "hi"}"#).expect("the configuration is good");
        assert_eq!(host.exchange(request("GET", "/hello", &[])).on_request().answer().body, b"hi");
        let mut exchange = host.exchange(request("GET", "/other", &[]));
        exchange.on_request().continues();
        assert_eq!(exchange.request_header("x-seen"), Some("2"));
        exchange.on_response(response(200, &[], b""));
        assert_eq!(host.metric("requests_total"), 2);
    }
}
