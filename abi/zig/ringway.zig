//! The Ringway plugin ABI 1.0 in Zig: the structs of `ringway.h` with slices, iterators and error unions around them.
//!
//! A plugin is a struct whose declarations say what it is; `exportPlugin` makes the descriptor and the ELF note from them:
//!
//!     const ringway = @import("ringway");
//!     pub const panic = ringway.panic;
//!
//!     const Hello = struct {
//!         pub const name = "hello";
//!         pub const version = "1.0.0";
//!         pub const wants: ringway.Wants = .{ .edit_response = true };
//!
//!         pub fn onResponse(cx: *ringway.Cx, _: *const ringway.Response) !void {
//!             try cx.headerSet(.response, "x-hello", "zig");
//!         }
//!     };
//!     comptime {
//!         ringway.exportPlugin(Hello);
//!     }
//!
//! `ringway.h` is the written truth: what each field and function means, its lifetime and its thread stand there, under
//! the same names. Written for Zig 0.17; needs no libc and no header. This file must not allocate.
//!
//! Read first: `exportPlugin`, `Cx`, `Request`.

const std = @import("std");

/// The extension "ringway.wait/1": waiting without blocking.
pub const wait = @import("wait.zig");
/// The extension "ringway.outcall/1": requests of a plugin's own.
pub const outcall = @import("outcall.zig");

pub const abi_major: u16 = 1;
pub const abi_minor: u16 = 0;
/// FNV-1a 64 of layout-1.0.txt; a test keeps it equal to the header's.
pub const layout_fingerprint: u64 = 0x8e64e4c06acba37a;
pub const request_magic: u32 = 0x71657277;
pub const response_magic: u32 = 0x73657277;
/// Entries of a view at most, removed ones included, so that `known` leads to the first header of an id.
pub const headers_max: u32 = 254;
pub const metrics_max: u32 = 256;
pub const scratch_bytes_max: u32 = 4096;
pub const note_type: u32 = 1;

const view = @import("view.zig");
pub const Span = view.Span;
pub const NameSpan = view.NameSpan;
pub const Header = view.Header;
pub const Headers = view.Headers;
pub const HeaderIterator = view.HeaderIterator;
pub const RequestFlags = view.RequestFlags;
pub const ResponseFlags = view.ResponseFlags;
pub const Origin = view.Origin;
pub const Request = view.Request;
pub const Response = view.Response;
pub const length_unknown = view.length_unknown;
pub const Method = view.Method;
pub const HeaderId = view.HeaderId;

// ----------------------------------------------------------------------------------------------------------------------
// Verdicts, errors, hooks, wants
// ----------------------------------------------------------------------------------------------------------------------

pub const Verdict = enum(u32) { aborted, @"continue", done, respond, drop, @"suspend", need_body, tail, _ };

pub const Status = enum(i32) {
    ok = 0,
    err_not_declared = -1,
    err_wrong_hook = -2,
    err_bad_bytes = -3,
    err_no_space = -4,
    err_not_found = -5,
    err_forbidden = -6,
    err_bad_argument = -7,
    _,

    pub fn check(status: Status) Error!u32 {
        const number = @backingInt(status);
        if (number >= 0) return @intCast(number);
        return switch (status) {
            .err_not_declared => error.NotDeclared,
            .err_wrong_hook => error.WrongHook,
            .err_bad_bytes => error.BadBytes,
            .err_no_space => error.NoSpace,
            .err_not_found => error.NotFound,
            .err_forbidden => error.Forbidden,
            .err_bad_argument => error.BadArgument,
            else => error.UnknownStatus,
        };
    }
};

/// What a host call can refuse; the meaning is that of the RW_ERR_* constant of the same name.
pub const Error = error{ NotDeclared, WrongHook, BadBytes, NoSpace, NotFound, Forbidden, BadArgument, UnknownStatus };

pub const Hooks = packed struct(u32) {
    accept: bool = false,
    request: bool = false,
    request_chunk: bool = false,
    request_body: bool = false,
    response: bool = false,
    response_chunk: bool = false,
    event: bool = false,
    done: bool = false,
    tick: bool = false,
    _: u23 = 0,
};

