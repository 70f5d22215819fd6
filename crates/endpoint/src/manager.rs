// SPDX-License-Identifier: Apache-2.0
//! The one writer of the table of endpoints: adds and removes them, and releases their addresses only once the kernel
//! has forgotten them.

use crate::addresses::{AddressError, Addresses, Families, Leases};
use crate::attachment::{Attachment, AttachmentKey};
use crate::config::Config;
use crate::journal::Journal;
use crate::reference::{AttachmentId, EndpointRef};
use crate::rest::{AddressPair, EndpointChangeRequest};
use crate::state::{State, StateError};
use k8s::{Warning, Warnings, pod_reference};
use model::{Endpoint, EndpointId, EndpointKind, Mac, Pod, PodName};
use parking_lot::Mutex;
use rest::EndpointState;
use roster::{Joining, Roster};
use statedb::{Derived, Reader, StatusReader, Writer};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

mod recover;
pub(crate) mod restore;
mod roster;

/// An endpoint cannot be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// A field of the request.
    #[error("{field}: {why}")]
    Invalid {
        /// Its name in the request.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    #[error("endpoint {id} has attachment {attachment} already")]
    Exists {
        /// The endpoint that has it.
        id: EndpointId,
        attachment: AttachmentId,
    },
    /// The API server has not reported the pod.
    #[error("pod {0} is not known on this node: the API server has not reported it yet, or it is gone")]
    UnknownPod(PodName),
    /// The pod uses the node's network.
    #[error("pod {0} uses the node's network: it has no endpoint")]
    HostNetwork(PodName),
    /// Every id is taken.
    #[error("no endpoint id is free on this node")]
    NoId,
    #[error(transparent)]
    Address(#[from] AddressError),
    /// It could not be written to disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// Policy or datapath are not ready in time.
    #[error("endpoint {id} of {owner} cannot communicate yet: {why}")]
    NotAttached {
        /// The endpoint.
        id: EndpointId,
        /// Whose it is.
        owner: String,
        /// What is missing.
        why: String,
    },
}

/// What the manager reads.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) pods: Reader<Pod>,
    pub(crate) attachments: Derived<Attachment>,
    pub(crate) status: StatusReader<Attachment>,
}

/// Adds and removes endpoints.
pub(crate) struct Manager {
    config: Config,
    state: State,
    addresses: Arc<dyn Addresses>,
    leases: Leases,
    roster: Mutex<Roster>,
    endpoints: Reader<Endpoint>,
    sources: Sources,
    warnings: Warnings,
    journal: Journal,
    restored: watch::Sender<bool>,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}

impl Manager {
    pub(crate) fn new(
        config: Config,
        addresses: Arc<dyn Addresses>,
        writer: Writer<Endpoint>,
        sources: Sources,
        warnings: Warnings,
    ) -> Self {
        Self {
            state: State::new(&config.state()),
            endpoints: writer.reader(),
            roster: Mutex::new(Roster::new(writer)),
            leases: Leases::default(),
            journal: Journal::default(),
            restored: watch::channel(false).0,
            config,
            addresses,
            sources,
            warnings,
        }
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) const fn endpoints(&self) -> &Reader<Endpoint> {
        &self.endpoints
    }

    /// Whether the endpoints on disk are restored, so that requests can be served.
    pub(crate) fn restored(&self) -> watch::Receiver<bool> {
        self.restored.subscribe()
    }

    pub(crate) const fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Allocates addresses for a pod; with `leased` they expire unless an endpoint uses them in time.
    pub(crate) fn allocate(&self, owner: &str, families: Families, leased: bool) -> Result<AddressPair, AddressError> {
        let allocated =
            self.addresses.allocate(owner, families).inspect_err(|error| self.warn_of_exhaustion(owner, error))?;
        if leased {
            return Ok(self.leases.begin(owner, allocated, self.config.waits.lease));
        }
        Ok(AddressPair { ipv4: allocated.ipv4, ipv6: allocated.ipv6, ..AddressPair::default() })
    }

    /// Tell the pod's author that a larger pool is needed.
    fn warn_of_exhaustion(&self, owner: &str, error: &AddressError) {
        let name = owner.split_once('/').map(|(namespace, name)| PodName::new(namespace, name));
        let pod = name.and_then(|name| self.sources.pods.snapshot().get(&name));
        if let (AddressError::Exhausted(_), Some(pod)) = (error, pod) {
            self.warnings.warn(Warning {
                about: pod_reference(&pod.name.namespace, &pod.name.name, &pod.uid),
                reason: "AddressesExhausted",
                action: "Attach",
                note: error.to_string(),
            });
        }
    }

