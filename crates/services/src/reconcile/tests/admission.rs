// SPDX-License-Identifier: Apache-2.0
//! Source ranges, lookup tables and marks that come and go while backends stay.

use super::*;
use model::SourceRanges;

fn narrowed(f: &mut Fixture, row: &Frontend) -> bool {
    let epochs = Epochs::open(&f.kernel).unwrap();
    let before = epochs.node().unwrap();
    f.update(row).unwrap();
    epochs.node().unwrap() > before
}

#[test]
fn flows_are_decided_anew_when_fewer_clients_may_use_a_frontend_and_not_when_nothing_changes() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    let open = Traits { node_port: false, maglev: false, ranges: None };
    let row = |ranges| Traits { ranges, ..open }.of(frontend(1, vec![backend(1, true)]));
    assert!(!narrowed(&mut f, &row(Some((1, false)))), "nobody has used it yet");
    assert!(!narrowed(&mut f, &row(Some((1, false)))));
    assert!(narrowed(&mut f, &row(Some((2, false)))), "others are admitted");
    assert!(narrowed(&mut f, &row(Some((2, true)))), "they are refused instead");
    assert!(narrowed(&mut f, &row(None)));
    assert!(narrowed(&mut f, &row(Some((0, false)))), "nobody is admitted");
    let exposed = |exposed| Frontend { exposed, ..row(None) };
    f.update(&exposed(true)).unwrap();
    assert!(narrowed(&mut f, &exposed(false)));
}

#[test]
fn a_lookup_table_is_written_before_the_frontend_asks_for_it_and_goes_with_the_last_backend() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    let row = |maglev, backends| Traits { node_port: false, maglev, ranges: None }.of(frontend(1, backends));
    let parts = |f: &Fixture| Maps::open(&f.kernel).unwrap().maglev.keys().unwrap().len();
    f.update(&row(true, vec![backend(1, true), backend(2, true)])).unwrap();
    assert_eq!(parts(&f), 1);
    f.update(&row(true, vec![backend(1, false)])).unwrap();
    assert_eq!(parts(&f), 0, "nobody takes new connections");
    f.update(&row(true, vec![backend(1, true)])).unwrap();
    f.update(&row(false, vec![backend(1, true)])).unwrap();
    assert_eq!(parts(&f), 0, "chance chooses");
    f.update(&row(true, vec![backend(1, true)])).unwrap();
    block(f.target.delete(&frontend(1, vec![]).key)).unwrap();
    assert_eq!(parts(&f), 0);
}

#[test]
fn what_the_last_process_left_of_ranges_and_tables_goes_once_all_is_known() {
    let mut before = Fixture::new(fake::Kernel::new());
    let all = Traits { node_port: false, maglev: true, ranges: Some((3, false)) };
    let (stays, goes) = (frontend(1, vec![backend(1, true)]), all.of(frontend(2, vec![backend(2, true)])));
    before.prune([]);
    before.update(&all.of(stays.clone())).unwrap();
    before.update(&goes).unwrap();
    let mut after = Fixture::new(before.kernel);
    let narrower = Traits { maglev: false, ranges: Some((1, false)), ..all }.of(stays);
    after.update(&narrower).unwrap();
    after.prune([narrower]);
    let maps = Maps::open(&after.kernel).unwrap();
    assert_eq!((maps.ranges.keys().unwrap().len(), maps.maglev.keys().unwrap().len()), (1, 0));
}

#[test]
fn an_address_that_is_a_nodes_too_is_not_marked_and_loses_the_mark_it_had() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    let shared = |owns_address| Frontend { owns_address, kind: ServiceKind::NodePort, ..frontend(1, vec![]) };
    f.update(&shared(false)).unwrap();
    assert!(f.marks().is_empty());
    f.update(&shared(true)).unwrap();
    assert_eq!(f.marks(), ["10.96.0.1"]);
    f.update(&shared(false)).unwrap();
    assert!(f.marks().is_empty(), "a node has taken the address");
    f.update(&shared(true)).unwrap();
    let mut after = Fixture::new(f.kernel);
    after.update(&shared(false)).unwrap();
    after.prune([shared(false)]);
    assert!(after.marks().is_empty());
}

#[test]
fn who_is_refused_before_and_after_is_refused_between_any_two_writes() {
    let row = |prefix: &str, deny| Frontend {
        source_ranges: Some(Arc::new(SourceRanges { prefixes: vec![prefix.parse().unwrap()], deny })),
        ..frontend(1, vec![backend(1, true)])
    };
    let admits = |kernel: &fake::Kernel, client: &str| {
        let maps = Maps::open(kernel).unwrap();
        let service = maps.services.get(&encode::service_key(&row("::/0", true).key)).unwrap().unwrap();
        let denied = service.flags & lb::flags::DENY_RANGES != 0;
        let client = Addr::from(client.parse::<IpAddr>().unwrap()).octets();
        let key = lb::SourceRangeKey::new(service.id, denied, client);
        maps.ranges.lookup(&key).unwrap().is_some() != denied
    };
    // Of the two kinds of ranges, who is let in by neither: named by the one that refuses, and not by the one that admits.
    let (admitting, refusing) = (row("10.1.0.0/16", false), row("10.2.0.0/16", true));
    for (before, after) in [(&admitting, &refusing), (&refusing, &admitting)] {
        for writes in 0..10 {
            let mut f = Fixture::new(fake::Kernel::new());
            f.prune([]);
            f.update(before).unwrap();
            let mut stopped = target(&Until::after(writes, &f.kernel)).unwrap();
            let _ = block(stopped.update(after));
            assert!(!admits(&f.kernel, "10.2.0.1"), "after {writes} writes");
            assert!(admits(&f.kernel, "10.1.0.1"), "after {writes} writes");
        }
    }
}

#[test]
fn flows_are_decided_anew_however_far_an_attempt_came_that_failed() {
    let row = |prefixes: &[&str], deny| Frontend {
        source_ranges: Some(Arc::new(SourceRanges {
            prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
            deny,
        })),
        ..frontend(1, vec![backend(1, true)])
    };
    let few = row(&["10.1.0.0/16"], true);
    let more = row(&["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"], true);
    let others = row(&["10.4.0.0/16", "10.5.0.0/16"], false);
    // What fails may be something else of the same frontend.
    let by_table = |row: &Frontend| Frontend { algorithm: Algorithm::Maglev, ..row.clone() };
    for (before, after) in [(&few, &by_table(&more)), (&more, &others), (&by_table(&others), &few)] {
        for writes in 0..12 {
            let mut f = Fixture::new(fake::Kernel::new());
            f.prune([]);
            f.update(before).unwrap();
            let failing = Until::after(usize::MAX, &f.kernel);
            f.target = target(&failing).unwrap();
            f.prune([before.clone()]);
            let epochs = Epochs::open(&f.kernel).unwrap();
            let raised = epochs.node().unwrap();
            failing.1.store(writes, Ordering::Relaxed);
            let _ = f.update(after);
            failing.1.store(usize::MAX, Ordering::Relaxed);
            f.update(after).unwrap();
            assert!(epochs.node().unwrap() > raised, "after {writes} writes");
        }
    }
}
