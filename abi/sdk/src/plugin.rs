//! The [`Plugin`] trait: what an author writes.

use std::sync::Arc;

use ringway_abi::view::{RequestView, ResponseView};

use crate::cx::{CoreCx, Cx};
use crate::error::Fault;
use crate::event::{Accept, Chunk, Done};
use crate::loader::Loader;
use crate::scratch::Zeroed;
use crate::wait::Event;

/// What a hook decides. Failing is not in the list: return a [`Fault`] (or panic) for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Verdict {
    /// Go on with the next plugin.
    Continue = ringway_abi::raw::CONTINUE,
    /// Go on, and do not call this plugin again in this exchange; `on_done` still comes.
    Done = ringway_abi::raw::DONE,
    /// Answer with the response that this hook wrote. [`Respond::send`](crate::Respond::send) gives this verdict.
    Respond = ringway_abi::raw::RESPOND,
    /// Close the connection without an answer.
    Drop = ringway_abi::raw::DROP,
    /// `on_request` only: buffer the body, then call `on_request_body`. Needs `wants: [REQUEST_BODY]`.
    NeedBody = ringway_abi::raw::NEED_BODY,
    /// `on_request`, `on_request_body`, `on_response` and `on_event` only: wait for an event; see [`Wait`](crate::Wait). Needs `wants: [SUSPEND]`.
    Suspend = ringway_abi::raw::SUSPEND,
}

/// What a hook returns, so that `?` works in it.
pub type Outcome = Result<Verdict, Fault>;

/// A plugin. One value per worker (core); all hooks of one value are mutually exclusive, hence `&mut self`, and run on
/// the worker's thread, so the value need not be `Send`.
///
/// A hook is called only if [`export_plugin!`](crate::export_plugin!) lists it. The compiler cannot see a hook that is
/// implemented and not listed; [`testing::TestHost`](crate::testing::TestHost) can, and refuses to load such a plugin.
///
/// A hook must not block, sleep, or hold a lock that another worker needs for long: every connection of its worker waits.
pub trait Plugin: Sized + 'static {
    /// What all workers share: the configuration, mostly. Made once per process by [`Plugin::load`].
    type Shared: Send + Sync + 'static;

    /// Plain data of one exchange, all zero when the exchange begins; `()` for none. See [`scratch!`](crate::scratch!).
    type Scratch: Zeroed;

    /// Once per process, on the main thread. `config` is the plugin's `[plugin.config]` as JSON, `{}` when absent. The
    /// text of the fault is shown to the operator: say what is wrong in the configuration and what to do.
    fn load(loader: &mut Loader<'_>, config: &[u8]) -> Result<Self::Shared, Fault>;

    /// Once per worker, on its thread. Limits and caches that live in `Self` are per worker. The text of the fault is shown to
    /// the operator; the plugin is not used at all then.
    fn core_init(shared: &Arc<Self::Shared>, worker: u32) -> Result<Self, Fault>;

    /// Once per worker, right after [`Plugin::core_init`]: for what only a loader gives, such as the core arrays of [`maps`](crate::maps). A fault is one
    /// of `core_init`.
    fn core_ready(&mut self, loader: &mut Loader<'_>) -> Result<(), Fault> {
        let _ = loader;
        Ok(())
    }

    /// A client connected. [`Verdict::Drop`] closes the connection.
    fn on_accept(&mut self, cx: &mut CoreCx<'_>, accept: Accept) -> Outcome {
        let _ = accept;
        cx.note_default()
    }

    /// The head of a request is there.
    fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        let _ = request;
        cx.note_default()
    }

    /// The next piece of the request body.
    fn on_request_chunk(&mut self, cx: &mut Cx<'_, Self>, chunk: Chunk<'_>) -> Outcome {
        let _ = chunk;
        cx.note_default()
    }

    /// The whole request body, after [`Verdict::NeedBody`].
    fn on_request_body(&mut self, cx: &mut Cx<'_, Self>, body: Chunk<'_>) -> Outcome {
        let _ = body;
        cx.note_default()
    }

    /// The head of a response is there, whoever made it: see [`ResponseView::origin`].
    fn on_response(&mut self, cx: &mut Cx<'_, Self>, response: &ResponseView) -> Outcome {
        let _ = response;
        cx.note_default()
    }

    /// The next piece of the response body.
    fn on_response_chunk(&mut self, cx: &mut Cx<'_, Self>, chunk: Chunk<'_>) -> Outcome {
        let _ = chunk;
        cx.note_default()
    }

    /// What a hook that returned [`Verdict::Suspend`] has waited for. Its verdict continues the chain in the place of that hook's.
    fn on_event(&mut self, cx: &mut Cx<'_, Self>, event: Event<'_>) -> Outcome {
        let _ = event;
        cx.note_default()
    }

    /// The exchange is over, whatever its end.
    fn on_done(&mut self, cx: &mut Cx<'_, Self>, done: Done) {
        let _ = done;
        let _ = cx.note_default();
    }

    /// About once a second on every worker.
    fn on_tick(&mut self, cx: &mut CoreCx<'_>) {
        let _ = cx.note_default();
    }
}
