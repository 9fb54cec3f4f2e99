//! What the commands that ask a running gateway print, and how they exit.

use serde_json::Value;

use crate::admin::*;
use crate::gateway::*;

/// Exit code, what was printed, what was said about problems.
fn run(governed: &Governed, arguments: &[&str]) -> (i32, String, String) {
    let output = ringway(arguments).env("RINGWAY_ADMIN", &governed.admin).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn plugins_are_listed_swapped_and_unloaded() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let [one, two] = ["1", "2"].map(|version| versioned(folder.path(), version, &[]));
    let governed = Governed::start(with_versioned(&one, &origin));
    governed.versions();
    let (code, out, err) = run(&governed, &["plugin", "list"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATUS", "VERSION", "LANGUAGE", "GENERATION", "CALLS", "ABORTS", "ATTACHED", "TO"]);
    assert_eq!(lines[1], ["versioned", "active", "1", "c", "1", "2", "0", "route", "all"]);
    for (arguments, expected) in [
        (vec!["plugin", "swap", "versioned", &two], "versioned: active, version 2, generation 2\n"),
        (vec!["plugin", "rollback", "versioned"], "versioned: active, version 1, generation 3\n"),
        (vec!["plugin", "disable", "versioned"], "versioned: disabled, version 1, generation 3\n"),
        (vec!["plugin", "enable", "versioned"], "versioned: active, version 1, generation 3\n"),
        (vec!["plugin", "load", "second", &two, "--route", "all", "--config", "{\"a\": 1}"], "second: active, version 2, generation 4\n"),
        (vec!["plugin", "unload", "second", "--force"], "second: unloaded; removed from route all\n"),
    ] {
        assert_eq!(run(&governed, &arguments), (0, expected.into(), String::new()), "{arguments:?}");
    }
    let (code, out, _) = run(&governed, &["plugin", "show", "versioned", "-j"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &shown["version"]), (0, &"1".into()));
    let (code, out, _) = run(&governed, &["plugin", "show", "versioned"]);
    assert!(code == 0 && out.contains("hooks           on_request, on_response\n"), "{out}");
    let (code, _, err) = run(&governed, &["plugin", "unload", "versioned"]);
    assert_eq!((code, err.as_str()), (1, "error: the plugin `versioned` is attached to route all; `force` removes these links\n\n"));
    governed.gateway.stop();
}

#[test]
fn chains_are_shown_with_their_costs_and_a_reload_says_what_is_wrong() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
    let governed = Governed::start(with_versioned(&versioned(folder.path(), "1", &[]), &origin));
    let (code, out, err) = run(&governed, &["chain", "show", "--route", "all"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "route all -> app\n    1  versioned  1  active  on_error=closed  0 calls\n    request head   may be re-written\n    \
         request body   streamed unseen\n    response head  shown, may be re-written\n    response body  streamed unseen\n    \
         cost           versioned: request head is re-written when it edits it\n    cost           versioned: response head is shown\n\n"
    );
    let (code, _, err) = run(&governed, &["chain", "show", "--route", "none"]);
    assert_eq!((code, err.as_str()), (1, "error: there is no route `none`\n   = help: the routes are: all\n\n"));
    let file = governed.file().display().to_string();
    assert_eq!(run(&governed, &["reload"]), (0, format!("{file}: in force\n"), String::new()));
    std::fs::write(governed.file(), "[servr]\n").unwrap();
    let (code, out, err) = run(&governed, &["reload"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with(&format!("error: {file}:1:2: unknown section [servr]")), "{err}");
    assert_eq!(run(&governed, &["plugin", "load", "x"]).0, 2, "wrong usage");
    governed.gateway.stop();
    let nobody = ringway(&["reload", "--admin", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8(nobody.stderr).unwrap().starts_with("error: no gateway answers at 127.0.0.1:1\n   = cause: "));
}
