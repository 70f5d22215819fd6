// SPDX-License-Identifier: Apache-2.0
//! CiliumLocalRedirectPolicies: which addresses lead to pods of the node. A field that is wrong makes the whole policy so, since half a
//! redirect is what nobody asked for.

use super::names;
use crate::Config;
use k8s::Warning;
use k8s::cilium::{AddressMatcher, CiliumLocalRedirectPolicy, LocalRedirectPolicySpec, PortInfo, ServiceMatcher};
use k8s::field::{self, FieldError};
use k8s::kube::Resource as _;
use k8s::kube::core::Selector;
use model::{Protocol, ServiceName};
use std::net::IpAddr;
use std::sync::Arc;

const FRONTEND: &str = "spec.redirectFrontend";
const ADDRESS: &str = "spec.redirectFrontend.addressMatcher.ip";
const ADDRESS_PORTS: &str = "spec.redirectFrontend.addressMatcher.toPorts";
const SERVICE_NAMESPACE: &str = "spec.redirectFrontend.serviceMatcher.namespace";
const SERVICE_PORTS: &str = "spec.redirectFrontend.serviceMatcher.toPorts";
const SELECTOR: &str = "spec.redirectBackend.localEndpointSelector";
const BACKEND_PORTS: &str = "spec.redirectBackend.toPorts";

/// A local redirect policy. One row per object.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// Namespace and name.
    pub name: ServiceName,
    /// UID of the object.
    pub uid: Arc<str>,
    /// When the object was made, in seconds since 1970.
    pub created: i64,
    /// What is redirected.
    pub from: RedirectFrom,
    /// To which pods of the node, of the policy's namespace.
    pub pods: Selector,
    /// The ports of these pods.
    pub ports: Vec<RedirectPort>,
    /// What these pods send is not redirected.
    pub spares_its_pods: bool,
}

impl statedb::Row for Redirect {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

/// What is redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectFrom {
    /// Ports of an address that belongs to no Service.
    Address(IpAddr, Vec<RedirectPort>),
    /// Ports of a Service's cluster addresses; all of them if none is named.
    Service(ServiceName, Vec<RedirectPort>),
}

impl RedirectFrom {
    pub(crate) const fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Address(..) => None,
            Self::Service(name, _) => Some(name),
        }
    }
}

/// A port of a frontend or of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectPort {
    /// Name, in lower case.
    pub name: Option<Arc<str>>,
    /// Number.
    pub port: u16,
    pub protocol: Protocol,
}

/// Which of the pods' ports a port of the frontend leads to: that of the same name, or the only one if the frontend has only one
/// port, too. The names of a Service's ports are in lower case already.
pub(crate) fn target(ports: &[RedirectPort], name: Option<&str>, protocol: Protocol, only_one: bool) -> Option<u16> {
    let found = match ports {
        [port] if only_one => Some(port),
        _ => ports.iter().find(|port| port.protocol == protocol && name.is_some() && port.name.as_deref() == name),
    };
    found.filter(|port| port.protocol == protocol).map(|port| port.port)
}

/// A row from a policy.
///
/// # Errors
/// A field cannot be used.
pub fn ingest_redirect(config: &Config, object: &CiliumLocalRedirectPolicy) -> Result<Option<Redirect>, FieldError> {
    let Some((namespace, name)) = names(&object.metadata) else { return Ok(None) };
    let spec = object.spec.as_ref().ok_or_else(|| FieldError::new("spec", "", "a redirect"))?;
    let from = match (&spec.redirect_frontend.address_matcher, &spec.redirect_frontend.service_matcher) {
        (Some(address), None) => from_address(config, address)?,
        (None, Some(service)) => from_service(&namespace, service)?,
        _ => return Err(FieldError::new(FRONTEND, "", "one of addressMatcher and serviceMatcher")),
    };
    let ports = ports(BACKEND_PORTS, &spec.redirect_backend.to_ports)?;
    if ports.is_empty() {
        return Err(FieldError::new(BACKEND_PORTS, "", "a port at least"));
    }
    complete(&from, &ports)?;
    Ok(Some(Redirect {
        name: ServiceName::new(namespace, name),
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        created: super::created(&object.metadata),
        from,
        pods: selector(spec)?,
        ports,
        spares_its_pods: spec.skip_redirect_from_backend.unwrap_or_default(),
    }))
}

