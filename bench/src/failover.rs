// SPDX-License-Identifier: Apache-2.0
//! How long nobody answers for an announced address when its node fails, and whether two ever do: asked by ARP from a machine on the link.

mod asking;
mod link;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::{Cluster, ClusterOptions, NAMESPACE};
use crate::report::Figure;
use crate::{clock, stats};
use asking::{Answer, Asking, PACE};
use link::{ADDRESS, DEVICE, Link};

/// Of each fault at most.
const ROUNDS: usize = 5;
const VALUES: [&str; 2] = ["l2announcements.enabled=true", "devices={eth0,eth1}"];
/// Longer than a Lease.
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long one alone must answer before and after a fault.
const STEADY: Duration = Duration::from_secs(1);
/// Longer than a holder answers without renewing its Lease.
const AFTER_RESTART: Duration = Duration::from_secs(8);

/// What happens to the node that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The kubelet starts the agent again.
    Restarted,
    /// The kubelet is down too.
    Gone,
    /// The link that the address is announced on, but not the way to the API server.
    Cut,
    /// All links.
    Isolated,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Heard {
    /// For how long nobody answered.
    silent: Duration,
    /// From the first answer of another until the last of the one before.
    both: Duration,
}

/// Does each fault to whoever answers, several times.
pub(crate) fn measure(options: &ClusterOptions, rounds: usize) -> Result<Vec<Figure>> {
    let cluster = options.open_with("bench-l2", &VALUES)?;
    let link = Link::plug(&cluster)?;
    announce(&cluster)?;
    let mut asking = Asking::start(link.question())?;
    let mut figures = Vec::new();
    for fault in [Fault::Restarted, Fault::Gone, Fault::Cut, Fault::Isolated] {
        let rounds = rounds.min(ROUNDS);
        let mut seen = Vec::new();
        for round in 0..rounds {
            eprint!("\r\x1b[K  {}, round {} of {rounds}", fault.name(), round + 1);
            seen.push(fault.happen(&link, &mut asking)?);
        }
        eprint!("\r\x1b[K");
        figures.extend(fault.figures(&seen));
    }
    Ok(figures)
}

/// A Service with an address on the second link. Nobody serves it: the link is only asked who has the address.
fn announce(cluster: &Cluster) -> Result<()> {
    cluster.namespace()?;
    cluster.apply(&[
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool", "metadata": {"name": "bench"},
            "spec": {"blocks": [{"start": ADDRESS, "stop": ADDRESS}]},
        }),
        json!({
            "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumL2AnnouncementPolicy", "metadata": {"name": "bench"},
            "spec": {"loadBalancerIPs": true, "interfaces": [format!("^{DEVICE}$")]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "announced", "namespace": NAMESPACE},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}]},
        }),
    ])
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::Restarted => "agent killed and started again",
            Self::Gone => "agent killed for good",
            Self::Cut => "link cut",
            Self::Isolated => "node cut off from everybody",
        }
    }

    const fn target(self) -> &'static str {
        match self {
            Self::Restarted => "< 100",
            Self::Gone => "< 15000, the Lease",
            Self::Isolated => "< 17000, the Lease and a retry period",
            Self::Cut => "< 1000",
        }
    }

    /// What is heard around it; afterwards everything is as before.
    fn happen(self, link: &Link<'_>, asking: &mut Asking) -> Result<Heard> {
        let before = asking.until_steady(STEADY, PATIENCE)?;
        let node = link::node(before)?;
        let begin = clock::now() - 10 * PACE;
        self.inject(link, node)?;
        if self == Self::Restarted {
            clock::breathe(AFTER_RESTART);
        } else {
            clock::poll(PATIENCE, PACE, || {
                let after = asking.until_steady(STEADY, STEADY * 2)?;
                ensure!(after != before, "nobody takes {node}'s place");
                Ok(())
            })?;
        }
        let heard = heard(&asking.since(begin));
        self.undo(link, node)?;
        Ok(heard)
    }

    fn inject(self, link: &Link<'_>, node: &str) -> Result<()> {
        match self {
            Self::Restarted => link.cluster.fault("kill", &format!("{node}/agent")),
            Self::Gone => {
                link.cluster.fault("stop", &format!("{node}/kubelet"))?;
                link.cluster.fault("kill", &format!("{node}/agent"))
            }
            Self::Cut => link.set(node, "down"),
            Self::Isolated => {
                link.set(node, "down")?;
                link.cluster.fault("cut", node)
            }
        }
    }

    fn undo(self, link: &Link<'_>, node: &str) -> Result<()> {
        let cluster = link.cluster;
        match self {
            Self::Cut => return link.set(node, "up"),
            Self::Restarted => {}
            Self::Gone => cluster.fault("restore", &format!("{node}/kubelet"))?,
            Self::Isolated => {
                link.set(node, "up")?;
                cluster.fault("restore", node)?;
            }
        }
        cluster.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=120s"])?;
        if self != Self::Isolated {
            // A new pod, without the kubelet's back-off, which grows with each kill.
            cluster.kubectl(&["-n", "kube-system", "delete", "pod", &cluster.agent_pod(node)?])?;
        }
        cluster.kubectl(&["-n", "kube-system", "rollout", "status", "daemonset/cilium", "--timeout=120s"]).map(drop)
    }

    fn figures(self, seen: &[Heard]) -> [Figure; 3] {
        let of =
            |get: fn(&Heard) -> Duration| seen.iter().map(|heard| clock::milliseconds(get(heard))).collect::<Vec<_>>();
        let (silent, both) = (of(|heard| heard.silent), of(|heard| heard.both));
        let figure = |what: &str, value, rounds: &[f64]| Figure {
            rounds: rounds.to_vec(),
            ..Figure::new(format!("{}: {what}", self.name()), "ours", value, "ms")
        };
        [
            figure("nobody answers, median", stats::median(&silent), &silent).target(self.target()),
            figure("nobody answers, longest", stats::percentile(&silent, 1.0), &silent),
            figure("two answer, longest", stats::percentile(&both, 1.0), &both).target("0"),
        ]
    }
}

/// What answers tell, of which the first is from before the fault. A silence is at least the time between two questions.
fn heard(answers: &[Answer]) -> Heard {
    let gap = |pair: &[Answer]| Some(pair.last()?.at - pair.first()?.at);
    let silent = answers.windows(2).filter_map(gap).max().unwrap_or_default();
    let Some(first) = answers.first() else { return Heard { silent, both: Duration::ZERO } };
    let other = answers.iter().find(|answer| answer.mac != first.mac);
    let last = answers.iter().rfind(|answer| answer.mac == first.mac);
    let both = other.zip(last).map(|(other, last)| last.at.saturating_duration_since(other.at));
    Heard { silent, both: both.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_longest_gap_and_two_answer_from_the_first_of_one_to_the_last_of_the_other() {
        let begin = clock::now();
        let all = |answers: &[(u64, u8)]| {
            let answer = |(at, mac): &(u64, u8)| Answer { at: begin + Duration::from_millis(*at), mac: [*mac; 6] };
            let Heard { silent, both } = heard(&answers.iter().map(answer).collect::<Vec<_>>());
            (silent.as_millis(), both.as_millis())
        };
        assert_eq!(all(&[(0, 1), (10, 1), (400, 2), (410, 2)]), (390, 0));
        assert_eq!(all(&[(0, 1), (10, 2), (20, 1), (30, 2)]), (10, 10));
        assert_eq!(all(&[(0, 1), (10, 1)]), (10, 0));
        assert_eq!(all(&[]), (0, 0));
    }
}
