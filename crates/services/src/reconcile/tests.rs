// SPDX-License-Identifier: Apache-2.0
//! Tests of the target: it is run against maps that fail at random, so that every point between two writes is one at
//! which a test looks at the maps as a program in the kernel would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::type_complexity, reason = "what a test generates is a tuple of plain values")]

use super::*;
use datapath::{RawMap, fake};
use model::{Algorithm, Backend, Forwarding, ServiceKind, ServiceName, SourceRanges};
use proptest::prelude::*;
use statedb::Target as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

mod admission;
mod full;
mod ids;
mod scopes;
mod shares;

fn addr(ip: &str, port: u16) -> L4Addr {
    L4Addr { ip: ip.parse().unwrap(), port, protocol: Protocol::Tcp }
}

fn backend(n: u8, active: bool) -> Backend {
    let state = if active { BackendState::Active } else { BackendState::TerminatingNotServing };
    Backend::new(BackendId(u32::from(n) + 100), addr(&format!("10.0.0.{n}"), 8080), state)
}

fn frontend(n: u8, backends: Vec<Backend>) -> Frontend {
    let key = FrontendKey::external(addr(&format!("10.96.0.{n}"), 80));
    let service = ServiceName::new("default", format!("s{n}"));
    Frontend::new(key, u32::from(n) + 1, service, backends.into())
}

fn snapshot(rows: impl IntoIterator<Item = Frontend>) -> statedb::Snapshot<Frontend> {
    let (mut writer, reader) = statedb::table("frontends");
    writer.replace(rows);
    writer.mark_initialized();
    reader.snapshot()
}

fn block<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn target<K: Kernel>(kernel: &K) -> datapath::Result<Target> {
    let maglev = Maglev { size: 251, seed: "JLfvgnHc2kaSUFaI".to_owned() };
    let (services, warnings) = (statedb::table("services").1, k8s::Warnings::channel().0);
    let teller = Teller { services, pods: statedb::table("pods").1, node: "n1".into(), warnings };
    Target::new(Maps::open(kernel)?, Epochs::open(kernel)?, maglev, Arc::default(), teller)
}

struct Fixture {
    kernel: fake::Kernel,
    target: Target,
}

impl Fixture {
    fn new(kernel: fake::Kernel) -> Self {
        let target = target(&kernel).unwrap();
        Self { kernel, target }
    }

    fn update(&mut self, row: &Frontend) -> Result<(), Error> {
        block(self.target.update(row))
    }

    fn prune(&mut self, rows: impl IntoIterator<Item = Frontend>) {
        block(self.target.prune(&snapshot(rows))).unwrap();
    }

    /// How often any epoch was raised.
    fn raised(&self) -> u32 {
        Epochs::open(&self.kernel).unwrap().generation().unwrap()
    }

    /// The epochs of a frontend's and of backends' addresses.
    fn epochs<const N: usize>(&self, addresses: [&str; N]) -> [u32; N] {
        let epochs = Epochs::open(&self.kernel).unwrap();
        addresses.map(|address| epochs.peer(address.parse::<std::net::IpAddr>().unwrap()).unwrap())
    }

    /// Number of frontends, slots and backends in the maps. A member for each backend of each frontend is left out.
    fn sizes(&self) -> (usize, usize, usize) {
        let maps = Maps::open(&self.kernel).unwrap();
        let frontends = maps.services.keys().unwrap().into_iter().filter(|key| !key.is_mark()).count();
        let slots = maps.slots.keys().unwrap().into_iter().filter(|key| !key.is_member()).count();
        (frontends, slots, maps.backends.keys().unwrap().len())
    }

    /// The backends that a frontend of that number has, those without a slot too.
    fn members(&self, id: u32) -> Vec<u32> {
        let slots = Maps::open(&self.kernel).unwrap().slots.entries().unwrap();
        let members = slots.into_iter().filter(|(key, _)| key.is_member() && key.service == id);
        let mut members: Vec<u32> = members.map(|(key, value)| encode::backend_of(key, value)).collect();
        members.sort_unstable();
        members
    }

