//! Safe Rust for authors of Ringway plugins.
//!
//! A plugin is a shared object that the gateway loads. It sees every request and response in place, over the bytes that
//! came from the network, and decides: go on, edit, answer, drop.
//!
//! # A first plugin in five minutes
//!
//! `Cargo.toml`:
//!
//! ```toml
//! [package]
//! name = "hello"
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib", "rlib"]
//!
//! [dependencies]
//! ringway-sdk = { path = "../ringway/abi/sdk" }
//!
//! [dev-dependencies]
//! ringway-sdk = { path = "../ringway/abi/sdk", features = ["testing"] }
//! ```
//!
//! `src/lib.rs`:
//!
//! ```standalone_crate
//! use std::sync::Arc;
//! use ringway_sdk::prelude::*;
//!
//! /// One value of it lives on each worker.
//! struct Hello {
//!     greeting: Arc<String>,
//! }
//!
//! impl Plugin for Hello {
//!     type Shared = Arc<String>;
//!     type Scratch = ();
//!
//!     fn load(_: &mut Loader<'_>, config: &[u8]) -> Result<Self::Shared, Fault> {
//!         if config != b"{}" {
//!             return Err("this plugin takes no configuration".into());
//!         }
//!         Ok(Arc::new("hello".to_owned()))
//!     }
//!
//!     fn core_init(shared: &Arc<Self::Shared>, _worker: u32) -> Result<Self, Fault> {
//!         Ok(Hello { greeting: Arc::clone(shared) })
//!     }
//!
//!     fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
//!         if request.path() == b"/hello" {
//!             return cx.respond(200)?.header("content-type", "text/plain")?.body(self.greeting.as_str())?.send();
//!         }
//!         cx.request_mut().set_header("x-greeting", self.greeting.as_str())?;
//!         Ok(Verdict::Continue)
//!     }
//! }
//!
//! ringway_sdk::export_plugin!(Hello {
//!     name: "hello",
//!     version: env!("CARGO_PKG_VERSION"),
//!     hooks: [on_request],
//!     wants: [EDIT_REQUEST, RESPOND],
//! });
//!
//! # #[cfg(feature = "testing")]
//! fn main() {
//!     // In your crate this is a `#[test]`.
//!     use ringway_sdk::testing::{TestHost, request};
//!
//!     let mut host = TestHost::<Hello>::load("{}").expect("the configuration is good");
//!     let answer = host.exchange(request("GET", "/hello", &[])).on_request().answer();
//!     assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
//!
//!     let mut exchange = host.exchange(request("GET", "/other", &[]));
//!     exchange.on_request().continues();
//!     assert_eq!(exchange.request_header("x-greeting"), Some("hello"));
//! }
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! ```
//!
//! `cargo build --release` makes `target/release/libhello.so`; `ringway plugin inspect` shows it, and
//! `ringway proxy --from 127.0.0.1:8080 --to 127.0.0.1:9000 --plugin target/release/libhello.so` runs it.
//!
//! # What to know
//!
//! - **One instance per worker.** [`Plugin::load`] runs once and makes [`Plugin::Shared`]; [`Plugin::core_init`] runs on
//!   each worker. Hooks of one instance never overlap, so they take `&mut self` and need no locks.
//! - **Nothing takes effect until the hook returns**, and nothing at all if it fails. What a hook reads does not change
//!   under its hands.
//! - **Declare what you do.** An edit that `wants` does not hold fails with [`HostError::NotDeclared`].
//! - **Failing is cheap and safe.** A [`Fault`] or a panic ends the hook, logs one line, and the link's `on_error` decides
//!   whether the client gets a 500 or the plugin is skipped. A panic never leaves the plugin. Build with
//!   `panic = "unwind"` (the default); `export_plugin!` refuses `abort`.
//! - **Do not block.** Every connection of the worker waits for your hook.
//!
//! # What does not compile
//!
//! Spans live as long as the hook. Reading one and keeping a copy is fine:
//!
//! ```
//! # use std::sync::Arc;
//! # use ringway_sdk::prelude::*;
//! struct Keeper { host: Vec<u8> }
//! impl Plugin for Keeper {
//! #     type Shared = (); type Scratch = ();
//! #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
//! #     fn core_init(_: &Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Keeper { host: Vec::new() }) }
//!     fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
//!         self.host = request.authority().to_vec();
//!         Ok(Verdict::Continue)
//!     }
//! }
//! ```
//!
//! Keeping the span itself is not. In a field:
//!
//! ```compile_fail
//! # use std::sync::Arc;
//! # use ringway_sdk::prelude::*;
//! struct Keeper { host: &'static [u8] }
//! impl Plugin for Keeper {
//! #     type Shared = (); type Scratch = ();
//! #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
//! #     fn core_init(_: &Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Keeper { host: b"" }) }
//!     fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
//!         self.host = request.authority();
//!         Ok(Verdict::Continue)
//!     }
//! }
//! ```
//!
//! Nor when it comes from the `cx`:
//!
//! ```compile_fail
//! # use std::sync::Arc;
//! # use ringway_sdk::prelude::*;
//! struct Keeper { host: &'static [u8] }
//! impl Plugin for Keeper {
//! #     type Shared = (); type Scratch = ();
//! #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
//! #     fn core_init(_: &Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Keeper { host: b"" }) }
//!     fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
//!         self.host = cx.request().authority();
//!         Ok(Verdict::Continue)
//!     }
//! }
//! ```
//!
//! In a static:
//!
//! ```compile_fail
//! # use std::sync::{Arc, Mutex};
//! # use ringway_sdk::prelude::*;
//! # struct Keeper;
//! static LAST: Mutex<&[u8]> = Mutex::new(b"");
//! impl Plugin for Keeper {
//! #     type Shared = (); type Scratch = ();
//! #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
//! #     fn core_init(_: &Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Keeper) }
//!     fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
//!         if let Ok(mut last) = LAST.lock() {
//!             *last = request.authority();
//!         }
//!         Ok(Verdict::Continue)
//!     }
//! }
//! ```
//!
//! Bytes of a chunk:
//!
//! ```compile_fail
//! # use std::sync::Arc;
//! # use ringway_sdk::prelude::*;
//! struct Keeper { pieces: Vec<&'static [u8]> }
//! impl Plugin for Keeper {
//! #     type Shared = (); type Scratch = ();
//! #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
//! #     fn core_init(_: &Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Keeper { pieces: Vec::new() }) }
//!     fn on_response_chunk(&mut self, cx: &mut Cx<'_, Self>, chunk: Chunk<'_>) -> Outcome {
//!         self.pieces.push(chunk.bytes());
//!         Ok(Verdict::Continue)
//!     }
//! }
//! ```
//!
//! And a `cx` stays on its thread, even when that thread ends before the hook does. This compiles, because it sends only
//! bytes:
//!
//! ```
//! # use std::sync::Arc;
//! # use ringway_sdk::prelude::*;
//! # struct Sender;
//! # impl Plugin for Sender {
//! #     type Shared = (); type Scratch = ();
//! #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
//! #     fn core_init(_: &Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Sender) }
//! fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
//!     std::thread::scope(|s| { s.spawn(|| request.authority().len()); });
//!     Ok(Verdict::Continue)
//! }
//! # }
//! ```
//!
//! and this does not:
//!
//! ```compile_fail
//! # use std::sync::Arc;
//! # use ringway_sdk::prelude::*;
//! # struct Sender;
//! # impl Plugin for Sender {
//! #     type Shared = (); type Scratch = ();
//! #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
//! #     fn core_init(_: &Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Sender) }
//! fn on_request(&mut self, cx: &mut Cx<'_, Self>, request: &RequestView) -> Outcome {
//!     std::thread::scope(|s| { s.spawn(|| cx.request().authority().len()); });
//!     Ok(Verdict::Continue)
//! }
//! # }
//! ```

