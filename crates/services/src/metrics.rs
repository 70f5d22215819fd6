// SPDX-License-Identifier: Apache-2.0
//! Every metric of this feature: `services_events_total` and `service_implementation_delay`.

use model::Frontend;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use statedb::{Change, Reader, Row, StatusReader};
use tokio::time::Instant;

/// The metrics; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    events: Counter,
    delay: Family<Action, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Action {
    action: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { events: Counter::default(), delay: Family::new_with_constructor(seconds) }
    }
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0])
}

impl Metrics {
    /// Makes them known to a registry; its prefix comes before their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("services_events", "Changes of Services and EndpointSlices", self.events.clone());
        registry.register(
            "service_implementation_delay",
            "Seconds from a change of a Service or its endpoints to the kernel's maps",
            self.delay.clone(),
        );
    }

    /// Makes a sample of each, without which one with labels is not on the page. The reference is made of such a page.
    pub fn sample(&self) {
        let Self { events: _, delay } = self;
        drop(delay.get_or_create(&Action { action: "upsert" }));
    }

    /// Counts the changes of a source table.
    pub(crate) async fn count<R: Row>(self, source: Reader<R>) {
        let mut changes = source.subscribe();
        loop {
            let count = changes.next().await.changes.len();
            self.events.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// Measures how long a commit takes into the maps. What comes while one is waited for is measured together, from when it
    /// is seen.
    pub(crate) async fn measure(self, frontends: Reader<Frontend>, status: StatusReader<Frontend>) {
        let mut changes = frontends.subscribe();
        loop {
            let batch = changes.next().await;
            if batch.changes.is_empty() {
                continue;
            }
            let since = Instant::now();
            let upserted = batch.changes.iter().any(|change| matches!(change, Change::Upsert(_)));
            status.reached(batch.revision).await;
            let action = Action { action: if upserted { "upsert" } else { "delete" } };
            self.delay.get_or_create(&action).observe(since.elapsed().as_secs_f64());
        }
    }
}
