// SPDX-License-Identifier: Apache-2.0
//! Objects for the operator, and the permissions that it has.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use k8s::k8s_openapi::api::core::v1::Namespace;
use k8s::k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s::kube::Resource;
use k8s::kube::api::{Api, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

pub(crate) const NAMESPACE: &str = "kube-system";

/// Makes what a template of the chart has, all that is conditional included: the operator has these permissions, and no others.
pub(crate) async fn permit(client: &k8s::Client, template: &str, values: &[(&str, &str)]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/cilium/templates");
    let template = std::fs::read_to_string(format!("{folder}/{template}")).unwrap();
    let lines: Vec<&str> = template.lines().filter(|line| !line.trim_start().starts_with("{{-")).collect();
    let text = lines.join("\n").replace("{{ .Release.Namespace }}", NAMESPACE);
    let text = text.replace("{{ .Values.serviceAccounts.operator.name }}", "cilium-operator");
    let text = values.iter().fold(text, |text, (expression, value)| text.replace(expression, value));
    for document in text.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        match object["kind"].as_str().unwrap() {
            "ClusterRole" => drop(make(&client.all::<ClusterRole>(), object).await),
            "ClusterRoleBinding" => drop(make(&client.all::<ClusterRoleBinding>(), object).await),
            "Namespace" => drop(make(&client.all::<Namespace>(), object).await),
            "Role" => drop(make(&client.namespaced::<Role>(&namespace), object).await),
            "RoleBinding" => drop(make(&client.namespaced::<RoleBinding>(&namespace), object).await),
            "ServiceAccount" => {}
            other => panic!("{other} is not expected in the template"),
        }
    }
}

pub(crate) async fn make<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}
