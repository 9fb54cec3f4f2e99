//! Asks an authorization service about each request, before anything of it goes to the upstream.
//!
//! ```json
//! {
//!   "upstream": "auth", "path_prefix": "/check", "fixed_path": false,
//!   "request_headers": ["authorization", "cookie"],
//!   "allowed_headers": ["x-user", "x-roles"],
//!   "denied_headers": ["www-authenticate", "location", "set-cookie", "content-type", "retry-after"],
//!   "timeout_ms": 500, "failure": "closed", "failure_status": 503
//! }
//! ```
//!
//! The service, an upstream of the configuration, gets `GET path_prefix + path?query` without a body, with the headers of `request_headers` and
//!
//! - `x-original-method`, `x-original-uri`: of the request;
//! - `x-forwarded-host`: its authority; `x-forwarded-for`: the client's address.
//!
//! What it answers decides:
//!
//! | reply | the request |
//! |---|---|
//! | 2xx | goes on, with the `allowed_headers` of the reply |
//! | 3xx, 4xx | is answered with that status, the body, and the `denied_headers` of the reply |
//! | 5xx, none, a broken one, none within `timeout_ms` or the gateway's timeouts (`suspend`, `connect`, `first_byte`, …) | fails: `failure_status`, or with `"failure": "open"` it goes on |
//!
//! The headers of `allowed_headers` are removed from each request first, also when they are spelt with `_` for `-` (some upstreams read both alike), so nobody
//! can claim what the service would have said. A body beyond `limits.outcall_reply_bytes` is not sent to the client: the status goes alone.
//!
//! Users of nginx know this as `auth_request`, those of Envoy as `ext_authz` over HTTP. Like Envoy, and unlike nginx, any 3xx or 4xx goes to the client, and a 5xx
//! of the service counts as its failure. Replies are not remembered: put a cache behind the plugin's upstream if the service is slow.

mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ringway_sdk::prelude::*;

use config::{Config, Failure};

struct Rules {
    config: Config,
    service: Upstream,
    wait: Wait,
}

struct ExtAuthz {
    rules: Arc<Rules>,
}

impl Plugin for ExtAuthz {
    type Shared = Arc<Rules>;
    type Scratch = ();

    fn load(loader: &mut Loader<'_>, config: &[u8]) -> Result<Arc<Rules>, Fault> {
        let config = Config::parse(config)?;
        let service = loader.upstream(&config.upstream)?;
        Ok(Arc::new(Rules { config, service, wait: loader.wait()? }))
    }

    fn core_init(shared: &Arc<Arc<Rules>>, _worker: u32) -> Result<Self, Fault> {
        Ok(ExtAuthz { rules: Arc::clone(shared) })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        let rules = Arc::clone(&self.rules);
        rules.strip_forged(cx, request)?;
        match rules.ask(cx, request) {
            Ok(verdict) => Ok(verdict),
            // More are under way than the gateway allows, or the request is too large for one.
            Err(HostError::NoSpace) => rules.fail(cx),
            Err(error) => Err(error.into()),
        }
    }

    fn on_event(&mut self, cx: &mut Cx<'_, Self>, event: Event<'_>) -> Outcome {
        let rules = Arc::clone(&self.rules);
        match event {
            Event::Reply { reply: Ok(reply), .. } if reply.status() < 300 => rules.allow(cx, reply),
            Event::Reply { reply: Ok(reply), .. } if reply.status() < 500 => rules.deny(cx, reply),
            _ => rules.fail(cx),
        }
    }
}

impl Rules {
    /// Removes what only the service may say.
    fn strip_forged(&self, cx: &mut Cx<'_, ExtAuthz>, request: &RequestView) -> Result<(), HostError> {
        for header in request.headers() {
            if self.config.allowed_headers.iter().any(|name| is_alike(name.as_bytes(), header.name())) {
                cx.request_mut().remove_header(header.name())?;
            }
        }
        Ok(())
    }

    fn ask(&self, cx: &mut Cx<'_, ExtAuthz>, request: &RequestView) -> Result<Verdict, HostError> {
        let mut call = self.service.call(cx, "GET", self.target(request))?;
        for name in &self.config.request_headers {
            for value in request.header_values_named(name.as_bytes()) {
                call = call.header(name, value)?;
            }
        }
        call = call.header("x-original-method", request.method())?.header("x-original-uri", request.target())?;
        if !request.authority().is_empty() {
            call = call.header("x-forwarded-host", request.authority())?;
        }
        if let Some(address) = request.peer_ip() {
            call = call.header("x-forwarded-for", address.to_string())?;
        }
        let verdict = call.send(0)?;
        if let Some(ms) = self.config.timeout_ms {
            self.wait.arm(cx, Duration::from_millis(ms.into()), 0)?;
        }
        Ok(verdict)
    }

    /// `path_prefix`, and what the request asks for, in origin-form.
    fn target(&self, request: &RequestView) -> Vec<u8> {
        let mut target = self.config.path_prefix.clone().into_bytes();
        if self.config.fixed_path {
            return target;
        }
        // `OPTIONS *` has no path.
        target.extend_from_slice(if request.path().starts_with(b"/") { request.path() } else { b"/" });
        if !request.query().is_empty() {
            target.push(b'?');
            target.extend_from_slice(request.query());
        }
        target
    }

    fn allow(&self, cx: &mut Cx<'_, ExtAuthz>, reply: &ResponseView) -> Outcome {
        cx.add(ALLOWED, 1);
        for name in &self.config.allowed_headers {
            for value in reply.header_values_named(name.as_bytes()) {
                cx.request_mut().add_header(name, value)?;
            }
        }
        Ok(Verdict::Continue)
    }

    fn deny(&self, cx: &mut Cx<'_, ExtAuthz>, reply: &ResponseView) -> Outcome {
        cx.add(DENIED, 1);
        let is_whole = reply.flags() & view::RES_BODY_COMPLETE != 0;
        let mut answer = cx.respond(reply.status())?;
        for name in &self.config.denied_headers {
            // A type without its body says nothing.
            if !is_whole && name.eq_ignore_ascii_case("content-type") {
                continue;
            }
            for value in reply.header_values_named(name.as_bytes()) {
                answer = answer.header(name, value)?;
            }
        }
        if is_whole {
            answer = answer.body(reply.body())?;
        }
        answer.send()
    }

    /// There is no decision.
    fn fail(&self, cx: &mut Cx<'_, ExtAuthz>) -> Outcome {
        cx.add(FAILED, 1);
        match self.config.failure {
            Failure::Open => Ok(Verdict::Continue),
            Failure::Closed => cx.respond(self.config.failure_status)?.header("content-type", "text/plain")?.body("not authorized: no decision\n")?.send(),
        }
    }
}

/// Whether an upstream might take one name for the other.
fn is_alike(name: &[u8], received: &[u8]) -> bool {
    let plain = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    name.len() == received.len() && name.iter().map(plain).eq(received.iter().map(plain))
}

ringway_sdk::export_plugin!(ExtAuthz {
    name: "ext-authz",
    version: env!("CARGO_PKG_VERSION"),
    hooks: [on_request, on_event],
    wants: [EDIT_REQUEST, RESPOND, SUSPEND, OUTCALL],
    metrics: [
        ALLOWED = counter("allowed_total", "Requests that the service let through."),
        DENIED = counter("denied_total", "Requests that the service refused."),
        FAILED = counter("failed_total", "Requests about which the service did not decide."),
    ],
});
