// SPDX-License-Identifier: Apache-2.0

use super::*;
use serde_json::json;

#[test]
fn fields_that_are_missing_or_unknown_do_not_matter() {
    let bare: Object<GatewaySpec> = serde_json::from_value(json!({"metadata": {"name": "g"}})).unwrap();
    assert_eq!(bare.spec, GatewaySpec::default());
    let later = json!({
        "metadata": {"name": "g"},
        "spec": {"listeners": [{"name": "quic", "port": 443, "protocol": "HTTP/3", "hurry": true}], "mood": {"good": 1}},
        "status": {"conditions": [{"type": "Happy", "status": "Maybe"}]},
    });
    let later: Object<GatewaySpec> = serde_json::from_value(later).unwrap();
    assert_eq!(later.spec.listeners[0].protocol, "HTTP/3");
    assert_eq!(later.status.unwrap().conditions[0].status, "Maybe");
}

#[test]
fn features_are_read_as_names_and_as_objects() {
    let status = json!({"supportedFeatures": ["HTTPRoute", {"name": "GRPCRoute"}]});
    let status: GatewayClassStatus = serde_json::from_value(status).unwrap();
    let names: Vec<_> = status.supported_features.iter().map(|feature| feature.name.as_str()).collect();
    assert_eq!(names, ["HTTPRoute", "GRPCRoute"]);
}

#[test]
fn a_parent_is_told_again_as_the_route_told_it() {
    let parent = json!({"group": "", "kind": "Service", "name": "s", "port": 80});
    let read: ParentReference = serde_json::from_value(parent.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), parent);
}