pub const Wants = packed struct(u64) {
    edit_request: bool = false,
    edit_response: bool = false,
    edit_request_body: bool = false,
    edit_response_body: bool = false,
    request_body: bool = false,
    respond: bool = false,
    upstream: bool = false,
    time: bool = false,
    @"suspend": bool = false,
    maps: bool = false,
    outcall: bool = false,
    _: u53 = 0,
};

pub const Language = enum(u16) { other, c, rust, zig, cpp, go, _ };
pub const Side = enum(u32) { request, response };
pub const LogLevel = enum(u32) { @"error" = 1, warn, info, debug };

// ----------------------------------------------------------------------------------------------------------------------
// Events
// ----------------------------------------------------------------------------------------------------------------------

/// What every hook receives: the exchange as it stands, and the calls that change it.
pub const Cx = extern struct {
    size: u32,
    hook: Hooks,
    host: *const Host,
    core: ?*anyopaque,
    scratch: ?*anyopaque,
    request: ?*const Request,
    response: ?*const Response,
    now_unix_ns: u64,
    worker: u32,
    link: u32,

    /// Replaces every header of this name by one.
    pub fn headerSet(cx: *Cx, side: Side, name: []const u8, value: []const u8) Error!void {
        _ = try cx.host.header_set(cx, side, name.ptr, try length(name), value.ptr, try length(value)).check();
    }

    /// Adds one more header of this name.
    pub fn headerAdd(cx: *Cx, side: Side, name: []const u8, value: []const u8) Error!void {
        _ = try cx.host.header_add(cx, side, name.ptr, try length(name), value.ptr, try length(value)).check();
    }

    /// Removes every header of this name; returns how many there were.
    pub fn headerDel(cx: *Cx, side: Side, name: []const u8) Error!u32 {
        return cx.host.header_del(cx, side, name.ptr, try length(name)).check();
    }

    /// Replaces the request target (origin-form).
    pub fn targetSet(cx: *Cx, target: []const u8) Error!void {
        _ = try cx.host.target_set(cx, target.ptr, try length(target)).check();
    }

    /// Replaces the status of the response.
    pub fn statusSet(cx: *Cx, status: u16) Error!void {
        _ = try cx.host.status_set(cx, status).check();
    }

    /// Sends this exchange to another configured upstream.
    pub fn upstreamSet(cx: *Cx, name: []const u8) Error!void {
        _ = try cx.host.upstream_set(cx, name.ptr, try length(name)).check();
    }

    /// Replaces the bytes that the running body hook was shown.
    pub fn bodyReplace(cx: *Cx, bytes: []const u8) Error!void {
        _ = try cx.host.body_replace(cx, bytes.ptr, bytes.len).check();
    }

    /// Begins a response; headers follow through `headerAdd(.response, ...)`, the body through `respWrite` or
    /// `respReserve`; it is sent when the hook returns `.respond`.
    pub fn respBegin(cx: *Cx, status: u16) Error!void {
        _ = try cx.host.resp_begin(cx, status).check();
    }

    /// Room for `len` more body bytes in the send buffer, until the next call or the end of the hook.
    pub fn respReserve(cx: *Cx, len: u32) Error![]u8 {
        const room = cx.host.resp_reserve(cx, len) orelse return error.NoSpace;
        return room[0..len];
    }

    /// The first `len` reserved bytes are now body.
    pub fn respCommit(cx: *Cx, len: u32) Error!void {
        _ = try cx.host.resp_commit(cx, len).check();
    }

    /// Appends to the body of the response that was begun.
    pub fn respWrite(cx: *Cx, bytes: []const u8) Error!void {
        const room = try cx.respReserve(try length(bytes));
        @memcpy(room, bytes);
        try cx.respCommit(@intCast(bytes.len));
    }

    /// Answers with a response that `Loader.prebuiltAdd` laid out; then return `.respond`.
    pub fn respPrebuilt(cx: *Cx, id: Prebuilt) Error!void {
        _ = try cx.host.resp_prebuilt(cx, @backingInt(id)).check();
    }

    /// Bytes that live until `onDone` of this exchange has returned; 16-byte aligned, not zeroed.
    pub fn alloc(cx: *Cx, size: u32) Error![]align(16) u8 {
        const memory = cx.host.alloc(cx, size) orelse return error.NoSpace;
        const bytes: [*]align(16) u8 = @ptrCast(@alignCast(memory));
        return bytes[0..size];
    }

    /// This link's memory in this exchange, zeroed when the exchange began; `T` is the plugin's `Scratch`.
    pub fn scratchAs(cx: *Cx, comptime T: type) *T {
        return @ptrCast(@alignCast(cx.scratch.?));
    }

    /// Adds to the counter with this index in the plugin's `metrics`.
    pub fn metricAdd(cx: *Cx, metric: u32, delta: u64) Error!void {
        _ = try cx.host.metric_add(cx, metric, delta).check();
    }

    /// Sets the gauge with this index in the plugin's `metrics`.
    pub fn metricSet(cx: *Cx, metric: u32, value: u64) Error!void {
        _ = try cx.host.metric_set(cx, metric, value).check();
    }

    /// One log line of at most 1024 bytes.
    pub fn log(cx: *Cx, level: LogLevel, comptime format: []const u8, args: anytype) void {
        var buffer: [1024]u8 = undefined;
        const text = formatCut(&buffer, format, args);
        cx.host.log(cx, level, text.ptr, @intCast(text.len));
    }

    /// The precise clock. Costs ten times a hook call; `now_unix_ns` is at hand for free.
    pub fn preciseUnixNs(cx: *Cx) u64 {
        return cx.host.now_unix_ns(cx);
    }
};

