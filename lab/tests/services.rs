// SPDX-License-Identifier: Apache-2.0
//! Services as users meet them, without a kube-proxy: by node ports, external addresses and load balancers, from pods, from nodes and from a machine that is no node.
//! Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "services/envoy_config.rs"]
mod envoy_config;
#[path = "services/gateway.rs"]
mod gateway;
#[path = "services/mesh.rs"]
mod mesh;
#[path = "services/ranges.rs"]
mod ranges;
#[path = "services/redirect.rs"]
mod redirect;
#[path = "services/rollout.rs"]
mod rollout;
#[path = "services/unreachable.rs"]
mod unreachable;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use lab::suite::Suite;
use lab::traffic::{Kept, Requests, get};
use serde_json::{Value, json};

const SUITE: Suite = Suite {
    name: "services",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    values: &[
        product::GATEWAY_API,
        "ingressController.enabled=true",
        "envoyConfig.enabled=true",
        "l2announcements.enabled=true",
        "localRedirectPolicies.enabled=true",
        "l2announcements.leaseDuration=3s",
        "l2announcements.leaseRenewDeadline=1s",
        "l2announcements.leaseRetryPeriod=500ms",
        "k8sClientRateLimit.qps=32",
        "k8sClientRateLimit.burst=33",
    ],
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: &[
        ("a_node_port_is_served_at_every_node_for_everybody", node_port),
        ("a_local_traffic_policy_keeps_to_the_node_and_shows_the_client", local_traffic),
        ("external_addresses_are_served_at_their_ports_only", external_addresses),
        ("a_host_port_is_served_on_the_pods_node", host_port),
        ("a_client_with_affinity_stays_with_its_backend", affinity),
        ("a_service_without_endpoints_refuses", no_endpoints),
        ("a_backend_that_is_a_process_of_a_node_is_reached", host_backend),
        ("a_load_balancer_gets_an_address_that_answers_on_the_wire", load_balancer),
        ("two_services_share_an_address_by_a_key", shared_address),
        ("only_clients_of_the_source_ranges_are_served", ranges::only_listed),
        ("an_announced_address_moves_when_its_agent_is_gone", failover),
        ("an_open_socket_comes_to_another_backend_when_its_own_is_gone", backend_gone),
        ("a_node_that_is_cut_off_is_asked_no_more_and_connections_to_others_go_on", unreachable::backend),
        ("no_request_fails_while_a_deployment_is_rolled_out", rollout::requests),
        ("long_connections_last_as_long_as_their_pods_while_a_deployment_is_rolled_out", rollout::connections),
        ("no_request_fails_while_agents_are_killed", agents_killed),
        ("a_local_redirect_policy_keeps_traffic_on_the_node", redirect::service),
        ("an_address_is_redirected_and_what_is_others_is_not", redirect::address),
        ("a_gateway_splits_https_for_two_hosts_at_a_shared_address", gateway::https_split),
        ("where_a_request_to_a_gateway_goes_is_told_by_the_tools", gateway::explained),
        ("a_gateway_passes_tls_through", gateway::passthrough),
        ("requests_through_a_gateway_are_seen_with_their_answers", gateway::seen),
        ("what_a_gateway_asks_of_backends_is_subject_to_policy", gateway::policy),
        ("an_envoy_config_splits_and_rewrites_what_pods_send_to_a_service", envoy_config::canary),
        ("a_tcp_proxy_leads_connections_of_pods_where_policy_lets_them_go", envoy_config::connections),
        ("routes_of_a_service_are_for_whom_policy_lets_reach_its_backends", mesh::routes_under_policy),
        ("ingresses_have_an_address_each_or_share_one", gateway::ingress),
        ("no_request_to_a_gateway_fails_while_routes_agents_and_proxies_change", gateway::under_load),
        ("operators_that_are_killed_cost_no_request_and_statuses_come_to_rest", gateway::operators_killed),
    ],
};

/// The machine that is no node.
const OUTSIDE: [&str; 2] = ["192.168.77.50", "fd77::50"];
const LONG: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    SUITE.main()
}

