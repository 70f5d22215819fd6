// SPDX-License-Identifier: Apache-2.0
//! The lines of `cilium-dbg status`, in the order of the published tool.

use super::ClusterHealth;
use crate::health::render as cluster_health;
use crate::hubble::duration;
use crate::table::Table;
use rest::{
    BandwidthManager, BigTcp, ControllerStatus, HubbleStatus, IpamStatus, KubeProxyReplacement, Masquerading,
    NodeElement, Routing, State, Status, StatusResponse,
};

/// How much detail to show.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Detail {
    pub(super) addresses: bool,
    pub(super) controllers: bool,
    pub(super) health: bool,
    pub(super) nodes: bool,
    pub(super) verbose: bool,
}

const DISABLED: &str = "Disabled";

/// Titles with their values.
#[derive(Default)]
struct Lines(Table);

impl Lines {
    fn add(&mut self, label: &str, value: impl Into<String>) {
        self.0.row([format!("{label}:"), value.into()]);
    }
}

pub(super) fn render(status: &StatusResponse, health: &ClusterHealth, detail: Detail) -> String {
    let mut table = lines(status, detail);
    if !detail.verbose {
        short_health(&mut table, health, detail);
    }
    let mut text = table.to_string();
    if detail.verbose
        && let Some(kpr) = &status.kube_proxy_replacement
    {
        text.push_str(&kube_proxy_details(kpr));
    }
    if detail.verbose {
        text.push_str(&maps(status));
        text.push_str(&verbose_health(health, detail));
    }
    if detail.nodes {
        text.push_str(&nodes(status));
    }
    text
}

/// The agent's own status.
pub(super) fn lines(status: &StatusResponse, detail: Detail) -> Table {
    let mut lines = Lines::default();
    platform(&mut lines, status);
    agent(&mut lines, status, detail);
    datapath(&mut lines, status);
    services(&mut lines, status, detail);
    lines.0
}

/// Nodes listed because they are unhealthy.
const UNWELL: usize = 10;

fn short_health(table: &mut Table, health: &ClusterHealth, detail: Detail) {
    match health {
        ClusterHealth::Disabled => table.row(["Cluster health:", "Probe disabled"]),
        ClusterHealth::Away => table.row(["Cluster health:", "Warning   cilium-health daemon unreachable"]),
        ClusterHealth::Known(found) if detail.health => cluster_health::table(table, found),
        ClusterHealth::Known(found) => cluster_health::unwell(table, found, UNWELL),
    }
}

fn verbose_health(health: &ClusterHealth, detail: Detail) -> String {
    if let ClusterHealth::Known(found) = health {
        return cluster_health::blocks(found);
    }
    let mut table = Table::default();
    short_health(&mut table, health, detail);
    table.to_string()
}

fn platform(lines: &mut Lines, status: &StatusResponse) {
    lines.add("KVStore", status_line(status.kvstore.as_ref()));
    if let Some(runtime) = &status.container_runtime {
        lines.add("ContainerRuntime", status_line(Some(runtime)));
    }
    if let Some(kubernetes) = &status.kubernetes {
        lines.add("Kubernetes", with_message(kubernetes.state, &kubernetes.msg));
        if kubernetes.state != State::Failure && !kubernetes.k8s_api_versions.is_empty() {
            let apis: Vec<String> = kubernetes.k8s_api_versions.iter().map(|api| format!("{api:?}")).collect();
            lines.add("Kubernetes APIs", format!("[{}]", apis.join(", ")));
        }
    }
    let kpr = status.kube_proxy_replacement.as_ref();
    lines.add("KubeProxyReplacement", kpr.map_or_else(|| DISABLED.to_owned(), kube_proxy));
    let firewall = status.host_firewall.as_ref().filter(|firewall| firewall.mode == "Enabled");
    let firewall = firewall.map(|f| format!("Enabled   [{}]", f.devices.join(", ")));
    lines.add("Host firewall", firewall.unwrap_or_else(|| DISABLED.to_owned()));
    let srv6 = status.srv6.as_ref().filter(|srv6| srv6.enabled);
    lines
        .add("SRv6", srv6.map_or_else(|| DISABLED.to_owned(), |s| format!("Enabled   [encap-mode: {}]", s.encap_mode)));
    let chaining = status.cni_chaining.as_ref().map(|chaining| chaining.mode.clone());
    lines.add("CNI Chaining", chaining.unwrap_or_else(|| "none".to_owned()));
    if let Some(file) = &status.cni_file {
        let message = if file.msg.is_empty() { file.state.to_string() } else { file.msg.clone() };
        lines.add("CNI Config file", message);
    }
}

