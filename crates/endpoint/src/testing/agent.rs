// SPDX-License-Identifier: Apache-2.0
//! The agent's side of this crate with tables that a test fills, and a policy that permits everything.

use super::fakes::{FakeInterfaces, FakeLinks, Pool};
use super::local_node;
use crate::attachment::Attachment;
use crate::config::Waits;
use crate::health::{HealthEndpoint, Keeper};
use crate::interfaces::Interfaces;
use crate::manager::Manager;
use crate::manager::restore::HostLinks;
use crate::{Config, Core, Maps, Started};
use datapath::{Epochs, fake};
use model::{Endpoint, EndpointPolicy, Identity, IdentityId, Label, LocalNode, Node, Pod, PodName, PolicyId};
use parking_lot::Mutex;
use statedb::{Reader, TaskFailure, Tasks, Writer};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct Agent {
    pub(crate) router: axum::Router,
    pub(crate) pods: Writer<Pod>,
    pub(crate) endpoints: Reader<Endpoint>,
    pub(crate) attachments: Reader<Attachment>,
    pub(crate) health: watch::Receiver<Result<HealthEndpoint, String>>,
    pub(crate) kernel: fake::Kernel,
    pub(crate) pool: Pool,
    pub(crate) manager: Arc<Manager>,
    pub(crate) local_node: Writer<LocalNode>,
    /// How it ended.
    pub(crate) ended: JoinHandle<Result<(), TaskFailure>>,
    _identities: Writer<Identity>,
    token: CancellationToken,
}

/// What a test may want to be otherwise.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) kernel: fake::Kernel,
    /// Whether policy permits each endpoint by itself.
    pub(crate) permit: bool,
    /// Other maps than those of the kernel in memory.
    pub(crate) maps: Option<(Maps, Epochs)>,
    pub(crate) node: LocalNode,
    /// The nodes of the cluster, if there is to be a health endpoint.
    pub(crate) nodes: Option<Reader<Node>>,
}

impl Setup {
    pub(crate) fn new(runtime: &Path) -> Self {
        let defaults = Config::default();
        let waits = Waits { pod: Duration::from_millis(300), attach: Duration::from_secs(2), ..defaults.waits.clone() };
        let config = Config { runtime: runtime.to_owned(), ipv6: true, waits, ..defaults };
        let pool = Pool { size: 100, ..Pool::default() };
        Self { config, pool, kernel: fake::Kernel::new(), permit: true, maps: None, node: local_node(), nodes: None }
    }

    pub(crate) fn start(self) -> (Agent, FakeInterfaces, FakeLinks) {
        let (interfaces, links) = (FakeInterfaces::default(), FakeLinks::default());
        (self.start_with(interfaces.clone(), links.clone()), interfaces, links)
    }

    pub(crate) fn start_with<I: Interfaces, L: HostLinks + Clone>(self, interfaces: I, links: L) -> Agent {
        let token = CancellationToken::new();
        let tasks = Tasks::new(token.clone());
        let (endpoints_writer, endpoints) = statedb::table("endpoints");
        let (mut pods, pods_reader) = statedb::table("k8s-pods");
        let (mut policies, policies_reader) = statedb::table("endpoint-policies");
        let (mut identities, identities_reader) = statedb::table("identities");
        let (mut local_node, local_node_reader) = statedb::table("local-node");
        pods.mark_initialized();
        policies.mark_initialized();
        identities.insert(Identity { id: IdentityId(4242), labels: [Label::k8s("app", "x")].into_iter().collect() });
        identities.mark_initialized();
        local_node.insert(self.node);
        local_node.mark_initialized();
        let in_memory = || (Maps::open(&self.kernel).unwrap(), Epochs::open(&self.kernel).unwrap());
        let (maps, epochs) = self.maps.unwrap_or_else(in_memory);
        let core = Core {
            endpoints: endpoints_writer,
            pods: pods_reader,
            policies: policies_reader,
            identities: identities_reader,
            local_node: local_node_reader,
            addresses: Arc::new(self.pool.clone()),
            maps,
            epochs,
            warnings: k8s::Warnings::channel().0,
        };
        let policies = Arc::new(Mutex::new(policies));
        if self.permit {
            tasks.spawn("permit", permit(endpoints.clone(), Arc::clone(&policies)));
        }
        let Started { router, attachments, manager, .. } = core.start(self.config, interfaces, links, &tasks);
        let (state, health) = watch::channel(Err(String::new()));
        if let Some(nodes) = self.nodes {
            let manager = Arc::clone(&manager);
            tasks.spawn("health", Keeper { manager, node: local_node.reader(), nodes, state }.run());
        }
        let ended = tokio::spawn(tasks.run_until_failure());
        let (kernel, pool, _identities) = (self.kernel, self.pool, identities);
        Agent {
            router,
            pods,
            endpoints,
            attachments,
            health,
            kernel,
            pool,
            manager,
            local_node,
            ended,
            _identities,
            token,
        }
    }
}

impl Agent {
    /// Makes a pod known.
    pub(crate) fn know(&mut self, namespace: &str, name: &str) {
        self.pods.insert(pod(namespace, name));
        self.pods.commit();
    }

    /// Ends the agent; what it left in the kernel and on disk stays.
    pub(crate) fn kill(&self) {
        self.token.cancel();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

pub(crate) fn pod(namespace: &str, name: &str) -> Pod {
    Pod {
        name: PodName::new(namespace, name),
        uid: format!("uid-{name}"),
        labels: [("app".to_owned(), "x".to_owned()), ("other".to_owned(), "y".to_owned())].into(),
        annotations: Default::default(),
        service_account: "default".into(),
        host_network: false,
        ips: vec![],
        workload: None,
        named_ports: vec![],
        host_ports: vec![],
        ready: true,
        ended: false,
    }
}

async fn permit(endpoints: Reader<Endpoint>, policies: Arc<Mutex<Writer<EndpointPolicy>>>) {
    let mut changes = endpoints.subscribe();
    loop {
        changes.next().await;
        let mut policies = policies.lock();
        policies.replace(changes.snapshot().iter().map(|endpoint| EndpointPolicy {
            endpoint: endpoint.id,
            identity: IdentityId(4242),
            policy: PolicyId(0),
            ingress_enforced: false,
            egress_enforced: false,
            revision: 1,
        }));
        policies.commit();
    }
}
