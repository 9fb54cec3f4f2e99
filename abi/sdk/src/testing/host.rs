//! [`TestHost`]: one loaded plugin with one worker.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ptr::NonNull;
use std::time::Duration;

use ringway_abi::raw::{self, RawCx};

use super::exchange::{Answer, Exchange};
use super::maps::TestMap;
use super::table::{Call, LoadCall, TABLE};
use super::{Request, Response, probe};
use crate::{Export, Level, panics};

/// A loaded plugin with one core instance, worker 0. Dropping it runs `core_fini` and `unload`.
pub struct TestHost<P: Export> {
    pub(super) state: NonNull<State>,
    process: *mut c_void,
    pub(super) core: *mut c_void,
    of: PhantomData<P>,
}

/// What the host functions work on. Reached through raw pointers while a hook runs, by reference only between hooks.
pub(super) struct State {
    pub(super) wants: u64,
    pub(super) logs: Vec<LogLine>,
    pub(super) refusals: Vec<(&'static str, crate::HostError)>,
    pub(super) metrics: Vec<(String, u64)>,
    pub(super) interned: Vec<Vec<u8>>,
    pub(super) prebuilt: Vec<Answer>,
    pub(super) now_unix_ns: u64,
    pub(super) answer_bytes_max: usize,
    pub(super) exchange_bytes_max: usize,
    pub(super) upstreams: Vec<String>,
    /// Those that the plugin asks itself.
    pub(super) called: Vec<String>,
    pub(super) maps: Vec<TestMap>,
}

/// A line that the plugin logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How bad.
    pub level: Level,
    /// The text, cut at 1,024 bytes.
    pub text: String,
}

/// Why a plugin did not load: what an operator would read.
#[derive(Clone, PartialEq, Eq)]
pub struct LoadFailed(pub String);

impl<P: Export> TestHost<P> {
    /// Loads the plugin with this configuration (JSON) and makes its core instance.
    pub fn load(config: impl AsRef<[u8]>) -> Result<Self, LoadFailed> {
        panics::keep_default_hook();
        let plugin = P::DESCRIPTOR;
        let plugin = plugin.raw();
        let state = NonNull::from(Box::leak(Box::new(State::new(plugin))));
        // From here on, dropping `host` frees what was made.
        let mut host = TestHost { state, process: std::ptr::null_mut(), core: std::ptr::null_mut(), of: PhantomData };
        let (Some(load), Some(core_init)) = (plugin.load, plugin.core_init) else { unreachable!("the builder fills these") };
        let mut call = LoadCall { state, in_core_init: false, error: String::new() };
        let config = config.as_ref();
        let raw_loader = std::ptr::from_mut(&mut call).cast();
        // SAFETY: the contract of `load`: the table and the call live until it returns, the configuration has that length.
        let status = unsafe { load(&TABLE, raw_loader, config.as_ptr(), config.len() as u32, &mut host.process) };
        if status != raw::OK {
            host.process = std::ptr::null_mut();
            return Err(LoadFailed(call.error));
        }
        let mut call = LoadCall { state, in_core_init: true, error: String::new() };
        let raw_loader = std::ptr::from_mut(&mut call).cast();
        // SAFETY: the contract of `core_init`: `load` has stored the state; the table and the call live until it returns.
        if unsafe { core_init(&TABLE, raw_loader, host.process, 0, &mut host.core) } != raw::OK {
            host.core = std::ptr::null_mut();
            return Err(LoadFailed(call.error));
        }
        match probe::unlisted_hook::<P>(&mut host) {
            Some(hook) => Err(LoadFailed(format!("{hook} is implemented, but export_plugin! does not list it in `hooks`, so it would never be called"))),
            None => Ok(host),
        }
    }

