// SPDX-License-Identifier: Apache-2.0
//! Interfaces and addresses in memory.

use crate::addresses::{AddressError, Addresses, Allocated, Families};
use crate::attachment::PodAttachment;
use crate::interfaces::Interfaces;
use crate::manager::restore::HostLinks;
use abi::maps;
use datapath::fake;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Interfaces in memory: which are up, with what the maps held at that moment.
#[derive(Clone, Default)]
pub(crate) struct FakeInterfaces(pub(crate) Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) up: BTreeMap<String, u32>,
    pub(crate) connects: usize,
    pub(crate) fail: usize,
    /// Whether each interface had its entries in the maps when it came up.
    pub(crate) entries_first: Vec<bool>,
    pub(crate) kernel: Option<fake::Kernel>,
}

impl FakeInterfaces {
    fn roll(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.fail > 0 {
            state.fail -= 1;
            return Err(io::Error::from_raw_os_error(16));
        }
        Ok(())
    }
}

impl Interfaces for FakeInterfaces {
    type Error = io::Error;

    async fn connect(&mut self, pod: &PodAttachment) -> io::Result<()> {
        self.roll()?;
        let mut state = self.0.lock();
        let ifindex = pod.endpoint.host_ifindex;
        if let Some(kernel) = state.kernel.clone() {
            let by_index = kernel.map::<maps::Endpoints>().unwrap().get(&ifindex).unwrap();
            let locals = kernel.map::<maps::Locals>().unwrap();
            let by_address = pod.endpoint.addresses().all(|ip| locals.get(&ip.into()).unwrap().is_some());
            state.entries_first.push(by_index.is_some() && by_address);
        }
        state.connects += 1;
        state.up.insert(pod.endpoint.host_interface.clone(), ifindex);
        Ok(())
    }

    async fn disconnect(&mut self, name: &str, _: u32) -> io::Result<()> {
        self.roll()?;
        self.0.lock().up.remove(name);
        Ok(())
    }

    async fn prune(&mut self, wanted: &BTreeSet<&str>) -> io::Result<()> {
        self.roll()?;
        self.0.lock().up.retain(|name, _| wanted.contains(&**name));
        Ok(())
    }
}

/// Interfaces of the host, in memory.
#[derive(Clone, Default)]
pub(crate) struct FakeLinks(pub(crate) Arc<Mutex<BTreeMap<String, u32>>>);

impl HostLinks for FakeLinks {
    type Error = io::Error;

    async fn list(&self) -> io::Result<BTreeMap<String, u32>> {
        Ok(self.0.lock().clone())
    }
}

/// A pool of as many addresses as it is told, from 10.0.0.1 and fd00::1 on.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    pub(crate) taken: Arc<Mutex<BTreeMap<IpAddr, String>>>,
    pub(crate) size: u16,
}

impl Pool {
    fn take(&self, owner: &str, address: impl Fn(u16) -> IpAddr) -> Result<IpAddr, AddressError> {
        let mut taken = self.taken.lock();
        let free = (1..=self.size).map(address).find(|ip| !taken.contains_key(ip));
        let ip = free.ok_or_else(|| AddressError::Exhausted("pool 10.0.0.0/16: give the node another".into()))?;
        taken.insert(ip, owner.to_owned());
        Ok(ip)
    }
}

impl Addresses for Pool {
    fn allocate(&self, owner: &str, families: Families) -> Result<Allocated, AddressError> {
        let mut allocated = Allocated::default();
        if families.ipv6 {
            let v6 = |n: u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n).into();
            if let IpAddr::V6(ip) = self.take(owner, v6)? {
                allocated.ipv6 = Some(ip);
            }
        }
        if families.ipv4 {
            let v4 = |n: u16| Ipv4Addr::new(10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]).into();
            if let IpAddr::V4(ip) = self.take(owner, v4)? {
                allocated.ipv4 = Some(ip);
            }
        }
        Ok(allocated)
    }

    fn claim(&self, owner: &str, ip: IpAddr) -> Result<(), AddressError> {
        let mut taken = self.taken.lock();
        match taken.get(&ip) {
            Some(other) if other != owner => Err(AddressError::Taken { ip, owner: other.clone() }),
            _ => {
                taken.insert(ip, owner.to_owned());
                Ok(())
            }
        }
    }

    fn release(&self, owner: &str, ip: IpAddr) -> Result<(), AddressError> {
        let mut taken = self.taken.lock();
        match taken.get(&ip) {
            Some(other) if other != owner => Err(AddressError::Taken { ip, owner: other.clone() }),
            _ => {
                taken.remove(&ip);
                Ok(())
            }
        }
    }
}
