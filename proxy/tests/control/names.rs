//! Servers that have names, while the resolver is silent, fails, or comes back.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::admin::*;
use crate::gateway::*;

/// A server with a name in the place of its address.
fn named(name: &str, origin: &Origin) -> String {
    format!("{name}:{}", origin.address().rsplit_once(':').unwrap().1)
}

/// An upstream and a route to it, `/NAME`.
fn way(name: &str, server: &str, lines: &str) -> String {
    format!("[[upstream]]\nname = \"{name}\"\nservers = [\"{server}\"]\n{lines}\n[[route]]\npath = \"/{name}\"\nupstream = \"{name}\"\n")
}

fn start(names: &Names, made: Config) -> Governed {
    Governed::launch(names.launch(), made.server("admin = \"127.0.0.1:0\""))
}

fn rewrite(governed: &Governed, made: Config) {
    fs::write(governed.file(), made.server("admin = \"127.0.0.1:0\"").text()).unwrap();
}

fn events(gateway: &Gateway, message: &str, name: &str) -> usize {
    let of = |line: &String| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|event| event["message"] == message && event["name"] == name);
    gateway.log().iter().filter(|line| of(line)).count()
}

const WAITS: &str = "names of servers are looked up before the configuration is put in force";

#[test]
fn a_reload_while_the_resolver_is_silent_keeps_every_known_address() {
    let origin = origin();
    let names = Names::new(&["app.test 127.0.0.1"]);
    let server = named("app.test", &origin);
    let governed = start(&names, config().with(&way("app", &server, "")));
    assert_eq!(get(governed.address(), "/app").status, 200);
    names.say(&["app.test silent"]);
    // The upstream changes, its server does not; then another upstream has it.
    for made in [way("app", &server, "retries = 2"), way("app", &server, "retries = 3") + &way("second", &server, "")] {
        rewrite(&governed, config().with(&made));
        assert_eq!(governed.good("POST", "/api/reload", "")["warnings"], serde_json::json!([]));
        for path in made.split("path = \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert_eq!(get(governed.address(), path).status, 200, "{path}");
        }
    }
    assert!(!governed.gateway.log().iter().any(|line| line.contains(WAITS)), "nothing had to be waited for");
    // It is looked up in the background all the same.
    names.wait_for(2, "app.test");
    governed.gateway.stop();
}

#[test]
fn a_reload_waits_for_new_names_and_other_changes_for_it_while_requests_go_on() {
    let origin = origin();
    let names = Names::new(&["app.test 127.0.0.1", "late.test silent"]);
    let app = way("app", &named("app.test", &origin), "");
    let governed = start(&names, config().with(&app));
    rewrite(&governed, config().with(&app).with(&way("late", &named("late.test", &origin), "")));
    thread::scope(|scope| {
        let reload = scope.spawn(|| governed.good("POST", "/api/reload", ""));
        governed.gateway.wait_for(WAITS);
        let stats = scope.spawn(|| governed.good("POST", "/api/stats/on", ""));
        // What was in force still is.
        assert_eq!((get(governed.address(), "/app").status, get(governed.address(), "/late").status), (200, 404));
        names.say(&["app.test 127.0.0.1", "late.test 127.0.0.1"]);
        assert_eq!(reload.join().unwrap()["warnings"], serde_json::json!([]));
        assert_eq!(get(governed.address(), "/late").status, 200, "the first request finds its server");
        assert_eq!(stats.join().unwrap()["stats"], true);
    });
    governed.gateway.wait_for("Stats(true)");
    let made: Vec<String> = governed.gateway.log().into_iter().filter(|line| line.contains("\"change made\"")).collect();
    assert!(made.len() == 2 && made[0].contains("Reload") && made[1].contains("Stats"), "in the order they were asked for: {made:?}");
    governed.gateway.stop();
}

