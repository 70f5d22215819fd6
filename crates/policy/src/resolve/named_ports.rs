// SPDX-License-Identifier: Apache-2.0
//! The named ports of each identity's pods.

use model::{IdentityId, MeshPod, NamedPort, RemoteEndpoint};
use statedb::Row;
use std::collections::{BTreeMap, BTreeSet};

/// Named ports of all pods of the cluster, by identity.
#[derive(Debug, Default)]
pub(super) struct NamedPorts {
    pods: BTreeMap<MeshPod, (IdentityId, Vec<NamedPort>)>,
    by_identity: BTreeMap<IdentityId, BTreeMap<(u8, String, u16), usize>>,
}

impl NamedPorts {
    /// Adds or updates a pod. Returns the identities whose named ports have changed.
    pub(super) fn upsert(&mut self, pod: &RemoteEndpoint) -> BTreeSet<IdentityId> {
        if self.pods.get(&pod.key()).is_some_and(|(id, ports)| *id == pod.identity && *ports == pod.named_ports) {
            return BTreeSet::new();
        }
        let mut changed = self.remove(&pod.key());
        if pod.named_ports.is_empty() {
            return changed;
        }
        let ports = self.by_identity.entry(pod.identity).or_default();
        for port in &pod.named_ports {
            *ports.entry(key(port)).or_default() += 1;
        }
        changed.insert(pod.identity);
        self.pods.insert(pod.key(), (pod.identity, pod.named_ports.clone()));
        changed
    }

    /// Removes a pod. Returns the identities whose named ports have changed.
    pub(super) fn remove(&mut self, pod: &MeshPod) -> BTreeSet<IdentityId> {
        let Some((identity, named)) = self.pods.remove(pod) else { return BTreeSet::new() };
        if let Some(ports) = self.by_identity.get_mut(&identity) {
            for port in &named {
                if let Some(count) = ports.get_mut(&key(port)) {
                    *count -= 1;
                }
            }
            ports.retain(|_, count| *count > 0);
            if ports.is_empty() {
                self.by_identity.remove(&identity);
            }
        }
        BTreeSet::from([identity])
    }

    /// The port numbers for a name.
    pub(super) fn numbers(&self, identity: IdentityId, proto: u8, name: &str) -> Vec<u16> {
        let ports = self.by_identity.get(&identity).into_iter().flatten();
        ports.filter(|((p, n, _), _)| *p == proto && n == name).map(|((_, _, port), _)| *port).collect()
    }

    /// The identities that have any.
    pub(super) fn identities(&self) -> Vec<IdentityId> {
        self.by_identity.keys().copied().collect()
    }
}

fn key(port: &NamedPort) -> (u8, String, u16) {
    (port.protocol.number(), port.name.to_ascii_lowercase(), port.port)
}
