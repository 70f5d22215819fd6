// SPDX-License-Identifier: Apache-2.0
//! Collects the status of Cilium.

use super::exec::exec;
use super::report::{Report, Workload};
use anyhow::Result;
use futures::stream::{self, StreamExt};
use k8s::Client;
use k8s::cilium::CiliumEndpoint;
use k8s::k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s::k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s::kube::api::{ListParams, ObjectList};
use k8s::kube::{Api, Error, ResourceExt};
use rest::{Endpoint, State, StatusResponse};
use std::collections::BTreeSet;

/// How many agents are asked at the same time.
pub(super) const AT_ONCE: usize = 16;

/// Page size of lists: the API server reads whole lists from etcd, and they are as large as the cluster.
const PAGE: u32 = 500;

/// Container of the agent in its pod.
pub(super) const AGENT: &str = "cilium-agent";

/// Collects everything once.
pub(super) async fn collect(client: &Client, namespace: &str) -> Report {
    let mut report = Report::default();
    daemon_set(client, namespace, "cilium", true, &mut report).await;
    daemon_set(client, namespace, "cilium-envoy", false, &mut report).await;
    deployment(client, namespace, "cilium-operator", true, &mut report).await;
    for optional in ["hubble-relay", "hubble-ui", "clustermesh-apiserver"] {
        deployment(client, namespace, optional, false, &mut report).await;
    }
    if let Err(error) = cluster_pods(client, &mut report).await {
        report.collection_errors.push(format!("pods of the cluster: {error:#}"));
    }
    if let Err(error) = client.namespaced::<ConfigMap>(namespace).get("cilium-config").await {
        report.collection_errors.push(format!("ConfigMap cilium-config: {error}"));
    }
    report
}

async fn daemon_set(client: &Client, namespace: &str, name: &str, required: bool, report: &mut Report) {
    let found = client.namespaced::<DaemonSet>(namespace).get_opt(name).await;
    let Some(found) = present("DaemonSet", name, required, found, report) else { return };
    if name == "cilium" {
        report.helm_chart_version = chart_version(found.labels());
    }
    let status = found.status.unwrap_or_default();
    let workload = Workload {
        kind: "DaemonSet".to_owned(),
        desired: status.desired_number_scheduled,
        ready: status.number_ready,
        available: status.number_available.unwrap_or_default(),
        unavailable: status.number_unavailable.unwrap_or_default(),
    };
    if workload.desired == 0 && required {
        report.warning(name, name, format!("no node is to run DaemonSet {name}"));
    }
    let selector = found.spec.map(|spec| spec.selector).unwrap_or_default();
    judge(client, (namespace, name), workload, &selector, report).await;
}

async fn deployment(client: &Client, namespace: &str, name: &str, required: bool, report: &mut Report) {
    let found = client.namespaced::<Deployment>(namespace).get_opt(name).await;
    let Some(found) = present("Deployment", name, required, found, report) else { return };
    let status = found.status.unwrap_or_default();
    let spec = found.spec.unwrap_or_default();
    let workload = Workload {
        kind: "Deployment".to_owned(),
        desired: spec.replicas.unwrap_or(1),
        ready: status.ready_replicas.unwrap_or_default(),
        available: status.available_replicas.unwrap_or_default(),
        unavailable: status.unavailable_replicas.unwrap_or_default(),
    };
    judge(client, (namespace, name), workload, &spec.selector, report).await;
}

fn present<K>(
    kind: &str,
    name: &str,
    required: bool,
    found: Result<Option<K>, Error>,
    report: &mut Report,
) -> Option<K> {
    match found {
        Ok(Some(found)) => return Some(found),
        Ok(None) if required => report.error(name, name, format!("{kind} {name} does not exist: is Cilium installed?")),
        Ok(None) => report.disabled(name),
        Err(error) => report.error(name, name, format!("{kind} {name}: {error}")),
    }
    None
}

