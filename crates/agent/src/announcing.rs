// SPDX-License-Identifier: Apache-2.0
//! L2 announcements, when enabled: what they need besides the tables that all features share.

use crate::config::Config;
use datapath::{Kernel, Wire};
use k8s::Client;
use k8s::cilium::CiliumL2AnnouncementPolicy;
use model::{Device, Node, ServiceName};
use services::{EndpointSlice, SliceEndpoint};
use statedb::{Inputs, Reader, Tasks};
use std::sync::Arc;
use surface::Surface;

/// Shared with other features.
pub(crate) struct Shared {
    /// None if nothing is announced.
    pub(crate) services: Option<Reader<l2::Service>>,
    pub(crate) slices: Reader<EndpointSlice>,
    pub(crate) nodes: Reader<Node>,
    pub(crate) devices: Reader<Device>,
    pub(crate) maps: Arc<dyn Kernel>,
    pub(crate) wire: Arc<dyn Wire>,
}

/// Starts announcing, if configured.
///
/// # Errors
///
/// The map cannot be opened.
pub(crate) fn start(
    config: &Config,
    node: &str,
    client: &Client,
    shared: Shared,
    tasks: &Tasks,
) -> datapath::Result<Surface> {
    let Some(services) = shared.services else { return Ok(Surface::new()) };
    let (policies_writer, policies) = statedb::table("l2-policies");
    let api = client.all::<CiliumL2AnnouncementPolicy>();
    tasks.spawn("reflect-l2-policies", client.reflect(api, policies_writer, l2::ingest_policy));
    let endpoints = endpoints(&shared.slices, node, tasks);
    let mut surface = Surface::new().table(&policies).table(&endpoints);
    let l2 = l2::start(
        config.l2.clone(),
        l2::Inputs {
            node_name: node.to_owned(),
            client: client.clone(),
            policies,
            services,
            endpoints,
            nodes: shared.nodes,
            devices: shared.devices,
            maps: shared.maps,
            wire: shared.wire,
        },
        tasks,
    )?;
    surface.add(l2.surface);
    Ok(surface)
}

/// Where each Service has endpoints.
fn endpoints(slices: &Reader<EndpointSlice>, node: &str, tasks: &Tasks) -> Reader<l2::Endpoints> {
    let by_service = slices.index(|slice| [slice.service.clone()]);
    let here = node.to_owned();
    let inputs = Inputs::of(slices, |slice: &EndpointSlice| [slice.service.clone()]);
    let row = move |service: &ServiceName, _: Option<&l2::Endpoints>| {
        let slices = by_service.get(service);
        place(service, slices.iter().flat_map(|slice| &slice.endpoints), &here)
    };
    statedb::derive(tasks, "l2-endpoints", inputs, row).rows
}

/// Counts endpoints that take new connections: the ready ones, or else those terminating but still serving.
fn place<'a>(
    service: &ServiceName,
    endpoints: impl Iterator<Item = &'a SliceEndpoint> + Clone,
    node: &str,
) -> Option<l2::Endpoints> {
    let any_ready = endpoints.clone().any(|endpoint| endpoint.ready);
    let takes = |endpoint: &&SliceEndpoint| if any_ready { endpoint.ready } else { endpoint.serving };
    let mut takers = endpoints.filter(takes).peekable();
    takers.peek()?;
    let mut found = l2::Endpoints { service: service.clone(), here: false, placed: false };
    for endpoint in takers {
        found.here |= endpoint.node.as_deref() == Some(node);
        found.placed |= endpoint.node.is_some();
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s::k8s_openapi::api::discovery::v1 as discovery;
    use serde_json::{Value, json};

    /// Whether some are on the node `here`, and whether any is on a node; of endpoints with a node and conditions.
    fn places(endpoints: &[(Option<&str>, [bool; 3])]) -> Option<(bool, bool)> {
        let endpoint = |(node, [ready, serving, terminating]): &(Option<&str>, [bool; 3])| -> Value {
            let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
            json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions})
        };
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        let object = json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints});
        let object: discovery::EndpointSlice = serde_json::from_value(object).unwrap();
        let slice = services::ingest_slice(&services::Config::default(), &object).unwrap();
        place(&slice.service, slice.endpoints.iter(), "here").map(|found| (found.here, found.placed))
    }

    const READY: [bool; 3] = [true, true, false];
    const ENDING: [bool; 3] = [false, true, true];
    const GONE: [bool; 3] = [false, false, true];

    #[test]
    fn an_endpoint_that_ends_counts_when_no_other_is_ready() {
        assert_eq!(places(&[(Some("here"), READY), (Some("there"), READY)]), Some((true, true)));
        assert_eq!(places(&[(Some("here"), ENDING), (Some("there"), READY)]), Some((false, true)));
        assert_eq!(places(&[(Some("here"), ENDING), (Some("there"), GONE)]), Some((true, true)));
        assert_eq!(places(&[(Some("here"), GONE)]), None);
        assert_eq!(places(&[]), None);
    }

    #[test]
    fn an_endpoint_without_a_node_is_on_none() {
        assert_eq!(places(&[(None, READY)]), Some((false, false)));
        assert_eq!(places(&[(None, READY), (Some("there"), READY)]), Some((false, true)));
    }
}
