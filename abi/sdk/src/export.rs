//! From a [`Plugin`] to the exported descriptor and its ELF note.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;

use ringway_abi::raw;

use crate::entry;
use crate::maps::MapDef;
use crate::plugin::Plugin;

/// Exports a type as the plugin of this cdylib: defines the symbol `ringway_plugin_v1` and the note `.note.ringway`.
/// Once per crate.
///
/// ```standalone_crate
/// # use ringway_sdk::prelude::*;
/// # struct Hello;
/// # impl Plugin for Hello {
/// #     type Shared = (); type Scratch = ();
/// #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
/// #     fn core_init(_: &std::sync::Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Hello) }
/// #     fn on_request(&mut self, cx: &mut Cx<'_, Self>, _: &RequestView) -> Outcome {
/// #         cx.add(GREETINGS, 1);
/// #         Ok(Verdict::Continue)
/// #     }
/// # }
/// ringway_sdk::export_plugin!(Hello {
///     name: "hello",                        // [a-z0-9-], at most 63 bytes
///     version: env!("CARGO_PKG_VERSION"),   // at most 31 bytes
///     hooks: [on_request],                  // only these are called
///     wants: [EDIT_REQUEST, RESPOND],       // constants of `Wants`; leave it out when empty
///     metrics: [                            // constants for `cx.add` and `cx.set`
///         GREETINGS = counter("greetings_total", "Requests that were greeted."),
///     ],
///     maps: [                               // constants for `loader.map`; see [`maps`](crate::maps)
///         PATHS = hash("paths", 32, "u64 hits", 1000),
///     ],
/// });
/// # fn main() {}
/// ```
///
/// A misspelt hook does not compile:
///
/// ```compile_fail
/// # use ringway_sdk::prelude::*;
/// # struct Hello;
/// # impl Plugin for Hello {
/// #     type Shared = (); type Scratch = ();
/// #     fn load(_: &mut Loader<'_>, _: &[u8]) -> Result<(), Fault> { Ok(()) }
/// #     fn core_init(_: &std::sync::Arc<()>, _: u32) -> Result<Self, Fault> { Ok(Hello) }
/// # }
/// ringway_sdk::export_plugin!(Hello { name: "hello", version: "1", hooks: [on_reqest] });
/// # fn main() {}
/// ```
///
/// A hook that is implemented and not listed compiles, and is never called: the first
/// [`TestHost::load`](crate::testing::TestHost::load) of the plugin's tests finds it.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty { $($facts:tt)* }) => {
        $crate::describe_plugin!($plugin { $($facts)* });

        #[allow(unsafe_code, reason = "the macro writes the unsafe part for authors whose crates forbid it")]
        const _: () = {
            #[used]
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals, reason = "the symbol's name is the contract's")]
            static ringway_plugin_v1: $crate::Descriptor = <$plugin as $crate::Export>::DESCRIPTOR;

            #[used]
            #[unsafe(link_section = ".note.ringway")]
            static NOTE: $crate::raw::Note = <$plugin as $crate::Export>::DESCRIPTOR.note(<$plugin as $crate::Export>::NAME, <$plugin as $crate::Export>::VERSION);
        };
    };
}

