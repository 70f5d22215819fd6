// SPDX-License-Identifier: Apache-2.0
//! DEL: may be called twice, for something that never existed, without its namespace and without an agent; it succeeds
//! unless something is left to remove later.

use super::client::{CallError, Client};
use super::error::{Code, Error};
use super::{Call, host_interface, wire};
use crate::queue::Queue;
use std::time::Duration;

/// How long DEL waits for the agent before queueing the deletion.
const PATIENCE: Duration = Duration::from_millis(1500);

pub(super) async fn del(call: &Call<'_>) -> Result<(), Error> {
    let id = call.environment.attachment()?;
    // Interface first: from then on no packet passes, and concurrent plugins do not wait for each other.
    let removed = wire::remove(&host_interface(&id)).await;
    forget(call, &id.container_id).await?;
    removed
}

async fn forget(call: &Call<'_>, container_id: &str) -> Result<(), Error> {
    match tell_agent(call, container_id, PATIENCE).await {
        Err(error) if error.is_not_found() => call.log.debug("the agent knows no such endpoint"),
        Err(error) if error.is_answer() => {
            return Err(error.into_error(&format!("container {container_id}: the agent cannot delete its endpoint")));
        }
        // The first thing that an agent does is to look there. Runtimes delete more than once, also after the node was cleaned.
        Err(_) if !call.environment.queue.is_dir() => {
            call.log.debug("no agent has been here since the node was started or cleaned: there is nothing to delete");
        }
        Err(error) => {
            call.log.warn(&format!("deletion queued: {}", statedb::with_causes(&error)));
            leave_note(call, container_id).await?;
        }
        Ok(()) => {}
    }
    Ok(())
}

async fn tell_agent(call: &Call<'_>, container_id: &str, patience: Duration) -> Result<(), CallError> {
    Client::connect(&call.environment.socket, patience).await?.delete_container(container_id).await
}

/// Queue first: an agent that comes up meanwhile either finds the entry or can be asked.
async fn leave_note(call: &Call<'_>, container_id: &str) -> Result<(), Error> {
    let queue = Queue::new(&call.environment.queue);
    let queued = queue.push(container_id).await;
    match tokio::time::timeout(PATIENCE, tell_agent(call, container_id, Duration::ZERO)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.is_not_found() => {}
        _ => {
            return queued.map_err(|e| {
                let message = format!("container {container_id}: the agent is away and the deletion cannot be queued");
                Error::because(Code::TryAgainLater, message, statedb::with_causes(&e))
            });
        }
    }
    if let Err(error) = queue.remove(container_id).await {
        call.log.warn(&format!("the deletion is done, but stays queued: {}", statedb::with_causes(&error)));
    }
    Ok(())
}
