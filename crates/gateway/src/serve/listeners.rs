// SPDX-License-Identifier: Apache-2.0
//! Sockets of Gateways, and what is served at each.

use super::Serving;
use super::ports::Ports;
use super::socket::Socket;
use crate::cluster::{self, Use};
use crate::edge::{Edge, Listener, ListenerName, Protocol};
use crate::ingress;
use crate::name::{ObjectName, ParentName};
use crate::route::{Attached, Content, Place, table};
use crate::source::Meta;
use l7::{
    Alpn, Backend, ClientValidation, Forward, HostMatch, HttpServer, Limits, Object, Serve, Source, TableRef, Target,
    Termination, TlsAction, TlsServer,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// How the proxy's sockets are bound, and what they all do.
#[derive(Clone, Debug, Default)]
pub(super) struct Binding {
    ipv4: bool,
    ipv6: bool,
    proxy_protocol: bool,
    trusted_hops: u32,
    alpn: bool,
    pub(super) limits: Limits,
}

/// Those of each kind of what is served.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings {
    gateways: Binding,
    ingresses: Binding,
}

impl From<&Serving> for Bindings {
    fn from(serving: &Serving) -> Self {
        let Serving { ipv4, ipv6, proxy_protocol, ingress_proxy_protocol, trusted_hops, alpn, .. } = *serving;
        let limits = serving.limits.clone();
        let gateways = Binding { ipv4, ipv6, proxy_protocol, trusted_hops, alpn, limits };
        // An Ingress cannot ask for it, and clients of gRPC need it.
        let ingresses = Binding { proxy_protocol: ingress_proxy_protocol, alpn: true, ..gateways.clone() };
        Self { gateways, ingresses }
    }
}

impl Bindings {
    /// Of a Gateway, or of what stands for Ingresses.
    pub(super) fn of(&self, gateway: &ObjectName) -> &Binding {
        if ingress::behind(gateway).is_some() { &self.ingresses } else { &self.gateways }
    }

    /// Of what pods send to Services.
    pub(super) fn of_services(&self) -> &Binding {
        &self.gateways
    }
}

impl Binding {
    fn addresses(&self, ports: &mut Ports, site: &Site<'_>) -> Vec<SocketAddr> {
        let port = if site.of_node() { Some(site.port) } else { ports.claim(site.name) };
        let Some(port) = port else { return Vec::new() };
        let v4 = self.ipv4.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let v6 = self.ipv6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        v4.into_iter().chain(v6).map(|ip| SocketAddr::new(ip, port)).collect()
    }

    pub(super) fn listeners(&self, ports: &mut Ports, site: &Site<'_>) -> Vec<Object> {
        let Site { name, port, serve, clear, sources, at, limits } = site;
        let addresses = self.addresses(ports, site);
        let listener = |address: SocketAddr| {
            let family = if address.is_ipv6() { "/ipv6" } else { "" };
            Object::from(l7::Listener {
                name: format!("{name}{family}").into(),
                address,
                port: Some(*port),
                transparent: false,
                clear: clear.clone(),
                node: site.of_node(),
                proxy_protocol: self.proxy_protocol && *at != At::Pods && !matches!(serve, Serve::Udp(_)),
                limits: limits.clone(),
                serve: Serve::clone(serve),
                sources: sources.clone(),
            })
        };
        addresses.into_iter().map(listener).collect()
    }

    fn http(&self, tables: Vec<TableRef>) -> HttpServer {
        HttpServer { tables, trusted_hops: self.trusted_hops, mesh: None }
    }
}

/// What the sockets of all families of one port have in common.
pub(super) struct Site<'a> {
    pub(super) name: &'a str,
    pub(super) port: u16,
    pub(super) serve: Serve,
    /// Beside TLS.
    pub(super) clear: Option<HttpServer>,
    pub(super) sources: Vec<Source>,
    pub(super) at: At,
    pub(super) limits: Limits,
}

impl Site<'_> {
    fn of_node(&self) -> bool {
        matches!(self.at, At::Node | At::OnePort(_))
    }
}

