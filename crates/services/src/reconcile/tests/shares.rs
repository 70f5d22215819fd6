// SPDX-License-Identifier: Apache-2.0
//! Namespaces that share maps which are nearly full.

use super::*;

/// Room for 32 frontends with a backend each, and nobody limited up to 28.
fn crowded() -> Fixture {
    let mut f = Fixture::new(fake::Kernel::new().with_capacity("cilium_lb_slots", 64));
    f.prune([]);
    f
}

fn of(namespace: &str, n: u8, backends: &[(u8, bool)]) -> Frontend {
    let backends = backends.iter().map(|(n, active)| backend(*n, *active)).collect();
    Frontend { service: ServiceName::new(namespace, format!("s{n}")), ..frontend(n, backends) }
}

/// A namespace with 27 frontends, and another with one.
fn rows() -> Vec<Frontend> {
    let greedy = (1..=27).map(|n| of("greedy", n, &[(n, true)]));
    greedy.chain([of("small", 50, &[(50, true)])]).collect()
}

fn why(result: Result<(), Error>) -> String {
    statedb::with_causes(&result.unwrap_err())
}

#[test]
fn a_greedy_namespace_goes_without_while_others_are_served_and_gets_what_comes_free() {
    let mut f = crowded();
    rows().iter().for_each(|row| f.update(row).unwrap());
    let more = of("greedy", 28, &[(28, true)]);
    let says = "service greedy/s28, frontend 10.96.0.28:80/TCP: map cilium_lb_slots is nearly full (56 of 64 entries), \
                and namespace greedy has 54 of them already, with a share of 32";
    assert_eq!(why(f.update(&more)), says);
    assert_eq!(f.sizes(), (28, 28, 28), "nothing of it is there");
    f.update(&of("small", 51, &[(51, true)])).unwrap();
    f.update(&of("new", 60, &[(60, true)])).unwrap();
    assert!(!f.target.has_made_room());
    for n in 1..=5 {
        block(f.target.delete(&frontend(n, vec![]).key)).unwrap();
    }
    assert!(f.target.has_made_room());
    f.update(&more).unwrap();
    no_holes(&f.kernel);
}

#[test]
fn who_goes_without_keeps_what_it_has_and_can_change_it() {
    let mut f = crowded();
    rows().iter().for_each(|row| f.update(row).unwrap());
    assert!(why(f.update(&of("greedy", 1, &[(1, true), (70, true)]))).contains("namespace greedy has 54"));
    assert_eq!(f.members(2), [101]);
    // A rollout: the next backend takes the place of one that is about to end.
    f.update(&of("greedy", 1, &[(1, false), (70, true)])).unwrap();
    assert_eq!(f.members(2), [101, 170]);
    f.update(&of("greedy", 1, &[(70, true)])).unwrap();
    // Clients that are refused are refused, however full it is.
    let ranges = SourceRanges { prefixes: vec!["10.9.0.0/16".parse().unwrap()], deny: true };
    let narrower = Frontend { source_ranges: Some(Arc::new(ranges)), ..of("greedy", 1, &[(70, true), (71, true)]) };
    assert!(f.update(&narrower).is_err());
    assert_eq!((f.members(2), Maps::open(&f.kernel).unwrap().ranges.keys().unwrap().len()), (vec![170], 1));
    no_holes(&f.kernel);
}

#[test]
fn after_a_restart_it_is_the_same_who_goes_without() {
    let mut before = crowded();
    let (rows, more) = (rows(), of("greedy", 28, &[(28, true)]));
    rows.iter().for_each(|row| before.update(row).unwrap());
    assert!(before.update(&more).is_err());
    let mut after = Fixture::new(before.kernel.clone());
    // Its turn comes before it is known whose the entries are.
    assert!(why(after.update(&more)).ends_with("(56 of 64 entries), and it is not known yet with whose"));
    let mut looking = target(&Until::after(0, &before.kernel)).unwrap();
    rows.iter().for_each(|row| block(looking.update(row)).expect("what is there is right"));
    rows.iter().for_each(|row| after.update(row).unwrap());
    for _ in 0..2 {
        // At each full sync.
        after.prune(rows.iter().cloned().chain([more.clone()]));
        assert!(why(after.update(&more)).contains("namespace greedy has 54"));
    }
    after.update(&of("small", 51, &[(51, true)])).unwrap();
    assert_eq!(after.sizes(), (29, 29, 29));
}

#[test]
fn what_was_refused_before_the_first_prune_is_not_taken_for_what_is_there() {
    let mut before = crowded();
    let rows = rows();
    rows.iter().for_each(|row| before.update(row).unwrap());
    let mut after = Fixture::new(before.kernel.clone());
    let grown = of("greedy", 1, &[(1, true), (70, true)]);
    assert!(after.update(&grown).is_err());
    rows[1..].iter().for_each(|row| after.update(row).unwrap());
    after.prune([grown.clone()].into_iter().chain(rows[1..].iter().cloned()));
    assert!(why(after.update(&grown)).contains("namespace greedy has 54"));
    assert_eq!(after.members(2), [101]);
}

