// SPDX-License-Identifier: Apache-2.0
//! Listeners by themselves: what each asks for, and whether it can have it.

use super::{is_from, tls};
use crate::name::ObjectName;
use crate::name::{ParentName, RouteKind};
use crate::objects::Objects;
use crate::source::Source;
use crate::verdict::Verdict;
use k8s::gateway::{AllowedRoutes, FromNamespaces, GatewaySpec, ListenerTls, RouteGroupKind};
use l7::HostMatch;
use std::sync::Arc;

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Https,
    /// TLS that is not ended here.
    Passthrough,
    /// TLS that is ended here, with anything in it.
    Terminate,
    Tcp,
    Udp,
}

/// The object that a listener stands in, and its name there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListenerName {
    pub(crate) owner: ParentName,
    pub(crate) name: Arc<str>,
}

/// A listener of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listener {
    pub(crate) name: ListenerName,
    /// 0: it is nowhere.
    pub(crate) port: u16,
    /// Nothing if the protocol is unknown.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) host: HostMatch,
    /// Kinds of routes that may attach.
    pub(crate) kinds: Vec<RouteKind>,
    /// Where they may be.
    pub(crate) from: FromNamespaces,
    /// Secrets with the certificates that it shows.
    pub(crate) certificates: Vec<ObjectName>,
    pub(crate) client: Option<tls::ClientValidation>,
    pub(crate) accepted: Verdict,
    pub(crate) resolved: Verdict,
    /// Why it cannot be told from another.
    pub(crate) conflict: Option<Verdict>,
    /// Others of its port serve some of its host names, or the other way round.
    pub(crate) overlaps: bool,
}

impl Listener {
    /// Whether the proxy serves it.
    pub(crate) fn serves(&self) -> bool {
        let needs_certificate = matches!(self.protocol, Some(Protocol::Https | Protocol::Terminate));
        let shown = !needs_certificate || !self.certificates.is_empty();
        self.accepted.holds && !self.kinds.is_empty() && shown
    }

    /// Whether all is well with it.
    pub(crate) fn is_valid(&self) -> bool {
        self.serves() && self.resolved.holds
    }

    /// Whether it lets routes of a namespace attach.
    pub(crate) fn allows(&self, objects: &Objects, namespace: &Arc<str>) -> bool {
        is_from(objects, &self.from, "Same", &self.name.owner.name.namespace, namespace)
    }
}

/// The listeners of an object that adds to a Gateway, each by itself.
pub(super) fn resolve(
    objects: &Objects,
    gateway: &Source<GatewaySpec>,
    owner: &ParentName,
    listeners: &[k8s::gateway::Listener],
) -> Vec<Listener> {
    listeners.iter().map(|listener| Asked { objects, gateway, owner, listener }.resolve()).collect()
}

struct Asked<'a> {
    objects: &'a Objects,
    gateway: &'a Source<GatewaySpec>,
    owner: &'a ParentName,
    listener: &'a k8s::gateway::Listener,
}

