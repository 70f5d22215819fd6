// SPDX-License-Identifier: Apache-2.0
//! Which endpoints of a Service requests go to, and what is said of what is none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::{World, http_route};
use gateway::{Serving, Status, Subject};
use l7::Object;

fn objects(affinity: &str, kind: &str, hints: [&str; 2]) -> String {
    format!(
        "
kind: GatewayClass
metadata: {{name: cilium}}
spec: {{controllerName: io.cilium/gateway-controller}}
---
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec: {{gatewayClassName: cilium, listeners: [{{name: web, port: 80, protocol: HTTP}}]}}
---
kind: HTTPRoute
metadata: {{name: cart, namespace: shop}}
spec: {{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{{kind}name: cart, port: 80}}]}}]}}
---
kind: Service
metadata: {{name: cart, namespace: shop}}
spec: {{clusterIP: 10.0.0.1, {affinity}ports: [{{port: 80}}]}}
---
kind: EndpointSlice
metadata: {{name: cart-1, namespace: shop, labels: {{kubernetes.io/service-name: cart}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints:
- {{addresses: [10.1.0.1], zone: a, hints: {{{}}}}}
- {{addresses: [10.1.0.2], zone: b, hints: {{{}}}}}",
        hints[0], hints[1]
    )
}

/// Whether clients stay at one endpoint, the preferred zone, and the zone of each endpoint.
fn cluster(world: &World) -> (bool, Option<String>, Vec<Option<String>>) {
    let (mut by_client, mut found) = (None, None);
    for (_, object) in world.published().snapshot.iter() {
        match object {
            Object::Cluster(cluster) => by_client = Some(cluster.by_client),
            Object::Endpoints(endpoints) => found = Some(endpoints.clone()),
            _ => {}
        }
    }
    let found = found.unwrap();
    let text = |zone: &Option<l7::Name>| zone.as_ref().map(ToString::to_string);
    let zones = found.endpoints.iter().map(|endpoint| text(&endpoint.zone)).collect();
    (by_client.unwrap(), text(&found.prefer_zone), zones)
}

fn name(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn hints_of_endpoints_count_where_all_have_some_and_one_is_for_this_node() {
    let zones = |a: &str, b: &str| [format!("forZones: [{{name: {a}}}]"), format!("forZones: [{{name: {b}}}]")];
    let nodes = |a: &str, b: &str| [format!("forNodes: [{{name: {a}}}]"), format!("forNodes: [{{name: {b}}}]")];
    let own = [name("a"), name("b")];
    for (topology, hints, preferred, served) in [
        (true, zones("b", "a"), name("a"), [None, name("a")]),
        (true, zones("a", "b"), name("a"), own.clone()),
        (true, zones("b", "b"), None, own.clone()),
        (true, [zones("a", "b")[0].clone(), String::new()], None, own.clone()),
        (true, nodes("there", "here"), name("node here"), [name("a"), name("node here")]),
        (false, zones("b", "a"), None, own.clone()),
    ] {
        let mut world = World::new(&Serving { topology, ipv4: true, ..Serving::default() });
        world.apply(&objects("", "", [&hints[0], &hints[1]]));
        world.settle().await;
        if topology && hints[0].contains("Zones") {
            assert_eq!(cluster(&world).1, None, "the zone of this node is not known yet");
        }
        world.pods.label_node("topology.kubernetes.io/zone", "a");
        world.settle().await;
        assert_eq!(cluster(&world), (false, preferred, served.to_vec()), "{hints:?}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn clients_stay_at_one_endpoint_of_a_service_that_wants_it() {
    for (affinity, stays) in [("sessionAffinity: ClientIP, ", true), ("sessionAffinity: None, ", false), ("", false)] {
        let mut world = World::new(&Serving { ipv4: true, ..Serving::default() });
        world.apply(&objects(affinity, "", ["", ""]));
        world.settle().await;
        assert_eq!(cluster(&world).0, stays, "{affinity}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_import_is_no_backend_and_the_route_says_so() {
    let mut world = World::new(&Serving { ipv4: true, ..Serving::default() });
    world.apply(&objects("", "group: multicluster.x-k8s.io, kind: ServiceImport, ", ["", ""]));
    world.settle().await;
    let Some(Status::Route(status)) = world.report(&Subject::Route(http_route("shop", "cart"))) else {
        panic!("nothing is said of the route");
    };
    let resolved = status.parents[0].conditions.iter().find(|condition| condition.kind == "ResolvedRefs").unwrap();
    assert_eq!((&*resolved.status, &*resolved.reason), ("False", "InvalidKind"));
    assert!(resolved.message.contains("ServiceImport"), "{}", resolved.message);
    assert!(world.served().contains("{\"status\":500}") || world.served().contains("500"), "{}", world.served());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn parameters_are_accepted_if_a_service_can_be_as_they_say() {
    for (service, accepted) in [("{type: NodePort}", true), ("{loadBalancerSourceRanges: [10.0.0.0/33]}", false)] {
        let mut world = World::new(&Serving::default());
        let parameters = "parametersRef: {group: cilium.io, kind: CiliumGatewayClassConfig, name: p, namespace: shop}";
        world.apply(&format!(
            "kind: CiliumGatewayClassConfig\nmetadata: {{name: p, namespace: shop, generation: 3}}\n\
             spec: {{description: theirs, service: {service}}}\n---\nkind: GatewayClass\nmetadata: {{name: cilium}}\n\
             spec: {{controllerName: io.cilium/gateway-controller, {parameters}}}"
        ));
        world.settle().await;
        let name = gateway::ObjectName::new("shop", "p");
        let Some(Status::ClassConfig(status)) = world.report(&Subject::ClassConfig(name)) else {
            panic!("nothing is said of the parameters");
        };
        let [condition] = &status.conditions[..] else { panic!("{status:?}") };
        let wanted = if accepted { ("True", "Accepted") } else { ("False", "InvalidParameters") };
        assert_eq!((&*condition.kind, condition.observed_generation), ("Accepted", Some(3)));
        assert_eq!((&*condition.status, &*condition.reason), wanted, "{}", condition.message);
        let class = world.report(&Subject::Class(gateway::ObjectName::new("", "cilium")));
        let Some(Status::Class(class)) = class else { panic!("nothing is said of the class") };
        assert_eq!((&*class.conditions[0].status, &*class.conditions[0].reason), wanted);
        world.end().await;
    }
}