fn outside(cluster: &Cluster) -> Result<Netns> {
    Netns::of_stranger(cluster, "outside", &[50])
}

/// The addresses of a node, of both families.
fn node(number: u8) -> [IpAddr; 2] {
    [format!("192.168.77.1{number}").parse().unwrap(), format!("fd77::1{number}").parse().unwrap()]
}

/// Applies a Service of both families in front of the pods `near` and `far`, changed by `spec`.
fn apply(cluster: &Cluster, name: &str, annotations: &Value, spec: &Value) -> Result<()> {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "net", "annotations": annotations, "labels": {"app": name}},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack", "selector": {"app": "echo"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "udp", "port": 90, "targetPort": 8081, "protocol": "UDP"},
            ],
        },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    cluster.apply(&object.to_string())
}

fn delete(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["delete", "service", "--namespace=net", name]).map(drop)
}

fn port(cluster: &Cluster, name: &str, index: usize) -> Result<u16> {
    let object = cluster.get(&["service", "--namespace=net", name])?;
    let port = object["spec"]["ports"][index]["nodePort"].as_u64().context("no node port")?;
    Ok(u16::try_from(port)?)
}

fn addresses(list: &Value) -> Result<Vec<IpAddr>> {
    list.as_array().into_iter().flatten().map(|one| Ok(one.as_str().unwrap_or_default().parse()?)).collect()
}

/// The addresses in a load balancer's status.
fn ingress(cluster: &Cluster, name: &str, count: usize) -> Result<Vec<IpAddr>> {
    eventually(LONG, &format!("addresses of {name}"), || {
        let object = cluster.get(&["service", "--namespace=net", name])?;
        let list = object["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        let all: Vec<IpAddr> =
            list.iter().map(|one| Ok(one["ip"].as_str().unwrap_or_default().parse()?)).collect::<Result<_>>()?;
        ensure!(all.len() == count, "{all:?}: {}", object["status"]["conditions"]);
        Ok(all)
    })
}

/// Asks until each of these pods has answered, and nobody else.
fn answer(from: &Netns, to: SocketAddr, pods: &[&str]) -> Result<()> {
    let mut seen = BTreeSet::new();
    eventually(LONG, &format!("answers of {pods:?} at {to}"), || {
        for _ in 0..10 {
            seen.insert(from.run(|| get(to, "/hostname"))?);
        }
        ensure!(pods.iter().all(|pod| seen.contains(*pod)), "only {seen:?}");
        Ok(())
    })?;
    ensure!(seen.len() == pods.len(), "others answer at {to} too: {seen:?}");
    Ok(())
}

/// Asks over UDP; the answer comes from where the question went to.
fn answers_datagrams(from: &Netns, to: SocketAddr, pods: &[&str]) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    for _ in 0..4 {
        let socket = from.datagrams(any.parse()?)?;
        socket.send_to(b"hostname", to)?;
        let mut room = [0; 64];
        let (count, by) = socket.recv_from(&mut room).with_context(|| format!("from {to} over UDP"))?;
        ensure!(by == to, "{by} answers what {to} was asked");
        let said = String::from_utf8_lossy(&room[..count]).trim().to_owned();
        ensure!(pods.contains(&said.as_str()), "{to} says '{said}' over UDP");
    }
    Ok(())
}

/// Nobody answers a connection.
fn silent(from: &Netns, to: SocketAddr) -> Result<()> {
    let outcome = from.run(|| Ok(std::net::TcpStream::connect_timeout(&to, Duration::from_millis(1500))))?;
    ensure!(outcome.is_err(), "somebody answers at {to}");
    Ok(())
}

/// Nobody answers, and nobody refuses either: who asks again may be led elsewhere.
fn ignores(from: &Netns, to: SocketAddr) -> Result<()> {
    let outcome = from.run(|| Ok(std::net::TcpStream::connect_timeout(&to, Duration::from_millis(1500))))?;
    let error = outcome.err().context("somebody answers")?;
    ensure!(error.kind() == ErrorKind::TimedOut, "{to}: {error}");
    Ok(())
}

