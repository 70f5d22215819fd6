// SPDX-License-Identifier: Apache-2.0
//! `cilium service explain`: the state of a Service on every node, and the reasons for it.

use super::Place;
use super::collect::{AGENT, AT_ONCE};
use super::exec::exec;
use crate::explanation;
use crate::output::Format;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use futures::stream::{self, StreamExt};
use k8s::Client;
use k8s::cilium::CiliumLoadBalancerIPPool;
use k8s::k8s_openapi::api::core::v1::{Pod, Service};
use k8s::kube::ResourceExt;
use k8s::kube::api::ListParams;
use lbipam::Pool;
use rest::ServiceExplanation;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// Show where a Service is reached, its backends on every node, what is left out and who announces it.
    Explain {
        /// NAMESPACE/NAME.
        service: String,
        /// json, yaml or jsonpath='{...}'.
        #[arg(long, short)]
        output: Option<Format>,
    },
}

/// Everything known about a Service.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Explanation {
    service: String,
    /// The problems in its status.
    conditions: Vec<String>,
    /// Addresses of load balancers.
    addresses: Vec<Address>,
    /// The report of each node.
    nodes: BTreeMap<String, ServiceExplanation>,
    /// Why a node has not reported.
    silent: BTreeMap<String, String>,
}

/// The report of a node, or why there is none.
type Answer = (String, Result<ServiceExplanation, String>);

/// An address of a load balancer.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Address {
    address: String,
    /// The pool it belongs to.
    pool: Option<String>,
    /// The nodes that announce it on a link.
    announced: Vec<String>,
}

pub(super) async fn run(place: &Place, command: &Commands) -> Result<()> {
    let Commands::Explain { service, output } = command;
    let (namespace, name) = explanation::check_name(service)?;
    let client = place.connect().await?;
    let object = client.namespaced::<Service>(namespace).get_opt(name).await?;
    let object = object.with_context(|| format!("there is no Service {service}"))?;
    let nodes = ask(&client, &place.namespace, service).await?;
    let pools = client.all::<CiliumLoadBalancerIPPool>().list(&ListParams::default()).await;
    // Without the definition there are no pools.
    let pools: Vec<Pool> = pools.map(|list| list.items).unwrap_or_default().iter().filter_map(Pool::ingest).collect();
    let explanation = put_together(&object, &pools, nodes);
    output.clone().unwrap_or_default().print(&explanation, || render(&explanation))
}

/// Asks the agent of each node.
async fn ask(client: &Client, namespace: &str, service: &str) -> Result<Vec<Answer>> {
    let api = client.namespaced::<Pod>(namespace);
    let pods = api.list(&ListParams::default().labels("k8s-app=cilium")).await.context("list the agents")?.items;
    if pods.is_empty() {
        bail!("there is no agent in namespace {namespace}: is Cilium installed?");
    }
    let ask = |pod: Pod| {
        let (api, name) = (api.clone(), pod.name_any());
        let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_else(|| name.clone());
        async move {
            let command = ["cilium-dbg", "service", "explain", service, "-o", "json"];
            let answer = exec(&api, &name, AGENT, &command).await;
            let answer = answer.and_then(|text| Ok(serde_json::from_str(&text)?));
            (node, answer.map_err(|error| format!("{error:#}")))
        }
    };
    Ok(stream::iter(pods).map(ask).buffer_unordered(AT_ONCE).collect().await)
}

