//! Copies of exchanges for an operator: what of them a worker takes, and when it hands that over.
//!
//! Owns: [`Capture`], which all workers share, and the memory that one worker copies to. It was made before the capture began and never
//! grows: an exchange that does not fit is skipped and counted. Must not: wait, write files, or cost anything but a look while nobody captures.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use crate::clock;
use crate::plugin::frame::Frame;
use crate::view::record;

/// What is to be captured.
#[derive(Debug)]
pub struct Capture {
    /// Only exchanges of the route with this name.
    route: Option<String>,
    /// Exchanges that are still wanted.
    left: AtomicU32,
    /// When the workers hand over what they have (monotonic ms).
    deadline_ms: u64,
    ended: AtomicBool,
}

impl Capture {
    /// So many exchanges, of one route or of all, until a time (monotonic ms).
    pub fn new(route: Option<String>, exchanges: u32, deadline_ms: u64) -> Capture {
        Capture { route, left: AtomicU32::new(exchanges), deadline_ms, ended: AtomicBool::new(false) }
    }

    /// Nobody waits for it any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether one more was wanted; it counts as taken then.
    fn claim(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0 || self.ended.load(Ordering::Relaxed) || clock::monotonic_ms() >= self.deadline_ms
    }
}

/// What one worker has copied.
#[derive(Debug, Default)]
pub struct Taken {
    /// For each exchange a record of its request, `u32` 1 or 0, and with 1 a record of its response.
    pub bytes: Vec<u8>,
    /// Exchanges in it.
    pub count: u32,
    /// Exchanges that found no room.
    pub skipped: u32,
}

impl Taken {
    /// Nothing yet, and room for so many bytes.
    pub fn with_room(bytes: usize) -> Taken {
        Taken { bytes: Vec::with_capacity(bytes), ..Taken::default() }
    }

    /// Whether there was room. The last word on whether it counts has `claim`.
    fn take(&mut self, frame: &mut Frame, claim: impl FnOnce() -> bool) {
        let before = self.bytes.len();
        let mut fits = record::copy(frame.request_mut(), &mut self.bytes) && self.mark(frame.response().is_some());
        if let Some(response) = frame.response_mut().filter(|_| fits) {
            fits = record::copy(response, &mut self.bytes);
        }
        match fits {
            true if claim() => self.count += 1,
            true => self.bytes.truncate(before),
            false => {
                self.bytes.truncate(before);
                self.skipped += 1;
            }
        }
    }

    fn mark(&mut self, response: bool) -> bool {
        let has_room = self.bytes.capacity() - self.bytes.len() >= 4;
        if has_room {
            self.bytes.extend_from_slice(&u32::from(response).to_le_bytes());
        }
        has_room
    }
}

/// A worker's part of a capture.
pub struct Taking {
    /// What all share.
    pub capture: Arc<Capture>,
    /// What it has so far.
    pub taken: Taken,
    /// Where that goes in the end.
    pub to: mpsc::Sender<Taken>,
}

/// The capture of one worker, if there is one.
#[derive(Default)]
pub struct Captures {
    on: Cell<bool>,
    taking: RefCell<Option<Box<Taking>>>,
}

impl Captures {
    /// Whether anything is to be taken: the only question that every exchange asks.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Begins; what another one had taken is lost.
    pub fn begin(&self, taking: Box<Taking>) {
        self.taking.replace(Some(taking));
        self.on.set(true);
    }

    /// Takes the exchange of `frame`, which is about to end, if it is of a wanted route.
    #[cold]
    pub fn take(&self, route: Option<&str>, frame: &mut Frame) {
        if let Some(taking) = self.taking.borrow_mut().as_mut()
            && taking.capture.route.as_deref().is_none_or(|wanted| route == Some(wanted))
        {
            let Taking { capture, taken, .. } = &mut **taking;
            taken.take(frame, || capture.claim());
        }
    }

    /// Hands over what was taken when the capture is over. Called with every tick.
    pub fn settle(&self) {
        if self.is_on() && self.taking.borrow().as_ref().is_none_or(|taking| taking.capture.is_over()) {
            self.on.set(false);
            if let Some(Taking { taken, to, .. }) = self.taking.take().map(|taking| *taking) {
                // Whoever asked may have gone.
                let _ = to.send(taken);
            }
        }
    }
}
