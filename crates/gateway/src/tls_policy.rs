// SPDX-License-Identifier: Apache-2.0
//! BackendTLSPolicies: which of them holds for a port of a Service, and what it says.

use crate::edge::usable_anchors;
use crate::name::ObjectName;
use crate::objects::Objects;
use crate::source::Source;
use crate::verdict::Verdict;
use k8s::gateway::{BackendTlsPolicySpec, ObjectReference};
use l7::{PeerName, Trust};
use rustls::pki_types::ServerName;
use statedb::{Index, Reader};
use std::sync::Arc;

type Policy = Source<BackendTlsPolicySpec>;

/// Policies by the Services that they are for.
#[derive(Clone)]
pub(crate) struct Policies(Index<Policy, ObjectName>);

/// The Services that a policy is for.
pub(crate) fn targets(policy: &Policy) -> Vec<ObjectName> {
    let services = policy.spec.target_refs.iter().filter(|target| is_service(target));
    services.map(|target| ObjectName::referred(&policy.name.namespace, None, &target.name)).collect()
}

fn is_service(target: &ObjectReference) -> bool {
    target.group.as_deref().unwrap_or_default().is_empty() && target.kind.as_deref() == Some("Service")
}

impl Policies {
    pub(crate) fn new(policies: &Reader<Policy>) -> Self {
        Self(policies.index(targets))
    }

    /// The policy of a port: one for the port by its name before one for the whole Service, and of several the oldest.
    pub(crate) fn of(&self, service: &ObjectName, port: &str) -> Option<Arc<Policy>> {
        self.first(service, Some(port)).or_else(|| self.first(service, None))
    }

    /// The first of the policies for exactly this section of a Service.
    pub(crate) fn first(&self, service: &ObjectName, section: Option<&str>) -> Option<Arc<Policy>> {
        let names = |policy: &&Arc<Policy>| {
            policy.spec.target_refs.iter().any(|target| {
                is_service(target) && *target.name == *service.name && target.section_name.as_deref() == section
            })
        };
        let policies = self.0.get(service);
        policies.iter().filter(names).min_by_key(|policy| (policy.meta.created, policy.name.clone())).cloned()
    }
}

/// What a policy says of backends' certificates.
pub(crate) struct Validation {
    /// Whom to trust; nothing if there is nobody, and then no backend is spoken to.
    pub(crate) trust: Option<Trust>,
    /// Whether it can be followed.
    pub(crate) accepted: Verdict,
    /// Whether all that it refers to is there.
    pub(crate) resolved: Verdict,
}

/// The ConfigMaps with authorities that a policy refers to.
pub(crate) fn anchors(policy: &Policy) -> Vec<ObjectName> {
    let references = policy.spec.validation.ca_certificate_refs.iter();
    references.filter_map(|reference| anchors_name(policy, reference)).collect()
}

fn anchors_name(policy: &Policy, reference: &ObjectReference) -> Option<ObjectName> {
    let kind = (reference.group.as_deref().unwrap_or_default(), reference.kind.as_deref()?);
    (kind == ("", "ConfigMap")).then(|| ObjectName::referred(&policy.name.namespace, None, &reference.name))
}

/// Whom a policy trusts, and what is wrong with it.
pub(crate) fn validation(objects: &Objects, policy: &Policy) -> Validation {
    let (accepted, resolved) = (Verdict::yes("Accepted"), Verdict::yes("ResolvedRefs"));
    let asked = &policy.spec.validation;
    if names(&policy.spec).len() < asked.subject_alt_names.len() {
        let message =
            "validation.subjectAltNames: a name is neither of type Hostname nor of type URI, or lacks its field";
        return Validation { trust: None, accepted: Verdict::no("Invalid", message), resolved };
    }
    if let Err(error) = ServerName::try_from(asked.hostname.as_str()) {
        let message = format!("validation.hostname: {:?}: {error}", asked.hostname);
        return Validation { trust: None, accepted: Verdict::no("Invalid", message), resolved };
    }
    let system = asked.well_known_ca_certificates.as_deref().filter(|name| !name.is_empty());
    match (asked.ca_certificate_refs.is_empty(), system) {
        (true, Some("System")) => return Validation { trust: Some(Trust::System), accepted, resolved },
        (false, None) => {}
        (true, other) => {
            let message = format!(
                "validation: {:?} is no set of authorities, and none are referred to",
                other.unwrap_or_default()
            );
            return Validation { trust: None, accepted: Verdict::no("Invalid", message), resolved };
        }
        (false, Some(_)) => {
            let message = "validation: caCertificateRefs and wellKnownCACertificates exclude each other";
            return Validation { trust: None, accepted: Verdict::no("Invalid", message), resolved };
        }
    }
    let (mut usable, mut fault) = (Vec::new(), None);
    for reference in &asked.ca_certificate_refs {
        let found = match anchors_name(policy, reference) {
            None => Err(Verdict::no("InvalidKind", format!("{} cannot hold authorities", kind(reference)))),
            Some(name) => {
                usable_anchors(objects, name).map_err(|message| Verdict::no("InvalidCACertificateRef", message))
            }
        };
        match found {
            Ok(name) => usable.push(name.to_string().into()),
            Err(verdict) => fault = fault.or(Some(verdict)),
        }
    }
    let resolved = fault.unwrap_or(resolved);
    if usable.is_empty() {
        let accepted = Verdict::no("NoValidCACertificate", "no authority is left to verify backends with");
        return Validation { trust: None, accepted, resolved };
    }
    Validation { trust: Some(Trust::Anchors(usable)), accepted, resolved }
}

fn kind(reference: &ObjectReference) -> &str {
    reference.kind.as_deref().unwrap_or("an object without a kind")
}

/// The names of which a backend's certificate must have one.
pub(crate) fn names(policy: &BackendTlsPolicySpec) -> Vec<PeerName> {
    let name = |name: &k8s::gateway::SubjectAltName| match name.kind.as_str() {
        "Hostname" => name.hostname.clone().map(PeerName::Hostname),
        "URI" => name.uri.clone().map(PeerName::Uri),
        _ => None,
    };
    policy.validation.subject_alt_names.iter().filter_map(name).collect()
}
