//! Refuses request bodies that are too large, with 413.
//!
//! Config: {"max_bytes": 1048576}
//!
//! A body with a Content-Length is judged at once, before any of it is read; then this plugin is done with the exchange and
//! costs nothing more. A chunked body is counted while it streams.

const std = @import("std");
const ringway = @import("ringway");

pub const panic = ringway.panic;

const BodyLimit = struct {
    pub const name = "body-limit";
    pub const version = "1.0.0";
    pub const wants: ringway.Wants = .{ .respond = true };
    pub const metrics: []const ringway.MetricDef = &.{
        .{ .name = "refused_total", .help = "Requests refused because of the size of their body", .kind = .counter },
    };

    max_bytes: u64,
    too_large: ringway.Prebuilt,

    pub fn load(loader: *ringway.Loader, config: []const u8) !*BodyLimit {
        const self = try std.heap.page_allocator.create(BodyLimit);
        errdefer std.heap.page_allocator.destroy(self);
        var buffer: [4096]u8 = undefined;
        var allocator: std.heap.FixedBufferAllocator = .init(&buffer);
        const read = std.json.parseFromSliceLeaky(struct { max_bytes: u64 }, allocator.allocator(), config, .{}) catch |failure|
            return loader.refuse("config: {t}; expected {{\"max_bytes\": NUMBER}}", .{failure});
        self.* = .{
            .max_bytes = read.max_bytes,
            .too_large = try loader.prebuiltAdd(413, "Content-Type: text/plain\r\n", "413: the body is larger than this service takes\n"),
        };
        return self;
    }

    pub fn unload(self: *BodyLimit) void {
        std.heap.page_allocator.destroy(self);
    }

    pub fn onRequest(self: *const BodyLimit, cx: *ringway.Cx, request: *const ringway.Request) !ringway.Verdict {
        if (request.content_length == ringway.length_unknown) return .@"continue";
        if (request.content_length <= self.max_bytes) return .done;
        return self.refuse(cx);
    }

    pub fn onRequestChunk(self: *const BodyLimit, cx: *ringway.Cx, chunk: *const ringway.Chunk) !ringway.Verdict {
        if (chunk.offset +| chunk.len <= self.max_bytes) return .@"continue";
        return self.refuse(cx);
    }

    fn refuse(self: *const BodyLimit, cx: *ringway.Cx) !ringway.Verdict {
        try cx.metricAdd(0, 1);
        try cx.respPrebuilt(self.too_large);
        return .respond;
    }
};

comptime {
    ringway.exportPlugin(BodyLimit);
}
