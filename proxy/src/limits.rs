//! Every bound of the gateway: its name, its unit, its default and why it is what it is.
//!
//! Owns the numbers and the two ways they are written down (`"64KiB"`, `"1m30s"`). Must not know who enforces a bound.
//! Each constant is the default of the field of the same name in [`Limits`] or [`Timeouts`]; the field says what is
//! bounded, the constant why so much. In [`Limits`] `0` means "no limit" where the field says so; in [`Timeouts`] `0` is
//! written `"off"`. A field that ends in `_bytes` counts bytes, every other one counts the things in its name.
//!
//! Invariants, checked by [`Limits::conflicts`]: `line_bytes <= head_bytes`, `target_bytes < head_bytes`,
//! `header_fields <= 254`, `slab_slots() * slot_bytes_min() <= SLAB_BYTES_MAX`, and those of the buffers.
#![forbid(unsafe_code)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

/// The views address their slot with 32-bit signed offsets, so a slab stays below 2 GiB.
pub const SLAB_BYTES_MAX: usize = 2 * GIB - 1;
/// `known[id]` of a view is one byte and holds an entry's index plus one, so 254 entries leave 255 unused as a guard.
pub const HEADER_FIELDS_MAX: usize = 254;
/// Of a server name with more addresses than a mask has bits, the first are used.
pub const ADDRESSES_MAX: usize = 64;
/// Addresses of one server that are tried for one connection: they share the time for connecting.
pub const ADDRESS_TRIES_MAX: usize = 4;
/// So long (ms) an address that let nobody in comes after the others of its server: one connection per worker pays to learn that it is back.
pub const ADDRESS_RETRY_MS: u64 = 10_000;
/// Bytes of one header entry and of the larger root (`rw_header`, `rw_request`).
pub const ENTRY_BYTES: usize = 16;
/// Bytes of the larger of the two roots.
pub const ROOT_BYTES: usize = 192;

/// 8 KiB targets and ordinary cookies fit; four times the 4 KiB page that most heads stay in.
pub const HEAD_BYTES: usize = 16 * KIB;
/// RFC 9112 §3 asks for request lines of at least 8000 bytes; this is the next power of two.
pub const TARGET_BYTES: usize = 8 * KIB;
/// One large cookie or token fits; one field cannot fill the head.
pub const LINE_BYTES: usize = 8 * KIB;
/// Browsers send about 20, long chains of proxies about 50.
pub const HEADER_FIELDS: usize = 100;
/// Trailers carry checksums and status, rarely more than a few hundred bytes.
pub const TRAILER_BYTES: usize = 4 * KIB;
/// Extensions are ignored and never forwarded (RFC 9112 §7.1.1); nobody needs more than a signature or two.
pub const CHUNK_EXTENSION_BYTES: usize = KIB;
/// `103 Early Hints` comes once or twice; an endless row of 1xx must not keep an exchange alive.
pub const INTERIM_RESPONSES: usize = 8;

/// Bodies are streamed in constant memory, so this protects upstreams and disks, not the gateway; 1 GiB passes ordinary uploads.
pub const BODY_BYTES: usize = GIB;
/// A whole body is held in memory only for a plugin that asked for it; JSON requests are far smaller.
pub const BODY_BUFFER_BYTES: usize = MIB;
/// Generous for an error page or a cached document; larger ones belong to an upstream.
pub const PLUGIN_RESPONSE_BYTES: usize = MIB;
/// About forty added headers of 100 bytes.
pub const EDIT_BYTES: usize = 4 * KIB;
/// Decoded tokens and small tables of the plugins of one exchange.
pub const PLUGIN_ALLOC_BYTES: usize = 64 * KIB;
/// A million counters of 16 bytes with their keys, or rings and tables for a handful of plugins; allocated when they are loaded.
pub const MAP_BYTES: usize = 64 * MIB;
/// Of a plugin's file: none comes near, and what is longer is no plugin.
pub const PLUGIN_FILE_BYTES: usize = 256 * MIB;
/// The smallest size at which large bodies cost less than in nginx: 0.74× at 64 KiB bodies, 0.48× at 1 MiB.
pub const RELAY_BUFFER_BYTES: usize = 256 * KIB;
/// 64 large bodies at once per worker, 16 MiB; further ones use the slot until a buffer is free.
pub const RELAY_BUFFERS: usize = 64;
/// Reading a short rest keeps the connection; above this, closing it is cheaper.
pub const DRAIN_BYTES: usize = 256 * KIB;

