// SPDX-License-Identifier: Apache-2.0
//! Which features of the kube-proxy replacement are on.

object! {
    KubeProxyReplacement {
        /// `True` or `False`.
        mode: String,
        devices: Vec<String>,
        /// The native devices and their addresses.
        device_list = "deviceList": Vec<Device>,
        /// Device by which other nodes are reached directly.
        direct_routing_device = "directRoutingDevice": String,
        features: Option<KubeProxyReplacementFeatures>,
    }

    /// A native device.
    Device {
        name: String,
        ip: Vec<String>,
    }

    KubeProxyReplacementFeatures {
        node_port = "nodePort": Option<NodePort>,
        host_port = "hostPort": Option<Switch>,
        external_ips = "externalIPs": Option<Switch>,
        /// Translation at the socket, as older clients read it.
        host_reachable_services = "hostReachableServices": Option<AnnotatedFeature>,
        socket_lb = "socketLB": Option<Switch>,
        /// Events of translations at the socket.
        socket_lb_tracing = "socketLBTracing": Option<Switch>,
        session_affinity = "sessionAffinity": Option<Switch>,
        /// Connections to terminating backends are kept.
        graceful_termination = "gracefulTermination": Option<Switch>,
        /// Translation between families.
        nat46_x64 = "nat46X64": Option<Nat46X64>,
        /// Translation at the socket is for host processes only.
        bpf_socket_lb_hostns_only = "bpfSocketLBHostnsOnly": bool,
        annotations: Vec<String>,
    }

    /// NodePort.
    NodePort {
        enabled: bool,
        /// `SNAT`, `DSR` or `Hybrid`.
        mode: String,
        /// How DSR tells the service address.
        dsr_mode = "dsrMode": String,
        /// `Random` or `Maglev`.
        algorithm: String,
        /// `None`, `Native`, `Generic` or `Best-Effort`.
        acceleration: String,
        port_min = "portMin": u16,
        port_max = "portMax": u16,
        lut_size = "lutSize": u32,
    }

    /// A feature that is on or off.
    Switch {
        enabled: bool,
    }

    /// A feature with the protocols it serves.
    AnnotatedFeature {
        enabled: bool,
        protocols: Vec<String>,
    }

    /// Translation between families.
    Nat46X64 {
        enabled: bool,
        service: Option<Switch>,
        gateway: Option<Nat46X64Gateway>,
    }

    /// Translation between families as a gateway.
    Nat46X64Gateway {
        enabled: bool,
        /// Prefixes that stand for the other family.
        prefixes: Vec<String>,
    }
}
