// SPDX-License-Identifier: Apache-2.0
//! Maps without room.

use super::*;

#[test]
fn a_full_map_is_an_error_that_names_map_and_service_while_others_go_on() {
    let mut f = Fixture::new(fake::Kernel::new().with_capacity("cilium_lb_backends", 2));
    f.prune([]);
    f.update(&frontend(1, vec![backend(1, true)])).unwrap();
    let error = f.update(&frontend(2, vec![backend(2, true), backend(3, true)])).unwrap_err();
    assert_eq!(error.to_string(), "service default/s2, frontend 10.96.0.2:80/TCP");
    assert_eq!(error.source.to_string(), "map cilium_lb_backends is full (2 entries)");
    no_holes(&f.kernel);
    f.update(&frontend(3, vec![backend(1, true)])).unwrap();
    block(f.target.delete(&frontend(2, vec![]).key)).unwrap();
    f.update(&frontend(3, vec![backend(4, true)])).expect("what the failed one had written is free again");
}

#[test]
fn a_frontend_without_room_for_its_mark_is_an_error_and_is_not_there() {
    let mut f = Fixture::new(fake::Kernel::new().with_capacity("cilium_lb_services", 3));
    f.prune([]);
    f.update(&neighbour(2, vec![])).unwrap();
    f.update(&neighbour(3, vec![])).unwrap();
    let error = f.update(&neighbour(4, vec![])).unwrap_err();
    assert_eq!(error.source.to_string(), "map cilium_lb_services is full (3 entries)");
    no_holes(&f.kernel);
    assert_eq!((f.marks().len(), f.sizes().0), (1, 2));
    block(f.target.delete(&neighbour(3, vec![]).key)).unwrap();
    // Room for the mark, and none for the frontend.
    f.update(&neighbour(4, vec![])).unwrap_err();
    block(f.target.delete(&neighbour(4, vec![]).key)).unwrap();
    assert_eq!((f.marks(), f.sizes().0), (vec!["10.96.0.1".to_owned()], 1), "nothing is left of the one that failed");
}

#[test]
fn in_a_full_map_the_backends_of_the_past_make_room_for_the_present_ones() {
    for full in ["cilium_lb_backends", "cilium_lb_slots"] {
        let capacity = if full == "cilium_lb_slots" { 4 } else { 2 };
        let mut f = Fixture::new(fake::Kernel::new().with_capacity(full, capacity));
        f.prune([]);
        f.update(&frontend(1, vec![backend(1, true), backend(2, true)])).unwrap();
        let row = frontend(1, vec![backend(3, true), backend(4, true)]);
        let first = f.update(&row);
        no_holes(&f.kernel);
        assert!(!f.members(2).contains(&101), "{full}: a connection may still go to who is gone: {first:?}");
        f.update(&row).expect("there is room now");
        no_holes(&f.kernel);
        assert_eq!((f.members(2), f.sizes()), (vec![103, 104], (1, 2, 2)), "{full}");
    }
}
