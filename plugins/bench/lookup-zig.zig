//! bench-lookup-zig: looks one header up by id and goes on; the twin of bench-lookup-c.

const ringway = @import("ringway");

pub const panic = ringway.panic;

const Lookup = struct {
    pub const name = "bench-lookup-zig";
    pub const version = "1.0.0";

    pub fn onRequest(_: *ringway.Cx, request: *const ringway.Request) ringway.Verdict {
        const value = request.header(.user_agent) orelse return .@"continue";
        return if (value.len > 65_000) .done else .@"continue";
    }
};

comptime {
    ringway.exportPlugin(Lookup);
}
