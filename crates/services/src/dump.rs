// SPDX-License-Identifier: Apache-2.0
//! The maps for people, as `cilium-dbg bpf lb list` shows them.

use crate::Maps;
use crate::encode;
use abi::lb;
use model::FrontendKey;
use std::collections::BTreeMap;

/// A line of `cilium-dbg bpf lb list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LbEntry {
    /// Frontend and slot; slot 0 stands for the frontend itself.
    pub service: String,
    /// Backend, number of the service, slot; for the frontend itself its kind.
    pub backend: String,
}

/// What the maps hold, by address of the frontend.
///
/// # Errors
///
/// A map cannot be read.
pub fn lb_list(maps: &Maps) -> datapath::Result<Vec<LbEntry>> {
    let slots: BTreeMap<_, _> = maps.slots.entries()?.into_iter().collect();
    let backends: BTreeMap<_, _> = maps.backends.entries()?.into_iter().collect();
    let services: BTreeMap<_, _> =
        maps.services.entries()?.into_iter().filter_map(|(k, v)| Some((encode::frontend_key(&k)?, v))).collect();
    let mut lines = Vec::new();
    for (frontend, service) in services {
        lines.push(head(&frontend, &service));
        for slot in 0..service.count {
            let text = match slots.get(&encode::slot_key(service.id, slot)) {
                None => "slot not found".to_owned(),
                Some(id) => backends
                    .get(id)
                    .and_then(encode::backend_addr)
                    .map_or_else(|| format!("backend {id} not found"), |addr| addr.to_string()),
            };
            // Slots count from one where people read them: the frontend itself is the slot 0.
            let number = slot.saturating_add(1);
            lines.push(LbEntry {
                service: format!("{frontend} ({number})"),
                backend: format!("{text} ({}) ({number})", service.id),
            });
        }
    }
    Ok(lines)
}

fn head(frontend: &FrontendKey, service: &lb::Service) -> LbEntry {
    let none = if frontend.addr.ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let backend = format!("{none} ({}) (0) [{}]", service.id, traits(service.flags, service.affinity).join(", "));
    LbEntry { service: format!("{frontend} (0)"), backend }
}

/// The kind of a frontend, and what is special about it.
fn traits(flags: u32, affinity: u32) -> Vec<&'static str> {
    let has = |flag| flags & flag != 0;
    let ranges = has(lb::flags::SOURCE_RANGES);
    [
        (has(lb::flags::CLUSTER_IP), "ClusterIP"),
        (has(lb::flags::NODE_PORT), "NodePort"),
        (has(lb::flags::EXTERNAL_IP), "ExternalIPs"),
        (has(lb::flags::LOAD_BALANCER), "LoadBalancer"),
        (has(lb::flags::HOST_PORT), "HostPort"),
        (has(lb::flags::LOCAL_REDIRECT), "LocalRedirect"),
        (has(lb::flags::LOCAL_ONLY), "Local"),
        (has(lb::flags::TWO_SCOPES), "two-scopes"),
        (affinity > 0, "sessionAffinity"),
        (!has(lb::flags::EXPOSED), "non-routable"),
        (ranges, "check source-range"),
        (ranges && has(lb::flags::DENY_RANGES), "deny"),
        (has(lb::flags::SPARES_BACKENDS), "spares backends"),
        (has(lb::flags::PODS_ONLY), "pods only"),
        (has(lb::flags::MAGLEV), "maglev"),
        (has(lb::flags::DSR), "dsr"),
    ]
    .into_iter()
    .filter_map(|(holds, name)| holds.then_some(name))
    .collect()
}
