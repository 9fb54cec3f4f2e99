//! `ext-authz` in the running gateway: an authorization service between it and the origin, in all its moods.

use std::fs;
use std::thread;

use crate::admin::*;
use crate::gateway::*;

/// `ext-authz` in the only route, which asks `service` before anything goes to `origin`.
fn asking(origin: &Origin, service: &str, lines: &str, more: &str) -> Config {
    config()
        .workers(2)
        .upstream("app", &[origin.address()], "")
        .upstream("auth", &[service], "")
        .plugin("ext-authz", &format!("[plugin.config]\nupstream = \"auth\"\n{lines}"))
        .with(more)
        .with("[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"ext-authz\"]")
}

/// A service that lets `/allowed…` through as `anna`, sends `/login…` away, and refuses the rest.
fn service() -> Origin {
    Origin::answering(|request| match request.path() {
        path if path.starts_with("/check/allowed") => reply(200, &[("x-user", "anna")], "ignored"),
        path if path.starts_with("/check/login") => reply(302, &[("location", "/login"), ("set-cookie", "a=1"), ("x-internal", "1")], ""),
        _ => reply(403, &[("content-type", "text/plain"), ("x-internal", "1")], "not you"),
    })
}

const RULES: &str = "path_prefix = \"/check\"\nallowed_headers = [\"x-user\"]";

fn counted(governed: &Governed, name: &str) -> Option<u64> {
    governed.metric(&format!("ringway_link_{name}_total{{route=\"all\",plugin=\"ext-authz\"}}"))
}

#[test]
fn the_service_decides_about_each_request() {
    let (origin, auth) = (Origin::start(), service());
    let governed = Governed::start(asking(&origin, auth.address(), RULES, ""));
    let mut client = Client::connect(governed.address());
    client.send("POST /allowed?a=b HTTP/1.1\r\nhost: example\r\nx-user: root\r\nX_User: root\r\nauthorization: token\r\ncontent-length: 4\r\n\r\nbody");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
    let seen = origin.last();
    assert_eq!(
        (seen.header("x-user"), seen.header("x_user"), seen.header("authorization"), seen.target.as_str()),
        (Some("anna"), None, Some("token"), "/allowed?a=b")
    );
    let asked = auth.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str(), asked.header("authorization")), ("GET", "/check/allowed?a=b", Some("token")));
    assert_eq!(
        (asked.header("x-original-method"), asked.header("x-forwarded-host"), asked.header("x-forwarded-for")),
        (Some("POST"), Some("example"), Some("127.0.0.1"))
    );
    assert_eq!((asked.header("host"), asked.header("content-length"), asked.header("x-user")), (Some(auth.address()), None, None));
    let refused = client.get("/other");
    assert_eq!(
        (refused.status, refused.text().as_str(), refused.header("content-type"), refused.header("x-internal")),
        (403, "not you", Some("text/plain"), None)
    );
    let sent_away = client.get("/login/now");
    assert_eq!((sent_away.status, sent_away.header("location"), sent_away.header("set-cookie")), (302, Some("/login"), Some("a=1")));
    assert_eq!((origin.count(), auth.count(), auth.connections()), (1, 3, 1), "one connection to the service, kept");
    assert_eq!((counted(&governed, "outcalls"), counted(&governed, "outcall_failures"), counted(&governed, "outcall_cancels")), (Some(3), Some(0), Some(0)));
    assert_eq!(governed.metric("ringway_plugin_denied_total{plugin=\"ext-authz\"}"), Some(2));
    governed.gateway.stop();
}

#[test]
fn a_service_that_is_down_or_broken_decides_nothing() {
    let origin = Origin::start();
    let gone = Origin::start();
    gone.close();
    let broken = Origin::raw(|mut stream, origin| {
        use std::io::Write as _;
        let mut buffer = Vec::new();
        while origin.read_request(&mut stream, &mut buffer, 0).is_some() && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").is_ok() {}
    });
    for service in [gone.address(), broken.address()] {
        for (failure, status) in [("closed", 418), ("open", 200)] {
            let lines = format!("failure = \"{failure}\"\nfailure_status = 418");
            let governed = Governed::start(asking(&origin, service, &lines, ""));
            assert_eq!(get(governed.address(), "/bytes/3").status, status, "{failure}");
            assert_eq!((counted(&governed, "outcalls"), counted(&governed, "outcall_failures")), (Some(1), Some(1)));
            governed.gateway.stop();
        }
    }
}