/// One call of a plugin in a dry run: far above what a hook may take, and enough for a `load` that builds tables.
pub const VERIFY_STEP_MS: u64 = 5000;
/// Processor time of a dry run; all of them together need a fraction of a second.
pub const VERIFY_PROCESSOR_SECONDS: u64 = 20;
/// Address space of a dry run. A Go runtime reserves more than a gigabyte before it does anything.
pub const VERIFY_MEMORY_BYTES: usize = 4 * GIB;
/// Open files of a dry run.
pub const VERIFY_FILES: u64 = 64;
/// The end of what a plugin prints in a dry run that is kept for the report.
pub const VERIFY_OUTPUT_BYTES: usize = 4 * KIB;

/// Exchanges of one capture at most: a dry run of so many frames takes seconds.
pub const CAPTURE_EXCHANGES_MAX: u32 = 1000;
/// Exchanges of a capture when nobody says how many.
pub const CAPTURE_EXCHANGES: u32 = 100;
/// How long a capture waits for its exchanges when nobody says how long.
pub const CAPTURE_MS: u32 = 30 * SECOND;
/// How long it may wait: a capture that its caller has left blocks the next one for so long.
pub const CAPTURE_MS_MAX: u32 = 2 * MINUTE;
/// Bytes that all workers together copy for one capture; a thousand ordinary exchanges are 2 MiB. Memory is touched only as it is used.
pub const CAPTURE_BYTES: usize = 32 * MIB;
/// Bytes of a file of captured frames that is read.
pub const CAPTURE_FILE_BYTES_MAX: usize = 64 * MIB;
/// Bytes that stand in for those of a body that were not captured, per message.
pub const CAPTURE_FILL_BYTES: usize = 16 * KIB;

/// Slots that one exchange may hold at the same time: its request and its response.
pub const SLOTS_PER_EXCHANGE: usize = 2;
/// Slots of a worker beyond those of its exchanges: a plugin that replaces a response writes the new one while it sees the old one, and
/// an operation that was given up keeps its slot until the kernel lets go of it.
pub const SLOTS_RESERVED: usize = 64;
/// Bytes of unfinished heads that a worker holds outside of its slots: a thousand full ones, or a hundred thousand that a client sends
/// byte by byte.
pub const HELD_HEAD_BYTES_MAX: usize = 16 * MIB;
/// Exchanges in flight per worker; with two messages of about 50 KiB each, 400 MiB of address space that is touched only when used.
pub const SLOTS: usize = 4096;
/// Half of a usual limit of 65,536 file descriptors: each may need one more towards the upstream.
pub const CONNECTIONS: usize = 32_768;
/// Half of `connections`: no single address can take all of them. Lower it when clients connect directly.
pub const CONNECTIONS_PER_ADDRESS: usize = 16_384;
/// Lets connections move to other workers now and then, at a cost that no client notices.
pub const REQUESTS_PER_CONNECTION: usize = 10_000;
/// More than the requests that a worker usually has in flight to one server: what is over the bound is connected anew for every
/// burst, which cost 14 of 32 µs per request at 480 connections with a bound of 128.
pub const UPSTREAM_IDLE_CONNECTIONS: usize = 1024;
/// Retries may add a fifth to the load of an upstream in trouble, not double it.
pub const RETRY_BUDGET_PERCENT: usize = 20;
/// Retries that are always allowed per worker and second, so that a quiet gateway can retry at all.
pub const RETRY_RESERVE: usize = 10;
/// Far below any real uploader, far above a client that sends one byte a second.
pub const BODY_RATE_BYTES: usize = 256;
/// A rare panic costs one instance; whoever panics five times a minute will go on.
pub const PLUGIN_RESTARTS: usize = 5;
/// Fewer calls say nothing about one in a hundred.
pub const CANARY_CALLS_MIN: usize = 100;
/// A new version that fails in one of a hundred calls is worse than any that an operator would have kept.
pub const CANARY_ABORTS_PERCENT: usize = 1;
/// Two crashes may be chance; a third one within minutes is the plugin.
pub const PLUGIN_CRASHES: usize = 3;
/// Half of the default of `slots`: tunnels stay for hours, and requests need the other half.
pub const TUNNELS: usize = SLOTS / 2;
/// As many as there are exchanges in flight by default: a plugin may let each of them wait.
pub const SUSPENDED: usize = SLOTS;
/// A service that takes ten milliseconds answers a hundred thousand of them in a second; each takes a slot, that is address space until it is used.
pub const OUTCALLS: usize = 1024;
/// One service for who, one for what, and some to spare: whoever asks more for each request needs a service that does it.
pub const OUTCALLS_PER_HOOK: usize = 4;
/// A request line, headers such as a cookie and a token, and a small document.
pub const OUTCALL_REQUEST_BYTES: usize = 16 * KIB;
/// Decisions and error pages are far smaller.
pub const OUTCALL_REPLY_BYTES: usize = 16 * KIB;

