// SPDX-License-Identifier: Apache-2.0
//! Services: `/service`.

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
}