fn agent(lines: &mut Lines, status: &StatusResponse, detail: Detail) {
    lines.add("Cilium", status_line(status.cilium.as_ref()));
    for (probe, since) in &status.stale {
        lines.add("Stale status", format!("{probe} since {since}"));
    }
    let monitor = status.node_monitor.as_ref().map(|m| {
        let memory = format!("{}x{} of shared memory", m.npages, m.pagesize);
        let lost =
            if m.lost + m.unknown > 0 { format!("\t{} lost, {} unknown", m.lost, m.unknown) } else { String::new() };
        format!("Listening for events on {} CPUs with {memory}{lost}", m.cpus)
    });
    lines.add("NodeMonitor", monitor.unwrap_or_else(|| DISABLED.to_owned()));
    let health = status.cluster.as_ref().and_then(|cluster| cluster.cilium_health.as_ref());
    lines.add("Cilium health daemon", status_line(health));
    if let Some(ipam) = &status.ipam {
        lines.add("IPAM", ipam.status.clone());
        if detail.addresses {
            addresses(lines, ipam);
        }
    }
    let clusters = status.cluster_mesh.as_ref().map(|mesh| &mesh.clusters);
    let ready = |clusters: &Vec<rest::RemoteCluster>| {
        let ready = clusters.iter().filter(|cluster| cluster.ready).count();
        format!("{ready}/{} remote clusters ready", clusters.len())
    };
    lines.add("ClusterMesh", clusters.map_or_else(|| DISABLED.to_owned(), ready));
}

fn addresses(lines: &mut Lines, ipam: &IpamStatus) {
    if ipam.allocations.is_empty() {
        return;
    }
    lines.add("Allocated addresses", "");
    for (address, owner) in &ipam.allocations {
        lines.0.row([format!("  {address} ({owner})")]);
    }
}

fn datapath(lines: &mut Lines, status: &StatusResponse) {
    lines.add("IPv4 BIG TCP", big_tcp(status.ipv4_big_tcp.as_ref()));
    lines.add("IPv6 BIG TCP", big_tcp(status.ipv6_big_tcp.as_ref()));
    lines.add("BandwidthManager", bandwidth(status.bandwidth_manager.as_ref()));
    if let Some(route) = &status.routing {
        lines.add("Routing", routing(route));
    }
    if !status.attach_mode.is_empty() {
        lines.add("Attach Mode", if status.attach_mode == "tcx" { "TCX" } else { "Legacy TC" });
    }
    if !status.datapath_mode.is_empty() {
        lines.add("Device Mode", status.datapath_mode.clone());
    }
    if let Some(masquerade) = &status.masquerading {
        lines.add("Masquerading", masquerading(masquerade, status));
    }
}

