// SPDX-License-Identifier: Apache-2.0
//! Addresses of the cluster: `/ip` and `/cluster/nodes`.

object! {
    /// A prefix and its identity.
    IpListEntry {
        cidr: String,
        identity: u32,
        /// The node behind which it is.
        host_ip = "hostIP": String,
        /// Key of its node, when traffic is encrypted.
        encrypt_key = "encryptKey": u32,
        /// What is known of its owner.
        metadata: Option<IpListEntryMetadata>,
    }

    /// What is known of the owner of a prefix.
    IpListEntryMetadata {
        /// Who said so.
        source: String,
        namespace: String,
        name: String,
    }

    ClusterNodes {
        /// Client, for requests that ask for changes only.
        client_id: i64,
        self_name = "self": String,
        /// Nodes that are there, or that came since the client's last request.
        nodes_added: Vec<NodeElement>,
        /// Nodes that went since the client's last request.
        nodes_removed: Vec<NodeElement>,
    }

    NodeElement {
        /// `cluster/node`.
        name: String,
        /// Address by which other nodes reach it.
        primary_address: Option<NodeAddressing>,
        secondary_addresses: Vec<NodeAddressingElement>,
        health_endpoint_address: Option<NodeAddressing>,
        ingress_address: Option<NodeAddressing>,
        /// Who said so: `local`, `custom-resource`, `clustermesh`.
        source: String,
    }

    /// Addresses of both families.
    NodeAddressing {
        ipv6: Option<NodeAddressingElement>,
        ipv4: Option<NodeAddressingElement>,
    }

    /// An address of a node.
    NodeAddressingElement {
        /// Whether the family is used.
        enabled: bool,
        ip: String,
        /// Prefix from which pods get addresses.
        alloc_range: String,
        /// Type of the address, such as `InternalIP`.
        address_type: String,
    }
}
