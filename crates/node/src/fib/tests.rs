// SPDX-License-Identifier: Apache-2.0
//! Which changes count, and for whom; and the kernel's own word on what it tells.

use super::*;
use datapath::netlink::NextHop;

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const POD: u32 = 17;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn all_of(net: &IpNet) -> IpNet {
    net.supernet().map_or(*net, |wider| all_of(&wider))
}

fn route(to: &str, metric: u32, device: u32, gateway: &str) -> FibRoute {
    let hop = NextHop { ifindex: device, gateway: gateway.parse().ok(), ..NextHop::default() };
    let place = Place { table: 254, destination: net(to), source: all_of(&net(to)), tos: 0 };
    FibRoute { place, metric, way: Way { kind: 1, mtu: None, object: None, preference: 0, hops: vec![hop] } }
}

fn default_route() -> FibRoute {
    route("0.0.0.0/0", 100, ETH0, "192.168.77.1")
}

/// What the kernel has at first: a default route, and one by BGP.
fn fib() -> Fib {
    let mut fib = Fib::default();
    fib.set_inner(POD, true);
    fib.read(vec![default_route(), bgp()], Some(BTreeSet::from([254, 255])));
    fib
}

fn bgp() -> FibRoute {
    route("203.0.113.0/24", 20, ETH0, "192.168.77.2")
}

fn added(route: FibRoute) -> RouteChange {
    RouteChange::Added(route)
}

fn replaced(route: FibRoute) -> RouteChange {
    RouteChange::Replaced(route)
}

fn removed(route: FibRoute) -> RouteChange {
    RouteChange::Removed(route)
}

#[test]
fn a_route_that_is_announced_again_concerns_nobody() {
    let mut fib = fib();
    assert_eq!(fib.apply(&replaced(bgp())), None);
    assert_eq!(fib.apply(&replaced(default_route())), None);
    assert!(!fib.is_in_doubt());
}

#[test]
fn a_route_that_comes_moves_or_goes_concerns_its_destination() {
    let mut fib = fib();
    let other = route("203.0.113.0/24", 20, ETH0, "192.168.77.3");
    let to = Some(net("203.0.113.0/24"));
    assert_eq!(fib.apply(&replaced(other.clone())), to, "another neighbour");
    assert_eq!(fib.apply(&replaced(bgp())), to, "and back: flows were decided by the other in between");
    assert_eq!(fib.apply(&removed(bgp())), to);
    assert_eq!(fib.apply(&added(other)), to);
    let mut smaller = default_route();
    smaller.way.mtu = Some(1280);
    assert_eq!(fib.apply(&replaced(smaller)), Some(net("0.0.0.0/0")), "how long packets may be");
}

#[test]
fn a_route_that_is_passed_over_for_a_better_one_concerns_nobody_until_that_goes() {
    let mut fib = fib();
    let worse = route("203.0.113.0/24", 200, ETH1, "192.168.78.2");
    assert_eq!(fib.apply(&added(worse.clone())), None);
    assert_eq!(fib.apply(&removed(worse.clone())), None);
    assert_eq!(fib.apply(&added(worse)), None);
    assert_eq!(fib.apply(&removed(bgp())), Some(net("203.0.113.0/24")));
    let better = route("203.0.113.0/24", 10, ETH1, "192.168.78.2");
    assert_eq!(fib.apply(&added(better)), None, "the same way by another metric");
}

#[test]
fn the_next_best_counts_while_the_best_leads_nowhere() {
    let mut dead = bgp();
    dead.way.hops.iter_mut().for_each(|hop| hop.down = true);
    let mut fib = Fib::default();
    fib.read(vec![dead, route("203.0.113.0/24", 200, ETH1, "192.168.78.2")], None);
    let other = route("203.0.113.0/24", 200, ETH1, "192.168.78.3");
    assert_eq!(fib.apply(&replaced(other)), Some(net("203.0.113.0/24")));
}

#[test]
fn tables_that_no_rule_names_concern_nobody_until_one_does() {
    let mut fib = fib();
    let vrf = |gateway: &str| {
        let mut route = route("0.0.0.0/0", 0, ETH1, gateway);
        route.place.table = 1000;
        route
    };
    assert_eq!(fib.apply(&added(vrf("192.168.78.1"))), None);
    fib.forget_tables();
    assert_eq!(fib.apply(&replaced(vrf("192.168.78.2"))), Some(net("0.0.0.0/0")));
}

#[test]
fn routes_of_pods_and_to_what_is_never_forwarded_concern_nobody() {
    let mut fib = fib();
    let pod = |device| route("10.0.1.7/32", 0, device, "");
    assert_eq!(fib.apply(&added(pod(POD))), None);
    assert_eq!(fib.apply(&removed(pod(POD))), None);
    for local in ["fe80::/64", "ff00::/8", "224.0.0.0/4"] {
        assert_eq!(fib.apply(&added(route(local, 256, ETH1, ""))), None);
    }
    assert!(!fib.is_in_doubt());
    assert_eq!(fib.apply(&added(pod(POD))), None);
    assert_eq!(fib.apply(&replaced(pod(ETH1))), Some(net("10.0.1.7/32")), "a pod's address that leaves the node");
}

