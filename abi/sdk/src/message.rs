//! What the views do not have because they stay small: conveniences for reading messages.

use std::net::IpAddr;

use ringway_abi::ids::{self, HeaderId};
use ringway_abi::view::{HeaderView, RequestView, ResponseView};

use crate::event::peer_ip;

/// Reading headers of a request or a response.
pub trait Message {
    /// All entries, removed ones included.
    fn header_entries(&self) -> &[HeaderView];

    /// The value of the first header with this id, as text; `None` when absent or not UTF-8.
    fn header_str(&self, id: HeaderId) -> Option<&str>;

    /// The values of all headers with this id (fixed or interned), in order.
    fn header_values(&self, id: HeaderId) -> impl Iterator<Item = &[u8]> {
        self.header_entries().iter().filter(move |h| h.id() == id && id != HeaderId::OTHER && !h.is_removed()).map(HeaderView::value)
    }

    /// The values of all headers of this name, compared without case, in order.
    fn header_values_named<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.header_entries().iter().filter(move |h| !h.is_removed() && h.name().eq_ignore_ascii_case(name)).map(HeaderView::value)
    }

    /// The elements of a comma-separated header with this id, over all its lines, trimmed, empty ones left out
    /// (RFC 9110 §5.6.1). Commas inside quoted strings do not separate.
    fn header_elements(&self, id: HeaderId) -> impl Iterator<Item = &[u8]> {
        self.header_values(id).flat_map(elements)
    }
}

impl Message for RequestView {
    fn header_entries(&self) -> &[HeaderView] {
        self.entries()
    }

    fn header_str(&self, id: HeaderId) -> Option<&str> {
        self.header(id).and_then(|value| std::str::from_utf8(value).ok())
    }
}

impl Message for ResponseView {
    fn header_entries(&self) -> &[HeaderView] {
        self.entries()
    }

    fn header_str(&self, id: HeaderId) -> Option<&str> {
        self.header(id).and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// Reading requests.
pub trait RequestExt {
    /// The client's address; `None` for a Unix socket.
    fn peer_ip(&self) -> Option<IpAddr>;

    /// Whether the method is `GET` or `HEAD`.
    fn is_get_or_head(&self) -> bool;
}

impl RequestExt for RequestView {
    fn peer_ip(&self) -> Option<IpAddr> {
        peer_ip(self.peer_addr())
    }

    fn is_get_or_head(&self) -> bool {
        matches!(self.method_id(), ids::METHOD_GET | ids::METHOD_HEAD)
    }
}

/// The elements of a comma-separated list, trimmed, empty ones left out. Commas inside quoted strings do not separate.
pub fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        loop {
            let list = rest?;
            let end = element_end(list);
            rest = list.get(end + 1..);
            let element = list[..end].trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    })
}

fn element_end(list: &[u8]) -> usize {
    let (mut quoted, mut at) = (false, 0);
    while at < list.len() {
        match list[at] {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            b',' if !quoted => return at,
            _ => {}
        }
        at += 1;
    }
    list.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_follow_rfc_9110_lists() {
        let cases: [(&str, &[&str]); 6] = [
            ("", &[]),
            (" , ,", &[]),
            ("a", &["a"]),
            ("a, b ,c", &["a", "b", "c"]),
            (r#"a="x, y", b"#, &[r#"a="x, y""#, "b"]),
            (r#"a="\", ", b"#, &[r#"a="\", ""#, "b"]),
        ];
        for (list, expected) in cases {
            let found: Vec<_> = elements(list.as_bytes()).map(|e| String::from_utf8_lossy(e).into_owned()).collect();
            assert_eq!(found, expected, "{list}");
        }
    }
}
