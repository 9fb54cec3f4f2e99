//! What the logs say, and that nobody can fill or mute them.

use crate::gateway::*;

/// An upstream behind whose address nobody listens, and a route to it.
const NOBODY: &str = "[[upstream]]\nname = \"nobody\"\nservers = [\"127.0.0.1:1\"]\n[[route]]\npath = \"/nobody\"\nupstream = \"nobody\"\n";

/// Lines about what clients do neither take the place of lines about upstreams nor, where they are not printed at all, of each other's.
#[test]
fn a_flood_of_requests_without_a_route_mutes_nothing_else() {
    for level in ["info", "debug"] {
        let gateway = Gateway::start(&config().server(&format!("log_level = {level:?}")).with(NOBODY));
        let mut client = Client::connect(gateway.address());
        for _ in 0..5 {
            client.send("GET /scan HTTP/1.1\r\nhost: test\r\n\r\n".repeat(60));
            for _ in 0..60 {
                assert_eq!(client.response().status, 404);
            }
            assert_eq!(client.get("/nobody").status, 502);
        }
        assert_eq!(gateway.events(5, |event| event["reason"] == "upstream_connect_failed"), 5, "{level}");
        gateway.stop();
    }
}

/// Nothing else is logged afterwards: the notice comes by itself.
#[test]
fn the_end_of_a_flood_says_how_many_lines_were_left_out() {
    let gateway = Gateway::start(&config().with(NOBODY));
    for _ in 0..60 {
        let mut client = Client::connect(gateway.address());
        client.send("GET / HTTP/1.1\r\n\r\n");
        assert_eq!(client.response().status, 400);
    }
    let refused = |event: &serde_json::Value| event["message"] == "request refused";
    eventually("every line was written or counted", || {
        let events: Vec<serde_json::Value> = gateway.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let suppressed: u64 = events.iter().filter(|event| event["about"] == "client").filter_map(|event| event["suppressed"].as_u64()).sum();
        events.iter().filter(|event| refused(event)).count() as u64 + suppressed == 60
    });
    gateway.stop();
}

#[test]
fn connections_that_a_bound_refuses_are_logged_with_their_address() {
    for (bound, reason) in [("connections", "connections_exhausted"), ("connections_per_address", "connections_of_peer_exhausted")] {
        let gateway = Gateway::start(&config().with(&format!("{NOBODY}\n[limits]\n{bound} = 1")));
        let mut first = Client::connect(gateway.address());
        assert_eq!(first.get("/").status, 404);
        for _ in 0..30 {
            Client::connect(gateway.address()).expect_end();
        }
        gateway.events(1, |event| event["level"] == "WARN" && event["peer"] == "127.0.0.1" && event["reason"] == reason);
        gateway.events(1, |event| event["level"] == "WARN" && event["about"] == reason && event["suppressed"].as_u64() > Some(0));
        assert!(gateway.log().iter().filter(|line| line.contains("connection refused")).count() < 30, "they are bounded");
        gateway.stop();
    }
}
