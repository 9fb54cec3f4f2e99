//! A loaded plugin: the library, its descriptor, what `load` made, and the per-core instances.
//!
//! Owns: `dlopen`, the calls of `load`, `unload`, `core_init`, `core_fini`. Must not: call hooks (see [`super::frame`]).
//! Everything that can be refused has been refused by [`super::inspect`] before a library is opened.
//!
//! Order of life: [`PluginVersion::load`] on the main thread, [`CorePlugin::new`] on each worker, hooks, `CorePlugin`
//! dropped on its worker (`core_fini`), `PluginVersion` dropped after the last of them (`unload`, `dlclose`).

use std::ffi::{CStr, c_char, c_void};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use ringway_abi::raw::{self, Host, METRIC_COUNTER, METRIC_GAUGE, RawLoader};

use super::host::HOST;
use super::inspect::PluginFacts;
use super::maps::Map;
use super::maps::calls::{MapHandle, handles};
use super::maps::file::MapFault;
use super::maps::store::anonymous;
use super::running::during;
use crate::http1::names::NameTable;

/// Responses one plugin may lay out at load.
pub const PREBUILT_MAX: usize = 256;
/// Cores for which there is room in the maps of a version that is loaded without others.
const CORES_ALONE: u32 = 64;
/// Bytes of the text of `load_error` that are kept.
const ERROR_BYTES_MAX: usize = 1023;

/// A metric of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// `[a-z0-9_]+`
    pub name: String,
    /// One line for people.
    pub help: String,
    /// A gauge when true, a counter otherwise.
    pub gauge: bool,
}

/// A response laid out once, by `prebuilt_add`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prebuilt {
    /// 200..=599
    pub status: u16,
    /// Checked names and values.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a plugin could not be loaded, after inspection had accepted it.
#[derive(Debug)]
pub enum LoadFault {
    /// The copy that is opened could not be made.
    Copy(PathBuf, io::Error),
    /// Its maps cannot be had.
    Maps(MapFault),
    /// The dynamic loader refused it.
    Open(String),
    /// The descriptor in memory is not what the file promised.
    Descriptor(&'static str),
    /// `load` failed: its status, and the plugin's words.
    Load(String),
}

impl std::fmt::Display for LoadFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadFault::Copy(path, error) => write!(f, "cannot keep a private copy at {}: {error}", path.display()),
            LoadFault::Maps(fault) => write!(f, "{fault}"),
            LoadFault::Open(text) => write!(f, "the dynamic loader refused it: {text}"),
            LoadFault::Descriptor(what) => write!(f, "its descriptor is malformed: {what}"),
            LoadFault::Load(text) => write!(f, "its load function failed: {text}"),
        }
    }
}

impl std::error::Error for LoadFault {}

/// One loaded version of a plugin, shared by all workers.
pub struct PluginVersion {
    name: String,
    /// What `load` was given.
    host: &'static Host,
    facts: PluginFacts,
    plugin: &'static raw::Plugin,
    state: *mut c_void,
    metrics: Vec<Metric>,
    prebuilt: Vec<Prebuilt>,
    /// The upstreams that it calls itself.
    upstreams: Vec<String>,
    maps: Vec<Arc<Map>>,
    /// What `load` opened of them.
    _handles: Box<[MapHandle]>,
    /// Last field: closed after everything that points into it. `None`: never opened, and the descriptor is [`NOTHING`].
    library: Option<Library>,
}

/// The descriptor of a plugin that was not opened.
const NOTHING: &raw::Plugin = &raw::Plugin {
    size: size_of::<raw::Plugin>() as u32,
    abi_major: raw::ABI_MAJOR,
    abi_minor: raw::ABI_MINOR,
    abi_min_minor: 0,
    language: 0,
    scratch_bytes: 0,
    layout_fingerprint: 0,
    wants: 0,
    hooks: 0,
    reserved: 0,
    name: ptr::null(),
    version: ptr::null(),
    metrics: ptr::null(),
    maps: ptr::null(),
    metric_count: 0,
    map_count: 0,
    metric_bytes: 0,
    map_bytes: 0,
    load: None,
    unload: None,
    core_init: None,
    core_fini: None,
    on_accept: None,
    on_request: None,
    on_request_chunk: None,
    on_request_body: None,
    on_response: None,
    on_response_chunk: None,
    on_event: None,
    on_done: None,
    on_tick: None,
    get_ext: None,
};