/// A connection is refused at once, and a datagram too.
fn refuses(from: &Netns, tcp: SocketAddr, udp: SocketAddr) -> Result<()> {
    eventually(LONG, &format!("{tcp} refuses"), || {
        let outcome = from.run(|| Ok(std::net::TcpStream::connect_timeout(&tcp, Duration::from_secs(3))))?;
        let error = outcome.err().context("somebody answers")?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
        Ok(())
    })?;
    from.run(|| {
        let socket = std::net::UdpSocket::bind(if udp.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        let error = socket.connect(udp).and_then(|()| socket.send(b"hostname")).and_then(|_| socket.recv(&mut [0; 64]));
        match error {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            other => bail!("{udp} over UDP: {other:?}"),
        }
    })
}

fn node_port(cluster: &Cluster) -> Result<()> {
    apply(cluster, "ported", &json!({}), &json!({"type": "NodePort"}))?;
    let (http, udp) = (port(cluster, "ported", 0)?, port(cluster, "ported", 1)?);
    let from = [
        ("outside", outside(cluster)?),
        ("client", Netns::of_pod(cluster, "net", "client")?),
        ("node1", Netns::of_machine(cluster, "node1")?),
    ];
    let both = ["near", "far"];
    for (who, from) in &from[..2] {
        for to in node(1).into_iter().chain(node(2)) {
            answer(from, SocketAddr::new(to, http), &both).with_context(|| (*who).to_owned())?;
            answers_datagrams(from, SocketAddr::new(to, udp), &both).with_context(|| (*who).to_owned())?;
        }
    }
    // Whose sockets are translated, by programs that know them by their control group.
    for to in node(1).into_iter().chain(node(2)) {
        let url = format!("http://{}/hostname", SocketAddr::new(to, http));
        let said = cluster.exec("net", "client", &["curl", "-sS", "-m", "5", &url])?;
        ensure!(both.contains(&said.trim()), "client at {url}: {said}");
        let said = cluster.shell("node1", &format!("curl -sS -m 5 {url}"))?;
        ensure!(both.contains(&said.trim()), "node1 at {url}: {said}");
    }
    let seen: SocketAddr = from[0].1.run(|| get(SocketAddr::new(node(1)[0], http), "/clientip"))?.parse()?;
    ensure!([node(1)[0], OUTSIDE[0].parse()?].contains(&seen.ip().to_canonical()), "a backend sees {seen}");
    delete(cluster, "ported")?;
    eventually(LONG, "nobody serves the port", || silent(&from[0].1, SocketAddr::new(node(1)[0], http)))
}

fn local_traffic(cluster: &Cluster) -> Result<()> {
    let outside = outside(cluster)?;
    cluster.kubectl(&["label", "--namespace=net", "pod", "near", "app-"])?;
    let spec =
        json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/none", "externalTrafficPolicy": "Local"});
    apply(cluster, "local", &json!({}), &spec)?;
    let http = port(cluster, "local", 0)?;
    let object = cluster.get(&["service", "--namespace=net", "local"])?;
    let health = u16::try_from(object["spec"]["healthCheckNodePort"].as_u64().context("no health check port")?)?;
    for (family, own) in OUTSIDE.iter().enumerate() {
        answer(&outside, SocketAddr::new(node(2)[family], http), &["far"])?;
        let seen: SocketAddr = outside.run(|| get(SocketAddr::new(node(2)[family], http), "/clientip"))?.parse()?;
        ensure!(seen.ip().to_canonical() == own.parse::<IpAddr>()?, "the backend sees {seen}");
        ignores(&outside, SocketAddr::new(node(1)[family], http))?;
    }
    // Inside of the cluster everybody is served everywhere.
    let client = Netns::of_pod(cluster, "net", "client")?;
    answer(&client, SocketAddr::new(cluster.service_addresses("net", "local")?[0], 80), &["far"])?;
    for (number, status) in [(1, "503"), (2, "200")] {
        let url = format!("http://{}/healthz", SocketAddr::new(node(number)[0], health));
        eventually(LONG, &format!("{url} says {status}"), || {
            let said = outside.command(&["curl", "-sS", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", &url])?;
            ensure!(said.trim() == status, "{said}");
            Ok(())
        })?;
    }
    cluster.kubectl(&["label", "--namespace=net", "pod", "near", "app=echo"])?;
    delete(cluster, "local")
}

fn external_addresses(cluster: &Cluster) -> Result<()> {
    let outside = outside(cluster)?;
    let own = ["203.0.113.9", "2001:db8:9::9"];
    apply(cluster, "external", &json!({}), &json!({"externalIPs": own}))?;
    for (address, via) in own.into_iter().zip(node(1)) {
        outside.command(&["ip", "route", "replace", address, "via", &via.to_string()])?;
        let to: IpAddr = address.parse()?;
        answer(&outside, SocketAddr::new(to, 80), &["near", "far"])?;
        answers_datagrams(&outside, SocketAddr::new(to, 90), &["near", "far"])?;
        silent(&outside, SocketAddr::new(to, 81))?;
        let client = Netns::of_pod(cluster, "net", "client")?;
        answer(&client, SocketAddr::new(to, 80), &["near", "far"])?;
    }
    delete(cluster, "external")
}

fn host_port(cluster: &Cluster) -> Result<()> {
    let outside = outside(cluster)?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ported", "namespace": "net"},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "node1"}, "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "server", "image": "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
                "args": ["netexec", "--http-port=8080", "--udp-port=8081"],
                "ports": [
                    {"containerPort": 8080, "hostPort": 8088},
                    {"containerPort": 8081, "hostPort": 8089, "protocol": "UDP"},
                    {"containerPort": 8080, "hostPort": 8090, "hostIP": "127.0.0.1"},
                ],
            }],
        },
    });
    let program = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "program", "namespace": "net"},
        "spec": {
            "hostNetwork": true, "nodeSelector": {"kubernetes.io/hostname": "node1"}, "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "program", "image": "registry.k8s.io/e2e-test-images/agnhost:2.63.0", "args": ["pause"],
            }],
        },
    });
    cluster.apply(&pod.to_string())?;
    cluster.apply(&program.to_string())?;
    for pod in ["ported", "program"] {
        cluster.kubectl(&["wait", "--namespace=net", "pod", pod, "--for=condition=Ready", "--timeout=60s"])?;
    }
    let own = node(1)[0].to_string();
    let ask = ["curl", "-sS", "-m", "5", "--interface", &own, "http://127.0.0.1:8090/hostname"];
    let said = cluster.exec("net", "program", &ask)?;
    ensure!(said == "ported", "the host's own programs have it at their loopback: {said}");
    silent(&outside, SocketAddr::new(node(1)[0], 8090))?;
    for to in node(1) {
        answer(&outside, SocketAddr::new(to, 8088), &["ported"])?;
        answers_datagrams(&outside, SocketAddr::new(to, 8089), &["ported"])?;
    }
    silent(&outside, SocketAddr::new(node(2)[0], 8088))?;
    let far = Netns::of_pod(cluster, "net", "far")?;
    answer(&far, SocketAddr::new(node(1)[0], 8088), &["ported"])?;
    cluster.kubectl(&["delete", "pod", "--namespace=net", "ported", "program"])?;
    eventually(LONG, "nobody serves the port", || silent(&outside, SocketAddr::new(node(1)[0], 8088)))
}

