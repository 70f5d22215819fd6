// SPDX-License-Identifier: Apache-2.0
//! Ingresses, as the Gateways and routes that say the same: what serves these and makes their Services serves Ingresses too.

mod annotations;
mod problems;
mod translate;

pub(crate) use problems::derive as problems;
pub use problems::{IngressFault, IngressProblem};

use crate::name::{ObjectName, RouteName};
use crate::objects::Objects;
use crate::source::{Meta, Parameters, Route, Service, Source};
use annotations::Annotations;
use k8s::gateway::{GatewaySpec, ReferenceGrantSpec};
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use k8s::k8s_openapi::api::networking::v1 as networking;
use statedb::{Index, Inputs, Reader, Tasks};
use std::sync::Arc;

/// Name of the IngressClass.
const CLASS: &str = "cilium";
/// Annotation that named the class before there was a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// What the names of Gateways that stand for Ingresses begin with. No object has such a name.
const PREFIX: &str = "ingress:";
/// Name of the grant for the default certificate.
const DEFAULT: &str = "ingress:default";
/// What such Gateways are called in ReferenceGrants, so that what Ingresses may refer to is nobody else's.
pub(crate) const KIND: &str = "Ingress";

/// How Ingresses are served that do not say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngressConfig {
    /// They share one load balancer.
    pub shared: bool,
    /// Hosts with TLS are redirected to it.
    pub enforce_https: bool,
    /// The namespace that Cilium is in, where the shared load balancer's Service is.
    pub namespace: Arc<str>,
    /// Where those listen that share, at the nodes' own addresses.
    pub shared_host_port: u16,
    /// Secret of hosts that name none.
    pub default_secret: Option<ObjectName>,
    /// What annotations that are copied to Services begin with.
    pub copied: Vec<String>,
}

/// An Ingress of ours. One row per Ingress.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// Namespace and name.
    pub name: ObjectName,
    /// Metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: networking::IngressSpec,
    /// Addresses that its status has, in order.
    pub addresses: Vec<String>,
    annotations: Annotations,
}

impl statedb::Row for Ingress {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// The row of an Ingress of the class. What of it cannot be read is as if it were not there, and told of.
#[must_use]
pub fn ingest_ingress(config: &IngressConfig, object: &networking::Ingress) -> Option<Ingress> {
    let name = ObjectName::of(&object.metadata)?;
    let spec = object.spec.clone().unwrap_or_default();
    let annotated = || object.metadata.annotations.as_ref()?.get(CLASS_ANNOTATION);
    if spec.ingress_class_name.as_ref().or_else(annotated).is_none_or(|class| class != CLASS) {
        return None;
    }
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let address = |entry: &networking::IngressLoadBalancerIngress| entry.ip.clone().or_else(|| entry.hostname.clone());
    Some(Ingress {
        name,
        meta: (&object.metadata).into(),
        spec,
        addresses: status.into_iter().flatten().filter_map(address).collect(),
        annotations: Annotations::read(config, object.metadata.annotations.iter().flatten()),
    })
}

impl Ingress {
    /// The Gateway that stands for it, alone or with all others that share one.
    #[must_use]
    pub fn gateway(&self, config: &IngressConfig) -> ObjectName {
        if self.annotations.shared {
            ObjectName::new(Arc::clone(&config.namespace), PREFIX)
        } else {
            ObjectName::new(Arc::clone(&self.name.namespace), format!("{PREFIX}{}", self.name.name))
        }
    }

