// SPDX-License-Identifier: Apache-2.0
//! GatewayClasses of ours, and what holds for Gateways of each.

use crate::name::ObjectName;
use crate::objects::Objects;
use crate::source::{Parameters, Source};
use crate::verdict::Verdict;
use k8s::gateway::{GatewayAddress, GatewayClassSpec, GatewaySpec, MeshSpec, ObjectReference, ServiceParameters};
use std::sync::Arc;

/// Name under which we serve GatewayClasses.
pub const CONTROLLER: &str = "io.cilium/gateway-controller";

/// What holds for a Gateway by its class.
pub(crate) struct Class {
    /// What the class, or the Gateway itself, is parameterised with.
    pub(crate) parameters: Result<Option<Arc<Parameters>>, Verdict>,
}

/// The class of a Gateway, if it is ours.
pub(crate) fn of(objects: &Objects, gateway: &Source<GatewaySpec>) -> Option<Class> {
    let name = ObjectName::new("", gateway.spec.gateway_class_name.as_str());
    let class = objects.classes.snapshot().get(&name).filter(|class| is_ours(class))?;
    let own = gateway.spec.infrastructure.as_ref().and_then(|infrastructure| infrastructure.parameters_ref.as_ref());
    let parameters = match own {
        Some(own) => parameters(objects, own, Some(&gateway.name.namespace)),
        None => of_class(objects, &class),
    };
    Some(Class { parameters })
}

/// Whether we serve Gateways of this class.
pub(crate) fn is_ours(class: &Source<GatewayClassSpec>) -> bool {
    class.spec.controller_name == CONTROLLER
}

/// Whether a mesh can be used, which is ours by the same name as classes.
pub(crate) fn mesh(spec: &MeshSpec) -> Option<Verdict> {
    if spec.controller_name != CONTROLLER {
        return None;
    }
    Some(match &spec.parameters_ref {
        Some(_) => Verdict::no("InvalidParameters", "parametersRef: a mesh has no parameters"),
        None => Verdict::yes("Accepted"),
    })
}

/// Whether a class can be used.
pub(crate) fn verdict(objects: &Objects, class: &Source<GatewayClassSpec>) -> Verdict {
    of_class(objects, class).err().unwrap_or_else(|| Verdict::yes("Accepted"))
}

fn of_class(objects: &Objects, class: &Source<GatewayClassSpec>) -> Result<Option<Arc<Parameters>>, Verdict> {
    let Some(reference) = &class.spec.parameters_ref else { return Ok(None) };
    parameters(objects, reference, None)
}

/// The parameters that a class, or a Gateway in `namespace`, refers to.
fn parameters(
    objects: &Objects,
    reference: &ObjectReference,
    namespace: Option<&Arc<str>>,
) -> Result<Option<Arc<Parameters>>, Verdict> {
    let invalid = |message: String| Verdict::no("InvalidParameters", message);
    let kind = (reference.group.as_deref(), reference.kind.as_deref());
    if kind != (Some("cilium.io"), Some("CiliumGatewayClassConfig")) {
        return Err(invalid("parametersRef: only CiliumGatewayClassConfig of cilium.io can be referred to".to_owned()));
    }
    let namespace = namespace.map(AsRef::as_ref).or(reference.namespace.as_deref());
    let Some(namespace) = namespace else {
        return Err(invalid("parametersRef.namespace: must be given".to_owned()));
    };
    let name = ObjectName::new(namespace, reference.name.as_str());
    let found = objects.parameters.snapshot().get(&name);
    let found = found.ok_or_else(|| invalid(format!("CiliumGatewayClassConfig {name} does not exist")))?;
    match fault(&found.service) {
        Some(fault) => Err(invalid(format!("CiliumGatewayClassConfig {name}: {fault}"))),
        None => Ok(Some(found)),
    }
}

/// Whether Gateways can be as a CiliumGatewayClassConfig says.
pub(crate) fn config(parameters: &Parameters) -> Verdict {
    fault(&parameters.service).map_or_else(|| Verdict::yes("Accepted"), |fault| Verdict::no("InvalidParameters", fault))
}

/// What of a Service the API server would not take.
fn fault(service: &ServiceParameters) -> Option<String> {
    let one_of = |field: &str, value: Option<&str>, known: &[&str]| {
        let unknown = value.filter(|value| !value.is_empty() && !known.contains(value))?;
        Some(format!("service.{field}: {unknown:?} is none of {}", known.join(", ")))
    };
    let families = ["IPv4", "IPv6"];
    let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    let named = [
        one_of("type", service.kind.as_deref(), &["LoadBalancer", "NodePort"]),
        one_of("externalTrafficPolicy", service.external_traffic_policy.as_deref(), &["Cluster", "Local"]),
        one_of(
            "loadBalancerSourceRangesPolicy",
            service.load_balancer_source_ranges_policy.as_deref(),
            &["Allow", "Deny"],
        ),
        one_of("ipFamilyPolicy", service.ip_family_policy.as_deref(), &policies),
        one_of("trafficDistribution", service.traffic_distribution.as_deref(), &distributions),
    ];
    let mut ranges = service.load_balancer_source_ranges.iter().flatten();
    let range = ranges.find(|range| range.trim().parse::<ipnet::IpNet>().is_err());
    let range = range.map(|range| format!("service.loadBalancerSourceRanges: {range:?} is no prefix"));
    let mut asked = service.ip_families.iter().flatten();
    let family = asked.find_map(|family| one_of("ipFamilies", Some(family), &families));
    named.into_iter().flatten().next().or(family).or(range)
}

impl Class {
    /// Whether a Gateway of this class can be served, whatever its listeners are.
    pub(crate) fn verdict(&self, gateway: &GatewaySpec) -> Verdict {
        if let Err(verdict) = &self.parameters {
            return verdict.clone();
        }
        let unsupported = gateway.addresses.iter().find(|address| !is_supported(address));
        match unsupported {
            Some(address) => {
                let kind = address.kind.as_deref().unwrap_or_default();
                let value = address.value.as_deref().unwrap_or_default();
                let message = format!("addresses: {value:?} of type {kind:?} is no IP address");
                Verdict::no("UnsupportedAddress", message)
            }
            None => Verdict::yes("Accepted"),
        }
    }
}

fn is_supported(address: &GatewayAddress) -> bool {
    let is_ip = address.kind.as_deref().is_none_or(|kind| kind == "IPAddress");
    is_ip && address.value.as_deref().is_none_or(|text| text.is_empty() || text.parse::<std::net::IpAddr>().is_ok())
}
