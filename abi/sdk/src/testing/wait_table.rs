//! The table "ringway.wait/1" of the test host.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ringway_abi::raw::{self, RawCx};
use ringway_abi::wait::Wait;

use super::table::with;

pub(super) static WAIT: Wait = Wait { size: size_of::<Wait>() as u32, reserved: 0, timer, wake };

/// Wakes by request, from whatever thread.
static WAKES: Mutex<BTreeMap<u64, Vec<u64>>> = Mutex::new(BTreeMap::new());

/// Whether a hook may wait.
pub(super) fn may_wait(hook: u32) -> bool {
    hook & (raw::HOOK_REQUEST | raw::HOOK_REQUEST_BODY | raw::HOOK_RESPONSE | raw::HOOK_EVENT) != 0
}

/// The wakes of a request that nobody has taken.
pub(super) fn take_wakes(request_id: u64) -> Vec<u64> {
    WAKES.lock().unwrap_or_else(PoisonError::into_inner).remove(&request_id).unwrap_or_default()
}

unsafe extern "C" fn timer(cx: *mut RawCx, delay_ns: u64, token: u64) -> i32 {
    let run = |call: &mut super::table::Call| {
        call.need(raw::WANT_SUSPEND, raw::HOOK_REQUEST | raw::HOOK_REQUEST_BODY | raw::HOOK_RESPONSE)?;
        call.timer = Some((Duration::from_nanos(delay_ns), token));
        Ok(0)
    };
    // SAFETY: the contract: `cx` belongs to the running hook.
    unsafe { with(cx, "timer", run) }
}

unsafe extern "C" fn wake(request_id: u64, _: u32, token: u64) -> i32 {
    WAKES.lock().unwrap_or_else(PoisonError::into_inner).entry(request_id).or_default().push(token);
    raw::OK
}
