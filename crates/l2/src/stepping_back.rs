// SPDX-License-Identifier: Apache-2.0
//! A node that answers on several devices goes on when one of them loses its carrier: whoever asks there is answered by nobody, while another node might. So it
//! gives its Leases back, and takes them again only when nobody else has for half a retry period.

use crate::select::{Place, Places};
use model::Device;
use statedb::Snapshot;
use std::collections::BTreeSet;

/// The Leases of which places have gone with their devices, and others are left.
pub(crate) fn impaired(before: &Places, now: &Places, devices: &Snapshot<Device>) -> BTreeSet<String> {
    let works = |place: &Place| devices.iter().any(|device| device.index == place.ifindex && device.running);
    let has_lost_some = |places: &BTreeSet<Place>| !places.iter().all(works);
    before
        .iter()
        .filter(|(lease, places)| now.contains_key(*lease) && has_lost_some(places))
        .map(|(lease, _)| lease.clone())
        .collect()
}
