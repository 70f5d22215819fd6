// SPDX-License-Identifier: Apache-2.0
//! Status of the agent: `/healthz`.

use super::{KubeProxyReplacement, NodeElement};
use std::collections::BTreeMap;

object! {
    /// Status of the agent and of what it runs.
    StatusResponse {
        /// The agent.
        cilium: Option<Status>,
        /// Key-value store.
        kvstore: Option<Status>,
        /// CNI configuration file.
        cni_file: Option<Status>,
        /// Container runtime.
        container_runtime: Option<Status>,
        /// Host firewall.
        host_firewall: Option<HostFirewall>,
        /// Hubble.
        hubble: Option<HubbleStatus>,
        /// Hubble's metrics.
        hubble_metrics: Option<Status>,
        /// Kubernetes.
        kubernetes: Option<K8sStatus>,
        /// Device of pods: `veth`, `netkit`.
        datapath_mode: String,
        /// How programs are attached: `tcx` or `tc`.
        attach_mode: String,
        /// Replacement of kube-proxy.
        kube_proxy_replacement: Option<KubeProxyReplacement>,
        /// Pod addresses.
        ipam: Option<IpamStatus>,
        /// Events from the kernel.
        node_monitor = "nodeMonitor": Option<MonitorStatus>,
        /// The nodes.
        cluster: Option<ClusterStatus>,
        /// Background work.
        controllers: Vec<ControllerStatus>,
        /// L7 proxy.
        proxy: Option<ProxyStatus>,
        /// Numbers for identities.
        identity_range: Option<IdentityRange>,
        /// Big TCP over IPv6.
        ipv6_big_tcp: Option<BigTcp>,
        /// Big TCP over IPv4.
        ipv4_big_tcp: Option<BigTcp>,
        /// Bandwidth limits of pods.
        bandwidth_manager: Option<BandwidthManager>,
        /// Masquerading.
        masquerading: Option<Masquerading>,
        /// Routing.
        routing: Option<Routing>,
        /// Clock that programs read.
        clock_source: Option<ClockSource>,
        /// Segment routing.
        srv6: Option<Srv6>,
        /// Probes that hang, with the time of their last success.
        stale: BTreeMap<String, String>,
        /// Client, for requests that ask for changes only.
        client_id: i64,
        /// Other clusters.
        cluster_mesh: Option<ClusterMeshStatus>,
        /// Maps.
        bpf_maps: Option<BpfMapStatus>,
        /// Encryption between nodes.
        encryption: Option<EncryptionStatus>,
        /// CNI chaining.
        cni_chaining: Option<CniChainingStatus>,
        /// Provider of certificates for mutual authentication.
        auth_certificate_provider: Option<Status>,
    }

    /// State of one thing.
    Status {
        /// State.
        state: State,
        /// Why, or which.
        msg: String,
    }

    /// Host firewall.
    HostFirewall {
        /// `Disabled` or `Enabled`.
        mode: String,
        /// Devices.
        devices: Vec<String>,
    }

    /// Hubble.
    HubbleStatus {
        /// State.
        state: State,
        /// Why.
        msg: String,
        /// Its ring of flows.
        observer: Option<HubbleObserver>,
    }

    /// Hubble's ring of flows.
    HubbleObserver {
        /// Capacity.
        max_flows: u64,
        /// Flows held.
        current_flows: u64,
        /// Flows seen since the start.
        seen_flows: u64,
        /// Since when, as a duration.
        uptime: String,
    }

    /// Kubernetes.
    K8sStatus {
        /// State.
        state: State,
        /// APIs in use.
        k8s_api_versions: Vec<String>,
        /// Version of the server.
        msg: String,
    }

    /// Pod addresses.
    IpamStatus {
        /// Address to owner.
        allocations: BTreeMap<String, String>,
        /// IPv4 addresses in use.
        ipv4: Vec<String>,
        /// IPv6 addresses in use.
        ipv6: Vec<String>,
        /// Summary.
        status: String,
    }

    /// Events from the kernel.
    MonitorStatus {
        /// Processors.
        cpus: u32,
        /// Pages per processor.
        npages: u32,
        /// Size of a page.
        pagesize: u32,
        /// Events lost.
        lost: u64,
        /// Events not understood.
        unknown: u64,
    }

    /// The nodes.
    ClusterStatus {
        /// Health probes.
        cilium_health = "ciliumHealth": Option<Status>,
        /// Name of this node.
        self_name = "self": String,
        /// All nodes.
        nodes: Vec<NodeElement>,
    }

    /// One kind of background work.
    ControllerStatus {
        /// Name.
        name: String,
        /// Unique number.
        uuid: String,
        /// How it runs.
        configuration: Option<ControllerConfiguration>,
        /// How it went.
        status: Option<ControllerRun>,
    }

