//! The exchanges of one worker that wait for an event: when each is due, and what has woken it.
//!
//! Owns: the places of waiting exchanges, the order in which they are due, the wakes that came for them. Must not: read clocks, know threads or the
//! runtime. The worker gives it an alarm, a clock that rings once, and calls [`Waits::fire`] when it has rung.
//!
//! Times are whole milliseconds of the monotonic clock. All who are due in the same millisecond share one ring of the alarm, so that a thousand timers of
//! ten milliseconds ring at most a thousand times a second.
//!
//! Invariants: `heap[entries[place].heap_at] == place` for every place with a due time; a place is taken exactly while its [`Place`] lives; after warm-up
//! nothing is allocated.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Wakes that one exchange keeps while it does not come to take them; further ones count as stale.
pub const WAKES_KEPT_MAX: usize = 16;

const NEVER: u64 = u64::MAX;
const NOT_IN_HEAP: u32 = u32::MAX;

/// What has happened to a waiting exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The time that [`Place::set_due`] named has come.
    Due,
    /// A wake with this token.
    Wake(u64),
}

/// Rings at this time, unless it is told another one.
type Alarm = Box<dyn Fn(u64)>;

/// See the module.
#[derive(Default)]
pub struct Waits {
    table: RefCell<Table>,
    alarm: RefCell<Option<Alarm>>,
    /// Outcalls that are put together or under way.
    outcalls: Cell<usize>,
}

struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Places by due time: a binary heap.
    heap: Vec<u32>,
    by_request: HashMap<u64, u32>,
    /// When the alarm rings; `u64::MAX` when it does not.
    armed_ms: u64,
}

impl Default for Table {
    fn default() -> Self {
        Table { entries: Vec::new(), free: Vec::new(), heap: Vec::new(), by_request: HashMap::new(), armed_ms: NEVER }
    }
}

struct Entry {
    request_id: u64,
    link: u32,
    due_ms: u64,
    heap_at: u32,
    is_due: bool,
    wakes: VecDeque<u64>,
    waker: Option<Waker>,
}

/// One waiting exchange. Dropping it ends the wait.
pub struct Place {
    waits: Rc<Waits>,
    at: u32,
}

impl Waits {
    /// The clock that [`Waits::fire`] follows.
    pub fn set_alarm(&self, alarm: Alarm) {
        *self.alarm.borrow_mut() = Some(alarm);
    }

    /// Exchanges that wait.
    pub fn count(&self) -> usize {
        let table = self.table.borrow();
        table.entries.len() - table.free.len()
    }

    /// Outcalls that are put together or under way.
    pub fn outcalls(&self) -> usize {
        self.outcalls.get()
    }

    /// The right to one more outcall, while there are fewer than `most`.
    pub(super) fn try_outcall(self: &Rc<Waits>, most: usize) -> Option<OutcallPermit> {
        if self.outcalls.get() >= most {
            return None;
        }
        self.outcalls.set(self.outcalls.get() + 1);
        Some(OutcallPermit(Rc::clone(self)))
    }

    /// An exchange begins to wait at this link.
    pub fn enter(self: &Rc<Waits>, request_id: u64, link: u32) -> Place {
        let mut table = self.table.borrow_mut();
        let at = table.free.pop().unwrap_or_else(|| {
            table.entries.push(Entry { request_id, link, due_ms: NEVER, heap_at: NOT_IN_HEAP, is_due: false, wakes: VecDeque::new(), waker: None });
            table.entries.len() as u32 - 1
        });
        let entry = &mut table.entries[at as usize];
        (entry.request_id, entry.link) = (request_id, link);
        table.by_request.insert(request_id, at);
        Place { waits: Rc::clone(self), at }
    }

    /// A wake for this link of this exchange; false when it does not wait there any more.
    pub fn wake(&self, request_id: u64, link: u32, token: u64) -> bool {
        let mut table = self.table.borrow_mut();
        let Some(at) = table.by_request.get(&request_id).copied() else { return false };
        let entry = &mut table.entries[at as usize];
        if entry.link != link || entry.wakes.len() == WAKES_KEPT_MAX {
            return false;
        }
        entry.wakes.push_back(token);
        if let Some(waker) = entry.waker.take() {
            waker.wake();
        }
        true
    }