pub const Accept = extern struct {
    size: u32,
    listener: u16,
    peer_port: u16,
    peer_addr: [16]u8,
};

pub const ChunkFlags = packed struct(u32) {
    last: bool = false,
    _: u31 = 0,
};

pub const Chunk = extern struct {
    size: u32,
    flags: ChunkFlags,
    offset: u64,
    bytes: ?[*]const u8,
    len: u64,

    pub fn slice(chunk: *const Chunk) []const u8 {
        const bytes = chunk.bytes orelse return &.{};
        return bytes[0..@intCast(chunk.len)];
    }
};

pub const Event = extern struct {
    size: u32,
    kind: u32,
    token: u64,
    status: Status,
    reserved: u32,
    response: ?*const Response,
};

pub const DoneFlags = packed struct(u8) {
    aborted: bool = false,
    _: u7 = 0,
};

pub const Done = extern struct {
    size: u32,
    status: u16,
    origin: Origin,
    flags: DoneFlags,
    request_body_bytes: u64,
    response_body_bytes: u64,
    duration_ns: u64,
};

pub const Tick = extern struct {
    size: u32,
    worker: u32,
    now_unix_ns: u64,
};

// ----------------------------------------------------------------------------------------------------------------------
// The host table and loading
// ----------------------------------------------------------------------------------------------------------------------

pub const RawLoader = opaque {};

/// A response laid out once by `Loader.prebuiltAdd`.
pub const Prebuilt = enum(u32) { _ };

