//! Where the maps of new versions come from: those that another version of the plugin has, files, or new memory.
//!
//! Main thread only. Holds no map: one lives as long as a version of its plugin (or an operator who reads it), and is found
//! here while it does.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use super::file::{self, Existing, MapFault};
use super::memory::Words;
use super::{Map, MapKind, MapShape};
use crate::plugin::loaded::private_folder;

/// The maps of the process.
#[derive(Default)]
pub struct MapStore {
    folder: Option<PathBuf>,
    cores: u32,
    /// Plugin and map.
    open: Vec<(String, Weak<Map>)>,
}

/// How the maps of a plugin are opened.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Replace a map that does not fit, instead of refusing the plugin.
    pub fresh: bool,
    /// `limits.map_bytes`
    pub bytes_max: u64,
}

impl MapStore {
    /// Maps for this many workers; kept in files below `state` when it is given.
    pub fn new(state: Option<&std::path::Path>, cores: u32) -> MapStore {
        MapStore { folder: state.map(|state| state.join("maps")), cores, open: Vec::new() }
    }

    /// The maps of a plugin (its name in the configuration), in the order of their definitions.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub fn open(&mut self, plugin: &str, shapes: &[MapShape], policy: Policy) -> Result<Vec<Arc<Map>>, MapFault> {
        self.open.retain(|(_, map)| map.strong_count() > 0);
        let wanted = shapes.iter().fold(0u64, |sum, shape| sum.saturating_add(shape.bytes(self.cores)));
        if wanted > policy.bytes_max {
            return Err(MapFault::TooLarge(wanted, policy.bytes_max));
        }
        let maps: Vec<Arc<Map>> = shapes.iter().map(|shape| self.open_one(plugin, shape, policy.fresh)).collect::<Result<_, _>>()?;
        for map in &maps {
            let is_known = self.open.iter().any(|(_, known)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(map)));
            if !is_known {
                self.open.push((plugin.to_owned(), Arc::downgrade(map)));
            }
        }
        Ok(maps)
    }

    fn open_one(&self, plugin: &str, shape: &MapShape, fresh: bool) -> Result<Arc<Map>, MapFault> {
        let path = self.folder.as_ref().map(|folder| folder.join(format!("{plugin}.{}.map", shape.name())));
        let mut open = self.open.iter().rev().filter(|(owner, _)| owner == plugin).filter_map(|(_, map)| map.upgrade());
        let mut existing = if fresh { Existing::ReplaceMisfit } else { Existing::Keep };
        // The newest of that name.
        if let Some(map) = open.find(|map| map.shape().name() == shape.name()) {
            if map.shape() == shape {
                return Ok(map);
            }
            if !fresh {
                let of = |shape: &MapShape| {
                    format!("{}, {} byte keys, {} entries of \"{}\"", shape.kind(), shape.key_bytes(), shape.entries_max(), shape.value_fields())
                };
                let kept = path.unwrap_or_else(|| PathBuf::from(format!("`{}` of the version in force", shape.name())));
                return Err(MapFault::Differs(kept, "its definition", of(map.shape()), of(shape)));
            }
            // The version in force goes on with the file that it has.
            existing = Existing::Replace;
        }
        // What waits in a ring is for those who read now.
        let Some(path) = path.filter(|_| shape.kind() != MapKind::Ring) else { return anonymous(shape, self.cores).map(Arc::new) };
        let folder = path.parent().unwrap_or(&path);
        private_folder(folder).map_err(|error| MapFault::Io("use", folder.to_owned(), error))?;
        let file::Opened { words, cores, pending } = file::open(&path, shape, self.cores, existing)?;
        let (map, dropped) = Map::open(shape.clone(), cores, words, pending, true);
        if dropped > 0 {
            tracing::warn!(plugin, map = shape.name(), dropped, "entries that were being written when the last process ended do not count");
        }
        Ok(Arc::new(map))
    }
}

/// A map that ends with its last user.
///
/// # Errors
/// When there is no memory.
pub fn anonymous(shape: &MapShape, cores: u32) -> Result<Map, MapFault> {
    let words = Words::anonymous(shape.words(cores)).map_err(|error| MapFault::NoMemory(shape.bytes(cores), error))?;
    Ok(Map::open(shape.clone(), cores, words, None, false).0)
}
