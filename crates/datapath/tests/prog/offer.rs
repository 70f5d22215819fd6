// SPDX-License-Identifier: Apache-2.0
//! Services of every kind, for the programs on packets.

use std::net::IpAddr;

use abi::Addr;
use abi::config::ProgramConfig;
use abi::lb::{Backend, BackendKey, Service, ServiceKey, SlotKey, flags};
use abi::maps::{BackendIds, Backends, Services, Slots};
use datapath::Kernel;
use datapath::bpf::Options;

use crate::world::{Family, World, families};

/// What a port of the node is to those outside.
pub(crate) const NODE_PORT: u32 = flags::NODE_PORT | flags::EXPOSED;
/// What an address of a load balancer is to them.
pub(crate) const LOAD_BALANCER: u32 = flags::LOAD_BALANCER | flags::EXPOSED;

/// A frontend and its backends.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) key: ServiceKey,
    pub(crate) service: Service,
    pub(crate) backends: Vec<(IpAddr, u16)>,
}

impl Offer {
    pub(crate) fn new((ip, port): (IpAddr, u16), proto: u8, flags: u32, backends: &[(IpAddr, u16)]) -> Self {
        let key = ServiceKey { addr: ip.into(), port: port.to_be(), proto, ..ServiceKey::default() };
        let count = u32::try_from(backends.len()).unwrap();
        Self { key, service: Service { id: 5, count, flags, affinity: 0 }, backends: backends.to_vec() }
    }

    pub(crate) fn id(mut self, id: u32) -> Self {
        self.service.id = id;
        self
    }

    pub(crate) fn scope(mut self, scope: u8) -> Self {
        self.key.scope = scope;
        self
    }

    pub(crate) fn affinity(mut self, seconds: u32) -> Self {
        self.service.affinity = seconds;
        self
    }

    /// The id of its backend of that number.
    pub(crate) fn backend(&self, nth: usize) -> u32 {
        self.service.id * 16 + u32::try_from(nth).unwrap()
    }

    /// Puts it into the maps, as user space does; only an address that is not the node's gets a mark.
    pub(crate) fn install(&self, world: &World) {
        let services = world.datapath.map::<Services>().unwrap();
        for (nth, (ip, port)) in self.backends.iter().enumerate() {
            let id = self.backend(nth);
            let backend =
                Backend { addr: (*ip).into(), port: port.to_be(), proto: self.key.proto, ..Backend::default() };
            world.put(world.datapath.map::<Backends>().unwrap(), &id, &backend);
            let key = BackendKey::new(backend.addr, backend.port, backend.proto);
            world.put(world.datapath.map::<BackendIds>().unwrap(), &key, &id);
            // Of those at one address the first.
            if self.backends.iter().position(|(other, _)| other == ip) == Some(nth) {
                let key = BackendKey::of_service(self.service.id, backend.addr);
                world.put(world.datapath.map::<BackendIds>().unwrap(), &key, &id);
            }
            let slot = SlotKey { service: self.service.id, slot: u32::try_from(nth).unwrap() };
            world.put(world.datapath.map::<Slots>().unwrap(), &slot, &id);
        }
        world.put(services.clone(), &self.key, &self.service);
        if families().iter().all(|family| Addr::from(family.node) != self.key.addr) {
            world.put(services, &ServiceKey::mark(self.key.addr), &Service::MARK);
        }
    }

    pub(crate) fn remove(&self, world: &World) {
        let services = world.datapath.map::<Services>().unwrap();
        for key in [self.key, ServiceKey::mark(self.key.addr)] {
            services.remove(&key).unwrap();
        }
        for nth in 0..self.backends.len() {
            world.datapath.map::<Backends>().unwrap().remove(&self.backend(nth)).unwrap();
        }
    }
}

/// Runs the test for each family on a node whose services are reached from outside.
pub(crate) fn exposed(test: impl Fn(&mut World, Family) + Send + 'static) {
    exposed_with(|config| config, test);
}

/// The same with other constants.
pub(crate) fn exposed_with(
    change: impl FnOnce(ProgramConfig) -> ProgramConfig,
    test: impl Fn(&mut World, Family) + Send + 'static,
) {
    let config = change(ProgramConfig { expose_services: 1, direct_tunnel: 1, ..ProgramConfig::default() });
    World::test_with(Options { config, ..Options::default() }, move |world| {
        for family in families() {
            world.reset();
            test(world, family);
        }
    });
}
