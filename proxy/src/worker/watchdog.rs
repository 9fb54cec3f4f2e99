//! The watchdog: a thread that sees hooks which hold their worker for too long.
//!
//! Owns: what is known of each worker's running hook, the counts, the log lines, and the end of a process whose worker does not come back. It
//! looks at the word that every worker keeps of its running hook ([`crate::plugin::running`]), so that a hook pays nothing for it. The
//! same frame in two looks need not be the same call; the worker itself says which call it is, when it is asked ([`probe`]), and
//! only who is seen twice is asked. Must not: touch what a worker owns, or log what it is not sure of.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use object::{Object as _, ObjectSymbol as _, SymbolKind};

use super::probe::{self, Answer, Call};
use crate::limits::{Timeouts, duration};
use crate::plugin::running::{self, Glance};

/// It looks so many times within the shorter of the two bounds.
const LOOKS: u64 = 4;
/// Milliseconds between two looks at least, and at most.
const LOOK_MS: (u64, u64) = (5, 50);
/// While both bounds are off.
const REST: Duration = Duration::from_secs(1);
/// Between two log lines about one plugin.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// How long a thread may take to die of the signal that is to end the process.
const END_GRACE: Duration = Duration::from_secs(2);
/// Bytes of an object file that is read for the names of its functions.
const OBJECT_BYTES_MAX: u64 = 64 << 20;
/// Characters of a function's name in a log line, and of a file's: that of a plugin's private copy is its hash.
const FUNCTION_CHARS: usize = 80;
const FILE_CHARS: usize = 20;

/// Why this process is about to be ended; 0: it is not.
static ENDED_AFTER_MS: AtomicU64 = AtomicU64::new(0);

/// For how long the hook has run for which this process is being ended. For the handler of fatal signals.
pub fn ended_after_ms() -> Option<u64> {
    Some(ENDED_AFTER_MS.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
}

/// What others tell the watchdog, and what it has counted.
#[derive(Debug, Default)]
pub struct Watchdog {
    budget_ms: AtomicU32,
    limit_ms: AtomicU32,
    /// Somebody starts the process again.
    ends: AtomicBool,
    /// Calls over the budget, by plugin.
    over_budget: Mutex<BTreeMap<String, u64>>,
}

impl Watchdog {
    /// Starts the thread, which ends with the last reference. Until [`Watchdog::heed`] says otherwise it ends no process.
    ///
    /// # Errors
    /// When there is no thread, or no signal.
    pub fn start(timeouts: &Timeouts) -> io::Result<Arc<Watchdog>> {
        probe::install()?;
        let watchdog = Arc::new(Watchdog::default());
        watchdog.heed(timeouts, false);
        let theirs = Arc::downgrade(&watchdog);
        thread::Builder::new().name("watchdog".into()).spawn(move || Round::default().run(&theirs))?;
        Ok(watchdog)
    }

    /// The bounds in force; `ends`: the process is started again when it is ended.
    pub fn heed(&self, timeouts: &Timeouts, ends: bool) {
        self.budget_ms.store(timeouts.hook_budget, Ordering::Relaxed);
        self.limit_ms.store(timeouts.hook_limit, Ordering::Relaxed);
        self.ends.store(ends, Ordering::Relaxed);
    }

    /// Calls over the budget, by plugin.
    pub fn over_budget(&self) -> BTreeMap<String, u64> {
        self.over_budget.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn bounds(&self) -> Bounds {
        let bound = |ms: &AtomicU32| Some(u64::from(ms.load(Ordering::Relaxed))).filter(|ms| *ms > 0);
        Bounds { budget_ms: bound(&self.budget_ms), limit_ms: bound(&self.limit_ms) }
    }
}

/// In milliseconds; `None`: off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    budget_ms: Option<u64>,
    limit_ms: Option<u64>,
}

impl Bounds {
    fn least_ms(&self) -> Option<u64> {
        self.budget_ms.into_iter().chain(self.limit_ms).min()
    }

    /// How long until the next look.
    fn look(&self) -> Duration {
        self.least_ms().map_or(REST, |ms| Duration::from_millis((ms / LOOKS).clamp(LOOK_MS.0, LOOK_MS.1)))
    }
}

/// What is known of the hook that runs on one worker.
#[derive(Debug, Default)]
struct Case {
    frame: usize,
    /// Since it is known, and for how long it has run since then.
    call: Option<Call>,
    ran_ms: u64,
    /// When it last said that it is still that call.
    asked_ms: u64,
    logged: bool,
    ended: bool,
}

/// What is to be done about a hook.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    OverBudget(Answer, u64),
    OverLimit(Answer, u64),
}

