// SPDX-License-Identifier: Apache-2.0
//! Sockets in memory, each of which is connected to a Service.

use std::sync::Arc;

use abi::flow::proto::TCP;
use abi::lb::Connected;
use parking_lot::Mutex;

use crate::Result;
use crate::sockets::{IsOver, Scope};

/// Sockets in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Arc<Mutex<Vec<Socket>>>);

#[derive(Debug)]
struct Socket {
    of_pod: bool,
    protocol: u8,
    memory: Connected,
}

impl Sockets {
    /// A program of a pod, or of the host, connects a socket.
    pub fn connect(&self, of_pod: bool, protocol: u8, memory: Connected) {
        self.0.lock().push(Socket { of_pod, protocol, memory });
    }

    /// What the sockets remember that are connected still, in the order of their connecting.
    #[must_use]
    pub fn connected(&self) -> Vec<Connected> {
        self.0.lock().iter().map(|socket| socket.memory).collect()
    }
}

impl crate::Sockets for Sockets {
    fn close(&self, scope: Scope, is_over: IsOver<'_>) -> Result<usize> {
        let mut sockets = self.0.lock();
        let before = sockets.len();
        sockets.retain(|socket| {
            let in_scope = (scope.pods || !socket.of_pod) && (scope.streams || socket.protocol != TCP);
            !(in_scope && is_over(socket.protocol, &socket.memory))
        });
        Ok(before - sockets.len())
    }
}
