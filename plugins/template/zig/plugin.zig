//! A Ringway plugin in Zig. Copy this file and the folder abi/zig, change the name, and build it with one command
//! (Zig 0.17; `python3 -m pip install ziglang==0.17.1` brings it as `python3 -m ziglang`):
//!
//!     zig build-lib -dynamic -O ReleaseSafe -fPIC -fno-soname --dep ringway \
//!         -Mroot=plugins/template/zig/plugin.zig -Mringway=abi/zig/ringway.zig -femit-bin=my-plugin.so
//!
//! Look at what the gateway will see, then try it:
//!
//!     ringway plugin inspect my-plugin.so
//!     ringway proxy --from 127.0.0.1:8080 --to 127.0.0.1:9000 --plugin ./my-plugin.so
//!
//! What a plugin may look at and call is in abi/zig (ringway.zig first); what it means is in ringway.h.

const ringway = @import("ringway");

/// A panic says what failed and traps; it never crosses into the gateway.
pub const panic = ringway.panic;

const Template = struct {
    pub const name = "template-zig";
    pub const version = "0.1.0";

    /// Declare what the plugin does: calls that need a bit which is missing here fail with `error.NotDeclared`.
    pub const wants: ringway.Wants = .{ .edit_response = true };

    /// Called for every response. Read by looking at `response`, write by calling `cx`. The function's name is the hook:
    /// others are onRequest, onRequestChunk, onDone, ... Returning nothing goes on; `ringway.Verdict` decides otherwise.
    pub fn onResponse(cx: *ringway.Cx, response: *const ringway.Response) !void {
        if (response.status >= 500) return;
        // The edit takes effect after this hook returned. An error is logged and counts as a failure of the plugin.
        try cx.headerSet(.response, "x-hello", "from Zig");
    }
};

comptime {
    ringway.exportPlugin(Template);
}
