// SPDX-License-Identifier: Apache-2.0
//! The health endpoint in network namespaces of the test. Needs root.

use super::*;
use crate::testing::agent::Setup;
use crate::testing::local_node;
use crate::testing::node::{Node as Host, Serving, block_on, on_a_node};
use futures::FutureExt as _;
use model::IdentityId;
use statedb::Writer;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|ip| ip.parse().unwrap()).collect()
}

/// This node as its CiliumNode has it, with these addresses of the health endpoint.
fn nodes(published: &[&str]) -> Writer<Node> {
    let (mut writer, _) = statedb::table("nodes");
    writer.insert(Node {
        name: "node".into(),
        cluster: "default".into(),
        internal_ips: Vec::new(),
        external_ips: Vec::new(),
        cilium_internal_ips: Vec::new(),
        health_ips: ips(published),
        pod_cidrs: Vec::new(),
        labels: Default::default(),
        identity: IdentityId(6),
        local: true,
    });
    writer.mark_initialized();
    writer
}

fn serve(host: &Host, published: &[&str], change: impl FnOnce(&mut Setup)) -> Serving {
    let mut setup = Setup::new(host.runtime());
    setup.nodes = Some(nodes(published).reader());
    change(&mut setup);
    host.serve(setup)
}

fn present(serving: &Serving) -> Option<HealthEndpoint> {
    serving.agent.health.borrow().as_ref().ok().cloned()
}

fn made(host: &Host, serving: &Serving) -> HealthEndpoint {
    host.until(|| present(serving).is_some());
    present(serving).unwrap()
}

#[test]
fn the_host_reaches_it_over_both_families() {
    on_a_node(|host| {
        let serving = serve(&host, &[], |_| {});
        let endpoint = made(&host, &serving);
        assert_eq!(endpoint.addresses.len(), 2);
        assert_eq!(host.interfaces(), [INTERFACE]);
        for ip in endpoint.addresses {
            let listener = datapath::netns::run(endpoint.netns.as_fd(), || TcpListener::bind((ip, 4240)).unwrap());
            let mut client = TcpStream::connect_timeout(&SocketAddr::new(ip, 4240), Duration::from_secs(5)).unwrap();
            listener.unwrap().accept().unwrap().0.write_all(b"here").unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "here");
        }
        let row = serving.agent.endpoints.snapshot().iter().next().unwrap().clone();
        assert_eq!((row.pod(), row.owner()), (None, "health".to_owned()));
        assert!(serving.agent.pool.taken.lock().values().all(|owner| owner == "health"));
    });
}

#[test]
fn the_next_agent_makes_it_anew_with_the_addresses_that_others_know() {
    on_a_node(|host| {
        let first = serve(&host, &["10.0.0.77", "fd00::77"], |_| {});
        assert_eq!(made(&host, &first).addresses, ips(&["10.0.0.77", "fd00::77"]));
        drop(first);
        let second = serve(&host, &["10.0.0.77", "fd00::77"], |_| {});
        assert_eq!(made(&host, &second).addresses, ips(&["10.0.0.77", "fd00::77"]));
        assert_eq!(second.agent.endpoints.snapshot().iter().count(), 1, "it is not restored from disk");
        assert_eq!(host.interfaces(), [INTERFACE]);
    });
}

#[test]
fn it_stays_while_nothing_of_the_node_that_concerns_it_changes() {
    on_a_node(|host| {
        let serving = serve(&host, &[], |_| {});
        made(&host, &serving);
        let id = serving.agent.endpoints.snapshot().iter().next().unwrap().id;
        let keeper = Keeper {
            manager: Arc::clone(&serving.agent.manager),
            node: serving.agent.local_node.reader(),
            nodes: nodes(&[]).reader(),
            state: watch::channel(Err(String::new())).0,
        };
        let plan = Plan::new(&local_node(), keeper.families());
        // Which of the two tables is looked at first is up to chance.
        for _ in 0..32 {
            assert_eq!(keeper.until_stale(id, &plan).now_or_never(), None);
        }
        assert_eq!(keeper.until_stale(EndpointId(id.0 + 1), &plan).now_or_never(), Some(()));
        let other = Plan { mtu: plan.mtu + 1, ..plan };
        assert_eq!(keeper.until_stale(id, &other).now_or_never(), Some(()));
    });
}

#[test]
fn a_published_address_that_is_no_longer_ours_is_not_used() {
    on_a_node(|host| {
        let elsewhere = serve(&host, &["10.9.0.77", "fd09::77"], |_| {});
        let addresses = made(&host, &elsewhere).addresses;
        assert!(addresses.iter().all(|ip| local_node().pod_cidrs.iter().any(|prefix| prefix.contains(ip))));
        drop(elsewhere);
        let taken = serve(&host, &["10.0.0.1", "fd00::1"], |setup| {
            setup.pool.taken.lock().insert(ips(&["10.0.0.1"])[0], "shop/web".into());
        });
        let addresses = made(&host, &taken).addresses;
        assert_eq!((addresses[0] == ips(&["10.0.0.1"])[0], addresses[1]), (false, ips(&["fd00::1"])[0]));
    });
}

#[test]
fn without_a_free_address_it_says_so_and_comes_when_there_is_one() {
    on_a_node(|host| {
        let serving = serve(&host, &[], |setup| {
            setup.pool.size = 1;
            setup.pool.taken.lock().insert(ips(&["10.0.0.1"])[0], "shop/web".into());
        });
        let says_why = |serving: &Serving| matches!(&*serving.agent.health.borrow(), Err(why) if why.starts_with("no address is free"));
        host.until(|| says_why(&serving));
        assert!(host.interfaces().is_empty());
        serving.agent.pool.taken.lock().clear();
        assert_eq!(made(&host, &serving).addresses, ips(&["10.0.0.1", "fd00::1"]));
    });
}

#[test]
fn it_comes_back_when_its_interface_is_taken_away() {
    on_a_node(|host| {
        let serving = serve(&host, &[], |_| {});
        made(&host, &serving);
        let row = || serving.agent.endpoints.snapshot().iter().next().cloned();
        let first = row().unwrap();
        block_on(async {
            use tower::ServiceExt as _;
            let delete = axum::http::Request::delete(format!("/v1/endpoint/{}", first.id));
            let delete = delete.body(axum::body::Body::empty()).unwrap();
            assert!(serving.agent.router.clone().oneshot(delete).await.unwrap().status().is_success());
        });
        let anew = || row().is_some_and(|now| now.host_ifindex != first.host_ifindex);
        host.until(|| anew() && present(&serving).is_some());
    });
}
