// SPDX-License-Identifier: Apache-2.0
//! The host side of pods' interfaces: programs, state, routes, neighbours. A seam, so that the order of attaching is
//! tested without a kernel.

use crate::attachment::PodAttachment;
use std::collections::BTreeSet;

/// Sets up and removes the host side of a pod's network. All operations may be repeated.
pub(crate) trait Interfaces: Send + 'static {
    /// Why an operation failed.
    type Error: std::error::Error + Send;

    /// Attaches the programs, then brings the interface up, then adds the host's routes to the pod. Leaves alone what
    /// is right.
    fn connect(&mut self, pod: &PodAttachment) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the interface, if it still has that index, and its pins.
    fn disconnect(&mut self, name: &str, ifindex: u32) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the pins of unwanted interfaces.
    fn prune(&mut self, wanted: &BTreeSet<&str>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