    /// The addresses that are marked.
    fn marks(&self) -> Vec<String> {
        let maps = Maps::open(&self.kernel).unwrap();
        let marks = maps.services.entries().unwrap().into_iter().filter(|(key, _)| key.is_mark());
        let mut marks: Vec<_> = marks
            .map(|(key, value)| {
                assert_eq!(value, lb::Service::MARK);
                IpAddr::from(key.addr).to_string()
            })
            .collect();
        marks.sort();
        marks
    }
}

/// Panics if a program that looks something up now could fall into a hole, or sends what nobody serves into the world.
fn no_holes(kernel: &fake::Kernel) {
    let maps = Maps::open(kernel).unwrap();
    for (key, service) in maps.services.entries().unwrap() {
        let mark = maps.services.get(&lb::ServiceKey::mark(key.addr)).unwrap();
        let owns_address = service.flags & lb::flags::NODE_PORT == 0;
        assert!(!owns_address || mark == Some(lb::Service::MARK), "{key:?} is at an address without a mark");
        if service.flags & lb::flags::MAGLEV != 0 && service.count > 0 {
            for position in 0..251_u32 {
                let (part, at) = (position / 256, position % 256);
                let part = maps.maglev.get(&lb::MaglevKey { service: service.id, part }).unwrap();
                let part = part.unwrap_or_else(|| panic!("{key:?} has no table"));
                let backend = part.backends.as_flattened()[at as usize];
                assert!(maps.backends.get(&backend).unwrap().is_some(), "{key:?} {position}: no backend {backend}");
            }
        }
        for slot in 0..service.count {
            let backend = maps.slots.get(&encode::slot_key(service.id, slot)).unwrap();
            let backend = backend.unwrap_or_else(|| panic!("{key:?} has no slot {slot}"));
            assert!(maps.backends.get(&backend).unwrap().is_some(), "{key:?} slot {slot}: no backend {backend}");
            let member = lb::SlotKey::member(service.id, backend);
            let value = maps.slots.get(&member).unwrap().map(|value| encode::backend_of(member, value));
            assert_eq!(value, Some(backend), "{key:?} slot {slot}: no member {backend}");
        }
    }
}

/// A kernel that takes a number of writes and then no more.
struct Until(fake::Kernel, Arc<AtomicUsize>);

impl Until {
    fn after(writes: usize, kernel: &fake::Kernel) -> Self {
        Self(kernel.clone(), Arc::new(AtomicUsize::new(writes)))
    }
}

impl datapath::Kernel for Until {
    fn open(&self, spec: datapath::MapSpec) -> datapath::Result<Arc<dyn RawMap>> {
        Ok(Arc::new(UntilMap(self.0.open(spec)?, Arc::clone(&self.1))))
    }
}

#[derive(Debug)]
struct UntilMap(Arc<dyn RawMap>, Arc<AtomicUsize>);

impl UntilMap {
    fn take(&self) -> io::Result<()> {
        let left = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| io::ErrorKind::PermissionDenied.into())
    }
}

impl RawMap for UntilMap {
    fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.0.lookup(key, value)
    }

    fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.take()?;
        self.0.update(key, value)
    }

    fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.take()?;
        self.0.delete(key)
    }

    fn entries(&self) -> io::Result<Vec<(Box<[u8]>, Box<[u8]>)>> {
        self.0.entries()
    }

    fn capacity(&self) -> u32 {
        self.0.capacity()
    }

    fn values_per_entry(&self) -> usize {
        self.0.values_per_entry()
    }
}

#[test]
fn a_service_grows_and_shrinks_and_leaves_nothing_behind() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    f.update(&frontend(1, vec![backend(1, true)])).unwrap();
    assert_eq!(f.sizes(), (1, 1, 1));
    f.update(&frontend(1, vec![backend(1, true), backend(2, true), backend(3, false)])).unwrap();
    assert_eq!(f.sizes(), (1, 2, 3), "an inactive backend has no slot");
    f.update(&frontend(1, vec![backend(2, true)])).unwrap();
    assert_eq!(f.sizes(), (1, 1, 1));
    f.update(&frontend(1, vec![])).unwrap();
    assert_eq!(f.sizes(), (1, 0, 0), "without backends the frontend stays, to refuse connections");
    block(f.target.delete(&frontend(1, vec![]).key)).unwrap();
    assert_eq!(f.sizes(), (0, 0, 0));
    block(f.target.delete(&frontend(1, vec![]).key)).unwrap();
}

