// SPDX-License-Identifier: Apache-2.0
//! Status of the agent: what `/healthz`, `cilium-dbg status` and the probes say (contracts L.2, H.5).

use crate::api::render_node;
use crate::config::Config;
use crate::connectivity;
use crate::tables::{ReconcilerHealth, Tables};
use model::{LocalNode, Node, RoutingMode};
use parking_lot::Mutex;
use rest::{
    ClusterStatus, CniChainingStatus, ControllerRun, ControllerStatus, EncryptionStatus, HostFirewall, HubbleObserver,
    HubbleStatus, IdentityRange, IpamStatus, K8sStatus, KubeProxyReplacement, KubeProxyReplacementFeatures,
    Masquerading, MonitorStatus, Protocols, Routing, State, Status, StatusResponse, Switch,
};
use statedb::Reader;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Who can tell the status.
pub(crate) trait StatusSource: Send + Sync + 'static {
    /// The status now.
    fn status(&self) -> StatusResponse;
}

/// What the API server said of itself last.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiServer(Arc<Mutex<Option<Result<String, String>>>>);

impl ApiServer {
    /// Notes the outcome of a question.
    pub(crate) fn note(&self, outcome: Result<String, String>) {
        *self.0.lock() = Some(outcome);
    }

    fn last(&self) -> Option<Result<String, String>> {
        self.0.lock().clone()
    }
}

/// Everything that the status is made of.
pub(crate) struct Sources {
    /// Configuration.
    pub(crate) config: Config,
    /// This node.
    pub(crate) local_node: Reader<LocalNode>,
    /// All nodes.
    pub(crate) nodes: Reader<Node>,
    /// Name of this node.
    pub(crate) node_name: String,
    /// What the node waits for or cannot do.
    pub(crate) trouble: watch::Receiver<Option<String>>,
    /// Addresses given to pods, with their owners.
    pub(crate) allocations: Box<dyn Fn() -> BTreeMap<IpAddr, String> + Send + Sync>,
    /// Capacity of each pool: used, all, prefix.
    pub(crate) pools: Box<dyn Fn() -> Vec<(u128, u128, String)> + Send + Sync>,
    /// Hubble.
    pub(crate) hubble: Box<dyn Fn() -> HubbleStatus + Send + Sync>,
    /// Events that the kernel could not deliver.
    pub(crate) events_lost: Box<dyn Fn() -> u64 + Send + Sync>,
    /// `tcx` or `tc`.
    pub(crate) attach_mode: &'static str,
    /// Reconcilers.
    pub(crate) tables: Tables,
    /// The API server.
    pub(crate) api_server: ApiServer,
    /// Tables that have not followed it for a while.
    pub(crate) watches: Box<dyn Fn() -> Vec<k8s::WatchFailure> + Send + Sync>,
    /// The health endpoint, if there is to be one.
    pub(crate) health: Option<connectivity::Endpoint>,
    /// Whether pods can be attached.
    pub(crate) ready: Box<dyn Fn() -> bool + Send + Sync>,
}

impl StatusSource for Sources {
    fn status(&self) -> StatusResponse {
        let node = self.local_node.snapshot().get(&());
        StatusResponse {
            cilium: Some(self.cilium()),
            kvstore: Some(disabled("")),
            kubernetes: Some(self.kubernetes()),
            container_runtime: Some(disabled("")),
            cni_file: Some(self.cni_file()),
            host_firewall: Some(HostFirewall { mode: "Disabled".to_owned(), ..HostFirewall::default() }),
            hubble: Some((self.hubble)()),
            hubble_metrics: Some(disabled("")),
            datapath_mode: "veth".to_owned(),
            attach_mode: self.attach_mode.to_owned(),
            kube_proxy_replacement: Some(self.kube_proxy_replacement(node.as_deref())),
            ipam: Some(self.ipam()),
            node_monitor: Some(self.monitor()),
            cluster: Some(self.cluster()),
            controllers: self.tables.reconcilers().into_iter().map(controller).collect(),
            identity_range: Some(IdentityRange { min_identity: 256, max_identity: 65535 }),
            masquerading: Some(self.masquerading()),
            routing: Some(routing(node.as_deref())),
            encryption: Some(EncryptionStatus { mode: "Disabled".to_owned(), ..EncryptionStatus::default() }),
            cni_chaining: Some(CniChainingStatus { mode: "none".to_owned() }),
            ..StatusResponse::default()
        }
    }
}

