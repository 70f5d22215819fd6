// SPDX-License-Identifier: Apache-2.0
//! Writes attachments to the kernel, in an order that lets no packet of a pod bypass policy:
//!
//! ```text
//! attach:  entries by address and by interface, programs, interface up, the host's routes
//! detach:  interface, programs, entries, epochs
//! ```
//!
//! An interface is down until its programs are attached, so a pod that waits for permission cannot send either. What is
//! right is not touched: a restart writes nothing.

use crate::attachment::{Attachment, AttachmentKey, PodAttachment, local_entries};
use crate::interfaces::Interfaces;
use abi::endpoint::Endpoint as Entry;
use abi::{Addr, maps};
use datapath::{Due, Epochs, Kernel, Map, sync_map};
use model::EndpointId;
use statedb::Snapshot;
use std::collections::{BTreeMap, BTreeSet};

/// The maps of this feature.
#[derive(Clone, Debug)]
pub struct Maps {
    endpoints: Map<maps::Endpoints>,
    locals: Map<maps::Locals>,
}

impl Maps {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// A map cannot be opened.
    pub fn open<K: Kernel>(kernel: &K) -> datapath::Result<Self> {
        Ok(Self { endpoints: kernel.map()?, locals: kernel.map()? })
    }

    /// The kernel's pods, by interface index.
    pub(crate) fn endpoints(&self) -> datapath::Result<Vec<(u32, Entry)>> {
        self.endpoints.entries()
    }
}

/// An attachment could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("endpoint {subject}: {source}")]
    Map {
        /// Id of the endpoint, address of the node, or `*`.
        subject: String,
        /// Which map, and why.
        source: datapath::Error,
    },
    /// The interface, its programs, routes or neighbours.
    #[error("endpoint {subject}: interface {interface}: {message}")]
    Interface {
        /// Id of the endpoint.
        subject: String,
        /// Host side of the pair.
        interface: String,
        /// Why.
        message: String,
    },
}

/// Writes attachments to the kernel.
#[derive(Debug)]
pub(crate) struct Target<I> {
    maps: Maps,
    epochs: Epochs,
    interfaces: I,
    /// What this process attached: the host side's name and index.
    attached: BTreeMap<EndpointId, (String, u32)>,
    due: Due,
}

impl<I: Interfaces> Target<I> {
    pub(crate) fn new(maps: Maps, epochs: Epochs, interfaces: I) -> Self {
        Self { maps, epochs, interfaces, attached: BTreeMap::new(), due: Due::default() }
    }

    fn write_entries(&mut self, attachment: &Attachment) -> datapath::Result<()> {
        for (addr, entry) in local_entries(attachment) {
            let present = self.maps.locals.get(&addr)?;
            if present != Some(entry) {
                self.outdate(addr, present.as_ref());
                self.maps.locals.insert(&addr, &entry)?;
            }
        }
        if let Attachment::Pod(pod) = attachment {
            let entry = pod.entry();
            let present = self.maps.endpoints.get(&entry.ifindex)?;
            if present.is_some_and(|p| verdict(&p) != verdict(&entry)) {
                self.due.endpoint(entry.id);
            }
            if present != Some(entry) {
                self.maps.endpoints.insert(&entry.ifindex, &entry)?;
            }
        }
        self.due.raise(&self.epochs)
    }

    /// Flows to the address were decided for what it was before, and its former owner's for that owner.
    fn outdate(&mut self, addr: Addr, former: Option<&Entry>) {
        self.due.peer(addr);
        if let Some(former) = former.filter(|former| former.id != 0) {
            self.due.endpoint(former.id);
        }
    }

    /// Removes the entries that meet a condition.
    fn remove_entries(&mut self, chosen: impl Fn(&Addr, &Entry) -> bool) -> datapath::Result<()> {
        for (addr, entry) in self.maps.locals.entries()? {
            if chosen(&addr, &entry) {
                self.outdate(addr, Some(&entry));
                self.maps.locals.remove(&addr)?;
            }
        }
        for (ifindex, entry) in self.maps.endpoints.entries()? {
            if chosen(&Addr::NONE, &entry) {
                self.due.endpoint(entry.id);
                self.maps.endpoints.remove(&ifindex)?;
            }
        }
        self.due.raise(&self.epochs)
    }