// SAFETY: the descriptor and the library are constant; the ABI says that `state` is shared by the cores, so the plugin
// answers for its own synchronisation; everything else is plain data that does not change after `load`.
unsafe impl Send for PluginVersion {}
// SAFETY: as above.
unsafe impl Sync for PluginVersion {}

/// What the host functions of `load` and `core_init` write to. `RawLoader` is this, behind an opaque pointer.
pub(super) struct Loader<'a> {
    pub(super) plugin: &'a str,
    /// What only `load` may add to; `None` in `core_init`.
    pub(super) settling: Option<Settling<'a>>,
    /// Its maps, as they are seen there.
    pub(super) maps: &'a [MapHandle],
    error: Vec<u8>,
}

/// Header names and laid out responses: settled when `load` returns.
pub(super) struct Settling<'a> {
    pub(super) names: &'a mut NameTable,
    pub(super) prebuilt: Vec<Prebuilt>,
    /// The upstreams that it will call.
    pub(super) upstreams: Vec<String>,
    /// What its descriptor says.
    pub(super) wants: u64,
}

impl Loader<'_> {
    /// Why it failed: the plugin's words, or else what it returned.
    fn reason(&self, status: i32) -> String {
        match self.error.as_slice() {
            [] => format!("it gave no reason, only the status {status}"),
            text => String::from_utf8_lossy(text).into_owned(),
        }
    }

    pub(super) fn set_error(&mut self, text: &[u8]) {
        self.error.clear();
        self.error.extend_from_slice(&text[..text.len().min(ERROR_BYTES_MAX)]);
    }
}

impl PluginVersion {
    /// [`PluginVersion::load_with_maps`], with maps that end with it and have room for `CORES_ALONE` cores.
    ///
    /// # Errors
    /// [`LoadFault`]; the library is closed again then.
    pub fn load(name: &str, facts: PluginFacts, bytes: &[u8], config: &[u8], store: &Path, names: &mut NameTable) -> Result<PluginVersion, LoadFault> {
        let maps = PluginVersion::maps_alone(&facts)?;
        PluginVersion::load_with_maps(name, facts, bytes, config, store, names, maps)
    }

    /// Maps of their own for a version that is loaded without others.
    pub(super) fn maps_alone(facts: &PluginFacts) -> Result<Vec<Arc<Map>>, LoadFault> {
        facts.maps.iter().map(|shape| anonymous(shape, CORES_ALONE).map(Arc::new)).collect::<Result<_, _>>().map_err(LoadFault::Maps)
    }

    /// Opens a private copy of `bytes` (which [`super::inspect`] accepted as `facts`) and runs `load` with `config` (JSON).
    /// `name` is the name of the configuration; header names that the plugin registers go to `names`. `maps` are those of
    /// `facts`, in that order.
    ///
    /// # Errors
    /// [`LoadFault`]; the library is closed again then.
    pub fn load_with_maps(
        name: &str,
        facts: PluginFacts,
        bytes: &[u8],
        config: &[u8],
        store: &Path,
        names: &mut NameTable,
        maps: Vec<Arc<Map>>,
    ) -> Result<PluginVersion, LoadFault> {
        let path = private_copy(store, &facts.file_hash, bytes).map_err(|e| LoadFault::Copy(store.to_path_buf(), e))?;
        PluginVersion::open(&path, &HOST, name, facts, config, names, maps)
    }

