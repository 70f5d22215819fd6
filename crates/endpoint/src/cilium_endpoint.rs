// SPDX-License-Identifier: Apache-2.0
//! CiliumEndpoint objects of this node's pods, from which other nodes learn their addresses and identities.
//!
//! An object belongs to one pod, by UID. A correct one is not written; one that somebody deletes or changes is
//! recreated as soon as the watch reports it. Before replacing another pod's object, or recreating one, the API server
//! is asked who has the name now: two nodes that each have an endpoint of that name, or a node and the garbage
//! collector, would otherwise undo each other's work for ever.

use crate::ingest_pod;
use futures::future::BoxFuture;
use futures::stream::BufferUnordered;
use futures::{FutureExt, StreamExt, stream};
use k8s::cilium::{
    AddressPair, CiliumEndpoint, EndpointIdentifiers, EndpointIdentity, EndpointNetworking, EndpointStatus, NamedPort,
};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s::kube::Api;
use k8s::kube::api::{DeleteParams, PostParams, Preconditions};
use k8s::{Client, Warning, Warnings, pod_reference};
use model::{Endpoint, EndpointKind, EndpointPolicy, Identity, LocalNode, MeshPod, Pod, PodName, RemoteEndpoint};
use statedb::{Derived, Index, Inputs, Operation, Reader, ReconcileConfig, Snapshot, StatusReader, Tasks};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::vec;
use tokio::time::Instant;

/// The desired object of a pod of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Namespace and name of the pod, and of the object.
    pub pod: PodName,
    /// UID of the pod.
    pub uid: String,
    /// What others read.
    pub status: EndpointStatus,
    /// Whether the API server's watch shows it like this.
    pub published: bool,
}

impl Object {
    fn with_published(self, cluster: &Arc<str>, present: &Reader<RemoteEndpoint>) -> Self {
        let key = MeshPod { cluster: Arc::clone(cluster), pod: self.pod.clone() };
        let published = present.snapshot().get(&key).is_some_and(|remote| matches_watch(&self, &remote));
        Self { published, ..self }
    }

    /// Whether it describes that sandbox.
    fn is_of(&self, endpoint: &Endpoint) -> bool {
        let identifiers = self.status.external_identifiers.as_ref();
        identifiers.and_then(|ids| ids.container_id.as_ref()) == Some(&endpoint.container_id)
    }
}

impl statedb::Row for Object {
    type Key = PodName;
    fn key(&self) -> PodName {
        self.pod.clone()
    }
}

/// Keeps the objects at the API server in line with this node's pods.
pub(crate) fn start(cluster: &str, inputs: &crate::Inputs, tasks: &Tasks) -> StatusReader<Object> {
    let endpoints = inputs.endpoints.reader();
    let facts = Facts {
        endpoints: endpoints.index(|endpoint| endpoint.pod().cloned()),
        policies: inputs.policies.clone(),
        identities: inputs.identities.clone(),
        pods: inputs.pods.clone(),
        node: inputs.local_node.clone(),
        present: inputs.remote_endpoints.clone(),
        cluster: Arc::from(cluster),
    };
    let cluster = Arc::clone(&facts.cluster);
    let objects = derive(tasks, &endpoints, facts);
    let target = Target {
        cluster,
        client: inputs.client.clone(),
        node: inputs.local_node.clone(),
        remote: inputs.remote_endpoints.clone(),
        warnings: inputs.warnings.clone(),
        written: BTreeMap::new(),
        forbidden: BTreeMap::new(),
    };
    statedb::reconcile_with(tasks, "endpoint-cilium-endpoints", objects.rows, target, ReconcileConfig::remote())
}

/// The table of objects. It is complete only once the existing ones are known as well: surplus ones are found among
/// them.
fn derive(tasks: &Tasks, endpoints: &Reader<Endpoint>, facts: Facts) -> Derived<Object> {
    let with_identity = facts.policies.index(|policy| [policy.identity]);
    let [of_policy, of_identity, all] = [(); 3].map(|()| endpoints.clone());
    let name = |endpoints: &Reader<Endpoint>, id| endpoints.snapshot().get(&id)?.pod().cloned();
    let inputs = Inputs::of(endpoints, |endpoint| endpoint.pod().cloned())
        .and(&facts.policies, move |policy| name(&of_policy, policy.endpoint))
        .and(&facts.identities, move |identity| {
            let policies = with_identity.get(&identity.id);
            policies.iter().filter_map(|policy| name(&of_identity, policy.endpoint)).collect::<Vec<_>>()
        })
        .and(&facts.pods, |pod| [pod.name.clone()])
        .and(&facts.node, move |_| all.snapshot().iter().filter_map(|e| e.pod().cloned()).collect::<Vec<_>>())
        .and(&facts.present, |present| [present.pod.clone()]);
    statedb::derive(tasks, "cilium-endpoints", inputs, move |pod, before| resolve(&facts, pod, before))
}

