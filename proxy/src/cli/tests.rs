//! What is typed and what is printed.

use clap::{CommandFactory as _, Parser as _};
use ringway_abi::raw;

use super::*;

/// Runs a command line; gives the exit code, what went to `out`, and what went to `err`. `run` prints and returns 7.
fn ringway(arguments: &[&str]) -> (i32, String, String) {
    let cli = Cli::try_parse_from([&["ringway"], arguments].concat()).unwrap_or_else(|error| panic!("{error}"));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut served = None;
    let code = execute(cli, &Offer::V1_0, &mut out, &mut err, |config, _| {
        served = Some(format!("serving {} from {}\n", config.listeners[0].address, config.source));
        7
    });
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (code, text(out) + &served.unwrap_or_default(), text(err))
}

fn usage(arguments: &[&str]) -> (i32, String) {
    let error = Cli::try_parse_from([&["ringway"], arguments].concat()).expect_err("refused");
    (error.exit_code(), error.to_string())
}

fn written(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    (folder, path.display().to_string())
}

#[test]
fn the_definitions_are_sound_and_the_version_names_the_abi() {
    Cli::command().debug_assert();
    assert!(VERSION.ends_with(&format!("(plugin ABI {}.{})", raw::ABI_MAJOR, raw::ABI_MINOR)));
    assert_eq!(usage(&["--version"]), (0, format!("ringway {VERSION}\n")));
}

#[test]
fn help_teaches_with_examples_that_parse() {
    let (code, help) = usage(&["--help"]);
    assert_eq!(code, 0);
    let examples = help.lines().filter_map(|line| line.strip_prefix("  ringway "));
    let mut count = 0;
    for example in examples {
        for command in example.split("&& ringway ") {
            let words: Vec<&str> = command.split_whitespace().take_while(|word| ![">", "&&"].contains(word)).collect();
            Cli::try_parse_from([&["ringway"], words.as_slice()].concat()).unwrap_or_else(|error| panic!("{example}: {error}"));
            count += 1;
        }
    }
    assert!(count >= 5, "{count} examples in\n{help}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [&[][..], &["rum"], &["run"], &["proxy", "--from", "127.0.0.1:0"], &["plugin", "inspect"], &["check", "-x"]] {
        assert_eq!(usage(arguments).0, 2, "{arguments:?}");
    }
    assert!(usage(&["chek"]).1.contains("'check'"));
}

#[test]
fn the_schema_is_printed_as_json() {
    let (code, out, err) = ringway(&["config", "schema"]);
    assert_eq!((code, err.as_str()), (GOOD, ""));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).expect("JSON"), *config::schema());
}

#[test]
fn run_and_proxy_hand_a_checked_configuration_on() {
    let (_folder, path) = written("r.toml", "[[listener]]\naddress = \"127.0.0.1:80\"\n");
    let (code, out, err) = ringway(&["run", "-c", &path]);
    assert_eq!((code, out), (7, format!("serving 127.0.0.1:80 from {path}\n")));
    assert_eq!(err, "", "warnings are logged by whoever serves");
    let (code, out, err) = ringway(&["proxy", "--from", "127.0.0.1:0", "--to", "a:1", "--to", "b:1"]);
    assert_eq!((code, out.as_str(), err.as_str()), (7, "serving 127.0.0.1:0 from the command line\n", ""));
    let (code, out, err) = ringway(&["proxy", "--from", "8080", "--to", "a:1"]);
    assert_eq!((code, out.as_str()), (WRONG, ""));
    assert_eq!(err, "error: --from: `8080` has no port\n   = help: did you mean `127.0.0.1:8080`?\n\n");
}

#[test]
fn check_counts_the_problems() {
    let (_folder, path) = written("r.toml", "[sever]\n[[listener]]\nadress = \"127.0.0.1:80\"\n");
    let (code, out, err) = ringway(&["check", "-c", &path]);
    assert_eq!((code, out.as_str()), (WRONG, ""));
    assert_eq!(
        err,
        format!(
            "error: {path}:1:2: unknown section [sever]\n   |\n 1 | [sever]\n   |  ^^^^^\n   = help: did you mean [server]?\n\n\
             error: {path}:3:1: unknown key `adress` in [[listener]]\n   |\n 3 | adress = \"127.0.0.1:80\"\n   | ^^^^^^\n   = help: did you mean `address`?\n\n\
             {path}: 2 problems\n"
        )
    );
}