    /// Wakes the task of an exchange, so that it looks at what else has happened.
    pub fn rouse(&self, request_id: u64) {
        let mut table = self.table.borrow_mut();
        if let Some(at) = table.by_request.get(&request_id).copied()
            && let Some(waker) = table.entries[at as usize].waker.take()
        {
            waker.wake();
        }
    }

    /// The alarm has rung, or might have: whoever is due by `now_ms` is woken, and the alarm is set for the next.
    pub fn fire(&self, now_ms: u64) {
        let mut table = self.table.borrow_mut();
        table.armed_ms = NEVER;
        while let Some(first) = table.heap.first().copied() {
            if table.entries[first as usize].due_ms > now_ms {
                break;
            }
            table.leave_heap(first);
            let entry = &mut table.entries[first as usize];
            entry.is_due = true;
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
        self.arm(&mut table);
    }

    /// The alarm rings when the first is due.
    fn arm(&self, table: &mut Table) {
        let Some(first) = table.heap.first() else { return };
        let due_ms = table.entries[*first as usize].due_ms;
        if due_ms < table.armed_ms {
            table.armed_ms = due_ms;
            if let Some(alarm) = self.alarm.borrow().as_ref() {
                alarm(due_ms);
            }
        }
    }
}

/// The right to one outcall. Dropping it gives it back.
pub(super) struct OutcallPermit(Rc<Waits>);

impl Drop for OutcallPermit {
    fn drop(&mut self) {
        self.0.outcalls.set(self.0.outcalls.get() - 1);
    }
}

impl Place {
    /// The exchange waits at another link from here on. Wakes for the one before are forgotten.
    pub fn move_to(&self, link: u32) {
        let mut table = self.waits.table.borrow_mut();
        let entry = &mut table.entries[self.at as usize];
        entry.link = link;
        entry.wakes.clear();
    }

    /// When [`Woken::Due`] comes; `u64::MAX` for never. Replaces the time before.
    pub fn set_due(&self, due_ms: u64) {
        let mut table = self.waits.table.borrow_mut();
        let table = &mut *table;
        table.entries[self.at as usize].is_due = false;
        if table.entries[self.at as usize].due_ms == due_ms && table.entries[self.at as usize].heap_at != NOT_IN_HEAP {
            return;
        }
        table.leave_heap(self.at);
        if due_ms != NEVER {
            table.enter_heap(self.at, due_ms);
            self.waits.arm(table);
        }
    }

    /// What has happened since the last look. `None`: nothing, and the task is woken when something does.
    pub fn poll(&self, cx: &mut Context<'_>) -> Option<Woken> {
        let mut table = self.waits.table.borrow_mut();
        let entry = &mut table.entries[self.at as usize];
        if let Some(token) = entry.wakes.pop_front() {
            return Some(Woken::Wake(token));
        }
        if std::mem::take(&mut entry.is_due) {
            return Some(Woken::Due);
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.waits.table.borrow_mut();
        table.leave_heap(self.at);
        let entry = &mut table.entries[self.at as usize];
        entry.is_due = false;
        entry.wakes.clear();
        entry.waker = None;
        let request_id = entry.request_id;
        table.by_request.remove(&request_id);
        table.free.push(self.at);
    }
}

impl Table {
    fn due_of(&self, heap_at: usize) -> u64 {
        self.entries[self.heap[heap_at] as usize].due_ms
    }

    fn put(&mut self, heap_at: usize, place: u32) {
        self.heap[heap_at] = place;
        self.entries[place as usize].heap_at = heap_at as u32;
    }

    fn enter_heap(&mut self, place: u32, due_ms: u64) {
        self.entries[place as usize].due_ms = due_ms;
        self.heap.push(place);
        self.rise(self.heap.len() - 1);
    }

    fn leave_heap(&mut self, place: u32) {
        let at = std::mem::replace(&mut self.entries[place as usize].heap_at, NOT_IN_HEAP);
        if at == NOT_IN_HEAP {
            return;
        }
        let Some(last) = self.heap.pop() else { return };
        if last != place {
            // The last one takes the place that became free, and goes up or down from there.
            self.put(at as usize, last);
            self.rise(at as usize);
            self.sink(self.entries[last as usize].heap_at as usize);
        }
    }

