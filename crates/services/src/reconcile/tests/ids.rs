// SPDX-License-Identifier: Apache-2.0
//! Ids of backends by address, which the programs need where backends answer clients directly.

use super::*;

/// What the ids of backends are found by.
fn ids(kernel: &fake::Kernel) -> Vec<(String, u32)> {
    let entries = Maps::open(kernel).unwrap().ids.entries().unwrap();
    let mut ids: Vec<_> = entries.into_iter().map(|(key, id)| (IpAddr::from(key.addr).to_string(), id)).collect();
    ids.sort();
    ids
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