/// Inputs of the objects.
#[derive(Clone, Debug)]
struct Facts {
    endpoints: Index<Endpoint, PodName>,
    policies: Reader<EndpointPolicy>,
    identities: Reader<Identity>,
    pods: Reader<Pod>,
    node: Reader<LocalNode>,
    /// The existing objects, of all nodes.
    present: Reader<RemoteEndpoint>,
    /// This cluster; other clusters' objects are not ours.
    cluster: Arc<str>,
}

/// The object of a pod. An endpoint whose pod, identity or node is unknown has none yet, but keeps the one it had
/// (`before`), so that others still know it. Of two sandboxes of one pod, the one with the addresses in the pod's
/// status counts.
fn resolve(facts: &Facts, name: &PodName, before: Option<&Object>) -> Option<Object> {
    let endpoints = facts.endpoints.get(name);
    let known = |endpoint: &Endpoint| {
        let pod = facts.pods.snapshot().get(name).filter(|pod| is_for(endpoint, pod))?;
        let policy = facts.policies.snapshot().get(&endpoint.id)?;
        let identity = facts.identities.snapshot().get(&policy.identity)?;
        let node = node_address(&*facts.node.snapshot().get(&())?)?;
        let status = status(endpoint, &identity, &pod, node);
        let shown = endpoint.addresses().any(|ip| pod.ips.contains(&ip));
        Some((shown, Object { pod: name.clone(), uid: pod.uid.clone(), status, published: false }))
    };
    let objects = endpoints.iter().filter_map(|endpoint| known(endpoint));
    let former = || before.filter(|object| endpoints.iter().any(|endpoint| object.is_of(endpoint))).cloned();
    let object = objects.max_by_key(|(shown, _)| *shown).map(|(_, object)| object).or_else(former);
    object.map(|object| object.with_published(&facts.cluster, &facts.present))
}

/// Whether an endpoint was created for a pod, or for the static pod that it currently mirrors.
fn is_for(endpoint: &Endpoint, pod: &Pod) -> bool {
    pod.is_mirror() || matches!(&endpoint.kind, EndpointKind::Pod { uid, .. } if pod.uid == *uid)
}

fn node_address(node: &LocalNode) -> Option<IpAddr> {
    node.ipv4.map(IpAddr::V4).or(node.ipv6.map(IpAddr::V6))
}

/// Only what changes as rarely as the pod's identity: every change goes to every node, so policy is left out.
fn status(endpoint: &Endpoint, identity: &Identity, pod: &Pod, node: IpAddr) -> EndpointStatus {
    let addresses =
        AddressPair { ipv4: endpoint.ipv4.map(|ip| ip.to_string()), ipv6: endpoint.ipv6.map(|ip| ip.to_string()) };
    EndpointStatus {
        id: Some(endpoint.id.0.into()),
        state: Some("ready".into()),
        identity: Some(EndpointIdentity { id: Some(identity.id.0.into()), labels: Some(identity.labels.to_strings()) }),
        networking: Some(EndpointNetworking { addressing: vec![addresses], node: Some(node.to_string()) }),
        named_ports: named_ports(pod),
        external_identifiers: Some(EndpointIdentifiers {
            cni_attachment_id: Some(format!("{}:{}", endpoint.container_id, endpoint.interface)),
            container_id: Some(endpoint.container_id.clone()),
            k8s_namespace: Some(pod.name.namespace.to_string()),
            k8s_pod_name: Some(pod.name.name.to_string()),
            pod_name: Some(pod.name.to_string()),
            ..EndpointIdentifiers::default()
        }),
        service_account: Some(pod.service_account.clone()).filter(|name| !name.is_empty()),
        ..EndpointStatus::default()
    }
}

fn named_ports(pod: &Pod) -> Option<Vec<NamedPort>> {
    let mut ports: Vec<_> = pod.named_ports.iter().collect();
    ports.sort_by(|a, b| (&a.name, a.port, a.protocol).cmp(&(&b.name, b.port, b.protocol)));
    ports.dedup();
    let object = |port: &model::NamedPort| NamedPort {
        name: Some(port.name.clone()),
        port: Some(port.port.into()),
        protocol: Some(port.protocol.to_string()),
    };
    (!ports.is_empty()).then(|| ports.into_iter().map(object).collect())
}

/// An object could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("CiliumEndpoint {pod}: {action} failed")]
pub struct Error {
    pod: PodName,
    action: &'static str,
    source: Box<k8s::kube::Error>,
}

/// Writes objects to the API server.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    client: Client,
    node: Reader<LocalNode>,
    remote: Reader<RemoteEndpoint>,
    cluster: Arc<str>,
    warnings: Warnings,
    /// What was last written, as the watch should show it. While it does, there is no need to ask the API server.
    written: BTreeMap<PodName, Object>,
    /// Pods whose object somebody forbids, as a webhook or a quota does, and since when.
    forbidden: BTreeMap<PodName, Forbidden>,
}