#[test]
fn a_port_that_another_namespace_takes_over_is_charged_to_that_one() {
    let mut f = crowded();
    f.update(&of("a", 1, &[(1, true), (2, true)])).unwrap();
    f.update(&of("b", 1, &[(2, true)])).unwrap();
    assert_eq!(f.target.shares.all(), ([2, 2, 1, 0, 0, 0], vec!["b".into()]));
    block(f.target.delete(&frontend(1, vec![]).key)).unwrap();
    assert_eq!(f.target.shares.all(), ([0; 6], vec![]));
}

#[test]
fn backends_that_two_namespaces_share_are_charged_to_both_and_are_there_once() {
    let mut f = Fixture::new(fake::Kernel::new().with_capacity("cilium_lb_backends", 16));
    f.prune([]);
    let many = |n, first: u8, count: u8| {
        let backends: Vec<_> = (first..first + count).map(|n| (n, true)).collect();
        of(if n < 10 { "a" } else { "b" }, n, &backends)
    };
    f.update(&many(1, 1, 13)).unwrap();
    f.update(&many(10, 1, 7)).unwrap();
    assert_eq!(f.sizes().2, 13);
    f.update(&many(11, 20, 1)).unwrap();
    assert!(why(f.update(&many(12, 21, 1))).contains("namespace b has 8 of them already, with a share of 8"));
    assert!(why(f.update(&many(2, 22, 1))).contains("namespace a has 13"));
    f.update(&many(3, 1, 13)).expect("it has them already");
}

#[test]
fn ids_of_backends_that_answer_directly_are_shared_out_and_counted_as_they_are() {
    let mut f = Fixture::new(fake::Kernel::new().with_capacity("cilium_lb_backend_ids", 32));
    f.prune([]);
    let direct =
        |namespace, n, backends: &[(u8, bool)]| Frontend { forwarding: Forwarding::Dsr, ..of(namespace, n, backends) };
    let held = |f: &Fixture| (f.target.shares.all().0[3], Maps::open(&f.kernel).unwrap().ids.keys().unwrap().len());
    f.update(&direct("small", 50, &[(50, true)])).unwrap();
    f.update(&of("snat", 60, &[(60, true), (61, true)])).unwrap();
    assert_eq!(held(&f), (2, 2), "of the backend's port, and of its address");
    for n in 1..=13 {
        f.update(&direct("greedy", n, &[(n, true)])).unwrap();
    }
    assert_eq!(held(&f), (28, 28));
    let says = "map cilium_lb_backend_ids is nearly full (28 of 32 entries), and namespace greedy has 26 of them already, with a share of 16";
    assert!(why(f.update(&direct("greedy", 14, &[(14, true)]))).ends_with(says));
    f.update(&of("greedy", 15, &[(15, true)])).expect("it needs none");
    f.update(&direct("small", 51, &[(51, true)])).unwrap();
    // A rollout needs nothing more.
    f.update(&direct("greedy", 1, &[(1, false), (20, true)])).unwrap();
    f.update(&direct("greedy", 1, &[(20, true)])).unwrap();
    assert_eq!(held(&f), (30, 30));
    // It has that backend already, by one frontend.
    assert!(f.update(&direct("greedy", 16, &[(2, true)])).is_err());
    block(f.target.delete(&frontend(3, vec![]).key)).unwrap();
    assert_eq!(held(&f), (28, 28));
    let rows: Vec<_> = [direct("small", 50, &[(50, true)]), direct("small", 51, &[(51, true)])].into();
    let mut after = Fixture::new(f.kernel.clone());
    after.prune(rows);
    assert_eq!(held(&after), (4, 4), "after a restart it is counted anew");
}

#[tokio::test]
async fn the_author_of_a_service_without_room_is_told_and_nobody_is_of_what_is_no_service() {
    let kernel = fake::Kernel::new().with_capacity("cilium_lb_backends", 1);
    let (mut services, reader) = statedb::table("services");
    let name = ServiceName::new("default", "s1");
    services.insert(crate::Service { name, uid: "uid-1".into(), ..crate::Service::default() });
    services.commit();
    let (warnings, mut queue) = k8s::Warnings::channel();
    let teller = Teller { services: reader, pods: statedb::table("pods").1, node: "n1".into(), warnings };
    let maglev = Maglev { size: 251, seed: "JLfvgnHc2kaSUFaI".to_owned() };
    let maps = Maps::open(&kernel).unwrap();
    let mut target = Target::new(maps, Epochs::open(&kernel).unwrap(), maglev, Arc::default(), teller).unwrap();
    target.prune(&snapshot([])).await.unwrap();
    for n in [2, 1] {
        target.update(&frontend(n, vec![backend(1, true), backend(2, true)])).await.unwrap_err();
    }
    drop(target);
    let told = queue.next().await.unwrap();
    assert_eq!((told.about.name.as_deref(), told.about.uid.as_deref()), (Some("s1"), Some("uid-1")));
    let says = "Node n1 does not serve all of 10.96.0.1:80/TCP: map cilium_lb_backends is full (1 entries)";
    assert_eq!((told.reason, told.note.as_str()), ("ServiceNotServed", says));
    assert_eq!(queue.next().await, None);
}
