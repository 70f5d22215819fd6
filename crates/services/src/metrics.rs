// SPDX-License-Identifier: Apache-2.0
//! Every metric of this feature (contracts J): `services_events_total` and `service_implementation_delay`.

use model::Frontend;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use statedb::{Revision, StatusReader, Tasks};
use tokio::sync::mpsc;
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

    pub(crate) fn events(&self, count: usize) {
        self.events.inc_by(count as u64);
    }
}

/// Measures how long a commit takes into the maps.
#[derive(Debug)]
pub(crate) struct Delay {
    sender: mpsc::Sender<(Revision, &'static str, Instant)>,
}

impl Delay {
    /// Commits that nobody has had time to wait for; further ones are not measured.
    const BACKLOG: usize = 256;

    pub(crate) fn start(metrics: &Metrics, status: StatusReader<Frontend>, tasks: &Tasks) -> Self {
        let (sender, mut receiver) = mpsc::channel(Self::BACKLOG);
        let family = metrics.delay.clone();
        tasks.spawn("services-delay", async move {
            while let Some((revision, action, since)) = receiver.recv().await {
                status.reached(revision).await;
                family.get_or_create(&Action { action }).observe(Instant::elapsed(&since).as_secs_f64());
            }
        });
        Self { sender }
    }

    /// A change has been committed just now.
    pub(crate) fn expect(&self, revision: Revision, upserted: bool) {
        let action = if upserted { "upsert" } else { "delete" };
        // A full channel only means that this one is not measured.
        let _ = self.sender.try_send((revision, action, Instant::now()));
    }
}
