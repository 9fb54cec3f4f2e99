//! Header and method ids. The numbers are part of the ABI (`RW_H_*`, `RW_M_*`).

/// The interned id of a header name; 0 when the name has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HeaderId(pub u16);

/// The id of an entry that an edit removed.
pub const HEADER_ID_REMOVED: u16 = 0xffff;
/// Ids below this are fixed in this minor version; ids from here to [`HEADER_ID_LIMIT`] are given to names that plugins
/// register. For gateways and test hosts: it is not part of the contract, and a plugin must not depend on it.
pub const HEADER_ID_FIXED_COUNT: u16 = 53;
/// Every id is below this.
pub const HEADER_ID_LIMIT: u16 = 64;

macro_rules! header_ids {
    ($($id:literal $constant:ident $name:literal;)*) => {
        impl HeaderId {
            /// A name without an id.
            pub const OTHER: HeaderId = HeaderId(0);
            $(#[doc = concat!("`", $name, "`")] pub const $constant: HeaderId = HeaderId($id);)*
        }

        /// The fixed names in lower case by id; index 0 is empty.
        pub const HEADER_NAMES: [&str; HEADER_ID_FIXED_COUNT as usize] = {
            let mut names = [""; HEADER_ID_FIXED_COUNT as usize];
            $(names[$id] = $name;)*
            names
        };
    };
}

header_ids! {
    1 HOST "host";
    2 CONTENT_LENGTH "content-length";
    3 TRANSFER_ENCODING "transfer-encoding";
    4 CONNECTION "connection";
    5 CONTENT_TYPE "content-type";
    6 USER_AGENT "user-agent";
    7 ACCEPT "accept";
    8 ACCEPT_ENCODING "accept-encoding";
    9 ACCEPT_LANGUAGE "accept-language";
    10 AUTHORIZATION "authorization";
    11 COOKIE "cookie";
    12 SET_COOKIE "set-cookie";
    13 CACHE_CONTROL "cache-control";
    14 DATE "date";
    15 SERVER "server";
    16 ETAG "etag";
    17 LAST_MODIFIED "last-modified";
    18 IF_NONE_MATCH "if-none-match";
    19 IF_MODIFIED_SINCE "if-modified-since";
    20 LOCATION "location";
    21 REFERER "referer";
    22 ORIGIN "origin";
    23 VARY "vary";
    24 EXPIRES "expires";
    25 AGE "age";
    26 PRAGMA "pragma";
    27 RANGE "range";
    28 CONTENT_RANGE "content-range";
    29 ACCEPT_RANGES "accept-ranges";
    30 CONTENT_ENCODING "content-encoding";
    31 EXPECT "expect";
    32 UPGRADE "upgrade";
    33 TE "te";
    34 TRAILER "trailer";
    35 KEEP_ALIVE "keep-alive";
    36 PROXY_CONNECTION "proxy-connection";
    37 PROXY_AUTHENTICATE "proxy-authenticate";
    38 PROXY_AUTHORIZATION "proxy-authorization";
    39 VIA "via";
    40 X_FORWARDED_FOR "x-forwarded-for";
    41 X_FORWARDED_PROTO "x-forwarded-proto";
    42 X_FORWARDED_HOST "x-forwarded-host";
    43 FORWARDED "forwarded";
    44 X_REQUEST_ID "x-request-id";
    45 TRACEPARENT "traceparent";
    46 WWW_AUTHENTICATE "www-authenticate";
    47 ALLOW "allow";
    48 MAX_FORWARDS "max-forwards";
    49 X_REAL_IP "x-real-ip";
    50 RETRY_AFTER "retry-after";
    51 HTTP2_SETTINGS "http2-settings";
    52 SEC_WEBSOCKET_KEY "sec-websocket-key";
}

impl HeaderId {
    /// The fixed id of a name, compared without case; [`HeaderId::OTHER`] when it has none. Linear: for set-up and tools.
    pub fn of(name: &[u8]) -> HeaderId {
        let found = HEADER_NAMES.iter().skip(1).position(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        HeaderId(found.map_or(0, |at| at as u16 + 1))
    }
}

/// Any method without an id.
pub const METHOD_OTHER: u8 = 0;
/// `GET`
pub const METHOD_GET: u8 = 1;
/// `HEAD`
pub const METHOD_HEAD: u8 = 2;
/// `POST`
pub const METHOD_POST: u8 = 3;
/// `PUT`
pub const METHOD_PUT: u8 = 4;
/// `DELETE`
pub const METHOD_DELETE: u8 = 5;
/// `CONNECT`
pub const METHOD_CONNECT: u8 = 6;
/// `OPTIONS`
pub const METHOD_OPTIONS: u8 = 7;
/// `TRACE`
pub const METHOD_TRACE: u8 = 8;
/// `PATCH`
pub const METHOD_PATCH: u8 = 9;

/// The id of a method; case matters (RFC 9110 §9.1).
#[inline]
pub fn method_id(method: &[u8]) -> u8 {
    match method {
        b"GET" => METHOD_GET,
        b"HEAD" => METHOD_HEAD,
        b"POST" => METHOD_POST,
        b"PUT" => METHOD_PUT,
        b"DELETE" => METHOD_DELETE,
        b"CONNECT" => METHOD_CONNECT,
        b"OPTIONS" => METHOD_OPTIONS,
        b"TRACE" => METHOD_TRACE,
        b"PATCH" => METHOD_PATCH,
        _ => METHOD_OTHER,
    }
}
