//! bench-set-response: looks a response header up and sets another: what the first edit of a response costs.

const ringway = @import("ringway");

pub const panic = ringway.panic;

const SetResponse = struct {
    pub const name = "bench-set-response";
    pub const version = "1.0.0";
    pub const wants: ringway.Wants = .{ .edit_response = true };

    pub fn onResponse(cx: *ringway.Cx, response: *const ringway.Response) !void {
        const kind = response.header(.content_type) orelse "none";
        try cx.headerSet(.response, "x-kind", kind);
    }
};

comptime {
    ringway.exportPlugin(SetResponse);
}
