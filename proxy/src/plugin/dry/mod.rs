//! The dry run: a plugin's whole life on golden frames, in a process that may die of it.
//!
//! Owns the order: `load`, `core_init`, `on_accept`, every frame, `on_tick`, the frames again for what is lost on the way,
//! `core_fini`, `unload`. The frame and the host are the gateway's own ([`super::frame`], [`super::host`]); `watch` stands between
//! them and the plugin. What happens is told as it happens ([`said`]), because the process may end at any call. Must not: run in
//! the process of a gateway.
//!
//! Read first: `verify`, which starts that process and reads what it says.

mod crash;
mod drive;
pub mod frames;
mod pen;
pub mod said;
mod show;
mod watch;

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};
use ringway_abi::raw;
use serde::{Deserialize, Serialize};

use self::drive::{Drive, Ended};
use self::frames::Sample;
use self::said::{Found, Said, Step};
use super::chain::{CoreChain, LinkCounters, LinkParts, OnError};
use super::frame::{Frame, tick};
use super::host::HostShared;
use super::inspect::{Offer, inspect_bytes};
use super::loaded::{CorePlugin, LoadFault, PluginVersion, kept_path, metric_storage};
use super::outcall::OutcallBounds;
use crate::clock;
use crate::http1::names::NameTable;
use crate::limits;

/// Rounds of all frames that memory is measured over.
const LEAK_ROUNDS: usize = 8;
/// Rounds before that, in which a plugin may fill what it keeps.
const WARM_ROUNDS: usize = 4;
/// How often a process that times says that it is alive.
const HEARTBEAT_MS: u64 = 200;

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Its SHA-256 in hex, of the bytes that were inspected.
    pub hash: String,
    /// JSON for `load`.
    pub config: String,
    /// Where the private copy is.
    pub store: PathBuf,
    /// The exchanges.
    pub frames: Vec<Sample>,
    /// Time the hooks over so many rounds instead of watching them.
    pub repeat: Option<u64>,
}

/// Runs the job and says what happens on `to`. The exit code of the process.
pub fn run(job: Job, to: &'static fs::File) -> i32 {
    let mut sink = to;
    let say = Box::new(move |said: &Said| {
        let mut line = serde_json::to_vec(said).unwrap_or_default();
        line.push(b'\n');
        // Whoever does not listen any more will kill this process.
        let _ = sink.write_all(&line);
    });
    let outcome = crash::install(to.as_fd()).map_err(|error| error.to_string()).and_then(|()| rehearse(&job, say));
    match outcome {
        Ok(None) => {
            watch::say(&Said::End);
            0
        }
        Ok(Some(found)) => {
            watch::say(&Said::Found(found));
            1
        }
        Err(why) => {
            watch::say(&Said::Unable(why));
            2
        }
    }
}

/// What was found, if anything.
fn rehearse(job: &Job, say: Box<dyn FnMut(&Said)>) -> Result<Option<Found>, String> {
    let copy = kept_path(&job.store, &job.hash);
    let bytes = fs::read(&copy).map_err(|error| format!("cannot read {}: {error}", copy.display()))?;
    let facts = inspect_bytes(&bytes, &Offer::V1_0).map_err(|refusal| refusal.to_string())?;
    if facts.file_hash != job.hash {
        return Err("the private copy of the plugin was changed".into());
    }
    let scratch_bytes = facts.scratch_bytes as usize;
    let (name, stays) = (facts.name.clone(), facts.stays_loaded);
    watch::Watch::install(scratch_bytes, say).map_err(|error| format!("no guarded memory: {error}"))?;
    let (threads, files) = (entries("/proc/self/task"), entries("/proc/self/fd"));
    at("load");
    let mut names = NameTable::new();
    let maps = PluginVersion::maps_alone(&facts).map_err(|fault| fault.to_string())?;
    let version = match PluginVersion::open(&copy, &watch::WATCHED, &name, facts, job.config.as_bytes(), &mut names, maps) {
        Ok(version) => version,
        Err(LoadFault::Open(why)) => return Ok(Some(Found::Open(why))),
        Err(LoadFault::Descriptor(why)) => return Ok(Some(Found::Descriptor(why.to_owned()))),
        Err(LoadFault::Load(why)) => return Ok(Some(Found::Load(why))),
        Err(fault) => return Err(fault.to_string()),
    };
    if let Some((from, to)) = mapping(&job.hash) {
        watch::say(&Said::Mapped { from, to });
    }
    good("load", watch::last_log().map_or_else(|| "done".to_owned(), |log| format!("done, and logged: {log}")));
    // Once more, so that the code stays until what runs after `unload` has been counted.
    // SAFETY: the library is open already: its constructors have run.
    let library = unsafe { Library::open(Some(&copy), RTLD_LAZY | RTLD_LOCAL) }.map_err(|error| error.to_string())?;
    let version = Arc::new(version);
    at("core_init");
    let plugin = match CorePlugin::new(Arc::clone(&version), 0, metric_storage(version.metrics().len())) {
        Ok(plugin) => plugin,
        Err(why) => return Ok(Some(Found::CoreInit(why.rsplit_once("on worker 0: ").map_or(why.clone(), |(_, why)| why.to_owned())))),
    };
    good("core_init", "done".to_owned());
    if let Some(found) = exchanges(job, &plugin, names)? {
        return Ok(Some(found));
    }
    at("core_fini");
    drop(plugin);
    good("core_fini", "done".to_owned());
    at("unload");
    drop(version);
    if !stays {
        let left = |now: usize, before: usize| now.saturating_sub(before) as u64;
        if let threads @ 1.. = left(settled("/proc/self/task", threads), threads) {
            return Ok(Some(Found::Threads(threads)));
        }
        if let files @ 1.. = left(entries("/proc/self/fd"), files) {
            return Ok(Some(Found::Files(files)));
        }
    }
    drop(library);
    good("unload", if stays { "done; the library stays mapped".to_owned() } else { "done".to_owned() });
    Ok(None)
}

