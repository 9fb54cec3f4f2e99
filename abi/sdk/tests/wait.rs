//! Waiting, with the SDK's test host.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ringway_sdk::prelude::*;
use ringway_sdk::testing::{Returned, TestHost, request};

/// Waits for a timer on /timer, for a thread on /thread, and for both elsewhere.
struct Patient {
    wait: Wait,
}

impl Plugin for Patient {
    type Shared = Wait;
    type Scratch = ();

    fn load(loader: &mut Loader<'_>, _: &[u8]) -> Result<Wait, Fault> {
        Ok(loader.wait()?)
    }

    fn core_init(shared: &Arc<Wait>, _: u32) -> Result<Self, Fault> {
        Ok(Patient { wait: **shared })
    }

    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        if request.path() == b"/timer" {
            return self.wait.timer(cx, Duration::from_millis(10), 7);
        }
        let waker = self.wait.waker(cx);
        thread::spawn(move || waker.wake(9)).join().unwrap()?;
        Ok(Verdict::Suspend)
    }

    fn on_event(&mut self, cx: &mut Cx<'_, Self>, event: Event) -> Outcome {
        match event {
            Event::Timer(token) => {
                cx.request_mut().set_header("x-timer", token.to_string())?;
            }
            Event::Wake(_) => return self.wait.timer(cx, Duration::from_secs(1), 8),
            _ => return cx.respond(504)?.send(),
        }
        Ok(Verdict::Continue)
    }

    fn on_done(&mut self, cx: &mut Cx<'_, Self>, _: Done) {
        assert_eq!(self.wait.timer(cx, Duration::ZERO, 0).map_err(|fault| fault.to_string()).unwrap_err(), HostError::WrongHook.to_string());
    }
}

ringway_sdk::describe_plugin!(Patient { name: "patient", version: "1", hooks: [on_request, on_event, on_done], wants: [SUSPEND, EDIT_REQUEST, RESPOND] });

#[test]
fn events_are_shown_to_the_hook_that_waits() {
    let mut host = TestHost::<Patient>::load("{}").unwrap();
    let mut exchange = host.exchange(request("GET", "/timer", &[]));
    assert_eq!((exchange.on_request(), exchange.timer()), (Returned::Suspend, Some((Duration::from_millis(10), 7))));
    exchange.on_event(Event::Timer(7)).continues();
    assert_eq!(exchange.request_header("x-timer"), Some("7"));
    exchange.on_done(false);

    let mut exchange = host.exchange(request("GET", "/thread", &[]));
    assert_eq!((exchange.on_request(), exchange.wakes(), exchange.wakes()), (Returned::Suspend, vec![9], vec![]));
    assert_eq!((exchange.on_event(Event::Wake(9)), exchange.timer()), (Returned::Suspend, Some((Duration::from_secs(1), 8))));
    assert_eq!(exchange.on_event(Event::Timeout).answer().status, 504);
}