/// The raw host table. Plugins call it through `Cx` and `Loader`.
pub const Host = extern struct {
    size: u32,
    abi_major: u16,
    abi_minor: u16,
    header_set: *const fn (*Cx, Side, [*]const u8, u32, [*]const u8, u32) callconv(.c) Status,
    header_add: *const fn (*Cx, Side, [*]const u8, u32, [*]const u8, u32) callconv(.c) Status,
    header_del: *const fn (*Cx, Side, [*]const u8, u32) callconv(.c) Status,
    target_set: *const fn (*Cx, [*]const u8, u32) callconv(.c) Status,
    status_set: *const fn (*Cx, u32) callconv(.c) Status,
    upstream_set: *const fn (*Cx, [*]const u8, u32) callconv(.c) Status,
    body_replace: *const fn (*Cx, [*]const u8, u64) callconv(.c) Status,
    resp_begin: *const fn (*Cx, u32) callconv(.c) Status,
    resp_reserve: *const fn (*Cx, u32) callconv(.c) ?[*]u8,
    resp_commit: *const fn (*Cx, u32) callconv(.c) Status,
    resp_prebuilt: *const fn (*Cx, u32) callconv(.c) Status,
    alloc: *const fn (*Cx, u32) callconv(.c) ?*anyopaque,
    metric_add: *const fn (*Cx, u32, u64) callconv(.c) Status,
    metric_set: *const fn (*Cx, u32, u64) callconv(.c) Status,
    log: *const fn (*Cx, LogLevel, [*]const u8, u32) callconv(.c) void,
    now_unix_ns: *const fn (*Cx) callconv(.c) u64,
    intern_header: *const fn (*RawLoader, [*]const u8, u32) callconv(.c) Status,
    prebuilt_add: *const fn (*RawLoader, u32, [*]const u8, u32, [*]const u8, u32) callconv(.c) Status,
    load_error: *const fn (*RawLoader, [*]const u8, u32) callconv(.c) void,
    load_log: *const fn (*RawLoader, LogLevel, [*]const u8, u32) callconv(.c) void,
    get_ext: *const fn (*RawLoader, [*:0]const u8) callconv(.c) ?*const anyopaque,
};

/// What `load` can ask the gateway for; in `coreInit` `internHeader` and `prebuiltAdd` are `error.WrongHook`. Not to be
/// kept: it ends with the call.
pub const Loader = struct {
    host: *const Host,
    raw: *RawLoader,
    explained: bool = false,

    /// The id for a header name, so that views find it in constant time.
    pub fn internHeader(loader: *Loader, name: []const u8) Error!HeaderId {
        const id = try loader.host.intern_header(loader.raw, name.ptr, try length(name)).check();
        return @fromBackingInt(@intCast(id));
    }

    /// Lays a complete response out once; `headers` is "Name: value\r\n" lines.
    pub fn prebuiltAdd(loader: *Loader, status: u16, headers: []const u8, body: []const u8) Error!Prebuilt {
        const result = loader.host.prebuilt_add(loader.raw, status, headers.ptr, try length(headers), body.ptr, try length(body));
        return @fromBackingInt(try result.check());
    }

    /// Explains to the operator why the plugin cannot be used: `return loader.refuse("...", .{})`.
    pub fn refuse(loader: *Loader, comptime format: []const u8, args: anytype) error{Refused} {
        var buffer: [1023]u8 = undefined;
        const text = formatCut(&buffer, format, args);
        loader.host.load_error(loader.raw, text.ptr, @intCast(text.len));
        loader.explained = true;
        return error.Refused;
    }

    /// One log line while loading.
    pub fn log(loader: *Loader, level: LogLevel, comptime format: []const u8, args: anytype) void {
        var buffer: [1024]u8 = undefined;
        const text = formatCut(&buffer, format, args);
        loader.host.load_log(loader.raw, level, text.ptr, @intCast(text.len));
    }

    /// An extension table of the gateway ("ringway.NAME/N").
    pub fn getExt(loader: *Loader, comptime Table: type, id: [:0]const u8) ?*const Table {
        return @ptrCast(@alignCast(loader.host.get_ext(loader.raw, id.ptr)));
    }
};

// ----------------------------------------------------------------------------------------------------------------------
// Descriptor and note
// ----------------------------------------------------------------------------------------------------------------------

pub const MetricKind = enum(u32) { counter = 1, gauge };

pub const MetricDef = extern struct {
    name: [*:0]const u8,
    help: [*:0]const u8,
    kind: MetricKind,
    reserved: u32 = 0,
};

/// What plugins keep: definitions, and typed maps to work on.
pub const maps = @import("maps.zig");

pub const MapDef = extern struct {
    name: [*:0]const u8,
    value_fields: [*:0]const u8,
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries_max: u32,
};

fn HookFn(comptime T: type) type {
    return ?*const fn (*Cx, *const T) callconv(.c) Verdict;
}