    /// The object, for events.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("networking.k8s.io/v1".to_owned()),
            kind: Some("Ingress".to_owned()),
            namespace: Some(self.name.namespace.to_string()),
            name: Some(self.name.name.to_string()),
            uid: Some(self.meta.uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

/// Name of the Gateway that stands for an Ingress; for all that share one, of an empty name.
pub(crate) fn standing_for(ingress: &str) -> String {
    format!("{PREFIX}{ingress}")
}

/// Of a Gateway that stands for Ingresses, the name of the one Ingress; empty if all share it.
pub(crate) fn behind(gateway: &ObjectName) -> Option<&str> {
    gateway.name.strip_prefix(PREFIX)
}

/// The objects, and those that stand for Ingresses.
#[must_use]
pub fn with_ingresses(
    tasks: &Tasks,
    objects: &Objects,
    ingresses: &Reader<Ingress>,
    config: &IngressConfig,
) -> Objects {
    let of_gateway = {
        let config = config.clone();
        ingresses.index(move |ingress| [ingress.gateway(&config)])
    };
    let standing = Standing { config: config.clone(), of_gateway, ingresses: ingresses.clone() };
    let (mut classes, class) = statedb::table("ingress-class");
    classes.insert(translate::class());
    classes.mark_initialized();
    Objects {
        classes: statedb::merge(tasks, "gateway-all-classes", [objects.classes.clone(), class]).rows,
        gateways: statedb::merge(tasks, "all-gateways", [objects.gateways.clone(), standing.gateways(tasks)]).rows,
        grants: statedb::merge(tasks, "all-grants", [objects.grants.clone(), standing.grants(tasks)]).rows,
        parameters: statedb::merge(tasks, "all-parameters", [objects.parameters.clone(), standing.parameters(tasks)])
            .rows,
        routes: {
            let routes = standing.routes(tasks, &objects.services);
            statedb::merge(tasks, "all-routes", [objects.routes.clone(), routes]).rows
        },
        ..objects.clone()
    }
}

/// What stands for Ingresses.
#[derive(Clone)]
struct Standing {
    config: IngressConfig,
    of_gateway: Index<Ingress, ObjectName>,
    ingresses: Reader<Ingress>,
}

impl Standing {
    fn by_gateway(&self) -> Inputs<ObjectName> {
        let config = self.config.clone();
        Inputs::of(&self.ingresses, move |ingress: &Ingress| [ingress.gateway(&config)])
    }

    /// In the order in which they were made: of two that claim the same, the older counts.
    fn behind(&self, gateway: &ObjectName) -> Vec<Arc<Ingress>> {
        let mut ingresses = self.of_gateway.get(gateway);
        ingresses.sort_by(|a, b| (a.meta.created, &a.name).cmp(&(b.meta.created, &b.name)));
        ingresses
    }

    fn gateways(&self, tasks: &Tasks) -> Reader<Source<GatewaySpec>> {
        let standing = self.clone();
        let row = move |name: &ObjectName, _: Option<&Source<GatewaySpec>>| {
            translate::gateway(&standing.config, name, &standing.behind(name))
        };
        statedb::derive(tasks, "ingress-gateways", self.by_gateway(), row).rows
    }

    fn parameters(&self, tasks: &Tasks) -> Reader<Parameters> {
        let standing = self.clone();
        let row = move |name: &ObjectName, _: Option<&Parameters>| {
            translate::parameters(&standing.config, name, &standing.behind(name))
        };
        statedb::derive(tasks, "ingress-parameters", self.by_gateway(), row).rows
    }

    /// What stands for Ingresses may use the Secrets that these name in their own namespaces, and the default one.
    fn grants(&self, tasks: &Tasks) -> Reader<Source<ReferenceGrantSpec>> {
        let Self { config, ingresses, .. } = self.clone();
        let default = config.default_secret.clone();
        let of_default = default.as_ref().map(|secret| ObjectName::new(Arc::clone(&secret.namespace), DEFAULT));
        let inputs = Inputs::of(&self.ingresses, {
            let of_default = of_default.clone();
            move |ingress: &Ingress| {
                let beside = ObjectName::new(Arc::clone(&ingress.name.namespace), PREFIX);
                std::iter::once(beside).chain(of_default.clone()).collect::<Vec<_>>()
            }
        });
        let row = move |name: &ObjectName, _: Option<&Source<ReferenceGrantSpec>>| {
            let all = ingresses.snapshot();
            if of_default.as_ref() == Some(name) {
                let namespaces = all.iter().map(|ingress| ingress.gateway(&config).namespace);
                return Some(translate::grant(name, namespaces, default.as_ref()));
            }
            let here = |ingress: &&Arc<Ingress>| ingress.name.namespace == name.namespace;
            let shares = all.iter().filter(here).any(|ingress| ingress.annotations.shared);
            shares.then(|| translate::grant(name, [Arc::clone(&config.namespace)], None))
        };
        statedb::derive(tasks, "ingress-grants", inputs, row).rows
    }

    fn routes(&self, tasks: &Tasks, services: &Reader<Service>) -> Reader<Route> {
        let names = {
            let config = self.config.clone();
            move |ingress: &Ingress| translate::route_names(&config, ingress)
        };
        let by_route = self.ingresses.index(names.clone());
        let by_namespace = self.ingresses.index(|ingress| [Arc::clone(&ingress.name.namespace)]);
        let of_service = names.clone();
        let inputs = Inputs::of(&self.ingresses, names).and(services, move |service: &Service| {
            let ingresses = by_namespace.get(&service.name.namespace);
            ingresses.iter().flat_map(|ingress| of_service(ingress)).collect::<Vec<_>>()
        });
        let (config, services) = (self.config.clone(), services.clone());
        statedb::derive(tasks, "ingress-routes", inputs, move |name: &RouteName, _: Option<&Route>| {
            let ingress = by_route.get(name).into_iter().next()?;
            let routes = translate::routes(&config, &ingress, &services.snapshot());
            routes.into_iter().find(|route| route.name == *name)
        })
        .rows
    }
}
