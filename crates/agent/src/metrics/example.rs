// SPDX-License-Identifier: Apache-2.0
//! The metrics of an agent without kernel or cluster, with a sample of each. The reference is generated from it, by the
//! same collectors as a real page, so the two cannot diverge.

use super::{packets, reconcilers};
use crate::flow_table;
use abi::{DropReason, metrics::MetricsValue, metrics::slot};
use datapath::fake::Kernel;
use ipam::PoolUsage;
use ipnet::{IpNet, Ipv4Net};
use statedb::{Reader, Row};
use std::net::Ipv4Addr;
use std::sync::Arc;
use surface::Surface;

/// The page.
///
/// # Errors
///
/// Unreachable in a build whose tests pass.
pub fn example_metrics() -> datapath::Result<String> {
    let counters = Kernel::new().per_cpu()?;
    let one = MetricsValue { packets: 1, bytes: 1 };
    for reason in [0, DropReason::PolicyDenied.code()] {
        counters.insert(&slot(reason, abi::policy::INGRESS), &one)?;
    }
    let pool = PoolUsage { prefix: IpNet::V4(Ipv4Net::from(Ipv4Addr::LOCALHOST)), capacity: 1, used: 0 };
    let (policy, services, health) =
        (policy::Metrics::default(), services::Metrics::default(), health::Metrics::default());
    policy.sample();
    services.sample();
    health.sample();
    let mut page = Surface::new().metrics(|registry| {
        policy.register(registry);
        services.register(registry);
        health.register(registry);
        hubble::Chatter::default().register(registry);
        hubble::CertificateEnd::default().register(registry);
        hubble::CollectorCounts::default().register(registry);
        endpoint::register_metrics(table([]), table([]), registry);
        ipam::register_metrics(table([pool]), registry);
    });
    page.add(packets(counters));
    page.add(flow_table::metrics(Arc::default(), 0));
    page.add(reconcilers(Surface::new()));
    Ok(page.metrics_page())
}

fn table<R: Row>(rows: impl IntoIterator<Item = R>) -> Reader<R> {
    let (mut writer, reader) = statedb::table("example");
    writer.replace(rows);
    writer.commit();
    reader
}

#[cfg(test)]
mod tests {
    #[test]
    fn metrics_have_the_names_and_labels_that_dashboards_ask_for() {
        let page = super::example_metrics().unwrap();
        for line in [
            "cilium_drop_count_total{reason=\"Policy denied\",direction=\"INGRESS\"} 1",
            "cilium_forward_count_total{direction=\"INGRESS\"} 1",
            "cilium_identity{type=\"reserved\"} 0",
            "cilium_ipam_capacity{family=\"ipv4\"} 1",
            "cilium_services_events_total 0",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
    }
}
