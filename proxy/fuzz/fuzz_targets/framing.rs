//! What the upstream receives is the message that we understood: the head that is forwarded parses, by us and by httparse, to
//! the same method and body, with the received fields in their order less the dropped ones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::http1::head::{HeadLimits, RequestBody};
use ringway::http1::write::{OutFraming, write_request_head};
use ringway_abi::ids::HeaderId;
use ringway_abi::raw::RawRequest;
use ringway_fuzz::{SLOT_BYTES, Slot};

fuzz_target!(|head: &[u8]| {
    if head.len() > SLOT_BYTES - 1024 {
        return;
    }
    let (slot, answer) = Slot::<RawRequest>::request(head, &[head.len()]);
    let Ok(Some(facts)) = answer else { return };
    // CONNECT is not forwarded, and without a Host the exchange adds one.
    if slot.view().method() == b"CONNECT" || slot.view().authority().is_empty() {
        return;
    }
    // Nor does a head count as too long for the Host that it gets from its target.
    let has_host = slot.view().header(HeaderId::HOST).is_some();
    if !has_host && slot.view().entries().len() == HeadLimits::default().fields {
        return;
    }
    let mut out = vec![0; SLOT_BYTES];
    let received = &slot.bytes[..facts.head_bytes as usize];
    let len = write_request_head(&mut out, slot.view(), received, &facts.dropped, &[], OutFraming::AsReceived, &[]).expect("it fits");
    let out = &out[..len];

    let (again, answer) = Slot::<RawRequest>::request(out, &[len]);
    let facts_again = answer.expect("what goes out is valid").expect("and whole");
    assert_eq!(facts_again.head_bytes as usize, len);
    assert_eq!((facts_again.body, facts_again.upgrade, facts_again.host_differs), (facts.body, false, false));
    let (before, after) = (slot.view(), again.view());
    assert_eq!((before.method(), before.authority(), after.http_version()), (after.method(), after.authority(), 11));
    let framing = |name: &[u8]| [&b"content-length"[..], b"transfer-encoding", b"host"].iter().any(|f| name.eq_ignore_ascii_case(f));
    let kept = before.entries().iter().enumerate().filter(|(index, _)| !facts.dropped.contains(*index)).map(|(_, entry)| entry);
    let kept = kept.filter(|entry| !framing(entry.name())).map(|entry| (entry.name(), entry.value()));
    assert!(kept.eq(after.entries().iter().filter(|entry| !framing(entry.name())).map(|entry| (entry.name(), entry.value()))));

    let mut headers = [httparse::EMPTY_HEADER; 254];
    let mut theirs = httparse::Request::new(&mut headers);
    assert_eq!(theirs.parse(out), Ok(httparse::Status::Complete(len)));
    let count = |name: &str| theirs.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).count();
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    match facts.body {
        RequestBody::None => assert!(codings == 0 && lengths <= 1),
        RequestBody::Length(_) => assert!(codings == 0 && lengths == 1),
        RequestBody::Chunked => assert!(codings == 1 && lengths == 0),
    }
    assert_eq!(count("host"), 1);
    assert_eq!(count("connection"), 0);
});
