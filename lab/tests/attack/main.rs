// SPDX-License-Identifier: Apache-2.0
//! A pod with NET_RAW, and a machine on the wire, try one way after the other to get something to where policy forbids it, over both families, while agents are killed:
//! nothing arrives, and what is allowed goes on. kube-proxy runs, so that there is a host that translates. Needs root, `make kube` and `make image`.
//!
//! `CILIUM_ATTACK_SECONDS` is how long it lasts for each way of routing (`make attack` says a minute), `CILIUM_ATTACK_WAYS` chooses ways by parts of their names,
//! separated by commas. What arrives is recognized by a mark in its payload that tells the shot (`book`), seen on the raw device of whom it must not reach
//! (`witness`). Ways 1 to 9 are tables of frames (`ways`), fired again and again; 10 to 12 need answers (`duels`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod book;
mod controls;
mod duels;
mod scene;
mod siege;
mod ways;
mod witness;

use std::process::ExitCode;

use lab::suite::{self, Suite};

use crate::siege::attack;

const COMMAND: &str = env!("CARGO_BIN_EXE_cilium-lab");
const MANIFEST: Option<&str> = Some("lab/manifests/attack.yaml");
const KUBE_PROXY: &str = "kubeProxyReplacement=false";
/// The smallest table of flows that there is: it takes the shortest time to fill.
const FEW_FLOWS: &str = "bpf.mapDynamicSizeRatio=0.0001";

const SUITES: [Suite; 2] = [
    Suite {
        name: "attack-vxlan",
        command: COMMAND,
        options: &["--kube-proxy"],
        values: &[KUBE_PROXY, FEW_FLOWS],
        manifest: MANIFEST,
        cases: &[("nothing_arrives_that_policy_forbids_over_vxlan", |cluster| attack(cluster, false))],
    },
    Suite {
        name: "attack-native",
        command: COMMAND,
        options: &["--kube-proxy"],
        values: &[
            KUBE_PROXY,
            FEW_FLOWS,
            "routingMode=native",
            "autoDirectNodeRoutes=true",
            "ipv4NativeRoutingCIDR=10.244.0.0/16",
            "ipv6NativeRoutingCIDR=fd00:10:244::/56",
        ],
        manifest: MANIFEST,
        cases: &[("nothing_arrives_that_policy_forbids_with_native_routing", |cluster| attack(cluster, true))],
    },
];

fn main() -> ExitCode {
    suite::main(&SUITES)
}
