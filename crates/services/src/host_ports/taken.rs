// SPDX-License-Identifier: Apache-2.0
//! Ports that pods ask for and do not have, since others have them or the node has no such address: the table `host-ports-taken`. That it has a row is a failure, which the agent's status
//! shows for as long as it lasts, and of which the author of the pod is told.

use super::SUFFIX;
use crate::redirects;
use crate::served::Served;
use crate::teller::{Failing, Teller};
use model::{Frontend, L4Addr, PodName, ServiceName};
use statedb::{Derived, Inputs, Reader, Snapshot, Tasks};
use std::fmt;

/// How many ports are named.
const NAMED: usize = 5;

/// Ports that one pod does not have. One row per such pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taken {
    /// What the pod is called among Services.
    name: ServiceName,
    ports: Vec<(L4Addr, Owner)>,
}

/// Whose a port is.
#[derive(Clone, Debug, PartialEq)]
enum Owner {
    /// That of a Service, a pod or a policy, by its name among Services.
    Service(ServiceName),
    Node,
    /// Nobody's: the node does not have the address.
    Nobody,
}

impl statedb::Row for Taken {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.ports.iter().take(NAMED).map(|(port, owner)| format!("{port} is {owner}"));
        f.write_str(&named.collect::<Vec<_>>().join(", "))?;
        match self.ports.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = match self {
            Self::Service(owner) => owner,
            Self::Node => return f.write_str("that of the node itself"),
            Self::Nobody => return f.write_str("at no address of the node (hostIP)"),
        };
        let (namespace, name) = (&owner.namespace, &owner.name);
        match (name.strip_suffix(SUFFIX), name.strip_suffix(redirects::SUFFIX)) {
            (Some(pod), _) => write!(f, "that of the pod {namespace}/{pod}"),
            (_, Some(policy)) => write!(f, "that of the CiliumLocalRedirectPolicy {namespace}/{policy}"),
            (None, None) => write!(f, "that of the Service {owner}"),
        }
    }
}

/// Keeps the table equal to what pods claim and the frontends do not give them.
pub(crate) fn derive(tasks: &Tasks, claimed: &Reader<Served>, frontends: &Reader<Frontend>) -> Derived<Taken> {
    let claimants = claimed.index(|served| served.keys().collect::<Vec<_>>());
    let inputs = Inputs::of(claimed, |served| [served.name.clone()]).and(frontends, move |frontend| {
        claimants.get(&frontend.key).iter().map(|served| served.name.clone()).collect::<Vec<_>>()
    });
    let (claimed, frontends) = (claimed.clone(), frontends.clone());
    statedb::derive(tasks, "host-ports-taken", inputs, move |name, _| {
        let (served, given) = (claimed.snapshot().get(name)?, frontends.snapshot());
        let taken = served.keys().filter_map(|key| match given.get(&key).map(|row| row.service.clone()) {
            Some(owner) if owner == *name => None,
            owner => Some((key.addr, owner.map_or(Owner::Node, Owner::Service))),
        });
        let elsewhere = served.elsewhere.iter().map(|addr| (*addr, Owner::Nobody));
        let ports: Vec<_> = taken.chain(elsewhere).collect();
        (!ports.is_empty()).then(|| Taken { name: name.clone(), ports })
    })
}

/// What a pod lacks.
#[derive(Debug, thiserror::Error)]
#[error("pod {pod}: {taken}")]
pub(crate) struct Error {
    pod: PodName,
    taken: String,
}

/// Tells what is not served.
#[derive(Debug)]
pub(crate) struct Watch {
    failing: Failing<ServiceName>,
    teller: Teller,
}

impl Watch {
    pub(crate) fn new(teller: Teller) -> Self {
        Self { failing: Failing::default(), teller }
    }
}

impl statedb::Target<Taken> for Watch {
    type Error = Error;

    async fn update(&mut self, row: &Taken) -> Result<(), Error> {
        let name = row.name.name.strip_suffix(SUFFIX).unwrap_or(&row.name.name);
        let (pod, taken) = (PodName::new(row.name.namespace.clone(), name), row.to_string());
        if self.failing.has_lasted(&row.name) {
            self.teller.pod(&pod, "HostPortNotServed", &format!("does not serve all ports of the pod: {taken}"));
        }
        Err(Error { pod, taken })
    }

    async fn delete(&mut self, name: &ServiceName) -> Result<(), Error> {
        self.failing.end(name);
        Ok(())
    }

