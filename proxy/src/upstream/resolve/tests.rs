//! A resolver that answers as it is told, or is silent until it is.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::Config;
use crate::upstream::Shared;

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Script {
    /// Silent where there is none; empty: a failure.
    answers: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
    told: Condvar,
    asked: AtomicUsize,
}

impl Script {
    fn say(&self, name: &str, addresses: &[&str]) {
        self.answers.lock().unwrap().insert(name.into(), addresses.iter().map(|text| format!("{text}:0").parse().unwrap()).collect());
        self.told.notify_all();
    }

    fn silence(&self, name: &str) {
        self.answers.lock().unwrap().remove(name);
    }

    fn asked(&self, count: usize) {
        let begun = Instant::now();
        while self.asked.load(Ordering::SeqCst) < count {
            assert!(begun.elapsed() < DEADLINE, "not asked {count} times");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn names(self: &Arc<Script>, given: Known) -> Names {
        let script = Arc::clone(self);
        let look_up = move |name: &str| {
            script.asked.fetch_add(1, Ordering::SeqCst);
            let answers = script.told.wait_timeout_while(script.answers.lock().unwrap(), DEADLINE, |answers| !answers.contains_key(name)).unwrap().0;
            match answers.get(name).filter(|addresses| !addresses.is_empty()) {
                Some(addresses) => Ok(addresses.clone()),
                None => Err(io::Error::other("as told")),
            }
        };
        Names::with(given, Box::new(look_up))
    }
}

/// One upstream with these servers.
fn config(servers: &[&str], lines: &str) -> Config {
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"u\"\nservers = {servers:?}\n{lines}\n[[route]]\npath = \"/\"\nupstream = \"u\"\n"
    );
    Config::parse("test.toml", &text, &|_| None).unwrap()
}

fn targets(shared: &Shared) -> Vec<String> {
    let of = |server: &super::super::SharedServer| server.targets().iter().map(|target| format!("{target:?}")).collect::<Vec<_>>().join("+");
    shared.current().flat_map(|upstream| upstream.servers.iter().map(of).collect::<Vec<_>>()).collect()
}

#[test]
fn addresses_belong_to_the_name_and_outlive_the_upstream() {
    let script = Arc::new(Script::default());
    script.say("a.test", &["127.0.0.1", "127.0.0.2"]);
    let names = script.names(Known::new());
    let first = config(&["a.test:1"], "");
    let shared = Shared::new(&first);
    assert_eq!(names.wait(&names.follow(shared.current()), DEADLINE), [""; 0]);
    assert_eq!(targets(&shared), ["Tcp(127.0.0.1:1)+Tcp(127.0.0.2:1)"]);
    script.silence("a.test");
    // Another upstream, in which the same name has another port too.
    let second = config(&["a.test:1", "a.test:2", "b.test:1"], "retries = 2");
    assert_eq!(names.want(second.upstreams.iter()), ["b.test"], "only the new one needs an answer");
    let next = shared.next(&second, []);
    names.fill(next.current());
    assert_eq!(targets(&next), ["Tcp(127.0.0.1:1)+Tcp(127.0.0.2:1)", "Tcp(127.0.0.1:2)+Tcp(127.0.0.2:2)", ""]);
    // It is looked up again all the same, and what is found reaches the upstream in force.
    names.follow(next.current());
    script.asked(3);
    script.say("a.test", &["127.0.0.9"]);
    script.say("b.test", &["127.0.0.3"]);
    assert_eq!(names.wait(&["b.test".into()], DEADLINE), [""; 0]);
    let begun = Instant::now();
    while targets(&next) != ["Tcp(127.0.0.9:1)", "Tcp(127.0.0.9:2)", "Tcp(127.0.0.3:1)"] {
        assert!(begun.elapsed() < DEADLINE, "{:?}", targets(&next));
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(targets(&shared), ["Tcp(127.0.0.1:1)+Tcp(127.0.0.2:1)"], "the former one is left alone");
}

#[test]
fn no_name_waits_for_a_silent_one() {
    let script = Arc::new(Script::default());
    let names = script.names(Known::new());
    let silent = config(&["a.test:1", "b.test:1", "c.test:1", "d.test:1"], "");
    let shared = Shared::new(&silent);
    let unknown = names.follow(shared.current());
    script.asked(4);
    script.say("d.test", &["127.0.0.4"]);
    assert_eq!(names.wait(&["d.test".into()], DEADLINE), [""; 0]);
    assert_eq!(names.missing(&unknown), ["a.test", "b.test", "c.test"]);
    assert_eq!(names.unresolved(), ["a.test", "b.test", "c.test"]);
    names.give_up(&names.missing(&unknown));
    assert_eq!(names.want(silent.upstreams.iter()), [""; 0], "nobody waits for them twice");
    // That of d.test has ended, so it is asked for again; look-ups that are under way are not begun again.
    script.asked(5);
    assert_eq!(script.asked.load(Ordering::SeqCst), 5);
}

#[test]
fn what_another_process_knew_is_used_at_once_and_looked_up_again() {
    let script = Arc::new(Script::default());
    let given = [("a.test", vec!["127.0.0.1:0".parse().unwrap()]), ("dead.test", Vec::new()), ("gone.test", Vec::new())];
    let names = script.names(given.into_iter().map(|(name, addresses)| (name.to_owned(), addresses)).collect());
    let shared = Shared::new(&config(&["a.test:1", "dead.test:1"], "resolve = \"off\""));
    assert_eq!(names.follow(shared.current()), [""; 0], "neither is waited for");
    assert_eq!(targets(&shared), ["Tcp(127.0.0.1:1)", ""]);
    assert_eq!(names.known().keys().collect::<Vec<_>>(), ["a.test", "dead.test"], "names that are not used are forgotten");
    script.asked(2);
    script.say("dead.test", &["127.0.0.2"]);
    let begun = Instant::now();
    while names.known()["dead.test"].is_empty() {
        assert!(begun.elapsed() < DEADLINE);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(targets(&shared)[1], "Tcp(127.0.0.2:1)");
}

#[test]
fn a_failure_keeps_the_addresses() {
    let (now, mut name) = (Instant::now(), Name::default());
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    assert_eq!(name.end(vec![address], now), Say::Resolved { addresses: 1, failures: 0 });
    assert_eq!(name.end(vec![address], now), Say::Nothing);
    assert_eq!(name.end(Vec::new(), now), Say::Failed { is_known: true });
    assert_eq!(name.addresses, [address]);
}

#[test]
fn the_log_hears_of_changes_and_a_reminder_now_and_then() {
    let (begun, mut name) = (Instant::now(), Name::default());
    let after = |ms: u32| begun + Duration::from_millis(u64::from(ms));
    assert_eq!(name.end(Vec::new(), begun), Say::Failed { is_known: false });
    assert_eq!(name.end(Vec::new(), after(NAME_REMINDER - 1)), Say::Nothing);
    let seconds = u64::from(NAME_REMINDER) / 1000;
    assert_eq!(name.end(Vec::new(), after(NAME_REMINDER)), Say::StillFailing { failures: 3, seconds });
    assert_eq!(name.end(Vec::new(), after(NAME_REMINDER + 1)), Say::Nothing);
    assert_eq!(name.end(vec!["127.0.0.1:0".parse().unwrap()], begun), Say::Resolved { addresses: 1, failures: 4 });
    assert_eq!(name.end(Vec::new(), begun), Say::Failed { is_known: true }, "the next failure is a first one");
}

#[test]
fn a_failing_name_is_tried_ever_later_but_no_later_than_a_good_one() {
    assert_eq!([1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|failures| retry_ms(failures, 60_000)), [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    assert_eq!([1, 3, 9].map(|failures| retry_ms(failures, 3000)), [1000, 3000, 3000]);
    assert_eq!(retry_ms(9, 0), 30_000, "a name that is looked up once is looked up until it is found");
    let (now, mut name) = (Instant::now(), Name { again_ms: 60_000, ..Name::default() });
    let waits = [(); 3].map(|()| {
        name.end(Vec::new(), now);
        name.due.unwrap() - now
    });
    assert_eq!(waits, [1, 2, 4].map(Duration::from_secs));
    name.end(vec!["127.0.0.1:0".parse().unwrap()], now);
    assert_eq!(name.due.unwrap() - now, Duration::from_secs(60));
    name.again_ms = 0;
    name.end(vec!["127.0.0.1:0".parse().unwrap()], now);
    assert_eq!(name.due, None);
}

#[test]
fn answers_and_what_is_handed_on_have_bounds() {
    let many = |count: usize| (0..count).map(|at| SocketAddr::from(([10, 0, (at >> 8) as u8, at as u8], 80))).collect::<Vec<_>>();
    let mut twice = many(ADDRESSES_MAX + 44);
    twice.extend(many(2));
    let used = checked(twice);
    assert!(used.len() == ADDRESSES_MAX && used.iter().all(|address| address.port() == 0) && used.is_sorted());
    let name = |at: usize| (format!("{at:03}.test"), Name { addresses: used.clone(), is_answered: at != 0, ..Name::default() });
    let mut state = State { names: (0..100).map(name).collect(), ..State::default() };
    state.note_known();
    assert_eq!(state.known.values().map(Vec::len).sum::<usize>(), KNOWN_ADDRESSES_MAX);
    assert_eq!(state.known.keys().next().unwrap(), "001.test", "who has not been answered for is waited for by the next process too");
}

#[test]
fn the_threads_end_with_the_names() {
    let script = Arc::new(Script::default());
    script.say("a.test", &["127.0.0.1"]);
    let names = script.names(Known::new());
    let shared = Shared::new(&config(&["a.test:1"], ""));
    names.wait(&names.follow(shared.current()), DEADLINE);
    let book = Arc::downgrade(&names.book);
    drop(names);
    let begun = Instant::now();
    while book.strong_count() > 0 {
        assert!(begun.elapsed() < DEADLINE);
        thread::sleep(Duration::from_millis(1));
    }
}
