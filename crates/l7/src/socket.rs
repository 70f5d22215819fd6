// SPDX-License-Identifier: Apache-2.0
//! Sockets by where they are bound. Who opens one of the node's and who serves it are two processes.

use crate::{Listener, Serve};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Connections that wait to be taken.
pub const BACKLOG: i32 = 4096;

/// Where a socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Whether it is UDP's; otherwise TCP's.
    pub udp: bool,
    /// The address.
    pub address: SocketAddr,
    /// [`Listener::transparent`].
    pub transparent: bool,
    /// [`Listener::node`].
    #[serde(default)]
    pub node: bool,
}

impl Place {
    /// The place of a listener.
    #[must_use]
    pub fn of(listener: &Listener) -> Self {
        let udp = matches!(listener.serve, Serve::Udp(_));
        Self { udp, address: listener.address, transparent: listener.transparent, node: listener.node }
    }

    /// Opens a socket there, in the network of this process.
    ///
    /// # Errors
    ///
    /// The address is another's or not this node's, or the process may not bind it.
    pub fn open(self) -> io::Result<Socket> {
        let domain = Domain::for_address(self.address);
        let (kind, protocol) = if self.udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        if domain == Domain::IPV6 {
            // The same port of IPv4 is another listener's.
            socket.set_only_v6(true)?;
        }
        if self.transparent {
            setsockopt(&socket, sockopt::IpTransparent, &true)?;
        }
        if !self.udp {
            socket.set_reuse_address(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(self.address))?;
        if !self.udp {
            socket.listen(BACKLOG)?;
        }
        Ok(socket)
    }

    /// Whether a socket that another process says is there is.
    #[must_use]
    pub fn has(&self, socket: &Socket) -> bool {
        let kind = if self.udp { Type::DGRAM } else { Type::STREAM };
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        address == Some(self.address) && socket.r#type().is_ok_and(|is| is == kind)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, if self.udp { "UDP" } else { "TCP" })
    }
}
