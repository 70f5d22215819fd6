// SPDX-License-Identifier: Apache-2.0
//! What the datapath must know about local addresses: one row per pod that may communicate, and one per address of the
//! node. Pure.

use abi::Addr;
use abi::endpoint::{Endpoint as Entry, flags};
use model::{Endpoint, EndpointId, EndpointPolicy, IdentityId, LocalNode, PolicyId, reserved};
use statedb::{Derived, Inputs, Reader, Snapshot, Tasks};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What identifies an [`Attachment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachmentKey {
    /// An address of the node.
    Host(IpAddr),
    Pod(EndpointId),
}

/// A local address, or a pod with its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// An address of the node: traffic to it is for the host.
    Host(IpAddr),
    Pod(PodAttachment),
}

impl statedb::Row for Attachment {
    type Key = AttachmentKey;
    fn key(&self) -> AttachmentKey {
        match self {
            Self::Host(ip) => AttachmentKey::Host(*ip),
            Self::Pod(pod) => AttachmentKey::Pod(pod.endpoint.id),
        }
    }
}

/// A pod with everything its datapath needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAttachment {
    pub endpoint: Arc<Endpoint>,
    /// Its policy. None if the pod was attached before and has lost its permission: everything is dropped.
    pub permission: Option<Permission>,
    /// The pod's gateway, and the source address of the host's own traffic to the pod.
    pub router_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub router_ipv6: Option<Ipv6Addr>,
}

/// The part of an [`EndpointPolicy`] that the programs read. That excludes its revision: a policy for others changes
/// nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    pub identity: IdentityId,
    /// The compiled policy.
    pub policy: PolicyId,
    /// Whether ingress is denied unless allowed.
    pub ingress_enforced: bool,
    /// Whether egress is denied unless allowed.
    pub egress_enforced: bool,
}

impl From<&EndpointPolicy> for Permission {
    fn from(policy: &EndpointPolicy) -> Self {
        let EndpointPolicy { identity, policy, ingress_enforced, egress_enforced, .. } = *policy;
        Self { identity, policy, ingress_enforced, egress_enforced }
    }
}

impl PodAttachment {
    /// What the programs read.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let endpoint = &self.endpoint;
        let mut entry = Entry {
            ifindex: endpoint.host_ifindex,
            identity: reserved::INIT.0,
            id: endpoint.id.0,
            flags: flags::NOT_READY,
            mac: endpoint.mac.0,
            host_mac: endpoint.host_mac.0,
            ipv4: endpoint.ipv4.map(Addr::from).unwrap_or_default(),
            ipv6: endpoint.ipv6.map(Addr::from).unwrap_or_default(),
            ..Entry::default()
        };
        if let Some(permission) = &self.permission {
            entry.identity = permission.identity.0;
            entry.policy = permission.policy.0;
            entry.flags = enforced(permission);
        }
        entry
    }
}

fn enforced(permission: &Permission) -> u16 {
    let flag = |on: bool, flag: u16| if on { flag } else { 0 };
    flag(permission.ingress_enforced, flags::INGRESS_ENFORCED)
        | flag(permission.egress_enforced, flags::EGRESS_ENFORCED)
}

/// What the programs read about an address of the node.
#[must_use]
pub fn host_entry(ip: IpAddr) -> Entry {
    let addr = Addr::from(ip);
    let mut entry = Entry { identity: reserved::HOST.0, flags: flags::HOST, ..Entry::default() };
    if addr.is_v4() {
        entry.ipv4 = addr
    } else {
        entry.ipv6 = addr
    }
    entry
}

/// The by-address entries of an attachment.
pub(crate) fn local_entries(attachment: &Attachment) -> Vec<(Addr, Entry)> {
    match attachment {
        Attachment::Host(ip) => vec![(Addr::from(*ip), host_entry(*ip))],
        Attachment::Pod(pod) => pod.endpoint.addresses().map(|ip| (Addr::from(ip), pod.entry())).collect(),
    }
}

/// Derives the table of attachments from endpoints, their policies and the node.
pub(crate) fn derive(
    tasks: &Tasks,
    endpoints: &Reader<Endpoint>,
    policies: &Reader<EndpointPolicy>,
    node: &Reader<LocalNode>,
) -> Derived<Attachment> {
    let pods = endpoints.clone();
    let inputs = Inputs::of(endpoints, |endpoint| [AttachmentKey::Pod(endpoint.id)])
        .and(policies, |policy| [AttachmentKey::Pod(policy.endpoint)])
        .and(node, move |node| keys(node, &pods.snapshot()));
    let (endpoints, policies, node) = (endpoints.clone(), policies.clone(), node.clone());
    statedb::derive(tasks, "attachments", inputs, move |key, before| {
        resolve(*key, &endpoints.snapshot(), &policies.snapshot(), &node.snapshot(), before)
    })
}

/// Keys affected by a change of the node: its addresses, and each pod because of the router.
fn keys(node: &LocalNode, endpoints: &Snapshot<Endpoint>) -> Vec<AttachmentKey> {
    let pods = endpoints.iter().map(|endpoint| AttachmentKey::Pod(endpoint.id));
    host_addresses(node).map(AttachmentKey::Host).chain(pods).collect()
}

fn host_addresses(node: &LocalNode) -> impl Iterator<Item = IpAddr> {
    let routers = node.router_ipv4.map(IpAddr::V4).into_iter().chain(node.router_ipv6.map(IpAddr::V6));
    node.addresses.iter().copied().chain(routers)
}

/// The attachment of a key; unchanged (`before`) while the node is unknown. An attached pod that loses its permission
/// stays attached but passes nothing; one that was never attached waits for it.
fn resolve(
    key: AttachmentKey,
    endpoints: &Snapshot<Endpoint>,
    policies: &Snapshot<EndpointPolicy>,
    node: &Snapshot<LocalNode>,
    before: Option<&Attachment>,
) -> Option<Attachment> {
    let Some(node) = node.get(&()) else { return before.cloned() };
    match key {
        AttachmentKey::Host(ip) => host_addresses(&node).any(|own| own == ip).then_some(Attachment::Host(ip)),
        AttachmentKey::Pod(id) => {
            let endpoint = endpoints.get(&id)?;
            let permission = policies.get(&id).as_deref().map(Permission::from);
            (permission.is_some() || before.is_some()).then(|| {
                Attachment::Pod(PodAttachment {
                    permission,
                    router_ipv4: node.router_ipv4.filter(|_| endpoint.ipv4.is_some()),
                    router_ipv6: node.router_ipv6.filter(|_| endpoint.ipv6.is_some()),
                    endpoint,
                })
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{endpoint, local_node, policy};
    use proptest::prelude::*;
    use statedb::Row;
    use std::collections::BTreeMap;

    fn tables(rows: &[Endpoint], permitted: &[EndpointPolicy]) -> (Snapshot<Endpoint>, Snapshot<EndpointPolicy>) {
        let (mut endpoints, _) = statedb::table("endpoints");
        let (mut policies, _) = statedb::table("policies");
        endpoints.replace(rows.iter().cloned());
        policies.replace(permitted.iter().cloned());
        endpoints.commit();
        policies.commit();
        (endpoints.snapshot(), policies.snapshot())
    }

    fn node() -> Snapshot<LocalNode> {
        let (mut writer, _) = statedb::table("local-node");
        writer.insert(local_node());
        writer.commit();
        writer.snapshot()
    }

    fn pods(rows: &[Attachment]) -> Vec<&PodAttachment> {
        rows.iter().filter_map(|a| if let Attachment::Pod(pod) = a { Some(pod) } else { None }).collect()
    }

    /// The attachments of all keys, given the previous ones.
    fn resolve_all(
        endpoints: &Snapshot<Endpoint>,
        policies: &Snapshot<EndpointPolicy>,
        node: &Snapshot<LocalNode>,
        before: &[Attachment],
    ) -> Vec<Attachment> {
        let row = |key| resolve(key, endpoints, policies, node, before.iter().find(|row| row.key() == key));
        keys(&local_node(), endpoints).into_iter().filter_map(row).collect()
    }

    #[test]
    fn an_endpoint_without_permission_is_not_attached() {
        let (endpoints, policies) = tables(&[endpoint(1), endpoint(2)], &[policy(2)]);
        let rows = resolve_all(&endpoints, &policies, &node(), &[]);
        assert_eq!(pods(&rows).iter().map(|p| p.endpoint.id.0).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn an_endpoint_that_loses_its_permission_stays_attached_and_passes_nothing() {
        let (endpoints, policies) = tables(&[endpoint(1)], &[policy(1)]);
        let first = resolve_all(&endpoints, &policies, &node(), &[]);
        assert_eq!(pods(&first)[0].entry().flags & flags::NOT_READY, 0);
        let (endpoints, policies) = tables(&[endpoint(1)], &[]);
        let second = resolve_all(&endpoints, &policies, &node(), &first);
        assert_eq!(pods(&second)[0].entry().flags, flags::NOT_READY);
        assert_eq!(pods(&second)[0].entry().policy, 0);
    }

    #[test]
    fn an_entry_says_what_policy_says() {
        let strict =
            EndpointPolicy { identity: IdentityId(7), policy: PolicyId(9), ingress_enforced: true, ..policy(1) };
        let (endpoints, policies) = tables(&[endpoint(1)], &[strict]);
        let rows = resolve_all(&endpoints, &policies, &node(), &[]);
        let entry = pods(&rows)[0].entry();
        assert_eq!((entry.identity, entry.policy, entry.flags), (7, 9, flags::INGRESS_ENFORCED));
        assert_eq!((entry.id, entry.ifindex), (1, 101));
        let wanted: Vec<_> =
            ["10.0.0.1", "fd00::1"].iter().map(|ip| Addr::from(ip.parse::<IpAddr>().unwrap())).collect();
        assert_eq!(local_entries(&rows[rows.len() - 1]).into_iter().map(|(addr, _)| addr).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn the_nodes_own_addresses_are_the_host_and_without_a_node_there_is_nothing() {
        let (endpoints, policies) = tables(&[endpoint(1)], &[policy(1)]);
        let rows = resolve_all(&endpoints, &policies, &node(), &[]);
        let hosts: Vec<_> =
            rows.iter().filter(|r| matches!(r.key(), AttachmentKey::Host(_))).flat_map(local_entries).collect();
        assert!(hosts.iter().all(|(_, e)| e.flags == flags::HOST && e.identity == 1 && e.id == 0 && e.ifindex == 0));
        assert_eq!(hosts.len(), 4);
        let (none, _) = statedb::table::<LocalNode>("local-node");
        assert!(resolve_all(&endpoints, &policies, &none.snapshot(), &[]).is_empty());
        assert_eq!(resolve_all(&endpoints, &policies, &none.snapshot(), &rows), rows, "what was attached stays");
    }

    /// Changes of one table after the other, in a few forms; `None` removes the row.
    async fn attachments_follow(steps: Vec<(u8, u16, Option<bool>)>) {
        let tasks = Tasks::new(Default::default());
        let (mut endpoints, endpoint_rows) = statedb::table("endpoints");
        let (mut policies, policy_rows) = statedb::table("policies");
        let (mut node, node_rows) = statedb::table("local-node");
        let attachments = derive(&tasks, &endpoint_rows, &policy_rows, &node_rows);
        node.insert(local_node());
        endpoints.mark_initialized();
        policies.mark_initialized();
        node.mark_initialized();
        for (table, n, form) in steps {
            match (table, form) {
                (0, Some(v6)) => endpoints.insert(Endpoint { ipv6: endpoint(n).ipv6.filter(|_| v6), ..endpoint(n) }),
                (0, None) => endpoints.remove(&EndpointId(n)),
                (1, Some(strict)) => policies.insert(EndpointPolicy { ingress_enforced: strict, ..policy(n) }),
                (1, None) => policies.remove(&EndpointId(n)),
                (_, Some(other)) => {
                    let addresses = if other { vec!["192.168.0.9".parse().unwrap()] } else { local_node().addresses };
                    node.insert(LocalNode { addresses, ..local_node() });
                }
                (_, None) => node.insert(LocalNode { router_ipv4: None, ..local_node() }),
            }
            endpoints.commit();
            policies.commit();
            node.commit();
            attachments.caught_up().await;
            let rows: Vec<_> = attachments.rows.snapshot().iter().map(|row| Attachment::clone(row)).collect();
            let row = |key| {
                let before = rows.iter().find(|row| row.key() == key);
                resolve(key, &endpoints.snapshot(), &policies.snapshot(), &node.snapshot(), before)
            };
            let wanted = node.snapshot().get(&()).into_iter().flat_map(|node| keys(&node, &endpoints.snapshot()));
            let wanted: BTreeMap<_, _> = wanted.filter_map(|key| Some((key, row(key)?))).collect();
            assert_eq!(rows, wanted.into_values().collect::<Vec<_>>(), "some change was not taken note of");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_changes_the_attachments_follow(
            steps in prop::collection::vec((0..3_u8, 1..4_u16, prop::option::weighted(0.8, any::<bool>())), 0..40),
        ) {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(attachments_follow(steps));
        }
    }
}
