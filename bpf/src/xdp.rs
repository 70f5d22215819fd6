// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A packet before the stack. All of it can be read directly, there is no sum of a card, and no several packets in one: those are left to
//! the stack before anything is changed.

use crate::bytes;
use crate::headers::corrected;
use crate::packet::Packet;
use crate::parse::ETH_LEN;
use abi::lb::spread_tuple;
use abi::tuple::Tuple;
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, xdp_md};
use aya_ebpf::helpers::generated as helpers;

/// A packet before the stack.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Xdp(pub *mut xdp_md);

/// Words of the Ethernet header.
const ETHERNET: usize = ETH_LEN / 2;
/// With an IPv4 header without options.
const WITH_IPV4: usize = (ETH_LEN + 20) / 2;
/// With an IPv6 header without extensions.
const WITH_IPV6: usize = (ETH_LEN + 40) / 2;

impl Xdp {
    #[inline(always)]
    fn data(self) -> u32 {
        // SAFETY: the kernel passes a valid context to the program, and the verifier checks the access.
        unsafe { (*self.0).data }
    }

    #[inline(always)]
    fn data_end(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).data_end }
    }

    #[inline(always)]
    fn at<T>(self, offset: usize) -> Option<*mut T> {
        bytes::view(self.data(), self.data_end(), offset)
    }

    /// Makes room for `bytes` behind the first `words`, or takes them away when negative.
    #[inline(always)]
    fn shift(self, words: usize, bytes: i32) -> bool {
        if bytes < 0 {
            return self.advance(words, -bytes);
        }
        // SAFETY: valid context.
        if unsafe { helpers::bpf_xdp_adjust_head(self.0, -bytes) } != 0 {
            return false;
        }
        (0..words).all(|word| self.copy_word(2 * word + bytes as usize, 2 * word))
    }

    /// Moves the first words over the bytes behind them.
    #[inline(always)]
    fn advance(self, words: usize, bytes: i32) -> bool {
        let moved = (1..=words).all(|word| {
            let at = 2 * (words - word);
            self.copy_word(at, at + bytes as usize)
        });
        // SAFETY: valid context.
        moved && unsafe { helpers::bpf_xdp_adjust_head(self.0, bytes) == 0 }
    }

    /// One by one: the stack has no room for all.
    #[inline(always)]
    fn copy_word(self, from: usize, to: usize) -> bool {
        self.read::<u16>(from).is_some_and(|word| self.write(to, word))
    }

    /// Moves the end.
    #[inline(always)]
    fn end_at(self, len: u32) -> bool {
        // SAFETY: valid context.
        unsafe { helpers::bpf_xdp_adjust_tail(self.0, len.wrapping_sub(self.len()) as i32) == 0 }
    }
}

impl Packet for Xdp {
    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: as for the other fields.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn arrived_by(self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn len(self) -> u32 {
        self.data_end() - self.data()
    }

    #[inline(always)]
    fn linear(self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn has_vlan(self) -> bool {
        false
    }

    #[inline(always)]
    fn batch_size(self) -> u32 {
        0
    }

    #[inline(always)]
    fn hash(self, tuple: &Tuple) -> u32 {
        spread_tuple(tuple)
    }

    #[inline(always)]
    fn context(self) -> *mut core::ffi::c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: usize) -> Option<T> {
        // SAFETY: `at` has checked the bounds. BPF knows no alignment, but its compiler does: what it takes for unaligned it reads byte by byte,
        // which makes parsing several times as long.
        self.at::<T>(offset).map(|p| unsafe { p.read() })
    }

    #[inline(always)]
    fn write<T: Copy>(self, offset: usize, value: T) -> bool {
        self.store(offset as u32, &value)
    }

    #[inline(always)]
    fn pull(self, _: u32) -> bool {
        true
    }

    #[inline(always)]
    fn cut(self, len: u32) -> bool {
        len <= self.len() && self.end_at(len)
    }

    #[inline(always)]
    fn store<T>(self, offset: u32, value: &T) -> bool {
        match self.at::<T>(offset as usize) {
            // SAFETY: `at` has checked the bounds; the bytes are plain ones, which are nobody's afterwards.
            Some(p) => unsafe {
                core::ptr::copy_nonoverlapping(value, p, 1);
                true
            },
            None => false,
        }
    }

    #[inline(always)]
    fn store_summed<T>(self, offset: u32, value: &T) -> bool {
        self.store(offset, value)
    }

    #[inline(always)]
    fn fix_l3_checksum(self, offset: u32, from: u32, to: u32) -> bool {
        self.fix_l4_checksum(offset, from as u64, to as u64, 0)
    }

    #[inline(always)]
    fn fix_l4_checksum(self, offset: u32, from: u64, to: u64, flags: u64) -> bool {
        let Some(before) = self.read::<u16>(offset as usize) else { return false };
        // Zero stands for no checksum there (RFC 768).
        let may_lack = flags & BPF_F_MARK_MANGLED_0 as u64 != 0;
        if may_lack && before == 0 {
            return true;
        }
        let after = corrected(before, from as u32, to as u32);
        self.write(offset as usize, if may_lack && after == 0 { u16::MAX } else { after })
    }

    #[inline(always)]
    fn add_to_sum(self, _: u64) {}

    #[inline(always)]
    fn mtu_of(self, ifindex: u32) -> u32 {
        let mut mtu = 0;
        // SAFETY: valid context; the device's size is written to the stack, whatever the result.
        unsafe { helpers::bpf_check_mtu(self.0.cast(), ifindex, &mut mtu, 0, 0) };
        mtu
    }

    #[inline(always)]
    fn resize(self, len: u32) -> bool {
        self.end_at(len)
    }

    #[inline(always)]
    fn adjust_room(self, bytes: i32, _: u64) -> bool {
        self.shift(ETHERNET, bytes)
    }

    #[inline(always)]
    fn adjust_options(self, bytes: i32, _: u64) -> bool {
        let version = self.read::<u8>(ETH_LEN).map(|octet| octet >> 4);
        self.shift(if version == Some(4) { WITH_IPV4 } else { WITH_IPV6 }, bytes)
    }
}
