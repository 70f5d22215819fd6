// SPDX-License-Identifier: Apache-2.0
//! Frontends of one address for clients outside and inside.

use super::*;
use model::Scope;
use statedb::Operation;

/// The frontends of a Service under a traffic policy.
fn frontends(local: bool) -> Vec<Frontend> {
    let outside = Frontend { two_scopes: local, ..frontend(1, vec![backend(1, true)]) };
    let key = FrontendKey { scope: Scope::Internal, ..outside.key };
    let inside = Frontend { key, id: 9, two_scopes: local, ..frontend(1, vec![backend(1, true), backend(2, true)]) };
    if local { vec![outside, inside] } else { vec![outside] }
}

/// What leads from the ones to the others, in the order of a batch.
fn batch(before: &[Frontend], after: &[Frontend]) -> Vec<Operation<Frontend>> {
    let gone = before.iter().filter(|row| after.iter().all(|other| other.key != row.key));
    let mut all: Vec<_> = gone.map(|row| Operation::Delete(row.key)).collect();
    all.extend(after.iter().map(|row| Operation::Update(Arc::new(row.clone()))));
    all.sort_by_key(Operation::key);
    all
}

#[test]
fn clients_inside_are_sent_on_only_to_what_is_there_between_any_two_writes() {
    let (cluster, local) = (frontends(false), frontends(true));
    for (before, after) in [(&cluster, &local), (&local, &cluster), (&local, &vec![]), (&vec![], &local)] {
        for writes in 0..20 {
            let mut f = Fixture::new(fake::Kernel::new());
            f.prune([]);
            assert!(block(f.target.apply(&batch(&[], before))).is_empty());
            let mut stopped = target(&Until::after(writes, &f.kernel)).unwrap();
            let failed = block(stopped.apply(&batch(before, after)));
            let maps = Maps::open(&f.kernel).unwrap();
            let at = |row: &Frontend| maps.services.get(&encode::service_key(&row.key)).unwrap();
            let sent_on = at(&local[0]).is_some_and(|service| service.flags & lb::flags::TWO_SCOPES != 0);
            assert!(!sent_on || at(&local[1]).is_some(), "after {writes} writes: {failed:?}");
        }
    }
}

#[test]
fn a_frontend_waits_for_the_one_to_which_it_sends_clients_on() {
    let mut f = Fixture::new(fake::Kernel::new().with_capacity("cilium_lb_services", 2));
    f.prune([]);
    let (cluster, local) = (frontends(false), frontends(true));
    f.update(&cluster[0]).unwrap();
    let failed = block(f.target.apply(&batch(&cluster, &local)));
    let why: Vec<_> = failed.iter().map(|(_, error)| error.source.to_string()).collect();
    let says = [
        "map cilium_lb_services is full (2 entries)",
        "its frontend for clients inside of the cluster is not there yet",
    ];
    assert_eq!(why, says);
    no_holes(&f.kernel);
}
