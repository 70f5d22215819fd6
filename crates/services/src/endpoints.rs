// SPDX-License-Identifier: Apache-2.0
//! Which endpoints of a Service are its backends on this node, by the rules of kube-proxy: readiness, traffic policies, hints. Each
//! endpoint that is none has a reason.

use crate::Config;
use crate::here::Here;
use crate::ingest::{EndpointSlice, Port, ServicePort, SliceEndpoint, limits};
use model::{BackendState, L4Addr, TrafficPolicy};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Endpoints by address.
pub(crate) type Candidates = BTreeMap<L4Addr, SliceEndpoint>;

/// Why an endpoint is no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// It gets no connections, and does not end either.
    NotReady,
    /// A policy asks for those of this node.
    OtherNode,
    /// Its hints name other nodes, while others name this one.
    HintedForOtherNodes,
    /// Its hints name other zones, while others name that of this node.
    HintedForOtherZones,
    /// The Service has as many backends as it may have.
    TooMany,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "it is not ready",
            Self::OtherNode => "it is on another node, and the traffic policy is Local",
            Self::HintedForOtherNodes => "its hints are for other nodes",
            Self::HintedForOtherZones => "its hints are for other zones",
            Self::TooMany => "the Service has more endpoints than it may have backends",
        })
    }
}

/// The endpoints of all slices for one port of a Service and one family, the first of them if it may have that many backends. An endpoint may be
/// in two slices while it moves from one to the other; what either says in its favour counts.
pub(crate) fn candidates(port: &ServicePort, ipv4: bool, slices: &[Arc<EndpointSlice>], backends: usize) -> Candidates {
    let (mut all, most) = (Candidates::new(), limits::candidates(backends));
    for slice in slices {
        let same = |p: &&Port| p.name == port.name && p.protocol == port.protocol;
        for target in slice.ports.iter().filter(same) {
            for endpoint in slice.endpoints.iter().filter(|e| e.ip.is_ipv4() == ipv4) {
                if all.len() >= most {
                    return all;
                }
                let addr = L4Addr { ip: endpoint.ip, port: target.port, protocol: port.protocol };
                let seen = all.entry(addr).or_insert_with(|| endpoint.clone());
                seen.ready |= endpoint.ready;
                seen.serving |= endpoint.serving;
                seen.terminating &= endpoint.terminating;
                seen.node = seen.node.take().or_else(|| endpoint.node.clone());
            }
        }
    }
    all
}

/// What each candidate is to clients under a policy: a backend with a state, or left out, as are all after the first `most` backends.
pub(crate) fn judge<'a>(
    candidates: &'a Candidates,
    policy: TrafficPolicy,
    topology: Topology,
    here: &Here,
    most: usize,
) -> impl Iterator<Item = (&'a L4Addr, &'a SliceEndpoint, Result<BackendState, LeftOut>)> {
    let mut left = most;
    candidates.iter().map(move |(addr, endpoint)| {
        let state = state(endpoint).and_then(|state| match policy {
            TrafficPolicy::Local if !here.is_mine(endpoint) => Err(LeftOut::OtherNode),
            // What ends keeps its connections, wherever they came from.
            TrafficPolicy::Cluster if state == BackendState::Active => topology.admit(endpoint, here).map(|()| state),
            _ => Ok(state),
        });
        let state = state.and_then(|state| {
            left = left.checked_sub(1).ok_or(LeftOut::TooMany)?;
            Ok(state)
        });
        (addr, endpoint, state)
    })
}

fn state(endpoint: &SliceEndpoint) -> Result<BackendState, LeftOut> {
    match (endpoint.ready, endpoint.terminating, endpoint.serving) {
        (true, ..) => Ok(BackendState::Active),
        (false, true, true) => Ok(BackendState::Terminating),
        (false, true, false) => Ok(BackendState::TerminatingNotServing),
        (false, false, _) => Err(LeftOut::NotReady),
    }
}

/// Which hints count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// None.
    Ignored,
    /// Those for nodes.
    Nodes,
    /// Those for zones.
    Zones,
}

impl Topology {
    /// Hints count only where that is configured, and if each endpoint that is ready has some and one of them is for us: otherwise part of the endpoints would get
    /// all traffic, or none would get ours.
    pub(crate) fn of(config: &Config, candidates: &Candidates, here: &Here) -> Self {
        let ready = || candidates.values().filter(|endpoint| endpoint.ready);
        if !config.topology {
            Self::Ignored
        } else if ready().all(|e| !e.for_nodes.is_empty()) && ready().any(|e| here.is_hinted(e)) {
            Self::Nodes
        } else if ready().all(|e| !e.for_zones.is_empty()) && ready().any(|e| here.zone_is_hinted(e)) {
            Self::Zones
        } else {
            Self::Ignored
        }
    }

    fn admit(self, endpoint: &SliceEndpoint, here: &Here) -> Result<(), LeftOut> {
        match self {
            Self::Nodes if !here.is_hinted(endpoint) => Err(LeftOut::HintedForOtherNodes),
            Self::Zones if !here.zone_is_hinted(endpoint) => Err(LeftOut::HintedForOtherZones),
            _ => Ok(()),
        }
    }
}