/// Adds a workload and its pods.
async fn judge(
    client: &Client,
    (namespace, name): (&str, &str),
    workload: Workload,
    selector: &LabelSelector,
    report: &mut Report,
) {
    let missing = workload.desired - workload.ready;
    if missing > 0 {
        report.error(name, name, format!("{missing} pods of {} {name} are not ready", workload.kind));
    }
    if workload.unavailable > 0 {
        report.warning(
            name,
            name,
            format!("{} pods of {} {name} are not available", workload.unavailable, workload.kind),
        );
    }
    report.pod_state.insert(name.to_owned(), workload);
    let labels = selector.match_labels.clone().unwrap_or_default();
    let labels = labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let api: Api<Pod> = client.namespaced(namespace);
    match pages(ListParams::default().labels(&labels), async |page| api.list(&page).await).await {
        Ok(items) => pods(&api, name, items, report).await,
        Err(error) => report.error(name, name, format!("pods of {name}: {error}")),
    }
}

async fn pods(api: &Api<Pod>, workload: &str, pods: Vec<Pod>, report: &mut Report) {
    let mut running = Vec::new();
    for pod in &pods {
        let name = pod.name_any();
        let status = pod.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_else(|| "Unknown".to_owned());
        *report.phase_count.entry(workload.to_owned()).or_default().entry(phase.clone()).or_default() += 1;
        for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
            if let Some(image) = &container.image {
                *report.image_count.entry(workload.to_owned()).or_default().entry(image.clone()).or_default() += 1;
            }
        }
        for container in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let reason = waiting.and_then(|waiting| waiting.reason.clone()).unwrap_or_default();
            if !matches!(reason.as_str(), "" | "PodInitializing" | "ContainerCreating") {
                let message = waiting.and_then(|waiting| waiting.message.clone()).unwrap_or_default();
                report.error(workload, &name, format!("container {} is waiting: {reason}: {message}", container.name));
            }
        }
        match phase.as_str() {
            "Running" => running.push(name),
            "Succeeded" => {}
            _ => report.warning(workload, &name, "pod is pending"),
        }
    }
    if workload == "cilium" {
        agents(api, running, report).await;
    }
}

/// Asks each agent.
async fn agents(api: &Api<Pod>, pods: Vec<String>, report: &mut Report) {
    let ask = |pod: String| async move {
        let status = exec(api, &pod, AGENT, &["cilium", "status", "-o", "json"]).await;
        let endpoints = exec(api, &pod, AGENT, &["cilium", "endpoint", "list", "-o", "json"]).await;
        (pod, status, endpoints)
    };
    let answers: Vec<_> = stream::iter(pods).map(ask).buffer_unordered(AT_ONCE).collect().await;
    for (pod, status, endpoints) in answers {
        let status = status.and_then(|text| Ok(serde_json::from_str::<StatusResponse>(&text)?));
        match &status {
            Ok(status) => agent(&pod, status, report),
            Err(error) => report.error("cilium", &pod, format!("unable to retrieve cilium status: {error:#}")),
        }
        report.cilium_status.insert(pod.clone(), status.ok());
        match endpoints.and_then(|text| Ok(serde_json::from_str::<Vec<Endpoint>>(&text)?)) {
            Ok(endpoints) => endpoints.iter().for_each(|endpoint| self::endpoint(&pod, endpoint, report)),
            Err(error) => report.error("cilium", &pod, format!("unable to retrieve endpoint information: {error:#}")),
        }
    }
}

/// The problems an agent reports.
fn agent(pod: &str, status: &StatusResponse, report: &mut Report) {
    let health = status.cluster.as_ref().and_then(|cluster| cluster.cilium_health.as_ref());
    let states = [
        ("Cilium", status.cilium.as_ref().map(|s| (s.state, &s.msg))),
        ("Cluster health", health.map(|s| (s.state, &s.msg))),
        ("Hubble", status.hubble.as_ref().map(|s| (s.state, &s.msg))),
        ("Kubernetes", status.kubernetes.as_ref().map(|s| (s.state, &s.msg))),
        ("kvstore", status.kvstore.as_ref().map(|s| (s.state, &s.msg))),
    ];
    for (name, state) in states {
        match state {
            Some((State::Warning, message)) => report.warning("cilium", pod, format!("{name}: {message}")),
            Some((State::Failure, message)) => report.error("cilium", pod, format!("{name}: {message}")),
            _ => {}
        }
    }
    controllers(pod, &status.controllers, report);
}

