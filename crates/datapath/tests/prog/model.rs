// SPDX-License-Identifier: Apache-2.0
//! The datapath against a naive model of it, over whatever may happen between few pods, peers, services and the world: packets of any
//! direction from right and wrong places, changes of policy, identities, pods, services, backends and routes that are told at once or later,
//! flows that are lost, and time. Clients outside speak to ports of the node and to addresses of load balancers, by this node and by another,
//! and are served at tc alone or before the stack as well.
//!
//! A failure names the seed of its sequence, and the fewest steps that still fail. `MODEL_SEED=<seed>` runs that sequence alone;
//! `MODEL_SEQUENCES=<number>` runs more of them, or fewer. `MODEL_SHRINK=0` leaves the steps as they are.

mod drive;
mod dump;
mod naive;
mod offers;
mod steps;
mod talk;
mod wire;

use abi::config::ProgramConfig;
use datapath::bpf::Options;

use crate::devices::here;
use crate::world::{World, families};
use drive::Drive;
use steps::{Kind, Step};

/// A table that is never full.
const ROOMY: u32 = 1024;

/// What goes wrong in a sequence, and at which step; and how many packets were served before the stack.
fn run(world: &mut World, seed: u64, interfaces: [u32; 3], steps: &[Step]) -> (Option<(usize, String)>, u32) {
    let mut drive = Drive::new(world, families()[(seed % 2) as usize], interfaces);
    let failure = steps.iter().enumerate().find_map(|(at, step)| drive.step(*step).err().map(|error| (at, error)));
    (failure, drive.early)
}

fn failure(world: &mut World, seed: u64, interfaces: [u32; 3], steps: &[Step]) -> Option<(usize, String)> {
    run(world, seed, interfaces, steps).0
}

/// Leaves steps out for as long as it still fails. What the programs choose by chance may hide a failure, so each is tried more than once.
fn shrink(world: &mut World, seed: u64, interfaces: [u32; 3], mut steps: Vec<Step>) -> Vec<Step> {
    for size in [16, 4, 1, 1] {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            match (0..3).find_map(|_| failure(world, seed, interfaces, &fewer)) {
                Some((last, _)) => steps = fewer[..=last].to_vec(),
                None => at += size,
            }
        }
    }
    steps
}

/// Tunnels lead to other nodes.
fn tunnelled() -> ProgramConfig {
    ProgramConfig { tunnel: 1, direct_tunnel: 1, event_interval: u32::MAX, ..ProgramConfig::default() }
}

/// The network routes pods.
fn routed() -> ProgramConfig {
    ProgramConfig { tunnel: 0, direct_tunnel: 0, ..tunnelled() }
}

/// Clients outside are served, and may be answered directly where the network routes pods.
fn exposed(config: ProgramConfig) -> ProgramConfig {
    ProgramConfig { expose_services: 1, direct_return: 1 - config.tunnel, ..config }
}

/// The same before the stack as well.
fn early(config: ProgramConfig) -> ProgramConfig {
    ProgramConfig { accelerate: 1, ..exposed(config) }
}

/// Runs so many sequences, with a table of that many entries.
fn compare(sequences: u64, flows: u32, config: ProgramConfig) {
    World::test_with(Options { config, flows, ..Options::default() }, move |world| {
        let interfaces = [world.a.ifindex, world.b.ifindex, world.add_device("lxc_c")];
        know_neighbours();
        let wanted = |name| std::env::var(name).ok().map(|number| -> u64 { number.parse().unwrap() });
        let all = 0..wanted("MODEL_SEQUENCES").unwrap_or(sequences);
        let seeds = wanted("MODEL_SEED").map_or(all, |seed| seed..seed + 1);
        let (mut early, count) = (0, seeds.end - seeds.start);
        for seed in seeds {
            let kind = Kind { crowded: flows < ROOMY, outside: config.expose_services != 0 };
            let steps = steps::sequence(seed, kind);
            let (failed, served) = run(world, seed, interfaces, &steps);
            early += u64::from(served);
            let Some((at, error)) = failed else { continue };
            assert!(wanted("MODEL_SHRINK") != Some(0), "MODEL_SEED={seed}, step {at}: {error}");
            let fewest = shrink(world, seed, interfaces, steps[..=at].to_vec());
            let again = failure(world, seed, interfaces, &fewest);
            panic!("MODEL_SEED={seed}, step {at}: {error}\n{fewest:#?}\n{again:?}");
        }
        assert!(config.accelerate == 0 || early >= count, "only {early} packets were served before the stack");
    });
}

/// Whom packets are sent to before the stack.
fn know_neighbours() {
    for ip in ["192.0.2.1", "192.0.2.20", "192.0.2.30", "2001:db8::1"] {
        here(&format!("ip neigh replace {ip} lladdr 02:00:00:00:0c:01 dev eth0 nud permanent"));
    }
}

/// Such clients' packets go to their backends' nodes inside of others.
fn inside(config: ProgramConfig) -> ProgramConfig {
    ProgramConfig { direct_ipip: 1, ..config }
}

#[test]
fn the_datapath_does_as_a_naive_model_of_it() {
    compare(300, ROOMY, tunnelled());
}

#[test]
fn the_datapath_does_so_where_the_network_routes_pods() {
    compare(100, ROOMY, routed());
}

#[test]
fn the_datapath_does_so_where_not_everything_can_be_remembered() {
    compare(100, 64, tunnelled());
}

#[test]
fn the_datapath_does_so_for_clients_outside() {
    compare(150, ROOMY, exposed(tunnelled()));
}

#[test]
fn the_datapath_does_so_where_clients_outside_may_be_answered_directly() {
    compare(300, ROOMY, exposed(routed()));
}

#[test]
fn the_datapath_does_so_for_clients_outside_before_the_stack() {
    compare(100, ROOMY, early(tunnelled()));
}

#[test]
fn the_datapath_does_so_where_clients_are_answered_directly_before_the_stack() {
    compare(150, ROOMY, early(routed()));
}

#[test]
fn the_datapath_does_so_where_clients_packets_go_to_backends_inside_of_others() {
    compare(300, ROOMY, inside(exposed(routed())));
}

#[test]
fn the_datapath_does_so_where_they_do_before_the_stack() {
    compare(150, ROOMY, inside(early(routed())));
}
