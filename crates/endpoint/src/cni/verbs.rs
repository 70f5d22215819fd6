// SPDX-License-Identifier: Apache-2.0
//! CHECK, STATUS and GC.

use super::client::Client;
use super::error::{Code, Error};
use super::{Call, host_interface, netns, wire};
use crate::reference::{AttachmentId, EndpointRef};
use rest::EndpointHealthStatus;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long to wait for the agent.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether an attachment still is as ADD left it.
pub(super) async fn check(call: &Call<'_>) -> Result<(), Error> {
    let id = call.environment.attachment()?;
    let namespace = netns::Namespace::open(call.environment.netns()?)?;
    let mut agent = connect(call, Code::TryAgainLater).await?;
    let query = |e| Error::because(Code::HealthQuery, format!("endpoint {id}: cannot read its health"), e);
    let health = agent.health(&id).await.map_err(query)?;
    if !matches!(health.overall_health, EndpointHealthStatus::Ok | EndpointHealthStatus::Disabled) {
        let message = format!("endpoint {id} is not healthy");
        return Err(Error::because(Code::Unhealthy, message, health.overall_health));
    }
    let want = wire::addresses_in(call.config.previous.as_ref());
    wire::check(&namespace, &id.interface, &want).await
}

/// Whether ADD could succeed.
pub(super) async fn status(call: &Call<'_>) -> Result<(), Error> {
    let mut agent = connect(call, Code::NotAvailable).await?;
    agent
        .agent_health()
        .await
        .map_err(|e| Error::because(Code::NotAvailable, "the Cilium agent of this node is not ready", e))
}

/// Removes attachments that the runtime does not know any more.
pub(super) async fn gc(call: &Call<'_>) -> Result<(), Error> {
    let Some(valid) = &call.config.valid_attachments else {
        let message = format!("network {:?}: GC needs cni.dev/valid-attachments", call.config.name);
        return Err(Error::new(Code::InvalidConfig, message));
    };
    let id = |a: &super::request::ValidAttachment| AttachmentId {
        container_id: a.container_id.clone(),
        interface: a.interface.clone(),
    };
    let valid: BTreeSet<_> = valid.iter().map(id).collect();
    let mut agent = connect(call, Code::TryAgainLater).await?;
    let present = agent.endpoints().await.map_err(|e| e.into_error("the agent does not list its endpoints"))?;
    let present = present.into_iter().filter_map(|e| e.status?.external_identifiers).map(|i| i.cni_attachment_id);
    for text in present {
        let Ok(EndpointRef::Attachment(id)) = format!("cni-attachment-id:{text}").parse() else { continue };
        if !valid.contains(&id) {
            call.log.info(&format!("{id} is not known to the runtime: removed"));
            remove(&mut agent, &id).await?;
        }
    }
    Ok(())
}

async fn remove(agent: &mut Client, id: &AttachmentId) -> Result<(), Error> {
    match agent.delete(id).await {
        Err(error) if !error.is_not_found() => {
            return Err(error.into_error(&format!("endpoint {id}: the agent cannot delete it")));
        }
        _ => {}
    }
    wire::remove(&host_interface(id)).await
}

async fn connect(call: &Call<'_>, code: Code) -> Result<Client, Error> {
    let away = |e| Error::because(code, "the Cilium agent of this node is not running", statedb::with_causes(&e));
    Client::connect(&call.environment.socket, PATIENCE).await.map_err(away)
}