    /// Claims one address.
    pub(crate) fn claim(&self, owner: &str, ip: IpAddr) -> Result<(), AddressError> {
        self.addresses.claim(owner, ip)
    }

    /// Releases an owner's address, unless an endpoint has it. Without an owner, the one of its lease is meant.
    pub(crate) fn release(&self, owner: Option<&str>, ip: IpAddr) -> Result<(), AddressError> {
        // Held until done, so that no endpoint starts using it meanwhile.
        let roster = self.roster.lock();
        if let Some(id) = roster.user(ip) {
            return Err(AddressError::InUse { ip, id });
        }
        let owner = owner.map(ToOwned::to_owned).or_else(|| self.leases.owner(ip)).unwrap_or_default();
        self.addresses.release(&owner, ip)?;
        self.leases.redeem(&owner, ip);
        Ok(())
    }

    /// Adds an endpoint and returns once it can communicate. If that takes too long, it is removed without a trace.
    pub(crate) async fn create(
        self: &Arc<Self>,
        id: &AttachmentId,
        request: &EndpointChangeRequest,
    ) -> Result<Endpoint, CreateError> {
        let (draft, name) = draft(id, request, &self.config)?;
        let pod = self.wait_for_pod(&name, &request.k8s_uid).await?;
        let endpoint =
            self.insert(Endpoint { kind: EndpointKind::Pod { name, uid: pod.uid.clone() }, ..draft }).await?;
        if request.sync_build_endpoint { self.attach(endpoint).await } else { Ok(endpoint) }
    }

    /// Adds the health endpoint: no container runtime knows about it, and it does not outlive this process.
    pub(crate) async fn create_health(self: &Arc<Self>, draft: Endpoint) -> Result<Endpoint, CreateError> {
        let endpoint = self.insert(draft).await?;
        self.attach(endpoint).await
    }

    /// Returns once an endpoint can communicate, or removes it.
    async fn attach(self: &Arc<Self>, endpoint: Endpoint) -> Result<Endpoint, CreateError> {
        if tokio::time::timeout(self.config.waits.attach, self.attached(&endpoint)).await.is_err() {
            let why = self.what_is_missing(endpoint.id);
            self.remove(&EndpointRef::Local(endpoint.id)).await;
            return Err(CreateError::NotAttached { id: endpoint.id, owner: endpoint.owner(), why });
        }
        self.journal.note(endpoint.id, EndpointState::Ready, "attached");
        tracing::debug!(endpoint = %endpoint.id, owner = endpoint.owner(), "endpoint attached");
        Ok(endpoint)
    }

    /// Removes all endpoints with that name and returns how many there were, once the kernel has forgotten them and
    /// their addresses are free (or after a while, leaving the rest to the background).
    pub(crate) async fn remove(self: &Arc<Self>, name: &EndpointRef) -> usize {
        self.remove_all(|endpoint| name.matches(endpoint)).await
    }

    /// The same for all endpoints that meet a condition.
    async fn remove_all(self: &Arc<Self>, chosen: impl Fn(&Endpoint) -> bool) -> usize {
        let removed = self.roster.lock().take_out(chosen);
        for endpoint in &removed {
            self.journal.forget(endpoint.id);
            tracing::debug!(endpoint = %endpoint.id, owner = endpoint.owner(), "endpoint removed");
        }
        let manager = Arc::clone(self);
        let gone = removed.clone();
        let forget = tokio::spawn(async move { manager.forget(&gone).await });
        let _ = tokio::time::timeout(Duration::from_secs(10), forget).await;
        removed.len()
    }

    async fn forget(&self, endpoints: &[Arc<Endpoint>]) {
        self.remove_state(endpoints.iter().map(|endpoint| endpoint.id).collect()).await;
        self.roster.lock().left(endpoints);
        self.sources.attachments.caught_up().await;
        let attachments = self.sources.attachments.rows.snapshot().revision();
        for endpoint in endpoints {
            self.sources.status.applied(&AttachmentKey::Pod(endpoint.id), attachments).await;
            for ip in endpoint.addresses() {
                let _ = self.release(Some(&endpoint.owner()), ip);
            }
        }
    }

    async fn remove_state(&self, ids: Vec<EndpointId>) {
        let state = self.state.clone();
        let remove = move || {
            for id in ids {
                if let Err(error) = state.remove(id) {
                    let error = statedb::with_causes(&error);
                    tracing::warn!(endpoint = %id, error, "cannot delete the state of a removed endpoint");
                }
            }
        };
        statedb::blocking(remove).await;
    }

