//! A response head gets one answer in whatever pieces it arrives, and what we accept httparse accepts as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::http1::head::ResponseTo;
use ringway_abi::raw::RawResponse;
use ringway_fuzz::{SLOT_BYTES, Slot};

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (step, head) = (usize::from(input.0) + 1, input.2);
    if head.len() > SLOT_BYTES {
        return;
    }
    let to = ResponseTo { method_id: input.1 % 10, upgrade: input.1 & 0x80 != 0 };
    let pieces: Vec<usize> = (1..head.len()).step_by(step).chain([head.len()]).collect();
    let (slot, answer) = Slot::<RawResponse>::response(head, &[head.len()], to);
    assert_eq!(Slot::<RawResponse>::response(head, &pieces, to).1, answer);
    let Ok(Some(facts)) = answer else { return };
    let view = slot.view();

    let mut headers = [httparse::EMPTY_HEADER; 254];
    let mut theirs = httparse::Response::new(&mut headers);
    match theirs.parse(head) {
        Ok(status) => assert_eq!(status, httparse::Status::Complete(facts.head_bytes as usize)),
        Err(httparse::Error::Version) => return, // HTTP/1.2 to 1.9
        Err(error) => panic!("httparse refuses: {error}"),
    }
    assert_eq!(theirs.code, Some(view.status()));
    assert_eq!(view.entries().len(), theirs.headers.len());
    for (ours, theirs) in view.entries().iter().zip(theirs.headers) {
        assert_eq!((ours.name(), ours.value()), (theirs.name.as_bytes(), ringway::http1::bytes::trim(theirs.value)));
    }
});
