//! `/api/maps`: the maps of the plugins in force, read and written while traffic flows.
//!
//! `typed` turns keys and values into JSON and back; [`feeds`] takes records out of rings for whoever follows them. Runs on
//! the threads of the admin listener; maps are made for any thread.
#![forbid(unsafe_code)]

pub mod feeds;
mod typed;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Map as Object, Value, json};

use super::board::{Board, Snapshot};
use super::server::{Answer, Request};
use crate::plugin::maps::map::Entry;
use crate::plugin::maps::{Map, MapError, MapKind};

pub use typed::show_value;

/// Entries of one answer, unless `limit` says otherwise.
const LIMIT: usize = 1000;
/// Entries of one answer.
const LIMIT_MAX: usize = 10_000;
/// How often an entry that is being written is read again, with a pause.
const PATIENCE: usize = 50;

/// Answers what is below `/api/maps`; `None` for other paths.
pub fn answer(request: &Request, board: &Board) -> Option<Answer> {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let ["api", "maps", place @ ..] = parts.as_slice() else { return None };
    let snapshot = board.snapshot();
    let answered = match (request.method.as_str(), place) {
        ("GET" | "HEAD", []) => Ok(list(&snapshot)),
        (method, [plugin, map]) => one(method, request, &snapshot, plugin, map),
        (_, [] | [_, _, "tail"]) => Err(Answer { allow: Some("GET"), ..Answer::error(405, "the methods here are: GET") }),
        _ => Err(Answer::error(404, "there is nothing here; see docs/admin.md")),
    };
    Some(answered.map_or_else(|refusal| refusal, |value| Answer::json(200, &value)))
}

/// The ring that a request wants to follow; `None` for other requests.
pub fn followed(request: &Request, board: &Board) -> Option<Result<Arc<Map>, Answer>> {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let ["api", "maps", plugin, map, "tail"] = parts.as_slice() else { return None };
    if request.method != "GET" {
        return None;
    }
    Some(find(&board.snapshot(), plugin, map).and_then(|map| match map.shape().kind() {
        MapKind::Ring => Ok(map),
        kind => Err(Answer::error(409, &format!("the map `{}` is of the kind {kind}; only a ring can be followed", map.shape().name()))),
    }))
}

fn find(snapshot: &Snapshot, plugin: &str, map: &str) -> Result<Arc<Map>, Answer> {
    let Some(state) = snapshot.plugins.iter().find(|state| state.name == plugin) else {
        return Err(Answer::error(404, &format!("there is no plugin `{plugin}`")));
    };
    let found = state.maps.iter().find(|found| found.shape().name() == map);
    found.map(Arc::clone).ok_or_else(|| Answer::error(404, &format!("the plugin `{plugin}` has no map `{map}`")))
}

fn list(snapshot: &Snapshot) -> Value {
    let maps = snapshot.plugins.iter().flat_map(|state| state.maps.iter().map(move |map| describe(&state.name, map)));
    json!({ "maps": maps.collect::<Vec<_>>() })
}

fn describe(plugin: &str, map: &Map) -> Value {
    let shape = map.shape();
    let mut shown = json!({
        "plugin": plugin,
        "name": shape.name(),
        "kind": shape.kind().to_string(),
        "key_bytes": shape.key_bytes(),
        "value_bytes": shape.value_bytes(),
        "value_fields": shape.value_fields(),
        "entries": map.entries(),
        "entries_max": shape.entries_max(),
        "bytes": map.bytes(),
        "pinned": map.is_pinned(),
    });
    if shape.kind() == MapKind::CoreArray {
        shown["cores"] = json!(map.cores());
    }
    if let Some((records, dropped)) = map.traffic() {
        shown["records"] = json!(records);
        shown["dropped"] = json!(dropped);
    }
    shown
}

fn one(method: &str, request: &Request, snapshot: &Snapshot, plugin: &str, name: &str) -> Result<Value, Answer> {
    let map = find(snapshot, plugin, name)?;
    let key = parameter(&request.query, "key").transpose().map_err(|text| Answer::error(400, &text))?;
    match (method, key) {
        ("GET" | "HEAD", None) => dump(plugin, &map, &request.query),
        ("GET" | "HEAD", Some(key)) => get(&map, &key),
        ("PUT", Some(key)) => set(&map, &key, &request.body),
        ("DELETE", Some(key)) => remove(&map, &key),
        ("PUT" | "DELETE", None) => Err(Answer::error(400, "say which key: `?key=KEY`")),
        _ => Err(Answer { allow: Some("GET, PUT, DELETE"), ..Answer::error(405, "the methods here are: GET, PUT, DELETE") }),
    }
}

/// Entries from place `from` on; those of a core array for all cores together.
fn dump(plugin: &str, map: &Map, query: &str) -> Result<Value, Answer> {
    if map.shape().kind() == MapKind::Ring {
        return Err(Answer::error(409, &format!("records are not dumped, they are followed: GET /api/maps/{plugin}/{}/tail", map.shape().name())));
    }
    let number = |name: &str, default: usize| match parameter(query, name) {
        None => Ok(default),
        Some(text) => text.ok().and_then(|text| text.parse().ok()).ok_or_else(|| Answer::error(400, &format!("`{name}` is a number"))),
    };
    let (from, limit) = (number("from", 0)?, number("limit", LIMIT)?.clamp(1, LIMIT_MAX));
    let places = map.places() / map.cores() as usize;
    let (mut entries, mut busy, mut place) = (Vec::new(), 0, from);
    while place < places && entries.len() < limit {
        match entry(map, place) {
            Ok(Some(shown)) => entries.push(shown),
            Ok(None) => {}
            Err(_) => busy += 1,
        }
        place += 1;
    }
    let mut answer = describe(plugin, map);
    answer["dump"] = Value::Array(entries);
    // Entries that were being written during all of the patience.
    answer["busy"] = json!(busy);
    answer["next"] = if place < places { json!(place) } else { Value::Null };
    Ok(answer)
}

