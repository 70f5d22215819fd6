// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Services: which backend a new connection goes to.

use crate::maps;
use abi::Addr;
use abi::lb::{Backend, Service, ServiceKey, SlotKey, flags};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;

/// What became of the question for a backend.
pub enum Choice {
    /// The address is no service.
    NotAService,
    /// It is one, without a backend; or it is one at other ports only.
    NoBackend,
    /// This one, with its id, and the id of the service.
    Chosen(&'static Backend, u32, u32),
}

/// Chooses a backend at random. At a port that nobody serves, the address of a service has none: nobody in the world answers for it.
#[inline(always)]
pub fn choose(addr: Addr, port: u16, proto: u8) -> Choice {
    match choose_served(addr, port, proto) {
        Choice::NotAService if is_marked(addr) => Choice::NoBackend,
        choice => choice,
    }
}

#[inline(always)]
fn is_marked(addr: Addr) -> bool {
    // SAFETY: only asked whether it is there.
    unsafe { maps::SERVICES.get(ServiceKey::mark(addr)) }.is_some()
}

/// The same for who may ask at a port that nobody serves.
#[inline(always)]
pub fn choose_served(addr: Addr, port: u16, proto: u8) -> Choice {
    let Some(service) = service(addr, port, proto) else { return Choice::NotAService };
    match backend(service) {
        Some((backend, id)) => Choice::Chosen(backend, id, service.id),
        None => Choice::NoBackend,
    }
}

/// The service at that address and port.
#[inline(always)]
pub fn service(addr: Addr, port: u16, proto: u8) -> Option<&'static Service> {
    let key = ServiceKey { addr, port, proto, scope: abi::lb::SCOPE_EXTERNAL, pad: 0 };
    // SAFETY: read at once.
    unsafe { maps::SERVICES.get(key) }
}

/// Whether the service has this backend, be it for new connections or for those that it has.
#[inline(always)]
pub fn has_member(service: &Service, backend: u32) -> bool {
    // SAFETY: only asked whether it is there.
    service.flags & flags::MEMBERS == 0 || unsafe { maps::SLOTS.get(SlotKey::member(service.id, backend)) }.is_some()
}

#[inline(always)]
fn backend(service: &Service) -> Option<(&'static Backend, u32)> {
    let count = service.count;
    if count == 0 {
        return None;
    }
    // SAFETY: no preconditions.
    let slot = unsafe { bpf_get_prandom_u32() } % count;
    // SAFETY: read at once; user space writes backends before slots and removes them after.
    unsafe {
        let id = *maps::SLOTS.get(SlotKey { service: service.id, slot })?;
        maps::BACKENDS.get(id).map(|backend| (backend, id))
    }
}