impl Case {
    /// One look, so many milliseconds after the last one.
    fn look(&mut self, frame: usize, passed_ms: u64, bounds: Bounds, ask: impl FnOnce(bool) -> Option<Answer>) -> Option<Finding> {
        if frame == 0 || frame != self.frame {
            *self = Case { frame, ..Case::default() };
            return None;
        }
        let Some(call) = self.call else {
            self.call = ask(false).map(|answer| answer.call).filter(|call| call.frame == frame);
            return None;
        };
        self.ran_ms += passed_ms;
        let over_limit = !self.ended && bounds.limit_ms.is_some_and(|bound| self.ran_ms >= bound);
        let over_budget = !self.logged && bounds.budget_ms.is_some_and(|bound| self.ran_ms >= bound);
        // Nothing is left to be found about it, but another one may have followed it between two looks.
        let in_doubt = bounds.least_ms().is_some_and(|bound| self.ran_ms - self.asked_ms >= bound);
        if !over_limit && !over_budget && !in_doubt {
            return None;
        }
        let answer = ask(over_limit || over_budget)?;
        if answer.call != call {
            // Another call of the same frame: it is known from now on.
            *self = Case { frame: answer.call.frame, call: Some(answer.call), ..Case::default() };
            return None;
        }
        self.asked_ms = self.ran_ms;
        if over_limit {
            (self.ended, self.logged) = (true, true);
            return Some(Finding::OverLimit(answer, self.ran_ms));
        }
        self.logged |= over_budget;
        over_budget.then_some(Finding::OverBudget(answer, self.ran_ms))
    }
}

/// The thread.
#[derive(Default)]
struct Round {
    /// By thread.
    cases: BTreeMap<i32, Case>,
    /// When a plugin was last written about, and how many calls were left out since.
    logged: BTreeMap<String, (Instant, u64)>,
}

impl Round {
    fn run(&mut self, watchdog: &Weak<Watchdog>) {
        let mut last = Instant::now();
        loop {
            let Some(bounds) = watchdog.upgrade().map(|watchdog| watchdog.bounds()) else { return };
            let pause = bounds.look();
            thread::sleep(pause);
            // Time in which this thread did not run either is nobody's fault: the machine was suspended, or busy with others.
            let passed = last.elapsed().min(2 * pause);
            last = Instant::now();
            let Some(watchdog) = watchdog.upgrade() else { return };
            self.look(&watchdog, bounds, passed.as_millis() as u64);
        }
    }

    fn look(&mut self, watchdog: &Watchdog, bounds: Bounds, passed_ms: u64) {
        let mut seen = BTreeMap::new();
        running::look(|glance| {
            let mut case = self.cases.remove(&glance.thread).unwrap_or_default();
            let finding = case.look(glance.frame, passed_ms, bounds, |stack| probe::ask(glance.thread, stack));
            seen.insert(glance.thread, case);
            match finding {
                Some(Finding::OverBudget(answer, ms)) => self.on_budget(watchdog, glance, &answer, ms),
                Some(Finding::OverLimit(answer, ms)) => on_limit(watchdog, glance, &answer, ms),
                None => {}
            }
        });
        self.cases = seen;
    }

    fn on_budget(&mut self, watchdog: &Watchdog, glance: Glance, answer: &Answer, ms: u64) {
        *watchdog.over_budget.lock().unwrap_or_else(PoisonError::into_inner).entry(answer.plugin.clone()).or_default() += 1;
        let suppressed = match self.logged.entry(answer.plugin.clone()) {
            Entry::Occupied(mut entry) if entry.get().0.elapsed() < LOG_EVERY => {
                entry.get_mut().1 += 1;
                return;
            }
            Entry::Occupied(mut entry) => entry.insert((Instant::now(), 0)).1,
            Entry::Vacant(entry) => entry.insert((Instant::now(), 0)).1,
        };
        let (plugin, hook, stack) = (&answer.plugin, answer.hook, spell(&answer.stack));
        tracing::warn!(plugin, hook, worker = glance.worker, ms, suppressed, stack, "a hook holds its worker: it is over timeouts.hook_budget");
    }
}

