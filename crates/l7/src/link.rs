// SPDX-License-Identifier: Apache-2.0
//! How snapshots get from the agent to the proxy: frames on a unix socket at which the agent listens.
//!
//! ```text
//! proxy ── Hello ─► agent     which versions of this protocol the proxy speaks, and which pod it is
//!       ◄─ Hello ──           the one that is spoken
//!       ◄─ Begin, Set…, Remove…, Commit      everything at first, changes from then on
//!       ── Status ─►          what is in force, and which objects are not
//!       ── Leaving ─►         clients are to go elsewhere from now on
//! ```
//!
//! One update is under way at a time: what changes meanwhile is part of the next one. A frame is its length, four bytes in network
//! order, and JSON.

mod exchanges;
mod frame;
#[cfg(fuzzing)]
pub mod fuzz;
mod publish;
mod sockets;

pub use exchanges::Exchanges;
pub use frame::LinkError;
pub use publish::{Link, Published, State, accept};
pub use sockets::{Answers, NodeLine, NodeSockets, SOCKETS};

use crate::{Key, Object, Update, Version};
use frame::{read, write};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};

#[cfg(test)]
mod tests;

/// Name of the socket for [`Exchanges`], in the folder of the other. It is there while somebody wants to know of requests.
pub const REQUESTS: &str = "requests.sock";

/// Versions of the protocol that this build speaks.
const SPOKEN: RangeInclusive<u32> = 1..=1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ToProxy {
    Hello { protocol: u32 },
    Begin { version: Version, complete: bool },
    Set(Object),
    Remove(Key),
    Commit,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum FromProxy {
    Hello {
        oldest: u32,
        newest: u32,
        #[serde(default)]
        pod: String,
    },
    Status(Status),
    Leaving,
}

/// What the proxy has of what it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// All of this snapshot is in force but for the objects at fault.
    pub version: Version,
    /// What could not be put into force. Of such an object the proxy keeps the last state that it could use.
    pub faults: Vec<Fault>,
}

/// Why an object is not in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The object.
    pub object: Key,
    /// For people: the field, and what is wrong with it.
    pub reason: String,
    /// It is about a part of the object: the rest of it is in force.
    #[serde(default)]
    pub partial: bool,
}

/// What the agent has sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// Which snapshot it makes.
    pub version: Version,
    /// Whether it is all of the snapshot; otherwise it changes the one before.
    pub complete: bool,
    /// The objects.
    pub update: Update,
}

/// The proxy's reading end.
#[derive(Debug)]
pub struct Updates<R>(R);

/// The proxy's writing end.
#[derive(Debug)]
pub struct Reports<W>(W);

/// Greets the agent, from the proxy in that pod (`NAMESPACE/NAME`, or nothing).
///
/// # Errors
///
/// The agent is gone, speaks something else, or no version that this build does.
pub async fn greet<R, W>(mut reader: R, mut writer: W, pod: &str) -> Result<(Updates<R>, Reports<W>), LinkError>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    write(&mut writer, &FromProxy::Hello { oldest: *SPOKEN.start(), newest: *SPOKEN.end(), pod: pod.to_owned() })
        .await?;
    writer.flush().await?;
    match read(&mut reader).await? {
        ToProxy::Hello { protocol } if SPOKEN.contains(&protocol) => Ok((Updates(reader), Reports(writer))),
        ToProxy::Hello { protocol } => Err(LinkError::NoCommonVersion { oldest: protocol, newest: protocol }),
        _ => Err(LinkError::OutOfTurn),
    }
}

impl<R: AsyncBufRead + Unpin> Updates<R> {
    /// Waits for the next update and all of its objects.
    ///
    /// # Errors
    ///
    /// The agent is gone or sends what it may not. Nothing of an update that was begun is to be used.
    pub async fn next(&mut self) -> Result<Received, LinkError> {
        let ToProxy::Begin { version, complete } = read(&mut self.0).await? else {
            return Err(LinkError::OutOfTurn);
        };
        let mut update = Update::default();
        loop {
            match read(&mut self.0).await? {
                ToProxy::Set(object) => update.set.push(object),
                ToProxy::Remove(key) => update.remove.push(key),
                ToProxy::Commit => return Ok(Received { version, complete, update }),
                ToProxy::Hello { .. } | ToProxy::Begin { .. } => return Err(LinkError::OutOfTurn),
            }
        }
    }
}

impl<W: AsyncWrite + Unpin> Reports<W> {
    /// Tells the agent what is in force.
    ///
    /// # Errors
    ///
    /// The agent is gone.
    pub async fn send(&mut self, status: Status) -> Result<(), LinkError> {
        write(&mut self.0, &FromProxy::Status(status)).await?;
        Ok(self.0.flush().await?)
    }

    /// Tells the agent that the proxy is about to end.
    ///
    /// # Errors
    ///
    /// The agent is gone.
    pub async fn leave(&mut self) -> Result<(), LinkError> {
        write(&mut self.0, &FromProxy::Leaving).await?;
        Ok(self.0.flush().await?)
    }
}
