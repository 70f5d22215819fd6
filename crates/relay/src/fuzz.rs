// SPDX-License-Identifier: Apache-2.0
//! Every call of the relay, off the wire, while it knows no node. Not part of the product.

#![allow(clippy::expect_used, reason = "a wrong answer is to be loud")]

use crate::config::Config;
use crate::observer::Relay;
use crate::pool::Pool;
use hubble::fuzz::Served;
use hubble::proto::observer::observer_server::{self, ObserverServer};
use hubble::server::with_reflection;
use std::sync::LazyLock;
use tonic::service::Routes;

/// A call that the bytes say ([`hubble::fuzz`]).
pub fn call(data: &[u8]) {
    static RELAY: LazyLock<Served> = LazyLock::new(|| {
        Served::new(async || {
            let config = Config::load(["hubble-relay".into()]).expect("a configuration");
            let relay = Relay::new(&config, Pool::new(&config).nodes());
            let routes = Routes::new(tonic_health::server::health_reporter().1).add_service(ObserverServer::new(relay));
            with_reflection(routes, &[observer_server::SERVICE_NAME])
        })
    });
    RELAY.call(data);
}
