// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Every map, declared once. The kernel side builds its statics from these markers, user space opens maps by them, so
//! that a wrong key or value type does not compile.

use crate::{Addr, config, endpoint, epoch, event, flow, ipcache, lb, metrics, policy};

/// What kind of map it is, by the kernel's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash,
    /// `BPF_MAP_TYPE_LPM_TRIE`: the key is preceded by its prefix length.
    LpmTrie,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray,
    /// `BPF_MAP_TYPE_RINGBUF`: capacity in bytes.
    RingBuf,
}

/// A map of the datapath.
pub trait MapDef: 'static {
    /// Name in the object, in the kernel and of the pin.
    const NAME: &'static str;
    /// Kind.
    const KIND: MapKind;
    /// Capacity in entries (bytes for a ring buffer), unless it is sized at load.
    const CAPACITY: u32;
    /// Key; of a trie, without the prefix length.
    type Key: Copy + core::fmt::Debug + Send + Sync + 'static;
    /// Value (of one processor).
    type Value: Copy + core::fmt::Debug + Send + Sync + 'static;
}

/// What there is to say of a map without its types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub kind: MapKind,
    /// Type of the key.
    pub key: &'static str,
    /// Size of a key in bytes, with the prefix length of a trie.
    pub key_size: usize,
    /// Type of the value.
    pub value: &'static str,
    /// Size of a value (of one processor) in bytes.
    pub value_size: usize,
    /// Capacity.
    pub capacity: u32,
    /// What it is for.
    pub purpose: &'static str,
}

macro_rules! maps {
    ($(#[doc = $purpose:literal] $name:ident = $text:literal, $kind:ident, $capacity:expr, $key:ty => $value:ty;)+) => {
        $(
            #[doc = $purpose]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl MapDef for $name {
                const NAME: &'static str = $text;
                const KIND: MapKind = MapKind::$kind;
                const CAPACITY: u32 = $capacity;
                type Key = $key;
                type Value = $value;
            }
        )+

        /// Every map.
        pub const ALL: &[Facts] = &[$(Facts {
            name: $text,
            kind: MapKind::$kind,
            key: stringify!($key),
            key_size: core::mem::size_of::<$key>() + if matches!(MapKind::$kind, MapKind::LpmTrie) { 4 } else { 0 },
            value: stringify!($value),
            value_size: core::mem::size_of::<$value>(),
            capacity: $capacity,
            purpose: $purpose.trim_ascii(),
        }),+];
    };
}

maps! {
    /// Local pods by interface index of the host side.
    Endpoints = "cilium_endpoints", Hash, 4096, u32 => endpoint::Endpoint;
    /// Local pods, and the node's own addresses, by address.
    Locals = "cilium_lxc", Hash, 16384, Addr => endpoint::Endpoint;
    /// What decisions depend on, by the slots of the module `epoch`: a flow that was decided under another epoch is decided anew.
    Epochs = "cilium_epochs", Array, epoch::SLOTS, u32 => u32;
    /// Facts of the node; one entry.
    Node = "cilium_node", Array, 1, u32 => config::NodeConfig;
    /// Flows; sized at load.
    Flows = "cilium_flows", LruHash, 131_072, flow::FlowKey => flow::FlowEntry;
    /// Ports of fragmented datagrams, learnt from their first fragment.
    Fragments = "cilium_fragments", LruHash, 8192, FragmentKey => FragmentPorts;
    /// Identity of IPv4 prefixes.
    Ipcache4 = "cilium_ipcache4", LpmTrie, 512_000, ipcache::Key4 => ipcache::IpcacheEntry;
    /// Identity of IPv6 prefixes.
    Ipcache6 = "cilium_ipcache6", LpmTrie, 512_000, ipcache::Key6 => ipcache::IpcacheEntry;
    /// Compiled policies, all in one trie: memory is used as entries are made.
    Policies = "cilium_policy", LpmTrie, 4_194_304, policy::PolicyKey => policy::PolicyEntry;
    /// Frontends.
    Services = "cilium_lb_services", Hash, 262_144, lb::ServiceKey => lb::Service;
    /// Slots: which backend.
    Slots = "cilium_lb_slots", Hash, 1_048_576, lb::SlotKey => u32;
    /// Backends by id.
    Backends = "cilium_lb_backends", Hash, 262_144, u32 => lb::Backend;
    /// Sockets that talk to a backend by the name of a service.
    ReverseSockets = "cilium_lb_reverse_sk", LruHash, 65536, lb::ReverseKey => lb::ReverseEntry;
    /// Packet counters, by `metrics::slot`.
    Metrics = "cilium_metrics", PerCpuArray, 1024, u32 => metrics::MetricsValue;
    /// Events that found the ring buffer full; one entry.
    EventsLost = "cilium_events_lost", PerCpuArray, 1, u32 => u64;
    /// Events to user space.
    Events = "cilium_events", RingBuf, 1_048_576, () => event::Event;
}

layout! {
    /// A fragmented datagram (RFC 791, RFC 8200 4.5).
    pub struct FragmentKey (40) {
        /// Source address.
        pub src: Addr,
        /// Destination address.
        pub dst: Addr,
        /// Identification field.
        pub id: u32,
        /// IP protocol number.
        pub proto: u8,
        /// Zero.
        pub pad: [u8; 3],
    }
}

layout! {
    /// Its ports, in network order.
    pub struct FragmentPorts (4) {
        /// Source port.
        pub sport: u16,
        /// Destination port.
        pub dport: u16,
    }
}
