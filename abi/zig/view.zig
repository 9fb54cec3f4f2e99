//! The views of `ringway.h` in Zig: a request, a response, their headers, and the numbers of methods and names. Reached as `ringway.Request`
//! and so on. A view is read where it lies; nothing is copied.

const std = @import("std");

/// Bytes of the message. Reach it through its view: a copied span points nowhere.
pub const Span = extern struct {
    off: i32,
    len: u32,

    pub fn bytes(span: *const Span) []const u8 {
        return relativeBytes(span, span.off, span.len);
    }
};

pub const NameSpan = extern struct {
    off: i32,
    len: u16,
    id: HeaderId,

    pub fn bytes(span: *const NameSpan) []const u8 {
        return relativeBytes(span, span.off, span.len);
    }
};

pub const Header = extern struct {
    name: NameSpan,
    value: Span,

    pub fn isRemoved(header: *const Header) bool {
        return header.name.id == .removed;
    }
};

pub const Headers = extern struct {
    off: i32,
    len: u32,

    /// Entry `index`, removed or not; `entry_size` is the view's.
    pub fn at(headers: *const Headers, entry_size: u16, index: u32) *const Header {
        std.debug.assert(index < headers.len);
        return @ptrFromInt(relativeAddress(headers, headers.off) + @as(usize, entry_size) * index);
    }
};

/// The headers of a view in the order received, without removed ones.
pub const HeaderIterator = struct {
    headers: *const Headers,
    entry_size: u16,
    index: u32 = 0,

    pub fn next(it: *HeaderIterator) ?*const Header {
        while (it.index < it.headers.len) {
            const header = it.headers.at(it.entry_size, it.index);
            it.index += 1;
            if (!header.isRemoved()) return header;
        }
        return null;
    }
};

pub const RequestFlags = packed struct(u16) {
    has_body: bool = false,
    chunked: bool = false,
    absolute_target: bool = false,
    upgrade: bool = false,
    tls: bool = false,
    body_complete: bool = false,
    _: u10 = 0,
};

pub const ResponseFlags = packed struct(u16) {
    has_body: bool = false,
    chunked: bool = false,
    close_delimited: bool = false,
    body_complete: bool = false,
    _: u12 = 0,
};

pub const Origin = enum(u8) { upstream, plugin, gateway, _ };

pub const Request = extern struct {
    magic: u32,
    root_size: u16,
    entry_size: u16,
    method_id: Method,
    http_version: u8,
    flags: RequestFlags,
    edits: u32,
    method: Span,
    target: Span,
    path: Span,
    query: Span,
    authority: Span,
    body: Span,
    content_length: u64,
    request_id: u64,
    received_unix_ns: u64,
    peer_addr: [16]u8,
    peer_port: u16,
    listener: u16,
    route: u32,
    known_mask: u64,
    known: [64]u8,
    headers: Headers,

    /// The value of the first header with this id. Constant time.
    pub fn header(request: *const Request, id: HeaderId) ?[]const u8 {
        return knownValue(request, id);
    }

    /// The value of the first header of this name, compared without case. Linear; prefer `header`.
    pub fn headerNamed(request: *const Request, name: []const u8) ?[]const u8 {
        return namedValue(request, name);
    }

    pub fn headerIterator(request: *const Request) HeaderIterator {
        return .{ .headers = &request.headers, .entry_size = request.entry_size };
    }
};

pub const Response = extern struct {
    magic: u32,
    root_size: u16,
    entry_size: u16,
    status: u16,
    http_version: u8,
    origin: Origin,
    flags: ResponseFlags,
    reserved: u16,
    reason: Span,
    body: Span,
    content_length: u64,
    request_id: u64,
    upstream_ns: u64,
    origin_plugin: u32,
    edits: u32,
    known_mask: u64,
    known: [64]u8,
    headers: Headers,

    /// The value of the first header with this id. Constant time.
    pub fn header(response: *const Response, id: HeaderId) ?[]const u8 {
        return knownValue(response, id);
    }

    /// The value of the first header of this name, compared without case. Linear; prefer `header`.
    pub fn headerNamed(response: *const Response, name: []const u8) ?[]const u8 {
        return namedValue(response, name);
    }

    pub fn headerIterator(response: *const Response) HeaderIterator {
        return .{ .headers = &response.headers, .entry_size = response.entry_size };
    }
};

/// `content_length` when it is not known.
pub const length_unknown = std.math.maxInt(u64);

pub const Method = enum(u8) { other, get, head, post, put, delete, connect, options, trace, patch, _ };

/// Fixed ids of header names. Others below `limit` mean what `Loader.internHeader` returned them for, in this process.
pub const HeaderId = enum(u16) {
    other,
    host,
    content_length,
    transfer_encoding,
    connection,
    content_type,
    user_agent,
    accept,
    accept_encoding,
    accept_language,
    authorization,
    cookie,
    set_cookie,
    cache_control,
    date,
    server,
    etag,
    last_modified,
    if_none_match,
    if_modified_since,
    location,
    referer,
    origin,
    vary,
    expires,
    age,
    pragma,
    range,
    content_range,
    accept_ranges,
    content_encoding,
    expect,
    upgrade,
    te,
    trailer,
    keep_alive,
    proxy_connection,
    proxy_authenticate,
    proxy_authorization,
    via,
    x_forwarded_for,
    x_forwarded_proto,
    x_forwarded_host,
    forwarded,
    x_request_id,
    traceparent,
    www_authenticate,
    allow,
    max_forwards,
    x_real_ip,
    retry_after,
    http2_settings,
    sec_websocket_key,
    removed = 0xffff,
    _,

    /// Every id is below this.
    pub const limit = 64;
};

fn relativeAddress(field: anytype, off: i32) usize {
    return @intFromPtr(field) +% @as(usize, @bitCast(@as(isize, off)));
}

fn relativeBytes(field: anytype, off: i32, len: usize) []const u8 {
    if (len == 0) return &.{};
    return @as([*]const u8, @ptrFromInt(relativeAddress(field, off)))[0..len];
}

fn knownValue(view: anytype, id: HeaderId) ?[]const u8 {
    const number = @backingInt(id);
    const index = if (number < HeaderId.limit) view.known[number] else 0;
    if (index == 0) return null;
    return view.headers.at(view.entry_size, index - 1).value.bytes();
}

fn namedValue(view: anytype, name: []const u8) ?[]const u8 {
    var it = view.headerIterator();
    while (it.next()) |entry| {
        if (std.ascii.eqlIgnoreCase(entry.name.bytes(), name)) return entry.value.bytes();
    }
    return null;
}