/// That all of these many questions are answered by one pod.
fn one_answers(what: &str, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    let seen: BTreeSet<String> = (0..20).map(|_| ask()).collect::<Result<_>>()?;
    ensure!(seen.len() == 1, "{what}: {seen:?}");
    Ok(())
}

fn affinity(cluster: &Cluster) -> Result<()> {
    apply(cluster, "sticky", &json!({}), &json!({"type": "NodePort", "sessionAffinity": "ClientIP"}))?;
    let http = port(cluster, "sticky", 0)?;
    let (outside, client) = (outside(cluster)?, Netns::of_pod(cluster, "net", "client")?);
    for (family, ip) in cluster.service_addresses("net", "sticky")?.into_iter().enumerate() {
        let to = SocketAddr::new(ip, 80);
        eventually(LONG, "it is served", || client.run(|| get(to, "/hostname")))?;
        one_answers("per packet", || client.run(|| get(to, "/hostname")))?;
        let url = format!("http://{to}/hostname");
        one_answers("by socket", || cluster.exec("net", "client", &["curl", "-sS", "-m", "5", &url]))?;
        let to = SocketAddr::new(node(1)[family], http);
        one_answers("by node port", || outside.run(|| get(to, "/hostname")))?;
    }
    delete(cluster, "sticky")
}

