//! Scratch: plain data of one exchange, zeroed by the gateway when the exchange begins.

/// Plain data for which all bytes zero is a valid value.
///
/// Implement it through [`scratch!`](crate::scratch!), which needs no `unsafe`; numbers, `bool`, arrays and small tuples
/// of such types have it already. `()` means "no scratch".
///
/// # Safety
/// All bytes zero is a valid value of the type, and the type is plain data: nothing breaks when a value is forgotten.
pub unsafe trait Zeroed: Copy + 'static {}

macro_rules! zeroed {
    ($($ty:ty),*) => {$(
        // SAFETY: zero is a value of this type.
        unsafe impl Zeroed for $ty {}
    )*};
}

zeroed!((), u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char);

// SAFETY: an array of zeroed elements is all zero.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}
// SAFETY: zero is valid for each field, and padding may hold anything.
unsafe impl<A: Zeroed, B: Zeroed> Zeroed for (A, B) {}
// SAFETY: as above.
unsafe impl<A: Zeroed, B: Zeroed, C: Zeroed> Zeroed for (A, B, C) {}
// SAFETY: as above.
unsafe impl<A: Zeroed, B: Zeroed, C: Zeroed, D: Zeroed> Zeroed for (A, B, C, D) {}

/// Defines a struct that can be a [`Plugin::Scratch`](crate::Plugin::Scratch): every field must be [`Zeroed`].
///
/// ```
/// ringway_sdk::scratch! {
///     /// What `on_request` leaves for `on_response`.
///     #[derive(Debug)]
///     pub struct Seen {
///         pub started: u64,
///         pub cached: bool,
///     }
/// }
/// # fn main() {}
/// ```
///
/// A field that zero bytes cannot stand for is a compile error:
///
/// ```compile_fail
/// ringway_sdk::scratch! {
///     pub struct Seen { pub name: &'static str }
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! scratch {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $ty),* }

        #[allow(unsafe_code, reason = "the macro writes the unsafe part for authors whose crates forbid it")]
        const _: () = {
            const fn zeroed<T: $crate::Zeroed>() {}
            $(zeroed::<$ty>();)*
            // SAFETY: the lines above do not compile unless each field is `Zeroed`.
            unsafe impl $crate::Zeroed for $name {}
        };
    };
}
