// SPDX-License-Identifier: Apache-2.0
//! `cilium gateway explain`: where a request to a Gateway goes, by the proxies of all nodes.

use super::Place;
use super::collect::{AGENT, AT_ONCE};
use super::exec::exec;
use crate::output::Format;
use crate::routed::{Request, of_nodes};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use futures::stream::{self, StreamExt};
use k8s::Client;
use k8s::k8s_openapi::api::core::v1::Pod;
use k8s::kube::ResourceExt;
use k8s::kube::api::ListParams;
use l7::explain::{Explanation, Question};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// Show which listener, route and backend a request would take at each node, and why others do not.
    #[command(mut_arg("header", |header| header.short('H')))]
    Explain {
        #[command(flatten)]
        request: Request,
        /// json, yaml or jsonpath='{...}'.
        #[arg(long, short)]
        output: Option<Format>,
    },
}

/// What all nodes say.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Explanations {
    /// The answer of each node's proxy.
    nodes: BTreeMap<String, Explanation>,
    /// Why a node has not answered.
    silent: BTreeMap<String, String>,
}

pub(super) async fn run(place: &Place, command: &Commands) -> Result<()> {
    let Commands::Explain { request, output } = command;
    // A mistake is told once, not by each node.
    let _: Question = request.question()?;
    let client = place.connect().await?;
    let explanations = ask(&client, &place.namespace, request).await?;
    output.clone().unwrap_or_default().print(&explanations, || render(&explanations))
}

/// Asks the proxy of each node, through its agent.
async fn ask(client: &Client, namespace: &str, request: &Request) -> Result<Explanations> {
    let api = client.namespaced::<Pod>(namespace);
    let pods = api.list(&ListParams::default().labels("k8s-app=cilium")).await.context("list the agents")?.items;
    if pods.is_empty() {
        bail!("there is no agent in namespace {namespace}: is Cilium installed?");
    }
    let mut words = ["cilium-dbg", "proxy", "explain", "--output", "json"].map(str::to_owned).to_vec();
    words.extend(request.words());
    let ask = |pod: Pod| {
        let (api, name, words) = (api.clone(), pod.name_any(), &words);
        let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_else(|| name.clone());
        async move {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let answer = exec(&api, &name, AGENT, &words).await;
            (node, answer.and_then(|text| Ok(serde_json::from_str::<Explanation>(&text)?)))
        }
    };
    let mut answers = stream::iter(pods).map(ask).buffer_unordered(AT_ONCE);
    let mut explanations = Explanations::default();
    while let Some((node, answer)) = answers.next().await {
        match answer {
            Ok(explanation) => drop(explanations.nodes.insert(node, explanation)),
            Err(error) => drop(explanations.silent.insert(node, format!("{error:#}"))),
        }
    }
    Ok(explanations)
}

/// Nodes that say the same say it once.
fn render(explanations: &Explanations) -> String {
    let mut alike: Vec<(Vec<&str>, &Explanation)> = Vec::new();
    for (node, explanation) in &explanations.nodes {
        match alike.iter_mut().find(|(_, same)| *same == explanation) {
            Some((nodes, _)) => nodes.push(node),
            None => alike.push((vec![node], explanation)),
        }
    }
    let mut text: String = alike.iter().map(|(nodes, explanation)| of_nodes(nodes, explanation)).collect();
    for (node, error) in &explanations.silent {
        text += &format!("On {node}:\n  {error}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_say_the_same_say_it_once() {
        let nodes = ["n1", "n2"].map(|node| (node.to_owned(), Explanation::default())).into();
        let silent = BTreeMap::from([("n3".to_owned(), "no proxy".to_owned())]);
        let want = "On n1, n2:\n  There is no listener\nOn n3:\n  no proxy\n";
        assert_eq!(render(&Explanations { nodes, silent }), want);
    }
}
