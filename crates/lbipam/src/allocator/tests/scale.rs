// SPDX-License-Identifier: Apache-2.0
//! The cost of changes in a large cluster, in Services examined and written.

use super::cluster::{Cluster, service};
use serde_json::json;

const SERVICES: usize = 10_000;
const POOLS: usize = 1_000;

/// Each pool serves one namespace and is one address short.
fn large() -> Cluster {
    let mut cluster = Cluster::default();
    for n in 0..POOLS {
        let [start, stop] = [0, 8].map(|last| format!("10.{}.{}.{last}", n / 250, n % 250));
        let selector = json!({"matchLabels": {"io.kubernetes.service.namespace": format!("n{n}")}});
        let block = json!({"start": start, "stop": stop});
        cluster.pool(&format!("p{n}"), json!({"blocks": [block], "serviceSelector": selector}));
    }
    for n in 0..SERVICES {
        cluster.service(&format!("n{}/s{}", n % POOLS, n / POOLS), service());
    }
    cluster
}

#[test]
fn a_change_costs_what_it_bears_on_and_not_what_there_is() {
    let mut cluster = large();
    assert_eq!(cluster.run(), SERVICES);
    // Once to decide, and once when the write comes back.
    assert_eq!(cluster.considered, 2 * SERVICES);
    let waiting = (0..POOLS).filter(|n| cluster.said(&format!("n{n}/s9")).1 == "out_of_ips").count();
    assert_eq!(waiting, POOLS);

    let mut cost = |change: &dyn Fn(&mut Cluster)| {
        cluster.considered = 0;
        change(&mut cluster);
        (cluster.run(), cluster.considered)
    };
    assert_eq!(cost(&|cluster| cluster.edit("n7/s3", |s| s.labels(json!({"a": "b"})))), (0, 1));
    // Those waiting are asked in turn until the address is taken.
    let (written, considered) = cost(&|cluster| cluster.remove_service("n0/s0"));
    assert!(written == 1 && considered <= 3, "{written} written, {considered} looked at");
    assert_eq!(cost(&|cluster| cluster.service("n0/new", service())), (1, 2));
}
