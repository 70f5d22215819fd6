// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Asking the kernel's routing table.

use crate::ctx::Skb;
use crate::parse::Pkt;
use abi::Addr;
use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup};
use aya_ebpf::helpers::generated;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The device that leads to the destination, or 0 when the kernel would not forward the packet.
#[inline(never)]
pub fn device(skb: Skb, pkt: &Pkt, dst: &Addr) -> u32 {
    // SAFETY: all-zero is valid.
    let mut params: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    params.ifindex = skb.ifindex();
    params.l4_protocol = pkt.key.proto;
    if pkt.family == 4 {
        params.family = AF_INET;
        params.__bindgen_anon_3.ipv4_src = pkt.key.src.v4_be();
        params.__bindgen_anon_4.ipv4_dst = dst.v4_be();
    } else {
        params.family = AF_INET6;
        // SAFETY: the unions' IPv6 members are sixteen bytes.
        unsafe {
            core::ptr::from_mut(&mut params.__bindgen_anon_3).cast::<[u32; 4]>().write(words(pkt.key.src));
            core::ptr::from_mut(&mut params.__bindgen_anon_4).cast::<[u32; 4]>().write(words(*dst));
        }
    }
    // SAFETY: valid context and parameters of the stated size.
    let result = unsafe { generated::bpf_fib_lookup(skb.0.cast(), &mut params, size_of::<bpf_fib_lookup>() as i32, 0) };
    match result as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => params.ifindex,
        _ => 0,
    }
}

#[inline(always)]
const fn words(addr: Addr) -> [u32; 4] {
    [addr.hi as u32, (addr.hi >> 32) as u32, addr.lo as u32, (addr.lo >> 32) as u32]
}
