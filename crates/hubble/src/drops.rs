// SPDX-License-Identifier: Apache-2.0
//! Which pods to tell of packets that were dropped, and how often; who tells them is the agent.
//!
//! Drops are read from the ring like any other client does it: a flood costs those who wait for it, and nothing else.

use crate::config::Config;
use crate::filter::Filters;
use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::{DropReason, Endpoint, EventTypeFilter, Flow, FlowFilter, TrafficDirection, Verdict};
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::server::{Problems, report};
use crate::service::{Query, Workers, subscribe};
use crate::store::Store;
use abi::event::kind;
use model::PodName;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How many drops are remembered, so that they are not told again; while there are as many, no other is told.
const MOST: usize = 1024;

/// A pod of this node, and what to tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    /// The pod.
    pub pod: PodName,
    /// For people.
    pub note: String,
}

/// Drops for some reasons.
#[derive(Clone)]
pub struct Drops {
    store: Arc<Store>,
    workers: Workers,
    lost_interval: Duration,
    /// As the protocol names them, in any case.
    reasons: Vec<String>,
    /// How long the same is not told again.
    interval: Duration,
    problems: Problems,
}

impl Drops {
    pub(crate) fn configured(
        config: &Config,
        store: &Arc<Store>,
        workers: &Workers,
        problems: &Problems,
    ) -> Option<Self> {
        config.drop_events.then(|| Self {
            store: Arc::clone(store),
            workers: workers.clone(),
            lost_interval: config.lost_interval,
            reasons: config.drop_events_reasons.clone(),
            interval: config.drop_events_interval,
            problems: Arc::clone(problems),
        })
    }

    /// Tells of them, for ever.
    pub async fn follow(self, mut tell: impl FnMut(Dropped)) {
        let filter = match self.filter() {
            Ok(filter) => filter,
            Err(error) => {
                report(&self.problems, "drop events", Some(error));
                // For as long as it is configured.
                return std::future::pending().await;
            }
        };
        let query = Query::live(filter, None);
        let mut flows = subscribe(Arc::clone(&self.store), query, self.lost_interval, self.workers);
        let mut told: HashMap<Dropped, Instant> = HashMap::new();
        while let Some(batch) = flows.recv().await {
            told.retain(|_, at| at.elapsed() < self.interval);
            for response in batch {
                let Some(ResponseTypes::Flow(flow)) = response.response_types else { continue };
                let Some(dropped) = dropped(&flow) else { continue };
                if told.len() < MOST && !told.contains_key(&dropped) {
                    told.insert(dropped.clone(), Instant::now());
                    tell(dropped);
                }
            }
        }
    }