impl Asked<'_> {
    fn resolve(&self) -> Listener {
        let protocol = self.protocol();
        let (port, host) = (self.port(), self.host());
        let asked = [protocol.as_ref().err(), port.as_ref().err(), host.as_ref().err()];
        let mut accepted = asked.into_iter().flatten().next().cloned().unwrap_or_else(|| Verdict::yes("Accepted"));
        let protocol = protocol.ok();
        // One whose host is no name is for no name, rather than for all.
        let port = port.ok().filter(|_| host.is_ok()).unwrap_or_default();
        let (kinds, foreign) = self.kinds(protocol);
        let (certificates, fault) = self.certificates(protocol);
        let client = match protocol {
            Some(Protocol::Https) => tls::client_validation(self.objects, self.gateway, port),
            _ => tls::Client::default(),
        };
        if let (true, Some(fault)) = (accepted.holds, client.refused) {
            accepted = fault;
        }
        let resolved = foreign.or(fault).or(client.fault).unwrap_or_else(|| Verdict::yes("ResolvedRefs"));
        let allowed = self.listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.clone());
        Listener {
            name: ListenerName { owner: self.owner.clone(), name: self.listener.name.as_str().into() },
            port,
            protocol,
            host: host.unwrap_or_default(),
            kinds,
            from: allowed.unwrap_or_default(),
            certificates,
            client: client.validation,
            accepted,
            resolved,
            conflict: None,
            overlaps: false,
        }
    }

    fn protocol(&self) -> Result<Protocol, Verdict> {
        let mode = self.listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
        match (self.listener.protocol.as_str(), mode) {
            ("HTTP", _) => Ok(Protocol::Http),
            ("HTTPS", "Terminate") => Ok(Protocol::Https),
            ("TLS", "Terminate") => Ok(Protocol::Terminate),
            ("TLS", "Passthrough") => Ok(Protocol::Passthrough),
            ("TCP", _) => Ok(Protocol::Tcp),
            ("UDP", _) => Ok(Protocol::Udp),
            ("HTTPS" | "TLS", mode) => {
                let protocol = &self.listener.protocol;
                Err(Verdict::no("UnsupportedValue", format!("TLS mode {mode} does not go with protocol {protocol}")))
            }
            (other, _) => Err(Verdict::no("UnsupportedProtocol", format!("protocol {other} is not supported"))),
        }
    }

    fn port(&self) -> Result<u16, Verdict> {
        let port = u16::try_from(self.listener.port).ok().filter(|port| *port != 0);
        port.ok_or_else(|| Verdict::no("PortUnavailable", format!("{} is no port", self.listener.port)))
    }

    fn host(&self) -> Result<HostMatch, Verdict> {
        let text = self.listener.hostname.as_deref().unwrap_or_default();
        text.parse().map_err(|error: l7::ParseHostError| Verdict::no("UnsupportedValue", error.to_string()))
    }

    /// The kinds that may attach, and what is wrong with those that are asked for.
    fn kinds(&self, protocol: Option<Protocol>) -> (Vec<RouteKind>, Option<Verdict>) {
        let suitable: &[RouteKind] = match protocol {
            Some(Protocol::Http | Protocol::Https) => &[RouteKind::Http, RouteKind::Grpc],
            Some(Protocol::Passthrough | Protocol::Terminate) => &[RouteKind::Tls],
            Some(Protocol::Tcp) => &[RouteKind::Tcp],
            Some(Protocol::Udp) => &[RouteKind::Udp],
            None => &[],
        };
        let asked = self.listener.allowed_routes.as_ref().map_or(&[][..], |AllowedRoutes { kinds, .. }| kinds);
        if asked.is_empty() || protocol.is_none() {
            return (suitable.to_vec(), None);
        }
        let named = |kind: &RouteKind| asked.iter().any(|asked| is_kind(asked, *kind));
        let kinds: Vec<_> = suitable.iter().copied().filter(named).collect();
        let foreign = asked.iter().find(|asked| !suitable.iter().any(|kind| is_kind(asked, *kind)));
        let fault = |asked: &RouteGroupKind| {
            let message = format!("routes of kind {} cannot attach to protocol {}", asked.kind, self.listener.protocol);
            Verdict::no("InvalidRouteKinds", message)
        };
        (kinds, foreign.map(fault))
    }

    /// The certificates that are there, and what is wrong with the first that is not.
    fn certificates(&self, protocol: Option<Protocol>) -> (Vec<ObjectName>, Option<Verdict>) {
        if !matches!(protocol, Some(Protocol::Https | Protocol::Terminate)) {
            return (Vec::new(), None);
        }
        let references =
            self.listener.tls.as_ref().map_or(&[][..], |ListenerTls { certificate_refs, .. }| certificate_refs);
        let (mut certificates, mut fault) = (Vec::new(), None);
        if references.is_empty() {
            fault = Some(Verdict::no(tls::INVALID_CERTIFICATE, "tls.certificateRefs: no certificate is given"));
        }
        for reference in references {
            match tls::certificate(self.objects, self.owner, reference) {
                Ok(name) => certificates.push(name),
                Err(verdict) => fault = fault.or(Some(verdict)),
            }
        }
        (certificates, fault)
    }
}

fn is_kind(asked: &RouteGroupKind, kind: RouteKind) -> bool {
    asked.kind == kind.as_str() && asked.group.as_deref().is_none_or(|group| group == k8s::gateway::GROUP)
}