pub const Plugin = extern struct {
    size: u32 = @sizeOf(Plugin),
    abi_major: u16 = abi_major,
    abi_minor: u16 = abi_minor,
    abi_min_minor: u16 = 0,
    language: Language = .zig,
    scratch_bytes: u32 = 0,
    layout_fingerprint: u64 = layout_fingerprint,
    wants: Wants = .{},
    hooks: Hooks = .{},
    reserved: u32 = 0,
    name: [*:0]const u8,
    version: [*:0]const u8,
    metrics: ?[*]const MetricDef = null,
    maps: ?[*]const MapDef = null,
    metric_count: u32 = 0,
    map_count: u32 = 0,
    metric_bytes: u32 = @sizeOf(MetricDef),
    map_bytes: u32 = @sizeOf(MapDef),
    load: ?*const fn (*const Host, *RawLoader, [*]const u8, u32, *?*anyopaque) callconv(.c) Status = null,
    unload: ?*const fn (?*anyopaque) callconv(.c) void = null,
    core_init: ?*const fn (*const Host, *RawLoader, ?*anyopaque, u32, *?*anyopaque) callconv(.c) Status = null,
    core_fini: ?*const fn (?*anyopaque) callconv(.c) void = null,
    on_accept: HookFn(Accept) = null,
    on_request: HookFn(Request) = null,
    on_request_chunk: HookFn(Chunk) = null,
    on_request_body: HookFn(Chunk) = null,
    on_response: HookFn(Response) = null,
    on_response_chunk: HookFn(Chunk) = null,
    on_event: HookFn(Event) = null,
    on_done: HookFn(Done) = null,
    on_tick: HookFn(Tick) = null,
    get_ext: ?*const fn ([*:0]const u8) callconv(.c) ?*const anyopaque = null,
};

pub const Note = extern struct {
    owner_bytes: u32 = 8,
    desc_bytes: u32 = @sizeOf(Note) - 20,
    type: u32 = note_type,
    owner: [8]u8 = "Ringway\x00".*,
    abi_major: u16 = abi_major,
    abi_minor: u16 = abi_minor,
    abi_min_minor: u16,
    language: Language = .zig,
    fingerprint_low: u32 = @truncate(layout_fingerprint),
    fingerprint_high: u32 = layout_fingerprint >> 32,
    wants_low: u32,
    wants_high: u32,
    hooks: Hooks,
    scratch_bytes: u32,
    name: [64]u8,
    version: [32]u8,
};

