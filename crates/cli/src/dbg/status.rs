// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg status`: the agent and its subsystems.

mod render;

use crate::output::Format;
use crate::rest::Agent;
use crate::table::Table;
use anyhow::{Result, bail};
use clap::Args;
use rest::{HealthStatusResponse, State, StatusResponse};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Show `OK`, or what is wrong.
    #[arg(long)]
    brief: bool,
    /// Show everything.
    #[arg(long)]
    verbose: bool,
    /// Show all addresses.
    #[arg(long)]
    all_addresses: bool,
    /// Show all controllers.
    #[arg(long)]
    all_controllers: bool,
    /// Show what can be reached of all nodes, not only of those that are not well.
    #[arg(long)]
    all_health: bool,
    /// Show all nodes.
    #[arg(long)]
    all_nodes: bool,
    /// With --brief: a lost Kubernetes API server is an error.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true,
          action = clap::ArgAction::Set)]
    require_k8s_connectivity: bool,
    /// How long to wait for the agent.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Socket that tells of the health of the cluster [default: health.sock beside the agent's]
    #[arg(long, value_name = "SOCKET", env = "CILIUM_HEALTH_SOCK")]
    health_host: Option<PathBuf>,
    #[command(flatten)]
    output: super::Output,
}

/// The health of the cluster, if it is known.
enum ClusterHealth {
    /// It is not probed.
    Disabled,
    /// Nobody tells.
    Away,
    /// The results of the last probes.
    Known(HealthStatusResponse),
}

impl ClusterHealth {
    async fn ask(agent: &Agent, host: Option<&Path>, status: &StatusResponse) -> Self {
        let health = status.cluster.as_ref().and_then(|cluster| cluster.cilium_health.as_ref());
        if health.is_none_or(|health| health.state == State::Disabled) {
            return Self::Disabled;
        }
        // The line "Cilium health daemon" gives the reason.
        agent.with_health(host).get("/status").await.map_or(Self::Away, Self::Known)
    }
}

/// The lines about the agent itself.
pub(crate) fn lines(status: &StatusResponse) -> Table {
    render::lines(status, render::Detail::default())
}

pub(super) async fn run(agent: Agent, options: &Options) -> Result<()> {
    let agent = agent.within(options.timeout);
    let answer: Value = agent.get("/healthz").await?;
    let format = options.output.format();
    if format != Format::Text {
        return format.print(&answer, String::new);
    }
    let status: StatusResponse = serde_json::from_value(answer)?;
    if options.brief {
        let problems = problems(&status, options.require_k8s_connectivity);
        if let Some(problem) = problems.first() {
            bail!("{problem}");
        }
        println!("OK");
        return Ok(());
    }
    let detail = render::Detail {
        addresses: options.verbose || options.all_addresses,
        controllers: options.verbose || options.all_controllers,
        health: options.verbose || options.all_health,
        nodes: options.verbose || options.all_nodes,
        verbose: options.verbose,
    };
    let health = ClusterHealth::ask(&agent, options.health_host.as_deref(), &status).await;
    print!("{}", render::render(&status, &health, detail));
    let broken = status.cilium.as_ref().is_some_and(|cilium| cilium.state == State::Failure);
    if broken { bail!("the agent reports a failure") } else { Ok(()) }
}

/// The problems, worst first.
fn problems(status: &StatusResponse, require_k8s: bool) -> Vec<String> {
    let bad = |state: State| !matches!(state, State::Ok | State::Disabled);
    let mut all = Vec::new();
    let mut check = |name: &str, state: Option<(State, &str)>| {
        if let Some((_, message)) = state.filter(|(state, _)| bad(*state)) {
            all.push(format!("error in {name}: {message}"));
        }
    };
    check("kvstore", status.kvstore.as_ref().map(|s| (s.state, s.msg.as_str())));
    if require_k8s {
        check("kubernetes", status.kubernetes.as_ref().map(|s| (s.state, s.msg.as_str())));
    }
    check("cilium", status.cilium.as_ref().map(|s| (s.state, s.msg.as_str())));
    check("cni", status.cni_file.as_ref().map(|s| (s.state, s.msg.as_str())));
    all
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::hubble::duration(text).ok_or_else(|| "want a duration such as 30s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rest::{K8sStatus, Status};

    #[test]
    fn the_brief_form_names_the_worst_problem_first() {
        let ok = Status { state: State::Ok, msg: String::new() };
        let mut status = StatusResponse { cilium: Some(ok), ..StatusResponse::default() };
        assert!(problems(&status, true).is_empty());
        status.kubernetes = Some(K8sStatus { state: State::Failure, msg: "away".to_owned(), ..K8sStatus::default() });
        assert_eq!(problems(&status, true), ["error in kubernetes: away"]);
        assert!(problems(&status, false).is_empty());
    }

    #[tokio::test]
    async fn the_health_of_the_cluster_is_asked_for_only_if_it_is_probed() {
        let (agent, dir) = crate::rest::tests::agent(&[("/status", r#"{"timestamp":"now"}"#)]);
        let host = dir.path().join("cilium.sock");
        let with = |state| {
            let health = Some(Status { state, msg: String::new() });
            let cluster = rest::ClusterStatus { cilium_health: health, ..Default::default() };
            StatusResponse { cluster: Some(cluster), ..StatusResponse::default() }
        };
        let ask = async |status: StatusResponse, host| ClusterHealth::ask(&agent, host, &status).await;
        assert!(matches!(ask(StatusResponse::default(), Some(&*host)).await, ClusterHealth::Disabled));
        assert!(matches!(ask(with(State::Disabled), Some(&*host)).await, ClusterHealth::Disabled));
        // There is no health.sock beside it.
        assert!(matches!(ask(with(State::Ok), None).await, ClusterHealth::Away));
        let known = ask(with(State::Ok), Some(&*host)).await;
        assert!(matches!(known, ClusterHealth::Known(found) if found.timestamp == "now"));
    }
}
