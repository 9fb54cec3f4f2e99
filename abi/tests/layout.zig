//! Prints the layout of zig/ringway.zig as the Zig compiler sees it; the text must equal layout-1.0.txt byte for byte.
//!
//! Fields, enum values and flag bits come from reflection, so a forgotten one shows up as a difference.

const std = @import("std");
const ringway = @import("ringway");

const structs = .{
    .{ "rw_span", ringway.Span },
    .{ "rw_name_span", ringway.NameSpan },
    .{ "rw_header", ringway.Header },
    .{ "rw_headers", ringway.Headers },
    .{ "rw_request", ringway.Request },
    .{ "rw_response", ringway.Response },
    .{ "rw_cx", ringway.Cx },
    .{ "rw_accept", ringway.Accept },
    .{ "rw_chunk", ringway.Chunk },
    .{ "rw_event", ringway.Event },
    .{ "rw_done", ringway.Done },
    .{ "rw_tick", ringway.Tick },
    .{ "rw_host", ringway.Host },
    .{ "rw_metric_def", ringway.MetricDef },
    .{ "rw_map_def", ringway.MapDef },
    .{ "rw_plugin", ringway.Plugin },
    .{ "rw_note", ringway.Note },
};

const text = blk: {
    @setEvalBranchQuota(1_000_000);
    var out: []const u8 = "";
    for (structs) |entry| out = out ++ structText(entry[0], entry[1]);
    out = out ++ constantText("RW_ABI_MAJOR", ringway.abi_major) ++ constantText("RW_ABI_MINOR", ringway.abi_minor);
    out = out ++ constantText("RW_REQUEST_MAGIC", ringway.request_magic) ++ constantText("RW_RESPONSE_MAGIC", ringway.response_magic);
    out = out ++ constantText("RW_HEADERS_MAX", ringway.headers_max);
    out = out ++ flagsText("RW_REQ_", ringway.RequestFlags) ++ enumText("RW_ORIGIN_", ringway.Origin);
    out = out ++ flagsText("RW_RES_", ringway.ResponseFlags) ++ enumText("RW_M_", ringway.Method);
    out = out ++ enumText("RW_H_", ringway.HeaderId);
    out = out ++ enumText("RW_", ringway.Verdict) ++ enumText("RW_", ringway.Status);
    out = out ++ flagsText("RW_CHUNK_", ringway.ChunkFlags) ++ flagsText("RW_END_", ringway.DoneFlags);
    out = out ++ enumText("RW_SIDE_", ringway.Side) ++ enumText("RW_LOG_", ringway.LogLevel);
    out = out ++ flagsText("RW_HOOK_", ringway.Hooks) ++ flagsText("RW_WANT_", ringway.Wants);
    out = out ++ enumText("RW_LANG_", ringway.Language) ++ enumText("RW_METRIC_", ringway.MetricKind);
    out = out ++ constantText("RW_METRICS_MAX", ringway.metrics_max);
    out = out ++ constantText("RW_SCRATCH_BYTES_MAX", ringway.scratch_bytes_max) ++ constantText("RW_NOTE_TYPE", ringway.note_type);
    break :blk out;
};

fn structText(comptime name: []const u8, comptime T: type) []const u8 {
    var out: []const u8 = std.fmt.comptimePrint("struct {s} size {d} align {d}\n", .{ name, @sizeOf(T), @alignOf(T) });
    const info = @typeInfo(T).@"struct";
    for (info.field_names, info.field_types) |field, Field| {
        out = out ++ std.fmt.comptimePrint("field {s}.{s} offset {d} size {d}\n", .{ name, field, @offsetOf(T, field), @sizeOf(Field) });
    }
    return out;
}

fn enumText(comptime prefix: []const u8, comptime T: type) []const u8 {
    var out: []const u8 = "";
    for (@typeInfo(T).@"enum".field_names, @typeInfo(T).@"enum".field_values) |field, value| {
        if (T == ringway.HeaderId and value == @backingInt(ringway.HeaderId.removed)) {
            out = out ++ constantText("RW_H_LIMIT", T.limit);
        }
        out = out ++ constantText(prefix ++ upper(field), value);
    }
    return out;
}

fn flagsText(comptime prefix: []const u8, comptime T: type) []const u8 {
    var out: []const u8 = "";
    for (@typeInfo(T).@"struct".field_names) |field| {
        // What an extension added stands in its own layout.
        if (field[0] == '_' or (T == ringway.Wants and std.mem.eql(u8, field, "outcall"))) continue;
        out = out ++ constantText(prefix ++ upper(field), 1 << @bitOffsetOf(T, field));
    }
    return out;
}

fn constantText(comptime name: []const u8, comptime value: comptime_int) []const u8 {
    return std.fmt.comptimePrint("const {s} {d}\n", .{ name, value });
}

fn upper(comptime name: []const u8) []const u8 {
    var out: [name.len]u8 = undefined;
    _ = std.ascii.upperString(&out, name);
    const copy = out;
    return &copy;
}

pub fn main() void {
    var rest: []const u8 = text;
    while (rest.len > 0) rest = rest[std.os.linux.write(1, rest.ptr, rest.len)..];
}