#[test]
fn where_the_kernel_is_not_understood_every_change_counts_until_all_is_read_again() {
    let mut fib = fib();
    let second = route("203.0.113.0/24", 20, ETH1, "192.168.78.2");
    let to = Some(net("203.0.113.0/24"));
    assert_eq!(fib.apply(&added(second.clone())), to, "IPv6 makes one route of two, and says so in one message");
    assert!(fib.is_in_doubt());
    assert_eq!(fib.apply(&replaced(bgp())), to, "is it the same again? who knows");
    assert_eq!(fib.read(vec![default_route(), bgp(), second], None), [net("203.0.113.0/24")]);
    assert!(!fib.is_in_doubt());
}

#[test]
fn routes_that_go_in_silence_with_a_device_are_not_taken_for_those_that_come_back() {
    let mut fib = fib();
    fib.doubt(ETH0);
    assert_eq!(fib.apply(&added(bgp())), Some(net("203.0.113.0/24")));
    fib.doubt(POD);
    assert_eq!(fib.read(vec![default_route(), bgp()], None).len(), 2, "they had gone for a while");
    assert_eq!(fib.read(vec![default_route(), bgp()], None), []);
    fib.device_gone(ETH0);
    assert_eq!(fib.read(Vec::new(), None).len(), 2);
}

#[test]
fn what_was_read_before_it_was_told_counts_once() {
    let mut fib = fib();
    let new = route("198.51.100.0/24", 20, ETH0, "192.168.77.2");
    let all = || vec![default_route(), bgp(), new.clone()];
    assert_eq!(fib.read(all(), None), [net("198.51.100.0/24")]);
    assert_eq!(fib.apply(&added(new.clone())), None);
    assert_eq!(fib.read(all(), None), []);
}

fn concerned(destinations: &[&str]) -> Concerned {
    let nodes = BTreeSet::from([ip("192.168.77.12")]);
    let mut concerned = Concerned::default();
    destinations.iter().for_each(|destination| concerned.add(&net(destination), &nodes));
    concerned
}

#[test]
fn few_addresses_are_told_one_by_one_and_many_are_everyone() {
    assert_eq!(concerned(&[]), Concerned::Nobody);
    let peers = |ips: &[&str]| Concerned::Peers(ips.iter().map(|text| ip(text)).collect());
    assert_eq!(concerned(&["8.8.8.8/32", "2001:db8::1/128", "8.8.8.8/32"]), peers(&["8.8.8.8", "2001:db8::1"]));
    assert_eq!(concerned(&["8.8.8.2/31"]), peers(&["8.8.8.2", "8.8.8.3"]));
    let Concerned::Peers(subnet) = concerned(&["203.0.113.0/24"]) else { panic!("a subnet is everyone") };
    assert!(subnet.len() == 256 && subnet.contains(&ip("203.0.113.0")) && subnet.contains(&ip("203.0.113.255")));
    for many in [&["0.0.0.0/0"][..], &["::/0"], &["10.0.0.0/22"], &["fd00::/64"], &["10.0.0.0/23", "10.9.0.1/32"]] {
        assert_eq!(concerned(many), Concerned::Everyone, "{many:?}");
    }
    assert_eq!(concerned(&["::/0", "8.8.8.8/32"]), Concerned::Everyone);
}

#[test]
fn a_route_to_a_node_concerns_all_that_is_behind_it() {
    assert_eq!(concerned(&["192.168.77.12/32"]), Concerned::Everyone);
    assert_ne!(concerned(&["192.168.77.13/32"]), Concerned::Everyone);
}

mod kernel {
    //! The real kernel: its words are understood as they are meant.

    use super::*;
    use crate::testing::in_namespace;
    use datapath::netlink::{Change, Changes, Netlink};
    use std::process::Command;
    use std::time::Duration;

