// SPDX-License-Identifier: Apache-2.0
use super::{Checkout, ConnectError, Speak, Upstream};
use crate::proxy_protocol::Peer;
use l7::{BackendProtocol, Cluster, Endpoint, Endpoints};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

fn upstream(address: SocketAddr) -> Upstream {
    let cluster = Cluster {
        name: "c".into(),
        protocol: BackendProtocol::Http2,
        tls: None,
        proxy_protocol: None,
        limits: l7::ClusterLimits::default(),
        refuse: None,
    };
    let endpoint = Endpoint { address, state: Default::default(), zone: None, identity: 0 };
    let endpoints = Endpoints { cluster: "c".into(), prefer_zone: None, endpoints: vec![endpoint] };
    Upstream::new(Arc::new(cluster), None, None).with(Some(&endpoints), 1)
}

#[tokio::test]
async fn an_endpoint_that_could_not_be_reached_is_tried_by_the_next_who_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint = upstream(address).choose(&[]).unwrap();
    let peer = Peer { client: address, local: address };
    let error = Checkout::new(&endpoint, Speak::Http2, peer).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io(_)), "{error}");
    endpoint.unreached(&error);
    assert!(!endpoint.healthy());
    let _listener = TcpListener::bind(address).await.unwrap();
    assert!(Checkout::new(&endpoint, Speak::Http2, peer).await.is_ok());
}

#[tokio::test]
async fn those_who_wait_for_a_connection_that_fails_do_not_each_try_for_themselves() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    drop(silent);
    let endpoint = upstream(address).choose(&[]).unwrap();
    let peer = Peer { client: address, local: address };
    let ask = || async {
        let error = Checkout::new(&endpoint, Speak::Http2, peer).await.unwrap_err();
        endpoint.unreached(&error);
        matches!(error, ConnectError::JustFailed)
    };
    assert_eq!(tokio::join!(ask(), ask(), ask()), (false, true, true));
}

#[tokio::test]
async fn what_says_nothing_of_an_endpoint_leaves_it_as_it_is() {
    let endpoint = upstream("127.0.0.1:1".parse().unwrap()).choose(&[]).unwrap();
    for error in [ConnectError::JustFailed, ConnectError::NotHttp2, ConnectError::Limit] {
        endpoint.unreached(&error);
        assert!(endpoint.healthy(), "{error}");
    }
    endpoint.unreached(&ConnectError::TimedOut);
    assert!(!endpoint.healthy());
}
