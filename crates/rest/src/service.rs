// SPDX-License-Identifier: Apache-2.0
//! Services: `/service`, why one is as it is: `/service/explain/{namespace}/{name}`, and local redirect policies: `/lrp`.

object! {
    /// A frontend with its backends.
    Service {
        /// What is wanted.
        spec: Option<ServiceSpec>,
        /// What is in the maps.
        status: Option<ServiceStatus>,
    }

    /// What is in the maps.
    ServiceStatus {
        /// The service as realised.
        realized: Option<ServiceSpec>,
    }

    /// A frontend with its backends.
    ServiceSpec {
        /// Number of the service.
        id: u32,
        /// Frontend.
        frontend_address: Option<FrontendAddress>,
        /// Backends.
        backend_addresses: Vec<BackendAddress>,
        /// Kind and policies.
        flags: Option<ServiceFlags>,
    }

    /// Kind and policies of a service.
    ServiceFlags {
        /// Kind, such as `ClusterIP`.
        kind = "type": String,
        /// Traffic policy, as older clients read it.
        traffic_policy = "trafficPolicy": String,
        /// External traffic policy.
        ext_traffic_policy = "extTrafficPolicy": String,
        /// Internal traffic policy.
        int_traffic_policy = "intTrafficPolicy": String,
        /// Translation between families.
        nat_policy = "natPolicy": String,
        /// Port of the health check.
        health_check_node_port = "healthCheckNodePort": u16,
        /// Name of the Service.
        name: String,
        /// Namespace of the Service.
        namespace: String,
        /// Cluster of the Service.
        cluster: String,
    }

    /// A backend.
    BackendAddress {
        /// Address.
        ip: String,
        /// Protocol.
        protocol: String,
        /// Port.
        port: u16,
        /// Node it runs on.
        node_name = "nodeName": String,
        /// `active`, `terminating` and others.
        state: String,
        /// Whether it is preferred by affinity.
        preferred: bool,
        /// Weight.
        weight: u16,
        /// Zone.
        zone: String,
    }

    /// A local redirect policy.
    LrpSpec {
        /// UID of the object.
        uid: String,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// Which frontends it names: an address or a Service, and how many of their ports.
        frontend_type: String,
        /// The Service, if it names one.
        service_id = "service-id": String,
        /// What is redirected now.
        frontend_mappings: Vec<FrontendMapping>,
    }

    /// A frontend that is redirected.
    FrontendMapping {
        /// The frontend.
        frontend_address: Option<FrontendAddress>,
        /// The pods.
        backends: Vec<LrpBackend>,
    }

    /// A pod to which a frontend is redirected.
    LrpBackend {
        /// Namespace and name.
        pod_id = "pod-id": String,
        /// Its address and port.
        backend_address: Option<BackendAddress>,
    }

    /// A frontend.
    FrontendAddress {
        /// Address.
        ip: String,
        /// Protocol.
        protocol: String,
        /// `external` or `internal`.
        scope: String,
        /// Port.
        port: u16,
    }
    /// Why a Service is as it is on a node.
    ServiceExplanation {
        /// Namespace and name.
        service: String,
        /// The node.
        node: String,
        /// What its annotations keep this node from serving, if they do.
        not_served_because: Option<String>,
        /// Policies and the like, each as `name: value`.
        settings: Vec<String>,
        /// Fields that are not honoured, and why.
        problems: Vec<String>,
        /// Where it is reached.
        frontends: Vec<ExplainedFrontend>,
        /// Every endpoint of it.
        endpoints: Vec<ExplainedEndpoint>,
        /// The addresses of it that this node answers for on its links.
        announced: Vec<AnnouncedAddress>,
    }

    /// An address at which a Service is reached.
    ExplainedFrontend {
        /// Address, port and protocol; `/i` at the end if it is for clients inside of the cluster.
        address: String,
        /// Kind, such as `ClusterIP`.
        kind = "type": String,
        /// The other Service that has the address.
        taken_by: String,
        /// Traffic policy.
        policy: String,
        /// Backends that new connections go to.
        backends: u64,
    }

    /// An endpoint of a Service.
    ExplainedEndpoint {
        /// Address, port and protocol.
        address: String,
        /// Name of the Service's port.
        port: String,
        /// Node it runs on.
        node: String,
        /// Zone it is in.
        zone: String,
        /// `active`, `terminating` and others; empty if it is no backend under any policy.
        state: String,
        /// Why it is left out where the policy is Cluster.
        left_out: String,
        /// Why it is left out where the policy is Local.
        left_out_locally: String,
    }

    /// An address that is answered for on a link.
    AnnouncedAddress {
        /// Address.
        address: String,
        /// Name of the device.
        device: String,
        /// Namespace and name of the Service.
        service: String,
    }
}
