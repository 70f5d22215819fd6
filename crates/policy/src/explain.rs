// SPDX-License-Identifier: Apache-2.0
//! Compiled policies in readable form, with the rule behind each entry.

use crate::Outputs;
use crate::resolve::{ANY, CompiledPolicy};
use crate::rules::Direction;
use abi::policy::{PREFIX_L3, PREFIX_PROTO};
use model::{EndpointId, IdentityId, Labels, Provenance, ProvenanceId};
use std::fmt;
use std::sync::Arc;

/// One entry of a compiled policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLine {
    pub direction: Direction,
    /// Whether it denies.
    pub deny: bool,
    /// The peer; `None` for any.
    pub peer: Option<IdentityId>,
    /// Its labels, if it is known.
    pub labels: Labels,
    /// IP protocol number; `None` for all.
    pub proto: Option<u8>,
    /// First and last port; `None` for all.
    pub ports: Option<(u16, u16)>,
    /// The rule behind it; `None` for built-in entries.
    pub rule: Option<Arc<Provenance>>,
}

impl fmt::Display for PolicyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = if self.deny { "deny" } else { "allow" };
        let direction = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        write!(f, "{effect} {direction} ")?;
        match self.peer {
            None => f.write_str("any")?,
            Some(peer) if self.labels.is_empty() => write!(f, "{peer}")?,
            Some(_) => write!(f, "{}", self.labels)?,
        }
        match (self.proto, self.ports) {
            (None, _) => f.write_str(" all")?,
            (Some(proto), None) => write!(f, " {}", protocol(proto))?,
            (Some(proto), Some((first, last))) if first == last => write!(f, " {}/{first}", protocol(proto))?,
            (Some(proto), Some((first, last))) => write!(f, " {}/{first}-{last}", protocol(proto))?,
        }
        match &self.rule {
            None => Ok(()),
            Some(rule) if rule.namespace.is_empty() => write!(f, " by {} {} {}", rule.kind, rule.name, rule.rule),
            Some(rule) => write!(f, " by {} {}/{} {}", rule.kind, rule.namespace, rule.name, rule.rule),
        }
    }
}

fn protocol(number: u8) -> String {
    use abi::flow::proto;
    match number {
        proto::TCP => "TCP".to_owned(),
        proto::UDP => "UDP".to_owned(),
        proto::SCTP => "SCTP".to_owned(),
        proto::ICMP => "ICMP".to_owned(),
        proto::ICMPV6 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// The lines of a compiled policy.
pub(crate) fn lines(
    policy: &CompiledPolicy,
    labels: impl Fn(IdentityId) -> Option<Labels>,
    rule: impl Fn(ProvenanceId) -> Option<Arc<Provenance>>,
) -> Vec<PolicyLine> {
    let line = |(key, entry): (&crate::EntryKey, &abi::policy::PolicyEntry)| {
        let peer = (key.peer != ANY).then_some(key.peer);
        let len = u32::from(key.prefix_len);
        PolicyLine {
            direction: key.direction,
            deny: entry.deny == 1,
            peer,
            labels: peer.and_then(&labels).unwrap_or_default(),
            proto: (len > PREFIX_L3).then_some(key.proto),
            ports: (len > PREFIX_PROTO).then(|| (key.port, key.last_port())),
            rule: (entry.provenance != 0).then(|| rule(ProvenanceId(entry.provenance))).flatten(),
        }
    };
    policy.entries.iter().map(line).collect()
}

impl Outputs {
    /// What a pod of this node may do and why, entry by entry; `None` if there is no such pod or it has no policy yet.
    #[must_use]
    pub fn policy_lines(&self, endpoint: EndpointId) -> Option<Vec<PolicyLine>> {
        let policy = self.endpoint_policies.snapshot().get(&endpoint)?.policy;
        let row = self.compiled.snapshot().get(&policy)?;
        let (identities, provenance) = (self.identities.snapshot(), self.provenance.snapshot());
        let labels = |id| identities.get(&id).map(|identity| identity.labels.clone());
        Some(lines(&row, labels, |id| provenance.get(&id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Label, PolicyKind};

    #[test]
    fn a_line_names_effect_peer_ports_and_rule() {
        let rule = |namespace: &str| {
            let (id, kind) = (ProvenanceId(1), PolicyKind::CiliumNetworkPolicy);
            let (name, rule) = ("p".to_owned(), "ingress[0]".to_owned());
            let namespace = namespace.to_owned();
            Some(Arc::new(Provenance { id, kind, namespace, name, labels: vec![], rule, log: None, revision: 1 }))
        };
        let any = PolicyLine {
            direction: Direction::Ingress,
            deny: false,
            peer: None,
            labels: Labels::default(),
            proto: None,
            ports: None,
            rule: None,
        };
        let peer = PolicyLine { peer: Some(IdentityId(300)), ..any.clone() };
        let labels: Labels = [Label::k8s("app", "web")].into_iter().collect();
        let tcp = PolicyLine { proto: Some(6), ..any.clone() };
        for (line, text) in [
            (any.clone(), "allow ingress any all"),
            (PolicyLine { deny: true, direction: Direction::Egress, ..any.clone() }, "deny egress any all"),
            (peer.clone(), "allow ingress 300 all"),
            (PolicyLine { labels, ..peer }, "allow ingress k8s:app=web all"),
            (tcp.clone(), "allow ingress any TCP"),
            (PolicyLine { ports: Some((80, 80)), ..tcp.clone() }, "allow ingress any TCP/80"),
            (PolicyLine { ports: Some((80, 95)), proto: Some(17), ..tcp.clone() }, "allow ingress any UDP/80-95"),
            (PolicyLine { proto: Some(58), ..tcp.clone() }, "allow ingress any ICMPv6"),
            (PolicyLine { proto: Some(2), ..tcp }, "allow ingress any protocol 2"),
            (
                PolicyLine { rule: rule("shop"), ..any.clone() },
                "allow ingress any all by CiliumNetworkPolicy shop/p ingress[0]",
            ),
            (PolicyLine { rule: rule(""), ..any }, "allow ingress any all by CiliumNetworkPolicy p ingress[0]"),
        ] {
            assert_eq!(line.to_string(), text);
        }
    }
}
