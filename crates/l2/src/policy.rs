// SPDX-License-Identifier: Apache-2.0
//! CiliumL2AnnouncementPolicies: what they select, and what is wrong with them. An invalid one announces nothing, since
//! its author's intent is unknown.

use k8s::cilium::CiliumL2AnnouncementPolicy;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::ResourceExt as _;
use k8s::kube::core::Selector;
use regex::{Regex, RegexBuilder};

/// Size limit of a compiled expression in bytes.
const REGEX_SIZE: usize = 1 << 16;

/// The longest message of a condition that the API server accepts.
const MAX_MESSAGE: usize = 32_768;

/// A policy. One row per object.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub name: String,
    /// What is announced by whom; none if it is invalid.
    pub rule: Option<Rule>,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Version of the object.
    version: String,
    generation: Option<i64>,
    /// The object's current conditions.
    conditions: Vec<Condition>,
}

impl statedb::Row for Policy {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// What is announced by whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub(crate) services: Selector,
    pub(crate) nodes: Selector,
    pub(crate) devices: Vec<DeviceName>,
    pub(crate) external_ips: bool,
    pub(crate) load_balancer_ips: bool,
}

/// Devices by regular expressions over their names.
#[derive(Clone, Debug)]
pub(crate) struct DeviceName(Regex);

impl DeviceName {
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl PartialEq for DeviceName {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// An invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Type of the condition that reports it.
    pub condition: &'static str,
    /// The field and why.
    pub message: String,
}

/// Our conditions, each with its reason while nothing is wrong.
const SERVICE_SELECTOR: &str = "io.cilium/bad-service-selector";
const NODE_SELECTOR: &str = "io.cilium/bad-node-selector";
const INTERFACE_REGEX: &str = "io.cilium/bad-interface-regex";
const CONDITIONS: [&str; 3] = [SERVICE_SELECTOR, NODE_SELECTOR, INTERFACE_REGEX];

/// The row of a policy, valid or not.
#[must_use]
pub fn ingest_policy(object: &CiliumL2AnnouncementPolicy) -> Option<Policy> {
    let spec = &object.spec;
    let mut faults = Vec::new();
    let services = selector((SERVICE_SELECTOR, "spec.serviceSelector"), spec.service_selector.as_ref(), &mut faults);
    let nodes = selector((NODE_SELECTOR, "spec.nodeSelector"), spec.node_selector.as_ref(), &mut faults);
    let mut devices = Vec::new();
    for (n, text) in spec.interfaces.iter().flatten().enumerate() {
        match RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
            Ok(regex) => devices.push(DeviceName(regex)),
            Err(error) => faults.push(Fault {
                condition: INTERFACE_REGEX,
                message: format!("spec.interfaces[{n}]: {text:?} is no regular expression: {}", one_line(&error)),
            }),
        }
    }
    let rule = Rule {
        services,
        nodes,
        devices,
        external_ips: spec.external_ips.unwrap_or_default(),
        load_balancer_ips: spec.load_balancer_ips.unwrap_or_default(),
    };
    Some(Policy {
        name: object.metadata.name.clone()?,
        rule: faults.is_empty().then_some(rule),
        faults,
        version: object.resource_version().unwrap_or_default(),
        generation: object.metadata.generation,
        conditions: object.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default(),
    })
}

fn selector(
    (condition, field): (&'static str, &str),
    selector: Option<&LabelSelector>,
    faults: &mut Vec<Fault>,
) -> Selector {
    Selector::try_from(selector.cloned().unwrap_or_default()).unwrap_or_else(|error| {
        faults.push(Fault { condition, message: format!("{field}: {error}") });
        Selector::default()
    })
}

/// The library's message spans several lines.
fn one_line(error: &regex::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Policy {
    /// The version of the object that has the conditions which [`corrected_conditions`](Self::corrected_conditions) begins with.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The desired conditions, unless they are already set; others' conditions stay.
    #[must_use]
    pub fn corrected_conditions(&self, now: Timestamp) -> Option<Vec<Condition>> {
        let (ours, mut wanted): (Vec<_>, Vec<_>) =
            self.conditions.iter().cloned().partition(|condition| CONDITIONS.contains(&condition.type_.as_str()));
        for type_ in CONDITIONS {
            let present = ours.iter().find(|condition| condition.type_ == type_);
            let messages =
                self.faults.iter().filter(|fault| fault.condition == type_).map(|fault| fault.message.as_str());
            let message = k8s::shortened(messages.collect::<Vec<_>>().join("; "), MAX_MESSAGE);
            // A condition that was never false need not be added.
            if message.is_empty() && present.is_none() {
                continue;
            }
            wanted.push(self.condition(type_, message, present, now));
        }
        let same = |condition: &Condition| self.conditions.contains(condition);
        (wanted.len() != self.conditions.len() || !wanted.iter().all(same)).then_some(wanted)
    }

    fn condition(&self, type_: &str, message: String, present: Option<&Condition>, now: Timestamp) -> Condition {
        let (status, reason) = if message.is_empty() { ("False", "valid") } else { ("True", "invalid") };
        let unchanged = present.filter(|present| present.status == status);
        let said = unchanged.filter(|present| present.message == message && present.reason == reason);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: unchanged.map_or(Time(now), |present| present.last_transition_time.clone()),
            observed_generation: said.map_or(self.generation, |present| present.observed_generation),
        }
    }
}

#[cfg(test)]
mod tests;