const SECOND: u32 = 1000;
const MINUTE: u32 = 60 * SECOND;
const HOUR: u32 = 60 * MINUTE;

/// A head is one or two packets; ten seconds cover a lost packet on a bad line.
pub const HEAD: u32 = 10 * SECOND;
/// A mobile client in a tunnel comes back within half a minute or not at all.
pub const BODY_IDLE: u32 = 30 * SECOND;
/// Longer than the pause between two clicks; an idle connection costs about 1 KiB.
pub const KEEP_ALIVE_IDLE: u32 = MINUTE;
/// No age limit: `requests_per_connection` already moves busy connections.
pub const CONNECTION_AGE: u32 = 0;
/// As long as a client may pause while sending.
pub const WRITE_STALL: u32 = 30 * SECOND;
/// In one data centre a connect takes a millisecond; five seconds are two lost SYNs.
pub const CONNECT: u32 = 5 * SECOND;
/// Slow reports finish, hung servers are found.
pub const FIRST_BYTE: u32 = MINUTE;
/// Event streams send a heartbeat at least twice a minute.
pub const RESPONSE_IDLE: u32 = MINUTE;
/// Shorter than the keep-alive of common servers (nginx 75 s), so that we close first; shorter ones meet the retry on a stale connection.
pub const UPSTREAM_IDLE: u32 = 30 * SECOND;
/// Follows changes behind a virtual address within minutes.
pub const UPSTREAM_AGE: u32 = 10 * MINUTE;
/// Large downloads and event streams have no natural end.
pub const EXCHANGE: u32 = 0;
/// As long as a client's own patience with a page; a worker without a free slot for so long is overloaded.
pub const SLOT_WAIT: u32 = 10 * SECOND;
/// A client that asks `100-continue` usually waits one second before it sends anyway.
pub const EXPECT_CONTINUE: u32 = SECOND;
/// An authorization service that takes longer is down.
pub const SUSPEND: u32 = 10 * SECOND;
/// Service managers send SIGKILL after 30 to 90 seconds.
pub const DRAIN: u32 = 30 * SECOND;
/// Long enough for an error answer to arrive before a reset would destroy it (RFC 9112 §9.6).
pub const LINGER: u32 = 2 * SECOND;
/// WebSocket applications ping every minute or so; an hour lets silent ones live.
pub const TUNNEL_IDLE: u32 = HOUR;
/// See `plugin_restarts`.
pub const PLUGIN_RESTART_WINDOW: u32 = MINUTE;
/// At a few hundred requests a second, and one in ten of them for the canary, each window has its hundred calls.
pub const CANARY_WINDOW: u32 = 30 * SECOND;
/// Hooks take microseconds; one that holds its worker for ten milliseconds stalls every connection there.
pub const CANARY_P99: u32 = 10;
/// A plugin that one request in a million brings down is found at a few thousand requests a second.
pub const PLUGIN_CRASH_WINDOW: u32 = 5 * MINUTE;

/// A thousand times what a hook should take; a worker that is held for longer is seen by its clients.
pub const HOOK_BUDGET: u32 = 50;
/// No hook comes back after that, and its worker's connections have waited for long.
pub const HOOK_LIMIT: u32 = 5 * SECOND;

/// A start or a reload waits so long for names of servers that it has not met before, for all of them together. Longer than a resolver's first
/// attempt and one more on another server of its own; short enough for the patience of service managers.
pub const NAMES_WAIT: u32 = 5 * SECOND;
/// A name that fails is tried again after this, then after twice as long each time.
pub const NAME_RETRY: u32 = SECOND;
/// The longest wait before a name that fails is tried again; shorter where `resolve` is.
pub const NAME_RETRY_MAX: u32 = 30 * SECOND;
/// The log repeats that a name fails so often at most.
pub const NAME_REMINDER: u32 = 10 * MINUTE;
/// Look-ups under way at once, each on a thread of its own: a dead name takes the system's resolver ten seconds, and others must not wait for it.
pub const NAME_LOOKUPS: usize = 64;
/// Addresses of all names that a gateway process hands on to the next one, which looks up the rest: a message of some hundred kilobytes.
pub const KNOWN_ADDRESSES_MAX: usize = 4096;