/// Where a port is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// At a Service of the Gateway's own, which leads here.
    Service,
    /// At the addresses of this node.
    Node,
    /// The same, but all at one port: clients begin with TLS or without.
    OnePort(u16),
    /// At a Service with routes, by pods of this node; so no load balancer is before it.
    Pods,
}

/// The sockets of a Gateway.
pub(super) fn of_edge(
    binding: &Binding,
    ports: &mut Ports,
    (edge, at): (&Edge, At),
    routes: &[Arc<Attached>],
) -> Vec<Object> {
    let served = edge.listeners.iter().filter(|listener| edge.accepted.holds && listener.conflict.is_none());
    let mut by_port: BTreeMap<(u16, bool), Vec<&Listener>> = BTreeMap::new();
    for listener in served.filter(|listener| listener.port != 0) {
        if let Some(protocol) = listener.protocol {
            let port = if let At::OnePort(port) = at { port } else { listener.port };
            by_port.entry((port, protocol == Protocol::Udp)).or_default().push(listener);
        }
    }
    let owner = owner(&edge.gateway);
    let name = |port: u16, udp: bool| Socket { gateway: edge.gateway.clone(), port, udp }.to_string();
    let names: Vec<_> = by_port.keys().map(|(port, udp)| name(*port, *udp)).collect();
    ports.keep(&owner, &names);
    let streams = Streams::new(routes);
    let sockets = by_port.into_iter().filter_map(|((port, udp), listeners)| {
        let (clear, others): (Vec<_>, Vec<_>) =
            listeners.into_iter().partition(|listener| listener.protocol == Some(Protocol::Http));
        // Of Gateways, listeners of a port are of one family.
        let serve = serve(binding, &streams, if others.is_empty() { &clear } else { &others })?;
        let both = !clear.is_empty() && !others.is_empty();
        let clear = both.then(|| binding.http(clear.iter().map(|listener| table_ref(listener)).collect()));
        let (sources, limits) = (sources(edge), binding.limits.clone());
        let site = Site { name: &name(port, udp), port, serve, clear, sources, at, limits };
        Some(binding.listeners(ports, &site))
    });
    sockets.collect::<Vec<_>>().concat()
}

fn sources(edge: &Edge) -> Vec<Source> {
    let gateway = (ParentName::gateway(&edge.gateway), &edge.meta);
    let sets = edge.sets.iter().filter(|set| set.allowed);
    let sets = sets.map(|set| (ParentName::listener_set(&set.name), &set.meta));
    let created = edge.meta.created;
    let source = |(object, meta): (ParentName, &Meta)| Source {
        object: object.to_string().into(),
        uid: Arc::clone(&meta.uid),
        generation: meta.generation,
        created,
    };
    std::iter::once(gateway).chain(sets).map(source).collect()
}

/// What the names of a Gateway's sockets begin with.
pub(super) fn owner(gateway: &ObjectName) -> String {
    format!("gateway/{gateway}/")
}

/// What is served at a port, by what its listeners, which are of one family of protocols, say.
fn serve(binding: &Binding, streams: &Streams<'_>, listeners: &[&Listener]) -> Option<Serve> {
    let first = listeners.first()?;
    Some(match first.protocol? {
        Protocol::Http => Serve::Http(binding.http(listeners.iter().map(|listener| table_ref(listener)).collect())),
        Protocol::Tcp => Serve::Tcp(streams.first(&first.name, Use::Bytes)),
        Protocol::Udp => Serve::Udp(streams.first(&first.name, Use::Bytes)),
        Protocol::Https | Protocol::Terminate | Protocol::Passthrough => {
            Serve::Tls(listeners.iter().flat_map(|listener| servers(binding, streams, listener)).collect())
        }
    })
}

fn table_ref(listener: &Listener) -> TableRef {
    TableRef { host: listener.host.clone(), table: table(&listener.name) }
}

