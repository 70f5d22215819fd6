// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Every map of the datapath, on one page. Types and capacities come from the markers in `abi::maps`; user space pins
//! the maps and checks that they agree with the markers.

use abi::event::Event;
use abi::maps::{self, MapDef};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{ArrayOfMaps, RingBuf, SkStorage};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};

type Key<M> = <M as MapDef>::Key;
type Value<M> = <M as MapDef>::Value;

/// Memory is used as entries are made, so that a high capacity costs nothing.
const ON_DEMAND: u32 = BPF_F_NO_PREALLOC;

macro_rules! datapath_maps {
    ($($name:literal $global:ident = $kind:ident<$marker:ident>, $flags:expr;)+) => {
        $(
            #[map(name = $name)]
            pub static $global: datapath_maps!(@type $kind, $marker) =
                $kind::pinned(maps::$marker::CAPACITY, $flags);
        )+
    };
    (@type Array, $marker:ident) => { Array<Value<maps::$marker>> };
    (@type PerCpuArray, $marker:ident) => { PerCpuArray<Value<maps::$marker>> };
    (@type $kind:ident, $marker:ident) => { $kind<Key<maps::$marker>, Value<maps::$marker>> };
}

datapath_maps! {
    "cilium_endpoints" ENDPOINTS = HashMap<Endpoints>, ON_DEMAND;
    "cilium_lxc" LOCALS = HashMap<Locals>, ON_DEMAND;
    "cilium_epochs" EPOCHS = Array<Epochs>, 0;
    "cilium_node" NODE = Array<Node>, 0;
    "cilium_devices" DEVICES = HashMap<Devices>, ON_DEMAND;
    "cilium_flows" FLOWS = HashMap<Flows>, 0;
    "cilium_openings" OPENINGS = Array<Openings>, 0;
    "cilium_open_next" OPENINGS_NEXT = Array<OpeningsNext>, 0;
    "cilium_fragments" FRAGMENTS = Array<Fragments>, 0;
    "cilium_ipcache4" IPCACHE4 = LpmTrie<Ipcache4>, ON_DEMAND;
    "cilium_ipcache6" IPCACHE6 = LpmTrie<Ipcache6>, ON_DEMAND;
    "cilium_policy" POLICIES = LpmTrie<Policies>, ON_DEMAND;
    "cilium_lb_services" SERVICES = HashMap<Services>, ON_DEMAND;
    "cilium_lb_slots" SLOTS = HashMap<Slots>, ON_DEMAND;
    "cilium_lb_backends" BACKENDS = HashMap<Backends>, ON_DEMAND;
    "cilium_lb_backend_ids" BACKEND_IDS = HashMap<BackendIds>, ON_DEMAND;
    "cilium_lb_source_range" SOURCE_RANGES = LpmTrie<SourceRanges>, ON_DEMAND;
    "cilium_lb_affinity" AFFINITIES = LruHashMap<Affinities>, 0;
    "cilium_lb_maglev" MAGLEV = HashMap<Maglev>, ON_DEMAND;
    "cilium_lb_reverse_sk" REVERSE_SOCKETS = LruHashMap<ReverseSockets>, 0;
    "cilium_lb_told_sk" SOCKETS_TOLD = Array<SocketsTold>, 0;
    "cilium_answered" ANSWERED = Array<Answered>, 0;
    "cilium_l2_responder" ANNOUNCED = HashMap<Announced>, ON_DEMAND;
    "cilium_metrics" METRICS = PerCpuArray<Metrics>, 0;
    "cilium_events_lost" EVENTS_LOST = PerCpuArray<EventsLost>, 0;
}

/// A ring of events. User space makes them, and as many as it finds processors for: the sizes here are of no consequence.
pub type EventRing = RingBuf<Event, { maps::Events::CAPACITY as usize }>;

#[btf_map(name = "cilium_events")]
pub static EVENTS: ArrayOfMaps<EventRing, 1> = ArrayOfMaps::new();

#[btf_map(name = "cilium_lb_connected")]
pub static CONNECTED: SkStorage<Value<maps::ConnectedSockets>> = SkStorage::new();
