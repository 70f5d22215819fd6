// SPDX-License-Identifier: Apache-2.0
//! Services: `/service`, why one is as it is: `/service/explain/{namespace}/{name}`, and local redirect policies: `/lrp`.

object! {
    /// A frontend with its backends.
    Service {
        spec: Option<ServiceSpec>,
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
        frontend_address: Option<FrontendAddress>,
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
        ext_traffic_policy = "extTrafficPolicy": String,
        int_traffic_policy = "intTrafficPolicy": String,
        /// Translation between families.
        nat_policy = "natPolicy": String,
        health_check_node_port = "healthCheckNodePort": u16,
        name: String,
        namespace: String,
        cluster: String,
    }

    BackendAddress {
        ip: String,
        protocol: String,
        port: u16,
        node_name = "nodeName": String,
        /// `active`, `terminating` and others.
        state: String,
        preferred: bool,
        weight: u16,
        zone: String,
    }

    /// A local redirect policy.
    LrpSpec {
        uid: String,
        name: String,
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
        frontend_address: Option<FrontendAddress>,
        backends: Vec<LrpBackend>,
    }

    /// A pod to which a frontend is redirected.
    LrpBackend {
        /// Namespace and name.
        pod_id = "pod-id": String,
        backend_address: Option<BackendAddress>,
    }

    FrontendAddress {
        ip: String,
        protocol: String,
        /// `external` or `internal`.
        scope: String,
        port: u16,
    }
    /// Why a Service is as it is on a node.
    ServiceExplanation {
        /// Namespace and name.
        service: String,
        node: String,
        /// What its annotations keep this node from serving, if they do.
        not_served_because: Option<String>,
        /// Policies and the like, each as `name: value`.
        settings: Vec<String>,
        /// Fields that are not honoured, and why.
        problems: Vec<String>,
        /// Where it is reached.
        frontends: Vec<ExplainedFrontend>,
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
        policy: String,
        /// Backends that new connections go to.
        backends: u64,
    }

    /// An endpoint of a Service.
    ExplainedEndpoint {
        address: String,
        /// Name of the Service's port.
        port: String,
        node: String,
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
        address: String,
        device: String,
        service: String,
    }
}
