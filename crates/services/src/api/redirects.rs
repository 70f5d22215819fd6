// SPDX-License-Identifier: Apache-2.0
//! Local redirect policies with what they redirect now.

use super::{backend, frontend};
use crate::ingest::{Redirect, RedirectFrom};
use crate::redirects;
use model::{Frontend, Pod, ServiceKind, ServiceName};
use rest::{FrontendMapping, LrpBackend, LrpSpec};
use statedb::{Index, Reader};
use std::net::IpAddr;

/// What it looks at.
#[derive(Clone, Debug)]
pub(crate) struct Redirected {
    policies: Reader<Redirect>,
    frontends: Index<Frontend, ServiceName>,
    pods: Index<Pod, IpAddr>,
}

impl Redirected {
    pub(crate) fn new(policies: &Reader<Redirect>, frontends: &Reader<Frontend>, pods: &Reader<Pod>) -> Self {
        Self {
            policies: policies.clone(),
            frontends: frontends.index(|row| (row.kind == ServiceKind::LocalRedirect).then(|| row.service.clone())),
            pods: pods.index(|pod| if pod.host_network { Vec::new() } else { pod.ips.clone() }),
        }
    }

    pub(super) fn list(&self) -> Vec<LrpSpec> {
        self.policies.snapshot().iter().map(|policy| self.render(policy)).collect()
    }

    fn render(&self, policy: &Redirect) -> LrpSpec {
        let frontends = self.frontends.get(&redirects::name(policy));
        LrpSpec {
            uid: policy.uid.to_string(),
            name: policy.name.name.to_string(),
            namespace: policy.name.namespace.to_string(),
            frontend_type: frontend_type(&policy.from).to_owned(),
            service_id: policy.from.service().map(ToString::to_string).unwrap_or_default(),
            frontend_mappings: frontends.iter().map(|row| self.mapping(row)).collect(),
        }
    }

    fn mapping(&self, row: &Frontend) -> FrontendMapping {
        let pod = |ip: IpAddr| self.pods.get(&ip).first().map(|pod| pod.name.to_string()).unwrap_or_default();
        let backends =
            row.backends.iter().map(|one| LrpBackend { pod_id: pod(one.addr.ip), backend_address: Some(backend(one)) });
        FrontendMapping { frontend_address: Some(frontend(row)), backends: backends.collect() }
    }
}

/// As `cilium-dbg lrp list` says it.
const fn frontend_type(from: &RedirectFrom) -> &'static str {
    match from {
        RedirectFrom::Address(_, ports) if ports.len() == 1 => "IP + port",
        RedirectFrom::Address(..) => "IP + named ports",
        RedirectFrom::Service(_, ports) if ports.is_empty() => "clusterIP + all svc ports",
        RedirectFrom::Service(_, ports) if ports.len() == 1 => "clusterIP + port",
        RedirectFrom::Service(..) => "clusterIP + named ports",
    }
}