fn entry(map: &Map, place: usize) -> Result<Option<Value>, MapError> {
    let shape = map.shape();
    if shape.kind() != MapKind::CoreArray {
        let found = patient(|| map.at(place))?;
        return Ok(found.map(|Entry { key, value, .. }| json!({ "key": typed::show_key(shape, &key), "value": typed::show_value(shape, &value) })));
    }
    let of_core = |core| patient(|| map.at(core * shape.entries_max() + place)).map(|found| found.map_or_else(Vec::new, |entry| entry.value));
    let values = (0..map.cores() as usize).map(of_core).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(of_cores(map, place, &values)))
}

fn of_cores(map: &Map, index: usize, values: &[Vec<u8>]) -> Value {
    let cores: Vec<Value> = values.iter().map(|value| typed::show_value(map.shape(), value)).collect();
    json!({ "key": index, "sum": typed::show_sum(map.shape(), values), "cores": cores })
}

fn get(map: &Map, text: &str) -> Result<Value, Answer> {
    let shape = map.shape();
    let key = key(map, text)?;
    if shape.kind() == MapKind::CoreArray {
        let values = (0..map.cores()).map(|core| patient(|| map.get(core, &key))).collect::<Result<Vec<_>, _>>().map_err(|error| refusal(text, error))?;
        return Ok(of_cores(map, key.try_into().map_or(0, u32::from_le_bytes) as usize, &values));
    }
    let value = patient(|| map.get(0, &key)).map_err(|error| refusal(text, error))?;
    Ok(json!({ "key": typed::show_key(shape, &key), "value": typed::show_value(shape, &value) }))
}

/// Fields that the body leaves out keep what they have, or are zero in a new entry. Counts that come in between are lost: what is set
/// here is meant to be set.
fn set(map: &Map, text: &str, body: &[u8]) -> Result<Value, Answer> {
    let shape = map.shape();
    if shape.kind() == MapKind::CoreArray {
        return Err(Answer::error(409, "only a worker writes to its own entries of a core array"));
    }
    let key = key(map, text)?;
    let fields: Object<String, Value> =
        serde_json::from_slice(body).map_err(|error| Answer::error(400, &format!("the body is not what is expected: {error}")))?;
    let mut value = match patient(|| map.get(0, &key)) {
        Ok(value) => value,
        Err(MapError::NotFound) => vec![0; shape.value_bytes()],
        Err(error) => return Err(refusal(text, error)),
    };
    typed::set_fields(shape, &fields, &mut value).map_err(|why| Answer::error(422, &why))?;
    patient(|| map.update(0, &key, &value)).map_err(|error| refusal(text, error))?;
    Ok(json!({ "key": typed::show_key(shape, &key), "value": typed::show_value(shape, &value) }))
}

fn remove(map: &Map, text: &str) -> Result<Value, Answer> {
    if map.shape().kind().is_array() {
        return Err(Answer::error(409, "every entry of an array is there; set it to zero instead"));
    }
    let key = key(map, text)?;
    patient(|| map.remove(&key)).map_err(|error| refusal(text, error))?;
    Ok(json!({ "removed": typed::show_key(map.shape(), &key) }))
}

fn key(map: &Map, text: &str) -> Result<Vec<u8>, Answer> {
    if map.shape().kind() == MapKind::Ring {
        return Err(Answer::error(409, "records have no keys"));
    }
    typed::parse_key(map.shape(), text).map_err(|why| Answer::error(400, &why))
}

fn refusal(key: &str, error: MapError) -> Answer {
    match error {
        MapError::NotFound => Answer::error(404, &format!("there is no key `{key}`")),
        MapError::Full => Answer::error(409, "the map is full"),
        MapError::Busy => Answer::error(503, "the entry is being written all the time; try again"),
        MapError::BadArgument => Answer::error(422, "the map does not take this"),
    }
}

/// The call again after a pause while a worker was stopped in the middle of a write.
fn patient<T>(mut call: impl FnMut() -> Result<T, MapError>) -> Result<T, MapError> {
    for _ in 0..PATIENCE {
        match call() {
            Err(MapError::Busy) => thread::sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
    Err(MapError::Busy)
}

/// The value of a parameter of a query, `%XX` resolved.
fn parameter(query: &str, name: &str) -> Option<Result<String, String>> {
    let value = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let resolved = match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => (high << 4 | low) as u8,
                    _ => return Some(Err(format!("`{name}` has a `%` without two hexadecimal digits"))),
                }
            }
            byte => byte,
        };
        bytes.push(resolved);
    }
    Some(String::from_utf8(bytes).map_err(|_| format!("`{name}` is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_resolved() {
        for (query, expected) in [
            ("key=a", Some(Ok("a".to_owned()))),
            ("limit=3&key=10.0.0.0%2F8", Some(Ok("10.0.0.0/8".to_owned()))),
            ("key=", Some(Ok(String::new()))),
            ("keys=a", None),
            ("", None),
            ("key=%2", Some(Err("`key` has a `%` without two hexadecimal digits".to_owned()))),
            ("key=%ff", Some(Err("`key` is not UTF-8".to_owned()))),
        ] {
            assert_eq!(parameter(query, "key"), expected, "{query}");
        }
    }
}