fn no_endpoints(cluster: &Cluster) -> Result<()> {
    apply(cluster, "nobody", &json!({}), &json!({"type": "NodePort", "selector": {"app": "nobody"}}))?;
    let (http, udp) = (port(cluster, "nobody", 0)?, port(cluster, "nobody", 1)?);
    let (outside, client) = (outside(cluster)?, Netns::of_pod(cluster, "net", "client")?);
    for (family, ip) in cluster.service_addresses("net", "nobody")?.into_iter().enumerate() {
        refuses(&client, SocketAddr::new(ip, 80), SocketAddr::new(ip, 90)).context("a pod, per packet")?;
        let to = node(1)[family];
        refuses(&outside, SocketAddr::new(to, http), SocketAddr::new(to, udp)).context("from outside")?;
        let url = format!("http://{}/", SocketAddr::new(ip, 80));
        let said = cluster.exec("net", "client", &["sh", "-c", &format!("curl -sS -m 5 {url} 2>&1; echo $?")])?;
        ensure!(said.trim().ends_with('7'), "a pod, by socket: {said}");
    }
    delete(cluster, "nobody")
}

/// A Service without a selector, whose endpoints are the nodes themselves.
fn host_backend(cluster: &Cluster) -> Result<()> {
    let (outside, client) = (outside(cluster)?, Netns::of_pod(cluster, "net", "client")?);
    let listeners: Vec<_> = (1..3)
        .map(|number| {
            let machine = Netns::of_machine(cluster, &format!("node{number}"))?;
            machine.listen(7070)
        })
        .collect::<Result<_>>()?;
    for listener in listeners {
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                use std::io::Write as _;
                let mut stream = stream;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nnode");
            }
        });
    }
    for number in 1..3 {
        let spec = json!({
            "type": "NodePort", "ipFamilyPolicy": "SingleStack", "selector": null,
            "ports": [{"name": "http", "port": 80, "targetPort": 7070}],
        });
        apply(cluster, "machine", &json!({}), &spec)?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "machine", "namespace": "net", "labels": {"kubernetes.io/service-name": "machine"}},
            "ports": [{"name": "http", "port": 7070, "protocol": "TCP"}],
            "endpoints": [{"addresses": [node(number)[0].to_string()], "nodeName": format!("node{number}")}],
        });
        cluster.apply(&slice.to_string())?;
        let http = port(cluster, "machine", 0)?;
        for to in [node(1)[0], node(2)[0]] {
            let to = SocketAddr::new(to, http);
            eventually(LONG, &format!("node{number} answers at {to}"), || outside.run(|| get(to, "/")))?;
        }
        let to = SocketAddr::new(cluster.service_addresses("net", "machine")?[0], 80);
        eventually(LONG, &format!("node{number} answers a pod"), || client.run(|| get(to, "/")))?;
    }
    cluster.kubectl(&["delete", "endpointslice", "--namespace=net", "machine"])?;
    delete(cluster, "machine")
}

/// Addresses for load balancers, in the nodes' own network, and who announces them.
fn pool(cluster: &Cluster) -> Result<()> {
    let pool = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool", "metadata": {"name": "lab"},
        "spec": {"blocks": [{"start": "192.168.77.200", "stop": "192.168.77.219"}, {"cidr": "fd77::200/124"}]},
    });
    let policy = json!({
        "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumL2AnnouncementPolicy", "metadata": {"name": "lab"},
        "spec": {"loadBalancerIPs": true, "externalIPs": true, "interfaces": ["^eth[0-9]+"]},
    });
    cluster.apply(&pool.to_string())?;
    cluster.apply(&policy.to_string())
}