    fn run(command: &str) {
        assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success(), "ip {command}");
    }

    /// What the kernel has told until now: a route that is made last says where that ends.
    async fn told(changes: &mut Changes) -> Vec<RouteChange> {
        run("route add 192.0.2.255/32 dev lo");
        run("route del 192.0.2.255/32 dev lo");
        let last = net("192.0.2.255/32");
        let gone =
            |change: &RouteChange| matches!(change, RouteChange::Removed(route) if route.place.destination == last);
        let mut all = until(changes, gone).await;
        all.retain(|change| of(change).place.destination != last);
        all
    }

    /// What the kernel tells, with the first change that is meant.
    async fn until(changes: &mut Changes, is_last: impl Fn(&RouteChange) -> bool) -> Vec<RouteChange> {
        let mut all = Vec::new();
        while !all.last().is_some_and(&is_last) {
            let change = tokio::time::timeout(Duration::from_secs(10), changes.next()).await.unwrap().unwrap();
            if let Change::Route(change) = change {
                all.push(change);
            }
        }
        all
    }

    struct Node {
        netlink: Netlink,
        changes: Changes,
        fib: Fib,
    }

    impl Node {
        async fn new(netlink: Netlink) -> Self {
            let mut changes = netlink.changes().unwrap();
            for command in [
                "link add eth0 type veth peer name far0",
                "link set far0 up",
                "link set eth0 up",
                "address add 192.168.77.11/24 dev eth0",
                "address add fd77::11/64 dev eth0 nodad",
                "route add default via 192.168.77.1 metric 100",
                "route add default via fd77::1 metric 100",
            ] {
                run(command);
            }
            // The kernel takes its time with this one.
            until(&mut changes, |change| of(change).place.destination == net("fd77::11/128")).await;
            told(&mut changes).await;
            let mut node = Self { netlink, changes, fib: Fib::default() };
            node.read().await;
            node
        }

        async fn read(&mut self) -> Vec<IpNet> {
            let tables = self.netlink.tables().await.unwrap();
            assert!(tables.as_ref().is_some_and(|tables| tables.contains(&254) && tables.contains(&255)), "{tables:?}");
            self.fib.read(self.netlink.fib().await.unwrap(), tables)
        }

        /// Which destinations commands concern, by what the kernel tells.
        async fn moved_by(&mut self, commands: &[&str]) -> BTreeSet<String> {
            commands.iter().for_each(|command| run(command));
            let changes = told(&mut self.changes).await;
            changes.iter().filter_map(|change| self.fib.apply(change)).map(|to| to.to_string()).collect()
        }
    }

    fn set(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_the_kernel_tells_of_is_what_it_has_afterwards() {
        in_namespace(async |netlink| {
            let mut node = Node::new(netlink).await;
            for (to, via, other) in
                [("203.0.113.0/24", "192.168.77.2", "192.168.77.3"), ("2001:db8::/64", "fd77::2", "fd77::3")]
            {
                let one = |verb: &str, via: &str, metric: u32| format!("route {verb} {to} via {via} metric {metric}");
                for (command, moves) in [
                    (one("add", via, 20), true),
                    (one("replace", via, 20), false),
                    (one("replace", other, 20), true),
                    (one("add", via, 200), false),
                    (one("replace", other, 200), false),
                    (one("add", other, 10), false),
                    (one("del", other, 10), false),
                    (one("del", other, 20), false),
                    (one("replace", via, 200), true),
                    (one("del", via, 200), true),
                ] {
                    let expected = if moves { set(&[to]) } else { set(&[]) };
                    assert_eq!(node.moved_by(&[&command]).await, expected, "{command}");
                    assert_eq!(node.read().await, [], "{command}");
                }
            }
        });
    }

    #[test]
    fn several_ways_and_tables_of_rules_are_understood() {
        in_namespace(async |netlink| {
            let mut node = Node::new(netlink).await;
            let both = "route replace 203.0.113.0/24 nexthop via 192.168.77.2 nexthop via 192.168.77.3";
            let six = "route replace 2001:db8::/64 nexthop via fd77::2 nexthop via fd77::3";
            assert_eq!(node.moved_by(&[both, six]).await, set(&["203.0.113.0/24", "2001:db8::/64"]));
            node.read().await;
            assert_eq!(node.moved_by(&[both, six]).await, set(&[]), "the same again");
            assert_eq!(node.moved_by(&["route del 2001:db8::/64 via fd77::3"]).await, set(&["2001:db8::/64"]));
            node.read().await;
            let other = "route replace 198.51.100.0/24 via 192.168.77.2 table 1000";
            assert_eq!(node.moved_by(&[other]).await, set(&[]));
            run("rule add fwmark 7 lookup 1000");
            node.read().await;
            let moved = "route replace 198.51.100.0/24 via 192.168.77.3 table 1000";
            assert_eq!(node.moved_by(&[moved]).await, set(&["198.51.100.0/24"]));
        });
    }

    #[test]
    fn routes_that_went_with_a_device_are_missed_when_all_is_read() {
        in_namespace(async |netlink| {
            let mut node = Node::new(netlink).await;
            let device = node.netlink.link("eth0").await.unwrap().unwrap();
            assert!(device.running);
            run("link set eth0 down");
            told(&mut node.changes).await;
            assert!(!node.netlink.link("eth0").await.unwrap().unwrap().running);
            let moved: BTreeSet<String> = node.read().await.iter().map(ToString::to_string).collect();
            assert!(moved.contains("0.0.0.0/0") && moved.contains("192.168.77.0/24"), "{moved:?}");
        });
    }
}
