// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Every map, declared once. The kernel side builds its statics from these markers, user space opens maps by them, so
//! that a wrong key or value type does not compile.

use crate::{
    Addr, config, endpoint, epoch, event, flow, fragments, ipcache, l2, lb, limit, metrics, policy, rings, told,
};

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
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS` of ring buffers, by processor: capacity in bytes of all of them together.
    PerCpuRingBuf,
    /// `BPF_MAP_TYPE_SK_STORAGE`: values are in the sockets themselves, so there is no capacity, and nothing is left of a socket that
    /// goes. User space names a socket by a descriptor of its own, and cannot list them.
    SkStorage,
}

/// A map of the datapath.
pub trait MapDef: 'static {
    /// Name in the object, in the kernel and of the pin.
    const NAME: &'static str;
    /// Version of the layout; each map has its own, and a later one a pin of its own.
    const VERSION: u32;
    /// Kind.
    const KIND: MapKind;
    /// Capacity in entries (bytes for ring buffers, 0 for storage in sockets), unless it is sized at load.
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
    /// Version of the layout.
    pub version: u32,
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
    ($(#[doc = $purpose:literal] $name:ident = $text:literal v $version:literal, $kind:ident, $capacity:expr, $key:ty => $value:ty;)+) => {
        $(
            #[doc = $purpose]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl MapDef for $name {
                const NAME: &'static str = $text;
                const VERSION: u32 = $version;
                const KIND: MapKind = MapKind::$kind;
                const CAPACITY: u32 = $capacity;
                type Key = $key;
                type Value = $value;
            }
        )+

        /// Every map.
        pub const ALL: &[Facts] = &[$(Facts {
            name: $text,
            version: $version,
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
    Endpoints = "cilium_endpoints" v 1, Hash, 4096, u32 => endpoint::Endpoint;
    /// Local pods, and the node's own addresses, by address.
    Locals = "cilium_lxc" v 1, Hash, 16384, Addr => endpoint::Endpoint;
    /// What decisions depend on, by the slots of the module `epoch`: a flow that was decided under another epoch is decided anew.
    Epochs = "cilium_epochs" v 1, Array, epoch::SLOTS, u32 => u32;
    /// Facts of the node; one entry.
    Node = "cilium_node" v 2, Array, 1, u32 => config::NodeConfig;
    /// Native devices by interface index.
    Devices = "cilium_devices" v 1, Hash, 256, u32 => config::Device;
    /// Flows; sized at load.
    Flows = "cilium_flows" v 3, Hash, 131_072, flow::FlowKey => flow::Flow;
    /// The latest flows of each endpoint and frontend, in rings ([`crate::rings`]): one that nobody has answered makes room for the next; sized at load.
    Openings = "cilium_openings" v 3, Array, rings::RINGS_AND_STACK * 512, u32 => flow::FlowKey;
    /// Where the next entry of each ring goes, and of their stack.
    OpeningsNext = "cilium_open_next" v 3, Array, rings::COUNT + 1, u32 => u32;
    /// What later fragments of a datagram lack, learnt from the first one ([`crate::fragments`]).
    Fragments = "cilium_fragments" v 3, Array, fragments::ALL, u32 => fragments::Fragmented;
    /// Identity of IPv4 prefixes.
    Ipcache4 = "cilium_ipcache4" v 1, LpmTrie, 512_000, ipcache::Key4 => ipcache::IpcacheEntry;
    /// Identity of IPv6 prefixes.
    Ipcache6 = "cilium_ipcache6" v 1, LpmTrie, 512_000, ipcache::Key6 => ipcache::IpcacheEntry;
    /// Compiled policies, all in one trie: memory is used as entries are made.
    Policies = "cilium_policy" v 1, LpmTrie, 4_194_304, policy::PolicyKey => policy::PolicyEntry;
    /// Frontends.
    Services = "cilium_lb_services" v 1, Hash, 262_144, lb::ServiceKey => lb::Service;
    /// Slots: which backend.
    Slots = "cilium_lb_slots" v 1, Hash, 1_048_576, lb::SlotKey => u32;
    /// Backends by id.
    Backends = "cilium_lb_backends" v 1, Hash, 262_144, u32 => lb::Backend;
    /// Ids of backends by address and port, and of a service's by address alone, where they answer clients themselves (direct server return).
    BackendIds = "cilium_lb_backend_ids" v 1, Hash, 262_144, lb::BackendKey => u32;
    /// Clients that a service admits, or refuses.
    SourceRanges = "cilium_lb_source_range" v 1, LpmTrie, 262_144, lb::SourceRangeKey => u32;
    /// Where clients of services with session affinity went last.
    Affinities = "cilium_lb_affinity" v 1, LruHash, 65536, lb::AffinityKey => lb::Affinity;
    /// Lookup tables of services that choose backends by Maglev, in parts.
    Maglev = "cilium_lb_maglev" v 1, Hash, 1_048_576, lb::MaglevKey => lb::MaglevPart;
    /// Sockets that are connected to a backend by the name of a service; kept in the sockets themselves, without a limit.
    ConnectedSockets = "cilium_lb_connected" v 1, SkStorage, 0, i32 => lb::Connected;
    /// Unconnected sockets that send to backends by the names of services.
    ReverseSockets = "cilium_lb_reverse_sk" v 1, LruHash, 65536, lb::ReverseKey => lb::ReverseEntry;
    /// Which translations of sockets user space was told of lately ([`crate::told`]).
    SocketsTold = "cilium_lb_told_sk" v 1, Array, told::SLOTS, u32 => told::Told;
    /// How many packets of late the programs have answered with an error, by the sender ([`crate::limit`]).
    Answered = "cilium_answered" v 1, Array, limit::SLOTS, u32 => limit::Answered;
    /// Addresses of Services that this node announces on the link.
    Announced = "cilium_l2_responder" v 1, Hash, 65536, l2::AnnouncedKey => l2::Announced;
    /// Packet counters, by `metrics::slot`.
    Metrics = "cilium_metrics" v 1, PerCpuArray, 1024, u32 => metrics::MetricsValue;
    /// Events that found their ring full; one entry.
    EventsLost = "cilium_events_lost" v 1, PerCpuArray, 1, u32 => u64;
    /// Events to user space, in rings by processor: eight at most, which further processors share. They divide the capacity, but none has less than 256 KiB.
    Events = "cilium_events" v 2, PerCpuRingBuf, 1_048_576, u32 => event::Event;
}