fn put_together(object: &Service, pools: &[Pool], answers: Vec<Answer>) -> Explanation {
    let (mut nodes, mut silent) = (BTreeMap::new(), BTreeMap::new());
    for (node, answer) in answers {
        match answer {
            Ok(explained) => drop(nodes.insert(node, explained)),
            Err(error) => drop(silent.insert(node, error)),
        }
    }
    let status = object.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let conditions = conditions.iter().filter(|condition| condition.status == "False");
    let ingress = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
    let address = |address: String| {
        let ip = address.parse::<IpAddr>().ok();
        let pool = pools.iter().find(|pool| ip.is_some_and(|ip| pool.contains(ip)));
        let answers = |explained: &ServiceExplanation| explained.announced.iter().any(|row| row.address == address);
        let announced = nodes.iter().filter(|(_, explained)| answers(explained));
        let announced = announced.map(|(node, _)| node.clone()).collect();
        Address { pool: pool.map(|pool| pool.name.to_string()), announced, address }
    };
    Explanation {
        service: format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()),
        conditions: conditions.map(|condition| format!("{}: {}", condition.type_, condition.message)).collect(),
        addresses: ingress.into_iter().filter_map(|ingress| ingress.ip).map(address).collect(),
        nodes,
        silent,
    }
}

fn render(explanation: &Explanation) -> String {
    let mut text = format!("Service {}\n", explanation.service);
    explanation.conditions.iter().for_each(|condition| text += &format!("{condition}\n"));
    for Address { address, pool, announced } in &explanation.addresses {
        let pool = pool.as_ref().map_or_else(|| "of no pool".to_owned(), |pool| format!("of pool {pool}"));
        let announced = if announced.is_empty() { "nobody".to_owned() } else { announced.join(", ") };
        text += &format!("Address {address} {pool}, announced by {announced}\n");
    }
    // Nodes with the same report share an entry.
    let mut alike: Vec<(Vec<&str>, ServiceExplanation)> = Vec::new();
    for (node, explained) in &explanation.nodes {
        let without_name = ServiceExplanation { node: String::new(), ..explained.clone() };
        match alike.iter_mut().find(|(_, same)| *same == without_name) {
            Some((nodes, _)) => nodes.push(node),
            None => alike.push((vec![node], without_name)),
        }
    }
    alike.iter().for_each(|(nodes, explained)| text += &explanation::of_nodes(nodes, explained));
    for (node, error) in &explanation.silent {
        text += &format!("On {node}:\n  {error}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nodes_that_say_the_same_say_it_once_and_an_address_has_its_pool_and_who_announces_it() {
        let object = parse(json!({"metadata": {"namespace": "shop", "name": "web"}, "status": {
            "loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"ip": "203.0.113.1"}, {"hostname": "lb"}]},
            "conditions": [{"type": "cilium.io/ServiceHonoured", "status": "False", "reason": "r", "message": "why",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}));
        let pool = parse(json!({"metadata": {"name": "lan"}, "spec": {"blocks": [{"cidr": "192.0.2.0/28"}]}}));
        let pools: Vec<Pool> = Pool::ingest(&pool).into_iter().collect();
        let says = |node: &str, announced: Value| -> Result<ServiceExplanation, String> {
            let endpoint = json!({"address": "10.0.1.1:80/TCP", "state": "active"});
            Ok(parse(json!({"node": node, "endpoints": [endpoint], "announced": announced})))
        };
        let answers = json!([{"address": "192.0.2.7", "device": "eth0", "service": "shop/web"}]);
        let nodes = [
            ("n1", says("n1", json!([]))),
            ("n2", says("n2", answers)),
            ("n3", says("n3", json!([]))),
            ("n4", Err("is it running?".to_owned())),
        ];
        let nodes = nodes.map(|(node, answer)| (node.to_owned(), answer)).into();
        let want = "\
Service shop/web
cilium.io/ServiceHonoured: why
Address 192.0.2.7 of pool lan, announced by n2
Address 203.0.113.1 of no pool, announced by nobody
On n1, n3:
  Endpoint          Node   Zone   State    Left out
  10.0.1.1:80/TCP                 active
On n2:
  Answers for 192.0.2.7 on eth0
  Endpoint          Node   Zone   State    Left out
  10.0.1.1:80/TCP                 active
On n4:
  is it running?
";
        assert_eq!(render(&put_together(&object, &pools, nodes)), want);
    }
}
