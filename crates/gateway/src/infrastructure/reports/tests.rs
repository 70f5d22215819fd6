// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use std::collections::BTreeSet;
use tokio_util::sync::CancellationToken;

fn node(name: &str) -> core::Node {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    core::Node { metadata, ..core::Node::default() }
}

fn edition(object: &ParentName, uid: &str) -> Edition {
    Edition { object: object.to_string().into(), uid: uid.into() }
}

fn port(gateway: &str) -> ClosedPort {
    ClosedPort {
        namespace: "shop".into(),
        name: gateway.into(),
        port: 80,
        udp: false,
        reason: "[::]:80: in use".into(),
    }
}

/// What the operator makes of the ConfigMaps of a node, all of which an API server takes.
async fn read(objects: &[core::ConfigMap], node: &str) -> NodeReport {
    let tasks = Tasks::new(CancellationToken::new());
    let (mut writer, reports) = statedb::table("reports");
    for object in objects {
        assert!(object.metadata.name.as_ref().unwrap().len() <= 253);
        let data = object.data.as_ref().unwrap();
        assert!(data.keys().all(|key| key.len() <= 253), "{:?}", data.keys());
        assert!(data.values().map(String::len).sum::<usize>() < 1 << 20);
        writer.insert(ingest_report(object).unwrap());
    }
    writer.mark_initialized();
    let by_node = by_node(&tasks, &reports);
    by_node.initialized().await;
    NodeReport::clone(&*by_node.snapshot().get(node).unwrap())
}

#[tokio::test]
async fn what_an_agent_says_is_what_the_operator_reads_whatever_the_names_are() {
    let long = "n".repeat(253);
    let names = [
        ParentName::gateway(&ObjectName::new("shop", "edge.v2.example")),
        ParentName::listener_set(&ObjectName::new("shop", "edge")),
        ParentName::gateway(&ObjectName::new("shop", "ingress:web")),
        ParentName::gateway(&ObjectName::new("s".repeat(63), long.clone())),
        ParentName::gateway(&ObjectName::new("s".repeat(63), format!("ingress:{long}"))),
        ParentName::gateway(&ObjectName::new("shop", "a_b")),
        ParentName::gateway(&ObjectName::new("shop", "a:b")),
    ];
    let said = names.iter().zip(1..).map(|(name, generation)| (edition(name, "u"), generation));
    let said = InForce { serves: true, generations: said.collect(), closed: BTreeSet::from([port(&long)]) };
    for name in ["here", &"h".repeat(253)] {
        let read = read(&report_objects(&node(name), "cilium-secrets", &said), name).await;
        let state = |(name, generation): (ParentName, i64)| (name, vec![(Some("u".into()), generation)]);
        assert_eq!(read.in_force, names.clone().into_iter().zip(1..).map(state).collect());
        assert_eq!((read.closed, read.serves), (vec![port(&long)], true));
    }
}

#[tokio::test]
async fn what_one_config_map_has_no_room_for_is_in_others_and_what_is_left_of_more_says_nothing() {
    let gateway = |n: usize| ParentName::gateway(&ObjectName::new("shop", format!("{n}-{}", "x".repeat(200))));
    let of = |count: usize| InForce {
        serves: true,
        generations: (0..count).map(|n| (edition(&gateway(n), "u"), 1)).collect(),
        closed: (0..count).map(|n| port(&n.to_string())).collect(),
    };
    let many = report_objects(&node("here"), "cilium-secrets", &of(5_000));
    assert!(many.len() > 4, "{}", many.len());
    let names: BTreeSet<_> = many.iter().map(|object| object.metadata.name.clone()).collect();
    assert_eq!(names.len(), many.len());
    let whole = read(&many, "here").await;
    assert_eq!((whole.in_force.len(), whole.closed.len()), (5_000, 5_000));
    let few = report_objects(&node("here"), "cilium-secrets", &of(1));
    let left = [&few[..], &many[1..]].concat();
    let whole = read(&left, "here").await;
    assert_eq!((whole.in_force.len(), whole.closed.len()), (1, 1));
}

#[tokio::test]
async fn what_older_agents_have_written_is_read() {
    let data = [
        ("Gateway.shop.edge.v2", "3"),
        ("Gateway.shop.ingress_web", "4"),
        ("closed", r#"[{"namespace":"shop","name":"edge","port":80,"udp":false,"reason":"in use"}]"#),
    ];
    let data = data.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let metadata = ObjectMeta { name: Some("cilium-proxy-here".to_owned()), ..ObjectMeta::default() };
    let object = core::ConfigMap { metadata, data: Some(data.into()), ..core::ConfigMap::default() };
    let read = read(&[object], "here").await;
    let gateway = |name: &str| ParentName::gateway(&ObjectName::new("shop", name));
    let wanted = [(gateway("edge.v2"), vec![(None, 3)]), (gateway("ingress:web"), vec![(None, 4)])];
    assert_eq!((read.in_force, read.closed.len(), read.serves), (wanted.into(), 1, true));
}
