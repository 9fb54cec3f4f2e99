//! Edits of a request as a hook makes them: staged one by one, applied together.

use ringway::http1::names::NameTable;
use ringway::view::message::{HeaderEdit, Message, Staged};

/// An edit of a request.
pub type Edit = fn(&mut Message, &NameTable);

/// One edit of each kind, by name.
pub const EDITS: [(&str, Edit); 5] =
    [("set, there", set_known), ("set, new", set_new), ("append", append), ("remove", remove), ("replace target", replace_target)];

fn one(message: &mut Message, names: &NameTable, edit: HeaderEdit, name: &[u8], value: &[u8]) {
    let mut staged = Staged::new();
    message.stage(&mut staged, names, edit, name, value).expect("a well-formed edit that fits");
    message.apply(&mut staged);
}

/// Replaces a header that has an id and is there.
pub fn set_known(message: &mut Message, names: &NameTable) {
    one(message, names, HeaderEdit::Set, b"user-agent", b"ringway-bench/1.0");
}

/// Sets a header that has no id and is not there.
pub fn set_new(message: &mut Message, names: &NameTable) {
    one(message, names, HeaderEdit::Set, b"x-tenant", b"4711");
}

/// One more header.
pub fn append(message: &mut Message, names: &NameTable) {
    one(message, names, HeaderEdit::Add, b"x-tenant", b"4711");
}

/// Removes a header that is there.
pub fn remove(message: &mut Message, names: &NameTable) {
    one(message, names, HeaderEdit::Remove, b"cache-control", b"");
}

/// Another target.
///
/// # Panics
/// Never: the target is well-formed and fits.
pub fn replace_target(message: &mut Message, _: &NameTable) {
    let mut staged = Staged::new();
    message.stage_target(&mut staged, b"/internal/orders?tenant=4711").expect("a well-formed target that fits");
    message.apply(&mut staged);
}

/// Three edits of one hook: set, append, remove.
///
/// # Panics
/// Never: the edits are well-formed and fit.
pub fn three(message: &mut Message, names: &NameTable) {
    let mut staged = Staged::new();
    let edits: [(HeaderEdit, &[u8], &[u8]); 3] =
        [(HeaderEdit::Set, b"user-agent", b"ringway-bench/1.0"), (HeaderEdit::Add, b"x-tenant", b"4711"), (HeaderEdit::Remove, b"cache-control", b"")];
    for (edit, name, value) in edits {
        message.stage(&mut staged, names, edit, name, value).expect("a well-formed edit that fits");
    }
    message.apply(&mut staged);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::BROWSER_20;
    use crate::slots::{Received, slab};

    #[test]
    fn edits_do_what_they_say() {
        let (slab, names) = (slab(), NameTable::new());
        let mut received = Received::new(&slab, BROWSER_20);
        received.parse_request(&names);
        for (name, edit) in EDITS {
            let mut message = received.request();
            edit(&mut message, &names);
            assert_eq!(message.request().edits(), 1, "{name}");
        }
        let mut message = received.request();
        three(&mut message, &names);
        assert_eq!(message.request().headers().count(), BROWSER_20.headers);
        assert_eq!(message.request().header_named(b"x-tenant"), Some(&b"4711"[..]));
    }
}
