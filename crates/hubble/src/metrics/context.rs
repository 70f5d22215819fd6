// SPDX-License-Identifier: Apache-2.0
//! Context labels: whose flows are counted.

use crate::proto::flow::{Endpoint, Flow, TrafficDirection};

/// The labels of one sample, by name.
pub(super) type Labels = Vec<(&'static str, String)>;

/// How the two sides of a flow are named, if at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contexts {
    sides: Vec<(Side, Vec<Naming>)>,
    labels: Vec<Label>,
}

/// Which side an option applies to, and for which traffic direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    SourceEgress,
    SourceIngress,
    Destination,
    DestinationEgress,
    DestinationIngress,
}

/// Alternatives for naming a side; the first with a value is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    Identity,
    Namespace,
    Pod,
    PodName,
    Dns,
    Ip,
    ReservedIdentity,
    Workload,
    WorkloadName,
    App,
}

const NAMINGS: [(&str, Naming); 10] = [
    ("identity", Naming::Identity),
    ("namespace", Naming::Namespace),
    ("pod", Naming::Pod),
    ("pod-name", Naming::PodName),
    ("dns", Naming::Dns),
    ("ip", Naming::Ip),
    ("reserved-identity", Naming::ReservedIdentity),
    ("workload", Naming::Workload),
    ("workload-name", Naming::WorkloadName),
    ("app", Naming::App),
];

/// A label of `labelsContext`.
#[derive(Clone, Copy, Debug)]
struct Label {
    name: &'static str,
    value: fn(&Flow) -> String,
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Label {}

const LABELS: [Label; 13] = [
    Label { name: "source_ip", value: |flow| source(flow).ip() },
    Label { name: "source_namespace", value: |flow| source(flow).namespace() },
    Label { name: "source_pod", value: |flow| source(flow).pod_name() },
    Label { name: "source_workload", value: |flow| source(flow).workload_name() },
    Label { name: "source_workload_kind", value: |flow| source(flow).workload_kind() },
    Label { name: "source_app", value: |flow| source(flow).app() },
    Label { name: "destination_ip", value: |flow| destination(flow).ip() },
    Label { name: "destination_namespace", value: |flow| destination(flow).namespace() },
    Label { name: "destination_pod", value: |flow| destination(flow).pod_name() },
    Label { name: "destination_workload", value: |flow| destination(flow).workload_name() },
    Label { name: "destination_workload_kind", value: |flow| destination(flow).workload_kind() },
    Label { name: "destination_app", value: |flow| destination(flow).app() },
    Label { name: "traffic_direction", value: |flow| direction(flow).to_owned() },
];

/// `egress`, `ingress` or `unknown`.
pub(super) fn direction(flow: &Flow) -> &'static str {
    match flow.traffic_direction() {
        TrafficDirection::Egress => "egress",
        TrafficDirection::Ingress => "ingress",
        TrafficDirection::Unknown => "unknown",
    }
}

impl Contexts {
    /// Names a side by the first of some alternatives, such as `pod|ip`, that has a value.
    pub(super) fn add(&mut self, side: Side, text: &str) -> Result<(), String> {
        let naming = |word: &str| {
            let found = NAMINGS.iter().find(|(name, _)| *name == word).map(|(_, naming)| *naming);
            found.ok_or_else(|| format!("possible: {word:?} does not name a side of a flow"))
        };
        let namings = text.split('|').map(naming).collect::<Result<_, _>>()?;
        self.sides.push((side, namings));
        Ok(())
    }

    /// Adds labels, such as `source_pod,traffic_direction`.
    pub(super) fn add_labels(&mut self, text: &str) -> Result<(), String> {
        for word in text.split(',') {
            let label = LABELS.iter().find(|label| label.name == word);
            let label = *label.ok_or_else(|| format!("possible: labelsContext has no {word:?}"))?;
            // Nobody takes a page of which a sample has a label twice.
            if !self.labels.contains(&label) {
                self.labels.push(label);
            }
        }
        Ok(())
    }

