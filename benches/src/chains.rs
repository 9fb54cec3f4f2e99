//! Plugins loaded from their `.so`, chains of them, and a frame that runs them.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use libloading::os::unix::Library;
use ringway::http1::names::NameTable;
use ringway::limits::Limits;
use ringway::plugin::chain::{CoreChain, LinkParts, OnError};
use ringway::plugin::frame::Frame;
use ringway::plugin::host::{HOST, HostShared};
use ringway::plugin::loaded::{CorePlugin, PluginVersion, default_store, metric_storage};
use ringway::plugin::outcall::OutcallBounds;
use ringway::run::load_plugin;
use ringway::view::slab::Slab;
use ringway_abi::RequestView;
use ringway_abi::raw::{self, Hook, RawCx};

use crate::slots::slab;

/// Plugins that look up one header by its id, by language.
pub const LOOKUPS: [(&str, &str); 3] = [("c", "bench-lookup-c"), ("rust", "bench-lookup-rust"), ("zig", "bench-lookup-zig")];
/// Chain lengths that are measured.
pub const LINK_COUNTS: [usize; 3] = [1, 4, 16];

/// The file of an example plugin.
///
/// # Panics
/// When it has not been built.
pub fn plugin_file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins");
    let folder = std::env::var_os("RINGWAY_PLUGINS").map_or(folder, PathBuf::from);
    let file = folder.join(name).with_extension("so");
    assert!(file.exists(), "{} is missing; run plugins/build first", file.display());
    file
}

/// What chains and frames of one worker share.
pub struct Worker {
    /// Header names, those of the plugins included.
    pub names: Arc<NameTable>,
    /// Slots for messages.
    pub slab: Slab,
    /// For [`Frame::begin`].
    pub shared: Rc<HostShared>,
    /// By plugin asked for.
    cores: Vec<(&'static str, Rc<CorePlugin>)>,
}

impl Worker {
    /// A worker with these plugins.
    ///
    /// # Panics
    /// When one of them is missing or refused.
    pub fn new(plugins: &[&'static str]) -> Worker {
        let mut names = NameTable::new();
        let versions: Vec<PluginVersion> = plugins
            .iter()
            .map(|name| load_plugin(name, &plugin_file(name), b"{}", &default_store(), &mut names).unwrap_or_else(|refused| panic!("{refused}")))
            .collect();
        let cores = plugins.iter().zip(versions).map(|(name, version)| {
            let metrics = metric_storage(version.metrics().len());
            (*name, CorePlugin::new(Arc::new(version), 0, metrics).unwrap_or_else(|refused| panic!("{refused}")))
        });
        let (names, slab, limits) = (Arc::new(names), slab(), Limits::default());
        let shared = Rc::new(HostShared {
            names: Arc::clone(&names),
            slab: slab.clone(),
            no_chain: Rc::default(),
            upstreams: vec!["u".into()],
            plugin_response_bytes: limits.plugin_response_bytes,
            plugin_alloc_bytes: limits.plugin_alloc_bytes,
            replacement_bytes: limits.body_buffer_bytes,
            waits_max: limits.suspended,
            outcalls: OutcallBounds::of(&limits),
        });
        let cores = cores.collect();
        Worker { names, slab, shared, cores }
    }

    /// A chain of these plugins, in this order.
    ///
    /// # Panics
    /// When the worker was made without one of them.
    pub fn chain(&self, plugins: &[&str]) -> Rc<CoreChain> {
        let parts = plugins.iter().map(|name| LinkParts {
            plugin: Rc::clone(&self.cores.iter().find(|(known, _)| known == name).expect("a plugin of this worker").1),
            on_error: OnError::Closed,
            post_always: false,
            counters: Arc::default(),
        });
        Rc::new(CoreChain::new(parts.collect()))
    }

    /// A chain of `count` links to one plugin.
    pub fn chain_of(&self, count: usize, plugin: &str) -> Rc<CoreChain> {
        self.chain(&vec![plugin; count])
    }

    /// A frame without an exchange.
    pub fn frame(&self) -> Frame {
        Frame::new(Rc::clone(&self.shared), 0)
    }
}

/// The request hook of a plugin without the gateway's frame around it: what the call itself costs.
pub struct BareHook {
    hook: Hook<RequestView>,
    cx: RawCx,
    _library: Library,
}

impl BareHook {
    /// The hook of an example plugin that needs no configuration.
    ///
    /// # Panics
    /// When it cannot be loaded or has no such hook.
    pub fn new(plugin: &str) -> BareHook {
        // SAFETY: one of our own plugins; its constructors do nothing.
        let library = unsafe { Library::new(plugin_file(plugin)) }.expect("plugins/build made it");
        // SAFETY: the contract of plugins: the symbol is a descriptor.
        let symbol = unsafe { library.get::<*const raw::Plugin>(raw::SYMBOL) }.expect("a plugin has a descriptor");
        // SAFETY: the descriptor is constant as long as the library is open.
        let plugin = unsafe { &*symbol.into_raw().cast::<raw::Plugin>() };
        let mut state: *mut c_void = std::ptr::null_mut();
        if let Some(load) = plugin.load {
            // SAFETY: the contract of `load`, except for the loader, of which these plugins call nothing.
            let status = unsafe { load(&raw const HOST, std::ptr::dangling_mut(), b"{}".as_ptr(), 2, &mut state) };
            assert_eq!(status, raw::OK);
        }
        let mut core = state;
        if let Some(init) = plugin.core_init {
            // SAFETY: the contract of `core_init`: after `load`, on the thread of the hooks; of the loader as above.
            let status = unsafe { init(&raw const HOST, std::ptr::dangling_mut(), state, 0, &mut core) };
            assert_eq!(status, raw::OK);
        }
        let cx = RawCx {
            size: size_of::<RawCx>() as u32,
            hook: raw::HOOK_REQUEST,
            host: &raw const HOST,
            core,
            scratch: std::ptr::null_mut(),
            request: std::ptr::null(),
            response: std::ptr::null(),
            now_unix_ns: 0,
            worker: 0,
            link: 0,
        };
        BareHook { hook: plugin.on_request.expect("a plugin with a request hook"), cx, _library: library }
    }

    /// Calls it.
    #[inline]
    pub fn call(&mut self, request: &RequestView) -> u32 {
        // SAFETY: the contract of hooks; the measured plugins call no host function, so `cx` needs no frame behind it.
        unsafe { (self.hook)(&raw mut self.cx, request) }
    }
}
