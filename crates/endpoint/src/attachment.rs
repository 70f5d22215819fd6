// SPDX-License-Identifier: Apache-2.0
//! What the datapath is to know of local addresses: one row per pod that may communicate, and one per address of the node.
//! Pure.

use abi::Addr;
use abi::endpoint::{Endpoint as Entry, flags};
use model::{Endpoint, EndpointId, EndpointPolicy, IdentityId, LocalNode, PolicyId, reserved};
use statedb::Snapshot;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What identifies an [`Attachment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachmentKey {
    /// An address of the node.
    Host(IpAddr),
    /// A pod.
    Pod(EndpointId),
}

/// A local address, or a pod with its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// An address of the node: what is sent to it is for the host.
    Host(IpAddr),
    /// A pod.
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

/// A pod with all that its datapath needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAttachment {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What policy says. Without it the pod was attached before and has lost its permission: everything is dropped.
    pub permission: Option<Permission>,
    /// The pod's gateway, and the source address of the host's own traffic to the pod.
    pub router_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub router_ipv6: Option<Ipv6Addr>,
}

/// What of an [`EndpointPolicy`] the programs read. Its revision is not among it: a policy for others changes nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Identity.
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

/// What the programs read of an address of the node.
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

/// The entries by address that an attachment wants.
pub(crate) fn local_entries(attachment: &Attachment) -> Vec<(Addr, Entry)> {
    match attachment {
        Attachment::Host(ip) => vec![(Addr::from(*ip), host_entry(*ip))],
        Attachment::Pod(pod) => pod.endpoint.addresses().map(|ip| (Addr::from(ip), pod.entry())).collect(),
    }
}

/// What is to be, from the facts; `None` while nothing is known of the node. `before` is what was: a pod that was attached
/// stays attached without a permission, but passes nothing; one that was not waits for it.
pub(crate) fn resolve(
    endpoints: &Snapshot<Endpoint>,
    policies: &Snapshot<EndpointPolicy>,
    node: &Snapshot<LocalNode>,
    before: &Snapshot<Attachment>,
) -> Option<Vec<Attachment>> {
    let node = node.get(&())?;
    let pods = endpoints.iter().filter_map(|endpoint| {
        let permission = policies.get(&endpoint.id).as_deref().map(Permission::from);
        let attached = || before.get(&AttachmentKey::Pod(endpoint.id)).is_some();
        (permission.is_some() || attached()).then(|| {
            Attachment::Pod(PodAttachment {
                endpoint: endpoint.clone(),
                permission,
                router_ipv4: node.router_ipv4.filter(|_| endpoint.ipv4.is_some()),
                router_ipv6: node.router_ipv6.filter(|_| endpoint.ipv6.is_some()),
            })
        })
    });
    let own = node.addresses.iter().copied();
    let routers = node.router_ipv4.map(IpAddr::V4).into_iter().chain(node.router_ipv6.map(IpAddr::V6));
    Some(own.chain(routers).map(Attachment::Host).chain(pods).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{endpoint, local_node, policy};
    use statedb::Row;

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

    fn before(rows: Vec<Attachment>) -> Snapshot<Attachment> {
        let (mut writer, _) = statedb::table("attachments");
        writer.replace(rows);
        writer.commit();
        writer.snapshot()
    }

    #[test]
    fn an_endpoint_without_permission_is_not_attached() {
        let (endpoints, policies) = tables(&[endpoint(1), endpoint(2)], &[policy(2)]);
        let rows = resolve(&endpoints, &policies, &node(), &before(vec![])).unwrap();
        assert_eq!(pods(&rows).iter().map(|p| p.endpoint.id.0).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn an_endpoint_that_loses_its_permission_stays_attached_and_passes_nothing() {
        let (endpoints, policies) = tables(&[endpoint(1)], &[policy(1)]);
        let first = resolve(&endpoints, &policies, &node(), &before(vec![])).unwrap();
        assert_eq!(pods(&first)[0].entry().flags & flags::NOT_READY, 0);
        let (endpoints, policies) = tables(&[endpoint(1)], &[]);
        let second = resolve(&endpoints, &policies, &node(), &before(first)).unwrap();
        assert_eq!(pods(&second)[0].entry().flags, flags::NOT_READY);
        assert_eq!(pods(&second)[0].entry().policy, 0);
    }

    #[test]
    fn an_entry_says_what_policy_says() {
        let strict =
            EndpointPolicy { identity: IdentityId(7), policy: PolicyId(9), ingress_enforced: true, ..policy(1) };
        let (endpoints, policies) = tables(&[endpoint(1)], &[strict]);
        let rows = resolve(&endpoints, &policies, &node(), &before(vec![])).unwrap();
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
        let rows = resolve(&endpoints, &policies, &node(), &before(vec![])).unwrap();
        let hosts: Vec<_> =
            rows.iter().filter(|r| matches!(r.key(), AttachmentKey::Host(_))).flat_map(local_entries).collect();
        assert!(hosts.iter().all(|(_, e)| e.flags == flags::HOST && e.identity == 1 && e.id == 0 && e.ifindex == 0));
        assert_eq!(hosts.len(), 4);
        let (none, _) = statedb::table::<LocalNode>("local-node");
        assert!(resolve(&endpoints, &policies, &none.snapshot(), &before(vec![])).is_none());
    }
}
