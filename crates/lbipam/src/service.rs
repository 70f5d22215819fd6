// SPDX-License-Identifier: Apache-2.0
//! Services of type LoadBalancer to rows: the request of each, and its status.

use crate::range::Family;
use crate::selector::Subject;
use k8s::field::canonical_address;
use k8s::k8s_openapi::api::core::v1::{LoadBalancerIngress, ObjectReference, Service as Object, ServiceSpec};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::{Resource, ResourceExt};
use model::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Type of the condition that says whether a Service has what it asks for. Services that have it are, or were, ours.
pub const CONDITION: &str = "cilium.io/IPAMRequestSatisfied";

/// Classes of Services that get their addresses here and are announced by others.
const CLASSES: [&str; 2] = ["io.cilium/bgp-control-plane", "io.cilium/l2-announcer"];

/// How many addresses one Service can ask for: pools are shared by many authors.
const ADDRESSES: usize = 16;

const IPS: Annotation = Annotation("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips");
const SHARING_KEY: Annotation = Annotation("lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key");
const SHARING_CROSS_NAMESPACE: Annotation =
    Annotation("lbipam.cilium.io/sharing-cross-namespace", "io.cilium/lb-ipam-sharing-cross-namespace");

/// A key and its older name.
struct Annotation(&'static str, &'static str);

impl Annotation {
    /// The key in use, and its value.
    fn get<'a>(&self, object: &'a Object) -> Option<(&'static str, &'a str)> {
        let annotations = object.annotations();
        let value = |key: &'static str| annotations.get(key).map(|value| (key, value.as_str()));
        value(self.0).or_else(|| value(self.1)).filter(|(_, value)| !value.trim().is_empty())
    }
}

/// Settings for all Services.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whether Services without a class are ours.
    pub default_class: bool,
    /// Whether the cluster has IPv4.
    pub ipv4: bool,
    /// Whether the cluster has IPv6.
    pub ipv6: bool,
}

impl Config {
    fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

/// A Service of type LoadBalancer, or one that was ours when it had that type. One row per such Service of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// The object, whatever its version.
    pub(crate) reference: ObjectReference,
    /// Version of the object.
    pub(crate) version: String,
    pub(crate) created: Timestamp,
    pub(crate) generation: Option<i64>,
    /// It is being deleted: it keeps what it has and gets nothing.
    pub(crate) deleting: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) standing: Standing,
    pub(crate) ingress: Vec<LoadBalancerIngress>,
    pub(crate) conditions: Vec<Condition>,
}

impl statedb::Row for Service {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

/// How we treat a Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// It asks for addresses.
    Claims(Claim),
    /// Its type has changed, and it still has what it got here.
    Abandoned,
    /// Somebody else gives it addresses, which are therefore in use.
    Foreign,
}

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) wanted: Wanted,
    pub(crate) sharing: Option<Sharing>,
    /// Invalid parts of the request, by field: the Service then keeps what it has.
    pub(crate) fault: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// Any address of each of these families.
    Families(Vec<Family>),
    /// These addresses.
    Addresses(Vec<IpAddr>),
}

/// The terms on which a Service shares its addresses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sharing {
    pub(crate) key: Arc<str>,
    /// Other namespaces it may share with; `*` for all.
    namespaces: BTreeSet<String>,
    /// Protocols and port numbers.
    ports: BTreeSet<(String, i32)>,
    /// The pod selector, if only nodes with such a pod take its traffic (`externalTrafficPolicy: Local`).
    local: Option<BTreeMap<String, String>>,
}

impl Service {
    /// The row of an object; `None` if it is not ours.
    #[must_use]
    pub fn ingest(config: Config, object: &Object) -> Option<Self> {
        let (metadata, spec) = (&object.metadata, object.spec.as_ref()?);
        let name = ServiceName::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?);
        let status = object.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ingress = status.load_balancer.and_then(|status| status.ingress).unwrap_or_default();
        let was_ours = || conditions.iter().any(|condition| condition.type_ == CONDITION);
        let standing = if spec.type_.as_deref() == Some("LoadBalancer") {
            match is_our_class(config, spec) {
                true => Standing::Claims(Claim::of(config, object, spec)),
                false if !ingress.is_empty() => Standing::Foreign,
                false => return None,
            }
        } else {
            was_ours().then_some(Standing::Abandoned)?
        };
        Some(Self {
            name,
            reference: object.object_ref(&()),
            version: object.resource_version().unwrap_or_default(),
            created: object.creation_timestamp().map_or(Timestamp::MAX, |time| time.0),
            generation: metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            labels: metadata.labels.clone().unwrap_or_default(),
            standing,
            ingress,
            conditions,
        })
    }

    pub(crate) fn condition(&self) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == CONDITION)
    }

    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { name: &self.name, labels: &self.labels }
    }

    pub(crate) fn claim(&self) -> Option<&Claim> {
        match &self.standing {
            Standing::Claims(claim) => Some(claim),
            Standing::Abandoned | Standing::Foreign => None,
        }
    }

    pub(crate) fn sharing(&self) -> Option<&Sharing> {
        self.claim()?.sharing.as_ref()
    }

    /// Whether its status is ours to write.
    pub(crate) fn is_written(&self) -> bool {
        !self.deleting && self.standing != Standing::Foreign
    }

    /// The addresses that its status names.
    pub(crate) fn present(&self) -> impl Iterator<Item = IpAddr> {
        self.ingress.iter().filter_map(|ingress| canonical_address(ingress.ip.as_deref()?))
    }

    /// Why the two cannot share an address.
    pub(crate) fn refuses_to_share_with(&self, other: &Self) -> Option<String> {
        let (Some(ours), Some(theirs)) = (self.sharing(), other.sharing()) else {
            return Some("not both have a sharing key".to_owned());
        };
        if ours.key != theirs.key {
            return Some("their sharing keys differ".to_owned());
        }
        let (here, there) = (&self.name.namespace, &other.name.namespace);
        if here != there && !(ours.lets_in(there) && theirs.lets_in(here)) {
            return Some(format!("not both let the other's namespace in ({})", SHARING_CROSS_NAMESPACE.0));
        }
        if let Some((protocol, port)) = ours.ports.intersection(&theirs.ports).next() {
            return Some(format!("both have port {port}/{protocol}"));
        }
        match (&ours.local, &theirs.local) {
            (None, None) => None,
            (Some(ours), Some(theirs)) if ours == theirs && !ours.is_empty() => None,
            (Some(_), Some(_)) => {
                Some("with externalTrafficPolicy Local both need the same selector of pods".to_owned())
            }
            _ => Some("their externalTrafficPolicy differs".to_owned()),
        }
    }
}

