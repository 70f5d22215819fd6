// SPDX-License-Identifier: Apache-2.0
//! Which flows a client wants: those matching any filter of the allow list and none of the deny list. A filter matches
//! if all its fields do, a field if any of its values does. A field that cannot be honoured is rejected, never ignored.

mod cel;
mod l7;
mod limits;
mod selector;
mod text;

#[cfg(test)]
mod tests;

use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::{Endpoint, Flow, FlowFilter, IpVersion, NetworkInterface, TcpFlags, Workload};
use cel::Expression;
use ipnet::IpNet;
pub(crate) use limits::check_limits;
use selector::Selector;
use std::net::IpAddr;
use text::{Glob, NamePrefix};

/// The filters of a request; without any, everything is wanted.
#[derive(Default)]
pub(crate) struct Filters {
    allow: Vec<Filter>,
    deny: Vec<Filter>,
}

/// A filter cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter {field}: {:?} is not {want}", shorten(.value))]
pub(crate) struct FilterError {
    field: &'static str,
    value: String,
    want: &'static str,
}

/// The beginning of a text that a client sent, as errors quote it: they travel in headers.
pub(crate) fn shorten(text: &str) -> &str {
    const MOST: usize = 200;
    text.char_indices().nth(MOST).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

type Test = Box<dyn Fn(&Flow) -> bool + Send + Sync>;

/// All tests must hold.
struct Filter(Vec<Test>);

impl Filters {
    /// Prepares the filters of a request.
    pub(crate) fn compile(allow: &[FlowFilter], deny: &[FlowFilter]) -> Result<Self, FilterError> {
        let compile = |filters: &[FlowFilter]| filters.iter().map(Filter::compile).collect::<Result<_, _>>();
        Ok(Self { allow: compile(allow)?, deny: compile(deny)? })
    }

    /// Whether the client wants the flow.
    pub(crate) fn matches(&self, flow: &Flow) -> bool {
        let any = |filters: &[Filter]| filters.iter().any(|filter| filter.0.iter().all(|test| test(flow)));
        (self.allow.is_empty() || any(&self.allow)) && !any(&self.deny)
    }
}

impl Filter {
    fn compile(filter: &FlowFilter) -> Result<Self, FilterError> {
        let mut tests = Tests(Vec::new());
        tests.addresses(filter)?;
        tests.names(filter)?;
        tests.labels(filter)?;
        tests.transport(filter)?;
        tests.event(filter);
        l7::add(&mut tests, filter)?;
        let expressions = filter.experimental.as_ref().map(|e| e.cel_expression.as_slice()).unwrap_or_default();
        tests.any(expressions, |text| Expression::compile(text), By::new(|f: &Flow, e: &Expression| e.fits(f)))?;
        Ok(Self(tests.0))
    }
}

struct Tests(Vec<Test>);

impl Tests {
    /// Adds the test of one field: some value must match. A field without values is no test.
    fn any<V, C, F>(&mut self, values: &[V], compile: C, fits: F) -> Result<(), FilterError>
    where
        C: Fn(&V) -> Result<F::Wanted, FilterError>,
        F: Fits,
    {
        if values.is_empty() {
            return Ok(());
        }
        let wanted = values.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        self.0.push(Box::new(move |flow| wanted.iter().any(|w| fits.fits(flow, w))));
        Ok(())
    }

    /// Adds the test of a field whose values are compared for equality.
    fn equal<V>(&mut self, values: &[V], value: impl Fn(&Flow) -> Option<V> + Send + Sync + 'static)
    where
        V: Clone + PartialEq + Send + Sync + 'static,
    {
        if !values.is_empty() {
            let wanted = values.to_vec();
            self.0.push(Box::new(move |flow| value(flow).is_some_and(|v| wanted.contains(&v))));
        }
    }

    fn addresses(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        let ip = |flow: &Flow| flow.ip.clone().unwrap_or_default();
        let address = |field| move |text: &String| network(field, text);
        let inside = |text: &str, net: &IpNet| text.parse::<IpAddr>().is_ok_and(|ip| net.contains(&ip));
        let source = move |flow: &Flow, net: &IpNet| inside(&ip(flow).source, net);
        let destination = move |flow: &Flow, net: &IpNet| inside(&ip(flow).destination, net);
        let translated = move |flow: &Flow, net: &IpNet| inside(&ip(flow).source_xlated, net);
        self.any(&filter.source_ip, address("source_ip"), By::new(source))?;
        self.any(&filter.destination_ip, address("destination_ip"), By::new(destination))?;
        self.any(&filter.source_ip_xlated, address("source_ip_xlated"), By::new(translated))?;
        self.equal(&filter.ip_version, |f| Some(f.ip.as_ref().map_or(IpVersion::IpNotUsed.into(), |ip| ip.ip_version)));
        self.equal(&filter.encrypted, |f| f.ip.as_ref().map(|ip| ip.encrypted));
        Ok(())
    }

    fn names(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        let pod = |e: Option<&Endpoint>, p: &NamePrefix| e.is_some_and(|e| p.fits(&e.namespace, &e.pod_name));
        let prefix = |text: &String| Ok(NamePrefix::parse(text));
        self.any(&filter.source_pod, prefix, By::new(move |f: &Flow, p| pod(f.source.as_ref(), p)))?;
        self.any(&filter.destination_pod, prefix, By::new(move |f: &Flow, p| pod(f.destination.as_ref(), p)))?;
        let source =
            |f: &Flow, p: &NamePrefix| f.source_service.as_ref().is_some_and(|s| p.fits(&s.namespace, &s.name));
        let destination =
            |f: &Flow, p: &NamePrefix| f.destination_service.as_ref().is_some_and(|s| p.fits(&s.namespace, &s.name));
        self.any(&filter.source_service, prefix, By::new(source))?;
        self.any(&filter.destination_service, prefix, By::new(destination))?;
        let workload = |e: Option<&Endpoint>, w: &Workload| e.is_some_and(|e| e.workloads.iter().any(|x| same(x, w)));
        let given = |w: &Workload| Ok(w.clone());
        self.any(&filter.source_workload, given, By::new(move |f: &Flow, w| workload(f.source.as_ref(), w)))?;
        self.any(&filter.destination_workload, given, By::new(move |f: &Flow, w| workload(f.destination.as_ref(), w)))?;
        let domain = |field| move |text: &String| Glob::domain(field, text);
        let known = |names: &[String], glob: &Glob| names.iter().any(|name| glob.fits(name));
        self.any(&filter.source_fqdn, domain("source_fqdn"), By::new(move |f: &Flow, g| known(&f.source_names, g)))?;
        let destination = By::new(move |f: &Flow, g: &Glob| known(&f.destination_names, g));
        self.any(&filter.destination_fqdn, domain("destination_fqdn"), destination)?;
        let node = |text: &String| Glob::node("node_name", text);
        self.any(&filter.node_name, node, By::new(|f: &Flow, g: &Glob| g.fits(&f.node_name)))?;
        let cluster = |field| move |text: &String| Glob::name(field, text);
        let of = |e: Option<&Endpoint>, g: &Glob| e.is_some_and(|e| g.fits(&e.cluster_name));
        let source = By::new(move |f: &Flow, g: &Glob| of(f.source.as_ref(), g));
        let destination = By::new(move |f: &Flow, g: &Glob| of(f.destination.as_ref(), g));
        self.any(&filter.source_cluster_name, cluster("source_cluster_name"), source)?;
        self.any(&filter.destination_cluster_name, cluster("destination_cluster_name"), destination)
    }

    fn labels(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        let parse = |field| move |text: &String| Selector::parse(field, text);
        let endpoint = |e: Option<&Endpoint>, s: &Selector| e.is_some_and(|e| s.fits(&e.labels));
        let source = By::new(move |f: &Flow, s: &Selector| endpoint(f.source.as_ref(), s));
        let destination = By::new(move |f: &Flow, s: &Selector| endpoint(f.destination.as_ref(), s));
        self.any(&filter.source_label, parse("source_label"), source)?;
        self.any(&filter.destination_label, parse("destination_label"), destination)?;
        let node = By::new(|f: &Flow, s: &Selector| s.fits(&f.node_labels));
        self.any(&filter.node_labels, parse("node_labels"), node)
    }

    fn transport(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        let port = |field| move |text: &String| port(field, text);
        let source = By::new(|f: &Flow, p: &u32| ports(f).is_some_and(|(s, _)| s == *p));
        let destination = By::new(|f: &Flow, p: &u32| ports(f).is_some_and(|(_, d)| d == *p));
        self.any(&filter.source_port, port("source_port"), source)?;
        self.any(&filter.destination_port, port("destination_port"), destination)?;
        self.any(&filter.protocol, |p| l7::protocol(p), By::new(|f: &Flow, p: &l7::Name| p.fits(f)))?;
        let flags = By::new(|f: &Flow, wanted: &TcpFlags| tcp(f).is_some_and(|flags| has_all(&flags, wanted)));
        self.any(&filter.tcp_flags, |f| Ok(*f), flags)
    }

    fn event(&mut self, filter: &FlowFilter) {
        self.equal(&filter.verdict, |f| Some(f.verdict));
        self.equal(&filter.drop_reason_desc, |f| Some(f.drop_reason_desc));
        self.equal(&filter.traffic_direction, |f| Some(f.traffic_direction));
        self.equal(&filter.reply, |f| f.is_reply);
        self.equal(&filter.uuid, |f| Some(f.uuid.clone()));
        self.equal(&filter.source_identity, |f| f.source.as_ref().map(|e| e.identity));
        self.equal(&filter.destination_identity, |f| f.destination.as_ref().map(|e| e.identity));
        self.equal(&filter.ip_trace_id, |f| f.ip_trace_id.as_ref().map(|id| id.trace_id));
        self.equal(&filter.trace_id, |f| Some(f.trace_context.as_ref()?.parent.as_ref()?.trace_id.clone()));
        if !filter.event_type.is_empty() {
            let wanted = filter.event_type.clone();
            self.0.push(Box::new(move |flow| {
                flow.event_type.as_ref().is_some_and(|e| {
                    let sub = |w: i32| e.sub_type == w;
                    wanted.iter().any(|w| w.r#type == e.r#type && (!w.match_sub_type || sub(w.sub_type)))
                })
            }));
        }
        if !filter.interface.is_empty() {
            let wanted = filter.interface.clone();
            self.0.push(Box::new(move |flow| {
                flow.interface.as_ref().is_some_and(|i| wanted.iter().any(|w| interface(i, w)))
            }));
        }
    }
}

/// Whether a flow matches a value, in its compiled form.
trait Fits: Send + Sync + 'static {
    type Wanted: Send + Sync + 'static;
    fn fits(&self, flow: &Flow, wanted: &Self::Wanted) -> bool;
}

struct By<F, W>(F, std::marker::PhantomData<fn() -> W>);

impl<F: Fn(&Flow, &W) -> bool, W> By<F, W> {
    fn new(test: F) -> Self {
        Self(test, std::marker::PhantomData)
    }
}

impl<F, W> Fits for By<F, W>
where
    F: Fn(&Flow, &W) -> bool + Send + Sync + 'static,
    W: Send + Sync + 'static,
{
    type Wanted = W;
    fn fits(&self, flow: &Flow, wanted: &W) -> bool {
        (self.0)(flow, wanted)
    }
}

fn network(field: &'static str, text: &str) -> Result<IpNet, FilterError> {
    let error = || FilterError { field, value: text.to_owned(), want: "an IP address or a prefix" };
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| error())
}

fn port(field: &'static str, text: &str) -> Result<u32, FilterError> {
    let error = |_| FilterError { field, value: text.to_owned(), want: "a port number" };
    text.parse::<u16>().map(u32::from).map_err(error)
}

fn ports(flow: &Flow) -> Option<(u32, u32)> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(p) => Some((p.source_port, p.destination_port)),
        Protocol::Udp(p) => Some((p.source_port, p.destination_port)),
        Protocol::Sctp(p) => Some((p.source_port, p.destination_port)),
        _ => None,
    }
}

fn tcp(flow: &Flow) -> Option<TcpFlags> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => tcp.flags,
        _ => None,
    }
}

fn has_all(flags: &TcpFlags, wanted: &TcpFlags) -> bool {
    let bits = |f: &TcpFlags| [f.fin, f.syn, f.rst, f.psh, f.ack, f.urg, f.ece, f.cwr, f.ns];
    bits(wanted).into_iter().zip(bits(flags)).all(|(wanted, set)| set || !wanted)
}

/// Whether the workload matches; unset fields match anything.
fn same(workload: &Workload, wanted: &Workload) -> bool {
    (wanted.kind.is_empty() || wanted.kind == workload.kind) && (wanted.name.is_empty() || wanted.name == workload.name)
}

fn interface(interface: &NetworkInterface, wanted: &NetworkInterface) -> bool {
    (wanted.index == 0 || wanted.index == interface.index) && (wanted.name.is_empty() || wanted.name == interface.name)
}
