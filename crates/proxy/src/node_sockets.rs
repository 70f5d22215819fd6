// SPDX-License-Identifier: Apache-2.0
//! The node's own sockets are asked of the agent, on a thread where nobody waits for the answer.

use l7::Place;
use l7::link::{Answers, NodeLine};
use parking_lot::Mutex;
use socket2::Socket;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The agent. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct NodeSockets(Arc<Mutex<NodeLine>>);

impl NodeSockets {
    /// Of the agent whose other socket this is.
    pub(crate) fn of(agent: &Path) -> Self {
        Self(Arc::new(Mutex::new(NodeLine::new(agent.with_file_name(l7::link::SOCKETS)))))
    }

    /// Asks for sockets, and tells of those that are held.
    ///
    /// # Errors
    ///
    /// The agent is away.
    pub(crate) async fn ask(&self, held: HashMap<Place, Socket>, wanted: Vec<Place>) -> io::Result<Answers> {
        let line = Arc::clone(&self.0);
        let asked = tokio::task::spawn_blocking(move || line.lock().ask(&held, &wanted)).await;
        asked.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}
