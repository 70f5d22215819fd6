// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What a hook can do with a packet: at tc everything (`hook/tc.rs`), before the stack what goes through this node by one device
//! (`hook/early.rs`).

mod early;
mod tc;

use crate::packet::Packet;
use crate::pkt::Pkt;
use crate::scratch::Scratch;
use crate::verdict::{Stage, Verdict};
use abi::Addr;
use abi::config::NodeConfig;
use abi::flow::Flow;

/// A packet at a hook.
pub trait Hook: Packet {
    /// Whether the hook reaches who the flow is opened to. An error leaves the packet as it is to another hook.
    fn reaches(self, scratch: &Scratch) -> Stage;
    /// Whether the hook carries packets of that flow, of this one's direction and size. An error leaves it to another hook.
    fn carries(self, pkt: &mut Pkt, flow: &Flow) -> Stage;
    /// Out of a device, to the neighbour, or to where the kernel's routes lead when none is named.
    fn to_neighbour(self, ifindex: u32, hop: &Addr) -> Verdict;
    /// Into a pod, by the host's side of its device.
    fn to_pod(self, ifindex: u32) -> Verdict;
    /// Through the kernel's tunnel device, to that node.
    fn to_tunnel_device(self, node: &NodeConfig, peer: &Addr, sender: u32) -> Verdict;
}
