//! Tables of configurations: good ones and what they mean, bad ones and the exact text an operator reads.

use super::*;

fn variable(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8081".into()),
        "WORKERS" => Some("3".into()),
        "WORD" => Some("many".into()),
        _ => None,
    }
}

/// `bad_cases.txt`: "##### NAME", the text of the file, "-----", the errors.
#[test]
fn a_bad_configuration_is_answered_with_exactly_this_text() {
    let (mut count, mut actual) = (0, String::new());
    for case in include_str!("bad_cases.txt").split("##### ").skip(1) {
        let (name, rest) = case.split_once('\n').expect("a name");
        let (text, _) = rest.split_once("-----\n").expect("a text");
        let errors = Config::parse(name, text, &variable).map(|config| format!("{config:#?}")).expect_err(text);
        actual += &format!("##### {name}\n{text}-----\n{errors:#}\n\n");
        count += 1;
    }
    assert!(count > 20);
    if actual.trim_end() != include_str!("bad_cases.txt").trim_end() {
        panic!("the errors differ from bad_cases.txt; they are now:\n{actual}");
    }
}

const DESIGN_EXAMPLE: &str = r#"
[server]
workers = 2                      # default: one per core
admin = "127.0.0.1:9901"         # metrics, health, plugin API; off when absent

[[listener]]
address = "127.0.0.1:8080"

[[upstream]]
name = "app"
servers = ["127.0.0.1:9000"]     # "host:port", "unix:/path"

[[plugin]]
name = "rate-limit"
path = "target/plugins/rate_limit.so"
on_error = "closed"              # or "open"
[plugin.config]                  # handed to load() as JSON bytes
requests_per_second = 100

[[plugin]]
name = "request-id"
path = "target/plugins/request_id.so"

[[route]]
path = "/api/"                   # prefix; also host, method, exact, header
upstream = "app"
plugins = ["request-id", "rate-limit"]   # link order
"#;