    async fn prune(&mut self, desired: &Snapshot<Taken>) -> Result<(), Error> {
        self.failing.retain(|name| desired.get(name).is_some());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use model::{FrontendKey, Pod, Protocol, ServiceKind};
    use statedb::{State, Writer};
    use std::time::Duration;

    fn key(port: u16) -> FrontendKey {
        FrontendKey::external(L4Addr { ip: [192, 168, 0, 11].into(), port, protocol: Protocol::Tcp })
    }

    fn frontend(port: u16, service: &ServiceName) -> Frontend {
        Frontend { kind: ServiceKind::HostPort, ..Frontend::new(key(port), 0, service.clone(), [].into()) }
    }

    /// Whoever is given the ports is as the frontends say.
    fn give(frontends: &mut Writer<Frontend>, owners: &[(u16, &ServiceName)]) {
        frontends.replace(owners.iter().map(|(port, owner)| frontend(*port, owner)));
        frontends.mark_initialized();
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_another_has_is_told_once_that_has_lasted_and_shown_until_it_is_free() {
        let (mut claimed, claims) = statedb::table("host-ports");
        let (mut frontends, given) = statedb::table("frontends");
        let (mut pods, pod_rows) = statedb::table("pods");
        let (warnings, mut told) = k8s::Warnings::channel();
        let services = statedb::table("services").1;
        let teller = Teller { services, pods: pod_rows, node: "n1".into(), warnings };
        let tasks = Tasks::new(Default::default());
        let taken = derive(&tasks, &claims, &given).rows;
        let status = statedb::reconcile(&tasks, "host-ports-taken", taken.clone(), Watch::new(teller));
        let (pod, web) = (ServiceName::new("shop", "edge:host-port"), ServiceName::new("shop", "web"));
        let other = ServiceName::new("shop", "old:host-port");
        pods.insert(Pod { name: PodName::new("shop", "edge"), uid: "u".into(), ..Pod::default() });
        pods.commit();
        let ports = [80, 443, 6443, 8080];
        let row =
            Served { frontends: ports.iter().map(|port| frontend(*port, &pod)).collect(), ..Served::new(pod.clone()) };
        claimed.insert(row);
        claimed.mark_initialized();
        give(&mut frontends, &[(80, &web), (443, &other), (8080, &pod)]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(told.try_next().is_none(), "it may heal");
        let says = "192.168.0.11:80/TCP is that of the Service shop/web, 192.168.0.11:443/TCP is that of the pod shop/old, \
                    192.168.0.11:6443/TCP is that of the node itself";
        let failure = || status.get(&pod).map(|status| status.state);
        assert!(matches!(failure(), Some(State::Error { message, .. }) if message == format!("pod shop/edge: {says}")));
        tokio::time::sleep(Duration::from_secs(30)).await;
        let warning = told.try_next().unwrap();
        assert_eq!((warning.reason, warning.about.name.as_deref()), ("HostPortNotServed", Some("edge")));
        assert_eq!(warning.note, format!("Node n1 does not serve all ports of the pod: {says}"));
        while told.try_next().is_some() {}
        give(&mut frontends, &ports.map(|port| (port, &pod)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(told.try_next().is_none() && taken.snapshot().is_empty() && failure().is_none());
        give(&mut frontends, &[]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(told.try_next().is_none(), "it has not lasted yet");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_the_node_does_not_have_is_told() {
        let (mut claimed, claims) = statedb::table("host-ports");
        let (mut frontends, given) = statedb::table("frontends");
        frontends.mark_initialized();
        let taken = derive(&Tasks::new(Default::default()), &claims, &given).rows;
        let addr = L4Addr { ip: [192, 0, 2, 9].into(), port: 53, protocol: Protocol::Udp };
        claimed.insert(Served { elsewhere: vec![addr], ..Served::new(ServiceName::new("shop", "dns:host-port")) });
        claimed.mark_initialized();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let rows: Vec<String> = taken.snapshot().iter().map(ToString::to_string).collect();
        assert_eq!(rows, ["192.0.2.9:53/UDP is at no address of the node (hostIP)"]);
    }

    #[test]
    fn of_many_ports_some_are_named() {
        let taken = |count: u16| Taken {
            name: ServiceName::new("shop", "edge:host-port"),
            ports: (1..=count)
                .map(|port| (key(port).addr, Owner::Service(ServiceName::new("shop", "x:local-redirect"))))
                .collect(),
        };
        assert!(taken(5).to_string().ends_with("192.168.0.11:5/TCP is that of the CiliumLocalRedirectPolicy shop/x"));
        assert!(taken(7).to_string().ends_with("5/TCP is that of the CiliumLocalRedirectPolicy shop/x, and 2 more"));
    }
}