#[test]
fn flows_of_a_frontend_that_went_while_no_agent_ran_are_decided_anew_though_their_backend_stays() {
    let mut before = Fixture::new(fake::Kernel::new());
    let rows = [1, 2].map(|n| frontend(n, vec![backend(1, true)]));
    before.prune([]);
    rows.iter().for_each(|row| before.update(row).unwrap());
    let mut after = Fixture::new(before.kernel);
    let addresses = ["10.96.0.1", "10.96.0.2", "10.0.0.1"];
    let raised = after.epochs(addresses);
    after.update(&rows[0]).unwrap();
    after.prune([rows[0].clone()]);
    let now = after.epochs(addresses);
    assert!(now[0] == raised[0] && now[1] > raised[1] && now[2] > raised[2], "{raised:?} {now:?}");
}

#[test]
fn the_epoch_of_a_backend_is_raised_when_it_leaves_and_no_other() {
    let mut f = Fixture::new(fake::Kernel::new());
    let all = ["10.96.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"];
    f.prune([]);
    f.update(&frontend(1, vec![backend(1, true), backend(2, true)])).unwrap();
    assert_eq!(f.epochs(all), [1, 0, 0, 0], "an address became a frontend");
    f.update(&frontend(1, vec![backend(1, true), backend(2, true)])).unwrap();
    f.update(&frontend(1, vec![backend(1, true), backend(2, true), backend(3, true)])).unwrap();
    assert_eq!(f.raised(), 1, "a further backend changes no decision");
    f.update(&frontend(1, vec![backend(1, true), backend(2, false), backend(3, true)])).unwrap();
    let [frontend_epoch, first, inactive, moved] = f.epochs(all);
    assert_eq!((frontend_epoch, first), (1, 0));
    assert!(inactive > 0, "a backend became inactive");
    f.update(&frontend(1, vec![backend(1, true), backend(3, true)])).unwrap();
    assert!(f.epochs(all)[2] > inactive, "a backend is gone");
    f.update(&frontend(1, vec![backend(1, true), backend(4, true)])).unwrap();
    assert!(f.epochs(all)[3] > moved, "a backend took another's place");
    assert_eq!(f.epochs(["10.96.0.1", "10.0.0.1"]), [1, 0]);
    block(f.target.delete(&frontend(1, vec![]).key)).unwrap();
    assert!(f.epochs(all)[0] > 1 && f.epochs(all)[1] > 0, "neither a frontend nor a backend any more");
    assert_eq!(Epochs::open(&f.kernel).unwrap().node().unwrap(), 0, "nobody else is concerned");
}

#[test]
fn a_backend_of_two_services_stays_until_the_last_lets_go() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    f.update(&frontend(1, vec![backend(1, true)])).unwrap();
    f.update(&frontend(2, vec![backend(1, true)])).unwrap();
    block(f.target.delete(&frontend(1, vec![]).key)).unwrap();
    assert_eq!(f.sizes(), (1, 1, 1));
    no_holes(&f.kernel);
}

#[test]
fn a_backend_is_a_member_of_its_service_until_it_leaves_though_another_keeps_it() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    f.update(&frontend(1, vec![backend(1, true), backend(2, false)])).unwrap();
    f.update(&frontend(2, vec![backend(1, true)])).unwrap();
    assert_eq!((f.members(2), f.members(3)), (vec![101, 102], vec![101]));
    let raised = f.epochs(["10.0.0.1"]);
    f.update(&frontend(1, vec![backend(2, true)])).unwrap();
    assert_eq!((f.members(2), f.members(3), f.sizes().2), (vec![102], vec![101], 2));
    assert!(f.epochs(["10.0.0.1"]) > raised, "flows that it has of the first service go elsewhere");
    let mut after = Fixture::new(f.kernel.clone());
    after.prune([frontend(2, vec![backend(1, true)])]);
    assert_eq!((after.members(2), after.members(3)), (vec![], vec![101]));
}

