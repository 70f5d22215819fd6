// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Working memory of the slow path: what the stages have found out about the packet so far.

use crate::epochs;
use crate::headers::Macs;
use crate::packet::From;
use crate::pkt::Pkt;
use abi::Addr;
use abi::endpoint::Endpoint;
use abi::event::Verdict;
use abi::flow::{Flow, FlowKey};
use abi::tuple::Tuple;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

/// One end of a flow, as far as it concerns this node.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Party {
    /// Security identity.
    pub identity: u32,
    /// Compiled policy, of a local endpoint.
    pub policy: u32,
    /// Interface of a local endpoint, else 0.
    pub ifindex: u32,
    /// Id of a local endpoint, else 0.
    pub id: u16,
    /// `abi::endpoint::flags` of a local endpoint.
    pub flags: u16,
    /// Where packets to a local endpoint go: a `Half::hop` of hardware addresses.
    pub macs: Addr,
}

impl Party {
    /// A pod of this node.
    #[inline(always)]
    pub fn local(pod: &Endpoint) -> Self {
        let [a, b, c, d, e, f] = pod.mac;
        let [g, h, i, j, k, l] = pod.host_mac;
        let macs =
            Addr { hi: u64::from_ne_bytes([a, b, c, d, e, f, g, h]), lo: u64::from_ne_bytes([i, j, k, l, 0, 0, 0, 0]) };
        Self { identity: pod.identity, policy: pod.policy, ifindex: pod.ifindex, id: pod.id, flags: pod.flags, macs }
    }

    /// Somebody else.
    #[inline(always)]
    pub fn remote(identity: u32) -> Self {
        Self { identity, policy: 0, ifindex: 0, id: 0, flags: 0, macs: Addr::NONE }
    }
}

/// The slow path's notes. One per processor: tc programs are not preempted by each other.
#[repr(C)]
pub struct Scratch {
    /// The decision.
    pub flow: Flow,
    /// Who sends this packet.
    pub sender: Party,
    /// Who opened the flow: the sender, or the receiver of a reply.
    pub opener: Party,
    /// Who was opened to.
    pub target: Party,
    /// What egress policy said.
    pub egress: Verdict,
    /// What ingress policy said.
    pub ingress: Verdict,
    /// `abi::lb::flags` of the service that the flow is opened to.
    pub service: u32,
    /// Bits: [`IS_REPLY`] and so on.
    pub notes: u32,
    /// [`abi::epoch::GENERATION`] before anything was looked up.
    pub generation: u32,
    /// Destination port after service translation.
    pub dport: u16,
    /// ICMP type that policy is asked about.
    pub icmp_type: u8,
    /// 4 or 6.
    pub family: u8,
    // What follows is of an earlier packet until a stage has written it.
    /// What was remembered of the flow before, unless `created` is 0.
    pub known: Flow,
    /// Key of the flow's record.
    pub key: FlowKey,
    /// Key of the alias that has been written, if [`HAS_ALIAS`].
    pub alias_key: FlowKey,
    /// That alias.
    pub alias: Flow,
    /// The flow whose place in its endpoint's ring this one has taken, unless `proto` is 0.
    pub oldest: FlowKey,
    /// The tuple that replies have on arrival.
    pub answer: Tuple,
    /// The tuple of the packet that an ICMP error quotes.
    pub quoted: Tuple,
    /// Where that packet's transport header begins.
    pub quoted_l4: u32,
    /// The flow's forward direction, as its opener sends it.
    pub tuple: Tuple,
    /// Destination after service translation.
    pub dst: Addr,
}

/// The packet is of the reply direction.
pub const IS_REPLY: u32 = 1;
/// The destination is an address of this node.
pub const DST_IS_HOST: u32 = 2;
/// The destination's entry asks not to masquerade.
pub const NO_MASQUERADE: u32 = 4;
/// The decision holds for this packet alone.
pub const NOT_REMEMBERED: u32 = 8;
/// An alias has been written for this flow, under `alias`.
pub const HAS_ALIAS: u32 = 16;
/// A new connection takes the place of the record `known`, which goes.
pub const REPLACES: u32 = 32;
/// There was no room for the flow's alias.
pub const TABLE_FULL: u32 = 64;
/// Nobody serves at the destination: if it is an address of services, nothing is there.
pub const NO_SERVICE: u32 = 128;

impl Scratch {
    /// Whether a note is made.
    #[inline(always)]
    pub fn notes(&self, note: u32) -> bool {
        self.notes & note != 0
    }

    /// Whether the flow goes through this node: somebody outside opens it, to a backend that is no pod of this node.
    #[inline(always)]
    pub fn passes_through(&self) -> bool {
        self.opener.id == 0 && self.target.id == 0
    }

    /// Whether a pod is its own backend.
    #[inline(always)]
    pub fn comes_back(&self) -> bool {
        self.opener.id != 0 && self.opener.id == self.target.id
    }

    /// Whether the flow had a record that goes on.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        self.known.created != 0 && !self.notes(REPLACES)
    }
}

/// The packet and the notes about it.
///
/// The packet is here, and not on the stack, since the verifier knows nothing of what this memory holds: otherwise it would walk
/// through every stage once for each way in which a packet can have been parsed.
#[repr(C)]
pub struct Notes {
    /// The packet.
    pub pkt: Pkt,
    /// What the slow path has found out about it.
    pub scratch: Scratch,
    /// The hardware addresses that it leaves with, where no stack finds them.
    pub macs: Macs,
}

#[map(name = "cilium_scratch")]
static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// This processor's notes, for a packet that comes from there.
#[inline(always)]
pub fn begin(from: From, origin: u32) -> Option<&'static mut Notes> {
    // SAFETY: the map value is this processor's alone while the program runs; it holds plain values only.
    let notes = unsafe { &mut *NOTES.get_ptr_mut(0)? };
    notes.pkt = Pkt::new(origin, from);
    Some(notes)
}

impl Notes {
    /// Wipes the slow path's notes: as much of them as stages read that need not have been written.
    #[inline(always)]
    pub fn wipe(&mut self) {
        // SAFETY: these are plain values, for which all-zero is valid.
        unsafe { core::ptr::write_bytes((&raw mut self.scratch).cast::<u64>(), 0, WIPED / 8) };
        self.scratch.known.created = 0;
        self.scratch.oldest.proto = 0;
        self.scratch.generation = epochs::generation();
    }
}

/// This processor's notes about the packet at hand.
#[inline(always)]
pub fn present() -> Option<&'static mut Notes> {
    // SAFETY: as in `begin`.
    NOTES.get_ptr_mut(0).map(|notes| unsafe { &mut *notes })
}

/// Bytes of [`Scratch`] that are wiped.
const WIPED: usize = core::mem::offset_of!(Scratch, known);
const _: () = assert!(WIPED % 8 == 0);
