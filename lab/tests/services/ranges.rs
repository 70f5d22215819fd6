// SPDX-License-Identifier: Apache-2.0
//! Load balancers that say who may use them.

use super::{answer, apply, delete, ingress, outside, pool, silent};
use anyhow::Result;
use lab::netns::Netns;
use lab::probe::Cluster;
use serde_json::json;
use std::net::SocketAddr;

pub(super) fn only_listed(cluster: &Cluster) -> Result<()> {
    pool(cluster)?;
    let (friend, stranger) = (outside(cluster)?, Netns::of_stranger(cluster, "stranger", &[51])?);
    let pod = Netns::of_pod(cluster, "net", "client")?;
    let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.168.77.50/32", "fd77::50/128"]});
    apply(cluster, "ranged", &json!({}), &spec)?;
    for to in ingress(cluster, "ranged", 2)? {
        let to = SocketAddr::new(to, 80);
        answer(&friend, to, &["near", "far"])?;
        silent(&stranger, to)?;
        silent(&pod, to)?;
    }
    delete(cluster, "ranged")
}