#[derive(Clone, Copy, Debug)]
struct Forbidden {
    since: Instant,
    warned: bool,
}

/// After this time the pod is told that its object is forbidden: rules may be granted late, or change in passing.
const PATIENCE: Duration = Duration::from_secs(120);
/// Namespaces served at once, and objects in each: an admission webhook that is slow for one namespace does not hold up the others.
const NAMESPACES: usize = 8;
const EACH: usize = 4;

impl Target {
    /// Writes the object unless its name now belongs to another pod or to none. Returns whether it exists.
    async fn write(&self, object: &Object) -> Result<bool, Error> {
        let api = self.api(&object.pod);
        let name = &*object.pod.name;
        let failed = |action| move |source| Error { pod: object.pod.clone(), action, source: Box::new(source) };
        let present = api.get_opt(name).await.map_err(failed("get"))?;
        let is_own = present.as_ref().map(|present| is_of(present, &object.uid));
        let was_lost = is_own.is_none() && self.written.get(&object.pod).is_some_and(|last| last.uid == object.uid);
        if (was_lost || is_own == Some(false)) && !self.has_pod(object).await.map_err(failed("get pod"))? {
            return Ok(false);
        }
        match present {
            Some(present) if is_own == Some(false) => {
                delete(&api, name, &present).await.map_err(failed("delete"))?;
            }
            Some(present) if present.status.as_ref() == Some(&object.status) => return Ok(true),
            Some(present) => {
                let wanted = CiliumEndpoint { status: Some(object.status.clone()), ..present };
                api.replace(name, &PostParams::default(), &wanted).await.map_err(failed("replace"))?;
                return Ok(true);
            }
            None => {}
        }
        api.create(&PostParams::default(), &new_object(object)).await.map_err(failed("create"))?;
        Ok(true)
    }

    /// Whether the object's pod exists and has not finished. Asks the API server, since tables may lag behind.
    async fn has_pod(&self, object: &Object) -> Result<bool, k8s::kube::Error> {
        let api = self.client.namespaced::<k8s::k8s_openapi::api::core::v1::Pod>(&object.pod.namespace);
        let pod = api.get_opt(&object.pod.name).await?.as_ref().and_then(ingest_pod);
        Ok(pod.is_some_and(|pod| pod.uid == object.uid && !pod.ended))
    }

    /// Deletes an object unless it now belongs to a pod on another node.
    async fn remove(&self, pod: &PodName) -> Result<(), Error> {
        let api = self.api(pod);
        let failed = |action| move |source| Error { pod: pod.clone(), action, source: Box::new(source) };
        let Some(present) = api.get_opt(&pod.name).await.map_err(failed("get"))? else { return Ok(()) };
        if !self.is_local(&present) {
            return Ok(());
        }
        delete(&api, &pod.name, &present).await.map_err(failed("delete"))
    }

    fn is_local(&self, object: &CiliumEndpoint) -> bool {
        let own = self.node.snapshot().get(&()).and_then(|node| node_address(&node)).map(|ip| ip.to_string());
        let networking = object.status.as_ref().and_then(|status| status.networking.as_ref());
        own.is_some() && networking.and_then(|n| n.node.as_ref()) == own.as_ref()
    }

    fn api(&self, pod: &PodName) -> Api<CiliumEndpoint> {
        self.client.namespaced(&pod.namespace)
    }
}

/// Whether the watch shows what matters of the object to others.
fn matches_watch(object: &Object, remote: &RemoteEndpoint) -> bool {
    let networking = object.status.networking.as_ref();
    let shown = AddressPair { ipv4: remote.ipv4.map(|ip| ip.to_string()), ipv6: remote.ipv6.map(|ip| ip.to_string()) };
    object.status.identity.as_ref().and_then(|identity| identity.id) == Some(remote.identity.0.into())
        && networking.is_some_and(|n| n.addressing == [shown] && n.node == remote.host.map(|ip| ip.to_string()))
}

fn is_of(object: &CiliumEndpoint, uid: &str) -> bool {
    object.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Pod" && owner.uid == uid)
}

fn new_object(object: &Object) -> CiliumEndpoint {
    let mut new = CiliumEndpoint::named(&object.pod.name);
    new.metadata.namespace = Some(object.pod.namespace.to_string());
    new.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: object.pod.name.to_string(),
        uid: object.uid.clone(),
        ..OwnerReference::default()
    }]);
    new.status = Some(object.status.clone());
    new
}

