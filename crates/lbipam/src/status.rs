// SPDX-License-Identifier: Apache-2.0
//! The statuses that Services and pools should have, where they differ.

use crate::pool::Pool;
use crate::service::{CONDITION, Service};
use crate::verdict::Verdict;
use k8s::Warning;
use k8s::field::canonical_address;
use k8s::k8s_openapi::api::core::v1::{LoadBalancerIngress, ObjectReference};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s::k8s_openapi::jiff::Timestamp;
use std::net::IpAddr;

/// Condition type: whether a pool overlaps another.
pub const POOL_CONFLICT: &str = "cilium.io/PoolConflict";
/// Condition type: whether all of a pool is usable.
pub const POOL_VALID: &str = "cilium.io/PoolValid";
const IPS_TOTAL: &str = "cilium.io/IPsTotal";
const IPS_AVAILABLE: &str = "cilium.io/IPsAvailable";
const IPS_USED: &str = "cilium.io/IPsUsed";

/// The status a Service should have.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceUpdate {
    /// The version the decision is based on.
    pub version: String,
    /// All of its addresses.
    pub ingress: Vec<LoadBalancerIngress>,
    /// All of its conditions.
    pub conditions: Vec<Condition>,
    /// What it lacks, unless that was said before.
    pub warnings: Vec<Warning>,
}

impl ServiceUpdate {
    /// `verdict` is `None` if the Service is not ours.
    pub(crate) fn of(
        service: &Service,
        addresses: Vec<IpAddr>,
        verdict: Option<&Verdict>,
        now: Timestamp,
    ) -> Option<Self> {
        if verdict.is_none() && service.condition().is_none() {
            return None;
        }
        let ingress = entries(&service.ingress, &addresses);
        let wanted = verdict.map(|verdict| {
            let status = if verdict.is_satisfied() { "True" } else { "False" };
            Said::new(CONDITION, status, &verdict.reason.to_string(), verdict.message.as_str())
        });
        let conditions = match &wanted {
            Some(said) => with(&service.conditions, std::slice::from_ref(said), service.generation, now),
            None => service.conditions.iter().filter(|condition| condition.type_ != CONDITION).cloned().collect(),
        };
        if ingress == service.ingress && conditions == service.conditions {
            return None;
        }
        let is_new = |said: &Said| service.condition().is_none_or(|condition| condition.message != said.message);
        let news = wanted.filter(|said| said.status == "False" && is_new(said));
        let warning = |said: Said| warning(&service.reference, "AddressNotAssigned", said.message);
        let warnings = news.map(warning).into_iter().collect();
        Some(Self { version: service.version.clone(), ingress, conditions, warnings })
    }
}

fn warning(about: &ObjectReference, reason: &'static str, note: String) -> Warning {
    Warning { about: about.clone(), reason, action: "Assign", note }
}

/// The entries of its addresses as they are, with new ones for addresses without.
pub(crate) fn entries(known: &[LoadBalancerIngress], addresses: &[IpAddr]) -> Vec<LoadBalancerIngress> {
    let address = |entry: &LoadBalancerIngress| entry.ip.as_deref().and_then(canonical_address);
    let mut entries: Vec<LoadBalancerIngress> = Vec::new();
    let present = known.iter().filter(|entry| address(entry).is_some_and(|ip| addresses.contains(&ip)));
    let added = |ip: &IpAddr| LoadBalancerIngress { ip: Some(ip.to_string()), ..LoadBalancerIngress::default() };
    for entry in present.cloned().chain(addresses.iter().map(added)) {
        if !entries.iter().any(|known| address(known) == address(&entry)) {
            entries.push(entry);
        }
    }
    entries
}

/// The status a pool should have.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolUpdate {
    /// The version the decision is based on.
    pub version: String,
    /// All of its conditions.
    pub conditions: Vec<Condition>,
    /// What is wrong with it, unless that was said before.
    pub warnings: Vec<Warning>,
}

/// How many addresses a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Those with an owner.
    pub used: usize,
    /// Those that may be given out.
    pub available: u128,
}

