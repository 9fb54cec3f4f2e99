//! Finds a hook that the plugin implements and `export_plugin!` does not list: it would compile and never be called.
//!
//! Every hook that is not listed is run once. The default of the trait leaves a note; a hook of the author's does not.

use std::ptr::NonNull;

use ringway_abi::raw::{self, RawChunk};
use ringway_abi::view::{RequestView, ResponseView};
use rkyv::rancor;

use super::exchange::{request_view, response_view};
use super::host::TestHost;
use super::table::Call;
use super::{request, response};
use crate::cx::{CoreCx, Cx};
use crate::entry::Core;
use crate::event::{Accept, Chunk, Done};
use crate::{Event, Export, panics};

/// The name of the first hook that is implemented and not listed.
pub(super) fn unlisted_hook<P: Export>(host: &mut TestHost<P>) -> Option<&'static str> {
    let listed = P::DESCRIPTOR.raw().hooks;
    let unlisted = raw::HOOKS.iter().filter(|(bit, _)| listed & bit == 0);
    unlisted.into_iter().find(|(bit, _)| !is_default::<P>(host, *bit)).map(|(_, name)| *name)
}

/// Whether the hook is the trait's own.
fn is_default<P: Export>(host: &mut TestHost<P>, bit: u32) -> bool {
    let request_bytes = request_view(&mut request("GET", "/", &[]), &[]);
    let response_bytes = response_view(&mut response(200, &[], b""), &[]);
    let (Ok(request), Ok(response)) =
        (rkyv::access::<RequestView, rancor::Error>(&request_bytes), rkyv::access::<ResponseView, rancor::Error>(&response_bytes))
    else {
        return true;
    };
    let mut call = Call::new(host.state, host.core, bit);
    let mut scratch = vec![0u128; (P::DESCRIPTOR.raw().scratch_bytes as usize).div_ceil(16)];
    call.raw.request = request;
    call.raw.response = response;
    call.raw.scratch = scratch.as_mut_ptr().cast();
    let Some(raw_cx) = NonNull::new(std::ptr::from_mut(&mut call).cast()) else { return true };
    let ran = panics::catch(|| {
        // SAFETY: `core_init` of this plugin stored its core, and no hook runs.
        let Some(core) = (unsafe { host.core.cast::<Core<P>>().as_mut() }) else { return true };
        if matches!(bit, raw::HOOK_ACCEPT | raw::HOOK_TICK) {
            // SAFETY: the call lives longer than the hook, and its fields are filled.
            let mut cx = unsafe { CoreCx::new(raw_cx) };
            match bit {
                raw::HOOK_ACCEPT => drop(core.plugin.on_accept(&mut cx, Accept(raw::Accept { size: 0, listener: 0, peer_port: 0, peer_addr: [0; 16] }))),
                _ => core.plugin.on_tick(&mut cx),
            }
            return cx.is_default();
        }
        let chunk = RawChunk { size: 0, flags: raw::CHUNK_LAST, offset: 0, bytes: std::ptr::null(), len: 0 };
        // SAFETY: the chunk is empty.
        let chunk = unsafe { Chunk::new(&chunk) };
        // SAFETY: as above; the scratch has the size that the descriptor asks for.
        let mut cx = unsafe { Cx::<P>::new(raw_cx, &core.shared, request) };
        let plugin = &mut core.plugin;
        match bit {
            raw::HOOK_REQUEST => drop(plugin.on_request(&mut cx, request)),
            raw::HOOK_EVENT => drop(plugin.on_event(&mut cx, Event::Timeout)),
            raw::HOOK_REQUEST_CHUNK => drop(plugin.on_request_chunk(&mut cx, chunk)),
            raw::HOOK_REQUEST_BODY => drop(plugin.on_request_body(&mut cx, chunk)),
            raw::HOOK_RESPONSE => drop(plugin.on_response(&mut cx, response)),
            raw::HOOK_RESPONSE_CHUNK => drop(plugin.on_response_chunk(&mut cx, chunk)),
            _ => plugin
                .on_done(&mut cx, Done(raw::Done { size: 0, status: 0, origin: 0, flags: 0, request_body_bytes: 0, response_body_bytes: 0, duration_ns: 0 })),
        }
        cx.is_default()
    });
    ran.unwrap_or(false)
}
