// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Compile-time proof that a structure has no hidden padding and has not changed its size unnoticed.

/// Declares a `repr(C)` structure without padding and of a fixed size, and makes it readable from map bytes.
macro_rules! layout {
    ($(#[$meta:meta])* pub struct $name:ident ($size:literal) { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),+ }

        const _: () = assert!(core::mem::size_of::<$name>() == $size, "size changed: the version of its map must move");
        const _: () = assert!(0 $(+ core::mem::size_of::<$ty>())+ == $size, "implicit padding");

        // SAFETY: `repr(C)`, only integers and byte arrays inside, and no padding (asserted above).
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}
