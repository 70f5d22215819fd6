// SPDX-License-Identifier: Apache-2.0
//! Events of Kubernetes about dropped packets, for the authors of pods.

use hubble::{Dropped, Drops};
use k8s::{Events, Warning, Warnings, pod_reference};
use model::Pod;
use statedb::{Reader, Tasks};

/// Tells of them, for ever.
pub(crate) fn tell(drops: Drops, pods: Reader<Pod>, events: Events, tasks: &Tasks) {
    let (warnings, queue) = Warnings::channel();
    tasks.spawn("drop-events", queue.publish_all(events));
    tasks.spawn("drops", drops.follow(move |dropped| warn(&warnings, &pods, dropped)));
}

fn warn(warnings: &Warnings, pods: &Reader<Pod>, Dropped { pod, note }: Dropped) {
    // One that has gone has nobody who would read it.
    if let Some(pod) = pods.snapshot().get(&pod) {
        let about = pod_reference(&pod.name.namespace, &pod.name.name, &pod.uid);
        warnings.warn(Warning { about, reason: "PacketDrop", action: "Drop", note });
    }
}
