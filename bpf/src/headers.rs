// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Headers that the programs write themselves, as they lie in the packet, and their checksums (RFC 1071).

use abi::Addr;
use aya_ebpf::helpers::generated::bpf_csum_diff;

/// IPv4 without options (RFC 791).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version: u8,
    pub tos: u8,
    pub len: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub proto: u8,
    pub checksum: u16,
    pub src: u32,
    pub dst: u32,
}

/// IPv6 (RFC 8200, 3).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub class: u32,
    pub len: u16,
    pub next: u8,
    pub ttl: u8,
    pub src: Addr,
    pub dst: Addr,
}

/// Hardware addresses, as they lie in a frame.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Macs {
    /// Of the neighbour.
    pub dst: [u16; 3],
    /// Of this node's device.
    pub src: [u16; 3],
}

const _: () = assert!(size_of::<Ipv4>() == 20 && size_of::<Ipv6>() == 40);

impl Ipv4 {
    /// The header checksum.
    #[inline(always)]
    pub fn sum(&self) -> u16 {
        let words = |word: u32| (word & 0xffff) + (word >> 16);
        fold(
            u16::from_ne_bytes([self.version, self.tos]) as u32
                + self.len as u32
                + self.id as u32
                + self.fragment as u32
                + u16::from_ne_bytes([self.ttl, self.proto]) as u32
                + words(self.src)
                + words(self.dst),
        )
    }
}

/// The sum of whole words, and of what has been summed up before.
#[inline(always)]
pub fn sum<T>(words: &T, before: u32) -> u32 {
    // SAFETY: it is that many readable bytes, which are read only.
    unsafe {
        let from = core::ptr::from_ref(words).cast_mut().cast();
        bpf_csum_diff(core::ptr::null_mut(), 0, from, size_of::<T>() as u32, before) as u32
    }
}

/// The sum of an address, not yet carried over: without a call of the kernel, which costs more than the sum.
#[inline(always)]
const fn words(addr: Addr) -> u64 {
    (addr.hi & u32::MAX as u64) + (addr.hi >> 32) + (addr.lo & u32::MAX as u64) + (addr.lo >> 32)
}

/// Carries over what is beyond 32 bits.
#[inline(always)]
const fn carried(sum: u64) -> u32 {
    let sum = (sum & u32::MAX as u64) + (sum >> 32);
    ((sum & u32::MAX as u64) + (sum >> 32)) as u32
}

/// What a sum changes by when one address takes the place of another.
#[inline(always)]
pub const fn difference(from: Addr, to: Addr) -> u32 {
    carried(words(to) + words(Addr { hi: !from.hi, lo: !from.lo }))
}

/// The sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1). The words of an IPv4 address that are no part of it sum up to nothing.
#[inline(always)]
pub const fn pseudo_header(src: Addr, dst: Addr, len: u32, proto: u8) -> u32 {
    carried(words(src) + words(dst) + len.to_be() as u64 + (proto as u16).to_be() as u64)
}

/// A checksum after a word that it covers has changed, all in memory order (RFC 1624).
#[inline(always)]
pub fn corrected(checksum: u16, from: u32, to: u32) -> u16 {
    fold(carried(!(checksum as u32) as u64 + !from as u64 + to as u64))
}

/// The checksum of a sum, both in memory order.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
