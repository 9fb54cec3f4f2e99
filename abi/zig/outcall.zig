//! The extension "ringway.outcall/1" in Zig: requests of a plugin's own. `ringway-outcall.h` is the written truth. Reached as `ringway.outcall`.
//!
//!     var upstream: ringway.outcall.Upstream = undefined;              // in load: upstream = try ringway.outcall.find(loader, "auth");
//!     pub fn onRequest(cx: *ringway.Cx, _: *const ringway.Request) !ringway.Verdict {
//!         try upstream.begin(cx, "GET", "/check");
//!         return upstream.send(cx, 0);
//!     }
//!     pub fn onEvent(_: *ringway.Cx, event: *const ringway.Event) !ringway.Verdict {
//!         const reply = try ringway.outcall.replyOf(event) orelse return .drop;
//!         return if (reply.status == 200) .@"continue" else .drop;
//!     }
//!
//! The plugin declares `wants.suspend` and `wants.outcall`.

const std = @import("std");
const ringway = @import("ringway.zig");

pub const id = "ringway.outcall/1";

/// `Event.kind` of a reply.
pub const event_reply: u32 = 4;

/// The bit of `wants`; `Wants.outcall` is the same.
pub const want_outcall: u64 = 0x0400;

/// `Event.status` of a reply that did not come.
pub const Failure = enum(i32) { unreachable_ = -32, timeout = -33, broken = -34, _ };

pub const ReplyError = ringway.Error || error{ Unreachable, Timeout, Broken };

/// The reply that an event brings; null for any other event, an error when there is none.
pub fn replyOf(event: *const ringway.Event) ReplyError!?*const ringway.Response {
    if (event.kind != event_reply) return null;
    switch (@as(Failure, @fromBackingInt(@backingInt(event.status)))) {
        .unreachable_ => return error.Unreachable,
        .timeout => return error.Timeout,
        .broken => return error.Broken,
        else => _ = try event.status.check(),
    }
    return event.response;
}

/// The raw table.
pub const Table = extern struct {
    size: u32,
    reserved: u32,
    raw_upstream: *const fn (*ringway.RawLoader, [*]const u8, u32) callconv(.c) ringway.Status,
    raw_begin: *const fn (*ringway.Cx, u32, [*]const u8, u32, [*]const u8, u32) callconv(.c) ringway.Status,
    raw_header: *const fn (*ringway.Cx, [*]const u8, u32, [*]const u8, u32) callconv(.c) ringway.Status,
    raw_body: *const fn (*ringway.Cx, [*]const u8, u32) callconv(.c) ringway.Status,
    raw_send: *const fn (*ringway.Cx, u64) callconv(.c) ringway.Status,
};

/// An upstream of the configuration that a plugin asks. It lives as long as the process.
pub const Upstream = struct {
    table: *const Table,
    number: u32,

    /// Begins a request; one that this hook has begun and not sent is forgotten.
    pub fn begin(upstream: Upstream, cx: *ringway.Cx, method: []const u8, target: []const u8) ringway.Error!void {
        _ = try upstream.table.raw_begin(cx, upstream.number, method.ptr, try length(method), target.ptr, try length(target)).check();
    }

    /// Adds a header to the request that was begun.
    pub fn header(upstream: Upstream, cx: *ringway.Cx, name: []const u8, value: []const u8) ringway.Error!void {
        _ = try upstream.table.raw_header(cx, name.ptr, try length(name), value.ptr, try length(value)).check();
    }

    /// Gives it a body.
    pub fn body(upstream: Upstream, cx: *ringway.Cx, bytes: []const u8) ringway.Error!void {
        _ = try upstream.table.raw_body(cx, bytes.ptr, try length(bytes)).check();
    }

    /// It is complete; the verdict to return.
    pub fn send(upstream: Upstream, cx: *ringway.Cx, token: u64) ringway.Error!ringway.Verdict {
        _ = try upstream.table.raw_send(cx, token).check();
        return .@"suspend";
    }
};

/// The upstream of this name, in `load`.
pub fn find(loader: *ringway.Loader, name: []const u8) (ringway.Error || error{Refused})!Upstream {
    const table = loader.getExt(Table, id) orelse return loader.refuse("this gateway has no {s}", .{id});
    const number = try table.raw_upstream(loader.raw, name.ptr, try length(name)).check();
    return .{ .table = table, .number = number };
}

fn length(bytes: []const u8) ringway.Error!u32 {
    return std.math.cast(u32, bytes.len) orelse error.BadArgument;
}
