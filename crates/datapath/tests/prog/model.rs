// SPDX-License-Identifier: Apache-2.0
//! The datapath against a naive model of it, over whatever may happen between few pods, peers, services and the world: packets of any
//! direction from right and wrong places, changes of policy, identities, pods, backends and routes that are told at once or later,
//! flows that are lost, and time.
//!
//! A failure names the seed of its sequence, and the fewest steps that still fail. `MODEL_SEED=<seed>` runs that sequence alone;
//! `MODEL_SEQUENCES=<number>` runs more of them, or fewer. `MODEL_SHRINK=0` leaves the steps as they are.

mod drive;
mod dump;
mod naive;
mod steps;
mod talk;
mod wire;

use abi::config::ProgramConfig;
use datapath::bpf::Options;

use crate::world::{World, families};
use drive::Drive;
use steps::Step;

/// A table that is never full.
const ROOMY: u32 = 1024;

/// What goes wrong in a sequence, and at which step.
fn failure(world: &mut World, seed: u64, interfaces: [u32; 3], steps: &[Step]) -> Option<(usize, String)> {
    let mut drive = Drive::new(world, families()[(seed % 2) as usize], interfaces);
    steps.iter().enumerate().find_map(|(at, step)| drive.step(*step).err().map(|error| (at, error)))
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

/// Runs so many sequences, with a table of that many entries, and with tunnels between nodes or without.
fn compare(sequences: u64, flows: u32, tunnel: bool) {
    let on = u8::from(tunnel);
    let config = ProgramConfig { tunnel: on, direct_tunnel: on, event_interval: u32::MAX, ..ProgramConfig::default() };
    World::test_with(Options { config, flows, ..Options::default() }, move |world| {
        let interfaces = [world.a.ifindex, world.b.ifindex, world.add_device("lxc_c")];
        let wanted = |name| std::env::var(name).ok().map(|number| -> u64 { number.parse().unwrap() });
        let all = 0..wanted("MODEL_SEQUENCES").unwrap_or(sequences);
        let seeds = wanted("MODEL_SEED").map_or(all, |seed| seed..seed + 1);
        for seed in seeds {
            let steps = steps::sequence(seed, flows < ROOMY);
            let Some((at, error)) = failure(world, seed, interfaces, &steps) else { continue };
            assert!(wanted("MODEL_SHRINK") != Some(0), "MODEL_SEED={seed}, step {at}: {error}");
            let fewest = shrink(world, seed, interfaces, steps[..=at].to_vec());
            let again = failure(world, seed, interfaces, &fewest);
            panic!("MODEL_SEED={seed}, step {at}: {error}\n{fewest:#?}\n{again:?}");
        }
    });
}

#[test]
fn the_datapath_does_as_a_naive_model_of_it() {
    compare(300, ROOMY, true);
}

#[test]
fn the_datapath_does_so_where_the_network_routes_pods() {
    compare(100, ROOMY, false);
}

#[test]
fn the_datapath_does_so_where_not_everything_can_be_remembered() {
    compare(100, 64, true);
}
