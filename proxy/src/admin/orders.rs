//! Changes in the order in which they were asked for, one at a time. One that needs names looked up waits for them here, and those behind
//! it wait too, while the main thread goes on: signals are answered, and a drain that begins meanwhile refuses all of them.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use serde_json::Value;

use super::board::Board;
use super::control::{Awaited, Change, Control, Order, Refusal};
use crate::worker::crew::Crew;

/// The changes that are to be made.
#[derive(Default)]
pub struct Orders {
    /// As many as the admin listener has connections, and one from signals between two of them.
    queue: VecDeque<Order>,
    /// What the first of them waits for.
    awaited: Option<Awaited>,
    /// Those that were made, and what came of it.
    made: Vec<(Order, Result<Value, Refusal>)>,
}

impl Orders {
    /// One more.
    pub fn push(&mut self, order: Order) {
        self.queue.push_back(order);
    }

    /// A signal asks for the configuration to be read again. Nobody is told what came of it; the log is.
    pub fn reload(&mut self) {
        let read = usize::from(self.awaited.is_some());
        // The last one will read what there is by then.
        if self.queue.len() <= read || self.queue.back().is_none_or(|last| last.change != Change::Reload) {
            self.push(Order { change: Change::Reload, reply: mpsc::channel().0 });
        }
    }

    /// Whether one of them waits for names.
    pub fn is_waiting(&self) -> bool {
        self.awaited.is_some()
    }

    /// Whether all of them have been made and answered.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.made.is_empty()
    }

    /// Makes those that need not wait. They are answered by [`Orders::answer`].
    pub fn proceed(&mut self, control: &mut Control, crew: &Crew, board: &Board) {
        while let Some(order) = self.queue.pop_front() {
            let is_draining = board.draining.load(Ordering::Relaxed);
            let awaited = self.awaited.take().or_else(|| if is_draining { None } else { control.prepare(&order.change) });
            if let Some(waits) = awaited.as_ref().filter(|_| !is_draining)
                && !control.is_ready(waits)
            {
                self.awaited = awaited;
                self.queue.push_front(order);
                return;
            }
            let outcome = control.apply(&order.change, awaited, crew, board);
            self.made.push((order, outcome));
        }
    }

    /// Tells those who asked: once what has changed is known to whoever starts the next process, so that nothing that was answered is lost
    /// when this one dies.
    pub fn answer(&mut self) {
        for (order, outcome) in self.made.drain(..) {
            // Whoever asked may have gone; the log has it.
            let _ = order.reply.send(outcome);
        }
    }
}
