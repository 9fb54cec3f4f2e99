//! Waiting without blocking: timers and wakes from other threads.

use std::ptr::NonNull;
use std::time::Duration;

use ringway_abi::{raw, wait};

use crate::cx::Cx;
use crate::error::HostError;
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
///     fn on_event(&mut self, _: &mut Cx<'_, Self>, _: Event) -> Outcome {
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
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the `rw_cx` of the running hook.
        HostError::check(unsafe { (self.table().timer)(cx.raw(), delay_ns, token) })?;
        Ok(Verdict::Suspend)
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The timer with this token.
    Timer(u64),
    /// A wake with this token.
    Wake(u64),
    /// The time that the route allows is over: decide now.
    Timeout,
}

impl Event {
    /// `None` for a kind that a later version of the ABI added.
    pub(crate) fn of(raw: &raw::RawEvent) -> Option<Event> {
        Some(match raw.kind {
            wait::EVENT_TIMER => Event::Timer(raw.token),
            wait::EVENT_WAKE => Event::Wake(raw.token),
            wait::EVENT_TIMEOUT => Event::Timeout,
            _ => return None,
        })
    }
}
