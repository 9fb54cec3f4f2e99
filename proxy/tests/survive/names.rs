//! What one process knows of the names of servers, and the next one is given.

use std::fs;

use crate::admin::*;
use crate::gateway::*;

const WITHOUT: &str = "names of servers are not answered for yet: going on without them";

/// A gateway with a name that is known and one that nobody ever answers for; by now the resolver is silent for both.
fn start(names: &Names, origin: &Origin) -> Governed {
    let port = origin.address().rsplit_once(':').unwrap().1;
    let made = config().upstream("dead", &["dead.test:80"], "").to(&[&format!("app.test:{port}")]);
    let governed = Governed::launch(names.launch(), made.server("admin = \"127.0.0.1:0\""));
    assert_eq!(get(governed.address(), "/").status, 200);
    names.say(&["app.test silent", "dead.test silent"]);
    // When the second change has been made, the supervisor has been told what was known at the first.
    for on in ["on", "off"] {
        governed.good("POST", &format!("/api/stats/{on}"), "");
    }
    governed
}

/// The gateway that serves by now has the address, and waited for nobody.
fn serves_with_what_was_known(governed: &Governed, names: &Names, asked: usize) {
    for _ in 0..5 {
        assert_eq!(get(governed.address(), "/").status, 200);
    }
    assert_eq!(governed.gateway.log().iter().filter(|line| line.contains(WITHOUT)).count(), 1, "only the first process waited");
    names.wait_for(asked + 1, "app.test");
    assert_eq!(governed.good("GET", "/api/upstreams", "")["upstreams"][0]["servers"][0]["state"], "unresolved");
}

#[test]
fn a_process_that_follows_a_crash_serves_at_once_while_the_resolver_is_silent() {
    let (origin, names) = (Origin::start(), Names::new(&["app.test 127.0.0.1", "dead.test silent"]));
    let governed = start(&names, &origin);
    let asked = names.asked("app.test");
    signal(governed.gateway.serving_pid(), libc::SIGKILL);
    // From here on nobody but the next process accepts.
    governed.gateway.wait_for("the gateway process died");
    serves_with_what_was_known(&governed, &names, asked);
    assert_eq!(governed.gateway.said(1, "serving again"), 1);
    governed.gateway.stop();
}

#[test]
fn an_upgrade_while_the_resolver_is_silent_takes_the_addresses_along() {
    let (origin, names) = (Origin::start(), Names::new(&["app.test 127.0.0.1", "dead.test silent"]));
    let governed = start(&names, &origin);
    // Twice: the second one has them from a process that did not look them up itself.
    for _ in 0..2 {
        let asked = names.asked("app.test");
        let outcome = governed.good("POST", "/api/upgrade", "{}");
        serves_with_what_was_known(&governed, &names, asked);
        let pid = outcome["pid"].as_u64().unwrap();
        assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
    }
    governed.gateway.stop();
}