#[test]
fn a_service_that_is_slow_is_waited_for_as_long_as_the_route_says() {
    let (origin, auth) = (Origin::start(), Origin::start());
    // The service answers what it is asked for: /slow/… takes its time.
    let governed = Governed::start(asking(&origin, auth.address(), "failure_status = 504", "[timeouts]\nsuspend = \"300ms\""));
    let mut client = Client::connect(governed.address());
    assert_eq!(client.get("/slow/1").status, 200);
    assert_eq!(client.get("/slow/60000").status, 504);
    assert_eq!(client.get("/bytes/3").status, 200, "the same connection goes on");
    assert_eq!(counted(&governed, "outcall_cancels"), Some(1));
    eventually("nothing is under way", || governed.metric("ringway_outcalls") == Some(0));
    governed.gateway.stop();
    let governed = Governed::start(asking(&origin, auth.address(), "failure_status = 504\ntimeout_ms = 300", ""));
    assert_eq!(get(governed.address(), "/slow/60000").status, 504);
    assert_eq!((counted(&governed, "outcall_failures"), counted(&governed, "outcall_cancels")), (Some(0), Some(1)));
    governed.gateway.stop();
    let governed = Governed::start(asking(&origin, auth.address(), "failure_status = 504", "[timeouts]\nfirst_byte = \"300ms\""));
    assert_eq!(get(governed.address(), "/slow/60000").status, 504);
    assert_eq!((counted(&governed, "outcall_failures"), counted(&governed, "outcall_cancels")), (Some(1), Some(0)));
    governed.gateway.stop();
}

#[test]
fn a_client_that_leaves_takes_its_question_back() {
    let (origin, auth) = (Origin::start(), Origin::start());
    let governed = Governed::start(asking(&origin, auth.address(), "", "[timeouts]\nsuspend = \"5m\"\nfirst_byte = \"5m\""));
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(governed.address())).collect();
    for client in &mut clients {
        client.send("GET /slow/60000 HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    eventually("all are asked about", || auth.begun() == 10);
    eventually("all are under way", || governed.metric("ringway_outcalls") == Some(10));
    drop(clients);
    eventually("nobody waits", || governed.metric("ringway_suspended") == Some(0) && governed.metric("ringway_outcalls") == Some(0));
    assert_eq!((origin.count(), counted(&governed, "outcall_cancels")), (0, Some(10)));
    governed.gateway.stop();
}

#[test]
fn a_question_that_is_taken_back_closes_its_connection() {
    let origin = Origin::start();
    // It reads and never answers; a connection ends when the gateway closes it.
    let silent = Origin::raw(|mut stream, origin| {
        let mut buffer = Vec::new();
        while origin.read_request(&mut stream, &mut buffer, 0).is_some() {}
    });
    let governed = Governed::start(asking(&origin, silent.address(), "timeout_ms = 200", "[timeouts]\nsuspend = \"5m\""));
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(governed.address())).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    assert!(clients.iter_mut().all(|client| client.response().status == 503));
    eventually("the connections to the service are closed", || silent.open() == 0 && silent.connections() == 10);
    // The connections of the clients go on.
    assert!(clients.iter_mut().all(|client| client.get("/").status == 503));
    eventually("nothing is left", || silent.open() == 0 && governed.metric("ringway_slots_used") == Some(0));
    governed.gateway.stop();
}

