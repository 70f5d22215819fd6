// SPDX-License-Identifier: Apache-2.0
//! Bound sockets by where they are bound: opened, or taken over from the process before.

use crate::keeper::Keeper;
use l7::{Listener, Serve};
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Connections that wait to be taken.
pub(crate) const BACKLOG: i32 = 4096;

/// Where a socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    udp: bool,
    address: SocketAddr,
    transparent: bool,
}

impl Place {
    pub(crate) fn of(listener: &Listener) -> Self {
        let udp = matches!(listener.serve, Serve::Udp(_));
        Self { udp, address: listener.address, transparent: listener.transparent }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, if self.udp { "UDP" } else { "TCP" })
    }
}

/// A socket.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// All sockets. They stay open here, whoever serves them. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets {
    all: Arc<Mutex<HashMap<Place, Socket>>>,
    /// Holds them, too.
    keeper: Option<Keeper>,
}

impl Sockets {
    /// Those of the process before, each with who is to hold it from now on.
    pub(crate) fn inherited(sockets: impl IntoIterator<Item = (Place, OwnedFd)>, keeper: Option<Keeper>) -> Self {
        let all: HashMap<Place, Socket> = sockets.into_iter().map(|(place, fd)| (place, Socket::from(fd))).collect();
        if let Some(keeper) = &keeper {
            all.iter().for_each(|(place, socket)| keeper.opened(*place, socket));
        }
        Self { all: Arc::new(Mutex::new(all)), keeper }
    }

    /// The socket of a place; it is opened if there is none.
    ///
    /// # Errors
    ///
    /// The address is another's or not this node's, or the process may not bind it.
    pub(crate) fn get(&self, place: Place) -> io::Result<Bound> {
        let mut all = self.all.lock();
        let socket = match all.entry(place) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(free) => {
                let socket = free.insert(open(place)?);
                if let Some(keeper) = &self.keeper {
                    keeper.opened(place, socket);
                }
                socket
            }
        };
        let socket = socket.try_clone()?;
        Ok(if place.udp { Bound::Udp(socket.into()) } else { Bound::Tcp(socket.into()) })
    }

    pub(crate) fn close(&self, place: &Place) {
        self.close_unserved(|other| other != place);
    }

    pub(crate) fn close_unserved(&self, served: impl Fn(&Place) -> bool) {
        for (place, _) in self.all.lock().extract_if(|place, _| !served(place)) {
            if let Some(keeper) = &self.keeper {
                keeper.closed(place);
            }
        }
    }

    /// Another descriptor of each.
    ///
    /// # Errors
    ///
    /// The process has none left.
    pub(crate) fn duplicates(&self) -> io::Result<HashMap<Place, Socket>> {
        self.all.lock().iter().map(|(place, socket)| Ok((*place, socket.try_clone()?))).collect()
    }
}

fn open(place: Place) -> io::Result<Socket> {
    let domain = Domain::for_address(place.address);
    let (kind, protocol) = if place.udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    if domain == Domain::IPV6 {
        // The same port of IPv4 is another listener's.
        socket.set_only_v6(true)?;
    }
    if place.transparent {
        setsockopt(&socket, sockopt::IpTransparent, &true)?;
    }
    if !place.udp {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(place.address))?;
    if !place.udp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
