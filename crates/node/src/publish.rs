// SPDX-License-Identifier: Apache-2.0
//! This node's CiliumNode: its content, and keeping it up to date. Written by server-side apply, so that the operator's
//! fields remain the operator's.

use crate::ingest::KubeNode;
use crate::local::Facts;
use crate::{Config, Ipam};
use ipnet::IpNet;
use k8s::cilium::CiliumNode;
use k8s::kube::Error;
use k8s::kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use model::{Node, reserved};
use serde_json::{Value, json};
use statedb::{Backoff, Reader, Retries};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

const FIELD_MANAGER: &str = "cilium-agent";
/// Back-off between failed attempts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(300));
/// Delay before the same is written again that the API server has refused for what it says: its rules may have changed.
const REFUSED: Duration = Duration::from_secs(600);

/// The desired content of this node's CiliumNode.
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
    /// Only if Kubernetes assigns them, and has; otherwise the field is the operator's.
    pod_cidrs: Option<Vec<IpNet>>,
    boot_id: String,
}

impl Publication {
    /// Before there are pod CIDRs the node is published without a router, so that the operator can assign some. A
    /// previously published router stays.
    pub(crate) fn new(
        config: &Config,
        kube: &KubeNode,
        known: NodeFacts<'_>,
        health: Vec<IpAddr>,
        boot_id: &str,
    ) -> Self {
        let enabled = |ip: &&IpAddr| if ip.is_ipv4() { config.ipv4 } else { config.ipv6 };
        let pod_cidrs = match known {
            // A Node that has just re-registered has none yet.
            NodeFacts::Published(Some(own)) if kube.pod_cidrs.is_empty() => own.pod_cidrs.clone(),
            _ => kube.pod_cidrs.clone(),
        };
        let (internal_ips, routers) = match known {
            NodeFacts::Complete(facts) => {
                let found = facts.wire.ipv4.into_iter().chain(facts.wire.ipv6);
                let mut all: Vec<IpAddr> = kube.internal_ips.iter().filter(enabled).copied().collect();
                all.extend(found.filter(|ip| !kube.internal_ips.contains(ip)));
                (all, facts.wire.routers.clone())
            }
            NodeFacts::Published(own) => {
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
            pod_cidrs: Some(pod_cidrs).filter(|cidrs| config.ipam == Ipam::Kubernetes && !cidrs.is_empty()),
            boot_id: boot_id.to_owned(),
        }
    }

    /// The object with only pod CIDRs. Anything else in it would stay, whatever is applied later.
    fn with_pod_cidrs(&self, pod_cidrs: &[IpNet]) -> Value {
        json!({"metadata": {"name": self.name}, "spec": {"ipam": {"podCIDRs": texts(pod_cidrs)}}})
    }

    /// In the form for server-side apply.
    fn patch(&self) -> Value {
        let address = |kind: &str, ip: &IpAddr| json!({"type": kind, "ip": ip.to_string()});
        let addresses: Vec<Value> = self
            .internal_ips
            .iter()
            .map(|ip| address("InternalIP", ip))
            .chain(self.external_ips.iter().map(|ip| address("ExternalIP", ip)))
            .chain(self.routers.iter().map(|ip| address("CiliumInternalIP", ip)))
            .collect();
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

    /// Whether the API server already has the same.
    fn is_said_by(&self, row: &Node) -> bool {
        row.internal_ips == self.internal_ips
            && row.external_ips == self.external_ips
            && row.cilium_internal_ips == self.routers
            && row.health_ips == self.health
            && self.pod_cidrs.as_ref().is_none_or(|pod_cidrs| *pod_cidrs == row.pod_cidrs)
            && self.labels.iter().all(|(key, value)| row.labels.get(key) == Some(value))
    }
}

/// What is known about the node beyond its Node object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NodeFacts<'a> {
    /// All of it.
    Complete(&'a Facts),
    /// Only what was published before, if anything.
    Published(Option<&'a Node>),
}

pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn texts(pod_cidrs: &[IpNet]) -> Vec<String> {
    pod_cidrs.iter().map(ToString::to_string).collect()
}

/// Keeps the CiliumNode up to date: writes it at start, when its desired content changes, and when somebody else has
/// changed or deleted it. Without a Node to own it, nothing is written.
pub(crate) async fn keep(client: k8s::Client, nodes: Reader<Node>, mut wanted: watch::Receiver<Option<Publication>>) {
    let mut changes = nodes.subscribe();
    let mut written = Written::default();
    loop {
        let snapshot = nodes.snapshot();
        let publication = wanted.borrow_and_update().clone();
        let wait = match publication {
            Some(publication) => written.bring(&client, publication, snapshot.iter().find(|node| node.local)).await,
            None => None,
        };
        let retry = async {
            match wait {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            _ = changes.next() => {}
            () = retry => {}
        }
    }
}

/// What has become of the object so far.
struct Written {
    last: Option<Publication>,
    retries: Retries,
    /// What the API server has refused for what it says, and until when it is left alone.
    refused: Option<(Publication, Instant)>,
    /// What the operator has assigned to this node.
    given: Vec<IpNet>,
}

impl Default for Written {
    fn default() -> Self {
        Self { last: None, retries: Retries::new(RETRY), refused: None, given: Vec::new() }
    }
}

impl Written {
    /// Writes what is wanted unless the API server has it. Returns when to try again, if that failed.
    async fn bring(&mut self, client: &k8s::Client, wanted: Publication, own: Option<&Arc<Node>>) -> Option<Instant> {
        if let Some(own) = own.filter(|node| !node.pod_cidrs.is_empty()) {
            self.given.clone_from(&own.pod_cidrs);
        }
        if self.last.as_ref() == Some(&wanted) && own.is_some_and(|own| wanted.is_said_by(own)) {
            return None;
        }
        if let Some((refused, until)) = &self.refused
            && *refused == wanted
            && *until > Instant::now()
        {
            return Some(*until);
        }
        match write(&client.all(), &wanted, &self.given).await {
            Ok(()) => {
                if self.retries.succeeded() || self.refused.take().is_some() {
                    info!(node = wanted.name, "CiliumNode can be written again");
                }
                self.last = Some(wanted);
                None
            }
            Err(error) => Some(self.failed(wanted, &error)),
        }
    }

    fn failed(&mut self, wanted: Publication, error: &Error) -> Instant {
        let now = Instant::now();
        if k8s::is_permanent(error) {
            if self.refused.is_none() {
                warn!(node = wanted.name, %error, "the API server rejects this node's CiliumNode");
            }
            self.refused = Some((wanted, now + REFUSED));
            return now + REFUSED;
        }
        if !self.retries.failing() {
            warn!(node = wanted.name, %error, "cannot write CiliumNode, retrying");
        }
        now + self.retries.failed()
    }
}

/// Writes the object. An existing one is changed, but not recreated if it vanishes meanwhile; one that is gone, for
/// example with its Node, is recreated with the pod CIDRs it had, since pods still use them.
async fn write(api: &Api<CiliumNode>, publication: &Publication, given: &[IpNet]) -> Result<(), Error> {
    let uid = match find(api, &publication.name).await? {
        Some(present) => present.metadata.uid,
        None if publication.pod_cidrs.is_none() && !given.is_empty() => {
            warn!(node = publication.name, pod_cidrs = ?given, "CiliumNode was deleted, recreating it with its former pod CIDRs");
            let object = serde_json::from_value(publication.with_pod_cidrs(given)).map_err(Error::SerdeError)?;
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            api.create(&params, &object).await?.metadata.uid
        }
        None => None,
    };
    apply(api, publication, uid).await
}

/// With a UID only that object is changed, and none is created.
async fn apply(api: &Api<CiliumNode>, publication: &Publication, uid: Option<String>) -> Result<(), Error> {
    let mut patch = publication.patch();
    if let (Some(uid), Some(metadata)) = (uid, patch.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("uid".to_owned(), uid.into());
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&publication.name, &params, &Patch::Apply(patch)).await.map(drop)
}

/// The object at the API server. Uses a list, which the agent is allowed to make anyway.
async fn find(api: &Api<CiliumNode>, name: &str) -> Result<Option<CiliumNode>, Error> {
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    Ok(api.list(&params).await?.items.pop())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ingest::ingest_node;
    use axum::http::{Method, Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use k8s::kube::client::Body;
    use parking_lot::Mutex;

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
        let k8s::Ingested::Row(node) = ingest_node("default", "node1", &object) else { panic!("not what was written") };
        node
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_node() {
        let config = Config { ipam: Ipam::Kubernetes, ..Config::default() };
        let publication = Publication::new(&config, &kube(), NodeFacts::Published(None), Vec::new(), "b");
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
        let publication = Publication::new(&Config::default(), &kube(), NodeFacts::Published(None), Vec::new(), "b");
        assert_eq!(publication.patch()["spec"]["ipam"], json!({}));
        let given = Node { pod_cidrs: vec!["10.5.0.0/24".parse().unwrap()], ..published(&publication) };
        assert!(publication.is_said_by(&given));
    }

    #[test]
    fn pod_cidrs_of_kubernetes_stay_until_it_has_others() {
        let config = Config { ipam: Ipam::Kubernetes, ..Config::default() };
        let publish = |kube: &KubeNode, own: Option<&Node>| {
            Publication::new(&config, kube, NodeFacts::Published(own), Vec::new(), "b").patch()["spec"]["ipam"].clone()
        };
        let own = published(&Publication::new(&config, &kube(), NodeFacts::Published(None), Vec::new(), "b"));
        let without = KubeNode { pod_cidrs: Vec::new(), ..kube() };
        assert_eq!(publish(&without, Some(&own)), json!({"podCIDRs": ["10.0.1.0/24"]}));
        assert_eq!(publish(&without, None), json!({}));
        let others = KubeNode { pod_cidrs: vec!["10.0.9.0/24".parse().unwrap()], ..kube() };
        assert_eq!(publish(&others, Some(&own)), json!({"podCIDRs": ["10.0.9.0/24"]}));
    }

    /// The one CiliumNode at the API server, the requests in their order, and the code with which it refuses patches.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Stored>>);

    type Stored = (Option<Value>, Vec<String>, Option<StatusCode>);

    impl Server {
        fn client(&self) -> k8s::kube::Client {
            let server = self.clone();
            let answer = move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    Ok::<_, std::convert::Infallible>(server.answer(&parts.method, serde_json::from_slice(&body).ok()))
                }
            };
            k8s::kube::Client::new(tower::service_fn(answer), "default")
        }

        fn answer(&self, method: &Method, body: Option<Value>) -> Response<Body> {
            let (object, requests, refusal) = &mut *self.0.lock();
            requests.push(method.to_string());
            let refused =
                |status: StatusCode| (status, json!({"kind": "Status", "code": status.as_u16(), "message": "refused"}));
            let stale = json!({"kind": "Status", "code": 409, "reason": "Conflict", "message": "another uid"});
            let (status, answer) = match (method.as_str(), body) {
                ("GET", _) => {
                    let items: Vec<_> = object.iter().collect();
                    (
                        StatusCode::OK,
                        json!({"kind": "CiliumNodeList", "apiVersion": "cilium.io/v2", "metadata": {}, "items": items}),
                    )
                }
                ("POST", Some(mut new)) if object.is_none() => {
                    new["metadata"]["uid"] = json!("made");
                    (StatusCode::CREATED, object.insert(new).clone())
                }
                ("PATCH", _) if refusal.is_some() => refused(refusal.unwrap()),
                ("PATCH", Some(patch)) => {
                    let uid = &patch["metadata"]["uid"];
                    let present = object.as_ref().map_or(&Value::Null, |object| &object["metadata"]["uid"]);
                    if !uid.is_null() && uid != present {
                        (StatusCode::CONFLICT, stale)
                    } else {
                        let object = object.get_or_insert_with(|| json!({"metadata": {"uid": "applied"}, "spec": {}}));
                        for part in ["metadata", "spec"] {
                            for (key, value) in patch[part].as_object().unwrap() {
                                // Applying leaves others' pod CIDRs alone.
                                if key != "ipam" || *value != json!({}) {
                                    object[part][key] = value.clone();
                                }
                            }
                        }
                        (StatusCode::OK, object.clone())
                    }
                }
                _ => (StatusCode::CONFLICT, stale),
            };
            Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap()
        }

        fn requests(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().1)
        }

        fn object(&self) -> Value {
            self.0.lock().0.clone().unwrap()
        }
    }

    fn of_owner(uid: &str) -> Publication {
        let kube = KubeNode { uid: uid.to_owned(), ..kube() };
        Publication::new(&Config::default(), &kube, NodeFacts::Published(None), Vec::new(), "b")
    }

    #[tokio::test]
    async fn a_node_that_is_registered_anew_keeps_its_pod_cidrs_whether_its_object_went_or_not() {
        let given: Vec<IpNet> = vec!["10.5.0.0/24".parse().unwrap()];
        for goes in [false, true] {
            let server = Server::default();
            let api = Api::all(server.client());
            write(&api, &of_owner("first"), &[]).await.unwrap();
            assert_eq!(server.requests(), ["GET", "PATCH"], "there is nothing to give back");
            if goes {
                server.0.lock().0 = None;
            } else {
                server.0.lock().0.as_mut().unwrap()["spec"]["ipam"] = json!({"podCIDRs": ["10.5.0.0/24"]});
            }
            write(&api, &of_owner("second"), &given).await.unwrap();
            let object = server.object();
            assert_eq!(object["spec"]["ipam"]["podCIDRs"], json!(["10.5.0.0/24"]));
            assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "second");
            assert_eq!(object["spec"]["addresses"][0]["ip"], "192.168.77.11");
            let expected: &[&str] = if goes { &["GET", "POST", "PATCH"] } else { &["GET", "PATCH"] };
            assert_eq!(server.requests(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_what_it_says_waits_until_something_else_is_wanted_or_a_long_time_has_passed() {
        let server = Server::default();
        server.0.lock().2 = Some(StatusCode::UNPROCESSABLE_ENTITY);
        let (_writer, nodes) = statedb::table("nodes");
        let (want, wanted) = watch::channel(Some(of_owner("first")));
        let task = tokio::spawn(keep(server.client().into(), nodes, wanted));
        tokio::time::sleep(REFUSED / 2).await;
        assert_eq!(server.requests(), ["GET", "PATCH"]);
        want.send_replace(Some(of_owner("second")));
        tokio::time::sleep(REFUSED / 2).await;
        assert_eq!(server.requests(), ["GET", "PATCH"]);
        server.0.lock().2 = None;
        tokio::time::sleep(REFUSED).await;
        assert_eq!(server.object()["metadata"]["ownerReferences"][0]["uid"], "second");
        task.abort();
    }

    #[tokio::test]
    async fn an_object_that_goes_while_it_is_written_is_not_made_without_its_pod_cidrs() {
        let server = Server::default();
        let api = Api::all(server.client());
        write(&api, &of_owner("first"), &[]).await.unwrap();
        let present = find(&api, "node1").await.unwrap().unwrap();
        server.0.lock().0 = None;
        assert!(apply(&api, &of_owner("second"), present.metadata.uid).await.is_err());
        assert!(server.0.lock().0.is_none());
    }

    #[tokio::test]
    async fn kubernetes_word_on_pod_cidrs_is_not_preceded_by_what_was() {
        let config = Config { ipam: Ipam::Kubernetes, ..Config::default() };
        let publication = Publication::new(&config, &kube(), NodeFacts::Published(None), Vec::new(), "b");
        let server = Server::default();
        write(&Api::all(server.client()), &publication, &["10.5.0.0/24".parse().unwrap()]).await.unwrap();
        assert_eq!(server.requests(), ["GET", "PATCH"]);
        assert_eq!(server.object()["spec"]["ipam"]["podCIDRs"], json!(["10.0.1.0/24"]));
    }

    #[test]
    fn a_router_that_was_published_stays_while_the_agent_starts() {
        let own = Node {
            cilium_internal_ips: vec!["10.0.1.9".parse().unwrap()],
            ..published(&Publication::new(&Config::default(), &kube(), NodeFacts::Published(None), Vec::new(), "b"))
        };
        let publication =
            Publication::new(&Config::default(), &kube(), NodeFacts::Published(Some(&own)), Vec::new(), "b");
        assert_eq!(published(&publication).cilium_internal_ips, own.cilium_internal_ips);
    }

    #[test]
    fn health_addresses_are_published_by_family() {
        let health: Vec<IpAddr> = vec!["10.0.1.7".parse().unwrap(), "fd00:1::7".parse().unwrap()];
        let with = |health| Publication::new(&Config::default(), &kube(), NodeFacts::Published(None), health, "b");
        assert_eq!(with(health.clone()).patch()["spec"]["health"], json!({"ipv4": "10.0.1.7", "ipv6": "fd00:1::7"}));
        assert_eq!(published(&with(health.clone())).health_ips, health);
        assert!(with(health.clone()).is_said_by(&published(&with(health.clone()))));
        assert!(!with(Vec::new()).is_said_by(&published(&with(health))), "they are withdrawn");
        assert_eq!(with(Vec::new()).patch()["spec"].get("health"), None);
    }

    #[test]
    fn an_object_that_somebody_changed_does_not_say_it_any_more() {
        let publication = Publication::new(&Config::default(), &kube(), NodeFacts::Published(None), Vec::new(), "b");
        let changed = Node { internal_ips: Vec::new(), ..published(&publication) };
        assert!(!publication.is_said_by(&changed));
    }
}