fn endpoint(pod: &str, endpoint: &Endpoint, report: &mut Report) {
    if let Some(status) = &endpoint.status {
        controllers(pod, &status.controllers, report);
    }
}

fn controllers(pod: &str, controllers: &[rest::ControllerStatus], report: &mut Report) {
    for controller in controllers {
        if let Some(run) = controller.status.as_ref().filter(|run| run.consecutive_failure_count > 0) {
            let (name, count, why) = (&controller.name, run.consecutive_failure_count, &run.last_failure_msg);
            report.error("cilium", pod, format!("controller {name} is failing since {count} runs: {why}"));
        }
    }
}

/// Counts the pods that need a network, and those connected by Cilium.
async fn cluster_pods(client: &Client, report: &mut Report) -> Result<()> {
    let (pods, endpoints) = (client.all::<Pod>(), client.all::<CiliumEndpoint>());
    let endpoints = pages(ListParams::default(), async |page| endpoints.list_metadata(&page).await).await?;
    let managed: BTreeSet<_> = endpoints.iter().map(|e| (e.namespace(), e.name_any())).collect();
    for pod in pages(ListParams::default(), async |page| pods.list(&page).await).await? {
        let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if host || matches!(phase, "Succeeded" | "Failed") {
            continue;
        }
        report.pods_count.all += 1;
        report.pods_count.by_cilium += usize::from(managed.contains(&(pod.namespace(), pod.name_any())));
    }
    Ok(())
}

/// All objects of a list, fetched page by page.
async fn pages<K: Clone>(
    params: ListParams,
    page: impl AsyncFn(ListParams) -> Result<ObjectList<K>, Error>,
) -> Result<Vec<K>, Error> {
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let list = page(params.clone()).await?;
        all.extend(list.items);
        params.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(all);
        }
    }
}

/// From the label `helm.sh/chart`, `cilium-1.2.3`.
fn chart_version(labels: &std::collections::BTreeMap<String, String>) -> String {
    let chart = labels.get("helm.sh/chart").and_then(|chart| chart.strip_prefix("cilium-"));
    chart.or_else(|| labels.get("app.kubernetes.io/version").map(String::as_str)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_says_is_wrong_is_reported_by_its_weight() {
        let status: StatusResponse = serde_json::from_str(
            r#"{"cilium":{"state":"Ok"},"kubernetes":{"state":"Failure","msg":"away"},
              "hubble":{"state":"Warning","msg":"port taken"},
              "controllers":[{"name":"good","status":{"failure-count":3}},
                {"name":"bad","status":{"consecutive-failure-count":2,"last-failure-msg":"no"}}]}"#,
        )
        .unwrap();
        let mut report = Report::default();
        agent("cilium-abc", &status, &mut report);
        let found = &report.errors["cilium"]["cilium-abc"];
        assert_eq!(found.errors, ["Kubernetes: away", "controller bad is failing since 2 runs: no"]);
        assert_eq!(found.warnings, ["Hubble: port taken"]);
    }

    #[test]
    fn the_version_of_the_chart_is_read_from_its_label() {
        let labels = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into_iter().collect();
        assert_eq!(chart_version(&labels("helm.sh/chart", "cilium-1.2.3")), "1.2.3");
        assert_eq!(chart_version(&labels("x", "y")), "");
    }

    #[tokio::test]
    async fn a_long_list_is_asked_for_page_by_page() {
        let asked = std::cell::RefCell::new(Vec::new());
        let page = async |params: ListParams| {
            let n = asked.borrow().len();
            let token = [Some("one"), Some("two"), Some("")][n];
            asked.borrow_mut().push((params.limit, params.continue_token, params.label_selector));
            let list = serde_json::json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": token},
                "items": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod{n}")}}]});
            Ok(serde_json::from_value::<ObjectList<Pod>>(list).unwrap())
        };
        let pods = pages(ListParams::default().labels("app=web"), page).await.unwrap();
        assert_eq!(pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["pod0", "pod1", "pod2"]);
        let of = |token: Option<&str>| (Some(PAGE), token.map(str::to_owned), Some("app=web".to_owned()));
        assert_eq!(asked.into_inner(), [of(None), of(Some("one")), of(Some("two"))]);
    }
}
