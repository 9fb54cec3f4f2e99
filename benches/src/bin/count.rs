//! Instructions per scenario, by callgrind, compared with `benches/instructions.txt`.
//!
//! The program runs itself under valgrind, once for all scenarios. Callgrind collects only inside [`ringway_counted`] and writes
//! one file each time that function returns, so that the n-th file is the n-th scenario. Every scenario has run twice before it
//! is counted: what is counted is warm. The first scenario does nothing; its count is what the counting itself costs and is taken
//! off the others.
//!
//! Counts do not depend on the clock, on other load, or on where memory lies; they do depend on the compiler and on whether the
//! processor has AVX2.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use ringway::http1::chunked::{ChunkLimits, ChunkStep, ChunkedDecoder};
use ringway::plugin::frame::MadeBody;
use ringway::route::RouteTable;
use ringway_abi::RequestView;
use ringway_benches::chains::{BareHook, LINK_COUNTS, LOOKUPS, Worker};
use ringway_benches::edits::{EDITS, three};
use ringway_benches::exchange::{Exchange, lay_out_made, write_request, write_response};
use ringway_benches::formats::{Buffers, FORMS};
use ringway_benches::inputs::{BROWSER_20, CHUNK_BYTES, GET_8, REQUESTS, RESPONSE_SMALL, RESPONSES, ROUTE_COUNTS, chunked_64k};
use ringway_benches::slots::{Received, config};
use rkyv::rancor::Error;

const HELP: &str = "\
Counts the instructions of each scenario with callgrind and compares them with benches/instructions.txt.

usage: count [--accept] [--tolerance PERCENT] [--print]

  --accept              write the counts to benches/instructions.txt
  --tolerance PERCENT   how much more than the file says is no failure (default 3, and always 5 instructions)
  --print               print the counts, compare nothing

exit: 0 nothing grew, 1 something grew or is not in the file, 2 valgrind or a plugin is missing";

/// Percent by which a count may exceed the accepted one.
const TOLERANCE: f64 = 3.0;
/// Instructions by which any count may exceed the accepted one: a few more or less come from alignment.
const SLACK: i64 = 5;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// Scenarios that compare: foreign code, mostly, whose allocations cost more or less with the lengths of paths. They never fail.
const CONTRAST: &str = "hop/";
/// The scenario that does nothing.
const NOTHING: &str = "nothing";

/// How a scenario's measured part is run: counted or not.
type Measure = fn(&mut dyn FnMut());

/// A name, and what sets up and then measures once.
type Scenario = (String, Box<dyn FnMut(Measure)>);

/// Callgrind collects between its entry and its return, and writes a file at its return.
#[unsafe(no_mangle)]
#[inline(never)]
fn ringway_counted(run: &mut dyn FnMut()) {
    run();
    // Not a tail call: this function has to return.
    black_box(run);
}

/// Not like [`ringway_counted`], or the compiler would make one function of the two.
fn uncounted(run: &mut dyn FnMut()) {
    run();
}

/// The result is made although nobody looks at it.
fn keep<T>(result: T) {
    black_box(result);
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut accept, mut print, mut tolerance) = (false, false, TOLERANCE);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--run" => {
                run_all();
                return ExitCode::SUCCESS;
            }
            "--accept" => accept = true,
            "--print" => print = true,
            "--tolerance" => match arguments.next().and_then(|percent| percent.parse().ok()) {
                Some(percent) => tolerance = percent,
                None => return refuse("--tolerance needs a number of percent"),
            },
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => return refuse(&format!("unknown argument {other}\n{HELP}")),
        }
    }
    let counts = match count() {
        Ok(counts) => counts,
        Err(reason) => return refuse(&reason),
    };
    let machine = machine();
    if print {
        print_counts(&counts);
        return ExitCode::SUCCESS;
    }
    if accept {
        return match std::fs::write(BASELINE, baseline_text(&counts, &machine)) {
            Ok(()) => {
                println!("{} scenarios accepted in {BASELINE}", counts.len());
                ExitCode::SUCCESS
            }
            Err(error) => refuse(&format!("cannot write {BASELINE}: {error}")),
        };
    }
    match std::fs::read_to_string(BASELINE) {
        Ok(text) => compare(&counts, &text, &machine, tolerance),
        Err(error) => refuse(&format!("cannot read {BASELINE}: {error}; make it with --accept")),
    }
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("count: {reason}");
    ExitCode::from(2)
}

/// Runs every scenario, each of them counted once. Under callgrind only.
fn run_all() {
    for (_, mut scenario) in scenarios() {
        scenario(uncounted);
        scenario(uncounted);
        scenario(ringway_counted);
    }
}