/// How much of everything: the section `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request or response head, start line included. More: 431, or 502 from an upstream.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 1024, "maximum" = 1 << 20))]
    pub head_bytes: usize,
    /// Bytes of a request target. More: 414.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 256, "maximum" = 1 << 20))]
    pub target_bytes: usize,
    /// Bytes of one header line, name and value. More: 431, or 502 from an upstream.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 256, "maximum" = 65535))]
    pub line_bytes: usize,
    /// Header lines of one message. More: 431, or 502 from an upstream.
    #[schemars(range(min = 16, max = 254))]
    pub header_fields: usize,
    /// Bytes of a trailer section. More: the message is aborted.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 0, "maximum" = 1 << 20))]
    pub trailer_bytes: usize,
    /// Bytes of chunk extensions in one body. More: the message is aborted.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 0, "maximum" = 1 << 20))]
    pub chunk_extension_bytes: usize,
    /// Interim (1xx) responses before the final one. More: 502.
    #[schemars(range(min = 1, max = 1000))]
    pub interim_responses: usize,
    /// Bytes of a request body, transfer coding removed. More: 413. 0: no limit. A route can set its own.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 0))]
    pub body_bytes: usize,
    /// Bytes of a body that is held in memory because a plugin asked for the whole of it. More: 413.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 1024, "maximum" = 1u64 << 30))]
    pub body_buffer_bytes: usize,
    /// Bytes of a response body that a plugin writes. More: the plugin's call fails with `RW_ERR_NO_SPACE`.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 1024, "maximum" = 1u64 << 30))]
    pub plugin_response_bytes: usize,
    /// Bytes of header and target edits per message. More: the plugin's call fails with `RW_ERR_NO_SPACE`.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 256, "maximum" = 1 << 20))]
    pub edit_bytes: usize,
    /// Bytes that the plugins of one exchange may allocate. More: `alloc` returns NULL.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 0, "maximum" = 1u64 << 30))]
    pub plugin_alloc_bytes: usize,
    /// Bytes of all maps of one plugin. More: the plugin is refused.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 0, "maximum" = 1u64 << 40))]
    pub map_bytes: usize,
    /// Bytes of one buffer for large bodies.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 16384, "maximum" = 16 << 20))]
    pub relay_buffer_bytes: usize,
    /// Buffers for large bodies, per worker. When all are taken, bodies go through the slots.
    #[schemars(range(min = 1, max = 65536))]
    pub relay_buffers: usize,
    /// Bytes of an unread request body that are read after an early answer, so that the connection can go on. More: it ends.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 0, "maximum" = 1u64 << 30))]
    pub drain_bytes: usize,
    /// Exchanges in flight, per worker. More: new ones wait, for `timeouts.slot_wait`.
    #[schemars(range(min = 16, max = 65536))]
    pub slots: usize,
    /// Client connections of the whole process. More are closed at once, and counted.
    #[schemars(range(min = 1, max = 4194304))]
    pub connections: usize,
    /// Client connections from one address. More: closed at once. 0: no limit.
    #[schemars(range(min = 0, max = 4194304))]
    pub connections_per_address: usize,
    /// Requests on one client connection. The last answer announces the close. 0: no limit.
    #[schemars(range(min = 0, max = 4294967295u64))]
    pub requests_per_connection: usize,
    /// Idle connections that are kept per worker and upstream server. An upstream can set its own.
    #[schemars(range(min = 0, max = 65536))]
    pub upstream_idle_connections: usize,
    /// Retries in percent of the requests of the last seconds, per worker and upstream.
    #[schemars(range(min = 0, max = 1000))]
    pub retry_budget_percent: usize,
    /// Retries per second that are allowed whatever the budget says, per worker and upstream.
    #[schemars(range(min = 0, max = 65536))]
    pub retry_reserve: usize,
    /// Bytes per second below which a request body is too slow, averaged over the time in which the gateway waits for it. Slower: 408. 0: any rate.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 0, "maximum" = 1u64 << 30))]
    pub body_rate_bytes: usize,
    /// Instances of a plugin, over all workers, that are replaced after panics within `timeouts.plugin_restart_window`. One more panic: it is quarantined.
    #[schemars(range(min = 0, max = 1000))]
    pub plugin_restarts: usize,
    /// Calls of a canary's hooks below which `canary_aborts_percent` is reckoned as if there had been so many.
    #[schemars(range(min = 1, max = 1000000))]
    pub canary_calls_min: usize,
    /// Hooks of a canary that may fail, in percent of its calls within `timeouts.canary_window`. More, or a single panic: it is rolled back.
    #[schemars(range(min = 0, max = 100))]
    pub canary_aborts_percent: usize,
    /// Crashes of the process within `timeouts.plugin_crash_window` after which the plugin that ran is quarantined. 0: never.
    #[schemars(range(min = 0, max = 1000))]
    pub plugin_crashes: usize,
    /// Exchanges of a worker whose plugins wait for an event. More: the hook counts as failed.
    #[schemars(range(min = 1, max = 65536))]
    pub suspended: usize,
    /// Tunnels (WebSocket, CONNECT) open at the same time, per worker, and no more than three quarters of `slots`. More: 503.
    #[schemars(range(min = 0, max = 65536))]
    pub tunnels: usize,
    /// Outcalls of plugins under way, per worker, and no more than `slots`. More: the plugin's call fails with `RW_ERR_NO_SPACE`.
    #[schemars(range(min = 0, max = 65536))]
    pub outcalls: usize,
    /// Outcalls of one hook that waits. More: the plugin's call fails with `RW_ERR_NO_SPACE`.
    #[schemars(range(min = 1, max = 64))]
    pub outcalls_per_hook: usize,
    /// Bytes of the request of an outcall, line, headers and body. More: the plugin's call fails with `RW_ERR_NO_SPACE`. The head alone is bound by `head_bytes` too.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 1024, "maximum" = 1 << 20))]
    pub outcall_request_bytes: usize,
    /// Bytes of the body of a reply to an outcall. More: it is cut off there.
    #[serde(with = "size")]
    #[schemars(with = "size::Size", extend("minimum" = 0, "maximum" = 1 << 20))]
    pub outcall_reply_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes: HEAD_BYTES,
            target_bytes: TARGET_BYTES,
            line_bytes: LINE_BYTES,
            header_fields: HEADER_FIELDS,
            trailer_bytes: TRAILER_BYTES,
            chunk_extension_bytes: CHUNK_EXTENSION_BYTES,
            interim_responses: INTERIM_RESPONSES,
            body_bytes: BODY_BYTES,
            body_buffer_bytes: BODY_BUFFER_BYTES,
            plugin_response_bytes: PLUGIN_RESPONSE_BYTES,
            edit_bytes: EDIT_BYTES,
            plugin_alloc_bytes: PLUGIN_ALLOC_BYTES,
            map_bytes: MAP_BYTES,
            relay_buffer_bytes: RELAY_BUFFER_BYTES,
            relay_buffers: RELAY_BUFFERS,
            drain_bytes: DRAIN_BYTES,
            slots: SLOTS,
            connections: CONNECTIONS,
            connections_per_address: CONNECTIONS_PER_ADDRESS,
            requests_per_connection: REQUESTS_PER_CONNECTION,
            upstream_idle_connections: UPSTREAM_IDLE_CONNECTIONS,
            retry_budget_percent: RETRY_BUDGET_PERCENT,
            retry_reserve: RETRY_RESERVE,
            body_rate_bytes: BODY_RATE_BYTES,
            plugin_restarts: PLUGIN_RESTARTS,
            canary_calls_min: CANARY_CALLS_MIN,
            canary_aborts_percent: CANARY_ABORTS_PERCENT,
            plugin_crashes: PLUGIN_CRASHES,
            suspended: SUSPENDED,
            tunnels: TUNNELS,
            outcalls: OUTCALLS,
            outcalls_per_hook: OUTCALLS_PER_HOOK,
            outcall_request_bytes: OUTCALL_REQUEST_BYTES,
            outcall_reply_bytes: OUTCALL_REPLY_BYTES,
        }
    }
}

