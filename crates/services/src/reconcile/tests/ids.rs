// SPDX-License-Identifier: Apache-2.0
//! Ids of backends by address, which the programs need where backends answer clients directly.

use super::*;
use model::Forwarding;

/// What the ids of backends are found by: their addresses and ports, or that of a service.
fn found(kernel: &fake::Kernel, by_service: bool) -> Vec<(String, u32)> {
    let entries = Maps::open(kernel).unwrap().ids.entries().unwrap();
    let entries = entries.into_iter().filter(|(key, _)| (key.service != 0) == by_service);
    let mut ids: Vec<_> = entries.map(|(key, id)| (IpAddr::from(key.addr).to_string(), id)).collect();
    ids.sort();
    ids
}

fn ids(kernel: &fake::Kernel) -> Vec<(String, u32)> {
    found(kernel, false)
}

/// All that a packet of another node to a backend tells of it is its address.
#[test]
fn a_service_finds_one_backend_at_each_address_the_same_on_every_node() {
    let mut fixture = Fixture::new(fake::Kernel::new());
    let at = |id, port, last| Backend::new(BackendId(id), addr(&format!("10.0.0.{last}"), port), BackendState::Active);
    let direct = |nth, backends| Frontend { forwarding: Forwarding::Dsr, ..frontend(nth, backends) };
    let of_services = |fixture: &Fixture| found(&fixture.kernel, true);
    fixture.prune([]);
    fixture.update(&direct(1, vec![at(7, 8081, 1), at(8, 8080, 1), at(9, 9000, 2)])).unwrap();
    assert_eq!(of_services(&fixture), [("10.0.0.1".to_owned(), 8), ("10.0.0.2".to_owned(), 9)]);
    // Another one has the same backends, and finds them for itself.
    fixture.update(&direct(2, vec![at(7, 8081, 1)])).unwrap();
    assert_eq!(of_services(&fixture).len(), 3);
    fixture.update(&direct(1, vec![at(7, 8081, 1), at(9, 9000, 2)])).unwrap();
    assert_eq!(
        of_services(&fixture),
        [("10.0.0.1".to_owned(), 7), ("10.0.0.1".to_owned(), 7), ("10.0.0.2".to_owned(), 9)]
    );
    fixture.update(&direct(1, vec![at(9, 9000, 2)])).unwrap();
    assert_eq!(of_services(&fixture), [("10.0.0.1".to_owned(), 7), ("10.0.0.2".to_owned(), 9)]);
    // The last process had one of a service that is gone.
    let maps = Maps::open(&fixture.kernel).unwrap();
    maps.ids.insert(&lb::BackendKey::of_service(99, IpAddr::from([10, 0, 0, 2]).into()), &9).unwrap();
    fixture.prune([direct(1, vec![at(9, 9000, 2)])]);
    assert_eq!(of_services(&fixture), [("10.0.0.2".to_owned(), 9)]);
    fixture.prune([]);
    assert_eq!(of_services(&fixture), []);
}

#[test]
fn backends_that_answer_directly_are_found_by_their_addresses_for_as_long_as_they_are_there() {
    let mut fixture = Fixture::new(fake::Kernel::new());
    let direct = |backends| Frontend { forwarding: Forwarding::Dsr, ..frontend(1, backends) };
    fixture.prune([]);
    fixture.update(&frontend(2, vec![backend(3, true)])).unwrap();
    fixture.update(&direct(vec![backend(1, true), backend(2, false)])).unwrap();
    assert_eq!(ids(&fixture.kernel), [("10.0.0.1".to_owned(), 101), ("10.0.0.2".to_owned(), 102)]);
    fixture.update(&direct(vec![backend(2, true)])).unwrap();
    assert_eq!(ids(&fixture.kernel), [("10.0.0.2".to_owned(), 102)]);
    // The last process had one whose address is another backend's by now, and one that is gone.
    let maps = Maps::open(&fixture.kernel).unwrap();
    for (ip, id) in [("10.0.0.9", 102), ("10.0.0.1", 101)] {
        maps.ids
            .insert(
                &encode::backend_key(&encode::backend(&Backend::new(
                    BackendId(id),
                    addr(ip, 8080),
                    BackendState::Active,
                ))),
                &id,
            )
            .unwrap();
    }
    fixture.prune([direct(vec![backend(2, true)])]);
    assert_eq!(ids(&fixture.kernel), [("10.0.0.2".to_owned(), 102)]);
    fixture.prune([]);
    assert_eq!(ids(&fixture.kernel), []);
}
