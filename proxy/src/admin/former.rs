//! Plugins of a process that follows another one: what was in force, not what their paths hold by now.
//!
//! Owns the choice between the kept copy and the operator's file, and what becomes of a plugin that cannot be had. In the place of a process
//! that died it is put out, since serving without it is better than not serving; an upgrade is refused, since the process before still serves.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::plugins::{Loaded, Loader};
use super::status::Standing;
use crate::config::{Config, Key, Plugin, Problem};
use crate::http1::names::NameTable;
use crate::supervisor::protocol::{Hashes, Standings};

/// How often a plugin that was in force is loaded before it is put out, and the first pause between two times, which doubles: what the dead process
/// left behind, or a service that is away, may be in its way for a moment only.
const LOAD_TRIES: u32 = 3;
const LOAD_PAUSE: Duration = Duration::from_millis(200);

/// What the process before this one ran; the default: there was none.
#[derive(Debug, Default)]
pub struct Former {
    /// Plugins that were out of force.
    pub standings: Standings,
    /// What each of them was loaded from.
    pub hashes: Hashes,
    /// It has died.
    pub has_died: bool,
}

impl Loader {
    /// Every plugin of `config` as the former process had it.
    ///
    /// # Errors
    /// Each plugin that cannot be loaded and may not be missing, with its place in the file.
    pub fn load_former(&mut self, config: &Config, former: &Former, names: &mut NameTable) -> Result<Vec<Loaded>, Vec<Problem>> {
        let (mut loaded, mut problems) = (Vec::with_capacity(config.plugins.len()), Vec::new());
        self.map_bytes = config.limits.map_bytes as u64;
        for (index, plugin) in config.plugins.iter().enumerate() {
            match self.load_as_before(plugin, former, names) {
                Ok(plugin) => loaded.push(plugin),
                Err(problem) => problems.push(config.problem_at(&[Key::Key("plugin"), Key::Index(index), Key::Key("path")], problem)),
            }
        }
        if problems.is_empty() { Ok(loaded) } else { Err(problems) }
    }

    fn load_as_before(&mut self, plugin: &Plugin, former: &Former, names: &mut NameTable) -> Result<Loaded, Problem> {
        let Former { standings, hashes, has_died } = former;
        let hash = hashes.get(&plugin.name);
        let kept = hash.map(|hash| self.kept_copy(hash));
        let source = match &kept {
            // It was verified before it came in force.
            Some(Ok(path)) => Plugin { path: path.clone(), verify: false, ..plugin.clone() },
            _ => plugin.clone(),
        };
        let is_disabled = standings.disabled.contains(&plugin.name);
        let mut now = match standings.quarantined.get(&plugin.name) {
            Some(reason) => {
                let out = self.put_out(&source, Standing::Quarantined { reason: reason.clone() });
                match () {
                    // No code was to blame: the next reload loads what is there then.
                    () if standings.missing.contains(&plugin.name) => of_hash(out, None),
                    // Only new code ends a quarantine, and this may be the old one.
                    () if out.made_of.hash.is_empty() => of_hash(out, hash),
                    () => out,
                }
            }
            None => match self.load_patiently(&source, if *has_died && !is_disabled { LOAD_TRIES } else { 1 }, names) {
                Ok(loaded) => loaded,
                Err(problem) if is_disabled => of_hash(self.put_out_for(&source, Standing::Disabled, &problem), hash),
                Err(problem) if *has_died => {
                    tracing::error!(plugin = plugin.name, on_error = ?plugin.on_error, "the plugin was in force and cannot be loaded again: it is out until it is enabled: {problem}");
                    let reason = format!("it could not be loaded again after a crash: {}", sentence(&problem));
                    // Without a hash: the next reload loads what is there then.
                    of_hash(self.put_out_for(&source, Standing::Quarantined { reason }, &problem), None)
                }
                Err(problem) => return Err(problem),
            },
        };
        if is_disabled {
            now.standing = Standing::Disabled;
        }
        if let (Some(Err(problem)), Some(hash)) = (kept, hash)
            && now.made_of.hash != *hash
            && !now.made_of.hash.is_empty()
        {
            let (name, path) = (&plugin.name, plugin.path.display());
            tracing::error!(
                plugin = name,
                was = hash,
                now = now.made_of.hash,
                "what is loaded from {path} is another file than the one that was in force: {}",
                sentence(&problem)
            );
        }
        now.made_of.path.clone_from(&plugin.path);
        Ok(now)
    }

    fn load_patiently(&mut self, source: &Plugin, tries: u32, names: &mut NameTable) -> Result<Loaded, Problem> {
        let mut pause = LOAD_PAUSE;
        for _ in 1..tries {
            match self.load(source, None, names) {
                Ok(loaded) => return Ok(loaded),
                Err(problem) => tracing::warn!(plugin = source.name, "the plugin was in force and cannot be loaded again, which is tried once more: {problem}"),
            }
            thread::sleep(pause);
            pause *= 2;
        }
        self.load(source, None, names)
    }

    fn put_out_for(&mut self, plugin: &Plugin, standing: Standing, problem: &Problem) -> Loaded {
        Loaded { last_error: Some(problem.to_string()), ..self.put_out(plugin, standing) }
    }
}

fn of_hash(mut loaded: Loaded, hash: Option<&String>) -> Loaded {
    loaded.made_of.hash = hash.cloned().unwrap_or_default();
    loaded
}

fn sentence(problem: &Problem) -> String {
    problem.cause.iter().fold(problem.what.clone(), |what, cause| format!("{what}: {cause}"))
}

/// Which files stand for the plugins that the configuration file names. What was added, or loaded from another path, through the admin address
/// is not in that file, and ends with the process.
pub struct OfFile {
    /// By name: the path and the configuration there, and the hash of what was last in force of them.
    plugins: BTreeMap<String, (PathBuf, String, String)>,
}

impl OfFile {
    /// `config` is what the file says.
    pub fn new(config: &Config, plugins: &[Loaded]) -> OfFile {
        let of = |(plugin, loaded): (&Plugin, &Loaded)| (plugin.name.clone(), (plugin.path.clone(), plugin.config.clone(), loaded.made_of.hash.clone()));
        OfFile { plugins: config.plugins.iter().zip(plugins).map(of).collect() }
    }

    /// This is in force now. Code that was given another configuration than the file's does not stand for it: they may not fit each other.
    pub fn note(&mut self, config: &Config, plugins: &[Loaded]) {
        for (plugin, loaded) in config.plugins.iter().zip(plugins) {
            if let Some((.., hash)) = self.plugins.get_mut(&plugin.name).filter(|(path, config, _)| *path == plugin.path && *config == plugin.config) {
                hash.clone_from(&loaded.made_of.hash);
            }
        }
    }

    /// By name; those whose file is unknown are left out.
    pub fn hashes(&self) -> Hashes {
        self.plugins.iter().filter(|(_, (.., hash))| !hash.is_empty()).map(|(name, (.., hash))| (name.clone(), hash.clone())).collect()
    }
}