    /// The labels of a flow.
    pub(super) fn labels(&self, flow: &Flow) -> Labels {
        let named = |name, plain, egress, ingress, party: Party<'_>| {
            let side = |side| self.sides.iter().find(|(s, _)| *s == side).map(|(_, namings)| namings);
            let special = match flow.traffic_direction() {
                TrafficDirection::Egress => side(egress),
                TrafficDirection::Ingress => side(ingress),
                TrafficDirection::Unknown => None,
            };
            let wanted = [plain, egress, ingress].into_iter().any(|wanted| side(wanted).is_some());
            let value = special.or_else(|| side(plain)).map(|namings| party.name(namings)).unwrap_or_default();
            wanted.then_some((name, value))
        };
        let source_name = named("source", Side::Source, Side::SourceEgress, Side::SourceIngress, source(flow));
        let destination_name = named(
            "destination",
            Side::Destination,
            Side::DestinationEgress,
            Side::DestinationIngress,
            destination(flow),
        );
        let more = self.labels.iter().map(|label| (label.name, (label.value)(flow)));
        source_name.into_iter().chain(destination_name).chain(more).collect()
    }
}

/// One side of a flow.
#[derive(Clone, Copy)]
struct Party<'a> {
    endpoint: Option<&'a Endpoint>,
    ip: Option<&'a str>,
    names: &'a [String],
}

fn source(flow: &Flow) -> Party<'_> {
    let ip = flow.ip.as_ref().map(|ip| ip.source.as_str());
    Party { endpoint: flow.source.as_ref(), ip, names: &flow.source_names }
}

fn destination(flow: &Flow) -> Party<'_> {
    let ip = flow.ip.as_ref().map(|ip| ip.destination.as_str());
    Party { endpoint: flow.destination.as_ref(), ip, names: &flow.destination_names }
}

impl Party<'_> {
    fn name(&self, namings: &[Naming]) -> String {
        namings.iter().map(|naming| self.named_by(*naming)).find(|name| !name.is_empty()).unwrap_or_default()
    }

    fn named_by(&self, naming: Naming) -> String {
        match naming {
            Naming::Identity => self.labels().join(","),
            Naming::Namespace => self.namespace(),
            Naming::Pod => qualified(self.namespace(), self.pod_name()),
            Naming::PodName => self.pod_name(),
            Naming::Dns => self.names.join(","),
            Naming::Ip => self.ip(),
            Naming::ReservedIdentity => self.reserved_identity(),
            Naming::Workload => qualified(self.namespace(), self.workload_name()),
            Naming::WorkloadName => self.workload_name(),
            Naming::App => self.app(),
        }
    }

    fn labels(&self) -> &[String] {
        self.endpoint.map(|endpoint| endpoint.labels.as_slice()).unwrap_or_default()
    }

    fn ip(&self) -> String {
        self.ip.unwrap_or_default().to_owned()
    }

    fn namespace(&self) -> String {
        self.endpoint.map(|endpoint| endpoint.namespace.clone()).unwrap_or_default()
    }

    fn pod_name(&self) -> String {
        self.endpoint.map(|endpoint| endpoint.pod_name.clone()).unwrap_or_default()
    }

    fn workload_name(&self) -> String {
        self.endpoint.and_then(|endpoint| endpoint.workloads.first()).map(|w| w.name.clone()).unwrap_or_default()
    }

    fn workload_kind(&self) -> String {
        self.endpoint.and_then(|endpoint| endpoint.workloads.first()).map(|w| w.kind.clone()).unwrap_or_default()
    }

    /// The most specific label of an address that is no pod's.
    fn reserved_identity(&self) -> String {
        let reserved = |label: &&String| label.starts_with("reserved:");
        let server = self.labels().iter().find(|label| label.as_str() == "reserved:kube-apiserver");
        server.or_else(|| self.labels().iter().find(reserved)).cloned().unwrap_or_default()
    }

    fn app(&self) -> String {
        let keys = ["k8s:k8s-app=", "k8s:app=", "k8s:app.kubernetes.io/name="];
        let value = |key: &str| self.labels().iter().find_map(|label| label.strip_prefix(key));
        keys.into_iter().find_map(value).unwrap_or_default().to_owned()
    }
}

fn qualified(namespace: String, name: String) -> String {
    if namespace.is_empty() || name.is_empty() { name } else { format!("{namespace}/{name}") }
}