impl PoolUpdate {
    pub(crate) fn of(pool: &Pool, said: [Said; 2], counts: Counts, now: Timestamp) -> Option<Self> {
        let Counts { used, available } = counts;
        let number = |kind, count: u128| Said::new(kind, "Unknown", "noreason", count.to_string());
        let told = |said: &Said| pool.conditions.iter().any(|c| c.type_ == said.kind && c.message == said.message);
        let news = said.iter().filter(|said| !said.message.is_empty() && !told(said));
        let reason = |kind| if kind == POOL_CONFLICT { "PoolConflict" } else { "PoolInvalid" };
        let warnings = news.map(|said| warning(&pool.reference, reason(said.kind), said.message.clone())).collect();
        let counts = [
            number(IPS_TOTAL, available.saturating_add(used as u128)),
            number(IPS_AVAILABLE, available),
            number(IPS_USED, used as u128),
        ];
        let all: Vec<Said> = said.into_iter().chain(counts).collect();
        let conditions = with(&pool.conditions, &all, pool.generation, now);
        if conditions == pool.conditions {
            return None;
        }
        Some(Self { version: pool.version.clone(), conditions, warnings })
    }
}

pub(crate) fn said_of_conflict(conflict: Option<&str>) -> Said {
    match conflict {
        Some(conflict) => Said::new(POOL_CONFLICT, "True", "cidr_overlap", conflict),
        None => Said::new(POOL_CONFLICT, "False", "resolved", ""),
    }
}

/// How many overlaps are named.
const NAMED: usize = 5;

/// What of its spec is unusable, and what of it the cluster itself uses.
pub(crate) fn said_of_faults(faults: &[String], overlaps: &[String]) -> Said {
    let named = overlaps.iter().take(NAMED).map(|what| format!("{what}, which no Service gets"));
    let others = overlaps.len().saturating_sub(NAMED);
    let more = (others > 0).then(|| format!("and {others} more of these"));
    let messages: Vec<String> = faults.iter().cloned().chain(named).chain(more).collect();
    match (faults, overlaps) {
        ([], []) => Said::new(POOL_VALID, "True", "valid", ""),
        ([], _) => Said::new(POOL_VALID, "False", "overlaps_cluster", messages.join("; ")),
        _ => Said::new(POOL_VALID, "False", "invalid", messages.join("; ")),
    }
}

/// A condition without its time.
pub(crate) struct Said {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

impl Said {
    fn new(kind: &'static str, status: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, status, reason: reason.to_owned(), message: shortened(message.into()) }
    }
}

/// The longest message the API server accepts.
const MAX_MESSAGE: usize = 32_768;

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    }
    message
}

/// The conditions, with these in place of those of the same types. The time changes only with the status.
fn with(present: &[Condition], said: &[Said], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let mut conditions = present.to_vec();
    for said in said {
        let before = conditions.iter_mut().find(|condition| condition.type_ == said.kind);
        let since = before.as_ref().filter(|before| before.status == said.status);
        let condition = Condition {
            last_transition_time: since.map_or(Time(now), |before| before.last_transition_time.clone()),
            message: said.message.clone(),
            observed_generation: generation,
            reason: said.reason.clone(),
            status: said.status.to_owned(),
            type_: said.kind.to_owned(),
        };
        match before {
            Some(before) => *before = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn at(hour: u8) -> Timestamp {
        format!("2026-01-01T{hour:02}:00:00Z").parse().unwrap()
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_change_of_status() {
        let said = |status, message: &str| [Said::new("a", status, "reason", message)];
        let since = |conditions: &[Condition]| conditions.iter().map(|c| c.last_transition_time.0).collect::<Vec<_>>();
        let first = with(&[], &said("True", "x"), None, at(1));
        let same = with(&first, &said("True", "y"), None, at(2));
        assert_eq!((since(&same), same[0].message.as_str()), (vec![at(1)], "y"));
        assert_eq!(since(&with(&same, &said("False", "y"), None, at(3))), [at(3)]);
    }

    #[test]
    fn a_message_is_as_long_as_the_api_server_takes_it_and_cut_between_characters() {
        let length = |text: &str| shortened(text.to_owned()).len();
        assert_eq!(["a".repeat(MAX_MESSAGE), "a".repeat(MAX_MESSAGE + 1)].map(|text| length(&text)), [MAX_MESSAGE; 2]);
        assert_eq!(length(&format!("a{}", "é".repeat(MAX_MESSAGE / 2))), MAX_MESSAGE - 1);
        assert_eq!(length("short"), 5);
    }

    #[test]
    fn of_many_overlaps_some_are_named() {
        let overlaps = |count: usize| (0..count).map(|n| format!("node n{n}")).collect::<Vec<_>>();
        assert!(!said_of_faults(&[], &overlaps(NAMED)).message.contains("more of these"));
        assert!(said_of_faults(&[], &overlaps(NAMED + 2)).message.ends_with("; and 2 more of these"));
    }
}