/// What [`export_plugin!`](crate::export_plugin!) does, without the symbol and the note: for several plugins in one test
/// binary. The arguments are the same.
#[macro_export]
macro_rules! describe_plugin {
    ($plugin:ty {
        name: $name:expr,
        version: $version:expr,
        hooks: [$($hook:ident),* $(,)?]
        $(, wants: [$($want:ident),* $(,)?])?
        $(, metrics: [$($metric:ident = $kind:ident($metric_name:literal, $help:literal)),* $(,)?])?
        $(, maps: [$($map:ident = $map_kind:ident($($map_fact:tt)*)),* $(,)?])?
        $(,)?
    }) => {
        $crate::describe_plugin!(@metrics 0; $($($metric = $kind,)*)?);
        $crate::describe_plugin!(@maps 0; $($($map = $map_kind($($map_fact)*),)*)?);

        impl $crate::Export for $plugin {
            const NAME: &'static str = $name;
            const VERSION: &'static str = $version;
            const DESCRIPTOR: $crate::Descriptor = {
                const { ::core::assert!(::core::cfg!(panic = "unwind"), "a plugin must be built with panic = \"unwind\": with \"abort\" a panic ends the gateway") };
                const NAME: &[u8; 64] = &$crate::nul_padded($name);
                const VERSION: &[u8; 32] = &$crate::nul_padded($version);
                const METRICS: &[$crate::MetricDef] = &[$($($crate::MetricDef::$kind(
                    ::core::concat!($metric_name, "\0"),
                    ::core::concat!($help, "\0"),
                )),*)?];
                const MAPS: &[$crate::MapDef] = &[$($($crate::describe_plugin!(@map $map_kind($($map_fact)*))),*)?];
                $crate::Builder::<$plugin>::new(NAME, VERSION, METRICS, MAPS)
                    $(.$hook())*
                    $($(.wants($crate::Wants::$want))*)?
                    .build()
            };
        }
    };
    (@maps $at:expr;) => {};
    (@maps $at:expr; $map:ident = $kind:ident($($fact:tt)*), $($rest:tt)*) => {
        const $map: $crate::Map = $crate::Map::at($at, &$crate::describe_plugin!(@map $kind($($fact)*)));
        $crate::describe_plugin!(@maps $at + 1; $($rest)*);
    };
    (@map $kind:ident($name:literal, $key_bytes:expr, $fields:literal, $entries:expr)) => {
        $crate::MapDef::$kind(::core::concat!($name, "\0"), $key_bytes, ::core::concat!($fields, "\0"), $entries)
    };
    (@map $kind:ident($name:literal, $fields:literal, $entries:expr)) => {
        $crate::MapDef::$kind(::core::concat!($name, "\0"), ::core::concat!($fields, "\0"), $entries)
    };
    (@metrics $at:expr;) => {};
    (@metrics $at:expr; $metric:ident = counter, $($rest:tt)*) => {
        const $metric: $crate::Counter = $crate::Counter::at($at);
        $crate::describe_plugin!(@metrics $at + 1; $($rest)*);
    };
    (@metrics $at:expr; $metric:ident = gauge, $($rest:tt)*) => {
        const $metric: $crate::Gauge = $crate::Gauge::at($at);
        $crate::describe_plugin!(@metrics $at + 1; $($rest)*);
    };
}

/// What a plugin may do besides looking. The gateway plans each route by what its chain wants: nobody pays for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wants(u64);

impl Wants {
    /// Edit headers and target of the request.
    pub const EDIT_REQUEST: Wants = Wants(raw::WANT_EDIT_REQUEST);
    /// Edit headers and status of the response.
    pub const EDIT_RESPONSE: Wants = Wants(raw::WANT_EDIT_RESPONSE);
    /// Replace bytes of the request body.
    pub const EDIT_REQUEST_BODY: Wants = Wants(raw::WANT_EDIT_REQUEST_BODY);
    /// Replace bytes of the response body.
    pub const EDIT_RESPONSE_BODY: Wants = Wants(raw::WANT_EDIT_RESPONSE_BODY);
    /// Return [`Verdict::NeedBody`](crate::Verdict::NeedBody).
    pub const REQUEST_BODY: Wants = Wants(raw::WANT_REQUEST_BODY);
    /// Answer requests itself.
    pub const RESPOND: Wants = Wants(raw::WANT_RESPOND);
    /// Choose the upstream.
    pub const UPSTREAM: Wants = Wants(raw::WANT_UPSTREAM);
    /// See how long the upstream took.
    pub const TIME: Wants = Wants(raw::WANT_TIME);
    /// Return [`Verdict::Suspend`](crate::Verdict::Suspend).
    pub const SUSPEND: Wants = Wants(raw::WANT_SUSPEND);
    /// Ask an [`Upstream`](crate::Upstream) while an exchange waits.
    pub const OUTCALL: Wants = Wants(ringway_abi::outcall::WANT_OUTCALL);
}

