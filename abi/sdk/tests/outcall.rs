//! Outcalls, with the SDK's test host.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use std::sync::Arc;

use ringway_sdk::prelude::*;
use ringway_sdk::testing::{Returned, TestHost, request, response};

/// Asks `auth` about each request; twice on /twice.
struct Asking {
    auth: Upstream,
}

impl Plugin for Asking {
    type Shared = Upstream;
    type Scratch = ();

    fn load(loader: &mut Loader<'_>, _: &[u8]) -> Result<Upstream, Fault> {
        let auth = loader.upstream("auth")?;
        assert_eq!(loader.upstream("").map(|_| ()), Err(HostError::BadArgument));
        Ok(auth)
    }

    fn core_init(shared: &Arc<Upstream>, _: u32) -> Result<Self, Fault> {
        Ok(Asking { auth: **shared })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        for (name, value, refusal) in
            [("x", "a\r\nb", HostError::BadBytes), ("content-length", "3", HostError::Forbidden), ("expect", "x", HostError::Forbidden)]
        {
            let call = self.auth.call(cx, "GET", "/")?;
            assert_eq!(call.header(name, value).map(|_| ()), Err(refusal), "{name}");
        }
        for (method, target, refusal) in [("G T", "/", HostError::BadBytes), ("GET", "a", HostError::BadBytes), ("CONNECT", "/", HostError::Forbidden)] {
            assert_eq!(self.auth.call(cx, method, target).map(|_| ()), Err(refusal), "{method} {target}");
        }
        if request.path() == b"/forgotten" {
            self.auth.call(cx, "GET", "/forgotten")?.send(1)?;
            return Ok(Verdict::Continue);
        }
        if request.path() == b"/twice" {
            self.auth.call(cx, "POST", "/first")?.body("data")?.send(1)?;
        }
        Ok(self.auth.call(cx, "GET", request.target())?.header("x-a", "b")?.send(2)?)
    }

    fn on_event(&mut self, cx: &mut Cx<'_, Self>, event: Event<'_>) -> Outcome {
        match event {
            Event::Reply { reply: Ok(reply), token } if reply.status() == 200 => {
                cx.request_mut().set_header("x-user", reply.header_named(b"x-user").unwrap_or(b"-"))?;
                if token == 1 { Ok(Verdict::Suspend) } else { Ok(Verdict::Continue) }
            }
            Event::Reply { reply: Ok(reply), .. } => cx.respond(reply.status())?.body(reply.body())?.send(),
            Event::Reply { reply: Err(failure), .. } => cx.respond(503)?.body(failure.to_string())?.send(),
            _ => cx.respond(504)?.send(),
        }
    }
}

ringway_sdk::describe_plugin!(Asking { name: "asking", version: "1", hooks: [on_request, on_event], wants: [SUSPEND, OUTCALL, EDIT_REQUEST, RESPOND] });

#[test]
fn calls_are_taken_and_replies_shown() {
    let mut host = TestHost::<Asking>::load("{}").unwrap();
    let mut exchange = host.exchange(request("GET", "/a?b", &[]));
    assert_eq!(exchange.on_request(), Returned::Suspend);
    let calls = exchange.take_calls();
    assert_eq!((calls.len(), calls[0].upstream.as_str(), calls[0].target.as_str(), calls[0].token, calls[0].header("X-A")), (1, "auth", "/a?b", 2, Some("b")));
    exchange.on_reply(2, Ok(response(200, &[("X-User", "anna")], b""))).continues();
    assert_eq!(exchange.request_header("x-user"), Some("anna"));

    let mut exchange = host.exchange(request("GET", "/twice", &[]));
    assert_eq!((exchange.on_request(), exchange.take_calls().len()), (Returned::Suspend, 2));
    assert_eq!(exchange.on_reply(1, Ok(response(200, &[], b""))), Returned::Suspend);
    let answer = exchange.on_reply(2, Ok(response(403, &[], b"no"))).answer();
    assert_eq!((answer.status, answer.body), (403, b"no".to_vec()));

    for (failure, text) in [(NoReply::Unreachable, "no server"), (NoReply::Timeout, "in time"), (NoReply::Broken, "broken"), (NoReply::Other(-99), "-99")] {
        let mut exchange = host.exchange(request("GET", "/", &[]));
        assert_eq!(exchange.on_request(), Returned::Suspend);
        let answer = exchange.on_reply(2, Err(failure)).answer();
        assert!(answer.status == 503 && String::from_utf8_lossy(&answer.body).contains(text), "{answer:?}");
    }
    let mut exchange = host.exchange(request("GET", "/", &[]));
    assert_eq!((exchange.on_request(), exchange.on_event(Event::Timeout).answer().status), (Returned::Suspend, 504));
    let mut exchange = host.exchange(request("GET", "/forgotten", &[]));
    exchange.on_request().continues();
    assert_eq!(exchange.take_calls(), []);
}
