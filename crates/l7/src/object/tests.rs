// SPDX-License-Identifier: Apache-2.0
use super::{Key, Kind, Object, Snapshot, Update};
use crate::{Cluster, Endpoints};
use proptest::prelude::*;

fn cluster(name: u8, refuse: u16) -> Object {
    Cluster {
        name: name.to_string().into(),
        protocol: Default::default(),
        tls: None,
        proxy_protocol: None,
        by_client: false,
        limits: Default::default(),
        refuse: Some(refuse),
    }
    .into()
}

fn endpoints(name: u8) -> Object {
    Endpoints { cluster: name.to_string().into(), prefer_zone: None, endpoints: Vec::new() }.into()
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let object = prop_oneof![(0..8u8, 500..503u16).prop_map(|(n, s)| cluster(n, s)), (0..8u8).prop_map(endpoints)];
    proptest::collection::vec(object, 0..12).prop_map(|objects| objects.into_iter().collect())
}

proptest! {
    #[test]
    fn a_difference_makes_the_newer_of_the_older(older in snapshots(), newer in snapshots()) {
        let mut made = older.clone();
        made.apply(older.difference(&newer));
        prop_assert_eq!(&made, &newer);
        prop_assert!(newer.difference(&made).is_empty());
    }

    #[test]
    fn a_difference_names_only_what_differs(older in snapshots(), newer in snapshots()) {
        let update = older.difference(&newer);
        for object in &update.set {
            prop_assert_ne!(older.get(&object.key()), Some(object));
        }
        for key in &update.remove {
            prop_assert!(older.get(key).is_some() && newer.get(key).is_none());
        }
    }
}

#[test]
fn objects_of_two_kinds_may_have_one_name() {
    let mut snapshot: Snapshot = [cluster(1, 500), endpoints(1)].into_iter().collect();
    snapshot.apply(Update { set: Vec::new(), remove: vec![Key { kind: Kind::Cluster, name: "1".into() }] });
    assert_eq!(snapshot.iter().map(|(_, object)| object.clone()).collect::<Vec<_>>(), [endpoints(1)]);
}
