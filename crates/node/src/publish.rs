// SPDX-License-Identifier: Apache-2.0
//! The CiliumNode of this node: what it says, and keeping it said. Written by server-side apply, so that the operator's
//! fields stay the operator's.

use crate::ingest::KubeNode;
use crate::local::Facts;
use crate::{Config, Ipam};
use ipnet::IpNet;
use k8s::cilium::CiliumNode;
use k8s::kube::api::{Patch, PatchParams};
use model::{Node, reserved};
use serde_json::{Value, json};
use statedb::Reader;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// Whose fields they are.
const FIELD_MANAGER: &str = "cilium-agent";
/// The longest wait between attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Wait after the first failure.
const RETRY_MIN: Duration = Duration::from_millis(200);

/// What this node's CiliumNode is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    name: String,
    uid: String,
    labels: BTreeMap<String, String>,
    internal_ips: Vec<IpAddr>,
    external_ips: Vec<IpAddr>,
    routers: Vec<IpAddr>,
    /// Addresses of the health endpoint.
    health: Vec<IpAddr>,
    /// Only where Kubernetes decides on them; otherwise the field is the operator's.
    pod_cidrs: Option<Vec<IpNet>>,
    boot_id: String,
}

impl Publication {
    /// Before there are pod CIDRs the node is published without a router, so that the operator can give it some. A router
    /// that was published earlier stays.
    pub(crate) fn new(config: &Config, kube: &KubeNode, known: Known<'_>, health: Vec<IpAddr>, boot_id: &str) -> Self {
        let enabled = |ip: &&IpAddr| if ip.is_ipv4() { config.ipv4 } else { config.ipv6 };
        let (internal_ips, routers) = match known {
            Known::Facts(facts) => {
                let found = facts.wire.ipv4.into_iter().chain(facts.wire.ipv6);
                let mut all: Vec<IpAddr> = kube.internal_ips.iter().filter(enabled).copied().collect();
                all.extend(found.filter(|ip| !kube.internal_ips.contains(ip)));
                (all, facts.wire.routers.clone())
            }
            Known::Own(own) => {
                let routers = own.map(|own| own.cilium_internal_ips.clone()).unwrap_or_default();
                (kube.internal_ips.iter().filter(enabled).copied().collect(), routers)
            }
        };
        Self {
            name: kube.name.clone(),
            uid: kube.uid.clone(),
            labels: kube.labels.clone(),
            internal_ips,
            external_ips: kube.external_ips.clone(),
            routers,
            health,
            pod_cidrs: (config.ipam == Ipam::Kubernetes).then(|| kube.pod_cidrs.clone()),
            boot_id: boot_id.to_owned(),
        }
    }

    /// As server-side apply wants it.
    fn patch(&self) -> Value {
        let address = |kind: &str, ip: &IpAddr| json!({"type": kind, "ip": ip.to_string()});
        let addresses: Vec<Value> = self
            .internal_ips
            .iter()
            .map(|ip| address("InternalIP", ip))
            .chain(self.external_ips.iter().map(|ip| address("ExternalIP", ip)))
            .chain(self.routers.iter().map(|ip| address("CiliumInternalIP", ip)))
            .collect();
        let texts = |pod_cidrs: &Vec<IpNet>| pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ipam = self.pod_cidrs.as_ref().map_or_else(|| json!({}), |cidrs| json!({"podCIDRs": texts(cidrs)}));
        let mut spec = json!({
            "addresses": addresses,
            "bootid": self.boot_id,
            "nodeidentity": reserved::REMOTE_NODE.0,
            "ipam": ipam,
        });
        if let Some(spec) = spec.as_object_mut().filter(|_| !self.health.is_empty()) {
            let family = |ip: &IpAddr| if ip.is_ipv4() { "ipv4" } else { "ipv6" };
            let by_family: BTreeMap<_, _> = self.health.iter().map(|ip| (family(ip), ip.to_string())).collect();
            spec.insert("health".to_owned(), json!(by_family));
        }
        json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNode",
            "metadata": {
                "name": self.name,
                "labels": self.labels,
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self.uid}],
            },
            "spec": spec,
        })
    }

    /// Whether the API server says the same already.
    fn is_said_by(&self, row: &Node) -> bool {
        row.internal_ips == self.internal_ips
            && row.external_ips == self.external_ips
            && row.cilium_internal_ips == self.routers
            && row.health_ips == self.health
            && self.pod_cidrs.as_ref().is_none_or(|pod_cidrs| *pod_cidrs == row.pod_cidrs)
            && self.labels.iter().all(|(key, value)| row.labels.get(key) == Some(value))
    }
}