const PLUGIN: &str = r#"
#include <ringway.h>
static rw_verdict on_request(rw_cx *cx, const rw_request *r) { (void)cx; (void)r; return RW_CONTINUE; }
RW_DEFINE_NOTE("probe", "1.0.0", RW_LANG_C, RW_HOOK_REQUEST, WANTS, 0);
RW_EXPORT const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin), .abi_major = RW_ABI_MAJOR, .abi_minor = RW_ABI_MINOR, .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT, .wants = WANTS, .hooks = RW_HOOK_REQUEST, .name = "probe", .version = "1.0.0",
    .on_request = on_request,
};
"#;

fn plugin(wants: &str) -> (tempfile::TempDir, String) {
    let (folder, source) = written("probe.c", PLUGIN);
    let output = folder.path().join("probe.so").display().to_string();
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/../abi/include");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = std::process::Command::new(compiler).args(["-shared", "-fPIC", include, &format!("-DWANTS={wants}"), "-o", &output, &source]).status();
    assert!(status.expect("a C compiler").success());
    (folder, output)
}

#[test]
fn check_looks_into_the_plugins() {
    let (_silent_folder, silent) = plugin("0");
    let (_answering_folder, answering) = plugin("RW_WANT_RESPOND");
    let with = |path: &str, rest: &str| {
        written(
            "r.toml",
            &format!("[[listener]]\naddress = \"127.0.0.1:80\"\n[[plugin]]\nname = \"p\"\npath = \"{path}\"\n[[route]]\nplugins = [\"p\"]\n{rest}"),
        )
    };
    let (_folder, path) = with(&answering, "");
    let (code, out, err) = ringway(&["check", "-c", &path]);
    assert_eq!((code, err.as_str()), (GOOD, ""));
    assert_eq!(out, format!("{path}: good, with 1 listener, 0 upstreams, 1 plugin, 1 route\n  plugin p: probe 1.0.0 (c), {answering}\n"));

    let (_folder, path) = with(&silent, "");
    let (code, _, err) = ringway(&["check", "-c", &path]);
    let help = "   = cause: none of them declares `respond` in its `wants`\n   = help: add `upstream = \"NAME\"`, or a plugin that answers";
    assert_eq!(code, WRONG);
    assert_eq!(err, format!("error: {path}: the route `/` has no `upstream`, and none of its plugins answers\n{help}\n\n{path}: 1 problem\n"));

    let (_folder, path) = with("no/such.so", "");
    let (code, _, err) = ringway(&["check", "-c", &path]);
    assert_eq!(code, WRONG);
    assert!(err.starts_with("error: no/such.so: the plugin `p` is refused: the plugin cannot be read\n   = cause: No such file"), "{err}");

    let (_folder, path) = with(&answering, "[[listener]]\naddress = \"127.0.0.1:81\"\nplugins = [\"p\"]\n");
    let (code, _, err) = ringway(&["check", "-c", &path]);
    assert_eq!(code, GOOD);
    assert_eq!(err, format!("warning: {path}: the plugin `p` stands in a listener, but has no `on_accept`\n   = help: name it in a route\n\n"));
}

#[test]
fn inspect_prints_facts_for_people_and_programs() {
    let (folder, path) = plugin("RW_WANT_RESPOND");
    let (code, out, err) = ringway(&["plugin", "inspect", &path]);
    assert_eq!((code, err.as_str()), (GOOD, ""));
    assert!(
        out.starts_with(&format!("{path}\n  name         probe\n  version      1.0.0\n  language     c\n  abi          1.0, runs with 1.0 and newer\n")),
        "{out}"
    );
    assert!(out.contains("\n  hooks        on_request\n  wants        respond\n  scratch      none\n"), "{out}");

    let source = folder.path().join("probe.c").display().to_string();
    let (code, out, err) = ringway(&["plugin", "inspect", "-j", &path, &source]);
    assert_eq!((code, err.as_str()), (WRONG, ""));
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["loadable"], &lines[0]["name"], &lines[0]["hooks"][0]), (&true.into(), &"probe".into(), &"on_request".into()));
    assert_eq!((&lines[1]["loadable"], &lines[1]["reason"]), (&false.into(), &"this is no shared object: it is not an ELF file".into()));

    let (code, out, err) = ringway(&["plugin", "inspect", &source]);
    assert_eq!((code, out.as_str()), (WRONG, ""));
    assert!(err.starts_with(&format!("refused: {source}: this is no shared object: it is not an ELF file\n   = cause: ")), "{err}");
}