#[test]
fn a_backend_that_ends_for_one_service_takes_new_connections_of_another() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    f.update(&frontend(1, vec![backend(1, false), backend(2, true)])).unwrap();
    f.update(&frontend(2, vec![backend(1, true)])).unwrap();
    let takes = |f: &Fixture, service| {
        let member = lb::SlotKey::member(service, 101);
        Maps::open(&f.kernel).unwrap().slots.get(&member).unwrap().unwrap() & lb::DRAINS == 0
    };
    for _ in 0..2 {
        assert_eq!([2, 3].map(|service| takes(&f, service)), [false, true]);
        f.update(&frontend(1, vec![backend(1, false), backend(2, true)])).unwrap();
    }
    f.update(&frontend(1, vec![backend(1, true), backend(2, true)])).unwrap();
    assert!(takes(&f, 2));
}

#[test]
fn a_backend_that_gets_no_new_connections_is_outdated_again_when_it_leaves_for_good() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    f.update(&frontend(1, vec![backend(1, false)])).unwrap();
    f.update(&frontend(2, vec![backend(1, true)])).unwrap();
    let raised = f.epochs(["10.0.0.1"]);
    f.update(&frontend(1, vec![])).unwrap();
    assert!(f.members(2).is_empty() && f.epochs(["10.0.0.1"]) > raised);
}

#[test]
fn a_frontend_that_gets_another_number_leaves_nothing_under_the_one_it_had() {
    let mut before = Fixture::new(fake::Kernel::new());
    before.prune([]);
    before.update(&frontend(1, vec![backend(1, true), backend(2, false)])).unwrap();
    let renumbered = Frontend { id: 9, ..frontend(1, vec![backend(1, true)]) };
    let mut after = Fixture::new(before.kernel.clone());
    after.prune([renumbered.clone()]);
    after.update(&renumbered).unwrap();
    assert_eq!((after.members(2), after.members(9), after.sizes()), (vec![], vec![101], (1, 1, 1)));
    let again = Frontend { id: 10, ..renumbered };
    let mut last = Fixture::new(after.kernel);
    last.prune([again.clone()]);
    block(last.target.delete(&again.key)).unwrap();
    assert_eq!((last.members(9), last.sizes()), (vec![], (0, 0, 0)));
}

#[test]
fn a_restart_writes_nothing_that_is_right_and_removes_what_is_gone() {
    let mut before = Fixture::new(fake::Kernel::new());
    let (a, b) = (frontend(1, vec![backend(1, true), backend(2, true)]), frontend(2, vec![backend(2, true)]));
    before.prune([]);
    before.update(&a).unwrap();
    before.update(&b).unwrap();
    before.update(&frontend(3, vec![backend(3, true)])).unwrap();
    let raised = before.raised();

    let mut looking = target(&Until::after(0, &before.kernel)).unwrap();
    block(looking.update(&a)).unwrap();
    block(looking.update(&b)).unwrap();

    let mut after = Fixture::new(before.kernel.clone());
    after.update(&a).unwrap();
    after.update(&b).unwrap();
    assert_eq!(after.raised(), raised);
    after.prune([a, b]);
    assert_eq!(after.sizes(), (2, 3, 2));
    assert_eq!(after.raised(), raised + 2, "of the frontend that is gone and of its backend");
    no_holes(&after.kernel);
}

/// A frontend of which two are at one address.
fn neighbour(n: u8, backends: Vec<Backend>) -> Frontend {
    let key = FrontendKey::external(addr(&format!("10.96.0.{}", n / 2), 80 + u16::from(n)));
    Frontend { key, ..frontend(n, backends) }
}

#[test]
fn an_address_is_marked_from_its_first_frontend_to_its_last() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    f.update(&neighbour(2, vec![])).unwrap();
    f.update(&neighbour(3, vec![backend(1, true)])).unwrap();
    f.update(&neighbour(4, vec![])).unwrap();
    assert_eq!(f.marks(), ["10.96.0.1", "10.96.0.2"]);
    block(f.target.delete(&neighbour(2, vec![]).key)).unwrap();
    assert_eq!((f.marks().len(), f.sizes().0), (2, 2), "the other one is still there");
    let raised = f.epochs(["10.96.0.1"]);
    block(f.target.delete(&neighbour(3, vec![]).key)).unwrap();
    assert_eq!(f.marks(), ["10.96.0.2"]);
    assert!(f.epochs(["10.96.0.1"]) > raised, "what was dropped goes to the world again");
    block(f.target.delete(&neighbour(4, vec![]).key)).unwrap();
    assert!(f.marks().is_empty());
}