fn exchanges(job: &Job, plugin: &Rc<CorePlugin>, names: NameTable) -> Result<Option<Found>, String> {
    let counters = Arc::new(LinkCounters::default());
    let parts = LinkParts { plugin: Rc::clone(plugin), on_error: OnError::Closed, post_always: false, counters: Arc::clone(&counters) };
    let mut chain = CoreChain::new(vec![parts]);
    for link in &mut chain.links {
        if job.repeat.is_some() { watch::time_link(link) } else { watch::watch_link(link) }
    }
    let shared = Rc::new(HostShared {
        names: Arc::new(names),
        slab: drive::slab(&job.frames).map_err(|error| format!("no memory for messages: {error}"))?,
        no_chain: Rc::default(),
        // It has those that the plugin calls.
        upstreams: plugin.version().upstreams().to_vec(),
        plugin_response_bytes: limits::PLUGIN_RESPONSE_BYTES,
        plugin_alloc_bytes: limits::PLUGIN_ALLOC_BYTES,
        replacement_bytes: limits::BODY_BUFFER_BYTES,
        waits_max: limits::SUSPENDED,
        outcalls: OutcallBounds::of(&limits::Limits::default()),
    });
    let chain = Rc::new(chain);
    let mut drive = Drive { shared: Rc::clone(&shared), chain: Rc::clone(&chain), exchanges: 0, outcalls: Cell::new(0) };
    let mut frame = Frame::new(Rc::clone(&shared), 0).with_waits(Rc::default());
    let aborts = || counters.aborts.load(std::sync::atomic::Ordering::Relaxed);
    if let Some(repeat) = job.repeat {
        return time(job, &mut drive, &mut frame, repeat);
    }
    if chain.plan().has_hook(raw::HOOK_ACCEPT) {
        for peer in frames::PEERS {
            let accept = raw::Accept { size: size_of::<raw::Accept>() as u32, listener: 0, peer_port: 49152, peer_addr: peer };
            frame.run_accept(&chain, &accept);
            if let Some(found) = verdict_found(aborts() > 0) {
                return Ok(Some(found));
            }
        }
        good("on_accept", spell(&watch::calls()));
    }
    for sample in &job.frames {
        let before = aborts();
        let ended = round(&mut drive, &mut frame, sample)?;
        if let Some(found) = verdict_found(ended == Ended::Failed || aborts() > before) {
            return Ok(Some(found));
        }
        good(&format!("frame {}", sample.name), spell(&watch::calls()));
    }
    if plugin.version().descriptor().on_tick.is_some() {
        watch::begin(None).map_err(|error| error.to_string())?;
        let failed = tick(&shared, Rc::clone(&chain), watch::TICK, 0).is_some();
        if let Some(found) = verdict_found(failed) {
            return Ok(Some(found));
        }
        good("on_tick", spell(&watch::calls()));
    }
    for _ in 0..WARM_ROUNDS {
        all(job, &mut drive, &mut frame)?;
    }
    let mut least = u64::MAX;
    let mut before = heap_bytes();
    for _ in 0..LEAK_ROUNDS {
        all(job, &mut drive, &mut frame)?;
        let now = heap_bytes();
        least = least.min(now.saturating_sub(before));
        before = now;
    }
    if let Some(found) = watch::found() {
        return Ok(Some(found));
    }
    if least > 0 {
        return Ok(Some(Found::Leak(least)));
    }
    good("heap", format!("no growth over {LEAK_ROUNDS} rounds of {} frames", job.frames.len()));
    Ok(None)
}

