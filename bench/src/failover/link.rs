// SPDX-License-Identifier: Apache-2.0
//! A second link of a lab, to which both nodes are connected by a device of their own, and the machine of the control plane: the nodes' way to the API server
//! is another one.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::asking::{Mac, Question};
use crate::cluster::Cluster;
use crate::run;

/// The bridge.
const BRIDGE: &str = "lab1";
/// Each node's device there.
pub(crate) const DEVICE: &str = "eth1";
const NODES: [(&str, u8); 2] = [("node1", 11), ("node2", 12)];
/// What is asked for.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 78, 200);

/// The link.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    pub(crate) cluster: &'a Cluster,
    /// The first process of the control plane's machine.
    control: u32,
}

impl<'a> Link<'a> {
    /// Connects everybody.
    pub(crate) fn plug(cluster: &'a Cluster) -> Result<Self> {
        let control = cluster.first_process("control")?;
        ip(
            control,
            &format!("link add {BRIDGE} type bridge\naddress add {}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n", host(1)),
        )?;
        for (node, number) in NODES {
            let process = cluster.first_process(node)?;
            let mac = mac(number).map(|byte| format!("{byte:02x}")).join(":");
            let port = port(node);
            ip(
                control,
                &format!(
                    "link add {port} type veth peer name {DEVICE} address {mac} netns {process}
                    link set {port} master {BRIDGE} up\n"
                ),
            )?;
            ip(process, &format!("address add {}/24 dev {DEVICE}\nlink set {DEVICE} up\n", host(number)))?;
        }
        Ok(Self { cluster, control })
    }

    /// Connects a node again (`up`), or cuts it off (`down`).
    pub(crate) fn set(&self, node: &str, state: &str) -> Result<()> {
        ip(self.control, &format!("link set {} {state}\n", port(node)))
    }

    /// Who has the address?
    pub(crate) fn question(&self) -> Question {
        Question {
            netns: format!("/proc/{}/ns/net", self.control).into(),
            device: BRIDGE,
            from: host(1),
            address: ADDRESS,
        }
    }
}

/// The node with a hardware address.
pub(crate) fn node(of: Mac) -> Result<&'static str> {
    let found = NODES.iter().find(|(_, number)| mac(*number) == of).map(|(node, _)| *node);
    found.with_context(|| format!("{of:x?} is no node's"))
}

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 78, number)
}

fn mac(number: u8) -> Mac {
    [2, 0, 192, 168, 78, number]
}

fn port(node: &str) -> String {
    format!("{node}-2")
}

fn ip(process: u32, lines: &str) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{process}/ns/net")).args(["ip", "-batch", "-"]);
    run::with_input(&mut command, lines).map(drop)
}