fn on_limit(watchdog: &Watchdog, glance: Glance, answer: &Answer, ms: u64) {
    let (plugin, hook, worker, stack) = (&answer.plugin, answer.hook, glance.worker, spell(&answer.stack));
    if !watchdog.ends.load(Ordering::Relaxed) {
        tracing::error!(
            plugin,
            hook,
            worker,
            ms,
            stack,
            "a hook is over timeouts.hook_limit: its worker serves nobody; no supervisor would start the process again"
        );
        return;
    }
    let limit = duration::text(watchdog.limit_ms.load(Ordering::Relaxed));
    tracing::error!(plugin, hook, worker, ms, limit, stack, "a hook is over timeouts.hook_limit: the process is ended");
    ENDED_AFTER_MS.store(ms, Ordering::Relaxed);
    // Its handler runs on the worker's thread, where it finds the plugin, and writes the record.
    probe::send(glance.thread, libc::SIGABRT);
    thread::sleep(END_GRACE);
    // The thread takes no signals. A record without a plugin is better than a worker that serves nobody.
    std::process::abort();
}

/// `file+0xplace (function) < caller < …`, from the innermost to the gateway's code that called the hook.
fn spell(stack: &[usize]) -> String {
    let mut objects = BTreeMap::new();
    let own = probe::object_of(spell as fn(&[usize]) -> String as usize).map(|(_, base)| base);
    let mut words: Vec<String> = Vec::new();
    let mut was_elsewhere = false;
    for (depth, address) in stack.iter().enumerate() {
        let Some((path, base)) = probe::object_of(*address) else {
            words.push(format!("{address:#x}"));
            continue;
        };
        let is_own = Some(base) == own;
        // A return address belongs to the instruction before it.
        let place = (address - base) as u64;
        let functions = objects.entry(path.clone()).or_insert_with(|| if is_own { Functions::default() } else { Functions::read(&path) });
        words.push(format!("{}+{place:#x}{}", file_name(&path), functions.at(place.saturating_sub(u64::from(depth > 0)))));
        if is_own && was_elsewhere {
            break;
        }
        was_elsewhere |= !is_own;
    }
    words.join(" < ")
}

/// Long ones are cut off in the middle of the name: what tells them apart stands in front.
fn file_name(path: &Path) -> String {
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    match name.char_indices().nth(FILE_CHARS) {
        Some((at, _)) if name.len() > 2 * FILE_CHARS => format!("{}….so", &name[..at]),
        _ => name,
    }
}

/// The functions of an object, by address: where it ends, and its name.
#[derive(Debug, Default)]
struct Functions(BTreeMap<u64, (u64, String)>);

