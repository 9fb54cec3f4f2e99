//! The heads and bodies that are measured, by name. Sizes are part of the name: a test fixes them.

/// A name and the bytes of a message.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// As it stands in the names of benches and in `instructions.txt`.
    pub name: &'static str,
    /// One whole head; what follows it, if anything, is body.
    pub bytes: &'static [u8],
    /// Header lines.
    pub headers: usize,
}

/// A program's GET: 8 headers, 355 bytes.
pub const GET_8: Input = Input {
    name: "get-8",
    headers: 8,
    bytes: b"GET /api/v2/accounts/4711/orders?state=open&limit=50&p=12 HTTP/1.1\r\n\
Host: api.example.com\r\n\
User-Agent: orders-client/2.14 (linux; amd64)\r\n\
Accept: application/json\r\n\
Accept-Encoding: gzip, deflate\r\n\
Authorization: Bearer 7c0e1c7e5b1f4a1f9f2d3c4b5a697887\r\n\
X-Request-Id: 5f0c3f52-9d5b-4f0e-8f4e-2f5a9d1c7b60\r\n\
Cache-Control: no-cache\r\n\
Connection: keep-alive\r\n\
\r\n",
};

/// A browser's GET of a page: 20 headers, 1,036 bytes.
pub const BROWSER_20: Input = Input {
    name: "browser-20",
    headers: 20,
    bytes: b"GET /shop/catalogue/shoes?colour=dark%20blue&size=43&page=2&sort=price HTTP/1.1\r\n\
Host: www.example.com\r\n\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
sec-ch-ua: \"Chromium\";v=\"128\", \"Not;A=Brand\";v=\"24\", \"Google Chrome\";v=\"128\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-User: ?1\r\n\
Sec-Fetch-Dest: document\r\n\
Referer: https://www.example.com/shop/catalogue\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; _ga=GA1.1.1234567890.1700000000; _ga_ABCDEF1234=GS1.1.1700000000.12.1.1700000123.0.0.0; cart=7f9a1c52-3d4e-4b6a-9f00-1a2b3c4d5e6f-0001002\r\n\
If-None-Match: \"5d8c72a5edda8d6a:0\"\r\n\
DNT: 1\r\n\
Priority: u=0, i\r\n\
\r\n",
};

/// A form sent by a program: 9 headers and a body of 27 bytes.
pub const POST: Input = Input {
    name: "post",
    headers: 9,
    bytes: b"POST /api/v2/accounts/4711/orders HTTP/1.1\r\n\
Host: api.example.com\r\n\
User-Agent: orders-client/2.14 (linux; amd64)\r\n\
Accept: application/json\r\n\
Accept-Encoding: gzip, deflate\r\n\
Content-Type: application/json\r\n\
Content-Length: 27\r\n\
Authorization: Bearer 7c0e1c7e5b1f4a1f9f2d3c4b5a697887\r\n\
X-Request-Id: 5f0c3f52-9d5b-4f0e-8f4e-2f5a9d1c7b60\r\n\
Connection: keep-alive\r\n\
\r\n\
{\"article\":7,\"quantity\":12}",
};

/// The requests.
pub const REQUESTS: [Input; 3] = [GET_8, BROWSER_20, POST];

/// The head that a small service gives: 4 headers, 125 bytes.
pub const RESPONSE_SMALL: Input = Input {
    name: "response-small",
    headers: 4,
    bytes: b"HTTP/1.1 200 OK\r\n\
Server: nginx\r\n\
Date: Tue, 04 Mar 2025 10:11:12 GMT\r\n\
Content-Type: application/json\r\n\
Content-Length: 1024\r\n\
\r\n",
};

/// The head of a page: 18 headers, two of them cookies, 840 bytes.
pub const RESPONSE_LARGE: Input = Input {
    name: "response-large",
    headers: 18,
    bytes: b"HTTP/1.1 200 OK\r\n\
Date: Tue, 04 Mar 2025 10:11:12 GMT\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Transfer-Encoding: chunked\r\n\
Connection: keep-alive\r\n\
Vary: Accept-Encoding, Cookie\r\n\
Cache-Control: private, max-age=0, must-revalidate\r\n\
Expires: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
ETag: \"5d8c72a5edda8d6a:0\"\r\n\
Last-Modified: Mon, 03 Mar 2025 18:00:00 GMT\r\n\
Set-Cookie: session=0123456789abcdef0123456789abcdef; Path=/; Secure; HttpOnly; SameSite=Lax\r\n\
Set-Cookie: theme=dark; Path=/; Max-Age=31536000; Secure; SameSite=Lax\r\n\
Strict-Transport-Security: max-age=63072000; includeSubDomains; preload\r\n\
Content-Security-Policy: default-src 'self'; img-src 'self' data: https://images.example.com; object-src 'none'\r\n\
X-Content-Type-Options: nosniff\r\n\
X-Frame-Options: DENY\r\n\
Referrer-Policy: strict-origin-when-cross-origin\r\n\
Content-Encoding: br\r\n\
Server: nginx\r\n\
\r\n",
};

/// The responses.
pub const RESPONSES: [Input; 2] = [RESPONSE_SMALL, RESPONSE_LARGE];

/// A body of 64 KiB in chunks of `chunk_bytes`, with its last chunk.
pub fn chunked_64k(chunk_bytes: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let mut left = 64 << 10;
    while left > 0 {
        let bytes = chunk_bytes.min(left);
        body.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
        body.resize(body.len() + bytes, b'x');
        body.extend_from_slice(b"\r\n");
        left -= bytes;
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// The chunk sizes that are measured: those of a server that flushes lines, of a buffering one, and of a relay.
pub const CHUNK_BYTES: [usize; 3] = [64, 4096, 16384];

/// A configuration of `count` routes by path prefix on one host; the last one takes what no other did.
pub fn routes(count: usize) -> String {
    let mut text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"u\"\nservers = [\"127.0.0.1:1\"]\n".to_owned();
    for at in 1..count {
        text.push_str(&format!("[[route]]\nname = \"r{at}\"\nhost = \"*.example.com\"\npath = \"/service-{at}/\"\nupstream = \"u\"\n"));
    }
    text.push_str("[[route]]\nname = \"rest\"\npath = \"/\"\nupstream = \"u\"\n");
    text
}

/// Route counts that are measured.
pub const ROUTE_COUNTS: [usize; 3] = [1, 10, 100];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_the_names_promise() {
        assert_eq!(GET_8.bytes.len(), 355);
        assert_eq!(BROWSER_20.bytes.len(), 1036);
        assert_eq!(RESPONSE_SMALL.bytes.len(), 125);
        assert_eq!(RESPONSE_LARGE.bytes.len(), 840);
        for input in REQUESTS.into_iter().chain(RESPONSES) {
            let head = input.bytes.split(|b| *b == b'\n').take_while(|line| *line != b"\r");
            assert_eq!(head.count() - 1, input.headers, "{}", input.name);
        }
    }
}
