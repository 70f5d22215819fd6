// SPDX-License-Identifier: Apache-2.0
//! Metrics read from tables and maps on demand.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;

/// A metric with all its samples.
#[derive(Clone, Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, u64)>,
    counter: bool,
}

impl Family {
    /// A gauge without samples.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, samples: Vec::new(), counter: false }
    }

    /// A counter without samples; `_total` is appended to its name.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self { counter: true, ..Self::gauge(name, help) }
    }

    /// Adds a sample.
    #[must_use]
    pub fn with(mut self, labels: &[(&'static str, &str)], value: u64) -> Self {
        self.push(labels, value);
        self
    }

    /// Adds a sample.
    pub fn push(&mut self, labels: &[(&'static str, &str)], value: u64) {
        self.samples.push((labels.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(), value));
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new(0i64);
        let counter = ConstCounter::new(0u64);
        let kind = if self.counter { counter.metric_type() } else { gauge.metric_type() };
        let mut descriptor = encoder.encode_descriptor(self.name, self.help, None::<&Unit>, kind)?;
        for (labels, value) in &self.samples {
            let family = descriptor.encode_family(labels)?;
            if self.counter {
                ConstCounter::new(*value).encode(family)?;
            } else {
                ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX)).encode(family)?;
            }
        }
        Ok(())
    }
}

/// A collector that calls a function: `registry.register_collector(Families::read(|| vec![...]))`.
pub struct Families<F>(F);

impl<F: Fn() -> Vec<Family> + Send + Sync + 'static> Families<F> {
    /// Calls `read` for each scrape.
    #[must_use]
    pub fn read(read: F) -> Box<Self> {
        Box::new(Self(read))
    }
}

impl<F: Fn() -> Vec<Family> + Send + Sync + 'static> Collector for Families<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)().iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

impl<F> fmt::Debug for Families<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Families")
    }
}
