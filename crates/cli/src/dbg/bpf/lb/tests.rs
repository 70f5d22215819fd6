// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::indexing_slicing, reason = "tests")]
use super::*;
use abi::lb::{Affinity, AffinityKey, MAGLEV_PART, MaglevKey, MaglevPart, SlotKey, flags};
use abi::maps::Slots;
use datapath::LpmKey;
use datapath::fake::Kernel as Fake;

fn addr(text: &str) -> abi::Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn key(ip: &str, port: u16) -> ServiceKey {
    ServiceKey { addr: addr(ip), port: port.to_be(), proto: 6, scope: 0, pad: 0 }
}

fn text(entries: Entries) -> Vec<String> {
    entries.into_iter().map(|(k, v)| format!("{k} | {v}")).collect()
}

fn listed(kernel: &Fake, what: &What) -> Vec<String> {
    text(list(kernel, what).unwrap().1)
}

/// Two frontends, of which the first has two slots and one backend.
fn kernel() -> Fake {
    let kernel = Fake::new();
    let services = kernel.map::<Services>().unwrap();
    let first = key("10.96.0.1", 443);
    services.insert(&first, &Service { id: 3, count: 2, flags: flags::CLUSTER_IP, affinity: 0 }).unwrap();
    services.insert(&ServiceKey::mark(first.addr), &Service::MARK).unwrap();
    let flags = flags::LOAD_BALANCER | flags::EXPOSED | flags::SOURCE_RANGES | flags::DENY_RANGES | flags::MAGLEV;
    services.insert(&key("2001:db8::1", 80), &Service { id: 4, count: 0, flags, affinity: 9 }).unwrap();
    kernel.map::<Slots>().unwrap().insert(&SlotKey { service: 3, slot: 0 }, &77).unwrap();
    let backend = |state| Backend { addr: addr("fd00::1"), port: 6443_u16.to_be(), proto: 6, state, pad: 0 };
    let backends = kernel.map::<Backends>().unwrap();
    backends.insert(&77, &backend(state::ACTIVE)).unwrap();
    backends.insert(&9, &backend(state::TERMINATING)).unwrap();
    kernel
}

#[test]
fn a_frontend_is_followed_by_its_slots_and_the_mark_of_its_address_is_not_shown() {
    let heads = [
        "10.96.0.1:443/TCP (0) | 0.0.0.0:0 (3) (0) [ClusterIP, non-routable]",
        "[2001:db8::1]:80/TCP (0) | [::]:0 (4) (0) [LoadBalancer, sessionAffinity, check source-range, deny, maglev]",
    ];
    let slots =
        ["10.96.0.1:443/TCP (1) | [fd00::1]:6443/TCP (3) (1)", "10.96.0.1:443/TCP (2) | slot not found (3) (2)"];
    let kernel = kernel();
    assert_eq!(listed(&kernel, &What::default()), [heads[0], slots[0], slots[1], heads[1]]);
    assert_eq!(listed(&kernel, &What { frontends: true, ..What::default() }), heads);
}

#[test]
fn each_map_is_listed_by_itself() {
    let kernel = kernel();
    let backends = listed(&kernel, &What { backends: true, ..What::default() });
    assert_eq!(backends, ["9 | [fd00::1]:6443/TCP (terminating)", "77 | [fd00::1]:6443/TCP"]);
    let revnat = listed(&kernel, &What { revnat: true, ..What::default() });
    assert_eq!(revnat, ["3 | 10.96.0.1:443", "4 | [2001:db8::1]:80"]);
}

#[test]
fn source_ranges_say_whether_they_let_in_or_refuse() {
    let kernel = kernel();
    let range = |service, denied, client: &str, bits: u32| {
        let key = SourceRangeKey::new(service, denied, addr(client).octets());
        kernel.trie::<SourceRanges>().unwrap().insert(&LpmKey::new(32 + bits, key), &1).unwrap();
    };
    range(3, false, "10.1.0.0", 96 + 16);
    range(4, true, "fd00::", 64);
    range(5, false, "fd01::", 64);
    let rows = listed(&kernel, &What { source_ranges: true, ..What::default() });
    let all = [
        "10.1.0.0/16 | 10.96.0.1:443/TCP (3)",
        "fd00::/64 | [2001:db8::1]:80/TCP (4) (refused)",
        "fd01::/64 | not found (5)",
    ];
    assert_eq!(rows, all);
}

#[test]
fn lookup_tables_are_listed_and_one_that_is_not_there_is_an_error() {
    let kernel = kernel();
    let mut part = MaglevPart { backends: [[0; 16]; MAGLEV_PART / 16] };
    part.backends[0][0] = 77;
    part.backends[0][1] = 9;
    kernel.map::<Maglev>().unwrap().insert(&MaglevKey { service: 4, part: 0 }, &part).unwrap();
    assert_eq!(text(maglev(&kernel, None).unwrap()), ["4 | [77, 9]"]);
    assert_eq!(text(maglev(&kernel, Some(4)).unwrap()), ["4 | [77, 9]"]);
    assert!(maglev(&kernel, Some(3)).is_err());
}

#[test]
fn a_client_with_affinity_is_an_address_or_a_network_namespace() {
    let kernel = kernel();
    let affinities = kernel.map::<Affinities>().unwrap();
    let value = Affinity { backend: 77, last_used: 1 };
    affinities.insert(&AffinityKey { client: addr("192.0.2.1"), service: 4, is_cookie: 0 }, &value).unwrap();
    let cookie = abi::Addr { hi: 0, lo: 12 };
    affinities.insert(&AffinityKey { client: cookie, service: 3, is_cookie: 1 }, &value).unwrap();
    assert_eq!(text(affinity(&kernel).unwrap()), ["3 netns 12 | 77", "4 192.0.2.1 | 77"]);
}