/// A policy that redirects nothing. One row per such object.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedRedirect {
    /// Namespace and name.
    pub name: ServiceName,
    /// What its author is told.
    pub warning: Warning,
}

impl statedb::Row for JudgedRedirect {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

/// A row from a policy that cannot be used.
#[must_use]
pub fn judge_redirect(config: &Config, object: &CiliumLocalRedirectPolicy) -> Option<JudgedRedirect> {
    let fault = ingest_redirect(config, object).err()?;
    let (namespace, name) = names(&object.metadata)?;
    let about = object.object_ref(&());
    let note = format!("Nothing is redirected: {fault}");
    let warning = Warning { about, reason: "LocalRedirectPolicyInvalid", action: "Validate", note };
    Some(JudgedRedirect { name: ServiceName::new(namespace, name), warning })
}

fn from_address(config: &Config, matcher: &AddressMatcher) -> Result<RedirectFrom, FieldError> {
    let ip = field::address(ADDRESS, matcher.ip.trim())?;
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast {
        return Err(FieldError::new(ADDRESS, ip, "an address of one machine"));
    }
    let allowed = &config.redirected_prefixes;
    if !(allowed.is_empty() || allowed.iter().any(|prefix| prefix.contains(&ip))) {
        return Err(FieldError::new(ADDRESS, ip, "among lrp-address-matcher-cidrs"));
    }
    let ports = ports(ADDRESS_PORTS, &matcher.to_ports)?;
    if ports.is_empty() {
        return Err(FieldError::new(ADDRESS_PORTS, "", "a port at least"));
    }
    Ok(RedirectFrom::Address(ip, ports))
}

/// A policy redirects Services of its own namespace only: those of others are not its author's.
fn from_service(namespace: &Arc<str>, matcher: &ServiceMatcher) -> Result<RedirectFrom, FieldError> {
    if *matcher.namespace != **namespace {
        return Err(FieldError::new(SERVICE_NAMESPACE, &matcher.namespace, "the policy's own namespace"));
    }
    let ports = ports(SERVICE_PORTS, matcher.to_ports.as_deref().unwrap_or_default())?;
    Ok(RedirectFrom::Service(ServiceName::new(Arc::clone(namespace), matcher.service_name.as_str()), ports))
}

/// Ports that belong to those of the other side by their names, if there are several.
fn ports(field: &'static str, list: &[PortInfo]) -> Result<Vec<RedirectPort>, FieldError> {
    let mut ports: Vec<RedirectPort> = Vec::new();
    for info in list {
        let number = info.port.parse::<u16>().ok().filter(|port| *port != 0);
        let protocol = match field::protocol(field, Some(&info.protocol))? {
            Protocol::Sctp => return Err(FieldError::new(field, &info.protocol, "TCP or UDP")),
            protocol => protocol,
        };
        let port = RedirectPort {
            name: super::port_name(info.name.as_deref()).map(|name| name.to_lowercase().into()),
            port: number.ok_or_else(|| FieldError::new(field, &info.port, "a port from 1 to 65535"))?,
            protocol,
        };
        if list.len() > 1 && port.name.is_none() {
            return Err(FieldError::new(field, &info.port, "a port with a name, which each of several ports needs"));
        }
        if ports.iter().any(|other| port.name.is_some() && other.name == port.name && other.protocol == protocol) {
            return Err(FieldError::new(field, port.name.unwrap_or_default(), "the name of one port only"));
        }
        ports.push(port);
    }
    Ok(ports)
}

/// Each port that is named in front has one behind.
fn complete(from: &RedirectFrom, behind: &[RedirectPort]) -> Result<(), FieldError> {
    let (RedirectFrom::Address(_, front) | RedirectFrom::Service(_, front)) = from;
    let has_target =
        |port: &&RedirectPort| target(behind, port.name.as_deref(), port.protocol, front.len() == 1).is_some();
    match front.iter().find(|port| !has_target(port)) {
        None => Ok(()),
        Some(RedirectPort { port, protocol, .. }) => {
            let want = "led to by a port of the same protocol and name, or by the only one";
            Err(FieldError::new(BACKEND_PORTS, format!("{port}/{protocol}"), want))
        }
    }
}

fn selector(spec: &LocalRedirectPolicySpec) -> Result<Selector, FieldError> {
    let selector = spec.redirect_backend.local_endpoint_selector.clone();
    Selector::try_from(selector).map_err(|error| FieldError::new(SELECTOR, error, "a label selector"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::{Value, json};

    fn ingest(frontend: &Value, ports: &Value) -> Result<Option<Redirect>, String> {
        let object = json!({
            "metadata": {"namespace": "ns", "name": "p", "uid": "u"},
            "spec": {"redirectFrontend": frontend,
                     "redirectBackend": {"localEndpointSelector": {"matchLabels": {"app": "x"}}, "toPorts": ports}},
        });
        let config = Config { redirected_prefixes: vec!["169.254.0.0/16".parse().unwrap()], ..Config::default() };
        ingest_redirect(&config, &serde_json::from_value(object).unwrap()).map_err(|error| error.to_string())
    }

    fn port(name: Option<&str>, port: &str, protocol: &str) -> Value {
        json!({"name": name, "port": port, "protocol": protocol})
    }

    fn address(ip: &str, ports: &[Value]) -> Value {
        json!({"addressMatcher": {"ip": ip, "toPorts": ports}})
    }

    #[test]
    fn ports_belong_together_by_name_or_as_the_only_ones() {
        let behind = json!([port(Some("dns"), "1053", "UDP"), port(Some("DNS"), "2053", "TCP")]);
        let front = [port(Some("DNS"), "53", "UDP"), port(Some("dns"), "53", "TCP")];
        let row = ingest(&address("169.254.20.10", &front), &behind).unwrap().unwrap();
        assert_eq!(target(&row.ports, Some("dns"), Protocol::Udp, false), Some(1053));
        assert_eq!(target(&row.ports, Some("dns"), Protocol::Tcp, false), Some(2053));
        assert_eq!(target(&row.ports, None, Protocol::Tcp, true), None);

        let single = json!([port(None, "8080", "TCP")]);
        let row = ingest(&address("169.254.169.254", &[port(Some("http"), "80", "TCP")]), &single).unwrap().unwrap();
        assert_eq!(target(&row.ports, Some("http"), Protocol::Tcp, true), Some(8080));
        assert_eq!(target(&row.ports, Some("http"), Protocol::Udp, true), None);
        assert_eq!(target(&row.ports, None, Protocol::Tcp, false), None);
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_field() {
        let (http, single) = ([port(None, "80", "TCP")], json!([port(None, "8080", "TCP")]));
        let error = |frontend: Value, ports: &Value| ingest(&frontend, ports).unwrap_err();
        let both = json!({"addressMatcher": {"ip": "169.254.1.1", "toPorts": http},
                          "serviceMatcher": {"namespace": "ns", "serviceName": "s"}});
        let cases = [
            (error(both, &single), "spec.redirectFrontend: \"\" is not one of"),
            (error(json!({}), &single), "spec.redirectFrontend: \"\" is not one of"),
            (error(address("1.2.3", &http), &single), "spec.redirectFrontend.addressMatcher.ip: \"1.2.3\""),
            (error(address("127.0.0.1", &http), &single), "spec.redirectFrontend.addressMatcher.ip: \"127.0.0.1\""),
            (error(address("255.255.255.255", &http), &single), "spec.redirectFrontend.addressMatcher.ip"),
            (error(address("224.0.0.1", &http), &single), "spec.redirectFrontend.addressMatcher.ip"),
            (error(address("8.8.8.8", &http), &single), "spec.redirectFrontend.addressMatcher.ip: \"8.8.8.8\""),
            (error(address("169.254.1.1", &[]), &single), "spec.redirectFrontend.addressMatcher.toPorts"),
            (error(address("169.254.1.1", &http), &json!([])), "spec.redirectBackend.toPorts"),
            (error(address("169.254.1.1", &[port(None, "0", "TCP")]), &single), "spec.redirectFrontend.addressMatcher"),
            (error(address("169.254.1.1", &http), &json!([port(None, "53", "UDP")])), "spec.redirectBackend.toPorts"),
            (
                error(json!({"serviceMatcher": {"namespace": "other", "serviceName": "s"}}), &single),
                "spec.redirectFrontend.serviceMatcher.namespace: \"other\" is not the policy's own namespace",
            ),
        ];
        for (error, wanted) in cases {
            assert!(error.starts_with(wanted), "{error}\nis not about\n{wanted}");
        }
        let unnamed = json!([port(None, "1", "TCP"), port(Some("a"), "2", "TCP")]);
        assert!(error(address("169.254.1.1", &http), &unnamed).contains("a port with a name"));
        let twice = json!([port(Some("a"), "1", "TCP"), port(Some("A"), "2", "TCP")]);
        assert!(error(address("169.254.1.1", &http), &twice).contains("the name of one port only"));
    }

    #[test]
    fn an_author_is_told_by_one_event_why_nothing_is_redirected() {
        let told = |namespace: &str| {
            let object = json!({
                "metadata": {"namespace": "ns", "name": "p", "uid": "u", "resourceVersion": "7"},
                "spec": {"redirectFrontend": {"serviceMatcher": {"namespace": namespace, "serviceName": "s"}},
                         "redirectBackend": {"localEndpointSelector": {}, "toPorts": [port(None, "8080", "TCP")]}},
            });
            judge_redirect(&Config::default(), &serde_json::from_value(object).unwrap())
        };
        assert_eq!(told("ns"), None);
        let Warning { about, note, .. } = told("other").unwrap().warning;
        assert_eq!(about.kind.as_deref(), Some("CiliumLocalRedirectPolicy"));
        assert_eq!((about.uid.as_deref(), about.resource_version), (Some("u"), None));
        assert!(note.contains("serviceMatcher.namespace"), "{note}");
    }

    #[test]
    fn an_address_that_is_no_single_machines_is_redirected_in_no_configuration() {
        let front = |ip: &str| {
            let frontend = address(ip, &[port(None, "80", "TCP")]);
            let backend = json!({"localEndpointSelector": {}, "toPorts": [port(None, "8080", "TCP")]});
            let object = json!({"metadata": {"namespace": "ns", "name": "p"},
                "spec": {"redirectFrontend": frontend, "redirectBackend": backend}});
            ingest_redirect(&Config::default(), &serde_json::from_value(object).unwrap())
        };
        for ip in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"] {
            let error = front(ip).unwrap_err().to_string();
            assert!(error.contains("is not an address of one machine"), "{ip}: {error}");
        }
        assert!(front("169.254.169.254").is_ok() && front("fd00::1").is_ok());
    }

    #[test]
    fn a_policy_that_redirects_nothing_is_known_by_its_name() {
        let object = json!({"metadata": {"namespace": "ns", "name": "p"}});
        let row = judge_redirect(&Config::default(), &serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(statedb::Row::key(&row), ServiceName::new("ns", "p"));
    }
}