#[test]
fn a_drain_that_begins_while_a_reload_waits_for_names_wins() {
    let may_end = Arc::new(AtomicBool::new(false));
    let waits_for = Arc::clone(&may_end);
    let origin = Origin::answering(move |_| {
        eventually("the exchange may end", || waits_for.load(Ordering::SeqCst));
        reply(200, &[], "")
    });
    let names = Names::new(&["app.test 127.0.0.1", "one.test silent", "two.test silent", "three.test silent"]);
    let app = way("app", &named("app.test", &origin), "");
    let mut governed = start(&names, config().with(&app));
    // An exchange that the drain waits for, so that the answers of the admin listener arrive.
    let mut client = Client::connect(governed.address());
    client.send("GET /app HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the exchange has begun", || origin.begun() == 1);
    let dead: String = ["one", "two", "three"].map(|name| way(name, &format!("{name}.test:80"), "")).concat();
    rewrite(&governed, config().with(&app).with(&dead));
    let refused = thread::scope(|scope| {
        let reload = scope.spawn(|| governed.refused("POST", "/api/reload", ""));
        governed.gateway.wait_for(WAITS);
        let (status, reason) = governed.refused("POST", "/api/upgrade", "");
        assert!(status == 409 && reason.starts_with("a change waits for names of servers"), "{status} {reason}");
        governed.gateway.signal(libc::SIGTERM);
        governed.gateway.wait_for("\"draining: accepting no more\"");
        reload.join().unwrap()
    });
    assert_eq!(refused, (503, "the gateway is draining".into()));
    governed.gateway.wait_for("nothing was changed: the gateway is draining");
    may_end.store(true, Ordering::SeqCst);
    assert_eq!(client.response().status, 200);
    assert_eq!(governed.gateway.wait("the end, with three names still silent").code(), Some(0));
}

#[test]
fn names_are_waited_for_together_and_only_for_so_long() {
    let origin = origin();
    let lines = |rest: &str| [&format!("one.test {rest}"), "two.test silent", "three.test silent", "app.test 127.0.0.1"].map(str::to_owned);
    let said = lines("silent");
    let names = Names::new(&said.each_ref().map(String::as_str));
    let app = way("app", &named("app.test", &origin), "");
    // Each alone would be waited for as long: the deadline of the tests passes if they are waited for one after the other.
    let dead: String = ["one", "two", "three"].map(|name| way(name, &named(&format!("{name}.test"), &origin), "")).concat();
    let governed = start(&names, config().with(&app).with(&dead));
    assert_eq!((get(governed.address(), "/app").status, get(governed.address(), "/one").status), (200, 503));
    for name in ["one.test", "two.test", "three.test"] {
        assert_eq!(names.asked(name), 1, "{name}");
    }
    governed.gateway.wait_for("names of servers are not answered for yet: going on without them");
    // Nobody waits for them again, and a reload says which they are.
    rewrite(&governed, config().with(&app).with(&dead).with("[timeouts]\nfirst_byte = \"7s\""));
    let warnings = governed.good("POST", "/api/reload", "")["warnings"].to_string();
    assert!(["one", "two", "three"].iter().all(|name| warnings.contains(&format!("`{name}.test` is not resolved yet"))), "{warnings}");
    assert!(!governed.gateway.log().iter().any(|line| line.contains(WAITS)));
    let said = lines("127.0.0.1");
    names.say(&said.each_ref().map(String::as_str));
    eventually("it is found in the background", || get(governed.address(), "/one").status == 200);
    governed.gateway.stop();
}

#[test]
fn a_name_that_fails_is_logged_once_and_again_when_it_is_found() {
    let origin = origin();
    let names = Names::new(&["app.test fail"]);
    let governed = start(&names, config().with(&way("app", &named("app.test", &origin), "")));
    assert_eq!(get(governed.address(), "/app").status, 503);
    names.wait_for(3, "app.test");
    assert_eq!(events(&governed.gateway, "server name was not resolved; it has no addresses yet", "app.test"), 1);
    let said = |line: &&String| line.contains("app.test") && line.contains("resolved");
    assert_eq!(governed.gateway.log().iter().filter(said).count(), 1, "{:?}", governed.gateway.log());
    names.say(&["app.test 127.0.0.1"]);
    governed.gateway.wait_for("server resolved again");
    assert_eq!(get(governed.address(), "/app").status, 200);
    assert_eq!(events(&governed.gateway, "server resolved again", "app.test"), 1);
    governed.gateway.stop();
}