    /// How background work runs.
    ControllerConfiguration {
        /// Interval.
        interval: String,
        /// First interval after an error.
        error_retry_base: String,
        /// Whether it is retried.
        error_retry: bool,
    }

    /// How background work went.
    ControllerRun {
        /// Successes.
        success_count: u64,
        /// Last success, RFC 3339.
        last_success_timestamp: String,
        /// Failures.
        failure_count: u64,
        /// Last failure, RFC 3339.
        last_failure_timestamp: String,
        /// Failures since the last success.
        consecutive_failure_count: u64,
        /// The last failure.
        last_failure_msg: String,
    }

    /// L7 proxy.
    ProxyStatus {
        /// Ports of redirects.
        port_range: String,
        /// Address.
        ip: String,
        /// Redirects.
        total_redirects: u32,
        /// Ports in use.
        total_ports: u32,
        /// `embedded` or `external`.
        envoy_deployment_mode: String,
    }

    /// Numbers for identities.
    IdentityRange {
        /// First.
        min_identity: u32,
        /// Last.
        max_identity: u32,
    }

    /// Big TCP.
    BigTcp {
        /// Whether it is on.
        enabled: bool,
        /// Largest receive aggregate.
        max_gro = "maxGRO": u32,
        /// Largest send segment.
        max_gso = "maxGSO": u32,
    }

    /// Bandwidth limits of pods.
    BandwidthManager {
        /// Whether it is on.
        enabled: bool,
        /// Devices.
        devices: Vec<String>,
        /// `cubic` or `bbr`.
        congestion_control = "congestionControl": String,
    }

    /// Masquerading.
    Masquerading {
        /// Whether it is on.
        enabled: bool,
        /// For which families.
        enabled_protocols = "enabledProtocols": Option<Protocols>,
        /// `BPF` or `iptables`.
        mode: String,
        /// Whether an ip-masq-agent configuration is read.
        ip_masq_agent: bool,
        /// Prefix that is not masqueraded, as older clients read it.
        snat_exclusion_cidr: String,
        /// IPv4 prefix that is not masqueraded.
        snat_exclusion_cidr_v4: String,
        /// IPv6 prefix that is not masqueraded.
        snat_exclusion_cidr_v6: String,
    }

    /// Address families.
    Protocols {
        /// IPv4.
        ipv4: bool,
        /// IPv6.
        ipv6: bool,
    }

    /// Routing.
    Routing {
        /// `Native` or `Tunnel`.
        inter_host_routing_mode: String,
        /// `BPF` or `Legacy`.
        intra_host_routing_mode: String,
        /// `vxlan` or `geneve`.
        tunnel_protocol: String,
    }

    /// Clock that programs read.
    ClockSource {
        /// `ktime` or `jiffies`.
        mode: String,
        /// Its rate.
        hertz: u64,
    }

    /// Segment routing.
    Srv6 {
        /// Whether it is on.
        enabled: bool,
        /// `SRH` or `Reduced`.
        encap_mode = "srv6EncapMode": String,
    }

    /// Other clusters.
    ClusterMeshStatus {
        /// Each of them.
        clusters: Vec<RemoteCluster>,
    }

    /// Another cluster.
    RemoteCluster {
        /// Name.
        name: String,
        /// Whether all of its state is here.
        ready: bool,
        /// Whether it can be reached.
        connected: bool,
        /// Nodes.
        num_nodes: u64,
        /// Global services.
        num_shared_services: u64,
        /// Identities.
        num_identities: u64,
        /// Endpoints.
        num_endpoints: u64,
        /// State of the connection.
        status: String,
        /// Failures.
        num_failures: u64,
        /// Last failure, RFC 3339.
        last_failure: String,
    }

    /// Maps.
    BpfMapStatus {
        /// Share of memory for maps.
        dynamic_size_ratio: f64,
        /// Each of them.
        maps: Vec<BpfMap>,
    }

    /// A map.
    BpfMap {
        /// Name.
        name: String,
        /// Capacity.
        size: u64,
    }

    /// Encryption between nodes.
    EncryptionStatus {
        /// `Disabled`, `IPsec` or `Wireguard`.
        mode: String,
        /// Why.
        msg: String,
    }

    /// CNI chaining.
    CniChainingStatus {
        /// `none`, `portmap` and others.
        mode: String,
    }
}

names! {
    /// State of one thing.
    State {
        /// In order.
        Ok = "Ok",
        /// Degraded.
        Warning = "Warning",
        /// Not working.
        Failure = "Failure",
        /// Not in use.
        #[default]
        Disabled = "Disabled",
    }
}
