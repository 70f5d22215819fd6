// SPDX-License-Identifier: Apache-2.0
use super::{SCHEMA_VERSION, all};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

const HEADER: &str = "# SPDX-License-Identifier: Apache-2.0\n# Written from crates/k8s/src/crd.rs: UPDATE_CRDS=1 cargo test -p k8s crds\n";

fn file(definition: &CustomResourceDefinition) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    folder.join(format!("{}.yaml", definition.spec.names.plural))
}

#[test]
fn the_files_in_deploy_crds_are_these_definitions() {
    let update = std::env::var_os("UPDATE_CRDS").is_some();
    for definition in all().unwrap() {
        let text = format!("{HEADER}{}", serde_saphyr::to_string(&definition).unwrap());
        let file = file(&definition);
        if update {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let present = std::fs::read_to_string(&file).unwrap_or_default();
        let published: Value = serde_saphyr::from_str(&present).unwrap_or_default();
        let derived = serde_json::to_value(&definition).unwrap();
        let differences = differences(&published, &derived, "");
        assert!(differences.is_empty(), "{} and the types disagree:\n{}", file.display(), differences.join("\n"));
        assert!(present == text, "{} is out of date: UPDATE_CRDS=1 cargo test -p k8s crds", file.display());
        let read: CustomResourceDefinition = serde_saphyr::from_str(&present).unwrap();
        assert_eq!(read, definition);
    }
}

/// Each place where two trees differ, with what both have there.
fn differences(published: &Value, derived: &Value, path: &str) -> Vec<String> {
    let member = |value: &Value, name: &str| value.get(name).cloned().unwrap_or_default();
    match (published, derived) {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            let below = |name: &String| {
                differences(&member(published, name), &member(derived, name), &format!("{path}.{name}"))
            };
            names.into_iter().flat_map(below).collect()
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let items = left.iter().zip(right).enumerate();
            items.flat_map(|(n, (left, right))| differences(left, right, &format!("{path}[{n}]"))).collect()
        }
        _ if published == derived => Vec::new(),
        _ => vec![format!("  {path}: published {published}, derived {derived}")],
    }
}

#[test]
fn a_difference_is_named_by_its_field() {
    let (left, right) = (json!({"a": [{"b": 1}], "c": 2}), json!({"a": [{"b": 3}], "c": 2, "d": 4}));
    let wanted = ["  .a[0].b: published 1, derived 3", "  .d: published null, derived 4"];
    assert_eq!(differences(&left, &right, ""), wanted);
}

#[test]
fn types_derive_their_schema_but_for_what_they_say_themselves() {
    /// Described.
    #[derive(Serialize, JsonSchema)]
    struct Shown {
        /// Always written.
        count: i64,
        #[schemars(extend("format" = null))]
        plain: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        perhaps: Option<String>,
    }
    let wanted = json!({
        "type": "object",
        "required": ["count", "plain"],
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "count": {"type": "integer", "format": "int64"}, "plain": {"type": "integer"}, "perhaps": {"type": "string"},
        },
    });
    assert_eq!(super::schema::of::<Shown>(), wanted);
}

#[test]
fn every_definition_says_the_version_of_its_schema_and_stores_v2_unless_there_is_none() {
    let all = all().unwrap();
    assert_eq!(all.len(), 12);
    for definition in all {
        assert_eq!(definition.metadata.labels.unwrap()[super::SCHEMA_VERSION_LABEL], SCHEMA_VERSION);
        let stored: Vec<_> = definition.spec.versions.iter().filter(|v| v.storage).map(|v| v.name.as_str()).collect();
        let only_alpha =
            ["CiliumL2AnnouncementPolicy", "CiliumGatewayClassConfig"].contains(&&*definition.spec.names.kind);
        assert_eq!(stored, [if only_alpha { "v2alpha1" } else { "v2" }]);
        assert!(definition.spec.names.categories.unwrap().contains(&"cilium".to_owned()));
    }
}
