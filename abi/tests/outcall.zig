//! Prints the layout of outcall.zig as the Zig compiler sees it, in the words of outcall.c.

const std = @import("std");
const ringway = @import("ringway");
const outcall = ringway.outcall;

const text = blk: {
    @setEvalBranchQuota(100_000);
    var out: []const u8 = std.fmt.comptimePrint("struct rw_outcall size {d} align {d}\n", .{ @sizeOf(outcall.Table), @alignOf(outcall.Table) });
    const info = @typeInfo(outcall.Table).@"struct";
    for (info.field_names, info.field_types) |field, Field| {
        const name = if (std.mem.startsWith(u8, field, "raw_")) field[4..] else field;
        out = out ++ std.fmt.comptimePrint("field rw_outcall.{s} offset {d} size {d}\n", .{ name, @offsetOf(outcall.Table, field), @sizeOf(Field) });
    }
    const bit = 1 << @bitOffsetOf(ringway.Wants, "outcall");
    if (bit != outcall.want_outcall) @compileError("Wants.outcall is another bit than want_outcall");
    out = out ++ std.fmt.comptimePrint("const RW_WANT_OUTCALL {d}\nconst RW_EVENT_REPLY {d}\n", .{ bit, outcall.event_reply });
    for (@typeInfo(outcall.Failure).@"enum".field_names, @typeInfo(outcall.Failure).@"enum".field_values) |field, value| {
        // `unreachable` is a word of the language.
        const name = std.mem.trimEnd(u8, field, "_");
        var upper: [name.len]u8 = undefined;
        out = out ++ std.fmt.comptimePrint("const RW_OUTCALL_{s} {d}\n", .{ std.ascii.upperString(&upper, name), value });
    }
    out = out ++ "id " ++ outcall.id ++ "\n";
    break :blk out;
};

pub fn main() void {
    _ = std.os.linux.write(1, text.ptr, text.len);
}

comptime {
    // What nobody here calls is compiled all the same.
    std.testing.refAllDecls(outcall);
    std.testing.refAllDecls(outcall.Upstream);
}