impl crate::healthz::Probe for Sources {
    fn check(&self, kubernetes: bool) -> Result<(), String> {
        if !(self.ready)() {
            let why = self.trouble.borrow().clone();
            return Err(format!("the agent is starting: {}", why.as_deref().unwrap_or("endpoints are being restored")));
        }
        match kubernetes_trouble(self.api_server.last().as_ref(), &(self.watches)()) {
            Some(why) if kubernetes => Err(format!("Kubernetes: {why}")),
            _ => Ok(()),
        }
    }
}

impl Sources {
    fn cilium(&self) -> Status {
        let version = concat!(env!("CARGO_PKG_VERSION"), " (cilium-rs)");
        let mut notes = Vec::new();
        let unknown = self.config.unknown();
        if !unknown.is_empty() {
            notes.push(format!("unknown configuration keys: {}", unknown.join(", ")));
        }
        if !self.config.unknown_values.is_empty() {
            notes.push(format!("chart values without effect: {}", self.config.unknown_values.join(", ")));
        }
        match ((self.ready)(), notes.is_empty()) {
            (false, _) => {
                let why = self.trouble.borrow().clone();
                Status { state: State::Warning, msg: format!("starting: {}", why.as_deref().unwrap_or("restoring")) }
            }
            (true, true) => Status { state: State::Ok, msg: version.to_owned() },
            (true, false) => Status { state: State::Ok, msg: format!("{version}; {}", notes.join("; ")) },
        }
    }

    fn kubernetes(&self) -> K8sStatus {
        let apis = [
            "cilium/v2::CiliumClusterwideNetworkPolicy",
            "cilium/v2::CiliumEndpoint",
            "cilium/v2::CiliumNetworkPolicy",
            "cilium/v2::CiliumNode",
            "core/v1::Namespace",
            "core/v1::Pods",
            "core/v1::Service",
            "discovery/v1::EndpointSlice",
            "networking.k8s.io/v1::NetworkPolicy",
        ];
        let last = self.api_server.last();
        let (state, msg) = match (kubernetes_trouble(last.as_ref(), &(self.watches)()), last) {
            (Some(why), _) => (State::Failure, why),
            (None, Some(Ok(version))) => (State::Ok, version),
            (None, _) => (State::Warning, "not asked yet".to_owned()),
        };
        K8sStatus { state, msg, k8s_api_versions: apis.map(str::to_owned).to_vec() }
    }

    fn cni_file(&self) -> Status {
        match &self.config.endpoint.conflist {
            None => disabled("CNI configuration management disabled"),
            Some(path) if path.exists() => Status {
                state: State::Ok,
                msg: format!("successfully wrote CNI configuration file to {}", path.display()),
            },
            Some(path) => Status { state: State::Warning, msg: format!("{} is not written yet", path.display()) },
        }
    }

    fn ipam(&self) -> IpamStatus {
        let owners = (self.allocations)();
        let of = |v4: bool| owners.keys().filter(|ip| ip.is_ipv4() == v4).map(ToString::to_string).collect();
        let pools = (self.pools)();
        let texts: Vec<String> = pools
            .iter()
            .map(|(used, all, prefix)| {
                let family = if prefix.contains(':') { "IPv6" } else { "IPv4" };
                format!("{family}: {used}/{all} allocated from {prefix}")
            })
            .collect();
        IpamStatus {
            allocations: owners.iter().map(|(ip, owner)| (ip.to_string(), owner.clone())).collect(),
            ipv4: of(true),
            ipv6: of(false),
            status: texts.join(", "),
        }
    }

    fn monitor(&self) -> MonitorStatus {
        let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        MonitorStatus { cpus, npages: 64, pagesize: 4096, lost: (self.events_lost)(), unknown: 0 }
    }

    fn cluster(&self) -> ClusterStatus {
        ClusterStatus {
            cilium_health: Some(connectivity::status(self.config.health.enabled, self.health.as_ref())),
            self_name: format!("{}/{}", self.config.node.cluster, self.node_name),
            nodes: self.nodes.snapshot().iter().map(|node| render_node(node)).collect(),
        }
    }

    fn kube_proxy_replacement(&self, node: Option<&LocalNode>) -> KubeProxyReplacement {
        let on = self.config.services.socket_lb();
        let switch = |enabled| Some(Switch { enabled });
        KubeProxyReplacement {
            mode: if on { "True" } else { "False" }.to_owned(),
            devices: node.map(|n| n.devices.clone()).unwrap_or_default(),
            direct_routing_device: node.and_then(|n| n.devices.first().cloned()).unwrap_or_default(),
            features: Some(KubeProxyReplacementFeatures {
                socket_lb: switch(on),
                graceful_termination: switch(on),
                session_affinity: switch(false),
                external_ips: switch(false),
                host_port: switch(false),
                ..KubeProxyReplacementFeatures::default()
            }),
            ..KubeProxyReplacement::default()
        }
    }

