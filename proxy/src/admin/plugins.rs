//! Plugin files: read, inspected, opened; or kept open when neither code nor configuration changed.
//!
//! Owns [`Loaded`], what the process knows of one plugin. Main thread only: `load` and `unload` run here.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::status::Standing;
use crate::clock;
use crate::config::{Config, Key, MapPolicy, Plugin, PluginIndex, Problem};
use crate::http1::names::NameTable;
use crate::plugin::file;
use crate::plugin::inspect::{self, Offer, PluginFacts};
use crate::plugin::loaded::{PluginVersion, kept_path};
use crate::plugin::maps::store::Policy;
use crate::plugin::maps::{Map, MapKind, MapShape, MapStore};
use crate::verify;

/// One plugin of the configuration in force.
#[derive(Clone)]
pub struct Loaded {
    /// The version that runs.
    pub version: Arc<PluginVersion>,
    /// Where it came from and what it was given.
    pub made_of: MadeOf,
    /// Counts the versions of this process: each has its own.
    pub generation: u64,
    /// When it was loaded.
    pub loaded_unix_ns: u64,
    /// Whether it runs.
    pub standing: Standing,
    /// How often its instances were replaced after panics, by worker; missing ones were not.
    pub restarts: Vec<u64>,
    /// What ran before, for a rollback.
    pub previous: Option<MadeOf>,
    /// Why the last change that concerned it failed.
    pub last_error: Option<String>,
}

/// What a version was loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeOf {
    /// The operator's file.
    pub path: PathBuf,
    /// JSON for `load`.
    pub config: String,
    /// SHA-256 of the file in hex; names the private copy.
    pub hash: String,
    /// The plugin's own version text.
    pub version: String,
}

/// A plugin file that was read and accepted.
struct PluginFile {
    bytes: Vec<u8>,
    facts: PluginFacts,
}

impl PluginFile {
    fn read(name: &str, path: &Path) -> Result<PluginFile, Problem> {
        let bytes =
            file::read(path).map_err(|error| Problem::new(format!("the plugin `{name}` cannot be read from {}", path.display())).cause(error.to_string()))?;
        match inspect::inspect_bytes(&bytes, &Offer::V1_0) {
            Ok(facts) => Ok(PluginFile { bytes, facts }),
            Err(refusal) => {
                let problem = inspect::Refused { path: path.to_path_buf(), refusal }.problem();
                let what = format!("the plugin `{name}` is refused: {}: {}", path.display(), problem.what);
                Err(Problem { what, place: None, ..problem })
            }
        }
    }

    /// A dry run in a process of its own. Workers go on meanwhile: they have a clock of their own.
    fn verify(&self, plugin: &Plugin) -> Result<(), Problem> {
        let problem = |why: String| {
            let what = format!("the plugin `{}` is refused: {}: {why}", plugin.name, plugin.path.display());
            Problem::new(what).help("see `ringway plugin verify`; `verify = false` loads it all the same")
        };
        let report = verify::verify_bytes(&plugin.path, &self.bytes, &verify::Options::new(plugin.config.as_str()), &Offer::V1_0)
            .map_err(|error| problem(format!("the dry run could not be made: {error}")))?;
        report.refusal().map_or(Ok(()), |why| Err(problem(why.to_owned())))
    }

    /// Every sink leads out of a ring that the plugin has.
    fn check_sinks(&self, plugin: &Plugin) -> Result<(), Problem> {
        for (map, target) in &plugin.sinks {
            let problem = Problem::new(format!("the plugin `{}` has no ring `{map}` for {target}", plugin.name));
            match self.facts.maps.iter().find(|shape| shape.name() == map) {
                Some(shape) if shape.kind() == MapKind::Ring => {}
                Some(shape) => return Err(problem.cause(format!("the map `{map}` is of the kind {}", shape.kind()))),
                None => {
                    let known: Vec<&str> = self.facts.maps.iter().map(MapShape::name).collect();
                    return Err(problem.cause(if known.is_empty() { "it has no maps".into() } else { format!("its maps are: {}", known.join(", ")) }));
                }
            }
        }
        Ok(())
    }

    fn open(self, plugin: &Plugin, maps: Vec<Arc<Map>>, store: &Path, names: &mut NameTable) -> Result<PluginVersion, Problem> {
        // What a `load` that fails has registered is forgotten with this copy.
        let mut grown = names.clone();
        let version = PluginVersion::load_with_maps(&plugin.name, self.facts, &self.bytes, plugin.config.as_bytes(), store, &mut grown, maps)
            .map_err(|fault| Problem::new(format!("the plugin `{}` cannot be loaded from {}", plugin.name, plugin.path.display())).cause(fault.to_string()))?;
        *names = grown;
        Ok(version)
    }
}

/// Where versions come from, and how they are counted.
pub struct Loader {
    /// Where private copies are kept.
    pub store: PathBuf,
    /// The generation of the last version.
    pub generation: u64,
    /// Where maps come from.
    pub maps: MapStore,
    /// `limits.map_bytes`
    pub map_bytes: u64,
}