    async fn attach(&mut self, pod: &PodAttachment) -> Result<(), Error> {
        let endpoint = &pod.endpoint;
        self.interfaces.connect(pod).await.map_err(|e| interface_error(endpoint.id, &endpoint.host_interface, &e))?;
        self.attached.insert(endpoint.id, (endpoint.host_interface.clone(), endpoint.host_ifindex));
        Ok(())
    }

    fn sync(&mut self, desired: &Snapshot<Attachment>) -> datapath::Result<()> {
        let pods = desired.iter().filter_map(|a| match &**a {
            Attachment::Pod(pod) => Some((pod.endpoint.host_ifindex, pod.entry())),
            Attachment::Host(_) => None,
        });
        // Until both are known to be in order, assume that something was removed.
        let mut due = std::mem::take(&mut self.due);
        self.due.node();
        let locals = sync_map(&self.maps.locals, desired.iter().flat_map(|a| local_entries(a)))?;
        let endpoints = sync_map(&self.maps.endpoints, pods)?;
        if locals.is_change() || endpoints.is_change() {
            due.node();
        }
        self.due = due;
        self.due.raise(&self.epochs)
    }
}

/// What a verdict depends on.
const fn verdict(entry: &Entry) -> (u32, u32, u16) {
    (entry.identity, entry.policy, entry.flags)
}

fn interface_error<E: std::error::Error>(id: EndpointId, interface: &str, error: &E) -> Error {
    Error::Interface { subject: id.to_string(), interface: interface.to_owned(), message: statedb::with_causes(error) }
}

impl<I: Interfaces> statedb::Target<Attachment> for Target<I> {
    type Error = Error;

    async fn update(&mut self, row: &Attachment) -> Result<(), Error> {
        let subject = || match row {
            Attachment::Host(ip) => ip.to_string(),
            Attachment::Pod(pod) => pod.endpoint.id.to_string(),
        };
        self.write_entries(row).map_err(|source| Error::Map { subject: subject(), source })?;
        match row {
            Attachment::Host(_) => Ok(()),
            Attachment::Pod(pod) => self.attach(pod).await,
        }
    }

    async fn delete(&mut self, key: &AttachmentKey) -> Result<(), Error> {
        match key {
            AttachmentKey::Host(ip) => {
                let gone = Addr::from(*ip);
                let is_host = |addr: &Addr, entry: &Entry| *addr == gone && entry.id == 0;
                self.remove_entries(is_host).map_err(|source| Error::Map { subject: ip.to_string(), source })
            }
            AttachmentKey::Pod(id) => {
                if let Some((interface, ifindex)) = self.attached.get(id).cloned() {
                    let removed = self.interfaces.disconnect(&interface, ifindex).await;
                    removed.map_err(|e| interface_error(*id, &interface, &e))?;
                    self.attached.remove(id);
                }
                let map_error = |source| Error::Map { subject: id.to_string(), source };
                self.remove_entries(|_, entry| entry.id == id.0).map_err(map_error)
            }
        }
    }

    async fn prune(&mut self, desired: &Snapshot<Attachment>) -> Result<(), Error> {
        self.sync(desired).map_err(|source| Error::Map { subject: "*".into(), source })?;
        let wanted: BTreeSet<&str> = desired
            .iter()
            .filter_map(|a| if let Attachment::Pod(pod) = &**a { Some(&*pod.endpoint.host_interface) } else { None })
            .collect();
        let all = |e: &I::Error| Error::Interface {
            subject: "*".into(),
            interface: "*".into(),
            message: statedb::with_causes(e),
        };
        self.interfaces.prune(&wanted).await.map_err(|e| all(&e))
    }
}

#[cfg(test)]
mod tests;
