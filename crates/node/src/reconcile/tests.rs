// SPDX-License-Identifier: Apache-2.0
//! Tests of routes, in a network namespace of their own.

use super::*;
use crate::devices::{self, Wanted};
use crate::testing::{in_namespace, without_carriers};
use datapath::netlink::Netlink;
use statedb::Target as _;
use std::net::IpAddr;
use std::time::Duration;

/// How long the kernel may take to come to rest.
const DEADLINE: Duration = Duration::from_secs(10);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn row(prefix: &str, hop: Hop) -> Route {
    let tunnel = matches!(hop, Hop::Tunnel { .. });
    let prefix: IpNet = prefix.parse().unwrap();
    let router = if prefix.addr().is_ipv4() { ip("10.0.1.1") } else { ip("fd00:1::1") };
    Route { prefix, hop, source: tunnel.then_some(router), mtu: tunnel.then_some(1450) }
}

/// The devices, and the index of the tunnel.
async fn wire(netlink: &Netlink) -> u32 {
    let routers = vec![ip("10.0.1.1"), ip("fd00:1::1")];
    let host = devices::look(netlink).await.unwrap();
    let wanted = Wanted { mtu: 1500, routers, tunnel_port: Some(8472), tunnel_over_ipv6: true };
    devices::ensure(netlink, &host, &wanted).await.unwrap();
    netlink.link(crate::OVERLAY_DEVICE).await.unwrap().unwrap().index
}

fn snapshot(rows: &[Route]) -> statedb::Snapshot<Route> {
    let (mut writer, reader) = statedb::table("routes");
    writer.replace(rows.iter().cloned());
    writer.mark_initialized();
    reader.snapshot()
}

async fn present(netlink: &Netlink, rows: &[Route]) -> bool {
    let all = ours(netlink).await.unwrap();
    all.len() == rows.len() && rows.iter().all(|row| all.iter().any(|route| same(route, &kernel_route(row))))
}

#[test]
fn routes_of_every_kind_are_made_as_they_are_wanted_and_removed() {
    in_namespace(async |netlink| {
        let device = wire(&netlink).await;
        let rows = [
            row("10.0.2.0/24", Hop::Tunnel { remote: ip("192.168.77.12"), device }),
            row("fd00:2::/64", Hop::Tunnel { remote: ip("192.168.77.12"), device }),
            row("10.0.3.0/24", Hop::Tunnel { remote: ip("fd77::12"), device }),
            row("fd00:3::/64", Hop::Tunnel { remote: ip("fd77::12"), device }),
            row("10.0.1.0/24", Hop::Unreachable),
            row("fd00:1::/64", Hop::Unreachable),
        ];
        let mut target = Target::new(netlink.clone());
        for row in &rows {
            target.update(row).await.unwrap();
        }
        assert!(present(&netlink, &rows).await, "{:#?}", ours(&netlink).await);
        for row in &rows {
            target.delete(&row.prefix).await.unwrap();
            target.delete(&row.prefix).await.unwrap();
        }
        assert!(present(&netlink, &[]).await);
    });
}

#[test]
fn a_route_changes_its_kind_in_place() {
    in_namespace(async |netlink| {
        let device = wire(&netlink).await;
        let mut target = Target::new(netlink.clone());
        for prefix in ["10.0.2.0/24", "fd00:2::/64"] {
            let remote = |last: u8| Hop::Tunnel { remote: ip(&format!("192.168.77.{last}")), device };
            for hop in [remote(12), remote(13), Hop::Unreachable, remote(12)] {
                let row = row(prefix, hop);
                target.update(&row).await.unwrap();
                target.prune(&snapshot(std::slice::from_ref(&row))).await.unwrap();
                assert!(present(&netlink, &[row]).await, "{hop:?} {:#?}", ours(&netlink).await);
            }
            target.delete(&prefix.parse().unwrap()).await.unwrap();
        }
    });
}

#[test]
fn only_our_own_routes_are_pruned() {
    in_namespace(async |netlink| {
        let device = wire(&netlink).await;
        let mut foreign = KernelRoute::to("10.7.0.0/16".parse::<IpNet>().unwrap());
        foreign.ifindex = Some(device);
        foreign.scope = Scope::Link;
        netlink.replace_route(&foreign).await.unwrap();
        let stay = row("10.0.2.0/24", Hop::Tunnel { remote: ip("192.168.77.12"), device });
        let gone = row("10.0.3.0/24", Hop::Tunnel { remote: ip("192.168.77.13"), device });
        let mut before = Target::new(netlink.clone());
        before.update(&stay).await.unwrap();
        before.update(&gone).await.unwrap();

        let mut target = Target::new(netlink.clone());
        target.prune(&snapshot(std::slice::from_ref(&stay))).await.unwrap();
        assert!(present(&netlink, &[stay]).await);
        let all = netlink.routes(MAIN_TABLE).await.unwrap();
        assert!(all.iter().any(|route| route.destination == foreign.destination));
    });
}

#[test]
fn a_route_that_cannot_be_made_is_an_error_that_names_it() {
    in_namespace(async |netlink| {
        let mut target = Target::new(netlink.clone());
        let row = row("10.0.2.0/24", Hop::Direct { gateway: ip("192.168.77.12"), device: 1 });
        let error = target.update(&row).await.unwrap_err();
        assert_eq!(error.to_string(), "route to 10.0.2.0/24");
    });
}

#[test]
fn many_may_look_at_the_kernel_at_once() {
    in_namespace(async |netlink| {
        wire(&netlink).await;
        let look = || async { without_carriers(devices::look(&netlink).await.unwrap()) };
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let before = look().await;
            let (a, b, c, d) = tokio::join!(look(), look(), look(), look());
            // The kernel itself gives the new links their addresses, a little later.
            if before == look().await {
                assert!(before == a && a == b && b == c && c == d);
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "the kernel does not come to rest");
        }
    });
}

#[test]
fn a_kernel_without_tunnel_routes_is_told_apart_and_says_what_to_do() {
    let refused = |errno| datapath::Error::Netlink {
        operation: "add",
        object: "route".to_owned(),
        source: io::Error::from_raw_os_error(errno),
    };
    let row = row("10.0.2.0/24", Hop::Tunnel { remote: ip("192.168.77.12"), device: 3 });
    let unsupported = Error::of(&row, refused(nix::libc::EOPNOTSUPP)).to_string();
    assert!(unsupported.ends_with("use routing-mode: native"), "{unsupported}");
    assert_eq!(Error::of(&row, refused(nix::libc::EINVAL)).to_string(), "route to 10.0.2.0/24");
}