    /// Opens the private copy at `path`, with this host table.
    pub(super) fn open(
        path: &Path,
        host: &'static Host,
        name: &str,
        facts: PluginFacts,
        config: &[u8],
        names: &mut NameTable,
        maps: Vec<Arc<Map>>,
    ) -> Result<PluginVersion, LoadFault> {
        // SAFETY: running the constructors of a shared object is what loading a trusted plugin means (DESIGN §8); it has
        // passed every check that can be made without running it.
        let opened = during(name, &facts, "constructor", || unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) });
        let library = opened.map_err(|e| LoadFault::Open(words_of(&e)))?;
        // SAFETY: inspection found a data symbol of this name and at least the size of the descriptor in the file.
        let symbol = unsafe { library.get::<*const raw::Plugin>(raw::SYMBOL) }.map_err(|e| LoadFault::Open(words_of(&e)))?;
        let address = symbol.into_raw().cast::<raw::Plugin>();
        if address.is_null() || !address.is_aligned() {
            return Err(LoadFault::Descriptor("the symbol is not aligned"));
        }
        // SAFETY: aligned and not null (checked), as large as the descriptor (inspected), and constant while the library
        // is open, which is longer than this reference is used.
        let plugin: &'static raw::Plugin = unsafe { &*address };
        let metrics = read_metrics(plugin)?;
        let handles = handles(&maps, None);
        let mut loader = Loader {
            plugin: name,
            settling: Some(Settling { names, prebuilt: Vec::new(), upstreams: Vec::new(), wants: facts.wants }),
            maps: &handles,
            error: Vec::new(),
        };
        let mut state = ptr::null_mut();
        if let Some(load) = plugin.load {
            let loader_pointer = ptr::from_mut(&mut loader).cast::<RawLoader>();
            // SAFETY: the contract of `load` in ringway.h: all pointers are valid for the call, on this one thread.
            let status = during(name, &facts, "load", || unsafe { load(host, loader_pointer, config.as_ptr(), config.len() as u32, &mut state) });
            if status != raw::OK {
                return Err(LoadFault::Load(loader.reason(status)));
            }
        }
        let (prebuilt, upstreams) = loader.settling.map(|settling| (settling.prebuilt, settling.upstreams)).unwrap_or_default();
        Ok(PluginVersion { name: name.to_owned(), host, facts, plugin, state, metrics, prebuilt, upstreams, maps, _handles: handles, library: Some(library) })
    }

    /// One that stands in its place in chains and is not opened: none of its code runs, not even its constructors.
    pub fn unopened(name: &str, facts: PluginFacts) -> PluginVersion {
        PluginVersion {
            name: name.to_owned(),
            host: &HOST,
            facts,
            plugin: NOTHING,
            state: ptr::null_mut(),
            metrics: Vec::new(),
            prebuilt: Vec::new(),
            upstreams: Vec::new(),
            maps: Vec::new(),
            _handles: Box::default(),
            library: None,
        }
    }

    /// Whether its library is open.
    pub fn is_open(&self) -> bool {
        self.library.is_some()
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its file says.
    pub fn facts(&self) -> &PluginFacts {
        &self.facts
    }

    /// The descriptor, for its hooks.
    pub(super) fn descriptor(&self) -> &'static raw::Plugin {
        self.plugin
    }

    /// Its metrics, in the order of their numbers.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// Its maps, in the order of their definitions.
    pub fn maps(&self) -> &[Arc<Map>] {
        &self.maps
    }

    /// The upstreams that it calls itself, in the order of their numbers.
    pub fn upstreams(&self) -> &[String] {
        &self.upstreams
    }

    /// The name of the upstream with this number.
    pub(super) fn upstream(&self, number: u32) -> Option<&str> {
        self.upstreams.get(number as usize).map(String::as_str)
    }

    /// The response laid out as number `id`.
    pub(super) fn prebuilt(&self, id: u32) -> Option<&Prebuilt> {
        self.prebuilt.get(id as usize)
    }
}

impl Drop for PluginVersion {
    fn drop(&mut self) {
        if let Some(unload) = self.plugin.unload {
            // SAFETY: `load` succeeded, every core instance is gone (each holds this version alive), and it is called once.
            during(&self.name, &self.facts, "unload", || unsafe { unload(self.state) });
        }
    }
}

/// The instance of a plugin on one worker. Not `Send`: all its calls happen on the thread that made it.
pub struct CorePlugin {
    version: Arc<PluginVersion>,
    core: *mut c_void,
    metrics: Arc<[AtomicU64]>,
    /// What `core_init` opened of its maps; dropped after `core_fini` (see `Drop`).
    _handles: Box<[MapHandle]>,
}

impl CorePlugin {
    /// Runs `core_init` on this thread. `metrics` is this worker's storage, one word per metric of the plugin.
    ///
    /// # Errors
    /// When `core_init` fails, with the plugin's words.
    pub fn new(version: Arc<PluginVersion>, worker: u32, metrics: Arc<[AtomicU64]>) -> Result<Rc<CorePlugin>, String> {
        let mut core = version.state;
        let handles = handles(&version.maps, Some(worker));
        if let Some(init) = version.plugin.core_init {
            core = ptr::null_mut();
            let mut loader = Loader { plugin: &version.name, settling: None, maps: &handles, error: Vec::new() };
            let loader_pointer = ptr::from_mut(&mut loader).cast::<RawLoader>();
            // SAFETY: the contract of `core_init`: called once for this worker, on its thread, after `load`; all pointers
            // are valid for the call.
            let status = during(&version.name, &version.facts, "core_init", || unsafe { init(version.host, loader_pointer, version.state, worker, &mut core) });
            if status != raw::OK {
                return Err(format!("plugin {}: core_init failed on worker {worker}: {}", version.name, loader.reason(status)));
            }
        }
        Ok(Rc::new(CorePlugin { version, core, metrics, _handles: handles }))
    }