    async fn insert(&self, draft: Endpoint) -> Result<Endpoint, CreateError> {
        let joining = Joining::reserve(&self.roster, draft)?;
        let endpoint = joining.endpoint().clone();
        let owner = endpoint.owner();
        for ip in endpoint.addresses() {
            self.addresses.claim(&owner, ip)?;
        }
        if endpoint.kind != EndpointKind::Health {
            let (state, saved) = (self.state.clone(), endpoint.clone());
            statedb::blocking(move || state.save(&saved)).await?;
        }
        for ip in endpoint.addresses() {
            self.leases.redeem(&owner, ip);
        }
        self.journal.note(endpoint.id, EndpointState::WaitingForIdentity, "created");
        Ok(joining.admit())
    }

    /// The pod's row, once the API server has reported that pod and not an earlier one of the same name.
    async fn wait_for_pod(&self, name: &PodName, uid: &str) -> Result<Arc<Pod>, CreateError> {
        let find = async {
            let mut changes = self.sources.pods.subscribe();
            loop {
                if let Some(pod) = self.sources.pods.snapshot().get(name).filter(|pod| is_same_pod(pod, uid)) {
                    return pod;
                }
                changes.next().await;
            }
        };
        let pod = tokio::time::timeout(self.config.waits.pod, find).await;
        let pod = pod.map_err(|_| CreateError::UnknownPod(name.clone()))?;
        if pod.host_network { Err(CreateError::HostNetwork(name.clone())) } else { Ok(pod) }
    }

    async fn attached(&self, endpoint: &Endpoint) {
        let key = AttachmentKey::Pod(endpoint.id);
        let mut changes = self.sources.attachments.rows.subscribe();
        loop {
            changes.next().await;
            if let Some(revision) = changes.snapshot().revision_of(&key) {
                return self.sources.status.applied(&key, revision).await;
            }
        }
    }

    fn what_is_missing(&self, id: EndpointId) -> String {
        let key = AttachmentKey::Pod(id);
        match self.sources.status.get(&key).map(|s| s.state) {
            Some(statedb::State::Error { message, .. }) => message,
            _ if self.sources.attachments.rows.snapshot().get(&key).is_none() => {
                "its policy is not computed yet".into()
            }
            _ => "the datapath is not ready".into(),
        }
    }
}

/// The runtime knows a static pod by a different UID than its mirror has in the API.
fn is_same_pod(pod: &Pod, uid: &str) -> bool {
    uid.is_empty() || pod.uid == uid || pod.is_mirror()
}

fn has_address(endpoint: &Endpoint, ip: IpAddr) -> bool {
    endpoint.addresses().any(|own| own == ip)
}

/// An endpoint without an id, and its pod, from a complete request.
fn draft(
    id: &AttachmentId,
    request: &EndpointChangeRequest,
    config: &Config,
) -> Result<(Endpoint, PodName), CreateError> {
    let invalid = |field, why: &str| CreateError::Invalid { field, why: why.to_owned() };
    let given =
        |field, text: &str| if text.is_empty() { Err(invalid(field, "is missing")) } else { Ok(text.to_owned()) };
    let mac = |field, mac: Option<Mac>| mac.ok_or_else(|| invalid(field, "is missing"));
    if !request.container_id.is_empty() && request.container_id != id.container_id {
        return Err(invalid("container-id", "is not that of the attachment in the path"));
    }
    if request.interface_index == 0 {
        return Err(invalid("interface-index", "is missing"));
    }
    let (ipv4, ipv6) = (request.addressing.ipv4, request.addressing.ipv6);
    if ipv4.is_none() && ipv6.is_none() {
        return Err(invalid("addressing", "holds no address"));
    }
    if (ipv4.is_some() && !config.ipv4) || (ipv6.is_some() && !config.ipv6) {
        return Err(invalid("addressing", "holds an address of a family that is not enabled"));
    }
    let cookie = Some(&request.netns_cookie).filter(|cookie| !cookie.is_empty()).map_or(Ok(0), |cookie| cookie.parse());
    let netns_cookie = cookie.map_err(|_| invalid("netns-cookie", "is no number"))?;
    let namespace = given("k8s-namespace", &request.k8s_namespace)?;
    let pod = PodName::new(namespace, given("k8s-pod-name", &request.k8s_pod_name)?);
    let draft = Endpoint {
        id: EndpointId(0),
        kind: EndpointKind::Pod { name: pod.clone(), uid: request.k8s_uid.clone() },
        container_id: id.container_id.clone(),
        interface: id.interface.clone(),
        netns: request.container_netns_path.clone(),
        netns_cookie,
        host_interface: given("interface-name", &request.interface_name)?,
        host_ifindex: request.interface_index,
        mac: mac("mac", request.mac)?,
        host_mac: mac("host-mac", request.host_mac)?,
        ipv4,
        ipv6,
    };
    Ok((draft, pod))
}

#[cfg(test)]
mod tests;
