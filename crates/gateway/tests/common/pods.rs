// SPDX-License-Identifier: Apache-2.0
//! Who is who, and what policy says of it: everybody may reach everybody, but nobody identity 666.

use gateway::Peers;
use model::{IdentityId, IpEntry, IpSource, Permission, Pod, PodName, Proxied};
use serde_json::Value;
use statedb::{Reader, Writer, table};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(crate) struct Pods {
    pods: Writer<Pod>,
    pub(crate) addresses: Writer<IpEntry>,
    permissions: Writer<Permission>,
    proxied: Option<Reader<Proxied>>,
}

impl Pods {
    pub(crate) fn new() -> (Self, Peers) {
        let (pods, pod_rows) = table("pods");
        let (addresses, address_rows) = table("addresses");
        let (permissions, permission_rows) = table("permissions");
        let peers = Peers { pods: pod_rows, addresses: address_rows, permissions: permission_rows };
        (Self { pods, addresses, permissions, proxied: None }, peers)
    }

    pub(crate) fn judged_for(self, proxied: Reader<Proxied>) -> Self {
        Self { proxied: Some(proxied), ..self }
    }

    /// A pod has an address and an identity; one of this node has a name too.
    pub(crate) fn insert(&mut self, value: &Value) {
        let ip: IpAddr = value["ip"].as_str().unwrap().parse().unwrap();
        let identity = IdentityId(u32::try_from(value["identity"].as_u64().unwrap()).unwrap());
        self.addresses.insert(IpEntry {
            prefix: ip.into(),
            identity,
            tunnel: None,
            host: None,
            node_address: false,
            no_masquerade: false,
            source: IpSource::CustomResource,
            pod: None,
        });
        let Some(name) = value["metadata"]["name"].as_str() else { return };
        self.pods.insert(Pod {
            name: PodName::new(value["metadata"]["namespace"].as_str().unwrap(), name),
            uid: name.to_owned(),
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
