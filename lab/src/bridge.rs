// SPDX-License-Identifier: Apache-2.0
//! Routes to pods, and a network for comparison: the reference plugins on a plain bridge in every node.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::state::{self, Lab};
use crate::topology::{CONTROL, Place};
use crate::{namespace, run};

/// A range of pod addresses and its node.
pub(crate) struct PodRange {
    pub(crate) cidr: String,
    pub(crate) node: String,
    pub(crate) via: IpAddr,
}

/// Lets the API server reach pods, as a cloud's routes would: its proxy and webhooks need that. The control plane does not forward, so
/// nodes gain nothing by it.
pub(crate) fn route_from_control(lab: &Lab, ranges: &[PodRange]) -> Result<()> {
    route(lab, CONTROL, &ranges.iter().collect::<Vec<_>>())
}

/// Installs the bridge on every node, and routes between their pods.
pub(crate) fn install(lab: &Lab, places: &[Place], ranges: &[PodRange]) -> Result<()> {
    for place in places {
        let (own, others): (Vec<_>, Vec<_>) = ranges.iter().partition(|range| range.node == place.name);
        route(lab, &place.name, &others)?;
        let pid = namespace::first_process(lab, &place.name)?;
        let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        run::output(Command::new("nsenter").args(["--target", &pid.to_string(), "--all", "sh", "-c", forward]))?;
        plugins(lab, place, &own.iter().map(|range| range.cidr.as_str()).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn route(lab: &Lab, machine: &str, to: &[&PodRange]) -> Result<()> {
    let pid = namespace::first_process(lab, machine)?;
    let batch: String = to.iter().map(|range| format!("route replace {} via {}\n", range.cidr, range.via)).collect();
    run::ip(&["nsenter", &format!("--net=/proc/{pid}/ns/net")], &batch)
}

fn plugins(lab: &Lab, place: &Place, pod_cidrs: &[&str]) -> Result<()> {
    let disk = lab.machine(&place.name).join("disk");
    let plugins = disk.join("opt/cni/bin");
    fs::create_dir_all(&plugins).with_context(|| format!("cannot create {}", plugins.display()))?;
    for plugin in ["bridge", "host-local", "portmap", "loopback", "ptp"] {
        let from = PathBuf::from("/usr/lib/cni").join(plugin);
        fs::copy(&from, plugins.join(plugin)).with_context(|| {
            format!("cannot copy {}; install the package containernetworking-plugins", from.display())
        })?;
    }
    let ranges: Vec<_> = pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr}])).collect();
    let conflist = json!({
        "cniVersion": "1.0.0",
        "name": "bridge",
        "plugins": [
            {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": false, "hairpinMode": true,
             "ipam": {"type": "host-local", "ranges": ranges}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    state::write(&disk.join("etc/cni/net.d/10-bridge.conflist"), serde_json::to_string_pretty(&conflist)?)
}
