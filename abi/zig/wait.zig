//! The extension "ringway.wait/1" in Zig: waiting without blocking. `ringway-wait.h` is the written truth. Reached as `ringway.wait`.
//!
//!     var table: *const ringway.wait.Table = undefined;                // in load: table = try ringway.wait.find(loader);
//!     pub fn onRequest(cx: *ringway.Cx, _: *const ringway.Request) !ringway.Verdict {
//!         return table.timer(cx, 10 * std.time.ns_per_ms, 0);
//!     }
//!     pub fn onEvent(_: *ringway.Cx, _: *const ringway.Event) void {}
//!
//! The plugin declares `wants.suspend`.

const ringway = @import("ringway.zig");

pub const id = "ringway.wait/1";

/// `Event.kind`.
pub const EventKind = enum(u32) { timer = 1, wake, timeout, _ };

/// What has come.
pub fn kindOf(event: *const ringway.Event) EventKind {
    return @fromBackingInt(event.kind);
}

/// The raw table.
pub const Table = extern struct {
    size: u32,
    reserved: u32,
    raw_timer: *const fn (*ringway.Cx, u64, u64) callconv(.c) ringway.Status,
    raw_wake: *const fn (u64, u32, u64) callconv(.c) ringway.Status,

    /// One event after `delay_ns`; the verdict to return.
    pub fn timer(table: *const Table, cx: *ringway.Cx, delay_ns: u64, token: u64) ringway.Error!ringway.Verdict {
        _ = try table.raw_timer(cx, delay_ns, token).check();
        return .@"suspend";
    }

    /// One event for the hook of this exchange and link that waits. Any thread. `error.NoSpace`: try again later.
    pub fn wake(table: *const Table, request_id: u64, link: u32, token: u64) ringway.Error!void {
        _ = try table.raw_wake(request_id, link, token).check();
    }
};

/// The table of this gateway; it lives as long as the process.
pub fn find(loader: *ringway.Loader) error{ NotFound, Refused }!*const Table {
    return loader.getExt(Table, id) orelse loader.refuse("this gateway has no {s}", .{id});
}
