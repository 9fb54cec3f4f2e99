//! Prints the layout of wait.zig as the Zig compiler sees it, in the words of wait.c.

const std = @import("std");
const wait = @import("ringway").wait;

const text = blk: {
    @setEvalBranchQuota(100_000);
    var out: []const u8 = std.fmt.comptimePrint("struct rw_wait size {d} align {d}\n", .{ @sizeOf(wait.Table), @alignOf(wait.Table) });
    const info = @typeInfo(wait.Table).@"struct";
    for (info.field_names, info.field_types) |field, Field| {
        const name = if (std.mem.startsWith(u8, field, "raw_")) field[4..] else field;
        out = out ++ std.fmt.comptimePrint("field rw_wait.{s} offset {d} size {d}\n", .{ name, @offsetOf(wait.Table, field), @sizeOf(Field) });
    }
    for (@typeInfo(wait.EventKind).@"enum".field_names, @typeInfo(wait.EventKind).@"enum".field_values) |field, value| {
        var upper: [field.len]u8 = undefined;
        out = out ++ std.fmt.comptimePrint("const RW_EVENT_{s} {d}\n", .{ std.ascii.upperString(&upper, field), value });
    }
    out = out ++ "id " ++ wait.id ++ "\n";
    break :blk out;
};

pub fn main() void {
    _ = std.os.linux.write(1, text.ptr, text.len);
}
