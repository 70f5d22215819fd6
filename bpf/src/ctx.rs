// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The packet: the only file that does pointer arithmetic. Everything else gets bounds-checked views.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated as helpers;

/// A packet at a tc hook.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Skb(pub *mut __sk_buff);

/// Upper bound of a header offset: lets the verifier bound variable packet pointers.
const MAX_OFFSET: usize = 0x1ff;

macro_rules! field {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[inline(always)]
        pub fn $name(self) -> u32 {
            // SAFETY: the kernel passes a valid context to the program, and the verifier checks the access.
            unsafe { (*self.0).$name }
        }
    };
}

impl Skb {
    field!(/// Interface on which the program runs.
        ifindex);
    field!(/// Length of the whole packet.
        len);
    field!(/// Whether a VLAN tag was taken off into metadata.
        vlan_present);
    field!(data);
    field!(data_end);

    /// A view of a `T` at the offset, if the linear part of the packet holds one.
    #[inline(always)]
    pub fn at<T>(self, offset: usize) -> Option<*mut T> {
        // A check for one byte becomes `start >= end`, which the verifier takes for no check at all; no header ends there.
        let length = if size_of::<T>() < 2 { 2 } else { size_of::<T>() };
        let start = self.data() as usize + (offset & MAX_OFFSET);
        if opaque(start + length) > self.data_end() as usize { None } else { Some(start as *mut T) }
    }

    /// Reads a `T` at the offset. Packet words need not be aligned: the kernel's BPF loads do not ask for it.
    #[inline(always)]
    pub fn read<T: Copy>(self, offset: usize) -> Option<T> {
        // SAFETY: `at` has checked the bounds.
        self.at::<T>(offset).map(|p| unsafe { *p })
    }

    /// Writes a `T` at the offset; false when the packet is too short.
    #[inline(always)]
    pub fn write<T: Copy>(self, offset: usize, value: T) -> bool {
        match self.at::<T>(offset) {
            // SAFETY: `at` has checked the bounds; the kernel has made the packet writable for a program that writes.
            Some(p) => unsafe {
                *p = value;
                true
            },
            None => false,
        }
    }

    /// Makes the first `len` bytes linear, as far as there are so many. All earlier views are void.
    #[inline(always)]
    pub fn pull(self, len: u32) -> bool {
        let want = if len > self.len() { self.len() } else { len };
        // SAFETY: valid context.
        unsafe { helpers::bpf_skb_pull_data(self.0, want) == 0 }
    }

    /// Replaces bytes at any offset, also in fragments.
    #[inline(always)]
    pub fn store<T>(self, offset: u32, value: &T) -> bool {
        // SAFETY: valid context; `value` is `size_of::<T>()` readable bytes.
        unsafe {
            helpers::bpf_skb_store_bytes(self.0, offset, core::ptr::from_ref(value).cast(), size_of::<T>() as u32, 0)
                == 0
        }
    }

    /// Corrects an IPv4 header checksum for a 32-bit word that changed.
    #[inline(always)]
    pub fn fix_l3_checksum(self, offset: u32, from: u32, to: u32) -> bool {
        // SAFETY: valid context.
        unsafe { helpers::bpf_l3_csum_replace(self.0, offset, from as u64, to as u64, 4) == 0 }
    }

    /// Corrects a transport checksum; `flags` as of `bpf_l4_csum_replace`, the size of the words included.
    #[inline(always)]
    pub fn fix_l4_checksum(self, offset: u32, from: u64, to: u64, flags: u64) -> bool {
        // SAFETY: valid context.
        unsafe { helpers::bpf_l4_csum_replace(self.0, offset, from, to, flags) == 0 }
    }
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
