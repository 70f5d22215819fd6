// SPDX-License-Identifier: Apache-2.0
//! The metrics of this feature, under Cilium's names, read from the tables.

use model::{Endpoint, EndpointPolicy};
use prometheus_client::registry::Registry;
use statedb::Reader;
use surface::{Families, Family};

/// Registers the metrics. An endpoint is ready once it has a policy.
pub fn register_metrics(endpoints: Reader<Endpoint>, policies: Reader<EndpointPolicy>, registry: &mut Registry) {
    registry.register_collector(Families::read(move || {
        let (all, ready) = (endpoints.snapshot().len() as u64, policies.snapshot().len() as u64);
        vec![
            Family::gauge("endpoint", "Pods of this node").with(&[], all),
            Family::gauge("endpoint_state", "Pods of this node by state")
                .with(&[("state", "ready")], ready.min(all))
                .with(&[("state", "waiting-for-identity")], all.saturating_sub(ready)),
        ]
    }));
}
