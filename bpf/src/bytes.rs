// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Views of a packet's bytes: the only file that does arithmetic on packet pointers.

/// Upper bound of a header offset: lets the verifier bound variable packet pointers.
const MAX_OFFSET: usize = 0x1ff;

/// A view of a `T` at the offset, if what lies between `data` and `data_end` of a context holds one.
#[inline(always)]
pub fn view<T>(data: u32, data_end: u32, offset: usize) -> Option<*mut T> {
    // A check for one byte becomes `start >= end`, which the verifier takes for no check at all; no header ends there.
    let length = if size_of::<T>() < 2 { 2 } else { size_of::<T>() };
    let start = data as usize + (offset & MAX_OFFSET);
    if opaque(start + length) > data_end as usize { None } else { Some(start as *mut T) }
}

/// Hides how a value came about, so that the compiler does not turn `start + length > end` into arithmetic on `end`, which
/// the verifier refuses.
#[inline(always)]
fn opaque(value: usize) -> usize {
    let copy;
    // SAFETY: a copy from register to register. (Without an instruction the line information has two entries for one
    // offset, which the kernel refuses.)
    unsafe {
        core::arch::asm!("{0} = {1}", out(reg) copy, in(reg) value, options(nomem, nostack, preserves_flags, pure))
    };
    copy
}
