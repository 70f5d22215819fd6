// SPDX-License-Identifier: Apache-2.0
//! Why a Service is as it is on this node: what `cilium service explain` prints. It decides nothing, but asks what decides.

use crate::endpoints::{self, Candidates, LeftOut, Topology};
use crate::here::{Here, Sources};
use crate::ingest::{EndpointSlice, Service, ServicePort, limits};
use crate::served::{self, Served};
use crate::{Config, Inputs, Rows, ServiceProblems};
use k8s::kube::core::SelectorExt as _;
use model::{BackendState, Frontend, FrontendKey, ServiceName, TrafficPolicy};
use rest::{ExplainedEndpoint, ExplainedFrontend, ServiceExplanation};
use statedb::{Index, Reader, State, StatusReader};

/// How many endpoints are shown.
const SHOWN: usize = 10_000;

/// What it looks at.
#[derive(Clone, Debug)]
pub(crate) struct Explainer {
    config: Config,
    services: Reader<Service>,
    slices: Index<EndpointSlice, ServiceName>,
    served: Reader<Served>,
    frontends: Reader<Frontend>,
    judged: Judged,
    here: Sources,
}

/// What is known to be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) problems: Reader<ServiceProblems>,
    pub(crate) maps: StatusReader<Frontend>,
    pub(crate) checks: StatusReader<Served>,
}

impl Explainer {
    pub(crate) fn new(config: &Config, inputs: &Inputs, rows: &Rows, judged: Judged) -> Self {
        Self {
            config: config.clone(),
            services: inputs.services.clone(),
            slices: inputs.slices.index(|slice| [slice.service.clone()]),
            served: rows.served.rows.clone(),
            frontends: rows.frontends.rows.clone(),
            judged,
            here: inputs.here(),
        }
    }

    /// None if there is no such Service with an address.
    pub(crate) fn explain(&self, name: &ServiceName) -> Option<ServiceExplanation> {
        let service = self.services.snapshot().get(name)?;
        let here = self.here.here();
        let elsewhere = "its annotations choose other nodes".to_owned();
        let problems = self.judged.problems.snapshot().get(name);
        let endpoints = self.endpoints(&service, &here);
        let cut = (endpoints.len() == SHOWN).then(|| format!("the first {SHOWN} endpoints are shown"));
        Some(ServiceExplanation {
            service: name.to_string(),
            node: here.name.to_string(),
            not_served_because: (!service.nodes.matches(&here.labels)).then_some(elsewhere),
            settings: self.settings(&service),
            problems: problems
                .iter()
                .flat_map(|row| row.all())
                .map(|problem| problem.to_string())
                .chain(self.crowded(&service, &here))
                .chain(cut)
                .chain(self.lacking(name))
                .chain(self.judged.checks.get(name).and_then(|status| failure(status.state)))
                .collect(),
            frontends: self.frontends(name),
            endpoints,
            announced: Vec::new(),
        })
    }

    /// That it has more endpoints than are looked at.
    fn crowded(&self, service: &Service, here: &Here) -> Option<String> {
        let slices = self.slices.get(&service.name);
        let endpoints: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
        let most = limits::candidates(served::most_backends(service, here));
        (endpoints > most)
            .then(|| format!("it has {endpoints} endpoints; of each port and family the first {most} count"))
    }

    /// Why some of its frontends are not in the maps as they are to be.
    fn lacking(&self, name: &ServiceName) -> Vec<String> {
        let (served, given) = (self.served.snapshot().get(name), self.frontends.snapshot());
        let is_its = |key: &FrontendKey| given.get(key).is_some_and(|row| row.service == *name);
        let keys = served.iter().flat_map(|served| served.keys()).filter(is_its);
        keys.filter_map(|key| failure(self.judged.maps.get(&key)?.state)).collect()
    }

    fn settings(&self, service: &Service) -> Vec<String> {
        let mut settings = vec![
            format!("internal traffic policy: {}", service.internal_policy),
            format!("external traffic policy: {}", service.external_policy),
            format!("algorithm: {}", service.algorithm.unwrap_or(self.config.algorithm)),
            format!(
                "forwarding: {}",
                service.forwarding.map_or_else(|| self.config.forwarding.name().to_owned(), |mode| mode.to_string())
            ),
        ];
        settings.extend(service.affinity.map(|timeout| format!("session affinity: {} s", timeout.as_secs())));
        settings.extend(service.source_ranges.as_ref().map(|ranges| {
            let prefixes: Vec<_> = ranges.prefixes.iter().map(ToString::to_string).collect();
            format!("clients {}: {}", if ranges.deny { "refused" } else { "admitted" }, prefixes.join(", "))
        }));
        settings.extend(service.health_check_node_port.map(|port| format!("health check port: {port}")));
        settings
    }

    fn frontends(&self, name: &ServiceName) -> Vec<ExplainedFrontend> {
        let Some(served) = self.served.snapshot().get(name) else { return Vec::new() };
        let given = self.frontends.snapshot();
        let explain = |wanted: &Frontend| {
            let other = given.get(&wanted.key).filter(|row| row.service != *name);
            let policy = if wanted.local_only { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
            ExplainedFrontend {
                address: wanted.key.to_string(),
                kind: wanted.kind.to_string(),
                taken_by: other.map(|row| row.service.to_string()).unwrap_or_default(),
                policy: policy.to_string(),
                backends: u64::try_from(wanted.takers().count()).unwrap_or(u64::MAX),
            }
        };
        served.frontends.iter().map(explain).collect()
    }

    fn endpoints(&self, service: &Service, here: &Here) -> Vec<ExplainedEndpoint> {
        let slices = self.slices.get(&service.name);
        let both = |port| [true, false].map(|ipv4| (port, ipv4));
        let most = served::most_backends(service, here);
        let places = service.ports.iter().flat_map(both);
        places
            .flat_map(|(port, ipv4)| {
                self.of_candidates(port, &endpoints::candidates(port, ipv4, &slices, most), here, most)
            })
            .take(SHOWN)
            .collect()
    }

    /// The endpoints of one port in one family, as each traffic policy sees them.
    fn of_candidates(
        &self,
        port: &ServicePort,
        candidates: &Candidates,
        here: &Here,
        most: usize,
    ) -> Vec<ExplainedEndpoint> {
        let topology = Topology::of(&self.config, candidates, here);
        let everywhere = endpoints::judge(candidates, TrafficPolicy::Cluster, topology, here, most);
        let locally = endpoints::judge(candidates, TrafficPolicy::Local, topology, here, most);
        let mut explained = Vec::new();
        for ((addr, endpoint, everywhere), (_, _, locally)) in everywhere.zip(locally) {
            explained.push(ExplainedEndpoint {
                address: addr.to_string(),
                port: port.name.as_deref().unwrap_or_default().to_owned(),
                node: endpoint.node.as_deref().unwrap_or_default().to_owned(),
                zone: endpoint.zone.as_deref().unwrap_or_default().to_owned(),
                state: everywhere.or(locally).map(|state| state.to_string()).unwrap_or_default(),
                left_out: reason(everywhere),
                left_out_locally: reason(locally),
            });
        }
        explained
    }
}

fn failure(state: State) -> Option<String> {
    match state {
        State::Done => None,
        State::Error { message, .. } => Some(message),
    }
}

fn reason(judged: Result<BackendState, LeftOut>) -> String {
    judged.err().map(|why| why.to_string()).unwrap_or_default()
}