impl Functions {
    /// Those of a file; none when it cannot be read, or was stripped of them.
    fn read(path: &PathBuf) -> Functions {
        let is_small = fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.len() <= OBJECT_BYTES_MAX);
        let bytes = if is_small { fs::read(path).unwrap_or_default() } else { Vec::new() };
        let Ok(file) = object::File::parse(&*bytes) else { return Functions::default() };
        let symbols = file.dynamic_symbols().chain(file.symbols()).filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
        Functions(symbols.filter_map(|symbol| Some((symbol.address(), (symbol.address() + symbol.size(), symbol.name().ok()?.to_owned())))).collect())
    }

    /// ` (name)` of the function that a place lies in.
    fn at(&self, place: u64) -> String {
        let function = self.0.range(..=place).next_back().filter(|(_, (end, _))| place < *end);
        function.map_or_else(String::new, |(_, (_, name))| format!(" ({})", name.chars().take(FUNCTION_CHARS).collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { budget_ms: Some(50), limit_ms: Some(200) };
    const FRAME: usize = 0x1000;

    fn answer(calls: u64) -> Option<Answer> {
        Some(Answer { call: Call { frame: FRAME, link: 0, calls }, plugin: "p".into(), hook: "on_request", stack: vec![] })
    }

    /// Looks every 10 ms; `calls`: which call the worker says it runs, if it is asked.
    fn look(case: &mut Case, frame: usize, calls: u64) -> Option<Finding> {
        case.look(frame, 10, BOUNDS, |_| answer(calls))
    }

    #[test]
    fn a_call_is_found_over_its_budget_once_and_over_its_limit_once() {
        let mut case = Case::default();
        let found: Vec<(u64, Option<Finding>)> = (0..100).map(|at| (at * 10, look(&mut case, FRAME, 7))).filter(|(_, found)| found.is_some()).collect();
        // The first look finds the frame, the second learns which call it is; then its time runs.
        let expected = [(60, Finding::OverBudget(answer(7).expect("one"), 50)), (210, Finding::OverLimit(answer(7).expect("one"), 200))];
        assert_eq!(found, expected.map(|(at, finding)| (at, Some(finding))));
    }

    #[test]
    fn many_short_calls_of_one_frame_are_not_a_long_one() {
        let mut case = Case::default();
        for calls in 0..10_000 {
            assert_eq!(look(&mut case, FRAME, calls), None);
        }
        // Between them it was idle, or another frame ran.
        for at in 0..10_000 {
            assert_eq!(look(&mut case, [FRAME, FRAME, FRAME, 0][at % 4], 7), None);
            assert_eq!(look(&mut case, [FRAME, 0x2000][at / 3 % 2], 7), None);
        }
    }

    #[test]
    fn a_call_that_follows_a_long_one_is_found_too_when_no_look_fell_between_them() {
        let mut case = Case::default();
        let found: Vec<u64> = (0..100).flat_map(|at| look(&mut case, FRAME, 7 + at / 50).map(|_| at * 10)).collect();
        // The second begins at 500 ms, and is asked for when the budget has passed once more.
        assert_eq!(found, [60, 210, 560, 710]);
    }

    #[test]
    fn who_does_not_answer_is_not_accused() {
        let mut case = Case::default();
        for _ in 0..1000 {
            assert_eq!(case.look(FRAME, 10, BOUNDS, |_| None), None);
        }
        // It answered once, then not any more.
        look(&mut case, FRAME, 7);
        for _ in 0..1000 {
            assert_eq!(case.look(FRAME, 10, BOUNDS, |_| None), None);
        }
        assert!(matches!(look(&mut case, FRAME, 7), Some(Finding::OverLimit(..))));
    }

    #[test]
    fn a_bound_that_is_off_finds_nothing() {
        let run = |bounds| {
            let mut case = Case::default();
            (0..100).filter_map(|_| case.look(FRAME, 10, bounds, |_| answer(7))).count()
        };
        assert_eq!(run(Bounds { budget_ms: None, limit_ms: None }), 0);
        assert_eq!(run(Bounds { limit_ms: None, ..BOUNDS }), 1);
        assert_eq!(run(Bounds { budget_ms: None, ..BOUNDS }), 1);
        let look = |budget_ms, limit_ms| Bounds { budget_ms, limit_ms }.look().as_millis();
        assert_eq!([look(Some(50), Some(5000)), look(None, Some(5000)), look(Some(1), None), look(None, None)], [12, 50, 5, 1000]);
    }

    #[test]
    fn files_and_functions_are_named_as_far_as_they_are_known() {
        let name = format!("{}.so", "0123456789abcdef".repeat(4));
        assert_eq!(file_name(Path::new(&format!("/run/x/{name}"))), "0123456789abcdef0123….so");
        assert_eq!(file_name(Path::new("/usr/lib/libc.so.6")), "libc.so.6");
        let program = std::env::current_exe().expect("there is one");
        let functions = Functions::read(&program);
        let (path, base) = probe::object_of(file_name as fn(&Path) -> String as usize).expect("an object");
        assert_eq!(path.file_name(), program.file_name());
        // Test programs are too large to be read, or the function is there.
        let place = (file_name as fn(&Path) -> String as usize - base) as u64;
        assert!(functions.0.is_empty() || functions.at(place).contains("file_name"), "{}", functions.at(place));
        assert_eq!(Functions::read(&PathBuf::from("/nowhere")).at(1), "");
        assert_eq!(spell(&[8]), "0x8");
    }
}