    /// The version it is an instance of.
    pub fn version(&self) -> &Arc<PluginVersion> {
        &self.version
    }

    pub(super) fn core(&self) -> *mut c_void {
        self.core
    }

    /// Metric `index` of this worker, when the plugin defined it.
    pub(super) fn metric(&self, index: u32) -> Option<&AtomicU64> {
        self.metrics.get(index as usize)
    }
}

impl Drop for CorePlugin {
    fn drop(&mut self) {
        if let (Some(_), Some(fini)) = (self.version.plugin.core_init, self.version.plugin.core_fini) {
            // SAFETY: `core_init` succeeded on this thread (`CorePlugin` is not `Send`), its last hook has returned, and
            // it is called once.
            during(&self.version.name, &self.version.facts, "core_fini", || unsafe { fini(self.core) });
        }
    }
}

/// Storage for the metrics of one plugin on one worker: written by the worker, read by anyone.
pub fn metric_storage(count: usize) -> Arc<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// Adds to a word that only this thread writes.
#[inline]
pub(super) fn add_single_writer(word: &AtomicU64, delta: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(delta), Ordering::Relaxed);
}

fn read_metrics(plugin: &raw::Plugin) -> Result<Vec<Metric>, LoadFault> {
    let count = plugin.metric_count as usize;
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > raw::METRICS_MAX as usize {
        return Err(LoadFault::Descriptor("it defines more than 256 metrics"));
    }
    let step = plugin.metric_bytes as usize;
    if plugin.metrics.is_null() || !plugin.metrics.is_aligned() || step < size_of::<raw::MetricDef>() || !step.is_multiple_of(align_of::<raw::MetricDef>()) {
        return Err(LoadFault::Descriptor("metric_count is above zero, and metrics or metric_bytes makes no sense"));
    }
    let mut metrics = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: the descriptor promises `metric_count` definitions at `metrics`, `metric_bytes` from one to the next (checked:
        // at least a definition's size, aligned), for the life of the process.
        let definition = unsafe { &*plugin.metrics.byte_add(index * step) };
        let name = text(definition.name).ok_or(LoadFault::Descriptor("a metric has no name"))?;
        let well_named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !well_named {
            return Err(LoadFault::Descriptor("a metric's name is not [a-z0-9_]+"));
        }
        if definition.kind != METRIC_COUNTER && definition.kind != METRIC_GAUGE {
            return Err(LoadFault::Descriptor("a metric's kind is neither counter nor gauge"));
        }
        metrics.push(Metric { name, help: text(definition.help).unwrap_or_default(), gauge: definition.kind == METRIC_GAUGE });
    }
    Ok(metrics)
}

/// The dynamic loader's own words.
fn words_of(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the descriptor promises NUL-terminated text for the life of the process.
    let text = unsafe { CStr::from_ptr(pointer) };
    Some(text.to_string_lossy().into_owned())
}

/// The content-addressed copy that is opened: opening the operator's path again after a rename would return the old
/// code, and a file that changes while it is mapped would kill the process.
pub fn private_copy(store: &Path, hash: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    private_folder(store)?;
    let path = kept_path(store, hash);
    if fs::read(&path).is_ok_and(|kept| kept == bytes) {
        return Ok(path);
    }
    let partial = store.join(format!("{hash}.{}.partial", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o500).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

/// Where the copy of the file with this hash is.
pub fn kept_path(store: &Path, hash: &str) -> PathBuf {
    store.join(format!("{hash}.so"))
}

/// Makes a folder that only this user can write to, or finds one.
pub(super) fn private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let directory = fs::metadata(folder)?;
    // SAFETY: no argument, never fails.
    if directory.uid() != unsafe { libc::geteuid() } || directory.mode() & 0o022 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can write there; remove it or name another place"));
    }
    Ok(())
}

/// Where copies of plugins are kept when the configuration names no place: private to this user.
pub fn default_store() -> PathBuf {
    // SAFETY: no argument, never fails.
    let user = unsafe { libc::geteuid() };
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("ringway/plugins"),
        _ => std::env::temp_dir().join(format!("ringway-{user}/plugins")),
    }
}