fn load_balancer(cluster: &Cluster) -> Result<()> {
    pool(cluster)?;
    let outside = outside(cluster)?;
    apply(cluster, "balanced", &json!({}), &json!({"type": "LoadBalancer"}))?;
    for to in ingress(cluster, "balanced", 2)? {
        answer(&outside, SocketAddr::new(to, 80), &["near", "far"])?;
        answers_datagrams(&outside, SocketAddr::new(to, 90), &["near", "far"])?;
        silent(&outside, SocketAddr::new(to, 81))?;
    }
    let columns = cluster.kubectl(&["get", "ippools", "lab"])?;
    ensure!(columns.contains("IPS AVAILABLE"), "{columns}");
    Ok(())
}

fn shared_address(cluster: &Cluster) -> Result<()> {
    pool(cluster)?;
    let outside = outside(cluster)?;
    let key = json!({"io.cilium/lb-ipam-sharing-key": "edge"});
    let ports = |number: u16| json!([{"name": "http", "port": number, "targetPort": 8080}]);
    for (name, number) in [("first", 80), ("second", 443)] {
        let spec = json!({"type": "LoadBalancer", "ipFamilyPolicy": "SingleStack", "ports": ports(number)});
        apply(cluster, name, &key, &spec)?;
    }
    let address = ingress(cluster, "first", 1)?[0];
    ensure!(ingress(cluster, "second", 1)? == [address], "they share no address");
    for number in [80, 443] {
        answer(&outside, SocketAddr::new(address, number), &["near", "far"])?;
    }
    delete(cluster, "first")?;
    eventually(LONG, "the first is gone", || silent(&outside, SocketAddr::new(address, 80)))?;
    answer(&outside, SocketAddr::new(address, 443), &["near", "far"])?;
    delete(cluster, "second")
}

/// The node whose agent announces a Service.
fn holder(cluster: &Cluster, name: &str) -> Result<String> {
    let lease = cluster.get(&["lease", "--namespace=kube-system", &format!("cilium-l2announce-net-{name}")])?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    ensure!(!holder.is_empty(), "nobody holds the lease");
    Ok(holder)
}

fn failover(cluster: &Cluster) -> Result<()> {
    let outside = outside(cluster)?;
    let to = SocketAddr::new(ingress(cluster, "balanced", 2)?[0], 80);
    let first = eventually(LONG, "a holder", || holder(cluster, "balanced"))?;
    cluster.fault("cut", &first)?;
    eventually(LONG, "another holder", || {
        let now = holder(cluster, "balanced")?;
        ensure!(now != first, "it is {now} still");
        Ok(())
    })?;
    let there = if first == "node1" { "far" } else { "near" };
    eventually(LONG, "the other node answers", || {
        let said = outside.run(|| get(to, "/hostname"))?;
        ensure!(said == there, "{said} answers");
        Ok(())
    })?;
    cluster.fault("restore", &first)?;
    cluster.nodes_ready(Duration::from_secs(120))?;
    answer(&outside, to, &["near", "far"])?;
    delete(cluster, "balanced")
}

/// Runs a body while requests go to a Service from a pod and from outside; none may fail.
fn under_requests(cluster: &Cluster, name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let http = port(cluster, name, 0)?;
    let (outside, client) = (outside(cluster)?, Netns::of_pod(cluster, "net", "client")?);
    let mut targets: Vec<(&Netns, SocketAddr)> = Vec::new();
    for family in 0..2 {
        targets.push((&client, SocketAddr::new(cluster.service_addresses("net", name)?[family], 80)));
        targets.extend((1..3).map(|number| (&outside, SocketAddr::new(node(number)[family], http))));
    }
    for (from, to) in &targets {
        eventually(LONG, &format!("{to} answers"), || from.run(|| get(*to, "/hostname")))?;
    }
    let all: Vec<Requests> = targets
        .into_iter()
        .map(|(from, to)| Ok(Requests::start(from.try_clone()?, to, "/hostname")))
        .collect::<Result<_>>()?;
    all.iter().try_for_each(|one| one.goes_on(50))?;
    body()?;
    all.iter().try_for_each(|one| one.goes_on(50))?;
    all.into_iter().try_for_each(Requests::finish)
}

