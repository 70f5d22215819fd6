// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use super::{SCHEMA_VERSION, all};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
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
        assert!(present == text, "{} is out of date: UPDATE_CRDS=1 cargo test -p k8s crds", file.display());
        let read: CustomResourceDefinition = serde_saphyr::from_str(&present).unwrap();
        assert_eq!(read, definition);
    }
}

#[test]
fn every_definition_says_the_version_of_its_schema_and_stores_v2() {
    let all = all().unwrap();
    assert_eq!(all.len(), 6);
    for definition in all {
        assert_eq!(definition.metadata.labels.unwrap()[super::SCHEMA_VERSION_LABEL], SCHEMA_VERSION);
        let stored: Vec<_> = definition.spec.versions.iter().filter(|v| v.storage).map(|v| v.name.as_str()).collect();
        assert_eq!(stored, ["v2"]);
        assert!(definition.spec.names.categories.unwrap().contains(&"cilium".to_owned()));
    }
}