/// Deletes that very object; if it is gone or has been replaced, that is fine.
async fn delete(api: &Api<CiliumEndpoint>, name: &str, present: &CiliumEndpoint) -> Result<(), k8s::kube::Error> {
    let preconditions = Preconditions { uid: present.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Err(k8s::kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// An operation and its outcome.
type Performed<'o> = (&'o Operation<Object>, Result<bool, Error>);
/// The operations in a namespace.
type Lane<'a, 'o> = BufferUnordered<stream::Iter<vec::IntoIter<BoxFuture<'a, Performed<'o>>>>>;

impl Target {
    fn lanes<'a, 'o: 'a>(&'a self, operations: &'o [Operation<Object>]) -> Vec<Lane<'a, 'o>> {
        let mut by_namespace: BTreeMap<Arc<str>, Vec<BoxFuture<'a, Performed<'o>>>> = BTreeMap::new();
        for operation in operations {
            let perform = async move { (operation, self.perform(operation).await) };
            by_namespace.entry(operation.key().namespace).or_default().push(perform.boxed());
        }
        by_namespace.into_values().map(|operations| stream::iter(operations).buffer_unordered(EACH)).collect()
    }

    /// Performs an operation. Returns whether the object exists then.
    async fn perform(&self, operation: &Operation<Object>) -> Result<bool, Error> {
        match operation {
            Operation::Update(row) if self.written.get(&row.pod) == Some(row) => Ok(true),
            Operation::Update(row) => self.write(row).await,
            Operation::Delete(pod) => self.remove(pod).await.map(|()| false),
        }
    }

    /// Notes the outcome of an operation.
    fn settle(&mut self, operation: &Operation<Object>, outcome: Result<bool, Error>) -> Result<(), Error> {
        let Operation::Update(row) = operation else {
            self.written.remove(&operation.key());
            self.forbidden.remove(&operation.key());
            return outcome.map(drop);
        };
        match &outcome {
            Ok(exists) => {
                self.forbidden.remove(&row.pod);
                if *exists {
                    self.written.insert(row.pod.clone(), Object { published: true, ..Object::clone(row) });
                }
            }
            Err(error) if k8s::is_permanent(&error.source) || self.is_forbidden_for_long(row, error) => {
                self.warn(row, error);
            }
            Err(_) => {}
        }
        outcome.map(drop)
    }

    /// Whether it is time to tell the pod that its object is forbidden.
    fn is_forbidden_for_long(&mut self, row: &Object, error: &Error) -> bool {
        if !k8s::is_forbidden(&error.source) {
            self.forbidden.remove(&row.pod);
            return false;
        }
        let begun = Forbidden { since: Instant::now(), warned: false };
        let forbidden = self.forbidden.entry(row.pod.clone()).or_insert(begun);
        let is_due = !forbidden.warned && forbidden.since.elapsed() >= PATIENCE;
        forbidden.warned |= is_due;
        is_due
    }

    fn warn(&self, row: &Object, error: &Error) {
        self.warnings.warn(Warning {
            about: pod_reference(&row.pod.namespace, &row.pod.name, &row.uid),
            reason: "CiliumEndpointRefused",
            action: "Publish",
            note: format!("Other nodes do not know this pod: {}", statedb::with_causes(error)),
        });
    }
}

impl statedb::Target<Object> for Target {
    type Error = Error;

    async fn update(&mut self, row: &Object) -> Result<(), Error> {
        let operation = Operation::Update(Arc::new(row.clone()));
        let outcome = self.perform(&operation).await;
        self.settle(&operation, outcome)
    }

    async fn delete(&mut self, key: &PodName) -> Result<(), Error> {
        let operation = Operation::Delete(key.clone());
        let outcome = self.perform(&operation).await;
        self.settle(&operation, outcome)
    }

    async fn apply(&mut self, operations: &[Operation<Object>]) -> Vec<(PodName, Error)> {
        let lanes = stream::iter(self.lanes(operations));
        let outcomes: Vec<_> = lanes.flatten_unordered(NAMESPACES).collect().await;
        let outcomes = outcomes.into_iter();
        outcomes.filter_map(|(done, outcome)| Some((done.key(), self.settle(done, outcome).err()?))).collect()
    }

    fn is_permanent(error: &Error) -> bool {
        k8s::is_permanent(&error.source)
    }

    async fn prune(&mut self, desired: &Snapshot<Object>) -> Result<(), Error> {
        let Some(own) = self.node.snapshot().get(&()).and_then(|node| node_address(&node)) else { return Ok(()) };
        let all = self.remote.snapshot();
        let here = all.iter().filter(|e| e.cluster == self.cluster && e.host == Some(own));
        let stale = here.filter(|e| desired.get(&e.pod).is_none());
        let removals: Vec<_> = stale.map(|endpoint| self.remove(&endpoint.pod).boxed()).collect();
        // One that fails does not keep the others.
        let results: Vec<_> = stream::iter(removals).buffer_unordered(EACH).collect().await;
        results.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