fn backend_gone(cluster: &Cluster) -> Result<()> {
    let lead_to = |pod: &str| {
        let ips = cluster.pod_addresses("net", pod)?;
        let ip = ips.into_iter().find(IpAddr::is_ipv4).context("no address")?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "moved-1", "namespace": "net", "labels": {"kubernetes.io/service-name": "moved"}},
            "ports": [{"name": "udp", "port": 8081, "protocol": "UDP"}],
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        });
        cluster.apply(&slice.to_string())
    };
    apply(cluster, "moved", &json!({}), &json!({"selector": null}))?;
    lead_to("near")?;
    let ips = cluster.service_addresses("net", "moved")?;
    let to = ips.into_iter().find(IpAddr::is_ipv4).context("no address")?;
    // One socket for as long as it lives; a new one when nc ends with an error.
    let ask = "while [ -e /tmp/moved ]; do echo hostname; sleep 0.5; done";
    let client =
        format!("touch /tmp/moved; (while [ -e /tmp/moved ]; do ({ask}) | nc -u {to} 90; done) >>/tmp/moved 2>&1 &");
    cluster.exec("net", "client", &["sh", "-c", &client])?;
    let hears = |pod: &str| {
        eventually(LONG, &format!("the client hears {pod}"), || {
            let heard = cluster.exec("net", "client", &["cat", "/tmp/moved"])?;
            ensure!(heard.contains(pod), "it has heard {heard:?}");
            Ok(())
        })
    };
    hears("near")?;
    lead_to("far")?;
    hears("far")?;
    cluster.exec("net", "client", &["rm", "/tmp/moved"])?;
    cluster.kubectl(&["delete", "endpointslice", "--namespace=net", "moved-1"])?;
    delete(cluster, "moved")
}

/// Waits for agents that have been killed, with the kubelet, which takes its time after several. Objects would say for a while that they are
/// ready still.
fn agents_healthy(cluster: &Cluster) -> Result<()> {
    eventually(Duration::from_secs(120), "agents are healthy", || {
        let ask = "curl -fsS http://127.0.0.1:9879/healthz";
        cluster.nodes().iter().try_for_each(|node| cluster.shell(node, ask).map(drop))
    })
}

/// On new connections and on long ones. `CILIUM_KILLS` says how often each agent is killed.
fn agents_killed(cluster: &Cluster) -> Result<()> {
    let kills = std::env::var("CILIUM_KILLS").map_or(Ok(3), |text| text.parse::<u32>())?;
    apply(cluster, "steady", &json!({}), &json!({"type": "NodePort"}))?;
    let http = port(cluster, "steady", 0)?;
    // Not the one from which requests go.
    let (outside, client) = (Netns::of_stranger(cluster, "long", &[54])?, Netns::of_pod(cluster, "net", "client")?);
    let own = cluster.service_addresses("net", "steady")?.into_iter().map(|ip| (&client, SocketAddr::new(ip, 80)));
    let nodes = (1..3).flat_map(node).map(|ip| (&outside, SocketAddr::new(ip, http)));
    let start = |(from, to): (&Netns, _)| Ok(Kept::start(from.try_clone()?, to, |_| false));
    let mut kept = Vec::new();
    under_requests(cluster, "steady", || {
        kept = own.chain(nodes).map(start).collect::<Result<_>>()?;
        kept.iter().try_for_each(|one: &Kept| one.goes_on(5))?;
        for _ in 0..kills {
            for node in cluster.nodes() {
                cluster.fault("kill", &format!("{node}/agent"))?;
            }
            agents_healthy(cluster)?;
        }
        product::ready(cluster)
    })?;
    kept.iter().try_for_each(|one| one.goes_on(5))?;
    for one in kept {
        let connections = one.finish()?;
        ensure!(connections == 1, "{connections} connections, and not one that lasts");
    }
    delete(cluster, "steady")
}
