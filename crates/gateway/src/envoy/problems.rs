// SPDX-License-Identifier: Apache-2.0
//! What is said of CiliumEnvoyConfigs, which have no status: the table `envoy-config-problems`, and events.

use super::{EnvoyConfig, Placed};
use crate::name::{ObjectName, RouteName};
use k8s::Warning;
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use k8s::kube::core::SelectorExt as _;
use model::Node;
use statedb::{Derived, Inputs, Reader, Tasks};

/// An object of which not everything is honoured.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvoyProblems {
    /// Namespace and name.
    pub name: ObjectName,
    about: ObjectReference,
    /// What is not honoured, and what follows.
    pub problems: Vec<String>,
}

impl statedb::Row for EnvoyProblems {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

impl EnvoyProblems {
    /// Kind, namespace and name.
    #[must_use]
    pub fn object(&self) -> String {
        RouteName::config(&self.name).to_string()
    }

    /// The same for the object's author.
    #[must_use]
    pub fn warning(&self) -> Warning {
        let (about, note) = (self.about.clone(), self.problems.join("; "));
        Warning { about, reason: "EnvoyConfigNotHonoured", action: "Validate", note }
    }
}

/// Keeps what is to be said of each object of which anything is.
pub(crate) fn problems(tasks: &Tasks, placed: &Derived<Placed>) -> Reader<EnvoyProblems> {
    let rows = placed.rows.clone();
    let inputs = Inputs::of(&placed.rows, |placed: &Placed| [placed.config.name.clone()]);
    let row = move |name: &ObjectName, _: Option<&EnvoyProblems>| {
        let placed = rows.snapshot().get(name).filter(|placed| !placed.problems.is_empty())?;
        let (about, problems) = (placed.config.about.clone(), placed.problems.clone());
        Some(EnvoyProblems { name: name.clone(), about, problems })
    };
    statedb::derive(tasks, "envoy-config-problems", inputs, row).rows
}

/// The objects that hold on this node.
pub fn envoy_configs_here(tasks: &Tasks, configs: &Reader<EnvoyConfig>, nodes: &Reader<Node>) -> Reader<EnvoyConfig> {
    let all = configs.clone();
    let inputs = Inputs::of(configs, |config: &EnvoyConfig| [config.name.clone()]).and(nodes, move |node| {
        let all = all.snapshot();
        all.iter().filter(|_| node.local).map(|config| config.name.clone()).collect::<Vec<_>>()
    });
    let (configs, local) = (configs.clone(), nodes.index(|node| node.local.then_some(())));
    let row = move |name: &ObjectName, _: Option<&EnvoyConfig>| {
        let config = configs.snapshot().get(name)?;
        let here = |node: &Node| config.nodes.as_ref().is_none_or(|nodes| nodes.matches(&node.labels));
        local.get(&()).iter().any(|node| here(node)).then(|| EnvoyConfig::clone(&config))
    };
    statedb::derive(tasks, "envoy-configs-here", inputs, row).rows
}