    fn filter(&self) -> Result<Filters, String> {
        if self.reasons.is_empty() {
            return Err("hubble-drop-events-reasons: it names none".to_owned());
        }
        let reason = |name: &String| {
            let known = DropReason::from_str_name(&name.to_uppercase());
            known.map(i32::from).ok_or_else(|| format!("hubble-drop-events-reasons: there is no reason {name:?}"))
        };
        let filter = FlowFilter {
            verdict: vec![Verdict::Dropped.into()],
            event_type: vec![EventTypeFilter { r#type: kind::DROP.into(), ..EventTypeFilter::default() }],
            drop_reason_desc: self.reasons.iter().map(reason).collect::<Result<_, _>>()?,
            ..FlowFilter::default()
        };
        Filters::compile(&[filter], &[]).map_err(|error| error.to_string())
    }
}

/// The pod of this node whose packet it was: that of the policy which refused it, if that is one.
fn dropped(flow: &Flow) -> Option<Dropped> {
    let ip = flow.ip.as_ref()?;
    let (incoming, own, other, address) = match flow.traffic_direction() {
        TrafficDirection::Ingress => (true, flow.destination.as_ref()?, flow.source.as_ref(), &ip.source),
        _ => (false, flow.source.as_ref()?, flow.destination.as_ref(), &ip.destination),
    };
    if own.id == 0 || own.pod_name.is_empty() {
        return None;
    }
    let (way, side) = if incoming { ("incoming", "from") } else { ("outgoing", "to") };
    let what = transport(flow);
    let peer = other.and_then(name).map_or_else(|| address.clone(), |name| format!("{name} ({address})"));
    let reason = flow.drop_reason_desc().as_str_name();
    let note = format!("An {way} packet was dropped ({}): {what} {side} {peer}", reason.to_lowercase());
    Some(Dropped { pod: PodName::new(own.namespace.as_str(), own.pod_name.as_str()), note })
}

fn name(end: &Endpoint) -> Option<String> {
    (!end.pod_name.is_empty()).then(|| format!("{}/{}", end.namespace, end.pod_name))
}

/// Without the port of the client, which is another one each time.
fn transport(flow: &Flow) -> String {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(l4)) => format!("TCP port {}", l4.destination_port),
        Some(Protocol::Udp(l4)) => format!("UDP port {}", l4.destination_port),
        Some(Protocol::Sctp(l4)) => format!("SCTP port {}", l4.destination_port),
        _ => flow.summary.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fixture;
    use abi::event::Event;
    use parking_lot::Mutex;
    use tokio_util::task::AbortOnDropHandle;

    const INTERVAL: Duration = Duration::from_secs(120);
    const DEADLINE: Duration = Duration::from_secs(20);

    fn drops(reasons: &[&str]) -> Drops {
        Drops {
            store: Arc::new(Store::new(&Config::default(), "n1", fixture::tables().tables)),
            workers: Workers::default(),
            lost_interval: Duration::from_secs(1),
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            interval: INTERVAL,
            problems: Problems::default(),
        }
    }

    /// Pushes events until so many notes were told.
    async fn told(drops: &Drops, notes: &Mutex<Vec<Dropped>>, events: &[Event], count: usize) -> Vec<Dropped> {
        let wait = async {
            while notes.lock().len() < count {
                events.iter().for_each(|event| drops.store.push(event));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("it is not told");
        notes.lock().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_told_of_once_in_a_while_with_who_wanted_what_of_it() {
        let drops = drops(&["policy_denied", "AUTH_REQUIRED"]);
        let notes = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let notes = Arc::clone(&notes);
            move |dropped| notes.lock().push(dropped)
        };
        let _following = AbortOnDropHandle::new(tokio::spawn(drops.clone().follow(tell)));
        let other_port = Event { dport: 81_u16.to_be(), ..fixture::denied_syn() };
        let other_reason = Event { reason: abi::DropReason::InvalidSourceIp.code(), ..fixture::denied_syn() };
        let elsewhere = Event { dst: fixture::addr("10.0.9.9"), dst_endpoint: 0, ..fixture::denied_syn() };
        let client_port = Event { sport: 50001_u16.to_be(), ..fixture::denied_syn() };
        let events = [fixture::denied_syn(), client_port, other_port, other_reason, elsewhere, fixture::allowed_syn()];
        let first = told(&drops, &notes, &events, 2).await;
        let note = |port| {
            let note =
                format!("An incoming packet was dropped (policy_denied): TCP port {port} from shop/db-0 (10.0.1.20)");
            Dropped { pod: PodName::new("shop", "web-1"), note }
        };
        assert_eq!(first, [note(80), note(81)]);
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(told(&drops, &notes, &events, 4).await[2..], [note(80), note(81)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_different_drops_is_not_remembered_without_end() {
        let drops = drops(&["policy_denied"]);
        let notes = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let notes = Arc::clone(&notes);
            move |dropped| notes.lock().push(dropped)
        };
        let _following = AbortOnDropHandle::new(tokio::spawn(drops.clone().follow(tell)));
        let scan = |ports: std::ops::Range<u16>| -> Vec<Event> {
            ports.map(|port| Event { dport: port.to_be(), ..fixture::denied_syn() }).collect()
        };
        told(&drops, &notes, &scan(1..3000), MOST).await;
        tokio::time::sleep(INTERVAL / 2).await;
        assert_eq!(notes.lock().len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reason_that_there_is_not_is_said_in_the_status() {
        for (reasons, part) in [(&["policy_denied", "colour"][..], "\"colour\""), (&[], "none")] {
            let drops = drops(reasons);
            let problems = Arc::clone(&drops.problems);
            let never = tokio::time::timeout(DEADLINE, drops.follow(|dropped| panic!("{dropped:?}"))).await;
            assert!(never.is_err() && problems.lock()["drop events"].contains(part));
        }
    }
}
