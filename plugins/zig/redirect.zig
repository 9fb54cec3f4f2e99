//! Redirects by path.
//!
//! Config: {"rules": [
//!     {"exact": "/old", "location": "https://example.com/new", "status": 301},
//!     {"prefix": "/docs/", "location": "/manual/"}
//! ]}
//!
//! The first rule that matches answers; "status" is 301, 302 (default), 307 or 308. An exact rule answers with a response
//! that was laid out once, at load. A prefix rule appends the rest of the path and the query; prefix and location must both
//! end with "/", and slashes at the start of the rest are dropped, so that a client cannot choose the host of the location.

const std = @import("std");
const ringway = @import("ringway");

pub const panic = ringway.panic;

const Redirect = struct {
    pub const name = "redirect";
    pub const version = "1.0.0";
    pub const wants: ringway.Wants = .{ .respond = true };

    arena: std.heap.ArenaAllocator,
    rules: []const Rule,

    pub fn load(loader: *ringway.Loader, config: []const u8) !*Redirect {
        const self = try std.heap.page_allocator.create(Redirect);
        errdefer std.heap.page_allocator.destroy(self);
        self.* = .{ .arena = .init(std.heap.page_allocator), .rules = &.{} };
        errdefer self.arena.deinit();
        self.rules = try readRules(loader, self.arena.allocator(), config);
        return self;
    }

    pub fn unload(self: *Redirect) void {
        self.arena.deinit();
        std.heap.page_allocator.destroy(self);
    }

    pub fn onRequest(self: *const Redirect, cx: *ringway.Cx, request: *const ringway.Request) !ringway.Verdict {
        const path = request.path.bytes();
        for (self.rules) |rule| switch (rule) {
            .exact => |exact| if (std.mem.eql(u8, path, exact.path)) {
                try cx.respPrebuilt(exact.response);
                return .respond;
            },
            .prefix => |prefix| if (std.mem.startsWith(u8, path, prefix.path)) {
                try cx.respBegin(prefix.status);
                try cx.headerAdd(.response, "location", try prefix.locationFor(cx, path, request.query.bytes()));
                return .respond;
            },
        };
        return .@"continue";
    }
};

const Rule = union(enum) {
    exact: struct { path: []const u8, response: ringway.Prebuilt },
    prefix: Prefix,
};

const Prefix = struct {
    path: []const u8,
    location: []const u8,
    status: u16,

    fn locationFor(prefix: Prefix, cx: *ringway.Cx, path: []const u8, query: []const u8) ![]const u8 {
        // "/docs//evil.example/" must not become "//evil.example/"; browsers take '\' for '/'.
        const rest = std.mem.trimStart(u8, path[prefix.path.len..], "/\\");
        const mark = if (query.len > 0) "?" else "";
        const parts = [_][]const u8{ prefix.location, rest, mark, query };
        var len: usize = 0;
        for (parts) |part| len += part.len;
        const location = try cx.alloc(std.math.cast(u32, len) orelse return error.NoSpace);
        var at: usize = 0;
        for (parts) |part| {
            @memcpy(location[at..][0..part.len], part);
            at += part.len;
        }
        return location;
    }
};

const RuleConfig = struct {
    exact: ?[]const u8 = null,
    prefix: ?[]const u8 = null,
    location: []const u8,
    status: u16 = 302,
};

const Config = struct { rules: []const RuleConfig };

fn readRules(loader: *ringway.Loader, allocator: std.mem.Allocator, config: []const u8) ![]const Rule {
    var scanner: std.json.Scanner = .initCompleteInput(allocator, config);
    var diagnostics: std.json.Diagnostics = .{};
    scanner.enableDiagnostics(&diagnostics);
    const read = std.json.parseFromTokenSourceLeaky(Config, allocator, &scanner, .{ .allocate = .alloc_always }) catch |failure|
        return loader.refuse("config, line {d}, column {d}: {t}; expected {{\"rules\": [{{\"exact\" or \"prefix\", \"location\", \"status\"}}]}}", .{
            diagnostics.getLine(), diagnostics.getColumn(), failure,
        });
    const rules = try allocator.alloc(Rule, read.rules.len);
    for (read.rules, rules, 1..) |rule_config, *rule, number| {
        rule.* = try readRule(loader, rule_config, number);
    }
    return rules;
}

fn readRule(loader: *ringway.Loader, config: RuleConfig, number: usize) !Rule {
    if ((config.exact == null) == (config.prefix == null))
        return loader.refuse("rule {d}: needs either \"exact\" or \"prefix\"", .{number});
    switch (config.status) {
        301, 302, 307, 308 => {},
        else => return loader.refuse("rule {d}: status {d} is none of 301, 302, 307, 308", .{ number, config.status }),
    }
    for (config.location) |byte| {
        if (byte <= ' ' or byte >= 0x7f) return loader.refuse("rule {d}: the location holds a blank, a control character or a byte above 0x7e", .{number});
    }
    if (config.location.len == 0) return loader.refuse("rule {d}: the location is empty", .{number});

    if (config.prefix) |path| {
        if (!std.mem.endsWith(u8, path, "/") or !std.mem.endsWith(u8, config.location, "/"))
            return loader.refuse("rule {d}: a prefix and its location must both end with \"/\"", .{number});
        return .{ .prefix = .{ .path = path, .location = config.location, .status = config.status } };
    }
    var headers: [4096]u8 = undefined;
    const line = std.fmt.bufPrint(&headers, "Location: {s}\r\n", .{config.location}) catch
        return loader.refuse("rule {d}: the location is longer than 4000 bytes", .{number});
    return .{ .exact = .{ .path = config.exact.?, .response = try loader.prebuiltAdd(config.status, line, "") } };
}

comptime {
    ringway.exportPlugin(Redirect);
}
