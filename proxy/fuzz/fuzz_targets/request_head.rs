//! A request head gets one answer in whatever pieces it arrives, and what we accept httparse accepts as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_abi::raw::RawRequest;
use ringway_fuzz::{SLOT_BYTES, Slot};

fuzz_target!(|input: (u8, &[u8])| {
    let (step, head) = (usize::from(input.0) + 1, input.1);
    if head.len() > SLOT_BYTES {
        return;
    }
    let pieces: Vec<usize> = (1..head.len()).step_by(step).chain([head.len()]).collect();
    let (slot, answer) = Slot::<RawRequest>::request(head, &[head.len()]);
    assert_eq!(Slot::<RawRequest>::request(head, &pieces).1, answer);
    let Ok(Some(facts)) = answer else { return };
    let view = slot.view();

    let mut headers = [httparse::EMPTY_HEADER; 254];
    let mut theirs = httparse::Request::new(&mut headers);
    match theirs.parse(head) {
        Ok(status) => assert_eq!(status, httparse::Status::Complete(facts.head_bytes as usize)),
        Err(httparse::Error::Version) => return, // HTTP/1.2 to 1.9
        Err(error) => panic!("httparse refuses: {error}"),
    }
    assert_eq!((theirs.method.map(str::as_bytes), theirs.path.map(str::as_bytes)), (Some(view.method()), Some(view.target())));
    assert_eq!(view.entries().len(), theirs.headers.len());
    for (ours, theirs) in view.entries().iter().zip(theirs.headers) {
        assert_eq!((ours.name(), ours.value()), (theirs.name.as_bytes(), ringway::http1::bytes::trim(theirs.value)));
    }
});
