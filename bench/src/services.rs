// SPDX-License-Identifier: Apache-2.0
//! Short connections through Services, with more and more Services, and through node ports: ours, and kube-proxy in both modes on the bridge plugin.

mod objects;
mod served;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, ClusterOptions, LabCommand};
use crate::report::Figure;
use crate::traffic::{self, Arm, Plan, Shape};
use served::{NodePort, PLAIN, Served};

/// Ours in figures.
const OURS: &str = "ours";

/// Clusters of the same programs with kube-proxy.
struct Peers {
    iptables: Cluster,
    nftables: Cluster,
}

impl Peers {
    fn up(lab: &LabCommand) -> Result<Self> {
        let bridge = |name, mode| Cluster::up(lab.clone(), name, &["--cni", "bridge", mode]);
        Ok(Self {
            iptables: bridge("bench-iptables", "--kube-proxy=iptables")?,
            nftables: bridge("bench-nftables", "--kube-proxy=nftables")?,
        })
    }

    /// Ours first.
    fn beside<'a>(&'a self, ours: &'a Cluster) -> Result<Vec<Served<'a>>> {
        let all = [(OURS, ours), ("iptables", &self.iptables), ("nftables", &self.nftables)];
        all.into_iter().map(|(name, cluster)| Served::new(name, cluster)).collect()
    }
}

/// Measures with each number of Services, and then node ports beside them.
pub(crate) fn measure(
    ours: &Cluster,
    lab: &LabCommand,
    counts: &[usize],
    ahead: bool,
    plan: &Plan,
) -> Result<Vec<Figure>> {
    let peers = Peers::up(lab)?;
    let mut all = peers.beside(ours)?;
    let mut figures = Vec::new();
    let mut first = Shares::default();
    for count in counts.iter().copied().filter(|count| *count > 1) {
        all.retain_mut(|served| grow(served, count, &mut figures));
        ensure!(all.first().is_some_and(|served| served.name == OURS), "ours does not serve {count} Services");
        traffic::quiet();
        let plain = all.iter().take(1).map(|ours| ours.arm("plain"));
        let arms: Vec<Arm> = plain.chain(all.iter().map(Served::by_cluster_ip)).map(|arm| arm.ahead(ahead)).collect();
        let what = format!("ClusterIP, {count} Services");
        let seen = traffic::compare(&arms, 0, &plan.clone().named(&what))?;
        figures.extend(seen.clone());
        figures.extend(first.compare(&seen, &what));
    }
    figures.extend(node_ports(&all, &[PLAIN], ahead, plan)?);
    Ok(figures)
}

/// Adds Services to a cluster; a proxy that does not serve them in time is told of and left out from then on.
fn grow(served: &mut Served<'_>, count: usize, figures: &mut Vec<Figure>) -> bool {
    eprint!("\r\x1b[K  {}: {count} Services", served.name);
    let grown = served.grow(count);
    eprint!("\r\x1b[K");
    match grown {
        Ok(took) => {
            figures.extend(took);
            true
        }
        Err(error) => {
            eprintln!("  {} is left out from {count} Services on: {error:#}", served.name);
            let what = format!("the last of {count} Services served after");
            figures.push(Figure::new(what, served.name, f64::INFINITY, "ms"));
            false
        }
    }
}

/// Ratios to plain routing with the smallest number of Services, by kind of figure and arm.
#[derive(Default)]
struct Shares(BTreeMap<(String, String), f64>);

impl Shares {
    /// What is left of the ratio that an arm had with the fewest Services. Both are to plain routing at the time, so that it does not matter how fast the machine
    /// was then and is now.
    fn compare(&mut self, seen: &[Figure], what: &str) -> Vec<Figure> {
        let mut kept = Vec::new();
        for figure in seen.iter().filter(|figure| figure.arm != "plain") {
            let (Some(ratio), Some((kind, _))) = (figure.ratio, figure.what.split_once(what)) else { continue };
            let first = *self.0.entry((kind.to_owned(), figure.arm.clone())).or_insert(ratio);
            let share =
                Figure::new(format!("{}, of the ratio with the fewest", figure.what), &*figure.arm, ratio / first, "");
            kept.push(if figure.arm == OURS { share.target(">= 0.95") } else { share });
        }
        kept
    }
}

/// Direct answers need it.
const NATIVE: [&str; 6] = [
    "routingMode=native",
    "autoDirectNodeRoutes=true",
    "ipv4NativeRoutingCIDR=10.245.0.0/16",
    "ipv6NativeRoutingCIDR=fd00:10:245::/104",
    "loadBalancer.mode=dsr",
    "bpf.lbModeAnnotation=true",
];
/// A Service for each way of forwarding.
const WAYS: [NodePort; 2] = [
    NodePort { name: "snat", port: 31202, mode: Some("snat") },
    NodePort { name: "dsr", port: 31203, mode: Some("dsr") },
];

/// Measures node ports with each way of forwarding, with native routing, beside kube-proxy.
pub(crate) fn forwarding(options: &ClusterOptions, ahead: bool, plan: &Plan) -> Result<Vec<Figure>> {
    let ours = options.open_with("bench-direct", &NATIVE)?;
    let peers = Peers::up(&options.command()?)?;
    node_ports(&peers.beside(&ours)?, &WAYS, ahead, plan)
}

/// A machine outside connects to ports of a node; ratios are to the first of ours. `ways` are those of ours.
fn node_ports(all: &[Served<'_>], ways: &[NodePort], ahead: bool, plan: &Plan) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (what, shape) in [("node port, same node", Shape::OneNode), ("node port, other node", Shape::TwoNodes)] {
        let mut arms = Vec::new();
        for served in all {
            let through = if served.name == OURS { ways } else { &[PLAIN] };
            for port in through {
                arms.push(served.by_node_port(shape, port)?.ahead(ahead));
            }
        }
        figures.extend(traffic::compare(&arms, 0, &plan.clone().named(what))?);
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_ratio_is_told_by_arm_and_kind() {
        let figure =
            |what: &str, arm: &str, ratio: f64| Figure { ratio: Some(ratio), ..Figure::new(what, arm, 1.0, "us") };
        let mut shares = Shares::default();
        let few =
            [figure("CRR few", "plain", 1.0), figure("CRR few", "ours", 0.8), figure("connect() few", "ours", 0.5)];
        assert!(shares.compare(&few, "few").iter().all(|share| (share.value - 1.0).abs() < f64::EPSILON));
        let many = [figure("CRR many", "ours", 0.4), figure("connect() many", "ours", 0.5)];
        let kept: Vec<f64> = shares.compare(&many, "many").iter().map(|share| share.value).collect();
        assert_eq!(kept, [0.5, 1.0]);
    }
}