/// A counter of this plugin; [`export_plugin!`](crate::export_plugin!) defines it. Give it to
/// [`CoreCx::add`](crate::CoreCx::add).
#[derive(Debug, Clone, Copy)]
pub struct Counter(pub(crate) u32);

/// A gauge of this plugin; [`export_plugin!`](crate::export_plugin!) defines it. Give it to
/// [`CoreCx::set`](crate::CoreCx::set).
#[derive(Debug, Clone, Copy)]
pub struct Gauge(pub(crate) u32);

impl Counter {
    #[doc(hidden)]
    pub const fn at(index: u32) -> Self {
        Counter(index)
    }
}

impl Gauge {
    #[doc(hidden)]
    pub const fn at(index: u32) -> Self {
        Gauge(index)
    }
}

/// A plugin with its descriptor. Implemented by [`export_plugin!`](crate::export_plugin!) only.
pub trait Export: Plugin {
    /// The plugin's name.
    const NAME: &'static str;
    /// The plugin's version.
    const VERSION: &'static str;
    #[doc(hidden)]
    const DESCRIPTOR: Descriptor;
}

/// The bytes of `ringway_plugin_v1`. Only [`Builder`] makes one, so its functions belong to one plugin type and its
/// pointers live as long as the process.
#[doc(hidden)]
#[repr(transparent)]
pub struct Descriptor(raw::Plugin);

impl Descriptor {
    /// The note with the same facts.
    pub const fn note(&self, name: &str, version: &str) -> raw::Note {
        raw::Note::new(name, version, raw::LANG_RUST, self.0.hooks, self.0.wants, self.0.scratch_bytes)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn raw(&self) -> &raw::Plugin {
        &self.0
    }
}

/// `rw_metric_def`.
#[doc(hidden)]
#[repr(transparent)]
pub struct MetricDef(raw::MetricDef);

// SAFETY: a constant whose pointers lead to constants.
unsafe impl Sync for MetricDef {}

impl MetricDef {
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        MetricDef::new(name, help, raw::METRIC_COUNTER)
    }

    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        MetricDef::new(name, help, raw::METRIC_GAUGE)
    }

    /// `name` and `help` with their NUL.
    const fn new(name: &'static str, help: &'static str, kind: u32) -> Self {
        let mut at = 0;
        while at + 1 < name.len() {
            let byte = name.as_bytes()[at];
            assert!(byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_', "the name of a metric is made of a-z, 0-9 and _");
            at += 1;
        }
        assert!(name.len() > 1, "a metric needs a name");
        MetricDef(raw::MetricDef { name: c_str(name), help: c_str(help), kind, reserved: 0 })
    }
}

const fn c_str(text: &'static str) -> *const c_char {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text.as_ptr(),
        Err(_) => panic!("the text of a metric must not hold NUL"),
    }
}

/// Text padded with NUL, of which there is at least one.
#[doc(hidden)]
pub const fn nul_padded<const N: usize>(text: &str) -> [u8; N] {
    assert!(text.len() < N, "the name of a plugin has at most 63 bytes, its version at most 31");
    let mut padded = [0; N];
    let mut at = 0;
    while at < text.len() {
        padded[at] = text.as_bytes()[at];
        assert!(padded[at] != 0, "the name and the version of a plugin must not hold NUL");
        at += 1;
    }
    padded
}

/// Makes a [`Descriptor`]; one method per hook, named like the hook, so that a misspelt one does not compile.
#[doc(hidden)]
pub struct Builder<P> {
    raw: raw::Plugin,
    of: PhantomData<fn() -> P>,
}

macro_rules! hooks {
    ($($hook:ident = $bit:ident),* $(,)?) => {$(
        pub const fn $hook(mut self) -> Self {
            assert!(self.raw.hooks & raw::$bit == 0, "a hook is listed twice");
            self.raw.hooks |= raw::$bit;
            self.raw.$hook = Some(entry::$hook::<P>);
            self
        }
    )*};
}