/// Exports `ringway_plugin_v1` and the ELF note for the struct `P`. Call it in a `comptime` block of the root file.
///
/// `P` declares `name` and `version`, and may declare
///
///  - `wants: Wants`, `metrics: []const MetricDef`, `maps: []const MapDef` (see `ringway.maps`), `Scratch: type` (the type behind `cx.scratchAs`), `min_minor: u16`
///    (the oldest minor version of the gateway that it runs with; 0 without it);
///  - `load(*Loader, config: []const u8) !*State`, `unload(*State) void`: once per process;
///  - `coreInit(*State, worker: u32) !*Core` or `coreInit(*Loader, *State, worker: u32) !*Core`, `coreFini(*Core) void`: once
///    per worker. Without `coreInit` the core instance is the state;
///  - hooks: `onAccept onRequest onRequestChunk onRequestBody onResponse onResponseChunk onEvent onDone onTick`, each
///    `fn (*Cx, *const T)` or `fn (*Core, *Cx, *const T)`, that return `Verdict`, `void` (go on), or an error union of one
///    of these. An error is logged and counts as `.aborted`.
///
/// A misspelt public function that begins with "on" is a compile error.
pub fn exportPlugin(comptime P: type) void {
    comptime refuseUnknownHooks(P);
    const exported = struct {
        const hooks = hooksOf(P);
        const metrics: []const MetricDef = if (@hasDecl(P, "metrics")) P.metrics else &.{};
        const map_defs: []const MapDef = if (@hasDecl(P, "maps")) P.maps else &.{};
        const wants: Wants = withMaps(if (@hasDecl(P, "wants")) P.wants else .{}, map_defs.len > 0);
        const scratch_bytes = if (@hasDecl(P, "Scratch")) scratchBytes(P.Scratch) else 0;

        const min_minor: u16 = if (@hasDecl(P, "min_minor")) P.min_minor else 0;

        const descriptor: Plugin = .{
            .abi_min_minor = min_minor,
            .scratch_bytes = scratch_bytes,
            .wants = wants,
            .hooks = hooks,
            .name = P.name,
            .version = P.version,
            .metrics = metrics.ptr,
            .metric_count = metrics.len,
            .maps = map_defs.ptr,
            .map_count = map_defs.len,
            .load = if (@hasDecl(P, "load")) Lifecycle(P).load else null,
            .unload = if (@hasDecl(P, "unload")) Lifecycle(P).unload else null,
            .core_init = if (@hasDecl(P, "coreInit")) Lifecycle(P).coreInit else null,
            .core_fini = if (@hasDecl(P, "coreFini")) Lifecycle(P).coreFini else null,
            .on_accept = hookOf(P, "onAccept", Accept),
            .on_request = hookOf(P, "onRequest", Request),
            .on_request_chunk = hookOf(P, "onRequestChunk", Chunk),
            .on_request_body = hookOf(P, "onRequestBody", Chunk),
            .on_response = hookOf(P, "onResponse", Response),
            .on_response_chunk = hookOf(P, "onResponseChunk", Chunk),
            .on_event = hookOf(P, "onEvent", Event),
            .on_done = hookOf(P, "onDone", Done),
            .on_tick = hookOf(P, "onTick", Tick),
        };

        const note: Note = .{
            .abi_min_minor = min_minor,
            .wants_low = @truncate(@as(u64, @bitCast(wants))),
            .wants_high = @truncate(@as(u64, @bitCast(wants)) >> 32),
            .hooks = hooks,
            .scratch_bytes = scratch_bytes,
            .name = padded(64, P.name),
            .version = padded(32, P.version),
        };
    };
    @export(&exported.descriptor, .{ .name = "ringway_plugin_v1" });
    @export(&exported.note, .{ .name = "ringway_plugin_note", .section = ".note.ringway", .visibility = .hidden });
}

/// For `pub const panic = ringway.panic;` in the root file: says what failed on standard error and traps, so that the
/// gateway's crash record names the plugin. A panic never crosses the boundary.
pub const panic = std.debug.FullPanic(panicHandler);

fn panicHandler(text: []const u8, _: ?usize) noreturn {
    @branchHint(.cold);
    for ([_][]const u8{ "ringway plugin (zig) panicked: ", text, "\n" }) |part| {
        _ = std.os.linux.write(2, part.ptr, part.len);
    }
    @trap();
}

const hook_names = [_][]const u8{ "onAccept", "onRequest", "onRequestChunk", "onRequestBody", "onResponse", "onResponseChunk", "onEvent", "onDone", "onTick" };

/// Maps and the want go together.
fn withMaps(comptime wants: Wants, comptime has_maps: bool) Wants {
    var all = wants;
    all.maps = all.maps or has_maps;
    return all;
}

fn hooksOf(comptime P: type) Hooks {
    var bits: u32 = 0;
    for (hook_names, 0..) |name, index| {
        if (@hasDecl(P, name)) bits |= 1 << index;
    }
    return @bitCast(bits);
}

fn refuseUnknownHooks(comptime P: type) void {
    @setEvalBranchQuota(10_000);
    for (@typeInfo(P).@"struct".decl_names) |declared| {
        if (declared.len < 3 or !std.mem.startsWith(u8, declared, "on") or !std.ascii.isUpper(declared[2])) continue;
        for (hook_names) |name| {
            if (std.mem.eql(u8, declared, name)) break;
        } else @compileError("no hook of ABI 1.0 is called " ++ declared);
    }
}

