//! Waiting without blocking: timers and wakes from other threads.

use std::fmt;
use std::ptr::NonNull;
use std::time::Duration;

use ringway_abi::raw::OK as OK_STATUS;
use ringway_abi::view::ResponseView;
use ringway_abi::{outcall, raw, wait};

use crate::cx::Cx;
use crate::error::HostError;
use crate::outcall::NoReply;
use crate::plugin::{Outcome, Plugin, Verdict};

/// What a plugin waits with; [`Loader::wait`](crate::Loader::wait) gives it. Needs `wants: [SUSPEND]` and the hook `on_event`.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use ringway_sdk::prelude::*;
/// struct Slow { wait: Wait }
/// impl Plugin for Slow {
///     type Shared = Wait;
/// #   type Scratch = ();
///     fn load(loader: &mut Loader<'_>, _: &[u8]) -> Result<Wait, Fault> { Ok(loader.wait()?) }
///     fn core_init(shared: &Arc<Wait>, _: u32) -> Result<Self, Fault> { Ok(Slow { wait: **shared }) }
///
///     fn on_request(&mut self, cx: &mut Cx<'_, Self>, _: &RequestView) -> Outcome {
///         self.wait.timer(cx, Duration::from_millis(10), 0)
///     }
///
///     fn on_event(&mut self, _: &mut Cx<'_, Self>, _: Event<'_>) -> Outcome {
///         Ok(Verdict::Continue)
///     }
/// }
/// ```
///
/// What [`Cx`] gives ends with the hook; what `on_event` needs goes into the scratch, or through [`Cx::keep`].
#[derive(Debug, Clone, Copy)]
pub struct Wait(NonNull<wait::Wait>);

// SAFETY: the table is constant and lives as long as the process; `wake` may be called from any thread, the other functions need a `Cx`.
unsafe impl Send for Wait {}
// SAFETY: as above.
unsafe impl Sync for Wait {}

impl Wait {
    /// # Safety
    /// `table` is the gateway's table of this extension.
    pub(crate) unsafe fn new(table: NonNull<wait::Wait>) -> Self {
        Wait(table)
    }

    fn table(&self) -> &'static wait::Wait {
        // SAFETY: `new`'s caller promised a table that lives as long as the process.
        unsafe { &*self.0.as_ptr() }
    }

    /// Waits for so long, exact to a millisecond: [`Event::Timer`] with this token. Replaces a timer that this exchange still waits for. The verdict to return.
    pub fn timer<P: Plugin>(&self, cx: &Cx<'_, P>, delay: Duration, token: u64) -> Outcome {
        self.arm(cx, delay, token)?;
        Ok(Verdict::Suspend)
    }

    /// The same for a hook that waits for something else too, such as an [`Upstream`](crate::Upstream).
    pub fn arm<P: Plugin>(&self, cx: &Cx<'_, P>, delay: Duration, token: u64) -> Result<(), HostError> {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the `rw_cx` of the running hook.
        HostError::check(unsafe { (self.table().timer)(cx.raw(), delay_ns, token) })?;
        Ok(())
    }

    /// Wakes this link of this exchange from any thread, while it waits; a hook that returns [`Verdict::Suspend`] without a timer waits for this alone.
    pub fn waker<P: Plugin>(&self, cx: &Cx<'_, P>) -> Waker {
        Waker { wait: *self, request_id: cx.request().request_id(), link: cx.link() }
    }
}

/// Wakes one exchange; see [`Wait::waker`]. Threads that hold one must end before the plugin's `Shared` is dropped.
#[derive(Debug, Clone, Copy)]
pub struct Waker {
    wait: Wait,
    request_id: u64,
    link: u32,
}

impl Waker {
    /// One [`Event::Wake`] with this token. Nothing happens when the link does not wait any more. [`HostError::NoSpace`]: too many wakes are on their way, try
    /// again later.
    pub fn wake(&self, token: u64) -> Result<(), HostError> {
        // SAFETY: `wake` may be called from any thread, with any numbers.
        HostError::check(unsafe { (self.wait.table().wake)(self.request_id, self.link, token) })?;
        Ok(())
    }
}

/// What a hook has waited for.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'h> {
    /// The timer with this token.
    Timer(u64),
    /// A wake with this token.
    Wake(u64),
    /// The time that the route allows is over: decide now.
    Timeout,
    /// The end of the outcall with this token; see [`Upstream`](crate::Upstream).
    Reply {
        /// What the plugin gave to `send`.
        token: u64,
        /// The reply. Its body is whole when `flags` has [`RES_BODY_COMPLETE`](crate::view::RES_BODY_COMPLETE).
        reply: Result<&'h ResponseView, NoReply>,
    },
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Timer(token) => write!(f, "Timer({token})"),
            Event::Wake(token) => write!(f, "Wake({token})"),
            Event::Timeout => f.write_str("Timeout"),
            Event::Reply { token, reply } => write!(f, "Reply({token}, {:?})", reply.map(ResponseView::status)),
        }
    }
}

impl<'h> Event<'h> {
    /// `None` for a kind that a later version of the ABI added.
    ///
    /// # Safety
    /// What `raw` shows lives for `'h`.
    pub(crate) unsafe fn of(raw: &'h raw::RawEvent) -> Option<Event<'h>> {
        Some(match raw.kind {
            wait::EVENT_TIMER => Event::Timer(raw.token),
            wait::EVENT_WAKE => Event::Wake(raw.token),
            wait::EVENT_TIMEOUT => Event::Timeout,
            outcall::EVENT_REPLY => {
                // SAFETY: null, or the view of a reply, which lives for `'h` (the caller's promise).
                let reply = unsafe { raw.response.as_ref() };
                Event::Reply { token: raw.token, reply: reply.filter(|_| raw.status == OK_STATUS).ok_or(NoReply::of(raw.status)) }
            }
            _ => return None,
        })
    }
}
