// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What the stages need of a packet, whatever hook it is seen at.

use abi::tuple::Tuple;

/// Where a packet comes from. A number and no enum: it stays in memory, of which the verifier knows nothing. Up to Linux 6.3 it can lose
/// track of a value that it does know while a function is called, and then leaves out branches that another value would take.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct From(u8);

impl From {
    /// A pod of this node.
    pub const POD: Self = Self(0);
    /// The host's stack; the packet is on its way through a pod's device.
    pub const STACK: Self = Self(1);
    /// Another node, through the tunnel.
    pub const TUNNEL: Self = Self(2);
    /// A native device.
    pub const DEVICE: Self = Self(3);
}

/// A packet, with bounds-checked access to its bytes. Offsets count from its first byte. Words need not be aligned: BPF loads
/// do not ask for it.
pub trait Packet: Copy {
    /// Interface on which the program runs.
    fn ifindex(self) -> u32;
    /// Interface that the packet came in by, or 0 when it was made on this node.
    fn arrived_by(self) -> u32;
    /// Length of the whole packet.
    fn len(self) -> u32;
    /// Length of the part that can be read directly.
    fn linear(self) -> u32;
    /// Whether a VLAN tag was taken off into metadata.
    fn has_vlan(self) -> bool;
    /// Bytes of payload per packet, if it stands for several packets that are cut up on their way out, else 0.
    fn batch_size(self) -> u32;
    /// A number that the packets of a flow have in common, which has that tuple.
    fn hash(self, tuple: &Tuple) -> u32;
    /// What helper functions take.
    fn context(self) -> *mut core::ffi::c_void;

    /// Reads a `T`, if the linear part holds one.
    fn read<T: Copy>(self, offset: usize) -> Option<T>;
    /// Writes a `T` into the linear part; false when the packet is too short.
    fn write<T: Copy>(self, offset: usize, value: T) -> bool;
    /// Makes the first `len` bytes linear, as far as there are so many. False when that fails.
    fn pull(self, len: u32) -> bool;
    /// Cuts the packet off after `len` bytes. False when it is not as long, or that fails.
    fn cut(self, len: u32) -> bool;
    /// Replaces bytes at any offset.
    fn store<T>(self, offset: u32, value: &T) -> bool;
    /// Replaces bytes for which no checksum within the packet makes up: the card's sum of the whole packet changes with them.
    fn store_summed<T>(self, offset: u32, value: &T) -> bool;
    /// Corrects an IPv4 header checksum for a 32-bit word that changed.
    fn fix_l3_checksum(self, offset: u32, from: u32, to: u32) -> bool;
    /// Corrects a transport checksum; `flags` as of `bpf_l4_csum_replace`, the size of the words included.
    fn fix_l4_checksum(self, offset: u32, from: u64, to: u64, flags: u64) -> bool;
    /// Adds to the sum that the card has made of the whole packet (`CHECKSUM_COMPLETE`), if it has.
    fn add_to_sum(self, difference: u64);
    /// Longest packet that a device takes, from the network header on.
    fn mtu_of(self, ifindex: u32) -> u32;
    /// Makes room for `bytes` after the Ethernet header, or takes them away when negative; `flags` as of `bpf_skb_adjust_room`.
    fn adjust_room(self, bytes: i32, flags: u64) -> bool;
    /// The same after the IP header without options and extensions.
    fn adjust_options(self, bytes: i32, flags: u64) -> bool;
    /// Makes the packet so long; what is added is zero.
    fn resize(self, len: u32) -> bool;
}
