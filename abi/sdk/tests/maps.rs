//! Maps in the SDK and its test host: what `ringway.h` §7 promises, seen by a plugin.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_sdk::describe_plugin;
use ringway_sdk::maps::prefix;
use ringway_sdk::prelude::*;
use ringway_sdk::testing::{Returned, TestHost, request};

struct Shared {
    paths: SharedMap,
    recent: SharedMap,
    networks: SharedMap,
    flags: SharedMap,
    events: SharedMap,
}

/// Counts paths of eight bytes.
struct Counting {
    shared: Arc<Shared>,
    mine: Option<CoreMap>,
}

fn key(path: &[u8]) -> [u8; 8] {
    let mut key = [0; 8];
    let len = path.len().min(8);
    key[..len].copy_from_slice(&path[..len]);
    key
}

impl Plugin for Counting {
    type Shared = Shared;
    type Scratch = ();

    fn load(loader: &mut Loader<'_>, _: &[u8]) -> Result<Shared, Fault> {
        assert_eq!(loader.core_map(MINE).err(), Some(HostError::WrongHook));
        let networks = loader.map(NETWORKS)?;
        networks.update(prefix(96 + 8, std::net::Ipv4Addr::new(192, 9, 9, 9).to_ipv6_mapped().octets()), &7u32.to_le_bytes())?;
        Ok(Shared { paths: loader.map(PATHS)?, recent: loader.map(RECENT)?, networks, flags: loader.map(FLAGS)?, events: loader.map(EVENTS)? })
    }

    fn core_init(shared: &Arc<Shared>, _: u32) -> Result<Self, Fault> {
        Ok(Counting { shared: Arc::clone(shared), mine: None })
    }

    fn core_ready(&mut self, loader: &mut Loader<'_>) -> Result<(), Fault> {
        self.mine = Some(loader.core_map(MINE)?);
        Ok(())
    }

    fn on_request(&mut self, _: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
        let (shared, key) = (&self.shared, key(request.path()));
        let mine = self.mine.as_ref().ok_or("core_ready has run")?;
        let words = mine.value(1).ok_or("there are two entries")?;
        words[0].store(words[0].load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        assert!(mine.value(2).is_none());
        assert_eq!(mine.add(1, 0, 0), Ok(words[0].load(Ordering::Relaxed)));
        match shared.paths.add(key, 0, 1) {
            Ok(sum) => shared.events.output(&[sum.to_le_bytes(), key].concat())?,
            Err(HostError::NoSpace) => return Ok(Verdict::Drop),
            Err(refusal) => return Err(refusal.into()),
        }
        shared.recent.update(key, &[1])?;
        let mut network = [0; 4];
        assert!(shared.networks.lookup(prefix(128, request.peer_addr()), &mut network)?);
        assert_eq!(u32::from_le_bytes(network), 7);
        assert!(shared.flags.lookup(1u32.to_le_bytes(), &mut network)? && !shared.flags.lookup(2u32.to_le_bytes(), &mut network)?);
        assert_eq!(shared.flags.update(0u32.to_le_bytes(), &[0; 3]), Err(HostError::BadArgument));
        Ok(Verdict::Continue)
    }
}

describe_plugin!(Counting {
    name: "counting",
    version: "1",
    hooks: [on_request],
    maps: [
        PATHS = hash("paths", 8, "u64 hits, char[8] note", 2),
        RECENT = lru("recent", 8, "u8 seen", 1),
        NETWORKS = lpm("networks", "u32 number", 10),
        FLAGS = array("flags", "u32 flag", 2),
        MINE = core_array("mine", "u64 requests", 2),
        EVENTS = ring("events", "u64 count, char[8] path", 10),
    ],
});

#[test]
fn maps_keep_what_a_plugin_puts_into_them() {
    let mut host = TestHost::<Counting>::load("{}").expect("the maps are there");
    for path in ["/a", "/b", "/a"] {
        host.exchange(request("GET", path, &[])).on_request().continues();
    }
    assert!(matches!(host.exchange(request("GET", "/c", &[])).on_request(), Returned::Drop), "the map is full");
    assert_eq!(host.map_value("paths", key(b"/a")), Some([2u64.to_le_bytes(), [0; 8]].concat()));
    assert_eq!((host.map_value("paths", key(b"/c")), host.map_value("recent", key(b"/b"))), (None, None));
    assert_eq!((host.map_value("recent", key(b"/a")), host.map_value("mine", 1u32.to_le_bytes())), (Some(vec![1]), Some(4u64.to_le_bytes().to_vec())));
    let records = host.take_records("events");
    assert_eq!(records.iter().map(|record| (record[0], record[9])).collect::<Vec<_>>(), [(1, b'a'), (1, b'b'), (2, b'a')]);
    assert!(host.take_records("events").is_empty());
}