impl Limits {
    /// The least a slot can be: receive bytes, edit arena, two entry arrays, two roots.
    pub const fn slot_bytes_min(&self) -> usize {
        self.head_bytes + self.edit_bytes + 2 * (self.header_fields * ENTRY_BYTES + ROOT_BYTES)
    }

    /// Slots that a worker's slab has.
    pub const fn slab_slots(&self) -> usize {
        self.slots.saturating_mul(SLOTS_PER_EXCHANGE).saturating_add(SLOTS_RESERVED + self.outcalls_max())
    }

    /// Outcalls under way, per worker: each takes a slot beyond those of the exchanges.
    pub const fn outcalls_max(&self) -> usize {
        if self.outcalls < self.slots { self.outcalls } else { self.slots }
    }

    /// Tunnels open at the same time, per worker: each keeps a slot from exchanges.
    pub const fn tunnels_max(&self) -> usize {
        let most = self.slots - self.slots / 4;
        if self.tunnels < most { self.tunnels } else { most }
    }

    /// Pairs of limits that contradict each other: the field to blame and the sentence that says why.
    pub fn conflicts(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut at_most = |name, value: usize, bound_name: &str, bound: usize| {
            if value > bound {
                let (value, bound) = (size::text(value), size::text(bound));
                found.push((name, format!("`{name}` is {value}, more than `{bound_name}` ({bound})")));
            }
        };
        at_most("line_bytes", self.line_bytes, "head_bytes", self.head_bytes);
        at_most("target_bytes", self.target_bytes, "head_bytes", self.head_bytes);
        at_most("trailer_bytes", self.trailer_bytes, "head_bytes", self.head_bytes);
        if self.body_bytes != 0 {
            at_most("body_buffer_bytes", self.body_buffer_bytes, "body_bytes", self.body_bytes);
        }
        if self.connections_per_address > self.connections {
            found.push((
                "connections_per_address",
                format!("`connections_per_address` is {}, more than `connections` ({})", self.connections_per_address, self.connections),
            ));
        }
        let exchange_bytes_min = SLOTS_PER_EXCHANGE * self.slot_bytes_min();
        if self.slab_slots().saturating_mul(self.slot_bytes_min()) > SLAB_BYTES_MAX {
            let room = (SLAB_BYTES_MAX / self.slot_bytes_min()).saturating_sub(SLOTS_RESERVED);
            let slots_max = (room / (SLOTS_PER_EXCHANGE + 1)).max(room.saturating_sub(self.outcalls) / SLOTS_PER_EXCHANGE);
            found.push((
                "slots",
                format!("{} exchanges of at least {} bytes need more than the 2 GiB of a worker's slab; {slots_max} fit", self.slots, exchange_bytes_min),
            ));
        }
        found
    }
}

