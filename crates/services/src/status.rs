// SPDX-License-Identifier: Apache-2.0
//! The replacement of kube-proxy in the agent's status.

use crate::config::{Config, Dispatch, Mode};
use datapath::bpf::XdpMode;
use model::Algorithm;
use rest::{KubeProxyReplacementFeatures, NodePort, StatusResponse, Switch};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Where Services are served before the stack, by device.
pub(crate) type Accelerated = watch::Receiver<BTreeMap<String, XdpMode>>;

/// Fills in all but the devices, which the node knows.
pub(crate) fn fill(config: &Config, before_stack: Accelerated) -> impl Fn(&mut StatusResponse) + use<> {
    let (on, traces) = (config.socket_lb(), config.trace_sockets);
    let (exposes, node_port) = (config.exposes(), node_port(config));
    let switch = |enabled| Some(Switch { enabled });
    move |status| {
        let replacement = status.kube_proxy_replacement.get_or_insert_default();
        replacement.mode = if on { "True" } else { "False" }.to_owned();
        replacement.features = Some(KubeProxyReplacementFeatures {
            socket_lb: switch(on),
            socket_lb_tracing: switch(on && traces),
            node_port: Some(NodePort { acceleration: acceleration(&before_stack.borrow()), ..node_port.clone() }),
            graceful_termination: switch(on),
            session_affinity: switch(on),
            external_ips: switch(exposes),
            host_port: switch(exposes),
            ..KubeProxyReplacementFeatures::default()
        });
    }
}

/// How Services are reached from outside; nothing but that they are not, where they are not.
fn node_port(config: &Config) -> NodePort {
    if !config.exposes() {
        return NodePort::default();
    }
    let dispatch = match config.dispatch {
        _ if !config.returns_directly() => "",
        Dispatch::Options => "IP Option/Extension",
        Dispatch::IpIp => "IPIP",
    };
    let mode = match config.forwarding {
        Mode::Snat => "SNAT",
        Mode::Dsr => "DSR",
        Mode::Hybrid => "Hybrid",
    };
    NodePort {
        enabled: true,
        mode: mode.to_owned(),
        dsr_mode: dispatch.to_owned(),
        algorithm: if config.algorithm == Algorithm::Maglev { "Maglev" } else { "Random" }.to_owned(),
        acceleration: String::new(),
        port_min: config.node_ports.first,
        port_max: config.node_ports.last,
        lut_size: config.maglev_size.0,
    }
}

/// What there is, as the API names it.
fn acceleration(by_device: &BTreeMap<String, XdpMode>) -> String {
    let has = |mode| by_device.values().any(|of_device| *of_device == mode);
    let name = match (has(XdpMode::Native), has(XdpMode::Generic)) {
        (false, false) => "None",
        (true, false) => "Native",
        (false, true) => "Generic",
        (true, true) => "Best-Effort",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(config: &Config, by_device: &[(&str, XdpMode)]) -> NodePort {
        let by_device = by_device.iter().map(|(device, mode)| ((*device).to_owned(), *mode)).collect();
        let mut status = StatusResponse::default();
        fill(config, watch::channel(by_device).1)(&mut status);
        status.kube_proxy_replacement.unwrap().features.unwrap().node_port.unwrap()
    }

    #[test]
    fn the_status_names_what_serves_before_the_stack() {
        let config = Config { kube_proxy_replacement: true, ..Config::default() };
        let (native, generic) = (("eth0", XdpMode::Native), ("eth1", XdpMode::Generic));
        for (by_device, name) in
            [(&[][..], "None"), (&[native], "Native"), (&[generic], "Generic"), (&[native, generic], "Best-Effort")]
        {
            assert_eq!(status(&config, by_device).acceleration, name);
        }
    }

    #[test]
    fn the_status_says_how_clients_outside_are_answered() {
        let config = Config { kube_proxy_replacement: true, ..Config::default() };
        let snat = status(&config, &[]);
        assert_eq!((snat.enabled, &*snat.mode, &*snat.dsr_mode), (true, "SNAT", ""));
        let native = Config { routing: model::RoutingMode::Native, ..config.clone() };
        for (forwarding, name) in [(Mode::Dsr, "DSR"), (Mode::Hybrid, "Hybrid")] {
            let direct = status(&Config { forwarding, ..native.clone() }, &[]);
            assert_eq!((&*direct.mode, &*direct.dsr_mode), (name, "IP Option/Extension"));
        }
        let inside = status(&Config { forwarding: Mode::Dsr, dispatch: Dispatch::IpIp, ..native }, &[]);
        assert_eq!(&*inside.dsr_mode, "IPIP");
        assert!(!status(&Config { kube_proxy_replacement: false, ..config }, &[]).enabled);
    }
}
