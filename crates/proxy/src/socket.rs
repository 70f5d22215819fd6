// SPDX-License-Identifier: Apache-2.0
//! Bound sockets by where they are bound: opened here or by the agent, or taken over from the process before.

use crate::keeper::Keeper;
use crate::node_sockets::NodeSockets;
use l7::Place;
use parking_lot::Mutex;
use socket2::Socket;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A socket.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// All sockets. They stay open here, whoever serves them. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    all: Arc<Mutex<HashMap<Place, Socket>>>,
    /// Has those of the node.
    node: NodeSockets,
    /// Holds them, too.
    keeper: Option<Keeper>,
}

impl Sockets {
    /// Those of the process before, each with who is to hold it from now on.
    pub(crate) fn inherited(
        sockets: impl IntoIterator<Item = (Place, OwnedFd)>,
        node: NodeSockets,
        keeper: Option<Keeper>,
    ) -> Self {
        let all: HashMap<Place, Socket> = sockets.into_iter().map(|(place, fd)| (place, Socket::from(fd))).collect();
        if let Some(keeper) = &keeper {
            all.iter().for_each(|(place, socket)| keeper.opened(*place, socket));
        }
        Self { all: Arc::new(Mutex::new(all)), node, keeper }
    }

    /// Gets those of the node that are lacking, and has the agent know of the others. What cannot be had comes back with the reason.
    pub(crate) async fn prepare(&self, wanted: impl Iterator<Item = Place>) -> HashMap<Place, io::Error> {
        let held = self.of_node();
        let lacking: Vec<Place> = wanted.filter(|place| place.node && !held.contains_key(place)).collect();
        if lacking.is_empty() && held.is_empty() {
            return HashMap::new();
        }
        let mut refused = HashMap::new();
        match self.node.ask(held, lacking.clone()).await {
            Ok(answers) => {
                for (place, answer) in answers {
                    match answer {
                        Ok(socket) => self.insert(place, Socket::from(socket)),
                        Err(error) => drop(refused.insert(place, error)),
                    }
                }
            }
            Err(error) => {
                let refusal = |place| (place, io::Error::new(error.kind(), format!("of the agent: {error}")));
                refused.extend(lacking.into_iter().map(refusal));
            }
        }
        refused
    }

    fn of_node(&self) -> HashMap<Place, Socket> {
        let all = self.all.lock();
        let of_node = all.iter().filter(|(place, _)| place.node);
        // One that cannot be had another descriptor of is told of the next time.
        of_node.filter_map(|(place, socket)| Some((*place, socket.try_clone().ok()?))).collect()
    }

    fn insert(&self, place: Place, socket: Socket) {
        if let Some(keeper) = &self.keeper {
            keeper.opened(place, &socket);
        }
        self.all.lock().insert(place, socket);
    }

    /// The socket of a place; it is opened if there is none, unless it would be the node's.
    ///
    /// # Errors
    ///
    /// The address is another's or not this node's, or the process may not bind it.
    pub(crate) fn get(&self, place: Place) -> io::Result<Bound> {
        let mut all = self.all.lock();
        let socket = match all.entry(place) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(free) => {
                if place.node {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let socket = free.insert(place.open()?);
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
