// SPDX-License-Identifier: Apache-2.0
//! Schema of the conditions that the API conventions describe (`metav1.Condition`).

use super::schema::{self, Schema, date_time, int64, object, one_of, string};
use schemars::SchemaGenerator;
use serde_json::json;

const REASON: &str = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";
const TYPE: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

/// A list with at most one of each type.
pub(crate) fn list(_: &mut SchemaGenerator) -> schemars::Schema {
    let keys = json!(["type"]);
    schema::list(condition()).with("x-kubernetes-list-map-keys", keys).with("x-kubernetes-list-type", "map").into()
}

fn condition() -> Schema {
    object([
        ("lastTransitionTime", date_time()),
        ("message", string().max_length(32768)),
        ("observedGeneration", int64().with("minimum", 0)),
        ("reason", string().not_empty().max_length(1024).pattern(REASON)),
        ("status", one_of(["True", "False", "Unknown"])),
        ("type", string().max_length(316).pattern(TYPE)),
    ])
    .required(["lastTransitionTime", "message", "reason", "status", "type"])
}
