//! The same hook fed in other ways: the request is serialized for the plugin, which reads it back before it decides.
//!
//! Each form takes the parsed view, writes all that a plugin may look at (method, target, headers) to a buffer that is kept,
//! reads it back on the other side and looks at one header. No process, socket or guest memory lies between the two, so these
//! are lower bounds. Readers borrow from the buffer where the format can; protobuf's usual Rust reader cannot.

use std::borrow::Cow;

use prost::Message as _;
use prost::bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use ringway_abi::{Request, RequestView};
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use serde::{Deserialize, Serialize};

/// The header that the hook looks at.
pub const NAME: &str = "user-agent";
/// A value longer than this is refused: never, with our inputs.
pub const VALUE_BYTES_MAX: usize = 65_000;

/// A request as serde writes and reads it.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    #[serde(borrow)]
    headers: Vec<Field<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Field<'a>(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>);

/// A request as protobuf has it.
#[derive(prost::Message)]
struct ProtoHead {
    #[prost(bytes = "vec", tag = "1")]
    method: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    target: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    headers: Vec<ProtoField>,
}

#[derive(prost::Message)]
struct ProtoField {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The buffers of all forms; their memory is kept from call to call.
#[derive(Default)]
pub struct Buffers {
    bytes: Vec<u8>,
    aligned: AlignedVec,
}

/// A way to bring a request to a hook: whether the hook lets it pass.
pub type Form = fn(&mut Buffers, &RequestView) -> bool;

/// The forms by name.
pub const FORMS: [(&str, Form); 5] =
    [("json", json), ("protobuf", protobuf), ("bincode", bincode), ("postcard", postcard), ("rkyv-serialized", rkyv_serialized)];

/// JSON text, by serde_json.
pub fn json(buffers: &mut Buffers, view: &RequestView) -> bool {
    buffers.bytes.clear();
    serde_json::to_writer(&mut buffers.bytes, &head_of(view)).expect("a Vec takes everything");
    decide(&serde_json::from_slice(&buffers.bytes).expect("just written"))
}

/// protobuf: written straight from the view, read by prost.
pub fn protobuf(buffers: &mut Buffers, view: &RequestView) -> bool {
    let out = &mut buffers.bytes;
    out.clear();
    put_bytes(out, 1, view.method());
    put_bytes(out, 2, view.target());
    for header in view.headers() {
        let (name, value) = (header.name(), header.value());
        let part = |bytes: &[u8]| 1 + encoded_len_varint(bytes.len() as u64) + bytes.len();
        encode_key(3, WireType::LengthDelimited, out);
        encode_varint((part(name) + part(value)) as u64, out);
        put_bytes(out, 1, name);
        put_bytes(out, 2, value);
    }
    let read = ProtoHead::decode(&buffers.bytes[..]).expect("just written");
    let found = read.headers.iter().find(|field| field.name.eq_ignore_ascii_case(NAME.as_bytes()));
    found.is_none_or(|field| field.value.len() <= VALUE_BYTES_MAX)
}

/// bincode 2 through serde, its standard configuration.
pub fn bincode(buffers: &mut Buffers, view: &RequestView) -> bool {
    buffers.bytes.clear();
    let configuration = bincode::config::standard();
    bincode::serde::encode_into_std_write(head_of(view), &mut buffers.bytes, configuration).expect("a Vec takes everything");
    let read = bincode::serde::borrow_decode_from_slice(&buffers.bytes, configuration);
    decide(&read.expect("just written").0)
}

/// postcard through serde.
pub fn postcard(buffers: &mut Buffers, view: &RequestView) -> bool {
    let mut bytes = std::mem::take(&mut buffers.bytes);
    bytes.clear();
    buffers.bytes = postcard::to_extend(&head_of(view), bytes).expect("a Vec takes everything");
    decide(&postcard::from_bytes(&buffers.bytes).expect("just written"))
}

/// rkyv as it is usually used: an owned request is serialized, and the archive checked before it is read.
pub fn rkyv_serialized(buffers: &mut Buffers, view: &RequestView) -> bool {
    let owned = rkyv::deserialize::<Request, Error>(view).expect("spans are only copied");
    buffers.aligned.clear();
    let written = std::mem::take(&mut buffers.aligned);
    buffers.aligned = rkyv::api::high::to_bytes_in::<_, Error>(&owned, written).expect("a Vec takes everything");
    let read = rkyv::access::<RequestView, Error>(&buffers.aligned).expect("just written");
    read.header_named(NAME.as_bytes()).is_none_or(|value| value.len() <= VALUE_BYTES_MAX)
}

fn head_of(view: &RequestView) -> Head<'_> {
    Head {
        method: text(view.method()),
        target: text(view.target()),
        headers: view.headers().map(|header| Field(text(header.name()), text(header.value()))).collect(),
    }
}

/// Inputs are ASCII; a gateway would have to check or escape here.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn decide(head: &Head<'_>) -> bool {
    let found = head.headers.iter().find(|field| field.0.eq_ignore_ascii_case(NAME));
    found.is_none_or(|field| field.1.len() <= VALUE_BYTES_MAX)
}

fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::REQUESTS;
    use crate::slots::{Received, slab};
    use ringway::http1::names::NameTable;

    #[test]
    fn every_form_reads_what_it_wrote() {
        let (slab, names) = (slab(), NameTable::new());
        let mut buffers = Buffers::default();
        for input in REQUESTS {
            let mut received = Received::new(&slab, input);
            received.parse_request(&names);
            let message = received.request();
            for (name, form) in FORMS {
                assert!(form(&mut buffers, message.request()), "{name}");
                assert!(form(&mut buffers, message.request()), "{name}, again");
            }
        }
    }
}