fn services(lines: &mut Lines, status: &StatusResponse, detail: Detail) {
    if let Some(clock) = status.clock_source.as_ref().filter(|_| detail.verbose) {
        let rate = if clock.hertz > 0 { format!("   [{} Hz]", clock.hertz) } else { String::new() };
        lines.add("Clock Source for BPF", format!("{}{rate}", clock.mode));
    }
    controllers(lines, &status.controllers, detail);
    let proxy = status.proxy.as_ref().map(|p| {
        let (count, range) = (p.total_redirects, &p.port_range);
        format!("OK, ip {}, {count} redirects active on ports {range}, Envoy: {}", p.ip, p.envoy_deployment_mode)
    });
    lines.add("Proxy Status", proxy.unwrap_or_else(|| "No managed proxy redirect".to_owned()));
    if let Some(range) = &status.identity_range {
        lines.add("Global Identity Range", format!("min {}, max {}", range.min_identity, range.max_identity));
    }
    let hubble = status.hubble.as_ref();
    lines.add("Hubble", hubble.map_or_else(|| DISABLED.to_owned(), |h| flows(h, status.hubble_metrics.as_ref())));
    let encryption = status.encryption.as_ref();
    let encryption = encryption.map(|e| [e.mode.as_str(), e.msg.as_str()].join(" ").trim().to_owned());
    lines.add("Encryption", encryption.unwrap_or_else(|| DISABLED.to_owned()));
}

fn status_line(status: Option<&Status>) -> String {
    status.map_or_else(|| DISABLED.to_owned(), |status| with_message(status.state, &status.msg))
}

fn with_message(state: State, message: &str) -> String {
    if message.is_empty() { state.to_string() } else { format!("{state}   {message}") }
}

fn kube_proxy(kpr: &KubeProxyReplacement) -> String {
    let devices: Vec<String> = kpr
        .device_list
        .iter()
        .map(|device| {
            let direct = if device.name == kpr.direct_routing_device { " (Direct Routing)" } else { "" };
            format!("{} {}{direct}", device.name, device.ip.join(" "))
        })
        .collect();
    let devices = if devices.is_empty() { kpr.devices.clone() } else { devices };
    if devices.is_empty() { kpr.mode.clone() } else { format!("{}   [{}]", kpr.mode, devices.join(", ")) }
}

fn big_tcp(big: Option<&BigTcp>) -> String {
    match big.filter(|big| big.enabled) {
        Some(big) => format!("Enabled   [{}]", big.max_gso),
        None => DISABLED.to_owned(),
    }
}

fn bandwidth(manager: Option<&BandwidthManager>) -> String {
    match manager.filter(|manager| manager.enabled) {
        Some(m) => format!("EDT with BPF [{}] [{}]", m.congestion_control.to_uppercase(), m.devices.join(", ")),
        None => DISABLED.to_owned(),
    }
}

fn routing(routing: &Routing) -> String {
    let tunnel = &routing.tunnel_protocol;
    let tunnel = if tunnel.is_empty() { String::new() } else { format!(" [{tunnel}]") };
    format!("Network: {}{tunnel}   Host: {}", routing.inter_host_routing_mode, routing.intra_host_routing_mode)
}

fn masquerading(masquerade: &Masquerading, status: &StatusResponse) -> String {
    if !masquerade.enabled {
        return DISABLED.to_owned();
    }
    let on = |enabled: bool| if enabled { "Enabled" } else { DISABLED };
    let families = masquerade.enabled_protocols.clone().unwrap_or_default();
    let families = format!("[IPv4: {}, IPv6: {}]", on(families.ipv4), on(families.ipv6));
    if masquerade.mode != "BPF" {
        return format!("IPTables {families}");
    }
    let devices = status.kube_proxy_replacement.as_ref().map(|kpr| kpr.devices.join(", ")).unwrap_or_default();
    let excluded = [&masquerade.snat_exclusion_cidr_v4, &masquerade.snat_exclusion_cidr_v6];
    let excluded: Vec<&str> = excluded.into_iter().map(String::as_str).filter(|cidr| !cidr.is_empty()).collect();
    let agent = if masquerade.ip_masq_agent { " (ip-masq-agent)" } else { "" };
    let excluded = if excluded.is_empty() { String::new() } else { excluded.join(" ") + " " };
    format!("BPF{agent}   [{devices}]   {excluded}{families}")
}

