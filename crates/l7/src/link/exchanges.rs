// SPDX-License-Identifier: Apache-2.0
//! How the agent learns of requests: on a socket of its own, so that these never hold up a configuration. The proxy writes, and the agent says
//! nothing.

use super::frame::{LinkError, read_up_to, write};
use crate::Exchange;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};

/// Longest frame that the agent takes.
const LONGEST: u32 = 16 << 20;

/// Requests that are told of together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exchanges {
    /// Requests that could not be told of since the last time.
    pub lost: u64,
    /// Those that are.
    pub exchanges: Vec<Exchange>,
}

impl Exchanges {
    /// Tells the agent.
    ///
    /// # Errors
    ///
    /// The agent is gone.
    pub async fn tell(&self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), LinkError> {
        write(writer, self).await?;
        Ok(writer.flush().await?)
    }

    /// Waits for what the proxy tells next.
    ///
    /// # Errors
    ///
    /// The proxy is gone, or sends what it may not.
    pub async fn hear(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<Self, LinkError> {
        read_up_to(reader, LONGEST).await
    }
}