fn all(job: &Job, drive: &mut Drive, frame: &mut Frame) -> Result<(), String> {
    for sample in &job.frames {
        round(drive, frame, sample)?;
    }
    Ok(())
}

/// One exchange, with guarded memory of its own.
fn round(drive: &mut Drive, frame: &mut Frame, sample: &Sample) -> Result<Ended, String> {
    watch::begin(Some(&sample.name)).map_err(|error| format!("the frame `{}`: {error}", sample.name))?;
    let ended = drive.exchange(sample, frame).map_err(|why| format!("the frame `{}`: {why}", sample.name));
    watch::end();
    ended
}

/// `run`: every frame so many times.
fn time(job: &Job, drive: &mut Drive, frame: &mut Frame, repeat: u64) -> Result<Option<Found>, String> {
    for sample in &job.frames {
        watch::say(&Said::At(Step { function: "the hooks".into(), frame: Some(sample.name.clone()) }));
        let mut said_ms = clock::monotonic_ms();
        for _ in 0..repeat {
            round(drive, frame, sample)?;
            if clock::monotonic_ms() - said_ms > HEARTBEAT_MS {
                said_ms = clock::monotonic_ms();
                watch::say(&Said::At(Step { function: "the hooks".into(), frame: Some(sample.name.clone()) }));
            }
        }
        for timed in watch::timings() {
            watch::say(&Said::Timed(timed));
        }
    }
    Ok(None)
}

/// What the watch has found, or what a hook's verdict amounts to when the frame called it a fault.
fn verdict_found(failed: bool) -> Option<Found> {
    if let Some(found) = watch::found() {
        return Some(found);
    }
    if !failed {
        return None;
    }
    let (step, verdict, log) = watch::last_fault();
    Some(match verdict {
        raw::ABORTED | raw::PANICKED => Found::Aborted(step, log),
        raw::RESPOND => Found::NothingWritten(step),
        raw::NEED_BODY => Found::BodyNotDeclared(step),
        other => Found::BadVerdict(step, other),
    })
}

fn at(function: &str) {
    watch::say(&Said::At(Step { function: function.to_owned(), frame: None }));
}

fn good(name: &str, detail: String) {
    watch::say(&Said::Good { name: name.to_owned(), detail });
}

/// The calls in order; the same one several times in a row is said once.
fn spell(calls: &[(&str, u32)]) -> String {
    if calls.is_empty() {
        return "no hook of the plugin is called".to_owned();
    }
    let runs = calls.chunk_by(|a, b| a == b).map(|run| {
        let (hook, verdict) = run[0];
        // Its verdict is ignored.
        let verdict = if hook == "on_done" { String::new() } else { format!(" {}", verdict_name(verdict)) };
        let times = if run.len() > 1 { format!(" ×{}", run.len()) } else { String::new() };
        format!("{hook}{verdict}{times}")
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// The name of a verdict.
fn verdict_name(verdict: u32) -> String {
    const NAMES: [&str; 9] = ["ABORTED", "CONTINUE", "DONE", "RESPOND", "DROP", "SUSPEND", "NEED_BODY", "TAIL", "PANICKED"];
    NAMES.get(verdict as usize).map_or_else(|| verdict.to_string(), |name| (*name).to_owned())
}

/// The name of a hook's bit.
fn hook_name(hook: u32) -> &'static str {
    raw::HOOKS.iter().find(|(bit, _)| *bit == hook).map_or("no hook", |(_, name)| name)
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// The entries once those that are about to go have gone: a joined thread stays in the list for a moment.
fn settled(folder: &str, expected: usize) -> usize {
    for _ in 0..50 {
        if entries(folder) <= expected {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    entries(folder)
}

/// Where the library with this hash in its name is mapped.
fn mapping(hash: &str) -> Option<(u64, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut found: Option<(u64, u64)> = None;
    for line in maps.lines().filter(|line| line.contains(hash)) {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        found = Some(found.map_or((from, to), |(least, most)| (least.min(from), most.max(to))));
    }
    found
}

/// Bytes in use of the C library's allocator, which plugins in C and Rust use.
fn heap_bytes() -> u64 {
    // SAFETY: no argument; it only reads the allocator's own numbers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks as u64 + info.hblkhd as u64
}