/// What is known of the node besides Kubernetes' word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known<'a> {
    /// Everything.
    Facts(&'a Facts),
    /// Only what was published before, if anything was.
    Own(Option<&'a Node>),
}

/// The number that changes when the machine boots.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Keeps the CiliumNode as it should be: writes it at the start, when what it should say changes, and when somebody else
/// has changed or deleted it.
pub(crate) async fn keep(client: k8s::Client, nodes: Reader<Node>, mut wanted: watch::Receiver<Option<Publication>>) {
    let mut changes = nodes.subscribe();
    let mut said: Option<Publication> = None;
    let mut failures = 0_u32;
    loop {
        let publication = wanted.borrow_and_update().clone();
        if let Some(publication) = publication {
            let snapshot = nodes.snapshot();
            let row = snapshot.get(&publication.name);
            if said.as_ref() != Some(&publication) || !row.is_some_and(|row| publication.is_said_by(&row)) {
                match apply(&client, &publication).await {
                    Ok(()) => {
                        if failures > 0 {
                            info!(node = publication.name, "CiliumNode written again");
                        }
                        (said, failures) = (Some(publication), 0);
                    }
                    Err(error) => {
                        if failures == 0 {
                            warn!(node = publication.name, %error, "CiliumNode cannot be written, trying again");
                        }
                        failures = failures.saturating_add(1);
                    }
                }
            }
        }
        let retry = async {
            match failures {
                0 => std::future::pending().await,
                n => tokio::time::sleep((RETRY_MIN * 2_u32.saturating_pow(n.min(16) - 1)).min(RETRY_MAX)).await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            _ = changes.next() => {}
            () = retry => {}
        }
    }
}

async fn apply(client: &k8s::Client, publication: &Publication) -> Result<(), k8s::kube::Error> {
    let api = client.all::<CiliumNode>();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&publication.name, &params, &Patch::Apply(publication.patch())).await.map(drop)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::ingest::ingest_node;

    fn kube() -> KubeNode {
        KubeNode {
            name: "node1".to_owned(),
            uid: "u-1".to_owned(),
            internal_ips: vec!["192.168.77.11".parse().unwrap(), "fd77::11".parse().unwrap()],
            external_ips: vec!["203.0.113.7".parse().unwrap()],
            pod_cidrs: vec!["10.0.1.0/24".parse().unwrap()],
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        }
    }

    pub(crate) fn published(publication: &Publication) -> Node {
        let object: CiliumNode = serde_json::from_value(publication.patch()).unwrap();
        ingest_node("default", "node1", &object).unwrap().unwrap()
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_node() {
        let config = Config { ipam: Ipam::Kubernetes, ..Config::default() };
        let publication = Publication::new(&config, &kube(), Known::Own(None), Vec::new(), "b");
        let row = published(&publication);
        assert!(publication.is_said_by(&row));
        assert_eq!(row.internal_ips, ["192.168.77.11".parse::<IpAddr>().unwrap()], "IPv6 is off");
        assert_eq!(row.pod_cidrs, kube().pod_cidrs);
        assert_eq!(row.identity, reserved::REMOTE_NODE);
        let owner = &publication.patch()["metadata"]["ownerReferences"][0];
        assert_eq!((owner["kind"].as_str(), owner["uid"].as_str()), (Some("Node"), Some("u-1")));
    }

    #[test]
    fn pod_cidrs_of_the_operator_are_never_written_by_the_agent() {
        let publication = Publication::new(&Config::default(), &kube(), Known::Own(None), Vec::new(), "b");
        assert_eq!(publication.patch()["spec"]["ipam"], json!({}));
        let given = Node { pod_cidrs: vec!["10.5.0.0/24".parse().unwrap()], ..published(&publication) };
        assert!(publication.is_said_by(&given));
    }

    #[test]
    fn a_router_that_was_published_stays_while_the_agent_starts() {
        let own = Node {
            cilium_internal_ips: vec!["10.0.1.9".parse().unwrap()],
            ..published(&Publication::new(&Config::default(), &kube(), Known::Own(None), Vec::new(), "b"))
        };
        let publication = Publication::new(&Config::default(), &kube(), Known::Own(Some(&own)), Vec::new(), "b");
        assert_eq!(published(&publication).cilium_internal_ips, own.cilium_internal_ips);
    }

    #[test]
    fn health_addresses_are_published_by_family() {
        let health: Vec<IpAddr> = vec!["10.0.1.7".parse().unwrap(), "fd00:1::7".parse().unwrap()];
        let with = |health| Publication::new(&Config::default(), &kube(), Known::Own(None), health, "b");
        assert_eq!(with(health.clone()).patch()["spec"]["health"], json!({"ipv4": "10.0.1.7", "ipv6": "fd00:1::7"}));
        assert_eq!(published(&with(health.clone())).health_ips, health);
        assert!(with(health.clone()).is_said_by(&published(&with(health.clone()))));
        assert!(!with(Vec::new()).is_said_by(&published(&with(health))), "they are withdrawn");
        assert_eq!(with(Vec::new()).patch()["spec"].get("health"), None);
    }

    #[test]
    fn an_object_that_somebody_changed_does_not_say_it_any_more() {
        let publication = Publication::new(&Config::default(), &kube(), Known::Own(None), Vec::new(), "b");
        let changed = Node { internal_ips: Vec::new(), ..published(&publication) };
        assert!(!publication.is_said_by(&changed));
    }
}