/// How long for everything, in milliseconds; 0 is "off": the section `[timeouts]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// From the first byte of a request head to its end. Over: 408 and close.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub head: u32,
    /// Between two pieces of a request body. Over: 408 and close.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub body_idle: u32,
    /// Between two requests on a client connection. Over: silent close.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub keep_alive_idle: u32,
    /// Age of a client connection after which the next answer announces the close.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub connection_age: u32,
    /// Without progress while writing to a client or an upstream. Over: abort.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub write_stall: u32,
    /// For one connection attempt to an upstream server. Over: the next server, or 504.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub connect: u32,
    /// From the request sent to the first byte of the response. Over: 504.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub first_byte: u32,
    /// Between two pieces of a response. Over: the response is cut off visibly.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub response_idle: u32,
    /// An idle upstream connection is closed after this.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub upstream_idle: u32,
    /// An upstream connection is not used again after this age.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub upstream_age: u32,
    /// The whole exchange, from the head to the last byte sent. Over: 504, or cut off.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub exchange: u32,
    /// After `Expect: 100-continue`, how long a silent upstream is waited for before the gateway says 100 itself.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub expect_continue: u32,
    /// For a slot, while all of a worker are in use. Over: 503 and close.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub slot_wait: u32,
    /// How long one hook of a plugin may wait for events. Over: its `on_event` hears `RW_EVENT_TIMEOUT` and must decide.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub suspend: u32,
    /// After SIGTERM, for exchanges in flight. Over: they are cut off.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub drain: u32,
    /// How long what a client still sends is read and thrown away: after an answer that closes, so that no reset takes the answer from it, and of the body of a request that was answered early, so that the connection can go on. Off: nothing is waited for.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub linger: u32,
    /// Without a byte in either direction of a tunnel (WebSocket, CONNECT). Over: close.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub tunnel_idle: u32,
    /// For how long the replacement of an instance counts towards `limits.plugin_restarts`.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub plugin_restart_window: u32,
    /// How far back a canary is judged.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub canary_window: u32,
    /// The time within which 99 of 100 hooks of a canary must return, once `limits.canary_calls_min` were measured. Over: it is rolled back.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub canary_p99: u32,
    /// For how long a crash counts towards `limits.plugin_crashes`.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 1))]
    pub plugin_crash_window: u32,
    /// Time of one hook call. Over: it is logged, with a stack, and counted.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub hook_budget: u32,
    /// Time of one hook call. Over: the process is ended with a crash record that names the plugin, and started again. Without a supervisor it is logged.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Duration", extend("minimum" = 0))]
    pub hook_limit: u32,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            head: HEAD,
            body_idle: BODY_IDLE,
            keep_alive_idle: KEEP_ALIVE_IDLE,
            connection_age: CONNECTION_AGE,
            write_stall: WRITE_STALL,
            connect: CONNECT,
            first_byte: FIRST_BYTE,
            response_idle: RESPONSE_IDLE,
            upstream_idle: UPSTREAM_IDLE,
            upstream_age: UPSTREAM_AGE,
            exchange: EXCHANGE,
            expect_continue: EXPECT_CONTINUE,
            slot_wait: SLOT_WAIT,
            suspend: SUSPEND,
            drain: DRAIN,
            linger: LINGER,
            tunnel_idle: TUNNEL_IDLE,
            plugin_restart_window: PLUGIN_RESTART_WINDOW,
            canary_window: CANARY_WINDOW,
            canary_p99: CANARY_P99,
            plugin_crash_window: PLUGIN_CRASH_WINDOW,
            hook_budget: HOOK_BUDGET,
            hook_limit: HOOK_LIMIT,
        }
    }
}