impl<P: Plugin> Builder<P> {
    pub const fn new(name: &'static [u8; 64], version: &'static [u8; 32], metrics: &'static [MetricDef], maps: &'static [MapDef]) -> Self {
        assert!(name[0] != 0, "a plugin needs a name");
        let mut at = 0;
        while name[at] != 0 {
            assert!(name[at].is_ascii_lowercase() || name[at].is_ascii_digit() || name[at] == b'-', "the name of a plugin is made of a-z, 0-9 and -");
            at += 1;
        }
        assert!(metrics.len() <= raw::METRICS_MAX as usize, "a plugin has at most 256 metrics");
        assert!(size_of::<P::Scratch>() <= raw::SCRATCH_BYTES_MAX as usize, "the scratch of a plugin has at most 4096 bytes");
        assert!(align_of::<P::Scratch>() <= 16, "the scratch of a plugin is aligned to at most 16 bytes");
        let raw = raw::Plugin {
            size: size_of::<raw::Plugin>() as u32,
            abi_major: raw::ABI_MAJOR,
            abi_minor: raw::ABI_MINOR,
            abi_min_minor: 0,
            language: raw::LANG_RUST,
            scratch_bytes: size_of::<P::Scratch>() as u32,
            layout_fingerprint: raw::LAYOUT_FINGERPRINT,
            wants: if maps.is_empty() { 0 } else { raw::WANT_MAPS },
            hooks: 0,
            reserved: 0,
            name: name.as_ptr().cast(),
            version: version.as_ptr().cast(),
            metrics: metrics.as_ptr().cast(),
            maps: maps.as_ptr().cast(),
            metric_count: metrics.len() as u32,
            map_count: MapDef::count(maps),
            metric_bytes: size_of::<raw::MetricDef>() as u32,
            map_bytes: size_of::<raw::MapDef>() as u32,
            load: Some(entry::load::<P>),
            unload: Some(entry::unload::<P>),
            core_init: Some(entry::core_init::<P>),
            core_fini: Some(entry::core_fini::<P>),
            on_accept: None,
            on_request: None,
            on_request_chunk: None,
            on_request_body: None,
            on_response: None,
            on_response_chunk: None,
            on_event: None,
            on_done: None,
            on_tick: None,
            get_ext: None,
        };
        Builder { raw, of: PhantomData }
    }

    hooks! {
        on_accept = HOOK_ACCEPT,
        on_request = HOOK_REQUEST,
        on_request_chunk = HOOK_REQUEST_CHUNK,
        on_request_body = HOOK_REQUEST_BODY,
        on_response = HOOK_RESPONSE,
        on_response_chunk = HOOK_RESPONSE_CHUNK,
        on_event = HOOK_EVENT,
        on_done = HOOK_DONE,
        on_tick = HOOK_TICK,
    }

    pub const fn wants(mut self, wants: Wants) -> Self {
        self.raw.wants |= wants.0;
        self
    }

    pub const fn build(self) -> Descriptor {
        let wants_body = self.raw.wants & raw::WANT_REQUEST_BODY != 0;
        let has_body_hook = self.raw.hooks & raw::HOOK_REQUEST_BODY != 0;
        assert!(wants_body == has_body_hook, "wants REQUEST_BODY and the hook on_request_body go together");
        let wants_events = self.raw.wants & raw::WANT_SUSPEND != 0;
        let has_event_hook = self.raw.hooks & raw::HOOK_EVENT != 0;
        assert!(wants_events == has_event_hook, "wants SUSPEND and the hook on_event go together");
        let wants_outcalls = self.raw.wants & ringway_abi::outcall::WANT_OUTCALL != 0;
        assert!(!wants_outcalls || wants_events, "wants OUTCALL needs SUSPEND and the hook on_event");
        Descriptor(self.raw)
    }
}