/// Without a class it is ours by default; a class says whose it is.
fn is_our_class(config: Config, spec: &ServiceSpec) -> bool {
    match spec.load_balancer_class.as_deref() {
        None => config.default_class,
        Some(class) => CLASSES.contains(&class),
    }
}

impl Claim {
    fn of(config: Config, object: &Object, spec: &ServiceSpec) -> Self {
        let families = families(config, spec);
        let none = || "spec.ipFamilies: names no family that the cluster has".to_owned();
        let (mut addresses, mut fault) = (Vec::new(), families.is_empty().then(none));
        for (field, text) in requests(object, spec) {
            match request(&families, field, text) {
                Ok(address) if addresses.contains(&address) => {}
                Ok(_) if addresses.len() == ADDRESSES => {
                    let reason =
                        || format!("{field}: asks for more than {ADDRESSES} addresses; it gets the first ones");
                    fault = fault.or_else(|| Some(reason()));
                }
                Ok(address) => addresses.push(address),
                Err(reason) => fault = fault.or(Some(reason)),
            }
        }
        // A request for a specific address is not satisfied by another.
        let asks = fault.is_some() || !addresses.is_empty();
        let wanted = if asks { Wanted::Addresses(addresses) } else { Wanted::Families(families) };
        Self { wanted, sharing: Sharing::of(object, spec), fault }
    }

    /// Whether any address of a family would do.
    pub(crate) fn wants_any(&self, family: Family) -> bool {
        matches!(&self.wanted, Wanted::Families(families) if families.contains(&family))
    }

    /// Whether an address that the Service has is what it asks for.
    pub(crate) fn asks_for(&self, address: IpAddr) -> bool {
        match &self.wanted {
            Wanted::Families(families) => families.contains(&Family::of(address)),
            Wanted::Addresses(addresses) => self.fault.is_some() || addresses.contains(&address),
        }
    }
}

/// The addresses asked for, each with the field that asks.
fn requests<'a>(object: &'a Object, spec: &'a ServiceSpec) -> impl Iterator<Item = (&'static str, &'a str)> {
    let field = spec.load_balancer_ip.as_deref().filter(|text| !text.is_empty());
    let list = IPS.get(object).into_iter().flat_map(|(key, list)| list.split(',').map(move |text| (key, text.trim())));
    field.map(|text| ("spec.loadBalancerIP", text)).into_iter().chain(list)
}

fn request(families: &[Family], field: &str, text: &str) -> Result<IpAddr, String> {
    let address = canonical_address(text).ok_or_else(|| format!("{field}: {text:?} is not an IP address"))?;
    let family = Family::of(address);
    if families.contains(&family) {
        Ok(address)
    } else {
        Err(format!("{field}: {address} is of {family}, which spec.ipFamilies does not name"))
    }
}

/// The families it should have addresses of. The API server sets both fields except for headless Services without pods.
pub(crate) fn families(config: Config, spec: &ServiceSpec) -> Vec<Family> {
    let enabled = || [Family::V4, Family::V6].into_iter().filter(|family| config.has(*family));
    let named = spec.ip_families.iter().flatten().map(|name| if name == "IPv6" { Family::V6 } else { Family::V4 });
    let named: Vec<Family> = named.collect();
    let mut families: Vec<Family> = match spec.ip_family_policy.as_deref() {
        Some("RequireDualStack") => enabled().collect(),
        Some("PreferDualStack") if named.is_empty() => enabled().collect(),
        Some("PreferDualStack") => named.into_iter().filter(|family| config.has(*family)).collect(),
        _ => named.first().copied().or_else(|| enabled().next()).into_iter().collect(),
    };
    families.sort_unstable();
    families.dedup();
    families
}

impl Sharing {
    fn of(object: &Object, spec: &ServiceSpec) -> Option<Self> {
        let (_, key) = SHARING_KEY.get(object)?;
        let namespaces = SHARING_CROSS_NAMESPACE.get(object).into_iter().flat_map(|(_, list)| list.split(','));
        let ports = spec.ports.iter().flatten();
        let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
        Some(Self {
            key: key.into(),
            namespaces: namespaces.map(|name| name.trim().to_owned()).collect(),
            ports: ports.map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port.port)).collect(),
            local: is_local.then(|| spec.selector.clone().unwrap_or_default()),
        })
    }

    fn lets_in(&self, namespace: &str) -> bool {
        self.namespaces.contains("*") || self.namespaces.contains(namespace)
    }
}

#[cfg(test)]
mod tests;
