// SPDX-License-Identifier: Apache-2.0
//! Against the kernel's netfilter, in a network namespace of the test. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::netlink::{LinkChange, Netlink};
use nix::sched::{CloneFlags, unshare};
use std::net::UdpSocket;

/// Runs a test in a namespace in which connections are tracked, because a rule asks for their state.
fn where_connections_are_tracked(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let netlink = Netlink::open().unwrap();
            let lo = netlink.link("lo").await.unwrap().unwrap().index;
            netlink.change_link(lo, LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();
        });
        let mut batch = Batch::without("somebody");
        batch.table("somebody");
        batch.chain(&Chain { table: "somebody", name: "asks", hook: Hook::Output });
        batch.rule("somebody", "asks", &[Expression::LoadConnectionState]);
        commit("ask for connections", batch).unwrap();
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Sends to these ports from new ones; returns to which of them a connection was noted.
fn noted<const N: usize>(ports: [u16; N]) -> [bool; N] {
    ports.map(|port| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
        let from = socket.local_addr().unwrap().port();
        let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
        table.contains(&format!("sport={from} dport={port} "))
    })
}

#[test]
fn connections_to_the_port_are_not_noted_and_others_are() {
    where_connections_are_tracked(|| {
        assert_eq!(noted([8472, 8473]), [true, true]);
        untrack_udp(8472).unwrap();
        assert_eq!(noted([8472, 8473]), [false, true]);
        untrack_udp(8472).unwrap();
        assert_eq!(noted([8472, 8473]), [false, true]);
        untrack_udp(8473).unwrap();
        assert_eq!(noted([8472, 8473]), [true, false]);
        cleanup().unwrap();
        cleanup().unwrap();
        assert_eq!(noted([8472, 8473]), [true, true]);
    });
}

#[test]
fn a_refused_transaction_is_an_error_and_changes_nothing() {
    where_connections_are_tracked(|| {
        untrack_udp(8472).unwrap();
        let mut batch = Batch::without(TABLE);
        batch.rule("nowhere", "nothing", &[]);
        let refused = commit("try nonsense", batch).unwrap_err();
        assert!(matches!(refused, Error::Netfilter { operation: "try nonsense", .. }), "{refused:?}");
        assert_eq!(noted([8472]), [false]);
    });
}