/// Sizes as text: `"64KiB"`, `"1MiB"`, or a plain number of bytes.
pub mod size {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// `format` of a size in the schema.
    pub const FORMAT: &str = "ringway-size";
    const UNITS: [(&str, usize); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

    /// Stands for a size in the schema.
    #[derive(Debug)]
    pub struct Size;

    /// The bytes of `text`, or what is wrong with it.
    pub fn parse(text: &str) -> Result<usize, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = (&text[..digits], text[digits..].trim_start());
        let number: usize = number.parse().map_err(|_| format!("`{text}` is no size; write a number with B, KiB, MiB or GiB, such as \"64KiB\""))?;
        let scale = match unit {
            "" => 1,
            unit => match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, scale)) => *scale,
                None => {
                    let meant = UNITS.iter().find(|(name, _)| name[..1].eq_ignore_ascii_case(unit.get(..1).unwrap_or(""))).map_or("KiB", |(name, _)| name);
                    return Err(format!("`{unit}` is no unit of size; did you mean \"{number}{meant}\"?"));
                }
            },
        };
        number.checked_mul(scale).filter(|&bytes| i64::try_from(bytes).is_ok()).ok_or_else(|| format!("`{text}` is too large"))
    }

    /// The shortest exact text of `bytes`.
    pub fn text(bytes: usize) -> String {
        let (unit, scale) = UNITS.iter().find(|(_, scale)| bytes != 0 && bytes.is_multiple_of(*scale)).unwrap_or(&("B", 1));
        format!("{}{unit}", bytes / scale)
    }

    impl JsonSchema for Size {
        fn schema_name() -> Cow<'static, str> {
            "Size".into()
        }
        fn inline_schema() -> bool {
            true
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": ["string", "integer"], "format": FORMAT, "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$" })
        }
    }

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(bytes: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(*bytes))
    }

    /// For `#[serde(with)]`: accepts both forms.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Bytes(usize),
            Text(String),
        }
        match Form::deserialize(from)? {
            Form::Bytes(bytes) => Ok(bytes),
            Form::Text(text) => parse(&text).map_err(D::Error::custom),
        }
    }
}

/// Durations as text: `"250ms"`, `"5s"`, `"1m30s"`, `"off"` for 0; milliseconds inside.
pub mod duration {
    use std::borrow::Cow;
    use std::fmt::Write as _;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// `format` of a duration in the schema.
    pub const FORMAT: &str = "ringway-duration";
    const UNITS: [(&str, u32); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    /// Stands for a duration in the schema.
    #[derive(Debug)]
    pub struct Duration;

    /// The milliseconds of `text`, or what is wrong with it.
    pub fn parse(text: &str) -> Result<u32, String> {
        let malformed = || format!("`{text}` is no duration; write numbers with ms, s, m, h or d, such as \"5s\" or \"1m30s\", or \"off\"");
        if text == "off" {
            return Ok(0);
        }
        let (mut rest, mut sum, mut units) = (text, 0u32, &UNITS[..]);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u32 = rest[..digits].parse().map_err(|_| malformed())?;
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = &rest[digits..digits + letters];
            if digits == text.len() {
                return Err(format!("`{text}` has no unit; did you mean \"{text}s\" or \"{text}ms\"?"));
            }
            let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(malformed)?;
            sum = number.checked_mul(units[at].1).and_then(|ms| sum.checked_add(ms)).ok_or_else(|| format!("`{text}` is too long; at most 49 days"))?;
            (rest, units) = (&rest[digits + letters..], &units[at + 1..]);
        }
        if text.is_empty() { Err(malformed()) } else { Ok(sum) }
    }

