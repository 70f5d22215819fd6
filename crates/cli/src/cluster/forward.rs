// SPDX-License-Identifier: Apache-2.0
//! `cilium hubble ui` and `cilium hubble port-forward`: a port of this machine that leads through the API server to a pod behind a Service.

use super::Place;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use k8s::k8s_openapi::api::core::v1::{Pod, Service};
use k8s::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s::kube::Api;
use k8s::kube::api::ListParams;
use std::net::Ipv4Addr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// Forward a port of this machine to hubble-ui, and say where to point the browser.
    Ui(Ui),
    /// Forward a port of this machine to hubble-relay, for the command `hubble`.
    PortForward(Relay),
}

#[derive(Args, Debug)]
pub(super) struct Ui {
    /// The port of this machine; 0 for any.
    #[arg(long, default_value_t = 12000)]
    port_forward: u16,
}

#[derive(Args, Debug)]
pub(super) struct Relay {
    /// The port of this machine; 0 for any.
    #[arg(long, default_value_t = 4245)]
    port_forward: u16,
}

/// Where connections go: a pod, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    pod: String,
    port: u16,
}

/// Forwards until it is interrupted.
pub(super) async fn run(place: &Place, command: &Commands) -> Result<()> {
    let (name, forwarder) = match command {
        Commands::Ui(Ui { port_forward }) => {
            ("Hubble UI: http://", Forwarder::open(place, ("hubble-ui", "hubble.ui.enabled"), *port_forward).await?)
        }
        Commands::PortForward(Relay { port_forward }) => {
            ("Hubble Relay: ", Forwarder::to_relay(place, *port_forward).await?)
        }
    };
    println!("{name}localhost:{}", forwarder.port()?);
    forwarder.run().await
}

/// A port of this machine, and the pods that it leads to.
pub(crate) struct Forwarder {
    listener: TcpListener,
    pods: Api<Pod>,
    service: Service,
}

impl Forwarder {
    /// To hubble-relay.
    pub(crate) async fn to_relay(place: &Place, port: u16) -> Result<Self> {
        Self::open(place, ("hubble-relay", "hubble.relay.enabled"), port).await
    }

    /// To a Service, which is there if the chart's value is true.
    async fn open(place: &Place, (name, value): (&str, &str), port: u16) -> Result<Self> {
        let client = place.connect().await?;
        let services = client.namespaced::<Service>(&place.namespace);
        let service = services.get_opt(name).await?;
        let service =
            service.with_context(|| format!("there is no Service {name}: the chart makes it with {value}=true"))?;
        let pods = client.namespaced::<Pod>(&place.namespace);
        // Said before anybody connects.
        find(&pods, &service).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("port {port} of this machine"))?;
        Ok(Self { listener, pods, service })
    }

    pub(crate) fn port(&self) -> Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Carries connections, for ever.
    pub(crate) async fn run(self) -> Result<()> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let (pods, service) = (self.pods.clone(), self.service.clone());
            tokio::spawn(async move {
                if let Err(error) = connect(&pods, &service, stream).await {
                    eprintln!("{error:#}");
                }
            });
        }
    }
}

/// Carries one connection; the pod is looked for each time, since it may have been replaced.
async fn connect(pods: &Api<Pod>, service: &Service, mut stream: TcpStream) -> Result<()> {
    let Target { pod, port } = find(pods, service).await?;
    let mut forwarder = pods.portforward(&pod, &[port]).await.with_context(|| format!("forward to {pod}"))?;
    let mut other = forwarder.take_stream(port).context("the API server forwards nothing")?;
    // However it ends is how the pod or the browser wanted it.
    let _ = copy_bidirectional(&mut stream, &mut other).await;
    Ok(())
}

async fn find(pods: &Api<Pod>, service: &Service) -> Result<Target> {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    let selector: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let list = pods.list(&ListParams::default().labels(&selector.join(","))).await?;
    target(service, &list.items)
}

/// The first pod that is ready, and the port that the Service's first one means there.
fn target(service: &Service, pods: &[Pod]) -> Result<Target> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let Some(pod) = pods.iter().find(|pod| is_ready(pod)) else { bail!("no pod of {name} is ready") };
    let port = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()?.first());
    let port = port.with_context(|| format!("the Service {name} has no port"))?;
    let number = match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(named)) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|port| port.name.as_ref() == Some(named)).map(|port| port.container_port)
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    let port = number.with_context(|| format!("no port of the pods is the one of the Service {name}"))?;
    Ok(Target { pod: pod.metadata.name.clone().unwrap_or_default(), port })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, ready: &str) -> Pod {
        read(json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "frontend", "ports": [{"name": "http", "containerPort": 8081}]}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    fn service(port: &Value) -> Service {
        read(json!({"metadata": {"name": "hubble-ui"}, "spec": {"ports": [port]}}))
    }

    #[test]
    fn connections_go_to_a_pod_that_is_ready_at_the_port_that_the_service_means() {
        let pods = [pod("a", "False"), pod("b", "True")];
        for (port, want) in [
            (json!({"port": 80, "targetPort": "http"}), 8081),
            (json!({"port": 80, "targetPort": 9000}), 9000),
            (json!({"port": 80}), 80),
        ] {
            let want = Target { pod: "b".to_owned(), port: want };
            assert_eq!(target(&service(&port), &pods).unwrap(), want, "{port}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let http = json!({"port": 80, "targetPort": "http"});
        let said = target(&service(&http), &[pod("a", "False")]).unwrap_err().to_string();
        assert_eq!(said, "no pod of hubble-ui is ready");
        let said = target(&service(&json!({"port": 80, "targetPort": "grpc"})), &[pod("a", "True")]);
        assert!(said.unwrap_err().to_string().contains("no port of the pods"));
        let mut leaving = pod("a", "True");
        leaving.metadata.deletion_timestamp = read(json!("2026-01-01T00:00:00Z"));
        assert!(target(&service(&http), &[leaving]).is_err());
    }
}
