// SPDX-License-Identifier: Apache-2.0
//! What the links behind devices are told, and what is heard of them.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use datapath::netlink::{LinkChange, Mac, Netlink, VethEnd};
use datapath::wire::Links;
use datapath::{Error, Wire};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::sandbox::Sandbox;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Runs the test with the index of one end of a veth pair, both ends of which are up.
fn with_device(test: impl FnOnce(u32) + Send + 'static) {
    Sandbox::run(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let index = runtime.block_on(async {
            let netlink = Netlink::open().unwrap();
            let end = |name, mac| VethEnd { name, mac, ..VethEnd::default() };
            netlink.create_veth(end("near", Some(MAC)), end("far", None)).await.unwrap();
            for name in ["near", "far"] {
                let index = netlink.link(name).await.unwrap().unwrap().index;
                netlink.change_link(index, LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();
            }
            // Until then, the kernel throws away what is sent.
            tokio::time::timeout(Duration::from_secs(10), async {
                loop {
                    let link = netlink.link("near").await.unwrap().unwrap();
                    if link.running {
                        return link.index;
                    }
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("the device has no carrier")
        });
        test(index);
    });
}

/// Whether the device receives what is sent to that hardware address.
fn receives(group: &str) -> bool {
    let groups = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap();
    groups
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|row| row[1] == "near" && row[4] == group)
}

#[test]
fn a_device_receives_what_is_sent_to_the_group_of_an_address_while_somebody_listens() {
    with_device(|index| {
        let links = Links::open().unwrap();
        let [one, other]: [IpAddr; 2] = ["2001:db8::ab:cdef", "fd00::ab:cdef"].map(|ip| ip.parse().unwrap());
        let group = "3333ffabcdef";
        assert!(!receives(group));
        for address in [one, one, other] {
            links.listen(index, address).unwrap();
        }
        assert!(receives(group));
        links.ignore(index, one).unwrap();
        assert!(receives(group), "the other address is in the same group");
        links.ignore(index, other).unwrap();
        assert!(!receives(group));
        links.ignore(index, other).unwrap();
        links.listen(index, one).unwrap();
        drop(links);
        assert!(!receives(group), "nobody is left who would answer");
    });
}

#[test]
fn an_announcement_leaves_by_its_device() {
    with_device(|index| {
        let all = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).unwrap();
        setsockopt(&all, sockopt::ReceiveTimeout, &TimeVal::seconds(10)).unwrap();
        let links = Links::open().unwrap();
        // The address, the Ethernet type, and where the frame has the address.
        for (address, ethertype, at) in [("192.0.2.240", [8, 6], 38), ("2001:db8::f0", [0x86, 0xdd], 62)] {
            let address: IpAddr = address.parse().unwrap();
            links.announce(index, MAC, address).unwrap();
            let bytes = match address {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            // The kernel has things of its own to say; the test ends with the socket's patience.
            loop {
                let mut frame = [0; 128];
                recv(all.as_raw_fd(), &mut frame, MsgFlags::empty()).expect("no announcement was sent");
                if frame[6..14] == [&MAC.0, ethertype.as_slice()].concat() && frame[at..].starts_with(&bytes) {
                    break;
                }
            }
        }
    });
}

#[test]
fn a_device_that_is_not_there_is_named() {
    with_device(|_| {
        let links = Links::open().unwrap();
        let error = links.announce(4711, MAC, "192.0.2.240".parse().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Wire { ifindex: 4711, .. }), "{error}");
        assert!(links.listen(4711, "2001:db8::1".parse().unwrap()).is_err());
        links.ignore(4711, "2001:db8::1".parse().unwrap()).unwrap();
    });
}
