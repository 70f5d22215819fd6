// SPDX-License-Identifier: Apache-2.0
//! Who is told, and when.

use super::*;
use datapath::netlink::{NextHop, Place, RouteChange, Way};

fn link(index: u32, name: &str, running: bool) -> Link {
    Link { index, name: name.to_owned(), up: true, running, ..Link::default() }
}

fn host_route(to: &str, device: u32, gateway: &str) -> FibRoute {
    let gateway = gateway.parse().ok();
    let way = Way {
        kind: 1,
        mtu: None,
        object: None,
        preference: 0,
        hops: vec![NextHop { ifindex: device, gateway, ..NextHop::default() }],
    };
    let destination = to.parse().unwrap();
    let place = Place { table: 254, destination, source: "0.0.0.0/0".parse().unwrap(), tos: 0 };
    FibRoute { place, metric: 0, way }
}

fn replaced(gateway: &str) -> Change {
    Change::Route(RouteChange::Replaced(host_route("8.8.8.8/32", 2, gateway)))
}

/// After the first round.
fn known() -> WaysOut {
    let mut ways = WaysOut::default();
    assert!(
        ways.is_stale() && ways.is_urgent() && *ways.concerned() == Concerned::Everyone,
        "nobody knows what was missed"
    );
    ways.look(&[link(2, "eth0", true)], BTreeSet::new());
    ways.read(vec![host_route("8.8.8.8/32", 2, "192.168.77.2")], None);
    ways.reported();
    assert!(!ways.is_stale());
    ways
}

#[tokio::test(start_paused = true)]
async fn a_change_that_comes_alone_is_told_at_once_and_others_wait_for_the_pause() {
    let mut ways = known();
    tokio::time::advance(PAUSE).await;
    assert!(!ways.is_urgent(), "nobody is concerned");
    ways.note(&replaced("192.168.77.3"));
    assert!(ways.is_urgent());
    assert_eq!(*ways.concerned(), Concerned::Peers(BTreeSet::from(["8.8.8.8".parse().unwrap()])));
    ways.reported();
    ways.note(&replaced("192.168.77.4"));
    assert!(!ways.is_urgent() && *ways.concerned() != Concerned::Nobody);
    tokio::time::advance(PAUSE).await;
    assert!(ways.is_urgent());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_announces_the_same_again_and_again_concerns_nobody() {
    let mut ways = known();
    for _ in 0..100 {
        ways.note(&replaced("192.168.77.2"));
        assert_eq!(*ways.concerned(), Concerned::Nobody);
        tokio::time::advance(PAUSE).await;
    }
    assert!(!ways.is_stale());
}

#[test]
fn what_the_kernel_may_have_done_in_silence_is_looked_at() {
    for change in [
        Change::Link(link(2, "eth0", false)),
        Change::Link(link(2, "eth0", true)),
        Change::LinkGone(link(2, "eth0", false)),
        Change::Lost,
        Change::Rules,
        Change::AddressGone(datapath::netlink::Address {
            ifindex: 2,
            net: "192.168.77.11/24".parse().unwrap(),
            scope: datapath::netlink::Scope::Universe,
        }),
    ] {
        let mut ways = known();
        ways.note(&change);
        assert!(ways.is_stale(), "{change:?}");
    }
}

#[test]
fn everyone_is_told_when_changes_were_lost_or_rules_are_others() {
    for change in [Change::Lost, Change::Rules] {
        let mut ways = known();
        ways.note(&change);
        assert_eq!(*ways.concerned(), Concerned::Everyone, "{change:?}");
    }
}

#[test]
fn pods_that_come_and_go_concern_nobody() {
    let mut ways = known();
    let pod = || host_route("10.0.1.7/32", 17, "");
    ways.note(&Change::Link(link(17, "lxc1234", false)));
    ways.note(&Change::Route(RouteChange::Added(pod())));
    ways.note(&Change::LinkGone(link(17, "lxc1234", false)));
    assert!(*ways.concerned() == Concerned::Nobody && !ways.is_stale());
    ways.note(&Change::Link(link(18, "lxc5678", true)));
    ways.note(&Change::Route(RouteChange::Added(FibRoute { way: host_route("10.0.1.7/32", 18, "").way, ..pod() })));
    assert!(*ways.concerned() == Concerned::Nobody && !ways.is_stale(), "the address is used again");
}

#[test]
fn a_route_to_a_node_concerns_everyone() {
    let mut ways = known();
    ways.look(&[], BTreeSet::from(["192.168.77.12".parse().unwrap()]));
    ways.note(&Change::Route(RouteChange::Added(host_route("192.168.77.12/32", 2, "192.168.77.1"))));
    assert_eq!(*ways.concerned(), Concerned::Everyone);
}
