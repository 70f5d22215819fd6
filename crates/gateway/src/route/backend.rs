// SPDX-License-Identifier: Apache-2.0
//! Where rules send what they match.

use super::{Found, parent_name};
use crate::edge::not_permitted;
use crate::name::{ObjectName, ParentName, RouteKind};
use crate::objects::Referred;
use crate::verdict::Verdict;
use k8s::gateway::{BackendRef, StreamRule};
use model::Protocol as Transport;

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port {
    pub(crate) service: ObjectName,
    pub(crate) port: u16,
    pub(crate) udp: bool,
}

/// The largest weight that the API allows.
const MAX_WEIGHT: i64 = 1_000_000;

impl Found<'_> {
    /// The port that is referred to; nothing, which the route's status then says, if it is not there or may not be referred to.
    pub(super) fn port(&mut self, reference: &BackendRef) -> Option<Port> {
        match self.look_up(reference) {
            Ok(port) => {
                self.ports.insert(port.clone());
                Some(port)
            }
            Err(verdict) => {
                self.missing(verdict);
                None
            }
        }
    }

    fn look_up(&self, reference: &BackendRef) -> Result<Port, Verdict> {
        let (group, kind) = (reference.group.as_deref().unwrap_or_default(), reference.kind.as_deref());
        if (group, kind.unwrap_or("Service")) != ("", "Service") {
            let message =
                format!("backends of kind {} and group {group:?} are not supported", kind.unwrap_or("Service"));
            return Err(Verdict::no("InvalidKind", message));
        }
        let own = &self.route.name;
        let name = ObjectName::referred(&own.name.namespace, reference.namespace.as_deref(), &reference.name);
        let to = Referred { group: "", kind: "Service", name: &name };
        let permitted = || self.objects.permits(&[own.kind.as_str()], &own.name.namespace, &to);
        if !self.is_only_parent(&name) && !permitted() {
            return Err(not_permitted("Service", &name));
        }
        let not_found = |message: String| Verdict::no("BackendNotFound", message);
        let Some(service) = self.objects.services.snapshot().get(&name) else {
            return Err(not_found(format!("Service {name} does not exist")));
        };
        if service.external {
            return Err(not_found(format!("Service {name} is an ExternalName, which has no endpoints")));
        }
        let Some(number) = reference.port else {
            return Err(not_found(format!("Service {name}: the port is not given")));
        };
        let udp = own.kind == RouteKind::Udp;
        let transport = if udp { Transport::Udp } else { Transport::Tcp };
        let same = |port: &&crate::source::ServicePort| i64::from(port.port) == number && port.protocol == transport;
        match service.ports.iter().find(same) {
            Some(port) => Ok(Port { service: name, port: port.port, udp }),
            None => Err(not_found(format!("Service {name} has no port {number}/{transport}"))),
        }
    }
}

impl Found<'_> {
    /// Whether the route is for nothing but requests to this very Service: then it leads nobody there who was not on his way.
    fn is_only_parent(&self, service: &ObjectName) -> bool {
        let own = &self.route.name.name;
        let is_service = |parent| parent_name(own, parent).is_some_and(|parent| parent == ParentName::service(service));
        !self.route.parents.is_empty() && self.route.parents.iter().all(is_service)
    }
}

/// The share of a backend. What is out of range is taken for its nearest bound.
pub(super) fn weight(reference: &BackendRef) -> u32 {
    u32::try_from(reference.weight.unwrap_or(1).clamp(0, MAX_WEIGHT)).unwrap_or_default()
}

/// The targets of a TLSRoute, TCPRoute or UDPRoute, by weight. Of several rules the first counts.
pub(super) fn stream(found: &mut Found<'_>, rules: &[StreamRule]) -> Vec<(Option<Port>, u32)> {
    let backends = rules.first().map_or(&[][..], |rule| &rule.backend_refs);
    backends.iter().map(|reference| (found.port(reference), weight(reference))).collect()
}
