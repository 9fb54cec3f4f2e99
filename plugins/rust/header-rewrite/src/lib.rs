//! Sets, adds and removes headers of requests and responses, and rewrites path prefixes.
//!
//! ```json
//! {
//!   "request":  {"remove": ["x-debug"], "set": {"x-env": "prod"}, "add": {"via": "1.1 ringway"}},
//!   "response": {"remove": ["server"], "set": {"x-frame-options": "DENY"}},
//!   "path_prefix": {"from": "/api/v1/", "to": "/"}
//! }
//! ```
//!
//! Order: removals, then sets, then adds. The value of `add` may be a list. The prefix is compared byte for byte, so end
//! `from` with '/' unless `/apix` is meant to match `/api`; the query is kept, and other paths stay as they are.

mod config;

use std::sync::Arc;

use ringway_sdk::prelude::*;

use config::{Config, Rules};

struct HeaderRewrite {
    config: Arc<Config>,
    /// The target that is being made; reused, so that a warm worker allocates nothing.
    target: Vec<u8>,
}

impl Plugin for HeaderRewrite {
    type Shared = Config;
    type Scratch = ();

    fn load(_: &mut Loader<'_>, config: &[u8]) -> Result<Config, Fault> {
        config::parse(config)
    }

    fn core_init(shared: &Arc<Config>, _worker: u32) -> Result<Self, Fault> {
        Ok(HeaderRewrite { config: Arc::clone(shared), target: Vec::new() })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        let Rules { remove, set, add } = &self.config.request;
        let mut edits = cx.request_mut();
        for name in remove {
            edits.remove_header(name)?;
        }
        for (name, value) in set {
            edits.set_header(name, value)?;
        }
        for (name, value) in add.iter().flat_map(config::pairs) {
            edits.add_header(name, value)?;
        }
        if let Some(prefix) = &self.config.path_prefix
            && let Some(rest) = request.path().strip_prefix(prefix.from.as_bytes())
        {
            self.target.clear();
            self.target.extend_from_slice(prefix.to.as_bytes());
            self.target.extend_from_slice(rest);
            // The target, not the query, says whether there is a '?': an empty query may follow one.
            if request.target().contains(&b'?') {
                self.target.push(b'?');
                self.target.extend_from_slice(request.query());
            }
            edits.set_target(&self.target)?;
        }
        Ok(Verdict::Continue)
    }

    fn on_response(&mut self, cx: &mut Cx<'_, Self>, _: &ResponseView) -> Outcome {
        let Rules { remove, set, add } = &self.config.response;
        let mut edits = cx.response_mut();
        for name in remove {
            edits.remove_header(name)?;
        }
        for (name, value) in set {
            edits.set_header(name, value)?;
        }
        for (name, value) in add.iter().flat_map(config::pairs) {
            edits.add_header(name, value)?;
        }
        Ok(Verdict::Continue)
    }
}

ringway_sdk::export_plugin!(HeaderRewrite {
    name: "header-rewrite",
    version: env!("CARGO_PKG_VERSION"),
    hooks: [on_request, on_response],
    wants: [EDIT_REQUEST, EDIT_RESPONSE],
});

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_sdk::testing::{Request, TestHost, request, response};

    fn loaded(config: &str) -> TestHost<HeaderRewrite> {
        TestHost::load(config).expect("the configuration is good")
    }

    #[test]
    fn rules_apply_in_the_order_remove_set_add() {
        let mut host = loaded(r#"{"request": {"remove": ["X-A"], "set": {"x-a": "1"}, "add": {"x-a": ["2", "3"]}}}"#);
        let mut exchange = host.exchange(request("GET", "/", &[("x-a", "0"), ("x-b", "b")]));
        exchange.on_request().continues();
        let kept: Vec<_> = exchange.request.headers.0.iter().filter(|h| h.name.name == b"x-a").map(|h| h.value.0.as_slice()).collect();
        assert_eq!(kept, [b"1", b"2", b"3"]);
        assert_eq!(exchange.request_header("x-b"), Some("b"));
    }

    #[test]
    fn response_rules_do_not_touch_the_request() {
        let mut host = loaded(r#"{"response": {"remove": ["server"], "set": {"x-frame-options": "DENY"}}}"#);
        let upstream = |request: &Request| {
            assert_eq!(request.edits, 0);
            response(200, &[("Server", "x/1")], b"hi")
        };
        let answer = host.serve(request("GET", "/", &[("server", "mine")]), upstream);
        assert_eq!((answer.header("server"), answer.header("x-frame-options")), (None, Some("DENY")));
        assert_eq!(answer.body, b"hi");
    }

    #[test]
    fn the_prefix_is_rewritten_and_the_query_stays() {
        let mut host = loaded(r#"{"path_prefix": {"from": "/api/", "to": "/"}}"#);
        for (target, expected) in [("/api/a?b=/api/", "/a?b=/api/"), ("/api/", "/"), ("/api/?", "/?"), ("/apix", "/apix"), ("/x/api/", "/x/api/")] {
            let mut exchange = host.exchange(request("GET", target, &[]));
            exchange.on_request().continues();
            assert_eq!(String::from_utf8_lossy(&exchange.request.target.0), expected, "{target}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_when_it_is_loaded() {
        let cases = [
            (r#"{"requests": {}}"#, "unknown field `requests`"),
            (r#"{"request": {"set": {"x y": "1"}}}"#, r#"request.set: "x y" is not a header name"#),
            (r#"{"request": {"set": {"x": "a\r\nb: c"}}}"#, "request.set: the value of \"x\" holds a control character"),
            (r#"{"response": {"add": {"x": ["a\u0000"]}}}"#, "response.add: the value of \"x\" holds a control character"),
            (r#"{"response": {"remove": ["Content-Length"]}}"#, "belongs to the gateway"),
            (r#"{"request": {"remove": ["Host"]}}"#, "a request has exactly one Host"),
            (r#"{"request": {"add": {"host": "b"}}}"#, "a request has exactly one Host"),
            (r#"{"request": {"set": {"host": "a b"}}}"#, "is no host"),
            (r#"{"request": {"set": {"x": " a"}}}"#, "begins or ends with a blank"),
            (r#"{"path_prefix": {"from": "api", "to": "/"}}"#, "path_prefix.from must begin with '/'"),
            (r#"{"path_prefix": {"from": "/", "to": "/a b"}}"#, "path_prefix.to"),
        ];
        for (config, expected) in cases {
            let refusal = TestHost::<HeaderRewrite>::load(config).err().expect(config);
            assert!(refusal.0.contains(expected), "{config}: {refusal}");
        }
    }
}
