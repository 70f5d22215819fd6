// SPDX-License-Identifier: Apache-2.0
//! Status of the agent: `/healthz`.

use super::{KubeProxyReplacement, NodeElement};
use std::collections::BTreeMap;

object! {
    /// Status of the agent and of what it runs.
    StatusResponse {
        cilium: Option<Status>,
        /// Key-value store.
        kvstore: Option<Status>,
        cni_file: Option<Status>,
        container_runtime: Option<Status>,
        host_firewall: Option<HostFirewall>,
        hubble: Option<HubbleStatus>,
        hubble_metrics: Option<Status>,
        kubernetes: Option<K8sStatus>,
        /// Device of pods: `veth`, `netkit`.
        datapath_mode: String,
        /// How programs are attached: `tcx` or `tc`.
        attach_mode: String,
        kube_proxy_replacement: Option<KubeProxyReplacement>,
        /// Pod addresses.
        ipam: Option<IpamStatus>,
        /// Events from the kernel.
        node_monitor = "nodeMonitor": Option<MonitorStatus>,
        cluster: Option<ClusterStatus>,
        /// Background work.
        controllers: Vec<ControllerStatus>,
        proxy: Option<ProxyStatus>,
        /// Numbers for identities.
        identity_range: Option<IdentityRange>,
        /// Big TCP over IPv6.
        ipv6_big_tcp: Option<BigTcp>,
        /// Big TCP over IPv4.
        ipv4_big_tcp: Option<BigTcp>,
        bandwidth_manager: Option<BandwidthManager>,
        masquerading: Option<Masquerading>,
        routing: Option<Routing>,
        clock_source: Option<ClockSource>,
        /// Segment routing.
        srv6: Option<Srv6>,
        /// Probes that hang, with the time of their last success.
        stale: BTreeMap<String, String>,
        /// Client, for requests that ask for changes only.
        client_id: i64,
        cluster_mesh: Option<ClusterMeshStatus>,
        bpf_maps: Option<BpfMapStatus>,
        encryption: Option<EncryptionStatus>,
        cni_chaining: Option<CniChainingStatus>,
        /// Provider of certificates for mutual authentication.
        auth_certificate_provider: Option<Status>,
    }

    /// State of one thing.
    Status {
        state: State,
        /// Why, or which.
        msg: String,
    }

    HostFirewall {
        /// `Disabled` or `Enabled`.
        mode: String,
        devices: Vec<String>,
    }

    HubbleStatus {
        state: State,
        msg: String,
        /// Its ring of flows.
        observer: Option<HubbleObserver>,
    }

    /// Hubble's ring of flows.
    HubbleObserver {
        max_flows: u64,
        current_flows: u64,
        /// Flows seen since the start.
        seen_flows: u64,
        /// Since when, as a duration.
        uptime: String,
    }

    /// Kubernetes.
    K8sStatus {
        state: State,
        k8s_api_versions: Vec<String>,
        /// Version of the server.
        msg: String,
    }

    /// Pod addresses.
    IpamStatus {
        /// Address to owner.
        allocations: BTreeMap<String, String>,
        ipv4: Vec<String>,
        ipv6: Vec<String>,
        status: String,
    }

    /// Events from the kernel.
    MonitorStatus {
        cpus: u32,
        /// Pages per processor.
        npages: u32,
        /// Size of a page.
        pagesize: u32,
        lost: u64,
        /// Events not understood.
        unknown: u64,
    }

    /// The nodes.
    ClusterStatus {
        cilium_health = "ciliumHealth": Option<Status>,
        self_name = "self": String,
        nodes: Vec<NodeElement>,
    }

    /// One kind of background work.
    ControllerStatus {
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
        interval: String,
        /// First interval after an error.
        error_retry_base: String,
        error_retry: bool,
    }

    /// How background work went.
    ControllerRun {
        success_count: u64,
        /// Last success, RFC 3339.
        last_success_timestamp: String,
        failure_count: u64,
        /// Last failure, RFC 3339.
        last_failure_timestamp: String,
        /// Failures since the last success.
        consecutive_failure_count: u64,
        last_failure_msg: String,
    }

    /// L7 proxy.
    ProxyStatus {
        port_range: String,
        ip: String,
        total_redirects: u32,
        total_ports: u32,
        /// `embedded` or `external`.
        envoy_deployment_mode: String,
    }

    /// Numbers for identities.
    IdentityRange {
        min_identity: u32,
        max_identity: u32,
    }

    BigTcp {
        enabled: bool,
        /// Largest receive aggregate.
        max_gro = "maxGRO": u32,
        /// Largest send segment.
        max_gso = "maxGSO": u32,
    }

    /// Bandwidth limits of pods.
    BandwidthManager {
        enabled: bool,
        devices: Vec<String>,
        /// `cubic` or `bbr`.
        congestion_control = "congestionControl": String,
    }

    Masquerading {
        enabled: bool,
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
        ipv4: bool,
        ipv6: bool,
    }

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
        hertz: u64,
    }

    /// Segment routing.
    Srv6 {
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
        name: String,
        /// Whether all of its state is here.
        ready: bool,
        /// Whether it can be reached.
        connected: bool,
        num_nodes: u64,
        num_shared_services: u64,
        num_identities: u64,
        num_endpoints: u64,
        /// State of the connection.
        status: String,
        num_failures: u64,
        /// Last failure, RFC 3339.
        last_failure: String,
    }

    BpfMapStatus {
        /// Share of memory for maps.
        dynamic_size_ratio: f64,
        /// Each of them.
        maps: Vec<BpfMap>,
    }

    BpfMap {
        name: String,
        size: u64,
    }

    /// Encryption between nodes.
    EncryptionStatus {
        /// `Disabled`, `IPsec` or `Wireguard`.
        mode: String,
        msg: String,
    }

    CniChainingStatus {
        /// `none`, `portmap` and others.
        mode: String,
    }
}

names! {
    /// State of one thing.
    State {
        Ok = "Ok",
        Warning = "Warning",
        /// Not working.
        Failure = "Failure",
        /// Not in use.
        #[default]
        Disabled = "Disabled",
    }
}
