// SPDX-License-Identifier: Apache-2.0
//! Objects in which everything is honoured, and what becomes of them with something else in each of their places.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::listener::Served;
use super::{EnvoyConfig, ingest_envoy_config};
use serde_json::{Value, json};

/// Parts of it that are left out, or of which nothing but that they are there is read.
const UNREAD: [&str; 3] = ["google_re2", "outlier_detection", "http2_protocol_options"];

/// One of requests and one of connections.
fn objects() -> Vec<Value> {
    let documents = include_str!("../../tests/golden/envoy.yaml").split("\n---\n");
    let objects = documents.map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    let whole = ["canary", "books"];
    let is_whole = |object: &Value| {
        object["kind"] == "CiliumEnvoyConfig" && whole.iter().any(|name| object["metadata"]["name"] == *name)
    };
    let objects: Vec<_> = objects.filter(is_whole).collect();
    assert_eq!(objects.len(), whole.len());
    objects
}

fn ingest(object: &Value) -> EnvoyConfig {
    ingest_envoy_config(&serde_json::from_value(object.clone()).unwrap()).unwrap()
}

/// Every place in a value, and whether there is an object.
fn places(value: &Value, at: &str, found: &mut Vec<(String, bool)>) {
    found.push((at.to_owned(), value.is_object()));
    match value {
        Value::Object(fields) => {
            // In a pointer, a tilde and a slash are written otherwise.
            let name = |name: &str| name.replace('~', "~0").replace('/', "~1");
            fields.iter().for_each(|(field, value)| places(value, &format!("{at}/{}", name(field)), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(number, value)| places(value, &format!("{at}/{number}"), found));
        }
        _ => {}
    }
}

fn resources(object: &Value) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for number in 0..object["spec"]["resources"].as_array().unwrap().len() {
        let at = format!("/spec/resources/{number}");
        places(object.pointer(&at).unwrap(), &at, &mut found);
    }
    found
}

fn refuses(config: &EnvoyConfig) -> bool {
    config.listeners.values().all(|served| match served {
        Served::Requests(hosts) => hosts.iter().all(|host| &*host.name == "refused"),
        Served::Connections(connections) => connections.backends.is_empty(),
    })
}

/// Whether it refuses requests that the whole object lets through.
fn refuses_some(config: &EnvoyConfig) -> bool {
    refuses(config) || config.clusters.values().any(|cluster| cluster.is_err())
}

#[test]
fn a_field_that_nobody_knows_refuses_wherever_it_is() {
    let mut passed_over = Vec::new();
    for whole in objects() {
        assert!(!refuses_some(&ingest(&whole)), "{:?}", ingest(&whole).problems);
        let objects = resources(&whole).into_iter().filter(|(_, is_object)| *is_object);
        for (at, _) in objects.filter(|(at, _)| !UNREAD.iter().any(|unread| at.contains(unread))) {
            let mut changed = whole.clone();
            changed.pointer_mut(&at).unwrap()["addedLater"] = json!(true);
            if !refuses_some(&ingest(&changed)) {
                passed_over.push(at);
            }
        }
    }
    assert_eq!(passed_over, [""; 0]);
}

#[test]
fn garbage_anywhere_keeps_the_claim_and_what_is_left_out_is_told() {
    let mut silent = Vec::new();
    for whole in objects() {
        let told = ingest(&whole).problems.len();
        for (at, _) in resources(&whole) {
            for garbage in [json!([[7]]), json!({"a": {"b": []}}), json!(-1.5e300), json!("\u{0}%00(*"), json!(true)] {
                let mut changed = whole.clone();
                *changed.pointer_mut(&at).unwrap() = garbage;
                crate::fuzz::envoy_config(changed["spec"].to_string().as_bytes());
                let config = ingest(&changed);
                assert_eq!((config.claims.len(), config.listeners.len()), (1, 1), "{at}");
                if !refuses_some(&config) && config.problems.len() < told {
                    silent.push(at.clone());
                }
            }
        }
    }
    silent.retain(|at| !UNREAD.iter().any(|unread| at.contains(unread)));
    assert_eq!(silent, [""; 0]);
}
