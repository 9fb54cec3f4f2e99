//! Shows in which order the plugins of a chain run: appends its tag to the request header `x-order` and to the response
//! header `x-order-post`, and answers one path itself if told so.
//!
//! Configuration: `tag` (required), `respond_on` (a path; optional).

use std::sync::Arc;

use ringway_sdk::message::Message;
use ringway_sdk::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    tag: String,
    respond_on: Option<String>,
}

struct OrderProbe {
    config: Arc<Config>,
}

impl Plugin for OrderProbe {
    type Shared = Config;
    type Scratch = ();

    fn load(_: &mut Loader<'_>, config: &[u8]) -> Result<Config, Fault> {
        let config: Config = serde_json::from_slice(config)?;
        if config.tag.is_empty() {
            return Err("tag must not be empty".into());
        }
        Ok(config)
    }

    fn core_init(shared: &Arc<Config>, _worker: u32) -> Result<Self, Fault> {
        Ok(OrderProbe { config: Arc::clone(shared) })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        let order = appended(request, ORDER, &self.config.tag);
        if self.config.respond_on.as_ref().is_some_and(|path| path.as_bytes() == request.path()) {
            return cx.respond(200)?.header(ORDER, &order)?.header("content-type", "text/plain")?.body(order)?.send();
        }
        cx.request_mut().set_header(ORDER, order)?;
        Ok(Verdict::Continue)
    }

    fn on_response(&mut self, cx: &mut Cx<'_, Self>, response: &ResponseView) -> Outcome {
        let order = appended(response, ORDER_POST, &self.config.tag);
        cx.response_mut().set_header(ORDER_POST, order)?;
        Ok(Verdict::Continue)
    }
}

/// The header's value with the tag behind it: `A,B`.
fn appended(message: &impl Message, name: &str, tag: &str) -> Vec<u8> {
    let mut order: Vec<u8> = message.header_values_named(name.as_bytes()).next().unwrap_or_default().to_vec();
    if !order.is_empty() {
        order.push(b',');
    }
    order.extend_from_slice(tag.as_bytes());
    order
}

const ORDER: &str = "x-order";
const ORDER_POST: &str = "x-order-post";

ringway_sdk::export_plugin!(OrderProbe {
    name: "order-probe",
    version: env!("CARGO_PKG_VERSION"),
    hooks: [on_request, on_response],
    wants: [EDIT_REQUEST, EDIT_RESPONSE, RESPOND],
});

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_sdk::testing::{TestHost, request, response};

    #[test]
    fn tags_are_appended_on_both_ways() {
        let mut host = TestHost::<OrderProbe>::load(r#"{"tag": "B"}"#).expect("loads");
        let mut exchange = host.exchange(request("GET", "/", &[("X-Order", "A")]));
        exchange.on_request().continues();
        assert_eq!(exchange.request_header("x-order"), Some("A,B"));
        exchange.on_response(response(200, &[], b"")).continues();
        assert_eq!(exchange.response_header("x-order-post"), Some("B"));
    }

    #[test]
    fn the_path_is_answered_with_the_order_so_far() {
        let mut host = TestHost::<OrderProbe>::load(r#"{"tag": "B", "respond_on": "/stop"}"#).expect("loads");
        let answer = host.serve(request("GET", "/stop?x", &[("x-order", "A")]), |_| unreachable!("it is a short circuit"));
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"A,B".as_slice()));
        let answer = host.serve(request("GET", "/go", &[]), |_| response(204, &[], b""));
        assert_eq!((answer.status, answer.header("x-order-post")), (204, Some("B")));
    }

    #[test]
    fn a_configuration_without_a_tag_is_refused() {
        for config in ["{}", r#"{"tag": ""}"#, r#"{"tag": "A", "extra": 1}"#] {
            assert!(TestHost::<OrderProbe>::load(config).is_err(), "{config}");
        }
    }
}
