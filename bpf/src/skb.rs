// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A packet at a tc hook.

use crate::bytes;
use crate::packet::Packet;
use abi::tuple::Tuple;
use aya_ebpf::bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::generated as helpers;

/// A packet at a tc hook.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Skb(pub *mut __sk_buff);

/// `BPF_ADJ_ROOM_NET`: after the IP header without options and extensions.
const AFTER_IP: u32 = 0;
/// `BPF_ADJ_ROOM_MAC`: after the Ethernet header.
const AFTER_ETHERNET: u32 = 1;

macro_rules! field {
    ($name:ident) => {
        #[inline(always)]
        fn $name(self) -> u32 {
            // SAFETY: the kernel passes a valid context to the program, and the verifier checks the access.
            unsafe { (*self.0).$name }
        }
    };
}

impl Skb {
    field!(data);
    field!(data_end);

    /// Takes off VLAN tags that name no VLAN but a priority (IEEE 802.1Q): to the kernel such a frame is untagged, however many it has. False:
    /// one is left.
    #[inline(always)]
    pub fn take_priorities(self) -> bool {
        const MOST: usize = 4;
        for _ in 0..MOST {
            if !self.has_priority() {
                return true;
            }
            // SAFETY: valid context. A tag that stays is looked at again.
            unsafe { helpers::bpf_skb_vlan_pop(self.0) };
        }
        !self.has_priority()
    }

    #[inline(always)]
    fn has_priority(self) -> bool {
        const VLAN: u32 = 0x0fff;
        // SAFETY: valid context.
        unsafe { (*self.0).vlan_present != 0 && (*self.0).vlan_tci & VLAN == 0 }
    }

    /// Whether the frame is addressed to the machine itself, and not to another one, a group or everybody on the link.
    #[inline(always)]
    pub fn is_addressed_to_us(self) -> bool {
        /// Of `linux/if_packet.h`.
        const PACKET_HOST: u32 = 0;
        // SAFETY: as for the other fields.
        unsafe { (*self.0).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn store_with<T>(self, offset: u32, value: &T, flags: u64) -> bool {
        let from = core::ptr::from_ref(value).cast();
        // SAFETY: valid context; `value` is `size_of::<T>()` readable bytes.
        unsafe { helpers::bpf_skb_store_bytes(self.0, offset, from, size_of::<T>() as u32, flags) == 0 }
    }

    /// A view of a `T` at the offset, if the linear part of the packet holds one.
    #[inline(always)]
    fn at<T>(self, offset: usize) -> Option<*mut T> {
        bytes::view(self.data(), self.data_end(), offset)
    }
}

impl Packet for Skb {
    field!(ifindex);
    field!(len);

    #[inline(always)]
    fn arrived_by(self) -> u32 {
        // SAFETY: as for the other fields.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn linear(self) -> u32 {
        self.data_end() - self.data()
    }

    #[inline(always)]
    fn has_vlan(self) -> bool {
        // SAFETY: as for the other fields.
        unsafe { (*self.0).vlan_present != 0 }
    }

    #[inline(always)]
    fn batch_size(self) -> u32 {
        // SAFETY: as for the other fields.
        unsafe { (*self.0).gso_size }
    }

    #[inline(always)]
    fn hash(self, _: &Tuple) -> u32 {
        // SAFETY: valid context.
        unsafe { helpers::bpf_get_hash_recalc(self.0) }
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
        match self.at::<T>(offset) {
            // SAFETY: `at` has checked the bounds; the kernel has made the packet writable for a program that writes.
            Some(p) => unsafe {
                *p = value;
                true
            },
            None => false,
        }
    }

    #[inline(always)]
    fn pull(self, len: u32) -> bool {
        let want = if len > self.len() { self.len() } else { len };
        // SAFETY: valid context.
        unsafe { helpers::bpf_skb_pull_data(self.0, want) == 0 }
    }

    #[inline(always)]
    fn cut(self, len: u32) -> bool {
        // SAFETY: valid context.
        len <= self.len() && unsafe { helpers::bpf_skb_change_tail(self.0, len, 0) == 0 }
    }

    #[inline(always)]
    fn store<T>(self, offset: u32, value: &T) -> bool {
        self.store_with(offset, value, 0)
    }

    #[inline(always)]
    fn store_summed<T>(self, offset: u32, value: &T) -> bool {
        self.store_with(offset, value, BPF_F_RECOMPUTE_CSUM as u64)
    }

    #[inline(always)]
    fn fix_l3_checksum(self, offset: u32, from: u32, to: u32) -> bool {
        // SAFETY: valid context.
        unsafe { helpers::bpf_l3_csum_replace(self.0, offset, from as u64, to as u64, 4) == 0 }
    }

    #[inline(always)]
    fn fix_l4_checksum(self, offset: u32, from: u64, to: u64, flags: u64) -> bool {
        // SAFETY: valid context.
        unsafe { helpers::bpf_l4_csum_replace(self.0, offset, from, to, flags) == 0 }
    }

    #[inline(always)]
    fn add_to_sum(self, difference: u64) {
        // SAFETY: valid context. An error says that there is no such sum.
        unsafe { helpers::bpf_csum_update(self.0, difference as u32) };
    }

    #[inline(always)]
    fn mtu_of(self, ifindex: u32) -> u32 {
        let mut mtu = 0;
        // SAFETY: valid context; the device's size is written to the stack, whatever the result.
        unsafe { helpers::bpf_check_mtu(self.0.cast(), ifindex, &mut mtu, 0, 0) };
        mtu
    }

    #[inline(always)]
    fn resize(self, len: u32) -> bool {
        // SAFETY: valid context.
        unsafe { helpers::bpf_skb_change_tail(self.0, len, 0) == 0 }
    }

    #[inline(always)]
    fn adjust_room(self, bytes: i32, flags: u64) -> bool {
        // SAFETY: valid context.
        unsafe { helpers::bpf_skb_adjust_room(self.0, bytes, AFTER_ETHERNET, flags) == 0 }
    }

    #[inline(always)]
    fn adjust_options(self, bytes: i32, flags: u64) -> bool {
        // SAFETY: valid context.
        unsafe { helpers::bpf_skb_adjust_room(self.0, bytes, AFTER_IP, flags) == 0 }
    }
}
