// SPDX-License-Identifier: Apache-2.0
//! Policies in normal form: what NetworkPolicy, CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy have in common.
//!
//! An invalid object has no rules. What a valid one asks for but the engine cannot do yet never widens access: such an
//! allow is left out while its section still denies by default, such a deny covers any peer, and either is reported as
//! a [`Problem`] that names the field.

mod cilium;
mod groups;
mod network_policy;
mod non_empty;
mod ports;
mod selector;

use ipnet::IpNet;
use model::PolicyKind;
use std::fmt;
use std::sync::Arc;

pub use cilium::{ingest_cilium_policy, ingest_clusterwide_policy};
pub(crate) use groups::GroupUse;
pub use network_policy::ingest_network_policy;
pub(crate) use non_empty::NonEmpty;
pub(crate) use ports::L4;
pub(crate) use selector::{Keys, Operator, RawSelector, Requirement, Selector};

/// Configuration needed to ingest a policy. It affects neither what is valid nor what is honoured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Name of this cluster.
    pub cluster: Arc<str>,
    /// Pod selectors that name no cluster mean this one (`policy-default-local-cluster`).
    pub default_local_cluster: bool,
    /// Protocol ANY includes SCTP (`enable-sctp`).
    pub sctp: bool,
}

/// Which object a policy is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    pub kind: PolicyKind,
    /// Namespace; empty for a clusterwide policy.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A part of an object that is not honoured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path of the field.
    pub field: String,
    /// Why, and what happens instead.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// A policy object. One row per object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which object.
    pub name: PolicyName,
    /// Labels by which tools know it.
    pub labels: Vec<String>,
    /// Its rules; none if it is invalid.
    pub rules: Vec<Rule>,
    /// What is not honoured, or everything that makes it invalid.
    pub problems: Vec<Problem>,
    /// Whether it can be used. None of an invalid policy is enforced, whatever an earlier version of it said: the
    /// effect depends on the object alone, not on what an agent has seen before.
    pub valid: bool,
}

impl Policy {
    /// From its rules and unhonoured parts, or from what makes it invalid.
    fn new(name: PolicyName, mut labels: Vec<String>, rules: Result<(Vec<Rule>, Vec<Problem>), Vec<Problem>>) -> Self {
        labels.sort();
        labels.dedup();
        let valid = rules.is_ok();
        let (rules, problems) = rules.unwrap_or_else(|problems| (Vec::new(), problems));
        Self { name, labels, rules, problems, valid }
    }
}

impl statedb::Row for Policy {
    type Key = PolicyName;
    fn key(&self) -> PolicyName {
        self.name.clone()
    }
}

/// One `spec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The pods it selects.
    pub subject: Selector,
    /// Ingress is denied unless allowed.
    pub deny_ingress: bool,
    /// Egress is denied unless allowed.
    pub deny_egress: bool,
    /// What it allows and denies.
    pub statements: Vec<Statement>,
    /// Text to log with verdicts.
    pub log: Option<String>,
}

/// As seen from the selected pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Into it.
    Ingress,
    /// Out of it.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The value in policy keys.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ingress => abi::policy::INGRESS,
            Self::Egress => abi::policy::EGRESS,
        }
    }
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    Allow,
    /// Deny, whatever is allowed.
    Deny,
}

/// One element of a section: these peers on these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub direction: Direction,
    pub effect: Effect,
    pub peers: Peers,
    /// Protocols and ports; `None` for all traffic.
    pub ports: Option<NonEmpty<L4>>,
    /// Its path in the object, such as `ingress[0]`.
    pub origin: String,
}

impl Statement {
    /// The path of a field of peers, such as `CIDRSet`.
    fn field(&self, kind: &str) -> String {
        let side = if self.direction == Direction::Ingress { "from" } else { "to" };
        // The origin leaves out what every rule of an object with one `spec` would begin with.
        let spec = if self.origin.starts_with("specs[") { "" } else { "spec." };
        format!("{spec}{}.{side}{kind}", self.origin)
    }
}

/// Peers of a statement. "Nobody" cannot be expressed: such a statement is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Anybody.
    Any,
    /// Any of these.
    Some(NonEmpty<Peer>),
}

/// A set of peers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    Labels(Selector),
    /// By address. Never matches pods or nodes.
    Cidr(CidrSelector),
    /// By the addresses of CiliumCIDRGroups.
    Group(GroupSelector),
}

/// A prefix with exceptions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CidrSelector {
    /// The prefix.
    pub cidr: IpNet,
    /// Exceptions within it.
    pub except: Vec<IpNet>,
}

impl CidrSelector {
    /// Whether it includes the addresses of an identity: those of its prefix that no longer prefix covers.
    #[must_use]
    pub fn matches(&self, prefix: &IpNet) -> bool {
        self.cidr.contains(prefix) && !self.except.iter().any(|except| except.contains(prefix))
    }

    /// Every prefix that needs its own identity for the selector to work.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        std::iter::once(self.cidr).chain(self.except.iter().copied())
    }
}

/// Which CiliumCIDRGroups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSelector {
    /// By name or by labels.
    pub groups: Groups,
    /// Exceptions.
    pub except: Vec<IpNet>,
}

/// How groups are referenced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Groups {
    /// By name.
    Named(Arc<str>),
    /// By labels.
    Labelled(Selector),
}

/// A prefix as policies write it: a bare address is a full-length prefix, and host bits are ignored.
pub(crate) fn parse_cidr(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    parsed.map(|net| net.trunc()).ok_or_else(|| format!("{text:?} is not a prefix"))
}

/// `except` must lie inside; what does not is refused rather than ignored.
pub(crate) fn parse_cidr_with(text: &str, except: &[String]) -> Result<CidrSelector, String> {
    let cidr = parse_cidr(text)?;
    let mut holes = parse_except(except)?;
    if let Some(outside) = holes.iter().find(|hole| !cidr.contains(*hole)) {
        return Err(format!("except {outside} is not part of {cidr}"));
    }
    holes.sort();
    holes.dedup();
    Ok(CidrSelector { cidr, except: holes })
}

pub(crate) fn parse_except(except: &[String]) -> Result<Vec<IpNet>, String> {
    except.iter().map(|text| parse_cidr(text)).collect()
}

impl Context {
    /// Adds what a pod selector implies: the cluster.
    pub(crate) fn complete(&self, mut requirements: Vec<Requirement>) -> Vec<Requirement> {
        let named = requirements.iter().any(|r| &*r.key == crate::labels::CLUSTER);
        if self.default_local_cluster && !named {
            let cluster = self.cluster.clone();
            requirements.push(Requirement::equals(model::LabelSource::K8s, crate::labels::CLUSTER, cluster));
        }
        requirements
    }
}
