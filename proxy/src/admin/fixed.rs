//! What cannot change while the process runs: sockets that are bound, memory that is laid out, logs that are open.
#![forbid(unsafe_code)]

use crate::config::{Config, Key, Problem};

/// Each difference between the configurations that needs a restart, with its place in the new one.
pub fn differences(running: &Config, next: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (old, new) = (&running.server, &next.server);
    for (key, differs) in [
        ("workers", old.workers != new.workers),
        ("admin", old.admin != new.admin),
        ("admin_token", old.admin_token != new.admin_token),
        ("access_log", old.access_log != new.access_log),
        ("log_level", old.log_level != new.log_level),
        ("log_format", old.log_format != new.log_format),
        ("driver", old.driver != new.driver),
        ("pin_workers", old.pin_workers != new.pin_workers),
        ("huge_pages", old.huge_pages != new.huge_pages),
        ("supervisor", old.supervisor != new.supervisor),
        ("state", old.state != new.state),
    ] {
        if differs {
            // The line of the token would show the secret.
            let keys = [Key::Key("server"), Key::Key(key)];
            let shown = if key == "admin_token" { &keys[..1] } else { &keys };
            problems.push(next.problem_at(shown, needs_restart(&format!("server.{key}"))));
        }
    }
    let (old, new) = (&running.limits, &next.limits);
    for (key, differs) in [
        ("head_bytes", old.head_bytes != new.head_bytes),
        ("header_fields", old.header_fields != new.header_fields),
        ("edit_bytes", old.edit_bytes != new.edit_bytes),
        ("slots", old.slots != new.slots),
        ("relay_buffer_bytes", old.relay_buffer_bytes != new.relay_buffer_bytes),
        ("relay_buffers", old.relay_buffers != new.relay_buffers),
    ] {
        if differs {
            problems
                .push(next.problem_at(&[Key::Key("limits"), Key::Key(key)], needs_restart(&format!("limits.{key}")).cause("it fixes the layout of memory")));
        }
    }
    listeners(running, next, &mut problems);
    problems
}

/// Their plugins may change, their sockets not.
fn listeners(running: &Config, next: &Config, problems: &mut Vec<Problem>) {
    for (index, new) in next.listeners.iter().enumerate() {
        let key = match running.listeners.get(index) {
            None => None,
            Some(old) if old.address != new.address => Some("address"),
            Some(old) if old.name != new.name => Some("name"),
            Some(old) if old.backlog != new.backlog => Some("backlog"),
            Some(old) if old.mode != new.mode => Some("mode"),
            Some(_) => continue,
        };
        let mut keys = vec![Key::Key("listener"), Key::Index(index)];
        keys.extend(key.map(Key::Key));
        let what = key.map_or_else(|| format!("the listener {}", new.name), |key| format!("`{key}` of the listener {}", new.name));
        problems.push(next.problem_at(&keys, needs_restart(&what)));
    }
    for old in running.listeners.iter().skip(next.listeners.len()) {
        problems.push(next.problem_at(&[Key::Key("listener")], needs_restart(&format!("the listener {}, which is gone,", old.name))));
    }
}

fn needs_restart(what: &str) -> Problem {
    Problem::new(format!("{what} cannot change while the gateway runs")).help("undo it, or restart the gateway")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse("r.toml", text, &|_| None).expect("sound")
    }

    #[test]
    fn what_is_fixed_is_named_and_the_rest_may_change() {
        let old = parse("[[listener]]\naddress = \"127.0.0.1:1\"\n[timeouts]\nhead = \"1s\"");
        for (text, expected) in [
            ("[[listener]]\naddress = \"127.0.0.1:1\"\n[timeouts]\nhead = \"2s\"\n[limits]\nconnections = 9", vec![]),
            ("[server]\nworkers = 3\n[[listener]]\naddress = \"127.0.0.1:1\"", vec!["server.workers cannot change while the gateway runs"]),
            ("[limits]\nslots = 64\n[[listener]]\naddress = \"127.0.0.1:1\"", vec!["limits.slots cannot change while the gateway runs"]),
            ("[[listener]]\naddress = \"127.0.0.1:2\"", vec!["`address` of the listener 127.0.0.1:2 cannot change while the gateway runs"]),
            ("[[listener]]\naddress = \"127.0.0.1:1\"\nbacklog = 7", vec!["`backlog` of the listener 127.0.0.1:1 cannot change while the gateway runs"]),
            (
                "[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\naddress = \"127.0.0.1:2\"",
                vec!["the listener 127.0.0.1:2 cannot change while the gateway runs"],
            ),
        ] {
            let found: Vec<String> = differences(&old, &parse(text)).into_iter().map(|problem| problem.what).collect();
            assert_eq!(found, expected, "{text}");
        }
        let with = |mode: &str| parse(&format!("[[listener]]\nname = \"l\"\naddress = \"unix:/s\"\n{mode}"));
        for (old, new) in [("mode = \"0600\"", "mode = \"0666\""), ("mode = \"0600\"", ""), ("", "mode = \"0600\"")] {
            let found = differences(&with(old), &with(new));
            assert_eq!(
                found.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>(),
                ["`mode` of the listener l cannot change while the gateway runs"]
            );
        }
        let two = parse("[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\naddress = \"127.0.0.1:2\"");
        assert_eq!(differences(&two, &old)[0].what, "the listener 127.0.0.1:2, which is gone, cannot change while the gateway runs");
    }
}
