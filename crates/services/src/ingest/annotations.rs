// SPDX-License-Identifier: Apache-2.0
//! What annotations say of a Service. One that cannot be honoured is a problem, and the Service is as if it were not there.

use super::Problem;
use crate::Config;
use k8s::kube::core::{Expression, Selector};
use k8s::selector;
use model::{Algorithm, Forwarding, ServiceKind};
use std::collections::BTreeMap;

const ALGORITHM: &str = "service.cilium.io/lb-algorithm";
const FORWARDING: &str = "service.cilium.io/forwarding-mode";
const KIND: &str = "service.cilium.io/type";
const NODE: &str = "service.cilium.io/node";
const NODE_SELECTOR: &str = "service.cilium.io/node-selector";
const RANGES_POLICY: &str = "service.cilium.io/src-ranges-policy";
const DELEGATION: &str = "service.cilium.io/proxy-delegation";
const L7: &str = "service.cilium.io/lb-l7";
const L7_ALGORITHM: &str = "service.cilium.io/lb-l7-algorithm";

/// What joins Services of several clusters, and the values that ask for nothing.
const OF_CLUSTERS: [(&str, &str); 7] = [
    ("service.cilium.io/global", "false"),
    ("service.cilium.io/shared", "false"),
    ("service.cilium.io/affinity", "none"),
    ("service.cilium.io/global-sync-endpoint-slices", "false"),
    ("io.cilium/global-service", "false"),
    ("io.cilium/shared-service", "false"),
    ("io.cilium/service-affinity", "none"),
];

/// Whose annotations are ours alone: one that is none of these says nothing.
const OURS: [(&str, &[&str]); 2] = [
    (
        "service.cilium.io/",
        &[ALGORITHM, FORWARDING, KIND, NODE, NODE_SELECTOR, RANGES_POLICY, DELEGATION, L7, L7_ALGORITHM],
    ),
    (
        "lbipam.cilium.io/",
        &["lbipam.cilium.io/ips", "lbipam.cilium.io/sharing-key", "lbipam.cilium.io/sharing-cross-namespace"],
    ),
];
/// The kinds of frontends that may be asked for. A Service of each of these types has those up to its own.
const KINDS: [(&str, ServiceKind); 3] = [
    ("ClusterIP", ServiceKind::ClusterIp),
    ("NodePort", ServiceKind::NodePort),
    ("LoadBalancer", ServiceKind::LoadBalancer),
];
/// How many of the unknown ones are named.
const NAMED: usize = 5;
/// Length of a label's value.
const LONGEST_VALUE: usize = 63;

/// What they say, as far as it is honoured.
#[derive(Debug, Default)]
pub(super) struct Annotated {
    pub(super) algorithm: Option<Algorithm>,
    pub(super) forwarding: Option<Forwarding>,
    pub(super) only: Option<ServiceKind>,
    pub(super) nodes: Selector,
    pub(super) deny_ranges: bool,
}