    fn masquerading(&self) -> Masquerading {
        let programs = self.config.programs();
        let (ipv4, ipv6) = (programs.masquerade_ipv4 != 0, programs.masquerade_ipv6 != 0);
        Masquerading {
            enabled: ipv4 || ipv6,
            enabled_protocols: Some(Protocols {
                ipv4: ipv4 && programs.enable_ipv4 != 0,
                ipv6: ipv6 && programs.enable_ipv6 != 0,
            }),
            mode: "BPF".to_owned(),
            snat_exclusion_cidr_v4: self.config.node.native_ipv4.map(|net| net.to_string()).unwrap_or_default(),
            snat_exclusion_cidr_v6: self.config.node.native_ipv6.map(|net| net.to_string()).unwrap_or_default(),
            ..Masquerading::default()
        }
    }
}

/// What keeps this node from following the cluster: an API server that does not answer, or tables that stand still although
/// it does.
fn kubernetes_trouble(last: Option<&Result<String, String>>, watches: &[k8s::WatchFailure]) -> Option<String> {
    let texts: Vec<String> = watches.iter().map(ToString::to_string).collect();
    last.and_then(|last| last.as_ref().err().cloned()).or_else(|| (!texts.is_empty()).then(|| texts.join("; ")))
}

/// Hubble's part: figures of its ring when it runs, and why flows are not served where they should be.
pub(crate) fn hubble(figures: Option<hubble::Figures>, problems: &[String]) -> HubbleStatus {
    let Some(figures) = figures else { return HubbleStatus::default() };
    HubbleStatus {
        state: if problems.is_empty() { State::Ok } else { State::Warning },
        msg: problems.join("; "),
        observer: Some(HubbleObserver {
            max_flows: figures.max,
            current_flows: figures.current,
            seen_flows: figures.seen,
            uptime: format!("{}s", figures.uptime.as_secs()),
        }),
    }
}

fn disabled(msg: &str) -> Status {
    Status { state: State::Disabled, msg: msg.to_owned() }
}

fn routing(node: Option<&LocalNode>) -> Routing {
    let tunnel = node.is_none_or(|n| n.routing == RoutingMode::Tunnel);
    Routing {
        inter_host_routing_mode: if tunnel { "Tunnel" } else { "Native" }.to_owned(),
        intra_host_routing_mode: "BPF".to_owned(),
        tunnel_protocol: if tunnel { "vxlan" } else { "" }.to_owned(),
    }
}

fn controller(health: ReconcilerHealth) -> ControllerStatus {
    ControllerStatus {
        name: health.name.to_owned(),
        status: Some(ControllerRun {
            success_count: health.successes,
            failure_count: health.failures,
            consecutive_failure_count: health.failing as u64,
            last_failure_msg: health.message,
            ..ControllerRun::default()
        }),
        ..ControllerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_stands_still_is_trouble_although_the_api_server_answers() {
        let last = Ok("1.36".to_owned());
        assert_eq!(kubernetes_trouble(Some(&last), &[]), None);
        let lasting = std::time::Duration::from_secs(130);
        let failure =
            k8s::WatchFailure { kind: "CiliumNode".into(), lasting, message: "no answer".into(), refused: false };
        let text = "CiliumNode not followed for 130 s: no answer";
        assert_eq!(kubernetes_trouble(Some(&last), &[failure]).as_deref(), Some(text));
        assert_eq!(kubernetes_trouble(Some(&Err("away".to_owned())), &[]).as_deref(), Some("away"));
    }

    #[test]
    fn where_flows_are_not_served_is_a_warning_of_hubble() {
        let figures = || {
            let uptime = std::time::Duration::from_secs(61);
            Some(hubble::Figures { current: 1, max: 4095, seen: 7, rate: 0.0, uptime })
        };
        let fine = hubble(figures(), &[]);
        assert_eq!((fine.state, fine.msg.as_str()), (State::Ok, ""));
        assert_eq!(fine.observer.map(|o| (o.seen_flows, o.uptime)), Some((7, "61s".to_owned())));
        let missing = hubble(figures(), &["network: no server.crt".to_owned()]);
        assert_eq!((missing.state, missing.msg.as_str()), (State::Warning, "network: no server.crt"));
        assert_eq!(hubble(None, &[]).state, State::Disabled);
    }
}
