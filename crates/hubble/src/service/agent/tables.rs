// SPDX-License-Identifier: Apache-2.0
//! Agent events derived from tables, where the agent's changes to endpoints, policies, addresses and services show.

#![allow(deprecated, reason = "the protocol means to drop events of services, but its clients still show them")]

use super::AgentEvents;
use crate::names::Tables;
use crate::proto::flow::agent_event::Notification;
use crate::proto::flow::{
    AgentEvent, AgentEventType, EndpointUpdateNotification, IpCacheNotification, PolicyUpdateNotification,
    ServiceDeleteNotification, ServiceUpsertNotification, ServiceUpsertNotificationAddr, TimeNotification,
};
use crate::proto::timestamp;
use crate::store::now;
use model::{Endpoint, EndpointId, Frontend, IpEntry, L4Addr, Provenance};
use statedb::{Change, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

/// How many backends of a Service an event tells of: some hundred events are kept, and a Service may have thousands.
const BACKENDS: usize = 100;

impl AgentEvents {
    /// Reports the start, and all changes to these tables, for ever.
    pub(crate) async fn follow(self, tables: Tables) {
        let start = TimeNotification { time: Some(timestamp(now())) };
        self.push(event(AgentEventType::AgentStarted, Notification::AgentStart(start)));
        let (mut endpoints, mut addresses) = (tables.endpoints.subscribe(), tables.ipcache.subscribe());
        let (mut services, mut policies) = (tables.frontends.subscribe(), tables.provenance.subscribe());
        let mut known = BTreeSet::new();
        loop {
            tokio::select! {
                batch = endpoints.next() => {
                    batch.changes.iter().filter_map(|change| endpoint(&mut known, change)).for_each(|e| self.push(e));
                }
                batch = addresses.next() => batch.changes.iter().for_each(|change| self.push(address(change))),
                batch = services.next() => batch.changes.iter().for_each(|change| self.push(service(change))),
                batch = policies.next() => {
                    let all = tables.provenance.snapshot();
                    policy(&batch.changes, &all).into_iter().for_each(|event| self.push(event));
                }
            }
        }
    }
}

fn event(kind: AgentEventType, notification: Notification) -> AgentEvent {
    AgentEvent { r#type: kind.into(), notification: Some(notification) }
}

/// An endpoint is reported when it is added and removed.
fn endpoint(known: &mut BTreeSet<EndpointId>, change: &Change<Endpoint>) -> Option<AgentEvent> {
    let (endpoint, kind) = match change {
        Change::Upsert(endpoint) => {
            known.insert(endpoint.id).then_some(())?;
            (endpoint, AgentEventType::EndpointCreated)
        }
        Change::Delete(endpoint) => {
            known.remove(&endpoint.id);
            (endpoint, AgentEventType::EndpointDeleted)
        }
    };
    let pod = endpoint.pod();
    let notification = EndpointUpdateNotification {
        id: endpoint.id.0.into(),
        pod_name: pod.map(|pod| pod.name.to_string()).unwrap_or_default(),
        namespace: pod.map(|pod| pod.namespace.to_string()).unwrap_or_default(),
        ..EndpointUpdateNotification::default()
    };
    Some(event(kind, Notification::EndpointUpdate(notification)))
}

fn address(change: &Change<IpEntry>) -> AgentEvent {
    let (entry, kind) = match change {
        Change::Upsert(entry) => (entry, AgentEventType::IpcacheUpserted),
        Change::Delete(entry) => (entry, AgentEventType::IpcacheDeleted),
    };
    let pod = entry.pod.as_ref().map(|pod| &pod.pod);
    let notification = IpCacheNotification {
        cidr: entry.prefix.to_string(),
        identity: entry.identity.0,
        host_ip: entry.host.map(|ip| ip.to_string()).unwrap_or_default(),
        namespace: pod.map(|pod| pod.namespace.to_string()).unwrap_or_default(),
        pod_name: pod.map(|pod| pod.name.to_string()).unwrap_or_default(),
        ..IpCacheNotification::default()
    };
    event(kind, Notification::IpcacheUpdate(notification))
}

fn service(change: &Change<Frontend>) -> AgentEvent {
    let address = |addr: &L4Addr| ServiceUpsertNotificationAddr { ip: addr.ip.to_string(), port: addr.port.into() };
    match change {
        Change::Upsert(frontend) => {
            let notification = ServiceUpsertNotification {
                id: frontend.id,
                frontend_address: Some(address(&frontend.key.addr)),
                backend_addresses: frontend.backends.iter().take(BACKENDS).map(|b| address(&b.addr)).collect(),
                r#type: frontend.kind.to_string(),
                name: frontend.service.name.to_string(),
                namespace: frontend.service.namespace.to_string(),
                ..ServiceUpsertNotification::default()
            };
            event(AgentEventType::ServiceUpserted, Notification::ServiceUpsert(notification))
        }
        Change::Delete(frontend) => {
            let notification = ServiceDeleteNotification { id: frontend.id };
            event(AgentEventType::ServiceDeleted, Notification::ServiceDelete(notification))
        }
    }
}

/// A policy is reported once for all its changed rules; it is deleted when it has none left.
fn policy(changes: &[Change<Provenance>], all: &Snapshot<Provenance>) -> Vec<AgentEvent> {
    let name = |rule: &Provenance| (rule.kind, rule.namespace.clone(), rule.name.clone());
    let mut changed = BTreeMap::new();
    for Change::Upsert(rule) | Change::Delete(rule) in changes {
        changed.insert(name(rule), rule);
    }
    let told = changed.into_iter().map(|(policy, rule)| {
        let left = all.iter().filter(|other| name(other) == policy).count();
        let notification = PolicyUpdateNotification {
            labels: rule.labels.clone(),
            revision: rule.revision,
            rule_count: i64::try_from(left).unwrap_or(i64::MAX),
        };
        let kind = if left > 0 { AgentEventType::PolicyUpdated } else { AgentEventType::PolicyDeleted };
        event(kind, Notification::PolicyUpdate(notification))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fixture;
    use crate::proto::observer::GetAgentEventsRequest;
    use futures::StreamExt;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn what_tables_hold_and_what_changes_in_them_is_told() {
        let mut writers = fixture::tables();
        let events = AgentEvents::new();
        let request = GetAgentEventsRequest { follow: true, first: true, ..GetAgentEventsRequest::default() };
        let stream = events.stream(request, "n1".to_owned());
        tokio::pin!(stream);
        let _following = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(events.follow(writers.tables.clone())));
        let mut told = async |count| {
            let mut told = Vec::new();
            for _ in 0..count {
                let answer = timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap().unwrap();
                told.push(answer.agent_event.unwrap());
            }
            told
        };
        let first = told(7).await;
        let count = |kind: AgentEventType| first.iter().filter(|event| event.r#type() == kind).count();
        for (kind, want) in [
            (AgentEventType::AgentStarted, 1),
            (AgentEventType::EndpointCreated, 1),
            (AgentEventType::IpcacheUpserted, 2),
            (AgentEventType::ServiceUpserted, 1),
            (AgentEventType::PolicyUpdated, 2),
        ] {
            assert_eq!(count(kind), want, "{kind:?} in {first:?}");
        }
        writers.ipcache.remove(&"10.0.1.20/32".parse().unwrap());
        writers.ipcache.commit();
        let [gone] = told(1).await.try_into().unwrap();
        let Some(Notification::IpcacheUpdate(entry)) = &gone.notification else { panic!("{gone:?}") };
        assert_eq!(gone.r#type(), AgentEventType::IpcacheDeleted);
        assert_eq!((entry.cidr.as_str(), entry.identity, entry.pod_name.as_str()), ("10.0.1.20/32", 301, "db-0"));
    }

    #[test]
    fn a_service_of_many_backends_is_told_of_with_some() {
        let addr = |port| L4Addr { ip: "10.0.0.1".parse().unwrap(), port, protocol: model::Protocol::Tcp };
        let backend = |n: u16| model::Backend::new(model::BackendId(n.into()), addr(n), model::BackendState::Active);
        let key = model::FrontendKey::external(addr(80));
        let name = model::ServiceName::new("shop", "db");
        let many = Frontend::new(key, 1, name, (1..=5000).map(backend).collect());
        let told = service(&Change::Upsert(std::sync::Arc::new(many)));
        let Some(Notification::ServiceUpsert(told)) = told.notification else { panic!("{told:?}") };
        assert_eq!(told.backend_addresses.len(), BACKENDS);
    }

    #[test]
    fn a_policy_is_told_of_once_and_is_deleted_with_its_last_rule() {
        let writers = fixture::tables();
        let before = writers.tables.provenance.snapshot();
        let rules: Vec<_> = before.iter().cloned().collect();
        let changes: Vec<_> = rules.iter().flat_map(|rule| [rule, rule]).cloned().map(Change::Delete).collect();
        let kinds = |all: &Snapshot<Provenance>| -> Vec<_> {
            policy(&changes, all).iter().map(|event| event.r#type()).collect()
        };
        assert_eq!(kinds(&before), [AgentEventType::PolicyUpdated; 2]);
        let (_, nothing) = statedb::table("provenance");
        assert_eq!(kinds(&nothing.snapshot()), [AgentEventType::PolicyDeleted; 2]);
    }
}