    /// The text of `ms` in falling units.
    pub fn text(ms: u32) -> String {
        let (mut rest, mut text) = (ms, String::new());
        for (unit, scale) in UNITS {
            if rest >= scale {
                let _ = write!(text, "{}{unit}", rest / scale); // writing to a String cannot fail
                rest %= scale;
            }
        }
        if text.is_empty() { "off".into() } else { text }
    }

    impl JsonSchema for Duration {
        fn schema_name() -> Cow<'static, str> {
            "Duration".into()
        }
        fn inline_schema() -> bool {
            true
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": "string", "format": FORMAT, "pattern": "^(off|([0-9]+(d|h|m|s|ms))+)$" })
        }
    }

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(ms: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(*ms))
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_trip_and_errors_say_what_to_write() {
        for (text, bytes) in [("64KiB", 65536), ("1MiB", MIB), ("1GiB", GIB), ("100B", 100), ("1536KiB", 1536 * KIB), ("0B", 0)] {
            assert_eq!(size::parse(text), Ok(bytes));
            assert_eq!(size::text(bytes), text);
        }
        assert_eq!(size::parse("2 MiB"), Ok(2 * MIB));
        assert_eq!(size::parse("17"), Ok(17));
        for (text, message) in [
            ("64KB", "`KB` is no unit of size; did you mean \"64KiB\"?"),
            ("64k", "`k` is no unit of size; did you mean \"64KiB\"?"),
            ("1mb", "`mb` is no unit of size; did you mean \"1MiB\"?"),
            ("5é", "`é` is no unit of size; did you mean \"5KiB\"?"),
            ("", "`` is no size; write a number with B, KiB, MiB or GiB, such as \"64KiB\""),
            ("-1", "`-1` is no size; write a number with B, KiB, MiB or GiB, such as \"64KiB\""),
            ("9999999999TiB", "`9999999999TiB` is too large"),
        ] {
            assert_eq!(size::parse(text), Err(message.to_owned()));
        }
    }

    #[test]
    fn durations_round_trip_and_errors_say_what_to_write() {
        for (text, ms) in [("250ms", 250), ("5s", 5000), ("1m30s", 90_000), ("1h", 3_600_000), ("2d", 172_800_000), ("1s500ms", 1500), ("off", 0)] {
            assert_eq!(duration::parse(text), Ok(ms));
            assert_eq!(duration::text(ms), text);
        }
        assert_eq!(duration::parse("0s"), Ok(0));
        assert_eq!(duration::parse("90s"), Ok(90_000));
        let malformed = |text| format!("`{text}` is no duration; write numbers with ms, s, m, h or d, such as \"5s\" or \"1m30s\", or \"off\"");
        for text in ["", "s", "1.5s", "-1s", "5 s", "5sec", "1s1m", "1s1s", "é"] {
            assert_eq!(duration::parse(text), Err(malformed(text)));
        }
        assert_eq!(duration::parse("30"), Err("`30` has no unit; did you mean \"30s\" or \"30ms\"?".to_owned()));
        assert_eq!(duration::parse("50d"), Err("`50d` is too long; at most 49 days".to_owned()));
    }

    #[test]
    fn the_defaults_agree_with_each_other() {
        assert_eq!(Limits::default().conflicts(), []);
        assert!(Limits::default().header_fields <= HEADER_FIELDS_MAX);
    }

    #[test]
    fn contradictions_are_named() {
        let limits = Limits { head_bytes: 4096, slots: 65536, edit_bytes: MIB, connections: 10, ..Limits::default() };
        let text: Vec<String> = limits.conflicts().into_iter().map(|(_, text)| text).collect();
        assert_eq!(
            text,
            [
                "`line_bytes` is 8KiB, more than `head_bytes` (4KiB)",
                "`target_bytes` is 8KiB, more than `head_bytes` (4KiB)",
                "`connections_per_address` is 16384, more than `connections` (10)",
                "65536 exchanges of at least 2112512 bytes need more than the 2 GiB of a worker's slab; 656 fit",
            ]
        );
    }
}