    fn rise(&mut self, mut at: usize) {
        let place = self.heap[at];
        let due_ms = self.entries[place as usize].due_ms;
        while at > 0 && self.due_of((at - 1) / 2) > due_ms {
            self.put(at, self.heap[(at - 1) / 2]);
            at = (at - 1) / 2;
        }
        self.put(at, place);
    }

    fn sink(&mut self, mut at: usize) {
        let place = self.heap[at];
        let due_ms = self.entries[place as usize].due_ms;
        loop {
            let mut child = 2 * at + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.due_of(child + 1) < self.due_of(child) {
                child += 1;
            }
            if self.due_of(child) >= due_ms {
                break;
            }
            self.put(at, self.heap[child]);
            at = child;
        }
        self.put(at, place);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn poll(place: &Place) -> Option<Woken> {
        place.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Waits whose alarm notes when it rings.
    fn waits() -> (Rc<Waits>, Rc<Cell<u64>>) {
        let (waits, rings) = (Rc::new(Waits::default()), Rc::new(Cell::new(NEVER)));
        let told = Rc::clone(&rings);
        waits.set_alarm(Box::new(move |ms| told.set(ms)));
        (waits, rings)
    }

    #[test]
    fn whoever_is_due_is_woken_once_and_the_alarm_follows_the_earliest() {
        let (waits, rings) = waits();
        let (late, early) = (waits.enter(1, 0), waits.enter(2, 0));
        late.set_due(50);
        assert_eq!(rings.get(), 50);
        early.set_due(20);
        assert_eq!(rings.get(), 20);
        waits.fire(19);
        assert_eq!((poll(&early), poll(&late), rings.get()), (None, None, 20));
        waits.fire(20);
        assert_eq!((poll(&early), poll(&early), poll(&late), rings.get()), (Some(Woken::Due), None, None, 50));
        early.set_due(60);
        drop(late);
        waits.fire(55);
        assert_eq!((poll(&early), rings.get()), (None, 60));
        early.set_due(NEVER);
        waits.fire(100);
        assert_eq!((poll(&early), waits.count()), (None, 1));
    }

    #[test]
    fn a_wake_finds_the_link_that_waits_and_nobody_else() {
        let (waits, _) = waits();
        let place = waits.enter(7, 3);
        assert!(!waits.wake(8, 3, 1) && !waits.wake(7, 2, 1) && waits.wake(7, 3, 1) && waits.wake(7, 3, 2));
        assert_eq!((poll(&place), poll(&place), poll(&place)), (Some(Woken::Wake(1)), Some(Woken::Wake(2)), None));
        assert!(waits.wake(7, 3, 3));
        place.move_to(4);
        assert_eq!(poll(&place), None);
        assert!(!waits.wake(7, 3, 4));
        let kept = (0..100).filter(|token| waits.wake(7, 4, *token)).count();
        assert_eq!(kept, WAKES_KEPT_MAX);
        drop(place);
        assert!(!waits.wake(7, 4, 5));
        assert_eq!(poll(&waits.enter(7, 4)), None, "a place begins without the wakes of the last");
    }

    /// The heap against a sorted list, with places that come, move and go.
    #[test]
    fn the_order_of_due_times_is_that_of_a_sorted_list() {
        let mut random = fastrand::Rng::with_seed(7);
        let (waits, rings) = waits();
        let mut places: Vec<(Place, u64)> = Vec::new();
        let mut now = 0;
        for step in 0..20_000 {
            match random.u32(0..4) {
                0 | 1 if places.len() < 200 => {
                    let (place, due) = (waits.enter(step, 0), now + random.u64(1..500));
                    place.set_due(due);
                    places.push((place, due));
                }
                2 if !places.is_empty() => drop(places.swap_remove(random.usize(0..places.len()))),
                3 if !places.is_empty() => {
                    let at = random.usize(0..places.len());
                    places[at].1 = now + random.u64(1..500);
                    places[at].0.set_due(places[at].1);
                }
                _ => {
                    now += random.u64(0..20);
                    waits.fire(now);
                    places.retain(|(place, due)| {
                        assert_eq!(poll(place).is_some(), *due <= now, "due {due}, now {now}");
                        *due > now
                    });
                }
            }
            let first = places.iter().map(|(_, due)| *due).min();
            assert!(first.is_none_or(|first| rings.get() <= first), "the alarm rings before {first:?}");
        }
    }
}