#[test]
fn many_clients_are_asked_about_at_once_and_none_is_confused_with_another() {
    let origin = Origin::answering(|request| reply(200, &[], request.header("x-user").unwrap_or("nobody")));
    // The service names whoever asks; every seventh it refuses, and every eleventh question ends its connection without an answer.
    let auth = Origin::answering(|request| {
        let number: usize = request.path().trim_start_matches("/check/").parse().unwrap();
        match number {
            n if n % 11 == 0 => Vec::new(),
            n if n % 7 == 0 => reply(401, &[], format!("no {n}")),
            n => reply(200, &[("x-user", &format!("user-{n}"))], ""),
        }
    });
    let governed =
        Governed::start(asking(&origin, auth.address(), &format!("{RULES}\nfailure_status = 503"), "[limits]\nretry_reserve = 0\nretry_budget_percent = 0"));
    thread::scope(|scope| {
        for worker in 0..32 {
            let address = governed.address();
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for turn in 0..40 {
                    let number = worker * 40 + turn + 1;
                    let response = client.get(&format!("/{number}"));
                    let expected = match number {
                        n if n % 11 == 0 => (503, "not authorized: no decision\n".to_owned()),
                        n if n % 7 == 0 => (401, format!("no {n}")),
                        n => (200, format!("user-{n}")),
                    };
                    assert_eq!((response.status, response.text()), expected, "{number}");
                }
            });
        }
    });
    let sum = |name: &str| counted(&governed, name).unwrap();
    assert_eq!((sum("outcalls"), sum("outcall_failures"), sum("outcall_cancels")), (1280, 1280 / 11, 0));
    assert_eq!(origin.count() as u64, 1280 - 1280 / 11 - (1280 / 7 - 1280 / 77));
    governed.gateway.stop();
}

#[test]
fn a_request_that_is_asked_about_keeps_its_plugin_and_its_service_through_a_reload() {
    let (origin, first, second) = (origin(), Origin::start(), Origin::answering(|_| reply(403, &[], "second")));
    let governed = Governed::start(asking(&origin, first.address(), "", ""));
    let mut client = Client::connect(governed.address());
    client.send("GET /slow/1500 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("it is asked about", || first.begun() == 1);
    let next = |made: Config| fs::write(governed.file(), made.server("admin = \"127.0.0.1:0\"").text()).unwrap();
    next(asking(&origin, second.address(), "failure = \"open\"", ""));
    governed.good("POST", "/api/reload", "");
    assert_eq!(get(governed.address(), "/new").text(), "second");
    assert_eq!(client.response().text(), "/slow/1500");
    // An upstream that a plugin asks cannot be taken away, and the reason names both.
    let without = config().workers(2).upstream("app", &[origin.address()], "").plugin("ext-authz", "[plugin.config]\nupstream = \"auth\"");
    next(without.with("[[route]]\nname = \"all\"\nupstream = \"app\"\nplugins = [\"ext-authz\"]"));
    let (_, reason) = governed.refused("POST", "/api/reload", "");
    assert!(reason.contains("ext-authz") && reason.contains("upstream `auth`"), "{reason}");
    assert_eq!(get(governed.address(), "/new").text(), "second", "nothing has changed");
    // One that is asked about when the gateway is told to stop is answered too.
    next(asking(&origin, first.address(), "", ""));
    governed.good("POST", "/api/reload", "");
    let mut client = Client::connect(governed.address());
    client.send("GET /slow/500 HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("it is asked about", || first.begun() == 2);
    governed.gateway.signal(libc::SIGTERM);
    assert_eq!(client.response().text(), "/slow/500");
    governed.gateway.stop();
}

#[test]
fn a_configuration_without_the_upstream_that_a_plugin_asks_does_not_start() {
    let origin = Origin::start();
    let made = config().upstream("app", &[origin.address()], "").plugin("ext-authz", "[plugin.config]\nupstream = \"nobody\"");
    let (_, said) = Launch::default().refuse(&made.with("[[route]]\nupstream = \"app\"\nplugins = [\"ext-authz\"]"));
    assert!(said.contains("ext-authz") && said.contains("upstream `nobody`"), "{said}");
}

#[test]
fn the_service_is_asked_again_on_a_fresh_connection_when_it_has_closed_an_idle_one() {
    let origin = Origin::start();
    let auth = service();
    let governed = Governed::start(asking(&origin, auth.address(), RULES, ""));
    let mut client = Client::connect(governed.address());
    assert_eq!(client.get("/allowed").status, 200);
    let address = auth.address().to_owned();
    auth.close();
    let auth = Origin::on(&address, Behaviour::Answer(std::sync::Arc::new(|_| reply(200, &[], ""))));
    assert_eq!(client.get("/allowed").status, 200);
    assert_eq!((auth.count(), counted(&governed, "outcall_failures")), (1, Some(0)));
    governed.gateway.stop();
}