/// The C function for a declared hook; null without one.
fn hookOf(comptime P: type, comptime name: []const u8, comptime T: type) HookFn(T) {
    if (!@hasDecl(P, name)) return null;
    const function = @field(P, name);
    const parameters = @typeInfo(@TypeOf(function)).@"fn".param_types;
    if (parameters.len == 3 and !@hasDecl(P, "load") and !@hasDecl(P, "coreInit"))
        @compileError(name ++ " takes an instance, but neither load nor coreInit makes one");
    return struct {
        fn call(cx: *Cx, event: *const T) callconv(.c) Verdict {
            const result = if (parameters.len == 2)
                function(cx, event)
            else
                function(@as(parameters[0].?, @ptrCast(@alignCast(cx.core.?))), cx, event);
            return verdictOf(cx, name, result);
        }
    }.call;
}

fn verdictOf(cx: *Cx, comptime name: []const u8, result: anytype) Verdict {
    switch (@typeInfo(@TypeOf(result))) {
        .void => return .@"continue",
        .error_union => {
            const value = result catch |failure| {
                logFailure(cx, name, failure);
                return .aborted;
            };
            return verdictOf(cx, name, value);
        },
        else => return result,
    }
}

/// Out of line: the text buffer must not weigh on hooks that succeed.
noinline fn logFailure(cx: *Cx, hook: []const u8, failure: anyerror) void {
    @branchHint(.cold);
    cx.log(.@"error", "{s} failed: {t}", .{ hook, failure });
}

fn Lifecycle(comptime P: type) type {
    return struct {
        fn load(host: *const Host, raw: *RawLoader, config: [*]const u8, config_len: u32, state: *?*anyopaque) callconv(.c) Status {
            var loader: Loader = .{ .host = host, .raw = raw };
            const loaded = P.load(&loader, config[0..config_len]) catch |failure| {
                if (!loader.explained) _ = loader.refuse("load failed: {t}", .{failure}) catch {};
                return .err_bad_argument;
            };
            state.* = loaded;
            return .ok;
        }

        fn unload(state: ?*anyopaque) callconv(.c) void {
            P.unload(@ptrCast(@alignCast(state.?)));
        }

        fn coreInit(host: *const Host, raw: *RawLoader, state: ?*anyopaque, worker: u32, core: *?*anyopaque) callconv(.c) Status {
            const parameters = @typeInfo(@TypeOf(P.coreInit)).@"fn".param_types;
            const State = parameters[parameters.len - 2].?;
            const mine: State = @ptrCast(@alignCast(state.?));
            var loader: Loader = .{ .host = host, .raw = raw };
            const made = if (parameters.len == 3) P.coreInit(&loader, mine, worker) else P.coreInit(mine, worker);
            core.* = made catch |failure| {
                if (!loader.explained) _ = loader.refuse("coreInit failed: {t}", .{failure}) catch {};
                return .err_bad_argument;
            };
            return .ok;
        }

        fn coreFini(core: ?*anyopaque) callconv(.c) void {
            P.coreFini(@ptrCast(@alignCast(core.?)));
        }
    };
}

fn scratchBytes(comptime Scratch: type) u32 {
    if (@sizeOf(Scratch) > scratch_bytes_max) @compileError("Scratch is larger than 4096 bytes");
    if (@alignOf(Scratch) > 16) @compileError("Scratch is aligned to more than 16 bytes");
    return @sizeOf(Scratch);
}

fn padded(comptime size: usize, comptime text: []const u8) [size]u8 {
    if (text.len >= size) @compileError("too long for the note: " ++ text);
    var field: [size]u8 = @splat(0);
    @memcpy(field[0..text.len], text);
    return field;
}

// ----------------------------------------------------------------------------------------------------------------------
// Leaves
// ----------------------------------------------------------------------------------------------------------------------

fn length(bytes: []const u8) Error!u32 {
    return std.math.cast(u32, bytes.len) orelse error.BadArgument;
}

/// Formats into `buffer`; what does not fit is cut.
fn formatCut(buffer: []u8, comptime format: []const u8, args: anytype) []const u8 {
    var writer: std.Io.Writer = .fixed(buffer);
    writer.print(format, args) catch {};
    return writer.buffered();
}
