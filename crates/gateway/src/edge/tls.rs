// SPDX-License-Identifier: Apache-2.0
//! Certificates and authorities that a Gateway refers to.

use super::may_refer;
use crate::name::{ObjectName, ParentName};
use crate::objects::Objects;
use crate::source::Source;
use crate::verdict::Verdict;
use k8s::gateway::{FrontendTlsValidation, GatewaySpec, ObjectReference};

pub(super) const INVALID_CERTIFICATE: &str = "InvalidCertificateRef";

/// How certificates of clients are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientValidation {
    /// ConfigMaps with the authorities; never none.
    pub(crate) anchors: Vec<ObjectName>,
    /// Whether clients are let in whatever they show.
    pub(crate) allow_unverified: bool,
}

/// What became of the validation that an HTTPS listener is to have.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) validation: Option<ClientValidation>,
    /// What is wrong with a reference.
    pub(super) fault: Option<Verdict>,
    /// There is nothing to verify with, so nobody is let in.
    pub(super) refused: Option<Verdict>,
}

/// The Secret that `owner` refers to, if it may and if it holds a certificate with its key.
pub(crate) fn certificate(
    objects: &Objects,
    owner: &ParentName,
    reference: &ObjectReference,
) -> Result<ObjectName, Verdict> {
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    if (group, kind) != ("", "Secret") {
        let group = if group.is_empty() { "core" } else { group };
        return Err(Verdict::no(INVALID_CERTIFICATE, format!("{kind} of group {group} is not supported")));
    }
    let name = ObjectName::referred(&owner.name.namespace, reference.namespace.as_deref(), &reference.name);
    if !may_refer(objects, owner, "Secret", &name) {
        return Err(not_permitted("Secret", &name));
    }
    match objects.key_pairs.snapshot().get(&name) {
        None => Err(Verdict::no(INVALID_CERTIFICATE, format!("Secret {name} does not exist or holds no certificate"))),
        Some(pair) => match &pair.fault {
            Some(fault) => Err(Verdict::no(INVALID_CERTIFICATE, format!("Secret {name}: {fault}"))),
            None => Ok(name),
        },
    }
}

pub(crate) fn not_permitted(kind: &str, name: &ObjectName) -> Verdict {
    Verdict::no("RefNotPermitted", format!("no ReferenceGrant permits the reference to {kind} {name}"))
}

/// Whether a validation of this Gateway lets in clients whatever they show.
pub(super) fn lets_in_unverified(gateway: &GatewaySpec) -> bool {
    let Some(frontend) = gateway.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else { return false };
    let configs = std::iter::once(&frontend.default).chain(frontend.per_port.iter().map(|port| &port.tls));
    configs.filter_map(|config| config.validation.as_ref()).any(allows_unverified)
}

fn allows_unverified(validation: &FrontendTlsValidation) -> bool {
    validation.mode.as_deref() == Some("AllowInsecureFallback")
}

/// How HTTPS listeners of a port judge clients.
pub(super) fn client_validation(objects: &Objects, gateway: &Source<GatewaySpec>, port: u16) -> Client {
    let Some(frontend) = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else {
        return Client::default();
    };
    let own = frontend.per_port.iter().find(|config| config.port == i64::from(port));
    let config = own.map_or(&frontend.default, |config| &config.tls);
    let Some(validation) = &config.validation else { return Client::default() };
    let owner = ParentName::gateway(&gateway.name);
    let (mut anchors, mut fault) = (Vec::new(), None);
    for reference in &validation.ca_certificate_refs {
        match authorities(objects, &owner, reference) {
            Ok(name) => anchors.push(name),
            Err(verdict) => fault = fault.or(Some(verdict)),
        }
    }
    if anchors.is_empty() {
        let refused = Verdict::no("NoValidCACertificate", "no authority is left to verify clients with");
        return Client { validation: None, fault, refused: Some(refused) };
    }
    let allow_unverified = allows_unverified(validation);
    Client { validation: Some(ClientValidation { anchors, allow_unverified }), fault, refused: None }
}

fn authorities(objects: &Objects, owner: &ParentName, reference: &ObjectReference) -> Result<ObjectName, Verdict> {
    let kind = (reference.group.as_deref().unwrap_or_default(), reference.kind.as_deref().unwrap_or("ConfigMap"));
    if kind != ("", "ConfigMap") {
        let message = format!("{} of group {:?} cannot hold authorities", kind.1, kind.0);
        return Err(Verdict::no("InvalidCACertificateKind", message));
    }
    let name = ObjectName::referred(&owner.name.namespace, reference.namespace.as_deref(), &reference.name);
    if !may_refer(objects, owner, "ConfigMap", &name) {
        return Err(not_permitted("ConfigMap", &name));
    }
    usable_anchors(objects, name).map_err(|message| Verdict::no("InvalidCACertificateRef", message))
}

/// The authorities of an object, if they are there and can be used.
pub(crate) fn usable_anchors(objects: &Objects, name: ObjectName) -> Result<ObjectName, String> {
    match objects.anchors.snapshot().get(&name) {
        None => Err(format!("ConfigMap {name} does not exist or has no ca.crt")),
        Some(anchors) => match &anchors.fault {
            Some(fault) => Err(format!("ConfigMap {name}: {fault}")),
            None => Ok(name),
        },
    }
}
