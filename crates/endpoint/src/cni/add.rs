// SPDX-License-Identifier: Apache-2.0
//! ADD: addresses, interface, datapath, in that order, and rollback if one fails.

use super::client::Client;
use super::error::{Code, Error};
use super::request::PodArgs;
use super::result::Added;
use super::{Call, host_interface, netns, wire};
use crate::reference::AttachmentId;
use crate::rest::{DaemonConfigurationStatus, EndpointChangeRequest, IpamResponse};
use serde_json::Value;
use std::net::IpAddr;

pub(super) async fn add(call: &Call<'_>) -> Result<Value, Error> {
    let id = call.environment.attachment()?;
    let path = call.environment.netns()?;
    let pod = PodArgs::parse(&call.environment.args)?;
    // Check this before asking the agent: a namespace that is gone needs no address.
    let namespace = netns::Namespace::open(path)?;
    let away = |e: super::client::CallError| e.into_error("the Cilium agent of this node is not running");
    let mut agent = Client::connect(&call.environment.socket, call.environment.patience).await.map_err(away)?;
    let config = agent.config().await.map_err(|e| e.into_error("the agent does not tell its configuration"))?;
    call.log.debug(&format!("pod={}/{}: agent answers", pod.namespace, pod.name));
    let owner = pod.owner();
    let addresses = agent.allocate(&owner).await.map_err(|e| e.into_error(&format!("pod {owner}: no address")))?;
    let plan = Plan { call, id: &id, pod: &pod, config: &config, addresses: &addresses };
    let mut done = Done::default();
    match attach(&mut agent, &plan, &namespace, &mut done).await {
        Ok(added) => Ok(added.to_json(call.version)),
        Err(error) => {
            undo(&mut agent, &plan, &done).await;
            Err(error)
        }
    }
}

/// What to undo on failure, and no more: a second ADD of an attachment must not harm the first.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    link: bool,
    endpoint: bool,
}

/// What is known before the interface is created.
struct Plan<'a> {
    call: &'a Call<'a>,
    id: &'a AttachmentId,
    pod: &'a PodArgs,
    config: &'a DaemonConfigurationStatus,
    addresses: &'a IpamResponse,
}

impl Plan<'_> {
    fn link(&self) -> Result<wire::Link, Error> {
        let configured = self.call.config.mtu;
        Ok(wire::Link {
            host_name: host_interface(self.id),
            pod_name: self.id.interface.clone(),
            mtu: if configured == 0 { self.config.device_mtu } else { configured },
            route_mtu: self.config.route_mtu,
            addresses: self.addresses_and_gateways()?,
        })
    }

    /// IPv6 before IPv4.
    fn addresses_and_gateways(&self) -> Result<Vec<(IpAddr, IpAddr)>, Error> {
        let gateway = |ip: IpAddr| {
            let host = &self.addresses.host_addressing;
            let gateway = if ip.is_ipv4() { host.ipv4.ip } else { host.ipv6.ip };
            gateway.ok_or_else(|| {
                Error::new(Code::TryAgainLater, format!("address {ip}: the agent has no gateway for its family yet"))
            })
        };
        let pairs: Vec<_> =
            self.addresses.address.iter().map(|ip| Ok((ip, gateway(ip)?))).collect::<Result<_, Error>>()?;
        if pairs.is_empty() {
            return Err(Error::new(Code::InvalidConfig, "the agent assigns neither IPv4 nor IPv6 addresses"));
        }
        Ok(pairs)
    }

    fn request(&self, made: &wire::Made, link: &wire::Link) -> EndpointChangeRequest {
        EndpointChangeRequest {
            container_id: self.id.container_id.clone(),
            container_netns_path: self.call.environment.netns.clone(),
            netns_cookie: made.netns_cookie.to_string(),
            container_interface_name: self.id.interface.clone(),
            interface_name: link.host_name.clone(),
            interface_index: made.host_ifindex,
            mac: Some(made.mac),
            host_mac: Some(made.host_mac),
            addressing: self.addresses.address.clone(),
            k8s_pod_name: self.pod.name.clone(),
            k8s_namespace: self.pod.namespace.clone(),
            k8s_uid: self.pod.uid.clone(),
            state: "waiting-for-identity".into(),
            sync_build_endpoint: true,
        }
    }
}

async fn attach(
    agent: &mut Client,
    plan: &Plan<'_>,
    namespace: &netns::Namespace,
    done: &mut Done,
) -> Result<Added, Error> {
    let link = plan.link()?;
    let made = wire::make(&link, namespace, &plan.config.ip_local_reserved_ports).await?;
    plan.call.log.debug(&format!("{} made with index {}", link.host_name, made.host_ifindex));
    let subject = format!("pod {}/{}: no network", plan.pod.namespace, plan.pod.name);
    done.link = true;
    // Without a response it is unknown whether the endpoint was created; the interface is new, so it can only be ours.
    done.endpoint = true;
    agent.create(plan.id, &plan.request(&made, &link)).await.map_err(|e| e.into_error(&subject))?;
    Ok(Added {
        host_interface: link.host_name,
        host_mac: made.host_mac,
        interface: link.pod_name,
        mac: made.mac,
        netns: plan.call.environment.netns.clone(),
        mtu: link.mtu,
        addresses: link.addresses,
    })
}

/// Cleans up. What cannot be undone now is left to the DEL that follows a failed ADD.
async fn undo(agent: &mut Client, plan: &Plan<'_>, done: &Done) {
    let log = plan.call.log;
    if done.link
        && let Err(error) = wire::remove(&host_interface(plan.id)).await
    {
        log.warn(&format!("interface stays: {error}"));
    }
    if done.endpoint
        && let Err(error) = agent.delete(plan.id).await
        && !error.is_not_found()
    {
        log.warn(&format!("endpoint stays with the agent: {error}"));
    }
    for ip in plan.addresses.address.iter() {
        if let Err(error) = agent.release(&plan.pod.owner(), ip).await {
            log.warn(&format!("address {ip} stays until its lease ends: {error}"));
        }
    }
}
