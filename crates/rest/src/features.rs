// SPDX-License-Identifier: Apache-2.0
//! Which features of the kube-proxy replacement are on.

object! {
    /// The replacement of kube-proxy.
    KubeProxyReplacement {
        /// `True` or `False`.
        mode: String,
        /// Names of the native devices.
        devices: Vec<String>,
        /// The native devices and their addresses.
        device_list = "deviceList": Vec<Device>,
        /// Device by which other nodes are reached directly.
        direct_routing_device = "directRoutingDevice": String,
        /// Its features.
        features: Option<KubeProxyReplacementFeatures>,
    }

    /// A native device.
    Device {
        /// Name.
        name: String,
        /// Addresses.
        ip: Vec<String>,
    }

    /// Features of the replacement of kube-proxy.
    KubeProxyReplacementFeatures {
        /// NodePort.
        node_port = "nodePort": Option<NodePort>,
        /// HostPort.
        host_port = "hostPort": Option<Switch>,
        /// External IPs.
        external_ips = "externalIPs": Option<Switch>,
        /// Translation at the socket, as older clients read it.
        host_reachable_services = "hostReachableServices": Option<AnnotatedFeature>,
        /// Translation at the socket.
        socket_lb = "socketLB": Option<Switch>,
        /// Events of translations at the socket.
        socket_lb_tracing = "socketLBTracing": Option<Switch>,
        /// Session affinity.
        session_affinity = "sessionAffinity": Option<Switch>,
        /// Connections to terminating backends are kept.
        graceful_termination = "gracefulTermination": Option<Switch>,
        /// Translation between families.
        nat46_x64 = "nat46X64": Option<Nat46X64>,
        /// Translation at the socket is for host processes only.
        bpf_socket_lb_hostns_only = "bpfSocketLBHostnsOnly": bool,
        /// Service annotations that are honoured.
        annotations: Vec<String>,
    }

    /// NodePort.
    NodePort {
        /// Whether it is on.
        enabled: bool,
        /// `SNAT`, `DSR` or `Hybrid`.
        mode: String,
        /// How DSR tells the service address.
        dsr_mode = "dsrMode": String,
        /// `Random` or `Maglev`.
        algorithm: String,
        /// `None`, `Native`, `Generic` or `Best-Effort`.
        acceleration: String,
        /// First port.
        port_min = "portMin": u16,
        /// Last port.
        port_max = "portMax": u16,
        /// Size of the Maglev table.
        lut_size = "lutSize": u32,
    }

    /// A feature that is on or off.
    Switch {
        /// Whether it is on.
        enabled: bool,
    }

    /// A feature with the protocols it serves.
    AnnotatedFeature {
        /// Whether it is on.
        enabled: bool,
        /// Protocols.
        protocols: Vec<String>,
    }

    /// Translation between families.
    Nat46X64 {
        /// Whether it is on.
        enabled: bool,
        /// For services.
        service: Option<Switch>,
        /// As a gateway.
        gateway: Option<Nat46X64Gateway>,
    }

    /// Translation between families as a gateway.
    Nat46X64Gateway {
        /// Whether it is on.
        enabled: bool,
        /// Prefixes that stand for the other family.
        prefixes: Vec<String>,
    }
}
