//! Slots as a worker lays them out, and messages parsed into them.

use ringway::config::Config;
use ringway::http1::head::{Area, HeadLimits, HeadProgress, RequestFacts, ResponseFacts, ResponseTo, parse_request, parse_response};
use ringway::http1::names::NameTable;
use ringway::view::message::{Message, Side};
use ringway::view::slab::{Slab, Slot};
use ringway::worker::slot_layout;
use ringway_abi::ids::METHOD_GET;

use crate::inputs::{Input, routes};

/// Slots of a slab: more than any exchange needs.
const SLOTS: u32 = 16;

/// A configuration with this many routes and defaults for everything else.
///
/// # Panics
/// When it is refused: then the text of [`routes`] has to follow the schema.
pub fn config(route_count: usize) -> Config {
    Config::parse("bench.toml", &routes(route_count), &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A slab with the gateway's default limits.
///
/// # Panics
/// When the kernel refuses the memory.
pub fn slab() -> Slab {
    Slab::new(slot_layout(&config(1), 0), SLOTS, false).expect("16 slots of the default size fit into memory")
}

/// A received head in its slot, to be parsed again and again.
pub struct Received {
    /// The slot; the head stands at its beginning.
    pub slot: Slot,
    /// Bytes received.
    pub filled: usize,
    limits: HeadLimits,
}

impl Received {
    /// `input` has arrived in a slot of this slab.
    ///
    /// # Panics
    /// When the slab has no slot left.
    pub fn new(slab: &Slab, input: Input) -> Received {
        let mut slot = slab.take().expect("a bench uses few slots");
        slot.bytes_mut(0..input.bytes.len()).copy_from_slice(input.bytes);
        Received { slot, filled: input.bytes.len(), limits: HeadLimits::default() }
    }

    /// Head to view, for a request: what a worker does when a head has arrived.
    ///
    /// # Panics
    /// When the input is no whole head.
    #[inline]
    pub fn parse_request(&mut self, names: &NameTable) -> RequestFacts {
        let (bytes, entries, root) = self.slot.request_parts();
        let area = Area { bytes, filled: self.filled };
        let parsed = parse_request(area, &self.limits, names, entries, root, &mut HeadProgress::default());
        parsed.expect("the inputs are well-formed").expect("the inputs are whole")
    }

    /// Head to view, for a response to GET.
    ///
    /// # Panics
    /// When the input is no whole head.
    #[inline]
    pub fn parse_response(&mut self, names: &NameTable) -> ResponseFacts {
        let (bytes, entries, root) = self.slot.response_parts();
        let area = Area { bytes, filled: self.filled };
        let to = ResponseTo { method_id: METHOD_GET, upgrade: false };
        let parsed = parse_response(area, &self.limits, names, entries, root, to, &mut HeadProgress::default());
        parsed.expect("the inputs are well-formed").expect("the inputs are whole")
    }

    /// The parsed request as a message of its own; it shares the slot, and edits leave the original view alone.
    #[inline]
    pub fn request(&mut self) -> Message {
        let count = self.slot.request_parts().2.headers.len;
        Message::parsed(self.slot.clone(), Side::Request, count as usize)
    }

    /// The parsed response as a message.
    #[inline]
    pub fn response(&mut self) -> Message {
        let count = self.slot.response_parts().2.headers.len;
        Message::parsed(self.slot.clone(), Side::Response, count as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::{REQUESTS, RESPONSES};
    use ringway_abi::{RequestView, ResponseView};
    use rkyv::rancor::Error;

    #[test]
    fn every_input_is_a_view() {
        let (slab, names) = (slab(), NameTable::new());
        for input in REQUESTS {
            let mut received = Received::new(&slab, input);
            received.parse_request(&names);
            let view = rkyv::access::<RequestView, Error>(received.request().archive()).map(|view| view.entries().len());
            assert_eq!(view.expect("a valid archive"), input.headers, "{}", input.name);
        }
        for input in RESPONSES {
            let mut received = Received::new(&slab, input);
            received.parse_response(&names);
            let view = rkyv::access::<ResponseView, Error>(received.response().archive()).map(|view| view.entries().len());
            assert_eq!(view.expect("a valid archive"), input.headers, "{}", input.name);
        }
    }
}
