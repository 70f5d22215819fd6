// SPDX-License-Identifier: Apache-2.0
//! Services, as user space writes them to the maps.

use std::net::IpAddr;

use abi::Addr;
use abi::lb::flags::{DENY_RANGES, DSR, LOCAL_ONLY, MEMBERS, SOURCE_RANGES};
use abi::lb::{Backend, BackendKey, Service, ServiceKey, SlotKey, SourceRangeKey};
use abi::maps::{Affinities, BackendIds, Backends, Services, Slots, SourceRanges};
use datapath::{Kernel, LpmKey, Table};

use super::super::naive::{self, News};
use super::super::offers::OFFERS;
use super::super::steps::{Terms, Who};
use super::super::talk::{End, Proto};
use super::Drive;

/// Longer than a sequence takes.
const AFFINITY: u32 = 10_800;
/// Bits of a service's id and of an address.
const CLIENT_BITS: u32 = 32 + 128;

impl Drive<'_> {
    /// Nothing is served.
    pub(super) fn forget_services(&self) {
        fn clear(table: impl Table) {
            table.entries().unwrap().iter().for_each(|(key, _)| assert!(table.remove(key).unwrap()));
        }
        let datapath = &self.world.datapath;
        clear(datapath.map::<Services>().unwrap());
        clear(datapath.map::<Slots>().unwrap());
        clear(datapath.map::<Backends>().unwrap());
        clear(datapath.map::<BackendIds>().unwrap());
        clear(datapath.map::<Affinities>().unwrap());
        clear(datapath.trie::<SourceRanges>().unwrap());
    }

    pub(super) fn frontend(&self, service: usize) -> End {
        let (who, port) = OFFERS[service].at;
        End { ip: self.ip(who), port: Some(port) }
    }

    /// The service has those of its backends whose bits are set.
    pub(super) fn serve(&mut self, nth: usize, chosen: u8) {
        let offer = &OFFERS[nth];
        let key = (self.frontend(nth), offer.proto);
        let id = nth as u32 + 1;
        let mut service = self.model.services.remove(&key).unwrap_or(naive::Service::new(id, offer.flags));
        let before = std::mem::take(&mut service.backends);
        let chosen = offer.backends.iter().enumerate().filter(|(bit, _)| chosen & 1 << bit != 0);
        for (_, (who, port)) in chosen {
            let end = End { ip: self.ip(*who), port: Some(*port) };
            let backend = self.backend(end, offer.proto);
            let slot = SlotKey { service: id, slot: service.backends.len() as u32 };
            self.put_slot(slot, backend);
            if service.is(MEMBERS) {
                self.put_slot(SlotKey::member(id, backend), backend);
            }
            let ids = self.world.datapath.map::<BackendIds>().unwrap();
            self.world.put(ids, &BackendKey::of_service(id, addr(end.ip)), &backend);
            service.backends.push((backend, end));
        }
        self.write(key, &service);
        let gone: Vec<_> = before.into_iter().filter(|(backend, _)| !service.has(*backend)).collect();
        self.model.services.insert(key, service);
        for (backend, end) in gone {
            self.world.datapath.map::<Slots>().unwrap().remove(&SlotKey::member(id, backend)).unwrap();
            let ids = self.world.datapath.map::<BackendIds>().unwrap();
            ids.remove(&BackendKey::of_service(id, addr(end.ip))).unwrap();
            if !self.model.services.values().any(|service| service.has(backend)) {
                self.world.datapath.map::<Backends>().unwrap().remove(&backend).unwrap();
                ids.remove(&at(end, offer.proto)).unwrap();
            }
            self.untold.push(News::Peer(end.ip));
        }
        self.untold.push(News::Peer(key.0.ip));
    }

    pub(super) fn change(&mut self, nth: usize, terms: Terms) {
        let flag = |on, flag| if on { flag } else { 0 };
        let flags = OFFERS[nth].flags
            | flag(terms.local_only, LOCAL_ONLY)
            | flag(terms.direct, DSR)
            | flag(terms.ranges.is_some(), SOURCE_RANGES)
            | flag(terms.ranges == Some(true), DENY_RANGES);
        self.alter(nth, |service| {
            service.flags = flags;
            service.affinity = terms.affinity;
        });
    }

    pub(super) fn list(&mut self, nth: usize, who: Who, denied: bool, listed: bool) {
        let client = self.ip(who);
        let key = SourceRangeKey::new(nth as u32 + 1, denied, Addr::from(client).octets());
        let (key, ranges) = (LpmKey::new(CLIENT_BITS, key), self.world.datapath.trie::<SourceRanges>().unwrap());
        if listed {
            ranges.insert(&key, &1).unwrap();
        } else {
            ranges.remove(&key).unwrap();
        }
        self.alter(nth, |service| {
            let list = if denied { &mut service.denied } else { &mut service.admitted };
            if listed {
                list.insert(client)
            } else {
                list.remove(&client)
            };
        });
    }

    /// Changes a service on which its flows stand.
    fn alter(&mut self, nth: usize, change: impl FnOnce(&mut naive::Service)) {
        let key = (self.frontend(nth), OFFERS[nth].proto);
        let mut service = self.model.services.remove(&key).unwrap();
        change(&mut service);
        self.write(key, &service);
        self.untold.extend(service.backends.iter().map(|(_, end)| News::Peer(end.ip)));
        self.model.services.insert(key, service);
    }

    fn write(&self, (frontend, proto): (End, Proto), service: &naive::Service) {
        let services = self.world.datapath.map::<Services>().unwrap();
        let mark = ServiceKey::mark(frontend.ip.into());
        if frontend.ip != self.family.node {
            services.insert(&mark, &Service::MARK).unwrap();
        }
        let value = Service {
            id: service.id,
            count: service.backends.len() as u32,
            flags: service.flags,
            affinity: if service.affinity { AFFINITY } else { 0 },
        };
        services.insert(&ServiceKey { port: port(frontend), proto: number(proto), ..mark }, &value).unwrap();
    }

    fn put_slot(&self, slot: SlotKey, backend: u32) {
        self.world.put(self.world.datapath.map::<Slots>().unwrap(), &slot, &backend);
    }

    /// The id of a backend, which is there from now on.
    fn backend(&mut self, end: End, proto: Proto) -> u32 {
        let next = 100 + self.backends.len() as u32;
        let id = *self.backends.entry((end, proto)).or_insert(next);
        let value = Backend { addr: addr(end.ip), port: port(end), proto: number(proto), ..Backend::default() };
        self.world.put(self.world.datapath.map::<Backends>().unwrap(), &id, &value);
        self.world.put(self.world.datapath.map::<BackendIds>().unwrap(), &at(end, proto), &id);
        id
    }
}

fn at(end: End, proto: Proto) -> BackendKey {
    BackendKey::new(addr(end.ip), port(end), number(proto))
}

fn addr(ip: IpAddr) -> Addr {
    ip.into()
}

fn port(end: End) -> u16 {
    end.port.unwrap_or_default().to_be()
}

fn number(proto: Proto) -> u8 {
    if proto == Proto::Tcp { abi::flow::proto::TCP } else { abi::flow::proto::UDP }
}
