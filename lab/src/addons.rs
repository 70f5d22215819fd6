// SPDX-License-Identifier: Apache-2.0
//! What a cluster has in addition to Kubernetes itself: cluster DNS.

use anyhow::{Context as _, Result};

use crate::run;
use crate::state::Lab;

/// Applies cluster DNS. Its pods wait until a network is installed.
pub(crate) fn install_dns(lab: &Lab) -> Result<()> {
    let addresses = lab.spec.topology.dns_services();
    let first = addresses.first().context("the lab has neither IPv4 nor IPv6")?;
    let quoted: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let policy = if addresses.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let manifest = include_str!("../manifests/coredns.yaml")
        .replace("FIRST_ADDRESS", &format!("\"{first}\""))
        .replace("ALL_ADDRESSES", &quoted.join(", "))
        .replace("FAMILY_POLICY", policy);
    let mut command = lab.kubectl();
    command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
    run::with_input(&mut command, &manifest).context("cannot install cluster DNS")?;
    Ok(())
}
