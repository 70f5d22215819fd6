// SPDX-License-Identifier: Apache-2.0
//! Who is who, and what policy says of it: everybody may reach everybody, but nobody identity 666. And this node.

use gateway::{Peers, TokenKey};
use model::{IdentityId, IpEntry, IpSource, MeshPod, Node, Permission, Pod, PodName, Proxied};
use serde_json::Value;
use statedb::{Reader, Writer, table};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(crate) struct Pods {
    pods: Writer<Pod>,
    pub(crate) addresses: Writer<IpEntry>,
    permissions: Writer<Permission>,
    nodes: Writer<Node>,
    pub(crate) token_keys: Writer<TokenKey>,
    proxied: Option<Reader<Proxied>>,
}

impl Pods {
    pub(crate) fn new() -> (Self, Peers) {
        let (pods, pod_rows) = table("pods");
        let (addresses, address_rows) = table("addresses");
        let (permissions, permission_rows) = table("permissions");
        let (nodes, node_rows) = table("nodes");
        let (token_keys, key_rows) = table("token-keys");
        let peers = Peers {
            pods: pod_rows,
            nodes: node_rows,
            addresses: address_rows,
            permissions: permission_rows,
            token_keys: key_rows,
        };
        (Self { pods, addresses, permissions, nodes, token_keys, proxied: None }, peers)
    }

    /// This node has such a label, and no other.
    pub(crate) fn label_node(&mut self, key: &str, value: &str) {
        self.nodes.insert(Node {
            name: "here".to_owned(),
            cluster: "default".to_owned(),
            internal_ips: Vec::new(),
            external_ips: Vec::new(),
            cilium_internal_ips: Vec::new(),
            health_ips: Vec::new(),
            pod_cidrs: Vec::new(),
            labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            identity: model::reserved::HOST,
            local: true,
        });
    }

    pub(crate) fn judged_for(self, proxied: Reader<Proxied>) -> Self {
        Self { proxied: Some(proxied), ..self }
    }

    /// A pod has an address and an identity; one of this node has a name too, and is not remote.
    pub(crate) fn insert(&mut self, value: &Value) {
        let ip: IpAddr = value["ip"].as_str().unwrap().parse().unwrap();
        let identity = IdentityId(u32::try_from(value["identity"].as_u64().unwrap()).unwrap());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (namespace, name) = (text(&value["metadata"]["namespace"]), text(&value["metadata"]["name"]));
        let named = namespace.zip(name).map(|(namespace, name)| PodName::new(namespace, name));
        self.addresses.insert(IpEntry {
            prefix: ip.into(),
            identity,
            tunnel: None,
            host: None,
            node_address: false,
            no_masquerade: false,
            source: IpSource::CustomResource,
            pod: named.clone().map(|pod| MeshPod { cluster: "default".into(), pod }),
        });
        let Some(name) = named.filter(|_| value["remote"] != true) else { return };
        self.pods.insert(Pod {
            uid: name.name.to_string(),
            name,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            service_account: String::new(),
            host_network: false,
            ips: vec![ip],
            workload: None,
            named_ports: Vec::new(),
            host_ports: Vec::new(),
            ready: true,
            ended: false,
        });
    }

    pub(crate) fn commit(&mut self) {
        self.pods.mark_initialized();
        self.addresses.mark_initialized();
        self.permissions.mark_initialized();
        self.nodes.mark_initialized();
        self.token_keys.mark_initialized();
    }

    /// As policy does: of nobody, while there is no route.
    pub(crate) fn judge(&mut self) {
        let proxied = self.proxied.as_ref().unwrap().snapshot();
        let servers = || proxied.iter().flat_map(|row| row.servers.iter().copied());
        let judged = || servers().map(|server| (server, server.0 != IdentityId(666))).collect();
        let (pods, addresses) = (self.pods.snapshot(), self.addresses.snapshot());
        let identity = |pod: &std::sync::Arc<Pod>| addresses.get(&pod.ips[0].into()).unwrap().identity;
        let clients = pods.iter().filter(|_| !proxied.is_empty()).map(identity);
        self.permissions.replace(clients.map(|client| Permission { client, servers: judged() }));
        self.permissions.commit();
    }
}