/// Reads them, and notes what is not honoured by a Service of this type (`spec.type`).
pub(super) fn read(
    config: &Config,
    annotations: Option<&BTreeMap<String, String>>,
    service_type: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Annotated {
    let Some(annotations) = annotations else { return Annotated::default() };
    let mut reader = Reader { annotations, problems };
    let algorithm = reader.choice(ALGORITHM, &[("random", Algorithm::Random), ("maglev", Algorithm::Maglev)]);
    let forwarding = reader.choice(FORWARDING, &[("snat", Forwarding::Snat), ("dsr", Forwarding::Dsr)]);
    let forwarding = reader.possible(FORWARDING, forwarding, config);
    let deny_ranges = reader.choice(RANGES_POLICY, &[("allow", false), ("deny", true)]);
    let delegation = reader.choice(DELEGATION, &[("none", false), ("delegate-if-local", true)]);
    reader.unsupported(DELEGATION, delegation == Some(true));
    let l7 = reader.choice(L7, &[("disabled", false), ("enabled", true)]);
    reader.unsupported(L7, l7 == Some(true));
    reader.unsupported(L7_ALGORITHM, annotations.contains_key(L7_ALGORITHM));
    reader.other_clusters();
    reader.unknown();
    Annotated {
        algorithm: reader.enabled(ALGORITHM, algorithm, ("bpf-lb-algorithm-annotation", config.algorithm_annotation)),
        forwarding: reader.enabled(FORWARDING, forwarding, ("bpf-lb-mode-annotation", config.forwarding_annotation)),
        only: reader.kind(service_type),
        nodes: reader.nodes(),
        deny_ranges: deny_ranges.unwrap_or_default(),
    }
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.annotations.get(key)?;
        let found = choices.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.problems.push(Problem::new(key, format!("{text:?} is none of {}", names.join(", "))));
        }
        found
    }

    /// What was read, if a configuration key permits it.
    fn enabled<T>(&mut self, key: &str, read: Option<T>, (switch, on): (&str, bool)) -> Option<T> {
        if read.is_some() && !on {
            self.problems.push(Problem::new(key, format!("needs the configuration key {switch}")));
        }
        read.filter(|_| on)
    }

    /// The only kind of frontend that is wanted. One that the Service does not have leaves it none, which it did ask for.
    fn kind(&mut self, service_type: Option<&str>) -> Option<ServiceKind> {
        let only = self.choice(KIND, &KINDS)?;
        let service_type = service_type.unwrap_or("ClusterIP");
        let place = |wanted: &str| KINDS.iter().position(|(name, _)| *name == wanted);
        let asked = KINDS.iter().position(|(_, kind)| *kind == only);
        if asked > place(service_type) {
            let reason = format!("a Service of type {service_type} has no such addresses: it is reached nowhere");
            self.problems.push(Problem::new(KIND, reason));
        }
        Some(only)
    }

    /// How backends on other nodes are reached, if the way to them bears it.
    fn possible(&mut self, key: &str, read: Option<Forwarding>, config: &Config) -> Option<Forwarding> {
        let impossible = read == Some(Forwarding::Dsr) && !config.routes_natively();
        if impossible {
            self.problems.push(Problem::new(key, "\"dsr\" needs the configuration key routing-mode to be native"));
        }
        read.filter(|_| !impossible)
    }

    /// Services of other clusters.
    fn other_clusters(&mut self) {
        let asks = |(key, nothing): &&(&str, &str)| {
            self.annotations.get(*key).is_some_and(|value| !value.trim().eq_ignore_ascii_case(nothing))
        };
        let asked = OF_CLUSTERS.iter().filter(asks).map(|(key, _)| {
            Problem::new(
                *key,
                "needs Cluster Mesh, which is not supported yet; the Service is that of this cluster alone",
            )
        });
        self.problems.extend(asked);
    }

    /// Those that are misspelt, the first of them.
    fn unknown(&mut self) {
        let is_unknown = |key: &&String| {
            let missing = |(prefix, known): &(&str, &[&str])| key.starts_with(prefix) && !known.contains(&key.as_str());
            OURS.iter().any(missing) && OF_CLUSTERS.iter().all(|(other, _)| key != other)
        };
        let unknown: Vec<_> = self.annotations.keys().filter(is_unknown).collect();
        let named = unknown.iter().take(NAMED).map(|key| Problem::new(key.as_str(), "is no annotation that is known"));
        let more = unknown.len().saturating_sub(NAMED);
        let more = (more > 0).then(|| Problem::new("metadata.annotations", format!("{more} more are not known")));
        self.problems.extend(named.chain(more));
    }

    fn unsupported(&mut self, key: &str, asked: bool) {
        if asked {
            self.problems.push(Problem::new(key, "is not supported yet"));
        }
    }

    /// The selector wins. One that cannot be read selects nothing: elsewhere the Service was not to be.
    fn nodes(&mut self) -> Selector {
        let Some(text) = self.annotations.get(NODE_SELECTOR) else {
            let Some(value) = self.annotations.get(NODE) else { return Selector::default() };
            if !is_label_value(value) {
                let reason = format!("{value:?} is no value that a label can have; no node serves");
                self.problems.push(Problem::new(NODE, reason));
            }
            return Expression::Equal(NODE.to_owned(), value.clone()).into();
        };
        selector::parse(text).unwrap_or_else(|| {
            let reason = format!("{text:?} is no label selector; no node serves");
            self.problems.push(Problem::new(NODE_SELECTOR, reason));
            selector::nothing()
        })
    }
}

fn is_label_value(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let within = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    text.len() <= LONGEST_VALUE && within && is_end(text.chars().next()) && is_end(text.chars().next_back())
}
