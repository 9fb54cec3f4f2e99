//! Reads one archived message from standard input and prints what a Zig plugin sees in it.
//!
//! frame.c and frames.rs print the same text from the same bytes.

const std = @import("std");
const ringway = @import("ringway");
const linux = std.os.linux;

var frame: [1 << 20]u8 align(16) = undefined;
var text: [1 << 20]u8 = undefined;
var out: std.Io.Writer = .fixed(&text);

pub fn main() !void {
    const bytes = readAll();
    if (rootAs(ringway.Request, bytes, ringway.request_magic)) |request| {
        try printRequest(request);
    } else if (rootAs(ringway.Response, bytes, ringway.response_magic)) |response| {
        try printResponse(response);
    } else return error.NoFrame;
    var rest = out.buffered();
    while (rest.len > 0) rest = rest[linux.write(1, rest.ptr, rest.len)..];
}

/// The root is the last thing of an archive.
fn rootAs(comptime View: type, bytes: []const u8, magic: u32) ?*const View {
    if (bytes.len < @sizeOf(View)) return null;
    const view: *const View = @ptrCast(@alignCast(bytes[bytes.len - @sizeOf(View) ..].ptr));
    return if (view.magic == magic) view else null;
}

fn readAll() []const u8 {
    var len: usize = 0;
    while (true) {
        const got = linux.read(0, frame[len..].ptr, frame.len - len);
        if (got == 0) return frame[0..len];
        len += got;
    }
}

fn printRequest(request: *const ringway.Request) !void {
    try out.writeAll("request\n");
    try printNumbers(request, .{
        "method_id",        "http_version", "flags",    "edits", "content_length", "request_id",
        "received_unix_ns", "peer_port",    "listener", "route", "known_mask",
    });
    try printBytes("peer_addr", &request.peer_addr);
    inline for (.{ "method", "target", "path", "query", "authority", "body" }) |name| {
        try printBytes(name, @field(request, name).bytes());
    }
    try printHeaders(request);
}

fn printResponse(response: *const ringway.Response) !void {
    try out.writeAll("response\n");
    try printNumbers(response, .{
        "status",     "http_version", "origin",        "flags", "content_length",
        "request_id", "upstream_ns",  "origin_plugin", "edits", "known_mask",
    });
    try printBytes("reason", response.reason.bytes());
    try printBytes("body", response.body.bytes());
    try printHeaders(response);
}

fn printNumbers(view: anytype, comptime names: anytype) !void {
    inline for (names) |name| {
        const value = @field(view, name);
        const number = switch (@typeInfo(@TypeOf(value))) {
            .@"enum" => @backingInt(value),
            .@"struct" => |info| @as(info.backing_integer.?, @bitCast(value)),
            else => value,
        };
        try out.print("{s} {d}\n", .{ name, number });
    }
}

fn printHeaders(view: anytype) !void {
    var headers = view.headerIterator();
    while (headers.next()) |header| {
        try out.print("header {d}\n", .{@backingInt(header.name.id)});
        try printBytes("name", header.name.bytes());
        try printBytes("value", header.value.bytes());
    }
    for (0..std.math.maxInt(u16) + 1) |id| {
        const value = view.header(@fromBackingInt(@intCast(id))) orelse continue;
        try out.print("first {d} {d} {x:0>16}\n", .{ id, value.len, std.hash.Fnv1a_64.hash(value) });
    }
}

fn printBytes(name: []const u8, bytes: []const u8) !void {
    try out.print("{s} {d} {x:0>16}\n", .{ name, bytes.len, std.hash.Fnv1a_64.hash(bytes) });
}