/// Runs this program under callgrind and reads what it wrote.
fn count() -> Result<Vec<(String, i64)>, String> {
    let names: Vec<String> = scenarios().into_iter().map(|(name, _)| name).collect();
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let folder = program.with_extension("callgrind");
    // Left from a run that was interrupted, or not there.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=ringway_counted", "--dump-after=ringway_counted", "--error-exitcode=9"]);
    valgrind.arg(format!("--callgrind-out-file={}", folder.join("part").display())).arg(&program).arg("--run");
    // The size of the environment moves the stack, and with it what copies cost.
    valgrind.env_clear();
    for kept in ["PATH", "HOME", "RINGWAY_PLUGINS", "XDG_RUNTIME_DIR", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            valgrind.env(kept, value);
        }
    }
    let output = valgrind.output().map_err(|error| format!("cannot run valgrind: {error} (Debian: apt-get install valgrind)"))?;
    if !output.status.success() {
        return Err(format!("valgrind failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let mut counts = Vec::new();
    let parts = names.len();
    if folder.join(format!("part.{}", parts + 1)).exists() {
        return Err(format!("callgrind wrote more than {parts} files: a scenario calls the counted function more than once"));
    }
    for (index, name) in names.into_iter().enumerate() {
        let part = folder.join(format!("part.{}", index + 1));
        counts.push((name, read_part(&part)?));
    }
    let _ = std::fs::remove_dir_all(&folder);
    let own = counts.first().map_or(0, |(_, count)| *count);
    Ok(counts.into_iter().skip(1).map(|(name, count)| (name, count - own)).collect())
}

/// The instructions of one file of callgrind.
fn read_part(part: &Path) -> Result<i64, String> {
    let text = std::fs::read_to_string(part).map_err(|error| format!("cannot read {}: {error}", part.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    line.and_then(|number| number.trim().parse().ok()).ok_or_else(|| format!("{} has no totals", part.display()))
}

/// What counts depend on.
fn machine() -> String {
    let rustc = Command::new("rustc").arg("--version").output().ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { "avx2" } else { "no avx2" };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = "no avx2";
    format!("{}, {}, {vectors}", rustc.as_deref().unwrap_or("rustc unknown"), std::env::consts::ARCH)
}

fn print_counts(counts: &[(String, i64)]) {
    for (name, count) in counts {
        println!("{name:<44} {count:>8}");
    }
}

fn baseline_text(counts: &[(String, i64)], machine: &str) -> String {
    let mut text = String::from("# Instructions per scenario, warm, by callgrind. See benches/README.md.\n# To accept new counts: benches/count --accept\n");
    let _ = writeln!(text, "# with: {machine}"); // writing to a String cannot fail
    for (name, count) in counts {
        let _ = writeln!(text, "{name:<44} {count:>8}");
    }
    text
}

fn compare(counts: &[(String, i64)], baseline: &str, machine: &str, tolerance: f64) -> ExitCode {
    let accepted: BTreeMap<&str, i64> = baseline
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' ').and_then(|(name, count)| Some((name.trim_end(), count.parse().ok()?))))
        .collect();
    let with = baseline.lines().find_map(|line| line.strip_prefix("# with: ")).unwrap_or("?");
    if with != machine {
        println!("note: the accepted counts were made with {with}; this is {machine}");
    }
    let vectors = |text: &str| text.rsplit(", ").next().map(str::to_owned);
    let comparable = vectors(with) == vectors(machine);
    let (mut grown, mut shrunk) = (0, 0);
    for (name, count) in counts {
        let verdict = match accepted.get(name.as_str()) {
            None => {
                grown += 1;
                "not in the file".to_owned()
            }
            Some(before) => {
                let percent = 100.0 * (*count as f64 / (*before).max(1) as f64 - 1.0);
                let gated = !name.starts_with(CONTRAST);
                let over = gated && percent > tolerance && count - before > SLACK;
                let under = gated && percent < -tolerance && before - count > SLACK;
                grown += usize::from(over);
                shrunk += usize::from(under);
                format!(
                    "{percent:+6.1} %{}",
                    if over {
                        "  MORE"
                    } else if under {
                        "  less"
                    } else {
                        ""
                    }
                )
            }
        };
        println!("{name:<44} {count:>8}  {verdict}");
    }
    for gone in accepted.keys().filter(|name| counts.iter().all(|(known, _)| known != *name)) {
        println!("{gone:<44}     gone");
    }
    println!("{} scenarios, {grown} over the tolerance of {tolerance} %, {shrunk} under it", counts.len());
    if grown > 0 || shrunk > 0 {
        println!("to accept these counts: benches/count --accept");
    }
    if !comparable {
        println!("not compared: vector instructions differ from those of the accepted counts");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(u8::from(grown > 0))
}

/// The list, in the order of the file.
fn scenarios() -> Vec<Scenario> {
    let mut list = List::default();
    list.add(NOTHING, |measure| measure(&mut || {}));
    heads(&mut list);
    hooks(&mut list);
    edits(&mut list);
    writers(&mut list);
    routes(&mut list);
    formats(&mut list);
    exchanges(&mut list);
    list.0
}

#[derive(Default)]
struct List(Vec<Scenario>);

impl List {
    fn add(&mut self, name: impl Into<String>, scenario: impl FnMut(Measure) + 'static) {
        self.0.push((name.into(), Box::new(scenario)));
    }
}

fn heads(list: &mut List) {
    let worker = Worker::new(&[]);
    for input in REQUESTS {
        let (mut received, names) = (Received::new(&worker.slab, input), worker.names.clone());
        list.add(format!("head/{}", input.name), move |measure| measure(&mut || keep(received.parse_request(&names))));
    }
    for input in RESPONSES {
        let (mut received, names) = (Received::new(&worker.slab, input), worker.names.clone());
        list.add(format!("head/{}", input.name), move |measure| measure(&mut || keep(received.parse_response(&names))));
    }
    for input in [GET_8, BROWSER_20] {
        let mut received = Received::new(&worker.slab, input);
        received.parse_request(&worker.names);
        list.add(format!("access/{}", input.name), move |measure| {
            let message = received.request();
            measure(&mut || assert!(rkyv::access::<RequestView, Error>(black_box(message.archive())).is_ok()));
        });
    }
    for chunk_bytes in CHUNK_BYTES {
        let body = chunked_64k(chunk_bytes);
        list.add(format!("chunked-64k/{chunk_bytes}"), move |measure| {
            measure(&mut || {
                let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
                let mut at = 0;
                while let Ok(ChunkStep::Data { at: range }) = decoder.step(&body, &mut at) {
                    black_box(range);
                }
            });
        });
    }
}

fn hooks(list: &mut List) {
    for (language, plugin) in LOOKUPS {
        let worker = Worker::new(&[plugin]);
        let mut received = Received::new(&worker.slab, GET_8);
        received.parse_request(&worker.names);
        let (mut bare, request) = (BareHook::new(plugin), received.request());
        list.add(format!("hook/call-alone/{language}"), move |measure| measure(&mut || keep(bare.call(request.request()))));
        for count in LINK_COUNTS {
            let mut frame = worker.frame();
            frame.set_request(received.request());
            frame.begin(&worker.shared, &worker.chain_of(count, plugin));
            list.add(format!("hook/chain-of-{count}/{language}"), move |measure| measure(&mut || keep(frame.run_request(0))));
        }
    }
    for (name, plugin, count) in [("none", "", 0), ("1-edit", "bench-set-response", 1), ("4-edits", "bench-set-response", 4)] {
        let worker = Worker::new(&["bench-set-response"]);
        let mut request = Received::new(&worker.slab, GET_8);
        request.parse_request(&worker.names);
        let mut response = Received::new(&worker.slab, RESPONSE_SMALL);
        response.parse_response(&worker.names);
        let mut frame = worker.frame();
        frame.set_request(request.request());
        frame.begin(&worker.shared, &worker.chain_of(count, plugin));
        frame.run_request(0);
        list.add(format!("hook/post/{name}"), move |measure| {
            frame.set_response(response.response());
            measure(&mut || keep(frame.run_response()));
        });
    }
    let worker = Worker::new(&["bench-chunk"]);
    let mut request = Received::new(&worker.slab, GET_8);
    request.parse_request(&worker.names);
    let mut frame = worker.frame();
    frame.set_request(request.request());
    frame.begin(&worker.shared, &worker.chain_of(1, "bench-chunk"));
    frame.run_request(0);
    let bytes = vec![b'x'; 4096];
    list.add("hook/chunk", move |measure| measure(&mut || keep(frame.run_response_chunk(&bytes, 0, false))));
}

fn edits(list: &mut List) {
    for input in [GET_8, BROWSER_20] {
        let worker = Worker::new(&[]);
        let mut received = Received::new(&worker.slab, input);
        received.parse_request(&worker.names);
        for (name, edit) in EDITS {
            let (mut message, names) = (None, worker.names.clone());
            let slot = RefCell::new(Received::new(&worker.slab, input));
            slot.borrow_mut().parse_request(&names);
            list.add(format!("edit/first/{}/{}", name.replace([',', ' '], "-").replace("--", "-"), input.name), move |measure| {
                let message = message.insert(slot.borrow_mut().request());
                measure(&mut || edit(message, &names));
            });
        }
        // What an edit costs once the copy has been made.
        for (name, edit) in EDITS {
            let names = worker.names.clone();
            let slot = RefCell::new(Received::new(&worker.slab, input));
            slot.borrow_mut().parse_request(&names);
            list.add(format!("edit/next/{}/{}", name.replace([',', ' '], "-").replace("--", "-"), input.name), move |measure| {
                let mut message = slot.borrow_mut().request();
                ringway_benches::edits::append(&mut message, &names);
                measure(&mut || edit(&mut message, &names));
            });
        }
        let names = worker.names.clone();
        list.add(format!("edit/three/{}", input.name), move |measure| {
            let mut message = received.request();
            measure(&mut || three(&mut message, &names));
        });
    }
}

fn writers(list: &mut List) {
    for input in [GET_8, BROWSER_20] {
        for edited in [false, true] {
            let worker = Worker::new(&[]);
            let mut received = Received::new(&worker.slab, input);
            let facts = received.parse_request(&worker.names);
            let mut message = received.request();
            if edited {
                three(&mut message, &worker.names);
            }
            let kind = if edited { "3-edits" } else { "as-received" };
            list.add(format!("write/{kind}/{}", input.name), move |measure| {
                measure(&mut || keep(write_request(&message, &received, facts.head_bytes as usize, &facts.dropped)));
            });
        }
    }
    for input in RESPONSES {
        let worker = Worker::new(&[]);
        let mut received = Received::new(&worker.slab, input);
        let facts = received.parse_response(&worker.names);
        let message = received.response();
        list.add(format!("write/as-received/{}", input.name), move |measure| {
            measure(&mut || keep(write_response(&message, &received, facts.head_bytes as usize, &facts.dropped)));
        });
    }
    let worker = Worker::new(&["bench-respond"]);
    let mut received = Received::new(&worker.slab, GET_8);
    received.parse_request(&worker.names);
    let chain = worker.chain_of(1, "bench-respond");
    let mut frame = worker.frame();
    list.add("write/made/hook-and-head", move |measure| {
        frame.set_request(received.request());
        frame.begin(&worker.shared, &chain);
        measure(&mut || {
            black_box(frame.run_request(0));
            let Some(MadeBody::InSlot { at, .. }) = frame.take_made_body() else { panic!("bench-respond answers from the slot") };
            black_box(lay_out_made(frame.response().expect("it was made"), at));
        });
        frame.end();
    });
}

fn routes(list: &mut List) {
    let worker = Worker::new(&[]);
    for count in ROUTE_COUNTS {
        let table = RouteTable::new(&config(count), None);
        let mut received = Received::new(&worker.slab, GET_8);
        received.parse_request(&worker.names);
        let message = received.request();
        list.add(format!("route/last-of-{count}"), move |measure| measure(&mut || keep(table.find(message.request(), 0))));
    }
}

fn formats(list: &mut List) {
    for input in [GET_8, BROWSER_20] {
        let worker = Worker::new(&["bench-lookup-c"]);
        let mut received = Received::new(&worker.slab, input);
        received.parse_request(&worker.names);
        for (name, form) in FORMS {
            let (mut buffers, message) = (Buffers::default(), received.request());
            list.add(format!("hop/{name}/{}", input.name), move |measure| measure(&mut || assert!(form(&mut buffers, message.request()))));
        }
        let mut frame = worker.frame();
        frame.set_request(received.request());
        frame.begin(&worker.shared, &worker.chain_of(1, "bench-lookup-c"));
        list.add(format!("hop/view/{}", input.name), move |measure| measure(&mut || keep(frame.run_request(0))));
    }
}

fn exchanges(list: &mut List) {
    let lookups = LOOKUPS.map(|(_, plugin)| plugin);
    for input in [GET_8, BROWSER_20] {
        for count in [0, 4, 16] {
            let plugins: Vec<_> = lookups.into_iter().cycle().take(count).collect();
            let mut exchange = Exchange::new(&plugins, input, RESPONSE_SMALL);
            list.add(format!("exchange/{count}-lookups/{}", input.name), move |measure| measure(&mut || keep(exchange.run())));
        }
        let mut exchange = Exchange::new(&["bench-lookup-c", "bench-set-request", "bench-lookup-zig", "bench-set-response"], input, RESPONSE_SMALL);
        list.add(format!("exchange/4-plugins-2-edits/{}", input.name), move |measure| measure(&mut || keep(exchange.run())));
        let mut exchange = Exchange::new(&["bench-respond"], input, RESPONSE_SMALL);
        list.add(format!("exchange/short-circuit/{}", input.name), move |measure| measure(&mut || keep(exchange.run())));
    }
}