fn good(name: &str, text: &str) -> Config {
    Config::parse(name, text, &variable).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A configuration with one listener, one upstream `app` and `rest`.
fn with(rest: &str) -> Config {
    good("r.toml", &format!("[[listener]]\naddress = \"127.0.0.1:80\"\n[[upstream]]\nname = \"app\"\nservers = [\"h:1\"]\n{rest}"))
}

fn warnings(config: &Config) -> Vec<&str> {
    config.warnings.iter().map(|problem| problem.what.as_str()).collect()
}

#[test]
fn the_example_of_the_design_is_understood() {
    let config = good("r.toml", DESIGN_EXAMPLE);
    assert_eq!(warnings(&config), [""; 0]);
    assert_eq!(config.server.workers, Some(2));
    assert_eq!(config.server.admin, Some(ListenAddress::Tcp(([127, 0, 0, 1], 9901).into())));
    assert_eq!(config.upstreams[0].servers, [UpstreamServer { address: ServerAddress::Tcp(([127, 0, 0, 1], 9000).into()), weight: 1 }]);
    assert_eq!(config.plugin(PluginIndex(0)).config, r#"{"requests_per_second":100}"#);
    assert_eq!(config.plugin(PluginIndex(1)).config, "{}");
    let route = &config.routes[0];
    assert_eq!((route.name.as_str(), route.upstream), ("/api/", Some(UpstreamIndex(0))));
    assert_eq!(route.path, Some(PathPattern::Prefix("/api/".into())));
    let link = |index| Link { plugin: PluginIndex(index), on_error: OnError::Closed, post_always: false };
    assert_eq!(route.links, [link(1), link(0)]);
    assert_eq!(*config.limits, crate::limits::Limits::default());
    assert_eq!(*route.timeouts, crate::limits::Timeouts::default());
}

#[test]
fn json_means_the_same_as_toml() {
    let json = serde_json::json!({
        "server": { "workers": 2, "admin": "127.0.0.1:9901" },
        "listener": [{ "address": "127.0.0.1:8080", "name": null }],
        "upstream": [{ "name": "app", "servers": ["127.0.0.1:9000"] }],
        "plugin": [
            { "name": "rate-limit", "path": "target/plugins/rate_limit.so", "on_error": "closed", "config": { "requests_per_second": 100 } },
            { "name": "request-id", "path": "target/plugins/request_id.so" },
        ],
        "route": [{ "path": "/api/", "upstream": "app", "plugins": ["request-id", "rate-limit"] }],
    });
    let from_json = good("r.JSON", &json.to_string());
    assert_eq!(Config { source: "r.toml".into(), ..from_json }, good("r.toml", DESIGN_EXAMPLE));
}

#[test]
fn a_null_is_an_absent_key_wherever_one_may_be_absent() {
    let text = |rest: &str| format!("{{\"listener\": [{{\"address\": \"127.0.0.1:80\"{rest}}}]");
    let plain = good("r.json", &(text("") + "}"));
    let nulls = r#", "server": null, "plugin": null, "limits": {"head_bytes": null}, "timeouts": {"head": null}, "http": {"path": null}}"#;
    assert_eq!(good("r.json", &(text(", \"backlog\": null, \"plugins\": null") + nulls)), plain);
    let errors = Config::parse("r.json", r#"{"listener": [{"address": null}]}"#, &variable).expect_err("it must be there");
    assert_eq!(errors.to_string(), "r.json:1:27: `address` must be a string, not null");
}

#[test]
fn variables_fill_strings_numbers_and_truth_values() {
    let config = good(
        "r.toml",
        "[server]\nworkers = \"${WORKERS}\"\nvia = \"${VIA:-false}\"\n[limits]\nhead_bytes = \"${KIB:-32}KiB\"\n[[listener]]\naddress = \"127.0.0.1:${PORT}\"\n",
    );
    assert_eq!((config.server.workers, config.server.via, config.limits.head_bytes), (Some(3), false, 32 << 10));
    assert_eq!(config.listeners[0].name, "127.0.0.1:8081");
}

#[test]
fn a_smaller_head_makes_unwritten_limits_smaller() {
    let config = with("[limits]\nhead_bytes = \"4KiB\"\nconnections = 100\n");
    let limits = &config.limits;
    assert_eq!((limits.line_bytes, limits.target_bytes, limits.connections_per_address), (4096, 4096, 100));
}

#[test]
fn every_part_of_an_upstream_is_read() {
    let config = good(
        "r.toml",
        r#"
        [[listener]]
        address = "unix:/run/r.sock"
        [[upstream]]
        name = "app"
        servers = ["App.example:80", { address = "unix:/run/app.sock", weight = 3 }]
        balance = "hash-header:X-User"
        host = "server"
        retries = 2
        idle_connections = 7
        resolve = "off"
        panic_percent = 0
        [upstream.health]
        status = "200,204,300-399"
        interval = "1s"
        timeout = "500ms"
        [upstream.outlier]
        failures = 0
        [[route]]
        upstream = "app"
        "#,
    );
    let name = ServerAddress::Name("app.example".into(), 80);
    assert_eq!(
        config.upstreams[0],
        Upstream {
            name: "app".into(),
            servers: vec![UpstreamServer { address: name, weight: 1 }, UpstreamServer { address: ServerAddress::Unix("/run/app.sock".into()), weight: 3 }],
            balance: Balance::HashHeader("x-user".into()),
            host: UpstreamHost::Server,
            retries: 2,
            idle_connections: 7,
            resolve_ms: 0,
            panic_percent: 0,
            health: Some(Health {
                kind: HealthKind::Http,
                path: "/".into(),
                host: None,
                status: vec![200..=200, 204..=204, 300..=399],
                interval_ms: 1000,
                timeout_ms: 500,
                rise: 2,
                fall: 3
            }),
            outlier: None,
        }
    );
}

#[test]
fn every_part_of_a_route_is_read() {
    let config = with(
        r#"
        [[plugin]]
        name = "a"
        path = "a.so"
        on_error = "open"
        [[route]]
        name = "r"
        listener = "127.0.0.1:80"
        host = ["Example.com", "*.example.com"]
        exact = "/x"
        method = "GET"
        header = { X-Version = "2", cookie = false }
        upstream = "app"
        plugins = ["a", { name = "a", on_error = "closed", post_always = true }]
        body_bytes = 0
        timeouts = { first_byte = "5s", exchange = "1m" }
        allow_upgrade = ["WebSocket"]
        connect_to = ["*.example.com:443"]
        "#,
    );
    let route = &config.routes[0];
    assert_eq!(route.listener, Some(ListenerIndex(0)));
    assert_eq!(route.hosts, [HostPattern::Exact("example.com".into()), HostPattern::Below(".example.com".into())]);
    assert_eq!(route.path, Some(PathPattern::Exact("/x".into())));
    assert_eq!(route.methods, ["GET"]);
    assert_eq!(route.headers, [("x-version".into(), HeaderMatch::Value("2".into())), ("cookie".into(), HeaderMatch::Present(false))]);
    let link = |on_error, post_always| Link { plugin: PluginIndex(0), on_error, post_always };
    assert_eq!(route.links, [link(OnError::Open, false), link(OnError::Closed, true)]);
    assert_eq!((route.body_bytes, route.timeouts.first_byte, route.timeouts.exchange, route.timeouts.head), (0, 5000, 60_000, 10_000));
    assert_eq!(route.allow_upgrade, ["websocket"]);
    assert_eq!(route.connect_to, [ConnectTarget { host: HostPattern::Below(".example.com".into()), port: 443 }]);
    assert_eq!(warnings(&config), ["the plugin `a` stands twice in this chain"]);
}

#[test]
fn placed_plugins_stand_around_the_own_ones_of_every_route() {
    let mut text = String::new();
    for (name, keys) in [
        ("a", "placement = \"pre_builtin\"\norder = 2"),
        ("b", "placement = \"pre_builtin\"\norder = -1"),
        ("c", ""),
        ("d", "order = 1"),
        ("e", "placement = \"builtin\"\norder = 9"),
        ("f", "placement = \"post_builtin\""),
    ] {
        text += &format!("[[plugin]]\nname = \"{name}\"\npath = \"x.so\"\n{keys}\n");
    }
    let config = with(&(text + "[[route]]\npath = \"/c\"\nupstream = \"app\"\nplugins = [\"c\"]\n[[route]]\nplugins = [\"f\", \"a\"]\n"));
    let chain = |route: usize| config.routes[route].links.iter().map(|link| config.plugin(link.plugin).name.as_str()).collect::<String>();
    assert_eq!(chain(0), "bacefd");
    assert_eq!(chain(1), "bfaed");
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    for (rest, expected) in [
        ("", vec!["there is no route: every request is answered 404", "no route leads to the upstream `app`"]),
        (
            "[server]\nadmin = \"0.0.0.0:1\"\nadmin_token = \"0123456789abcdef\"\n[[route]]\nupstream = \"app\"",
            vec!["the admin address 0.0.0.0:1 can be reached from other machines"],
        ),
        ("[[plugin]]\nname = \"p\"\npath = \"p.so\"\n[[route]]\nupstream = \"app\"", vec!["the plugin `p` is attached to no route and no listener"]),
        ("[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/api\"\nupstream = \"app\"", vec!["the route `/api` is never reached"]),
        (
            "[[route]]\npath = \"/a\"\nupstream = \"app\"\n[[route]]\nexact = \"/a/b\"\nmethod = \"GET\"\nupstream = \"app\"",
            vec!["the route `/a/b` is never reached"],
        ),
        ("[[route]]\nhost = \"*.b.c\"\nupstream = \"app\"\n[[route]]\nhost = [\"a.b.c\", \"d.c\"]\nupstream = \"app\"", vec![]),
        ("[[route]]\nmethod = \"GET\"\nupstream = \"app\"\n[[route]]\nupstream = \"app\"", vec![]),
        (
            "[[route]]\nheader = { a = true }\nupstream = \"app\"\n[[route]]\nheader = { a = \"1\", b = \"2\" }\nupstream = \"app\"",
            vec!["the route `/` is never reached"],
        ),
        ("[[route]]\nheader = { a = \"1\" }\nupstream = \"app\"\n[[route]]\nheader = { a = true }\nupstream = \"app\"", vec![]),
    ] {
        assert_eq!(warnings(&with(rest)), expected, "{rest}");
    }
    let config = with("[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/api\"\nupstream = \"app\"");
    assert_eq!(
        format!("{:#}", config.warnings[0]),
        "r.toml:8:1: the route `/api` is never reached\n   |\n 8 | [[route]]\n   | ^^^^^^^^^\n   = cause: the route `/` stands before it and matches everything that it matches\n   = help: put the more particular route first"
    );
}

#[test]
fn a_proxy_needs_no_file() {
    let config = Config::for_proxy("127.0.0.1:0", &["localhost:9000".into()], &["a/b c.so".into(), "x/b c.so".into()]).expect("good");
    assert_eq!(config.plugins.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>(), ["b-c", "b-c-2"]);
    assert_eq!(config.plugins[1].path, Path::new("x/b c.so"));
    assert_eq!(config.routes[0].links.len(), 2);
    assert_eq!(config.listeners[0].links.len(), 2);
    let errors = Config::for_proxy("8080", &["http://h".into()], &[]).expect_err("two mistakes").to_string();
    assert_eq!(
        errors,
        "--from: `8080` has no port\n   = help: did you mean `127.0.0.1:8080`?\n\n--to: `http://h` is a URL, not an address\n   = help: did you mean `h:80`?"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.toml");
    let name = path.display();
    let errors = Config::load(&path).expect_err("no such file").to_string();
    assert_eq!(
        errors,
        format!("{name}: the configuration cannot be read\n   = cause: No such file or directory (os error 2)\n   = help: give its path with `-c FILE`")
    );
    std::fs::write(&path, b"\n\n\xff").expect("written");
    let errors = Config::load(&path).expect_err("no text").to_string();
    assert_eq!(errors, format!("{name}: the configuration is not UTF-8: line 3 holds other bytes"));
}

#[test]
fn the_schema_is_valid_and_accepts_what_the_gateway_accepts() {
    let validator = jsonschema::draft202012::new(schema()).expect("a valid schema");
    let value = |text: &str| shape::check(&tree::Document::parse("r.toml", text).expect("valid TOML"), schema(), &mut Vec::new());
    assert_eq!(validator.validate(&value(DESIGN_EXAMPLE)).err().map(|error| error.to_string()), None);
    let defaults = serde_json::to_value(file::File::default()).expect("serializable");
    assert_eq!(validator.validate(&defaults).err().map(|error| error.to_string()), None, "the defaults themselves");
    for bad in [r#"{"sever": {}}"#, r#"{"server": {"workers": 0}}"#, r#"{"timeouts": {"head": "5 s"}}"#, r#"{"server": {"driver": "x"}}"#] {
        assert!(!validator.is_valid(&serde_json::from_str(bad).expect("JSON")), "{bad}");
    }
}