#[test]
fn after_a_restart_a_mark_stays_until_it_is_known_that_no_frontend_of_its_address_is_left() {
    let mut before = Fixture::new(fake::Kernel::new());
    before.prune([]);
    for n in 2..5 {
        before.update(&neighbour(n, vec![])).unwrap();
    }
    let mut after = Fixture::new(before.kernel.clone());
    block(after.target.delete(&neighbour(2, vec![]).key)).unwrap();
    assert_eq!((after.marks().len(), after.sizes().0), (2, 2), "the last process had another frontend there");
    no_holes(&after.kernel);
    let raised = after.epochs(["10.96.0.1", "10.96.0.2"]);
    after.prune([neighbour(3, vec![])]);
    assert_eq!((after.marks(), after.sizes().0), (vec!["10.96.0.1".to_owned()], 1));
    assert_eq!(after.epochs(["10.96.0.1"]), raised[..1], "nothing has changed there");
    assert!(after.epochs(["10.96.0.2"]) > [raised[1]]);
    block(after.target.delete(&neighbour(3, vec![]).key)).unwrap();
    assert!(after.marks().is_empty());
}

#[test]
fn an_entry_of_a_process_that_knew_no_marks_is_marked_and_its_flows_are_decided_anew() {
    let mut f = Fixture::new(fake::Kernel::new());
    f.prune([]);
    f.update(&frontend(1, vec![])).unwrap();
    let key = lb::ServiceKey::mark(frontend(1, vec![]).key.addr.ip.into());
    Maps::open(&f.kernel).unwrap().services.remove(&key).unwrap();
    let mut after = Fixture::new(f.kernel.clone());
    let raised = after.epochs(["10.96.0.1"]);
    after.update(&frontend(1, vec![])).unwrap();
    assert_eq!(after.marks(), ["10.96.0.1"]);
    assert!(after.epochs(["10.96.0.1"]) > raised);
}

/// What a frontend is like beside its backends.
#[derive(Clone, Copy, Debug)]
struct Traits {
    node_port: bool,
    maglev: bool,
    ranges: Option<(u8, bool)>,
}

impl Traits {
    fn of(self, row: Frontend) -> Frontend {
        let prefixes = |bits: u8| (0..4).filter(move |bit| bits & 1 << bit != 0);
        let prefixes = |bits| prefixes(bits).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        Frontend {
            kind: if self.node_port { ServiceKind::NodePort } else { ServiceKind::ClusterIp },
            owns_address: !self.node_port,
            algorithm: if self.maglev { Algorithm::Maglev } else { Algorithm::Random },
            source_ranges: self.ranges.map(|(bits, deny)| Arc::new(SourceRanges { prefixes: prefixes(bits), deny })),
            ..row
        }
    }
}

fn traits() -> impl Strategy<Value = Traits> {
    let ranges = prop::option::of((0..16u8, any::<bool>()));
    (any::<bool>(), any::<bool>(), ranges).prop_map(|(node_port, maglev, ranges)| Traits { node_port, maglev, ranges })
}

/// Frontends, whether they get another number, what they are like, and their backends; none when they go.
/// The last says whether a newer row comes when the first attempt has failed.
fn rows() -> impl Strategy<Value = Vec<(u8, bool, Option<(Traits, Vec<(u8, bool)>)>, bool)>> {
    let backends = prop::collection::btree_map(0..6u8, any::<bool>(), 0..5).prop_map(|m| m.into_iter().collect());
    let row = prop::option::weighted(0.8, (traits(), backends));
    prop::collection::vec((0..4u8, any::<bool>(), row, any::<bool>()), 1..20)
}

