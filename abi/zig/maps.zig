//! Maps: the extension "ringway.maps/1" (section 7 of ringway.h), reached as `ringway.maps`.
//!
//!     const Hits = extern struct { requests: u64, bytes: u64 };
//!     pub const maps: []const ringway.MapDef = &.{ringway.maps.hash("paths", [32]u8, Hits, "u64 requests, u64 bytes", 1000)};
//!
//! and in `load`, where `paths` is a field of the state:
//!
//!     paths: ringway.maps.Map([32]u8, Hits),
//!     state.paths = try .open(loader, 0);
//!     _ = try state.paths.add(key, "requests", 1);

const std = @import("std");
const ringway = @import("ringway.zig");

pub const extension = "ringway.maps/1";

pub const Kind = enum(u32) { array = 1, core_array, hash, lru, lpm, ring };

pub const maps_max = 64;
pub const name_bytes_max = 31;
pub const key_bytes_max = 256;
pub const value_bytes_max = 4096;
pub const entries_max = 16777216;
/// The status when another thread was stopped in the middle of a write to the same place.
pub const busy = -16;

/// A map as the table takes it.
pub const Raw = opaque {};

/// The key of an LPM map; IPv4 addresses are mapped, with 96 bits before their own.
pub const Prefix = extern struct { bits: u32, addr: [16]u8 };

/// `rw_maps`
pub const Table = extern struct {
    size: u32,
    reserved: u32,
    open: *const fn (*ringway.RawLoader, u32, *?*const Raw) callconv(.c) i32,
    lookup: *const fn (*const Raw, ?*const anyopaque, u32, ?*anyopaque, u32) callconv(.c) i32,
    update: *const fn (*const Raw, ?*const anyopaque, u32, ?*const anyopaque, u32, u32) callconv(.c) i32,
    remove: *const fn (*const Raw, ?*const anyopaque, u32) callconv(.c) i32,
    add: *const fn (*const Raw, ?*const anyopaque, u32, u32, u64, ?*u64) callconv(.c) i32,
    value: *const fn (*const Raw, u32) callconv(.c) ?*anyopaque,
    output: *const fn (*const Raw, ?*const anyopaque, u32) callconv(.c) i32,
};

/// What a call can refuse.
pub const Error = error{ WrongHook, NoSpace, NotFound, BadArgument, Busy, UnknownStatus };

fn check(status: i32) Error!void {
    return switch (status) {
        0 => {},
        -2 => error.WrongHook,
        -4 => error.NoSpace,
        -5 => error.NotFound,
        -7 => error.BadArgument,
        busy => error.Busy,
        else => error.UnknownStatus,
    };
}

fn define(comptime name: [:0]const u8, comptime kind: Kind, comptime key_bytes: u32, comptime Value: type, comptime fields: [:0]const u8, comptime entries: u32) ringway.MapDef {
    return .{ .name = name.ptr, .value_fields = fields.ptr, .kind = @backingInt(kind), .key_bytes = key_bytes, .value_bytes = @sizeOf(Value), .entries_max = entries };
}

pub fn array(comptime name: [:0]const u8, comptime Value: type, comptime fields: [:0]const u8, comptime entries: u32) ringway.MapDef {
    return define(name, .array, 4, Value, fields, entries);
}

pub fn coreArray(comptime name: [:0]const u8, comptime Value: type, comptime fields: [:0]const u8, comptime entries: u32) ringway.MapDef {
    return define(name, .core_array, 4, Value, fields, entries);
}

pub fn hash(comptime name: [:0]const u8, comptime Key: type, comptime Value: type, comptime fields: [:0]const u8, comptime entries: u32) ringway.MapDef {
    return define(name, .hash, @sizeOf(Key), Value, fields, entries);
}

pub fn lru(comptime name: [:0]const u8, comptime Key: type, comptime Value: type, comptime fields: [:0]const u8, comptime entries: u32) ringway.MapDef {
    return define(name, .lru, @sizeOf(Key), Value, fields, entries);
}

pub fn lpm(comptime name: [:0]const u8, comptime Value: type, comptime fields: [:0]const u8, comptime entries: u32) ringway.MapDef {
    return define(name, .lpm, @sizeOf(Prefix), Value, fields, entries);
}

pub fn ring(comptime name: [:0]const u8, comptime Record: type, comptime fields: [:0]const u8, comptime entries: u32) ringway.MapDef {
    return define(name, .ring, 0, Record, fields, entries);
}

/// A map with keys of one type and values of one extern struct. Keys are compared byte by byte. `void` is the key of a ring, `u32` that of an array.
pub fn Map(comptime Key: type, comptime Value: type) type {
    return struct {
        table: *const Table,
        raw: *const Raw,

        const Self = @This();
        const key_len: u32 = @sizeOf(Key);

        /// Map number `index` of the plugin's `maps`, in `load` or, for a core array, in `coreInit`.
        pub fn open(loader: *ringway.Loader, index: u32) Error!Self {
            const table = loader.getExt(Table, extension) orelse return error.NotFound;
            var opened: ?*const Raw = null;
            try check(table.open(loader.raw, index, &opened));
            return .{ .table = table, .raw = opened orelse return error.NotFound };
        }

        /// The value of a key; null when it has none.
        pub fn lookup(self: Self, key: Key) Error!?Value {
            var found: Value = undefined;
            check(self.table.lookup(self.raw, &key, key_len, &found, @sizeOf(Value))) catch |failure| {
                return if (failure == error.NotFound) null else failure;
            };
            return found;
        }

        /// Sets the value of a key, which may be new.
        pub fn update(self: Self, key: Key, new: Value) Error!void {
            return check(self.table.update(self.raw, &key, key_len, &new, @sizeOf(Value), 0));
        }

        /// Removes a key.
        pub fn remove(self: Self, key: Key) Error!void {
            return check(self.table.remove(self.raw, &key, key_len));
        }

        /// Adds to a 64-bit field, atomically; the sum.
        pub fn add(self: Self, key: Key, comptime field: []const u8, delta: u64) Error!u64 {
            var sum: u64 = 0;
            try check(self.table.add(self.raw, &key, key_len, @offsetOf(Value, field), delta, &sum));
            return sum;
        }

        /// Of a core array: the value of this worker itself. Write each number with one store.
        pub fn value(self: Self, index: u32) ?*Value {
            return @ptrCast(@alignCast(self.table.value(self.raw, index)));
        }

        /// Appends a record to a ring.
        pub fn output(self: Self, record: Value) Error!void {
            return check(self.table.output(self.raw, &record, @sizeOf(Value)));
        }
    };
}
