// SPDX-License-Identifier: Apache-2.0
//! Addresses of Services, announced on the link.

use crate::world::{World, eventually, settle};
use abi::l2::AnnouncedKey;
use abi::maps;
use datapath::Wire;
use datapath::netlink::LinkChange;
use std::net::IpAddr;
use std::time::Duration;

const LEASE: &str = "default/cilium-l2announce-shop-web";

/// A Service with an address, and a policy that announces it.
const WEB: &str = "
kind: Service
metadata: {name: web, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {type: LoadBalancer, clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{port: 80, protocol: TCP}], selector: {app: web}}
status: {loadBalancer: {ingress: [{ip: 192.168.0.240}]}}
---
kind: CiliumL2AnnouncementPolicy
metadata: {name: all}
spec: {loadBalancerIPs: true, interfaces: ['^eth[0-9]+']}
";

const KEYS: [(&str, &str); 4] = [
    ("enable-l2-announcements", "true"),
    ("l2-announcements-lease-duration", "3s"),
    ("l2-announcements-renew-deadline", "1s"),
    ("l2-announcements-retry-period", "500ms"),
];

fn address() -> IpAddr {
    "192.168.0.240".parse().unwrap()
}

/// Whether the programs of the node answer for the address on its device.
async fn answers(world: &World) -> bool {
    let device = world.node.network.netlink().link("eth0").await.unwrap().unwrap().index;
    let map = world.node.maps.map::<maps::Announced>().unwrap();
    let entry = map.get(&AnnouncedKey::new(address().into(), device)).unwrap();
    entry.is_some_and(|entry| world.node.wire.since_boot().as_nanos() < u128::from(entry.until))
}

fn holder(world: &World) -> String {
    let lease = world.api.get("leases", LEASE).unwrap_or_default();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

async fn set_carrier(world: &World, name: &str, up: bool) {
    let netlink = world.node.network.netlink();
    let device = netlink.link(name).await.unwrap().unwrap().index;
    netlink.change_link(device, LinkChange { up: Some(up), ..LinkChange::default() }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_address_is_answered_for_while_a_policy_a_device_and_the_agent_want_it() {
    let mut world = World::new().await.with_keys(KEYS);
    world.api.apply(WEB);
    world.start_ready().await;
    eventually("the address to be answered for", async || answers(&world).await).await;
    assert_eq!(holder(&world), "node1");
    settle().await;
    assert!(answers(&world).await, "it is renewed");
    let told = world.node.wire.announced();
    assert_eq!(told.iter().filter(|(_, _, told)| *told == address()).count(), 3, "{told:?}");

    set_carrier(&world, "eth0", false).await;
    eventually("nobody to answer on a dead link", async || !answers(&world).await && holder(&world).is_empty()).await;
    set_carrier(&world, "eth0", true).await;
    eventually("the address to be answered for again", async || answers(&world).await).await;

    world.api.delete("ciliuml2announcementpolicies", "all");
    eventually("nobody to answer without a policy", async || !answers(&world).await && holder(&world).is_empty()).await;
    world.api.apply(WEB);
    eventually("the address to be answered for", async || answers(&world).await).await;
    settle().await;

    world.kill().await;
    assert!(!answers(&world).await, "who stops falls silent");
    assert_eq!(holder(&world), "", "and gives the lease back");
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_over_from_another_and_never_do_both_answer() {
    let mut first = World::new().await.with_keys(KEYS);
    let mut second = World::joining(&first).await.with_keys(KEYS);
    first.api.apply(WEB);
    first.start_ready().await;
    second.start_ready().await;
    eventually("one to answer", async || answers(&first).await || answers(&second).await).await;
    for _ in 0..4 {
        let of_first = holder(&first) == "node1";
        let (going, staying) = if of_first { (&mut first, &second) } else { (&mut second, &first) };
        settle().await;
        assert!(answers(going).await && !answers(staying).await);
        going.kill().await;
        eventually("the other to answer", async || {
            assert!(!answers(going).await || !answers(staying).await, "both answer");
            answers(staying).await
        })
        .await;
        going.start_ready().await;
        settle().await;
        assert!(!answers(going).await && answers(staying).await, "nothing moves back");
    }
}

#[tokio::test(start_paused = true)]
async fn who_loses_one_of_two_devices_leaves_the_lease_to_a_node_that_has_both() {
    let two = [("devices", "eth0 eth1")];
    let mut first = World::new().await.with_keys(KEYS).with_keys(two);
    let mut second = World::joining(&first).await.with_keys(KEYS).with_keys(two);
    for (world, number) in [(&first, 1), (&second, 2)] {
        let address = format!("172.16.0.{number}/24").parse().unwrap();
        world.node.network.add_device("eth1", &[address]).await.unwrap();
    }
    first.api.apply(WEB);
    first.start_ready().await;
    eventually("one to answer", async || answers(&first).await).await;
    second.start_ready().await;
    settle().await;
    let notes = first.api.get("leases", LEASE).unwrap()["metadata"]["annotations"].clone();
    assert_eq!(notes, serde_json::json!({"l2.cilium.io/addresses": "192.168.0.240"}));
    set_carrier(&first, "eth1", false).await;
    eventually("the other to answer", async || {
        assert!(!answers(&first).await || !answers(&second).await, "both answer");
        answers(&second).await
    })
    .await;
    set_carrier(&first, "eth1", true).await;
    settle().await;
    assert!(!answers(&first).await && answers(&second).await, "nothing moves back");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_begins_when_the_oldest_service_is_gone_waits_for_who_answers_under_its_lease() {
    let mut world = World::new().await.with_keys(KEYS);
    world.api.apply(WEB);
    world.api.apply(
        "kind: Lease\nmetadata: {name: cilium-l2announce-shop-gone, namespace: default, annotations: {l2.cilium.io/addresses: 192.168.0.240}}\n\
         spec: {holderIdentity: cut-off, leaseDurationSeconds: 3}",
    );
    let started = tokio::time::Instant::now();
    world.start_ready().await;
    eventually("the address to be answered for", async || answers(&world).await).await;
    assert!(started.elapsed() >= Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_takes_the_answer_away_in_time_and_gives_it_back() {
    let mut world = World::new().await.with_keys(KEYS);
    world.api.apply(WEB);
    world.start_ready().await;
    eventually("the address to be answered for", async || answers(&world).await).await;
    world.api.set_mood(crate::apiserver::Mood::Hanging);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!answers(&world).await, "another may hold the lease from now on");
    world.api.set_mood(crate::apiserver::Mood::Well);
    eventually("the address to be answered for again", async || answers(&world).await).await;
}

#[tokio::test(start_paused = true)]
async fn maps_that_fail_are_written_in_the_end() {
    let mut world = World::with_failing_maps(5).await.with_keys(KEYS);
    world.api.apply(WEB);
    world.start().await;
    eventually("the address to be answered for", async || answers(&world).await).await;
}
