// SPDX-License-Identifier: Apache-2.0
//! The series of one metric: so many at most, of so many bytes, and none of pods that are gone.

use super::context::Labels;
use crate::proto::flow::{Endpoint, Flow};
use model::PodName;
use std::collections::HashMap;

/// Bytes that the labels of a metric take at most: pods can have many.
const BYTES: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Series {
    known: HashMap<Labels, Named>,
    bytes: usize,
}

/// The pods that a series is named after.
struct Named {
    pods: Vec<PodName>,
    /// Whether one was gone when that was last looked at.
    stale: bool,
}

impl Series {
    /// Whether the series of a sample is one of these, or can become one where there may be `most`.
    pub(super) fn takes(&mut self, flow: &Flow, labels: &Labels, most: usize) -> bool {
        if self.known.contains_key(labels) {
            return true;
        }
        let bytes = self.bytes + size(labels);
        let room = self.known.len() < most && bytes <= BYTES;
        if room {
            self.bytes = bytes;
            self.known.insert(labels.clone(), Named { pods: pods(flow, labels), stale: false });
        }
        room
    }

    /// Takes out those of pods that were gone the last time too.
    pub(super) fn sweep(&mut self, is_there: impl Fn(&PodName) -> bool) -> Vec<Labels> {
        let mut out = Vec::new();
        self.known.retain(|labels, named| {
            let gone = !named.pods.iter().all(&is_there);
            let dropped = gone && named.stale;
            named.stale = gone;
            if dropped {
                self.bytes -= size(labels);
                out.push(labels.clone());
            }
            !dropped
        });
        out
    }
}

fn size(labels: &Labels) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The pods of a flow that labels name.
fn pods(flow: &Flow, labels: &Labels) -> Vec<PodName> {
    let named = |endpoint: &&Endpoint| {
        let Endpoint { namespace, pod_name, .. } = endpoint;
        let is = |value: &str| value == pod_name || value.split_once('/') == Some((namespace, pod_name));
        !pod_name.is_empty() && labels.iter().any(|(_, value)| is(value))
    };
    let ends = [&flow.source, &flow.destination].into_iter().flatten().filter(named);
    ends.map(|endpoint| PodName::new(endpoint.namespace.as_str(), endpoint.pod_name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_makes_room_in_bytes_too() {
        let pod_name = "x".repeat(BYTES / 2);
        let flow =
            Flow { source: Some(Endpoint { pod_name: pod_name.clone(), ..Endpoint::default() }), ..Flow::default() };
        let mut series = Series::default();
        let takes = |series: &mut Series, n: u8| {
            series.takes(&flow, &vec![("source", pod_name.clone()), ("n", n.to_string())], 9)
        };
        assert!(takes(&mut series, 1) && !takes(&mut series, 2));
        assert_eq!((series.sweep(|_| false).len(), series.sweep(|_| false).len()), (0, 1));
        assert!(takes(&mut series, 2));
    }
}
