//! A strict reader of HTTP/1.1 messages, which shares no code with the gateway.

use std::fmt;

/// One header field.
pub type Field = (String, Vec<u8>);

/// How a message said where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length,
    Chunked,
    UntilClose,
    /// Everything behind a 101.
    Tunnel,
}

/// One message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Of a response; 0 of a request.
    pub status: u16,
    /// Of a request.
    pub method: String,
    pub target: Vec<u8>,
    pub fields: Vec<Field>,
    pub framing: Framing,
    pub body: Vec<u8>,
    /// The body came to its end.
    pub complete: bool,
    /// The head as it was sent.
    pub head: Vec<u8>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} + {} bytes, {:?}, complete: {}]", String::from_utf8_lossy(&self.head).escape_debug(), self.body.len(), self.framing, self.complete)
    }
}

impl Message {
    /// The values of a field, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| std::str::from_utf8(value).expect("tests use text in values")).collect()
    }

    /// The value of a field that stands there once.
    pub fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} is given {} times", values.len());
        values.first().copied()
    }

    pub fn body_text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("tests use text in bodies")
    }
}

/// How the connection stands on which messages were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It goes on.
    Not,
    /// It was closed in good order.
    Closed,
    /// It was cut off, perhaps in the middle of a head.
    Cut,
}

/// The responses to requests with these methods (`GET` where the list ends). Panics at bytes that are no response.
pub fn responses(mut bytes: &[u8], methods: &[&str], ended: Ended) -> Vec<Message> {
    let mut found = Vec::new();
    let mut answered = 0;
    while !bytes.is_empty() {
        let Some((start, fields, head)) = head(bytes) else {
            assert_eq!(ended, Ended::Cut, "the client got half a head: {:?}", String::from_utf8_lossy(bytes));
            return found;
        };
        let status = start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no status line: {start:?}"));
        assert_eq!(&start[12..13], " ", "{start:?}");
        let method = methods.get(answered).copied().unwrap_or("GET");
        answered += usize::from(status >= 200);
        let rest = &bytes[head..];
        let (framing, length) = framing(&fields, false);
        let framing = match status {
            101 => Framing::Tunnel,
            100..200 | 204 | 304 => Framing::None,
            200..300 if method == "CONNECT" => Framing::Tunnel,
            _ if method == "HEAD" => Framing::None,
            _ => framing,
        };
        if status < 200 || status == 204 {
            assert!(
                fields.iter().all(|(n, _)| n != "content-length" && n != "transfer-encoding"),
                "{status} with framing: {:?}",
                String::from_utf8_lossy(&bytes[..head])
            );
        }
        let (body, complete, used) = body(rest, framing, length, ended == Ended::Closed);
        let head = bytes[..head].to_vec();
        found.push(Message { status, method: String::new(), target: Vec::new(), fields, framing, body, complete, head: head.clone() });
        bytes = &bytes[head.len() + used..];
    }
    found
}

/// The requests that an upstream received, and what is left behind the last complete head. Panics at what a strict server would refuse.
pub fn requests(mut bytes: &[u8]) -> (Vec<Message>, Vec<u8>) {
    let mut found = Vec::new();
    while let Some((start, fields, head)) = head(bytes) {
        let parts: Vec<&str> = start.split(' ').collect();
        assert!(parts.len() == 3 && parts[2] == "HTTP/1.1" && !parts[0].is_empty() && !parts[1].is_empty(), "{start:?}");
        let (framing, length) = framing(&fields, true);
        let (body, complete, used) = body(&bytes[head..], framing, length, false);
        let (method, target) = (parts[0].to_owned(), parts[1].as_bytes().to_vec());
        let upgrade = fields.iter().any(|(n, _)| n == "upgrade");
        let head = bytes[..head].to_vec();
        bytes = &bytes[head.len() + used..];
        found.push(Message { status: 0, method, target, fields, framing, body, complete, head });
        if upgrade {
            break;
        }
    }
    (found, bytes.to_vec())
}

fn head(bytes: &[u8]) -> Option<(String, Vec<Field>, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = &bytes[..end - 2];
    let mut lines = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let start = lines.next()?.iter().map(|b| char::from(*b)).collect();
    let mut fields = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        assert!(!line.contains(&b'\r') && !line.contains(&0), "a bare CR or NUL in {:?}", String::from_utf8_lossy(line));
        let colon = line.iter().position(|b| *b == b':').unwrap_or_else(|| panic!("no colon in {:?}", String::from_utf8_lossy(line)));
        let name = String::from_utf8(line[..colon].to_vec()).expect("a field name is ASCII");
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        assert!(!name.is_empty() && name.bytes().all(token), "{name:?} is no field name");
        fields.push((name.to_ascii_lowercase(), trimmed(&line[colon + 1..]).to_vec()));
    }
    Some((start, fields, end))
}

/// RFC 9110 §5.6.3: optional blanks are SP and HTAB, nothing else.
fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    &value[start..end]
}

fn framing(fields: &[Field], request: bool) -> (Framing, usize) {
    let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_slice()).collect::<Vec<_>>();
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "framing is given more than once: {fields:?}");
    if let [coding] = codings[..] {
        assert_eq!(coding, b"chunked");
        return (Framing::Chunked, 0);
    }
    match lengths[..] {
        [length] => (Framing::Length, std::str::from_utf8(length).ok().and_then(|l| l.parse().ok()).expect("a decimal length")),
        _ if request => (Framing::None, 0),
        _ => (Framing::UntilClose, 0),
    }
}

/// The body, whether it came to its end, and the bytes it took.
fn body(bytes: &[u8], framing: Framing, length: usize, closed: bool) -> (Vec<u8>, bool, usize) {
    match framing {
        Framing::None => (Vec::new(), true, 0),
        Framing::Length => {
            let have = length.min(bytes.len());
            (bytes[..have].to_vec(), have == length, have)
        }
        Framing::UntilClose | Framing::Tunnel => (bytes.to_vec(), closed, bytes.len()),
        Framing::Chunked => chunks(bytes),
    }
}

fn chunks(bytes: &[u8]) -> (Vec<u8>, bool, usize) {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = bytes[at..].windows(2).position(|w| w == b"\r\n") else { return (body, false, bytes.len()) };
        let digits = std::str::from_utf8(&bytes[at..at + line]).expect("a chunk size is ASCII");
        assert!(!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{digits:?} is no chunk size");
        let size = usize::from_str_radix(digits, 16).expect("a chunk size fits");
        at += line + 2;
        if size == 0 {
            return match bytes.get(at..at + 2) {
                Some(end) => {
                    assert_eq!(end, b"\r\n", "trailers are never forwarded");
                    (body, true, at + 2)
                }
                None => (body, false, bytes.len()),
            };
        }
        let have = size.min(bytes.len() - at);
        body.extend_from_slice(&bytes[at..at + have]);
        at += have;
        match bytes.get(at..at + 2) {
            Some(end) if have == size => assert_eq!(end, b"\r\n", "a chunk ends with CRLF"),
            _ => return (body, false, bytes.len()),
        }
        at += 2;
    }
}