mod cx;
mod edit;
mod entry;
mod error;
mod event;
mod export;
mod line;
mod loader;
pub mod maps;
pub mod message;
mod outcall;
mod panics;
mod plugin;
mod respond;
mod scratch;
#[cfg(feature = "testing")]
pub mod testing;
mod wait;

pub use cx::{CoreCx, Cx, Kept};
pub use edit::{RequestEdits, ResponseEdits};
pub use error::{Fault, HostError};
pub use event::{Accept, Chunk, Done};
#[doc(hidden)]
pub use export::{Builder, Descriptor, MetricDef, nul_padded};
pub use export::{Counter, Export, Gauge, Wants};
pub use line::Level;
pub use loader::{Loader, Prebuilt};
#[doc(hidden)]
pub use maps::MapDef;
pub use maps::{CoreMap, Map, SharedMap};
pub use outcall::{NoReply, Outcall, Upstream};
pub use plugin::{Outcome, Plugin, Verdict};
pub use respond::Respond;
pub use ringway_abi::ids::{self, HeaderId};
#[doc(hidden)]
pub use ringway_abi::raw;
pub use ringway_abi::view::{self, HeaderView, RequestView, ResponseView};
pub use scratch::Zeroed;
pub use wait::{Event, Wait, Waker};

/// All that most plugins need.
pub mod prelude {
    pub use crate::ids::{self, HeaderId};
    pub use crate::message::{Message, RequestExt};
    pub use crate::view::{self, HeaderView, RequestView, ResponseView};
    pub use crate::{Accept, Chunk, CoreCx, CoreMap, Cx, Done, Fault, HostError, Kept, Level, Loader, Outcome, Plugin, Prebuilt, SharedMap, Verdict};
    pub use crate::{Event, NoReply, Upstream, Wait, Waker};
}
