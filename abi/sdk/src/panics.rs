//! Nothing unwinds over the edge: every entry point runs inside [`catch`].
//!
//! Noise: a cdylib has its own copy of `std`, so its panic hook is its own too. [`quiet_hook`] replaces it once, in
//! `load`: on the gateway's threads it only remembers where the panic happened (the line that the gateway logs holds
//! it), on threads that the plugin started itself the default hook prints as usual. A test binary shares one `std` with
//! the test harness, so there the hook stays untouched.
//!
//! Invariant: the thread-locals have no destructor, so that they do not keep the library mapped after `dlclose`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::line::Line;

/// Runs `entry`; a panic becomes the line to log.
///
/// The plugin's fields stay as the panic left them. That is sound, because nothing here depends on them; a plugin whose
/// invariants do not survive a panic must check them itself.
#[inline]
pub(crate) fn catch<R>(entry: impl FnOnce() -> R) -> Result<R, Box<Line>> {
    match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(value) => Ok(value),
        Err(payload) => Err(describe(payload)),
    }
}

#[cold]
fn describe(payload: Box<dyn Any + Send>) -> Box<Line> {
    let mut line = Box::new(Line::new());
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "a value that is not text",
    };
    let _ = WHERE.try_with(|place| match place.take() {
        Some(place) => write!(line, "panicked at {}:{}: {message}", place.file(), place.line),
        None => write!(line, "panicked: {message}"),
    });
    // The payload's destructor may panic as well. What that second panic carries is leaked: a third one could follow.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    line
}

/// Marks the current thread as one of the gateway's until the matching [`leave_gateway_thread`].
pub(crate) fn enter_gateway_thread() {
    let _ = GATEWAY_DEPTH.try_with(|depth| depth.set(depth.get() + 1));
}

/// See [`enter_gateway_thread`].
pub(crate) fn leave_gateway_thread() {
    let _ = GATEWAY_DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
}

/// Installs the hook that keeps standard error quiet; once per copy of this library.
pub(crate) fn quiet_hook() {
    static INSTALLED: Once = Once::new();
    if SHARED_STD.load(Ordering::Relaxed) {
        return;
    }
    INSTALLED.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GATEWAY_DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                return default(info);
            }
            if let Some(location) = info.location() {
                let _ = WHERE.try_with(|place| place.replace(Some(Place::new(location.file(), location.line()))));
            }
        }));
    });
}

/// Tells [`quiet_hook`] that this process has one `std` for the plugin and for its host.
#[cfg(feature = "testing")]
pub(crate) fn keep_default_hook() {
    SHARED_STD.store(true, Ordering::Relaxed);
}

static SHARED_STD: AtomicBool = AtomicBool::new(false);

thread_local! {
    static GATEWAY_DEPTH: Cell<u32> = const { Cell::new(0) };
    static WHERE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Where a panic happened: the last bytes of the file name, and the line.
struct Place {
    file: [u8; FILE_BYTES_MAX],
    filled: usize,
    line: u32,
}

const FILE_BYTES_MAX: usize = 96;

impl Place {
    fn new(file: &str, line: u32) -> Self {
        let mut from = file.len().saturating_sub(FILE_BYTES_MAX);
        while !file.is_char_boundary(from) {
            from += 1;
        }
        let tail = &file.as_bytes()[from..];
        let mut place = Place { file: [0; FILE_BYTES_MAX], filled: tail.len(), line };
        place.file[..tail.len()].copy_from_slice(tail);
        place
    }

    fn file(&self) -> &str {
        std::str::from_utf8(&self.file[..self.filled]).unwrap_or("?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_panics_when_dropped_is_survived() {
        struct Grenade;
        impl Drop for Grenade {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let line = catch(|| std::panic::panic_any(Grenade)).map_err(|l| l.bytes().to_vec());
        assert_eq!(line, Err(b"panicked: a value that is not text".to_vec()));
    }

    #[test]
    fn a_long_file_name_keeps_its_end() {
        let place = Place::new(&format!("{}/plugin.rs", "é".repeat(100)), 7);
        assert!(place.file().ends_with("/plugin.rs"));
    }
}