fn controllers(lines: &mut Lines, controllers: &[ControllerStatus], detail: Detail) {
    let failing = |c: &&ControllerStatus| c.status.as_ref().is_some_and(|s| s.consecutive_failure_count > 0);
    let bad: Vec<&ControllerStatus> = controllers.iter().filter(failing).collect();
    lines.add("Controller Status", format!("{}/{} healthy", controllers.len() - bad.len(), controllers.len()));
    let shown: Vec<_> = if detail.controllers { controllers.iter().collect() } else { bad };
    if shown.is_empty() {
        return;
    }
    let mut table = Table::new(["Name", "Last success", "Last error", "Count", "Message"]);
    for controller in shown {
        let run = controller.status.clone().unwrap_or_default();
        let when = |time: String| if time.is_empty() { "never".to_owned() } else { time };
        let message = if run.last_failure_msg.is_empty() { "no error".to_owned() } else { run.last_failure_msg };
        table.row([
            controller.name.clone(),
            when(run.last_success_timestamp),
            when(run.last_failure_timestamp),
            run.consecutive_failure_count.to_string(),
            message,
        ]);
    }
    for line in table.to_string().lines() {
        lines.0.row([format!("  {line}")]);
    }
}

fn flows(hubble: &HubbleStatus, metrics: Option<&Status>) -> String {
    if hubble.state == State::Disabled {
        return DISABLED.to_owned();
    }
    let mut text = with_message(hubble.state, &hubble.msg);
    if let Some(observer) = &hubble.observer {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (current, max, seen) =
            (observer.current_flows as f64, observer.max_flows.max(1) as f64, observer.seen_flows as f64);
        let share = current / max * 100.0;
        text.push_str(&format!(
            "   Current/Max Flows: {}/{} ({share:.2}%)",
            observer.current_flows, observer.max_flows
        ));
        if let Some(uptime) = duration(&observer.uptime).filter(|uptime| !uptime.is_zero()) {
            text.push_str(&format!(", Flows/s: {:.2}", seen / uptime.as_secs_f64()));
        }
    }
    let metrics = metrics.map_or_else(|| DISABLED.to_owned(), |m| with_message(m.state, &m.msg));
    format!("{text}   Metrics: {metrics}")
}

fn kube_proxy_details(kpr: &KubeProxyReplacement) -> String {
    let features = kpr.features.clone().unwrap_or_default();
    let on = |enabled: bool| if enabled { "Enabled" } else { DISABLED };
    let switch = |switch: &Option<rest::Switch>| on(switch.as_ref().is_some_and(|s| s.enabled));
    let node_port = features.node_port.clone().unwrap_or_default();
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let coverage = if features.bpf_socket_lb_hostns_only { "Hostns-only" } else { "Full" };
    let ports = format!("Enabled (Range: {}-{})", node_port.port_min, node_port.port_max);
    let mut lines = Table::default();
    let mut add = |label: &str, value: String| lines.row([format!("  {label}:"), value]);
    add("Status", kpr.mode.clone());
    add("Socket LB", switch(&features.socket_lb).to_owned());
    add("Socket LB Tracing", switch(&features.socket_lb_tracing).to_owned());
    add("Socket LB Coverage", coverage.to_owned());
    add("Devices", kpr.devices.join(", "));
    add("Mode", or(&node_port.mode, DISABLED));
    if !node_port.dsr_mode.is_empty() {
        add("DSR Dispatch Mode", node_port.dsr_mode.clone());
    }
    add("Backend Selection", or(&node_port.algorithm, "Random"));
    add("Session Affinity", switch(&features.session_affinity).to_owned());
    add("NAT46/64 Support", on(features.nat46_x64.as_ref().is_some_and(|n| n.enabled)).to_owned());
    let accelerated = Some(&node_port.acceleration).filter(|how| *how != "None");
    add("XDP Acceleration", or(accelerated.map_or("", |how| how), DISABLED));
    add("Services", String::new());
    add("- ClusterIP", "Enabled".to_owned());
    add("- NodePort", if node_port.enabled { ports } else { DISABLED.to_owned() });
    add("- LoadBalancer", on(node_port.enabled).to_owned());
    add("- externalIPs", switch(&features.external_ips).to_owned());
    add("- HostPort", switch(&features.host_port).to_owned());
    add("Annotations", features.annotations.join(", "));
    format!("KubeProxyReplacement Details:\n{lines}")
}