    /// Begins an exchange. Its request gets an id of its own.
    pub fn exchange(&mut self, request: Request) -> Exchange<'_, P> {
        Exchange::new(self, request)
    }

    /// A whole exchange: pre hooks, `upstream` unless the plugin answered, post hooks, `on_done`; what the client gets.
    /// The body of the response comes in two pieces. A failing hook gives the 500 of `on_error = "closed"`.
    pub fn serve(&mut self, request: Request, upstream: impl FnOnce(&Request) -> Response) -> Answer {
        self.exchange(request).serve(upstream)
    }

    /// Runs `on_accept`; whether the connection stays open.
    pub fn accept(&mut self, peer: IpAddr) -> bool {
        let peer = match peer {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let event = raw::Accept { size: size_of::<raw::Accept>() as u32, listener: 0, peer_port: 40_000, peer_addr: peer.octets() };
        let Some(hook) = P::DESCRIPTOR.raw().on_accept else { return true };
        // SAFETY: the contract of hooks: the event lives until the hook returns.
        let verdict = self.call(raw::HOOK_ACCEPT, |cx| unsafe { hook(cx, &event) });
        matches!(verdict, raw::CONTINUE | raw::DONE)
    }

    /// Runs `on_tick`.
    pub fn tick(&mut self) {
        let now_unix_ns = self.state().now_unix_ns;
        let event = raw::Tick { size: size_of::<raw::Tick>() as u32, worker: 0, now_unix_ns };
        if let Some(hook) = P::DESCRIPTOR.raw().on_tick {
            // SAFETY: as above.
            self.call(raw::HOOK_TICK, |cx| unsafe { hook(cx, &event) });
        }
    }

    /// Sets both clocks forward.
    pub fn advance(&mut self, by: Duration) {
        self.state_mut().now_unix_ns += u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
    }

    /// The coarse clock, nanoseconds since the epoch.
    pub fn now_unix_ns(&self) -> u64 {
        self.state().now_unix_ns
    }

    /// The value of a metric by its name in `export_plugin!`; panics when there is no such metric.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        match self.state().metrics.iter().find(|(known, _)| known == name) {
            Some((_, value)) => *value,
            None => panic!("export_plugin! defines no metric {name:?}"),
        }
    }

    /// The value of a key in a map, by its name in `export_plugin!`; panics when there is no such map.
    #[track_caller]
    pub fn map_value(&self, name: &str, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.map(name).get(key.as_ref())
    }

    /// The records of a ring that nobody has taken yet; panics when there is no such map.
    #[track_caller]
    pub fn take_records(&mut self, name: &str) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.map(name).records.lock().expect("no test panics inside"))
    }

    #[track_caller]
    fn map(&self, name: &str) -> &TestMap {
        match self.state().maps.iter().find(|map| map.name == name) {
            Some(map) => map,
            None => panic!("export_plugin! defines no map {name:?}"),
        }
    }

    /// What was logged so far.
    pub fn logs(&self) -> &[LogLine] {
        &self.state().logs
    }

    /// The host calls that were refused so far: function of `rw_host` and reason.
    pub fn refusals(&self) -> &[(&'static str, crate::HostError)] {
        &self.state().refusals
    }

    /// The upstreams that the plugin can choose; none by default.
    pub fn set_upstreams(&mut self, names: &[&str]) {
        self.state_mut().upstreams = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// The bounds of an answer's body and of an exchange's memory, in bytes; 64 KiB each by default.
    pub fn set_limits(&mut self, answer_bytes_max: usize, exchange_bytes_max: usize) {
        let state = self.state_mut();
        (state.answer_bytes_max, state.exchange_bytes_max) = (answer_bytes_max, exchange_bytes_max);
    }

    /// Runs a hook outside exchanges.
    fn call(&mut self, hook: u32, run: impl FnOnce(*mut RawCx) -> u32) -> u32 {
        let mut call = Call::new(self.state, self.core, hook);
        run(std::ptr::from_mut(&mut call).cast())
    }

    pub(super) fn state(&self) -> &State {
        // SAFETY: the state is freed when `self` is dropped, and no hook runs while `self` is borrowed from outside.
        unsafe { self.state.as_ref() }
    }

    pub(super) fn state_mut(&mut self) -> &mut State {
        // SAFETY: as above.
        unsafe { self.state.as_mut() }
    }
}

impl<P: Export> Drop for TestHost<P> {
    fn drop(&mut self) {
        let plugin = P::DESCRIPTOR;
        if let Some(core_fini) = plugin.raw().core_fini {
            // SAFETY: the contract: after the last hook, with what `core_init` stored (null does nothing).
            unsafe { core_fini(self.core) };
        }
        if let Some(unload) = plugin.raw().unload {
            // SAFETY: the contract: after `core_fini`, with what `load` stored (null does nothing).
            unsafe { unload(self.process) };
        }
        // SAFETY: `load` leaked this box, and nothing points to it any more.
        drop(unsafe { Box::from_raw(self.state.as_ptr()) });
    }
}

impl State {
    fn new(plugin: &raw::Plugin) -> Self {
        let metrics = (0..plugin.metric_count as usize).map(|at| {
            // SAFETY: the builder made the descriptor: `metric_count` definitions, each with a NUL-terminated name.
            let name = unsafe { CStr::from_ptr((*plugin.metrics.add(at)).name) };
            (name.to_string_lossy().into_owned(), 0)
        });
        State {
            wants: plugin.wants,
            logs: Vec::new(),
            refusals: Vec::new(),
            metrics: metrics.collect(),
            interned: Vec::new(),
            prebuilt: Vec::new(),
            now_unix_ns: 1_700_000_000_000_000_000,
            answer_bytes_max: 64 * 1024,
            exchange_bytes_max: 64 * 1024,
            upstreams: Vec::new(),
            called: Vec::new(),
            maps: TestMap::all(plugin),
        }
    }
}

impl fmt::Debug for LoadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LoadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadFailed {}
