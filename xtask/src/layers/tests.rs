// SPDX-License-Identifier: Apache-2.0
//! For each rule, a workspace that keeps it and one that breaks it.

use super::{BEGIN, END, Manifests, breaches, dependency_names, diagram, replace_diagram};

fn workspace(members: &[(&str, &[&str])]) -> Manifests {
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    members.iter().map(|(name, dependencies)| (name.to_string(), set(dependencies))).collect()
}

#[test]
fn lower_layers_and_fenced_libraries_inside_their_fence_are_fine() {
    let manifests = workspace(&[
        ("abi", &["aya"]),
        ("statedb", &["tokio"]),
        ("model", &["statedb", "serde"]),
        ("k8s", &["model", "statedb", "kube", "k8s-openapi"]),
        ("datapath", &["abi", "aya", "rtnetlink", "netlink-packet-route"]),
        ("policy", &["abi", "statedb", "model", "k8s", "datapath"]),
        ("agent", &["policy", "k8s", "anyhow"]),
        ("cilium", &["agent", "lab", "anyhow"]),
        ("lab", &["anyhow"]),
        ("xtask", &["anyhow"]),
    ]);
    assert_eq!(breaches(&manifests), Vec::<String>::new());
}

#[test]
fn features_do_not_depend_on_each_other() {
    let manifests = workspace(&[("policy", &["services"]), ("services", &[])]);
    assert_eq!(breaches(&manifests), ["policy (L4) depends sideways on services (L4)"]);
}

#[test]
fn edges_do_not_depend_on_each_other() {
    let manifests = workspace(&[("datapath", &[]), ("k8s", &["datapath"])]);
    assert_eq!(breaches(&manifests), ["k8s (L2) depends sideways on datapath (L2)"]);
}

#[test]
fn nothing_depends_upwards() {
    let manifests = workspace(&[("model", &["policy"]), ("policy", &[])]);
    assert_eq!(breaches(&manifests), ["model (L1) depends upwards on policy (L4)"]);
}

#[test]
fn what_stands_outside_uses_only_what_it_may_and_only_the_binary_uses_the_lab() {
    let manifests = workspace(&[
        ("agent", &["lab"]),
        ("bench", &["datapath"]),
        ("datapath", &[]),
        ("lab", &["model"]),
        ("model", &[]),
    ]);
    assert_eq!(
        breaches(&manifests),
        [
            "agent depends on lab, which stands outside the layers",
            "lab depends on model; it stands outside and may use []"
        ]
    );
}

#[test]
fn fenced_libraries_stay_where_they_belong() {
    let manifests = workspace(&[
        ("node", &["rtnetlink", "netlink-sys", "aya-obj"]),
        ("policy", &["kube", "kube-runtime", "k8s-openapi", "aya"]),
        ("services", &["anyhow"]),
    ]);
    let faults = breaches(&manifests);
    assert_eq!(faults.len(), 8, "{faults:?}");
    assert!(faults.contains(&"policy depends on kube, which only k8s may".to_string()));
    assert!(faults.contains(&"node depends on netlink-sys, which only datapath may".to_string()));
}

#[test]
fn tests_may_use_what_is_made_for_them_and_products_may_not() {
    let package = serde_json::json!({"dependencies": [
        {"name": "model", "kind": null}, {"name": "frames", "kind": "dev"}, {"name": "statedb", "kind": "dev"},
    ]});
    assert_eq!(dependency_names(&package).collect::<Vec<_>>(), ["model", "statedb"]);
    let faults = breaches(&workspace(&[("datapath", &["frames"]), ("frames", &[])]));
    assert_eq!(faults, ["datapath depends on frames, which stands outside the layers"]);
}

#[test]
fn a_crate_without_a_layer_is_named() {
    let faults = breaches(&workspace(&[("utils", &[])]));
    assert_eq!(faults, ["utils has no layer: give it one in xtask/src/layers.rs"]);
}

#[test]
fn the_diagram_goes_from_top_to_bottom_and_shows_what_is_used() {
    let manifests = workspace(&[
        ("cilium", &["agent", "tokio"]),
        ("agent", &["statedb", "policy", "model"]),
        ("policy", &["statedb", "model"]),
        ("model", &["statedb"]),
        ("statedb", &[]),
        ("lab", &[]),
    ]);
    let expected = "\
L6  cilium     ─► agent
L5  agent      ─► policy model statedb
L4  policy     ─► model statedb
L1  model      ─► statedb
L0  statedb
--  lab
";
    assert_eq!(diagram(&manifests), expected);
}

#[test]
fn the_diagram_is_replaced_between_its_marks_only() {
    let document = format!("before\n{BEGIN}old\n{END}\nafter\n");
    assert_eq!(replace_diagram(&document, "new\n").unwrap(), format!("before\n{BEGIN}new\n{END}\nafter\n"));
    assert!(replace_diagram("no marks", "new\n").is_err());
}