fn maps(status: &StatusResponse) -> String {
    let Some(maps) = &status.bpf_maps else { return String::new() };
    let mut table = Table::new(["  Name", "Size"]);
    for map in &maps.maps {
        table.row([format!("  {}", map.name), map.size.to_string()]);
    }
    format!("BPF Maps:   dynamic sizing ratio: {}\n{table}", maps.dynamic_size_ratio)
}

fn nodes(status: &StatusResponse) -> String {
    let Some(cluster) = &status.cluster else { return String::new() };
    let name = |node: &NodeElement| {
        let local = if node.name == cluster.self_name { " (localhost)" } else { "" };
        format!("  {}{local}:", node.name)
    };
    let mut table = Table::default();
    for node in &cluster.nodes {
        let addresses = node.primary_address.clone().unwrap_or_default();
        let used = |element: Option<rest::NodeAddressingElement>| element.filter(|e| !e.ip.is_empty());
        let all = [used(addresses.ipv4), used(addresses.ipv6)].into_iter().flatten();
        let all: Vec<String> = all.map(|e| format!("{} ({})", e.ip, e.alloc_range)).collect();
        table.row([name(node), all.join(", ")]);
    }
    format!("Nodes:\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> StatusResponse {
        serde_json::from_str(include_str!("../../../tests/golden/status.json")).unwrap()
    }

    #[test]
    fn every_line_has_its_place() {
        let text = render(&status(), &ClusterHealth::Disabled, Detail::default());
        assert_eq!(text, include_str!("../../../tests/golden/status.txt"));
    }

    #[test]
    fn an_agent_that_says_nothing_has_everything_disabled() {
        let text = render(&StatusResponse::default(), &ClusterHealth::Away, Detail::default());
        assert!(text.starts_with("KVStore:") && text.contains("Hubble:") && !text.contains("Kubernetes:"), "{text}");
        assert!(text.contains("Controller Status:      0/0 healthy\n"), "{text}");
    }

    #[test]
    fn the_verbose_form_adds_addresses_controllers_services_nodes_and_probes() {
        let detail = Detail { addresses: true, controllers: true, health: true, nodes: true, verbose: true };
        let text = render(&status(), &ClusterHealth::Known(cluster_health::tests::status()), detail);
        for part in
            ["10.0.0.10 (shop/web-1)", "sync-nodes", "- NodePort:", "blue/n1 (localhost):", "ktime", "ICMP to stack:"]
        {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn only_nodes_that_are_not_well_are_listed_unless_all_are_wanted() {
        let health = ClusterHealth::Known(cluster_health::tests::status());
        let text = render(&status(), &health, Detail::default());
        assert!(text.contains("Cluster health:          1/2 reachable   (2026-01-31T12:00:00Z)"), "{text}");
        assert!(!text.contains("n3 (localhost)") && text.contains("  blue/n2"), "{text}");
        let text = render(&status(), &health, Detail { health: true, ..Detail::default() });
        assert!(text.contains("n3 (localhost)") && text.contains("  blue/n2"), "{text}");
        let text = render(&status(), &ClusterHealth::Away, Detail::default());
        assert!(text.ends_with("Cluster health:          Warning   cilium-health daemon unreachable\n"), "{text}");
    }
}
