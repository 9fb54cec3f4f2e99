//! HTTP/1.x: bytes in, offsets out.
