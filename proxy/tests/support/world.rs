//! A worker's core around scripted connections, from a configuration like an operator's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ringway::config::Config;
use ringway::exchange::core::{Core, WorkerStats};
use ringway::http1::names::NameTable;
use ringway::run::load_plugin;
use ringway::upstream;
use ringway::view::slab::Slab;
use ringway::worker::program::{Blueprint, PluginCounts, build};
use ringway::worker::slot_layout;

use super::upstreams::ScriptedUpstreams;

/// One route to one upstream, nothing else.
pub const PLAIN: &str = r#"
[[route]]
path = "/"
upstream = "app"
"#;

/// What every configuration begins with.
const COMMON: &str = r#"
[[listener]]
address = "127.0.0.1:0"
[[upstream]]
name = "app"
servers = ["127.0.0.1:1", "127.0.0.1:2"]
[[upstream]]
name = "other"
servers = ["127.0.0.1:3"]
"#;

/// Everything of a configuration that does not change between runs.
pub struct World {
    pub blueprint: Arc<Blueprint>,
}

impl World {
    /// A gateway with one plain route.
    pub fn plain() -> World {
        World::new(PLAIN)
    }

    /// `text` is what a configuration adds to a listener and the upstreams `app` and `other`. `{plugins}` in it stands for the folder
    /// of the example plugins, `{actor}` for the plugin of actor.c.
    pub fn new(text: &str) -> World {
        // Tables of the top level go first; arrays of tables may follow in any order.
        let text = if text.contains("{actor}") { &text.replace("{actor}", &actor().display().to_string()) } else { text };
        let slots = if text.contains("[limits]") { "" } else { "[limits]\nslots = 64\n" };
        let text = format!("{slots}{COMMON}{text}").replace("{plugins}", &plugin_folder().display().to_string());
        let config = Config::parse("test.toml", &text, &|_| None).unwrap_or_else(|e| panic!("the test's configuration is wrong: {e}\n{text}"));
        let mut names = NameTable::new();
        let plugins = config.plugins.iter().map(|plugin| {
            assert!(plugin.path.exists(), "{} is missing: run plugins/build first", plugin.path.display());
            Arc::new(load(&plugin.name, &plugin.path, &plugin.config, &mut names))
        });
        let plugins: Vec<_> = plugins.collect();
        World { blueprint: Arc::new(Blueprint::new(config, plugins, Arc::new(names), None)) }
    }

    /// A worker with nothing done yet.
    pub fn core(&self, upstreams: ScriptedUpstreams) -> (Core<ScriptedUpstreams>, PluginCounts) {
        let config = &self.blueprint.config;
        let slab =
            Slab::new(slot_layout(config, ringway_abi::raw::SCRATCH_BYTES_MAX as usize * 4), config.limits.slots as u32, false).expect("memory for the slots");
        let counts = PluginCounts::new(&self.blueprint);
        let built = build(&self.blueprint, &upstream::Shared::new(&self.blueprint.config), &counts, 0, &slab, &[]).expect("the plugins start");
        (Core::new(0, slab, upstreams, Arc::new(WorkerStats::default()), Rc::clone(&built.program)), counts)
    }
}

/// Where `plugins/build` puts the example plugins.
pub fn plugin_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins")
}

/// Cargo's folder for tests; fuzz targets have none, and load no plugins.
fn temporary_folder() -> PathBuf {
    option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Compiles actor.c, once per test binary.
fn actor() -> &'static Path {
    static ACTOR: OnceLock<PathBuf> = OnceLock::new();
    ACTOR.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = temporary_folder();
        let (file, partial) = (folder.join("actor.so"), folder.join(format!("actor.{}.partial", std::process::id())));
        let flags = ["-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-Wl,-z,defs"];
        let mut command = Command::new("cc");
        command.args(flags).arg("-I").arg(here.join("../abi/include")).arg(here.join("tests/support/actor.c")).arg("-o").arg(&partial);
        let status = command.status().expect("a C compiler is installed (Debian: apt-get install gcc libc6-dev)");
        assert!(status.success(), "{command:?} failed");
        std::fs::rename(&partial, &file).expect("cargo's folder is writable");
        file
    })
}

fn load(name: &str, path: &Path, config: &str, names: &mut NameTable) -> ringway::plugin::loaded::PluginVersion {
    // Tests run on several threads, and the private copy of a plugin is made once.
    static LOADING: Mutex<()> = Mutex::new(());
    let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    let store = temporary_folder().join("plugin-store");
    load_plugin(name, path, config.as_bytes(), &store, names).unwrap_or_else(|reason| panic!("{reason}"))
}
