// SPDX-License-Identifier: Apache-2.0
use super::frame::{LONGEST, write};
use super::{Exchanges, Fault, FromProxy, LinkError, Published, Reports, State, Status, Updates, accept, greet};
use crate::{Certificate, Exchange, Key, Kind, Object, Outcome, Snapshot, Version};
use std::sync::Arc;
use tokio::io::{AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::watch;

fn certificate(name: &str, chain: &str) -> Object {
    Certificate { name: name.into(), chain: chain.into(), key: "k".into() }.into()
}

fn published(version: u64, objects: impl IntoIterator<Item = Object>) -> Published {
    Published { version: Version(version), snapshot: Arc::new(objects.into_iter().collect()) }
}

struct World {
    agent: watch::Sender<Published>,
    state: watch::Receiver<State>,
    proxy: DuplexStream,
    result: tokio::task::JoinHandle<Result<(), LinkError>>,
}

fn world(first: Published) -> World {
    let (agent, snapshots) = watch::channel(first);
    let (sender, state) = watch::channel(State::default());
    let (proxy, other) = duplex(1 << 20);
    let result = tokio::spawn(async move { accept(other).await?.publish(snapshots, &sender).await });
    World { agent, state, proxy, result }
}

type Proxy = (Updates<BufReader<ReadHalf<DuplexStream>>>, Reports<WriteHalf<DuplexStream>>);

async fn connect(stream: DuplexStream) -> Proxy {
    let (reader, writer) = split(stream);
    greet(BufReader::new(reader), writer, "kube-system/cilium-envoy-x").await.unwrap()
}

#[tokio::test]
async fn everything_comes_first_and_changes_from_then_on() {
    let mut world = world(published(7, [certificate("a", "1"), certificate("b", "1")]));
    let (mut updates, mut reports) = connect(world.proxy).await;
    let first = updates.next().await.unwrap();
    assert!(first.complete);
    let mut has = Snapshot::default();
    has.apply(first.update);
    reports.send(Status { version: Version(7), faults: Vec::new() }).await.unwrap();
    let told = world.state.wait_for(|state| state.status.is_some()).await.unwrap().clone();
    assert_eq!((told.status.unwrap().version, &*told.snapshot), (Version(7), &has));

    let newer = published(8, [certificate("b", "2")]);
    world.agent.send_replace(newer.clone());
    let second = updates.next().await.unwrap();
    assert!(!second.complete);
    assert_eq!((second.update.set.len(), second.update.remove.len()), (1, 1));
    has.apply(second.update);
    assert_eq!(has, *newer.snapshot);
}

#[tokio::test]
async fn what_changes_while_an_update_is_under_way_is_one_update() {
    let mut world = world(published(1, []));
    let (mut updates, mut reports) = connect(world.proxy).await;
    assert_eq!(updates.next().await.unwrap().version, Version(1));
    for version in 2..100 {
        world.agent.send_replace(published(version, [certificate("a", &version.to_string())]));
    }
    reports.send(Status { version: Version(1), faults: Vec::new() }).await.unwrap();
    world.state.wait_for(|state| state.status.is_some()).await.unwrap();
    assert_eq!(updates.next().await.unwrap().version, Version(99));
}

#[tokio::test]
async fn faults_reach_the_agent_also_when_they_change_later() {
    let mut world = world(published(1, [certificate("a", "bad")]));
    let (mut updates, mut reports) = connect(world.proxy).await;
    updates.next().await.unwrap();
    let fault = Fault {
        object: Key { kind: Kind::Certificate, name: "a".into() },
        reason: "no certificate".into(),
        partial: false,
    };
    for faults in [vec![fault], Vec::new()] {
        let status = Status { version: Version(1), faults };
        reports.send(status.clone()).await.unwrap();
        world.state.wait_for(|seen| seen.status.as_ref() == Some(&status)).await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_says_which_pod_it_is_and_when_it_leaves() {
    let (agent, snapshots) = watch::channel(published(1, []));
    let (sender, mut state) = watch::channel(State::default());
    let (proxy, other) = duplex(1 << 16);
    let (link, (mut updates, mut reports)) = tokio::join!(accept(other), connect(proxy));
    let link = link.unwrap();
    assert_eq!(link.pod(), "kube-system/cilium-envoy-x");
    let serving = tokio::spawn(async move { link.publish(snapshots, &sender).await });
    updates.next().await.unwrap();
    reports.send(Status { version: Version(1), faults: Vec::new() }).await.unwrap();
    reports.leave().await.unwrap();
    assert!(state.wait_for(|state| state.leaving).await.unwrap().status.is_some());
    // Until it ends, it goes on.
    agent.send_replace(published(2, [certificate("a", "1")]));
    assert_eq!(updates.next().await.unwrap().version, Version(2));
    drop((updates, reports));
    assert!(serving.await.unwrap().is_err());
}

#[tokio::test]
async fn a_build_that_speaks_no_common_version_is_told_so() {
    let World { mut proxy, result, .. } = world(published(1, []));
    write(&mut proxy, &FromProxy::Hello { oldest: 99, newest: 100, pod: String::new() }).await.unwrap();
    let error = result.await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::NoCommonVersion { oldest: 99, newest: 100 }), "{error}");
}

#[tokio::test]
async fn a_newer_build_is_answered_in_the_version_that_both_speak() {
    let World { mut proxy, .. } = world(published(1, []));
    write(&mut proxy, &FromProxy::Hello { oldest: 1, newest: 100, pod: String::new() }).await.unwrap();
    let super::ToProxy::Hello { protocol } = super::frame::read(&mut proxy).await.unwrap() else { panic!() };
    assert_eq!(protocol, 1);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_answer_is_given_up() {
    let world = world(published(1, []));
    let _silent = connect(world.proxy).await;
    assert!(matches!(world.result.await.unwrap(), Err(LinkError::NoStatus)));
}

#[tokio::test]
async fn a_frame_longer_than_allowed_ends_the_link_before_it_is_read() {
    let World { mut proxy, result, .. } = world(published(1, []));
    proxy.write_u32(LONGEST + 1).await.unwrap();
    assert!(matches!(result.await.unwrap(), Err(LinkError::TooLong { .. })));
}

#[tokio::test]
async fn an_update_that_is_cut_off_is_not_seen() {
    let (mut agent, proxy) = duplex(1 << 16);
    let send = async {
        write(&mut agent, &super::ToProxy::Hello { protocol: 1 }).await.unwrap();
        write(&mut agent, &super::ToProxy::Begin { version: Version(1), complete: true }).await.unwrap();
        write(&mut agent, &super::ToProxy::Set(certificate("a", "1"))).await.unwrap();
        agent.shutdown().await.unwrap();
    };
    let ((mut updates, _reports), ()) = tokio::join!(connect(proxy), send);
    assert!(matches!(updates.next().await, Err(LinkError::Io(_))));
}

#[tokio::test]
async fn requests_are_told_of_as_they_were_also_to_an_agent_that_knows_less_of_them() {
    let exchange = Exchange {
        time: 1_700_000_000_000_000_000,
        latency: u64::MAX,
        client: "[fd00::1]:40000".parse().unwrap(),
        server: "10.0.0.1:80".parse().unwrap(),
        identity: 7,
        cluster: Some("shop/cart:80".into()),
        method: "GET".into(),
        url: "http://h/\u{1b}\"é".into(),
        headers: vec![("a".into(), "b".into())],
        status: 200,
        outcome: Outcome::Forwarded,
        ..Exchange::default()
    };
    let told = Exchanges { lost: 3, exchanges: vec![exchange, Exchange::default()] };
    let (mut proxy, agent) = duplex(1 << 16);
    told.tell(&mut proxy).await.unwrap();
    write(&mut proxy, &serde_json::json!({"exchanges": [{"of another build": 1}], "more": []})).await.unwrap();
    let mut agent = BufReader::new(agent);
    assert_eq!(Exchanges::hear(&mut agent).await.unwrap(), told);
    let other = Exchanges { lost: 0, exchanges: vec![Exchange::default()] };
    assert_eq!(Exchanges::hear(&mut agent).await.unwrap(), other);
    proxy.write_u32(17 << 20).await.unwrap();
    assert!(matches!(Exchanges::hear(&mut agent).await, Err(LinkError::TooLong { .. })));
}