/// The servers of a TLS listener. One that cannot serve refuses what is for it: no listener of a wider name is to take that.
fn servers(binding: &Binding, streams: &Streams<'_>, listener: &Listener) -> Vec<TlsServer> {
    let server = |hosts: Vec<HostMatch>, action: TlsAction| TlsServer { hosts, action };
    match listener.protocol {
        Some(Protocol::Https) => {
            let alpn = if binding.alpn { vec![Alpn::Http2, Alpn::Http1] } else { vec![Alpn::Http1] };
            let http = binding.http(vec![table_ref(listener)]);
            vec![server(vec![listener.host.clone()], TlsAction::Http(termination(listener, alpn), http))]
        }
        Some(Protocol::Terminate) => {
            let action = |forward| TlsAction::Tcp(termination(listener, Vec::new()), forward);
            let forwards = streams.by_host(listener, Use::Requests).into_iter();
            forwards.map(|(hosts, forward)| server(hosts, action(forward))).collect()
        }
        Some(Protocol::Passthrough) => {
            let forwards = streams.by_host(listener, Use::Bytes).into_iter();
            forwards.map(|(hosts, forward)| server(hosts, TlsAction::Passthrough(forward))).collect()
        }
        _ => Vec::new(),
    }
}

/// Without a certificate, TLS is refused.
fn termination(listener: &Listener, alpn: Vec<Alpn>) -> Termination {
    let certificates = listener.certificates.iter().filter(|_| listener.serves());
    let client = listener.client.as_ref().map(|client| ClientValidation {
        trust: client.anchors.iter().map(|name| name.to_string().into()).collect(),
        allow_unverified: client.allow_unverified,
    });
    Termination { certificates: certificates.map(|name| name.to_string().into()).collect(), client, alpn }
}

/// Routes of connections and datagrams by where they are attached, those first that precede.
struct Streams<'a>(BTreeMap<&'a ListenerName, Vec<(&'a Attached, &'a Place)>>);

impl<'a> Streams<'a> {
    fn new(routes: &'a [Arc<Attached>]) -> Self {
        let mut routes: Vec<&Attached> = routes.iter().map(AsRef::as_ref).collect();
        routes.sort_by(|a, b| (a.meta.created, &a.name).cmp(&(b.meta.created, &b.name)));
        let mut by_listener: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for route in routes {
            for place in route.parents.iter().flat_map(|parent| &parent.places) {
                by_listener.entry(&place.name).or_default().push((route, place));
            }
        }
        Self(by_listener)
    }

    fn of(&self, listener: &ListenerName) -> &[(&'a Attached, &'a Place)] {
        self.0.get(listener).map_or(&[], Vec::as_slice)
    }

    /// Where all of a listener's connections go: as the first route says, or nowhere.
    fn first(&self, listener: &ListenerName, usage: Use) -> Forward {
        let of_listener = self.of(listener);
        of_listener.first().map_or_else(Forward::default, |(route, place)| forward(route, place, usage))
    }

    /// Where connections go by the name of the server. What no route is for goes nowhere.
    fn by_host(&self, listener: &Listener, usage: Use) -> Vec<(Vec<HostMatch>, Forward)> {
        let mut taken = BTreeSet::new();
        let mut forwards = Vec::new();
        for (route, place) in self.of(&listener.name) {
            let hosts: Vec<_> = place.hosts.iter().filter(|host| taken.insert((*host).clone())).cloned().collect();
            if !hosts.is_empty() {
                forwards.push((hosts, forward(route, place, usage)));
            }
        }
        if taken.insert(listener.host.clone()) {
            forwards.push((vec![listener.host.clone()], Forward::default()));
        }
        forwards
    }
}

fn forward(route: &Attached, place: &Place, usage: Use) -> Forward {
    let Content::Stream(targets) = &route.content else { return Forward::default() };
    let (_, owner) = cluster::usage(route, place);
    let backend = |(port, weight): &(Option<crate::route::Port>, u32)| Backend {
        target: port
            .as_ref()
            .map_or(Target::Status(500), |port| Target::Cluster(cluster::name(port, usage, owner.as_ref()))),
        weight: *weight,
        filters: l7::Rare::default(),
    };
    Forward { route: route.name.to_string().into(), backends: targets.iter().map(backend).collect() }
}