proptest! {
    #[test]
    fn whatever_fails_there_is_never_a_hole_and_in_the_end_the_maps_are_exact(
        events in rows(), seed: u64, p in 0.05..0.15f64, restart in prop::option::of(0..20usize), direct: bool,
    ) {
        let kernel = fake::Kernel::new();
        let chaos = fake::chaos(kernel.clone(), p, seed);
        let open = || loop {
            if let Ok(target) = target(&chaos) {
                return target;
            }
        };
        let mut target = open();
        let mut desired: BTreeMap<u8, Frontend> = BTreeMap::new();
        until_ok(&kernel, || block(target.prune(&snapshot([]))));
        let mut numbers = [1, 2, 3, 4];
        for (step, (n, renumbered, backends, once)) in events.into_iter().enumerate() {
            if restart == Some(step) {
                target = open();
                for row in desired.values() {
                    until_ok(&kernel, || block(target.update(row)));
                }
                until_ok(&kernel, || block(target.prune(&snapshot(desired.values().cloned()))));
            }
            match backends {
                Some((traits, backends)) => {
                    let id = &mut numbers[usize::from(n)];
                    *id += if renumbered { 10 } else { 0 };
                    let backends = backends.into_iter().map(|(n, active)| backend(n, active)).collect();
                    let forwarding = if direct { Forwarding::Dsr } else { Forwarding::Snat };
                    let row = traits.of(Frontend { id: *id, forwarding, ..neighbour(n, backends) });
                    desired.insert(n, row.clone());
                    attempt(&kernel, once, || block(target.update(&row)));
                }
                None => {
                    desired.remove(&n);
                    attempt(&kernel, once, || block(target.delete(&neighbour(n, vec![]).key)));
                }
            }
        }
        for n in 0..4 {
            until_ok(&kernel, || match desired.get(&n) {
                Some(row) => block(target.update(row)),
                None => block(target.delete(&neighbour(n, vec![]).key)),
            });
        }
        let mut scratch = Fixture::new(fake::Kernel::new());
        desired.values().for_each(|row| scratch.update(row).unwrap());
        let content = |kernel: &fake::Kernel| {
            let maps = Maps::open(kernel).unwrap();
            let (mut a, mut b, mut c) =
                (maps.services.entries().unwrap(), maps.slots.entries().unwrap(), maps.backends.entries().unwrap());
            a.sort();
            b.sort();
            c.sort();
            let (mut d, mut e) = (maps.ranges.keys().unwrap(), maps.maglev.entries().unwrap());
            d.sort();
            e.sort();
            let mut f = maps.ids.entries().unwrap();
            f.sort_by_key(|(key, id)| (key.service, IpAddr::from(key.addr), *id));
            (a, b, c, d, (e, f))
        };
        prop_assert_eq!(content(&kernel), content(&scratch.kernel));
        let maps = Maps::open(&kernel).unwrap();
        let held = [
            maps.services.keys().unwrap().len(),
            maps.slots.keys().unwrap().len(),
            maps.backends.keys().unwrap().len(),
            maps.ids.keys().unwrap().len(),
            maps.ranges.keys().unwrap().len(),
            maps.maglev.keys().unwrap().len(),
        ];
        prop_assert_eq!(target.shares.all().0, held, "what is charged is what is there");
    }
}

/// Tries an operation once, or until it succeeds.
fn attempt(kernel: &fake::Kernel, once: bool, mut operation: impl FnMut() -> Result<(), Error>) {
    if once {
        // It is made up for in the end.
        drop(operation());
        no_holes(kernel);
    } else {
        until_ok(kernel, operation);
    }
}

/// Repeats an operation until it succeeds, and looks at the maps after each attempt.
fn until_ok(kernel: &fake::Kernel, mut operation: impl FnMut() -> Result<(), Error>) {
    for _ in 0..10_000 {
        let result = operation();
        no_holes(kernel);
        if result.is_ok() {
            return;
        }
    }
    panic!("it never succeeds");
}

#[test]
fn a_backend_that_leaves_while_nobody_looks_is_no_member_after_the_restart() {
    let mut before = Fixture::new(fake::Kernel::new());
    before.prune([]);
    before.update(&frontend(1, vec![backend(1, true), backend(2, true)])).unwrap();
    let raised = before.epochs(["10.0.0.2"]);
    let row = frontend(1, vec![backend(1, true)]);
    let mut after = Fixture::new(before.kernel);
    after.update(&row).unwrap();
    after.prune([row]);
    assert_eq!((after.members(2), after.sizes()), (vec![101], (1, 1, 1)));
    assert!(after.epochs(["10.0.0.2"]) > raised, "flows that it has go elsewhere");
}