impl Loader {
    /// Every plugin of `config`. Of `running`, what has the same name, code and configuration is kept.
    ///
    /// # Errors
    /// Each plugin that cannot be loaded, with its place in the file.
    pub fn load_all(&mut self, config: &Config, running: &[Loaded], names: &mut NameTable) -> Result<Vec<Loaded>, Vec<Problem>> {
        let (mut loaded, mut problems) = (Vec::with_capacity(config.plugins.len()), Vec::new());
        self.map_bytes = config.limits.map_bytes as u64;
        for (index, plugin) in config.plugins.iter().enumerate() {
            let was = running.iter().find(|other| other.version.name() == plugin.name);
            match self.load(plugin, was, names) {
                Ok(plugin) => loaded.push(plugin),
                Err(problem) => problems.push(config.problem_at(&[Key::Key("plugin"), Key::Index(index), Key::Key("path")], problem)),
            }
        }
        if problems.is_empty() { Ok(loaded) } else { Err(problems) }
    }

    /// One plugin. `was`: what runs under its name now.
    ///
    /// # Errors
    /// The refusal or the plugin's own reason.
    pub fn load(&mut self, plugin: &Plugin, was: Option<&Loaded>, names: &mut NameTable) -> Result<Loaded, Problem> {
        let file = PluginFile::read(&plugin.name, &plugin.path)?;
        file.check_sinks(plugin)?;
        let made_of =
            MadeOf { path: plugin.path.clone(), config: plugin.config.clone(), hash: file.facts.file_hash.clone(), version: file.facts.version.clone() };
        if let Some(was) = was.filter(|was| was.made_of.hash == made_of.hash && was.made_of.config == made_of.config) {
            return Ok(Loaded { made_of, last_error: None, ..was.clone() });
        }
        if plugin.verify {
            file.verify(plugin)?;
        }
        let policy = Policy { fresh: plugin.maps == MapPolicy::Fresh, bytes_max: self.map_bytes };
        let maps = self.maps.open(&plugin.name, &file.facts.maps, policy);
        let maps = maps.map_err(|fault| Problem::new(format!("the maps of the plugin `{}` cannot be had", plugin.name)).cause(fault.to_string()))?;
        let version = file.open(plugin, maps, &self.store, names)?;
        self.generation += 1;
        tracing::info!(plugin = plugin.name, path = %plugin.path.display(), version = made_of.version, generation = self.generation, "plugin loaded");
        Ok(Loaded {
            version: Arc::new(version),
            made_of,
            generation: self.generation,
            loaded_unix_ns: clock::unix_ns(),
            // What an operator has put out stays out; new code or configuration ends a quarantine.
            standing: if was.is_some_and(|was| was.standing == Standing::Disabled) { Standing::Disabled } else { Standing::InForce },
            restarts: Vec::new(),
            previous: was.map(|was| was.made_of.clone()),
            last_error: None,
        })
    }

    /// A plugin whose code is not to run: it is inspected, where that can be done, and not opened.
    pub fn put_out(&mut self, plugin: &Plugin, standing: Standing) -> Loaded {
        let facts = match PluginFile::read(&plugin.name, &plugin.path) {
            Ok(file) => file.facts,
            Err(problem) => {
                tracing::warn!(plugin = plugin.name, "nothing is known of a plugin that is out: {problem}");
                PluginFacts::unread(&plugin.name)
            }
        };
        let made_of = MadeOf { path: plugin.path.clone(), config: plugin.config.clone(), hash: facts.file_hash.clone(), version: facts.version.clone() };
        self.generation += 1;
        tracing::warn!(plugin = plugin.name, version = made_of.version, reason = standing.reason(), "plugin {}: it is not loaded", standing.status().word());
        Loaded {
            version: Arc::new(PluginVersion::unopened(&plugin.name, facts)),
            made_of,
            generation: self.generation,
            loaded_unix_ns: clock::unix_ns(),
            standing,
            restarts: Vec::new(),
            previous: None,
            last_error: None,
        }
    }

    /// The private copy of what ran before: the operator's file may hold other code by now.
    ///
    /// # Errors
    /// When it is gone or has been changed.
    pub fn kept_copy(&self, hash: &str) -> Result<PathBuf, Problem> {
        let path = kept_path(&self.store, hash);
        let problem = match file::read(&path) {
            Ok(bytes) if Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>() == hash => return Ok(path),
            Ok(_) => Problem::new(format!("the kept copy {} has been changed", path.display())),
            Err(error) => Problem::new(format!("the kept copy {} is gone", path.display())).cause(error.to_string()),
        };
        Err(problem.help("load the plugin from a file instead"))
    }
}

/// The plugin of that name and its index.
pub fn find<'a>(loaded: &'a [Loaded], name: &str) -> Option<(PluginIndex, &'a Loaded)> {
    (0..).map(PluginIndex).zip(loaded).find(|(_, plugin)| plugin.version.name() == name)
}
